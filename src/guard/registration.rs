//! A registration, from the first look at its image to the end.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tracing::Instrument;

use super::Guard;
use crate::ec2::Observation;
use crate::error::Error;
use crate::event::{RegisteredBy, Registration};
use crate::guard::evaluation::{Planned, not_visible};
use crate::guard::{Case, discard, evaluation};
use crate::ids::{AccountId, AmiId};
use crate::invocation::{Delivery, Patience, in_time};
use crate::ledger::Turn;
use crate::plan::{Interlock, Surroundings};
use crate::record::Record;
use crate::sources::{Assessment, Traces};
use crate::verdict::Verdict;

/// For so long after its discard, and no longer than an image takes to settle, an image that is there may be one that
/// EC2 just lists yet. How long it does is documented nowhere ("a short while"); less than the six minutes after which
/// the queue brings an event back.
const LINGERS: Duration = Duration::from_secs(180);

/// What was found out of an image: it is judged by that, as if it had been asked for it alone.
#[derive(Debug)]
pub(crate) struct Known {
    pub(super) observation: Observation,
    pub(super) traces: Option<Traces>,
}

impl Guard {
    /// Deals with an image that no event told of, as if one had.
    ///
    /// # Errors
    /// As [`Guard::handle`], of a bare event.
    pub async fn make_up_for(
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
    let mut patience = Patience::new(guard.config.wait, delivery.deadline);
    let mut looked = Some(look_at(guard, registration, known, delivery, &mut patience).await?);
    // From here on people are told and the image may be discarded: by one invocation at a time.
    let ends = guard.ends(delivery.deadline);
    let turn = loop {
        match guard.ledger.begin(registration, ends).await {
            // Whoever has its turn may leave it as it was not.
            Err(busy @ Error::Busy { .. }) => match patience.pause().await {
                true => looked = None,
                false => {
                    guard.ledger.repair_turn(registration).await;
                    return Err(busy);
                }
            },
            turn => break turn,
        }
    };
    let case = Case {
        registration,
        delivery,
        turn,
    };
    // What was waited for a turn is not taken from what AWS may need.
    let mut patience = Patience::new(guard.config.wait, delivery.deadline);
    let result = async {
        let (assessment, around) = match looked {
            Some(looked) => looked,
            None => look_at(guard, registration, None, delivery, &mut patience).await?,
        };
        deal(guard, &case, assessment, around, &mut patience).await
    };
    let result = result.await;
    if let Ok(turn) = &case.turn {
        guard.ledger.give_back(turn).await;
    }
    match (result, case.turn) {
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
    patience: &mut Patience,
) -> Result<(Assessment, Option<Surroundings>), Error> {
    let (observation, traces) = match known {
        Some(known) => (known.observation, known.traces),
        None => (
            evaluation::observe(guard, registration, patience).await?,
            None,
        ),
    };
    let assessment = guard
        .collector()
        .assess(registration, observation, traces)
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
/// which is on its way, says who registered the image, and that counts. Found without a turn, so that this event is not
/// in the way of that one.
async fn unless_identity_may_come(
    guard: &Guard,
    registration: &Registration,
    delivery: &Delivery,
    assessment: Assessment,
) -> Result<(Assessment, Option<Surroundings>), Error> {
    let cleared = [Verdict::Verified, Verdict::Exempt];
    if registration.registered_by != RegisteredBy::Unknown
        || evaluation::no_other_event_may_come(guard, registration)
        || cleared.contains(&assessment.judgement.verdict)
    {
        return Ok((assessment, None));
    }
    let case = Case {
        registration,
        delivery,
        turn: guard.ledger.look(registration).await,
    };
    let planned = evaluation::plan(guard, &case, assessment, None).await;
    match planned.awaits_identity() {
        true => Err(Error::IdentityMayCome {
            image: registration.image_id.to_string(),
        }),
        false => {
            // Without the ledger it did not see all that is around the image.
            let around = planned.surroundings.filter(|_| case.turn.is_ok());
            Ok((planned.assessment, around))
        }
    }
}

/// Deals with an image that is judged: completes a discard that was cut off, discards, or leaves it.
pub(super) async fn deal(
    guard: &Guard,
    case: &Case<'_>,
    assessment: Assessment,
    around: Option<Surroundings>,
    patience: &mut Patience,
) -> Result<Record, Error> {
    let planned = evaluation::plan(guard, case, assessment, around).await;
    let id = &case.registration.image_id;
    match (&case.turn, planned.plan.action.is_discard()) {
        (Ok(turn), true) => discard::discard(guard, case, turn, planned, patience).await,
        (Ok(turn), false) if planned.is_gone_by(turn.entry.unfinished()) => {
            discard::complete(guard, case, turn, planned, patience).await
        }
        (Ok(turn), false) if may_linger(guard, turn, &planned) => Err(not_visible(
            id,
            "it was discarded a short while ago, or may have been: either EC2 just lists it yet, or it stands",
        )),
        // With two triggers, the other event of the same registration says who made it: it is on its way,
        // or was dealt with.
        (turn, false) if planned.awaits_identity() => {
            let mut record = planned.record(case.registration);
            let asked = planned.assessment.expectation.identity_asked;
            match turn {
                // Its tags changed since that was asked without a turn.
                _ if !evaluation::no_other_event_may_come(guard, case.registration) => {
                    Err(Error::IdentityMayCome {
                        image: id.to_string(),
                    })
                }
                Ok(turn) if turn.entry.is_known(&record, guard.now()) => {
                    Ok(guard.journal(case.delivery, record))
                }
                Ok(turn) if asked && let Some(cleared) = turn.entry.cleared(&record) => {
                    record.clear(cleared);
                    Ok(guard.journal(case.delivery, record))
                }
                _ => discard::leave(guard, case, planned).await,
            }
        }
        _ => discard::leave(guard, case, planned).await,
    }
}

/// Whether an image that passes for one that was brought back may be one that EC2 still lists: it does for
/// a short while (EC2 API reference, "DescribeImages").
fn may_linger(guard: &Guard, turn: &Turn, planned: &Planned) -> bool {
    let held_by = &planned.plan.held_by;
    held_by.contains(&Interlock::DiscardedBefore)
        && turn.entry.attempted.is_some_and(|at| {
            let age = (guard.now() - at).to_std().unwrap_or_default();
            age < guard.config.settle.min(LINGERS)
        })
}
