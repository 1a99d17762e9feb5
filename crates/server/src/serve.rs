//! The address, the connections, and their end.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router, middleware};
use deltalakedb::{CatalogError, Db, Result, WriteState};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tower::Layer;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::decompression::RequestDecompressionLayer;

use crate::auth::Keys;
use crate::problem::Failed;
use crate::routes::router;
use crate::settings::{Authentication, Settings};
use crate::state::Service;
use crate::watch::{Gate, Hosts, pass};

/// Largest head of a request, bytes.
const HEAD_BYTES: usize = 64 * 1024;
/// Most headers of a request.
const HEADERS: usize = 100;
/// Pause after a connection that could not be taken, as when there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A service that is bound to an address.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    asks: bool,
    router: Router,
    settings: Settings,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Server {
    /// Binds an address, as `127.0.0.1:8080`; port 0 is any that is free.
    ///
    /// # Errors
    /// `invalid_input` for a root that is none; `unsupported` if clients are to be asked who they are, and the database
    /// keeps no keys; `unavailable` if the address cannot be bound.
    pub async fn bind(db: Db, address: &str, settings: Settings) -> Result<Server> {
        let cannot = |error: io::Error| {
            let text =
                format!("cannot listen on '{address}' (host:port, as 127.0.0.1:8080): {error}");
            CatalogError::failed(text, WriteState::NotApplied)
        };
        // Asked before it is bound: not even for a moment is it open.
        let found: Vec<SocketAddr> =
            tokio::net::lookup_host(address).await.map_err(cannot)?.collect();
        let is_open = found.iter().any(|found| !found.ip().is_loopback());
        let asks = match settings.authentication {
            Authentication::IfOpen => is_open,
            Authentication::Keys => true,
            Authentication::None => false,
        };
        let keys = if asks {
            // A database without a registry has no keys: better said now than to each client.
            db.registry_revision().await?;
            Some(Arc::new(Keys::default()))
        } else {
            None
        };
        let listener = TcpListener::bind(found.as_slice()).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let hosts = Hosts::new(&settings.allowed_hosts, address);
        let service = Service::new(db, settings.clone())?;
        let gate = Gate { service: service.clone(), hosts, keys };
        let router = router(service)
            .layer(DefaultBodyLimit::max(settings.max_body_bytes))
            .layer(RequestDecompressionLayer::new())
            .layer(CatchPanicLayer::custom(panicked))
            .layer(middleware::from_fn_with_state(gate, pass))
            .layer(CompressionLayer::new());
        Ok(Server { listener, address, asks, router, settings })
    }

    /// Whether clients are asked who they are.
    #[must_use]
    pub fn asks(&self) -> bool {
        self.asks
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop` ends; then takes no more connections, and lets requests end that run, within
    /// [`grace`](Settings::grace). Whether all of them did.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> bool {
        let Server { listener, router, settings, .. } = self;
        let graceful = GracefulShutdown::new();
        let slots = Arc::new(Semaphore::new(settings.max_connections));
        let mut stop = std::pin::pin!(stop);
        loop {
            // Others wait in the queue of the system.
            let slot = tokio::select! {
                slot = Arc::clone(&slots).acquire_owned() => slot,
                () = &mut stop => break,
            };
            let Ok(slot) = slot else { break };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut stop => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection was not taken");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Small answers go at once.
            let _ = stream.set_nodelay(true);
            let mut stream = TimeoutStream::new(stream);
            stream.set_write_timeout(Some(settings.write_timeout));
            let service = TowerToHyperService::new(Extension(peer).layer(router.clone()));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(settings.head_timeout)
                .max_buf_size(HEAD_BYTES)
                .max_headers(HEADERS)
                .serve_connection(TokioIo::new(Box::pin(stream)), service);
            let connection = graceful.watch(connection);
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection ended early");
                }
                drop(slot);
            });
        }
        drop(listener);
        tokio::time::timeout(settings.grace, graceful.shutdown()).await.is_ok()
    }
}

/// A defect of ours: the request fails, and the service goes on.
fn panicked(_: Box<dyn Any + Send>) -> Response {
    let text = "the program has a defect: its log says where";
    Failed::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", text).into_response()
}
