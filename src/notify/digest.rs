//! The digest of images that were over an hourly limit, in as few messages as possible.

use std::collections::BTreeMap;

use serde_json::Value;

use super::chat;
use super::message::{LONGEST_MESSAGE, Message, Text, attributes, bodies, held_by};
use crate::escape::plain;
use crate::event::Digest;
use crate::record::SCHEMA;
use crate::record::remediation::word;

/// The messages of a digest, as few as possible. `held` has the records of the images that were over an hourly limit,
/// as the ledger has them. Each verdict has messages of its own, because subscriptions filter by it.
pub(crate) fn digest(digest: &Digest, held: Vec<Value>) -> Vec<Message> {
    let mut by_verdict: BTreeMap<(usize, String), Vec<Value>> = BTreeMap::new();
    for record in held {
        // An image whose record is lost counts as a mismatch, because it was held.
        let verdict = record.get("verdict").and_then(Value::as_str);
        let verdict = verdict.unwrap_or(VERDICTS[0]).to_owned();
        let rank = VERDICTS.iter().position(|it| *it == verdict);
        let rank = rank.unwrap_or(VERDICTS.len());
        by_verdict.entry((rank, verdict)).or_default().push(record);
    }
    let messages = by_verdict.iter();
    let messages = messages.map(|((_, verdict), held)| digests(digest, verdict, held));
    messages.collect::<Vec<_>>().concat()
}

/// The verdicts of digests, in the order of their messages.
const VERDICTS: [&str; 3] = ["mismatch", "conflict", "unverifiable"];

fn digests(digest: &Digest, verdict: &str, held: &[Value]) -> Vec<Message> {
    let message = one_digest(digest, verdict, held);
    if message.bodies.len() <= LONGEST_MESSAGE || held.len() == 1 {
        return vec![message];
    }
    let (some, others) = held.split_at(held.len() / 2);
    [
        digests(digest, verdict, some),
        digests(digest, verdict, others),
    ]
    .concat()
}

fn one_digest(digest: &Digest, verdict: &str, held: &[Value]) -> Message {
    const KEYS: [&str; 8] = [
        "image_id",
        "name",
        "verdict",
        "kind",
        "reason",
        "event_id",
        "registered_by",
        "registered_at",
    ];
    let mut text = Text::default();
    let number = held.len();
    let is_by_limit = |record: &&Value| held_by(record).contains(&"limit");
    let by_limit = held.iter().filter(is_by_limit).count();
    let others = number - by_limit;
    if by_limit > 0 {
        text.line(&format!(
            "AMIs that do not bill what they should, and were held by the hourly limit: {by_limit}. As many discards as \
             the policy's discard.max_per_hour allows had been begun. They stood when they were judged."
        ));
    }
    if others > 0 {
        text.line(&format!(
            "AMIs that are held or need a look, and have no alert of their own: {others}. The guard had sent as many alerts \
             in the hour as the policy's alert.max_per_hour allows."
        ));
    }
    text.heading(&format!("In account {}, {}", digest.account, digest.region));
    for record in held {
        let word = |key: &str| plain(record.get(key).and_then(Value::as_str).unwrap_or("-"));
        let label = match record.get("kind").and_then(Value::as_str) {
            Some(kind) => format!("{}/{}", word("verdict"), plain(kind)),
            None => word("verdict"),
        };
        let mut line = format!(
            "  {} {}: {label}: {}",
            word("image_id"),
            word("name"),
            word("reason")
        );
        let held_by = held_by(record);
        if !held_by.is_empty() {
            line.push_str(&format!("; held by {}", plain(&held_by.join(", "))));
        }
        text.line(&line);
    }
    text.heading("What to do");
    text.line(
        "So many at once: is something wrong with the images, or with what they are expected to bill? Correct that \
         first.",
    );
    text.line(
        "To have one judged again, give its event to the function again. The log and the ledger have the whole record of \
         each. To discard one yourself:",
    );
    text.line(&format!(
        "aws ec2 deregister-image --region {} --image-id '<image>'",
        word(Some(&digest.region), "region")
    ));
    if text.0.contains('…') {
        text.line("What ends in … here is cut: the record of the image has all of it.");
    }
    let images: Vec<Value> = held
        .iter()
        .map(|record| {
            let members = KEYS.iter().filter_map(|key| {
                let text = plain(record.get(*key)?.as_str()?);
                Some(((*key).to_owned(), text.into()))
            });
            let mut members: serde_json::Map<String, Value> = members.collect();
            if record.get("held_by").is_some() {
                members.insert("held_by".into(), held_by(record).into());
            }
            members.into()
        })
        .collect();
    let json = serde_json::json!({
        "schema": SCHEMA, "digest": "limit", "event_id": digest.event_id,
        "account": digest.account, "region": digest.region, "images": images,
    });
    let subject = match others {
        0 => format!("AMI billing: held by the hourly limit, AMIs: {number}"),
        _ => format!("AMI billing digest: AMIs that are held or need a look: {number}"),
    };
    Message {
        bodies: bodies(&text.0, &json),
        chat: chat::of_digest(digest, verdict, held, &subject),
        attributes: attributes(
            verdict,
            None,
            Some(digest.account.as_str()),
            Some(&digest.region),
        ),
        subject,
    }
}
