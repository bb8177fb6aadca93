//! What people and programs are told, word by word: each alert in each of its forms as it was read and found good
//! (`golden/`), and what holds for all of them whatever an image is called.
//!
//! `GUARD_GOLDEN=write` writes the files anew: read what changed before it is committed.

use std::path::Path;

use proptest::prelude::*;
use sim::{Message, RecycleBinRule, Topic};

use super::*;

pub(super) const CHAT: &str = "arn:aws:sns:eu-west-1:123456789012:chat";

/// SNS takes 256 KiB of a message's bodies and attributes together (SNS API reference, "Publish").
const LARGEST: usize = 256 * 1024;

impl Harness {
    /// A harness whose guard tells a chat as well.
    pub(super) async fn with_chat(mut world: World, settings: Settings) -> Harness {
        let listened_to = Topic {
            confirmed: 1,
            pending: 0,
        };
        world.topics.insert(CHAT.into(), listened_to);
        let settings = Settings {
            chat_topic: Some(CHAT),
            ..settings
        };
        Harness::around(world, settings).await
    }

    /// What was published on a topic, in order.
    pub(super) fn published_on(&self, topic: &str) -> Vec<Message> {
        let world = self.sim.world();
        let messages = world.messages.iter();
        messages
            .filter(|message| message.topic_arn == topic)
            .cloned()
            .collect()
    }
}

/// What leads to alerts, and what each of them is called; none for what is never told.
struct Scenario {
    names: &'static [&'static str],
    world: World,
    settings: Settings,
    prepare: fn(&Harness),
    events: Vec<Value>,
}

impl Scenario {
    fn of(names: &'static [&'static str], image: Image) -> Scenario {
        let mut world = World::default();
        for snapshot in image.snapshot_ids() {
            world.add_snapshot(Snapshot::new(snapshot));
        }
        world.add_image(image);
        Scenario {
            names,
            world,
            settings: Settings {
                wait: Duration::from_millis(100),
                ..Settings::default()
            },
            prepare: |_| {},
            events: vec![registered()],
        }
    }

    fn world(mut self, change: impl FnOnce(&mut World)) -> Scenario {
        change(&mut self.world);
        self
    }

    fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Scenario {
        change(&mut self.settings);
        self
    }

    fn policy(self, text: &str) -> Scenario {
        let policy = Settings::policy(text).policy;
        self.settings(|settings| settings.policy = policy)
    }

    /// The image comes from the root volume of an instance that bills as Windows, and that is looked up.
    fn made_from_windows_instance(mut self) -> Scenario {
        let image = self.world.images.remove(AMI).unwrap();
        self.world = faults::world_of(image);
        self.settings(|settings| settings.policy = Policy::default())
    }

    fn prepare(mut self, prepare: fn(&Harness)) -> Scenario {
        self.prepare = prepare;
        self
    }

    fn events(mut self, events: Vec<Value>) -> Scenario {
        self.events = events;
        self
    }
}

fn named(name: &str, mut image: Image) -> Image {
    image.name = name.into();
    image
}

fn linux_for_windows() -> Image {
    named("win2022-golden", expecting("Windows"))
}

