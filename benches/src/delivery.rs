//! B4 and B5: how much of the CPU time a profile accounts for, and how much of it on the wrong thread.

use crate::process::Measured;
use crate::subjects::{Profiler, Subjects};
use crate::{Report, Setup};
use anyhow::Result;
use spanflame_bench_rig::{Delivery, Measurement, Request};
use std::fmt::Write;

struct Point {
    profiler: Profiler,
    hz: u32,
    threads: usize,
    delivery: Delivery,
}

/// One fresh process for each point: a profiler's earlier run must not help or hurt it.
pub fn measure(setup: &Setup) -> Result<Report> {
    // Short runs lose each thread's last period, so the rate that the target names gets the time.
    let rates: &[(u32, u64)] = if setup.quick {
        &[(100, 3_000), (1000, 1_000)]
    } else {
        &[(100, 20_000), (250, 3_000), (1000, 3_000)]
    };
    let counts: &[usize] = setup.pick(&[2, 32], &[1, 2, 8, 32]);
    let profilers = setup.pick(&Profiler::ALL[..3], &Profiler::ALL[..]);
    let binaries = Subjects::new(&setup.subject).binaries(profilers)?;
    let mut points = Vec::new();
    for &(hz, millis) in rates {
        for &threads in counts {
            for (profiler, binary) in &binaries {
                let mut process = Measured::start(binary, hz)?;
                let delivery = process.ask(&Request::Deliver { threads, millis })?;
                points.push(Point { profiler: *profiler, hz, threads, delivery });
            }
        }
    }

    let mut table = String::new();
    for &(hz, millis) in rates {
        writeln!(
            table,
            "{hz} Hz, {} s: accounted / on the wrong thread / samples per CPU second\n",
            millis / 1000
        )?;
        write!(table, "|  |")?;
        for threads in counts {
            write!(table, " {threads} busy |")?;
        }
        writeln!(table, "\n|---|{}", "---|".repeat(counts.len()))?;
        for profiler in profilers {
            write!(table, "| {} |", profiler.title())?;
            for point in points.iter().filter(|p| p.profiler == *profiler && p.hz == hz) {
                let Delivery { accounted, misallocated, signals_per_cpu_second } = point.delivery;
                write!(
                    table,
                    " {accounted:.3} / {:.2} % / {signals_per_cpu_second:.0} |",
                    misallocated * 100.0
                )?;
            }
            writeln!(table)?;
        }
        writeln!(table)?;
    }

    let of =
        |profiler: Profiler, hz: u32| points.iter().filter(move |p| p.profiler == profiler && p.hz == hz);
    let worst_accounted = |profiler| {
        of(profiler, 100)
            .map(|p| p.delivery.accounted)
            .max_by(|a, b| (a - 1.0).abs().total_cmp(&(b - 1.0).abs()))
    };
    let worst_misallocated =
        |profiler| of(profiler, 100).map(|p| p.delivery.misallocated).max_by(f64::total_cmp);
    let spell = |profiler, value: fn(&Delivery) -> f64| {
        let mut text = String::new();
        for &(hz, _) in rates {
            let cells: Vec<String> =
                of(profiler, hz).map(|p| format!("{}:{:.3}", p.threads, value(&p.delivery))).collect();
            let rate = of(profiler, hz).map(|p| p.delivery.signals_per_cpu_second).fold(0.0, f64::max);
            let _ = write!(text, " {hz} Hz (up to {rate:.0}/s) {}", cells.join(" "));
        }
        text
    };
    let measurement =
        |id: &str, worst: &dyn Fn(Profiler) -> Option<f64>, value: fn(&Delivery) -> f64| Measurement {
            id: id.to_owned(),
            ours: worst(Profiler::Spanflame),
            peer: worst(Profiler::Pyroscope),
            unit: "fraction".to_owned(),
            peer_is: Profiler::Pyroscope.title().to_owned(),
            note: profilers
                .iter()
                .map(|&profiler| format!("{}, threads:fraction{}", profiler.title(), spell(profiler, value)))
                .collect::<Vec<_>>()
                .join("; "),
        };
    let measurements = vec![
        measurement("B4", &worst_accounted, |d| d.accounted),
        measurement("B5", &worst_misallocated, |d| d.misallocated),
    ];
    Ok(Report { measurements, table })
}
