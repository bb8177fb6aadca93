//! What an image is expected to be billed as, and which source says so.
//!
//! Each source of evidence reports what it knows. The strongest one that names a platform decides. [`Source`] lists the
//! sources by rank.

pub(crate) mod declared;
mod rules;
mod tags;

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::billing::{Billing, Difference, Platforms, platform_meant_by};
use crate::ec2::{Image, Snapshot};
use crate::event::Registration;
use crate::policy::{Asked, DiscardFrom, Policy};

/// Tag with which a person declares what an image is expected to be billed as. Commas separate several values.
pub const EXPECT_TAG: &str = "ami-billing-guard:expect";

/// Detail of the policy's statement that it is unknown whether a rule exempts the image.
pub(crate) const OPEN_EXEMPTION: &str = "[[exempt]]";

/// Detail of the policy's statement that it is unknown which rule names product codes.
pub(crate) const PRODUCT_CODES_IN_DOUBT: &str = "[[expect]] product_codes";

/// In the detail of a rule, the text before what its disk may hold.
pub(crate) const DISK_MAY_HOLD: &str = "; the disk may hold ";

/// Where evidence comes from, the strongest source first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The tag on the image.
    ImageTag,
    /// The tag on its root snapshot.
    SnapshotTag,
    /// A rule of the policy.
    Policy,
    /// Where its root snapshot comes from.
    Lineage,
    /// What is on its root snapshot.
    Disk,
    /// `defaults.expect` of the policy.
    Default,
}

/// What a source's statement is based on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A person declared it, with a tag or a policy rule.
    Declared,
    /// The guard observed it.
    Observed,
    /// Neither. It is the policy's default for every image.
    Default,
}

impl Source {
    /// All sources, the strongest first.
    pub const ALL: [Source; 6] = [
        Source::ImageTag,
        Source::SnapshotTag,
        Source::Policy,
        Source::Lineage,
        Source::Disk,
        Source::Default,
    ];

    /// Name of the source in records.
    pub fn name(&self) -> &'static str {
        match self {
            Source::ImageTag => "image-tag",
            Source::SnapshotTag => "snapshot-tag",
            Source::Policy => "policy",
            Source::Lineage => "lineage",
            Source::Disk => "disk",
            Source::Default => "default",
        }
    }

    /// What the source's statement is based on.
    pub fn standing(&self) -> Standing {
        match self {
            Source::ImageTag | Source::SnapshotTag | Source::Policy => Standing::Declared,
            Source::Lineage | Source::Disk => Standing::Observed,
            Source::Default => Standing::Default,
        }
    }

    /// When to query an observed source. The policy's key for it is `evidence.` and the source's name.
    pub fn asked(&self, policy: &Policy) -> Option<Asked> {
        match self {
            Source::Lineage => Some(policy.lineage),
            Source::Disk => Some(policy.disk),
            Source::ImageTag | Source::SnapshotTag | Source::Policy | Source::Default => None,
        }
    }

    /// The word in the policy's `discard.from` that lets this source suffice for a discard. `None` if no word does.
    pub fn discard_from(&self) -> Option<DiscardFrom> {
        match self {
            Source::ImageTag | Source::SnapshotTag | Source::Policy => Some(DiscardFrom::Declared),
            Source::Lineage => Some(DiscardFrom::Lineage),
            Source::Disk => Some(DiscardFrom::Disk),
            Source::Default => None,
        }
    }
}

/// Result of querying a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Says {
    /// It was not queried, because the policy says so or nothing depended on it.
    NotAsked,
    /// There is nothing to query, such as the snapshot of an image that has none.
    NotApplicable,
    /// It was queried, and names nothing.
    Silent,
    /// It was queried, and the query failed. The text says why.
    Failed(String),
    /// It names something that is not a platform. That is a mistake, so nothing is compared with it.
    NoPlatform(String),
    /// It names what the image may be billed as.
    Platforms(Platforms),
    /// It names the product codes that the image is expected to have, exactly these. Only rules do that.
    ProductCodes(BTreeSet<String>),
}

impl Says {
    /// Whether the source named a platform. A text that is not a platform does not count.
    pub fn spoke(&self) -> bool {
        matches!(self, Says::Platforms(_))
    }
}

impl fmt::Display for Says {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Says::NotAsked => f.write_str("nothing (skipped)"),
            Says::NotApplicable => f.write_str("nothing (not applicable)"),
            Says::Silent => f.write_str("nothing"),
            Says::Failed(why) => write!(f, "nothing (failed: {why})"),
            Says::NoPlatform(text) => {
                write!(f, "{text:?}, which is not a platform")?;
                match platform_meant_by(text) {
                    Some(meant) => write!(f, " (did you mean {meant}?)"),
                    None => Ok(()),
                }
            }
            Says::Platforms(platforms) => platforms.fmt(f),
            Says::ProductCodes(codes) => f.write_str(&product_codes(codes)),
        }
    }
}