fn scenarios() -> Vec<Scenario> {
    let of = Scenario::of;
    vec![
        of(
            &["mismatch-empty"],
            named("rhel9-golden", billing(image(), "", "")),
        ),
        of(
            &["mismatch-missing"],
            named(
                "sql2022-golden",
                billing(
                    expecting("Windows with SQL Server Standard"),
                    "Windows",
                    "RunInstances:0002",
                ),
            ),
        ),
        of(&["mismatch-wrong"], linux_for_windows()).made_from_windows_instance(),
        of(&["mismatch-wrong-disabled"], linux_for_windows())
            .policy("discard = { action = \"disable\", shared = \"discard\" }")
            .world(|world| {
                let image = world.images.get_mut(AMI).unwrap();
                image.shared_with.insert("210987654321".into());
            }),
        of(
            &["mismatch-wrong-planned", "mismatch-wrong-no-way-back"],
            linux_for_windows(),
        )
        .world(|world| world.recycle_bin_rules.clear()),
        of(
            &["mismatch-wrong-planned", "mismatch-wrong-refused"],
            linux_for_windows(),
        )
        .prepare(|harness| {
            let no = refuse(
                "OperationNotPermitted",
                "deregistration protection is enabled",
            );
            harness.inject(Fault::always("DeregisterImage", no));
        }),
        of(
            &[
                "mismatch-wrong-planned",
                "mismatch-wrong-failed",
                "gone-done",
            ],
            linux_for_windows(),
        )
        .prepare(|harness| {
            harness.inject(Fault::nth("DeregisterImage", 1, FaultKind::ResetAfter));
            harness.inject(Fault::from_nth("DeregisterImage", 2, FaultKind::Throttle));
            harness.inject(Fault::from_nth("DescribeImages", 3, FaultKind::Throttle));
            harness.inject(Fault::nth(
                "ListImagesInRecycleBin",
                1,
                FaultKind::AccessDenied,
            ));
        })
        .events(vec![
            registered(),
            registered_at(now() - TimeDelta::minutes(11)),
        ]),
        of(&["mismatch-wrong-held"], linux_for_windows())
            .settings(|settings| settings.mode = Mode::Observe)
            .world(|world| world.add_instance(Instance::new("i-0123456789abcdef1", AMI))),
        of(&["mismatch-wrong-held-rule-pending"], linux_for_windows())
            .settings(|settings| settings.recycle_bin_rule = Some(RecycleBinRule::ID))
            .world(|world| world.recycle_bin_rules[0].status = "pending".into()),
        of(
            &["mismatch-wrong-brought-back"],
            tagged(linux_for_windows(), "ami-billing-guard:discard", "true"),
        ),
        of(
            &["mismatch-wrong-held-by-service"],
            tagged(linux_for_windows(), "CreatedBy", "EC2 Image Builder"),
        ),
        of(
            &["mismatch-wrong-unrecognised"],
            billing(linux_for_windows(), "Linux/UNIX 2", "RunInstances"),
        ),
        of(
            &["mismatch-missing-product-code"],
            named(
                "sles15-sap",
                billing(
                    expecting("Linux with a product code"),
                    "Linux/UNIX",
                    "RunInstances",
                ),
            ),
        )
        .policy("discard.action = \"none\""),
        of(&["mismatch-extra-product-code"], {
            let mut image = named(
                "win2022-golden",
                billing(expecting("Windows"), "Windows", "RunInstances:0002"),
            );
            image.product_codes = vec!["aacglxeowvn5hy8sznltowyqe".into()];
            image
        })
        .policy("[[expect]]\nname = \"win*\"\nproduct_codes = []"),
        of(&["mismatch-wrong-limit"], linux_for_windows()).policy("discard.max_per_hour = 0"),
        of(
            &["mismatch-extra"],
            named(
                "sql-free",
                billing(
                    expecting("Windows"),
                    "Windows with SQL Server Web",
                    "RunInstances:0202",
                ),
            ),
        ),
        of(
            &["conflict-evidence"],
            named("said-to-be-linux", expecting("Linux")),
        )
        .made_from_windows_instance(),
        of(
            &["conflict-of-ec2"],
            named(
                "two-minds",
                billing(image(), "Windows", "RunInstances:0010"),
            ),
        ),
        of(&["unverifiable"], named("nobody-knows", image()))
            .policy("alert.on = [\"unverifiable\"]"),
        of(&["instance-store"], {
            let mut image = linux_for_windows();
            image.root_device_type = "instance-store".into();
            image.block_devices.clear();
            image
        }),
        // These are never told.
        of(
            &[],
            named(
                "right",
                billing(expecting("Windows"), "Windows", "RunInstances:0002"),
            ),
        ),
        of(&[], linux_for_windows()).policy("[[exempt]]\nname = \"win*\"\nreason = \"ours\""),
        of(&[], linux_for_windows()).prepare(|harness| {
            harness.sim.world().images.get_mut(AMI).unwrap().state = "failed".into();
        }),
        of(&[], linux_for_windows()).prepare(|harness| {
            harness.sim.world().images.get_mut(AMI).unwrap().state = "deregistered".into();
        }),
        of(&[], linux_for_windows()).events(vec![json!({
            "version": "0", "id": "e-3", "detail-type": "Other", "source": "other", "detail": {},
            "account": "123456789012", "region": "eu-west-1", "resources": [],
            "time": "2026-11-25T12:00:00Z"
        })]),
    ]
}

