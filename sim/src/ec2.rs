//! EC2: checks a call, passes it to its action, and writes the answer.

mod elements;
mod filters;
mod ids;
mod image_attributes;
mod images;
mod instances;
mod page;
mod regions;
mod reserved_instances;
mod snapshots;
mod tags;
mod volumes;

use tokio::time::Instant;

use crate::form::Form;
use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::world::{World, only_reads};
use crate::xml::Xml;
use filters::REFERENCES;
pub(crate) use page::EMPTY_PAGE;

/// The API version in every request.
const VERSION: &str = "2016-11-15";

const NAMESPACE: &str = "http://ec2.amazonaws.com/doc/2016-11-15/";

pub(crate) fn call(world: &mut World, action: &str, form: &Form) -> Result<Xml, Refusal> {
    let act: fn(&mut World, &Form) -> Result<Xml, Refusal> = match action {
        "RegisterImage" => images::register,
        "DescribeImages" => images::describe,
        "DeregisterImage" => images::deregister,
        "DisableImage" => images::disable,
        "EnableImage" => images::enable,
        "ListImagesInRecycleBin" => images::list_in_recycle_bin,
        "RestoreImageFromRecycleBin" => images::restore_from_recycle_bin,
        "DescribeImageAttribute" => image_attributes::describe,
        "ModifyImageAttribute" => image_attributes::modify,
        "DescribeImageReferences" => instances::describe_image_references,
        "DescribeInstances" => instances::describe,
        "DescribeRegions" => regions::describe,
        "DescribeReservedInstances" => reserved_instances::describe,
        "CreateVolume" => volumes::create,
        "DescribeVolumes" => volumes::describe,
        "CreateSnapshot" => snapshots::create,
        "DescribeSnapshots" => snapshots::describe,
        "DescribeSnapshotAttribute" => snapshots::describe_attribute,
        "CreateTags" => tags::create,
        "DeleteTags" => tags::delete,
        _ => return Err(Refusal::unknown_action(action)),
    };
    if form.required("Version")? != VERSION {
        return Err(Refusal::new(
            "NoSuchVersion",
            "The requested version of service AmazonEC2 is not valid.",
        ));
    }
    if !world.throttling.admit(action, form, Instant::now()) {
        return Err(throttled());
    }
    if form.flag("DryRun")? {
        return Err(Refusal::new(
            "DryRunOperation",
            "Request would have succeeded, but DryRun flag is set.",
        )
        .with_status(412));
    }
    if changes(action) {
        world.forget_index();
    }
    act(world, form)
}

/// Whether an action may change which resources exist and what they refer to.
fn changes(action: &str) -> bool {
    !only_reads(action) && !matches!(action, "CreateTags" | "DeleteTags")
}

/// Prepares a call: builds the index, if there is none, for a request about the references to many resources.
pub(crate) fn prepare(world: &mut World, action: &str, form: &Form) {
    // For references to a single resource, a full scan costs less than an index.
    let by_many_references = || {
        let filters = form.structures("Filter");
        form.get("VolumeId.2").is_some()
            || filters.iter().any(|filter| {
                let by_reference = |name| REFERENCES.contains(&name);
                filter.get("Name").is_some_and(by_reference) && filter.get("Value.2").is_some()
            })
    };
    if !changes(action) && !world.index.is_made() && by_many_references() {
        world.make_index();
    }
}

pub(crate) fn reply(action: &str, request_id: &str, result: Result<Xml, Refusal>) -> Reply {
    match result {
        Ok(content) => Reply::xml(
            200,
            Xml::document(&format!("{action}Response"), Some(NAMESPACE), |xml| {
                xml.text("requestId", request_id);
                xml.include(&content);
            }),
        ),
        Err(refusal) => refused(&refusal, request_id),
    }
}

/// The error document of EC2.
pub(crate) fn refused(refusal: &Refusal, request_id: &str) -> Reply {
    Reply::xml(
        refusal.status,
        Xml::document("Response", None, |xml| {
            xml.element("Errors", |xml| {
                xml.element("Error", |xml| {
                    xml.text("Code", &refusal.code);
                    xml.text("Message", &refusal.message);
                });
            });
            xml.text("RequestID", request_id);
        }),
    )
}

