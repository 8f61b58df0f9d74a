//! Profiles in: what agents send, and that good ones survive bad neighbours.

use buffa::Message;
use http::Method;
use spanflame_wire::push::v1::{PushRequest, RawSample};

use crate::support::{PUSH, SPAN, Server, TRACE, checkout, cpu_profile, gzip, series, service};

#[test]
fn json_and_gzip_requests_store_the_same() {
    let server = Server::start();
    let request = PushRequest { series: checkout(), ..Default::default() };
    let json = serde_json::to_vec(&request).expect("json");
    let headers = [("content-type", "application/json"), ("content-encoding", "gzip")];
    let answer = server.send(Method::POST, PUSH, &headers, gzip(&json));
    assert_eq!((answer.status, answer.text()), (200, "{}"));
    let span = server.get(&format!("/api/v1/spans/{SPAN}")).json();
    assert_eq!(span["cpuNanos"], 30_000_000);

    // A compressed body may need more memory than there is for all: it gets what there is.
    let other = Server::with_args(&["--max-inflight-bytes=1048576"]);
    let headers = [("content-type", "application/proto"), ("content-encoding", "gzip")];
    let answer = other.send_h2c(PUSH, &headers, gzip(&request.encode_to_vec()));
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!(other.get(&format!("/api/v1/spans/{SPAN}")).json(), span);
}

#[test]
fn plain_pprof_and_the_older_spelling_of_span_ids_are_taken() {
    let server = Server::start();
    let profile = cpu_profile(1_767_225_605_000, &[(&["main"], 10_000_000, &[("profile_id", SPAN)])]);
    server.pushed(vec![series(
        &[("__name__", "process_cpu"), ("service_name", "old")],
        profile.encode_to_vec(),
    )]);
    assert_eq!(server.get(&format!("/api/v1/spans/{SPAN}")).json()["service"], "old");
}

#[test]
fn nothing_to_store_is_fine() {
    let server = Server::start();
    server.pushed(Vec::new());
    let empty = cpu_profile(1_767_225_605_000, &[]);
    server.pushed(vec![service("idle", &empty)]);
    assert_eq!(server.query("GetProfileStats", "{}").text(), "{}");
}

