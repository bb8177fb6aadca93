//! Conversion of AWS's answers to the guard's own types.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::primitives::DateTime as SdkTime;
use aws_sdk_ec2::types as ec2;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::errors::lacking;
use crate::ec2::{Image, is_same_device};
use crate::error::Error;
use crate::ids::AmiId;

/// DescribeImages' answer about one id.
#[derive(Clone, Debug)]
pub(crate) enum Described {
    /// The image is `available`.
    Available(Box<Image>),
    /// The image is in a state in which it no longer exists. The text names the state.
    Gone(String),
    /// The image is disabled.
    Disabled,
    /// The image is in a state that says that its registration failed. The text names the state and EC2's reason.
    Failed(String),
    /// The image is in a temporary state, or in one that this version does not know. The text names the state.
    Underway(String),
    /// HTTP 200 without an image. It was deregistered recently, or is not visible yet.
    NoImage,
    /// `InvalidAMIID.NotFound`. The image is not visible yet, or was deregistered long ago.
    NotFound,
}

pub(super) fn described(image: ec2::Image) -> Described {
    let state = match &image.state {
        Some(state) => state.as_str().to_owned(),
        None => return Described::Underway("EC2 does not say the image's state".into()),
    };
    let said = format!("the image's state is {state}");
    match image.state {
        Some(ec2::ImageState::Available) => Described::Available(Box::new(observed(image))),
        Some(ec2::ImageState::Deregistered) => Described::Gone(said),
        Some(ec2::ImageState::Disabled) => Described::Disabled,
        Some(ec2::ImageState::Failed | ec2::ImageState::Error | ec2::ImageState::Invalid) => {
            Described::Failed(match image.state_reason.and_then(|reason| reason.message) {
                Some(message) => format!("{said}: {}", crate::escape::quoted(&message)),
                None => said,
            })
        }
        _ => Described::Underway(said),
    }
}

pub(super) fn observed(image: ec2::Image) -> Image {
    let request = request(&image);
    let is_on_ebs = image.root_device_type != Some(ec2::DeviceType::InstanceStore);
    let missing = [
        ("its state", image.state.is_none()),
        ("its owner", image.owner_id.is_none()),
        ("its disks", image.block_device_mappings.is_none()),
    ];
    let mappings = image.block_device_mappings.unwrap_or_default();
    let root_device = root_mapping(image.root_device_name.as_deref(), mappings);
    let root_snapshot = root_device.and_then(|device| non_empty(device.snapshot_id));
    let no_root = is_on_ebs && root_snapshot.is_none();
    Image {
        lacks: first_of(missing).or(no_root.then_some("its root snapshot")),
        id: image.image_id.unwrap_or_default(),
        platform_details: image.platform_details,
        usage_operation: image.usage_operation,
        name: image.name,
        description: non_empty(image.description),
        architecture: image
            .architecture
            .map(|architecture| architecture.as_str().to_owned()),
        owner: image.owner_id,
        owner_alias: image.image_owner_alias,
        created: image
            .creation_date
            .and_then(|date| DateTime::parse_from_rfc3339(&date).ok())
            .map(|date| date.to_utc()),
        tags: tags(image.tags),
        root_snapshot,
        root_device_type: image.root_device_type.map(|kind| kind.as_str().to_owned()),
        product_codes: product_codes(image.product_codes),
        source_instance: non_empty(image.source_instance_id),
        source_image: non_empty(image.source_image_id),
        source_image_region: non_empty(image.source_image_region),
        deregistration_protection: image.deregistration_protection,
        deprecated_at: image
            .deprecation_time
            .and_then(|date| DateTime::parse_from_rfc3339(&date).ok())
            .map(|date| date.to_utc()),
        request,
    }
}

