//! A session with `dl`, and what it prints and publishes.

use std::collections::BTreeMap;
use std::fs;

use crate::world::{FIRST_COMMIT, Run, World, add, foreign_log, plain_add, remove};

/// What a session printed and published, with what differs from run to run replaced.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Transcript {
    /// Commands with their exit codes and what they printed.
    pub(crate) printed: Vec<(String, String)>,
    /// Files of logs.
    pub(crate) files: BTreeMap<String, String>,
}

impl Transcript {
    fn run(&mut self, world: &World, arguments: &[&str]) {
        self.keep(world, arguments, &world.dl(&with_json(arguments)));
    }

    fn run_with_input(&mut self, world: &World, arguments: &[&str], input: &str) {
        self.keep(world, arguments, &world.dl_with_input(&with_json(arguments), input));
    }

    fn keep(&mut self, world: &World, arguments: &[&str], run: &Run) {
        let text = format!("{}: {}{}", run.code, run.stdout, run.stderr);
        self.printed.push((neutral(world, &arguments.join(" ")), neutral(world, &text)));
    }

    /// Keeps all files of a table's log, by name.
    fn keep_log(&mut self, world: &World, table: &str) {
        let log = world.path(table).join("_delta_log");
        for entry in fs::read_dir(log).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{table}/{}", entry.file_name().to_str().unwrap());
            let text = if name.ends_with(".parquet") {
                // Timestamps in columns: that it is there has to do. `diff` compares what is in it.
                String::new()
            } else {
                neutral(world, &fs::read_to_string(entry.path()).unwrap())
            };
            // And so the size of a checkpoint differs by some bytes, and the hint's own checksum.
            let text = if name.ends_with("/_last_checkpoint") {
                let mut hint: serde_json::Map<String, serde_json::Value> =
                    serde_json::from_str(&text).unwrap();
                assert!(hint.remove("sizeInBytes").is_some_and(|size| size.is_u64()), "{text}");
                let checksum = hint.remove("checksum");
                assert!(checksum.is_some_and(|c| c.as_str().unwrap().len() == 32), "{text}");
                serde_json::to_string(&hint).unwrap()
            } else {
                text
            };
            self.files.insert(name, text);
        }
    }
}

fn with_json<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [arguments, &["--format", "json"]].concat()
}

/// Text without the folder, ids and times, whose numbers of digits are kept.
fn neutral(world: &World, text: &str) -> String {
    let folder = world.path("");
    let folder = folder.to_str().unwrap().trim_end_matches('/');
    let text = text.replace(folder, "FOLDER");
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(c) = rest.chars().next() {
        let word =
            rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(rest.len());
        let (head, tail) = rest.split_at(word.max(c.len_utf8()));
        out.push_str(match head {
            _ if is_uuid(head) => "UUID",
            _ if head.len() == 13 && head.bytes().all(|b| b.is_ascii_digit()) => "TIMESTAMP_MS_",
            _ => head,
        });
        rest = tail;
    }
    out
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.char_indices().all(|(at, c)| match at {
            8 | 13 | 18 | 23 => c == '-',
            _ => c.is_ascii_hexdigit(),
        })
}

#[test]
fn only_ids_times_and_the_folder_are_neutral() {
    let world = World::empty();
    let folder = world.path("t");
    assert_eq!(
        neutral(
            &world,
            &format!(
                "{} 7f2c1f64-5717-4562-b3fc-2c963f66afa6:1763688208000,17 é",
                folder.display()
            )
        ),
        "FOLDER/t UUID:TIMESTAMP_MS_,17 é"
    );
}

/// A session over most commands, with failures among them.
pub(crate) fn session(world: &World) -> Transcript {
    let mut t = Transcript::default();
    world.dl(&["init"]).ok();
    for (name, folder) in [("s.t", "t"), ("s.ü't\"x", "u")] {
        let columns = crate::world::COLUMNS;
        t.run(
            world,
            &["create", name, "--location", folder, "--columns", columns, "--partition-by", "day"],
        );
    }
    t.run(world, &["create", "s.t", "--location", "x", "--columns", "a int"]);
    let one = world.parquet("t/day=a/1.parquet", &[1, 2, 3]);
    world.parquet("t/day=b%20c/2.parquet", &[4]);
    // Their modification times are in the log: 13 digits, in this century.
    t.run(world, &["append", "s.t", &one, "--token", "first"]);
    t.run(world, &["append", "s.t", "t", "--token", "second"]);
    t.run(world, &["append", "s.t", "t"]);
    t.run(world, &["append", "s.t", &one, "--token", "first"]);
    let long = "x".repeat(900);
    let both = world.file(
        "both.json",
        &[add("day=1/ü🚀.parquet", "1"), add(&format!("day=2/{long}.parquet"), "2")].join("\n"),
    );
    let (one, two) = (format!("s.t={both}"), format!("s.ü't\"x={both}"));
    for _ in 0..2 {
        t.run(world, &["commit", "--table", &one, "--table", &two, "--token", "both"]);
    }
    let remove = |path: &str| remove(path);
    t.run_with_input(
        world,
        &["commit", "s.t", "--operation", "DELETE", "--token", "gone"],
        &remove("day=1/ü🚀.parquet"),
    );
    t.run_with_input(
        world,
        &["commit", "s.t", "--read-version", "3", "--token", "late"],
        &remove("day=1/ü🚀.parquet"),
    );
    t.run_with_input(world, &["commit", "s.t", "--token", "bad"], "{\"add\":");
    for n in 0..12 {
        let line = add(&format!("day=3/{n}.parquet"), "3");
        t.run_with_input(world, &["commit", "s.t", "--blind", "--token", &format!("n{n}")], &line);
    }
    let foreign = foreign_log(world, "foreign", &[FIRST_COMMIT, &plain_add("a.parquet")]);
    t.run(world, &["import", &foreign, "s.foreign"]);
    t.run(world, &["import", &foreign, "s.again"]);
    t.run_with_input(world, &["commit", "s.foreign", "--token", "f"], &plain_add("b.parquet"));
    for arguments in [
        &["list"][..],
        &["list", "--namespace", "none"],
        &["show", "s.t"],
        &["show", "s.t", "--version", "2"],
        &["show", "s.none"],
        &["show", "s.t", "--version", "99"],
        &["files", "s.t"],
        &["files", "s.t", "--version", "3"],
        &["files", "s.t", "--where", "day = '1' OR day = 'a'"],
        &["files", "s.ü't\"x"],
        &["history", "s.t"],
        &["history", "s.t", "--limit", "2"],
        &["history", "s.foreign"],
        &["mirror", "run"],
        &["mirror", "status"],
        &["mirror", "status", "s.t"],
        &["diff", "--table", "s.t"],
        &["diff", "--table", "s.foreign"],
        &["publish", "s.foreign", "--to", "foreign-copy"],
        &["publish", "s.t", "--to", "copy"],
        &["drop", "s.foreign"],
        &["list", "--dropped"],
        &["undrop", "s.foreign", "--as", "s.back"],
        &["list"],
    ] {
        t.run(world, arguments);
    }
    for table in ["t", "u", "foreign", "foreign-copy", "copy"] {
        t.keep_log(world, table);
    }
    t
}
