//! The model: what a delivery comes to.

use super::*;

/// What people are told of an image, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Thing {
    pub(super) action: String,
    pub(super) bills: Option<String>,
    pub(super) expect: Option<String>,
    pub(super) held_by: BTreeSet<String>,
}

impl Thing {
    pub(super) fn of(record: &Value) -> Thing {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let held_by = record["held_by"].as_array();
        let held_by = held_by.into_iter().flatten().filter_map(text).collect();
        Thing {
            action: text(&record["action"]).unwrap_or_default(),
            bills: text(&record["actual"]["platform_details"]),
            expect: text(&record["expected"]["platform"][0]),
            held_by: among_others(held_by),
        }
    }
}

/// Who registered an image is an event's to say: with another reason to hold it, it makes no difference.
pub(super) fn among_others(mut held_by: BTreeSet<String>) -> BTreeSet<String> {
    if held_by.len() > 1 {
        held_by.remove("identity-unknown");
    }
    held_by
}

/// What people know of an image by the last delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Nothing,
    This(Thing, i64),
    /// It was cut off.
    Unknown,
}

/// An image as the model knows it.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) snapshot: usize,
    pub(super) foreign: bool,
    pub(super) registered: i64,
    /// When the guard took it away.
    pub(super) discarded: Option<i64>,
    pub(super) told: Told,
    /// All that people were told of it: when, what, and the outcome.
    pub(super) heard: Vec<(i64, Thing, Option<String>)>,
    /// A crash left the turn to end by itself.
    pub(super) turn_is_taken: bool,
    /// The guard was cut off while it took the image away, or may have been, and the image stood then.
    pub(super) in_doubt: bool,
    /// When it took the image away, or was cut off in it.
    pub(super) attempted: Option<i64>,
    /// When people were told that the image lacks something, and what it billed then, as the ledger remembers it.
    pub(super) mismatch_told: Option<(i64, Option<String>)>,
    /// Whether it was taken away in a delivery that was disturbed, and none has come to its end since.
    pub(super) cut_off: bool,
    /// Whether the ledger could note that people were told that a discard may have failed.
    pub(super) doubted: bool,
}

/// An image that people hear of in the next digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    Surely,
    Perhaps,
}

#[derive(Debug)]
pub(super) struct Model {
    pub(super) rules: Rules,
    pub(super) now: i64,
    pub(super) images: BTreeMap<usize, Known>,
    /// The images that are counted in this hour.
    pub(super) places: BTreeSet<usize>,
    pub(super) first_over: Option<usize>,
    pub(super) waiting: BTreeMap<usize, Waiting>,
}

/// What a delivery that nothing disturbs comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// It comes again.
    Again(&'static str),
    /// The image is right, or gone.
    Nothing,
    /// Only this event does not say who registered the image, and people know of it.
    IsKnown,
    /// People hear of it, once.
    Tell(Thing),
    /// As above: the hour has no place for the discard.
    OverLimit(Thing),
    /// EC2 refused the discard a short while ago, and people know.
    Refused,
    Discard,
}

impl Model {
    pub(super) fn new(rules: Rules) -> Model {
        Model {
            rules,
            now: 0,
            images: BTreeMap::new(),
            places: BTreeSet::new(),
            first_over: None,
            waiting: BTreeMap::new(),
        }
    }

    /// Looks at the clock.
    pub(super) fn look_at_clock(&mut self) {
        let start: DateTime<Utc> = virtual_time::START.parse().unwrap();
        let now = (super::now() - start).num_seconds();
        if now / HOUR != self.now / HOUR {
            self.places.clear();
            self.first_over = None;
        }
        self.now = now;
    }

    pub(super) fn age(&self, image: usize) -> i64 {
        self.now - self.images[&image].registered
    }

    /// Whether another image from the same snapshot was discarded before this one was registered.
    pub(super) fn registered_again(&self, image: usize) -> bool {
        let this = &self.images[&image];
        self.images.iter().any(|(other, known)| {
            *other != image
                && known.snapshot == this.snapshot
                && known.discarded.is_some_and(|at| at < this.registered)
        })
    }

