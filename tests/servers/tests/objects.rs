//! Emulators start, make buckets, and end.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test's ways to speak")]

use std::net::TcpStream;

use deltalakedb_test_servers::{EmulatedStore, ObjectStore, ObjectStoreKind, check_object_store};

#[test]
fn emulators_start_and_end() {
    for kind in [ObjectStoreKind::S3, ObjectStoreKind::Azure] {
        if let Err(why) = check_object_store(kind) {
            deltalakedb_test_servers::skip(
                &[if kind == ObjectStoreKind::S3 { "s3" } else { "azure" }],
                why,
            );
            continue;
        }
        let store = ObjectStore::start(kind).unwrap();
        let address = EmulatedStore { kind, endpoint: store.endpoint() };
        address.make_bucket("a-bucket").unwrap();
        // Azurite refuses a second one of a name; moto has it already.
        assert_eq!(address.make_bucket("a-bucket").is_ok(), kind == ObjectStoreKind::S3);
        let port = store.port();
        drop(store);
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    }
}
