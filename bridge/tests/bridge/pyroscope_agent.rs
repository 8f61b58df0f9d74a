//! The backend under a real `pyroscope` agent, which must neither lose it nor be stopped by it.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use opentelemetry::trace::{Tracer as _, TracerProvider as _};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SimpleSpanProcessor};
use pyroscope::backend::{BackendImpl, BackendUninitialized};
use pyroscope::pyroscope::{PyroscopeAgent, PyroscopeAgentBuilder, PyroscopeAgentRunning};
use spanflame::{PROFILE_ID, Profiler};

use crate::delivery::Server;
use crate::support::{BURNERS, alone, eventually};

fn start() -> (Profiler, BackendImpl<BackendUninitialized>) {
    Profiler::builder().frequency(1000).enabled(true).pyroscope_backend().expect("the profiler starts")
}

fn agent(url: &str, backend: BackendImpl<BackendUninitialized>) -> PyroscopeAgent<PyroscopeAgentRunning> {
    PyroscopeAgentBuilder::new(url, "checkout", 1000, "spanflame", "0.1.0", backend)
        .build()
        .expect("the agent is built")
        .start()
        .expect("the agent starts")
}

/// Burns in a span. Its id, as the attribute has it.
fn burn(profiler: &Profiler) -> String {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(profiler.wrap(SimpleSpanProcessor::new(exporter.clone())))
        .build();
    provider.tracer("test").in_span("work", |_| BURNERS[0].1(Duration::from_millis(400)));
    let spans = exporter.get_finished_spans().expect("spans");
    let attribute = spans[0].attributes.iter().find(|attribute| attribute.key.as_str() == PROFILE_ID);
    attribute.expect("the span is tagged").value.to_string()
}

#[test]
fn the_agent_pushes_our_samples_with_their_spans() {
    let _turn = alone();
    let server = Server::start(|_| ("200 OK", String::new()));
    let (profiler, backend) = start();
    let agent = agent(&server.url(), backend);
    let id = burn(&profiler);
    let agent = agent.stop().expect("the agent stops");
    agent.shutdown();
    eventually("the last report arrives", || server.samples().iter().any(|sample| sample.has(BURNERS[0].0)));

    for sample in server.samples().iter().filter(|sample| sample.has(BURNERS[0].0)) {
        assert_eq!(sample.span_id.as_deref(), Some(&*id));
        assert_eq!(sample.span_name.as_deref(), Some("work"));
    }
    let labels = server.pushes()[0].series[0].labels.clone();
    let label = |name: &str| labels.iter().find(|label| label.name == name).map(|label| label.value.clone());
    assert_eq!(label("__name__").as_deref(), Some("process_cpu"));
    assert_eq!(label("service_name").as_deref(), Some("checkout"));
    profiler.shutdown(Duration::from_secs(60)).expect("nothing left");
}

#[test]
fn the_agent_stops_in_time_whatever_became_of_the_server_and_the_profiler() {
    let _turn = alone();
    let failing = Server::start(|_| ("500 Internal Server Error", String::new()));
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("an address");
    for url in [failing.url(), format!("http://{nobody}")] {
        let (profiler, backend) = start();
        let agent = agent(&url, backend);
        burn(&profiler);
        // The backend reports empty profiles from now on.
        profiler.shutdown(Duration::from_secs(60)).expect("nothing to deliver");
        let start = Instant::now();
        let agent = agent.stop().expect("the agent stops");
        agent.shutdown();
        assert!(start.elapsed() < Duration::from_secs(60), "{url}");
    }
    eventually("an empty profile is a profile", || !failing.pushes().is_empty());
}

#[test]
fn a_disabled_profiler_gives_a_backend_of_empty_profiles() {
    let _turn = alone();
    let server = Server::start(|_| ("200 OK", String::new()));
    let (profiler, backend) =
        Profiler::builder().enabled(false).pyroscope_backend().expect("nothing to go wrong");
    let agent = agent(&server.url(), backend).stop().expect("the agent stops");
    agent.shutdown();
    eventually("a profile arrives", || !server.pushes().is_empty());
    assert!(server.samples().is_empty());
    assert!(!profiler.stats().running);
}
