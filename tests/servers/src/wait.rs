//! Waiting for a condition, within a bound.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// How long a server may take to start or stop: a loaded machine is slow, a hang is not endless.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Asks until the answer is yes.
///
/// # Errors
/// The first error of `ready`; or, after `limit`, that `what` has not happened.
pub fn wait_until(
    what: &str,
    limit: Duration,
    mut ready: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let began = Instant::now();
    while !ready()? {
        if began.elapsed() >= limit {
            bail!("{what}: not within {} s", limit.as_secs());
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}
