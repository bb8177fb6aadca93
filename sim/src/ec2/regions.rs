//! Regions.

use std::borrow::Cow;

use super::filters::{Filters, Values};
use crate::form::Form;
use crate::refusal::Refusal;
use crate::world::{Region, World};
use crate::xml::Xml;

/// Lists the Regions that the account can use. With `AllRegions` or by name, lists others, too.
pub(super) fn describe(world: &mut World, form: &Form) -> Result<Xml, Refusal> {
    let names = form.list("RegionName");
    let unknown: Vec<&str> = names
        .iter()
        .copied()
        .filter(|name| world.regions.iter().all(|region| region.name != *name))
        .collect();
    if !unknown.is_empty() {
        return Err(Refusal::invalid(format!(
            "Invalid region: [{}]",
            unknown.join(", ")
        )));
    }
    let all = form.flag("AllRegions")?;
    let nothing = Region::new("", "");
    let filters = Filters::of(form, |name| values(&nothing, name).is_some())?;
    let found = world.regions.iter().filter(|region| {
        let asked_for = if names.is_empty() {
            all || region.is_enabled()
        } else {
            names.contains(&region.name.as_str())
        };
        asked_for && filters.admit(|name| values(region, name))
    });
    Ok(Xml::fragment(|xml| {
        xml.list("regionInfo", found, |xml, region| {
            xml.text("regionName", &region.name);
            xml.text("regionEndpoint", endpoint(region));
            xml.text("optInStatus", &region.opt_in_status);
        });
    }))
}

fn endpoint(region: &Region) -> String {
    format!("ec2.{}.amazonaws.com", region.name)
}

/// The values for a filter's name. The names are those of the API reference of `DescribeRegions`.
fn values<'w>(region: &'w Region, filter: &str) -> Option<Values<'w>> {
    Some(vec![match filter {
        "endpoint" => endpoint(region).into(),
        "opt-in-status" => Cow::from(&region.opt_in_status),
        "region-name" => Cow::from(&region.name),
        _ => return None,
    }])
}

#[cfg(test)]
mod tests {
    use super::super::testing::{act, texts};
    use super::*;

    fn names(parameters: &[(&str, &str)]) -> Result<Vec<String>, String> {
        act(&mut World::default(), "DescribeRegions", parameters)
            .map(|answer| texts(&answer, "regionName"))
    }

    #[test]
    fn only_the_regions_of_the_account_are_told_unless_all_are_asked_for() {
        let enabled = ["eu-west-1", "us-east-1", "eu-south-1"];
        assert_eq!(names(&[]).unwrap(), enabled);
        assert_eq!(names(&[("AllRegions", "true")]).unwrap().len(), 4);
        assert_eq!(names(&[("RegionName.1", "ap-east-1")]).unwrap().len(), 1);
        let answer = act(&mut World::default(), "DescribeRegions", &[]).unwrap();
        let statuses = ["opt-in-not-required", "opt-in-not-required", "opted-in"];
        assert_eq!(texts(&answer, "optInStatus"), statuses);
        assert_eq!(
            texts(&answer, "regionEndpoint")[0],
            "ec2.eu-west-1.amazonaws.com"
        );
    }

    #[test]
    fn regions_are_found_by_filters() {
        for (filter, value, expected) in [
            ("opt-in-status", "not-opted-in", vec!["ap-east-1"]),
            ("region-name", "eu-*", vec!["eu-west-1", "eu-south-1"]),
            ("endpoint", "ec2.us-east-1.*", vec!["us-east-1"]),
        ] {
            let filter = [
                ("AllRegions", "true"),
                ("Filter.1.Name", filter),
                ("Filter.1.Value.1", value),
            ];
            assert_eq!(names(&filter).unwrap(), expected);
        }
        for wrong in [("Filter.1.Name", "state"), ("RegionName.1", "eu-west-9")] {
            assert_eq!(names(&[wrong]).unwrap_err(), "InvalidParameterValue");
        }
    }
}
