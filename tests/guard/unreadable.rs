//! Items of the ledger that cannot be read as the guard wrote them: an image of which it is not known whether
//! people brought it back is never discarded.

use super::ledger::{
    TABLE, calls_of_a_discard, discards, harness_that_is_cut_off_at, hourly, restore, with,
};
use super::*;

type Items = std::collections::BTreeMap<String, sim::Item>;

/// The attributes that are sets of texts.
const SETS: [&str; 1] = ["discards"];

/// The attributes that are JSON.
const RECORDS: [&str; 2] = ["discard", "record"];

/// What can be wrong with an attribute: its value then, or none.
fn damages(name: &str, value: &Value) -> Vec<(&'static str, Option<Value>)> {
    let year_3000 = 32_503_680_000_000_i64;
    let long = "x".repeat(300_000);
    let number = value.get("N").is_some();
    let (other_type, empty, huge, future) = if SETS.contains(&name) {
        (
            json!({ "S": "ami" }),
            json!({ "L": [] }),
            json!({ "SS": [long] }),
            json!({ "SS": [format!("3000-01-01T00:00:00.000Z {AMI}")] }),
        )
    } else if number {
        (
            json!({ "S": value["N"] }),
            json!({ "S": "" }),
            json!({ "N": "9".repeat(37) }),
            json!({ "N": year_3000.to_string() }),
        )
    } else if RECORDS.contains(&name) {
        let mut of_the_future: Value = serde_json::from_str(value["S"].as_str().unwrap()).unwrap();
        of_the_future["schema"] = json!(999);
        (
            json!({ "N": "1" }),
            json!({ "S": "" }),
            json!({ "S": long }),
            json!({ "S": of_the_future.to_string() }),
        )
    } else {
        (
            json!({ "N": "1" }),
            json!({ "S": "" }),
            json!({ "S": long }),
            json!({ "S": "3000-01-01T00" }),
        )
    };
    vec![
        ("missing", None),
        ("of another type", Some(other_type)),
        (
            "of a type that the guard does not know",
            Some(json!({ "BOOL": true })),
        ),
        ("empty", Some(empty)),
        ("huge", Some(huge)),
        ("of the future", Some(future)),
    ]
}

/// Each attribute of each item, damaged in each way: what was done, and the items then.
fn damaged(items: &Items) -> Vec<(String, Items)> {
    let mut all = Vec::new();
    for (id, item) in items {
        for (name, value) in item.iter().filter(|(name, _)| *name != "id") {
            for (what, damage) in damages(name, value) {
                let mut items = items.clone();
                let item = items.get_mut(id).unwrap();
                match damage {
                    Some(value) => item.insert(name.clone(), value),
                    None => item.remove(name),
                };
                all.push((format!("{name} of {id} is {what}"), items));
            }
        }
    }
    all
}

fn items(harness: &Harness) -> Items {
    harness.sim.world().tables[TABLE].items.clone()
}

fn put(harness: &Harness, items: &Items) {
    let mut world = harness.sim.world();
    world.tables.get_mut(TABLE).unwrap().items = items.clone();
}

/// Gives an event twice, as the first time could repair what held it: the records, where there are any.
async fn twice(harness: &Harness, event: impl Fn() -> Value) -> Vec<Value> {
    let mut records = Vec::new();
    for _ in 0..2 {
        records.extend(harness.give(event()).await.ok());
    }
    records
}

fn is_held(record: &Value) -> bool {
    let interlocks = ["discarded-before", "ledger-unavailable"];
    let held_by = record["held_by"].as_array().unwrap();
    record["action"] == "hold"
        && interlocks
            .iter()
            .any(|interlock| held_by.contains(&json!(interlock)))
}

fn no_mark(harness: &Harness) {
    let mut world = harness.sim.world();
    let tags = &mut world.images.get_mut(AMI).unwrap().tags;
    tags.remove("ami-billing-guard:discard");
}