#[tokio::test(crate = "crate::virtual_time")]
async fn every_alert_reads_in_every_form_as_it_was_found_good() {
    let mut faults = Vec::new();
    for scenario in scenarios() {
        let harness = Harness::with_chat(scenario.world, scenario.settings).await;
        (scenario.prepare)(&harness);
        for event in scenario.events {
            let _ = harness.give(event).await;
            harness.sim.heal();
        }
        let (alerts, chats) = (harness.published_on(TOPIC), harness.published_on(CHAT));
        assert_eq!(
            (alerts.len(), chats.len()),
            (scenario.names.len(), scenario.names.len()),
            "{:?}: {alerts:?}",
            scenario.names
        );
        for ((name, alert), chat) in scenario.names.iter().zip(&alerts).zip(&chats) {
            faults.extend(compare(name, &forms(alert, chat)));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_digest_and_a_test_read_in_every_form_as_they_were_found_good() {
    let world = World::default();
    let harness = Harness::with_chat(world, Settings::policy("discard.max_per_hour = 0")).await;
    for n in 1..=3 {
        let id = format!("ami-0a1b2c3d4e5f6000{n}");
        let mut image = Image::new(&id);
        image.name = format!("golden-{n}");
        image
            .tags
            .insert("ami-billing-guard:expect".into(), "Windows".into());
        harness.sim.world().add_image(image);
        let mut event = registered();
        event["id"] = format!("e-{n}").into();
        event["detail"]["responseElements"]["imageId"] = id.into();
        harness.record(event).await;
    }
    let digest = json!({
        "version": "0", "id": "e-digest", "source": "aws.events", "detail-type": "Scheduled Event",
        "account": "123456789012", "region": "eu-west-1", "time": now().to_rfc3339(),
        "resources": [], "detail": {}
    });
    harness.record(digest).await;
    harness
        .give(json!({ "self-test": true, "alert": true }))
        .await
        .unwrap();
    let (alerts, chats) = (harness.published_on(TOPIC), harness.published_on(CHAT));
    assert_eq!((alerts.len(), chats.len()), (3, 3));
    let faults: Vec<String> = [("digest", 1), ("self-test", 2)]
        .iter()
        .filter_map(|(name, at)| compare(name, &forms(&alerts[*at], &chats[*at])))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// All forms of an alert, for a person to read.
pub(super) fn forms(alert: &Message, chat: &Message) -> String {
    let pretty = |json: &str| {
        let value: Value = serde_json::from_str(json).unwrap();
        serde_json::to_string_pretty(&value).unwrap()
    };
    assert_eq!(alert.attributes, chat.attributes);
    let attributes: Vec<String> = alert
        .attributes
        .iter()
        .map(|(name, attribute)| format!("{name} = {}", attribute.value))
        .collect();
    without_times(&format!(
        "=== Mail ===\nSubject: {}\n\n{}\n=== Chat ===\n{}\n\n=== Programs ===\n{}\n{}\n",
        alert.subject.as_deref().unwrap(),
        alert.body("email"),
        pretty(&chat.message),
        attributes.join("\n"),
        pretty(&alert.body("sqs"))
    ))
}

/// What differs from run to run, out of the way.
fn without_times(text: &str) -> String {
    let (mut clean, mut rest) = (String::new(), text);
    let is_time = |text: &str| {
        let bytes = text.as_bytes();
        bytes.len() > 19
            && [4, 7].iter().all(|at| bytes[*at] == b'-')
            && bytes[10] == b'T'
            && bytes[..4].iter().all(u8::is_ascii_digit)
    };
    while let Some(character) = rest.chars().next() {
        if character.is_ascii_digit() && is_time(rest) {
            clean.push_str("(time)");
            let end = |it: char| !it.is_ascii_digit() && !"-:.TZ+".contains(it);
            rest = &rest[rest.find(end).unwrap_or(rest.len())..];
        } else {
            clean.push(character);
            rest = &rest[character.len_utf8()..];
        }
    }
    clean
}

/// Compares with the file of that name, or writes it. What differs, if anything does.
pub(super) fn compare(name: &str, text: &str) -> Option<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guard/golden");
    let file = folder.join(format!("{name}.txt"));
    if std::env::var("GUARD_GOLDEN").as_deref() == Ok("write") {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(&file, text).unwrap();
    }
    let good = std::fs::read_to_string(&file).unwrap_or_default();
    let differs = || {
        good.lines()
            .zip(text.lines())
            .position(|(good, is)| good != is)
    };
    (good != text).then(|| {
        let at = differs().unwrap_or_else(|| good.lines().count().min(text.lines().count()));
        let line = |text: &str| text.lines().nth(at).unwrap_or("(no more)").to_owned();
        format!(
            "{name}.txt:{}: instead of\n  {}\nit is\n  {}\n(GUARD_GOLDEN=write writes it)",
            at + 1,
            line(&good),
            line(text)
        )
    })
}

/// Text that wants to be anything but text.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "\n",
        "\r\n",
        "\u{1b}[2J",
        "\u{9b}31m",
        "\u{202e}",
        "\u{2028}",
        "\u{0}",
        "\u{feff}",
        "`",
        "```",
        "*b*",
        "_i_",
        "<!channel>",
        "<http://evil|x>",
        "[x](http://evil)",
        "<script>",
        "&amp;",
        "@here",
        "\"",
        "'",
        "\\",
        "$(x)",
        "ä",
        "\u{1f600}",
        "{}",
        "null",
        "\nWHY\n",
        "a",
    ]);
    let some = prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat());
    prop_oneof![
        some.clone(),
        some.prop_map(|some| (some + "x").repeat(250).chars().take(10_240).collect())
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_hostile_image_renders_harmlessly_in_every_form_and_fits_what_sns_takes(
        name in hostile(), description in hostile(), session in hostile(), keys in prop::collection::vec(hostile(), 0..46),
        value in hostile(), details in hostile(), observed in any::<bool>(), found in any::<bool>(),
    ) {
        let runtime = virtual_time::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut image = expecting("Windows");
            image.name = name;
            image.description = Some(description);
            // What XML can not carry, no answer of EC2's can.
            let sayable = |text: &str| text.chars().filter(|it| *it >= ' ' || *it == '\n').collect::<String>();
            image.name = sayable(&image.name);
            image.description = image.description.map(|text| sayable(&text));
            for (n, key) in keys.iter().enumerate() {
                image.tags.insert(format!("{n}{}", sayable(key)), sayable(&value));
            }
            if observed {
                image.platform_details = Some(sayable(&details));
            }
            let mut event = registered();
            event["detail"]["userIdentity"]["arn"] =
                format!("arn:aws:sts::123456789012:assumed-role/pipeline/{session}").into();
            let world = match found {
                true => faults::world_of(image),
                false => {
                    let mut world = World::default();
                    world.add_image(image);
                    world
                }
            };
            let policy = "[alert]\non = [\"mismatch\", \"conflict\", \"unverifiable\"]";
            let mut settings = Settings::policy(policy);
            if found {
                settings.policy.lineage = Asked::Always;
            }
            let harness = Harness::with_chat(world, settings).await;
            harness.record(event).await;
            let (alerts, chats) = (harness.published_on(TOPIC), harness.published_on(CHAT));
            assert!(!alerts.is_empty() && alerts.len() == chats.len());
            alerts.iter().for_each(harmless);
            chats.iter().for_each(harmless_in_chat);
        });
    }
}

