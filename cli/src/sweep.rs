//! `ami-guard sweep`: every AMI of the account, judged.

mod journal;
mod row;
mod summary;

use std::collections::HashSet;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ami_billing_guard::audit::{Scope, Swept};
use ami_billing_guard::ec2::ReservedInstances;
use ami_billing_guard::{Clock, Deadline, Delivery, Error, Tally};
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::account::{Guarding, Session};
use crate::check::{Row, reserved};
use crate::outcome::{Outcome, Stop};
use crate::report::{self, About};
use crate::reserved::unapplied;
use crate::show::{note, tell};
use crate::{files, show};
use journal::{Header, Journal, Page, Purpose};
use summary::Summary;

const AFTER: &str = "\
What is found is kept in a file as it is found, and --resume goes on where the last sweep of the account was stopped. \
Disks are not read without --disk. On a terminal, and elsewhere, the AMIs that need attention are listed; with --all, \
every one.

Exit codes:
  0  all AMIs bill what they should, or are exempt
  1  a mismatch was found
  2  the command line, or the policy, was not understood
  3  of some AMIs, what they bill or should bill could not be found out, or a Region could not be looked at

Without --enforce nothing is changed, and nobody told.";

/// What to sweep.
#[derive(Args)]
#[command(after_help = AFTER)]
pub(crate) struct Arguments {
    #[command(flatten)]
    guarding: Guarding,
    /// All Regions that the account has enabled
    #[arg(long, conflicts_with = "region")]
    all_regions: bool,
    /// Only AMIs that were created since then: a date (2026-11-01), a time (2026-11-01T12:00:00Z), or how long ago (30d, 12h)
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Since>,
    /// Read disks as well, where the policy has them read: a second or so each
    #[arg(long)]
    disk: bool,
    /// Go on where the last sweep was stopped
    #[arg(long)]
    resume: bool,
    /// Where to keep what is found; by default a file in your state folder, for the account, the Regions and the options
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Replace a state that is of another sweep: of another account, Region or policy, or with other options
    #[arg(long, conflicts_with = "resume")]
    force: bool,
    /// Discard what the policy lets the deployed guard discard, as it does it: after an alert
    #[arg(long)]
    enforce: bool,
    /// List every AMI
    #[arg(long)]
    all: bool,
    /// Print the records as JSON, one a line
    #[arg(long)]
    json: bool,
    /// Write a report for a browser
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// How long the guard may take for one AMI that it discards, as in Lambda.
const AMI: Duration = Duration::from_secs(60);

/// Since when, and how that was said.
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

/// A point in time, or how long ago.
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
        "accepted are a date (2026-11-01), a time (2026-11-01T12:00:00Z), days (30d) and hours (12h) ago".into()
    })
}

/// Sweeps the account.
pub(crate) async fn run(arguments: Arguments, out: &mut dyn Write) -> Result<Outcome, Stop> {
    if arguments.enforce {
        arguments.guarding.may_enforce()?;
    }
    may_write(&arguments)?;
    let session = arguments.guarding.begin(Duration::ZERO).await?;
    let regions = match arguments.all_regions {
        true => session.aws.regions().await?,
        false => session
            .aws
            .region()
            .map(str::to_owned)
            .into_iter()
            .collect(),
    };
    let header = Header {
        account: session.account.to_string(),
        regions,
        since: arguments.since.as_ref().map(|since| since.at),
        since_said: arguments.since.as_ref().map(|since| since.said.clone()),
        disk: arguments.disk,
        enforce: arguments.enforce,
        policy: format!("{:?}", session.policy),
        policy_name: arguments.guarding.policy_name(),
        begun: Clock::SYSTEM.now(),
    };
    let purpose = match (arguments.resume, arguments.force) {
        (true, _) => Purpose::Resume,
        (false, true) => Purpose::BeginByForce,
        (false, false) => Purpose::Begin,
    };
    let mut journal = Journal::open(arguments.state.as_deref(), header, purpose)?;
    let bar = ProgressBar::new_spinner().with_style(style());
    bar.enable_steady_tick(Duration::from_millis(100));
    if arguments.resume && journal.is_complete() {
        let when = journal.ended().format("%Y-%m-%d %H:%M");
        let why = format!(
            "the sweep was complete at {when} UTC, and nothing is looked at again; without --resume a new one begins"
        );
        note(&why);
    }
    let mut tally = session.aws.tally();
    let swept = sweep(&arguments, &session, &mut journal, &bar, &mut tally).await;
    bar.finish_and_clear();
    let (calls, throttles) = (tally.calls, tally.throttles);
    note(&format!(
        "{calls} requests to AWS, of which it took {throttles} for too many"
    ));
    let name = journal.path().display().to_string();
    let unchanged =
        format!("no page was complete: {name:?} still has the earlier sweep, unchanged");
    swept.map_err(|stop| match stop {
        Stop::Unknown(why) if journal.is_in_place() => Stop::Unknown(format!(
            "{why}\nwhat was found so far is kept: add --resume to go on"
        )),
        Stop::Unknown(why) => Stop::Unknown(format!("{why}\n{unchanged}")),
        stop => stop,
    })?;
    if !journal.is_in_place() {
        note(&unchanged);
    }
    present(&arguments, &journal, out)
}

