//! What an image should bill, and who says so.
//!
//! Each source of evidence makes one statement; the strongest that speaks decides. Which sources
//! there are, and how they rank, is [`Source`].

use std::fmt;

use serde::Serialize;

use crate::billing::Platforms;
use crate::observation::Image;
use crate::policy::Policy;

/// The tag by which a person declares what an image should bill. Several values are separated by commas.
pub const EXPECT_TAG: &str = "ami-billing-guard:expect";

/// Where evidence comes from, the strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
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

/// What stands behind a source's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A person said so of this image.
    Declared,
    /// The guard saw it.
    Observed,
    /// Neither: it was said of every image at once.
    Default,
}

impl Source {
    /// The source's name in records.
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

    /// What stands behind the source's word.
    pub fn standing(&self) -> Standing {
        match self {
            Source::ImageTag | Source::SnapshotTag | Source::Policy => Standing::Declared,
            Source::Lineage | Source::Disk => Standing::Observed,
            Source::Default => Standing::Default,
        }
    }
}

/// What came of asking a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Says {
    /// It was not asked: the policy says so.
    NotAsked,
    /// It was asked, and has nothing to say.
    Silent,
    /// It was asked, and could not answer: why.
    Failed(String),
    /// It names something that is no platform. A mistake, and so no ground for any comparison.
    NoPlatform(String),
    /// It names what the image may bill.
    Platforms(Platforms),
}

impl fmt::Display for Says {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Says::NotAsked => f.write_str("nothing (not asked)"),
            Says::Silent => f.write_str("nothing"),
            Says::Failed(why) => write!(f, "nothing (failed: {why})"),
            Says::NoPlatform(text) => write!(f, "{text:?}, which is no platform"),
            Says::Platforms(platforms) => platforms.fmt(f),
        }
    }
}

/// One source's statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Who says it.
    pub source: Source,
    /// What it says.
    pub says: Says,
    /// Where it was read, for a person to check.
    pub detail: String,
}

/// The billing that an image should have, with the evidence for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expectation {
    /// The reason of the policy rule that exempts the image.
    pub exemption: Option<String>,
    /// One statement a source.
    pub evidence: Vec<Evidence>,
}

impl Expectation {
    /// The statement that decides: that of the strongest source that spoke, be it nonsense.
    pub fn decisive(&self) -> Option<&Evidence> {
        self.evidence
            .iter()
            .filter(|evidence| matches!(evidence.says, Says::Platforms(_) | Says::NoPlatform(_)))
            .min_by_key(|evidence| evidence.source)
    }

    /// The platforms that the deciding source names.
    pub fn platforms(&self) -> Option<&Platforms> {
        match &self.decisive()?.says {
            Says::Platforms(platforms) => Some(platforms),
            _ => None,
        }
    }

    /// A stronger source, and an observed one that names another operating system. What is weaker
    /// and not observed (the default) contradicts nobody.
    pub fn contradiction(&self) -> Option<(&Evidence, &Evidence)> {
        let spoken = |evidence: &&Evidence| matches!(evidence.says, Says::Platforms(_));
        self.evidence.iter().filter(spoken).find_map(|stronger| {
            self.evidence
                .iter()
                .filter(spoken)
                .find(|observed| {
                    observed.source.standing() == Standing::Observed
                        && stronger.source < observed.source
                        && match (&stronger.says, &observed.says) {
                            (Says::Platforms(one), Says::Platforms(other)) => !one.share_os(other),
                            _ => false,
                        }
                })
                .map(|observed| (stronger, observed))
        })
    }

    /// Whether the source that decides is a declaration.
    pub fn decided_by_declaration(&self) -> bool {
        self.decisive()
            .is_some_and(|decisive| decisive.source.standing() == Standing::Declared)
    }

    /// A source stronger than the deciding one that could not be asked.
    pub fn failed_stronger_source(&self) -> Option<&Evidence> {
        let decisive = self.decisive()?.source;
        self.evidence
            .iter()
            .find(|evidence| evidence.source < decisive && matches!(evidence.says, Says::Failed(_)))
    }
}

/// Gathers the evidence on an image.
pub fn resolve(image: &Image, policy: &Policy) -> Expectation {
    let mut evidence = vec![tag_on_image(image, policy)];
    if let Some(platforms) = &policy.default_expect {
        evidence.push(Evidence {
            source: Source::Default,
            says: Says::Platforms(platforms.clone()),
            detail: "defaults.expect of the policy".into(),
        });
    }
    Expectation {
        exemption: None,
        evidence,
    }
}

fn tag_on_image(image: &Image, policy: &Policy) -> Evidence {
    let tag = image.tags.get(EXPECT_TAG);
    let says = match tag {
        _ if !policy.ask_tags => Says::NotAsked,
        None => Says::Silent,
        Some(value) => match Platforms::parse(value.split(',')) {
            Ok(platforms) => Says::Platforms(platforms),
            Err(text) => Says::NoPlatform(text.to_owned()),
        },
    };
    let detail = match tag {
        Some(value) if policy.ask_tags => format!("{EXPECT_TAG}={value}"),
        _ => EXPECT_TAG.into(),
    };
    Evidence {
        source: Source::ImageTag,
        says,
        detail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(tag: Option<&str>, policy: &Policy) -> Says {
        let image = Image {
            tags: tag
                .map(|value| (EXPECT_TAG.to_owned(), value.to_owned()))
                .into_iter()
                .collect(),
            ..Image::default()
        };
        resolve(&image, policy).evidence.remove(0).says
    }

    #[test]
    fn the_tag_on_the_image_speaks_is_silent_is_nonsense_or_is_not_asked() {
        let policy = Policy::default();
        assert_eq!(says(None, &policy), Says::Silent);
        assert_eq!(
            says(Some("redhat, RedHatHa"), &policy),
            Says::Platforms(Platforms::parse(["RedHat", "RedHatHa"]).unwrap())
        );
        assert_eq!(
            says(Some("RedHat,RHEL"), &policy),
            Says::NoPlatform("RHEL".into())
        );
        assert_eq!(says(Some(""), &policy), Says::NoPlatform("".into()));
        let without_tags = Policy {
            ask_tags: false,
            ..Policy::default()
        };
        assert_eq!(says(Some("RedHat"), &without_tags), Says::NotAsked);
    }

    #[test]
    fn the_tag_outranks_the_default() {
        let policy = Policy {
            default_expect: Some(Platforms::parse(["Linux"]).unwrap()),
            ..Policy::default()
        };
        let mut image = Image::default();
        assert_eq!(
            resolve(&image, &policy).decisive().unwrap().source,
            Source::Default
        );
        image.tags.insert(EXPECT_TAG.into(), "Windows".into());
        assert_eq!(
            resolve(&image, &policy).decisive().unwrap().source,
            Source::ImageTag
        );
    }
}
