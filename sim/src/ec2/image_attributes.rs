//! `DescribeImageAttribute` and `ModifyImageAttribute`, for attributes that `DescribeImages` does not show.

use super::elements::done;
use super::images::own_image;
use crate::form::Form;
use crate::refusal::Refusal;
use crate::world::{Image, World};
use crate::xml::Xml;

/// Returns one attribute. Only the image's owner may request it.
pub(super) fn describe(world: &mut World, form: &Form) -> Result<Xml, Refusal> {
    let attribute = form.required("Attribute")?;
    let image = own_image(world, form)?;
    let write: fn(&mut Xml, &Image) = match attribute {
        "launchPermission" => write_launch_permissions,
        "uefiData" => |xml, image| {
            xml.element("uefiData", |xml| {
                xml.optional("value", image.uefi_data.as_ref());
            });
        },
        other => {
            return Err(Refusal::invalid(format!(
                "Value ({other}) for parameter attribute is invalid, or not simulated."
            )));
        }
    };
    Ok(Xml::fragment(|xml| {
        xml.text("imageId", &image.id);
        write(xml, image);
    }))
}

fn write_launch_permissions(xml: &mut Xml, image: &Image) {
    let everybody = image.public.then_some(("group", "all"));
    let accounts = image.shared_with.iter().map(|account| ("userId", account));
    let organizations = image.shared_with_organizations.iter().map(|arn| {
        let kind = if arn.contains(":ou/") {
            "organizationalUnitArn"
        } else {
            "organizationArn"
        };
        (kind, arn)
    });
    let permissions = everybody.into_iter().chain(
        accounts
            .chain(organizations)
            .map(|(kind, who)| (kind, who.as_str())),
    );
    xml.list("launchPermission", permissions, |xml, (kind, who)| {
        xml.text(kind, who);
    });
}

/// Adds and removes launch permissions. No other attribute can be modified here.
pub(super) fn modify(world: &mut World, form: &Form) -> Result<Xml, Refusal> {
    let image = own_image(world, form)?;
    let changes = form.structure("LaunchPermission");
    let added = permissions(&changes.structures("Add"))?;
    let removed = permissions(&changes.structures("Remove"))?;
    if added.is_empty() && removed.is_empty() {
        return Err(Refusal::new(
            "InvalidParameterCombination",
            "No attributes specified, or none that is simulated.",
        ));
    }
    for permission in added {
        match permission {
            Permission::Everybody => image.public = true,
            Permission::Account(id) => {
                image.shared_with.insert(id);
            }
            Permission::Organization(arn) => {
                image.shared_with_organizations.insert(arn);
            }
        }
    }
    for permission in removed {
        match permission {
            Permission::Everybody => image.public = false,
            Permission::Account(id) => {
                image.shared_with.remove(&id);
            }
            Permission::Organization(arn) => {
                image.shared_with_organizations.remove(&arn);
            }
        }
    }
    Ok(done())
}

/// A launch permission.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Permission {
    Everybody,
    Account(String),
    Organization(String),
}

fn permissions(forms: &[Form]) -> Result<Vec<Permission>, Refusal> {
    forms.iter().map(permission).collect()
}

