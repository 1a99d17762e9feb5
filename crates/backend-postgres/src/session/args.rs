//! Parameters of a statement.

use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_core::ids::TableId;
use sqlx::postgres::PgArguments;
use sqlx::{Encode, Postgres, Type};

use crate::errors::{DbError, DbResult};
use crate::rows::Id;

/// Parameters of a statement.
pub(crate) struct Args {
    arguments: PgArguments,
    error: Option<DbError>,
}

impl Args {
    pub(crate) fn new() -> Self {
        Args { arguments: PgArguments::default(), error: None }
    }

    /// The parameters of a statement about one table: its id comes first.
    pub(crate) fn of(table: TableId) -> Self {
        Args::new().bind(Id::from(table))
    }

    /// The next parameter. Text from users goes through [`Args::text`] and its like.
    pub(crate) fn bind<'q, T: Encode<'q, Postgres> + Type<Postgres>>(mut self, value: T) -> Self {
        if self.error.is_none()
            && let Err(error) = sqlx::Arguments::add(&mut self.arguments, value)
        {
            self.error = Some(DbError::Sqlx(sqlx::Error::Encode(error)));
        }
        self
    }

    /// Text; PostgreSQL cannot store NUL in it, so that is refused, by the name of the field.
    pub(crate) fn text(self, field: &'static str, value: &str) -> Self {
        self.refuse_nul(field, [Some(value)]).bind(value)
    }

    pub(crate) fn text_opt(self, field: &'static str, value: Option<&str>) -> Self {
        self.refuse_nul(field, [value]).bind(value)
    }

    pub(crate) fn texts(self, field: &'static str, values: &[&str]) -> Self {
        self.refuse_nul(field, values.iter().map(|value| Some(*value))).bind(values)
    }

    pub(crate) fn texts_opt(self, field: &'static str, values: &[Option<&str>]) -> Self {
        self.refuse_nul(field, values.iter().copied()).bind(values)
    }

    pub(crate) fn owned_texts(self, field: &'static str, values: &[String]) -> Self {
        self.refuse_nul(field, values.iter().map(|value| Some(value.as_str()))).bind(values)
    }

    fn refuse_nul<'v>(
        mut self,
        field: &'static str,
        values: impl IntoIterator<Item = Option<&'v str>>,
    ) -> Self {
        let mut values = values.into_iter().flatten();
        if self.error.is_none() && values.any(|value| value.as_bytes().contains(&0)) {
            self.error = Some(DbError::Catalog(CatalogError::invalid(format!(
                "{field} contains a NUL character, which PostgreSQL cannot store in text"
            ))));
        }
        self
    }

    pub(super) fn finish(self) -> DbResult<PgArguments> {
        match self.error {
            None => Ok(self.arguments),
            Some(error) => Err(error),
        }
    }
}
