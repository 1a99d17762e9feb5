//! The oldest Rust that each set of features needs: what its packages state, what Cargo.toml and the
//! documentation state of them.
//!
//! Clippy holds our own code to it (`incompatible_msrv`): it takes the version from each package's
//! Cargo.toml, so clippy.toml names none.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::run;
use crate::workspace;

/// Major, minor, patch.
type RustVersion = (u64, u64, u64);

/// The page that states the versions of [`BUILDS`].
const PAGE: &str = "docs/src/start/install.md";

/// Builds that [`PAGE`] states a version for: how its table calls them, the package, the features.
const BUILDS: [(&str, &str, &[&str]); 6] = [
    (
        "`dl --no-default-features --features sqlite`",
        "dl",
        &["--no-default-features", "--features", "sqlite"],
    ),
    ("`dl`: with PostgreSQL, MySQL, SQL Server and all object stores", "dl", &[]),
    ("`dl --features sql`, and `cargo xtask test`", "dl", &["--features", "sql"]),
    (
        "the crate `deltalakedb`; with `mssql`, `s3`, `azure`, `gcs`",
        "deltalakedb",
        &["--features", "mssql,s3,azure,gcs"],
    ),
    ("the crate with `postgres` or `mysql`", "deltalakedb", &["--features", "postgres,mysql"]),
    ("the crate with `deltalake`", "deltalakedb", &["--features", "deltalake"]),
];

/// Compares; prints what is wrong. Whether nothing is.
pub(crate) fn check() -> Result<bool> {
    let metadata = metadata()?;
    let stated = stated(&metadata)?;
    let own = own(&metadata)?;
    let mut right = true;
    let mut differs = |what: &str, states: &str, needs: RustVersion| {
        if parse(states) != Some(needs) {
            println!("error: {what} states Rust {states}, and needs {}", show(needs));
            right = false;
        }
    };
    let lowest = needed(&stated, &own, "deltalakedb", &[])?;
    for (name, states) in &own {
        // One that needs less keeps the version of the workspace.
        let needs = needed(&stated, &own, name, &[])?.max(lowest);
        differs(&format!("Cargo.toml of {name}"), states, needs);
    }
    let page = workspace::root().join(PAGE);
    let page = std::fs::read_to_string(&page)
        .with_context(|| format!("cannot read {}", page.display()))?;
    for (label, package, features) in BUILDS {
        let needs = needed(&stated, &own, package, features)?.max(lowest);
        let Some(states) = row(&page, label) else {
            bail!("{PAGE} has no line '| {label} | … |'");
        };
        differs(&format!("{PAGE}, {label}"), states, needs);
    }
    Ok(right)
}

/// The second column of the row of a table in Markdown.
fn row<'t>(text: &'t str, label: &str) -> Option<&'t str> {
    text.lines().find_map(|line| {
        let rest = line.strip_prefix("| ")?.strip_prefix(label)?.strip_prefix(" | ")?;
        rest.strip_suffix(" |")
    })
}

/// Every package that this machine would build.
fn metadata() -> Result<Value> {
    let text = run::capture(run::cargo().arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("cargo does not say which platform this is")?;
    let text = run::capture(run::cargo().args([
        "metadata",
        "--format-version",
        "1",
        "--locked",
        "--filter-platform",
        host,
    ]))?;
    serde_json::from_str(&text).context("cargo metadata is not JSON")
}

fn packages(metadata: &Value) -> Result<&Vec<Value>> {
    metadata["packages"].as_array().context("cargo metadata lists no packages")
}

/// What packages state, by name and version.
fn stated(metadata: &Value) -> Result<BTreeMap<(String, String), RustVersion>> {
    let mut stated = BTreeMap::new();
    for package in packages(metadata)? {
        let text = |key: &str| package[key].as_str();
        if let (Some(name), Some(version), Some(rust)) =
            (text("name"), text("version"), text("rust_version"))
        {
            let rust = parse(rust).with_context(|| format!("{name}: rust-version '{rust}'"))?;
            stated.insert((name.to_owned(), version.to_owned()), rust);
        }
    }
    Ok(stated)
}

/// Packages of this workspace, with what they state.
fn own(metadata: &Value) -> Result<BTreeMap<String, String>> {
    let members = packages(metadata)?.iter().filter(|package| package["source"].is_null());
    members
        .map(|package| {
            let name = package["name"].as_str().context("a package without a name")?;
            let rust = package["rust_version"].as_str();
            let rust = rust.with_context(|| format!("{name} states no rust-version"))?;
            Ok((name.to_owned(), rust.to_owned()))
        })
        .collect()
}

/// The largest version that a package's dependencies state, those of others than ours.
fn needed(
    stated: &BTreeMap<(String, String), RustVersion>,
    own: &BTreeMap<String, String>,
    package: &str,
    features: &[&str],
) -> Result<RustVersion> {
    let mut tree = run::cargo();
    tree.args(["tree", "--locked", "-p", package, "-e", "normal,build", "--prefix", "none"]);
    let text = run::capture(tree.args(["-f", "{p}"]).args(features))?;
    let lines: BTreeSet<&str> = text.lines().collect();
    let versions = lines.into_iter().filter_map(|line| {
        let (name, rest) = line.split_once(' ')?;
        if own.contains_key(name) {
            return None;
        }
        let version = rest.split(' ').next()?.trim_start_matches('v');
        stated.get(&(name.to_owned(), version.to_owned())).copied()
    });
    Ok(versions.max().unwrap_or_default())
}

/// `1.90` and `1.91.1`.
fn parse(text: &str) -> Option<RustVersion> {
    let mut parts = text.split('.').map(|part| part.parse::<u64>().ok());
    let version =
        (parts.next()??, parts.next().unwrap_or(Some(0))?, parts.next().unwrap_or(Some(0))?);
    parts.next().is_none().then_some(version)
}

fn show((major, minor, patch): RustVersion) -> String {
    if patch == 0 { format!("{major}.{minor}") } else { format!("{major}.{minor}.{patch}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_two_or_three_parts() {
        assert_eq!(parse("1.90"), Some((1, 90, 0)));
        assert_eq!(parse("1.91.1"), Some((1, 91, 1)));
        assert!(parse("1.91.1.0").is_none() && parse("1.x").is_none() && parse("").is_none());
        assert_eq!((show((1, 90, 0)), show((1, 91, 1))), ("1.90".to_owned(), "1.91.1".to_owned()));
    }

    #[test]
    fn readme_states_a_version_of_each_build() {
        let page = std::fs::read_to_string(workspace::root().join(PAGE)).unwrap();
        for (label, ..) in BUILDS {
            let states = row(&page, label).unwrap_or_else(|| panic!("{label}"));
            assert!(parse(states).is_some(), "{label}: {states}");
        }
    }
}
