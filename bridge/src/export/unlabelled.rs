//! CPU time that ran in no span, by call site: where work left its task and did not take the context along, or where
//! there is no span yet. Counts what windows hold; takes no sample and knows no thread.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::pprof::Symbols;
use crate::aggregate::Window;
use crate::stats::ratio;
use crate::symbolize::Function;

/// Call sites remembered since the start.
const MAX_SITES: usize = 256;
/// Call sites shown.
const SHOWN: usize = 10;
/// Call sites told in a profile's comments.
const NOTED: usize = 5;
/// Samples that a window needs before its share means something.
const ENOUGH: u64 = 50;
/// Crates that run other people's code.
const RUNTIMES: &[&str] = &[
    "std",
    "core",
    "alloc",
    "tokio",
    "tokio_util",
    "rayon",
    "rayon_core",
    "futures",
    "futures_core",
    "futures_executor",
    "futures_util",
    "crossbeam_utils",
    "async_executor",
    "async_std",
    "async_task",
    "smol",
    "tracing",
    "tracing_futures",
    "opentelemetry",
    "test",
];
/// Where threads and programs begin, as C libraries and compilers call it.
const ENTRIES: &[&str] = &[
    "main",
    "_start",
    "__libc_start_main",
    "__libc_start_call_main",
    "start_thread",
    "clone",
    "clone3",
    "__clone",
    "__rust_try",
];

/// CPU time that ran in no span since the profiler started, the profiler's own threads left out.
///
/// A service whose every request is a span still has some: its runtime, and tasks without one. Work that was meant to
/// belong to a span stands at the top of [`call_sites`](Self::call_sites).
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct UnlabelledCpu {
    /// CPU time in no span.
    pub cpu_time: Duration,
    /// Its share of all CPU time sampled, 0 to 1.
    pub share: f64,
    /// Where, the most first; at most ten.
    pub call_sites: Vec<CallSite>,
}

/// A place in the service's own code where CPU time in no span begins: the outermost function on the stack that belongs
/// neither to the standard library nor to an async runtime or thread pool, or the innermost one if all do.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CallSite {
    /// The function.
    pub function: String,
    /// Its source file, empty when unknown.
    pub file: String,
    /// CPU time in no span below it.
    pub cpu_time: Duration,
    /// Share of all CPU time sampled, 0 to 1.
    pub share: f64,
}

/// Sampling periods, of one window or since the start.
#[derive(Default)]
pub(crate) struct Unlabelled {
    /// All, in a span or not.
    all: u64,
    /// In no span.
    unlabelled: u64,
    sites: HashMap<Arc<Function>, u64>,
}

impl Unlabelled {
    /// What `window` has of it.
    pub(super) fn of(window: &Window, symbols: &Symbols) -> Self {
        let mut found = Self::default();
        for row in window.rows.iter() {
            let site = row.span.is_none().then(|| call_site(symbols.functions(row.frames)));
            match site.flatten() {
                // What profiling costs is no work of the service's.
                Some(site) if is_profiler(&site.name) => continue,
                Some(site) => *found.sites.entry(site.clone()).or_default() += row.weight,
                None => {}
            }
            found.all += row.weight;
            if row.span.is_none() {
                found.unlabelled += row.weight;
            }
        }
        found
    }

    /// Adds a window's; of the call sites, the greatest are kept.
    pub(super) fn add(&mut self, window: Self) {
        self.all += window.all;
        self.unlabelled += window.unlabelled;
        for (site, weight) in window.sites {
            *self.sites.entry(site).or_default() += weight;
        }
        if self.sites.len() > MAX_SITES {
            let mut weights: Vec<u64> = self.sites.values().copied().collect();
            let (_, least, _) = weights.select_nth_unstable_by(MAX_SITES / 2, |a, b| b.cmp(a));
            let least = *least;
            self.sites.retain(|_, weight| *weight > least);
        }
    }

    pub(crate) fn share(&self) -> f64 {
        ratio(self.unlabelled, self.all)
    }

