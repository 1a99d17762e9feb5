//! Several commits of one transaction to one table, as one commit.

use std::collections::BTreeMap;

use deltalakedb_catalog_core::action::{Action, FileKey};
use deltalakedb_catalog_core::commit::parse_ndjson;
use deltalakedb_catalog_core::error::{CatalogError, Result};

/// What happened to a file.
struct FileLines<'a> {
    /// The line that removed what the table had before the transaction.
    removed: Option<&'a str>,
    /// The line that added what it has after it.
    added: Option<&'a str>,
    /// Place of the first of them.
    at: usize,
}

/// The lines of one commit that does what these do one after the other. One commit keeps its bytes.
///
/// Files that the transaction itself added and removed are in none of them; of protocol, metadata,
/// each application and each domain the last action counts.
///
/// # Errors
/// `Unsupported` where one commit cannot say it: change data files beside other changes of data;
/// `InvalidInput` for lines that cannot be read.
pub(crate) fn squash(table: &str, commits: &[Vec<u8>]) -> Result<Vec<u8>> {
    if let [one] = commits {
        return Ok(one.clone());
    }
    let mut files: BTreeMap<FileKey, FileLines<'_>> = BTreeMap::new();
    // Lines of which the last of each kind counts, and all others.
    let mut last: BTreeMap<(u8, String), &str> = BTreeMap::new();
    let (mut changes, mut others, mut operations) = (Vec::new(), Vec::new(), Vec::new());
    let mut changing = 0;
    let mut place = 0;
    for (i, bytes) in commits.iter().enumerate() {
        let origin = format!("change {} of the transaction to table '{table}'", i + 1);
        let mut changes_data = false;
        for line in parse_ndjson(&origin, bytes)? {
            place += 1;
            match line.action {
                Action::Add(add) => {
                    changes_data |= add.data_change;
                    let entry = files.entry(add.key());
                    let new = FileLines { removed: None, added: None, at: place };
                    entry.or_insert(new).added = Some(line.text);
                }
                Action::Remove(remove) => {
                    changes_data |= remove.data_change;
                    let key = remove.key();
                    match files.get_mut(&key) {
                        Some(file) if file.added.is_some() => {
                            file.added = None;
                            if file.removed.is_none() {
                                files.remove(&key);
                            }
                        }
                        Some(file) => file.removed = Some(line.text),
                        None => {
                            let removed = Some(line.text);
                            files.insert(key, FileLines { removed, added: None, at: place });
                        }
                    }
                }
                Action::Cdc(_) => changes.push(line.text),
                Action::Protocol(_) => {
                    last.insert((0, String::new()), line.text);
                }
                Action::Metadata(_) => {
                    last.insert((1, String::new()), line.text);
                }
                Action::Txn(txn) => {
                    last.insert((2, txn.app_id), line.text);
                }
                Action::DomainMetadata(domain) => {
                    last.insert((3, domain.domain), line.text);
                }
                Action::CommitInfo(info) => {
                    operations.push(info.operation.unwrap_or_else(|| "?".to_owned()));
                }
                Action::Empty => {}
                Action::CheckpointMetadata(_) | Action::Sidecar(_) | Action::Unknown(_) => {
                    others.push(line.text);
                }
            }
        }
        changing += usize::from(changes_data);
    }
    if !changes.is_empty() && changing > 1 {
        return Err(CatalogError::Unsupported(format!(
            "table '{table}' has a change data feed, and the transaction changes its data {changing} \
             times: what each change did cannot be said in one commit. Commit them one by one"
        )));
    }
    let mut files: Vec<FileLines<'_>> = files.into_values().collect();
    files.sort_by_key(|file| file.at);
    let removes = files.iter().any(|file| file.removed.is_some());
    // A file that was removed and added again is there, as it was added.
    let files = files.iter().filter_map(|file| file.added.or(file.removed));
    let blind = !removes && !last.keys().any(|(kind, _)| *kind < 2);
    let info = serde_json::json!({ "commitInfo": {
        "operation": "TRANSACTION",
        "operationParameters": {
            "operations": serde_json::to_string(&operations).unwrap_or_default(),
        },
        "isBlindAppend": blind,
    } });
    let mut text = info.to_string();
    for line in last.into_values().chain(others).chain(files).chain(changes) {
        text.push('\n');
        text.push_str(line);
    }
    text.push('\n');
    Ok(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(path: &str) -> String {
        format!(
            "{{\"add\":{{\"path\":\"{path}\",\"partitionValues\":{{}},\"size\":1,\
             \"modificationTime\":1,\"dataChange\":true}}}}\n"
        )
    }

    fn remove(path: &str) -> String {
        format!(
            "{{\"remove\":{{\"path\":\"{path}\",\"deletionTimestamp\":1,\"dataChange\":true}}}}\n"
        )
    }

    fn info(operation: &str) -> String {
        format!("{{\"commitInfo\":{{\"operation\":\"{operation}\"}}}}\n")
    }

    fn squashed(commits: &[String]) -> String {
        let commits: Vec<Vec<u8>> = commits.iter().map(|c| c.clone().into_bytes()).collect();
        String::from_utf8(squash("t", &commits).unwrap()).unwrap()
    }

    #[test]
    fn one_commit_keeps_its_bytes() {
        let one = add("b") + &info("WRITE") + " \n";
        assert_eq!(squashed(std::slice::from_ref(&one)), one);
    }

    #[test]
    fn only_the_sum_is_said() {
        let txn = |version| format!("{{\"txn\":{{\"appId\":\"a\",\"version\":{version}}}}}\n");
        let text = squashed(&[
            info("WRITE") + &txn(1) + &add("new") + &add("short-lived"),
            info("DELETE") + &remove("short-lived") + &remove("old"),
            info("WRITE") + &txn(2) + &add("later"),
        ]);
        let (first, rest) = text.split_once('\n').unwrap();
        assert!(first.contains("[\\\"WRITE\\\",\\\"DELETE\\\",\\\"WRITE\\\"]"), "{first}");
        assert_eq!(rest, txn(2) + &add("new") + &remove("old") + &add("later"));
        // Removed, and there again.
        let text = squashed(&[remove("x"), add("x"), info("?")]);
        assert!(text.ends_with(&add("x")) && !text.contains("remove"), "{text}");
    }

    #[test]
    fn change_data_of_two_changes_is_refused() {
        let cdc =
            "{\"cdc\":{\"path\":\"c\",\"partitionValues\":{},\"size\":1,\"dataChange\":false}}\n";
        let commits = [add("a").into_bytes(), (add("b") + cdc).into_bytes()];
        let error = squash("t", &commits).unwrap_err().to_string();
        assert!(error.contains("change data feed"), "{error}");
    }
}
