//! Volumes, attached or not.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::elements::timestamp;
use super::filters::{Filters, Values, optional, tag_values};
use super::ids::{check_id, find_snapshot, named, volume_not_found};
use super::page::Page;
use super::tags;
use crate::clock;
use crate::form::Form;
use crate::refusal::Refusal;
use crate::world::{AttachedVolume, Instance, Snapshot, SnapshotBilling, Volume, World};
use crate::xml::Xml;

/// A page of `DescribeVolumes` has 5 to 1,000 items.
const PAGE: std::ops::RangeInclusive<usize> = 5..=1000;

/// A volume, and its attachment.
#[derive(Debug)]
struct Found<'w> {
    volume: Cow<'w, Volume>,
    attachment: Option<Attachment<'w>>,
}

type Attachment<'w> = (&'w Instance, &'w AttachedVolume);

impl Found<'_> {
    fn status(&self) -> &'static str {
        if self.attachment.is_some() {
            "in-use"
        } else {
            "available"
        }
    }
}

/// Creates an empty volume, or one from a snapshot, which inherits the snapshot's billing metadata.
pub(super) fn create(world: &mut World, form: &Form) -> Result<Xml, Refusal> {
    let zone = form.required("AvailabilityZone")?;
    let size = form.parse::<u32>("Size")?;
    let encrypted = form.flag("Encrypted")?;
    let tags = tags::specified(form, "volume")?;
    let from = match form.get("SnapshotId") {
        Some(id) => Some(find_snapshot(world, id)?.clone()),
        None => None,
    };
    let Some(size) = size.or_else(|| from.as_ref().map(|snapshot| snapshot.volume_size)) else {
        return Err(Refusal::new(
            "MissingParameter",
            "The request must contain the parameter size/snapshot",
        ));
    };
    let empty = Volume {
        owner: world.account.clone(),
        availability_zone: zone.to_owned(),
        volume_type: form.get("VolumeType").unwrap_or("gp2").to_owned(),
        create_time: clock::now(),
        tags,
        ..Volume::new(world.fresh_id("vol"))
    };
    let volume = match from {
        Some(snapshot) => made_from(&snapshot, empty),
        None => empty,
    };
    let volume = Volume {
        size,
        encrypted: encrypted || volume.encrypted,
        ..volume
    };
    world.add_volume(volume.clone());
    Ok(Xml::fragment(|xml| write(xml, &volume, "creating")))
}

/// The volume with everything that it inherits from a snapshot.
fn made_from(snapshot: &Snapshot, volume: Volume) -> Volume {
    Volume {
        size: snapshot.volume_size,
        snapshot_id: Some(snapshot.id.clone()),
        encrypted: snapshot.is_encrypted(),
        kms_key_id: snapshot.kms_key_id.clone(),
        disk: snapshot.disk.clone(),
        product_codes: snapshot.product_codes.clone(),
        billing: snapshot.billing.clone(),
        ..volume
    }
}

pub(super) fn describe(world: &mut World, form: &Form) -> Result<Xml, Refusal> {
    let ids = form.list("VolumeId");
    for id in &ids {
        check_id(id, "vol", "VolumeID")?;
    }
    let nothing = Volume::new("");
    let nothing = Found {
        volume: Cow::Borrowed(&nothing),
        attachment: None,
    };
    let filters = Filters::of(form, |name| values(&nothing, name).is_some())?;
    let page = Page::of(form, PAGE)?;
    let named = named(&ids);
    let referring = ["attachment.instance-id", "snapshot-id"]
        .iter()
        .find_map(|name| filters.referrers(world, name));
    let ids = named.as_ref().or_else(|| filters.ids("volume-id"));
    let ids = ids.or(referring.as_ref());
    let attachments = attachments(world, ids);
    for id in named.iter().flatten() {
        own(world, &attachments, id).ok_or_else(|| volume_not_found(id))?;
    }
    let all: BTreeSet<&str> = match ids {
        Some(ids) => ids.range::<str, _>(page.keys()).copied().collect(),
        None => {
            let alone = world.volumes.range::<str, _>(page.keys());
            let attached = attachments.range::<str, _>(page.keys());
            alone
                .map(|(id, _)| id.as_str())
                .chain(attached.map(|(id, _)| *id))
                .collect()
        }
    };
    let found = all
        .into_iter()
        .filter_map(|id| own(world, &attachments, id))
        .filter(|found| filters.admit(|name| values(found, name)));
    let (found, token) = page.cut(found, |found| found.volume.id.clone());
    Ok(Xml::fragment(|xml| {
        xml.list("volumeSet", found, |xml, found| {
            write(xml, &found.volume, found.status());
            xml.list("attachmentSet", found.attachment, write_attachment);
        });
        xml.optional("nextToken", token);
    }))
}

