//! What the observed sources find: the lineage and the disk.

use crate::expectation::{Evidence, Origin, Says, Source};

/// Result of querying an observed source. The disk fills in only its statement and `is_transient`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    /// Its statements, at least one.
    pub(crate) evidence: Vec<Evidence>,
    /// The instance that the image could be created from.
    pub(crate) origin: Option<Origin>,
    /// Whether a query failed that may succeed on a retry.
    pub(crate) is_transient: bool,
    /// Whether the search among the publishers' images has no result and a retry may succeed, or EC2's data about a
    /// witness contradicts itself or lacks what decides. This holds a discard.
    pub(crate) is_late: bool,
    /// Whether a witness has platform details that this version does not know.
    pub(crate) unrecognised: bool,
}

impl Observed {
    /// A result with a single statement.
    pub(crate) fn single(source: Source, says: Says, detail: impl Into<String>) -> Observed {
        let statement = Evidence {
            source,
            says,
            detail: detail.into(),
        };
        Observed {
            evidence: vec![statement],
            ..Observed::default()
        }
    }

    /// Whether a query failed.
    pub(crate) fn failed(&self) -> bool {
        let mut evidence = self.evidence.iter();
        evidence.any(|evidence| matches!(evidence.says, Says::Failed(_)))
    }
}