/// Too many requests.
pub(crate) fn throttled() -> Refusal {
    Refusal::new("RequestLimitExceeded", "Request limit exceeded.").with_status(503)
}

/// `UnauthorizedOperation`, in IAM's wording for an identity without the permission. As in AWS, the message names the
/// resource only where the permission can be limited to one. Among the actions that describe, these are only
/// `DescribeImageAttribute` and `DescribeSnapshotAttribute`.
pub(crate) fn denied(world: &World, action: &str, form: &Form) -> Refusal {
    let World {
        account, region, ..
    } = world;
    let id = ["ImageId", "VolumeId", "ResourceId.1", "SnapshotId"]
        .iter()
        // The permission for CreateVolume is for the volume to be created.
        .filter(|_| action != "CreateVolume")
        .find_map(|name| form.get(name));
    let on = match id.and_then(|id| id.split_once('-').map(|(kind, _)| (kind, id))) {
        Some(("ami", id)) => format!(" on resource: arn:aws:ec2:{region}::image/{id}"),
        Some(("snap", id)) => format!(" on resource: arn:aws:ec2:{region}::snapshot/{id}"),
        Some(("vol", id)) => format!(" on resource: arn:aws:ec2:{region}:{account}:volume/{id}"),
        Some(("i", id)) => format!(" on resource: arn:aws:ec2:{region}:{account}:instance/{id}"),
        _ if action == "RegisterImage" => {
            format!(" on resource: arn:aws:ec2:{region}::image/*")
        }
        _ if action == "CreateVolume" => {
            format!(" on resource: arn:aws:ec2:{region}:{account}:volume/*")
        }
        _ => String::new(),
    };
    Refusal::new(
        "UnauthorizedOperation",
        format!(
            "You are not authorized to perform this operation. User: \
             {} is not authorized to perform: ec2:{action}{on} because no identity-based policy \
             allows the ec2:{action} action",
            world.caller_arn()
        ),
    )
    .with_status(403)
}

/// Shared helpers for the unit tests of the actions.
#[cfg(test)]
mod testing {
    use std::collections::BTreeMap;

    use super::*;

    /// Makes a call like a request. Returns the content of the answer, or the error code.
    pub(super) fn act(
        world: &mut World,
        action: &str,
        parameters: &[(&str, &str)],
    ) -> Result<String, String> {
        let mut params: BTreeMap<String, String> = parameters
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect();
        params.insert("Version".into(), VERSION.into());
        call(world, action, &Form::new(&params))
            .map(|xml| xml.as_str().to_owned())
            .map_err(|refusal| refusal.code)
    }