fn is_treacherous(character: char) -> bool {
    character.is_control()
        || ('\u{200b}'..='\u{200f}').contains(&character)
        || ('\u{2028}'..='\u{202e}').contains(&character)
        || character == '\u{feff}'
}

fn harmless(alert: &Message) {
    let attributes: usize = alert
        .attributes
        .iter()
        .map(|(name, it)| name.len() + it.data_type.len() + it.value.len())
        .sum();
    assert!(alert.message.len() + attributes <= LARGEST);
    let subject = alert.subject.as_deref().unwrap();
    assert!(
        subject.len() < 100 && subject.chars().all(|it| (' '..='~').contains(&it)),
        "{subject:?}"
    );
    let mail = alert.body("email");
    assert!(
        !mail.contains(|it| it != '\n' && is_treacherous(it)),
        "{mail:?}"
    );
    assert_eq!(mail.matches("\nWHY\n").count(), 1, "{mail}");
    // No line of the text is so long that what follows would not be seen; commands are as long as they are.
    let long = mail.lines().filter(|line| line.len() > 2_000);
    assert!(
        long.clone().all(|line| line.contains("aws ec2 ")),
        "{:?}",
        long.collect::<Vec<_>>()
    );
    let body = alert.body("sqs");
    assert!(!body.contains(is_treacherous), "{body:?}");
    let record: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(record["schema"], 1);
}

