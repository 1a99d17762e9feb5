//! Ctrl-C and `kill -9` leave a catalog that the next command works with.

#![cfg(unix)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::moments::{Caught, Moments, kill_after};
use crate::world::{FIRST_COMMIT, Run, World, add, foreign_log, plain_add};

fn interrupt(child: &Child) {
    signal(child, "-INT");
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Waits for the end, bounded.
fn end_of(mut child: Child) -> Run {
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(started.elapsed() < Duration::from_secs(60), "it does not end");
        std::thread::yield_now();
    }
    child.wait_with_output().unwrap().into()
}

#[test]
fn ctrl_c_ends_a_watching_mirror_cleanly() {
    ends_a_watching_mirror_cleanly("-INT");
}

/// What systemd and containers send.
#[test]
fn a_termination_signal_ends_a_watching_mirror_cleanly() {
    ends_a_watching_mirror_cleanly("-TERM");
}

fn ends_a_watching_mirror_cleanly(name: &str) {
    let world = World::new();
    world.create("s.t", "t", &["--partition-by", "day", "--no-publish"]).ok();
    let mut child = world.command(&["mirror", "run", "--watch"]).spawn().unwrap();
    let mut err = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    err.read_line(&mut line).unwrap();
    assert!(line.contains("Ctrl-C"), "{line}");
    let started = Instant::now();
    while world.log_versions("t").is_empty() {
        assert!(started.elapsed() < Duration::from_secs(60), "nothing is published");
    }
    world.dl_with_input(&["commit", "s.t", "--no-publish"], &add("day=1/a.parquet", "1")).ok();
    while world.log_versions("t").len() < 2 {
        assert!(started.elapsed() < Duration::from_secs(60), "the new commit is not published");
    }
    signal(&child, name);
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut err, &mut rest).unwrap();
    let run = end_of(child);
    assert_eq!(run.code, 130, "{rest}");
    assert!(rest.contains("interrupted") && rest.contains("the same command again"), "{rest}");
    // Its lease was given up: nobody waits.
    world.dl(&["mirror", "run"]).ok();
    world.dl(&["diff", "--table", "s.t"]).ok();
}

#[test]
fn ctrl_c_while_reading_input_commits_nothing() {
    let world = World::with_table();
    let mut child = world.command(&["commit", "s.t", "-v"]).stdin(Stdio::piped()).spawn().unwrap();
    let input = child.stdin.take();
    // The signal must not come before anybody listens to it.
    let started = Instant::now();
    let status = format!("/proc/{}/status", child.id());
    while let Ok(text) = std::fs::read_to_string(&status) {
        let caught = text.lines().find_map(|l| l.strip_prefix("SigCgt:")).unwrap_or_default();
        let caught = u64::from_str_radix(caught.trim(), 16).unwrap_or(0);
        if caught & 0b10 != 0 {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "it does not listen");
    }
    interrupt(&child);
    let run = end_of(child);
    assert_eq!(run.code, 130, "{}", run.stderr);
    drop(input);
    assert_eq!(world.json(&["show", "s.t"])["version"], 0);
}

#[test]
fn kill_9_leaves_whole_commits() {
    let world = World::with_table();
    let commit = |step: u32| {
        let file = world.file("one.json", &add(&format!("day=1/{step}.parquet"), "1"));
        let token = format!("step-{step}");
        let mut command = world.command(&["commit", "s.t", &file, "--token", &token]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let started = Instant::now();
        (command.spawn().unwrap(), started)
    };
    let version = || world.json(&["show", "s.t"])["version"].as_i64().unwrap();
    let (child, started) = commit(0);
    end_of(child);
    let mut moments = Moments::new(started.elapsed(), 10, 200);
    let (mut step, mut acknowledged) = (0, 1);
    // Killed while it was at it, whether or not the commit took effect.
    while let Some(moment) = moments.next() {
        step += 1;
        let (mut child, started) = commit(step);
        let running = kill_after(&mut child, started, moment);
        acknowledged += i64::from(!running);
        moments.was(moment, if running { Caught::Middle } else { Caught::Late });
        let version = version();
        assert!(version >= acknowledged);
        let files = world.json(&["show", "s.t"])["num_files"].as_i64().unwrap();
        assert_eq!(files, version, "each commit adds one file, or nothing");
        let published = world.log_versions("t");
        let prefix: Vec<u64> = (0..u64::try_from(published.len()).unwrap()).collect();
        assert_eq!(published, prefix, "the log has no gap");
    }
    // It catches up by itself, once the lease of a killed worker has lapsed.
    world.dl(&["mirror", "run"]).ok();
    world.dl(&["diff", "--table", "s.t"]).ok();
}

#[test]
fn a_killed_import_is_resumed() {
    let world = World::new();
    let adds: Vec<String> = (0..400).map(|n| plain_add(&format!("{n}.parquet"))).collect();
    let mut commits = vec![FIRST_COMMIT];
    commits.extend(adds.iter().map(String::as_str));
    let location = foreign_log(&world, "old", &commits);
    let started = Instant::now();
    world.dl(&["import", &location, "s.whole"]).ok();
    let whole = started.elapsed();
    // Its place is another table's from now on.
    world.dl(&["drop", "s.whole"]).ok();
    let mut moments = Moments::new(whole, 2, 100);
    let mut step = 0;
    while let Some(moment) = moments.next() {
        step += 1;
        let name = format!("s.t{step}");
        let mut command = world.command(&["import", &location, &name]);
        let started = Instant::now();
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        kill_after(&mut child, started, moment);
        let importing = world.json(&["list", "--importing"]);
        let caught = if importing.as_array().unwrap().is_empty() {
            // Before its first step, or after its last.
            if world.dl(&["show", &name]).code == 0 {
                Caught::Late
            } else {
                world.dl(&["import", &location, &name]).ok();
                Caught::Early
            }
        } else {
            world.dl(&["show", &name]).fails(&["import", "--resume"]);
            world.dl(&["import", &location, &name]).fails(&["resume"]);
            let report = world.json(&["import", &location, &name, "--resume"]);
            assert_eq!(report["resumed"], true);
            Caught::Middle
        };
        moments.was(moment, caught);
        let shown = world.json(&["show", &name]);
        assert_eq!(
            (shown["version"].as_i64(), shown["num_files"].as_i64()),
            (Some(400), Some(400))
        );
        world.dl(&["drop", &name]).ok();
    }
}
