//! The flow, from event to record.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use aws_lambda_events::event::sqs::{BatchItemFailure, SqsBatchResponse, SqsMessage};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use disk::contained::Reader;
use futures_util::stream::{self, StreamExt};
use serde::Serialize;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::Instrument;

use crate::aws::{Aws, Described, ImageName};
use crate::billing::Difference;
use crate::config::Config;
use crate::ec2::{Image, Observation};
use crate::error::Error;
use crate::event::{self, Digest, Incoming, RegisteredBy, Registration};
use crate::ids::{AccountId, AmiId};
use crate::invocation::{Deadline, Delivery, Patience, in_time};
use crate::ledger::{Discard, Ledger, Place, Told, Turn};
use crate::notify::{self, Message, Notifier};
use crate::plan::{Action, Circumstances, Interlock, Plan, Surroundings, plan, wrong_clock};
use crate::policy::{DiscardAction, Policy};
use crate::record::remediation::{self, Anew};
use crate::record::{Rebuild, Record};
use crate::selftest::{self, Report};
use crate::sources::batch::{Ahead, Lookups};
use crate::sources::{Assessment, Collector, Traces};
use crate::telemetry::{Failure, Line};
use crate::verdict::Verdict;
use crate::way_back::WayBack;

/// From this age of an event on, an image that can not be found is gone, and before it, not visible
/// yet. EC2 shows a new image within 2.5 minutes (the longest that AWS Support advised to wait).
const OLD_EVENT: TimeDelta = TimeDelta::minutes(10);

/// For so long after its discard, and no longer than an image takes to settle, an image that is there may be one that
/// EC2 just lists yet. How long it does is documented nowhere ("a short while"); less than the six minutes after which
/// the queue brings an event back.
const LINGERS: Duration = Duration::from_secs(180);

/// The most messages of a batch: more than these SQS gives to no function (Lambda Developer Guide, "Batching behavior").
const MOST_MESSAGES: usize = 10_000;

/// So many images of a batch are dealt with side by side. SQS gives the function ten messages (template.yaml).
const SIDE_BY_SIDE: usize = 100;

/// For so long the images of a batch are looked at together: what takes longer is each image's own business.
const TOGETHER: Duration = Duration::from_secs(5);

/// How long after the settle time another event of the same registration may be judged for the first time. CloudTrail
/// delivers within about 90 seconds as a rule.
const OTHER_EVENT: TimeDelta = TimeDelta::minutes(5);

/// How long after the settle time an event comes back for what could not be asked, of an image with which nothing seems
/// to be wrong. SQS brings an event back every six minutes, and the last time before it is lost is half an hour after the
/// settle time at the earliest.
const ANOTHER_LOOK: TimeDelta = TimeDelta::minutes(20);

/// An image whose creation lies in the future by this much is not waited for.
const AHEAD: TimeDelta = TimeDelta::hours(1);

/// How long it may take to say what would be made of an image: many times what it takes.
const REHEARSAL: Duration = Duration::from_secs(300);

/// So many images are told of in one message of a digest, or in several, if they do not fit into one.
const IN_A_DIGEST: usize = 50;

/// What Lambda gets back.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// Of a bare event: its record.
    Record(Box<Record>),
    /// Of a batch: the messages that are to come back.
    Batch(SqsBatchResponse),
    /// Of the order to test itself.
    SelfTest(Box<Report>),
}

type Journal = dyn Fn(&Delivery, Line<'_>) + Send + Sync;

/// The guard: what it was told, and what it works with.
pub struct Guard {
    pub(crate) config: Config,
    pub(crate) policy: Policy,
    pub(crate) aws: Aws,
    pub(crate) ledger: Ledger,
    /// The program that reads disks, in a process of its own (see [`disk::contained`]).
    pub(crate) reader: Reader,
    pub(crate) disk_turn: tokio::sync::Mutex<()>,
    journal: Box<Journal>,
    pub(crate) notifier: Notifier,
    way_back: WayBack,
}

/// An event as it arrived.
struct Arrival {
    event_id: Option<String>,
    incoming: Result<Incoming, Error>,
    /// What was found out of its image a moment ago, together with the other images of its batch.
    known: Option<Known>,
}

/// What was found out of an image: it is judged by that, as if it had been asked for it alone.
#[derive(Debug)]
pub(crate) struct Known {
    observation: Observation,
    traces: Option<Traces>,
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

    /// Whether it says who registered the image.
    fn says_who(&self) -> bool {
        let who = self.registration().map(|it| &it.registered_by);
        who.is_some_and(|who| *who != RegisteredBy::Unknown)
    }
}

/// A registration that is being dealt with.
pub(crate) struct Case<'a> {
    pub(crate) registration: &'a Registration,
    pub(crate) delivery: &'a Delivery,
    /// The right to deal with it, and what the ledger knows; or why the ledger could not be reached.
    pub(crate) turn: Result<Turn, Error>,
}

/// How an alert that announces no discard reaches people.
enum Way {
    /// By itself.
    AtOnce,
    /// By itself, and it says that the digest has further ones.
    FirstOver,
    /// In the next digest.
    Digest,
}

/// What is to be done about it, and why.
pub(crate) struct Planned {
    pub(crate) assessment: Assessment,
    /// What is around the image, if a discard is due.
    pub(crate) surroundings: Option<Surroundings>,
    pub(crate) plan: Plan,
    /// What is known of a discard before, if the plan minds one.
    pub(crate) before: Option<String>,
    /// What cannot be right, if it holds the discard: items of the ledger, clocks.
    pub(crate) doubts: Vec<String>,
}

