//! The child process: whatever the disk, the caller gets an answer, in time, and nothing else happens.

// Clippy takes helpers of tests for no tests.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

#[path = "../corpus/packed.rs"]
mod packed;

use std::ops::Range;
use std::time::Duration;

use disk::contained::{Blocks, Limits, Reader};
use disk::{BLOCK_BYTES, Inspection};
use packed::Packed;

const READER: &str = env!("CARGO_BIN_EXE_read-disk");

const LIMITS: Limits = Limits {
    blocks: 256,
    time: Duration::from_secs(60),
};

async fn inspect(disk: &mut impl Blocks, limits: Limits) -> Inspection {
    Reader::Child(READER.into()).inspect(disk, limits).await
}

fn why(inspection: Inspection) -> String {
    inspection.result.unwrap_err()
}

/// What a disk may answer to the request for its blocks.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Refused,
    Never,
    TooFew,
    TooShort,
    Empty,
    Endless,
}

struct Bad(Answer);

impl Blocks for Bad {
    fn size(&self) -> u64 {
        8 * BLOCK_BYTES
    }

    async fn fetch(&mut self, _: Range<u64>) -> Result<Vec<Option<Vec<u8>>>, String> {
        match self.0 {
            Answer::Refused => Err("nobody gives it".into()),
            Answer::Never => std::future::pending().await,
            Answer::TooFew => Ok(Vec::new()),
            Answer::TooShort => Ok(vec![Some(vec![0; 100])]),
            Answer::Empty => Ok(vec![Some(Vec::new())]),
            Answer::Endless => Ok(vec![Some(vec![1; 200 << 20])]),
        }
    }
}

#[tokio::test]
async fn whatever_the_source_does_there_is_an_answer_that_says_why() {
    for (answer, seconds, expected) in [
        (Answer::Refused, 60, "nobody gives it"),
        (Answer::Never, 1, "it takes more than 1 seconds"),
        (Answer::TooFew, 1, "it takes more than 1 seconds"),
        (Answer::TooShort, 60, "block 0 is shorter than it should be"),
        (
            Answer::Empty,
            60,
            "there is no file system that an operating system could be on",
        ),
    ] {
        let limits = Limits {
            time: Duration::from_secs(seconds),
            ..LIMITS
        };
        let inspection = inspect(&mut Bad(answer), limits).await;
        assert_eq!(why(inspection), expected, "{answer:?}");
    }
}

#[tokio::test]
async fn the_child_takes_no_more_memory_than_it_may() {
    let inspection = inspect(&mut Bad(Answer::Endless), LIMITS).await;
    assert_eq!(
        why(inspection),
        "reading it takes more than 96 MiB of memory"
    );
}

#[tokio::test]
async fn no_more_blocks_are_fetched_than_are_allowed_and_those_that_were_are_counted() {
    let all = inspect(&mut Packed::read("rhel9-rhui"), LIMITS).await;
    assert!(all.result.is_ok());
    for blocks in 1..all.blocks_read {
        let limits = Limits { blocks, ..LIMITS };
        let inspection = inspect(&mut Packed::read("rhel9-rhui"), limits).await;
        assert!(inspection.blocks_read <= blocks);
        let said = why(inspection);
        assert!(said.starts_with("it takes more than the "), "{said}");
    }
}

#[tokio::test]
async fn a_program_that_is_no_reader_is_found_out() {
    for (program, expected) in [
        ("/nowhere/reader", "the reader could not be started: "),
        (
            "/bin/true",
            "the reader ended without an answer (exit status: 0)",
        ),
        (
            "/bin/false",
            "the reader ended without an answer (exit status: 1)",
        ),
        (
            "/bin/cat",
            "the reader ended without an answer (exit status: 1)",
        ),
        (
            "/bin/echo",
            "the reader ended without an answer (exit status: 0)",
        ),
    ] {
        let mut disk = Packed::read("debian12");
        let inspection = Reader::Child(program.into())
            .inspect(&mut disk, LIMITS)
            .await;
        let said = why(inspection);
        assert!(said.starts_with(expected), "{program}: {said}");
        let checked = Reader::Child(program.into()).check(LIMITS.time).await;
        assert!(checked.unwrap_err().starts_with(expected), "{program}");
    }
    assert_eq!(
        Reader::Child(READER.into()).check(LIMITS.time).await,
        Ok(())
    );
}

#[tokio::test]
async fn regression_what_the_reader_said_before_it_ended_is_in_the_message() {
    // A file of the repository: one that this process had just written could be busy in a child of another test.
    let program = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/complains");
    let checked = Reader::Child(program).check(LIMITS.time).await;
    assert_eq!(
        checked.unwrap_err(),
        "the reader ended without an answer (exit status: 1): the limit X cannot be set \\u{1b}[2Jbecause"
    );
}

/// What is missing may be a second system, or SQL Server.
#[tokio::test]
async fn regression_a_disk_that_ends_within_a_partition_is_undetermined() {
    for (name, size) in [
        ("opt-apart", 0x1812_1000),
        ("linux-and-windows", 0x1030_0000),
    ] {
        let mut disk = Packed::read(name);
        disk.size = size;
        let said = why(inspect(&mut disk, LIMITS).await);
        assert!(
            said.ends_with(" goes beyond the disk's end"),
            "{name}: {said}"
        );
    }
}
