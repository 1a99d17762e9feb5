//! Progress bars: on a terminal only, and only for what takes longer than a second.

use std::fmt::Write;
use std::io::{IsTerminal, stderr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deltalakedb::core::env::Progress;
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Work that is over sooner shows nothing.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the bar moves.
const TICK: Duration = Duration::from_millis(120);
/// Rate and time left, where the amount of work is known.
const WITH_TOTAL: &str = "{prefix} {bar:30} {human_pos}/{human_len} {msg}{rate}{left}";
/// Rate and time spent, where it is not.
const WITHOUT_TOTAL: &str = "{prefix} {spinner} {human_pos} {msg}{rate}, {elapsed}";

/// Shows the phases of a command on standard error.
pub(crate) struct Bar {
    visible: bool,
    phase: Mutex<Option<Phase>>,
}

struct Phase {
    bar: ProgressBar,
    appear: Option<JoinHandle<()>>,
}

impl Bar {
    /// Silent if asked to be, or where nobody watches.
    pub(crate) fn new(quiet: bool) -> Self {
        Bar { visible: !quiet && stderr().is_terminal(), phase: Mutex::new(None) }
    }

    fn phase(&self) -> MutexGuard<'_, Option<Phase>> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Bar {
    fn begin(&self, what: &str, unit: &str, total: Option<u64>) {
        self.end();
        if !self.visible {
            return;
        }
        let (bar, template) = match total {
            Some(total) => (ProgressBar::new(total), WITH_TOTAL),
            None => (ProgressBar::no_length(), WITHOUT_TOTAL),
        };
        bar.set_draw_target(ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.with_key("rate", rate).with_key("left", left));
        }
        bar.set_prefix(what.to_owned());
        bar.set_message(unit.to_owned());
        let shown = bar.clone();
        let appear = Handle::try_current().ok().map(|runtime| {
            runtime.spawn(async move {
                tokio::time::sleep(PATIENCE).await;
                shown.set_draw_target(ProgressDrawTarget::stderr());
                shown.enable_steady_tick(TICK);
            })
        });
        *self.phase() = Some(Phase { bar, appear });
    }

    fn advance(&self, units: u64) {
        if let Some(phase) = self.phase().as_ref() {
            phase.bar.inc(units);
        }
    }

    fn end(&self) {
        if let Some(phase) = self.phase().take() {
            if let Some(appear) = phase.appear {
                appear.abort();
            }
            phase.bar.finish_and_clear();
        }
    }
}

/// `, 1250/s`, once there is one.
fn rate(state: &ProgressState, out: &mut dyn Write) {
    if state.pos() > 0 {
        let _ = write!(out, ", {:.0}/s", state.per_sec());
    }
}

/// `, 12s left`, once it can be told.
fn left(state: &ProgressState, out: &mut dyn Write) {
    if state.pos() > 0 {
        let _ = write!(out, ", {:#} left", HumanDuration(state.eta()));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.end();
    }
}
