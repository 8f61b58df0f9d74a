//! Operations of a traced program, timed with and without the bridge.

use crate::upkeep;
use anyhow::{Context as _, Result, bail};
use opentelemetry::Context;
use opentelemetry::trace::{Span as _, TraceContextExt, Tracer, TracerProvider};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, Span, SpanData, SpanProcessor};
use spanflame::{Profiler, bench_support};
use spanflame_bench_rig::time_per_call;
use std::hint::black_box;
use std::time::Duration;

/// Stands for the user's exporting processor, at no cost of its own.
#[derive(Debug)]
pub(crate) struct NoExport;

impl SpanProcessor for NoExport {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        black_box(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Nanoseconds of one call of the named operation.
pub(crate) fn measure(profiler: Option<&Profiler>, what: &str, iterations: u64) -> Result<f64> {
    let started = || profiler.context("the profiler is not started");
    let plain = || SdkTracerProvider::builder().with_span_processor(NoExport);
    match what {
        "slot" => Ok(time_per_call(iterations, || {
            bench_support::publish(black_box(1));
            bench_support::publish(0);
        })),
        "attach" => {
            let provider = match profiler {
                Some(profiler) => {
                    SdkTracerProvider::builder().with_span_processor(profiler.wrap(NoExport)).build()
                }
                None => plain().build(),
            };
            let span = provider.tracer("benchmark").start("GET /users");
            let context = Context::new().with_span(span);
            Ok(time_per_call(iterations, || drop(black_box(context.clone().attach()))))
        }
        "span" => Ok(span(&plain().build(), iterations)),
        "span-wrapped" => {
            let processor = started()?.wrap(NoExport);
            Ok(span(&SdkTracerProvider::builder().with_span_processor(processor).build(), iterations))
        }
        "span-plain" => {
            let provider = plain().with_span_processor(started()?.span_processor());
            Ok(span(&provider.build(), iterations))
        }
        _ if profiler.is_none() => upkeep::measure(what, iterations),
        _ => bail!("this subject has no operation {what}"),
    }
}

fn span(provider: &SdkTracerProvider, iterations: u64) -> f64 {
    let tracer = provider.tracer("benchmark");
    time_per_call(iterations, || tracer.start("GET /users").end())
}
