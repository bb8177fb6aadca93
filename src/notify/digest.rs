//! The digest of images that were over an hourly limit, in as few messages as possible.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::chat::{self, Thread};
use super::email;
use super::letter::{Letter, Part, Section, Urgency, number, subject};
use super::message::{LONGEST_MESSAGE, Message, attributes, bodies};
use crate::escape::plain;
use crate::event::Digest;
use crate::marks::{DISCARD_TAG, DISCARD_VALUE};
use crate::record::SCHEMA;
use crate::record::remediation::word;
use crate::record::stored::StoredRecord;

/// The messages of a digest, as few as possible. `held` has the records of the images that were over an hourly limit,
/// as the ledger has them. Each verdict has messages of its own, because subscriptions filter by it. `runbook` is the
/// URL or the file name of the runbook.
pub(crate) fn digest(
    digest: &Digest,
    held: Vec<StoredRecord>,
    runbook: Option<&str>,
) -> Vec<Message> {
    let mut by_verdict: BTreeMap<(usize, String), Vec<StoredRecord>> = BTreeMap::new();
    for record in held {
        // An image whose record is lost counts as a mismatch, because it was held.
        let verdict = record.verdict.as_deref().unwrap_or(VERDICTS[0]).to_owned();
        let rank = VERDICTS.iter().position(|it| *it == verdict);
        let rank = rank.unwrap_or(VERDICTS.len());
        by_verdict.entry((rank, verdict)).or_default().push(record);
    }
    let messages = by_verdict.iter();
    let messages = messages.map(|((_, verdict), held)| digests(digest, verdict, held, runbook));
    messages.collect::<Vec<_>>().concat()
}

/// The verdicts of digests, in the order of their messages.
const VERDICTS: [&str; 3] = ["mismatch", "conflict", "unverifiable"];

fn digests(
    digest: &Digest,
    verdict: &str,
    held: &[StoredRecord],
    runbook: Option<&str>,
) -> Vec<Message> {
    let message = one_digest(digest, verdict, held, runbook);
    if message.bodies.len() <= LONGEST_MESSAGE || held.len() == 1 {
        return vec![message];
    }
    let (some, others) = held.split_at(held.len() / 2);
    [
        digests(digest, verdict, some, runbook),
        digests(digest, verdict, others, runbook),
    ]
    .concat()
}

fn one_digest(
    digest: &Digest,
    verdict: &str,
    held: &[StoredRecord],
    runbook: Option<&str>,
) -> Message {
    let letter = letter(digest, held);
    let (account, region) = (digest.account.as_str(), digest.region.as_str());
    let json = json!({
        "schema": SCHEMA, "digest": "limit", "event_id": digest.event_id,
        "account": account, "region": region,
        "images": held.iter().map(for_programs).collect::<Vec<_>>(),
    });
    let thread = Thread {
        id: format!("ami-billing-guard-limit-{account}-{region}"),
        keywords: vec![plain(verdict), "limit".to_owned()],
        context: json!({ "verdict": verdict, "account": account, "region": region }),
    };
    Message {
        bodies: bodies(&email::text(&letter, runbook), &json),
        chat: chat::notification(&letter, thread, runbook),
        attributes: attributes(verdict, None, Some(account), Some(region), None),
        subject: letter.subject,
    }
}

fn letter(digest: &Digest, held: &[StoredRecord]) -> Letter {
    let (account, region) = (digest.account.as_str(), digest.region.as_str());
    let by_limit = held.iter().filter(|it| it.is_held_by("limit")).count();
    let others = held.len() - by_limit;
    let waiting = number(held.len(), "AMI");
    let what = match others {
        0 => format!("Removal limit reached, {waiting} waiting"),
        _ => format!("{waiting} waiting for a decision"),
    };
    let limit = "the policy's discard.max_per_hour";
    let happened = match (by_limit, others) {
        (_, 0) => format!("{waiting} billed wrongly and not removed, because {limit} was reached."),
        (0, _) => format!(
            "{waiting} held or in need of a decision, without a message each, because the policy's alert.max_per_hour \
             was reached."
        ),
        _ => format!(
            "{waiting} held or in need of a decision. For {by_limit} of them, {limit} was reached. The others have no \
             message each, because the policy's alert.max_per_hour was reached."
        ),
    };
    let first = held.first().and_then(|record| record.image_id.as_deref());
    let mut images = Section::new(Part::Why, "The AMIs");
    held.iter().for_each(|record| images.line(line(record)));
    let mut again = Section::new(Part::Steps, "Judge them again");
    again.line(
        "Correct the cause first. Then send the event of each AMI to the function again. The runbook has the command. \
         The ledger and the log have the whole record of each AMI.",
    );
    let mut remove = Section::new(Part::Steps, "Remove one yourself");
    let region_word = word(Some(region), "region");
    remove.line(
        "Does nothing use the AMI? Mark it first. Without the mark, the stack's Recycle Bin rule does not keep it:",
    );
    remove.line(format!(
        "aws ec2 create-tags --region {region_word} --resources '<image>' --tags \
         'Key={DISCARD_TAG},Value={DISCARD_VALUE}'"
    ));
    remove.line("Then deregister it:");
    remove.line(format!(
        "aws ec2 deregister-image --region {region_word} --image-id '<image>'"
    ));
    let mut sections = vec![again, images];
    // Other safety checks have reasons of their own.
    let only_limit = |record: &StoredRecord| record.held_by == ["limit"];
    if held.iter().all(only_limit) {
        sections.insert(1, remove);
    }
    if sections.iter().any(Section::is_cut) {
        let mut cut = Section::new(Part::Details, "What this message leaves out");
        cut.line("The rest of each text that ends in … here. The record of the AMI has it.");
        sections.push(cut);
    }
    Letter {
        subject: subject(Urgency::Decide, &what, Some(account), Some(region)),
        happened,
        done: "Nothing. The AMIs still existed when they were judged.".into(),
        production:
            "Not affected now. The AMIs can be launched, and their instances may be billed wrongly."
                .into(),
        act: "Find out why so many AMIs need attention at once. There is no deadline.".into(),
        first: Some(format!(
            "ami-guard explain {} --region {region_word}",
            word(first, "image")
        )),
        runbook: "limit",
        sections,
    }
}

/// An image as one line.
fn line(record: &StoredRecord) -> String {
    let word = |text: &Option<String>| plain(text.as_deref().unwrap_or("-"));
    let mut line = format!(
        "{} {}: {}: {}",
        word(&record.image_id),
        word(&record.name),
        word(&record.label()),
        word(&record.reason)
    );
    if !record.held_by.is_empty() {
        line.push_str(&format!("; held by {}", plain(&record.held_by.join(", "))));
    }
    line
}

/// What programs get of an image.
fn for_programs(record: &StoredRecord) -> Value {
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
    let known =
        known.filter_map(|(key, text)| Some((key.to_owned(), plain(text.as_ref()?).into())));
    let mut members: serde_json::Map<String, Value> = known.collect();
    // What held an image whose record is lost is not known.
    if record.schema.is_some() {
        members.insert("held_by".into(), record.held_by.clone().into());
    }
    members.into()
}
