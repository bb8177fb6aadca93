//! The images of a batch are looked at together, and judged as if each had come alone.

use chrono::DateTime;
use sim::{AttachedVolume, Call, Volume};

use super::*;

const WINDOWS: (&str, &str) = ("Windows", "RunInstances:0002");
const LINUX: (&str, &str) = ("Linux/UNIX", "RunInstances");

/// What the account keeps its golden images of.
const PARENT_SNAPSHOT: &str = "snap-0b1b2c3d4e5f00000";

fn minutes_ago(minutes: i64) -> DateTime<Utc> {
    now() - TimeDelta::minutes(minutes)
}

fn id(kind: &str, number: usize) -> String {
    format!("{kind}-0a1b2c3d4e5f7{number:04}")
}

fn image_of(number: usize, bills: (&str, &str)) -> Image {
    let mut image = billing(Image::new(id("ami", number)), bills.0, bills.1);
    image.block_devices[0].snapshot_id = Some(id("snap", number));
    image.creation_date = minutes_ago(6);
    image
}

/// An image on a snapshot of the root volume of an instance that is billed as Windows.
fn of_a_windows_instance(world: &mut World, number: usize, image: Image) {
    let mut volume = AttachedVolume::new("/dev/xvda", id("vol", number));
    volume.attach_time = minutes_ago(60);
    let mut instance = Instance::new(id("i", number), "ami-0a1b2c3d4e5f60002");
    instance.launch_time = minutes_ago(60);
    instance.platform_details = Some(WINDOWS.0.into());
    instance.usage_operation = Some(WINDOWS.1.into());
    instance.volumes = vec![volume];
    world.add_instance(instance);
    add(world, number, image);
}

/// An image on a snapshot of a volume that was made from a snapshot, and is attached to nothing.
fn of_a_volume(world: &mut World, number: usize, image: Image, made_from: &str) {
    let mut volume = Volume::new(id("vol", number));
    volume.snapshot_id = Some(made_from.into());
    world.add_volume(volume);
    add(world, number, image);
}

fn add(world: &mut World, number: usize, image: Image) {
    let mut snapshot = Snapshot::new(id("snap", number));
    snapshot.start_time = minutes_ago(20);
    snapshot.volume_id = id("vol", number);
    world.add_snapshot(snapshot);
    world.add_image(image);
}

/// Ten images, with all that there is: nine ways to a verdict, and one of them twice.
fn ten() -> World {
    let mut world = World::default();
    let expecting = |number, expected: &str, bills| {
        tagged(
            image_of(number, bills),
            "ami-billing-guard:expect",
            expected,
        )
    };
    of_a_windows_instance(&mut world, 0, image_of(0, WINDOWS));
    of_a_windows_instance(&mut world, 1, image_of(1, WINDOWS));
    of_a_windows_instance(&mut world, 2, image_of(2, LINUX));
    of_a_windows_instance(&mut world, 3, expecting(3, "Windows", WINDOWS));
    of_a_windows_instance(&mut world, 4, expecting(4, "Windows", LINUX));
    of_a_volume(&mut world, 5, image_of(5, WINDOWS), PARENT_SNAPSHOT);
    of_a_volume(&mut world, 6, image_of(6, LINUX), "snap-0c1b2c3d4e5f00000");
    of_a_volume(
        &mut world,
        7,
        expecting(7, "Linux", LINUX),
        "snap-0c1b2c3d4e5f00000",
    );
    add(&mut world, 8, image_of(8, ("", "")));
    add(&mut world, 9, image_of(9, ("Solaris", "RunInstances:vvvv")));
    let mut parent = billing(Image::new("ami-0a1b2c3d4e5f60003"), WINDOWS.0, WINDOWS.1);
    parent.block_devices[0].snapshot_id = Some(PARENT_SNAPSHOT.into());
    world.add_image(parent);
    world.add_snapshot(Snapshot::new(PARENT_SNAPSHOT));
    world
}

fn event_of(number: usize) -> Value {
    let mut event = registered();
    event["id"] = json!(format!("of-{number}"));
    event["detail"]["responseElements"]["imageId"] = json!(id("ami", number));
    event
}

fn ten_events() -> Value {
    let events: Vec<String> = (0..10).map(|number| event_of(number).to_string()).collect();
    batch(&events)
}

/// The policy asks where each image comes from. Nothing is discarded, so that nothing is looked at twice.
async fn harness(world: World) -> Harness {
    let mut settings = Settings::policy("");
    settings.policy.lineage = Asked::Always;
    settings.mode = Mode::Observe;
    Harness::around(world, settings).await
}

/// What the records say of each image, but for when they say it.
fn said(harness: &Harness) -> Vec<(Value, Value)> {
    let journal = harness.journal.lock().unwrap();
    let parts = [
        "verdict", "kind", "reason", "actual", "expected", "evidence", "action",
    ];
    let mut said: Vec<(Value, Value)> = journal
        .iter()
        .map(|record| {
            let said = parts.map(|part| (part.to_owned(), record[part].clone()));
            (
                record["image_id"].clone(),
                Value::Object(said.into_iter().collect()),
            )
        })
        .collect();
    said.sort_by_key(|(image, _)| image.to_string());
    said
}

fn asks_about(call: &Call) -> bool {
    call.action.starts_with("Describe")
}

/// The calls to EC2 before the first one that is made only where something is wrong.
fn up_to_the_verdicts(harness: &Harness) -> Vec<String> {
    let calls = harness.sim.calls();
    let calls = calls.into_iter().filter(asks_about).map(named);
    calls
        .filter(|call| !AROUND.contains(&call.as_str()) && call != "DescribeSnapshotAttribute")
        .collect()
}

