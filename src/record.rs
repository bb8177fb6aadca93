//! The record of one registration, from event to outcome. Its keys are versioned. The log line, the alert's body for
//! programs and the function's answer all have this value.

pub mod remediation;
pub(crate) mod stored;

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use tracing::Level;

use crate::billing::{self, BilledAs};
use crate::ec2::{Image, Observation};
use crate::escape::plain;
use crate::event::{Ignored, RegisteredBy, Registration};
use crate::expectation::{Evidence, Expectation, Says, Source, product_codes};
use crate::marks::is_of_people;
use crate::plan::{self, Action, Interlock, Plan, SafetyChecks};
use crate::verdict::{Judgement, Mismatch, Verdict};

/// Version of the record's keys. New keys may be added. Existing keys do not change.
pub const SCHEMA: u32 = 1;

/// Largest number of references to an image in the record. One is enough to hold a discard.
const MOST_REFERENCES: usize = 100;

/// Largest number of accounts and organisations in [`Record::shared_with`].
const MOST_SHARED: usize = 10;

/// The record of one registration.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// Version of the keys, which is [`SCHEMA`].
    pub schema: u32,
    /// Id of the image.
    pub image_id: Option<String>,
    /// Name of the image.
    pub name: Option<String>,
    /// Account in which the image was registered.
    pub account: Option<String>,
    /// Region in which the image was registered.
    pub region: Option<String>,
    /// Who registered the image, if the event says so.
    pub registered_by: Option<String>,
    /// AWS service that registered the image, according to the event or the image itself. For example
    /// `drs.amazonaws.com` or `EC2 Image Builder`.
    pub service: Option<String>,
    /// When the image was registered.
    pub registered_at: Option<DateTime<Utc>>,
    /// EventBridge's id of the event.
    pub event_id: Option<String>,
    /// Snapshot of the root device.
    pub snapshot_id: Option<String>,
    /// The verdict.
    #[serde(serialize_with = "verdict_name")]
    pub verdict: Verdict,
    /// Kind of a mismatch.
    pub kind: Option<Mismatch>,
    /// Reason for the verdict, as a sentence.
    pub reason: String,
    /// What the image is billed as.
    pub actual: Option<Actual>,
    /// What the image is expected to be billed as.
    pub expected: Option<Expected>,
    /// What every source said.
    pub evidence: Vec<Statement>,
    /// What was decided.
    pub action: Action,
    /// Result of a discard.
    pub outcome: Option<Outcome>,
    /// Why EC2 refused a discard, if it did.
    pub refusal: Option<Refusal>,
    /// AWS's message if it refused, or what went wrong.
    pub error: Option<String>,
    /// Interlocks that held a discard.
    pub held_by: Vec<Interlock>,
    /// Verdict that led to the discard (`mismatch/wrong`), if the record of a discard is completed after the image is
    /// gone.
    pub discarded_as: Option<String>,
    /// What is known about an earlier discard, if the image is held because of one.
    pub before: Option<String>,
    /// Until when a deregistered image can be restored.
    pub recoverable_until: Option<DateTime<Utc>>,
    /// What the look after a discard showed.
    pub looked_again: Option<PostCheck>,
    /// Whether a deregistered image is in the Recycle Bin.
    pub recycle_bin: Option<RecycleBin>,
    /// Command that undoes a discard.
    pub undo: Option<String>,
    /// Whether the image has no root snapshot, so that the Recycle Bin cannot keep it.
    #[serde(skip)]
    pub instance_store: bool,
    /// How to get an image that is billed as expected, as sentences and commands.
    pub fix: Vec<String>,
    // Members that may be long come last, because CloudWatch Logs Insights finds only the first 200 fields of a line.
    /// ARNs of what refers to the image, if a discard was due.
    pub references: Vec<String>,
    /// Whom the image is shared with, if it is and a discard was due. They are account ids, ARNs of organisations and
    /// their units, or `all` for everyone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shared_with: Vec<String>,
    /// What is needed to register the image again, if it is discarded.
    pub rebuild: Option<Rebuild>,
}

/// What an image is billed as, in EC2's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actual {
    /// `PlatformDetails`.
    pub platform_details: Option<String>,
    /// `UsageOperation`.
    pub usage_operation: Option<String>,
    /// `ProductCodes`, those of the AWS Marketplace.
    #[serde(default)]
    pub product_codes: BTreeSet<String>,
}

impl Actual {
    /// What EC2 says an image is billed as.
    pub(crate) fn of(image: &Image) -> Actual {
        Actual {
            platform_details: image.platform_details.clone(),
            usage_operation: image.usage_operation.clone(),
            product_codes: image.product_codes.clone(),
        }
    }

