//! The scheduled audit. What no event told of is dealt with as if one had; of everything else that is not as it
//! should be people are told, in one summary, and nothing is done about it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::StreamExt;
use tokio::time::timeout_at;

use crate::aws::{Described, Page};
use crate::ec2::{Image, Observation};
use crate::error::Error;
use crate::event::{Audit, Registration};
use crate::expectation::{Evidence, Source};
use crate::findings::{Finding, Findings, Group};
use crate::guard::audit::Pages;
use crate::guard::{Guard, audit, evaluation, registration};
use crate::ids::AmiId;
use crate::invocation::{Deadline, Delivery, answer_by};
use crate::ledger::AuditLease;
use crate::notify;
use crate::record::Record;
use crate::sources::batch::BatchLoader;
use crate::sources::{Assessment, declared, is_asked};
use crate::telemetry::{self, Line};
use crate::verdict::judge;

/// How long after the settle time of an image its event counts as lost: seven receives, six minutes apart, are over in
/// 36 minutes; the rest is for the delivery of the event.
const LOST: TimeDelta = TimeDelta::minutes(45);

/// What is older than this is not dealt with any more, only told of.
const RECENT: TimeDelta = TimeDelta::days(3);

/// What is kept back of an audit's time to tell what it found: several times what it takes.
const TELLING: Duration = Duration::from_secs(10);

/// A page of images that was looked at.
#[derive(Default)]
struct LookedAt {
    /// How many images it has.
    number: usize,
    /// How many of them are as they were when they were judged, and good.
    unchanged: usize,
    /// Those that no event told of, and when they were created.
    missed: Vec<(AmiId, Box<Image>, DateTime<Utc>)>,
    /// What was found of the others.
    judged: Vec<Finding>,
    /// Where the next page begins, if there is one.
    next: Option<String>,
}

/// An audit under way.
struct AuditRun<'a> {
    audit: &'a Audit,
    lease: &'a AuditLease,
    delivery: Delivery,
}

impl AuditRun<'_> {
    /// Until when it looks at images.
    fn looking_until(&self) -> Deadline {
        let until = answer_by(self.delivery.deadline);
        until.checked_sub(TELLING).unwrap_or(until)
    }

    /// The same, that ends then.
    pub(super) fn until(&self, deadline: Deadline) -> Self {
        let delivery = Delivery {
            deadline,
            ..self.delivery.clone()
        };
        AuditRun { delivery, ..*self }
    }

    fn time_is_left(&self) -> bool {
        Deadline::now() < answer_by(self.delivery.deadline)
    }
}

/// Looks at all images of the account, or at as many as there is time for, and tells people what it found. The
/// next audit goes on where this one stops.
///
/// # Errors
/// [`Error`], if the event must come again: of nothing that it found was anybody told then; or people know, and an
/// image that no event had told of could not be dealt with to the end.
pub(crate) async fn daily(
    guard: &Guard,
    audit: Audit,
    delivery: &Delivery,
) -> Result<Record, Error> {
    let until = guard.ends(delivery.deadline);
    let lease = guard.ledger.begin_audit(&audit, until).await?;
    let run = AuditRun {
        audit: &audit,
        lease: &lease,
        delivery: delivery.clone(),
    };
    let audited = audit_once(guard, &run).await;
    if audited.is_err() {
        guard.ledger.release_audit(&lease).await;
    }
    let done = match audited? {
        None => "this one or a later one is done already".to_owned(),
        Some(findings) => format!(
            "images that were looked at: {}, that people were told of: {}; {}",
            findings.looked_at,
            findings.to_tell(),
            match findings.complete {
                true => "these were the last",
                false => "the next one goes on with the others",
            }
        ),
    };
    Ok(guard.journal(delivery, Record::of_audit(audit, &done)))
}

/// Follows up what was begun before, and audits, unless people were told of this audit or a later one. What it found.
async fn audit_once(guard: &Guard, run: &AuditRun<'_>) -> Result<Option<Findings>, Error> {
    let &AuditRun { audit, lease, .. } = run;
    let mut findings = Findings::begin(lease.cursor.is_some());
    // A time that somebody set wrong, and that is yet to come, keeps no other audit from its work.
    let last = lease.last.filter(|last| *last <= guard.now());
    let time = DateTime::from_timestamp_millis(audit.time.timestamp_millis());
    let done_already = last.is_some() && last >= time;
    follow_up(guard, run, done_already, &mut findings).await?;
    if done_already {
        guard.ledger.release_audit(lease).await;
    } else {
        let cursor = audit_and_tell(guard, run, &mut findings).await?;
        guard
            .ledger
            .end_audit(lease, audit, cursor.as_deref())
            .await?;
        guard.write(&run.delivery, Line::Audit(line(audit, &findings)));
    }
    match findings.unended {
        // An image that EC2 lists no longer is found by no other audit.
        Some(error) => Err(error),
        None => Ok((!done_already).then_some(findings)),
    }
}

