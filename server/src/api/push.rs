//! `push.v1.PusherService`: profiles in. A bad series never costs its neighbours.

use std::fmt::{self, Display, Write as _};
use std::sync::Arc;

use bytes::Bytes;
use connectrpc::{ConnectError, Encodable, RequestContext, Response, ServiceRequest, ServiceResult};
use spanflame_wire::push::v1::__buffa::view::RawProfileSeriesView;
use spanflame_wire::push::v1::{PushRequest, PushResponse, PusherService};

use super::App;
use super::access::Access;
use super::intake;
use super::refusals::Refusals;
use crate::cancel;
use crate::ingest::{self, Budget, IngestError, Limits, SeriesLabels};
use crate::model::{Profile, ProfileId};

/// How much of a label set an error text shows, in characters.
const MAX_LABELS_SHOWN: usize = 200;

pub(super) struct Pusher(pub(super) Arc<App>);

/// A series that has profiles, checked once for all of them.
struct Series {
    /// Where it stands in the request.
    at: usize,
    /// Its labels as an error text shows them.
    shown: String,
    labels: Result<SeriesLabels, IngestError>,
}

/// Where a profile stands: its series, and which of the series' samples it is; and the id that its sender gave it.
struct Place {
    series: Arc<Series>,
    sample: usize,
    id: Option<ProfileId>,
}

impl Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Series { at, shown, .. } = &*self.series;
        write!(f, "series[{at}]{shown}.samples[{}]", self.sample)
    }
}

impl PusherService for Pusher {
    async fn push<'a>(
        &'a self,
        context: RequestContext,
        request: ServiceRequest<'_, PushRequest>,
    ) -> ServiceResult<impl Encodable<PushResponse> + Send + use<'a>> {
        let app = &self.0;
        let tenant = Access::of(context.extensions()).writable()?;
        app.metrics.pushes.inc();
        let samples = || request.series.iter().flat_map(|series| series.samples.iter());
        let total = samples().count();
        app.metrics.profile_bytes.inc_by(samples().map(|sample| sample.raw_profile.len() as u64).sum());

        let mut refusals = Refusals::default();
        let limits = app.limits(tenant);
        let labels: usize = request.series.iter().map(labels_bytes).sum();
        let inputs = inputs(request, &limits, &mut refusals);
        let decoded = intake::decode(app, tenant, move |limits, budget| {
            budget.count(labels);
            decode(limits, budget, inputs, refusals)
        });
        let (decoded, mut refusals) = decoded.await?;
        for (places, error) in intake::append(app, tenant, decoded).await? {
            refusals.add_unstored(&places, &error);
        }
        match refusals.report(app, total) {
            None => Response::ok(PushResponse::default()),
            Some(message) => Err(ConnectError::invalid_argument(message)),
        }
    }
}

/// How much a series says of itself.
fn labels_bytes(series: &RawProfileSeriesView<'_>) -> usize {
    series.labels.iter().map(|label| label.name.len() + label.value.len()).sum()
}

/// The profiles that will be looked at, still encoded.
fn inputs(
    request: ServiceRequest<'_, PushRequest>,
    limits: &Limits,
    refusals: &mut Refusals,
) -> Vec<(Place, Bytes)> {
    let mut inputs = Vec::new();
    let mut seen = 0;
    for (at, series) in request.series.iter().enumerate().filter(|(_, series)| !series.samples.is_empty()) {
        let labels = || series.labels.iter().map(|label| (label.name, label.value));
        let checked =
            Arc::new(Series { at, shown: show(labels()), labels: SeriesLabels::new(labels(), limits) });
        for (sample, raw) in series.samples.iter().enumerate() {
            // A name that is no UUID is the sender's own affair.
            let place = Place { series: Arc::clone(&checked), sample, id: raw.ID.parse().ok() };
            seen += 1;
            if seen > limits.max_profiles_per_push {
                refusals.add(&place, &IngestError::too_many_profiles(limits, seen));
            } else {
                inputs.push((place, request.bytes().slice_ref(raw.raw_profile)));
            }
        }
    }
    inputs
}

/// The profiles of each input that is good.
fn decode(
    limits: &Limits,
    budget: &mut Budget,
    inputs: Vec<(Place, Bytes)>,
    mut refusals: Refusals,
) -> (Vec<(Place, Vec<Profile>)>, Refusals) {
    let received_ms = intake::now_ms();
    let mut decoded = Vec::new();
    for (place, raw) in inputs {
        // Nothing is stored of a push that was given up.
        if cancel::check().is_err() {
            break;
        }
        let profiles = match &place.series.labels {
            Ok(labels) => ingest::decode_profile(labels, raw, limits, budget, received_ms),
            Err(error) => Err(error.clone()),
        };
        match profiles {
            Ok(mut profiles) => {
                profiles.iter_mut().for_each(|profile| profile.id = place.id.unwrap_or(profile.id));
                decoded.push((place, profiles));
            }
            Err(error) => refusals.add(&place, &error),
        }
    }
    (decoded, refusals)
}

/// The labels, as many as an error text has room for.
fn show<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = String::new();
    for (name, value) in labels {
        let comma = if text.is_empty() { "" } else { ", " };
        // No label shows more than all of them may.
        let part =
            |text: &'a str| text.char_indices().nth(MAX_LABELS_SHOWN).map_or(text, |(at, _)| &text[..at]);
        write!(text, "{comma}{}={:?}", part(name), part(value)).expect("a string takes it");
        if let Some((at, _)) = text.char_indices().nth(MAX_LABELS_SHOWN) {
            text.truncate(at);
            text.push('…');
            break;
        }
    }
    format!("{{{text}}}")
}
