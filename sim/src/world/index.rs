//! Who refers to whom, so that a question about hundreds of ids needs no walk through a large world.

use std::collections::{BTreeSet, HashMap};

/// Which resources name which in a [`World`](super::World). Only the server makes an index, and forgets it when anything
/// may have changed. Without one the answers are the same, and take longer.
#[derive(Debug, Clone, Default)]
pub struct Index(Option<HashMap<String, Vec<String>>>);

impl Index {
    /// An index in which nothing is noted yet.
    pub(super) fn begun() -> Index {
        Index(Some(HashMap::new()))
    }

    /// Notes that one resource names another, in an index that was begun.
    pub(super) fn note(&mut self, referrer: &str, referred: &str) {
        if let Some(referrers) = &mut self.0 {
            let known = referrers.entry(referred.to_owned()).or_default();
            known.push(referrer.to_owned());
        }
    }

    pub(crate) fn is_made(&self) -> bool {
        self.0.is_some()
    }

    /// The ids of all resources that name one of these; `None` if there is no index.
    pub(crate) fn referrers(&self, ids: &BTreeSet<&str>) -> Option<BTreeSet<&str>> {
        let known = self.0.as_ref()?;
        let found = ids.iter().filter_map(|id| known.get(*id)).flatten();
        Some(found.map(String::as_str).collect())
    }
}
