//! `ami-guard replay`: judges registrations again, from EventBridge events or CloudTrail's log files.

use std::fs::File;
use std::io::{self, Read, Write};
use std::time::Duration;

use ami_billing_guard::event::{self, Scope};
use ami_billing_guard::record::Record;
use ami_billing_guard::verdict::Verdict;
use ami_billing_guard::{Answer, Deadline, Error};
use clap::Args;
use flate2::read::MultiGzDecoder;
use serde_json::{Value, json};

use crate::account::{GuardArgs, Session};
use crate::outcome::{CliError, Outcome};
use crate::show::{self, headline, shown, tell, would_do};

const AFTER: &str = "\
A file may contain one or more of these as JSON, also compressed with gzip, of at most 256 MiB unpacked:
  - EventBridge events
  - CloudTrail's log files as they are in S3
  - the answer of aws cloudtrail lookup-events
  - the answer of aws logs filter-log-events on a trail's log group
  - batches of SQS, also with SNS's envelope

Events that are not registrations in this account and Region are counted and left out. An event that is not valid is \
reported on standard error, and the others are judged. With --strict, no event is judged then. A file without any \
event always stops the command.

Exit codes:
  0  all AMIs are billed as expected, are exempt, or there were none
  1  a mismatch was found
  2  the command line or a file is not valid, or with --strict an event
  3  an event is not valid, or for an AMI it is unknown how it is billed or what is expected

Without --enforce, nothing is changed and no alert is sent. With it, you have to type the account's \
id. Without a terminal, add --yes instead.";

/// What to judge again.
#[derive(Args)]
#[command(after_help = AFTER)]
pub(crate) struct Arguments {
    /// The files; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    #[command(flatten)]
    guarding: GuardArgs,
    /// Act as the deployed guard does: send alerts, and discard what the policy lets it discard
    #[arg(long)]
    enforce: bool,
    /// With --enforce, do not ask for the account's id
    #[arg(long, requires = "enforce")]
    yes: bool,
    /// Judge nothing if an event is not valid
    #[arg(long)]
    strict: bool,
    /// Also print events that are not registrations, and why
    #[arg(long)]
    all: bool,
    /// Print the records as JSON, one per line
    #[arg(long)]
    json: bool,
}

/// Maximum size of a file, in bytes after decompression. All events are in memory before the first is judged, and take
/// several times the size of their text. CloudTrail's largest log files have about 50 MiB.
const MOST_BYTES: u64 = 256 * 1024 * 1024;

/// How long the guard may take for one event, as in Lambda.
const EVENT: Duration = Duration::from_secs(60);

/// Judges the events in the files, in order.
pub(crate) async fn run(arguments: Arguments, out: &mut dyn Write) -> Result<Outcome, CliError> {
    if arguments.enforce {
        arguments.guarding.may_enforce(arguments.yes)?;
    }
    // Unreadable files are reported before anything is done.
    let mut events = Vec::new();
    for file in &arguments.files {
        let found = read(file).map_err(|why| CliError::Usage(format!("{file:?}: {why}")))?;
        let found = found.into_iter().enumerate();
        events.extend(found.map(|(at, event)| (place(file, at + 1, event.as_ref().ok()), event)));
    }
    let session = arguments.guarding.begin(Duration::ZERO).await?;
    if arguments.strict {
        strictly(&events, &session.scope())?;
    }
    if arguments.enforce && !arguments.yes {
        let events = match events.len() {
            1 => "1 event".to_owned(),
            all => format!("{all} events"),
        };
        let region = session.aws.region().unwrap_or_default();
        session.confirm_enforcing(&format!("{events} of {region}"))?;
    }
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
        // An image that is gone needs no action.
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
        "{registrations} of {all} events are registrations in this account and Region"
    );
    Ok(outcome)
}

/// Requires that every event is valid. `scope` is that of the guard, which ignores events of other accounts and
/// Regions.
///
/// # Errors
/// [`CliError::Usage`] with the first invalid event, and the number of further ones.
fn strictly(events: &[(String, Result<Value, String>)], scope: &Scope) -> Result<(), CliError> {
    let mut faults = events.iter().filter_map(|(place, event)| {
        let why = match event {
            Ok(event) => event::parse(event.clone(), scope).err()?,
            Err(why) => Error::MalformedEvent(why.clone()),
        };
        Some(format!("{place}: {why}"))
    });
    let Some(first) = faults.next() else {
        return Ok(());
    };
    let more = match faults.count() {
        0 => String::new(),
        more => format!("{more} more events are not valid\n"),
    };
    Err(CliError::Usage(format!(
        "{first}\n{more}--strict: nothing was judged"
    )))
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
        // Only a batch or a self-test has these answers, and neither reaches this point.
        Answer::Batch(_) | Answer::SelfTest(_) => Err(Error::MalformedEvent(
            "a batch or a self-test, not an event".into(),
        )),
    }
}

