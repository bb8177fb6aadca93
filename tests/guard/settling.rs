//! Young images: the queue hides their messages until they have settled, so that waiting costs one receive.

use std::collections::BTreeMap;

use super::*;
use chrono::{DateTime, SubsecRound};
use sim::Queue;

const SETTLE: i64 = 7200;
/// Two images beside [`AMI`].
const SETTLED: &str = "ami-0a1b2c3d4e5f60002";
const YOUNGER: &str = "ami-0a1b2c3d4e5f60003";

fn settings() -> Settings {
    Settings {
        settle: Duration::from_secs(SETTLE as u64),
        // What is not visible is not waited for.
        wait: Duration::ZERO,
        queue_url: Some(Queue::URL),
        ..Settings::default()
    }
}

/// A moment so many seconds ago. EC2 shows creation dates by the second.
fn ago(seconds: i64) -> DateTime<Utc> {
    now().trunc_subsecs(0) - TimeDelta::seconds(seconds)
}

/// A Linux/UNIX image that is expected to be Windows.
fn wrong(id: &str, created: DateTime<Utc>) -> Image {
    let mut image = tagged(Image::new(id), "ami-billing-guard:expect", "Windows");
    image.creation_date = created;
    image
}

async fn harness_with(images: Vec<Image>, settings: Settings) -> Harness {
    let mut world = World::default();
    for image in images {
        for snapshot in image.snapshot_ids() {
            world.add_snapshot(Snapshot::new(snapshot));
        }
        world.add_image(image);
    }
    Harness::around(world, settings).await
}

/// The registration of an image.
fn about(image: &str, created: DateTime<Utc>) -> Value {
    let mut event = registered_at(created);
    event["id"] = json!(format!("event-{image}"));
    event["detail"]["responseElements"]["imageId"] = json!(image);
    event
}

/// A batch as the queue hands it over: the message `message-n` has the receipt handle `receipt-n`.
fn batch(bodies: &[String]) -> Value {
    let messages = bodies.iter().enumerate().map(|(n, body)| {
        json!({ "messageId": format!("message-{n}"), "receiptHandle": format!("receipt-{n}"), "body": body })
    });
    json!({ "Records": messages.collect::<Vec<_>>() })
}

/// A batch with one event.
fn batch_of(event: &Value) -> Value {
    batch(&[event.to_string()])
}

/// The messages of a batch that come back.
fn failed(answer: &Value) -> Vec<&str> {
    let failures = answer["batchItemFailures"].as_array().unwrap().iter();
    let mut failed: Vec<&str> = failures
        .map(|it| it["itemIdentifier"].as_str().unwrap())
        .collect();
    failed.sort_unstable();
    failed
}

/// The receipt handles of the messages that SQS hides, and for how many seconds.
fn hidden(harness: &Harness) -> BTreeMap<String, u32> {
    harness.sim.world().queues[Queue::URL].hidden.clone()
}

/// How often SQS was asked.
fn asked(harness: &Harness) -> usize {
    let calls = harness.sim.calls();
    let hides = |call: &&sim::Call| call.service == sim::Service::Sqs;
    calls.iter().filter(hides).count()
}

