//! Server processes: started, signalled, and ended whatever happens to us.
//!
//! Signals are sent by the shell's own `kill`: there is no safe call for it in the standard
//! library. The processes of a server are those that work in its folder: that holds for
//! PostgreSQL's backends, which each lead a process group of their own, and for the scripts that a
//! Galera node starts.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::system;
use crate::wait::wait_until;

/// Ends the server `$2`, which works in the folder `$1`, with the signal `$3`, if its input ends
/// without the word `done`: the process that started the server is dead then.
const WATCHER: &str = r#"
read -r line
[ "$line" = done ] && exit 0
kill -CONT "$2"
kill -"$3" "$2"
for i in 1 2 3 4 5 6 7 8 9 10; do
    kill -0 "$2" || break
    sleep 0.2
done
for round in 1 2 3; do
    for p in /proc/[0-9]*; do
        case $(readlink "$p/cwd") in
            "$1"|"$1"/*|"$1 "*) kill -KILL "${p#/proc/}" ;;
        esac
    done
done
rm -rf -- "$1"
"#;

/// A running server.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    watcher: Child,
    /// Told `done`, the watcher leaves the server alone.
    tell: Option<ChildStdin>,
}

impl Process {
    /// Starts a server that works in `folder` and writes to `log` there, and the watcher that ends
    /// it with `signal` (and removes the folder) if we die.
    pub(crate) fn start(mut command: Command, folder: &Path, signal: &str) -> Result<Process> {
        let log_path = log_of(folder);
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log_path)
            .with_context(|| format!("cannot write {}", log_path.display()))?;
        let errors = log.try_clone().context("cannot share the log")?;
        // A group of its own: Ctrl-C in the terminal is for us, and we end it in order.
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        system::own_group(&mut command);
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().with_context(|| format!("cannot start {program}"))?;
        let mut watcher = Command::new("/bin/sh");
        watcher.args(["-c", WATCHER, "server-watcher"]).arg(folder);
        watcher.args([&child.id().to_string(), signal]).current_dir("/");
        system::own_group(&mut watcher);
        watcher.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut watcher = watcher.spawn().context("cannot start /bin/sh")?;
        let tell = watcher.stdin.take();
        Ok(Process { child, watcher, tell })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended by itself.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal and waits until the server has ended.
    pub(crate) fn end(&mut self, name: &str, limit: Duration) -> Result<()> {
        signal(name, &[self.id()]);
        wait_until("the server ends", limit, || Ok(!self.is_running()))
    }

    /// Waits for the end of the process, which was killed.
    pub(crate) fn reap(&mut self) {
        // Fails only if there is no such child any more.
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut tell) = self.tell.take() {
            // A watcher that is gone needs not be told.
            let _ = tell.write_all(b"done\n");
        }
        let _ = self.watcher.wait();
        if self.is_running() {
            signal("KILL", &[self.id()]);
            self.reap();
        }
    }
}

/// Where the server in this folder writes its log.
pub(crate) fn log_of(folder: &Path) -> std::path::PathBuf {
    folder.join("server.log")
}

/// The end of a server's log, for an error.
pub(crate) fn log_tail(folder: &Path) -> String {
    let path = log_of(folder);
    let bytes = std::fs::read(&path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(30);
    format!("end of {}:\n{}", path.display(), lines.get(from..).unwrap_or_default().join("\n"))
}

/// Runs a program to its end; its standard output.
///
/// # Errors
/// If it fails: with what it wrote.
pub(crate) fn run(command: &mut Command, input: Option<&str>) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start {program}"))?;
    let feeder = input.zip(child.stdin.take()).map(|(text, mut stdin)| {
        let text = text.to_owned();
        // A program that stops reading says why on its error output.
        std::thread::spawn(move || stdin.write_all(text.as_bytes()))
    });
    let output = child.wait_with_output().with_context(|| format!("waiting for {program}"))?;
    if let Some(feeder) = feeder {
        let _ = feeder.join();
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{program} failed ({}): {}\n{text}", output.status, errors.trim_end());
    }
    Ok(text)
}

/// Sends a signal; processes that have ended meanwhile do not matter.
pub(crate) fn signal(name: &str, pids: &[u32]) {
    if pids.is_empty() {
        return;
    }
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "signal=$1; shift; kill -\"$signal\" \"$@\"", "sh", name]);
    command.args(pids.iter().map(u32::to_string));
    let _ = command.stderr(Stdio::null()).status();
}

/// The processes that work in this folder or below it.
pub(crate) fn working_in(folder: &Path) -> Vec<u32> {
    let mut found = Vec::new();
    let whole = folder.to_string_lossy();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        let Ok(place) = std::fs::read_link(entry.path().join("cwd")) else { continue };
        // The system says "<folder> (deleted)" of a folder that is gone.
        let deleted =
            place.to_string_lossy().strip_prefix(&*whole).is_some_and(|r| r.starts_with(' '));
        if place.starts_with(folder) || deleted {
            found.push(pid);
        }
    }
    found
}

/// Kills all that works in this folder, at once: nothing gets to react to the death of another.
pub(crate) fn kill_in(folder: &Path, first: Option<u32>) {
    if let Some(first) = first {
        // The one that starts the others, so that there are no more of them.
        signal("STOP", &[first]);
    }
    for _ in 0..500 {
        let pids = working_in(folder);
        if pids.is_empty() {
            return;
        }
        signal("KILL", &pids);
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Ends what works in a folder and removes it.
pub(crate) fn remove(folder: &Path) {
    kill_in(folder, None);
    // Twice: a process in the course of dying may still have made a file.
    if std::fs::remove_dir_all(folder).is_err() {
        let _ = std::fs::remove_dir_all(folder);
    }
}

/// When a process was started, in clock ticks since the start of the system (`proc_pid_stat(5)`,
/// field 22); none if there is no such process, or it has ended and waits for its parent.
pub(crate) fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses, with anything in it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if state == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}
