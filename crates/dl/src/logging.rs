//! The log: text or JSON, to standard error or to a file that is put aside by size and age.

mod rotating;

use std::fmt;
use std::io::IsTerminal;
use std::sync::{Mutex, OnceLock};

use chrono::{SecondsFormat, Utc};
use deltalakedb::config::{LogLevel, LogSettings};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::failure::{Failure, Result};
use crate::traces::Traces;
use rotating::{Limits, RotatingFile};

/// Crates whose log lines are ours.
const LIBRARIES: &[&str] = &[
    "dl",
    "deltalakedb",
    "deltalakedb_catalog_core",
    "deltalakedb_catalog_engine",
    "deltalakedb_backend_sqlite",
    "deltalakedb_backend_postgres",
    "deltalakedb_backend_mysql",
    "deltalakedb_backend_mssql",
    "deltalakedb_cache",
    "deltalakedb_replicas",
    "deltalakedb_server",
    "deltalakedb_mirror",
    "deltalakedb_log_store",
];

/// What the command line says about the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish {
    /// `-q`
    pub(crate) quiet: bool,
    /// `-v`, counted.
    pub(crate) verbose: u8,
}

/// Sets up the log of this process. `RUST_LOG` goes before the command line, that before the configuration.
///
/// # Errors
/// A log file that cannot be opened.
pub(crate) fn start(wish: Wish, settings: &LogSettings, traces: Option<&Traces>) -> Result<()> {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(directives(wish, settings)));
    let lines = Lines { json: settings.json, numbered: settings.json || settings.file.is_some() };
    let colours = settings.file.is_none() && !settings.json && std::io::stderr().is_terminal();
    let base = tracing_subscriber::fmt::layer().with_ansi(colours).event_format(lines);
    let layer = match settings.file() {
        Some(file) => {
            let limits = Limits {
                size_bytes: settings.max_size_bytes,
                age: settings.max_age,
                files: settings.max_files,
            };
            let opened = RotatingFile::open(file, limits).map_err(|e| {
                Failure::io(
                    format!("cannot open the log file '{}' (logging.file)", file.display()),
                    e,
                )
            })?;
            base.with_writer(Mutex::new(opened)).boxed()
        }
        None => base.with_writer(std::io::stderr).boxed(),
    };
    let Some(traces) = traces else {
        // One filter for all: what it leaves out costs least.
        tracing_subscriber::registry().with(layer).with(filter).init();
        return Ok(());
    };
    with_traces(layer.with_filter(filter), traces);
    Ok(())
}

/// Lines by the filter of the log, and spans whatever is logged.
#[cfg(feature = "otlp")]
fn with_traces(lines: impl Layer<Registry> + Send + Sync, traces: &Traces) {
    tracing_subscriber::registry().with(lines).with(traces.layer(is_ours)).init();
}

#[cfg(not(feature = "otlp"))]
fn with_traces(_: impl Layer<Registry> + Send + Sync, traces: &Traces) {
    match *traces {}
}

/// Whether this target is one of our crates.
#[cfg(feature = "otlp")]
fn is_ours(target: &str) -> bool {
    LIBRARIES.contains(&target.split("::").next().unwrap_or(target))
}

/// Trace and span that the line at hand belongs to, if it belongs to one that is sent.
#[cfg(feature = "otlp")]
fn current_span() -> Option<(String, String)> {
    crate::traces::current()
}

#[cfg(not(feature = "otlp"))]
fn current_span() -> Option<(String, String)> {
    None
}

