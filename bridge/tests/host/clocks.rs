//! Each clock charges what was used, and its refusal is told and survived.

use std::fs::File;
use std::time::Duration;

use spanflame::Clock;

use crate::support::{
    assert_charged, assert_told, builder, burn, burn_on, deny, finish, in_child, limit, process_cpu,
};

// The ranges leave room for a machine so busy that threads hardly meet a tick; what an idle one gives is printed.
const TIMERS: &str = "thread CPU timers";
const PERF: &str = "perf task-clock";
const PROCESS: &str = "process CPU timer";

/// Three threads that burn different times, at a rate above the kernel's tick.
fn charges(clock: Clock, name: &str) {
    let profiler = builder(1000, clock).start().expect("starts");
    let before = process_cpu();
    std::thread::scope(|scope| {
        for millis in [500, 1000, 1500] {
            scope.spawn(move || burn(Duration::from_millis(millis)));
        }
    });
    let used = process_cpu() - before;
    let stats = finish(&profiler);
    if stats.clock != name {
        // A container without perf is no reason to fail, but it is to be told.
        assert!(clock == Clock::Perf && stats.clock_reason.contains("was refused"), "{stats:?}");
    }
    assert_charged(&stats, used, 0.9, 1.1);
    assert!(stats.rate_divider == 1 && stats.lost.timers_refused == 0, "{stats:?}");
}

#[test]
fn thread_timers_charge_what_is_used() {
    in_child("clocks::thread_timers_charge_what_is_used", || charges(Clock::ThreadTimers, TIMERS));
}

#[test]
fn perf_events_charge_what_is_used() {
    in_child("clocks::perf_events_charge_what_is_used", || charges(Clock::Perf, PERF));
}

#[test]
fn the_process_timer_charges_what_is_used() {
    in_child("clocks::the_process_timer_charges_what_is_used", || charges(Clock::ProcessTimer, PROCESS));
}

#[test]
fn a_rate_within_the_tick_takes_timers_and_one_above_says_why_it_took_what_it_took() {
    in_child(
        "clocks::a_rate_within_the_tick_takes_timers_and_one_above_says_why_it_took_what_it_took",
        || {
            let stats = finish(&builder(50, Clock::Auto).start().expect("starts"));
            assert!(stats.clock == TIMERS && stats.clock_reason.contains("allows the rate"), "{stats:?}");
            let stats = finish(&builder(1000, Clock::Auto).cpu_budget(0.01).start().expect("starts"));
            println!("{}: {}", stats.clock, stats.clock_reason);
            let said = |words| stats.clock_reason.contains(words);
            assert!(
                match stats.clock {
                    PERF => said("a sample costs"),
                    _ => said("CPU budget: a sample costs") || said("was refused") || said("allows the rate"),
                },
                "{stats:?}"
            );
        },
    );
}

#[test]
fn without_permission_for_perf_events_timers_take_over() {
    in_child("clocks::without_permission_for_perf_events_timers_take_over", || {
        deny(libc::SYS_perf_event_open);
        let profiler = builder(1000, Clock::Perf).start().expect("starts");
        let before = process_cpu();
        // Long enough that what each thread uses after its last tick is little of it.
        burn_on(2, Duration::from_millis(1200));
        let used = process_cpu() - before;
        let stats = finish(&profiler);
        assert_eq!(stats.clock, TIMERS);
        assert!(stats.clock_reason.contains("perf_event_open was refused"), "{}", stats.clock_reason);
        assert_charged(&stats, used, 0.88, 1.1);
    });
}

#[test]
fn without_permission_for_timers_the_process_timer_takes_over() {
    in_child("clocks::without_permission_for_timers_the_process_timer_takes_over", || {
        deny(libc::SYS_timer_create);
        let profiler = builder(100, Clock::Auto).start().expect("starts");
        let before = process_cpu();
        burn_on(2, Duration::from_millis(1200));
        let used = process_cpu() - before;
        let stats = finish(&profiler);
        assert_eq!(stats.clock, PROCESS);
        assert!(stats.clock_reason.contains("timer_create was refused"), "{}", stats.clock_reason);
        assert_charged(&stats, used, 0.85, 1.15);
    });
}

#[test]
fn without_any_clock_it_says_so_and_nothing_else_suffers() {
    in_child("clocks::without_any_clock_it_says_so_and_nothing_else_suffers", || {
        deny(libc::SYS_timer_create);
        deny(libc::SYS_setitimer);
        let error = builder(100, Clock::Auto).start().expect_err("refused");
        assert!(error.to_string().contains("seccomp rules for timer_create and setitimer"), "{error}");
        burn(Duration::from_millis(50));
    });
}

