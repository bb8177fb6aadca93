//! Calls to the event queue that the guard itself makes.

use super::connect::Aws;
use super::errors::classify;
use crate::error::Error;

impl Aws {
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
