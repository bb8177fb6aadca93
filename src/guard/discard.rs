//! Carries out a discard. A crash after any step loses nothing, and a retry completes the discard. The steps are:
//!
//! 1. Reserve a place within the hourly limit.
//! 2. Tag the image, and read the tags back.
//! 3. Send the alert.
//! 4. Note the attempt in the ledger.
//! 5. Deregister or disable the image.
//! 6. Look at the image again.
//! 7. Record the result.
//!
//! The guard cannot distinguish one case from what a person does. It may stop between its note that it is about to
//! deregister the image and the record of the result. If the image still exists, it was either not deregistered, or a
//! person restored it. The guard then holds the image and reports it. A wrong discard is worse than one that a person
//! must finish.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::aws::{CallFailure, Described};
use crate::config::Mode;
use crate::ec2::{Image, Observation};
use crate::error::Error;
use crate::event::Registration;
use crate::guard::evaluation::{Planned, not_visible};
use crate::guard::{Guard, RegistrationContext, closing, evaluation};
use crate::invocation::{Backoff, RetryBudget};
use crate::ledger::{Hour, Lease, Note, NotificationState, Reservation};
use crate::marks::{
    DISCARD_TAG, DISCARD_VALUE, RECORD_TAG, SHOULD_BE_TAG, VERDICT_TAG, WITHDRAWN_VALUE, is_marked,
};
use crate::plan::{Action, Interlock, Plan};
use crate::record::remediation::undo;
use crate::record::{Expected, Outcome, PostCheck, Record, RecycleBin, Refusal};
use crate::sources::Assessment;

/// Time that an invocation must have left to begin a discard. The calls usually take a second or two. The rest leaves
/// room to retry one of them.
const ENOUGH: Duration = Duration::from_secs(15);

/// Time that an invocation must have left to announce the discard.
const ENOUGH_TO_ACT: Duration = Duration::from_secs(10);

/// Time kept back for the alert that the discard ran out of time.
const TO_TELL: Duration = Duration::from_secs(3);

/// Largest length of a tag's value, in characters (EC2 User Guide, "Tag restrictions").
const TAG_VALUE: usize = 256;

/// Number of attempts to deregister or disable an image, and the initial back-off. The SDK does not retry these calls.
/// It would not say whether an attempt whose answer was lost came before a refusal.
const ATTEMPTS: u32 = 3;
const BACKOFF: Duration = Duration::from_millis(450);

/// What remains of an image after EC2 was asked to discard it.
enum Remaining {
    /// Nothing. The image is gone in the requested way.
    Nothing,
    /// The image is gone, but not by the guard's action. Another actor changed it.
    OthersDeed,
    /// EC2 still lists the image. What EC2 says about it is included if it is available.
    Image(Option<Box<Image>>),
    /// Unknown, because the look had no clear result.
    Unknown,
}

/// What EC2 did to an image that it was asked to discard.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Nothing, because EC2 was not asked yet, or did not act on any request.
    Untouched,
    /// EC2 may have discarded it, because an answer is missing.
    InDoubt,
    /// EC2 discarded it.
    Done,
}

/// A discard that was announced. Its record and progress remain when a step is cut off at the deadline.
struct Discarding<'a> {
    guard: &'a Guard,
    context: &'a RegistrationContext<'a>,
    lease: &'a Lease,
    note: Note<'a>,
    record: Record,
    progress: Progress,
}

/// Why a discard did not succeed.
struct DiscardError {
    error: Error,
    /// Whether the image was seen to exist afterwards, or EC2 was not even asked to discard it.
    stands: bool,
    refusal: Option<Refusal>,
}

