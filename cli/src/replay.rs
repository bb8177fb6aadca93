//! `ami-guard replay`: judges registrations again, from what EventBridge delivers or what CloudTrail keeps.

use std::fs::File;
use std::io::{self, Read, Write};
use std::time::Duration;

use ami_billing_guard::record::Record;
use ami_billing_guard::verdict::Verdict;
use ami_billing_guard::{Answer, Deadline, Error};
use clap::Args;
use flate2::read::MultiGzDecoder;
use serde_json::{Value, json};

use crate::account::{Guarding, Session};
use crate::show::{self, headline, shown, would_do};
use crate::{Outcome, Stop, tell};

const AFTER: &str = "\
Files may hold EventBridge events, CloudTrail's log files as they are in S3, the answer of aws cloudtrail \
lookup-events or of aws logs filter-log-events on a trail's log group, or batches of SQS, also with SNS's envelope; \
several JSON documents one after the other, and gzip as well. What is no registration in this account and Region is \
counted and left out.

Exit codes:
  0  all AMIs bill what they should, are exempt, or there were none
  1  a mismatch was found
  2  the command line, or a file, was not understood
  3  of an AMI, what it bills or should bill could not be found out

Without --enforce nothing is changed, and nobody told.";

/// What to judge again.
#[derive(Args)]
#[command(after_help = AFTER)]
pub(crate) struct Arguments {
    /// The files; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    #[command(flatten)]
    guarding: Guarding,
    /// Act as the deployed guard does: tell people, and discard what the policy lets it discard
    #[arg(long)]
    enforce: bool,
    /// Print what is no registration as well, and why not
    #[arg(long)]
    all: bool,
    /// Print the records as JSON, one a line
    #[arg(long)]
    json: bool,
}

/// How long the guard may take for one event, as in Lambda.
const EVENT: Duration = Duration::from_secs(60);

/// Judges what the files tell of, in their order.
pub(crate) async fn run(arguments: Arguments, out: &mut dyn Write) -> Result<Outcome, Stop> {
    if arguments.enforce {
        arguments.guarding.may_enforce()?;
    }
    // What can not be read is known before anything is done.
    let mut events = Vec::new();
    for file in &arguments.files {
        let found = read(file).map_err(|why| Stop::Usage(format!("{file:?}: {why}")))?;
        let found = found.into_iter().enumerate();
        events.extend(found.map(|(at, event)| (place(file, at + 1, event.as_ref().ok()), event)));
    }
    let session = arguments.guarding.begin(Duration::ZERO).await?;
    let mut outcome = Outcome::Good;
    let (all, mut registrations) = (events.len(), 0);
    for (place, event) in events {
        let dealt = match event {
            Ok(event) => deal(&session, event, arguments.enforce).await,
            Err(why) => Err(Error::MalformedEvent(why)),
        };
        let record = match dealt {
            Ok(record) => record,
            Err(error) => {
                registrations += usize::from(!matches!(error, Error::MalformedEvent(_)));
                outcome = outcome.and(tell(&format!("{place}: {error}"), Outcome::Unknown));
                continue;
            }
        };
        // What is gone needs nothing any more.
        if record.verdict != Verdict::Gone {
            outcome = outcome.and(Outcome::of(record.verdict));
        }
        if record.verdict != Verdict::Ignored {
            registrations += 1;
        } else if !arguments.all {
            continue;
        }
        let text = if arguments.json {
            show::json(&record)?
        } else {
            let done = match record.outcome {
                Some(outcome) => format!("{} {:?}", action(&record), outcome).to_lowercase(),
                None if arguments.enforce => action(&record),
                None => would_do(&record),
            };
            let why = shown(&record.reason);
            format!(
                "{}\n  why          {why}\n  the guard    {done}\n",
                headline(&record)
            )
        };
        out.write_all(text.as_bytes())?;
    }
    let _ = writeln!(
        io::stderr(),
        "{registrations} of {all} events are registrations here"
    );
    Ok(outcome)
}

fn action(record: &Record) -> String {
    format!("{:?}", record.action).to_lowercase()
}

