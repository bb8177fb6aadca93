//! `ami-guard inspect`: the operating system on a disk, and what an AMI of this disk may be billed as.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileTypeExt;
use std::time::Duration;

use ami_billing_guard::escape::json_without;
use ami_billing_guard::ids::AmiId;
use ami_billing_guard::sources::disk::{self as evidence, platforms};
use ami_billing_guard::{Aws, Error};
use clap::{Args, value_parser};
use disk::contained::{Blocks, Limits, Reader};
use disk::{BLOCK_BYTES, ImageFile, Inspection};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::time::Instant;

use crate::account::reader;
use crate::formats::Sample;
use crate::outcome::{CliError, Outcome};
use crate::show::shown;

const EXIT_CODES: &str = "\
Exit codes:
  0  the content was determined
  2  the command line is not valid
  3  the content could not be determined, or the disk could not be read

Reading a snapshot needs ebs:ListSnapshotBlocks and ebs:GetSnapshotBlock, and kms:Decrypt if it is encrypted. Reading \
an AMI also needs ec2:DescribeImages. Nothing is changed.";

/// What to inspect.
#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    /// A snapshot (snap-…), an AMI (ami-…: its root snapshot), or a raw image file or block device
    disk: String,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// How many blocks of 512 KiB to read at most
    #[arg(long, value_name = "NUMBER", default_value_t = 256, value_parser = value_parser!(u32).range(1..))]
    max_blocks: u32,
    /// How long the inspection may take
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = value_parser!(u32).range(1..=3600))]
    max_seconds: u32,
    /// The Region of the snapshot or AMI; by default that of the profile or of AWS_REGION
    #[arg(long)]
    region: Option<String>,
    /// The profile of the AWS configuration to use
    #[arg(long)]
    profile: Option<String>,
}

/// The JSON output.
#[derive(Serialize)]
struct Report {
    /// Platforms that an AMI of this disk may be billed as. Any of them is correct. Empty if undetermined.
    says: Vec<String>,
    /// The reason why it is undetermined.
    undetermined: Option<String>,
    /// The operating system's own name.
    name: Option<String>,
    /// The partition and file system.
    place: Option<String>,
    /// The paths that the result rests on.
    evidence: Vec<String>,
    blocks_read: u64,
    elapsed_ms: u64,
}

/// Inspects a disk.
///
/// # Errors
/// [`CliError::Unknown`], if the disk could not be read at all or in time. With `--json`, the output contains that reason
/// instead.
pub(crate) async fn run(arguments: Arguments, out: &mut dyn Write) -> Result<Outcome, CliError> {
    let begun = Instant::now();
    let reader = reader()?;
    let limits = Limits {
        blocks: arguments.max_blocks.into(),
        time: Duration::from_secs(arguments.max_seconds.into()),
    };
    let bar = ProgressBar::new(limits.blocks).with_style(style());
    bar.enable_steady_tick(Duration::from_millis(100));
    let inspection = inspect(&arguments, &reader, limits, &bar);
    let inspection = tokio::time::timeout(limits.time, inspection).await;
    bar.finish_and_clear();
    let inspection = inspection.unwrap_or_else(|_| {
        let seconds = arguments.max_seconds;
        Err(format!(
            "it takes more than {seconds} seconds. To allow more, pass --max-seconds"
        ))
    });
    let inspection = match inspection {
        Ok(inspection) => inspection,
        // Programs get the same keys, whatever prevented the inspection.
        Err(why) if arguments.json => Inspection {
            blocks_read: bar.position(),
            result: Err(why),
        },
        Err(why) => return Err(CliError::Unknown(why)),
    };
    let elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let report = Report::of(inspection, elapsed_ms);
    let outcome = match &report.undetermined {
        None => Outcome::Good,
        Some(_) => Outcome::Unknown,
    };
    let text = match arguments.json {
        true => report.json().map_err(CliError::Unknown)?,
        false => report.text(),
    };
    out.write_all(text.as_bytes())?;
    Ok(outcome)
}

fn style() -> ProgressStyle {
    let style = ProgressStyle::with_template(
        "{spinner} {msg} {bar:30} {pos} of at most {len} blocks, {elapsed}",
    );
    style.unwrap_or_else(|_| ProgressStyle::default_bar())
}

async fn inspect(
    arguments: &Arguments,
    reader: &Reader,
    limits: Limits,
    bar: &ProgressBar,
) -> Result<Inspection, String> {
    let disk = arguments.disk.as_str();
    let (is_snapshot, is_image) = (is_id(disk, "snap-"), is_id(disk, "ami-"));
    if !is_snapshot && !is_image {
        bar.set_message("reading");
        let mut image = Image {
            file: open(disk)?,
            read: 0,
            bar,
        };
        return Ok(reader.inspect(&mut image, limits).await);
    }
    let (profile, region) = (arguments.profile.as_deref(), arguments.region.as_deref());
    let aws = Aws::connect_as(profile, region)
        .await
        .map_err(|error| error.to_string())?;
    if aws.region().is_none() {
        return Err("no Region is set. Pass --region, or set AWS_REGION".into());
    }
    let snapshot = if is_image {
        bar.set_message("finding the root snapshot:");
        let id: AmiId = disk
            .parse()
            .map_err(|_| format!("{disk:?} is not an AMI id"))?;
        let root = aws.root_snapshot(&id).await;
        root.map_err(|error| error.to_string())?
    } else {
        disk.to_owned()
    };
    bar.set_message(format!("reading {snapshot}:"));
    let inspection = evidence::inspect(&aws, reader, &snapshot, limits, |read| {
        bar.set_position(read);
    });
    inspection.await.map_err(|error| match &error {
        Error::Refused { code, .. } if code == "ResourceNotFoundException" => format!(
            "{error}. EBS may not show a new snapshot for up to two minutes after its completion. Then try again"
        ),
        error => error.to_string(),
    })
}

