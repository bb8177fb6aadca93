//! Patches to an image: their file format, and a block source that applies them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use disk::{BLOCK_BYTES, BlockSource};

use crate::image::Image;

/// Changes to an image: other bytes by offset, and another size.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Patches {
    pub(crate) size: Option<u64>,
    pub(crate) bytes: BTreeMap<u64, u8>,
}

impl Patches {
    /// The patches as the content of a file in `regressions`.
    pub(crate) fn write(&self, image: &Image) -> String {
        let mut text = format!("{}\n", image.name);
        if let Some(size) = self.size {
            writeln!(text, "size {size:x}").expect("a text");
        }
        let mut next = None;
        for (at, byte) in &self.bytes {
            match next == Some(*at) {
                true => write!(text, "{byte:02x}").expect("a text"),
                false => {
                    let line = if next.is_some() { "\n" } else { "" };
                    write!(text, "{line}{at:x} {byte:02x}").expect("a text");
                }
            }
            next = Some(at + 1);
        }
        if next.is_some() {
            text.push('\n');
        }
        text
    }
}

/// An image with patches applied.
pub(crate) struct Patched {
    image: Arc<Image>,
    patches: Patches,
    /// Log of the blocks that the reader requested.
    asked: Option<Rc<RefCell<Vec<Range<u64>>>>>,
}

impl Patched {
    pub(crate) fn new(
        image: &Arc<Image>,
        patches: &Patches,
        asked: Option<Rc<RefCell<Vec<Range<u64>>>>>,
    ) -> Patched {
        Patched {
            image: Arc::clone(image),
            patches: patches.clone(),
            asked,
        }
    }
}

impl BlockSource for Patched {
    fn size(&self) -> u64 {
        self.patches.size.unwrap_or(self.image.size())
    }

    fn fetch(&mut self, blocks: Range<u64>) -> Result<Vec<Option<Vec<u8>>>, String> {
        if let Some(asked) = &self.asked {
            asked.borrow_mut().push(blocks.clone());
        }
        let block = |index: u64| {
            let start = index * BLOCK_BYTES;
            let end = (start + BLOCK_BYTES).min(self.size());
            let length = end.saturating_sub(start) as usize;
            let mut block = self.image.block(index);
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
