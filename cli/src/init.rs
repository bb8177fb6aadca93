//! `ami-guard init`: writes a policy, cases that test it, and a workflow that runs both checks.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ami_billing_guard::escape::shell_quoted;
use clap::Args;

use crate::outcome::{CliError, Outcome};
use crate::policy::schema_text;
use crate::show::shown;

const AFTER: &str = "\
The files are:
  policy.toml         the built-in policy, with a comment on each value
  cases.toml          AMIs that are described, and what the policy is meant to make of each
  policy.schema.json  the schema by which an editor completes and checks policy.toml
  ami-guard.yml       a workflow of GitHub Actions that runs policy check and policy test

If one of them exists already, nothing is written. Needs no account.

Exit codes:
  0  the files were written
  2  the command line is not valid, a file exists already, or the folder cannot be written";

/// The policy that is shipped, which is the built-in one.
const POLICY: &str = include_str!("../../policy/policy.toml");
const CASES: &str = include_str!("../templates/init/cases.toml");
const WORKFLOW: &str = include_str!("../templates/init/ami-guard.yml");

/// Where to write.
#[derive(Args)]
#[command(after_help = AFTER)]
pub(crate) struct Arguments {
    /// The folder for the files, which is created if it does not exist
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,
}

/// Writes the files.
pub(crate) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<Outcome, CliError> {
    let schema = schema_text()?;
    let files = [
        ("policy.toml", POLICY),
        ("cases.toml", CASES),
        ("policy.schema.json", &schema),
        ("ami-guard.yml", WORKFLOW),
    ];
    let files = files.map(|(name, text)| (arguments.folder.join(name), text));
    let there: Vec<String> = files
        .iter()
        // A link that leads nowhere is there too.
        .filter(|(path, _)| std::fs::symlink_metadata(path).is_ok())
        .map(|(path, _)| format!("{:?}", path.display().to_string()))
        .collect();
    if !there.is_empty() {
        let (files, exist) = (
            there.join(", "),
            if there.len() == 1 { "exists" } else { "exist" },
        );
        return Err(CliError::Usage(format!(
            "{files} {exist} already. Nothing was written. Name another folder, or move the files away"
        )));
    }
    std::fs::create_dir_all(&arguments.folder)
        .map_err(|error| unwritten(&arguments.folder, &error))?;
    for (number, (path, text)) in files.iter().enumerate() {
        if let Err(error) = write(path, text) {
            // Those before it were written just now.
            for (path, _) in files.iter().take(number) {
                let _ = std::fs::remove_file(path);
            }
            return Err(unwritten(path, &error));
        }
    }
    out.write_all(next(&files.map(|(path, _)| path)).as_bytes())?;
    Ok(Outcome::Good)
}

/// Writes a new file. One that cannot be written whole does not stay.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).create_new(true).open(path)?;
    let written = file.write_all(text.as_bytes());
    if written.is_err() {
        let _ = std::fs::remove_file(path);
    }
    written
}

fn unwritten(path: &Path, error: &io::Error) -> CliError {
    let path = path.display().to_string();
    CliError::Usage(format!(
        "{path:?} cannot be written: {error}. Nothing was written"
    ))
}

/// A path as one word of a shell, which is not taken for an option.
fn word(path: &Path) -> String {
    let path = shown(&path.display().to_string());
    let path = match path.starts_with('-') {
        true => format!("./{path}"),
        false => path,
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"./_-".contains(&byte);
    match path.bytes().all(plain) {
        true => path,
        false => shell_quoted(&path),
    }
}

/// What was written, and what to do next.
fn next(paths: &[PathBuf; 4]) -> String {
    let [policy, cases, schema, workflow] = paths.each_ref().map(|path| word(path));
    format!(
        "Wrote {policy}, {cases}, {schema} and {workflow}.\n\
         \n\
         Next:\n  \
         1. Add your rules to the policy, and a case for each. Check both:\n     \
            ami-guard policy check {policy}\n     \
            ami-guard policy test {policy} --cases {cases}\n  \
         2. See what the policy makes of your AMIs. This changes nothing:\n     \
            ami-guard audit --policy {policy}\n  \
         3. For CI, put your repository's values into the workflow, and move it to .github/workflows.\n  \
         4. To deploy the policy, replace policy/policy.toml of ami-billing-guard with it. Deploy the stack again.\n"
    )
}
