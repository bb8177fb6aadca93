//! Closes a registration, which means that the alert is sent and the record is stored.

use crate::error::Error;
use crate::guard::{Guard, RegistrationContext};
use crate::ledger::{Lease, NotificationState, Reservation};
use crate::notify::{self, Message};
use crate::record::Record;

/// How an alert that announces no discard is sent.
enum Way {
    /// At once.
    AtOnce,
    /// At once, with a note that the digest has further ones.
    FirstOver,
    /// In the next digest.
    Digest,
}

/// Sends people and programs the message of a record.
///
/// # Errors
/// [`Error`] if the alert topic may not have received it.
pub(crate) async fn publish(guard: &Guard, record: &Record) -> Result<(), Error> {
    guard
        .notifier
        .send(&notify::message(record, guard.runbook()))
        .await
}

/// Completes a record that announces no discard. If `tell`, its alert is sent at once, or left to the digest if this
/// hour already has as many alerts as the policy allows.
///
/// # Errors
/// [`Error`] if the alert could not be sent, or if another invocation writes to the ledger for too long.
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
                    let message =
                        notify::first_over(&record, guard.policy.alerts_per_hour, guard.runbook());
                    tell_by(guard, context, record, &message).await
                }
                Way::Digest => leave_to_digest(guard, context, lease, record).await,
            }
        }
        _ => tell_at_once(guard, context, record, tell).await,
    }
}

/// How to send an alert that announces no discard. If the ledger cannot be reached, the alert is sent at once, because
/// an extra message is better than silence.
///
/// # Errors
/// [`Error::Busy`] if another invocation writes to the ledger for too long.
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
            tracing::warn!(
                "could not count the alert for {:?}: {error}",
                record.image_id
            );
            Ok(Way::AtOnce)
        }
    }
}

/// Leaves an image to the next digest. If the ledger does not accept it, its alert is sent at once.
///
/// # Errors
/// [`Error`] if that alert could not be sent. [`Error::Busy`] if another invocation writes to the ledger.
pub(crate) async fn leave_to_digest(
    guard: &Guard,
    context: &RegistrationContext<'_>,
    lease: &Lease,
    record: Record,
) -> Result<Record, Error> {
    match guard.ledger.leave_to_digest(lease, &record).await {
        Ok(()) => Ok(guard.journal(context.delivery, record)),
        Err(busy @ Error::Busy { .. }) => Err(busy),
        // An extra message is better than an image that is never reported.
        Err(error) => {
            tracing::warn!(
                "could not leave {} to the digest: {error}",
                context.registration.image_id
            );
            tell_at_once(guard, context, record, true).await
        }
    }
}

/// Completes a record. If `tell`, sends its alert, unless an identical one was sent a short while ago. Then closes the
/// record.
///
/// # Errors
/// [`Error`] if the alert could not be sent.
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
            let message = notify::message(&record, guard.runbook());
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

/// Closes the record of an event that must be delivered again. Returns the error.
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

/// Writes a complete record to the journal and to the ledger, and returns it.
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

/// Writes a record that the journal already has to the ledger. A failure is only logged.
pub(crate) async fn keep(
    guard: &Guard,
    context: &RegistrationContext<'_>,
    record: &Record,
    told: NotificationState,
) {
    if let Ok(lease) = &context.lease
        && let Err(error) = guard.ledger.end(lease, record, told).await
    {
        // No discard is lost, because it was noted before it began.
        tracing::warn!(
            "could not write the record of {} to the ledger: {error}",
            context.registration.image_id
        );
    }
}
