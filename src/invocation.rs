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

/// Pauses between attempts. Each is twice as long as the one before, up to the longest one, with jitter.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    /// Pauses from the first to the longest one, before jitter. The jitter shortens a pause by up to half.
    pub(crate) fn new(first: Duration, longest: Duration) -> Backoff {
        Backoff {
            next: first,
            longest,
        }
    }

    /// Sleeps for the next pause.
    pub(crate) async fn pause(&mut self) {
        self.pause_within(Duration::MAX).await;
    }

    /// Sleeps for the next pause. Returns `false` at once if the pause would end after `until`.
    pub(crate) async fn pause_until(&mut self, until: Instant) -> bool {
        let left = until.saturating_duration_since(Instant::now());
        self.pause_within(left).await.is_some()
    }

    /// Sleeps for the next pause, and returns its length. Returns `None` at once if it is longer than `left`.
    async fn pause_within(&mut self, left: Duration) -> Option<Duration> {
        // Random, so that many images do not make their calls in step.
        let pause = self.next.mul_f64(0.5 + fastrand::f64() / 2.0);
        if pause > left {
            return None;
        }
        tokio::time::sleep(pause).await;
        self.next = (self.next * 2).min(self.longest);
        Some(pause)
    }
}

/// Retry budget of one event while AWS does not show the current state yet. It is `GUARD_WAIT_SECONDS` of pauses in
/// total.
pub(crate) struct RetryBudget {
    left: Duration,
    backoff: Backoff,
    /// When the invocation ends.
    pub(crate) deadline: Deadline,
}

impl RetryBudget {
    pub(crate) fn new(left: Duration, deadline: Deadline) -> RetryBudget {
        RetryBudget {
            left,
            backoff: Backoff::new(Duration::from_millis(200), Duration::from_secs(2)),
            deadline,
        }
    }

    /// Sleeps for the next pause. Returns `false` at once if the budget does not allow another look.
    pub(crate) async fn pause(&mut self) -> bool {
        let Some(pause) = self.backoff.pause_within(self.left).await else {
            return false;
        };
        self.left -= pause;
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
