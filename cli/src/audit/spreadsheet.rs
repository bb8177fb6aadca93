//! The records of an audit as CSV, for spreadsheets.
//!
//! A spreadsheet runs a cell as a formula if it begins with certain characters. Names, tags and errors are untrusted, so
//! such a cell gets an apostrophe in front, which makes it text. (OWASP, "CSV Injection".)

use std::io::{self, Write};

use serde_json::Value;

use crate::files::Kind;
use crate::outcome::CliError;

/// A CSV file, recognised by its header row.
pub(super) const CSV: Kind = Kind {
    option: "--csv",
    name: "a CSV file that ami-guard wrote",
    has_first_line: |line| line.starts_with(FIRST_COLUMNS),
};

/// Beginning of the header row. Later versions may append columns.
const FIRST_COLUMNS: &str =
    "image_id,name,account,region,registered_at,snapshot_id,verdict,kind,reason,";

/// The columns: keys of the record. A dot separates a key within an object.
const COLUMNS: [&str; 20] = [
    "image_id",
    "name",
    "account",
    "region",
    "registered_at",
    "snapshot_id",
    "verdict",
    "kind",
    "reason",
    "actual.platform_details",
    "actual.usage_operation",
    "actual.product_codes",
    "expected.platform",
    "expected.source",
    "expected.product_codes",
    "action",
    "outcome",
    "held_by",
    "error",
    "fix",
];

/// Writes the header row, and a row for each record.
///
/// # Errors
/// The error of reading a record or of writing the file.
pub(super) fn write(
    records: impl Iterator<Item = Result<Value, CliError>>,
    out: &mut impl Write,
) -> Result<(), CliError> {
    let mut table = csv::Writer::from_writer(out);
    table.write_record(COLUMNS).map_err(io::Error::from)?;
    for record in records {
        let record = record?;
        let cells = COLUMNS.map(|column| harmless(&cell(&record, column)));
        table.write_record(cells).map_err(io::Error::from)?;
    }
    table.flush()?;
    Ok(())
}

/// The text of a member of a record. A member that is absent or null is empty.
fn cell(record: &Value, column: &str) -> String {
    let mut keys = column.split('.');
    let member = keys.try_fold(record, |value, key| value.get(key));
    member.map(text).unwrap_or_default()
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(values) => {
            let texts: Vec<String> = values.iter().map(text).collect();
            texts.join("; ")
        }
        other => other.to_string(),
    }
}

/// Characters with which a formula begins, also in their full-width forms.
const FORMULA: &str = "=+-@＝＋－＠";

/// Makes a text harmless for a spreadsheet, also for one that takes semicolons as the separator. Escapes control
/// characters.
fn harmless(text: &str) -> String {
    let mut cell = String::new();
    let mut may_begin = true;
    for letter in text.chars() {
        if may_begin && FORMULA.contains(letter) {
            cell.push('\'');
        }
        may_begin = matches!(letter, ',' | ';') || (may_begin && matches!(letter, ' ' | '"'));
        match letter.is_control() {
            true => cell.extend(letter.escape_debug()),
            false => cell.push(letter),
        }
    }
    cell
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_that_a_spreadsheet_would_run_as_a_formula_is_text() {
        for (hostile, cell) in [
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-2+cmd|' /C calc'!A0", "'-2+cmd|' /C calc'!A0"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("＝1", "'＝1"),
            ("  =1", "  '=1"),
            ("\"=1\"", "\"'=1\""),
            ("\t=1", "\\t=1"),
            ("a;=1", "a;'=1"),
            ("a, \"@b", "a, \"'@b"),
            ("a\r\n=1", "a\\r\\n=1"),
            ("\u{1b}[2J", "\\u{1b}[2J"),
        ] {
            assert_eq!(harmless(hostile), cell, "{hostile:?}");
        }
        for ordinary in [
            "",
            "win2022-golden",
            "a=b",
            "rhel 9 - base",
            "Müller's",
            "x@y",
        ] {
            assert_eq!(harmless(ordinary), ordinary);
        }
    }

    #[test]
    fn a_file_is_recognised_by_its_own_header_row() {
        let mut out = Vec::new();
        write(std::iter::empty(), &mut out).unwrap();
        let header = String::from_utf8(out).unwrap();
        assert!((CSV.has_first_line)(&header), "{header}");
        for other in ["", "image_id,name\n", "-----BEGIN PRIVATE KEY-----\n"] {
            assert!(!(CSV.has_first_line)(other), "{other}");
        }
    }
}
