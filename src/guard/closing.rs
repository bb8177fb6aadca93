//! The end of a registration: people are told, and the record is kept.

use super::Guard;
use crate::error::Error;
use crate::guard::Case;
use crate::ledger::Place;
use crate::ledger::Told;
use crate::ledger::Turn;
use crate::notify;
use crate::notify::Message;
use crate::record::Record;

/// How an alert that announces no discard reaches people.
enum Way {
    /// By itself.
    AtOnce,
    /// By itself, and it says that the digest has further ones.
    FirstOver,
    /// In the next digest.
    Digest,
}

impl Guard {
    /// Tells people, and programs, what the record says.
    pub(crate) async fn publish(&self, record: &Record) -> Result<(), Error> {
        self.notifier.send(&notify::message(record)).await
    }

    /// Completes a record of which no discard is announced: reports it at once, or leaves it to the digest if this hour
    /// has sent as many alerts as the policy allows.
    ///
    /// # Errors
    /// [`Error`], if the alert could not be sent, or if another invocation writes to the ledger for too long.
    pub(crate) async fn tell(
        &self,
        case: &Case<'_>,
        record: Record,
        tell: bool,
    ) -> Result<Record, Error> {
        match &case.turn {
            Ok(turn) if tell && turn.may_wait_for_digest(&record, self.now()) => {
                match self.way_of_alert(turn, &record).await? {
                    Way::AtOnce => self.tell_at_once(case, record, tell).await,
                    Way::FirstOver => {
                        let message = notify::first_over(&record, self.policy.alerts_per_hour);
                        self.tell_by(case, record, &message).await
                    }
                    Way::Digest => self.leave_to_digest(case, turn, record).await,
                }
            }
            _ => self.tell_at_once(case, record, tell).await,
        }
    }

    /// How an alert that announces no discard reaches people. If the ledger cannot be reached it is sent at once: one
    /// message more is better than silence.
    async fn way_of_alert(&self, turn: &Turn, record: &Record) -> Result<Way, Error> {
        let most = self.policy.alerts_per_hour;
        let gist = record.gist();
        let place = self.ledger.reserve_alert(turn, most, &gist, self.now());
        let first = match place.await {
            Ok(Place::Kept) => return Ok(Way::AtOnce),
            Ok(Place::Full(_)) if most == 0 => return Ok(Way::Digest),
            Ok(Place::Full(hour)) => self.ledger.is_first_over_alerts(turn, &hour).await,
            Err(error) => Err(error),
        };
        match first {
            Ok(true) => Ok(Way::FirstOver),
            Ok(false) => Ok(Way::Digest),
            Err(busy @ Error::Busy { .. }) => Err(busy),
            Err(error) => {
                tracing::warn!("the alert of {:?} is not counted: {error}", record.image_id);
                Ok(Way::AtOnce)
            }
        }
    }

    /// Leaves an image to the next digest. If the ledger does not take it, its alert is sent at once.
    pub(crate) async fn leave_to_digest(
        &self,
        case: &Case<'_>,
        turn: &Turn,
        record: Record,
    ) -> Result<Record, Error> {
        match self.ledger.leave_to_digest(turn, &record).await {
            Ok(()) => Ok(self.journal(case.delivery, record)),
            Err(busy @ Error::Busy { .. }) => Err(busy),
            // One message more is better than one image that nobody hears of.
            Err(error) => {
                tracing::warn!(
                    "{} is not left to the digest: {error}",
                    case.registration.image_id
                );
                self.tell_at_once(case, record, true).await
            }
        }
    }

    /// Completes a record: tells people, if they are to be told and were not just told the same, and closes
    /// it.
    pub(crate) async fn tell_at_once(
        &self,
        case: &Case<'_>,
        record: Record,
        tell: bool,
    ) -> Result<Record, Error> {
        let gist = record.gist();
        let told = match &case.turn {
            _ if !tell => Told::Nothing,
            Ok(turn) if turn.entry.was_told(&gist, self.now()) => Told::AsBefore,
            _ => {
                let message = notify::message(&record);
                return self.tell_by(case, record, &message).await;
            }
        };
        Ok(self.close(case, record, told).await)
    }

    /// Sends a message about a record, and closes the record.
    async fn tell_by(
        &self,
        case: &Case<'_>,
        record: Record,
        message: &Message,
    ) -> Result<Record, Error> {
        match self.notifier.send(message).await {
            Ok(()) => {
                let told = Told::Now(record.gist());
                Ok(self.close(case, record, told).await)
            }
            Err(silence) => Err(self.close_with(case, record, silence).await),
        }
    }

    /// Closes the record of an event that must come again.
    pub(crate) async fn close_with(
        &self,
        case: &Case<'_>,
        mut record: Record,
        error: Error,
    ) -> Error {
        record.error = Some(error.to_string());
        self.close(case, record, Told::AsBefore).await;
        error
    }

    /// Gives a complete record to ledger and journal.
    pub(crate) async fn close(&self, case: &Case<'_>, record: Record, told: Told) -> Record {
        let record = self.journal(case.delivery, record);
        self.keep(case, &record, told).await;
        record
    }

    /// Gives a record that the journal has to the ledger.
    pub(crate) async fn keep(&self, case: &Case<'_>, record: &Record, told: Told) {
        if let Ok(turn) = &case.turn
            && let Err(error) = self.ledger.end(turn, record, told).await
        {
            // A discard was noted before it was begun.
            tracing::warn!(
                "the ledger does not have the record of {}: {error}",
                case.registration.image_id
            );
        }
    }
}
