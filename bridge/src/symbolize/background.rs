//! The thread that reads symbols and debug information, so that nobody waits for a large or a broken file longer than
//! they want to. It lives only while there is something to read: with it goes all the memory that reading took. What it
//! found is copied by the asker and freed here, where it was allocated: an allocator with an arena per thread keeps the
//! pages of an arena for the smallest piece that is left in it, even for one that the asker's thread has put aside.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Instant;

use super::reader::Reader;
use super::{Call, ModuleFile};
use crate::stats::Counters;

/// Addresses between two answers.
const BATCH: usize = 256;
/// Addresses after which a reader's memory is given back: what it keeps grows with what it has read.
const MOST: usize = 4096;

/// Addresses of one module, in its file's own numbering.
pub(super) struct Request {
    /// Whatever the asker knows the module by.
    pub(super) file: u32,
    pub(super) module: ModuleFile,
    pub(super) offsets: Vec<u64>,
}

impl Request {
    fn found(&self, answers: Answers) -> Found {
        Found { file: self.file, module: self.module.clone(), answers }
    }
}

/// A request that was answered by names.
struct Named {
    request: Request,
    functions: Vec<Option<String>>,
    /// How many of its addresses were answered by calls, too.
    told: usize,
}

/// What is known of some addresses of a module. Every address of a request is answered twice: `Names` as soon as
/// possible, then `Calls`.
pub(super) struct Found {
    pub(super) file: u32,
    pub(super) module: ModuleFile,
    pub(super) answers: Answers,
}

pub(super) enum Answers {
    /// From the symbol table.
    Names(Vec<(u64, Option<String>)>),
    /// From debug information, too. `None` where nothing is known.
    Calls(Vec<(u64, Option<Vec<Call>>)>),
}

/// A running thread. It ends when this is dropped, at the latest after the batch that it is at.
pub(super) struct Background {
    requests: Sender<Request>,
    found: Receiver<Found>,
    copied: Sender<Found>,
    asked: usize,
}

impl Background {
    /// `None` where no thread can be had.
    pub(super) fn start(counters: Arc<Counters>) -> Option<Self> {
        let (requests, asked) = channel();
        let (answers, found) = channel();
        let (copied, returned) = channel();
        let body = move || {
            let _entered = counters.background.enter();
            run(&asked, &answers, &returned);
        };
        thread::Builder::new().name("spanflame-symbols".to_owned()).spawn(body).ok()?;
        Some(Self { requests, found, copied, asked: 0 })
    }

    /// If the thread has ended, [`answer`](Self::answer) tells.
    pub(super) fn ask(&mut self, request: Request) {
        self.asked += request.offsets.len();
        let _ = self.requests.send(request);
    }

    /// The next answer, if there is one before `until`.
    pub(super) fn answer(&self, until: Instant) -> Result<Found, RecvTimeoutError> {
        self.found.recv_timeout(until.saturating_duration_since(Instant::now()))
    }

    /// Takes back an answer of which nothing is held any more.
    pub(super) fn give_back(&self, found: Found) {
        // If the thread has ended, it is freed here.
        let _ = self.copied.send(found);
    }

    /// Whether it has read so much that it is not to be kept for a later window.
    pub(super) fn is_heavy(&self) -> bool {
        self.asked > MOST / 4
    }
}

fn run(requests: &Receiver<Request>, answers: &Sender<Found>, returned: &Receiver<Found>) {
    read(requests, answers, returned);
    // Until whoever asks lets go.
    returned.iter().for_each(drop);
}

fn read(requests: &Receiver<Request>, answers: &Sender<Found>, returned: &Receiver<Found>) {
    let mut reader = Reader::new();
    let mut read = 0;
    let mut named: VecDeque<Named> = VecDeque::new();
    loop {
        let request = match named.is_empty() {
            true => requests.recv().ok(),
            false => requests.try_recv().ok(),
        };
        if let Some(request) = request {
            let functions = reader.functions(&request.module, &request.offsets);
            let names = request.offsets.iter().copied().zip(functions.iter().cloned()).collect();
            if answers.send(request.found(Answers::Names(names))).is_err() {
                return;
            }
            named.push_back(Named { request, functions, told: 0 });
            // Nobody's names wait for debug information, which takes a thousand times as long.
            continue;
        }
        let Some(Named { request, functions, told }) = named.front_mut() else { return };
        let batch = *told..request.offsets.len().min(*told + BATCH);
        read += batch.len();
        returned.try_iter().for_each(drop);
        if read > MOST {
            reader = Reader::new();
            read = batch.len();
        }
        let offsets = &request.offsets[batch.clone()];
        let calls = reader.calls(&request.module, offsets, &functions[batch.clone()]);
        let calls = offsets.iter().copied().zip(calls).collect();
        if answers.send(request.found(Answers::Calls(calls))).is_err() {
            return;
        }
        *told = batch.end;
        if *told == request.offsets.len() {
            named.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn names_of_all_that_is_asked_for_come_before_the_debug_information_of_any() {
        let (asked, requests) = channel();
        let (answers, found) = channel();
        for file in 0..3 {
            let path = Path::new("/does/not/exist/libx.so.1").into();
            let module = ModuleFile { path, build_id: Arc::from([]) };
            let offsets = (0..BATCH as u64 + 1).collect();
            asked.send(Request { file, module, offsets }).expect("there");
        }
        drop(asked);
        let (copied, returned) = channel();
        drop(copied);
        run(&requests, &answers, &returned);
        drop(answers);
        let order: Vec<(u32, &str, usize)> = found
            .iter()
            .map(|found| match found.answers {
                Answers::Names(names) => (found.file, "names", names.len()),
                Answers::Calls(calls) => (found.file, "calls", calls.len()),
            })
            .collect();
        let names = (0..3).map(|file| (file, "names", BATCH + 1));
        let calls = (0..3).flat_map(|file| [(file, "calls", BATCH), (file, "calls", 1)]);
        assert_eq!(order, names.chain(calls).collect::<Vec<_>>());
    }
}
