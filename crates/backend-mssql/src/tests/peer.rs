//! A scripted TDS server over `tokio::io::duplex`: it speaks the protocol
//! (<https://learn.microsoft.com/openspecs/windows_protocols/ms-tds>) as far as the driver uses
//! it, keeps what it was asked, and answers what a script says.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::session::stream::{Dial, Io};

const PRELOGIN: u8 = 0x12;
const LOGIN: u8 = 0x10;
const BATCH: u8 = 1;
const RPC: u8 = 3;
const ATTENTION: u8 = 6;
const BULK: u8 = 7;
const TRANSACTION: u8 = 14;
const DONE: u8 = 0xFD;
const DONE_PROC: u8 = 0xFE;
const DONE_IN_PROC: u8 = 0xFF;

/// A value in a parameter or a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
    /// A null that has the type of a 64-bit integer.
    NullInt,
    /// A null without a type.
    Null,
}

/// How a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Batch,
    /// `sp_executesql`.
    Rpc,
    Bulk,
    Attention,
    TransactionManager,
}

/// What the driver asked.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Which connection, from 0.
    pub(crate) connection: usize,
    pub(crate) kind: Kind,
    pub(crate) sql: String,
    /// `@P1 bigint,@P2 nvarchar(4000)`.
    pub(crate) declared: String,
    pub(crate) values: Vec<Value>,
}

/// A result set: names of columns, and rows.
#[derive(Debug, Clone)]
pub(crate) struct Set(pub(crate) Vec<&'static str>, pub(crate) Vec<Vec<Value>>);

/// What is answered.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Sets(Vec<Set>),
    /// An error's number and class.
    Error(u32, u8),
    /// Never anything.
    Stall,
    /// The connection is closed.
    Close,
}

/// The server.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    connections: AtomicUsize,
    state: Arc<State>,
    /// Begins with TLS, as TDS 8.0 ("strict") does.
    tls: Option<Arc<ServerConfig>>,
}

#[derive(Debug, Default)]
struct State {
    asked: Mutex<Vec<Request>>,
    hung_up: AtomicUsize,
    script: Mutex<VecDeque<Reply>>,
}

impl Peer {
    /// What is answered next, in this order, to requests that decide or read: those of the
    /// session itself (version, begin, commit, rollback, recycle) have answers of their own,
    /// unless [`Peer::asked_by_session`] is told otherwise.
    pub(crate) fn new(script: impl IntoIterator<Item = Reply>) -> Arc<Peer> {
        let peer = Peer::default();
        peer.state.script.lock().unwrap().extend(script);
        Arc::new(peer)
    }

    /// A server that begins with TLS.
    pub(crate) fn with_tls(
        config: ServerConfig,
        script: impl IntoIterator<Item = Reply>,
    ) -> Arc<Peer> {
        let peer = Peer { tls: Some(Arc::new(config)), ..Peer::default() };
        peer.state.script.lock().unwrap().extend(script);
        Arc::new(peer)
    }

    /// More answers.
    pub(crate) fn then(&self, reply: Reply) {
        self.state.script.lock().unwrap().push_back(reply);
    }

    /// Everything that was asked, without logins.
    pub(crate) fn asked(&self) -> Vec<Request> {
        self.state.asked.lock().unwrap().clone()
    }

    /// Requests since the look at the version.
    pub(crate) fn asked_since_connect(&self) -> Vec<Request> {
        self.asked().into_iter().filter(|r| !r.sql.contains("@@VERSION")).collect()
    }

    /// Connections that were closed instead of waiting for an answer any longer.
    pub(crate) fn hung_up(&self) -> usize {
        self.state.hung_up.load(Ordering::SeqCst)
    }

    /// Connections that were ever made.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Dial for Peer {
    async fn dial(&self, _host: &str, _port: u16) -> io::Result<Box<dyn Io>> {
        let connection = self.connections.fetch_add(1, Ordering::SeqCst);
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let state = self.state.clone();
        let tls = self.tls.clone();
        tokio::spawn(async move {
            match tls {
                None => serve(theirs, connection, &state).await.ok(),
                Some(config) => {
                    let stream = TlsAcceptor::from(config).accept(theirs).await.ok()?;
                    serve(stream, connection, &state).await.ok()
                }
            }
        });
        Ok(Box::new(ours))
    }
}

