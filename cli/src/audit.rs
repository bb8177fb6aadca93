//! `ami-guard audit`: judges every AMI of the account.

pub(crate) mod journal;
mod row;
mod spreadsheet;
mod summary;

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ami_billing_guard::audit::{Audited, Scope};
use ami_billing_guard::ec2::ReservedInstances;
use ami_billing_guard::{CallStats, Clock, Deadline, Delivery, Error};
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::account::{GuardArgs, Session};
use crate::check::{Row, reserved};
use crate::outcome::{CliError, Outcome};
use crate::report::{self, About};
use crate::reserved::unapplied;
use crate::show::{note, tell};
use crate::{files, show};
use journal::{Header, Journal, Page, Purpose};
use summary::Summary;

const AFTER: &str = "\
The audit saves its results in a file while it runs, and --resume continues the last audit of the account. It reads \
disks only with --disk. It lists the AMIs that need attention, and with --all every AMI.

Exit codes:
  0  all AMIs are billed as expected, or are exempt
  1  a mismatch was found
  2  the command line or the policy is not valid
  3  for an AMI, it is unknown how it is billed or what is expected, or a Region could not be audited

Without --enforce, nothing is changed and no alert is sent. With it, you have to type the account's \
id. Without a terminal, add --yes instead.";

/// What to audit.
#[derive(Args)]
#[command(after_help = AFTER)]
pub(crate) struct Arguments {
    #[command(flatten)]
    guarding: GuardArgs,
    #[command(flatten)]
    extent: Extent,
    /// Continue where the last audit stopped
    #[arg(long)]
    resume: bool,
    /// The file for the results; by default one in your state folder, for the account, the Regions and the options
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Replace the results of an audit of another account, Region or policy, or with other options
    #[arg(long, conflicts_with = "resume")]
    force: bool,
    /// Discard what the policy lets the deployed guard discard, after an alert
    #[arg(long)]
    enforce: bool,
    /// With --enforce, do not ask for the account's id
    #[arg(long, requires = "enforce")]
    yes: bool,
    /// List every AMI
    #[arg(long)]
    all: bool,
    /// Print the records as JSON, one per line
    #[arg(long)]
    json: bool,
    /// Write a report for a browser
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the records as CSV, for a spreadsheet
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
}

/// The AMIs to audit, and how closely.
#[derive(Args)]
pub(crate) struct Extent {
    /// Audit all Regions that the account has enabled
    #[arg(long, conflicts_with = "region")]
    all_regions: bool,
    /// Audit only AMIs created since then: a date (2026-11-01), a time (2026-11-01T12:00:00Z), or an age (30d, 12h)
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Since>,
    /// Also read disks if the policy says so, which takes about a second each
    #[arg(long)]
    disk: bool,
}

/// How long the guard may take to discard one AMI, as in Lambda.
const AMI: Duration = Duration::from_secs(60);

/// A point in time, with the option's original text.
#[derive(Clone, Debug)]
struct Since {
    said: String,
    at: DateTime<Utc>,
}

fn since(text: &str) -> Result<Since, String> {
    Ok(Since {
        said: text.to_owned(),
        at: time(text)?,
    })
}

/// Parses a point in time, or an age.
fn time(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.to_utc());
    }
    if let Ok(day) = text.parse::<NaiveDate>() {
        return Ok(day.and_time(chrono::NaiveTime::MIN).and_utc());
    }
    let ago = |number: &str, of: fn(i64) -> Option<TimeDelta>| {
        let ago = of(number.parse::<u32>().ok()?.into())?;
        Clock::SYSTEM.now().checked_sub_signed(ago)
    };
    let ago = match (text.strip_suffix('d'), text.strip_suffix('h')) {
        (Some(days), _) => ago(days, TimeDelta::try_days),
        (_, Some(hours)) => ago(hours, TimeDelta::try_hours),
        _ => None,
    };
    ago.ok_or_else(|| {
        "accepted: a date (2026-11-01), a time (2026-11-01T12:00:00Z), or an age in days (30d) or hours (12h)".into()
    })
}

