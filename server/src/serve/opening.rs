//! A connection's first bytes, which must come in time.
//!
//! Whether a client speaks HTTP/1.1 or HTTP/2 is told by what it sends first, and until that has come no timeout of
//! either protocol runs: a client that sends nothing would keep its place for ever.

use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// The length of HTTP/2's connection preface: what is needed to tell the protocols apart.
const PREFACE: usize = 24;

/// A stream that fails unless its first bytes come in time.
pub(super) struct Opening<S> {
    stream: S,
    missing: usize,
    due: Option<Pin<Box<Sleep>>>,
}

impl<S> Opening<S> {
    pub(super) fn new(stream: S, within: Duration) -> Self {
        Self { stream, missing: PREFACE, due: Some(Box::pin(tokio::time::sleep(within))) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Opening<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
            self.missing = self.missing.saturating_sub(buffer.filled().len() - before);
            if self.missing == 0 {
                self.due = None;
            }
            return read;
        }
        if let Some(due) = &mut self.due {
            ready!(due.as_mut().poll(context));
            return Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "the client sent nothing")));
        }
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Opening<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const WITHIN: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_given_up() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = Opening::new(server, WITHIN);
        client.write_all(b"PRI * ").await.expect("room");
        let mut first = [0; 24];
        let error = server.read_exact(&mut first).await.expect_err("the rest never comes");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_has_begun_may_wait() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = Opening::new(server, WITHIN);
        client.write_all(&[b'x'; 24]).await.expect("room");
        server.read_exact(&mut [0; 24]).await.expect("it came in time");
        tokio::time::sleep(WITHIN * 2).await;
        let (read, ()) = tokio::join!(server.read_u8(), async {
            tokio::time::sleep(WITHIN).await;
            client.write_u8(7).await.expect("room");
        });
        assert_eq!(read.expect("no deadline any more"), 7);
    }
}
