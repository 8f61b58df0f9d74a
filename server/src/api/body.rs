//! Request bodies: decompressed and measured as they arrive, of which the client still learns why one was refused.

mod gunzip;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, StatusCode, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use parking_lot::Mutex;

use self::gunzip::Gunzip;
use super::error::ApiError;
use super::memory::Memory;

/// How much of a refused body is read on, so that its sender gets to read the answer instead of a broken pipe.
const DRAIN_BYTES: usize = 256 << 20;
/// How long it is read on.
const DRAIN_TIME: Duration = Duration::from_secs(10);
/// The same for a body that nobody wanted.
const SKIM_BYTES: usize = 1 << 20;
const SKIM_TIME: Duration = Duration::from_secs(1);

/// How long a body may be, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowed {
    /// As sent.
    pub(super) sent: Most,
    /// Decompressed.
    pub(super) whole: Most,
}

/// A limit and its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Most {
    pub(super) name: &'static str,
    pub(super) bytes: usize,
}

/// A body that is decompressed if it has to be, and fails once it is longer than it may be.
pub(super) struct Bounded {
    body: Option<Body>,
    gzip: bool,
    gunzip: Option<Gunzip>,
    allowed: Allowed,
    /// Bytes that came so far, and those that were made of them.
    sent: usize,
    whole: usize,
    memory: Arc<Memory>,
    waiting: Option<Waiting>,
    fate: Fate,
}

/// A part that waits for memory.
struct Waiting {
    part: Bytes,
    granted: Pin<Box<dyn Future<Output = bool> + Send>>,
}

/// What became of a body.
#[derive(Clone, Default)]
pub(super) struct Fate(Arc<Mutex<Option<Refused>>>);

/// Why a body was not taken, and what is still coming of it.
struct Refused {
    trouble: Trouble,
    rest: Option<Body>,
}

/// Why a body was not read to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    /// So many bytes came of it, or were made of what came so far, which is more than may be.
    #[error("request body is over the limit {}", most.name)]
    TooLong { most: Most, got: usize, decompressed: bool },
    /// There was no memory for it.
    #[error("there is no memory for the request body")]
    NoMemory,
    /// It says that it is gzip, and is not.
    #[error("request body: is not complete gzip: {0}")]
    NotGzip(String),
}

impl Bounded {
    /// The body, and what tells afterwards what became of it.
    pub(super) fn new(body: Body, gzip: bool, allowed: Allowed, memory: Arc<Memory>) -> (Self, Fate) {
        let fate = Fate::default();
        let gunzip = gzip.then(Gunzip::default);
        let body = Some(body);
        let fate_of = fate.clone();
        let bounded =
            Self { body, gzip, gunzip, allowed, sent: 0, whole: 0, memory, waiting: None, fate: fate_of };
        (bounded, fate)
    }

    /// Ends the body here; what would still come of it is for [`Fate::end`].
    fn fail(&mut self, trouble: Trouble) -> axum::BoxError {
        let rest = self.body.take();
        self.gunzip = None;
        *self.fate.0.lock() = Some(Refused { trouble: trouble.clone(), rest });
        Box::new(trouble)
    }

