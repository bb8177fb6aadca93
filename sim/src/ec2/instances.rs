//! Instances, and other resources that refer to an image.

use std::borrow::Cow;

use super::elements::{timestamp, write_product_codes};
use super::filters::{Filters, Values, optional, tag_values};
use super::ids::{check_id, instance_not_found, named};
use super::page::Page;
use super::tags;
use crate::form::Form;
use crate::refusal::Refusal;
use crate::world::{AttachedVolume, Instance, Reference, World};
use crate::xml::Xml;

/// A page of either action has 5 to 1,000 items.
const PAGE: std::ops::RangeInclusive<usize> = 5..=1000;

/// Maximum number of ids for `DescribeImageReferences`.
const MOST_IMAGES: usize = 10;

/// The resource types that `DescribeImageReferences` supports.
const REFERENCING: [&str; 5] = [
    INSTANCE,
    "ec2:LaunchTemplate",
    "ssm:Parameter",
    "imagebuilder:ImageRecipe",
    "imagebuilder:ContainerRecipe",
];

const INSTANCE: &str = "ec2:Instance";

pub(super) fn describe(world: &mut World, form: &Form) -> Result<Xml, Refusal> {
    let ids = form.list("InstanceId");
    if !ids.is_empty() && form.get("MaxResults").is_some() {
        return Err(Refusal::new(
            "InvalidParameterCombination",
            "The parameter instancesSet cannot be used with the parameter maxResults",
        ));
    }
    for id in &ids {
        check_id(id, "i", "InstanceID")?;
        let instance = world.instances.get(*id);
        if !instance.is_some_and(|instance| is_own(world, instance)) {
            return Err(instance_not_found(id));
        }
    }
    let nothing = Instance::new("", "");
    let filters = Filters::of(form, |name| values(&nothing, name).is_some())?;
    let page = Page::of(form, PAGE)?;
    let named = named(&ids);
    let referring = ["block-device-mapping.volume-id", "image-id"]
        .iter()
        .find_map(|name| filters.referrers(world, name));
    let ids = named.as_ref().or_else(|| filters.ids("instance-id"));
    let ids = ids.or(referring.as_ref());
    let found = page
        .of_map(&world.instances, ids)
        .filter(|instance| is_own(world, instance) && filters.admit(|name| values(instance, name)));
    let (found, token) = page.cut(found, |instance| instance.id.clone());
    Ok(Xml::fragment(|xml| {
        xml.list("reservationSet", found, |xml, instance| {
            xml.text("reservationId", instance.id.replacen("i-", "r-", 1));
            xml.text("ownerId", &instance.owner);
            xml.list("instancesSet", [instance], write);
        });
        xml.optional("nextToken", token);
    }))
}

/// An account never sees another account's instances.
fn is_own(world: &World, instance: &Instance) -> bool {
    instance.owner == world.account
}

fn values<'w>(instance: &'w Instance, filter: &str) -> Option<Values<'w>> {
    let of_volumes = |value: fn(&AttachedVolume) -> &String| {
        let values = instance.attached().iter().map(value);
        values.map(Cow::from).collect()
    };
    Some(match filter {
        "instance-id" => vec![Cow::from(&instance.id)],
        "image-id" => vec![Cow::from(&instance.image_id)],
        "instance-state-name" => vec![Cow::from(&instance.state)],
        "instance-type" => vec![Cow::from(&instance.instance_type)],
        "architecture" => vec![Cow::from(&instance.architecture)],
        "owner-id" => vec![Cow::from(&instance.owner)],
        "platform" => optional(instance.platform.as_ref()),
        "platform-details" => optional(instance.platform_details.as_ref()),
        "usage-operation" => optional(instance.usage_operation.as_ref()),
        "product-code" => instance.product_codes.iter().map(Cow::from).collect(),
        "root-device-name" => optional(instance.root_device_name.as_ref()),
        "root-device-type" => vec!["ebs".into()],
        "block-device-mapping.volume-id" => of_volumes(|volume| &volume.volume_id),
        "block-device-mapping.device-name" => of_volumes(|volume| &volume.device_name),
        other => return tag_values(&instance.tags, other),
    })
}

