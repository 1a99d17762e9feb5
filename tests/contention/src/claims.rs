//! What the workers were told, by token.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use anyhow::{bail, ensure};
use deltalakedb_catalog_core::ids::TableId;

use crate::journal::{Failure, FileChange, Line, Retries, Written};

/// How a token ended, in the eyes of the worker that sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Sent, and no answer came.
    Open,
    /// Acknowledged.
    Committed(Vec<Written>),
    /// Refused or failed, and nothing was written.
    NotApplied,
    /// An error that leaves open whether it was written.
    Unknown,
}

/// What was sent with a token, and what became of it.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Files, by table.
    pub changes: BTreeMap<TableId, FileChange>,
    /// The answer.
    pub verdict: Verdict,
}

/// Everything that the workers told.
#[derive(Debug, Default)]
pub struct Claims {
    /// Commits.
    pub by_token: BTreeMap<String, Claim>,
    /// Drops that were acknowledged, minus undrops.
    pub dropped: i64,
    /// Drops and undrops that were acknowledged.
    pub drops_and_undrops: u64,
    /// Errors of commits by kind, with the text of the first.
    pub failures: BTreeMap<Failure, (u64, String)>,
    /// Errors of drops and undrops by kind, with the text of the first.
    pub drop_failures: BTreeMap<Failure, (u64, String)>,
    /// How long acknowledged commits took, microseconds.
    pub latencies: Vec<u64>,
    /// Attempts of the core for each acknowledged commit.
    pub attempts: Vec<u32>,
    /// Longest time that a worker took for all, microseconds.
    pub elapsed_us: u64,
    /// What the core absorbed.
    pub retries: Retries,
}

impl Claims {
    /// Adds what one worker told.
    ///
    /// # Errors
    /// If it contradicts itself or breaks off.
    pub fn add_worker(&mut self, lines: Vec<Line>) -> anyhow::Result<()> {
        let mut done = false;
        for line in lines {
            ensure!(!done, "a worker went on after its end: {line:?}");
            match line {
                Line::Ready => {}
                Line::Try { token, changes } => match self.by_token.entry(token) {
                    Entry::Vacant(free) => {
                        free.insert(Claim { changes, verdict: Verdict::Open });
                    }
                    Entry::Occupied(again) => ensure!(
                        again.get().changes == changes && again.get().verdict == Verdict::Unknown,
                        "token {} was sent twice without need",
                        again.key()
                    ),
                },
                Line::Committed { token, attempts, us, tables } => {
                    self.claim(&token)?.verdict = Verdict::Committed(tables);
                    self.latencies.push(us);
                    self.attempts.push(attempts);
                }
                Line::Failed { token, failure, text } => {
                    let claim = self.claim(&token)?;
                    // What was in doubt once stays so until it is acknowledged.
                    if failure == Failure::Unknown {
                        claim.verdict = Verdict::Unknown;
                    } else if claim.verdict == Verdict::Open {
                        claim.verdict = Verdict::NotApplied;
                    }
                    self.failures.entry(failure).or_insert((0, text)).0 += 1;
                }
                Line::Dropped(drop) => {
                    self.dropped += if drop { 1 } else { -1 };
                    self.drops_and_undrops += 1;
                }
                Line::NotDropped { failure, text } => {
                    self.drop_failures.entry(failure).or_insert((0, text)).0 += 1;
                }
                Line::Done { us, retries } => {
                    self.elapsed_us = self.elapsed_us.max(us);
                    self.retries.add(retries);
                    done = true;
                }
            }
        }
        ensure!(done, "a worker broke off");
        Ok(())
    }

    fn claim(&mut self, token: &str) -> anyhow::Result<&mut Claim> {
        match self.by_token.get_mut(token) {
            Some(claim) if !matches!(claim.verdict, Verdict::Committed(_)) => Ok(claim),
            Some(_) => bail!("token {token} was answered after it was acknowledged"),
            None => bail!("token {token} was answered and never sent"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(token: &str) -> Line {
        Line::Try { token: token.to_owned(), changes: BTreeMap::new() }
    }

    fn failed(token: &str, failure: Failure) -> Line {
        Line::Failed { token: token.to_owned(), failure, text: String::new() }
    }

    fn done() -> Line {
        Line::Done { us: 1, retries: Retries::default() }
    }

    #[test]
    fn a_doubt_stays_until_it_is_acknowledged() {
        let mut claims = Claims::default();
        let lines = vec![
            sent("a"),
            failed("a", Failure::Unknown),
            sent("a"),
            failed("a", Failure::Unavailable),
            sent("b"),
            failed("b", Failure::Unavailable),
            done(),
        ];
        claims.add_worker(lines).unwrap();
        assert_eq!(claims.by_token["a"].verdict, Verdict::Unknown);
        assert_eq!(claims.by_token["b"].verdict, Verdict::NotApplied);
        assert_eq!(claims.failures[&Failure::Unavailable].0, 2);
    }

    #[test]
    fn a_journal_that_breaks_off_or_invents_answers_is_refused() {
        assert!(Claims::default().add_worker(vec![sent("a")]).is_err());
        assert!(Claims::default().add_worker(vec![failed("a", Failure::Other), done()]).is_err());
        assert!(Claims::default().add_worker(vec![sent("a"), sent("a"), done()]).is_err());
    }
}
