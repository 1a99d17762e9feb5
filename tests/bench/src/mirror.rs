//! Figures of publishing: rates, lag, checkpoints.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use deltalakedb::Db;
use deltalakedb::core::catalog::ChangeTarget;
use deltalakedb::core::ids::{At, TableId, TableRef};
use deltalakedb::core::model::{MirrorMode, MirrorState};
use deltalakedb::core::pages::each_page;
use deltalakedb::mirror::checkpoint::write_checkpoint;
use deltalakedb::mirror::publish::{PublisherConfig, wait_published};
use deltalakedb::mirror::sink::open_sink;
use deltalakedb::mirror::store::normalize_location;
use deltalakedb_test_servers::{EmulatedStore, ObjectStore, ObjectStoreKind};
use futures::TryStreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::AnyError;
use crate::measure::{TABLE, batch, print_ms, uri};

/// Added to each way between us and the emulator: half of a round trip.
const ONE_WAY: Duration = Duration::from_millis(10);

/// A checkpoint of the imported table, into a folder of its own.
pub(crate) async fn checkpoint(dir: &Path) -> Result<(), AnyError> {
    let db = Db::open(&uri(dir)).await?;
    let to = tempfile::tempdir_in(dir)?;
    let sink = open_sink(&normalize_location(&to.path().to_string_lossy())?, &BTreeMap::new())?;
    let started = Instant::now();
    let snapshot = db.snapshot(&TableRef::Name(TABLE.parse()?), At::Head).await?;
    let info = write_checkpoint(db.backend().as_ref(), &snapshot, sink.as_ref(), false).await?;
    print_ms(started);
    println!("mb={}", info.size_bytes / 1_000_000);
    if info.add_files == snapshot.num_files {
        Ok(())
    } else {
        Err("files are missing in the checkpoint".into())
    }
}

/// Where tables are published to: this machine, or an emulator with a network before it.
enum Target {
    Local,
    S3 { _server: ObjectStore, address: EmulatedStore },
}

impl Target {
    async fn open(what: &str) -> Result<Target, AnyError> {
        if what == "local" {
            return Ok(Target::Local);
        }
        let server = ObjectStore::start(ObjectStoreKind::S3)?;
        let straight = EmulatedStore { kind: ObjectStoreKind::S3, endpoint: server.endpoint() };
        straight.make_bucket("bench")?;
        let endpoint = format!("http://127.0.0.1:{}", slow_network(server.port()).await?);
        Ok(Target::S3 { _server: server, address: EmulatedStore { endpoint, ..straight } })
    }

    async fn create(&self, db: &Db, dir: &Path, name: &str) -> Result<TableId, AnyError> {
        let (location, options) = match self {
            Target::Local => {
                (normalize_location(&dir.join(name).to_string_lossy())?, BTreeMap::new())
            }
            Target::S3 { address, .. } => {
                // Secrets are kept by reference only.
                let secret = dir.join("secret");
                std::fs::write(&secret, "test")?;
                let mut options: BTreeMap<String, String> = address.options().into_iter().collect();
                let reference = format!("file:{}", secret.display());
                options.insert("aws_secret_access_key".to_owned(), reference);
                (format!("{}/{name}", address.url("bench")), options)
            }
        };
        let schema = r#"{"type":"struct","fields":[{"name":"id","type":"long","nullable":true,"metadata":{}}]}"#;
        let protocol = serde_json::json!({"protocol":
            {"minReaderVersion": 1, "minWriterVersion": 2}});
        let metadata = serde_json::json!({"metaData": {"id": name, "schemaString": schema,
            "format": {"provider": "parquet", "options": {}}, "partitionColumns": [],
            "configuration": {}}});
        let target = ChangeTarget::Create {
            name: format!("bench.{name}").parse()?,
            location,
            storage_options: options,
            mirror: MirrorMode::Active,
            fence: true,
        };
        let report = db.commit(batch(target, format!("{protocol}\n{metadata}\n"))).await?;
        Ok(report.tables.first().ok_or("nothing was committed")?.table_id)
    }
}

async fn append(db: &Db, table: TableId, n: u64) -> Result<(), AnyError> {
    let add = serde_json::json!({"add": {
        "path": format!("part-{n}.parquet"), "partitionValues": {}, "size": 1000,
        "modificationTime": 1, "dataChange": true,
        "stats": "{\"numRecords\":10,\"minValues\":{\"id\":1},\"maxValues\":{\"id\":10},\"nullCount\":{\"id\":0}}"}});
    let target = ChangeTarget::Existing { table: TableRef::Id(table), read_version: None };
    db.commit(batch(target, format!("{add}\n"))).await?;
    Ok(())
}

