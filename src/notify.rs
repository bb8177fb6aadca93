//! Messages to people and programs. A record, a digest and an audit each have a message.
//!
//! Names, tags and ARNs come from outside. In the text, each one is on one line, without control characters, and cut if
//! it is long. None can forge a line or move a terminal's cursor.

mod alert;
mod audit;
mod chat;
mod digest;
mod email;
mod letter;
mod message;
mod sender;

use serde_json::json;

pub(crate) use audit::summary;
pub(crate) use digest::digest;
pub(crate) use message::Message;
pub(crate) use sender::Notifier;

use self::chat::Thread;
use self::letter::{Letter, Part, Section, Urgency, subject};
use self::message::{attributes, bodies};
use crate::escape::plain;
use crate::plan::Action;
use crate::record::{Record, SCHEMA};

/// The SNS message of a record. The bodies that people read (`default`, `email`) are a text. The bodies for programs
/// are the record. `runbook` is the URL or the file name of the runbook.
pub(crate) fn message(record: &Record, runbook: Option<&str>) -> Message {
    message_with(record, None, runbook)
}

/// The message of the first record that is over the hourly limit of alerts. It says that the digest has further ones.
/// `most` is the limit.
pub(crate) fn first_over(record: &Record, most: u32, runbook: Option<&str>) -> Message {
    let note = format!(
        "This hour has more alerts than the policy's alert.max_per_hour ({most}). The next hourly digest lists further \
         AMIs that are held or need a decision."
    );
    message_with(record, Some(&note), runbook)
}

fn message_with(record: &Record, note: Option<&str>, runbook: Option<&str>) -> Message {
    let letter = alert::letter(record, note, true);
    // A subscription that receives a mismatch must also receive how its discard ended.
    let label = record.label();
    let (verdict, kind) = match label.split_once('/') {
        Some((verdict, kind)) => (verdict, Some(kind)),
        None => (label.as_str(), None),
    };
    let (account, region) = (record.account.as_deref(), record.region.as_deref());
    let mut keywords = vec![label.clone()];
    if record.action != Action::None {
        let action = json!(record.action);
        keywords.push(action.as_str().unwrap_or_default().to_owned());
    }
    keywords.extend(record.held_by.iter().map(ToString::to_string));
    let image = record.image_id.as_deref().unwrap_or("An AMI");
    let thread = Thread {
        id: image.to_owned(),
        keywords,
        context: json!({
            "verdict": label,
            "account": account.unwrap_or("-"),
            "region": region.unwrap_or("-"),
            "image_id": image,
            "event_id": plain(record.event_id.as_deref().unwrap_or("-")),
        }),
    };
    Message {
        bodies: email::bodies_of(record, note, runbook),
        chat: chat::notification(&letter, thread, runbook),
        attributes: attributes(
            verdict,
            kind,
            account,
            region,
            alert::is_recoverable(record),
        ),
        subject: letter.subject,
    }
}

