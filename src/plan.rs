//! The plan: [`plan`] checks every interlock, and decides whether there is to be a discard. `guard::discard` carries it
//! out.

mod interlock;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::billing::{BilledAs, Billing, By, Difference};
use crate::config::Mode;
use crate::ec2::{Image, Observation};
use crate::event::{RegisteredBy, Registration};
use crate::expectation::{Expectation, Says, Source, Standing};
use crate::marks::{MARKS, MOST_TAGS, is_marked, is_of_people};
use crate::policy::{AlertOn, Confirm, DiscardAction, HoldOrDiscard, Policy};
use crate::verdict::{Mismatch, Verdict};
pub use interlock::Interlock;

/// Tolerance for clocks that differ. An image counts as registered after the discard of another image of the same
/// snapshot even if it was registered up to this much before. EC2 gives whole seconds, and by another clock.
pub(crate) const CLOCKS_DIFFER: TimeDelta = TimeDelta::minutes(1);

/// How much later an image's creation time may be than its registration event. If it is later still, one of the times
/// is wrong.
const CREATED_AFTER_EVENT: TimeDelta = TimeDelta::hours(1);

/// What to do about an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Nothing.
    None,
    /// Alert people.
    Alert,
    /// A discard was due, but interlocks held it. People are alerted if the policy reports mismatches.
    Hold,
    /// Deregister the image.
    Deregister,
    /// Disable the image.
    Disable,
}

impl Action {
    /// Whether the action deregisters or disables the image.
    pub fn is_discard(&self) -> bool {
        matches!(self, Action::Deregister | Action::Disable)
    }
}

/// Everything on which [`plan`] depends, besides verdict and policy.
#[derive(Clone, Copy, Debug)]
pub struct PlanInput<'a> {
    /// Whether the guard discards at all.
    pub mode: Mode,
    /// The current time.
    pub now: DateTime<Utc>,
    /// The registration.
    pub registration: &'a Registration,
    /// What EC2 says about the image.
    pub observation: &'a Observation,
    /// What the image is expected to be billed as.
    pub expectation: &'a Expectation,
    /// Results of the safety checks, which are made if a discard is due. A discard without them is held.
    pub safety: Option<&'a SafetyChecks>,
    /// What the ledger knows about the image. `None` if the ledger could not be reached.
    pub past: Option<&'a History>,
}

/// What the ledger knows about earlier discards of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Whether a discard of it was carried out, or may have been.
    pub attempted: bool,
    /// Whether a discard of it was ever begun. No image is marked before that.
    pub begun: bool,
    /// What of this cannot be read, and why. `None` if all of it can be read.
    pub unreadable: Option<String>,
}

/// Results of the safety checks for an image that is due for a discard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SafetyChecks {
    /// ARNs of what refers to the image, or why they are unknown.
    pub references: Result<Vec<String>, String>,
    /// Number of confirmed subscriptions of the alert topic, or why it is unknown.
    pub listeners: Result<u64, String>,
    /// Why the Recycle Bin may not keep the image once it is deregistered, as a sentence.
    pub way_back: Result<(), String>,
    /// When the first image that was registered from the same snapshot (or bundle) was discarded, or why that is
    /// unknown.
    pub discarded_sibling: Result<Option<DateTime<Utc>>, String>,
    /// Interlocks that hold only because an answer is missing that may arrive on a retry.
    pub transient: Vec<Interlock>,
    /// Launch permissions of the image, each in the form that ModifyImageAttribute accepts, or why they are unknown.
    pub launch_permissions: Result<Vec<serde_json::Value>, String>,
}

impl SafetyChecks {
    /// Results that hold no discard.
    pub fn clear() -> SafetyChecks {
        SafetyChecks {
            references: Ok(Vec::new()),
            listeners: Ok(1),
            way_back: Ok(()),
            discarded_sibling: Ok(None),
            transient: Vec::new(),
            launch_permissions: Ok(Vec::new()),
        }
    }

    /// Whom the image is shared with, apart from its own account. The names are account ids, ARNs of organisations and
    /// their units, or `all`.
    pub fn shared_with(&self, account: &str) -> Vec<&str> {
        let permissions = self.launch_permissions.iter().flatten();
        let named = permissions.filter_map(|permission| permission.as_object()?.values().next());
        let named = named.filter_map(serde_json::Value::as_str);
        named.filter(|name| *name != account).collect()
    }
}

/// What to do about an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The action.
    pub action: Action,
    /// Whether to alert people. A discard always alerts.
    pub tell: bool,
    /// Interlocks that hold a discard that is due.
    pub held_by: Vec<Interlock>,
}

