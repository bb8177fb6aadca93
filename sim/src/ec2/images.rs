//! Images, from registration to the Recycle Bin and back.

use std::borrow::Cow;
use std::collections::BTreeSet;

use chrono::TimeDelta;

use super::elements::{done, timestamp, write_product_codes};
use super::filters::{Filters, Values, optional, tag_values};
use super::ids::{check_id, find_snapshot, image_not_found, snapshot_not_found};
use super::page::Page;
use super::tags;
use crate::clock;
use crate::form::Form;
use crate::refusal::Refusal;
use crate::world::{BinnedImage, BlockDevice, Deregistered, Image, Invisible, World};
use crate::xml::Xml;

/// A page of these actions has 1 to 1,000 items.
const PAGE: std::ops::RangeInclusive<usize> = 1..=1000;

pub(super) fn register(world: &mut World, form: &Form) -> Result<Xml, Refusal> {
    let name = form.required("Name")?;
    check_name(world, name)?;
    let tags = tags::specified(form, "image")?;
    if form.get("ImageLocation").is_some() {
        return Err(Refusal::new(
            "UnsupportedOperation",
            "Only images whose root device is an EBS volume are simulated.",
        ));
    }
    if !form.list("BillingProduct").is_empty() {
        // EC2's error code for an account without this right is not known.
        return Err(Refusal::new(
            "AuthFailure",
            "Not authorized to set billing products.",
        ));
    }
    let root_device_name = form.get("RootDeviceName").unwrap_or("/dev/sda1");
    let mut block_devices = Vec::new();
    for mapping in form.structures("BlockDeviceMapping") {
        block_devices.push(block_device(world, &mapping, root_device_name)?);
    }
    let root = block_devices
        .iter()
        .find(|device| device.device_name == root_device_name)
        .and_then(|device| device.snapshot_id.as_deref());
    let Some(root) = root else {
        return Err(Refusal::new(
            "InvalidBlockDeviceMapping",
            "No root snapshot specified in device mapping.",
        ));
    };
    let (platform_details, usage_operation) = find_snapshot(world, root)?.billing.of_image();
    let text = |name| form.get(name).map(str::to_owned);
    let image = Image {
        name: name.to_owned(),
        description: text("Description"),
        owner: world.account.clone(),
        creation_date: clock::now(),
        // The two defaults are the documented ones, although they are outdated.
        architecture: form.get("Architecture").unwrap_or("i386").to_owned(),
        virtualization_type: form
            .get("VirtualizationType")
            .unwrap_or("paravirtual")
            .to_owned(),
        root_device_name: Some(root_device_name.to_owned()),
        product_codes: product_codes(world, &block_devices),
        block_devices,
        platform: Image::platform_of(platform_details.as_deref()),
        platform_details,
        usage_operation,
        tags,
        ena_support: form.parse("EnaSupport")?,
        sriov_net_support: text("SriovNetSupport"),
        boot_mode: text("BootMode"),
        imds_support: text("ImdsSupport"),
        tpm_support: text("TpmSupport"),
        uefi_data: text("UefiData"),
        kernel_id: text("KernelId"),
        ramdisk_id: text("RamdiskId"),
        image_location: format!("{}/{name}", world.account),
        invisible_for: world.new_images_invisible_for,
        ..Image::new(world.fresh_id("ami"))
    };
    let id = image.id.clone();
    world.add_image(image);
    Ok(Xml::fragment(|xml| xml.text("imageId", id)))
}

/// Checks a name: "3-128 alphanumeric characters, parentheses, square brackets, spaces, periods, slashes, dashes,
/// single quotes, at-signs, or underscores", and unique in the account.
fn check_name(world: &World, name: &str) -> Result<(), Refusal> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "()[] ./-'@_".contains(c);
    if !(3..=128).contains(&name.chars().count()) || !name.chars().all(allowed) {
        return Err(Refusal::new(
            "InvalidAMIName.Malformed",
            "AMI names must be between 3 and 128 characters long, and may contain letters, numbers, \
             spaces and the characters ()[]./-'@_",
        ));
    }
    match world
        .images
        .values()
        .find(|image| image.name == name && image.owned_by(&world.account))
    {
        None => Ok(()),
        Some(other) => Err(Refusal::new(
            "InvalidAMIName.Duplicate",
            format!("AMI name {name} is already in use by AMI {}", other.id),
        )),
    }
}

fn block_device(world: &World, mapping: &Form, root: &str) -> Result<BlockDevice, Refusal> {
    let device_name = mapping.required("DeviceName")?;
    let ebs = mapping.structure("Ebs");
    let snapshot = match ebs.get("SnapshotId") {
        Some(id) => Some(find_snapshot(world, id)?),
        None => None,
    };
    if snapshot.is_some() && ebs.get("Encrypted").is_some() {
        // "You must omit this parameter. If you include this parameter, the request will fail, regardless of the value
        // that you specify" (API reference of `EbsBlockDevice`).
        return Err(Refusal::new(
            "InvalidBlockDeviceMapping",
            format!(
                "the encrypted flag cannot be specified since device {device_name} has a snapshot \
                 specified."
            ),
        ));
    }
    let virtual_name = mapping.get("VirtualName").map(str::to_owned);
    let given_size = ebs.parse("VolumeSize")?;
    let size = given_size.or_else(|| snapshot.map(|snapshot| snapshot.volume_size));
    let volume_size = match (size, &virtual_name) {
        (Some(size), _) => size,
        (None, Some(_)) => 0,
        (None, None) => {
            return Err(Refusal::new(
                "MissingParameter",
                "The request must contain the parameter size or snapshotId",
            ));
        }
    };
    let volume_type = ebs.get("VolumeType").unwrap_or("gp2");
    check_performance(&ebs, volume_type)?;
    Ok(BlockDevice {
        device_name: device_name.to_owned(),
        snapshot_id: snapshot.map(|snapshot| snapshot.id.clone()),
        volume_size,
        volume_type: volume_type.to_owned(),
        iops: ebs.parse("Iops")?,
        throughput: ebs.parse("Throughput")?,
        delete_on_termination: ebs
            .parse("DeleteOnTermination")?
            .unwrap_or(device_name == root),
        encrypted: ebs
            .parse("Encrypted")?
            .unwrap_or(snapshot.is_some_and(|snapshot| snapshot.is_encrypted())),
        virtual_name,
    })
}