    /// What EC2 says in words, for example `Linux/UNIX, product code a, b`. Without platform details, they are
    /// `nothing`.
    pub fn text(&self) -> String {
        let details = self.platform_details.as_deref();
        let details = details.filter(|details| !details.is_empty());
        let details = details.unwrap_or("nothing");
        match self.product_codes.is_empty() {
            true => details.to_owned(),
            false => format!("{details}, {}", product_codes(&self.product_codes)),
        }
    }

    /// What the two billing fields mean together.
    pub fn billed_as(&self) -> BilledAs {
        BilledAs::read(
            self.platform_details.as_deref(),
            self.usage_operation.as_deref(),
        )
    }

    /// Values of the two billing fields that this version does not know.
    pub fn unrecognised(&self) -> Vec<&str> {
        billing::unrecognised(
            self.platform_details.as_deref(),
            self.usage_operation.as_deref(),
        )
    }
}

/// What an image is expected to be billed as, and the source that says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// Accepted platforms. Empty if no source names a platform.
    pub platform: Vec<String>,
    /// The source. Platform and product codes may have different sources. The one whose expectation differs more
    /// counts.
    pub source: Source,
    /// Expected product codes, exactly these. Only rules of the policy name them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product_codes: Option<BTreeSet<String>>,
}

impl Expected {
    /// What is expected of an image. `None` if no source names platforms or product codes.
    pub(crate) fn of(expectation: &Expectation, image: Option<&Image>) -> Option<Expected> {
        let codes = expectation.product_codes();
        let product_codes = codes.map(|(_, codes)| codes.clone());
        let compared = image.and_then(|image| {
            let actual = image.billed_as().billing()?;
            expectation.difference(&actual, &image.product_codes)
        });
        match (expectation.decisive(), codes) {
            (Some(decisive), _) => match &decisive.says {
                Says::Platforms(platforms) => Some(Expected {
                    platform: platforms.names(),
                    source: compared.map_or(decisive.source, |(_, evidence)| evidence.source),
                    product_codes,
                }),
                _ => None,
            },
            (None, Some((evidence, _))) => Some(Expected {
                platform: Vec::new(),
                source: evidence.source,
                product_codes,
            }),
            (None, None) => None,
        }
    }

    /// What is expected, in words. For example `Windows or SQL`, or `Linux, no product code`.
    pub fn text(&self) -> String {
        let platforms = self.platform.join(" or ");
        match &self.product_codes {
            None => platforms,
            Some(codes) if platforms.is_empty() => product_codes(codes),
            Some(codes) => format!("{platforms}, {}", product_codes(codes)),
        }
    }
}

/// Statement of one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Statement {
    /// The source.
    pub source: Source,
    /// State of the source, which is `found`, `none`, `skipped`, `not-applicable`, `failed` or `invalid`.
    pub state: &'static str,
    /// Platforms that it names.
    pub says: Vec<String>,
    /// Product codes that it names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product_codes: Option<BTreeSet<String>>,
    /// Where it was read, or why it could not be read.
    pub detail: String,
}

/// Result of a discard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The discard follows the alert that announces it.
    Planned,
    /// The image was discarded.
    Done,
    /// EC2 refused. The image still exists.
    Refused,
    /// The discard did not succeed, as far as is known. The event is delivered again.
    Failed,
}

/// Why EC2 refused a discard. A refused discard is not retried automatically.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// The image has deregistration protection.
    Protected,
    /// AWS Backup manages the image.
    BackupManaged,
    /// The image does not belong to this account.
    NotOwner,
    /// A permission is missing, or a policy of the organisation forbids the discard.
    Denied,
    /// Another reason.
    Other,
}

/// What is needed to register an image again. All of it is captured before the image is discarded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebuild {
    /// Request for RegisterImage, as `aws ec2 register-image --cli-input-json` accepts it.
    pub register_image: serde_json::Value,
    /// Who may launch instances from the image, as ModifyImageAttribute accepts it.
    pub launch_permissions: Vec<serde_json::Value>,
    /// Time from which the image is deprecated, as EnableImageDeprecation accepts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecate_at: Option<DateTime<Utc>>,
    /// Deregistration protection of the image, if it has any. Either `enabled-with-cooldown` or
    /// `enabled-without-cooldown`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deregistration_protection: Option<String>,
}

