//! Whether CloudTrail delivers RegisterImage calls: a trail must log management events that write, and be logging now.

use ami_billing_guard::Error;
use aws_sdk_cloudtrail::types::{AdvancedEventSelector, AdvancedFieldSelector, ReadWriteType};

use super::finding::{Finding, Subject};
use super::look::{Selectors, Trail, last_part};

/// Whether a trail logs RegisterImage calls.
#[derive(Debug, PartialEq, Eq)]
enum Logs {
    Yes,
    No,
    /// It depends on something that this version does not know.
    Unclear(String),
}

/// `trails` is `None` if the stack needs no trail.
pub(super) fn judge(region: &str, trails: Option<&Result<Vec<Trail>, Error>>) -> Finding {
    let subject = Subject::new("cloudtrail", format!("the trails of {region}"));
    let trails = match trails {
        None => return subject.ok("not needed, because the stack has Trigger=state-change"),
        Some(Err(error)) => return subject.not_known(error),
        Some(Ok(trails)) => trails,
    };
    let mut not_known: Option<&Error> = None;
    let mut unclear: Option<String> = None;
    let mut stopped: Option<&Trail> = None;
    let mut reads_only: Option<&Trail> = None;
    for trail in trails {
        let logs = trail.selectors.as_ref().map(logs_registrations);
        match (trail.logging.as_ref(), logs) {
            (Ok(true), Ok(Logs::Yes)) => {
                return subject.ok(format!(
                    "{} is logging management events that write",
                    last_part(&trail.arn)
                ));
            }
            // Whatever else is unknown about it, it does not deliver these events.
            (_, Ok(Logs::No)) => reads_only = Some(trail),
            (Ok(false), _) => stopped = Some(trail),
            (Err(error), _) | (_, Err(error)) => not_known = Some(error),
            (_, Ok(Logs::Unclear(why))) => unclear = Some(why),
        }
    }
    if let Some(error) = not_known {
        return subject.not_known(error);
    }
    if let Some(why) = unclear {
        return subject.unknown(
            why,
            "Look at the trail's event selectors. Do they select RegisterImage calls of EC2 by all callers?",
        );
    }
    if let Some(trail) = stopped {
        let Trail {
            arn, home_region, ..
        } = trail;
        return subject.failed(
            format!("{} is not logging, so no event arrives", last_part(arn)),
            format!("aws cloudtrail start-logging --region {home_region} --name '{arn}'"),
        );
    }
    if let Some(trail) = reads_only {
        let Trail {
            arn, home_region, ..
        } = trail;
        return subject.failed(
            format!(
                "{} does not log management events that write, so no event arrives",
                last_part(arn)
            ),
            format!(
                "Let it log them. Its event selectors now: aws cloudtrail get-event-selectors --region {home_region} \
                 --trail-name '{arn}'"
            ),
        );
    }
    subject.failed(
        "no trail covers this Region, so no event arrives",
        "Create a trail that logs management events that write, or deploy the stack with Trigger=state-change.",
    )
}

/// Whether these selectors include RegisterImage calls. A basic selector includes management events, and both reads and
/// writes, unless it says otherwise (CloudTrail API reference, "EventSelector").
fn logs_registrations(selectors: &Selectors) -> Logs {
    if selectors.basic.is_empty() && selectors.advanced.is_empty() {
        return Logs::Unclear("CloudTrail does not say which events a trail logs".into());
    }
    let writes = |kind: Option<&ReadWriteType>| match kind {
        None | Some(ReadWriteType::All | ReadWriteType::WriteOnly) => Logs::Yes,
        Some(ReadWriteType::ReadOnly) => Logs::No,
        Some(other) => Logs::Unclear(format!(
            "a trail has the unrecognised ReadWriteType {other}"
        )),
    };
    let basic = selectors
        .basic
        .iter()
        .filter(|selector| selector.include_management_events.unwrap_or(true))
        .map(|selector| writes(selector.read_write_type()));
    let advanced = selectors.advanced.iter().map(includes_registrations);
    basic
        .chain(advanced)
        .fold(Logs::No, |all, one| match (all, one) {
            (Logs::Yes, _) | (_, Logs::Yes) => Logs::Yes,
            (Logs::Unclear(why), _) | (_, Logs::Unclear(why)) => Logs::Unclear(why),
            (Logs::No, Logs::No) => Logs::No,
        })
}

