//! The record as people and programs read it.
//!
//! Names, tags and ARNs come from outside: in the text each stands on one line, without control
//! characters, and cut when long, so that none can forge a line or move a terminal's cursor.

mod chat;
mod summary;

use std::collections::BTreeMap;

use chrono::SecondsFormat;
use serde_json::Value;

use crate::billing::{BilledAs, Difference, Platforms};
use crate::escape::{SHOWN, escaped_json, plain, shell_quoted};
use crate::event::Digest;
use crate::expectation::{EXPECT_TAG, Origin, product_codes};
use crate::marks::{DISCARD_TAG, DISCARD_VALUE, is_of_people};
use crate::plan::{Action, Interlock};
use crate::record::{Expected, Outcome, Rebuild, Record, RecycleBin, Refusal, SCHEMA};
use crate::verdict::{Mismatch, Verdict};
pub(crate) use summary::summary;

/// A subject is shorter than 100 characters (SNS API reference, "Publish").
const SUBJECT: usize = 99;

/// The longest list of tags in a command. With it a message's six bodies, in each of which it stands
/// and is escaped twice, are far below the 256 KiB that SNS takes.
const LONGEST_TAGS: usize = 6 * 1024;

/// The longest message: SNS takes 256 KiB of all bodies together, as they are escaped (SNS API reference,
/// "Publish").
const LONGEST_MESSAGE: usize = 240 * 1024;

/// What a self-test says to people.
const A_TEST: &str =
    "This is a test that somebody asked for. Nothing is wrong, and nothing is to be done.";

/// What is published: one text for people, one for programs.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// The subject of a mail: ASCII, one line, below 100 characters.
    pub(crate) subject: String,
    /// SNS's JSON with a body for each protocol.
    pub(crate) bodies: String,
    /// The custom notification for chat applications.
    pub(crate) chat: String,
    /// What subscriptions can filter by, by name; none is empty.
    pub(crate) attributes: Vec<(&'static str, String)>,
}

/// The SNS message of a record: text where people read (`default`, `email`), the record where
/// programs do.
pub(crate) fn message(record: &Record) -> Message {
    message_with(record, None)
}

/// The message of the first record that is over the number of an hour's alerts: it says that the digest has further ones.
pub(crate) fn first_over(record: &Record, most: u32) -> Message {
    let note = format!(
        "This hour has more alerts than the policy's alert.max_per_hour ({most}). The next hourly digest has further AMIs of \
         this hour that are held or need a look."
    );
    message_with(record, Some(&note))
}

/// What a message is shortened by until SNS takes it, one after the other. The request that registers the image again, the
/// most valuable part, is left out last.
const SHORTENINGS: [fn(&mut Draft<'_>); 6] = [
    fewer_references,
    no_long_texts,
    no_tags_for_programs,
    no_launch_permissions,
    no_tags_in_the_command,
    no_request,
];

/// So many references stay in a message that is too long.
const FEWER_REFERENCES: usize = 10;

/// A message in the making.
struct Draft<'a> {
    record: Record,
    /// The body for programs.
    json: Value,
    note: Option<&'a str>,
    /// Whether the command that registers the image again has the image's tags.
    with_tags: bool,
    /// What is left out, each with the record's key that has it.
    left_out: Vec<String>,
}

impl Draft<'_> {
    fn bodies(&self) -> String {
        let mut json = self.json.clone();
        if let (Some(members), false) = (json.as_object_mut(), self.left_out.is_empty()) {
            members.insert("left_out".into(), self.left_out.clone().into());
        }
        bodies(&text_of(self), &json)
    }

    /// A member of the body for programs.
    fn member(&mut self, pointer: &str) -> Option<&mut Value> {
        self.json.pointer_mut(pointer)
    }
}

fn fewer_references(draft: &mut Draft<'_>) {
    let references = &mut draft.record.references;
    let Some(fewer @ 1..) = references.len().checked_sub(FEWER_REFERENCES) else {
        return;
    };
    // The last one may stand for some that the record does not have either.
    let unnamed = references.last().and_then(|last| more(last));
    let number = unnamed.map_or(fewer, |unnamed| fewer - 1 + unnamed);
    references.truncate(FEWER_REFERENCES);
    references.push(format!("and {number} more"));
    let shorter = serde_json::json!(references);
    if let Some(member) = draft.member("/references") {
        *member = shorter;
    }
    draft.left_out.push(format!(
        "ARNs of what refers to the image: {number} (`references`)"
    ));
}

fn no_long_texts(draft: &mut Draft<'_>) {
    let steps = &mut draft.record.fix;
    let before = steps.len();
    steps.retain(|step| step.len() <= SHOWN);
    let (left, shorter) = (before - steps.len(), serde_json::json!(steps));
    if let Some(member) = draft.member("/fix") {
        *member = shorter;
    }
    if left > 0 {
        draft
            .left_out
            .push(format!("long steps to make it right: {left} (`fix`)"));
    }
    let whole = draft.json.clone();
    if let Some(members) = draft.json.as_object_mut() {
        let others = members.iter_mut().filter(|(key, _)| *key != "rebuild");
        others.for_each(|(_, member)| cut(member));
    }
    if draft.json != whole {
        draft.left_out.push(format!(
            "in the part for programs, what is beyond {SHOWN} characters of a text"
        ));
    }
}

/// Where the request is that registers an image again.
const REQUEST: &str = "(`rebuild`)";

const TAGS: &str = "/rebuild/register_image/TagSpecifications";

fn no_tags_for_programs(draft: &mut Draft<'_>) {
    let Some(tags) = draft.member(TAGS) else {
        return;
    };
    let number = tags.pointer("/0/Tags").and_then(Value::as_array);
    let number = number.map_or(0, Vec::len);
    let request = draft.member("/rebuild/register_image");
    if let Some(request) = request.and_then(Value::as_object_mut) {
        request.remove("TagSpecifications");
    }
    draft.left_out.push(format!(
        "in the part for programs, the image's tags: {number} (`rebuild.register_image.TagSpecifications`)"
    ));
}

fn no_launch_permissions(draft: &mut Draft<'_>) {
    let Some(permissions) = draft.member("/rebuild/launch_permissions") else {
        return;
    };
    let number = permissions.as_array().map_or(0, Vec::len);
    if number > 0 {
        *permissions = Value::Null;
        draft.left_out.push(format!(
            "launch permissions: {number} (`rebuild.launch_permissions`)"
        ));
    }
}

fn no_tags_in_the_command(draft: &mut Draft<'_>) {
    draft.with_tags = false;
}

fn no_request(draft: &mut Draft<'_>) {
    if draft.record.rebuild.take().is_none() {
        return;
    }
    if let Some(member) = draft.member("/rebuild") {
        *member = Value::Null;
    }
    draft.left_out.push(format!(
        "the request that registers the image again {REQUEST}"
    ));
}

/// The number in a record's `and 3 more`.
fn more(text: &str) -> Option<usize> {
    let number = text.strip_prefix("and ")?.strip_suffix(" more")?;
    number.parse().ok()
}

