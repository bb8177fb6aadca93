//! The layout of an XFS, from its superblock.

use crate::file_system::{CRC, ReadError, Region};
use crate::numbers::{big_at, u32_at};

/// Layout of an XFS of version 5. (xfs_db(8), "sb"; the kernel's `struct xfs_dsb`)
#[derive(Clone)]
pub(super) struct Layout {
    pub(super) block_bytes: u64,
    /// Number of blocks in an allocation group, and number of bits that a block's number in its group takes.
    pub(super) group_blocks: u64,
    pub(super) group_bits: u64,
    pub(super) inode_bytes: u64,
    /// Number of bits that an inode's number in its block takes.
    pub(super) inode_bits: u64,
    pub(super) directory_block_bytes: u64,
    pub(super) uuid: [u8; 16],
    /// The log's first block, as a number that includes its allocation group, and the number of blocks.
    pub(super) log_start: u64,
    pub(super) log_blocks: u64,
}

impl Layout {
    /// Reads the layout from the superblock. `None` for versions without checksums, and for anything that is not a
    /// superblock. `lamxfs` rejects the latter.
    pub(super) fn read(region: &Region) -> Result<Option<Layout>, ReadError> {
        let mut superblock = [0; 512];
        region.read_at(0, &mut superblock)?;
        Ok(Layout::parse(&superblock))
    }

    pub(super) fn parse(superblock: &[u8]) -> Option<Layout> {
        let number = |at, length| big_at(superblock, at, length);
        if number(100, 2)? & 0xf != 5 {
            return None;
        }
        let bits = |at| number(at, 1).filter(|bits| *bits < 32);
        Some(Layout {
            block_bytes: 1 << bits(120)?,
            group_blocks: number(84, 4).filter(|blocks| *blocks > 0)?,
            group_bits: bits(124)?,
            inode_bytes: 1 << bits(122)?,
            inode_bits: bits(123)?,
            directory_block_bytes: 1 << (bits(120)? + bits(192)?),
            uuid: superblock.get(32..48)?.try_into().ok()?,
            log_start: number(48, 8)?,
            log_blocks: number(96, 4)?,
        })
    }

    /// Whether XFS's metadata in these bytes is unchanged since it was written. File contents have no checksum.
    ///
    /// `lamxfs` checks the superblock and each inode that it reads. It does not check the blocks of directories, extent
    /// lists and links. For an inode that the log changes, it checks only the result.
    pub(super) fn fits(&self, offset: u64, bytes: &[u8]) -> bool {
        let length = bytes.len() as u64;
        // Offset of the checksum, and offset of the block's own address in sectors.
        let (sum, address) = match bytes.get(..4) {
            Some(b"XDB3" | b"XDD3") if length == self.directory_block_bytes => (4, 8),
            Some(b"BMA3") if length == self.block_bytes => (64, 24),
            // A link that spans several blocks has one checksum for all of them. A block of 2 KiB or more holds the
            // longest link.
            Some(b"XSLM") if length == self.block_bytes && length >= 2048 => (12, 40),
            Some([b'I', b'N', ..]) if length.is_multiple_of(self.inode_bytes) => {
                return self.inodes_fit(offset, bytes);
            }
            _ => return true,
        };
        fits_sum(bytes, sum) && big_at(bytes, address, 8) == Some(offset / 512)
    }

    /// The same check for one inode, or for several contiguous ones.
    pub(super) fn inodes_fit(&self, offset: u64, bytes: &[u8]) -> bool {
        let starts = (offset..).step_by(usize::try_from(self.inode_bytes).unwrap_or(usize::MAX));
        let inodes = bytes.chunks(usize::try_from(self.inode_bytes).unwrap_or(usize::MAX));
        starts.zip(inodes).all(|(start, inode)| {
            // Bytes that are not an inode of version 3 have not been written as an inode yet.
            if inode.get(..2) != Some(b"IN") || inode.get(4) != Some(&3) {
                return true;
            }
            // An inode's number is its position: the group, the block in the group, the inode in the block.
            let block = start / self.block_bytes;
            let (group, block) = (block / self.group_blocks, block % self.group_blocks);
            let number = (group << self.group_bits) | block;
            let inode_of_block = start % self.block_bytes / self.inode_bytes;
            let number = (number << self.inode_bits) | inode_of_block;
            fits_sum(inode, 100) && big_at(inode, 152, 8) == Some(number)
        })
    }
}

/// Whether the checksum at `at`, inside the data that it covers, is valid. Its own bytes count as zeros.
pub(super) fn fits_sum(bytes: &[u8], at: usize) -> bool {
    let (Some(before), Some(after)) = (bytes.get(..at), bytes.get(at + 4..)) else {
        return false;
    };
    let mut digest = CRC.digest();
    for part in [before, &[0; 4], after] {
        digest.update(part);
    }
    u32_at(bytes, at) == Some(digest.finalize())
}