fn count(calls: &[String], action: &str) -> usize {
    calls.iter().filter(|call| *call == action).count()
}

#[tokio::test(crate = "crate::virtual_time")]
async fn the_images_of_a_batch_are_judged_as_if_each_had_come_alone() {
    let one_by_one = harness(ten()).await;
    for number in 0..10 {
        // What is not found out, or held, is an error: the record says why.
        let _error = one_by_one.give(event_of(number)).await.err();
    }
    let together = harness(ten()).await;
    together.record(ten_events()).await;
    let (alone, batched) = (said(&one_by_one), said(&together));
    assert_eq!(batched.len(), 10);
    for (alone, batched) in alone.iter().zip(&batched) {
        assert_eq!(alone, batched);
    }
    let verdicts: Vec<&Value> = batched.iter().map(|(_, said)| &said["verdict"]).collect();
    assert_eq!(
        verdicts,
        [
            "verified",
            "verified",
            "mismatch",
            "verified",
            "mismatch",
            "verified",
            "unverifiable",
            "verified",
            "mismatch",
            "unverifiable"
        ]
    );
}

#[tokio::test(crate = "crate::virtual_time")]
async fn ten_events_of_a_batch_cost_at_most_one_and_a_half_calls_each_up_to_the_verdict() {
    let mut verified = World::default();
    for number in 0..10 {
        of_a_windows_instance(&mut verified, number, image_of(number, WINDOWS));
    }
    for (world, most) in [(verified, 4), (ten(), 15)] {
        let harness = harness(world).await;
        harness.record(ten_events()).await;
        let calls = up_to_the_verdicts(&harness);
        assert_eq!(said(&harness).len(), 10);
        assert!(calls.len() <= most, "{} of {most}: {calls:?}", calls.len());
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_image_that_ec2_does_not_show_spoils_no_other_of_its_batch() {
    let mut world = ten();
    world.images.remove(&id("ami", 9));
    let harness = harness(world).await;
    let answer = harness.record(ten_events()).await;
    let failed = answer["batchItemFailures"].as_array().unwrap();
    let failed: Vec<&Value> = failed.iter().map(|it| &it["itemIdentifier"]).collect();
    assert!(failed.contains(&&json!("m-9")), "{failed:?}");
    let said = said(&harness);
    assert_eq!(said.len(), 9);
    assert_eq!(said[0].1["verdict"], "verified");
    let calls = up_to_the_verdicts(&harness);
    assert_eq!(count(&calls, "DescribeSnapshots"), 1, "{calls:?}");
}

/// The first call of each kind is that of all images together.
#[tokio::test(crate = "crate::virtual_time")]
async fn what_cannot_be_asked_together_is_asked_for_each_image() {
    let undisturbed = harness(ten()).await;
    undisturbed.record(ten_events()).await;
    for action in [
        "DescribeImages",
        "DescribeSnapshots",
        "DescribeVolumes",
        "DescribeInstances",
    ] {
        let refused = refuse("InvalidParameterValue", "this list is not accepted");
        // The first is tried three times.
        for (attempts, fault) in [(3, FaultKind::InternalError), (1, refused)] {
            let harness = harness(ten()).await;
            for attempt in 1..=attempts {
                harness.inject(Fault::nth(action, attempt, fault.clone()));
            }
            harness.record(ten_events()).await;
            assert_eq!(said(&harness), said(&undisturbed), "{action}: {fault:?}");
        }
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_look_at_all_that_takes_too_long_is_given_up_for_looks_at_each() {
    let harness = harness(ten()).await;
    // A search among everybody's images, which only two of the ten need.
    super::lookups::slow_among_others(&harness, Duration::from_secs(8));
    harness.record(ten_events()).await;
    let undisturbed = self::harness(ten()).await;
    undisturbed.record(ten_events()).await;
    assert_eq!(said(&harness), said(&undisturbed));
}

#[tokio::test(crate = "crate::virtual_time")]
async fn two_events_of_one_image_in_a_batch_see_what_the_first_of_them_did() {
    let mut world = World::default();
    for number in 0..2 {
        let image = tagged(
            image_of(number, LINUX),
            "ami-billing-guard:expect",
            "Windows",
        );
        add(&mut world, number, image);
    }
    let harness = Harness::around(world, Settings::default()).await;
    let events = [event_of(0), event_of(1), event_of(0)].map(|event| event.to_string());
    let answer = harness.record(batch(&events)).await;
    assert_eq!(answer["batchItemFailures"], json!([]));
    let world = harness.sim.world();
    assert_eq!(world.recycle_bin.len(), 2);
    drop(world);
    assert_eq!(harness.told(), ["planned", "planned"]);
    let acts = harness.calls();
    assert_eq!(count(&acts, "DeregisterImage"), 2);
}

/// EC2 takes 200 values of a filter, and asks for no more ids than that.
#[tokio::test(crate = "crate::virtual_time")]
async fn of_a_batch_of_hundreds_no_call_names_more_images_than_ec2_takes() {
    let mut world = World::default();
    for number in 0..250 {
        of_a_windows_instance(&mut world, number, image_of(number, WINDOWS));
    }
    let harness = harness(world).await;
    let events: Vec<String> = (0..250)
        .map(|number| event_of(number).to_string())
        .collect();
    let answer = harness.record(batch(&events)).await;
    assert_eq!(answer["batchItemFailures"], json!([]));
    assert_eq!(said(&harness).len(), 250);
    let named = |call: &Call| {
        let ids = call.params.keys();
        ids.filter(|key| key.starts_with("ImageId.")).count()
    };
    let calls = harness.sim.calls();
    let described = calls.iter().filter(|call| call.action == "DescribeImages");
    assert_eq!(described.map(named).max(), Some(200));
}
