//! The letter about a record: one AMI, what was done about it, and what a person can do.

use super::letter::{Letter, Part, Section, Urgency, subject};
use crate::escape::plain;
use crate::expectation::product_codes;
use crate::plan::{Action, Interlock};
use crate::record::remediation::{
    aws_ec2, by_hand, launch_permissions, not_in_the_request, region, register_again,
    registers_again, undo, word,
};
use crate::record::{Actual, Expected, Outcome, Record, RecycleBin, why_held};
use crate::verdict::{Mismatch, Verdict};

/// Longest name of an image in the first sentence, in characters. The details have the whole name.
const SHORT_NAME: usize = 40;

/// Longest reason in the first sentence, in characters. The section "why" has the whole reason.
const SHORT_REASON: usize = 110;

/// What a letter is about. Each situation has a subject of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Situation {
    /// The image is about to be discarded, and can be restored.
    Planned,
    /// The image was discarded, and an earlier message was not sure of that.
    Completed,
    /// The image is or will be gone, and cannot be restored.
    NoWayBack,
    /// EC2 refused the discard.
    Refused,
    /// It is not known whether the image was discarded.
    Unconfirmed,
    /// The hourly limit held the discard.
    Limit,
    /// Safety checks held the discard.
    Held,
    /// The sources or EC2's own fields contradict each other.
    Conflict,
    /// It is unknown what is expected, or what the image is billed as.
    Unverifiable,
    /// The image is billed for more than expected.
    Extra,
    /// The image is billed as expected, but its tag is not an expectation.
    WrongTag,
}

impl Situation {
    fn of(record: &Record) -> Situation {
        match (record.action, record.outcome, record.verdict) {
            (Action::Hold, ..) if record.held_by == [Interlock::Limit] => Situation::Limit,
            (Action::Hold, ..) => Situation::Held,
            (Action::None | Action::Alert, _, Verdict::Conflict) => Situation::Conflict,
            (Action::None | Action::Alert, _, Verdict::Mismatch(_)) => Situation::Extra,
            (Action::None | Action::Alert, _, Verdict::Verified) => Situation::WrongTag,
            (Action::None | Action::Alert, ..) => Situation::Unverifiable,
            (_, Some(Outcome::Refused), _) => Situation::Refused,
            (_, Some(Outcome::Failed), _) => Situation::Unconfirmed,
            (Action::Deregister, Some(Outcome::Done), _)
                if record.recycle_bin == Some(RecycleBin::Absent) || record.instance_store =>
            {
                Situation::NoWayBack
            }
            (_, Some(Outcome::Done), _) => Situation::Completed,
            (Action::Deregister, ..) if record.undo.is_none() => Situation::NoWayBack,
            _ => Situation::Planned,
        }
    }
}

/// Whether the image can be restored after the discard that the record is about. `None` if it is about none, or if the
/// answer is not known.
pub(super) fn is_recoverable(record: &Record) -> Option<bool> {
    match Situation::of(record) {
        // An image that is disabled can be enabled again. Whether the Recycle Bin keeps one shows only afterwards.
        Situation::Planned => (record.action == Action::Disable).then_some(true),
        Situation::NoWayBack => Some(false),
        Situation::Completed => (record.recycle_bin != Some(RecycleBin::Unknown)).then_some(true),
        _ => None,
    }
}

/// The letter about a record, with a note on what was done. Without `with_tags`, the command that registers the image
/// again lacks the image's tags.
pub(super) fn letter(record: &Record, note: Option<&str>, with_tags: bool) -> Letter {
    let situation = Situation::of(record);
    let mut again = register_it_again(record, with_tags);
    if let (Situation::NoWayBack, Some(again)) = (situation, &mut again) {
        again.part = Part::Steps;
    }
    let sections = [
        need_it_back(record, situation),
        look_later(record, situation),
        by_yourself(record, situation),
        why_held_section(record),
        again,
        references(record),
        create_it_correctly(record),
        why(record),
        details(record),
    ];
    let mut done = done(record, situation);
    if let Some(note) = note {
        done.push(' ');
        done.push_str(note);
    }
    Letter {
        subject: subject_of(record, situation),
        happened: happened(record),
        done,
        production: production(record, situation),
        act: act(record, situation),
        first: Some(first(record, situation)),
        runbook: runbook(situation),
        sections: sections.into_iter().flatten().collect(),
    }
}

