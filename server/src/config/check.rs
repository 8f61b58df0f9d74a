//! Which values settings may have, alone and together.

use std::path::Path;

use super::Config;
use crate::ingest::Limits;
use crate::model::TenantId;
use crate::store::{Acknowledge, Bucket};

impl Config {
    /// Adds what cannot be.
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        let mut problem = |what: String| problems.push(what);
        if self.data_dir.as_os_str().is_empty() {
            problem(
                "no data directory is known for this user; name one with --data-dir or SPANFLAME_DATA_DIR"
                    .to_owned(),
            );
        }
        for (name, value) in [
            ("max_head_bytes", self.max_head_bytes),
            ("flush_bytes", self.flush_bytes),
            ("max_cache_bytes", self.max_cache_bytes),
            ("max_inflight_bytes", self.max_inflight_bytes),
        ] {
            if value < 1 << 20 {
                problem(format!("{name} = {value}: expected 1048576 bytes or more"));
            }
        }
        if !(1..=100).contains(&self.compaction_cpu_percent) {
            let value = self.compaction_cpu_percent;
            problem(format!("compaction_cpu_percent = {value}: expected between 1 and 100"));
        }
        not_negative("retention_total_bytes", self.retention_total_bytes, &mut problem);
        not_negative("traces_retention_bytes", self.traces_retention_bytes, &mut problem);
        if self.traces_retention_bytes.is_some_and(|bytes| (0..16 << 20).contains(&bytes)) {
            let value = self.traces_retention_bytes.unwrap_or_default();
            problem(format!(
                "traces_retention_bytes = {value}: expected 16777216 bytes or more, or 0 to keep all"
            ));
        }
        message_size("max_query_bytes", self.max_query_bytes, &mut problem);
        for (name, value) in [
            ("max_connections", self.max_connections),
            ("max_ingest_requests", self.max_ingest_requests),
            ("max_query_requests", self.max_query_requests),
            ("max_status_requests", self.max_status_requests),
        ] {
            if !(1..=1_000_000).contains(&value) {
                problem(format!("{name} = {value}: expected between 1 and 1000000"));
            }
        }
        for (name, value, least) in [
            ("flush_after_ms", self.flush_after_ms, 1000),
            ("ingest_timeout_ms", self.ingest_timeout_ms, 1),
            ("query_timeout_ms", self.query_timeout_ms, 1),
            ("status_timeout_ms", self.status_timeout_ms, 1),
            ("shutdown_timeout_ms", self.shutdown_timeout_ms, 0),
        ] {
            if !(least..=86_400_000).contains(&value) {
                problem(format!("{name} = {value}: expected between {least} and 86400000 milliseconds"));
            }
        }
        self.check_object_store(&mut problem);
        limits(&self.limits, &mut problem);
        let unreachable = |tenant: &&TenantId| !self.multi_tenant && tenant.as_str() != TenantId::ANONYMOUS;
        for tenant in self.tenants.keys().filter(unreachable) {
            problem(format!("tenants.{tenant}: there is no such tenant, as multi_tenant is off"));
        }
        self.check_base_path(&mut problem);
        self.check_origins(&mut problem);
        self.check_files(&mut problem);
    }

    fn check_object_store(&self, problem: &mut impl FnMut(String)) {
        for (name, value, least) in [
            ("object_publish_ms", self.object_publish_ms, 10),
            ("object_refresh_ms", self.object_refresh_ms, 10),
        ] {
            if !(least..=60_000).contains(&value) {
                problem(format!("{name} = {value}: expected between {least} and 60000 milliseconds"));
            }
        }
        // Servers read what they were about to read for as long as a query may last.
        let least = self.query_timeout_ms.saturating_add(self.object_refresh_ms);
        if !self.object_store.is_empty() && !(least..=3_600_000).contains(&self.object_removal_ms) {
            problem(format!(
                "object_removal_ms = {}: expected between {least}, which is query_timeout_ms and object_refresh_ms, and \
                 3600000 milliseconds",
                self.object_removal_ms
            ));
        }
        if self.object_store.is_empty() {
            if self.acknowledge == Acknowledge::Object {
                problem("acknowledge = \"object\" needs an object_store".to_owned());
            }
            return;
        }
        if let Err(what) = Bucket::parse(&self.object_store) {
            problem(format!("object_store: {what}"));
        }
        let endpoint = &self.object_endpoint;
        if endpoint.starts_with("http://") && !self.object_allow_http {
            problem(format!(
                "object_endpoint = {endpoint:?} is not encrypted; set object_allow_http if that is meant"
            ));
        } else if !(endpoint.is_empty()
            || endpoint.starts_with("http://")
            || endpoint.starts_with("https://"))
        {
            problem(format!("object_endpoint = {endpoint:?}: expected a URL such as \"https://s3.example\""));
        }
    }

    fn check_base_path(&self, problem: &mut impl FnMut(String)) {
        let path = &self.base_path;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
        let good = path.is_empty()
            || path.starts_with('/')
                && !path.ends_with('/')
                && !path.contains("//")
                && path.bytes().all(plain);
        if !good {
            problem(format!(
                "base_path = {path:?}: expected a path such as \"/profiles\", without a slash at its end"
            ));
        }
    }

    fn check_origins(&self, problem: &mut impl FnMut(String)) {
        for origin in self.cors_origins.iter().filter(|origin| *origin != "*") {
            let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            let good = host.is_some_and(|host| {
                !host.is_empty() && host.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b'*')
            });
            if !good {
                problem(format!(
                    "cors_origins: expected \"*\" or origins such as \"https://app.example\", got {origin:?}"
                ));
            }
        }
    }

    fn check_files(&self, problem: &mut impl FnMut(String)) {
        let other = |name: &str, set: &str| format!("{set} is set, {name} is not: TLS needs both");
        match (&self.tls_cert_file, &self.tls_key_file) {
            (Some(_), None) => problem(other("tls_key_file", "tls_cert_file")),
            (None, Some(_)) => problem(other("tls_cert_file", "tls_key_file")),
            (None, None) if self.tls_client_ca_file.is_some() => {
                problem(
                    "tls_client_ca_file is set without TLS; set tls_cert_file and tls_key_file".to_owned(),
                );
            }
            _ => {}
        }
        for (name, path) in [
            ("tokens_file", &self.tokens_file),
            ("tls_cert_file", &self.tls_cert_file),
            ("tls_key_file", &self.tls_key_file),
            ("tls_client_ca_file", &self.tls_client_ca_file),
        ] {
            if path.as_deref().is_some_and(Path::is_dir) {
                problem(format!(
                    "{name} = {:?}: expected a file, got a directory",
                    super::shown(path.as_deref())
                ));
            }
        }
    }
}