/// Chooses what to do about a verdict. Pure. A discard follows only from a mismatch of the kinds empty, missing and
/// wrong, and only if no interlock holds it.
pub fn plan(verdict: Verdict, input: &PlanInput<'_>, policy: &Policy) -> Plan {
    let mistyped = input.expectation.mistyped().is_some();
    let tell = match verdict {
        // A mistyped tag must not lead to fewer alerts than no tag.
        Verdict::Verified | Verdict::Mismatch(_) | Verdict::Conflict | Verdict::Unverifiable
            if mistyped =>
        {
            true
        }
        Verdict::Mismatch(_) => policy.alert_on.contains(&AlertOn::Mismatch),
        Verdict::Conflict => policy.alert_on.contains(&AlertOn::Conflict),
        Verdict::Unverifiable => policy.alert_on.contains(&AlertOn::Unverifiable),
        Verdict::Verified
        | Verdict::Exempt
        | Verdict::Gone
        | Verdict::Failed
        | Verdict::Ignored => false,
    };
    let (
        Verdict::Mismatch(kind @ (Mismatch::Empty | Mismatch::Missing | Mismatch::Wrong)),
        Observation::Available(image),
    ) = (verdict, input.observation)
    else {
        return Plan {
            action: if tell { Action::Alert } else { Action::None },
            tell,
            held_by: Vec::new(),
        };
    };
    let held_by = interlocks(kind, image, input, policy);
    let action = match policy.action {
        _ if !held_by.is_empty() => Action::Hold,
        DiscardAction::Deregister => Action::Deregister,
        DiscardAction::Disable => Action::Disable,
        // `action-none` is an interlock, see below.
        DiscardAction::None => Action::Hold,
    };
    Plan {
        action,
        tell: tell || action.is_discard(),
        held_by,
    }
}

/// Every reason not to discard that is known before anything is changed.
fn interlocks(
    kind: Mismatch,
    image: &Image,
    input: &PlanInput<'_>,
    policy: &Policy,
) -> Vec<Interlock> {
    let PlanInput {
        mode,
        now,
        registration,
        expectation,
        safety,
        past,
        ..
    } = input;
    let unused =
        safety.is_some_and(|around| matches!(&around.references, Ok(arns) if arns.is_empty()));
    let heard = safety.is_some_and(|around| matches!(around.listeners, Ok(1..)));
    let restorable = safety.is_some_and(|around| around.way_back.is_ok());
    let remembered = safety.is_some_and(|around| around.discarded_sibling.is_ok());
    let reregistered = safety
        .and_then(|around| around.discarded_sibling.as_ref().ok().copied().flatten())
        .is_some_and(|discarded| match image.created {
            Some(created) => discarded - created < CLOCKS_DIFFER,
            None => true,
        });
    // The ledger knows of every discard before its image is marked, unless it lost its data.
    let marked = is_marked(image);
    let brought_back = past.is_some_and(|past| past.attempted || (marked && !past.begun));
    let readable = past.is_some_and(|past| past.unreadable.is_none());
    let captured = safety.is_some_and(|around| around.launch_permissions.is_ok());
    let billed_as = image.billed_as();
    let known_by = match billed_as {
        BilledAs::Known { by, .. } => Some(by),
        BilledAs::Empty | BilledAs::Contradiction | BilledAs::Unrecognised => None,
    };
    let tag = |key: &str| image.tags.contains_key(key);
    let too_old = match image.created {
        // If a clock is wrong, the age is not reliable.
        Some(_) if wrong_clock(*now, registration, image).is_some() => true,
        Some(created) => *now - created > TimeDelta::hours(policy.max_age_hours.into()),
        // An image of unknown age may be too old.
        None => true,
    };
    let asks_for_services = policy.service_registered == HoldOrDiscard::Hold;
    let own_tags = image.tags.keys().filter(|key| is_of_people(key)).count();
    [
        (Interlock::ObserveMode, *mode == Mode::Observe),
        (Interlock::ActionNone, policy.action == DiscardAction::None),
        (
            Interlock::Inferred,
            kind != Mismatch::Empty && !suffices(expectation, kind, image, policy),
        ),
        (
            Interlock::NotRegistered,
            image.source_instance.is_some() || image.source_image.is_some(),
        ),
        (
            Interlock::SourceFailed,
            expectation.failed_stronger_source().is_some()
                || expectation.open_exemption
                // A weaker observed source may still contradict the deciding one. An image without platform details
                // needs no source.
                || (kind != Mismatch::Empty && (expectation.is_transient || expectation.is_late)),
        ),
        (
            Interlock::Unconfirmed,
            policy.confirm == Confirm::Observed
                && kind != Mismatch::Empty
                && !is_confirmed(expectation, image),
        ),
        (Interlock::NoPlatform, expectation.mistyped().is_some()),
        (
            Interlock::UnrecognisedOperation,
            known_by == Some(By::Details),
        ),
        (
            Interlock::UnrecognisedDetails,
            known_by == Some(By::Operation) || {
                let decisive = expectation.decisive();
                expectation.unrecognised_witness
                    && decisive.is_some_and(|it| it.source == Source::Lineage)
            },
        ),
        (
            Interlock::NotOwner,
            image.owner.as_deref() != Some(registration.account.as_str()),
        ),
        (Interlock::TooOld, too_old),
        (
            Interlock::InUse,
            policy.in_use == HoldOrDiscard::Hold && !unused,
        ),
        (
            Interlock::Shared,
            policy.shared == HoldOrDiscard::Hold
                && safety.is_some_and(|around| {
                    !around.shared_with(registration.account.as_str()).is_empty()
                }),
        ),
        (
            Interlock::NoWayBack,
            // A disabled image can be enabled again without the Recycle Bin.
            policy.action != DiscardAction::Disable && !restorable,
        ),
        (Interlock::Protected, image.is_protected()),
        (Interlock::BackupManaged, tag("aws:backup:source-resource")),
        (
            Interlock::ServiceRegistered,
            asks_for_services && service(registration, image).is_some(),
        ),
        (
            Interlock::IdentityUnknown,
            (asks_for_services && registration.registered_by == RegisteredBy::Unknown)
                || expectation.identity_asked,
        ),
        (Interlock::DiscardedBefore, brought_back || reregistered),
        (Interlock::NobodyListening, !heard),
        (Interlock::Uncaptured, !captured),
        (Interlock::Untaggable, own_tags + MARKS.len() > MOST_TAGS),
        (Interlock::LedgerUnavailable, !readable || !remembered),
    ]
    .into_iter()
    .filter_map(|(interlock, holds)| holds.then_some(interlock))
    .collect()
}

