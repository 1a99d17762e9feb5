//! SQL texts with schema and table prefix filled in, once, when a backend is opened.
//!
//! `{p}` in a text stands for `"schema".prefix` (or just the prefix), checked identifiers, and
//! `{wait}` for what limits waiting for locks. Everything else is bound.

use std::time::Duration;

/// Declares a struct of SQL texts.
macro_rules! statements {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $sql:expr,)* }) => {
        $(#[$meta])*
        #[derive(Debug)]
        pub(crate) struct $name {
            $($(#[$field_meta])* pub(crate) $field: std::sync::Arc<str>,)*
        }

        impl $name {
            pub(crate) fn new(prefix: &str, wait: &str) -> Self {
                $name { $($field: $sql.replace("{p}", prefix).replace("{wait}", wait).into(),)* }
            }

            /// All of them, for tests that prepare each.
            #[cfg(test)]
            pub(crate) fn all(&self) -> Vec<(&'static str, std::sync::Arc<str>)> {
                vec![$((stringify!($field), self.$field.clone()),)*]
            }
        }
    };
}
pub(crate) use statements;

/// Limits waiting for locks, for the rest of the transaction: a condition that holds.
///
/// The server looks at `lock_timeout` when it begins to wait, and evaluates a sub-select that depends
/// on nothing before it reads the first row to lock. (`statement_timeout` counts from the beginning
/// of the statement: to set it there is too late.) Three quarters, so that the answer comes before
/// the client gives up.
fn limit_waits(statement_timeout: Duration) -> String {
    let millis = (statement_timeout.as_millis() * 3 / 4).clamp(1, 2_147_483_647);
    format!(" AND (SELECT pg_catalog.set_config('lock_timeout', '{millis}', true)) IS NOT NULL")
}

/// Every statement there is, by the module that owns it.
#[derive(Debug)]
pub(crate) struct Statements {
    pub(crate) schema: crate::schema::SchemaSql,
    pub(crate) tables: crate::tables::TablesSql,
    pub(crate) reads: crate::reads::ReadsSql,
    pub(crate) files: crate::files::FilesSql,
    pub(crate) commit: crate::commit::CommitSql,
    pub(crate) groups: crate::groups::GroupSql,
    pub(crate) import: crate::import::ImportSql,
    pub(crate) outbox: crate::outbox::OutboxSql,
    pub(crate) run: crate::import_run::RunSql,
    pub(crate) skip: crate::skip::SkipSql,
}

impl Statements {
    /// `wait`: how long a statement may take, where it has to say so by itself.
    pub(crate) fn new(prefix: &str, wait: Option<Duration>) -> Self {
        let wait = &wait.map(limit_waits).unwrap_or_default();
        Statements {
            schema: crate::schema::SchemaSql::new(prefix, wait),
            tables: crate::tables::TablesSql::new(prefix, wait),
            reads: crate::reads::ReadsSql::new(prefix, wait),
            files: crate::files::FilesSql::new(prefix, wait),
            commit: crate::commit::CommitSql::new(prefix, wait),
            groups: crate::groups::GroupSql::new(prefix, wait),
            import: crate::import::ImportSql::new(prefix, wait),
            outbox: crate::outbox::OutboxSql::new(prefix, wait),
            run: crate::import_run::RunSql::new(prefix, wait),
            skip: crate::skip::SkipSql::new(prefix, wait),
        }
    }

    #[cfg(test)]
    pub(crate) fn all(&self) -> Vec<(&'static str, std::sync::Arc<str>)> {
        let mut all = self.schema.all();
        all.extend(self.tables.all());
        all.extend(self.reads.all());
        all.extend(self.files.all());
        all.extend(self.commit.all());
        all.extend(self.groups.all());
        all.extend(self.import.all());
        all.extend(self.outbox.all());
        all.extend(self.run.all());
        all.extend(self.skip.all());
        all
    }
}
