//! The end of a registration: people are told, and the record is kept.

use super::Guard;
use crate::error::Error;
use crate::guard::Case;
use crate::ledger::{Place, Told, Turn};
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

/// Tells people, and programs, what the record says.
pub(crate) async fn publish(guard: &Guard, record: &Record) -> Result<(), Error> {
    guard.notifier.send(&notify::message(record)).await
}

/// Completes a record of which no discard is announced: reports it at once, or leaves it to the digest if this hour
/// has sent as many alerts as the policy allows.
///
/// # Errors
/// [`Error`], if the alert could not be sent, or if another invocation writes to the ledger for too long.
pub(crate) async fn tell(
    guard: &Guard,
    case: &Case<'_>,
    record: Record,
    tell: bool,
) -> Result<Record, Error> {
    match &case.turn {
        Ok(turn) if tell && turn.may_wait_for_digest(&record, guard.now()) => {
            match way_of_alert(guard, turn, &record).await? {
                Way::AtOnce => tell_at_once(guard, case, record, tell).await,
                Way::FirstOver => {
                    let message = notify::first_over(&record, guard.policy.alerts_per_hour);
                    tell_by(guard, case, record, &message).await
                }
                Way::Digest => leave_to_digest(guard, case, turn, record).await,
            }
        }
        _ => tell_at_once(guard, case, record, tell).await,
    }
}

/// How an alert that announces no discard reaches people. If the ledger cannot be reached it is sent at once: one
/// message more is better than silence.
async fn way_of_alert(guard: &Guard, turn: &Turn, record: &Record) -> Result<Way, Error> {
    let most = guard.policy.alerts_per_hour;
    let gist = record.gist();
    let place = guard.ledger.reserve_alert(turn, most, &gist, guard.now());
    let first = match place.await {
        Ok(Place::Kept) => return Ok(Way::AtOnce),
        Ok(Place::Full(_)) if most == 0 => return Ok(Way::Digest),
        Ok(Place::Full(hour)) => guard.ledger.is_first_over_alerts(turn, &hour).await,
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
    guard: &Guard,
    case: &Case<'_>,
    turn: &Turn,
    record: Record,
) -> Result<Record, Error> {
    match guard.ledger.leave_to_digest(turn, &record).await {
        Ok(()) => Ok(guard.journal(case.delivery, record)),
        Err(busy @ Error::Busy { .. }) => Err(busy),
        // One message more is better than one image that nobody hears of.
        Err(error) => {
            tracing::warn!(
                "{} is not left to the digest: {error}",
                case.registration.image_id
            );
            tell_at_once(guard, case, record, true).await
        }
    }
}

/// Completes a record: tells people, if they are to be told and were not just told the same, and closes
/// it.
pub(crate) async fn tell_at_once(
    guard: &Guard,
    case: &Case<'_>,
    record: Record,
    tell: bool,
) -> Result<Record, Error> {
    let gist = record.gist();
    let told = match &case.turn {
        _ if !tell => Told::Nothing,
        Ok(turn) if turn.entry.was_told(&gist, guard.now()) => Told::AsBefore,
        _ => {
            let message = notify::message(&record);
            return tell_by(guard, case, record, &message).await;
        }
    };
    Ok(close(guard, case, record, told).await)
}

/// Sends a message about a record, and closes the record.
async fn tell_by(
    guard: &Guard,
    case: &Case<'_>,
    record: Record,
    message: &Message,
) -> Result<Record, Error> {
    match guard.notifier.send(message).await {
        Ok(()) => {
            let told = Told::Now(record.gist());
            Ok(close(guard, case, record, told).await)
        }
        Err(silence) => Err(close_with(guard, case, record, silence).await),
    }
}

/// Closes the record of an event that must come again.
pub(crate) async fn close_with(
    guard: &Guard,
    case: &Case<'_>,
    mut record: Record,
    error: Error,
) -> Error {
    record.error = Some(error.to_string());
    close(guard, case, record, Told::AsBefore).await;
    error
}

/// Gives a complete record to ledger and journal.
pub(crate) async fn close(guard: &Guard, case: &Case<'_>, record: Record, told: Told) -> Record {
    let record = guard.journal(case.delivery, record);
    keep(guard, case, &record, told).await;
    record
}

/// Gives a record that the journal has to the ledger.
pub(crate) async fn keep(guard: &Guard, case: &Case<'_>, record: &Record, told: Told) {
    if let Ok(turn) = &case.turn
        && let Err(error) = guard.ledger.end(turn, record, told).await
    {
        // A discard was noted before it was begun.
        tracing::warn!(
            "the ledger does not have the record of {}: {error}",
            case.registration.image_id
        );
    }
}
