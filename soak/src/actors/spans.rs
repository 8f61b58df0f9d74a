//! Spans that travel: over the workers of a runtime, to other threads that end them, through guards in any order.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use opentelemetry::Context;
use opentelemetry::trace::{FutureExt as _, TraceContextExt as _};
use tokio::runtime::{Builder, Runtime};

use super::{Round, Stage, span_of};
use crate::kinds::{Kind, soak_without_span};

const TASKS: usize = 64;
const WORKERS: usize = 4;
/// Rounds of one runtime; then its workers end and others begin.
const ROUNDS: usize = 50;

/// Interleaved tasks, each with a span and children, on a runtime whose workers steal from each other.
pub(super) fn tasks(stage: &Arc<Stage>) -> Round {
    let stage = Arc::clone(stage);
    let mut runtime: Option<Runtime> = None;
    let mut round = 0;
    Box::new(move || {
        if round % ROUNDS == 0 {
            runtime = None;
        }
        round += 1;
        let runtime = match &mut runtime {
            Some(runtime) => runtime,
            none => none.insert(Builder::new_multi_thread().worker_threads(WORKERS).enable_time().build()?),
        };
        runtime.block_on(async {
            let tasks: Vec<_> = (0..TASKS).map(|n| tokio::spawn(task(stage.clone(), Kind::nth(n)))).collect();
            for task in tasks {
                task.await.context("a task panicked")?;
            }
            Ok(())
        })
    })
}

async fn task(stage: Arc<Stage>, kind: Kind) {
    let outer = span_of(&stage.tracer, kind, &Context::new());
    let work = async {
        for burst in 0..6 {
            kind.burn(Duration::from_micros(80));
            if burst % 3 == 1 {
                let inner = span_of(&stage.tracer, kind, &Context::current());
                async {
                    kind.burn(Duration::from_micros(80));
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    kind.burn(Duration::from_micros(80));
                }
                .with_context(inner.clone())
                .await;
                inner.span().end();
            } else {
                tokio::task::yield_now().await;
            }
        }
    };
    work.with_context(outer.clone()).await;
    outer.span().end();
}

/// A span that ends on another thread while its own works on: its label must go with it.
pub(super) fn ended_elsewhere(stage: &Arc<Stage>) -> Round {
    let stage = Arc::clone(stage);
    let (spans, ended) = channel::<(Context, Sender<()>)>();
    thread::spawn(move || {
        for (context, reply) in ended {
            context.span().end();
            // A round that has given up does not listen.
            let _ = reply.send(());
        }
    });
    let mut round = 0;
    Box::new(move || -> Result<()> {
        round += 1;
        let kind = Kind::nth(round);
        let context = span_of(&stage.tracer, kind, &Context::new());
        let guard = context.clone().attach();
        kind.burn(Duration::from_millis(1));
        let (reply, answer) = channel();
        spans.send((context, reply))?;
        answer.recv()?;
        soak_without_span(Duration::from_millis(2));
        drop(guard);
        Ok(())
    })
}

/// Two guards, the outer one dropped first.
pub(super) fn guards_out_of_order(stage: &Arc<Stage>) -> Round {
    let stage = Arc::clone(stage);
    let mut round = 0;
    Box::new(move || {
        round += 1;
        let (one, two) = (Kind::nth(round), Kind::nth(round + 1));
        let first = span_of(&stage.tracer, one, &Context::new());
        let second = span_of(&stage.tracer, two, &first);
        let outer = first.clone().attach();
        one.burn(Duration::from_millis(1));
        let inner = second.clone().attach();
        two.burn(Duration::from_millis(1));
        drop(outer);
        two.burn(Duration::from_millis(1));
        drop(inner);
        soak_without_span(Duration::from_millis(1));
        second.span().end();
        first.span().end();
        Ok(())
    })
}
