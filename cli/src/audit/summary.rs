//! Result of an audit for people: a table and its totals.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};

use comfy_table::presets::{NOTHING, UTF8_FULL_CONDENSED};
use comfy_table::{ContentArrangement, Table};

use super::journal::Page;
use super::row::Listed;
use crate::outcome::{CliError, Outcome};
use crate::show::{self, shown};

/// Maximum number of rows in one table. A table keeps its rows in memory until it is printed.
const IN_A_TABLE: usize = 500;

/// The totals.
pub(super) struct Summary {
    text: bool,
    all: bool,
    table: Vec<Listed>,
    labels: BTreeMap<String, u64>,
    discarded: u64,
    /// Number of discards that were due but failed.
    stuck: u64,
    /// Reserved Instances that do not apply, by id: a description, and the number of AMIs.
    lost: BTreeMap<String, (String, u64)>,
    unknown: bool,
}

impl Summary {
    /// Empty totals. `text` prints a table, and `all` lists every AMI in it.
    pub(super) fn new(text: bool, all: bool) -> Summary {
        Summary {
            text,
            all,
            table: Vec::new(),
            labels: BTreeMap::new(),
            discarded: 0,
            stuck: 0,
            lost: BTreeMap::new(),
            unknown: false,
        }
    }

    /// Adds a row.
    pub(super) fn add(&mut self, row: Listed, out: &mut dyn Write) -> Result<(), CliError> {
        *self.labels.entry(row.label()).or_default() += 1;
        self.discarded += u64::from(row.outcome.as_deref() == Some("done"));
        let due = matches!(row.action.as_deref(), Some("deregister" | "disable"));
        let failed = matches!(row.outcome.as_deref(), Some("refused" | "failed"));
        self.stuck += u64::from(due && (failed || row.error.is_some()));
        for lost in row.reserved_instances.iter().flatten() {
            let (id, kind, platform) = (&lost.id, &lost.instance_type, &lost.platform);
            let what = format!("{} × {kind} for {platform} ({id})", lost.count);
            self.lost.entry(id.clone()).or_insert((what, 0)).1 += 1;
        }
        if self.text && (self.all || row.needs_attention()) {
            self.table.push(row);
        }
        match self.table.len() {
            IN_A_TABLE => self.print(out),
            _ => Ok(()),
        }
    }

    fn print(&mut self, out: &mut dyn Write) -> Result<(), CliError> {
        if self.table.is_empty() {
            return Ok(());
        }
        let mut table = Table::new();
        let terminal = io::stdout().is_terminal();
        table.load_style(if terminal {
            UTF8_FULL_CONDENSED
        } else {
            NOTHING
        });
        table.set_content_arrangement(match terminal {
            true => ContentArrangement::Dynamic,
            false => ContentArrangement::Disabled,
        });
        table.set_header(["AMI", "Region", "Verdict", "Billed as", "Expected", "Name"]);
        for row in self.table.drain(..) {
            let cell = |text: Option<&str>| shown(text.unwrap_or("-"));
            let label = row.label();
            table.add_row([
                cell(row.image_id.as_deref()),
                cell(row.region.as_deref()),
                show::verdict(&row.verdict, &label),
                match &row.actual {
                    Some(actual) => show::bills(actual),
                    None => "-".into(),
                },
                match &row.expected {
                    Some(expected) => shown(&expected.text()),
                    None => "-".into(),
                },
                cell(row.name.as_deref()),
            ]);
        }
        writeln!(out, "{}", table.trim_fmt())?;
        Ok(())
    }

    /// Prints the rest of the table, and the totals. If the rows are JSON, the totals go to standard error.
    pub(super) fn end<'a>(
        &mut self,
        pages: impl Iterator<Item = &'a Page>,
        out: &mut dyn Write,
    ) -> Result<(), CliError> {
        self.print(out)?;
        let mut text = String::new();
        let all: u64 = self.labels.values().sum();
        let labels: Vec<String> = self
            .labels
            .iter()
            .map(|(label, number)| format!("{number} {}", shown(label)))
            .collect();
        let labels = match labels.is_empty() {
            true => String::new(),
            false => format!(": {}", labels.join(", ")),
        };
        text.push_str(&format!("{}{labels}\n", amis(all)));
        if self.discarded > 0 {
            text.push_str(&format!(
                "{} discarded. To restore one, run ami-guard restore <AMI>\n",
                amis(self.discarded)
            ));
        }
        if self.stuck > 0 {
            let stuck = amis(self.stuck);
            text.push_str(&format!(
                "{stuck} not discarded, although due. See the records (--json)\n"
            ));
            self.unknown = true;
        }
        for (what, number) in self.lost.values() {
            text.push_str(&format!(
                "Reserved Instances: {} do not apply to {}, but would if billed as expected\n",
                shown(what),
                amis(*number)
            ));
        }
        let pages: Vec<&Page> = pages.collect();
        let underway: usize = pages.iter().map(|page| page.underway).sum();
        if underway > 0 {
            text.push_str(&format!(
                "{underway} more are pending and were not judged\n"
            ));
            self.unknown = true;
        }
        for page in pages {
            if let Some(why) = &page.failed {
                text.push_str(&format!(
                    "{} was not audited: {}\n",
                    page.region,
                    shown(why)
                ));
                self.unknown = true;
            }
        }
        match self.text {
            true => out.write_all(text.as_bytes())?,
            false => io::stderr().write_all(text.as_bytes()).unwrap_or_default(),
        }
        Ok(())
    }

    /// The exit code of the audit. AMIs that are gone or failed do not count, because they cannot be launched.
    pub(super) fn outcome(&self) -> Outcome {
        let found = |prefix: &str| self.labels.keys().any(|label| label.starts_with(prefix));
        if found("mismatch") {
            Outcome::Mismatch
        } else if self.unknown || found("conflict") || found("unverifiable") {
            Outcome::Unknown
        } else {
            Outcome::Good
        }
    }
}

fn amis(number: u64) -> String {
    match number {
        1 => "1 AMI".into(),
        number => format!("{number} AMIs"),
    }
}
