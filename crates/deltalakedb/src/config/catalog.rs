//! From the keys to the URL of a catalog: the URL's options are what opens it, and this only fills them in.

use std::collections::BTreeMap;
use std::path::Path;

use deltalakedb_catalog_core::error::{CatalogError, Result};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::layer::{Found, Rank, Values};
use super::model::Settings;
use super::values::{Encryption, Kind, Setting, SslMode};
use crate::uri::{CatalogUri, Scheme, Secret};

/// Keys and the options of URLs that they set: of SQLite, PostgreSQL, MySQL, SQL Server.
const OPTIONS: &[(&str, [Option<&str>; 4])] = {
    const fn everywhere(name: &str) -> [Option<&str>; 4] {
        [Some(name), Some(name), Some(name), Some(name)]
    }
    const fn servers(name: &str) -> [Option<&str>; 4] {
        [None, Some(name), Some(name), Some(name)]
    }
    &[
        ("database.table_prefix", everywhere("table_prefix")),
        ("database.schema", [None, Some("schema"), None, Some("schema")]),
        (
            "database.application_name",
            [None, Some("application_name"), None, Some("application_name")],
        ),
        ("database.password_file", servers("password_file")),
        ("database.replicas", servers("replica_urls")),
        ("database.replica_max_staleness", servers("replica_max_staleness")),
        ("database.ssl", [None, Some("sslmode"), Some("ssl-mode"), Some("encrypt")]),
        ("database.ssl_mode", [None, Some("sslmode"), Some("ssl-mode"), None]),
        (
            "database.ssl_ca",
            [None, Some("sslrootcert"), Some("ssl-ca"), Some("trust_server_certificate_ca")],
        ),
        (
            "database.ssl_cert",
            [None, Some("sslcert"), Some("ssl-cert"), Some("client_certificate")],
        ),
        ("database.ssl_key", [None, Some("sslkey"), Some("ssl-key"), Some("client_key")]),
        ("database.encrypt", [None, None, None, Some("encrypt")]),
        ("database.trust_server_certificate", [None, None, None, Some("trust_server_certificate")]),
        (
            "connection.pool_size",
            [Some("readers"), Some("pool_size"), Some("pool_size"), Some("pool_size")],
        ),
        ("connection.max_overflow", servers("max_overflow")),
        ("connection.min_connections", servers("min_connections")),
        (
            "connection.pool_timeout",
            [
                Some("busy_timeout_ms"),
                Some("acquire_timeout"),
                Some("acquire_timeout"),
                Some("acquire_timeout"),
            ],
        ),
        ("connection.pool_recycle", servers("max_lifetime")),
        ("connection.idle_timeout", servers("idle_timeout")),
        ("connection.pre_ping", servers("test_before_acquire")),
        ("connection.statement_timeout", servers("statement_timeout")),
        ("connection.statement_cache", [None, Some("statement_cache"), None, None]),
        ("cache.size", everywhere("cache_size_bytes")),
        ("cache.max_staleness", everywhere("cache_max_staleness")),
        ("performance.page_size", everywhere("page_size")),
        ("performance.max_clock_skew", everywhere("max_clock_skew")),
        ("retry.count", everywhere("retry_count")),
        ("retry.base", everywhere("retry_base")),
        ("retry.deadline", everywhere("retry_timeout")),
    ]
};

/// Keys that together are the place of a catalog, in place of its URL.
const PLACE: [&str; 5] =
    ["database.type", "database.host", "database.port", "database.name", "database.user"];

/// Options of one source: by their names, with where they were found and the keys that set them.
type Group<'v> = BTreeMap<&'static str, (String, &'v Found, &'static str)>;

/// The option of a URL that a key sets with this database.
fn option(key: &str, scheme: Scheme) -> Option<&'static str> {
    let (_, names) = OPTIONS.iter().find(|(known, _)| *known == key)?;
    let at = match scheme {
        Scheme::Sqlite => 0,
        Scheme::Postgres => 1,
        Scheme::MySql => 2,
        Scheme::Mssql => 3,
        Scheme::Memory => return None,
    };
    names.get(at).copied().flatten()
}

/// A value as the URL's option takes it.
fn value(key: &str, scheme: Scheme, text: &str) -> String {
    let server_side = scheme == Scheme::Mssql;
    match key {
        "database.ssl" => {
            let on = super::values::Flag::read(text).is_ok_and(|flag| flag.0);
            match (scheme, on) {
                (Scheme::Mssql, on) => on.to_string(),
                (_, true) => ssl_word(scheme, SslMode::VerifyFull),
                (_, false) => ssl_word(scheme, SslMode::Disable),
            }
        }
        "database.ssl_mode" => match SslMode::read(text) {
            Ok(mode) => ssl_word(scheme, mode),
            Err(_) => text.to_owned(),
        },
        "database.encrypt" if server_side => {
            Encryption::read(text).map_or_else(|_| text.to_owned(), |word| word.word().to_owned())
        }
        "connection.pool_timeout" if scheme == Scheme::Sqlite => {
            let time = super::values::Pause::read(text).map(|time| time.0).unwrap_or_default();
            time.as_millis().to_string()
        }
        "cache.size" => super::values::Bytes::read(text)
            .map_or_else(|_| text.to_owned(), |bytes| bytes.0.to_string()),
        _ => text.to_owned(),
    }
}

