//! Handles the input from Lambda, which is an SQS batch, one event, or the request for a self-test.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use aws_lambda_events::event::sqs::{BatchItemFailure, SqsBatchResponse, SqsMessage};
use futures_util::{StreamExt, stream};
use serde::Serialize;
use serde_json::Value;
use tokio::task::JoinSet;
use tracing::Instrument;

use crate::ec2::Observation;
use crate::error::Error;
use crate::event::{self, Incoming, RegisteredBy, Registration};
use crate::guard::evaluation::observed;
use crate::guard::registration::Known;
use crate::guard::self_test::Report;
use crate::guard::{Guard, audit, digest, registration, self_test, settling};
use crate::ids::AmiId;
use crate::invocation::{Delivery, in_time};
use crate::record::Record;
use crate::sources::EvidenceCache;
use crate::sources::batch::BatchLoader;
use crate::telemetry::{Failure, Line};

/// Largest number of messages in a batch. SQS sends no more than this to a function (Lambda Developer Guide, "Batching
/// behavior").
const MOST_MESSAGES: usize = 10_000;

/// Number of images of a batch that are processed concurrently. SQS sends the function ten messages (template.yaml).
const SIDE_BY_SIDE: usize = 100;

/// Time limit for looking at the images of a batch together. What takes longer is queried for each image alone.
const TOGETHER: Duration = Duration::from_secs(5);

/// The answer to Lambda.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// For a bare event, its record.
    Record(Box<Record>),
    /// For a batch, the messages that SQS must deliver again.
    Batch(SqsBatchResponse),
    /// For a self-test, its report.
    SelfTest(Box<Report>),
}

/// An event as it arrived.
struct Arrival {
    event_id: Option<String>,
    incoming: Result<Incoming, Error>,
    /// What was found out about its image a moment ago, together with the other images of its batch.
    known: Option<Known>,
}

impl Arrival {
    fn registration(&self) -> Option<&Registration> {
        match &self.incoming {
            Ok(Incoming::Registration(registration)) => Some(registration),
            _ => None,
        }
    }

    fn image(&self) -> Option<&AmiId> {
        Some(&self.registration()?.image_id)
    }

    /// Whether the event says who registered the image.
    fn says_who(&self) -> bool {
        let who = self.registration().map(|it| &it.registered_by);
        who.is_some_and(|who| *who != RegisteredBy::Unknown)
    }
}

impl Guard {
    /// Handles an SQS batch of EventBridge events, one bare event, or the request for a self-test. The answer to a
    /// batch names the messages that SQS must deliver again. The answer to a bare event is its record. The answer to a
    /// self-test is its report.
    ///
    /// # Errors
    /// - For a bare event, [`Error`] if it must be delivered again. Something could not be determined, reported or
    ///   done, or a person must look at it. No error leaves an image discarded without an alert.
    /// - For a batch, [`Error`] only if the guard cannot even report which messages failed. SQS then delivers all of
    ///   them again.
    /// - For a self-test, [`Error::MalformedEvent`] if the request has anything other than what is accepted.
    pub async fn handle(
        self: &Arc<Self>,
        mut input: Value,
        delivery: impl Into<Delivery>,
    ) -> Result<Answer, Error> {
        let delivery = delivery.into();
        // An error span is there at every log level, so that each line says to which invocation it belongs.
        let span = tracing::error_span!("invocation", requestId = delivery.request_id);
        let work = async {
            let answer = match input.get_mut("Records").map(Value::take) {
                Some(messages) => batch(self, messages, &delivery).await,
                None => match self_test::order(&input) {
                    Some(Ok(order)) => {
                        let report = self_test::test_itself(self, order, &delivery).await;
                        Ok(Answer::SelfTest(Box::new(report)))
                    }
                    Some(Err(error)) => Err(self.failed(&delivery, None, None, error)),
                    None => {
                        let record = process(self, arrival(self, input), &delivery).await;
                        record.map(|record| Answer::Record(Box::new(record)))
                    }
                },
            };
            self.notifier.finish(delivery.deadline).await;
            self.write(&delivery, Line::Invocation(self.aws.tally()));
            answer
        };
        work.instrument(span).await
    }
}

