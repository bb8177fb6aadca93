//! Tests of a policy for its authors: described images, and what the policy is expected to make of them. The verdict is
//! the guard's own, by what is described instead of what EC2 says.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::billing::{ACCEPTED_PLATFORMS, Parsed, Platforms, parse_platform_details};
use crate::clock::Clock;
use crate::config::Mode;
use crate::ec2::{Image, Observation, Snapshot};
use crate::escape::quoted;
use crate::event::{RegisteredBy, Registration};
use crate::expectation::declared::declared;
use crate::expectation::{Evidence, Expectation, Lookup, Says, Source, Subject};
use crate::ids::{AccountId, AmiId};
use crate::plan::{Action, History, Interlock, PlanInput, SafetyChecks, plan};
use crate::policy::{Asked, PRODUCT_CODES, Policy, is_product_code};
use crate::sources::is_asked;
use crate::verdict::{Mismatch, judge};

/// A described image, and the expected result.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    name: String,
    image: DescribedImage,
    #[serde(default)]
    snapshot: DescribedSnapshot,
    /// ARN of the caller. Without this and `invoked_by`, it is unknown who registered the image.
    registered_by: Option<String>,
    invoked_by: Option<String>,
    #[serde(default = "account", deserialize_with = "parsed")]
    account: AccountId,
    #[serde(default = "region")]
    region: String,
    /// What the lineage names, if it names anything.
    #[serde(default, deserialize_with = "platforms")]
    lineage: Option<Platforms>,
    /// What is on the disk, if that can be determined.
    #[serde(default, deserialize_with = "platforms")]
    disk: Option<Platforms>,
    expect: Expected,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DescribedImage {
    name: Option<String>,
    description: Option<String>,
    architecture: Option<String>,
    #[serde(default)]
    platform_details: String,
    /// Defaults to that of the platform details.
    usage_operation: Option<String>,
    #[serde(default, deserialize_with = "product_codes")]
    product_codes: BTreeSet<String>,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    #[serde(default)]
    age_hours: u32,
    /// Whether CreateImage made it.
    #[serde(default)]
    created: bool,
    #[serde(default)]
    protected: bool,
    #[serde(default)]
    in_use: bool,
    #[serde(default)]
    shared: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DescribedSnapshot {
    description: Option<String>,
    owner: Option<String>,
    #[serde(default)]
    tags: BTreeMap<String, String>,
}

/// The expected result. A field that is left out may have any value.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    verdict: Word,
    kind: Option<Mismatch>,
    source: Option<Source>,
    action: Option<Action>,
    held_by: Option<Vec<Interlock>>,
}

/// The verdicts that an existing image can have.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Verified,
    Mismatch,
    Conflict,
    Unverifiable,
    Exempt,
}

impl Word {
    fn name(self) -> &'static str {
        match self {
            Word::Verified => "verified",
            Word::Mismatch => "mismatch",
            Word::Conflict => "conflict",
            Word::Unverifiable => "unverifiable",
            Word::Exempt => "exempt",
        }
    }
}

/// Result of a case under a policy, in the words of a record.
#[derive(Clone, Debug, Serialize)]
pub struct Tried {
    /// The verdict.
    pub verdict: &'static str,
    /// The kind of a mismatch.
    pub kind: Option<Mismatch>,
    /// The reason, as a sentence.
    pub reason: String,
    /// The source that decides.
    pub source: Option<Source>,
    /// What the guard would do.
    pub action: Action,
    /// The interlocks that hold a discard.
    pub held_by: Vec<Interlock>,
}

fn account() -> AccountId {
    AccountId::example()
}

fn region() -> String {
    "eu-west-1".into()
}

fn parsed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<AccountId, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(D::Error::custom)
}

/// One platform, or a list of which any may be right.
fn platforms<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Platforms>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMore {
        One(String),
        More(Vec<String>),
    }
    let texts = match OneOrMore::deserialize(deserializer)? {
        OneOrMore::One(text) => vec![text],
        OneOrMore::More(texts) => texts,
    };
    match Platforms::parse(texts.iter().map(String::as_str)) {
        Ok(platforms) => Ok(Some(platforms)),
        Err(text) => Err(D::Error::custom(format!(
            "{} is not a platform. Accepted: {ACCEPTED_PLATFORMS}",
            quoted(text)
        ))),
    }
}

/// Product codes, all of them well-formed.
fn product_codes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<String>, D::Error> {
    let codes = BTreeSet::<String>::deserialize(deserializer)?;
    match codes.iter().find(|code| !is_product_code(code)) {
        None => Ok(codes),
        Some(code) => Err(D::Error::custom(format!(
            "{} is not a product code. Accepted: {PRODUCT_CODES}",
            quoted(code)
        ))),
    }
}