fn harmless_in_chat(chat: &Message) {
    assert!(chat.message.len() < 16 * 1024, "{}", chat.message.len());
    assert!(!chat.message.contains(is_treacherous), "{:?}", chat.message);
    let notification: Value = serde_json::from_str(&chat.message).unwrap();
    assert_eq!(
        (&notification["version"], &notification["source"]),
        (&json!("1.0"), &json!("custom"))
    );
    let content = &notification["content"];
    assert_eq!(content["textType"], "client-markdown");
    let title = content["title"].as_str().unwrap();
    assert!(
        title.len() < 200 && title.is_ascii() && !title.contains(['`', '<', '*']),
        "{title}"
    );
    // All that is from outside stands in one block of code, which it can not end.
    let description = content["description"].as_str().unwrap();
    let block = description
        .strip_prefix("```\n")
        .unwrap()
        .strip_suffix("```")
        .unwrap();
    assert!(!block.contains(['`', '<', '>', '&']), "{block}");
    assert!(block.len() <= 2_500, "{}", block.len());
    for step in content["nextSteps"].as_array().into_iter().flatten() {
        let step = step.as_str().unwrap();
        assert!(
            !step.contains(['<', '>', '&']) && step.len() < 800,
            "{step}"
        );
        assert!(step.matches('`').count().is_multiple_of(2), "{step}");
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_alert_of_what_packer_registered_names_the_fix_at_packer() {
    let mut event = registered();
    event["detail"]["userAgent"] = json!(
        "[APN/1.0 HashiCorp/1.0 Packer/1.11.2 (+https://www.packer.io/; go1.21; linux) aws-sdk-go/1.44.114]"
    );
    for (event, named) in [(event, true), (registered(), false)] {
        let harness = Harness::of(expecting("Windows")).await;
        let record = harness.record(event).await;
        let steps = record["fix"].as_array().unwrap();
        let packer = |step: &Value| step.as_str().unwrap().contains("use_create_image = true");
        assert_eq!(steps.iter().any(packer), named, "{steps:?}");
        let letter = harness.sim.world().messages[0].body("email");
        assert_eq!(
            letter.contains("use_create_image = true"),
            named,
            "{letter}"
        );
    }
}

/// Every line of a golden, of a mail as of JSON, as a person would copy it.
fn lines_of(golden: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for line in golden.lines() {
        let line = line.trim_start();
        let line = line.strip_prefix("First ").unwrap_or(line).trim_start();
        let string = line.trim_end_matches(',');
        let string = match string.split_once("\": ") {
            Some((_, value)) if string.starts_with('"') => value,
            _ => string,
        };
        match serde_json::from_str::<String>(string) {
            // A chat shows a command as code, where the placeholder's brackets would be a link.
            Ok(text) => lines.extend(text.lines().flat_map(|line| match line.contains(": `") {
                true => line.split(": `").map(str::to_owned).collect(),
                false => vec![line.to_owned()],
            })),
            Err(_) => lines.push(line.to_owned()),
        }
    }
    lines
        .iter()
        .map(|line| line.trim_matches('`').to_owned())
        .collect()
}

fn is_command(line: &str) -> bool {
    line.starts_with("aws ") || line.starts_with("ami-guard ")
}

/// What a shell makes of a line: the words that its command is given.
fn words(line: &str) -> Vec<String> {
    let check = |arguments: &[&str]| {
        let shell = std::process::Command::new("sh").args(arguments).output();
        let shell = shell.unwrap();
        let error = String::from_utf8_lossy(&shell.stderr).into_owned();
        assert!(shell.status.success(), "{line}: {error}");
        String::from_utf8(shell.stdout).unwrap()
    };
    check(&["-n", "-c", line]);
    let given = "given() { printf '%s\\0' \"$@\"; }";
    let line = line.split_once(' ').unwrap().1;
    let output = check(&["-c", &format!("{given}\ngiven {line}")]);
    let words = output.strip_suffix('\0').unwrap().split('\0');
    words.map(str::to_owned).collect()
}

/// A printed command is a command alone.
#[test]
fn regression_every_command_of_every_golden_can_be_copied_and_run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut commands = 0;
    for folder in ["tests/guard/golden", "cli/tests/golden"] {
        for file in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = file.unwrap().path();
            // In XML, a command is escaped.
            if path.extension().is_some_and(|it| it == "xml") {
                continue;
            }
            let golden = std::fs::read_to_string(&path).unwrap();
            for line in lines_of(&golden) {
                if !is_command(&line) {
                    let name = path.display();
                    assert!(!line.contains("aws ec2 "), "{name}: in a sentence: {line}");
                    continue;
                }
                if !line.starts_with("aws ") {
                    continue;
                }
                commands += 1;
                let words = words(&line);
                assert!(words.len() > 2, "{line}");
                // After the command each word is an option, or the value of the option before it.
                let rest: Vec<bool> = words[2..].iter().map(|it| it.starts_with("--")).collect();
                let stray = rest.windows(2).any(|two| !two[0] && !two[1]);
                assert!(rest[0] && !stray, "something stands behind it: {line}");
            }
        }
    }
    assert!(commands > 100, "{commands}");
}

