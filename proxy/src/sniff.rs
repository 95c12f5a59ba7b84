//! Which protocol a client speaks on the one port: HTTP/2 with prior knowledge says so in its first 24 bytes.
//!
//! What was read to find out is played back by [`Replay`], so that hyper sees the connection from its first byte.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoken {
    Http1,
    Http2,
}

/// Reads until the protocol is certain; `None` when the client closed before that. No deadline of its own.
///
/// # Errors
/// Those of reading.
pub(crate) async fn sniff<T: AsyncRead + Unpin>(
    mut io: T,
) -> io::Result<Option<(Spoken, Replay<T>)>> {
    let mut read = BytesMut::with_capacity(FIRST_READ_BYTES);
    loop {
        if io.read_buf(&mut read).await? == 0 {
            return Ok(None);
        }
        if let Some(spoken) = judge(&read) {
            return Ok(Some((
                spoken,
                Replay {
                    prefix: read.freeze(),
                    io,
                },
            )));
        }
    }
}

/// What the first bytes of a connection say; `None` while they are a true prefix of the preface.
fn judge(start: &[u8]) -> Option<Spoken> {
    let compared = start.len().min(PREFACE.len());
    if start[..compared] != PREFACE[..compared] {
        Some(Spoken::Http1)
    } else {
        (compared == PREFACE.len()).then_some(Spoken::Http2)
    }
}

/// A stream that first gives the bytes that were already read from it. Writing, vectored too, goes straight through.
#[derive(Debug)]
pub(crate) struct Replay<T> {
    prefix: Bytes,
    io: T,
}

impl<T: AsyncRead + Unpin> AsyncRead for Replay<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let length = self.prefix.len().min(buf.remaining());
        buf.put_slice(&self.prefix[..length]);
        self.prefix.advance(length);
        if self.prefix.is_empty() {
            self.prefix = Bytes::new(); // frees the buffer: the connection may live long
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Replay<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// RFC 9113 section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Room for the first read: a usual request head fits, so that sniffing costs no read of its own.
const FIRST_READ_BYTES: usize = 2048;

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[test]
    fn first_bytes_decide() {
        let cases: [(&[u8], Option<Spoken>); 8] = [
            (b"", None),
            (b"P", None),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", None),
            (PREFACE, Some(Spoken::Http2)),
            (
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12",
                Some(Spoken::Http2),
            ),
            (b"PO", Some(Spoken::Http1)),
            (b"PROPFIND / HTTP/1.1", Some(Spoken::Http1)),
            (b"GET / HTTP/1.1", Some(Spoken::Http1)),
        ];
        for (start, expected) in cases {
            assert_eq!(judge(start), expected, "{start:?}");
        }
    }

    #[tokio::test]
    async fn preface_may_come_byte_by_byte_and_is_replayed() {
        let (mut client, server) = tokio::io::duplex(1); // one byte a read
        let sent = async {
            client.write_all(PREFACE).await.unwrap();
            client.write_all(b"rest").await.unwrap();
            client.shutdown().await.unwrap();
        };
        let got = async {
            let (spoken, mut io) = sniff(server).await.unwrap().unwrap();
            let mut all = Vec::new();
            io.read_to_end(&mut all).await.unwrap();
            (spoken, all)
        };
        let ((), (spoken, all)) = tokio::join!(sent, got);
        assert_eq!(spoken, Spoken::Http2);
        assert_eq!(all, [PREFACE, b"rest"].concat());
    }

    #[tokio::test]
    async fn a_client_that_leaves_is_no_error() {
        let (client, server) = tokio::io::duplex(64);
        drop(client);
        assert!(sniff(server).await.unwrap().is_none());
    }
}
