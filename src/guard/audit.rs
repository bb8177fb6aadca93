//! Audits all images of an account. Each one is judged as if it had just been registered, with as few calls as
//! possible.

pub(super) mod daily;

use std::collections::VecDeque;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use tokio::sync::Mutex;

use crate::aws::{Described, Page, retry};
use crate::ec2::Observation;
use crate::error::Error;
use crate::event::Registration;
use crate::guard::evaluation::{Planned, observed};
use crate::guard::{Guard, UNKNOWN, preview};
use crate::ids::AccountId;
use crate::plan::{Action, History, PlanInput, SafetyChecks, plan};
use crate::policy::Asked;
use crate::record::Record;
use crate::sources::batch::{BatchLoader, Lookups};
use crate::sources::{Assessment, Collector};

/// Number of images in a page. EC2 returns up to 1,000 (EC2 API reference, "DescribeImages"), but several pages are in
/// memory at once.
const PAGE: i32 = 500;

/// The images that an audit covers, and how closely it looks at them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scope {
    /// If set, leaves out images that were created before this time.
    pub since: Option<DateTime<Utc>>,
    /// Whether disks are read, if the policy has them read. Each one takes about a second.
    pub disks: bool,
}

/// A page of judged images.
#[derive(Debug)]
pub struct Audited {
    /// Records of the images. A record's action is what the guard would do now.
    pub records: Vec<Record>,
    /// Number of images that could not be judged yet, because they are pending.
    pub underway: usize,
    /// Pagination cursor of the next page. `None` after the last page.
    pub next: Option<String>,
}

/// Number of pages that are looked at concurrently. Each one takes about fifteen calls, a few at a time.
const AT_ONCE: usize = 6;

/// Pages in order. The following pages are looked at while the caller works on one.
pub struct Pages<'a, P> {
    looking: BoxStream<'a, P>,
    ready: VecDeque<P>,
}

impl<'a, P> Pages<'a, P> {
    /// Takes a stream with one future for each page.
    fn new<F: Future<Output = P> + Send + 'a>(
        looking: impl Stream<Item = F> + Send + 'a,
    ) -> Pages<'a, P>
    where
        P: Send,
    {
        Pages {
            looking: looking.buffered(AT_ONCE).boxed(),
            ready: VecDeque::new(),
        }
    }

    /// The next page. `None` after the last page. If the call is dropped before it ends, it can be repeated and no page
    /// is lost.
    pub async fn next(&mut self) -> Option<P> {
        match self.ready.pop_front() {
            Some(page) => Some(page),
            None => self.looking.next().await,
        }
    }

    /// Awaits `work`, and looks at the next pages meanwhile.
    pub async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                Some(page) = self.looking.next(), if self.ready.len() < AT_ONCE => {
                    self.ready.push_back(page);
                }
            }
        }
    }
}

impl Guard {
    /// Judges the account's images page by page, up to 500 in a page. `token` is the pagination cursor of the first
    /// page. Changes nothing and sends no alert.
    ///
    /// A page that could not be listed is an [`Error`], and no page follows it. What could not be determined about a
    /// single image is in its record.
    pub fn audit<'a>(
        &'a self,
        account: &'a AccountId,
        scope: Scope,
        token: Option<String>,
    ) -> Pages<'a, Result<Audited, Error>> {
        let listed = list(self, token);
        Pages::new(
            listed.map(move |page| async move { judge_page(self, page?, account, scope).await }),
        )
    }
}

/// EC2's list of the account's images, page by page. `token` is the pagination cursor of the first page. Transient
/// errors are retried.
pub(super) fn list(
    guard: &Guard,
    token: Option<String>,
) -> impl Stream<Item = Result<Page, Error>> + Send + '_ {
    stream::try_unfold(Some(token), move |at| async move {
        let Some(token) = at else { return Ok(None) };
        let page = || Box::pin(guard.aws.list_images(PAGE, token.as_deref()));
        let page = retry(page).await?;
        let next = page.next.clone().map(Some);
        Ok(Some((page, next)))
    })
}