async fn deal(session: &Session, event: Value, enforce: bool) -> Result<Record, Error> {
    if !enforce {
        return session.guard.rehearse(event).await;
    }
    match session.guard.handle(event, Deadline::now() + EVENT).await? {
        Answer::Record(record) => Ok(*record),
        // Only a batch, or an order to test itself, has these, and neither comes so far.
        Answer::Batch(_) | Answer::SelfTest(_) => {
            Err(Error::MalformedEvent("not a single event".into()))
        }
    }
}

/// Where an event stands, for people: `"events.json", event 3 (7bf73129-…)`.
fn place(file: &str, number: usize, event: Option<&Value>) -> String {
    let id = event.and_then(|event| event.get("id")?.as_str());
    let id = id.map(|id| format!(" ({})", shown(id))).unwrap_or_default();
    format!("{file:?}, event {number}{id}")
}

/// The events in a file; of an entry that is none, why.
///
/// # Errors
/// Why there is not a single event to be read.
fn read(file: &str) -> Result<Vec<Result<Value, String>>, String> {
    let mut bytes = Vec::new();
    let done = match file {
        "-" => io::stdin().read_to_end(&mut bytes),
        path => File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)),
    };
    done.map_err(|error| format!("can not be read: {error}"))?;
    if bytes.starts_with(b"\x1f\x8b") {
        let mut unpacked = Vec::new();
        MultiGzDecoder::new(bytes.as_slice())
            .read_to_end(&mut unpacked)
            .map_err(|error| format!("is not whole gzip: {error}"))?;
        bytes = unpacked;
    }
    let mut events = Vec::new();
    let mut documents = 0;
    for document in serde_json::Deserializer::from_slice(&bytes).into_iter::<Value>() {
        let document = document.map_err(|error| format!("is not JSON: {error}"))?;
        collect(document, &mut events);
        documents += 1;
    }
    if documents == 0 {
        return Err("is empty".into());
    }
    match events.first() {
        Some(Err(why)) if events.iter().all(Result::is_err) => Err(why.clone()),
        _ => Ok(events),
    }
}

/// Takes the events out of a document, whatever they are wrapped in.
fn collect(mut document: Value, events: &mut Vec<Result<Value, String>>) {
    if let Value::Array(documents) = document {
        return documents.into_iter().for_each(|it| collect(it, events));
    }
    // An SQS batch and a CloudTrail log file call it Records, lookup-events Events, and filter-log-events events.
    for list in ["Records", "Events", "events"] {
        if let Some(documents) = document.get_mut(list).map(Value::take) {
            return collect(documents, events);
        }
    }
    // A message of SQS, an entry of lookup-events, SNS's envelope, a line of a log group.
    for wrapped in ["body", "CloudTrailEvent", "Message", "message"] {
        if let Some(text) = document.get(wrapped).and_then(Value::as_str) {
            return match serde_json::from_str(text) {
                Ok(inner) => collect(inner, events),
                Err(error) => {
                    events.push(Err(format!("has a {wrapped} that is not JSON: {error}")));
                }
            };
        }
    }
    events.push(if document.get("detail-type").is_some() {
        Ok(document)
    // CloudTrail's own records without a call (Insights) have no name.
    } else if document.get("eventName").is_some() || document.get("eventVersion").is_some() {
        Ok(delivered(document))
    } else {
        Err(
            "is neither an EventBridge event, nor CloudTrail's, nor a list or batch of these"
                .into(),
        )
    });
}

/// A record of CloudTrail as EventBridge delivers it. (EventBridge User Guide, "AWS service events delivered via AWS
/// CloudTrail".)
fn delivered(record: Value) -> Value {
    let member = |key: &str| record.get(key).cloned().unwrap_or_default();
    let text = |key: &str| record.get(key).and_then(Value::as_str).unwrap_or_default();
    let service = text("eventSource").split('.').next().unwrap_or_default();
    let kind = match text("eventType") {
        "" | "AwsApiCall" => "AWS API Call via CloudTrail",
        "AwsServiceEvent" => "AWS Service Event via CloudTrail",
        other => other,
    };
    json!({
        "version": "0",
        "id": member("eventID"),
        "detail-type": kind,
        "source": format!("aws.{service}"),
        "account": member("recipientAccountId"),
        "time": member("eventTime"),
        "region": member("awsRegion"),
        "resources": [],
        "detail": record,
    })
}
