//! Reserved Instances.

use std::borrow::Cow;

use super::elements::timestamp;
use super::filters::{Filters, Values, optional, tag_values};
use super::tags;
use crate::form::Form;
use crate::refusal::Refusal;
use crate::world::{ReservedInstances, World};
use crate::xml::Xml;

/// Lists Reserved Instances without pages, as this action does. Prices and charges are not simulated. Neither are
/// `OfferingClass` and `OfferingType`, because all simulated ones are standard.
pub(super) fn describe(world: &mut World, form: &Form) -> Result<Xml, Refusal> {
    let ids = form.list("ReservedInstancesId");
    for id in &ids {
        if !world.reserved_instances.contains_key(*id) {
            return Err(Refusal::new(
                "InvalidReservedInstancesId",
                format!("The specified Reserved Instance '{id}' does not exist."),
            ));
        }
    }
    let nothing = ReservedInstances::new("", "", "");
    let filters = Filters::of(form, |name| values(&nothing, name).is_some())?;
    let found = world.reserved_instances.values().filter(|reserved| {
        (ids.is_empty() || ids.contains(&reserved.id.as_str()))
            && filters.admit(|name| values(reserved, name))
    });
    Ok(Xml::fragment(|xml| {
        xml.list("reservedInstancesSet", found, write);
    }))
}

fn scope(reserved: &ReservedInstances) -> &'static str {
    match reserved.availability_zone {
        Some(_) => "Availability Zone",
        None => "Region",
    }
}

/// The duration in seconds.
fn duration(reserved: &ReservedInstances) -> i64 {
    (reserved.end - reserved.start).num_seconds()
}

/// The values for a filter's name. It is not known whether in EC2 the value `Windows` finds `Windows (Amazon VPC)`.
/// Here it does not.
fn values<'w>(reserved: &'w ReservedInstances, filter: &str) -> Option<Values<'w>> {
    Some(vec![match filter {
        "availability-zone" => {
            return Some(optional(reserved.availability_zone.as_ref()));
        }
        "duration" => duration(reserved).to_string().into(),
        "end" => timestamp(reserved.end).into(),
        "instance-type" => Cow::from(&reserved.instance_type),
        "product-description" => Cow::from(&reserved.product_description),
        "reserved-instances-id" => Cow::from(&reserved.id),
        "scope" => scope(reserved).into(),
        "start" => timestamp(reserved.start).into(),
        "state" => Cow::from(&reserved.state),
        other => return tag_values(&reserved.tags, other),
    }])
}

fn write(xml: &mut Xml, reserved: &ReservedInstances) {
    xml.text("reservedInstancesId", &reserved.id);
    xml.text("instanceType", &reserved.instance_type);
    xml.optional("availabilityZone", reserved.availability_zone.as_ref());
    xml.text("start", timestamp(reserved.start));
    xml.text("end", timestamp(reserved.end));
    xml.text("duration", duration(reserved));
    xml.text("instanceCount", reserved.instance_count);
    xml.text("productDescription", &reserved.product_description);
    xml.text("state", &reserved.state);
    xml.text("scope", scope(reserved));
    xml.text("instanceTenancy", "default");
    xml.text("currencyCode", "USD");
    xml.text("offeringClass", "standard");
    tags::write(xml, &reserved.tags);
}

#[cfg(test)]
mod tests {
    use super::super::testing::{act, texts};
    use super::*;

    const REGIONAL: &str = "11111111-1111-4111-8111-111111111111";
    const ZONAL: &str = "22222222-2222-4222-8222-222222222222";

    fn world() -> World {
        let mut world = World::default();
        world.add_reserved_instances(ReservedInstances {
            instance_count: 3,
            tags: [("Team".into(), "images".into())].into(),
            ..ReservedInstances::new(REGIONAL, "m5.large", "Windows (Amazon VPC)")
        });
        world.add_reserved_instances(ReservedInstances {
            availability_zone: Some("eu-west-1a".into()),
            state: "retired".into(),
            ..ReservedInstances::new(ZONAL, "c5.large", "Linux/UNIX")
        });
        world
    }

    #[test]
    fn reserved_instances_tell_for_which_platform_and_where_they_are() {
        let by_id = [("ReservedInstancesId.1", REGIONAL)];
        let answer = act(&mut world(), "DescribeReservedInstances", &by_id).unwrap();
        for (element, expected) in [
            ("instanceType", "m5.large"),
            ("instanceCount", "3"),
            ("productDescription", "Windows (Amazon VPC)"),
            ("state", "active"),
            ("scope", "Region"),
            ("duration", "31536000"),
        ] {
            assert_eq!(texts(&answer, element), [expected], "{element}");
        }
        let all = act(&mut world(), "DescribeReservedInstances", &[]).unwrap();
        assert_eq!(texts(&all, "reservedInstancesId"), [REGIONAL, ZONAL]);
        assert_eq!(texts(&all, "availabilityZone"), ["eu-west-1a"]);
    }

    #[test]
    fn reserved_instances_are_found_by_filters() {
        for (filter, value, expected) in [
            ("state", "active", REGIONAL),
            ("product-description", "Windows*", REGIONAL),
            ("product-description", "Linux/UNIX", ZONAL),
            ("scope", "Availability Zone", ZONAL),
            ("availability-zone", "eu-west-1a", ZONAL),
            ("instance-type", "m5.*", REGIONAL),
            ("tag:Team", "images", REGIONAL),
        ] {
            let filter = [("Filter.1.Name", filter), ("Filter.1.Value.1", value)];
            let answer = act(&mut world(), "DescribeReservedInstances", &filter).unwrap();
            assert_eq!(texts(&answer, "reservedInstancesId"), [expected]);
        }
    }

    #[test]
    fn wrong_questions_for_reserved_instances_are_refused() {
        for (parameter, expected) in [
            (
                (
                    "ReservedInstancesId.1",
                    "33333333-3333-4333-8333-333333333333",
                ),
                "InvalidReservedInstancesId",
            ),
            (("Filter.1.Name", "platform"), "InvalidParameterValue"),
        ] {
            let code = act(&mut world(), "DescribeReservedInstances", &[parameter]);
            assert_eq!(code.unwrap_err(), expected);
        }
    }
}
