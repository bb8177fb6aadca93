//! A disk's bytes, fetched block by block on request. A block is usually fetched only once.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;

/// Block size of the EBS direct APIs, in bytes.
pub const BLOCK_BYTES: u64 = 512 * 1024;

/// Number of cached blocks, 16 MiB in total. All blocks for a verdict fit, so none is fetched twice.
const KEPT: usize = 32;

/// Maximum number of blocks per fetch, so that a long read takes no more memory than the cache.
pub(crate) const AT_ONCE: u64 = 8;

/// Maximum number of reads of one disk. The longest XFS log that is replayed has 128 MiB and is read sector by sector,
/// and this limit is a little higher. A disk of the test corpus takes at most ten thousand reads. A damaged disk may
/// make a reader loop within cached blocks.
const MOST_READS: u64 = 300_000;

/// Source of a disk's blocks.
pub trait BlockSource {
    /// The size of the disk, in bytes.
    fn size(&self) -> u64;

    /// Fetches these blocks, in order. A block that was never written is `None`, and counts as all zeros. The last
    /// block of a disk may be shorter than [`BLOCK_BYTES`].
    ///
    /// # Errors
    /// Human-readable reason why no more blocks can be fetched.
    fn fetch(&mut self, blocks: Range<u64>) -> Result<Vec<Option<Vec<u8>>>, String>;
}

/// A raw image in a file. Blocks that are all zeros, such as holes, count as never written.
#[derive(Debug)]
pub struct ImageFile {
    file: File,
    size: u64,
}

impl ImageFile {
    /// Opens the file, or a block device.
    ///
    /// # Errors
    /// The error of the operating system.
    pub fn open(path: &Path) -> io::Result<ImageFile> {
        let mut file = File::open(path)?;
        // The metadata of a block device does not contain its length.
        let size = file.seek(SeekFrom::End(0))?;
        Ok(ImageFile { file, size })
    }
}

impl BlockSource for ImageFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn fetch(&mut self, blocks: Range<u64>) -> Result<Vec<Option<Vec<u8>>>, String> {
        let block = |index: u64| {
            let start = index * BLOCK_BYTES;
            let length = self.size.saturating_sub(start).min(BLOCK_BYTES);
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
            self.file
                .read_exact_at(&mut bytes, start)
                .map_err(|error| format!("the file can not be read at byte {start}: {error}"))?;
            Ok(bytes.iter().any(|byte| *byte != 0).then_some(bytes))
        };
        blocks.map(block).collect()
    }
}

/// A disk, shared by its readers.
#[derive(Clone)]
pub(crate) struct Volume(Rc<RefCell<Cache>>);

struct Cache {
    source: Box<dyn BlockSource>,
    /// The least recently used block first.
    blocks: VecDeque<(u64, Option<Vec<u8>>)>,
    /// Number of blocks that may still be fetched.
    left: u64,
    read: u64,
    most: u64,
    /// Number of reads that are still allowed.
    reads_left: u64,
    stopped: Option<String>,
}

impl Volume {
    pub(crate) fn new(source: Box<dyn BlockSource>, most_blocks: u64) -> Volume {
        Volume(Rc::new(RefCell::new(Cache {
            source,
            blocks: VecDeque::new(),
            left: most_blocks,
            read: 0,
            most: most_blocks,
            reads_left: MOST_READS,
            stopped: None,
        })))
    }

    /// The size of the disk, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.0.borrow().source.size()
    }

    /// Number of fetched blocks that had been written.
    pub(crate) fn blocks_read(&self) -> u64 {
        self.0.borrow().read
    }

    /// The reason why no more blocks can be fetched, or `None` if they can.
    pub(crate) fn stopped(&self) -> Option<String> {
        self.0.borrow().stopped.clone()
    }

    /// Fills `buffer` with the bytes from `offset`.
    ///
    /// # Errors
    /// The reason, in these cases:
    /// - The bytes are beyond the disk's end.
    /// - The reads of this disk are used up.
    /// - No more blocks can be fetched, and the bytes are not cached.
    pub(crate) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), String> {
        self.0.borrow_mut().read_at(offset, buffer)
    }
}

