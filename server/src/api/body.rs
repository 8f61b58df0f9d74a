//! Request bodies with a limit, of which the client still learns why it was refused.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, StatusCode, header};
use connectrpc::CompressionProvider;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use parking_lot::Mutex;

use super::App;
use super::error::ApiError;
use super::guard::Gzip;

/// How much of a refused body is read on, so that its sender gets to read the answer instead of a broken pipe.
const DRAIN_BYTES: usize = 256 << 20;
/// How long it is read on.
const DRAIN_TIME: Duration = Duration::from_secs(10);
/// The same for a body that nobody wanted.
const SKIM_BYTES: usize = 1 << 20;
const SKIM_TIME: Duration = Duration::from_secs(1);

/// A body that fails once it is longer than its limit.
pub(super) struct Bounded {
    body: Option<Body>,
    left: usize,
    overflow: Overflow,
}

/// Where the rest of a body goes that was too long.
#[derive(Clone, Default)]
pub(super) struct Overflow(Arc<Mutex<Option<Body>>>);

#[derive(Debug, thiserror::Error)]
#[error("request body is over its limit")]
struct OverLimit;

impl Bounded {
    /// The body, and what tells afterwards whether it was too long.
    pub(super) fn new(body: Body, limit: usize) -> (Self, Overflow) {
        let overflow = Overflow::default();
        (Self { body: Some(body), left: limit, overflow: overflow.clone() }, overflow)
    }
}

impl Overflow {
    /// If the body was too long, throws away what is still coming of it and answers true.
    pub(super) async fn drain(self) -> bool {
        let Some(rest) = self.0.lock().take() else { return false };
        throw_away(rest, DRAIN_BYTES, DRAIN_TIME).await;
        true
    }
}

/// All of the body of a request with these headers, decompressed if they say that it is compressed. That it is bounded is
/// seen to before.
///
/// # Errors
/// When it ends early, is longer than `max_message_bytes` once decompressed, or is compressed with anything but gzip.
pub(super) async fn read(app: &Arc<App>, headers: &HeaderMap, body: Body) -> Result<Bytes, ApiError> {
    let encoding = headers.get(header::CONTENT_ENCODING).map(|value| value.as_bytes().to_ascii_lowercase());
    let gzip = match encoding.as_deref() {
        None | Some(b"" | b"identity") => false,
        Some(b"gzip" | b"x-gzip") => true,
        Some(other) => {
            skim(body).await;
            let got = String::from_utf8_lossy(other);
            let message = format!("Content-Encoding: expected gzip or none, got {got:?}");
            return Err(ApiError::with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        }
    };
    let whole = body.collect().await.map_err(|error| {
        let message = format!("request body: it ended before it was all there: {error}");
        ApiError::with_status(StatusCode::REQUEST_TIMEOUT, message)
    })?;
    let bytes = whole.to_bytes();
    if !gzip || bytes.is_empty() {
        return Ok(bytes);
    }
    let gzip = Gzip::new(Arc::clone(app));
    let decompress = move |app: &App| gzip.decompress_with_limit(&bytes, app.config.max_message_bytes);
    Ok(app.compute(decompress).await?)
}

/// Reads over the body of a request that is answered without it: a client that is still sending would see a broken pipe
/// instead of the answer. Takes no memory, and a second at most.
pub(super) async fn skim(body: Body) {
    throw_away(body, SKIM_BYTES, SKIM_TIME).await;
}

async fn throw_away(mut body: Body, bytes: usize, time: Duration) {
    let all = async {
        let mut read = 0;
        while read < bytes {
            match body.frame().await {
                Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
                _ => break,
            }
        }
    };
    // A slow sender has no claim to see the answer.
    let _ = tokio::time::timeout(time, all).await;
}

impl HttpBody for Bounded {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let Some(frame) = ready!(Pin::new(body).poll_frame(context)) else { return Poll::Ready(None) };
        let frame = frame?;
        match self.left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(left) => {
                self.left = left;
                Poll::Ready(Some(Ok(frame)))
            }
            None => {
                let rest = self.body.take();
                *self.overflow.0.lock() = rest;
                Poll::Ready(Some(Err(Box::new(OverLimit))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_limit_is_the_last_length_that_passes() {
        let (body, overflow) = Bounded::new(Body::from("12345"), 5);
        assert_eq!(body.collect().await.expect("within the limit").to_bytes(), "12345");
        assert!(!overflow.drain().await);
        let (body, overflow) = Bounded::new(Body::from("123456"), 5);
        assert!(body.collect().await.is_err());
        assert!(overflow.drain().await);
    }
}