/// How fast waiting one-file commits are published: `versions` of each of `tables`.
pub(crate) async fn publish(
    dir: &Path,
    what: &str,
    tables: u64,
    versions: u64,
) -> Result<(), AnyError> {
    let target = Target::open(what).await?;
    let db = Db::create(&uri(dir)).await?;
    for t in 0..tables {
        let name = format!("{what}_{tables}_{t}");
        let id = target.create(&db, dir, &name).await?;
        for n in 1..versions {
            append(&db, id, n).await?;
        }
    }
    let config = PublisherConfig { concurrency: 16, ..PublisherConfig::default() };
    let started = Instant::now();
    let report = db.publisher(config).run_once(None).await?;
    let seconds = started.elapsed().as_secs_f64();
    if report.published != tables * versions || !report.failures.is_empty() {
        return Err(format!("not all was published: {report:?}").into());
    }
    #[allow(clippy::cast_precision_loss, reason = "thousands")]
    let rate = report.published as f64 / seconds;
    println!("versions_per_s={rate}");
    Ok(())
}

/// How long versions wait while commits come at a steady rate.
pub(crate) async fn lag(
    dir: &Path,
    what: &str,
    tables: u64,
    per_second: u32,
    seconds: u64,
) -> Result<(), AnyError> {
    let target = Target::open(what).await?;
    let db = Db::create(&uri(dir)).await?;
    let mut ids = Vec::new();
    for t in 0..tables {
        ids.push(target.create(&db, dir, &format!("lag_{what}_{tables}_{t}")).await?);
    }
    let config = PublisherConfig { concurrency: 16, ..PublisherConfig::default() };
    let (db, mirror) = db.publish_in_background(config);
    let mut tick = tokio::time::interval(Duration::from_secs(1) / per_second);
    let started = Instant::now();
    let mut committers = tokio::task::JoinSet::new();
    let mut n = 0_u64;
    while started.elapsed() < Duration::from_secs(seconds) {
        tick.tick().await;
        let id = *ids.get(usize::try_from(n % tables)?).ok_or("no table")?;
        let db = db.clone();
        committers.spawn(async move { append(&db, id, n).await });
        n += 1;
        while let Some(done) = committers.try_join_next() {
            done??;
        }
    }
    while let Some(done) = committers.join_next().await {
        done??;
    }
    let mut waits: Vec<i64> = Vec::new();
    for id in ids {
        wait_published(&db, &TableRef::Id(id), None, Some(Duration::from_secs(600))).await?;
        let state = Some(MirrorState::Complete);
        let mut pages = each_page(|after| db.backend().mirror_rows(Some(id), state, after, 1_000));
        while let Some(rows) = pages.try_next().await? {
            for row in rows {
                let published = row.published_at.ok_or("published, and not said when")?;
                waits.push(published.0 - row.enqueued_at.0);
            }
        }
    }
    mirror.stop().await?;
    waits.sort_unstable();
    for (name, percent) in [("p50", 50), ("p95", 95), ("p99", 99), ("max", 100)] {
        let at = (waits.len() * percent / 100).min(waits.len() - 1);
        println!("{name}_ms={}", waits.get(at).ok_or("no versions")?);
    }
    println!("commits={n}");
    Ok(())
}

/// A proxy that holds everything back for a while on both ways, without holding up what follows.
async fn slow_network(port: u16) -> Result<u16, AnyError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let own = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else {
                    return;
                };
                for stream in [&client, &server] {
                    // A proxy without it is only slower.
                    let _ = stream.set_nodelay(true);
                }
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::join!(delayed(from_client, to_server), delayed(from_server, to_client));
            });
        }
    });
    Ok(own)
}

async fn delayed(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin) {
    let (send, mut held) = tokio::sync::mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let read = async move {
        let mut buffer = vec![0; 65_536];
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            if send
                .send((Instant::now() + ONE_WAY, buffer.get(..n).unwrap_or_default().to_vec()))
                .is_err()
            {
                break;
            }
        }
    };
    let write = async {
        while let Some((at, bytes)) = held.recv().await {
            tokio::time::sleep_until(at.into()).await;
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
        // The other side sees the end as an error, or as the end.
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}
