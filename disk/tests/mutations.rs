//! Damaged disks: the images of the corpus, each time with something else changed. Whatever it is, the reader ends,
//! within its limits, with findings or with a reason. Where a file system has checksums, no damage of what they cover makes
//! another system of it.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

#[path = "../corpus/packed.rs"]
mod packed;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use disk::contained::{Blocks, Limits, Reader};
use disk::{BLOCK_BYTES, BlockSource, Inspection, SqlServer, System, WindowsKind};
use fastrand::Rng;

use tokio::time::Instant;

use packed::{Label, Packed, labels};

const LIMITS: Limits = Limits {
    blocks: 256,
    time: Duration::from_secs(120),
};

/// How many children read at once. More than processors, as each waits for its blocks now and then.
const AT_ONCE: u64 = 8;

const PAGE: u64 = 4096;
const SECTOR: u64 = 512;

async fn read(disk: &mut impl Blocks) -> Inspection {
    Reader::Child(env!("CARGO_BIN_EXE_read-disk").into())
        .inspect(disk, LIMITS)
        .await
}

/// What of the findings decides the bill.
fn stated(inspection: &Inspection) -> Option<(&System, &Option<SqlServer>)> {
    let findings = inspection.result.as_ref().ok()?;
    Some((&findings.system, &findings.sql_server))
}

/// A disk that notes which blocks are asked for.
struct Noting(Packed, BTreeSet<u64>);

impl Blocks for Noting {
    fn size(&self) -> u64 {
        self.0.size
    }

    async fn fetch(&mut self, blocks: Range<u64>) -> Result<Vec<Option<Vec<u8>>>, String> {
        self.1.extend(blocks.clone());
        BlockSource::fetch(&mut self.0, blocks)
    }
}

/// Images whose file systems have no checksums of what they write about themselves. Nor has any NTFS.
const WITHOUT_CHECKSUMS: [&str; 3] = [
    "xfs-v4-no-ftype",
    "ext3-without-extents",
    "ext4-old-features",
];

/// What may have made a reader say something else of a damaged disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cause {
    /// It says less: it was Windows, and which one does not show any more.
    Less,
    /// What hid the system is gone.
    Revealed,
    /// The file system has no checksums.
    NoChecksums,
    /// The text of an os-release, which has no checksum either.
    Content,
    /// What the file system has a checksum for.
    Checksummed,
}

/// An image as it is, and what is known of it.
struct Image {
    name: String,
    has_checksums: bool,
    disk: Packed,
    inspection: Inspection,
    /// The pages that have something on them: all, those in blocks that were read, and of these the first ones of
    /// each block, where a partition may begin.
    pages: [Vec<u64>; 3],
}

impl Image {
    async fn new(label: Label) -> Image {
        let Label {
            name, file_system, ..
        } = label;
        let mut noting = Noting(Packed::read(&name), BTreeSet::new());
        let inspection = read(&mut noting).await;
        let Noting(disk, was_read) = noting;
        let all: Vec<u64> = disk.pages.keys().copied().collect();
        let in_block = BLOCK_BYTES / PAGE;
        let filtered = |pages: &[u64], keep: &dyn Fn(u64) -> bool| -> Vec<u64> {
            pages.iter().copied().filter(|page| keep(*page)).collect()
        };
        let read = filtered(&all, &|page| was_read.contains(&(page / in_block)));
        let first = filtered(&read, &|page| page % in_block < 20);
        Image {
            has_checksums: file_system != "ntfs" && !WITHOUT_CHECKSUMS.contains(&name.as_str()),
            name,
            disk,
            inspection,
            pages: [all, read, first],
        }
    }

    fn byte(&self, at: u64) -> u8 {
        let page = self.disk.pages.get(&(at / PAGE));
        page.map_or(0, |page| page[(at % PAGE) as usize])
    }

    fn bytes(&self, at: u64, length: u64) -> Vec<u8> {
        (at..at + length).map(|at| self.byte(at)).collect()
    }

    /// A page to change.
    fn page(&self, random: &mut Rng) -> u64 {
        let [all, read, first] = &self.pages;
        let pages = match random.u8(0..8) {
            0 => all,
            1..5 => read,
            _ => first,
        };
        let page = random.choice(pages).or_else(|| random.choice(all));
        page.copied().unwrap_or(0) * PAGE
    }

