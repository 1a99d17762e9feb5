//! What all routes share.

use std::sync::Arc;

use axum::http::HeaderMap;
use deltalakedb::{Db, Result};

use crate::places::Places;
use crate::settings::Settings;

/// A catalog, and how it is served.
#[derive(Clone)]
pub(crate) struct Service(Arc<Shared>);

struct Shared {
    db: Db,
    settings: Settings,
    places: Places,
}

/// Name and version of this program, for the audit.
const PROGRAM: &str = concat!("deltalakedb-server ", env!("CARGO_PKG_VERSION"));

impl Service {
    pub(crate) fn new(db: Db, settings: Settings) -> Result<Service> {
        let places = Places::new(&settings.roots)?;
        Ok(Service(Arc::new(Shared { db, settings, places })))
    }

    /// The catalog, to read.
    pub(crate) fn db(&self) -> &Db {
        &self.0.db
    }

    /// The catalog, to change it: the audit says where the request is from.
    pub(crate) fn db_for(&self, caller: &Caller) -> Result<Db> {
        self.0.db.clone().with_origin(caller.address.as_deref(), Some(PROGRAM))
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    pub(crate) fn places(&self) -> &Places {
        &self.0.places
    }
}

/// On whose behalf a request is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Caller {
    /// The address that the connection is from.
    pub(crate) address: Option<String>,
}

/// Longest id of a request.
const LONGEST_ID: usize = 128;

/// The id that the client gave a request, if it is one that a log may hold; else a new one.
pub(crate) fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get("x-request-id").and_then(|value| value.to_str().ok());
    let sane = |text: &&str| {
        (1..=LONGEST_ID).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:/+=".contains(&b))
    };
    given.filter(sane).map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned)
}
