//! EC2's call limits for an account.

use std::collections::BTreeMap;
use tokio::time::Instant;

use crate::form::Form;
use crate::limit::{Buckets, Limit};

/// The actions with a smaller bucket for calls that request everything at once.
const LARGE: [&str; 3] = ["DescribeInstances", "DescribeSnapshots", "DescribeVolumes"];

/// The account's call limits for EC2. Each action has its own bucket. A test may change all of it at any time. `None`
/// means no limit.
#[derive(Debug, Clone, Default)]
pub struct Throttling {
    /// Limit of actions that only read.
    pub non_mutating: Option<Limit>,
    /// Limit of `DescribeInstances`, `DescribeSnapshots` and `DescribeVolumes` without a filter and without
    /// `MaxResults`. It is not documented whether ids count as a filter. Here they do not.
    pub unfiltered: Option<Limit>,
    /// Limit of all other actions.
    pub mutating: Option<Limit>,
    /// Limits of single actions, which take precedence.
    pub actions: BTreeMap<String, Limit>,
    buckets: Buckets,
}

impl Throttling {
    /// EC2's own buckets, for an account whose limits were not raised ("Request throttling for the Amazon EC2 API",
    /// developer guide).
    pub fn of_ec2() -> Throttling {
        let limit = |burst, per_second| Limit { burst, per_second };
        let actions = [
            ("CreateSnapshot", limit(100, 5)),
            ("CreateTags", limit(100, 10)),
            ("CreateVolume", limit(100, 5)),
            ("DeleteTags", limit(100, 10)),
            ("DeregisterImage", limit(100, 5)),
            ("ModifyImageAttribute", limit(100, 5)),
        ];
        Throttling {
            non_mutating: Some(limit(100, 20)),
            unfiltered: Some(limit(50, 10)),
            mutating: Some(limit(50, 5)),
            actions: actions
                .map(|(action, limit)| (action.to_owned(), limit))
                .into(),
            buckets: Buckets::default(),
        }
    }

    /// The same limits with full buckets.
    pub(crate) fn afresh(&self) -> Throttling {
        Throttling {
            buckets: Buckets::default(),
            ..self.clone()
        }
    }

    /// Takes a token from the call's bucket, and returns whether the call is within the limit.
    pub(crate) fn admit(&mut self, action: &str, form: &Form, now: Instant) -> bool {
        let everything = LARGE.contains(&action)
            && form.get("MaxResults").is_none()
            && form.structures("Filter").is_empty();
        let (bucket, limit) = match self.actions.get(action) {
            Some(limit) => (action.to_owned(), Some(*limit)),
            None if everything => (format!("{action} of everything"), self.unfiltered),
            None if only_reads(action) => (action.to_owned(), self.non_mutating),
            None => (action.to_owned(), self.mutating),
        };
        limit.is_none_or(|limit| self.buckets.take(&bucket, limit, now))
    }
}

/// Whether an action only reads.
pub(crate) fn only_reads(action: &str) -> bool {
    action.starts_with("Describe") || action.starts_with("List")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_action_has_a_bucket_of_the_size_of_its_kind() {
        let start = Instant::now();
        let mut throttling = Throttling::of_ec2();
        let filtered = BTreeMap::from([("Filter.1.Name".to_owned(), "state".to_owned())]);
        let paged = BTreeMap::from([("MaxResults".to_owned(), "5".to_owned())]);
        let everything = BTreeMap::new();
        for (action, params, burst, per_second) in [
            ("DescribeImages", &everything, 100, 20),
            ("DescribeSnapshots", &filtered, 100, 20),
            ("DescribeInstances", &paged, 100, 20),
            ("DescribeInstances", &everything, 50, 10),
            ("DisableImage", &everything, 50, 5),
            ("DeregisterImage", &everything, 100, 5),
            ("CreateTags", &everything, 100, 10),
        ] {
            let mut admitted = |after: u64| {
                let now = start + Duration::from_secs(after);
                let form = Form::new(params);
                (0..1000)
                    .filter(|_| throttling.admit(action, &form, now))
                    .count()
            };
            assert_eq!(admitted(0), burst, "{action}");
            assert_eq!(admitted(1), per_second, "{action}");
            assert_eq!(admitted(1000), burst, "{action}");
        }
    }

    #[test]
    fn without_limits_every_call_is_let_through() {
        let mut throttling = Throttling::default();
        let params = BTreeMap::new();
        let now = Instant::now();
        assert!((0..1000).all(|_| throttling.admit("DescribeImages", &Form::new(&params), now)));
    }
}