/// The message of a self-test, which says that nothing is wrong.
pub(crate) fn test(
    account: Option<&str>,
    region: Option<&str>,
    mode: &str,
    runbook: Option<&str>,
) -> Message {
    let mut details = Section::new(Part::Details, "Details");
    details.field("account", account);
    details.field("region", region);
    details.field("mode", Some(mode));
    let letter = Letter {
        subject: subject(
            Urgency::Test,
            "AMI billing guard test, nothing is wrong",
            account,
            region,
        ),
        happened: "This is a test of the alerts of ami-billing-guard. Nothing is wrong.".into(),
        done: "Nothing, except that this message was sent.".into(),
        production: "Not affected.".into(),
        act: "No. If you expected this test, its recipients get alerts about AMIs.".into(),
        first: None,
        runbook: "self-test",
        sections: vec![details],
    };
    let json = json!({
        "schema": SCHEMA, "verdict": "self-test", "account": account, "region": region, "mode": mode,
    });
    let place = [account, region].map(|part| plain(part.unwrap_or("-")));
    let thread = Thread {
        id: "ami-billing-guard-self-test".into(),
        keywords: vec!["self-test".into()],
        context: json!({ "verdict": "self-test", "account": place[0], "region": place[1] }),
    };
    Message {
        bodies: bodies(&email::text(&letter, runbook), &json),
        chat: chat::notification(&letter, thread, runbook),
        attributes: attributes("self-test", None, account, region, None),
        subject: letter.subject,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Action;
    use crate::plan::Interlock;
    use crate::record::Actual;
    use crate::record::Outcome;
    use crate::record::remediation::tests::{arguments, record, with_fix};
    use crate::record::{Rebuild, RecycleBin};
    use crate::verdict::Mismatch;
    use crate::verdict::Verdict;
    use serde_json::Value;

    fn message(record: &Record) -> Message {
        super::message(record, Some("https://example.org/runbook"))
    }

    /// The mail of a record.
    fn text(record: &Record) -> String {
        parts(&message(record)).0
    }

    #[test]
    fn a_person_reads_what_was_registered_what_it_bills_what_is_done_and_what_to_do() {
        let text = text(&with_fix(record()));
        for part in [
            "win2022-golden (ami-0a1b2c3d4e5f60001) is billed as Linux/UNIX. Expected:\nWindows.\n",
            "  Done        The guard deregisters the AMI right after this message.",
            "  Production  Running instances are not affected.",
            "  Act         Only if you need this AMI: restore it.",
            "  First       ami-guard restore ami-0a1b2c3d4e5f60001 --region eu-west-1\n",
            "  Read more   https://example.org/runbook#mismatch\n",
            "\nNEED IT BACK?\n",
            "\n  aws ec2 restore-image-from-recycle-bin --image-id ami-0a1b2c3d4e5f60001\n",
            "\n  aws ec2 create-image --no-reboot --region eu-west-1 --instance-id '<the instance>' --name 'win2022-golden'\n",
            "a Reserved Instance for that platform does not",
            "  by           arn:aws:sts::123456789012:assumed-role/pipeline/4711\n",
            "  from         snap-0a1b2c3d4e5f60001\n",
            "  operation    RunInstances\n",
        ] {
            assert!(text.contains(part), "{part:?} in:\n{text}");
        }
    }

    #[test]
    fn the_first_twelve_lines_answer_the_five_questions() {
        let hostile = "Ünï\u{202e}cødé `rm -rf` <b> ".repeat(20);
        for record in [
            with_fix(record()),
            with_fix(Record {
                name: Some(hostile.clone()),
                reason: hostile.clone(),
                registered_by: Some(hostile),
                ..record()
            }),
        ] {
            for record in in_every_situation(&record) {
                let mail = text(&record);
                let head: Vec<&str> = mail.lines().take(12).collect();
                for label in [
                    "  Done  ",
                    "  Production  ",
                    "  Act  ",
                    "  First  ",
                    "  Read more  ",
                ] {
                    let number = head.iter().filter(|line| line.starts_with(label)).count();
                    assert_eq!(number, 1, "{label} in:\n{mail}");
                }
                let order: Vec<usize> = [
                    "\n  Done",
                    "\n  Production",
                    "\n  Act",
                    "\n  First",
                    "\n  Read more",
                    "\nWHY\n",
                    "\nDETAILS\n",
                ]
                .iter()
                .filter_map(|part| mail.find(part))
                .collect();
                assert!(order.is_sorted() && order.len() == 7, "{mail}");
            }
        }
    }

    #[test]
    fn lines_of_a_mail_are_no_wider_than_a_terminal_except_for_commands_and_long_words() {
        for record in in_every_situation(&with_fix(record())) {
            for line in text(&record).lines() {
                let is_command = ["  aws ", "  ami-guard ", "  First "];
                let is_command = is_command.iter().any(|it| line.starts_with(it));
                let words = line.split_whitespace().count();
                assert!(
                    line.chars().count() <= 80 || is_command || words <= 2,
                    "{line}"
                );
            }
        }
    }

    /// A record in each situation about which the guard sends a message.
    fn in_every_situation(record: &Record) -> Vec<Record> {
        let with = |change: &dyn Fn(&mut Record)| {
            let mut record = record.clone();
            change(&mut record);
            record
        };
        let outcomes = [
            Outcome::Planned,
            Outcome::Done,
            Outcome::Refused,
            Outcome::Failed,
        ];
        let bins = [
            None,
            Some(RecycleBin::In),
            Some(RecycleBin::Absent),
            Some(RecycleBin::Unknown),
        ];
        let mut records = Vec::new();
        for action in [Action::Deregister, Action::Disable] {
            for outcome in outcomes {
                for bin in bins {
                    records.push(with(&|record| {
                        record.action = action;
                        record.outcome = Some(outcome);
                        record.recycle_bin = bin;
                        record.error = Some("what AWS said".into());
                    }));
                }
            }
        }
        for held_by in [
            vec![Interlock::Limit],
            vec![Interlock::ObserveMode],
            vec![Interlock::ObserveMode, Interlock::TooOld, Interlock::InUse],
        ] {
            records.push(with(&|record| {
                record.action = Action::Hold;
                record.outcome = None;
                record.undo = None;
                record.held_by = held_by.clone();
            }));
        }
        for (verdict, kind) in [
            (Verdict::Conflict, None),
            (Verdict::Unverifiable, None),
            (Verdict::Verified, None),
            (Verdict::Mismatch(Mismatch::Extra), Some(Mismatch::Extra)),
        ] {
            records.push(with(&|record| {
                record.action = Action::Alert;
                record.outcome = None;
                record.undo = None;
                record.verdict = verdict;
                record.kind = kind;
            }));
        }
        records.push(with(&|record| {
            record.instance_store = true;
            record.undo = None;
        }));
        records
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
        assert!(
            text.contains("Observe mode: nothing was changed."),
            "{text}"
        );
        assert!(
            text.contains("\n  In enforce mode, this would hold it too:\n  too-old: "),
            "{text}"
        );
        assert!(!text.contains("NEED IT BACK"), "{text}");
        let unverifiable = Record {
            verdict: Verdict::Unverifiable,
            kind: None,
            action: Action::Alert,
            outcome: None,
            ..record()
        };
        assert!(self::text(&with_fix(unverifiable)).contains(
            "aws ec2 create-tags --resources ami-0a1b2c3d4e5f60001 --region eu-west-1 --tags 'Key=ami-billing-guard:expect"
        ));
    }

    #[test]
    fn subjects_say_what_to_do_and_where_and_fit_the_limits_of_sns() {
        let longest = with_fix(Record {
            region: Some("us-isob-east-1".into()),
            ..record()
        });
        for record in in_every_situation(&longest) {
            let subject = message(&record).subject;
            assert!(subject.is_ascii() && subject.len() < 100, "{subject}");
            let urgencies = [
                "[info] ",
                "[act now] ",
                "[wait 30 min] ",
                "[check] ",
                "[decide] ",
            ];
            assert!(
                urgencies.iter().any(|it| subject.starts_with(it)),
                "{subject}"
            );
            let place = "ami-0a1b2c3d4e5f60001 (123456789012 us-isob-east-1)";
            assert!(subject.ends_with(place), "{subject}");
        }
        let [planned, no_way_back] = [None, Some(RecycleBin::Absent)].map(|recycle_bin| {
            let outcome = match recycle_bin {
                None => Outcome::Planned,
                Some(_) => Outcome::Done,
            };
            message(&Record {
                outcome: Some(outcome),
                recycle_bin,
                ..record()
            })
        });
        assert_eq!(
            planned.subject,
            "[info] AMI removed, restorable: ami-0a1b2c3d4e5f60001 (123456789012 eu-west-1)"
        );
        assert_eq!(
            no_way_back.subject,
            "[act now] AMI removed, NOT in Recycle Bin: ami-0a1b2c3d4e5f60001 (123456789012 eu-west-1)"
        );
        let recoverable = |message: &Message| {
            let mut attributes = message.attributes.iter();
            let recoverable = attributes.find(|(name, _)| *name == "recoverable");
            recoverable.map(|(_, value)| value.clone())
        };
        assert_eq!(recoverable(&planned), None);
        assert_eq!(recoverable(&no_way_back).as_deref(), Some("false"));
    }

    #[test]
    fn text_from_outside_forges_no_line_and_moves_no_cursor() {
        let evil = "x\nWHY\r\n\u{1b}[2J\u{9b}2J\u{2028}\u{202e}gone\u{0}";
        let text = text(&with_fix(Record {
            name: Some(evil.into()),
            registered_by: Some(evil.into()),
            event_id: Some(evil.repeat(1000)),
            reason: evil.into(),
            error: Some(evil.into()),
            ..record()
        }));
        assert_eq!(text.matches("\nWHY\n").count(), 1);
        assert!(!text.contains(|c: char| c != '\n' && c.is_control()));
        assert!(!text.contains(['\u{2028}', '\u{202e}']));
        assert!(text.lines().all(|line| line.len() < 1000));
        // Only a heading or the first sentence begins at the margin.
        let margin = text
            .lines()
            .skip(3)
            .filter(|line| !line.is_empty() && !line.starts_with(' '));
        let mut headings = margin.clone();
        assert!(headings.all(|line| line == line.to_uppercase()), "{text}");
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

    /// The record of a discard, with a request that registers the image again.
    fn with_request(request: Value) -> Record {
        Record {
            rebuild: Some(Rebuild {
                register_image: request,
                launch_permissions: Vec::new(),
                deprecate_at: None,
                deregistration_protection: None,
            }),
            ..record()
        }
    }

    fn parts(message: &Message) -> (String, Value) {
        let bodies: Value = serde_json::from_str(&message.bodies).unwrap();
        let programs = serde_json::from_str(bodies["sqs"].as_str().unwrap()).unwrap();
        (bodies["email"].as_str().unwrap().to_owned(), programs)
    }

    #[test]
    fn the_request_that_registers_again_is_left_out_last_and_never_without_a_word() {
        let tags = |number: usize, value: &str| {
            let tag = |n: usize| serde_json::json!({ "Key": format!("k{n}"), "Value": value });
            let tags: Vec<Value> = (0..number).map(tag).collect();
            serde_json::json!({
                "Name": "golden",
                "TagSpecifications": [{ "ResourceType": "image", "Tags": tags }],
            })
        };
        let request = |mail: &str| -> Option<Value> {
            let command = mail
                .lines()
                .map(str::trim)
                .find(|it| it.starts_with("aws ec2 register-image"))?;
            serde_json::from_str(arguments(command).last().unwrap()).ok()
        };
        let has_tags = |request: &Value| request.get("TagSpecifications").is_some();

        // All of it fits.
        let (mail, programs) = parts(&message(&with_request(tags(46, &"a".repeat(256)))));
        assert!(has_tags(&request(&mail).unwrap()));
        assert!(has_tags(&programs["rebuild"]["register_image"]));
        assert!(programs.get("left_out").is_none() && !mail.contains("LEAVES OUT"));

        // The mail has all of it. The part for programs says what it leaves out.
        let (mail, programs) = parts(&message(&with_request(tags(46, &"\"".repeat(256)))));
        assert!(has_tags(&request(&mail).unwrap()));
        assert_eq!(programs["rebuild"]["register_image"]["Name"], "golden");
        assert!(!has_tags(&programs["rebuild"]["register_image"]));
        let said = "the image's tags: 46 (`rebuild.register_image.TagSpecifications`)";
        assert!(
            programs["left_out"].to_string().contains(said),
            "{programs}"
        );
        let words = mail.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(said), "{mail}");

        // Neither part has the tags. Both have the request.
        let (mail, programs) = parts(&message(&with_request(tags(46, &"\u{202e}".repeat(2560)))));
        assert_eq!(request(&mail).unwrap()["Name"], "golden");
        assert!(!has_tags(&request(&mail).unwrap()));
        assert!(mail.contains("leaves out the image's 46 tags"), "{mail}");
        assert_eq!(programs["rebuild"]["register_image"]["Name"], "golden");

        // The request is longer than EC2 allows.
        let long = serde_json::json!({ "Description": "\"".repeat(100_000) });
        let (mail, programs) = parts(&message(&with_request(long)));
        assert_eq!(request(&mail), None);
        assert!(programs["rebuild"].is_null());
        assert!(mail.contains("\nREGISTER IT AGAIN\n"), "{mail}");
        assert!(mail.contains("the request that registers the image again (`rebuild`)"));
        let key = "123456789012#eu-west-1#ami-0a1b2c3d4e5f60001";
        assert!(mail.contains(key), "{mail}");
        let look = "aws logs filter-log-events --region eu-west-1 --log-group-name '<the log group>' --filter-pattern '\"e-1\"'";
        assert!(mail.lines().any(|line| line.trim() == look), "{mail}");
    }

    #[test]
    fn lists_that_are_cut_say_how_to_see_the_rest() {
        let mut references: Vec<String> = (0..100).map(|n| format!("arn:aws:{n}")).collect();
        references.push("and 23 more".into());
        let held = Record {
            action: Action::Hold,
            outcome: None,
            undo: None,
            held_by: vec![Interlock::InUse, Interlock::Shared],
            shared_with: vec!["210987654321".into(), "and 4 more".into()],
            references,
            ..record()
        };
        let message = message(&held);
        let (mail, _) = parts(&message);
        for command in [
            "aws ec2 describe-image-references --image-ids ami-0a1b2c3d4e5f60001 --region eu-west-1 --include-all-resource-types",
            "aws ec2 describe-image-attribute --image-id ami-0a1b2c3d4e5f60001 --region eu-west-1 --attribute launchPermission",
        ] {
            assert!(
                mail.lines().any(|line| line.trim() == command),
                "{command} in:\n{mail}"
            );
        }
        assert!(mail.contains("and 23 more. To list all of them:"), "{mail}");
        assert!(message.chat.contains("and more, which the mail has"));

        // A message that is too long leaves out some of the record's references.
        let long = Record {
            references: [vec!["\"".repeat(10_000); 100], vec!["and 23 more".into()]].concat(),
            ..held
        };
        let (mail, programs) = parts(&self::message(&long));
        assert!(
            mail.contains("and 113 more. To list all of them:"),
            "{mail}"
        );
        assert!(
            mail.contains("refers to the image: 113 (`references`)"),
            "{mail}"
        );
        assert_eq!(programs["references"][10], "and 113 more");
        assert!(programs["left_out"].is_array());
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
