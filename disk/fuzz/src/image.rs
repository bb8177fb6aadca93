//! Unpatched images of the corpus.

use std::collections::BTreeMap;
use std::sync::Arc;

use disk::{BLOCK_BYTES, BlockSource};

use crate::packed::Packed;

/// An image of the corpus.
pub(crate) struct Image {
    pub(crate) name: String,
    packed: Packed,
    /// The blocks that are not all zeros, by index.
    blocks: BTreeMap<u64, Vec<u8>>,
}

impl Image {
    pub(crate) fn read(name: &str) -> Arc<Image> {
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
        Arc::new(Image {
            name: name.to_owned(),
            packed,
            blocks,
        })
    }

    /// The block of this index, or `None` if it is all zeros.
    pub(crate) fn block(&self, index: u64) -> Option<Vec<u8>> {
        self.blocks.get(&index).cloned()
    }

    /// Whether the 4 KiB page of this number is not all zeros.
    pub(crate) fn has_page(&self, page: u64) -> bool {
        self.packed.pages.contains_key(&page)
    }

    pub(crate) fn size(&self) -> u64 {
        self.packed.size
    }

    /// Byte offsets of the 4 KiB pages that are not all zeros.
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
