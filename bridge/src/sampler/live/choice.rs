//! Which clock is used: by the rate, by what the kernel permits, and by what a sample costs here.

use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::clock::{Clock, PerfEvents, ProcessTimer, ThreadTimers};
use super::state::{self, PROBED_EVENT, PROBES};
use crate::sampler::{ClockChoice, Options};
use crate::sys::arch::cycles;
use crate::sys::perf;
use crate::sys::signal::SIGNAL;
use crate::sys::{thread, timer};

/// A clock, the ones to fall back to, and why it is this one.
pub(super) struct Chosen {
    pub(super) clocks: Vec<Box<dyn Clock>>,
    pub(super) why: String,
    /// Whether another one was asked for.
    pub(super) instead: bool,
    /// What one sample costs, where that was measured beforehand.
    pub(super) sample_cost: Option<Duration>,
}

/// What the decision rests on.
trait Facts {
    /// How often the kernel looks at CPU timers.
    fn tick(&self) -> Duration;
    /// Whether a thread may have a timer.
    fn timers(&mut self) -> io::Result<()>;
    /// What a sample by a perf event costs the thread that is sampled, if there may be any.
    fn perf(&mut self) -> io::Result<Duration>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    ThreadTimers,
    Perf,
    ProcessTimer,
}

#[derive(Debug)]
struct Decision {
    kind: Kind,
    why: String,
    instead: bool,
    sample_cost: Option<Duration>,
}

/// Decides, and makes the clocks.
pub(super) fn choose(options: &Options) -> Chosen {
    let Decision { kind, why, instead, sample_cost } = decide(options, &mut Here);
    let frequency = options.frequency;
    let mut clocks: Vec<Box<dyn Clock>> = Vec::new();
    if kind == Kind::Perf {
        clocks.push(Box::new(PerfEvents::new(frequency)));
    }
    if kind != Kind::ProcessTimer {
        clocks.push(Box::new(ThreadTimers::new(frequency)));
    }
    clocks.push(Box::new(ProcessTimer::new(frequency)));
    Chosen { clocks, why, instead, sample_cost }
}

fn decide(options: &Options, facts: &mut dyn Facts) -> Decision {
    let wanted = options.clock;
    let decision = |kind, why: String| Decision { kind, why, instead: false, sample_cost: None };
    if wanted == ClockChoice::ProcessTimer {
        return decision(Kind::ProcessTimer, "asked for".to_owned());
    }
    let hertz = |period: Duration| 1.0 / period.as_secs_f64();
    let above_tick = Duration::from_secs(1) / options.frequency < facts.tick();
    let perf = match wanted {
        ClockChoice::Perf => Some(facts.perf()),
        ClockChoice::Auto if above_tick => Some(facts.perf()),
        _ => None,
    };
    let mut why = match (wanted, above_tick) {
        (ClockChoice::ThreadTimers, _) => "asked for".to_owned(),
        (_, false) => format!("the kernel's tick of {:.0} Hz allows the rate", hertz(facts.tick())),
        (_, true) => String::new(),
    };
    match perf {
        Some(Ok(cost)) => {
            let share = cost.as_secs_f64() * f64::from(options.frequency);
            let costs = format!(
                "a sample costs {:.0} µs, {:.1} % at this rate",
                cost.as_secs_f64() * 1e6,
                share * 100.0
            );
            let sample_cost = Some(cost);
            if wanted == ClockChoice::Perf {
                return Decision { sample_cost, ..decision(Kind::Perf, format!("asked for; {costs}")) };
            }
            if options.cpu_budget.is_none_or(|budget| share <= budget) {
                let why =
                    format!("the rate is above the kernel's tick of {:.0} Hz; {costs}", hertz(facts.tick()));
                return Decision { sample_cost, ..decision(Kind::Perf, why) };
            }
            why = format!(
                "the rate is above the kernel's tick of {:.0} Hz, so samples count for more; perf would exceed the CPU \
                 budget: {costs}",
                hertz(facts.tick())
            );
        }
        Some(Err(error)) if wanted == ClockChoice::Perf => {
            why = format!("perf_event_open was refused: {error}")
        }
        Some(Err(error)) => {
            why = format!(
                "the rate is above the kernel's tick of {:.0} Hz, so samples count for more; perf_event_open was \
                 refused: {error}",
                hertz(facts.tick())
            );
        }
        None => {}
    }
    let refused_perf = wanted == ClockChoice::Perf;
    match facts.timers() {
        Ok(()) => Decision { instead: refused_perf, ..decision(Kind::ThreadTimers, why) },
        Err(error) => {
            let refused = format!("timer_create was refused: {error}");
            let why = if refused_perf { format!("{why}; {refused}") } else { refused };
            Decision { instead: wanted != ClockChoice::Auto, ..decision(Kind::ProcessTimer, why) }
        }
    }
}

/// The facts of this process.
struct Here;

impl Facts for Here {
    fn tick(&self) -> Duration {
        timer::kernel_tick()
    }

    fn timers(&mut self) -> io::Result<()> {
        timer::create(thread::id(), SIGNAL, state::probe_value()).map(|timer| timer.delete())
    }

