//! What a sweep found: of however many images, a number and the first few of each group.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::billing::Platforms;
use crate::ec2::Image;
use crate::error::Error;
use crate::expectation::{
    DISK_MAY_HOLD, Declared, Evidence, Expectation, OPEN_EXEMPTION, Says, Source,
};
use crate::ids::AmiId;
use crate::record::{Actual, Expected, Record, Statement};

/// So many images of a group are kept, and told of one by one.
pub(crate) const FIRST: usize = 20;

/// Why people are told of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Group {
    /// Nobody told of it, or what was told could not be dealt with: it was judged by the sweep.
    Unheard,
    /// It does not bill what it should, and no discard of it is on record.
    Mismatch,
    /// It does not bill what it should, and its discard was held.
    Held,
    /// What is known of it contradicts itself.
    Conflict,
    /// Nothing says what it should bill.
    Unverifiable,
    /// EC2 says something of it that this version does not know, and nothing of the above holds.
    Unrecognised,
}

impl Group {
    /// Its name for programs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Group::Unheard => "unheard",
            Group::Mismatch => "mismatch",
            Group::Held => "held",
            Group::Conflict => "conflict",
            Group::Unverifiable => "unverifiable",
            Group::Unrecognised => "unrecognised",
        }
    }
}

/// What a summary says of an image: a few members of its record, under the same names.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Finding {
    /// The image.
    pub(crate) image_id: Option<String>,
    /// Its name.
    pub(crate) name: Option<String>,
    /// The verdict; `None` if the image could not be judged.
    pub(crate) verdict: Option<String>,
    /// The kind of a mismatch.
    pub(crate) kind: Option<String>,
    /// Why, as a sentence.
    #[serde(default)]
    pub(crate) reason: String,
    /// What EC2 bills.
    pub(crate) actual: Option<Actual>,
    /// What it should bill.
    pub(crate) expected: Option<Expected>,
    /// What was decided.
    pub(crate) action: Option<String>,
    /// What became of a discard.
    pub(crate) outcome: Option<String>,
    /// The interlocks that held a discard.
    #[serde(default)]
    pub(crate) held_by: Vec<String>,
    /// The id of the event that the image was judged for.
    pub(crate) event_id: Option<String>,
    #[serde(default, skip_serializing)]
    evidence: Vec<Said>,
}

/// What a source said, as far as a sweep minds.
#[derive(Clone, Debug, Deserialize)]
struct Said {
    source: String,
    state: String,
    says: Vec<String>,
    #[serde(default)]
    product_codes: Option<BTreeSet<String>>,
    detail: String,
}

impl Finding {
    /// What a record says.
    pub(crate) fn of(record: &Record) -> Finding {
        serde_json::from_value(serde_json::json!(record)).unwrap_or_default()
    }

    /// That an image could not be dealt with. `image`: as it was listed.
    pub(crate) fn failed(id: &AmiId, image: Option<&Image>, error: &Error) -> Finding {
        Finding {
            image_id: Some(id.to_string()),
            name: image.and_then(|image| image.name.clone()),
            reason: error.to_string(),
            actual: image.map(Actual::of),
            ..Finding::default()
        }
    }

    /// Whether the image bills what it did, and people declare of it what they did: as far as it takes no call to know,
    /// and as it could make another verdict.
    pub(crate) fn is_of(&self, image: &Image, declared: &Declared) -> bool {
        let exempted = declared.expectation.exemption.is_some();
        let declared_as_before = match self.verdict.as_deref() {
            Some("exempt") => {
                let mut open = declared.open_exemptions.iter();
                exempted || open.any(|reason| self.reason.starts_with(&format!("{reason} [")))
            }
            _ => {
                let decided = self.expected.as_ref().map(|expected| expected.source);
                let observed = [Source::Lineage, Source::Disk]
                    .iter()
                    .any(|it| self.spoke(*it));
                // A declaration that is weaker than what decided changes nothing, unless it contradicts what was observed.
                // Product codes are the policy's to name, whoever names the platform.
                let codes = declared.expectation.product_codes().is_some()
                    || self.evidence.iter().any(|it| it.product_codes.is_some());
                let matters = |source: &Source| {
                    decided.is_none_or(|decided| *source <= decided)
                        || (*source == Source::Policy && (observed || codes))
                };
                let mut sources = [Source::ImageTag, Source::Policy, Source::Default].into_iter();
                let tags_count = decided != Some(Source::SnapshotTag) || asks_tags(declared);
                !exempted
                    && tags_count
                    && sources.all(|it| !matters(&it) || self.heard(it, &declared.expectation))
            }
        };
        declared_as_before && self.actual.as_ref() == Some(&Actual::of(image))
    }

