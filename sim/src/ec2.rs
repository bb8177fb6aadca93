//! The actions of EC2, and what they share: ids, filters, paging.

mod image_attributes;
mod images;
mod instances;
mod regions;
mod reserved_instances;
mod snapshots;
mod tags;
mod volumes;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use chrono::{DateTime, Utc};

use crate::form::Form;
use crate::refusal::Refusal;
use crate::server::Reply;
use crate::world::World;
use crate::xml::Xml;

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
    if form.flag("DryRun")? {
        return Err(Refusal::new(
            "DryRunOperation",
            "Request would have succeeded, but DryRun flag is set.",
        )
        .with_status(412));
    }
    act(world, form)
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

/// `UnauthorizedOperation`, in the words that IAM has for an identity without the permission. As in
/// life, the resource is named only where the permission can be limited to one: of all that describe, only
/// for `DescribeImageAttribute` and `DescribeSnapshotAttribute`.
pub(crate) fn denied(world: &World, action: &str, form: &Form) -> Refusal {
    let World {
        account, region, ..
    } = world;
    let id = ["ImageId", "VolumeId", "ResourceId.1", "SnapshotId"]
        .iter()
        // The permission for CreateVolume is one for the volume that would be made.
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

/// The answer of actions that have nothing to tell.
fn done() -> Xml {
    Xml::fragment(|xml| xml.text("return", true))
}

/// Refuses an id that is not `PREFIX-` and 8 or 17 hexadecimal digits; `noun` is EC2's word in the code
/// of the error: `AMIID`, `SnapshotID`, …
fn check_id(id: &str, prefix: &str, noun: &str) -> Result<(), Refusal> {
    let well_formed = id
        .strip_prefix(prefix)
        .and_then(|rest| rest.strip_prefix('-'))
        .is_some_and(|digits| {
            matches!(digits.len(), 8 | 17)
                && digits.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
        });
    if well_formed {
        return Ok(());
    }
    Err(Refusal::new(
        format!("Invalid{noun}.Malformed"),
        format!("Invalid id: \"{id}\" (expecting \"{prefix}-...\")"),
    ))
}

fn timestamp(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// `Filter.N.Name`, `Filter.N.Value.M`: an item must satisfy every filter, with any of its values.
struct Filters<'a>(Vec<(&'a str, Vec<&'a str>)>);

impl<'a> Filters<'a> {
    /// The filters of a request; EC2 refuses those whose name is not `known`.
    fn of(form: &Form<'a>, known: impl Fn(&str) -> bool) -> Result<Filters<'a>, Refusal> {
        let mut filters = Vec::new();
        for filter in form.structures("Filter") {
            let name = filter.required("Name")?;
            if !known(name) {
                return Err(Refusal::invalid(format!("The filter '{name}' is invalid")));
            }
            filters.push((name, filter.list("Value")));
        }
        Ok(Filters(filters))
    }

    /// Whether an item passes, of which `values` tells the values for the name of a filter.
    fn admit(&self, values: impl Fn(&str) -> Option<Vec<String>>) -> bool {
        self.0.iter().all(|(name, patterns)| {
            let found = values(name).unwrap_or_default();
            patterns
                .iter()
                .any(|pattern| found.iter().any(|value| glob(pattern, value)))
        })
    }
}

/// The values for the filters on tags, that all describing actions have.
fn tag_values(tags: &BTreeMap<String, String>, filter: &str) -> Option<Vec<String>> {
    if filter == "tag-key" {
        return Some(tags.keys().cloned().collect());
    }
    let key = filter.strip_prefix("tag:")?;
    Some(tags.get(key).cloned().into_iter().collect())
}

/// `*` stands for any text, `?` for any character, and a backslash takes the meaning of the next one away.
fn glob(pattern: &str, text: &str) -> bool {
    let mut pattern = pattern.chars();
    match pattern.next() {
        None => text.is_empty(),
        Some('*') => text
            .char_indices()
            .map(|(at, _)| at)
            .chain([text.len()])
            .any(|at| {
                text.get(at..)
                    .is_some_and(|rest| glob(pattern.as_str(), rest))
            }),
        Some(wanted) => {
            let (wanted, any) = match wanted {
                '?' => ('?', true),
                '\\' => (pattern.next().unwrap_or('\\'), false),
                other => (other, false),
            };
            let mut text = text.chars();
            text.next().is_some_and(|c| any || c == wanted) && glob(pattern.as_str(), text.as_str())
        }
    }
}

/// Writes `productCodes`; all that are simulated are AWS Marketplace's.
fn write_product_codes(xml: &mut Xml, codes: &[String]) {
    xml.list("productCodes", codes, |xml, code| {
        xml.text("productCode", code);
        xml.text("type", "marketplace");
    });
}

/// What `NextToken`s begin with; the key of the last item that was shown follows.
const TOKEN: &str = "after/";

/// The page that `NextToken` and `MaxResults` ask for, and the token of the next one. The items must be
/// in the order of their keys. Without `MaxResults` there is one page.
fn page<T>(
    form: &Form,
    allowed: RangeInclusive<usize>,
    mut items: Vec<T>,
    key: impl Fn(&T) -> String,
) -> Result<(Vec<T>, Option<String>), Refusal> {
    if let Some(token) = form.get("NextToken").filter(|token| !token.is_empty()) {
        let Some(last) = token.strip_prefix(TOKEN) else {
            return Err(Refusal::new(
                "InvalidPaginationToken",
                "The specified pagination token is not valid.",
            ));
        };
        items.retain(|item| key(item).as_str() > last);
    }
    let Some(most) = form.parse::<usize>("MaxResults")? else {
        return Ok((items, None));
    };
    if !allowed.contains(&most) {
        return Err(Refusal::invalid(format!(
            "Value ( {most} ) for parameter maxResults is invalid. Expecting a value between {} and {}.",
            allowed.start(),
            allowed.end()
        )));
    }
    let more = items.len() > most;
    items.truncate(most);
    let token = items
        .last()
        .filter(|_| more)
        .map(|last| format!("{TOKEN}{}", key(last)));
    Ok((items, token))
}

/// What the unit tests of the actions share.
#[cfg(test)]
mod testing {
    use super::*;

    /// Makes a call as a request would, and gives the content of the answer, or the code of the error.
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

    /// The texts of all elements of this name.
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
    use super::*;

    #[test]
    fn globs_match_as_the_filters_of_ec2_do() {
        for (pattern, text, expected) in [
            ("win-*", "win-2022", true),
            ("*2022*", "win-2022", true),
            ("win-20?2", "win-2022", true),
            ("win", "win-2022", false),
            ("", "", true),
            ("*", "", true),
            (r"a\*b", "a*b", true),
            (r"a\*b", "axb", false),
            ("?", "\u{e9}", true),
            ("WIN-*", "win-2022", false),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} against {text}");
        }
    }

    #[test]
    fn ids_have_8_or_17_lower_case_hexadecimal_digits() {
        for id in ["ami-12345678", "ami-0123456789abcdef0"] {
            assert_eq!(check_id(id, "ami", "AMIID"), Ok(()));
        }
        for id in [
            "",
            "ami-",
            "ami-1234567",
            "ami-0123456789ABCDEF0",
            "snap-12345678",
            "ami-1234567g",
            "ami-12345678 ",
        ] {
            let refusal = check_id(id, "ami", "AMIID").unwrap_err();
            assert_eq!(refusal.code, "InvalidAMIID.Malformed", "{id}");
        }
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

    fn pages_of(size: &str, token: Option<&str>) -> Result<(Vec<String>, Option<String>), Refusal> {
        let mut params = BTreeMap::from([("MaxResults".to_owned(), size.to_owned())]);
        if let Some(token) = token {
            params.insert("NextToken".to_owned(), token.to_owned());
        }
        let items = ["a", "b", "c"].map(str::to_owned).to_vec();
        page(&Form::new(&params), 1..=2, items, String::clone)
    }

    #[test]
    fn pages_follow_each_other_without_gap_or_overlap() {
        let (first, token) = pages_of("2", None).unwrap();
        assert_eq!(first, ["a", "b"]);
        let (second, end) = pages_of("2", token.as_deref()).unwrap();
        assert_eq!(second, ["c"]);
        assert_eq!(end, None);
    }

    #[test]
    fn a_page_size_out_of_range_and_a_foreign_token_are_refused() {
        assert_eq!(
            pages_of("3", None).unwrap_err().code,
            "InvalidParameterValue"
        );
        assert_eq!(
            pages_of("1", Some("b")).unwrap_err().code,
            "InvalidPaginationToken"
        );
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
