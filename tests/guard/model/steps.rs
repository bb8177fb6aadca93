//! What may happen in a sequence.

use super::*;

/// One step of a sequence. A step about what there is not does nothing.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Somebody registers an image.
    Register {
        image: usize,
        snapshot: usize,
        bills: &'static str,
        expect: &'static str,
        foreign: bool,
    },
    /// People do something.
    People(Deed),
    /// Time passes, in seconds.
    Later(i64),
    /// Events reach the guard, two of them at once.
    Deliver {
        events: Vec<Event>,
        /// At once, and not when the image is settled.
        early: bool,
        troubles: Vec<Trouble>,
    },
}

/// An event. Each delivery of it but the first is a duplicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    CloudTrail(usize),
    /// It does not say who registered the image.
    StateChange(usize),
    Digest,
}

/// What people do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    Expect(usize, &'static str),
    Launch(usize),
    Terminate(usize),
    Protect(usize),
    Unprotect(usize),
    Deregister(usize),
    Disable(usize),
    /// Out of the Recycle Bin, or enabled again.
    BringBack(usize),
    /// Whether anybody is subscribed to the alerts.
    Listen(bool),
}

/// What disturbs a delivery.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Trouble {
    /// The `nth` call of an action is disturbed; a lasting fault disturbs all after it as well.
    Fault(&'static str, usize, FaultKind, Lasting),
    /// The invocation ends for good while it waits for the answer to this call.
    Crash(&'static str, usize),
    /// People do something while this call is answered.
    Meanwhile(&'static str, usize, Deed),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lasting {
    Once,
    ForGood,
}
use Lasting::{ForGood, Once};

/// How the guard is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) mode: Mode,
    pub(super) disable: bool,
    pub(super) most: u32,
    /// How long it waits for what does not show at once, in milliseconds.
    pub(super) wait: u64,
    /// How often EC2 still lists an image that was deregistered.
    pub(super) lingers: u32,
}

pub(super) const USUAL: Rules = Rules {
    mode: Mode::Enforce,
    disable: false,
    most: 10,
    wait: 10,
    lingers: 0,
};

pub(super) const RULES: [Rules; 7] = [
    USUAL,
    Rules { most: 1, ..USUAL },
    Rules {
        disable: true,
        ..USUAL
    },
    Rules { most: 2, ..USUAL },
    Rules { wait: 250, ..USUAL },
    Rules {
        mode: Mode::Observe,
        ..USUAL
    },
    Rules {
        lingers: 2,
        ..USUAL
    },
];

/// The calls of a delivery that discards, in their order, with those that only a held one makes at the end.
pub(super) const CALLS: [(&str, usize); 25] = [
    ("DescribeImages", 1),
    ("DescribeSnapshots", 1),
    ("UpdateItem", 1),
    ("DescribeImageReferences", 1),
    ("DescribeImageAttribute", 1),
    ("GetTopicAttributes", 1),
    ("GetItem", 1),
    ("TransactWriteItems", 1),
    ("CreateTags", 1),
    ("DescribeImages", 2),
    ("DescribeImageReferences", 2),
    ("GetTopicAttributes", 2),
    ("GetItem", 2),
    ("Publish", 1),
    ("UpdateItem", 2),
    ("UpdateItem", 3),
    (TAKE_AWAY, 1),
    (TAKE_AWAY, 1),
    ("DescribeImages", 3),
    ("ListImagesInRecycleBin", 1),
    ("UpdateItem", 4),
    ("UpdateItem", 5),
    ("UpdateItem", 6),
    ("Publish", 2),
    (TAKE_AWAY, 2),
];

/// Stands for the one of two calls that the rules ask for.
pub(super) const TAKE_AWAY: &str = "DeregisterImage or DisableImage";

/// A random sequence.
pub(super) fn sequence(seed: u64) -> (Rules, Vec<Step>) {
    let mut rng = Rng::with_seed(seed);
    let rules = RULES[[0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 4, 5, 6, 6][rng.usize(..14)]];
    // A limit is of no use without a crowd.
    let crowd = if rules.most < 10 { 3 } else { rng.usize(1..4) };
    let mut steps: Vec<Step> = (0..crowd).map(|image| register(&mut rng, image)).collect();
    let mut images = crowd;
    for _ in 0..rng.usize(3..12) {
        let image = rng.usize(..images);
        steps.push(match rng.u32(..100) {
            0..15 if images < IMAGES => {
                images += 1;
                register(&mut rng, images - 1)
            }
            0..40 => Step::People(deed(&mut rng, image)),
            40..48 => Step::Later([SETTLED, SETTLED, HOUR + 10, DAY + 100][rng.usize(..4)]),
            _ => delivery(&mut rng, rules, image, images),
        });
    }
    (rules, steps)
}

pub(super) fn register(rng: &mut Rng, image: usize) -> Step {
    let wrong = ("Linux/UNIX", "Windows");
    let (bills, expect) = match rng.u32(..20) {
        0..12 => wrong,
        12..14 => ("", ""),
        14 => ("", "Windows"),
        15 => ("Windows", "Windows"),
        16 => ("Windows", "SQL"),
        17 => ("Linux/UNIX", ""),
        18 => ("Windows with SQL Server Web", "Windows"),
        _ => ("Windows", "Linux"),
    };
    Step::Register {
        image,
        snapshot: usize::from(rng.u32(..5) == 0),
        bills,
        expect,
        foreign: rng.u32(..40) == 0,
    }
}

pub(super) fn deed(rng: &mut Rng, image: usize) -> Deed {
    match rng.u32(..24) {
        0..3 => Deed::Expect(image, ["Windows", "Linux", "Amiga", ""][rng.usize(..4)]),
        3..5 => Deed::Launch(image),
        5..7 => Deed::Terminate(image),
        7..9 => Deed::Protect(image),
        9..11 => Deed::Unprotect(image),
        11..13 => Deed::Deregister(image),
        13..15 => Deed::Disable(image),
        15..23 => Deed::BringBack(image),
        _ => Deed::Listen(rng.u32(..3) > 0),
    }
}

pub(super) fn delivery(rng: &mut Rng, rules: Rules, image: usize, images: usize) -> Step {
    let event = |rng: &mut Rng, image| match rng.u32(..5) {
        0 => Event::StateChange(image),
        _ => Event::CloudTrail(image),
    };
    let mut events = vec![event(rng, image)];
    match rng.u32(..12) {
        0 => events = vec![Event::Digest],
        1 => events.push(event(rng, image)),
        2 | 3 if images > 1 => {
            let other = (image + rng.usize(1..images)) % images;
            events.push(event(rng, other));
        }
        _ => {}
    }
    let mut troubles = Vec::new();
    let kind = rng.u32(..24);
    let faults = match kind {
        8..16 => 1,
        16 => 2,
        _ => 0,
    };
    for _ in 0..faults {
        let (action, nth) = call(rng, rules);
        troubles.push(Trouble::Fault(action, nth, fault(rng, action), once(rng)));
    }
    if matches!(kind, 15..22) {
        let (action, nth) = call(rng, rules);
        troubles.push(Trouble::Crash(action, nth));
    }
    if matches!(kind, 22..24) && events.len() == 1 && events != [Event::Digest] {
        let (action, nth) = call(rng, rules);
        let deed = [
            Deed::Expect(image, "Linux"),
            Deed::Launch(image),
            Deed::Protect(image),
            Deed::Deregister(image),
            Deed::Disable(image),
            Deed::BringBack(image),
        ][rng.usize(..6)];
        troubles.push(Trouble::Meanwhile(action, nth, deed));
        // What is brought back while the very call that takes it away is tried again, nobody can tell.
        if deed != Deed::BringBack(image) && rng.u32(..4) == 0 {
            let (action, nth) = call(rng, rules);
            troubles.push(Trouble::Fault(action, nth, fault(rng, action), once(rng)));
        }
    }
    Step::Deliver {
        events,
        early: rng.u32(..8) == 0,
        troubles,
    }
}

pub(super) fn call(rng: &mut Rng, rules: Rules) -> (&'static str, usize) {
    // Half of the time, where an image goes.
    let from = if rng.bool() { 13 } else { 0 };
    match CALLS[rng.usize(from..CALLS.len())] {
        (TAKE_AWAY, nth) if rules.disable => ("DisableImage", nth),
        (TAKE_AWAY, nth) => ("DeregisterImage", nth),
        call => call,
    }
}

pub(super) fn fault(rng: &mut Rng, action: &str) -> FaultKind {
    let ledgers = matches!(action, "GetItem" | "UpdateItem" | "TransactWriteItems");
    match rng.u32(..9) {
        0 => FaultKind::Throttle,
        1 => FaultKind::InternalError,
        2 => FaultKind::ResetBefore,
        3 => FaultKind::ResetAfter,
        4 => FaultKind::CutBody,
        5 => FaultKind::Slow(Duration::from_millis(30)),
        6 if ledgers => FaultKind::TransactionConflict,
        _ => FaultKind::AccessDenied,
    }
}

pub(super) fn once(rng: &mut Rng) -> Lasting {
    [Once, ForGood][rng.usize(..2)]
}
