//! The server that the storm's profiles go to: at times in order, at times slow, failing, silent or not there at all.
//! Every profile that arrives is read, and each of its samples held against what it may carry.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use prost::Message as _;
use spanflame_pprof_reader::{self as pprof, BODY_LIMIT, PushRequest};

use crate::kinds::Kind;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    /// Answers at once.
    Well,
    /// Answers after a while.
    Slow,
    /// Answers that it is overloaded.
    Failing,
    /// Takes the connection and says nothing for as long as the mood lasts.
    Silent,
    /// Breaks the connection off in the middle of a request.
    Cutting,
    /// Does not listen.
    Refusing,
}

/// One after another, over and over.
const MOODS: [(Mood, Duration); 7] = [
    (Mood::Well, Duration::from_secs(6)),
    (Mood::Slow, Duration::from_secs(3)),
    (Mood::Refusing, Duration::from_secs(2)),
    (Mood::Well, Duration::from_secs(4)),
    (Mood::Failing, Duration::from_secs(2)),
    (Mood::Silent, Duration::from_secs(3)),
    (Mood::Cutting, Duration::from_secs(2)),
];
const SLOW: Duration = Duration::from_millis(700);
/// Of a request's head.
const HEAD_LIMIT: u64 = 64 << 10;
const BUILD_INFO: &str =
    r#"{"status":"success","data":{"application":"spanflame","version":"0.1.0","revision":"soak"}}"#;

/// What was received.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) profiles: AtomicU64,
    pub(crate) samples: AtomicU64,
    /// Samples that tell themselves whose they are.
    pub(crate) checked: AtomicU64,
    /// Those of them with a span.
    pub(crate) labelled: AtomicU64,
    /// Those of them that carry another's.
    pub(crate) foreign: AtomicU64,
    /// Profiles that cannot be read.
    pub(crate) malformed: AtomicU64,
}

