//! Snapshots, and the volumes that they are taken from.

use chrono::Utc;

use super::{Filters, check_id, page, tag_values, tags, timestamp};
use crate::form::Form;
use crate::refusal::Refusal;
use crate::world::{Snapshot, SnapshotBilling, Volume, World};
use crate::xml::Xml;

/// A page of `DescribeSnapshots` has 5 to 1,000 items.
const PAGE: std::ops::RangeInclusive<usize> = 5..=1000;

/// An empty volume, or one made from a snapshot, that then inherits what the snapshot bills.
pub(super) fn create_volume(world: &mut World, form: &Form) -> Result<Xml, Refusal> {
    let zone = form.required("AvailabilityZone")?;
    let size = form.parse::<u32>("Size")?;
    let from = match form.get("SnapshotId") {
        Some(id) => Some(find(world, id)?.clone()),
        None => None,
    };
    let Some(size) = size.or_else(|| from.as_ref().map(|snapshot| snapshot.volume_size)) else {
        return Err(Refusal::new(
            "MissingParameter",
            "The request must contain the parameter size/snapshot",
        ));
    };
    let volume = Volume {
        id: world.fresh_id("vol"),
        size,
        encrypted: form.flag("Encrypted")? || from.as_ref().is_some_and(|from| from.encrypted),
        billing: from
            .as_ref()
            .map(|snapshot| snapshot.billing.clone())
            .unwrap_or_default(),
    };
    world.volumes.insert(volume.id.clone(), volume.clone());
    Ok(Xml::fragment(|xml| {
        xml.text("volumeId", &volume.id);
        xml.text("size", volume.size);
        xml.text("snapshotId", from.map(|from| from.id).unwrap_or_default());
        xml.text("availabilityZone", zone);
        xml.text("status", "creating");
        xml.text("createTime", timestamp(Utc::now()));
        xml.text("volumeType", form.get("VolumeType").unwrap_or("gp2"));
        xml.text("encrypted", volume.encrypted);
    }))
}

/// The snapshot knows what it bills if its volume does: because the volume came from such a snapshot,
/// or because it is the root volume of an instance. No other volume gets anything from its instance.
pub(super) fn create(world: &mut World, form: &Form) -> Result<Xml, Refusal> {
    let volume_id = form.required("VolumeId")?;
    check_id(volume_id, "vol", "VolumeID")?;
    let tags = tags::specified(form, "snapshot")?;
    let volume = volume(world, volume_id).ok_or_else(|| {
        Refusal::new(
            "InvalidVolume.NotFound",
            format!("The volume '{volume_id}' does not exist."),
        )
    })?;
    let snapshot = Snapshot {
        owner: world.account.clone(),
        volume_id: volume.id,
        volume_size: volume.size,
        encrypted: volume.encrypted,
        billing: volume.billing,
        description: form.get("Description").unwrap_or_default().to_owned(),
        start_time: Utc::now(),
        tags,
        ..Snapshot::new(world.fresh_id("snap"))
    };
    world.add_snapshot(snapshot.clone());
    Ok(Xml::fragment(|xml| write(xml, &snapshot)))
}

fn volume(world: &World, id: &str) -> Option<Volume> {
    let alone = world.volumes.get(id);
    let attached = world.instances.values().find_map(|instance| {
        let volume = instance
            .volumes
            .iter()
            .find(|volume| volume.volume_id == id)?;
        let is_root = instance.root_device_name.as_deref() == Some(&volume.device_name);
        let billing = match (&instance.platform_details, &instance.usage_operation) {
            (Some(details), Some(operation)) if is_root => SnapshotBilling::Known {
                platform_details: details.clone(),
                usage_operation: operation.clone(),
            },
            _ => alone
                .map(|volume| volume.billing.clone())
                .unwrap_or_default(),
        };
        Some(Volume {
            id: id.to_owned(),
            size: volume.size,
            encrypted: alone.is_some_and(|volume| volume.encrypted),
            billing,
        })
    });
    attached.or_else(|| alone.cloned())
}