/// Processes a batch's messages, many concurrently. A message does not affect the others, even if it panics. Messages
/// about the same image are processed in sequence. The first is the one that says who registered the image.
///
/// # Errors
/// [`Error::MalformedEvent`] if `messages` is not a list of SQS messages with ids, or is too long.
async fn batch(guard: &Arc<Guard>, messages: Value, delivery: &Delivery) -> Result<Answer, Error> {
    let malformed = |what: &str| {
        let error = Error::MalformedEvent(what.into());
        guard.failed(delivery, None, None, error)
    };
    let Value::Array(messages) = messages else {
        return Err(malformed("Records is not a list"));
    };
    if messages.len() > MOST_MESSAGES {
        let number = messages.len();
        let what = format!("Records has {number} messages. Accepted: up to {MOST_MESSAGES}");
        return Err(malformed(&what));
    }
    let mut ids = Vec::new();
    let mut by_image: Vec<Vec<(Arrival, Delivery)>> = Vec::new();
    let mut places: HashMap<AmiId, usize> = HashMap::new();
    for message in messages {
        let id = message.get("messageId").and_then(Value::as_str);
        // Without an id, the message could not be reported as failed, and would be lost.
        let id = id.ok_or_else(|| malformed("an SQS message lacks its messageId"))?;
        let receipt = message.get("receiptHandle").and_then(Value::as_str);
        let delivery = Delivery {
            message_id: Some(id.to_owned()),
            receipt_handle: receipt.map(str::to_owned),
            ..delivery.clone()
        };
        ids.push(id.to_owned());
        let arrival = arrival_of(guard, message);
        let next = by_image.len();
        let place = match arrival.image() {
            Some(image) => *places.entry(image.clone()).or_insert(next),
            None => next,
        };
        match by_image.get_mut(place) {
            Some(group) => group.push((arrival, delivery)),
            None => by_image.push(vec![(arrival, delivery)]),
        }
    }
    for group in &mut by_image {
        group.sort_by_key(|(arrival, _)| !arrival.says_who());
    }
    look_at_all(guard, &mut by_image).await;
    let one_after_the_other = |group: Vec<(Arrival, Delivery)>| async {
        let mut failed = Vec::new();
        for (arrival, delivery) in group {
            if !survives(guard, arrival, &delivery).await {
                failed.extend(delivery.message_id);
            }
        }
        failed
    };
    let groups = stream::iter(by_image).map(one_after_the_other);
    let failed: Vec<Vec<String>> = groups.buffer_unordered(SIDE_BY_SIDE).collect().await;
    let failed: BTreeSet<String> = failed.into_iter().flatten().collect();
    ids.retain(|id| failed.contains(id));
    let failures = ids.into_iter().map(|id| {
        let mut failure = BatchItemFailure::default();
        failure.item_identifier = id;
        failure
    });
    let mut response = SqsBatchResponse::default();
    response.batch_item_failures = failures.collect();
    Ok(Answer::Batch(response))
}

/// Finds out what the images of a batch must be judged by, with one call for all instead of one for each. What is not
/// found out in this way is queried for each image alone.
async fn look_at_all(guard: &Arc<Guard>, by_image: &mut [Vec<(Arrival, Delivery)>]) {
    let first = |group: &Vec<(Arrival, Delivery)>| group.first()?.0.registration().cloned();
    let registrations: Vec<Registration> = by_image.iter().filter_map(first).collect();
    if registrations.len() < 2 {
        return;
    }
    let guard = Arc::clone(guard);
    let mut looking = JoinSet::new();
    looking.spawn(async move {
        let mut known = BTreeMap::new();
        // What is known when the time is over is kept.
        let all = Box::pin(find_out(&guard, registrations, &mut known));
        let _over = tokio::time::timeout(TOGETHER, all).await;
        known
    });
    let mut known = match looking.join_next().await {
        Some(Ok(known)) => known,
        // When each image is processed alone, the log shows which image caused the panic.
        Some(Err(panic)) => {
            tracing::error!("could not query the images of a batch together: {panic}");
            return;
        }
        None => return,
    };
    for group in by_image {
        if let Some((arrival, _)) = group.first_mut()
            && let Some(image) = arrival.image()
        {
            arrival.known = known.remove(image);
        }
    }
}

