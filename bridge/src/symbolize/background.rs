//! The thread that reads symbols and debug information, so that nobody waits for a large or a broken file longer than
//! they want to. It lives only while there is something to read: with it goes all the memory that reading took. What it
//! found is copied by the asker and freed here, where it was allocated: an allocator with an arena per thread keeps the
//! pages of an arena for the smallest piece that is left in it, even for one that the asker's thread has put aside.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Instant;

use super::reader::Reader;
use super::{Call, ModuleFile};

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
    pub(super) fn start() -> Option<Self> {
        let (requests, asked) = channel();
        let (answers, found) = channel();
        let (copied, returned) = channel();
        let body = move || run(&asked, &answers, &returned);
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
    for Request { file, module, offsets } in requests {
        let functions = reader.functions(&module, &offsets);
        let names = offsets.iter().copied().zip(functions.iter().cloned()).collect();
        if answers.send(Found { file, module: module.clone(), answers: Answers::Names(names) }).is_err() {
            return;
        }
        for (offsets, functions) in offsets.chunks(BATCH).zip(functions.chunks(BATCH)) {
            read += offsets.len();
            returned.try_iter().for_each(drop);
            if read > MOST {
                reader = Reader::new();
                read = offsets.len();
            }
            let calls = reader.calls(&module, offsets, functions);
            let calls = offsets.iter().copied().zip(calls).collect();
            if answers.send(Found { file, module: module.clone(), answers: Answers::Calls(calls) }).is_err() {
                return;
            }
        }
    }
}
