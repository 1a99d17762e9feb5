//! The steps, how they end, and what they tell.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use deltalakedb_catalog_core::error::CatalogError;
use serde::{Serialize, Serializer};

/// Notes kept of one step.
const NOTES: usize = 100;

/// A step of a pass. They are done in this order: what deletes comes after the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Skipping indexes are brought up to date.
    SkippingIndex,
    /// Published logs are compared with the catalog, and what is missing is put back.
    Reconcile,
    /// The catalog is backed up, and old sets are deleted.
    Backup,
    /// Tokens of old commits are forgotten, where the plan says so, and rows of what was published long ago removed.
    Expire,
    /// Small files become large ones, of tables that say so.
    Optimize,
    /// Expired files of published logs are deleted.
    LogRetention,
    /// Data files that no version needs are deleted, of tables that say so.
    Vacuum,
    /// What the database itself likes to have done now and then.
    Database,
}

impl Step {
    /// All steps, in the order in which they are done.
    pub const ALL: [Step; 8] = [
        Step::SkippingIndex,
        Step::Reconcile,
        Step::Backup,
        Step::Expire,
        Step::Optimize,
        Step::LogRetention,
        Step::Vacuum,
        Step::Database,
    ];

    /// Its name.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Step::SkippingIndex => "skipping-index",
            Step::Reconcile => "reconcile",
            Step::Backup => "backup",
            Step::Expire => "expire",
            Step::Optimize => "optimize",
            Step::LogRetention => "log-retention",
            Step::Vacuum => "vacuum",
            Step::Database => "database",
        }
    }

    /// Longest that it takes, where nobody says.
    #[must_use]
    pub const fn usual_limit(self) -> Duration {
        let minutes = match self {
            Step::SkippingIndex | Step::Database => 10,
            Step::Reconcile | Step::Expire | Step::LogRetention => 30,
            Step::Optimize | Step::Vacuum => 120,
            Step::Backup => 240,
        };
        Duration::from_secs(minutes * 60)
    }

    /// Whether it concerns the whole catalog, and not its tables one by one.
    #[must_use]
    pub const fn is_whole(self) -> bool {
        matches!(self, Step::Backup | Step::Expire | Step::Database)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

impl Serialize for Step {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.label())
    }
}

impl FromStr for Step {
    type Err = CatalogError;

    fn from_str(text: &str) -> Result<Step, CatalogError> {
        let name = text.trim().to_ascii_lowercase().replace('_', "-");
        Step::ALL.into_iter().find(|step| step.label() == name).ok_or_else(|| {
            CatalogError::invalid(format!(
                "'{}' is no step of maintenance: there are {}",
                text.escape_debug(),
                Step::ALL.map(Step::label).join(", ")
            ))
        })
    }
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All of it was done.
    Ok,
    /// There was nothing that it could do, or it was not to be done.
    Skipped,
    /// Something went wrong. The rest of it was done.
    Failed,
    /// Its time was over. What was done by then is done.
    TimedOut,
}

impl Outcome {
    pub(super) const ALL: [Outcome; 4] =
        [Outcome::Ok, Outcome::Skipped, Outcome::Failed, Outcome::TimedOut];

    /// Its name.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Skipped => "skipped",
            Outcome::Failed => "failed",
            Outcome::TimedOut => "timed_out",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.label())
    }
}

/// What a step has done so far: it is kept when its time is over.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) counts: BTreeMap<&'static str, u64>,
    pub(super) notes: Vec<String>,
    skipped: Option<String>,
    first_failure: Option<String>,
    failures: u64,
}

impl Done {
    pub(super) fn count(&mut self, what: &'static str, number: u64) {
        let total = self.counts.entry(what).or_default();
        *total = total.saturating_add(number);
    }

    pub(super) fn note(&mut self, text: impl Into<String>) {
        if self.notes.len() < NOTES {
            self.notes.push(text.into());
        }
    }

    /// The step has nothing to do, for this reason.
    pub(super) fn skip(&mut self, why: impl Into<String>) {
        self.skipped = Some(why.into());
    }

    pub(super) fn fail(&mut self, what: String) {
        self.failures += 1;
        self.note(what.clone());
        self.first_failure.get_or_insert(what);
    }

    pub(super) fn outcome(&self) -> (Outcome, Option<String>) {
        match (&self.first_failure, self.failures, &self.skipped) {
            (Some(what), 1, _) => (Outcome::Failed, Some(what.clone())),
            (Some(what), n, _) => {
                (Outcome::Failed, Some(format!("{what} (and {} more)", n.saturating_sub(1))))
            }
            (None, _, Some(why)) => (Outcome::Skipped, Some(why.clone())),
            (None, _, None) => (Outcome::Ok, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read_as_they_are_written() {
        for step in Step::ALL {
            assert_eq!(step.label().parse::<Step>().unwrap(), step);
            assert_eq!(
                step.label().replace('-', "_").to_uppercase().parse::<Step>().unwrap(),
                step
            );
            assert_eq!(serde_json::to_value(step).unwrap(), step.label());
        }
        let e = "vacum\n".parse::<Step>().unwrap_err().to_string();
        assert!(e.contains("skipping-index, reconcile, backup"), "{e}");
    }

    #[test]
    fn what_deletes_comes_after_the_backup() {
        assert!(Step::ALL.is_sorted());
        for step in [Step::Expire, Step::LogRetention, Step::Vacuum, Step::Optimize] {
            assert!(step > Step::Backup);
        }
    }

    #[test]
    fn failures_are_counted_and_the_first_is_told() {
        let mut done = Done::default();
        assert_eq!(done.outcome(), (Outcome::Ok, None));
        done.skip("nothing");
        assert_eq!(done.outcome(), (Outcome::Skipped, Some("nothing".into())));
        done.fail("a".into());
        assert_eq!(done.outcome(), (Outcome::Failed, Some("a".into())));
        done.fail("b".into());
        assert_eq!(done.outcome(), (Outcome::Failed, Some("a (and 1 more)".into())));
        for n in 0..1_000 {
            done.note(n.to_string());
        }
        assert_eq!(done.notes.len(), NOTES);
    }
}
