//! Secrets: text that is never shown, and options of object stores, of which a catalog holds references only.

use std::collections::BTreeMap;
use std::fmt;

use crate::error::{CatalogError, Result};

/// Text that is never shown: `Debug` prints `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<T: Into<String>> From<T> for Secret {
    fn from(text: T) -> Self {
        Secret::new(text)
    }
}

/// A value that names the environment variable with the real one.
pub const ENV_REFERENCE: &str = "env:";
/// A value that names the file with the real one.
pub const FILE_REFERENCE: &str = "file:";

/// Whether an option of an object store holds a secret, by its name: keys, tokens, signatures.
///
/// Names of what is public (`aws_access_key_id`) and of files with secrets in them are not.
#[must_use]
pub fn is_secret(option: &str) -> bool {
    let name = option.to_ascii_lowercase();
    if name.ends_with("_id") || name.ends_with("_file") || name.ends_with("_path") {
        return false;
    }
    let secret_word = ["secret", "token", "password", "sas", "bearer"];
    let key = ["account_key", "access_key", "master_key", "service_account_key"];
    name.split('_').any(|word| secret_word.contains(&word))
        || key.iter().any(|key| name.ends_with(key))
        || name.contains("customer_key")
}

/// Checks that no option holds a secret in clear.
///
/// # Errors
/// `InvalidInput` naming the options, not their values.
pub fn check_options(options: &BTreeMap<String, String>) -> Result<()> {
    let reference =
        |value: &str| value.starts_with(ENV_REFERENCE) || value.starts_with(FILE_REFERENCE);
    let clear: Vec<&str> = options
        .iter()
        .filter(|(name, value)| is_secret(name) && !value.is_empty() && !reference(value))
        .map(|(name, _)| name.as_str())
        .collect();
    if clear.is_empty() {
        return Ok(());
    }
    Err(CatalogError::invalid(format!(
        "storage options with a secret are not kept in clear in the catalog: give {} as {} \
         ({ENV_REFERENCE}NAME for an environment variable, {FILE_REFERENCE}/path for a file), or leave \
         it to the environment of who opens the table",
        clear.join(", "),
        if clear.len() == 1 { "a reference" } else { "references" }
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_their_names() {
        for name in [
            "aws_secret_access_key",
            "secret_access_key",
            "AWS_SESSION_TOKEN",
            "token",
            "azure_storage_account_key",
            "account_key",
            "access_key",
            "azure_storage_sas_key",
            "azure_storage_client_secret",
            "bearer_token",
            "google_service_account_key",
            "aws_sse_customer_key_base64",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in [
            "aws_access_key_id",
            "access_key_id",
            "region",
            "aws_endpoint",
            "azure_storage_account_name",
            "aws_sse_kms_key_id",
            "aws_web_identity_token_file",
            "google_service_account_path",
            "allow_http",
            "client_id",
        ] {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn only_references_pass() {
        let options = |value: &str| {
            BTreeMap::from([
                ("aws_secret_access_key".to_owned(), value.to_owned()),
                ("region".to_owned(), "eu".to_owned()),
            ])
        };
        check_options(&options("env:KEY")).unwrap();
        check_options(&options("file:/run/secrets/key")).unwrap();
        check_options(&options("")).unwrap();
        let error = check_options(&options("hunter2")).unwrap_err().to_string();
        assert!(error.contains("aws_secret_access_key") && !error.contains("hunter2"), "{error}");
    }
}
