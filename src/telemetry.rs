//! Logs and metrics.
//!
//! A registration is one line of JSON, its record, at every log level. A failed delivery and an audit are one line
//! each, and so is an invocation's number of calls. Each line contains its metrics in CloudWatch's embedded metric
//! format (CloudWatch User Guide, "Specification: Embedded metric format"). Metrics therefore need no calls.
//!
//! All other lines are tracing's, and use the same names for the same ids. In those lines, `name` is the span's name.

use std::io::Write;

use chrono::{DateTime, SecondsFormat, Utc};
use json_subscriber::JsonLayer;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::time::SystemTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::aws::CallStats;
use crate::clock::Clock;
use crate::config::{self, ConfigError};
use crate::escape::InertJson;
use crate::invocation::Delivery;
use crate::record::{Outcome, Record};
use crate::verdict::Verdict;

/// The namespace of the guard's metrics in CloudWatch.
pub const NAMESPACE: &str = "AmiBillingGuard";

/// Dimension that separates one stack's metrics from another's.
const FUNCTION: &str = "function";

/// What the guard writes to its log in addition to tracing's lines.
#[derive(Clone, Copy, Debug)]
pub enum Line<'a> {
    /// A complete record.
    Record(&'a Record),
    /// A delivery that failed.
    Failure(Failure<'a>),
    /// The result of an audit.
    Audit(Audit<'a>),
    /// The number of an invocation's calls.
    Invocation(CallStats),
}

/// The result of an audit, in numbers of images.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Audit<'a> {
    /// Id of the event that requested it.
    pub event_id: &'a str,
    /// Images that it looked at.
    pub looked_at: usize,
    /// Images that are right, and unchanged since they were judged.
    pub unchanged: usize,
    /// Images for which the guard received no event.
    pub missed: usize,
    /// Other images that are not billed as expected.
    pub mismatches: usize,
    /// Images about which EC2 says something that this version does not know.
    pub unrecognised: usize,
    /// Whether it reached the end.
    pub complete: bool,
}

/// Why a delivery failed. Its event is delivered again.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Failure<'a> {
    /// EventBridge's id of the event, if it can be read.
    pub event_id: Option<&'a str>,
    /// The image, if the event names one.
    pub image_id: Option<&'a str>,
    /// The stable name of the error.
    pub error_type: &'static str,
    /// The error.
    pub message: &'a str,
    /// Whether a retry alone does not help.
    #[serde(skip)]
    pub needs_a_person: bool,
}

/// Writes these lines.
#[derive(Clone, Debug)]
pub struct Telemetry {
    function: String,
}

impl Telemetry {
    /// Sets up tracing as JSON on standard output, which Lambda sends to CloudWatch Logs. The level is that of
    /// `AWS_LAMBDA_LOG_LEVEL`, otherwise of `RUST_LOG`, otherwise info. The function's name is a dimension of the
    /// metrics. It is Lambda's `AWS_LAMBDA_FUNCTION_NAME`.
    ///
    /// # Errors
    /// [`ConfigError`] if one of these is not UTF-8. Tracing is set up nevertheless, so that the log can have the
    /// error. If the level is at fault, it is info.
    pub fn init() -> Result<Telemetry, ConfigError> {
        let variable = |name: &str| config::text(name, std::env::var_os(name));
        let level = variable("AWS_LAMBDA_LOG_LEVEL").and_then(|level| match level {
            None => variable("RUST_LOG"),
            level => Ok(level),
        });
        let directives = level.as_ref().ok().cloned().flatten().unwrap_or_default();
        let mut filter = EnvFilter::builder()
            .with_default_directive(LevelFilter::INFO.into())
            .parse_lossy(directives.to_ascii_lowercase());
        // At trace level, the runtime prints payloads, and ends on one that is not UTF-8.
        if filter.max_level_hint() == Some(LevelFilter::TRACE)
            && let Ok(directive) = "lambda_runtime=debug".parse()
        {
            filter = filter.add_directive(directive);
        }
        let mut lines = JsonLayer::new(|| InertJson(std::io::stdout()));
        // Lambda filters by the first two. A line also has the fields of its event, and of the spans around it. These
        // name the invocation, the event and the image.
        lines
            .with_timer("timestamp", SystemTime)
            .with_level("level")
            .with_target("target")
            .with_flattened_event()
            .with_top_level_flattened_span_list();
        tracing_subscriber::registry()
            .with(filter)
            .with(lines)
            .init();
        // Panics are logged on one line, escaped, and with the ids of the current work. The standard library writes raw
        // text.
        std::panic::set_hook(Box::new(|panic| {
            tracing::error!(error_type = "Panic", "{panic}");
        }));
        level?;
        let function = variable("AWS_LAMBDA_FUNCTION_NAME")?;
        Ok(Telemetry {
            function: function.unwrap_or_else(|| "ami-billing-guard".into()),
        })
    }

