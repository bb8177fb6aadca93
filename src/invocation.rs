//! One invocation of the function: how an event came, and how much time there is.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::Error;

/// What is kept back of an invocation's time, so that the answer still reaches Lambda.
const RESERVE: Duration = Duration::from_secs(2);

/// When an invocation must have answered.
pub type Deadline = Instant;

/// How an event came: what Lambda, and SQS, say of it.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Lambda's id of the invocation, if there is one.
    pub request_id: Option<String>,
    /// SQS's id of the message, if the event came in one.
    pub message_id: Option<String>,
    /// SQS's handle of this receive of the message, by which its visibility can be changed.
    pub receipt_handle: Option<String>,
    /// When the invocation must have answered.
    pub deadline: Deadline,
}

impl From<Deadline> for Delivery {
    fn from(deadline: Deadline) -> Delivery {
        Delivery {
            request_id: None,
            message_id: None,
            receipt_handle: None,
            deadline,
        }
    }
}

/// Does what is left to be done in a delivery, or stops in time to answer.
pub(crate) async fn in_time<T>(
    delivery: &Delivery,
    work: impl Future<Output = Result<T, Error>>,
    late: Error,
) -> Result<T, Error> {
    match tokio::time::timeout_at(answer_by(delivery.deadline), work).await {
        Ok(result) => result,
        Err(_) => Err(late),
    }
}

/// How long one event may wait for AWS to show what is true: `GUARD_WAIT_SECONDS` in all, in pauses
/// that double, with jitter.
pub(crate) struct Patience {
    left: Duration,
    next: Duration,
    /// When the invocation ends.
    pub(crate) deadline: Deadline,
}

impl Patience {
    pub(crate) fn new(left: Duration, deadline: Deadline) -> Patience {
        Patience {
            left,
            next: Duration::from_millis(200),
            deadline,
        }
    }

    /// Sleeps, and says whether another look is worth it.
    pub(crate) async fn pause(&mut self) -> bool {
        // Half of the pause is left to chance, so that many images at once do not ask in step.
        let pause = self.next.mul_f64(0.5 + fastrand::f64() / 2.0);
        let Some(left) = self.left.checked_sub(pause) else {
            return false;
        };
        tokio::time::sleep(pause).await;
        self.left = left;
        self.next = (self.next * 2).min(Duration::from_secs(2));
        true
    }

    /// When the answer must be ready to reach Lambda in time.
    pub(crate) fn answer_by(&self) -> Deadline {
        answer_by(self.deadline)
    }
}

pub(crate) fn answer_by(deadline: Deadline) -> Deadline {
    deadline.checked_sub(RESERVE).unwrap_or(deadline)
}
