//! What fuzzing found (`disk/fuzz`): each case ends with an answer, or with a reason why there is none.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

#[path = "../corpus/packed.rs"]
mod packed;

use std::time::Duration;

use disk::contained::{Limits, Reader};

use packed::{Packed, corpus};

/// The time is no part of any case: some take a second of computing, and a loaded machine many times that.
const LIMITS: Limits = Limits {
    blocks: 256,
    time: Duration::from_secs(300),
};

/// How a case may end that takes more than the child is given, by what its file's name ends in.
const ENDS: [(&str, &str); 2] = [
    ("-memory", "reading it takes more than"),
    ("-time", "it takes more than 300 seconds"),
];

/// Reads a case: the name of an image, and what is changed of it, a line for each place: its offset and the bytes
/// there, in hexadecimal, or `size` and the disk's.
fn changed(case: &str) -> Packed {
    let mut lines = case.lines();
    let mut disk = Packed::read(lines.next().expect("an image's name"));
    let number = |text| u64::from_str_radix(text, 16).expect("a hexadecimal number");
    for line in lines {
        let (place, value) = line.split_once(' ').expect("a place and a value");
        if place == "size" {
            disk.size = number(value);
            continue;
        }
        let bytes = (0..value.len()).step_by(2);
        let bytes = bytes.map(|at| number(&value[at..at + 2]) as u8);
        disk.changes.extend((number(place)..).zip(bytes));
    }
    disk
}

#[tokio::test]
async fn regression_what_fuzzing_found_ends_with_an_answer() {
    let folder = corpus().join("../fuzz/regressions");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("disk/fuzz/regressions")
        .map(|file| file.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "patches"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    let mut wrong = Vec::new();
    for path in files {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let case = std::fs::read_to_string(&path).expect("a text");
        let mut disk = changed(&case);
        let reader = Reader::Child(env!("CARGO_BIN_EXE_read-disk").into());
        let inspection = reader.inspect(&mut disk, LIMITS).await;
        println!("{name}: {inspection:?}");
        if inspection.blocks_read > LIMITS.blocks {
            wrong.push(format!("{name}: {} blocks", inspection.blocks_read));
        }
        let Err(why) = inspection.result else {
            continue;
        };
        for (end, reason) in ENDS {
            if why.starts_with(reason) && !name.ends_with(end) {
                wrong.push(format!("{name}: {why}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