/// Follows up the images that were begun with and are not known to have ended, and finds those of which nobody was
/// told. Before an audit it is the unfinished discards alone, in half of the time: no image keeps an audit from all
/// others. When the event comes again after that, it is all of them.
async fn follow_up(
    guard: &Guard,
    run: &AuditRun<'_>,
    done_already: bool,
    findings: &mut Findings,
) -> Result<(), Error> {
    let &AuditRun { audit, lease, .. } = run;
    if !done_already {
        let (account, region) = (audit.account.as_str(), audit.region.as_str());
        let ended = lease.ended_with.iter();
        let ended = guard.ledger.last_records::<Finding>(account, region, ended);
        for (id, finding) in ended.await? {
            findings.add(Group::Missed, finding);
            findings.dealt_with.insert(id);
        }
    }
    let run = &run.until(match done_already {
        // Nothing is to be told after it.
        true => answer_by(run.delivery.deadline),
        false => {
            let now = Deadline::now();
            now + run.looking_until().saturating_duration_since(now) / 2
        }
    });
    for (id, created) in &lease.begun_with {
        let registration = registration(audit, id, *created);
        let entry = guard.ledger.look(&registration).await?.entry;
        let is_discard = entry.unfinished().is_some();
        // One that can not be read is somebody else's.
        let last = entry.last();
        let last = last.map(|last| serde_json::from_value::<Finding>(last).unwrap_or_default());
        let of_event = last.as_ref().map(|last| last.event_id.as_deref());
        let heard_of = of_event.is_some_and(|id| id != Some(&audit.event_id));
        // Somebody else dealt with it, or it is too late for that: it is one of the list's.
        if !is_discard && (heard_of || !is_recent(guard, *created)) {
            guard.ledger.leave(lease, id, *created).await;
            continue;
        }
        let finding = if run.time_is_left() && (is_discard || done_already) {
            match process_missed(guard, run, id, *created).await {
                Ok(record) => {
                    match done_already {
                        true => guard.ledger.leave(lease, id, *created).await,
                        false => guard.ledger.end_with(lease, id, *created).await,
                    }
                    Finding::of(&record)
                }
                Err(error) => {
                    let failed = Finding::failed(id, None, &error);
                    findings.unended = Some(error);
                    failed
                }
            }
        } else {
            let later = no_time("not all that was begun before was ended");
            let failed = Finding::failed(id, None, &later);
            findings.unended.get_or_insert(later);
            last.unwrap_or(failed)
        };
        findings.add(Group::Missed, finding);
        findings.dealt_with.insert(id.clone());
    }
    Ok(())
}

/// Looks at page after page, while there is time, and tells people what was found. Where the next audit begins.
async fn audit_and_tell(
    guard: &Guard,
    run: &AuditRun<'_>,
    findings: &mut Findings,
) -> Result<Option<String>, Error> {
    let &AuditRun { audit, lease, .. } = run;
    let looking = &run.until(run.looking_until());
    let mut cursor = lease.cursor.clone();
    // Dealt with as missed of: they are among the findings already.
    let dealt_with = findings.dealt_with.clone();
    let pages = |from| {
        let listed = audit::list(guard, from);
        let dealt_with = &dealt_with;
        Pages::new(listed.map(move |page| async move {
            look_at_page(guard, audit, lease, page?, dealt_with).await
        }))
    };
    let mut looked_at = pages(cursor.clone());
    while !findings.complete {
        let page = timeout_at(looking.delivery.deadline, looked_at.next()).await;
        let found = match page {
            Ok(Some(Ok(page))) => {
                let next = page.next.clone();
                let work = process_page(guard, looking, page, findings);
                let work = timeout_at(looking.delivery.deadline, looked_at.meanwhile(work));
                work.await
                    .unwrap_or_else(|_| Err(no_time(NO_PAGE)))
                    .map(|()| next)
            }
            Ok(Some(Err(error))) => Err(error),
            // EC2's list had no page more, though there was to be one.
            Ok(None) => Ok(None),
            Err(_) => Err(no_time(NO_PAGE)),
        };
        match found {
            Ok(next) => {
                findings.complete = next.is_none();
                cursor = next;
            }
            // How long a token is good for, EC2 says nowhere.
            Err(Error::Refused { .. }) if findings.resumed && findings.pages == 0 => {
                findings.resumed = false;
                cursor = None;
                looked_at = pages(None);
            }
            Err(error) if findings.pages == 0 => {
                // The more events are lost, the longer a page takes: that they are is said all the same.
                if findings.number(Group::Missed) > 0 {
                    guard.write(&looking.delivery, Line::Audit(line(audit, findings)));
                }
                return Err(error);
            }
            Err(error) => {
                tracing::warn!("the audit stops, and the next one goes on: {error}");
                break;
            }
        }
    }
    drop(looked_at);
    if findings.to_tell() > 0 {
        guard
            .notifier
            .send(&notify::summary(audit, findings))
            .await?;
    }
    Ok(cursor)
}