/// Product codes as text: `no product code`, `product code a, b`.
pub(crate) fn product_codes(codes: &BTreeSet<String>) -> String {
    match codes.is_empty() {
        true => "no product code".to_owned(),
        false => {
            let codes: Vec<&str> = codes.iter().map(String::as_str).collect();
            format!("product code {}", codes.join(", "))
        }
    }
}

/// A statement of one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The source.
    pub source: Source,
    /// What it says.
    pub says: Says,
    /// Where it was read, so that a person can check it.
    pub detail: String,
}

/// What an image is expected to be billed as, with the evidence for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expectation {
    /// Reason of the policy rule that exempts the image, and the rule's place in the policy.
    pub exemption: Option<String>,
    /// Whether it is unknown if a rule exempts the image. The evidence says why.
    pub open_exemption: bool,
    /// Whether a rule that could matter depends on who registered the image, and the event does not say.
    pub identity_asked: bool,
    /// The statements, the strongest source first. Lineage and policy may make several.
    pub evidence: Vec<Evidence>,
    /// Whether a witness of the lineage has platform details that this version does not know. Its usage operation then
    /// counts.
    pub unrecognised_witness: bool,
    /// What the disk may hold according to the rule that applies, although the image is rightly billed as something
    /// else. A disk that holds it contradicts nothing.
    pub disk_may_hold: Option<Platforms>,
    /// The instance that the image could be created from.
    pub origin: Option<Origin>,
    /// Whether a query failed that may succeed on a retry, for example because of throttling or a lost connection.
    pub is_transient: bool,
    /// Whether a long search has no result, or EC2's data about a witness contradicts itself or is incomplete. The
    /// event is retried for that only if a discard is due.
    pub is_late: bool,
}

/// The instance whose root volume the image's root snapshot was taken of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Instance id (`i-…`).
    pub instance: String,
    /// What the instance is billed as.
    pub bills: Billing,
}

impl Expectation {
    /// The statement that decides: that of the strongest source that names a platform.
    pub fn decisive(&self) -> Option<&Evidence> {
        self.evidence
            .iter()
            .filter(|evidence| evidence.says.spoke())
            .min_by_key(|evidence| evidence.source)
    }

    /// The platforms that the deciding source names.
    pub fn platforms(&self) -> Option<&Platforms> {
        match &self.decisive()?.says {
            Says::Platforms(platforms) => Some(platforms),
            _ => None,
        }
    }

    /// The product codes that the image is expected to have, exactly these, with the statement that names them.
    pub fn product_codes(&self) -> Option<(&Evidence, &BTreeSet<String>)> {
        self.evidence
            .iter()
            .find_map(|evidence| match &evidence.says {
                Says::ProductCodes(codes) => Some((evidence, codes)),
                _ => None,
            })
    }

    /// How what an image is billed as differs from what is expected, and the statement that says so. Of platform and
    /// product codes, the greater difference counts. `None` if no source names a platform, and no product code is
    /// missing or superfluous.
    pub(crate) fn difference(
        &self,
        actual: &Billing,
        product_codes: &BTreeSet<String>,
    ) -> Option<(Difference, &Evidence)> {
        // As for platforms, letter case does not matter.
        let lower = |codes: &BTreeSet<String>| -> BTreeSet<String> {
            codes.iter().map(|code| code.to_ascii_lowercase()).collect()
        };
        let by_codes = self.product_codes().map(|(evidence, expected)| {
            let (expected, actual) = (lower(expected), lower(product_codes));
            let difference = if !expected.is_subset(&actual) {
                Difference::Missing
            } else if expected != actual {
                Difference::Extra
            } else {
                Difference::None
            };
            (difference, evidence)
        });
        let by_platform = self.decisive().zip(self.platforms());
        let by_platform = by_platform.map(|(decisive, platforms)| {
            let sold = !product_codes.is_empty();
            (platforms.difference(actual, sold), decisive)
        });
        match (by_platform, by_codes) {
            (Some(platform), Some(codes)) if codes.0 > platform.0 => Some(codes),
            (Some(platform), _) => Some(platform),
            // Right product codes say nothing about the platform.
            (None, Some((Difference::None, _))) => None,
            (None, codes) => codes,
        }
    }

    /// The tag that names something other than a platform, if there is one. It is a typing error and does not count,
    /// but what was meant is unknown.
    pub fn mistyped(&self) -> Option<&Evidence> {
        let mut evidence = self.evidence.iter();
        evidence.find(|evidence| matches!(evidence.says, Says::NoPlatform(_)))
    }

    /// Why it is unknown which product codes a rule names, if that is in doubt.
    pub(crate) fn product_codes_in_doubt(&self) -> Option<&str> {
        let mut evidence = self.evidence.iter();
        evidence.find_map(|evidence| match &evidence.says {
            Says::Failed(why) if evidence.detail == PRODUCT_CODES_IN_DOUBT => Some(why.as_str()),
            _ => None,
        })
    }

