//! Threads that come and go, that have hardly any stack, and that wait.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::{Round, Stage, in_span};
use crate::kinds::{Kind, soak_without_span};

/// Eight threads at a time, with a span and without, most of them gone before their first sample.
pub(super) fn short_lived(stage: &Arc<Stage>) -> Round {
    let stage = Arc::clone(stage);
    let mut round = 0;
    Box::new(move || {
        round += 1;
        let threads: Vec<_> = (0..8)
            .map(|n| {
                let stage = Arc::clone(&stage);
                thread::spawn(move || {
                    let time = Duration::from_micros(50 * n);
                    if n % 2 == 0 {
                        soak_without_span(time);
                    } else {
                        let kind = Kind::nth(round + n as usize);
                        in_span(&stage.tracer, kind, || kind.burn(time));
                    }
                })
            })
            .collect();
        for thread in threads {
            ensure!(thread.join().is_ok(), "a short-lived thread panicked");
        }
        Ok(())
    })
}

/// Threads with the smallest stacks that libc allows, and with twice that.
pub(super) fn small_stacks(stage: &Arc<Stage>) -> Round {
    let stage = Arc::clone(stage);
    let mut round = 0;
    Box::new(move || {
        round += 1;
        let smallest = thread::Builder::new().stack_size(16 << 10).spawn(|| {
            soak_without_span(Duration::from_millis(2));
        })?;
        let stage = Arc::clone(&stage);
        let small = thread::Builder::new().stack_size(32 << 10).spawn(move || {
            let kind = Kind::nth(round);
            in_span(&stage.tracer, kind, || kind.burn(Duration::from_millis(2)));
        })?;
        for thread in [smallest, small] {
            ensure!(thread.join().is_ok(), "a thread with a small stack panicked");
        }
        Ok(())
    })
}

/// Waits in a system call, which no signal may interrupt.
pub(super) fn blocked_reads() -> Round {
    Box::new(move || {
        let (mut reader, mut writer) = std::io::pipe()?;
        let late = thread::spawn(move || {
            soak_without_span(Duration::from_millis(2));
            thread::sleep(Duration::from_millis(5));
            writer.write_all(b"x")
        });
        let mut byte = [0];
        let read = reader.read(&mut byte).context("a read was interrupted")?;
        ensure!(read == 1 && byte == *b"x", "a read gave {read} bytes");
        late.join().ok().context("a writer panicked")??;
        Ok(())
    })
}
