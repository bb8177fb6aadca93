//! The lease of an image: the right to deal with it, that one invocation has at a time.

use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

use super::entry::Entry;
use super::item::{Change, Condition, Item, TURN, TURN_UNTIL, Value, Write, item_of, ms, of_place};
use super::store::Ledger;
use crate::error::Error;
use crate::event::Registration;
use crate::ids::AmiId;
use crate::record::Record;

/// A turn outlasts its invocation by this, as clocks differ.
const TURN_SLACK: TimeDelta = TimeDelta::seconds(5);

/// The longest that an invocation can last (Lambda Developer Guide, "Lambda quotas": 15 minutes), and some more, because
/// clocks differ. A lease that ends later, or whose end cannot be read, is broken.
pub(super) const LONGEST_TURN: TimeDelta = TimeDelta::minutes(17);

/// The right to deal with an image, that one invocation has at a time.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(super) image: AmiId,
    pub(super) place: String,
    pub(super) id: String,
    pub(super) token: String,
    pub(super) ended: AtomicBool,
    /// What the ledger knew of the image when the turn began.
    pub(crate) entry: Entry,
}

impl Turn {
    /// Whether an alert that reports this may wait for the digest: it was not reported before, and it is neither about a
    /// discard that happens or failed nor about one whose end is not known.
    pub(crate) fn may_wait_for_digest(&self, record: &Record, now: DateTime<Utc>) -> bool {
        record.outcome.is_none()
            && self.entry.unfinished().is_none()
            && !self.entry.was_told(&record.gist(), now)
    }
}

impl Ledger {
    /// Begins to deal with an image. `until`: when the invocation is over, and another may take the turn.
    ///
    /// # Errors
    /// [`Error::Busy`] if another invocation has its turn; another [`Error`] if the ledger can not be
    /// reached.
    pub(crate) async fn begin(
        &self,
        registration: &Registration,
        until: DateTime<Utc>,
    ) -> Result<Turn, Error> {
        let image = registration.image_id.clone();
        let place = of_place(registration.account.as_str(), &registration.region);
        let id = format!("{place}#{image}");
        let (token, item) = self.take_turn(&id, image.as_str(), until).await?;
        Ok(Turn {
            entry: Entry::read(&item, self.clock.now()),
            image,
            place,
            id,
            token,
            ended: AtomicBool::new(false),
        })
    }

    /// Takes the turn that an item has: the token by which it is one's own, and the item.
    pub(super) async fn take_turn(
        &self,
        id: &str,
        what: &str,
        until: DateTime<Utc>,
    ) -> Result<(String, Item), Error> {
        let token = self.clock.token();
        let written = self.write(Write {
            id: id.to_owned(),
            if_any: vec![
                Condition::Absent(TURN_UNTIL),
                Condition::Below(TURN_UNTIL, self.clock.now().timestamp_millis()),
                // An attempt of this very call, whose answer was lost.
                Condition::Is(TURN, token.as_str().into()),
            ],
            changes: vec![
                Change::Set(TURN, token.as_str().into()),
                Change::Set(TURN_UNTIL, ms(until + TURN_SLACK)),
            ],
        });
        match written.await? {
            // An answer without what was just written is no answer: it would forget what was done.
            Some(item) if item.get(TURN) != Some(&token.as_str().into()) => {
                Err(Error::Unavailable {
                    call: "dynamodb:UpdateItem",
                    resource: id.to_owned(),
                    message: "the answer does not have the item".into(),
                })
            }
            Some(item) => Ok((token, item)),
            None => Err(Error::Busy { what: what.into() }),
        }
    }

    /// Gives a lease that is broken an end: one whose end cannot be read, or that ends later than any invocation can
    /// last. Nothing is taken over here. The lease then ends when its holder, if there is one, is certain to have ended,
    /// and whoever asks after that has the turn. Whether it was broken.
    async fn repair_lease(&self, id: &str) -> Result<bool, Error> {
        let item = self.store.read(id).await?;
        let latest = self.clock.now() + LONGEST_TURN;
        match item.get(TURN_UNTIL) {
            None => return Ok(false),
            Some(Value::Number(until)) if *until <= latest.timestamp_millis() => return Ok(false),
            Some(_) => {}
        }
        let unchanged = match item.get(TURN) {
            None => vec![Condition::Absent(TURN)],
            Some(Value::Text(token)) => vec![Condition::Is(TURN, token.as_str().into())],
            // Of no invocation.
            Some(_) => Vec::new(),
        };
        let written = self.write(Write {
            id: id.to_owned(),
            if_any: unchanged,
            changes: vec![Change::Set(TURN_UNTIL, ms(latest))],
        });
        let repaired = written.await?.is_some();
        if repaired {
            tracing::warn!(
                "the lease of {id} in the ledger had no end that can be right: it ends at {}",
                latest.to_rfc3339_opts(SecondsFormat::Secs, true)
            );
        }
        Ok(repaired)
    }

    /// As [`Ledger::repair_lease`], of an image that another invocation seems to deal with.
    pub(crate) async fn repair_turn(&self, registration: &Registration) {
        self.try_to_repair(&item_of(registration)).await;
    }

    /// As [`Ledger::repair_lease`]. What fails is tried again when the event comes back.
    pub(super) async fn try_to_repair(&self, id: &str) {
        if let Err(error) = self.repair_lease(id).await {
            tracing::warn!("whether the lease of {id} is broken is not known: {error}");
        }
    }

    /// What is known of an image, for somebody who only looks: a turn in which nothing can be written.
    ///
    /// # Errors
    /// [`Error`], if the ledger can not be reached.
    pub(crate) async fn look(&self, registration: &Registration) -> Result<Turn, Error> {
        let image = registration.image_id.clone();
        let place = of_place(registration.account.as_str(), &registration.region);
        let id = format!("{place}#{image}");
        Ok(Turn {
            entry: Entry::read(&self.store.read(&id).await?, self.clock.now()),
            image,
            place,
            id,
            // Nobody's: whatever would be written with it is refused.
            token: self.clock.token(),
            ended: AtomicBool::new(true),
        })
    }

    /// Ends a turn, if it has not ended, in which nothing came to an end: the event comes again.
    pub(crate) async fn give_back(&self, turn: &Turn) {
        if turn.ended.load(Ordering::Relaxed) {
            return;
        }
        let changes = vec![Change::Set(TURN_UNTIL, Value::Number(0))];
        if let Err(error) = self.in_turn(turn, changes).await {
            tracing::warn!("the turn of {} ends by itself: {error}", turn.image);
        }
    }

    pub(super) fn of_turn(&self, turn: &Turn, changes: Vec<Change>) -> Write {
        Write {
            id: turn.id.clone(),
            if_any: vec![Condition::Is(TURN, turn.token.as_str().into())],
            changes,
        }
    }

    pub(super) async fn in_turn(&self, turn: &Turn, changes: Vec<Change>) -> Result<(), Error> {
        match self.write(self.of_turn(turn, changes)).await? {
            Some(_) => Ok(()),
            None => Err(busy(&turn.image)),
        }
    }
}

pub(super) fn busy(image: &AmiId) -> Error {
    Error::Busy {
        what: image.to_string(),
    }
}
