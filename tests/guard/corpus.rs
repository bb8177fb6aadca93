//! The corpus of test disks: what is said of each, by a child process as in the function, and how many blocks that
//! takes.

#[path = "../../disk/corpus/packed.rs"]
pub(super) mod packed;

use std::time::Duration;

use tokio::time::Instant;

use ami_billing_guard::sources::disk::platforms;
use disk::contained::{Limits, Reader};
use disk::{ImageFile, Inspection};

use super::READER;
use packed::{Label, Packed, labels};

const LIMITS: Limits = Limits {
    blocks: 256,
    time: Duration::from_secs(60),
};

/// How many blocks a verdict may take, by file system.
fn most_blocks(file_system: &str) -> u64 {
    match file_system {
        "xfs" => 20,
        _ => 16,
    }
}

async fn read(label: &Label) -> Inspection {
    let reader = Reader::Child(READER.into());
    match std::env::var_os("GUARD_CORPUS") {
        Some(folder) => {
            let path = std::path::Path::new(&folder).join(format!("{}.img", label.name));
            let mut disk =
                ImageFile::open(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            reader.inspect(&mut disk, LIMITS).await
        }
        None => {
            let mut disk = Packed::read(&label.name);
            reader.inspect(&mut disk, LIMITS).await
        }
    }
}

#[tokio::test]
async fn of_every_disk_of_the_corpus_the_guard_says_what_its_label_says() {
    let mut wrong = Vec::new();
    println!("| image | file system | says | blocks | ms |");
    for label in labels() {
        let begun = Instant::now();
        let inspection = read(&label).await;
        let elapsed = begun.elapsed().as_millis();
        let blocks = inspection.blocks_read;
        let (says, evidence, undetermined) = match &inspection.result {
            Ok(findings) => (platforms(findings).names(), findings.evidence.clone(), None),
            Err(why) => (Vec::new(), Vec::new(), Some(why.clone())),
        };
        let shown = match &undetermined {
            None => says.join(", "),
            Some(why) => format!("undetermined: {why}"),
        };
        println!(
            "| {} | {} ({}) | {shown} | {blocks} | {elapsed} |",
            label.name, label.file_system, label.table
        );
        let as_labelled = match (&label.undetermined, &undetermined) {
            (Some(why), Some(said)) => said.contains(why.as_str()),
            (None, None) => {
                says == label.says
                    && label
                        .evidence
                        .iter()
                        .all(|path| evidence.contains(&format!("/{path}")))
            }
            _ => false,
        };
        if !as_labelled {
            wrong.push(format!(
                "{}: {shown} by {evidence:?}, but it is {label:?}",
                label.name
            ));
        }
        let most = most_blocks(&label.file_system);
        if undetermined.is_none() && blocks > most {
            wrong.push(format!(
                "{}: {blocks} blocks, of at most {most}",
                label.name
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
