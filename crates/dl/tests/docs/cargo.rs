//! Lines that call cargo. They would build the workspace anew, or run these tests from within: they are held
//! against the workspace instead.

use std::path::Path;
use std::process::Command;

use crate::markdown::root;

const SUBCOMMANDS: [&str; 9] =
    ["add", "bench", "build", "clippy", "deny", "doc", "fmt", "install", "nextest"];
const OF_TARGETS: [&str; 3] = ["check", "run", "test"];

/// What is wrong with the arguments of cargo, if anything is.
pub(crate) fn trouble(arguments: &str) -> Option<String> {
    let (own, _) = arguments.split_once(" -- ").unwrap_or((arguments, ""));
    let words: Vec<&str> = own.split_whitespace().collect();
    let subcommand = *words.first()?;
    if subcommand == "xtask" {
        return of_xtask(&words[1..]);
    }
    if !SUBCOMMANDS.contains(&subcommand) && !OF_TARGETS.contains(&subcommand) {
        return Some(format!("there is no cargo {subcommand}"));
    }
    let after =
        |flag: &str| words.iter().position(|word| *word == flag).and_then(|at| words.get(at + 1));
    let folder = match (after("-p"), after("--path")) {
        (Some(package), _) => match folder_of(package) {
            Some(folder) => folder,
            None => return Some(format!("there is no package {package}")),
        },
        (None, Some(path)) => root().join(path),
        (None, None) => return None,
    };
    let Ok(manifest) = std::fs::read_to_string(folder.join("Cargo.toml")) else {
        return Some(format!("there is no {}", folder.display()));
    };
    let features = after("--features").map(|list| list.split(',').collect()).unwrap_or_default();
    if let Some(why) = without_feature(&manifest, features) {
        return Some(why);
    }
    for (flag, kind) in [("--test", "tests"), ("--example", "examples"), ("--bench", "benches")] {
        if let Some(name) = after(flag) {
            let file = folder.join(kind).join(format!("{name}.rs"));
            if !file.exists() && !folder.join(kind).join(name).join("main.rs").exists() {
                return Some(format!("there is no {}", file.display()));
            }
        }
    }
    None
}

/// What is wrong with a manifest that depends on crates of this workspace by their paths, if anything is.
pub(crate) fn manifest_trouble(text: &str) -> Option<String> {
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((_, rest)) = line.split_once("path = \"") else { continue };
        let path = rest.split('"').next().unwrap_or_default();
        let Some((_, krate)) = path.split_once("/crates/") else {
            return Some(format!("{path} is not in this workspace"));
        };
        let Ok(manifest) =
            std::fs::read_to_string(root().join("crates").join(krate).join("Cargo.toml"))
        else {
            return Some(format!("there is no crates/{krate}"));
        };
        let features = rest.split_once("features = [").map_or("", |(_, list)| list);
        let features = features.split(']').next().unwrap_or_default();
        let features = features.split('"').skip(1).step_by(2).collect();
        if let Some(why) = without_feature(&manifest, features) {
            return Some(why);
        }
    }
    None
}

/// The first of these features that a manifest does not declare.
fn without_feature(manifest: &str, features: Vec<&str>) -> Option<String> {
    let declares =
        |feature: &&str| manifest.lines().any(|line| line.starts_with(&format!("{feature} = [")));
    let missing = features.into_iter().find(|feature| !declares(feature))?;
    Some(format!("there is no feature {missing}"))
}

/// The folder of a package of this workspace.
fn folder_of(package: &str) -> Option<std::path::PathBuf> {
    let root = root();
    let mut folders = vec![root.join("xtask")];
    for parent in ["crates", "tests"] {
        folders.extend(std::fs::read_dir(root.join(parent)).unwrap().map(|e| e.unwrap().path()));
    }
    let line = format!("name = \"{package}\"");
    folders.into_iter().find(|folder| {
        std::fs::read_to_string(folder.join("Cargo.toml"))
            .is_ok_and(|text| text.lines().any(|l| l == line))
    })
}

/// Its command line, by its own parser where the program is there.
fn of_xtask(arguments: &[&str]) -> Option<String> {
    let subcommand = arguments.first()?;
    let main = std::fs::read_to_string(root().join("xtask/src/main.rs")).unwrap();
    let mut letters = subcommand.chars();
    let variant: String =
        letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
    let declares = |line: &str| {
        line.trim_start()
            .strip_prefix(&variant)
            .is_some_and(|rest| rest.starts_with(['(', ',', ' ', '{']))
    };
    if !main.lines().any(declares) {
        return Some(format!("there is no cargo xtask {subcommand}"));
    }
    let program = Path::new(env!("CARGO_BIN_EXE_dl")).with_file_name("xtask");
    if !program.exists() {
        return None;
    }
    let output = Command::new(program).args(arguments).arg("--help").output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    (!output.status.success()).then_some(error)
}

#[test]
fn wrong_lines_are_noticed() {
    for (line, right) in [
        ("xtask test --quick", true),
        ("xtask tests", false),
        ("run -p dl -- quickstart", true),
        ("run -p ld -- quickstart", false),
        ("test -p dl --test cli", true),
        ("test -p dl --test cil", false),
        ("install --path crates/dl --features sql", true),
        ("install --path crates/dl --features sqll", false),
        ("instal --path crates/dl", false),
    ] {
        let found = trouble(line);
        assert_eq!(found.is_none(), right, "{line}: {found:?}");
    }
}

#[test]
fn wrong_manifests_are_noticed() {
    for (line, right) in [
        (
            r#"deltalakedb = { path = "../deltalakedb/crates/deltalakedb", features = ["s3", "postgres"] }"#,
            true,
        ),
        (
            r#"deltalakedb = { path = "../deltalakedb/crates/deltalakedb", features = ["s4"] }"#,
            false,
        ),
        (r#"deltalakedb = { path = "../deltalakedb/crates/deltalake" }"#, false),
    ] {
        let found = manifest_trouble(line);
        assert_eq!(found.is_none(), right, "{line}: {found:?}");
    }
}
