//! `dl keys create|list|revoke`

use clap::{Args, Subcommand};
use deltalakedb::TimestampMs;
use deltalakedb::access::{KeyInfo, NewKey};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::time;

/// What can be done about keys.
#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Make a key, and print it once
    Create(Create),
    /// List keys, also those that have ended
    List(List),
    /// End a key
    Revoke(Revoke),
}

/// Arguments of `dl keys create`.
#[derive(Debug, Args)]
#[command(after_help = "\
A key is how a program shows a service who it is: `Authorization: Bearer KEY`. It belongs to a
principal, whose roles `dl access grant` gives. The catalog keeps a digest: nobody can print the
key again.

Examples:
  dl keys create loader --note 'nightly load'
  dl keys create analyst --expires-in 90d > analyst.key")]
pub(crate) struct Create {
    /// The principal: the user of its commits
    principal: String,
    /// The key ends after this time, as 12h or 90d
    #[arg(long, value_name = "TIME")]
    expires_in: Option<String>,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

/// Arguments of `dl keys list`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dl keys list
  dl keys list --principal loader --format json")]
pub(crate) struct List {
    /// Only keys of this principal
    #[arg(long, value_name = "NAME")]
    principal: Option<String>,
}

/// Arguments of `dl keys revoke`.
#[derive(Debug, Args)]
#[command(after_help = "\
Services know within 2 seconds.

Examples:
  dl keys revoke 3f0c1d2e4b5a69788796a5b4c3d2e1f0")]
pub(crate) struct Revoke {
    /// The key's id, which `dl keys list` shows
    id: String,
}

#[derive(Debug, Serialize)]
struct Created<'a> {
    key: &'a str,
    #[serde(flatten)]
    info: &'a KeyInfo,
}

impl Keys {
    pub(crate) async fn run(&self, context: &Context) -> Result<()> {
        match self {
            Keys::Create(create) => create.run(context).await,
            Keys::List(list) => list.run(context).await,
            Keys::Revoke(revoke) => revoke.run(context).await,
        }
    }
}

impl Create {
    async fn run(&self, context: &Context) -> Result<()> {
        let db = context.db().await?;
        let now = db.clock().now();
        let expires_at = self.expires_in.as_deref().map(|text| after(now, text)).transpose()?;
        let new = NewKey { principal: self.principal.clone(), expires_at, note: self.note.clone() };
        let key = db.create_key(new).await?;
        if context.out.is_json() {
            return context.out.document(&Created { key: &key.text, info: &key.info });
        }
        context.out.text(&key.text)?;
        context.out.hint("Keep it: the catalog has a digest of it alone.");
        if db.principal(&self.principal).await?.grants.is_empty() {
            context.out.hint(format!(
                "'{0}' may do nothing yet: `dl access grant {0} read '*'`",
                self.principal
            ));
        }
        Ok(())
    }
}

/// The time after a length of time.
fn after(now: TimestampMs, text: &str) -> Result<TimestampMs> {
    let length = deltalakedb::time::parse_length(text)?;
    let ms = i64::try_from(length.as_millis()).ok().and_then(|ms| now.0.checked_add(ms));
    let end = ms.ok_or_else(|| Failure::invalid(format!("--expires-in '{text}' is too long")))?;
    Ok(TimestampMs(end))
}

impl List {
    async fn run(&self, context: &Context) -> Result<()> {
        let db = context.db().await?;
        let now = db.clock().now();
        let mut list = context
            .out
            .list(&["id", "principal", "state", "made (UTC)", "ends (UTC)", "note"], &[]);
        for key in db.keys().await? {
            if self.principal.as_ref().is_some_and(|name| *name != key.principal) {
                continue;
            }
            list.push(&key, || {
                let state = match (key.revoked_at_ms, key.is_valid(now)) {
                    (Some(_), _) => "revoked",
                    (None, true) => "valid",
                    (None, false) => "ended",
                };
                vec![
                    key.id.clone(),
                    key.principal.clone(),
                    state.to_owned(),
                    time::show(key.created_at_ms),
                    key.expires_at_ms.map(time::show).unwrap_or_default(),
                    key.note.clone().unwrap_or_default(),
                ]
            })?;
        }
        list.end()
    }
}

impl Revoke {
    async fn run(&self, context: &Context) -> Result<()> {
        let info = context.db().await?.revoke_key(&self.id).await?;
        if context.out.is_json() {
            return context.out.document(&info);
        }
        context.out.say(format!("Key {} of '{}' is revoked.", info.id, info.principal))
    }
}
