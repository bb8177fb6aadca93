//! What EC2 says now of an image, and of what it comes from.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::billing::{BilledAs, Billing, Licence, Parsed, parse_platform_details};

/// What DescribeImages says of an image. An image that is not visible yet is no observation:
/// nothing can be judged by it (see [`Error::NotVisibleYet`](crate::Error::NotVisibleYet)).
#[derive(Clone, Debug)]
pub enum Observation {
    /// The image is there and `available`.
    Available(Box<Image>),
    /// There is no such image any more, or it is disabled.
    Gone {
        /// How EC2 said so.
        why: String,
        /// Whether it is there, and disabled.
        disabled: bool,
    },
    /// The registration itself failed.
    Failed {
        /// The image's state.
        why: String,
    },
}

impl Observation {
    /// The image, if it is available.
    pub(crate) fn image(&self) -> Option<&Image> {
        match self {
            Observation::Available(image) => Some(image),
            Observation::Gone { .. } | Observation::Failed { .. } => None,
        }
    }
}

/// An available image: the attributes that the guard judges by, as EC2 gives them. What EC2 leaves out
/// is `None`, never made up to an empty string or `false`.
/// (EC2 API reference, "Image".)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// `ami-…`
    pub id: String,
    /// `PlatformDetails`.
    pub platform_details: Option<String>,
    /// `UsageOperation`.
    pub usage_operation: Option<String>,
    /// The name given at registration.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// `x86_64`, `arm64`, …
    pub architecture: Option<String>,
    /// The owning account.
    pub owner: Option<String>,
    /// `amazon` or `aws-marketplace`, if the owner is one of these.
    pub owner_alias: Option<String>,
    /// When the image was created.
    pub created: Option<DateTime<Utc>>,
    /// The tags on the image.
    pub tags: BTreeMap<String, String>,
    /// The snapshot of the root device.
    pub root_snapshot: Option<String>,
    /// `ebs` or `instance-store`.
    pub root_device_type: Option<String>,
    /// Product codes of the AWS Marketplace.
    pub product_codes: BTreeSet<String>,
    /// The instance that CreateImage was called for.
    pub source_instance: Option<String>,
    /// The image that CopyImage was called for.
    pub source_image: Option<String>,
    /// The Region of that image.
    pub source_image_region: Option<String>,
    /// `DeregistrationProtection`, if EC2 says anything of it.
    pub deregistration_protection: Option<String>,
    /// `DeprecationTime`: from when on the image is deprecated.
    pub deprecated_at: Option<DateTime<Utc>>,
    /// What RegisterImage takes to make such an image again, but for its tags: the members of the
    /// request, as the AWS command line's `--cli-input-json` takes them.
    pub request: serde_json::Value,
    /// What EC2's answer lacks without which it cannot be told whether the image is a witness for another one, and of what.
    pub lacks: Option<&'static str>,
}

impl Image {
    /// What the image is billed as.
    pub fn billed_as(&self) -> BilledAs {
        BilledAs::read(
            self.platform_details.as_deref(),
            self.usage_operation.as_deref(),
        )
    }

    /// What the image was registered from: its root snapshot, or its bundle in S3.
    pub(crate) fn registered_from(&self) -> Option<&str> {
        let bundle = || self.request.get("ImageLocation")?.as_str();
        self.root_snapshot.as_deref().or_else(bundle)
    }

    /// Whether the image has deregistration protection: EC2 writes `disabled`, or `enabled` with or without a
    /// cool-down.
    pub fn is_protected(&self) -> bool {
        let protection = self.deregistration_protection.as_deref();
        protection.is_some_and(|protection| !protection.is_empty() && protection != "disabled")
    }

