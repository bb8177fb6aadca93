//! The digest of images that were over an hourly limit, in as few messages as possible.

use std::collections::BTreeMap;

use serde_json::Value;

use super::chat;
use super::message::{LONGEST_MESSAGE, Message, Text, attributes, bodies};
use crate::escape::plain;
use crate::event::Digest;
use crate::record::SCHEMA;
use crate::record::remediation::word;
use crate::record::stored::StoredRecord;

/// The messages of a digest, as few as possible. `held` has the records of the images that were over an hourly limit,
/// as the ledger has them. Each verdict has messages of its own, because subscriptions filter by it.
pub(crate) fn digest(digest: &Digest, held: Vec<StoredRecord>) -> Vec<Message> {
    let mut by_verdict: BTreeMap<(usize, String), Vec<StoredRecord>> = BTreeMap::new();
    for record in held {
        // An image whose record is lost counts as a mismatch, because it was held.
        let verdict = record.verdict.as_deref().unwrap_or(VERDICTS[0]).to_owned();
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

fn digests(digest: &Digest, verdict: &str, held: &[StoredRecord]) -> Vec<Message> {
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

fn one_digest(digest: &Digest, verdict: &str, held: &[StoredRecord]) -> Message {
    let mut text = Text::default();
    let number = held.len();
    let is_by_limit = |record: &&StoredRecord| record.is_held_by("limit");
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
        let word = |text: &Option<String>| plain(text.as_deref().unwrap_or("-"));
        let mut line = format!(
            "  {} {}: {}: {}",
            word(&record.image_id),
            word(&record.name),
            word(&record.label()),
            word(&record.reason)
        );
        if !record.held_by.is_empty() {
            line.push_str(&format!("; held by {}", plain(&record.held_by.join(", "))));
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
            let members = [
                ("image_id", &record.image_id),
                ("name", &record.name),
                ("verdict", &record.verdict),
                ("kind", &record.kind),
                ("reason", &record.reason),
                ("event_id", &record.event_id),
                ("registered_by", &record.registered_by),
                ("registered_at", &record.registered_at),
            ];
            let known = members.into_iter();
            let known = known
                .filter_map(|(key, text)| Some((key.to_owned(), plain(text.as_ref()?).into())));
            let mut members: serde_json::Map<String, Value> = known.collect();
            // What held an image whose record is lost is not known.
            if record.schema.is_some() {
                members.insert("held_by".into(), record.held_by.clone().into());
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