#[test]
fn neighbours_of_a_bad_profile_are_stored_and_the_bad_one_is_named() {
    let server = Server::start();
    let good = |span: &str| {
        cpu_profile(1_767_225_605_000, &[(&["work"], 10_000_000, &[("span_id", span), ("trace_id", TRACE)])])
    };
    let mut two = service("two", &good("00000000000000b2"));
    two.samples.push(RawSample { raw_profile: b"\x1f\x8bnot gzip".to_vec(), ..Default::default() });
    let answer = server.push(vec![
        service("one", &good("00000000000000a1")),
        series(&[("__name__", "process_cpu"), ("service_name", "broken")], vec![0xff; 40]),
        two,
    ]);
    let message = answer.refused(400, "invalid_argument");
    assert!(message.starts_with("2 of 4 profiles refused, the others are stored"), "{message}");
    assert!(
        message.contains(r#"series[1]{__name__="process_cpu", service_name="broken"}.samples[0]: "#),
        "{message}"
    );
    assert!(
        message.contains(r#"series[2]{__name__="process_cpu", service_name="two"}.samples[1]: "#),
        "{message}"
    );
    for span in ["00000000000000a1", "00000000000000b2"] {
        assert_eq!(server.get(&format!("/api/v1/spans/{span}")).status, 200, "{span}");
    }
    let metrics = server.get("/metrics");
    for line in [
        "spanflame_pushes_total 1\n",
        "spanflame_profiles_total 2\n",
        "spanflame_samples_total 2\n",
        "spanflame_refusals_total{reason=\"invalid_profile\"} 2\n",
        "spanflame_store_profiles 2\n",
        "spanflame_store_spans 2\n",
    ] {
        assert!(metrics.text().contains(line), "{line}: {}", metrics.text());
    }
    server.logged("profiles refused");
}

#[test]
fn the_metrics_tell_how_the_store_stands_and_what_it_found_at_the_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let value = |server: &Server, name: &str| -> u64 {
        let metrics = server.get("/metrics").text().to_owned();
        let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("spanflame_store_{name} ")));
        line.unwrap_or_else(|| panic!("no {name}: {metrics}")).parse().expect("a number")
    };
    let mut server = Server::on(dir.path(), &[]);
    assert_eq!((value(&server, "appends_total"), value(&server, "accepts_writes")), (0, 1));
    server.pushed(checkout());
    server.pushed(checkout());
    assert_eq!((value(&server, "appends_total"), value(&server, "appended_profiles_total")), (2, 4));
    assert_eq!((value(&server, "refused_appends_total"), value(&server, "log_files")), (0, 1));
    assert_eq!((value(&server, "failed_flushes_total"), value(&server, "segments")), (0, 0));
    assert!((1..=2).contains(&value(&server, "log_syncs_total")));
    assert!(value(&server, "head_bytes") > 0 && value(&server, "log_written_bytes_total") > 0);
    assert_eq!((value(&server, "torn_bytes"), value(&server, "queued_bytes")), (0, 0));
    server.kill();

    let path = dir.path().join("log/00000000000000000001.log");
    let change = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut log = std::fs::read(&path).expect("the log");
        change(&mut log);
        std::fs::write(&path, log).expect("the log is written");
    };
    // A write that was cut short.
    change(&|log| log.extend_from_slice(b"seven.."));
    let mut server = Server::on(dir.path(), &[]);
    assert_eq!((value(&server, "torn_bytes"), value(&server, "damaged_bytes")), (7, 0));
    assert_eq!((value(&server, "profiles"), value(&server, "appends_total")), (4, 0));
    server.kill();
    // Damage in the first of the two records.
    change(&|log| log[60] ^= 1);
    let server = Server::on(dir.path(), &[]);
    assert_eq!((value(&server, "torn_bytes"), value(&server, "unreadable_log_files")), (0, 0));
    assert!(value(&server, "damaged_bytes") > 0);
    assert_eq!(value(&server, "profiles"), 2);
}

#[test]
fn the_list_of_refusals_is_bounded() {
    let server = Server::start();
    let bad =
        |at: usize| series(&[("service_name", &format!("s{at}")), ("long", &"x".repeat(1000))], vec![0xff]);
    let message = server.push((0..50).map(bad).collect()).refused(400, "invalid_argument");
    assert!(message.starts_with("50 of 50 profiles refused; "), "{message}");
    assert!(message.contains("series[19]") && !message.contains("series[20]"), "{message}");
    assert!(message.ends_with("and 30 more"), "{message}");
    assert!(message.len() < 10_000);
}

/// The most memory that a process had so far, in bytes.
#[cfg(target_os = "linux")]
fn peak_memory(server: &Server) -> usize {
    let path = format!("/proc/{}/status", server.pid().as_raw_nonzero());
    let status = std::fs::read_to_string(path).expect("linux tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the peak");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}

#[test]
fn many_labels_on_many_profiles_are_refused_by_number_and_never_copied() {
    let server = Server::start();
    let mut wide = series(&[("", ""); 2500], Vec::new());
    wide.samples = vec![RawSample::default(); 2500];
    let message = server.push(vec![wide, checkout()[0].clone()]).refused(400, "invalid_argument");
    assert!(message.starts_with("2500 of 2501 profiles refused, the others are stored; "), "{message}");
    assert!(
        message.contains(".samples[0]: labels: 2500 is over the limit max_labels_per_series of 60 ("),
        "{message}"
    );
    assert!(message.ends_with("; and 2480 more"), "{message}");
    assert_eq!(server.get(&format!("/api/v1/spans/{SPAN}")).json()["cpuNanos"], 30_000_000);
    let refused = "spanflame_refusals_total{reason=\"max_labels_per_series\"} 2500\n";
    assert!(server.get("/metrics").text().contains(refused));
    // 2500 copies of the labels are 300 MB.
    #[cfg(target_os = "linux")]
    assert!(peak_memory(&server) < 150 << 20, "{}", peak_memory(&server));
}

