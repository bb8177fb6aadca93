//! A model of what the guard promises, and random sequences of what people, AWS and Lambda do to it: the
//! real flow on `sim`, judged after every step by what the server saw, never by what the guard says it did.
//!
//! `GUARD_MODEL_SEQUENCES` runs more sequences, `GUARD_MODEL_SEED` other ones. A sequence that breaks a
//! promise is shortened and printed, and its seed repeats it; what it found is kept here as a test named `regression_…`.

#[macro_use]
mod bench;
mod expected;
mod facts;
mod run;
mod steps;

use crate::model::Lasting::ForGood;
use crate::model::Lasting::Once;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use chrono::DateTime;
use fastrand::Rng;
use sim::Call;
use tokio::task::JoinHandle;

use super::*;
use bench::*;
use expected::*;
use facts::*;
use run::*;
use steps::*;

const EXPECT: &str = "ami-billing-guard:expect";
/// What is no platform.
const MISTYPED: [&str; 1] = ["Amiga"];
const TABLE: &str = "ami-billing-guard";
const ACCOUNT: &str = "123456789012";

/// So many images and snapshots there are at most.
const IMAGES: usize = 3;
const SNAPSHOTS: usize = 2;

/// After this an image is settled, and who stands after a discard was brought back. What is younger than
/// `YOUNG` is much younger, and what is older than `OLD` is much older: a run takes a while.
const SETTLED: i64 = 340;
const YOUNG: i64 = 300;
const OLD: i64 = 600;
/// For so long after its discard an image that is there may be one that EC2 lists yet.
const LINGERS: i64 = 180;
const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
/// For so long what EC2 refused is not tried again.
const REFUSED: i64 = 600;
const DAY: i64 = 86_400;

/// The answer that a crash waits for, and the one during which people do something.
const CRASH: FaultKind = FaultKind::Slow(Duration::from_secs(20));
const MEANWHILE: FaultKind = FaultKind::Slow(Duration::from_millis(60));

/// Without a setting, so many sequences: what fits half a minute.
const SEQUENCES: u64 = 1000;

/// Runs a sequence in a world of its own, on virtual time, with chance as this seed has it: the same happens each time.
fn play(seed: u64, rules: Rules, steps: &[Step]) -> Result<Seen, Violation> {
    let (result, _) = play_and_tell(seed, rules, steps);
    result
}

/// And says what happened, call by call.
fn play_and_tell(seed: u64, rules: Rules, steps: &[Step]) -> (Result<Seen, Violation>, String) {
    let runtime = virtual_time::runtime::Builder::new_current_thread();
    runtime.build().unwrap().block_on(async {
        virtual_time::begin(seed);
        let bench = Bench::open(rules).await;
        // In some worlds all is close by, in others who was sent first is not always there first.
        let delays = [0, 3, 40].map(Duration::from_millis);
        bench.sim.delay_at_random(delays[fastrand::usize(..3)]);
        let result = bench.run(steps).await;
        (result, bench.log.into_inner().unwrap())
    })
}

/// Makes a sequence that breaks a promise as short as it can be made.
fn shortest(
    seed: u64,
    rules: Rules,
    mut steps: Vec<Step>,
    mut violation: Violation,
) -> (Vec<Step>, Violation) {
    'shorter: loop {
        for shorter in shortened(&steps) {
            if let Err(same) = play(seed, rules, &shorter) {
                (steps, violation) = (shorter, same);
                continue 'shorter;
            }
        }
        return (steps, violation);
    }
}

/// The same steps, each time with one thing less.
fn shortened(steps: &[Step]) -> Vec<Vec<Step>> {
    let mut all = Vec::new();
    for at in (0..steps.len()).rev() {
        let mut less = steps.to_vec();
        less.remove(at);
        all.push(less);
    }
    for (at, step) in steps.iter().enumerate() {
        let Step::Deliver {
            events,
            early,
            troubles,
        } = step
        else {
            continue;
        };
        let mut simpler = Vec::new();
        for n in 0..troubles.len() {
            let mut troubles = troubles.clone();
            troubles.remove(n);
            simpler.push((events.clone(), *early, troubles));
        }
        for n in (0..events.len()).filter(|_| events.len() > 1) {
            let mut events = events.clone();
            events.remove(n);
            simpler.push((events, *early, troubles.clone()));
        }
        if *early {
            simpler.push((events.clone(), false, troubles.clone()));
        }
        for (events, early, troubles) in simpler {
            let mut less = steps.to_vec();
            less[at] = Step::Deliver {
                events,
                early,
                troubles,
            };
            all.push(less);
        }
    }
    all
}

