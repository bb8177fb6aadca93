//! What EC2 currently says about an image, and about what it comes from.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::billing::{BilledAs, Billing, Licence, Parsed, parse_platform_details};

/// What DescribeImages says about an image. An image that is not visible yet gives none, because nothing can be judged
/// by it (see [`Error::NotVisibleYet`](crate::Error::NotVisibleYet)).
#[derive(Clone, Debug)]
pub enum Observation {
    /// The image exists and is `available`.
    Available(Box<Image>),
    /// The image no longer exists, or it is disabled.
    Gone {
        /// How EC2 said so.
        why: String,
        /// Whether it exists and is disabled.
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

/// An available image, with the attributes on which a verdict depends, as EC2 gives them. What EC2 leaves out is
/// `None`, never an empty string or `false`. (EC2 API reference, "Image".)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Image id (`ami-…`).
    pub id: String,
    /// `PlatformDetails`.
    pub platform_details: Option<String>,
    /// `UsageOperation`.
    pub usage_operation: Option<String>,
    /// The name given at registration.
    pub name: Option<String>,
    /// The description, free text.
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
    /// `DeregistrationProtection`, if EC2 gives it.
    pub deregistration_protection: Option<String>,
    /// `DeprecationTime`: when the image becomes deprecated.
    pub deprecated_at: Option<DateTime<Utc>>,
    /// The RegisterImage request that registers such an image again, without its tags. It has the members that the AWS
    /// CLI accepts with `--cli-input-json`.
    pub request: serde_json::Value,
    /// What EC2's answer lacks, if that is needed to decide whether the image is a witness for another one, and for
    /// what.
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

    /// Whether the image has deregistration protection. EC2 writes `disabled`, or `enabled` with or without a
    /// cool-down.
    pub fn is_protected(&self) -> bool {
        let protection = self.deregistration_protection.as_deref();
        protection.is_some_and(|protection| !protection.is_empty() && protection != "disabled")
    }

    /// Whether the image is on this snapshot. Its root device counts, or any device if EC2's answer is incomplete.
    pub(crate) fn may_be_on(&self, snapshot: &str) -> bool {
        if self.lacks.is_none() {
            return self.root_snapshot.as_deref() == Some(snapshot);
        }
        let mappings = self.request.get("BlockDeviceMappings");
        let mappings = mappings.and_then(serde_json::Value::as_array);
        // An EBS device for which the answer names no snapshot may be made from any snapshot.
        let may_be_of_it = |mapping: &serde_json::Value| match mapping.pointer("/Ebs/SnapshotId") {
            Some(id) => id == snapshot,
            None => mapping.get("VirtualName").is_none() && mapping.get("NoDevice").is_none(),
        };
        mappings.is_none_or(|mappings| mappings.iter().any(may_be_of_it))
    }

    /// Whether the image's root device is not an EBS volume.
    pub fn is_instance_store_backed(&self) -> bool {
        self.root_device_type.as_deref() == Some("instance-store")
    }
}

/// A snapshot. (EC2 API reference, "Snapshot".)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Snapshot id (`snap-…`).
    pub id: String,
    /// The owning account.
    pub owner: Option<String>,
    /// The volume that it was taken of. `None` for a copied or imported snapshot.
    pub volume: Option<String>,
    /// The description, free text that anyone can write.
    pub description: Option<String>,
    /// When it was started.
    pub started: Option<DateTime<Utc>>,
    /// When it was completed.
    pub completed: Option<DateTime<Utc>>,
    /// Whether it is in the archive tier.
    pub archived: bool,
    /// The ARN of the Outpost on which it is stored.
    pub outpost: Option<String>,
    /// The ARN of the key with which it is encrypted.
    pub kms_key: Option<String>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// What EC2's answer lacks on which a decision depends. Nothing else in the answer then proves anything.
    pub lacks: Option<&'static str>,
}

/// A volume of this account. (EC2 API reference, "Volume".)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Volume id (`vol-…`).
    pub id: String,
    /// The snapshot that it was made from.
    pub snapshot: Option<String>,
    /// The volume that it was copied from.
    pub copied_from: Option<String>,
    /// When it was created.
    pub created: Option<DateTime<Utc>>,
    /// The instances to which it is attached.
    pub attachments: Vec<Attachment>,
    /// What EC2's answer lacks on which a decision depends. Nothing else in the answer then proves anything.
    pub lacks: Option<&'static str>,
}

/// A volume's attachment to an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachment {
    /// Instance id (`i-…`).
    pub instance: String,
    /// Device name, such as `/dev/sda1`.
    pub device: String,
    /// When it was attached.
    pub since: Option<DateTime<Utc>>,
}

/// An instance. (EC2 API reference, "Instance".)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instance {
    /// Instance id (`i-…`).
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
    /// What EC2's answer lacks on which a decision depends. Nothing else in the answer then proves anything.
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
    /// Instance type, such as `m5.large`.
    pub instance_type: String,
    /// Number of instances.
    pub count: i32,
    /// `ProductDescription`, such as `Windows`.
    pub platform: String,
    /// The Availability Zone, if they are bound to one.
    pub zone: Option<String>,
    /// When they end.
    pub ends: Option<DateTime<Utc>>,
}

impl ReservedInstances {
    /// The billing that they were bought for. `None` if this version does not know it.
    pub fn billing(&self) -> Option<Billing> {
        match parse_platform_details(Some(&self.platform)) {
            Parsed::Known(billing) => Some(billing),
            Parsed::Absent | Parsed::Unrecognised => None,
        }
    }

    /// Whether they apply to instances of an image that is billed like this. `None` if that is unknown. No document
    /// says which Reserved Instances apply to images with the customer's own licence.
    pub fn apply_to(&self, billed_as: BilledAs) -> Option<bool> {
        let bought_for = self.billing()?;
        match billed_as {
            // An image without a platform does not have the platform that they were bought for.
            BilledAs::Empty => Some(false),
            BilledAs::Known { billing, .. } if billing.licence == Licence::Byol => None,
            BilledAs::Known { billing, .. } => Some(billing == bought_for),
            BilledAs::Contradiction | BilledAs::Unrecognised => None,
        }
    }
}

/// The owner aliases by which EC2 itself identifies images of Amazon and the AWS Marketplace.
pub(crate) const PUBLISHERS: [&str; 2] = ["amazon", "aws-marketplace"];

/// Whether two names mean the same device. They are equal, or one is the other's first partition (`/dev/sda`,
/// `/dev/sda1`).
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
