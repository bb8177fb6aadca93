//! Snapshots.

use std::borrow::Cow;

use super::elements::{timestamp, write_product_codes};
use super::filters::{Filters, Values, tag_values};
use super::ids::{find_snapshot, named};
use super::page::Page;
use super::{tags, volumes};
use crate::clock;
use crate::form::Form;
use crate::refusal::Refusal;
use crate::world::{Snapshot, World};
use crate::xml::Xml;

/// A page of `DescribeSnapshots` has 5 to 1,000 items.
const PAGE: std::ops::RangeInclusive<usize> = 5..=1000;

/// Creates a snapshot with its volume's billing metadata and product codes.
pub(super) fn create(world: &mut World, form: &Form) -> Result<Xml, Refusal> {
    let volume_id = form.required("VolumeId")?;
    let tags = tags::specified(form, "snapshot")?;
    let volume = volumes::find(world, volume_id)?;
    let snapshot = Snapshot {
        owner: world.account.clone(),
        volume_id: volume.id,
        volume_size: volume.size,
        encrypted: volume.encrypted,
        kms_key_id: volume.kms_key_id,
        disk: volume.disk,
        product_codes: volume.product_codes,
        billing: volume.billing,
        description: form.get("Description").unwrap_or_default().to_owned(),
        start_time: clock::now(),
        completion_time: Some(clock::now()),
        tags,
        ..Snapshot::new(world.fresh_id("snap"))
    };
    world.add_snapshot(snapshot.clone());
    Ok(Xml::fragment(|xml| write(xml, &snapshot, &world.account)))
}

pub(super) fn describe(world: &mut World, form: &Form) -> Result<Xml, Refusal> {
    let ids = form.list("SnapshotId");
    for id in &ids {
        find_snapshot(world, id)?;
    }
    let owners = form.list("Owner");
    let nothing = Snapshot::new("");
    let filters = Filters::of(form, |name| values(&nothing, "", name).is_some())?;
    let page = Page::of(form, PAGE)?;
    let account = world.account.as_str();
    let named = named(&ids);
    let of_volumes = filters.referrers(world, "volume-id");
    let ids = named.as_ref().or_else(|| filters.ids("snapshot-id"));
    let ids = ids.or(of_volumes.as_ref());
    let found = page.of_map(&world.snapshots, ids).filter(|snapshot| {
        let owned_by = |owner: &&str| match *owner {
            "self" => snapshot.owned_by(account),
            other => snapshot.owned_by(other),
        };
        snapshot.visible_to(account)
            && (owners.is_empty() || owners.iter().any(owned_by))
            && filters.admit(|name| values(snapshot, account, name))
    });
    let (found, token) = page.cut(found, |snapshot| snapshot.id.clone());
    Ok(Xml::fragment(|xml| {
        xml.list("snapshotSet", found, |xml, snapshot| {
            write(xml, snapshot, account);
        });
        xml.optional("nextToken", token);
    }))
}

/// Returns one attribute. Only the snapshot's owner may request it.
pub(super) fn describe_attribute(world: &mut World, form: &Form) -> Result<Xml, Refusal> {
    let id = form.required("SnapshotId")?;
    let attribute = form.required("Attribute")?;
    let snapshot = find_snapshot(world, id)?;
    if !snapshot.owned_by(&world.account) {
        // Not documented. DescribeImageAttribute returns this for another account's image.
        return Err(Refusal::new(
            "AuthFailure",
            format!("Not authorized for snapshot:{id}"),
        ));
    }
    let write: fn(&mut Xml, &Snapshot) = match attribute {
        "productCodes" => |xml, snapshot| write_product_codes(xml, &snapshot.product_codes),
        "createVolumePermission" => write_permissions,
        other => {
            return Err(Refusal::invalid(format!(
                "Value ({other}) for parameter attribute is invalid. Unknown attribute."
            )));
        }
    };
    Ok(Xml::fragment(|xml| {
        xml.text("snapshotId", id);
        write(xml, snapshot);
    }))
}

fn write_permissions(xml: &mut Xml, snapshot: &Snapshot) {
    let everybody = snapshot.public.then_some(("group", "all"));
    let accounts = snapshot.shared_with.iter();
    let permissions = everybody
        .into_iter()
        .chain(accounts.map(|account| ("userId", account.as_str())));
    xml.list("createVolumePermission", permissions, |xml, (kind, who)| {
        xml.text(kind, who);
    });
}

fn values<'w>(snapshot: &'w Snapshot, account: &str, filter: &str) -> Option<Values<'w>> {
    Some(vec![match filter {
        "snapshot-id" => Cow::from(&snapshot.id),
        "volume-id" => Cow::from(&snapshot.volume_id),
        "owner-id" => Cow::from(&snapshot.owner),
        "status" => Cow::from(&snapshot.state),
        "description" => Cow::from(&snapshot.description),
        "volume-size" => snapshot.volume_size.to_string().into(),
        "encrypted" => snapshot.is_encrypted().to_string().into(),
        "start-time" => timestamp(snapshot.start_time).into(),
        other => return tag_values(snapshot.tags_seen_by(account), other),
    }])
}

