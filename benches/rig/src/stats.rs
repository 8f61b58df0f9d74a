//! Robust summaries: the machine is shared, so a mean alone says little.

use std::time::Instant;

/// The middle value (the upper one of two). Zero when there is none.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// The mean of what is left after the lowest and highest tenth are dropped, and its standard error.
pub fn trimmed_mean(values: &mut [f64]) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let cut = values.len() / 10;
    let kept = &values[cut..values.len() - cut];
    if kept.is_empty() {
        return (0.0, 0.0);
    }
    let n = kept.len() as f64;
    let mean = kept.iter().sum::<f64>() / n;
    let variance = kept.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    (mean, (variance / n).sqrt())
}

/// Nanoseconds of one call: the median over batches of 1,000, which hides preemption and stray signals.
pub fn time_per_call(iterations: u64, mut call: impl FnMut()) -> f64 {
    const BATCH: u64 = 1_000;
    let mut batches: Vec<f64> = (0..iterations.div_ceil(BATCH).max(1))
        .map(|_| {
            let start = Instant::now();
            for _ in 0..BATCH {
                call();
            }
            start.elapsed().as_nanos() as f64 / BATCH as f64
        })
        .collect();
    median(&mut batches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_takes_the_middle() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut []), 0.0);
    }

    #[test]
    fn trimmed_mean_ignores_the_outliers() {
        let mut values: Vec<f64> = vec![10.0; 18];
        values.extend([-1e9, 1e9]);
        assert_eq!(trimmed_mean(&mut values), (10.0, 0.0));
    }
}
