//! The provisioning files for Grafana: well-formed, made of keys that Grafana knows, and of one mind with each other and
//! with what the bridge pushes.

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use spanflame_tests::grafana::{CPU, DEFAULT_TAGS};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File<J> {
    api_version: u32,
    datasources: [DataSource<J>; 1],
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DataSource<J> {
    #[serde(rename = "name")]
    _name: String,
    uid: String,
    #[serde(rename = "type")]
    kind: String,
    access: String,
    url: String,
    #[serde(default)]
    basic_auth: bool,
    #[serde(default)]
    basic_auth_user: String,
    #[serde(default)]
    with_credentials: bool,
    json_data: J,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Profiles {
    min_step: String,
    timeout: u32,
    keep_cookies: Vec<String>,
    overrides_default: bool,
    tls_skip_verify: bool,
    tls_auth: bool,
    #[serde(rename = "tlsAuthWithCACert")]
    tls_auth_with_ca_cert: bool,
    server_name: String,
    oauth_pass_thru: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Tempo {
    traces_to_profiles: TracesToProfiles,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TracesToProfiles {
    datasource_uid: String,
    tags: Vec<Tag>,
    profile_type_id: String,
    custom_query: bool,
    query: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tag {
    key: String,
    value: String,
}

fn text(name: &str) -> String {
    let directory =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/grafana/provisioning/datasources");
    std::fs::read_to_string(directory.join(name)).expect("the file is there")
}

fn read<J: DeserializeOwned>(name: &str) -> DataSource<J> {
    let file: File<J> = serde_saphyr::from_str(&text(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(file.api_version, 1);
    let [source] = file.datasources;
    assert_eq!(source.access, "proxy", "the browser must not ask by itself");
    source
}

#[test]
fn tempo_leads_to_the_profiles_by_what_the_bridge_pushes() {
    let profiles = read::<Profiles>("profiles.yaml");
    let tempo = read::<Tempo>("tempo.yaml");
    assert_eq!((profiles.kind.as_str(), tempo.kind.as_str()), ("grafana-pyroscope-datasource", "tempo"));
    assert_ne!(profiles.url, tempo.url);

    let link = tempo.json_data.traces_to_profiles;
    assert_eq!(link.datasource_uid, profiles.uid);
    assert_eq!(link.profile_type_id, CPU);
    let tags: Vec<_> = link.tags.iter().map(|tag| (tag.key.as_str(), tag.value.as_str())).collect();
    assert_eq!(tags, DEFAULT_TAGS);
    assert!(!link.custom_query, "the basic form is the one to begin with");
    assert_eq!(link.query, "{$${__tags}}");
}

#[test]
fn profiles_are_asked_for_plainly() {
    let profiles = read::<Profiles>("profiles.yaml");
    assert_eq!(profiles.url, "http://127.0.0.1:4040", "the server's default address");
    assert!(!profiles.basic_auth && profiles.basic_auth_user.is_empty() && !profiles.with_credentials);
    let settings = profiles.json_data;
    assert_eq!(settings.min_step, "15s");
    assert!(settings.timeout > 0 && settings.overrides_default && settings.keep_cookies.is_empty());
    assert!(!settings.tls_skip_verify && !settings.tls_auth && !settings.tls_auth_with_ca_cert);
    assert!(settings.server_name.is_empty() && !settings.oauth_pass_thru);
}

#[test]
fn grafana_expands_no_variable_that_is_meant_for_later() {
    // Grafana replaces $NAME and ${NAME} by environment variables when it reads a provisioning file.
    for name in ["profiles.yaml", "tempo.yaml"] {
        for line in text(name).lines().map(str::trim_start).filter(|line| !line.starts_with('#')) {
            assert!(!line.replace("$$", "").contains('$'), "{name}: {line}");
        }
    }
}

#[test]
fn the_guide_shows_the_same_settings() {
    let guide = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/grafana.md"));
    let guide = guide.expect("the guide is there");
    for needed in [CPU, "tracesToProfiles", "datasourceUid", "profileTypeId", "customQuery", "{$${__tags}}"] {
        assert!(guide.contains(needed), "docs/grafana.md does not mention {needed}");
    }
}
