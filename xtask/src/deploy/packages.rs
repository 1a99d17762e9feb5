//! The packages: what each says of itself, and which files it has. Their builds are not tried here:
//! RELEASING.md has the command.

use anyhow::{Context, Result};
use serde_json::Value;

use super::outcome;
use crate::run;
use crate::steps::Outcome;

/// What a package must say.
const FIELDS: [&str; 5] = ["description", "license", "repository", "readme", "rust_version"];

/// Files that a package must have. Cargo adds the workspace's readme.
const FILES: [&str; 3] = ["Cargo.toml", "README.md", "src/"];

pub(super) fn check() -> Result<Outcome> {
    let mut metadata = run::cargo();
    metadata.args(["metadata", "--no-deps", "--format-version", "1", "--locked"]);
    let metadata: Value = serde_json::from_str(&run::capture(&mut metadata)?)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let mut wrong = Vec::new();
    let mut public = 0;
    // An empty list of registries is `publish = false`.
    for package in packages.iter().filter(|p| !p["publish"].is_array()) {
        public += 1;
        wrong.extend(unsaid(package));
        let name = package["name"].as_str().context("a package without a name")?;
        let mut list = run::cargo();
        list.args(["package", "--list", "--allow-dirty", "--locked", "--package", name]);
        let files = run::capture(&mut list)?;
        for wanted in FILES {
            if !files.lines().any(|file| file.starts_with(wanted)) {
                wrong.push(format!("{name}: its package has no {wanted}"));
            }
        }
    }
    println!("{public} packages");
    Ok(outcome(&wrong))
}

/// What a package does not say, and what it depends on by path alone: such a package cannot be published.
fn unsaid(package: &Value) -> Vec<String> {
    let name = package["name"].as_str().unwrap_or_default();
    let mut wrong: Vec<String> = FIELDS
        .iter()
        .filter(|field| package[**field].as_str().is_none_or(|text| text.trim().is_empty()))
        .map(|field| format!("{name}: its Cargo.toml has no {}", field.replace('_', "-")))
        .collect();
    for used in package["dependencies"].as_array().into_iter().flatten() {
        let anyone = used["req"] == "*" && used["kind"] != "dev";
        if used["path"].is_string() && anyone {
            wrong.push(format!("{name}: its dependency {} has no version", used["name"]));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::unsaid;
    use serde_json::json;

    #[test]
    fn what_is_missing_is_told() {
        let mut package = json!({
            "name": "p", "description": "d", "license": "l", "repository": "r", "readme": "README.md",
            "rust_version": "1.90",
            "dependencies": [{"name": "q", "path": "/q", "req": "^0.1.0", "kind": null}],
        });
        assert!(unsaid(&package).is_empty());
        package["description"] = json!(" ");
        package["dependencies"][0]["req"] = json!("*");
        assert_eq!(unsaid(&package).len(), 2);
    }
}
