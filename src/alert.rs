//! The record as people and programs read it.
//!
//! Names, tags and ARNs come from outside: in the text each stands on one line, without control
//! characters, and cut when long, so that none can forge a line or move a terminal's cursor.

use crate::billing::{Parsed, parse_platform_details, parse_usage_operation};
use crate::discard::{Action, DISCARD_TAG, DISCARD_VALUE};
use crate::expectation::EXPECT_TAG;
use crate::record::{Outcome, Record};
use crate::verdict::{Mismatch, Verdict};

/// A subject is shorter than 100 characters (SNS API reference, "Publish").
const SUBJECT: usize = 99;

/// The longest piece of outside text that a line shows; the record has the whole of it.
const SHOWN: usize = 300;

/// What is published: one text for people, one for programs.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// The subject of a mail: ASCII, one line, below 100 characters.
    pub(crate) subject: String,
    /// SNS's JSON with a body for each protocol.
    pub(crate) bodies: String,
}

/// The SNS message of a record: text where people read (`default`, `email`), the record where
/// programs do.
pub(crate) fn message(record: &Record) -> Message {
    let text = text(record);
    let json = serde_json::json!(record).to_string();
    let bodies = serde_json::json!({
        "default": text, "email": text,
        "sqs": json, "lambda": json, "http": json, "https": json,
    });
    Message {
        subject: subject(record),
        bodies: bodies.to_string(),
    }
}

/// The subject of a mail. Nothing in it comes from outside but the image's id, which was checked.
pub fn subject(record: &Record) -> String {
    let image = record.image_id.as_deref().unwrap_or("an AMI");
    let kind = record
        .kind
        .map_or_else(String::new, |kind| format!("/{}", kind.name()));
    let mut subject = format!(
        "AMI billing {}{kind}: {image} {}",
        record.verdict.name(),
        done(record)
    );
    subject.truncate(SUBJECT);
    subject
}

/// What is done about an image, in words for a subject: ASCII.
fn done(record: &Record) -> &'static str {
    match (record.action, record.outcome) {
        (Action::Deregister, Some(Outcome::Done)) => "was deregistered",
        (Action::Disable, Some(Outcome::Done)) => "was disabled",
        (Action::Deregister, Some(Outcome::Refused | Outcome::Failed)) => {
            "could not be deregistered"
        }
        (Action::Disable, Some(Outcome::Refused | Outcome::Failed)) => "could not be disabled",
        (Action::Deregister, _) => "is being deregistered",
        (Action::Disable, _) => "is being disabled",
        (Action::Hold, _) => "is held, not discarded",
        (Action::Alert | Action::None, _) => "needs a look",
    }
}