#[tokio::test(crate = "crate::virtual_time")]
async fn the_message_of_a_young_image_is_hidden_for_what_is_left_and_its_image_judged_the_next_time()
 {
    let (young, settled, younger) = (ago(900), ago(SETTLE), ago(20));
    let images = [(AMI, young), (SETTLED, settled), (YOUNGER, younger)];
    let harness = harness_with(
        images.map(|(id, created)| wrong(id, created)).to_vec(),
        settings(),
    )
    .await;
    let events = images.map(|(id, created)| about(id, created).to_string());
    let before = now();
    let answer = harness.give(batch(&events)).await.unwrap();
    let after = now();

    assert_eq!(failed(&answer), ["message-0", "message-2"]);
    let hidden = hidden(&harness);
    assert_eq!(
        hidden.keys().collect::<Vec<_>>(),
        ["receipt-0", "receipt-2"]
    );
    for (receipt, created) in [("receipt-0", young), ("receipt-2", younger)] {
        // A second more than is left, whenever in between the image was looked at.
        let left = |now: DateTime<Utc>| SETTLE - (now - created).num_seconds() + 1;
        let seconds = i64::from(hidden[receipt]);
        assert!(
            (left(after)..=left(before)).contains(&seconds),
            "{receipt}: {seconds} is not from {} to {}",
            left(after),
            left(before)
        );
    }
    let left: Vec<String> = harness.sim.world().images.keys().cloned().collect();
    assert_eq!(left, [AMI, YOUNGER], "the settled one was discarded");
    assert_eq!(harness.alerts().len(), 1);

    for image in harness.sim.world().images.values_mut() {
        image.creation_date = settled;
    }
    let again = batch(&[events[0].clone(), events[2].clone()]);
    let answer = harness.give(again).await.unwrap();
    assert_eq!(failed(&answer), Vec::<&str>::new());
    assert!(harness.sim.world().images.is_empty());
    assert_eq!(asked(&harness), 2);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn that_a_message_cannot_be_hidden_changes_nothing_else() {
    let refused = [
        FaultKind::AccessDenied,
        FaultKind::Throttle,
        FaultKind::InternalError,
        FaultKind::ResetBefore,
        refuse("QueueDoesNotExist", "The specified queue does not exist."),
    ];
    for fault in refused {
        let created = ago(900);
        let images = vec![wrong(AMI, created), wrong(SETTLED, ago(SETTLE))];
        let harness = harness_with(images, settings()).await;
        harness.inject(Fault::always("ChangeMessageVisibility", fault.clone()));
        let events = [about(AMI, created), about(SETTLED, ago(SETTLE))].map(|it| it.to_string());
        let answer = harness.give(batch(&events)).await.unwrap();

        assert_eq!(failed(&answer), ["message-0"], "{fault:?}");
        assert!(hidden(&harness).is_empty());
        assert!(asked(&harness) >= 1);
        assert!(harness.image_stands());
        let world = harness.sim.world();
        assert!(!world.images.contains_key(SETTLED), "{fault:?}");
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_queue_that_does_not_answer_does_not_use_up_the_time_for_the_answer() {
    let created = ago(900);
    let harness = harness_with(vec![wrong(AMI, created)], settings()).await;
    let slow = FaultKind::Slow(Duration::from_secs(60));
    harness.inject(Fault::always("ChangeMessageVisibility", slow));
    let deadline = Deadline::now() + Duration::from_secs(6);
    let answer = harness
        .guard
        .handle(batch_of(&about(AMI, created)), deadline)
        .await;
    assert_eq!(failed(&json!(answer.unwrap())), ["message-0"]);
    // The SDK would have tried again after five seconds.
    assert_eq!(asked(&harness), 1);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn no_other_error_hides_a_message() {
    let settled = ago(SETTLE);
    let throttled = Fault::always("DescribeImages", FaultKind::Throttle);
    let denied = Fault::always("DescribeImages", FaultKind::AccessDenied);
    let no_ledger = Fault::always("DescribeImageReferences", FaultKind::Throttle);
    let cases = [
        (
            "Unavailable",
            about(AMI, settled).to_string(),
            Some(throttled),
        ),
        (
            "AccessDenied",
            about(AMI, settled).to_string(),
            Some(denied),
        ),
        (
            "NotFoundOut",
            about(AMI, settled).to_string(),
            Some(no_ledger),
        ),
        // EC2 does not show it yet.
        ("NotVisibleYet", about(YOUNGER, ago(20)).to_string(), None),
        ("MalformedEvent", "{".to_owned(), None),
        (
            "IdentityMayCome",
            became_available_at(settled).to_string(),
            None,
        ),
    ];
    for (error, body, fault) in cases {
        let harness = harness_with(vec![wrong(AMI, settled)], settings()).await;
        if let Some(fault) = fault {
            harness.inject(fault);
        }
        let bare = serde_json::from_str(&body).ok();
        let answer = harness.give(batch(&[body])).await.unwrap();
        assert_eq!(failed(&answer), ["message-0"], "{error}");
        assert_eq!(asked(&harness), 0, "{error}");
        if let Some(event) = bare {
            assert_eq!(harness.give(event).await.unwrap_err().error_type(), error);
        }
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn without_a_queue_url_or_a_message_nothing_is_hidden() {
    let created = ago(900);
    let event = about(AMI, created);
    let without_url = Settings {
        queue_url: None,
        ..settings()
    };
    let harness = harness_with(vec![wrong(AMI, created)], without_url).await;
    let answer = harness.give(batch_of(&event)).await.unwrap();
    assert_eq!((failed(&answer), asked(&harness)), (vec!["message-0"], 0));

    let harness = harness_with(vec![wrong(AMI, created)], settings()).await;
    let error = harness.give(event.clone()).await.unwrap_err();
    assert!(matches!(error, Error::NotSettled { .. }), "{error}");
    let mut without_handle = batch_of(&event);
    without_handle["Records"][0]
        .as_object_mut()
        .unwrap()
        .remove("receiptHandle");
    let answer = harness.give(without_handle).await.unwrap();
    assert_eq!((failed(&answer), asked(&harness)), (vec!["message-0"], 0));
}

#[tokio::test(crate = "crate::virtual_time")]
async fn every_message_of_a_young_image_is_hidden() {
    let created = ago(20);
    let harness = harness_with(vec![wrong(AMI, created)], settings()).await;
    let events = [about(AMI, created), became_available_at(created)].map(|it| it.to_string());
    let answer = harness.give(batch(&events)).await.unwrap();
    assert_eq!(failed(&answer), ["message-0", "message-1"]);
    assert_eq!(hidden(&harness).len(), 2);
}

/// Both events of a registration become visible when the image has settled, in any order: the one that does not say who
/// registered the image waits for the other, however long the settle time is.
#[tokio::test(crate = "crate::virtual_time")]
async fn after_a_long_settle_time_a_state_change_still_waits_for_who_registered_the_image() {
    let created = ago(SETTLE + 2);
    let harness = harness_with(vec![wrong(AMI, created)], settings()).await;
    let change = became_available_at(created);
    let error = harness.give(change.clone()).await.unwrap_err();
    assert!(matches!(error, Error::IdentityMayCome { .. }), "{error}");
    assert_eq!(harness.record(about(AMI, created)).await["outcome"], "done");
    assert_eq!(harness.alerts().len(), 1);

    // Six minutes later none is under way any more.
    let created = ago(SETTLE + 360);
    let harness = harness_with(vec![wrong(AMI, created)], settings()).await;
    let record = harness.record(became_available_at(created)).await;
    assert_eq!(record["held_by"], json!(["identity-unknown"]));
}