/// Refuses `Iops` and `Throughput` for volume types without this setting. Requires `Iops` where it is mandatory:
/// "required for io1 and io2 volumes" (API reference of `EbsBlockDevice`). `Throughput` is "valid only for gp3
/// volumes". Code and messages are those of CreateVolume.
fn check_performance(ebs: &Form, volume_type: &str) -> Result<(), Refusal> {
    let wrong = |code: &str, message: String| Err(Refusal::new(code, message));
    let unsupported = |parameter: &str| {
        wrong(
            "InvalidParameterCombination",
            format!("The parameter {parameter} is not supported for {volume_type} volumes."),
        )
    };
    match (ebs.get("Iops"), volume_type) {
        (None, "io1" | "io2") => {
            return wrong(
                "MissingParameter",
                format!("The parameter iops must be specified for {volume_type} volumes."),
            );
        }
        (None, _) | (Some(_), "io1" | "io2" | "gp3") => {}
        (Some(_), _) => return unsupported("iops"),
    }
    match (ebs.get("Throughput"), volume_type) {
        (None, _) | (Some(_), "gp3") => Ok(()),
        (Some(_), _) => unsupported("throughput"),
    }
}

/// The product codes of the snapshots. "If any snapshots have AWS Marketplace product codes, they are copied to the new
/// AMI" (API reference of `RegisterImage`).
fn product_codes(world: &World, devices: &[BlockDevice]) -> Vec<String> {
    let codes: BTreeSet<&String> = devices
        .iter()
        .filter_map(|device| world.snapshots.get(device.snapshot_id.as_ref()?))
        .flat_map(|snapshot| &snapshot.product_codes)
        .collect();
    codes.into_iter().cloned().collect()
}

pub(super) fn describe(world: &mut World, form: &Form) -> Result<Xml, Refusal> {
    let ids = form.list("ImageId");
    for id in &ids {
        check_id(id, "ami", "AMIID")?;
    }
    let owners = form.list("Owner");
    let executable_by = form.list("ExecutableBy");
    let include_disabled = form.flag("IncludeDisabled")?;
    // "For AMI users, the deprecated AMI does not appear in DescribeImages API calls unless you specify its ID or
    // specify that deprecated AMIs must appear." (User Guide, "Deprecate an AMI")
    let include_deprecated = form.flag("IncludeDeprecated")? || !ids.is_empty();
    let nothing = Image::new("");
    let filters = Filters::of(form, |name| values(&nothing, "", name).is_some())?;
    let page = Page::of(form, PAGE)?;
    let named = if ids.is_empty() {
        None
    } else {
        Some(named(world, &ids)?)
    };
    let account = world.account.as_str();
    let with_snapshots = filters.referrers(world, "block-device-mapping.snapshot-id");
    let candidates: Box<dyn Iterator<Item = &Image>> = match &named {
        Some(named) => Box::new(named.range::<str, _>(page.keys()).filter_map(|id| {
            let deregistered = || Some(&world.deregistered.get(id)?.image);
            world.images.get(id).or_else(deregistered)
        })),
        None => {
            let ids = filters.ids("image-id");
            page.of_map(&world.images, ids.or(with_snapshots.as_ref()))
        }
    };
    let mut invisible = Vec::new();
    let found = candidates.filter(|image| {
        let wanted = (named.is_some() || image.visible_to(account))
            && (include_disabled || image.state != "disabled")
            && (include_deprecated || image.owned_by(account) || !is_deprecated(image))
            && (owners.is_empty() || owners.iter().any(|owner| has_owner(world, image, owner)))
            && (executable_by.is_empty()
                || executable_by
                    .iter()
                    .any(|by| is_shared_with(world, image, by)))
            && filters.admit(|name| values(image, account, name));
        // Images that the call names were counted before.
        let shown = wanted && (named.is_some() || image.invisible_for == 0);
        if wanted && !shown {
            invisible.push(image.id.clone());
        }
        shown
    });
    let (found, token) = page.cut(found, |image| image.id.clone());
    // Images after this page are counted with the next page.
    let last = found.last().filter(|_| token.is_some());
    invisible.retain(|id| last.is_none_or(|last| *id < last.id));
    let answer = Xml::fragment(|xml| {
        xml.list("imagesSet", found, |xml, image| write(xml, image, account));
        xml.optional("nextToken", token);
    });
    for id in invisible {
        if let Some(image) = world.images.get_mut(&id) {
            image.invisible_for -= 1;
        }
    }
    Ok(answer)
}

/// The named images to show. Each call counts down the calls for which a new image is invisible and a deregistered one
/// lingers.
fn named(world: &mut World, ids: &[&str]) -> Result<BTreeSet<String>, Refusal> {
    let mut shown = BTreeSet::new();
    let mut missing = Vec::new();
    for &id in BTreeSet::from_iter(ids) {
        if let Some(image) = world.images.get_mut(id) {
            if !image.visible_to(&world.account) {
                missing.push(id);
            } else if image.invisible_for == 0 {
                shown.insert(id.to_owned());
            } else {
                image.invisible_for -= 1;
                if image.invisible_as == Invisible::NotFound {
                    missing.push(id);
                }
            }
        } else if let Some(deregistered) = world.deregistered.get_mut(id) {
            let lingering = &mut deregistered.lingering;
            match (lingering.listed_for, lingering.empty_for) {
                (0, None) => {}
                (0, Some(0)) => missing.push(id),
                (0, Some(calls)) => lingering.empty_for = Some(calls - 1),
                (calls, _) => {
                    lingering.listed_for = calls - 1;
                    shown.insert(id.to_owned());
                }
            }
        } else {
            missing.push(id);
        }
    }
    if missing.is_empty() {
        Ok(shown)
    } else {
        Err(image_not_found(&missing))
    }
}

fn is_deprecated(image: &Image) -> bool {
    image
        .deprecation_time
        .is_some_and(|time| time <= clock::now())
}

