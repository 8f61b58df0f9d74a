//! The actors of the storm. Each repeats a short round; what it counts is how many it has ended, so that standing
//! still shows, and what it returns as an error must not be.

mod memory;
mod processes;
mod spans;
mod threads;
mod unwinding;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use opentelemetry::Context;
use opentelemetry::trace::{TraceContextExt as _, Tracer as _};
use opentelemetry_sdk::trace::SdkTracer;

use crate::kinds::Kind;

/// What the actors share.
pub(crate) struct Stage {
    pub(crate) tracer: SdkTracer,
    /// Copies of one library, each a module of its own.
    pub(crate) plugins: Vec<PathBuf>,
}

/// One step of an actor.
pub(crate) type Round = Box<dyn FnMut() -> Result<()> + Send>;

/// Every actor, by name.
pub(crate) fn all(stage: &Arc<Stage>) -> Result<Vec<(&'static str, Round)>> {
    Ok(vec![
        ("panics", unwinding::panics(stage)),
        ("backtraces", unwinding::backtraces()),
        ("recursion", unwinding::recursion(stage)),
        ("threads", threads::short_lived(stage)),
        ("small stacks", threads::small_stacks(stage)),
        ("blocked reads", threads::blocked_reads()),
        ("libraries", memory::libraries(stage)?),
        ("allocations", memory::allocations()),
        ("frees elsewhere", memory::frees_elsewhere()),
        ("forks", processes::forks(stage)),
        ("fork and exec", processes::fork_and_exec()),
        ("spawn", processes::spawn()),
        ("tasks", spans::tasks(stage)),
        ("ended elsewhere", spans::ended_elsewhere(stage)),
        ("guards out of order", spans::guards_out_of_order(stage)),
    ])
}

/// A context around a new span of that kind.
fn span_of(tracer: &SdkTracer, kind: Kind, parent: &Context) -> Context {
    kind.announce();
    parent.with_span(tracer.start_with_context(kind.name(), parent))
}

/// Runs `work` in a span of that kind.
fn in_span(tracer: &SdkTracer, kind: Kind, work: impl FnOnce()) {
    let context = span_of(tracer, kind, &Context::new());
    let guard = context.clone().attach();
    work();
    drop(guard);
    context.span().end();
}
