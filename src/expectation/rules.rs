//! Declarations by the rules of the policy. A rule matches, does not match, or cannot be evaluated. Who registered an
//! image, and the description of its snapshot, are not always known.

use super::{
    DISK_MAY_HOLD, Evidence, Lookup, OPEN_EXEMPTION, PRODUCT_CODES_IN_DOUBT, Says, Source, Subject,
};
use crate::event::RegisteredBy;
use crate::policy::{Attribute, Condition, Matched, Requirement, Rule};

/// What a list of rules says about an image.
pub(super) struct Outcome<'a, T> {
    /// The first rule that matches.
    pub(super) rule: Option<&'a Rule<T>>,
    /// The rules before it that might match.
    doubts: Vec<Doubt<'a, T>>,
}

struct Doubt<'a, T> {
    rule: &'a Rule<T>,
    why: Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Unknown {
    /// The event does not say who registered the image.
    Identity,
    /// The root snapshot was not looked at yet.
    Snapshot,
    /// The root snapshot could not be seen. The text says why.
    SnapshotFailed(String),
}

enum Matching {
    Yes,
    No,
    Unknown(Unknown),
}

/// Evaluates the rules in order, up to the first that matches.
pub(super) fn first<'a, T>(
    rules: impl Iterator<Item = &'a Rule<T>>,
    subject: Subject<'_>,
) -> Outcome<'a, T> {
    let mut doubts = Vec::new();
    for rule in rules {
        match matching(&rule.conditions, subject) {
            Matching::Yes => {
                return Outcome {
                    rule: Some(rule),
                    doubts,
                };
            }
            Matching::No => {}
            Matching::Unknown(why) => doubts.push(Doubt { rule, why }),
        }
    }
    Outcome { rule: None, doubts }
}

/// The statement that it is unknown whether a rule exempts the image. `None` if it is known.
pub(super) fn open_exemption(outcome: &Outcome<'_, String>) -> Option<Evidence> {
    Some(Evidence {
        source: Source::Policy,
        says: Says::Failed(outcome.open()?),
        detail: OPEN_EXEMPTION.to_owned(),
    })
}

/// The policy's statement about the platform. While an earlier rule is in doubt, it is unknown which rule is the first
/// that matches.
pub(super) fn platform(outcome: &Outcome<'_, Requirement>) -> Evidence {
    let named = outcome
        .rule
        .and_then(|rule| Some((rule.says.platforms.clone()?, rule)));
    let (says, detail) = match (outcome.open(), named) {
        (Some(why), _) => (Says::Failed(why), "[[expect]]".to_owned()),
        (None, Some((platforms, rule))) => {
            let detail = match &rule.says.disk {
                None => rule.to_string(),
                Some(disk) => format!("{rule}{DISK_MAY_HOLD}{disk}"),
            };
            (Says::Platforms(platforms), detail)
        }
        (None, None) => (Says::Silent, "[[expect]]: no rule matches".to_owned()),
    };
    Evidence {
        source: Source::Policy,
        says,
        detail,
    }
}

/// The policy's statement about product codes, if it makes one.
pub(super) fn product_codes(outcome: &Outcome<'_, Requirement>) -> Option<Evidence> {
    let (says, detail) = match outcome.open() {
        Some(why) => (Says::Failed(why), PRODUCT_CODES_IN_DOUBT.to_owned()),
        None => {
            let rule = outcome.rule?;
            let codes = rule.says.product_codes.clone()?;
            (Says::ProductCodes(codes), rule.to_string())
        }
    };
    Some(Evidence {
        source: Source::Policy,
        says,
        detail,
    })
}

