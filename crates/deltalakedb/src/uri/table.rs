//! URLs of tables.

use std::fmt;
use std::str::FromStr;

use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{TableName, TableRef};
use percent_encoding::utf8_percent_encode;

use super::text::{IN_SEGMENT, IN_SERVER, decode, split_query};
use super::{CatalogUri, Scheme, TABLE_SCHEME, scheme_of};

/// URL of a table: a catalog and a name in it.
#[derive(Clone, PartialEq, Eq)]
pub struct TableUri {
    catalog: CatalogUri,
    table: TableName,
}

impl TableUri {
    /// A table of a catalog.
    #[must_use]
    pub fn new(catalog: CatalogUri, table: TableName) -> Self {
        TableUri { catalog, table }
    }

    /// Whether text is meant as a table URI (it may still be a wrong one).
    #[must_use]
    pub fn is_one(text: &str) -> bool {
        text.get(..TABLE_SCHEME.len()).is_some_and(|start| start.eq_ignore_ascii_case(TABLE_SCHEME))
    }

    /// The catalog.
    #[must_use]
    pub fn catalog(&self) -> &CatalogUri {
        &self.catalog
    }

    /// The table's name in it.
    #[must_use]
    pub fn table(&self) -> &TableName {
        &self.table
    }

    /// The name as a reference to a live table.
    #[must_use]
    pub fn table_ref(&self) -> TableRef {
        TableRef::Name(self.table.clone())
    }
}

impl fmt::Display for TableUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(TABLE_SCHEME)?;
        self.catalog.write_place(f)?;
        // A server's URL has no '@' behind its authority: there it could be part of a password.
        let encoded = if self.catalog.server().is_some() { IN_SERVER } else { IN_SEGMENT };
        write!(f, "/{}", utf8_percent_encode(&self.table.to_string(), encoded))?;
        self.catalog.write_query(f)
    }
}

impl fmt::Debug for TableUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TableUri({self})")
    }
}

impl FromStr for TableUri {
    type Err = CatalogError;

    /// Reads a table's URL: the last segment of the path is the table (`table` or
    /// `namespace.table`, a slash in it as `%2F`), everything before it the catalog.
    ///
    /// # Errors
    /// As [`CatalogUri`]'s, and `InvalidInput` for a missing or bad table name.
    fn from_str(text: &str) -> Result<Self> {
        let form = "a table's URL is delta+sql://<catalog>/<table>, for example \
                    delta+sql://sqlite:///lake/catalog.db/sales.orders or \
                    delta+sql://postgresql://user@host/database/sales.orders";
        if !TableUri::is_one(text) {
            return Err(CatalogError::invalid(form));
        }
        let (scheme, rest) = scheme_of(&text[TABLE_SCHEME.len()..])?;
        let (path, query) = split_query(rest);
        let (place, table) = match (scheme, path.rsplit_once('/')) {
            (_, Some((place, table))) => (place, table),
            (Scheme::Memory, None) => ("", path),
            (_, None) => {
                return Err(CatalogError::invalid(format!("the URL names no table: {form}")));
            }
        };
        // The catalog first: its errors tell when a part of a password stands where the table
        // should, and keep it to themselves.
        let catalog = CatalogUri::from_parts(scheme, place, query)?;
        if catalog.server().is_some() && table.contains('@') {
            return Err(CatalogError::invalid(super::server::MISPLACED));
        }
        if table.is_empty() {
            return Err(CatalogError::invalid(format!("the URL names no table: {form}")));
        }
        let table = decode("the table's name in the URL", table)?.parse()?;
        Ok(TableUri { catalog, table })
    }
}