/// Discards the image, unless a step finds a reason not to. The record says what happened.
///
/// # Errors
/// [`Error`] if the event must be delivered again. The image then still exists, or its discard was announced.
pub(crate) async fn discard(
    guard: &Guard,
    context: &RegistrationContext<'_>,
    lease: &Lease,
    planned: Planned,
    budget: &mut RetryBudget,
) -> Result<Record, Error> {
    let id = &context.registration.image_id;
    let deadline = budget.deadline;
    let enough = |needed: Duration| match Instant::now() + needed > deadline {
        true => Err(Error::OutOfTime {
            image: id.to_string(),
            doing: "the discard was not started".into(),
        }),
        false => Ok(()),
    };
    enough(ENOUGH)?;
    let draft = draft(&planned, context);
    if lease.entry.was_refused(&draft, guard.now()) {
        return Ok(leave_refused(guard, context, lease, draft).await);
    }
    match guard
        .ledger
        .reserve(lease, guard.policy.max_per_hour, &draft, guard.now())
        .await
    {
        Ok(Reservation::Kept) => {}
        Ok(Reservation::Full(hour)) => {
            return hold_over_limit(guard, context, lease, planned, &hour).await;
        }
        Err(busy @ Error::Busy { .. }) => return Err(busy),
        Err(error) => {
            hold(
                guard,
                context,
                planned,
                Interlock::LedgerUnavailable,
                &error,
            )
            .await?;
            return Err(error);
        }
    }

    let image = guard.name(context.registration);
    let marks = marks(context.registration, &planned.assessment, DISCARD_VALUE);
    match guard.aws.tag_image(&image, &marks).await {
        Ok(()) => {}
        // The image cannot be tagged. A retry of the event shows what happened to it.
        Err(Error::Refused { code, .. }) if code.starts_with("InvalidAMIID") => {
            return Err(not_visible(id, format!("CreateTags answered {code}")));
        }
        Err(refusal @ (Error::Refused { .. } | Error::AccessDenied { .. })) => {
            return hold(guard, context, planned, Interlock::Untaggable, &refusal).await;
        }
        Err(error) => return Err(error),
    }

    // Reads the image back. The mark must be there. Everything else is judged again, because people may have changed it
    // meanwhile.
    let observation = marked(guard, context.registration, budget).await?;
    let cache = planned.assessment.cache;
    let assessment = guard
        .collector()
        .assess(context.registration, observation, cache)
        .await;
    let planned = evaluation::plan(guard, context, assessment, None).await;
    if !planned.plan.action.is_discard() {
        return leave(guard, context, planned).await;
    }
    enough(ENOUGH_TO_ACT)?;
    let source = match &planned.assessment.observation {
        Observation::Available(image) => image.registered_from().map(str::to_owned),
        _ => None,
    };
    let note = Note {
        source: source.as_deref(),
        at: guard.now(),
    };
    let mut record = self::draft(&planned, context);
    if let Err(error) = closing::publish(guard, &record).await {
        record.outcome = Some(Outcome::Failed);
        return Err(closing::close_with(guard, context, record, error).await);
    }

    // From here on, the image may be gone. Whatever happens, it is recorded and reported.
    let cut_off = budget.answer_by() - TO_TELL;
    let mut discarding = Discarding {
        guard,
        context,
        lease,
        note,
        record,
        progress: Progress::Untouched,
    };
    let result = match tokio::time::timeout_at(cut_off, discarding.carry_out(budget)).await {
        Ok(result) => result,
        Err(_) => discarding.out_of_time(),
    };
    match result {
        Ok(()) => close_done(guard, context, discarding.record).await,
        Err(not_discarded) => discarding.close_not_discarded(not_discarded).await,
    }
}

/// Leaves an image whose discard EC2 refused a short while ago. People were alerted then.
async fn leave_refused(
    guard: &Guard,
    context: &RegistrationContext<'_>,
    lease: &Lease,
    mut record: Record,
) -> Record {
    record.refusal = lease.entry.refusal();
    record.outcome = Some(Outcome::Refused);
    record.undo = None;
    record.error = Some(
        "EC2 refused this a short while ago. The guard reported that, and did not ask again".into(),
    );
    closing::close(guard, context, record, NotificationState::AsBefore).await
}

