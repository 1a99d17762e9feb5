//! Spans that wait to be sent: a bounded queue, and a thread of its own that empties it.
//!
//! The SDK has such a queue too. It tells of spans that it dropped only in a log of its own, and its thread cannot drive a
//! client that needs a runtime, or cut a request short when the process ends.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use deltalakedb::config::OtlpSettings;
use opentelemetry::{Context, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use tokio::sync::{mpsc, watch};

use super::send::{Lost, Sender};
use crate::output::Output;

/// Spans that wait at most.
const ROOM: usize = 2_048;
/// Spans of one request.
const BATCH: usize = 512;
/// How long a span waits for others.
const DELAY: Duration = Duration::from_secs(1);
/// Longest text of an attribute, bytes.
const LONGEST: usize = 256;
/// A warning is repeated after so long.
const AGAIN: Duration = Duration::from_secs(60);

/// The queue, as the SDK sees it.
pub(super) struct Queue {
    spans: mpsc::Sender<SpanData>,
    /// Spans that found no room.
    dropped: Arc<AtomicU64>,
    /// Becomes the moment by which all is to be sent.
    end: watch::Sender<Option<Instant>>,
    ended: Mutex<Receiver<()>>,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl Queue {
    pub(super) fn start(settings: OtlpSettings, resource: Resource, out: Output) -> Queue {
        let (spans, waiting) = mpsc::channel(ROOM);
        let (end, told) = watch::channel(None);
        let (done, ended) = channel();
        let dropped = Arc::new(AtomicU64::new(0));
        let mut worker = Worker {
            waiting,
            end: told,
            dropped: Arc::clone(&dropped),
            dropped_told: false,
            teller: Teller { out, lost: 0, told_at: None, is_long: false },
        };
        let thread = std::thread::Builder::new().name("dl-otlp".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(worker.run(settings, resource)),
                Err(error) => worker.teller.tell(&format!("cannot start: {error}"), 0),
            }
            // Nobody waits: the process has ended.
            let _ = done.send(());
        });
        if let Err(error) = thread {
            out.warn(format!("traces are not sent: cannot start a thread: {error}"));
        }
        Queue { spans, dropped, end, ended: Mutex::new(ended) }
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        // Whoever ends a span never waits.
        if span.span_context.is_sampled() && self.spans.try_send(span).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        // A worker that has ended already needs no telling.
        let _ = self.end.send(Some(Instant::now() + timeout));
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        match ended.recv_timeout(timeout + Duration::from_millis(100)) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Ok(()),
            Err(RecvTimeoutError::Timeout) => Err(OTelSdkError::Timeout(timeout)),
        }
    }
}

/// What empties the queue.
struct Worker {
    waiting: mpsc::Receiver<SpanData>,
    end: watch::Receiver<Option<Instant>>,
    dropped: Arc<AtomicU64>,
    dropped_told: bool,
    teller: Teller,
}

impl Worker {
    async fn run(&mut self, settings: OtlpSettings, resource: Resource) {
        let sender = match Sender::new(settings, &resource, self.end.clone()) {
            Ok(sender) => sender,
            Err(why) => return self.teller.tell(&why, 0),
        };
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let ends = self.collect(&mut batch).await;
            while !batch.is_empty() {
                for span in &mut batch {
                    bound(span);
                }
                let spans = u64::try_from(batch.len()).unwrap_or(u64::MAX);
                if let Err(Lost { why, rejected }) = sender.send(std::mem::take(&mut batch)).await {
                    self.teller.lost += rejected.unwrap_or(spans) + self.too_late();
                    self.teller.tell(&why, self.dropped.load(Ordering::Relaxed));
                }
                self.tell_dropped();
                if ends {
                    while let (true, Ok(span)) = (batch.len() < BATCH, self.waiting.try_recv()) {
                        batch.push(span);
                    }
                }
            }
            if ends {
                self.tell_dropped();
                let lost = self.teller.lost + self.dropped.load(Ordering::Relaxed);
                tracing::debug!(lost, "traces are sent");
                return;
            }
        }
    }

    /// Takes spans until there are enough, or until the first one has waited long enough. True: the process ends.
    async fn collect(&mut self, batch: &mut Vec<SpanData>) -> bool {
        let Worker { waiting, end, .. } = self;
        // The sender of a moment lives as long as that of spans.
        let mut told = std::pin::pin!(async { end.wait_for(Option::is_some).await.is_err() });
        let mut ends = tokio::select! {
            biased;
            _ = &mut told => true,
            n = waiting.recv_many(batch, BATCH) => n == 0,
        };
        let enough = tokio::time::sleep(DELAY);
        tokio::pin!(enough);
        while !ends && batch.len() < BATCH {
            let room = BATCH - batch.len();
            tokio::select! {
                biased;
                _ = &mut told => ends = true,
                () = &mut enough => break,
                n = waiting.recv_many(batch, room) => ends = n == 0,
            }
        }
        while let (true, Ok(span)) = (ends && batch.len() < BATCH, waiting.try_recv()) {
            batch.push(span);
        }
        ends
    }

    /// Spans that wait though the moment by which all is to be sent has passed: none is tried any more.
    fn too_late(&mut self) -> u64 {
        let mut spans = 0;
        let passed = self.end.borrow().is_some_and(|at| Instant::now() >= at);
        while passed && self.waiting.try_recv().is_ok() {
            spans += 1;
        }
        spans
    }

    /// That spans found no room: once.
    fn tell_dropped(&mut self) {
        let dropped = self.dropped.load(Ordering::Relaxed);
        if dropped > 0 && !std::mem::replace(&mut self.dropped_told, true) {
            self.teller.tell_always(&format!(
                "{dropped} spans found no room among {ROOM} that waited to be sent, and are lost. Send a part of the \
                 traces (logging.otlp.sample_ratio), or look why the receiver is slow"
            ));
        }
    }
}

