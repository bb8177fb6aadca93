//! Queries the sources for what an image is expected to be billed as. Starts with the strongest source, queries each as
//! the policy says, and looks up nothing twice.

pub(crate) mod batch;
pub mod disk;
pub(crate) mod lineage;
mod observed;

use std::collections::BTreeMap;
use std::time::Duration;

use ::disk::contained::Reader;
use tokio::sync::Mutex;

use self::batch::Lookups;
use self::disk::ROOT_SNAPSHOT;
use self::lineage::ORIGIN;
use self::observed::Observed;
use crate::ec2::{Image, Observation, Snapshot};
use crate::event::Registration;
use crate::expectation::declared::{self, Declared};
use crate::expectation::{Evidence, Expectation, Lookup, Says, Source, Subject};
use crate::policy::{Asked, Policy};
use crate::verdict::{Judgement, Verdict, judge};

/// How long to wait while other disks of the batch are read. Afterwards, there must be time to read this disk and to
/// discard the image.
const TURN: Duration = Duration::from_secs(20);

/// Cache of what was looked up for an image, kept within an invocation.
#[derive(Debug)]
pub(crate) struct EvidenceCache {
    snapshot: Lookup<Snapshot>,
    /// What lineage and disk found, as far as they were queried.
    observed: BTreeMap<Source, Observed>,
    /// Whether the look-up of the snapshot failed and a retry may succeed.
    is_transient: bool,
    /// Whether product codes were compared.
    compared: bool,
    /// Whether the look-ups were just made, so that tags are not read again.
    just_now: bool,
}

impl EvidenceCache {
    /// An empty cache.
    fn none(image: &Image) -> EvidenceCache {
        EvidenceCache {
            snapshot: nothing_seen(image),
            observed: BTreeMap::new(),
            is_transient: lacks_root_snapshot(image),
            compared: false,
            just_now: false,
        }
    }

    /// The same cache, marked as just filled, for the first verdict of this invocation.
    pub(crate) fn of_a_moment_ago(self) -> EvidenceCache {
        EvidenceCache {
            just_now: true,
            ..self
        }
    }
}

/// What was found out about an image, and the verdict that follows from it.
pub(crate) struct Assessment {
    pub(crate) observation: Observation,
    pub(crate) expectation: Expectation,
    pub(crate) judgement: Judgement,
    /// The look-ups behind it. `None` if the image is not available.
    pub(crate) cache: Option<EvidenceCache>,
}

/// Queries the sources.
pub(crate) struct Collector<'a> {
    /// Look-ups in EC2.
    pub(crate) lookups: Lookups,
    pub(crate) policy: &'a Policy,
    /// When to read the disk: as the policy says, or less often.
    pub(crate) disk: Asked,
    /// Reads a disk.
    pub(crate) reader: &'a Reader,
    /// Lock that is held while a disk is read.
    pub(crate) disk_turn: &'a Mutex<()>,
}