/// Why the age of an image is unknown although EC2 says when it was created. The times contradict each other, so a
/// clock is wrong. `now` is the time of this function's clock. `None` if the times agree.
pub(crate) fn wrong_clock(
    now: DateTime<Utc>,
    registration: &Registration,
    image: &Image,
) -> Option<String> {
    let created = image.created?;
    let shown = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let ahead = |what: &str, at: DateTime<Utc>| {
        format!(
            "a clock is wrong: {what} at {}, and this function's clock says {}",
            shown(at),
            shown(now)
        )
    };
    if created - now > CLOCKS_DIFFER {
        Some(ahead("EC2 says that the image was created", created))
    } else if registration.time - now > CLOCKS_DIFFER {
        Some(ahead("the event says that it happened", registration.time))
    } else if created - registration.time > CREATED_AFTER_EVENT {
        Some(format!(
            "a time is wrong: the event says that the image was registered at {}, and EC2 that it was created at {}",
            shown(registration.time),
            shown(created)
        ))
    } else {
        None
    }
}

/// Whether what decides is not declared, or an observed source confirms it. No source confirms product codes.
fn is_confirmed(expectation: &Expectation, image: &Image) -> bool {
    let actual = image.billed_as().billing();
    let compared = actual.and_then(|actual| expectation.difference(&actual, &image.product_codes));
    match compared {
        Some((_, decisive)) if decisive.source.standing() != Standing::Declared => true,
        Some((_, decisive)) => {
            matches!(decisive.says, Says::Platforms(_))
                && expectation.is_confirmed(actual.as_ref(), &image.product_codes)
        }
        None => true,
    }
}

/// Whether the deciding source suffices for a discard.
fn suffices(expectation: &Expectation, kind: Mismatch, image: &Image, policy: &Policy) -> bool {
    let Some(actual) = image.billed_as().billing() else {
        return false;
    };
    let Some((Difference::Missing | Difference::Wrong, decisive)) =
        expectation.difference(&actual, &image.product_codes)
    else {
        return false;
    };
    let Some(asked_for) = decisive.source.discard_from() else {
        return false;
    };
    let observed = decisive.source.standing() == Standing::Observed;
    // Observation alone may discard an image that is billed for too little. It never discards one that is billed for
    // something else that is paid for. It also proves neither who supplies a licence nor that a product code is due.
    let bills_less = kind == Mismatch::Missing || actual == Billing::PLAIN_LINUX;
    // A Linux image with a product code may be billed by that code.
    let sold = actual == Billing::PLAIN_LINUX && !image.product_codes.is_empty();
    let in_doubt = match &decisive.says {
        Says::Platforms(platforms) => {
            platforms.lack_only_a_licence(&actual) || (sold && !platforms.are_windows())
        }
        _ => true,
    };
    policy.discard_from.contains(&asked_for) && (!observed || (bills_less && !in_doubt))
}

/// The AWS service that registered an image, according to the event or to the image's own signs. `None` if no service
/// did.
pub(crate) fn service(registration: &Registration, image: &Image) -> Option<String> {
    let by_event = match &registration.registered_by {
        RegisteredBy::Identity { service, .. } => service.clone(),
        RegisteredBy::Unknown => None,
    };
    by_event.or_else(|| by_signs(image).map(str::to_owned))
}

