//! Asking the sources what an image should bill: the strongest first, each as the policy wants it
//! asked, and nothing twice.

use crate::event::Registration;
use crate::expectation::lineage::{self, Lineage, ORIGIN};
use crate::expectation::{self, Evidence, Expectation, Look, Says, Source, Subject};
use crate::guard::Guard;
use crate::observation::{Image, Observation, Snapshot};
use crate::policy::Asked;
use crate::verdict::judge;

/// What was looked up for an image's expectation, to be kept within an invocation.
#[derive(Debug)]
pub(crate) struct Traces {
    snapshot: Look<Snapshot>,
    lineage: Option<Lineage>,
    /// Whether the snapshot could not be looked at, and may be the next time.
    may_pass: bool,
}

impl Guard {
    /// Gathers what an image should bill. Of what was found out `before`, in this invocation, the
    /// origin of the root snapshot is kept; tags are read again wherever they could matter.
    pub(crate) async fn inquire(
        &self,
        registration: &Registration,
        image: &Image,
        observation: &Observation,
        before: Option<Traces>,
    ) -> (Expectation, Traces) {
        let declare = |snapshot: &Look<Snapshot>| {
            let subject = Subject {
                registration,
                image,
                snapshot,
            };
            expectation::declared(subject, &self.policy)
        };
        let mut snapshot = nothing_seen(image);
        let mut declared = declare(&snapshot);
        let (seen, known, mut may_pass) = match before {
            // What could not be asked a moment ago is asked once more.
            Some(before) => (
                before.snapshot,
                before.lineage.filter(|lineage| !lineage.failed()),
                before.may_pass,
            ),
            None => (nothing_seen(image), None, false),
        };
        if declared.expectation.exemption.is_none()
            && let Look::NotYet = snapshot
        {
            let walks = known.is_none() && self.walks(observation, &declared.expectation);
            snapshot = if declared.needs_snapshot || walks {
                let look;
                (look, may_pass) = self.look_at_root_snapshot(image).await;
                look
            } else {
                seen
            };
            declared = declare(&snapshot);
        }
        let mut expectation = declared.expectation;
        if expectation.exemption.is_some() {
            let traces = Traces {
                snapshot,
                lineage: known,
                may_pass,
            };
            return (expectation, traces);
        }

        let lineage = match known {
            Some(lineage) => Some(lineage),
            None if self.walks(observation, &expectation) => {
                let thorough = is_needed(observation, &expectation);
                Some(self.walk(registration, image, &snapshot, thorough).await)
            }
            None => None,
        };
        let said = lineage.clone().unwrap_or_else(|| not_asked(&snapshot));
        expectation.origin = said.origin;
        expectation.may_pass = may_pass || said.may_pass;
        expectation.evidence.extend(said.evidence);
        expectation.evidence.push(disk(&snapshot));
        expectation.evidence.sort_by_key(|evidence| evidence.source);
        let traces = Traces {
            snapshot,
            lineage,
            may_pass,
        };
        (expectation, traces)
    }

    /// Whether the lineage is to be asked.
    fn walks(&self, observation: &Observation, declared: &Expectation) -> bool {
        match self.policy.lineage {
            Asked::Never => false,
            Asked::WhenNeeded => is_needed(observation, declared),
            Asked::Always => true,
        }
    }

    /// Looks at the root snapshot; and whether a look that fails may succeed the next time.
    async fn look_at_root_snapshot(&self, image: &Image) -> (Look<Snapshot>, bool) {
        let Some(id) = &image.root_snapshot else {
            return (nothing_seen(image), false);
        };
        match self.aws.describe_snapshot(id).await {
            Ok(Some(snapshot)) => (Look::Seen(snapshot), false),
            Ok(None) => {
                let why = format!("EC2 shows no snapshot {id} to this account");
                (Look::Failed(why), false)
            }
            Err(error) => (Look::Failed(error.to_string()), !error.needs_a_person()),
        }
    }

    /// Asks the lineage, and what the registration itself asked for.
    async fn walk(
        &self,
        registration: &Registration,
        image: &Image,
        snapshot: &Look<Snapshot>,
        thorough: bool,
    ) -> Lineage {
        let mut lineage = match snapshot {
            Look::Seen(snapshot) => {
                lineage::walk(&self.aws, registration, image, snapshot, thorough).await
            }
            Look::Failed(why) => Lineage::mute(Says::Failed(why.clone()), ORIGIN),
            Look::NotYet | Look::NotApplicable(_) => not_asked(snapshot),
        };
        lineage.evidence.extend(lineage::requested(registration));
        lineage
    }
}

/// Whether the observed sources are needed: nothing that people declared speaks, or a discard would
/// follow.
fn is_needed(observation: &Observation, declared: &Expectation) -> bool {
    !declared.spoke_before(Source::Lineage)
        || judge(observation, declared).verdict.calls_for_discard()
}

fn nothing_seen(image: &Image) -> Look<Snapshot> {
    if image.is_instance_store_backed() {
        Look::NotApplicable("the image is instance-store-backed: it has no root snapshot".into())
    } else if image.root_snapshot.is_none() {
        // There is one, and it may well bear a tag.
        Look::Failed("EC2 names no snapshot of the root device".into())
    } else {
        Look::NotYet
    }
}

fn not_asked(snapshot: &Look<Snapshot>) -> Lineage {
    match snapshot {
        Look::NotApplicable(why) => Lineage::mute(Says::NotApplicable, why),
        _ => Lineage::mute(Says::NotAsked, ORIGIN),
    }
}

fn disk(snapshot: &Look<Snapshot>) -> Evidence {
    let (says, detail) = match snapshot {
        Look::NotApplicable(why) => (Says::NotApplicable, why.as_str()),
        _ => (Says::NotAsked, "this version does not read disks"),
    };
    Evidence {
        source: Source::Disk,
        says,
        detail: detail.to_owned(),
    }
}
