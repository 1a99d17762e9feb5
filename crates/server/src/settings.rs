//! How a service behaves.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use deltalakedb::Db;
use futures::future::BoxFuture;

/// What answers `/metrics`, in the text format of Prometheus.
pub trait Scrape: Send + Sync {
    /// The text.
    fn scrape<'a>(&'a self, db: &'a Db) -> BoxFuture<'a, String>;
}

/// Whether clients are asked who they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Authentication {
    /// By keys of the catalog ([`deltalakedb::access`]), if the address is one that other machines reach.
    #[default]
    IfOpen,
    /// By keys of the catalog.
    Keys,
    /// They are not.
    None,
}

/// How a service behaves. [`Settings::default`] has what is said at each field.
#[derive(Clone)]
#[non_exhaustive]
pub struct Settings {
    /// Whether clients are asked who they are. [`Authentication::IfOpen`].
    pub authentication: Authentication,
    /// Names by which clients may call the service, without a port; any, if `*` is among them. By themselves
    /// `localhost`, `127.0.0.1`, `::1`, and the address that it is bound to. So a page from elsewhere cannot reach
    /// a service of this machine by a name of its own.
    pub allowed_hosts: Vec<String>,
    /// Folders and URLs that tables may be created below. None: no table is created over HTTP.
    pub roots: Vec<String>,
    /// The name of the catalog for clients of Unity Catalog. `unity`.
    pub catalog_name: String,
    /// A request is answered within this time. 30 s.
    pub deadline: Duration,
    /// A list that is streamed ends within this time. 10 min.
    pub stream_deadline: Duration,
    /// So long a client may leave an answer unread. 30 s.
    pub write_timeout: Duration,
    /// The head of a request must be there within this time. 10 s.
    pub head_timeout: Duration,
    /// Requests that run when the service is told to stop may take this time. 30 s.
    pub grace: Duration,
    /// Most bytes of a request's body, unpacked. 32 MiB.
    pub max_body_bytes: usize,
    /// Connections at a time; others wait. 1,024.
    pub max_connections: usize,
    /// What answers `/metrics`; without it there is no such route.
    pub metrics: Option<Arc<dyn Scrape>>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            authentication: Authentication::default(),
            allowed_hosts: Vec::new(),
            roots: Vec::new(),
            catalog_name: "unity".to_owned(),
            deadline: Duration::from_secs(30),
            stream_deadline: Duration::from_secs(600),
            write_timeout: Duration::from_secs(30),
            head_timeout: Duration::from_secs(10),
            grace: Duration::from_secs(30),
            max_body_bytes: 32 << 20,
            max_connections: 1_024,
            metrics: None,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("authentication", &self.authentication)
            .field("allowed_hosts", &self.allowed_hosts)
            .field("roots", &self.roots)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
