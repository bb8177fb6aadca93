//! Queries the sources for what an image is expected to be billed as. Starts with the strongest source, queries each as
//! the policy says, and looks up nothing twice.

pub(crate) mod batch;
pub mod disk;
pub(crate) mod lineage;

use std::time::Duration;

use ::disk::contained::Reader;
use tokio::sync::Mutex;

use self::batch::Lookups;
use self::disk::{Disk, ROOT_SNAPSHOT};
use self::lineage::{Lineage, ORIGIN};
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
    lineage: Option<Lineage>,
    disk: Option<Disk>,
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
            lineage: None,
            disk: None,
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
        // Look-ups that failed a moment ago are retried.
        let known = before.lineage.filter(|lineage| !lineage.failed());
        let read = before.disk.filter(|disk| !disk.is_transient);
        if declared.expectation.exemption.is_none()
            && let Lookup::NotYet = snapshot
        {
            let asks = |asked: Asked, known: bool| {
                !known && is_asked(asked, Source::Lineage, observation, &declared.expectation)
            };
            let observes =
                asks(self.policy.lineage, known.is_some()) || asks(self.disk, read.is_some());
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
            lineage: known,
            disk: read,
            is_transient,
            compared: before.compared,
            just_now: false,
        };
        if expectation.exemption.is_some() {
            return (expectation, cache);
        }
        let snapshot = &cache.snapshot;

        if cache.lineage.is_none()
            && is_asked(
                self.policy.lineage,
                Source::Lineage,
                observation,
                &expectation,
            )
        {
            cache.lineage = Some(self.walk(registration, image, snapshot).await);
        }
        let said = cache.lineage.clone();
        let said = said.unwrap_or_else(|| not_asked(snapshot));
        expectation.origin = said.origin;
        expectation.unrecognised_witness = said.unrecognised;
        expectation.is_late = said.late.is_some() || said.is_odd;
        expectation.evidence.extend(said.evidence);

        if cache.disk.is_none() && is_asked(self.disk, Source::Disk, observation, &expectation) {
            cache.disk = Some(self.read_disk(registration, image, snapshot).await);
        }
        let found = cache.disk.clone().unwrap_or_else(|| not_read(snapshot));
        expectation.is_transient = is_transient || said.is_transient || found.is_transient;
        expectation.evidence.push(found.evidence);
        expectation.evidence.sort_by_key(|evidence| evidence.source);

        // Product codes decide nothing, and no call returns those of many snapshots. They are therefore compared only
        // if something is wrong with the image.
        let verdict = judge(observation, &expectation).verdict;
        if let (Some(lineage), Lookup::Seen(snapshot)) = (&mut cache.lineage, &cache.snapshot)
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
                let why = format!("EC2 shows no snapshot {id} to this account");
                (Lookup::Failed(why), false)
            }
            Err(error) => (Lookup::Failed(error.to_string()), !error.needs_a_person()),
        }
    }

    /// Follows the lineage, and adds the billing that the registration itself asked for.
    async fn walk(
        &self,
        registration: &Registration,
        image: &Image,
        snapshot: &Lookup<Snapshot>,
    ) -> Lineage {
        let mut lineage = match snapshot {
            Lookup::Seen(snapshot) => {
                lineage::walk(&self.lookups, registration, image, snapshot).await
            }
            Lookup::Failed(why) => Lineage::mute(Says::Failed(why.clone()), ORIGIN),
            Lookup::NotYet | Lookup::NotApplicable(_) => not_asked(snapshot),
        };
        lineage.evidence.extend(lineage::requested(registration));
        lineage
    }

    /// Reads the disk. Only one disk is read at a time, because each may need nearly as much memory as the smallest
    /// function has.
    async fn read_disk(
        &self,
        registration: &Registration,
        image: &Image,
        snapshot: &Lookup<Snapshot>,
    ) -> Disk {
        let snapshot = match snapshot {
            Lookup::Seen(snapshot) => snapshot,
            Lookup::Failed(why) => return Disk::mute(Says::Failed(why.clone()), ROOT_SNAPSHOT),
            Lookup::NotYet | Lookup::NotApplicable(_) => return not_read(snapshot),
        };
        let Ok(_turn) = tokio::time::timeout(TURN, self.disk_turn.lock()).await else {
            return Disk {
                is_transient: true,
                ..Disk::undetermined(
                    "no time was left after other disks of this batch",
                    ROOT_SNAPSHOT,
                )
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
        Lookup::NotApplicable("the image is instance-store-backed: it has no root snapshot".into())
    } else if image.root_snapshot.is_none() {
        // The snapshot exists, and may well have a tag.
        Lookup::Failed("EC2 names no snapshot of the root device".into())
    } else {
        Lookup::NotYet
    }
}

fn not_asked(snapshot: &Lookup<Snapshot>) -> Lineage {
    match snapshot {
        Lookup::NotApplicable(why) => Lineage::mute(Says::NotApplicable, why),
        _ => Lineage::mute(Says::NotAsked, ORIGIN),
    }
}

fn not_read(snapshot: &Lookup<Snapshot>) -> Disk {
    match snapshot {
        Lookup::NotApplicable(why) => Disk::mute(Says::NotApplicable, why),
        _ => Disk::mute(Says::NotAsked, ROOT_SNAPSHOT),
    }
}