fn subject_of(record: &Record, situation: Situation) -> String {
    let is_disabled = record.action == Action::Disable;
    let (urgency, what) = match situation {
        Situation::Planned if is_disabled => (Urgency::Info, "AMI disabled, restorable"),
        Situation::Planned => (Urgency::Info, "AMI removed, restorable"),
        Situation::Completed if is_disabled => (Urgency::Info, "AMI disabled, restorable"),
        Situation::Completed if record.recycle_bin == Some(RecycleBin::In) => {
            (Urgency::Info, "AMI removed, restorable")
        }
        Situation::Completed => (Urgency::Check, "AMI removed, Recycle Bin unknown"),
        Situation::NoWayBack => (Urgency::ActNow, "AMI removed, NOT in Recycle Bin"),
        Situation::Refused if is_disabled => (Urgency::Decide, "AMI not disabled, EC2 refused"),
        Situation::Refused => (Urgency::Decide, "AMI not removed, EC2 refused"),
        Situation::Unconfirmed if is_disabled => (Urgency::Wait, "AMI disabling unconfirmed"),
        Situation::Unconfirmed => (Urgency::Wait, "AMI removal unconfirmed"),
        Situation::Limit => (Urgency::Decide, "Removal limit reached, 1 AMI waiting"),
        Situation::Held => (Urgency::Decide, "AMI billed wrongly, not removed"),
        Situation::Conflict => (Urgency::Decide, "AMI billing sources disagree"),
        Situation::Unverifiable => (Urgency::Decide, "AMI billing cannot be verified"),
        Situation::Extra => (Urgency::Decide, "AMI billed for more than expected"),
        Situation::WrongTag => (Urgency::Decide, "AMI tag names no platform"),
    };
    let image = record.image_id.as_deref().unwrap_or("an AMI");
    subject(
        urgency,
        &format!("{what}: {image}"),
        record.account.as_deref(),
        record.region.as_deref(),
    )
}

fn runbook(situation: Situation) -> &'static str {
    match situation {
        Situation::Planned | Situation::Completed => "mismatch",
        Situation::NoWayBack => "no-way-back",
        Situation::Refused => "refused",
        Situation::Unconfirmed => "unconfirmed",
        Situation::Limit => "limit",
        Situation::Held => "held",
        Situation::Conflict => "conflict",
        Situation::Unverifiable => "unverifiable",
        Situation::WrongTag => "held-by-no-platform",
        Situation::Extra => "extra",
    }
}

/// A text that is cut after this many characters.
fn shortened(text: &str, most: usize) -> String {
    let text = plain(text);
    let mut short: String = text.chars().take(most).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    short
}

/// What happened, in one sentence.
fn happened(record: &Record) -> String {
    let id = record.image_id.as_deref().unwrap_or("An AMI");
    let image = match &record.name {
        Some(name) if !name.is_empty() && name != id => {
            format!("{} ({id})", shortened(name, SHORT_NAME))
        }
        _ => id.to_owned(),
    };
    let is = match record.verdict {
        Verdict::Gone => "was",
        _ => "is",
    };
    let actual = record.actual.as_ref().map(Actual::text);
    let billed = match actual.as_deref() {
        None => None,
        Some("nothing") => Some(format!("{image} has no platform details")),
        Some(actual) => Some(format!(
            "{image} {is} billed as {}",
            shortened(actual, SHORT_REASON)
        )),
    };
    let sentence = match (record.verdict, billed, &record.expected) {
        (Verdict::Mismatch(_) | Verdict::Gone, Some(billed), Some(expected)) => {
            let expected = shortened(&expected.text(), SHORT_REASON);
            format!("{billed}. Expected: {expected}.")
        }
        (Verdict::Mismatch(_), Some(billed), None) => format!("{billed}."),
        _ => {
            // The rest of a reason says what could be done.
            let reason = record.reason.split([';', '.']).next().unwrap_or_default();
            format!("{image}: {}.", shortened(reason, SHORT_REASON))
        }
    };
    match record.held_by.contains(&Interlock::ObserveMode) {
        true => format!("{sentence} Observe mode: nothing was changed."),
        false => sentence,
    }
}

