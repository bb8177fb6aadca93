//! `ami-guard restore`: restores a discarded AMI.

use std::io::Write;

use ami_billing_guard::BroughtBack;
use ami_billing_guard::ids::AmiId;
use clap::Args;
use serde_json::json;

use crate::account::Credentials;
use crate::outcome::{CliError, Outcome};
use crate::show;

const AFTER: &str = "\
Exit codes:
  0  the AMI can be launched
  2  the command line is not valid
  3  the AMI could not be restored

A deregistered AMI is restored from the Recycle Bin with its tags. A disabled AMI is enabled, and you have to set its \
launch permissions again. The guard does not discard a restored AMI again while its \
ledger remembers the discard. Needs ec2:DescribeImages, \
ec2:ListImagesInRecycleBin, ec2:RestoreImageFromRecycleBin and ec2:EnableImage.";

/// What to bring back.
#[derive(Args)]
#[command(after_help = AFTER)]
pub(crate) struct Arguments {
    /// The AMI
    #[arg(value_name = "AMI")]
    image: AmiId,
    #[command(flatten)]
    credentials: Credentials,
    /// Show what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Restores an AMI.
pub(crate) async fn run(arguments: Arguments, out: &mut dyn Write) -> Result<Outcome, CliError> {
    let aws = arguments.credentials.connect().await?;
    let image = &arguments.image;
    let done = aws.bring_back(image, arguments.dry_run).await?;
    let (word, then) = match done {
        BroughtBack::FromRecycleBin => (
            "restored",
            "It is billed as before, and the guard does not discard it again. If you do not want it, deregister it \
             yourself.",
        ),
        BroughtBack::Enabled => (
            "enabled",
            "Disabling it removed its launch permissions. The alert has the commands that set them again.",
        ),
        BroughtBack::WasThere => ("available", "Nothing was changed."),
    };
    let text = if arguments.json {
        show::json(&json!({
            "image_id": image.as_str(),
            "region": aws.region(),
            "was": match done {
                BroughtBack::FromRecycleBin => "in-recycle-bin",
                BroughtBack::Enabled => "disabled",
                BroughtBack::WasThere => "available",
            },
            "dry_run": arguments.dry_run,
        }))?
    } else if arguments.dry_run && done != BroughtBack::WasThere {
        format!("{image} would be {word}. Nothing was changed.\n")
    } else {
        format!("{image} is {word}. {then}\n")
    };
    out.write_all(text.as_bytes())?;
    Ok(Outcome::Good)
}
