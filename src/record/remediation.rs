//! What a person can do about an image, which is to undo a discard, to correct the image, or to register it again. The
//! steps are sentences and complete commands. Each command is on a line of its own.

use std::collections::BTreeMap;

use chrono::SecondsFormat;
use serde_json::Value;

use super::{Outcome, Rebuild, Record, Refusal};
use crate::billing::{BilledAs, Difference, Platforms};
use crate::escape::{escaped_json, plain, shell_quoted};
use crate::expectation::{EXPECT_TAG, Origin, product_codes};
use crate::marks::is_of_people;
use crate::plan::Action;
use crate::verdict::{Mismatch, Verdict};

/// Largest length of the tags in a command, in bytes. The tags are in each of a message's six bodies, and escaped twice
/// there. The message still stays far below the 256 KiB that SNS accepts.
const LONGEST_TAGS: usize = 6 * 1024;

/// Command that undoes a discard. `None` if there is no such command.
pub(crate) fn undo(record: &Record) -> Option<String> {
    match record.action {
        Action::Disable => Some(aws_ec2(record, "enable-image", "--image-id")),
        // The Recycle Bin keeps only EBS-backed images (EBS User Guide, "Recycle Bin").
        Action::Deregister if record.instance_store => None,
        Action::Deregister => Some(aws_ec2(
            record,
            "restore-image-from-recycle-bin",
            "--image-id",
        )),
        Action::None | Action::Alert | Action::Hold => None,
    }
}

/// What a person can do about a discard that EC2 refused. The steps are sentences, and commands on lines of their own.
pub(crate) fn by_hand(record: &Record) -> Vec<String> {
    let command = match record.action {
        Action::Disable => "disable-image",
        _ => "deregister-image",
    };
    let command = aws_ec2(record, command, "--image-id");
    match record.refusal {
        Some(Refusal::Protected) => vec![
            "The image has deregistration protection. If you do not want to keep it, remove the protection:"
                .to_owned(),
            aws_ec2(record, "disable-image-deregistration-protection", "--image-id"),
            "If the protection has a cool-down, wait for a day. Then discard the image:".to_owned(),
            command,
        ],
        Some(Refusal::BackupManaged) => vec![
            "The image is a recovery point of AWS Backup, and only AWS Backup can delete it. If you do not want it, \
             delete it in its backup vault."
                .to_owned(),
        ],
        Some(Refusal::NotOwner) => vec![
            "According to EC2, the image belongs to another account or to a service. Only its owner can discard it."
                .to_owned(),
        ],
        Some(Refusal::Denied) => vec![
            "Restore the permission in the template, or look for a service control policy that denies it. To discard \
             the image yourself:"
                .to_owned(),
            command,
        ],
        Some(Refusal::Other) | None => vec!["To discard the image yourself:".to_owned(), command],
    }
}

/// What an image could be created from again.
#[derive(Clone, Debug)]
pub(crate) struct RecreateFrom {
    /// The instance from whose root volume the root snapshot was taken, and what the instance is billed as.
    pub(crate) origin: Origin,
    /// Whether the instance is billed as the image is expected to be.
    pub(crate) right: bool,
    /// Tags of the image.
    pub(crate) tags: BTreeMap<String, String>,
}

/// How to make Packer keep the billing code of the images that it registers (Packer's documentation,
/// "amazon-ebssurrogate").
pub(crate) const AT_PACKER: &str = "Built with Packer's amazon-ebssurrogate? Set `use_create_image = true`, so that \
                                    its next images keep the billing code.";

