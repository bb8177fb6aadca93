//! The report: one HTML page about all AMIs of an account, which needs no network.
//!
//! Each row is written as it arrives, before the page's text. Only a few sums are kept of the rows, so the memory does
//! not grow with the account. A script shows the rows in pages. Sums, chart and matrix work without the script.

mod chart;

use std::collections::BTreeMap;
use std::io::{self, Write};

use ami_billing_guard::escape::json_without;
use ami_billing_guard::record::{Actual, Expected};
use askama::Template;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::files::Kind;

/// A report file, recognised by its first line, which `report/head.html` writes.
pub(crate) const REPORT: Kind = Kind {
    option: "--html",
    name: "a report that ami-guard wrote",
    has_first_line: |line| line.trim_end() == FIRST_LINE,
};

const FIRST_LINE: &str = "<!doctype html><!-- A report of ami-guard. -->";

/// The page's style and script. The page's Content Security Policy has their hashes, so that nothing else in the page
/// runs.
const STYLE: &str = include_str!("../templates/report/report.css");
const SCRIPT: &str = include_str!("../templates/report/report.js");

/// Maximum number of rows in a page. Beyond it, only rows with a mismatch or a conflict are added.
const MOST_ROWS: u64 = 20_000;

/// Labels of the matrix: no expectation, and no platform details.
const NOBODY: &str = "(unknown)";
const NOTHING: &str = "(nothing)";

/// Facts about the audit that the report shows.
pub(crate) struct About {
    pub(crate) account: String,
    pub(crate) regions: Vec<String>,
    pub(crate) since: Option<DateTime<Utc>>,
    pub(crate) begun: DateTime<Utc>,
    pub(crate) ended: DateTime<Utc>,
    pub(crate) policy: String,
    /// Regions that were not examined, and why.
    pub(crate) gaps: Vec<String>,
}

