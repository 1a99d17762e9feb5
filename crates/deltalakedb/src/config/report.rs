//! Looking at a configuration: all that is wrong with it, and where each value is from.

use std::path::{Path, PathBuf};

use super::layer::{Found, Origin, Problem};
use super::model::{SECTIONS, keys as model_keys};
use super::sources::Sources;
use super::{Config, catalog};

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInfo {
    /// `section.name`.
    pub key: &'static str,
    /// What it does.
    pub about: String,
    /// What kind its values are of.
    pub kind: &'static str,
    /// What holds without it.
    pub default: &'static str,
    /// Its names in the environment, the strongest first.
    pub variables: Vec<String>,
}

/// All keys of the configuration.
#[must_use]
pub fn keys() -> Vec<KeyInfo> {
    model_keys()
        .map(|key| {
            let own = key.own_variable();
            let mut variables = vec![own.clone()];
            variables
                .extend(key.variables.iter().filter(|name| **name != own).map(|n| (*n).to_owned()));
            if key.path == "catalog" {
                variables.swap(0, 1);
            }
            KeyInfo {
                key: key.path,
                about: key.about.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" "),
                kind: key.kind,
                default: key.default,
                variables,
            }
        })
        .collect()
}

/// Those of these variables of an environment that begin as ours do and are none: a slip would be without
/// effect, and nobody would see it.
#[must_use]
pub fn unknown_variables<'n>(names: impl IntoIterator<Item = &'n str>) -> Vec<Problem> {
    let mut known: Vec<String> = Vec::new();
    for key in model_keys() {
        let all = key.variables.iter().map(|name| (*name).to_owned());
        for name in all.chain([key.own_variable()]) {
            if key.secret {
                known.push(format!("{name}_FILE"));
            }
            known.push(name);
        }
    }
    let ours = |name: &str| {
        SECTIONS.iter().filter(|section| !section.name.is_empty()).any(|section| {
            name.starts_with(&format!("DELTA_{}_", section.name.to_ascii_uppercase()))
        })
    };
    names
        .into_iter()
        .filter(|name| ours(name) && !known.iter().any(|known| known == name))
        .map(|name| {
            let likeness = |known: &String| strsim::jaro_winkler(name, known);
            let nearest = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
            let nearest = nearest.map_or("none", String::as_str);
            Problem {
                origin: Origin::Variable(name.to_owned()),
                key: None,
                message: format!("it sets nothing; did you mean {nearest}?"),
            }
        })
        .collect()
}

/// A value and where it is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// `section.name`.
    pub key: &'static str,
    /// The value, or what holds in its place. Secrets are `***`, those in URLs too.
    pub value: String,
    /// Where it is from.
    pub origin: Origin,
}

/// A configuration as it was found, right or not.
pub struct Inspection {
    /// The config files that were read, the weakest first.
    pub files: Vec<PathBuf>,
    /// The profile that holds, if one does.
    pub profile: Option<String>,
    /// All that is wrong.
    pub problems: Vec<Problem>,
    /// What is likely a slip, and is no error, see [`Config::warnings`].
    pub warnings: Vec<Problem>,
    /// All keys with their values; what is wrong is as if it were not there.
    pub values: Vec<Shown>,
    /// The configuration, if nothing is wrong with it.
    pub config: Option<Config>,
}

impl std::fmt::Debug for Inspection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inspection")
            .field("files", &self.files)
            .field("problems", &self.problems.len())
            .finish_non_exhaustive()
    }
}

impl Config {
    /// Looks at the configuration without being stopped by what is wrong with it. `file` is read in place of
    /// the config files that would be found, `flag` is the catalog of the command line.
    #[must_use]
    pub fn inspect(
        variable: &dyn Fn(&str) -> Option<String>,
        folder: &Path,
        file: Option<&Path>,
        flag: Option<&str>,
    ) -> Inspection {
        let mut sources = super::read(variable, folder, file);
        let (files, profile) = (std::mem::take(&mut sources.files), sources.profile.take());
        let values = shown(&sources, flag);
        let mut problems = sources.problems.clone();
        let warnings = sources.warnings.clone();
        let config = match Config::of(sources) {
            Ok(config) => Some(config),
            Err(error) => {
                if problems.is_empty() {
                    let message = error.to_string();
                    problems.push(Problem { origin: Origin::Default, key: None, message });
                }
                None
            }
        };
        let config = config.filter(|config| {
            // That no catalog is named is no fault of a file: a flag may name it.
            if flag.is_none() && !config.names_a_catalog() {
                return true;
            }
            match config.catalog(flag) {
                Ok(_) => true,
                Err(error) => {
                    let message = plain(&error.to_string());
                    problems.push(Problem { origin: Origin::Default, key: None, message });
                    false
                }
            }
        });
        Inspection { files, profile, problems, warnings, values, config }
    }

    /// Whether the environment or a file names a catalog.
    #[must_use]
    pub fn names_a_catalog(&self) -> bool {
        !matches!(catalog::place(&self.values, &self.settings), Ok(None))
    }
}

/// An error's text without what names its kind.
fn plain(text: &str) -> String {
    text.strip_prefix("invalid input: ").unwrap_or(text).to_owned()
}

fn shown(sources: &Sources, flag: Option<&str>) -> Vec<Shown> {
    model_keys()
        .map(|key| {
            let found = sources.values.get(key.path);
            let (value, origin) = match (key.path, found) {
                ("catalog", _) if flag.is_some() => {
                    let url = flag.unwrap_or_default();
                    (catalog::masked(url, None), Origin::Flag("option --catalog".to_owned()))
                }
                ("database.password", None) if sources.password_variable.is_some() => {
                    let name = sources.password_variable.unwrap_or_default();
                    ("***".to_owned(), Origin::Variable(name.to_owned()))
                }
                ("database.replicas", Some(found)) => {
                    let urls: Vec<String> =
                        found.text.split(',').map(catalog::masked_replica).collect();
                    (urls.join(","), found.origin.clone())
                }
                ("catalog", Some(found)) => {
                    (catalog::masked(&found.text, found.folder()), found.origin.clone())
                }
                (_, Some(found)) if key.secret => ("***".to_owned(), found.origin.clone()),
                (_, Some(Found { text, origin, .. })) => (text.clone(), origin.clone()),
                (_, None) => (key.default.to_owned(), Origin::Default),
            };
            Shown { key: key.path, value, origin }
        })
        .collect()
}
