//! Output formats: for a terminal, for text elsewhere, and for programs. Untrusted text from names, tags and disks is
//! escaped, so that it cannot control a terminal.

use std::io::{self, Write};

use ami_billing_guard::escape::json_without;
use ami_billing_guard::plan::{Action, Interlock};
use ami_billing_guard::record::{Actual, Record};
use ami_billing_guard::verdict::Verdict;
use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::outcome::{CliError, Outcome};

/// Escapes untrusted text to one line. Quotes stay as they are.
pub(crate) fn shown(text: &str) -> String {
    let harmless = |letter: char| match letter {
        '"' | '\'' => letter.to_string(),
        letter => letter.escape_debug().to_string(),
    };
    text.chars().map(harmless).collect()
}

/// A command in the form that a shell takes. Unlike [`shown`], keeps backslashes as they are.
pub(crate) fn command(text: &str) -> String {
    shown(text).replace(r"\\", r"\")
}

/// Escapes untrusted text, but keeps its line breaks.
pub(crate) fn lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(shown).collect();
    lines.join("\n")
}

/// Reports a reason on standard error, and returns `outcome`.
pub(crate) fn tell(why: &str, outcome: Outcome) -> Outcome {
    note(why);
    outcome
}

/// Writes a message to standard error.
pub(crate) fn note(what: &str) {
    // Standard error may be closed.
    let _ = writeln!(io::stderr(), "ami-guard: {}", lines(what));
}

/// A line of JSON, in ASCII only, because a terminal may show it.
pub(crate) fn json(value: &impl Serialize) -> Result<String, CliError> {
    let json =
        serde_json::to_string(value).map_err(|error| CliError::Unknown(error.to_string()))?;
    Ok(json_without(&json, |letter| !matches!(letter, ' '..='~')) + "\n")
}

/// A verdict in its colour. The label alone is enough to recognise it.
pub(crate) fn verdict(verdict: &str, label: &str) -> String {
    let colour = match verdict {
        "verified" | "exempt" => AnsiColor::Green,
        "mismatch" => AnsiColor::Red,
        "conflict" | "unverifiable" => AnsiColor::Yellow,
        _ => AnsiColor::BrightBlack,
    };
    let style = Style::new().bold().fg_color(Some(colour.into()));
    format!("{style}{}{style:#}", shown(label))
}

/// The first line about an image.
pub(crate) fn headline(record: &Record) -> String {
    let image = record.image_id.as_deref().unwrap_or("no AMI");
    let verdict = verdict(record.verdict.name(), &record.verdict.label());
    let name = record.name.as_deref().map(shown).unwrap_or_default();
    format!("{image}  {verdict}  {name}").trim_end().to_owned()
}

/// What an image is billed as, in EC2's terms.
pub(crate) fn bills(actual: &Actual) -> String {
    let details = match actual.platform_details.as_deref() {
        None | Some("") => "no platform details".to_owned(),
        Some(details) => shown(details),
    };
    let billed = match actual.usage_operation.as_deref() {
        None | Some("") => details,
        Some(operation) => format!("{details} ({})", shown(operation)),
    };
    if actual.product_codes.is_empty() {
        return billed;
    }
    let codes: Vec<String> = actual.product_codes.iter().map(|it| shown(it)).collect();
    format!("{billed}, product code {}", codes.join(", "))
}

/// What the guard would do about an image, as a sentence.
pub(crate) fn would_do(record: &Record) -> String {
    match record.action {
        // Without an event, the guard does not know who registered the image.
        Action::Hold if record.held_by == [Interlock::IdentityUnknown] => {
            "would send an alert and discard it, unless an AWS service or a caller that a rule names registered it \
             (identity-unknown)"
                .into()
        }
        Action::Deregister => "would send an alert and deregister it".into(),
        Action::Disable => "would send an alert and disable it".into(),
        Action::Alert => "would send an alert and change nothing".into(),
        Action::Hold => {
            let held_by: Vec<String> = record
                .held_by
                .iter()
                .map(|interlock| match (interlock, &record.service) {
                    (Interlock::ServiceRegistered, Some(service)) => {
                        format!("{interlock} ({})", shown(service))
                    }
                    _ => interlock.to_string(),
                })
                .collect();
            format!("would hold its discard: {}", held_by.join(", "))
        }
        Action::None if record.verdict == Verdict::Unverifiable => {
            "would report it in the daily audit".into()
        }
        Action::None => "would do nothing".into(),
    }
}
