//! `ami-guard explain`: what each source expects an AMI to be billed as, and which source decides.

use std::io::Write;
use std::time::Duration;

use ami_billing_guard::ids::AmiId;
use ami_billing_guard::policy::{Asked, Policy};
use ami_billing_guard::record::why_held;
use ami_billing_guard::record::{Record, Statement};
use clap::Args;

use crate::account::GuardArgs;
use crate::check::consider;
use crate::outcome::{CliError, Outcome};
use crate::show::{bills, headline, json, shown, would_do};

const AFTER: &str = "\
Exit codes:
  0  the AMI is billed as expected, or is exempt
  1  it is not billed as expected
  2  the command line or the policy is not valid
  3  it is unknown how the AMI is billed or what is expected

Nothing is changed.";

/// What to explain.
#[derive(Args)]
#[command(after_help = AFTER)]
pub(crate) struct Arguments {
    /// The AMI
    #[arg(value_name = "AMI")]
    image: AmiId,
    #[command(flatten)]
    guarding: GuardArgs,
    /// Print the record as JSON
    #[arg(long)]
    json: bool,
}

/// Explains the verdict on an AMI.
pub(crate) async fn run(arguments: Arguments, out: &mut dyn Write) -> Result<Outcome, CliError> {
    let session = arguments.guarding.begin(Duration::ZERO).await?;
    let record = match consider(&session, &arguments.image).await {
        Ok(record) => record,
        Err(outcome) => return Ok(outcome),
    };
    let text = match arguments.json {
        true => json(&record)?,
        false => tree(&record, &session.policy),
    };
    out.write_all(text.as_bytes())?;
    Ok(Outcome::of(record.verdict))
}

/// A line of a tree, and its sub-branches.
struct Branch {
    line: String,
    branches: Vec<Branch>,
}

fn leaf(line: impl Into<String>) -> Branch {
    Branch {
        line: line.into(),
        branches: Vec::new(),
    }
}

fn tree(record: &Record, policy: &Policy) -> String {
    let mut branches = Vec::new();
    if let Some(actual) = &record.actual {
        branches.push(leaf(format!("billed as {}", bills(actual))));
    }
    if !record.evidence.is_empty() {
        let decides = record.expected.as_ref().map(|expected| expected.source);
        // A source may make several statements. The first one that names a platform decides.
        let spoke = |codes: bool| {
            record.evidence.iter().position(|statement| {
                Some(statement.source) == decides
                    && statement.state == "found"
                    && statement.product_codes.is_some() == codes
            })
        };
        let decisive = match record.product_codes_differ() {
            true => spoke(true).or_else(|| spoke(false)),
            false => spoke(false).or_else(|| spoke(true)),
        };
        let statements = record.evidence.iter().enumerate();
        branches.push(Branch {
            line: "expected, the strongest source first".into(),
            branches: statements
                .map(|(number, statement)| {
                    source(
                        statement,
                        policy,
                        Some(number) == decisive,
                        decisive.is_some(),
                    )
                })
                .collect(),
        });
    }
    branches.push(leaf(format!(
        "verdict: {}: {}",
        record.verdict.label(),
        shown(&record.reason)
    )));
    branches.push(Branch {
        line: format!("the guard {}", would_do(record)),
        branches: record
            .held_by
            .iter()
            .map(|interlock| {
                let why = shown(&why_held(record, *interlock));
                leaf(format!("{interlock}: {why}"))
            })
            .collect(),
    });
    let mut text = format!("{}\n", headline(record));
    draw(&branches, "", &mut text);
    text
}

fn source(statement: &Statement, policy: &Policy, decides: bool, decided: bool) -> Branch {
    let says = match statement.state {
        "found" => shown(&statement.text()),
        state => state.replace('-', " "),
    };
    let mark = if decides { "  ← decides" } else { "" };
    let source = statement.source.name();
    let mut branches = vec![leaf(shown(&statement.detail))];
    if let ("skipped", Some(asked)) = (statement.state, statement.source.asked(policy)) {
        let key = format!("evidence.{source}");
        branches.push(leaf(match asked {
            Asked::Never => format!("the policy's {key} is \"never\""),
            _ if decided => {
                format!("the policy's {key} is \"when-needed\": a stronger source decides, and no discard is due")
            }
            _ => format!("the policy's {key} did not require it"),
        }));
    }
    Branch {
        line: format!("{source}: {says}{mark}"),
        branches,
    }
}

fn draw(branches: &[Branch], indent: &str, text: &mut String) {
    for (number, branch) in branches.iter().enumerate() {
        let (fork, below) = match number + 1 == branches.len() {
            true => ("└─ ", "   "),
            false => ("├─ ", "│  "),
        };
        text.push_str(&format!("{indent}{fork}{}\n", branch.line));
        draw(&branch.branches, &format!("{indent}{below}"), text);
    }
}
