//! How the EBS direct APIs behave, and what they remember.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};

use crate::limit::{Buckets, Limit};

/// How the EBS direct APIs behave. All of it may be changed at any time.
#[derive(Debug, Clone)]
pub struct Ebs {
    /// How long a call takes at least, with what the disk takes. Calls do not wait for each other.
    pub latency: Duration,
    /// For how long after `ListSnapshotBlocks` its block tokens are good. Zero: they are expired at once.
    pub block_tokens_last: Duration,
    /// After how many reads the block tokens of one answer of `ListSnapshotBlocks` expire; `None`: only with
    /// time.
    pub reads_per_listing: Option<u64>,
    /// For how long a page token is good. Zero: it is expired at once.
    pub page_tokens_last: Duration,
    /// How many block indexes an answer of `ListSnapshotBlocks` covers at most. Where few of them are written
    /// a page is short or empty, and there are more. `None`: a page has as many blocks as were asked for.
    pub indexes_per_page: Option<u64>,
    /// For how long after a snapshot's completion the calls do not find it: up to two minutes were seen (coldsnap issues
    /// 41, 56 and 141).
    pub shown_after: Duration,
    /// The ARNs of the KMS keys that the account may not decrypt with.
    pub denied_keys: BTreeSet<String>,
    /// How often the account may call an action; one that is not here, as often as it likes.
    pub limits: BTreeMap<String, Limit>,
    /// The number of the last listing. Each has other tokens.
    listings: u64,
    /// Block tokens of this listing and of earlier ones are expired.
    expired: u64,
    /// How many blocks were read with the tokens of a listing.
    reads: BTreeMap<u64, u64>,
    buckets: Buckets,
}

impl Default for Ebs {
    /// As EBS is: block tokens are good for seven days and page tokens for 60 minutes (user guide, "Frequently
    /// asked questions for EBS direct APIs"); an account may call `GetSnapshotBlock` 1,000 times a second and
    /// `ListSnapshotBlocks` 50 times ("Amazon EBS endpoints and quotas"). Pages are full, and there is no
    /// latency.
    fn default() -> Ebs {
        Ebs {
            latency: Duration::ZERO,
            block_tokens_last: Duration::from_hours(7 * 24),
            reads_per_listing: None,
            page_tokens_last: Duration::from_mins(60),
            indexes_per_page: None,
            shown_after: Duration::ZERO,
            denied_keys: BTreeSet::new(),
            limits: BTreeMap::from([
                ("GetSnapshotBlock".to_owned(), Limit::per_second(1000)),
                ("ListSnapshotBlocks".to_owned(), Limit::per_second(50)),
            ]),
            listings: 0,
            expired: 0,
            reads: BTreeMap::new(),
            buckets: Buckets::default(),
        }
    }
}

impl Ebs {
    /// Lets all block tokens expire that were given out so far. A new `ListSnapshotBlocks` gives good ones.
    pub fn expire_block_tokens(&mut self) {
        self.expired = self.listings;
    }

    /// The number of a new listing.
    pub(crate) fn begin_listing(&mut self) -> u64 {
        self.listings += 1;
        self.listings
    }

    /// Whether a block token of this listing is still good; if so, this counts as a read with it.
    pub(crate) fn spend(
        &mut self,
        listing: u64,
        listed: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> bool {
        if listing <= self.expired || expiry(listed, self.block_tokens_last) <= now {
            return false;
        }
        let reads = self.reads.entry(listing).or_default();
        if self.reads_per_listing.is_some_and(|most| *reads >= most) {
            return false;
        }
        *reads += 1;
        true
    }

    /// Takes a token out of the bucket of the action, if there is one.
    pub(crate) fn admit(&mut self, action: &str, now: Instant) -> bool {
        let limit = self.limits.get(action);
        limit.is_none_or(|limit| self.buckets.take(action, *limit, now))
    }
}

/// When what was given out then and lasts so long expires.
pub(crate) fn expiry(given: DateTime<Utc>, lasts: Duration) -> DateTime<Utc> {
    let lasts = TimeDelta::from_std(lasts).ok();
    let expiry = lasts.and_then(|lasts| given.checked_add_signed(lasts));
    expiry.unwrap_or(DateTime::<Utc>::MAX_UTC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_bucket_lets_its_burst_through_and_fills_again() {
        let mut ebs = Ebs::default();
        let limit = Limit {
            burst: 2,
            per_second: 10,
        };
        ebs.limits.insert("GetSnapshotBlock".into(), limit);
        let start = Instant::now();
        let mut at = |milliseconds| {
            let now = start + Duration::from_millis(milliseconds);
            ebs.admit("GetSnapshotBlock", now)
        };
        let admitted = [0, 0, 0, 50, 100, 101, 10_000, 10_000, 10_000].map(&mut at);
        let expected = [true, true, false, false, true, false, true, true, false];
        assert_eq!(admitted, expected);
        // Each action has its own, and one without a limit has none.
        assert!(ebs.admit("ListSnapshotBlocks", start));
        ebs.limits.clear();
        assert!(ebs.admit("GetSnapshotBlock", start));
    }

    #[test]
    fn block_tokens_expire_with_time_with_reads_or_on_request() {
        let mut ebs = Ebs::default();
        let listed = clock::now();
        let listing = ebs.begin_listing();
        let in_days = |days| listed + TimeDelta::days(days);
        assert!(ebs.spend(listing, listed, in_days(6)));
        assert!(!ebs.spend(listing, listed, in_days(7)));
        ebs.reads_per_listing = Some(2);
        assert!(ebs.spend(listing, listed, listed));
        assert!(!ebs.spend(listing, listed, listed));
        let listing = ebs.begin_listing();
        assert!(ebs.spend(listing, listed, listed));
        ebs.expire_block_tokens();
        assert!(!ebs.spend(listing, listed, listed));
        let listing = ebs.begin_listing();
        assert!(ebs.spend(listing, listed, listed));
        ebs.block_tokens_last = Duration::ZERO;
        assert!(!ebs.spend(listing, listed, listed));
        ebs.block_tokens_last = Duration::MAX;
        assert!(ebs.spend(listing, listed, in_days(1_000_000)));
    }
}
