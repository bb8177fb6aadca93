//! Observes an image, judges it, and plans what to do about it.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

use crate::aws::Described;
use crate::billing::Difference;
use crate::ec2::{Image, Observation};
use crate::error::Error;
use crate::event::Registration;
use crate::guard::{Guard, RegistrationContext};
use crate::ids::AmiId;
use crate::invocation::RetryBudget;
use crate::ledger::Discard;
use crate::plan::{Action, Interlock, Plan, PlanInput, SafetyChecks, wrong_clock};
use crate::record::remediation::RecreateFrom;
use crate::record::{Rebuild, Record, remediation};
use crate::sources::Assessment;
use crate::verdict::Verdict;

/// Event age after which a missing image counts as deleted rather than not yet visible. EC2 shows a new image within
/// 2.5 minutes, which is the longest wait that AWS Support advised.
const OLD_EVENT: TimeDelta = TimeDelta::minutes(10);

/// How long after the settle time another event of the same registration may be judged for the first time. CloudTrail
/// usually delivers within about 90 seconds.
const OTHER_EVENT: TimeDelta = TimeDelta::minutes(5);

/// How long after the settle time an event is retried because a source could not be queried. Nothing seems to be wrong
/// with the image. SQS returns an event every six minutes. The last time before the event is lost is at the earliest
/// half an hour after the settle time.
const ANOTHER_LOOK: TimeDelta = TimeDelta::minutes(20);

/// If an image's creation time is further in the future than this, the guard does not wait for the image to settle.
const AHEAD: TimeDelta = TimeDelta::hours(1);

/// A judged image, with what to do about it and why.
pub(crate) struct Planned {
    pub(crate) assessment: Assessment,
    /// Results of the safety checks, if a discard is due.
    pub(crate) safety: Option<SafetyChecks>,
    pub(crate) plan: Plan,
    /// What is known about an earlier discard, if the plan is held because of one.
    pub(crate) before: Option<String>,
    /// What is wrong with the ledger's item or with a clock, if that holds the discard.
    pub(crate) doubts: Vec<String>,
}

/// Waits until EC2 shows an image, for at most `GUARD_WAIT_SECONDS`.
///
/// # Errors
/// [`Error::NotVisibleYet`] if EC2 does not show it by then. Another [`Error`] if EC2 does not answer.
pub(crate) async fn observe(
    guard: &Guard,
    registration: &Registration,
    budget: &mut RetryBudget,
) -> Result<Observation, Error> {
    let id = &registration.image_id;
    let old = is_old(registration, guard.now());
    let mut asked = false;
    loop {
        let why = match observed(guard.aws.describe_image(id).await?) {
            Ok(observation) => return Ok(observation),
            Err(NotReady::There(why)) => why,
            Err(NotReady::Unknown(_)) if old => {
                let why =
                    "EC2 does not know the image, more than ten minutes after the event".into();
                return Ok(Observation::Gone {
                    why,
                    disabled: false,
                });
            }
            // An image that the guard discarded does not appear again.
            Err(NotReady::Unknown(why)) => match took_away(guard, registration, &mut asked).await {
                Some(gone) => return Ok(gone),
                None => why,
            },
        };
        if !budget.pause().await {
            return Err(not_visible(id, why));
        }
    }
}

/// Observation of an image that EC2 does not show because the guard discarded it. `None` if that is not known. Reads
/// the ledger only once, and sets `asked` to note that.
async fn took_away(
    guard: &Guard,
    registration: &Registration,
    asked: &mut bool,
) -> Option<Observation> {
    if std::mem::replace(asked, true) {
        return None;
    }
    // If the ledger cannot be reached, the guard waits for the image as for any other.
    let lease = guard.ledger.look(registration).await.ok()?;
    let at = lease.entry.attempted?;
    let at = at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let why = match lease.entry.unfinished() {
        None => format!("EC2 does not know the image, which the guard discarded at {at}"),
        // The discard may not have been carried out, and EC2 may briefly not show the image.
        Some(_) => {
            let bin = guard.aws.recycle_bin(&registration.image_id).await;
            bin.ok()??;
            format!("it is in the Recycle Bin, and the guard began to discard it at {at}")
        }
    };
    Some(Observation::Gone {
        why,
        disabled: false,
    })
}