async fn find_out(
    guard: &Guard,
    registrations: Vec<Registration>,
    known: &mut BTreeMap<AmiId, Known>,
) {
    let ids: Vec<&str> = registrations
        .iter()
        .map(|it| it.image_id.as_str())
        .collect();
    let Ok(described) = guard.aws.describe_own_images(&ids).await else {
        return;
    };
    let mut observations: BTreeMap<AmiId, Observation> = described
        .into_iter()
        .filter_map(|(id, described)| Some((id, observed(described).ok()?)))
        .collect();
    let mut seen = Vec::new();
    for registration in registrations {
        if let Some(observation) = observations.remove(&registration.image_id) {
            let own = Known {
                observation: observation.clone(),
                cache: None,
            };
            known.insert(registration.image_id.clone(), own);
            seen.push((registration, observation));
        }
    }
    let asked = Arc::new(BatchLoader::default());
    audit::assess_all(guard, seen, &asked, false, |registration, assessment| {
        if let Some(known) = known.get_mut(&registration.image_id) {
            known.cache = assessment.cache.map(EvidenceCache::of_a_moment_ago);
        }
    })
    .await;
}

/// Processes a message. Returns whether it succeeded. A panic is a failure. The log says why a message failed.
async fn survives(guard: &Arc<Guard>, arrival: Arrival, delivery: &Delivery) -> bool {
    let span = tracing::error_span!("message", message_id = delivery.message_id);
    let (its_guard, own) = (Arc::clone(guard), delivery.clone());
    // A set of tasks, because its task ends when this one does. A task that was spawned alone would not.
    let mut task = JoinSet::new();
    task.spawn(async move { process(&its_guard, arrival, &own).await.is_ok() }.instrument(span));
    match task.join_next().await {
        Some(Ok(ended_well)) => ended_well,
        Some(Err(panic)) => {
            let failure = Failure {
                event_id: None,
                image_id: None,
                error_type: "Panic",
                message: &panic.to_string(),
                needs_a_person: true,
            };
            guard.write(delivery, Line::Failure(failure));
            false
        }
        None => false,
    }
}

/// The event in an SQS message.
fn arrival_of(guard: &Guard, message: Value) -> Arrival {
    let event = serde_json::from_value(message)
        .map_err(|error| Error::MalformedEvent(format!("cannot parse the SQS message: {error}")))
        .and_then(|message: SqsMessage| {
            let body = message.body.unwrap_or_default();
            serde_json::from_str(&body).map_err(|error| {
                Error::MalformedEvent(format!("cannot parse the SQS message's body: {error}"))
            })
        });
    match event {
        Ok(event) => arrival(guard, event),
        Err(error) => Arrival {
            event_id: None,
            incoming: Err(error),
            known: None,
        },
    }
}

fn arrival(guard: &Guard, event: Value) -> Arrival {
    Arrival {
        event_id: event::id_of(&event),
        incoming: event::parse(event, &guard.config.scope),
        known: None,
    }
}

/// Processes one EventBridge event, from registration to record. If the event must be delivered again, logs why.
async fn process(guard: &Guard, arrival: Arrival, delivery: &Delivery) -> Result<Record, Error> {
    let image_id = arrival.image().map(|id| id.to_string());
    let event_id = arrival.event_id;
    let dealt = match arrival.incoming {
        Ok(incoming) => dispatch(guard, incoming, arrival.known, delivery).await,
        Err(error) => Err(error),
    };
    if let Err(error) = &dealt {
        settling::hide_until_settled(guard, error, delivery).await;
    }
    dealt.map_err(|error| guard.failed(delivery, event_id.as_deref(), image_id.as_deref(), error))
}

async fn dispatch(
    guard: &Guard,
    incoming: Incoming,
    known: Option<Known>,
    delivery: &Delivery,
) -> Result<Record, Error> {
    // Boxed because the SDK's futures are large, and nested too deeply for the compiler.
    match incoming {
        Incoming::Ignored(ignored) => Ok(guard.journal(delivery, Record::ignored(ignored))),
        Incoming::Digest(digest) => {
            let span = tracing::error_span!("digest", event_id = digest.event_id);
            let work = Box::pin(digest::digest(guard, digest, delivery).instrument(span));
            let late = Error::OutOfTime {
                image: "the digest".into(),
                doing: "the next one reports the others".into(),
            };
            in_time(delivery, work, late).await
        }
        Incoming::Audit(audit) => {
            let span = tracing::error_span!("audit", event_id = audit.event_id);
            let work = Box::pin(audit::daily::daily(guard, audit, delivery).instrument(span));
            let late = Error::OutOfTime {
                image: "the audit".into(),
                doing: "its findings may not have been reported".into(),
            };
            in_time(delivery, work, late).await
        }
        Incoming::Registration(registration) => {
            registration::registered(guard, &registration, known, delivery).await
        }
    }
}
