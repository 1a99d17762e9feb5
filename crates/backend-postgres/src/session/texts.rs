//! The texts of statements. Each room declares its own as constants; a session fills them in.
//!
//! `{p}` in a text stands for `"schema".prefix` (or the prefix alone), which are checked identifiers, and
//! `{wait}` for what limits waiting for locks. Every value is bound as a parameter.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// Declares the statements of a room.
macro_rules! statements {
    ($($(#[$meta:meta])* $vis:vis $name:ident: $sql:expr,)*) => {
        $($(#[$meta])* $vis const $name: &str = $sql;)*

        /// All statements of this room, for tests that prepare each.
        #[cfg(test)]
        pub(crate) const STATEMENTS: &[(&str, &str)] = &[$((stringify!($name), $name),)*];
    };
}
pub(crate) use statements;

/// Where a constant text stands in memory, and its length: found faster than by all of its bytes.
type Place = (usize, usize);

/// Texts of one catalog, each filled in when it is sent first.
pub(crate) struct Texts {
    prefix: String,
    wait: String,
    /// With the size class that the text was filled in for.
    filled: RwLock<HashMap<Place, (u32, Arc<str>)>>,
}

impl Texts {
    /// `wait`: how long a statement may take, where the statement itself has to limit its waiting for locks.
    pub(crate) fn new(prefix: String, wait: Option<Duration>) -> Texts {
        let wait = wait.map(limit_waits).unwrap_or_default();
        Texts { prefix, wait, filled: RwLock::default() }
    }

    /// A text for tables of this size class: the server plans each class anew.
    pub(super) fn filled(&self, text: &'static str, size_class: u32) -> Arc<str> {
        let place = (text.as_ptr().addr(), text.len());
        let known = self.filled.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((class, filled)) = known.get(&place)
            && *class == size_class
        {
            return Arc::clone(filled);
        }
        drop(known);
        let mut filled = self.fill(text);
        if size_class > 0 {
            filled = format!("{filled} -- size class {size_class}");
        }
        let filled: Arc<str> = filled.into();
        let mut known = self.filled.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(place, (size_class, Arc::clone(&filled)));
        filled
    }

    pub(crate) fn fill(&self, text: &str) -> String {
        text.replace("{p}", &self.prefix).replace("{wait}", &self.wait)
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "SELECT 1 FROM {p}files WHERE true{wait}";
    const OTHER: &str = "SELECT 2 FROM {p}files";

    #[test]
    fn a_text_is_filled_in_once_for_each_size_class() {
        let texts = Texts::new("\"s\".dl_".to_owned(), None);
        let first = texts.filled(TEXT, 0);
        assert_eq!(&*first, "SELECT 1 FROM \"s\".dl_files WHERE true");
        assert!(Arc::ptr_eq(&first, &texts.filled(TEXT, 0)));
        assert_eq!(&*texts.filled(OTHER, 0), "SELECT 2 FROM \"s\".dl_files");
        let grown = texts.filled(TEXT, 2);
        assert_eq!(&*grown, "SELECT 1 FROM \"s\".dl_files WHERE true -- size class 2");
        assert!(Arc::ptr_eq(&grown, &texts.filled(TEXT, 2)));
        assert_eq!(texts.filled.read().unwrap().len(), 2);
    }

    #[test]
    fn a_statement_by_itself_limits_its_waits() {
        let texts = Texts::new("dl_".to_owned(), Some(Duration::from_secs(4)));
        assert!(texts.filled(TEXT, 0).contains("'lock_timeout', '3000'"));
    }
}
