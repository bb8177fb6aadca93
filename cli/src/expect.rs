//! `ami-guard expect`: declares what an AMI is expected to be billed as.

use std::io::Write;
use std::time::Duration;

use ami_billing_guard::Error;
use ami_billing_guard::billing::{ACCEPTED_PLATFORMS, Difference, Platforms, platform_meant_by};
use ami_billing_guard::declaration::Declaration;
use ami_billing_guard::expectation::EXPECT_TAG;
use ami_billing_guard::ids::AmiId;
use ami_billing_guard::record::Record;
use ami_billing_guard::verdict::Verdict;
use clap::Args;
use serde_json::json;

use crate::account::GuardArgs;
use crate::confirm;
use crate::outcome::{CliError, Outcome};
use crate::show::{self, bills, command, note, shown, would_do};

const AFTER: &str = "\
A value is an operating system code, platform details or a usage operation:
  Linux, Windows, WindowsByol, RedHat, RedHatHa, RedHatByol, SUSE, UbuntuPro, SQL
  'Windows with SQL Server Standard'
  RunInstances:0010
  'Linux with a product code'
Of several values, any is right.

If the AMI is billed as something else, a guard in enforce mode may discard it at its next event or audit. The command \
then asks before it sets the tag, as it does before it replaces another declaration. Without a terminal, it needs --yes.

Exit codes:
  0  the AMI has the tag
  2  the command line or the policy is not valid, or the tag was not confirmed
  3  the tag could not be set

Needs ec2:CreateTags, and the read permissions that docs/reference/permissions.md lists.";

/// The longest value of a tag, in characters (EC2 User Guide, "Tag restrictions").
const LONGEST: usize = 256;

/// How long to wait for an AMI that was registered just now.
const WAIT: Duration = Duration::from_secs(5);

