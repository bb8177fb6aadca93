//! The alert as chat applications show it. It is a custom notification of Amazon Q Developer in chat applications (its
//! Administrator Guide, "Custom notifications"). From there it goes to Slack, Microsoft Teams or Chime.
//!
//! Each chat application renders it as a Markdown dialect of its own. All text from outside is therefore in code.
//! Characters that could end the code, mention a person or make a link are replaced. AWS does not document how long a
//! notification may be. It is kept well below the length of a Slack message.

use serde_json::{Value, json};

use super::message::A_TEST;
use super::wording::{actions, done, more, subject};
use crate::escape::{escaped_json, inert_markdown, plain};
use crate::event::{Audit, Digest};
use crate::plan::Action;
use crate::record::remediation::{is_command, registers_again};
use crate::record::stored::StoredRecord;
use crate::record::{Actual, Record};

/// Largest length of a block of text, in bytes. Slack accepts 3,000 characters.
const LONGEST_TEXT: usize = 2_500;

/// Largest length of a command in a step, in bytes.
const LONGEST_STEP: usize = 600;

/// Largest number of steps between the first and the last one.
const MOST_STEPS: usize = 4;

/// Largest number of references, or of images of a digest, that are shown.
const MOST: usize = 10;

/// The notification of a record. It says what the record is about, what was done and what to do. Each image has a
/// thread of its own.
pub(super) fn of_record(record: &Record, note: Option<&str>) -> String {
    let image = record.image_id.as_deref().unwrap_or("An AMI");
    let mut facts = Facts::default();
    actions(record).iter().for_each(|action| facts.line(action));
    if let Some(note) = note {
        facts.line(note);
    }
    facts.fact("name", record.name.as_deref());
    facts.fact("by", record.registered_by.as_deref());
    let place = [record.account.as_deref(), record.region.as_deref()];
    facts.fact(
        "in",
        Some(&place.map(|part| part.unwrap_or("-")).join(", ")),
    );
    let actual = record.actual.as_ref();
    facts.fact("billed as", actual.map(Actual::text).as_deref());
    let expected = record
        .expected
        .as_ref()
        .map(|it| format!("{} (source: {})", it.text(), it.source.name()));
    facts.fact("expected", expected.as_deref());
    facts.fact("why", Some(&record.reason));
    for arn in record.references.iter().take(MOST) {
        facts.fact("used by", Some(arn));
    }
    // The last reference may be `and 3 more`, for references that are not named.
    let unnamed = record.references.last().and_then(|last| more(last));
    let number = record.references.len() + unnamed.map_or(0, |unnamed| unnamed.saturating_sub(1));
    if let Some(more @ 1..) = number.checked_sub(MOST) {
        facts.line(&format!("and {more} more, which the mail has"));
    }

    let mut steps: Vec<String> = Vec::new();
    match &record.undo {
        Some(undo) => steps.extend(grouped(&["To take the discard back:".to_owned(), undo.clone()])),
        None if registers_again(record) => steps.push(
            "How to register it again: the command is in the mail, and what it takes in the record (`rebuild`)."
                .to_owned(),
        ),
        None => {}
    }
    match grouped(&record.fix).as_slice() {
        // If there are many steps, only the mail has all of them.
        [first, way @ .., last] if way.len() > MOST_STEPS => steps.extend([
            first.clone(),
            "The way there, step by step, is in the mail, and in the record (`fix`).".to_owned(),
            last.clone(),
        ]),
        fix => steps.extend_from_slice(fix),
    }
    let verdict = record.label();
    let mut keywords = vec![verdict.clone()];
    if record.action != Action::None {
        keywords.push(json!(record.action).as_str().unwrap_or_default().to_owned());
    }
    keywords.extend(record.held_by.iter().map(ToString::to_string));
    notification(
        &format!("{image} {}", done(record)),
        &facts.0,
        steps,
        keywords,
        image,
        &subject(record),
        json!({
            "verdict": verdict,
            "account": place[0].unwrap_or("-"),
            "region": place[1].unwrap_or("-"),
            "image_id": image,
            "event_id": plain(record.event_id.as_deref().unwrap_or("-")),
        }),
    )
}