impl Guard {
    /// A guard. `reader` is a program that, started with [`disk::contained::ARGUMENT`], reads a disk: as a rule
    /// the one that runs. `journal` is given each record once, when it is complete, also that of an event that
    /// must come again; each failure; and at the end of each invocation what it did in all.
    pub fn new(
        config: Config,
        policy: Policy,
        aws: Aws,
        reader: Reader,
        journal: impl Fn(&Delivery, Line<'_>) + Send + Sync + 'static,
    ) -> Guard {
        let clock = aws.clock();
        let ledger = match &config.ledger_table {
            Some(name) => {
                let keep = TimeDelta::days(config.ledger_days.into());
                Ledger::in_table(&aws, name, keep, clock)
            }
            None => Ledger::in_memory(clock),
        };
        let notifier = Notifier::new(&config, aws.clone());
        Guard {
            config,
            policy,
            aws,
            ledger,
            notifier,
            reader,
            disk_turn: tokio::sync::Mutex::default(),
            journal: Box::new(journal),
            way_back: WayBack::default(),
        }
    }

    /// What time it is.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.aws.clock().now()
    }

    /// A deadline by the clock on the wall.
    pub(crate) fn ends(&self, deadline: Deadline) -> DateTime<Utc> {
        self.now() + deadline.saturating_duration_since(Instant::now())
    }

    /// Takes what Lambda hands over: an SQS batch of EventBridge events, one bare event, or the order to test
    /// itself. A batch's answer names the messages that are to come back, a bare event's is its record.
    ///
    /// # Errors
    /// For a bare event [`Error`], if it must come again: what could not be found out, told or done, or what a
    /// person must look at. No error leaves an image discarded without an alert. For a batch only if it can not
    /// even be told which of its messages failed, so that all of them come back.
    pub async fn handle(
        self: &Arc<Self>,
        mut input: Value,
        delivery: impl Into<Delivery>,
    ) -> Result<Answer, Error> {
        let delivery = delivery.into();
        // At every log level: each line says which invocation it is of.
        let span = tracing::error_span!("invocation", requestId = delivery.request_id);
        let work = async {
            let answer = match input.get_mut("Records").map(Value::take) {
                Some(messages) => self.batch(messages, &delivery).await,
                None => match selftest::order(&input) {
                    Some(Ok(order)) => {
                        let report = self.test_itself(order, &delivery).await;
                        Ok(Answer::SelfTest(Box::new(report)))
                    }
                    Some(Err(error)) => Err(self.failed(&delivery, None, None, error)),
                    None => {
                        let record = self.process(self.arrival(input), &delivery).await;
                        record.map(|record| Answer::Record(Box::new(record)))
                    }
                },
            };
            self.notifier.finish(delivery.deadline).await;
            (self.journal)(&delivery, Line::Invocation(self.aws.tally()));
            answer
        };
        work.instrument(span).await
    }

    /// Tells the log why a delivery failed, with the ids of event and image as far as they are known.
    pub(crate) fn failed(
        &self,
        delivery: &Delivery,
        event_id: Option<&str>,
        image_id: Option<&str>,
        error: Error,
    ) -> Error {
        let failure = Failure {
            event_id,
            image_id,
            error_type: error.error_type(),
            message: &error.with_retry(),
            needs_a_person: error.needs_a_person(),
        };
        (self.journal)(delivery, Line::Failure(failure));
        error
    }

