use super::*;
use crate::Profiler;

/// Resolves `builder` in an environment that holds `variables` and nothing else.
fn resolve(builder: ProfilerBuilder, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    builder.resolve(&|name| {
        variables.iter().find(|(present, _)| *present == name).map(|(_, value)| OsString::from(value))
    })
}

fn from_env(variables: &[(&str, &str)]) -> Config {
    resolve(Profiler::builder(), variables).expect("these settings are fine")
}

#[test]
fn nothing_set_means_the_documented_defaults() {
    let config = from_env(&[]);
    assert!(config.enabled && config.exporter.is_none() && config.resource.is_none());
    assert_eq!(config.frequency, 100);
    assert_eq!((config.clock, config.cpu_budget), (Clock::Auto, Some(0.01)));
    assert_eq!(config.upload_interval, Duration::from_secs(10));
    assert_eq!(config.scope, Scope::Auto);
    assert_eq!(config.max_span_names, 1000);
    assert_eq!((config.span_names, config.label_keys), (SpanNames::Auto, Vec::new()));
    assert!(config.span_name_normalizer.is_none());
    assert_eq!(config.trace_ids, TraceIdLabel::Auto);
    assert!(!config.label_at_start);
    assert_eq!(config.destination.server_address, DEFAULT_SERVER_ADDRESS);
    assert_eq!(config.destination.basic_auth, None);
    assert_eq!(config.destination.tenant_id, None);
    assert_eq!(config.destination.profile_dir, None);
    assert_eq!(config.identity.fixed_name, None);
    assert!(config.identity.fallback_name.starts_with("unknown_service:"));
}

