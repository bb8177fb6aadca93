//! `ami-guard check`: whether AMIs are billed as expected, and what the guard would do.

use std::io::Write;
use std::time::Duration;

use ami_billing_guard::Error;
use ami_billing_guard::ec2::ReservedInstances;
use ami_billing_guard::ids::AmiId;
use ami_billing_guard::record::Record;
use ami_billing_guard::record::remediation::is_command;
use clap::{Args, value_parser};
use serde::Serialize;

use crate::account::{GuardArgs, Session};
use crate::outcome::{CliError, Outcome};
use crate::reserved::{Unapplied, unapplied};
use crate::show::{bills, command, headline, json, note, shown, tell, would_do};

const AFTER: &str = "\
Exit codes:
  0  all AMIs are billed as expected, or are exempt
  1  a mismatch was found
  2  the command line or the policy is not valid
  3  for an AMI, it is unknown how it is billed or what is expected

Needs the read permissions that docs/permissions.md lists. Without ec2:DescribeReservedInstances, the output leaves \
out Reserved Instances. Nothing is changed.";

/// What to check.
#[derive(Args)]
#[command(after_help = AFTER)]
pub(crate) struct Arguments {
    /// The AMIs
    #[arg(required = true, value_name = "AMI")]
    images: Vec<AmiId>,
    #[command(flatten)]
    guarding: GuardArgs,
    /// How long to wait until a newly registered AMI is available
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = value_parser!(u32).range(0..=3600))]
    wait: u32,
    /// Print the records as JSON, one per line
    #[arg(long)]
    json: bool,
}

/// An image's record, with the results that only the command line has.
#[derive(Serialize)]
pub(crate) struct Row<'a> {
    #[serde(flatten)]
    pub(crate) record: &'a Record,
    /// The account's Reserved Instances that do not apply to the image, or `null` if they are unknown.
    pub(crate) reserved_instances: Option<Vec<Unapplied<'a>>>,
}

/// Checks AMIs, one after the other.
pub(crate) async fn run(arguments: Arguments, out: &mut dyn Write) -> Result<Outcome, CliError> {
    let wait = Duration::from_secs(arguments.wait.into());
    let session = arguments.guarding.begin(wait).await?;
    let reserved = reserved(&session).await;
    let mut outcome = Outcome::Good;
    for image in &arguments.images {
        let record = match consider(&session, image).await {
            Ok(record) => record,
            Err(stop) => {
                outcome = outcome.and(stop);
                continue;
            }
        };
        outcome = outcome.and(Outcome::of(record.verdict));
        let row = Row {
            record: &record,
            reserved_instances: reserved.as_ref().map(|all| unapplied(all, &record)),
        };
        let text = match arguments.json {
            true => json(&row)?,
            false => text(&row),
        };
        out.write_all(text.as_bytes())?;
    }
    Ok(outcome)
}

/// The record of an AMI in its present state. Without a record, reports the reason and returns the outcome.
pub(crate) async fn consider(session: &Session, image: &AmiId) -> Result<Record, Outcome> {
    let unknown = |why: String| Err(tell(&why, Outcome::Unknown));
    match session.guard.consider(image, &session.account).await {
        Ok(record) => Ok(record),
        // The error's own text is about an event that is delivered again, so it does not fit here.
        Err(Error::NotVisibleYet { image, why }) => {
            let region = session.aws.region().unwrap_or_default();
            unknown(format!("{image} is not visible in {region}: {why}"))
        }
        Err(error) => unknown(error.to_string()),
    }
}

/// The account's Reserved Instances, or `None` if they cannot be listed.
pub(crate) async fn reserved(session: &Session) -> Option<Vec<ReservedInstances>> {
    match session.aws.reserved_instances().await {
        Ok(reserved) => Some(reserved),
        Err(error) => {
            note(&format!("could not list Reserved Instances: {error}"));
            None
        }
    }
}

fn text(row: &Row<'_>) -> String {
    let record = row.record;
    let mut text = format!("{}\n", headline(record));
    let mut line = |what: &str, value: &str| text.push_str(&format!("  {what:<13}{value}\n"));
    if let Some(actual) = &record.actual {
        line("billed as", &bills(actual));
    }
    if let Some(expected) = &record.expected {
        let source = expected.source.name();
        let what = shown(&expected.text());
        line("expected", &format!("{what}, source {source}"));
    }
    line("why", &shown(&record.reason));
    for (number, statement) in record.evidence.iter().enumerate() {
        let what = if number == 0 { "evidence" } else { "" };
        let says = shown(&statement.text());
        let source = statement.source.name();
        let detail = shown(&statement.detail);
        line(what, &format!("{source:<13}{says}  ({detail})"));
    }
    line("the guard", &would_do(record));
    if let Some(error) = &record.error {
        line("unknown", &shown(error));
    }
    for (number, unapplied) in row.reserved_instances.iter().flatten().enumerate() {
        let what = if number == 0 { "reserved" } else { "" };
        line(what, &reservation(unapplied));
    }
    for (number, step) in record.fix.iter().enumerate() {
        let what = if number == 0 { "fix" } else { "" };
        match is_command(step) {
            // On a line of its own, so that it can be copied and run.
            true => {
                if number == 0 {
                    line(what, "run:");
                }
                line("", &command(step));
            }
            false => line(what, &shown(step)),
        }
    }
    text
}

fn reservation(unapplied: &Unapplied<'_>) -> String {
    let reserved = unapplied.reserved;
    let bought = format!(
        "{} × {} for {} ({})",
        reserved.count,
        shown(&reserved.instance_type),
        shown(&reserved.platform),
        shown(&reserved.id)
    );
    match unapplied.would_apply {
        true => format!("{bought} do not apply, but would if it was billed as expected"),
        false => format!("{bought} do not apply, because they are for another platform"),
    }
}