    /// Processes a batch's messages, many side by side and each by itself: what one does, a panic included, does not touch the
    /// others. Those about one image go one after the other, first the one that says who registered it.
    async fn batch(
        self: &Arc<Self>,
        messages: Value,
        delivery: &Delivery,
    ) -> Result<Answer, Error> {
        let malformed = |what: &str| {
            let error = Error::MalformedEvent(what.into());
            self.failed(delivery, None, None, error)
        };
        let Value::Array(messages) = messages else {
            return Err(malformed("Records is not a list"));
        };
        if messages.len() > MOST_MESSAGES {
            let number = messages.len();
            let what = format!("Records has {number} messages; accepted are up to {MOST_MESSAGES}");
            return Err(malformed(&what));
        }
        let mut ids = Vec::new();
        let mut by_image: Vec<Vec<(Arrival, Delivery)>> = Vec::new();
        let mut places: HashMap<AmiId, usize> = HashMap::new();
        for message in messages {
            let id = message.get("messageId").and_then(Value::as_str);
            // Without an id the message could not be reported as failed, and would be lost.
            let id = id.ok_or_else(|| malformed("an SQS message without messageId"))?;
            let receipt = message.get("receiptHandle").and_then(Value::as_str);
            let delivery = Delivery {
                message_id: Some(id.to_owned()),
                receipt_handle: receipt.map(str::to_owned),
                ..delivery.clone()
            };
            ids.push(id.to_owned());
            let arrival = self.arrival_of(message);
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
        self.look_at_all(&mut by_image).await;
        let one_after_the_other = |group: Vec<(Arrival, Delivery)>| async {
            let mut failed = Vec::new();
            for (arrival, delivery) in group {
                if !self.survives(arrival, &delivery).await {
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

    /// Finds out, of the images of a batch together, what each must be judged by: one call for what would be one of each.
    /// What is not found out in this way is asked for each image by itself.
    async fn look_at_all(self: &Arc<Self>, by_image: &mut [Vec<(Arrival, Delivery)>]) {
        let first = |group: &Vec<(Arrival, Delivery)>| group.first()?.0.registration().cloned();
        let registrations: Vec<Registration> = by_image.iter().filter_map(first).collect();
        if registrations.len() < 2 {
            return;
        }
        let guard = Arc::clone(self);
        let mut looking = JoinSet::new();
        looking.spawn(async move {
            let mut known = BTreeMap::new();
            // What is known when the time is over, is.
            let all = Box::pin(guard.find_out(registrations, &mut known));
            let _over = tokio::time::timeout(TOGETHER, all).await;
            known
        });
        let mut known = match looking.join_next().await {
            Some(Ok(known)) => known,
            // The image that it was about shows when each is dealt with by itself.
            Some(Err(panic)) => {
                tracing::error!("the images of a batch could not be looked at together: {panic}");
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

    async fn find_out(&self, registrations: Vec<Registration>, known: &mut BTreeMap<AmiId, Known>) {
        let ids: Vec<&str> = registrations
            .iter()
            .map(|it| it.image_id.as_str())
            .collect();
        let Ok(described) = self.aws.describe_own_images(&ids).await else {
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
                    traces: None,
                };
                known.insert(registration.image_id.clone(), own);
                seen.push((registration, observation));
            }
        }
        let asked = Arc::new(Ahead::default());
        self.assess_all(seen, &asked, false, |registration, assessment| {
            if let Some(known) = known.get_mut(&registration.image_id) {
                known.traces = assessment.traces.map(Traces::of_a_moment_ago);
            }
        })
        .await;
    }

    /// Processes a message, and says whether it came to an end, which a panic is not. The log knows why it did not.
    async fn survives(self: &Arc<Self>, arrival: Arrival, delivery: &Delivery) -> bool {
        let span = tracing::error_span!("message", message_id = delivery.message_id);
        let (guard, own) = (Arc::clone(self), delivery.clone());
        // Ends with this one, as a task by itself would not.
        let mut task = JoinSet::new();
        task.spawn(async move { guard.process(arrival, &own).await.is_ok() }.instrument(span));
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
                (self.journal)(delivery, Line::Failure(failure));
                false
            }
            None => false,
        }
    }

    /// The event in an SQS message.
    fn arrival_of(&self, message: Value) -> Arrival {
        let event = serde_json::from_value(message)
            .map_err(|error| Error::MalformedEvent(format!("an SQS message: {error}")))
            .and_then(|message: SqsMessage| {
                let body = message.body.unwrap_or_default();
                serde_json::from_str(&body).map_err(|error| {
                    Error::MalformedEvent(format!("an SQS message's body: {error}"))
                })
            });
        match event {
            Ok(event) => self.arrival(event),
            Err(error) => Arrival {
                event_id: None,
                incoming: Err(error),
                known: None,
            },
        }
    }

    fn arrival(&self, event: Value) -> Arrival {
        Arrival {
            event_id: event::id_of(&event),
            incoming: event::parse(event, &self.config.scope),
            known: None,
        }
    }

    /// Takes one EventBridge event from registration to record, or tells the log why it must come again.
    async fn process(&self, arrival: Arrival, delivery: &Delivery) -> Result<Record, Error> {
        let image_id = arrival.image().map(|id| id.to_string());
        let event_id = arrival.event_id;
        let dealt = match arrival.incoming {
            Ok(incoming) => self.deal_with(incoming, arrival.known, delivery).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &dealt {
            self.hide_until_settled(error, delivery).await;
        }
        dealt
            .map_err(|error| self.failed(delivery, event_id.as_deref(), image_id.as_deref(), error))
    }

    async fn deal_with(
        &self,
        incoming: Incoming,
        known: Option<Known>,
        delivery: &Delivery,
    ) -> Result<Record, Error> {
        // Boxed: the SDK's futures are large, and nested deeper than the compiler likes.
        match incoming {
            Incoming::Ignored(ignored) => Ok(self.journal(delivery, Record::ignored(ignored))),
            Incoming::Digest(digest) => {
                let span = tracing::error_span!("digest", event_id = digest.event_id);
                let work = Box::pin(self.digest(digest, delivery).instrument(span));
                let late = Error::OutOfTime {
                    image: "the digest".into(),
                    doing: "the next one tells of the others".into(),
                };
                in_time(delivery, work, late).await
            }
            Incoming::Sweep(sweep) => {
                let span = tracing::error_span!("sweep", event_id = sweep.event_id);
                let work = Box::pin(self.daily(sweep, delivery).instrument(span));
                let late = Error::OutOfTime {
                    image: "the sweep".into(),
                    doing: "what it found may not have been told".into(),
                };
                in_time(delivery, work, late).await
            }
            Incoming::Registration(registration) => {
                self.registered(&registration, known, delivery).await
            }
        }
    }

    /// Deals with a registration, of whose image this is known, in what is left of a delivery's time.
    pub(crate) async fn registered(
        &self,
        registration: &Registration,
        known: Option<Known>,
        delivery: &Delivery,
    ) -> Result<Record, Error> {
        // With the record's names, so that one search finds both.
        let span = tracing::error_span!(
            "registration",
            image_id = %registration.image_id,
            event_id = registration.event_id
        );
        let work = Box::pin(self.follow(registration, known, delivery).instrument(span));
        let late = Error::OutOfTime {
            image: registration.image_id.to_string(),
            doing: "how far it went shows the next time".into(),
        };
        in_time(delivery, work, late).await
    }

    async fn follow(
        &self,
        registration: &Registration,
        known: Option<Known>,
        delivery: &Delivery,
    ) -> Result<Record, Error> {
        let mut patience = Patience::new(self.config.wait, delivery.deadline);
        let mut looked = Some(
            self.look_at(registration, known, delivery, &mut patience)
                .await?,
        );
        // From here on people are told and the image may be discarded: by one invocation at a time.
        let ends = self.ends(delivery.deadline);
        let turn = loop {
            match self.ledger.begin(registration, ends).await {
                // Whoever has its turn may leave it as it was not.
                Err(busy @ Error::Busy { .. }) => match patience.pause().await {
                    true => looked = None,
                    false => {
                        self.ledger.repair_turn(registration).await;
                        return Err(busy);
                    }
                },
                turn => break turn,
            }
        };
        let case = Case {
            registration,
            delivery,
            turn,
        };
        // What was waited for a turn is not taken from what AWS may need.
        let mut patience = Patience::new(self.config.wait, delivery.deadline);
        let result = async {
            let (assessment, around) = match looked {
                Some(looked) => looked,
                None => {
                    self.look_at(registration, None, delivery, &mut patience)
                        .await?
                }
            };
            self.deal(&case, assessment, around, &mut patience).await
        };
        let result = result.await;
        if let Ok(turn) = &case.turn {
            self.ledger.give_back(turn).await;
        }
        match (result, case.turn) {
            // Whether this is the end of a discard, only the ledger can tell.
            (
                Ok(Record {
                    verdict: Verdict::Gone,
                    ..
                }),
                Err(error),
            ) => Err(error),
            (result, _) => result,
        }
    }

    /// Looks at an image until it is visible and settled, and judges it; and says what is around it, if that was looked
    /// at. `known`: what was found out of it a moment ago.
    async fn look_at(
        &self,
        registration: &Registration,
        known: Option<Known>,
        delivery: &Delivery,
        patience: &mut Patience,
    ) -> Result<(Assessment, Option<Surroundings>), Error> {
        let (observation, traces) = match known {
            Some(known) => (known.observation, known.traces),
            None => (self.observe(registration, patience).await?, None),
        };
        let assessment = self
            .collector()
            .assess(registration, observation, traces)
            .await;
        self.settled(registration, &assessment)?;
        Box::pin(self.unless_identity_may_come(registration, delivery, assessment)).await
    }

    /// Hands the assessment back, with what is around the image if it looked, unless another event of the same registration,
    /// which is on its way, says who registered the image, and that counts. Found without a turn, so that this event is not
    /// in the way of that one.
    async fn unless_identity_may_come(
        &self,
        registration: &Registration,
        delivery: &Delivery,
        assessment: Assessment,
    ) -> Result<(Assessment, Option<Surroundings>), Error> {
        let cleared = [Verdict::Verified, Verdict::Exempt];
        if registration.registered_by != RegisteredBy::Unknown
            || self.no_other_event_may_come(registration)
            || cleared.contains(&assessment.judgement.verdict)
        {
            return Ok((assessment, None));
        }
        let case = Case {
            registration,
            delivery,
            turn: self.ledger.look(registration).await,
        };
        let planned = self.plan(&case, assessment, None).await;
        match planned.awaits_identity() {
            true => Err(Error::IdentityMayCome {
                image: registration.image_id.to_string(),
            }),
            false => {
                // Without the ledger it did not see all that is around the image.
                let around = planned.surroundings.filter(|_| case.turn.is_ok());
                Ok((planned.assessment, around))
            }
        }
    }

    /// What the guard would make of an image of this account now, its record says. Nothing is changed, and nobody told.
    ///
    /// # Errors
    /// [`Error`], if the image could not be seen, within `GUARD_WAIT_SECONDS`.
    pub async fn consider(&self, image: &AmiId, account: &AccountId) -> Result<Record, Error> {
        let region = self.aws.region().unwrap_or_default();
        let (id, account) = (image.clone(), account.clone());
        let registration = Registration::without_event(id, account, region, "check", self.now());
        self.reconsider(&registration).await
    }

    /// What the guard would make of an event now, as [`Guard::consider`] does of an image.
    ///
    /// # Errors
    /// [`Error`], if the event is malformed, or its image could not be seen.
    pub async fn rehearse(&self, event: Value) -> Result<Record, Error> {
        match event::parse(event, &self.config.scope)? {
            Incoming::Registration(registration) => self.reconsider(&registration).await,
            Incoming::Ignored(ignored) => Ok(Record::ignored(ignored)),
            Incoming::Digest(digest) => Ok(Record::of_digest(digest, 0)),
            Incoming::Sweep(sweep) => Ok(Record::of_sweep(sweep, "nothing is told")),
        }
    }

    pub(crate) async fn reconsider(&self, registration: &Registration) -> Result<Record, Error> {
        let delivery = Delivery::from(Deadline::now() + REHEARSAL);
        let mut patience = Patience::new(self.config.wait, delivery.deadline);
        let observation = self.observe(registration, &mut patience).await?;
        let mut registration = registration.clone();
        if let (RegisteredBy::Unknown, Observation::Available(image)) =
            (&registration.registered_by, &observation)
            && let Some(created) = image.created
        {
            registration.time = created;
        }
        let assessment = self
            .collector()
            .assess(&registration, observation, None)
            .await;
        let case = Case {
            registration: &registration,
            delivery: &delivery,
            turn: self.ledger.look(&registration).await,
        };
        let planned = Box::pin(self.plan(&case, assessment, None)).await;
        Ok(planned.record(&registration))
    }

    /// Deals with an image that no event told of, as if one had.
    ///
    /// # Errors
    /// As [`Guard::handle`], of a bare event.
    pub async fn make_up_for(
        &self,
        image: &AmiId,
        account: &AccountId,
        created: DateTime<Utc>,
        delivery: &Delivery,
    ) -> Result<Record, Error> {
        let registration = self.listed(image.clone(), account, Some(created));
        self.registered(&registration, None, delivery).await
    }

    /// Deals with an image that is judged: completes a discard that was cut off, discards, or leaves it.
    async fn deal(
        &self,
        case: &Case<'_>,
        assessment: Assessment,
        around: Option<Surroundings>,
        patience: &mut Patience,
    ) -> Result<Record, Error> {
        let planned = self.plan(case, assessment, around).await;
        let id = &case.registration.image_id;
        match (&case.turn, planned.plan.action.is_discard()) {
            (Ok(turn), true) => self.discard(case, turn, planned, patience).await,
            (Ok(turn), false) if planned.is_gone_by(turn.entry.unfinished()) => {
                self.complete(case, turn, planned, patience).await
            }
            (Ok(turn), false) if self.may_linger(turn, &planned) => Err(not_visible(
                id,
                "it was discarded a short while ago, or may have been: either EC2 just lists it yet, or it stands",
            )),
            // With two triggers, the other event of the same registration says who made it: it is on its way,
            // or was dealt with.
            (turn, false) if planned.awaits_identity() => {
                let mut record = planned.record(case.registration);
                let asked = planned.assessment.expectation.identity_asked;
                match turn {
                    // Its tags changed since that was asked without a turn.
                    _ if !self.no_other_event_may_come(case.registration) => {
                        Err(Error::IdentityMayCome {
                            image: id.to_string(),
                        })
                    }
                    Ok(turn) if turn.entry.is_known(&record, self.now()) => {
                        Ok(self.journal(case.delivery, record))
                    }
                    Ok(turn) if asked && let Some(cleared) = turn.entry.cleared(&record) => {
                        record.clear(cleared);
                        Ok(self.journal(case.delivery, record))
                    }
                    _ => self.leave(case, planned).await,
                }
            }
            _ => self.leave(case, planned).await,
        }
    }

    /// Whether an image that passes for one that was brought back may be one that EC2 still lists: it does for
    /// a short while (EC2 API reference, "DescribeImages").
    fn may_linger(&self, turn: &Turn, planned: &Planned) -> bool {
        let held_by = &planned.plan.held_by;
        held_by.contains(&Interlock::DiscardedBefore)
            && turn.entry.attempted.is_some_and(|at| {
                let age = (self.now() - at).to_std().unwrap_or_default();
                age < self.config.settle.min(LINGERS)
            })
    }

    /// What asks the sources of one image.
    pub(crate) fn collector(&self) -> Collector<'_> {
        Collector {
            lookups: Lookups::single(self.aws.clone()),
            policy: &self.policy,
            disk: self.policy.disk,
            reader: &self.reader,
            disk_turn: &self.disk_turn,
        }
    }

    /// Looks at what a discard depends on, if one is due and it is not known what is `around` the image, and plans.
    pub(crate) async fn plan(
        &self,
        case: &Case<'_>,
        assessment: Assessment,
        around: Option<Surroundings>,
    ) -> Planned {
        let verdict = assessment.judgement.verdict;
        let surroundings = match (&assessment.observation, around) {
            (_, Some(around)) => Some(around),
            (Observation::Available(image), None) if verdict.calls_for_discard() => {
                Some(self.look_around(case, image).await)
            }
            _ => None,
        };
        let past = case.turn.as_ref().ok().map(|turn| turn.entry.history());
        let circumstances = Circumstances {
            mode: self.config.mode,
            now: self.now(),
            registration: case.registration,
            observation: &assessment.observation,
            expectation: &assessment.expectation,
            surroundings: surroundings.as_ref(),
            past: past.as_ref(),
        };
        let plan = plan(verdict, &circumstances, &self.policy);
        let doubts = doubts(&circumstances, &plan);
        let before = match plan.held_by.contains(&Interlock::DiscardedBefore) {
            true => Some(what_was_before(case, surroundings.as_ref())),
            false => None,
        };
        Planned {
            assessment,
            surroundings,
            plan,
            before,
            doubts,
        }
    }

    /// Looks at what a discard depends on besides the image.
    async fn look_around(&self, case: &Case<'_>, image: &Image) -> Surroundings {
        let name = self.name(case.registration);
        let discarded_sibling = async {
            match (&case.turn, image.registered_from()) {
                (Ok(turn), Some(source)) => self.ledger.first_discard_of(turn, source).await,
                // That the ledger can not be reached is known already.
                (Err(_), _) | (_, None) => Ok(None),
            }
        };
        let launch_permissions = async {
            // Others' images do not say, and are not discarded anyway.
            match image.owner.as_deref() == Some(case.registration.account.as_str()) {
                true => self.aws.launch_permissions(&name).await,
                false => Ok(Vec::new()),
            }
        };
        let listeners = async {
            match &self.config.alert_topic {
                Some(topic) => self.aws.confirmed_subscriptions(topic).await,
                // Then nobody is told, and so nothing discarded: it is only asked what would be.
                None => Ok(1),
            }
        };
        let way_back = async {
            match self.recycle_bin_rule() {
                Some(rule) => self.way_back.check(&self.aws, rule).await,
                None => Ok(()),
            }
        };
        // Boxed: the SDK's futures are large.
        let (references, listeners, way_back, launch_permissions, discarded_sibling) = tokio::join!(
            Box::pin(self.aws.image_references(&name)),
            Box::pin(listeners),
            Box::pin(way_back),
            Box::pin(launch_permissions),
            Box::pin(discarded_sibling),
        );
        let may_pass = [
            (Interlock::InUse, references.as_ref().err()),
            (Interlock::NobodyListening, listeners.as_ref().err()),
            (Interlock::Uncaptured, launch_permissions.as_ref().err()),
            (
                Interlock::LedgerUnavailable,
                discarded_sibling.as_ref().err(),
            ),
            (Interlock::LedgerUnavailable, case.turn.as_ref().err()),
        ];
        let not_yet = way_back.as_ref().is_err_and(|hindrance| hindrance.passes);
        Surroundings {
            may_pass: may_pass
                .into_iter()
                .filter(|(interlock, error)| {
                    let of_ledger = *interlock == Interlock::LedgerUnavailable;
                    error.is_some_and(|error| match error {
                        // An item that cannot be read: no later try reads more.
                        Error::NotPossible { .. } => false,
                        error => of_ledger || !error.needs_a_person(),
                    })
                })
                .map(|(interlock, _)| interlock)
                .chain(not_yet.then_some(Interlock::NoWayBack))
                .collect(),
            way_back: way_back.map_err(|hindrance| hindrance.why),
            references: references.map_err(|error| error.to_string()),
            listeners: listeners.map_err(|error| error.to_string()),
            launch_permissions: launch_permissions.map_err(|error| error.to_string()),
            discarded_sibling: discarded_sibling.map_err(|error| error.to_string()),
        }
    }

    /// Whether it is worth it to look once more at an image, although nothing seems to be wrong with it.
    pub(crate) fn is_worth_another_look(&self, case: &Case<'_>, planned: &Planned) -> bool {
        let image = planned.assessment.observation.image();
        let created = image.and_then(|image| image.created);
        let settled = self.settled_since(created.unwrap_or(case.registration.time));
        settled.is_none_or(|settled| settled < ANOTHER_LOOK)
    }

    /// For how long an image of this time has been settled: less than nothing, if it is not yet. `None` for a settle time
    /// without end.
    pub(crate) fn settled_since(&self, time: DateTime<Utc>) -> Option<TimeDelta> {
        let settle = TimeDelta::from_std(self.config.settle).unwrap_or(TimeDelta::MAX);
        (self.now() - time).checked_sub(&settle)
    }

    /// Whether every event of this registration has had the time to be judged once. Each waits for the settle time.
    fn no_other_event_may_come(&self, registration: &Registration) -> bool {
        let settled = self.settled_since(registration.time);
        is_old(registration, self.now()) && settled.is_some_and(|settled| settled > OTHER_EVENT)
    }

    /// The Recycle Bin rule that discarded images depend on. Disabled ones depend on none.
    pub(crate) fn recycle_bin_rule(&self) -> Option<&str> {
        let rule = self.config.recycle_bin_rule.as_deref();
        rule.filter(|_| self.policy.action != DiscardAction::Disable)
    }

    /// Looks at the image until it is visible, within `GUARD_WAIT_SECONDS`.
    pub(crate) async fn observe(
        &self,
        registration: &Registration,
        patience: &mut Patience,
    ) -> Result<Observation, Error> {
        let id = &registration.image_id;
        let old = is_old(registration, self.now());
        let mut asked = false;
        loop {
            let why = match observed(self.aws.describe_image(id).await?) {
                Ok(observation) => return Ok(observation),
                Err(Unseen::There(why)) => why,
                Err(Unseen::Unknown(_)) if old => {
                    let why =
                        "EC2 knows no such image, more than ten minutes after the event".into();
                    return Ok(Observation::Gone {
                        why,
                        disabled: false,
                    });
                }
                // What the guard took away itself does not appear any more.
                Err(Unseen::Unknown(why)) => match self.took_away(registration, &mut asked).await {
                    Some(gone) => return Ok(gone),
                    None => why,
                },
            };
            if !patience.pause().await {
                return Err(not_visible(id, why));
            }
        }
    }

    /// That the guard discarded an image which EC2 does not show, if the ledger has it. It is asked once.
    async fn took_away(
        &self,
        registration: &Registration,
        asked: &mut bool,
    ) -> Option<Observation> {
        if std::mem::replace(asked, true) {
            return None;
        }
        // A ledger that can not be reached says nothing: then it is waited for as for any other image.
        let turn = self.ledger.look(registration).await.ok()?;
        let at = turn.entry.attempted?;
        let at = at.to_rfc3339_opts(SecondsFormat::Secs, true);
        let why = match turn.entry.unfinished() {
            None => format!("EC2 knows no such image, and the guard discarded it at {at}"),
            // It may not have been carried out, and EC2 may not show the image for a moment.
            Some(_) => {
                let bin = self.aws.recycle_bin(&registration.image_id).await;
                bin.ok()??;
                format!("it is in the Recycle Bin, and the guard began to discard it at {at}")
            }
        };
        Some(Observation::Gone {
            why,
            disabled: false,
        })
    }

    /// Tags come late: a young image counts for nothing but what no later tag can change.
    fn settled(&self, registration: &Registration, assessment: &Assessment) -> Result<(), Error> {
        let declared = assessment.expectation.decided_by_declaration()
            && !self.policy.names_product_codes_by_tag();
        let created = match (&assessment.observation, assessment.judgement.verdict) {
            (_, Verdict::Verified) if declared => return Ok(()),
            (_, Verdict::Exempt) => return Ok(()),
            (Observation::Available(image), _) => image.created.unwrap_or(registration.time),
            (Observation::Gone { .. } | Observation::Failed { .. }, _) => return Ok(()),
        };
        let age = self.now() - created;
        // No time within which the event comes back makes it old enough: a clock is wrong, which holds a discard.
        if age < -AHEAD {
            return Ok(());
        }
        let age_seconds = age.num_seconds();
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
        self.notifier.send(&notify::message(record)).await
    }

    /// Completes a record of which no discard is announced: reports it at once, or leaves it to the digest if this hour
    /// has sent as many alerts as the policy allows.
    ///
    /// # Errors
    /// [`Error`], if the alert could not be sent, or if another invocation writes to the ledger for too long.
    pub(crate) async fn tell(
        &self,
        case: &Case<'_>,
        record: Record,
        tell: bool,
    ) -> Result<Record, Error> {
        match &case.turn {
            Ok(turn) if tell && turn.may_wait_for_digest(&record, self.now()) => {
                match self.way_of_alert(turn, &record).await? {
                    Way::AtOnce => self.tell_at_once(case, record, tell).await,
                    Way::FirstOver => {
                        let message = notify::first_over(&record, self.policy.alerts_per_hour);
                        self.tell_by(case, record, &message).await
                    }
                    Way::Digest => self.leave_to_digest(case, turn, record).await,
                }
            }
            _ => self.tell_at_once(case, record, tell).await,
        }
    }

    /// How an alert that announces no discard reaches people. If the ledger cannot be reached it is sent at once: one
    /// message more is better than silence.
    async fn way_of_alert(&self, turn: &Turn, record: &Record) -> Result<Way, Error> {
        let most = self.policy.alerts_per_hour;
        let gist = record.gist();
        let place = self.ledger.reserve_alert(turn, most, &gist, self.now());
        let first = match place.await {
            Ok(Place::Kept) => return Ok(Way::AtOnce),
            Ok(Place::Full(_)) if most == 0 => return Ok(Way::Digest),
            Ok(Place::Full(hour)) => self.ledger.is_first_over_alerts(turn, &hour).await,
            Err(error) => Err(error),
        };
        match first {
            Ok(true) => Ok(Way::FirstOver),
            Ok(false) => Ok(Way::Digest),
            Err(busy @ Error::Busy { .. }) => Err(busy),
            Err(error) => {
                tracing::warn!("the alert of {:?} is not counted: {error}", record.image_id);
                Ok(Way::AtOnce)
            }
        }
    }

    /// Leaves an image to the next digest. If the ledger does not take it, its alert is sent at once.
    pub(crate) async fn leave_to_digest(
        &self,
        case: &Case<'_>,
        turn: &Turn,
        record: Record,
    ) -> Result<Record, Error> {
        match self.ledger.leave_to_digest(turn, &record).await {
            Ok(()) => Ok(self.journal(case.delivery, record)),
            Err(busy @ Error::Busy { .. }) => Err(busy),
            // One message more is better than one image that nobody hears of.
            Err(error) => {
                tracing::warn!(
                    "{} is not left to the digest: {error}",
                    case.registration.image_id
                );
                self.tell_at_once(case, record, true).await
            }
        }
    }

    /// Completes a record: tells people, if they are to be told and were not just told the same, and closes
    /// it.
    pub(crate) async fn tell_at_once(
        &self,
        case: &Case<'_>,
        record: Record,
        tell: bool,
    ) -> Result<Record, Error> {
        let gist = record.gist();
        let told = match &case.turn {
            _ if !tell => Told::Nothing,
            Ok(turn) if turn.entry.was_told(&gist, self.now()) => Told::AsBefore,
            _ => {
                let message = notify::message(&record);
                return self.tell_by(case, record, &message).await;
            }
        };
        Ok(self.close(case, record, told).await)
    }

    /// Sends a message about a record, and closes the record.
    async fn tell_by(
        &self,
        case: &Case<'_>,
        record: Record,
        message: &Message,
    ) -> Result<Record, Error> {
        match self.notifier.send(message).await {
            Ok(()) => {
                let told = Told::Now(record.gist());
                Ok(self.close(case, record, told).await)
            }
            Err(silence) => Err(self.close_with(case, record, silence).await),
        }
    }

    /// Closes the record of an event that must come again.
    pub(crate) async fn close_with(
        &self,
        case: &Case<'_>,
        mut record: Record,
        error: Error,
    ) -> Error {
        record.error = Some(error.to_string());
        self.close(case, record, Told::AsBefore).await;
        error
    }

    /// Gives a complete record to ledger and journal.
    pub(crate) async fn close(&self, case: &Case<'_>, record: Record, told: Told) -> Record {
        let record = self.journal(case.delivery, record);
        self.keep(case, &record, told).await;
        record
    }

    /// Gives a record that the journal has to the ledger.
    pub(crate) async fn keep(&self, case: &Case<'_>, record: &Record, told: Told) {
        if let Ok(turn) = &case.turn
            && let Err(error) = self.ledger.end(turn, record, told).await
        {
            // A discard was noted before it was begun.
            tracing::warn!(
                "the ledger does not have the record of {}: {error}",
                case.registration.image_id
            );
        }
    }

    /// Gives a complete record to the journal.
    pub(crate) fn journal(&self, delivery: &Delivery, record: Record) -> Record {
        self.write(delivery, Line::Record(&record));
        record
    }

    /// Gives a line to the journal.
    pub(crate) fn write(&self, delivery: &Delivery, line: Line<'_>) {
        (self.journal)(delivery, line);
    }

    /// Sends the digest: the images whose discards or alerts were over an hourly limit, in as few messages as possible.
    ///
    /// # Errors
    /// [`Error`], if the event must come again: those who were just told of are told of again.
    async fn digest(&self, digest: Digest, delivery: &Delivery) -> Result<Record, Error> {
        let (account, region) = (digest.account.as_str(), digest.region.as_str());
        let waiting = self.ledger.waiting_for_digest(account, region).await?;
        let waiting: Vec<_> = waiting.into_iter().collect();
        let mut told = 0;
        for images in waiting.chunks(IN_A_DIGEST) {
            let mut held = Vec::new();
            for (image, _) in images {
                let entry = self.ledger.entry(account, region, image).await?;
                match (entry.for_digest(), entry.last()) {
                    (Some(record), _) => held.push(record),
                    // What became of it meanwhile has a record, and if need be an alert, of its own.
                    (None, Some(_)) => {}
                    (None, None) => held.push(serde_json::json!({ "image_id": image })),
                }
            }
            told += held.len();
            for message in notify::digest(&digest, held) {
                self.notifier.send(&message).await?;
            }
            let notes = images.iter().flat_map(|(_, notes)| notes.clone());
            let notes = notes.collect();
            self.ledger.digested(account, region, notes).await?;
        }
        Ok(self.journal(delivery, Record::of_digest(digest, told)))
    }

    pub(crate) fn name<'a>(&'a self, registration: &'a Registration) -> ImageName<'a> {
        ImageName::new(registration, self.config.topic())
    }
}

/// Why what EC2 says of an image is nothing to judge by.
pub(crate) enum Unseen {
    /// The image is there, in a state that passes.
    There(String),
    /// EC2 shows no such image.
    Unknown(String),
}

/// What EC2's answer says of an image.
pub(crate) fn observed(described: Described) -> Result<Observation, Unseen> {
    let gone = |why: String, disabled| Ok(Observation::Gone { why, disabled });
    match described {
        Described::Available(image) => Ok(Observation::Available(image)),
        Described::Disabled => gone("the image is disabled".into(), true),
        Described::Gone(why) => gone(why, false),
        Described::Failed(why) => Ok(Observation::Failed { why }),
        Described::Underway(why) => Err(Unseen::There(why)),
        Described::NoImage => Err(Unseen::Unknown("EC2 shows no such image".into())),
        Described::NotFound => Err(Unseen::Unknown("EC2 says InvalidAMIID.NotFound".into())),
    }
}

/// Whether EC2 has had the time to show the image of a registration.
fn is_old(registration: &Registration, now: DateTime<Utc>) -> bool {
    now - registration.time > OLD_EVENT
}

/// What an image could be created from anew: the instance that lineage found.
fn anew(assessment: &Assessment) -> Option<Anew> {
    let expectation = &assessment.expectation;
    let origin = expectation.origin.as_ref()?;
    let image = assessment.observation.image()?;
    let right = match expectation.platforms() {
        // CreateImage takes the instance's product codes along.
        Some(platforms) => platforms.difference(&origin.bills, true) == Difference::None,
        None => expectation.decisive().is_none(),
    };
    Some(Anew {
        origin: origin.clone(),
        right,
        tags: image.tags.clone(),
    })
}

impl Planned {
    /// Whether the image is gone in the way in which this discard would have taken it away.
    fn is_gone_by(&self, discard: Option<&Discard>) -> bool {
        match (&self.assessment.observation, discard) {
            (Observation::Gone { disabled, .. }, Some(discard)) => {
                *disabled == (discard.deed() == Action::Disable)
            }
            _ => false,
        }
    }

    /// Whether another event of the same registration, which says who registered the image, may make another
    /// thing of what people would be told: a discard that only this holds, or what a rule says that asks.
    fn awaits_identity(&self) -> bool {
        let asked = self.assessment.expectation.identity_asked;
        self.plan.held_by == [Interlock::IdentityUnknown]
            || (asked && (self.plan.tell || self.plan.action == Action::Hold))
    }

    /// Whether nothing holds the discard, or leaves the image unverifiable, but what could not be found out
    /// now, and may be the next time. `is_worth_it`: whether a verified image is looked at once more, since a source that the
    /// policy wants asked of every image could not be.
    pub(crate) fn may_pass(&self, is_worth_it: bool) -> bool {
        let expectation = &self.assessment.expectation;
        match self.assessment.judgement.verdict {
            Verdict::Unverifiable => return expectation.may_pass,
            Verdict::Verified => return expectation.may_pass && is_worth_it,
            _ => {}
        }
        // What may take long is waited for only where a discard is due.
        let asked = expectation.may_pass || expectation.is_late;
        let held_by = &self.plan.held_by;
        let around = self.surroundings.as_ref();
        let passes = |it: &Interlock| {
            (asked && *it == Interlock::SourceFailed)
                || around.is_some_and(|around| around.may_pass.contains(it))
        };
        !held_by.is_empty() && held_by.iter().all(passes)
    }

    /// The record as far as it goes before anything is done.
    pub(crate) fn record(&self, registration: &Registration) -> Record {
        let Assessment {
            observation,
            expectation,
            judgement,
            ..
        } = &self.assessment;
        let mut record = Record::new(
            registration,
            observation,
            expectation,
            judgement,
            &self.plan,
        );
        if let Some(surroundings) = &self.surroundings {
            record.look_around(surroundings);
            if let (true, Observation::Available(image), Ok(permissions)) = (
                self.plan.action.is_discard(),
                observation,
                &surroundings.launch_permissions,
            ) {
                record.rebuild = Some(Rebuild::of(registration, image, permissions.clone()));
            }
        }
        record.before = self.before.clone();
        if !self.doubts.is_empty() {
            let known = record.error.take().into_iter();
            let all: Vec<String> = known.chain(self.doubts.iter().cloned()).collect();
            record.error = Some(all.join("; "));
        }
        record.fix = remediation::fix(&record, anew(&self.assessment).as_ref());
        if registration.by_packer && matches!(record.verdict, Verdict::Mismatch(_)) {
            record.fix.push(remediation::AT_PACKER.into());
        }
        record
    }
}

/// What cannot be right, if it holds a discard.
fn doubts(circumstances: &Circumstances<'_>, plan: &Plan) -> Vec<String> {
    let Circumstances {
        now,
        registration,
        observation,
        past,
        ..
    } = circumstances;
    let unreadable = past.and_then(|past| past.unreadable.as_deref());
    let unreadable = unreadable.map(|what| {
        format!(
            "the ledger's item {} cannot be read: {what}",
            crate::ledger::item_of(registration)
        )
    });
    let clock = observation
        .image()
        .and_then(|image| wrong_clock(*now, registration, image));
    let holds = |interlock| plan.held_by.contains(&interlock);
    let unreadable = unreadable.filter(|_| holds(Interlock::LedgerUnavailable));
    let clock = clock.filter(|_| holds(Interlock::TooOld));
    unreadable.into_iter().chain(clock).collect()
}

/// What is known of a discard before, of an image that is held for one.
fn what_was_before(case: &Case<'_>, surroundings: Option<&Surroundings>) -> String {
    let at = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let entry = case.turn.as_ref().ok().map(|turn| &turn.entry);
    let own = entry.and_then(|entry| entry.attempted);
    let undated = entry.is_some_and(|entry| entry.undated);
    // The end of it is known: EC2 said that it did it, or the image was seen to be gone.
    let completed = entry
        .and_then(|entry| entry.discard.as_ref())
        .is_some_and(|discard| discard.completed);
    let sibling = surroundings.and_then(|around| around.discarded_sibling.clone().ok().flatten());
    match (own, sibling) {
        (Some(own), _) if completed => format!(
            "it was discarded at {}, and somebody brought it back since",
            at(own)
        ),
        (Some(own), _) => format!(
            "its discard was begun at {}: either somebody brought it back since, or it is not known whether it was \
             carried out",
            at(own)
        ),
        (None, _) if undated => "its item in the ledger has marks of a discard, and no time of it that can be read: either \
             somebody brought it back since, or it is not known whether it was carried out"
            .to_owned(),
        (None, Some(sibling)) => {
            format!(
                "another image of the same snapshot was discarded at {}, and this one was registered afterwards",
                at(sibling)
            )
        }
        (None, None) => "it bears the guard's mark, and the ledger does not know why: it may have been discarded before".to_owned(),
    }
}

pub(crate) fn not_visible(id: &AmiId, why: impl Into<String>) -> Error {
    Error::NotVisibleYet {
        image: id.to_string(),
        why: why.into(),
    }
}