fn done(record: &Record, situation: Situation) -> String {
    let is_disabled = record.action == Action::Disable;
    match situation {
        Situation::Planned if is_disabled => {
            "The guard disables the AMI right after this message. Its snapshots stay.".to_owned()
        }
        Situation::Planned => "The guard deregisters the AMI right after this message. The Recycle Bin keeps it, if a \
                               rule is active. Its snapshots stay."
            .to_owned(),
        Situation::NoWayBack if record.outcome == Some(Outcome::Done) && record.instance_store => {
            "The guard deregistered the AMI. It CANNOT be restored, because it is backed by the instance store. Its \
             bundle in S3 stays."
                .to_owned()
        }
        Situation::NoWayBack if record.outcome == Some(Outcome::Done) => {
            "The guard deregistered the AMI. It is NOT in the Recycle Bin, and cannot be restored. Its snapshots stay."
                .to_owned()
        }
        Situation::NoWayBack => {
            "The guard deregisters the AMI right after this message. It CANNOT be restored, because it is backed by \
             the instance store. Its bundle in S3 stays."
                .to_owned()
        }
        Situation::Completed if is_disabled => "The guard disabled the AMI.".to_owned(),
        Situation::Completed => {
            let until = match (record.recycle_bin, record.recoverable_until) {
                (Some(RecycleBin::In), Some(until)) => {
                    format!("It is in the Recycle Bin until {}.", until.to_rfc3339())
                }
                (Some(RecycleBin::In), None) => "It is in the Recycle Bin.".to_owned(),
                _ => "The guard could not determine whether it is in the Recycle Bin.".to_owned(),
            };
            format!("The guard deregistered the AMI. {until} Its snapshots stay.")
        }
        Situation::Refused => {
            "Nothing. EC2 refused the discard, and the guard does not try it again.".to_owned()
        }
        Situation::Unconfirmed => {
            "Unknown. EC2 did not confirm the discard. The guard looks again in six minutes, up to six times."
                .to_owned()
        }
        Situation::Limit => "Nothing. The AMI is over the hourly limit of discards.".to_owned(),
        Situation::Held if record.held_by == [Interlock::ObserveMode] => {
            "Nothing. The guard runs in observe mode. In enforce mode, it would remove this AMI.".to_owned()
        }
        Situation::Held if record.held_by == [Interlock::ActionNone] => {
            "Nothing. The policy's discard.action is none.".to_owned()
        }
        Situation::Held => "Nothing. Safety checks hold the discard.".to_owned(),
        Situation::Conflict
        | Situation::Unverifiable
        | Situation::Extra
        | Situation::WrongTag => "Nothing. The guard only reports this.".to_owned(),
    }
}

fn production(record: &Record, situation: Situation) -> String {
    match situation {
        Situation::Planned | Situation::Completed | Situation::NoWayBack => {
            "Running instances are not affected. New launches from the AMI fail."
        }
        Situation::Unconfirmed => {
            "Running instances are not affected. If the AMI is gone, new launches from it fail."
        }
        Situation::Refused | Situation::Limit | Situation::Held => {
            match record.verdict == Verdict::Mismatch(Mismatch::Empty) {
                true => "Not affected now. The AMI can be launched, and its instances have no billing code.",
                false => "Not affected now. The AMI can be launched, and its instances are billed wrongly.",
            }
        }
        Situation::Extra => "Not affected, and no licence is missing. Instances cost more than expected.",
        Situation::Conflict | Situation::Unverifiable | Situation::WrongTag => {
            "Not affected. The AMI can be launched."
        }
    }
    .to_owned()
}

fn act(record: &Record, situation: Situation) -> String {
    match situation {
        Situation::Planned if record.action == Action::Disable => {
            "Only if you need this AMI: enable it. No other message follows, unless something goes wrong."
        }
        Situation::Planned => {
            "Only if you need this AMI: restore it. Another message follows if the Recycle Bin does not have it, or if it \
             was not removed."
        }
        Situation::Completed if record.recycle_bin == Some(RecycleBin::Unknown) => {
            "Check today whether the Recycle Bin has the AMI, in case you need it."
        }
        Situation::Completed => "Only if you need this AMI: restore it.",
        Situation::NoWayBack if record.instance_store => {
            "Now, if anything launches this AMI: register it again, as described below."
        }
        Situation::NoWayBack => {
            "Now: find out why the Recycle Bin did not keep it. If anything launches this AMI, register it again, as below."
        }
        Situation::Refused => "Decide whether to remove the AMI yourself. There is no deadline.",
        Situation::Unconfirmed => {
            "Wait for 30 minutes. If no other message arrives, check whether the AMI exists."
        }
        Situation::Limit => {
            "Find out why so many AMIs are wrong at once. There is no deadline. An hourly digest lists further ones."
        }
        Situation::Held => "Decide what to do with the AMI. There is no deadline.",
        Situation::Conflict => "Decide which source is right. There is no deadline.",
        Situation::Unverifiable => "Declare what is expected. There is no deadline.",
        Situation::Extra => "Decide whether you want to pay for it. There is no deadline.",
        Situation::WrongTag => "Correct the tag. There is no deadline.",
    }
    .to_owned()
}