/// Tells of what is lost, now and then.
struct Teller {
    out: Output,
    /// Spans that were not taken.
    lost: u64,
    told_at: Option<Instant>,
    /// Whether it was told before.
    is_long: bool,
}

impl Teller {
    fn tell(&mut self, why: &str, dropped: u64) {
        if self.told_at.is_none_or(|at| at.elapsed() >= AGAIN) {
            self.told_at = Some(Instant::now());
            let lost = self.lost + dropped;
            self.tell_always(&format!("{why}. {lost} spans are lost so far"));
        }
    }

    /// The first time a person is told, whatever is logged.
    fn tell_always(&mut self, why: &str) {
        tracing::warn!(target: "dl::traces", "traces are not sent: {why}");
        if !std::mem::replace(&mut self.is_long, true) {
            self.out.warn(format!("traces are not sent: {why}"));
        }
    }
}

/// Bounds the texts of a span, and gives it the name that lists of spans show.
fn bound(span: &mut SpanData) {
    let field = |name: &str| {
        let mut attributes = span.attributes.iter();
        attributes.find(|a| a.key.as_str() == name).map(|a| a.value.as_str().into_owned())
    };
    let more = match span.name.as_ref() {
        "dl" => field("command"),
        "call" => field("statement"),
        "store" => field("call"),
        "maintain_step" => field("step"),
        _ => None,
    };
    if let Some(more) = more {
        span.name = format!("{} {more}", span.name).into();
    }
    for attribute in &mut span.attributes {
        if let Value::String(text) = &attribute.value
            && text.as_str().len() > LONGEST
        {
            let mut end = LONGEST;
            while !text.as_str().is_char_boundary(end) {
                end -= 1;
            }
            attribute.value = text.as_str().get(..end).unwrap_or_default().to_owned().into();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use opentelemetry::KeyValue;
    use opentelemetry::trace::{Span as _, Tracer as _, TracerProvider as _};
    use opentelemetry_sdk::trace::SdkTracerProvider;

    use super::*;
    use crate::output::Format;

    fn settings(url: &str) -> OtlpSettings {
        let url = url.to_owned();
        let variable =
            move |name: &str| (name == "OTEL_EXPORTER_OTLP_ENDPOINT").then(|| url.clone());
        let folder = std::path::Path::new("/nonexistent");
        deltalakedb::Config::load_from(&variable, folder).unwrap().otlp().unwrap()
    }

    #[test]
    fn spans_beyond_the_queue_are_counted_and_nobody_waits() {
        // It takes connections, and never answers.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let resource = Resource::builder_empty().build();
        let out = Output::new(Format::Table, true);
        let queue = Queue::start(settings(&url), resource.clone(), out);
        let dropped = Arc::clone(&queue.dropped);
        let provider =
            SdkTracerProvider::builder().with_span_processor(queue).with_resource(resource).build();
        let tracer = provider.tracer("test");
        let begun = Instant::now();
        for _ in 0..10_000 {
            tracer.start("call").end();
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        // Those that wait, and those of the requests that are under way.
        let most = u64::try_from(ROOM + 2 * BATCH).unwrap();
        assert!(dropped.load(Ordering::Relaxed) >= 10_000 - most, "{dropped:?}");
        let begun = Instant::now();
        let _ = provider.shutdown_with_timeout(Duration::from_millis(500));
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    }

    #[test]
    fn texts_are_bounded_at_a_character() {
        let mut span = {
            let kept = Arc::new(Mutex::new(Vec::new()));
            #[derive(Debug)]
            struct Keep(Arc<Mutex<Vec<SpanData>>>);
            impl SpanProcessor for Keep {
                fn on_start(&self, _: &mut Span, _: &Context) {}
                fn on_end(&self, span: SpanData) {
                    self.0.lock().unwrap().push(span);
                }
                fn force_flush(&self) -> OTelSdkResult {
                    Ok(())
                }
                fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
                    Ok(())
                }
            }
            let keep = Keep(Arc::clone(&kept));
            let provider = SdkTracerProvider::builder().with_span_processor(keep).build();
            let mut span = provider.tracer("test").start("call");
            span.set_attribute(KeyValue::new("statement", "commit"));
            span.set_attribute(KeyValue::new("table", format!("a{}", "ü".repeat(400))));
            span.end();
            kept.lock().unwrap().pop().unwrap()
        };
        bound(&mut span);
        assert_eq!(span.name, "call commit");
        let table = span.attributes.iter().find(|a| a.key.as_str() == "table").unwrap();
        assert_eq!(table.value.as_str(), format!("a{}", "ü".repeat(127)));
    }
}
