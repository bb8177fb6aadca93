//! A row of an audit, read from the journal.

use ami_billing_guard::record::{Actual, Expected};
use serde::Deserialize;

/// The part of a row that the list shows.
#[derive(Debug, Deserialize)]
pub(super) struct Listed {
    pub(super) image_id: Option<String>,
    pub(super) region: Option<String>,
    pub(super) name: Option<String>,
    pub(super) verdict: String,
    pub(super) kind: Option<String>,
    pub(super) actual: Option<Actual>,
    pub(super) expected: Option<Expected>,
    pub(super) action: Option<String>,
    pub(super) outcome: Option<String>,
    pub(super) error: Option<String>,
    pub(super) reserved_instances: Option<Vec<Lost>>,
}

impl Listed {
    pub(super) fn label(&self) -> String {
        match &self.kind {
            Some(kind) => format!("{}/{kind}", self.verdict),
            None => self.verdict.clone(),
        }
    }

    pub(super) fn needs_attention(&self) -> bool {
        matches!(
            self.verdict.as_str(),
            "mismatch" | "conflict" | "unverifiable"
        )
    }
}

/// Reserved Instances that would apply to an AMI if it were billed as expected.
#[derive(Debug, Deserialize)]
pub(super) struct Lost {
    pub(super) id: String,
    pub(super) instance_type: String,
    pub(super) count: i32,
    pub(super) platform: String,
}