/// Closes the record of a completed discard. If the alert promised a way back and the Recycle Bin does not have the
/// image, reports that first.
///
/// # Errors
/// [`Error`] if that could not be reported. The event is then delivered again.
async fn close_done(
    guard: &Guard,
    context: &RegistrationContext<'_>,
    mut record: Record,
) -> Result<Record, Error> {
    let is_lost = record.recycle_bin == Some(RecycleBin::Absent) && record.undo.is_some();
    if is_lost {
        guard.way_back.doubt();
    }
    if is_lost && let Err(silence) = tell_of_no_way_back(guard, &mut record).await {
        record.error = Some(silence.to_string());
        guard.journal(context.delivery, record);
        return Err(silence);
    }
    Ok(closing::close(guard, context, record, NotificationState::Nothing).await)
}

/// Reports that the image cannot be restored, although the first alert said how to restore it.
async fn tell_of_no_way_back(guard: &Guard, record: &mut Record) -> Result<(), Error> {
    let promised = record.undo.take();
    let published = closing::publish(guard, record).await;
    if published.is_err() {
        record.undo = promised;
    }
    published
}

/// Holds a discard that is over the hourly limit. The first such image of an hour is reported at once. Later ones are
/// reported in a digest.
async fn hold_over_limit(
    guard: &Guard,
    context: &RegistrationContext<'_>,
    lease: &Lease,
    mut planned: Planned,
    hour: &Hour,
) -> Result<Record, Error> {
    planned.plan = held(Interlock::Limit);
    let record = planned.record(context.registration);
    let id = &context.registration.image_id;
    if lease.entry.was_told(&record.dedup_key(), guard.now()) {
        return closing::tell_at_once(guard, context, record, true).await;
    }
    match guard.ledger.is_first_over_limit(lease, hour).await {
        Ok(false) => closing::leave_to_digest(guard, context, lease, record).await,
        Ok(true) => closing::tell_at_once(guard, context, record, true).await,
        Err(busy @ Error::Busy { .. }) => Err(busy),
        // An extra message is better than an image that is never reported.
        Err(error) => {
            tracing::warn!("could not determine whether {id} is the first over the limit: {error}");
            closing::tell_at_once(guard, context, record, true).await
        }
    }
}

/// Holds a discard that was about to begin, and reports that.
async fn hold(
    guard: &Guard,
    context: &RegistrationContext<'_>,
    mut planned: Planned,
    interlock: Interlock,
    why: &Error,
) -> Result<Record, Error> {
    planned.plan = held(interlock);
    let mut record = planned.record(context.registration);
    record.error = Some(why.to_string());
    closing::tell(guard, context, record, true).await
}

/// Completes the record of an interrupted discard whose image is gone. Finds out whether the image can be restored.
/// Reports the success if an earlier alert said that the discard may have failed.
pub(crate) async fn complete(
    guard: &Guard,
    context: &RegistrationContext<'_>,
    lease: &Lease,
    planned: Planned,
    budget: &mut RetryBudget,
) -> Result<Record, Error> {
    let Some(discard) = lease.entry.unfinished() else {
        return leave(guard, context, planned).await;
    };
    let mut record = planned.record(context.registration);
    // Only the ledger still knows what the image was, and why it was discarded.
    let kept = discard.record.clone();
    record.discarded_as = kept.label();
    record.name = kept.name;
    record.snapshot_id = kept.snapshot_id;
    record.undo = kept.undo;
    record.instance_store = record.undo.is_none();
    record.actual = kept.actual;
    record.expected = kept.expected;
    record.rebuild = kept.rebuild;
    record.fix = kept.fix;
    record.action = discard.action();
    record.reason = format!(
        "{}; the guard's discard of it was interrupted, or seemed to fail, and this record completes it. Reason for \
         the discard: {}",
        record.reason,
        kept.reason
            .unwrap_or_else(|| "see its record in the log".into())
    );
    record.outcome = Some(Outcome::Done);
    record.looked_again = Some(PostCheck::Gone);
    if record.action == Action::Deregister {
        look_into_recycle_bin(guard, context.registration, &mut record, budget).await;
    }
    let no_way_back = record.recycle_bin == Some(RecycleBin::Absent) && record.undo.is_some();
    if discard.doubted
        && !no_way_back
        && let Err(silence) = closing::publish(guard, &record).await
    {
        record.error = Some(silence.to_string());
        guard.journal(context.delivery, record);
        return Err(silence);
    }
    close_done(guard, context, record).await
}