impl Collector<'_> {
    /// Determines what an image is expected to be billed as, and judges it. `before` has the earlier look-ups of this
    /// invocation for the image.
    pub(crate) async fn assess(
        &self,
        registration: &Registration,
        observation: Observation,
        before: Option<EvidenceCache>,
    ) -> Assessment {
        let (expectation, cache) = match &observation {
            Observation::Available(image) => {
                let inquiry = self.inquire(registration, image, &observation, before);
                let (expectation, cache) = inquiry.await;
                (expectation, Some(cache))
            }
            Observation::Gone { .. } | Observation::Failed { .. } => (Expectation::default(), None),
        };
        Assessment {
            judgement: judge(&observation, &expectation),
            observation,
            expectation,
            cache,
        }
    }

    /// Determines what an image is expected to be billed as. Keeps the root snapshot's origin and disk contents from
    /// `before`, because a snapshot does not change. Reads tags again wherever they could matter.
    async fn inquire(
        &self,
        registration: &Registration,
        image: &Image,
        observation: &Observation,
        before: Option<EvidenceCache>,
    ) -> (Expectation, EvidenceCache) {
        let declare =
            |snapshot: &Lookup<Snapshot>| declare(self.policy, registration, image, snapshot);
        let mut snapshot = nothing_seen(image);
        let mut declared = declare(&snapshot);
        let before = before.unwrap_or_else(|| EvidenceCache::none(image));
        let mut is_transient = before.is_transient;
        let mut observed = before.observed;
        // Look-ups that failed a moment ago are retried. A disk is read again only if that may help.
        observed.retain(|source, found| match source {
            Source::Disk => !found.is_transient,
            Source::Lineage
            | Source::ImageTag
            | Source::SnapshotTag
            | Source::Policy
            | Source::Default => !found.failed(),
        });
        let sources = [
            (Source::Lineage, self.policy.lineage),
            (Source::Disk, self.disk),
        ];
        if declared.expectation.exemption.is_none()
            && let Lookup::NotYet = snapshot
        {
            let observes = sources.iter().any(|(source, asked)| {
                !observed.contains_key(source)
                    && is_asked(*asked, *source, observation, &declared.expectation)
            });
            snapshot = match before.snapshot {
                seen @ Lookup::Seen(_) if before.just_now => seen,
                _ if declared.needs_snapshot || observes => {
                    let look;
                    (look, is_transient) = self.look_at_root_snapshot(image).await;
                    look
                }
                seen => seen,
            };
            declared = declare(&snapshot);
        }
        let mut expectation = declared.expectation;
        let mut cache = EvidenceCache {
            snapshot,
            observed,
            is_transient,
            compared: before.compared,
            just_now: false,
        };
        if expectation.exemption.is_some() {
            return (expectation, cache);
        }
        let snapshot = &cache.snapshot;

        expectation.is_transient = is_transient;
        for (source, asked) in sources {
            let found = match cache.observed.get(&source).cloned() {
                Some(found) => found,
                None if is_asked(asked, source, observation, &expectation) => {
                    let found = self.observe(source, registration, image, snapshot).await;
                    cache.observed.insert(source, found.clone());
                    found
                }
                None => unasked(source, snapshot),
            };
            expectation.origin = expectation.origin.or(found.origin);
            expectation.unrecognised_witness |= found.unrecognised;
            expectation.is_transient |= found.is_transient;
            expectation.is_late |= found.is_late;
            expectation.evidence.extend(found.evidence);
        }
        expectation.evidence.sort_by_key(|evidence| evidence.source);

        // Product codes decide nothing, and no call returns those of many snapshots. They are therefore compared only
        // if something is wrong with the image.
        let verdict = judge(observation, &expectation).verdict;
        let lineage = cache.observed.get_mut(&Source::Lineage);
        if let (Some(lineage), Lookup::Seen(snapshot)) = (lineage, &cache.snapshot)
            && matches!(verdict, Verdict::Mismatch(_) | Verdict::Conflict)
            && !cache.compared
            && !self.lookups.are_together()
        {
            let differ =
                lineage::product_codes(&self.lookups.aws, registration, image, snapshot).await;
            if let Some(differ) = differ {
                let of_lineage = |it: &&mut Evidence| it.source == Source::Lineage;
                let known = lineage.evidence.first_mut();
                let said = expectation.evidence.iter_mut().find(of_lineage);
                for statement in known.into_iter().chain(said) {
                    statement.detail = format!("{}; {differ}", statement.detail);
                }
            }
            cache.compared = true;
        }
        (expectation, cache)
    }

    /// Looks up the root snapshot. Also returns whether a failed look-up may succeed on a retry.
    async fn look_at_root_snapshot(&self, image: &Image) -> (Lookup<Snapshot>, bool) {
        let Some(id) = &image.root_snapshot else {
            return (nothing_seen(image), lacks_root_snapshot(image));
        };
        match self.lookups.snapshot(id).await {
            Ok(Some(snapshot)) => match snapshot.lacks {
                None => (Lookup::Seen(snapshot), false),
                Some(what) => (
                    Lookup::Failed(format!("EC2's answer on {id} lacks {what}")),
                    true,
                ),
            },
            Ok(None) => {
                let why = format!("EC2 does not show {id} to this account");
                (Lookup::Failed(why), false)
            }
            Err(error) => (Lookup::Failed(error.to_string()), !error.needs_a_person()),
        }
    }

    /// Queries an observed source. Adds the billing that the registration itself asked for to the lineage.
    async fn observe(
        &self,
        source: Source,
        registration: &Registration,
        image: &Image,
        snapshot: &Lookup<Snapshot>,
    ) -> Observed {
        let mut found = match snapshot {
            Lookup::Seen(snapshot) => match source {
                Source::Lineage => {
                    lineage::walk(&self.lookups, registration, image, snapshot).await
                }
                Source::Disk => self.read_disk(registration, image, snapshot).await,
                Source::ImageTag | Source::SnapshotTag | Source::Policy | Source::Default => {
                    Observed::single(source, Says::NotAsked, subject(source))
                }
            },
            Lookup::Failed(why) => {
                Observed::single(source, Says::Failed(why.clone()), subject(source))
            }
            Lookup::NotYet | Lookup::NotApplicable(_) => unasked(source, snapshot),
        };
        if source == Source::Lineage {
            found.evidence.extend(lineage::requested(registration));
        }
        found
    }

    /// Reads the disk. Only one disk is read at a time, because each may need nearly as much memory as the smallest
    /// function has.
    async fn read_disk(
        &self,
        registration: &Registration,
        image: &Image,
        snapshot: &Snapshot,
    ) -> Observed {
        let Ok(_turn) = tokio::time::timeout(TURN, self.disk_turn.lock()).await else {
            let why = "no time was left after the other disks of this batch";
            return Observed {
                is_transient: true,
                ..disk::undetermined(why, ROOT_SNAPSHOT)
            };
        };
        let most_blocks = self.policy.disk_max_blocks;
        // Boxed because the SDK's futures are large.
        let disk = disk::read(
            &self.lookups.aws,
            self.reader,
            most_blocks,
            registration,
            image,
            snapshot,
        );
        Box::pin(disk).await
    }
}

