//! The discard itself, in an order in which a crash after any step loses nothing and a retry
//! completes it: tag and read back, alert, deregister or disable, look again, record.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::alert;
use crate::aws::{Described, ImageName};
use crate::config::Mode;
use crate::discard::{
    Action, DISCARD_TAG, DISCARD_VALUE, Interlock, Plan, RECORD_TAG, SHOULD_BE_TAG, VERDICT_TAG,
    WITHDRAWN_VALUE,
};
use crate::error::Error;
use crate::event::Registration;
use crate::guard::{Assessment, Guard, Patience, not_visible};
use crate::observation::{Image, Observation};
use crate::record::{LookedAgain, Outcome, Record, RecycleBin};

/// With less time than this left in an invocation, a discard is not begun. Its calls take a
/// second or two as a rule; this leaves room for one of them to be tried again.
const ENOUGH: Duration = Duration::from_secs(15);

/// What is kept of that for the alert that says that it was not enough.
const TO_TELL: Duration = Duration::from_secs(3);

/// A tag's value has at most 256 characters (EC2 User Guide, "Tag restrictions").
const TAG_VALUE: usize = 256;

impl Guard {
    /// Discards the image, unless it turns out otherwise on the way. The record says what happened.
    ///
    /// # Errors
    /// [`Error`], if the event must come again; the image then stands, or is discarded and told of.
    pub(crate) async fn discard(
        &self,
        registration: &Registration,
        assessment: Assessment,
        patience: &mut Patience,
    ) -> Result<Record, Error> {
        let id = &registration.image_id;
        if Instant::now() + ENOUGH > patience.deadline {
            return Err(Error::OutOfTime {
                image: id.to_string(),
                doing: "the discard was not begun".into(),
            });
        }
        let image = self.name(registration);

        let marks = marks(registration, &assessment, DISCARD_VALUE);
        match self.aws.tag_image(&image, &marks).await {
            Ok(()) => {}
            // Nothing to tag: what became of the image shows when the event comes again.
            Err(Error::Refused { code, .. }) if code.starts_with("InvalidAMIID") => {
                return Err(not_visible(id, format!("CreateTags says {code}")));
            }
            Err(refusal @ (Error::Refused { .. } | Error::AccessDenied { .. })) => {
                return self
                    .hold_untaggable(registration, assessment, &refusal)
                    .await;
            }
            Err(error) => return Err(error),
        }

        // Read back: the mark must be there, and all else is judged anew, whatever people did meanwhile.
        let observation = self.marked(registration, patience).await?;
        let assessment = self
            .weigh(registration, observation, assessment.traces)
            .await;
        if !assessment.plan.action.is_discard() {
            return self.leave(registration, assessment).await;
        }
        let mut record = assessment.record(registration);
        record.undo = alert::undo(&record);
        record.outcome = Some(Outcome::Planned);
        if let Err(error) = self.publish(&record).await {
            record.outcome = Some(Outcome::Failed);
            return Err(self.close_with(record, error));
        }

        // From here on the image may be gone: whatever happens, there is a record of it, and people
        // are told.
        let cut_off = patience.answer_by() - TO_TELL;
        let deed = self.take_away(registration, &mut record, patience);
        match tokio::time::timeout_at(cut_off, deed).await {
            Ok(Ok(())) => Ok(self.close(record)),
            Ok(Err(error)) => self.not_discarded(record, error).await,
            Err(_) if record.outcome == Some(Outcome::Done) => {
                record.error = Some("no time was left to look at what came of it".into());
                record.looked_again.get_or_insert(LookedAgain::Unknown);
                if record.action == Action::Deregister {
                    record.recycle_bin.get_or_insert(RecycleBin::Unknown);
                }
                Ok(self.close(record))
            }
            Err(_) => {
                let error = Error::OutOfTime {
                    image: id.to_string(),
                    doing: "whether it is gone is not known".into(),
                };
                self.not_discarded(record, error).await
            }
        }
    }