/// How to get an image that is billed as expected, as sentences and complete commands. `anew` is what the image could
/// be created from again. A placeholder in a command is quoted, so that a shell does not take it for a redirection.
pub(crate) fn fix(record: &Record, anew: Option<&RecreateFrom>) -> Vec<String> {
    let declare = format!(
        "{} --tags 'Key={EXPECT_TAG},Value=<platform>'",
        aws_ec2(record, "create-tags", "--resources")
    );
    match record.verdict {
        Verdict::Mismatch(kind) => {
            if let Some(steps) = correct_product_codes(record) {
                return steps;
            }
            let mut steps = match anew {
                Some(anew) if anew.right => {
                    let Origin { instance, bills } = &anew.origin;
                    let why =
                        format!("Create the image from {instance}, which is billed as `{bills}`:");
                    from_instance(record, anew, why)
                }
                _ if record.instance_store => from_another_bundle(record),
                _ => from_another_image(record, anew),
            };
            // An empty field is wrong, whatever is declared.
            if kind != Mismatch::Empty {
                let first = match record.action {
                    Action::Deregister | Action::Disable => {
                        "Restore the image if it is gone, then declare that. If you registered it again, name the new image:"
                    }
                    _ => "Declare that:",
                };
                steps.push(format!("Is the image billed correctly? {first}"));
                steps.push(declare);
            }
            steps
        }
        Verdict::Conflict if ec2_is_clear(record) => {
            let mut steps = match anew {
                Some(anew) => {
                    let Origin { instance, bills } = &anew.origin;
                    let why = format!("If `{bills}` is right, create the image from {instance}:");
                    // The declaration is in doubt, so the new image must not repeat it.
                    let mut anew = anew.clone();
                    anew.tags.remove(EXPECT_TAG);
                    from_instance(record, &anew, why)
                }
                None => vec![
                    "If the observation is right, create the image from an instance that has the billing code.".into(),
                ],
            };
            steps.push("If a declaration is wrong, correct it:".to_owned());
            steps.push(declare);
            steps.push(
                "If the observation is wrong, a tag does not help. Exempt the image with an [[exempt]] rule of the \
                 policy."
                    .into(),
            );
            steps
        }
        Verdict::Unverifiable if ec2_is_clear(record) => {
            vec!["Declare what the image should be billed as:".to_owned(), declare]
        }
        // It is reported only because of its tag.
        Verdict::Verified if record.action == Action::Alert => {
            vec!["Correct the tag:".to_owned(), declare]
        }
        Verdict::Conflict | Verdict::Unverifiable => vec![
            "EC2's data about the image contradicts itself, or this version of the guard does not know it. A \
             declaration does not help. Install a newer version, or ask AWS Support what the image is billed as."
                .into(),
        ],
        _ => Vec::new(),
    }
}

/// What to do about an image with the right platform, but not the expected product codes. `None` for any other image.
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
        None if actual.product_codes.is_empty() => ("a product code".to_owned(), "tag or rule"),
        _ => return None,
    };
    let has = product_codes(&actual.product_codes);
    Some(vec![
        format!(
            "EC2 copies product codes from the root snapshot to the AMI. This AMI has {has}, expected {wanted}. Create \
             it from an instance, or register it from a snapshot, that has what is expected."
        ),
        format!("If the AMI is right, correct the {declared_by} that says otherwise."),
    ])
}

/// Steps with one command, which creates the image from the instance whose root volume the snapshot was taken from.
/// `why` is the sentence before the command.
fn from_instance(record: &Record, anew: &RecreateFrom, why: String) -> Vec<String> {
    let (tags, left_out) = tag_specifications(&anew.tags);
    let name = record.name.as_deref().unwrap_or_default();
    let mut command = format!(
        "aws ec2 create-image --no-reboot --region {} --instance-id {} {}",
        region(record),
        word(Some(&anew.origin.instance), "the instance"),
        name_option(name)
    );
    if let Some(tags) = tags {
        command.push_str(" --tag-specifications ");
        command.push_str(&tags);
    }
    let mut steps = vec![
        "The new image has what is on the instance's disks now, not what was there when the snapshot was taken. While an \
         image with this name exists, use another name."
            .to_owned(),
        why,
        command,
        NO_REBOOT.to_owned(),
    ];
    if left_out > 0 {
        steps.push(format!(
            "{left_out} of the image's tags are not in the command, because it would be too long. The image has them. After a \
             discard, the record has them too (`rebuild.register_image.TagSpecifications`)."
        ));
    }
    steps
}

/// What `--no-reboot` prevents (EC2 API reference, "CreateImage").
const NO_REBOOT: &str =
    "Without --no-reboot, a running instance restarts, which gives a consistent file system.";

