//! The whole flow through the public surface: the real SDK talks to `sim`, in this process and on virtual time, in some
//! tests over HTTP; and what the guard did is read from the server's side.

// Clippy takes helpers of tests for no tests.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod absent;
mod alerts;
mod batches;
mod billing;
mod corpus;
mod daily;
mod disks;
mod events;
mod expectations;
mod faults;
mod layers;
mod ledger;
mod lookups;
mod model;
mod selftest;
mod settings;
mod settling;
mod thaw;
mod unreadable;
mod virtual_time;
mod way_back;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ami_billing_guard::config::{Config, Mode};
use ami_billing_guard::event::Scope;
use ami_billing_guard::policy::{Asked, Policy};
use ami_billing_guard::telemetry::Line;
use ami_billing_guard::{Aws, CallStats, Clock, Deadline, Error, Guard};
use chrono::{TimeDelta, Utc};
use disk::contained::Reader;
use serde_json::{Value, json};
use sim::clock::now;
use sim::{
    Answer, Fault, FaultKind, Image, Instance, Invisible, Lingering, Reference, Sim, Snapshot,
    World,
};

const AMI: &str = "ami-0a1b2c3d4e5f60001";
/// What the guard goes by where time is virtual.
const CLOCK: Clock = Clock::new(now, || fastrand::u64(..));
/// The program that reads disks.
const READER: &str = env!("CARGO_BIN_EXE_guard");
const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:ami-billing-guard";

/// The guard before a simulated EC2 and SNS.
struct Harness {
    sim: Sim,
    guard: Arc<Guard>,
    journal: Arc<Mutex<Vec<Value>>>,
    /// What audits came to.
    audits: Arc<Mutex<Vec<Value>>>,
    /// What each invocation sent.
    tallies: Arc<Mutex<Vec<CallStats>>>,
}

struct Settings {
    mode: Mode,
    policy: Policy,
    wait: Duration,
    settle: Duration,
    ledger_table: Option<&'static str>,
    chat_topic: Option<&'static str>,
    reader: Reader,
    recycle_bin_rule: Option<&'static str>,
    queue_url: Option<&'static str>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            mode: Mode::Enforce,
            policy: Policy {
                // Where an image comes from is the business of `expectations`.
                lineage: Asked::Never,
                // And what is on its disk that of `disks`.
                disk: Asked::Never,
                ..Policy::default()
            },
            wait: Duration::from_secs(2),
            settle: Duration::from_secs(300),
            ledger_table: None,
            chat_topic: None,
            reader: match sim::clock::is_virtual() {
                true => Reader::Here,
                false => Reader::Child(READER.into()),
            },
            recycle_bin_rule: None,
            queue_url: None,
        }
    }
}

impl Settings {
    fn policy(text: &str) -> Settings {
        let text =
            format!("version = 1\nevidence.lineage = \"never\"\nevidence.disk = \"never\"\n{text}");
        Settings {
            policy: Policy::parse("policy.toml", &text).unwrap(),
            ..Settings::default()
        }
    }
}

