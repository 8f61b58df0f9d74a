//! The main job in one command: server, demo service, load, and links to one span's flame graph and its trace.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::shell;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Seconds of load, 1 to 600
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Where the server listens; a free port is taken instead when this one is in use
    #[arg(long, default_value = "127.0.0.1:4040")]
    listen: std::net::SocketAddr,
    /// Check the span's flame graph over HTTP, then stop instead of serving on
    #[arg(long)]
    smoke: bool,
}

/// How long the last upload window may take to be pushed and served.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    shell::run(shell::cargo().args(["build", "-p", "spanflame-server", "-p", "example-axum-tracing"]))?;
    let binaries = shell::target_dir().join("debug");
    let data = shell::target_dir().join("demo-data");

    // Taking the port and letting it go tells whether it is free; the rare race ends in the server's own error.
    let listen = match std::net::TcpListener::bind(args.listen) {
        Ok(_) => args.listen.to_string(),
        Err(_) => "127.0.0.1:0".to_owned(),
    };
    let mut server = Running::start(
        Command::new(binaries.join("spanflame"))
            .args(["serve", "--listen", &listen, "--data-dir"])
            .arg(&data)
            .env("SPANFLAME_LOG", "warn"),
    )?;
    let address = server.address()?;
    eprintln!("server: {address}");

    eprintln!("demo service: {} seconds of load", args.seconds);
    let mut service = Running::start(
        Command::new(binaries.join("example-axum-tracing"))
            .args(["--listen", "127.0.0.1:0", "--demo-load", &args.seconds.to_string()])
            .env("PYROSCOPE_SERVER_ADDRESS", &address)
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &address)
            .env("SPANFLAME_UPLOAD_INTERVAL", "2")
            .env("OTEL_SERVICE_NAME", "checkout"),
    )?;
    let spans = service.spans()?;
    let status = service.child.wait()?;
    ensure!(status.success(), "the demo service failed: {status}");
    ensure!(!spans.is_empty(), "the demo service named no spans");

    let (span, summary) = richest(&address, &spans)?;
    let cpu = summary["cpuNanos"].as_u64().unwrap_or_default() as f64 / 1e6;
    println!("page:  {address}/");
    println!("span:  {address}/span/{span}");
    let trace = summary["traceId"].as_str().unwrap_or_default();
    if !trace.is_empty() {
        println!("trace: {address}/trace/{trace}?span={span}");
    }
    println!(
        "       {} of {}: {} samples, {cpu:.0} ms of CPU",
        summary["name"], summary["service"], summary["samples"]
    );
    if args.smoke {
        return check(&address, &span);
    }
    println!("The server keeps running; press Ctrl-C to stop it.");
    let status = server.child.wait()?;
    ensure!(status.success(), "the server stopped: {status}");
    Ok(())
}

/// Of the spans the service named, the one with most CPU, as soon as the server knows any of them.
fn richest(address: &str, spans: &[String]) -> anyhow::Result<(String, Value)> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let known = spans
            .iter()
            .filter_map(|span| Some((span.clone(), get(&format!("{address}/api/v1/spans/{span}")).ok()?)))
            .max_by_key(|(_, summary)| summary["cpuNanos"].as_u64());
        if let Some(found) = known {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("after {PATIENCE:?} the server knows none of the {} spans the service named", spans.len());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Fails unless the span's flame graph holds CPU time under a named function.
fn check(address: &str, span: &str) -> anyhow::Result<()> {
    let answer = get(&format!("{address}/api/v1/spans/{span}/profile?format=flamegraph"))?;
    let graph = &answer["flamegraph"];
    let names = graph["names"].as_array().context("the answer holds no flame graph")?;
    let total: i64 = graph["total"].as_str().unwrap_or("0").parse()?;
    ensure!(total > 0 && names.len() > 1, "the span's flame graph is empty: {answer}");
    let summary = get(&format!("{address}/api/v1/spans/{span}"))?;
    let lasted = summary["traced"]["durationNanos"].as_u64();
    ensure!(lasted.is_some_and(|nanos| nanos > 0), "no trace tells how long the span lasted: {summary}");
    println!("smoke: the span's flame graph holds {} functions and {total} ns of CPU", names.len() - 1);
    Ok(())
}

fn get(url: &str) -> anyhow::Result<Value> {
    let body = ureq::get(url).call()?.body_mut().read_json()?;
    Ok(body)
}

/// A child process that ends with this value.
struct Running {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Running {
    fn start(command: &mut Command) -> anyhow::Result<Self> {
        // Only what the demo sets counts, not what the caller's shell has set for a service of its own.
        let ours =
            |name: &str| ["SPANFLAME_", "PYROSCOPE_", "OTEL_"].iter().any(|prefix| name.starts_with(prefix));
        let set: Vec<_> = command.get_envs().map(|(name, _)| name.to_owned()).collect();
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(ours) && !set.contains(&name) {
                command.env_remove(name);
            }
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
        let output = BufReader::new(child.stdout.take().expect("its standard output is piped"));
        Ok(Self { child, output })
    }

    /// The address in the `listening on` line.
    fn address(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        while self.output.read_line(&mut line)? > 0 {
            if let Some(address) = line.trim().strip_prefix("listening on ") {
                return Ok(address.to_owned());
            }
            line.clear();
        }
        bail!("the server stopped before it listened: {}", self.child.wait()?)
    }

    /// The span ids the service prints, one JSON object a line, until it ends.
    fn spans(&mut self) -> anyhow::Result<Vec<String>> {
        let mut spans = Vec::new();
        for line in self.output.by_ref().lines() {
            let span = serde_json::from_str::<Value>(&line?).ok();
            spans.extend(span.and_then(|span| Some(span.get("spanId")?.as_str()?.to_owned())));
        }
        Ok(spans)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already ended is as good as killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
