//! The real world: the system clock and the operating system's randomness.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use deltalakedb_catalog_core::audit::Actor;
use deltalakedb_catalog_core::ids::TimestampMs;
use deltalakedb_catalog_engine::env::{Clock, IdSource};
use uuid::Uuid;

/// When a clock of this process was first asked how long something takes.
static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The system's wall clock; sleeps on tokio.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> TimestampMs {
        let ms = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            // A clock before 1970: commit timestamps still grow from the head's.
            Err(_) => 0,
        };
        TimestampMs(ms)
    }

    fn monotonic(&self) -> Duration {
        FIRST.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// The name of this machine, where the system tells it.
pub(crate) fn host_name() -> Option<String> {
    let file = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let variable =
        || ["HOSTNAME", "COMPUTERNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let name = file.or_else(variable)?.trim().to_owned();
    let actor = Actor { origin: Some(name.clone()), ..Actor::default() };
    // One that is no name is nobody's fault: then the audit says none.
    actor.check().is_ok().then_some(name)
}

/// Random version-4 UUIDs.
#[derive(Debug, Clone, Copy, Default)]
pub struct RandomIds;

impl IdSource for RandomIds {
    fn uuid(&self) -> Uuid {
        Uuid::new_v4()
    }

    fn fraction(&self) -> f64 {
        // 32 random bits are exact in a double.
        let (bits, _, _, _) = Uuid::new_v4().as_fields();
        f64::from(bits) / (f64::from(u32::MAX) + 1.0)
    }
}