/// What people declared about an image, as far as that is known without a call.
pub(crate) fn declared(policy: &Policy, registration: &Registration, image: &Image) -> Declared {
    declare(policy, registration, image, &nothing_seen(image))
}

fn declare(
    policy: &Policy,
    registration: &Registration,
    image: &Image,
    snapshot: &Lookup<Snapshot>,
) -> Declared {
    let subject = Subject {
        registration,
        image,
        snapshot,
    };
    declared::declared(subject, policy)
}

/// Whether to query an observed source.
pub(crate) fn is_asked(
    asked: Asked,
    source: Source,
    observation: &Observation,
    known: &Expectation,
) -> bool {
    match asked {
        Asked::Never => false,
        Asked::WhenNeeded => is_needed(source, observation, known),
        Asked::Always => true,
    }
}

/// Whether an observed source is needed: no stronger source names a platform, or a discard would follow.
fn is_needed(source: Source, observation: &Observation, known: &Expectation) -> bool {
    !known.spoke_before(source) || judge(observation, known).verdict.calls_for_discard()
}

/// Whether EC2's answer lacks the root snapshot. Only an image that is not on EBS has none.
fn lacks_root_snapshot(image: &Image) -> bool {
    image.root_snapshot.is_none() && !image.is_instance_store_backed()
}

fn nothing_seen(image: &Image) -> Lookup<Snapshot> {
    if image.is_instance_store_backed() {
        Lookup::NotApplicable("the image is instance-store-backed and has no root snapshot".into())
    } else if image.root_snapshot.is_none() {
        // The snapshot exists, and may well have a tag.
        Lookup::Failed("EC2 does not name the snapshot of the root device".into())
    } else {
        Lookup::NotYet
    }
}

/// An observed source that is not queried.
fn unasked(source: Source, snapshot: &Lookup<Snapshot>) -> Observed {
    match snapshot {
        Lookup::NotApplicable(why) => Observed::single(source, Says::NotApplicable, why),
        _ => Observed::single(source, Says::NotAsked, subject(source)),
    }
}

/// Subject of an observed source's statement if there is nothing else to report.
fn subject(source: Source) -> &'static str {
    match source {
        Source::Lineage => ORIGIN,
        Source::Disk => ROOT_SNAPSHOT,
        Source::ImageTag | Source::SnapshotTag | Source::Policy | Source::Default => source.name(),
    }
}
