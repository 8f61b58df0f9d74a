//! A bounded load for the demo: a few clients that call the service over loopback and stop by themselves.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::shop::Handled;

/// How many clients call at the same time.
const CLIENTS: usize = 3;
/// How long a client rests between two requests.
const PAUSE: Duration = Duration::from_millis(50);
/// What an answer may hold, head included, in bytes.
const ANSWER_LIMIT: u64 = 16 * 1024;

/// Calls the service until the time is over; returns the last request of each route and client.
pub(crate) async fn run(address: SocketAddr, time: Duration) -> anyhow::Result<Vec<Handled>> {
    let deadline = Instant::now() + time;
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(client(address, deadline));
    }
    let mut last = Vec::new();
    while let Some(client) = clients.join_next().await {
        last.extend(client??.into_values());
    }
    Ok(last)
}

async fn client(address: SocketAddr, deadline: Instant) -> anyhow::Result<BTreeMap<String, Handled>> {
    let mut last = BTreeMap::new();
    for path in ["/checkout", "/search", "/checkout", "/health"].into_iter().cycle() {
        let handled = request(address, path).await?;
        last.insert(handled.name.clone(), handled);
        if Instant::now() >= deadline {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    // Probes are not sampled, so there is no profile to look at.
    last.remove("GET /health");
    Ok(last)
}

/// One request on a connection of its own: all that HTTP asks of a client that closes after the answer.
async fn request(address: SocketAddr, path: &str) -> anyhow::Result<Handled> {
    let mut connection = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    connection.take(ANSWER_LIMIT).read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no body")?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "the service answered: {head}");
    Ok(serde_json::from_str(body)?)
}