fn from_another_image(record: &Record, anew: Option<&RecreateFrom>) -> Vec<String> {
    let platform = expected_platform(record);
    let region = region(record);
    let snapshot = word(record.snapshot_id.as_deref(), "the snapshot");
    let base = shell_quoted(&format!("<an AMI that is billed as {platform}>"));
    let name = record.name.as_deref().unwrap_or_default();
    vec![
        format!(
            "You cannot add a billing code to an AMI. Create the AMI from an instance that has the code ({platform})."
        ),
        match anew {
            None => "1. If the snapshot was taken from the root volume of an instance that has the code and still \
                     exists, go to step 4 with it.".into(),
            Some(RecreateFrom { origin, .. }) => format!(
                "1. {}, from whose root volume the snapshot was taken, is billed as `{}`, so you cannot use it.",
                origin.instance, origin.bills
            ),
        },
        format!("2. Launch an instance from an AMI that is billed as {platform}, and stop it when it is running:"),
        format!(
            "aws ec2 run-instances --region {region} --image-id {base} --instance-type '<type>'"
        ),
        format!("aws ec2 stop-instances --region {region} --instance-ids '<the instance>'"),
        "3. Create a volume from the snapshot in the instance's zone, and attach it in place of the root volume:".into(),
        format!(
            "aws ec2 create-volume --region {region} --snapshot-id {snapshot} --availability-zone '<zone of the instance>'"
        ),
        "4. Create the image. While an image with this name exists, use another name:".into(),
        format!(
            "aws ec2 create-image --no-reboot --region {region} --instance-id '<the instance>' {}",
            name_option(name)
        ),
        NO_REBOOT.into(),
        "Until you use the new image, a Reserved Instance for that platform does not apply to instances of this image.".into(),
    ]
}

/// Steps for an instance-store-backed image. CreateImage accepts only EBS-backed instances (EC2 API reference,
/// "CreateImage").
fn from_another_bundle(record: &Record) -> Vec<String> {
    let platform = expected_platform(record);
    vec![
        "You cannot add a billing code to an AMI, and CreateImage cannot create an instance-store-backed one like this."
            .into(),
        format!(
            "Launch an EBS-backed instance from an AMI that is billed as {platform}. Copy what this image has to it, \
             and create the image from that instance."
        ),
        "The image's bundle in S3 stays, whatever happens to the image.".into(),
    ]
}

fn expected_platform(record: &Record) -> String {
    match &record.expected {
        Some(expected) => plain(&expected.text()),
        None => "the expected platform".into(),
    }
}

/// The option `--name` with an image's name, or with a placeholder if the name is not valid. EC2 accepts 3 to 128
/// letters, digits and some other characters (EC2 API reference, "CreateImage").
fn name_option(name: &str) -> String {
    let fits = (3..=128).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b" ()[]./-'@_".contains(&byte));
    match fits {
        // The AWS CLI would take a word that begins with a hyphen for an option.
        true if name.starts_with('-') => format!("--name={}", shell_quoted(name)),
        true => format!("--name {}", shell_quoted(name)),
        false => "--name '<name>'".to_owned(),
    }
}

/// The tags as `--tag-specifications` accepts them, in JSON and quoted for a shell, and the number of tags that did not
/// fit. Leaves out AWS's own tags, which cannot be set, and the guard's marks, which belong only to this image.
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

/// Whether EC2 says clearly what the image is billed as.
fn ec2_is_clear(record: &Record) -> bool {
    let actual = record.actual.as_ref();
    actual.is_some_and(|actual| matches!(actual.billed_as(), BilledAs::Known { .. }))
}

/// Whether the image was or is about to be deregistered, so that it may have to be registered again.
pub(crate) fn registers_again(record: &Record) -> bool {
    record.action == Action::Deregister
        && record.rebuild.is_some()
        && !matches!(record.outcome, Some(Outcome::Refused | Outcome::Failed))
}

