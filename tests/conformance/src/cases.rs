//! The cases, by what they are about.

mod audit;
mod commit;
mod commit_files;
mod commit_pages;
mod expiry;
mod faults;
mod fixture;
mod idempotency;
mod import;
mod import_base;
mod import_tokens;
mod limits;
mod limits_sizes;
mod multi_table;
mod operate;
mod outbox;
mod outbox_leases;
mod races;
mod reads;
mod reads_history;
mod recovery;
mod registry;
mod schema;
mod skipping;
mod tables;
mod time_travel;

use futures::future::LocalBoxFuture;

use crate::env::{CaseResult, Env};

/// One case.
pub(crate) struct Case {
    /// What it is about.
    pub(crate) module: &'static str,
    /// What it claims.
    pub(crate) name: &'static str,
    /// The clause of the contract: printed when the case fails.
    pub(crate) clause: &'static str,
    /// Whether `migrate` is called first.
    pub(crate) migrated: bool,
    /// The case.
    pub(crate) run: for<'a> fn(&'a Env) -> LocalBoxFuture<'a, CaseResult>,
}

/// Defines cases and registers them in the module's `cases()`. Each starts with a doc comment that
/// names its clause: `/// commit 3: …`.
macro_rules! cases {
    ($(
        $(#[doc = $doc:literal])+
        async fn $name:ident($env:ident: &Env) -> CaseResult $body:block
    )+) => {
        $(
            $(#[doc = $doc])+
            async fn $name($env: &Env) -> CaseResult $body
        )+

        /// The cases of this module, in order.
        pub(super) fn cases() -> Vec<$crate::cases::Case> {
            let path = module_path!();
            let module = path.rsplit("::").next().unwrap_or(path);
            vec![$($crate::cases::Case {
                module,
                name: stringify!($name),
                clause: concat!($($doc),+),
                migrated: true,
                run: |env| Box::pin($name(env)),
            }),+]
        }
    };
}
use cases;

/// Every case, in the order in which a new backend wants to make them pass.
pub(crate) fn all() -> Vec<Case> {
    let mut all = schema::cases();
    for case in &mut all {
        case.migrated = false;
    }
    for cases in [
        tables::cases(),
        commit::cases(),
        commit_files::cases(),
        commit_pages::cases(),
        multi_table::cases(),
        idempotency::cases(),
        time_travel::cases(),
        reads::cases(),
        reads_history::cases(),
        skipping::cases(),
        races::cases(),
        limits::cases(),
        limits_sizes::cases(),
        import::cases(),
        import_base::cases(),
        import_tokens::cases(),
        outbox::cases(),
        outbox_leases::cases(),
        expiry::cases(),
        operate::cases(),
        audit::cases(),
        registry::cases(),
        faults::cases(),
        recovery::cases(),
        fixture::cases(),
    ] {
        all.extend(cases);
    }
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::all;

    /// The contract as it is written.
    const CONTRACT: [&str; 11] = [
        include_str!("../../../crates/catalog-core/src/backend.rs"),
        include_str!("../../../crates/catalog-core/src/backend/schema.rs"),
        include_str!("../../../crates/catalog-core/src/backend/tables.rs"),
        include_str!("../../../crates/catalog-core/src/backend/reads.rs"),
        include_str!("../../../crates/catalog-core/src/backend/commits.rs"),
        include_str!("../../../crates/catalog-core/src/backend/skipping.rs"),
        include_str!("../../../crates/catalog-core/src/backend/import.rs"),
        include_str!("../../../crates/catalog-core/src/backend/outbox.rs"),
        include_str!("../../../crates/catalog-core/src/backend/operate.rs"),
        include_str!("../../../crates/catalog-core/src/backend/audit.rs"),
        include_str!("../../../crates/catalog-core/src/backend/registry.rs"),
    ];

    type Clauses = BTreeSet<(String, u32)>;

    fn number(text: &str) -> Option<u32> {
        text.split_once(". ").and_then(|(number, _)| number.parse().ok())
    }

    /// The clauses of a file, and the methods of its traits.
    fn written(text: &str) -> (Clauses, BTreeSet<String>) {
        let (mut clauses, mut methods, mut pending) = (Clauses::new(), BTreeSet::new(), Vec::new());
        let mut in_trait = false;
        for line in text.lines() {
            in_trait |= line.starts_with("pub trait ");
            in_trait &= line != "}";
            if let Some(number) = line.strip_prefix("//! ").and_then(number) {
                clauses.insert(("contract".to_owned(), number));
            }
            let Some(line) = line.strip_prefix("    ").filter(|_| in_trait) else { continue };
            if let Some(found) = line.strip_prefix("/// ").and_then(number) {
                pending.push(found);
            }
            let method = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
            if let Some((name, _)) = method.and_then(|rest| rest.split_once('(')) {
                methods.insert(name.to_owned());
                clauses.extend(pending.drain(..).map(|number| (name.to_owned(), number)));
            }
        }
        (clauses, methods)
    }

    /// `commit 3, 11, resolve_token 1: text`.
    fn tested(clause: &str) -> Result<Clauses, String> {
        let bad = || format!("'{clause}' names no clauses: start it with 'method number, …:'");
        let (head, _) = clause.split_once(':').ok_or_else(bad)?;
        let (mut clauses, mut method) = (Clauses::new(), None);
        for part in head.split(", ") {
            let number = match part.trim().split_once(' ') {
                Some((name, number)) => {
                    method = Some(name.to_owned());
                    number
                }
                None => part.trim(),
            };
            let method = method.clone().ok_or_else(bad)?;
            clauses.insert((method, number.parse().map_err(|_| bad())?));
        }
        Ok(clauses)
    }

    #[test]
    fn each_clause_has_a_case_and_each_case_a_clause() {
        let (mut clauses, mut methods) = (Clauses::new(), BTreeSet::new());
        for text in CONTRACT {
            let (more, of) = written(text);
            clauses.extend(more);
            methods.extend(of);
        }
        assert_eq!(methods.len(), 42, "{methods:?}");
        let silent = methods.iter().filter(|m| !clauses.iter().any(|(method, _)| method == *m));
        let silent: Vec<_> = silent.collect();
        assert!(silent.is_empty(), "methods without a clause: {silent:?}");
        let mut cases = Clauses::new();
        for case in all() {
            cases.extend(tested(case.clause).unwrap());
        }
        let untested: Vec<_> = clauses.difference(&cases).collect();
        assert!(untested.is_empty(), "clauses without a case: {untested:?}");
        let unwritten: Vec<_> = cases.difference(&clauses).collect();
        assert!(unwritten.is_empty(), "cases of clauses that do not exist: {unwritten:?}");
    }

    #[test]
    fn parts_of_the_contract_are_small() {
        for text in CONTRACT {
            let (_, methods) = written(text);
            assert!(methods.len() <= 8, "{methods:?}");
        }
    }
}