fn message_with(record: &Record, note: Option<&str>) -> Message {
    let mut draft = Draft {
        record: record.clone(),
        json: serde_json::json!(record),
        note,
        with_tags: true,
        left_out: Vec::new(),
    };
    let mut bodies = draft.bodies();
    for shorten in SHORTENINGS {
        if bodies.len() <= LONGEST_MESSAGE {
            break;
        }
        shorten(&mut draft);
        bodies = draft.bodies();
    }
    Message {
        subject: subject(record),
        bodies,
        chat: chat::of_record(record, note),
        attributes: {
            // Who hears of a mismatch also hears how it ended.
            let label = record.label();
            let (verdict, kind) = match label.split_once('/') {
                Some((verdict, kind)) => (verdict, Some(kind)),
                None => (label.as_str(), None),
            };
            attributes(
                verdict,
                kind,
                record.account.as_deref(),
                record.region.as_deref(),
            )
        },
    }
}

/// The message of a self-test: nothing is wrong.
pub(crate) fn test(account: Option<&str>, region: Option<&str>, mode: &str) -> Message {
    let subject = "AMI billing guard: a test, nothing is wrong".to_owned();
    let mut text = Text::default();
    text.line(A_TEST);
    text.heading("Of");
    text.field("account", &account.map(str::to_owned));
    text.field("region", &region.map(str::to_owned));
    text.field("mode", &Some(mode.to_owned()));
    text.heading("Did you expect it?");
    text.line("Then whoever reads this hears of AMIs that do not bill what they should.");
    let json = serde_json::json!({
        "schema": SCHEMA, "verdict": "self-test", "account": account, "region": region, "mode": mode,
    });
    let place = [account, region].map(|part| part.unwrap_or("-"));
    Message {
        bodies: bodies(&text.0, &json),
        chat: chat::of_test(place[0], place[1], &subject),
        attributes: attributes("self-test", None, account, region),
        subject,
    }
}

/// What subscriptions can filter by. SNS takes no empty value.
fn attributes(
    verdict: &str,
    kind: Option<&str>,
    account: Option<&str>,
    region: Option<&str>,
) -> Vec<(&'static str, String)> {
    let named = [
        ("verdict", Some(verdict)),
        ("kind", kind),
        ("account", account),
        ("region", region),
    ];
    named
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.filter(|it| !it.is_empty())?.to_owned())))
        .collect()
}

/// Cuts every text in a record.
fn cut(json: &mut Value) {
    match json {
        Value::String(text) => *text = plain(text),
        Value::Array(members) => members.iter_mut().for_each(cut),
        Value::Object(members) => members.values_mut().for_each(cut),
        _ => {}
    }
}

fn bodies(text: &str, json: &Value) -> String {
    let json = escaped_json(&json.to_string());
    let bodies = serde_json::json!({
        "default": text, "email": text,
        "sqs": json, "lambda": json, "http": json, "https": json,
    });
    bodies.to_string()
}

