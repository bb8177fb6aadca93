//! The scheduled audit, from the server's side: what no event told of is dealt with, everything else is only told of,
//! in one message, and however many images there are, each is looked at once.

use super::alerts::{CHAT, compare, forms};
use super::disks::LINUX;
use super::ledger::{crash_at, turns_end};
use super::*;

const TABLE: &str = "ami-billing-guard";
const AUDITS: &str = "audit#123456789012#eu-west-1";
/// The image of number one.
const AMI_1: &str = "ami-0a1b2c3d4e5f00001";

fn settings(policy: &str) -> Settings {
    Settings {
        ledger_table: Some(TABLE),
        wait: Duration::from_millis(300),
        ..Settings::policy(policy)
    }
}

/// A state change does not say who registered an image, and an audit does not know it either: this policy does not ask.
const NOBODY_ASKS: &str = "[discard]\nservice_registered = \"discard\"";

/// An image of so many hours ago.
fn aged(number: usize, hours: i64) -> Image {
    let mut image = Image::new(format!("ami-0a1b2c3d4e5f{number:05x}"));
    image.name = format!("golden-{number}");
    image.creation_date = now() - TimeDelta::hours(hours);
    image
}

fn expects(image: Image, expectation: &str) -> Image {
    tagged(image, "ami-billing-guard:expect", expectation)
}

fn windows(image: Image) -> Image {
    billing(expects(image, "Windows"), "Windows", "RunInstances:0002")
}

/// A harness whose guard audited for the first time a week ago.
async fn harness(images: impl IntoIterator<Item = Image>, settings: Settings) -> Harness {
    audited_before(Harness::with_chat(world(images), settings).await)
}

/// A harness in which nothing is told beside the rest: whatever is called, is so in the same order each time.
async fn harness_without_chat(
    images: impl IntoIterator<Item = Image>,
    settings: Settings,
) -> Harness {
    audited_before(Harness::around(world(images), settings).await)
}

fn world(images: impl IntoIterator<Item = Image>) -> World {
    let mut world = World::default();
    for image in images {
        for snapshot in image.snapshot_ids() {
            world.add_snapshot(Snapshot::new(snapshot));
        }
        world.add_image(image);
    }
    world
}

fn audited_before(harness: Harness) -> Harness {
    let week = (now() - TimeDelta::days(7)).timestamp_millis();
    remember(&harness, "id", json!({ "S": AUDITS }));
    remember(&harness, "since_ms", json!({ "N": week.to_string() }));
    harness
}

/// Has the ledger say this of the audits.
fn remember(harness: &Harness, name: &str, value: Value) {
    let mut world = harness.sim.world();
    let items = &mut world.tables.get_mut(TABLE).unwrap().items;
    items
        .entry(AUDITS.into())
        .or_default()
        .insert(name.into(), value);
}

/// The schedule's event for the `n`th day.
fn scheduled(n: u32) -> Value {
    json!({
        "version": "0", "id": format!("d32c5kddcf5bb8c{n}"), "detail-type": "Audit", "source": "ami-billing-guard",
        "account": "123456789012", "region": "eu-west-1", "time": format!("2026-11-{:02}T04:00:00Z", n + 1),
        "resources": [], "detail": {}
    })
}

/// The event of an image's registration.
fn event_of(image: &Image) -> Value {
    let mut event = registered_at(image.creation_date);
    event["id"] = format!("event-of-{}", image.id).into();
    event["detail"]["responseElements"]["imageId"] = image.id.clone().into();
    event
}

/// The summaries that were published, as programs get them.
fn summaries(harness: &Harness) -> Vec<Value> {
    let mut alerts = harness.alerts();
    alerts.retain(|alert| alert["digest"] == "audit");
    alerts
}

/// Number and images of a group of a summary.
fn group(summary: &Value, name: &str) -> (u64, Vec<String>) {
    let group = &summary["groups"][name];
    let images = group["images"].as_array().cloned().unwrap_or_default();
    let ids = images
        .iter()
        .map(|image| image["image_id"].as_str().unwrap().to_owned());
    (group["number"].as_u64().unwrap_or(0), ids.collect())
}

fn count(harness: &Harness, action: &str) -> usize {
    harness
        .calls()
        .iter()
        .filter(|call| *call == action)
        .count()
}

