//! The discard itself, in an order in which a crash after any step loses nothing and a retry
//! completes it: tag and read back, alert, deregister or disable, look again, record.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::aws::{Described, ImageName};
use crate::discard::{
    Action, DISCARD_TAG, DISCARD_VALUE, Interlock, Plan, RECORD_TAG, SHOULD_BE_TAG, VERDICT_TAG,
    WITHDRAWN_VALUE,
};
use crate::error::Error;
use crate::event::Registration;
use crate::guard::{Assessment, Deadline, Guard, not_visible};
use crate::observation::Observation;
use crate::record::{LookedAgain, Outcome, Record, RecycleBin};

/// What a discard may take at the worst, from tag to last look: with less time left it is not begun.
const LONGEST: Duration = Duration::from_secs(15);

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
        deadline: Deadline,
    ) -> Result<Record, Error> {
        let id = &registration.image_id;
        if Instant::now() + LONGEST > deadline {
            return Err(Error::OutOfTime {
                image: id.to_string(),
                doing: "the discard was not begun".into(),
            });
        }
        let image = ImageName::new(registration, &self.config.alert_topic);

        match self
            .aws
            .tag_image(&image, &marks(registration, &assessment))
            .await
        {
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

        // Read back: the mark must be there, and everything else as it was, whatever people did
        // meanwhile.
        let assessment = self.marked(registration, deadline).await?;
        if !assessment.plan.action.is_discard() {
            return self.withdraw(registration, &image, assessment).await;
        }
        let mut record = assessment.record(registration);
        record.undo = Some(undo(record.action, &image));
        record.outcome = Some(Outcome::Planned);
        self.publish(&record).await?;

        let answer = self.take_away(record.action, &image, deadline).await;
        if let Err(error @ (Error::Refused { .. } | Error::AccessDenied { .. })) = answer {
            return self.not_discarded(record, error).await;
        }
        let look = self.look_again(registration).await;
        // Where the answer was lost, the deed was not necessarily: then the look decides.
        if let Err(error) = answer
            && look != LookedAgain::Gone
        {
            return self.not_discarded(record, error).await;
        }
        record.outcome = Some(Outcome::Done);
        record.looked_again = Some(look);
        if record.action == Action::Deregister {
            self.look_into_recycle_bin(registration, &mut record, deadline)
                .await;
        }
        Ok(record)
    }

    /// Assesses the image again, when the mark can be read on it.
    async fn marked(
        &self,
        registration: &Registration,
        deadline: Deadline,
    ) -> Result<Assessment, Error> {
        let mut patience = self.patience(deadline);
        loop {
            let assessment = self.assess(registration, deadline).await?;
            let Observation::Available(image) = &assessment.observation else {
                return Ok(assessment);
            };
            if image.tags.get(DISCARD_TAG).map(String::as_str) == Some(DISCARD_VALUE) {
                return Ok(assessment);
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
        self.publish(&record).await?;
        Ok(record)
    }

    /// Something changed between judgement and act, and the image is not to be discarded any more:
    /// takes the mark back and goes on with what is true now.
    async fn withdraw(
        &self,
        registration: &Registration,
        image: &ImageName<'_>,
        assessment: Assessment,
    ) -> Result<Record, Error> {
        if let Observation::Available(_) = assessment.observation {
            let verdict = assessment.judgement.verdict.name().to_owned();
            let tags = [
                (DISCARD_TAG, WITHDRAWN_VALUE.to_owned()),
                (VERDICT_TAG, verdict),
            ];
            self.aws.tag_image(image, &tags).await?;
        }
        self.tell(registration, assessment).await
    }

    /// Deregisters or disables the image. IAM allows that by the tag that was written a moment ago,
    /// and whether IAM sees it at once nobody promises: a denial is asked again for a while.
    async fn take_away(
        &self,
        action: Action,
        image: &ImageName<'_>,
        deadline: Deadline,
    ) -> Result<(), Error> {
        let mut patience = self.patience(deadline);
        loop {
            let answer = match action {
                Action::Disable => self.aws.disable_image(image).await,
                _ => self.aws.deregister_image(image).await,
            };
            match answer {
                Err(Error::AccessDenied { .. }) if patience.pause().await => {}
                answer => return answer,
            }
        }
    }

    async fn look_again(&self, registration: &Registration) -> LookedAgain {
        match self.aws.describe_image(&registration.image_id).await {
            Ok(Described::Gone(_) | Described::NoImage | Described::NotFound) => LookedAgain::Gone,
            Ok(_) => LookedAgain::StillListed,
            Err(_) => LookedAgain::Unknown,
        }
    }

    /// EC2 said no, or nothing: a second alert says so. What may pass is an error, to be tried again.
    async fn not_discarded(&self, mut record: Record, error: Error) -> Result<Record, Error> {
        let passing = matches!(error, Error::Unavailable { .. });
        record.outcome = Some(if passing {
            Outcome::Failed
        } else {
            Outcome::Refused
        });
        record.error = Some(error.to_string());
        record.undo = None;
        self.publish(&record).await?;
        if passing {
            self.close(record);
            return Err(error);
        }
        Ok(record)
    }

    /// Whether the image can be restored, and until when. A look that fails is not a failed
    /// discard: the record then says that it is not known.
    async fn look_into_recycle_bin(
        &self,
        registration: &Registration,
        record: &mut Record,
        deadline: Deadline,
    ) {
        let mut patience = self.patience(deadline);
        let (state, until): (_, Option<DateTime<Utc>>) = loop {
            match self.aws.recycle_bin(&registration.image_id).await {
                Ok(Some(until)) => break (RecycleBin::In, until),
                Ok(None) if patience.pause().await => {}
                Ok(None) => break (RecycleBin::Absent, None),
                Err(error) => {
                    record.error = Some(format!(
                        "whether the image is in the Recycle Bin is not known: {error}"
                    ));
                    break (RecycleBin::Unknown, None);
                }
            }
        };
        record.recycle_bin = Some(state);
        record.recoverable_until = until;
        if state == RecycleBin::Absent {
            record.undo = None;
        }
    }
}

/// The tags that mark an image for its discard.
fn marks<'a>(registration: &Registration, assessment: &Assessment) -> [(&'a str, String); 4] {
    let verdict = assessment.judgement.verdict;
    let kind = verdict.kind().map_or("", |kind| kind.name());
    let should_be = match assessment.expectation.platforms() {
        Some(platforms) => platforms.to_string().chars().take(TAG_VALUE).collect(),
        None => "unknown".to_owned(),
    };
    [
        (DISCARD_TAG, DISCARD_VALUE.to_owned()),
        (VERDICT_TAG, format!("{}/{kind}", verdict.name())),
        (SHOULD_BE_TAG, should_be),
        (RECORD_TAG, registration.event_id.clone()),
    ]
}

fn undo(action: Action, image: &ImageName<'_>) -> String {
    let command = match action {
        Action::Disable => "enable-image",
        _ => "restore-image-from-recycle-bin",
    };
    format!(
        "aws ec2 {command} --image-id {} --region {}",
        image.id, image.region
    )
}
