//! Removes parts from an answer.

use bytes::Bytes;
use serde_json::Value as Json;

/// The document without any element or key of this name, and without its content.
pub(crate) fn element(body: &Bytes, name: &str) -> Bytes {
    if let Ok(mut json) = serde_json::from_slice::<Json>(body) {
        remove_key(&mut json, name);
        return json.to_string().into();
    }
    let text = String::from_utf8_lossy(body);
    let mut rest = text.as_ref();
    let mut left = String::new();
    while let Some(at) = start_of(rest, name) {
        let (before, from) = rest.split_at(at);
        left.push_str(before);
        rest = after(from, name);
    }
    left.push_str(rest);
    left.into()
}

fn remove_key(json: &mut Json, name: &str) {
    match json {
        Json::Object(members) => {
            members.remove(name);
            members
                .values_mut()
                .for_each(|value| remove_key(value, name));
        }
        Json::Array(values) => values.iter_mut().for_each(|value| remove_key(value, name)),
        _ => {}
    }
}

/// The start of the first element of this name.
fn start_of(text: &str, name: &str) -> Option<usize> {
    let starts = text.match_indices('<');
    starts.map(|(at, _)| at).find(|at| {
        let rest = text.get(at + 1..).and_then(|rest| rest.strip_prefix(name));
        rest.is_some_and(|rest| rest.starts_with(['>', '/', ' ']))
    })
}

/// The text after the element of this name with which it begins.
fn after<'t>(text: &'t str, name: &str) -> &'t str {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let Some((tag, mut rest)) = text.split_once('>') else {
        return "";
    };
    if tag.ends_with('/') {
        return rest;
    }
    let mut depth = 1;
    while depth > 0 {
        let Some(end) = rest.find(&close) else {
            return "";
        };
        let inner = rest.get(..end).unwrap_or_default();
        depth += inner.matches(&open).count();
        depth -= 1;
        rest = rest.get(end + close.len()..).unwrap_or_default();
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_is_taken_away_with_all_that_is_in_it() {
        let without = |text: &str| {
            let body = Bytes::from(text.to_owned());
            String::from_utf8(element(&body, "b").to_vec()).unwrap()
        };
        assert_eq!(
            without("<a><b>x</b><bc>y</bc><b/></a>"),
            "<a><bc>y</bc></a>"
        );
        assert_eq!(without("<a><b><c/><b>x</b></b>z</a>"), "<a>z</a>");
        assert_eq!(without("<a/>"), "<a/>");
        assert_eq!(
            without(r#"{"a":{"b":1,"c":[{"b":2}]}}"#),
            r#"{"a":{"c":[{}]}}"#
        );
    }
}
