//! The flow, from event to record.

use std::sync::Arc;
use std::time::Duration;

use aws_lambda_events::event::sqs::{BatchItemFailure, SqsBatchResponse, SqsMessage};
use chrono::{TimeDelta, Utc};
use serde::Serialize;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::Instrument;

use crate::alert::{self, Anew};
use crate::aws::{Aws, Described};
use crate::billing::Difference;
use crate::config::Config;
use crate::discard::{Circumstances, Plan, Surroundings, plan};
use crate::error::Error;
use crate::event::{self, AmiId, Incoming, Registration};
use crate::expectation::Expectation;
use crate::inquiry::Traces;
use crate::observation::Observation;
use crate::policy::Policy;
use crate::record::Record;
use crate::verdict::{Judgement, Verdict, judge};

/// From this age of an event on, an image that can not be found is gone, and before it, not visible
/// yet. EC2 shows a new image within 2.5 minutes (the longest that AWS Support advised to wait).
const OLD_EVENT: TimeDelta = TimeDelta::minutes(10);

/// What is kept back of an invocation's time, so that the answer still reaches Lambda.
const RESERVE: Duration = Duration::from_secs(2);

/// When an invocation must have answered.
pub type Deadline = Instant;

/// What Lambda gets back.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// Of a bare event: its record.
    Record(Box<Record>),
    /// Of a batch: the messages that are to come back.
    Batch(SqsBatchResponse),
}

/// The guard: what it was told, and what it works with.
pub struct Guard {
    pub(crate) config: Config,
    pub(crate) policy: Policy,
    pub(crate) aws: Aws,
    journal: Box<dyn Fn(&Record) + Send + Sync>,
}

/// What is found out about an image, and what follows from it.
pub(crate) struct Assessment {
    pub(crate) observation: Observation,
    pub(crate) expectation: Expectation,
    pub(crate) judgement: Judgement,
    pub(crate) plan: Plan,
    /// What is around the image, if a discard is due.
    pub(crate) surroundings: Option<Surroundings>,
    /// What was looked up for it.
    pub(crate) traces: Option<Traces>,
}

impl Guard {
    /// A guard. `journal` is given each record once, when it is complete, also that of an event that
    /// must come again.
    pub fn new(
        config: Config,
        policy: Policy,
        aws: Aws,
        journal: impl Fn(&Record) + Send + Sync + 'static,
    ) -> Guard {
        Guard {
            config,
            policy,
            aws,
            journal: Box::new(journal),
        }
    }

    /// Takes what Lambda hands over: an SQS batch of EventBridge events, or one bare event.
    /// A batch's answer names the messages that are to come back, a bare event's is its record.
    ///
    /// # Errors
    /// For a bare event [`Guard::process`]'s; for a batch only if it can not even be told which of
    /// its messages failed, so that all of them come back.
    pub async fn handle(
        self: &Arc<Self>,
        mut input: Value,
        deadline: Deadline,
    ) -> Result<Answer, Error> {
        match input.get_mut("Records").map(Value::take) {
            Some(messages) => Ok(Answer::Batch(self.batch(messages, deadline).await?)),
            None => Ok(Answer::Record(Box::new(
                self.process(input, deadline).await?,
            ))),
        }
    }

