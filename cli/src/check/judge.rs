//! Judges one AMI, and waits until EC2 shows it.

use std::time::Duration;

use ami_billing_guard::Error;
use ami_billing_guard::ids::AmiId;
use ami_billing_guard::record::Record;

use crate::account::Session;
use crate::outcome::Outcome;
use crate::show::{note, tell};

/// Why an AMI could not be judged.
pub(super) struct Unjudged {
    /// Stable name of the kind of error.
    pub(super) error_type: &'static str,
    /// The message for people.
    pub(super) why: String,
}

/// The record of an AMI in its present state. Waits until EC2 shows the AMI, and says so.
pub(super) async fn judge(
    session: &Session,
    image: &AmiId,
    wait: Duration,
) -> Result<Record, Unjudged> {
    let region = session.aws.region().unwrap_or_default();
    let look = |wait| session.guard.consider(image, &session.account, wait);
    let mut judged = look(Duration::ZERO).await;
    if let Err(Error::NotVisibleYet { why, .. }) = &judged
        && !wait.is_zero()
    {
        let seconds = wait.as_secs();
        note(&format!(
            "waiting for {image} in {region}, for at most {seconds} s: {why}"
        ));
        judged = look(wait).await;
    }
    judged.map_err(|error| Unjudged {
        error_type: error.error_type(),
        why: match error {
            // The error's own text is about an event that is delivered again, so it does not fit here.
            Error::NotVisibleYet { image, why } => {
                format!("{image} is not visible in {region}: {why}")
            }
            error => format!("{image} in {region} could not be judged: {error}"),
        },
    })
}

/// The record of an AMI in its present state. Without a record, reports the reason and returns the outcome.
pub(crate) async fn consider(session: &Session, image: &AmiId) -> Result<Record, Outcome> {
    let judged = judge(session, image, Duration::ZERO).await;
    judged.map_err(|unjudged| tell(&unjudged.why, Outcome::Unknown))
}