/// The volume of this id, if the account owns it.
pub(super) fn find(world: &World, id: &str) -> Result<Volume, Refusal> {
    check_id(id, "vol", "VolumeID")?;
    match own(world, &attachments(world, Some(&BTreeSet::from([id]))), id) {
        Some(Found { volume, attachment }) => {
            let volume = volume.into_owned();
            Ok(match attachment {
                Some((instance, attached)) => with_root_of(instance, attached, volume),
                None => volume,
            })
        }
        None => Err(volume_not_found(id)),
    }
}

/// The attachments by volume id, for these volumes or all. Includes attachments to instances that are terminated now.
fn attachments<'w>(
    world: &'w World,
    ids: Option<&BTreeSet<&str>>,
) -> BTreeMap<&'w str, Attachment<'w>> {
    let instances: Vec<&Instance> = match ids.and_then(|ids| world.index.referrers(ids)) {
        Some(having) => having
            .iter()
            .filter_map(|id| world.instances.get(*id))
            .collect(),
        None => world.instances.values().collect(),
    };
    // A volume that outlived a terminated instance may be attached to another one now. So instances that are not
    // terminated come last, and take precedence.
    let (terminated, alive): (Vec<&Instance>, Vec<&Instance>) = instances
        .into_iter()
        .partition(|instance| instance.is_terminated());
    let mut attachments = BTreeMap::new();
    for instance in terminated.into_iter().chain(alive) {
        for attached in &instance.volumes {
            let id = attached.volume_id.as_str();
            if ids.is_none_or(|ids| ids.contains(id)) {
                attachments.insert(id, (instance, attached));
            }
        }
    }
    attachments
}

/// The volume of this id, unless it is deleted or belongs to another account. An account never sees another account's
/// volumes.
fn own<'w>(
    world: &'w World,
    attachments: &BTreeMap<&str, Attachment<'w>>,
    id: &str,
) -> Option<Found<'w>> {
    let attachment = attachments.get(id).copied();
    let volume = match attachment {
        None => Cow::Borrowed(world.volumes.get(id)?),
        Some((instance, attached))
            if instance.is_terminated() && attached.delete_on_termination =>
        {
            return None;
        }
        Some((instance, attached)) => volume_of(world, instance, attached),
    };
    let attachment = attachment.filter(|(instance, _)| !instance.is_terminated());
    let own = volume.owner == world.account;
    own.then_some(Found { volume, attachment })
}

/// An attached volume as the world describes it. If it does not, the volume is derived from its attachment.
fn volume_of<'w>(
    world: &'w World,
    instance: &Instance,
    attached: &AttachedVolume,
) -> Cow<'w, Volume> {
    if let Some(volume) = world.volumes.get(&attached.volume_id) {
        return Cow::Borrowed(volume);
    }
    let volume = Volume {
        owner: instance.owner.clone(),
        availability_zone: format!("{}a", world.region),
        create_time: attached.attach_time,
        ..Volume::new(&attached.volume_id)
    };
    let from = attached.snapshot_id.as_ref();
    let volume = match from.and_then(|id| world.snapshots.get(id)) {
        Some(snapshot) => made_from(snapshot, volume),
        None => volume,
    };
    Cow::Owned(Volume {
        size: attached.size,
        // Its snapshot may be deleted, or belong to another account.
        snapshot_id: attached.snapshot_id.clone(),
        ..volume
    })
}

