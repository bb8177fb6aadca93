//! The corpus's images as they are packed: only the pages of 4 KiB that are not all zeros
//! (`disk/corpus/pack.py`).

// Clippy takes helpers of tests for no tests; and not each of these uses all of them.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    dead_code
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use disk::{BLOCK_BYTES, BlockSource};
use flate2::read::GzDecoder;
use serde::Deserialize;

const PAGE: u64 = 4096;

/// What is to be said of an image.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Label {
    pub(crate) name: String,
    pub(crate) what: String,
    pub(crate) file_system: String,
    pub(crate) table: String,
    pub(crate) says: Vec<String>,
    pub(crate) undetermined: Option<String>,
    pub(crate) evidence: Vec<String>,
    /// Whether it is in the repository; others are only made by `make corpus`.
    pub(crate) packed: bool,
}

/// The folder of the corpus.
pub(crate) fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|folder| folder.join("disk/corpus"))
        .find(|folder| folder.is_dir())
        .expect("disk/corpus")
}

/// The labels of all images that are there: those in the repository, and with `GUARD_CORPUS` those in that folder.
pub(crate) fn labels() -> Vec<Label> {
    let made = std::env::var_os("GUARD_CORPUS").map(PathBuf::from);
    let labels = made.clone().unwrap_or_else(corpus).join("labels.json");
    let text = std::fs::read_to_string(labels).expect("labels.json");
    let mut labels: Vec<Label> = serde_json::from_str(&text).expect("labels.json");
    if made.is_none() {
        labels.retain(|label| label.packed);
    }
    labels
}

/// Unpacks an image of the corpus to a file, once in a process and all at once: other tests may be reading it, and
/// those of another run.
pub(crate) fn unpacked(name: &str, to: &Path) {
    static UNPACKED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let mut unpacked = UNPACKED.lock().expect("no test that panicked here");
    if unpacked.insert(to.to_owned()) {
        let whole = to.with_extension(std::process::id().to_string());
        Packed::read(name).unpack(&whole);
        std::fs::rename(&whole, to).expect("its place");
    }
}

/// An image in memory, without its zeros. Clones share what they do not change.
#[derive(Clone)]
pub(crate) struct Packed {
    pub(crate) size: u64,
    pub(crate) pages: Arc<BTreeMap<u64, [u8; PAGE as usize]>>,
    /// Bytes that are other than packed.
    pub(crate) changes: BTreeMap<u64, u8>,
}

impl Packed {
    /// Reads a packed image of the corpus.
    pub(crate) fn read(name: &str) -> Packed {
        let path = corpus().join(format!("images/{name}.gz"));
        let file = File::open(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        let mut bytes = Vec::new();
        GzDecoder::new(file).read_to_end(&mut bytes).expect("gzip");
        let end = bytes
            .iter()
            .position(|byte| *byte == b'\n')
            .expect("a line");
        let line = std::str::from_utf8(&bytes[..end]).expect("a line");
        let size = line.strip_prefix("ami-guard-disk 1 ").expect("the line");
        let pages = bytes[end + 1..]
            .chunks_exact(8 + PAGE as usize)
            .map(|page| {
                let (index, page) = page.split_at(8);
                let index = u64::from_le_bytes(index.try_into().unwrap());
                (index, page.try_into().unwrap())
            });
        Packed {
            size: size.parse().expect("a size"),
            pages: Arc::new(pages.collect()),
            changes: BTreeMap::new(),
        }
    }

    /// Writes it to a file, its zeros as holes.
    pub(crate) fn unpack(&self, to: &Path) {
        use std::os::unix::fs::FileExt;
        let file = File::create(to).expect("a file");
        file.set_len(self.size).expect("its length");
        for (index, page) in self.pages.iter() {
            let at = index * PAGE;
            let length = (self.size - at).min(PAGE) as usize;
            file.write_all_at(&page[..length], at).expect("a page");
        }
        for (at, byte) in &self.changes {
            file.write_all_at(&[*byte], *at).expect("a byte");
        }
    }
}

impl BlockSource for Packed {
    fn size(&self) -> u64 {
        self.size
    }

    fn fetch(&mut self, blocks: Range<u64>) -> Result<Vec<Option<Vec<u8>>>, String> {
        let block = |index: u64| {
            let start = index * BLOCK_BYTES;
            let end = (start + BLOCK_BYTES).min(self.size);
            let mut bytes = vec![0; end.saturating_sub(start) as usize];
            let mut written = false;
            for (page, content) in self.pages.range(start / PAGE..end.div_ceil(PAGE)) {
                let at = (page * PAGE - start) as usize;
                let length = (bytes.len() - at).min(PAGE as usize);
                bytes[at..at + length].copy_from_slice(&content[..length]);
                written = true;
            }
            for (at, byte) in self.changes.range(start..end) {
                bytes[(at - start) as usize] = *byte;
                written = true;
            }
            Ok(written.then_some(bytes))
        };
        blocks.map(block).collect()
    }
}
