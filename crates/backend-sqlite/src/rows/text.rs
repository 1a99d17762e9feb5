//! SQL texts, and the prefix of our tables in them.
//!
//! A text is a constant in the room that runs it. `{p}` in it stands for the prefix, a checked
//! identifier. Everything else is bound.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

/// Declares SQL texts: a constant each, and for tests the list of all of them with their names.
macro_rules! statements {
    ($($(#[$meta:meta])* $name:ident: $sql:expr,)*) => {
        $($(#[$meta])* pub(crate) const $name: &str = $sql;)*

        #[cfg(test)]
        pub(crate) const STATEMENTS: &[(&str, &str)] = &[$((stringify!($name), $name),)*];
    };
}
pub(crate) use statements;

/// A text with the prefix in its place.
pub(crate) fn fill(text: &str, prefix: &str) -> String {
    text.replace("{p}", prefix)
}

/// Texts with the prefix in its place, each filled in once: a connection keeps them.
#[derive(Debug)]
pub(crate) struct Texts {
    prefix: String,
    /// By address and length of the text: so a look-up does not read the text.
    filled: RefCell<HashMap<(usize, usize), Arc<str>>>,
}

impl Texts {
    pub(crate) fn new(prefix: &str) -> Self {
        Texts { prefix: prefix.to_owned(), filled: RefCell::default() }
    }

    /// A text of this program, filled in.
    pub(crate) fn get(&self, text: &'static str) -> Arc<str> {
        let place = (text.as_ptr().addr(), text.len());
        let mut filled = self.filled.borrow_mut();
        Arc::clone(filled.entry(place).or_insert_with(|| fill(text, &self.prefix).into()))
    }
}
