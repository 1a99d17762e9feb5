//! What all routes share.

use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode};
use deltalakedb::access::{Principal, Role};
use deltalakedb::{CatalogError, Db, Result, TableName, TableRef};

use crate::places::Places;
use crate::problem::{Answer, Failed};
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
        let user = caller.principal.as_ref().map(|who| who.name.parse()).transpose()?;
        let db = self.0.db.clone().with_origin(caller.address.as_deref(), Some(PROGRAM))?;
        Ok(if user.is_some() { db.with_user(user) } else { db })
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
    /// Who it is; none if nobody is asked, and everything is allowed.
    pub(crate) principal: Option<Arc<Principal>>,
}

impl Caller {
    /// Whether it may do this with a table.
    pub(crate) fn may(&self, role: Role, table: &TableName) -> bool {
        self.principal.as_ref().is_none_or(|principal| principal.may(role, table))
    }

    /// Fails unless it may do this with a table.
    pub(crate) fn check(&self, role: Role, table: &TableName) -> Answer<()> {
        if self.may(role, table) {
            return Ok(());
        }
        let text = format!(
            "this key has not the role {role} on '{table}': an administrator grants it by `dl access grant`"
        );
        Err(Failed::new(StatusCode::FORBIDDEN, "forbidden", text))
    }

    /// Fails unless it may do this with the table that a request names: before anything is looked up if that is a name,
    /// so that nobody learns which tables there are.
    pub(crate) fn check_named(&self, role: Role, table: &TableRef) -> Answer<()> {
        match table {
            TableRef::Name(name) => self.check(role, name),
            TableRef::Id(_) => Ok(()),
        }
    }

    /// Fails unless it may do this with the table that was found. By an id, a table that it may not even see is not
    /// there.
    pub(crate) fn check_found(&self, role: Role, asked: &TableRef, name: &TableName) -> Answer<()> {
        if let TableRef::Id(id) = asked
            && !self.may(Role::Read, name)
        {
            return Err(CatalogError::TableNotFound(id.to_string()).into());
        }
        self.check(role, name)
    }

    /// Whether it may see a table of this namespace.
    pub(crate) fn sees(&self, namespace: &str) -> bool {
        self.principal.as_ref().is_none_or(|principal| principal.sees(namespace))
    }
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
