//! What passes of this process count and time.

use std::collections::BTreeMap;
use std::time::Duration;

use deltalakedb_catalog_core::ids::TimestampMs;
use deltalakedb_catalog_engine::measure::{Series, Timer};

use super::step::{Outcome, Step};

/// The gauge of the last success of each step, seconds since 1970.
pub const LAST_SUCCESS: &str = "dl_maintain_last_success_timestamp_seconds";

const fn timer(step: Step, outcome: Outcome) -> Timer {
    let series = Series::new("dl_maintain_step_seconds").with("step", step.label());
    Timer::new(series.with("outcome", outcome.label()))
}

const fn of(step: Step) -> [Timer; 4] {
    [
        timer(step, Outcome::ALL[0]),
        timer(step, Outcome::ALL[1]),
        timer(step, Outcome::ALL[2]),
        timer(step, Outcome::ALL[3]),
    ]
}

/// In the order of [`Step::ALL`] and [`Outcome::ALL`].
static TIMERS: [[Timer; 4]; 8] = [
    of(Step::ALL[0]),
    of(Step::ALL[1]),
    of(Step::ALL[2]),
    of(Step::ALL[3]),
    of(Step::ALL[4]),
    of(Step::ALL[5]),
    of(Step::ALL[6]),
    of(Step::ALL[7]),
];

/// All that were used.
pub(crate) fn timers() -> impl Iterator<Item = &'static Timer> {
    TIMERS.iter().flatten().filter(|timer| timer.count() > 0)
}

/// A step has ended.
pub(super) fn ended(step: Step, outcome: Outcome, time: Duration, now: TimestampMs) {
    if let Some(timer) = TIMERS.get(step as usize).and_then(|all| all.get(outcome as usize)) {
        timer.record(time);
    }
    if outcome == Outcome::Ok {
        succeeded(step, now);
    }
}

fn succeeded(step: Step, at: TimestampMs) {
    // Milliseconds of any sensible time are exact in a double.
    #[expect(clippy::cast_precision_loss, reason = "gauges are doubles")]
    let seconds = at.0 as f64 / 1_000.0;
    metrics::gauge!(LAST_SUCCESS, "step" => step.label()).set(seconds);
}

/// Tells the recorder when steps succeeded before this process began.
pub fn go_on_from(successes: &BTreeMap<Step, TimestampMs>) {
    for (step, at) in successes {
        succeeded(*step, *at);
    }
}