    /// From the gaps that signals leave in a busy loop of the calling thread.
    fn perf(&mut self) -> io::Result<Duration> {
        const PERIOD: Duration = Duration::from_micros(250);
        const SIGNALS: usize = 12;
        const PATIENCE: Duration = Duration::from_millis(30);

        let event = perf::open(thread::id(), SIGNAL, PERIOD)?;
        PROBED_EVENT.store(event.0 + 1, Ordering::Relaxed);
        let enabled = event.enable();
        let (started, first) = (Instant::now(), cycles());
        let (mut last, mut seen, mut gap_before) = (first, PROBES.load(Ordering::Relaxed), 0);
        let mut gaps = Vec::with_capacity(SIGNALS);
        let mut rounds = 0u32;
        while enabled.is_ok() && gaps.len() < SIGNALS {
            let probes = PROBES.load(Ordering::Relaxed);
            let now = cycles();
            let gap = now.wrapping_sub(last);
            if probes != seen {
                // The signal came before the count was read: in this gap or in the one before.
                gaps.push(gap.max(gap_before));
                seen = probes;
            }
            (last, gap_before) = (now, gap);
            rounds = rounds.wrapping_add(1);
            if rounds.is_multiple_of(4096) {
                if started.elapsed() > PATIENCE {
                    break;
                }
                last = cycles();
            }
        }
        let (elapsed, total) = (started.elapsed(), cycles().wrapping_sub(first));
        event.close();
        PROBED_EVENT.store(0, Ordering::Relaxed);
        enabled?;
        gaps.sort_unstable();
        match gaps.get(gaps.len() / 2) {
            Some(median) if total > 0 => Ok(elapsed.mul_f64(*median as f64 / total as f64)),
            _ => Err(io::Error::new(io::ErrorKind::TimedOut, "no signal came")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spans::SpanTable;

    struct Told {
        tick: Duration,
        timers: bool,
        perf: Option<Duration>,
    }

    impl Facts for Told {
        fn tick(&self) -> Duration {
            self.tick
        }

        fn timers(&mut self) -> io::Result<()> {
            if self.timers { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
        }

        fn perf(&mut self) -> io::Result<Duration> {
            self.perf.ok_or_else(|| io::ErrorKind::PermissionDenied.into())
        }
    }

    fn of(wanted: ClockChoice, frequency: u32, budget: Option<f64>, facts: Told) -> (Kind, bool, String) {
        let spans: &'static SpanTable = Box::leak(Box::new(SpanTable::new(64)));
        let options = Options { clock: wanted, cpu_budget: budget, ..Options::new(frequency, spans) };
        let mut facts = facts;
        let Decision { kind, why, instead, .. } = decide(&options, &mut facts);
        assert!(!why.is_empty());
        (kind, instead, why)
    }

    fn facts() -> Told {
        Told { tick: Duration::from_millis(4), timers: true, perf: Some(Duration::from_micros(80)) }
    }

    #[test]
    fn the_rate_the_permission_and_the_cost_decide() {
        let auto = ClockChoice::Auto;
        let (kind, _, why) = of(auto, 100, Some(0.01), facts());
        assert_eq!(kind, Kind::ThreadTimers);
        assert!(why.contains("250 Hz allows"), "{why}");
        assert_eq!(of(auto, 250, Some(0.01), facts()).0, Kind::ThreadTimers);

        let (kind, instead, why) = of(auto, 1000, Some(0.01), facts());
        assert_eq!((kind, instead), (Kind::ThreadTimers, false));
        assert!(why.contains("80 µs, 8.0 %"), "{why}");
        let cheap = Told { perf: Some(Duration::from_micros(5)), ..facts() };
        assert_eq!(of(auto, 1000, Some(0.01), cheap).0, Kind::Perf);
        assert_eq!(of(auto, 1000, None, facts()).0, Kind::Perf, "without a budget");
        let (kind, _, why) = of(auto, 1000, Some(0.01), Told { perf: None, ..facts() });
        assert_eq!(kind, Kind::ThreadTimers);
        assert!(why.contains("perf_event_open was refused"), "{why}");
    }

    #[test]
    fn what_is_asked_for_is_used_or_its_refusal_told() {
        for (wanted, kind) in [
            (ClockChoice::ThreadTimers, Kind::ThreadTimers),
            (ClockChoice::Perf, Kind::Perf),
            (ClockChoice::ProcessTimer, Kind::ProcessTimer),
        ] {
            assert_eq!(of(wanted, 100, Some(0.01), facts()).0, kind);
        }
        let (kind, instead, why) = of(ClockChoice::Perf, 100, None, Told { perf: None, ..facts() });
        assert_eq!((kind, instead), (Kind::ThreadTimers, true));
        assert!(why.contains("perf_event_open was refused"), "{why}");
        let nothing = || Told { perf: None, timers: false, ..facts() };
        let (kind, instead, why) = of(ClockChoice::Perf, 100, None, nothing());
        assert_eq!((kind, instead), (Kind::ProcessTimer, true));
        assert!(why.contains("perf_event_open") && why.contains("timer_create"), "{why}");
        let (kind, instead, why) = of(ClockChoice::Auto, 100, None, nothing());
        assert_eq!((kind, instead), (Kind::ProcessTimer, false));
        assert!(why.contains("timer_create was refused"), "{why}");
    }
}