impl Rebuild {
    /// What is needed to register this image again. Leaves out AWS's own tags, which cannot be set, and the guard's
    /// marks, which belong only to the image that it discards.
    pub(crate) fn of(
        registration: &Registration,
        image: &Image,
        launch_permissions: Vec<serde_json::Value>,
    ) -> Rebuild {
        let tags: Vec<_> = image
            .tags
            .iter()
            .filter(|(key, _)| is_of_people(key))
            .map(|(key, value)| serde_json::json!({ "Key": key, "Value": value }))
            .collect();
        let mut register_image = image.request.clone();
        if !tags.is_empty()
            && let Some(request) = register_image.as_object_mut()
        {
            let specification = serde_json::json!([{ "ResourceType": "image", "Tags": tags }]);
            request.insert("TagSpecifications".into(), specification);
        }
        // EC2 does not return an image's billing products, so the event's are taken.
        if !registration.billing_products.is_empty()
            && let Some(request) = register_image.as_object_mut()
        {
            let products = serde_json::json!(registration.billing_products);
            request.insert("BillingProducts".into(), products);
        }
        let protection = image.deregistration_protection.clone();
        Rebuild {
            register_image,
            launch_permissions,
            deprecate_at: image.deprecated_at,
            deregistration_protection: protection.filter(|_| image.is_protected()),
        }
    }
}

/// What the look after a discard showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PostCheck {
    /// The image is no longer there. A disabled image counts as gone too, if it was to be disabled.
    Gone,
    /// EC2 still lists the image, as it does for a short while.
    StillListed,
    /// The look did not succeed.
    Unknown,
}

/// Whether a deregistered image is in the Recycle Bin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RecycleBin {
    /// It is.
    In,
    /// It is not.
    Absent,
    /// The look did not succeed.
    Unknown,
}

fn verdict_name<S: Serializer>(verdict: &Verdict, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(verdict.name())
}

impl Record {
    /// Record of an event that is not a registration for this guard.
    pub fn ignored(ignored: Ignored) -> Record {
        Record {
            account: ignored.account,
            region: ignored.region,
            event_id: ignored.event_id,
            ..Record::blank(Judgement {
                verdict: Verdict::Ignored,
                reason: ignored.reason,
            })
        }
    }

    /// Record of an hourly digest, which is not a registration. `told` is the number of images that the digest
    /// reported.
    pub(crate) fn of_digest(digest: crate::event::Digest, told: usize) -> Record {
        Record::ignored(Ignored {
            event_id: Some(digest.event_id),
            account: Some(digest.account.to_string()),
            region: Some(digest.region),
            reason: format!("the event requests the digest. Images reported: {told}"),
        })
    }

    /// Record of an audit, which is not a registration. `done` says what the audit did.
    pub(crate) fn of_audit(audit: crate::event::Audit, done: &str) -> Record {
        Record::ignored(Ignored {
            event_id: Some(audit.event_id),
            account: Some(audit.account.to_string()),
            region: Some(audit.region),
            reason: format!("the event requests an audit: {done}"),
        })
    }

    /// Record of a registration, up to the plan.
    pub fn new(
        registration: &Registration,
        observation: &Observation,
        expectation: &Expectation,
        judgement: &Judgement,
        plan: &Plan,
    ) -> Record {
        let mut record = Record {
            image_id: Some(registration.image_id.to_string()),
            account: Some(registration.account.to_string()),
            region: Some(registration.region.clone()),
            registered_by: match &registration.registered_by {
                RegisteredBy::Identity { caller, .. } => Some(caller.clone()),
                RegisteredBy::Unknown => None,
            },
            registered_at: Some(registration.time),
            event_id: Some(registration.event_id.clone()),
            expected: Expected::of(expectation, observation.image()),
            evidence: expectation.evidence.iter().map(Statement::from).collect(),
            action: plan.action,
            held_by: plan.held_by.clone(),
            ..Record::blank(judgement.clone())
        };
        if let Observation::Available(image) = observation {
            record.observe(image);
            record.service = plan::service(registration, image);
        }
        record
    }

    /// Deduplication key for alerts. An alert with the same key as a recent one is not sent again. The interlock for an
    /// unknown identity counts only if it is the only one. It depends on which event arrived, and does not change the
    /// alert.
    pub(crate) fn dedup_key(&self) -> String {
        let others = self
            .held_by
            .iter()
            .filter(|it| **it != Interlock::IdentityUnknown);
        let held_by: Vec<_> = match others.clone().count() {
            0 => self.held_by.iter().collect(),
            _ => others.collect(),
        };
        serde_json::json!([
            self.verdict.name(),
            self.kind,
            self.reason,
            self.actual,
            self.expected,
            self.action,
            held_by,
        ])
        .to_string()
    }