/// The discard is seen to its end, or the guard is cut off right after EC2 carried it out. The guard's mark is on the
/// image, or people took it off. Each time, each attribute of each item is damaged in each way.
#[tokio::test(crate = "crate::virtual_time")]
async fn regression_an_image_that_was_brought_back_is_never_discarded_whatever_is_wrong_with_the_ledger()
 {
    let calls = calls_of_a_discard("").await;
    let done = 1 + calls
        .iter()
        .position(|call| call == "DeregisterImage")
        .unwrap();
    let (mut tried, mut discarded, mut untold) = (0, Vec::new(), Vec::new());
    for cut_off in [false, true] {
        let harness = match cut_off {
            false => {
                let harness = Harness::with(expecting("Windows"), with(Some(TABLE), "")).await;
                harness.record(registered()).await;
                harness
            }
            true => harness_that_is_cut_off_at(done, "", &calls).await,
        };
        harness.sim.heal();
        restore(&harness);
        super::ledger::turns_end().await;
        let image = harness.sim.world().images[AMI].clone();
        let intact = items(&harness);
        for marked in [true, false] {
            for (what, items) in damaged(&intact) {
                put(&harness, &items);
                harness.sim.world().add_image(image.clone());
                if !marked {
                    no_mark(&harness);
                }
                let before = discards(&harness);
                let records = twice(&harness, registered).await;
                tried += 1;
                let case = format!("cut off: {cut_off}, marked: {marked}, {what}");
                if discards(&harness) != before || !harness.image_stands() {
                    harness.sim.world().deregistered.remove(AMI);
                    harness.sim.world().recycle_bin.remove(AMI);
                    discarded.push(case);
                } else if !records.iter().all(is_held) {
                    untold.push(format!("{case}: {records:?}"));
                }
            }
        }
    }
    println!(
        "damaged items tried: {tried}, discarded again: {}",
        discarded.len()
    );
    assert!(tried > 200, "{tried}");
    assert_eq!(discarded, Vec::<String>::new());
    assert_eq!(untold, Vec::<String>::new());
}

const SIBLING: &str = "ami-0a1b2c3d4e5f60002";

fn event_of_sibling() -> Value {
    let mut event = registered();
    event["detail"]["responseElements"]["imageId"] = json!(SIBLING);
    event
}

/// An image was discarded, and people register another one from its snapshot.
#[tokio::test(crate = "crate::virtual_time")]
async fn regression_an_image_that_was_registered_again_stays_whatever_is_wrong_with_what_the_ledger_has_of_its_snapshot()
 {
    let harness = Harness::with(expecting("Windows"), with(Some(TABLE), "")).await;
    harness.record(registered()).await;
    let intact = items(&harness);
    let (of_snapshot, _) = intact
        .iter()
        .find(|(_, item)| item.contains_key("discards"))
        .unwrap();
    let mut sibling = expecting("Windows");
    sibling.id = SIBLING.into();
    sibling.name = "again".into();
    sibling.creation_date = now();
    let mut tried = 0;
    for (what, items) in damaged(&intact) {
        if items.get(of_snapshot) == intact.get(of_snapshot) {
            continue;
        }
        put(&harness, &items);
        harness.sim.world().add_image(sibling.clone());
        let records = twice(&harness, event_of_sibling).await;
        assert_eq!(discards(&harness), 1, "{what}");
        assert!(
            records.len() == 2 && records.iter().all(is_held),
            "{what}: {records:?}"
        );
        tried += 1;
    }
    println!("damaged items of a snapshot tried: {tried}, discarded: 0");
    assert!(tried >= 12, "{tried}");
}