/// Today 46 long tags dropped the request that registers again, without a word.
#[tokio::test(crate = "crate::virtual_time")]
async fn regression_an_alert_that_is_too_long_says_what_it_leaves_out_and_where_it_is() {
    let mut image = linux_for_windows();
    for n in 0..44 {
        image.tags.insert(format!("{n:0128}"), "\"".repeat(256));
    }
    let harness = Harness::of(image).await;
    let record = harness.record(registered()).await;
    assert_eq!(record["outcome"], "done");
    let message = harness.sim.world().messages[0].clone();
    assert!(message.message.len() <= LARGEST);
    let mail = message.body("email");
    let command = mail
        .lines()
        .map(str::trim)
        .find(|line| line.starts_with("aws ec2 register-image "));
    let given = words(command.unwrap());
    let request: Value = serde_json::from_str(given.last().unwrap()).unwrap();
    assert_eq!(
        request, record["rebuild"]["register_image"],
        "the whole of it"
    );
    let programs: Value = serde_json::from_str(&message.body("sqs")).unwrap();
    assert_eq!(
        programs["rebuild"]["register_image"]["Name"],
        "win2022-golden"
    );
    for said in [programs["left_out"].to_string(), mail] {
        assert!(
            said.contains("`rebuild.register_image.TagSpecifications`"),
            "{said}"
        );
    }
}
