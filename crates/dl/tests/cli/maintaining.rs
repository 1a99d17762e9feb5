//! `dl maintain`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::watching::Worker;
use crate::world::{World, add};

/// A table that lets its data files be deleted.
fn asking(world: &World) {
    world.dl(&["alter", "s.t", "--set", "deltalakedb.maintain.vacuum=true"]).ok();
}

/// A file below the table's root that nothing needs, so many days old.
fn stale(world: &World, name: &str, days: u64) -> PathBuf {
    let path = world.path(&format!("t/{name}"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "x").unwrap();
    let then = SystemTime::now() - Duration::from_secs(days * 86_400);
    fs::File::options().write(true).open(&path).unwrap().set_modified(then).unwrap();
    path
}

fn outcome<'r>(report: &'r Value, step: &str) -> &'r str {
    let steps = report["steps"].as_array().unwrap();
    let found = steps.iter().find(|found| found["step"] == step);
    found.unwrap_or_else(|| panic!("no {step}: {report}"))["outcome"].as_str().unwrap()
}

#[test]
fn a_pass_is_shown_before_and_done_and_its_code_says_how() {
    let world = World::with_table();
    asking(&world);
    world.dl_with_input(&["commit", "s.t"], &add("day=1/a", "1")).ok();
    let stale = stale(&world, "day=1/x.parquet", 30);
    world.file("dl.toml", "[maintenance.backup]\nto = 'kept'\nkeep = '30d'\n");
    let run = world.dl(&["maintain", "--dry-run"]).ok();
    for word in ["skipping-index", "would do", "a set (full) would be written", "1 of "] {
        assert!(run.stdout.contains(word), "'{word}' is not in: {}", run.stdout);
    }
    assert!(run.stderr.contains("Nothing was written"), "{}", run.stderr);
    assert!(stale.exists() && !world.path("kept").exists());
    let report = world.json(&["maintain", "--metrics-output", "m/maintain.prom"]);
    for step in
        ["skipping-index", "reconcile", "backup", "expire", "log-retention", "vacuum", "database"]
    {
        assert_eq!(outcome(&report, step), "ok", "{step}: {report}");
    }
    assert!(!stale.exists() && world.path("kept").exists());
    let text = fs::read_to_string(world.path("m/maintain.prom")).unwrap();
    let of = |step: &str| {
        let name = format!("dl_maintain_last_success_timestamp_seconds{{step=\"{step}\"}} ");
        text.lines().any(|line| line.starts_with(&name))
    };
    assert!(of("vacuum") && of("backup") && !of("optimize") || cfg!(feature = "sql"), "{text}");
    // One that fails leaves the others, and its time in the file.
    fs::remove_dir_all(world.path("kept")).unwrap();
    fs::write(world.path("kept"), "a file").unwrap();
    let run = world.dl(&["maintain", "--metrics-output", "m/maintain.prom"]).code(1);
    assert!(run.stdout.contains("FAILED") && run.stderr.contains("backup failed"), "{run:?}");
    let after = fs::read_to_string(world.path("m/maintain.prom")).unwrap();
    let backup = |text: &str| -> String {
        text.lines().find(|line| line.contains("\"backup\"")).unwrap().to_owned()
    };
    assert_eq!(backup(&after), backup(&text));
    assert_ne!(after, text);
}

