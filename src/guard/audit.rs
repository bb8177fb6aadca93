//! All images of an account: each judged as if it had just been registered, with as few calls as that takes.

pub(super) mod daily;

use std::collections::VecDeque;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};

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

/// The images of a page. EC2 gives up to 1,000 (EC2 API reference, "DescribeImages"); several pages are in memory at once.
const PAGE: i32 = 500;

/// Which images, and how closely they are looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scope {
    /// Only those that were created since.
    pub since: Option<DateTime<Utc>>,
    /// Whether disks are read, where the policy has them read. It takes a second or so each.
    pub disks: bool,
}

/// A page of images that were judged.
#[derive(Debug)]
pub struct Audited {
    /// Their records. What a record says of a discard is what the guard would do now.
    pub records: Vec<Record>,
    /// How many could not be judged yet: they are pending.
    pub underway: usize,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
}

/// So many pages are looked at side by side. Each of them is some fifteen calls, a few at a time.
const AT_ONCE: usize = 6;

/// Pages in their order, of which those that follow are looked at meanwhile.
pub struct Pages<'a, P> {
    looking: BoxStream<'a, P>,
    ready: VecDeque<P>,
}

impl<'a, P> Pages<'a, P> {
    /// `looking` at one page after the other.
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

    /// The next page, if there is one. It may be awaited again if it is dropped: nothing is lost.
    pub async fn next(&mut self) -> Option<P> {
        match self.ready.pop_front() {
            Some(page) => Some(page),
            None => self.looking.next().await,
        }
    }

    /// Does what is to be done about a page, while the next ones are looked at.
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
    /// Judges the account's images page by page, from `token` on: up to 500 in a page. Nothing is changed, and nobody
    /// told. After a page that could not be seen there is no other; what could not be found out of a single image is in
    /// its record.
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

/// EC2's list of the account's images, page by page, from `token` on.
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

/// Judges a page of images.
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
        // Of what is pending or disabled, EC2's answer is not asked for its time.
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
        // A disk that no discard depends on is not worth its blocks among thousands.
        let reading = asking(guard, &asked, Asked::WhenNeeded);
        for (registration, assessment) in &mut assessed {
            let observation = assessment.observation.clone();
            *assessment = Box::pin(reading.assess(registration, observation, None)).await;
        }
    }
    let mut records = Vec::new();
    for (registration, assessment) in assessed {
        let planned = plan_unhindered(guard, &registration, assessment);
        // These are few: to look around every image would be thousands of calls.
        let mut record = planned.record(&registration);
        if record.action.is_discard() {
            match retry(|| Box::pin(preview::reconsider(guard, &registration))).await {
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

/// Judges many images, and hands each over as soon as it is judged. What EC2 is asked of each is asked for up to 200
/// in a call, and only what an image needs; product codes and disks are left out. `again`: what keeps a call from an
/// answer, and may pass, is waited for.
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

/// What asks the sources of many images together, and the disk of each as told.
pub(super) fn asking<'a>(guard: &'a Guard, batch: &Arc<BatchLoader>, disk: Asked) -> Collector<'a> {
    let lookups = Lookups::together(guard.aws.clone(), Arc::clone(batch));
    Collector {
        lookups,
        disk,
        ..guard.collector()
    }
}

/// What would be done about an image around which there is nothing that holds a discard.
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