impl<T> Outcome<'_, T> {
    /// Why it is unknown which rule matches. `None` if it is known.
    pub(super) fn open(&self) -> Option<String> {
        let doubt = self.doubts.first()?;
        let why = match &doubt.why {
            Unknown::Identity => {
                "depends on who registered the image, which the event does not say"
            }
            Unknown::Snapshot => "depends on the root snapshot, which was not looked up",
            Unknown::SnapshotFailed(why) => why,
        };
        Some(format!("{}: {why}", doubt.rule))
    }

    /// The rules that might match, before the first that does.
    pub(super) fn in_doubt(&self) -> impl Iterator<Item = &Rule<T>> {
        self.doubts.iter().map(|doubt| doubt.rule)
    }

    pub(super) fn asks_identity(&self) -> bool {
        self.in_doubt_for(|why| *why == Unknown::Identity)
    }

    pub(super) fn asks_snapshot(&self) -> bool {
        self.in_doubt_for(|why| *why == Unknown::Snapshot)
    }

    fn in_doubt_for(&self, reason: impl Fn(&Unknown) -> bool) -> bool {
        self.doubts.iter().any(|doubt| reason(&doubt.why))
    }
}

/// Evaluates conditions that must all hold. One that does not hold is enough, whatever else is unknown.
fn matching(conditions: &[Condition], subject: Subject<'_>) -> Matching {
    let mut matching = Matching::Yes;
    for condition in conditions {
        match holds(condition, subject) {
            Matching::Yes => {}
            Matching::No => return Matching::No,
            // A reason that another look can remove takes precedence.
            Matching::Unknown(why) => match matching {
                Matching::Unknown(Unknown::Snapshot) => {}
                _ => matching = Matching::Unknown(why),
            },
        }
    }
    matching
}

fn holds(condition: &Condition, subject: Subject<'_>) -> Matching {
    let Subject {
        registration,
        image,
        snapshot,
    } = subject;
    let text = match &condition.on {
        Matched::Tag(key) => image.tags.get(key).map(String::as_str),
        Matched::SnapshotTag(key) => match snapshot {
            // A snapshot that is shared with this account has its owner's tags, and its owner may not speak for this
            // account.
            Lookup::Seen(seen) if seen.owner.as_deref() == Some(registration.account.as_str()) => {
                seen.tags.get(key).map(String::as_str)
            }
            Lookup::Seen(seen) if seen.owner.is_none() => {
                let why = format!("EC2 does not say who owns {}", seen.id);
                return Matching::Unknown(Unknown::SnapshotFailed(why));
            }
            Lookup::Seen(_) | Lookup::NotApplicable(_) => None,
            Lookup::NotYet => return Matching::Unknown(Unknown::Snapshot),
            Lookup::Failed(why) => {
                return Matching::Unknown(Unknown::SnapshotFailed(why.clone()));
            }
        },
        Matched::ProductCode => {
            let mut codes = image.product_codes.iter();
            return match codes.any(|code| condition.matches(&code.to_ascii_lowercase())) {
                true => Matching::Yes,
                false => Matching::No,
            };
        }
        Matched::Attribute(attribute) => match (attribute, &registration.registered_by, snapshot) {
            (Attribute::Name, ..) => image.name.as_deref(),
            (Attribute::Description, ..) => image.description.as_deref(),
            (Attribute::Architecture, ..) => image.architecture.as_deref(),
            (Attribute::Account, ..) => Some(registration.account.as_str()),
            (Attribute::Region, ..) => Some(registration.region.as_str()),
            (Attribute::RegisteredBy, RegisteredBy::Identity { caller, .. }, _) => {
                Some(caller.as_str())
            }
            (Attribute::InvokedBy, RegisteredBy::Identity { service, .. }, _) => service.as_deref(),
            (Attribute::RegisteredBy | Attribute::InvokedBy, RegisteredBy::Unknown, _) => {
                return Matching::Unknown(Unknown::Identity);
            }
            (Attribute::SnapshotDescription, _, Lookup::Seen(snapshot)) => {
                snapshot.description.as_deref()
            }
            (Attribute::SnapshotDescription, _, Lookup::NotApplicable(_)) => None,
            (Attribute::SnapshotDescription, _, Lookup::NotYet) => {
                return Matching::Unknown(Unknown::Snapshot);
            }
            (Attribute::SnapshotDescription, _, Lookup::Failed(why)) => {
                return Matching::Unknown(Unknown::SnapshotFailed(why.clone()));
            }
        },
    };
    // A missing value matches nothing, not even `*`.
    match text {
        Some(text) if condition.matches(text) => Matching::Yes,
        _ => Matching::No,
    }
}
