//! Writes to the registry whose answers are lost, on the backend in memory.

use deltalakedb_catalog_core::audit::{AuditFilter, AuditOrder};
use deltalakedb_catalog_core::backend::{AuditBackend, RegistryBackend};
use deltalakedb_catalog_core::registry::{Expected, RecordKey, RecordWrite, RegistryOutcome};

use super::*;

fn key(name: &str) -> RecordKey {
    RecordKey::new("share", name).unwrap()
}

fn put(name: &str, expected: Expected, body: &str) -> RecordWrite {
    RecordWrite { key: key(name), expected, body: Some(body.to_owned()) }
}

fn delete(name: &str, expected: Expected) -> RecordWrite {
    RecordWrite { key: key(name), expected, body: None }
}

/// A catalog whose writes to the registry fail as the script says, and what is behind it.
fn faulty(
    script: impl Fn(u64) -> Fault + Send + Sync + 'static,
) -> (Catalog, Arc<MemoryBackend>, Arc<FaultyBackend<Arc<MemoryBackend>>>) {
    let memory = Arc::new(MemoryBackend::new());
    let backend = Arc::new(FaultyBackend::new(Arc::clone(&memory), move |call| match call.verb {
        Verb::RegistryWrite => script(call.nth),
        _ => Fault::None,
    }));
    let ids = Arc::new(CountingIds::default());
    (Catalog::new(Arc::clone(&backend) as _, Arc::new(FrozenClock), ids), memory, backend)
}

async fn actions(memory: &MemoryBackend) -> Vec<String> {
    let filter = AuditFilter::default();
    let page = memory.audit_list(&filter, AuditOrder::OldestFirst, None, 100).await.unwrap();
    page.items.into_iter().map(|row| row.entry.action).collect()
}

#[tokio::test]
async fn a_busy_database_is_written_to_again() {
    let (c, memory, backend) = faulty(|nth| if nth < 3 { Fault::Busy } else { Fault::None });
    let writes = [put("a", Expected::Absent, "{}")];
    let entry = c.entry("share.make", &serde_json::json!({ "name": "a" })).unwrap();
    let outcome = c.registry_write(&writes, Some(entry)).await.unwrap();
    assert_eq!(outcome, RegistryOutcome::Written(1));
    assert_eq!(backend.calls(Verb::RegistryWrite), 4);
    assert_eq!(actions(&memory).await, ["share.make"]);
    let record = c.registry_get(&key("a")).await.unwrap().unwrap();
    assert_eq!((record.revision, record.changed_at), (1, TimestampMs(1_000)));
    assert_eq!(c.registry_list("share", None, 10).await.unwrap().items, [record]);
    // A conflict is an answer.
    let outcome = c.registry_write(&writes, None).await.unwrap();
    assert_eq!(outcome, RegistryOutcome::Conflict { key: key("a"), current: Some(1) });
    assert_eq!(backend.calls(Verb::RegistryWrite), 5);
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_takes_effect_once() {
    for fault in [|| Fault::LoseAnswer, || Fault::LoseAnswerBusy, || Fault::LoseRequest] {
        let (c, memory, backend) = faulty(move |nth| if nth == 0 { fault() } else { Fault::None });
        let old = [put("old", Expected::Absent, "{}"), put("gone", Expected::Absent, "{}")];
        memory.registry_write(&old, TimestampMs(1), None).await.unwrap();
        let writes = [
            put("a", Expected::Absent, "{\"a\":1}"),
            put("old", Expected::Revision(1), "{\"a\":2}"),
            delete("gone", Expected::Revision(1)),
        ];
        let entry = c.entry("share.change", &serde_json::json!({})).unwrap();
        let outcome = c.registry_write(&writes, Some(entry)).await.unwrap();
        assert_eq!(outcome, RegistryOutcome::Written(2));
        assert_eq!(c.registry_revision().await.unwrap(), 2);
        assert_eq!(backend.calls(Verb::RegistryWrite), 2);
        assert_eq!(actions(&memory).await, ["share.change"]);
    }
}

#[tokio::test]
async fn deletions_whose_answer_is_lost_are_found_by_what_is_not_there() {
    let (c, memory, _) = faulty(|nth| if nth == 0 { Fault::LoseAnswer } else { Fault::None });
    memory.registry_write(&[put("a", Expected::Any, "{}")], TimestampMs(1), None).await.unwrap();
    let outcome = c.registry_write(&[delete("a", Expected::Revision(1))], None).await.unwrap();
    assert_eq!(outcome, RegistryOutcome::Written(2));
    assert_eq!(c.registry_get(&key("a")).await.unwrap(), None);
}

#[tokio::test]
async fn what_others_wrote_is_not_taken_for_a_write_in_doubt() {
    // The request never arrives, and another writer is faster with the same body.
    let memory = Arc::new(MemoryBackend::new());
    let other = Arc::clone(&memory);
    let backend = FaultyBackend::new(Arc::clone(&memory), move |call| {
        let other = Arc::clone(&other);
        match (call.verb, call.nth) {
            (Verb::RegistryWrite, 0) => Fault::LoseRequest,
            (Verb::RegistryWrite, 1) => Fault::Before(Box::pin(async move {
                let writes = [put("a", Expected::Absent, "{}")];
                other.registry_write(&writes, TimestampMs(999), None).await.unwrap();
            })),
            _ => Fault::None,
        }
    });
    let ids = Arc::new(CountingIds::default());
    let c = Catalog::new(Arc::new(backend), Arc::new(FrozenClock), ids);
    let outcome = c.registry_write(&[put("a", Expected::Absent, "{}")], None).await.unwrap();
    assert_eq!(outcome, RegistryOutcome::Conflict { key: key("a"), current: Some(1) });
    // The same of two records that two calls wrote.
    let (c, memory, _) = faulty(|nth| if nth == 0 { Fault::LoseRequest } else { Fault::None });
    for name in ["a", "b"] {
        let write = put(name, Expected::Absent, "{}");
        memory.registry_write(&[write], TimestampMs(1_000), None).await.unwrap();
    }
    let writes = [put("a", Expected::Absent, "{}"), put("b", Expected::Absent, "{}")];
    let outcome = c.registry_write(&writes, None).await.unwrap();
    assert_eq!(outcome, RegistryOutcome::Conflict { key: key("a"), current: Some(1) });
    assert_eq!(memory.registry_revision().await.unwrap(), 2);
}

#[tokio::test]
async fn a_write_in_doubt_stays_so_when_the_database_goes_away() {
    let (c, memory, backend) = faulty(|nth| if nth == 0 { Fault::LoseAnswer } else { Fault::Busy });
    let writes = [put("a", Expected::Absent, "{}")];
    let error = c.registry_write(&writes, None).await.unwrap_err();
    assert_eq!(error.write_state(), WriteState::Unknown, "{error}");
    assert!(error.to_string().contains("not known whether"), "{error}");
    assert_eq!(backend.calls(Verb::RegistryWrite), u64::from(crate::retry::MAX_ATTEMPTS));
    assert_eq!(memory.registry_revision().await.unwrap(), 1);
    // Also where the attempt after it fails for good; an error by itself says that nothing was written.
    for (lost, state) in [(true, WriteState::Unknown), (false, WriteState::NotApplied)] {
        let (c, ..) =
            faulty(move |nth| if nth == 0 && lost { Fault::LoseRequest } else { Fault::Fail });
        let error = c.registry_write(&writes, None).await.unwrap_err();
        assert_eq!(error.write_state(), state, "{error}");
    }
}