    /// Whether a source had said what it says now. What it can not say now contradicts nothing.
    fn heard(&self, source: Source, expectation: &Expectation) -> bool {
        let now = expectation.evidence.iter().filter(|it| it.source == source);
        // Whether an exemption applies is another question.
        let now: Vec<Statement> = now
            .filter(|it| it.detail != OPEN_EXEMPTION)
            .map(Statement::from)
            .collect();
        let then = self.evidence.iter().filter(|it| it.source == source.name());
        let gist =
            |state: &str, says: &[String], codes: &Option<BTreeSet<String>>, detail: &str| {
                // A rule may move within the policy.
                let detail = match source {
                    Source::ImageTag => Some(detail),
                    Source::Policy => detail.split_once(DISK_MAY_HOLD).map(|(_, disk)| disk),
                    _ => None,
                };
                let detail = detail.map(str::to_owned);
                matches!(state, "spoke" | "no-platform")
                    .then(|| (says.to_vec(), codes.clone(), detail))
            };
        let then = then.filter_map(|it| gist(&it.state, &it.says, &it.product_codes, &it.detail));
        let said = now
            .iter()
            .filter_map(|it| gist(it.state, &it.says, &it.product_codes, &it.detail));
        now.iter().any(|it| it.state == "failed") || said.eq(then)
    }

    fn spoke(&self, source: Source) -> bool {
        let mut said = self.evidence.iter();
        said.any(|it| it.source == source.name() && it.state == "spoke")
    }

    /// Whether there is nothing to be told of the image.
    pub(crate) fn is_good(&self) -> bool {
        matches!(self.verdict.as_deref(), Some("verified" | "exempt")) && !self.is_unrecognised()
    }

    /// Whether EC2 says something of the image that this version does not know.
    fn is_unrecognised(&self) -> bool {
        let actual = self.actual.as_ref();
        actual.is_some_and(|actual| !actual.unrecognised().is_empty())
    }

    /// What the disk said, if it spoke: a sweep does not ask it again.
    pub(crate) fn disk(&self) -> Option<Evidence> {
        let mut said = self.evidence.iter().filter(|it| it.state == "spoke");
        let said = said.find(|it| it.source == Source::Disk.name())?;
        let platforms = Platforms::parse(said.says.iter().map(String::as_str)).ok()?;
        Some(Evidence {
            source: Source::Disk,
            says: Says::Platforms(platforms),
            detail: said.detail.clone(),
        })
    }

    /// Where it belongs, if people are to know of it at all.
    pub(crate) fn group(&self) -> Option<Group> {
        match self.verdict.as_deref()? {
            "mismatch" if self.is_held() => Some(Group::Held),
            "mismatch" => Some(Group::Mismatch),
            "conflict" => Some(Group::Conflict),
            _ if self.is_unrecognised() => Some(Group::Unrecognised),
            "unverifiable" => Some(Group::Unverifiable),
            _ => None,
        }
    }

    /// Whether a discard is held.
    pub(crate) fn is_held(&self) -> bool {
        self.action.as_deref() == Some("hold")
    }
}

/// Whether the policy has tags asked at all.
fn asks_tags(declared: &Declared) -> bool {
    let mut evidence = declared.expectation.evidence.iter();
    evidence.any(|it| it.source == Source::ImageTag && it.says != Says::NotAsked)
}

/// All that a sweep found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// How many images were dealt with as if their event had come, by this attempt.
    pub(crate) made_up: usize,
    /// Why one of these must be looked at again, if one must.
    pub(crate) unended: Option<Error>,
    /// The images that are among the findings before they are come across in the list.
    pub(crate) dealt_with: BTreeSet<AmiId>,
    /// Whether it went on where the last one had stopped.
    pub(crate) resumed: bool,
    /// Whether it came to the end.
    pub(crate) complete: bool,
    /// The pages that it came through.
    pub(crate) pages: usize,
    /// The images on them.
    pub(crate) looked_at: usize,
    /// Those of them that are as they were when they were judged, and good.
    pub(crate) unchanged: usize,
    /// Those of them of which EC2 says something that this version does not know.
    pub(crate) unrecognised: usize,
    groups: BTreeMap<Group, Found>,
}

/// The images of a group.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// How many there are.
    pub(crate) number: usize,
    /// The first few.
    pub(crate) first: Vec<Finding>,
}

impl Findings {
    /// Nothing yet. `resumed`: whether the sweep goes on where the last one stopped.
    pub(crate) fn begin(resumed: bool) -> Findings {
        Findings {
            resumed,
            ..Findings::default()
        }
    }

    /// Takes note of an image.
    pub(crate) fn add(&mut self, group: Group, finding: Finding) {
        self.unrecognised += usize::from(finding.is_unrecognised());
        let found = self.groups.entry(group).or_default();
        found.number += 1;
        if found.first.len() < FIRST {
            found.first.push(finding);
        }
    }

    /// The groups that are not empty.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (Group, &Found)> {
        self.groups.iter().map(|(group, found)| (*group, found))
    }

    /// How many images a group has.
    pub(crate) fn number(&self, group: Group) -> usize {
        self.groups.get(&group).map_or(0, |found| found.number)
    }

    /// How many images people are to be told of.
    pub(crate) fn to_tell(&self) -> usize {
        self.groups.values().map(|found| found.number).sum()
    }
}
