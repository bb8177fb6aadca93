//! The notifier, which sends a message to the alert topic, and copies of it to further channels.

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

/// How long an invocation that is otherwise over waits for copies, if there is time. And how much of the time that is
/// reserved for the answer this may use.
const COPIES: Duration = Duration::from_secs(3);
const COPIES_RESERVE: Duration = Duration::from_secs(1);

/// A channel that receives a copy of every message, besides the alert topic.
#[derive(Clone, Debug)]
enum Channel {
    /// Chat applications. Has the ARN of the topic to which they subscribe.
    Chat(String),
}

impl Channel {
    /// The channels of this configuration.
    fn all(config: &Config) -> Vec<Channel> {
        let chat = config.chat_topic.clone().map(Channel::Chat);
        chat.into_iter().collect()
    }

    /// Name of the channel in self-tests.
    fn name(&self) -> &'static str {
        match self {
            Channel::Chat(_) => "chat",
        }
    }

    /// Sends a copy of a message.
    async fn send(&self, aws: &Aws, message: &Message) -> Result<(), Error> {
        match self {
            Channel::Chat(topic) => {
                aws.publish_to_chat(topic, &message.chat, &message.attributes)
                    .await
            }
        }
    }

    /// Logs that the channel does not have a message.
    fn log_failure(&self, why: &str) {
        match self {
            Channel::Chat(_) => {
                tracing::error!(
                    error_type = "Chat",
                    "the alert did not reach the chat: {why}"
                );
            }
        }
    }
}

/// Copies of messages that are being sent to one channel.
#[derive(Debug)]
struct Copies {
    channel: Channel,
    pending: Mutex<JoinSet<()>>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Copies {
    /// Begins to send a copy.
    fn begin(&self, aws: &Aws, message: &Message) {
        let (channel, aws, message) = (self.channel.clone(), aws.clone(), message.clone());
        let turn = Arc::clone(&self.turn);
        let sending = async move {
            // In sequence, so that the channel shows what was done below what was announced.
            let _turn = turn.lock().await;
            if let Err(error) = channel.send(&aws, &message).await {
                channel.log_failure(&error.to_string());
            }
        };
        self.pending().spawn(sending.in_current_span());
    }

    /// Waits until all copies are sent, but not beyond `until`.
    async fn finish(&self, until: Instant) {
        let mut pending = std::mem::take(&mut *self.pending());
        let all = async { while pending.join_next().await.is_some() {} };
        if tokio::time::timeout_at(until, all).await.is_err() {
            self.channel.log_failure("no time was left");
        }
    }

    /// Locks the copies that are being sent. Ignoring poisoning is safe, because a panic elsewhere leaves the set
    /// consistent.
    fn pending(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends messages to the alert topic and the other channels.
#[derive(Debug)]
pub(crate) struct Notifier {
    aws: Aws,
    /// ARN of the topic for every message.
    alert_topic: Option<String>,
    copies: Vec<Copies>,
}

impl Notifier {
    /// A notifier for the topics of this configuration.
    pub(crate) fn new(config: &Config, aws: Aws) -> Notifier {
        let copies = Channel::all(config).into_iter().map(|channel| Copies {
            channel,
            pending: Mutex::default(),
            turn: Arc::default(),
        });
        Notifier {
            aws,
            alert_topic: config.alert_topic.clone(),
            copies: copies.collect(),
        }
    }

    /// Publishes a message to the alert topic. If that succeeds, also sends copies to the other channels. These are a
    /// convenience, so only the end of the invocation waits for them, and their failures are only logged.
    ///
    /// # Errors
    /// As [`Notifier::publish`].
    pub(crate) async fn send(&self, message: &Message) -> Result<(), Error> {
        self.publish(message).await?;
        self.copies
            .iter()
            .for_each(|copies| copies.begin(&self.aws, message));
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

    /// Sends a message to each of the other channels, and waits for that. Returns the results by the channels' names.
    pub(crate) async fn send_copies(
        &self,
        message: &Message,
    ) -> Vec<(&'static str, Result<(), Error>)> {
        let mut results = Vec::new();
        for Copies { channel, .. } in &self.copies {
            results.push((channel.name(), channel.send(&self.aws, message).await));
        }
        results
    }

    /// Waits until the copies are sent. Waits a few seconds at most, and no longer than there is time.
    pub(crate) async fn finish(&self, deadline: Deadline) {
        let until = (Instant::now() + COPIES).min(answer_by(deadline) + COPIES_RESERVE);
        for copies in &self.copies {
            copies.finish(until).await;
        }
    }
}
