//! The actions of EC2, and what they share: ids, filters, paging.

mod image_attributes;
mod images;
mod instances;
mod regions;
mod reserved_instances;
mod snapshots;
mod tags;
mod volumes;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::{Bound, RangeInclusive};
use tokio::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};

use crate::form::Form;
use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::world::{Tags, World, only_reads};
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

/// Whether an action may change what exists and what it refers to.
fn changes(action: &str) -> bool {
    !only_reads(action) && !matches!(action, "CreateTags" | "DeleteTags")
}

/// What the server does before it calls an action: for a question about what refers to many others it makes an
/// index, unless there is one.
pub(crate) fn prepare(world: &mut World, action: &str, form: &Form) {
    // For a single one a walk costs less than an index.
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

/// The filters on what other resources an item names.
const REFERENCES: [&str; 6] = [
    "attachment.instance-id",
    "block-device-mapping.snapshot-id",
    "block-device-mapping.volume-id",
    "image-id",
    "snapshot-id",
    "volume-id",
];

/// "You can specify up to 50 filters and up to 200 values per filter in a single request" (user guide, "Find your
/// Amazon EC2 resources").
const MOST_FILTERS: usize = 50;

/// EC2's own words for the limit are of all values of a call, and so it is here.
const MOST_VALUES: usize = 200;

/// What of an item a filter looks at.
type Values<'w> = Vec<Cow<'w, str>>;

/// `Filter.N.Name`, `Filter.N.Value.M`: an item must satisfy every filter, with any of its values.
#[derive(Debug)]
struct Filters<'a>(Vec<Filter<'a>>);

#[derive(Debug)]
struct Filter<'a> {
    name: &'a str,
    /// Values that stand for themselves.
    exact: BTreeSet<&'a str>,
    /// Values with wildcards.
    patterns: Vec<&'a str>,
}

impl<'a> Filters<'a> {
    /// The filters of a request; EC2 refuses those whose name is not `known`.
    fn of(form: &Form<'a>, known: impl Fn(&str) -> bool) -> Result<Filters<'a>, Refusal> {
        let mut filters = Vec::new();
        let mut values_in_all = 0;
        for filter in form.structures("Filter") {
            let name = filter.required("Name")?;
            if !known(name) {
                return Err(Refusal::invalid(format!("The filter '{name}' is invalid")));
            }
            let values = filter.list("Value");
            values_in_all += values.len();
            let (patterns, exact): (Vec<&str>, Vec<&str>) = values
                .into_iter()
                .partition(|value| value.contains(['*', '?', '\\']));
            filters.push(Filter {
                name,
                exact: exact.into_iter().collect(),
                patterns,
            });
        }
        if filters.len() > MOST_FILTERS {
            return Err(too_many("filters", MOST_FILTERS));
        }
        if values_in_all > MOST_VALUES {
            return Err(too_many("filter values", MOST_VALUES));
        }
        Ok(Filters(filters))
    }

    /// Whether an item passes, of which `values` tells the values for the name of a filter.
    fn admit<'w>(&self, values: impl Fn(&str) -> Option<Values<'w>>) -> bool {
        self.0.iter().all(|filter| {
            let found = values(filter.name).unwrap_or_default();
            found.iter().any(|value| filter.admits(value))
        })
    }

    /// The ids of all items that can pass, if a filter of this name tells.
    fn ids(&self, name: &str) -> Option<&BTreeSet<&'a str>> {
        let filter = self.0.iter().find(|filter| filter.name == name)?;
        filter.patterns.is_empty().then_some(&filter.exact)
    }

    /// The ids of all items that can pass, if there is an index and a filter of this name that tells what they
    /// refer to.
    fn referrers<'w>(&self, world: &'w World, name: &str) -> Option<BTreeSet<&'w str>> {
        world.index.referrers(self.ids(name)?)
    }
}

impl Filter<'_> {
    fn admits(&self, value: &str) -> bool {
        self.exact.contains(value) || self.patterns.iter().any(|pattern| glob(pattern, value))
    }
}

/// The ids that a request names, if it names any.
fn named<'a>(ids: &[&'a str]) -> Option<BTreeSet<&'a str>> {
    (!ids.is_empty()).then(|| ids.iter().copied().collect())
}

fn too_many(what: &str, most: usize) -> Refusal {
    Refusal::new(
        "FilterLimitExceeded",
        format!("The maximum number of {what} specified on a single call is {most}"),
    )
}

/// The values for the filters on tags, that all describing actions have.
fn tag_values<'w>(tags: &'w Tags, filter: &str) -> Option<Values<'w>> {
    if filter == "tag-key" {
        return Some(tags.keys().map(Cow::from).collect());
    }
    let key = filter.strip_prefix("tag:")?;
    Some(optional(tags.get(key)))
}

/// The value for a filter on what an item may lack.
fn optional(value: Option<&String>) -> Values<'_> {
    value.map(Cow::from).into_iter().collect()
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

/// The parameter of a question whose page is to be empty. No client sends it.
pub(crate) const EMPTY_PAGE: &str = "(empty page)";

/// Which page of the items a request wants, `NextToken` and `MaxResults`. Without `MaxResults` there is one page.
#[derive(Debug)]
struct Page<'a> {
    /// Of each action tokens are others.
    action: &'a str,
    /// The key of the last item that was shown.
    after: Option<String>,
    most: Option<usize>,
}

