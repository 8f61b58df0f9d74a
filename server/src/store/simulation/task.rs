//! Work that stops in the middle and goes on when it is told to, so that what happens in between is chosen by a seed.

use std::cell::RefCell;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

thread_local! {
    /// Of a thread that runs a task.
    static TURN: RefCell<Option<Turn>> = const { RefCell::new(None) };
}

struct Turn {
    stopped: Sender<()>,
    go: Receiver<()>,
}

/// Lets others go first. Does nothing where no task runs.
pub(super) fn pause() {
    TURN.with_borrow(|turn| {
        let Some(turn) = turn else { return };
        // If nobody waits for it any more it goes on to its end.
        if turn.stopped.send(()).is_ok() {
            let _ = turn.go.recv();
        }
    });
}

/// Work on a thread of its own, which runs only while somebody waits for it in [`Task::resume`].
pub(super) struct Task<T> {
    /// None once it was dropped.
    go: Option<Sender<()>>,
    stopped: Receiver<()>,
    thread: Option<JoinHandle<Option<T>>>,
}

impl<T: Send + 'static> Task<T> {
    /// Nothing of the work is done yet.
    pub(super) fn new(work: impl FnOnce() -> T + Send + 'static) -> Self {
        let ((go, told), (stopped, stops)) = (channel(), channel());
        let thread = std::thread::spawn(move || {
            told.recv().ok()?;
            TURN.with_borrow_mut(|turn| *turn = Some(Turn { stopped, go: told }));
            Some(work())
        });
        Self { go: Some(go), stopped: stops, thread: Some(thread) }
    }

    /// Does some of the work; gives what came of it if that was the last of it.
    ///
    /// # Panics
    /// When the work does, or has come to its end before.
    pub(super) fn resume(&mut self) -> Option<T> {
        self.go.as_ref().expect("it is not dropped").send(()).expect("it is not at its end");
        if self.stopped.recv().is_ok() {
            return None;
        }
        let ended = self.thread.take().expect("it ends once").join();
        ended.unwrap_or_else(|panic| resume_unwind(panic))
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.go.take();
        if let Some(thread) = self.thread.take() {
            // What became of it is nobody's concern any more.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_goes_on_only_when_it_is_told_to() {
        let (tell, told) = channel();
        let mut task = Task::new(move || {
            for number in 0..2 {
                tell.send(number).unwrap();
                pause();
            }
            "done"
        });
        assert!(told.try_recv().is_err());
        assert_eq!((task.resume(), told.try_iter().collect::<Vec<_>>()), (None, vec![0]));
        assert_eq!((task.resume(), told.try_iter().collect::<Vec<_>>()), (None, vec![1]));
        assert_eq!(task.resume(), Some("done"));
        // One that is dropped in the middle comes to its end.
        let (tell, told) = channel();
        let mut task = Task::new(move || {
            pause();
            tell.send("end").unwrap();
        });
        assert_eq!(task.resume(), None);
        drop(task);
        assert_eq!(told.try_recv(), Ok("end"));
    }
}
