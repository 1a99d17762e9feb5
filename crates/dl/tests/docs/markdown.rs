//! As much of Markdown as these pages use: fenced blocks, headings, links.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A page of this repository.
#[derive(Debug)]
pub(crate) struct Page {
    /// Its path in the repository.
    pub(crate) name: String,
    pub(crate) text: String,
}

/// A fenced block.
#[derive(Debug)]
pub(crate) struct Block {
    /// `README.md:17`, its first line.
    pub(crate) place: String,
    /// The first word behind the backticks.
    pub(crate) language: String,
    /// The others: `sql`, `exit:2`, `file:dl.toml`.
    pub(crate) words: Vec<String>,
    pub(crate) text: String,
}

impl Block {
    pub(crate) fn has(&self, word: &str) -> bool {
        self.words.iter().any(|w| w == word)
    }

    /// The value of `key:value`.
    pub(crate) fn value(&self, key: &str) -> Option<&str> {
        self.words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix(':'))
    }
}

/// The folder of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// All pages whose blocks are run, by their names.
pub(crate) fn pages() -> Vec<Page> {
    let root = root();
    let mut names = vec![
        "ARCHITECTURE.md".to_owned(),
        "CONTRIBUTING.md".to_owned(),
        "README.md".to_owned(),
        "dev/README.md".to_owned(),
    ];
    let mut folders = vec![root.join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            // What mdBook has made is in `docs/book`.
            if path.is_dir() && path != root.join("docs/book") {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "md") {
                names.push(path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    names.sort();
    names.into_iter().map(|name| page(&name)).collect()
}

pub(crate) fn page(name: &str) -> Page {
    let path = root().join(name);
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()));
    Page { name: name.to_owned(), text }
}

impl Page {
    /// Its fenced blocks, in order.
    pub(crate) fn blocks(&self) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        let mut open: Option<Block> = None;
        for (number, line) in self.text.lines().enumerate() {
            let fence = line.trim_start().strip_prefix("```");
            match (&mut open, fence) {
                (None, Some(info)) => {
                    let mut words = info.split(',').map(|word| word.trim().to_owned());
                    open = Some(Block {
                        place: format!("{}:{}", self.name, number + 1),
                        language: words.next().unwrap_or_default(),
                        words: words.collect(),
                        text: String::new(),
                    });
                }
                (Some(block), None) => {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "a block of {} has no end", self.name);
        blocks
    }

    /// The lines outside of blocks, with their numbers from 1.
    pub(crate) fn prose(&self) -> Vec<(usize, &str)> {
        let mut inside = false;
        let mut lines = Vec::new();
        for (number, line) in self.text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                inside = !inside;
            } else if !inside {
                lines.push((number + 1, line));
            }
        }
        lines
    }

    /// Where its links go: line and target. What stands in backticks is no link.
    pub(crate) fn links(&self) -> Vec<(usize, String)> {
        let mut links = Vec::new();
        for (number, line) in self.prose() {
            let line = without_code(line);
            for (at, _) in line.match_indices("](") {
                let target = line[at + 2..].split([')', ' ']).next().unwrap_or_default();
                links.push((number, target.to_owned()));
            }
        }
        links
    }

    /// What stands in single backticks, with the line.
    pub(crate) fn code(&self) -> Vec<(usize, String)> {
        let mut spans = Vec::new();
        for (number, line) in self.prose() {
            for span in line.split('`').skip(1).step_by(2) {
                spans.push((number, span.to_owned()));
            }
        }
        spans
    }

    /// What may stand behind `#` in a link to it.
    pub(crate) fn anchors(&self) -> BTreeSet<String> {
        let mut anchors = BTreeSet::new();
        for (_, line) in self.prose() {
            let title = line.trim_start_matches('#');
            if title.len() < line.len() && title.starts_with(' ') {
                let slug = slug(title.trim());
                assert!(anchors.insert(slug.clone()), "{} has two headings #{slug}", self.name);
            }
        }
        anchors
    }
}

fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("``")
}

/// As forges and mdBook make it of a heading.
fn slug(title: &str) -> String {
    title
        .to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            '-' | '_' => Some(c),
            c if c.is_alphanumeric() => Some(c),
            _ => None,
        })
        .collect()
}

#[test]
fn blocks_links_and_headings_are_found() {
    let text =
        "# One `two`\n[a](b.md#c) `[no](link)`\n```sh,sql,exit:2\n# no heading\n```\n## It's, it\n";
    let page = Page { name: "x.md".to_owned(), text: text.to_owned() };
    assert_eq!(page.links(), [(2, "b.md#c".to_owned())]);
    assert_eq!(page.code(), [(1, "two".to_owned()), (2, "[no](link)".to_owned())]);
    assert_eq!(page.anchors().into_iter().collect::<Vec<_>>(), ["its-it", "one-two"]);
    let blocks = page.blocks();
    let [block] = &blocks[..] else { panic!("{blocks:?}") };
    assert_eq!((&*block.place, &*block.language, &*block.text), ("x.md:3", "sh", "# no heading\n"));
    assert!(block.has("sql") && !block.has("python"));
    assert_eq!((block.value("exit"), block.value("file")), (Some("2"), None));
}
