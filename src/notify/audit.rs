//! The alert of an audit, one for everything that it found.

use serde_json::{Value, json};

use super::chat::{self, Thread};
use super::email;
use super::letter::{Letter, Part, Section, Urgency, number, subject};
use super::message::{LONGEST_MESSAGE, Message, attributes, bodies, cut};
use crate::escape::plain;
use crate::event::Audit;
use crate::expectation::EXPECT_TAG;
use crate::findings::{FIRST, Finding, Findings, Group};
use crate::record::SCHEMA;
use crate::record::remediation::word;

/// The message of an audit. It has the number of images of each group, and as many of the first images as fit.
/// `runbook` is the URL or the file name of the runbook.
pub(crate) fn summary(audit: &Audit, findings: &Findings, runbook: Option<&str>) -> Message {
    let mut most = FIRST;
    loop {
        let message = with(audit, findings, most, runbook);
        if message.bodies.len() <= LONGEST_MESSAGE || most == 0 {
            return message;
        }
        most /= 2;
    }
}

/// The message with at most this many images of each group.
fn with(audit: &Audit, findings: &Findings, most: usize, runbook: Option<&str>) -> Message {
    let letter = letter(audit, findings, most);
    let (account, region) = (audit.account.as_str(), audit.region.as_str());
    let groups = findings.groups().map(|(group, found)| {
        let first: Vec<&Finding> = found.first.iter().take(most).collect();
        let mut members = json!({ "number": found.number, "images": first });
        cut(&mut members);
        (group.name().to_owned(), members)
    });
    let groups: serde_json::Map<String, Value> = groups.collect();
    let json = json!({
        "schema": SCHEMA, "digest": "audit", "event_id": audit.event_id,
        "account": account, "region": region,
        "looked_at": findings.looked_at, "unchanged": findings.unchanged, "complete": findings.complete,
        "groups": groups,
    });
    let thread = Thread {
        id: format!("ami-billing-guard-audit-{account}-{region}"),
        keywords: vec!["audit".to_owned()],
        context: json!({ "verdict": "audit", "account": account, "region": region }),
    };
    Message {
        bodies: bodies(&email::text(&letter, runbook), &json),
        chat: chat::notification(&letter, thread, runbook),
        attributes: attributes("audit", None, Some(account), Some(region), None),
        subject: letter.subject,
    }
}

/// The groups of findings in the order of their urgency, as the parts of the message.
const PARTS: [(&str, &[Group]); 4] = [
    ("Find out why events are missing", &[Group::Missed]),
    ("Decide", &[Group::Mismatch, Group::Held]),
    ("Sources disagree", &[Group::Conflict]),
    (
        "No hurry: unknown",
        &[Group::Unrecognised, Group::Unverifiable],
    ),
];

fn letter(audit: &Audit, findings: &Findings, most: usize) -> Letter {
    let (account, region) = (audit.account.as_str(), audit.region.as_str());
    let of = |groups: &[Group]| -> usize { groups.iter().map(|it| findings.number(*it)).sum() };
    let [missed, wrong, disagree, unknown] = PARTS.map(|(_, groups)| of(groups));
    let mut counts = Vec::new();
    if missed > 0 {
        counts.push(format!("{} missed", number(missed, "event")));
    }
    counts.push(format!("{} to decide, {unknown} unknown", wrong + disagree));
    let urgency = match missed {
        0 => Urgency::Decide,
        _ => Urgency::Check,
    };
    let what = format!("Daily AMI audit: {}", counts.join(", "));
    let sections = PARTS
        .iter()
        .filter(|(_, groups)| of(groups) > 0)
        .enumerate()
        .map(|(at, (title, groups))| {
            let mut section = Section::new(Part::Why, format!("{}. {title}", at + 1));
            for group in *groups {
                list(&mut section, findings, *group, most);
            }
            section
        });
    let mut sections: Vec<Section> = sections.collect();
    let mut details = Section::new(Part::Details, "Details");
    details.line(extent(findings));
    details.line("An audit reads disks only of AMIs whose events were missed.");
    details.line("To audit all AMIs yourself, with their disks:");
    details.line("ami-guard audit --disk");
    details.field("account", Some(account));
    details.field("region", Some(region));
    if sections.iter().any(Section::is_cut) {
        details.line("The rest of each text that ends in … here is in the record of the AMI.");
    }
    sections.push(details);
    Letter {
        subject: subject(urgency, &what, Some(account), Some(region)),
        happened: format!(
            "The daily audit looked at {}, and reports {}.",
            number(findings.looked_at, "AMI"),
            findings.to_tell()
        ),
        done: match missed {
            0 => "Nothing. The audit only reports.".into(),
            _ => format!(
                "The guard processed {} without an event as if the event had arrived. Part 1 says what came of each.",
                number(missed, "AMI")
            ),
        },
        production: match missed {
            0 => "Not affected by the audit. The AMIs can be launched as before.".into(),
            _ => "Running instances are not affected. New launches fail only from AMIs that the guard removed.".into(),
        },
        act: match missed {
            0 => "Decide about the AMIs below, in this order. There is no deadline.".into(),
            _ => "Find out today why events are missing. The rest below has no deadline.".into(),
        },
        first: Some(format!(
            "ami-guard explain {} --region {}",
            word(first_image(findings), "image"),
            word(Some(region), "region")
        )),
        runbook: "daily-audit",
        sections,
    }
}

/// The image that the message names first.
fn first_image(findings: &Findings) -> Option<&str> {
    let groups = PARTS.iter().flat_map(|(_, groups)| *groups);
    let mut first = groups.flat_map(|group| findings.first(*group));
    first.next()?.image_id.as_deref()
}

/// What to do about a group, and its first images.
fn list(section: &mut Section, findings: &Findings, group: Group, most: usize) {
    let number = findings.number(group);
    if number == 0 {
        return;
    }
    section.line(match group {
        Group::Missed => format!(
            "{number} without an event, or the guard could not process it. Is a trail logging in this Region? Are the \
             rules enabled? Is anything in the queue of undelivered events or in the dead-letter queue?"
        ),
        Group::Mismatch => format!("{number} billed wrongly, and nothing is done about it:"),
        Group::Held => format!("{number} billed wrongly, and their discard is held:"),
        Group::Conflict => format!("{number} with sources that contradict each other:"),
        Group::Unrecognised => format!(
            "{number} with values of EC2 that this version does not know. Update ami-billing-guard, or report an issue:"
        ),
        Group::Unverifiable => format!(
            "{number} without any source that says what is expected. Declare it with the tag {EXPECT_TAG}, or with \
             rules of the policy. `ami-guard policy suggest` proposes rules:"
        ),
    });
    let first = findings.first(group).iter().take(most);
    section.lines.extend(first.map(line));
    if let more @ 1.. = number.saturating_sub(most) {
        section.line(format!("and {more} more. `ami-guard audit` lists all"));
    }
}

/// How far the audit got.
fn extent(findings: &Findings) -> String {
    let from = match findings.resumed {
        true => "It continued where the last audit had stopped. ",
        false => "",
    };
    let to = match (findings.resumed, findings.complete) {
        (false, true) => "These are all AMIs.",
        (true, true) => "These are the rest of the AMIs.",
        (_, false) => "There was no time for the others. The next audit continues with them.",
    };
    format!(
        "AMIs that the audit looked at: {}. Of these, known, good and unchanged: {}. {from}{to}",
        findings.looked_at, findings.unchanged
    )
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
