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
use crate::discard::{Action, DISCARD_TAG, DISCARD_VALUE, Interlock, is_of_people};
use crate::event::Digest;
use crate::expectation::{EXPECT_TAG, Origin, product_codes};
use crate::record::{Expected, Outcome, Rebuild, Record, RecycleBin, Refusal, SCHEMA};
use crate::verdict::{Mismatch, Verdict};
pub(crate) use summary::summary;

/// A subject is shorter than 100 characters (SNS API reference, "Publish").
const SUBJECT: usize = 99;

/// The longest piece of outside text that a line shows; the record has the whole of it.
const SHOWN: usize = 300;

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
    let json = serde_json::json!(record);
    let mut bodies = bodies(&text(record), &json);
    if bodies.len() > LONGEST_MESSAGE {
        // An image with very many tags or launch permissions: the log and the ledger have them all.
        let mut shorter = record.clone();
        shorter.rebuild = None;
        shorter.references.truncate(10);
        let mut json = serde_json::json!(shorter);
        bodies = self::bodies(&text(&shorter), &json);
        if bodies.len() > LONGEST_MESSAGE {
            // Longer than anything that EC2 or IAM allows.
            cut(&mut json);
            shorter.fix.retain(|step| step.len() <= SHOWN);
            bodies = self::bodies(&text(&shorter), &json);
        }
    }
    Message {
        subject: subject(record),
        bodies,
        chat: chat::of_record(record),
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

/// The messages of a digest: the images that the hourly limit has held, by their records as the ledger has
/// them, in as few messages as hold them.
pub(crate) fn digest(digest: &Digest, held: &[Value]) -> Vec<Message> {
    if held.is_empty() {
        return Vec::new();
    }
    let message = one_digest(digest, held);
    if message.bodies.len() <= LONGEST_MESSAGE || held.len() == 1 {
        return vec![message];
    }
    let (some, others) = held.split_at(held.len() / 2);
    [self::digest(digest, some), self::digest(digest, others)].concat()
}

fn one_digest(digest: &Digest, held: &[Value]) -> Message {
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
    text.line(&format!(
        "AMIs that do not bill what they should, and were held by the hourly limit: {number}. As many discards as the \
         policy's discard.max_per_hour allows had been begun. They stood when they were judged."
    ));
    text.heading(&format!("In account {}, {}", digest.account, digest.region));
    for record in held {
        let word = |key: &str| plain(record.get(key).and_then(Value::as_str).unwrap_or("-"));
        text.line(&format!(
            "  {} {}: {}/{}: {}",
            word("image_id"),
            word("name"),
            word("verdict"),
            word("kind"),
            word("reason")
        ));
    }
    text.heading("What to do");
    text.line(
        "So many at once: is something wrong with the images, or with what they are expected to bill? Correct that \
         first.",
    );
    text.line(&format!(
        "To have one judged again, give its event to the function again. To discard one yourself: aws ec2 \
         deregister-image --region {} --image-id <image>. The log and the ledger have the whole record of each.",
        digest.region
    ));
    let images: Vec<Value> = held
        .iter()
        .map(|record| {
            let members = KEYS.iter().filter_map(|key| {
                let text = plain(record.get(*key)?.as_str()?);
                Some(((*key).to_owned(), text.into()))
            });
            members.collect::<serde_json::Map<_, _>>().into()
        })
        .collect();
    let json = serde_json::json!({
        "schema": SCHEMA, "digest": "limit", "event_id": digest.event_id,
        "account": digest.account, "region": digest.region, "images": images,
    });
    let subject = format!("AMI billing: held by the hourly limit, AMIs: {number}");
    Message {
        bodies: bodies(&text.0, &json),
        chat: chat::of_digest(digest, held, &subject),
        attributes: attributes(
            "mismatch",
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
    let mut text = Text::default();
    let image = record.image_id.as_deref().unwrap_or("An AMI");
    text.line(&format!(
        "{image} {}: {}.",
        done(record),
        plain(&record.reason)
    ));

    text.heading("What was done");
    deeds(record).iter().for_each(|deed| text.line(deed));

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
            text.field("used by", &Some(arn.clone()));
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
                 kept the image. A snapshot that is in the Recycle Bin itself is restored first: aws ec2 \
                 restore-snapshot-from-recycle-bin. Sharing comes back by itself.",
            );
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
        text.line(&register_again(record, rebuild));
        not_in_the_request(record, rebuild)
            .iter()
            .for_each(|line| text.line(line));
        text.line(
            "A new image bills as this one did: its snapshot's metadata is not mended by that.",
        );
    }
    text.0
}

/// Whether the image is, or is about to be, gone in a way in which it may have to be registered again.
fn registers_again(record: &Record) -> bool {
    record.action == Action::Deregister
        && record.rebuild.is_some()
        && !matches!(record.outcome, Some(Outcome::Refused | Outcome::Failed))
}

/// The command that registers the image again, as it was.
fn register_again(record: &Record, rebuild: &Rebuild) -> String {
    let region = record.region.as_deref().unwrap_or("<region>");
    let command = |request: &Value| {
        format!(
            "aws ec2 register-image --region {region} --cli-input-json {}",
            shell_quoted(&escaped_json(&request.to_string()))
        )
    };
    let whole = command(&rebuild.register_image);
    if whole.len() <= 2 * LONGEST_TAGS {
        return whole;
    }
    let mut request = rebuild.register_image.clone();
    if let Some(members) = request.as_object_mut() {
        members.remove("TagSpecifications");
    }
    format!(
        "{} (without its tags, which the record has)",
        command(&request)
    )
}

/// What the image had that RegisterImage cannot bring back, each with the command that does.
fn not_in_the_request(record: &Record, rebuild: &Rebuild) -> Vec<String> {
    let region = record.region.as_deref().unwrap_or("<region>");
    let on_the_new =
        |command: &str| format!("aws ec2 {command} --region {region} --image-id '<the new image>'");
    let mut steps = launch_permissions(record, None);
    if let Some(at) = rebuild.deprecate_at {
        // EC2 API reference, "EnableImageDeprecation": "You can't specify a date in the past".
        steps.push(format!(
            "It had a deprecation time, and EC2 accepts a future one only. To set it again: {} --deprecate-at {}",
            on_the_new("enable-image-deprecation"),
            at.to_rfc3339_opts(SecondsFormat::Secs, true)
        ));
    }
    if let Some(protection) = &rebuild.deregistration_protection {
        let cooldown = match protection.as_str() {
            "enabled-with-cooldown" => " --with-cooldown",
            _ => "",
        };
        steps.push(format!(
            "It had deregistration protection. To protect the new image: {}{cooldown}",
            on_the_new("enable-image-deregistration-protection")
        ));
    }
    let boot_mode = rebuild.register_image.get("BootMode");
    if boot_mode
        .and_then(Value::as_str)
        .is_some_and(|mode| mode.starts_with("uefi"))
    {
        // EC2 API reference, "Image": it has no UefiData.
        steps.push(format!(
            "It boots by UEFI, and DescribeImages does not show UEFI variables. If it had its own (Secure Boot keys), \
             read them from an instance of the image before you register it: aws ec2 get-instance-uefi-data --region \
             {region} --instance-id '<an instance of the image>' --query UefiData --output text. Pass them as --uefi-data."
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
    let region = record.region.as_deref().unwrap_or("<region>");
    let command = format!(
        "aws ec2 modify-image-attribute --region {region} --image-id {} --launch-permission {}",
        image.unwrap_or("'<the new image>'"),
        shell_quoted(&escaped_json(&json))
    );
    match command.len() <= LONGEST_TAGS {
        true => vec![format!("It was shared. To share it again: {command}")],
        false => vec![format!(
            "It was shared with {} others. Its record has them all (rebuild.launch_permissions).",
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
            std::iter::once("Nothing. A discard was due, and is held by:".to_owned())
                .chain(held)
                .collect()
        }
        (Action::None | Action::Alert, _) => {
            let mut deeds = vec!["Nothing: this verdict is told, never acted upon.".to_owned()];
            if record.kind == Some(Mismatch::Extra) {
                deeds.push("Nothing is unlicensed: somebody pays for more than is expected.".to_owned());
            }
            deeds
        }
        (_, Some(Outcome::Refused)) => {
            return vec![
                "Nothing: EC2 refused, and the image stands. It will not be tried again by itself.".to_owned(),
                format!("  {}", error()),
                by_hand(record),
            ];
        }
        (_, Some(Outcome::Failed)) => {
            let mut deeds = vec![
                "Nothing that is known of: it did not get through. Its event comes back within minutes, and what became \
                 of the image is looked at again; it is not tried more than seven times.".to_owned(),
                format!("  {}", error()),
            ];
            if let Some(undo) = undo(record) {
                deeds.push(format!("If it turns out to be gone, and is needed: {undo}"));
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

/// What a person can do about a discard that EC2 refused.
fn by_hand(record: &Record) -> String {
    let command = match record.action {
        Action::Disable => "disable-image",
        _ => "deregister-image",
    };
    let command = aws_ec2(record, command, "--image-id");
    match record.refusal {
        Some(Refusal::Protected) => format!(
            "Somebody wants it kept: it has deregistration protection. If it is to go: {}, wait for a day if the \
             protection has a cool-down, then {command}",
            aws_ec2(record, "disable-image-deregistration-protection", "--image-id")
        ),
        Some(Refusal::BackupManaged) => "It is a recovery point of AWS Backup, and only AWS Backup deletes it: find it \
             in its vault, and delete it there if it is to go."
            .to_owned(),
        Some(Refusal::NotOwner) => {
            "EC2 takes it for another account's image, or one of a service: only its owner can discard it."
                .to_owned()
        }
        Some(Refusal::Denied) => format!(
            "Restore the permission in the template, or look for a service control policy that takes it away. To \
             discard it yourself: {command}"
        ),
        Some(Refusal::Other) | None => format!("To discard it yourself: {command}"),
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

/// How to get an image that bills what it should, a step a line.
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
                steps.push(format!(
                    "Or, if what it bills is right, say so{first}: {declare}"
                ));
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
            steps.push(format!("If a declaration is wrong, correct it: {declare}"));
            steps.push(
                "If what was observed misleads, no tag helps: exempt the image by an [[exempt]] rule of the policy."
                    .into(),
            );
            steps
        }
        Verdict::Unverifiable if ec2_is_clear(record) => {
            vec![format!("Say what the image should bill: {declare}")]
        }
        // Told of for its tag alone.
        Verdict::Verified if record.action == Action::Alert => {
            vec![format!("Correct the tag: {declare}")]
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
        record.region.as_deref().unwrap_or("<region>"),
        anew.origin.instance,
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
            "{left_out} of the image's tags are not in the command, as it would be too long."
        ));
    }
    steps
}

fn from_another_image(record: &Record, anew: Option<&Anew>) -> Vec<String> {
    let platform = expected_platform(record);
    let region = record.region.as_deref().unwrap_or("<region>");
    let snapshot = record.snapshot_id.as_deref().unwrap_or("<snapshot>");
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
        format!(
            "2. aws ec2 run-instances --region {region} --image-id <an AMI that bills {platform}> --instance-type <type>, and stop it when it runs"
        ),
        format!(
            "3. aws ec2 create-volume --region {region} --snapshot-id {snapshot} --availability-zone <the instance's>, and attach it in place of the root volume"
        ),
        format!(
            "4. aws ec2 create-image --region {region} --instance-id <the instance> {} (another name, as long as this image has it)",
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
         aws ec2 create-image can not make such a one anew."
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

/// JSON in which nothing but printable characters stands as it is.
pub(crate) fn escaped_json(json: &str) -> String {
    json_without(json, is_treacherous)
}

/// A JSON document whose strings hold these characters by their numbers alone.
pub fn json_without(json: &str, unwanted: impl Fn(char) -> bool) -> String {
    let mut escaped = String::new();
    for character in json.chars() {
        if unwanted(character) {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                escaped.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// Whether it is known what EC2 bills the image as.
fn ec2_is_clear(record: &Record) -> bool {
    let actual = record.actual.as_ref();
    actual.is_some_and(|actual| matches!(actual.billed_as(), BilledAs::Known { .. }))
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

/// Whether a character does not show as itself: control characters, line and paragraph separators,
/// those of no width, and those that turn the direction of writing.
fn is_treacherous(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
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
            character if character.is_control() => shown.extend(character.escape_default()),
            character if is_treacherous(character) => shown.extend(character.escape_unicode()),
            character => shown.push(character),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::billing::{Billing, Licence, Os};
    use crate::discard::Interlock;
    use crate::event::Ignored;
    use crate::expectation::Source;
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
        assert!(carried > 0 && steps.last().unwrap().contains("say so"));
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
