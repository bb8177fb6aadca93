//! Pages of an answer, and their tokens.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::{Bound, RangeInclusive};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::form::Form;
use crate::refusal::Refusal;

/// Parameter that marks a request whose page must be empty. Clients never send it.
pub(crate) const EMPTY_PAGE: &str = "(empty page)";

/// The page that a request asks for with `NextToken` and `MaxResults`. Without `MaxResults` there is only one page.
#[derive(Debug)]
pub(super) struct Page<'a> {
    /// Tokens are valid only for this action.
    action: &'a str,
    /// The key of the last item on the previous page.
    pub(super) after: Option<String>,
    most: Option<usize>,
}

impl<'a> Page<'a> {
    pub(super) fn of(form: &Form<'a>, allowed: RangeInclusive<usize>) -> Result<Page<'a>, Refusal> {
        let action = form.get("Action").unwrap_or_default();
        let after = match form.get("NextToken").filter(|token| !token.is_empty()) {
            None => None,
            // Others have seen this code (karpenter-provider-aws issue 6061, boto3 issue 2673). The list of error codes
            // has `InvalidPaginationToken` instead.
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

    /// The keys of the items on this page and all later ones.
    pub(super) fn keys(&self) -> (Bound<&str>, Bound<&str>) {
        let after = self.after.as_deref();
        (
            after.map_or(Bound::Unbounded, Bound::Excluded),
            Bound::Unbounded,
        )
    }

    /// The items of a map on this page and later ones, or only those with these ids.
    pub(super) fn of_map<'i, T>(
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

    /// The page, and the token of the next one. The items must be those of [`Page::keys`], in the order of their keys.
    /// Only as many items are read as the page needs.
    pub(super) fn cut<T>(
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

/// A `NextToken`, opaque to clients. It has a tag before the key that no other token has.
fn token(action: &str, key: &str) -> String {
    STANDARD.encode([&tag(action, key), key.as_bytes()].concat())
}

/// The key in a token that [`token`] made for this action.
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
