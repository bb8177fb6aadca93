//! The scheduled audit. An image for which no event arrived is processed as if one had. Everything else that is not as
//! expected is reported in one summary, and nothing is done about it.

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

/// How long after an image's settle time its event counts as lost. Seven receives, six minutes apart, are over in 36
/// minutes. The rest is for the delivery of the event.
const LOST: TimeDelta = TimeDelta::minutes(45);

/// Age after which an image for which no event arrived is only reported, and not processed.
const RECENT: TimeDelta = TimeDelta::days(3);

/// Time of an audit that is kept back to report its findings. It is several times what the report takes.
const TELLING: Duration = Duration::from_secs(10);

/// What was found on a page of images.
#[derive(Default)]
struct LookedAt {
    /// Number of images on the page.
    number: usize,
    /// Number of these images that are right, and unchanged since they were judged.
    unchanged: usize,
    /// Images for which no event arrived, each with its creation time.
    missed: Vec<(AmiId, Box<Image>, DateTime<Utc>)>,
    /// Findings about the other images.
    judged: Vec<Finding>,
    /// Pagination cursor of the next page. `None` after the last page.
    next: Option<String>,
}

/// An audit in progress.
struct AuditRun<'a> {
    audit: &'a Audit,
    lease: &'a AuditLease,
    delivery: Delivery,
}

impl AuditRun<'_> {
    /// Deadline for looking at images. The time after it is for the report.
    fn looking_until(&self) -> Deadline {
        let until = answer_by(self.delivery.deadline);
        until.checked_sub(TELLING).unwrap_or(until)
    }

    /// The same audit with an earlier deadline.
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

/// Looks at all images of the account, or at as many as there is time for, and reports the findings. The next audit
/// continues where this one stops.
///
/// # Errors
/// [`Error`] if the event must be delivered again. Either none of the findings was reported, or they were reported and
/// an image for which no event arrived could not be fully processed.
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
        None => "this one or a later one is already complete".to_owned(),
        Some(findings) => format!(
            "images examined: {}, reported: {}; {}",
            findings.looked_at,
            findings.to_tell(),
            match findings.complete {
                true => "none are left",
                false => "the next one continues with the others",
            }
        ),
    };
    Ok(guard.journal(delivery, Record::of_audit(audit, &done)))
}

/// Follows up what was begun before, and audits, unless this audit or a later one was already reported. Returns the
/// findings of the audit, or `None` if there was none.
async fn audit_once(guard: &Guard, run: &AuditRun<'_>) -> Result<Option<Findings>, Error> {
    let &AuditRun { audit, lease, .. } = run;
    let mut findings = Findings::begin(lease.cursor.is_some());
    // A recorded time in the future is wrong, and must not prevent other audits.
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
        // The event must be retried, because no other audit finds an image that EC2 no longer lists.
        Some(error) => Err(error),
        None => Ok((!done_already).then_some(findings)),
    }
}

/// Follows up the images whose processing began and is not known to have ended, and collects those that were not
/// reported.
///
/// Before an audit, it processes only unfinished discards, in half of the time. No image can then keep the audit from
/// all others. If the audit is already done and its event is delivered again, it processes all of them.
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
        for (id, mut finding) in ended.await? {
            finding.image_id.get_or_insert_with(|| id.to_string());
            findings.add(Group::Missed, finding);
            findings.dealt_with.insert(id);
        }
    }
    let run = &run.until(match done_already {
        // Nothing has to be reported afterwards.
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
        // A record of which a member cannot be read counts as the record of another event.
        let last = entry.last.map(Finding::from);
        let of_event = last.as_ref().map(|last| last.event_id.as_deref());
        let heard_of = of_event.is_some_and(|id| id != Some(&audit.event_id));
        // Another event's delivery processed the image, or it is too late for that. The listing of all images covers
        // it.
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
            let later = no_time("not all images of earlier audits were finished");
            let failed = Finding::failed(id, None, &later);
            findings.unended.get_or_insert(later);
            last.unwrap_or(failed)
        };
        findings.add(Group::Missed, finding);
        findings.dealt_with.insert(id.clone());
    }
    Ok(())
}

