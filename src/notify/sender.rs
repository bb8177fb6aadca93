//! The notifier: sends a message to the alert topic, and to chat applications beside it.

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

/// For so long an invocation that is otherwise over waits for chat, if there is time; it may take so much of what is
/// kept back for the answer.
const CHAT: Duration = Duration::from_secs(3);
const CHAT_RESERVE: Duration = Duration::from_secs(1);

/// Sends messages.
#[derive(Debug)]
pub(crate) struct Notifier {
    aws: Aws,
    /// The ARN of the topic that every message goes to.
    alert_topic: Option<String>,
    /// The ARN of the topic that chat applications listen to, if there is one.
    chat_topic: Option<String>,
    /// Messages that are on their way to chat applications.
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

    /// Publishes a message, and once the alert topic took it, to chat applications as well, if there is a topic for
    /// them. Chat is a convenience: nothing waits for it but the end of the invocation.
    ///
    /// # Errors
    /// As [`Notifier::publish`].
    pub(crate) async fn send(&self, message: &Message) -> Result<(), Error> {
        self.publish(message).await?;
        if let Some(topic) = self.chat_topic.clone() {
            let (aws, message) = (self.aws.clone(), message.clone());
            let turn = Arc::clone(&self.chat_turn);
            let sending = async move {
                // One after the other: what was done stands below what was announced.
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
    /// [`Error`]: then nobody may have been told. [`Error::NotPossible`] if there is no topic.
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
        // Boxed: the SDK's futures are large.
        Box::pin(self.aws.publish(topic, subject, bodies, attributes)).await
    }

    /// Publishes a message to chat applications and waits for that. `None` if there is no topic for them.
    pub(crate) async fn publish_to_chat(&self, message: &Message) -> Option<Result<(), Error>> {
        let topic = self.chat_topic.as_deref()?;
        Some(to_chat(&self.aws, topic, message).await)
    }

    /// Waits until chat has been told, a little while, and no longer than there is time.
    pub(crate) async fn finish(&self, deadline: Deadline) {
        let mut chats = std::mem::take(&mut *self.chats());
        let until = (Instant::now() + CHAT).min(answer_by(deadline) + CHAT_RESERVE);
        let all = async { while chats.join_next().await.is_some() {} };
        if tokio::time::timeout_at(until, all).await.is_err() {
            tracing::error!(error_type = "Chat", "chat was not told: no time was left");
        }
    }

    /// A panic elsewhere leaves nothing half done here.
    fn chats(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.chats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn to_chat(aws: &Aws, topic: &str, message: &Message) -> Result<(), Error> {
    aws.publish_to_chat(topic, &message.chat, &message.attributes)
        .await
}
