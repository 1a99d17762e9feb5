//! SQL texts, and the names of our tables in them.
//!
//! A text is a constant in the room that runs it. `{p}` in it stands for `[schema].prefix`, `{i}`
//! for the prefix alone (names of indexes): checked identifiers. Everything else is bound.

/// Declares SQL texts: a constant each, and for tests the list of all of them with their names.
macro_rules! statements {
    ($($(#[$meta:meta])* $name:ident: $sql:expr,)*) => {
        $($(#[$meta])* pub(crate) const $name: &str = $sql;)*

        #[cfg(test)]
        pub(crate) const STATEMENTS: &[(&str, &str)] = &[$((stringify!($name), $name),)*];
    };
}
pub(crate) use statements;

/// The schema and the prefix of our tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) schema: String,
    pub(crate) prefix: String,
}

impl Names {
    /// A text with the names in their places.
    pub(crate) fn fill(&self, text: &str) -> String {
        text.replace("{p}", &format!("[{}].{}", self.schema, self.prefix))
            .replace("{i}", &self.prefix)
    }
}