#[test]
fn regression_a_region_that_a_message_cuts_short_tells_no_two_worlds_apart() {
    let cut = [
        "in model-00000099, in model-000000…",
        "in model-00000100, in model-000001…",
    ];
    assert_eq!(cut.map(without_region), ["in REGION, in REGION…"; 2]);
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

#[test]
fn whatever_happens_the_guard_keeps_its_promises() {
    let sequences = setting("GUARD_MODEL_SEQUENCES", SEQUENCES);
    let first = setting("GUARD_MODEL_SEED", 0);
    let seeds: Vec<u64> = (first..first + sequences).collect();
    let broken = AtomicUsize::new(0);
    let results = virtual_time::on_threads(&seeds, |seed| {
        let (rules, steps) = sequence(*seed);
        play(*seed, rules, &steps).map_err(|violation| {
            // To shorten one takes long: a few are enough.
            let (steps, violation) = match broken.fetch_add(1, Ordering::Relaxed) {
                0..3 => shortest(*seed, rules, steps, violation),
                _ => (steps, violation),
            };
            Box::new((*seed, rules, (steps, violation)))
        })
    });
    let mut seen = Seen::default();
    let mut report = String::new();
    for result in results {
        match result {
            Ok(more) => seen.add(more),
            Err(found) => {
                let (seed, rules, (steps, violation)) = *found;
                report += &format!("\nseed {seed}, {rules:?}:\n");
                let steps = steps.iter();
                steps.for_each(|step| report += &format!("    {step:?},\n"));
                report += &format!("{violation}\n");
            }
        }
    }
    eprintln!("{sequences} sequences: {seen:?}");
    assert!(report.is_empty(), "{report}");
    let rare = [
        seen.brought_back,
        seen.registered_again,
        seen.over_limit,
        seen.digested,
    ];
    let often = [
        seen.discards,
        seen.faults,
        seen.crashes,
        seen.changes,
        seen.told_once,
    ];
    assert!(
        sequences < 200 || rare.iter().chain(&often).all(|number| *number > 0),
        "{seen:?}"
    );
}

#[test]
fn the_same_seed_is_the_same_world_call_by_call() {
    let seeds: Vec<u64> = (0..10).collect();
    let twice = virtual_time::on_threads(&seeds, |seed| {
        let (rules, steps) = sequence(*seed);
        [(); 2].map(|()| play_and_tell(*seed, rules, &steps).1)
    });
    for [once, again] in twice {
        assert!(once.lines().count() > 20, "{once}");
        let differ = once
            .lines()
            .zip(again.lines())
            .find(|(once, again)| once != again);
        assert_eq!(differ, None);
        assert_eq!(once.len(), again.len());
    }
}

#[test]
fn with_another_seed_the_same_steps_happen_in_another_order() {
    let (rules, steps) = sequence(0);
    let orders = (0..20).map(|seed| {
        let (_, log) = play_and_tell(seed, rules, &steps);
        let actions = log.lines().filter_map(|line| line.split(' ').nth(3));
        actions.collect::<Vec<_>>().join(" ")
    });
    let different: BTreeSet<String> = orders.collect();
    assert!(different.len() > 1);
}

fn wrong(image: usize) -> Step {
    Step::Register {
        image,
        snapshot: 0,
        bills: "Linux/UNIX",
        expect: "Windows",
        foreign: false,
    }
}

fn made(image: usize) -> Step {
    clean(Event::CloudTrail(image))
}

fn troubled(events: &[Event], troubles: &[Trouble]) -> Step {
    Step::Deliver {
        events: events.to_vec(),
        early: false,
        troubles: troubles.to_vec(),
    }
}

/// In several orders of what happens at once.
fn holds(rules: Rules, steps: &[Step]) {
    for seed in 0..10 {
        if let Err(violation) = play(seed, rules, steps) {
            panic!("seed {seed}: {violation}");
        }
    }
}

use Event::{CloudTrail, StateChange};

#[test]
fn regression_both_events_of_an_image_whose_turn_a_crash_left_come_again() {
    let rules = Rules {
        disable: true,
        ..USUAL
    };
    let other = Step::Register {
        image: 1,
        snapshot: 0,
        bills: "",
        expect: "",
        foreign: false,
    };
    let steps = [
        wrong(0),
        other,
        troubled(&[CloudTrail(0)], &[Trouble::Crash("UpdateItem", 2)]),
        troubled(&[CloudTrail(1)], &[]),
        troubled(&[StateChange(0), CloudTrail(0)], &[]),
    ];
    for seed in [1, 101_168] {
        assert!(play(seed, rules, &steps).is_ok());
    }
}

#[test]
fn regression_a_note_that_outlives_its_attempt_hides_no_later_discard() {
    let steps = [
        wrong(0),
        wrong(1),
        troubled(
            &[CloudTrail(0)],
            &[Trouble::Fault(
                "UpdateItem",
                3,
                FaultKind::AccessDenied,
                ForGood,
            )],
        ),
        made(1),
        wrong(2),
        Step::Later(SETTLED),
        made(0),
        made(2),
    ];
    holds(USUAL, &steps);
}

#[test]
fn regression_an_image_that_stands_does_not_undo_the_note_of_another_that_went() {
    let steps = [
        wrong(0),
        wrong(1),
        troubled(
            &[CloudTrail(0), CloudTrail(1)],
            &[Trouble::Fault(
                "DeregisterImage",
                1,
                FaultKind::AccessDenied,
                Once,
            )],
        ),
        wrong(2),
        made(2),
    ];
    holds(USUAL, &steps);
}

#[test]
fn regression_who_heard_that_a_discard_failed_hears_that_it_did_not() {
    let steps = [
        wrong(0),
        troubled(
            &[CloudTrail(0)],
            &[
                Trouble::Fault("DeregisterImage", 1, FaultKind::ResetAfter, ForGood),
                Trouble::Fault("DescribeImages", 3, FaultKind::AccessDenied, ForGood),
                Trouble::Crash("Publish", 2),
            ],
        ),
    ];
    holds(USUAL, &steps);
}

#[test]
fn regression_what_the_digest_should_tell_is_told_though_the_record_was_lost() {
    let steps = [
        wrong(0),
        wrong(1),
        wrong(2),
        made(0),
        made(1),
        troubled(
            &[CloudTrail(2)],
            &[Trouble::Fault(
                "UpdateItem",
                4,
                FaultKind::AccessDenied,
                Once,
            )],
        ),
    ];
    holds(Rules { most: 1, ..USUAL }, &steps);
}

#[test]
fn regression_an_image_that_people_disable_after_a_discard_that_failed_is_not_said_to_be_gone() {
    let steps = [
        wrong(0),
        troubled(
            &[CloudTrail(0)],
            &[Trouble::Fault(
                "DeregisterImage",
                1,
                FaultKind::Throttle,
                ForGood,
            )],
        ),
        Step::People(Deed::Disable(0)),
        made(0),
    ];
    holds(USUAL, &steps);
}

#[test]
fn regression_an_image_that_people_disable_after_a_discard_was_cut_off_is_not_said_to_be_gone() {
    let steps = [
        wrong(0),
        troubled(&[CloudTrail(0)], &[Trouble::Crash("UpdateItem", 3)]),
        Step::People(Deed::Disable(0)),
        Step::Later(SETTLED),
        made(0),
    ];
    holds(USUAL, &steps);
}

#[test]
fn regression_what_ec2_refused_is_not_tried_again_though_people_heard_of_the_ledger_since() {
    let fault = |action, lasting| Trouble::Fault(action, 1, FaultKind::AccessDenied, lasting);
    let steps = [
        wrong(0),
        troubled(&[CloudTrail(0)], &[fault("DeregisterImage", ForGood)]),
        troubled(&[CloudTrail(0)], &[fault("UpdateItem", Once)]),
        made(0),
    ];
    holds(USUAL, &steps);
}

#[test]
fn regression_an_image_that_is_put_right_while_it_is_left_to_the_digest_may_be_in_it() {
    let put_right = Deed::Expect(2, "Linux");
    let steps = [
        wrong(0),
        wrong(1),
        wrong(2),
        made(0),
        made(1),
        troubled(
            &[CloudTrail(2)],
            &[Trouble::Meanwhile("TransactWriteItems", 1, put_right)],
        ),
    ];
    holds(Rules { most: 1, ..USUAL }, &steps);
}
