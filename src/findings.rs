//! What an audit found: of each group, the number of images and the first few of them.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::billing::Platforms;
use crate::ec2::Image;
use crate::error::Error;
use crate::expectation::declared::Declared;
use crate::expectation::{
    DISK_MAY_HOLD, Evidence, Expectation, OPEN_EXEMPTION, Says, Source, Standing,
};
use crate::ids::AmiId;
use crate::record::stored::{StoredRecord, StoredStatement};
use crate::record::{Actual, Expected, Record, Statement};

/// Largest number of images of a group that are kept and reported one by one.
pub(crate) const FIRST: usize = 20;

/// Why an image is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Group {
    /// The guard received no event for it, or could not process the event. The audit judged it.
    Missed,
    /// It is not billed as expected, and no discard of it is on record.
    Mismatch,
    /// It is not billed as expected, and its discard was held.
    Held,
    /// What is known about it contradicts itself.
    Conflict,
    /// No source says what it is expected to be billed as.
    Unverifiable,
    /// EC2 says something about it that this version does not know. It is neither a mismatch nor a conflict.
    Unrecognised,
}

impl Group {
    /// Name of the group for programs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Group::Missed => "missed",
            Group::Mismatch => "mismatch",
            Group::Held => "held",
            Group::Conflict => "conflict",
            Group::Unverifiable => "unverifiable",
            Group::Unrecognised => "unrecognised",
        }
    }
}

/// What a summary says about an image: some members of its record, under the same names.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Finding {
    /// The image.
    pub(crate) image_id: Option<String>,
    /// Its name.
    pub(crate) name: Option<String>,
    /// The verdict. `None` if the image could not be judged.
    pub(crate) verdict: Option<String>,
    /// The kind of a mismatch.
    pub(crate) kind: Option<String>,
    /// The reason, as a sentence.
    pub(crate) reason: String,
    /// What it is billed as.
    pub(crate) actual: Option<Actual>,
    /// What it is expected to be billed as.
    pub(crate) expected: Option<Expected>,
    /// What was decided.
    pub(crate) action: Option<String>,
    /// The result of a discard.
    pub(crate) outcome: Option<String>,
    /// The interlocks that held a discard.
    pub(crate) held_by: Vec<String>,
    /// Id of the event for which the image was judged.
    pub(crate) event_id: Option<String>,
    #[serde(skip)]
    evidence: Vec<StoredStatement>,
}

impl From<StoredRecord> for Finding {
    fn from(record: StoredRecord) -> Finding {
        // What a later version wrote in another form may be what decided. Without a verdict, an audit judges the image
        // again.
        if !record.unreadable.is_empty() {
            return Finding {
                image_id: record.image_id,
                ..Finding::default()
            };
        }
        Finding {
            image_id: record.image_id,
            name: record.name,
            verdict: record.verdict,
            kind: record.kind,
            reason: record.reason.unwrap_or_default(),
            actual: record.actual,
            expected: record.expected,
            action: record.action,
            outcome: record.outcome,
            held_by: record.held_by,
            event_id: record.event_id,
            evidence: record.evidence,
        }
    }
}

impl Finding {
    /// The finding of a record.
    pub(crate) fn of(record: &Record) -> Finding {
        StoredRecord::of(record).into()
    }

    /// Finding for an image that could not be processed. `image` is the image as it was listed.
    pub(crate) fn failed(id: &AmiId, image: Option<&Image>, error: &Error) -> Finding {
        Finding {
            image_id: Some(id.to_string()),
            name: image.and_then(|image| image.name.clone()),
            reason: error.to_string(),
            actual: image.map(Actual::of),
            ..Finding::default()
        }
    }

