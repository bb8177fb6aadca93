//! Tests of the ledger as its callers see it. Both stores must behave alike.

use std::ops::Deref;

use chrono::TimeDelta;
use sim::{Fault, FaultKind, Sim, World};

use super::lease::LONGEST_TURN;
use super::quota::hour;
use super::*;
use crate::aws::Aws;
use crate::clock::Clock;
use crate::event::{Audit, Ignored, RegisteredBy, Registration};
use crate::ledger::item::BEGUN;
use crate::plan::Action;

const TABLE: &str = "ami-billing-guard";
/// The simulator's clock.
const CLOCK: Clock = Clock::new(sim::clock::now, || fastrand::u64(..));

fn registration(image: &str) -> Registration {
    Registration {
        image_id: image.parse().unwrap(),
        account: "123456789012".parse().unwrap(),
        region: "eu-west-1".into(),
        event_id: "e".into(),
        time: CLOCK.now(),
        registered_by: RegisteredBy::Unknown,
        billing_products: BTreeSet::new(),
        by_packer: false,
    }
}

fn image(number: u32) -> Registration {
    registration(&format!("ami-0a1b2c3d4e5f{number:05x}"))
}

fn soon() -> DateTime<Utc> {
    CLOCK.now() + TimeDelta::seconds(60)
}

/// Time of every discard in these tests, and the start of virtual time. The real hour could end within a test.
fn noon() -> DateTime<Utc> {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

/// A time in the past. A lease that ends then is over.
fn long_ago() -> DateTime<Utc> {
    CLOCK.now() - TimeDelta::seconds(60)
}

fn record(action: Action, outcome: Option<Outcome>) -> Record {
    let mut record = Record::ignored(Ignored {
        event_id: None,
        account: None,
        region: None,
        reason: "r".into(),
    });
    record.action = action;
    record.outcome = outcome;
    record
}

fn note(source: Option<&str>) -> Note<'_> {
    Note {
        source,
        at: CLOCK.now(),
    }
}

fn planned() -> Record {
    record(Action::Deregister, Some(Outcome::Planned))
}

async fn table_at(endpoint: &str) -> Ledger {
    let aws = Aws::connect_to_simulator(endpoint, "eu-west-1").await;
    Ledger::in_table(&aws, TABLE, TimeDelta::days(365), CLOCK)
}

/// A simulated table. Time is virtual while it exists.
struct Bench(Sim);

impl Bench {
    async fn new() -> (Bench, Ledger) {
        sim::clock::set(noon());
        let sim = Sim::in_process(World::default());
        let aws = Aws::in_process(sim.client(), "eu-west-1", CLOCK).await;
        let ledger = Ledger::in_table(&aws, TABLE, TimeDelta::days(365), CLOCK);
        (Bench(sim), ledger)
    }
}

impl Deref for Bench {
    type Target = Sim;

    fn deref(&self) -> &Sim {
        &self.0
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        sim::clock::reset();
    }
}

/// Both kinds of ledger, which must behave alike. When the tests in Python run these tests, the table is moto's, and
/// time is the machine's.
async fn both() -> (Option<Bench>, [Ledger; 2]) {
    let (bench, table) = match std::env::var("LEDGER_TEST_ENDPOINT") {
        Ok(endpoint) => {
            tokio::time::resume();
            (None, table_at(&endpoint).await)
        }
        Err(_) => {
            let (bench, table) = Bench::new().await;
            (Some(bench), table)
        }
    };
    (bench, [table, Ledger::in_memory(CLOCK)])
}

async fn is_busy(ledger: &Ledger, registration: &Registration) -> bool {
    matches!(
        ledger.begin(registration, soon()).await,
        Err(Error::Busy { .. })
    )
}

