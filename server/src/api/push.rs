//! `push.v1.PusherService`: profiles in. A bad series never costs its neighbours.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use connectrpc::{ConnectError, Encodable, RequestContext, Response, ServiceRequest, ServiceResult};
use spanflame_wire::push::v1::{PushRequest, PushResponse, PusherService};

use super::App;
use super::error::append_failed;
use crate::ingest::{self, IngestError};
use crate::model::Profile;

/// How many refused profiles an error text lists.
const MAX_LISTED: usize = 20;
/// How much of a label set an error text shows, in characters.
const MAX_LABELS_SHOWN: usize = 200;

pub(super) struct Pusher(pub(super) Arc<App>);

/// One encoded profile of a request.
struct Input {
    /// Where it stands: series and sample.
    at: (usize, usize),
    labels: Vec<(String, String)>,
    raw: Bytes,
}

struct Refusal {
    at: (usize, usize),
    labels: Vec<(String, String)>,
    error: IngestError,
}

impl PusherService for Pusher {
    async fn push<'a>(
        &'a self,
        _: RequestContext,
        request: ServiceRequest<'_, PushRequest>,
    ) -> ServiceResult<impl Encodable<PushResponse> + Send + use<'a>> {
        let app = &self.0;
        app.metrics.pushes.inc();
        let inputs = inputs(request);
        let total = inputs.len();
        app.metrics.profile_bytes.inc_by(inputs.iter().map(|input| input.raw.len() as u64).sum());

        let (profiles, refusals) = app.compute(|app| decode(app, inputs)).await;
        let (stored, samples) = (profiles.len(), profiles.iter().map(|profile| profile.rows() as u64).sum());
        if stored > 0 {
            app.store.append(&app.tenant(), profiles).await.map_err(|error| {
                app.metrics.refuse("store");
                append_failed(&error)
            })?;
            app.metrics.profiles.inc_by(stored as u64);
            app.metrics.samples.inc_by(samples);
        }
        if refusals.is_empty() {
            return Response::ok(PushResponse::default());
        }
        let message = explain(&refusals, total);
        tracing::info!(refused = refusals.len(), of = total, reason = message, "profiles refused");
        for refusal in &refusals {
            app.metrics.refuse(match refusal.error {
                IngestError::OverLimit { .. } => "over_limit",
                _ => "invalid_profile",
            });
        }
        Err(ConnectError::invalid_argument(message))
    }
}

fn inputs(request: ServiceRequest<'_, PushRequest>) -> Vec<Input> {
    let mut inputs = Vec::new();
    for (series_at, series) in request.series.iter().enumerate() {
        let labels: Vec<(String, String)> =
            series.labels.iter().map(|label| (label.name.to_owned(), label.value.to_owned())).collect();
        for (sample_at, sample) in series.samples.iter().enumerate() {
            let raw = request.bytes().slice_ref(sample.raw_profile);
            inputs.push(Input { at: (series_at, sample_at), labels: labels.clone(), raw });
        }
    }
    inputs
}

fn decode(app: &App, inputs: Vec<Input>) -> (Vec<Profile>, Vec<Refusal>) {
    let received_ms =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as i64);
    let (mut profiles, mut refusals) = (Vec::new(), Vec::new());
    for Input { at, labels, raw } in inputs {
        match ingest::decode_series(labels.clone(), raw, &app.config.limits, received_ms) {
            Ok(decoded) => profiles.extend(decoded),
            Err(error) => refusals.push(Refusal { at, labels, error }),
        }
    }
    (profiles, refusals)
}

/// Names every refused profile: where it stands, whose it is, which field is wrong and what would be right.
fn explain(refusals: &[Refusal], total: usize) -> String {
    let stored = if refusals.len() == total { "" } else { ", the others are stored" };
    let mut text = format!("{} of {total} profiles refused{stored}", refusals.len());
    for (listed, Refusal { at: (series, sample), labels, error }) in refusals.iter().enumerate() {
        if listed == MAX_LISTED {
            write!(text, "; and {} more", refusals.len() - listed).expect("a string takes it");
            break;
        }
        let labels = show(labels);
        write!(text, "; series[{series}]{labels}.samples[{sample}]: {error}").expect("a string takes it");
    }
    text
}

fn show(labels: &[(String, String)]) -> String {
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    let all = format!("{{{}}}", pairs.join(", "));
    match all.char_indices().nth(MAX_LABELS_SHOWN) {
        Some((at, _)) => format!("{}…}}", &all[..at]),
        None => all,
    }
}