    /// The greatest first.
    fn top(&self, most: usize) -> Vec<(&Function, u64)> {
        let mut sites: Vec<_> = self.sites.iter().map(|(site, weight)| (&**site, *weight)).collect();
        sites.sort_by(|(a, x), (b, y)| y.cmp(x).then_with(|| a.name.cmp(&b.name)));
        sites.truncate(most);
        sites
    }

    /// For the profile's comments.
    pub(super) fn notes(&self) -> Vec<String> {
        if self.unlabelled == 0 {
            return Vec::new();
        }
        let site = |(site, weight): (&Function, u64)| {
            format!("unlabelled.at={:.3} {}", ratio(weight, self.all), site.name)
        };
        let share = format!("unlabelled={:.3}", self.share());
        std::iter::once(share).chain(self.top(NOTED).into_iter().map(site)).collect()
    }

    /// Whether so much of a window ran in no span that somebody should hear of it, and where most of it did.
    pub(super) fn worth_telling(&self, window: &Window) -> Option<String> {
        let spans_exist = window.rows.iter().any(|row| row.span.is_some());
        let most = window.rows.samples() >= ENOUGH && 2 * self.unlabelled > self.all;
        let (site, _) = self.top(1).pop().filter(|_| spans_exist && most)?;
        Some(site.name.to_string())
    }

    pub(crate) fn report(&self, period: Duration) -> UnlabelledCpu {
        let time = |weight: u64| Duration::from_nanos((period.as_nanos() as u64).saturating_mul(weight));
        let site = |(site, weight): (&Function, u64)| CallSite {
            function: site.name.to_string(),
            file: site.file.to_string(),
            cpu_time: time(weight),
            share: ratio(weight, self.all),
        };
        UnlabelledCpu {
            cpu_time: time(self.unlabelled),
            share: self.share(),
            call_sites: self.top(SHOWN).into_iter().map(site).collect(),
        }
    }
}

/// Of a stack's functions, innermost first, the one where the service's own code begins.
fn call_site<'a>(
    functions: impl DoubleEndedIterator<Item = &'a Arc<Function>> + Clone,
) -> Option<&'a Arc<Function>> {
    functions.clone().rev().find(|function| !is_runtime(function)).or_else(|| functions.clone().next())
}

/// Whether a call site is of the profiler's own work: of a thread of its own.
fn is_profiler(name: &str) -> bool {
    crate_of(name) == Some(env!("CARGO_CRATE_NAME")) && !carries(name)
}

/// Whether it is one of the wrappers that run the service's code in a context.
fn carries(name: &str) -> bool {
    const CARRIER: &str = concat!(env!("CARGO_CRATE_NAME"), "::carrier::");
    path_of(name).is_some_and(|path| path.starts_with(CARRIER))
}

fn is_runtime(function: &Function) -> bool {
    match crate_of(&function.name) {
        Some(_) if carries(&function.name) => true,
        Some(name) => RUNTIMES.contains(&name),
        None => {
            let name = &*function.name;
            ENTRIES.contains(&name)
                || ["libc.", "libpthread", "ld-linux", "["].iter().any(|prefix| name.starts_with(prefix))
        }
    }
}

/// The crate of a function, or of the type that its method is of. `None` for a function without a path.
fn crate_of(name: &str) -> Option<&str> {
    path_of(name)?.split("::").next()
}

