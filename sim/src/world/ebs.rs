//! Behaviour and state of the EBS direct APIs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};

use crate::limit::{Buckets, Limit};

/// Behaviour of the EBS direct APIs. A test may change all of it at any time.
#[derive(Debug, Clone)]
pub struct Ebs {
    /// Minimum duration of a call, including its read from the disk. Calls do not wait for each other.
    pub latency: Duration,
    /// Validity of block tokens after `ListSnapshotBlocks`. Zero means that they expire at once.
    pub block_tokens_last: Duration,
    /// Number of reads after which the block tokens of one `ListSnapshotBlocks` answer expire. `None` means that they
    /// expire only with time.
    pub reads_per_listing: Option<u64>,
    /// Validity of a page token. Zero means that it expires at once.
    pub page_tokens_last: Duration,
    /// Maximum number of block indexes that one `ListSnapshotBlocks` answer covers. If few of them are written, the
    /// pages are short or empty, and there are more of them. `None` means that a page has as many blocks as requested.
    pub indexes_per_page: Option<u64>,
    /// Time after a snapshot's completion in which calls do not find it. Up to two minutes were seen (coldsnap issues
    /// 41, 56 and 141).
    pub shown_after: Duration,
    /// The ARNs of the KMS keys with which the account may not decrypt.
    pub denied_keys: BTreeSet<String>,
    /// The account's call limits by action. An action that is not here has no limit.
    pub limits: BTreeMap<String, Limit>,
    /// Number of the last listing. Each listing has other tokens.
    listings: u64,
    /// Block tokens of this listing and of earlier ones are expired.
    expired: u64,
    /// Number of blocks read with the tokens of each listing.
    reads: BTreeMap<u64, u64>,
    buckets: Buckets,
}

impl Default for Ebs {
    /// EBS's own values. Block tokens are valid for seven days and page tokens for 60 minutes (user guide, "Frequently
    /// asked questions for EBS direct APIs"). An account may call `GetSnapshotBlock` 1,000 times a second and
    /// `ListSnapshotBlocks` 50 times ("Amazon EBS endpoints and quotas"). Pages are full, and there is no latency.
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
    /// Expires all block tokens that were issued so far. A new `ListSnapshotBlocks` issues valid ones.
    pub fn expire_block_tokens(&mut self) {
        self.expired = self.listings;
    }

    /// The number of a new listing.
    pub(crate) fn begin_listing(&mut self) -> u64 {
        self.listings += 1;
        self.listings
    }

    /// Whether a block token of this listing is still valid. If so, counts a read with it.
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

    /// Takes a token from the action's bucket, and returns whether the call is within the limit.
    pub(crate) fn admit(&mut self, action: &str, now: Instant) -> bool {
        let limit = self.limits.get(action);
        limit.is_none_or(|limit| self.buckets.take(action, *limit, now))
    }
}

/// The expiry of something issued at `given` with this validity.
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
        // Each action has its own bucket, and an action without a limit has none.
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
