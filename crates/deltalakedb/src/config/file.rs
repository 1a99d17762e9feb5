//! Reading a config file, TOML or YAML, into values with their lines.

use std::path::Path;

use saphyr_parser::{Event, Parser, ScalarStyle};
use toml_edit::{ImDocument, Item, TableLike, Value};

/// A config file is never longer, bytes.
const LONGEST: u64 = 1024 * 1024;
/// Nor nested deeper.
const DEEPEST: usize = 16;

/// A value of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leaf {
    /// The keys on the way to it.
    pub(crate) path: Vec<String>,
    /// Line of its key, from 1.
    pub(crate) line: usize,
    pub(crate) value: LeafValue,
}

/// What stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LeafValue {
    /// A string.
    Text(String),
    /// A number, a date, true or false, as it is written.
    Bare(String),
    /// Nothing: `key:` of YAML.
    Nothing,
    /// A list, with its scalars; none if it has something else in it.
    List(Option<Vec<String>>),
    /// A section with nothing in it.
    Empty,
}

/// A file that cannot be read: the line if it is known, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unreadable {
    pub(crate) line: Option<usize>,
    pub(crate) why: String,
}

fn unreadable(why: impl Into<String>) -> Unreadable {
    Unreadable { line: None, why: why.into() }
}

/// Reads a file by its ending: `.yaml` and `.yml` are YAML, the others TOML.
pub(crate) fn read(file: &Path) -> Result<Vec<Leaf>, Unreadable> {
    use std::io::Read;

    let ending = file.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    let mut text = String::new();
    let opened =
        std::fs::File::open(file).map_err(|e| unreadable(format!("cannot be read: {e}")))?;
    opened
        .take(LONGEST + 1)
        .read_to_string(&mut text)
        .map_err(|e| unreadable(format!("cannot be read: {e}")))?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > LONGEST {
        return Err(unreadable(format!("is longer than {LONGEST} bytes: that is no config file")));
    }
    // An editor's byte order mark says nothing.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    match ending.as_str() {
        "yaml" | "yml" => yaml(text),
        // Whatever its ending is, as ever.
        _ => toml(text),
    }
}

fn line_of(text: &str, at: usize) -> usize {
    let before = text.get(..at).unwrap_or(text);
    1 + before.matches('\n').count()
}

/// Reads TOML.
pub(crate) fn toml(text: &str) -> Result<Vec<Leaf>, Unreadable> {
    let document = ImDocument::parse(text).map_err(|error| Unreadable {
        line: error.span().map(|span| line_of(text, span.start)),
        // The first line alone: what follows may repeat what the file says, a password too.
        why: error.message().lines().next().unwrap_or("is no TOML").to_owned(),
    })?;
    let mut leaves = Vec::new();
    table(text, document.as_table(), &mut Vec::new(), &mut leaves)?;
    leaves.sort_by_key(|leaf| leaf.line);
    Ok(leaves)
}

fn table(
    text: &str,
    from: &dyn TableLike,
    path: &mut Vec<String>,
    leaves: &mut Vec<Leaf>,
) -> Result<(), Unreadable> {
    if path.len() > DEEPEST {
        return Err(unreadable("is nested too deep"));
    }
    for (name, item) in from.iter() {
        let span = from.key(name).and_then(toml_edit::Key::span).or_else(|| item.span());
        let line = span.map_or(1, |span| line_of(text, span.start));
        path.push(name.to_owned());
        if let Some(inner) = item.as_table_like() {
            if inner.is_empty() {
                leaves.push(Leaf { path: path.clone(), line, value: LeafValue::Empty });
            }
            table(text, inner, path, leaves)?;
        } else {
            let value = match item {
                Item::Value(value) => toml_value(text, value),
                _ => LeafValue::List(None),
            };
            leaves.push(Leaf { path: path.clone(), line, value });
        }
        path.pop();
    }
    Ok(())
}