    /// The image with something changed, and what.
    fn mutated(&self, random: &mut Rng) -> (Packed, Vec<String>) {
        let mut disk = self.disk.clone();
        let mut changes = Vec::new();
        let count = match random.u8(0..8) {
            0..5 => 1,
            5..7 => random.u8(2..5),
            _ => random.u8(5..17),
        };
        for _ in 0..count {
            let page = self.page(random);
            let at = page + random.u64(0..PAGE);
            let sector = at / SECTOR * SECTOR;
            let length = random.u64(1..65);
            let mut write = |at: u64, bytes: &[u8]| disk.changes.extend((at..).zip(bytes.to_vec()));
            changes.push(match random.u8(0..16) {
                kind @ 0..8 => {
                    let before = self.byte(at);
                    let after = match kind {
                        0..4 => random.u8(..),
                        _ => before ^ (1 << random.u8(0..8)),
                    };
                    write(at, &[after]);
                    format!("{at:#x}: {before:02x} became {after:02x}")
                }
                kind @ 8..11 => {
                    let run: Vec<u8> = match kind {
                        8 => vec![0; length as usize],
                        9 => vec![0xff; length as usize],
                        _ => (0..length).map(|_| random.u8(..)).collect(),
                    };
                    write(at, &run);
                    format!("{at:#x}: {length} bytes from {:02x} on", run[0])
                }
                11 | 12 => {
                    let other = match random.bool() {
                        true => page,
                        false => self.page(random),
                    };
                    let other = other + random.u64(0..PAGE / SECTOR) * SECTOR;
                    write(sector, &self.bytes(other, SECTOR));
                    write(other, &self.bytes(sector, SECTOR));
                    format!("sectors {sector:#x} and {other:#x} changed places")
                }
                13 => {
                    write(page, &[0; PAGE as usize]);
                    format!("page {page:#x} is zeros")
                }
                14 => {
                    let other = self.page(random);
                    write(other, &self.bytes(page, PAGE));
                    format!("page {other:#x} is as page {page:#x}")
                }
                _ => {
                    disk.size = sector.max(SECTOR).min(self.disk.size);
                    format!("the disk ends at {:#x}", disk.size)
                }
            });
        }
        let size = disk.size;
        disk.changes
            .retain(|at, byte| *at < size && *byte != self.byte(*at));
        (disk, changes)
    }

    /// Why something else may be said of it with these changes.
    fn cause(&self, changes: &BTreeMap<u64, u8>, after: &System) -> Cause {
        let is_content = |at: &u64| {
            let page = self.disk.pages.get(&(at / PAGE));
            page.is_some_and(|page| page.windows(12).any(|text| text == b"PRETTY_NAME="))
        };
        match &self.inspection.result {
            Err(_) => Cause::Revealed,
            Ok(_) if *after == System::Windows(WindowsKind::Unknown) => Cause::Less,
            Ok(_) if !self.has_checksums => Cause::NoChecksums,
            Ok(_) if changes.keys().any(is_content) => Cause::Content,
            Ok(_) => Cause::Checksummed,
        }
    }

    /// A mutated disk as a file of `disk/fuzz/regressions` has it.
    fn patches(&self, disk: &Packed) -> String {
        let mut text = self.name.clone();
        if disk.size != self.disk.size {
            write!(text, "\nsize {:x}", disk.size).unwrap();
        }
        let mut next = None;
        for (at, byte) in &disk.changes {
            if next != Some(*at) {
                write!(text, "\n{at:x} ").unwrap();
            }
            write!(text, "{byte:02x}").unwrap();
            next = Some(at + 1);
        }
        text
    }
}

/// An image with something changed.
struct Mutation<'a> {
    number: u64,
    image: &'a Image,
    disk: Packed,
    changes: Vec<String>,
}

/// What became of the mutations.
#[derive(Default)]
struct Summary {
    as_before: u64,
    undetermined: u64,
    /// Those that are said to have what the image does not have.
    otherwise: Vec<(Cause, String)>,
    panics: BTreeMap<String, u64>,
    wrong: Vec<String>,
}

