//! A registration, from the first look at its image to the end.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tracing::Instrument;

use super::Guard;
use crate::ec2::Observation;
use crate::error::Error;
use crate::event::{RegisteredBy, Registration};
use crate::guard::evaluation::{Planned, not_visible};
use crate::guard::{RegistrationContext, discard, evaluation};
use crate::ids::{AccountId, AmiId};
use crate::invocation::{Delivery, RetryBudget, in_time};
use crate::ledger::Lease;
use crate::plan::{Interlock, SafetyChecks};
use crate::record::Record;
use crate::sources::{Assessment, EvidenceCache};
use crate::verdict::Verdict;

/// For so long after its discard, and no longer than an image takes to settle, an image that is there may be one that
/// EC2 just lists yet. How long it does is documented nowhere ("a short while"); less than the six minutes after which
/// the queue brings an event back.
const LINGERS: Duration = Duration::from_secs(180);

/// What was found out of an image: it is judged by that, as if it had been asked for it alone.
#[derive(Debug)]
pub(crate) struct Known {
    pub(super) observation: Observation,
    pub(super) cache: Option<EvidenceCache>,
}

impl Guard {
    /// Deals with an image that no event told of, as if one had.
    ///
    /// # Errors
    /// As [`Guard::handle`], of a bare event.
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

/// Deals with a registration, of whose image this is known, in what is left of a delivery's time.
pub(crate) async fn registered(
    guard: &Guard,
    registration: &Registration,
    known: Option<Known>,
    delivery: &Delivery,
) -> Result<Record, Error> {
    // With the record's names, so that one search finds both.
    let span = tracing::error_span!(
        "registration",
        image_id = %registration.image_id,
        event_id = registration.event_id
    );
    let work = Box::pin(follow(guard, registration, known, delivery).instrument(span));
    let late = Error::OutOfTime {
        image: registration.image_id.to_string(),
        doing: "how far it went shows the next time".into(),
    };
    in_time(delivery, work, late).await
}

pub(super) async fn follow(
    guard: &Guard,
    registration: &Registration,
    known: Option<Known>,
    delivery: &Delivery,
) -> Result<Record, Error> {
    let mut budget = RetryBudget::new(guard.config.wait, delivery.deadline);
    let mut looked = Some(look_at(guard, registration, known, delivery, &mut budget).await?);
    // From here on people are told and the image may be discarded: by one invocation at a time.
    let ends = guard.ends(delivery.deadline);
    let lease = loop {
        match guard.ledger.begin(registration, ends).await {
            // Whoever has its lease may leave it as it was not.
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
    // What was waited for a lease is not taken from what AWS may need.
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
        // Whether this is the end of a discard, only the ledger can tell.
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

/// Looks at an image until it is visible and settled, and judges it; and says what is around it, if that was looked
/// at. `known`: what was found out of it a moment ago.
pub(super) async fn look_at(
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

/// Hands the assessment back, with what is around the image if it looked, unless another event of the same registration,
/// which is on its way, says who registered the image, and that counts. Found without a lease, so that this event is not
/// in the way of that one.
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
            // Without the ledger it did not see all that is around the image.
            let around = planned.safety.filter(|_| context.lease.is_ok());
            Ok((planned.assessment, around))
        }
    }
}

/// Deals with an image that is judged: completes a discard that was cut off, discards, or leaves it.
pub(super) async fn process(
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
            "it was discarded a short while ago, or may have been: either EC2 just lists it yet, or it stands",
        )),
        // With two triggers, the other event of the same registration says who made it: it is on its way,
        // or was dealt with.
        (lease, false) if planned.awaits_identity() => {
            let mut record = planned.record(context.registration);
            let asked = planned.assessment.expectation.identity_asked;
            match lease {
                // Its tags changed since that was asked without a lease.
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

/// Whether an image that passes for one that was brought back may be one that EC2 still lists: it does for
/// a short while (EC2 API reference, "DescribeImages").
fn may_linger(guard: &Guard, lease: &Lease, planned: &Planned) -> bool {
    let held_by = &planned.plan.held_by;
    held_by.contains(&Interlock::DiscardedBefore)
        && lease.entry.attempted.is_some_and(|at| {
            let age = (guard.now() - at).to_std().unwrap_or_default();
            age < guard.config.settle.min(LINGERS)
        })
}