fn permission(form: &Form) -> Result<Permission, Refusal> {
    let wrong = |value: &str, item_type: &str| {
        Err(Refusal::new(
            "InvalidAMIAttributeItemValue",
            format!("Invalid attribute item value \"{value}\" for {item_type} item type."),
        ))
    };
    if let Some(group) = form.get("Group") {
        return match group {
            "all" => Ok(Permission::Everybody),
            other => wrong(other, "group"),
        };
    }
    if let Some(arn) = form
        .get("OrganizationArn")
        .or_else(|| form.get("OrganizationalUnitArn"))
    {
        return Ok(Permission::Organization(arn.to_owned()));
    }
    match form.required("UserId")? {
        id if id.len() == 12 && id.chars().all(|c| c.is_ascii_digit()) => {
            Ok(Permission::Account(id.to_owned()))
        }
        other => wrong(other, "userId"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{act, texts};
    use super::*;

    const IMAGE: &str = "ami-0123456789abcdef0";
    const FRIEND: &str = "210987654321";
    const ORGANIZATION: &str = "arn:aws:organizations::123456789012:organization/o-1";
    const UNIT: &str = "arn:aws:organizations::123456789012:ou/o-1/ou-1";

    fn shared() -> World {
        let mut world = World::default();
        world.add_image(Image {
            public: true,
            shared_with: [FRIEND.to_owned()].into(),
            shared_with_organizations: [ORGANIZATION.to_owned(), UNIT.to_owned()].into(),
            uefi_data: Some("QU1aTlVFRkk=".into()),
            ..Image::new(IMAGE)
        });
        world
    }

    fn attribute(world: &mut World, name: &str) -> Result<String, String> {
        let parameters = [("ImageId", IMAGE), ("Attribute", name)];
        act(world, "DescribeImageAttribute", &parameters)
    }

    #[test]
    fn launch_permissions_are_shown_by_kind() {
        let answer = attribute(&mut shared(), "launchPermission").unwrap();
        assert_eq!(texts(&answer, "imageId"), [IMAGE]);
        assert_eq!(texts(&answer, "group"), ["all"]);
        assert_eq!(texts(&answer, "userId"), [FRIEND]);
        assert_eq!(texts(&answer, "organizationArn"), [ORGANIZATION]);
        assert_eq!(texts(&answer, "organizationalUnitArn"), [UNIT]);
        assert!(answer.contains("<launchPermission><item><group>all</group></item><item>"));
    }

    #[test]
    fn an_image_without_permissions_or_uefi_data_has_empty_elements() {
        let mut world = World::default();
        world.add_image(Image::new(IMAGE));
        for (name, expected) in [
            ("launchPermission", "<launchPermission></launchPermission>"),
            ("uefiData", "<uefiData></uefiData>"),
        ] {
            assert!(attribute(&mut world, name).unwrap().ends_with(expected));
        }
        let answer = attribute(&mut shared(), "uefiData").unwrap();
        assert!(answer.ends_with("<uefiData><value>QU1aTlVFRkk=</value></uefiData>"));
    }

    #[test]
    fn only_the_owner_may_ask_and_only_for_what_there_is() {
        let mut foreign = shared();
        foreign.images.get_mut(IMAGE).unwrap().owner = FRIEND.into();
        let mut gone = shared();
        act(&mut gone, "DeregisterImage", &[("ImageId", IMAGE)]).unwrap();
        for (mut world, name, expected) in [
            (foreign, "launchPermission", "AuthFailure"),
            (gone, "launchPermission", "InvalidAMIID.Unavailable"),
            (
                World::default(),
                "launchPermission",
                "InvalidAMIID.NotFound",
            ),
            (shared(), "LaunchPermission", "InvalidParameterValue"),
        ] {
            assert_eq!(attribute(&mut world, name).unwrap_err(), expected);
        }
    }

    #[test]
    fn launch_permissions_are_added_and_removed() {
        let mut world = World::default();
        world.add_image(Image::new(IMAGE));
        let mut modify = |parameters: &[(&str, &str)]| {
            let mut all = vec![("ImageId", IMAGE)];
            all.extend(parameters);
            let result = act(&mut world, "ModifyImageAttribute", &all);
            result.map(|_| attribute(&mut world, "launchPermission").unwrap())
        };
        let answer = modify(&[
            ("LaunchPermission.Add.1.UserId", FRIEND),
            ("LaunchPermission.Add.2.Group", "all"),
            ("LaunchPermission.Add.3.OrganizationArn", ORGANIZATION),
        ])
        .unwrap();
        assert_eq!(texts(&answer, "userId"), [FRIEND]);
        assert_eq!(texts(&answer, "group"), ["all"]);
        let answer = modify(&[
            ("LaunchPermission.Remove.1.UserId", FRIEND),
            ("LaunchPermission.Remove.2.Group", "all"),
        ])
        .unwrap();
        assert!(texts(&answer, "userId").is_empty());
        assert!(texts(&answer, "group").is_empty());
        assert_eq!(texts(&answer, "organizationArn"), [ORGANIZATION]);
        for (parameters, expected) in [
            (vec![], "InvalidParameterCombination"),
            (
                vec![("LaunchPermission.Add.1.UserId", "me")],
                "InvalidAMIAttributeItemValue",
            ),
            (
                vec![("LaunchPermission.Add.1.Group", "some")],
                "InvalidAMIAttributeItemValue",
            ),
        ] {
            assert_eq!(modify(&parameters).unwrap_err(), expected);
        }
    }

    #[test]
    fn launch_permissions_that_disabling_took_away_do_not_come_back() {
        let mut world = shared();
        for action in ["DisableImage", "EnableImage"] {
            act(&mut world, action, &[("ImageId", IMAGE)]).unwrap();
            let answer = attribute(&mut world, "launchPermission").unwrap();
            assert!(answer.ends_with("<launchPermission></launchPermission>"));
        }
        assert_eq!(world.images[IMAGE].state, "available");
    }
}
