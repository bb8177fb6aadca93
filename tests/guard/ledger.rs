//! What the ledger is for: the same event twice, two triggers, a crash at any point, people who bring an image
//! back, and a limit. Each holds with the table and in memory, unless it is about the table's calls.

use super::*;
use sim::{BlockDevice, Table};
use tokio::task::JoinSet;

pub(super) const TABLE: &str = "ami-billing-guard";

/// With the ledger in a table, and in memory.
const LEDGERS: [Option<&str>; 2] = [Some(TABLE), None];

pub(super) fn with(ledger: Option<&'static str>, policy: &str) -> Settings {
    Settings {
        ledger_table: ledger,
        wait: Duration::from_millis(300),
        // So nobody has to wait until an image that stands after its discard counts as brought back.
        settle: Duration::ZERO,
        ..Settings::policy(policy)
    }
}

/// A harness with the ledger in a table.
async fn harness_with_table(image: Image) -> Harness {
    Harness::with(image, with(Some(TABLE), "")).await
}

/// The AMI's item in the ledger.
fn item(harness: &Harness) -> Value {
    let world = harness.sim.world();
    json!(world.tables[TABLE].items[&format!("123456789012#eu-west-1#{AMI}")])
}

/// Six minutes pass, after which the queue brings an event back: whoever had the turn of an image is cut off by then.
pub(super) async fn turns_end() {
    minutes_pass(6).await;
}

pub(super) async fn minutes_pass(minutes: u64) {
    tokio::time::sleep(Duration::from_secs(60 * minutes)).await;
}

/// Gives the same event again, once whoever had the turn of the image is cut off.
async fn again(harness: &Harness) -> Result<Value, Error> {
    turns_end().await;
    harness.sim.heal();
    harness.give(registered()).await
}

/// And once more, when an image that EC2 does not show is not just one that it does not show yet.
async fn again_later(harness: &Harness) -> Result<Value, Error> {
    turns_end().await;
    harness.sim.heal();
    harness
        .give(registered_at(now() - TimeDelta::minutes(11)))
        .await
}

/// People change the image.
fn change(harness: &Harness, change: impl FnOnce(&mut Image)) {
    change(harness.sim.world().images.get_mut(AMI).unwrap());
}

pub(super) fn is_held_as_discarded_before(record: &Value) -> bool {
    let held_by = record["held_by"].as_array().unwrap();
    record["action"] == "hold" && held_by.contains(&json!("discarded-before"))
}

/// Somebody takes the image out of the Recycle Bin.
pub(super) fn restore(harness: &Harness) {
    let mut world = harness.sim.world();
    let binned = world.recycle_bin.remove(AMI).unwrap();
    world.deregistered.remove(AMI);
    world.add_image(binned.image);
}

pub(super) fn discards(harness: &Harness) -> usize {
    let calls = harness.calls();
    let deeds = ["DeregisterImage", "DisableImage"];
    calls
        .iter()
        .filter(|call| deeds.contains(&call.as_str()))
        .count()
}

/// The first attempt counts and its answer is lost, the SDK's second one meets another transaction: whoever tries again has
/// to say that it is the same reservation.
#[tokio::test(crate = "crate::virtual_time")]
async fn a_reservation_whose_answer_was_lost_and_that_met_a_conflict_counts_once() {
    let harness = harness_with_table(expecting("Windows")).await;
    for (attempt, fault) in [
        (1, FaultKind::ResetAfter),
        (2, FaultKind::TransactionConflict),
    ] {
        harness.inject(Fault::nth("TransactWriteItems", attempt, fault));
    }
    assert_eq!(harness.record(registered()).await["outcome"], "done");
    let world = harness.sim.world();
    let mut of_hours = world.tables[TABLE].items.iter();
    let of_hour = of_hours.find(|(id, _)| id.starts_with("hour#"));
    assert_eq!(json!(of_hour.unwrap().1)["begun"], json!({ "N": "1" }));
    let attempts = harness.sim.calls();
    let attempts = attempts
        .iter()
        .filter(|call| call.action == "TransactWriteItems");
    assert_eq!(attempts.count(), 3);
}

/// EC2 says no, and then that there is no such image, as another of its servers may: it proves nothing.
#[tokio::test(crate = "crate::virtual_time")]
async fn an_image_that_is_not_found_after_a_refusal_does_not_pass_for_discarded() {
    let refused = || {
        Fault::always(
            "DeregisterImage",
            refuse("OperationNotPermitted", "it is not allowed"),
        )
    };
    let harness = Harness::of(expecting("Windows")).await;
    harness.inject(refused());
    assert_eq!(harness.record(registered()).await["outcome"], "refused");
    let calls = harness.calls();
    let before = calls.iter().take_while(|call| *call != "DeregisterImage");
    let looks = before.filter(|call| *call == "DescribeImages").count();

    let harness = Harness::of(expecting("Windows")).await;
    harness.inject(refused());
    let not_found = refuse("InvalidAMIID.NotFound", "The image id does not exist");
    harness.inject(Fault::nth("DescribeImages", looks + 1, not_found));
    let record = harness.record(registered()).await;
    assert!(harness.sim.was_called(
        |call| matches!(call.answer, Answer::Fault(_)) && call.action == "DescribeImages"
    ));
    assert_eq!(record["outcome"], "refused", "{record}");
    assert!(record["looked_again"].is_null() && harness.image_stands());
}