    /// Writes a line to standard output.
    pub fn write(&self, delivery: &Delivery, line: Line<'_>) {
        if let Some(line) = self.line(delivery, line, Clock::SYSTEM.now()) {
            // If the log is closed, there is nowhere to report that.
            let _ = InertJson(std::io::stdout()).write_all(format!("{line}\n").as_bytes());
        }
    }

    /// The line as JSON. `None` if it has nothing to say.
    fn line(&self, delivery: &Delivery, line: Line<'_>, now: DateTime<Utc>) -> Option<String> {
        match line {
            Line::Record(record) => {
                let metrics = of_record(record, now);
                self.whole(delivery, record.level(), record, metrics, now)
            }
            Line::Failure(failure) => {
                let level = match failure.needs_a_person {
                    true => Level::ERROR,
                    false => Level::WARN,
                };
                let metrics = vec![Metrics {
                    by: vec![vec![FUNCTION], vec![FUNCTION, "error_type"]],
                    values: vec![count("Errors", 1)],
                }];
                self.whole(delivery, level, failure, metrics, now)
            }
            Line::Audit(audit) => {
                let level = match audit.missed {
                    0 => Level::INFO,
                    _ => Level::WARN,
                };
                self.whole(delivery, level, audit, of_audit(audit), now)
            }
            Line::Invocation(tally) => {
                let metrics = of_invocation(tally);
                if metrics.is_empty() {
                    return None;
                }
                let what = json!({ "message": "the invocation is over" });
                self.whole(delivery, Level::INFO, what, metrics, now)
            }
        }
    }

    fn whole(
        &self,
        delivery: &Delivery,
        level: Level,
        what: impl Serialize,
        metrics: Vec<Metrics>,
        now: DateTime<Utc>,
    ) -> Option<String> {
        let whole = Whole {
            timestamp: now.to_rfc3339_opts(SecondsFormat::Millis, true),
            level: level.as_str(),
            request_id: delivery.request_id.as_deref(),
            message_id: delivery.message_id.as_deref(),
            function: (!metrics.is_empty()).then_some(self.function.as_str()),
            embedded: embedded(metrics, now),
            what,
        };
        serde_json::to_string(&whole)
            .inspect_err(|error| tracing::error!("could not write a line of the log: {error}"))
            .ok()
    }
}

/// A line, with the most important fields first. CloudWatch Logs Insights finds the first 200 fields of a line, and a
/// record can have more (CloudWatch Logs User Guide, "Fields in JSON logs").
#[derive(Serialize)]
struct Whole<'a, T> {
    // Lambda filters by these two.
    timestamp: String,
    level: &'a str,
    // Named as in Lambda's own lines and the runtime's spans.
    #[serde(rename = "requestId", skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<&'a str>,
    #[serde(flatten)]
    what: T,
    #[serde(flatten)]
    embedded: Map<String, Value>,
}

/// Metrics that have the same dimensions.
struct Metrics {
    /// Each list of dimensions makes metrics of its own. A dimension is the line's member of that name. It may have few
    /// values only, because CloudWatch charges for each combination.
    by: Vec<Vec<&'static str>>,
    values: Vec<Metric>,
}

struct Metric {
    name: String,
    unit: &'static str,
    value: Value,
}

fn count(name: &str, number: u64) -> Metric {
    Metric {
        name: name.to_owned(),
        unit: "Count",
        value: number.into(),
    }
}

