//! Labels of a Push that are not text. Protobuf's decoder would give up on the whole message; here only the series
//! that has such a label is taken out.

use std::fmt::Write as _;
use std::sync::Arc;

use buffa::Message;
use connectrpc::interceptor::{Interceptor, Next, UnaryRequest, UnaryResponse};
use connectrpc::{CodecFormat, ConnectError};
use spanflame_wire::push::v1::__buffa::view::{UncheckedPushRequestView, UncheckedSeriesView};

use super::App;

const PUSH: &str = "/push.v1.PusherService/Push";
/// How many labels an error text lists.
const MAX_LISTED: usize = 20;

pub(super) struct NotText(pub(super) Arc<App>);

#[connectrpc::async_trait]
impl Interceptor for NotText {
    async fn intercept_unary(
        &self,
        request: UnaryRequest,
        next: Next<'_>,
    ) -> Result<UnaryResponse, ConnectError> {
        // JSON is text as a whole. What is no message even without checks is for the handler's decoder to refuse.
        let checked = request.ctx.path() == Some(PUSH) && request.payload.format() == CodecFormat::Proto;
        let unchecked =
            checked.then(|| request.payload.view::<UncheckedPushRequestView<'static>>().ok()).flatten();
        let bad = unchecked.as_ref().map(|message| bad_labels(message.reborrow())).unwrap_or_default();
        let Some(message) = unchecked.filter(|_| !bad.is_empty()) else { return next.run(request).await };

        let mut message = message.to_owned_message();
        for (series, _) in &bad {
            // Emptied, not removed: the others keep their places, which error texts name.
            message.series[*series] = Default::default();
        }
        let body = message.encode_to_vec().into();
        let result = next.run(UnaryRequest::new(request.ctx, body, CodecFormat::Proto)).await;
        bad.iter().for_each(|_| self.0.metrics.refuse("invalid_profile"));
        let mut text = format!("{} of {} series refused", bad.len(), message.series.len());
        if result.is_ok() && bad.len() < message.series.len() {
            text.push_str(", the others are stored");
        }
        for (series, label) in bad.iter().take(MAX_LISTED) {
            write!(text, "; series[{series}].{label}: is not valid UTF-8").expect("a string takes it");
        }
        tracing::info!(refused = bad.len(), reason = text, "series refused");
        let mut error = result.err().unwrap_or_else(|| ConnectError::invalid_argument(""));
        error.message = Some(match error.message.filter(|said| !said.is_empty()) {
            Some(said) => format!("{text}; {said}"),
            None => text,
        });
        Err(error)
    }
}

/// Series with a label that is not text, and the first such label of each.
fn bad_labels(request: &UncheckedPushRequestView<'_>) -> Vec<(usize, String)> {
    let bad = |bytes: &[u8]| std::str::from_utf8(bytes).is_err();
    let first = |(at, series): (usize, &UncheckedSeriesView<'_>)| {
        let label = series.labels.iter().position(|label| bad(label.name) || bad(label.value))?;
        let field = if bad(series.labels[label].name) { "name" } else { "value" };
        Some((at, format!("labels[{label}].{field}")))
    };
    request.series.iter().enumerate().filter_map(first).collect()
}