fn stand(harness: &Harness) -> usize {
    harness.sim.world().images.len()
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_image_that_no_event_told_of_is_dealt_with_as_if_one_had_and_nothing_else_is() {
    let missed = expects(aged(1, 2), "Windows");
    let others = [
        // Older than three days, and before the guard.
        expects(aged(2, 80), "Windows"),
        expects(aged(3, 200), "Windows"),
        // Its event may be on its way.
        expects(aged(4, 0), "Windows"),
        {
            let mut created = expects(aged(5, 2), "Windows");
            created.source_instance_id = Some("i-0a1b2c3d4e5f60001".into());
            created
        },
        {
            let mut copied = expects(aged(6, 2), "Windows");
            copied.source_image_id = Some("ami-0a1b2c3d4e5f6000a".into());
            copied
        },
    ];
    let id = missed.id.clone();
    let harness = harness([missed].into_iter().chain(others), settings(NOBODY_ASKS)).await;
    let record = harness.record(scheduled(1)).await;

    assert_eq!(record["verdict"], "ignored");
    assert!(!harness.sim.world().images.contains_key(&id));
    assert_eq!(
        (stand(&harness), count(&harness, "DeregisterImage")),
        (5, 1)
    );
    let own = harness.alerts().into_iter().next().unwrap();
    assert_eq!(
        (&own["image_id"], &own["outcome"]),
        (&json!(id), &json!("planned"))
    );
    let [summary] = &summaries(&harness)[..] else {
        panic!()
    };
    assert_eq!(group(summary, "missed"), (1, vec![id]));
    assert_eq!(summary["groups"]["missed"]["images"][0]["outcome"], "done");
    assert_eq!(group(summary, "mismatch").0, 4);
    assert_eq!(summary["looked_at"], 6);
    assert_eq!(
        harness.audited(),
        [json!({
            "event_id": "d32c5kddcf5bb8c1", "looked_at": 6, "unchanged": 0, "missed": 1, "mismatches": 4, "unrecognised": 0,
            "complete": true
        })]
    );
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_event_counts_as_lost_45_minutes_after_its_image_has_settled() {
    for (settle_minutes, age_minutes, lost) in [
        (0, 44, 0),
        (0, 46, 1),
        (5, 49, 0),
        (5, 51, 1),
        (120, 164, 0),
        (120, 166, 1),
    ] {
        let mut image = expects(aged(1, 0), "Windows");
        image.creation_date = now() - TimeDelta::minutes(age_minutes);
        let settings = Settings {
            settle: Duration::from_secs(settle_minutes * 60),
            ..settings(NOBODY_ASKS)
        };
        // One that is told of in any case.
        let harness = harness([image, expects(aged(2, 80), "Windows")], settings).await;
        harness.record(scheduled(1)).await;
        let [summary] = &summaries(&harness)[..] else {
            panic!()
        };
        let case = format!("{age_minutes} of {settle_minutes}");
        assert_eq!(group(summary, "missed").0, lost, "{case}");
        assert_eq!(group(summary, "mismatch").0, 1, "{case}");
        assert_eq!(stand(&harness), 2 - lost as usize, "{case}");
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn what_policy_and_mode_hold_of_an_image_that_was_not_heard_of_stands() {
    let observe = Settings {
        mode: Mode::Observe,
        ..settings(NOBODY_ASKS)
    };
    for (settings, held_by) in [
        (observe, "observe-mode"),
        (settings(""), "identity-unknown"),
    ] {
        let harness = harness([expects(aged(1, 2), "Windows")], settings).await;
        harness.record(scheduled(1)).await;
        assert_eq!(stand(&harness), 1);
        let summary = summaries(&harness).remove(0);
        let image = &summary["groups"]["missed"]["images"][0];
        assert!(
            image["held_by"]
                .as_array()
                .unwrap()
                .contains(&json!(held_by))
        );
        // The next day it is one whose discard is held.
        harness.record(scheduled(2)).await;
        let summary = summaries(&harness).remove(1);
        assert_eq!(
            (group(&summary, "missed").0, group(&summary, "held").0),
            (0, 1)
        );
        assert_eq!(harness.alerts().len(), 3, "its own, and two summaries");
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn nothing_from_before_the_first_audit_is_taken_for_one_that_was_not_heard_of() {
    let harness = harness([expects(aged(1, 2), "Windows")], settings(NOBODY_ASKS)).await;
    harness
        .sim
        .world()
        .tables
        .get_mut(TABLE)
        .unwrap()
        .items
        .clear();
    harness.record(scheduled(1)).await;
    harness.record(scheduled(2)).await;
    assert_eq!(stand(&harness), 1);
    for summary in summaries(&harness) {
        assert_eq!(
            (group(&summary, "missed").0, group(&summary, "mismatch").0),
            (0, 1)
        );
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn what_is_known_and_as_it_was_costs_no_call_and_what_changed_is_judged_anew() {
    let exempt = "[[exempt]]\nname = \"golden-2\"\nreason = \"ours\"";
    let images = [windows(aged(1, 2)), expects(aged(2, 2), "Windows")];
    let harness = harness(images.clone(), settings(exempt)).await;
    for image in &images {
        harness.record(event_of(image)).await;
    }
    harness.sim.forget_calls();
    harness.record(scheduled(1)).await;
    assert_eq!(
        harness.calls(),
        ["UpdateItem", "DescribeImages", "BatchGetItem", "UpdateItem"]
    );
    assert_eq!(harness.alerts().len(), 0, "of nothing there is no message");
    assert_eq!(harness.audited()[0]["unchanged"], 2);

    harness
        .sim
        .world()
        .images
        .insert(images[0].id.clone(), expects(images[0].clone(), "RedHat"));
    harness.record(scheduled(2)).await;
    assert_eq!(
        group(&summaries(&harness)[0], "mismatch"),
        (1, vec![images[0].id.clone()])
    );
}

/// What an audit by one policy makes of an image that was judged by another one: how many are unchanged, and the
/// groups of the summary.
async fn audited_by(policy: &str, image: &Image, before: &str) -> (u64, Vec<String>) {
    let known = harness([image.clone()], settings(before)).await;
    known.record(event_of(image)).await;
    let harness = harness([image.clone()], settings(policy)).await;
    let items = known.sim.world().tables[TABLE].items.clone();
    harness.sim.world().tables.get_mut(TABLE).unwrap().items = items;
    harness.record(scheduled(1)).await;
    let groups = summaries(&harness)
        .first()
        .map_or(json!({}), |it| it["groups"].clone());
    let groups = groups.as_object().unwrap().keys().cloned().collect();
    (harness.audited()[0]["unchanged"].as_u64().unwrap(), groups)
}

#[tokio::test(crate = "crate::virtual_time")]
async fn what_is_known_is_judged_anew_where_the_policy_says_something_else_of_it() {
    let rule =
        |platform: &str| format!("[[expect]]\nname = \"golden-*\"\nplatform = \"{platform}\"\n");
    let default = |platform: &str| format!("defaults.expect = \"{platform}\"\n");
    let moved = format!("\n\n{}", rule("Linux"));
    let exempt = "[[exempt]]\nname = \"golden-*\"\nreason = \"ours\"\n".to_owned();
    let by = "[[exempt]]\nregistered_by = \"*:user/builder\"\nreason = \"ours\"\n".to_owned();
    let by_nobody = by.replace("builder", "nobody").replace("ours", "theirs");
    let expects_by = "[[expect]]\nregistered_by = \"*\"\nplatform = \"Linux\"\n".to_owned();
    let codes = |codes: &str| format!("[[expect]]\nname = '*'\nproduct_codes = {codes}\n");
    let none = String::new();
    let plain = aged(1, 90);
    let (linux, windows) = (
        expects(plain.clone(), "Linux"),
        expects(plain.clone(), "Windows"),
    );
    // The image, the policy by which it was judged, the one by which it is audited, whether it is unchanged, and the
    // group it is told of in.
    for (image, before, now, unchanged, told) in [
        (&plain, rule("Linux"), rule("Linux"), 1, None),
        (&plain, rule("Linux"), moved, 1, None),
        (&plain, rule("Linux"), rule("Windows"), 0, Some("mismatch")),
        (&plain, rule("Linux"), none.clone(), 0, Some("unverifiable")),
        (&plain, rule("Windows"), rule("Linux"), 0, None),
        (&plain, default("Linux"), default("Linux"), 1, None),
        (
            &plain,
            default("Linux"),
            default("Windows"),
            0,
            Some("mismatch"),
        ),
        // A tag is stronger than any rule and default.
        (&linux, none.clone(), rule("Windows"), 1, None),
        (&linux, none.clone(), default("Windows"), 1, None),
        (&windows, exempt.clone(), exempt.clone(), 1, None),
        (&windows, exempt.clone(), none.clone(), 0, Some("mismatch")),
        (&windows, none.clone(), exempt.clone(), 0, None),
        // But product codes are named by rules alone.
        (&linux, codes("[]"), codes("[]"), 1, None),
        (&linux, codes("[]"), none.clone(), 0, None),
        (
            &linux,
            none.clone(),
            codes("['aacglxeowvn5hy8sznltowyqe']"),
            0,
            Some("mismatch"),
        ),
        (
            &linux,
            codes("[]"),
            codes("['aacglxeowvn5hy8sznltowyqe']"),
            0,
            Some("mismatch"),
        ),
        // Who registered it, no audit knows.
        (&windows, by.clone(), by.clone(), 1, None),
        (&linux, none.clone(), by.clone(), 1, None),
        (&plain, expects_by.clone(), expects_by.clone(), 1, None),
        (
            &plain,
            expects_by.clone(),
            format!("{}{expects_by}", default("Windows")),
            1,
            None,
        ),
        // But that nobody knows whether one rule exempts it hides no other that is gone.
        (
            &plain,
            format!("{by_nobody}{}", rule("Linux")),
            by_nobody.clone(),
            0,
            Some("unverifiable"),
        ),
        (
            &windows,
            format!("{exempt}{by_nobody}"),
            by_nobody,
            0,
            Some("mismatch"),
        ),
    ] {
        let expected = (unchanged, told.map(str::to_owned).into_iter().collect());
        let found = audited_by(&now, image, &before).await;
        assert_eq!(found, expected, "{before:?}, then {now:?}");
    }
}

/// What EC2 may say one day: an image is right by its usage operation, and what is new is listed all the same, each day.
#[tokio::test(crate = "crate::virtual_time")]
async fn what_ec2_says_that_is_new_is_listed_each_day_with_the_image_also_if_the_image_is_right() {
    let right = billing(
        expects(aged(1, 90), "Windows"),
        "Windows 3000",
        "RunInstances:0002",
    );
    let wrong = billing(
        expects(aged(2, 90), "Windows"),
        "Linux/UNIX 2",
        "RunInstances",
    );
    let unknown = billing(aged(3, 90), "OS/2", "RunInstances:zzzz");
    let other = windows(aged(4, 90));
    let (id, event) = (right.id.clone(), event_of(&right));
    let harness = harness([right, wrong, unknown, other], settings("")).await;
    let record = harness.record(event).await;
    assert_eq!(record["verdict"], "verified");
    for day in 1..3 {
        harness.record(scheduled(day)).await;
        let summary = summaries(&harness).pop().unwrap();
        let (number, listed) = group(&summary, "unrecognised");
        assert_eq!((number, listed.contains(&id)), (2, true), "{summary}");
        assert_eq!(group(&summary, "mismatch").0, 1);
        assert_eq!(group(&summary, "unverifiable").0, 0);
        assert_eq!(harness.audited().pop().unwrap()["unrecognised"], 3);
        let mail = harness.published_on(TOPIC).pop().unwrap().body("email");
        for said in [
            "Windows 3000 (RunInstances:0002)",
            "OS/2 (RunInstances:zzzz)",
            "Linux/UNIX 2 (RunInstances)",
        ] {
            assert!(mail.contains(said), "{said} in {mail}");
        }
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn everything_else_is_told_of_in_its_group_and_stands() {
    let images = [
        expects(aged(1, 90), "Windows"),
        billing(aged(2, 90), "Windows", "RunInstances:0010"),
        aged(3, 90),
        windows(aged(4, 90)),
        expects(aged(5, 2), "Windows"),
    ];
    let mut in_use = Instance::new("i-1", &images[4].id);
    in_use.state = "running".into();
    let harness = harness(images.clone(), settings("")).await;
    harness.sim.world().add_instance(in_use);
    assert_eq!(
        harness.record(event_of(&images[4])).await["held_by"],
        json!(["in-use"])
    );
    harness.sim.forget_calls();
    harness.record(scheduled(1)).await;

    let summary = summaries(&harness).remove(0);
    for (name, image) in [
        ("mismatch", 0),
        ("conflict", 1),
        ("unverifiable", 2),
        ("held", 4),
    ] {
        assert_eq!(
            group(&summary, name),
            (1, vec![images[image].id.clone()]),
            "{name}"
        );
    }
    assert_eq!(group(&summary, "missed").0, 0);
    assert_eq!(
        summary["groups"]["held"]["images"][0]["held_by"],
        json!(["in-use"])
    );
    assert_eq!(
        summary["groups"]["mismatch"]["images"][0]["held_by"],
        json!(["too-old", "identity-unknown"])
    );
    assert_eq!(stand(&harness), 5);
    let mut deeds = harness.calls();
    deeds.retain(|call| !looks(call));
    // Chat is told beside the rest.
    deeds.sort();
    assert_eq!(deeds, ["Publish", "Publish", "UpdateItem", "UpdateItem"]);
}

/// An image of two hours ago with Red Hat on its disk.
fn with_red_hat(bills: (&str, &str)) -> Image {
    let world = super::disks::world("rhel9-rhui", bills);
    let mut image = world.images.into_values().next().unwrap();
    image.creation_date = now() - TimeDelta::hours(2);
    image
}

/// A harness with this image, and a guard that reads disks. `before`: another one, whose ledger it has.
async fn harness_of_disk(image: &Image, policy: &str, before: Option<&Harness>) -> Harness {
    let text = format!("version = 1\nevidence.lineage = \"never\"\n{policy}");
    let settings = Settings {
        policy: Policy::parse("policy.toml", &text).unwrap(),
        ..settings("")
    };
    let harness = harness([], settings).await;
    let disk = super::disks::world("rhel9-rhui", LINUX);
    let items = before.map(|it| it.sim.world().tables[TABLE].items.clone());
    {
        let mut world = harness.sim.world();
        world.snapshots = disk.snapshots;
        world.add_image(image.clone());
        let table = world.tables.get_mut(TABLE).unwrap();
        table.items.extend(items.unwrap_or_default());
    }
    harness
}

#[tokio::test(crate = "crate::virtual_time")]
async fn what_its_disk_told_of_an_image_stands_though_no_audit_reads_disks() {
    let red_hat = ("Red Hat Enterprise Linux", "RunInstances:0010");
    let default = "defaults.expect = \"Linux\"";
    let rule = "[[expect]]\nname = \"*\"\nplatform = \"Windows\"";
    // What it bills and declares; its verdict; what the policy says by the time of the audit; and where it is told of.
    for (bills, declared, verdict, now, told) in [
        // The disk decided alone.
        (LINUX, None, "mismatch", "", Some("held")),
        (LINUX, None, "mismatch", default, Some("held")),
        (red_hat, None, "verified", "", None),
        (red_hat, None, "verified", default, None),
        // Or it contradicts the tag.
        (LINUX, Some("Windows"), "conflict", "", Some("conflict")),
        (
            LINUX,
            Some("Windows"),
            "conflict",
            default,
            Some("conflict"),
        ),
        // What is declared by now may contradict it, as well.
        (LINUX, None, "mismatch", rule, Some("conflict")),
    ] {
        let mut image = with_red_hat(bills);
        if let Some(declared) = declared {
            image = expects(image, declared);
        }
        let before = harness_of_disk(&image, "", None).await;
        let record = before.record(event_of(&image)).await;
        assert_eq!(record["verdict"], verdict, "{record}");
        assert!(
            record["reason"].as_str().unwrap().contains("disk expects"),
            "{record}"
        );
        let harness = harness_of_disk(&image, now, Some(&before)).await;
        harness.record(scheduled(1)).await;
        let found = summaries(&harness).first().map(|it| it["groups"].clone());
        let found = found.map(|groups| groups.as_object().unwrap().keys().next().cloned());
        assert_eq!(
            found,
            told.map(|told| Some(told.to_owned())),
            "{record}, {now}"
        );
        assert_eq!(count(&harness, "GetSnapshotBlock"), 0);
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn three_thousand_images_are_looked_at_in_six_pages() {
    // Of a thousand the tag says all; of the others it takes a look at the root snapshot.
    let images = (0..3_000).map(|n| match n % 3 {
        0 => windows(aged(n, 100)),
        _ => aged(n, 100),
    });
    let harness = harness(images, settings("")).await;
    harness.record(scheduled(1)).await;
    assert_eq!(count(&harness, "DescribeImages"), 6);
    // A hundred in each; and two hundred, of two thirds of a page.
    assert_eq!(count(&harness, "BatchGetItem"), 30);
    assert_eq!(count(&harness, "DescribeSnapshots"), 12);
    assert_eq!(
        harness.calls().len(),
        6 + 30 + 12 + ["UpdateItem", "Publish", "Publish", "UpdateItem"].len()
    );
    let summary = summaries(&harness).remove(0);
    let (number, first) = group(&summary, "unverifiable");
    assert_eq!((number, first.len()), (2_000, 20));
    assert_eq!(summary["looked_at"], 3_000);
    let letter = harness.sim.world().messages[0].body("email");
    assert!(
        letter.contains("\n  and 1980 more. `ami-guard audit` lists all\n"),
        "{letter}"
    );
}

/// So many images, each of a volume that was made from a snapshot of which only a publisher's image could tell: four
/// look-ups, one after the other.
async fn harness_of_volumes(images: usize) -> Harness {
    let mut asking = settings("");
    asking.policy.lineage = Asked::Always;
    let harness = harness((0..images).map(|n| aged(n, 100)), asking).await;
    {
        let mut world = harness.sim.world();
        let ids: Vec<String> = world.snapshots.keys().cloned().collect();
        for (n, id) in ids.iter().enumerate() {
            let mut volume = sim::Volume::new(format!("vol-0a1b2c3d4e5f{n:05x}"));
            volume.snapshot_id = Some(format!("snap-0b1b2c3d4e5f{n:05x}"));
            world.snapshots.get_mut(id).unwrap().volume_id = volume.id.clone();
            world.add_volume(volume);
        }
    }
    harness
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_audit_ends_also_where_searches_among_others_images_are_slow() {
    let harness = harness_of_volumes(300).await;
    super::lookups::slow_among_others(&harness, Duration::from_secs(8));
    harness.record(scheduled(1)).await;
    assert_eq!(summaries(&harness).remove(0)["looked_at"], 300);
    let calls = harness.sim.calls();
    let searches = calls.iter().filter(|call| {
        let name = call.params.get("Filter.1.Name");
        name.is_some_and(|it| it == "owner-alias")
    });
    assert_eq!(searches.count(), 2);
}

/// EC2 shows one image without its root device. It has the snapshot of another one, on a disk beside its root.
#[tokio::test(crate = "crate::virtual_time")]
async fn regression_an_image_that_ec2_shows_in_part_spoils_no_other_of_an_audit() {
    let of_volume = |world: &mut World, number: usize| {
        let mut volume = sim::Volume::new(format!("vol-0a1b2c3d4e5f7{number:04}"));
        volume.snapshot_id = Some("snap-0a1b2c3d4e5f60002".into());
        let mut image = billing(aged(number, 20), "Windows", "RunInstances:0002");
        let root = format!("snap-0a1b2c3d4e5f7{number:04}");
        image.block_devices[0].snapshot_id = Some(root.clone());
        let mut snapshot = Snapshot::new(root);
        snapshot.volume_id = volume.id.clone();
        world.add_image(image);
        world.add_snapshot(snapshot);
        world.add_volume(volume);
    };
    let mut parent = billing(aged(100, 400), "Windows", "RunInstances:0002");
    parent.block_devices[0].snapshot_id = Some("snap-0a1b2c3d4e5f60002".into());
    let mut odd = billing(aged(101, 400), "Windows", "RunInstances:0002");
    odd.block_devices[0].snapshot_id = Some("snap-0a1b2c3d4e5f70002".into());
    odd.block_devices[0].device_name = "/dev/sdf".into();
    let mut world = world([parent, odd]);
    for number in [1, 2] {
        of_volume(&mut world, number);
    }
    let mut asking = settings("");
    asking.policy.lineage = Asked::Always;
    let harness = audited_before(Harness::around(world, asking).await);
    let begun = tokio::time::Instant::now();
    harness.record(scheduled(1)).await;
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "nobody waits for the odd one"
    );
    let summary = summaries(&harness).remove(0);
    assert_eq!(summary["looked_at"], 4);
    let (_, unverifiable) = group(&summary, "unverifiable");
    let spoilt = [1, 2].map(|number| aged(number, 20).id);
    assert!(
        !unverifiable.iter().any(|id| spoilt.contains(id)),
        "{summary}"
    );
}

/// One page after the other, there would be time for two of them: each is five calls, one after the other.
#[tokio::test(crate = "crate::virtual_time")]
async fn an_audit_looks_at_pages_side_by_side_where_every_list_takes_four_seconds() {
    let harness = harness_of_volumes(10_000).await;
    for action in ["DescribeImages", "DescribeSnapshots", "DescribeVolumes"] {
        let slow = FaultKind::Slow(Duration::from_secs(4));
        harness.inject(Fault::always(action, slow));
    }
    harness.record(scheduled(1)).await;
    let summary = summaries(&harness).remove(0);
    let looked_at = summary["looked_at"].as_u64().unwrap();
    println!("in a minute, at four seconds a list: {looked_at} images");
    assert!(looked_at > 2_000, "{looked_at}");
    assert_eq!(summary["complete"], looked_at == 10_000);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_audit_that_time_cuts_goes_on_the_next_day_and_each_image_is_looked_at_once() {
    let harness = harness((0..750).map(|n| aged(n, 100)), settings("")).await;
    harness.inject(Fault::from_nth("DescribeImages", 2, FaultKind::Throttle));
    // Two seconds are kept back for the answer, ten to tell.
    let short = Deadline::now() + Duration::from_secs(22);
    harness.guard.handle(scheduled(1), short).await.unwrap();
    harness.sim.heal();
    harness.record(scheduled(2)).await;
    harness.record(scheduled(3)).await;

    let told: Vec<_> = summaries(&harness)
        .iter()
        .map(|summary| {
            (
                summary["looked_at"].as_u64().unwrap(),
                summary["complete"] == true,
            )
        })
        .collect();
    assert_eq!(told, [(500, false), (250, true), (750, true)]);
    let unfinished: Vec<_> = harness
        .audited()
        .iter()
        .map(|it| it["complete"] == false)
        .collect();
    assert_eq!(unfinished, [true, false, false]);
    let letter = harness.mail(0);
    assert!(
        letter.contains("The next audit continues with them."),
        "{letter}"
    );
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_audit_without_time_for_a_single_page_comes_again_and_tells_nothing() {
    let harness = harness([aged(1, 100)], settings("")).await;
    harness.inject(Fault::always(
        "DescribeImages",
        FaultKind::Slow(Duration::from_secs(3)),
    ));
    let short = Deadline::now() + Duration::from_secs(13);
    let error = harness.guard.handle(scheduled(1), short).await.unwrap_err();
    assert_eq!(error.error_type(), "OutOfTime");
    harness.sim.heal();
    assert_eq!(harness.alerts().len(), 0);
    harness.record(scheduled(1)).await;
    assert_eq!(summaries(&harness).len(), 1);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn that_events_do_not_arrive_is_on_the_log_though_there_was_no_time_for_all_of_them() {
    let observe = Settings {
        mode: Mode::Observe,
        ..settings(NOBODY_ASKS)
    };
    let images = [1, 2].map(|n| expects(aged(n, 2), "Windows"));
    let harness = harness(images, observe).await;
    // The page, the first image, and the second.
    let slow = FaultKind::Slow(Duration::from_secs(10));
    harness.inject(Fault::nth("DescribeImages", 3, slow));
    let short = Deadline::now() + Duration::from_secs(15);
    let error = harness.guard.handle(scheduled(1), short).await.unwrap_err();
    assert_eq!(error.error_type(), "OutOfTime");
    assert_eq!(summaries(&harness).len(), 0);
    assert_eq!(harness.audited()[0]["missed"], 2);
    harness.sim.heal();
    // All others come first, and then what was begun with.
    harness.give(scheduled(1)).await.unwrap_err();
    assert_eq!(group(&summaries(&harness)[0], "missed").0, 2);
    assert_eq!(harness.audited()[1]["missed"], 2);
    harness.record(scheduled(1)).await;
    assert_eq!((harness.alerts().len(), harness.audited().len()), (3, 2));
    assert_eq!(begun_with(&harness), [""; 0]);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_place_in_the_list_that_ec2_does_not_know_any_more_is_the_beginning() {
    let harness = harness((0..250).map(|n| aged(n, 100)), settings("")).await;
    remember(&harness, "cursor", json!({ "S": "of last week" }));
    harness.record(scheduled(1)).await;
    assert_eq!(summaries(&harness)[0]["looked_at"], 250);
    let refused = |call: &sim::Call| matches!(call.answer, Answer::Refused(_));
    assert_eq!(
        harness
            .sim
            .calls()
            .iter()
            .filter(|call| refused(call))
            .count(),
        1
    );
}

#[tokio::test(crate = "crate::virtual_time")]
async fn the_same_audit_twice_or_twice_at_once_is_told_of_once() {
    let harness = harness([aged(1, 100)], settings("")).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let guard = Arc::clone(&harness.guard);
        tasks.spawn(async move { guard.handle(scheduled(1), in_a_minute()).await });
    }
    for answer in tasks.join_all().await {
        if let Err(error) = answer {
            assert_eq!(error.error_type(), "Busy");
        }
    }
    // The Scheduler's second attempt has an id of its own.
    let mut again = scheduled(1);
    again["id"] = "another".into();
    harness.record(again).await;
    assert_eq!((summaries(&harness).len(), harness.audited().len()), (1, 1));
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_audit_that_could_not_tell_tells_all_the_next_time_and_judges_nothing_twice() {
    let harness = harness([expects(aged(1, 2), "Windows"), aged(2, 100)], settings("")).await;
    // The first is of the image's own alert.
    harness.inject(Fault::from_nth("Publish", 3, FaultKind::AccessDenied));
    harness.give(scheduled(1)).await.unwrap_err();
    harness.sim.heal();
    harness.record(scheduled(1)).await;
    let summary = summaries(&harness).remove(0);
    assert_eq!(
        (
            group(&summary, "missed").0,
            group(&summary, "unverifiable").0
        ),
        (1, 1)
    );
    assert_eq!((summaries(&harness).len(), harness.alerts().len()), (1, 2));
    assert_eq!(harness.audited().len(), 1);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_image_that_could_not_be_dealt_with_is_told_of_and_dealt_with_when_the_event_comes_again()
 {
    let harness = harness([expects(aged(1, 2), "Windows")], settings(NOBODY_ASKS)).await;
    // The second look at EC2 is the first at this image.
    harness.inject(Fault::nth("DescribeImages", 2, FaultKind::AccessDenied));
    harness.give(scheduled(1)).await.unwrap_err();
    let summary = summaries(&harness).remove(0);
    let image = &summary["groups"]["missed"]["images"][0];
    assert!(
        image["reason"].as_str().unwrap().contains("access denied"),
        "{image}"
    );
    assert_eq!((&image["verdict"], stand(&harness)), (&Value::Null, 1));
    harness.sim.heal();
    harness.record(scheduled(1)).await;
    assert_eq!(stand(&harness), 0);
    assert_eq!(
        (
            summaries(&harness).len(),
            harness.audited().len(),
            harness.alerts().len()
        ),
        (1, 1, 2)
    );
}

/// The images that audits began to deal with, and have not ended.
fn begun_with(harness: &Harness) -> Vec<String> {
    let world = harness.sim.world();
    let begun = json!(world.tables[TABLE].items[AUDITS].get("begun_with"));
    let begun = begun["SS"].as_array().cloned().unwrap_or_default();
    let image = |dated: Value| {
        dated
            .as_str()
            .unwrap()
            .split_once(' ')
            .unwrap()
            .1
            .to_owned()
    };
    begun.into_iter().map(image).collect()
}

#[tokio::test(crate = "crate::virtual_time")]
async fn what_became_of_a_discard_that_an_audit_began_is_looked_at_until_it_is_known() {
    let harness = harness([expects(aged(1, 2), "Windows")], settings(NOBODY_ASKS)).await;
    // EC2 does it and does not answer; and then it says nothing of the image for two attempts.
    harness.inject(Fault::always("DeregisterImage", FaultKind::ResetAfter));
    for (look, nth) in [("DescribeImages", 4), ("ListImagesInRecycleBin", 1)] {
        harness.inject(Fault::from_nth(look, nth, FaultKind::InternalError));
    }
    harness.give(scheduled(1)).await.unwrap_err();
    assert_eq!(stand(&harness), 0);
    assert_eq!(
        harness.told(),
        [json!("planned"), json!("failed"), Value::Null]
    );
    assert_eq!(group(&summaries(&harness)[0], "missed").0, 1);
    harness.inject(Fault::always("DescribeImages", FaultKind::InternalError));
    harness.give(scheduled(1)).await.unwrap_err();
    assert_eq!(harness.alerts().len(), 3);
    assert_eq!(begun_with(&harness), [AMI_1]);

    harness.sim.heal();
    harness.sim.forget_calls();
    let record = harness.record(scheduled(1)).await;
    assert!(
        record["reason"]
            .as_str()
            .unwrap()
            .contains("already complete")
    );
    assert_eq!(harness.told()[3..], ["done"]);
    assert_eq!(count(&harness, "DeregisterImage"), 0);
    assert_eq!(begun_with(&harness), [""; 0]);
    harness.sim.forget_calls();
    harness.record(scheduled(1)).await;
    assert_eq!(harness.calls(), ["UpdateItem", "UpdateItem"]);
    assert_eq!(harness.audited().len(), 1);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_image_that_was_begun_with_is_left_to_the_list_once_it_is_old_or_its_event_came() {
    // It was begun with ten days ago.
    let old = expects(aged(1, 240), "Windows");
    let policy = format!("{NOBODY_ASKS}\nmax_age_hours = 1000");
    let harness = harness([old.clone()], settings(&policy)).await;
    let at = old
        .creation_date
        .to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    remember(
        &harness,
        "begun_with",
        json!({ "SS": [format!("{at} {AMI_1}")] }),
    );
    harness.record(scheduled(1)).await;
    assert_eq!((stand(&harness), begun_with(&harness).len()), (1, 0));
    assert_eq!(
        group(&summaries(&harness)[0], "mismatch"),
        (1, vec![old.id])
    );

    // Nobody could be told of its discard; then its event came, and an instance holds it: people are to decide.
    let image = expects(aged(1, 2), "Windows");
    let harness = self::harness([image.clone()], settings(NOBODY_ASKS)).await;
    harness.inject(Fault::always("Publish", FaultKind::AccessDenied));
    harness.give(scheduled(1)).await.unwrap_err();
    assert_eq!(begun_with(&harness), [AMI_1]);
    harness.sim.heal();
    let mut instance = Instance::new("i-1", &image.id);
    instance.state = "running".into();
    harness.sim.world().add_instance(instance);
    assert_eq!(
        harness.record(event_of(&image)).await["held_by"],
        json!(["in-use"])
    );
    harness.sim.world().instances.clear();
    harness.record(scheduled(2)).await;
    assert_eq!((stand(&harness), begun_with(&harness).len()), (1, 0));
    assert_eq!(group(&summaries(&harness)[0], "held"), (1, vec![image.id]));
}

#[tokio::test(crate = "crate::virtual_time")]
async fn images_that_take_too_long_keep_no_audit_from_the_others() {
    let images = (1..=3).map(|n| aged(n, 2));
    let images = images.chain([expects(aged(9, 100), "Windows")]);
    let policy = Policy {
        lineage: Asked::Never,
        ..Policy::default()
    };
    let harness = harness(
        images,
        Settings {
            policy,
            ..settings("")
        },
    )
    .await;
    let slow = FaultKind::Slow(Duration::from_secs(30));
    harness.inject(Fault::always("ListSnapshotBlocks", slow));
    // By the queue's seven attempts at most.
    for _ in 0..7 {
        let short = Deadline::now() + Duration::from_secs(20);
        harness.guard.handle(scheduled(1), short).await.ok();
        turns_end().await;
        if let Some(summary) = summaries(&harness).first() {
            assert_eq!(group(summary, "mismatch").0, 1);
            return;
        }
    }
    panic!("nobody was told of anything");
}

#[tokio::test(crate = "crate::virtual_time")]
async fn what_could_not_be_begun_with_is_so_when_the_event_comes_again() {
    let harness = harness([expects(aged(1, 2), "Windows")], settings(NOBODY_ASKS)).await;
    // The first takes the turn.
    harness.inject(Fault::nth("UpdateItem", 2, FaultKind::AccessDenied));
    harness.give(scheduled(1)).await.unwrap_err();
    assert_eq!((stand(&harness), harness.alerts().len()), (1, 0));
    harness.record(scheduled(1)).await;
    assert_eq!((stand(&harness), summaries(&harness).len()), (0, 1));
}

#[tokio::test(crate = "crate::virtual_time")]
async fn of_an_older_audit_nobody_is_told_after_a_later_one() {
    let harness = harness([aged(1, 100)], settings("")).await;
    for day in [1, 2, 1, 2] {
        harness.record(scheduled(day)).await;
    }
    assert_eq!(summaries(&harness).len(), 2);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn with_little_time_images_are_dealt_with_when_the_event_comes_again() {
    let images = [1, 2].map(|n| expects(aged(n, 2), "Windows"));
    let harness = harness(images, settings(NOBODY_ASKS)).await;
    // Enough for a discard, and not for one beside all else.
    for attempt in 1.. {
        let short = Deadline::now() + Duration::from_secs(26);
        match harness.guard.handle(scheduled(1), short).await {
            Ok(_) => break,
            Err(error) => assert!(attempt < 5 && error.error_type() == "OutOfTime", "{error}"),
        }
    }
    assert_eq!(
        (stand(&harness), count(&harness, "DeregisterImage")),
        (0, 2)
    );
    let [summary] = &summaries(&harness)[..] else {
        panic!()
    };
    assert_eq!(group(summary, "missed").0, 2);
    harness.record(scheduled(2)).await;
    assert_eq!(summaries(&harness).len(), 1);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_audit_of_a_time_that_is_yet_to_come_keeps_no_other_from_its_work() {
    let harness = harness([aged(1, 100)], settings("")).await;
    let mut event = scheduled(1);
    event["time"] = (now() + TimeDelta::days(365)).to_rfc3339().into();
    harness.record(event).await;
    harness.record(scheduled(1)).await;
    assert_eq!(summaries(&harness).len(), 2);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn what_one_audit_could_not_tell_of_no_older_one_forgets() {
    let harness = harness([aged(2, 100)], settings("")).await;
    harness.record(scheduled(1)).await;
    harness.sim.world().add_image(windows(aged(1, 2)));
    harness.inject(Fault::always("Publish", FaultKind::AccessDenied));
    harness.give(scheduled(2)).await.unwrap_err();
    harness.sim.heal();
    harness.record(scheduled(1)).await;
    harness.record(scheduled(2)).await;
    let summary = summaries(&harness).pop().unwrap();
    assert_eq!(group(&summary, "missed"), (1, vec![AMI_1.to_owned()]));
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_image_whose_record_can_not_be_read_is_known_and_only_told_of() {
    let image = expects(aged(1, 2), "Windows");
    let harness = harness([image.clone()], settings(NOBODY_ASKS)).await;
    harness
        .sim
        .world()
        .add_instance(Instance::new("i-1", AMI_1));
    harness.record(event_of(&image)).await;
    harness.sim.world().instances.clear();
    {
        let mut world = harness.sim.world();
        let items = &mut world.tables.get_mut(TABLE).unwrap().items;
        let item = items.get_mut(&format!("123456789012#eu-west-1#{AMI_1}"));
        let of_another_version = json!({ "S": "{\"evidence\": 1}" });
        item.unwrap().insert(
            "record".into(),
            serde_json::from_value(of_another_version).unwrap(),
        );
    }
    harness.record(scheduled(1)).await;
    assert_eq!(stand(&harness), 1);
    assert_eq!(group(&summaries(&harness)[0], "mismatch").0, 1);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_audit_that_is_cut_off_at_any_step_of_a_discard_ends_it_or_holds_it_and_tells_of_it() {
    let images = || [expects(aged(1, 2), "Windows"), aged(2, 100)];
    let settings = || Settings {
        // An image that stands after its discard counts as brought back at once.
        settle: Duration::ZERO,
        ..settings(NOBODY_ASKS)
    };
    let whole = harness_without_chat(images(), settings()).await;
    whole.record(scheduled(1)).await;
    let steps = whole.sim.calls();
    let calls = || steps.iter().map(|call| call.action.as_str());
    let done = calls().position(|call| call == "DeregisterImage").unwrap();
    let mut held = Vec::new();
    for (n, call) in steps.iter().enumerate() {
        let harness = harness_without_chat(images(), settings()).await;
        let action = &call.action;
        let ordinal = calls().take(n + 1).filter(|it| it == action).count();
        // The call takes effect, and its answer never comes.
        let late = FaultKind::Slow(Duration::from_secs(30));
        harness.inject(Fault::nth(action, ordinal, late));
        let step = format!("{n}, {action}");
        assert!(crash_at(&harness, scheduled(1), n + 1).await, "{step}");
        turns_end().await;
        harness.sim.heal();
        // What the image's record does not show to be ended is looked at once more, when all else is told.
        harness.give(scheduled(1)).await.ok();
        turns_end().await;
        harness.record(scheduled(1)).await;

        assert_eq!(begun_with(&harness), [""; 0], "{step}");
        match stand(&harness) {
            1 => assert_eq!(count(&harness, "DeregisterImage"), 1, "{step}"),
            _ => held.push(n),
        }
        let summaries = summaries(&harness);
        let summary = summaries.last().unwrap();
        assert_eq!(
            (group(summary, "missed").0, group(summary, "unverifiable").0),
            (1, 1),
            "{step}"
        );
    }
    // Between the note and the deed nobody can tell a discard that was not carried out from one that people took
    // back.
    assert_eq!(held, [done - 1]);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_throttled_audit_asks_again_and_looks_at_every_image() {
    let images = (0..450).map(|n| aged(n, 100));
    let harness = harness(images, settings("")).await;
    harness.sim.world().items_per_batch = Some(30);
    for n in 1..=8 {
        harness.inject(Fault::nth("DescribeImages", n, FaultKind::Throttle));
        harness.inject(Fault::nth("DescribeSnapshots", n, FaultKind::Throttle));
    }
    harness.record(scheduled(1)).await;
    assert_eq!(group(&summaries(&harness)[0], "unverifiable").0, 450);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn without_the_ledger_nothing_is_looked_at_told_or_discarded_and_the_audit_comes_again() {
    for action in ["UpdateItem", "BatchGetItem"] {
        for fault in [FaultKind::AccessDenied, FaultKind::InternalError] {
            let harness = harness([expects(aged(1, 2), "Windows")], settings(NOBODY_ASKS)).await;
            harness.inject(Fault::always(action, fault));
            harness.give(scheduled(1)).await.unwrap_err();
            assert_eq!(
                (stand(&harness), harness.alerts().len()),
                (1, 0),
                "{action}"
            );
            harness.sim.heal();
            harness.record(scheduled(1)).await;
            assert_eq!(
                (stand(&harness), harness.alerts().len()),
                (0, 2),
                "{action}"
            );
        }
    }
    // Nor does an answer that says nothing make every image one that nobody heard of.
    let harness = harness([expects(aged(1, 2), "Windows")], settings(NOBODY_ASKS)).await;
    harness.inject(Fault::always("BatchGetItem", FaultKind::CutShort(0)));
    harness.give(scheduled(1)).await.unwrap_err();
    assert_eq!((stand(&harness), harness.alerts().len()), (1, 0));
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_audit_of_another_account_or_region_is_ignored_and_one_without_a_time_malformed() {
    let harness = harness([aged(1, 100)], settings("")).await;
    for (key, value) in [("account", "210987654321"), ("region", "us-east-1")] {
        let mut event = scheduled(1);
        event[key] = value.into();
        assert_eq!(harness.record(event).await["verdict"], "ignored");
    }
    let mut event = scheduled(1);
    event["time"] = Value::Null;
    let error = harness.give(event).await.unwrap_err();
    assert_eq!(error.error_type(), "MalformedEvent");
    assert_eq!(harness.calls(), [""; 0]);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_summary_reads_in_every_form_as_it_was_found_good_and_fits_whatever_images_are_called() {
    let mut images = vec![
        expects(aged(1, 2), "Windows"),
        expects(aged(2, 90), "Windows"),
        billing(aged(3, 90), "Windows", "RunInstances:0010"),
        windows(aged(4, 90)),
        expects(aged(5, 2), "Windows"),
    ];
    images.extend((6..30).map(|n| aged(n, 90)));
    let harness = harness(images.clone(), settings("")).await;
    harness
        .sim
        .world()
        .add_instance(Instance::new("i-1", &images[4].id));
    harness.record(event_of(&images[4])).await;
    harness.record(scheduled(1)).await;
    let (alerts, chats) = (harness.published_on(TOPIC), harness.published_on(CHAT));
    let (alert, chat) = (alerts.last().unwrap(), chats.last().unwrap());
    let fault = compare("audit", &forms(alert, chat));
    assert!(fault.is_none(), "{fault:?}");

    let hostile = |n: usize| {
        let mut image = expects(aged(n, 90), "Windows");
        image.name = format!("{n}\n\u{1b}[2J\"\\{}", "\u{202e}é".repeat(4_000));
        image
    };
    let harness = self::harness((0..60).map(hostile), settings("")).await;
    harness.record(scheduled(1)).await;
    let message = harness.published_on(TOPIC).remove(0);
    assert!(message.message.len() < 256 * 1024);
    assert_eq!(group(&summaries(&harness)[0], "mismatch").0, 60);
    assert!(!message.body("email").contains('\u{1b}'));
}

/// Each page reads its own disks, one after the other. None waits for those of another page.
#[tokio::test(crate = "crate::virtual_time")]
async fn regression_an_audit_reads_the_disks_of_several_pages_side_by_side() {
    // Of each page, two images have neither a tag nor a lineage, so that their disks are needed.
    let images = (0..3_000).map(|n| match n % 500 {
        0 | 1 => aged(n, 100),
        _ => windows(aged(n, 100)),
    });
    let settings = Settings {
        policy: Policy::default(),
        ..settings("")
    };
    let harness = harness(images, settings).await;
    let slow = FaultKind::Slow(Duration::from_secs(4));
    harness.inject(Fault::always("ListSnapshotBlocks", slow));
    let account = "123456789012".parse().unwrap();
    let scope = ami_billing_guard::audit::Scope {
        disks: true,
        ..Default::default()
    };
    let mut pages = harness.guard.audit(&account, scope, None);
    let mut asked = 0;
    while let Some(page) = pages.next().await {
        for record in page.unwrap().records {
            let record = json!(record);
            let disk = record["evidence"].as_array().into_iter().flatten();
            let disk = disk.filter(|it| it["source"] == "disk" && it["state"] != "skipped");
            for said in disk {
                asked += 1;
                let detail = said["detail"].as_str().unwrap();
                assert!(!detail.contains("no time was left"), "{detail}");
            }
        }
    }
    assert_eq!(asked, 12);
}