/// The first command. It changes nothing unless it restores the image.
fn first(record: &Record, situation: Situation) -> String {
    let image = word(record.image_id.as_deref(), "image");
    let region = region(record);
    match situation {
        Situation::Completed if record.recycle_bin == Some(RecycleBin::Unknown) => {
            aws_ec2(record, "list-images-in-recycle-bin", "--image-ids")
        }
        Situation::Planned | Situation::Completed => {
            format!("ami-guard restore {image} --region {region}")
        }
        // Whether production needs it.
        Situation::NoWayBack => format!(
            "aws ec2 describe-instances --region {region} --filters 'Name=image-id,Values={image}' --query \
             'Reservations[].Instances[].InstanceId'"
        ),
        Situation::Unconfirmed => format!(
            "{} --include-disabled --query 'Images[].State'",
            aws_ec2(record, "describe-images", "--image-ids")
        ),
        Situation::Refused
        | Situation::Limit
        | Situation::Held
        | Situation::Conflict
        | Situation::Unverifiable
        | Situation::Extra
        | Situation::WrongTag => format!("ami-guard explain {image} --region {region}"),
    }
}

fn need_it_back(record: &Record, situation: Situation) -> Option<Section> {
    let undo = record.undo.as_ref()?;
    if !matches!(situation, Situation::Planned | Situation::Completed) {
        return None;
    }
    let mut section = Section::new(Part::Steps, "Need it back?");
    if record.action == Action::Deregister {
        section.line(
            "This works while the Recycle Bin keeps the AMI. It needs the AMI's snapshots, which the guard never \
             deletes. The AMI is shared again automatically.",
        );
        section
            .line("Is a snapshot of the AMI in the Recycle Bin too? Restore the snapshot first:");
        section.line(format!(
            "aws ec2 restore-snapshot-from-recycle-bin --region {} --snapshot-id {}",
            region(record),
            word(record.snapshot_id.as_deref(), "the snapshot")
        ));
    }
    section.line("Restore the AMI with the first command above, or without ami-guard:");
    section.line(undo);
    if record.action == Action::Disable {
        launch_permissions(record, record.image_id.as_deref())
            .into_iter()
            .for_each(|line| section.line(line));
    }
    section.line(
        "The guard does not discard a restored AMI again. It reports the AMI until what it is billed as and what is \
         expected agree.",
    );
    Some(section)
}

fn look_later(record: &Record, situation: Situation) -> Option<Section> {
    if situation != Situation::Unconfirmed {
        return None;
    }
    let mut section = Section::new(Part::Steps, "No other message after 30 minutes?");
    section.line(
        "Check whether the AMI exists, with the first command above. While it exists, the guard may still discard \
         it. A restore changes nothing then.",
    );
    if let Some(undo) = undo(record) {
        section.line("Is it gone, and do you need it? Restore it:");
        section.line(undo);
    }
    Some(section)
}

fn by_yourself(record: &Record, situation: Situation) -> Option<Section> {
    if situation != Situation::Refused {
        return None;
    }
    let mut section = Section::new(Part::Steps, "Remove it yourself");
    by_hand(record)
        .into_iter()
        .for_each(|line| section.line(line));
    Some(section)
}

fn why_held_section(record: &Record) -> Option<Section> {
    if record.action != Action::Hold {
        return None;
    }
    let mut section = Section::new(Part::Why, "Why it was not removed");
    let (observe, others): (Vec<&Interlock>, Vec<&Interlock>) = record
        .held_by
        .iter()
        .partition(|it| **it == Interlock::ObserveMode);
    let held = |interlock: &Interlock| format!("{interlock}: {}.", why_held(record, *interlock));
    observe
        .iter()
        .for_each(|interlock| section.line(held(interlock)));
    if !observe.is_empty() && !others.is_empty() {
        section.line("In enforce mode, this would hold it too:");
    }
    others
        .iter()
        .for_each(|interlock| section.line(held(interlock)));
    let shared = record.held_by.contains(&Interlock::Shared);
    if shared
        && record
            .shared_with
            .last()
            .is_some_and(|last| more(last).is_some())
    {
        section.line("To list all accounts with which it is shared:");
        section.line(format!(
            "{} --attribute launchPermission",
            aws_ec2(record, "describe-image-attribute", "--image-id")
        ));
    }
    Some(section)
}