#[tokio::test(start_paused = true)]
async fn one_invocation_at_a_time_has_the_turn_of_an_image() {
    let (_bench, ledgers) = both().await;
    for ledger in ledgers {
        let lease = ledger.begin(&image(1), soon()).await.unwrap();
        assert!(is_busy(&ledger, &image(1)).await);
        assert!(
            !is_busy(&ledger, &image(2)).await,
            "another image's turn is another"
        );
        ledger.release(&lease).await;
        let lease = ledger.begin(&image(1), soon()).await.unwrap();
        let verified = record(Action::None, None);
        ledger
            .end(&lease, &verified, NotificationState::Nothing)
            .await
            .unwrap();
        ledger.begin(&image(1), soon()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_nobody_ended_ends_by_itself_and_its_holder_can_write_no_more() {
    let (_bench, ledgers) = both().await;
    for ledger in ledgers {
        let late = ledger.begin(&image(1), long_ago()).await.unwrap();
        let lease = ledger.begin(&image(1), soon()).await.unwrap();
        assert!(ledger.reserve(&late, 10, &planned(), noon()).await.is_err());
        assert!(
            ledger
                .record_attempt(&late, &note(None), &planned())
                .await
                .is_err()
        );
        assert!(
            ledger
                .mark_uncertain(&late, &note(None), true)
                .await
                .is_err()
        );
        assert!(
            ledger
                .end(&late, &planned(), NotificationState::Nothing)
                .await
                .is_err()
        );
        ledger.release(&late).await;
        assert!(
            is_busy(&ledger, &image(1)).await,
            "nor give back what is another's"
        );
        ledger
            .record_attempt(&lease, &note(None), &planned())
            .await
            .unwrap();
    }
}

/// If the lease has a holder, the holder can still act and write. Another lease begins only when this one has ended.
#[tokio::test(start_paused = true)]
async fn regression_a_lease_whose_end_is_broken_ends_when_no_invocation_can_last_longer() {
    let (_bench, ledgers) = both().await;
    let year_3000 = Value::Number(32_503_680_000_000);
    let broken = [
        year_3000,
        "soon".into(),
        Value::Set(["1".to_owned()].into()),
    ];
    for ledger in ledgers {
        for (n, end) in broken.iter().enumerate() {
            let image = image(100 + n as u32);
            let id = item_of(&image);
            let lease = ledger.begin(&image, soon()).await.unwrap();
            let set = |end: Value| Write {
                id: id.clone(),
                if_any: Vec::new(),
                changes: vec![Change::Set(TURN_UNTIL, end)],
            };
            ledger.write(set(end.clone())).await.unwrap();
            assert!(is_busy(&ledger, &image).await);
            let earliest = CLOCK.now() + TimeDelta::minutes(15);
            ledger.repair_lease_of(&image).await;
            assert!(is_busy(&ledger, &image).await, "{end:?}: two at once");
            let item = ledger.store.read(&id).await.unwrap();
            let Some(Value::Number(until)) = item.get(TURN_UNTIL) else {
                panic!("{item:?}");
            };
            let until = DateTime::from_timestamp_millis(*until).unwrap();
            assert!(
                until > earliest && until <= CLOCK.now() + LONGEST_TURN,
                "{until}"
            );
            // A second repair changes nothing.
            ledger.repair_lease_of(&image).await;
            assert_eq!(ledger.store.read(&id).await.unwrap(), item);
            // The holder can write, and end its lease.
            ledger
                .end(&lease, &planned(), NotificationState::Nothing)
                .await
                .unwrap();
            let lease = ledger.begin(&image, soon()).await.unwrap();
            // Once the lease is over, another invocation gets it.
            ledger.write(set(ms(long_ago()))).await.unwrap();
            ledger.begin(&image, soon()).await.unwrap();
            assert!(
                ledger
                    .end(&lease, &planned(), NotificationState::Nothing)
                    .await
                    .is_err()
            );
        }
        let image = image(200);
        ledger.begin(&image, soon()).await.unwrap();
        let before = ledger.store.read(&item_of(&image)).await.unwrap();
        ledger.repair_lease_of(&image).await;
        let after = ledger.store.read(&item_of(&image)).await.unwrap();
        assert_eq!(before, after, "a lease that is right stays");
    }
}

#[tokio::test(start_paused = true)]
async fn regression_a_counter_that_has_lost_its_number_counts_nothing() {
    let (_bench, ledgers) = both().await;
    for ledger in ledgers {
        let first = ledger.begin(&image(1), soon()).await.unwrap();
        ledger.reserve(&first, 5, &planned(), noon()).await.unwrap();
        let id = "hour#123456789012#eu-west-1#2026-11-23T12";
        for damage in [
            Change::Remove(BEGUN),
            Change::Set(BEGUN, "1".into()),
            Change::Set(BEGUN, Value::Number(0)),
            Change::Set(BEGUN, Value::Number(-9)),
            Change::Set(BEGUN, Value::Set(["1".to_owned()].into())),
        ] {
            let write = Write {
                id: id.to_owned(),
                if_any: Vec::new(),
                changes: vec![damage.clone()],
            };
            ledger.write(write).await.unwrap();
            let lease = ledger.begin(&image(2), soon()).await.unwrap();
            let error = ledger.reserve(&lease, 5, &planned(), noon()).await;
            let error = error.unwrap_err().to_string();
            assert!(
                error.contains("UnreadableItem: begun"),
                "{damage:?}: {error}"
            );
            ledger.release(&lease).await;
        }
        let write = Write {
            id: id.to_owned(),
            if_any: Vec::new(),
            changes: vec![Change::Set(BEGUN, Value::Number(i64::MAX))],
        };
        ledger.write(write).await.unwrap();
        let lease = ledger.begin(&image(2), soon()).await.unwrap();
        let place = ledger.reserve(&lease, 5, &planned(), noon()).await.unwrap();
        assert_eq!(place, Reservation::Full(hour(noon())));
    }
}

/// The record has:
///
/// - 50 tags with the longest keys and values, of four-byte characters or of characters that JSON escapes
/// - a hundred block devices
/// - a thousand accounts that may use the image
/// - long texts wherever there are texts
#[tokio::test(start_paused = true)]
async fn regression_the_largest_record_that_there_can_be_fits_into_its_item() {
    let (_bench, ledgers) = both().await;
    let tag = |n: usize| {
        let (key, value) = ("\u{1f980}".repeat(125), "\u{1f980}\"".repeat(128));
        serde_json::json!({ "Key": format!("{n:03}{key}"), "Value": value })
    };
    let device = |n: usize| {
        serde_json::json!({ "DeviceName": format!("/dev/xvd{n}"), "Ebs": {
            "DeleteOnTermination": true, "SnapshotId": format!("snap-{n:017x}"), "VolumeSize": 16384,
            "VolumeType": "gp3", "Iops": 16000, "Throughput": 1000, "Encrypted": true,
        } })
    };
    let permission = |n: usize| serde_json::json!({ "UserId": format!("{n:012}") });
    let rebuild = crate::record::Rebuild {
        register_image: serde_json::json!({
            "Name": "n".repeat(128),
            "Description": "d".repeat(255),
            "BlockDeviceMappings": (0..100).map(device).collect::<Vec<_>>(),
            "TagSpecifications": [{ "ResourceType": "image", "Tags": (0..50).map(tag).collect::<Vec<_>>() }],
        }),
        launch_permissions: (0..1000).map(permission).collect(),
        deprecate_at: None,
        deregistration_protection: None,
    };
    let mut largest = planned();
    largest.rebuild = Some(rebuild.clone());
    largest.fix = vec!["'\\''".repeat(30_000), "x".repeat(100_000)];
    largest.references = vec!["arn:".repeat(500); 101];
    largest.error = Some("e".repeat(100_000));
    let done = Record {
        outcome: Some(Outcome::Done),
        ..largest.clone()
    };
    for ledger in ledgers {
        let lease = ledger.begin(&image(1), soon()).await.unwrap();
        ledger.reserve(&lease, 5, &largest, noon()).await.unwrap();
        ledger
            .record_attempt(&lease, &note(None), &largest)
            .await
            .unwrap();
        ledger
            .end(&lease, &done, NotificationState::Now("g".repeat(5_000)))
            .await
            .unwrap();
        let item = ledger.store.read(&item_of(&image(1))).await.unwrap();
        let size = |value: &Value| match value {
            Value::Text(text) => text.len(),
            _ => 21,
        };
        let bytes: usize = item
            .iter()
            .map(|(name, value)| name.len() + size(value))
            .sum();
        println!("the largest item has {bytes} bytes");
        assert!(bytes < 400 * 1024, "{bytes}");
        // Everything that is needed to register the image again is there.
        let lease = ledger.look(&image(1)).await.unwrap();
        let kept = lease.entry.discard.unwrap().record;
        assert_eq!(kept.rebuild.as_ref(), Some(&rebuild));
        assert_eq!(lease.entry.unreadable, BTreeMap::new());
    }
}

#[tokio::test(start_paused = true)]
async fn the_limit_is_exact_however_many_are_at_it_at_once() {
    let (_bench, ledgers) = both().await;
    for ledger in ledgers {
        let ledger = std::sync::Arc::new(ledger);
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..60 {
            let ledger = std::sync::Arc::clone(&ledger);
            tasks.spawn(async move {
                let lease = ledger.begin(&image(number), soon()).await.unwrap();
                ledger
                    .reserve(&lease, 10, &planned(), noon())
                    .await
                    .unwrap()
            });
        }
        let places = tasks.join_all().await;
        let kept = places.iter().filter(|place| **place == Reservation::Kept);
        assert_eq!(kept.count(), 10);
    }
}

#[tokio::test(start_paused = true)]
async fn a_discard_that_is_tried_again_takes_no_second_place() {
    let (_bench, ledgers) = both().await;
    for ledger in ledgers {
        for _ in 0..3 {
            let lease = ledger.begin(&image(1), soon()).await.unwrap();
            let place = ledger.reserve(&lease, 2, &planned(), noon()).await.unwrap();
            assert_eq!(place, Reservation::Kept);
            ledger.release(&lease).await;
        }
        for (number, place) in [(2, true), (3, false)] {
            let lease = ledger.begin(&image(number), soon()).await.unwrap();
            let given = ledger.reserve(&lease, 2, &planned(), noon()).await.unwrap();
            assert_eq!(given == Reservation::Kept, place);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_hour_has_places_of_its_own_and_a_discard_tried_again_takes_one_of_them() {
    let (_bench, ledgers) = both().await;
    for ledger in ledgers {
        let last_moment = noon() + TimeDelta::minutes(60) - TimeDelta::milliseconds(1);
        let next_hour = noon() + TimeDelta::minutes(60);
        let place = |number, now| {
            let ledger = &ledger;
            async move {
                let lease = ledger.begin(&image(number), soon()).await.unwrap();
                let place = ledger.reserve(&lease, 1, &planned(), now).await.unwrap();
                ledger.release(&lease).await;
                place
            }
        };
        let full = |hour: &str| Reservation::Full(hour.to_owned());
        assert_eq!(place(1, noon()).await, Reservation::Kept);
        assert_eq!(place(2, last_moment).await, full("2026-11-23T12"));
        assert_eq!(place(1, next_hour).await, Reservation::Kept);
        assert_eq!(place(2, next_hour).await, full("2026-11-23T13"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_nothing_lets_nothing_through() {
    let (_bench, ledgers) = both().await;
    for ledger in ledgers {
        let lease = ledger.begin(&image(1), soon()).await.unwrap();
        let place = ledger.reserve(&lease, 0, &planned(), noon()).await.unwrap();
        assert!(matches!(place, Reservation::Full(_)));
    }
}

#[tokio::test(start_paused = true)]
async fn one_image_of_an_hour_is_the_first_over_the_limit_and_stays_it() {
    let (_bench, ledgers) = both().await;
    for ledger in ledgers {
        let one = ledger.begin(&image(1), soon()).await.unwrap();
        let other = ledger.begin(&image(2), soon()).await.unwrap();
        let hour = "2026-11-23T22".to_owned();
        assert!(ledger.is_first_over_limit(&one, &hour).await.unwrap());
        assert!(!ledger.is_first_over_limit(&other, &hour).await.unwrap());
        assert!(ledger.is_first_over_limit(&one, &hour).await.unwrap());
        let next = "2026-11-23T23".to_owned();
        assert!(ledger.is_first_over_limit(&other, &next).await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn regression_an_hour_that_began_with_a_limit_of_nothing_is_not_damaged() {
    let (_bench, ledgers) = both().await;
    for ledger in ledgers {
        let lease = ledger.begin(&image(1), soon()).await.unwrap();
        let place = ledger.reserve(&lease, 0, &planned(), noon()).await.unwrap();
        let Reservation::Full(hour) = place else {
            panic!("{place:?}")
        };
        assert!(ledger.is_first_over_limit(&lease, &hour).await.unwrap());
        // The policy changes within the hour.
        for (number, place) in [(1, Reservation::Kept), (2, Reservation::Full(hour))] {
            let lease = match number {
                1 => &lease,
                _ => &ledger.begin(&image(number), soon()).await.unwrap(),
            };
            let given = ledger.reserve(lease, 1, &planned(), noon()).await;
            assert_eq!(given.unwrap(), place);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn regression_an_image_that_is_left_to_the_digest_while_that_is_sent_waits_for_the_next() {
    let place = ("123456789012", "eu-west-1");
    let (_bench, ledgers) = both().await;
    for ledger in ledgers {
        let leave = async || {
            let lease = ledger.begin(&image(1), soon()).await.unwrap();
            let held = record(Action::Hold, None);
            ledger.leave_to_digest(&lease, &held).await.unwrap();
        };
        let waiting = || async { ledger.waiting_for_digest(place.0, place.1).await.unwrap() };
        leave().await;
        let told = waiting().await.into_values().flatten().collect();
        leave().await;
        ledger.digested(place.0, place.1, told).await.unwrap();
        let id = image(1).image_id.to_string();
        assert_eq!(waiting().await.into_keys().collect::<Vec<_>>(), [id]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_image_waits_for_the_digest_once_and_until_it_was_told_of() {
    let place = ("123456789012", "eu-west-1");
    let (_bench, ledgers) = both().await;
    for ledger in ledgers {
        let waiting = || async {
            let waiting = ledger.waiting_for_digest(place.0, place.1).await.unwrap();
            waiting.into_keys().collect::<BTreeSet<String>>()
        };
        let notes_of = async |image: &str| {
            let waiting = ledger.waiting_for_digest(place.0, place.1).await.unwrap();
            waiting[image].clone()
        };
        assert!(waiting().await.is_empty());
        for number in [1, 2, 1] {
            let lease = ledger.begin(&image(number), soon()).await.unwrap();
            let held = record(Action::Hold, None);
            ledger.leave_to_digest(&lease, &held).await.unwrap();
        }
        let for_digest = async |image: &str| {
            let entry = ledger.entry(place.0, place.1, image).await.unwrap();
            entry.for_digest().and_then(|record| record.action.clone())
        };
        let [one, two] = [1, 2].map(|number| image(number).image_id.to_string());
        assert_eq!(waiting().await, BTreeSet::from([one.clone(), two.clone()]));
        assert_eq!(for_digest(&one).await, Some("hold".into()));
        ledger
            .digested(place.0, place.1, notes_of(&one).await)
            .await
            .unwrap();
        assert_eq!(waiting().await, BTreeSet::from([two.clone()]));
        ledger
            .digested(place.0, place.1, notes_of(&two).await)
            .await
            .unwrap();
        assert!(waiting().await.is_empty());
        // The digest leaves out an image that an alert of its own has reported meanwhile, or that is right.
        for told in [
            NotificationState::Now("b".into()),
            NotificationState::Nothing,
        ] {
            let held = record(Action::Hold, None);
            let lease = ledger.begin(&image(3), soon()).await.unwrap();
            ledger.leave_to_digest(&lease, &held).await.unwrap();
            let three = image(3).image_id.to_string();
            assert_eq!(for_digest(&three).await, Some("hold".into()));
            let lease = ledger.begin(&image(3), soon()).await.unwrap();
            ledger.end(&lease, &held, told).await.unwrap();
            assert_eq!(for_digest(&three).await, None);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_alert_is_counted_once_in_its_hour_and_one_has_room_for_so_many() {
    let (_bench, ledger) = Bench::new().await;
    let reserve = async |number: u32, said: &str, now| {
        let lease = ledger.begin(&image(number), soon()).await.unwrap();
        let place = ledger.reserve_alert(&lease, 2, said, now).await.unwrap();
        ledger.release(&lease).await;
        place
    };
    let full = Reservation::Full("2026-11-23T12".into());
    let later = noon() + TimeDelta::hours(1);
    for (number, said, now, place) in [
        (1, "a", noon(), &Reservation::Kept),
        (1, "a", noon(), &Reservation::Kept),
        (1, "b", noon(), &Reservation::Kept),
        (2, "a", noon(), &full),
        // Only the last alert of an image is counted.
        (1, "b", noon(), &Reservation::Kept),
        (2, "a", later, &Reservation::Kept),
        (1, "b", later, &Reservation::Kept),
        (3, "b", later, &Reservation::Full("2026-11-23T13".into())),
    ] {
        assert_eq!(reserve(number, said, now).await, *place, "{number} {said}");
    }
    let memory = Ledger::in_memory(CLOCK);
    for number in 1..=3 {
        let lease = memory.begin(&image(number), soon()).await.unwrap();
        let place = memory.reserve_alert(&lease, 0, "a", noon()).await.unwrap();
        assert_eq!(place, Reservation::Kept, "no digest may come");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_told_is_remembered_for_a_day_or_until_there_is_nothing_to_tell() {
    let (_bench, ledgers) = both().await;
    for ledger in ledgers {
        let hold = record(Action::Hold, None);
        let lease = ledger.begin(&image(1), soon()).await.unwrap();
        ledger
            .end(&lease, &hold, NotificationState::Now("a".into()))
            .await
            .unwrap();
        let lease = ledger.begin(&image(1), soon()).await.unwrap();
        let told = |dedup_key, hours| {
            let then = CLOCK.now() + TimeDelta::hours(hours);
            lease.entry.was_told(dedup_key, then)
        };
        assert!(told("a", 0) && told("a", 23));
        assert!(!told("b", 0) && !told("a", 25));
        ledger
            .end(&lease, &hold, NotificationState::AsBefore)
            .await
            .unwrap();
        let lease = ledger.begin(&image(1), soon()).await.unwrap();
        assert!(lease.entry.was_told("a", CLOCK.now()));
        ledger
            .end(&lease, &hold, NotificationState::Nothing)
            .await
            .unwrap();
        let lease = ledger.begin(&image(1), soon()).await.unwrap();
        assert!(!lease.entry.was_told("a", CLOCK.now()));
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_is_remembered_unless_the_image_was_seen_to_stand_after_it() {
    let (_bench, ledgers) = both().await;
    for ledger in ledgers {
        let begin = async || ledger.begin(&image(1), soon()).await.unwrap();
        let note = note(None);
        let lease = begin().await;
        assert_eq!(lease.entry, Entry::default());
        ledger.reserve(&lease, 1, &planned(), noon()).await.unwrap();
        ledger.release(&lease).await;

        let lease = begin().await;
        assert!(lease.entry.history().begun);
        assert_eq!(
            (lease.entry.attempted, lease.entry.unfinished()),
            (None, None)
        );
        ledger
            .record_attempt(&lease, &note, &planned())
            .await
            .unwrap();
        ledger.release(&lease).await;

        let lease = begin().await;
        assert!(lease.entry.attempted.is_some());
        assert_eq!(
            lease.entry.unfinished().unwrap().record.outcome.as_deref(),
            Some("planned")
        );
        ledger.mark_uncertain(&lease, &note, true).await.unwrap();
        ledger.release(&lease).await;

        let lease = begin().await;
        assert_eq!(lease.entry.attempted, None);
        assert_eq!(lease.entry.unfinished(), None);
        ledger
            .record_attempt(&lease, &note, &planned())
            .await
            .unwrap();
        ledger.mark_uncertain(&lease, &note, false).await.unwrap();
        ledger.release(&lease).await;

        let lease = begin().await;
        assert!(lease.entry.attempted.is_some());
        ledger
            .record_attempt(&lease, &note, &planned())
            .await
            .unwrap();
        let done = record(Action::Disable, Some(Outcome::Done));
        ledger
            .end(&lease, &done, NotificationState::Nothing)
            .await
            .unwrap();

        let lease = begin().await;
        assert!(lease.entry.attempted.is_some());
        assert_eq!(lease.entry.unfinished(), None);
        // A later record does not overwrite what is known about the discard.
        let later = record(Action::None, None);
        ledger
            .end(&lease, &later, NotificationState::Nothing)
            .await
            .unwrap();
        let discard = begin().await.entry.discard.unwrap();
        assert_eq!(
            (discard.completed, discard.record.outcome.as_deref()),
            (true, Some("done"))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_discard_is_remembered_of_the_snapshot_too_for_what_is_registered_from_it_later() {
    let snapshot = "snap-0a1b2c3d4e5f60001";
    let noted = |minutes| Note {
        source: Some(snapshot),
        at: CLOCK.now() - TimeDelta::minutes(minutes),
    };
    let (_bench, ledgers) = both().await;
    for ledger in ledgers {
        let mut turns = Vec::new();
        for number in 1..=3 {
            turns.push(ledger.begin(&image(number), soon()).await.unwrap());
        }
        let [one, two, three] = turns.as_slice() else {
            unreachable!()
        };
        let discarded = async |lease| {
            let at = ledger.first_discard_of(lease, snapshot).await.unwrap();
            at.map(|at| (CLOCK.now() - at).num_minutes())
        };
        assert_eq!(discarded(three).await, None);
        let (early, late) = (noted(9), noted(5));
        ledger.record_attempt(two, &late, &planned()).await.unwrap();
        ledger
            .record_attempt(one, &early, &planned())
            .await
            .unwrap();
        assert_eq!(discarded(three).await, Some(9), "the first counts");
        assert_eq!(
            discarded(one).await,
            Some(5),
            "its own it knows from its entry"
        );
        // Removing one image's discard leaves the other's.
        ledger.mark_uncertain(one, &early, true).await.unwrap();
        assert_eq!(discarded(three).await, Some(5));
        ledger.mark_uncertain(two, &late, false).await.unwrap();
        assert_eq!(discarded(three).await, Some(5), "what may be gone counts");
        ledger.mark_uncertain(two, &late, true).await.unwrap();
        assert_eq!(discarded(three).await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_audit_began_is_known_until_it_ended_and_was_told_of() {
    let (_bench, ledgers) = both().await;
    for ledger in ledgers {
        let audit = Audit {
            event_id: "e".into(),
            account: "123456789012".parse().unwrap(),
            region: "eu-west-1".into(),
            time: noon(),
        };
        let begin = async || {
            let lease = ledger.begin_audit(&audit, soon()).await.unwrap();
            (lease.begun_with.len(), lease.ended_with.len(), lease)
        };
        let ids = [1, 2, 3].map(|number| image(number).image_id);
        let (begun, ended, lease) = begin().await;
        assert_eq!((begun, ended, lease.last), (0, 0, None));
        for id in &ids {
            // This time has nanoseconds, and the ledger keeps milliseconds.
            let created = noon() + TimeDelta::nanoseconds(1);
            ledger.begin_with(&lease, id, created).await.unwrap();
        }
        ledger.release_audit(&lease).await;

        let (begun, ended, lease) = begin().await;
        assert_eq!((begun, ended), (3, 0));
        let of_first = lease.begun_with.first().unwrap();
        assert_eq!(*of_first, (ids[0].clone(), noon()));
        ledger.end_with(&lease, &ids[0], noon()).await;
        ledger.leave(&lease, &ids[1], noon()).await;
        ledger.release_audit(&lease).await;

        let (begun, ended, lease) = begin().await;
        assert_eq!((begun, ended), (1, 1));
        ledger.end_with(&lease, &ids[2], noon()).await;
        ledger
            .end_audit(&lease, &audit, Some("there"))
            .await
            .unwrap();

        let (begun, ended, lease) = begin().await;
        assert_eq!((begun, ended, lease.last), (0, 0, Some(noon())));
        assert_eq!(lease.cursor.as_deref(), Some("there"));
        let late = ledger.begin_audit(&audit, soon()).await;
        assert!(late.is_err(), "one at a time");
    }
}

#[tokio::test(start_paused = true)]
async fn every_item_of_the_table_expires_some_day() {
    let (sim, ledger) = Bench::new().await;
    let lease = ledger.begin(&image(1), soon()).await.unwrap();
    ledger.reserve(&lease, 1, &planned(), noon()).await.unwrap();
    let hour = "2026-11-23T22".to_owned();
    ledger.is_first_over_limit(&lease, &hour).await.unwrap();
    ledger.leave_to_digest(&lease, &planned()).await.unwrap();
    ledger
        .record_attempt(&lease, &note(Some("snap-1")), &planned())
        .await
        .unwrap();
    let world = sim.world();
    let items = &world.tables[TABLE].items;
    assert_eq!(items.len(), 5);
    let in_a_year = (CLOCK.now() + TimeDelta::days(365)).timestamp();
    for (id, item) in items {
        let item = serde_json::json!(item);
        let expires: i64 = item["expires"]["N"].as_str().unwrap().parse().unwrap();
        assert!((in_a_year - expires).abs() < 60, "{id}: {item}");
    }
}

#[tokio::test(start_paused = true)]
async fn another_writer_at_the_same_time_is_waited_for_and_not_for_ever() {
    let (sim, ledger) = Bench::new().await;
    for action in ["UpdateItem", "TransactWriteItems"] {
        for n in 1..=2 {
            sim.inject(Fault::nth(action, n, FaultKind::TransactionConflict));
        }
    }
    let lease = ledger.begin(&image(1), soon()).await.unwrap();
    let place = ledger.reserve(&lease, 1, &planned(), noon()).await.unwrap();
    assert_eq!(place, Reservation::Kept);

    let lease = ledger.begin(&image(2), soon()).await.unwrap();
    let always = Fault::always("TransactWriteItems", FaultKind::TransactionConflict);
    sim.inject(always);
    let error = ledger
        .reserve(&lease, 2, &planned(), noon())
        .await
        .unwrap_err();
    assert_eq!(error.error_type(), "Busy");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_lost_does_not_shut_its_own_invocation_out() {
    for fault in [FaultKind::ResetAfter, FaultKind::CutBody] {
        let (sim, ledger) = Bench::new().await;
        for action in ["UpdateItem", "TransactWriteItems"] {
            sim.inject(Fault::nth(action, 1, fault.clone()));
        }
        let lease = ledger.begin(&image(1), soon()).await.unwrap();
        let place = ledger.reserve(&lease, 1, &planned(), noon()).await.unwrap();
        assert_eq!(place, Reservation::Kept, "{fault:?}");
        sim.inject(Fault::nth("UpdateItem", 1, fault.clone()));
        ledger
            .end(&lease, &planned(), NotificationState::Nothing)
            .await
            .unwrap();
        // The discard was counted once.
        let lease = ledger.begin(&image(2), soon()).await.unwrap();
        assert_eq!(
            ledger.reserve(&lease, 2, &planned(), noon()).await.unwrap(),
            Reservation::Kept
        );
    }
}