#[test]
fn steps_and_tables_are_chosen_and_the_configuration_counts() {
    let world = World::with_table();
    let steps = |args: &[&str]| -> Vec<String> {
        let report = world.json(&[&["maintain"][..], args].concat());
        let steps = report["steps"].as_array().unwrap();
        let text = |step: &Value| {
            format!("{} {}", step["step"].as_str().unwrap(), step["outcome"].as_str().unwrap())
        };
        steps.iter().map(text).collect()
    };
    assert_eq!(steps(&["--step", "database,reconcile"]), ["reconcile ok", "database ok"]);
    assert_eq!(steps(&["--step", "vacuum", "--skip", "vacuum"]), [] as [&str; 0]);
    let one = steps(&["--table", "s.t", "--step", "skipping_index", "--step", "database"]);
    assert_eq!(one, ["skipping-index ok", "database skipped"]);
    world.dl(&["maintain", "--table", "s.nope", "--step", "reconcile"]).code(1);
    world.dl(&["maintain", "--step", "vaccum"]).code(2);
    world.dl(&["maintain", "--schedule", "1h"]).code(2);
    world.dl(&["maintain", "--watch", "--schedule", "soon"]).code(2);
    world.dl(&["maintain", "--dry-run", "--metrics-output", "x.prom"]).code(2);
    world.file("dl.toml", "[maintenance.reconcile]\nenabled = false\ntimeout = '5m'\n");
    let all = steps(&[]);
    assert!(all.contains(&"reconcile skipped".to_owned()), "{all:?}");
    assert_eq!(steps(&["--step", "reconcile"]), ["reconcile ok"], "asked for by its name");
    world.file("dl.toml", "[maintenance]\nenabled = false\n");
    let run = world.dl(&["maintain"]).ok();
    assert!(run.stderr.contains("maintenance.enabled is false"), "{}", run.stderr);
    // What deletes does not fall back to defaults because of a slip.
    let stale = stale(&world, "x.parquet", 30);
    asking(&world);
    world.file("dl.toml", "[maintenance.vacuum]\nmin_retenton = '90d'\n");
    world.dl(&["maintain"]).fails(&["dl.toml:2", "min_retention"]);
    assert!(stale.exists());
    world.file("dl.toml", "[maintenance.vacuum]\nmin_retention = '90d'\n");
    world.dl(&["maintain"]).ok();
    assert!(stale.exists());
    world.file("dl.toml", "");
    world.dl(&["maintain", "--step", "vacuum"]).ok();
    assert!(!stale.exists());
}

/// Makes all that was committed and published so many days older.
fn older(world: &World, days: i64) {
    let file = rusqlite::Connection::open(world.path("catalog.db")).unwrap();
    let ms = days * 86_400_000;
    let sql = format!(
        "BEGIN IMMEDIATE;
         UPDATE dl_batches SET committed_at_ms = committed_at_ms - {ms};
         UPDATE dl_commits SET timestamp_ms = timestamp_ms - {ms};
         UPDATE dl_tables SET head_timestamp_ms = head_timestamp_ms - {ms};
         UPDATE dl_mirror_status SET published_at_ms = published_at_ms - {ms};
         COMMIT"
    );
    file.execute_batch(&sql).unwrap();
}

fn rows(world: &World, of: &str) -> i64 {
    let file = rusqlite::Connection::open(world.path("catalog.db")).unwrap();
    file.query_row(&format!("SELECT count(*) FROM {of}"), [], |row| row.get(0)).unwrap()
}