/// Checks that an image is old enough to be judged, because its tags may arrive late. A younger image passes only if no
/// later tag can change its verdict.
///
/// # Errors
/// [`Error::NotSettled`] if the image is too young.
pub(super) fn settled(
    guard: &Guard,
    registration: &Registration,
    assessment: &Assessment,
) -> Result<(), Error> {
    let declared = assessment.expectation.decided_by_declaration()
        && !guard.policy.names_product_codes_by_tag();
    let created = match (&assessment.observation, assessment.judgement.verdict) {
        (_, Verdict::Verified) if declared => return Ok(()),
        (_, Verdict::Exempt) => return Ok(()),
        (Observation::Available(image), _) => image.created.unwrap_or(registration.time),
        (Observation::Gone { .. } | Observation::Failed { .. }, _) => return Ok(()),
    };
    let age = guard.now() - created;
    // While its event is retried, this image does not become old enough. A clock is wrong, which holds a discard.
    if age < -AHEAD {
        return Ok(());
    }
    let age_seconds = age.num_seconds();
    let settle_seconds = guard.config.settle.as_secs();
    if u64::try_from(age_seconds).unwrap_or(0) >= settle_seconds {
        return Ok(());
    }
    Err(Error::NotSettled {
        image: registration.image_id.to_string(),
        age_seconds,
        settle_seconds,
    })
}

/// Plans what to do about a judged image. Makes the safety checks first if a discard is due and `around` does not have
/// them.
pub(crate) async fn plan(
    guard: &Guard,
    context: &RegistrationContext<'_>,
    assessment: Assessment,
    around: Option<SafetyChecks>,
) -> Planned {
    let verdict = assessment.judgement.verdict;
    let safety = match (&assessment.observation, around) {
        (_, Some(around)) => Some(around),
        (Observation::Available(image), None) if verdict.calls_for_discard() => {
            Some(check_safety(guard, context, image).await)
        }
        _ => None,
    };
    let past = context
        .lease
        .as_ref()
        .ok()
        .map(|lease| lease.entry.history());
    let input = PlanInput {
        mode: guard.config.mode,
        now: guard.now(),
        registration: context.registration,
        observation: &assessment.observation,
        expectation: &assessment.expectation,
        safety: safety.as_ref(),
        past: past.as_ref(),
    };
    let plan = crate::plan::plan(verdict, &input, &guard.policy);
    let doubts = doubts(&input, &plan);
    let before = match plan.held_by.contains(&Interlock::DiscardedBefore) {
        true => Some(what_was_before(context, safety.as_ref())),
        false => None,
    };
    Planned {
        assessment,
        safety,
        plan,
        before,
        doubts,
    }
}

/// Checks everything on which a discard depends besides the image itself. All calls are concurrent.
async fn check_safety(
    guard: &Guard,
    context: &RegistrationContext<'_>,
    image: &Image,
) -> SafetyChecks {
    let name = guard.name(context.registration);
    let discarded_sibling = async {
        match (&context.lease, image.registered_from()) {
            (Ok(lease), Some(source)) => guard.ledger.first_discard_of(lease, source).await,
            // If the ledger cannot be reached, the lease already says so.
            (Err(_), _) | (_, None) => Ok(None),
        }
    };
    let launch_permissions = async {
        // EC2 does not return the launch permissions of images of other accounts, which are not discarded anyway.
        match image.owner.as_deref() == Some(context.registration.account.as_str()) {
            true => guard.aws.launch_permissions(&name).await,
            false => Ok(Vec::new()),
        }
    };
    let listeners = async {
        match &guard.config.alert_topic {
            Some(topic) => guard.aws.confirmed_subscriptions(topic).await,
            // Without a topic the guard cannot alert, so it discards nothing. This is then only a preview.
            None => Ok(1),
        }
    };
    let way_back = async {
        match guard.recycle_bin_rule() {
            Some(rule) => guard.way_back.check(&guard.aws, rule).await,
            None => Ok(()),
        }
    };
    // Boxed because the SDK's futures are large.
    let (references, listeners, way_back, launch_permissions, discarded_sibling) = tokio::join!(
        Box::pin(guard.aws.image_references(&name)),
        Box::pin(listeners),
        Box::pin(way_back),
        Box::pin(launch_permissions),
        Box::pin(discarded_sibling),
    );
    let transient = [
        (Interlock::InUse, references.as_ref().err()),
        (Interlock::NobodyListening, listeners.as_ref().err()),
        (Interlock::Uncaptured, launch_permissions.as_ref().err()),
        (
            Interlock::LedgerUnavailable,
            discarded_sibling.as_ref().err(),
        ),
        (Interlock::LedgerUnavailable, context.lease.as_ref().err()),
    ];
    let not_yet = way_back.as_ref().is_err_and(|hindrance| hindrance.passes);
    SafetyChecks {
        transient: transient
            .into_iter()
            .filter(|(interlock, error)| {
                let of_ledger = *interlock == Interlock::LedgerUnavailable;
                error.is_some_and(|error| match error {
                    // The item cannot be read, and a retry does not change that.
                    Error::NotPossible { .. } => false,
                    error => of_ledger || !error.needs_a_person(),
                })
            })
            .map(|(interlock, _)| interlock)
            .chain(not_yet.then_some(Interlock::NoWayBack))
            .collect(),
        way_back: way_back.map_err(|hindrance| hindrance.why),
        references: references.map_err(|error| error.to_string()),
        listeners: listeners.map_err(|error| error.to_string()),
        launch_permissions: launch_permissions.map_err(|error| error.to_string()),
        discarded_sibling: discarded_sibling.map_err(|error| error.to_string()),
    }
}

