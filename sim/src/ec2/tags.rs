//! `CreateTags`, `DeleteTags`, and tags set while a resource is created.

use super::elements::done;
use super::ids::{check_id, image_not_found, instance_not_found, snapshot_not_found};
use crate::form::Form;
use crate::refusal::Refusal;
use crate::world::{Tags, World};
use crate::xml::Xml;

/// "Each resource can have a maximum of 50 tags". Tags of AWS itself do not count.
const MOST_TAGS: usize = 50;

pub(super) fn create(world: &mut World, form: &Form) -> Result<Xml, Refusal> {
    let tags = tags_in(form)?;
    if tags.is_empty() {
        form.required("Tag.1.Key")?;
    }
    // All resources are checked before the first is changed, because the call is atomic.
    let resources = resources(form)?;
    for id in &resources {
        let mut result = tags_of(world, id)?.clone();
        result.extend(tags.clone());
        check_number(&result)?;
    }
    for id in &resources {
        tags_of(world, id)?.extend(tags.clone());
    }
    Ok(done())
}

/// Deletes tags. Without tags in the request, deletes all except those of AWS itself. A tag with a value in the request
/// is deleted only if it has that value.
pub(super) fn delete(world: &mut World, form: &Form) -> Result<Xml, Refusal> {
    let wanted = form
        .structures("Tag")
        .iter()
        .map(|tag| Ok((tag.required("Key")?, tag.get("Value"))))
        .collect::<Result<Vec<_>, Refusal>>()?;
    for (key, _) in &wanted {
        check_key(key)?;
    }
    let resources = resources(form)?;
    for id in &resources {
        tags_of(world, id)?;
    }
    for id in &resources {
        tags_of(world, id)?.retain(|key, value| {
            let named = wanted.is_empty()
                || wanted
                    .iter()
                    .any(|(k, v)| k == key && v.is_none_or(|v| v == value));
            !named || is_reserved(key)
        });
    }
    Ok(done())
}

/// The tags of `TagSpecification.N`. A specification for another resource type makes the call fail (API reference of
/// `RegisterImage`).
pub(super) fn specified(form: &Form, resource_type: &str) -> Result<Tags, Refusal> {
    let mut tags = Tags::new();
    for specification in form.structures("TagSpecification") {
        let given = specification.required("ResourceType")?;
        if given != resource_type {
            return Err(Refusal::invalid(format!(
                "'{given}' is not a valid taggable resource type for this operation."
            )));
        }
        tags.extend(tags_in(&specification)?);
    }
    check_number(&tags)?;
    Ok(tags)
}

/// Writes `tagSet`, which EC2 omits if there are no tags.
pub(super) fn write(xml: &mut Xml, tags: &Tags) {
    if tags.is_empty() {
        return;
    }
    xml.list("tagSet", tags, |xml, (key, value)| {
        xml.text("key", key);
        xml.text("value", value);
    });
}

fn resources<'a>(form: &Form<'a>) -> Result<Vec<&'a str>, Refusal> {
    let resources = form.list("ResourceId");
    if resources.is_empty() {
        form.required("ResourceId.1")?;
    }
    Ok(resources)
}

fn tags_in(form: &Form) -> Result<Tags, Refusal> {
    let mut tags = Tags::new();
    for tag in form.structures("Tag") {
        let key = tag.required("Key")?;
        let value = tag.get("Value").unwrap_or_default();
        check_key(key)?;
        if value.chars().count() > 256 {
            return Err(Refusal::invalid(
                "Tag value exceeds the maximum length of 256 characters",
            ));
        }
        if tags.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(Refusal::invalid(format!(
                "Duplicate tag key '{key}' specified."
            )));
        }
    }
    Ok(tags)
}

fn check_key(key: &str) -> Result<(), Refusal> {
    if key.is_empty() {
        return Err(Refusal::invalid("Tag keys must not be empty"));
    }
    if key.chars().count() > 127 {
        return Err(Refusal::invalid(
            "Tag key exceeds the maximum length of 127 characters",
        ));
    }
    if is_reserved(key) {
        return Err(Refusal::invalid(format!(
            "Value ( {key} ) for parameter key is invalid. \
             Tag keys starting with 'aws:' are reserved for internal use"
        )));
    }
    Ok(())
}

fn is_reserved(key: &str) -> bool {
    key.starts_with("aws:")
}

fn check_number(tags: &Tags) -> Result<(), Refusal> {
    if tags.keys().filter(|key| !is_reserved(key)).count() > MOST_TAGS {
        return Err(Refusal::new(
            "TagLimitExceeded",
            "The maximum number of Tags for a resource has been reached.",
        ));
    }
    Ok(())
}

