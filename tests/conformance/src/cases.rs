//! The cases, by what they are about.

mod commit;
mod commit_files;
mod commit_pages;
mod faults;
mod idempotency;
mod import;
mod import_base;
mod import_tokens;
mod limits;
mod limits_sizes;
mod multi_table;
mod outbox;
mod outbox_leases;
mod races;
mod reads;
mod reads_history;
mod recovery;
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
        faults::cases(),
        recovery::cases(),
    ] {
        all.extend(cases);
    }
    all
}