/// Lines with the command that registers the image again as it was. Without `with_tags`, they say that the tags are
/// left out.
pub(crate) fn register_again(record: &Record, rebuild: &Rebuild, with_tags: bool) -> Vec<String> {
    let mut request = rebuild.register_image.clone();
    let mut lines = Vec::new();
    if let (Some(members), false) = (request.as_object_mut(), with_tags)
        && let Some(tags) = members.remove("TagSpecifications")
    {
        let number = tags.pointer("/0/Tags").and_then(Value::as_array);
        lines.push(format!(
            "The command leaves out the image's {} tags, because it would be too long. The record has them \
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

/// What the image had that RegisterImage cannot restore, each with the command that restores it.
pub(crate) fn not_in_the_request(record: &Record, rebuild: &Rebuild) -> Vec<String> {
    let region = region(record);
    let on_the_new =
        |command: &str| format!("aws ec2 {command} --region {region} --image-id '<the new image>'");
    let mut steps = launch_permissions(record, None);
    if let Some(at) = rebuild.deprecate_at {
        // EC2 API reference, "EnableImageDeprecation": "You can't specify a date in the past".
        steps.push("It had a deprecation time. If that is in the future, set it again:".to_owned());
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
        // DescribeImages returns no UefiData (EC2 API reference, "Image").
        steps.push(
            "It boots with UEFI, and DescribeImages does not show UEFI variables. If it had its own, such as Secure \
             Boot keys, read them from an instance of the image before you register it. Pass them as --uefi-data:"
                .to_owned(),
        );
        steps.push(format!(
            "aws ec2 get-instance-uefi-data --region {region} --instance-id '<an instance of the image>' --query UefiData \
             --output text"
        ));
    }
    steps
}

/// How to share an image again. Neither enabling an image nor registering it restores its launch permissions (EC2 User
/// Guide, "Disable an Amazon EC2 AMI"). Restoring it from the Recycle Bin does (EC2 User Guide, "Recover deregistered
/// AMIs"). Without `image`, the command has a placeholder for the new image.
pub(crate) fn launch_permissions(record: &Record, image: Option<&str>) -> Vec<String> {
    let Some(rebuild) = &record.rebuild else {
        return vec![
            "Its record in the log and in the ledger says who could launch instances from it."
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

/// The record's Region as one word of a command.
pub(crate) fn region(record: &Record) -> String {
    word(record.region.as_deref(), "region")
}

/// A value as one word of a command. Without a value, or with one that needs quotes, a placeholder.
pub(crate) fn word(value: Option<&str>, placeholder: &str) -> String {
    match value {
        Some(value) if is_word(value) => value.to_owned(),
        _ => shell_quoted(&format!("<{placeholder}>")),
    }
}

/// Whether a text is an id or a name that has no special meaning for a shell.
pub(crate) fn is_word(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Whether a line is a command, which can be copied and run alone.
pub fn is_command(line: &str) -> bool {
    line.starts_with("aws ") || line.starts_with("ami-guard ")
}

pub(crate) fn aws_ec2(record: &Record, command: &str, option: &str) -> String {
    let image = word(record.image_id.as_deref(), "image");
    let region = region(record);
    format!("aws ec2 {command} {option} {image} --region {region}")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::billing::{Billing, Licence, Os};
    use crate::event::Ignored;
    use crate::expectation::Source;
    use crate::notify::message;
    use crate::record::{Actual, Expected, Statement};

    pub(crate) fn record() -> Record {
        Record {
            image_id: Some("ami-0a1b2c3d4e5f60001".into()),
            name: Some("win2022-golden".into()),
            region: Some("eu-west-1".into()),
            account: Some("123456789012".into()),
            registered_by: Some("arn:aws:sts::123456789012:assumed-role/pipeline/4711".into()),
            snapshot_id: Some("snap-0a1b2c3d4e5f60001".into()),
            verdict: Verdict::Mismatch(Mismatch::Wrong),
            kind: Some(Mismatch::Wrong),
            reason: "image-tag says Windows, but the image is billed as `Linux/UNIX`".into(),
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
                state: "found",
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

    pub(crate) fn with_fix(mut record: Record) -> Record {
        record.fix = fix(&record, None);
        record
    }

    /// The arguments that a shell passes to `aws`.
    pub(crate) fn arguments(command: &str) -> Vec<String> {
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

    /// Index of the command in the steps of [`create_image`].
    const AT: usize = 2;

    fn create_image(name: &str, tags: &[(&str, &str)]) -> Vec<String> {
        let record = Record {
            name: Some(name.into()),
            action: Action::Deregister,
            ..record()
        };
        let anew = RecreateFrom {
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
        let command = &steps[AT];
        assert!(command.starts_with(
            "aws ec2 create-image --no-reboot --region eu-west-1 --instance-id i-0a1b2c3d4e5f60001 --name "
        ));
        assert!(!command.contains(['\n', '\u{202e}']), "{command}");
        let arguments = arguments(command);
        let tags = serde_json::from_str::<serde_json::Value>(arguments.last().unwrap()).unwrap();
        assert_eq!(
            arguments[..arguments.len() - 1],
            [
                "ec2",
                "create-image",
                "--no-reboot",
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
        let name = |name: &str| arguments(&create_image(name, &[])[AT]).split_off(7);
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
        let words = arguments(&steps[AT]);
        let carried = words.last().unwrap().matches("\"Key\"").count();
        assert!(steps[AT].len() < LONGEST_TAGS + 200);
        let counted = format!(
            "{} of the image's tags are not in the command",
            50 - carried
        );
        assert!(carried > 0 && steps[steps.len() - 2].contains("eclare that"));
        assert!(
            steps.iter().any(|step| step.starts_with(&counted)),
            "{steps:?}"
        );
        let record = Record {
            fix: steps,
            ..record()
        };
        // SNS counts all bodies of a message together.
        assert!(message(&record, None).bodies.len() < 200 * 1024);
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
}