/// Whether another look at an image is worth a retry of its event, although nothing seems to be wrong with it.
pub(crate) fn is_worth_another_look(
    guard: &Guard,
    context: &RegistrationContext<'_>,
    planned: &Planned,
) -> bool {
    let image = planned.assessment.observation.image();
    let created = image.and_then(|image| image.created);
    let settled = settled_since(guard, created.unwrap_or(context.registration.time));
    settled.is_none_or(|settled| settled < ANOTHER_LOOK)
}

/// How long an image of this time has been settled. Negative if it is not settled yet. `None` if the settle time is so
/// long that the result overflows.
pub(crate) fn settled_since(guard: &Guard, time: DateTime<Utc>) -> Option<TimeDelta> {
    let settle = TimeDelta::from_std(guard.config.settle).unwrap_or(TimeDelta::MAX);
    (guard.now() - time).checked_sub(&settle)
}

/// Whether every event of this registration has had the time to be judged once. Each one waits for the settle time.
pub(super) fn no_other_event_may_come(guard: &Guard, registration: &Registration) -> bool {
    let settled = settled_since(guard, registration.time);
    is_old(registration, guard.now()) && settled.is_some_and(|settled| settled > OTHER_EVENT)
}

/// Why EC2's answer about an image is not enough to judge it.
pub(crate) enum NotReady {
    /// The image exists, in a transient state. The text says which.
    There(String),
    /// EC2 shows no such image. The text says what it answered.
    Unknown(String),
}

/// Converts EC2's answer about an image to an observation.
///
/// # Errors
/// [`NotReady`] if the image cannot be judged by this answer.
pub(crate) fn observed(described: Described) -> Result<Observation, NotReady> {
    let gone = |why: String, disabled| Ok(Observation::Gone { why, disabled });
    match described {
        Described::Available(image) => Ok(Observation::Available(image)),
        Described::Disabled => gone("the image is disabled".into(), true),
        Described::Gone(why) => gone(why, false),
        Described::Failed(why) => Ok(Observation::Failed { why }),
        Described::Underway(why) => Err(NotReady::There(why)),
        Described::NoImage => Err(NotReady::Unknown("EC2 does not show the image".into())),
        Described::NotFound => Err(NotReady::Unknown("EC2 says InvalidAMIID.NotFound".into())),
    }
}

/// Whether EC2 has had enough time to show the image of a registration.
fn is_old(registration: &Registration, now: DateTime<Utc>) -> bool {
    now - registration.time > OLD_EVENT
}

/// The instance from which the image could be created again. `None` if lineage found none.
fn recreation_source(assessment: &Assessment) -> Option<RecreateFrom> {
    let expectation = &assessment.expectation;
    let origin = expectation.origin.as_ref()?;
    let image = assessment.observation.image()?;
    let right = match expectation.platforms() {
        // CreateImage copies the instance's product codes.
        Some(platforms) => platforms.difference(&origin.bills, true) == Difference::None,
        None => expectation.decisive().is_none(),
    };
    Some(RecreateFrom {
        origin: origin.clone(),
        right,
        tags: image.tags.clone(),
    })
}

impl Planned {
    /// Whether the image is now as this discard would have left it, which is either disabled or deregistered.
    pub(super) fn is_gone_by(&self, discard: Option<&Discard>) -> bool {
        match (&self.assessment.observation, discard) {
            (Observation::Gone { disabled, .. }, Some(discard)) => {
                *disabled == (discard.action() == Action::Disable)
            }
            _ => false,
        }
    }

    /// Whether another event of the same registration, which says who registered the image, may change what is
    /// reported. This is so in two cases:
    ///
    /// - Only the unknown identity holds the discard.
    /// - A rule depends on the identity, and an alert or a held discard is planned.
    pub(super) fn awaits_identity(&self) -> bool {
        let asked = self.assessment.expectation.identity_asked;
        self.plan.held_by == [Interlock::IdentityUnknown]
            || (asked && (self.plan.tell || self.plan.action == Action::Hold))
    }