#[test]
fn old_tokens_are_forgotten_where_the_configuration_says_so() {
    let world = World::with_table();
    let load = ["commit", "s.t", "--token", "load-1"];
    for n in 0..5 {
        world.dl_with_input(&["commit", "s.t"], &add(&format!("day=1/{n}"), "1")).ok();
    }
    world.dl_with_input(&load, &add("day=1/load", "1")).ok();
    world.dl(&["mirror", "run"]).ok();
    older(&world, 100);
    let expire = ["maintain", "--step", "expire"];
    let (tokens, published) = (rows(&world, "dl_batches"), rows(&world, "dl_mirror_status"));
    assert!(tokens >= 7 && published >= 7, "{tokens} {published}");
    // By itself it forgets no token.
    let report = world.json(&[&expire[..], &["--dry-run"]].concat());
    assert_eq!(report["steps"][0]["counts"]["outbox_rows"], published - 1, "{report}");
    assert_eq!(rows(&world, "dl_mirror_status"), published, "nothing is written");
    let report = world.json(&expire);
    assert_eq!(
        (outcome(&report, "expire"), &report["steps"][0]["counts"]["outbox_rows"]),
        ("ok", &(published - 1).into())
    );
    let notes = report["steps"][0]["notes"].to_string();
    assert!(notes.contains("tokens are kept: maintenance.expire.tokens is not set"), "{notes}");
    assert_eq!((rows(&world, "dl_batches"), rows(&world, "dl_mirror_status")), (tokens, 1));
    world.dl(&["mirror", "wait", "--token", "load-1"]).ok();
    // A time that is too short, or a slip, forgets nothing.
    for (text, words) in [
        ("tokens = '6h'", ["maintenance.expire.tokens", "1d"]),
        ("tokens = '30'", ["is 30 s", "written twice"]),
        ("outbox = '5m'", ["maintenance.expire.outbox", "1d"]),
        ("token = '90d'", ["dl.toml:2", "maintenance.expire.tokens"]),
    ] {
        world.file("dl.toml", &format!("[maintenance.expire]\n{text}\n"));
        world.dl(&expire).fails(&words);
        world.dl(&["config", "check", "--offline", "dl.toml"]).code(1);
    }
    world.file("dl.toml", "[maintenance.expire]\ntokens = '90d'\n");
    world.dl(&["config", "check", "--offline", "dl.toml"]).ok();
    // Younger ones stay.
    world.dl_with_input(&["commit", "s.t", "--token", "young"], &add("day=1/young", "1")).ok();
    let report = world.json(&[&expire[..], &["--dry-run"]].concat());
    assert_eq!(report["steps"][0]["counts"]["tokens"], tokens, "{report}");
    world.dl(&["mirror", "wait", "--token", "load-1"]).ok();
    let before = world.json(&["history", "s.t"]);
    let report = world.json(&expire);
    assert_eq!(report["steps"][0]["counts"]["tokens"], tokens, "{report}");
    let mut after = world.json(&["history", "s.t"]);
    for (after, before) in after.as_array_mut().unwrap().iter_mut().zip(before.as_array().unwrap())
    {
        let was = before["token"].as_str().unwrap();
        assert_eq!(after["token"].as_str(), (was == "young").then_some(was));
        after["token"] = before["token"].clone();
    }
    assert_eq!(after, before, "but for the tokens all is as it was");
    world.dl(&["mirror", "wait", "--token", "load-1"]).fails(&["the token has expired"]);
    world.dl(&["mirror", "wait", "--token", "young"]).ok();
    let audit = world.json(&["audit", "--no-commits"]);
    let actions: Vec<_> =
        audit.as_array().unwrap().iter().map(|row| row["action"].clone()).collect();
    assert_eq!(actions, ["expire.start", "expire.end"]);
    assert_eq!(audit[1]["detail"]["tokens"], tokens, "{audit}");
    assert!(
        audit[0]["detail"]["before"].as_i64() < Some(before[0]["timestamp_ms"].as_i64().unwrap())
    );
    // Nothing is left: no row in the audit.
    assert_eq!(world.json(&expire)["steps"][0]["counts"]["tokens"], 0);
    assert_eq!(world.json(&["audit", "--no-commits"]).as_array().unwrap().len(), 2);
    // A token that was forgotten is a new one, once.
    for _ in 0..2 {
        world.dl_with_input(&load, &add("day=1/again", "1")).ok();
    }
    assert_eq!(
        world.json(&["history", "s.t"]).as_array().unwrap().len(),
        before.as_array().unwrap().len() + 1
    );
    world.dl(&["diff", "--table", "s.t"]).ok();
}

