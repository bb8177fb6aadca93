//! Describes what was done about an image, for subjects and as sentences.

use crate::escape::plain;
use crate::marks::{DISCARD_TAG, DISCARD_VALUE};
use crate::plan::{Action, Interlock};
use crate::record::remediation::{aws_ec2, by_hand, undo};
use crate::record::{Outcome, Record, RecycleBin, why_held};
use crate::verdict::Mismatch;

/// Largest length of a subject, which must be below 100 characters (SNS API reference, "Publish").
const SUBJECT: usize = 99;

/// The subject of a mail. Only the image's id comes from outside, and it was checked.
pub(super) fn subject(record: &Record) -> String {
    let image = record.image_id.as_deref().unwrap_or("an AMI");
    let mut subject = format!("AMI billing {}: {image} {}", record.label(), done(record));
    subject.truncate(SUBJECT);
    subject
}

/// What is done about an image, in ASCII words for a subject.
pub(super) fn done(record: &Record) -> &'static str {
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

/// What was done, or why nothing was done. Each line is a sentence or a command.
pub(super) fn actions(record: &Record) -> Vec<String> {
    let error = || plain(record.error.as_deref().unwrap_or("no reason given"));
    let mut actions = match (record.action, record.outcome) {
        (Action::Hold, _) => {
            let held = record.held_by.iter();
            let held = held.map(|interlock| format!("  {interlock}: {}", why_held(record, *interlock)));
            let mut actions: Vec<String> = std::iter::once("Nothing. A discard was due, and is held by:".to_owned())
                .chain(held)
                .collect();
            if record.held_by.contains(&Interlock::Shared)
                && record.shared_with.last().is_some_and(|last| more(last).is_some())
            {
                actions.push("To list all whom it is shared with:".to_owned());
                actions.push(format!(
                    "{} --attribute launchPermission",
                    aws_ec2(record, "describe-image-attribute", "--image-id")
                ));
            }
            actions
        }
        (Action::None | Action::Alert, _) => {
            let mut actions = vec!["Nothing: this verdict is told, never acted upon.".to_owned()];
            if record.kind == Some(Mismatch::Extra) {
                actions.push("Nothing is unlicensed: somebody pays for more than is expected.".to_owned());
            }
            actions
        }
        (_, Some(Outcome::Refused)) => {
            let mut actions = vec![
                "Nothing: EC2 refused, and the image stands. It will not be tried again by itself.".to_owned(),
                format!("  {}", error()),
            ];
            actions.extend(by_hand(record));
            return actions;
        }
        (_, Some(Outcome::Failed)) => {
            let mut actions = vec![
                "Nothing that is known of: it did not get through. Its event comes back within minutes, and what became \
                 of the image is looked at again; it is not tried more than seven times.".to_owned(),
                format!("  {}", error()),
            ];
            if let Some(undo) = undo(record) {
                actions.push("If it turns out to be gone, and is needed:".to_owned());
                actions.push(undo);
            }
            return actions;
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
        actions.push("No other message follows, unless something goes wrong.".to_owned());
    }
    if record.error.is_some() {
        actions.push(format!("  {}", error()));
    }
    actions
}

/// The number in a record's `and 3 more`.
pub(super) fn more(text: &str) -> Option<usize> {
    let number = text.strip_prefix("and ")?.strip_suffix(" more")?;
    number.parse().ok()
}