fn toml_value(text: &str, value: &Value) -> LeafValue {
    match value {
        Value::String(string) => LeafValue::Text(string.value().clone()),
        Value::Array(array) => {
            let scalars = array.iter().map(|value| match toml_value(text, value) {
                LeafValue::Text(text) | LeafValue::Bare(text) => Some(text),
                _ => None,
            });
            LeafValue::List(scalars.collect())
        }
        other => {
            let written = other.span().and_then(|span| text.get(span)).unwrap_or_default();
            // TOML's numbers may have underscores.
            LeafValue::Bare(written.trim().replace('_', ""))
        }
    }
}

/// What a YAML document is being read into.
enum Open {
    /// A mapping, whose next event is a key.
    Key,
    /// A mapping, whose next event is the value of the key that the path ends in.
    Value { line: usize },
    /// A list of scalars, and the line of its key.
    List { line: usize, scalars: Option<Vec<String>> },
}

/// Reads YAML. Anchors and merges are no part of a config file: they are refused.
pub(crate) fn yaml(text: &str) -> Result<Vec<Leaf>, Unreadable> {
    let mut leaves = Vec::new();
    let mut path: Vec<String> = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    let mut documents = 0;
    let mut seen = std::collections::BTreeSet::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| Unreadable {
            line: Some(error.marker().line()),
            why: error.info().to_owned(),
        })?;
        let line = span.start.line();
        let wrong = |why: &str| Err(Unreadable { line: Some(line), why: why.to_owned() });
        match event {
            Event::DocumentStart(_) => {
                documents += 1;
                if documents > 1 {
                    return wrong("a config file is one document of YAML");
                }
            }
            Event::Alias(_) => {
                return wrong("anchors and aliases are not read: write the value itself");
            }
            Event::Scalar(scalar, style, ..) => match open.last_mut() {
                None if scalar.is_empty() || &*scalar == "~" => {}
                None => return wrong("a config file is a mapping: lines of `key: value`"),
                Some(state @ Open::Key) => {
                    path.push(scalar.into_owned());
                    if !seen.insert(path.clone()) {
                        return wrong("this key stands twice");
                    }
                    *state = Open::Value { line };
                }
                Some(state @ Open::Value { .. }) => {
                    let Open::Value { line } = *state else { continue };
                    let value = match style {
                        ScalarStyle::Plain
                            if matches!(&*scalar, "" | "~" | "null" | "Null" | "NULL") =>
                        {
                            LeafValue::Nothing
                        }
                        // A plain scalar of YAML is text too.
                        _ => LeafValue::Text(scalar.into_owned()),
                    };
                    leaves.push(Leaf { path: path.clone(), line, value });
                    path.pop();
                    *state = Open::Key;
                }
                Some(Open::List { scalars, .. }) => {
                    if let Some(scalars) = scalars {
                        scalars.push(scalar.into_owned());
                    }
                }
            },
            Event::MappingStart(..) => {
                if open.len() > DEEPEST {
                    return wrong("is nested too deep");
                }
                match open.last_mut() {
                    None | Some(Open::Value { .. }) => {}
                    Some(Open::Key) => return wrong("a key is a word"),
                    Some(Open::List { scalars, .. }) => {
                        *scalars = None;
                        return wrong("a list of sections means nothing here");
                    }
                }
                open.push(Open::Key);
            }
            Event::MappingEnd => {
                open.pop();
                let inner = leaves.last().is_some_and(|leaf: &Leaf| leaf.path.starts_with(&path));
                if let Some(state) = open.last_mut() {
                    if let Open::Value { line } = *state
                        && !inner
                    {
                        leaves.push(Leaf { path: path.clone(), line, value: LeafValue::Empty });
                    }
                    path.pop();
                    *state = Open::Key;
                }
            }
            Event::SequenceStart(..) => match open.last() {
                Some(Open::Value { line }) => {
                    let line = *line;
                    open.push(Open::List { line, scalars: Some(Vec::new()) });
                }
                Some(Open::Key) => return wrong("a key is a word"),
                Some(Open::List { .. }) => return wrong("a list of lists means nothing here"),
                None => return wrong("a config file is a mapping: lines of `key: value`"),
            },
            Event::SequenceEnd => {
                if let Some(Open::List { line, scalars }) = open.pop() {
                    let value = LeafValue::List(scalars);
                    leaves.push(Leaf { path: path.clone(), line, value });
                }
                path.pop();
                if let Some(state) = open.last_mut() {
                    *state = Open::Key;
                }
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
    }
    Ok(leaves)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(leaves: Vec<Leaf>) -> Vec<(String, usize, LeafValue)> {
        leaves.into_iter().map(|leaf| (leaf.path.join("."), leaf.line, leaf.value)).collect()
    }

    #[test]
    fn toml_and_yaml_are_read_alike_with_their_lines() {
        let toml = toml(
            "catalog = 'a'\n[connection]\npool_size = 1_0\n\n[profiles.dev.cache]\nsize = '1MiB'\nx = [1, 'b']\n[retry]\n",
        );
        let yaml = yaml(
            "catalog: a\nconnection:\n  pool_size: 10\n\nprofiles: {dev: {\n  cache: {size: \"1MiB\",\n   x: [1, 'b']}}}\nretry: {}\n",
        );
        let text = |text: &str| LeafValue::Text(text.to_owned());
        let list = LeafValue::List(Some(vec!["1".to_owned(), "b".to_owned()]));
        assert_eq!(
            flat(toml.unwrap()),
            [
                ("catalog".to_owned(), 1, text("a")),
                ("connection.pool_size".to_owned(), 3, LeafValue::Bare("10".to_owned())),
                ("profiles.dev.cache.size".to_owned(), 6, text("1MiB")),
                ("profiles.dev.cache.x".to_owned(), 7, list.clone()),
                ("retry".to_owned(), 8, LeafValue::Empty),
            ]
        );
        assert_eq!(
            flat(yaml.unwrap()),
            [
                ("catalog".to_owned(), 1, text("a")),
                ("connection.pool_size".to_owned(), 3, text("10")),
                ("profiles.dev.cache.size".to_owned(), 6, text("1MiB")),
                ("profiles.dev.cache.x".to_owned(), 7, list),
                ("retry".to_owned(), 8, LeafValue::Empty),
            ]
        );
    }

    #[test]
    fn what_is_no_config_file_is_refused_with_its_line() {
        for (text, line) in [
            ("a: 1\na: 2\n", Some(2)),
            ("a: &x 1\nb: *x\n", Some(2)),
            ("a:\n\t- 1\n", None),
            ("- a\n", Some(1)),
            ("just words\n", Some(1)),
            ("a: 1\n---\nb: 2\n", None),
            ("a: [[1]]\n", Some(1)),
            ("a:\n - {b: 1}\n", Some(2)),
        ] {
            let error = yaml(text).unwrap_err();
            assert!(error.line.is_some(), "{text}: {error:?}");
            if line.is_some() {
                assert_eq!(error.line, line, "{text}: {error:?}");
            }
        }
        assert_eq!(toml("a = 1\nb = geheim\n").unwrap_err().line, Some(2));
        assert!(!toml("a = 1\nb = geheim\n").unwrap_err().why.contains("geheim"));
        assert_eq!(toml("a = 1\na = 2\n").unwrap_err().line, Some(2));
        assert_eq!(yaml("").unwrap(), []);
        assert_eq!(yaml("a:\nb: ~\n").unwrap().len(), 2);
        let deep = "a: {".repeat(40);
        assert!(yaml(&deep).is_err());
        let bomb = format!("a = {}", "[".repeat(5_000));
        assert!(toml(&bomb).is_err());
    }
}