/// Judges a page of images. Leaves out those that `scope` does not cover.
async fn judge_page(
    guard: &Guard,
    page: Page,
    account: &AccountId,
    scope: Scope,
) -> Result<Audited, Error> {
    let mut listed = Vec::new();
    let mut underway = 0;
    for (id, described) in page.images {
        let created = match &described {
            Described::Available(image) => image.created,
            _ => None,
        };
        // The creation time of a pending or disabled image is not read, so `since` does not leave it out.
        if created.is_some_and(|created| Some(created) < scope.since) {
            continue;
        }
        match observed(described) {
            Ok(observation) => listed.push((guard.listed(id, account, created), observation)),
            Err(_) => underway += 1,
        }
    }
    let mut assessed = Vec::new();
    let asked = Arc::new(BatchLoader::default());
    assess_all(guard, listed, &asked, true, |registration, assessment| {
        assessed.push((registration, assessment));
    })
    .await;
    if scope.disks && guard.policy.disk != Asked::Never {
        // Among thousands of images, a disk is worth its blocks only if a discard depends on it.
        // A page reads one disk after the other, and does not wait for the disks of other pages.
        let disk_turn = Mutex::default();
        let reading = Collector {
            disk_turn: &disk_turn,
            ..asking(guard, &asked, Asked::WhenNeeded)
        };
        for (registration, assessment) in &mut assessed {
            let observation = assessment.observation.clone();
            *assessment = Box::pin(reading.assess(registration, observation, None)).await;
        }
    }
    let mut records = Vec::new();
    for (registration, assessment) in assessed {
        let planned = plan_unhindered(guard, &registration, assessment);
        // These images are few. The safety checks for every image would take thousands of calls.
        let mut record = planned.record(&registration);
        if record.action.is_discard() {
            match retry(|| Box::pin(preview::reconsider(guard, &registration, guard.config.wait)))
                .await
            {
                Ok(considered) => record = considered,
                Err(error) => {
                    record.action = Action::Hold;
                    record.error = Some(error.to_string());
                }
            }
        }
        record.registered_at = record.registered_at.filter(|at| *at != UNKNOWN);
        records.push(record);
    }
    Ok(Audited {
        records,
        underway,
        next: page.next,
    })
}

/// Judges many images, and passes each one to `done` as soon as it is judged. EC2 is queried about up to 200 images in
/// a call, and only for what an image needs. Leaves out disks, and the product codes of snapshots. `again` says whether
/// calls are retried on transient errors.
pub(crate) async fn assess_all(
    guard: &Guard,
    listed: Vec<(Registration, Observation)>,
    asked: &Arc<BatchLoader>,
    again: bool,
    mut done: impl FnMut(Registration, Assessment),
) {
    let asking = asking(guard, asked, Asked::Never);
    let mut waiting = listed;
    while !waiting.is_empty() {
        let mut unanswered = Vec::new();
        for (registration, observation) in waiting {
            let assessment = asking.assess(&registration, observation, None).await;
            match asked.noted() {
                true => unanswered.push((registration, assessment.observation)),
                false => done(registration, assessment),
            }
        }
        asked.put(&guard.aws, again).await;
        waiting = unanswered;
    }
}

/// Collector that queries the sources about many images in batches. `disk` says when an image's disk is read.
fn asking<'a>(guard: &'a Guard, batch: &Arc<BatchLoader>, disk: Asked) -> Collector<'a> {
    let lookups = Lookups::together(guard.aws.clone(), Arc::clone(batch));
    Collector {
        lookups,
        disk,
        ..guard.collector()
    }
}

/// Plan for an image whose safety checks and history hold no discard.
pub(crate) fn plan_unhindered(
    guard: &Guard,
    registration: &Registration,
    assessment: Assessment,
) -> Planned {
    let safety = SafetyChecks::clear();
    let input = PlanInput {
        mode: guard.config.mode,
        now: guard.now(),
        registration,
        observation: &assessment.observation,
        expectation: &assessment.expectation,
        safety: Some(&safety),
        past: Some(&History::default()),
    };
    let verdict = assessment.judgement.verdict;
    Planned {
        plan: plan(verdict, &input, &guard.policy),
        assessment,
        safety: None,
        before: None,
        doubts: Vec::new(),
    }
}