/// What to declare.
#[derive(Args)]
#[command(after_help = AFTER)]
pub(crate) struct Arguments {
    /// The AMI
    #[arg(value_name = "AMI")]
    image: AmiId,
    /// What the AMI is expected to be billed as
    #[arg(required = true, value_name = "VALUE")]
    values: Vec<String>,
    #[command(flatten)]
    guarding: GuardArgs,
    /// Set the tag without asking, even if the AMI is billed as something else
    #[arg(long)]
    yes: bool,
    /// Show what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Sets the tag.
pub(crate) async fn run(arguments: Arguments, out: &mut dyn Write) -> Result<Outcome, CliError> {
    let (value, platforms) = read(&arguments.values)?;
    let image = &arguments.image;
    let session = arguments.guarding.begin(WAIT).await?;
    let region = session.aws.region().unwrap_or_default();
    let prepared = session
        .guard
        .prepare_declaration(image, &session.account, &value)
        .await;
    let declaration = match prepared {
        Ok(declaration) => declaration,
        // The error's own text is about an event that is delivered again.
        Err(Error::NotVisibleYet { image, why }) => {
            return Err(CliError::Unknown(format!(
                "{image} is not visible in {region}: {why}. Nothing was changed"
            )));
        }
        Err(error) => return Err(CliError::Unknown(format!("{error}. Nothing was changed"))),
    };
    if !session.policy.ask_tags {
        note("the policy has evidence.tags = false, so the guard does not read the tag");
    }
    let is_new = declaration.before.as_deref() != Some(&declaration.value);
    if is_new && !arguments.dry_run {
        let replaces = declaration.before.is_some();
        if (replaces || differs(&declaration.record, &platforms)) && !arguments.yes {
            confirm(&declaration)?;
        }
        session.guard.declare(&declaration).await?;
    }
    let text = match arguments.json {
        true => show::json(&json!({
            "image_id": image.as_str(),
            "region": region,
            "tag": EXPECT_TAG,
            "value": declaration.value,
            "before": declaration.before,
            "changed": is_new && !arguments.dry_run,
            "dry_run": arguments.dry_run,
            "undo": declaration.undo,
            "record": declaration.record,
        }))?,
        false => text(&declaration, is_new, arguments.dry_run),
    };
    out.write_all(text.as_bytes())?;
    Ok(Outcome::Good)
}

/// The tag's value, and what the guard reads in it.
///
/// # Errors
/// [`CliError::Usage`] with the first value that is not accepted, and what is.
fn read(values: &[String]) -> Result<(String, Platforms), CliError> {
    // The guard takes commas for the ends of values.
    let values = values.iter().flat_map(|value| value.split(','));
    let values: Vec<&str> = values.map(str::trim).collect();
    let value = values.join(",");
    let platforms = Platforms::parse(value.split(',')).map_err(|wrong| {
        let meant = platform_meant_by(wrong);
        let meant = meant.map_or(String::new(), |meant| format!(" (did you mean {meant:?}?)"));
        CliError::Usage(format!(
            "{wrong:?} is not accepted{meant}. Accepted: {ACCEPTED_PLATFORMS}"
        ))
    })?;
    match value.chars().count() {
        length if length > LONGEST => Err(CliError::Usage(format!(
            "the values have {length} characters together. Accepted: at most {LONGEST}, because they are one tag"
        ))),
        _ => Ok((value, platforms)),
    }
}

/// Whether an AMI is known to be billed as something else than these platforms, and the guard does not leave it alone.
fn differs(record: &Record, platforms: &Platforms) -> bool {
    let Some(actual) = &record.actual else {
        return false;
    };
    let has_code = !actual.product_codes.is_empty();
    match (record.verdict, actual.billed_as().billing()) {
        (Verdict::Exempt, _) => false,
        (_, Some(billing)) => platforms.difference(&billing, has_code) != Difference::None,
        // Without platform details, the AMI is not billed as anything that can be declared.
        (verdict, None) => matches!(verdict, Verdict::Mismatch(_)),
    }
}

/// Has a person confirm a declaration that replaces another one, or from which the AMI's billing differs.
///
/// # Errors
/// [`CliError::Usage`], if the person does not confirm it, or cannot be asked.
fn confirm(declaration: &Declaration) -> Result<(), CliError> {
    let record = &declaration.record;
    let billed = record.actual.as_ref().map(bills).unwrap_or_default();
    let instead = match &declaration.before {
        Some(before) => format!(" instead of {}", shown(before)),
        None => String::new(),
    };
    let warning = format!(
        "{} is billed as {billed}, and the tag would declare {}{instead}.\nA guard in enforce mode {}.\nThat happens at the \
         next event or audit of the AMI",
        declaration.image,
        shown(&declaration.value),
        would_do(record)
    );
    if !confirm::at_terminal() {
        return Err(CliError::Usage(format!(
            "{warning}.\nNothing was changed. To set the tag nevertheless, add --yes"
        )));
    }
    let answer = confirm::ask(&format!("{warning}.\nSet the tag? Type yes:"))?;
    match answer.as_str() {
        "yes" | "y" => Ok(()),
        _ => Err(CliError::Usage("not confirmed. Nothing was changed".into())),
    }
}

fn text(declaration: &Declaration, is_new: bool, dry_run: bool) -> String {
    let (image, record) = (&declaration.image, &declaration.record);
    let tag = format!("{EXPECT_TAG}={}", shown(&declaration.value));
    let before = match &declaration.before {
        Some(before) => format!("\"{}\"", shown(before)),
        None => "not set".into(),
    };
    let mut text = match (is_new, dry_run) {
        (false, _) => format!("{image} has the tag {tag} already. Nothing was changed.\n"),
        (true, true) => {
            format!("{image} would get the tag {tag}. It is {before} now. Nothing was changed.\n")
        }
        (true, false) => format!("{image} has the tag {tag} now. It was {before} before.\n"),
    };
    let mut line = |what: &str, value: &str| text.push_str(&format!("  {what:<13}{value}\n"));
    if let Some(actual) = &record.actual {
        line("billed as", &bills(actual));
    }
    line("verdict", &record.verdict.label());
    line("why", &shown(&record.reason));
    line("the guard", &would_do(record));
    if is_new && !dry_run {
        line("undo", "run:");
        line("", &command(&declaration.undo));
    }
    text
}
