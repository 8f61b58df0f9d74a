//! Profiles that are removed on demand, of one tenant.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use connectrpc::ErrorCode;
use serde::{Deserialize, Serialize};

use super::params::{self, Params};
use crate::api::App;
use crate::api::access::Access;
use crate::api::error::ApiError;
use crate::store::Deletion;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    from: Option<i64>,
    until: Option<i64>,
    #[serde(default)]
    all: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Deleted {
    deleted_profiles: u64,
}

pub(super) async fn profiles(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    Params(which): Params<Which>,
) -> Result<Json<Deleted>, ApiError> {
    let tenant = access.administered()?.clone();
    let range = params::range(which.from, which.until)?;
    // Whoever forgets the time must not lose everything.
    if which.all == range.is_some() {
        return Err(ApiError::invalid_argument(
            "from, until, all: expected a time, or all=true for whatever the tenant has".to_owned(),
        ));
    }
    let (store, deletion) = (Arc::clone(&app.store), Deletion { tenant, range });
    // It goes on to its end if nobody waits for it any more.
    let work = tokio::task::spawn_blocking(move || (store.delete(&deletion), deletion));
    let (deleted, Deletion { tenant, range }) = work.await.map_err(|error| {
        ApiError::new(ErrorCode::Unavailable, format!("profiles could not be deleted: {error}"))
    })?;
    match deleted {
        Ok(profiles) => {
            tracing::info!(%tenant, ?range, profiles, "profiles were deleted on demand");
            Ok(Json(Deleted { deleted_profiles: profiles }))
        }
        Err(error) => {
            tracing::error!(%tenant, ?range, %error, "profiles cannot be deleted");
            Err(ApiError::new(ErrorCode::Unavailable, format!("some profiles may be left: {error}")))
        }
    }
}