fn has_owner(world: &World, image: &Image, owner: &str) -> bool {
    match owner {
        "self" => image.owned_by(&world.account),
        account_or_alias => {
            image.owned_by(account_or_alias)
                || image.owner_alias.as_deref() == Some(account_or_alias)
        }
    }
}

fn is_shared_with(world: &World, image: &Image, by: &str) -> bool {
    match by {
        "all" => image.public,
        "self" => image.shared_with.contains(&world.account),
        account => image.shared_with.contains(account),
    }
}

/// The values for a filter's name. The names are those of the API reference of `DescribeImages`, which has no filter
/// for platform details or usage operation.
fn values<'w>(image: &'w Image, account: &str, filter: &str) -> Option<Values<'w>> {
    let devices = || image.block_devices.iter();
    Some(match filter {
        "architecture" => vec![Cow::from(&image.architecture)],
        "block-device-mapping.device-name" => devices()
            .map(|device| Cow::from(&device.device_name))
            .collect(),
        "block-device-mapping.snapshot-id" => image.snapshot_ids().map(Cow::from).collect(),
        "boot-mode" => optional(image.boot_mode.as_ref()),
        "creation-date" => vec![timestamp(image.creation_date).into()],
        "description" => optional(image.description.as_ref()),
        "image-id" => vec![Cow::from(&image.id)],
        "image-type" => vec!["machine".into()],
        "is-public" => vec![image.public.to_string().into()],
        "manifest-location" => vec![Cow::from(&image.image_location)],
        "name" => vec![Cow::from(&image.name)],
        "owner-alias" => optional(image.owner_alias.as_ref()),
        "owner-id" => vec![Cow::from(&image.owner)],
        "platform" => optional(image.platform.as_ref()),
        "product-code" => image.product_codes.iter().map(Cow::from).collect(),
        "root-device-name" => optional(image.root_device_name.as_ref()),
        "root-device-type" => vec![Cow::from(&image.root_device_type)],
        "source-image-id" => optional(image.source_image_id.as_ref()),
        "source-image-region" => optional(image.source_image_region.as_ref()),
        "source-instance-id" => optional(image.source_instance_id.as_ref()),
        "state" => vec![Cow::from(&image.state)],
        "virtualization-type" => vec![Cow::from(&image.virtualization_type)],
        other => return tag_values(image.tags_seen_by(account), other),
    })
}

/// The image that the request names, if the account may change it.
pub(super) fn own_image<'w>(world: &'w mut World, form: &Form) -> Result<&'w mut Image, Refusal> {
    let id = form.required("ImageId")?;
    check_id(id, "ami", "AMIID")?;
    if world.deregistered.contains_key(id) {
        return Err(Refusal::new(
            "InvalidAMIID.Unavailable",
            format!("The image ID '{id}' is no longer available"),
        ));
    }
    match world.images.get_mut(id) {
        None => Err(image_not_found(&[id])),
        Some(image) if image.owned_by(&world.account) => Ok(image),
        Some(_) => Err(Refusal::new(
            "AuthFailure",
            format!("Not authorized for image:{id}"),
        )),
    }
}

pub(super) fn deregister(world: &mut World, form: &Form) -> Result<Xml, Refusal> {
    let delete_snapshots = form.flag("DeleteAssociatedSnapshots")?;
    let image = own_image(world, form)?.clone();
    if image.tags.contains_key("aws:backup:source-resource") {
        return Err(Refusal::new(
            "AuthFailure",
            "This image is managed by AWS Backup and cannot be deleted via EC2 APIs",
        ));
    }
    if image
        .deregistration_protection
        .as_deref()
        .is_some_and(|protection| protection.starts_with("enabled"))
    {
        // EC2's documentation says that it refuses. It states neither the code nor the message, so both are guesses.
        return Err(Refusal::new(
            "OperationNotPermitted",
            format!(
                "The image '{}' can not be deregistered, because deregistration protection is enabled.",
                image.id
            ),
        ));
    }
    let now = clock::now();
    let kept_for = world
        .recycle_bin_rules
        .iter()
        // An image that only a pending rule matches is deleted permanently (Amazon EBS User Guide, "Recycle Bin").
        .filter(|rule| rule.is_available())
        .filter(|rule| image.tags.get(&rule.tag_key) == Some(&rule.tag_value))
        .map(|rule| rule.retention_days)
        .max();
    if let (Some(days), "ebs") = (kept_for, image.root_device_type.as_str()) {
        world.recycle_bin.insert(
            image.id.clone(),
            BinnedImage {
                image: image.clone(),
                entered: now,
                exits: now + TimeDelta::days(i64::from(days)),
            },
        );
    }
    world.images.remove(&image.id);
    world.deregistered.insert(
        image.id.clone(),
        Deregistered {
            image: image.clone(),
            lingering: world.after_deregistration,
        },
    );
    let mut results = Vec::new();
    if delete_snapshots {
        for id in image.snapshot_ids() {
            let in_use = world
                .images
                .values()
                .any(|other| other.snapshot_ids().any(|used| used == id));
            if !in_use {
                world.snapshots.remove(id);
            }
            results.push((id, if in_use { "skipped" } else { "success" }));
        }
    }
    Ok(Xml::fragment(|xml| {
        xml.text("return", true);
        if delete_snapshots {
            xml.list("deleteSnapshotResultSet", results, |xml, (id, result)| {
                xml.text("snapshotId", id);
                xml.text("returnCode", result);
            });
        }
    }))
}

/// "Sets the AMI state to disabled and removes all launch permissions."
pub(super) fn disable(world: &mut World, form: &Form) -> Result<Xml, Refusal> {
    let image = own_image(world, form)?;
    if !matches!(image.state.as_str(), "available" | "disabled") {
        return Err(Refusal::new(
            "InvalidAMIID.Unavailable",
            format!("The image ID '{}' is not available", image.id),
        ));
    }
    image.state = "disabled".into();
    image.public = false;
    image.shared_with.clear();
    image.shared_with_organizations.clear();
    Ok(done())
}

/// Enables an image. Its launch permissions stay removed.
pub(super) fn enable(world: &mut World, form: &Form) -> Result<Xml, Refusal> {
    let image = own_image(world, form)?;
    if image.state == "disabled" {
        image.state = "available".into();
    }
    Ok(done())
}