/// The tags that the account may change on a resource: its own tags, even on another account's resource.
fn tags_of<'w>(world: &'w mut World, id: &str) -> Result<&'w mut Tags, Refusal> {
    let account = world.account.clone();
    match id.split_once('-') {
        Some(("ami", _)) => {
            check_id(id, "ami", "AMIID")?;
            world
                .images
                .get_mut(id)
                .filter(|image| image.visible_to(&account))
                .map(|image| image.tags_set_by(&account))
                .ok_or_else(|| image_not_found(&[id]))
        }
        Some(("snap", _)) => {
            check_id(id, "snap", "SnapshotID")?;
            world
                .snapshots
                .get_mut(id)
                .filter(|snapshot| snapshot.visible_to(&account))
                .map(|snapshot| snapshot.tags_set_by(&account))
                .ok_or_else(|| snapshot_not_found(id))
        }
        Some(("i", _)) => {
            check_id(id, "i", "InstanceID")?;
            world
                .instances
                .get_mut(id)
                .filter(|instance| instance.owner == account)
                .map(|instance| &mut instance.tags)
                .ok_or_else(|| instance_not_found(id))
        }
        _ => Err(Refusal::new(
            "InvalidID",
            format!("The ID '{id}' is not valid"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::act;
    use super::*;
    use crate::world::{Image, Instance, Snapshot};

    const IMAGE: &str = "ami-0123456789abcdef0";
    const SNAPSHOT: &str = "snap-0123456789abcdef0";
    const INSTANCE: &str = "i-0123456789abcdef0";

    fn world() -> World {
        let mut world = World::default();
        world.add_image(Image::new(IMAGE));
        world.add_snapshot(Snapshot::new(SNAPSHOT));
        world.add_instance(Instance::new(INSTANCE, IMAGE));
        world
    }

    #[test]
    fn tags_are_set_overwritten_and_deleted_on_all_named_resources() {
        let mut world = world();
        for value in ["first", "second"] {
            act(
                &mut world,
                "CreateTags",
                &[
                    ("ResourceId.1", IMAGE),
                    ("ResourceId.2", SNAPSHOT),
                    ("ResourceId.3", INSTANCE),
                    ("Tag.1.Key", "key"),
                    ("Tag.1.Value", value),
                    ("Tag.2.Key", "empty"),
                ],
            )
            .unwrap();
        }
        let expected = Tags::from([("key".into(), "second".into()), ("empty".into(), "".into())]);
        assert_eq!(world.images[IMAGE].tags, expected);
        assert_eq!(world.snapshots[SNAPSHOT].tags, expected);
        assert_eq!(world.instances[INSTANCE].tags, expected);

        let delete = |world: &mut World, value: &str| {
            act(
                world,
                "DeleteTags",
                &[
                    ("ResourceId.1", IMAGE),
                    ("Tag.1.Key", "key"),
                    ("Tag.1.Value", value),
                ],
            )
            .unwrap();
        };
        delete(&mut world, "first");
        assert_eq!(world.images[IMAGE].tags, expected);
        delete(&mut world, "second");
        assert!(!world.images[IMAGE].tags.contains_key("key"));
    }

    #[test]
    fn deleting_without_naming_a_tag_leaves_only_those_of_aws() {
        let mut world = world();
        let tags = &mut world.images.get_mut(IMAGE).unwrap().tags;
        tags.insert("mine".into(), "x".into());
        tags.insert("aws:dlm:managed".into(), "x".into());
        act(&mut world, "DeleteTags", &[("ResourceId.1", IMAGE)]).unwrap();
        assert_eq!(
            world.images[IMAGE].tags.keys().collect::<Vec<_>>(),
            ["aws:dlm:managed"]
        );
    }

    #[test]
    fn the_fifty_first_tag_is_refused_but_overwriting_one_of_fifty_is_not() {
        let mut world = world();
        let tags = &mut world.images.get_mut(IMAGE).unwrap().tags;
        tags.extend((0..50).map(|n| (format!("key{n}"), String::new())));
        tags.insert("aws:not:counted".into(), String::new());
        let tag = |world: &mut World, key: &str| {
            act(
                world,
                "CreateTags",
                &[
                    ("ResourceId.1", SNAPSHOT),
                    ("ResourceId.2", IMAGE),
                    ("Tag.1.Key", key),
                ],
            )
        };
        assert!(tag(&mut world, "key7").is_ok());
        assert_eq!(tag(&mut world, "new").unwrap_err(), "TagLimitExceeded");
        assert!(!world.snapshots[SNAPSHOT].tags.contains_key("new"));
    }

    #[test]
    fn resources_and_tags_that_can_not_be_are_refused() {
        let long_key = "k".repeat(128);
        let long_value = "v".repeat(257);
        for (resource, key, value, expected) in [
            ("ami-0aaaaaaaaaaaaaaaa", "k", "v", "InvalidAMIID.NotFound"),
            ("ami-nonsense", "k", "v", "InvalidAMIID.Malformed"),
            (
                "snap-0aaaaaaaaaaaaaaaa",
                "k",
                "v",
                "InvalidSnapshot.NotFound",
            ),
            (
                "i-0aaaaaaaaaaaaaaaa",
                "k",
                "v",
                "InvalidInstanceID.NotFound",
            ),
            ("nonsense", "k", "v", "InvalidID"),
            (IMAGE, "aws:mine", "v", "InvalidParameterValue"),
            (IMAGE, "", "v", "InvalidParameterValue"),
            (IMAGE, &long_key, "v", "InvalidParameterValue"),
            (IMAGE, "k", &long_value, "InvalidParameterValue"),
        ] {
            let code = act(
                &mut world(),
                "CreateTags",
                &[
                    ("ResourceId.1", resource),
                    ("Tag.1.Key", key),
                    ("Tag.1.Value", value),
                ],
            );
            assert_eq!(code.unwrap_err(), expected, "{resource} {key}");
        }
        for incomplete in [("ResourceId.1", IMAGE), ("Tag.1.Key", "k")] {
            let code = act(&mut world(), "CreateTags", &[incomplete]);
            assert_eq!(code.unwrap_err(), "MissingParameter");
        }
        let twice = [
            ("ResourceId.1", IMAGE),
            ("Tag.1.Key", "k"),
            ("Tag.2.Key", "k"),
        ];
        assert_eq!(
            act(&mut world(), "CreateTags", &twice).unwrap_err(),
            "InvalidParameterValue"
        );
    }
}