/// One message: its type and the payload of all of its packets.
async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(u8, Vec<u8>)> {
    let mut payload = Vec::new();
    loop {
        let mut header = [0; 8];
        stream.read_exact(&mut header).await?;
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let start = payload.len();
        payload.resize(start + length - 8, 0);
        stream.read_exact(&mut payload[start..]).await?;
        if header[1] & 1 == 1 {
            return Ok((header[0], payload));
        }
    }
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), payload: &[u8]) -> io::Result<()> {
    let chunks: Vec<&[u8]> = payload.chunks(4000).collect();
    for (number, chunk) in chunks.iter().enumerate() {
        let length = u16::try_from(chunk.len() + 8).unwrap().to_be_bytes();
        let last = u8::from(number + 1 == chunks.len());
        stream.write_all(&[4, last, length[0], length[1], 0, 0, 0, 0]).await?;
        stream.write_all(chunk).await?;
    }
    stream.flush().await
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    connection: usize,
    state: &State,
) -> io::Result<()> {
    loop {
        let (kind, payload) = receive(&mut stream).await?;
        let (request, from_procedure) = match kind {
            PRELOGIN => {
                // Version, and encryption "not supported".
                let body =
                    [&[0, 0, 11, 0, 6, 1, 0, 17, 0, 1, 0xFF][..], &[16, 0, 0, 0, 0, 0, 2][..]];
                send(&mut stream, &body.concat()).await?;
                continue;
            }
            LOGIN => {
                let mut body = vec![1, 0x74, 0, 0, 4];
                short_text(&mut body, "scripted");
                body.extend([16, 0, 0, 0]);
                let mut answer = vec![0xAD];
                answer.extend(u16::try_from(body.len()).unwrap().to_le_bytes());
                answer.extend(body);
                done(&mut answer, DONE, 0, 0);
                send(&mut stream, &answer).await?;
                continue;
            }
            BATCH => (plain(Kind::Batch, connection, utf16(&payload[headers(&payload)..])), false),
            RPC => (procedure_call(connection, &payload), true),
            BULK => (plain(Kind::Bulk, connection, format!("{} bytes", payload.len())), false),
            ATTENTION => (plain(Kind::Attention, connection, String::new()), false),
            TRANSACTION => (plain(Kind::TransactionManager, connection, String::new()), false),
            other => panic!("message of type {other}"),
        };
        let reply = answer_of_session(&request)
            .or_else(|| state.script.lock().unwrap().pop_front())
            .unwrap_or(Reply::Sets(Vec::new()));
        state.asked.lock().unwrap().push(request);
        match reply {
            Reply::Stall => {
                // Whatever comes, but the end of the stream.
                while !matches!(stream.read(&mut [0; 64]).await, Ok(0) | Err(_)) {}
                state.hung_up.fetch_add(1, Ordering::SeqCst);
                return Ok(());
            }
            Reply::Close => return Ok(()),
            Reply::Sets(sets) => {
                let mut answer = Vec::new();
                for Set(names, rows) in &sets {
                    result_set(&mut answer, names, rows);
                    let token = if from_procedure { DONE_IN_PROC } else { DONE };
                    done(&mut answer, token, 0x11, rows.len() as u64);
                }
                end(&mut answer, from_procedure, 0);
                send(&mut stream, &answer).await?;
            }
            Reply::Error(number, class) => {
                let mut answer = Vec::new();
                error(&mut answer, number, class);
                end(&mut answer, from_procedure, 2);
                send(&mut stream, &answer).await?;
            }
        }
    }
}

/// Answers that every script would repeat.
fn answer_of_session(request: &Request) -> Option<Reply> {
    let one = |name, value| Some(Reply::Sets(vec![Set(vec![name], vec![vec![value]])]));
    let sql = &request.sql;
    if sql.contains("@@VERSION") {
        return one("text", Value::Text("Microsoft SQL Server 2022 - 16.0.1".to_owned()));
    }
    if sql.contains("AS depth") {
        return one("depth", Value::Int(1));
    }
    if sql.contains("AS alive") {
        return one("alive", Value::Int(1));
    }
    let empty = sql == "IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION";
    empty.then(|| Reply::Sets(Vec::new()))
}

fn plain(kind: Kind, connection: usize, sql: String) -> Request {
    Request { connection, kind, sql, declared: String::new(), values: Vec::new() }
}

/// Length of ALL_HEADERS.
fn headers(payload: &[u8]) -> usize {
    number(&payload[..4])
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
}

fn utf16(bytes: &[u8]) -> String {
    let units: Vec<u16> =
        bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    String::from_utf16(&units).unwrap()
}