impl Cache {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), String> {
        self.reads_left = self.reads_left.saturating_sub(1);
        if self.reads_left == 0 {
            let why =
                format!("it takes more than the {MOST_READS} reads that there may be of one disk");
            return Err(self.stopped.get_or_insert(why).clone());
        }
        let length = buffer.len() as u64;
        let end = offset.checked_add(length);
        if end.is_none_or(|end| end > self.source.size()) {
            return Err(format!(
                "{length} bytes at byte {offset} are beyond the disk's end"
            ));
        }
        let mut at = offset;
        let mut rest = buffer;
        while !rest.is_empty() {
            let index = at / BLOCK_BYTES;
            let last = (at + rest.len() as u64 - 1) / BLOCK_BYTES;
            let within = usize::try_from(at % BLOCK_BYTES).unwrap_or(0);
            let block = self.block(index, last)?;
            let there = usize::try_from(BLOCK_BYTES).unwrap_or(0) - within;
            let (now, later) = rest.split_at_mut(there.min(rest.len()));
            match block {
                None => now.fill(0),
                Some(bytes) => match bytes.get(within..within + now.len()) {
                    Some(bytes) => now.copy_from_slice(bytes),
                    None => return Err(format!("block {index} is shorter than it should be")),
                },
            }
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    /// A block, from the cache or fetched. A fetch includes the uncached blocks that follow it, up to `last`.
    fn block(&mut self, index: u64, last: u64) -> Result<Option<&[u8]>, String> {
        // The cache is short, so a linear search costs little compared with a fetch.
        let place = |cache: &Cache, index: u64| cache.blocks.iter().position(|it| it.0 == index);
        if place(self, index).is_none() {
            let last = last.min(index + AT_ONCE - 1);
            let end = (index + 1..=last).find(|next| place(self, *next).is_some());
            self.fetch(index..end.unwrap_or(last + 1))?;
        }
        // The most recently used block goes last.
        let at = place(self, index);
        let block = at.and_then(|at| self.blocks.remove(at));
        self.blocks.extend(block);
        match self.blocks.back() {
            Some((_, block)) if at.is_some() => Ok(block.as_deref()),
            _ => Err(format!("block {index} was not fetched")),
        }
    }

    fn fetch(&mut self, range: Range<u64>) -> Result<(), String> {
        if let Some(why) = &self.stopped {
            return Err(why.clone());
        }
        let count = range.end - range.start;
        let fetched = match self.left.checked_sub(count) {
            None => Err(format!(
                "it takes more than the {} blocks that may be read of one disk",
                self.most
            )),
            Some(left) => {
                self.left = left;
                self.source.fetch(range.clone())
            }
        };
        let blocks = match fetched {
            Ok(blocks) if blocks.len() as u64 == count => blocks,
            Ok(_) => return Err("another number of blocks came than was asked for".into()),
            Err(why) => {
                self.stopped = Some(why.clone());
                return Err(why);
            }
        };
        self.read += blocks.iter().filter(|block| block.is_some()).count() as u64;
        self.blocks.extend(range.zip(blocks));
        let too_many = self.blocks.len().saturating_sub(KEPT);
        self.blocks.drain(..too_many);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten blocks, each filled with its index, except block 5, which was never written.
    struct Ten(Rc<RefCell<Vec<Range<u64>>>>);

    impl BlockSource for Ten {
        fn size(&self) -> u64 {
            10 * BLOCK_BYTES
        }

        fn fetch(&mut self, blocks: Range<u64>) -> Result<Vec<Option<Vec<u8>>>, String> {
            self.0.borrow_mut().push(blocks.clone());
            let block = |index: u64| (index != 5).then(|| vec![index as u8; BLOCK_BYTES as usize]);
            Ok(blocks.map(block).collect())
        }
    }

    fn ten(most: u64) -> (Volume, Rc<RefCell<Vec<Range<u64>>>>) {
        let asked = Rc::default();
        (Volume::new(Box::new(Ten(Rc::clone(&asked))), most), asked)
    }

    #[test]
    fn a_block_is_fetched_when_a_byte_of_it_is_read_and_then_kept() {
        let (volume, asked) = ten(10);
        let mut byte = [0];
        for (offset, expected) in [(0, 0), (BLOCK_BYTES - 1, 0), (3 * BLOCK_BYTES, 3), (7, 0)] {
            volume.read_at(offset, &mut byte).unwrap();
            assert_eq!(byte, [expected]);
        }
        assert_eq!(*asked.borrow(), [0..1, 3..4]);
        assert_eq!(volume.blocks_read(), 2);
    }

    #[test]
    fn a_range_is_fetched_at_once_without_what_is_there_already() {
        let (volume, asked) = ten(10);
        volume.read_at(3 * BLOCK_BYTES, &mut [0]).unwrap();
        let mut bytes = vec![0; 5 * BLOCK_BYTES as usize];
        volume.read_at(BLOCK_BYTES + 1, &mut bytes).unwrap();
        assert_eq!(*asked.borrow(), [3..4, 1..3, 4..7]);
        let at = |block: u64| bytes[((block - 1) * BLOCK_BYTES) as usize];
        assert_eq!([at(1), at(2), at(3), at(4), at(5)], [1, 2, 3, 4, 0]);
        assert_eq!(bytes.last(), Some(&6));
        // Block 5 was never written, so it does not count as read.
        assert_eq!(volume.blocks_read(), 5);
    }

    #[test]
    fn after_the_limit_nothing_is_fetched_any_more() {
        let (volume, asked) = ten(2);
        volume.read_at(0, &mut [0]).unwrap();
        volume.read_at(BLOCK_BYTES, &mut [0]).unwrap();
        let error = volume.read_at(2 * BLOCK_BYTES, &mut [0]).unwrap_err();
        assert_eq!(
            error,
            "it takes more than the 2 blocks that may be read of one disk"
        );
        assert_eq!(volume.stopped(), Some(error));
        assert_eq!(asked.borrow().len(), 2);
        // Cached blocks can still be read.
        volume.read_at(BLOCK_BYTES + 5, &mut [0]).unwrap();
    }

    #[test]
    fn what_is_beyond_the_end_can_not_be_read() {
        let (volume, asked) = ten(10);
        for offset in [10 * BLOCK_BYTES - 1, 10 * BLOCK_BYTES, u64::MAX] {
            assert!(volume.read_at(offset, &mut [0; 2]).is_err());
        }
        assert_eq!(volume.stopped(), None);
        assert!(asked.borrow().is_empty());
    }
}
