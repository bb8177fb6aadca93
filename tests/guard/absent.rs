//! What is absent from an answer is not known: it never leads to a discard.

use std::collections::BTreeSet;

use chrono::DateTime;
use sim::{AttachedVolume, Volume};

use super::*;

const SNAPSHOT: &str = "snap-0a1b2c3d4e5f60001";
const PARENT_SNAPSHOT: &str = "snap-0a1b2c3d4e5f60002";
const VOLUME: &str = "vol-0a1b2c3d4e5f60001";
const OTHER_AMI: &str = "ami-0a1b2c3d4e5f60002";
const RULE: &str = "JSzDHyLPHm0";
const WINDOWS: (&str, &str) = ("Windows", "RunInstances:0002");

fn minutes_ago(minutes: i64) -> DateTime<Utc> {
    now() - TimeDelta::minutes(minutes)
}

/// An image that is right, with a tag that is wrong.
fn mistagged() -> Image {
    tagged(
        billing(image(), WINDOWS.0, WINDOWS.1),
        "ami-billing-guard:expect",
        "SUSE",
    )
}

/// An image that is due for a discard.
fn wrong() -> Image {
    expecting("Windows")
}

fn world_of(mut image: Image, change: impl FnOnce(&mut World)) -> World {
    let mut world = World::default();
    image.creation_date = minutes_ago(6);
    world.add_image(image);
    let mut snapshot = Snapshot::new(SNAPSHOT);
    snapshot.start_time = minutes_ago(20);
    world.add_snapshot(snapshot);
    change(&mut world);
    world
}

fn of_windows_instance(world: &mut World) {
    let mut volume = AttachedVolume::new("/dev/xvda", VOLUME);
    volume.attach_time = minutes_ago(60);
    let mut instance = Instance::new("i-0123456789abcdef0", "ami-0a1b2c3d4e5f60003");
    instance.launch_time = minutes_ago(60);
    instance.platform_details = Some(WINDOWS.0.into());
    instance.usage_operation = Some(WINDOWS.1.into());
    instance.volumes = vec![volume];
    world.add_instance(instance);
    if let Some(snapshot) = world.snapshots.get_mut(SNAPSHOT) {
        snapshot.volume_id = VOLUME.into();
    }
}

fn with_windows_image_on(world: &mut World, snapshot: &str) {
    let mut other = billing(Image::new(OTHER_AMI), WINDOWS.0, WINDOWS.1);
    other.block_devices[0].snapshot_id = Some(snapshot.into());
    other.creation_date = minutes_ago(600);
    world.add_image(other);
}

fn of_windows_parent(world: &mut World) {
    let mut volume = Volume::new(VOLUME);
    volume.snapshot_id = Some(PARENT_SNAPSHOT.into());
    world.add_volume(volume);
    if let Some(snapshot) = world.snapshots.get_mut(SNAPSHOT) {
        snapshot.volume_id = VOLUME.into();
    }
    with_windows_image_on(world, PARENT_SNAPSHOT);
}

/// Worlds in which an image is due for a discard, or seems to be, and something speaks against it.
fn what_must_not_be_discarded() -> Vec<(&'static str, World)> {
    let protected = {
        let mut image = wrong();
        image.deregistration_protection = Some("enabled-without-cooldown".into());
        image
    };
    let copied = {
        let mut image = wrong();
        image.source_image_id = Some(OTHER_AMI.into());
        image
    };
    let shared = {
        let mut image = wrong();
        image.shared_with.insert("210987654321".into());
        image
    };
    vec![
        (
            "right by its instance",
            world_of(mistagged(), of_windows_instance),
        ),
        (
            "right by an image on the same snapshot",
            world_of(mistagged(), |world| with_windows_image_on(world, SNAPSHOT)),
        ),
        (
            "right by the image that its volume was made from",
            world_of(mistagged(), of_windows_parent),
        ),
        (
            "right by its disk",
            super::disks::tagged_world("windows2022", WINDOWS, "SUSE"),
        ),
        (
            "in use",
            world_of(wrong(), |world| {
                let instance = Instance::new("i-0123456789abcdef1", AMI);
                world.add_instance(instance);
            }),
        ),
        ("shared", world_of(shared, |_| ())),
        ("protected", world_of(protected, |_| ())),
        ("copied", world_of(copied, |_| ())),
        (
            "nobody listens",
            world_of(wrong(), |world| {
                if let Some(topic) = world.topics.get_mut(TOPIC) {
                    topic.confirmed = 0;
                }
            }),
        ),
        (
            "no way back yet",
            world_of(wrong(), |world| {
                for rule in &mut world.recycle_bin_rules {
                    rule.status = "pending".into();
                }
            }),
        ),
    ]
}

async fn harness(world: World) -> Harness {
    let settings = Settings {
        policy: Policy::default(),
        wait: Duration::ZERO,
        ledger_table: Some("ami-billing-guard"),
        recycle_bin_rule: Some(RULE),
        ..Settings::default()
    };
    Harness::around(world, settings).await
}

