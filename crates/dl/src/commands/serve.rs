//! `dl serve`

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use deltalakedb::{Db, PublisherConfig};
use deltalakedb_server::{Authentication, Scrape, Server, Settings};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::json;

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::listen::Scraper;

/// Arguments of `dl serve`.
#[derive(Debug, Args)]
#[command(after_help = "\
Programs in any language list, read, create and change tables by name. /openapi.json describes all
routes, /health, /ready and /metrics are for those who watch. Any number of services may serve one
catalog. On an address that other machines reach, clients show a key (`dl keys create`), and may do
what their roles allow (`dl access grant`). On loopback they are asked with --authenticate only.
Keys are sent as they are: put TLS before the service.

On Ctrl-C or SIGTERM no new connection is taken; requests that run end, within --grace.

Examples:
  dl serve
  dl serve --listen 127.0.0.1:8080 --root /lake --publish
  curl http://127.0.0.1:8080/v1/tables
  curl 'http://127.0.0.1:8080/v1/tables/sales.orders/files?version=3'")]
pub(crate) struct Serve {
    /// Address to listen on; port 0 is any that is free
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    listen: String,
    /// Ask clients for a key on loopback, too
    #[arg(long)]
    authenticate: bool,
    /// Ask nobody, also on an address that other machines reach: something before it asks
    #[arg(long, conflicts_with = "authenticate")]
    without_authentication: bool,
    /// A name by which clients may call the service, besides localhost and its address; '*' is any
    #[arg(long = "allow-host", value_name = "NAME")]
    allowed_hosts: Vec<String>,
    /// A folder or URL that clients may create tables below; without one they create none
    #[arg(long = "root", value_name = "PATH|URL")]
    roots: Vec<String>,
    /// The catalog's name for clients of Unity Catalog
    #[arg(long, value_name = "NAME", default_value = "unity")]
    catalog_name: String,
    /// Publish commits from this process, too: those of all programs
    #[arg(long)]
    publish: bool,
    /// A request is answered within this time
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    deadline: u32,
    /// How long requests may run after Ctrl-C
    #[arg(long, value_name = "SECONDS", default_value_t = 25, value_parser = clap::value_parser!(u32).range(0..=3600))]
    grace: u32,
    /// Largest body of a request, MiB
    #[arg(long, value_name = "MIB", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1024))]
    max_body: u32,
}

impl Scrape for Scraper {
    fn scrape<'a>(&'a self, db: &'a Db) -> BoxFuture<'a, String> {
        Scraper::scrape(self, db).boxed()
    }
}

impl Serve {
    pub(crate) async fn run(&self, context: &Context) -> Result<()> {
        // Before the catalog is opened: what it counts goes to the recorder.
        let scraper = Scraper::install()?;
        tokio::spawn(scraper.upkeep());
        let db = context.db().await?;
        let (db, worker) = if self.publish {
            let config = context.publisher_config(PublisherConfig::default());
            let (db, worker) = db.publish_in_background(config);
            (db, Some(worker))
        } else {
            (db, None)
        };
        let mut settings = Settings::default();
        settings.authentication = match (self.authenticate, self.without_authentication) {
            (true, _) => Authentication::Keys,
            (false, true) => Authentication::None,
            (false, false) => Authentication::IfOpen,
        };
        settings.allowed_hosts.clone_from(&self.allowed_hosts);
        settings.roots.clone_from(&self.roots);
        settings.catalog_name.clone_from(&self.catalog_name);
        settings.deadline = Duration::from_secs(u64::from(self.deadline));
        settings.grace = Duration::from_secs(u64::from(self.grace));
        settings.max_body_bytes = usize::try_from(self.max_body).unwrap_or(1) << 20;
        settings.metrics = Some(Arc::new(scraper));
        // A worker finishes the version at hand after that.
        context.serves(settings.grace + Duration::from_secs(10));

        let server = Server::bind(db.clone(), &self.listen, settings).await?;
        let address = server.address();
        if context.out.is_json() {
            context.out.document(&json!({ "listening": format!("http://{address}") }))?;
        } else {
            context.out.hint(format!("Listening on http://{address}"));
        }
        if server.asks() && !address.ip().is_loopback() {
            context.out.warn(
                "clients send their keys as they are: let them come through a proxy that has TLS",
            );
        }
        let mut stop = context.stop();
        let stopped = async move {
            // The sender is gone: the program ends.
            let _ = stop.wait_for(|stop| *stop).await;
        };
        let finished = server.serve(stopped).await;
        if let Some(worker) = worker {
            worker.stop().await?;
        }
        db.close().await?;
        if finished {
            return Ok(());
        }
        Err(Failure::Interrupted(
            "requests that still ran were cut off: their clients send them again".to_owned(),
        ))
    }
}
