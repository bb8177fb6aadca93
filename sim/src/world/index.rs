//! Index of references between resources, so that a request about hundreds of ids needs no scan of a large world.

use std::collections::{BTreeSet, HashMap};

/// References between the resources of a [`World`](super::World). Only the server builds an index, and discards it when
/// anything may have changed. Without one, the answers are the same but take longer.
#[derive(Debug, Clone, Default)]
pub struct Index(Option<HashMap<String, Vec<String>>>);

impl Index {
    /// An index without entries.
    pub(super) fn begun() -> Index {
        Index(Some(HashMap::new()))
    }

    /// Records that one resource refers to another, if the index was begun.
    pub(super) fn note(&mut self, referrer: &str, referred: &str) {
        if let Some(referrers) = &mut self.0 {
            let known = referrers.entry(referred.to_owned()).or_default();
            known.push(referrer.to_owned());
        }
    }

    pub(crate) fn is_made(&self) -> bool {
        self.0.is_some()
    }

    /// The ids of all resources that refer to one of these, or `None` if there is no index.
    pub(crate) fn referrers(&self, ids: &BTreeSet<&str>) -> Option<BTreeSet<&str>> {
        let known = self.0.as_ref()?;
        let found = ids.iter().filter_map(|id| known.get(*id)).flatten();
        Some(found.map(String::as_str).collect())
    }
}
