//! The images that patches are applied to.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use disk::{BLOCK_BYTES, BlockSource};

use crate::packed::Packed;
use crate::patches::Patches;
use crate::sums::{self, Sum};
use crate::{Outcome, outcome};

/// What a target is about.
#[derive(Clone, Copy, Debug)]
pub enum Aim {
    /// The tables of partitions.
    Tables,
    /// All that counts: the file system and what is in it.
    FileSystem,
    /// The registry, in a file system that is as it should be.
    Hive,
    /// What os-release says, likewise.
    OsRelease,
}

impl Aim {
    /// Whether a place belongs to it.
    fn has(self, base: &Base, at: u64) -> bool {
        let page = at / 4096;
        match self {
            Aim::FileSystem => true,
            Aim::Tables => {
                // A chain of boot records may lead to where there is none now.
                let mut ends = (page * 4096..).step_by(512).take(8).map(|at| at + 510);
                let has_record = ends.any(|at| base.bytes(at, 2) == [0x55, 0xaa]);
                at < 34 * 512 || at >= base.size() - 33 * 512 || has_record
            }
            // Hives are in one piece in the images that are used here.
            Aim::Hive => {
                let before = (0..=page).rev();
                let mut pages = before.take_while(|page| base.packed.pages.contains_key(page));
                let first = pages.find_map(|page| match base.bytes(page * 4096, 4).as_slice() {
                    b"regf" => Some(true),
                    b"FILE" | b"INDX" => Some(false),
                    _ => None,
                });
                first == Some(true)
            }
            Aim::OsRelease => {
                let page = base.bytes(page * 4096, 4096);
                page.windows(12).any(|bytes| bytes == b"PRETTY_NAME=")
            }
        }
    }
}

/// How many bytes a place has that patches are aimed at.
pub(crate) const SPOT: u64 = 64;

/// An image of the corpus.
pub(crate) struct Base {
    pub(crate) name: String,
    packed: Packed,
    /// Its blocks that are not all zeros.
    blocks: BTreeMap<u64, Vec<u8>>,
    pub(crate) sums: Vec<Sum>,
    /// The places where other bytes make another result.
    pub(crate) spots: Vec<u64>,
}

impl Base {
    /// Reads it, and finds the places in it that a target is about.
    pub(crate) fn new(name: &str, aim: Aim) -> Arc<Base> {
        let mut packed = Packed::read(name);
        let count = packed.size.div_ceil(BLOCK_BYTES);
        let mut blocks = BTreeMap::new();
        for index in packed
            .pages
            .clone()
            .keys()
            .map(|page| page * 4096 / BLOCK_BYTES)
        {
            if !blocks.contains_key(&index) && index < count {
                let block = packed.fetch(index..index + 1).expect("a block").remove(0);
                blocks.extend(block.map(|block| (index, block)));
            }
        }
        let mut base = Base {
            name: name.to_owned(),
            packed,
            blocks,
            sums: Vec::new(),
            spots: Vec::new(),
        };
        base.sums = sums::find(&base);
        let mut base = Arc::new(base);
        let spots = spots(&base, aim);
        Arc::get_mut(&mut base).expect("no other owner").spots = spots;
        base
    }

    pub(crate) fn size(&self) -> u64 {
        self.packed.size
    }

    /// Where the pages are that are not all zeros.
    pub(crate) fn pages(&self) -> impl Iterator<Item = u64> {
        self.packed.pages.keys().map(|page| page * 4096)
    }

    pub(crate) fn byte(&self, at: u64) -> u8 {
        let page = self.packed.pages.get(&(at / 4096));
        page.map_or(0, |page| page[(at % 4096) as usize])
    }

    pub(crate) fn bytes(&self, at: u64, length: u64) -> Vec<u8> {
        (at..at + length).map(|at| self.byte(at)).collect()
    }

    pub(crate) fn little(&self, at: u64, length: u64) -> u64 {
        let bytes = self.bytes(at, length).into_iter().rev();
        bytes.fold(0, |number, byte| number << 8 | u64::from(byte))
    }

    pub(crate) fn big(&self, at: u64, length: u64) -> u64 {
        let bytes = self.bytes(at, length).into_iter();
        bytes.fold(0, |number, byte| number << 8 | u64::from(byte))
    }
}

/// The places of an image that count: with all their bits turned, the result is another one. Of tables it is all of
/// them, as there is much that could be in them and is not.
fn spots(base: &Arc<Base>, aim: Aim) -> Vec<u64> {
    let read = Rc::default();
    let source = Patched::new(base, &Patches::default(), Some(Rc::clone(&read)));
    let as_it_is = outcome(source);
    assert!(
        matches!(as_it_is, Outcome::Read(_)),
        "{}: {as_it_is:?}",
        base.name
    );
    let counts = |at: u64, length: u64| {
        let turned = (at..at + length).map(|at| (at, !base.byte(at))).collect();
        let mut patches = Patches {
            size: None,
            bytes: turned,
        };
        sums::repair(base, &mut patches.bytes);
        outcome(Patched::new(base, &patches, None)) != as_it_is
    };
    let read = read.borrow();
    let mut spots = Vec::new();
    for page in base.pages() {
        let was_read = read
            .iter()
            .any(|blocks| blocks.contains(&(page / BLOCK_BYTES)));
        let wanted = (page..page + 4096)
            .step_by(SPOT as usize)
            .filter(|at| aim.has(base, *at));
        let wanted: Vec<u64> = wanted.collect();
        if matches!(aim, Aim::Tables) {
            spots.extend(wanted);
        } else if was_read && !wanted.is_empty() && counts(page, 4096) {
            spots.extend(wanted.into_iter().filter(|at| counts(*at, SPOT)));
        }
    }
    assert!(!spots.is_empty(), "{}: nothing counts", base.name);
    spots
}

/// An image with patches.
pub(crate) struct Patched {
    base: Arc<Base>,
    patches: Patches,
    /// The blocks that were asked for.
    asked: Option<Rc<RefCell<Vec<Range<u64>>>>>,
}

impl Patched {
    pub(crate) fn new(
        base: &Arc<Base>,
        patches: &Patches,
        asked: Option<Rc<RefCell<Vec<Range<u64>>>>>,
    ) -> Patched {
        Patched {
            base: Arc::clone(base),
            patches: patches.clone(),
            asked,
        }
    }
}

impl BlockSource for Patched {
    fn size(&self) -> u64 {
        self.patches.size.unwrap_or(self.base.size())
    }

    fn fetch(&mut self, blocks: Range<u64>) -> Result<Vec<Option<Vec<u8>>>, String> {
        if let Some(asked) = &self.asked {
            asked.borrow_mut().push(blocks.clone());
        }
        let block = |index: u64| {
            let start = index * BLOCK_BYTES;
            let end = (start + BLOCK_BYTES).min(self.size());
            let length = end.saturating_sub(start) as usize;
            let mut block = self.base.blocks.get(&index).cloned();
            for (at, byte) in self.patches.bytes.range(start..end.max(start)) {
                let block = block.get_or_insert_with(|| vec![0; length]);
                block.resize(length, 0);
                block[(at - start) as usize] = *byte;
            }
            if let Some(block) = &mut block {
                block.resize(length, 0);
            }
            block
        };
        Ok(blocks.map(block).collect())
    }
}