#[test]
fn without_the_list_of_threads_it_says_where_it_looked() {
    in_child("clocks::without_the_list_of_threads_it_says_where_it_looked", || {
        deny(libc::SYS_getdents64);
        let error = builder(100, Clock::Auto).start().expect_err("refused");
        assert!(error.to_string().contains("/proc/self/task"), "{error}");
    });
}

#[test]
fn threads_beyond_the_limit_of_pending_signals_are_charged_by_the_process_timer() {
    in_child("clocks::threads_beyond_the_limit_of_pending_signals_are_charged_by_the_process_timer", || {
        limit(libc::RLIMIT_SIGPENDING, 64);
        let profiler = builder(100, Clock::Auto).start().expect("starts");
        let before = process_cpu();
        burn_on(200, Duration::from_millis(40));
        let used = process_cpu() - before;
        let stats = finish(&profiler);
        assert!(stats.lost.timers_refused >= 100, "{stats:?}");
        assert_charged(&stats, used, 0.8, 1.2);
    });
}

#[test]
fn perf_events_leave_the_service_most_of_its_files() {
    in_child("clocks::perf_events_leave_the_service_most_of_its_files", || {
        limit(libc::RLIMIT_NOFILE, 80);
        let profiler = builder(1000, Clock::Perf).start().expect("starts");
        let before = process_cpu();
        let opened = std::thread::scope(|scope| {
            for _ in 0..60 {
                scope.spawn(|| burn(Duration::from_millis(100)));
            }
            std::thread::sleep(Duration::from_millis(300));
            (0..40).map(|_| File::open("/proc/self/stat")).filter(Result::is_ok).count()
        });
        let used = process_cpu() - before;
        assert_eq!(opened, 40, "files for the service");
        let stats = finish(&profiler);
        if stats.clock == PERF {
            assert!(stats.lost.timers_refused > 0, "{stats:?}");
        }
        assert_charged(&stats, used, 0.8, 1.2);
    });
}

#[test]
fn threads_that_end_before_they_are_found_are_charged() {
    in_child("clocks::threads_that_end_before_they_are_found_are_charged", || {
        let profiler = builder(100, Clock::Auto).start().expect("starts");
        let before = process_cpu();
        for _ in 0..250 {
            burn_on(4, Duration::from_millis(5));
        }
        let used = process_cpu() - before;
        let stats = finish(&profiler);
        println!("{} samples of unregistered threads", stats.unregistered);
        // Many end before any tick meets them. What none met is told, and on nobody.
        assert!(stats.unregistered > 0, "{stats:?}");
        assert_charged(&stats, used, 0.3, 1.2);
        assert_told(&stats, used);
    });
}

#[test]
fn short_threads_that_register_are_charged() {
    in_child("clocks::short_threads_that_register_are_charged", || {
        let profiler = builder(100, Clock::Auto).start().expect("starts");
        let before = process_cpu();
        for _ in 0..250 {
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        spanflame::register_thread();
                        burn(Duration::from_millis(5));
                        spanflame::register_thread();
                    });
                }
            });
        }
        let used = process_cpu() - before;
        let stats = finish(&profiler);
        assert_charged(&stats, used, 0.3, 1.2);
        assert_told(&stats, used);
    });
}

#[test]
fn the_governor_lowers_a_rate_that_costs_too_much() {
    in_child("clocks::the_governor_lowers_a_rate_that_costs_too_much", || {
        let profiler = builder(1000, Clock::Perf).cpu_budget(0.05).start().expect("starts");
        let before = process_cpu();
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while profiler.stats().rate_divider == 1 {
            assert!(std::time::Instant::now() < deadline, "{:?}", profiler.stats());
            burn(Duration::from_millis(100));
        }
        burn(Duration::from_millis(1500));
        let used = process_cpu() - before;
        let stats = finish(&profiler);
        assert!(stats.effective_frequency < 1000.0 && stats.overhead > 0.0, "{stats:?}");
        assert!(stats.sample_cost > Duration::ZERO, "{stats:?}");
        println!(
            "divided by {}, {:.2} % at {:?} a sample",
            stats.rate_divider,
            stats.overhead * 100.0,
            stats.sample_cost
        );
        assert_charged(&stats, used, 0.8, 1.2);
    });
}