/// Waits until the mark can be read on the image. Returns at once if the image is no longer available.
///
/// # Errors
/// [`Error::NotVisibleYet`] if the mark does not show within the retry budget.
async fn marked(
    guard: &Guard,
    registration: &Registration,
    budget: &mut RetryBudget,
) -> Result<Observation, Error> {
    loop {
        let observation = evaluation::observe(guard, registration, budget).await?;
        match &observation {
            Observation::Available(image) if !is_marked(image) => {}
            _ => return Ok(observation),
        }
        if !budget.pause().await {
            return Err(not_visible(
                &registration.image_id,
                format!("the tag {DISCARD_TAG} was written, and EC2 does not show it"),
            ));
        }
    }
}

impl Discarding<'_> {
    /// Deregisters or disables the image, and looks at the result. Notes the attempt in the ledger first, because an
    /// image that exists afterwards may have been restored.
    async fn carry_out(&mut self, budget: &mut RetryBudget) -> Result<(), DiscardError> {
        let ledger = &self.guard.ledger;
        if let Err(error) = ledger
            .record_attempt(self.lease, &self.note, &self.record)
            .await
        {
            return Err(DiscardError {
                error: passing(error),
                stands: true,
                refusal: None,
            });
        }
        let answer = self.ask_ec2(budget).await;
        let left = self.look_for(budget).await;
        let look = match (answer, left) {
            (_, Remaining::Nothing) | (Ok(()), Remaining::OthersDeed) => PostCheck::Gone,
            (Ok(()), Remaining::Unknown) => PostCheck::Unknown,
            (Ok(()), Remaining::Image(_)) => PostCheck::StillListed,
            (Err(error), left @ (Remaining::Image(_) | Remaining::Unknown))
                if self.progress == Progress::Untouched =>
            {
                let protected =
                    matches!(left, Remaining::Image(Some(image)) if image.is_protected());
                return Err(DiscardError {
                    refusal: refusal(&error, protected),
                    error,
                    stands: true,
                });
            }
            // EC2 may still list an image that is gone. A retry of the event shows whether an attempt whose answer was
            // lost was carried out.
            (Err(error), _) => return Err(self.in_doubt(error)),
        };
        self.confirm();
        self.record.looked_again = Some(look);
        if self.record.action == Action::Deregister {
            let registration = self.context.registration;
            look_into_recycle_bin(self.guard, registration, &mut self.record, budget).await;
        }
        Ok(())
    }

    /// Deregisters or disables the image, with retries while they may help.
    async fn ask_ec2(&mut self, budget: &mut RetryBudget) -> Result<(), Error> {
        let (aws, action) = (&self.guard.aws, self.record.action);
        let image = self.guard.name(self.context.registration);
        let mut attempts = ATTEMPTS;
        let mut backoff = Backoff::new(BACKOFF, BACKOFF * 2);
        loop {
            let before = self.progress;
            // If this call is interrupted, EC2 may have acted.
            self.progress = Progress::InDoubt;
            let answer = match action {
                Action::Disable => aws.disable_image(&image).await,
                _ => aws.deregister_image(&image).await,
            };
            let CallFailure {
                error,
                may_have_acted,
            } = match answer {
                Ok(()) => {
                    // Noted at once, so that a slow or interrupted look does not change it.
                    self.confirm();
                    return Ok(());
                }
                Err(failure) => failure,
            };
            if !may_have_acted {
                self.progress = before;
            }
            attempts -= 1;
            match error {
                // After an attempt whose answer was lost, this code means that EC2 deregistered the image. Otherwise it
                // means only that the image is not there to be deregistered. A look then shows why.
                Error::Refused { code, .. }
                    if before == Progress::InDoubt
                        && action == Action::Deregister
                        && code == "InvalidAMIID.Unavailable" =>
                {
                    self.confirm();
                    return Ok(());
                }
                // IAM allows this because of the tag that was written a moment ago. AWS does not promise that IAM sees
                // the tag at once.
                Error::AccessDenied { .. } if budget.pause().await => attempts += 1,
                Error::Unavailable { .. } if attempts > 0 => backoff.pause().await,
                error => return Err(error),
            }
        }
    }

    /// Notes that the image was discarded.
    fn confirm(&mut self) {
        self.progress = Progress::Done;
        self.record.outcome = Some(Outcome::Done);
    }

    /// Looks at what remains of the image.
    ///
    /// An answer may have been lost. Then looks several times, because EC2 lists a deregistered image for a short while.
    /// Also searches the Recycle Bin, which has what was deregistered.
    async fn look_for(&self, budget: &mut RetryBudget) -> Remaining {
        let (aws, action) = (&self.guard.aws, self.record.action);
        let id = &self.context.registration.image_id;
        let in_doubt = self.progress == Progress::InDoubt;
        let left = loop {
            let left = match (aws.describe_image(id).await, action) {
                (Ok(Described::Disabled), Action::Disable)
                | (Ok(Described::Gone(_) | Described::NoImage), Action::Deregister) => {
                    Remaining::Nothing
                }
                (Ok(Described::Gone(_) | Described::NoImage), _) => Remaining::OthersDeed,
                (Ok(Described::Available(image)), _) => Remaining::Image(Some(image)),
                (Ok(Described::Disabled | Described::Failed(_) | Described::Underway(_)), _) => {
                    Remaining::Image(None)
                }
                (Ok(Described::NotFound), _) if self.progress == Progress::Done => {
                    Remaining::Nothing
                }
                // For an image that was seen a moment ago, this answer proves nothing.
                (Ok(Described::NotFound) | Err(_), _) => Remaining::Unknown,
            };
            if !in_doubt || matches!(left, Remaining::Nothing) || !budget.pause().await {
                break left;
            }
        };
        match left {
            Remaining::Nothing => Remaining::Nothing,
            left if in_doubt && action == Action::Deregister => match aws.recycle_bin(id).await {
                Ok(Some(_)) => Remaining::Nothing,
                Ok(None) | Err(_) => left,
            },
            left => left,
        }
    }

    /// The error of a discard that EC2 may have carried out, although its last answer was this error.
    fn in_doubt(&self, error: Error) -> DiscardError {
        let message = match error {
            Error::Unavailable { message, .. } => message,
            error => error.to_string(),
        };
        DiscardError {
            error: Error::Unavailable {
                call: match self.record.action {
                    Action::Disable => "ec2:DisableImage",
                    _ => "ec2:DeregisterImage",
                },
                resource: self.context.registration.image_id.to_string(),
                message: format!("{message}; EC2 may have done it nevertheless"),
            },
            stands: false,
            refusal: None,
        }
    }

    /// The result if the time ended before the last step did.
    fn out_of_time(&mut self) -> Result<(), DiscardError> {
        if self.progress == Progress::Done {
            let record = &mut self.record;
            record.error = Some("no time was left to check the result".into());
            record.looked_again.get_or_insert(PostCheck::Unknown);
            if record.action == Action::Deregister {
                record.recycle_bin.get_or_insert(RecycleBin::Unknown);
            }
            return Ok(());
        }
        let stands = self.progress == Progress::Untouched;
        Err(DiscardError {
            error: Error::OutOfTime {
                image: self.context.registration.image_id.to_string(),
                doing: match stands {
                    true => "EC2 did not discard it".into(),
                    false => "could not determine whether it is gone".into(),
                },
            },
            stands,
            refusal: None,
        })
    }

    /// Records a discard that EC2 refused or did not answer, and reports that in a second alert.
    ///
    /// # Errors
    /// [`Error`] if a retry may succeed, or if a refusal could not be reported. The event is then delivered again.
    async fn close_not_discarded(self, not_discarded: DiscardError) -> Result<Record, Error> {
        let Discarding {
            guard,
            context,
            lease,
            note,
            mut record,
            ..
        } = self;
        let DiscardError {
            error,
            stands,
            refusal,
        } = not_discarded;
        record.outcome = Some(match refusal {
            None => Outcome::Failed,
            Some(_) => Outcome::Refused,
        });
        record.refusal = refusal;
        record.error = Some(error.to_string());
        record.undo = None;
        // The record is written first. The alert and the ledger do not wait for each other, because time may be short.
        let record = guard.journal(context.delivery, record);
        let (published, noted) = tokio::join!(
            Box::pin(closing::publish(guard, &record)),
            Box::pin(guard.ledger.mark_uncertain(lease, &note, stands))
        );
        // A refused discard is not retried automatically if it was reported.
        let told = match (refusal, &published) {
            (Some(_), Ok(())) => NotificationState::Now(record.dedup_key()),
            _ => NotificationState::Nothing,
        };
        if let Err(unnoted) = noted {
            // If the image still exists, it is held the next time, as if a person had restored it.
            tracing::error!(
                "could not note in the ledger that the image was not discarded: {unnoted}"
            );
        }
        closing::keep(guard, context, &record, told).await;
        match (published, refusal) {
            (Ok(()), Some(_)) => Ok(record),
            (Ok(()), None) => Err(error),
            (Err(silence), Some(_)) => Err(silence),
            (Err(silence), None) => {
                tracing::error!("could not send an alert about this: {silence}");
                Err(error)
            }
        }
    }
}