    /// A statement, and an observed statement of the same or a weaker source that contradicts it.
    ///
    /// An observed statement contradicts another one in two cases:
    ///
    /// - It names another operating system.
    /// - It is that of the disk, or of the instance whose root volume the image was made of. It accepts what the image
    ///   is billed as (`actual`), and nothing of what is declared. EC2 and it are then two witnesses against one.
    ///
    /// The default is not observed, so it contradicts nothing. A disk that holds what a rule says that it may hold does
    /// not contradict that rule. Nor does it contradict a statement with the same operating system as the rule.
    pub fn contradiction(
        &self,
        actual: &Billing,
        product_codes: &BTreeSet<String>,
    ) -> Option<(&Evidence, &Evidence)> {
        let mut spoken: Vec<(&Evidence, &Platforms)> = self
            .evidence
            .iter()
            .filter_map(|evidence| match &evidence.says {
                Says::Platforms(platforms) => Some((evidence, platforms)),
                _ => None,
            })
            .collect();
        let rule = spoken
            .iter()
            .find(|(evidence, _)| evidence.source == Source::Policy)
            .map(|(_, platforms)| *platforms);
        let excused = |one: &Platforms, other: &Evidence, others: &Platforms| {
            other.source == Source::Disk
                && rule.is_some_and(|rule| rule.share_os(one))
                && self
                    .disk_may_hold
                    .as_ref()
                    .is_some_and(|may_hold| may_hold.share_os(others))
        };
        spoken.sort_by_key(|(evidence, _)| evidence.source);
        let is_witness = |evidence: &Evidence, platforms: &Platforms| match evidence.source {
            Source::Disk => true,
            Source::Lineage => {
                let origin = self.origin.as_ref();
                origin.is_some_and(|origin| platforms.names_first(&origin.bills))
            }
            _ => false,
        };
        let sold = !product_codes.is_empty();
        let outvoted = |one: &Evidence, names: &Platforms, other: &Evidence, others: &Platforms| {
            one.source.standing() == Standing::Declared
                && is_witness(other, others)
                && others.difference(actual, sold) == Difference::None
                && !others.share_a_platform(names, sold)
        };
        spoken.iter().enumerate().find_map(|(rank, (one, names))| {
            spoken
                .iter()
                .skip(rank + 1)
                .find(|(other, others)| {
                    other.source.standing() == Standing::Observed
                        && (!names.share_os(others) || outvoted(one, names, other, others))
                        && !excused(names, other, others)
                })
                .map(|(other, _)| (*one, *other))
        })
    }

    /// Whether an observed source confirms the declaration: it accepts what is declared, and not what the image is
    /// billed as.
    pub(crate) fn is_confirmed(
        &self,
        actual: Option<&Billing>,
        product_codes: &BTreeSet<String>,
    ) -> bool {
        let sold = !product_codes.is_empty();
        let Some(declared) = self.platforms() else {
            return false;
        };
        self.evidence.iter().any(|evidence| match &evidence.says {
            Says::Platforms(seen) if evidence.source.standing() == Standing::Observed => {
                let accepts = |actual| seen.difference(actual, sold) == Difference::None;
                seen.share_a_platform(declared, sold) && !actual.is_some_and(accepts)
            }
            _ => false,
        })
    }

    /// Whether a source stronger than this one names a platform.
    pub(crate) fn spoke_before(&self, source: Source) -> bool {
        self.decisive()
            .is_some_and(|decisive| decisive.source < source)
    }

    /// Whether the deciding source is a declaration.
    pub fn decided_by_declaration(&self) -> bool {
        self.decisive()
            .is_some_and(|decisive| decisive.source.standing() == Standing::Declared)
    }

    /// A failed query of a source that is stronger than the deciding statement. If a source makes several statements,
    /// the strongest comes first.
    pub fn failed_stronger_source(&self) -> Option<&Evidence> {
        let by_codes = || self.product_codes().map(|(evidence, _)| evidence);
        let decisive = self.decisive().or_else(by_codes)?;
        let mut ranked: Vec<&Evidence> = self.evidence.iter().collect();
        ranked.sort_by_key(|evidence| evidence.source);
        ranked
            .into_iter()
            .take_while(|evidence| *evidence != decisive)
            .find(|evidence| matches!(evidence.says, Says::Failed(_)))
    }
}

/// Result of looking at something that a source needs.
#[derive(Clone, Debug)]
pub(crate) enum Lookup<T> {
    /// It was not looked at yet.
    NotYet,
    /// There is no such thing to look at. The text says why.
    NotApplicable(String),
    /// It could not be seen. The text says why.
    Failed(String),
    /// What was seen.
    Seen(T),
}

/// What declarations are about: an image, its registration and its root snapshot.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) registration: &'a Registration,
    pub(crate) image: &'a Image,
    pub(crate) snapshot: &'a Lookup<Snapshot>,
}