    /// Verdict and kind in one word (`mismatch/wrong`). For a record that completes a discard, those that led to the
    /// discard.
    pub(crate) fn label(&self) -> String {
        let own = || self.verdict.label();
        self.discarded_as.clone().unwrap_or_else(own)
    }

    /// Makes this the record of an image with which nothing is wrong, as another event has shown. Takes that event's
    /// verdict and reason.
    pub(crate) fn clear(&mut self, (verdict, reason): (Verdict, String)) {
        self.verdict = verdict;
        self.kind = None;
        self.reason = format!("according to the event that says who registered it: {reason}");
        self.action = Action::None;
        self.held_by.clear();
        self.fix.clear();
        self.error = None;
    }

    /// Whether the image has other product codes than a rule names. `false` if no rule names any.
    pub fn product_codes_differ(&self) -> bool {
        let expected = self.expected.as_ref();
        let expected = expected.and_then(|expected| expected.product_codes.as_ref());
        let actual = self.actual.as_ref().map(|actual| &actual.product_codes);
        expected.is_some_and(|expected| Some(expected) != actual)
    }

    /// Log level of the record.
    ///
    /// - An error needs a person. The discard failed, was refused or cannot be undone. Or it is held because no one
    ///   would receive the alert, or because the image cannot be marked.
    /// - A warning means that something is wrong or unknown.
    /// - Everything else is information.
    pub fn level(&self) -> Level {
        let stuck = matches!(self.outcome, Some(Outcome::Refused | Outcome::Failed))
            || (self.recycle_bin == Some(RecycleBin::Absent) && !self.instance_store)
            || self.held_by.contains(&Interlock::NobodyListening)
            || self.held_by.contains(&Interlock::Untaggable);
        match self.verdict {
            _ if stuck => Level::ERROR,
            Verdict::Mismatch(_) | Verdict::Conflict | Verdict::Unverifiable => Level::WARN,
            Verdict::Verified
            | Verdict::Exempt
            | Verdict::Gone
            | Verdict::Failed
            | Verdict::Ignored => Level::INFO,
        }
    }

    /// What could not be determined, and why.
    pub(crate) fn unknown(self) -> String {
        let failed = |statement: &Statement| statement.state == "failed";
        let asked = self.evidence.into_iter().find(failed);
        let why = self.error.or(asked.map(|statement| statement.detail));
        why.unwrap_or(self.reason)
    }

    /// Whether a [deduplication key](Record::dedup_key) is about the same verdict for the same billing.
    pub(crate) fn is_about_the_same(&self, dedup_key: &str) -> bool {
        let about = |dedup_key: &str| {
            let dedup_key: Value = serde_json::from_str(dedup_key).unwrap_or_default();
            [0, 1, 3].map(|at| dedup_key.get(at).cloned())
        };
        about(&self.dedup_key()) == about(dedup_key)
    }

    fn observe(&mut self, image: &Image) {
        self.name = image.name.clone();
        self.snapshot_id = image.root_snapshot.clone();
        self.instance_store = image.is_instance_store_backed();
        self.actual = Some(Actual::of(image));
    }

    /// Adds the results of the safety checks. What could not be determined is added to the error.
    pub(crate) fn check_safety(&mut self, safety: &SafetyChecks) {
        let mut unknown = Vec::new();
        match &safety.references {
            Ok(arns) => {
                let mut arns = arns.clone();
                if let Some(more) = arns
                    .len()
                    .checked_sub(MOST_REFERENCES)
                    .filter(|more| *more > 0)
                {
                    arns.truncate(MOST_REFERENCES);
                    arns.push(format!("and {more} more"));
                }
                self.references = arns;
            }
            // This is an error only if it holds the discard.
            Err(why) if self.held_by.contains(&Interlock::InUse) => {
                unknown.push(format!(
                    "could not determine what refers to the image: {why}"
                ));
            }
            Err(_) => {}
        }
        if let Err(why) = &safety.listeners {
            unknown.push(format!(
                "could not determine whether the topic has a confirmed subscription: {why}"
            ));
        }
        // The reason is a complete sentence. It is an error only if it holds the discard.
        if let Err(why) = &safety.way_back
            && self.held_by.contains(&Interlock::NoWayBack)
        {
            unknown.push(why.clone());
        }
        if let Err(why) = &safety.discarded_sibling {
            unknown.push(format!(
                "could not determine whether an image of the same snapshot was discarded: {why}"
            ));
        }
        let account = self.account.clone().unwrap_or_default();
        let others = safety.shared_with(&account);
        let named = others.iter().take(MOST_SHARED).map(|it| (*it).to_owned());
        self.shared_with = named.collect();
        if let Some(more @ 1..) = others.len().checked_sub(MOST_SHARED) {
            self.shared_with.push(format!("and {more} more"));
        }
        if let Err(why) = &safety.launch_permissions {
            unknown.push(format!(
                "could not read the launch permissions of the image: {why}"
            ));
        }
        if !unknown.is_empty() {
            self.error = Some(unknown.join("; "));
        }
    }