    /// Whether the image is billed as before, and people's declarations about it are the same as before. Compares what
    /// is known without a call, as far as it could change the verdict.
    pub(crate) fn is_of(&self, image: &Image, declared: &Declared) -> bool {
        let exempted = declared.expectation.exemption.is_some();
        let declared_as_before = match self.verdict.as_deref() {
            Some("exempt") => {
                let mut open = declared.open_exemptions.iter();
                exempted || open.any(|reason| self.reason.starts_with(&format!("{reason} [")))
            }
            _ => {
                let decided = self.expected.as_ref().map(|expected| expected.source);
                let observed = Source::ALL
                    .into_iter()
                    .any(|it| it.standing() == Standing::Observed && self.spoke(it));
                // A declaration that is weaker than the deciding source changes nothing, unless it contradicts what was
                // observed. Product codes are the policy's, whichever source names the platform.
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

    /// Whether a source said before what it says now. What it cannot say now contradicts nothing.
    fn heard(&self, source: Source, expectation: &Expectation) -> bool {
        let now = expectation.evidence.iter().filter(|it| it.source == source);
        // Whether an exemption applies is a separate question.
        let now: Vec<Statement> = now
            .filter(|it| it.detail != OPEN_EXEMPTION)
            .map(Statement::from)
            .collect();
        let then = self.evidence.iter().filter(|it| it.source == source.name());
        let dedup_key =
            |state: &str, says: &[String], codes: &Option<BTreeSet<String>>, detail: &str| {
                // A rule may move within the policy.
                let detail = match source {
                    Source::ImageTag => Some(detail),
                    Source::Policy => detail.split_once(DISK_MAY_HOLD).map(|(_, disk)| disk),
                    _ => None,
                };
                let detail = detail.map(str::to_owned);
                matches!(state, "found" | "invalid").then(|| (says.to_vec(), codes.clone(), detail))
            };
        let then =
            then.filter_map(|it| dedup_key(&it.state, &it.says, &it.product_codes, &it.detail));
        let said = now
            .iter()
            .filter_map(|it| dedup_key(it.state, &it.says, &it.product_codes, &it.detail));
        now.iter().any(|it| it.state == "failed") || said.eq(then)
    }

    fn spoke(&self, source: Source) -> bool {
        let mut said = self.evidence.iter();
        said.any(|it| it.source == source.name() && it.state == "found")
    }

    /// Whether there is nothing to report about the image.
    pub(crate) fn is_good(&self) -> bool {
        matches!(self.verdict.as_deref(), Some("verified" | "exempt")) && !self.is_unrecognised()
    }

    /// Whether EC2 says something about the image that this version does not know.
    fn is_unrecognised(&self) -> bool {
        let actual = self.actual.as_ref();
        actual.is_some_and(|actual| !actual.unrecognised().is_empty())
    }

    /// What the disk said, if it named a platform. An audit does not read the disk again.
    pub(crate) fn disk(&self) -> Option<Evidence> {
        let mut said = self.evidence.iter().filter(|it| it.state == "found");
        let said = said.find(|it| it.source == Source::Disk.name())?;
        let platforms = Platforms::parse(said.says.iter().map(String::as_str)).ok()?;
        Some(Evidence {
            source: Source::Disk,
            says: Says::Platforms(platforms),
            detail: said.detail.clone(),
        })
    }

    /// The group that reports the image. `None` if it is not reported.
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

/// Whether the policy has tags read at all.
fn asks_tags(declared: &Declared) -> bool {
    let mut evidence = declared.expectation.evidence.iter();
    evidence.any(|it| it.source == Source::ImageTag && it.says != Says::NotAsked)
}

/// Everything that an audit found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Number of images without an event that this attempt processed as if their event had arrived.
    pub(crate) made_up: usize,
    /// Why one of these must be looked at again, if one must.
    pub(crate) unended: Option<Error>,
    /// Images that are among the findings before the listing reaches them.
    pub(crate) dealt_with: BTreeSet<AmiId>,
    /// Whether it continued where the last audit had stopped.
    pub(crate) resumed: bool,
    /// Whether it reached the end.
    pub(crate) complete: bool,
    /// Number of pages that it looked at.
    pub(crate) pages: usize,
    /// Number of images on these pages.
    pub(crate) looked_at: usize,
    /// Number of these images that are right, and unchanged since they were judged.
    pub(crate) unchanged: usize,
    /// Number of images about which EC2 says something that this version does not know.
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
    /// No findings yet. `resumed` says whether the audit continues where the last one stopped.
    pub(crate) fn begin(resumed: bool) -> Findings {
        Findings {
            resumed,
            ..Findings::default()
        }
    }

    /// Adds an image to a group.
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

    /// The first images of a group.
    pub(crate) fn first(&self, group: Group) -> &[Finding] {
        self.groups.get(&group).map_or(&[], |found| &found.first)
    }

    /// The number of images in a group.
    pub(crate) fn number(&self, group: Group) -> usize {
        self.groups.get(&group).map_or(0, |found| found.number)
    }

    /// The number of images to report.
    pub(crate) fn to_tell(&self) -> usize {
        self.groups.values().map(|found| found.number).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regression_an_image_whose_record_cannot_be_read_whole_is_judged_again() {
        let finding = |source: &str| {
            let record = format!(
                r#"{{"schema": 1, "image_id": "ami-1", "verdict": "verified",
                    "expected": {{"platform": ["Windows"], "source": "{source}"}}}}"#
            );
            Finding::from(StoredRecord::read(&record).unwrap())
        };
        assert!(finding("image-tag").is_good());
        let of_a_later_version = finding("a-later-source");
        assert_eq!(of_a_later_version.image_id.as_deref(), Some("ami-1"));
        assert!(!of_a_later_version.is_good());
        assert_eq!(of_a_later_version.verdict, None);
    }
}
