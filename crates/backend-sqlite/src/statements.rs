//! SQL texts with the table prefix filled in, once, when a backend is opened.
//!
//! `{p}` in a text stands for the prefix, a checked identifier. Everything else is bound.

/// Declares a struct of SQL texts.
macro_rules! statements {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $sql:expr,)* }) => {
        $(#[$meta])*
        #[derive(Debug)]
        pub(crate) struct $name {
            $($(#[$field_meta])* pub(crate) $field: String,)*
        }

        impl $name {
            pub(crate) fn new(prefix: &str) -> Self {
                $name { $($field: $sql.replace("{p}", prefix),)* }
            }

            /// All of them, for tests that prepare each.
            #[cfg(test)]
            pub(crate) fn all(&self) -> Vec<(&'static str, &str)> {
                vec![$((stringify!($field), self.$field.as_str()),)*]
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
    pub(crate) import: crate::import::ImportSql,
    pub(crate) outbox: crate::outbox::OutboxSql,
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
            import: crate::import::ImportSql::new(prefix),
            outbox: crate::outbox::OutboxSql::new(prefix),
            skip: crate::skip::SkipSql::new(prefix),
        }
    }

    #[cfg(test)]
    pub(crate) fn all(&self) -> Vec<(&'static str, &str)> {
        let mut all = self.schema.all();
        all.extend(self.tables.all());
        all.extend(self.reads.all());
        all.extend(self.files.all());
        all.extend(self.commit.all());
        all.extend(self.import.all());
        all.extend(self.outbox.all());
        all.extend(self.skip.all());
        all
    }
}
