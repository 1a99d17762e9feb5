//! `cargo xtask api`: the public API of the facade, which is what users are promised, beside the file that holds
//! it.
//!
//! rustdoc writes it as JSON, which a stable toolchain does only if it is told that it may. That is told to
//! rustdoc alone: this program stands before it. Told to cargo, it would reach build scripts, and all would be
//! built once more.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use crate::{run, workspace};

/// The crate, and the file of its API.
const FACADE: &str = "deltalakedb";
/// Reads rustdoc's JSON: a package outside of the workspace.
pub(crate) const TOOL: &str = "xtask/public-api/Cargo.toml";
/// The format of that JSON which its crate `public-api` reads.
const FORMAT: u64 = 57;
/// Set where this program is called as rustdoc: the real one.
const RUSTDOC: &str = "DL_XTASK_RUSTDOC";

/// Options of `cargo xtask api`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write the API as it is now: CHANGELOG.md says what has changed.
    #[arg(long)]
    bless: bool,
}

/// What the comparison found.
pub(crate) enum Compared {
    /// Nothing has changed.
    Same,
    /// These lines, with `-` or `+`.
    Differs(Vec<String>),
    /// This rustdoc writes another format of JSON than is read here.
    OtherFormat(String),
}

/// Compares, or writes. Whether the file holds the API.
pub(crate) fn main(args: &Args) -> Result<bool> {
    if args.bless {
        return match now()? {
            Ok(lines) => {
                std::fs::write(file(), lines.join("\n") + "\n")
                    .with_context(|| format!("cannot write {}", file().display()))?;
                println!("{} lines in {}", lines.len(), file().display());
                Ok(true)
            }
            Err(other) => {
                println!("error: {other}");
                Ok(false)
            }
        };
    }
    Ok(match compare()? {
        Compared::Same => true,
        Compared::Differs(lines) => {
            tell(&lines);
            false
        }
        Compared::OtherFormat(why) => {
            println!("error: {why}");
            false
        }
    })
}

/// Says what has changed and what to do.
pub(crate) fn tell(lines: &[String]) {
    for line in lines {
        println!("{line}");
    }
    if lines.is_empty() {
        println!("only the order of the lines");
    }
    println!(
        "error: the public API of {FACADE} has changed. If it should: `cargo xtask api --bless`, and a line in \
         CHANGELOG.md that says what users have to change"
    );
}

/// The API now, beside the file.
pub(crate) fn compare() -> Result<Compared> {
    let path = file();
    let held = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(match now()? {
        Err(other) => Compared::OtherFormat(other),
        Ok(lines) => {
            let held: Vec<String> = held.lines().map(str::to_owned).collect();
            if held == lines {
                Compared::Same
            } else {
                Compared::Differs(differences(&held, &lines))
            }
        }
    })
}

fn file() -> PathBuf {
    workspace::root().join("crates").join(FACADE).join("public-api.txt")
}

/// The lines of the API, by path; or why they cannot be read.
fn now() -> Result<Result<Vec<String>, String>> {
    let json = workspace::target().join("doc").join(format!("{FACADE}.json"));
    let mut doc = workspace::doc();
    doc.env("RUSTDOCFLAGS", "-Z unstable-options --output-format json");
    let real = std::env::var_os("RUSTDOC").unwrap_or_else(|| "rustdoc".into());
    let program = std::env::current_exe().context("cannot find this program")?;
    doc.env(RUSTDOC, real).env("RUSTDOC", program).env("CARGO_INCREMENTAL", "0");
    ensure!(run::on_terminal(&mut doc)?, "`{}` failed", run::shown(&doc));
    // Where nothing has changed since, it is that of the last time.
    let text = std::fs::read_to_string(&json).with_context(|| {
        format!("rustdoc has not written {}: `cargo clean --doc`, and again", json.display())
    })?;
    let format = serde_json::from_str::<serde_json::Value>(&text)
        .context("rustdoc has not written JSON")?["format_version"]
        .as_u64();
    if format != Some(FORMAT) {
        return Ok(Err(format!(
            "rustdoc writes format {} of its JSON, and {TOOL} reads {FORMAT}: change the version of its crate \
             `public-api`",
            format.map_or_else(|| "unknown".to_owned(), |format| format.to_string()),
        )));
    }
    let mut tool = run::cargo();
    tool.args(["run", "--quiet", "--locked", "--manifest-path", TOOL, "--target-dir"]);
    tool.arg(workspace::target().join("tools").join("public-api")).arg("--").arg(&json);
    let lines = run::capture(tool.env("CARGO_INCREMENTAL", "0"))?;
    let lines: Vec<String> = lines.lines().map(str::to_owned).collect();
    ensure!(lines.len() > 50, "rustdoc's JSON has an API of {} lines only", lines.len());
    Ok(Ok(lines))
}

fn differences(held: &[String], lines: &[String]) -> Vec<String> {
    let (held, lines): (BTreeSet<_>, BTreeSet<_>) = (held.iter().collect(), lines.iter().collect());
    let mut all: Vec<(&String, char)> = held.difference(&lines).map(|line| (*line, '-')).collect();
    all.extend(lines.difference(&held).map(|line| (*line, '+')));
    all.sort();
    all.into_iter().map(|(line, sign)| format!("{sign} {line}")).collect()
}

/// Where cargo has called this program as rustdoc: its exit code. Only the facade is of interest.
pub(crate) fn as_rustdoc() -> Option<ExitCode> {
    let real = std::env::var_os(RUSTDOC)?;
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if crate_name(&args).is_some_and(|name| name != FACADE) {
        return Some(ExitCode::SUCCESS);
    }
    let status = Command::new(real).args(args).env("RUSTC_BOOTSTRAP", "1").status();
    Some(if status.is_ok_and(|status| status.success()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn crate_name(args: &[OsString]) -> Option<&OsStr> {
    args.windows(2).find(|pair| pair[0] == "--crate-name").map(|pair| pair[1].as_os_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_came_and_went_are_shown() {
        let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(differences(&lines("a b d"), &lines("a c d")), ["- b", "+ c"]);
        assert!(differences(&lines("a b"), &lines("a b")).is_empty());
    }

    #[test]
    fn the_crate_is_known_by_the_arguments() {
        let args: Vec<OsString> =
            ["--edition=2024", "--crate-name", "deltalakedb"].map(Into::into).into();
        assert_eq!(crate_name(&args).unwrap(), FACADE);
        assert!(crate_name(&args[..2]).is_none());
    }
}