fn procedure_call(connection: usize, payload: &[u8]) -> Request {
    let mut at = headers(payload);
    assert_eq!(payload[at..at + 4], [0xFF, 0xFF, 10, 0], "sp_executesql");
    at += 6;
    let mut values = Vec::new();
    while at < payload.len() {
        let name = usize::from(payload[at]) * 2;
        at += 1 + name + 1;
        values.push(value(payload, &mut at));
    }
    let mut values = values.into_iter();
    let (Some(Value::Text(sql)), Some(Value::Text(declared))) = (values.next(), values.next())
    else {
        panic!("sp_executesql begins with a statement and its parameters' types");
    };
    Request { connection, kind: Kind::Rpc, sql, declared, values: values.collect() }
}

fn value(payload: &[u8], at: &mut usize) -> Value {
    let mut take = |length: usize| {
        let bytes = &payload[*at..*at + length];
        *at += length;
        bytes
    };
    let kind = take(1)[0];
    match kind {
        0x1F => Value::Null,
        0x26 => {
            take(1);
            match number(take(1)) {
                0 => Value::NullInt,
                8 => Value::Int(i64::from_le_bytes(take(8).try_into().unwrap())),
                other => panic!("an integer of {other} bytes"),
            }
        }
        0xE7 | 0xA5 => {
            let longest = number(take(2));
            if kind == 0xE7 {
                take(5);
            }
            let mut bytes = Vec::new();
            if longest == 0xFFFF {
                take(8);
                loop {
                    let length = number(take(4));
                    if length == 0 {
                        break;
                    }
                    bytes.extend_from_slice(take(length));
                }
            } else {
                let length = number(take(2));
                bytes.extend_from_slice(take(length));
            }
            if kind == 0xE7 { Value::Text(utf16(&bytes)) } else { Value::Bytes(bytes) }
        }
        other => panic!("a parameter of type {other:#x}"),
    }
}

fn short_text(out: &mut Vec<u8>, text: &str) {
    out.push(u8::try_from(text.len()).unwrap());
    out.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
}

fn done(out: &mut Vec<u8>, token: u8, status: u16, rows: u64) {
    out.push(token);
    out.extend(status.to_le_bytes());
    out.extend([0, 0]);
    out.extend(rows.to_le_bytes());
}

fn end(out: &mut Vec<u8>, from_procedure: bool, status: u16) {
    if from_procedure {
        out.extend([0x79, 0, 0, 0, 0]);
    }
    done(out, if from_procedure { DONE_PROC } else { DONE }, status, 0);
}

fn error(out: &mut Vec<u8>, number: u32, class: u8) {
    let mut body = number.to_le_bytes().to_vec();
    body.extend([1, class]);
    let message = format!("message of {number}");
    body.extend(u16::try_from(message.len()).unwrap().to_le_bytes());
    body.extend(message.encode_utf16().flat_map(u16::to_le_bytes));
    short_text(&mut body, "scripted");
    short_text(&mut body, "");
    body.extend([1, 0, 0, 0]);
    out.push(0xAA);
    out.extend(u16::try_from(body.len()).unwrap().to_le_bytes());
    out.extend(body);
}

/// What a column holds, by its first value that is not null.
fn sample(rows: &[Vec<Value>], column: usize) -> Value {
    let values = rows.iter().map(|row| row[column].clone());
    let mut values = values.filter(|value| !matches!(value, Value::Null | Value::NullInt));
    values.next().unwrap_or(Value::Int(0))
}

fn result_set(out: &mut Vec<u8>, names: &[&str], rows: &[Vec<Value>]) {
    out.push(0x81);
    out.extend(u16::try_from(names.len()).unwrap().to_le_bytes());
    let kinds: Vec<Value> = (0..names.len()).map(|column| sample(rows, column)).collect();
    for (name, kind) in names.iter().zip(&kinds) {
        out.extend([0, 0, 0, 0, 9, 0]);
        match kind {
            Value::Text(_) => out.extend([0xE7, 0xFF, 0xFF, 9, 4, 0xD0, 0, 0x34]),
            Value::Bytes(_) => out.extend([0xA5, 0xFF, 0xFF]),
            _ => out.extend([0x26, 8]),
        }
        short_text(out, name);
    }
    for row in rows {
        out.push(0xD1);
        for (value, kind) in row.iter().zip(&kinds) {
            match (value, kind) {
                (Value::Int(number), _) => {
                    out.push(8);
                    out.extend(number.to_le_bytes());
                }
                (Value::Text(text), _) => {
                    let units: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
                    long(out, &units);
                }
                (Value::Bytes(bytes), _) => long(out, bytes),
                (_, Value::Text(_) | Value::Bytes(_)) => out.extend([0xFF; 8]),
                _ => out.push(0),
            }
        }
    }
}

fn long(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u64).to_le_bytes());
    if !bytes.is_empty() {
        out.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
        out.extend(bytes);
    }
    out.extend([0; 4]);
}
