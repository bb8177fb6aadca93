//! `ami-guard policy`: whether a file is a valid policy, whether it judges AMIs as its authors intend, which rules an
//! audit suggests, and the JSON Schema of policies.

use std::io::Write;
use std::path::{Path, PathBuf};

use ami_billing_guard::cases::Case;
use ami_billing_guard::policy::{Policy, schema};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::account::{read, read_policy};
use crate::outcome::{CliError, Outcome};
use crate::show::{json, lines, shown};
use crate::suggest;

/// What to do with a policy.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Report every fault of a policy file
    #[command(after_help = CHECK)]
    Check {
        /// The policy file
        file: PathBuf,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Judge described AMIs by a policy file, and compare the results with the expected ones
    #[command(after_help = TEST)]
    Test {
        /// The policy file
        file: PathBuf,
        /// The described AMIs, each with the expected result; see docs/cli.md
        #[arg(long, value_name = "FILE")]
        cases: PathBuf,
        /// Print the result as JSON, one case per line
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of a policy, for editors
    #[command(after_help = SCHEMA)]
    Schema,
    /// Suggest rules for the AMIs that no source says anything about
    // Boxed because its options are many.
    Suggest(Box<suggest::Arguments>),
}

const CHECK: &str = "\
Exit codes:
  0  the file is a valid policy
  1  the file has faults
  2  the command line is not valid, or the file cannot be read";

const TEST: &str = "\
Exit codes:
  0  every case has the expected result
  1  a case has another result
  2  the command line, the policy or the cases are not valid

Needs no account and no AMI.";

const SCHEMA: &str = "\
An editor that knows JSON Schema for TOML completes and checks a policy that begins with:
  #:schema ./policy.schema.json

The schema cannot find every fault. Before you deploy a policy, run ami-guard policy check.";

pub(crate) async fn run(arguments: Arguments, out: &mut dyn Write) -> Result<Outcome, CliError> {
    match arguments.command {
        Command::Check { file, json } => check(&file, json, out),
        Command::Test { file, cases, json } => test(&file, &cases, json, out),
        Command::Suggest(arguments) => suggest::run(*arguments, out).await,
        Command::Schema => {
            out.write_all(schema_text()?.as_bytes())?;
            Ok(Outcome::Good)
        }
    }
}

/// The JSON Schema of a policy, as the file that the policy's first line names.
pub(crate) fn schema_text() -> Result<String, CliError> {
    let text = serde_json::to_string_pretty(&schema());
    let text = text.map_err(|error| CliError::Unknown(error.to_string()))?;
    Ok(text + "\n")
}

fn check(file: &Path, as_json: bool, out: &mut dyn Write) -> Result<Outcome, CliError> {
    let name = file.display().to_string();
    let faults = match Policy::parse(&name, &read(file)?) {
        Ok(_) => Vec::new(),
        Err(error) => error.faults().to_vec(),
    };
    let text = if as_json {
        json(&json!({ "file": name, "faults": faults }))?
    } else if faults.is_empty() {
        format!("{}: no faults\n", shown(&name))
    } else {
        format!("{}\n", lines(&faults.join("\n")))
    };
    out.write_all(text.as_bytes())?;
    Ok(match faults.is_empty() {
        true => Outcome::Good,
        false => Outcome::Mismatch,
    })
}

fn test(
    file: &Path,
    cases: &Path,
    as_json: bool,
    out: &mut dyn Write,
) -> Result<Outcome, CliError> {
    let policy = read_policy(file)?;
    let cases = Case::parse_all(&cases.display().to_string(), &read(cases)?);
    let cases = cases.map_err(CliError::Usage)?;
    let mut failed = 0;
    for case in &cases {
        let tried = case.judge(&policy);
        let wrong = case.differences(&tried);
        failed += usize::from(!wrong.is_empty());
        let name = case.name();
        let text = if as_json {
            json(
                &json!({ "case": name, "passed": wrong.is_empty(), "differences": wrong, "got": tried }),
            )?
        } else {
            let word = if wrong.is_empty() { "ok" } else { "FAILED" };
            let mut text = format!("{word:<6}  {}\n", shown(name));
            for difference in &wrong {
                text.push_str(&format!("        {}\n", shown(difference)));
            }
            if !wrong.is_empty() {
                text.push_str(&format!("        reason: {}\n", shown(&tried.reason)));
            }
            text
        };
        out.write_all(text.as_bytes())?;
    }
    if !as_json {
        let all = cases.len();
        writeln!(out, "{} of {all} cases as expected", all - failed)?;
    }
    Ok(match failed {
        0 => Outcome::Good,
        _ => Outcome::Mismatch,
    })
}