/// The hour has had all its discards, and its counter is damaged.
#[tokio::test(crate = "crate::virtual_time")]
async fn regression_an_hourly_counter_that_cannot_be_read_lets_no_discard_pass() {
    let policy = "[discard]\nmax_per_hour = 1";
    let harness = Harness::with(expecting("Windows"), with(Some(TABLE), policy)).await;
    harness.record(registered()).await;
    let intact = items(&harness);
    let (counter, _) = intact
        .iter()
        .find(|(id, _)| id.starts_with("hour#"))
        .unwrap();
    let mut sibling = expecting("Windows");
    sibling.id = SIBLING.into();
    sibling.name = "another".into();
    sibling.block_devices[0].snapshot_id = Some("snap-0a1b2c3d4e5f60002".into());
    harness
        .sim
        .world()
        .add_snapshot(Snapshot::new("snap-0a1b2c3d4e5f60002"));
    let mut tried = 0;
    for (what, items) in damaged(&intact) {
        if items.get(counter) == intact.get(counter) {
            continue;
        }
        put(&harness, &items);
        harness.sim.world().add_image(sibling.clone());
        twice(&harness, event_of_sibling).await;
        assert_eq!(discards(&harness), 1, "{what}");
        let last = harness.journal.lock().unwrap().last().unwrap().clone();
        let held_by = last["held_by"].as_array().unwrap();
        let named = ["ledger-unavailable", "limit"].map(|name| json!(name));
        assert!(
            held_by.len() == 1 && named.contains(&held_by[0]),
            "{what}: {last}"
        );
        tried += 1;
    }
    println!("damaged counters tried: {tried}, discarded: 0");
    assert!(tried >= 12, "{tried}");
}

