//! What the operating system tells of this process. Only Linux tells it in this way: elsewhere the numbers are
//! left out.

use std::fs;

/// Ticks a second in `/proc`: the same on every architecture of Linux (`USER_HZ`).
const TICKS: f64 = 100.0;
/// A limit of version 1 that is larger is none.
const NO_LIMIT: u64 = 1 << 60;

/// Numbers of this process, where they can be had.
#[derive(Debug, Default)]
pub(super) struct Process {
    pub(super) resident_bytes: Option<u64>,
    pub(super) start_seconds: Option<f64>,
    pub(super) cpu_seconds: Option<f64>,
    pub(super) limit_bytes: Option<u64>,
}

impl Process {
    pub(super) fn look() -> Process {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let stat = read("/proc/self/stat");
        // The name of the program may hold blanks and brackets.
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .map(|(_, rest)| rest.split_whitespace().collect())
            .unwrap_or_default();
        // The first of them is field 3 of proc(5).
        let ticks = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
        let booted = read("/proc/stat")
            .lines()
            .find_map(|line| line.strip_prefix("btime ")?.parse::<f64>().ok());
        Process {
            resident_bytes: resident(&read("/proc/self/status")),
            start_seconds: booted.zip(ticks(22)).map(|(booted, since)| booted + since / TICKS),
            cpu_seconds: ticks(14).zip(ticks(15)).map(|(user, system)| (user + system) / TICKS),
            limit_bytes: limit(&read("/sys/fs/cgroup/memory.max"))
                .or_else(|| limit(&read("/sys/fs/cgroup/memory/memory.limit_in_bytes"))),
        }
    }
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// `max` is no limit.
fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|bytes| *bytes < NO_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_the_system_are_read() {
        assert_eq!(resident("Name:\tdl\nVmRSS:\t   2048 kB\n"), Some(2_097_152));
        assert_eq!(resident(""), None);
        assert_eq!(limit("max\n"), None);
        assert_eq!(limit("536870912\n"), Some(536_870_912));
        assert_eq!(limit("9223372036854771712"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn linux_tells_of_this_process() {
        let process = Process::look();
        assert!(process.resident_bytes.unwrap() > 1 << 20, "{process:?}");
        assert!(process.start_seconds.unwrap() > 1_500_000_000.0, "{process:?}");
        assert!(process.cpu_seconds.is_some(), "{process:?}");
    }
}
