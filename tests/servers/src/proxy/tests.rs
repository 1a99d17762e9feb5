use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::*;

/// A server that answers each line with two packets, and counts the lines.
struct Echo {
    port: u16,
    lines: Arc<AtomicU64>,
}

fn echo() -> Echo {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let lines = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&lines);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, count) = (stream.unwrap(), Arc::clone(&count));
            std::thread::spawn(move || {
                let mut reader = std::io::BufReader::new(stream.try_clone().unwrap());
                let mut line = String::new();
                while std::io::BufRead::read_line(&mut reader, &mut line).is_ok_and(|n| n > 0) {
                    count.fetch_add(1, Ordering::SeqCst);
                    let (one, two) = line.split_at(1);
                    if (&stream).write_all(one.as_bytes()).is_err()
                        || (&stream).write_all(two.as_bytes()).is_err()
                    {
                        break;
                    }
                    line.clear();
                }
            });
        }
    });
    Echo { port, lines }
}

fn connect(proxy: &CountingProxy) -> TcpStream {
    TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).unwrap()
}

/// Sends a line and reads as much back; none if the connection is closed instead.
fn ask(stream: &TcpStream, line: &str) -> Option<String> {
    let mut stream = stream;
    stream.write_all(line.as_bytes()).ok()?;
    let mut answer = vec![0; line.len()];
    stream.read_exact(&mut answer).ok()?;
    Some(String::from_utf8(answer).unwrap())
}

#[test]
fn it_counts_requests_that_got_an_answer() {
    let server = echo();
    let proxy = CountingProxy::start(server.port).unwrap();
    let (a, b) = (connect(&proxy), connect(&proxy));
    for _ in 0..3 {
        assert_eq!(ask(&a, "hello\n").unwrap(), "hello\n");
    }
    assert_eq!(ask(&b, "you\n").unwrap(), "you\n");
    assert_eq!((proxy.round_trips(), proxy.connections()), (4, 2));
    proxy.reset();
    // Two writes without an answer in between are one request.
    a.set_nodelay(true).unwrap();
    (&a).write_all(b"in two ").unwrap();
    assert_eq!(ask(&a, "parts\n").unwrap(), "in two");
    assert_eq!(proxy.round_trips(), 1);
}

#[test]
fn it_cuts_all_connections_and_accepts_new_ones() {
    let server = echo();
    let proxy = CountingProxy::start(server.port).unwrap();
    let stream = connect(&proxy);
    ask(&stream, "a\n").unwrap();
    proxy.cut();
    assert_eq!(ask(&stream, "b\n"), None);
    assert_eq!(ask(&connect(&proxy), "c\n").unwrap(), "c\n");
}

#[test]
fn it_throws_an_answer_away_after_the_server_got_the_request() {
    let server = echo();
    let proxy = CountingProxy::start(server.port).unwrap();
    let stream = connect(&proxy);
    proxy.cut_after_next_request();
    assert_eq!(ask(&stream, "COMMIT\n"), None);
    assert_eq!(server.lines.load(Ordering::SeqCst), 1);
    assert!(!proxy.is_armed());
    assert_eq!((ask(&connect(&proxy), "x\n"), proxy.round_trips()), (Some("x\n".to_owned()), 1));
}

#[test]
fn it_keeps_a_request_from_the_server() {
    let server = echo();
    let proxy = CountingProxy::start(server.port).unwrap();
    let stream = connect(&proxy);
    proxy.cut_before_request(2, b"MIT");
    assert!(ask(&stream, "COMMIT\n").is_some() && ask(&stream, "BEGIN\n").is_some());
    assert!(proxy.is_armed());
    assert_eq!(ask(&stream, "COMMIT\n"), None);
    assert_eq!(server.lines.load(Ordering::SeqCst), 2);
}

#[test]
fn it_is_silent_while_it_is_stalled() {
    let server = echo();
    let proxy = CountingProxy::start(server.port).unwrap();
    let stream = connect(&proxy);
    ask(&stream, "a\n").unwrap();
    proxy.stall();
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    (&stream).write_all(b"b\n").unwrap();
    assert!((&stream).read(&mut [0; 2]).is_err());
    proxy.unstall();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut answer = [0; 2];
    (&stream).read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"b\n");
}

#[test]
fn a_server_that_does_not_listen_is_a_closed_connection() {
    let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let proxy = CountingProxy::start(gone).unwrap();
    assert_eq!(ask(&connect(&proxy), "a\n"), None);
}
