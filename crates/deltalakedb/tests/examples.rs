//! Each example runs, on a catalog of its own.
#![cfg(feature = "sqlite")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::duplicate_mod,
    clippy::print_stdout,
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "these are programs: here they are modules, and each has a `main` of its own"
)]

#[path = "../examples/choose_backend.rs"]
mod choose_backend;
#[path = "../examples/hook.rs"]
mod hook;
#[path = "../examples/time_travel.rs"]
mod time_travel;
#[path = "../examples/two_tables.rs"]
mod two_tables;

macro_rules! examples {
    ($($name:ident),+) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            let folder = tempfile::tempdir().unwrap();
            let url = format!("sqlite://{}", folder.path().join("catalog.db").display());
            $name::run(&url, folder.path()).await.unwrap();
        }
    )+

        #[test]
        fn none_is_left_out() {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
            let mut found: Vec<_> = std::fs::read_dir(folder)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.is_file())
                .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
                .collect();
            found.sort();
            assert_eq!(found, [$(stringify!($name)),+]);
        }
    };
}

examples!(choose_backend, hook, time_travel, two_tables);
