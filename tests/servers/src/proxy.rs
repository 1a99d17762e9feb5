//! A TCP proxy that counts round trips and breaks connections at a chosen moment.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result};

/// A proxy on a loopback port of its own. It knows nothing of the protocol, so it serves any
/// database, and connections with TLS.
///
/// A *round trip* is a request (all that a client sends before something comes back) that got an
/// answer. Logging in is some round trips, too: [`CountingProxy::reset`] after it.
#[derive(Debug)]
pub struct CountingProxy {
    shared: Arc<Shared>,
    port: u16,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    state: Mutex<State>,
    /// Signalled when `stalled` or `closed` change.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    round_trips: u64,
    /// Connections that were accepted, also those that are closed now.
    accepted: u64,
    /// Open connections: the number of each, the client's end, the server's end.
    open: Vec<(u64, TcpStream, TcpStream)>,
    stalled: bool,
    closed: bool,
    trap: Option<Trap>,
}

/// A connection that is to be cut, or a request that is to be held back.
#[derive(Debug)]
struct Trap {
    /// Requests to let pass first.
    pass: u64,
    /// Counted are only those that contain these bytes.
    containing: Vec<u8>,
    moment: Moment,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// The server does not get the request.
    Before,
    /// The client does not get the answer.
    After,
    /// Not cut: held back, with all that follows on any connection.
    Held,
}

impl CountingProxy {
    /// Starts a proxy to a port of this machine.
    ///
    /// # Errors
    /// If it cannot listen.
    pub fn start(target_port: u16) -> Result<CountingProxy> {
        CountingProxy::start_to((Ipv4Addr::LOCALHOST, target_port))
    }

    /// Starts a proxy to any address.
    ///
    /// # Errors
    /// If the name of the host is not known; if it cannot listen.
    pub fn start_to(target: impl ToSocketAddrs) -> Result<CountingProxy> {
        let mut addresses = target.to_socket_addrs().context("no such host")?;
        let target = addresses.next().context("the host has no address")?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen")?;
        let port = listener.local_addr().context("cannot listen")?.port();
        let shared = Arc::new(Shared {
            target,
            state: Mutex::new(State::default()),
            changed: Condvar::new(),
        });
        let accepting = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || accept(&listener, &shared))
        };
        Ok(CountingProxy { shared, port, accepting: Some(accepting) })
    }

    /// The port on 127.0.0.1 that clients connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Requests that got an answer since the start or the last [`CountingProxy::reset`].
    pub fn round_trips(&self) -> u64 {
        self.shared.state().round_trips
    }

    /// Connections that clients have opened since the start, also those that are closed now.
    pub fn connections(&self) -> u64 {
        self.shared.state().accepted
    }

    /// Counts round trips from zero.
    pub fn reset(&self) {
        self.shared.state().round_trips = 0;
    }

    /// Closes all connections. New ones are accepted.
    pub fn cut(&self) {
        for (_, client, server) in self.shared.state().open.drain(..) {
            close(&client, &server);
        }
    }

    /// Holds back all bytes, in both directions, until [`CountingProxy::unstall`]: the network is
    /// silent, nothing is closed.
    pub fn stall(&self) {
        self.shared.state().stalled = true;
    }

    /// Undoes [`CountingProxy::stall`].
    pub fn unstall(&self) {
        self.shared.state().stalled = false;
        self.shared.changed.notify_all();
    }

    /// The next request reaches the server, its answer is thrown away, and the connection is closed:
    /// the client cannot know what became of it.
    pub fn cut_after_next_request(&self) {
        self.cut_after_request(1, b"");
    }

    /// The same for the `number`th request (from 1) that contains these bytes, counted over all
    /// connections. Only the first bytes of a large request are looked at.
    pub fn cut_after_request(&self, number: u64, containing: &[u8]) {
        self.set_trap(number, containing, Moment::After);
    }

    /// The `number`th request (from 1) that contains these bytes does not reach the server: the
    /// connection is closed instead. The client cannot tell that from
    /// [`CountingProxy::cut_after_request`].
    pub fn cut_before_request(&self, number: u64, containing: &[u8]) {
        self.set_trap(number, containing, Moment::Before);
    }

    /// Everything is held back from the `number`th request (from 1) on that contains these bytes, as by
    /// [`CountingProxy::stall`], until [`CountingProxy::unstall`].
    pub fn stall_before_request(&self, number: u64, containing: &[u8]) {
        self.set_trap(number, containing, Moment::Held);
    }

    /// Whether one of the methods above still waits for its request.
    pub fn is_armed(&self) -> bool {
        self.shared.state().trap.is_some()
    }

    fn set_trap(&self, number: u64, containing: &[u8], moment: Moment) {
        let trap = Trap { pass: number.max(1) - 1, containing: containing.to_vec(), moment };
        self.shared.state().trap = Some(trap);
    }
}

