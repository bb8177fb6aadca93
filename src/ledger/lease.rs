//! The lease of an image: the right to process it, which one invocation has at a time.

use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

use super::entry::Entry;
use super::item::{Change, Condition, Item, TURN, TURN_UNTIL, Value, Write, item_of, ms, of_place};
use super::store::Ledger;
use crate::error::Error;
use crate::event::Registration;
use crate::ids::AmiId;
use crate::record::Record;

/// How long a lease outlasts its invocation, because clocks differ.
const TURN_SLACK: TimeDelta = TimeDelta::seconds(5);

/// Longest possible lease: the longest duration of an invocation, and a margin because clocks differ. (Lambda Developer
/// Guide, "Lambda quotas": 15 minutes.) A lease that ends later, or whose end cannot be read, is broken.
pub(super) const LONGEST_TURN: TimeDelta = TimeDelta::minutes(17);

/// The lease of an image: the right to process it, which one invocation has at a time.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(super) image: AmiId,
    pub(super) place: String,
    pub(super) id: String,
    pub(super) token: String,
    pub(super) ended: AtomicBool,
    /// What the ledger knew about the image when the lease began.
    pub(crate) entry: Entry,
}

impl Lease {
    /// Whether an alert for this record may wait for the digest. It may if nothing like it was reported before. It may
    /// not if it reports a discard that is carried out, failed, or has an unknown result.
    pub(crate) fn may_wait_for_digest(&self, record: &Record, now: DateTime<Utc>) -> bool {
        record.outcome.is_none()
            && self.entry.unfinished().is_none()
            && !self.entry.was_told(&record.dedup_key(), now)
    }
}

impl Ledger {
    /// Takes the lease of an image. `until` is when the invocation is over and another one may take the lease.
    ///
    /// # Errors
    /// [`Error::Busy`] if another invocation has the lease. Another [`Error`] if the ledger cannot be reached.
    pub(crate) async fn begin(
        &self,
        registration: &Registration,
        until: DateTime<Utc>,
    ) -> Result<Lease, Error> {
        let (id, image) = (item_of(registration), registration.image_id.as_str());
        let (token, item) = self.take_lease(&id, image, until).await?;
        Ok(self.lease(registration, &item, token, false))
    }

    /// Takes the lease of an item. Returns the token that proves ownership, and the item.
    ///
    /// # Errors
    /// As [`Ledger::begin`].
    pub(super) async fn take_lease(
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
                // An earlier attempt of this call took the lease, and its answer was lost.
                Condition::Is(TURN, token.as_str().into()),
            ],
            changes: vec![
                Change::Set(TURN, token.as_str().into()),
                Change::Set(TURN_UNTIL, ms(until + TURN_SLACK)),
            ],
        });
        match written.await? {
            // An answer without the values that were just written is unusable. It would hide what was done before.
            Some(item) if item.get(TURN) != Some(&token.as_str().into()) => {
                Err(Error::Unavailable {
                    call: "dynamodb:UpdateItem",
                    resource: id.to_owned(),
                    message: "the answer lacks the item".into(),
                })
            }
            Some(item) => Ok((token, item)),
            None => Err(Error::Busy { what: what.into() }),
        }
    }

    /// Gives a broken lease an end. Its end cannot be read, or is later than any invocation can last.
    ///
    /// This does not take over the lease. The lease then ends when its holder, if there is one, has certainly ended.
    /// After that, the next invocation that asks gets it. Returns whether the lease was broken.
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
            // No invocation writes such a token.
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
                "the lease of {id} in the ledger had no valid end, and now ends at {}",
                latest.to_rfc3339_opts(SecondsFormat::Secs, true)
            );
        }
        Ok(repaired)
    }

    /// As [`Ledger::repair_lease`], for an image that another invocation seems to process.
    pub(crate) async fn repair_lease_of(&self, registration: &Registration) {
        self.try_to_repair(&item_of(registration)).await;
    }

    /// As [`Ledger::repair_lease`]. A failure is logged, and the repair is retried when the event returns.
    pub(super) async fn try_to_repair(&self, id: &str) {
        if let Err(error) = self.repair_lease(id).await {
            tracing::warn!("could not determine whether the lease of {id} is valid: {error}");
        }
    }

    /// Reads what the ledger knows about an image. The result is a lease with which nothing can be written.
    ///
    /// # Errors
    /// [`Error`] if the ledger cannot be reached.
    pub(crate) async fn look(&self, registration: &Registration) -> Result<Lease, Error> {
        let item = self.store.read(&item_of(registration)).await?;
        // No item has this token, so every write with it is refused.
        let token = self.clock.token();
        Ok(self.lease(registration, &item, token, true))
    }

    fn lease(&self, registration: &Registration, item: &Item, token: String, ended: bool) -> Lease {
        Lease {
            entry: Entry::read(item, self.clock.now()),
            image: registration.image_id.clone(),
            place: of_place(registration.account.as_str(), &registration.region),
            id: item_of(registration),
            token,
            ended: AtomicBool::new(ended),
        }
    }

    /// Releases a lease, unless it has ended. Nothing was completed under it, so the event returns.
    pub(crate) async fn release(&self, lease: &Lease) {
        if lease.ended.load(Ordering::Relaxed) {
            return;
        }
        let changes = vec![Change::Set(TURN_UNTIL, Value::Number(0))];
        if let Err(error) = self.in_lease(lease, changes).await {
            tracing::warn!(
                "could not release the lease of {}, which now has to expire: {error}",
                lease.image
            );
        }
    }

    pub(super) fn of_lease(&self, lease: &Lease, changes: Vec<Change>) -> Write {
        Write {
            id: lease.id.clone(),
            if_any: vec![Condition::Is(TURN, lease.token.as_str().into())],
            changes,
        }
    }

    pub(super) async fn in_lease(&self, lease: &Lease, changes: Vec<Change>) -> Result<(), Error> {
        match self.write(self.of_lease(lease, changes)).await? {
            Some(_) => Ok(()),
            None => Err(busy(&lease.image)),
        }
    }
}

pub(super) fn busy(image: &AmiId) -> Error {
    Error::Busy {
        what: image.to_string(),
    }
}
