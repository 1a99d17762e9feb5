//! What a server says of encryption, before the driver acts on it.
//!
//! A server that has no TLS says so in its PRELOGIN answer
//! ([MS-TDS] 2.2.6.5, option ENCRYPTION, value `ENCRYPT_NOT_SUP`). The driver then begins a TLS
//! handshake all the same, unless it was told beforehand not to. Some servers end such a connection
//! and some wait for ever for the rest of a message; so it is ended here, at once.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stream::Io;

/// Bytes of a packet's header ([MS-TDS] 2.2.3.1).
const HEADER: usize = 8;
/// Option ENCRYPTION in a PRELOGIN message.
const ENCRYPTION: u8 = 1;
/// The end of the options.
const TERMINATOR: u8 = 0xFF;
/// `ENCRYPT_NOT_SUP`.
const NOT_SUPPORTED: u8 = 2;

/// A stream whose first packet from the server is looked at.
pub(crate) struct Watched {
    stream: Box<dyn Io>,
    /// What came of the first packet; none once it was looked at.
    answer: Option<Vec<u8>>,
    refuses_tls: bool,
}

impl Watched {
    pub(crate) fn new(stream: Box<dyn Io>) -> Self {
        Watched { stream, answer: Some(Vec::new()), refuses_tls: false }
    }

    fn look(&mut self, bytes: &[u8]) {
        let Some(answer) = &mut self.answer else { return };
        answer.extend_from_slice(bytes);
        let Some(length) = answer.get(2..4) else { return };
        let length = usize::from(u16::from_be_bytes([length[0], length[1]])).max(HEADER);
        if let Some(payload) = answer.get(HEADER..length) {
            self.refuses_tls = encryption(payload) == Some(NOT_SUPPORTED);
            self.answer = None;
        }
    }
}

/// The value of option ENCRYPTION: options are (token, offset, length) until the terminator.
fn encryption(payload: &[u8]) -> Option<u8> {
    for option in payload.chunks(5) {
        match option {
            [TERMINATOR, ..] => return None,
            [ENCRYPTION, high, low, ..] => {
                let offset = usize::from(u16::from_be_bytes([*high, *low]));
                return payload.get(offset).copied();
            }
            _ => {}
        }
    }
    None
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let answer = Pin::new(&mut self.stream).poll_read(context, buffer);
        if self.answer.is_some() && matches!(answer, Poll::Ready(Ok(()))) {
            self.look(&buffer.filled()[before..]);
        }
        answer
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.refuses_tls {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the server does not support encryption",
            )));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A PRELOGIN answer: version, encryption, terminator.
    fn answer(encryption: u8) -> Vec<u8> {
        let body = [&[0, 0, 11, 0, 6, 1, 0, 17, 0, 1, 0xFF][..], &[16, 0, 0, 0, 0, 0, encryption]]
            .concat();
        let length = u8::try_from(body.len() + HEADER).unwrap();
        [&[4, 1, 0, length, 0, 0, 0, 0][..], &body].concat()
    }

    #[tokio::test]
    async fn a_handshake_with_a_server_without_tls_ends_at_once() {
        for (says, refused) in [(NOT_SUPPORTED, true), (0, false), (1, false), (3, false)] {
            let (ours, mut theirs) = tokio::io::duplex(1024);
            let mut stream = Watched::new(Box::new(ours));
            stream.write_all(b"prelogin").await.unwrap();
            // In pieces, as a network may deliver it.
            let whole = answer(says);
            for piece in whole.chunks(3) {
                theirs.write_all(piece).await.unwrap();
                let mut read = vec![0; piece.len()];
                stream.read_exact(&mut read).await.unwrap();
                assert_eq!(read, piece);
            }
            assert_eq!(stream.write_all(b"client hello").await.is_err(), refused, "{says}");
        }
    }

    #[test]
    fn nonsense_is_no_answer() {
        for payload in [&[][..], &[1], &[1, 0, 99, 0, 1, 0xFF], &[0xFF], &[7; 64]] {
            assert_eq!(encryption(payload), None);
        }
    }
}
