use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;

use super::*;
use crate::memory::MemoryBackend;
use deltalakedb_catalog_core::backend::parts::*;
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::TimestampMs;
use deltalakedb_catalog_core::sink::{MirrorSink, PutOutcome, Replaced, SinkEntry};

#[derive(Debug, Default)]
struct MapSink(Mutex<BTreeMap<String, Bytes>>);

#[async_trait]
impl MirrorSink for MapSink {
    async fn put_if_absent(&self, name: &str, bytes: Bytes) -> Result<PutOutcome> {
        let mut map = self.0.lock().unwrap();
        if map.contains_key(name) {
            return Ok(PutOutcome::Exists);
        }
        map.insert(name.to_owned(), bytes);
        Ok(PutOutcome::Created)
    }
    async fn replace(&self, name: &str, expected: &[u8], bytes: Bytes) -> Result<Replaced> {
        match self.0.lock().unwrap().get_mut(name) {
            Some(found) if *found == expected => {
                *found = bytes;
                Ok(Replaced::Done)
            }
            _ => Ok(Replaced::Changed),
        }
    }
    async fn put_replace(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.0.lock().unwrap().insert(name.to_owned(), bytes);
        Ok(())
    }
    async fn delete(&self, name: &str) -> Result<()> {
        self.0.lock().unwrap().remove(name);
        Ok(())
    }
    async fn get(&self, name: &str) -> Result<Option<Bytes>> {
        Ok(self.0.lock().unwrap().get(name).cloned())
    }
    async fn list(&self, _: Option<&str>) -> Result<Vec<SinkEntry>> {
        Ok(Vec::new())
    }
    async fn set_modified(&self, _: &str, _: TimestampMs) -> Result<()> {
        Ok(())
    }
    fn describe(&self) -> String {
        "map".to_owned()
    }
}

#[tokio::test]
async fn the_script_sees_each_call_and_its_number() {
    let backend = FaultyBackend::new(MemoryBackend::new(), |call| match (call.verb, call.nth) {
        (Verb::Info, 1) => Fault::Busy,
        (Verb::Migrate, 0) => Fault::LoseAnswer,
        _ => Fault::None,
    });
    backend.info().await.unwrap();
    let busy = backend.info().await.unwrap_err();
    assert!(busy.is_retryable());
    assert_eq!(busy.get().write_state(), WriteState::NotApplied);
    backend.info().await.unwrap();
    let lost = backend.migrate(TimestampMs(0)).await.unwrap_err();
    assert_eq!((lost.is_retryable(), lost.write_state()), (false, WriteState::Unknown));
    assert_eq!((backend.calls(Verb::Info), backend.calls(Verb::Migrate)), (3, 1));
}

#[tokio::test]
async fn a_gate_holds_a_call_until_the_test_opens_it() {
    let (open, gate) = tokio::sync::oneshot::channel::<()>();
    let gate = Mutex::new(Some(gate));
    let backend = Arc::new(FaultyBackend::new(MemoryBackend::new(), move |_| {
        match gate.lock().unwrap().take() {
            Some(gate) => Fault::Before(Box::pin(async {
                gate.await.unwrap();
            })),
            None => Fault::None,
        }
    }));
    let held = tokio::spawn({
        let backend = backend.clone();
        async move { backend.info().await }
    });
    while backend.calls(Verb::Info) == 0 {
        tokio::task::yield_now().await;
    }
    backend.info().await.unwrap();
    assert!(!held.is_finished());
    open.send(()).unwrap();
    held.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_sink_tears_lies_and_loses_answers() {
    let sink = FaultySink::new(MapSink::default(), |call, name| match (call.verb, name) {
        (SinkVerb::PutIfAbsent, "torn") => SinkFault::Truncate(3),
        (SinkVerb::PutIfAbsent, "lost") => SinkFault::Common(Fault::LoseAnswer),
        (SinkVerb::PutIfAbsent, "lie") => SinkFault::Lie,
        _ => SinkFault::None,
    });
    let bytes = Bytes::from_static(b"abcdef");
    for (name, there) in [("torn", Some("abc")), ("lost", Some("abcdef"))] {
        let error = sink.put_if_absent(name, bytes.clone()).await.unwrap_err();
        assert_eq!(error.write_state(), WriteState::Unknown);
        assert_eq!(sink.get(name).await.unwrap(), there.map(Bytes::from));
    }
    assert_eq!(sink.put_if_absent("lie", bytes.clone()).await.unwrap(), PutOutcome::Exists);
    assert_eq!(sink.get("lie").await.unwrap(), None);
    assert_eq!(sink.put_if_absent("fine", bytes).await.unwrap(), PutOutcome::Created);
}