/// Each element or key of each answer to an event: the action, which call of it, and the name.
async fn elements(world: World) -> Vec<(String, usize, String)> {
    let harness = harness(world).await;
    harness.sim.keep_answers();
    // Held, or a conflict, or an error: whatever comes of it.
    let _record = harness.give(registered()).await;
    let mut calls = std::collections::BTreeMap::new();
    let mut all = Vec::new();
    for (action, text) in harness.sim.answers() {
        let call = calls.entry(action.clone()).or_insert(0);
        *call += 1;
        let mut names = BTreeSet::new();
        if let Ok(json) = serde_json::from_str::<Value>(&text) {
            keys(&json, &mut names);
        } else {
            let starts = text
                .split('<')
                .skip(1)
                .filter(|it| !it.starts_with(['/', '?']));
            for start in starts {
                let end = start.find(['>', ' ', '/']).unwrap_or(start.len());
                let name: String = start.chars().take(end).collect();
                // Binary answers have none; `item` and `member` stand for each of a list.
                let is_name = name.chars().all(|char| char.is_ascii_alphanumeric());
                if is_name && !name.is_empty() && name != "item" && !name.ends_with("Response") {
                    names.insert(name);
                }
            }
        }
        all.extend(names.into_iter().map(|name| (action.clone(), *call, name)));
    }
    all
}

fn keys(json: &Value, names: &mut BTreeSet<String>) {
    match json {
        Value::Object(members) => {
            names.extend(members.keys().cloned());
            members.values().for_each(|value| keys(value, names));
        }
        Value::Array(values) => values.iter().for_each(|value| keys(value, names)),
        _ => {}
    }
}

/// The end of a list is that there is no token, as AWS defines it: nothing tells such an answer from a whole one.
const ENDS_A_LIST: [&str; 2] = ["NextToken", "nextToken"];

/// What EC2 leaves out where there is nothing to say: if it always does, nobody can tell. It refuses to deregister a protected
/// image itself.
const LEFT_OUT: [&str; 2] = ["deregistrationProtection", "sourceImageId"];

#[test]
fn whatever_is_missing_from_an_answer_leads_to_no_discard() {
    let worlds = virtual_time::each(&[()], async |()| what_must_not_be_discarded());
    let worlds: Vec<_> = worlds.into_iter().flatten().collect();
    let removals = virtual_time::each(&worlds, async |(what, world)| {
        let elements = elements(world.clone()).await;
        assert!(elements.len() > 20, "{what}: {}", elements.len());
        let decides = |element: &(String, usize, String)| !ENDS_A_LIST.contains(&&*element.2);
        let elements = elements.into_iter().filter(decides);
        // Of one answer, of an event as it comes; and for good, of one that comes late.
        let of_world = elements.flat_map(|element| {
            let for_good = !LEFT_OUT.contains(&&*element.2);
            let for_good = for_good.then(|| (element.clone(), true));
            std::iter::once((element, false)).chain(for_good)
        });
        let of_world =
            of_world.map(|(element, for_good)| (*what, world.clone(), element, for_good));
        of_world.collect::<Vec<_>>()
    });
    let removals: Vec<_> = removals.into_iter().flatten().collect();
    let discarded = virtual_time::each(&removals, async |(what, world, element, for_good)| {
        let (action, call, name) = element;
        let harness = harness(world.clone()).await;
        let without = FaultKind::Without(name.clone());
        let (fault, age) = match for_good {
            false => (Fault::nth(action, *call, without), 6),
            true => (Fault::from_nth(action, *call, without), 40),
        };
        harness.sim.inject(fault);
        let event = registered_at(now() - TimeDelta::minutes(age));
        let _record = harness.give(event).await;
        let calls = harness.calls();
        let stands = harness.image_stands() && !calls.contains(&"DeregisterImage".to_owned());
        (!stands).then(|| format!("{what}: {action} {call} without {name}, for good: {for_good}"))
    });
    let discarded: Vec<String> = discarded.into_iter().flatten().collect();
    println!(
        "{} removals, {} discards among them",
        removals.len(),
        discarded.len()
    );
    assert!(discarded.is_empty(), "{}", discarded.join("\n"));
}

/// Of an image that is to be discarded: whatever is missing, nobody is left without an alert.
#[tokio::test(crate = "crate::virtual_time")]
async fn whatever_is_missing_from_an_answer_there_is_no_discard_without_an_alert() {
    let world = world_of(wrong(), |_| ());
    let mut discards = 0;
    for (action, call, name) in elements(world.clone()).await {
        let harness = harness(world.clone()).await;
        let without = FaultKind::Without(name.clone());
        harness.sim.inject(Fault::nth(&action, call, without));
        let _record = harness.give(registered()).await;
        let calls = harness.calls();
        let position = |name: &str| calls.iter().position(|call| call == name);
        let words = format!("{action} {call} without {name}: {calls:?}");
        if let Some(act) = position("DeregisterImage") {
            discards += 1;
            assert!(
                position("Publish").is_some_and(|told| told < act),
                "{words}"
            );
            let unanswered = action == "Publish" && call == 1 && name == "MessageId";
            assert!(!unanswered, "{words}");
        }
    }
    assert!(discards > 20, "{discards}");
}
