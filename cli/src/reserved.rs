//! Reserved Instances, and which of them do not apply to what an image bills: they apply to instances of the platform
//! that they were bought for alone. (EC2 User Guide, "AMI billing information fields" and "How Reserved Instances are
//! applied".)

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::billing::{
    BilledAs, Billing, Difference, Licence, Parsed, Platforms, parse_platform_details,
};
use crate::record::Record;
use crate::verdict::Verdict;

/// Reserved Instances that were bought together. (EC2 API reference, "ReservedInstances".)
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReservedInstances {
    /// Their id.
    pub id: String,
    /// Such as `m5.large`.
    pub instance_type: String,
    /// How many they are.
    pub count: i32,
    /// `ProductDescription`, such as `Windows`.
    pub platform: String,
    /// The Availability Zone, if they are bound to one.
    pub zone: Option<String>,
    /// When they end.
    pub ends: Option<DateTime<Utc>>,
}

impl ReservedInstances {
    /// The billing that they were bought for; `None` if it is not known to this version.
    pub fn billing(&self) -> Option<Billing> {
        match parse_platform_details(Some(&self.platform)) {
            Parsed::Known(billing) => Some(billing),
            Parsed::Absent | Parsed::Unrecognised => None,
        }
    }

    /// Whether they apply to instances of an image that is billed as this; `None` if that is not known. Which Reserved
    /// Instances apply to images with the customer's own licence is documented nowhere.
    pub fn apply_to(&self, billed_as: BilledAs) -> Option<bool> {
        let bought_for = self.billing()?;
        match billed_as {
            // An image without a platform is not of the platform that they were bought for.
            BilledAs::Empty => Some(false),
            BilledAs::Known { billing, .. } if billing.licence == Licence::Byol => None,
            BilledAs::Known { billing, .. } => Some(billing == bought_for),
            BilledAs::Contradiction | BilledAs::Unrecognised => None,
        }
    }
}

/// Reserved Instances that do not apply to an image, as it bills another platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Unapplied<'a> {
    /// Which they are.
    #[serde(flatten)]
    pub reserved: &'a ReservedInstances,
    /// Whether they would apply if the image billed what it should.
    pub would_apply: bool,
}

/// Those of an account's Reserved Instances that do not apply to an image. Of what is not known, none.
pub fn unapplied<'a>(all: &'a [ReservedInstances], record: &Record) -> Vec<Unapplied<'a>> {
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
                // What is right as it is should not bill another thing, though it may.
                (Some(expected), Some(billing)) if is_wrong => {
                    expected.difference(&billing, true) == Difference::None
                }
                _ => false,
            },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(platform: &str, details: Option<&str>) -> Option<bool> {
        let reserved = ReservedInstances {
            id: "r".into(),
            instance_type: "m5.large".into(),
            count: 1,
            platform: platform.into(),
            zone: None,
            ends: None,
        };
        reserved.apply_to(BilledAs::read(details, None))
    }

    #[test]
    fn reserved_instances_apply_to_the_platform_that_they_were_bought_for_alone() {
        for platform in [
            "Linux/UNIX",
            "Windows",
            "Red Hat Enterprise Linux",
            "SUSE Linux",
            "Windows with SQL Server Web",
        ] {
            assert_eq!(apply(platform, Some(platform)), Some(true));
            assert_eq!(
                apply(&format!("{platform} (Amazon VPC)"), Some(platform)),
                Some(true)
            );
            assert_eq!(apply(platform, Some("SQL Server Web")), Some(false));
            assert_eq!(apply(platform, None), Some(false), "nothing is billed");
        }
        let sql_on_linux = "Linux with SQL Server Web";
        assert_eq!(apply(sql_on_linux, Some("SQL Server Web")), Some(true));
        assert_eq!(apply("Windows", Some("Linux/UNIX")), Some(false));
    }

    #[test]
    fn of_what_is_not_known_nothing_is_said() {
        assert_eq!(apply("Windows", Some("Windows 3.11")), None);
        assert_eq!(apply("OS/2", Some("Windows")), None);
        assert_eq!(apply("Linux/UNIX", Some("Red Hat BYOL Linux")), None);
    }
}
