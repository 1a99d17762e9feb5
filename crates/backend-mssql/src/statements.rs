//! SQL texts with schema and table prefix filled in, once, when a backend is opened.
//!
//! `{p}` in a text stands for `[schema].prefix`, `{i}` for the prefix alone (names of indexes):
//! checked identifiers. Everything else is bound.

use std::sync::atomic::{AtomicBool, Ordering};

/// Declares a struct of SQL texts.
macro_rules! statements {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $sql:expr,)* }) => {
        $(#[$meta])*
        #[derive(Debug)]
        pub(crate) struct $name {
            $($(#[$field_meta])* pub(crate) $field: String,)*
        }

        impl $name {
            pub(crate) fn new(names: &crate::statements::Names) -> Self {
                $name { $($field: names.fill($sql),)* }
            }

            /// All of them, for tests that look at each.
            #[cfg(test)]
            pub(crate) fn all(&self) -> Vec<(&'static str, &str)> {
                vec![$((stringify!($field), self.$field.as_str()),)*]
            }
        }
    };
}
pub(crate) use statements;

/// What is put into texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) schema: String,
    pub(crate) prefix: String,
}

impl Names {
    /// A text with its placeholders filled in.
    pub(crate) fn fill(&self, text: &str) -> String {
        text.replace("{p}", &format!("[{}].{}", self.schema, self.prefix))
            .replace("{i}", &self.prefix)
    }

    /// `[schema].prefix_table`.
    pub(crate) fn table(&self, table: &str) -> String {
        format!("[{}].{}{table}", self.schema, self.prefix)
    }
}

/// Every fixed statement there is, by the module that owns it.
#[derive(Debug)]
pub(crate) struct Statements {
    pub(crate) names: Names,
    /// Whether the server takes bulk loads. One that refused them is not asked again.
    pub(crate) bulk: AtomicBool,
    pub(crate) schema: crate::schema::SchemaSql,
    pub(crate) tables: crate::tables::TablesSql,
    pub(crate) reads: crate::reads::ReadsSql,
    pub(crate) commit: crate::commit::CommitSql,
    pub(crate) import: crate::import::ImportSql,
    pub(crate) outbox: crate::outbox::OutboxSql,
    pub(crate) skip: crate::skip::SkipSql,
}

impl Statements {
    pub(crate) fn new(names: Names) -> Self {
        Statements {
            schema: crate::schema::SchemaSql::new(&names),
            tables: crate::tables::TablesSql::new(&names),
            reads: crate::reads::ReadsSql::new(&names),
            commit: crate::commit::CommitSql::new(&names),
            import: crate::import::ImportSql::new(&names),
            outbox: crate::outbox::OutboxSql::new(&names),
            skip: crate::skip::SkipSql::new(&names),
            names,
            bulk: AtomicBool::new(true),
        }
    }

    /// Whether new files may go by the bulk protocol.
    pub(crate) fn bulk_allowed(&self) -> bool {
        self.bulk.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(crate) fn all(&self) -> Vec<(&'static str, &str)> {
        let mut all = self.schema.all();
        all.extend(self.tables.all());
        all.extend(self.reads.all());
        all.extend(self.commit.all());
        all.extend(self.import.all());
        all.extend(self.outbox.all());
        all.extend(self.skip.all());
        all
    }
}