/// Whether an advanced selector includes RegisterImage calls: all its fields must match.
fn includes_registrations(selector: &AdvancedEventSelector) -> Logs {
    let mut unclear = None;
    for field in selector.field_selectors() {
        let value = match field.field() {
            "eventCategory" => "Management",
            "readOnly" => "false",
            "eventSource" => "ec2.amazonaws.com",
            "eventName" => "RegisterImage",
            "eventType" => "AwsApiCall",
            other => {
                let why = format!("a trail selects events by {other}");
                unclear = Some(Logs::Unclear(why));
                continue;
            }
        };
        match matches(field, value) {
            Some(true) => {}
            Some(false) => return Logs::No,
            None => {
                let why = format!("a trail combines conditions on {}", field.field());
                unclear = Some(Logs::Unclear(why));
            }
        }
    }
    unclear.unwrap_or(Logs::Yes)
}

/// Whether a value matches the conditions on a field. `None` if it matches some of them only: the documentation does not
/// say how they combine.
fn matches(field: &AdvancedFieldSelector, value: &str) -> Option<bool> {
    fn any(listed: &[String], test: impl Fn(&str) -> bool) -> Option<bool> {
        (!listed.is_empty()).then(|| listed.iter().any(|it| test(it)))
    }
    let is = |other: &str| value == other;
    let starts = |with: &str| value.starts_with(with);
    let ends = |with: &str| value.ends_with(with);
    let conditions = [
        any(field.equals(), is),
        any(field.starts_with(), starts),
        any(field.ends_with(), ends),
        any(field.not_equals(), is).map(|found| !found),
        any(field.not_starts_with(), starts).map(|found| !found),
        any(field.not_ends_with(), ends).map(|found| !found),
    ];
    let mut held = conditions.into_iter().flatten();
    let first = held.next()?;
    held.all(|other| other == first).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;
    use aws_sdk_cloudtrail::types::EventSelector;

    const REGION: &str = "eu-west-1";

    fn basic(management: Option<bool>, kind: Option<ReadWriteType>) -> Selectors {
        let selector = EventSelector::builder()
            .set_include_management_events(management)
            .set_read_write_type(kind);
        Selectors {
            basic: vec![selector.build()],
            advanced: Vec::new(),
        }
    }

    type Condition<'a> = (&'a str, &'a str, &'a [&'a str]);

    fn advanced(conditions: &[Condition<'_>]) -> Selectors {
        let fields = conditions.iter().map(|(field, operator, values)| {
            let values = Some(values.iter().map(|it| (*it).to_owned()).collect());
            let field = AdvancedFieldSelector::builder().field(*field);
            let field = match *operator {
                "=" => field.set_equals(values),
                "!=" => field.set_not_equals(values),
                "starts" => field.set_starts_with(values),
                "not-ends" => field.set_not_ends_with(values),
                other => panic!("{other}"),
            };
            field.build().unwrap()
        });
        let selector = AdvancedEventSelector::builder()
            .set_field_selectors(Some(fields.collect()))
            .build();
        Selectors {
            basic: Vec::new(),
            advanced: vec![selector.unwrap()],
        }
    }

    const MANAGEMENT: Condition<'_> = ("eventCategory", "=", &["Management"]);

    #[test]
    fn a_basic_selector_logs_registrations_unless_it_leaves_out_management_events_or_writes() {
        for (selectors, logs) in [
            (basic(None, None), Logs::Yes),
            (basic(Some(true), Some(ReadWriteType::All)), Logs::Yes),
            (basic(Some(true), Some(ReadWriteType::WriteOnly)), Logs::Yes),
            (basic(Some(true), Some(ReadWriteType::ReadOnly)), Logs::No),
            (basic(Some(false), Some(ReadWriteType::All)), Logs::No),
        ] {
            assert_eq!(logs_registrations(&selectors), logs, "{selectors:?}");
        }
        for unclear in [
            basic(None, Some(ReadWriteType::from("Sometimes"))),
            Selectors::default(),
        ] {
            let logs = logs_registrations(&unclear);
            assert!(matches!(logs, Logs::Unclear(_)), "{unclear:?}");
        }
    }

    #[test]
    fn an_advanced_selector_logs_registrations_if_all_its_fields_match_them() {
        let no_kms: Condition<'_> = ("eventSource", "!=", &["kms.amazonaws.com"]);
        for (conditions, logs) in [
            (vec![MANAGEMENT], Logs::Yes),
            (vec![MANAGEMENT, no_kms], Logs::Yes),
            (vec![MANAGEMENT, ("readOnly", "=", &["false"])], Logs::Yes),
            (vec![MANAGEMENT, ("readOnly", "=", &["true"])], Logs::No),
            (vec![("eventCategory", "=", &["Data"])], Logs::No),
            (
                vec![MANAGEMENT, ("eventName", "starts", &["Run", "Reg"])],
                Logs::Yes,
            ),
            (
                vec![MANAGEMENT, ("eventName", "not-ends", &["Image"])],
                Logs::No,
            ),
            // It does not match, whatever else it selects by.
            (
                vec![
                    ("userIdentity.arn", "=", &["x"]),
                    ("eventCategory", "=", &["Data"]),
                ],
                Logs::No,
            ),
        ] {
            assert_eq!(
                logs_registrations(&advanced(&conditions)),
                logs,
                "{conditions:?}"
            );
        }
        let by_caller = advanced(&[MANAGEMENT, ("userIdentity.arn", "=", &["x"])]);
        let unclear = "a trail selects events by userIdentity.arn".to_owned();
        assert_eq!(logs_registrations(&by_caller), Logs::Unclear(unclear));
    }

    #[test]
    fn one_selector_of_several_is_enough() {
        let mut both = advanced(&[("eventCategory", "=", &["Data"])]);
        both.advanced.extend(advanced(&[MANAGEMENT]).advanced);
        assert_eq!(logs_registrations(&both), Logs::Yes);
    }

    fn trail(name: &str, logging: bool, selectors: Selectors) -> Trail {
        Trail {
            arn: format!("arn:aws:cloudtrail:{REGION}:123456789012:trail/{name}"),
            home_region: REGION.into(),
            logging: Ok(logging),
            selectors: Ok(selectors),
        }
    }

    fn denied(permission: &'static str) -> Error {
        Error::AccessDenied {
            permission,
            resource: "*".into(),
            message: "m".into(),
        }
    }

    fn writes() -> Selectors {
        basic(None, None)
    }

    fn reads() -> Selectors {
        basic(None, Some(ReadWriteType::ReadOnly))
    }

    #[test]
    fn one_trail_that_logs_writes_is_enough() {
        let trails = vec![
            trail("stopped", false, writes()),
            trail("reads", true, reads()),
            trail("good", true, writes()),
        ];
        let finding = judge(REGION, Some(&Ok(trails)));
        assert_eq!(finding.state, State::Ok);
        assert_eq!(
            finding.found,
            "good is logging management events that write"
        );
    }

    #[test]
    fn a_trail_that_is_stopped_or_logs_reads_only_is_named_with_what_to_do() {
        let finding = judge(REGION, Some(&Ok(vec![trail("off", false, writes())])));
        assert_eq!(finding.state, State::Failed);
        assert_eq!(finding.found, "off is not logging, so no event arrives");
        let start = "aws cloudtrail start-logging --region eu-west-1 --name \
                     'arn:aws:cloudtrail:eu-west-1:123456789012:trail/off'";
        assert_eq!(finding.to_do.as_deref(), Some(start));
        let finding = judge(REGION, Some(&Ok(vec![trail("reads", true, reads())])));
        assert_eq!(finding.state, State::Failed);
        assert!(
            finding
                .found
                .starts_with("reads does not log management events that write")
        );
    }

    #[test]
    fn without_any_trail_no_event_arrives_unless_the_stack_needs_none() {
        let finding = judge(REGION, Some(&Ok(Vec::new())));
        assert_eq!(finding.state, State::Failed);
        assert!(finding.found.starts_with("no trail covers this Region"));
        assert_eq!(judge(REGION, None).state, State::Ok);
    }

    #[test]
    fn what_is_not_known_of_a_trail_is_no_failure_unless_it_makes_no_difference() {
        let all = Err(denied("cloudtrail:DescribeTrails"));
        let finding = judge(REGION, Some(&all));
        assert_eq!(finding.state, State::Unknown);
        assert!(
            finding
                .to_do
                .unwrap()
                .contains("Allow cloudtrail:DescribeTrails")
        );

        let status = || Trail {
            logging: Err(denied("cloudtrail:GetTrailStatus")),
            ..trail("a", true, writes())
        };
        let selectors = Trail {
            selectors: Err(denied("cloudtrail:GetEventSelectors")),
            ..trail("b", true, writes())
        };
        let stopped = trail("stopped", false, writes());
        let finding = judge(REGION, Some(&Ok(vec![stopped, status()])));
        assert_eq!(finding.state, State::Unknown);
        assert!(finding.found.contains("cloudtrail:GetTrailStatus"));
        let finding = judge(REGION, Some(&Ok(vec![selectors])));
        assert_eq!(finding.state, State::Unknown);
        assert!(finding.found.contains("cloudtrail:GetEventSelectors"));
        // It logs no writes, whether it is logging or not.
        let no_matter = Trail {
            selectors: Ok(reads()),
            ..status()
        };
        let finding = judge(REGION, Some(&Ok(vec![no_matter])));
        assert_eq!(finding.state, State::Failed);
        let by_caller = advanced(&[MANAGEMENT, ("userIdentity.arn", "=", &["x"])]);
        let finding = judge(REGION, Some(&Ok(vec![trail("c", true, by_caller)])));
        assert_eq!(finding.state, State::Unknown);
        assert_eq!(finding.found, "a trail selects events by userIdentity.arn");
    }
}