impl<'a> Page<'a> {
    fn of(form: &Form<'a>, allowed: RangeInclusive<usize>) -> Result<Page<'a>, Refusal> {
        let action = form.get("Action").unwrap_or_default();
        let after = match form.get("NextToken").filter(|token| !token.is_empty()) {
            None => None,
            // The code is what others have seen (karpenter-provider-aws issue 6061, boto3 issue 2673), not the
            // `InvalidPaginationToken` of the list of error codes.
            Some(token) => Some(
                key_in(token, action)
                    .ok_or_else(|| Refusal::invalid("Unable to parse pagination token"))?,
            ),
        };
        let most = form.parse::<usize>("MaxResults")?;
        if let Some(most) = most.filter(|most| !allowed.contains(most)) {
            return Err(Refusal::invalid(format!(
                "Value ( {most} ) for parameter maxResults is invalid. Expecting a value between {} and {}.",
                allowed.start(),
                allowed.end()
            )));
        }
        let most = form.get(EMPTY_PAGE).map_or(most, |_| Some(0));
        Ok(Page {
            action,
            after,
            most,
        })
    }

    /// The keys of what this page and all later ones can show.
    fn keys(&self) -> (Bound<&str>, Bound<&str>) {
        let after = self.after.as_deref();
        (
            after.map_or(Bound::Unbounded, Bound::Excluded),
            Bound::Unbounded,
        )
    }

    /// Those items of a map that this page and later ones can show, or those of them with these ids.
    fn of_map<'i, T>(
        &'i self,
        map: &'i BTreeMap<String, T>,
        ids: Option<&'i BTreeSet<&str>>,
    ) -> Box<dyn Iterator<Item = &'i T> + 'i> {
        match ids {
            Some(ids) => {
                let ids = ids.range::<str, _>(self.keys());
                Box::new(ids.filter_map(|id| map.get(*id)))
            }
            None => Box::new(map.range::<str, _>(self.keys()).map(|(_, item)| item)),
        }
    }

    /// The page, and the token of the next one. The items are those that [`Page::keys`] has, in the order of their
    /// keys; no more of them are looked at than the page needs.
    fn cut<T>(
        &self,
        items: impl IntoIterator<Item = T>,
        key: impl Fn(&T) -> String,
    ) -> (Vec<T>, Option<String>) {
        let most = self.most.unwrap_or(usize::MAX);
        let mut items = items.into_iter();
        let page: Vec<T> = items.by_ref().take(most).collect();
        let more = page.len() == most && items.next().is_some();
        let so_far = self.after.clone().unwrap_or_default();
        let last = page.last().map_or(so_far, &key);
        let token = more.then(|| token(self.action, &last));
        (page, token)
    }
}

/// A `NextToken`: a text without a meaning to clients. It has a tag before the key, that no other text has.
fn token(action: &str, key: &str) -> String {
    STANDARD.encode([&tag(action, key), key.as_bytes()].concat())
}

/// The key in a token that [`token`] made for the action.
fn key_in(token: &str, action: &str) -> Option<String> {
    let bytes = STANDARD.decode(token).ok()?;
    let (tag_in, key) = bytes.split_first_chunk()?;
    let key = str::from_utf8(key).ok()?;
    (*tag_in == tag(action, key)).then(|| key.to_owned())
}

fn tag(action: &str, key: &str) -> [u8; 8] {
    let mut hasher = DefaultHasher::new();
    (action, key).hash(&mut hasher);
    hasher.finish().to_be_bytes()
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
    use crate::world::{AttachedVolume, Image, Instance, Snapshot, Volume};

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
        // This one is described by its attachment alone.
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
    fn a_call_has_at_most_200_values_in_all_its_filters() {
        let mut params = BTreeMap::from([("Filter.1.Name".to_owned(), "name".to_owned())]);
        let mut refused = |filter: usize, value: usize| {
            params.insert(format!("Filter.{filter}.Name"), "name".to_owned());
            params.insert(format!("Filter.{filter}.Value.{value}"), "x".to_owned());
            let filters = Filters::of(&Form::new(&params), |_| true);
            filters.err().map(|refusal| refusal.to_string())
        };
        for value in 1..=199 {
            assert_eq!(refused(1, value), None);
        }
        assert_eq!(refused(2, 1), None);
        assert_eq!(
            refused(2, 2).unwrap(),
            "FilterLimitExceeded: The maximum number of filter values specified on a single call is 200"
        );
    }

    fn pages_of(size: &str, token: Option<&str>) -> Result<(Vec<String>, Option<String>), Refusal> {
        let mut params = BTreeMap::from([("MaxResults".to_owned(), size.to_owned())]);
        if let Some(token) = token {
            params.insert("NextToken".to_owned(), token.to_owned());
        }
        let items = BTreeMap::from(["a", "b", "c"].map(|item| (item.to_owned(), item.to_owned())));
        let page = Page::of(&Form::new(&params), 1..=2)?;
        Ok(page.cut(page.of_map(&items, None).cloned(), String::clone))
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
        let of_another_action = token("DescribeVolumes", "b");
        for foreign in ["b", "AAAB", "AAAAAAAAAABi", &of_another_action] {
            let refusal = pages_of("1", Some(foreign)).unwrap_err();
            assert_eq!(
                refusal.to_string(),
                "InvalidParameterValue: Unable to parse pagination token"
            );
        }
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
