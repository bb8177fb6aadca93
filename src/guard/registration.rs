//! Processes a registration, from the first look at its image to the end.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tracing::Instrument;

use crate::ec2::Observation;
use crate::error::Error;
use crate::event::{RegisteredBy, Registration};
use crate::guard::evaluation::{Planned, not_visible};
use crate::guard::{Guard, RegistrationContext, discard, evaluation};
use crate::ids::{AccountId, AmiId};
use crate::invocation::{Delivery, RetryBudget, in_time};
use crate::ledger::Lease;
use crate::plan::{Interlock, SafetyChecks};
use crate::record::Record;
use crate::sources::{Assessment, EvidenceCache};
use crate::verdict::Verdict;

/// How long EC2 may still list an image after its discard. If the settle time is shorter, that counts instead. AWS
/// documents only "a short while". The time must be less than the six minutes after which the queue returns an event.
const LINGERS: Duration = Duration::from_secs(180);

/// What a batch query found out about an image. The image is judged by it as if it had been queried alone.
#[derive(Debug)]
pub(crate) struct Known {
    pub(super) observation: Observation,
    pub(super) cache: Option<EvidenceCache>,
}

impl Guard {
    /// Processes an image for which no event arrived, as if one had. `created` is the image's creation time.
    ///
    /// # Errors
    /// As [`Guard::handle`] for a bare event.
    pub async fn process_missed(
        &self,
        image: &AmiId,
        account: &AccountId,
        created: DateTime<Utc>,
        delivery: &Delivery,
    ) -> Result<Record, Error> {
        let registration = self.listed(image.clone(), account, Some(created));
        registered(self, &registration, None, delivery).await
    }
}

/// Processes a registration in the time that its delivery has left. `known` is what is already known about the image.
///
/// # Errors
/// [`Error::OutOfTime`] if the time is over. Otherwise as [`Guard::handle`] for a bare event.
pub(crate) async fn registered(
    guard: &Guard,
    registration: &Registration,
    known: Option<Known>,
    delivery: &Delivery,
) -> Result<Record, Error> {
    // The fields have the same names as in the record, so that one search finds both.
    let span = tracing::error_span!(
        "registration",
        image_id = %registration.image_id,
        event_id = registration.event_id
    );
    let work = Box::pin(follow(guard, registration, known, delivery).instrument(span));
    let late = Error::OutOfTime {
        image: registration.image_id.to_string(),
        doing: "the next attempt shows how far this one got".into(),
    };
    in_time(delivery, work, late).await
}

async fn follow(
    guard: &Guard,
    registration: &Registration,
    known: Option<Known>,
    delivery: &Delivery,
) -> Result<Record, Error> {
    let mut budget = RetryBudget::new(guard.config.wait, delivery.deadline);
    let mut looked = Some(look_at(guard, registration, known, delivery, &mut budget).await?);
    // From here on, people are alerted and the image may be discarded. Only one invocation at a time may do this.
    let ends = guard.ends(delivery.deadline);
    let lease = loop {
        match guard.ledger.begin(registration, ends).await {
            // The holder of the lease may change the image, so it must be looked at again.
            Err(busy @ Error::Busy { .. }) => match budget.pause().await {
                true => looked = None,
                false => {
                    guard.ledger.repair_lease_of(registration).await;
                    return Err(busy);
                }
            },
            lease => break lease,
        }
    };
    let context = RegistrationContext {
        registration,
        delivery,
        lease,
    };
    // A new budget, because waiting for the lease must not shorten the retries for AWS.
    let mut budget = RetryBudget::new(guard.config.wait, delivery.deadline);
    let result = async {
        let (assessment, around) = match looked {
            Some(looked) => looked,
            None => look_at(guard, registration, None, delivery, &mut budget).await?,
        };
        process(guard, &context, assessment, around, &mut budget).await
    };
    let result = result.await;
    if let Ok(lease) = &context.lease {
        guard.ledger.release(lease).await;
    }
    match (result, context.lease) {
        // Only the ledger knows whether the image is gone because of a discard that must be completed.
        (
            Ok(Record {
                verdict: Verdict::Gone,
                ..
            }),
            Err(error),
        ) => Err(error),
        (result, _) => result,
    }
}