/// Whether the files can be written that the command line names: known now, before AWS is asked, and not after minutes.
fn may_write(arguments: &Arguments) -> Result<(), Stop> {
    let (state, html) = (arguments.state.as_deref(), arguments.html.as_deref());
    if let (Some(state), Some(html)) = (state, html)
        && files::are_same(state, html)
    {
        return Err(Stop::Usage("--state and --html name the same file".into()));
    }
    for (path, kind) in [(html, report::REPORT), (state, journal::STATE)] {
        if let Some(path) = path {
            kind.find(path)?;
            files::can_write_beside(kind.option, path)?;
        }
    }
    Ok(())
}

fn style() -> ProgressStyle {
    let style = ProgressStyle::with_template("{spinner} {msg} {human_pos} AMIs, {elapsed}");
    style.unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// Judges what the journal does not have yet.
async fn sweep(
    arguments: &Arguments,
    session: &Session,
    journal: &mut Journal,
    bar: &ProgressBar,
    tally: &mut Tally,
) -> Result<(), Stop> {
    bar.set_position(journal.rows);
    for region in journal.header.regions.clone() {
        let Some(token) = journal.place(&region) else {
            continue;
        };
        bar.set_message(format!("{region}:"));
        let there = arguments.guarding.elsewhere(session, &region)?;
        let reserved = reserved(&there).await;
        // A place that EC2 had forgotten once may have been found again from the beginning.
        let seen = match journal.resumed {
            true => journal.images_of(&region)?,
            false => Default::default(),
        };
        let scope = Scope {
            since: journal.header.since,
            disks: arguments.disk,
        };
        let mut resumes_at_a_place = journal.resumed && token.is_some();
        let mut pages = there.guard.sweep(&session.account, scope, token);
        while let Some(swept) = pages.next().await {
            let swept = match swept {
                Ok(swept) => swept,
                // A place in EC2's list is not good for ever: what the journal has is left out of the list.
                Err(Error::Refused { .. }) if resumes_at_a_place => {
                    resumes_at_a_place = false;
                    pages = there.guard.sweep(&session.account, scope, None);
                    continue;
                }
                // One Region of many may be forbidden, or down.
                Err(error) if arguments.all_regions => {
                    note(&format!("{region}: {error}"));
                    journal.end_page(&Page::failed(&region, &error.to_string()))?;
                    break;
                }
                Err(error) => return Err(error.into()),
            };
            resumes_at_a_place = false;
            tally.add(there.aws.tally());
            let page = Page::of(&region, &swept);
            let reserved = reserved.as_deref();
            let kept = keep(arguments, &there, journal, swept, reserved, &seen);
            pages.meanwhile(kept).await?;
            journal.end_page(&page)?;
            bar.set_position(journal.rows);
        }
    }
    Ok(())
}

/// Keeps a page's records, and carries out what is due if that is wanted.
async fn keep(
    arguments: &Arguments,
    there: &Session,
    journal: &mut Journal,
    swept: Swept,
    reserved: Option<&[ReservedInstances]>,
    seen: &HashSet<String>,
) -> Result<(), Stop> {
    for mut record in swept.records {
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
                .make_up_for(&image, &there.account, created, &delivery);
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

/// Writes and prints what the journal has.
fn present(arguments: &Arguments, journal: &Journal, out: &mut dyn Write) -> Result<Outcome, Stop> {
    // Before the table: the report is there, whoever reads the table to its end.
    let report = match &arguments.html {
        // Nothing was found that would be worth an earlier report.
        Some(_) if !journal.has_a_page() => {
            Err("no page was complete: no report was written".into())
        }
        Some(path) => report(path, journal),
        None => Ok(()),
    };
    let mut summary = Summary::new(!arguments.json, arguments.all);
    for line in journal.lines()? {
        let line = line?;
        if arguments.json {
            out.write_all(line.as_bytes())?;
        }
        summary.add(journal::row(&line)?, out)?;
    }
    summary.end(journal.pages(), out)?;
    // A mismatch is a mismatch, without a report too.
    Ok(match report {
        Ok(()) => summary.outcome(),
        Err(why) => summary.outcome().and(tell(&why, Outcome::Unknown)),
    })
}

/// Writes the report. Why that failed is for people.
fn report(path: &Path, journal: &Journal) -> Result<(), String> {
    let shown = path.display().to_string();
    let unwritten = |error: io::Error| format!("{shown:?} cannot be written: {error}");
    let why = |stop: Stop| match stop {
        Stop::Usage(why) | Stop::Unknown(why) => why,
        Stop::Output(error) => unwritten(error),
    };
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
    // Something else may be there since the sweep began.
    let found = report::REPORT.find(path).map_err(why)?;
    let new = report::REPORT.beside(path).map_err(unwritten)?;
    let mut out = BufWriter::new(new.as_file());
    let rows = journal.rows().map_err(why)?;
    report::write(&about, rows, &mut out).map_err(why)?;
    out.flush().map_err(unwritten)?;
    drop(out);
    report::REPORT.put(new, path, found.as_ref()).map_err(why)?;
    Ok(())
}