    /// What people brought back, or made anew of what was discarded, is theirs.
    pub(super) fn is_peoples(&self, image: usize) -> bool {
        self.images[&image].discarded.is_some() || self.registered_again(image)
    }

    /// What holds the discard of an image, with what the event says.
    pub(super) fn interlocks(&self, event: Event, image: usize, facts: &Facts) -> BTreeSet<String> {
        let known = &self.images[&image];
        let reasons = [
            ("observe-mode", self.rules.mode == Mode::Observe),
            ("not-owner", known.foreign),
            ("too-old", self.age(image) > DAY),
            ("in-use", facts.used),
            ("protected", facts.protected),
            ("identity-unknown", event == Event::StateChange(image)),
            ("discarded-before", self.is_peoples(image)),
            ("nobody-listening", facts.nobody_listens),
        ];
        let held = reasons.into_iter().filter(|(_, holds)| *holds);
        held.map(|(reason, _)| reason.to_owned()).collect()
    }

    /// What a delivery comes to. `in_doubt`: an earlier one was cut off where it can not be told from what
    /// people do, and the image is held for it.
    pub(super) fn due(&self, event: Event, image: usize, facts: &Facts, in_doubt: bool) -> Due {
        let known = &self.images[&image];
        let (young, old) = (self.age(image) < YOUNG, self.age(image) > OLD);
        let billing = facts.billing();
        let (verdict, again) = match facts.stands {
            // The ledger knows of what the guard took away.
            Stands::Gone if !old && known.attempted.is_none() => {
                return Due::Again("NotVisibleYet");
            }
            Stands::Gone | Stands::Disabled => (None, None),
            Stands::Available if young && billing != Billing::Right => {
                return Due::Again("NotSettled");
            }
            Stands::Available => (Some(billing), Some("IdentityMayCome").filter(|_| !old)),
        };
        let thing = |action: &str, held_by: &BTreeSet<String>| Thing {
            action: action.to_owned(),
            bills: facts.bills.clone(),
            expect: facts.expect.clone(),
            held_by: among_others(held_by.clone()),
        };
        let busy = known.turn_is_taken;
        match verdict {
            _ if busy && verdict != Some(Billing::Wrong) => return Due::Again("Busy"),
            Some(Billing::NobodySays) if facts.mistyped => {
                return Due::Tell(thing("alert", &BTreeSet::new()));
            }
            None | Some(Billing::Right | Billing::NobodySays) => return Due::Nothing,
            Some(Billing::TooMuch) => return Due::Tell(thing("alert", &BTreeSet::new())),
            Some(Billing::Wrong) => {}
        }
        let mut held_by = self.interlocks(event, image, facts);
        if facts.mistyped {
            held_by.insert("no-platform".to_owned());
        }
        if in_doubt {
            held_by.insert("discarded-before".to_owned());
        }
        let unknown_alone = held_by.len() == 1 && held_by.contains("identity-unknown");
        let shortly = known.attempted.is_some_and(|at| self.now - at < LINGERS);
        let is_known = known
            .mismatch_told
            .as_ref()
            .is_some_and(|(at, bills)| self.now - at < DAY && *bills == facts.bills);
        match again {
            // It may be one that EC2 lists yet.
            _ if shortly && !busy && held_by.contains("discarded-before") => {
                Due::Again("NotVisibleYet")
            }
            // Found without a turn.
            Some(again) if unknown_alone => Due::Again(again),
            _ if busy => Due::Again("Busy"),
            _ if unknown_alone && is_known => Due::IsKnown,
            _ if !held_by.is_empty() => Due::Tell(thing("hold", &held_by)),
            _ if self.has_place(image) => Due::Discard,
            _ => Due::OverLimit(thing("hold", &BTreeSet::from(["limit".to_owned()]))),
        }
    }

    pub(super) fn has_place(&self, image: usize) -> bool {
        self.places.contains(&image) || self.places.len() < self.rules.most as usize
    }
}