fn write(xml: &mut Xml, snapshot: &Snapshot, account: &str) {
    xml.text("snapshotId", &snapshot.id);
    xml.text("volumeId", &snapshot.volume_id);
    xml.text("status", &snapshot.state);
    xml.text("startTime", timestamp(snapshot.start_time));
    let completed = snapshot.state == "completed";
    xml.text("progress", if completed { "100%" } else { "0%" });
    xml.text("ownerId", &snapshot.owner);
    xml.text("volumeSize", snapshot.volume_size);
    xml.text("description", &snapshot.description);
    xml.text("encrypted", snapshot.is_encrypted());
    xml.optional("kmsKeyId", snapshot.kms_key_id.as_ref());
    let tier = if snapshot.archived {
        "archive"
    } else {
        "standard"
    };
    xml.text("storageTier", tier);
    xml.optional("completionTime", snapshot.completion_time.map(timestamp));
    xml.optional("outpostArn", snapshot.outpost_arn.as_ref());
    tags::write(xml, snapshot.tags_seen_by(account));
}

#[cfg(test)]
mod tests {
    use super::super::testing::{act, texts};
    use super::*;
    use crate::world::{AttachedVolume, Instance, SnapshotBilling};

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
    fn a_snapshot_has_the_product_codes_of_its_volume() {
        let mut world = world_with_windows_instance();
        let instance = world.instances.get_mut(INSTANCE).unwrap();
        instance.product_codes = vec!["code".into()];
        let root = snapshot_of(&mut world, ROOT);
        assert_eq!(root.product_codes, ["code"]);
        assert!(snapshot_of(&mut world, SECOND).product_codes.is_empty());
        let made = act(
            &mut world,
            "CreateVolume",
            &[("AvailabilityZone", "eu-west-1a"), ("SnapshotId", &root.id)],
        )
        .unwrap();
        let copy = snapshot_of(&mut world, &texts(&made, "volumeId")[0]);
        assert_eq!(copy.product_codes, ["code"]);
    }

    const FOREIGN: &str = "snap-00000000000000f03";

    fn world_with_shared_snapshot() -> World {
        let mut world = World::example();
        world.add_snapshot(Snapshot {
            owner: "210987654321".into(),
            shared_with: [world.account.clone()].into(),
            tags: [("theirs".into(), "x".into())].into(),
            ..Snapshot::new(FOREIGN)
        });
        world
    }

    #[test]
    fn a_shared_snapshot_is_visible_but_not_its_owners_tags() {
        let mut world = world_with_shared_snapshot();
        let by_id = [("SnapshotId.1", FOREIGN)];
        let answer = act(&mut world, "DescribeSnapshots", &by_id).unwrap();
        assert_eq!(texts(&answer, "ownerId"), ["210987654321"]);
        assert!(!answer.contains("tagSet"));
        let tag = [("ResourceId.1", FOREIGN), ("Tag.1.Key", "ours")];
        act(&mut world, "CreateTags", &tag).unwrap();
        let answer = act(&mut world, "DescribeSnapshots", &by_id).unwrap();
        assert_eq!(texts(&answer, "key"), ["ours"]);
    }

    #[test]
    fn a_snapshot_tells_its_product_codes_and_who_may_use_it() {
        const OWN: &str = "snap-0000000000000a001";
        let mut world = World::example();
        let snapshot = world.snapshots.get_mut(OWN).unwrap();
        snapshot.product_codes = vec!["code".into()];
        snapshot.public = true;
        snapshot.shared_with.insert("210987654321".into());
        let mut ask = |attribute| {
            let parameters = [("SnapshotId", OWN), ("Attribute", attribute)];
            act(&mut world, "DescribeSnapshotAttribute", &parameters).unwrap()
        };
        let answer = ask("productCodes");
        assert_eq!(texts(&answer, "snapshotId"), [OWN]);
        assert_eq!(texts(&answer, "productCode"), ["code"]);
        assert_eq!(texts(&answer, "type"), ["marketplace"]);
        assert!(!answer.contains("createVolumePermission"));
        let answer = ask("createVolumePermission");
        assert_eq!(texts(&answer, "group"), ["all"]);
        assert_eq!(texts(&answer, "userId"), ["210987654321"]);
        assert!(!answer.contains("productCodes"));
    }

    #[test]
    fn wrong_questions_for_an_attribute_are_refused() {
        for (id, attribute, expected) in [
            (FOREIGN, "productCodes", "AuthFailure"),
            (
                "snap-0aaaaaaaaaaaaaaaa",
                "productCodes",
                "InvalidSnapshot.NotFound",
            ),
            ("snap-x", "productCodes", "InvalidSnapshotID.Malformed"),
            (
                "snap-0000000000000a001",
                "nonsense",
                "InvalidParameterValue",
            ),
        ] {
            let code = act(
                &mut world_with_shared_snapshot(),
                "DescribeSnapshotAttribute",
                &[("SnapshotId", id), ("Attribute", attribute)],
            );
            assert_eq!(code.unwrap_err(), expected, "{id} {attribute}");
        }
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