/// The path of a function, or of the type that its method is of.
fn path_of(name: &str) -> Option<&str> {
    let of = |path: &'_ str| -> Option<(usize, usize)> {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let start = path.find(is_word)?;
        let rest = &path[start..];
        let length = rest.find(|c: char| !is_word(c) && c != ':').unwrap_or(rest.len());
        rest[..length].contains("::").then_some((start, start + length))
    };
    let plain = ["mut ", "dyn ", "const "]
        .iter()
        .fold(name.trim_start_matches(['<', '&', '*']), |rest, word| rest.strip_prefix(word).unwrap_or(rest));
    if let Some((start, end)) = of(plain).filter(|(start, _)| *start == 0) {
        return Some(&plain[start..end]);
    }
    // A method of a type parameter, of a slice or the like: that of the trait.
    let (_, of_trait) = name.split_once(" as ").filter(|_| name.starts_with('<'))?;
    of(of_trait).map(|(start, end)| &of_trait[start..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str) -> Arc<Function> {
        Arc::new(Function { name: name.into(), file: "".into() })
    }

    #[test]
    fn a_function_belongs_to_the_crate_of_its_path_or_of_its_type() {
        for (name, found) in [
            ("shop::pay::checkout", Some("shop")),
            ("<shop::Cart as core::ops::Add>::add", Some("shop")),
            ("<&mut shop::Cart as core::ops::Add>::add", Some("shop")),
            ("<dyn shop::Pay>::pay", Some("shop")),
            ("<F as core::ops::function::FnOnce<A>>::call_once", Some("core")),
            ("<[T] as shop::Sum>::sum", Some("shop")),
            ("std::sys::thread_start", Some("std")),
            ("memcpy", None),
            ("libc.so.6+0x12", None),
            ("{closure}", None),
            ("", None),
        ] {
            assert_eq!(crate_of(name), found, "{name}");
        }
    }

    #[test]
    fn the_call_site_is_where_the_services_own_code_begins() {
        let at = |names: &[&str]| {
            let functions: Vec<_> = names.iter().map(|name| function(name)).collect();
            call_site(functions.iter()).map(|site| site.name.to_string())
        };
        let thread = ["std::thread::spawn_inner", "start_thread", "clone3"];
        let stack = |inner: &[&'static str]| [inner, &thread[..]].concat();
        assert_eq!(
            at(&stack(&["memcpy", "json::parse", "shop::report::render", "tokio::task::poll"])).as_deref(),
            Some("shop::report::render")
        );
        let runtime_alone = stack(&["tokio::time::wheel::poll", "tokio::runtime::park"]);
        assert_eq!(at(&runtime_alone).as_deref(), Some("tokio::time::wheel::poll"));
        assert_eq!(at(&["c_library_work", "start_thread"]).as_deref(), Some("c_library_work"));
        assert_eq!(
            at(&["shop::main", "std::rt::lang_start", "main", "_start"]).as_deref(),
            Some("shop::main")
        );
        assert_eq!(at(&[]), None);
    }

    #[test]
    fn the_profiler_s_own_threads_are_told_from_what_its_wrappers_carry() {
        let future = "<spanflame::carrier::future::WithSpanProfile<F> as core::future::Future>::poll";
        let closure = "spanflame::carrier::in_current_context::{closure}";
        for wrapper in [future, closure] {
            let names = ["shop::report::render", wrapper, "tokio::task::poll", "start_thread"].map(function);
            let site = call_site(names.iter()).expect("a call site");
            assert_eq!(&*site.name, "shop::report::render");
            assert!(!is_profiler(&site.name) && !is_profiler(wrapper));
        }
        let names = ["gimli::read", "spanflame::symbolize::background::Background::start::{closure}"];
        let names = names.map(function);
        assert!(is_profiler(&call_site(names.iter()).expect("a call site").name));
        assert!(is_profiler("<spanflame::export::worker::Worker>::run"));
        assert!(!is_profiler("spanflame_server::main") && !is_profiler("memcpy"));
    }

    #[test]
    fn sites_add_up_over_windows_and_the_small_ones_go_first() {
        let mut sum = Unlabelled::default();
        for round in 0..50u64 {
            let sites = (0..40).map(|i| (function(&format!("app::rare_{round}_{i}")), 1));
            let sites: HashMap<_, _> = sites.chain([(function("app::hot"), 60)]).collect();
            sum.add(Unlabelled { all: 200, unlabelled: 100, sites });
            assert!(sum.sites.len() <= MAX_SITES);
        }
        let report = sum.report(Duration::from_millis(10));
        assert_eq!(report.cpu_time, Duration::from_secs(50));
        assert_eq!(report.share, 0.5);
        assert_eq!(report.call_sites.len(), SHOWN.min(report.call_sites.len()));
        let CallSite { function, cpu_time, share, .. } = &report.call_sites[0];
        assert_eq!((&**function, *cpu_time, *share), ("app::hot", Duration::from_secs(30), 0.3));
        assert_eq!(sum.notes()[..2], ["unlabelled=0.500", "unlabelled.at=0.300 app::hot"]);
        assert!(sum.notes().len() <= NOTED + 1);
    }
}
