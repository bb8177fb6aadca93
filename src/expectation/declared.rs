//! What people declare about an image: exemptions, tags and rules.

use super::{Evidence, Expectation, Lookup, Says, Source, Subject, rules, tags};
use crate::policy::{Policy, Requirement, Rule};

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
    use crate::ec2::{Image, Snapshot};
    use crate::event::RegisteredBy;
    use crate::event::Registration;
    use crate::expectation::BTreeSet;
    use crate::expectation::Billing;
    use crate::expectation::EXPECT_TAG;
    use crate::expectation::Platforms;

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
