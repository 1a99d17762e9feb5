//! Who calls: keys of the catalog, looked up once and remembered for moments.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use deltalakedb::access::{KeyInfo, Principal};
use deltalakedb::{CatalogError, Db, WriteState};
use tokio::sync::Mutex;

use crate::problem::{Answer, Failed};

/// A change of keys and grants is noticed within this time.
const FRESH: Duration = Duration::from_secs(2);
/// If the database does not say what changed, what is remembered counts for so long.
const STALE: Duration = Duration::from_secs(30);
/// What a look at the database may take.
const LIMIT: Duration = Duration::from_secs(5);
/// Keys that are remembered at a time.
const MOST: usize = 10_000;

/// A key, and who it is.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) principal: Arc<Principal>,
    key: Arc<KeyInfo>,
}

#[derive(Debug, Default)]
struct Seen {
    revision: i64,
    keys: HashMap<String, Known>,
}

/// The keys that were seen, as of a revision of the registry.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    /// The revision is that of the last look, before which none of them was looked up.
    seen: std::sync::Mutex<Seen>,
    checked: Mutex<Option<(i64, Instant)>>,
}

impl Keys {
    /// Who sent these headers.
    pub(crate) async fn who(&self, db: &Db, headers: &HeaderMap) -> Answer<Known> {
        let text = bearer(headers)?;
        self.refresh(db).await?;
        let now = db.clock().now();
        let revision = {
            let seen = self.seen();
            if let Some(known) = seen.keys.get(text) {
                return if known.key.is_valid(now) { Ok(known.clone()) } else { Err(unknown()) };
            }
            seen.revision
        };
        let found = tokio::time::timeout(LIMIT, db.authenticate(text)).await;
        let Some((principal, key)) = found.map_err(|_| silent())?? else { return Err(unknown()) };
        let known = Known { principal: Arc::new(principal), key: Arc::new(key) };
        let mut seen = self.seen();
        // What was looked up before a change must not be remembered after it: nothing would clear it.
        if seen.revision == revision {
            if seen.keys.len() >= MOST {
                seen.keys.clear();
            }
            seen.keys.insert(text.to_owned(), known.clone());
        }
        Ok(known)
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what may have changed.
    async fn refresh(&self, db: &Db) -> Answer<()> {
        let mut checked = self.checked.lock().await;
        if checked.is_some_and(|(_, at)| at.elapsed() < FRESH) {
            return Ok(());
        }
        let asked = Instant::now();
        match tokio::time::timeout(LIMIT, db.registry_revision()).await {
            Ok(Ok(revision)) => {
                if checked.is_none_or(|(before, _)| before != revision) {
                    *self.seen() = Seen { revision, keys: HashMap::new() };
                }
                *checked = Some((revision, asked));
                Ok(())
            }
            // A database that is down for a moment does not lock everybody out.
            Ok(Err(CatalogError::Unavailable { .. })) | Err(_)
                if checked.is_some_and(|(_, at)| at.elapsed() < STALE) =>
            {
                Ok(())
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(silent()),
        }
    }
}

fn silent() -> Failed {
    CatalogError::busy("the database does not say who this is", WriteState::NotApplied).into()
}

/// The token of `Authorization: Bearer TOKEN`.
fn bearer(headers: &HeaderMap) -> Answer<&str> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (given.next(), given.next()) else { return Err(unauthorized()) };
    let text = value.to_str().map_err(|_| unauthorized())?;
    let (scheme, token) = text.split_once(' ').ok_or_else(unauthorized)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(unauthorized()) }
}

fn unauthorized() -> Failed {
    let text = "this service asks who you are: send `Authorization: Bearer KEY`; `dl keys create` makes keys";
    Failed::new(StatusCode::UNAUTHORIZED, "unauthorized", text)
}

fn unknown() -> Failed {
    let text = "the key is not known here, has ended, or was revoked";
    Failed::new(StatusCode::UNAUTHORIZED, "unauthorized", text)
}
