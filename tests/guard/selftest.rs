//! The self-test: what it finds, and that it changes nothing.

use super::alerts::CHAT;
use super::*;
use sim::Topic;

const LEDGER: &str = "ami-billing-guard";

fn settings() -> Settings {
    Settings {
        ledger_table: Some(LEDGER),
        ..Settings::default()
    }
}

async fn report(harness: &Harness) -> Value {
    harness.give(json!({ "self-test": true })).await.unwrap()
}

/// The states of the checks, by their names.
fn states(report: &Value) -> std::collections::BTreeMap<String, String> {
    let checks = report["checks"].as_array().unwrap();
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    checks
        .iter()
        .map(|check| (word(&check["check"]), word(&check["state"])))
        .collect()
}

fn found(report: &Value, name: &str) -> String {
    let checks = report["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["check"] == name).unwrap();
    check["found"].as_str().unwrap().to_owned()
}

#[tokio::test(crate = "crate::virtual_time")]
async fn where_all_is_as_it_should_be_the_self_test_says_so_and_changes_nothing() {
    let marked = tagged(image(), "ami-billing-guard:discard", "true");
    let mut world = World::default();
    for snapshot in marked.snapshot_ids() {
        world.add_snapshot(Snapshot::new(snapshot));
    }
    world.add_image(marked);
    let harness = Harness::with_chat(world, settings()).await;
    let before = format!("{:?}", harness.sim.world().images);
    let report = report(&harness).await;

    assert_eq!(report["ok"], true, "{report:#}");
    assert_eq!(
        (&report["self-test"], &report["mode"]),
        (&json!(true), &json!("enforce"))
    );
    assert_eq!(report["policy"]["action"], "deregister");
    let states = states(&report);
    assert!(states.values().all(|state| state == "ok"), "{states:?}");
    for check in [
        "alert-topic",
        "chat-topic",
        "ledger",
        "ec2:DescribeImages",
        "ec2:DeregisterImage",
        "ec2:DescribeImageReferences",
        "look-up:image",
        "look-up:root-snapshot",
        "look-up:own-images",
        "look-up:published-images",
    ] {
        assert!(states.contains_key(check), "{check}");
    }
    // From the server's side: whatever could change something was a dry run, and took no effect.
    for call in harness.sim.calls() {
        let dry = call.params.get("DryRun").is_some_and(|dry| dry == "true");
        assert!(
            dry || looks(&call.action) || call.action == "UpdateItem",
            "{call:?}"
        );
    }
    let world = harness.sim.world();
    assert_eq!(format!("{:?}", world.images), before);
    assert!(world.messages.is_empty());
    assert!(world.tables[LEDGER].items.is_empty());
}

/// What was found out with a call took so long; a dry run is not measured, as it is not what is done later.
#[tokio::test(crate = "crate::virtual_time")]
async fn the_self_test_measures_its_look_ups_and_warns_of_slow_ones() {
    let harness = Harness::of(image()).await;
    let own = ("Owner.1", "self");
    let slow = FaultKind::Slow(Duration::from_millis(2_500));
    harness.inject(Fault::always("DescribeImages", slow).with(own.0, own.1));
    let report = report(&harness).await;
    let states = states(&report);
    assert_eq!(states["look-up:own-images"], "slow", "{report:#}");
    assert!(
        found(&report, "look-up:own-images").contains("usually takes at most 2"),
        "{report:#}"
    );
    let checks = report["checks"].as_array().unwrap();
    for check in checks {
        let name = check["check"].as_str().unwrap();
        let measured = name.starts_with("look-up:") || name.ends_with("References");
        if measured {
            assert!(check["took_ms"].is_u64(), "{check}");
        }
    }
    let own = checks.iter().find(|it| it["check"] == "look-up:own-images");
    assert!(own.unwrap()["took_ms"].as_u64().unwrap() >= 2_500);
    // A warning is no failure of the guard's (its ledger is in memory here, and that is one).
    let failed: Vec<_> = states.iter().filter(|(_, it)| *it == "failed").collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
}

/// References are looked up of a real image, as they are before a discard: EC2 looks for the image before it asks what
/// the caller may do.
#[tokio::test(crate = "crate::virtual_time")]
async fn the_self_test_asks_what_refers_to_a_real_image_by_the_resource_types_of_the_role() {
    let harness = Harness::of(image()).await;
    report(&harness).await;
    let calls = harness.sim.calls();
    let asked: Vec<_> = calls
        .iter()
        .filter(|call| call.action == "DescribeImageReferences")
        .collect();
    assert_eq!(asked.len(), 1);
    let params = &asked[0].params;
    assert_eq!(params["ImageId.1"], AMI);
    assert!(!params.contains_key("DryRun") && !params.contains_key("IncludeAllResourceTypes"));
    assert_eq!(
        params["ResourceType.5.ResourceType"],
        "imagebuilder:ContainerRecipe"
    );
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_alert_goes_out_only_if_it_is_asked_for_and_says_that_it_is_a_test() {
    let harness = Harness::of(image()).await;
    let report = harness
        .give(json!({ "self-test": true, "alert": true }))
        .await
        .unwrap();
    assert_eq!(states(&report)["alert"], "ok");
    let messages = harness.published_on(TOPIC);
    assert_eq!(messages.len(), 1);
    assert!(messages[0].body("email").contains("Nothing is wrong"));
    assert_eq!(messages[0].attributes["verdict"].value, "self-test");

    harness.inject(Fault::always("Publish", FaultKind::AccessDenied));
    let report = harness
        .give(json!({ "self-test": true, "alert": true }))
        .await
        .unwrap();
    assert_eq!(
        (&report["ok"], states(&report)["alert"].as_str()),
        (&json!(false), "failed")
    );
}

#[tokio::test(crate = "crate::virtual_time")]
async fn whether_chat_can_be_told_is_a_check_of_its_own() {
    let harness = Harness::with_chat(World::default(), settings()).await;
    harness.inject(Fault::nth("Publish", 2, FaultKind::AccessDenied));
    let report = harness
        .give(json!({ "self-test": true, "alert": true }))
        .await
        .unwrap();
    let states = states(&report);
    assert_eq!(
        (states["alert"].as_str(), states["chat"].as_str()),
        ("ok", "failed")
    );
    assert_eq!(report["ok"], false);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn what_is_missing_is_named() {
    let harness = Harness::with_chat(World::default(), settings()).await;
    {
        let mut world = harness.sim.world();
        world.add_image(image());
        let nobody = Topic {
            confirmed: 0,
            pending: 1,
        };
        world.topics.insert(TOPIC.into(), nobody);
        world.topics.remove(CHAT);
        world.tables.remove(LEDGER);
    }
    for call in ["CreateTags", "DescribeVolumes", "DescribeImageReferences"] {
        harness.inject(Fault::always(call, FaultKind::AccessDenied));
    }
    let report = report(&harness).await;
    assert_eq!(report["ok"], false);
    let states = states(&report);
    let failed: Vec<&str> = states
        .iter()
        .filter(|(_, state)| *state == "failed")
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(
        failed,
        [
            "alert-topic",
            "chat-topic",
            "ec2:CreateTags",
            "ec2:DescribeImageReferences",
            "ec2:DescribeVolumes",
            "ledger"
        ]
    );
    assert!(found(&report, "alert-topic").contains("reach no one"));
    assert!(
        found(&report, "ledger").contains("ResourceNotFoundException"),
        "{report:#}"
    );
    assert!(found(&report, "ec2:CreateTags").contains("missing on ami-"));
}

#[tokio::test(crate = "crate::virtual_time")]
async fn that_an_unmarked_image_may_not_be_discarded_is_no_fault_and_proves_nothing() {
    let harness = Harness::with_chat(World::default(), settings()).await;
    harness.sim.world().add_image(image());
    for call in ["DeregisterImage", "DisableImage"] {
        harness.inject(Fault::always(call, FaultKind::AccessDenied));
    }
    let report = report(&harness).await;
    assert_eq!(report["ok"], true, "{report:#}");
    let states = states(&report);
    assert_eq!(states["ec2:DeregisterImage"], "unknown");
    assert!(found(&report, "ec2:DeregisterImage").contains("as intended"));

    // Of one that is marked, it is.
    let marked = tagged(image(), "ami-billing-guard:discard", "true");
    harness.sim.world().add_image(marked);
    let report = self::report(&harness).await;
    assert_eq!(self::states(&report)["ec2:DeregisterImage"], "failed");
}

#[tokio::test(crate = "crate::virtual_time")]
async fn without_an_image_of_its_own_what_concerns_images_is_not_known() {
    let harness = Harness::around(World::default(), settings()).await;
    let report = report(&harness).await;
    assert_eq!(report["ok"], true);
    assert_eq!(states(&report)["ec2:CreateTags"], "unknown");
    assert!(found(&report, "ec2:CreateTags").contains("no image of its own"));
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_order_that_says_something_else_is_refused_and_nothing_is_looked_at() {
    let harness = Harness::of(image()).await;
    for order in [
        json!({ "self-test": false }),
        json!({ "self-test": "yes" }),
        json!({ "self-test": true, "alrt": true }),
        json!({ "self-test": true, "alert": "yes" }),
    ] {
        let error = harness.give(order.clone()).await.unwrap_err();
        assert_eq!(error.error_type(), "MalformedEvent");
        assert!(
            error
                .to_string()
                .contains("Accepted: {\"self-test\": true}"),
            "{error}"
        );
    }
    assert!(harness.calls().is_empty());
}

#[tokio::test(crate = "crate::virtual_time")]
async fn in_memory_the_ledger_of_an_enforcing_guard_is_no_ledger() {
    let harness = Harness::of(image()).await;
    assert_eq!(states(&report(&harness).await)["ledger"], "failed");
    let harness = Harness::with(
        image(),
        Settings {
            mode: Mode::Observe,
            ..Settings::default()
        },
    )
    .await;
    assert_eq!(states(&report(&harness).await)["ledger"], "ok");
}

async fn harness_with_a_chat() -> Harness {
    let mut world = World::default();
    world.add_image(expecting("Windows"));
    Harness::with_chat(world, settings()).await
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_chat_that_can_not_be_told_or_hangs_keeps_nothing_from_being_done() {
    for fault in [
        FaultKind::AccessDenied,
        FaultKind::InternalError,
        FaultKind::Slow(Duration::from_secs(30)),
    ] {
        let harness = harness_with_a_chat().await;
        // The first message is the alert topic's.
        harness.inject(Fault::from_nth("Publish", 2, fault.clone()));
        let record = harness.record(registered()).await;
        assert_eq!(record["outcome"], "done", "{fault:?}");
        assert_eq!(harness.told(), ["planned"]);
        // Nothing waited for chat but the answer: EC2 was asked, and has done it, before chat was given up.
        let calls = harness.calls();
        let position = |name: &str| calls.iter().position(|call| call == name).unwrap();
        let publishes = calls.iter().filter(|call| *call == "Publish").count();
        assert!(publishes >= 2 && position("DeregisterImage") > position("Publish"));
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_chat_hears_nothing_that_the_alert_topic_did_not_take() {
    let harness = harness_with_a_chat().await;
    harness.inject(Fault::nth("Publish", 1, FaultKind::AccessDenied));
    harness.give(registered()).await.unwrap_err();
    assert!(harness.image_stands());
    assert!(harness.published_on(CHAT).is_empty());
}
