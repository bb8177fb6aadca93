//! `ami-guard`, as it is run, before a simulated account. What people see is pinned in tests/golden;
//! GUARD_GOLDEN=write writes it anew.

// Clippy takes helpers of tests for no tests.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod audit;
mod check;
mod enforce;
mod expect;
mod files;
mod gate;
mod init;
mod inspect;
mod replay;
mod settings;
mod spreadsheet;
mod suggest;
mod terminal;

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use chrono::TimeDelta;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sim::{
    BinnedImage, Fault, FaultKind, Image, Instance, RecycleBinRule, ReservedInstances, Sim,
    Snapshot, World,
};
use std::io::Write;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

const EXPECT: &str = "ami-billing-guard:expect";
const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:ami-billing-guard";
const TABLE: &str = "ami-billing-guard";
/// Bills Red Hat, as its tag says that it should.
const GOOD: &str = "ami-0a1b2c3d4e5f60001";
/// Bills Linux, and its tag says Windows.
const LOST: &str = "ami-0a1b2c3d4e5f60002";
/// Nobody says what it should bill.
const UPLOADED: &str = "ami-0a1b2c3d4e5f60003";
/// In the Recycle Bin.
const BINNED: &str = "ami-0a1b2c3d4e5f60004";
/// Disabled.
const DISABLED: &str = "ami-0a1b2c3d4e5f60005";
const NONE: &str = "ami-0a1b2c3d4e5f6ffff";

fn account() -> World {
    let mut world = World::default();
    let tagged = |id: &str, name: &str, expect: Option<&str>| {
        let tags = expect.map(|value| (EXPECT.to_owned(), value.to_owned()));
        Image {
            name: name.into(),
            tags: tags.into_iter().collect(),
            creation_date: sim::clock::now() - TimeDelta::hours(1),
            ..Image::new(id)
        }
    };
    world.add_image(Image {
        platform_details: Some("Red Hat Enterprise Linux".into()),
        usage_operation: Some("RunInstances:0010".into()),
        ..tagged(GOOD, "rhel9-golden", Some("RedHat"))
    });
    world.add_image(tagged(LOST, "win2022-golden", Some("Windows")));
    world.add_image(tagged(UPLOADED, "uploaded\u{1b}[2J", None));
    world.add_image(Image {
        state: "disabled".into(),
        ..tagged(DISABLED, "disabled", None)
    });
    for id in [GOOD, LOST, UPLOADED, BINNED] {
        world.add_snapshot(Snapshot::new(id.replace("ami-", "snap-")));
    }
    let entered = sim::clock::now() - TimeDelta::hours(1);
    let binned = BinnedImage {
        image: tagged(BINNED, "binned", None),
        entered,
        exits: entered + TimeDelta::days(30),
    };
    world.recycle_bin.insert(BINNED.into(), binned);
    world.add_reserved_instances(ReservedInstances {
        instance_count: 3,
        ..ReservedInstances::new(
            "00000000-0000-4000-8000-000000000001",
            "m5.large",
            "Windows",
        )
    });
    world
}

async fn simulated() -> Sim {
    Sim::start(account()).await.unwrap()
}

fn temporary(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn program(arguments: &[&str]) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_ami-guard"));
    program
        .env_clear()
        .env("AWS_ACCESS_KEY_ID", "testing")
        .env("AWS_SECRET_ACCESS_KEY", "testing")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        .env("XDG_STATE_HOME", temporary("state"))
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .args(arguments);
    program
}

async fn run(arguments: &[&str]) -> Output {
    program(arguments).output().await.unwrap()
}