/// The RegisterImage request that registers such an image again, without its tags. It has every member of the request
/// that DescribeImages shows. DescribeImages shows neither `UefiData` nor `BillingProducts`. (EC2 API reference,
/// "RegisterImage", "Image".)
fn request(image: &ec2::Image) -> Value {
    let mappings = image.block_device_mappings.iter().flatten().map(|mapping| {
        let ebs = mapping.ebs.as_ref().map(|ebs| {
            present(json!({
                // The snapshot determines encryption. RegisterImage refuses `SnapshotId` together with `Encrypted`.
                "SnapshotId": ebs.snapshot_id,
                "Encrypted": if ebs.snapshot_id.is_none() { ebs.encrypted } else { None },
                "VolumeSize": ebs.volume_size,
                "VolumeType": ebs.volume_type.as_ref().map(ec2::VolumeType::as_str),
                "Iops": ebs.iops.filter(|_| has_iops(ebs)),
                "Throughput": ebs.throughput.filter(|_| has_throughput(ebs)),
                "OutpostArn": ebs.outpost_arn,
                "EbsCardIndex": ebs.ebs_card_index,
                "DeleteOnTermination": ebs.delete_on_termination,
            }))
        });
        present(json!({
            "DeviceName": mapping.device_name,
            "VirtualName": mapping.virtual_name,
            "NoDevice": mapping.no_device,
            "Ebs": ebs,
        }))
    });
    let mappings: Vec<Value> = mappings.collect();
    let bundle = image.root_device_type == Some(ec2::DeviceType::InstanceStore);
    present(json!({
        "Name": image.name,
        "Description": image.description.as_ref().filter(|text| !text.is_empty()),
        "Architecture": image.architecture.as_ref().map(ec2::ArchitectureValues::as_str),
        // If an image has a root snapshot, its location only repeats owner and name.
        "ImageLocation": image.image_location.as_ref().filter(|_| bundle),
        "RootDeviceName": image.root_device_name.as_ref().filter(|_| !bundle),
        "BlockDeviceMappings": (!mappings.is_empty()).then_some(mappings),
        "VirtualizationType": image.virtualization_type.as_ref().map(ec2::VirtualizationType::as_str),
        "KernelId": image.kernel_id,
        "RamdiskId": image.ramdisk_id,
        "BootMode": image.boot_mode.as_ref().map(ec2::BootModeValues::as_str),
        "EnaSupport": image.ena_support,
        "SriovNetSupport": image.sriov_net_support,
        "TpmSupport": image.tpm_support.as_ref().map(ec2::TpmSupportValues::as_str),
        "ImdsSupport": image.imds_support.as_ref().map(ec2::ImdsSupportValues::as_str),
    }))
}

/// Whether RegisterImage accepts `Iops` for a volume of this type. DescribeImages also shows the baseline of a gp2
/// volume. (EC2 API reference, "EbsBlockDevice".)
fn has_iops(ebs: &ec2::EbsBlockDevice) -> bool {
    use ec2::VolumeType::{Gp3, Io1, Io2};
    matches!(ebs.volume_type, Some(Gp3 | Io1 | Io2))
}

/// Whether RegisterImage accepts `Throughput` for a volume of this type: "valid only for gp3 volumes". (EC2 API
/// reference, "EbsBlockDevice".)
fn has_throughput(ebs: &ec2::EbsBlockDevice) -> bool {
    matches!(ebs.volume_type, Some(ec2::VolumeType::Gp3))
}

/// Removes the members of an object that are null.
pub(super) fn present(mut object: Value) -> Value {
    if let Some(members) = object.as_object_mut() {
        members.retain(|_, value| !value.is_null());
    }
    object
}

/// The mapping of the root device. In some images the mapping names the disk and RootDeviceName names its first
/// partition (`/dev/sda`, `/dev/sda1`), or the reverse.
fn root_mapping(
    root: Option<&str>,
    mappings: Vec<ec2::BlockDeviceMapping>,
) -> Option<ec2::EbsBlockDevice> {
    let root = root?;
    let position = |same: fn(&str, &str) -> bool| {
        mappings.iter().position(|mapping| {
            let device = mapping.device_name.as_deref();
            device.is_some_and(|device| same(device, root))
        })
    };
    let at = position(|device, root| device == root).or_else(|| position(is_same_device))?;
    mappings.into_iter().nth(at)?.ebs
}

/// The images with their ids. Leaves out images without a well-formed id.
pub(super) fn identified(images: Vec<ec2::Image>) -> Vec<(AmiId, Described)> {
    let images = images.into_iter();
    let identified = images.filter_map(|image| {
        let id = image.image_id.as_deref()?.parse().ok()?;
        Some((id, described(image)))
    });
    identified.collect()
}

/// A list that an answer must contain. EC2 returns an empty list if there are no items, so an answer without a list is
/// incomplete.
///
/// # Errors
/// [`Error::Unavailable`] if there is no list.
pub(super) fn present_list<T>(
    call: &'static str,
    resource: &str,
    list: Option<Vec<T>>,
) -> Result<Vec<T>, Error> {
    list.ok_or_else(|| lacking(call, resource, "its list"))
}

/// The text, or `None` if it is empty.
pub(super) fn non_empty(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// The name of the first condition that holds.
pub(super) fn first_of<const N: usize>(all: [(&'static str, bool); N]) -> Option<&'static str> {
    let mut all = all.into_iter();
    all.find_map(|(what, holds)| holds.then_some(what))
}

pub(super) fn tags(tags: Option<Vec<ec2::Tag>>) -> BTreeMap<String, String> {
    tags.into_iter()
        .flatten()
        .filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default())))
        .collect()
}

pub(super) fn product_codes(codes: Option<Vec<ec2::ProductCode>>) -> BTreeSet<String> {
    codes
        .into_iter()
        .flatten()
        .filter_map(|code| code.product_code_id)
        .collect()
}

pub(super) fn filter(name: &str, values: &[&str]) -> ec2::Filter {
    ec2::Filter::builder()
        .name(name)
        .set_values(Some(strings(values)))
        .build()
}

pub(super) fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

pub(super) fn time(time: SdkTime) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(time.secs(), time.subsec_nanos())
}