fn write(xml: &mut Xml, instance: &Instance) {
    xml.text("instanceId", &instance.id);
    xml.text("imageId", &instance.image_id);
    xml.element("instanceState", |xml| {
        xml.text("code", state_code(&instance.state));
        xml.text("name", &instance.state);
    });
    xml.text("instanceType", &instance.instance_type);
    xml.text("launchTime", timestamp(instance.launch_time));
    xml.text("architecture", &instance.architecture);
    xml.optional("platform", instance.platform.as_ref());
    xml.optional("platformDetails", instance.platform_details.as_ref());
    xml.optional("usageOperation", instance.usage_operation.as_ref());
    let updated = instance.usage_operation_update_time;
    xml.text(
        "usageOperationUpdateTime",
        timestamp(updated.unwrap_or(instance.launch_time)),
    );
    xml.text("rootDeviceType", "ebs");
    xml.optional("rootDeviceName", instance.root_device_name.as_ref());
    xml.list("blockDeviceMapping", instance.attached(), |xml, volume| {
        xml.text("deviceName", &volume.device_name);
        xml.element("ebs", |xml| {
            xml.text("volumeId", &volume.volume_id);
            xml.text("status", "attached");
            xml.text("attachTime", timestamp(volume.attach_time));
            xml.text("deleteOnTermination", volume.delete_on_termination);
        });
    });
    write_product_codes(xml, &instance.product_codes);
    tags::write(xml, &instance.tags);
}

/// EC2's numbers for the states.
fn state_code(state: &str) -> u16 {
    match state {
        "running" => 16,
        "shutting-down" => 32,
        "terminated" => 48,
        "stopping" => 64,
        "stopped" => 80,
        _ => 0,
    }
}

pub(super) fn describe_image_references(world: &mut World, form: &Form) -> Result<Xml, Refusal> {
    let ids = form.list("ImageId");
    if ids.is_empty() {
        form.required("ImageId.1")?;
    }
    if ids.len() > MOST_IMAGES {
        return Err(Refusal::invalid(format!(
            "At most {MOST_IMAGES} images can be asked for."
        )));
    }
    for id in &ids {
        check_id(id, "ami", "AMIID")?;
    }
    let wanted = Wanted::of(form)?;
    let mut found: Vec<(&str, Reference)> = Vec::new();
    for id in ids {
        let instances = world
            .instances
            .values()
            .filter(|instance| instance.image_id == id && is_own(world, instance))
            .filter(|instance| wanted.has_state(&instance.state))
            .map(|instance| Reference {
                resource_type: INSTANCE.into(),
                arn: format!(
                    "arn:aws:ec2:{}:{}:instance/{}",
                    world.region, instance.owner, instance.id
                ),
            });
        let others = world.references.get(id).into_iter().flatten().cloned();
        found.extend(
            instances
                .chain(others)
                .filter(|reference| wanted.has_type(&reference.resource_type))
                .map(|reference| (id, reference)),
        );
    }
    let key = |(id, reference): &(&str, Reference)| format!("{id} {}", reference.arn);
    found.sort_by_key(key);
    let page = Page::of(form, PAGE)?;
    let after = page.after.as_deref().unwrap_or_default();
    let (found, token) = page.cut(
        found.into_iter().filter(|item| key(item).as_str() > after),
        key,
    );
    Ok(Xml::fragment(|xml| {
        xml.list("imageReferenceSet", found, |xml, (id, reference)| {
            xml.text("imageId", id);
            xml.text("resourceType", reference.resource_type);
            xml.text("arn", reference.arn);
        });
        xml.optional("nextToken", token);
    }))
}

/// The references that a `DescribeImageReferences` call requests.
#[derive(Debug)]
struct Wanted<'a> {
    all_types: bool,
    types: Vec<&'a str>,
    /// States of instances. Empty means all, including terminated instances while EC2 still shows them: "Default: All
    /// states" (API reference of `ResourceTypeOption`).
    states: Vec<&'a str>,
}