async fn before(sim: &Sim, arguments: &[&str]) -> Output {
    let mut program = program(arguments);
    program.env("AWS_ENDPOINT_URL", sim.endpoint());
    program.env("AWS_REGION", "eu-west-1");
    program.output().await.unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Holds that an output has this in it.
#[track_caller]
fn says(output: &str, what: &str) {
    assert!(output.contains(what), "{output}");
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    let out = out(output);
    out.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Holds what a command printed, and how it ended, against what is pinned.
fn pinned(name: &str, arguments: &[&str], output: &Output) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let folder_of_tests = env!("CARGO_TARGET_TMPDIR");
    let text = format!(
        "$ ami-guard {}\n{}{}[{}]\n",
        arguments.join(" "),
        out(output),
        err(output),
        code(output)
    );
    let text = text.replace(folder_of_tests, "(folder)");
    let path = folder.join(format!("{name}.txt"));
    if std::env::var("GUARD_GOLDEN").as_deref() == Ok("write") {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let pinned = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        text, pinned,
        "{name}: see GUARD_GOLDEN in cli/tests/commands/main.rs"
    );
}

/// What was asked of the account that may change it.
fn changes(sim: &Sim) -> Vec<String> {
    let calls = sim.calls().into_iter().map(|call| call.action);
    calls
        .filter(|action| {
            !["Describe", "List", "Get", "BatchGet"]
                .iter()
                .any(|prefix| action.starts_with(prefix))
        })
        .collect()
}

#[tokio::test]
async fn each_command_has_help() {
    for command in [
        "",
        "check",
        "completions",
        "expect",
        "doctor",
        "explain",
        "init",
        "inspect",
        "man",
        "policy",
        "policy check",
        "policy test",
        "policy schema",
        "replay",
        "restore",
        "audit",
    ] {
        let mut arguments: Vec<&str> = command.split_whitespace().collect();
        arguments.push("--help");
        let output = run(&arguments).await;
        assert_eq!(code(&output), 0);
        pinned(
            &format!("help {command}").trim().replace(' ', "-"),
            &arguments,
            &output,
        );
    }
}

#[tokio::test]
async fn a_command_line_that_is_not_understood_says_what_is_accepted_and_ends_with_2() {
    for (name, arguments) in [
        ("nothing", vec![]),
        ("check", vec!["check", "i-0123456789abcdef0"]),
        ("completions", vec!["completions", "cmd.exe"]),
        ("expect", vec!["expect", LOST, "Windows", "RHEL"]),
        ("expect-nothing", vec!["expect", LOST, "Windows,"]),
        ("doctor", vec!["doctor"]),
        ("explain", vec!["explain"]),
        ("policy-check", vec!["policy", "check", "nowhere.toml"]),
        (
            "policy-test",
            vec![
                "policy",
                "test",
                "policy/policy.toml",
                "--cases",
                "policy/policy.toml",
            ],
        ),
        ("replay", vec!["replay", "README.md"]),
        (
            "replay-enforce",
            vec!["replay", "--enforce", "events/register-image-iam-user.json"],
        ),
        ("restore", vec!["restore", "ami-1"]),
        ("audit", vec!["audit", "--since", "yesterday"]),
        (
            "audit-regions",
            vec!["audit", "--all-regions", "--region", "eu-west-1"],
        ),
        ("audit-enforce", vec!["audit", "--enforce"]),
        ("audit-html", vec!["audit", "--html", "nowhere/report.html"]),
        (
            "policy",
            vec!["check", "--policy", "examples/policy-cases.toml", GOOD],
        ),
    ] {
        let output = run(&arguments).await;
        pinned(&format!("usage-{name}"), &arguments, &output);
        assert_eq!((code(&output), out(&output).as_str()), (2, ""));
    }
}

#[tokio::test]
async fn check_tells_verdict_evidence_and_what_the_guard_would_do() {
    let sim = simulated().await;
    for (name, images, ends_with) in [
        ("check-verified", vec![GOOD], 0),
        ("check-mismatch", vec![GOOD, LOST], 1),
        ("check-unverifiable", vec![UPLOADED], 3),
        ("check-nowhere", vec![NONE, GOOD], 3),
    ] {
        let mut arguments = vec!["check", "--wait", "0"];
        arguments.extend(images);
        let output = before(&sim, &arguments).await;
        pinned(name, &arguments, &output);
        assert_eq!(code(&output), ends_with);
    }
    assert_eq!(changes(&sim), Vec::<String>::new());
}

#[tokio::test]
async fn check_as_json_is_the_record_with_the_reserved_instances_that_do_not_apply() {
    let sim = simulated().await;
    let output = before(&sim, &["check", "--json", GOOD, LOST]).await;
    assert_eq!(code(&output), 1);
    let [good, lost] = lines(&output).try_into().unwrap();
    assert_eq!(
        (&good["verdict"], &good["schema"]),
        (&json!("verified"), &json!(1))
    );
    assert_eq!(
        (&lost["verdict"], &lost["kind"]),
        (&json!("mismatch"), &json!("wrong"))
    );
    let reserved = |row: &Value| row["reserved_instances"][0]["would_apply"].clone();
    assert_eq!(
        (reserved(&good), reserved(&lost)),
        (json!(false), json!(true))
    );
    assert_eq!(lost["reserved_instances"][0]["platform"], "Windows");
}

#[tokio::test]
async fn check_knows_what_the_deployed_guard_would_hold_a_discard_for() {
    let sim = simulated().await;
    let policy = temporary("discards.toml");
    std::fs::write(
        &policy,
        "version = 1\n[discard]\nservice_registered = 'discard'",
    )
    .unwrap();
    let policy = policy.to_str().unwrap();
    let held_by = async |more: &[&str]| {
        let mut arguments = vec!["check", "--json", "--policy", policy, LOST];
        arguments.extend(more);
        let row = &lines(&before(&sim, &arguments).await)[0];
        (row["action"].clone(), row["held_by"].clone())
    };
    assert_eq!(held_by(&[]).await, (json!("deregister"), json!([])));
    let deployed = ["--topic", TOPIC, "--ledger", TABLE];
    assert_eq!(held_by(&deployed).await, (json!("deregister"), json!([])));
    sim.world().topics.get_mut(TOPIC).unwrap().confirmed = 0;
    assert_eq!(
        held_by(&deployed).await,
        (json!("hold"), json!(["nobody-listening"]))
    );
    sim.inject(Fault::always("GetItem", FaultKind::AccessDenied));
    let both = json!(["nobody-listening", "ledger-unavailable"]);
    assert_eq!(held_by(&deployed).await, (json!("hold"), both));
    let rule = ["--recycle-bin-rule", RecycleBinRule::ID];
    assert_eq!(held_by(&rule).await, (json!("deregister"), json!([])));
    sim.world().recycle_bin_rules[0].status = "pending".into();
    assert_eq!(
        held_by(&rule).await,
        (json!("hold"), json!(["no-way-back"]))
    );
    assert_eq!(changes(&sim), Vec::<String>::new());
}

#[tokio::test]
async fn check_goes_on_without_reserved_instances_if_they_may_not_be_seen() {
    let sim = simulated().await;
    sim.inject(Fault::always(
        "DescribeReservedInstances",
        FaultKind::AccessDenied,
    ));
    let output = before(&sim, &["check", "--json", GOOD]).await;
    assert_eq!(code(&output), 0);
    assert_eq!(lines(&output)[0]["reserved_instances"], Value::Null);
    assert!(err(&output).contains("could not list Reserved Instances: access denied"));
}

#[tokio::test]
async fn check_waits_for_an_image_that_was_registered_just_now() {
    let sim = simulated().await;
    sim.world().images.get_mut(GOOD).unwrap().invisible_for = 2;
    let output = before(&sim, &["check", GOOD]).await;
    assert_eq!(code(&output), 0, "{}", err(&output));
}

#[tokio::test]
async fn without_credentials_and_without_a_region_the_error_says_so() {
    let sim = simulated().await;
    let output = run(&["check", GOOD]).await;
    assert_eq!(code(&output), 3);
    says(&err(&output), "no Region is set");
    sim.inject(Fault::always("GetCallerIdentity", FaultKind::AccessDenied));
    let output = before(&sim, &["check", GOOD]).await;
    assert_eq!(code(&output), 3);
    says(&err(&output), "sts:GetCallerIdentity");
}

#[tokio::test]
async fn a_variable_that_is_set_to_nothing_is_not_set() {
    let sim = simulated().await;
    let mut check = program(&["check", GOOD]);
    check
        .env("AWS_ENDPOINT_URL", sim.endpoint())
        .env("AWS_REGION", "eu-west-1");
    for variable in [
        "GUARD_POLICY_PATH",
        "GUARD_ALERT_TOPIC_ARN",
        "GUARD_LEDGER_TABLE",
        "GUARD_RECYCLE_BIN_RULE",
    ] {
        check.env(variable, "");
    }
    let output = check.output().await.unwrap();
    assert_eq!(code(&output), 0, "{}", err(&output));
}

#[tokio::test]
async fn explain_shows_each_source_and_which_one_decided() {
    let sim = simulated().await;
    {
        let mut world = sim.world();
        let snapshot = world
            .snapshots
            .get_mut(&LOST.replace("ami-", "snap-"))
            .unwrap();
        snapshot.volume_id = "vol-0a1b2c3d4e5f60002".into();
        world.add_instance(Instance {
            usage_operation_update_time: Some(sim::clock::now() - TimeDelta::days(1)),
            platform_details: Some("Windows".into()),
            usage_operation: Some("RunInstances:0002".into()),
            root_device_name: Some("/dev/sda1".into()),
            volumes: vec![sim::AttachedVolume::new(
                "/dev/sda1",
                "vol-0a1b2c3d4e5f60002",
            )],
            ..Instance::new("i-0a1b2c3d4e5f60002", "ami-0000000000000d001")
        });
    }
    for (name, image, ends_with) in [
        ("explain-verified", GOOD, 0),
        ("explain-mismatch", LOST, 1),
        ("explain-nowhere", NONE, 3),
    ] {
        let arguments = ["explain", image];
        let output = before(&sim, &arguments).await;
        pinned(name, &arguments, &output);
        assert_eq!(code(&output), ends_with);
    }
    let output = before(&sim, &["explain", "--json", LOST]).await;
    assert_eq!(lines(&output)[0]["expected"]["source"], "image-tag");
    assert_eq!(changes(&sim), Vec::<String>::new());
}

fn event(image: &str, id: &str) -> Value {
    json!({
        "version": "0", "id": id, "detail-type": "AWS API Call via CloudTrail", "source": "aws.ec2",
        "account": "123456789012", "time": sim::clock::now() - TimeDelta::minutes(30), "region": "eu-west-1", "resources": [],
        "detail": record(image, id),
    })
}

/// Nothing is lost that EC2 spells otherwise than its documentation: what it really answers is checked as what it means.
#[tokio::test]
async fn check_understands_what_ec2_really_says() {
    let sim = simulated().await;
    let details = "Red Hat Enterprise Linux with High Availability";
    for (details, operation, tag, verdict, ends_with) in [
        (
            "Ubuntu Pro Linux",
            "RunInstances:0g00",
            "UbuntuPro",
            "verified",
            0,
        ),
        (
            "Ubuntu Pro Linux",
            "RunInstances:0g00",
            "Ubuntu Pro Linux",
            "verified",
            0,
        ),
        (
            "Ubuntu Pro Linux",
            "RunInstances:0g00",
            "Linux",
            "mismatch/extra",
            1,
        ),
        (details, "RunInstances:1010", "RedHatHa", "verified", 0),
        (details, "RunInstances:1010", "RedHat", "mismatch/extra", 1),
        (details, "RunInstances:1010", "Linux", "mismatch/wrong", 1),
        (
            "Ubuntu Pro 2",
            "RunInstances:0g00",
            "UbuntuPro",
            "verified",
            0,
        ),
        (
            "Ubuntu Pro 2",
            "RunInstances:zzzz",
            "UbuntuPro",
            "unverifiable",
            3,
        ),
    ] {
        {
            let mut world = sim.world();
            let image = world.images.get_mut(GOOD).unwrap();
            image.platform_details = Some(details.into());
            image.usage_operation = Some(operation.into());
            image.tags.insert(EXPECT.into(), tag.into());
        }
        let output = before(&sim, &["check", GOOD]).await;
        assert_eq!(
            code(&output),
            ends_with,
            "{details} {tag}: {}",
            out(&output)
        );
        says(&out(&output), &format!("{GOOD}  {verdict}  "));
    }
}

#[tokio::test]
async fn product_codes_are_shown_with_what_an_image_is_billed_as() {
    let sim = simulated().await;
    let code_of_it = "aacglxeowvn5hy8sznltowyqe";
    sim.world().images.get_mut(GOOD).unwrap().product_codes = vec![code_of_it.into()];
    let policy = temporary("codes.toml");
    let rule = "version = 1\n[[expect]]\nname = 'rhel*'\nproduct_codes = []\n";
    std::fs::write(&policy, rule).unwrap();
    let arguments = |command| [command, "--policy", policy.to_str().unwrap(), GOOD];
    let output = before(&sim, &arguments("check")).await;
    assert_eq!(code(&output), 1);
    says(
        &out(&output),
        &format!("Red Hat Enterprise Linux (RunInstances:0010), product code {code_of_it}"),
    );
    says(&out(&output), "RedHat, no product code, source policy");
    let output = before(&sim, &arguments("explain")).await;
    says(&out(&output), &format!("product code {code_of_it}"));
    says(&out(&output), "policy: no product code  ← decides\n");
    let mut json = arguments("check").to_vec();
    json.push("--json");
    let row = lines(&before(&sim, &json).await).remove(0);
    assert_eq!(row["actual"]["product_codes"], json!([code_of_it]));
    assert_eq!(row["expected"]["product_codes"], json!([]));
}

/// As CloudTrail keeps it.
fn record(image: &str, id: &str) -> Value {
    json!({
        "eventSource": "ec2.amazonaws.com", "eventName": "RegisterImage", "eventType": "AwsApiCall",
        "eventID": id, "eventTime": sim::clock::now() - TimeDelta::minutes(30), "awsRegion": "eu-west-1",
        "recipientAccountId": "123456789012",
        "userIdentity": { "type": "IAMUser", "arn": "arn:aws:iam::123456789012:user/builder" },
        "responseElements": { "imageId": image },
    })
}

#[tokio::test]
async fn replay_takes_events_however_they_are_kept_and_changes_nothing() {
    let sim = simulated().await;
    let log = json!({ "Records": [
        { "eventSource": "sts.amazonaws.com", "eventName": "AssumeRole", "eventID": "a" },
        record(LOST, "b"),
    ] });
    let found =
        json!({ "Events": [{ "EventId": "c", "CloudTrailEvent": record(GOOD, "c").to_string() }] });
    let batch =
        json!({ "Records": [{ "messageId": "m", "body": event(UPLOADED, "d").to_string() }] });
    let packed = temporary("log.json.gz");
    let mut gzip = GzEncoder::new(std::fs::File::create(&packed).unwrap(), Compression::fast());
    gzip.write_all(log.to_string().as_bytes()).unwrap();
    gzip.finish().unwrap();
    let rest = format!("{found}\n{batch} [{}]", event(GOOD, "e"));
    let mut child = program(&["replay", "--json", packed.to_str().unwrap(), "-"]);
    child
        .env("AWS_ENDPOINT_URL", sim.endpoint())
        .env("AWS_REGION", "eu-west-1");
    child
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(rest.as_bytes()).await.unwrap();
    drop(input);
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(code(&output), 1, "{}", err(&output));
    let told: Vec<_> = lines(&output)
        .iter()
        .map(|row| {
            (
                row["event_id"].clone(),
                row["image_id"].clone(),
                row["verdict"].clone(),
            )
        })
        .collect();
    assert_eq!(
        json!(told),
        json!([
            ["b", LOST, "mismatch"],
            ["c", GOOD, "verified"],
            ["d", UPLOADED, "unverifiable"],
            ["e", GOOD, "verified"]
        ])
    );
    assert_eq!(
        err(&output),
        "4 of 5 events are registrations in this account and Region\n"
    );
    assert_eq!(changes(&sim), Vec::<String>::new());
    assert_eq!(sim.world().messages.len(), 0);
}

/// What `aws logs filter-log-events` prints of a trail's log group, an SQS message around SNS's envelope, and a call
/// whose answer CloudTrail left out.
#[tokio::test]
async fn replay_unwraps_log_groups_and_envelopes_and_names_the_event_that_cannot_be_judged() {
    let sim = simulated().await;
    let log_group = json!({ "events": [
        { "logStreamName": "s", "timestamp": 1, "message": record(LOST, "a").to_string(), "eventId": "1" },
    ] });
    let envelope = json!({ "Type": "Notification", "Message": event(GOOD, "b").to_string() });
    let queue = json!({ "Records": [{ "messageId": "m", "body": envelope.to_string() }] });
    let mut unanswered = event(GOOD, "c1ea0000-0000-4000-8000-000000000001");
    unanswered["detail"]["responseElements"] = Value::Null;
    let file = temporary("wrapped.json");
    std::fs::write(&file, format!("{log_group}\n{queue}\n{unanswered}")).unwrap();
    let file = file.to_str().unwrap();
    let output = before(&sim, &["replay", "--json", file]).await;
    assert_eq!(code(&output), 1, "{}", err(&output));
    let told = lines(&output);
    let told: Vec<_> = told
        .iter()
        .map(|row| (&row["event_id"], &row["verdict"]))
        .collect();
    assert_eq!(json!(told), json!([["a", "mismatch"], ["b", "verified"]]));
    let errors = err(&output);
    says(
        &errors,
        &format!(
            "{file:?}, event 3 (c1ea0000-0000-4000-8000-000000000001): malformed event: the CloudTrail record has \
             neither responseElements"
        ),
    );
    assert!(
        errors.ends_with("2 of 3 events are registrations in this account and Region\n"),
        "{errors}"
    );

    // One entry that is no event keeps nobody from the others.
    let batch = json!({ "Records": [
        { "messageId": "m-1", "body": "{\"cut\": " },
        { "messageId": "m-2", "body": event(GOOD, "b").to_string() },
        { "eventVersion": "1.11", "eventType": "AwsCloudTrailInsight", "eventID": "i", "eventTime": sim::clock::now(),
          "awsRegion": "eu-west-1", "recipientAccountId": "123456789012" },
    ] });
    std::fs::write(file, batch.to_string()).unwrap();
    let output = before(&sim, &["replay", file]).await;
    assert_eq!(code(&output), 3, "{}", err(&output));
    says(&out(&output), GOOD);
    let errors = err(&output);
    says(
        &errors,
        &format!("{file:?}, event 1: malformed event: has a body that is not JSON"),
    );
    says(
        &errors,
        "1 of 3 events are registrations in this account and Region",
    );

    std::fs::write(file, unanswered.to_string()).unwrap();
    let output = before(&sim, &["replay", file]).await;
    assert_eq!((code(&output), out(&output).as_str()), (3, ""));
    says(
        &err(&output),
        "0 of 1 events are registrations in this account and Region",
    );
}

#[tokio::test]
async fn replay_says_what_the_guard_would_do() {
    let sim = simulated().await;
    for (name, image, ends_with) in [
        ("replay-verified", GOOD, 0),
        ("replay-mismatch", LOST, 1),
        ("replay-nowhere", NONE, 0),
    ] {
        let file = temporary(&format!("{name}.json"));
        std::fs::write(&file, event(image, "e").to_string()).unwrap();
        let arguments = ["replay", file.to_str().unwrap()];
        let output = before(&sim, &arguments).await;
        pinned(name, &arguments, &output);
        assert_eq!(code(&output), ends_with);
    }
}

#[tokio::test]
async fn regression_replay_does_not_say_that_an_event_will_be_tried_again() {
    let sim = simulated().await;
    sim.world().images.get_mut(LOST).unwrap().state = "pending".into();
    let file = temporary("pending.json");
    std::fs::write(&file, event(LOST, "e").to_string()).unwrap();
    let output = before(&sim, &["replay", file.to_str().unwrap()]).await;
    assert_eq!(code(&output), 3);
    let errors = err(&output);
    says(&errors, "the image's state is pending");
    assert!(!errors.contains("retried"), "{errors}");
}

#[tokio::test]
async fn replay_acts_only_if_it_is_told_to_and_then_as_the_deployed_guard() {
    let sim = simulated().await;
    let file = temporary("enforce.json");
    std::fs::write(&file, event(LOST, "e").to_string()).unwrap();
    let enforce = [
        "replay",
        "--enforce",
        "--yes",
        "--topic",
        TOPIC,
        "--ledger",
        TABLE,
        file.to_str().unwrap(),
    ];
    let output = before(&sim, &enforce).await;
    assert_eq!(code(&output), 1, "{}", err(&output));
    says(&out(&output), "the guard    deregister done");
    assert!(sim.world().recycle_bin.contains_key(LOST));
    assert_eq!(sim.world().messages.len(), 1);
    // What is brought back stays.
    let output = before(&sim, &["restore", LOST]).await;
    assert_eq!(code(&output), 0, "{}", err(&output));
    let output = before(&sim, &enforce).await;
    assert_eq!(code(&output), 3, "{}", err(&output));
    assert!(sim.world().images.contains_key(LOST));
}

#[tokio::test]
async fn a_file_of_which_nothing_can_be_read_stops_replay_before_anything_is_done() {
    let sim = simulated().await;
    let good = temporary("good.json");
    std::fs::write(&good, event(LOST, "e").to_string()).unwrap();
    let cut = temporary("cut.json.gz");
    std::fs::write(&cut, [0x1f, 0x8b, 8]).unwrap();
    let empty = temporary("empty.json");
    std::fs::write(&empty, " ").unwrap();
    for (bad, why) in [(&cut, "is not complete gzip"), (&empty, "is empty")] {
        let files = ["replay", good.to_str().unwrap(), bad.to_str().unwrap()];
        let output = before(&sim, &files).await;
        assert_eq!((code(&output), out(&output).as_str()), (2, ""));
        says(&err(&output), why);
    }
    assert!(sim.calls().is_empty());
}

#[tokio::test]
async fn restore_brings_back_what_is_in_the_recycle_bin_or_disabled() {
    let sim = simulated().await;
    for (name, arguments, ends_with) in [
        ("restore-dry-run", vec!["restore", "--dry-run", BINNED], 0),
        ("restore-binned", vec!["restore", BINNED], 0),
        ("restore-again", vec!["restore", BINNED], 0),
        ("restore-disabled", vec!["restore", DISABLED], 0),
        ("restore-nowhere", vec!["restore", NONE], 3),
        ("restore-json", vec!["restore", "--json", BINNED], 0),
    ] {
        let output = before(&sim, &arguments).await;
        pinned(name, &arguments, &output);
        assert_eq!(code(&output), ends_with);
    }
    assert_eq!(changes(&sim), ["RestoreImageFromRecycleBin", "EnableImage"]);
    assert_eq!(sim.world().images[DISABLED].state, "available");
    sim.inject(Fault::always(
        "ListImagesInRecycleBin",
        FaultKind::AccessDenied,
    ));
    let output = before(&sim, &["restore", NONE]).await;
    assert_eq!(code(&output), 3);
    says(&err(&output), "ec2:ListImagesInRecycleBin");
}

#[tokio::test]
async fn a_policy_is_checked_and_tested_without_any_account() {
    let faulty = temporary("faulty.toml");
    std::fs::write(
        &faulty,
        "version = 1\nmode = 'enforce'\n[discard]\nfrom = ['tags']",
    )
    .unwrap();
    for (name, arguments, ends_with) in [
        (
            "policy-check",
            vec!["policy", "check", "policy/policy.toml"],
            0,
        ),
        (
            "policy-check-json",
            vec!["policy", "check", "--json", "policy/policy.toml"],
            0,
        ),
        (
            "policy-check-faults",
            vec!["policy", "check", faulty.to_str().unwrap()],
            1,
        ),
        // The example policy of this repository, as its authors mean it.
        (
            "policy-test",
            vec![
                "policy",
                "test",
                "policy/policy.toml",
                "--cases",
                "examples/policy-cases.toml",
            ],
            0,
        ),
        (
            "policy-test-examples",
            vec![
                "policy",
                "test",
                "examples/policy.toml",
                "--cases",
                "examples/policy-examples-cases.toml",
            ],
            0,
        ),
    ] {
        let output = run(&arguments).await;
        pinned(name, &arguments, &output);
        assert_eq!(code(&output), ends_with);
    }
    let cases = temporary("cases.toml");
    let case = "[[case]]\nname = 'x'\nimage = { platform_details = 'Windows' }\nlineage = 'Windows'\nexpect = { verdict = \
                'mismatch', kind = 'wrong', held_by = ['in-use'] }";
    std::fs::write(&cases, case).unwrap();
    let arguments = [
        "policy",
        "test",
        "policy/policy.toml",
        "--cases",
        cases.to_str().unwrap(),
    ];
    let output = run(&arguments).await;
    pinned("policy-test-fails", &arguments, &output);
    assert_eq!(code(&output), 1);
    let output = run(&[&arguments[..], &["--json"]].concat()).await;
    assert_eq!(lines(&output)[0]["passed"], false);
    assert_eq!(lines(&output)[0]["got"]["verdict"], "verified");
}

#[tokio::test]
async fn each_command_has_a_man_page() {
    for (command, title) in [
        (&[][..], ".TH ami-guard 1"),
        (&["check"], ".TH ami-guard-check 1"),
        (&["policy", "test"], ".TH ami-guard-policy-test 1"),
    ] {
        let output = run(&[&["man"], command].concat()).await;
        assert_eq!(code(&output), 0, "{}", err(&output));
        assert!(out(&output).contains(title), "{}", out(&output));
    }
    let output = run(&["man", "policy", "tests"]).await;
    assert_eq!(code(&output), 2);
    says(
        &err(&output),
        "there is no command \"tests\". Accepted: check, test",
    );
}

#[tokio::test]
async fn completions_are_for_the_shells_that_there_are() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(&["completions", shell]).await;
        assert_eq!(code(&output), 0);
        assert!(out(&output).contains("audit"), "{shell}");
    }
}