pub(super) fn describe(world: &mut World, form: &Form) -> Result<Xml, Refusal> {
    let ids = form.list("SnapshotId");
    for id in &ids {
        find(world, id)?;
    }
    let owners = form.list("Owner");
    let filters = Filters::of(form, |name| value(&Snapshot::new(""), name).is_some())?;
    let mut found = Vec::new();
    for snapshot in world.snapshots.values() {
        let owned_by = |owner: &&str| match *owner {
            "self" => snapshot.owner == world.account,
            account => snapshot.owner == account,
        };
        if snapshot.visible_to(&world.account)
            && (ids.is_empty() || ids.contains(&snapshot.id.as_str()))
            && (owners.is_empty() || owners.iter().any(owned_by))
            && filters.admit(|name| value(snapshot, name))
        {
            found.push(snapshot);
        }
    }
    let (found, token) = page(form, PAGE, found, |snapshot| snapshot.id.clone())?;
    Ok(Xml::fragment(|xml| {
        xml.list("snapshotSet", found, write);
        xml.optional("nextToken", token);
    }))
}

fn value(snapshot: &Snapshot, filter: &str) -> Option<Vec<String>> {
    let value = match filter {
        "snapshot-id" => snapshot.id.clone(),
        "volume-id" => snapshot.volume_id.clone(),
        "owner-id" => snapshot.owner.clone(),
        "status" => snapshot.state.clone(),
        "description" => snapshot.description.clone(),
        "volume-size" => snapshot.volume_size.to_string(),
        "encrypted" => snapshot.encrypted.to_string(),
        "start-time" => timestamp(snapshot.start_time),
        other => return tag_values(&snapshot.tags, other),
    };
    Some(vec![value])
}

/// The snapshot of this id, if the account may see it.
pub(super) fn find<'w>(world: &'w World, id: &str) -> Result<&'w Snapshot, Refusal> {
    check_id(id, "snap", "SnapshotID")?;
    world
        .snapshots
        .get(id)
        .filter(|snapshot| snapshot.visible_to(&world.account))
        .ok_or_else(|| not_found(id))
}

pub(super) fn not_found(id: &str) -> Refusal {
    Refusal::new(
        "InvalidSnapshot.NotFound",
        format!("The snapshot '{id}' does not exist."),
    )
}

fn write(xml: &mut Xml, snapshot: &Snapshot) {
    xml.text("snapshotId", &snapshot.id);
    xml.text("volumeId", &snapshot.volume_id);
    xml.text("status", &snapshot.state);
    xml.text("startTime", timestamp(snapshot.start_time));
    let completed = snapshot.state == "completed";
    xml.text("progress", if completed { "100%" } else { "0%" });
    xml.text("ownerId", &snapshot.owner);
    xml.text("volumeSize", snapshot.volume_size);
    xml.text("description", &snapshot.description);
    xml.text("encrypted", snapshot.encrypted);
    xml.text("storageTier", "standard");
    tags::write(xml, &snapshot.tags);
}

#[cfg(test)]
mod tests {
    use super::super::testing::{act, texts};
    use super::*;
    use crate::world::{AttachedVolume, Instance};

    const INSTANCE: &str = "i-0123456789abcdef0";
    const ROOT: &str = "vol-0000000000000000a";
    const SECOND: &str = "vol-0000000000000000b";

    fn windows() -> SnapshotBilling {
        SnapshotBilling::Known {
            platform_details: "Windows".into(),
            usage_operation: "RunInstances:0002".into(),
        }
    }

    fn world_with_windows_instance() -> World {
        let mut world = World::default();
        world.add_instance(Instance {
            platform_details: Some("Windows".into()),
            usage_operation: Some("RunInstances:0002".into()),
            root_device_name: Some("/dev/sda1".into()),
            volumes: vec![
                AttachedVolume::new("/dev/sda1", ROOT),
                AttachedVolume::new("/dev/sdf", SECOND),
            ],
            ..Instance::new(INSTANCE, "ami-0123456789abcdef0")
        });
        world
    }

