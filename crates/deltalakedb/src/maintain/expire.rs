//! Tokens of old commits, and rows of what was published long ago.

use std::time::{Duration, Instant};

use deltalakedb_catalog_core::audit::action;
use deltalakedb_catalog_core::backend::{CommitBackend, Expired, Expiry, OutboxBackend};
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::TimestampMs;
use deltalakedb_catalog_engine::retry::Retry;
use serde_json::json;

use super::MaintainPlan;
use super::clock::refuse_fast_clock;
use super::step::Done;
use crate::Db;

const DAY: Duration = Duration::from_secs(24 * 3_600);
/// Tokens, or rows, that one transaction looks at: few enough that a commit that waits for it does not wait long.
const PAGE: usize = 100;
/// After a page that wrote, the pass rests for as long as the page took, and no longer than this: where there is one
/// writer, the others have every other turn.
const LONGEST_REST: Duration = Duration::from_millis(100);

/// Leaves the database to others after a page.
async fn rest(page: Instant, wrote: bool) {
    if wrote {
        tokio::time::sleep(page.elapsed().min(LONGEST_REST)).await;
    } else {
        tokio::task::yield_now().await;
    }
}

/// What [`Step::Expire`](super::Step::Expire) removes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpirePlan {
    /// Tokens are kept for so long after the commit; none = for ever.
    pub tokens: Option<Duration>,
    /// Rows of the outbox are kept for so long after the version was published.
    pub outbox: Duration,
}

impl Default for ExpirePlan {
    fn default() -> Self {
        ExpirePlan { tokens: None, outbox: 30 * DAY }
    }
}

impl ExpirePlan {
    /// Fails for times that are too short: a commit is repeated under its token for `retry_timeout`, and by whoever
    /// got no answer, after it.
    ///
    /// # Errors
    /// `InvalidInput`, with the key of the configuration.
    pub fn check(&self, retry_timeout: Duration) -> Result<()> {
        if self.outbox < DAY {
            return Err(CatalogError::invalid(format!(
                "maintenance.expire.outbox is {} s: rows of what was published are kept for 1d at least",
                self.outbox.as_secs()
            )));
        }
        let Some(tokens) = self.tokens else { return Ok(()) };
        let least = DAY.max(retry_timeout.saturating_mul(2));
        if tokens >= least {
            return Ok(());
        }
        Err(CatalogError::invalid(format!(
            "maintenance.expire.tokens is {} s: tokens are kept for {} s at least. A commit that got no answer is \
             sent again with its token; once the token is forgotten, it would be written twice. So a token is kept \
             for 1d at least, and for twice retry.deadline ({} s)",
            tokens.as_secs(),
            least.as_secs(),
            retry_timeout.as_secs()
        )))
    }
}

pub(super) async fn expire(db: &Db, plan: &MaintainPlan, done: &mut Done) -> Result<()> {
    plan.expire.check(db.retry_policy().timeout)?;
    refuse_fast_clock(db).await?;
    let now = db.clock().now();
    let rows = clear_outbox(db, before(now, plan.expire.outbox), plan.dry_run, done).await?;
    if rows > 0 {
        let what = if plan.dry_run { "would be" } else { "were" };
        done.note(format!("{rows} rows of what was published long ago {what} removed"));
    }
    let Some(tokens) = plan.expire.tokens else {
        done.note("tokens are kept: maintenance.expire.tokens is not set");
        return Ok(());
    };
    let before = before(now, tokens);
    let forgotten = forget_tokens(db, before, plan.dry_run, done).await?;
    if forgotten > 0 {
        let what = if plan.dry_run { "would be" } else { "were" };
        done.note(format!(
            "{forgotten} tokens of commits before {} {what} forgotten",
            before.utc()
        ));
    }
    Ok(())
}

fn before(now: TimestampMs, kept: Duration) -> TimestampMs {
    TimestampMs(now.0.saturating_sub(i64::try_from(kept.as_millis()).unwrap_or(i64::MAX)))
}

async fn clear_outbox(db: &Db, before: TimestampMs, dry_run: bool, done: &mut Done) -> Result<u64> {
    let expiry = Expiry { before, limit: PAGE, dry_run };
    done.count("outbox_rows", 0);
    let (mut total, mut after) = (0_u64, None);
    loop {
        let begun = Instant::now();
        let page = Retry::of(db).repeat(|| db.backend().mirror_expire(expiry, after)).await?;
        done.count("outbox_rows", page.removed);
        total = total.saturating_add(page.removed);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(total),
        }
        rest(begun, page.removed > 0 && !dry_run).await;
    }
}

/// Forgets tokens page by page. The audit is told before the first one goes, and at the end; a pass that is killed
/// has the first row alone.
async fn forget_tokens(
    db: &Db,
    before: TimestampMs,
    dry_run: bool,
    done: &mut Done,
) -> Result<u64> {
    done.count("tokens", 0);
    let (mut total, mut after, mut told) = (0_u64, None, dry_run);
    loop {
        let begun = Instant::now();
        // Until something is found that goes, pages are only looked at.
        let look = Expiry { before, limit: PAGE, dry_run: !told || dry_run };
        let mut page: Expired<_> =
            Retry::of(db).repeat(|| db.backend().expire_tokens(look, after.as_ref())).await?;
        if page.removed > 0 && !told {
            let detail = json!({ "before": before.0 });
            db.record(action::EXPIRE_START, None, &detail).await?;
            told = true;
            let go = Expiry { dry_run: false, ..look };
            page = Retry::of(db).repeat(|| db.backend().expire_tokens(go, after.as_ref())).await?;
        }
        done.count("tokens", page.removed);
        total = total.saturating_add(page.removed);
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
        rest(begun, page.removed > 0 && !dry_run).await;
    }
    if told && !dry_run {
        let detail = json!({ "before": before.0, "tokens": total });
        db.record(action::EXPIRE_END, None, &detail).await?;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_are_too_short_are_refused_with_the_reason() {
        let minute = Duration::from_secs(60);
        let almost = Duration::from_secs(24 * 3_600 - 60);
        let plan = |tokens, outbox| ExpirePlan { tokens, outbox };
        assert!(ExpirePlan::default().check(Duration::MAX).is_ok(), "tokens are kept for ever");
        assert!(plan(Some(DAY), DAY).check(minute).is_ok());
        for (plan, retry, words) in [
            (plan(Some(almost), DAY), minute, ["maintenance.expire.tokens", "86400 s"]),
            (plan(Some(DAY), DAY), DAY, ["retry.deadline (86400 s)", "172800 s"]),
            (plan(Some(Duration::ZERO), DAY), minute, ["is 0 s", "written twice"]),
            (plan(None, almost), minute, ["maintenance.expire.outbox", "1d"]),
        ] {
            let e = plan.check(retry).unwrap_err().to_string();
            assert!(words.iter().all(|word| e.contains(word)), "{e}");
        }
        assert_eq!(before(TimestampMs(5), Duration::MAX), TimestampMs(5 - i64::MAX));
    }
}
