//! What is known of a table that a log store was made for.

use std::sync::{Arc, PoisonError, RwLock};

use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{TableId, TableRef};
use deltalakedb_catalog_core::model::{MirrorMode, TableRecord};
use deltalakedb_catalog_engine::catalog::{Catalog, ChangeTarget};
use deltalakedb_mirror::store::{Store, normalize_location, open_store};
use tokio::sync::OnceCell;
use url::Url;

use crate::staging::Staging;
use crate::{FENCE, LOCATION, Opener, Options, TableAddress, WAREHOUSE, runtime};

/// A table by its address: in the catalog, or to be made.
#[derive(Debug)]
pub(crate) struct Context {
    opener: Opener,
    pub(crate) address: TableAddress,
    options: Options,
    catalog: OnceCell<Catalog>,
    /// As it was found; a table that another process drops and makes anew is another one.
    found: RwLock<Option<Found>>,
    /// What a transaction has not committed yet.
    staging: Option<Staging>,
}

/// The table in the catalog, and its storage.
#[derive(Debug, Clone)]
struct Found {
    id: TableId,
    storage: Arc<Store>,
}

impl Context {
    pub(crate) fn new(opener: Opener, address: TableAddress, options: Options) -> Context {
        Context {
            opener,
            address,
            options,
            catalog: OnceCell::new(),
            found: RwLock::new(None),
            staging: None,
        }
    }

    /// A table in a transaction: the one that the transaction found, whatever becomes of its name.
    pub(crate) fn staged(
        opener: Opener,
        address: TableAddress,
        options: Options,
        catalog: Catalog,
        staging: Staging,
    ) -> Result<Context> {
        let context = Context {
            catalog: OnceCell::new_with(Some(catalog)),
            ..Context::new(opener, address, options)
        };
        if let Some(base) = &staging.base {
            context.remember(&base.table)?;
        }
        Ok(Context { staging: Some(staging), ..context })
    }

    pub(crate) fn staging(&self) -> Option<&Staging> {
        self.staging.as_ref()
    }

    /// The catalog, opened at the first call.
    pub(crate) async fn catalog(&self) -> Result<Catalog> {
        let open = || {
            let (opener, address) = (Arc::clone(&self.opener), self.address.clone());
            runtime::run(async move { opener.open(&address).await })
        };
        self.catalog.get_or_try_init(open).await.cloned()
    }

    /// The table's id; none if the catalog has no such table.
    pub(crate) async fn table_id(&self) -> Result<Option<TableId>> {
        Ok(self.find().await?.map(|found| found.id))
    }

    /// The table's storage: as the catalog says, or as it will be.
    pub(crate) async fn storage(&self) -> Result<Arc<Store>> {
        if let Some(found) = self.find().await? {
            return Ok(found.storage);
        }
        Ok(Arc::new(open_store(&self.new_location()?, &self.store_options())?))
    }

    async fn find(&self) -> Result<Option<Found>> {
        let known = || self.found.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(found) = known() {
            return Ok(Some(found));
        }
        if self.staging.is_some() {
            // The transaction makes it.
            return Ok(None);
        }
        let (catalog, table) = (self.catalog().await?, self.table_ref());
        match runtime::run(async move { catalog.table(&table).await }).await {
            Ok(record) => self.remember(&record).map(Some),
            Err(CatalogError::TableNotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn remember(&self, record: &TableRecord) -> Result<Found> {
        // What the caller says goes before what the catalog says.
        let mut options = record.storage_options.clone();
        options.extend(self.store_options());
        let storage = Arc::new(open_store(&record.location, &options)?);
        let found = Found { id: record.id, storage };
        *self.found.write().unwrap_or_else(PoisonError::into_inner) = Some(found.clone());
        Ok(found)
    }

    fn table_ref(&self) -> TableRef {
        TableRef::Name(self.address.table.clone())
    }

    /// Where the table is made, if it is not there yet.
    ///
    /// # Errors
    /// `InvalidInput` if nothing says so.
    fn new_location(&self) -> Result<String> {
        if let Some(location) = self.options.get(LOCATION) {
            return normalize_location(location);
        }
        let name = &self.address.table;
        let warehouse = self.options.get(WAREHOUSE).cloned();
        let warehouse = warehouse.or_else(|| self.opener.default_warehouse(&self.address));
        let Some(warehouse) = warehouse else {
            return Err(CatalogError::TableNotFound(format!(
                "{name} (to create it, say where: storage option '{LOCATION}', or '{WAREHOUSE}' for \
                 the folder above '{}/{}')",
                name.namespace(),
                name.name()
            )));
        };
        let warehouse = normalize_location(&warehouse)?;
        let mut url = Url::parse(&warehouse)
            .map_err(|e| CatalogError::invalid(format!("'{warehouse}' is no URL: {e}")))?;
        url.path_segments_mut()
            .map_err(|()| CatalogError::invalid(format!("'{warehouse}' has no folders")))?
            .pop_if_empty()
            .extend([name.namespace(), name.name()]);
        normalize_location(url.as_str())
    }

    /// Makes the table, where nothing else says how: published, at its new location.
    ///
    /// # Errors
    /// As [`Context::new_location`].
    pub(crate) fn creation(&self) -> Result<ChangeTarget> {
        Ok(ChangeTarget::Create {
            name: self.address.table.clone(),
            location: self.new_location()?,
            storage_options: self.store_options(),
            mirror: MirrorMode::Active,
            fence: self.fence(),
        })
    }

    /// Options of the object store: all but ours.
    fn store_options(&self) -> Options {
        let ours = |key: &str| key.starts_with("deltalakedb.");
        self.options.iter().filter(|(k, _)| !ours(k)).map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// Whether a new table gets the fence.
    fn fence(&self) -> bool {
        self.options.get(FENCE).is_none_or(|value| !value.eq_ignore_ascii_case("false"))
    }
}