/// Lists the Recycle Bin. An id that is not in it is omitted, because it is not known whether EC2 refuses instead.
pub(super) fn list_in_recycle_bin(world: &mut World, form: &Form) -> Result<Xml, Refusal> {
    let ids = form.list("ImageId");
    for id in &ids {
        check_id(id, "ami", "AMIID")?;
    }
    empty_recycle_bin(world);
    let page = Page::of(form, PAGE)?;
    let found = page
        .of_map(&world.recycle_bin, None)
        .filter(|binned| binned.image.owned_by(&world.account))
        .filter(|binned| ids.is_empty() || ids.contains(&binned.image.id.as_str()));
    let (found, token) = page.cut(found, |binned| binned.image.id.clone());
    Ok(Xml::fragment(|xml| {
        xml.list("imageSet", found, |xml, binned| {
            xml.text("imageId", &binned.image.id);
            xml.text("name", &binned.image.name);
            xml.optional("description", binned.image.description.as_ref());
            xml.text("recycleBinEnterTime", timestamp(binned.entered));
            xml.text("recycleBinExitTime", timestamp(binned.exits));
        });
        xml.optional("nextToken", token);
    }))
}

/// Restores an image, if its snapshots still exist. The error codes here are guesses.
pub(super) fn restore_from_recycle_bin(world: &mut World, form: &Form) -> Result<Xml, Refusal> {
    let id = form.required("ImageId")?;
    check_id(id, "ami", "AMIID")?;
    empty_recycle_bin(world);
    let binned = world.recycle_bin.get(id);
    let Some(binned) = binned.filter(|binned| binned.image.owned_by(&world.account)) else {
        return Err(image_not_found(&[id]));
    };
    if let Some(gone) = binned
        .image
        .snapshot_ids()
        .find(|snapshot| !world.snapshots.contains_key(*snapshot))
    {
        return Err(snapshot_not_found(gone));
    }
    let image = binned.image.clone();
    world.recycle_bin.remove(id);
    world.deregistered.remove(id);
    world.add_image(image);
    Ok(done())
}

fn empty_recycle_bin(world: &mut World) {
    let now = clock::now();
    world.recycle_bin.retain(|_, binned| binned.exits > now);
}

fn write(xml: &mut Xml, image: &Image, account: &str) {
    xml.text("imageId", &image.id);
    xml.text("imageLocation", &image.image_location);
    xml.text("imageState", &image.state);
    if !image.owner.is_empty() {
        xml.text("imageOwnerId", &image.owner);
    }
    xml.optional("imageOwnerAlias", image.owner_alias.as_ref());
    xml.text("creationDate", timestamp(image.creation_date));
    xml.text("isPublic", image.public);
    xml.text("architecture", &image.architecture);
    xml.text("imageType", "machine");
    xml.optional("kernelId", image.kernel_id.as_ref());
    xml.optional("ramdiskId", image.ramdisk_id.as_ref());
    xml.optional("platform", image.platform.as_ref());
    xml.optional("platformDetails", image.platform_details.as_ref());
    xml.optional("usageOperation", image.usage_operation.as_ref());
    xml.text("name", &image.name);
    xml.optional("description", image.description.as_ref());
    xml.text("rootDeviceType", &image.root_device_type);
    xml.optional("rootDeviceName", image.root_device_name.as_ref());
    xml.list("blockDeviceMapping", &image.block_devices, write_device);
    xml.text("virtualizationType", &image.virtualization_type);
    xml.text("hypervisor", "xen");
    xml.optional("enaSupport", image.ena_support);
    xml.optional("sriovNetSupport", image.sriov_net_support.as_ref());
    xml.optional("bootMode", image.boot_mode.as_ref());
    xml.optional("imdsSupport", image.imds_support.as_ref());
    xml.optional("tpmSupport", image.tpm_support.as_ref());
    xml.optional("sourceInstanceId", image.source_instance_id.as_ref());
    xml.optional("sourceImageId", image.source_image_id.as_ref());
    xml.optional("sourceImageRegion", image.source_image_region.as_ref());
    xml.optional("deprecationTime", image.deprecation_time.map(timestamp));
    xml.optional(
        "deregistrationProtection",
        image.deregistration_protection.as_ref(),
    );
    if let Some((code, message)) = &image.state_reason {
        xml.element("stateReason", |xml| {
            xml.text("code", code);
            xml.text("message", message);
        });
    }
    if !image.product_codes.is_empty() {
        write_product_codes(xml, &image.product_codes);
    }
    tags::write(xml, image.tags_seen_by(account));
}

fn write_device(xml: &mut Xml, device: &BlockDevice) {
    xml.text("deviceName", &device.device_name);
    if let Some(virtual_name) = &device.virtual_name {
        xml.text("virtualName", virtual_name);
        return;
    }
    xml.element("ebs", |xml| {
        xml.optional("snapshotId", device.snapshot_id.as_ref());
        xml.text("volumeSize", device.volume_size);
        xml.text("volumeType", &device.volume_type);
        xml.optional("iops", device.iops);
        xml.optional("throughput", device.throughput);
        xml.text("deleteOnTermination", device.delete_on_termination);
        xml.text("encrypted", device.encrypted);
    });
}

#[cfg(test)]
mod tests {
    use super::super::testing::{act, texts};
    use super::*;
    use crate::world::{Lingering, RecycleBinRule, Snapshot};

    const IMAGE: &str = "ami-0123456789abcdef0";
    const OTHER_ACCOUNT: &str = "210987654321";

    fn register(
        world: &mut World,
        snapshot: &str,
        more: &[(&str, &str)],
    ) -> Result<String, String> {
        let mut parameters = vec![
            ("Name", "an image"),
            ("RootDeviceName", "/dev/sda1"),
            ("BlockDeviceMapping.1.DeviceName", "/dev/sda1"),
            ("BlockDeviceMapping.1.Ebs.SnapshotId", snapshot),
        ];
        // A parameter with an empty value removes the default one.
        parameters.retain(|(name, _)| more.iter().all(|(other, _)| other != name));
        parameters.extend(more.iter().filter(|(_, value)| !value.is_empty()));
        act(world, "RegisterImage", &parameters).map(|answer| texts(&answer, "imageId").remove(0))
    }

