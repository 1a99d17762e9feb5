//! Moments to kill a program at, until it was caught in the middle of its work.

use std::process::Child;
use std::time::{Duration, Instant};

/// Where a program was when it was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caught {
    /// Before its first step.
    Early,
    /// Between two steps: what the test is about.
    Middle,
    /// It had ended, or nothing was left to do.
    Late,
}

/// Tries one moment after another until enough were right. The times are moments to kill at, not waits for
/// anything.
#[derive(Debug)]
pub(crate) struct Moments {
    /// The whole program takes about so long.
    whole: Duration,
    early: Duration,
    late: Duration,
    wanted: u32,
    most: u32,
    tried: u32,
    caught: u32,
}

impl Moments {
    /// Until it was caught `wanted` times, with `most` kills at most.
    pub(crate) fn new(whole: Duration, wanted: u32, most: u32) -> Moments {
        let late = whole.max(Duration::from_millis(4));
        Moments { whole: late, early: Duration::ZERO, late, wanted, most, tried: 0, caught: 0 }
    }

    /// When to kill next, after the start; none when it was caught often enough.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Option<Duration> {
        if self.caught >= self.wanted {
            println!("{} of {} kills were in the middle", self.caught, self.tried);
            return None;
        }
        assert!(
            self.tried < self.most,
            "never caught in the middle often enough: {} times of {} in {} kills",
            self.caught,
            self.wanted,
            self.tried
        );
        self.tried += 1;
        // Machines are not steady: where the window has closed, it is looked for anew.
        if self.late.saturating_sub(self.early) < Duration::from_millis(1) {
            (self.early, self.late) = (Duration::ZERO, self.whole * 2);
        }
        // Spread over the window: multiples of the golden ratio.
        let place = (f64::from(self.tried) * 0.618_034).fract();
        Some(self.early + self.late.saturating_sub(self.early).mul_f64(place))
    }

    /// Where that was.
    pub(crate) fn was(&mut self, moment: Duration, caught: Caught) {
        match caught {
            Caught::Middle => self.caught += 1,
            Caught::Early => self.early += moment.saturating_sub(self.early) / 2,
            Caught::Late => self.late -= self.late.saturating_sub(moment) / 2,
        }
    }
}

/// Kills a program so long after its start. Whether it was still running.
pub(crate) fn kill_after(child: &mut Child, started: Instant, moment: Duration) -> bool {
    std::thread::sleep(moment.saturating_sub(started.elapsed()));
    let running = child.try_wait().unwrap().is_none();
    child.kill().unwrap();
    child.wait().unwrap();
    running
}

#[test]
fn a_window_in_the_middle_is_found() {
    let ms = Duration::from_millis;
    // Of a program of a second, a window of 30 ms.
    let mut moments = Moments::new(ms(1_000), 3, 60);
    while let Some(moment) = moments.next() {
        let place = match moment {
            moment if moment < ms(700) => Caught::Early,
            moment if moment < ms(730) => Caught::Middle,
            _ => Caught::Late,
        };
        moments.was(moment, place);
    }
    assert_eq!(moments.caught, 3);
}

#[test]
#[should_panic(expected = "never caught in the middle")]
fn what_is_never_caught_has_failed() {
    let mut moments = Moments::new(Duration::from_millis(50), 1, 20);
    while let Some(moment) = moments.next() {
        moments.was(moment, Caught::Late);
    }
}
