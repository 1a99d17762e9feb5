//! `mssql://user:password@host:1433/database?encrypt=true&…`.

use std::path::PathBuf;
use std::time::Duration;

use deltalakedb_catalog_core::error::{CatalogError, Result};
use percent_encoding::percent_decode_str;
use url::Url;

use super::{Encrypt, MssqlOptions};

/// Options of a URL, as they are written in errors.
const KEYS: [&str; 17] = [
    "encrypt",
    "trust_server_certificate",
    "trust_server_certificate_ca",
    "client_certificate",
    "client_key",
    "instance",
    "schema",
    "table_prefix",
    "max_connections",
    "min_connections",
    "acquire_timeout",
    "idle_timeout",
    "max_lifetime",
    "test_before_acquire",
    "statement_timeout",
    "application_name",
    "password",
];

impl MssqlOptions {
    /// Reads a URL:
    /// `mssql://user:password@host:1433/database?encrypt=true&trust_server_certificate_ca=ca.pem`.
    ///
    /// The scheme is `mssql`, `sqlserver` or `mssql+<driver>`. Parts that contain `:/?#@%` are
    /// percent-encoded. Options, where `_`, `-` and capitals make no difference:
    /// `encrypt` (`true`, `false`, `strict`), `trust_server_certificate` (`true`, `false`),
    /// `trust_server_certificate_ca` (a file), `client_certificate` and `client_key` (files),
    /// `instance`, `schema`, `table_prefix`, `application_name`, `max_connections`,
    /// `min_connections`, `test_before_acquire`, and the durations `acquire_timeout`,
    /// `idle_timeout`, `max_lifetime` and `statement_timeout` (`500ms`, `10s`, `10` = seconds,
    /// `5m`). The password may also be given as option `password`.
    ///
    /// # Errors
    /// `InvalidInput` that lists the right options. It never contains the password.
    pub fn from_url(text: &str) -> Result<MssqlOptions> {
        let url = Url::parse(text).map_err(|e| bad(format!("it is not a URL ({e})")))?;
        let scheme = url.scheme();
        if !(scheme == "mssql" || scheme == "sqlserver" || scheme.starts_with("mssql+")) {
            return Err(bad(format!("its scheme is '{scheme}', not mssql or sqlserver")));
        }
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = decode(host.ok_or_else(|| bad("it names no host".to_owned()))?, "host")?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let database = decode(url.path().trim_matches('/'), "database")?;
        let user = decode(url.username(), "user")?;
        let mut options = MssqlOptions::new(host, database, user);
        options.port = url.port().unwrap_or(Self::DEFAULT_PORT);
        options.password = url.password().map(|text| decode(text, "password")).transpose()?;
        for (key, value) in url.query_pairs() {
            options.set(&key, &value)?;
        }
        options.validate()?;
        Ok(options)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let plain = |text: &str| text.to_ascii_lowercase().replace(['_', '-'], "");
        let Some(name) = KEYS.into_iter().find(|name| plain(name) == plain(key)) else {
            return Err(bad(format!(
                "there is no option '{key}'. The options are {}",
                KEYS.join(", ")
            )));
        };
        match name {
            "encrypt" => self.tls.mode = encrypt(value)?,
            "trust_server_certificate" => {
                self.tls.trust_server_certificate = boolean(name, value)?;
            }
            "trust_server_certificate_ca" => self.tls.ca_file = Some(PathBuf::from(value)),
            "client_certificate" => self.tls.cert_file = Some(PathBuf::from(value)),
            "client_key" => self.tls.key_file = Some(PathBuf::from(value)),
            "instance" => self.instance = Some(value.to_owned()),
            "schema" => value.clone_into(&mut self.schema),
            "table_prefix" => value.clone_into(&mut self.table_prefix),
            "max_connections" => self.pool.max_connections = number(name, value)?,
            "min_connections" => self.pool.min_connections = number(name, value)?,
            "acquire_timeout" => self.pool.acquire_timeout = duration(name, value)?,
            "idle_timeout" => self.pool.idle_timeout = duration(name, value)?,
            "max_lifetime" => self.pool.max_lifetime = duration(name, value)?,
            "test_before_acquire" => self.pool.test_before_acquire = boolean(name, value)?,
            "statement_timeout" => self.statement_timeout = duration(name, value)?,
            "application_name" => value.clone_into(&mut self.application_name),
            _ => self.password = Some(value.to_owned()),
        }
        Ok(())
    }
}

fn bad(what: String) -> CatalogError {
    CatalogError::invalid(format!(
        "bad SQL Server URL: {what}. It looks like \
         mssql://user:password@host:1433/database?encrypt=true"
    ))
}

fn decode(text: &str, what: &str) -> Result<String> {
    percent_decode_str(text)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| bad(format!("its {what} is not percent-encoded UTF-8")))
}

fn encrypt(value: &str) -> Result<Encrypt> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "yes" | "mandatory" | "1" => Ok(Encrypt::On),
        "false" | "no" | "optional" | "0" => Ok(Encrypt::Off),
        "strict" => Ok(Encrypt::Strict),
        _ => Err(bad(format!("encrypt is 'true', 'false' or 'strict', not '{value}'"))),
    }
}

fn boolean(name: &str, value: &str) -> Result<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "yes" | "1" => Ok(true),
        "false" | "no" | "0" => Ok(false),
        _ => Err(bad(format!("{name} is 'true' or 'false', not '{value}'"))),
    }
}

fn number(name: &str, value: &str) -> Result<usize> {
    value.parse().map_err(|_| bad(format!("{name} is a number, not '{value}'")))
}

fn duration(name: &str, value: &str) -> Result<Duration> {
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let amount: Option<u64> = digits.parse().ok();
    let unit = value.get(digits.len()..).unwrap_or("");
    let known = amount.and_then(|amount| match unit {
        "ms" => Some(Duration::from_millis(amount)),
        "" | "s" => Some(Duration::from_secs(amount)),
        "m" => amount.checked_mul(60).map(Duration::from_secs),
        "h" => amount.checked_mul(3600).map(Duration::from_secs),
        _ => None,
    });
    known.ok_or_else(|| {
        bad(format!("{name} is a duration like 500ms, 10s, 5m or 1h, not '{value}'"))
    })
}