/// `kill -9` between any two pages, and in one.
#[test]
fn a_pass_that_forgets_tokens_may_be_killed_anywhere() {
    let world = World::with_table();
    older(&world, 100);
    let file = rusqlite::Connection::open(world.path("catalog.db")).unwrap();
    // As of commits of a table that is gone.
    file.execute_batch(
        "BEGIN IMMEDIATE;
         WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 20000)
         INSERT INTO dl_batches SELECT 'load-' || n, n FROM n;
         WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 20000)
         INSERT INTO dl_commits (table_key, version, timestamp_ms, token, batch_position, num_added, num_removed,
            bytes_added, bytes_removed, changes_metadata, changes_protocol, total_files, total_bytes, has_body,
            body_len, first_line)
         SELECT 1000000, n, n, 'load-' || n, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, '{}' FROM n;
         COMMIT",
    )
    .unwrap();
    drop(file);
    world.file("dl.toml", "[maintenance.expire]\ntokens = '30d'\n");
    let half =
        "dl_commits c WHERE (c.token IS NULL) <> (c.batch_position IS NULL) OR (c.token IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM dl_batches b WHERE b.token = c.token))";
    let orphan =
        "dl_batches b WHERE NOT EXISTS (SELECT 1 FROM dl_commits c WHERE c.token = b.token)";
    let mut seen = Vec::new();
    for ms in [30, 60, 90, 120, 180, 240] {
        let mut child = world.command(&["maintain", "--step", "expire"]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(ms));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((rows(&world, half), rows(&world, orphan)), (0, 0), "after {ms} ms");
        seen.push(rows(&world, "dl_batches"));
    }
    assert!(seen.is_sorted_by(|a, b| a >= b), "{seen:?}");
    // Two at the same time, beside commits.
    let passes: Vec<_> =
        (0..2).map(|_| world.command(&["maintain", "--step", "expire"]).spawn().unwrap()).collect();
    for n in 0..5 {
        world.dl_with_input(&["commit", "s.t"], &add(&format!("day=1/{n}"), "1")).ok();
    }
    for pass in passes {
        assert!(pass.wait_with_output().unwrap().status.success());
    }
    world.dl(&["maintain", "--step", "expire"]).ok();
    assert_eq!((rows(&world, half), rows(&world, orphan)), (0, 0));
    assert_eq!(rows(&world, "dl_batches"), 5);
}

/// restic #2452, azinchen/duplicacy #14: jobs that take longer than their interval meet themselves.
#[test]
fn passes_at_the_same_time_and_killed_ones_do_no_harm() {
    let world = World::with_table();
    asking(&world);
    let interval = ["alter", "s.t", "--set", "delta.checkpointInterval=5"];
    world.dl(&interval).ok();
    world.dl(&["alter", "s.t", "--set", "delta.logRetentionDuration=interval 1 second"]).ok();
    for n in 0..12 {
        world.dl_with_input(&["commit", "s.t"], &add(&format!("day=1/{n}"), "1")).ok();
        fs::create_dir_all(world.path("t/day=1")).unwrap();
        fs::write(world.path(&format!("t/day=1/{n}")), "x").unwrap();
    }
    world.file("dl.toml", "[maintenance.backup]\nto = 'kept'\nkeep = 2\nfull_every = '1s'\n");
    std::thread::sleep(Duration::from_millis(1_100));
    let stale: Vec<PathBuf> =
        (0..20).map(|n| stale(&world, &format!("day=1/x{n}.parquet"), 30)).collect();
    // Killed at some moment or other.
    for ms in [20, 60, 120, 240] {
        let mut child = world.command(&["maintain"]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(ms));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let children: Vec<_> = (0..4).map(|_| world.command(&["maintain"]).spawn().unwrap()).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stdout));
    }
    assert!(stale.iter().all(|path| !path.exists()));
    for n in 0..12 {
        assert!(world.path(&format!("t/day=1/{n}")).exists(), "{n} is needed");
    }
    // The log can be read, what was published is what the catalog says, and the backup is whole.
    world.dl(&["diff", "--table", "s.t"]).ok();
    world.dl(&["mirror", "reconcile"]).ok();
    world.dl(&["backup", "verify", "kept"]).ok();
    assert!(!world.path("t/_delta_log/00000000000000000000.json").exists(), "it has expired");
}