#[test]
fn profiles_beyond_the_number_of_a_push_are_refused_and_those_before_stored() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("spanflame.toml");
    std::fs::write(&file, "max_profiles_per_push = 2\n").expect("written");
    let server = Server::with_args(&["--config", file.to_str().expect("plain")]);
    let mut all = checkout();
    all.push(series(&[("__name__", "process_cpu"), ("service_name", "third")], vec![1]));
    let message = server.push(all).refused(400, "invalid_argument");
    assert_eq!(
        message,
        "1 of 3 profiles refused, the others are stored; series[2]{__name__=\"process_cpu\", \
         service_name=\"third\"}.samples[0]: raw_profile: number in this push: 3 is over the limit \
         max_profiles_per_push of 2 (send less, or raise max_profiles_per_push in the server's configuration)"
    );
    assert_eq!(server.get("/api/v1/spans").json()["spans"].as_array().map(Vec::len), Some(1));
}

#[test]
fn the_profiles_of_a_push_have_one_budget() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("spanflame.toml");
    std::fs::write(&file, "max_push_bytes = 16777216\n").expect("written");
    let server = Server::with_args(&["--config", file.to_str().expect("plain")]);
    let of = |id: &str| {
        service("good", &cpu_profile(1_767_225_605_000, &[(&["work"], 10_000_000, &[("span_id", id)])]))
    };
    // Profiles without a sample whose one unused string is long: valid, and 4 KB for 4 MB.
    let mut hollow = cpu_profile(1_767_225_605_000, &[(&["x"], 10_000_000, &[])]);
    hollow.string_table.push("x".repeat(4 << 20));
    let bomb = service("bomb", &hollow);
    let mut all = vec![bomb; 6];
    all.insert(2, of("00000000000000a1"));
    all.push(of("00000000000000a2"));
    let message = server.push(all).refused(400, "invalid_argument");
    assert!(message.starts_with("4 of 8 profiles refused, the others are stored; series[4]{"), "{message}");
    let limit = "is over the limit max_push_bytes of 16777216";
    assert!(message.matches(limit).count() == 4, "{message}");
    assert!(message.contains("series[7]{__name__=\"process_cpu\", service_name=\"good\"}"), "{message}");
    assert_eq!(server.get("/api/v1/spans/00000000000000a1").status, 200);
    assert_eq!(server.get("/api/v1/spans/00000000000000a2").status, 404);
    // The next push has a budget of its own.
    server.pushed(vec![of("00000000000000a2")]);
}

#[test]
fn a_profile_too_large_for_the_log_does_not_take_its_neighbours_along() {
    let server = Server::with_args(&["--max-head-bytes=1048576"]);
    let of = |id: &str, name: &str| {
        let ids = [("span_id", id)];
        service("big", &cpu_profile(1_767_225_605_000, &[(&[name], 10_000_000, &ids)]))
    };
    // Each fits a record of 512 KiB, all three do not; the one with many strings never does.
    let name = "n".repeat(60_000);
    let names: Vec<String> = (0..12).map(|at| format!("{at}{name}")).collect();
    let stack: Vec<&str> = names.iter().map(String::as_str).collect();
    let huge = service("huge", &cpu_profile(1_767_225_605_000, &[(&stack, 10_000_000, &[])]));
    let third: Vec<&str> = stack[..3].to_vec();
    let medium = |id: &str| {
        service("medium", &cpu_profile(1_767_225_605_000, &[(&third, 10_000_000, &[("span_id", id)])]))
    };
    let ids = ["00000000000000a1", "00000000000000a2", "00000000000000a3"];
    let mut all: Vec<_> = ids.iter().map(|id| medium(id)).collect();
    all.insert(1, huge);
    all.push(of("00000000000000a4", "small"));
    let message = server.push(all).refused(400, "invalid_argument");
    assert!(message.starts_with("1 of 5 profiles refused, the others are stored; series[1]{"), "{message}");
    assert!(message.contains("max_head_bytes"), "{message}");
    assert_eq!(server.get("/api/v1/spans/00000000000000a4").status, 200);
    let metrics = server.get("/metrics");
    assert!(metrics.text().contains("spanflame_store_appended_profiles_total 4\n"), "{}", metrics.text());
}