    fn describe(world: &mut World, parameters: &[(&str, &str)]) -> Result<Vec<String>, String> {
        act(world, "DescribeImages", parameters).map(|answer| texts(&answer, "imageId"))
    }

    fn with_image(change: impl FnOnce(&mut Image)) -> World {
        let mut world = World::default();
        let mut image = Image::new(IMAGE);
        change(&mut image);
        world.add_snapshot(Snapshot::new("snap-0123456789abcdef0"));
        world.add_image(image);
        world
    }

    #[test]
    fn billing_is_derived_from_the_root_snapshot() {
        for (snapshot, platform, details, operation) in [
            (
                "snap-0000000000000a001",
                Some("windows"),
                Some("Windows"),
                Some("RunInstances:0002"),
            ),
            (
                "snap-0000000000000a002",
                None,
                Some("Red Hat Enterprise Linux"),
                Some("RunInstances:0010"),
            ),
            (
                "snap-0000000000000a003",
                None,
                Some("Linux/UNIX"),
                Some("RunInstances"),
            ),
            ("snap-0000000000000a004", None, None, None),
        ] {
            let mut world = World::example();
            // A data volume of another platform has no effect.
            let second = [
                ("BlockDeviceMapping.2.DeviceName", "/dev/sdf"),
                (
                    "BlockDeviceMapping.2.Ebs.SnapshotId",
                    "snap-0000000000000a001",
                ),
            ];
            let id = register(&mut world, snapshot, &second).unwrap();
            let image = &world.images[&id];
            assert_eq!(image.platform.as_deref(), platform, "{snapshot}");
            assert_eq!(image.platform_details.as_deref(), details, "{snapshot}");
            assert_eq!(image.usage_operation.as_deref(), operation, "{snapshot}");
            assert_eq!(image.block_devices.len(), 2);
            assert!(image.block_devices[0].delete_on_termination);
            assert!(!image.block_devices[1].delete_on_termination);
        }
    }

    #[test]
    fn a_registration_keeps_all_that_is_needed_to_repeat_it() {
        let mut world = World::example();
        let id = register(
            &mut world,
            "snap-0000000000000a001",
            &[
                ("Description", "a description"),
                ("Architecture", "arm64"),
                ("VirtualizationType", "hvm"),
                ("EnaSupport", "true"),
                ("SriovNetSupport", "simple"),
                ("BootMode", "uefi"),
                ("ImdsSupport", "v2.0"),
                ("TpmSupport", "v2.0"),
                ("UefiData", "QU1aTlVFRkk="),
                ("KernelId", "aki-12345678"),
                ("RamdiskId", "ari-12345678"),
                ("BlockDeviceMapping.1.Ebs.VolumeSize", "40"),
                ("BlockDeviceMapping.1.Ebs.VolumeType", "gp3"),
                ("BlockDeviceMapping.1.Ebs.Iops", "4000"),
                ("BlockDeviceMapping.1.Ebs.Throughput", "250"),
                ("BlockDeviceMapping.1.Ebs.DeleteOnTermination", "false"),
                ("BlockDeviceMapping.2.DeviceName", "/dev/sdb"),
                ("BlockDeviceMapping.2.VirtualName", "ephemeral0"),
                ("TagSpecification.1.ResourceType", "image"),
                ("TagSpecification.1.Tag.1.Key", "ami-billing-guard:expect"),
                ("TagSpecification.1.Tag.1.Value", "Windows"),
            ],
        )
        .unwrap();
        let image = &world.images[&id];
        assert_eq!(image.image_location, "123456789012/an image");
        assert_eq!(image.uefi_data.as_deref(), Some("QU1aTlVFRkk="));
        assert_eq!(image.tags["ami-billing-guard:expect"], "Windows");
        let answer = act(&mut world, "DescribeImages", &[("ImageId.1", &id)]).unwrap();
        for (element, expected) in [
            ("description", "a description"),
            ("architecture", "arm64"),
            ("virtualizationType", "hvm"),
            ("enaSupport", "true"),
            ("sriovNetSupport", "simple"),
            ("bootMode", "uefi"),
            ("imdsSupport", "v2.0"),
            ("tpmSupport", "v2.0"),
            ("kernelId", "aki-12345678"),
            ("ramdiskId", "ari-12345678"),
            ("imageLocation", "123456789012/an image"),
            ("volumeSize", "40"),
            ("volumeType", "gp3"),
            ("iops", "4000"),
            ("throughput", "250"),
            ("deleteOnTermination", "false"),
            ("virtualName", "ephemeral0"),
        ] {
            assert_eq!(texts(&answer, element), [expected], "{element}");
        }
    }

    #[test]
    fn registrations_that_can_not_be_are_refused() {
        let windows = "snap-0000000000000a001";
        for (snapshot, more, expected) in [
            (windows, ("Name", ""), "MissingParameter"),
            (windows, ("Name", "ab"), "InvalidAMIName.Malformed"),
            (windows, ("Name", "a\nb c"), "InvalidAMIName.Malformed"),
            (windows, ("Name", "taken"), "InvalidAMIName.Duplicate"),
            (
                windows,
                ("RootDeviceName", "/dev/xvda"),
                "InvalidBlockDeviceMapping",
            ),
            (
                "snap-0aaaaaaaaaaaaaaaa",
                ("Description", "x"),
                "InvalidSnapshot.NotFound",
            ),
            (
                windows,
                ("TagSpecification.1.ResourceType", "snapshot"),
                "InvalidParameterValue",
            ),
            (
                windows,
                ("BlockDeviceMapping.1.Ebs.Encrypted", "false"),
                "InvalidBlockDeviceMapping",
            ),
            (windows, ("BillingProduct.1", "bp-6ba54002"), "AuthFailure"),
        ] {
            let mut world = World::example();
            world.add_image(Image {
                name: "taken".into(),
                ..Image::new(IMAGE)
            });
            let code = register(&mut world, snapshot, &[more]).unwrap_err();
            assert_eq!(code, expected, "{more:?}");
            assert_eq!(world.images.len(), 1);
        }
    }