/// Looks at a page of images: judges those that are not as they were when they were judged last.
async fn look_at_page(
    guard: &Guard,
    audit: &Audit,
    lease: &AuditLease,
    page: Page,
    dealt_with: &BTreeSet<AmiId>,
) -> Result<LookedAt, Error> {
    let mut looked_at = LookedAt {
        number: page.images.len(),
        next: page.next,
        ..LookedAt::default()
    };
    let available = page.images.into_iter();
    let available: Vec<(AmiId, Box<Image>)> = available
        .filter_map(|(id, described)| match described {
            Described::Available(image) => Some((id, image)),
            _ => None,
        })
        .collect();
    let (account, region) = (audit.account.as_str(), audit.region.as_str());
    let ids = available.iter().map(|(id, _)| id);
    let mut known = guard
        .ledger
        .last_records::<Finding>(account, region, ids)
        .await?;
    let mut others = Vec::new();
    // What is on record of those that are as they were, and what disks told.
    let mut as_before = BTreeMap::new();
    let mut disks = BTreeMap::new();
    for (id, image) in available {
        let known = known.remove(&id);
        let registration = guard.listed(id, &audit.account, image.created);
        let id = &registration.image_id;
        match (known, image.created) {
            _ if dealt_with.contains(id) => {}
            (None, Some(created)) if is_missed_of(guard, &image, created, lease.since) => {
                looked_at.missed.push((id.clone(), image, created));
            }
            // Its event has its time yet.
            (None, Some(created)) if !is_lost(guard, created) => {}
            (known, _) => {
                let disk = known.as_ref().and_then(Finding::disk);
                let declared = declared(&guard.policy, &registration, &image);
                match known.filter(|known| known.is_of(&image, &declared)) {
                    Some(known) if known.is_good() => looked_at.unchanged += 1,
                    known => {
                        as_before.extend(known.map(|known| (id.clone(), known)));
                        disks.extend(disk.map(|disk| (id.clone(), disk)));
                        others.push((registration, Observation::Available(image)));
                    }
                }
            }
        }
    }
    let asked = Arc::new(BatchLoader::default());
    audit::assess_all(
        guard,
        others,
        &asked,
        true,
        |registration, mut assessment| {
            if let Some(disk) = disks.remove(&registration.image_id) {
                add_disk(guard, &mut assessment, disk);
            }
            let finding = match as_before.remove(&registration.image_id) {
                // Who registered it is not asked here: what was made of it stands.
                Some(before) if assessment.expectation.identity_asked => before,
                before => {
                    let planned = audit::plan_unhindered(guard, &registration, assessment);
                    let mut finding = Finding::of(&planned.record(&registration));
                    let held = before.filter(Finding::is_held);
                    // Whatever would be done about it, nothing is.
                    finding.action = held.as_ref().and_then(|held| held.action.clone());
                    finding.held_by = held.map_or(finding.held_by, |held| held.held_by);
                    finding
                }
            };
            looked_at.judged.push(finding);
        },
    )
    .await;
    Ok(looked_at)
}

/// Deals with the images of a page that no event told of, and takes note of what was found.
async fn process_page(
    guard: &Guard,
    run: &AuditRun<'_>,
    page: LookedAt,
    findings: &mut Findings,
) -> Result<(), Error> {
    for (id, image, created) in page.missed {
        let finding = backfill(guard, run, &id, &image, created, findings).await?;
        findings.add(Group::Missed, finding);
    }
    for finding in page.judged {
        if let Some(group) = finding.group() {
            findings.add(group, finding);
        }
    }
    findings.pages += 1;
    findings.looked_at += page.number;
    findings.unchanged += page.unchanged;
    Ok(())
}

