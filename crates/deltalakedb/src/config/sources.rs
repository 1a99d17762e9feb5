//! The layers of the configuration: the user's file, the project's file, the environment.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::file::{self, Leaf, LeafValue};
use super::interpolate::interpolate;
use super::layer::{Found, Origin, Problem, Rank, Values};
use super::model::{Key, canonical, key, keys};
use super::names::unknown;
use crate::uri::read_secret;

/// Environment variable that names the config file.
pub const CONFIG_VARIABLE: &str = "DL_CONFIG";
/// The same, in the words of other programs of the kind.
pub const CONFIG_PATH_VARIABLE: &str = "DELTA_CONFIG_PATH";
/// Config files of a project, in the working directory: the first one that is there.
const PROJECT_FILES: [&str; 3] = ["dl.toml", "dl.yaml", "dl.yml"];
/// Config files of a user.
const USER_FILES: [&str; 3] = ["config.toml", "config.yaml", "config.yml"];
/// The variable that asks for a profile.
const PROFILE_VARIABLE: &str = "DELTA_PROFILE";
/// The variable that platforms set for all programs: it chooses a profile if there is one of this name.
const PLATFORM_VARIABLE: &str = "ENVIRONMENT";
/// What the variables of OpenTelemetry begin with.
const OPEN_TELEMETRY: &str = "OTEL_";

/// Variables with the password, see `uri::password`.
const PASSWORD_VARIABLES: [&str; 2] = ["DELTA_DB_PASSWORD", "DELTA_DB_PASSWORD_FILE"];

/// A variable of an environment.
pub(crate) type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What was found, and what is wrong with it.
#[derive(Default)]
pub(crate) struct Sources {
    pub(crate) values: Values,
    pub(crate) files: Vec<PathBuf>,
    pub(crate) profile: Option<String>,
    /// A file names a catalog, whether the environment names another or not.
    pub(crate) file_names_catalog: bool,
    /// The variable that the login takes the password from when the URL has none.
    pub(crate) password_variable: Option<&'static str>,
    pub(crate) problems: Vec<Problem>,
    /// What is likely a slip, and is no error.
    pub(crate) warnings: Vec<Problem>,
}

/// A file, sorted.
struct FileLayer {
    file: PathBuf,
    rank: Rank,
    base: Vec<Leaf>,
    profiles: BTreeMap<String, Vec<Leaf>>,
}

impl Sources {
    /// Reads all layers. `only` is a file to read in place of those that would be found.
    pub(crate) fn read(variable: Variable<'_>, folder: &Path, only: Option<&Path>) -> Sources {
        let mut this = Sources::default();
        let layers: Vec<FileLayer> = match only {
            Some(file) => vec![(folder.join(file), Rank::File)],
            None => this.find(variable, folder),
        }
        .into_iter()
        .filter_map(|(file, rank)| this.open(file, rank))
        .collect();
        this.choose_profile(variable, &layers);
        for layer in layers {
            this.add_file(variable, layer);
        }
        this.file_names_catalog = ["catalog", "database.host", "database.name"]
            .iter()
            .any(|key| this.values.contains_key(key));
        this.add_environment(variable, folder);
        this.note_password(variable);
        this
    }

    fn problem(&mut self, origin: Origin, key: Option<&str>, message: impl Into<String>) {
        self.problems.push(Problem {
            origin,
            key: key.map(str::to_owned),
            message: message.into(),
        });
    }

