//! What a worker tells those who watch it, over HTTP: `/health`, `/ready`, `/metrics`.
//!
//! All of it is bounded: connections, the size of a request's head, the time of a connection and of each look
//! at the database. A connection has one request. No answer holds a secret: texts of errors hold none.

mod process;
mod scrape;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use deltalakedb::Db;
use deltalakedb::mirror::publish::Publisher;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore, watch};

use crate::failure::{Failure, Result};
pub(crate) use scrape::Scraper;

/// Connections at a time. Others are closed at once.
const MOST_CONNECTIONS: usize = 64;
/// A connection ends after this time in any case.
const CONNECTION_LIMIT: Duration = Duration::from_secs(10);
/// The head of a request must be there within this time.
const HEAD_LIMIT: Duration = Duration::from_secs(3);
/// Largest head of a request, bytes.
const HEAD_BYTES: usize = 16 * 1024;
/// Most headers of a request.
const HEADERS: usize = 64;
/// So long the database may take to answer.
const PING_LIMIT: Duration = Duration::from_secs(2);
/// So long an answer about readiness holds: probes must not become load.
const READY_HOLDS: Duration = Duration::from_secs(1);
/// A worker that has not had its turn for so many of its intervals does not work.
const MISSED_TURNS: u32 = 5;
/// Pause after a connection that could not be taken, as when there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Answer = Response<Full<Bytes>>;

/// A worker that has its turns.
pub(crate) trait Turns: Send + Sync {
    /// How long ago it had the last one.
    fn since_last(&self) -> Duration;
    /// How often it has one at least.
    fn interval(&self) -> Duration;
}

impl Turns for Publisher {
    fn since_last(&self) -> Duration {
        self.since_last_turn().unwrap_or_default()
    }

    fn interval(&self) -> Duration {
        Publisher::interval(self)
    }
}

/// A loop that tells when it goes round.
#[derive(Debug)]
pub(crate) struct Pulse {
    interval: Duration,
    made: Instant,
    /// Milliseconds after it was made.
    last: AtomicU64,
}

impl Pulse {
    /// One that goes round so often at least.
    pub(crate) fn new(interval: Duration) -> Pulse {
        Pulse { interval, made: Instant::now(), last: AtomicU64::new(0) }
    }

    /// It goes round.
    pub(crate) fn beat(&self) {
        let ms = u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(ms, Ordering::Relaxed);
    }
}

impl Turns for Pulse {
    fn since_last(&self) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.made.elapsed().saturating_sub(last)
    }

    fn interval(&self) -> Duration {
        self.interval
    }
}

/// An address that is bound, and the recorder of what is counted from now on.
pub(crate) struct Listener {
    listener: TcpListener,
    scraper: Scraper,
}

impl Listener {
    /// Binds an address, and installs the recorder: to be called before a catalog is opened.
    pub(crate) async fn bind(address: &str) -> Result<Listener> {
        let listener = TcpListener::bind(address).await.map_err(|e| {
            Failure::io(format!("cannot listen on '{address}' (host:port, as 127.0.0.1:9464)"), e)
        })?;
        Ok(Listener { listener, scraper: Scraper::install()? })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        self.listener.local_addr().map_err(|e| Failure::io("cannot tell the bound address", e))
    }

    /// Answers until told to stop.
    pub(crate) async fn serve(
        self,
        db: Db,
        turns: Arc<dyn Turns>,
        mut stop: watch::Receiver<bool>,
    ) {
        let upkeep = self.scraper.upkeep();
        let watcher =
            Arc::new(Watcher { db, turns, scraper: self.scraper, ready: Mutex::default() });
        let slots = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        let accept = async {
            loop {
                match self.listener.accept().await {
                    Ok((stream, _)) => {
                        // Too many: the connection is closed.
                        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
                        let watcher = Arc::clone(&watcher);
                        tokio::spawn(async move {
                            connection(watcher, stream).await;
                            drop(slot);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection was not taken");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = accept => {}
            () = upkeep => {}
            // The sender is gone: the program ends.
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }
}

async fn connection(watcher: Arc<Watcher>, stream: TcpStream) {
    let service = service_fn(move |request: Request<Incoming>| {
        let watcher = Arc::clone(&watcher);
        async move { Ok::<_, Infallible>(watcher.answer(request.method(), request.uri().path()).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_LIMIT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a request was not answered"),
        Err(_) => tracing::debug!("a connection took too long"),
    }
}

/// Whether the database was ready when it was asked last.
struct Readiness {
    at: Instant,
    reason: Option<Value>,
}

struct Watcher {
    db: Db,
    turns: Arc<dyn Turns>,
    scraper: Scraper,
    ready: Mutex<Option<Readiness>>,
}

impl Watcher {
    async fn answer(&self, method: &Method, path: &str) -> Answer {
        if method != Method::GET && method != Method::HEAD {
            let body = json!({"error": "only GET and HEAD"});
            let mut answer = document(StatusCode::METHOD_NOT_ALLOWED, &body);
            answer
                .headers_mut()
                .insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        match path {
            "/health" => self.health(),
            "/ready" => self.ready().await,
            "/metrics" => text(self.scraper.scrape(&self.db).await),
            _ => document(
                StatusCode::NOT_FOUND,
                &json!({"error": "no such path", "paths": ["/health", "/ready", "/metrics"]}),
            ),
        }
    }

    fn health(&self) -> Answer {
        let since = self.turns.since_last();
        let limit = self.turns.interval().saturating_mul(MISSED_TURNS);
        let seconds = since.as_secs_f64();
        if since <= limit {
            return document(
                StatusCode::OK,
                &json!({"status": "ok", "seconds_since_turn": seconds}),
            );
        }
        let reason = format!(
            "the worker has not had its turn for {seconds:.1} s, more than {MISSED_TURNS} of its intervals"
        );
        document(StatusCode::SERVICE_UNAVAILABLE, &json!({"status": "stuck", "reason": reason}))
    }

    async fn ready(&self) -> Answer {
        let mut kept = self.ready.lock().await;
        let known = kept.as_ref().filter(|known| known.at.elapsed() < READY_HOLDS);
        let reason = if let Some(known) = known {
            known.reason.clone()
        } else {
            let asked = self.db.ping(PING_LIMIT).await;
            let reason = asked.err().map(|e| json!({"code": e.code(), "reason": e.to_string()}));
            *kept = Some(Readiness { at: Instant::now(), reason: reason.clone() });
            reason
        };
        match reason {
            None => document(StatusCode::OK, &json!({"status": "ready"})),
            Some(mut reason) => {
                if let Some(fields) = reason.as_object_mut() {
                    fields.insert("status".to_owned(), "not ready".into());
                }
                document(StatusCode::SERVICE_UNAVAILABLE, &reason)
            }
        }
    }
}

fn document(status: StatusCode, body: &Value) -> Answer {
    answer(status, "application/json", format!("{body}\n"))
}

fn text(body: String) -> Answer {
    answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body)
}

fn answer(status: StatusCode, kind: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    answer
}
