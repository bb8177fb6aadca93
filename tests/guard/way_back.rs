//! The Recycle Bin rule that keeps discarded images: while it is not active, nothing is discarded, and nothing is lost.

use super::*;
use sim::RecycleBinRule;

const RULE: &str = RecycleBinRule::ID;
const IMAGES: [&str; 3] = [AMI, "ami-0a1b2c3d4e5f60002", "ami-0a1b2c3d4e5f60003"];

fn settings() -> Settings {
    Settings {
        recycle_bin_rule: Some(RULE),
        ..Settings::default()
    }
}

fn set_status(harness: &Harness, status: &str) {
    for rule in &mut harness.sim.world().recycle_bin_rules {
        rule.status = status.into();
    }
}

fn about(image: &str) -> Value {
    let mut event = registered();
    event["id"] = json!(format!("event-{image}"));
    event["detail"]["responseElements"]["imageId"] = json!(image);
    event
}

/// A harness with these Linux/UNIX images that are expected to be Windows.
async fn harness_with(images: &[&str], settings: Settings) -> Harness {
    let mut world = World::default();
    for id in images {
        let image = tagged(Image::new(*id), "ami-billing-guard:expect", "Windows");
        for snapshot in image.snapshot_ids() {
            world.add_snapshot(Snapshot::new(snapshot));
        }
        world.add_image(image);
    }
    Harness::around(world, settings).await
}

/// How often the rule was asked for.
fn asked(harness: &Harness) -> usize {
    let calls = harness.calls();
    calls.iter().filter(|call| *call == "GetRule").count()
}

fn last_record(harness: &Harness) -> Value {
    harness.journal.lock().unwrap().last().unwrap().clone()
}

/// How often each image was the subject of an alert with this action.
fn alerts_with(harness: &Harness, action: &str) -> Vec<usize> {
    let alerts = harness.alerts();
    let count = |image: &&str| {
        let about = alerts.iter().filter(|it| it["image_id"] == **image);
        about.filter(|it| it["action"] == action).count()
    };
    IMAGES.iter().map(count).collect()
}

#[tokio::test(crate = "crate::virtual_time")]
async fn while_the_rule_is_pending_a_discard_is_held_told_once_and_comes_back() {
    let harness = Harness::with(expecting("Windows"), settings()).await;
    set_status(&harness, "pending");
    for _ in 0..3 {
        let error = harness.give(registered()).await.unwrap_err();
        assert!(matches!(error, Error::NotFoundOut { .. }), "{error}");
        assert!(
            error
                .to_string()
                .contains(&format!("{RULE} is still pending")),
            "{error}"
        );
        let record = last_record(&harness);
        assert_eq!(
            (&record["action"], &record["held_by"]),
            (&json!("hold"), &json!(["no-way-back"]))
        );
    }
    assert_eq!(harness.alerts().len(), 1, "people are told once");
    assert_eq!(harness.alerts()[0]["held_by"], json!(["no-way-back"]));
    assert!(harness.image_stands());
    assert!(
        harness.sim.world().images[AMI]
            .tags
            .keys()
            .all(|key| !key.contains("discard"))
    );

    set_status(&harness, "available");
    let record = harness.record(registered()).await;
    assert_eq!(
        (&record["outcome"], &record["recycle_bin"]),
        (&json!("done"), &json!("in"))
    );
    assert!(record["recoverable_until"].is_string());
    assert!(harness.sim.world().recycle_bin.contains_key(AMI));
    assert_eq!(harness.told(), [json!(null), json!("planned")]);
}