/// The position of an event, for messages: `"events.json", event 3 (7bf73129-…)`.
fn place(file: &str, number: usize, event: Option<&Value>) -> String {
    let id = event.and_then(|event| event.get("id")?.as_str());
    let id = id.map(|id| format!(" ({})", shown(id))).unwrap_or_default();
    format!("{file:?}, event {number}{id}")
}

/// The events in a file. An entry that is not an event is `Err` with the reason.
///
/// # Errors
/// The reason why the file has no readable event.
fn read(file: &str) -> Result<Vec<Result<Value, String>>, String> {
    let unread = |error: io::Error| format!("cannot be read: {error}");
    let most = MOST_BYTES / 1024 / 1024;
    let bytes = match file {
        "-" => bounded(io::stdin()),
        path => File::open(path).and_then(bounded),
    };
    let mut bytes = bytes
        .map_err(unread)?
        .ok_or(format!("has more than {most} MiB. Split it"))?;
    if bytes.starts_with(b"\x1f\x8b") {
        bytes = bounded(MultiGzDecoder::new(bytes.as_slice()))
            .map_err(|error| format!("is not complete gzip: {error}"))?
            .ok_or(format!(
                "is gzip that unpacks to more than {most} MiB. Unpack and split it"
            ))?;
    }
    let events = events(&bytes);
    match events.first() {
        None => Err("is empty".into()),
        Some(Err(why)) if events.iter().all(Result::is_err) => Err(why.clone()),
        Some(_) => Ok(events),
    }
}

/// All bytes of a reader, or `None` if there are more than [`MOST_BYTES`].
fn bounded(reader: impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    reader.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= MOST_BYTES).then_some(bytes))
}

/// The events of all JSON documents. A document that is not JSON is `Err` with the reason.
fn events(bytes: &[u8]) -> Vec<Result<Value, String>> {
    let mut events = Vec::new();
    let (mut rest, mut lines_before) = (bytes, 0);
    loop {
        let mut documents = serde_json::Deserializer::from_slice(rest).into_iter::<Value>();
        let mut whole = 0;
        let error = loop {
            match documents.next() {
                None => return events,
                Some(Ok(document)) => collect(document, &mut events),
                Some(Err(error)) => break error,
            }
            whole = documents.byte_offset();
        };
        let broken = rest.get(whole..).unwrap_or_default();
        let line_of = |part: &[u8]| {
            let before = rest.iter().take(rest.len() - part.len());
            1 + lines_before + before.filter(|it| **it == b'\n').count()
        };
        // An error at column 0 is at the end of the previous line.
        let (line, place) = match (lines_before + error.line(), error.column()) {
            (line, 0) => (line - 1, format!("the end of line {}", line - 1)),
            (line, column) => (line, format!("line {line} column {column}")),
        };
        let begins = match line_of(broken.trim_ascii_start()) {
            begins if begins == line => String::new(),
            begins => format!(", in the document that begins at line {begins}"),
        };
        let error = error.to_string();
        // serde_json's own position is relative to the rest of the file, so it is cut off.
        let why = error.split(" at line ").next().unwrap_or_default();
        events.push(Err(format!("is not JSON: {why} at {place}{begins}")));
        let Some(next) = next_document(broken) else {
            return events;
        };
        (rest, lines_before) = (next, line_of(next) - 1);
    }
}

/// The documents after an invalid one, from the next line that begins a document. Inner lines of a document are
/// indented, and a file with one document a line has no inner lines.
fn next_document(broken: &[u8]) -> Option<&[u8]> {
    let begins = |at: &usize| matches!(broken.get(at + 1), Some(b'{' | b'['));
    let blank = broken.iter().take_while(|it| it.is_ascii_whitespace());
    let lines = broken.iter().enumerate().skip(blank.count());
    let mut lines = lines.filter(|(_, it)| **it == b'\n').map(|(at, _)| at);
    broken.get(lines.find(begins)? + 1..)
}

/// Adds the events of a document to `events`, and unwraps any envelope around them.
fn collect(mut document: Value, events: &mut Vec<Result<Value, String>>) {
    if let Value::Array(documents) = document {
        return documents.into_iter().for_each(|it| collect(it, events));
    }
    // The list is `Records` in an SQS batch and a CloudTrail log file, `Events` in lookup-events, and `events` in
    // filter-log-events.
    for list in ["Records", "Events", "events"] {
        if let Some(documents) = document.get_mut(list).map(Value::take) {
            return collect(documents, events);
        }
    }
    // An SQS message, an entry of lookup-events, an SNS envelope, and a line of a log group.
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
    // CloudTrail's records without an API call (Insights) have no `eventName`.
    } else if document.get("eventName").is_some() || document.get("eventVersion").is_some() {
        Ok(delivered(document))
    } else {
        Err("is not an event of EventBridge or CloudTrail, nor a list or batch of these".into())
    });
}

/// A CloudTrail record in the form in which EventBridge delivers it. (EventBridge User Guide, "AWS service events
/// delivered via AWS CloudTrail".)
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