/// A root volume takes its billing and its product codes from its instance. Other volumes take nothing from it.
fn with_root_of(instance: &Instance, attached: &AttachedVolume, volume: Volume) -> Volume {
    if instance.root_device_name.as_deref() != Some(&attached.device_name) {
        return volume;
    }
    let billing = match (&instance.platform_details, &instance.usage_operation) {
        (Some(details), Some(operation)) => SnapshotBilling::Known {
            platform_details: details.clone(),
            usage_operation: operation.clone(),
        },
        _ => volume.billing,
    };
    let product_codes = if instance.product_codes.is_empty() {
        volume.product_codes
    } else {
        instance.product_codes.clone()
    };
    Volume {
        billing,
        product_codes,
        ..volume
    }
}

/// The values for a filter's name. The names are those of the API reference of `DescribeVolumes`.
fn values<'f>(found: &'f Found, filter: &str) -> Option<Values<'f>> {
    let Found { volume, attachment } = found;
    let attached = |value: fn(&Instance, &AttachedVolume) -> String| {
        let value = attachment.map(|(instance, attached)| value(instance, attached));
        value.map(Cow::from).into_iter().collect()
    };
    Some(match filter {
        "volume-id" => vec![Cow::from(&volume.id)],
        "snapshot-id" => optional(volume.snapshot_id.as_ref()),
        "status" => vec![found.status().into()],
        "size" => vec![volume.size.to_string().into()],
        "availability-zone" => vec![Cow::from(&volume.availability_zone)],
        "create-time" => vec![timestamp(volume.create_time).into()],
        "encrypted" => vec![volume.encrypted.to_string().into()],
        "volume-type" => vec![Cow::from(&volume.volume_type)],
        "attachment.attach-time" => attached(|_, attached| timestamp(attached.attach_time)),
        "attachment.delete-on-termination" => {
            attached(|_, attached| attached.delete_on_termination.to_string())
        }
        "attachment.device" => attached(|_, attached| attached.device_name.clone()),
        "attachment.instance-id" => attached(|instance, _| instance.id.clone()),
        "attachment.status" => attached(|_, _| "attached".into()),
        other => return tag_values(&volume.tags, other),
    })
}

fn write(xml: &mut Xml, volume: &Volume, status: &str) {
    xml.text("volumeId", &volume.id);
    xml.text("size", volume.size);
    // Empty but not absent, if the volume was created without a snapshot.
    xml.text("snapshotId", volume.snapshot_id.as_deref().unwrap_or(""));
    xml.optional("sourceVolumeId", volume.source_volume_id.as_ref());
    xml.text("availabilityZone", &volume.availability_zone);
    xml.text("status", status);
    xml.text("createTime", timestamp(volume.create_time));
    xml.text("volumeType", &volume.volume_type);
    xml.text("encrypted", volume.encrypted);
    xml.optional("kmsKeyId", volume.kms_key_id.as_ref());
    tags::write(xml, &volume.tags);
}

fn write_attachment(xml: &mut Xml, (instance, attached): Attachment) {
    xml.text("volumeId", &attached.volume_id);
    xml.text("instanceId", &instance.id);
    xml.text("device", &attached.device_name);
    xml.text("status", "attached");
    xml.text("attachTime", timestamp(attached.attach_time));
    xml.text("deleteOnTermination", attached.delete_on_termination);
}

#[cfg(test)]
mod tests {
    use super::super::testing::{act, texts};
    use super::*;

    const INSTANCE: &str = "i-0123456789abcdef0";
    const OTHER_ACCOUNT: &str = "210987654321";
    const ALONE: &str = "vol-0000000000000000a";
    const ROOT: &str = "vol-0000000000000000b";
    const SECOND: &str = "vol-0000000000000000c";
    const SNAPSHOT: &str = "snap-0123456789abcdef0";

