//! `ami-guard check`: whether AMIs are billed as expected, and what the guard would do.

mod judge;
mod junit;
mod packer;
mod target;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use ami_billing_guard::ec2::ReservedInstances;
use ami_billing_guard::ids::AmiId;
use ami_billing_guard::record::Record;
use ami_billing_guard::record::remediation::is_command;
use clap::{ArgGroup, Args, ValueEnum, value_parser};
use serde::Serialize;

use crate::account::{GuardArgs, Session};
use crate::outcome::{CliError, Outcome};
use crate::reserved::{Unapplied, unapplied};
use crate::show::{bills, command, headline, json, note, shown, tell, would_do};
pub(crate) use judge::consider;
use judge::judge;
use junit::Case;
use target::Target;

const AFTER: &str = "\
With --packer-manifest, every AMI in every Region of every build of Packer's last run is checked. examples/ci has \
complete gates for Packer, GitHub Actions, GitLab CI, CodeBuild and Image Builder.

Exit codes:
  0  all AMIs are billed as expected, or are exempt
  1  a mismatch was found
  2  the command line, the policy or the manifest is not valid, and no AMI was judged
  3  for an AMI, it is unknown how it is billed or what is expected

Needs the read permissions that docs/reference/permissions.md lists, in the Region of each AMI. Without \
ec2:DescribeReservedInstances, the output leaves out Reserved Instances. Nothing is changed.";

/// What to check.
#[derive(Args)]
#[command(after_help = AFTER, group = ArgGroup::new("what").required(true).multiple(true))]
pub(crate) struct Arguments {
    /// The AMIs. For an AMI in another Region, put the Region before it, as in us-east-1:ami-…
    #[arg(group = "what", value_name = "AMI")]
    images: Vec<Target>,
    /// Check the AMIs of Packer's last run, from the file that its manifest post-processor writes
    #[arg(long, group = "what", value_name = "FILE")]
    packer_manifest: Option<PathBuf>,
    #[command(flatten)]
    guarding: GuardArgs,
    /// How long to wait for each AMI until a newly registered one is available
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = value_parser!(u32).range(0..=3600))]
    wait: u32,
    /// The format of the output: text for people, json with a record per line, or junit, the XML for CI systems
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Short for --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

/// The format of the output.
#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
    Junit,
}

/// A Region in which AMIs are checked.
struct Place {
    session: Session,
    /// The account's Reserved Instances there, or `None` if they cannot be listed.
    reserved: Option<Vec<ReservedInstances>>,
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
pub(crate) async fn run(
    mut arguments: Arguments,
    out: &mut dyn Write,
) -> Result<Outcome, CliError> {
    let mut named = std::mem::take(&mut arguments.images);
    if let Some(path) = &arguments.packer_manifest {
        let run = packer::last_run(path)?;
        run.skipped.iter().for_each(|skipped| note(skipped));
        named.extend(run.amis);
    }
    let guarding = &mut arguments.guarding;
    // A Region does not have to be set if each AMI names its own.
    if named.iter().all(|target| target.region.is_some()) {
        let first = named.first().and_then(|target| target.region.clone());
        guarding.credentials.region = guarding.credentials.region.take().or(first);
    }
    let session = guarding.begin(Duration::ZERO).await?;
    let targets = each_once(named, session.aws.region().unwrap_or_default());
    let regions: BTreeSet<&str> = targets.iter().map(|(region, _)| region.as_str()).collect();
    let shows_region = regions.len() > 1;
    let wait = Duration::from_secs(arguments.wait.into());
    let format = match arguments.json {
        true => Format::Json,
        false => arguments.format,
    };
    let mut places = BTreeMap::new();
    let mut outcome = Outcome::Good;
    let mut cases = Vec::new();
    for (region, image) in &targets {
        let place = match places.entry(region) {
            Entry::Occupied(place) => place.into_mut(),
            Entry::Vacant(place) => {
                let session = arguments.guarding.elsewhere(&session, region)?;
                let reserved = reserved(&session).await;
                place.insert(Place { session, reserved })
            }
        };
        let result = match judge(&place.session, image, wait).await {
            Ok(record) => {
                outcome = outcome.and(Outcome::of(record.verdict));
                let row = Row {
                    record: &record,
                    reserved_instances: place.reserved.as_ref().map(|all| unapplied(all, &record)),
                };
                let text = text(&row, shows_region);
                match format {
                    Format::Text => out.write_all(text.as_bytes())?,
                    Format::Json => out.write_all(json(&row)?.as_bytes())?,
                    Format::Junit => {}
                }
                Ok((record, text))
            }
            Err(unjudged) => {
                outcome = outcome.and(tell(&unjudged.why, Outcome::Unknown));
                Err(unjudged)
            }
        };
        cases.push(Case {
            region: region.clone(),
            image: image.clone(),
            result,
        });
    }
    if let Format::Junit = format {
        out.write_all(&junit::document(&cases)?)?;
    }
    Ok(outcome)
}

/// The Region and the id of each AMI, in the order in which they are named first.
fn each_once(named: Vec<Target>, default_region: &str) -> Vec<(String, AmiId)> {
    let mut targets = Vec::new();
    for target in named {
        let region = target.region.unwrap_or_else(|| default_region.to_owned());
        let target = (region, target.image);
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    targets
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

/// A record as text for people. With `shows_region`, it names the AMI's Region.
fn text(row: &Row<'_>, shows_region: bool) -> String {
    let record = row.record;
    let mut text = format!("{}\n", headline(record));
    let mut line = |what: &str, value: &str| text.push_str(&format!("  {what:<13}{value}\n"));
    if let (true, Some(region)) = (shows_region, &record.region) {
        line("Region", &shown(region));
    }
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