/// It is told once, ends, and what cannot be read stays for people, and for later versions of the guard.
#[tokio::test(crate = "crate::virtual_time")]
async fn regression_an_item_that_cannot_be_read_holds_until_people_correct_it() {
    let harness = Harness::with(expecting("Windows"), with(Some(TABLE), "")).await;
    let id = format!("123456789012#eu-west-1#{AMI}");
    let record = json!({ "S": json!({ "schema": 2, "verdict": "verified" }).to_string() });
    let item = [
        ("id".to_owned(), json!({ "S": id })),
        ("record".to_owned(), record.clone()),
    ];
    put(&harness, &Items::from([(id.clone(), item.into())]));
    for record in twice(&harness, registered).await {
        assert_eq!(record["held_by"], json!(["ledger-unavailable"]), "{record}");
        let error = record["error"].as_str().unwrap();
        assert!(
            error.contains(&format!(
                "the ledger's item {id} cannot be read: record is "
            )),
            "{error}"
        );
    }
    assert_eq!((discards(&harness), harness.alerts().len()), (0, 1));
    assert_eq!(items(&harness)[&id]["record"], record);
    let mut corrected = items(&harness);
    corrected.get_mut(&id).unwrap().remove("record");
    put(&harness, &corrected);
    assert_eq!(harness.record(registered()).await["outcome"], "done");
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_a_lease_without_an_end_does_not_stop_an_image_for_ever() {
    let id = format!("123456789012#eu-west-1#{AMI}");
    for end in [
        json!({ "N": "32503680000000" }),
        json!({ "S": "soon" }),
        json!({ "NULL": true }),
    ] {
        let harness = Harness::with(expecting("Windows"), with(Some(TABLE), "")).await;
        let item = [
            ("id".to_owned(), json!({ "S": id })),
            ("turn".to_owned(), json!({ "S": "another invocation's" })),
            ("turn_until_ms".to_owned(), end),
        ];
        put(&harness, &Items::from([(id.clone(), item.into())]));
        assert_eq!(
            harness.give(registered()).await.unwrap_err().error_type(),
            "Busy"
        );
        assert_eq!(
            discards(&harness),
            0,
            "another invocation may have the turn"
        );
        let until: i64 = items(&harness)[&id]["turn_until_ms"]["N"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        let minutes = (until - now().timestamp_millis()) / 60_000;
        assert!((15..20).contains(&minutes), "{minutes}");
        super::ledger::minutes_pass(20).await;
        assert_eq!(harness.record(registered()).await["outcome"], "done");
    }
}

/// Otherwise people would never be told of them.
#[tokio::test(crate = "crate::virtual_time")]
async fn regression_a_digest_whose_images_cannot_be_read_is_an_error() {
    let harness = Harness::with(expecting("Windows"), with(Some(TABLE), "")).await;
    let id = "held#123456789012#eu-west-1".to_owned();
    let item = [
        ("id".to_owned(), json!({ "S": id })),
        ("held".to_owned(), json!({ "S": AMI })),
    ];
    put(&harness, &Items::from([(id, item.into())]));
    let error = harness.give(hourly()).await.unwrap_err();
    assert!(
        error.to_string().contains("held is not a set of texts"),
        "{error}"
    );
}

/// Sets the times of the ledger's item of the image.
fn set_time(harness: &Harness, name: &str, at: chrono::DateTime<Utc>) {
    let mut all = items(harness);
    let item = all
        .get_mut(&format!("123456789012#eu-west-1#{AMI}"))
        .unwrap();
    item.insert(
        name.into(),
        json!({ "N": at.timestamp_millis().to_string() }),
    );
    put(harness, &all);
}

/// An image that settles takes so long for one that EC2 lists yet after its discard.
#[tokio::test(crate = "crate::virtual_time")]
async fn regression_a_discard_in_the_future_is_told_as_one_and_not_waited_for() {
    let settings = Settings {
        settle: Duration::from_secs(300),
        ..with(Some(TABLE), "")
    };
    let harness = Harness::with(expecting("Windows"), settings).await;
    harness.record(registered()).await;
    restore(&harness);
    set_time(&harness, "attempted_at_ms", now() + TimeDelta::days(3));
    let record = harness.record(registered()).await;
    assert_eq!(
        record["held_by"],
        json!(["discarded-before", "ledger-unavailable"])
    );
    let error = record["error"].as_str().unwrap();
    assert!(
        error.contains("attempted_at_ms is") && error.contains("not in the future"),
        "{error}"
    );
    assert_eq!((discards(&harness), harness.alerts().len()), (1, 2));
}

/// What people were told in the future would else count as told until then, and a refused discard as just refused.
#[tokio::test(crate = "crate::virtual_time")]
async fn regression_what_people_were_told_in_the_future_silences_nothing_and_holds() {
    let harness = Harness::with(expecting("Windows"), with(Some(TABLE), "")).await;
    harness.inject(Fault::always("DeregisterImage", FaultKind::AccessDenied));
    harness.record(registered()).await;
    let told = harness.alerts().len();
    harness.sim.heal();
    set_time(&harness, "told_at_ms", now() + TimeDelta::days(3));
    let before = discards(&harness);
    let record = harness.record(registered()).await;
    assert_eq!(record["held_by"], json!(["ledger-unavailable"]), "{record}");
    assert_eq!(
        (discards(&harness), harness.alerts().len()),
        (before, told + 1)
    );
}

/// The event, EC2 and this function's clock say times that cannot all be right.
#[tokio::test(crate = "crate::virtual_time")]
async fn regression_a_clock_that_cannot_be_right_holds_a_discard_and_says_so() {
    let ago = |minutes: i64| now() - TimeDelta::minutes(minutes);
    let days = 24 * 60;
    let cases = [
        (
            "the event is of the future",
            ago(-3 * days),
            ago(6),
            "the event says that it happened at",
        ),
        (
            "the image is of the future",
            ago(6),
            ago(-3 * days),
            "EC2 says that the image was created at",
        ),
        (
            "both are of the future",
            ago(-3 * days),
            ago(-3 * days),
            "EC2 says that the image was created at",
        ),
        (
            "the image is younger than its event",
            ago(5 * 60),
            ago(6),
            "a time is wrong: the event says that the image was registered at",
        ),
    ];
    for settle in [Duration::ZERO, Duration::from_secs(300)] {
        for (what, event, created, words) in &cases {
            let mut image = expecting("Windows");
            image.creation_date = *created;
            let settings = Settings {
                settle,
                ..with(Some(TABLE), "")
            };
            let harness = Harness::with(image, settings).await;
            let record = harness.record(registered_at(*event)).await;
            assert_eq!(record["held_by"], json!(["too-old"]), "{what}: {record}");
            assert!(
                record["error"].as_str().unwrap().contains(words),
                "{what}: {record}"
            );
            assert_eq!(
                (discards(&harness), harness.alerts().len()),
                (0, 1),
                "{what}"
            );
        }
    }
    // A minute, or the hour that a slow registration takes, is no contradiction.
    for (event, created) in [(ago(0), ago(6)), (ago(50), ago(6)), (ago(6), ago(50))] {
        let mut image = expecting("Windows");
        image.creation_date = created;
        let harness = Harness::with(image, with(Some(TABLE), "")).await;
        assert_eq!(
            harness.record(registered_at(event)).await["outcome"],
            "done"
        );
    }
}