/// Takes the mark off the image as soon as it is there, for so long: EC2 shows tags late at times (EC2 Developer Guide,
/// "Eventual consistency in the Amazon EC2 API"). Whether people heard of a discard meanwhile, and whether the image
/// still exists.
async fn shows_its_mark_late(harness: &Harness, by: Duration) -> (bool, bool) {
    const MARK: &str = "ami-billing-guard:discard";
    let slow = FaultKind::Slow(Duration::from_millis(50));
    harness.inject(Fault::nth("CreateTags", 1, slow));
    let is_marked = || harness.sim.world().images[AMI].tags.contains_key(MARK);
    while !is_marked() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    change(harness, |image| drop(image.tags.remove(MARK)));
    tokio::time::sleep(by).await;
    let seen = (!harness.alerts().is_empty(), harness.image_stands());
    change(harness, |image| {
        drop(image.tags.insert(MARK.into(), "true".into()))
    });
    seen
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_discard_is_announced_and_done_only_when_its_mark_shows() {
    let harness = Harness::of(expecting("Windows")).await;
    let late = shows_its_mark_late(&harness, Duration::from_secs(1));
    let (record, meanwhile) = tokio::join!(harness.record(registered()), late);
    assert_eq!(meanwhile, (false, true));
    assert_eq!(record["outcome"], "done");
    assert!(!harness.image_stands());
}

#[tokio::test(crate = "crate::virtual_time")]
async fn where_the_mark_does_not_show_in_time_the_event_comes_again_and_nothing_is_said() {
    let harness = Harness::of(expecting("Windows")).await;
    let late = shows_its_mark_late(&harness, Duration::from_secs(20));
    let (answer, meanwhile) = tokio::join!(harness.give(registered()), late);
    assert_eq!(meanwhile, (false, true));
    let error = answer.unwrap_err().to_string();
    assert!(
        error.contains("ami-billing-guard:discard was written, and EC2 does not show it"),
        "{error}"
    );
    assert_eq!(harness.record(registered()).await["outcome"], "done");
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_discard_is_reserved_before_anything_is_touched_and_noted_right_before_it_is_done() {
    let harness = harness_with_table(expecting("Windows")).await;
    harness.record(registered()).await;
    let mut calls = harness.calls();
    calls.retain(|call| !looks(call) || call == "ListImagesInRecycleBin");
    assert_eq!(
        calls,
        [
            "UpdateItem",
            "TransactWriteItems",
            "CreateTags",
            "Publish",
            "UpdateItem",
            "UpdateItem",
            "DeregisterImage",
            "ListImagesInRecycleBin",
            "UpdateItem",
        ]
    );
    let kept: Value =
        serde_json::from_str(item(&harness)["discard"]["S"].as_str().unwrap()).unwrap();
    assert_eq!(kept, *harness.journal.lock().unwrap().last().unwrap());
    assert_eq!(kept["rebuild"]["register_image"]["Name"], AMI);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_verified_image_is_on_record_and_costs_one_call_of_ec2() {
    let image = billing(expecting("Windows"), "Windows", "RunInstances:0002");
    let harness = harness_with_table(image).await;
    harness.record(registered()).await;
    assert_eq!(
        harness.calls(),
        ["DescribeImages", "UpdateItem", "UpdateItem"]
    );
    let record: Value =
        serde_json::from_str(item(&harness)["record"]["S"].as_str().unwrap()).unwrap();
    assert_eq!(record["verdict"], "verified");
}

#[tokio::test(crate = "crate::virtual_time")]
async fn the_same_event_five_times_at_once_gives_one_discard_and_one_alert() {
    for ledger in LEDGERS {
        let harness = Harness::with(expecting("Windows"), with(ledger, "")).await;
        let mut tasks = JoinSet::new();
        for _ in 0..5 {
            let guard = Arc::clone(&harness.guard);
            tasks.spawn(async move { guard.handle(registered(), in_a_minute()).await });
        }
        for answer in tasks.join_all().await {
            match answer {
                Ok(_) => {}
                Err(error) => {
                    let comes_again = ["Busy", "NotVisibleYet"];
                    assert!(comes_again.contains(&error.error_type()), "{error}");
                }
            }
        }
        assert_eq!((discards(&harness), harness.alerts().len()), (1, 1));
        assert!(!harness.image_stands());
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn two_triggers_for_one_image_give_one_discard_and_one_alert_whichever_comes_first() {
    let state_change = || became_available_at(now() - TimeDelta::minutes(6));
    for ledger in LEDGERS {
        let harness = Harness::with(expecting("Windows"), with(ledger, "")).await;
        let error = harness.give(state_change()).await.unwrap_err();
        assert_eq!(error.error_type(), "IdentityMayCome");
        assert_eq!(harness.alerts().len(), 0);
        harness.record(registered()).await;
        let gone = harness.record(became_available()).await;
        assert_eq!(gone["verdict"], "gone");
        assert_eq!((discards(&harness), harness.alerts().len()), (1, 1));

        let harness = Harness::with(expecting("Windows"), with(ledger, "")).await;
        let (one, other) = tokio::join!(harness.give(registered()), harness.give(state_change()));
        for answer in [&one, &other] {
            if let Err(error) = answer {
                let comes_again = ["Busy", "IdentityMayCome", "NotVisibleYet"];
                assert!(comes_again.contains(&error.error_type()), "{error}");
            }
        }
        // Whichever was shut out comes again.
        harness
            .give(registered_at(now() - TimeDelta::minutes(12)))
            .await
            .unwrap();
        harness.record(became_available()).await;
        assert_eq!((discards(&harness), harness.alerts().len()), (1, 1));
    }
}

/// A queue with a backlog gives both events of an image in one batch, or in two at once.
#[tokio::test(crate = "crate::virtual_time")]
async fn regression_both_events_of_twenty_images_at_once_give_one_discard_and_one_alert_each() {
    let ids: Vec<String> = (0..20)
        .map(|n| format!("ami-0a1b2c3d4e5f7{n:04x}"))
        .collect();
    let mut world = World::default();
    for id in &ids {
        let mut image = expecting("Windows");
        image.id = id.clone();
        let snapshot = id.replace("ami-", "snap-");
        image.block_devices[0].snapshot_id = Some(snapshot.clone());
        world.add_snapshot(Snapshot::new(snapshot));
        world.add_image(image);
    }
    let settings = with(Some(TABLE), "[discard]\nmax_per_hour = 100");
    let harness = Harness::around(world, settings).await;
    let events = |id: &str, minutes: i64| {
        let time = now() - TimeDelta::minutes(minutes);
        let (mut changed, mut registered) = (became_available_at(time), registered_at(time));
        changed["detail"]["ImageId"] = id.into();
        registered["detail"]["responseElements"]["imageId"] = id.into();
        registered["id"] = format!("event-of-{id}").into();
        [changed, registered]
    };
    // Of the first ten images both are in one batch, of the others in two.
    let (first, second) = ids.split_at(10);
    let mut queue: Vec<(String, usize)> = Vec::new();
    queue.extend(
        first
            .iter()
            .flat_map(|id| [(id.clone(), 0), (id.clone(), 1)]),
    );
    queue.extend(second.iter().map(|id| (id.clone(), 0)));
    queue.extend(second.iter().map(|id| (id.clone(), 1)));
    for receive in 1..=2 {
        let mut invocations = JoinSet::new();
        for messages in queue.chunks(10) {
            let (guard, messages) = (Arc::clone(&harness.guard), messages.to_vec());
            let bodies = messages.iter().map(|(id, which)| {
                // Six minutes later it comes again.
                events(id, 6 * receive)[*which].to_string()
            });
            let batch = batch(&bodies.collect::<Vec<_>>());
            invocations.spawn(async move {
                let answer = json!(guard.handle(batch, in_a_minute()).await.unwrap());
                let failed = answer["batchItemFailures"].as_array().unwrap().clone();
                let number = |it: &Value| -> usize {
                    let id = it["itemIdentifier"].as_str().unwrap();
                    id.trim_start_matches("m-").parse().unwrap()
                };
                let failed = failed.iter().map(|it| messages[number(it)].clone());
                failed.collect::<Vec<_>>()
            });
        }
        queue = invocations.join_all().await.into_iter().flatten().collect();
        // Of those in one batch, none comes back.
        assert!(queue.iter().all(|(id, _)| second.contains(id)), "{queue:?}");
    }
    assert_eq!(queue, []);
    assert_eq!(discards(&harness), 20);
    let alerts = harness.alerts();
    let told: std::collections::BTreeSet<_> = alerts
        .iter()
        .map(|alert| (alert["image_id"].to_string(), alert["outcome"].to_string()))
        .collect();
    assert_eq!((alerts.len(), told.len()), (20, 20));
    assert!(told.iter().all(|(_, outcome)| outcome == "\"planned\""));
    assert!(harness.sim.world().images.is_empty());
}

/// Neither is waited for, nor does it come back.
#[tokio::test(crate = "crate::virtual_time")]
async fn regression_what_the_guard_discarded_itself_is_known_at_once() {
    for ledger in LEDGERS {
        let harness = Harness::with(expecting("Windows"), with(ledger, "")).await;
        harness.record(registered()).await;
        harness.sim.forget_calls();
        for event in [
            registered(),
            became_available_at(now() - TimeDelta::minutes(6)),
        ] {
            assert_eq!(harness.record(event).await["verdict"], "gone");
        }
        let looks = harness.calls().into_iter();
        assert_eq!(looks.filter(|it| it == "DescribeImages").count(), 2);
        assert_eq!((harness.alerts().len(), discards(&harness)), (1, 0));
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_the_first_retry_completes_a_discard_that_ec2_carried_out() {
    let calls = calls_of_a_discard("").await;
    let deed = calls.iter().position(|call| call == "DeregisterImage");
    let harness = harness_that_is_cut_off_at(deed.unwrap() + 1, "", &calls).await;
    assert!(!harness.image_stands());
    let record = again(&harness).await.unwrap();
    assert_eq!(
        (&record["outcome"], &record["recycle_bin"]),
        (&json!("done"), &json!("in"))
    );
    assert_eq!((harness.alerts().len(), discards(&harness)), (1, 1));
}

/// It may stand, and EC2 may not show it for a moment.
#[tokio::test(crate = "crate::virtual_time")]
async fn an_image_whose_discard_may_not_have_been_carried_out_is_not_taken_for_gone_at_once() {
    let calls = calls_of_a_discard("").await;
    let deed = calls.iter().position(|call| call == "DeregisterImage");
    let harness = harness_that_is_cut_off_at(deed.unwrap(), "", &calls).await;
    assert!(harness.image_stands());
    harness.sim.heal();
    turns_end().await;
    harness.inject(Fault::always(
        "DescribeImages",
        refuse("InvalidAMIID.NotFound", "The image id does not exist"),
    ));
    let error = harness.give(registered()).await.unwrap_err();
    assert_eq!(error.error_type(), "NotVisibleYet", "{error}");
    assert_eq!(discards(&harness), 0);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_turn_that_another_invocation_has_for_a_moment_is_waited_for() {
    let mut settings = with(Some(TABLE), "");
    settings.wait = Duration::from_secs(30);
    let harness = Harness::with(expecting("Windows"), settings).await;
    // The first is at its discard, and the second meets its turn.
    let slow = FaultKind::Slow(Duration::from_millis(500));
    harness.inject(Fault::nth("CreateTags", 1, slow));
    let first = Arc::clone(&harness.guard);
    let first =
        tokio::spawn(
            async move { json!(first.handle(registered(), in_a_minute()).await.unwrap()) },
        );
    while !harness.calls().contains(&"CreateTags".to_owned()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let second = harness.record(registered()).await;
    assert_eq!(first.await.unwrap()["outcome"], "done");
    assert_eq!(second["verdict"], "gone");
    assert_eq!((harness.alerts().len(), discards(&harness)), (1, 1));
}

#[tokio::test(crate = "crate::virtual_time")]
async fn with_a_state_change_alone_a_discard_is_held_and_told_once_nothing_more_can_come() {
    let harness = Harness::of(expecting("Windows")).await;
    let record = harness.record(became_available()).await;
    assert_eq!(record["held_by"], json!(["identity-unknown"]));
    assert_eq!(harness.alerts().len(), 1);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn what_was_told_of_a_held_discard_is_not_told_again_by_the_other_trigger() {
    for ledger in LEDGERS {
        let mut image = expecting("Windows");
        image.deregistration_protection = Some("enabled".into());
        let harness = Harness::with(image, with(ledger, "")).await;
        for event in [registered(), registered(), became_available()] {
            let record = harness.record(event).await;
            assert_eq!(record["held_by"][0], "protected");
        }
        assert_eq!(harness.alerts().len(), 1);
        // What changed is told.
        change(&harness, |image| {
            *image = billing(image.clone(), "SUSE Linux", "RunInstances:000g")
        });
        harness.record(registered()).await;
        assert_eq!(harness.alerts().len(), 2);
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_image_that_somebody_restored_is_told_of_once_and_never_discarded_again() {
    for ledger in LEDGERS {
        let harness = Harness::with(expecting("Windows"), with(ledger, "")).await;
        harness.record(registered()).await;
        restore(&harness);
        for event in [registered(), became_available(), registered()] {
            let record = harness.record(event).await;
            assert!(is_held_as_discarded_before(&record), "{record}");
        }
        assert!(harness.image_stands());
        assert_eq!((discards(&harness), harness.alerts().len()), (1, 2));
        let letter = harness.sim.world().messages[1].body("email");
        assert!(
            letter.contains("The guard does not discard a restored image again"),
            "{letter}"
        );
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_image_that_somebody_enabled_again_is_told_of_and_never_disabled_again() {
    for ledger in LEDGERS {
        let settings = with(ledger, "[discard]\naction = \"disable\"");
        let harness = Harness::with(expecting("Windows"), settings).await;
        harness.record(registered()).await;
        let old = registered_at(now() - TimeDelta::minutes(11));
        assert_eq!(
            harness.record(old).await["verdict"],
            "gone",
            "disabled is gone"
        );
        harness.sim.world().images.get_mut(AMI).unwrap().state = "available".into();
        let record = harness.record(became_available()).await;
        assert!(is_held_as_discarded_before(&record), "{record}");
        assert_eq!((discards(&harness), harness.alerts().len()), (1, 2));
        assert!(harness.image_stands());
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_image_that_somebody_registered_again_is_told_of_and_not_discarded() {
    let other = "ami-0a1b2c3d4e5f60002";
    let event_of_other = || {
        let mut event = registered();
        event["detail"]["responseElements"]["imageId"] = json!(other);
        event
    };
    let same_snapshot = |created| {
        let mut image = expecting("Windows");
        image.id = other.into();
        image.name = "again".into();
        image.creation_date = created;
        image
    };
    for ledger in LEDGERS {
        let harness = Harness::with(expecting("Windows"), with(ledger, "")).await;
        // One that was there before the discard is nobody's answer to it.
        let before = same_snapshot(now() - TimeDelta::minutes(6));
        harness.sim.world().add_image(before);
        harness.record(registered()).await;
        assert_eq!(harness.record(event_of_other()).await["outcome"], "done");

        harness.sim.world().deregistered.remove(other);
        harness.sim.world().add_image(Image {
            id: "ami-0a1b2c3d4e5f60003".into(),
            ..same_snapshot(now())
        });
        let mut event = registered();
        event["detail"]["responseElements"]["imageId"] = json!("ami-0a1b2c3d4e5f60003");
        let record = harness.record(event).await;
        assert_eq!(record["held_by"], json!(["discarded-before"]));
        assert_eq!((discards(&harness), harness.alerts().len()), (2, 3));
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_image_that_ec2_still_lists_right_after_its_discard_is_not_one_that_was_brought_back() {
    let mut settings = with(Some(TABLE), "");
    settings.settle = Duration::from_secs(300);
    let harness = Harness::with(expecting("Windows"), settings).await;
    harness.record(registered()).await;
    restore(&harness);
    let error = harness.give(registered()).await.unwrap_err();
    assert_eq!(error.error_type(), "NotVisibleYet");
    assert_eq!(harness.alerts().len(), 1);
    minutes_pass(6).await;
    assert!(is_held_as_discarded_before(
        &harness.record(registered()).await
    ));
    assert_eq!((discards(&harness), harness.alerts().len()), (1, 2));
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_image_with_the_guards_mark_that_no_ledger_remembers_is_left_to_people() {
    for ledger in LEDGERS {
        let marked = tagged(expecting("Windows"), "ami-billing-guard:discard", "true");
        let harness = Harness::with(marked, with(ledger, "")).await;
        let record = harness.record(registered()).await;
        assert_eq!(record["held_by"], json!(["discarded-before"]));
        assert!(harness.image_stands());
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn the_other_trigger_says_nothing_of_what_people_know() {
    for policy in ["[discard]\nmax_per_hour = 0", ""] {
        let (world, events) = many(2);
        let harness = Harness::around(world, with(Some(TABLE), policy)).await;
        harness.inject(Fault::always("DeregisterImage", FaultKind::AccessDenied));
        for event in &events {
            harness.record(event.clone()).await;
        }
        let alerts = harness.alerts().len();
        let mut event = became_available();
        event["detail"]["ImageId"] = events[1]["detail"]["responseElements"]["imageId"].clone();
        harness.record(event).await;
        assert_eq!(harness.alerts().len(), alerts);
        if !policy.is_empty() {
            harness.record(hourly()).await;
            assert_eq!(digested(&harness).len(), 1, "it stays in the digest");
        }
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_image_that_is_gone_while_the_ledger_is_away_comes_again() {
    let harness = harness_with_table(expecting("Windows")).await;
    harness.sim.world().images.clear();
    harness.inject(Fault::always("UpdateItem", FaultKind::InternalError));
    let old = registered_at(now() - TimeDelta::minutes(11));
    harness.give(old).await.unwrap_err();
    assert_eq!(again_later(&harness).await.unwrap()["verdict"], "gone");
}

#[tokio::test(crate = "crate::virtual_time")]
async fn that_there_is_no_way_back_is_told_until_somebody_could_be_told() {
    let harness = harness_with_table(expecting("Windows")).await;
    harness.sim.world().recycle_bin_rules.clear();
    harness.inject(Fault::from_nth("Publish", 2, FaultKind::InternalError));
    harness.give(registered()).await.unwrap_err();
    assert_eq!(harness.told(), ["planned"]);
    let record = again_later(&harness).await.unwrap();
    assert_eq!(
        (&record["outcome"], &record["recycle_bin"]),
        (&json!("done"), &json!("absent"))
    );
    assert_eq!(harness.told(), ["planned", "done"]);
    let letter = harness.sim.world().messages[1].body("email");
    assert!(letter.contains("NOT in the Recycle Bin"), "{letter}");
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_correction_that_could_not_be_published_is_published_the_next_time() {
    let harness = harness_with_table(expecting("Windows")).await;
    harness.inject(Fault::always("DeregisterImage", FaultKind::ResetAfter));
    for look in ["DescribeImages", "ListImagesInRecycleBin"] {
        let nth = if look == "DescribeImages" { 3 } else { 1 };
        harness.inject(Fault::from_nth(look, nth, FaultKind::InternalError));
    }
    harness.give(registered()).await.unwrap_err();
    turns_end().await;
    harness.sim.heal();
    harness.inject(Fault::always("Publish", FaultKind::InternalError));
    let old = || registered_at(now() - TimeDelta::minutes(11));
    harness.give(old()).await.unwrap_err();
    harness.sim.heal();
    harness.record(old()).await;
    assert_eq!(harness.told(), ["planned", "failed", "done"]);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_image_that_ec2_lists_for_long_after_a_lost_answer_is_found_in_the_recycle_bin() {
    let harness = harness_with_table(expecting("Windows")).await;
    harness.sim.world().after_deregistration = Lingering {
        listed_for: 100,
        empty_for: None,
    };
    harness.inject(Fault::nth("DeregisterImage", 1, FaultKind::ResetAfter));
    harness.inject(Fault::from_nth("DeregisterImage", 2, FaultKind::Throttle));
    let record = harness.record(registered()).await;
    assert_eq!(
        (&record["outcome"], &record["recycle_bin"]),
        (&json!("done"), &json!("in"))
    );
    assert_eq!(harness.told(), ["planned"]);
}

/// Lets the guard process an event until the server has seen `n` calls, and ends it there: the `n`th call
/// took effect, its answer never came. Whether there was such a call.
pub(super) async fn crash_at(harness: &Harness, event: Value, n: usize) -> bool {
    let calls: Vec<String> = harness
        .sim
        .calls()
        .into_iter()
        .map(|call| call.action)
        .collect();
    assert!(calls.is_empty());
    let guard = Arc::clone(&harness.guard);
    let task = tokio::spawn(async move { guard.handle(event, in_a_minute()).await.is_ok() });
    loop {
        if harness.sim.calls().len() >= n {
            task.abort();
            let _ = task.await;
            return true;
        }
        if task.is_finished() {
            return false;
        }
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

/// The calls of a discard with a table, in the order in which they are made, as far as they are made one
/// after the other.
pub(super) async fn calls_of_a_discard(policy: &str) -> Vec<String> {
    let harness = Harness::with(expecting("Windows"), with(Some(TABLE), policy)).await;
    harness.record(registered()).await;
    harness.sim.calls().into_iter().map(named).collect()
}

/// A harness in which the `n`th call of a discard takes effect, and its answer comes too late.
pub(super) async fn harness_that_is_cut_off_at(
    n: usize,
    policy: &str,
    calls: &[String],
) -> Harness {
    let harness = Harness::with(expecting("Windows"), with(Some(TABLE), policy)).await;
    let action = &calls[n - 1];
    let ordinal = calls[..n].iter().filter(|call| *call == action).count();
    let late = FaultKind::Slow(Duration::from_secs(30));
    harness.inject(Fault::nth(action, ordinal, late));
    assert!(crash_at(&harness, registered(), n).await);
    harness
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_retry_after_a_crash_at_any_step_finishes_the_discard_or_holds_it_and_says_so() {
    for (policy, deed) in [
        ("", "DeregisterImage"),
        ("[discard]\naction = \"disable\"", "DisableImage"),
    ] {
        let calls = calls_of_a_discard(policy).await;
        let done = 1 + calls.iter().position(|call| call == deed).unwrap();
        let published = 1 + calls.iter().position(|call| call == "Publish").unwrap();
        let mut held = Vec::new();
        for n in 1..=calls.len() {
            let harness = harness_that_is_cut_off_at(n, policy, &calls).await;
            let step = format!("{policy}: crash after {}, call {n}", calls[n - 1]);
            assert_eq!(!harness.image_stands(), n >= done, "{step}");
            again(&harness).await.ok();
            // A young image that EC2 no longer shows may be one that it does not show yet.
            again_later(&harness).await.unwrap();
            let alerts = harness.alerts().len();
            if harness.image_stands() {
                held.push(n);
                let last = harness.journal.lock().unwrap().last().unwrap().clone();
                assert_eq!(last["held_by"], json!(["discarded-before"]), "{step}");
                assert_eq!(alerts, 2, "{step}");
            } else {
                // The one step that was cut off may be told of twice.
                let most = 1 + usize::from(n == published || n == published + 1);
                assert!((1..=most).contains(&alerts), "{step}: {alerts} alerts");
                assert_eq!(discards(&harness), 1, "{step}");
            }
            assert_eq!(harness.sim.world().snapshots.len(), 1);
        }
        // Between the note and the deed nobody can tell a discard that was not carried out from one that
        // people took back.
        assert_eq!(held, [done - 1], "{policy}");
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn what_people_bring_back_between_a_crash_and_the_retry_stays() {
    let calls = calls_of_a_discard("").await;
    let done = 1 + calls
        .iter()
        .position(|call| call == "DeregisterImage")
        .unwrap();
    for n in done..=calls.len() {
        let harness = harness_that_is_cut_off_at(n, "", &calls).await;
        restore(&harness);
        let record = again(&harness).await.unwrap();
        assert_eq!(record["held_by"], json!(["discarded-before"]));
        assert!(harness.image_stands());
        assert_eq!((discards(&harness), harness.alerts().len()), (1, 2));
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_discard_whose_end_nobody_saw_is_completed_when_its_event_comes_again() {
    let calls = calls_of_a_discard("").await;
    let done = 1 + calls
        .iter()
        .position(|call| call == "DeregisterImage")
        .unwrap();
    let harness = harness_that_is_cut_off_at(done, "", &calls).await;
    let record = again_later(&harness).await.unwrap();
    assert_eq!(
        (&record["verdict"], &record["action"], &record["outcome"]),
        (&json!("gone"), &json!("deregister"), &json!("done"))
    );
    assert_eq!(record["recycle_bin"], "in");
    assert!(record["recoverable_until"].is_string());
    assert!(record["undo"].is_string());
    assert_eq!(harness.alerts().len(), 1);
    let record = again_later(&harness).await.unwrap();
    assert_eq!(record["action"], "none", "completed once");

    // Without a rule the alert promised a way back that there is not.
    let harness = harness_that_is_cut_off_at(done, "", &calls).await;
    harness.sim.world().recycle_bin.clear();
    let record = again_later(&harness).await.unwrap();
    assert_eq!(record["recycle_bin"], "absent");
    assert_eq!(harness.alerts().len(), 2);
    let letter = harness.sim.world().messages[1].body("email");
    assert!(letter.contains("NOT in the Recycle Bin"), "{letter}");
    assert!(letter.contains("aws ec2 register-image"), "{letter}");
}

#[tokio::test(crate = "crate::virtual_time")]
async fn the_last_word_is_right_after_a_discard_of_which_nobody_knew_whether_it_succeeded() {
    let harness = harness_with_table(expecting("Windows")).await;
    // The deed takes effect, and then nothing is heard of it, nor of the image.
    harness.inject(Fault::always("DeregisterImage", FaultKind::ResetAfter));
    for look in ["DescribeImages", "ListImagesInRecycleBin"] {
        let nth = if look == "DescribeImages" { 3 } else { 1 };
        harness.inject(Fault::from_nth(look, nth, FaultKind::InternalError));
    }
    harness.give(registered()).await.unwrap_err();
    assert_eq!(harness.told(), ["planned", "failed"]);
    let record = again_later(&harness).await.unwrap();
    assert_eq!(record["outcome"], "done");
    assert_eq!(harness.told(), ["planned", "failed", "done"]);
    let subject = harness.sim.world().messages[2].subject.clone().unwrap();
    assert!(
        subject.starts_with("[info] AMI removed, restorable: "),
        "{subject}"
    );
}

#[tokio::test(crate = "crate::virtual_time")]
async fn without_the_ledger_an_image_is_judged_and_told_of_and_comes_again() {
    let denied = || Fault::always("UpdateItem", FaultKind::AccessDenied);
    let failing = || Fault::always("UpdateItem", FaultKind::InternalError);
    let unread = || Fault::always("GetItem", FaultKind::InternalError);
    let unreserved = || Fault::always("TransactWriteItems", FaultKind::AccessDenied);
    for fault in [denied(), failing(), unread(), unreserved()] {
        let harness = harness_with_table(expecting("Windows")).await;
        let what = format!("{fault:?}");
        harness.inject(fault);
        let error = harness.give(registered()).await.unwrap_err();
        assert!(error.to_string().contains("dynamodb:"), "{what}: {error}");
        let alerts = harness.alerts();
        assert_eq!(alerts.len(), 1, "{what}");
        assert_eq!(
            alerts[0]["held_by"],
            json!(["ledger-unavailable"]),
            "{what}"
        );
        assert!(
            alerts[0]["error"].as_str().unwrap().contains("dynamodb:"),
            "{what}"
        );
        assert!(harness.image_stands());
        assert_eq!(again(&harness).await.unwrap()["outcome"], "done", "{what}");
    }
    // One that is fine needs no ledger, and one that would be held anyway does not come again for it.
    for image in [
        billing(expecting("Windows"), "Windows", "RunInstances:0002"),
        tagged(expecting("Windows"), "aws:backup:source-resource", "i-1"),
    ] {
        let harness = harness_with_table(image).await;
        harness.sim.world().tables.clear();
        harness.record(registered()).await;
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn without_a_note_of_it_nothing_is_discarded_and_people_learn_that_it_stands() {
    let harness = harness_with_table(expecting("Windows")).await;
    // Begun and reserved; the note fails, with whatever is written afterwards.
    harness.inject(Fault::from_nth("UpdateItem", 2, FaultKind::InternalError));
    let error = harness.give(registered()).await.unwrap_err();
    assert_eq!(error.error_type(), "Unavailable");
    assert_eq!(
        (discards(&harness), harness.told()),
        (0, vec![json!("planned"), json!("failed")])
    );
    assert_eq!(again(&harness).await.unwrap()["outcome"], "done");
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_discard_that_the_ledger_could_not_note_the_end_of_is_done_all_the_same() {
    let harness = harness_with_table(expecting("Windows")).await;
    harness.inject(Fault::from_nth("UpdateItem", 4, FaultKind::InternalError));
    assert_eq!(harness.record(registered()).await["outcome"], "done");
    // The note from before the deed is enough for people to win.
    restore(&harness);
    let record = again(&harness).await.unwrap();
    assert_eq!(record["held_by"], json!(["discarded-before"]));
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_plan_that_changes_on_the_retry_is_followed() {
    let calls = calls_of_a_discard("").await;
    let reserved = 1 + calls
        .iter()
        .position(|call| call == "TransactWriteItems")
        .unwrap();
    let harness = harness_that_is_cut_off_at(reserved, "", &calls).await;
    harness
        .sim
        .world()
        .images
        .get_mut(AMI)
        .unwrap()
        .tags
        .clear();
    let record = again(&harness).await.unwrap();
    assert_eq!(record["verdict"], "unverifiable");
    assert!(harness.image_stands());
    assert_eq!(harness.alerts().len(), 0);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_invocation_that_time_cuts_off_leaves_the_rest_to_the_next_one() {
    let harness = harness_with_table(expecting("Windows")).await;
    harness.inject(Fault::always(
        "Publish",
        FaultKind::Slow(Duration::from_secs(60)),
    ));
    let soon = Deadline::now() + Duration::from_secs(16);
    let error = harness.guard.handle(registered(), soon).await.unwrap_err();
    assert!(
        ["OutOfTime", "Unavailable"].contains(&error.error_type()),
        "{error}"
    );
    assert!(harness.image_stands());
    assert_eq!(again(&harness).await.unwrap()["outcome"], "done");
}

/// Mismatching images of as many snapshots, and their events.
fn many(number: usize) -> (World, Vec<Value>) {
    let mut world = World::default();
    let mut events = Vec::new();
    for at in 0..number {
        let mut image = Image::new(format!("ami-0a1b2c3d4e5f{at:05x}"));
        image.creation_date = now() - TimeDelta::minutes(6);
        image
            .tags
            .insert("ami-billing-guard:expect".into(), "Windows".into());
        for snapshot in image.snapshot_ids() {
            world.add_snapshot(Snapshot::new(snapshot));
        }
        let mut event = registered();
        event["id"] = json!(format!("e-{at}"));
        event["detail"]["responseElements"]["imageId"] = json!(image.id);
        world.add_image(image);
        events.push(event);
    }
    (world, events)
}

pub(super) fn hourly() -> Value {
    json!({
        "version": "0", "id": "d-1", "detail-type": "Scheduled Event", "source": "aws.events",
        "account": "123456789012", "region": "eu-west-1", "time": now().to_rfc3339(),
        "resources": ["arn:aws:events:eu-west-1:123456789012:rule/digest"], "detail": {}
    })
}

/// The images that digests told of.
fn digested(harness: &Harness) -> Vec<String> {
    let alerts = harness.alerts();
    let digests = alerts.iter().filter(|alert| alert["digest"] == "limit");
    digests
        .flat_map(|digest| digest["images"].as_array().unwrap().clone())
        .map(|image| image["image_id"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(crate = "crate::virtual_time")]
async fn over_the_limit_the_first_image_is_told_of_and_the_others_are_in_the_digest() {
    for ledger in LEDGERS {
        let (world, events) = many(6);
        let harness = Harness::around(world, with(ledger, "[discard]\nmax_per_hour = 2")).await;
        for event in events.iter().chain(&events[2..]) {
            harness.record(event.clone()).await;
        }
        assert_eq!(discards(&harness), 2);
        assert_eq!(
            harness.alerts().len(),
            3,
            "two discards, and the first over the limit"
        );
        let first = &harness.alerts()[2];
        assert_eq!(first["held_by"], json!(["limit"]));
        let message = harness.sim.world().messages[2].clone();
        assert!(
            message
                .subject
                .unwrap()
                .starts_with("[decide] Removal limit reached, 1 AMI waiting: ")
        );

        let record = harness.record(hourly()).await;
        assert_eq!(record["verdict"], "ignored");
        let mut told = digested(&harness);
        told.sort();
        let later: Vec<String> = (3..6)
            .map(|at| format!("ami-0a1b2c3d4e5f{at:05x}"))
            .collect();
        assert_eq!(told, later);
        let letter = harness.sim.world().messages[3].body("email");
        assert!(letter.contains("ami-0a1b2c3d4e5f00005"), "{letter}");
        harness.record(hourly()).await;
        assert_eq!(
            harness.alerts().len(),
            4,
            "a digest of nothing is no message"
        );
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn with_a_limit_of_nothing_nothing_is_discarded_and_everything_told() {
    let (world, events) = many(3);
    let harness = Harness::around(world, with(Some(TABLE), "[discard]\nmax_per_hour = 0")).await;
    for event in events {
        assert_eq!(harness.record(event).await["held_by"], json!(["limit"]));
    }
    harness.record(hourly()).await;
    assert_eq!(
        (
            discards(&harness),
            harness.alerts().len(),
            digested(&harness).len()
        ),
        (0, 2, 2)
    );
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_digest_that_was_cut_off_is_told_again_and_one_without_room_is_told_at_once() {
    let (world, events) = many(3);
    let harness = Harness::around(world, with(Some(TABLE), "[discard]\nmax_per_hour = 0")).await;
    for event in &events[..2] {
        harness.record(event.clone()).await;
    }
    harness.inject(Fault::always("UpdateItem", FaultKind::InternalError));
    harness.give(hourly()).await.unwrap_err();
    harness.sim.heal();
    harness.record(hourly()).await;
    assert_eq!(digested(&harness).len(), 2, "the same one twice");

    // The digest's item has no room for more.
    let full = refuse(
        "ValidationException",
        "Item size has exceeded the maximum allowed size",
    );
    harness.inject(Fault::nth("TransactWriteItems", 1, full));
    harness.record(events[2].clone()).await;
    assert_eq!(
        harness.alerts().last().unwrap()["held_by"],
        json!(["limit"])
    );
}

/// Hands over events, so many at a time, and each again until it is dealt with, as the queue would.
async fn deal_with_all(harness: &Harness, at_once: usize, events: Vec<Value>) {
    let events = Arc::new(Mutex::new(events));
    let mut workers = JoinSet::new();
    for _ in 0..at_once {
        let (guard, events) = (Arc::clone(&harness.guard), Arc::clone(&events));
        workers.spawn(async move {
            loop {
                let Some(event) = events.lock().unwrap().pop() else {
                    return;
                };
                while let Err(error) = guard.handle(event.clone(), in_a_minute()).await {
                    assert!(!error.needs_a_person(), "{error}");
                }
            }
        });
    }
    workers.join_all().await;
}

#[tokio::test(crate = "crate::virtual_time")]
async fn of_200_images_at_once_ten_are_discarded_and_every_other_is_held_and_told_of() {
    for ledger in LEDGERS {
        let (world, events) = many(200);
        let harness = Harness::around(world, with(ledger, "")).await;
        deal_with_all(&harness, 16, events).await;
        harness.record(hourly()).await;

        let world = harness.sim.world();
        assert_eq!(world.images.len(), 190);
        assert_eq!(world.recycle_bin.len(), 10);
        assert_eq!(world.snapshots.len(), 200);
        drop(world);
        let journal = harness.journal.lock().unwrap().clone();
        let held = journal
            .iter()
            .filter(|record| record["held_by"] == json!(["limit"]));
        assert!(held.count() >= 190);
        let mut told = digested(&harness);
        let alerts = harness.alerts();
        let alone = alerts.iter().filter_map(|alert| alert["image_id"].as_str());
        told.extend(alone.map(str::to_owned));
        told.sort();
        assert_eq!(told.len(), 200, "each once");
        told.dedup();
        assert_eq!(told.len(), 200);
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn each_refusal_of_ec2s_has_its_name_and_what_a_person_can_do() {
    let backup = "This image is managed by AWS Backup and cannot be deleted via EC2 APIs";
    let cases = [
        (
            refuse("AuthFailure", backup),
            "backup-managed",
            "AWS Backup",
        ),
        (
            refuse("AuthFailure", "Not authorized for image"),
            "not-owner",
            "Only its owner",
        ),
        (FaultKind::AccessDenied, "denied", "service control policy"),
        (
            refuse("OperationNotPermitted", "The image is protected"),
            "protected",
            "protection",
        ),
        (
            refuse("InvalidParameterValue", "no"),
            "other",
            "To discard the image yourself",
        ),
    ];
    for (fault, name, advice) in cases {
        let harness = harness_with_table(expecting("Windows")).await;
        harness.inject(Fault::always("DeregisterImage", fault));
        let record = harness.record(registered()).await;
        assert_eq!(
            (&record["outcome"], &record["refusal"]),
            (&json!("refused"), &json!(name))
        );
        let letter = harness.mail(1);
        assert!(letter.contains(advice), "{name}: {letter}");
        assert!(harness.image_stands());
        assert!(
            item(&harness).get("attempted_at_ms").is_none(),
            "{name}: it stands, and that is known"
        );
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn protection_that_comes_in_the_last_moment_is_known_by_the_image_whatever_ec2_calls_it() {
    let harness = harness_with_table(expecting("Windows")).await;
    harness.inject(Fault::nth(
        "Publish",
        1,
        FaultKind::Slow(Duration::from_millis(300)),
    ));
    let guard = Arc::clone(&harness.guard);
    let task = tokio::spawn(async move { guard.handle(registered(), in_a_minute()).await });
    while !harness.calls().iter().any(|call| call == "Publish") {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    harness
        .sim
        .world()
        .images
        .get_mut(AMI)
        .unwrap()
        .deregistration_protection = Some("enabled-with-cooldown".into());
    let record = json!(task.await.unwrap().unwrap());
    assert_eq!(
        (&record["outcome"], &record["refusal"]),
        (&json!("refused"), &json!("protected"))
    );
    assert_eq!(harness.told(), ["planned", "refused"]);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn what_was_discarded_can_be_registered_again_from_its_record_as_it_was() {
    let mut image = expecting("Windows");
    image.boot_mode = Some("uefi".into());
    image.tpm_support = Some("v2.0".into());
    image.imds_support = Some("v2.0".into());
    image.shared_with.insert("210987654321".into());
    let before = image.clone();
    let shared = "[discard]\nshared = \"discard\"";
    let harness = Harness::with(image, with(Some(TABLE), shared)).await;
    let record = harness.record(registered()).await;
    let request = &record["rebuild"]["register_image"];
    for (key, value) in [
        ("Name", json!(before.name)),
        ("Architecture", json!(before.architecture)),
        ("RootDeviceName", json!(before.root_device_name)),
        ("BootMode", json!("uefi")),
        ("TpmSupport", json!("v2.0")),
        ("ImdsSupport", json!("v2.0")),
        ("EnaSupport", json!(before.ena_support)),
    ] {
        assert_eq!(request[key], value, "{key}");
    }
    let tags = &request["TagSpecifications"][0]["Tags"];
    assert_eq!(
        *tags,
        json!([{ "Key": "ami-billing-guard:expect", "Value": "Windows" }])
    );
    assert_eq!(
        record["rebuild"]["launch_permissions"],
        json!([{ "UserId": "210987654321" }])
    );
    let letter = harness.sim.world().messages[0].body("email");
    assert!(letter.contains("modify-image-attribute"), "{letter}");
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_the_request_to_register_again_has_only_what_a_volume_type_takes() {
    let mut image = expecting("Windows");
    let types = ["gp2", "gp3", "io1", "io2", "st1", "sc1", "standard"];
    let root = image.block_devices[0].clone();
    for (number, volume_type) in types.iter().enumerate() {
        image.block_devices.push(BlockDevice {
            device_name: format!("/dev/sd{}", char::from(b'f' + number as u8)),
            volume_type: (*volume_type).into(),
            // DescribeImages shows the baseline of gp2, too.
            iops: Some(3000),
            throughput: Some(125),
            ..root.clone()
        });
    }
    image.deprecation_time = Some("2028-11-25T12:00:00Z".parse().unwrap());
    let harness = harness_with_table(image).await;
    let record = harness.record(registered()).await;
    assert_eq!(record["outcome"], "done");
    let devices = &record["rebuild"]["register_image"]["BlockDeviceMappings"];
    let has = |member: &str| -> Vec<&str> {
        let devices = devices.as_array().unwrap().iter().skip(1);
        let having = devices.filter(|device| device["Ebs"].get(member).is_some());
        having
            .map(|device| device["Ebs"]["VolumeType"].as_str().unwrap())
            .collect()
    };
    assert_eq!(has("VolumeType"), types);
    assert_eq!(has("Iops"), ["gp3", "io1", "io2"]);
    assert_eq!(has("Throughput"), ["gp3"]);
    // And what the request cannot bring back has a command of its own.
    assert_eq!(record["rebuild"]["deprecate_at"], "2028-11-25T12:00:00Z");
    let letter = harness.sim.world().messages[0].body("email");
    let command = "aws ec2 enable-image-deprecation --region eu-west-1 --image-id '<the new image>' \
                   --deprecate-at 2028-11-25T12:00:00Z";
    assert!(letter.contains(command), "{letter}");
}

#[tokio::test(crate = "crate::virtual_time")]
async fn who_may_launch_from_an_image_is_known_before_it_is_disabled_or_it_is_not() {
    let mut image = expecting("Windows");
    image.public = true;
    let disable = "[discard]\naction = \"disable\"\nshared = \"discard\"";
    let harness = Harness::with(image.clone(), with(Some(TABLE), disable)).await;
    let record = harness.record(registered()).await;
    assert_eq!(
        record["rebuild"]["launch_permissions"],
        json!([{ "Group": "all" }])
    );
    let letter = harness.sim.world().messages[0].body("email");
    let command = "aws ec2 modify-image-attribute --region eu-west-1 --image-id ami-0a1b2c3d4e5f60001 \
                   --launch-permission '{\"Add\":[{\"Group\":\"all\"}]}'";
    assert!(letter.contains(command), "{letter}");

    let harness = Harness::with(image, with(Some(TABLE), disable)).await;
    harness.inject(Fault::always(
        "DescribeImageAttribute",
        FaultKind::AccessDenied,
    ));
    let record = harness.record(registered()).await;
    assert_eq!(record["held_by"], json!(["uncaptured"]));
    assert!(
        record["error"]
            .as_str()
            .unwrap()
            .contains("ec2:DescribeImageAttribute")
    );
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_table_that_is_not_there_is_named() {
    let harness = harness_with_table(expecting("Windows")).await;
    harness.sim.world().tables = [("another".to_owned(), Table::new("id"))].into();
    let error = harness.give(registered()).await.unwrap_err();
    assert!(error.to_string().contains(TABLE), "{error}");
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_a_look_around_that_does_not_get_through_is_told_of_and_brings_the_event_back() {
    for action in AROUND {
        for fault in [FaultKind::Throttle, FaultKind::ResetBefore] {
            let harness = harness_with_table(expecting("Windows")).await;
            harness.inject(Fault::always(action, fault));
            for _ in 0..2 {
                let error = harness.give(registered()).await.unwrap_err();
                assert_eq!(error.error_type(), "NotFoundOut", "{error}");
            }
            assert_eq!(harness.alerts().len(), 1, "{action}");
            assert_eq!(again(&harness).await.unwrap()["outcome"], "done");
        }
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_an_answer_of_ec2_that_is_cut_once_is_asked_for_again() {
    for (action, n) in [
        ("DescribeImages", 1),
        ("DescribeImages", 2),
        (AROUND[0], 1),
        (AROUND[1], 1),
        (AROUND[2], 1),
        (AROUND[3], 1),
        ("CreateTags", 1),
    ] {
        let harness = harness_with_table(expecting("Windows")).await;
        harness.inject(Fault::nth(action, n, FaultKind::CutBody));
        let record = harness.record(registered()).await;
        assert_eq!(record["outcome"], "done", "{action} {n}");
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_a_discard_that_a_slow_ledger_cuts_off_is_on_record_and_told_of() {
    for n in [2, 3] {
        let harness = harness_with_table(expecting("Windows")).await;
        let slow = FaultKind::Slow(Duration::from_secs(60));
        harness.inject(Fault::from_nth("UpdateItem", n, slow));
        let soon = Deadline::now() + Duration::from_secs(17);
        harness.guard.handle(registered(), soon).await.unwrap_err();
        assert_eq!(harness.journal.lock().unwrap().len(), 1, "{n}");
        assert_eq!(harness.told(), ["planned", "failed"], "{n}");
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_people_hear_of_a_failed_discard_also_if_time_is_short_and_the_ledger_slow() {
    let harness = harness_with_table(expecting("Windows")).await;
    let late = FaultKind::Slow(Duration::from_millis(4_500));
    harness.inject(Fault::nth(AROUND[0], 2, late));
    let slow = FaultKind::Slow(Duration::from_secs(60));
    harness.inject(Fault::from_nth("UpdateItem", 3, slow));
    let soon = Deadline::now() + Duration::from_secs(16);
    harness.guard.handle(registered(), soon).await.unwrap_err();
    assert_eq!(harness.told(), ["planned", "failed"]);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_an_empty_answer_of_the_ledger_does_not_make_it_forget_a_discard() {
    let harness = harness_with_table(expecting("Windows")).await;
    harness.record(registered()).await;
    restore(&harness);
    harness.inject(Fault::nth("UpdateItem", 1, FaultKind::CutShort(0)));
    harness.give(registered()).await.unwrap_err();
    assert!(harness.image_stands());
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_what_people_deregister_after_a_refusal_is_not_claimed_as_the_guards() {
    for fault in [FaultKind::AccessDenied, FaultKind::Throttle] {
        let harness = harness_with_table(expecting("Windows")).await;
        harness.inject(Fault::always("DeregisterImage", fault));
        harness.give(registered()).await.ok();
        let alerts = harness.alerts().len();
        harness.sim.world().images.clear();
        let record = again_later(&harness).await.unwrap();
        assert_eq!(
            (&record["verdict"], &record["action"]),
            (&json!("gone"), &json!("none"))
        );
        assert_eq!(harness.alerts().len(), alerts);
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn what_was_before_is_said_of_an_image_that_is_held_for_it() {
    let harness = harness_with_table(expecting("Windows")).await;
    harness.record(registered()).await;
    restore(&harness);
    let record = harness.record(registered()).await;
    let before = record["before"].as_str().unwrap();
    assert!(before.starts_with("it was discarded at 20"), "{before}");
    let letter = harness.mail(1);
    assert!(letter.contains(before), "{letter}");
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_only_of_a_discard_whose_end_is_not_known_it_is_said_that_it_is_not() {
    let certain = harness_with_table(expecting("Windows")).await;
    certain.record(registered()).await;
    restore(&certain);
    let record = certain.record(registered()).await;
    assert_eq!(record["held_by"], json!(["discarded-before"]));
    let before = record["before"].as_str().unwrap();
    assert!(before.ends_with("and restored afterwards"), "{before}");
    assert!(!before.contains("could not determine"), "{before}");

    // No answer came, and the image stands: nobody can say.
    let calls = calls_of_a_discard("").await;
    let act = calls.iter().position(|call| call == "DeregisterImage");
    let doubtful = harness_that_is_cut_off_at(act.unwrap(), "", &calls).await;
    assert!(doubtful.image_stands());
    let record = again_later(&doubtful).await.unwrap();
    assert_eq!(record["held_by"], json!(["discarded-before"]));
    let before = record["before"].as_str().unwrap();
    assert!(before.contains("could not determine whether"), "{before}");
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_an_image_that_people_disabled_is_not_said_to_be_deregistered() {
    let calls = calls_of_a_discard("").await;
    let done = 1 + calls
        .iter()
        .position(|call| call == "DeregisterImage")
        .unwrap();
    let harness = harness_that_is_cut_off_at(done - 1, "", &calls).await;
    harness.sim.world().images.get_mut(AMI).unwrap().state = "disabled".into();
    let record = again_later(&harness).await.unwrap();
    assert_eq!(
        (&record["verdict"], &record["action"]),
        (&json!("gone"), &json!("none"))
    );
    assert_eq!(harness.alerts().len(), 1);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_a_refusal_is_one_also_if_the_recycle_bin_can_not_be_looked_into() {
    let backup = "This image is managed by AWS Backup and cannot be deleted via EC2 APIs";
    for (fault, name) in [
        (refuse("AuthFailure", backup), "backup-managed"),
        (refuse("InvalidParameterValue", "no"), "other"),
    ] {
        let harness = harness_with_table(expecting("Windows")).await;
        harness.inject(Fault::always("DeregisterImage", fault));
        harness.inject(Fault::always(
            "ListImagesInRecycleBin",
            FaultKind::AccessDenied,
        ));
        let record = harness.record(registered()).await;
        assert_eq!(record["refusal"], name);
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_a_mismatch_that_nobody_was_told_of_is_told_by_the_other_trigger() {
    let harness = harness_with_table(billing(
        expecting("Windows"),
        "Windows",
        "RunInstances:0010",
    ))
    .await;
    assert_eq!(harness.record(registered()).await["verdict"], "conflict");
    {
        let mut world = harness.sim.world();
        let image = world.images.get_mut(AMI).unwrap();
        image.platform_details = Some("Linux/UNIX".into());
        image.usage_operation = Some("RunInstances".into());
    }
    let record = harness.record(became_available()).await;
    assert_eq!(record["held_by"], json!(["identity-unknown"]));
    assert_eq!(harness.alerts().len(), 2);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_an_image_that_people_disable_while_its_deregistration_is_refused_is_not_gone() {
    let harness = harness_with_table(expecting("Windows")).await;
    harness.inject(Fault::always("DeregisterImage", FaultKind::AccessDenied));
    harness.inject(Fault::nth(
        "Publish",
        1,
        FaultKind::Slow(Duration::from_millis(300)),
    ));
    let guard = Arc::clone(&harness.guard);
    let task = tokio::spawn(async move { guard.handle(registered(), in_a_minute()).await });
    while !harness.calls().iter().any(|call| call == "Publish") {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    harness.sim.world().images.get_mut(AMI).unwrap().state = "disabled".into();
    let record = json!(task.await.unwrap().unwrap());
    assert_eq!(
        (&record["outcome"], &record["refusal"]),
        (&json!("refused"), &json!("denied"))
    );
    assert_eq!(harness.told(), ["planned", "refused"]);
}

/// An answer that was lost, a refusal after it, and an image that EC2 lists for long: whether it is gone is not
/// known, also if no Recycle Bin has it.
async fn harness_in_doubt(policy: &str, act: &str) -> Harness {
    let harness = Harness::with(expecting("Windows"), with(Some(TABLE), policy)).await;
    {
        let mut world = harness.sim.world();
        world.recycle_bin_rules.clear();
        world.after_deregistration = Lingering {
            listed_for: 100,
            empty_for: None,
        };
    }
    harness.inject(Fault::nth(act, 1, FaultKind::ResetAfter));
    harness
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_a_discard_that_may_have_been_done_is_not_forgotten_as_ec2_lists_the_image_yet()
{
    for later in [
        FaultKind::Throttle,
        refuse("OperationNotPermitted", "no"),
        FaultKind::AccessDenied,
    ] {
        let harness = harness_in_doubt("", "DeregisterImage").await;
        harness.inject(Fault::from_nth("DeregisterImage", 2, later.clone()));
        let error = harness.give(registered()).await.unwrap_err();
        assert_eq!(error.error_type(), "Unavailable", "{later:?}: {error}");
        assert_eq!(harness.told(), ["planned", "failed"]);

        // It was done, and shows when the event comes again: people hear that it was, and that there is no way back.
        harness.sim.world().after_deregistration = Lingering::default();
        harness.sim.world().deregistered.clear();
        harness.sim.world().images.remove(AMI);
        let record = again_later(&harness).await.unwrap();
        assert_eq!(
            (&record["outcome"], &record["recycle_bin"]),
            (&json!("done"), &json!("absent"))
        );
        assert_eq!(harness.told(), ["planned", "failed", "done"], "{later:?}");
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_what_people_bring_back_after_a_discard_that_may_have_been_done_stays() {
    let harness = harness_in_doubt("[discard]\naction = \"disable\"", "DisableImage").await;
    harness.inject(Fault::from_nth("DisableImage", 2, FaultKind::Throttle));
    harness.inject(Fault::from_nth("DescribeImages", 3, FaultKind::Throttle));
    harness.give(registered()).await.unwrap_err();

    harness.sim.world().images.get_mut(AMI).unwrap().state = "available".into();
    let record = again(&harness).await.unwrap();
    assert!(is_held_as_discarded_before(&record), "{record}");
    assert_eq!(
        discards(&harness),
        3,
        "none but the attempts of the first time"
    );
    assert!(harness.image_stands());
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_a_refused_discard_is_neither_tried_nor_told_again_for_a_duplicate() {
    let harness = harness_with_table(expecting("Windows")).await;
    harness.inject(Fault::always(
        "DeregisterImage",
        refuse("OperationNotPermitted", "it is protected"),
    ));
    let first = harness.record(registered()).await;
    assert_eq!(
        (&first["outcome"], &first["refusal"]),
        (&json!("refused"), &json!("protected"))
    );
    for _ in 0..4 {
        let record = harness.record(registered()).await;
        assert_eq!(
            (&record["outcome"], &record["refusal"]),
            (&json!("refused"), &json!("protected"))
        );
    }
    assert_eq!(harness.told(), ["planned", "refused"]);
    assert_eq!(discards(&harness), 1);

    // Somebody mended it, and sends the event again.
    minutes_pass(11).await;
    let record = again(&harness).await.unwrap();
    assert_eq!(record["outcome"], "done");
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_an_image_that_people_deregister_while_it_is_disabled_was_not_disabled() {
    let harness = Harness::with(
        expecting("Windows"),
        with(Some(TABLE), "[discard]\naction = \"disable\""),
    )
    .await;
    harness.inject(Fault::always(
        "DisableImage",
        refuse("InvalidAMIID.Unavailable", "gone"),
    ));
    harness.inject(Fault::from_nth(
        "DescribeImages",
        3,
        refuse("InvalidAMIID.Unavailable", "gone"),
    ));
    harness.give(registered()).await.unwrap_err();
    assert_eq!(harness.told(), ["planned", "failed"]);
    harness.sim.heal();
    harness.sim.world().images.remove(AMI);
    let record = again_later(&harness).await.unwrap();
    assert_eq!(
        (&record["verdict"], &record["undo"]),
        (&json!("gone"), &json!(null))
    );
    assert_eq!(harness.told(), ["planned", "failed"]);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_a_state_change_waits_for_who_registered_an_image_if_a_rule_asks() {
    let rules = "[[exempt]]\nregistered_by = \"arn:aws:iam::*:user/builder\"\nreason = \"ours\"";
    for ledger in LEDGERS {
        let harness = Harness::with(expecting("Windows"), with(ledger, rules)).await;
        let young = became_available_at(now() - TimeDelta::minutes(6));
        let error = harness.give(young).await.unwrap_err();
        assert_eq!(error.error_type(), "IdentityMayCome");
        assert_eq!(harness.record(registered()).await["verdict"], "exempt");
        // When it comes again, the event that knew has been dealt with.
        let record = harness.record(became_available()).await;
        assert_eq!(
            (&record["verdict"], &record["action"]),
            (&json!("exempt"), &json!("none"))
        );
        assert!(harness.alerts().is_empty());
        // If no other event comes, people are told.
        let harness = Harness::with(expecting("Windows"), with(ledger, rules)).await;
        let record = harness.record(became_available()).await;
        assert_eq!(
            record["held_by"],
            json!(["source-failed", "identity-unknown"])
        );
        assert_eq!(harness.alerts().len(), 1);
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_another_mismatch_than_the_one_that_is_known_is_told_by_the_other_trigger() {
    let extra = billing(expecting("Linux"), "Ubuntu Pro Linux", "RunInstances:0g00");
    let harness = Harness::with(extra, with(Some(TABLE), "")).await;
    assert_eq!(harness.record(registered()).await["kind"], "extra");
    change(&harness, |image| {
        *image = tagged(image.clone(), "ami-billing-guard:expect", "Windows")
    });
    assert_eq!(harness.record(became_available()).await["kind"], "wrong");
    assert_eq!(harness.alerts().len(), 2);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_an_answer_of_the_ledger_without_a_body_does_not_forget_a_discard_of_the_same_snapshot()
 {
    let harness = harness_with_table(expecting("Windows")).await;
    harness.inject(Fault::always("GetItem", FaultKind::CutShort(0)));
    let error = harness.give(registered()).await.unwrap_err();
    assert_eq!(error.error_type(), "NotFoundOut");
    assert!(harness.image_stands());
    assert_eq!(
        harness.alerts()[0]["held_by"],
        json!(["ledger-unavailable"])
    );
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_an_image_without_room_for_the_guards_tags_takes_no_place_of_the_hour() {
    let mut image = expecting("Windows");
    for n in 0..46 {
        image.tags.insert(format!("key-{n}"), String::new());
    }
    let harness = harness_with_table(image).await;
    let record = harness.record(registered()).await;
    assert_eq!(record["held_by"], json!(["untaggable"]));
    let world = harness.sim.world();
    let items = &world.tables[TABLE].items;
    assert!(!items.keys().any(|id| id.starts_with("hour#")));
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_a_refusal_that_nobody_could_be_told_of_is_told_the_next_time() {
    let harness = harness_with_table(expecting("Windows")).await;
    let no = || refuse("OperationNotPermitted", "it is protected");
    harness.inject(Fault::always("DeregisterImage", no()));
    harness.inject(Fault::from_nth("Publish", 2, FaultKind::InternalError));
    harness.give(registered()).await.unwrap_err();
    assert_eq!(harness.told(), ["planned"]);
    turns_end().await;
    harness.sim.heal();
    harness.inject(Fault::always("DeregisterImage", no()));
    harness.record(registered()).await;
    assert_eq!(harness.told(), ["planned", "planned", "refused"]);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_what_is_registered_again_after_a_discard_that_may_have_been_done_stays() {
    let harness = harness_in_doubt("", "DeregisterImage").await;
    harness.inject(Fault::from_nth("DeregisterImage", 2, FaultKind::Throttle));
    harness.give(registered()).await.unwrap_err();
    let anew = "ami-0a1b2c3d4e5f60002";
    {
        let mut world = harness.sim.world();
        // From the same snapshot.
        let mut image = expecting("Windows");
        image.id = anew.into();
        image.creation_date = now();
        world.add_image(image);
    }
    harness.sim.heal();
    let mut event = registered();
    event["id"] = "e-anew".into();
    event["detail"]["responseElements"]["imageId"] = anew.into();
    let record = harness.record(event).await;
    assert!(is_held_as_discarded_before(&record), "{record}");
    assert!(harness.sim.world().images.contains_key(anew));
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_image_that_stands_long_after_its_discard_was_brought_back_however_long_images_take_to_settle()
 {
    let settings = Settings {
        settle: Duration::from_secs(900),
        ..with(Some(TABLE), "")
    };
    let mut image = expecting("Windows");
    image.creation_date = now() - TimeDelta::minutes(20);
    let harness = Harness::with(image, settings).await;
    let event = || registered_at(now() - TimeDelta::minutes(20));
    harness.record(event()).await;
    restore(&harness);
    for held in [false, true] {
        minutes_pass(2).await;
        match harness.give(event()).await {
            Ok(record) => assert!(held && is_held_as_discarded_before(&record), "{record}"),
            Err(error) => assert!(!held && error.error_type() == "NotVisibleYet", "{error}"),
        }
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_that_an_image_is_not_available_to_be_deregistered_does_not_say_that_it_is_gone()
{
    let harness = harness_with_table(expecting("Windows")).await;
    harness.inject(Fault::always(
        "DeregisterImage",
        refuse(
            "InvalidAMIID.Unavailable",
            "not in a state in which it can be",
        ),
    ));
    let record = harness.record(registered()).await;
    assert_eq!(
        (&record["outcome"], &record["refusal"]),
        (&json!("refused"), &json!("other"))
    );
    assert_eq!(harness.told(), ["planned", "refused"]);
    assert!(harness.image_stands());
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_what_changed_since_an_image_was_verified_is_told_by_a_state_change() {
    for ledger in LEDGERS {
        let expect = |harness: &Harness, platform: &str| {
            change(harness, |image| {
                *image = tagged(image.clone(), "ami-billing-guard:expect", platform)
            });
        };
        // Nothing asks who registered it but whether a service did.
        let harness = Harness::with(expecting("Linux"), with(ledger, "")).await;
        assert_eq!(harness.record(registered()).await["verdict"], "verified");
        expect(&harness, "Windows");
        assert_eq!(harness.record(became_available()).await["kind"], "wrong");
        assert_eq!(harness.alerts().len(), 1);

        // A rule does, and the tag says otherwise than before.
        let rules =
            "[[exempt]]\nregistered_by = \"arn:aws:iam::*:user/other\"\nreason = \"theirs\"";
        let harness = Harness::with(expecting("Linux"), with(ledger, rules)).await;
        assert_eq!(harness.record(registered()).await["verdict"], "verified");
        expect(&harness, "Windows");
        harness.record(became_available()).await;
        assert_eq!(harness.alerts().len(), 1);
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_an_exemption_of_long_ago_clears_no_image_that_is_there_anew() {
    let rules = "[[exempt]]\nregistered_by = \"arn:aws:iam::*:user/builder\"\nreason = \"ours\"";
    let mut image = expecting("Windows");
    image.creation_date = now() - TimeDelta::hours(3);
    let harness = Harness::with(image, with(Some(TABLE), rules)).await;
    let long_ago = registered_at(now() - TimeDelta::hours(3));
    assert_eq!(harness.record(long_ago).await["verdict"], "exempt");
    harness.record(became_available()).await;
    assert_eq!(harness.alerts().len(), 1);
}

/// In observe mode, in which every mismatch is held.
fn observing(ledger: Option<&'static str>, policy: &str) -> Settings {
    Settings {
        mode: Mode::Observe,
        ..with(ledger, policy)
    }
}

/// The images that alerts of their own told of, in order.
fn alerted(harness: &Harness) -> Vec<String> {
    let alerts = harness.alerts();
    let alone = alerts.iter().filter_map(|alert| alert["image_id"].as_str());
    alone.map(str::to_owned).collect()
}

/// All images that people heard of, each as often as they did.
fn heard_of(harness: &Harness) -> Vec<String> {
    let mut heard = [alerted(harness), digested(harness)].concat();
    heard.sort();
    heard
}

fn ids(range: std::ops::Range<usize>) -> Vec<String> {
    range
        .map(|at| format!("ami-0a1b2c3d4e5f{at:05x}"))
        .collect()
}

/// Gives these events in batches of this many messages, one after the other. Nothing comes back.
async fn in_batches(harness: &Harness, events: &[Value], size: usize) {
    for events in events.chunks(size) {
        let bodies: Vec<String> = events.iter().map(Value::to_string).collect();
        let answer = harness.give(batch(&bodies)).await.unwrap();
        assert_eq!(answer["batchItemFailures"], json!([]));
    }
}

/// Forty images of a pipeline that uses up all tags sent forty mails.
#[tokio::test(crate = "crate::virtual_time")]
async fn regression_images_that_cannot_be_tagged_count_among_the_alerts_of_the_hour() {
    let (world, events) = many(4);
    let settings = with(
        Some(TABLE),
        "alert.max_per_hour = 1\n[discard]\nmax_per_hour = 10",
    );
    let harness = Harness::around(world, settings).await;
    let full = refuse("TagLimitExceeded", "no more");
    harness.inject(Fault::always("CreateTags", full));
    in_batches(&harness, &events, 1).await;
    assert_eq!(alerted(&harness), ids(0..2), "one, and the first over it");
    harness.record(hourly()).await;
    assert_eq!(heard_of(&harness), ids(0..4), "each once");
    let digest = harness.alerts().last().unwrap().clone();
    assert_eq!(digest["images"][0]["held_by"], json!(["untaggable"]));
}

/// Forty held mismatches sent forty mails.
#[tokio::test(crate = "crate::virtual_time")]
async fn regression_of_forty_held_images_twenty_and_one_are_told_at_once_and_the_others_in_the_digest()
 {
    for size in [40, 10] {
        let (world, events) = many(40);
        let harness = Harness::around(world, observing(Some(TABLE), "")).await;
        in_batches(&harness, &events, size).await;
        assert_eq!(alerted(&harness).len(), 21, "batches of {size}");
        let letters: Vec<String> = {
            let world = harness.sim.world();
            world.messages.iter().map(|it| it.body("email")).collect()
        };
        let over = |letter: &&String| letter.contains("alert.max_per_hour");
        assert_eq!(
            letters.iter().filter(over).count(),
            1,
            "the first over it says so"
        );

        // Nobody hears of one again because its event comes again, before the digest and after it.
        in_batches(&harness, &events, size).await;
        assert_eq!(alerted(&harness).len(), 21);
        harness.record(hourly()).await;
        assert_eq!(digested(&harness).len(), 19);
        in_batches(&harness, &events, size).await;
        harness.record(hourly()).await;
        assert_eq!(heard_of(&harness), ids(0..40), "each once");
        let digest = harness.alerts().last().unwrap().clone();
        assert_eq!(digest["images"][0]["held_by"], json!(["observe-mode"]));
        let letter = harness.sim.world().messages.last().unwrap().body("email");
        assert!(letter.contains("held by observe-mode"), "{letter}");
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn records_and_the_ledger_are_the_same_for_an_image_that_waits_for_the_digest() {
    let (world, events) = many(2);
    let settings = observing(Some(TABLE), "alert.max_per_hour = 0");
    let harness = Harness::around(world, settings).await;
    in_batches(&harness, &events, 10).await;
    assert_eq!(harness.alerts().len(), 0, "with 0 all of them wait");
    let journal = harness.journal.lock().unwrap().clone();
    assert_eq!(journal.len(), 2);
    for record in &journal {
        assert_eq!(
            (&record["action"], &record["held_by"]),
            (&json!("hold"), &json!(["observe-mode"]))
        );
        assert!(!record["fix"].as_array().unwrap().is_empty());
    }
    let item = |id: &str| {
        let world = harness.sim.world();
        json!(world.tables[TABLE].items[&format!("123456789012#eu-west-1#{id}")])
    };
    let kept: Value =
        serde_json::from_str(item(&ids(0..1)[0])["record"]["S"].as_str().unwrap()).unwrap();
    assert_eq!(kept["held_by"], json!(["observe-mode"]));
    harness.record(hourly()).await;
    assert_eq!(heard_of(&harness), ids(0..2));
}

#[tokio::test(crate = "crate::virtual_time")]
async fn the_number_of_alerts_is_exact_over_all_invocations_at_once() {
    let (world, events) = many(60);
    let harness = Harness::around(world, observing(Some(TABLE), "alert.max_per_hour = 7")).await;
    deal_with_all(&harness, 12, events).await;
    assert_eq!(alerted(&harness).len(), 8);
    harness.record(hourly()).await;
    assert_eq!(heard_of(&harness), ids(0..60), "each once");
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_new_hour_has_its_own_number_of_alerts() {
    let (world, events) = many(6);
    let harness = Harness::around(world, observing(Some(TABLE), "alert.max_per_hour = 1")).await;
    in_batches(&harness, &events[..3], 1).await;
    assert_eq!(alerted(&harness), ids(0..2));
    minutes_pass(60).await;
    in_batches(&harness, &events[3..], 1).await;
    assert_eq!(alerted(&harness), [ids(0..2), ids(3..5)].concat());
    harness.record(hourly()).await;
    assert_eq!(heard_of(&harness), ids(0..6), "each once");
}

#[tokio::test(crate = "crate::virtual_time")]
async fn discards_and_what_went_wrong_with_them_are_told_whatever_the_number() {
    let cases = [
        (None, "planned"),
        (
            Some(Fault::always("DeregisterImage", FaultKind::AccessDenied)),
            "refused",
        ),
    ];
    for (fault, last) in cases {
        let (world, events) = many(1);
        let settings = with(Some(TABLE), "alert.max_per_hour = 0");
        let harness = Harness::around(world, settings).await;
        if let Some(fault) = fault {
            harness.inject(fault);
        }
        harness.record(events[0].clone()).await;
        let alert = harness.alerts().last().unwrap().clone();
        let told = alert["outcome"].as_str().or(alert["held_by"][0].as_str());
        assert_eq!(told, Some(last));
    }
    // A discard that was cut off, and of which nobody knows whether somebody took it back.
    let (world, events) = many(1);
    let settings = with(Some(TABLE), "alert.max_per_hour = 0");
    let harness = Harness::around(world, settings).await;
    harness.inject(Fault::always("DeregisterImage", FaultKind::ResetBefore));
    harness.give(events[0].clone()).await.unwrap_err();
    turns_end().await;
    harness.sim.heal();
    let alerts = harness.alerts().len();
    let record = harness.record(events[0].clone()).await;
    assert_eq!(record["held_by"], json!(["discarded-before"]));
    assert_eq!(harness.alerts().len(), alerts + 1);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn conflicts_count_too_and_the_digest_has_a_message_for_each_verdict() {
    let (mut world, events) = many(4);
    for id in &ids(2..4) {
        let image = world.images.get_mut(id).unwrap();
        *image = billing(image.clone(), "Windows", "RunInstances:0010");
    }
    let harness = Harness::around(world, observing(Some(TABLE), "alert.max_per_hour = 0")).await;
    in_batches(&harness, &events, 10).await;
    assert_eq!(harness.alerts().len(), 0);
    harness.record(hourly()).await;
    let world = harness.sim.world();
    let verdicts: Vec<(String, usize)> = world
        .messages
        .iter()
        .map(|message| {
            let body: Value = serde_json::from_str(&message.body("sqs")).unwrap();
            let images = body["images"].as_array().unwrap().len();
            let attribute = message
                .attributes
                .iter()
                .find(|(name, _)| *name == "verdict");
            (attribute.unwrap().1.value.clone(), images)
        })
        .collect();
    assert_eq!(verdicts, [("mismatch".into(), 2), ("conflict".into(), 2)]);
}

/// Silence is worse than noise.
#[tokio::test(crate = "crate::virtual_time")]
async fn without_a_ledger_that_lasts_every_alert_goes_out_at_once() {
    let (world, events) = many(4);
    let harness = Harness::around(world, observing(None, "alert.max_per_hour = 0")).await;
    in_batches(&harness, &events, 10).await;
    assert_eq!(alerted(&harness).len(), 4, "in memory");

    // Down altogether, for the count alone, and for the digest alone.
    let faults = [
        Fault::always("UpdateItem", FaultKind::InternalError),
        Fault::always("TransactWriteItems", FaultKind::InternalError),
        Fault::from_nth("TransactWriteItems", 2, FaultKind::InternalError),
    ];
    for fault in faults {
        let (world, events) = many(2);
        let settings = observing(Some(TABLE), "alert.max_per_hour = 0");
        let harness = Harness::around(world, settings).await;
        harness.inject(fault);
        for event in &events {
            let _ = harness.give(event.clone()).await;
        }
        let waiting = {
            harness.sim.heal();
            harness.record(hourly()).await;
            digested(&harness)
        };
        assert_eq!(heard_of(&harness).len(), 2, "{waiting:?}");
        assert!(waiting.len() < 2, "{waiting:?}");
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_image_that_is_right_by_the_time_of_the_digest_is_not_in_it() {
    let (world, events) = many(3);
    let harness = Harness::around(world, observing(Some(TABLE), "alert.max_per_hour = 0")).await;
    in_batches(&harness, &events, 10).await;
    {
        let mut world = harness.sim.world();
        let image = world.images.get_mut(&ids(1..2)[0]).unwrap();
        *image = billing(image.clone(), "Windows", "RunInstances:0002");
    }
    in_batches(&harness, &events[1..2], 1).await;
    harness.record(hourly()).await;
    assert_eq!(heard_of(&harness), [ids(0..1), ids(2..3)].concat());
}
