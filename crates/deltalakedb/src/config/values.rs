//! What a value of the configuration can be. Each kind reads text, as a variable of the environment is text
//! too; files may write numbers and `true` as such.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

use super::receiver;
use crate::backup::Keep;
use crate::maintain::Schedule;
use crate::uri::parse_duration;

/// A kind of value.
pub(crate) trait Setting: Sized {
    /// What kind it is, for the table of keys.
    const KIND: &'static str;
    /// Whether it is never shown.
    const SECRET: bool = false;
    /// Whether a relative one in a file is relative to the file.
    const PATH: bool = false;
    /// Whether a file must write it as a string.
    const TEXT: bool = false;

    /// Reads it. The error says what is right, and never repeats the text.
    fn read(text: &str) -> Result<Self, String>;

    /// Its JSON Schema.
    fn schema() -> Schema;
}

/// What a setting needs for serde and schemars.
macro_rules! setting {
    ($($kind:ty),+ $(,)?) => {$(
        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                <$kind as Setting>::read(&text).map_err(serde::de::Error::custom)
            }
        }

        impl JsonSchema for $kind {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($kind).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                <$kind as Setting>::schema()
            }
        }
    )+};
}

setting!(
    Text, Hidden, CatalogUrl, FilePath, Span, Pause, Bytes, Count, Number, Flag, Kind, Format,
    Level, LogFormat, Address, SslMode, Encryption, Port, Moments, Kept, Endpoint, Headers, Pairs,
    Sampler, Protocol, Ratio
);

/// Any text but none at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text(pub(crate) String);

fn not_empty(text: &str) -> Result<&str, String> {
    if text.is_empty() {
        return Err("it is empty: give it a value or leave it out".to_owned());
    }
    Ok(text)
}

impl Setting for Text {
    const KIND: &'static str = "text";
    const TEXT: bool = true;

    fn read(text: &str) -> Result<Self, String> {
        not_empty(text).map(|text| Text(text.to_owned()))
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "minLength": 1})
    }
}

/// Text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Hidden(pub(crate) String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Setting for Hidden {
    const KIND: &'static str = "secret";
    const SECRET: bool = true;
    const TEXT: bool = true;

    fn read(text: &str) -> Result<Self, String> {
        not_empty(text).map(|text| Hidden(text.to_owned()))
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "minLength": 1, "writeOnly": true})
    }
}

/// The URL of a catalog, or a list of them. What it means is checked where it is used.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct CatalogUrl(pub(crate) String);

impl fmt::Debug for CatalogUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Setting for CatalogUrl {
    const KIND: &'static str = "URL";
    const SECRET: bool = true;
    const TEXT: bool = true;

    fn read(text: &str) -> Result<Self, String> {
        not_empty(text).map(|text| CatalogUrl(text.to_owned()))
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "minLength": 1})
    }
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FilePath(pub(crate) PathBuf);

impl Setting for FilePath {
    const KIND: &'static str = "file";
    const PATH: bool = true;
    const TEXT: bool = true;

    fn read(text: &str) -> Result<Self, String> {
        not_empty(text).map(|text| FilePath(text.into()))
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "minLength": 1})
    }
}

/// A duration; zero has a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

/// What a duration looks like.
const DURATION: &str = "must be a duration of at most 365d: a whole number of seconds, or one with a unit such \
                        as 500ms, 30s, 5m, 2h";
/// The same for JSON Schema.
const DURATION_PATTERN: &str = r"^[0-9]+(ms|s|m|min|h|d)?$";

fn interpolated() -> Schema {
    json_schema!({"type": "string", "pattern": r"\$\{[A-Za-z_]"})
}

impl Setting for Span {
    const KIND: &'static str = "duration";

    fn read(text: &str) -> Result<Self, String> {
        parse_duration(text).map(Span).ok_or_else(|| format!("{DURATION}; 0 = never"))
    }

    fn schema() -> Schema {
        json_schema!({"anyOf": [
            {"type": "integer", "minimum": 0},
            {"type": "string", "pattern": DURATION_PATTERN},
            interpolated(),
        ]})
    }
}

/// A duration longer than nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pause(pub(crate) Duration);

impl Setting for Pause {
    const KIND: &'static str = "duration > 0";

    fn read(text: &str) -> Result<Self, String> {
        let time = parse_duration(text).filter(|time| !time.is_zero());
        time.map(Pause).ok_or_else(|| format!("{DURATION}; longer than nothing"))
    }

    fn schema() -> Schema {
        json_schema!({"anyOf": [
            {"type": "integer", "minimum": 1},
            {"type": "string", "pattern": DURATION_PATTERN},
            interpolated(),
        ]})
    }
}

/// A size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) u64);

impl Setting for Bytes {
    const KIND: &'static str = "size";