fn references(record: &Record) -> Option<Section> {
    if record.references.is_empty() {
        return None;
    }
    let title = "What refers to it, in this account and Region";
    let mut section = Section::new(Part::Why, title);
    for arn in &record.references {
        match more(arn) {
            Some(more) => {
                section.line(format!("and {more} more. To list all of them:"));
                section.line(format!(
                    "{} --include-all-resource-types",
                    aws_ec2(record, "describe-image-references", "--image-ids")
                ));
            }
            None => section.line(plain(arn)),
        }
    }
    Some(section)
}

fn create_it_correctly(record: &Record) -> Option<Section> {
    if record.fix.is_empty() {
        return None;
    }
    let title = match record.verdict {
        Verdict::Mismatch(_) | Verdict::Gone => "Create it correctly",
        _ => "What to do",
    };
    let mut section = Section::new(Part::Steps, title);
    record.fix.iter().for_each(|step| section.line(step));
    Some(section)
}

fn why(record: &Record) -> Option<Section> {
    let mut section = Section::new(Part::Why, "Why");
    section.line(plain(&record.reason));
    if let Some(error) = &record.error {
        section.line(format!("Error: {}", plain(error)));
    }
    let decides = record.expected.as_ref().map(|expected| expected.source);
    for statement in &record.evidence {
        let says = match statement.state {
            "found" => statement.text(),
            "failed" | "invalid" => statement.state.to_owned(),
            _ => continue,
        };
        let mark = match decides == Some(statement.source) {
            true => "  <- decides",
            false => "",
        };
        let said = format!("{says} ({})", statement.detail);
        section.line(format!(
            "{:<13}{}{mark}",
            statement.source.name(),
            plain(&said)
        ));
    }
    section.field(
        "registered",
        record.registered_at.map(|at| at.to_rfc3339()).as_deref(),
    );
    section.field("by", record.registered_by.as_deref());
    section.field("from", record.snapshot_id.as_deref());
    Some(section)
}

fn details(record: &Record) -> Option<Section> {
    let mut section = Section::new(Part::Details, "Details");
    section.field("image", record.image_id.as_deref());
    section.field("name", record.name.as_deref());
    section.field("account", record.account.as_deref());
    section.field("region", record.region.as_deref());
    let actual = record.actual.as_ref();
    section.field(
        "billed as",
        actual.and_then(|it| it.platform_details.as_deref()),
    );
    section.field(
        "operation",
        actual.and_then(|it| it.usage_operation.as_deref()),
    );
    if let Some(actual) = actual.filter(|actual| !actual.product_codes.is_empty()) {
        section.field("sold as", Some(&product_codes(&actual.product_codes)));
    }
    section.field(
        "expected",
        record.expected.as_ref().map(Expected::text).as_deref(),
    );
    section.field("verdict", Some(&record.label()));
    section.field("event", record.event_id.as_deref());
    Some(section)
}

fn register_it_again(record: &Record, with_tags: bool) -> Option<Section> {
    let rebuild = record
        .rebuild
        .as_ref()
        .filter(|_| registers_again(record))?;
    let title = match record.undo {
        Some(_) => "Cannot be restored? Register it again",
        None => "Register it again",
    };
    let mut section = Section::new(Part::Details, title);
    section.line(
        "The new AMI is billed as this one was, because it is made from the same data. It has a new id: change what \
         refers to the old one.",
    );
    if !record.instance_store {
        section.line("The guard reports the new AMI, and does not discard it (discarded-before).");
    }
    register_again(record, rebuild, with_tags)
        .into_iter()
        .chain(not_in_the_request(record, rebuild))
        .for_each(|line| section.line(line));
    Some(section)
}

/// The number in a record's `and 3 more`.
pub(super) fn more(text: &str) -> Option<usize> {
    let number = text.strip_prefix("and ")?.strip_suffix(" more")?;
    number.parse().ok()
}
