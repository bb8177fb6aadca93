//! The end of a registration: people are told, and the record is kept.

use super::Guard;
use crate::error::Error;
use crate::guard::RegistrationContext;
use crate::ledger::{Lease, NotificationState, Reservation};
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
    context: &RegistrationContext<'_>,
    record: Record,
    tell: bool,
) -> Result<Record, Error> {
    match &context.lease {
        Ok(lease) if tell && lease.may_wait_for_digest(&record, guard.now()) => {
            match way_of_alert(guard, lease, &record).await? {
                Way::AtOnce => tell_at_once(guard, context, record, tell).await,
                Way::FirstOver => {
                    let message = notify::first_over(&record, guard.policy.alerts_per_hour);
                    tell_by(guard, context, record, &message).await
                }
                Way::Digest => leave_to_digest(guard, context, lease, record).await,
            }
        }
        _ => tell_at_once(guard, context, record, tell).await,
    }
}

/// How an alert that announces no discard reaches people. If the ledger cannot be reached it is sent at once: one
/// message more is better than silence.
async fn way_of_alert(guard: &Guard, lease: &Lease, record: &Record) -> Result<Way, Error> {
    let most = guard.policy.alerts_per_hour;
    let dedup_key = record.dedup_key();
    let place = guard
        .ledger
        .reserve_alert(lease, most, &dedup_key, guard.now());
    let first = match place.await {
        Ok(Reservation::Kept) => return Ok(Way::AtOnce),
        Ok(Reservation::Full(_)) if most == 0 => return Ok(Way::Digest),
        Ok(Reservation::Full(hour)) => guard.ledger.is_first_over_alerts(lease, &hour).await,
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
    context: &RegistrationContext<'_>,
    lease: &Lease,
    record: Record,
) -> Result<Record, Error> {
    match guard.ledger.leave_to_digest(lease, &record).await {
        Ok(()) => Ok(guard.journal(context.delivery, record)),
        Err(busy @ Error::Busy { .. }) => Err(busy),
        // One message more is better than one image that nobody hears of.
        Err(error) => {
            tracing::warn!(
                "{} is not left to the digest: {error}",
                context.registration.image_id
            );
            tell_at_once(guard, context, record, true).await
        }
    }
}

/// Completes a record: tells people, if they are to be told and were not just told the same, and closes
/// it.
pub(crate) async fn tell_at_once(
    guard: &Guard,
    context: &RegistrationContext<'_>,
    record: Record,
    tell: bool,
) -> Result<Record, Error> {
    let dedup_key = record.dedup_key();
    let told = match &context.lease {
        _ if !tell => NotificationState::Nothing,
        Ok(lease) if lease.entry.was_told(&dedup_key, guard.now()) => NotificationState::AsBefore,
        _ => {
            let message = notify::message(&record);
            return tell_by(guard, context, record, &message).await;
        }
    };
    Ok(close(guard, context, record, told).await)
}

/// Sends a message about a record, and closes the record.
async fn tell_by(
    guard: &Guard,
    context: &RegistrationContext<'_>,
    record: Record,
    message: &Message,
) -> Result<Record, Error> {
    match guard.notifier.send(message).await {
        Ok(()) => {
            let told = NotificationState::Now(record.dedup_key());
            Ok(close(guard, context, record, told).await)
        }
        Err(silence) => Err(close_with(guard, context, record, silence).await),
    }
}

/// Closes the record of an event that must come again.
pub(crate) async fn close_with(
    guard: &Guard,
    context: &RegistrationContext<'_>,
    mut record: Record,
    error: Error,
) -> Error {
    record.error = Some(error.to_string());
    close(guard, context, record, NotificationState::AsBefore).await;
    error
}

/// Gives a complete record to ledger and journal.
pub(crate) async fn close(
    guard: &Guard,
    context: &RegistrationContext<'_>,
    record: Record,
    told: NotificationState,
) -> Record {
    let record = guard.journal(context.delivery, record);
    keep(guard, context, &record, told).await;
    record
}

/// Gives a record that the journal has to the ledger.
pub(crate) async fn keep(
    guard: &Guard,
    context: &RegistrationContext<'_>,
    record: &Record,
    told: NotificationState,
) {
    if let Ok(lease) = &context.lease
        && let Err(error) = guard.ledger.end(lease, record, told).await
    {
        // A discard was noted before it was begun.
        tracing::warn!(
            "the ledger does not have the record of {}: {error}",
            context.registration.image_id
        );
    }
}