    /// Whether every reason that holds the discard, or leaves the image unverifiable, is transient. A retry may then
    /// succeed.
    ///
    /// `is_worth_it` says whether a verified image is worth another look. Such a look is needed if a source could not
    /// be queried that the policy requires for every image.
    pub(crate) fn is_transient(&self, is_worth_it: bool) -> bool {
        let expectation = &self.assessment.expectation;
        match self.assessment.judgement.verdict {
            Verdict::Unverifiable => return expectation.is_transient,
            Verdict::Verified => return expectation.is_transient && is_worth_it,
            _ => {}
        }
        // A late result is worth a retry only if a discard is due.
        let asked = expectation.is_transient || expectation.is_late;
        let held_by = &self.plan.held_by;
        let around = self.safety.as_ref();
        let passes = |it: &Interlock| {
            (asked && *it == Interlock::SourceFailed)
                || around.is_some_and(|around| around.transient.contains(it))
        };
        !held_by.is_empty() && held_by.iter().all(passes)
    }

    /// The record of the plan, before anything is done.
    pub(crate) fn record(&self, registration: &Registration) -> Record {
        let Assessment {
            observation,
            expectation,
            judgement,
            ..
        } = &self.assessment;
        let mut record = Record::new(
            registration,
            observation,
            expectation,
            judgement,
            &self.plan,
        );
        if let Some(safety) = &self.safety {
            record.check_safety(safety);
            if let (true, Observation::Available(image), Ok(permissions)) = (
                self.plan.action.is_discard(),
                observation,
                &safety.launch_permissions,
            ) {
                record.rebuild = Some(Rebuild::of(registration, image, permissions.clone()));
            }
        }
        record.before = self.before.clone();
        if !self.doubts.is_empty() {
            let known = record.error.take().into_iter();
            let all: Vec<String> = known.chain(self.doubts.iter().cloned()).collect();
            record.error = Some(all.join("; "));
        }
        record.fix = remediation::fix(&record, recreation_source(&self.assessment).as_ref());
        if registration.by_packer && matches!(record.verdict, Verdict::Mismatch(_)) {
            record.fix.push(remediation::AT_PACKER.into());
        }
        record
    }
}

/// What is wrong with the ledger's item or with a clock, if that holds a discard.
fn doubts(input: &PlanInput<'_>, plan: &Plan) -> Vec<String> {
    let PlanInput {
        now,
        registration,
        observation,
        past,
        ..
    } = input;
    let unreadable = past.and_then(|past| past.unreadable.as_deref());
    let unreadable = unreadable.map(|what| {
        format!(
            "the ledger's item {} cannot be read: {what}",
            crate::ledger::item_of(registration)
        )
    });
    let clock = observation
        .image()
        .and_then(|image| wrong_clock(*now, registration, image));
    let holds = |interlock| plan.held_by.contains(&interlock);
    let unreadable = unreadable.filter(|_| holds(Interlock::LedgerUnavailable));
    let clock = clock.filter(|_| holds(Interlock::TooOld));
    unreadable.into_iter().chain(clock).collect()
}

/// What is known about an earlier discard, for an image that is held because of one.
fn what_was_before(context: &RegistrationContext<'_>, safety: Option<&SafetyChecks>) -> String {
    let at = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let entry = context.lease.as_ref().ok().map(|lease| &lease.entry);
    let own = entry.and_then(|entry| entry.attempted);
    let undated = entry.is_some_and(|entry| entry.undated);
    // The result is known, because EC2 confirmed the discard or the image was seen to be gone.
    let completed = entry
        .and_then(|entry| entry.discard.as_ref())
        .is_some_and(|discard| discard.completed);
    let sibling = safety.and_then(|around| around.discarded_sibling.clone().ok().flatten());
    match (own, sibling) {
        (Some(own), _) if completed => format!(
            "it was discarded at {}, and restored afterwards",
            at(own)
        ),
        (Some(own), _) => format!(
            "its discard was begun at {}, and the guard could not determine whether it was carried out. If it was, the \
             image was restored afterwards",
            at(own)
        ),
        (None, _) if undated => "its item in the ledger has signs of a discard, but no readable time. The guard could \
                                 not determine whether it was carried out. If it was, the image was restored afterwards"
            .to_owned(),
        (None, Some(sibling)) => {
            format!(
                "another image of the same snapshot was discarded at {}, and this one was registered afterwards",
                at(sibling)
            )
        }
        (None, None) => "it has the guard's mark, and the ledger does not say why. It may have been discarded before".to_owned(),
    }
}

pub(crate) fn not_visible(id: &AmiId, why: impl Into<String>) -> Error {
    Error::NotVisibleYet {
        image: id.to_string(),
        why: why.into(),
    }
}
