//! Removes whose paths are spelt in another way than the files of the table.

use std::collections::HashMap;

use deltalakedb_catalog_core::action::Action;
use deltalakedb_catalog_core::paths::{TableRoot, relative_key};
use serde_json::Value;

/// Removes of a commit whose paths may be spelt in several ways, and how the table spells them.
#[derive(Debug, Default)]
pub(crate) struct Removes {
    /// By what a path means: the spellings of files in the table.
    spellings: HashMap<String, Vec<String>>,
}

impl Removes {
    /// Those of a commit; none if all of its removes have plain paths.
    pub(crate) fn in_commit(commit: &[u8]) -> Option<Removes> {
        let mut removes = Removes::default();
        for path in lines(commit).filter_map(odd_remove) {
            removes.spellings.entry(relative_key(&path).into_owned()).or_default();
        }
        (!removes.spellings.is_empty()).then_some(removes)
    }

    /// Looks at the path of a file in the table.
    pub(crate) fn look_at(&mut self, path: &str) {
        // Most files are none of these, and have plain paths.
        if let Some(spellings) = self.spellings.get_mut(relative_key(path).as_ref())
            && !spellings.iter().any(|known| known == path)
        {
            spellings.push(path.to_owned());
        }
    }

    /// Looks at the files that a commit adds.
    pub(crate) fn look_at_commit(&mut self, commit: &[u8]) {
        for line in lines(commit) {
            if let Ok(Action::Add(add)) = Action::parse(line) {
                self.look_at(&add.path);
            }
        }
    }

    /// The commit with the table's spellings; none if nothing is to be changed. Where the table has a file by
    /// just that text, or several by other ones, the remove stays as it is: then the catalog decides.
    pub(crate) fn rewritten(&self, commit: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(commit.len() + 64);
        let mut changed = false;
        for line in lines(commit) {
            let own = odd_remove(line).and_then(|path| {
                match self.spellings.get(relative_key(&path).as_ref())?.as_slice() {
                    [one] if *one != path => renamed(line, one),
                    _ => None,
                }
            });
            changed |= own.is_some();
            out.extend_from_slice(own.as_deref().unwrap_or(line).as_bytes());
            out.push(b'\n');
        }
        changed.then_some(out)
    }
}

fn lines(commit: &[u8]) -> impl Iterator<Item = &str> {
    // What is not text is refused by the catalog.
    std::str::from_utf8(commit).unwrap_or_default().lines()
}

/// The path of a remove that not every writer spells alike.
fn odd_remove(line: &str) -> Option<String> {
    if !line.starts_with("{\"remove\"") {
        return None;
    }
    match Action::parse(line) {
        Ok(Action::Remove(remove)) if !TableRoot::stays_inside(&remove.path) => Some(remove.path),
        _ => None,
    }
}

fn renamed(line: &str, path: &str) -> Option<String> {
    let mut action: Value = serde_json::from_str(line).ok()?;
    *action.get_mut("remove")?.get_mut("path")? = path.into();
    Some(action.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remove(path: &str) -> String {
        format!("{{\"remove\":{{\"path\":\"{path}\",\"dataChange\":true,\"size\":7}}}}")
    }

    #[test]
    fn removes_name_files_as_the_table_does() {
        let commit = [remove("p=00:00/a b"), remove("plain"), "{\"commitInfo\":{}}".to_owned()];
        let commit = commit.join("\n");
        let mut removes = Removes::in_commit(commit.as_bytes()).unwrap();
        for path in ["plain", "p=00%3A00/a%20b", "p=00%3A01/a%20b"] {
            removes.look_at(path);
        }
        let text = String::from_utf8(removes.rewritten(commit.as_bytes()).unwrap()).unwrap();
        let paths: Vec<_> = text
            .lines()
            .filter_map(|line| match Action::parse(line) {
                Ok(Action::Remove(remove)) => Some((remove.path, remove.size)),
                _ => None,
            })
            .collect();
        assert_eq!(paths, [("p=00%3A00/a%20b".to_owned(), Some(7)), ("plain".to_owned(), Some(7))]);
    }

    #[test]
    fn what_is_there_as_written_or_twice_stays() {
        let commit = remove("a b");
        for there in [&["a b", "a%20b"][..], &["a%20b", "./a%20b"], &["a b"], &["other"]] {
            let mut removes = Removes::in_commit(commit.as_bytes()).unwrap();
            for path in there {
                removes.look_at(path);
            }
            assert_eq!(removes.rewritten(commit.as_bytes()), None, "{there:?}");
        }
        assert!(Removes::in_commit(remove("plain").as_bytes()).is_none());
    }
}