/// A server on loopback, until it is dropped.
pub(crate) struct Receiver {
    address: SocketAddr,
    received: Arc<Received>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    pub(crate) fn start() -> io::Result<Self> {
        let listener = listen("127.0.0.1:0".parse().expect("an address"))?;
        let address = listener.local_addr()?;
        let received = Arc::<Received>::default();
        let stop = Arc::<AtomicBool>::default();
        let (counts, stopped) = (Arc::clone(&received), Arc::clone(&stop));
        let thread = thread::spawn(move || serve(address, listener, &counts, &stopped));
        Ok(Self { address, received, stop, thread: Some(thread) })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn received(&self) -> &Received {
        &self.received
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in there would have been told already.
            let _ = thread.join();
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The mood at a time since the start, and how long it lasts on.
fn mood(since: Duration) -> (Mood, Duration) {
    let cycle: Duration = MOODS.iter().map(|(_, length)| *length).sum();
    let mut into = Duration::from_nanos((since.as_nanos() % cycle.as_nanos()) as u64);
    for (mood, length) in MOODS {
        match length.checked_sub(into) {
            Some(left) if !left.is_zero() => return (mood, left),
            _ => into -= length,
        }
    }
    MOODS[0]
}

fn serve(address: SocketAddr, listener: TcpListener, received: &Arc<Received>, stop: &AtomicBool) {
    let start = Instant::now();
    let mut listener = Some(listener);
    while !stop.load(Relaxed) {
        let (mood, left) = mood(start.elapsed());
        if mood == Mood::Refusing {
            listener = None;
            thread::sleep(Duration::from_millis(20));
            continue;
        }
        // Somebody else may have the port for a moment.
        let Some(open) = listener.take().or_else(|| listen(address).ok()) else {
            thread::sleep(Duration::from_millis(20));
            continue;
        };
        match open.accept() {
            Ok((stream, _)) => {
                let received = Arc::clone(received);
                // One client, so few of these at a time.
                thread::spawn(move || {
                    // What goes wrong with a connection is the client's to bear.
                    let _ = answer(stream, mood, left, &received);
                });
            }
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
        listener = Some(open);
    }
}

fn answer(mut stream: TcpStream, mood: Mood, left: Duration, received: &Received) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    if mood == Mood::Silent {
        thread::sleep(left);
        return Ok(());
    }
    let mut reader = BufReader::new(stream.try_clone()?);
    let (is_push, length) = head(&mut reader)?;
    if mood == Mood::Cutting {
        return Ok(());
    }
    let mut body = Vec::new();
    reader.take(length.min(BODY_LIMIT as u64)).read_to_end(&mut body)?;
    if mood == Mood::Slow {
        thread::sleep(SLOW);
    }
    let (status, text) = match (mood, is_push) {
        (Mood::Failing, _) => ("503 Service Unavailable", r#"{"code":"unavailable","message":"soaked"}"#),
        (_, true) => ("200 OK", "{}"),
        (_, false) => ("200 OK", BUILD_INFO),
    };
    let length = text.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}"
    )?;
    drop(stream);
    if is_push && mood != Mood::Failing {
        check(&body, received);
    }
    Ok(())
}

/// Reads a request's head: whether it is a push, and the length of its body.
fn head(reader: &mut BufReader<TcpStream>) -> io::Result<(bool, u64)> {
    let mut head = reader.take(HEAD_LIMIT);
    let (mut is_push, mut length) = (false, 0);
    let mut line = String::new();
    loop {
        line.clear();
        if head.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let text = line.trim_end().to_ascii_lowercase();
        if text.is_empty() {
            return Ok((is_push, length));
        }
        is_push |= text.starts_with("post /push.v1.pusherservice/push ");
        if let Some(value) = text.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        }
    }
}

fn check(body: &[u8], received: &Received) {
    // The reader panics at what is no profile.
    let read = catch_unwind(AssertUnwindSafe(|| {
        let request = PushRequest::decode(body).expect("a push is a push request");
        let profiles = request.series.iter().flat_map(|series| &series.samples);
        profiles.map(|profile| pprof::read(&profile.raw_profile).1).collect::<Vec<_>>()
    }));
    let Ok(profiles) = read else {
        received.malformed.fetch_add(1, Relaxed);
        return;
    };
    received.profiles.fetch_add(profiles.len() as u64, Relaxed);
    for sample in profiles.into_iter().flatten() {
        let count = sample.count().cast_unsigned();
        received.samples.fetch_add(count, Relaxed);
        let name = sample.labels.get("span_name").map(String::as_str);
        let Some(fits) = Kind::may_carry(&sample.stack, sample.span_id(), name) else { continue };
        received.checked.fetch_add(count, Relaxed);
        if sample.span_id().is_some() {
            received.labelled.fetch_add(count, Relaxed);
        }
        if !fits {
            received.foreign.fetch_add(count, Relaxed);
            eprintln!("foreign label {:?} on {:?}", sample.labels, sample.stack);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moods_take_turns_and_come_back() {
        assert_eq!(mood(Duration::ZERO), (Mood::Well, Duration::from_secs(6)));
        assert_eq!(mood(Duration::from_secs(7)), (Mood::Slow, Duration::from_secs(2)));
        assert_eq!(mood(Duration::from_secs(9)), (Mood::Refusing, Duration::from_secs(2)));
        assert_eq!(mood(Duration::from_millis(21_500)).0, Mood::Cutting);
        assert_eq!(mood(Duration::from_secs(22)), mood(Duration::ZERO));
    }

    #[test]
    fn a_push_is_answered_and_read() {
        let receiver = Receiver::start().expect("a port");
        let body = PushRequest { series: Vec::new() }.encode_to_vec();
        let mut stream = TcpStream::connect(receiver.address).expect("it listens");
        write!(stream, "POST /push.v1.PusherService/Push HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len())
            .and_then(|()| stream.write_all(&body))
            .expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        check(b"no push", receiver.received());
        assert_eq!(receiver.received().malformed.load(Relaxed), 1);
    }
}