/// Metrics of a registration. An image that is judged again because its event returned counts again. What did not
/// happen is not counted, because CloudWatch also charges for a metric that is always 0.
fn of_record(record: &Record, now: DateTime<Utc>) -> Vec<Metrics> {
    if record.verdict == Verdict::Ignored {
        return Vec::new();
    }
    let mut by_verdict = vec![FUNCTION, "account", "verdict"];
    if record.kind.is_some() {
        by_verdict.push("kind");
    }
    let mut values = Vec::new();
    if let Verdict::Mismatch(_) = record.verdict {
        values.push(count("Mismatches", 1));
    }
    if record.action.is_discard() && record.outcome == Some(Outcome::Done) {
        values.push(count("Discards", 1));
    }
    if !record.held_by.is_empty() {
        values.push(count("Holds", 1));
    }
    let actual = record.actual.as_ref();
    if actual.is_some_and(|actual| !actual.unrecognised().is_empty()) {
        values.push(count("UnrecognisedBilling", 1));
    }
    // A line has one value for each dimension, and several interlocks may hold a discard. Each interlock is therefore a
    // metric of its own instead of a dimension's value.
    let held_by = record.held_by.iter();
    values.extend(held_by.map(|interlock| count(&format!("HeldBy{interlock:?}"), 1)));
    if let Some(registered) = record.registered_at {
        let milliseconds = (now - registered).num_milliseconds().max(0);
        values.push(Metric {
            name: "TimeToVerdict".into(),
            unit: "Milliseconds",
            value: milliseconds.into(),
        });
    }
    let mut metrics = vec![Metrics {
        by: vec![by_verdict],
        values: vec![count("Registrations", 1)],
    }];
    metrics.extend(of_function(values));
    metrics
}

/// Metrics of the function as a whole. `None` if there are no values.
fn of_function(values: Vec<Metric>) -> Option<Metrics> {
    let by = vec![vec![FUNCTION]];
    (!values.is_empty()).then_some(Metrics { by, values })
}

fn of_audit(audit: Audit<'_>) -> Vec<Metrics> {
    counted(&[
        ("AuditedImages", audit.looked_at as u64),
        ("MissedImages", audit.missed as u64),
        ("AuditMismatches", audit.mismatches as u64),
        ("UnrecognisedBilling", audit.unrecognised as u64),
        ("AuditsUnfinished", u64::from(!audit.complete)),
    ])
}

fn of_invocation(tally: CallStats) -> Vec<Metrics> {
    counted(&[
        ("ApiCalls", tally.calls),
        ("Throttles", tally.throttles),
        ("Alerts", tally.alerts),
    ])
}

/// Counts of the function as a whole, without those that are 0.
fn counted(counts: &[(&str, u64)]) -> Vec<Metrics> {
    let counts = counts.iter().filter(|(_, number)| *number > 0);
    let values = counts.map(|(name, number)| count(name, *number)).collect();
    of_function(values).into_iter().collect()
}

