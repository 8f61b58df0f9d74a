//! What all ways have in common by which profiles come in: they are decoded within their tenant's limits and charged to it,
//! and what was decoded is made durable and counted.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use connectrpc::ConnectError;

use super::error::{ApiError, append_failed};
use super::{App, admit};
use crate::ingest::{Budget, Limits};
use crate::model::{Profile, TenantId};
use crate::store::{ErrorKind, StoreError};

/// Inputs that the store refused, and why. It never took anything of them.
pub(super) type Refused<K> = Vec<(Vec<K>, StoreError)>;

/// The time of arrival, in Unix milliseconds.
pub(super) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as i64)
}

/// Decodes what a tenant sent on a thread for it, unless the tenant has brought too much by now, and charges it for what that
/// was.
pub(super) async fn decode<T: Send + 'static>(
    app: &Arc<App>,
    tenant: &TenantId,
    work: impl FnOnce(&Limits, &mut Budget) -> T + Send + 'static,
) -> Result<T, ApiError> {
    let (charged, tenant) = (Arc::clone(app), tenant.clone());
    let work = move || {
        let limits = charged.limits(&tenant);
        // Others of the tenant may have been decoded since this one was let in.
        let meter = admit::meter(&charged, &tenant, &limits)?;
        let mut budget = Budget::new(&limits);
        let decoded = work(&limits, &mut budget);
        meter.charge(budget.sent());
        Ok(decoded)
    };
    app.decoders.run(work).await
}

/// Under which name it is counted that the store does not take profiles.
pub(super) const UNSTORABLE: &str = "max_head_bytes";

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