    /// The next bytes, decompressed; a part may be empty.
    fn poll_part(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, axum::BoxError>>> {
        if let Some(gunzip) = self.gunzip.as_mut().filter(|gunzip| gunzip.has_input()) {
            // A small body can be a large one: others get their turn in between.
            let turn = ready!(tokio::task::coop::poll_proceed(context));
            turn.made_progress();
            return Poll::Ready(Some(gunzip.step().map_err(|error| self.fail(Trouble::NotGzip(error)))));
        }
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = match ready!(Pin::new(body).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            None => {
                self.body = None;
                let Some(gunzip) = self.gunzip.take() else { return Poll::Ready(None) };
                return Poll::Ready(Some(
                    gunzip.finish().map_err(|error| self.fail(Trouble::NotGzip(error))),
                ));
            }
        };
        // Trailers of requests say nothing that is asked for.
        let part = frame.into_data().unwrap_or_default();
        self.sent = self.sent.saturating_add(part.len());
        let most = self.allowed.sent;
        if self.sent > most.bytes {
            let trouble = Trouble::TooLong { most, got: self.sent, decompressed: false };
            return Poll::Ready(Some(Err(self.fail(trouble))));
        }
        match &mut self.gunzip {
            Some(gunzip) => {
                gunzip.feed(part);
                Poll::Ready(Some(Ok(Bytes::new())))
            }
            None => Poll::Ready(Some(Ok(part))),
        }
    }
}

impl HttpBody for Bounded {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        loop {
            if let Some(Waiting { part, granted }) = &mut self.waiting {
                let granted = ready!(granted.as_mut().poll(context));
                let part = std::mem::take(part);
                self.waiting = None;
                let part = if granted { Ok(Frame::data(part)) } else { Err(self.fail(Trouble::NoMemory)) };
                return Poll::Ready(Some(part));
            }
            let part = match ready!(self.poll_part(context)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(part)) if part.is_empty() => continue,
                Some(Ok(part)) => part,
            };
            self.whole = self.whole.saturating_add(part.len());
            let most = self.allowed.whole;
            if self.whole > most.bytes {
                let decompressed = self.gzip;
                let trouble = Trouble::TooLong { most, got: self.whole, decompressed };
                return Poll::Ready(Some(Err(self.fail(trouble))));
            }
            if self.memory.try_take(part.len()) {
                return Poll::Ready(Some(Ok(Frame::data(part))));
            }
            let granted = Box::pin(Arc::clone(&self.memory).take(part.len()));
            self.waiting = Some(Waiting { part, granted });
        }
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_none() && self.gunzip.is_none() && self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.body, &self.gunzip) {
            (Some(body), None) if self.waiting.is_none() => body.size_hint(),
            _ => SizeHint::default(),
        }
    }
}

impl Fate {
    /// What was wrong with the body, if anything was. What is still coming of it is thrown away, and counted where that tells
    /// how long it is.
    pub(super) async fn end(self) -> Option<Trouble> {
        let Refused { mut trouble, rest } = self.0.lock().take()?;
        let more = match rest {
            Some(rest) => throw_away(rest, DRAIN_BYTES, DRAIN_TIME).await,
            None => 0,
        };
        if let Trouble::TooLong { got, decompressed: false, .. } = &mut trouble {
            *got += more;
        }
        Some(trouble)
    }
}

/// Whether a body is compressed as all of them may be.
pub(super) fn is_gzip(headers: &HeaderMap) -> bool {
    let encoding = headers.get(header::CONTENT_ENCODING).map(|value| value.as_bytes().to_ascii_lowercase());
    matches!(encoding.as_deref(), Some(b"gzip" | b"x-gzip"))
}

/// All of the body of a request with these headers. That it is bounded and decompressed is seen to before.
///
/// # Errors
/// When it ends early, or is compressed with anything but gzip.
pub(super) async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, ApiError> {
    let other = headers.get(header::CONTENT_ENCODING).map(|value| value.as_bytes());
    if let Some(other) = other.filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case(b"identity")) {
        let got = String::from_utf8_lossy(other);
        let message = format!("Content-Encoding: expected gzip or none, got {got:?}");
        skim(body).await;
        return Err(ApiError::with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    let whole = body.collect().await.map_err(|error| {
        let message = format!("request body: it ended before it was all there: {error}");
        ApiError::with_status(StatusCode::REQUEST_TIMEOUT, message)
    })?;
    Ok(whole.to_bytes())
}

/// Reads over the body of a request that is answered without it: a client that is still sending would see a broken pipe
/// instead of the answer. Takes no memory, and a second at most.
pub(super) async fn skim(body: Body) {
    throw_away(body, SKIM_BYTES, SKIM_TIME).await;
}

/// Reads over a body that is refused for its length.
pub(super) async fn discard(body: Body) {
    throw_away(body, DRAIN_BYTES, DRAIN_TIME).await;
}

/// Answers how many bytes were thrown away.
async fn throw_away(mut body: Body, bytes: usize, time: Duration) -> usize {
    let mut read = 0;
    let all = async {
        while read < bytes {
            match body.frame().await {
                Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
                _ => break,
            }
        }
    };
    // A slow sender has no claim to see the answer.
    let _ = tokio::time::timeout(time, all).await;
    read
}

#[cfg(test)]
mod tests;