#[test]
fn every_variable_is_read() {
    let config = from_env(&[
        ("PYROSCOPE_SERVER_ADDRESS", "http://pyroscope:4040/base/"),
        ("PYROSCOPE_APPLICATION_NAME", "checkout"),
        ("PYROSCOPE_BASIC_AUTH_USER", "me"),
        ("PYROSCOPE_BASIC_AUTH_PASSWORD", "a:b"),
        ("PYROSCOPE_TENANT_ID", "team-a"),
        ("PYROSCOPE_LABELS", "region=eu, zone = 2,"),
        ("OTEL_SERVICE_NAME", "other"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.namespace=a%20shop,service.name=third"),
        ("SPANFLAME_ENABLED", "FALSE"),
        ("SPANFLAME_FREQUENCY", "250"),
        ("SPANFLAME_CLOCK", "thread-timers"),
        ("SPANFLAME_CPU_BUDGET", "2.5"),
        ("SPANFLAME_UNWINDER", "frame-pointers"),
        ("SPANFLAME_UPLOAD_INTERVAL", "2.5"),
        ("SPANFLAME_SCOPE", "all"),
        ("SPANFLAME_SPAN_NAMES", "Root"),
        ("SPANFLAME_MAX_SPAN_NAMES", "7"),
        ("SPANFLAME_ATTRIBUTE_LABELS", "http.route, rpc.method,"),
        ("SPANFLAME_BAGGAGE_LABELS", "tenant"),
        ("SPANFLAME_TRACE_IDS", "never"),
        ("SPANFLAME_LABEL_AT_START", "true"),
        ("SPANFLAME_PROFILE_DIR", "/tmp/profiles"),
    ]);
    assert!(!config.enabled && config.label_at_start);
    assert_eq!(config.span_names, SpanNames::Root);
    let keys: Vec<_> = config.label_keys.iter().map(|key| (key.source, &*key.key, &*key.label)).collect();
    let expected = [
        (Source::Attribute, "http.route", "http_route"),
        (Source::Attribute, "rpc.method", "rpc_method"),
        (Source::Baggage, "tenant", "tenant"),
    ];
    assert_eq!(keys, expected);
    assert_eq!(config.frequency, 250);
    assert_eq!((config.clock, config.cpu_budget), (Clock::ThreadTimers, Some(0.025)));
    assert_eq!(config.unwinder, Unwinder::FramePointers);
    assert_eq!(config.upload_interval, Duration::from_millis(2500));
    assert_eq!(config.scope, Scope::All);
    assert_eq!(config.max_span_names, 7);
    assert_eq!(config.trace_ids, TraceIdLabel::Never);
    assert_eq!(config.destination.server_address, "http://pyroscope:4040/base");
    assert_eq!(config.destination.basic_auth, Some(("me".to_owned(), "a:b".to_owned())));
    assert_eq!(config.destination.tenant_id.as_deref(), Some("team-a"));
    assert_eq!(config.destination.profile_dir.as_deref(), Some("/tmp/profiles"));
    assert_eq!(config.identity.fixed_name.as_deref(), Some("checkout"));
    assert_eq!(config.identity.fallback_name, "other");
    assert_eq!(config.identity.fallback_namespace.as_deref(), Some("a shop"));
    let labels = [("region".to_owned(), "eu".to_owned()), ("zone".to_owned(), "2".to_owned())];
    assert_eq!(config.identity.user_labels, labels);
}

#[test]
fn code_beats_the_environment_even_a_broken_one() {
    let builder = Profiler::builder()
        .server_address("http://code:1")
        .service_name("code")
        .label("region", "code")
        .basic_auth("code", "code")
        .tenant_id("code")
        .frequency(1)
        .unwinder(Unwinder::Tables)
        .upload_interval(Duration::from_secs(15))
        .scope(Scope::Root)
        .span_names(SpanNames::All)
        .span_name_normalizer(|name| name.into())
        .attribute_label("http.route")
        .max_span_names(1)
        .trace_ids(TraceIdLabel::Always)
        .enabled(true);
    let config = resolve(
        builder,
        &[
            ("PYROSCOPE_SERVER_ADDRESS", "nonsense"),
            ("PYROSCOPE_APPLICATION_NAME", "env"),
            ("PYROSCOPE_LABELS", "region=env,zone=env"),
            ("PYROSCOPE_BASIC_AUTH_USER", "half"),
            ("PYROSCOPE_TENANT_ID", "\u{e9}"),
            ("SPANFLAME_FREQUENCY", "fast"),
            ("SPANFLAME_UNWINDER", "fast"),
            ("SPANFLAME_UPLOAD_INTERVAL", "never"),
            ("SPANFLAME_SCOPE", "some"),
            ("SPANFLAME_SPAN_NAMES", "perhaps"),
            ("SPANFLAME_MAX_SPAN_NAMES", "-1"),
            ("SPANFLAME_TRACE_IDS", "?"),
            ("SPANFLAME_ENABLED", "?"),
        ],
    )
    .expect("code decides");
    assert_eq!(config.destination.server_address, "http://code:1");
    assert_eq!(config.destination.basic_auth, Some(("code".to_owned(), "code".to_owned())));
    assert_eq!(config.destination.tenant_id.as_deref(), Some("code"));
    assert_eq!(config.identity.fixed_name.as_deref(), Some("code"));
    assert_eq!((config.frequency, config.max_span_names), (1, 1));
    assert_eq!(config.unwinder, Unwinder::Tables);
    assert_eq!(config.upload_interval, Duration::from_secs(15));
    assert_eq!((config.scope, config.trace_ids), (Scope::Root, TraceIdLabel::Always));
    assert!(config.span_names == SpanNames::All && config.enabled);
    assert!(config.span_name_normalizer.is_some_and(|normalize| normalize("a") == "a"));
    assert_eq!(config.label_keys.len(), 1);
    let labels = [("region".to_owned(), "code".to_owned()), ("zone".to_owned(), "env".to_owned())];
    assert_eq!(config.identity.user_labels, labels);
}

#[test]
fn an_empty_variable_is_an_unset_one() {
    let config = from_env(&[("SPANFLAME_FREQUENCY", " "), ("PYROSCOPE_SERVER_ADDRESS", "")]);
    assert_eq!(config.frequency, 100);
    assert_eq!(config.destination.server_address, DEFAULT_SERVER_ADDRESS);
}

#[test]
fn a_bad_variable_is_refused_with_its_name_its_range_and_what_it_held() {
    for (name, value, expected) in [
        ("SPANFLAME_FREQUENCY", "0", "a whole number from 1 to 1000"),
        ("SPANFLAME_FREQUENCY", "1001", "a whole number from 1 to 1000"),
        ("SPANFLAME_FREQUENCY", "99.9", "a whole number from 1 to 1000"),
        ("SPANFLAME_UPLOAD_INTERVAL", "0.5", "seconds from 1 to 15"),
        ("SPANFLAME_UPLOAD_INTERVAL", "60", "seconds from 1 to 15"),
        ("SPANFLAME_UPLOAD_INTERVAL", "10s", "seconds from 1 to 15"),
        ("SPANFLAME_UPLOAD_INTERVAL", "-3", "seconds from 1 to 15"),
        ("SPANFLAME_UPLOAD_INTERVAL", "NaN", "seconds from 1 to 15"),
        ("SPANFLAME_UNWINDER", "dwarf", "one of tables, frame-pointers"),
        ("SPANFLAME_SCOPE", "none", "one of auto, root, all"),
        ("SPANFLAME_TRACE_IDS", "yes", "one of auto, always, never"),
        ("SPANFLAME_SPAN_NAMES", "on", "one of auto, root, all, off"),
        ("SPANFLAME_ATTRIBUTE_LABELS", "span.id", "a label name that is not reserved"),
        ("SPANFLAME_ENABLED", "on", "one of true, false, 1, 0"),
        ("SPANFLAME_MAX_SPAN_NAMES", "0", "a whole number from 1 to 100000"),
        ("PYROSCOPE_SERVER_ADDRESS", "localhost:4040", "a URL such as http://127.0.0.1:4040"),
        ("PYROSCOPE_SERVER_ADDRESS", "ftp://host", "an http or https URL"),
        ("PYROSCOPE_SERVER_ADDRESS", "http://", "a host, and a port from 1 to 65535 if there is one"),
        ("PYROSCOPE_SERVER_ADDRESS", "http://h:0", "a host, and a port from 1 to 65535 if there is one"),
        ("PYROSCOPE_SERVER_ADDRESS", "http://h:65536", "a host, and a port from 1 to 65535 if there is one"),
        ("PYROSCOPE_SERVER_ADDRESS", "http://h/a b", "a URL without query, fragment or blanks"),
        ("PYROSCOPE_LABELS", "region", "name=value pairs separated by commas"),
        ("PYROSCOPE_TENANT_ID", "a\tb", "printable ASCII characters"),
        ("OTEL_RESOURCE_ATTRIBUTES", "broken", "name=value pairs separated by commas"),
    ] {
        let error = resolve(Profiler::builder(), &[(name, value)]).err().expect("not acceptable");
        let message = format!("{name}: expected {expected}, got {value:?}");
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn addresses_of_every_usual_form_are_taken() {
    for (given, kept) in [
        ("http://localhost", "http://localhost"),
        ("http://[::1]:4040/", "http://[::1]:4040"),
        ("http://[::1]", "http://[::1]"),
        (" http://h:1/a/b// ", "http://h:1/a/b"),
    ] {
        let config = resolve(Profiler::builder().server_address(given), &[]).expect("a good address");
        assert_eq!(config.destination.server_address, kept);
    }
    let https = resolve(Profiler::builder().server_address("https://profiles.example"), &[]);
    assert_eq!(https.is_ok(), cfg!(feature = "tls"));
}

#[test]
fn builder_methods_are_checked_like_variables() {
    for (builder, setting) in [
        (Profiler::builder().frequency(0), "frequency"),
        (Profiler::builder().frequency(1001), "frequency"),
        (Profiler::builder().upload_interval(Duration::from_millis(999)), "upload_interval"),
        (Profiler::builder().upload_interval(Duration::from_secs(16)), "upload_interval"),
        (Profiler::builder().max_span_names(0), "max_span_names"),
        (Profiler::builder().server_address("nope"), "server_address"),
        (Profiler::builder().service_name(" "), "service_name"),
        (Profiler::builder().label("span_id", "x"), "label"),
        (Profiler::builder().attribute_label(""), "attribute_label"),
        (Profiler::builder().baggage_label("trace_id"), "baggage_label"),
        (Profiler::builder().label("tenant", "x").baggage_label("tenant"), "baggage_label"),
        (Profiler::builder().basic_auth("a:b", "c"), "basic_auth"),
        (Profiler::builder().tenant_id(""), "tenant_id"),
    ] {
        let error = resolve(builder, &[]).err().expect("not acceptable");
        assert_eq!(error.setting, setting);
    }
}

#[test]
fn secrets_are_not_repeated() {
    let variables = [("PYROSCOPE_BASIC_AUTH_PASSWORD", "hunter2")];
    let error = resolve(Profiler::builder(), &variables).err().expect("a user is missing");
    assert_eq!(error.setting, "PYROSCOPE_BASIC_AUTH_USER");
    assert!(!error.to_string().contains("hunter2"));

    let builder = Profiler::builder().server_address("http://me:hunter2@host");
    assert!(!resolve(builder, &[]).err().expect("credentials in the URL").to_string().contains("hunter2"));

    let builder = Profiler::builder().basic_auth("me", "hunter2");
    assert!(!format!("{builder:?}").contains("hunter2"));
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_text_is_refused_by_name() {
    use std::os::unix::ffi::OsStringExt as _;
    let lookup =
        |name: &str| (name == "PYROSCOPE_SERVER_ADDRESS").then(|| OsString::from_vec(vec![b'h', 0xff]));
    let error = Profiler::builder().resolve(&lookup).err().expect("not text");
    assert_eq!((&*error.setting, &*error.expected), ("PYROSCOPE_SERVER_ADDRESS", "UTF-8 text"));
}

#[test]
fn a_refused_url_does_not_repeat_its_credentials() {
    for url in [
        "ftp://user:hunter2@host",
        "user:hunter2@host:4040",
        "http://user:hunter2@host",
        "http://user:hunter2@host/?query",
        "http://user:hunter2 @host",
        "http://user:hun#hunter2@host",
        "http://user:hun/hunter2@host:99999",
        "http://host:4040/?token=hunter2",
        "host?token=hunter2",
        "ftp://host/#hunter2",
    ] {
        let error = resolve(Profiler::builder().server_address(url), &[]).err().expect("refused");
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert_eq!(error.setting, "server_address");
    }
}

#[test]
fn the_cpu_budget_is_percent_or_off() {
    assert_eq!(from_env(&[("SPANFLAME_CPU_BUDGET", "OFF")]).cpu_budget, None);
    let built = |builder: ProfilerBuilder| resolve(builder, &[("SPANFLAME_CPU_BUDGET", "7")]);
    assert_eq!(built(Profiler::builder().cpu_budget(None)).expect("fine").cpu_budget, None);
    assert_eq!(built(Profiler::builder().cpu_budget(0.5)).expect("fine").cpu_budget, Some(0.005));
    for wrong in ["0", "101", "-1", "NaN", "a lot"] {
        let error = resolve(Profiler::builder(), &[("SPANFLAME_CPU_BUDGET", wrong)]).err().expect("refused");
        assert!(
            error.to_string().contains("SPANFLAME_CPU_BUDGET: expected percent from 0.01 to 100"),
            "{error}"
        );
    }
    let error = built(Profiler::builder().cpu_budget(f64::INFINITY)).err().expect("refused");
    assert!(error.to_string().starts_with("cpu_budget: "), "{error}");
    let error = resolve(Profiler::builder(), &[("SPANFLAME_CLOCK", "tsc")]).err().expect("refused");
    assert!(error.to_string().contains("auto, thread-timers, perf, process-timer"), "{error}");
}