    /// A volume without an attachment, a root volume that only its attachment describes, and a second volume with both.
    fn world() -> World {
        let mut world = World::default();
        world.add_volume(Volume {
            tags: [("Team".into(), "images".into())].into(),
            ..Volume::new(ALONE)
        });
        world.add_volume(Volume {
            size: 30,
            snapshot_id: Some(SNAPSHOT.into()),
            encrypted: true,
            ..Volume::new(SECOND)
        });
        world.add_instance(Instance {
            volumes: vec![
                AttachedVolume {
                    size: 40,
                    snapshot_id: Some(SNAPSHOT.into()),
                    ..AttachedVolume::new("/dev/xvda", ROOT)
                },
                AttachedVolume {
                    delete_on_termination: false,
                    ..AttachedVolume::new("/dev/sdf", SECOND)
                },
            ],
            ..Instance::new(INSTANCE, "ami-0123456789abcdef0")
        });
        world
    }

    fn describe(world: &mut World, parameters: &[(&str, &str)]) -> Result<Vec<String>, String> {
        // The id of an attached volume appears twice: its own, and its attachment's.
        act(world, "DescribeVolumes", parameters).map(|answer| {
            let mut ids = texts(&answer, "volumeId");
            ids.dedup();
            ids
        })
    }

    #[test]
    fn volumes_are_described_wherever_they_live() {
        let mut world = world();
        assert_eq!(describe(&mut world, &[]).unwrap(), [ALONE, ROOT, SECOND]);
        for (id, expected) in [
            (
                ALONE,
                [
                    ("size", "8"),
                    ("snapshotId", ""),
                    ("status", "available"),
                    ("encrypted", "false"),
                ],
            ),
            (
                ROOT,
                [
                    ("size", "40"),
                    ("snapshotId", SNAPSHOT),
                    ("status", "in-use"),
                    ("encrypted", "false"),
                ],
            ),
            (
                SECOND,
                [
                    ("size", "30"),
                    ("snapshotId", SNAPSHOT),
                    ("status", "in-use"),
                    ("encrypted", "true"),
                ],
            ),
        ] {
            let answer = act(&mut world, "DescribeVolumes", &[("VolumeId.1", id)]).unwrap();
            for (element, text) in expected {
                assert_eq!(texts(&answer, element)[0], text, "{id} {element}");
            }
        }
    }

    #[test]
    fn an_attached_volume_tells_to_what() {
        let answer = act(&mut world(), "DescribeVolumes", &[("VolumeId.1", SECOND)]).unwrap();
        for (element, expected) in [
            ("instanceId", INSTANCE),
            ("device", "/dev/sdf"),
            ("deleteOnTermination", "false"),
        ] {
            assert_eq!(texts(&answer, element), [expected]);
        }
        assert_eq!(texts(&answer, "status"), ["in-use", "attached"]);
        let answer = act(&mut world(), "DescribeVolumes", &[("VolumeId.1", ALONE)]).unwrap();
        assert!(answer.contains("<attachmentSet></attachmentSet>"));
    }

    #[test]
    fn volumes_are_found_by_filters() {
        for (name, value, expected) in [
            ("volume-id", ROOT, vec![ROOT]),
            ("snapshot-id", SNAPSHOT, vec![ROOT, SECOND]),
            ("status", "available", vec![ALONE]),
            ("attachment.instance-id", INSTANCE, vec![ROOT, SECOND]),
            ("attachment.device", "/dev/sd*", vec![SECOND]),
            ("encrypted", "true", vec![SECOND]),
            ("tag:Team", "images", vec![ALONE]),
            ("volume-id", "vol-0aaaaaaaaaaaaaaaa", vec![]),
        ] {
            let filter = [("Filter.1.Name", name), ("Filter.1.Value.1", value)];
            assert_eq!(describe(&mut world(), &filter).unwrap(), expected, "{name}");
        }
    }

