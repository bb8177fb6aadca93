//! An invocation of the function: how its event was delivered, and how much time there is.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::Error;

/// Time kept back from an invocation, so that the answer still reaches Lambda.
const RESERVE: Duration = Duration::from_secs(2);

/// When an invocation must have answered.
pub type Deadline = Instant;

/// How an event was delivered, according to Lambda and SQS.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Lambda's id of the invocation, if there is one.
    pub request_id: Option<String>,
    /// SQS's id of the message, if the event came in one.
    pub message_id: Option<String>,
    /// SQS's handle of this receive of the message, with which its visibility can be changed.
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

/// Does the work of a delivery. Returns `late` if the work does not end in time to answer.
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

/// Retry budget of one event while AWS does not show the current state yet. It is `GUARD_WAIT_SECONDS` in total, in
/// pauses that double, with jitter.
pub(crate) struct RetryBudget {
    left: Duration,
    next: Duration,
    /// When the invocation ends.
    pub(crate) deadline: Deadline,
}

impl RetryBudget {
    pub(crate) fn new(left: Duration, deadline: Deadline) -> RetryBudget {
        RetryBudget {
            left,
            next: Duration::from_millis(200),
            deadline,
        }
    }

    /// Sleeps for the next pause. Returns `false` at once if the budget does not allow another look.
    pub(crate) async fn pause(&mut self) -> bool {
        // Half of the pause is random, so that many images do not make their calls in step.
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