    fn blank(judgement: Judgement) -> Record {
        Record {
            schema: SCHEMA,
            image_id: None,
            name: None,
            account: None,
            region: None,
            registered_by: None,
            service: None,
            registered_at: None,
            event_id: None,
            snapshot_id: None,
            verdict: judgement.verdict,
            kind: judgement.verdict.kind(),
            reason: judgement.reason,
            actual: None,
            expected: None,
            evidence: Vec::new(),
            action: Action::None,
            outcome: None,
            refusal: None,
            error: None,
            held_by: Vec::new(),
            discarded_as: None,
            before: None,
            references: Vec::new(),
            shared_with: Vec::new(),
            recoverable_until: None,
            looked_again: None,
            recycle_bin: None,
            undo: None,
            rebuild: None,
            instance_store: false,
            fix: Vec::new(),
        }
    }
}

impl Statement {
    /// What it names, in words. If it names nothing, its state.
    pub fn text(&self) -> String {
        match (&self.product_codes, self.says.as_slice()) {
            (Some(codes), _) => product_codes(codes),
            (None, []) => self.state.to_owned(),
            (None, says) => says.join(" or "),
        }
    }
}

impl From<&Evidence> for Statement {
    fn from(evidence: &Evidence) -> Statement {
        let (state, says, why) = match &evidence.says {
            Says::NotAsked => ("skipped", Vec::new(), None),
            Says::NotApplicable => ("not-applicable", Vec::new(), None),
            Says::Silent => ("none", Vec::new(), None),
            Says::Failed(why) => ("failed", Vec::new(), Some(why)),
            Says::NoPlatform(_) => ("invalid", Vec::new(), None),
            Says::Platforms(platforms) => ("found", platforms.names(), None),
            Says::ProductCodes(_) => ("found", Vec::new(), None),
        };
        Statement {
            source: evidence.source,
            state,
            says,
            product_codes: match &evidence.says {
                Says::ProductCodes(codes) => Some(codes.clone()),
                _ => None,
            },
            detail: match why {
                Some(why) => format!("{}; failed: {why}", evidence.detail),
                None => evidence.detail.clone(),
            },
        }
    }
}

/// Why an interlock holds, as precisely as the record knows.
pub fn why_held(record: &Record, interlock: Interlock) -> String {
    match (interlock, &record.before) {
        (Interlock::DiscardedBefore, Some(before)) => format!(
            "{before}. The guard does not discard a restored image again. If you do not want it, deregister it yourself"
        ),
        (Interlock::InUse, _) if !record.references.is_empty() => {
            "what is listed here refers to it, or is a copy of it".to_owned()
        }
        (Interlock::InUse, _) => {
            "the guard could not determine whether anything refers to it".to_owned()
        }
        (Interlock::Shared, _) if !record.shared_with.is_empty() => {
            let named = record.shared_with.iter().map(|name| match name.as_str() {
                "all" => "everyone",
                name => name,
            });
            format!(
                "it is shared with {}, and this account cannot see how they use it",
                named.collect::<Vec<_>>().join(", ")
            )
        }
        (Interlock::ServiceRegistered, _) => why_a_service_holds(record.service.as_deref()),
        _ => interlock.meaning().to_owned(),
    }
}

/// What it means for a discard that this AWS service registered the image.
fn why_a_service_holds(service: Option<&str>) -> String {
    let Some(service) = service else {
        return Interlock::ServiceRegistered.meaning().to_owned();
    };
    let named = plain(service);
    let is = |names: &[&str]| names.iter().any(|name| service.contains(name));
    let depends = if is(&["drs.", "ElasticDisasterRecovery", "Elastic Disaster"]) {
        "a recovery may depend on it"
    } else if is(&[
        "mgn.",
        "ApplicationMigration",
        "Application Migration",
        "vmie.",
        "VM Import",
    ]) {
        "a migration may depend on it"
    } else if is(&["ssm."]) {
        "this is usually one of your own automation documents"
    } else if is(&["imagebuilder.", "Image Builder"]) {
        "this is usually one of your own pipelines"
    } else {
        "the guard does not know what depends on it"
    };
    format!(
        "the AWS service {named} registered the image, and {depends}. To discard such images, set the policy's \
         discard.service_registered to \"discard\""
    )
}
