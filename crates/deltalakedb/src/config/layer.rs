//! Values as they were found, and where.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// What kind of source has a value. Later ones go before earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// The user's own config file, and what its profile says.
    UserFile,
    /// The file of the project, or the one that a variable names.
    File,
    /// The environment.
    Environment,
    /// The command line.
    Flag,
}

/// Where a value was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: it is the default.
    Default,
    /// In a config file.
    File {
        /// The file.
        file: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// The profile of the file that says it, if one does.
        profile: Option<String>,
    },
    /// In a variable of the environment.
    Variable(String),
    /// In the file that a variable of the environment names.
    FileOfVariable {
        /// The variable.
        variable: String,
        /// The file.
        file: PathBuf,
    },
    /// On the command line.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { file, line, profile: None } => {
                write!(f, "config file {}:{line}", file.display())
            }
            Origin::File { file, line, profile: Some(profile) } => {
                write!(f, "config file {}:{line} (profile {profile})", file.display())
            }
            Origin::Variable(name) => write!(f, "environment variable {name}"),
            Origin::FileOfVariable { variable, file } => {
                write!(f, "the file '{}' ({variable})", file.display())
            }
            Origin::Flag(flag) => f.write_str(flag),
        }
    }
}

/// A value as it was found.
#[derive(Clone)]
pub(crate) struct Found {
    pub(crate) text: String,
    pub(crate) origin: Origin,
    pub(crate) rank: Rank,
}

impl Found {
    /// The folder that relative paths are relative to: the one of the config file.
    pub(crate) fn folder(&self) -> Option<&Path> {
        match &self.origin {
            Origin::File { file, .. } => file.parent(),
            _ => None,
        }
    }
}

/// The values that hold, by the path of their key.
pub(crate) type Values = BTreeMap<&'static str, Found>;

/// What is wrong with the configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it stands; `Default` if it stands nowhere.
    pub origin: Origin,
    /// The key, if one is meant.
    pub key: Option<String>,
    /// What is wrong, and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.origin != Origin::Default {
            write!(f, "{}: ", self.origin)?;
        }
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.message)
    }
}
