//! The end of every way that profiles come in: what was decoded is made durable, and counted.

use std::time::{SystemTime, UNIX_EPOCH};

use connectrpc::ConnectError;

use super::App;
use super::error::append_failed;
use crate::ingest::IngestError;
use crate::model::{Profile, TenantId};
use crate::store::{ErrorKind, StoreError};

/// Inputs that the store refused, and why. It never took anything of them.
pub(super) type Refused<K> = Vec<(Vec<K>, StoreError)>;

/// The time of arrival, in Unix milliseconds.
pub(super) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as i64)
}

/// Under which name a refusal is counted.
pub(super) fn reason(error: &IngestError) -> &'static str {
    match error {
        IngestError::OverLimit { .. } => "over_limit",
        _ => "invalid_profile",
    }
}

/// Makes inputs durable, each with a key and the profiles that were decoded from it, in as few appends as the store takes.
///
/// What was appended stays, whatever becomes of the rest: a sender that tries again may store it twice, never lose it.
///
/// # Errors
/// When the store takes nothing now.
pub(super) async fn append<K>(
    app: &App,
    tenant: &TenantId,
    inputs: Vec<(K, Vec<Profile>)>,
) -> Result<Refused<K>, ConnectError> {
    let mut refused = Vec::new();
    for append in app.store.fitting(inputs) {
        let (keys, profiles): (Vec<K>, Vec<Vec<Profile>>) = append.into_iter().unzip();
        let profiles: Vec<Profile> = profiles.into_iter().flatten().collect();
        let (stored, samples) = (profiles.len(), profiles.iter().map(|p| p.rows() as u64).sum());
        match app.store.append(tenant, profiles).await {
            Ok(()) => {
                app.metrics.profiles.inc_by(stored as u64);
                app.metrics.samples.inc_by(samples);
            }
            Err(error) if error.kind() == ErrorKind::InvalidRequest => refused.push((keys, error)),
            Err(error) => {
                app.metrics.refuse("store");
                return Err(append_failed(&error));
            }
        }
    }
    Ok(refused)
}