    /// Looks at the image again, until the mark can be read on it.
    async fn marked(
        &self,
        registration: &Registration,
        patience: &mut Patience,
    ) -> Result<Observation, Error> {
        loop {
            let observation = self.observe(registration, patience).await?;
            match &observation {
                Observation::Available(image) if !is_marked(image) => {}
                _ => return Ok(observation),
            }
            if !patience.pause().await {
                return Err(not_visible(
                    &registration.image_id,
                    format!("the tag {DISCARD_TAG} was written and does not show"),
                ));
            }
        }
    }

    /// The image could not be tagged: without the tag nothing would bring it back.
    async fn hold_untaggable(
        &self,
        registration: &Registration,
        mut assessment: Assessment,
        refusal: &Error,
    ) -> Result<Record, Error> {
        assessment.plan = Plan {
            action: Action::Hold,
            tell: true,
            held_by: vec![Interlock::Untaggable],
        };
        let mut record = assessment.record(registration);
        record.error = Some(refusal.to_string());
        self.tell(record, true).await
    }

    /// Deregisters or disables the image, and looks what came of it.
    ///
    /// # Errors
    /// [`Error`], if the image is not known to be gone.
    async fn take_away(
        &self,
        registration: &Registration,
        record: &mut Record,
        patience: &mut Patience,
    ) -> Result<(), Error> {
        let image = self.name(registration);
        let answer = loop {
            let answer = match record.action {
                Action::Disable => self.aws.disable_image(&image).await,
                _ => self.aws.deregister_image(&image).await,
            };
            match answer {
                // IAM allows this by the tag that was written a moment ago, and whether IAM sees it at
                // once nobody promises.
                Err(Error::AccessDenied { .. }) if patience.pause().await => {}
                answer => break answer,
            }
        };
        if answer.is_ok() {
            // Said at once: no look that is slow or cut off changes it.
            record.outcome = Some(Outcome::Done);
        }
        let look = loop {
            let look = match (self.aws.describe_image(image.id).await, &answer) {
                (Ok(Described::Gone(_) | Described::NoImage), _) => LookedAgain::Gone,
                (Ok(Described::NotFound), Ok(())) => LookedAgain::Gone,
                // Said of an image that was seen a moment ago, this proves nothing.
                (Ok(Described::NotFound) | Err(_), _) => LookedAgain::Unknown,
                (Ok(_), _) => LookedAgain::StillListed,
            };
            // An attempt whose answer was lost may have done it, and then the last answer says nothing.
            // EC2 lists a deregistered image for a short while yet.
            if answer.is_ok() || look == LookedAgain::Gone || !patience.pause().await {
                break look;
            }
        };
        match (answer, look) {
            (Ok(()), _) => {}
            (Err(_), LookedAgain::Gone) => record.outcome = Some(Outcome::Done),
            (Err(error), LookedAgain::StillListed) => return Err(error),
            (Err(error), LookedAgain::Unknown) => {
                return Err(Error::Unavailable {
                    call: "ec2:DescribeImages",
                    resource: registration.image_id.to_string(),
                    message: format!("whether it is gone is not known, after this: {error}"),
                });
            }
        }
        record.looked_again = Some(look);
        if record.action == Action::Deregister {
            self.look_into_recycle_bin(registration, record, patience)
                .await;
        }
        Ok(())
    }

    /// EC2 said no, or nothing: on record first, then a second alert says so. What may pass is an
    /// error, to be tried again.
    async fn not_discarded(&self, mut record: Record, error: Error) -> Result<Record, Error> {
        let passing = !error.needs_a_person();
        record.outcome = Some(if passing {
            Outcome::Failed
        } else {
            Outcome::Refused
        });
        record.error = Some(error.to_string());
        record.undo = None;
        let record = self.close(record);
        match (self.publish(&record).await, passing) {
            (Ok(()), false) => Ok(record),
            (Ok(()), true) => Err(error),
            (Err(silence), false) => Err(silence),
            (Err(silence), true) => {
                tracing::error!("nobody could be told of this: {silence}");
                Err(error)
            }
        }
    }