/// Audits the account.
pub(crate) async fn run(arguments: Arguments, out: &mut dyn Write) -> Result<Outcome, CliError> {
    if arguments.enforce {
        arguments.guarding.may_enforce(arguments.yes)?;
    }
    may_write(&arguments)?;
    let session = arguments.guarding.begin(Duration::ZERO).await?;
    let header = header(&arguments, &session).await?;
    if arguments.enforce && !arguments.yes {
        session.confirm_enforcing(&format!("every AMI in {}", header.regions.join(", ")))?;
    }
    let purpose = match (arguments.resume, arguments.force) {
        (true, _) => Purpose::Resume,
        (false, true) => Purpose::BeginByForce,
        (false, false) => Purpose::Begin,
    };
    let mut journal = Journal::open(arguments.state.as_deref(), header, purpose)?;
    if arguments.resume && journal.is_complete() {
        let when = journal.ended().format("%Y-%m-%d %H:%M");
        let why = format!(
            "the audit was completed at {when} UTC, so no AMI is examined again. To begin a new one, leave out --resume"
        );
        note(&why);
    }
    let audited = examine(&arguments, &session, &mut journal).await;
    let name = journal.path().display().to_string();
    let unchanged = format!("no page was completed, so {name:?} still has the earlier audit");
    audited.map_err(|stop| match stop {
        CliError::Unknown(why) if journal.is_in_place() => CliError::Unknown(format!(
            "{why}\nthe results so far are saved. To continue, add --resume"
        )),
        CliError::Unknown(why) => CliError::Unknown(format!("{why}\n{unchanged}")),
        stop => stop,
    })?;
    if !journal.is_in_place() {
        note(&unchanged);
    }
    present(&arguments, &journal, out)
}

/// Audits the account without a state file, for a command that only reads the results.
pub(crate) async fn unsaved(guarding: GuardArgs, extent: Extent) -> Result<Journal, CliError> {
    let arguments = Arguments {
        guarding,
        extent,
        resume: false,
        state: None,
        force: false,
        enforce: false,
        yes: false,
        all: false,
        json: false,
        html: None,
        csv: None,
    };
    let session = arguments.guarding.begin(Duration::ZERO).await?;
    let header = header(&arguments, &session).await?;
    // The journal keeps its file open, so it can be read after the name is gone.
    let file = tempfile::NamedTempFile::new().map_err(|error| {
        CliError::Unknown(format!(
            "no file can be created for the results: {error}. Set TMPDIR to a folder with room"
        ))
    })?;
    let mut journal = Journal::open(Some(file.path()), header, Purpose::Begin)?;
    examine(&arguments, &session, &mut journal).await?;
    Ok(journal)
}

/// The parameters of the audit.
async fn header(arguments: &Arguments, session: &Session) -> Result<Header, CliError> {
    let regions = match arguments.extent.all_regions {
        true => session.aws.regions().await?,
        false => session
            .aws
            .region()
            .map(str::to_owned)
            .into_iter()
            .collect(),
    };
    let since = arguments.extent.since.as_ref();
    Ok(Header {
        account: session.account.to_string(),
        regions,
        since: since.map(|since| since.at),
        since_said: since.map(|since| since.said.clone()),
        disk: arguments.extent.disk,
        enforce: arguments.enforce,
        policy: format!("{:?}", session.policy),
        policy_name: arguments.guarding.policy_name(),
        begun: Clock::SYSTEM.now(),
    })
}

/// Judges the AMIs that the journal does not have yet, and shows the progress.
async fn examine(
    arguments: &Arguments,
    session: &Session,
    journal: &mut Journal,
) -> Result<(), CliError> {
    let bar = ProgressBar::new_spinner().with_style(style());
    bar.enable_steady_tick(Duration::from_millis(100));
    let mut tally = session.aws.tally();
    let audited = audit(arguments, session, journal, &bar, &mut tally).await;
    bar.finish_and_clear();
    let (calls, throttles) = (tally.calls, tally.throttles);
    note(&format!("requests to AWS: {calls}, throttled: {throttles}"));
    audited
}