    /// Processes a batch's messages side by side, each by itself: what one does, a panic included,
    /// does not touch the others.
    async fn batch(
        self: &Arc<Self>,
        messages: Value,
        deadline: Deadline,
    ) -> Result<SqsBatchResponse, Error> {
        let Value::Array(messages) = messages else {
            return Err(Error::MalformedEvent("Records is not a list".into()));
        };
        let mut ids = Vec::new();
        for message in &messages {
            let id = message.get("messageId").and_then(Value::as_str);
            // Without an id the message could not be reported as failed, and would be lost.
            let without_id = || Error::MalformedEvent("an SQS message without messageId".into());
            ids.push(id.ok_or_else(without_id)?.to_owned());
        }
        let mut tasks = JoinSet::new();
        for (id, message) in ids.iter().cloned().zip(messages) {
            let guard = Arc::clone(self);
            tasks.spawn(async move { (id, guard.message(message, deadline).await) });
        }
        let mut done = Vec::new();
        while let Some(joined) = tasks.join_next().await {
            match joined {
                Ok((id, Ok(_))) => done.push(id),
                Ok((id, Err(error))) => log_failure(&id, &error),
                Err(panic) => tracing::error!(error.r#type = "Panic", "{panic}"),
            }
        }
        let failed = ids.into_iter().filter(|id| !done.contains(id)).map(|id| {
            let mut failure = BatchItemFailure::default();
            failure.item_identifier = id;
            failure
        });
        let mut response = SqsBatchResponse::default();
        response.batch_item_failures = failed.collect();
        Ok(response)
    }

    async fn message(&self, message: Value, deadline: Deadline) -> Result<Record, Error> {
        let message: SqsMessage = serde_json::from_value(message)
            .map_err(|error| Error::MalformedEvent(format!("an SQS message: {error}")))?;
        let body = message.body.unwrap_or_default();
        let event = serde_json::from_str(&body)
            .map_err(|error| Error::MalformedEvent(format!("an SQS message's body: {error}")))?;
        self.process(event, deadline).await
    }

    /// Takes one EventBridge event from registration to record.
    ///
    /// # Errors
    /// [`Error`], if the event must come again: what could not be found out, told or done, or what a
    /// person must look at. No error leaves an image discarded without an alert.
    pub async fn process(&self, event: Value, deadline: Deadline) -> Result<Record, Error> {
        let registration = match event::parse(event, &self.config.scope)? {
            Incoming::Registration(registration) => registration,
            Incoming::Ignored(ignored) => return Ok(self.close(Record::ignored(ignored))),
        };
        // Boxed: the SDK's futures are large, and nested deeper than the compiler likes.
        let span = tracing::info_span!(
            "registration",
            image.id = %registration.image_id,
            event.id = registration.event_id
        );
        let work = Box::pin(self.follow(&registration, deadline).instrument(span));
        match tokio::time::timeout_at(answer_by(deadline), work).await {
            Ok(result) => result,
            Err(_) => Err(Error::OutOfTime {
                image: registration.image_id.to_string(),
                doing: "how far it went shows the next time".into(),
            }),
        }
    }

    async fn follow(
        &self,
        registration: &Registration,
        deadline: Deadline,
    ) -> Result<Record, Error> {
        let mut patience = Patience::new(self.config.wait, deadline);
        let assessment = self.assess(registration, &mut patience).await?;
        self.settled(registration, &assessment)?;
        if assessment.plan.action.is_discard() {
            self.discard(registration, assessment, &mut patience).await
        } else {
            self.leave(registration, assessment).await
        }
    }

    /// Observes the image, gathers what it should bill, judges and plans: afresh each time.
    pub(crate) async fn assess(
        &self,
        registration: &Registration,
        patience: &mut Patience,
    ) -> Result<Assessment, Error> {
        let observation = self.observe(registration, patience).await?;
        Ok(self.weigh(registration, observation, None).await)
    }

    /// Gathers what an image should bill, judges and plans. `before`: what this invocation has
    /// looked up for it already.
    pub(crate) async fn weigh(
        &self,
        registration: &Registration,
        observation: Observation,
        before: Option<Traces>,
    ) -> Assessment {
        let (expectation, traces) = match &observation {
            Observation::Available(image) => {
                let inquiry = self.inquire(registration, image, &observation, before);
                let (expectation, traces) = inquiry.await;
                (expectation, Some(traces))
            }
            Observation::Gone { .. } | Observation::Failed { .. } => (Expectation::default(), None),
        };
        let judgement = judge(&observation, &expectation);
        let surroundings = match judgement.verdict.calls_for_discard() {
            true => Some(self.look_around(registration).await),
            false => None,
        };
        let circumstances = Circumstances {
            mode: self.config.mode,
            now: Utc::now(),
            registration,
            observation: &observation,
            expectation: &expectation,
            surroundings: surroundings.as_ref(),
        };
        let plan = plan(judgement.verdict, &circumstances, &self.policy);
        Assessment {
            observation,
            expectation,
            judgement,
            plan,
            surroundings,
            traces,
        }
    }

    /// Looks at what a discard depends on besides the image.
    async fn look_around(&self, registration: &Registration) -> Surroundings {
        let references = self.aws.image_references(&registration.image_id);
        let listeners = self.aws.confirmed_subscriptions(&self.config.alert_topic);
        // Boxed: the SDK's futures are large.
        let (references, listeners) = tokio::join!(Box::pin(references), Box::pin(listeners));
        Surroundings {
            references: references.map_err(|error| error.to_string()),
            listeners: listeners.map_err(|error| error.to_string()),
        }
    }

    /// Looks at the image until it is visible, within `GUARD_WAIT_SECONDS`.
    pub(crate) async fn observe(
        &self,
        registration: &Registration,
        patience: &mut Patience,
    ) -> Result<Observation, Error> {
        let id = &registration.image_id;
        let old = Utc::now() - registration.time > OLD_EVENT;
        loop {
            let why = match self.aws.describe_image(id).await? {
                Described::Available(image) => return Ok(Observation::Available(image)),
                Described::Gone(why) => return Ok(Observation::Gone { why }),
                Described::Failed(why) => return Ok(Observation::Failed { why }),
                Described::NotFound | Described::NoImage if old => {
                    let why =
                        "EC2 knows no such image, more than ten minutes after the event".into();
                    return Ok(Observation::Gone { why });
                }
                Described::Underway(why) => why,
                Described::NoImage => "EC2 shows no such image".into(),
                Described::NotFound => "EC2 says InvalidAMIID.NotFound".into(),
            };
            if !patience.pause().await {
                return Err(not_visible(id, why));
            }
        }
    }

    /// Tags come late: a young image counts for nothing but what no later tag can change.
    fn settled(&self, registration: &Registration, assessment: &Assessment) -> Result<(), Error> {
        let declared = assessment.expectation.decided_by_declaration();
        let created = match (&assessment.observation, assessment.judgement.verdict) {
            (_, Verdict::Verified) if declared => return Ok(()),
            (_, Verdict::Exempt) => return Ok(()),
            (Observation::Available(image), _) => image.created.unwrap_or(registration.time),
            (Observation::Gone { .. } | Observation::Failed { .. }, _) => return Ok(()),
        };
        let age_seconds = (Utc::now() - created).num_seconds();
        let settle_seconds = self.config.settle.as_secs();
        if u64::try_from(age_seconds).unwrap_or(0) >= settle_seconds {
            return Ok(());
        }
        Err(Error::NotSettled {
            image: registration.image_id.to_string(),
            age_seconds,
            settle_seconds,
        })
    }

    /// Tells people, and programs, what the record says.
    pub(crate) async fn publish(&self, record: &Record) -> Result<(), Error> {
        let message = alert::message(record);
        self.aws.publish(&self.config.alert_topic, &message).await
    }

    /// Gives a complete record to the journal.
    pub(crate) fn close(&self, record: Record) -> Record {
        (self.journal)(&record);
        record
    }
}

/// A message that comes back is nothing unusual, unless only a person can help.
fn log_failure(message_id: &str, error: &Error) {
    let error_type = error.error_type();
    if error.needs_a_person() {
        tracing::error!(
            sqs.message_id = message_id,
            error.r#type = error_type,
            "{error}"
        );
    } else {
        tracing::warn!(
            sqs.message_id = message_id,
            error.r#type = error_type,
            "{error}"
        );
    }
}

impl Assessment {
    /// What the image could be created from anew: the instance that lineage found.
    fn anew(&self) -> Option<Anew> {
        let origin = self.expectation.origin.as_ref()?;
        let Observation::Available(image) = &self.observation else {
            return None;
        };
        let right = match self.expectation.platforms() {
            Some(platforms) => platforms.difference(&origin.bills) == Difference::None,
            None => self.expectation.decisive().is_none(),
        };
        Some(Anew {
            origin: origin.clone(),
            right,
            tags: image.tags.clone(),
        })
    }

    /// The record as far as it goes before anything is done.
    pub(crate) fn record(self, registration: &Registration) -> Record {
        let anew = self.anew();
        let mut record = Record::new(
            registration,
            &self.observation,
            &self.expectation,
            self.judgement,
            &self.plan,
        );
        if let Some(surroundings) = self.surroundings {
            record.look_around(surroundings);
        }
        record.fix = alert::fix(&record, anew.as_ref());
        record
    }
}

pub(crate) fn not_visible(id: &AmiId, why: impl Into<String>) -> Error {
    Error::NotVisibleYet {
        image: id.to_string(),
        why: why.into(),
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
    fn new(left: Duration, deadline: Deadline) -> Patience {
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

fn answer_by(deadline: Deadline) -> Deadline {
    deadline.checked_sub(RESERVE).unwrap_or(deadline)
}
