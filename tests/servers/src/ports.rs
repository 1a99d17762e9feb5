//! Free ports.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;

use anyhow::{Result, bail};

/// Below the range from which systems take the ports of outgoing connections: while a server is
/// down no client can be given its port (or, worse, connect to itself there).
const RANGE: std::ops::Range<u16> = 15_000..30_000;

/// What this process has handed out: a port is not free while its server is being started.
static GIVEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());

/// A loopback port that nobody listens on now.
pub(crate) fn free() -> Result<u16> {
    let mut given = GIVEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for _ in 0..1000 {
        let at = random::<8>()?.iter().fold(0_u64, |n, b| (n << 8) | u64::from(*b));
        let offset = u16::try_from(at % u64::from(RANGE.end - RANGE.start))?;
        let port = RANGE.start + offset;
        if !given.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            given.push(port);
            return Ok(port);
        }
    }
    bail!("no free port on 127.0.0.1 between {} and {}", RANGE.start, RANGE.end)
}

/// A password.
pub(crate) fn password() -> Result<String> {
    use std::fmt::Write;
    let mut text = String::new();
    for byte in random::<12>()? {
        write!(text, "{byte:02x}")?;
    }
    Ok(text)
}

fn random<const N: usize>() -> Result<[u8; N]> {
    use std::io::Read;
    let mut bytes = [0; N];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