/// Waits until EC2 shows an image, and judges it. Also returns the safety checks, if they were made. `known` is what
/// was found out about the image a moment ago.
///
/// # Errors
/// - [`Error::NotVisibleYet`] if EC2 does not show the image within `GUARD_WAIT_SECONDS`
/// - [`Error::NotSettled`] if the image is too young to be judged
/// - [`Error::IdentityMayCome`] if another event is expected that says who registered the image, and this matters
/// - another [`Error`] if EC2 does not answer
async fn look_at(
    guard: &Guard,
    registration: &Registration,
    known: Option<Known>,
    delivery: &Delivery,
    budget: &mut RetryBudget,
) -> Result<(Assessment, Option<SafetyChecks>), Error> {
    let (observation, cache) = match known {
        Some(known) => (known.observation, known.cache),
        None => (
            evaluation::observe(guard, registration, budget).await?,
            None,
        ),
    };
    let assessment = guard
        .collector()
        .assess(registration, observation, cache)
        .await;
    evaluation::settled(guard, registration, &assessment)?;
    Box::pin(unless_identity_may_come(
        guard,
        registration,
        delivery,
        assessment,
    ))
    .await
}

/// Returns the assessment, with the safety checks if they were made. Works without a lease, so that this event does not
/// block the other one.
///
/// # Errors
/// [`Error::IdentityMayCome`] if another event of the same registration is expected that says who registered the image,
/// and this matters.
async fn unless_identity_may_come(
    guard: &Guard,
    registration: &Registration,
    delivery: &Delivery,
    assessment: Assessment,
) -> Result<(Assessment, Option<SafetyChecks>), Error> {
    let cleared = [Verdict::Verified, Verdict::Exempt];
    if registration.registered_by != RegisteredBy::Unknown
        || evaluation::no_other_event_may_come(guard, registration)
        || cleared.contains(&assessment.judgement.verdict)
    {
        return Ok((assessment, None));
    }
    let context = RegistrationContext {
        registration,
        delivery,
        lease: guard.ledger.look(registration).await,
    };
    let planned = evaluation::plan(guard, &context, assessment, None).await;
    match planned.awaits_identity() {
        true => Err(Error::IdentityMayCome {
            image: registration.image_id.to_string(),
        }),
        false => {
            // Without the ledger, the safety checks are incomplete.
            let around = planned.safety.filter(|_| context.lease.is_ok());
            Ok((planned.assessment, around))
        }
    }
}

/// Processes a judged image. Discards it, completes an interrupted discard, or leaves the image. `around` has the
/// safety checks, if they were already made.
async fn process(
    guard: &Guard,
    context: &RegistrationContext<'_>,
    assessment: Assessment,
    around: Option<SafetyChecks>,
    budget: &mut RetryBudget,
) -> Result<Record, Error> {
    let planned = evaluation::plan(guard, context, assessment, around).await;
    let id = &context.registration.image_id;
    match (&context.lease, planned.plan.action.is_discard()) {
        (Ok(lease), true) => discard::discard(guard, context, lease, planned, budget).await,
        (Ok(lease), false) if planned.is_gone_by(lease.entry.unfinished()) => {
            discard::complete(guard, context, lease, planned, budget).await
        }
        (Ok(lease), false) if may_linger(guard, lease, &planned) => Err(not_visible(
            id,
            "it was, or may have been, discarded a short while ago, and EC2 still lists it",
        )),
        // With two triggers, the other event of the registration says who registered the image. It is still expected,
        // or was already processed.
        (lease, false) if planned.awaits_identity() => {
            let mut record = planned.record(context.registration);
            let asked = planned.assessment.expectation.identity_asked;
            match lease {
                // The tags changed after the check that was made without a lease.
                _ if !evaluation::no_other_event_may_come(guard, context.registration) => {
                    Err(Error::IdentityMayCome {
                        image: id.to_string(),
                    })
                }
                Ok(lease) if lease.entry.is_known(&record, guard.now()) => {
                    Ok(guard.journal(context.delivery, record))
                }
                Ok(lease) if asked && let Some(cleared) = lease.entry.cleared(&record) => {
                    record.clear(cleared);
                    Ok(guard.journal(context.delivery, record))
                }
                _ => discard::leave(guard, context, planned).await,
            }
        }
        _ => discard::leave(guard, context, planned).await,
    }
}

/// Whether an image that seems to have been restored may be one that EC2 still lists. EC2 lists a deregistered image
/// for a short while (EC2 API reference, "DescribeImages").
fn may_linger(guard: &Guard, lease: &Lease, planned: &Planned) -> bool {
    let held_by = &planned.plan.held_by;
    held_by.contains(&Interlock::DiscardedBefore)
        && lease.entry.attempted.is_some_and(|at| {
            let age = (guard.now() - at).to_std().unwrap_or_default();
            age < guard.config.settle.min(LINGERS)
        })
}
