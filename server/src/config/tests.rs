use std::collections::BTreeSet;

use clap::{Args, CommandFactory, FromArgMatches, Parser};

use super::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: ServeArgs,
}

/// Loads a file's text with these flags.
fn load(text: &str, flags: &[&str]) -> Result<Config, ConfigError> {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), text).expect("a written file");
    let path = file.path().to_str().expect("plain");
    let flags = [&["spanflame", "--data-dir=/tmp/a", "--config", path], flags].concat();
    Config::load(Cli::try_parse_from(flags).expect("good flags").args)
}

fn wrong(text: &str) -> String {
    load(text, &[]).unwrap_err().to_string()
}

#[test]
fn command_line_wins_over_file_and_file_over_default() {
    let config = load(
        "listen = '127.0.0.1:1'\ndata_dir = '/tmp/b'\nmax_profile_bytes = 4096\nlog_format = 'json'",
        &["--listen", "127.0.0.1:2", "--max-samples=7"],
    )
    .unwrap();
    assert_eq!(config.listen, "127.0.0.1:2");
    assert_eq!(config.data_dir, Path::new("/tmp/a"));
    assert_eq!((config.limits.max_profile_bytes, config.limits.max_samples), (4096, 7));
    assert_eq!(config.log_format, LogFormat::Json);
    assert!(!config.allow_unauthenticated);
    assert_eq!(config.log, "info");
    let origin = |name| config.origins.get(name);
    assert_eq!(origin("listen"), Some(&Origin::Flag));
    assert_eq!(origin("max_profile_bytes"), Some(&Origin::File(3)));
    assert_eq!(origin("log"), None);
}

#[test]
fn a_switch_needs_no_value() {
    assert!(load("", &["--multi-tenant"]).unwrap().multi_tenant);
    assert!(!load("multi_tenant = true", &["--multi-tenant=false"]).unwrap().multi_tenant);
    assert!(Cli::try_parse_from(["spanflame", "--max-samples=-1"]).is_err());
}

#[test]
fn all_that_is_wrong_is_named_at_once_with_its_place_and_a_suggestion() {
    let error =
        wrong("lisen = '127.0.0.1:1'\n\nmax_samples = 'many'\n[tenant.a]\n[tenants.b]\nmax_sampls = 1");
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines.len(), 4, "{error}");
    for wanted in [
        ":1: unknown setting \"lisen\"; did you mean \"listen\"?",
        ":3: max_samples: expected a whole number, 0 or more, got \"many\"",
        ":4: unknown table \"tenant\"; did you mean \"tenants\"?",
        ":5: tenants.b: unknown limit \"max_sampls\"; did you mean \"max_samples\"?",
    ] {
        assert!(lines.iter().any(|line| line.ends_with(wanted)), "{wanted}: {error}");
    }
    assert!(wrong("a = ").contains(":1: "));
    assert!(!wrong("[tokens.a]\ntoken = 'secret").contains("secret"));
    assert!(wrong("xyz = 1").ends_with("unknown setting \"xyz\""));
}

#[test]
fn values_have_ranges_and_go_together() {
    assert_eq!(
        wrong("max_request_bytes = 1"),
        "max_request_bytes = 1: expected between 1024 and 1073741824 bytes"
    );
    for (text, wanted) in [
        ("max_head_bytes = 1", "max_head_bytes = 1: expected 1048576"),
        ("max_cache_bytes = 1", "max_cache_bytes = 1: expected 1048576"),
        ("flush_bytes = 1", "flush_bytes = 1: expected 1048576"),
        ("flush_after_ms = 0", "flush_after_ms = 0: expected between 1000"),
        ("retention_ms = -1", "retention_ms = -1: expected 0 or more"),
        ("retention_total_bytes = -1", "retention_total_bytes = -1: expected 0 or more"),
        ("compaction_cpu_percent = 101", "compaction_cpu_percent = 101: expected between 1 and 100"),
        ("max_query_requests = 0", "max_query_requests = 0: expected between 1 and"),
        ("query_timeout_ms = 0", "query_timeout_ms = 0: expected between 1 and"),
        ("base_path = 'profiles'", "base_path = \"profiles\": expected a path"),
        ("base_path = '/profiles/'", "base_path = "),
        ("cors_origins = ['app.example']", "got \"app.example\""),
        ("tls_cert_file = '/a'", "tls_key_file is not"),
        ("tls_key_file = '/a'", "tls_cert_file is not"),
        ("tls_client_ca_file = '/a'", "without TLS"),
        ("tokens_file = '/'", "got a directory"),
        ("max_age_ms = -1", "max_age_ms = -1"),
        ("ingestion_burst_bytes = 1", "without ingestion_rate_bytes"),
        ("default_flamegraph_nodes = 2000000", "max_flamegraph_nodes = 1048576"),
        ("tenants = 1", "[tenants.team-a]"),
        ("[tenants]\na = 1", "[tenants.team-a]"),
        ("[tenants.'a|b']\nmax_samples = 1", "tenants.a|b: tenant id: expected"),
        ("[tenants.a]\nmax_profile_bytes = 1", "tenants.a.max_profile_bytes = 1: expected between"),
        ("[tenants.a]\nmax_samples = 1", "tenants.a: there is no such tenant, as multi_tenant is off"),
        ("[tenants.a]\nlisten = 'x'", "unknown limit \"listen\""),
        ("tokens = 1", "[tokens.grafana]"),
        ("[tokens.a]\nread = true", "tokens.a: has neither token nor sha256"),
        ("log_format = 'xml'", "log_format: expected text or json, got \"xml\""),
    ] {
        let error = wrong(text);
        assert!(error.contains(wanted), "{text}: {error}");
    }
}

