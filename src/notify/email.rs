//! The mail of a record, and the body for programs. Both are shortened until SNS accepts them.

use serde_json::Value;

use super::message::{LONGEST_MESSAGE, Text, bodies, cut};
use super::wording::{actions, done, more};
use crate::escape::{SHOWN, plain};
use crate::expectation::product_codes;
use crate::plan::Action;
use crate::record::remediation::{
    aws_ec2, is_word, launch_permissions, not_in_the_request, region, register_again,
    registers_again, word,
};
use crate::record::{Expected, Record};

/// The bodies of a record's message, with a note on what was done. While they are too long for SNS, the next one of
/// [`SHORTENINGS`] is applied.
pub(super) fn bodies_of(record: &Record, note: Option<&str>) -> String {
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
    bodies
}

/// Steps that shorten a message until SNS accepts it, in this order. The request that registers the image again is the
/// most valuable part, so it is left out last.
const SHORTENINGS: [fn(&mut Draft<'_>); 6] = [
    fewer_references,
    no_long_texts,
    no_tags_for_programs,
    no_launch_permissions,
    no_tags_in_the_command,
    no_request,
];

/// Number of references that stay in a message that is too long.
const FEWER_REFERENCES: usize = 10;

/// A message that is being written.
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

    /// A member of the body for programs, by its JSON pointer.
    fn member(&mut self, pointer: &str) -> Option<&mut Value> {
        self.json.pointer_mut(pointer)
    }
}

fn fewer_references(draft: &mut Draft<'_>) {
    let references = &mut draft.record.references;
    let Some(fewer @ 1..) = references.len().checked_sub(FEWER_REFERENCES) else {
        return;
    };
    // The last reference may be `and 3 more`, for references that the record does not have either.
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

/// Where to find the request that registers an image again.
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

/// The text of an alert. It says what was done, what was registered, what the image is billed as, and what is expected.
/// It also says how to correct that, and how to undo the discard.
#[cfg(test)]
pub(super) fn text(record: &Record) -> String {
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
    actions(record).iter().for_each(|action| text.line(action));
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
        "billed as",
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
    text.field("expected", &expected.map(Expected::text));
    text.field(
        "source",
        &expected.map(|expected| expected.source.name().to_owned()),
    );
    for statement in &record.evidence {
        let state = match statement.state {
            "found" => format!("found {}", statement.text()),
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

/// Adds what the message leaves out, and where to find it.
fn left_out(draft: &Draft<'_>, text: &mut Text) {
    // Each text that `plain` cut ends in this character.
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
