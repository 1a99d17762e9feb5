//! SQL texts with schema and table prefix filled in, once, when a backend is opened.
//!
//! `{p}` in a text stands for `"schema".prefix` (or just the prefix), checked identifiers.
//! Everything else is bound.

/// Declares a struct of SQL texts.
macro_rules! statements {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $sql:expr,)* }) => {
        $(#[$meta])*
        #[derive(Debug)]
        pub(crate) struct $name {
            $($(#[$field_meta])* pub(crate) $field: std::sync::Arc<str>,)*
        }

        impl $name {
            pub(crate) fn new(prefix: &str) -> Self {
                $name { $($field: $sql.replace("{p}", prefix).into(),)* }
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
    pub(crate) fn new(prefix: &str) -> Self {
        Statements {
            schema: crate::schema::SchemaSql::new(prefix),
            tables: crate::tables::TablesSql::new(prefix),
            reads: crate::reads::ReadsSql::new(prefix),
            files: crate::files::FilesSql::new(prefix),
            commit: crate::commit::CommitSql::new(prefix),
            groups: crate::groups::GroupSql::new(prefix),
            import: crate::import::ImportSql::new(prefix),
            outbox: crate::outbox::OutboxSql::new(prefix),
            run: crate::import_run::RunSql::new(prefix),
            skip: crate::skip::SkipSql::new(prefix),
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
