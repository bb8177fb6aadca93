//! Call limits, as token buckets.

use std::collections::BTreeMap;
use tokio::time::Instant;

/// Call limit of an action: a token bucket from which each call takes one token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Capacity of the bucket, in tokens. It is full at first.
    pub burst: u32,
    /// Tokens added per second.
    pub per_second: u32,
}

impl Limit {
    /// A limit of `calls` per second, with a burst of one second's calls. AWS does not document the burst for every
    /// service.
    pub fn per_second(calls: u32) -> Limit {
        Limit {
            burst: calls,
            per_second: calls,
        }
    }
}

/// The buckets, by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Buckets(BTreeMap<String, Bucket>);

impl Buckets {
    /// Takes a token from the bucket of this name, and returns whether there was one.
    pub(crate) fn take(&mut self, name: &str, limit: Limit, now: Instant) -> bool {
        let bucket = self.0.entry(name.to_owned());
        let bucket = bucket.or_insert_with(|| Bucket::full(limit, now));
        bucket.take(limit, now)
    }
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn full(limit: Limit, now: Instant) -> Bucket {
        Bucket {
            tokens: f64::from(limit.burst),
            at: now,
        }
    }

    fn take(&mut self, limit: Limit, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        let refilled = self.tokens + elapsed * f64::from(limit.per_second);
        self.tokens = refilled.min(f64::from(limit.burst));
        self.at = now;
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }
}