    /// The config files that there are, the weakest first.
    fn find(&mut self, variable: Variable<'_>, folder: &Path) -> Vec<(PathBuf, Rank)> {
        let named: Vec<(&str, String)> = [CONFIG_PATH_VARIABLE, CONFIG_VARIABLE]
            .into_iter()
            .filter_map(|name| Some((name, variable(name)?)))
            .collect();
        if let [(one, file), (other, second), ..] = named.as_slice()
            && file != second
        {
            let origin = Origin::Variable((*one).to_owned());
            self.problem(
                origin,
                None,
                format!("{other} names another config file: set one of them"),
            );
            return Vec::new();
        }
        if let Some((name, file)) = named.into_iter().next() {
            let file = folder.join(file);
            if !file.is_file() {
                let message = format!(
                    "the config file '{}' that {name} names does not exist",
                    file.display()
                );
                self.problem(Origin::Default, None, message);
                return Vec::new();
            }
            return vec![(file, Rank::File)];
        }
        let home = variable("HOME").or_else(|| variable("USERPROFILE"));
        let user = variable("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| home.map(|home| Path::new(&home).join(".config")))
            .map(|user| user.join("dl"));
        let mut found = Vec::new();
        for (place, names, rank) in [
            (user, USER_FILES, Rank::UserFile),
            (Some(folder.to_path_buf()), PROJECT_FILES, Rank::File),
        ] {
            let Some(place) = place else { continue };
            let mut there = names.iter().map(|name| place.join(name)).filter(|file| file.is_file());
            if let Some(first) = there.next() {
                if let Some(second) = there.next() {
                    let origin = Origin::File { file: second.clone(), line: 1, profile: None };
                    let message = format!("'{}' is there too: keep one of them", first.display());
                    self.problem(origin, None, message);
                }
                found.push((first, rank));
            }
        }
        found
    }

    fn open(&mut self, file: PathBuf, rank: Rank) -> Option<FileLayer> {
        self.files.push(file.clone());
        let leaves = match file::read(&file) {
            Ok(leaves) => leaves,
            Err(error) => {
                let origin = Origin::File { file, line: error.line.unwrap_or(1), profile: None };
                self.problem(origin, None, error.why);
                return None;
            }
        };
        let mut layer = FileLayer { file, rank, base: Vec::new(), profiles: BTreeMap::new() };
        for mut leaf in leaves {
            if leaf.path.first().is_none_or(|first| first != "profiles") {
                layer.base.push(leaf);
            } else if let Some(name) = leaf.path.get(1).cloned()
                && (leaf.path.len() > 2
                    || matches!(leaf.value, LeafValue::Empty | LeafValue::Nothing))
            {
                leaf.path.drain(..2);
                let profile = layer.profiles.entry(name).or_default();
                if !leaf.path.is_empty() {
                    profile.push(leaf);
                }
            } else if leaf.path.len() > 1
                || !matches!(leaf.value, LeafValue::Empty | LeafValue::Nothing)
            {
                let origin =
                    Origin::File { file: layer.file.clone(), line: leaf.line, profile: None };
                let message = "a profile has sections and keys of its own: [profiles.NAME.connection] and so on";
                self.problem(origin, Some(&leaf.path.join(".")), message);
            }
        }
        Some(layer)
    }

    fn choose_profile(&mut self, variable: Variable<'_>, layers: &[FileLayer]) {
        let known: Vec<&str> =
            layers.iter().flat_map(|layer| layer.profiles.keys()).map(String::as_str).collect();
        let of = |name: &str| Some((variable(name)?, Origin::Variable(name.to_owned())));
        let mut wanted = of(PROFILE_VARIABLE);
        if wanted.is_none()
            && let Some((name, origin)) = of(PLATFORM_VARIABLE)
        {
            if known.contains(&name.as_str()) {
                wanted = Some((name, origin));
            } else if !known.is_empty() {
                // Platforms give the variable to all programs, with words of their own.
                let message = format!("{}; no profile is chosen by it", no_profile(&name, &known));
                self.warnings.push(Problem { origin, key: Some("profile".to_owned()), message });
            }
        }
        if wanted.is_none() {
            for layer in layers.iter().rev() {
                let key = layer.base.iter().find(|leaf| leaf.path == ["profile"]);
                if let Some(Leaf { line, value: LeafValue::Text(text), .. }) = key {
                    let origin =
                        Origin::File { file: layer.file.clone(), line: *line, profile: None };
                    match interpolate(text, variable) {
                        Ok(text) => wanted = Some((text, origin)),
                        // Said once more where all values are read.
                        Err(_) => return,
                    }
                    break;
                }
            }
        }
        let Some((name, origin)) = wanted else { return };
        if known.contains(&name.as_str()) {
            let rank = Rank::Environment;
            let found = Found { text: name.clone(), origin, rank };
            self.profile = Some(name);
            self.values.insert("profile", found);
            return;
        }
        self.problem(origin, Some("profile"), no_profile(&name, &known));
    }

    /// Puts a file's values, then those of its profile, over those that are there.
    fn add_file(&mut self, variable: Variable<'_>, mut layer: FileLayer) {
        let base = std::mem::take(&mut layer.base);
        self.add_leaves(variable, &layer, base, None, true);
        let chosen = self.profile.clone();
        for (name, leaves) in std::mem::take(&mut layer.profiles) {
            // The others are checked too, but for their variables.
            let holds = Some(&name) == chosen.as_ref();
            self.add_leaves(variable, &layer, leaves, Some(name), holds);
        }
    }

    fn add_leaves(
        &mut self,
        variable: Variable<'_>,
        layer: &FileLayer,
        leaves: Vec<Leaf>,
        profile: Option<String>,
        holds: bool,
    ) {
        let mut seen: BTreeMap<&'static str, usize> = BTreeMap::new();
        for leaf in leaves {
            let path = leaf.path.join(".");
            let origin = Origin::File {
                file: layer.file.clone(),
                line: leaf.line,
                profile: profile.clone(),
            };
            let is_section = matches!(leaf.value, LeafValue::Empty | LeafValue::Nothing)
                && super::model::SECTIONS.iter().any(|section| section.name == path);
            if is_section {
                continue;
            }
            let Some(key) = key(canonical(&path)) else {
                let message = unknown(&leaf.path);
                self.problem(origin, Some(&shown_path(&leaf.path)), message);
                continue;
            };
            if profile.is_some() && key.path == "profile" {
                self.problem(origin, Some(&path), "a profile does not choose a profile");
                continue;
            }
            if let Some(line) = seen.insert(key.path, leaf.line) {
                let message =
                    format!("line {line} says the same under another name: keep one of them");
                self.problem(origin, Some(&path), message);
                continue;
            }
            let text = match text_of(key, leaf.value) {
                Ok(text) => text,
                Err(message) => {
                    self.problem(origin, Some(&path), message);
                    continue;
                }
            };
            let text = match interpolate(&text, variable) {
                Ok(text) => text,
                Err(_) if !holds => continue,
                Err(message) => {
                    self.problem(origin, Some(&path), message);
                    continue;
                }
            };
            if let Err(message) = (key.check)(&text) {
                self.problem(origin, Some(&path), message);
                continue;
            }
            let anchored = match layer.file.parent().filter(|_| key.file) {
                Some(folder) => folder.join(text).to_string_lossy().into_owned(),
                None => text,
            };
            if holds && key.path != "profile" {
                self.values.insert(key.path, Found { text: anchored, origin, rank: layer.rank });
            }
        }
    }

    fn add_environment(&mut self, variable: Variable<'_>, folder: &Path) {
        for key in keys().filter(|key| key.path != "profile") {
            let own = key.own_variable();
            let mut names: Vec<&str> = key.variables.to_vec();
            // What names a catalog has had these names before, in this order: it keeps them.
            let at = usize::from(key.path == "catalog");
            names.insert(at, &own);
            for name in names {
                match variable_of(variable, folder, key, name) {
                    Ok(Some(found)) => {
                        self.values.insert(key.path, found);
                        break;
                    }
                    Ok(None) => {}
                    // Set for all programs of a platform, by words that not each of them knows: what is
                    // wrong is ignored, as OpenTelemetry's specification has it, and is said.
                    Err((origin, message)) if name.starts_with(OPEN_TELEMETRY) => {
                        let message = format!("{message}; it is ignored");
                        let key = Some(key.path.to_owned());
                        self.warnings.push(Problem { origin, key, message });
                    }
                    Err((origin, message)) => {
                        self.problem(origin, Some(key.path), message);
                        break;
                    }
                }
            }
        }
    }

    /// The login reads these variables itself, when the URL has no password. They go before files.
    fn note_password(&mut self, variable: Variable<'_>) {
        self.password_variable =
            PASSWORD_VARIABLES.into_iter().find(|name| variable(name).is_some());
        if self.password_variable.is_some() {
            for key in ["database.password", "database.password_file"] {
                if self.values.get(key).is_some_and(|found| found.rank < Rank::Environment) {
                    self.values.remove(key);
                }
            }
        }
    }
}

/// A variable, or for a secret also the file that `NAME_FILE` names.
fn variable_of(
    variable: Variable<'_>,
    folder: &Path,
    key: &Key,
    name: &str,
) -> Result<Option<Found>, (Origin, String)> {
    let rank = Rank::Environment;
    if let Some(mut text) = variable(name) {
        let origin = Origin::Variable(name.to_owned());
        if name.starts_with(OPEN_TELEMETRY)
            && name.ends_with("_TIMEOUT")
            && text.bytes().all(|b| b.is_ascii_digit())
        {
            text.push_str("ms");
        }
        // What is wrong with a URL is said when it is needed, as ever: another may be given by then.
        (key.check)(&text).map_err(|message| (origin.clone(), message))?;
        return Ok(Some(Found { text, origin, rank }));
    }
    if !key.secret {
        return Ok(None);
    }
    let named = format!("{name}_FILE");
    // `database.password_file` is a key of its own.
    if super::model::keys().any(|key| key.own_variable() == named) {
        return Ok(None);
    }
    let Some(file) = variable(&named) else { return Ok(None) };
    let file = folder.join(file);
    let origin = Origin::FileOfVariable { variable: named.clone(), file: file.clone() };
    match read_secret(&named, &file) {
        Ok(secret) => {
            let text = secret.expose().trim().to_owned();
            Ok(Some(Found { text, origin, rank }))
        }
        Err(error) => Err((Origin::Default, error.to_string())),
    }
}

/// What a file says, as text.
fn text_of(key: &Key, value: LeafValue) -> Result<String, String> {
    match value {
        // Not repeated: it may be a password of digits.
        LeafValue::Bare(_) if key.text => Err("must be a string: put it in quotes".to_owned()),
        LeafValue::Text(text) | LeafValue::Bare(text) => Ok(text),
        LeafValue::Nothing => Err("has no value: give it one or leave it out".to_owned()),
        LeafValue::List(Some(list)) if key.path == "database.replicas" && !list.is_empty() => {
            Ok(list.join(","))
        }
        LeafValue::List(_) => Err(format!("is one value ({}), no list", key.kind)),
        LeafValue::Empty => Err(format!("is one value ({}), no section", key.kind)),
    }
}

/// That there is no profile of this name.
fn no_profile(name: &str, known: &[&str]) -> String {
    let name = printable(name);
    if known.is_empty() {
        return format!("there is no profile '{name}': the config files define none");
    }
    let known: BTreeSet<&str> = known.iter().copied().collect();
    let known: Vec<&str> = known.into_iter().collect();
    format!("there is no profile '{name}': there are {}", known.join(", "))
}

/// A path as an error may repeat it.
fn shown_path(path: &[String]) -> String {
    path.iter().map(|part| printable(part)).collect::<Vec<_>>().join(".")
}

/// A name without what a terminal would take for a command, and not longer than a name is.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}
