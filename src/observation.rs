//! What EC2 says of an image now.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

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
    },
    /// The registration itself failed.
    Failed {
        /// The image's state.
        why: String,
    },
}

/// An available image: the attributes that the guard judges by, as EC2 gives them. What EC2 leaves out
/// is `None`, never made up to an empty string or `false`.
/// (EC2 API reference, "Image".)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// `PlatformDetails`.
    pub platform_details: Option<String>,
    /// `UsageOperation`.
    pub usage_operation: Option<String>,
    /// The name given at registration.
    pub name: Option<String>,
    /// The owning account.
    pub owner: Option<String>,
    /// When the image was created.
    pub created: Option<DateTime<Utc>>,
    /// The tags on the image.
    pub tags: BTreeMap<String, String>,
    /// The snapshot of the root device.
    pub root_snapshot: Option<String>,
    /// `ebs` or `instance-store`.
    pub root_device_type: Option<String>,
    /// The instance that CreateImage was called for.
    pub source_instance: Option<String>,
    /// The image that CopyImage was called for.
    pub source_image: Option<String>,
    /// `DeregistrationProtection`, if EC2 says anything of it.
    pub deregistration_protection: Option<String>,
}