fn ssl_word(scheme: Scheme, mode: SslMode) -> String {
    let word = match (scheme, mode) {
        (Scheme::MySql, SslMode::Disable) => "disabled",
        (Scheme::MySql, SslMode::Prefer) => "preferred",
        (Scheme::MySql, SslMode::Require) => "required",
        (Scheme::MySql, SslMode::VerifyCa) => "verify_ca",
        (Scheme::MySql, SslMode::VerifyFull) => "verify_identity",
        _ => mode.word(),
    };
    word.to_owned()
}

/// The catalog's URL as `catalog` says it, or as the section `database` does. None: nobody says.
///
/// # Errors
/// `InvalidInput`, `Unsupported` for what is no catalog, with where it stands.
pub(super) fn place(values: &Values, settings: &Settings) -> Result<Option<(CatalogUri, Found)>> {
    let stated = settings.database.kind.map(|kind| match kind {
        Kind::Sqlite => Scheme::Sqlite,
        Kind::Postgres => Scheme::Postgres,
        Kind::MySql => Scheme::MySql,
        Kind::Mssql => Scheme::Mssql,
    });
    let strongest = PLACE.iter().filter_map(|key| values.get(key)).max_by_key(|found| found.rank);
    let Some(found) = values.get("catalog") else {
        let Some(strongest) = strongest else { return Ok(None) };
        // Who sets the kind alone in the environment, for several programs, names no catalog by that.
        if values.get("database.host").is_none() && values.get("database.name").is_none() {
            return Ok(None);
        }
        return from_parts(values, settings, stated).map(|uri| Some((uri, strongest.clone())));
    };
    let mut uri: CatalogUri =
        found.text.parse().map_err(|e| placed(e, &found.origin.to_string()))?;
    if let Some(folder) = found.folder() {
        uri = uri.relative_to(folder);
    }
    for key in PLACE.iter().skip(1) {
        if let Some(part) = values.get(key).filter(|part| part.rank >= found.rank) {
            return Err(CatalogError::invalid(format!(
                "{}: {key} and the catalog's URL ({}) both say where the catalog is: leave one of them out",
                part.origin, found.origin
            )));
        }
    }
    if let (Some(stated), Some(part)) = (stated, values.get("database.type"))
        && stated != uri.scheme()
        && part.rank >= found.rank
    {
        return Err(CatalogError::invalid(format!(
            "{}: database.type is {}, but the catalog's URL ({}) begins with {}://: make them agree, or leave \
             database.type out",
            part.origin,
            stated.as_str(),
            found.origin,
            uri.scheme().as_str()
        )));
    }
    Ok(Some((uri, found.clone())))
}

fn from_parts(values: &Values, settings: &Settings, stated: Option<Scheme>) -> Result<CatalogUri> {
    let database = &settings.database;
    let Some(scheme) = stated else {
        return Err(CatalogError::invalid(
            "the section database names a place and no type: write type = \"postgresql\" (or sqlite, mysql, \
             mssql), or the catalog's URL in the key catalog",
        ));
    };
    let Some(name) = &database.name else {
        return Err(CatalogError::invalid(format!(
            "the section database has no name: write {}",
            if scheme == Scheme::Sqlite {
                "the file: name = \"catalog.db\""
            } else {
                "name = \"lake\""
            }
        )));
    };
    if scheme == Scheme::Sqlite {
        for key in ["database.host", "database.port", "database.user"] {
            if let Some(found) = values.get(key) {
                return Err(CatalogError::invalid(format!(
                    "{}: {key}: SQLite is a file: leave it out, or say another database.type",
                    found.origin
                )));
            }
        }
        let folder = values.get("database.name").and_then(Found::folder);
        let uri = CatalogUri::sqlite(&name.0);
        return Ok(match folder {
            Some(folder) => uri.relative_to(folder),
            None => uri,
        });
    }
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let mut url = format!("{}://", scheme.as_str());
    if let Some(user) = &database.user {
        url.push_str(&encoded(&user.0));
        url.push('@');
    }
    if let Some(host) = &database.host {
        let ipv6 = host.0.contains(':') && !host.0.starts_with('[') && !host.0.contains(',');
        let (open, close) = if ipv6 { ("[", "]") } else { ("", "") };
        for part in [open, &host.0, close] {
            url.push_str(part);
        }
    }
    if let Some(port) = &database.port {
        url.push(':');
        url.push_str(&port.0.to_string());
    }
    url.push('/');
    url.push_str(&encoded(&name.0));
    let place = values.get("database.host").or_else(|| values.get("database.name"));
    let place = place.map_or_else(String::new, |found| found.origin.to_string());
    url.parse().map_err(|e| placed(e, &place))
}