/// The text of an alert: what was registered, what it bills and should, what was done, how to make
/// it right, how to take it back.
pub fn text(record: &Record) -> String {
    let mut text = Text::default();
    let image = record.image_id.as_deref().unwrap_or("An AMI");
    text.line(&format!(
        "{image} {}: {}.",
        done(record),
        plain(&record.reason)
    ));

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
    let expected = record.expected.as_ref();
    text.field(
        "should bill",
        &expected.map(|expected| expected.platform.join(" or ")),
    );
    text.field(
        "who says so",
        &expected.map(|expected| expected.source.name().to_owned()),
    );
    for statement in &record.evidence {
        let asked = format!(
            "{}: {} ({})",
            statement.source.name(),
            statement.state,
            statement.detail
        );
        text.field("asked", &Some(asked));
    }

    text.heading("What was done");
    deeds(record).iter().for_each(|deed| text.line(deed));

    text.heading("How to make it right");
    record.fix.iter().for_each(|step| text.line(step));

    if let Some(undo) = &record.undo {
        text.heading("How to take the discard back");
        text.line(undo);
        text.line(match record.action {
            Action::Disable => "Launch permissions do not come back with it: set them again.",
            _ => {
                "This needs the image's snapshots, which the guard never deletes, and that the Recycle Bin \
                 kept the image."
            }
        });
        text.line(
            "Then correct what the image is expected to bill, or protect it from deregistration, at once: \
             an event that is delivered again could have it discarded again.",
        );
    }
    text.0
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
            let held = record
                .held_by
                .iter()
                .map(|interlock| format!("  {interlock}: {}", interlock.meaning()));
            std::iter::once("Nothing. A discard was due, and is held by:".to_owned())
                .chain(held)
                .collect()
        }
        (Action::None | Action::Alert, _) => {
            vec!["Nothing: this verdict is told, never acted upon.".to_owned()]
        }
        (_, Some(Outcome::Refused)) => {
            return vec![
                "Nothing: EC2 refused, and the image stands. It will not be tried again.".to_owned(),
                format!("  {}", error()),
                format!("To discard it yourself: {}", by_hand(record)),
            ];
        }
        (_, Some(Outcome::Failed)) => {
            return vec![
                "Nothing that is known of: it did not get through. It is tried again, five times in all.".to_owned(),
                format!("  {}", error()),
            ];
        }
        (Action::Deregister, Some(Outcome::Done)) => vec![
            "The image was deregistered, and is NOT in the Recycle Bin: no active rule keeps it, and it can not be \
             restored. Its snapshots stay: register a new image from them."
                .to_owned(),
        ],
        (Action::Deregister, _) => vec![
            "The image is deregistered right after this message. Its snapshots stay, and instances \
             that run from it go on."
                .to_owned(),
            if record.undo.is_some() {
                format!(
                    "It is marked with the tag {DISCARD_TAG}={DISCARD_VALUE}, by which a Recycle Bin rule \
                     keeps it, if one is active. If none has it, another message says so."
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
    if record.error.is_some() {
        deeds.push(format!("  {}", error()));
    }
    deeds
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

/// The command that does what the guard could not.
fn by_hand(record: &Record) -> String {
    let command = match record.action {
        Action::Disable => "disable-image",
        _ => "deregister-image",
    };
    aws_ec2(record, command, "--image-id")
}

/// How to get an image that bills what it should, a step a line.
pub fn fix(record: &Record) -> Vec<String> {
    let declare = format!(
        "{} --tags 'Key={EXPECT_TAG},Value=<what it should bill>'",
        aws_ec2(record, "create-tags", "--resources")
    );
    match record.verdict {
        Verdict::Mismatch(kind) => {
            let platform = match &record.expected {
                Some(expected) => expected.platform.join(" or "),
                None => "the right platform".into(),
            };
            let name = record.name.as_deref().unwrap_or("<name>");
            let region = record.region.as_deref().unwrap_or("<region>");
            let snapshot = record.snapshot_id.as_deref().unwrap_or("<snapshot>");
            let mut steps = vec![
                format!(
                    "A billing code can not be put on an AMI afterwards: create the AMI from an instance that has it ({}).",
                    plain(&platform)
                ),
                "1. Is there an instance whose root volume the snapshot was taken from? Then go to 4 with it. Else:".into(),
                format!(
                    "2. aws ec2 run-instances --region {region} --image-id <an AMI that bills {}> --instance-type <type>, and stop it when it runs",
                    plain(&platform)
                ),
                format!(
                    "3. aws ec2 create-volume --region {region} --snapshot-id {snapshot} --availability-zone <the instance's>, and attach it in place of the root volume"
                ),
                format!(
                    "4. aws ec2 create-image --region {region} --instance-id <the instance> --name {} (another name, as long as this image has it)",
                    shell_quoted(&plain(name))
                ),
                "Until then, a Reserved Instance for that platform does not apply to instances of this image.".into(),
            ];
            // An empty field is wrong whatever anybody declares.
            if kind != Mismatch::Empty {
                steps.push(format!("Or, if what it bills is right, say so: {declare}"));
            }
            steps
        }
        Verdict::Conflict | Verdict::Unverifiable if ec2_is_clear(record) => {
            vec![format!("Say what the image should bill: {declare}")]
        }
        Verdict::Conflict | Verdict::Unverifiable => vec![
            "What EC2 says of the image contradicts itself, or is new to this version of the guard: no \
             declaration helps. Ask AWS Support what the image bills, or look for a newer version."
                .into(),
        ],
        _ => Vec::new(),
    }
}

/// Whether EC2's two billing fields are known, and say the same.
fn ec2_is_clear(record: &Record) -> bool {
    let Some(actual) = &record.actual else {
        return false;
    };
    let details = parse_platform_details(actual.platform_details.as_deref());
    let operation = parse_usage_operation(actual.usage_operation.as_deref());
    match (details, operation) {
        (Parsed::Known(details), Parsed::Known(operation)) => details == operation,
        (Parsed::Known(_), Parsed::Absent | Parsed::Unrecognised) => true,
        (Parsed::Absent | Parsed::Unrecognised, _) => false,
    }
}

fn aws_ec2(record: &Record, command: &str, option: &str) -> String {
    let image = record.image_id.as_deref().unwrap_or("<image>");
    let region = record.region.as_deref().unwrap_or("<region>");
    format!("aws ec2 {command} {option} {image} --region {region}")
}

/// A text as one word of a POSIX shell.
fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Text from outside on one line: control characters, line and paragraph separators and characters
/// that turn the direction of writing are escaped, what is long is cut.
fn plain(text: &str) -> String {
    let mut shown = String::new();
    for character in text.chars() {
        if shown.len() >= SHOWN {
            shown.push('…');
            break;
        }
        match character {
            '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
            | '\u{feff}' => {
                shown.extend(character.escape_unicode());
            }
            character if character.is_control() => shown.extend(character.escape_default()),
            character => shown.push(character),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discard::Interlock;
    use crate::event::Ignored;
    use crate::expectation::Source;
    use crate::record::{Actual, Expected, Statement};

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
            }),
            expected: Some(Expected {
                platform: vec!["Windows".into()],
                source: Source::ImageTag,
            }),
            evidence: vec![Statement {
                source: Source::ImageTag,
                state: "spoke",
                says: vec!["Windows".into()],
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
        record.fix = fix(&record);
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
            "aws ec2 create-image --region eu-west-1 --instance-id <the instance> --name 'win2022-golden'",
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
            ..record()
        }));
        assert_eq!(text.lines().count(), honest.lines().count());
        assert_eq!(text.matches("\nWhat was done\n").count(), 1);
        assert!(!text.contains(|c: char| c != '\n' && c.is_control()));
        assert!(!text.contains(['\u{2028}', '\u{202e}']));
        assert!(text.lines().all(|line| line.len() < 1000));
    }

    #[test]
    fn a_name_is_one_word_for_a_shell() {
        let record = with_fix(Record {
            name: Some("it's; rm -rf $(HOME) `x`".into()),
            ..record()
        });
        let command = record
            .fix
            .iter()
            .find(|step| step.contains("create-image"))
            .unwrap();
        assert!(
            command.contains(r"--name 'it'\''s; rm -rf $(HOME) `x`' ("),
            "{command}"
        );
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
