//! The mail: a letter as text. And how the message of a record is shortened until SNS accepts it.

use serde_json::Value;

use super::alert::{self, more};
use super::letter::{Letter, Part, Section};
use super::message::{LONGEST_MESSAGE, bodies, cut};
use crate::escape::{SHOWN, plain};
use crate::record::Record;
use crate::record::remediation::{is_command, is_word, region};

/// Width of a mail, in characters. Commands and ids may be longer.
const WIDTH: usize = 80;

/// Indentation of everything below a heading, and of the rest of a line of the summary.
const INDENT: &str = "  ";
const HANGING: &str = "              ";

/// A letter as the text of a mail. `runbook` is the URL or the file name of the runbook.
pub(super) fn text(letter: &Letter, runbook: Option<&str>) -> String {
    let mut text = wrapped(&letter.happened, "", "");
    text.push('\n');
    let runbook = letter.read_more(runbook);
    let summary = [
        ("Done", Some(letter.done.as_str())),
        ("Production", Some(&letter.production)),
        ("Act", Some(&letter.act)),
        ("First", letter.first.as_deref()),
        ("Read more", Some(&runbook)),
    ];
    for (label, said) in summary {
        let Some(said) = said else { continue };
        let label = format!("{INDENT}{label:<12}");
        match is_command(said) {
            true => text.push_str(&format!("{label}{said}\n")),
            false => text.push_str(&wrapped(said, &label, HANGING)),
        }
    }
    let sections = letter.sections.iter().map(text_of_section);
    sections.for_each(|section| text.push_str(&section));
    text
}

fn text_of_section(section: &Section) -> String {
    let mut text = format!("\n{}\n", section.title.to_uppercase());
    for line in &section.lines {
        match is_command(line) {
            true => text.push_str(&format!("{INDENT}{line}\n")),
            false => text.push_str(&wrapped(line, INDENT, INDENT)),
        }
    }
    text
}

/// A text in lines of at most [`WIDTH`] characters, if its words allow that. Keeps the spaces within it, and does not break
/// it at two or more.
fn wrapped(text: &str, first: &str, rest: &str) -> String {
    let mut wrapped = String::new();
    let mut line = first.to_owned();
    let mut is_empty = true;
    for word in text.split_inclusive(' ') {
        let length = line.chars().count() + word.trim_end().chars().count();
        // The value of a named line stays beside its name. Text from outside must not look like a command.
        let breaks = !line.ends_with("  ") && !matches!(word.trim_end(), "aws" | "ami-guard");
        if length > WIDTH && !is_empty && breaks {
            wrapped.push_str(line.trim_end());
            wrapped.push('\n');
            rest.clone_into(&mut line);
        }
        line.push_str(word);
        is_empty = false;
    }
    wrapped.push_str(line.trim_end());
    wrapped.push('\n');
    wrapped
}

/// The bodies of a record's message, with a note on what was done. While they are too long for SNS, the next one of
/// [`SHORTENINGS`] is applied.
pub(super) fn bodies_of(record: &Record, note: Option<&str>, runbook: Option<&str>) -> String {
    let mut draft = Draft {
        record: record.clone(),
        json: serde_json::json!(record),
        note,
        runbook,
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
    /// URL or file name of the runbook.
    runbook: Option<&'a str>,
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

/// The text of a record's message.
fn text_of(draft: &Draft<'_>) -> String {
    let mut letter = alert::letter(&draft.record, draft.note, draft.with_tags);
    if draft.left_out.iter().any(|it| it.ends_with(REQUEST)) {
        let mut section = Section::new(Part::Details, "Register it again");
        section.line(
            "The request is too long for this message. The record has it (`rebuild`): see below.",
        );
        letter.sections.push(section);
    }
    let mut text = text(&letter, draft.runbook);
    if let Some(section) = left_out(draft, &text) {
        text.push_str(&text_of_section(&section));
    }
    text
}

/// What the message leaves out, and where to find it. `text` is the message.
fn left_out(draft: &Draft<'_>, text: &str) -> Option<Section> {
    // Each text that was cut ends in this character.
    let cut = text.contains('…');
    if draft.left_out.is_empty() && !cut {
        return None;
    }
    let record = &draft.record;
    let mut section = Section::new(Part::Details, "What this message leaves out");
    if cut {
        section.line("The rest of each text that ends in … here.");
    }
    if !draft.left_out.is_empty() {
        section.line("SNS would not accept the whole message, so these are not here:");
        draft.left_out.iter().for_each(|what| section.line(what));
    }
    let item = [&record.account, &record.region, &record.image_id];
    let item = item.map(|part| plain(part.as_deref().unwrap_or("-")));
    section.line(format!(
        "The record has everything, under these keys. It is in the ledger's item {}, and in the function's log group:",
        item.join("#")
    ));
    let event = record.event_id.as_deref().filter(|id| is_word(id));
    section.line(format!(
        "aws logs filter-log-events --region {} --log-group-name '<the log group>' --filter-pattern '\"{}\"'",
        region(record),
        event.unwrap_or("<event id>")
    ));
    Some(section)
}