#[test]
fn tenants_have_the_common_limits_but_for_their_own() {
    let config = load(
        "multi_tenant = true\nmax_samples = 10\nmax_age_ms = 5\n[tenants.team-a]\nmax_samples = 20\nmax_age_ms = 0",
        &["--max-push-bytes=4096"],
    )
    .unwrap();
    let team_a = config.tenant_limits().of(&TenantId::new("team-a").unwrap());
    assert_eq!((team_a.max_samples, team_a.max_push_bytes, team_a.max_age_ms), (20, 4096, None));
    let other = config.tenant_limits().of(&TenantId::new("other").unwrap());
    assert_eq!((other.max_samples, other.max_push_bytes, other.max_age_ms), (10, 4096, Some(5)));
}

#[test]
fn limits_are_read_again_and_the_command_line_still_wins() {
    let config = load("multi_tenant = true\nmax_samples = 10", &["--max-push-bytes=4096"]).unwrap();
    let source = config.source.expect("there is a file");
    let tenant = |id| TenantId::new(id).unwrap();
    let text =
        "multi_tenant = true\nmax_samples = 11\nmax_push_bytes = 9999\n[tenants.a]\nmax_request_bytes = 2048";
    let limits = source.limits(text.as_bytes()).unwrap();
    assert_eq!((limits.of(&tenant("b")).max_samples, limits.of(&tenant("b")).max_push_bytes), (11, 4096));
    assert_eq!((limits.of(&tenant("a")).max_samples, limits.of(&tenant("a")).max_request_bytes), (11, 2048));
    let error = source.limits(b"max_sample = 1").unwrap_err();
    assert!(error.contains(":1: unknown setting \"max_sample\""), "{error}");
    assert!(source.limits(b"\xff").is_err());
}

#[test]
fn tokens_of_the_environment_replace_those_of_the_file() {
    let text = "[tokens.a]\ntoken = '0123456789abcdef'\nread = true";
    let config = load(text, &[]).unwrap();
    assert!(config.authenticates() && config.tokens.find(b"0123456789abcdef").is_some());
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), text).expect("a written file");
    let args = ServeArgs {
        config: Some(file.path().to_owned()),
        tokens: Some("b = { token = 'fedcba9876543210', write = true }".to_owned()),
        ..Default::default()
    };
    let config = Config::load(args).unwrap();
    assert_eq!(config.tokens.find(b"0123456789abcdef"), None);
    assert!(config.tokens.find(b"fedcba9876543210").is_some());
}

#[test]
fn what_is_shown_means_the_same_and_hides_secrets() {
    let config = load(
        "max_samples = 10\nallowed_hosts = ['a', 'b']\nmulti_tenant = true\n[tenants.team-a]\nmax_samples = 20\n\
         [tokens.grafana]\ntoken = '0123456789abcdef'\nread = ['team-a']",
        &["--log=debug"],
    )
    .unwrap();
    let shown = Shown(&config).to_string();
    let line = |name: &str| shown.lines().find(|line| line.starts_with(name)).expect("it is shown");
    assert!(line("max_samples = 10 ").ends_with("# file, line 1"), "{shown}");
    assert!(line("log = \"debug\" ").ends_with("# command line"), "{shown}");
    assert!(line("listen = \"127.0.0.1:4040\" ").ends_with("# default"), "{shown}");
    assert!(!shown.contains("0123456789abcdef"));
    assert!(shown.contains("[tenants.team-a]\nmax_samples = 20\n"), "{shown}");
    assert!(shown.contains("[tokens.grafana] # its secret is not shown\nread = [\"team-a\"]\n"), "{shown}");
    // Without the token, which lacks its secret, it is a file that means the same.
    let (settings, _) = shown.split_once("\n[tokens").expect("tokens come last");
    let again = load(settings, &[]).unwrap();
    assert_eq!((again.limits, again.tenants, again.log), (config.limits, config.tenants, config.log));
}

#[test]
fn names_are_near_or_not() {
    assert_eq!(
        suggest("max-profile-byte", ["listen", "max_profile_bytes"]),
        "; did you mean \"max_profile_bytes\"?"
    );
    assert_eq!(suggest("zebra", ["listen"]), "");
}