/// The messages of a digest: the images that were over an hourly limit, by their records as the ledger has them. Each
/// verdict has messages of its own, because subscriptions filter by it, and as few as possible.
pub(crate) fn digest(digest: &Digest, held: Vec<Value>) -> Vec<Message> {
    let mut by_verdict: BTreeMap<(usize, String), Vec<Value>> = BTreeMap::new();
    for record in held {
        // An image whose record is lost was held.
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

/// The interlocks in a record as the ledger has it.
fn held_by(record: &Value) -> Vec<&str> {
    let held_by = record.get("held_by").and_then(Value::as_array);
    let held_by = held_by.into_iter().flatten();
    held_by.filter_map(Value::as_str).collect()
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

/// The subject of a mail. Nothing in it comes from outside but the image's id, which was checked.
pub fn subject(record: &Record) -> String {
    let image = record.image_id.as_deref().unwrap_or("an AMI");
    let mut subject = format!("AMI billing {}: {image} {}", record.label(), done(record));
    subject.truncate(SUBJECT);
    subject
}

/// What is done about an image, in words for a subject: ASCII.
fn done(record: &Record) -> &'static str {
    match (record.action, record.outcome) {
        (Action::Deregister, Some(Outcome::Done)) => "was deregistered",
        (Action::Disable, Some(Outcome::Done)) => "was disabled",
        (Action::Deregister, Some(Outcome::Refused)) => "could not be deregistered",
        (Action::Disable, Some(Outcome::Refused)) => "could not be disabled",
        (Action::Deregister, Some(Outcome::Failed)) => "is not known to be deregistered",
        (Action::Disable, Some(Outcome::Failed)) => "is not known to be disabled",
        (Action::Deregister, _) => "is being deregistered",
        (Action::Disable, _) => "is being disabled",
        (Action::Hold, _) if record.held_by == [Interlock::Limit] => {
            "is held: the hourly limit is reached"
        }
        (Action::Hold, _) => "is held, not discarded",
        (Action::Alert | Action::None, _) => "needs a look",
    }
}

/// The text of an alert: what was done, what was registered, what it bills and should, how to make
/// it right, how to take it back.
pub fn text(record: &Record) -> String {
    text_of(&Draft {
        record: record.clone(),
        json: Value::Null,
        note: None,
        with_tags: true,
        left_out: Vec::new(),
    })
}

fn text_of(draft: &Draft<'_>) -> String {
    let record = &draft.record;
    let mut text = Text::default();
    let image = record.image_id.as_deref().unwrap_or("An AMI");
    text.line(&format!(
        "{image} {}: {}.",
        done(record),
        plain(&record.reason)
    ));

    text.heading("What was done");
    deeds(record).iter().for_each(|deed| text.line(deed));
    if let Some(note) = draft.note {
        text.line(note);
    }

    text.heading("Registered");
    text.field("image", &record.image_id);
    text.field("name", &record.name);
    text.field("account", &record.account);
    text.field("region", &record.region);
    text.field("by", &record.registered_by);
    text.field("at", &record.registered_at.map(|at| at.to_rfc3339()));
    text.field("snapshot", &record.snapshot_id);
    text.field("event", &record.event_id);

    text.heading("Billing");
    let actual = record.actual.as_ref();
    text.field(
        "bills",
        &actual.and_then(|actual| actual.platform_details.clone()),
    );
    text.field(
        "operation",
        &actual.and_then(|actual| actual.usage_operation.clone()),
    );
    if let Some(actual) = actual.filter(|actual| !actual.product_codes.is_empty()) {
        text.field("sold as", &Some(product_codes(&actual.product_codes)));
    }
    let expected = record.expected.as_ref();
    text.field("should bill", &expected.map(Expected::text));
    text.field(
        "who says so",
        &expected.map(|expected| expected.source.name().to_owned()),
    );
    for statement in &record.evidence {
        let state = match statement.state {
            "spoke" => format!("spoke {}", statement.text()),
            state => state.to_owned(),
        };
        let asked = format!(
            "{}: {state} ({})",
            statement.source.name(),
            statement.detail
        );
        text.field("asked", &Some(asked));
    }

    if !record.references.is_empty() {
        text.heading("What refers to it, in this account and Region");
        for arn in &record.references {
            match more(arn) {
                Some(more) => {
                    text.line(&format!("  and {more} more. To list all of them:"));
                    text.line(&format!(
                        "{} --include-all-resource-types",
                        aws_ec2(record, "describe-image-references", "--image-ids")
                    ));
                }
                None => text.field("used by", &Some(arn.clone())),
            }
        }
    }

    if !record.fix.is_empty() {
        text.heading("How to make it right");
        record.fix.iter().for_each(|step| text.line(step));
    }

    if let Some(undo) = &record.undo {
        text.heading("How to take the discard back");
        text.line(undo);
        if record.action == Action::Deregister {
            text.line(
                "This needs the image's snapshots, which the guard never deletes, and that the Recycle Bin \
                 kept the image. Sharing comes back by itself.",
            );
            text.line(
                "If a snapshot of the image is in the Recycle Bin itself, restore that first:",
            );
            text.line(&format!(
                "aws ec2 restore-snapshot-from-recycle-bin --region {} --snapshot-id {}",
                region(record),
                word(record.snapshot_id.as_deref(), "the snapshot")
            ));
        } else {
            launch_permissions(record, record.image_id.as_deref())
                .iter()
                .for_each(|line| text.line(line));
        }
        text.line(
            "The guard does not discard again what was brought back. Correct what the image is expected to bill \
             all the same: it tells of it until then.",
        );
    }
    if let Some(rebuild) = &record.rebuild
        && registers_again(record)
    {
        text.heading(match record.undo {
            Some(_) => "How to register it again, if it can not be restored",
            None => "How to register it again",
        });
        register_again(record, rebuild, draft.with_tags)
            .iter()
            .for_each(|line| text.line(line));
        not_in_the_request(record, rebuild)
            .iter()
            .for_each(|line| text.line(line));
        text.line(
            "A new image bills as this one did: its snapshot's metadata is not mended by that.",
        );
    }
    if draft.record.rebuild.is_none() && draft.left_out.iter().any(|it| it.ends_with(REQUEST)) {
        text.heading("How to register it again");
        text.line(
            "The request is too long for this message. The record has it (`rebuild`): see below.",
        );
    }
    left_out(draft, &mut text);
    text.0
}

/// What the message does not have, and where it is.
fn left_out(draft: &Draft<'_>, text: &mut Text) {
    // Each text that `plain` cut ends in this.
    let cut = text.0.contains('…');
    if draft.left_out.is_empty() && !cut {
        return;
    }
    let record = &draft.record;
    text.heading("What this message leaves out");
    if cut {
        text.line("  The rest of each text that ends in … here.");
    }
    if !draft.left_out.is_empty() {
        text.line("  The whole would be longer than SNS takes. So these are not here:");
        let left_out = draft.left_out.iter();
        left_out.for_each(|what| text.line(&format!("  {what}")));
    }
    let item = [&record.account, &record.region, &record.image_id];
    let item = item.map(|part| plain(part.as_deref().unwrap_or("-")));
    text.line(&format!(
        "The record has all of it, by these keys. It is in the ledger's item {}, and in the function's log group:",
        item.join("#")
    ));
    let event = record.event_id.as_deref().filter(|id| is_word(id));
    text.line(&format!(
        "aws logs filter-log-events --region {} --log-group-name '<the log group>' --filter-pattern '\"{}\"'",
        region(record),
        event.unwrap_or("<event id>")
    ));
}

/// Whether the image is, or is about to be, gone in a way in which it may have to be registered again.
fn registers_again(record: &Record) -> bool {
    record.action == Action::Deregister
        && record.rebuild.is_some()
        && !matches!(record.outcome, Some(Outcome::Refused | Outcome::Failed))
}

/// The command that registers the image again, as it was, and what it lacks.
fn register_again(record: &Record, rebuild: &Rebuild, with_tags: bool) -> Vec<String> {
    let mut request = rebuild.register_image.clone();
    let mut lines = Vec::new();
    if let (Some(members), false) = (request.as_object_mut(), with_tags)
        && let Some(tags) = members.remove("TagSpecifications")
    {
        let number = tags.pointer("/0/Tags").and_then(Value::as_array);
        lines.push(format!(
            "The command leaves out the image's tags, {} in number, because it would be too long. The record has them \
             (`rebuild.register_image.TagSpecifications`).",
            number.map_or(0, Vec::len)
        ));
    }
    lines.push(format!(
        "aws ec2 register-image --region {} --cli-input-json {}",
        region(record),
        shell_quoted(&escaped_json(&request.to_string()))
    ));
    lines
}

/// What the image had that RegisterImage cannot bring back, each with the command that does.
fn not_in_the_request(record: &Record, rebuild: &Rebuild) -> Vec<String> {
    let region = region(record);
    let on_the_new =
        |command: &str| format!("aws ec2 {command} --region {region} --image-id '<the new image>'");
    let mut steps = launch_permissions(record, None);
    if let Some(at) = rebuild.deprecate_at {
        // EC2 API reference, "EnableImageDeprecation": "You can't specify a date in the past".
        steps.push(
            "It had a deprecation time, and EC2 accepts a future one only. To set it again:"
                .to_owned(),
        );
        steps.push(format!(
            "{} --deprecate-at {}",
            on_the_new("enable-image-deprecation"),
            at.to_rfc3339_opts(SecondsFormat::Secs, true)
        ));
    }
    if let Some(protection) = &rebuild.deregistration_protection {
        let cooldown = match protection.as_str() {
            "enabled-with-cooldown" => " --with-cooldown",
            _ => "",
        };
        steps.push("It had deregistration protection. To protect the new image:".to_owned());
        steps.push(format!(
            "{}{cooldown}",
            on_the_new("enable-image-deregistration-protection")
        ));
    }
    let boot_mode = rebuild.register_image.get("BootMode");
    if boot_mode
        .and_then(Value::as_str)
        .is_some_and(|mode| mode.starts_with("uefi"))
    {
        // EC2 API reference, "Image": it has no UefiData.
        steps.push(
            "It boots by UEFI, and DescribeImages does not show UEFI variables. If it had its own (Secure Boot keys), \
             read them from an instance of the image before you register it, and pass them as --uefi-data:"
                .to_owned(),
        );
        steps.push(format!(
            "aws ec2 get-instance-uefi-data --region {region} --instance-id '<an instance of the image>' --query UefiData \
             --output text"
        ));
    }
    steps
}

/// How those who could launch instances from the image can again: neither enabling it nor registering it brings that back
/// (EC2 User Guide, "Disable an Amazon EC2 AMI"). Restoring it from the Recycle Bin does (EC2 User Guide, "Recover deregistered
/// AMIs").
fn launch_permissions(record: &Record, image: Option<&str>) -> Vec<String> {
    let Some(rebuild) = &record.rebuild else {
        return vec![
            "Who could launch instances from it, its record in the log and in the ledger says."
                .into(),
        ];
    };
    let permissions = &rebuild.launch_permissions;
    if permissions.is_empty() {
        return Vec::new();
    }
    let json = serde_json::json!({ "Add": permissions }).to_string();
    let region = region(record);
    let command = format!(
        "aws ec2 modify-image-attribute --region {region} --image-id {} --launch-permission {}",
        image.unwrap_or("'<the new image>'"),
        shell_quoted(&escaped_json(&json))
    );
    match command.len() <= LONGEST_TAGS {
        true => vec!["It was shared. To share it again:".to_owned(), command],
        false => vec![format!(
            "It was shared with {} others, too many for a command here. The record has them all \
             (`rebuild.launch_permissions`).",
            permissions.len()
        )],
    }
}

/// A text in the making, line by line.
#[derive(Default)]
struct Text(String);

impl Text {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn heading(&mut self, heading: &str) {
        self.line("");
        self.line(heading);
    }

    /// A named value from outside.
    fn field(&mut self, name: &str, value: &Option<String>) {
        let value = match value.as_deref() {
            None | Some("") => "-".into(),
            Some(value) => plain(value),
        };
        self.line(&format!("  {name:<12} {value}"));
    }
}

/// What was done, or why nothing, a sentence a line.
fn deeds(record: &Record) -> Vec<String> {
    let error = || plain(record.error.as_deref().unwrap_or("no reason given"));
    let mut deeds = match (record.action, record.outcome) {
        (Action::Hold, _) => {
            let held = record.held_by.iter();
            let held = held.map(|interlock| format!("  {interlock}: {}", why_held(record, *interlock)));
            let mut deeds: Vec<String> = std::iter::once("Nothing. A discard was due, and is held by:".to_owned())
                .chain(held)
                .collect();
            if record.held_by.contains(&Interlock::Shared)
                && record.shared_with.last().is_some_and(|last| more(last).is_some())
            {
                deeds.push("To list all whom it is shared with:".to_owned());
                deeds.push(format!(
                    "{} --attribute launchPermission",
                    aws_ec2(record, "describe-image-attribute", "--image-id")
                ));
            }
            deeds
        }
        (Action::None | Action::Alert, _) => {
            let mut deeds = vec!["Nothing: this verdict is told, never acted upon.".to_owned()];
            if record.kind == Some(Mismatch::Extra) {
                deeds.push("Nothing is unlicensed: somebody pays for more than is expected.".to_owned());
            }
            deeds
        }
        (_, Some(Outcome::Refused)) => {
            let mut deeds = vec![
                "Nothing: EC2 refused, and the image stands. It will not be tried again by itself.".to_owned(),
                format!("  {}", error()),
            ];
            deeds.extend(by_hand(record));
            return deeds;
        }
        (_, Some(Outcome::Failed)) => {
            let mut deeds = vec![
                "Nothing that is known of: it did not get through. Its event comes back within minutes, and what became \
                 of the image is looked at again; it is not tried more than seven times.".to_owned(),
                format!("  {}", error()),
            ];
            if let Some(undo) = undo(record) {
                deeds.push("If it turns out to be gone, and is needed:".to_owned());
                deeds.push(undo);
            }
            return deeds;
        }
        (Action::Deregister, Some(Outcome::Done)) if record.recycle_bin != Some(RecycleBin::Absent) => {
            let until = match (record.recycle_bin, record.recoverable_until) {
                (Some(RecycleBin::In), Some(until)) => {
                    format!("is in the Recycle Bin until {}", until.to_rfc3339())
                }
                (Some(RecycleBin::In), None) => "is in the Recycle Bin".to_owned(),
                _ => "whether it is in the Recycle Bin is not known".to_owned(),
            };
            vec![format!("The image was deregistered, and {until}. Its snapshots stay.")]
        }
        (Action::Disable, Some(Outcome::Done)) => vec!["The image was disabled.".to_owned()],
        (Action::Deregister, Some(Outcome::Done)) => vec![
            "The image was deregistered, and is NOT in the Recycle Bin: no active rule keeps it, and it can not be \
             restored. Its snapshots stay: register a new image from them."
                .to_owned(),
        ],
        (Action::Deregister, _) => vec![
            format!(
                "The image is deregistered right after this message. {}nstances that run from it go on.",
                match record.instance_store {
                    true => "I",
                    false => "Its snapshots stay, and i",
                }
            ),
            if record.undo.is_some() {
                format!(
                    "It is marked with the tag {DISCARD_TAG}={DISCARD_VALUE}, by which a Recycle Bin rule \
                     keeps it, if one is active."
                )
            } else {
                "The Recycle Bin does not keep an instance-store-backed image. Its bundle in S3 stays, \
                 and it can be registered from that again."
                    .to_owned()
            },
        ],
        (Action::Disable, _) => vec![
            "The image is disabled right after this message: nothing can be launched from it until it \
             is enabled again."
                .to_owned(),
        ],
    };
    if record.action.is_discard() && record.outcome == Some(Outcome::Planned) {
        deeds.push("No other message follows, unless something goes wrong.".to_owned());
    }
    if record.error.is_some() {
        deeds.push(format!("  {}", error()));
    }
    deeds
}

/// Why an interlock holds, as exactly as the record knows it.
pub fn why_held(record: &Record, interlock: Interlock) -> String {
    match (interlock, &record.before) {
        (Interlock::DiscardedBefore, Some(before)) => format!(
            "{before}. What people bring back is never discarded again: deregister it yourself if it is to go"
        ),
        (Interlock::InUse, _) if !record.references.is_empty() => {
            "something refers to it, which is listed here".to_owned()
        }
        (Interlock::InUse, _) => "whether anything refers to it could not be found out".to_owned(),
        (Interlock::Shared, _) if !record.shared_with.is_empty() => {
            let named = record.shared_with.iter().map(|name| match name.as_str() {
                "all" => "everybody",
                name => name,
            });
            format!(
                "it is shared with {}, and what they use it for cannot be seen from this account",
                named.collect::<Vec<_>>().join(", ")
            )
        }
        (Interlock::ServiceRegistered, _) => why_a_service_holds(record.service.as_deref()),
        _ => interlock.meaning().to_owned(),
    }
}

/// What it means for a discard that this AWS service registered the image.
fn why_a_service_holds(service: Option<&str>) -> String {
    let Some(service) = service else {
        return Interlock::ServiceRegistered.meaning().to_owned();
    };
    let named = plain(service);
    let is = |names: &[&str]| names.iter().any(|name| service.contains(name));
    let depends = if is(&["drs.", "ElasticDisasterRecovery", "Elastic Disaster"]) {
        "a recovery may depend on it"
    } else if is(&[
        "mgn.",
        "ApplicationMigration",
        "Application Migration",
        "vmie.",
        "VM Import",
    ]) {
        "a migration may depend on it"
    } else if is(&["ssm."]) {
        "as a rule this is an automation document of your own"
    } else if is(&["imagebuilder.", "Image Builder"]) {
        "as a rule this is a pipeline of your own"
    } else {
        "what depends on the image is not known"
    };
    format!(
        "{named}, an AWS service, registered the image: {depends}. To have such images discarded, set the policy's \
         discard.service_registered to \"discard\""
    )
}

/// The command that takes a discard back; `None` where there is none.
pub(crate) fn undo(record: &Record) -> Option<String> {
    match record.action {
        Action::Disable => Some(aws_ec2(record, "enable-image", "--image-id")),
        // The Recycle Bin keeps EBS-backed images alone (EBS User Guide, "Recycle Bin").
        Action::Deregister if record.instance_store => None,
        Action::Deregister => Some(aws_ec2(
            record,
            "restore-image-from-recycle-bin",
            "--image-id",
        )),
        Action::None | Action::Alert | Action::Hold => None,
    }
}

/// What a person can do about a discard that EC2 refused: sentences, and commands on lines of their own.
fn by_hand(record: &Record) -> Vec<String> {
    let command = match record.action {
        Action::Disable => "disable-image",
        _ => "deregister-image",
    };
    let command = aws_ec2(record, command, "--image-id");
    match record.refusal {
        Some(Refusal::Protected) => vec![
            "Somebody wants it kept: it has deregistration protection. If it is to go, take the protection away:"
                .to_owned(),
            aws_ec2(record, "disable-image-deregistration-protection", "--image-id"),
            "Wait for a day if the protection has a cool-down. Then discard it:".to_owned(),
            command,
        ],
        Some(Refusal::BackupManaged) => vec![
            "It is a recovery point of AWS Backup, and only AWS Backup deletes it: find it in its vault, and delete it \
             there if it is to go."
                .to_owned(),
        ],
        Some(Refusal::NotOwner) => vec![
            "EC2 takes it for another account's image, or one of a service: only its owner can discard it."
                .to_owned(),
        ],
        Some(Refusal::Denied) => vec![
            "Restore the permission in the template, or look for a service control policy that takes it away. To \
             discard it yourself:"
                .to_owned(),
            command,
        ],
        Some(Refusal::Other) | None => vec!["To discard it yourself:".to_owned(), command],
    }
}

/// What an image could be created from anew.
#[derive(Clone, Debug)]
pub(crate) struct Anew {
    /// The instance whose root volume its root snapshot was taken of, and what that bills.
    pub(crate) origin: Origin,
    /// Whether that is what the image should bill.
    pub(crate) right: bool,
    /// The tags of the image.
    pub(crate) tags: BTreeMap<String, String>,
}

/// How images that Packer registers keep their billing code (Packer's documentation, "amazon-ebssurrogate").
pub(crate) const AT_PACKER: &str = "Packer registered it. So that its next images keep the billing code: the builder amazon-ebssurrogate with \
     `use_create_image = true` makes them by CreateImage.";

/// How to get an image that bills what it should: sentences, and commands, each of them complete. A placeholder in a
/// command is quoted, so that a shell does not take it for a redirection.
pub(crate) fn fix(record: &Record, anew: Option<&Anew>) -> Vec<String> {
    let declare = format!(
        "{} --tags 'Key={EXPECT_TAG},Value=<what it should bill>'",
        aws_ec2(record, "create-tags", "--resources")
    );
    match record.verdict {
        Verdict::Mismatch(kind) => {
            if let Some(steps) = correct_product_codes(record) {
                return steps;
            }
            let mut steps = match anew {
                Some(anew) if anew.right => from_instance(record, anew),
                _ if record.instance_store => from_another_bundle(record),
                _ => from_another_image(record, anew),
            };
            // An empty field is wrong whatever anybody declares.
            if kind != Mismatch::Empty {
                let first = match record.action {
                    Action::Deregister | Action::Disable => {
                        ", once the image is there again if it is gone"
                    }
                    _ => "",
                };
                steps.push(format!("Or, if what it bills is right, say so{first}:"));
                steps.push(declare);
            }
            steps
        }
        Verdict::Conflict if ec2_is_clear(record) => {
            let mut steps = match anew {
                Some(anew) => {
                    let bills = anew.origin.bills;
                    // What was declared is what is in doubt.
                    let mut anew = anew.clone();
                    anew.tags.remove(EXPECT_TAG);
                    let mut steps = from_instance(record, &anew);
                    steps.push(format!("This is if it should bill `{bills}`."));
                    steps
                }
                None => vec![
                    "If what was observed is right: create the image from an instance that has the code.".into(),
                ],
            };
            steps.push("If a declaration is wrong, correct it:".to_owned());
            steps.push(declare);
            steps.push(
                "If what was observed misleads, no tag helps: exempt the image by an [[exempt]] rule of the policy."
                    .into(),
            );
            steps
        }
        Verdict::Unverifiable if ec2_is_clear(record) => {
            vec!["Say what the image should bill:".to_owned(), declare]
        }
        // Told of for its tag alone.
        Verdict::Verified if record.action == Action::Alert => {
            vec!["Correct the tag:".to_owned(), declare]
        }
        Verdict::Conflict | Verdict::Unverifiable => vec![
            "What EC2 says of the image contradicts itself, or is new to this version of the guard: no \
             declaration helps. Ask AWS Support what the image bills, or look for a newer version."
                .into(),
        ],
        _ => Vec::new(),
    }
}

/// What to do about an image of the right platform whose product codes are not as expected.
fn correct_product_codes(record: &Record) -> Option<Vec<String>> {
    let (actual, expected) = (record.actual.as_ref()?, record.expected.as_ref()?);
    let billing = actual.billed_as().billing()?;
    let platforms = Platforms::parse(expected.platform.iter().map(String::as_str)).ok();
    if platforms
        .as_ref()
        .is_some_and(|it| it.difference(&billing, true) != Difference::None)
    {
        return None;
    }
    let codes = expected.product_codes.as_ref();
    let (wanted, declared_by) = match codes {
        Some(codes) if *codes != actual.product_codes => {
            (product_codes(codes), "rule of the policy")
        }
        None if actual.product_codes.is_empty() => ("its product code".to_owned(), "tag or rule"),
        _ => return None,
    };
    let has = product_codes(&actual.product_codes);
    Some(vec![
        format!(
            "EC2 copies product codes from the root snapshot to the AMI. This AMI has {has}. Create it from an instance, or \
             register it from a snapshot, that has what is expected: {wanted}."
        ),
        format!("Or, if {has} is right, correct the {declared_by} that says otherwise."),
    ])
}

/// From the instance whose root volume the image's snapshot was taken of: one command.
fn from_instance(record: &Record, anew: &Anew) -> Vec<String> {
    let (tags, left_out) = tag_specifications(&anew.tags);
    let name = record.name.as_deref().unwrap_or_default();
    let mut command = format!(
        "aws ec2 create-image --region {} --instance-id {} {}",
        region(record),
        word(Some(&anew.origin.instance), "the instance"),
        name_option(name)
    );
    if let Some(tags) = tags {
        command.push_str(" --tag-specifications ");
        command.push_str(&tags);
    }
    let mut steps = vec![
        command,
        "It restarts the instance for a moment, unless --no-reboot is added, and takes what is on its disks now, \
         not what was there when the snapshot was taken."
            .to_owned(),
        "As long as this image has the name, it must be another.".to_owned(),
    ];
    if left_out > 0 {
        steps.push(format!(
            "{left_out} of the image's tags are not in the command, because it would be too long. The image has them. After a \
             discard, the record has them too (`rebuild.register_image.TagSpecifications`)."
        ));
    }
    steps
}

fn from_another_image(record: &Record, anew: Option<&Anew>) -> Vec<String> {
    let platform = expected_platform(record);
    let region = region(record);
    let snapshot = word(record.snapshot_id.as_deref(), "the snapshot");
    let base = shell_quoted(&format!("<an AMI that bills {platform}>"));
    let name = record.name.as_deref().unwrap_or_default();
    vec![
        format!(
            "A billing code can not be put on an AMI afterwards: create the AMI from an instance that has it ({platform})."
        ),
        match anew {
            None => "1. Is there an instance whose root volume the snapshot was taken from? Then go to 4 with it. Else:".into(),
            Some(Anew { origin, .. }) => format!(
                "1. {}, whose root volume the snapshot was taken from, bills `{}`: it will not do. So:",
                origin.instance, origin.bills
            ),
        },
        format!("2. Launch an instance from an AMI that bills {platform}, and stop it when it runs:"),
        format!(
            "aws ec2 run-instances --region {region} --image-id {base} --instance-type '<type>'"
        ),
        format!("aws ec2 stop-instances --region {region} --instance-ids '<the instance>'"),
        "3. Make a volume of the snapshot where the instance is, and attach it in place of the root volume:".into(),
        format!(
            "aws ec2 create-volume --region {region} --snapshot-id {snapshot} --availability-zone '<zone of the instance>'"
        ),
        "4. Create the image. As long as this image has the name, it must be another:".into(),
        format!(
            "aws ec2 create-image --region {region} --instance-id '<the instance>' {}",
            name_option(name)
        ),
        "Until then, a Reserved Instance for that platform does not apply to instances of this image.".into(),
    ]
}

/// CreateImage takes EBS-backed instances alone (EC2 API reference, "CreateImage").
fn from_another_bundle(record: &Record) -> Vec<String> {
    let platform = expected_platform(record);
    vec![
        "A billing code can not be put on an AMI afterwards, and this image is instance-store-backed: \
         CreateImage can not make such a one anew."
            .into(),
        format!(
            "Launch an EBS-backed instance from an AMI that bills {platform}, bring onto it what this image has, and \
             create the image from that instance."
        ),
        "The image's bundle in S3 stays, whatever becomes of the image.".into(),
    ]
}

fn expected_platform(record: &Record) -> String {
    match &record.expected {
        Some(expected) => plain(&expected.text()),
        None => "the right platform".into(),
    }
}

/// `--name` with an image's name, if it is one (EC2 API reference, "CreateImage": 3 to 128 letters,
/// digits and a few signs).
fn name_option(name: &str) -> String {
    let fits = (3..=128).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b" ()[]./-'@_".contains(&byte));
    match fits {
        // The aws command line would take a word that begins so for an option.
        true if name.starts_with('-') => format!("--name={}", shell_quoted(name)),
        true => format!("--name {}", shell_quoted(name)),
        false => "--name '<name>'".to_owned(),
    }
}

/// The tags as `--tag-specifications` takes them, in JSON and quoted for a shell, and how many there
/// was no room for. AWS's own tags can not be set, and the guard's marks are this image's alone.
fn tag_specifications(tags: &BTreeMap<String, String>) -> (Option<String>, usize) {
    let kept = tags.iter().filter(|(key, _)| is_of_people(key));
    let quoted = |tags: &[serde_json::Value]| {
        let json = serde_json::json!([{ "ResourceType": "image", "Tags": tags }]);
        shell_quoted(&escaped_json(&json.to_string()))
    };
    let mut carried = Vec::new();
    let mut left_out = 0;
    for (key, value) in kept {
        carried.push(serde_json::json!({ "Key": key, "Value": value }));
        if quoted(&carried).len() > LONGEST_TAGS {
            carried.pop();
            left_out += 1;
        }
    }
    let tags = (!carried.is_empty()).then(|| quoted(&carried));
    (tags, left_out)
}

/// Whether it is known what EC2 bills the image as.
fn ec2_is_clear(record: &Record) -> bool {
    let actual = record.actual.as_ref();
    actual.is_some_and(|actual| matches!(actual.billed_as(), BilledAs::Known { .. }))
}

/// The record's Region as one word of a command.
fn region(record: &Record) -> String {
    word(record.region.as_deref(), "region")
}

/// A value as one word of a command, or a placeholder for it.
fn word(value: Option<&str>, placeholder: &str) -> String {
    match value {
        Some(value) if is_word(value) => value.to_owned(),
        _ => shell_quoted(&format!("<{placeholder}>")),
    }
}

/// Whether a text is an id or a name that means nothing else to a shell.
fn is_word(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Whether a line is a command: it stands alone, and can be copied and run.
pub fn is_command(line: &str) -> bool {
    line.starts_with("aws ") || line.starts_with("ami-guard ")
}

fn aws_ec2(record: &Record, command: &str, option: &str) -> String {
    let image = word(record.image_id.as_deref(), "image");
    let region = region(record);
    format!("aws ec2 {command} {option} {image} --region {region}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::billing::{Billing, Licence, Os};
    use crate::event::Ignored;
    use crate::expectation::Source;
    use crate::plan::Interlock;
    use crate::record::{Actual, Statement};

    fn record() -> Record {
        Record {
            image_id: Some("ami-0a1b2c3d4e5f60001".into()),
            name: Some("win2022-golden".into()),
            region: Some("eu-west-1".into()),
            account: Some("123456789012".into()),
            registered_by: Some("arn:aws:sts::123456789012:assumed-role/pipeline/4711".into()),
            snapshot_id: Some("snap-0a1b2c3d4e5f60001".into()),
            verdict: Verdict::Mismatch(Mismatch::Wrong),
            kind: Some(Mismatch::Wrong),
            reason: "image-tag says Windows, but the image bills `Linux/UNIX`".into(),
            actual: Some(Actual {
                platform_details: Some("Linux/UNIX".into()),
                usage_operation: Some("RunInstances".into()),
                product_codes: Default::default(),
            }),
            expected: Some(Expected {
                platform: vec!["Windows".into()],
                source: Source::ImageTag,
                product_codes: None,
            }),
            evidence: vec![Statement {
                source: Source::ImageTag,
                state: "spoke",
                says: vec!["Windows".into()],
                product_codes: None,
                detail: "ami-billing-guard:expect=Windows".into(),
            }],
            action: Action::Deregister,
            outcome: Some(Outcome::Planned),
            undo: Some(
                "aws ec2 restore-image-from-recycle-bin --image-id ami-0a1b2c3d4e5f60001".into(),
            ),
            ..Record::ignored(Ignored {
                event_id: Some("e-1".into()),
                account: None,
                region: None,
                reason: String::new(),
            })
        }
    }

    fn with_fix(mut record: Record) -> Record {
        record.fix = fix(&record, None);
        record
    }

    #[test]
    fn a_person_reads_what_was_registered_what_it_bills_what_is_done_and_what_to_do() {
        let text = text(&with_fix(record()));
        for part in [
            "ami-0a1b2c3d4e5f60001 is being deregistered: image-tag says Windows, but the image bills `Linux/UNIX`.",
            "  name         win2022-golden",
            "  by           arn:aws:sts::123456789012:assumed-role/pipeline/4711",
            "  snapshot     snap-0a1b2c3d4e5f60001",
            "  bills        Linux/UNIX",
            "  should bill  Windows",
            "  who says so  image-tag",
            "\naws ec2 create-image --region eu-west-1 --instance-id '<the instance>' --name 'win2022-golden'\n",
            "a Reserved Instance for that platform does not apply",
            "aws ec2 restore-image-from-recycle-bin --image-id ami-0a1b2c3d4e5f60001",
        ] {
            assert!(text.contains(part), "{part:?} in:\n{text}");
        }
    }

    #[test]
    fn a_held_discard_says_by_what_and_an_unverifiable_image_how_to_declare() {
        let held = Record {
            action: Action::Hold,
            outcome: None,
            held_by: vec![Interlock::ObserveMode, Interlock::TooOld],
            undo: None,
            ..record()
        };
        let text = text(&with_fix(held));
        assert!(
            text.contains("  observe-mode: the guard runs in observe mode"),
            "{text}"
        );
        assert!(text.contains("  too-old: "), "{text}");
        assert!(!text.contains("take the discard back"), "{text}");
        let unverifiable = Record {
            verdict: Verdict::Unverifiable,
            kind: None,
            action: Action::Alert,
            outcome: None,
            ..record()
        };
        assert!(super::text(&with_fix(unverifiable)).contains(
            "aws ec2 create-tags --resources ami-0a1b2c3d4e5f60001 --region eu-west-1 --tags 'Key=ami-billing-guard:expect"
        ));
    }

    #[test]
    fn subjects_fit_the_limits_of_sns() {
        for action in [
            Action::Deregister,
            Action::Disable,
            Action::Hold,
            Action::Alert,
        ] {
            for outcome in [
                None,
                Some(Outcome::Planned),
                Some(Outcome::Done),
                Some(Outcome::Refused),
                Some(Outcome::Failed),
            ] {
                for kind in [
                    Mismatch::Empty,
                    Mismatch::Missing,
                    Mismatch::Wrong,
                    Mismatch::Extra,
                ] {
                    let subject = subject(&Record {
                        action,
                        outcome,
                        verdict: Verdict::Mismatch(kind),
                        kind: Some(kind),
                        ..record()
                    });
                    assert!(subject.is_ascii() && subject.len() < 100, "{subject}");
                    assert!(subject.ends_with(['d', 'k']), "cut off: {subject}");
                }
            }
        }
    }

    #[test]
    fn text_from_outside_forges_no_line_and_moves_no_cursor() {
        let evil = "x\nWhat was done\r\n\u{1b}[2J\u{9b}2J\u{2028}\u{202e}gone\u{0}";
        let text = text(&with_fix(Record {
            name: Some(evil.into()),
            registered_by: Some(evil.into()),
            event_id: Some(evil.repeat(1000)),
            reason: evil.into(),
            error: Some(evil.into()),
            ..record()
        }));
        let honest = super::text(&with_fix(Record {
            error: Some("e".into()),
            // Cut as well, and so said.
            event_id: Some("e".repeat(1000)),
            ..record()
        }));
        assert_eq!(text.lines().count(), honest.lines().count());
        assert_eq!(text.matches("\nWhat was done\n").count(), 1);
        assert!(!text.contains(|c: char| c != '\n' && c.is_control()));
        assert!(!text.contains(['\u{2028}', '\u{202e}']));
        assert!(text.lines().all(|line| line.len() < 1000));
    }

    /// What a shell hands to `aws`.
    fn arguments(command: &str) -> Vec<String> {
        let script = format!("aws() {{ printf '%s\\0' \"$@\"; }}\n{command}");
        let shell = std::process::Command::new("sh")
            .args(["-c", &script])
            .output()
            .unwrap();
        assert!(shell.status.success());
        let output = String::from_utf8(shell.stdout).unwrap();
        let words = output.strip_suffix('\0').unwrap().split('\0');
        words.map(str::to_owned).collect()
    }

    fn origin() -> Origin {
        Origin {
            instance: "i-0a1b2c3d4e5f60001".into(),
            bills: Billing {
                os: Os::Windows,
                licence: Licence::Included,
                sql: None,
                ha: false,
            },
        }
    }

    fn create_image(name: &str, tags: &[(&str, &str)]) -> Vec<String> {
        let record = Record {
            name: Some(name.into()),
            action: Action::Deregister,
            ..record()
        };
        let anew = Anew {
            origin: origin(),
            right: true,
            tags: tags
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect(),
        };
        fix(&record, Some(&anew))
    }

    #[test]
    fn the_instance_that_lineage_found_gives_the_exact_command() {
        let steps = create_image(
            "it's [golden] (2022)",
            &[
                ("Name", "a \"quoted\" $(value), [x] `y` 'z'"),
                ("ami-billing-guard:expect", "Windows"),
                ("ami-billing-guard:discard", "true"),
                ("aws:cloudformation:stack-name", "s"),
                ("Zeile", "ä\u{202e}b\nc"),
            ],
        );
        let command = steps.first().unwrap();
        assert!(command.starts_with(
            "aws ec2 create-image --region eu-west-1 --instance-id i-0a1b2c3d4e5f60001 --name "
        ));
        assert!(!command.contains(['\n', '\u{202e}']), "{command}");
        let arguments = arguments(command);
        let tags = serde_json::from_str::<serde_json::Value>(arguments.last().unwrap()).unwrap();
        assert_eq!(
            arguments[..arguments.len() - 1],
            [
                "ec2",
                "create-image",
                "--region",
                "eu-west-1",
                "--instance-id",
                "i-0a1b2c3d4e5f60001",
                "--name",
                "it's [golden] (2022)",
                "--tag-specifications"
            ]
        );
        assert_eq!(
            tags,
            serde_json::json!([{ "ResourceType": "image", "Tags": [
                { "Key": "Name", "Value": "a \"quoted\" $(value), [x] `y` 'z'" },
                { "Key": "Zeile", "Value": "ä\u{202e}b\nc" },
                { "Key": "ami-billing-guard:expect", "Value": "Windows" },
            ] }])
        );
    }

    #[test]
    fn a_name_is_one_word_for_a_shell_and_no_option() {
        let name = |name: &str| arguments(&create_image(name, &[])[0]).split_off(6);
        assert_eq!(name("it's a 'name'"), ["--name", "it's a 'name'"]);
        assert_eq!(name("--dry-run"), ["--name=--dry-run"]);
        // No image can have such a name.
        for impossible in ["$(rm -rf ~)", "", "a;b", "file://x", "ä\u{202e}b"] {
            assert_eq!(name(impossible), ["--name", "<name>"]);
        }
    }

    #[test]
    fn tags_that_would_make_the_command_too_long_are_counted() {
        let long = "'".repeat(256);
        let keys: Vec<String> = (0..50).map(|number| format!("key-{number:02}")).collect();
        let tags: Vec<(&str, &str)> = keys
            .iter()
            .map(|key| (key.as_str(), long.as_str()))
            .collect();
        let steps = create_image("golden", &tags);
        let words = arguments(&steps[0]);
        let carried = words.last().unwrap().matches("\"Key\"").count();
        assert!(steps[0].len() < LONGEST_TAGS + 200);
        let counted = format!(
            "{} of the image's tags are not in the command",
            50 - carried
        );
        assert!(carried > 0 && steps[steps.len() - 2].contains("say so"));
        assert!(
            steps.iter().any(|step| step.starts_with(&counted)),
            "{steps:?}"
        );
        let record = Record {
            fix: steps,
            ..record()
        };
        // SNS counts all bodies of a message.
        assert!(message(&record).bodies.len() < 200 * 1024);
    }

    #[test]
    fn every_message_fits_what_sns_takes_however_long_and_whatever_its_words_are() {
        for word in ["\u{202e}", "\"", "\\", "\u{1b}", "ä", "\u{e0041}"] {
            let long = word.repeat(10_240);
            let message = message(&with_fix(Record {
                name: Some(long.clone()),
                registered_by: Some(long.clone()),
                reason: long.clone(),
                error: Some(long.clone()),
                actual: Some(Actual {
                    platform_details: Some(long.clone()),
                    usage_operation: Some(long.clone()),
                    product_codes: Default::default(),
                }),
                references: vec![long.clone(); 100],
                fix: vec![long.clone(); 10],
                ..record()
            }));
            assert!(
                message.bodies.len() < 250 * 1024,
                "{word:?}: {}",
                message.bodies.len()
            );
            assert!(
                message.chat.len() < 64 * 1024,
                "{word:?}: {}",
                message.chat.len()
            );
            let bodies: Value = serde_json::from_str(&message.bodies).unwrap();
            let record: Value = serde_json::from_str(bodies["sqs"].as_str().unwrap()).unwrap();
            assert_eq!(record["verdict"], "mismatch");
        }
    }

    /// The record of a discard, with a request that registers the image again.
    fn with_request(request: Value) -> Record {
        Record {
            rebuild: Some(Rebuild {
                register_image: request,
                launch_permissions: Vec::new(),
                deprecate_at: None,
                deregistration_protection: None,
            }),
            ..record()
        }
    }

    fn parts(message: &Message) -> (String, Value) {
        let bodies: Value = serde_json::from_str(&message.bodies).unwrap();
        let programs = serde_json::from_str(bodies["sqs"].as_str().unwrap()).unwrap();
        (bodies["email"].as_str().unwrap().to_owned(), programs)
    }

    #[test]
    fn the_request_that_registers_again_is_left_out_last_and_never_without_a_word() {
        let tags = |number: usize, value: &str| {
            let tag = |n: usize| serde_json::json!({ "Key": format!("k{n}"), "Value": value });
            let tags: Vec<Value> = (0..number).map(tag).collect();
            serde_json::json!({
                "Name": "golden",
                "TagSpecifications": [{ "ResourceType": "image", "Tags": tags }],
            })
        };
        let request = |mail: &str| -> Option<Value> {
            let command = mail
                .lines()
                .find(|it| it.starts_with("aws ec2 register-image"))?;
            serde_json::from_str(arguments(command).last().unwrap()).ok()
        };
        let has_tags = |request: &Value| request.get("TagSpecifications").is_some();

        // All of it fits.
        let (mail, programs) = parts(&message(&with_request(tags(46, &"a".repeat(256)))));
        assert!(has_tags(&request(&mail).unwrap()));
        assert!(has_tags(&programs["rebuild"]["register_image"]));
        assert!(programs.get("left_out").is_none() && !mail.contains("leaves out"));

        // The mail has all of it, the part for programs says what it leaves out.
        let (mail, programs) = parts(&message(&with_request(tags(46, &"\"".repeat(256)))));
        assert!(has_tags(&request(&mail).unwrap()));
        assert_eq!(programs["rebuild"]["register_image"]["Name"], "golden");
        assert!(!has_tags(&programs["rebuild"]["register_image"]));
        let said = "the image's tags: 46 (`rebuild.register_image.TagSpecifications`)";
        assert!(
            programs["left_out"].to_string().contains(said),
            "{programs}"
        );
        assert!(mail.contains(said), "{mail}");

        // Neither has the tags, both have the request.
        let (mail, programs) = parts(&message(&with_request(tags(46, &"\u{202e}".repeat(2560)))));
        assert_eq!(request(&mail).unwrap()["Name"], "golden");
        assert!(!has_tags(&request(&mail).unwrap()));
        assert!(
            mail.contains("leaves out the image's tags, 46 in number"),
            "{mail}"
        );
        assert_eq!(programs["rebuild"]["register_image"]["Name"], "golden");

        // Longer than anything that EC2 allows.
        let long = serde_json::json!({ "Description": "\"".repeat(100_000) });
        let (mail, programs) = parts(&message(&with_request(long)));
        assert_eq!(request(&mail), None);
        assert!(programs["rebuild"].is_null());
        assert!(mail.contains("\nHow to register it again\n"), "{mail}");
        assert!(mail.contains("the request that registers the image again (`rebuild`)"));
        let key = "123456789012#eu-west-1#ami-0a1b2c3d4e5f60001";
        assert!(mail.contains(key), "{mail}");
        let look = "aws logs filter-log-events --region eu-west-1 --log-group-name '<the log group>' --filter-pattern '\"e-1\"'";
        assert!(mail.lines().any(|line| line == look), "{mail}");
    }

    #[test]
    fn lists_that_are_cut_say_how_to_see_the_rest() {
        let mut references: Vec<String> = (0..100).map(|n| format!("arn:aws:{n}")).collect();
        references.push("and 23 more".into());
        let held = Record {
            action: Action::Hold,
            outcome: None,
            undo: None,
            held_by: vec![Interlock::InUse, Interlock::Shared],
            shared_with: vec!["210987654321".into(), "and 4 more".into()],
            references,
            ..record()
        };
        let message = message(&held);
        let (mail, _) = parts(&message);
        for command in [
            "aws ec2 describe-image-references --image-ids ami-0a1b2c3d4e5f60001 --region eu-west-1 --include-all-resource-types",
            "aws ec2 describe-image-attribute --image-id ami-0a1b2c3d4e5f60001 --region eu-west-1 --attribute launchPermission",
        ] {
            assert!(
                mail.lines().any(|line| line == command),
                "{command} in:\n{mail}"
            );
        }
        assert!(mail.contains("and 23 more. To list all of them:"), "{mail}");
        assert!(message.chat.contains("and 113 more, which the mail has"));

        // Of those that the record has, a message that is too long leaves some out.
        let long = Record {
            references: [vec!["\"".repeat(10_000); 100], vec!["and 23 more".into()]].concat(),
            ..held
        };
        let (mail, programs) = parts(&super::message(&long));
        assert!(
            mail.contains("and 113 more. To list all of them:"),
            "{mail}"
        );
        assert!(
            mail.contains("refers to the image: 113 (`references`)"),
            "{mail}"
        );
        assert_eq!(programs["references"][10], "and 113 more");
        assert!(programs["left_out"].is_array());
    }

    #[test]
    fn what_register_image_cannot_bring_back_has_its_command_where_the_image_had_it() {
        let rebuild = Rebuild {
            register_image: serde_json::json!({ "Name": "golden" }),
            launch_permissions: Vec::new(),
            deprecate_at: None,
            deregistration_protection: None,
        };
        let with = |rebuild: &Rebuild| {
            text(&Record {
                rebuild: Some(rebuild.clone()),
                ..record()
            })
        };
        let nothing = with(&rebuild);
        assert!(!nothing.contains("'<the new image>'"), "{nothing}");
        assert!(!nothing.contains("uefi"), "{nothing}");
        let all = with(&Rebuild {
            register_image: serde_json::json!({ "Name": "golden", "BootMode": "uefi-preferred" }),
            launch_permissions: vec![serde_json::json!({ "UserId": "210987654321" })],
            deprecate_at: "2028-11-25T12:00:00.000Z".parse().ok(),
            deregistration_protection: Some("enabled-with-cooldown".into()),
        });
        for (command, rest) in [
            ("modify-image-attribute", "--launch-permission"),
            (
                "enable-image-deprecation",
                "--deprecate-at 2028-11-25T12:00:00Z\n",
            ),
            (
                "enable-image-deregistration-protection",
                "--with-cooldown\n",
            ),
        ] {
            let command =
                format!("aws ec2 {command} --region eu-west-1 --image-id '<the new image>' {rest}");
            assert!(all.contains(&command), "{command} in:\n{all}");
        }
        assert!(all.contains("aws ec2 get-instance-uefi-data --region eu-west-1"));
    }

    #[test]
    fn an_instance_store_backed_image_can_not_be_made_by_create_image_and_its_bundle_stays() {
        let steps = fix(
            &Record {
                instance_store: true,
                snapshot_id: None,
                ..record()
            },
            None,
        );
        let text = steps.join("\n");
        assert!(text.contains("bundle in S3 stays") && !text.contains("create-volume"));
    }

    #[test]
    fn programs_get_the_record_and_people_the_text() {
        let record = with_fix(record());
        let message = message(&record);
        let bodies: serde_json::Value = serde_json::from_str(&message.bodies).unwrap();
        for people in ["default", "email"] {
            assert_eq!(bodies[people], text(&record));
        }
        for programs in ["sqs", "lambda", "http", "https"] {
            let body: serde_json::Value =
                serde_json::from_str(bodies[programs].as_str().unwrap()).unwrap();
            assert_eq!(body, serde_json::json!(record));
            assert_eq!(body["schema"], 1);
            assert_eq!(body["verdict"], "mismatch");
            assert_eq!(body["kind"], "wrong");
            assert_eq!(body["action"], "deregister");
            assert_eq!(body["outcome"], "planned");
        }
    }
}