/// Checks that the files named on the command line can be written, so that a failure shows before AWS is called.
fn may_write(arguments: &Arguments) -> Result<(), CliError> {
    let named = [
        (&arguments.state, journal::STATE),
        (&arguments.html, report::REPORT),
        (&arguments.csv, spreadsheet::CSV),
    ];
    let named: Vec<_> = named
        .into_iter()
        .filter_map(|(path, kind)| Some((path.as_deref()?, kind)))
        .collect();
    for (number, (path, kind)) in named.iter().enumerate() {
        let mut others = named.iter().skip(number + 1);
        if let Some((_, other)) = others.find(|(other, _)| files::are_same(path, other)) {
            let (one, other) = (kind.option, other.option);
            let why = format!("{one} and {other} name the same file");
            return Err(CliError::Usage(why));
        }
    }
    for (path, kind) in named {
        kind.find(path)?;
        files::can_write_beside(kind.option, path)?;
    }
    Ok(())
}

fn style() -> ProgressStyle {
    let style = ProgressStyle::with_template("{spinner} {msg} {human_pos} AMIs, {elapsed}");
    style.unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// Judges the AMIs that the journal does not have yet.
async fn audit(
    arguments: &Arguments,
    session: &Session,
    journal: &mut Journal,
    bar: &ProgressBar,
    tally: &mut CallStats,
) -> Result<(), CliError> {
    bar.set_position(journal.rows);
    for region in journal.header.regions.clone() {
        let Some(token) = journal.place(&region) else {
            continue;
        };
        bar.set_message(format!("{region}:"));
        let there = arguments.guarding.elsewhere(session, &region)?;
        let reserved = reserved(&there).await;
        // After EC2 rejects a pagination cursor, the listing starts again. It may then repeat images that the journal
        // has.
        let seen = match journal.resumed {
            true => journal.images_of(&region)?,
            false => Default::default(),
        };
        let scope = Scope {
            since: journal.header.since,
            disks: arguments.extent.disk,
        };
        let mut resumes_at_a_place = journal.resumed && token.is_some();
        let mut pages = there.guard.audit(&session.account, scope, token);
        while let Some(audited) = pages.next().await {
            let audited = match audited {
                Ok(audited) => audited,
                // A pagination cursor may expire. The listing then starts again, without the images that the journal
                // has.
                Err(Error::Refused { .. }) if resumes_at_a_place => {
                    resumes_at_a_place = false;
                    pages = there.guard.audit(&session.account, scope, None);
                    continue;
                }
                // With several Regions, one that is forbidden or unavailable does not stop the audit.
                Err(error) if arguments.extent.all_regions => {
                    note(&format!("{region}: {error}"));
                    journal.end_page(&Page::failed(&region, &error.to_string()))?;
                    break;
                }
                Err(error) => return Err(error.into()),
            };
            resumes_at_a_place = false;
            tally.add(there.aws.tally());
            let page = Page::of(&region, &audited);
            let reserved = reserved.as_deref();
            let kept = keep(arguments, &there, journal, audited, reserved, &seen);
            pages.meanwhile(kept).await?;
            journal.end_page(&page)?;
            bar.set_position(journal.rows);
        }
    }
    Ok(())
}

/// Stores a page's records in the journal. With `--enforce`, carries out the discards that are due.
async fn keep(
    arguments: &Arguments,
    there: &Session,
    journal: &mut Journal,
    audited: Audited,
    reserved: Option<&[ReservedInstances]>,
    seen: &HashSet<String>,
) -> Result<(), CliError> {
    for mut record in audited.records {
        let Some(id) = record.image_id.as_deref() else {
            continue;
        };
        if seen.contains(id) {
            continue;
        }
        if arguments.enforce
            && record.action.is_discard()
            && let (Ok(image), Some(created)) = (id.parse(), record.registered_at)
        {
            let delivery = Delivery::from(Deadline::now() + AMI);
            let made_up = there
                .guard
                .process_missed(&image, &there.account, created, &delivery);
            match Box::pin(made_up).await {
                Ok(done) => record = done,
                Err(error) => {
                    note(&format!("{id} was not discarded: {error}"));
                    record.error = Some(error.to_string());
                }
            }
        }
        let row = Row {
            reserved_instances: reserved.map(|all| {
                let mut lost = unapplied(all, &record);
                lost.retain(|unapplied| unapplied.would_apply);
                lost
            }),
            record: &record,
        };
        journal.keep(&show::json(&row)?)?;
        if record.outcome.is_some() {
            journal.flush()?;
        }
    }
    Ok(())
}

/// Writes the report and the CSV file, and prints the journal's content.
fn present(
    arguments: &Arguments,
    journal: &Journal,
    out: &mut dyn Write,
) -> Result<Outcome, CliError> {
    // The files come first, so that they exist even if the reader closes the output early.
    let mut unwritten = Vec::new();
    for (path, what, write) in [
        (
            &arguments.html,
            "report",
            report as fn(&Path, &Journal) -> Result<(), String>,
        ),
        (&arguments.csv, "CSV file", spreadsheet),
    ] {
        let Some(path) = path else { continue };
        // Without a result, an earlier file is not replaced.
        let written = match journal.has_a_page() {
            true => write(path, journal),
            false => Err(format!("no page was completed, so no {what} was written")),
        };
        unwritten.extend(written.err());
    }
    let mut summary = Summary::new(!arguments.json, arguments.all);
    for line in journal.lines()? {
        let line = line?;
        if arguments.json {
            out.write_all(line.as_bytes())?;
        }
        summary.add(journal::row(&line)?, out)?;
    }
    summary.end(journal.pages(), out)?;
    // A mismatch determines the exit code even if a file could not be written.
    let outcome = summary.outcome();
    Ok(unwritten.iter().fold(outcome, |outcome, why| {
        outcome.and(tell(why, Outcome::Unknown))
    }))
}

/// Writes the report. The error is a message for people.
fn report(path: &Path, journal: &Journal) -> Result<(), String> {
    let header = &journal.header;
    let gaps = journal.pages().filter_map(|page| {
        let why = page.failed.as_ref()?;
        Some(format!("{}: {why}", page.region))
    });
    let about = About {
        account: header.account.clone(),
        regions: header.regions.clone(),
        since: header.since,
        begun: header.begun,
        ended: journal.ended(),
        policy: header.policy_name.clone(),
        gaps: gaps.collect(),
    };
    replace(path, &report::REPORT, |out| {
        report::write(&about, journal.rows()?, out)
    })
}

/// Writes the CSV file. The error is a message for people.
fn spreadsheet(path: &Path, journal: &Journal) -> Result<(), String> {
    replace(path, &spreadsheet::CSV, |out| {
        spreadsheet::write(journal.rows()?, out)
    })
}

/// Writes a file in place of an earlier one. The error is a message for people.
fn replace(
    path: &Path,
    kind: &files::Kind,
    write: impl FnOnce(&mut BufWriter<&File>) -> Result<(), CliError>,
) -> Result<(), String> {
    let shown = path.display().to_string();
    let unwritten = |error: io::Error| format!("{shown:?} cannot be written: {error}");
    let why = |stop: CliError| match stop {
        CliError::Usage(why) | CliError::Unknown(why) => why,
        CliError::Output(error) => unwritten(error),
    };
    // Another file may have the name since the audit began.
    let found = kind.find(path).map_err(why)?;
    let new = kind.beside(path).map_err(unwritten)?;
    let mut out = BufWriter::new(new.as_file());
    write(&mut out).map_err(why)?;
    out.flush().map_err(unwritten)?;
    drop(out);
    kind.put(new, path, found.as_ref()).map_err(why)?;
    Ok(())
}