    fn read(text: &str) -> Result<Self, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => Some(1),
            "kb" => Some(1_000),
            "mb" => Some(1_000_000),
            "gb" => Some(1_000_000_000),
            "k" | "kib" => Some(1 << 10),
            "m" | "mib" => Some(1 << 20),
            "g" | "gib" => Some(1 << 30),
            _ => None,
        };
        let bytes = number.parse::<u64>().ok().zip(unit).and_then(|(n, unit)| n.checked_mul(unit));
        match bytes {
            Some(bytes) if bytes == 0 || bytes >= SMALLEST => Ok(Bytes(bytes)),
            Some(_) => Err(format!(
                "must be at least {SMALLEST} bytes, or 0. It is a size, no number of entries: write 64MiB"
            )),
            None => Err(
                "must be a size: a whole number of bytes, or one with a unit such as 512KiB, 64MiB, 1GiB"
                    .to_owned(),
            ),
        }
    }

    fn schema() -> Schema {
        json_schema!({"anyOf": [
            {"type": "integer", "minimum": 0},
            {"type": "string", "pattern": r"^[0-9]+ ?([kKmMgG]?[bB]|[kKmMgG]([iI][bB])?)?$"},
            interpolated(),
        ]})
    }
}

/// Fewer bytes than this hold nothing: who wrote so few counted something else.
const SMALLEST: u64 = 4_096;

/// A whole number of at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count(pub(crate) u32);

/// Largest number: more connections, pages or attempts than that are a slip.
const LARGEST: u32 = 100_000;

impl Setting for Count {
    const KIND: &'static str = "number > 0";

    fn read(text: &str) -> Result<Self, String> {
        let number = text.parse().ok().filter(|number| (1..=LARGEST).contains(number));
        number.map(Count).ok_or_else(|| format!("must be a whole number from 1 to {LARGEST}"))
    }

    fn schema() -> Schema {
        json_schema!({"anyOf": [
            {"type": "integer", "minimum": 1, "maximum": LARGEST},
            {"type": "string", "pattern": "^[0-9]+$"},
            interpolated(),
        ]})
    }
}

/// A whole number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Number(pub(crate) u32);

impl Setting for Number {
    const KIND: &'static str = "number";

    fn read(text: &str) -> Result<Self, String> {
        let number = text.parse().ok().filter(|number| *number <= LARGEST);
        number.map(Number).ok_or_else(|| format!("must be a whole number from 0 to {LARGEST}"))
    }

    fn schema() -> Schema {
        json_schema!({"anyOf": [
            {"type": "integer", "minimum": 0, "maximum": LARGEST},
            {"type": "string", "pattern": "^[0-9]+$"},
            interpolated(),
        ]})
    }
}

/// A port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Port(pub(crate) u16);

impl Setting for Port {
    const KIND: &'static str = "port";

    fn read(text: &str) -> Result<Self, String> {
        let port = text.parse().ok().filter(|port| *port > 0);
        port.map(Port).ok_or_else(|| "must be a whole number from 1 to 65535".to_owned())
    }

    fn schema() -> Schema {
        json_schema!({"anyOf": [
            {"type": "integer", "minimum": 1, "maximum": 65_535},
            {"type": "string", "pattern": "^[0-9]+$"},
            interpolated(),
        ]})
    }
}

/// When something begins again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Moments(pub(crate) Schedule);

impl Setting for Moments {
    const KIND: &'static str = "duration or cron expression";

    fn read(text: &str) -> Result<Self, String> {
        text.parse().map(Moments)
    }

    fn schema() -> Schema {
        json_schema!({"anyOf": [
            {"type": "integer", "minimum": 1},
            {"type": "string", "minLength": 1},
        ]})
    }
}

/// Which sets of a backup are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept(pub(crate) Keep);

impl Setting for Kept {
    const KIND: &'static str = "number or age";

    fn read(text: &str) -> Result<Self, String> {
        let keep = text.parse().map(Kept);
        keep.map_err(|_| "must be a number of sets (7) or an age (30d, 12h), at least 1".to_owned())
    }

    fn schema() -> Schema {
        json_schema!({"anyOf": [
            {"type": "integer", "minimum": 1},
            {"type": "string", "pattern": "^[0-9]+[dh]?$"},
            interpolated(),
        ]})
    }
}

/// True or false.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flag(pub(crate) bool);

impl Setting for Flag {
    const KIND: &'static str = "true or false";

    fn read(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(Flag(true)),
            "false" | "no" | "off" | "0" => Ok(Flag(false)),
            _ => Err("must be true or false".to_owned()),
        }
    }

    fn schema() -> Schema {
        json_schema!({"anyOf": [{"type": "boolean"}, {"type": "string"}]})
    }
}

/// `address:port` to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address(pub(crate) std::net::SocketAddr);

impl Setting for Address {
    const KIND: &'static str = "address:port";
    const TEXT: bool = true;