    #[test]
    fn the_volumes_of_a_terminated_instance_are_gone_or_free() {
        let mut world = world();
        world.instances.get_mut(INSTANCE).unwrap().state = "terminated".into();
        assert_eq!(describe(&mut world, &[]).unwrap(), [ALONE, SECOND]);
        let free = [
            ("Filter.1.Name", "status"),
            ("Filter.1.Value.1", "available"),
        ];
        assert_eq!(describe(&mut world, &free).unwrap(), [ALONE, SECOND]);
        assert_eq!(
            act(&mut world, "CreateSnapshot", &[("VolumeId", ROOT)]).unwrap_err(),
            "InvalidVolume.NotFound"
        );
    }

    #[test]
    fn another_accounts_volumes_are_not_there() {
        let mut world = world();
        world.volumes.get_mut(ALONE).unwrap().owner = OTHER_ACCOUNT.into();
        world.instances.get_mut(INSTANCE).unwrap().owner = OTHER_ACCOUNT.into();
        assert_eq!(describe(&mut world, &[]).unwrap(), [SECOND]);
        for id in [ALONE, ROOT] {
            assert_eq!(
                describe(&mut world, &[("VolumeId.1", id)]).unwrap_err(),
                "InvalidVolume.NotFound"
            );
        }
    }

    #[test]
    fn wrong_questions_for_volumes_are_refused() {
        for (parameter, expected) in [
            (
                ("VolumeId.1", "vol-0aaaaaaaaaaaaaaaa"),
                "InvalidVolume.NotFound",
            ),
            (("VolumeId.1", "vol-x"), "InvalidVolumeID.Malformed"),
            (("Filter.1.Name", "nonsense"), "InvalidParameterValue"),
            (("MaxResults", "4"), "InvalidParameterValue"),
        ] {
            assert_eq!(describe(&mut world(), &[parameter]).unwrap_err(), expected);
        }
    }

    #[test]
    fn volumes_come_in_pages() {
        let mut world = World::default();
        for number in 0..7 {
            world.add_volume(Volume::new(format!("vol-0000000{number}")));
        }
        let first = act(&mut world, "DescribeVolumes", &[("MaxResults", "5")]).unwrap();
        assert_eq!(texts(&first, "volumeId").len(), 5);
        let token = texts(&first, "nextToken").remove(0);
        let rest = [("MaxResults", "5"), ("NextToken", &token)];
        assert_eq!(
            describe(&mut world, &rest).unwrap(),
            ["vol-00000005", "vol-00000006"]
        );
    }

    #[test]
    fn a_volume_remembers_what_it_was_made_from() {
        let mut world = world();
        world.add_snapshot(Snapshot::new(SNAPSHOT));
        let answer = act(
            &mut world,
            "CreateVolume",
            &[
                ("AvailabilityZone", "eu-west-1b"),
                ("SnapshotId", SNAPSHOT),
                ("TagSpecification.1.ResourceType", "volume"),
                ("TagSpecification.1.Tag.1.Key", "Team"),
            ],
        )
        .unwrap();
        let id = texts(&answer, "volumeId").remove(0);
        let answer = act(&mut world, "DescribeVolumes", &[("VolumeId.1", &id)]).unwrap();
        for (element, expected) in [
            ("snapshotId", SNAPSHOT),
            ("availabilityZone", "eu-west-1b"),
            ("status", "available"),
            ("key", "Team"),
        ] {
            assert_eq!(texts(&answer, element), [expected]);
        }
    }

    #[test]
    fn a_volume_from_a_snapshot_bills_so_unless_it_is_the_root_of_an_instance() {
        let mut world = world();
        let windows = SnapshotBilling::Known {
            platform_details: "Windows".into(),
            usage_operation: "RunInstances:0002".into(),
        };
        world.add_snapshot(Snapshot {
            billing: windows.clone(),
            ..Snapshot::new(SNAPSHOT)
        });
        let linux = SnapshotBilling::Known {
            platform_details: "Linux/UNIX".into(),
            usage_operation: "RunInstances".into(),
        };
        assert_eq!(find(&world, ROOT).unwrap().billing, linux);
        let instance = world.instances.get_mut(INSTANCE).unwrap();
        instance.root_device_name = Some("/dev/sda1".into());
        assert_eq!(find(&world, ROOT).unwrap().billing, windows);
    }
}
