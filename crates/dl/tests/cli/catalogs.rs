//! `init`, how a catalog is named, `completions`, help and usage.

use crate::world::World;

#[test]
fn init_makes_a_catalog_and_again_is_harmless() {
    let world = World::empty();
    world.dl(&["list"]).fails(&["there is no catalog", "dl init"]);
    assert!(!world.path("catalog.db").exists(), "a look must not create it");
    world.dl(&["init"]).ok().says("is ready");
    let again = world.json(&["init"]);
    assert_eq!(again["kind"], "sqlite");
    assert_eq!(again["schema_version"], 5);
    assert_eq!(world.json(&["list"]), serde_json::json!([]));
}

#[test]
fn a_catalog_is_named_in_three_ways() {
    let world = World::empty();
    let without = |arguments: &[&str]| {
        let mut command = world.command(arguments);
        command.env_remove("DELTA_DB_CONNECTION");
        crate::world::Run::from(command.output().unwrap())
    };
    without(&["list"]).fails(&["--catalog", "DELTA_DB_CONNECTION", "dl.toml"]);
    without(&["init", "--catalog", "sqlite://./a b.db"]).ok();
    assert!(world.path("a b.db").exists());
    world.file("dl.toml", "catalog = 'sqlite://./a%20b.db'\nformat = 'json'");
    assert_eq!(without(&["list"]).ok().stdout.trim(), "[]");
    world.file("dl.toml", "catalogs = 1");
    without(&["list"]).fails(&["dl.toml", "catalogs"]);
    // A flag does not need the file.
    without(&["list", "--catalog", "sqlite://./a%20b.db"]).ok();
}

#[test]
fn passwords_are_never_repeated() {
    let world = World::empty();
    // Nothing listens on port 1.
    for url in [
        "postgresql://user:geheim@127.0.0.1:1/db?acquire_timeout=100ms",
        "mysql://user:geheim@127.0.0.1:1/db?acquire_timeout=100ms",
        "mssql://user:geheim@127.0.0.1:1/db?acquire_timeout=100ms",
        "postgresql://user:geheim@127.0.0.1:1/db?nix=geheim",
        "postgresql://user:gehe/geheim@127.0.0.1:1/db",
        "postgresql://user:geheim@127.0.0.1:geheim/db",
        "oracle://user:geheim@host/db",
        "user:geheim@host",
        "sqlite://x.db?pw=geheim",
    ] {
        let table = format!("delta+sql://{url}/s.t");
        for arguments in [
            vec!["list", "--catalog", url],
            vec!["list", "--catalog", url, "--format", "json"],
            vec!["init", "--catalog", url, "-vvv"],
            vec!["show", url],
            vec!["show", &table],
            vec!["commit", "--table", url],
            vec!["commit", "--table", &table],
            vec!["commit", "s.t", "--read-version", &table],
            vec!["create", &table, "--location", "x", "--columns", "a int"],
        ] {
            let run = world.dl(&arguments).code(1);
            let all = format!("{}{}", run.stdout, run.stderr);
            assert!(!all.contains("geheim"), "{arguments:?}: {all}");
            assert!(!all.contains("panicked"), "{arguments:?}: {all}");
        }
        let odd = format!("--catlog={url}");
        for arguments in [["list", url], ["list", &odd], ["init", &table]] {
            let run = world.dl(&arguments).code(2);
            assert!(run.stderr.contains("Usage"), "{}", run.stderr);
            assert!(!run.stderr.contains("geheim"), "{arguments:?}: {}", run.stderr);
        }
    }
    world
        .dl(&["list", "--catalog", "oracle://u:p@h/d"])
        .fails(&["no backend for 'oracle://'", "there are: sqlite, postgresql, mysql, mssql"]);
}