/// The URL with what the keys say besides. An option that stands in the URL goes before a key of the same
/// source; a key of a stronger source goes before the URL.
///
/// # Errors
/// `InvalidInput` for a key that this database does not have, and for keys that contradict each other.
pub(super) fn complete(
    uri: CatalogUri,
    from: Rank,
    values: &Values,
    file_names_catalog: bool,
) -> Result<CatalogUri> {
    let scheme = uri.scheme();
    if scheme == Scheme::Memory {
        return Ok(uri);
    }
    // A password of a file that names a catalog is for that one, and never sent to another server.
    let is_for = |password: &Found| {
        from <= Rank::File || password.rank >= Rank::Environment || !file_names_catalog
    };
    let mut groups: BTreeMap<Rank, Group<'_>> = BTreeMap::new();
    for (key, _) in OPTIONS {
        let Some(found) = values.get(key) else { continue };
        if matches!(*key, "database.password_file") && !is_for(found) {
            continue;
        }
        let Some(name) = option(key, scheme) else {
            let overflow = *key == "connection.max_overflow" && scheme == Scheme::Sqlite;
            // Only who wrote both into files meant them for each other.
            if from <= Rank::File && found.rank <= Rank::File && !overflow {
                return Err(CatalogError::invalid(format!(
                    "{}: {key}: {} has no such setting: leave it out, or put it into a profile",
                    found.origin,
                    scheme.database()
                )));
            }
            tracing::debug!(key, from = %found.origin, "this database has no such setting");
            continue;
        };
        // Together they are one number.
        let rank = match *key {
            "connection.max_overflow" => {
                let size = values.get("connection.pool_size").ok_or_else(|| {
                    CatalogError::invalid(format!(
                        "{}: connection.max_overflow without connection.pool_size: name both",
                        found.origin
                    ))
                })?;
                size.rank.max(found.rank)
            }
            "connection.pool_size" => {
                let overflow = values.get("connection.max_overflow");
                overflow.map_or(found.rank, |overflow| overflow.rank.max(found.rank))
            }
            _ => found.rank,
        };
        let text = value(key, scheme, &found.text);
        let group = groups.entry(rank).or_default();
        if let Some((_, other, other_key)) = group.insert(name, (text, found, key)) {
            return Err(CatalogError::invalid(format!(
                "{}: {key} and {other_key} ({}) say the same: leave one of them out",
                found.origin, other.origin
            )));
        }
    }
    let mut uri = uri;
    let apply = |uri: CatalogUri, group: Group<'_>, over: bool| {
        let query: Vec<String> = group
            .iter()
            .map(|(name, (text, ..))| {
                format!("{name}={}", utf8_percent_encode(text, NON_ALPHANUMERIC))
            })
            .collect();
        let origins: Vec<String> =
            group.values().map(|(_, found, key)| format!("{} ({key})", found.origin)).collect();
        let place = origins.join(", ");
        uri.with_options(&query.join("&"), over).map_err(|e| placed(e, &place))
    };
    let over = groups.split_off(&from);
    let (same, over) = {
        let mut over = over;
        (over.remove(&from), over)
    };
    for group in over.into_values() {
        uri = apply(uri, group, true)?;
    }
    if let Some(group) = same {
        uri = apply(uri, group, false)?;
    }
    for group in groups.into_values().rev() {
        uri = apply(uri, group, false)?;
    }
    let password = values.get("database.password").filter(|found| is_for(found));
    Ok(match password {
        Some(found) => uri.with_password(Secret::new(found.text.clone())),
        None => uri,
    })
}

/// An error with where the text stands.
pub(super) fn placed(error: CatalogError, place: &str) -> CatalogError {
    if place.is_empty() {
        return error;
    }
    match error {
        CatalogError::InvalidInput(text) => CatalogError::InvalidInput(format!("{place}: {text}")),
        CatalogError::Unsupported(text) => CatalogError::Unsupported(format!("{place}: {text}")),
        other => other,
    }
}

/// A URL with `***` in place of its password.
pub(super) fn masked(url: &str, folder: Option<&Path>) -> String {
    let Ok(uri) = url.trim().parse::<CatalogUri>() else { return "***".to_owned() };
    let own = uri.server().is_some_and(|server| server.password().is_some());
    let uri = match folder {
        Some(folder) => uri.relative_to(folder),
        None => uri,
    };
    let text = uri.to_string();
    if own { text.replacen('@', ":***@", 1) } else { text }
}

/// The same for the URL of a replica, which may leave out the database.
pub(super) fn masked_replica(url: &str) -> String {
    let url = url.trim();
    if masked(url, None) != "***" {
        return masked(url, None);
    }
    let secret = url.contains('@') || url.contains('?');
    if secret { "***".to_owned() } else { url.to_owned() }
}
