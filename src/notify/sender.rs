//! The notifier, which sends a message to the alert topic and also to chat applications.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::Instrument;

use super::message::Message;
use crate::aws::Aws;
use crate::config::Config;
use crate::error::Error;
use crate::invocation::{Deadline, answer_by};

/// How long an invocation that is otherwise over waits for chat messages, if there is time. And how much of the time
/// that is reserved for the answer this may use.
const CHAT: Duration = Duration::from_secs(3);
const CHAT_RESERVE: Duration = Duration::from_secs(1);

/// Sends messages to the alert topic and the chat topic.
#[derive(Debug)]
pub(crate) struct Notifier {
    aws: Aws,
    /// ARN of the topic for every message.
    alert_topic: Option<String>,
    /// ARN of the topic to which chat applications subscribe, if there is one.
    chat_topic: Option<String>,
    /// Messages that are being sent to chat applications.
    chats: Mutex<JoinSet<()>>,
    chat_turn: Arc<tokio::sync::Mutex<()>>,
}

impl Notifier {
    /// A notifier for the topics of this configuration.
    pub(crate) fn new(config: &Config, aws: Aws) -> Notifier {
        Notifier {
            aws,
            alert_topic: config.alert_topic.clone(),
            chat_topic: config.chat_topic.clone(),
            chats: Mutex::default(),
            chat_turn: Arc::default(),
        }
    }

    /// Publishes a message to the alert topic. If that succeeds, also publishes it to the chat topic, if there is one.
    /// Chat is a convenience, so only the end of the invocation waits for it, and its failure is only logged.
    ///
    /// # Errors
    /// As [`Notifier::publish`].
    pub(crate) async fn send(&self, message: &Message) -> Result<(), Error> {
        self.publish(message).await?;
        if let Some(topic) = self.chat_topic.clone() {
            let (aws, message) = (self.aws.clone(), message.clone());
            let turn = Arc::clone(&self.chat_turn);
            let sending = async move {
                // In sequence, so that the chat shows what was done below what was announced.
                let _turn = turn.lock().await;
                if let Err(error) = to_chat(&aws, &topic, &message).await {
                    tracing::error!(error_type = "Chat", "chat was not told: {error}");
                }
            };
            self.chats().spawn(sending.in_current_span());
        }
        Ok(())
    }

    /// Publishes a message to the alert topic.
    ///
    /// # Errors
    /// [`Error`] if no one may have received the message. [`Error::NotPossible`] if there is no topic.
    pub(crate) async fn publish(&self, message: &Message) -> Result<(), Error> {
        let Some(topic) = &self.alert_topic else {
            return Err(Error::NotPossible {
                resource: "the alert".into(),
                code: "NoTopic",
                message: "no topic is named, and so there is nobody to tell".into(),
            });
        };
        let Message {
            subject,
            bodies,
            attributes,
            ..
        } = message;
        // Boxed because the SDK's futures are large.
        Box::pin(self.aws.publish(topic, subject, bodies, attributes)).await
    }

    /// Publishes a message to the chat topic, and waits for that. `None` if there is no chat topic.
    pub(crate) async fn publish_to_chat(&self, message: &Message) -> Option<Result<(), Error>> {
        let topic = self.chat_topic.as_deref()?;
        Some(to_chat(&self.aws, topic, message).await)
    }

    /// Waits until the messages to chat are sent. Waits a few seconds at most, and no longer than there is time.
    pub(crate) async fn finish(&self, deadline: Deadline) {
        let mut chats = std::mem::take(&mut *self.chats());
        let until = (Instant::now() + CHAT).min(answer_by(deadline) + CHAT_RESERVE);
        let all = async { while chats.join_next().await.is_some() {} };
        if tokio::time::timeout_at(until, all).await.is_err() {
            tracing::error!(error_type = "Chat", "chat was not told: no time was left");
        }
    }

    /// Locks the messages that are being sent. Ignoring poisoning is safe, because a panic elsewhere leaves the set
    /// consistent.
    fn chats(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.chats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn to_chat(aws: &Aws, topic: &str, message: &Message) -> Result<(), Error> {
    aws.publish_to_chat(topic, &message.chat, &message.attributes)
        .await
}