/// The notification of a digest. All digests of an account and Region are in one thread.
pub(super) fn of_digest(
    digest: &Digest,
    verdict: &str,
    held: &[StoredRecord],
    subject: &str,
) -> String {
    let mut facts = Facts::default();
    facts.fact(
        "in",
        Some(&format!("{}, {}", digest.account, digest.region)),
    );
    for record in held.iter().take(MOST) {
        let word = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        facts.fact(
            &word(&record.image_id),
            Some(&format!("{}: {}", word(&record.name), word(&record.reason))),
        );
    }
    if let Some(more) = held.len().checked_sub(MOST).filter(|more| *more > 0) {
        facts.line(&format!("and {more} more, which the mail has"));
    }
    let steps = vec![
        "So many at once: is something wrong with the images, or with what they are expected to bill? Correct that \
         first."
            .to_owned(),
        "Then have them judged again by giving their events to the function again, or deregister them yourself."
            .to_owned(),
    ];
    let by_limit = held.iter().all(|it| it.is_held_by("limit"));
    let title = match by_limit {
        true => "AMIs that do not bill what they should, held by the hourly limit",
        false => "AMIs that are held or need a look, over an hourly limit",
    };
    notification(
        &format!("{title}: {}", held.len()),
        &facts.0,
        steps,
        vec![plain(verdict), "limit".to_owned()],
        &format!(
            "ami-billing-guard-limit-{}-{}",
            digest.account, digest.region
        ),
        subject,
        json!({
            "verdict": verdict,
            "account": digest.account,
            "region": digest.region,
        }),
    )
}

/// The notification of an audit. `lines` says what the audit found. All audits of an account and Region are in one
/// thread.
pub(super) fn of_audit(audit: &Audit, lines: &[String], steps: &[String], subject: &str) -> String {
    let mut facts = Facts::default();
    facts.fact("in", Some(&format!("{}, {}", audit.account, audit.region)));
    lines.iter().for_each(|line| facts.line(line));
    notification(
        "ami-billing-guard: the audit of all AMIs",
        &facts.0,
        grouped(steps),
        vec!["audit".to_owned()],
        &format!("ami-billing-guard-audit-{}-{}", audit.account, audit.region),
        subject,
        json!({ "verdict": "audit", "account": audit.account, "region": audit.region }),
    )
}

/// The notification that tests whether messages reach the chat.
pub(super) fn of_test(account: &str, region: &str, subject: &str) -> String {
    let mut facts = Facts::default();
    facts.fact("in", Some(&format!("{account}, {region}")));
    facts.line(A_TEST);
    notification(
        "ami-billing-guard: a test",
        &facts.0,
        Vec::new(),
        vec!["self-test".to_owned()],
        "ami-billing-guard-self-test",
        subject,
        json!({ "verdict": "self-test", "account": plain(account), "region": plain(region) }),
    )
}

fn notification(
    title: &str,
    facts: &str,
    steps: Vec<String>,
    keywords: Vec<String>,
    thread: &str,
    summary: &str,
    context: Value,
) -> String {
    let mut content = json!({
        "textType": "client-markdown",
        "title": title,
        "description": format!("```\n{facts}```"),
        "keywords": keywords,
    });
    if let (Some(content), false) = (content.as_object_mut(), steps.is_empty()) {
        content.insert("nextSteps".into(), steps.into());
    }
    let notification = json!({
        "version": "1.0",
        "source": "custom",
        "content": content,
        "metadata": {
            "threadId": thread,
            "summary": summary,
            "eventType": "ami-billing-guard",
            "additionalContext": context,
        },
    });
    escaped_json(&notification.to_string())
}

/// Lines of a block of code.
#[derive(Default)]
struct Facts(String);

impl Facts {
    fn fact(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.line(&format!("{name}: {}", plain(value)));
        }
    }

    /// Adds a line, if there is room for it.
    fn line(&mut self, line: &str) {
        const CUT: &str = "… (the mail has all)\n";
        if self.0.ends_with(CUT) {
            return;
        }
        let line = inert_markdown(line);
        if self.0.len() + line.len() + 1 + CUT.len() > LONGEST_TEXT {
            self.0.push_str(CUT);
            return;
        }
        self.0.push_str(&line);
        self.0.push('\n');
    }
}

/// Converts lines to steps. A sentence that ends in a colon and the command after it make one step.
fn grouped(lines: &[String]) -> Vec<String> {
    let mut steps: Vec<String> = Vec::new();
    for line in lines {
        match steps.last_mut() {
            Some(last) if is_command(line) && last.ends_with(':') => {
                last.push(' ');
                last.push_str(&step(line));
            }
            _ => steps.push(step(line)),
        }
    }
    steps
}

/// A step as Markdown. A command is in code, because no application may change a character of it. A command is not
/// shown if it is too long, or if the replacement of characters would alter what it does.
fn step(text: &str) -> String {
    if !is_command(text) {
        return inert_markdown(text);
    }
    // A command with tags has them exactly as people wrote them, so no character may be replaced. In other commands,
    // `<…>` is for people to fill in.
    let as_it_is = text.contains("--tag-specifications") && inert_markdown(text) != text;
    match as_it_is || text.len() > LONGEST_STEP {
        true => "The exact command is in the mail, and in the record (`fix`).".to_owned(),
        false => format!("`{}`", inert_markdown(text)),
    }
}