#[test]
fn passes_go_on_by_a_schedule_and_are_watched() {
    let world = World::with_table();
    asking(&world);
    let run = ["maintain", "--watch", "--listen", "127.0.0.1:0", "--metrics-output", "m.prom"];
    let more = ["--schedule", "1s", "--skip", "optimize"];
    let worker = Worker::of(world.command(&[&run[..], &more].concat()));
    let name = "dl_maintain_step_seconds_count";
    worker.until(Duration::from_secs(60), "three passes are done", |worker| {
        worker.metrics().sum(name, "step=\"reconcile\",outcome=\"ok\"") >= 3.0
    });
    assert_eq!((worker.get("/health").0, worker.get("/ready").0), (200, 200));
    let scrape = worker.metrics();
    assert!(scrape.sum(name, "step=\"backup\",outcome=\"skipped\"") >= 2.0, "no place is named");
    let last = "dl_maintain_last_success_timestamp_seconds";
    assert!(scrape.sum(last, "step=\"vacuum\"") > 1.7e9);
    assert!(scrape.sum(last, "step=\"backup\"") < 1.0);
    // What it deletes, it deletes again and again.
    let stale = stale(&world, "x.parquet", 30);
    worker.until(Duration::from_secs(30), "the file goes", |_| !stale.exists());
    drop(worker);
    // The times survive, and a schedule of cron waits for its moment.
    let before = fs::read_to_string(world.path("m.prom")).unwrap();
    let late = ["--schedule", "0 0 29 2 *"];
    let worker = Worker::of(world.command(&[&run[..], &late].concat()));
    let scrape = worker.metrics();
    assert!(scrape.sum(last, "step=\"vacuum\"") > 1.7e9);
    assert!(scrape.sum(name, "") < 1.0, "no pass has begun");
    assert_eq!(fs::read_to_string(world.path("m.prom")).unwrap(), before);
}

#[cfg(unix)]
#[test]
fn a_watcher_ends_when_it_is_told() {
    let world = World::with_table();
    let mut child =
        world.command(&["maintain", "--watch", "--schedule", "@yearly"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert!(line.contains("@yearly"), "{line}");
    let told = Instant::now();
    let kill = std::process::Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(kill.success());
    child.wait().unwrap();
    assert!(told.elapsed() < Duration::from_secs(5));
}

#[cfg(feature = "postgres")]
#[test]
fn tables_on_postgresql_are_vacuumed_by_their_owner() {
    use deltalakedb_test_servers::{Postgres, PostgresOptions, skip};

    let server = match Postgres::start(PostgresOptions::default()) {
        Ok(server) => server,
        Err(why) => return skip(&["postgres"], why.to_string()),
    };
    server.create_database("lake").unwrap();
    let world = World::at(Some(server.url("lake")));
    world.dl(&["init"]).ok();
    let dry = world.json(&["maintain", "--step", "database", "--dry-run"]);
    let notes = dry["steps"][0]["notes"].to_string();
    assert!(notes.contains("VACUUM (ANALYZE, SKIP_LOCKED, TRUNCATE FALSE)"), "{dry}");
    let report = world.json(&["maintain"]);
    assert_eq!(outcome(&report, "database"), "ok", "{report}");
    assert!(report["steps"].to_string().contains("dl_files"), "{report}");
    // As a pooler in transaction mode needs it: each statement would be in a transaction.
    let url = server.url("lake");
    let sign = if url.contains('?') { '&' } else { '?' };
    let pooled = format!("{url}{sign}statement_cache=0");
    let report = world.json(&["maintain", "--step", "database", "--catalog", &pooled]);
    assert_eq!(outcome(&report, "database"), "ok", "{report}");
}

#[cfg(feature = "mysql")]
#[test]
fn mariadb_keeps_its_statistics_itself() {
    use deltalakedb_test_servers::{MariaDb, MariaDbOptions, skip};

    let server = match MariaDb::start(MariaDbOptions::default()) {
        Ok(server) => server,
        Err(why) => return skip(&["mariadb"], why.to_string()),
    };
    server.create_database("lake").unwrap();
    let world = World::at(Some(server.url("lake")));
    world.dl(&["init"]).ok();
    let report = world.json(&["maintain", "--step", "database"]);
    let expected =
        if report.to_string().contains("innodb_stats_auto_recalc") { "skipped" } else { "ok" };
    assert_eq!(outcome(&report, "database"), expected, "{report}");
}
