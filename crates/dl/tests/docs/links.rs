//! Links lead somewhere, and the book has every page.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use crate::markdown::{Page, page, pages, root};

/// Pages that have no blocks to run, and links.
const MORE: [&str; 4] =
    ["CHANGELOG.md", "RELEASING.md", "tests/conformance/README.md", "tests/contention/README.md"];

/// `docs/src/a/../b.md` without the detour.
fn tidy(path: &Path) -> PathBuf {
    let mut tidy = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => assert!(tidy.pop(), "{} leaves the repository", path.display()),
            Component::CurDir => {}
            part => tidy.push(part),
        }
    }
    tidy
}

/// What is wrong with a link, if anything is.
fn trouble(from: &Page, target: &str) -> Option<String> {
    if ["https://", "http://", "mailto:"].iter().any(|scheme| target.starts_with(scheme)) {
        return None;
    }
    let (file, anchor) = target.split_once('#').map_or((target, None), |(f, a)| (f, Some(a)));
    let folder = Path::new(&from.name).parent().unwrap();
    let path = match file {
        "" => PathBuf::from(&from.name),
        file => tidy(&folder.join(file)),
    };
    if !root().join(&path).exists() {
        return Some(format!("there is no {}", path.display()));
    }
    let is_page = path.extension().is_some_and(|e| e == "md");
    // mdBook makes `.html` of `.md`, also where it has not made the page.
    if from.name.starts_with("docs/src/") && is_page && !path.starts_with("docs/src") {
        return Some("a page of the book cannot link to a page outside of it".to_owned());
    }
    let anchor = anchor?;
    if !is_page {
        return Some(format!("#{anchor} is in no page"));
    }
    let known = page(path.to_str().unwrap()).anchors();
    (!known.contains(anchor)).then(|| format!("{} has no heading #{anchor}", path.display()))
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let mut wrong = Vec::new();
    let mut links = 0;
    for page in pages().into_iter().chain(MORE.into_iter().map(page)) {
        for (line, target) in page.links() {
            links += 1;
            if let Some(why) = trouble(&page, &target) {
                wrong.push(format!("{}:{line}: {target}: {why}", page.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(links > 50, "{links} links were found");
}

#[test]
fn the_summary_lists_every_page_once() {
    let listed: Vec<String> = page("docs/src/SUMMARY.md")
        .links()
        .into_iter()
        .map(|(_, target)| format!("docs/src/{target}"))
        .collect();
    let unique: BTreeSet<&String> = listed.iter().collect();
    assert_eq!(unique.len(), listed.len(), "a page is listed twice");
    let there: Vec<String> = pages()
        .into_iter()
        .map(|page| page.name)
        .filter(|name| name.starts_with("docs/") && name != "docs/src/SUMMARY.md")
        .collect();
    assert_eq!(unique, there.iter().collect(), "listed, and there");
}

#[test]
fn wrong_links_are_noticed() {
    let from = page("docs/src/SUMMARY.md");
    for (target, right) in [
        ("https://delta.io", true),
        ("introduction.md", true),
        ("../book.toml", true),
        ("nowhere.md", false),
        ("introduction.md#no-such-heading", false),
        ("../../README.md", false),
    ] {
        let found = trouble(&from, target);
        assert_eq!(found.is_none(), right, "{target}: {found:?}");
    }
}