    #[test]
    fn another_accounts_image_may_have_the_same_name() {
        let mut world = World::example();
        world.add_image(Image {
            name: "an image".into(),
            owner: OTHER_ACCOUNT.into(),
            ..Image::new(IMAGE)
        });
        assert!(register(&mut world, "snap-0000000000000a001", &[]).is_ok());
    }

    #[test]
    fn a_new_image_is_invisible_for_the_calls_that_were_asked_for() {
        let mut world = World {
            new_images_invisible_for: 2,
            ..World::example()
        };
        let id = register(&mut world, "snap-0000000000000a001", &[]).unwrap();
        let by_id = [("ImageId.1", id.as_str())];
        assert_eq!(
            describe(&mut world, &by_id).unwrap_err(),
            "InvalidAMIID.NotFound"
        );
        assert_eq!(describe(&mut world, &[]).unwrap(), Vec::<String>::new());
        assert_eq!(describe(&mut world, &by_id).unwrap()[0], id);
    }

    #[test]
    fn an_invisible_image_is_passed_over_on_its_own_page_alone() {
        let mut world = World::default();
        for digit in 1..=4 {
            world.add_image(Image {
                invisible_for: u32::from(digit == 2),
                ..Image::new(format!("ami-0000000{digit}"))
            });
        }
        let mut pages = || {
            let mut pages = Vec::new();
            let mut token = String::new();
            loop {
                let parameters = [("MaxResults", "1"), ("NextToken", &token)];
                let answer = act(&mut world, "DescribeImages", &parameters).unwrap();
                pages.extend(texts(&answer, "imageId"));
                match texts(&answer, "nextToken").pop() {
                    Some(next) => token = next,
                    None => return pages,
                }
            }
        };
        assert_eq!(pages(), ["ami-00000001", "ami-00000003", "ami-00000004"]);
        assert_eq!(pages().len(), 4);
    }

    #[test]
    fn an_invisible_image_can_answer_with_an_empty_list() {
        let mut world = with_image(|image| {
            image.invisible_for = 1;
            image.invisible_as = Invisible::Empty;
        });
        let by_id = [("ImageId.1", IMAGE)];
        assert_eq!(describe(&mut world, &by_id).unwrap(), Vec::<String>::new());
        assert_eq!(describe(&mut world, &by_id).unwrap(), [IMAGE]);
    }

    #[test]
    fn one_unknown_id_fails_the_whole_call() {
        let mut world = with_image(|_| {});
        let both = [("ImageId.1", IMAGE), ("ImageId.2", "ami-0aaaaaaaaaaaaaaaa")];
        assert_eq!(
            describe(&mut world, &both).unwrap_err(),
            "InvalidAMIID.NotFound"
        );
        assert_eq!(
            describe(&mut world, &[("ImageId.1", "ami-1")]).unwrap_err(),
            "InvalidAMIID.Malformed"
        );
    }

    #[test]
    fn a_foreign_image_is_visible_only_if_public_or_shared() {
        let by_id = [("ImageId.1", IMAGE)];
        let mut foreign = with_image(|image| image.owner = OTHER_ACCOUNT.into());
        assert_eq!(
            describe(&mut foreign, &by_id).unwrap_err(),
            "InvalidAMIID.NotFound"
        );
        assert!(describe(&mut foreign, &[]).unwrap().is_empty());
        for change in [
            (|image: &mut Image| image.public = true) as fn(&mut Image),
            |image| {
                image.shared_with.insert("123456789012".into());
            },
        ] {
            let mut world = with_image(|image| {
                image.owner = OTHER_ACCOUNT.into();
                change(image);
            });
            assert_eq!(describe(&mut world, &by_id).unwrap(), [IMAGE]);
            assert!(
                describe(&mut world, &[("Owner.1", "self")])
                    .unwrap()
                    .is_empty()
            );
            assert_eq!(
                describe(&mut world, &[("Owner.1", OTHER_ACCOUNT)]).unwrap(),
                [IMAGE]
            );
            assert_eq!(
                act(&mut world, "DeregisterImage", &[("ImageId", IMAGE)]).unwrap_err(),
                "AuthFailure"
            );
        }
    }

    #[test]
    fn aliases_name_the_owners_that_aws_names_so() {
        let mut world = with_image(|_| {});
        for (id, alias) in [
            ("ami-0000000000000001a", "amazon"),
            ("ami-0000000000000002a", "aws-marketplace"),
        ] {
            world.add_image(Image {
                owner: OTHER_ACCOUNT.into(),
                owner_alias: Some(alias.into()),
                public: true,
                ..Image::new(id)
            });
            let found = act(&mut world, "DescribeImages", &[("Owner.1", alias)]).unwrap();
            assert_eq!(texts(&found, "imageId"), [id]);
            assert_eq!(texts(&found, "imageOwnerAlias"), [alias]);
        }
        let owners = [("Owner.1", "self"), ("Owner.2", "amazon")];
        assert_eq!(describe(&mut world, &owners).unwrap().len(), 2);
    }

    #[test]
    fn a_deprecated_image_is_hidden_from_others_unless_they_ask_for_it() {
        let change = |image: &mut Image| {
            image.public = true;
            image.deprecation_time = Some(clock::now() - TimeDelta::days(1));
        };
        assert_eq!(describe(&mut with_image(change), &[]).unwrap(), [IMAGE]);
        let mut foreign = with_image(|image| {
            change(image);
            image.owner = OTHER_ACCOUNT.into();
        });
        assert!(describe(&mut foreign, &[]).unwrap().is_empty());
        for asking in [("IncludeDeprecated", "true"), ("ImageId.1", IMAGE)] {
            let found = act(&mut foreign, "DescribeImages", &[asking]).unwrap();
            assert_eq!(texts(&found, "deprecationTime").len(), 1, "{asking:?}");
        }
        let future = clock::now() + TimeDelta::days(1);
        foreign.images.get_mut(IMAGE).unwrap().deprecation_time = Some(future);
        assert_eq!(describe(&mut foreign, &[]).unwrap(), [IMAGE]);
    }

