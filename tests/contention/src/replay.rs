//! The state of a table from the bytes of its commits alone: the reconciliation that the Delta
//! protocol describes ("Action Reconciliation"), with none of the catalog's own rules.

use std::collections::BTreeMap;

use anyhow::Context;
use deltalakedb_catalog_core::action::{Action, Add, FileKey, Metadata, Protocol, Txn};
use deltalakedb_catalog_core::ids::Version;
use serde_json::Value;

use crate::journal::FileChange;

/// A table so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    /// Files, with the version that added each.
    pub(crate) files: BTreeMap<FileKey, (Version, Add)>,
    pub(crate) protocol: Option<Protocol>,
    pub(crate) metadata: Option<Metadata>,
    pub(crate) transactions: BTreeMap<String, Txn>,
}

/// What one commit says of itself.
#[derive(Debug, Default)]
pub(crate) struct Commit {
    pub(crate) files: FileChange,
    /// Removes of files that were not there.
    pub(crate) stray_removes: Vec<String>,
    pub(crate) in_commit_timestamp: Option<i64>,
    pub(crate) token: Option<String>,
}

impl State {
    /// Applies the commit of a version.
    ///
    /// # Errors
    /// If it is not NDJSON of actions.
    pub(crate) fn apply(&mut self, version: Version, bytes: &[u8]) -> anyhow::Result<Commit> {
        let mut commit = Commit::default();
        let text = std::str::from_utf8(bytes)?;
        for line in text.lines() {
            let action = Action::parse(line).with_context(|| format!("in version {version}"))?;
            match action {
                Action::Add(add) => {
                    commit.files.adds.push(add.path.clone());
                    self.files.insert(add.key(), (version, add));
                }
                Action::Remove(remove) => {
                    commit.files.removes.push(remove.path.clone());
                    if self.files.remove(&remove.key()).is_none() {
                        commit.stray_removes.push(remove.path);
                    }
                }
                Action::Protocol(protocol) => self.protocol = Some(protocol),
                Action::Metadata(metadata) => self.metadata = Some(metadata),
                Action::Txn(txn) => {
                    self.transactions.insert(txn.app_id.clone(), txn);
                }
                Action::CommitInfo(_) => {
                    let line: Value = serde_json::from_str(line)?;
                    let info = &line["commitInfo"];
                    commit.in_commit_timestamp = info["inCommitTimestamp"].as_i64();
                    commit.token = info["txnId"].as_str().map(str::to_owned);
                }
                _ => {}
            }
        }
        Ok(commit)
    }

    /// Number of bytes in its files.
    pub(crate) fn bytes(&self) -> i64 {
        self.files.values().map(|(_, add)| add.size).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_go_and_come_back() {
        let add = r#"{"add":{"path":"a","size":3,"modificationTime":1}}"#;
        let remove = r#"{"remove":{"path":"a"}}"#;
        let info = r#"{"commitInfo":{"inCommitTimestamp":7,"txnId":"t"}}"#;
        let mut state = State::default();
        let commit = state.apply(Version::ZERO, format!("{info}\n{add}\n").as_bytes()).unwrap();
        assert_eq!((commit.in_commit_timestamp, commit.token.as_deref()), (Some(7), Some("t")));
        assert_eq!((state.files.len(), state.bytes()), (1, 3));
        state.apply(Version::ZERO.next(), remove.as_bytes()).unwrap();
        assert!(state.files.is_empty());
        let stray = state.apply(Version::ZERO.next(), remove.as_bytes()).unwrap();
        assert_eq!(stray.stray_removes, ["a"]);
        let second = Version::new(2).unwrap();
        state.apply(second, add.as_bytes()).unwrap();
        assert_eq!(state.files.values().next().unwrap().0, second);
        assert!(state.apply(second, b"nonsense").is_err());
    }
}