impl Drop for CountingProxy {
    fn drop(&mut self) {
        self.shared.state().closed = true;
        self.shared.changed.notify_all();
        self.cut();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(thread) = self.accepting.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while the network is silent. Whether the proxy is still there then.
    fn pass(&self) -> bool {
        let mut state = self.state();
        while state.stalled && !state.closed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        !state.closed
    }
}

fn close(client: &TcpStream, server: &TcpStream) {
    // They may be closed already.
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.state().closed {
            return;
        }
        // A client that is gone, a server that does not listen: the client sees a closed connection.
        if let Ok(client) = client {
            let shared = Arc::clone(shared);
            std::thread::spawn(move || {
                let _ = serve(client, &shared);
            });
        }
    }
}

fn serve(client: TcpStream, shared: &Arc<Shared>) -> std::io::Result<()> {
    if !shared.pass() {
        return Ok(());
    }
    let server = TcpStream::connect(shared.target)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let number = {
        let mut state = shared.state();
        if state.closed {
            return Ok(());
        }
        state.accepted += 1;
        let number = state.accepted;
        state.open.push((number, client.try_clone()?, server.try_clone()?));
        number
    };
    let connection = Arc::new(Mutex::new(Connection::default()));
    let back = {
        let (server, client) = (server.try_clone()?, client.try_clone()?);
        let (shared, connection) = (Arc::clone(shared), Arc::clone(&connection));
        std::thread::spawn(move || {
            let _ = answers(&server, &client, &shared, &connection);
            close(&client, &server);
        })
    };
    let _ = requests(&client, &server, shared, &connection);
    close(&client, &server);
    let _ = back.join();
    shared.state().open.retain(|(n, _, _)| *n != number);
    Ok(())
}

#[derive(Debug, Default)]
struct Connection {
    /// A request is under way: no byte of its answer has come back.
    asked: bool,
    /// Its answer is to be thrown away.
    doomed: bool,
}

fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Copies from the client to the server until one of them closes.
fn requests(
    mut client: &TcpStream,
    mut server: &TcpStream,
    shared: &Shared,
    connection: &Mutex<Connection>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = client.read(&mut buffer)?;
        if length == 0 || !shared.pass() {
            return Ok(());
        }
        {
            let mut connection = lock(connection);
            let begins = !connection.asked;
            connection.asked = true;
            if begins {
                let mut state = shared.state();
                match sprung(&mut state.trap, &buffer[..length]) {
                    Some(Moment::Before) => return Ok(()),
                    Some(Moment::After) => connection.doomed = true,
                    Some(Moment::Held) => state.stalled = true,
                    None => {}
                }
            }
        }
        if !shared.pass() {
            return Ok(());
        }
        server.write_all(&buffer[..length])?;
    }
}

/// Whether the trap snaps at this request.
fn sprung(trap: &mut Option<Trap>, request: &[u8]) -> Option<Moment> {
    let set = trap.as_mut()?;
    let wanted = set.containing.is_empty()
        || request.windows(set.containing.len()).any(|w| w == set.containing);
    if !wanted {
        return None;
    }
    if set.pass > 0 {
        set.pass -= 1;
        return None;
    }
    trap.take().map(|t| t.moment)
}

/// Copies from the server to the client until one of them closes.
fn answers(
    mut server: &TcpStream,
    mut client: &TcpStream,
    shared: &Shared,
    connection: &Mutex<Connection>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = server.read(&mut buffer)?;
        if length == 0 || !shared.pass() {
            return Ok(());
        }
        {
            let mut connection = lock(connection);
            if connection.doomed {
                return Ok(());
            }
            if std::mem::take(&mut connection.asked) {
                shared.state().round_trips += 1;
            }
        }
        client.write_all(&buffer[..length])?;
    }
}

#[cfg(test)]
mod tests;