impl<'a> Wanted<'a> {
    fn of(form: &Form<'a>) -> Result<Wanted<'a>, Refusal> {
        let mut wanted = Wanted {
            all_types: form.flag("IncludeAllResourceTypes")?,
            types: Vec::new(),
            states: Vec::new(),
        };
        for requested in form.structures("ResourceType") {
            let name = requested.required("ResourceType")?;
            if !REFERENCING.contains(&name) {
                return Err(Refusal::invalid(format!(
                    "Value ({name}) for parameter resourceType is invalid."
                )));
            }
            wanted.types.push(name);
            for option in requested.structures("ResourceTypeOption") {
                match (name, option.required("OptionName")?) {
                    (INSTANCE, "state-name") => wanted.states.extend(option.list("OptionValue")),
                    // Versions of launch templates are not simulated.
                    ("ec2:LaunchTemplate", "version-depth") => {}
                    (_, other) => {
                        return Err(Refusal::invalid(format!(
                            "Value ({other}) for parameter optionName is invalid for {name}."
                        )));
                    }
                }
            }
        }
        if !wanted.all_types && wanted.types.is_empty() {
            return Err(Refusal::new(
                "MissingParameter",
                "Either IncludeAllResourceTypes or ResourceTypes must be specified.",
            ));
        }
        Ok(wanted)
    }

    fn has_type(&self, name: &str) -> bool {
        self.all_types || self.types.contains(&name)
    }

    fn has_state(&self, state: &str) -> bool {
        self.states.is_empty() || self.states.contains(&state)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{act, texts};
    use super::*;
    use crate::clock;

    const IMAGE: &str = "ami-0123456789abcdef0";

    fn world() -> World {
        let mut world = World::default();
        for number in 0..7 {
            world.add_instance(Instance {
                state: if number == 0 { "terminated" } else { "running" }.into(),
                volumes: vec![AttachedVolume::new(
                    "/dev/xvda",
                    format!("vol-0000000{number}"),
                )],
                ..Instance::new(format!("i-0000000{number}"), IMAGE)
            });
        }
        world.references.insert(
            IMAGE.into(),
            vec![Reference {
                resource_type: "ssm:Parameter".into(),
                arn: "arn:aws:ssm:eu-west-1:123456789012:parameter/golden".into(),
            }],
        );
        world
    }

    #[test]
    fn an_instance_is_found_by_id_and_by_its_volume() {
        let mut world = world();
        for parameters in [
            vec![("InstanceId.1", "i-00000003")],
            vec![
                ("Filter.1.Name", "block-device-mapping.volume-id"),
                ("Filter.1.Value.1", "vol-00000003"),
            ],
        ] {
            let answer = act(&mut world, "DescribeInstances", &parameters).unwrap();
            assert_eq!(texts(&answer, "instanceId"), ["i-00000003"]);
            assert_eq!(texts(&answer, "platformDetails"), ["Linux/UNIX"]);
            assert_eq!(texts(&answer, "volumeId"), ["vol-00000003"]);
        }
    }

    #[test]
    fn an_instance_tells_since_when_it_bills_so_and_its_product_codes() {
        let mut world = world();
        let instance = world.instances.get_mut("i-00000003").unwrap();
        instance.product_codes = vec!["code".into()];
        let launched = timestamp(instance.launch_time);
        let by_code = [
            ("Filter.1.Name", "product-code"),
            ("Filter.1.Value.1", "code"),
        ];
        let answer = act(&mut world, "DescribeInstances", &by_code).unwrap();
        assert_eq!(texts(&answer, "instanceId"), ["i-00000003"]);
        assert_eq!(texts(&answer, "productCode"), ["code"]);
        assert_eq!(texts(&answer, "usageOperationUpdateTime"), [launched]);
        let changed = clock::now();
        let instance = world.instances.get_mut("i-00000003").unwrap();
        instance.usage_operation_update_time = Some(changed);
        let answer = act(&mut world, "DescribeInstances", &by_code).unwrap();
        assert_eq!(
            texts(&answer, "usageOperationUpdateTime"),
            [timestamp(changed)]
        );
    }

    #[test]
    fn a_terminated_instance_is_shown_without_volumes() {
        let by_id = [("InstanceId.1", "i-00000000")];
        let answer = act(&mut world(), "DescribeInstances", &by_id).unwrap();
        assert_eq!(texts(&answer, "code"), ["48"]);
        assert_eq!(texts(&answer, "imageId"), [IMAGE]);
        assert_eq!(texts(&answer, "rootDeviceName"), ["/dev/xvda"]);
        assert!(texts(&answer, "volumeId").is_empty());
        let by_volume = [
            ("Filter.1.Name", "block-device-mapping.volume-id"),
            ("Filter.1.Value.1", "vol-00000000"),
        ];
        let answer = act(&mut world(), "DescribeInstances", &by_volume).unwrap();
        assert!(texts(&answer, "instanceId").is_empty());
    }

    #[test]
    fn another_accounts_instance_is_not_there() {
        let mut world = world();
        let instance = world.instances.get_mut("i-00000003").unwrap();
        instance.owner = "210987654321".into();
        let answer = act(&mut world, "DescribeInstances", &[]).unwrap();
        assert_eq!(texts(&answer, "instanceId").len(), 6);
        for (action, parameters, expected) in [
            (
                "DescribeInstances",
                vec![("InstanceId.1", "i-00000003")],
                "InvalidInstanceID.NotFound",
            ),
            (
                "CreateTags",
                vec![("ResourceId.1", "i-00000003"), ("Tag.1.Key", "k")],
                "InvalidInstanceID.NotFound",
            ),
        ] {
            assert_eq!(act(&mut world, action, &parameters).unwrap_err(), expected);
        }
        let references = act(
            &mut world,
            "DescribeImageReferences",
            &[("ImageId.1", IMAGE), ("IncludeAllResourceTypes", "true")],
        );
        assert_eq!(texts(&references.unwrap(), "arn").len(), 7);
    }

    #[test]
    fn instances_come_in_pages() {
        let mut world = world();
        let first = act(&mut world, "DescribeInstances", &[("MaxResults", "5")]).unwrap();
        assert_eq!(texts(&first, "instanceId").len(), 5);
        let token = texts(&first, "nextToken").remove(0);
        let second = act(
            &mut world,
            "DescribeInstances",
            &[("MaxResults", "5"), ("NextToken", &token)],
        )
        .unwrap();
        assert_eq!(texts(&second, "instanceId"), ["i-00000005", "i-00000006"]);
        assert!(texts(&second, "nextToken").is_empty());
    }

    #[test]
    fn wrong_questions_for_instances_are_refused() {
        for (parameters, expected) in [
            (vec![("InstanceId.1", "i-x")], "InvalidInstanceID.Malformed"),
            (
                vec![("InstanceId.1", "i-12345678")],
                "InvalidInstanceID.NotFound",
            ),
            (
                vec![("InstanceId.1", "i-00000003"), ("MaxResults", "5")],
                "InvalidParameterCombination",
            ),
        ] {
            assert_eq!(
                act(&mut world(), "DescribeInstances", &parameters).unwrap_err(),
                expected
            );
        }
    }

    #[test]
    fn instances_and_declared_references_refer_to_an_image() {
        let mut world = world();
        let mut references = |parameters: &[(&str, &str)]| {
            let mut all = vec![("ImageId.1", IMAGE)];
            all.extend(parameters);
            act(&mut world, "DescribeImageReferences", &all).map(|answer| texts(&answer, "arn"))
        };
        let parameter = "arn:aws:ssm:eu-west-1:123456789012:parameter/golden";
        let everything = ("IncludeAllResourceTypes", "true");
        // One of the seven instances is terminated.
        assert_eq!(references(&[everything]).unwrap().len(), 8);
        let of_running = [
            ("ResourceType.1.ResourceType", "ec2:Instance"),
            (
                "ResourceType.1.ResourceTypeOption.1.OptionName",
                "state-name",
            ),
            (
                "ResourceType.1.ResourceTypeOption.1.OptionValue.1",
                "pending",
            ),
            (
                "ResourceType.1.ResourceTypeOption.1.OptionValue.2",
                "running",
            ),
        ];
        assert_eq!(references(&of_running).unwrap().len(), 6);
        let overridden: Vec<_> = of_running.iter().copied().chain([everything]).collect();
        assert_eq!(references(&overridden).unwrap().len(), 7);
        assert_eq!(
            references(&[("ResourceType.1.ResourceType", "ssm:Parameter")]).unwrap(),
            [parameter]
        );
    }

    #[test]
    fn wrong_questions_for_references_are_refused() {
        let ids: Vec<(String, String)> = (0..11)
            .map(|number| {
                (
                    format!("ImageId.{number}"),
                    format!("ami-000000{number:02}"),
                )
            })
            .collect();
        let mut too_many: Vec<(&str, &str)> = vec![("IncludeAllResourceTypes", "true")];
        too_many.extend(ids.iter().map(|(key, id)| (key.as_str(), id.as_str())));
        for (parameters, expected) in [
            (vec![("ImageId.1", IMAGE)], "MissingParameter"),
            (
                vec![("IncludeAllResourceTypes", "true")],
                "MissingParameter",
            ),
            (
                vec![
                    ("ImageId.1", IMAGE),
                    ("ResourceType.1.ResourceType", "lambda:Function"),
                ],
                "InvalidParameterValue",
            ),
            (
                vec![
                    ("ImageId.1", IMAGE),
                    ("ResourceType.1.ResourceType", "ssm:Parameter"),
                    (
                        "ResourceType.1.ResourceTypeOption.1.OptionName",
                        "state-name",
                    ),
                ],
                "InvalidParameterValue",
            ),
            (too_many, "InvalidParameterValue"),
        ] {
            assert_eq!(
                act(&mut world(), "DescribeImageReferences", &parameters).unwrap_err(),
                expected
            );
        }
    }
}
