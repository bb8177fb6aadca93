//! SNS calls: counting a topic's subscriptions, and publishing.

use std::sync::atomic::Ordering;

use aws_sdk_sns::operation::publish::builders::PublishFluentBuilder;
use aws_sdk_sns::types::MessageAttributeValue;

use super::connect::Aws;
use super::convert::non_empty;
use super::errors::{classify, lacking};
use crate::error::Error;

impl Aws {
    /// GetTopicAttributes: the number of a topic's confirmed subscriptions.
    ///
    /// # Errors
    /// [`Error`] if there is no answer.
    pub async fn confirmed_subscriptions(&self, topic: &str) -> Result<u64, Error> {
        let call = "sns:GetTopicAttributes";
        let answer = self
            .sns
            .get_topic_attributes()
            .topic_arn(topic)
            .send()
            .await
            .map_err(|error| classify(call, topic, &error))?;
        let attributes = answer.attributes.unwrap_or_default();
        let confirmed = attributes.get("SubscriptionsConfirmed");
        confirmed
            .and_then(|number| number.parse().ok())
            .ok_or_else(|| Error::Unavailable {
                call,
                resource: topic.to_owned(),
                message: "the answer does not say how many subscriptions are confirmed".into(),
            })
    }

    /// Publish: sends an alert with this subject. `bodies` is SNS's JSON with a body for each protocol.
    ///
    /// # Errors
    /// [`Error`] if SNS does not confirm the alert. Possibly no subscriber receives it.
    pub(crate) async fn publish(
        &self,
        topic: &str,
        subject: &str,
        bodies: &str,
        attributes: &[(&'static str, String)],
    ) -> Result<(), Error> {
        let alert = self.publication(topic, attributes);
        let alert = alert
            .subject(subject)
            .message_structure("json")
            .message(bodies);
        let answer = alert.send().await;
        let answer = answer.map_err(|error| classify("sns:Publish", topic, &error))?;
        // Only a message id confirms that SNS accepted the alert.
        if non_empty(answer.message_id).is_none() {
            return Err(lacking("sns:Publish", topic, "a message id"));
        }
        self.counters.alerts.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Publish: sends a notification to a topic to which chat applications subscribe.
    ///
    /// # Errors
    /// [`Error`] if SNS does not confirm the notification. Possibly no chat shows it.
    pub(crate) async fn publish_to_chat(
        &self,
        topic: &str,
        notification: &str,
        attributes: &[(&'static str, String)],
    ) -> Result<(), Error> {
        let notification = self.publication(topic, attributes).message(notification);
        let answer = notification.send().await;
        answer.map_err(|error| classify("sns:Publish", topic, &error))?;
        Ok(())
    }

    /// The request that both share: the topic, and the attributes that subscriptions can filter by.
    fn publication(
        &self,
        topic: &str,
        attributes: &[(&'static str, String)],
    ) -> PublishFluentBuilder {
        let attributes = attributes.iter().filter_map(|(name, value)| {
            let value = MessageAttributeValue::builder()
                .data_type("String")
                .string_value(value)
                .build()
                // The builder fails only if a required field is missing, and both are set.
                .ok()?;
            Some(((*name).to_owned(), value))
        });
        self.sns
            .publish()
            .topic_arn(topic)
            .set_message_attributes(Some(attributes.collect()))
    }
}