/// Members that embed metrics in a line.
fn embedded(metrics: Vec<Metrics>, now: DateTime<Utc>) -> Map<String, Value> {
    let mut members = Map::new();
    let mut directives = Vec::new();
    for Metrics { by, values } in metrics {
        let named: Vec<Value> = values
            .iter()
            .map(|metric| json!({ "Name": metric.name, "Unit": metric.unit }))
            .collect();
        directives.push(json!({ "Namespace": NAMESPACE, "Dimensions": by, "Metrics": named }));
        let values = values.into_iter();
        members.extend(values.map(|metric| (metric.name, metric.value)));
    }
    if !directives.is_empty() {
        let timestamp = now.timestamp_millis();
        let about = json!({ "Timestamp": timestamp, "CloudWatchMetrics": directives });
        members.insert("_aws".into(), about);
    }
    members
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Ignored;
    use crate::invocation::Deadline;
    use crate::plan::{Action, Interlock};
    use crate::record::RecycleBin;
    use crate::verdict::Mismatch;
    use chrono::TimeDelta;

    fn record(verdict: Verdict) -> Record {
        let mut record = Record::ignored(Ignored {
            event_id: Some("e-1".into()),
            account: Some("123456789012".into()),
            region: Some("eu-west-1".into()),
            reason: "because".into(),
        });
        record.verdict = verdict;
        record.kind = verdict.kind();
        record.image_id = Some("ami-0a1b2c3d4e5f60001".into());
        record
    }

    fn line(line: Line<'_>) -> Option<Value> {
        let telemetry = Telemetry {
            function: "guard".into(),
        };
        let delivery = Delivery {
            request_id: Some("r-1".into()),
            message_id: Some("m-1".into()),
            receipt_handle: None,
            deadline: Deadline::now(),
        };
        let line = telemetry.line(&delivery, line, now())?;
        Some(serde_json::from_str(&line).unwrap())
    }

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp_millis(1_795_000_000_123).unwrap()
    }

    /// The metrics of a line: dimensions with their values, name, unit, value.
    fn metrics(line: &Value) -> Vec<String> {
        let mut all = Vec::new();
        for directive in line["_aws"]["CloudWatchMetrics"]
            .as_array()
            .into_iter()
            .flatten()
        {
            assert_eq!(directive["Namespace"], NAMESPACE);
            for by in directive["Dimensions"].as_array().unwrap() {
                let by = by.as_array().unwrap().iter().map(|name| {
                    let name = name.as_str().unwrap();
                    format!("{name}={}", line[name].as_str().unwrap())
                });
                let by = by.collect::<Vec<_>>().join(",");
                for metric in directive["Metrics"].as_array().unwrap() {
                    let name = metric["Name"].as_str().unwrap();
                    let unit = metric["Unit"].as_str().unwrap();
                    all.push(format!(
                        "{by} {name} {} {unit}",
                        line[name].as_u64().unwrap()
                    ));
                }
            }
        }
        all
    }

    #[test]
    fn a_record_is_one_line_with_its_metrics_and_what_lambda_filters_by() {
        let mut record = record(Verdict::Mismatch(Mismatch::Wrong));
        record.action = Action::Deregister;
        record.outcome = Some(Outcome::Done);
        record.registered_at = Some(now() - TimeDelta::milliseconds(301_500));
        let line = line(Line::Record(&record)).unwrap();
        assert_eq!(
            metrics(&line),
            [
                "function=guard,account=123456789012,verdict=mismatch,kind=wrong Registrations 1 Count",
                "function=guard Mismatches 1 Count",
                "function=guard Discards 1 Count",
                "function=guard TimeToVerdict 301500 Milliseconds",
            ]
        );
        assert_eq!(line["_aws"]["Timestamp"], 1_795_000_000_123_i64);
        assert_eq!(line["timestamp"], "2026-11-18T11:06:40.123Z");
        assert_eq!(
            (&line["level"], &line["requestId"]),
            (&json!("WARN"), &json!("r-1"))
        );
        assert_eq!(
            (&line["event_id"], &line["message_id"]),
            (&json!("e-1"), &json!("m-1"))
        );
        // All of the record is there, and no other value replaces any of it.
        for (name, value) in json!(record).as_object().unwrap() {
            assert_eq!(line[name], *value, "{name}");
        }
    }

    #[test]
    fn each_interlock_has_a_metric_of_its_own() {
        let mut record = record(Verdict::Mismatch(Mismatch::Empty));
        record.action = Action::Hold;
        record.held_by = vec![Interlock::ObserveMode, Interlock::TooOld];
        let line = line(Line::Record(&record)).unwrap();
        assert_eq!(
            metrics(&line)[1..],
            [
                "function=guard Mismatches 1 Count",
                "function=guard Holds 1 Count",
                "function=guard HeldByObserveMode 1 Count",
                "function=guard HeldByTooOld 1 Count",
            ]
        );
    }

    #[test]
    fn a_verdict_without_a_kind_has_no_such_dimension_and_an_ignored_event_no_metrics() {
        let line_of = |verdict| line(Line::Record(&record(verdict))).unwrap();
        assert_eq!(
            metrics(&line_of(Verdict::Verified)),
            ["function=guard,account=123456789012,verdict=verified Registrations 1 Count"]
        );
        assert!(line_of(Verdict::Ignored).get("_aws").is_none());
    }

    #[test]
    fn a_failure_is_counted_by_its_code_and_says_which_event_it_was() {
        let message = "another invocation is processing ami-1";
        let failure = Failure {
            event_id: Some("e-1"),
            image_id: Some("ami-1"),
            error_type: "Busy",
            message,
            needs_a_person: false,
        };
        let line = line(Line::Failure(failure)).unwrap();
        assert_eq!(
            metrics(&line),
            [
                "function=guard Errors 1 Count",
                "function=guard,error_type=Busy Errors 1 Count",
            ]
        );
        assert_eq!(
            (&line["level"], &line["event_id"]),
            (&json!("WARN"), &json!("e-1"))
        );
        assert_eq!(line["message"], message);
    }

    #[test]
    fn an_invocation_says_what_went_out_and_nothing_if_nothing_did() {
        let tally = CallStats {
            calls: 12,
            throttles: 0,
            alerts: 1,
        };
        assert_eq!(
            metrics(&line(Line::Invocation(tally)).unwrap()),
            [
                "function=guard ApiCalls 12 Count",
                "function=guard Alerts 1 Count"
            ]
        );
        assert_eq!(line(Line::Invocation(CallStats::default())), None);
    }

    #[test]
    fn an_audit_says_what_it_came_to_and_is_a_warning_if_events_do_not_arrive() {
        let mut audit = Audit {
            event_id: "e-1",
            looked_at: 3_000,
            unchanged: 2_990,
            missed: 0,
            mismatches: 7,
            unrecognised: 0,
            complete: true,
        };
        let calm = line(Line::Audit(audit)).unwrap();
        assert_eq!(
            metrics(&calm),
            [
                "function=guard AuditedImages 3000 Count",
                "function=guard AuditMismatches 7 Count"
            ]
        );
        assert_eq!(
            (&calm["level"], &calm["event_id"], &calm["unchanged"]),
            (&json!("INFO"), &json!("e-1"), &json!(2_990))
        );
        (audit.missed, audit.unrecognised, audit.complete) = (2, 1, false);
        let alarming = line(Line::Audit(audit)).unwrap();
        assert_eq!(
            metrics(&alarming)[1..],
            [
                "function=guard MissedImages 2 Count",
                "function=guard AuditMismatches 7 Count",
                "function=guard UnrecognisedBilling 1 Count",
                "function=guard AuditsUnfinished 1 Count"
            ]
        );
        assert_eq!(alarming["level"], "WARN");
    }

    #[test]
    fn a_line_has_the_level_that_it_deserves() {
        let of = |change: fn(&mut Record), verdict| {
            let mut record = record(verdict);
            change(&mut record);
            record.level()
        };
        let wrong = Verdict::Mismatch(Mismatch::Wrong);
        assert_eq!(of(|_| {}, Verdict::Verified), Level::INFO);
        assert_eq!(of(|_| {}, Verdict::Gone), Level::INFO);
        assert_eq!(of(|_| {}, Verdict::Conflict), Level::WARN);
        assert_eq!(of(|_| {}, Verdict::Unverifiable), Level::WARN);
        assert_eq!(of(|_| {}, wrong), Level::WARN);
        assert_eq!(
            of(|it| it.outcome = Some(Outcome::Done), wrong),
            Level::WARN
        );
        assert_eq!(
            of(|it| it.outcome = Some(Outcome::Refused), wrong),
            Level::ERROR
        );
        assert_eq!(
            of(|it| it.outcome = Some(Outcome::Failed), wrong),
            Level::ERROR
        );
        assert_eq!(
            of(|it| it.held_by = vec![Interlock::NobodyListening], wrong),
            Level::ERROR
        );
        assert_eq!(
            of(|it| it.recycle_bin = Some(RecycleBin::Absent), wrong),
            Level::ERROR
        );
    }

    #[test]
    fn nothing_from_outside_breaks_a_line_or_moves_a_cursor() {
        let mut written = Vec::new();
        let hostile = json!({ "name": "x\ny\u{1b}[2J\u{9b}2J\u{2028}\u{202e}\u{85}z" });
        let line = format!("{hostile}\n{hostile}\n");
        InertJson(&mut written).write_all(line.as_bytes()).unwrap();
        let written = String::from_utf8(written).unwrap();
        assert_eq!(written.lines().count(), 2);
        assert!(
            written
                .chars()
                .all(|it| it == '\n' || (' '..='~').contains(&it)),
            "{written:?}"
        );
        for line in written.lines() {
            assert_eq!(serde_json::from_str::<Value>(line).unwrap(), hostile);
        }
    }
}