    #[test]
    fn nobody_sees_the_tags_of_another_account() {
        let mut world = with_image(|image| {
            image.owner = OTHER_ACCOUNT.into();
            image.public = true;
            image.tags.insert("theirs".into(), "x".into());
        });
        let answer = act(&mut world, "DescribeImages", &[]).unwrap();
        assert!(!answer.contains("tagSet"));
        let by_tag = [
            ("Filter.1.Name", "tag-key"),
            ("Filter.1.Value.1", "theirs"),
            ("Filter.1.Value.2", "ours"),
        ];
        assert!(describe(&mut world, &by_tag).unwrap().is_empty());
        let tag = [("ResourceId.1", IMAGE), ("Tag.1.Key", "ours")];
        act(&mut world, "CreateTags", &tag).unwrap();
        let answer = act(&mut world, "DescribeImages", &by_tag).unwrap();
        assert_eq!(texts(&answer, "key"), ["ours"]);
        assert!(!world.images[IMAGE].tags.contains_key("ours"));
    }

    #[test]
    fn a_volume_takes_the_performance_that_its_type_has() {
        let mut world = World::default();
        world.add_snapshot(Snapshot::new("snap-0000000000000001a"));
        for (volume_type, parameter, refused) in [
            ("gp3", "Iops", None),
            ("gp3", "Throughput", None),
            ("io2", "Iops", None),
            ("io2", "", Some("MissingParameter")),
            ("io2", "Throughput", Some("MissingParameter")),
            ("gp2", "Iops", Some("InvalidParameterCombination")),
            ("gp2", "Throughput", Some("InvalidParameterCombination")),
            ("st1", "Iops", Some("InvalidParameterCombination")),
            ("sc1", "", None),
        ] {
            let (name, given) = (
                format!("BlockDeviceMapping.1.Ebs.{parameter}"),
                format!("{volume_type}-{parameter}"),
            );
            let answer = act(
                &mut world,
                "RegisterImage",
                &[
                    ("Name", given.as_str()),
                    ("RootDeviceName", "/dev/sda1"),
                    ("BlockDeviceMapping.1.DeviceName", "/dev/sda1"),
                    (
                        "BlockDeviceMapping.1.Ebs.SnapshotId",
                        "snap-0000000000000001a",
                    ),
                    ("BlockDeviceMapping.1.Ebs.VolumeType", volume_type),
                    (name.as_str(), "3000"),
                ],
            );
            assert_eq!(answer.err().as_deref(), refused, "{given}");
        }
    }

    #[test]
    fn an_image_gets_the_product_codes_of_all_its_snapshots_once() {
        let mut world = World::default();
        for (id, codes) in [
            ("snap-0000000000000001a", vec!["b".to_owned(), "a".into()]),
            ("snap-0000000000000002a", vec!["b".into()]),
        ] {
            world.add_snapshot(Snapshot {
                product_codes: codes,
                ..Snapshot::new(id)
            });
        }
        let second = [
            ("BlockDeviceMapping.2.DeviceName", "/dev/sdf"),
            (
                "BlockDeviceMapping.2.Ebs.SnapshotId",
                "snap-0000000000000002a",
            ),
        ];
        register(&mut world, "snap-0000000000000001a", &second).unwrap();
        let answer = act(&mut world, "DescribeImages", &[]).unwrap();
        assert_eq!(texts(&answer, "productCode"), ["a", "b"]);
        assert_eq!(texts(&answer, "type"), ["marketplace", "marketplace"]);
    }

    #[test]
    fn another_accounts_image_in_the_recycle_bin_is_not_there() {
        let mut world = World::default();
        let image = Image {
            owner: OTHER_ACCOUNT.into(),
            ..Image::new(IMAGE)
        };
        let (entered, exits) = (clock::now(), clock::now() + TimeDelta::days(1));
        let binned = BinnedImage {
            image,
            entered,
            exits,
        };
        world.recycle_bin.insert(IMAGE.into(), binned);
        let listed = act(&mut world, "ListImagesInRecycleBin", &[]).unwrap();
        assert!(texts(&listed, "imageId").is_empty());
        let restored = act(
            &mut world,
            "RestoreImageFromRecycleBin",
            &[("ImageId", IMAGE)],
        );
        assert_eq!(restored.unwrap_err(), "InvalidAMIID.NotFound");
    }

    #[test]
    fn images_are_found_by_filters() {
        let mut world = with_image(|image| {
            image.name = "win2022-base".into();
            image.platform = Some("windows".into());
            image.tags.insert("Team".into(), "Platform".into());
        });
        world.add_image(Image::new("ami-0aaaaaaaaaaaaaaaa"));
        for (name, value) in [
            ("image-id", IMAGE),
            ("name", "win20??-*"),
            ("platform", "windows"),
            ("tag:Team", "Plat*"),
            ("tag-key", "Team"),
            ("block-device-mapping.snapshot-id", "snap-0123456789abcdef0"),
        ] {
            let found = describe(
                &mut world,
                &[("Filter.1.Name", name), ("Filter.1.Value.1", value)],
            );
            assert_eq!(found.unwrap(), [IMAGE], "{name}");
        }
        let all_must_hold = [
            ("Filter.1.Name", "state"),
            ("Filter.1.Value.1", "failed"),
            ("Filter.1.Value.2", "available"),
            ("Filter.2.Name", "owner-id"),
            ("Filter.2.Value.1", OTHER_ACCOUNT),
        ];
        assert!(describe(&mut world, &all_must_hold).unwrap().is_empty());
        for unknown in ["platform-details", "usage-operation", "State"] {
            assert_eq!(
                describe(&mut World::default(), &[("Filter.1.Name", unknown)]).unwrap_err(),
                "InvalidParameterValue"
            );
        }
    }

    #[test]
    fn a_discarded_image_goes_to_the_recycle_bin_and_comes_back() {
        let mut world = with_image(|image| {
            image
                .tags
                .insert("ami-billing-guard:discard".into(), "true".into());
        });
        let id = [("ImageId", IMAGE)];
        let by_id = [("ImageId.1", IMAGE)];
        act(&mut world, "DeregisterImage", &id).unwrap();
        assert!(world.snapshots.contains_key("snap-0123456789abcdef0"));
        assert!(describe(&mut world, &by_id).unwrap().is_empty());
        let listed = act(&mut world, "ListImagesInRecycleBin", &by_id).unwrap();
        assert_eq!(texts(&listed, "imageId"), [IMAGE]);
        let binned = &world.recycle_bin[IMAGE];
        assert_eq!(binned.exits - binned.entered, TimeDelta::days(30));
        assert_eq!(
            act(&mut world, "DeregisterImage", &id).unwrap_err(),
            "InvalidAMIID.Unavailable"
        );
        act(&mut world, "RestoreImageFromRecycleBin", &id).unwrap();
        assert_eq!(describe(&mut world, &by_id).unwrap(), [IMAGE]);
        assert!(world.recycle_bin.is_empty());
        act(&mut world, "DeregisterImage", &id).unwrap();
    }

