//! What an image is expected to be billed as, and which source says so.
//!
//! Each source of evidence reports what it knows. The strongest one that names a platform decides. [`Source`] lists the
//! sources by rank.

mod rules;
mod tags;

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::billing::{Billing, Difference, Platforms, platform_meant_by};
use crate::ec2::{Image, Snapshot};
use crate::event::Registration;
use crate::policy::{Policy, Requirement, Rule};

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
            Says::NotAsked => f.write_str("nothing (not asked)"),
            Says::NotApplicable => f.write_str("nothing (not applicable)"),
            Says::Silent => f.write_str("nothing"),
            Says::Failed(why) => write!(f, "nothing (failed: {why})"),
            Says::NoPlatform(text) => {
                write!(f, "{text:?}, which is no platform")?;
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

/// What people declared about an image with exemptions, tags and rules.
pub(crate) struct Declared {
    pub(crate) expectation: Expectation,
    /// Whether a look at the root snapshot could change it.
    pub(crate) needs_snapshot: bool,
    /// Reasons of the rules that may exempt the image, if it is unknown whether one does.
    pub(crate) open_exemptions: Vec<String>,
}

/// Collects what is declared about an image, and the policy's default.
pub(crate) fn declared(subject: Subject<'_>, policy: &Policy) -> Declared {
    let exempt = rules::first(policy.exempt.iter(), subject);
    if let Some(rule) = exempt.rule {
        let expectation = Expectation {
            exemption: Some(format!("{} [{rule}]", rule.says)),
            ..Expectation::default()
        };
        return Declared {
            expectation,
            needs_snapshot: false,
            open_exemptions: Vec::new(),
        };
    }
    // A rule may name a platform, product codes, or both. Of each kind, the first rule that matches counts.
    let names_platform = |rule: &&Rule<Requirement>| rule.says.platforms.is_some();
    let names_codes = |rule: &&Rule<Requirement>| rule.says.product_codes.is_some();
    let expect = rules::first(policy.expect.iter().filter(names_platform), subject);
    let codes = rules::first(policy.expect.iter().filter(names_codes), subject);
    let image_tag = tags::on_image(subject.image, policy);
    let silent = matches!(image_tag.says, Says::Silent | Says::NoPlatform(_));
    let snapshot_tag = tags::on_snapshot(subject, policy);
    let tagged = [&image_tag, &snapshot_tag]
        .iter()
        .any(|tag| tag.says.spoke());
    let open_exemption = rules::open_exemption(&exempt);
    let open = open_exemption.is_some();
    let mut evidence = vec![image_tag, snapshot_tag];
    evidence.extend(open_exemption);
    evidence.push(rules::platform(&expect));
    evidence.extend(rules::product_codes(&codes));
    if let Some(platforms) = &policy.default_expect {
        evidence.push(Evidence {
            source: Source::Default,
            says: Says::Platforms(platforms.clone()),
            detail: "defaults.expect of the policy".into(),
        });
    }
    let not_seen = matches!(subject.snapshot, Lookup::NotYet);
    Declared {
        expectation: Expectation {
            open_exemption: open,
            // A tag is stronger than any rule that names a platform. An exemption is stronger than everything else.
            identity_asked: exempt.asks_identity()
                || codes.asks_identity()
                || (expect.asks_identity() && !tagged),
            disk_may_hold: match (expect.open(), expect.rule) {
                (None, Some(rule)) => rule.says.disk.clone(),
                _ => None,
            },
            evidence,
            ..Expectation::default()
        },
        needs_snapshot: not_seen
            && (silent
                || exempt.asks_snapshot()
                || codes.asks_snapshot()
                || (expect.asks_snapshot() && !tagged)),
        open_exemptions: exempt.in_doubt().map(|rule| rule.says.clone()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::RegisteredBy;

    const ACCOUNT: &str = "123456789012";

    fn registration() -> Registration {
        Registration {
            image_id: "ami-0a1b2c3d4e5f60001".parse().unwrap(),
            account: ACCOUNT.parse().unwrap(),
            region: "eu-west-1".into(),
            event_id: "e".into(),
            time: crate::Clock::SYSTEM.now(),
            registered_by: RegisteredBy::Identity {
                caller: format!("arn:aws:sts::{ACCOUNT}:assumed-role/rhel-pipeline/4711"),
                service: Some("drs.amazonaws.com".into()),
            },
            billing_products: Default::default(),
            by_packer: false,
        }
    }

    fn image() -> Image {
        Image {
            name: Some("win2022-[golden]".into()),
            description: Some("made by hand".into()),
            architecture: Some("x86_64".into()),
            tags: [("Team".to_owned(), "data/platform".to_owned())].into(),
            root_snapshot: Some("snap-1".into()),
            ..Image::default()
        }
    }

    fn snapshot(owner: &str, expect: Option<&str>) -> Lookup<Snapshot> {
        let tag = expect.map(|value| (EXPECT_TAG.to_owned(), value.to_owned()));
        Lookup::Seen(Snapshot {
            owner: Some(owner.into()),
            description: Some("nightly backup".into()),
            tags: tag.into_iter().collect(),
            ..Snapshot::default()
        })
    }

    fn policy(text: &str) -> Policy {
        Policy::parse("policy.toml", &format!("version = 1\n{text}")).unwrap()
    }

    fn declared_of(
        image: &Image,
        registration: &Registration,
        snapshot: &Lookup<Snapshot>,
        policy: &Policy,
    ) -> Declared {
        let subject = Subject {
            registration,
            image,
            snapshot,
        };
        declared(subject, policy)
    }

    fn statement(declared: &Declared, source: Source) -> &Evidence {
        let mut statements = declared.expectation.evidence.iter();
        statements
            .find(|evidence| evidence.source == source)
            .unwrap()
    }

    fn windows() -> Says {
        Says::Platforms(Platforms::parse(["Windows"]).unwrap())
    }

    #[test]
    fn a_tag_speaks_is_silent_is_nonsense_or_is_not_asked() {
        let says = |tag: Option<&str>, policy: &Policy| {
            let mut image = image();
            if let Some(value) = tag {
                image.tags.insert(EXPECT_TAG.into(), value.into());
            }
            let snapshot = snapshot(ACCOUNT, tag);
            let declared = declared_of(&image, &registration(), &snapshot, policy);
            let on_image = statement(&declared, Source::ImageTag).says.clone();
            assert_eq!(on_image, statement(&declared, Source::SnapshotTag).says);
            on_image
        };
        let asked = Policy::default();
        assert_eq!(says(None, &asked), Says::Silent);
        assert_eq!(
            says(Some("redhat, RedHatHa"), &asked),
            Says::Platforms(Platforms::parse(["RedHat", "RedHatHa"]).unwrap())
        );
        assert_eq!(
            says(Some("RedHat,RHEL"), &asked),
            Says::NoPlatform("RHEL".into())
        );
        assert_eq!(says(Some(""), &asked), Says::NoPlatform("".into()));
        let not_asked = policy("[evidence]\ntags = false");
        assert_eq!(says(Some("RedHat"), &not_asked), Says::NotAsked);
    }

    #[test]
    fn a_snapshot_s_tag_counts_only_on_a_snapshot_of_this_account_that_could_be_seen() {
        let says = |look: Lookup<Snapshot>| {
            let declared = declared_of(&image(), &registration(), &look, &Policy::default());
            statement(&declared, Source::SnapshotTag).says.clone()
        };
        assert_eq!(says(snapshot(ACCOUNT, Some("Windows"))), windows());
        assert_eq!(
            says(snapshot("210987654321", Some("Windows"))),
            Says::Silent
        );
        assert_eq!(
            says(Lookup::Failed("throttled".into())),
            Says::Failed("throttled".into())
        );
        assert_eq!(
            says(Lookup::NotApplicable("none".into())),
            Says::NotApplicable
        );
        assert_eq!(says(Lookup::NotYet), Says::NotAsked);
    }

    /// Each match key, and whether it matches the image above.
    #[test]
    fn a_rule_matches_when_all_of_its_globs_do() {
        for (conditions, matches) in [
            ("name = 'win2022-*'", true),
            ("name = 'win*golden?'", true),
            ("name = 'win2022-[[]golden]'", true),
            ("name = 'WIN*'", false),
            ("name = 'win'", false),
            ("description = '*hand'", true),
            ("architecture = '*86*'", true),
            ("architecture = 'arm64'", false),
            ("account = '1234*'", true),
            ("region = 'eu-*'", true),
            ("region = 'us-*'", false),
            (
                "registered_by = 'arn:aws:sts::*:assumed-role/rhel-pipeline/*'",
                true,
            ),
            ("registered_by = '*:user/*'", false),
            ("invoked_by = 'drs.*'", true),
            ("snapshot_description = 'nightly*'", true),
            ("snapshot_description = 'daily'", false),
            ("tag = { Team = 'data*' }", true),
            ("tag = { team = 'data*' }", false),
            ("tag = { Team = '*', Stage = '*' }", false),
            ("name = 'win*'\narchitecture = 'x86_64'", true),
            ("name = 'win*'\narchitecture = 'arm64'", false),
        ] {
            let policy = policy(&format!("[[expect]]\n{conditions}\nplatform = 'Windows'"));
            let snapshot = snapshot(ACCOUNT, None);
            let declared = declared_of(&image(), &registration(), &snapshot, &policy);
            let says = &statement(&declared, Source::Policy).says;
            let expected = if matches { windows() } else { Says::Silent };
            assert_eq!(*says, expected, "{conditions}");
        }
    }

    #[test]
    fn what_an_image_does_not_have_matches_no_glob() {
        let bare = Image::default();
        let mut registration = registration();
        registration.registered_by = RegisteredBy::Identity {
            caller: "arn".into(),
            service: None,
        };
        let undescribed = Lookup::Seen(Snapshot::default());
        for key in [
            "name",
            "description",
            "architecture",
            "invoked_by",
            "snapshot_description",
        ] {
            let policy = policy(&format!("[[exempt]]\n{key} = '*'\nreason = 'r'"));
            let declared = declared_of(&bare, &registration, &undescribed, &policy);
            assert_eq!(declared.expectation.exemption, None, "{key}");
        }
    }

    #[test]
    fn the_first_rule_that_matches_decides_and_says_where_it_stands() {
        let policy = policy(
            "[[expect]]\nname = 'linux-*'\nplatform = 'Linux'\n\
             [[expect]]\nname = 'win*'\nplatform = 'Windows'\n\
             [[expect]]\nname = '*'\nplatform = 'SUSE'",
        );
        let snapshot = snapshot(ACCOUNT, None);
        let declared = declared_of(&image(), &registration(), &snapshot, &policy);
        let evidence = statement(&declared, Source::Policy);
        assert_eq!(evidence.says, windows());
        assert_eq!(evidence.detail, "policy.toml:5 (name = \"win*\")");
    }

    #[test]
    fn an_exemption_outranks_every_source_and_needs_none() {
        let policy = policy(
            "[[exempt]]\ntag = { Team = 'data/*' }\nreason = 'on purpose'\n\
             [[expect]]\nname = '*'\nplatform = 'Windows'",
        );
        let declared = declared_of(&image(), &registration(), &Lookup::NotYet, &policy);
        assert_eq!(
            declared.expectation.exemption.as_deref(),
            Some("on purpose [policy.toml:2 (tag \"Team\" = \"data/*\")]")
        );
        assert!(!declared.needs_snapshot);
        assert_eq!(declared.expectation.evidence, []);
    }

    #[test]
    fn the_snapshot_is_looked_at_only_where_it_could_matter() {
        let tagged = |tag: &str| {
            let mut image = image();
            image.tags.insert(EXPECT_TAG.into(), tag.into());
            image
        };
        let expect = "[[expect]]\nsnapshot_description = '*'\nplatform = 'Windows'";
        let exempt = "[[exempt]]\nsnapshot_description = '*'\nreason = 'r'";
        let elsewhere = "[[exempt]]\nname = 'xyz'\nsnapshot_description = '*'\nreason = 'r'";
        let no_tags = "[evidence]\ntags = false";
        for (image, rules, needed) in [
            (image(), "", true),
            (tagged("Windows"), "", false),
            (tagged("nonsense"), "", true),
            (image(), no_tags, false),
            (tagged("Windows"), expect, false),
            (tagged("Windows"), exempt, true),
            (tagged("Windows"), elsewhere, false),
            (tagged("Windows"), &format!("{no_tags}\n{expect}"), true),
        ] {
            let policy = policy(rules);
            let declared = declared_of(&image, &registration(), &Lookup::NotYet, &policy);
            assert_eq!(declared.needs_snapshot, needed, "{:?} {rules}", image.tags);
        }
    }

    #[test]
    fn a_rule_in_doubt_is_no_rule_that_does_not_match() {
        let mut registration = registration();
        registration.registered_by = RegisteredBy::Unknown;
        let seen = snapshot(ACCOUNT, None);
        let failed = Lookup::Failed("throttled".into());
        let by_whom = "registered_by = '*'";
        let described = "snapshot_description = '*'";

        for (condition, snapshot, identity) in [(by_whom, &seen, true), (described, &failed, false)]
        {
            let expect = policy(&format!(
                "[[expect]]\n{condition}\nplatform = 'SUSE'\n[[expect]]\nname = '*'\nplatform = 'Windows'"
            ));
            let declared = declared_of(&image(), &registration, snapshot, &expect);
            let says = &statement(&declared, Source::Policy).says;
            assert!(matches!(says, Says::Failed(_)), "{says:?}");
            assert_eq!(declared.expectation.identity_asked, identity);

            let exempt = policy(&format!("[[exempt]]\n{condition}\nreason = 'r'"));
            let declared = declared_of(&image(), &registration, snapshot, &exempt);
            assert_eq!(declared.expectation.exemption, None);
            assert!(declared.expectation.open_exemption);
            let says = &statement(&declared, Source::Policy).says;
            assert!(matches!(says, Says::Failed(why) if why.starts_with("policy.toml:2 (")));
            assert_eq!(declared.expectation.identity_asked, identity);

            // Another exemption that certainly matches, or a condition that certainly does not, leaves no doubt.
            let certain = policy(&format!(
                "[[exempt]]\n{condition}\nreason = 'r'\n[[exempt]]\nname = '*'\nreason = 's'"
            ));
            let declared = declared_of(&image(), &registration, snapshot, &certain);
            assert!(declared.expectation.exemption.is_some());
            let elsewhere = policy(&format!(
                "[[exempt]]\n{condition}\nname = 'xyz'\nreason = 'r'"
            ));
            let declared = declared_of(&image(), &registration, snapshot, &elsewhere);
            assert!(!declared.expectation.open_exemption);
            assert!(!declared.expectation.identity_asked);
        }
    }

    #[test]
    fn who_registered_an_image_does_not_matter_to_a_rule_that_a_tag_outranks() {
        let mut registration = registration();
        registration.registered_by = RegisteredBy::Unknown;
        let mut image = image();
        image.tags.insert(EXPECT_TAG.into(), "Windows".into());
        let policy = policy("[[expect]]\nregistered_by = '*'\nplatform = 'SUSE'");
        let declared = declared_of(&image, &registration, &snapshot(ACCOUNT, None), &policy);
        assert!(!declared.expectation.identity_asked);
        let decisive = declared.expectation.decisive().unwrap();
        assert_eq!(decisive.source, Source::ImageTag);
    }

    #[test]
    fn observed_sources_contradict_whatever_is_stronger_and_each_other() {
        let says = |platform: &str| Says::Platforms(Platforms::parse([platform]).unwrap());
        // No statement here names what the image is billed as, so EC2 is no witness.
        let bills = Billing {
            ha: true,
            ..Billing::PLAIN_LINUX
        };
        let contradiction = |statements: &[(Source, &str)]| {
            let evidence = statements.iter().map(|(source, platform)| Evidence {
                source: *source,
                says: says(platform),
                detail: String::new(),
            });
            let expectation = Expectation {
                evidence: evidence.collect(),
                ..Expectation::default()
            };
            expectation
                .contradiction(&bills, &BTreeSet::new())
                .map(|(one, other)| (one.source, other.source))
        };
        use Source::{Default, Disk, ImageTag, Lineage, Policy};
        for (statements, expected) in [
            (
                &[(ImageTag, "Linux"), (Lineage, "Windows")][..],
                Some((ImageTag, Lineage)),
            ),
            (
                &[(Lineage, "Windows"), (ImageTag, "Linux")],
                Some((ImageTag, Lineage)),
            ),
            (
                &[(Lineage, "Windows"), (Lineage, "RedHat")],
                Some((Lineage, Lineage)),
            ),
            (
                &[(Lineage, "Windows"), (Disk, "Linux")],
                Some((Lineage, Disk)),
            ),
            (&[(Lineage, "RedHat"), (Lineage, "RedHatHa")], None),
            (&[(ImageTag, "Linux"), (Policy, "Windows")], None),
            (&[(Lineage, "Windows"), (Default, "Linux")], None),
        ] {
            assert_eq!(contradiction(statements), expected, "{statements:?}");
        }
    }
}