/// Whether a text is an EC2 id: the prefix, then eight or seventeen hexadecimal digits. (EC2 User Guide, "Resource
/// IDs".) Any other text with this prefix is a file, or a mistake.
fn is_id(text: &str, prefix: &str) -> bool {
    let digits = text.strip_prefix(prefix).unwrap_or_default();
    matches!(digits.len(), 8 | 17) && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// Opens a raw image.
fn open(path: &str) -> Result<ImageFile, String> {
    let accepted = "Accepted: a snapshot (snap-…), an AMI (ami-…), or a raw image file";
    let unopened = |error| format!("{path:?} cannot be read: {error}. {accepted}");
    // Opening a pipe would wait for a writer.
    let kind = std::fs::metadata(path).map_err(unopened)?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(format!(
            "{path:?} is neither a file nor a block device. {accepted}"
        ));
    }
    let mut file = File::open(path).map_err(unopened)?;
    let sample = Sample::read(&mut file, kind.is_file()).map_err(unopened)?;
    if let Some((what, how)) = sample.format(path) {
        return Err(format!("{path:?} is {what}, not a raw image: {how}"));
    }
    ImageFile::open(std::path::Path::new(path)).map_err(unopened)
}

/// A raw image, with a progress bar for its reading.
struct Image<'a> {
    file: ImageFile,
    read: u64,
    bar: &'a ProgressBar,
}

impl Blocks for Image<'_> {
    fn size(&self) -> u64 {
        disk::BlockSource::size(&self.file)
    }

    async fn fetch(
        &mut self,
        blocks: std::ops::Range<u64>,
    ) -> Result<Vec<Option<Vec<u8>>>, String> {
        let blocks = disk::BlockSource::fetch(&mut self.file, blocks)?;
        self.read += blocks.iter().flatten().count() as u64;
        self.bar.set_position(self.read);
        Ok(blocks)
    }
}

impl Report {
    fn of(inspection: Inspection, elapsed_ms: u64) -> Report {
        let blocks_read = inspection.blocks_read;
        match inspection.result {
            Ok(findings) => Report {
                says: platforms(&findings).names(),
                undetermined: None,
                name: Some(findings.name),
                place: Some(findings.place),
                evidence: findings.evidence,
                blocks_read,
                elapsed_ms,
            },
            Err(why) => Report {
                says: Vec::new(),
                undetermined: Some(why),
                name: None,
                place: None,
                evidence: Vec::new(),
                blocks_read,
                elapsed_ms,
            },
        }
    }

    /// The JSON output, in ASCII only, because a terminal may show it.
    fn json(&self) -> Result<String, String> {
        let json = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
        let harmless = |letter| matches!(letter, ' '..='~' | '\n');
        Ok(json_without(&json, |letter| !harmless(letter)) + "\n")
    }

    /// The text output. Untrusted text from the disk is escaped, so that it cannot control a terminal.
    fn text(&self) -> String {
        let mut text = match (&self.name, &self.undetermined) {
            (Some(name), _) => format!("{}\n", shown(name)),
            (None, why) => {
                let why = why.as_deref().unwrap_or_default();
                format!("undetermined: {}\n", shown(why))
            }
        };
        let mut line = |what: &str, value: &str| text.push_str(&format!("  {what:<12}{value}\n"));
        if !self.says.is_empty() {
            line("platform", &self.says.join(", or "));
        }
        if let Some(place) = &self.place {
            line("where", place);
        }
        for (number, path) in self.evidence.iter().enumerate() {
            let what = if number == 0 { "evidence" } else { "" };
            line(what, &shown(path));
        }
        let kib = self.blocks_read * BLOCK_BYTES / 1024;
        let seconds = Duration::from_millis(self.elapsed_ms).as_secs_f64();
        line(
            "read",
            &format!("{} blocks ({kib} KiB) in {seconds:.2} s", self.blocks_read),
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stranger_wrote_does_nothing_to_a_terminal_in_either_form() {
        let hostile = "a\u{1b}[2J\u{7}b\nFORGED\u{9b}\u{202e}";
        let found = Report {
            says: vec!["Linux".into()],
            undetermined: None,
            name: Some(hostile.into()),
            place: None,
            evidence: vec![hostile.into()],
            blocks_read: 1,
            elapsed_ms: 1,
        };
        let undetermined = Report {
            undetermined: Some(hostile.into()),
            name: None,
            ..Report::of(
                Inspection {
                    blocks_read: 1,
                    result: Err(String::new()),
                },
                1,
            )
        };
        for report in [found, undetermined] {
            let (text, json) = (report.text(), report.json().unwrap());
            assert!(
                text.contains("\\u{1b}[2J\\u{7}b\\nFORGED\\u{9b}\\u{202e}"),
                "{text}"
            );
            assert!(
                !text.contains(['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}']),
                "{text:?}"
            );
            assert!(
                json.bytes()
                    .all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte))
            );
            let back: serde_json::Value = serde_json::from_str(&json).unwrap();
            let told = [&back["name"], &back["undetermined"]];
            assert!(told.iter().any(|text| **text == hostile), "{json}");
        }
    }
}