    #[test]
    fn the_recycle_bin_wants_key_and_value_and_keeps_for_its_time() {
        let mut world = with_image(|image| {
            image
                .tags
                .insert("ami-billing-guard:discard".into(), "no".into());
        });
        let id = [("ImageId", IMAGE)];
        act(&mut world, "DeregisterImage", &id).unwrap();
        assert!(world.recycle_bin.is_empty());
        assert_eq!(
            act(&mut world, "RestoreImageFromRecycleBin", &id).unwrap_err(),
            "InvalidAMIID.NotFound"
        );

        let mut world = with_image(|image| {
            image.tags.insert("a".into(), "b".into());
        });
        let rule = RecycleBinRule::new("a", "b", 1);
        world.recycle_bin_rules.push(rule);
        act(&mut world, "DeregisterImage", &id).unwrap();
        world.recycle_bin.get_mut(IMAGE).unwrap().exits = clock::now() - TimeDelta::seconds(1);
        let listed = act(&mut world, "ListImagesInRecycleBin", &[]).unwrap();
        assert!(texts(&listed, "imageId").is_empty());
    }

    #[test]
    fn an_image_whose_snapshot_is_gone_can_not_be_restored() {
        let mut world = with_image(|image| {
            image
                .tags
                .insert("ami-billing-guard:discard".into(), "true".into());
        });
        let answer = act(
            &mut world,
            "DeregisterImage",
            &[("ImageId", IMAGE), ("DeleteAssociatedSnapshots", "true")],
        )
        .unwrap();
        assert_eq!(texts(&answer, "returnCode"), ["success"]);
        assert!(world.snapshots.is_empty());
        assert_eq!(
            act(
                &mut world,
                "RestoreImageFromRecycleBin",
                &[("ImageId", IMAGE)]
            )
            .unwrap_err(),
            "InvalidSnapshot.NotFound"
        );
    }

    #[test]
    fn a_snapshot_that_another_image_uses_is_never_deleted() {
        let mut world = with_image(|_| {});
        world.add_image(Image {
            block_devices: world.images[IMAGE].block_devices.clone(),
            ..Image::new("ami-0aaaaaaaaaaaaaaaa")
        });
        let answer = act(
            &mut world,
            "DeregisterImage",
            &[("ImageId", IMAGE), ("DeleteAssociatedSnapshots", "true")],
        )
        .unwrap();
        assert_eq!(texts(&answer, "returnCode"), ["skipped"]);
        assert_eq!(world.snapshots.len(), 1);
    }

    #[test]
    fn a_deregistered_image_is_listed_then_empty_then_unknown() {
        let mut world = with_image(|_| {});
        world.after_deregistration = Lingering {
            listed_for: 1,
            empty_for: Some(1),
        };
        act(&mut world, "DeregisterImage", &[("ImageId", IMAGE)]).unwrap();
        let by_id = [("ImageId.1", IMAGE)];
        assert_eq!(describe(&mut world, &by_id).unwrap(), [IMAGE]);
        assert!(describe(&mut world, &by_id).unwrap().is_empty());
        assert_eq!(
            describe(&mut world, &by_id).unwrap_err(),
            "InvalidAMIID.NotFound"
        );
    }

    #[test]
    fn protected_and_managed_and_foreign_and_unknown_images_can_not_be_deregistered() {
        type Change = fn(&mut Image);
        let cases: [(Change, &str); 4] = [
            (
                |image| image.deregistration_protection = Some("enabled-with-cooldown".into()),
                "OperationNotPermitted",
            ),
            (
                |image| {
                    image
                        .tags
                        .insert("aws:backup:source-resource".into(), "x".into());
                },
                "AuthFailure",
            ),
            (|image| image.owner = OTHER_ACCOUNT.into(), "AuthFailure"),
            (
                |image| image.id = "ami-0aaaaaaaaaaaaaaaa".into(),
                "InvalidAMIID.NotFound",
            ),
        ];
        for (change, expected) in cases {
            let mut world = with_image(change);
            assert_eq!(
                act(&mut world, "DeregisterImage", &[("ImageId", IMAGE)]).unwrap_err(),
                expected
            );
            assert_eq!(world.images.len(), 1);
        }
        let mut world =
            with_image(|image| image.deregistration_protection = Some("disabled".into()));
        assert!(act(&mut world, "DeregisterImage", &[("ImageId", IMAGE)]).is_ok());
    }

    #[test]
    fn a_disabled_image_is_private_and_hidden_until_it_is_enabled() {
        let mut world = with_image(|image| image.public = true);
        let by_id = [("ImageId.1", IMAGE)];
        act(&mut world, "DisableImage", &[("ImageId", IMAGE)]).unwrap();
        assert!(describe(&mut world, &by_id).unwrap().is_empty());
        assert_eq!(
            describe(
                &mut world,
                &[("ImageId.1", IMAGE), ("IncludeDisabled", "true")]
            )
            .unwrap(),
            [IMAGE]
        );
        act(&mut world, "EnableImage", &[("ImageId", IMAGE)]).unwrap();
        assert_eq!(describe(&mut world, &by_id).unwrap(), [IMAGE]);
        assert!(!world.images[IMAGE].public);
    }

    #[test]
    fn an_image_without_billing_fields_has_no_such_elements() {
        let mut world = with_image(|image| {
            image.platform_details = None;
            image.usage_operation = Some(String::new());
        });
        let answer = act(&mut world, "DescribeImages", &[]).unwrap();
        assert!(!answer.contains("platformDetails"));
        assert_eq!(texts(&answer, "usageOperation"), [""]);
    }
}