/// Finds out whether the image can be restored, and until when. If that fails, the discard did not fail. The record
/// then says that the answer is unknown.
async fn look_into_recycle_bin(
    guard: &Guard,
    registration: &Registration,
    record: &mut Record,
    budget: &mut RetryBudget,
) {
    let (state, until): (_, Option<DateTime<Utc>>) = loop {
        match guard.aws.recycle_bin(&registration.image_id).await {
            Ok(Some(until)) => break (RecycleBin::In, until),
            // The image may take a moment to get there.
            Ok(None) if record.undo.is_some() && budget.pause().await => {}
            Ok(None) => break (RecycleBin::Absent, None),
            Err(error) => {
                let why = "could not determine whether the image is in the Recycle Bin";
                record.error = Some(format!("{why}: {error}"));
                break (RecycleBin::Unknown, None);
            }
        }
    };
    record.recycle_bin = Some(state);
    record.recoverable_until = until;
}

/// Leaves the image as it is, and sends the alert that the policy requires. Withdraws the mark that this event left on
/// the image before the situation changed.
///
/// A discard that is only held keeps its mark. If a person then deregisters the image, the Recycle Bin keeps it.
///
/// # Errors
/// [`Error`] if the alert could not be sent, or if everything that holds the discard is transient.
pub(crate) async fn leave(
    guard: &Guard,
    context: &RegistrationContext<'_>,
    planned: Planned,
) -> Result<Record, Error> {
    let registration = context.registration;
    if let Observation::Available(image) = &planned.assessment.observation
        && guard.config.mode == Mode::Enforce
        && planned.plan.action != Action::Hold
        && is_marked(image)
        && image.tags.get(RECORD_TAG) == Some(&registration.event_id)
    {
        let marks = marks(registration, &planned.assessment, WITHDRAWN_VALUE);
        // A mark alone discards nothing. If it cannot be withdrawn, the alert must still be sent.
        if let Err(error) = guard.aws.tag_image(&guard.name(registration), &marks).await {
            tracing::warn!(
                "could not withdraw the mark on {}: {error}",
                registration.image_id
            );
        }
    }
    let mut record = planned.record(registration);
    if record.held_by.contains(&Interlock::LedgerUnavailable)
        && let Err(unreachable) = &context.lease
    {
        record.error = Some(unreachable.to_string());
    }
    let record = closing::tell(guard, context, record, planned.plan.tell).await?;
    match planned.is_transient(evaluation::is_worth_another_look(guard, context, &planned)) {
        true => Err(Error::NotFoundOut {
            image: registration.image_id.to_string(),
            why: record.unknown(),
        }),
        false => Ok(record),
    }
}

