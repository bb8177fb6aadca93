//! What CloudWatch's metrics say: whether events arrive, when the last audit was, and how long events wait.

use std::collections::BTreeMap;
use std::time::Duration;

use ami_billing_guard::telemetry::NAMESPACE;
use ami_billing_guard::{Aws, Error};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::finding::{Finding, Subject};
use super::look::{Stack, last_part};
use super::signed::{self, CLOUDWATCH, Request};

/// How far back to look, in days. ListMetrics knows the metrics of the last two weeks (CloudWatch API reference).
const DAYS: i64 = 14;

/// Period of the guard's metrics, in seconds.
const HOUR: i64 = 3600;

/// Time limit for each call.
const LIMIT: Duration = Duration::from_secs(15);

/// A number, and the start of the period that it is for.
type Number = (DateTime<Utc>, f64);

/// The numbers of a stack's function and event queue, the oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers {
    /// Images that each audit looked at.
    pub(super) audited: Vec<Number>,
    /// Audits that did not reach the end.
    pub(super) unfinished: Vec<Number>,
    /// Images that an audit found, and of which no event came.
    pub(super) missed: Vec<Number>,
    /// Judged images, those that an audit found among them.
    pub(super) registrations: Vec<Number>,
    /// Age of the queue's oldest event, in seconds.
    pub(super) oldest_event: Vec<Number>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    metrics: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Data {
    metric_data_results: Vec<DataOfMetric>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DataOfMetric {
    id: String,
    timestamps: Vec<f64>,
    values: Vec<f64>,
}

/// ListMetrics and GetMetricData: the numbers of the last two weeks.
///
/// # Errors
/// [`Error`] if there is no answer.
pub(super) async fn numbers(
    aws: &Aws,
    function: &str,
    queue: Option<&str>,
    now: DateTime<Utc>,
) -> Result<Numbers, Error> {
    let of_function = json!([{ "Name": "function", "Value": function }]);
    let listed =
        json!({ "Namespace": NAMESPACE, "MetricName": "Registrations", "Dimensions": of_function });
    let listed: Listed = call(aws, "cloudwatch:ListMetrics", "ListMetrics", listed).await?;
    let query = |id: &str, metric: Value, period: i64, statistic: &str| json!({ "Id": id, "MetricStat": { "Metric": metric, "Period": period, "Stat": statistic } });
    let mut queries: Vec<Value> = ["AuditedImages", "AuditsUnfinished", "MissedImages"]
        .iter()
        .zip(["audited", "unfinished", "missed"])
        .map(|(name, id)| {
            let metric =
                json!({ "Namespace": NAMESPACE, "MetricName": name, "Dimensions": of_function });
            query(id, metric, HOUR, "Sum")
        })
        .collect();
    if let Some(queue) = queue {
        let of_queue = json!([{ "Name": "QueueName", "Value": last_part(queue) }]);
        let name = "ApproximateAgeOfOldestMessage";
        let metric = json!({ "Namespace": "AWS/SQS", "MetricName": name, "Dimensions": of_queue });
        queries.push(query("oldest", metric, 300, "Maximum"));
    }
    // A metric for each verdict.
    for (number, metric) in listed.metrics.into_iter().enumerate() {
        queries.push(query(
            &format!("registrations{number}"),
            metric,
            HOUR,
            "Sum",
        ));
    }
    let since = now - TimeDelta::days(DAYS);
    let mut request = Map::new();
    request.insert("MetricDataQueries".into(), queries.into());
    request.insert("StartTime".into(), since.timestamp().into());
    request.insert("EndTime".into(), now.timestamp().into());
    let mut of: BTreeMap<String, Vec<Number>> = BTreeMap::new();
    loop {
        let data: Data = call(
            aws,
            "cloudwatch:GetMetricData",
            "GetMetricData",
            Value::Object(request.clone()),
        )
        .await?;
        for metric in data.metric_data_results {
            let name = metric
                .id
                .trim_end_matches(|letter: char| letter.is_ascii_digit());
            let numbers = of.entry(name.to_owned()).or_default();
            for (second, value) in metric.timestamps.into_iter().zip(metric.values) {
                let time = DateTime::from_timestamp(second as i64, 0);
                numbers.extend(time.map(|time| (time, value)));
            }
        }
        match data.next_token.filter(|token| !token.is_empty()) {
            Some(token) => {
                request.insert("NextToken".into(), token.into());
            }
            None => break,
        }
    }
    let mut take = |name: &str| {
        let mut numbers = of.remove(name).unwrap_or_default();
        numbers.sort_by_key(|(time, _)| *time);
        numbers
    };
    Ok(Numbers {
        audited: take("audited"),
        unfinished: take("unfinished"),
        missed: take("missed"),
        registrations: take("registrations"),
        oldest_event: take("oldest"),
    })
}

/// A call of CloudWatch's JSON protocol.
async fn call<T: for<'a> Deserialize<'a>>(
    aws: &Aws,
    permission: &'static str,
    action: &str,
    body: Value,
) -> Result<T, Error> {
    let request = Request {
        path: "/".into(),
        headers: vec![
            ("content-type", "application/x-amz-json-1.0".into()),
            (
                "x-amz-target",
                format!("GraniteServiceVersion20100801.{action}"),
            ),
        ],
        body,
    };
    let config = aws.sdk_config();
    let answer = signed::send(config, &CLOUDWATCH, permission, "*", request, LIMIT).await?;
    serde_json::from_value(answer.body).map_err(|error| Error::Unavailable {
        call: permission,
        resource: "*".into(),
        message: format!("the answer could not be read: {error}"),
    })
}

fn sum(numbers: &[Number]) -> f64 {
    numbers.iter().map(|(_, value)| value).sum()
}

/// The last audit.
pub(super) fn audit(
    stack: &Stack,
    now: DateTime<Utc>,
    numbers: &Result<Numbers, Error>,
) -> Finding {
    let schedule = stack.parameter("AuditSchedule");
    let of = schedule.unwrap_or("unknown");
    let subject = Subject::new("last-audit", format!("AuditSchedule={of}"));
    if let Some("" | "none") = schedule {
        return subject.ok("the stack has no daily audit");
    }
    let numbers = match numbers {
        Ok(numbers) => numbers,
        Err(error) => return subject.not_known(error),
    };
    let Some((last, images)) = numbers.audited.last() else {
        return subject.unknown(
            format!(
                "the metrics of the last {DAYS} days have no audit. A new stack has none yet, and neither has an \
                 account without AMIs"
            ),
            "Run doctor again after the first audit.",
        );
    };
    let hour = last.to_rfc3339_opts(SecondsFormat::Secs, true);
    let found = format!("in the hour from {hour}, it looked at {images} AMIs");
    if numbers
        .unfinished
        .last()
        .is_some_and(|(time, _)| time >= last)
    {
        return subject.warning(
            format!("{found}, and did not reach the end"),
            "The next audit goes on with the others. If this happens each time, choose a shorter AuditSchedule.",
        );
    }
    // The period of the metric is an hour.
    let late = schedule
        .and_then(interval)
        .map(|interval| interval * 2)
        // A schedule with cron. The template asks for an audit at least every three days.
        .or_else(|| TimeDelta::try_days(3))
        .map(|interval| interval + TimeDelta::hours(1));
    match late {
        Some(late) if now - *last > late => subject.warning(
            format!("{found}. At least one was left out since, unless the account has no AMIs any more"),
            "Look at the undelivered queue, and whether the schedule is enabled: aws scheduler list-schedules.",
        ),
        _ => subject.ok(found),
    }
}

/// The time between two audits, if the schedule is a rate.
fn interval(schedule: &str) -> Option<TimeDelta> {
    let rate = schedule.strip_prefix("rate(")?.strip_suffix(')')?;
    let (number, unit) = rate.split_once(' ')?;
    let number: i64 = number.parse().ok()?;
    match unit {
        "hour" | "hours" => TimeDelta::try_hours(number),
        "day" | "days" => TimeDelta::try_days(number),
        _ => None,
    }
}

/// Whether events arrive.
pub(super) fn events(function: &str, numbers: &Result<Numbers, Error>) -> Finding {
    let subject = Subject::new("events", function);
    let numbers = match numbers {
        Ok(numbers) => numbers,
        Err(error) => return subject.not_known(error),
    };
    let to_do = "See docs/runbook.md, \"An alarm says that events do not arrive\".";
    let judged = sum(&numbers.registrations);
    let missed = sum(&numbers.missed);
    // What an audit found is judged as well, and counts as a registration.
    if missed > 0.0 && judged <= missed {
        return subject.failed(
            format!("no event arrived in the last {DAYS} days, and audits found {missed} AMIs that were registered"),
            to_do,
        );
    }
    if judged == 0.0 {
        return subject.unknown(
            format!("no AMI was judged in the last {DAYS} days. A new stack has no numbers yet"),
            "Register an AMI, and run doctor again when SettleSeconds and a few minutes are over.",
        );
    }
    let found = format!("registrations judged in the last {DAYS} days: {judged}");
    let last = numbers.audited.last().map(|(time, _)| *time);
    match numbers.missed.last() {
        Some((time, missed)) if Some(*time) >= last => subject.warning(
            format!("{found}. The last audit found AMIs of which no event arrived: {missed}"),
            to_do,
        ),
        _ => subject.ok(found),
    }
}

/// How long the oldest event has waited longer than it should. `None` if it has not, or if there is no number of the
/// last quarter of an hour. The limit is that of the stack's alarm: an hour more than the settle time.
pub(super) fn overdue(stack: &Stack, now: DateTime<Utc>, numbers: &Numbers) -> Option<TimeDelta> {
    let (time, seconds) = numbers.oldest_event.last()?;
    if now - *time > TimeDelta::minutes(15) {
        return None;
    }
    let settle = stack.parameter("SettleSeconds")?.parse().ok()?;
    let age = TimeDelta::try_seconds(*seconds as i64)?;
    let limit = TimeDelta::try_seconds(settle)? + TimeDelta::hours(1);
    (age > limit).then_some(age)
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_795_900_000, 0).unwrap()
    }

    fn stack(schedule: &str) -> Stack {
        let parameters = [("AuditSchedule", schedule), ("SettleSeconds", "300")];
        let parameters = parameters.map(|(key, value)| (key.to_owned(), value.to_owned()));
        Stack {
            parameters: parameters.into_iter().collect(),
            ..Stack::default()
        }
    }

    fn ago(hours: i64, value: f64) -> Vec<Number> {
        vec![(now() - TimeDelta::hours(hours), value)]
    }

    #[track_caller]
    fn holds(finding: &Finding, state: State, found: &str) {
        assert_eq!(finding.state, state, "{finding:?}");
        assert!(finding.found.contains(found), "{finding:?}");
        assert_eq!(finding.to_do.is_none(), state == State::Ok);
    }

    #[test]
    fn an_audit_is_recent_late_unfinished_not_known_or_not_wanted() {
        let audited = |hours| Numbers {
            audited: ago(hours, 321.0),
            ..Numbers::default()
        };
        let daily = stack("rate(1 day)");
        holds(
            &audit(&daily, now(), &Ok(audited(20))),
            State::Ok,
            "it looked at 321 AMIs",
        );
        holds(&audit(&daily, now(), &Ok(audited(48))), State::Ok, "");
        holds(
            &audit(&daily, now(), &Ok(audited(50))),
            State::Warning,
            "left out since",
        );
        holds(
            &audit(&stack("cron(0 3 * * ? *)"), now(), &Ok(audited(50))),
            State::Ok,
            "",
        );
        let unfinished = Numbers {
            unfinished: ago(20, 1.0),
            ..audited(20)
        };
        holds(
            &audit(&daily, now(), &Ok(unfinished)),
            State::Warning,
            "did not reach the end",
        );
        let once_unfinished = Numbers {
            unfinished: ago(44, 1.0),
            ..audited(20)
        };
        holds(&audit(&daily, now(), &Ok(once_unfinished)), State::Ok, "");
        holds(
            &audit(&daily, now(), &Ok(Numbers::default())),
            State::Unknown,
            "A new stack has none yet",
        );
        holds(
            &audit(&stack("none"), now(), &Ok(Numbers::default())),
            State::Ok,
            "no daily audit",
        );
    }

    #[test]
    fn events_arrive_or_do_not_or_it_is_not_known() {
        let found = |judged: f64, missed: f64, audited: i64| {
            let numbers = |value| {
                if value > 0.0 {
                    ago(5, value)
                } else {
                    Vec::new()
                }
            };
            let numbers = Numbers {
                registrations: numbers(judged),
                missed: numbers(missed),
                audited: ago(audited, 100.0),
                ..Numbers::default()
            };
            events("guard", &Ok(numbers))
        };
        holds(&found(12.0, 0.0, 5), State::Ok, "in the last 14 days: 12");
        holds(&found(12.0, 2.0, 5), State::Warning, "no event arrived: 2");
        // A later audit found none.
        holds(&found(12.0, 2.0, 4), State::Ok, "");
        holds(&found(2.0, 2.0, 5), State::Failed, "audits found 2 AMIs");
        holds(
            &found(0.0, 0.0, 5),
            State::Unknown,
            "A new stack has no numbers yet",
        );
    }

    #[test]
    fn numbers_that_may_not_be_read_are_not_known() {
        let denied = || Error::AccessDenied {
            permission: "cloudwatch:GetMetricData",
            resource: "*".into(),
            message: "m".into(),
        };
        holds(
            &events("guard", &Err(denied())),
            State::Unknown,
            "cloudwatch:GetMetricData",
        );
        let finding = audit(&stack("rate(1 day)"), now(), &Err(denied()));
        holds(&finding, State::Unknown, "cloudwatch:GetMetricData");
    }

    #[test]
    fn an_event_is_overdue_an_hour_after_the_settle_time() {
        let waited = |minutes_ago: i64, seconds: f64| Numbers {
            oldest_event: vec![(now() - TimeDelta::minutes(minutes_ago), seconds)],
            ..Numbers::default()
        };
        let stack = stack("none");
        assert_eq!(overdue(&stack, now(), &waited(5, 3900.0)), None);
        let late = Some(TimeDelta::seconds(3901));
        assert_eq!(overdue(&stack, now(), &waited(5, 3901.0)), late);
        assert_eq!(overdue(&stack, now(), &waited(20, 3901.0)), None);
        assert_eq!(overdue(&stack, now(), &Numbers::default()), None);
    }
}
