//! Reserved Instances that do not apply to an image. They apply only to instances of the platform for which they were
//! bought. (EC2 User Guide, "AMI billing information fields" and "How Reserved Instances are applied".)

use ami_billing_guard::billing::{Difference, Platforms};
use ami_billing_guard::ec2::ReservedInstances;
use ami_billing_guard::record::Record;
use ami_billing_guard::verdict::Verdict;
use serde::Serialize;

/// Reserved Instances that do not apply to an image, because it is billed as another platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Unapplied<'a> {
    /// The Reserved Instances.
    #[serde(flatten)]
    pub(crate) reserved: &'a ReservedInstances,
    /// Whether they would apply if the image were billed as expected.
    pub(crate) would_apply: bool,
}

/// The account's Reserved Instances that do not apply to an image. They are omitted where this is unknown.
pub(crate) fn unapplied<'a>(all: &'a [ReservedInstances], record: &Record) -> Vec<Unapplied<'a>> {
    let Some(actual) = &record.actual else {
        return Vec::new();
    };
    let expected = record.expected.as_ref();
    let expected = expected.and_then(|expected| {
        let names = expected.platform.iter().map(String::as_str);
        Platforms::parse(names).ok()
    });
    let is_wrong = matches!(record.verdict, Verdict::Mismatch(_));
    let billed_as = actual.billed_as();
    all.iter()
        .filter(|reserved| reserved.apply_to(billed_as) == Some(false))
        .map(|reserved| Unapplied {
            reserved,
            would_apply: match (&expected, reserved.billing()) {
                // An image that is billed correctly should not change, even if the expectation also allows another
                // platform.
                (Some(expected), Some(billing)) if is_wrong => {
                    expected.difference(&billing, true) == Difference::None
                }
                _ => false,
            },
        })
        .collect()
}
