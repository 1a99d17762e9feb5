//! What the database itself takes: for connecting, and for the rows of an import.

use std::path::Path;
use std::time::Instant;

use futures::TryStreamExt;
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use sqlx::{AssertSqlSafe, Connection as _, Executor, PgConnection, Row};

use crate::AnyError;
use crate::measure::{Subject, print_ms};

/// A connection and one row, with the driver alone. Of a server, of SQLite the first page.
pub(crate) async fn connect(subject: &Subject) -> Result<(), AnyError> {
    let started = Instant::now();
    match subject.url.as_deref().map(split) {
        None => {
            let file = Connection::open(subject.dir.join("catalog.db"))?;
            file.query_row("SELECT count(*) FROM dl_tables", [], |row| row.get::<_, i64>(0))?;
        }
        Some((url, _)) if url.starts_with("postgres") => {
            let mut server = PgConnection::connect(&url).await?;
            server.fetch_one("SELECT 1").await?;
        }
        Some(_) => {
            println!("{ABSENT}");
            return Ok(());
        }
    }
    print_ms(started);
    Ok(())
}

/// All rows of the catalog once more, into tables with the same indexes, in one durable transaction:
/// a loop with one prepared statement a table (SQLite), COPY (PostgreSQL). Reading them is not counted.
pub(crate) async fn bulk(subject: &Subject) -> Result<(), AnyError> {
    match subject.url.as_deref().map(split) {
        None => prepared_loop(&subject.dir),
        Some((url, prefix)) if url.starts_with("postgres") => copy(&url, &prefix).await,
        Some(_) => {
            println!("{ABSENT}");
            Ok(())
        }
    }
}

/// Not measured on this database.
const ABSENT: &str = "absent=1";

/// The URL without options, and the prefix of our tables.
fn split(url: &str) -> (String, String) {
    let (base, options) = url.split_once('?').unwrap_or((url, ""));
    let prefix = options.split('&').find_map(|option| option.strip_prefix("table_prefix="));
    (base.to_owned(), prefix.unwrap_or("dl_").to_owned())
}

fn prepared_loop(dir: &Path) -> Result<(), AnyError> {
    let source = Connection::open(dir.join("catalog.db"))?;
    let path = dir.join("bulk.db");
    let target = Connection::open(&path)?;
    target.pragma_update(None, "journal_mode", "wal")?;
    target.pragma_update(None, "synchronous", "full")?;
    target.pragma_update(None, "cache_size", -64 * 1024)?;
    let texts = |sql: &str| -> Result<Vec<String>, AnyError> {
        let mut statement = source.prepare(sql)?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    };
    let own = "sql IS NOT NULL AND name NOT LIKE 'sqlite_%'";
    for definition in
        texts(&format!("SELECT sql FROM sqlite_master WHERE {own} ORDER BY type DESC, rowid"))?
    {
        target.execute_batch(&definition)?;
    }
    let tables = texts(&format!("SELECT name FROM sqlite_master WHERE type = 'table' AND {own}"))?;
    // Once for the pages in memory, once for the time that reading takes.
    read(&source, &tables, |_, _| Ok(()))?;
    let started = Instant::now();
    read(&source, &tables, |_, _| Ok(()))?;
    let reading = started.elapsed();
    let started = Instant::now();
    target.execute_batch("BEGIN IMMEDIATE")?;
    read(&source, &tables, |table, row| {
        let marks = vec!["?"; row.len()].join(", ");
        let mut insert = target.prepare_cached(&format!("INSERT INTO {table} VALUES ({marks})"))?;
        insert.execute(params_from_iter(row)).map(drop)
    })?;
    target.execute_batch("COMMIT")?;
    let took = started.elapsed().saturating_sub(reading);
    println!("ms={}", took.as_secs_f64() * 1e3);
    drop(target);
    for suffix in ["", "-wal", "-shm"] {
        let file = dir.join(format!("bulk.db{suffix}"));
        if file.exists() {
            std::fs::remove_file(file)?;
        }
    }
    Ok(())
}

fn read(
    source: &Connection,
    tables: &[String],
    mut row: impl FnMut(&str, Vec<Value>) -> rusqlite::Result<()>,
) -> Result<(), AnyError> {
    for table in tables {
        let mut statement = source.prepare(&format!("SELECT * FROM {table}"))?;
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        while let Some(found) = rows.next()? {
            let values = (0..columns).map(|column| found.get(column));
            row(table, values.collect::<Result<_, _>>()?)?;
        }
    }
    Ok(())
}

async fn copy(url: &str, prefix: &str) -> Result<(), AnyError> {
    let mut server = PgConnection::connect(url).await?;
    let tables: Vec<String> = server
        .fetch_all(AssertSqlSafe(format!(
            "SELECT relname::text FROM pg_class WHERE relkind = 'r'
             AND pg_table_is_visible(oid) AND starts_with(relname::text, '{prefix}')"
        )))
        .await?
        .iter()
        .map(|row| row.get(0))
        .collect();
    let folder = tempfile::tempdir()?;
    for table in &tables {
        let like = format!("CREATE TABLE bulk_{table} (LIKE {table} INCLUDING ALL)");
        server.execute(AssertSqlSafe(like)).await?;
        let mut file = tokio::fs::File::create(folder.path().join(table)).await?;
        let mut rows =
            server.copy_out_raw(&format!("COPY {table} TO STDOUT (FORMAT binary)")).await?;
        while let Some(part) = rows.try_next().await? {
            tokio::io::AsyncWriteExt::write_all(&mut file, &part).await?;
        }
        tokio::io::AsyncWriteExt::flush(&mut file).await?;
    }
    let started = Instant::now();
    server.execute("BEGIN").await?;
    for table in &tables {
        let mut file = std::fs::File::open(folder.path().join(table))?;
        let mut to =
            server.copy_in_raw(&format!("COPY bulk_{table} FROM STDIN (FORMAT binary)")).await?;
        let mut part = vec![0; 1 << 20];
        loop {
            let read = std::io::Read::read(&mut file, &mut part)?;
            if read == 0 {
                break;
            }
            to.send(&part[..read]).await?;
        }
        to.finish().await?;
    }
    server.execute("COMMIT").await?;
    print_ms(started);
    for table in &tables {
        server.execute(AssertSqlSafe(format!("DROP TABLE bulk_{table}"))).await?;
    }
    Ok(())
}
