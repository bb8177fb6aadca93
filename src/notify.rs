//! Messages to people and programs. A record, a digest and an audit each have a message.
//!
//! Names, tags and ARNs come from outside. In the text, each one is on one line, without control characters, and cut if
//! it is long. None can forge a line or move a terminal's cursor.

mod audit;
mod chat;
mod digest;
mod email;
mod message;
mod sender;
mod wording;

pub(crate) use audit::summary;
pub(crate) use digest::digest;
pub(crate) use message::Message;

use crate::record::{Record, SCHEMA};
use message::{A_TEST, Text, attributes, bodies};
pub(crate) use sender::Notifier;
use wording::subject;

/// The SNS message of a record. The bodies that people read (`default`, `email`) are a text. The bodies for programs
/// are the record.
pub(crate) fn message(record: &Record) -> Message {
    message_with(record, None)
}

/// The message of the first record that is over the hourly limit of alerts. It says that the digest has further ones.
/// `most` is the limit.
pub(crate) fn first_over(record: &Record, most: u32) -> Message {
    let note = format!(
        "This hour has more alerts than the policy's alert.max_per_hour ({most}). The next hourly digest has further AMIs of \
         this hour that are held or need a look."
    );
    message_with(record, Some(&note))
}

fn message_with(record: &Record, note: Option<&str>) -> Message {
    Message {
        subject: subject(record),
        bodies: email::bodies_of(record, note),
        chat: chat::of_record(record, note),
        attributes: {
            // A subscription that receives a mismatch must also receive how its discard ended.
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

/// The message of a self-test, which says that nothing is wrong.
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

#[cfg(test)]
mod tests {
    use super::email::text;

    use super::*;
    use crate::plan::Action;
    use crate::plan::Interlock;
    use crate::record::Actual;
    use crate::record::Outcome;
    use crate::record::Rebuild;
    use crate::record::remediation::tests::{arguments, record, with_fix};
    use crate::verdict::Mismatch;
    use crate::verdict::Verdict;
    use serde_json::Value;

    #[test]
    fn a_person_reads_what_was_registered_what_it_bills_what_is_done_and_what_to_do() {
        let text = text(&with_fix(record()));
        for part in [
            "ami-0a1b2c3d4e5f60001 is being deregistered: image-tag says Windows, but the image is billed as `Linux/UNIX`.",
            "  name         win2022-golden",
            "  by           arn:aws:sts::123456789012:assumed-role/pipeline/4711",
            "  snapshot     snap-0a1b2c3d4e5f60001",
            "  billed as    Linux/UNIX",
            "  expected     Windows",
            "  source       image-tag",
            "\naws ec2 create-image --no-reboot --region eu-west-1 --instance-id '<the instance>' --name 'win2022-golden'\n",
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
        assert!(super::email::text(&with_fix(unverifiable)).contains(
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
        let honest = super::email::text(&with_fix(Record {
            error: Some("e".into()),
            // This is cut too, and the message says so.
            event_id: Some("e".repeat(1000)),
            ..record()
        }));
        assert_eq!(text.lines().count(), honest.lines().count());
        assert_eq!(text.matches("\nWhat was done\n").count(), 1);
        assert!(!text.contains(|c: char| c != '\n' && c.is_control()));
        assert!(!text.contains(['\u{2028}', '\u{202e}']));
        assert!(text.lines().all(|line| line.len() < 1000));
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
                .find(|it| it.starts_with("aws ec2 register-image"))?;
            serde_json::from_str(arguments(command).last().unwrap()).ok()
        };
        let has_tags = |request: &Value| request.get("TagSpecifications").is_some();

        // All of it fits.
        let (mail, programs) = parts(&message(&with_request(tags(46, &"a".repeat(256)))));
        assert!(has_tags(&request(&mail).unwrap()));
        assert!(has_tags(&programs["rebuild"]["register_image"]));
        assert!(programs.get("left_out").is_none() && !mail.contains("leaves out"));

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
        assert!(mail.contains(said), "{mail}");

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
        assert!(mail.contains("\nHow to register it again\n"), "{mail}");
        assert!(mail.contains("the request that registers the image again (`rebuild`)"));
        let key = "123456789012#eu-west-1#ami-0a1b2c3d4e5f60001";
        assert!(mail.contains(key), "{mail}");
        let look = "aws logs filter-log-events --region eu-west-1 --log-group-name '<the log group>' --filter-pattern '\"e-1\"'";
        assert!(mail.lines().any(|line| line == look), "{mail}");
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
                mail.lines().any(|line| line == command),
                "{command} in:\n{mail}"
            );
        }
        assert!(mail.contains("and 23 more. To list all of them:"), "{mail}");
        assert!(message.chat.contains("and 113 more, which the mail has"));

        // A message that is too long leaves out some of the record's references.
        let long = Record {
            references: [vec!["\"".repeat(10_000); 100], vec!["and 23 more".into()]].concat(),
            ..held
        };
        let (mail, programs) = parts(&super::message(&long));
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