/// Adds what the disk told before, where it would be asked again: what is on a snapshot does not change.
fn add_disk(guard: &Guard, assessment: &mut Assessment, disk: Evidence) {
    let Assessment {
        observation,
        expectation,
        judgement,
        ..
    } = assessment;
    let asked = is_asked(guard.policy.disk, Source::Disk, observation, expectation);
    if asked && expectation.exemption.is_none() {
        expectation.evidence.retain(|it| it.source != Source::Disk);
        expectation.evidence.push(disk);
        expectation.evidence.sort_by_key(|it| it.source);
        *judgement = judge(observation, expectation);
    }
}

/// Whether the guard should have heard of an image that the ledger does not know: it was registered a short while
/// ago, since the guard began to audit, and its event has had its time.
fn is_missed_of(
    guard: &Guard,
    image: &Image,
    created: DateTime<Utc>,
    since: DateTime<Utc>,
) -> bool {
    image.source_instance.is_none()
        && image.source_image.is_none()
        && created > since
        && is_lost(guard, created)
        && is_recent(guard, created)
}

/// Whether the event of an unknown image of this creation time would have been judged by now.
fn is_lost(guard: &Guard, created: DateTime<Utc>) -> bool {
    let settled = evaluation::settled_since(guard, created);
    settled.is_some_and(|settled| settled >= LOST)
}

/// Whether an image is young enough to be dealt with, and to be known if it was.
fn is_recent(guard: &Guard, created: DateTime<Utc>) -> bool {
    guard.now() - created < RECENT.min(guard.ledger.keep())
}

/// Deals with an image as if its event had come. That this did not succeed is found as well.
async fn backfill(
    guard: &Guard,
    run: &AuditRun<'_>,
    id: &AmiId,
    image: &Image,
    created: DateTime<Utc>,
    findings: &mut Findings,
) -> Result<Finding, Error> {
    if !run.time_is_left() {
        return Err(no_time(NO_PAGE));
    }
    // Before the first step: whatever cuts it off, what was begun is followed up.
    guard.ledger.begin_with(run.lease, id, created).await?;
    let first = findings.made_up == 0;
    findings.made_up += 1;
    match process_missed(guard, run, id, created).await {
        Ok(record) => {
            guard.ledger.end_with(run.lease, id, created).await;
            Ok(Finding::of(&record))
        }
        Err(error) => {
            findings.unended = Some(error.clone());
            let failed = Finding::failed(id, Some(image), &error);
            match error {
                // With all the time of another attempt there may be enough of it; unless this was the first one.
                Error::OutOfTime { .. } if !first => {
                    findings.add(Group::Missed, failed);
                    Err(error)
                }
                _ => Ok(failed),
            }
        }
    }
}

/// Deals with an image that no event told of, and that the ledger has among those that were begun with.
async fn process_missed(
    guard: &Guard,
    run: &AuditRun<'_>,
    id: &AmiId,
    created: DateTime<Utc>,
) -> Result<Record, Error> {
    let registration = registration(run.audit, id, created);
    let dealt = registration::registered(guard, &registration, None, &run.delivery).await;
    if let Err(error) = &dealt {
        // The failure of the audit says why its event comes again, this of which image.
        tracing::warn!("{id} was not dealt with to the end: {error}");
    }
    dealt
}

/// The registration of an image that no event told of. The audit's stands for its event.
fn registration(audit: &Audit, id: &AmiId, created: DateTime<Utc>) -> Registration {
    let (account, by) = (audit.account.clone(), &audit.event_id);
    Registration::without_event(id.clone(), account, &audit.region, by, created)
}

const NO_PAGE: &str = "no page of images was looked at to its end";

fn no_time(doing: &str) -> Error {
    Error::OutOfTime {
        image: "the audit".into(),
        doing: doing.into(),
    }
}

/// What the log is told of an audit.
fn line<'a>(audit: &'a Audit, findings: &Findings) -> telemetry::Audit<'a> {
    telemetry::Audit {
        event_id: &audit.event_id,
        looked_at: findings.looked_at,
        unchanged: findings.unchanged,
        missed: findings.number(Group::Missed),
        mismatches: findings.number(Group::Mismatch) + findings.number(Group::Held),
        unrecognised: findings.unrecognised,
        complete: findings.complete,
    }
}
