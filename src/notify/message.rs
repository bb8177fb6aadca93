//! A message in the form that SNS accepts. It has a text for people, a body for programs, and attributes by which
//! subscriptions can filter.

use serde_json::Value;

use crate::escape::{escaped_json, plain};

/// Largest length of a message's bodies, in bytes. SNS accepts 256 KiB of all bodies together, in their escaped form
/// (SNS API reference, "Publish").
pub(super) const LONGEST_MESSAGE: usize = 240 * 1024;

/// What is published, with a text for people and a body for programs.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// Subject of a mail. It is ASCII, on one line, and below 100 characters.
    pub(crate) subject: String,
    /// SNS's JSON with a body for each protocol.
    pub(crate) bodies: String,
    /// The custom notification for chat applications, as JSON.
    pub(crate) chat: String,
    /// Attributes by which subscriptions can filter, as names and values. No value is empty.
    pub(crate) attributes: Vec<(&'static str, String)>,
}

/// Attributes by which subscriptions can filter. Leaves out empty values, which SNS does not accept. `recoverable` says
/// whether a discarded image can be restored.
pub(super) fn attributes(
    verdict: &str,
    kind: Option<&str>,
    account: Option<&str>,
    region: Option<&str>,
    recoverable: Option<bool>,
) -> Vec<(&'static str, String)> {
    let named = [
        ("verdict", Some(verdict)),
        ("kind", kind),
        ("account", account),
        ("region", region),
        (
            "recoverable",
            recoverable.map(|it| if it { "true" } else { "false" }),
        ),
    ];
    named
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.filter(|it| !it.is_empty())?.to_owned())))
        .collect()
}

/// Escapes every text in a record to one line, and cuts it if it is long.
pub(super) fn cut(json: &mut Value) {
    match json {
        Value::String(text) => *text = plain(text),
        Value::Array(members) => members.iter_mut().for_each(cut),
        Value::Object(members) => members.values_mut().for_each(cut),
        _ => {}
    }
}

/// SNS's JSON with a body for each protocol, from a text for people and a body for programs.
pub(super) fn bodies(text: &str, json: &Value) -> String {
    let json = escaped_json(&json.to_string());
    let bodies = serde_json::json!({
        "default": text, "email": text,
        "sqs": json, "lambda": json, "http": json, "https": json,
    });
    bodies.to_string()
}