/// What is logged, as `RUST_LOG` would say it.
fn directives(wish: Wish, settings: &LogSettings) -> String {
    let level = match (wish.quiet, wish.verbose) {
        // A file is not told to be quiet: `-q` is about what people see.
        (true, _) if settings.file.is_none() => LogLevel::Off,
        (_, 0) => settings.level.unwrap_or(match settings.file {
            // Who names a file wants to read something.
            Some(_) => LogLevel::Info,
            None => LogLevel::Error,
        }),
        (_, 1) => LogLevel::Info,
        (_, 2) => LogLevel::Debug,
        (..) => LogLevel::Trace,
    };
    let ours = match level {
        LogLevel::Off => "off",
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    let others = if level == LogLevel::Trace { "info" } else { "off" };
    let mut libraries: Vec<_> =
        LIBRARIES.iter().map(|library| format!("{library}={ours}")).collect();
    if level == LogLevel::Info {
        // Which tables are opened at which version, and what goes again: the core says it at `debug`, as a
        // service does not want to read it for each of its calls.
        libraries.push("deltalakedb_catalog_engine=debug".to_owned());
    }
    format!("{others},{}", libraries.join(","))
}

/// The id of this invocation, which each of its log lines has: that of `TRACEPARENT` if there is one, so
/// that a caller finds them. <https://www.w3.org/TR/trace-context/>
pub(crate) fn trace_id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| {
        let given = std::env::var("TRACEPARENT").ok();
        let given = given.as_deref().and_then(trace_id_of);
        given.unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string())
    })
}

/// The trace id of a `traceparent`.
fn trace_id_of(parent: &str) -> Option<String> {
    let id = parent.trim().split('-').nth(1)?;
    let right = id.len() == 32
        && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        && id.bytes().any(|b| b != b'0');
    right.then(|| id.to_owned())
}

/// How a line looks.
struct Lines {
    json: bool,
    /// Whether a text line begins with the trace id: in a file, lines of several processes stand together.
    numbered: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if self.json {
            return writeln!(writer, "{}", object(event));
        }
        if self.numbered {
            let id = current_span().map(|(trace, _)| trace);
            write!(writer, "{} ", id.as_deref().unwrap_or(trace_id()))?;
        }
        let text: Format<Full> = Format::default().with_target(false);
        text.format_event(context, writer, event)
    }
}

/// A line as a JSON object.
fn object(event: &Event<'_>) -> Value {
    let metadata = event.metadata();
    let mut fields = Fields(Map::new());
    let now = Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true);
    fields.0.insert("timestamp".to_owned(), now.into());
    fields.0.insert("level".to_owned(), metadata.level().to_string().into());
    fields.0.insert("target".to_owned(), metadata.target().into());
    let invocation = trace_id();
    if let Some((trace, span)) = current_span() {
        if trace != invocation {
            fields.0.insert("invocation_id".to_owned(), invocation.into());
        }
        fields.0.insert("trace_id".to_owned(), trace.into());
        fields.0.insert("span_id".to_owned(), span.into());
    } else {
        fields.0.insert("trace_id".to_owned(), invocation.into());
    }
    event.record(&mut fields);
    Value::Object(fields.0)
}

/// The fields of a line; the first one of a name counts.
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        self.0.entry(field.name()).or_insert(value);
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_go_before_the_configuration() {
        let settings = |level| LogSettings { level, ..LogSettings::default() };
        let wish = |quiet, verbose| Wish { quiet, verbose };
        let info = Some(LogLevel::Info);
        for (quiet, verbose, level, has) in [
            (false, 0, None, "dl=error"),
            (false, 0, info, "dl=info"),
            (false, 0, Some(LogLevel::Warn), "dl=warn"),
            (false, 2, info, "dl=debug"),
            (false, 3, info, "info,dl=trace"),
            (true, 0, info, "dl=off"),
        ] {
            let text = directives(wish(quiet, verbose), &settings(level));
            assert!(text.contains(has), "{text}");
        }
        let file = LogSettings { file: Some("x.log".into()), ..LogSettings::default() };
        assert!(directives(wish(true, 0), &file).contains("dl=info"));
    }

    #[test]
    fn a_caller_may_give_the_trace_id() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(trace_id_of(&format!("00-{id}-00f067aa0ba902b7-01")).as_deref(), Some(id));
        for wrong in ["", "00", "00-xyz-1-1", &format!("00-{}-1-01", "0".repeat(32))] {
            assert_eq!(trace_id_of(wrong), None, "{wrong}");
        }
    }
}