impl Harness {
    /// The words of a mail, in the order in which they were sent, without its line breaks.
    fn mail(&self, at: usize) -> String {
        let mail = self.sim.world().messages[at].body("email");
        mail.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    async fn with(image: Image, settings: Settings) -> Harness {
        let mut world = World::default();
        for snapshot in image.snapshot_ids() {
            world.add_snapshot(Snapshot::new(snapshot));
        }
        world.add_image(image);
        Harness::around(world, settings).await
    }

    async fn around(world: World, settings: Settings) -> Harness {
        // On sockets only where time is real.
        let sim = match sim::clock::is_virtual() {
            true => Sim::in_process(world),
            false => Sim::start(world).await.unwrap(),
        };
        // In one process, the SDK has one quota of retries for a service in a Region: what fails in one harness
        // must not use up another's.
        static HOUSES: AtomicUsize = AtomicUsize::new(0);
        let region = format!("eu-west-1-{}", HOUSES.fetch_add(1, Ordering::Relaxed));
        let aws = match sim::clock::is_virtual() {
            true => Aws::in_process(sim.client(), &region, CLOCK).await,
            false => Aws::connect_to_simulator(&sim.endpoint(), &region).await,
        };
        let config = Config {
            mode: settings.mode,
            alert_topic: Some(TOPIC.into()),
            chat_topic: settings.chat_topic.map(str::to_owned),
            policy_path: None,
            scope: Scope {
                account: Some("123456789012".parse().unwrap()),
                region: Some("eu-west-1".into()),
            },
            wait: settings.wait,
            settle: settings.settle,
            ledger_table: settings.ledger_table.map(str::to_owned),
            ledger_days: 365,
            recycle_bin_rule: settings.recycle_bin_rule.map(str::to_owned),
            queue_url: settings.queue_url.map(str::to_owned),
            runbook_url: Some("https://example.org/runbook".into()),
        };
        let journal = Arc::new(Mutex::new(Vec::new()));
        let pages = Arc::clone(&journal);
        let audits = Arc::new(Mutex::new(Vec::new()));
        let audited = Arc::clone(&audits);
        let tallies = Arc::new(Mutex::new(Vec::new()));
        let counted = Arc::clone(&tallies);
        let guard = Guard::new(
            config,
            settings.policy,
            aws,
            settings.reader,
            move |_, line| match line {
                Line::Record(record) => pages.lock().unwrap().push(json!(record)),
                Line::Audit(audit) => audited.lock().unwrap().push(json!(audit)),
                Line::Invocation(tally) => counted.lock().unwrap().push(tally),
                Line::Failure(_) => {}
            },
        );
        Harness {
            sim,
            guard: Arc::new(guard),
            journal,
            audits,
            tallies,
        }
    }

    async fn of(image: Image) -> Harness {
        Harness::with(image, Settings::default()).await
    }

    async fn give(&self, event: Value) -> Result<Value, Error> {
        let answer = self.guard.handle(event, in_a_minute()).await?;
        Ok(json!(answer))
    }

    /// The record of an event that is dealt with.
    async fn record(&self, event: Value) -> Value {
        self.give(event).await.unwrap()
    }

    /// The actions that were called, in order. The looks around an image go out side by side, and stand here
    /// always in the same order.
    fn calls(&self) -> Vec<String> {
        let mut calls: Vec<String> = self.sim.calls().into_iter().map(named).collect();
        let around = |call: &String| AROUND.contains(&call.as_str());
        calls
            .chunk_by_mut(|one, other| around(one) && around(other))
            .for_each(|side_by_side| {
                side_by_side.sort_by_key(|call| AROUND.iter().position(|it| it == call));
            });
        calls
    }

    /// The records of the alerts that were published, in order.
    fn alerts(&self) -> Vec<Value> {
        let world = self.sim.world();
        let messages = world.messages.iter();
        let messages = messages.filter(|message| message.topic_arn == TOPIC);
        let bodies = messages.map(|message| message.body("sqs"));
        bodies
            .map(|body| serde_json::from_str(&body).unwrap())
            .collect()
    }

    /// What audits came to, in order.
    fn audited(&self) -> Vec<Value> {
        self.audits.lock().unwrap().clone()
    }

    /// The outcomes that the alerts told of, in order.
    fn told(&self) -> Vec<Value> {
        let alerts = self.alerts();
        alerts
            .iter()
            .map(|alert| alert["outcome"].clone())
            .collect()
    }

    fn image_stands(&self) -> bool {
        self.sim
            .world()
            .images
            .get(AMI)
            .is_some_and(|image| image.state == "available")
    }

    /// Disturbs calls to come. Of DescribeImages those that search for copies are not meant, unless the fault says so.
    fn inject(&self, fault: Fault) {
        self.sim.inject(not_of_copies(fault));
    }
}

/// How the search for the copies of an image differs from other calls of DescribeImages.
const OF_COPIES: (&str, &str) = ("Filter.1.Name", "source-image-id");

fn is_of_copies(call: &sim::Call) -> bool {
    let (name, value) = OF_COPIES;
    call.params.get(name).is_some_and(|it| it == value)
}

fn not_of_copies(mut fault: Fault) -> Fault {
    let (name, value) = OF_COPIES;
    if fault.action == AROUND[3] {
        fault.action = "DescribeImages".into();
        return fault.with(name, value);
    }
    match fault.of {
        None if fault.action == "DescribeImages" => fault.without(name, value),
        _ => fault,
    }
}

/// The action, as [`AROUND`] has it.
fn named(call: sim::Call) -> String {
    match is_of_copies(&call) {
        true => AROUND[3].to_owned(),
        false => call.action,
    }
}

fn in_a_minute() -> Deadline {
    Deadline::now() + Duration::from_secs(60)
}

/// A registration that CloudTrail tells of, six minutes ago.
fn registered() -> Value {
    registered_at(now() - TimeDelta::minutes(6))
}

fn registered_at(time: chrono::DateTime<Utc>) -> Value {
    json!({
        "version": "0", "id": "7bf73129-1428-4cd3-a780-95db273d1602",
        "detail-type": "AWS API Call via CloudTrail", "source": "aws.ec2",
        "account": "123456789012", "region": "eu-west-1", "time": time.to_rfc3339(), "resources": [],
        "detail": {
            "eventSource": "ec2.amazonaws.com", "eventName": "RegisterImage", "awsRegion": "eu-west-1",
            "recipientAccountId": "123456789012", "sourceIPAddress": "198.51.100.7",
            "userIdentity": { "type": "IAMUser", "arn": "arn:aws:iam::123456789012:user/builder" },
            "responseElements": { "imageId": AMI }
        }
    })
}

/// A state change of eleven minutes ago: the event of CloudTrail that says more would have come.
fn became_available() -> Value {
    became_available_at(now() - TimeDelta::minutes(11))
}

fn became_available_at(time: chrono::DateTime<Utc>) -> Value {
    json!({
        "version": "0", "id": "e-2", "detail-type": "EC2 AMI State Change", "source": "aws.ec2",
        "account": "123456789012", "region": "eu-west-1", "resources": [],
        "time": time.to_rfc3339(),
        "detail": { "RequestId": "r", "ImageId": AMI, "State": "available", "ErrorMessage": "" }
    })
}

/// A Linux/UNIX image.
fn image() -> Image {
    Image::new(AMI)
}

fn expecting(expectation: &str) -> Image {
    tagged(image(), "ami-billing-guard:expect", expectation)
}

fn tagged(mut image: Image, key: &str, value: &str) -> Image {
    image.tags.insert(key.into(), value.into());
    image
}

fn billing(mut image: Image, details: &str, operation: &str) -> Image {
    image.platform_details = Some(details.into()).filter(|details: &String| !details.is_empty());
    image.usage_operation =
        Some(operation.into()).filter(|operation: &String| !operation.is_empty());
    image
}

fn refuse(code: &str, message: &str) -> FaultKind {
    FaultKind::Refuse {
        code: code.into(),
        message: message.into(),
    }
}

fn looks(call: &str) -> bool {
    let verbs = ["Describe", "Get", "BatchGet", "List"];
    verbs.iter().any(|verb| call.starts_with(verb))
}

const AROUND: [&str; 4] = [
    "DescribeImageReferences",
    "GetTopicAttributes",
    "DescribeImageAttribute",
    "DescribeImages of copies",
];

const HELD: [&str; 6] = [
    "DescribeImages",
    AROUND[0],
    AROUND[1],
    AROUND[2],
    AROUND[3],
    "Publish",
];

const CLEAN_DISCARD: [&str; 15] = [
    "DescribeImages",
    AROUND[0],
    AROUND[1],
    AROUND[2],
    AROUND[3],
    "CreateTags",
    "DescribeImages",
    AROUND[0],
    AROUND[1],
    AROUND[2],
    AROUND[3],
    "Publish",
    "DeregisterImage",
    "DescribeImages",
    "ListImagesInRecycleBin",
];

#[tokio::test(crate = "crate::virtual_time")]
async fn a_windows_image_that_bills_as_linux_is_marked_told_of_and_then_deregistered() {
    let harness = Harness::of(expecting("Windows")).await;
    let record = harness.record(registered()).await;

    assert_eq!(harness.calls(), CLEAN_DISCARD);
    assert_eq!(record["verdict"], "mismatch");
    assert_eq!(record["kind"], "wrong");
    assert_eq!(record["action"], "deregister");
    assert_eq!(record["outcome"], "done");
    assert_eq!(record["recycle_bin"], "in");
    assert_eq!(record["looked_again"], "gone");
    assert!(record["recoverable_until"].is_string());

    let world = harness.sim.world();
    assert!(!world.images.contains_key(AMI));
    let binned = &world.recycle_bin[AMI].image;
    assert_eq!(binned.tags["ami-billing-guard:discard"], "true");
    assert_eq!(binned.tags["ami-billing-guard:verdict"], "mismatch/wrong");
    assert_eq!(binned.tags["ami-billing-guard:should-be"], "Windows");
    assert_eq!(
        binned.tags["ami-billing-guard:record"],
        "7bf73129-1428-4cd3-a780-95db273d1602"
    );
    assert_eq!(world.snapshots.len(), 1, "the snapshot stays");
    drop(world);

    let alerts = harness.alerts();
    assert_eq!(alerts.len(), 1);
    assert_eq!(alerts[0]["outcome"], "planned");
    assert_eq!(alerts[0]["expected"]["platform"], json!(["Windows"]));
    assert_eq!(*harness.journal.lock().unwrap(), [record]);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_verified_image_costs_one_call() {
    let harness = Harness::of(billing(
        expecting("Windows"),
        "Windows",
        "RunInstances:0002",
    ))
    .await;
    let record = harness.record(registered()).await;
    assert_eq!(harness.calls(), ["DescribeImages"]);
    assert_eq!(
        (&record["verdict"], &record["action"]),
        (&json!("verified"), &json!("none"))
    );
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_image_without_platform_details_is_discarded_without_any_expectation() {
    let harness = Harness::of(billing(image(), "", "")).await;
    let record = harness.record(registered()).await;
    assert_eq!(
        (&record["kind"], &record["outcome"]),
        (&json!("empty"), &json!("done"))
    );
    assert!(!harness.image_stands());
}

#[tokio::test(crate = "crate::virtual_time")]
async fn verdicts_that_do_not_discard_leave_the_image_alone() {
    let cases = [
        (image(), "unverifiable", 0),
        (expecting("RHEL"), "unverifiable", 1),
        (
            billing(expecting("Windows"), "Solaris", "RunInstances:vvvv"),
            "unverifiable",
            0,
        ),
        // EC2's operation judges where its details are not known, and nothing is discarded.
        (
            billing(expecting("Windows"), "Solaris", "RunInstances:0002"),
            "verified",
            0,
        ),
        (
            billing(expecting("Windows"), "Solaris", "RunInstances"),
            "mismatch",
            1,
        ),
        (
            billing(expecting("Windows"), "Windows", "RunInstances:0010"),
            "conflict",
            1,
        ),
        (
            billing(
                expecting("RedHat"),
                "Red Hat Enterprise Linux with High Availability",
                "RunInstances:1010",
            ),
            "mismatch",
            1,
        ),
    ];
    for (image, verdict, alerts) in cases {
        let harness = Harness::of(image).await;
        let record = harness.record(registered()).await;
        assert_eq!(record["verdict"], verdict);
        assert_eq!(harness.alerts().len(), alerts, "{verdict}");
        assert!(
            harness
                .calls()
                .iter()
                .all(|call| looks(call) || call == "Publish")
        );
        assert!(harness.image_stands());
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_second_delivery_does_no_harm_and_says_gone() {
    let harness = Harness::of(expecting("Windows")).await;
    let event = registered_at(now() - TimeDelta::minutes(11));
    harness.record(event.clone()).await;
    harness.sim.forget_calls();
    let record = harness.record(event).await;
    assert_eq!(
        (&record["verdict"], &record["action"]),
        (&json!("gone"), &json!("none"))
    );
    assert_eq!(harness.calls(), ["DescribeImages"]);
    assert_eq!(harness.alerts().len(), 1);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn observe_mode_only_looks_and_tells() {
    let settings = Settings {
        mode: Mode::Observe,
        ..Settings::default()
    };
    let harness = Harness::with(expecting("Windows"), settings).await;
    let record = harness.record(registered()).await;
    assert_eq!(harness.calls(), HELD);
    assert_eq!(record["action"], "hold");
    assert_eq!(record["held_by"], json!(["observe-mode"]));
    assert!(harness.image_stands());
}

#[tokio::test(crate = "crate::virtual_time")]
async fn interlocks_seen_on_the_image_or_in_the_event_hold_the_discard() {
    let protected = {
        let mut image = expecting("Windows");
        image.deregistration_protection = Some("enabled-without-cooldown".into());
        image
    };
    let another_owners = {
        let mut image = expecting("Windows");
        image.owner = "210987654321".into();
        image.public = true;
        // An owner's tags are the owner's alone to see.
        image.callers_tags = std::mem::take(&mut image.tags);
        image
    };
    let old = {
        let mut image = expecting("Windows");
        image.creation_date = now() - TimeDelta::hours(25);
        image
    };
    let created = {
        let mut image = expecting("Windows");
        image.source_instance_id = Some("i-0a1b2c3d4e5f60001".into());
        image
    };
    let backup = tagged(expecting("Windows"), "aws:backup:source-resource", "i-1");
    let strange = billing(expecting("Windows"), "Linux/UNIX", "RunInstances:vvvv");
    let by_service = {
        let mut event = registered();
        event["detail"]["userIdentity"]["invokedBy"] = json!("drs.amazonaws.com");
        event
    };
    let cases = [
        (protected, registered(), "protected"),
        (another_owners, registered(), "not-owner"),
        (old, registered(), "too-old"),
        (created, registered(), "not-registered"),
        (backup, registered(), "backup-managed"),
        (strange, registered(), "unrecognised-operation"),
        (expecting("Windows"), by_service, "service-registered"),
        (expecting("Windows"), became_available(), "identity-unknown"),
    ];
    for (image, event, interlock) in cases {
        let harness = Harness::of(image).await;
        let record = harness.record(event).await;
        assert_eq!(record["held_by"], json!([interlock]));
        assert_eq!(record["action"], "hold");
        let mut calls = HELD.to_vec();
        // Of another owner's image nobody says who may launch it.
        calls.retain(|call| interlock != "not-owner" || *call != AROUND[2]);
        assert_eq!(harness.calls(), calls, "{interlock}");
        assert!(harness.image_stands(), "{interlock}");
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn what_refers_to_an_image_holds_its_discard_and_is_listed() {
    let running = |world: &mut World| world.add_instance(Instance::new("i-1", AMI));
    let stopped = |world: &mut World| {
        let mut instance = Instance::new("i-1", AMI);
        instance.state = "stopped".into();
        world.add_instance(instance);
    };
    let template = |world: &mut World| {
        let reference = Reference {
            resource_type: "ec2:LaunchTemplate".into(),
            arn: "arn:aws:ec2:eu-west-1:123456789012:launch-template/lt-1".into(),
        };
        world.references.insert(AMI.into(), vec![reference]);
    };
    for (change, arn) in [
        (running as fn(&mut World), "instance/i-1"),
        (stopped, "instance/i-1"),
        (template, "launch-template/lt-1"),
    ] {
        let harness = Harness::of(expecting("Windows")).await;
        change(&mut harness.sim.world());
        let record = harness.record(registered()).await;
        assert_eq!(record["held_by"], json!(["in-use"]));
        assert!(record["references"][0].as_str().unwrap().ends_with(arn));
        let letter = harness.sim.world().messages[0].body("email");
        assert!(
            letter.lines().any(|line| line.trim().ends_with(arn)),
            "{letter}"
        );
        assert!(harness.image_stands());
    }

    // A builder that has done its work is no user.
    let harness = Harness::of(expecting("Windows")).await;
    let mut builder = Instance::new("i-1", AMI);
    builder.state = "terminated".into();
    harness.sim.world().add_instance(builder);
    assert_eq!(harness.record(registered()).await["outcome"], "done");

    let settings = Settings::policy("[discard]\nin_use = \"discard\"");
    let harness = Harness::with(expecting("Windows"), settings).await;
    running(&mut harness.sim.world());
    let record = harness.record(registered()).await;
    assert_eq!(record["outcome"], "done");
    assert!(harness.alerts()[0]["references"][0].is_string());
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_instance_that_is_launched_between_judgement_and_act_holds_the_discard() {
    let (harness, record) = with_a_change_on_the_way(expecting("Windows"), |world| {
        world.add_instance(Instance::new("i-1", AMI));
    })
    .await;
    assert_eq!(record["held_by"], json!(["in-use"]));
    assert!(harness.image_stands());
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_image_that_is_shared_is_held_and_the_alert_says_with_whom() {
    let mut shared = expecting("Windows");
    shared.shared_with.insert("210987654321".into());
    let harness = Harness::of(shared.clone()).await;
    let record = harness.record(registered()).await;
    assert_eq!(record["held_by"], json!(["shared"]));
    assert_eq!(record["shared_with"], json!(["210987654321"]));
    let letter = harness.sim.world().messages[0].body("email");
    assert!(
        letter.contains("it is shared with 210987654321"),
        "{letter}"
    );
    assert!(harness.image_stands());

    // Restoring it from the Recycle Bin shares it again by itself.
    let settings = Settings::policy("[discard]\nshared = \"discard\"");
    let harness = Harness::with(shared, settings).await;
    assert_eq!(harness.record(registered()).await["outcome"], "done");
    let letter = harness.sim.world().messages[0].body("email");
    assert!(
        !letter.contains("aws ec2 modify-image-attribute --region eu-west-1 --image-id ami-"),
        "{letter}"
    );
}

#[tokio::test(crate = "crate::virtual_time")]
async fn nobody_is_there_to_hear_of_a_discard() {
    let harness = Harness::of(expecting("Windows")).await;
    for topic in harness.sim.world().topics.values_mut() {
        topic.confirmed = 0;
    }
    let record = harness.record(registered()).await;
    assert_eq!(record["held_by"], json!(["nobody-listening"]));
    assert!(harness.image_stands());
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_look_around_that_fails_holds_the_discard_and_says_why() {
    for (action, interlock, words) in [
        (
            AROUND[0],
            "in-use",
            "could not determine what refers to the image: access denied: ec2:DescribeImageReferences",
        ),
        (
            AROUND[1],
            "nobody-listening",
            "could not determine whether the topic has a confirmed subscription: access denied: sns:GetTopicAttributes",
        ),
    ] {
        let harness = Harness::of(expecting("Windows")).await;
        harness.inject(Fault::always(action, FaultKind::AccessDenied));
        let record = harness.record(registered()).await;
        assert_eq!(record["held_by"], json!([interlock]));
        let error = record["error"].as_str().unwrap();
        assert!(error.starts_with(words), "{error}");
        let letter = harness.mail(0);
        assert!(letter.contains(words), "{letter}");
        assert!(harness.image_stands());
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn the_default_of_the_policy_tells_and_never_discards() {
    let settings = Settings::policy("[defaults]\nexpect = \"Windows\"");
    let harness = Harness::with(image(), settings).await;
    let record = harness.record(registered()).await;
    assert_eq!(record["held_by"], json!(["inferred"]));
    assert_eq!(
        record["expected"],
        json!({"platform": ["Windows"], "source": "default"})
    );
    assert!(harness.image_stands());
}

#[tokio::test(crate = "crate::virtual_time")]
async fn action_none_tells_and_disable_disables() {
    let settings = Settings::policy("[discard]\naction = \"none\"");
    let harness = Harness::with(expecting("Windows"), settings).await;
    assert_eq!(
        harness.record(registered()).await["held_by"],
        json!(["action-none"])
    );
    assert!(harness.image_stands());

    let settings = Settings::policy("[discard]\naction = \"disable\"");
    let harness = Harness::with(expecting("Windows"), settings).await;
    let record = harness.record(registered()).await;
    assert_eq!(
        (&record["action"], &record["outcome"]),
        (&json!("disable"), &json!("done"))
    );
    assert_eq!(
        harness.calls()[11..],
        ["Publish", "DisableImage", "DescribeImages"]
    );
    assert_eq!(harness.sim.world().images[AMI].state, "disabled");
    assert_eq!(
        record["undo"],
        "aws ec2 enable-image --image-id ami-0a1b2c3d4e5f60001 --region eu-west-1"
    );
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_young_image_comes_again_unless_a_tag_verifies_it() {
    let young = |mut image: Image| {
        image.creation_date = now() - TimeDelta::seconds(30);
        image
    };
    for image in [expecting("Windows"), image(), billing(image(), "", "")] {
        let harness = Harness::of(young(image)).await;
        let error = harness.give(registered()).await.unwrap_err();
        assert_eq!(error.error_type(), "NotSettled");
        assert!(harness.calls().iter().all(|call| looks(call)));
    }
    let harness = Harness::of(young(expecting("Linux"))).await;
    assert_eq!(harness.record(registered()).await["verdict"], "verified");

    // What verifies is a declaration: a default does not, as a tag may yet say otherwise.
    let settings = Settings::policy("[defaults]\nexpect = \"Linux\"");
    let harness = Harness::with(young(image()), settings).await;
    assert_eq!(
        harness.give(registered()).await.unwrap_err().error_type(),
        "NotSettled"
    );
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_image_that_becomes_visible_late_is_waited_for_within_the_budget() {
    for invisible_as in [Invisible::NotFound, Invisible::Empty] {
        let mut image = expecting("Linux");
        (image.invisible_for, image.invisible_as) = (2, invisible_as);
        let harness = Harness::of(image).await;
        assert_eq!(harness.record(registered()).await["verdict"], "verified");
        assert_eq!(harness.calls().len(), 3);

        let mut image = expecting("Linux");
        (image.invisible_for, image.invisible_as) = (1000, invisible_as);
        let wait = Duration::from_millis(300);
        let harness = Harness::with(
            image,
            Settings {
                wait,
                ..Settings::default()
            },
        )
        .await;
        let error = harness.give(registered()).await.unwrap_err();
        assert_eq!(error.error_type(), "NotVisibleYet");
        assert!(error.to_string().contains(AMI), "{error}");
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn pending_is_waited_for_and_failed_states_are_failed_not_empty() {
    let in_state = |state: &str| {
        let mut image = billing(expecting("Windows"), "", "");
        image.state = state.into();
        image
    };
    for state in ["pending", "transient", "state-to-come"] {
        let settings = Settings {
            wait: Duration::ZERO,
            ..Settings::default()
        };
        let harness = Harness::with(in_state(state), settings).await;
        assert_eq!(
            harness.give(registered()).await.unwrap_err().error_type(),
            "NotVisibleYet"
        );
    }
    for (state, verdict) in [
        ("failed", "failed"),
        ("error", "failed"),
        ("invalid", "failed"),
        ("disabled", "gone"),
        ("deregistered", "gone"),
    ] {
        let harness = Harness::of(in_state(state)).await;
        assert_eq!(
            harness.record(registered()).await["verdict"],
            verdict,
            "{state}"
        );
        assert_eq!(harness.calls(), ["DescribeImages"]);
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_recently_deregistered_image_is_gone_not_empty() {
    for empty_for in [None, Some(0)] {
        let harness = Harness::of(expecting("Windows")).await;
        {
            let mut world = harness.sim.world();
            let image = world.images.remove(AMI).unwrap();
            let lingering = Lingering {
                listed_for: 0,
                empty_for,
            };
            world
                .deregistered
                .insert(AMI.into(), sim::Deregistered { image, lingering });
        }
        let old = registered_at(now() - TimeDelta::minutes(11));
        assert_eq!(harness.record(old).await["verdict"], "gone");
        // Not knowing whether it is not there yet or no more is no verdict.
        let error = harness.give(registered()).await.unwrap_err();
        assert_eq!(error.error_type(), "NotVisibleYet");
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_refused_deregistration_is_told_of_with_ec2s_words_and_not_tried_again() {
    let harness = Harness::of(expecting("Windows")).await;
    harness.inject(Fault::always(
        "DeregisterImage",
        refuse("OperationNotPermitted", "Not this one."),
    ));
    let record = harness.record(registered()).await;
    assert_eq!(record["outcome"], "refused");
    assert!(record["error"].as_str().unwrap().contains("Not this one."));
    assert_eq!(harness.told(), ["planned", "refused"]);
    assert!(harness.image_stands());
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_denied_deregistration_names_permission_and_resource() {
    let settings = Settings {
        wait: Duration::from_millis(300),
        ..Settings::default()
    };
    let harness = Harness::with(expecting("Windows"), settings).await;
    harness.inject(Fault::always("DeregisterImage", FaultKind::AccessDenied));
    let record = harness.record(registered()).await;
    assert_eq!(record["outcome"], "refused");
    let error = record["error"].as_str().unwrap();
    let words =
        "ec2:DeregisterImage on arn:aws:ec2:eu-west-1::image/ami-0a1b2c3d4e5f60001 is missing";
    assert!(error.contains(words), "{error}");
    assert_eq!(harness.alerts().len(), 2);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_denial_right_after_tagging_may_pass() {
    let harness = Harness::of(expecting("Windows")).await;
    harness.inject(Fault::nth("DeregisterImage", 1, FaultKind::AccessDenied));
    assert_eq!(harness.record(registered()).await["outcome"], "done");
    assert_eq!(harness.alerts().len(), 1);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_image_that_can_not_be_tagged_is_held() {
    let mut full = expecting("Windows");
    (1..50).for_each(|n| {
        full.tags.insert(format!("tag-{n}"), String::new());
    });
    let harness = Harness::of(full).await;
    let record = harness.record(registered()).await;
    assert_eq!(record["held_by"], json!(["untaggable"]));
    assert!(!harness.calls().contains(&"CreateTags".to_owned()));
    assert_eq!(harness.alerts().len(), 1);

    let harness = Harness::of(expecting("Windows")).await;
    harness.inject(Fault::always("CreateTags", FaultKind::AccessDenied));
    let record = harness.record(registered()).await;
    assert_eq!(record["held_by"], json!(["untaggable"]));
    assert!(
        record["error"]
            .as_str()
            .unwrap()
            .contains("ec2:CreateTags on arn:aws:ec2:")
    );
    assert!(harness.image_stands());
}

#[tokio::test(crate = "crate::virtual_time")]
async fn without_an_alert_nothing_is_discarded_and_a_retry_completes_it() {
    for fault in [
        FaultKind::AccessDenied,
        FaultKind::Throttle,
        FaultKind::ResetBefore,
    ] {
        let harness = Harness::of(expecting("Windows")).await;
        harness.inject(Fault::always("Publish", fault.clone()));
        let error = harness.give(registered()).await.unwrap_err();
        assert!(error.to_string().contains(TOPIC), "{error}");
        assert!(harness.calls().iter().all(|call| call != "DeregisterImage"));
        assert!(harness.image_stands());

        harness.sim.heal();
        assert_eq!(
            harness.record(registered()).await["outcome"],
            "done",
            "{fault:?}"
        );
        assert_eq!(harness.alerts().len(), 1);
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_lost_answer_to_a_deregistration_is_cleared_up_by_looking() {
    for fault in [FaultKind::ResetAfter, FaultKind::CutBody] {
        let harness = Harness::of(expecting("Windows")).await;
        harness.inject(Fault::always("DeregisterImage", fault.clone()));
        let record = harness.record(registered()).await;
        assert_eq!(record["outcome"], "done", "{fault:?}: {record}");
        assert_eq!(harness.alerts().len(), 1);
        assert!(!harness.image_stands());
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_deregistration_that_does_not_get_through_is_told_of_and_tried_again() {
    let harness = Harness::of(expecting("Windows")).await;
    harness.inject(Fault::always("DeregisterImage", FaultKind::Throttle));
    let error = harness.give(registered()).await.unwrap_err();
    assert_eq!(error.error_type(), "Unavailable");
    assert_eq!(harness.told(), ["planned", "failed"]);
    assert_eq!(harness.journal.lock().unwrap()[0]["outcome"], "failed");
    assert!(harness.image_stands());

    harness.sim.heal();
    assert_eq!(harness.record(registered()).await["outcome"], "done");
}

#[tokio::test(crate = "crate::virtual_time")]
async fn passing_faults_are_retried_by_the_sdk_and_lasting_ones_by_the_queue() {
    for action in ["DescribeImages", "CreateTags", "Publish", "DeregisterImage"] {
        for fault in [
            FaultKind::Throttle,
            FaultKind::InternalError,
            FaultKind::ResetBefore,
        ] {
            let harness = Harness::of(expecting("Windows")).await;
            harness.inject(Fault::nth(action, 1, fault.clone()));
            let record = harness.record(registered()).await;
            assert_eq!(record["outcome"], "done", "{action} {fault:?}");
        }
    }
    let harness = Harness::of(expecting("Windows")).await;
    harness.inject(Fault::always("DescribeImages", FaultKind::AccessDenied));
    let error = harness.give(registered()).await.unwrap_err();
    assert_eq!(error.error_type(), "AccessDenied");
    assert!(
        error
            .to_string()
            .starts_with("access denied: ec2:DescribeImages on * is missing")
    );
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_look_that_fails_is_not_a_failed_discard() {
    let harness = Harness::of(expecting("Windows")).await;
    harness.inject(Fault::always(
        "ListImagesInRecycleBin",
        FaultKind::AccessDenied,
    ));
    harness.inject(Fault::from_nth(
        "DescribeImages",
        3,
        FaultKind::AccessDenied,
    ));
    let record = harness.record(registered()).await;
    assert_eq!(record["outcome"], "done");
    assert_eq!(
        (&record["recycle_bin"], &record["looked_again"]),
        (&json!("unknown"), &json!("unknown"))
    );
    assert!(record["recoverable_until"].is_null());
    assert!(
        record["error"]
            .as_str()
            .unwrap()
            .contains("ec2:ListImagesInRecycleBin")
    );
}

#[tokio::test(crate = "crate::virtual_time")]
async fn without_a_recycle_bin_rule_the_record_does_not_promise_a_way_back() {
    let settings = Settings {
        wait: Duration::from_millis(300),
        ..Settings::default()
    };
    let harness = Harness::with(expecting("Windows"), settings).await;
    harness.sim.world().recycle_bin_rules.clear();
    let record = harness.record(registered()).await;
    assert_eq!(
        (&record["outcome"], &record["recycle_bin"]),
        (&json!("done"), &json!("absent"))
    );
    assert!(record["undo"].is_null() && record["recoverable_until"].is_null());
    // And people, who were promised one, are told.
    assert_eq!(harness.told(), ["planned", "done"]);
    let letter = harness.sim.world().messages[1].body("email");
    assert!(letter.contains("is NOT in the Recycle Bin"), "{letter}");
}

/// Runs the guard, and changes the image while CreateTags is under way.
async fn with_a_change_on_the_way(
    image: Image,
    change: impl FnOnce(&mut World),
) -> (Harness, Value) {
    let harness = Harness::of(image).await;
    harness.inject(Fault::nth(
        "CreateTags",
        1,
        FaultKind::Slow(Duration::from_millis(500)),
    ));
    let guard = Arc::clone(&harness.guard);
    let run = tokio::spawn(async move { guard.handle(registered(), in_a_minute()).await });
    while harness
        .sim
        .calls()
        .iter()
        .all(|call| call.action != "CreateTags")
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    change(&mut harness.sim.world());
    let record = json!(run.await.unwrap().unwrap());
    (harness, record)
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_tag_that_changes_between_judgement_and_act_stops_the_discard() {
    let (harness, record) = with_a_change_on_the_way(expecting("Windows"), |world| {
        let image = world.images.get_mut(AMI).unwrap();
        image
            .tags
            .insert("ami-billing-guard:expect".into(), "Linux".into());
    })
    .await;
    assert_eq!(
        (&record["verdict"], &record["action"]),
        (&json!("verified"), &json!("none"))
    );
    assert_eq!(
        harness.calls(),
        [
            "DescribeImages",
            AROUND[0],
            AROUND[1],
            AROUND[2],
            AROUND[3],
            "CreateTags",
            "DescribeImages",
            "CreateTags"
        ]
    );
    assert!(harness.image_stands());
    let world = harness.sim.world();
    assert_eq!(
        world.images[AMI].tags["ami-billing-guard:discard"],
        "withdrawn"
    );
    assert_eq!(
        world.images[AMI].tags["ami-billing-guard:verdict"],
        "verified"
    );
}

#[tokio::test(crate = "crate::virtual_time")]
async fn protection_that_comes_between_judgement_and_act_holds_the_discard() {
    let (harness, record) = with_a_change_on_the_way(expecting("Windows"), |world| {
        let image = world.images.get_mut(AMI).unwrap();
        image.deregistration_protection = Some("enabled-without-cooldown".into());
    })
    .await;
    assert_eq!(record["held_by"], json!(["protected"]));
    assert_eq!(harness.alerts().len(), 1);
    assert!(harness.image_stands());
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_image_that_somebody_deregisters_on_the_way_is_gone() {
    let harness = Harness::of(expecting("Windows")).await;
    harness.inject(Fault::nth(
        "CreateTags",
        1,
        refuse("InvalidAMIID.Unavailable", "gone"),
    ));
    assert_eq!(
        harness.give(registered()).await.unwrap_err().error_type(),
        "NotVisibleYet"
    );
    assert!(harness.alerts().is_empty());
}

#[tokio::test(crate = "crate::virtual_time")]
async fn without_time_left_no_discard_is_begun() {
    let harness = Harness::of(expecting("Windows")).await;
    let soon = Deadline::now() + Duration::from_secs(10);
    let error = harness.guard.handle(registered(), soon).await.unwrap_err();
    assert_eq!(error.error_type(), "OutOfTime");
    assert_eq!(harness.calls(), HELD[..5]);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_answer_that_does_not_come_ends_before_the_invocation_does() {
    let harness = Harness::of(expecting("Windows")).await;
    harness.inject(Fault::always(
        "DescribeImages",
        FaultKind::Slow(Duration::from_secs(60)),
    ));
    let soon = Deadline::now() + Duration::from_millis(2_500);
    let error = harness.guard.handle(registered(), soon).await.unwrap_err();
    assert_eq!(error.error_type(), "OutOfTime");
}

fn batch(bodies: &[String]) -> Value {
    let messages = bodies.iter().enumerate().map(|(n, body)| {
        json!({ "messageId": format!("m-{n}"), "receiptHandle": "r", "body": body, "eventSource": "aws:sqs" })
    });
    json!({ "Records": messages.collect::<Vec<_>>() })
}

#[tokio::test(crate = "crate::virtual_time")]
async fn of_a_batch_only_the_failed_messages_come_back() {
    let harness = Harness::of(expecting("Windows")).await;
    let mut other = registered();
    other["detail"]["responseElements"]["imageId"] = json!("ami-0a1b2c3d4e5f69999");
    let mut ignored = registered();
    ignored["account"] = json!("210987654321");
    let answer = harness
        .record(batch(&[
            registered().to_string(),
            "{\"cut\": ".into(),
            ignored.to_string(),
            other.to_string(), // an image that EC2 does not know yet
        ]))
        .await;
    assert_eq!(
        answer,
        json!({ "batchItemFailures": [{ "itemIdentifier": "m-1" }, { "itemIdentifier": "m-3" }] })
    );
    assert!(!harness.image_stands());
    assert_eq!(harness.journal.lock().unwrap().len(), 2);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_batch_whose_messages_can_not_be_named_comes_back_whole() {
    let harness = Harness::of(expecting("Windows")).await;
    for input in [
        json!({ "Records": 7 }),
        json!({ "Records": [{ "body": registered().to_string() }] }),
    ] {
        assert_eq!(
            harness.give(input).await.unwrap_err().error_type(),
            "MalformedEvent"
        );
    }
    assert!(harness.calls().is_empty());
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_ignored_event_costs_no_call_and_is_on_record() {
    let harness = Harness::of(expecting("Windows")).await;
    let mut event = registered();
    event["detail"]["errorCode"] = json!("Client.DryRunOperation");
    let record = harness.record(event).await;
    assert_eq!(
        (&record["verdict"], &record["action"]),
        (&json!("ignored"), &json!("none"))
    );
    assert!(
        record["reason"]
            .as_str()
            .unwrap()
            .contains("DryRunOperation")
    );
    assert!(harness.calls().is_empty());
    assert_eq!(harness.journal.lock().unwrap().len(), 1);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn tags_that_an_event_claims_are_no_evidence() {
    let harness = Harness::of(image()).await;
    let mut event = registered();
    event["detail"]["requestParameters"] = json!({ "tagSpecificationSet": { "items": [
        { "resourceType": "image", "tags": [{ "key": "ami-billing-guard:expect", "value": "Windows" }] }
    ] } });
    assert_eq!(harness.record(event).await["verdict"], "unverifiable");
}

#[tokio::test(crate = "crate::virtual_time")]
async fn every_call_bears_the_guards_own_tag_keys_and_deletes_no_snapshot() {
    let harness = Harness::of(expecting("Windows")).await;
    harness.record(registered()).await;
    for call in harness.sim.calls() {
        assert_eq!(call.answer, Answer::Ok);
        for (name, value) in &call.params {
            if name.starts_with("Tag.") && name.ends_with(".Key") {
                assert!(value.starts_with("ami-billing-guard:"), "{value}");
            }
        }
        if call.action == "DeregisterImage" {
            let asked = call
                .params
                .get("DeleteAssociatedSnapshots")
                .map(String::as_str);
            assert_eq!(asked, Some("false"));
        }
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_not_found_while_the_image_stands_is_no_discard() {
    let harness = Harness::of(expecting("Windows")).await;
    harness.inject(Fault::always(
        "DeregisterImage",
        refuse("InvalidAMIID.NotFound", "Not here."),
    ));
    assert_eq!(
        harness.give(registered()).await.unwrap_err().error_type(),
        "Unavailable"
    );
    assert_eq!(harness.told(), ["planned", "failed"]);
    assert!(harness.image_stands());
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_a_denial_after_an_attempt_whose_answer_was_lost_is_a_discard() {
    let settings = Settings {
        wait: Duration::from_millis(300),
        ..Settings::default()
    };
    let harness = Harness::with(expecting("Windows"), settings).await;
    harness.inject(Fault::nth("DeregisterImage", 1, FaultKind::ResetAfter));
    // The tag by which IAM allows it is gone with the image.
    harness.inject(Fault::from_nth(
        "DeregisterImage",
        2,
        FaultKind::AccessDenied,
    ));
    let record = harness.record(registered()).await;
    assert_eq!(
        (&record["outcome"], &record["looked_again"]),
        (&json!("done"), &json!("gone"))
    );
    assert_eq!(harness.alerts().len(), 1);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_a_discard_that_time_cuts_off_is_on_record() {
    let harness = Harness::of(expecting("Windows")).await;
    harness.inject(Fault::always(
        "DeregisterImage",
        FaultKind::Slow(Duration::from_secs(60)),
    ));
    let deadline = Deadline::now() + Duration::from_millis(15_500);
    let error = harness
        .guard
        .handle(registered(), deadline)
        .await
        .unwrap_err();
    assert_eq!(error.error_type(), "OutOfTime");
    let journal = harness.journal.lock().unwrap();
    assert_eq!(journal[0]["outcome"], "failed");
    assert!(
        journal[0]["error"]
            .as_str()
            .unwrap()
            .contains("could not determine")
    );
    assert_eq!(harness.told(), ["planned", "failed"]);
}

/// An image that bears the guard's mark for an event.
fn marked_for(event_id: &str, image: Image) -> Image {
    let marked = tagged(image, "ami-billing-guard:discard", "true");
    tagged(marked, "ami-billing-guard:record", event_id)
}

const EVENT: &str = "7bf73129-1428-4cd3-a780-95db273d1602";

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_a_mark_that_an_earlier_delivery_left_is_taken_back() {
    let marked = marked_for(EVENT, expecting("Linux"));
    let harness = Harness::of(marked.clone()).await;
    assert_eq!(harness.record(registered()).await["verdict"], "verified");
    assert_eq!(harness.calls(), ["DescribeImages", "CreateTags"]);
    let tags = harness.sim.world().images[AMI].tags.clone();
    assert_eq!(tags["ami-billing-guard:discard"], "withdrawn");
    assert_eq!(tags["ami-billing-guard:verdict"], "verified");

    // Not to get rid of it is no reason not to judge.
    let harness = Harness::of(marked).await;
    harness.inject(Fault::always("CreateTags", FaultKind::AccessDenied));
    assert_eq!(harness.record(registered()).await["verdict"], "verified");
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_another_events_mark_and_that_of_a_held_discard_and_any_in_observe_mode_stay() {
    let observe = || Settings {
        mode: Mode::Observe,
        ..Settings::default()
    };
    let mut protected = marked_for(EVENT, expecting("Windows"));
    protected.deregistration_protection = Some("enabled-without-cooldown".into());
    for (image, settings) in [
        (
            marked_for("another", expecting("Linux")),
            Settings::default(),
        ),
        (protected, Settings::default()),
        (marked_for(EVENT, expecting("Linux")), observe()),
        (marked_for(EVENT, expecting("Windows")), observe()),
    ] {
        let harness = Harness::with(image, settings).await;
        harness.record(registered()).await;
        assert!(harness.calls().iter().all(|call| call != "CreateTags"));
        let world = harness.sim.world();
        assert_eq!(world.images[AMI].tags["ami-billing-guard:discard"], "true");
    }
}

/// A discard in which `action` answers too late from its `n`th call on.
async fn with_a_slow_look(action: &str, n: usize) -> (Harness, Value) {
    let harness = Harness::of(expecting("Windows")).await;
    let slow = FaultKind::Slow(Duration::from_secs(60));
    harness.inject(Fault::from_nth(action, n, slow));
    let deadline = Deadline::now() + Duration::from_millis(15_500);
    let answer = harness.guard.handle(registered(), deadline).await.unwrap();
    (harness, json!(answer))
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_a_slow_look_after_a_discard_does_not_turn_it_into_a_failure() {
    let (bin, images) = tokio::join!(
        with_a_slow_look("ListImagesInRecycleBin", 1),
        with_a_slow_look("DescribeImages", 3)
    );
    for ((harness, record), looked_again) in [(bin, "gone"), (images, "unknown")] {
        assert_eq!(record["outcome"], "done", "{record}");
        assert_eq!(record["looked_again"], looked_again, "{record}");
        assert_eq!(record["recycle_bin"], "unknown", "{record}");
        assert_eq!(harness.told(), ["planned"]);
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_a_verdict_that_nobody_could_be_told_of_is_on_record() {
    let extra = billing(
        expecting("Windows"),
        "Windows with SQL Server Web",
        "RunInstances:0202",
    );
    for (image, action) in [(extra, "alert"), (expecting("Windows"), "deregister")] {
        let harness = Harness::of(image).await;
        harness.inject(Fault::always("Publish", FaultKind::AccessDenied));
        assert_eq!(
            harness.give(registered()).await.unwrap_err().error_type(),
            "AccessDenied"
        );
        let journal = harness.journal.lock().unwrap();
        assert_eq!((journal.len(), &journal[0]["action"]), (1, &json!(action)));
        assert!(
            journal[0]["error"]
                .as_str()
                .unwrap()
                .contains("sns:Publish")
        );
        assert!(harness.image_stands());
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_a_lost_answer_is_cleared_up_also_while_ec2_still_lists_the_image() {
    let harness = Harness::of(expecting("Windows")).await;
    harness.sim.world().after_deregistration = Lingering {
        listed_for: 2,
        empty_for: None,
    };
    harness.inject(Fault::nth("DeregisterImage", 1, FaultKind::CutBody));
    harness.inject(Fault::from_nth(
        "DeregisterImage",
        2,
        refuse("OperationNotPermitted", "It is not there."),
    ));
    let record = harness.record(registered()).await;
    assert_eq!(record["outcome"], "done", "{record}");
    assert_eq!(harness.told(), ["planned"]);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_instance_store_image_is_promised_no_way_back_that_it_does_not_have() {
    let mut image = billing(image(), "", "");
    image.root_device_type = "instance-store".into();
    image.root_device_name = None;
    image.block_devices.clear();
    let harness = Harness::of(image).await;
    let record = harness.record(registered()).await;
    assert_eq!(
        (&record["outcome"], &record["undo"]),
        (&json!("done"), &Value::Null)
    );
    let letter = harness.mail(0);
    assert!(letter.contains("Its bundle in S3 stays"), "{letter}");
    assert!(
        !letter.contains("restore-image-from-recycle-bin"),
        "{letter}"
    );
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_an_answer_that_ends_early_is_no_answer_wherever_it_ends() {
    // With details, tags and protection that a shortened answer could lack.
    let mut image = billing(expecting("Windows"), "Windows", "RunInstances:0002");
    image.deregistration_protection = Some("enabled-without-cooldown".into());
    let settings = Settings {
        wait: Duration::ZERO,
        ..Settings::default()
    };
    let harness = Harness::with(image, settings).await;
    let mut kept = 1;
    let verified = loop {
        harness.sim.heal();
        harness.inject(Fault::always("DescribeImages", FaultKind::CutShort(kept)));
        match harness.give(registered()).await {
            Ok(record) => break record,
            Err(error) => assert_eq!(error.error_type(), "Unavailable", "{kept} bytes: {error}"),
        }
        assert!(kept < 100_000, "the answer never came whole");
        kept += 7;
    };
    assert_eq!(verified["verdict"], "verified", "{kept} bytes: {verified}");
    assert!(harness.calls().iter().all(|call| call == "DescribeImages"));
}