impl Summary {
    fn add(&mut self, mutation: &Mutation, inspection: &Inspection) {
        let Mutation { image, changes, .. } = mutation;
        let (before, after) = (stated(&image.inspection), stated(inspection));
        match &inspection.result {
            Ok(_) if after == before => self.as_before += 1,
            Ok(findings) => self.otherwise.push((
                image.cause(&mutation.disk.changes, &findings.system),
                format!(
                    "mutation {} of {}: {before:?} became {after:?}: {}",
                    mutation.number,
                    image.name,
                    changes.join("; ")
                ),
            )),
            Err(why) => {
                self.undetermined += 1;
                if let Some(panic) = why.strip_prefix("the reader panicked at ") {
                    let place = panic.split(": ").next().unwrap_or(panic);
                    *self.panics.entry(place.to_owned()).or_default() += 1;
                }
            }
        }
        let is_wrong = inspection.blocks_read > LIMITS.blocks
            || inspection.result.as_ref().is_err_and(|why| {
                why.is_empty()
                    || why.starts_with("it takes more than 120 seconds")
                    || why.starts_with("reading it takes more than")
                    || why.starts_with("the reader ended without an answer")
                    || why.starts_with("the reader could not be")
            });
        if is_wrong {
            self.wrong.push(format!(
                "mutation {}: {inspection:?}\n{}",
                mutation.number,
                image.patches(&mutation.disk)
            ));
        }
    }

    fn join(&mut self, other: Summary) {
        self.as_before += other.as_before;
        self.undetermined += other.undetermined;
        self.otherwise.extend(other.otherwise);
        for (place, count) in other.panics {
            *self.panics.entry(place).or_default() += count;
        }
        self.wrong.extend(other.wrong);
    }
}

fn setting(name: &str, otherwise: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.map_or(otherwise, |value| value.parse().expect("a number"))
}

/// `GUARD_MUTATIONS` says how many, `GUARD_MUTATION_SEED` which ones. `GUARD_MUTATION` has only this one made, by its
/// number, and shown as a file of `disk/fuzz/regressions`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_damaged_the_reader_ends_within_its_limits() {
    let only = setting("GUARD_MUTATION", u64::MAX);
    let (first, count) = match only {
        u64::MAX => (0, setting("GUARD_MUTATIONS", 5_000)),
        only => (only, 1),
    };
    let seed = setting("GUARD_MUTATION_SEED", 1);
    let begun = Instant::now();
    let mut images = Vec::new();
    for label in labels() {
        images.push(Image::new(label).await);
    }
    let images = Arc::new(images);
    let next = Arc::new(AtomicU64::new(first));
    let work = || {
        let (images, next) = (Arc::clone(&images), Arc::clone(&next));
        tokio::spawn(async move {
            let mut summary = Summary::default();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= first + count {
                    return summary;
                }
                // Each has random numbers of its own, whatever the order in which they are made.
                let mut random = Rng::with_seed(seed);
                let mut random = Rng::with_seed(random.u64(..).wrapping_add(number));
                let image = &images[random.usize(0..images.len())];
                let (disk, changes) = image.mutated(&mut random);
                let mut mutation = Mutation {
                    number,
                    image,
                    disk,
                    changes,
                };
                if only == number {
                    println!("{}", image.patches(&mutation.disk));
                }
                let inspection = read(&mut mutation.disk).await;
                summary.add(&mutation, &inspection);
            }
        })
    };
    let workers: Vec<_> = (0..AT_ONCE).map(|_| work()).collect();
    let mut summary = Summary::default();
    for worker in workers {
        summary.join(worker.await.expect("no panic"));
    }
    for (place, count) in &summary.panics {
        println!("{count} panicked at {place}");
    }
    let mut causes: BTreeMap<Cause, u64> = BTreeMap::new();
    for (cause, shown) in &summary.otherwise {
        println!("{cause:?}: {shown}");
        *causes.entry(*cause).or_default() += 1;
    }
    println!(
        "{count} mutations of {} images in {} s: {} stated what they held, {} something else {causes:?}, {} were \
         undetermined, {} of these by a panic",
        images.len(),
        begun.elapsed().as_secs(),
        summary.as_before,
        summary.otherwise.len(),
        summary.undetermined,
        summary.panics.values().sum::<u64>()
    );
    assert!(
        summary.wrong.is_empty(),
        "of seed {seed}:\n{}",
        summary.wrong.join("\n\n")
    );
    assert_eq!(
        causes.get(&Cause::Checksummed),
        None,
        "of seed {seed}: what has a wrong checksum made another system"
    );
}