    /// Whether the image is on this snapshot: at its root, or, if the answer does not say what is at its root, anywhere.
    pub(crate) fn may_be_on(&self, snapshot: &str) -> bool {
        if self.lacks.is_none() {
            return self.root_snapshot.as_deref() == Some(snapshot);
        }
        let mappings = self.request.get("BlockDeviceMappings");
        let mappings = mappings.and_then(serde_json::Value::as_array);
        // A disk of EBS whose snapshot the answer does not name may be made of any.
        let may_be_of_it = |mapping: &serde_json::Value| match mapping.pointer("/Ebs/SnapshotId") {
            Some(id) => id == snapshot,
            None => mapping.get("VirtualName").is_none() && mapping.get("NoDevice").is_none(),
        };
        mappings.is_none_or(|mappings| mappings.iter().any(may_be_of_it))
    }

    /// Whether the image's root device is no EBS volume.
    pub fn is_instance_store_backed(&self) -> bool {
        self.root_device_type.as_deref() == Some("instance-store")
    }
}

/// A snapshot. (EC2 API reference, "Snapshot".)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// `snap-…`
    pub id: String,
    /// The owning account.
    pub owner: Option<String>,
    /// The volume that it was taken of; `None` for a copied or imported one.
    pub volume: Option<String>,
    /// Free text, that anybody can write.
    pub description: Option<String>,
    /// When it was begun.
    pub started: Option<DateTime<Utc>>,
    /// When it was completed.
    pub completed: Option<DateTime<Utc>>,
    /// Whether it is in the archive tier.
    pub archived: bool,
    /// The ARN of the Outpost that it is stored on.
    pub outpost: Option<String>,
    /// The ARN of the key that it is encrypted with.
    pub kms_key: Option<String>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// What EC2's answer lacks that decides: then nothing else of it proves anything.
    pub lacks: Option<&'static str>,
}

/// A volume of this account. (EC2 API reference, "Volume".)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// `vol-…`
    pub id: String,
    /// The snapshot that it was made from.
    pub snapshot: Option<String>,
    /// The volume that it was copied from.
    pub copied_from: Option<String>,
    /// When it was created.
    pub created: Option<DateTime<Utc>>,
    /// What it is attached to.
    pub attachments: Vec<Attachment>,
    /// What EC2's answer lacks that decides: then nothing else of it proves anything.
    pub lacks: Option<&'static str>,
}

/// A volume's attachment to an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachment {
    /// `i-…`
    pub instance: String,
    /// Such as `/dev/sda1`.
    pub device: String,
    /// Since when.
    pub since: Option<DateTime<Utc>>,
}

/// An instance. (EC2 API reference, "Instance".)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instance {
    /// `i-…`
    pub id: String,
    /// The owning account.
    pub owner: Option<String>,
    /// The image that it was launched from.
    pub image: Option<String>,
    /// `running`, `terminated`, …
    pub state: Option<String>,
    /// The device of its root volume.
    pub root_device: Option<String>,
    /// `PlatformDetails`.
    pub platform_details: Option<String>,
    /// `UsageOperation`.
    pub usage_operation: Option<String>,
    /// When its usage operation was last changed.
    pub usage_operation_updated: Option<DateTime<Utc>>,
    /// What EC2's answer lacks that decides: then nothing else of it proves anything.
    pub lacks: Option<&'static str>,
}

impl Instance {
    /// What the instance is billed as.
    pub(crate) fn billed_as(&self) -> BilledAs {
        BilledAs::read(
            self.platform_details.as_deref(),
            self.usage_operation.as_deref(),
        )
    }
}

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

/// The owners whose images EC2 itself names as Amazon's or the AWS Marketplace's.
pub(crate) const PUBLISHERS: [&str; 2] = ["amazon", "aws-marketplace"];

/// Whether two names mean the same device: they are equal, or one is the other's first partition
/// (`/dev/sda`, `/dev/sda1`).
pub(crate) fn is_same_device(one: &str, other: &str) -> bool {
    one == other || one.strip_suffix('1') == Some(other) || other.strip_suffix('1') == Some(one)
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
