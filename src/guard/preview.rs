//! Previews what the guard would do. Changes nothing and sends no alert.

use std::time::Duration;

use serde_json::Value;

use crate::ec2::Observation;
use crate::error::Error;
use crate::event::{self, Incoming, RegisteredBy, Registration};
use crate::guard::{Guard, RegistrationContext, evaluation};
use crate::ids::{AccountId, AmiId};
use crate::invocation::{Deadline, Delivery, RetryBudget};
use crate::record::Record;

/// Time limit for a preview, in addition to the time for which it waits for the image. It is many times what a preview
/// takes.
pub(super) const REHEARSAL: Duration = Duration::from_secs(300);

impl Guard {
    /// Record of what the guard would do about an image of this account now. `wait` is how long to wait until EC2 shows
    /// the image. Changes nothing and sends no alert.
    ///
    /// # Errors
    /// [`Error::NotVisibleYet`] if EC2 does not show the image within `wait`. Another [`Error`] if EC2 does not answer.
    pub async fn consider(
        &self,
        image: &AmiId,
        account: &AccountId,
        wait: Duration,
    ) -> Result<Record, Error> {
        let region = self.aws.region().unwrap_or_default();
        let (id, account) = (image.clone(), account.clone());
        let registration = Registration::without_event(id, account, region, "check", self.now());
        reconsider(self, &registration, wait).await
    }

    /// Record of what the guard would do about an event now. Like [`Guard::consider`], changes nothing and sends no
    /// alert.
    ///
    /// # Errors
    /// [`Error`] if the event is malformed, or if its image could not be seen within `GUARD_WAIT_SECONDS`.
    pub async fn rehearse(&self, event: Value) -> Result<Record, Error> {
        match event::parse(event, &self.config.scope)? {
            Incoming::Registration(registration) => {
                reconsider(self, &registration, self.config.wait).await
            }
            Incoming::Ignored(ignored) => Ok(Record::ignored(ignored)),
            Incoming::Digest(digest) => Ok(Record::of_digest(digest, 0)),
            Incoming::Audit(audit) => Ok(Record::of_audit(audit, "nothing is reported")),
        }
    }
}

pub(crate) async fn reconsider(
    guard: &Guard,
    registration: &Registration,
    wait: Duration,
) -> Result<Record, Error> {
    let delivery = Delivery::from(Deadline::now() + wait + REHEARSAL);
    let mut budget = RetryBudget::new(wait, delivery.deadline);
    let observation = evaluation::observe(guard, registration, &mut budget).await?;
    Ok(judged(guard, registration, observation, &delivery).await)
}

/// Record of what the guard would do about an image that looks like this.
pub(super) async fn judged(
    guard: &Guard,
    registration: &Registration,
    observation: Observation,
    delivery: &Delivery,
) -> Record {
    let mut registration = registration.clone();
    if let (RegisteredBy::Unknown, Observation::Available(image)) =
        (&registration.registered_by, &observation)
        && let Some(created) = image.created
    {
        registration.time = created;
    }
    let assessment = guard
        .collector()
        .assess(&registration, observation, None)
        .await;
    let context = RegistrationContext {
        registration: &registration,
        delivery,
        lease: guard.ledger.look(&registration).await,
    };
    let planned = Box::pin(evaluation::plan(guard, &context, assessment, None)).await;
    planned.record(&registration)
}
