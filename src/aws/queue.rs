//! Calls to queues that the guard or its command line makes. Lambda makes the others.

use aws_sdk_sqs::types::QueueAttributeName;

use super::connect::Aws;
use super::errors::{classify, lacking};
use crate::error::Error;

/// Number of messages in a queue. SQS counts approximately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueDepth {
    /// Messages that can be received now.
    pub waiting: u64,
    /// Messages that were received and are hidden until they are deleted or return.
    pub in_flight: u64,
    /// Messages that are delayed and cannot be received yet.
    pub delayed: u64,
}

impl Aws {
    /// GetQueueUrl and GetQueueAttributes: the number of messages in the queue of this name.
    ///
    /// # Errors
    /// [`Error`] if there is no answer, or the answer lacks a number.
    pub async fn queue_depth(&self, name: &str) -> Result<QueueDepth, Error> {
        use QueueAttributeName::{
            ApproximateNumberOfMessages as Waiting, ApproximateNumberOfMessagesDelayed as Delayed,
            ApproximateNumberOfMessagesNotVisible as InFlight,
        };
        let call = "sqs:GetQueueUrl";
        let answer = self.sqs.get_queue_url().queue_name(name).send().await;
        let answer = answer.map_err(|error| classify(call, name, &error))?;
        let url = answer
            .queue_url
            .ok_or_else(|| lacking(call, name, "the URL"))?;
        let call = "sqs:GetQueueAttributes";
        let request = self.sqs.get_queue_attributes().queue_url(url);
        let answer = request
            .attribute_names(Waiting)
            .attribute_names(InFlight)
            .attribute_names(Delayed)
            .send()
            .await
            .map_err(|error| classify(call, name, &error))?;
        let attributes = answer.attributes.unwrap_or_default();
        let number = |of: QueueAttributeName| {
            let number = attributes.get(&of).and_then(|number| number.parse().ok());
            number.ok_or_else(|| lacking(call, name, of.as_str()))
        };
        Ok(QueueDepth {
            waiting: number(Waiting)?,
            in_flight: number(InFlight)?,
            delayed: number(Delayed)?,
        })
    }

    /// ChangeMessageVisibility: hides a received message for this many seconds from now on (SQS API reference: 0 to
    /// 43200).
    ///
    /// # Errors
    /// [`Error`] if there is no answer. The message then returns after the queue's own visibility timeout, or after
    /// these seconds.
    pub(crate) async fn hide_message(
        &self,
        queue_url: &str,
        receipt_handle: &str,
        seconds: u32,
    ) -> Result<(), Error> {
        let request = self.sqs.change_message_visibility();
        let request = request.queue_url(queue_url).receipt_handle(receipt_handle);
        // It is at most 43200, so the conversion does not fail.
        let seconds = i32::try_from(seconds).unwrap_or(i32::MAX);
        let answer = request.visibility_timeout(seconds).send().await;
        answer.map_err(|error| classify("sqs:ChangeMessageVisibility", queue_url, &error))?;
        Ok(())
    }
}
