//! The alert of an audit, one for everything that it found.

use serde_json::{Value, json};

use super::chat;
use super::message::{LONGEST_MESSAGE, Message, Text, attributes, bodies, cut};
use crate::escape::plain;
use crate::event::Audit;
use crate::expectation::EXPECT_TAG;
use crate::findings::{FIRST, Finding, Findings, Group};
use crate::record::SCHEMA;

/// Largest number of images of a group that a chat shows.
const FIRST_IN_CHAT: usize = 3;

/// The message of an audit. It has the number of images of each group, and as many of the first images as fit.
pub(crate) fn summary(audit: &Audit, findings: &Findings) -> Message {
    let mut most = FIRST;
    loop {
        let message = with(audit, findings, most);
        if message.bodies.len() <= LONGEST_MESSAGE || most == 0 {
            return message;
        }
        most /= 2;
    }
}

/// The message with at most this many images of each group.
fn with(audit: &Audit, findings: &Findings, most: usize) -> Message {
    let subject = match findings.number(Group::Missed) {
        0 => format!(
            "AMI billing: an audit found AMIs to look at: {}",
            findings.to_tell()
        ),
        missed => {
            format!("AMI billing: events do not arrive: AMIs that an audit found: {missed}")
        }
    };
    let mut text = Text::default();
    text.line(&extent(findings));
    text.heading(&format!("In account {}, {}", audit.account, audit.region));
    for (group, found) in findings.groups() {
        text.heading(&heading(group, found.number));
        found
            .first
            .iter()
            .take(most)
            .for_each(|finding| text.line(&format!("  {}", line(finding))));
        match found.number.saturating_sub(most) {
            0 => {}
            more => text.line(&format!(
                "  and {more} more, which an audit of your own lists: see below"
            )),
        }
    }
    text.heading("What to do");
    let steps = steps(findings);
    steps.iter().for_each(|step| text.line(step));

    let groups = findings.groups().map(|(group, found)| {
        let first: Vec<&Finding> = found.first.iter().take(most).collect();
        let mut members = json!({ "number": found.number, "images": first });
        cut(&mut members);
        (group.name().to_owned(), members)
    });
    let groups: serde_json::Map<String, Value> = groups.collect();
    let json = json!({
        "schema": SCHEMA, "digest": "audit", "event_id": audit.event_id,
        "account": audit.account, "region": audit.region,
        "looked_at": findings.looked_at, "unchanged": findings.unchanged, "complete": findings.complete,
        "groups": groups,
    });
    let mut lines = vec![extent(findings)];
    for (group, found) in findings.groups() {
        lines.push(heading(group, found.number));
        lines.extend(found.first.iter().take(FIRST_IN_CHAT).map(line));
        if let Some(more @ 1..) = found.number.checked_sub(FIRST_IN_CHAT) {
            lines.push(format!("and {more} more: see the mail"));
        }
    }
    Message {
        bodies: bodies(&text.0, &json),
        chat: chat::of_audit(audit, &lines, &steps, &subject),
        attributes: attributes(
            "audit",
            None,
            Some(audit.account.as_str()),
            Some(&audit.region),
        ),
        subject,
    }
}

/// How far the audit got.
fn extent(findings: &Findings) -> String {
    let from = match findings.resumed {
        true => "It went on where the last audit had stopped. ",
        false => "",
    };
    let to = match (findings.resumed, findings.complete) {
        (false, true) => "These are all of them.",
        (true, true) => "These are the rest of them.",
        (_, false) => "There was no time for the others: the next audit goes on with them.",
    };
    format!(
        "AMIs that were looked at: {}, of which known, good and unchanged: {}. {from}{to}",
        findings.looked_at, findings.unchanged
    )
}

fn heading(group: Group, number: usize) -> String {
    match group {
        Group::Missed => format!(
            "No event told of these, or it could not be dealt with. They were judged now: {number}"
        ),
        Group::Mismatch => {
            format!("These do not bill what they should, and nothing is done about it: {number}")
        }
        Group::Held => {
            format!("These do not bill what they should, and their discard is held: {number}")
        }
        Group::Conflict => format!("What is known of these contradicts itself: {number}"),
        Group::Unverifiable => format!("What these should bill is not known: {number}"),
        Group::Unrecognised => format!(
            "EC2 says something of these that this version does not know. Their usage operation is judged, if it is \
             known: {number}"
        ),
    }
}

/// An image as one line.
fn line(finding: &Finding) -> String {
    let word = |text: &Option<String>| plain(text.as_deref().unwrap_or("-"));
    let mut line = format!("{} {}", word(&finding.image_id), word(&finding.name));
    if let Some(actual) = &finding.actual {
        line.push_str(&format!(", is billed as {}", plain(&actual.text())));
        if let (Some(operation), false) =
            (&actual.usage_operation, actual.unrecognised().is_empty())
        {
            line.push_str(&format!(" ({})", plain(operation)));
        }
    }
    if let Some(expected) = &finding.expected {
        line.push_str(&format!(", expected {}", plain(&expected.text())));
    }
    // The rest of the reason says what could be done, which is the same for many images.
    let why = finding.reason.split(';').next().unwrap_or_default();
    line.push_str(&format!(": {}", plain(why)));
    if !finding.held_by.is_empty() {
        line.push_str(&format!("; held by {}", plain(&finding.held_by.join(", "))));
    }
    if let (Some(action), Some(outcome)) = (&finding.action, &finding.outcome) {
        line.push_str(&format!("; {}: {}", plain(action), plain(outcome)));
    }
    line
}

fn steps(findings: &Findings) -> Vec<String> {
    let mut steps = Vec::new();
    if findings.number(Group::Missed) > 0 {
        steps.push(
            "Find out why events do not arrive: does a trail log in this Region, are the rules enabled, is anything in \
             the queues of undelivered events and of dead letters? The runbook has it in order (\"An alarm says that \
             events do not arrive\")."
                .to_owned(),
        );
    }
    steps.push(
        "Of what an event told of, or is older than three days, an audit discards nothing: decide, and make it right. \
         The runbook says how (\"A summary of an audit\")."
            .to_owned(),
    );
    if findings.number(Group::Unverifiable) > 0 {
        steps.push(format!(
            "Say what AMIs should bill, with the tag {EXPECT_TAG} or a rule of the policy for all of a kind."
        ));
    }
    if findings.number(Group::Unrecognised) > 0 {
        steps.push(
            "What EC2 says may be new: update ami-billing-guard, and if the newest version does not know it either, report \
             it as an issue. Until then no such AMI is discarded."
                .to_owned(),
        );
    }
    steps.extend(
        [
            "No disk was read for this, but of what no event told of. Everything that is known of one AMI:",
            "ami-guard explain '<image>'",
            "All of them:",
            "ami-guard audit",
        ]
        .map(str::to_owned),
    );
    steps
}