/// The record of a discard before it is carried out.
fn draft(planned: &Planned, context: &RegistrationContext<'_>) -> Record {
    let mut record = planned.record(context.registration);
    record.undo = undo(&record);
    record.outcome = Some(Outcome::Planned);
    record
}

/// Plan for a discard that this interlock turned out to hold.
fn held(interlock: Interlock) -> Plan {
    Plan {
        action: Action::Hold,
        tell: true,
        held_by: vec![interlock],
    }
}

/// Makes a refusal by the ledger transient. It is never a refusal by EC2, so the discard is retried.
fn passing(error: Error) -> Error {
    match error {
        Error::Refused { .. } | Error::AccessDenied { .. } => Error::Unavailable {
            call: "dynamodb:UpdateItem",
            resource: "the ledger".into(),
            message: error.to_string(),
        },
        error => error,
    }
}

/// Why EC2 refused to discard an image that belongs to the caller and still exists. `None` if a retry may succeed.
/// `protected` says whether the image has deregistration protection.
fn refusal(error: &Error, protected: bool) -> Option<Refusal> {
    match error {
        error if !error.needs_a_person() => None,
        _ if protected => Some(Refusal::Protected),
        Error::AccessDenied { .. } => Some(Refusal::Denied),
        // Images of AWS Backup (EC2 User Guide, "Deregister an Amazon EC2 AMI").
        Error::Refused { message, .. } if message.contains("AWS Backup") => {
            Some(Refusal::BackupManaged)
        }
        // AWS does not document the error code for a protected image, so the message decides.
        Error::Refused { message, .. } if message.contains("protect") => Some(Refusal::Protected),
        Error::Refused { code, .. } if code == "AuthFailure" => Some(Refusal::NotOwner),
        _ => Some(Refusal::Other),
    }
}