/// The AWS service whose signs an image has. Elastic Disaster Recovery, Application Migration Service, Data Lifecycle
/// Manager and Image Builder set tags. VM Import sets no tag of its own, but it sets the name or the description.
fn by_signs(image: &Image) -> Option<&'static str> {
    const KEYS: [(&str, &str); 5] = [
        (
            "AWSElasticDisasterRecovery",
            "AWS Elastic Disaster Recovery",
        ),
        (
            "AWSApplicationMigrationService",
            "AWS Application Migration Service",
        ),
        ("aws:dlm:", "Amazon Data Lifecycle Manager"),
        ("Ec2ImageBuilderArn", "EC2 Image Builder"),
        ("aws:imagebuilder:", "EC2 Image Builder"),
    ];
    let by_tag = |(key, value): (&String, &String)| {
        let by_key = KEYS.iter().find(|(prefix, _)| key.starts_with(prefix));
        match by_key {
            Some((_, service)) => Some(*service),
            None if key == "CreatedBy" && value == "EC2 Image Builder" => Some("EC2 Image Builder"),
            None => None,
        }
    };
    let begins =
        |text: &Option<String>, with| text.as_deref().is_some_and(|text| text.starts_with(with));
    let imported = begins(&image.name, "import-ami-") || begins(&image.description, "AWS-VMImport");
    let by_tag = image.tags.iter().find_map(by_tag);
    by_tag.or(imported.then_some("VM Import/Export"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::DiscardFrom;
    use std::collections::BTreeSet;

    use crate::billing::Platforms;
    use crate::expectation::{Evidence, Says};
    use crate::marks::{DISCARD_TAG, DISCARD_VALUE, WITHDRAWN_VALUE};
    use proptest::prelude::*;

    /// Everything on which `plan` depends, in a state in which nothing holds a discard.
    #[derive(Clone, Debug)]
    struct Case {
        mode: Mode,
        verdict: Verdict,
        image: Image,
        registration: Registration,
        evidence: Vec<Evidence>,
        safety: SafetyChecks,
        past: Option<History>,
        policy: Policy,
    }

    fn now() -> DateTime<Utc> {
        DateTime::parse_from_rfc3339("2026-11-20T12:00:00Z")
            .unwrap()
            .to_utc()
    }

    fn spoke(source: Source, platform: &str) -> Evidence {
        Evidence {
            source,
            says: Says::Platforms(Platforms::parse([platform]).unwrap()),
            detail: String::new(),
        }
    }

    fn failed(source: Source) -> Evidence {
        Evidence {
            source,
            says: Says::Failed("throttled".into()),
            detail: String::new(),
        }
    }

    impl Default for Case {
        fn default() -> Case {
            Case {
                mode: Mode::Enforce,
                verdict: Verdict::Mismatch(Mismatch::Wrong),
                image: Image {
                    platform_details: Some("Linux/UNIX".into()),
                    usage_operation: Some("RunInstances".into()),
                    owner: Some("123456789012".into()),
                    created: Some(now() - TimeDelta::minutes(6)),
                    ..Image::default()
                },
                registration: Registration {
                    image_id: "ami-0a1b2c3d4e5f60001".parse().unwrap(),
                    account: "123456789012".parse().unwrap(),
                    region: "eu-west-1".into(),
                    event_id: "e".into(),
                    time: now() - TimeDelta::minutes(6),
                    registered_by: RegisteredBy::Identity {
                        caller: "arn:aws:iam::123456789012:user/builder".into(),
                        service: None,
                    },
                    billing_products: BTreeSet::new(),
                    by_packer: false,
                },
                evidence: vec![spoke(Source::ImageTag, "Windows")],
                safety: SafetyChecks {
                    references: Ok(Vec::new()),
                    listeners: Ok(1),
                    way_back: Ok(()),
                    discarded_sibling: Ok(None),
                    transient: Vec::new(),
                    launch_permissions: Ok(Vec::new()),
                },
                past: Some(History::default()),
                policy: Policy::default(),
            }
        }
    }

    impl Case {
        fn with(mut self, change: impl FnOnce(&mut Case)) -> Case {
            change(&mut self);
            self
        }

        fn plan(&self) -> Plan {
            let observation = Observation::Available(Box::new(self.image.clone()));
            let expectation = Expectation {
                evidence: self.evidence.clone(),
                ..Expectation::default()
            };
            let input = PlanInput {
                mode: self.mode,
                now: now(),
                registration: &self.registration,
                observation: &observation,
                expectation: &expectation,
                safety: Some(&self.safety),
                past: self.past.as_ref(),
            };
            plan(self.verdict, &input, &self.policy)
        }
    }

    fn case(change: impl FnOnce(&mut Case)) -> Case {
        Case::default().with(change)
    }

    fn tagged(key: &str, value: &str) -> Case {
        case(|case| {
            case.image.tags.insert(key.into(), value.into());
        })
    }

    /// A six-minute-old image. Another image was registered from its snapshot and discarded.
    fn sibling(discarded: DateTime<Utc>) -> Case {
        case(|case| case.safety.discarded_sibling = Ok(Some(discarded)))
    }

    /// The whole matrix: what differs from a clean discard → the interlocks that hold it.
    #[test]
    fn the_matrix_of_interlocks() {
        use Interlock::*;
        let tags = |number: u32| {
            (0..number)
                .map(|n| (format!("key-{n}"), String::new()))
                .collect()
        };
        let lineage = |case: &mut Case| {
            case.evidence = vec![spoke(Source::Lineage, "Windows")];
            case.policy.discard_from = BTreeSet::from([DiscardFrom::Lineage]);
        };
        let protection = |value: &str| {
            let value = value.to_owned();
            case(|case| case.image.deregistration_protection = Some(value))
        };
        let matrix = [
            ("nothing", case(|_| {}), vec![]),
            ("an image-tag", case(|_| {}), vec![]),
            (
                "a snapshot tag",
                case(|c| c.evidence = vec![spoke(Source::SnapshotTag, "Windows")]),
                vec![],
            ),
            (
                "a rule",
                case(|c| c.evidence = vec![spoke(Source::Policy, "Windows")]),
                vec![],
            ),
            (
                "observe mode",
                case(|c| c.mode = Mode::Observe),
                vec![ObserveMode],
            ),
            (
                "action none",
                case(|c| c.policy.action = DiscardAction::None),
                vec![ActionNone],
            ),
            (
                "the default alone",
                case(|c| c.evidence = vec![spoke(Source::Default, "Windows")]),
                vec![Inferred],
            ),
            (
                "the default alone, and everything that can be allowed is",
                case(|c| {
                    c.evidence = vec![spoke(Source::Default, "Windows")];
                    c.policy.discard_from = BTreeSet::from([
                        DiscardFrom::Declared,
                        DiscardFrom::Lineage,
                        DiscardFrom::Disk,
                    ]);
                }),
                vec![Inferred],
            ),
            (
                "lineage, not allowed",
                case(|c| c.evidence = vec![spoke(Source::Lineage, "Windows")]),
                vec![Inferred],
            ),
            (
                "disk, not allowed",
                case(|c| c.evidence = vec![spoke(Source::Disk, "Windows")]),
                vec![Inferred],
            ),
            ("lineage, allowed", case(lineage), vec![]),
            (
                "lineage, allowed, but the image bills for more",
                case(lineage).with(|c| {
                    c.evidence = vec![spoke(Source::Lineage, "RedHat")];
                    c.image.platform_details = Some("Windows".into());
                    c.image.usage_operation = Some("RunInstances:0002".into());
                }),
                vec![Inferred],
            ),
            (
                "a declaration, not allowed",
                case(|c| c.policy.discard_from.clear()),
                vec![Inferred],
            ),
            (
                "made by CreateImage",
                case(|c| c.image.source_instance = Some("i-1".into())),
                vec![NotRegistered],
            ),
            (
                "made by CopyImage",
                case(|c| c.image.source_image = Some("ami-1".into())),
                vec![NotRegistered],
            ),
            (
                "a stronger source failed",
                case(|c| {
                    c.evidence = vec![failed(Source::ImageTag), spoke(Source::Policy, "Windows")]
                }),
                vec![SourceFailed],
            ),
            (
                "a weaker source failed",
                case(|c| c.evidence.push(failed(Source::Disk))),
                vec![],
            ),
            (
                "an unknown operation",
                case(|c| c.image.usage_operation = Some("RunInstances:vvvv".into())),
                vec![UnrecognisedOperation],
            ),
            (
                "no operation",
                case(|c| c.image.usage_operation = None),
                vec![UnrecognisedOperation],
            ),
            (
                "unknown details",
                case(|c| c.image.platform_details = Some("Plan 9".into())),
                vec![UnrecognisedDetails],
            ),
            (
                "a licence alone, declared",
                case(|c| {
                    c.verdict = Verdict::Mismatch(Mismatch::Missing);
                    c.image.platform_details = Some("Windows BYOL".into());
                    c.image.usage_operation = Some("RunInstances:0800".into());
                }),
                vec![],
            ),
            (
                "a licence alone, by lineage, allowed",
                case(lineage).with(|c| {
                    c.verdict = Verdict::Mismatch(Mismatch::Missing);
                    c.image.platform_details = Some("Windows BYOL".into());
                    c.image.usage_operation = Some("RunInstances:0800".into());
                }),
                vec![Inferred],
            ),
            (
                "Red Hat's add-on and its licence, by lineage, allowed",
                case(lineage).with(|c| {
                    c.verdict = Verdict::Mismatch(Mismatch::Missing);
                    c.evidence = vec![spoke(Source::Lineage, "RedHatHa")];
                    c.image.platform_details = Some("Red Hat BYOL Linux".into());
                    c.image.usage_operation = Some("RunInstances:00g0".into());
                }),
                vec![Inferred],
            ),
            (
                "a product code alone, by the disk, allowed",
                case(|c| {
                    c.verdict = Verdict::Mismatch(Mismatch::Missing);
                    c.evidence = vec![spoke(Source::Disk, "Linux with a product code")];
                    c.policy.discard_from = BTreeSet::from([DiscardFrom::Disk]);
                }),
                vec![Inferred],
            ),
            (
                "a product code that a rule names",
                case(|c| {
                    c.verdict = Verdict::Mismatch(Mismatch::Missing);
                    c.evidence = vec![Evidence {
                        source: Source::Policy,
                        says: Says::ProductCodes(BTreeSet::from(["code".to_owned()])),
                        detail: String::new(),
                    }];
                }),
                vec![],
            ),
            (
                "a product code that a rule names, and the platform that lineage names is right",
                case(|c| {
                    c.verdict = Verdict::Mismatch(Mismatch::Missing);
                    c.image.platform_details = Some("Windows".into());
                    c.image.usage_operation = Some("RunInstances:0002".into());
                    c.evidence = vec![
                        Evidence {
                            source: Source::Policy,
                            says: Says::ProductCodes(BTreeSet::from(["code".to_owned()])),
                            detail: String::new(),
                        },
                        spoke(Source::Lineage, "Windows"),
                    ];
                }),
                vec![],
            ),
            (
                "another owner",
                case(|c| c.image.owner = Some("210987654321".into())),
                vec![NotOwner],
            ),
            ("no owner", case(|c| c.image.owner = None), vec![NotOwner]),
            (
                "a day and a minute old",
                case(|c| c.image.created = Some(now() - TimeDelta::minutes(24 * 60 + 1))),
                vec![TooOld],
            ),
            (
                "a day old",
                case(|c| c.image.created = Some(now() - TimeDelta::hours(24))),
                vec![],
            ),
            (
                "of no known age",
                case(|c| c.image.created = None),
                vec![TooOld],
            ),
            (
                "protected",
                protection("enabled-without-cooldown"),
                vec![Protected],
            ),
            (
                "protected with a cool-down",
                protection("enabled-with-cooldown"),
                vec![Protected],
            ),
            (
                "protected in words to come",
                protection("disabled-until-tomorrow"),
                vec![Protected],
            ),
            ("not protected", protection("disabled"), vec![]),
            (
                "AWS Backup's",
                tagged("aws:backup:source-resource", "i-1"),
                vec![BackupManaged],
            ),
            (
                "Elastic Disaster Recovery's by tag",
                tagged("AWSElasticDisasterRecoveryManaged", "drs"),
                vec![ServiceRegistered],
            ),
            (
                "Application Migration Service's by tag",
                tagged("AWSApplicationMigrationServiceManaged", "mgn"),
                vec![ServiceRegistered],
            ),
            (
                "Data Lifecycle Manager's by tag",
                tagged("aws:dlm:lifecycle-policy-id", "policy-1"),
                vec![ServiceRegistered],
            ),
            (
                "Image Builder's by tag",
                tagged("CreatedBy", "EC2 Image Builder"),
                vec![ServiceRegistered],
            ),
            ("somebody's by tag", tagged("CreatedBy", "Packer"), vec![]),
            (
                "a service's by the event",
                case(|c| {
                    c.registration.registered_by = RegisteredBy::Identity {
                        caller: "drs".into(),
                        service: Some("drs.amazonaws.com".into()),
                    };
                }),
                vec![ServiceRegistered],
            ),
            (
                "a service's, and the policy does not mind",
                tagged("AWSElasticDisasterRecoveryManaged", "drs")
                    .with(|c| c.policy.service_registered = HoldOrDiscard::Discard),
                vec![],
            ),
            (
                "nobody known",
                case(|c| c.registration.registered_by = RegisteredBy::Unknown),
                vec![IdentityUnknown],
            ),
            (
                "nobody known, and nothing asks",
                case(|c| {
                    c.registration.registered_by = RegisteredBy::Unknown;
                    c.policy.service_registered = HoldOrDiscard::Discard;
                }),
                vec![],
            ),
            (
                "something refers to it",
                case(|c| c.safety.references = Ok(vec!["arn:instance".into()])),
                vec![InUse],
            ),
            (
                "something refers to it, and the policy does not mind",
                case(|c| {
                    c.safety.references = Ok(vec!["arn:instance".into()]);
                    c.policy.in_use = HoldOrDiscard::Discard;
                }),
                vec![],
            ),
            (
                "it is shared",
                case(|c| {
                    let permission = serde_json::json!({ "UserId": "210987654321" });
                    c.safety.launch_permissions = Ok(vec![permission]);
                }),
                vec![Shared],
            ),
            (
                "it is shared with its own account",
                case(|c| {
                    let permission = serde_json::json!({ "UserId": "123456789012" });
                    c.safety.launch_permissions = Ok(vec![permission]);
                }),
                vec![],
            ),
            (
                "it is shared, and the policy does not mind",
                case(|c| {
                    c.safety.launch_permissions = Ok(vec![serde_json::json!({ "Group": "all" })]);
                    c.policy.shared = HoldOrDiscard::Discard;
                }),
                vec![],
            ),
            (
                "nobody knows what refers to it",
                case(|c| c.safety.references = Err("denied".into())),
                vec![InUse],
            ),
            (
                "nobody knows what refers to it, and the policy does not mind",
                case(|c| {
                    c.safety.references = Err("denied".into());
                    c.policy.in_use = HoldOrDiscard::Discard;
                }),
                vec![],
            ),
            (
                "the Recycle Bin rule is not active, or could not be asked",
                case(|c| c.safety.way_back = Err("pending".into())),
                vec![NoWayBack],
            ),
            (
                "nobody listens",
                case(|c| c.safety.listeners = Ok(0)),
                vec![NobodyListening],
            ),
            (
                "nobody knows whether anybody listens",
                case(|c| c.safety.listeners = Err("denied".into())),
                vec![NobodyListening],
            ),
            (
                "who may launch from it is not known",
                case(|c| c.safety.launch_permissions = Err("denied".into())),
                vec![Uncaptured],
            ),
            (
                "a discard that was carried out, or may have been",
                case(|c| c.past.as_mut().unwrap().attempted = true),
                vec![DiscardedBefore],
            ),
            (
                "the guard's mark, and the guard does not remember it",
                tagged(DISCARD_TAG, DISCARD_VALUE),
                vec![DiscardedBefore],
            ),
            (
                "a mark that was taken back",
                tagged(DISCARD_TAG, WITHDRAWN_VALUE),
                vec![],
            ),
            (
                "registered after one like it was discarded",
                sibling(now() - TimeDelta::minutes(7)),
                vec![DiscardedBefore],
            ),
            (
                "registered so shortly before one like it was discarded that clocks may differ",
                sibling(now() - TimeDelta::minutes(6) + TimeDelta::seconds(59)),
                vec![DiscardedBefore],
            ),
            (
                "registered before one like it was discarded",
                sibling(now() - TimeDelta::minutes(5)),
                vec![],
            ),
            (
                "nobody knows whether one like it was discarded",
                case(|c| c.safety.discarded_sibling = Err("throttled".into())),
                vec![LedgerUnavailable],
            ),
            (
                "the ledger can not be reached",
                case(|c| c.past = None),
                vec![LedgerUnavailable],
            ),
            (
                "no room for the guard's tags",
                case(|c| c.image.tags = tags(47)),
                vec![Untaggable],
            ),
            (
                "just room for the guard's tags",
                case(|c| c.image.tags = tags(46)),
                vec![],
            ),
            (
                "AWS's own tags, which do not count, and the guard's, which are there already",
                case(|c| {
                    c.image.tags = tags(46);
                    c.image
                        .tags
                        .insert("aws:cloudformation:stack-name".into(), "s".into());
                    c.image
                        .tags
                        .insert(DISCARD_TAG.into(), WITHDRAWN_VALUE.into());
                }),
                vec![],
            ),
            (
                "VM Import's name",
                case(|c| c.image.name = Some("import-ami-0a1b2c3d4e5f60001".into())),
                vec![ServiceRegistered],
            ),
            (
                "VM Import's description",
                case(|c| c.image.description = Some("AWS-VMImport service: Windows".into())),
                vec![ServiceRegistered],
            ),
            (
                "several at once",
                case(|c| {
                    c.past = None;
                    c.mode = Mode::Observe;
                    c.image.owner = None;
                    c.image.created = None;
                    c.safety.references = Ok(vec!["arn:instance".into()]);
                    c.safety.listeners = Ok(0);
                    c.safety.way_back = Err("pending".into());
                }),
                vec![
                    ObserveMode,
                    NotOwner,
                    TooOld,
                    InUse,
                    NoWayBack,
                    NobodyListening,
                    LedgerUnavailable,
                ],
            ),
        ];
        for (what, case, held_by) in matrix {
            let plan = case.plan();
            let action = if held_by.is_empty() {
                Action::Deregister
            } else {
                Action::Hold
            };
            assert_eq!(
                (plan.action, plan.tell, plan.held_by),
                (action, true, held_by),
                "{what}"
            );
        }
    }

    #[test]
    fn a_discard_that_nobody_looked_around_for_is_held() {
        let case = Case::default();
        let observation = Observation::Available(Box::new(case.image.clone()));
        let expectation = Expectation {
            evidence: case.evidence.clone(),
            ..Expectation::default()
        };
        let input = PlanInput {
            mode: Mode::Enforce,
            now: now(),
            registration: &case.registration,
            observation: &observation,
            expectation: &expectation,
            safety: None,
            past: case.past.as_ref(),
        };
        let plan = plan(case.verdict, &input, &case.policy);
        let held_by = [
            Interlock::InUse,
            Interlock::NoWayBack,
            Interlock::NobodyListening,
            Interlock::Uncaptured,
            Interlock::LedgerUnavailable,
        ];
        assert_eq!(plan.held_by, held_by);
    }

    #[test]
    fn an_image_that_is_disabled_needs_no_recycle_bin() {
        let disabled = case(|case| {
            case.policy.action = DiscardAction::Disable;
            case.safety.way_back = Err("pending".into());
        });
        assert_eq!(disabled.plan().action, Action::Disable);
    }

    #[test]
    fn an_empty_field_needs_no_source() {
        let empty = case(|case| {
            case.verdict = Verdict::Mismatch(Mismatch::Empty);
            case.image.platform_details = None;
            case.image.usage_operation = None;
            case.evidence.clear();
        });
        assert_eq!(empty.plan().action, Action::Deregister);
    }

    #[test]
    fn only_the_mismatches_that_lack_something_are_discarded() {
        for (verdict, action) in [
            (Verdict::Mismatch(Mismatch::Wrong), Action::Deregister),
            (Verdict::Mismatch(Mismatch::Missing), Action::Deregister),
            (Verdict::Mismatch(Mismatch::Extra), Action::Alert),
            (Verdict::Conflict, Action::Alert),
            (Verdict::Unverifiable, Action::None),
            (Verdict::Verified, Action::None),
            (Verdict::Exempt, Action::None),
            (Verdict::Gone, Action::None),
            (Verdict::Failed, Action::None),
            (Verdict::Ignored, Action::None),
        ] {
            assert_eq!(
                case(|case| case.verdict = verdict).plan().action,
                action,
                "{verdict:?}"
            );
        }
    }

    #[test]
    fn the_policy_chooses_what_is_told_and_a_discard_is_told_whatever_it_says() {
        let silent = |case: &mut Case| case.policy.alert_on.clear();
        assert!(case(silent).plan().tell);
        let held = case(silent).with(|case| case.mode = Mode::Observe).plan();
        assert_eq!((held.action, held.tell), (Action::Hold, false));
        let unverifiable = case(|case| {
            case.verdict = Verdict::Unverifiable;
            case.policy.alert_on = BTreeSet::from([AlertOn::Unverifiable]);
        });
        assert_eq!(unverifiable.plan().action, Action::Alert);
    }

    #[test]
    fn the_policy_may_disable_rather_than_deregister() {
        let plan = case(|case| case.policy.action = DiscardAction::Disable).plan();
        assert_eq!(plan.action, Action::Disable);
    }

    proptest! {
        #[test]
        fn no_discard_with_details_that_are_not_known(
            details in "\\PC{0,40}", operation in "RunInstances(:[0-9a-v]{4})?|\\PC{0,20}",
            source in prop::sample::select(Source::ALL.to_vec()),
            platform in prop::sample::select(crate::billing::Platform::codes().collect::<Vec<_>>()),
        ) {
            use crate::billing::{Parsed, parse_platform_details};
            prop_assume!(parse_platform_details(Some(&details)) == Parsed::Unrecognised);
            let mut case = case(|case| {
                case.image.platform_details = Some(details);
                case.image.usage_operation = Some(operation);
                case.evidence = vec![spoke(source, platform)];
                case.policy.discard_from = BTreeSet::from([
                    DiscardFrom::Declared, DiscardFrom::Lineage, DiscardFrom::Disk,
                ]);
            });
            let expectation = Expectation { evidence: case.evidence.clone(), ..Expectation::default() };
            let observation = Observation::Available(Box::new(case.image.clone()));
            case.verdict = crate::verdict::judge(&observation, &expectation).verdict;
            prop_assert!(!case.plan().action.is_discard());
        }

        #[test]
        fn no_discard_without_a_declaration_unless_the_field_is_empty(
            kind in prop::sample::select(vec![Mismatch::Empty, Mismatch::Missing, Mismatch::Wrong, Mismatch::Extra]),
            source in prop::sample::select(Source::ALL.to_vec()),
            observe in any::<bool>(),
        ) {
            let plan = case(|case| {
                case.verdict = Verdict::Mismatch(kind);
                case.evidence = vec![spoke(source, "Windows")];
                case.mode = if observe { Mode::Observe } else { Mode::Enforce };
            })
            .plan();
            if plan.action.is_discard() {
                prop_assert!(!observe && kind != Mismatch::Extra);
                prop_assert!(kind == Mismatch::Empty || source.standing() == Standing::Declared);
            }
        }
    }
}