    /// The texts of all elements with this name.
    pub(super) fn texts(answer: &str, element: &str) -> Vec<String> {
        answer
            .split(&format!("<{element}>"))
            .skip(1)
            .filter_map(|rest| rest.split('<').next())
            .map(str::to_owned)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::world::{AttachedVolume, Image, Instance, Snapshot, Volume};

    #[test]
    fn an_index_changes_no_answer_and_is_forgotten_with_every_change() {
        let [one, other] = ["0123456789abcdef0", "0123456789abcdef1"];
        let mut world = World::default();
        for digits in [one, other] {
            world.add_image(Image::new(format!("ami-{digits}")));
            world.add_snapshot(Snapshot {
                volume_id: format!("vol-{digits}"),
                ..Snapshot::new(format!("snap-{digits}"))
            });
            world.add_volume(Volume {
                snapshot_id: Some(format!("snap-{digits}")),
                ..Volume::new(format!("vol-{digits}"))
            });
            world.add_instance(Instance {
                volumes: vec![AttachedVolume::new("/dev/xvda", format!("vol-{digits}"))],
                ..Instance::new(format!("i-{digits}"), format!("ami-{digits}"))
            });
        }
        // Only its attachment describes this volume.
        world.volumes.remove(&format!("vol-{other}"));
        let attached = world.instances.get_mut(&format!("i-{other}")).unwrap();
        attached.volumes[0].snapshot_id = Some(format!("snap-{other}"));

        for (action, filter, prefix, element) in [
            ("DescribeImages", "image-id", "ami", "imageId"),
            (
                "DescribeImages",
                "block-device-mapping.snapshot-id",
                "snap",
                "imageId",
            ),
            ("DescribeSnapshots", "snapshot-id", "snap", "snapshotId"),
            ("DescribeSnapshots", "volume-id", "vol", "snapshotId"),
            ("DescribeVolumes", "volume-id", "vol", "availabilityZone"),
            ("DescribeVolumes", "snapshot-id", "snap", "availabilityZone"),
            (
                "DescribeVolumes",
                "attachment.instance-id",
                "i",
                "availabilityZone",
            ),
            ("DescribeInstances", "image-id", "ami", "instanceId"),
            (
                "DescribeInstances",
                "block-device-mapping.volume-id",
                "vol",
                "instanceId",
            ),
        ] {
            for (asked, expected) in [([one, other], 2), ([other, "1123456789abcdef2"], 1)] {
                let [first, second] = asked.map(|digits| format!("{prefix}-{digits}"));
                let parameters = [
                    ("Version", VERSION),
                    ("Filter.1.Name", filter),
                    ("Filter.1.Value.1", &first),
                    ("Filter.1.Value.2", &second),
                ];
                world.forget_index();
                let walked = testing::act(&mut world, action, &parameters).unwrap();
                let params = parameters.map(|(key, value)| (key.to_owned(), value.to_owned()));
                prepare(&mut world, action, &Form::new(&params.into()));
                assert!(world.index.is_made());
                let looked_up = testing::act(&mut world, action, &parameters).unwrap();
                assert_eq!(looked_up, walked, "{action} {filter}");
                assert_eq!(
                    testing::texts(&walked, element).len(),
                    expected,
                    "{action} {filter}"
                );
            }
        }
        let volume = [("AvailabilityZone", "eu-west-1a"), ("Size", "1")];
        testing::act(&mut world, "CreateVolume", &volume).unwrap();
        assert!(!world.index.is_made());
    }

    #[test]
    fn a_dry_run_changes_nothing() {
        let mut world = World::example();
        let code = testing::act(
            &mut world,
            "CreateSnapshot",
            &[("VolumeId", "vol-0000000000000b001"), ("DryRun", "true")],
        );
        assert_eq!(code.unwrap_err(), "DryRunOperation");
        assert_eq!(world.snapshots.len(), 4);
    }

    #[test]
    fn another_action_or_version_is_refused() {
        let mut world = World::default();
        assert_eq!(
            testing::act(&mut world, "RunInstances", &[]).unwrap_err(),
            "InvalidAction"
        );
        let params = BTreeMap::from([("Version".to_owned(), "2006-06-26".to_owned())]);
        let refusal = call(&mut world, "DescribeImages", &Form::new(&params)).unwrap_err();
        assert_eq!(refusal.code, "NoSuchVersion");
    }

    #[test]
    fn a_denial_names_the_resource_only_where_permissions_can_name_it() {
        let world = World::default();
        let params = BTreeMap::from([("ImageId".to_owned(), "ami-0123456789abcdef0".to_owned())]);
        let refusal = denied(&world, "DeregisterImage", &Form::new(&params));
        assert_eq!(refusal.status, 403);
        assert!(refusal.message.contains(
            "ec2:DeregisterImage on resource: arn:aws:ec2:eu-west-1::image/ami-0123456789abcdef0 because"
        ));
        let params = BTreeMap::from([("ImageId.1".to_owned(), "ami-12345678".to_owned())]);
        let refusal = denied(&world, "DescribeImages", &Form::new(&params));
        assert!(!refusal.message.contains("on resource"));
        let params = BTreeMap::from([("SnapshotId".to_owned(), "snap-12345678".to_owned())]);
        for (action, resource) in [
            (
                "DescribeSnapshotAttribute",
                "arn:aws:ec2:eu-west-1::snapshot/snap-12345678",
            ),
            (
                "CreateVolume",
                "arn:aws:ec2:eu-west-1:123456789012:volume/*",
            ),
        ] {
            let refusal = denied(&world, action, &Form::new(&params));
            assert!(refusal.message.contains(&format!("{resource} because")));
        }
    }
}