/// A text as a tag's value. A text that is too long ends in `...`. Another tag names the record, which has all of it.
fn tag_value(text: String) -> String {
    const CUT: &str = "...";
    match text.chars().count() > TAG_VALUE {
        true => {
            let kept = text.chars().take(TAG_VALUE - CUT.len());
            kept.chain(CUT.chars()).collect()
        }
        false => text,
    }
}

/// Tags that mark an image for its discard, or withdraw the mark. `discard` is the value of [`DISCARD_TAG`].
fn marks<'a>(
    registration: &Registration,
    assessment: &Assessment,
    discard: &str,
) -> [(&'a str, String); 4] {
    let verdict = assessment.judgement.verdict.label();
    let should_be = match Expected::of(&assessment.expectation, assessment.observation.image()) {
        Some(expected) => tag_value(expected.text()),
        None => "unknown".to_owned(),
    };
    [
        (DISCARD_TAG, discard.to_owned()),
        (VERDICT_TAG, verdict),
        (SHOULD_BE_TAG, should_be),
        (RECORD_TAG, registration.event_id.clone()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_that_is_cut_says_so_and_fits() {
        assert_eq!(tag_value("ä".repeat(256)), "ä".repeat(256));
        assert_eq!(
            tag_value("ä".repeat(257)),
            format!("{}...", "ä".repeat(253))
        );
    }
}
