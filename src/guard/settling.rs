//! The wait for an image that is too young to be judged. Until then, the queue hides its message.
//!
//! A queue delays a message for at most 900 seconds. Then it returns the message after each of its own visibility
//! timeouts, and each return uses up one receive. The guard sets the visibility timeout of the single message instead.
//! The rest of the wait then takes one receive, however long it is (SQS API reference, "CreateQueue",
//! "ChangeMessageVisibility").

use tokio::time::timeout_at;

use crate::error::Error;
use crate::guard::Guard;
use crate::invocation::{Delivery, answer_by};

/// Hides the message of an image that has not settled until it has. Does nothing for any other error, for an event that
/// came without a message, or without `GUARD_QUEUE_URL`.
///
/// A failure is only logged. The message then returns after the queue's own visibility timeout.
pub(crate) async fn hide_until_settled(guard: &Guard, error: &Error, delivery: &Delivery) {
    let Error::NotSettled {
        image,
        age_seconds,
        settle_seconds,
    } = error
    else {
        return;
    };
    let (Some(queue), Some(receipt)) = (&guard.config.queue_url, &delivery.receipt_handle) else {
        return;
    };
    let seconds = seconds_until_settled(*age_seconds, *settle_seconds);
    // Boxed because the SDK's futures are large.
    let hiding = Box::pin(guard.aws.hide_message(queue, receipt, seconds));
    let why = match timeout_at(answer_by(delivery.deadline), hiding).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no time was left".into(),
    };
    tracing::warn!(
        "could not hide the message of {image} for {seconds} s, so it returns sooner: {why}"
    );
}

/// How long to hide the message of an image, in seconds. `age` and `settle` are in seconds too. The result is one
/// second more than is left, because the age is rounded down and clocks differ. A message that returned too early would
/// use up another receive.
///
/// An image with a creation time in the future is hidden for the whole settle time and this second.
fn seconds_until_settled(age: i64, settle: u64) -> u32 {
    let settle = i64::try_from(settle).unwrap_or(i64::MAX);
    let left = settle.saturating_sub(age).clamp(0, settle);
    u32::try_from(left).unwrap_or(u32::MAX).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_hidden_for_what_is_left_and_a_second() {
        for (age, settle, seconds) in [
            (900, 7200, 6301),
            (0, 300, 301),
            (299, 300, 2),
            // Such an age hardly occurs with this settle time, but SQS must accept any result.
            (300, 300, 1),
            (301, 300, 1),
            (-5, 300, 301),
            (i64::MIN, 7200, 7201),
        ] {
            assert_eq!(
                seconds_until_settled(age, settle),
                seconds,
                "{age} of {settle}"
            );
        }
    }
}