/// After one image is lost, the guard must not lose another, although it saw the rule available before.
#[tokio::test(crate = "crate::virtual_time")]
async fn regression_when_the_recycle_bin_lacks_an_image_the_guard_asks_for_the_rule_again() {
    let harness = harness_with(&IMAGES, settings()).await;
    assert_eq!(harness.record(about(IMAGES[0])).await["recycle_bin"], "in");
    harness.sim.world().recycle_bin_rules.clear();
    let lost = harness.record(about(IMAGES[1])).await;
    assert_eq!(
        (&lost["outcome"], &lost["recycle_bin"]),
        (&json!("done"), &json!("absent"))
    );
    assert_eq!(asked(&harness), 1);

    let held = harness.record(about(IMAGES[2])).await;
    assert_eq!(
        (&held["action"], &held["held_by"]),
        (&json!("hold"), &json!(["no-way-back"]))
    );
    assert!(harness.sim.world().images.contains_key(IMAGES[2]));
    assert_eq!(asked(&harness), 2);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn mismatches_of_a_new_stack_are_discarded_when_its_rule_is_active_and_can_all_be_restored() {
    let harness = harness_with(&IMAGES, settings()).await;
    set_status(&harness, "pending");
    let batch = || {
        let message =
            |image: &&str| json!({ "messageId": *image, "body": about(image).to_string() });
        json!({ "Records": IMAGES.iter().map(message).collect::<Vec<_>>() })
    };
    // The queue brings them back every six minutes, for the half hour that a rule takes.
    for _ in 0..5 {
        super::ledger::minutes_pass(6).await;
        let answer = harness.give(batch()).await.unwrap();
        assert_eq!(answer["batchItemFailures"].as_array().unwrap().len(), 3);
    }
    assert_eq!(alerts_with(&harness, "hold"), [1, 1, 1]);
    assert_eq!(harness.alerts().len(), 3);
    assert_eq!(harness.sim.world().images.len(), 3);

    set_status(&harness, "available");
    let answer = harness.give(batch()).await.unwrap();
    assert_eq!(answer["batchItemFailures"], json!([]));
    assert_eq!(alerts_with(&harness, "deregister"), [1, 1, 1]);
    let world = harness.sim.world();
    assert!(world.images.is_empty());
    let binned: Vec<&str> = world.recycle_bin.keys().map(String::as_str).collect();
    assert_eq!(binned, IMAGES);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn what_needs_a_person_is_held_and_told_and_does_not_come_back() {
    let faults = [
        Some(FaultKind::AccessDenied),
        // There is no such rule.
        None,
    ];
    for fault in faults {
        let harness = Harness::with(expecting("Windows"), settings()).await;
        match &fault {
            Some(kind) => harness.inject(Fault::always("GetRule", kind.clone())),
            None => harness.sim.world().recycle_bin_rules.clear(),
        }
        let record = harness.record(registered()).await;
        assert_eq!(
            (&record["action"], &record["held_by"]),
            (&json!("hold"), &json!(["no-way-back"])),
            "{fault:?}"
        );
        let error = record["error"].as_str().unwrap();
        let word = match &fault {
            Some(_) => "rbin:GetRule on JSzDHyLPHm0 is missing",
            None => "ResourceNotFoundException",
        };
        assert!(error.contains(word), "{error}");
        assert_eq!(harness.alerts().len(), 1);
        assert!(harness.image_stands());
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn no_answer_that_may_come_the_next_time_brings_the_event_back() {
    for fault in [
        FaultKind::Throttle,
        FaultKind::InternalError,
        FaultKind::ResetBefore,
        FaultKind::CutShort(40),
    ] {
        let harness = Harness::with(expecting("Windows"), settings()).await;
        harness.inject(Fault::always("GetRule", fault.clone()));
        for _ in 0..2 {
            let error = harness.give(registered()).await.unwrap_err();
            assert!(
                matches!(error, Error::NotFoundOut { .. }),
                "{fault:?}: {error}"
            );
            assert!(error.to_string().contains("rbin:GetRule"), "{error}");
        }
        assert_eq!(last_record(&harness)["held_by"], json!(["no-way-back"]));
        assert_eq!(harness.alerts().len(), 1, "{fault:?}");
        harness.sim.heal();
        assert_eq!(harness.record(registered()).await["outcome"], "done");
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn what_else_holds_a_discard_keeps_its_event_from_coming_back() {
    let harness = Harness::with(expecting("Windows"), settings()).await;
    set_status(&harness, "pending");
    harness
        .sim
        .world()
        .images
        .get_mut(AMI)
        .unwrap()
        .deregistration_protection = Some("enabled-without-cooldown".into());
    let record = harness.record(registered()).await;
    assert_eq!(record["held_by"], json!(["no-way-back", "protected"]));
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_rule_that_is_available_is_asked_for_once_in_a_process() {
    let harness = harness_with(&IMAGES, settings()).await;
    for image in IMAGES {
        assert_eq!(harness.record(about(image)).await["outcome"], "done");
    }
    assert_eq!(asked(&harness), 1);
    // It is one of the looks around an image, before anything is done.
    let calls = harness.calls();
    let position = |name: &str| calls.iter().position(|call| call == name).unwrap();
    assert!(position("GetRule") < position("CreateTags"));
}

#[tokio::test(crate = "crate::virtual_time")]
async fn images_of_one_batch_ask_once_also_while_the_rule_is_pending() {
    let harness = harness_with(&IMAGES, settings()).await;
    set_status(&harness, "pending");
    harness.inject(Fault::always(
        "GetRule",
        FaultKind::Slow(Duration::from_millis(300)),
    ));
    let message = |image: &&str| json!({ "messageId": *image, "body": about(image).to_string() });
    let batch = json!({ "Records": IMAGES.iter().map(message).collect::<Vec<_>>() });
    harness.give(batch).await.unwrap();
    assert_eq!(asked(&harness), 1);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn where_no_rule_is_set_none_is_asked_for_nor_where_images_are_disabled_or_nothing_is_wrong()
{
    let harness = Harness::of(expecting("Windows")).await;
    assert_eq!(harness.record(registered()).await["outcome"], "done");
    assert_eq!(asked(&harness), 0);

    let disables = Settings {
        recycle_bin_rule: Some(RULE),
        ..Settings::policy("discard.action = \"disable\"")
    };
    let harness = Harness::with(expecting("Windows"), disables).await;
    set_status(&harness, "pending");
    let record = harness.record(registered()).await;
    assert_eq!(
        (&record["action"], &record["outcome"]),
        (&json!("disable"), &json!("done"))
    );
    assert_eq!(asked(&harness), 0);

    let right = billing(expecting("Windows"), "Windows", "RunInstances:0002");
    let harness = Harness::with(right, settings()).await;
    assert_eq!(harness.record(registered()).await["verdict"], "verified");
    assert_eq!(asked(&harness), 0);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn the_self_test_reports_the_rule() {
    async fn check(change: impl FnOnce(&Harness)) -> (Value, String) {
        let harness = Harness::with(
            image(),
            Settings {
                ledger_table: Some("ami-billing-guard"),
                ..settings()
            },
        )
        .await;
        change(&harness);
        let report = harness.give(json!({ "self-test": true })).await.unwrap();
        let checks = report["checks"].as_array().unwrap();
        let check = checks.iter().find(|it| it["check"] == "recycle-bin-rule");
        let check = check.unwrap();
        (
            json!([check["state"], report["ok"]]),
            check["found"].as_str().unwrap().to_owned(),
        )
    }
    let (state, found) = check(|_| {}).await;
    assert_eq!(
        (state, found.as_str()),
        (json!(["ok", true]), "JSzDHyLPHm0 is available")
    );

    let (state, found) = check(|harness| set_status(harness, "pending")).await;
    assert_eq!(state, json!(["unknown", true]));
    assert!(
        found.contains("is pending, and the guard holds discards"),
        "{found}"
    );

    let (state, found) = check(|harness| harness.sim.world().recycle_bin_rules.clear()).await;
    assert_eq!(state, json!(["failed", false]));
    assert!(found.contains("ResourceNotFoundException"), "{found}");

    let denied = Fault::always("GetRule", FaultKind::AccessDenied);
    let (state, found) = check(|harness| harness.inject(denied)).await;
    assert_eq!(state, json!(["failed", false]));
    assert!(
        found.contains("rbin:GetRule on JSzDHyLPHm0 is missing"),
        "{found}"
    );
}

/// The template's rule keeps images for thirty days.
#[tokio::test(crate = "crate::virtual_time")]
async fn for_thirty_days_a_discarded_image_can_be_restored_and_one_that_was_is_not_discarded_again()
{
    let hour = TimeDelta::hours(1);
    for (sooner, comes_back) in [(hour, true), (-hour, false)] {
        let with_table = Settings {
            ledger_table: Some(super::ledger::TABLE),
            ..settings()
        };
        let harness = Harness::with(expecting("Windows"), with_table).await;
        let record = harness.record(registered()).await;
        let until = record["recoverable_until"].as_str().unwrap();
        let until = chrono::DateTime::parse_from_rfc3339(until)
            .unwrap()
            .to_utc();
        assert_eq!((until - now()).num_hours(), 30 * 24 - 1, "{record}");

        super::ledger::minutes_pass((until - sooner - now()).num_minutes().unsigned_abs()).await;
        let aws = Aws::in_process(harness.sim.client(), "eu-west-1", CLOCK).await;
        let restored = aws.bring_back(&AMI.parse().unwrap(), false).await;
        assert_eq!(restored.is_ok(), comes_back, "{restored:?}");
        if comes_back {
            let record = harness
                .record(became_available_at(now() - TimeDelta::minutes(11)))
                .await;
            assert!(
                super::ledger::is_held_as_discarded_before(&record),
                "{record}"
            );
        }
        assert_eq!(harness.image_stands(), comes_back);
    }
}
