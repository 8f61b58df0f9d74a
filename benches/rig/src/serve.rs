//! The measured process: reads requests, measures, answers.

use crate::chain::at_depth;
use crate::clock::nanos_per_cycle;
use crate::evict::Evictor;
use crate::protocol::{Cost, HandlerTime, Request, Subject};
use crate::signal::{self, Forged, Wrapped};
use crate::stats::median;
use crate::{busy, overhead, stack, storm};
use anyhow::{Context, Result};
use serde::Serialize;
use std::io::{BufRead, Write};
use std::time::Duration;

/// Samples that may wait in a profiler's buffer before it is told to discard them.
const PENDING: usize = 16;

/// Answers requests until standard input ends. The body of a measured process's `main`.
pub fn serve<S: Subject>() -> Result<()> {
    let mut subject = None;
    for line in std::io::stdin().lock().lines() {
        let answer = serde_json::from_str(&line?)
            .context("request")
            .and_then(|request| answer::<S>(&mut subject, request))
            .map_err(|error| format!("{error:#}"));
        let mut out = std::io::stdout().lock();
        serde_json::to_writer(&mut out, &answer)?;
        out.write_all(b"\n")?;
        out.flush()?;
    }
    Ok(())
}

fn answer<S: Subject>(slot: &mut Option<S>, request: Request) -> Result<serde_json::Value> {
    const NOT_STARTED: &str = "the profiler is not started";
    match request {
        Request::Start { hz, bare } => {
            nanos_per_cycle();
            *slot = Some(S::start(hz, bare)?);
            to_value(())
        }
        Request::Handler { frames, cold, signals } => {
            to_value(time_handler(slot.as_mut().context(NOT_STARTED)?, frames, cold, signals)?)
        }
        Request::Raise { frames, signals, empty } => {
            let subject = slot.as_mut().context(NOT_STARTED)?;
            subject.set_clock(false, 1)?;
            let wrapped = Wrapped::install()?;
            wrapped.set_empty(empty);
            on_own_thread(|| raise(subject, frames, signals))?;
            wrapped.set_empty(false);
            to_value(())
        }
        Request::Deliver { threads, millis } => {
            let subject = slot.take().context(NOT_STARTED)?;
            let used = busy::run(threads, millis)?;
            to_value(busy::compare(&used, &subject.stop()?))
        }
        Request::Overhead { hz, rounds, segment_millis } => {
            let subject = slot.as_mut().context(NOT_STARTED)?;
            subject.accept_wrapper(Wrapped::install()?.address());
            to_value(overhead::run(subject, hz, rounds, Duration::from_millis(segment_millis))?)
        }
        Request::OverheadOfRestarts { hz, rounds, segment_millis, settle_millis } => {
            let subject = slot.as_mut().context(NOT_STARTED)?;
            let [segment, settle] = [segment_millis, settle_millis].map(Duration::from_millis);
            to_value(overhead::run_restarting(subject, hz, rounds, segment, settle)?)
        }
        Request::Stack { frames, signals } => {
            let subject = slot.as_mut().context(NOT_STARTED)?;
            subject.set_clock(false, 1)?;
            to_value(on_own_thread(|| stack::measure(&*subject, frames, signals))?)
        }
        Request::SmallStack { bytes } => {
            let subject = slot.as_mut().context(NOT_STARTED)?;
            subject.set_clock(false, 1)?;
            to_value(stack::survive(&*subject, bytes)?)
        }
        Request::Spans { hz, micros, trials } => to_value(S::spans(hz, micros, trials)?),
        Request::Storm { seconds, library } => to_value(storm::run(seconds, &library)?),
        Request::Attribute { samples } => to_value(S::attribute(samples)?),
        Request::Cost { what, iterations } => {
            to_value(Cost { ns: S::cost(slot.as_ref(), &what, iterations)? })
        }
    }
}

fn to_value(answer: impl Serialize) -> Result<serde_json::Value> {
    Ok(serde_json::to_value(answer)?)
}

/// A thread has fewer frames below the chain than main, and its stack range is cheap to find.
fn on_own_thread<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|scope| scope.spawn(work).join().expect("a measuring thread does not panic"))
}

fn raise<S: Subject>(subject: &S, frames: usize, signals: usize) -> Result<()> {
    let forged = Forged::new(subject.signal_value()?);
    at_depth(frames, &mut || {
        for _ in 0..signals {
            let seen = signal::handled();
            forged.send();
            signal::settle(seen);
        }
    });
    // What the profiler has kept stays there: emptying it is not the handler's work.
    Ok(())
}

fn time_handler<S: Subject>(
    subject: &mut S,
    frames: usize,
    cold: bool,
    signals: usize,
) -> Result<HandlerTime> {
    subject.set_clock(false, 1)?;
    let subject = &*subject;
    let wrapped = Wrapped::install()?;
    let (body, empty) = on_own_thread(|| {
        let mut evictor = if cold { Some(Evictor::new()?) } else { None };
        let forged = Forged::new(subject.signal_value()?);
        let mut timed = [0.0; 2];
        // One discarded round of the profiler's own handler warms its caches for this stack.
        for (round, is_empty) in [false, false, true].into_iter().enumerate() {
            wrapped.set_empty(is_empty);
            at_depth(frames, &mut || {
                for sent in 1..=signals {
                    if let Some(evictor) = &mut evictor
                        && round > 0
                    {
                        evictor.run();
                    }
                    forged.send();
                    if sent % PENDING == 0 {
                        subject.discard();
                    }
                }
            });
            let mut cycles: Vec<f64> = signal::take_timings(signals).iter().map(|&c| c as f64).collect();
            timed[usize::from(is_empty)] = median(&mut cycles) * nanos_per_cycle();
        }
        wrapped.set_empty(false);
        subject.discard();
        anyhow::Ok((timed[0], timed[1]))
    })?;
    Ok(HandlerTime { body_ns: body - empty, empty_ns: empty })
}
