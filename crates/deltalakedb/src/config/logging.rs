//! What the section `logging` says, for whoever sets up the log.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::model::Logging;
use super::values::{Level, LogFormat};

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// Errors.
    Error,
    /// Warnings too.
    Warn,
    /// What happens, too.
    Info,
    /// Each call to the database and to the stores, too.
    Debug,
    /// Everything.
    Trace,
}

/// What is logged, how, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// How much; none: nobody says.
    pub level: Option<LogLevel>,
    /// Whether a line is a JSON object.
    pub json: bool,
    /// File to write to; none: standard error.
    pub file: Option<PathBuf>,
    /// The file is put aside when it would be larger, bytes; 0 = never.
    pub max_size_bytes: u64,
    /// The file is put aside when its first line is older; zero = never.
    pub max_age: Duration,
    /// Files that were put aside and are kept.
    pub max_files: u32,
}

impl Default for LogSettings {
    fn default() -> Self {
        LogSettings::of(&Logging::default())
    }
}

impl LogSettings {
    pub(super) fn of(logging: &Logging) -> LogSettings {
        LogSettings {
            level: logging.level.map(|level| match level {
                Level::Off => LogLevel::Off,
                Level::Error => LogLevel::Error,
                Level::Warn => LogLevel::Warn,
                Level::Info => LogLevel::Info,
                Level::Debug => LogLevel::Debug,
                Level::Trace => LogLevel::Trace,
            }),
            json: logging.format == Some(LogFormat::Json),
            file: logging.file.as_ref().map(|file| file.0.clone()),
            max_size_bytes: logging.max_size.map_or(64 << 20, |size| size.0),
            max_age: logging.max_age.map_or(Duration::from_secs(86_400), |age| age.0),
            max_files: logging.max_files.map_or(7, |files| files.0),
        }
    }

    /// The file to write to, if there is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }
}
