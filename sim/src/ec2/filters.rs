//! Filters of the actions that describe resources.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::form::Form;
use crate::refusal::Refusal;
use crate::world::{Tags, World};

/// Filters on the other resources that an item refers to.
pub(super) const REFERENCES: [&str; 6] = [
    "attachment.instance-id",
    "block-device-mapping.snapshot-id",
    "block-device-mapping.volume-id",
    "image-id",
    "snapshot-id",
    "volume-id",
];

/// Maximum number of filters. "You can specify up to 50 filters and up to 200 values per filter in a single request"
/// (user guide, "Find your Amazon EC2 resources").
const MOST_FILTERS: usize = 50;

/// Maximum number of values in all filters of a call, according to EC2's error message.
const MOST_VALUES: usize = 200;

/// The values of an item that a filter compares.
pub(super) type Values<'w> = Vec<Cow<'w, str>>;

/// `Filter.N.Name`, `Filter.N.Value.M`. An item must match every filter, with any of its values.
#[derive(Debug)]
pub(super) struct Filters<'a>(Vec<Filter<'a>>);

#[derive(Debug)]
struct Filter<'a> {
    name: &'a str,
    /// Values without wildcards.
    exact: BTreeSet<&'a str>,
    /// Values with wildcards.
    patterns: Vec<&'a str>,
}

impl<'a> Filters<'a> {
    /// The filters of a request. Filters whose name is not `known` are refused, as in EC2.
    pub(super) fn of(
        form: &Form<'a>,
        known: impl Fn(&str) -> bool,
    ) -> Result<Filters<'a>, Refusal> {
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

    /// Whether an item matches. `values` gives the item's values for a filter's name.
    pub(super) fn admit<'w>(&self, values: impl Fn(&str) -> Option<Values<'w>>) -> bool {
        self.0.iter().all(|filter| {
            let found = values(filter.name).unwrap_or_default();
            found.iter().any(|value| filter.admits(value))
        })
    }

    /// The ids of all items that can match, if there is a filter of this name without wildcards.
    pub(super) fn ids(&self, name: &str) -> Option<&BTreeSet<&'a str>> {
        let filter = self.0.iter().find(|filter| filter.name == name)?;
        filter.patterns.is_empty().then_some(&filter.exact)
    }

    /// The ids of all items that can match, if there is an index, and a filter of this name on what they refer to.
    pub(super) fn referrers<'w>(&self, world: &'w World, name: &str) -> Option<BTreeSet<&'w str>> {
        world.index.referrers(self.ids(name)?)
    }
}

impl Filter<'_> {
    fn admits(&self, value: &str) -> bool {
        self.exact.contains(value) || self.patterns.iter().any(|pattern| glob(pattern, value))
    }
}

fn too_many(what: &str, most: usize) -> Refusal {
    Refusal::new(
        "FilterLimitExceeded",
        format!("The maximum number of {what} specified on a single call is {most}"),
    )
}

/// The values for the filters on tags, which all these actions have.
pub(super) fn tag_values<'w>(tags: &'w Tags, filter: &str) -> Option<Values<'w>> {
    if filter == "tag-key" {
        return Some(tags.keys().map(Cow::from).collect());
    }
    let key = filter.strip_prefix("tag:")?;
    Some(optional(tags.get(key)))
}

/// The value for a filter on an optional property.
pub(super) fn optional(value: Option<&String>) -> Values<'_> {
    value.map(Cow::from).into_iter().collect()
}

/// Matches a pattern: `*` is any text, `?` any character, and a backslash escapes the next character.
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

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
}