impl Case {
    /// Parses a file of cases. `file` is its name in error messages.
    ///
    /// # Errors
    /// The first fault, with its place and what is accepted.
    pub fn parse_all(file: &str, text: &str) -> Result<Vec<Case>, String> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            #[serde(default)]
            case: Vec<Case>,
        }
        match toml::from_str(text) {
            Ok(File { case }) if case.is_empty() => Err(format!("{file}: has no [[case]]")),
            Ok(File { case }) => Ok(case),
            Err(error) => Err(format!("{file}: {}", error.to_string().trim_end())),
        }
    }

    /// The case's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Judges the case under a policy, as a guard in enforce mode would. Nothing refers to the image but what is
    /// described.
    pub fn judge(&self, policy: &Policy) -> Tried {
        let now = Clock::SYSTEM.now();
        let age = TimeDelta::hours(self.image.age_hours.into());
        // If the age is out of range, the image counts as created in 1970.
        let created = now.checked_sub_signed(age).unwrap_or_default();
        let snapshot = self.snapshot();
        let image = Image {
            created: Some(created),
            root_snapshot: Some(snapshot.id.clone()),
            ..self.image()
        };
        let registration = Registration {
            registered_by: match (&self.registered_by, &self.invoked_by) {
                (None, None) => RegisteredBy::Unknown,
                (caller, service) => RegisteredBy::Identity {
                    caller: caller.clone().unwrap_or_default(),
                    service: service.clone(),
                },
            },
            ..Registration::without_event(
                AmiId::example(),
                self.account.clone(),
                &self.region,
                "case",
                created,
            )
        };
        let subject = Subject {
            registration: &registration,
            image: &image,
            snapshot: &Lookup::Seen(snapshot),
        };
        let mut expectation = declared(subject, policy).expectation;
        let observation = Observation::Available(Box::new(image.clone()));
        if expectation.exemption.is_none() {
            for (source, asked, platforms) in [
                (Source::Lineage, policy.lineage, &self.lineage),
                (Source::Disk, policy.disk, &self.disk),
            ] {
                let said = observed(source, asked, platforms, &observation, &expectation);
                expectation.evidence.push(said);
            }
            expectation.evidence.sort_by_key(|evidence| evidence.source);
        }
        let judgement = judge(&observation, &expectation);
        let mut safety = SafetyChecks::clear();
        if self.image.in_use {
            safety.references = Ok(vec!["what the case describes".into()]);
        }
        if self.image.shared {
            safety.launch_permissions = Ok(vec![serde_json::json!({ "Group": "all" })]);
        }
        let input = PlanInput {
            mode: Mode::Enforce,
            now,
            registration: &registration,
            observation: &observation,
            expectation: &expectation,
            safety: Some(&safety),
            past: Some(&History::default()),
        };
        let plan = plan(judgement.verdict, &input, policy);
        Tried {
            verdict: judgement.verdict.name(),
            kind: judgement.verdict.kind(),
            reason: judgement.reason,
            source: match (expectation.decisive(), expectation.product_codes()) {
                (Some(decisive), _) | (None, Some((decisive, _))) => Some(decisive.source),
                (None, None) => None,
            },
            action: plan.action,
            held_by: plan.held_by,
        }
    }

    fn image(&self) -> Image {
        let described = &self.image;
        let details = Some(described.platform_details.as_str());
        let own = match parse_platform_details(details) {
            Parsed::Known(billing) => Some(billing.usage_operation()),
            Parsed::Absent | Parsed::Unrecognised => None,
        };
        Image {
            id: AmiId::example().to_string(),
            platform_details: details.map(str::to_owned),
            usage_operation: described.usage_operation.clone().or(own),
            name: described.name.clone(),
            description: described.description.clone(),
            architecture: described.architecture.clone(),
            owner: Some(self.account.to_string()),
            tags: described.tags.clone(),
            product_codes: described.product_codes.clone(),
            source_instance: described.created.then(|| "i-00000000000000001".to_owned()),
            deregistration_protection: described.protected.then(|| "enabled".to_owned()),
            ..Image::default()
        }
    }

    fn snapshot(&self) -> Snapshot {
        let described = &self.snapshot;
        let owner = described.owner.clone();
        Snapshot {
            id: "snap-00000000000000001".into(),
            owner: Some(owner.unwrap_or_else(|| self.account.to_string())),
            description: described.description.clone(),
            tags: described.tags.clone(),
            ..Snapshot::default()
        }
    }

    /// How the result differs from the expected one, each difference as a sentence.
    pub fn differences(&self, tried: &Tried) -> Vec<String> {
        let Expected {
            verdict,
            kind,
            source,
            action,
            held_by,
        } = &self.expect;
        let mut differences = Vec::new();
        let mut compare = |what: &str, expected: Option<String>, got: String| {
            if let Some(expected) = expected.filter(|expected| *expected != got) {
                differences.push(format!("{what}: expected {expected}, got {got}"));
            }
        };
        compare("verdict", Some(verdict.name().into()), tried.verdict.into());
        compare("kind", kind.as_ref().map(word), word(&tried.kind));
        compare("source", source.as_ref().map(word), word(&tried.source));
        compare("action", action.as_ref().map(word), word(&tried.action));
        let sorted = |interlocks: &Vec<Interlock>| {
            let mut interlocks = interlocks.clone();
            interlocks.sort();
            word(&interlocks)
        };
        compare(
            "held_by",
            held_by.as_ref().map(sorted),
            sorted(&tried.held_by),
        );
        differences
    }
}

/// What an observed source says, if the policy has it queried.
fn observed(
    source: Source,
    asked: Asked,
    platforms: &Option<Platforms>,
    observation: &Observation,
    known: &Expectation,
) -> Evidence {
    let says = match platforms {
        _ if !is_asked(asked, source, observation, known) => Says::NotAsked,
        // An image that lost its code looks like plain Linux, so the lineage then names nothing.
        Some(platforms) if source == Source::Lineage && platforms.is_plain_linux() => Says::Silent,
        Some(platforms) => Says::Platforms(platforms.clone()),
        // A disk that cannot be determined has failed. A lineage that leads nowhere names nothing.
        None if source == Source::Disk => Says::Failed("the case does not describe it".into()),
        None => Says::Silent,
    };
    Evidence {
        source,
        says,
        detail: "as the case describes it".into(),
    }
}

/// The word that records use for a value.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(serde_json::Value::Null) | Err(_) => "none".into(),
        Ok(other) => other.to_string(),
    }
}