/// Looks at page after page while there is time, and reports the findings. Returns the pagination cursor at which the
/// next audit begins.
async fn audit_and_tell(
    guard: &Guard,
    run: &AuditRun<'_>,
    findings: &mut Findings,
) -> Result<Option<String>, Error> {
    let &AuditRun { audit, lease, .. } = run;
    let looking = &run.until(run.looking_until());
    let mut cursor = lease.cursor.clone();
    // These images were followed up, and are among the findings already.
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
            // EC2's list ended, although there was a cursor for another page.
            Ok(None) => Ok(None),
            Err(_) => Err(no_time(NO_PAGE)),
        };
        match found {
            Ok(next) => {
                findings.complete = next.is_none();
                cursor = next;
            }
            // AWS does not document how long a cursor stays valid. If EC2 refuses it, the audit starts at the
            // beginning.
            Err(Error::Refused { .. }) if findings.resumed && findings.pages == 0 => {
                findings.resumed = false;
                cursor = None;
                looked_at = pages(None);
            }
            Err(error) if findings.pages == 0 => {
                // The more events are lost, the longer a page takes. That events are lost is logged even if no page was
                // completed.
                if findings.number(Group::Missed) > 0 {
                    guard.write(&looking.delivery, Line::Audit(line(audit, findings)));
                }
                return Err(error);
            }
            Err(error) => {
                tracing::warn!("the audit stops, and the next one continues: {error}");
                break;
            }
        }
    }
    drop(looked_at);
    if findings.to_tell() > 0 {
        guard
            .notifier
            .send(&notify::summary(audit, findings, guard.runbook()))
            .await?;
    }
    Ok(cursor)
}

/// Looks at a page of images. Judges those that changed since they were last judged, or were not right then.
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
    // Recorded findings of unchanged images, and what the disks of images said before.
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
            // Its event may still arrive or be processed.
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
                // An audit does not know who registered the image, so the recorded finding counts.
                Some(before) if assessment.expectation.identity_asked => before,
                before => {
                    let planned = audit::plan_unhindered(guard, &registration, assessment);
                    let mut finding = Finding::of(&planned.record(&registration));
                    let held = before.filter(Finding::is_held);
                    // An audit does nothing about the image, so only a held discard counts as its action.
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

/// Processes the images of a page for which no event arrived, and collects the findings of the page.
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

/// Adds what the disk said before, where the disk would be read again. The content of a snapshot does not change.
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

/// Whether the guard should have received an event for an image that the ledger does not know. Such an image was
/// registered recently, after the guard's first audit began, and so long ago that its event counts as lost.
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

/// Whether the event of an image that the ledger does not know would have been judged by now.
fn is_lost(guard: &Guard, created: DateTime<Utc>) -> bool {
    let settled = evaluation::settled_since(guard, created);
    settled.is_some_and(|settled| settled >= LOST)
}

/// Whether an image is young enough to be processed, and for the ledger to know it still if it was processed.
fn is_recent(guard: &Guard, created: DateTime<Utc>) -> bool {
    guard.now() - created < RECENT.min(guard.ledger.keep())
}

/// Processes an image as if its event had arrived. A failure becomes a finding too.
///
/// # Errors
/// [`Error`] if the audit must stop, because its time is over or the ledger cannot be reached.
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
    // Noted before the first step, so that an interrupted image is followed up.
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
                // Another attempt has more time for this image, unless this image was already the first one.
                Error::OutOfTime { .. } if !first => {
                    findings.add(Group::Missed, failed);
                    Err(error)
                }
                _ => Ok(failed),
            }
        }
    }
}

/// Processes an image for which no event arrived. The ledger must have it among the images that were begun.
async fn process_missed(
    guard: &Guard,
    run: &AuditRun<'_>,
    id: &AmiId,
    created: DateTime<Utc>,
) -> Result<Record, Error> {
    let registration = registration(run.audit, id, created);
    let dealt = registration::registered(guard, &registration, None, &run.delivery).await;
    if let Err(error) = &dealt {
        // The audit's failure says why its event is delivered again. This line says for which image.
        tracing::warn!("{id} was not fully processed: {error}");
    }
    dealt
}

/// Registration of an image for which no event arrived. The id of the audit's event takes the place of the event's id.
fn registration(audit: &Audit, id: &AmiId, created: DateTime<Utc>) -> Registration {
    let (account, by) = (audit.account.clone(), &audit.event_id);
    Registration::without_event(id.clone(), account, &audit.region, by, created)
}

const NO_PAGE: &str = "no page of images was completed";

fn no_time(doing: &str) -> Error {
    Error::OutOfTime {
        image: "the audit".into(),
        doing: doing.into(),
    }
}

/// The line of an audit in the log.
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