/// Flags, variables, keys and the table in the documentation are one list.
#[test]
fn the_documentation_lists_every_setting() {
    let docs = include_str!("../../../docs/configuration.md");
    let (_, server) = docs.split_once("\n# Configuration of the server\n").expect("its heading");
    let mut documented = BTreeSet::new();
    let defaults = Config::default();
    for row in server.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [name, default, meaning] = cells[..] else { panic!("{row}: expected three cells") };
        let name = name.trim_matches('`');
        let value = defaults.value(name).unwrap_or_else(|| panic!("{name} is documented and no setting"));
        assert!(documented.insert(name), "{name} is documented twice");
        assert!(meaning.len() > 10, "{name}: {meaning:?}");
        let shown = args::shown_default(&value);
        let wanted = if shown.is_empty() { "none".to_owned() } else { format!("`{shown}`") };
        assert!(default == wanted || name == "data_dir", "{name}: {default} is documented, {wanted} it is");
    }
    let all: BTreeSet<&str> = all_settings().map(|setting| setting.name).collect();
    assert_eq!(all, documented);
    assert_eq!(all.len(), all_settings().count(), "two settings of one name");

    let command = Cli::command();
    for setting in all_settings() {
        let arg = command.get_arguments().find(|arg| arg.get_id() == setting.name).expect("a flag");
        assert_eq!(arg.get_long(), Some(setting.flag().as_str()));
        assert_eq!(arg.get_env().and_then(|name| name.to_str()), Some(setting.variable().as_str()));
        assert!(arg.get_help().is_some_and(|help| help.to_string().len() > 10), "{}", setting.name);
        let line = format!("{} = {}", setting.name, defaults.value(setting.name).expect("a value"));
        // An empty prefix, directory or list means none in a file too.
        load(&line, &[]).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
    let others: Vec<&str> = command.get_arguments().map(|arg| arg.get_id().as_str()).collect();
    assert_eq!(others.len(), all.len() + 1, "config is the only flag that is no setting: {others:?}");
    assert!(server.contains(TOKENS_VARIABLE));
    // Both traits are what the binary uses.
    let matches =
        ServeArgs::augment_args(clap::Command::new("x")).get_matches_from(["x", "--max-samples", "3"]);
    let args = ServeArgs::from_arg_matches(&matches).expect("good flags");
    assert_eq!(args.given.len(), 1);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn no_file_panics(
        line in "(max_samples|listen|tokens|tenants|base_path|max_age_ms|[a-z_]{1,12}) ?= ?(-?[0-9]{1,20}|true|'[ -&(-~]{0,12}'|\\[.{0,6}\\]|.{0,6})",
        table in "(\\[(tokens|tenants|[a-z.]{1,8})(\\.[a-z'|]{0,6})?\\]\n[a-z_]{1,12} = [0-9]{1,4})?",
    ) {
        let _ = load(&format!("{line}\n{table}\n"), &[]);
    }
}

#[test]
fn an_object_store_is_checked_together_with_what_depends_on_it() {
    let good = load(
        "object_store = 's3://profiles/prod'\nobject_region = 'eu-central-1'\nacknowledge = 'object'",
        &["--object-endpoint", "http://127.0.0.1:9000", "--object-allow-http"],
    )
    .unwrap();
    let bucket = good.bucket().expect("one is named");
    assert_eq!((bucket.to_string().as_str(), bucket.allow_http), ("s3://profiles/prod", true));
    assert_eq!(bucket.endpoint.as_deref(), Some("http://127.0.0.1:9000"));
    assert_eq!(bucket.region.as_deref(), Some("eu-central-1"));
    assert_eq!(good.acknowledge, Acknowledge::Object);
    assert_eq!(load("", &[]).unwrap().bucket(), None);
    for (text, said) in [
        ("object_store = 'profiles'", "object_store: expected s3://bucket or s3://bucket/prefix"),
        ("acknowledge = 'object'", "acknowledge = \"object\" needs an object_store"),
        ("acknowledge = 'both'", "acknowledge: expected local or object"),
        (
            "object_store = 's3://a'\nobject_endpoint = 'http://a'",
            "is not encrypted; set object_allow_http if that is meant",
        ),
        (
            "object_store = 's3://a'\nobject_endpoint = 'a:9000'",
            "object_endpoint = \"a:9000\": expected a URL",
        ),
        (
            "object_store = 's3://a'\nobject_removal_ms = 60000",
            "object_removal_ms = 60000: expected between 61000",
        ),
        ("object_refresh_ms = 0", "object_refresh_ms = 0: expected between 10 and 60000"),
        ("object_publish_ms = 70000", "object_publish_ms = 70000: expected between 10 and 60000"),
    ] {
        let error = wrong(text);
        assert!(error.contains(said), "{text}: {error}");
    }
}
