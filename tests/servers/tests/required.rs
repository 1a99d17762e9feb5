//! A test that must run and cannot has failed, in whatever way the tests are started.
#![allow(clippy::unwrap_used, reason = "a test's way to speak")]

use std::path::{Path, PathBuf};
use std::process::Command;

use deltalakedb_test_servers::skip;

#[test]
#[ignore = "a part of the next one"]
fn a_test_without_its_server() {
    skip(&["mysql"], "there is no server");
}

#[test]
fn what_is_required_and_missing_is_a_failure() {
    for (list, passes) in [
        ("", true),
        ("sqlite,postgres", true),
        ("mysql", false),
        ("sqlite, mariadb", false),
        ("corpus,mysql,galera", false),
    ] {
        let run = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_test_without_its_server", "--ignored", "--nocapture"])
            .env("DL_REQUIRE", list)
            // This test is not skipped.
            .env_remove("DL_SKIPS")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&run.stdout) + String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.success(), passes, "{list}: {text}");
        let said = if passes {
            "skipped: there is no server"
        } else {
            "DL_REQUIRE asks for mysql, but there is no server"
        };
        assert!(text.contains(said), "{list}: {text}");
    }
}

#[test]
fn what_is_skipped_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("skips");
    let skipped = |names: [(&str, &str); 2]| {
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_test_without_its_server", "--ignored"])
            .envs(names)
            .env("DL_SKIPS", &file)
            .env_remove("DL_REQUIRE")
            .status();
        assert!(status.unwrap().success());
        let text = std::fs::read_to_string(&file).unwrap();
        serde_json::from_str::<serde_json::Value>(text.lines().last().unwrap()).unwrap()
    };
    let nextest = [("NEXTEST_BINARY_ID", "servers::required"), ("NEXTEST_TEST_NAME", "one")];
    let told = serde_json::json!({"program": "servers::required", "test": "one", "why": "there is no server"});
    assert_eq!(skipped(nextest), told);
    assert_eq!(skipped(nextest), told);
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 2);
}

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// Whoever skips by printing would pass where `DL_REQUIRE` asks for what is missing.
#[test]
fn nobody_skips_without_asking_what_is_required() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    for folder in ["crates", "tests"] {
        sources(&root.join(folder), &mut files);
    }
    assert!(files.len() > 300, "these are not the sources: {}", files.len());
    let own = ["servers/src/required.rs", "servers/tests/required.rs", "tests/bench/src/cases.rs"];
    let skips: Vec<_> = files
        .iter()
        .filter(|path| !own.iter().any(|own| path.ends_with(own)))
        .filter(|path| std::fs::read_to_string(path).unwrap().contains("println!(\"skipped:"))
        .collect();
    assert!(skips.is_empty(), "use `deltalakedb_test_servers::skip` in {skips:#?}");
}