/// The most that a limit of bodies and messages may say, in bytes.
pub(crate) const MAX_MESSAGE_BYTES: usize = 1 << 30;

/// What the limits of a tenant may be.
pub(super) fn limits(limits: &Limits, problem: &mut impl FnMut(String)) {
    for (name, value) in [
        ("max_request_bytes", limits.max_request_bytes),
        ("max_message_bytes", limits.max_message_bytes),
        ("max_profile_bytes", limits.max_profile_bytes),
        ("max_push_bytes", limits.max_push_bytes),
    ] {
        message_size(name, value, problem);
    }
    for (name, value) in [
        ("max_profiles_per_push", limits.max_profiles_per_push),
        ("max_decoded_bytes", limits.max_decoded_bytes),
        ("max_samples", limits.max_samples),
        ("max_stack_depth", limits.max_stack_depth),
        ("max_string_bytes", limits.max_string_bytes),
        ("max_labels_per_series", limits.max_labels_per_series),
        ("max_label_name_bytes", limits.max_label_name_bytes),
        ("max_label_value_bytes", limits.max_label_value_bytes),
        ("max_series_per_profile", limits.max_series_per_profile),
        ("max_spans_per_push", limits.max_spans_per_push),
        ("max_attribute_bytes", limits.max_attribute_bytes),
    ] {
        if value == 0 {
            problem(format!("{name} = 0: expected 1 or more, as nothing of use would be left"));
        }
    }
    not_negative("max_age_ms", limits.max_age_ms, problem);
    not_negative("retention_ms", limits.retention_ms, problem);
    not_negative("retention_bytes", limits.retention_bytes, problem);
    if limits.max_ahead_ms < 0 {
        problem(format!("max_ahead_ms = {}: expected 0 or more", limits.max_ahead_ms));
    }
    if limits.ingestion_burst_bytes > 0 && limits.ingestion_rate_bytes == 0 {
        problem("ingestion_burst_bytes is set without ingestion_rate_bytes".to_owned());
    }
    let (default, most) = (limits.default_flamegraph_nodes, limits.max_flamegraph_nodes);
    if !(1..=1 << 24).contains(&most) {
        problem(format!("max_flamegraph_nodes = {most}: expected between 1 and 16777216"));
    } else if !(1..=most).contains(&default) {
        problem(format!(
            "default_flamegraph_nodes = {default}: expected between 1 and max_flamegraph_nodes = {most}"
        ));
    }
}

fn not_negative(name: &str, value: Option<i64>, problem: &mut impl FnMut(String)) {
    if let Some(value) = value.filter(|value| *value < 0) {
        problem(format!("{name} = {value}: expected 0 or more"));
    }
}

fn message_size(name: &str, value: usize, problem: &mut impl FnMut(String)) {
    if !(1024..=MAX_MESSAGE_BYTES).contains(&value) {
        problem(format!("{name} = {value}: expected between 1024 and 1073741824 bytes"));
    }
}
