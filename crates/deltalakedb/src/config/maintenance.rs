//! What the section `maintenance` says.

use std::time::Duration;

use super::model;
use super::values::{Flag, Pause};
use crate::maintain::{BackupPlan, Choice, ExpirePlan, MaintainPlan, Schedule, Step};

/// A full backup is taken so often, where nobody says.
const FULL_EVERY: Duration = Duration::from_secs(7 * 24 * 3_600);

/// What the section `maintenance` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maintenance {
    /// `maintenance.enabled`: whether anything is done that is not asked for by name.
    pub enabled: bool,
    /// `maintenance.schedule`: when passes begin.
    pub schedule: Option<Schedule>,
    /// What a pass does.
    pub plan: MaintainPlan,
}

impl Maintenance {
    pub(super) fn of(settings: &model::Maintenance) -> Maintenance {
        let (index, reconcile) = (&settings.skipping_index, &settings.reconcile);
        let (backup, expire, optimize) = (&settings.backup, &settings.expire, &settings.optimize);
        let (log, vacuum, database) =
            (&settings.log_retention, &settings.vacuum, &settings.database);
        let mut plan = MaintainPlan::default();
        for (step, enabled, timeout) in [
            (Step::SkippingIndex, index.enabled, index.timeout),
            (Step::Reconcile, reconcile.enabled, reconcile.timeout),
            (Step::Backup, backup.enabled, backup.timeout),
            (Step::Expire, expire.enabled, expire.timeout),
            (Step::Optimize, optimize.enabled, optimize.timeout),
            (Step::LogRetention, log.enabled, log.timeout),
            (Step::Vacuum, vacuum.enabled, vacuum.timeout),
            (Step::Database, database.enabled, database.timeout),
        ] {
            plan.choices.insert(step, choice(step, enabled, timeout));
        }
        if let Some(min) = vacuum.min_retention {
            plan.min_vacuum_retention = min.0;
        }
        plan.expire = expiry(expire);
        plan.backup = backup.to.as_ref().map(|to| BackupPlan {
            to: to.0.clone(),
            keep: backup.keep.map(|keep| keep.0),
            full_every: match backup.full_every.map_or(FULL_EVERY, |span| span.0) {
                Duration::ZERO => None,
                every => Some(every),
            },
        });
        Maintenance {
            enabled: settings.enabled.is_none_or(|flag| flag.0),
            schedule: settings.schedule.as_ref().map(|moments| moments.0.clone()),
            plan,
        }
    }
}

/// How long tokens and rows of the outbox are kept.
pub(super) fn expiry(settings: &model::MaintainExpire) -> ExpirePlan {
    let default = ExpirePlan::default();
    ExpirePlan {
        tokens: settings.tokens.map(|kept| kept.0),
        outbox: settings.outbox.map_or(default.outbox, |kept| kept.0),
    }
}

fn choice(step: Step, enabled: Option<Flag>, timeout: Option<Pause>) -> Choice {
    if enabled.is_none_or(|flag| flag.0) {
        return Choice::Do(timeout.map_or(step.usual_limit(), |limit| limit.0));
    }
    Choice::Leave(format!("maintenance.{}.enabled is false", step.label().replace('-', "_")))
}