    /// Whether the image can be restored, and until when. A look that fails is not a failed
    /// discard: the record then says that it is not known.
    async fn look_into_recycle_bin(
        &self,
        registration: &Registration,
        record: &mut Record,
        patience: &mut Patience,
    ) {
        let (state, until): (_, Option<DateTime<Utc>>) = loop {
            match self.aws.recycle_bin(&registration.image_id).await {
                Ok(Some(until)) => break (RecycleBin::In, until),
                // It may take a moment to get there.
                Ok(None) if record.undo.is_some() && patience.pause().await => {}
                Ok(None) => break (RecycleBin::Absent, None),
                Err(error) => {
                    let why = "whether the image is in the Recycle Bin is not known";
                    record.error = Some(format!("{why}: {error}"));
                    break (RecycleBin::Unknown, None);
                }
            }
        };
        record.recycle_bin = Some(state);
        record.recoverable_until = until;
        // The alert promised a way back.
        if state == RecycleBin::Absent
            && record.undo.take().is_some()
            && let Err(silence) = self.publish(record).await
        {
            tracing::error!("nobody could be told that there is no way back: {silence}");
        }
    }

    /// Leaves the image where it is: takes back the mark that this event left on it before things
    /// changed, and tells people what the policy wants told. A discard that is only held keeps its
    /// mark: whoever deregisters the image by hand then finds it in the Recycle Bin.
    pub(crate) async fn leave(
        &self,
        registration: &Registration,
        assessment: Assessment,
    ) -> Result<Record, Error> {
        if let Observation::Available(image) = &assessment.observation
            && self.config.mode == Mode::Enforce
            && assessment.plan.action != Action::Hold
            && is_marked(image)
            && image.tags.get(RECORD_TAG) == Some(&registration.event_id)
        {
            let marks = marks(registration, &assessment, WITHDRAWN_VALUE);
            // A mark alone discards nothing: not to get rid of it is no reason not to tell.
            if let Err(error) = self.aws.tag_image(&self.name(registration), &marks).await {
                tracing::warn!("the mark on {} stays: {error}", registration.image_id);
            }
        }
        let tell = assessment.plan.tell;
        self.tell(assessment.record(registration), tell).await
    }

    /// Completes a record: tells people, if they are to be told, and closes it.
    async fn tell(&self, record: Record, tell: bool) -> Result<Record, Error> {
        if tell && let Err(silence) = self.publish(&record).await {
            return Err(self.close_with(record, silence));
        }
        Ok(self.close(record))
    }

    /// Closes the record of an event that must come again.
    fn close_with(&self, mut record: Record, error: Error) -> Error {
        record.error = Some(error.to_string());
        self.close(record);
        error
    }

    fn name<'a>(&'a self, registration: &'a Registration) -> ImageName<'a> {
        ImageName::new(registration, &self.config.alert_topic)
    }
}

fn is_marked(image: &Image) -> bool {
    image.tags.get(DISCARD_TAG).map(String::as_str) == Some(DISCARD_VALUE)
}

/// The tags that mark an image for its discard, or take the mark back.
fn marks<'a>(
    registration: &Registration,
    assessment: &Assessment,
    discard: &str,
) -> [(&'a str, String); 4] {
    let verdict = assessment.judgement.verdict;
    let verdict = match verdict.kind() {
        Some(kind) => format!("{}/{}", verdict.name(), kind.name()),
        None => verdict.name().to_owned(),
    };
    let should_be = match assessment.expectation.platforms() {
        Some(platforms) => platforms.to_string().chars().take(TAG_VALUE).collect(),
        None => "unknown".to_owned(),
    };
    [
        (DISCARD_TAG, discard.to_owned()),
        (VERDICT_TAG, verdict),
        (SHOULD_BE_TAG, should_be),
        (RECORD_TAG, registration.event_id.clone()),
    ]
}
