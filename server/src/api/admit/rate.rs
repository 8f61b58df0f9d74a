//! Token buckets: how many bytes a tenant may push. What a request brings is known only when it has been decompressed, and
//! one that is larger than the burst must not be impossible: so a bucket goes into debt, and its tenant waits until it is
//! paid.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::model::TenantId;

/// The most tenants with a bucket of their own.
const MAX_BUCKETS: usize = 10_000;

/// How fast a tenant may push.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rate {
    per_second: u64,
    burst: u64,
}

impl Rate {
    /// The rate of these settings, if there is one.
    pub(super) fn new(per_second: u64, burst: u64) -> Option<Self> {
        let burst = if burst == 0 { per_second } else { burst };
        (per_second > 0).then_some(Self { per_second, burst })
    }

    pub(super) fn per_second(self) -> u64 {
        self.per_second
    }

    pub(super) fn burst(self) -> u64 {
        self.burst
    }
}

/// What a tenant may still push.
#[derive(Debug, Default)]
pub(super) struct Bucket(Mutex<Level>);

#[derive(Debug, Default)]
struct Level {
    /// What is missing to a full bucket, in bytes; more than the burst is debt.
    missing: f64,
    /// When it was last filled up, and how fast that goes.
    filled: Option<(Instant, Rate)>,
}

impl Level {
    /// What is missing at this time.
    fn missing(&self, now: Instant) -> f64 {
        let flowed = self.filled.map_or(0.0, |(at, rate)| {
            now.saturating_duration_since(at).as_secs_f64() * rate.per_second as f64
        });
        (self.missing - flowed).max(0.0)
    }

    fn debt(&self) -> f64 {
        self.missing - self.filled.map_or(0.0, |(_, rate)| rate.burst as f64)
    }
}

impl Bucket {
    /// Whether anything may be pushed now, or how long until it may.
    pub(super) fn open(&self, rate: Rate, now: Instant) -> Result<(), Duration> {
        let mut level = self.0.lock();
        level.missing = level.missing(now);
        level.filled = Some((now, rate));
        let debt = level.debt();
        if debt < 0.0 {
            return Ok(());
        }
        // One more byte than the debt has to flow back.
        Err(Duration::try_from_secs_f64((debt + 1.0) / rate.per_second as f64).unwrap_or(Duration::MAX))
    }

    /// Takes what was pushed out of it.
    pub(super) fn charge(&self, bytes: usize) {
        self.0.lock().missing += bytes as f64;
    }

    /// How much was pushed that was not in it, in bytes.
    pub(super) fn debt(&self) -> u64 {
        self.0.lock().debt().max(0.0) as u64
    }

    /// Whether it says no more than a new one.
    fn is_full(&self, now: Instant) -> bool {
        self.0.lock().missing(now) <= 0.0
    }
}

/// The buckets of all tenants that push.
#[derive(Debug, Default)]
pub(super) struct Rates {
    buckets: Mutex<HashMap<TenantId, Arc<Bucket>>>,
    /// Of the tenants for which there is no room, together.
    others: Arc<Bucket>,
}

impl Rates {
    /// A tenant's bucket.
    pub(super) fn bucket(&self, tenant: &TenantId) -> Arc<Bucket> {
        let mut buckets = self.buckets.lock();
        if let Some(bucket) = buckets.get(tenant) {
            return Arc::clone(bucket);
        }
        if buckets.len() >= MAX_BUCKETS {
            let now = Instant::now();
            buckets.retain(|_, bucket| !bucket.is_full(now));
        }
        if buckets.len() >= MAX_BUCKETS {
            return Arc::clone(&self.others);
        }
        Arc::clone(buckets.entry(tenant.clone()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let rate = Rate::new(100, 1000).unwrap();
        let (bucket, now) = (Bucket::default(), Instant::now());
        for _ in 0..10 {
            assert_eq!(bucket.open(rate, now), Ok(()));
            bucket.charge(100);
        }
        let wait = bucket.open(rate, now).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= SECOND, "{wait:?}");
        assert_eq!(bucket.open(rate, now + wait), Ok(()));
        bucket.charge(100);
        assert!(bucket.open(rate, now + wait).is_err());
    }

    #[test]
    fn one_that_is_larger_than_the_burst_passes_and_is_paid_for() {
        let rate = Rate::new(100, 10).unwrap();
        let (bucket, now) = (Bucket::default(), Instant::now());
        assert_eq!(bucket.open(rate, now), Ok(()));
        bucket.charge(1_000_000);
        assert_eq!(bucket.debt(), 999_990);
        let wait = bucket.open(rate, now).unwrap_err();
        assert_eq!(wait.as_secs(), 9999);
        assert!(bucket.open(rate, now + SECOND * 9999).is_err());
        assert_eq!(bucket.open(rate, now + SECOND * 10_000), Ok(()));
        assert_eq!(bucket.open(rate, now + SECOND * 20_000), Ok(()));
        bucket.charge(11);
        assert!(bucket.open(rate, now + SECOND * 20_000).is_err(), "silence saves up one burst, not more");
    }

    #[test]
    fn a_rate_of_nothing_is_no_limit_and_the_burst_is_a_second() {
        assert_eq!(Rate::new(0, 5), None);
        assert_eq!(Rate::new(7, 0).unwrap().burst(), 7);
    }

    #[test]
    fn tenants_do_not_pay_for_each_other_and_are_bounded() {
        let rate = Rate::new(1, 1).unwrap();
        let (rates, now) = (Rates::default(), Instant::now());
        let tenant = |n: usize| TenantId::new(&format!("t{n}")).unwrap();
        let poor = rates.bucket(&tenant(0));
        assert_eq!(poor.open(rate, now), Ok(()));
        poor.charge(1_000_000);
        assert_eq!(rates.bucket(&tenant(1)).open(rate, now), Ok(()));
        for n in 0..2 * MAX_BUCKETS {
            rates.bucket(&tenant(n));
        }
        assert!(rates.buckets.lock().len() <= MAX_BUCKETS);
        assert!(rates.bucket(&tenant(0)).open(rate, now).is_err(), "debts are not forgotten");
    }
}