#[test]
fn a_password_on_the_command_line_gets_one_warning() {
    let world = World::empty();
    let url = "postgresql://user:geheim@127.0.0.1:1/db?acquire_timeout=100ms";
    let warnings = |run: &crate::world::Run| run.stderr.matches("warning: a password on").count();
    let run = world.dl(&["list", "--catalog", url]).code(1);
    assert_eq!(warnings(&run), 1, "{}", run.stderr);
    assert!(run.stderr.contains("DELTA_DB_PASSWORD"), "{}", run.stderr);
    let table = format!("delta+sql://{url}").replace("/db?", "/db/s.t?");
    let run = world.dl(&["show", &table, "--catalog", url]).code(1);
    assert_eq!(warnings(&run), 1, "{}", run.stderr);
    let run = world.dl(&["list", "--catalog", &url.replace(":geheim", "")]).code(1);
    assert_eq!(warnings(&run), 0, "{}", run.stderr);
    let mut command = world.command(&["list"]);
    let run = crate::world::Run::from(command.env("DELTA_DB_CONNECTION", url).output().unwrap());
    assert_eq!((run.code, warnings(&run)), (1, 0), "{}", run.stderr);
}

#[test]
fn table_urls_bring_their_catalog() {
    let world = World::with_table();
    let url = format!("delta+sql://{}/s.t", world.catalog());
    let shown = |arguments: &[&str]| {
        let mut command = world.command(arguments);
        command.env_remove("DELTA_DB_CONNECTION");
        crate::world::Run::from(command.output().unwrap())
    };
    for command in ["show", "files", "history"] {
        shown(&[command, &url]).ok();
    }
    shown(&["mirror", "status", &url]).ok();
    shown(&["diff", "--table", &url]).ok();
    shown(&["drop", &url]).ok();
    shown(&["undrop", &url]).ok();
    let new = format!("delta+sql://{}/s.made", world.catalog());
    shown(&["create", &new, "--location", "made", "--columns", "a int"]).ok();
    shown(&["show", &url, "--catalog", "sqlite://other.db"]).fails(&["--catalog another"]);
    let prefixed = format!("delta+sql://{}/s.t?table_prefix=other_", world.catalog());
    shown(&["show", &prefixed]).fails(&[]);
}

#[test]
fn errors_are_json_where_json_is_asked_for() {
    let world = World::new();
    let run = world.dl(&["show", "s.none", "--format", "json"]).code(1);
    assert_eq!(run.stdout, "");
    let error: serde_json::Value = serde_json::from_str(&run.stderr).unwrap();
    assert_eq!(error["error"]["kind"], "table_not_found");
    assert!(error["error"]["message"].as_str().unwrap().contains("s.none"));
    assert_eq!(error["error"]["may_have_happened"], false);
}

#[test]
fn usage_errors_have_codes_of_their_own() {
    let world = World::new();
    world.dl(&["nonsense"]).code(2);
    world.dl(&["show"]).code(2);
    world.dl(&["files", "s.t", "--version", "x"]).code(2);
    // 2 means drift there.
    world.dl(&["diff", "--nonsense"]).code(1);
    world.dl(&["--catalog", "sqlite://x.db", "diff", "--lag-threshold-seconds", "-"]).code(1);
    world.dl(&["--help"]).ok().says("Examples:");
    world.dl(&["diff", "--help"]).ok().says("Exit codes: 0 parity, 2 drift, 3");
    world.dl(&["--version"]).ok().says("dl ");
}

#[test]
fn completions_are_scripts() {
    let world = World::empty();
    for (shell, word) in
        [("bash", "_dl"), ("zsh", "#compdef dl"), ("fish", "complete -c dl"), ("powershell", "dl")]
    {
        world.dl(&["completions", shell]).ok().says(word);
    }
    world.dl(&["completions", "none"]).code(2);
}

#[cfg(unix)]
#[test]
fn a_closed_pipe_is_quiet() {
    let world = World::new();
    for n in 0..3 {
        world.create(&format!("s.t{n}"), &format!("t{n}"), &[]).ok();
    }
    let mut child = world.command(&["list"]).spawn().unwrap();
    drop(child.stdout.take());
    let run = crate::world::Run::from(child.wait_with_output().unwrap()).ok();
    assert!(!run.stderr.contains("error") && !run.stderr.contains("panicked"), "{}", run.stderr);
}

#[test]
fn quiet_says_only_results() {
    let world = World::empty();
    let run = world.dl(&["init", "--quiet"]).ok();
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""));
    let run = world.dl(&["list", "-q"]).ok();
    assert_eq!(run.stdout.lines().count(), 1, "the header: {}", run.stdout);
    assert_eq!(run.stderr, "");
}
