//! Damage that a file system's own checksums show: nothing is read past it.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

#[path = "../corpus/packed.rs"]
mod packed;

use disk::{Findings, inspect};
use packed::{Packed, labels};

const PAGE: u64 = 4096;
const SECTOR: u64 = 512;

fn read(disk: &Packed) -> Result<Findings, String> {
    inspect(disk.clone(), 256).result
}

fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    let bytes = &bytes[at..at + length];
    bytes
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The image with one bit changed.
fn flipped(disk: &Packed, at: u64) -> Packed {
    let mut disk = disk.clone();
    let byte = disk.pages[&(at / PAGE)][(at % PAGE) as usize];
    disk.changes.insert(at, byte ^ 1);
    disk
}

/// The image with a sector of zeros.
fn erased(disk: &Packed, sector: u64) -> Packed {
    let mut disk = disk.clone();
    disk.changes
        .extend((sector..sector + SECTOR).map(|at| (at, 0)));
    disk
}

/// The records in the log of an XFS, in their order: where each is, and how many bytes its body has. Those without a body
/// are what Linux writes over older ones as it mounts.
fn records(disk: &Packed) -> Vec<(u64, u64)> {
    let mut records = Vec::new();
    for (page, bytes) in disk.pages.iter() {
        for (index, sector) in bytes.chunks(SECTOR as usize).enumerate() {
            let length = number(sector, 12, 4);
            if number(sector, 0, 4) == 0xfeed_babe && length > 0 {
                let at = page * PAGE + index as u64 * SECTOR;
                records.push((number(sector, 16, 8), at, length));
            }
        }
    }
    records.sort_unstable();
    let records = records.into_iter();
    records.map(|(_, at, length)| (at, length)).collect()
}

/// In both, what is in the log decides. Linux replays it up to the damage; the state before says something else.
const LOG_DECIDES: [&str; 2] = ["xfs-log-converts", "xfs-log-has-rhui"];

#[test]
fn regression_a_damaged_record_of_an_xfs_log_is_not_taken_for_one_that_was_cut_off() {
    for name in LOG_DECIDES {
        let disk = Packed::read(name);
        // The first is mkfs.xfs's own: nothing is to be replayed of it.
        let records = records(&disk).split_off(1);
        assert!(records.len() > 3, "{name}: {records:?}");
        for (at, length) in records {
            for sector in (at..at + SECTOR + length).step_by(SECTOR as usize) {
                // The number of the pass, and something behind it.
                for at in [sector, sector + 43] {
                    let why = read(&flipped(&disk, at)).expect_err(name);
                    assert!(why.contains("log is damaged"), "{name}: {at:#x}: {why}");
                }
            }
        }
    }
}

#[test]
fn a_record_of_an_xfs_log_that_was_cut_off_is_left_out() {
    for name in LOG_DECIDES {
        let disk = Packed::read(name);
        let (at, length) = *records(&disk).last().expect("a record");
        // The log is in its first pass: before it, there were zeros.
        let last_sector = at + length.next_multiple_of(SECTOR);
        for sector in [at, last_sector] {
            let after = read(&erased(&disk, sector));
            assert!(after.is_ok(), "{name}: {sector:#x}: {after:?}");
        }
    }
}

#[test]
fn regression_a_damaged_name_in_a_directory_of_an_xfs_is_noticed() {
    let mut damaged = 0;
    for label in labels() {
        let is_dirty = LOG_DECIDES.contains(&label.name.as_str());
        if label.file_system != "xfs" || is_dirty || label.undetermined.is_some() {
            continue;
        }
        let disk = Packed::read(&label.name);
        for (page, bytes) in disk.pages.iter() {
            if !bytes.starts_with(b"XDB3") && !bytes.starts_with(b"XDD3") {
                continue;
            }
            for name in ["os-release", "redhat-rhui", "content-rhel"] {
                let found = bytes
                    .windows(name.len())
                    .position(|it| it == name.as_bytes());
                if let Some(at) = found {
                    let after = read(&flipped(&disk, page * PAGE + at as u64));
                    let why = after.expect_err(&label.name);
                    assert!(why.contains("damaged"), "{}: {name}: {why}", label.name);
                    damaged += 1;
                }
            }
        }
    }
    assert!(damaged > 2, "{damaged}");
}

/// The blocks of an ext4's journal that are its own: where each is, and its kind and transaction.
fn journal(disk: &Packed) -> Vec<(u64, u64, u64)> {
    let own = disk
        .pages
        .iter()
        .filter(|(_, bytes)| number(&bytes[..], 0, 4) == 0xc03b_3998);
    own.map(|(page, bytes)| {
        (
            page * PAGE,
            number(&bytes[..], 4, 4),
            number(&bytes[..], 8, 4),
        )
    })
    .collect()
}

#[test]
fn regression_a_damaged_transaction_of_an_ext4_journal_is_not_taken_for_one_under_way() {
    let disk = Packed::read("ext4-crash");
    let blocks = journal(&disk);
    let (commit, _, last) = *blocks.last().expect("a commit block");
    assert!(read(&disk).is_ok() && last > 3, "{blocks:?}");
    for (at, kind, transaction) in &blocks[1..] {
        // The block itself; of a descriptor, what it describes too.
        for at in (*at..)
            .step_by(PAGE as usize)
            .take(if *kind == 1 { 2 } else { 1 })
        {
            for at in [at + 1, at + 40] {
                let why = read(&flipped(&disk, at));
                // Without a commit block, and that is what one is without its magic number, a transaction is one under way.
                if at == commit + 1 {
                    assert!(why.is_ok(), "{why:?}");
                } else {
                    let why = why.expect_err(&format!("{kind} of {transaction}: {at:#x}"));
                    assert!(why.contains("journal"), "{at:#x}: {why}");
                }
            }
        }
    }
}

#[test]
fn regression_an_ext4_journal_that_goes_on_at_its_beginning_is_read_to_its_end() {
    // The same transactions, in a smaller ring, in which they begin three blocks before the end.
    let mut disk = Packed::read("ext4-journal-has-it");
    let before = read(&disk);
    let blocks = journal(&disk);
    let own = blocks[0].0;
    let used = (blocks[blocks.len() - 1].0 - own) / PAGE;
    let begin = used + 1 - 3;
    let content = |index: u64| disk.pages.get(&(own / PAGE + index)).copied();
    let mut ring = vec![content(0).expect("the journal's superblock").to_vec()];
    for place in 1..=used {
        let index = (place + used - begin) % used + 1;
        ring.push(content(index).map_or(vec![0; PAGE as usize], Vec::from));
    }
    let superblock = &mut ring[0][..1024];
    for (at, value) in [(0x10, used + 1), (0x1c, begin), (0xfc, 0)] {
        superblock[at..at + 4].copy_from_slice(&(value as u32).to_be_bytes());
    }
    let sum = !crc::Crc::<u32>::new(&crc::CRC_32_ISCSI).checksum(superblock);
    superblock[0xfc..0x100].copy_from_slice(&sum.to_be_bytes());
    disk.changes.extend((own..).zip(ring.concat()));
    assert_eq!(read(&disk), before);
}