    fn read(text: &str) -> Result<Self, String> {
        // `:9464` is every address, as in other programs' files.
        let text = text
            .strip_prefix(':')
            .map_or(Cow::Borrowed(text), |port| format!("0.0.0.0:{port}").into());
        text.parse().map(Address).map_err(|_| {
            "must be an IP address and a port, as 127.0.0.1:9464, [::1]:9464 or :9464 (every address)"
                .to_owned()
        })
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": ":"})
    }
}

/// The URL of a receiver of traces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint(pub(crate) url::Url);

impl Setting for Endpoint {
    const KIND: &'static str = "URL";
    const TEXT: bool = true;

    fn read(text: &str) -> Result<Self, String> {
        receiver::endpoint(text).map(Endpoint)
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "minLength": 1})
    }
}

/// Headers of requests; never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Headers(pub(crate) Vec<(String, String)>);

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Setting for Headers {
    const KIND: &'static str = "secret";
    const SECRET: bool = true;
    const TEXT: bool = true;

    fn read(text: &str) -> Result<Self, String> {
        receiver::headers(text).map(Headers)
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "minLength": 1, "writeOnly": true})
    }
}

/// Names with values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pairs(pub(crate) Vec<(String, String)>);

impl Setting for Pairs {
    const KIND: &'static str = "list of name=value";
    const TEXT: bool = true;

    fn read(text: &str) -> Result<Self, String> {
        receiver::pairs(text).map(Pairs)
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "minLength": 1})
    }
}

/// A share, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ratio(pub(crate) f64);

impl Setting for Ratio {
    const KIND: &'static str = "number from 0 to 1";

    fn read(text: &str) -> Result<Self, String> {
        let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
        ratio.map(Ratio).ok_or_else(|| "must be a number from 0 to 1, as 0.1".to_owned())
    }

    fn schema() -> Schema {
        json_schema!({"anyOf": [
            {"type": "number", "minimum": 0, "maximum": 1},
            {"type": "string"},
        ]})
    }
}

/// A word of a list; spellings of other programs are taken too.
macro_rules! words {
    ($(#[doc = $about:literal])+ $name:ident, $kind:literal { $($variant:ident = $word:literal $(| $other:literal)*),+ $(,)? }) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name {
            $(#[doc = $word] $variant),+
        }

        impl $name {
            /// As it is written.
            #[allow(dead_code, reason = "not each list of words is written out")]
            pub(crate) const fn word(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }
        }

        impl Setting for $name {
            const KIND: &'static str = $kind;

            fn read(text: &str) -> Result<Self, String> {
                match text.to_ascii_lowercase().as_str() {
                    $($word $(| $other)* => Ok($name::$variant),)+
                    _ => Err(format!("must be one of {}", [$($word),+].join(", "))),
                }
            }

            fn schema() -> Schema {
                json_schema!({"anyOf": [
                    {"enum": [$($word $(, $other)*),+]},
                    interpolated(),
                ]})
            }
        }
    };
}

words! {
    /// Which database.
    Kind, "sqlite, postgresql, mysql, mssql" {
        Sqlite = "sqlite" | "sqlite3",
        Postgres = "postgresql" | "postgres" | "pg",
        MySql = "mysql" | "mariadb",
        Mssql = "mssql" | "sqlserver",
    }
}

words! {
    /// How results are printed.
    Format, "table, json" { Table = "table" | "text", Json = "json" }
}

words! {
    /// How much is logged.
    Level, "off, error, warn, info, debug, trace" {
        Off = "off" | "none",
        Error = "error" | "critical" | "fatal",
        Warn = "warn" | "warning",
        Info = "info",
        Debug = "debug",
        Trace = "trace",
    }
}

words! {
    /// How log lines look.
    LogFormat, "text, json" { Text = "text" | "pretty" | "console" | "plain", Json = "json" }
}

words! {
    /// `sslmode` in the words of PostgreSQL and MySQL.
    SslMode, "disable, prefer, require, verify-ca, verify-full" {
        Disable = "disable" | "disabled",
        Prefer = "prefer" | "preferred" | "allow",
        Require = "require" | "required",
        VerifyCa = "verify-ca" | "verify_ca",
        VerifyFull = "verify-full" | "verify_full" | "verify_identity" | "verify-identity",
    }
}

words! {
    /// `encrypt` of SQL Server.
    Encryption, "true, false, strict" {
        On = "true" | "yes" | "on" | "mandatory",
        Off = "false" | "no" | "off" | "optional",
        Strict = "strict",
    }
}

words! {
    /// Which traces are sent, in the words of OpenTelemetry.
    Sampler, "always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off, parentbased_traceidratio" {
        On = "always_on",
        Off = "always_off",
        Ratio = "traceidratio",
        ParentOn = "parentbased_always_on",
        ParentOff = "parentbased_always_off",
        ParentRatio = "parentbased_traceidratio",
    }
}

words! {
    /// How traces are sent, in the words of OpenTelemetry.
    Protocol, "http/protobuf" { HttpProtobuf = "http/protobuf" }
}
