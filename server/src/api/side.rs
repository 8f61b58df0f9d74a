//! The small services beside the queries: settings of users, what the server can do, which version it has.

use std::sync::Arc;

use connectrpc::{ConnectError, Encodable, RequestContext, Response, ServiceRequest, ServiceResult};
use spanflame_wire::capabilities::v1::{
    FeatureFlag, FeatureFlagsService, GetFeatureFlagsRequest, GetFeatureFlagsResponse,
};
use spanflame_wire::settings::v1::{
    GetSettingsRequest, GetSettingsResponse, SetSettingsRequest, SetSettingsResponse, Setting,
    SettingsService,
};
use spanflame_wire::version::v1::{Version, VersionRequest, VersionResponse};

use super::App;
use super::access::Access;
use crate::store::system_clock;
use crate::user_settings::{self, SettingsError};

/// The version of the query interface that clients may expect.
const QUERIER_API: u64 = 1;

/// What clients ask for before they offer it, and whether it is there.
const FLAGS: [(&str, bool, &str); 5] = [
    ("functionProjections", false, "tables and sandwiches of functions as answers"),
    ("pyroscopeRuler", false, "recording rules"),
    ("pyroscopeRulerFunctions", false, "recording rules for functions"),
    ("utf8LabelNames", true, "label names with dots and other characters, never hidden"),
    ("v2StorageLayer", true, "heatmaps, exemplars, and selectors of traces and profiles"),
];

pub(super) struct Settings(pub(super) Arc<App>);

impl SettingsService for Settings {
    async fn get<'a>(
        &'a self,
        context: RequestContext,
        _: ServiceRequest<'_, GetSettingsRequest>,
    ) -> ServiceResult<impl Encodable<GetSettingsResponse> + Send + use<'a>> {
        let tenant = Access::of(context.extensions()).single()?.clone();
        let kept = self.0.compute(move |app| app.user_settings.get(&tenant)).await.map_err(failed)?;
        let settings = kept.into_iter().map(|(name, setting)| wire(name, setting)).collect();
        Response::ok(GetSettingsResponse { settings, ..Default::default() })
    }

    async fn set<'a>(
        &'a self,
        context: RequestContext,
        request: ServiceRequest<'_, SetSettingsRequest>,
    ) -> ServiceResult<impl Encodable<SetSettingsResponse> + Send + use<'a>> {
        let tenant = Access::of(context.extensions()).writable()?.clone();
        let request = request.to_owned_message();
        let Some(Setting { name, value, modifiedAt, .. }) = request.setting.into_option() else {
            return Err(ConnectError::invalid_argument("setting: expected a name and a value, got nothing"));
        };
        let now_ms = system_clock()();
        let modified_ms = if modifiedAt == 0 { now_ms } else { modifiedAt };
        let setting = user_settings::Setting { value, modified_ms };
        let kept = self.0.compute(move |app| {
            app.user_settings.set(&tenant, &name, setting.clone(), now_ms)?;
            Ok(wire(name, setting))
        });
        let setting = kept.await.map_err(failed)?.into();
        Response::ok(SetSettingsResponse { setting, ..Default::default() })
    }
}

fn wire(name: String, setting: user_settings::Setting) -> Setting {
    Setting { name, value: setting.value, modifiedAt: setting.modified_ms, ..Default::default() }
}

fn failed(error: SettingsError) -> ConnectError {
    match &error {
        SettingsError::Invalid(message) => ConnectError::invalid_argument(message),
        SettingsError::Outdated { .. } => ConnectError::already_exists(error.to_string()),
        SettingsError::Io { .. } => {
            tracing::error!(%error, "settings failed");
            ConnectError::unavailable(error.to_string())
        }
    }
}

pub(super) struct FeatureFlags;

impl FeatureFlagsService for FeatureFlags {
    async fn get_feature_flags<'a>(
        &'a self,
        _: RequestContext,
        _: ServiceRequest<'_, GetFeatureFlagsRequest>,
    ) -> ServiceResult<impl Encodable<GetFeatureFlagsResponse> + Send + use<'a>> {
        let flag = |(name, enabled, description): (&str, bool, &str)| FeatureFlag {
            name: name.to_owned(),
            enabled,
            description: Some(description.to_owned()),
            ..Default::default()
        };
        let feature_flags = FLAGS.into_iter().map(flag).collect();
        Response::ok(GetFeatureFlagsResponse { feature_flags, ..Default::default() })
    }
}

pub(super) struct Versions;

impl Version for Versions {
    async fn version<'a>(
        &'a self,
        _: RequestContext,
        _: ServiceRequest<'_, VersionRequest>,
    ) -> ServiceResult<impl Encodable<VersionResponse> + Send + use<'a>> {
        Response::ok(VersionResponse { QuerierAPI: QUERIER_API, ..Default::default() })
    }
}