    fn snapshot_of(world: &mut World, volume: &str) -> Snapshot {
        let answer = act(
            world,
            "CreateSnapshot",
            &[("VolumeId", volume), ("Description", "a description")],
        )
        .unwrap();
        world.snapshots[&texts(&answer, "snapshotId")[0]].clone()
    }

    #[test]
    fn only_a_root_volume_passes_its_instances_billing_on() {
        let mut world = world_with_windows_instance();
        let root = snapshot_of(&mut world, ROOT);
        assert_eq!(root.billing, windows());
        assert_eq!(root.volume_id, ROOT);
        assert_eq!(root.description, "a description");
        assert_eq!(
            snapshot_of(&mut world, SECOND).billing,
            SnapshotBilling::Missing
        );
    }

    #[test]
    fn a_volume_made_from_a_snapshot_keeps_what_it_bills() {
        let mut world = world_with_windows_instance();
        let first = snapshot_of(&mut world, ROOT);
        let answer = act(
            &mut world,
            "CreateVolume",
            &[
                ("AvailabilityZone", "eu-west-1a"),
                ("SnapshotId", &first.id),
            ],
        )
        .unwrap();
        let copy = snapshot_of(&mut world, &texts(&answer, "volumeId")[0]);
        assert_eq!(copy.billing, windows());
        let answer = act(
            &mut world,
            "CreateVolume",
            &[("AvailabilityZone", "eu-west-1a"), ("Size", "3")],
        )
        .unwrap();
        let empty = snapshot_of(&mut world, &texts(&answer, "volumeId")[0]);
        assert_eq!(empty.billing, SnapshotBilling::Missing);
        assert_eq!(empty.volume_size, 3);
    }

    #[test]
    fn a_volume_that_does_not_exist_is_refused() {
        let code = act(
            &mut World::default(),
            "CreateSnapshot",
            &[("VolumeId", ROOT)],
        );
        assert_eq!(code.unwrap_err(), "InvalidVolume.NotFound");
    }

    #[test]
    fn snapshots_are_found_by_id_owner_and_filter() {
        let mut world = World::example();
        world.add_snapshot(Snapshot {
            owner: "210987654321".into(),
            public: true,
            ..Snapshot::new("snap-00000000000000f01")
        });
        world.add_snapshot(Snapshot {
            owner: "210987654321".into(),
            ..Snapshot::new("snap-00000000000000f02")
        });
        let mut find = |parameters: &[(&str, &str)]| {
            act(&mut world, "DescribeSnapshots", parameters)
                .map(|answer| texts(&answer, "snapshotId"))
        };
        assert_eq!(find(&[]).unwrap().len(), 5);
        assert_eq!(find(&[("Owner.1", "self")]).unwrap().len(), 4);
        assert_eq!(
            find(&[("Owner.1", "210987654321")]).unwrap(),
            ["snap-00000000000000f01"]
        );
        assert_eq!(
            find(&[("SnapshotId.1", "snap-0000000000000a001")]).unwrap(),
            ["snap-0000000000000a001"]
        );
        assert_eq!(
            find(&[
                ("Filter.1.Name", "description"),
                ("Filter.1.Value.1", "Red Hat*"),
            ])
            .unwrap(),
            ["snap-0000000000000a002"]
        );
        for (parameter, expected) in [
            (
                ("SnapshotId.1", "snap-00000000000000f02"),
                "InvalidSnapshot.NotFound",
            ),
            (("SnapshotId.1", "snap-x"), "InvalidSnapshotID.Malformed"),
            (("Filter.1.Name", "nonsense"), "InvalidParameterValue"),
            (("MaxResults", "4"), "InvalidParameterValue"),
        ] {
            assert_eq!(find(&[parameter]).unwrap_err(), expected);
        }
    }
}