/// The part of an AMI's record that the report shows. Absent values are omitted to keep the page small. Rows of older
/// and newer versions may have fewer or more keys.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Row {
    image_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    registered_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot_id: Option<String>,
    verdict: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actual: Option<Actual>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<Expected>,
    #[serde(default)]
    evidence: Vec<Statement>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(default)]
    held_by: Vec<String>,
    #[serde(default)]
    fix: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reserved_instances: Option<Vec<Reserved>>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Statement {
    source: String,
    state: String,
    #[serde(default)]
    says: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    product_codes: Option<Vec<String>>,
    detail: Option<String>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Reserved {
    id: String,
    instance_type: String,
    count: i32,
    platform: String,
}

impl Row {
    fn label(&self) -> String {
        match &self.kind {
            Some(kind) => format!("{}/{kind}", self.verdict),
            None => self.verdict.clone(),
        }
    }

    fn bills(&self) -> &str {
        let details = self.actual.as_ref();
        match details.and_then(|actual| actual.platform_details.as_deref()) {
            None | Some("") => NOTHING,
            Some(details) => details,
        }
    }

    fn should_bill(&self) -> String {
        match &self.expected {
            Some(expected) => expected.text(),
            None => NOBODY.into(),
        }
    }
}

/// Sums of the rows.
#[derive(Default)]
struct Sums {
    all: u64,
    left_out: u64,
    labels: BTreeMap<String, u64>,
    /// Number of AMIs by month of registration, then by verdict.
    months: BTreeMap<String, BTreeMap<String, u64>>,
    /// Number of AMIs, and number of verified ones, by what they are billed as, then by what is expected.
    matrix: BTreeMap<String, BTreeMap<String, (u64, u64)>>,
    /// Reserved Instances that do not apply, by id: a description, and the number of AMIs.
    reserved: BTreeMap<String, (String, u64)>,
}

impl Sums {
    fn add(&mut self, row: &Row) {
        self.all += 1;
        *self.labels.entry(row.label()).or_default() += 1;
        if let Some(at) = row.registered_at {
            let month = self.months.entry(at.format("%Y-%m").to_string());
            *month.or_default().entry(row.verdict.clone()).or_default() += 1;
        }
        if row.actual.is_some() {
            let line = self.matrix.entry(row.bills().to_owned()).or_default();
            let (all, right) = line.entry(row.should_bill()).or_default();
            *all += 1;
            *right += u64::from(row.verdict == "verified");
        }
        for lost in row.reserved_instances.iter().flatten() {
            let (count, kind, platform) = (lost.count, &lost.instance_type, &lost.platform);
            let what = || (format!("{count} × {kind} for {platform}"), 0);
            self.reserved.entry(lost.id.clone()).or_insert_with(what).1 += 1;
        }
    }

    fn of(&self, verdict: &str) -> u64 {
        let labels = self.labels.iter();
        let own = labels.filter(|(label, _)| label.split('/').next() == Some(verdict));
        own.map(|(_, number)| number).sum()
    }
}

#[derive(Template)]
#[template(path = "report/head.html")]
struct Head {
    first_line: &'static str,
    style: &'static str,
    /// Hashes of the style and the script, for the page's Content Security Policy.
    style_hash: String,
    script_hash: String,
}

#[derive(Template)]
#[template(path = "report/body.html")]
struct Body<'a> {
    script: &'static str,
    about: &'a About,
    all: u64,
    left_out: u64,
    /// Verdict, number of AMIs, share of all AMIs in percent.
    verdicts: Vec<(&'static str, u64, String)>,
    kinds: Vec<(String, u64)>,
    chart: String,
    months: Vec<(String, Vec<u64>)>,
    should: Vec<String>,
    matrix: Vec<(String, Vec<Cell>)>,
    reserved: Vec<(String, String, u64)>,
}

/// A cell of the matrix.
struct Cell {
    should: String,
    number: u64,
    right: u64,
}

/// Verdicts in the totals and the chart, in order. Other verdicts are only in the list of AMIs.
const VERDICTS: [&str; 7] = [
    "verified",
    "mismatch",
    "conflict",
    "unverifiable",
    "exempt",
    "gone",
    "failed",
];

/// Writes the report.
///
/// # Errors
/// The error of reading a row or of writing the page.
pub(crate) fn write<E: From<io::Error>>(
    about: &About,
    rows: impl Iterator<Item = Result<Row, E>>,
    out: &mut impl Write,
) -> Result<(), E> {
    let head = Head {
        first_line: FIRST_LINE,
        style: STYLE,
        style_hash: hash(STYLE),
        script_hash: hash(SCRIPT),
    };
    out.write_all(rendered(&head)?.as_bytes())?;
    let mut sums = Sums::default();
    let mut written = 0_u64;
    for row in rows {
        let row = row?;
        sums.add(&row);
        let wrong = matches!(row.verdict.as_str(), "mismatch" | "conflict");
        if written >= MOST_ROWS && !wrong {
            sums.left_out += 1;
            continue;
        }
        let comma = if written == 0 { "" } else { ",\n" };
        write!(out, "{comma}{}", embedded(&row)?)?;
        written += 1;
    }
    let body = Body::of(about, sums)?;
    out.write_all(rendered(&body)?.as_bytes())?;
    Ok(())
}

/// A row as JSON that cannot end the HTML element around it, even with untrusted text.
fn embedded(row: &Row) -> io::Result<String> {
    let json = serde_json::to_string(row)?;
    Ok(json_without(&json, |letter| {
        !matches!(letter, ' '..='~') || matches!(letter, '<' | '>' | '&')
    }))
}

/// The source expression that allows only the inline element with this content. (Content Security Policy Level 3,
/// "hash-source": <https://www.w3.org/TR/CSP3/#grammardef-hash-source>.)
fn hash(content: &str) -> String {
    format!(
        "'sha256-{}'",
        BASE64_STANDARD.encode(Sha256::digest(content))
    )
}

fn rendered(template: &impl Template) -> io::Result<String> {
    template.render().map_err(io::Error::other)
}

impl<'a> Body<'a> {
    fn of(about: &'a About, sums: Sums) -> io::Result<Body<'a>> {
        let share = |number: u64| match sums.all {
            0 => "0".to_owned(),
            all => format!("{:.1}", number as f64 * 100.0 / all as f64),
        };
        let verdicts = VERDICTS.map(|verdict| {
            let number = sums.of(verdict);
            (verdict, number, share(number))
        });
        let shown = |(_, number, _): &(&str, u64, String)| *number > 0;
        let kinds = sums.labels.iter().filter(|(label, _)| label.contains('/'));
        let mut should: Vec<String> = sums
            .matrix
            .values()
            .flat_map(|line| line.keys().cloned())
            .collect();
        should.sort();
        should.dedup();
        let matrix = sums.matrix.iter().map(|(bills, line)| {
            let cells = should.iter().map(|should| {
                let (number, right) = line.get(should).copied().unwrap_or_default();
                let should = should.clone();
                Cell {
                    should,
                    number,
                    right,
                }
            });
            (bills.clone(), cells.collect())
        });
        let months = sums.months.iter().map(|(month, numbers)| {
            let number = |verdict: &&str| numbers.get(*verdict).copied().unwrap_or_default();
            (month.clone(), VERDICTS.iter().map(number).collect())
        });
        Ok(Body {
            script: SCRIPT,
            about,
            all: sums.all,
            left_out: sums.left_out,
            kinds: kinds
                .map(|(label, number)| (label.clone(), *number))
                .collect(),
            chart: chart::of(&sums.months, &VERDICTS).map_err(io::Error::other)?,
            months: months.collect(),
            matrix: matrix.collect(),
            reserved: sums
                .reserved
                .iter()
                .map(|(id, (what, number))| (id.clone(), what.clone(), *number))
                .collect(),
            verdicts: verdicts.into_iter().filter(shown).collect(),
            should,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ami_billing_guard::Clock;

    fn page(rows: impl Iterator<Item = Row>) -> String {
        let about = About {
            account: "123456789012".into(),
            regions: vec!["eu-west-1".into()],
            since: None,
            begun: Clock::SYSTEM.now(),
            ended: Clock::SYSTEM.now(),
            policy: "</script>.toml".into(),
            gaps: vec!["us-east-1: <denied>".into()],
        };
        let mut out = Vec::new();
        write(&about, rows.map(Ok::<Row, io::Error>), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn row(number: u64, verdict: &str) -> Row {
        let row =
            serde_json::json!({ "image_id": format!("ami-{number:017x}"), "verdict": verdict });
        serde_json::from_value(row).unwrap()
    }

    #[test]
    fn of_very_many_images_those_that_are_not_wrong_are_counted_and_left_out() {
        let verified = (0..MOST_ROWS + 10).map(|number| row(number, "verified"));
        let after = [
            row(MOST_ROWS + 10, "mismatch"),
            row(MOST_ROWS + 11, "conflict"),
        ];
        let page = page(verified.chain(after));
        assert!(
            page.contains("20012 AMIs")
                && page.contains("10 AMIs without a mismatch or a conflict are counted")
        );
        assert_eq!(page.matches("{\"image_id\":").count(), 20_002);
    }

    /// The content of the page's only element of this kind.
    fn content<'a>(page: &'a str, open: &str, close: &str) -> &'a str {
        assert_eq!(page.matches(open).count(), 1, "{open}");
        let (_, rest) = page.split_once(open).unwrap();
        rest.split_once(close).unwrap().0
    }

    #[test]
    fn regression_the_page_s_policy_allows_its_own_script_and_style_and_nothing_else() {
        let mut old = row(1, "mismatch");
        old.registered_at = Some(Clock::SYSTEM.now());
        let page = page([old].into_iter());
        assert!(page.contains("<svg"), "a chart");
        let policy = content(
            &page,
            "http-equiv=\"Content-Security-Policy\" content=\"",
            "\"",
        );
        let allowed = |directive: &str| {
            let mut all = policy.split("; ");
            all.find_map(|it| it.strip_prefix(directive))
                .unwrap()
                .trim()
        };
        assert_eq!(allowed("default-src"), "'none'");
        assert_eq!(
            allowed("style-src"),
            hash(content(&page, "<style>", "</style>"))
        );
        assert_eq!(
            allowed("script-src"),
            hash(content(&page, "<script>", "</script>"))
        );
        // The rows are data, to which the policy does not apply. The policy would block style and script in attributes.
        assert_eq!(page.matches("<script").count(), 2);
        assert_eq!(page.matches("<style").count(), 1);
        let outside = page
            .replace(content(&page, "<style>", "</style>"), "")
            .replace(content(&page, "<script>", "</script>"), "");
        assert!(!outside.contains(" style="));
        let handler = |word: &str| word.starts_with("on") && word.contains("=\"");
        assert!(!outside.split_whitespace().any(handler));
    }

    #[test]
    fn a_report_is_known_by_its_first_line() {
        let page = page(std::iter::empty());
        let first = page.split_inclusive('\n').next().unwrap();
        assert!((REPORT.has_first_line)(first), "{first}");
        for other in ["<!doctype html>\n", "", "-----BEGIN PRIVATE KEY-----\n"] {
            assert!(!(REPORT.has_first_line)(other), "{other}");
        }
    }

    #[test]
    fn strangers_end_no_element_and_begin_none() {
        let mut hostile = row(1, "mismatch");
        hostile.name = Some("</script><b>\u{2028}".into());
        let page = page([hostile].into_iter());
        assert_eq!(page.matches("</script>").count(), 2);
        assert!(!page.contains("<b>\u{2028}") && !page.contains("<denied>"));
        assert!(page.contains("\\u003c/script\\u003e\\u003cb\\u003e\\u2028"));
    }

    #[test]
    fn an_account_without_images_has_a_page_too() {
        let page = page(std::iter::empty());
        assert!(page.contains("0 AMIs") && page.trim_end().ends_with("</html>"));
    }
}
