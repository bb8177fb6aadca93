//! XFS.

mod log;

use lamxfs::{BlockRead, EntryKind, Error, Path, SuperblockReason, Xfs};

use crate::numbers::{big_at, u32_at};

use super::{CRC, FileSystem, Kind, LONGEST_LINK, Region, Trouble};

/// Opens it. A log that still holds changes is replayed, in memory.
pub(super) fn open(region: &Region) -> Result<Box<dyn FileSystem>, Trouble> {
    let layout = Layout::read(region)?;
    let checked = Checked {
        region: region.clone(),
        layout: layout.clone(),
    };
    let xfs = Xfs::open(checked, region.length()).map_err(trouble)?;
    if let Some(layout) = &layout {
        log::check(region, layout)?;
    }
    Ok(Box::new(Opened(xfs)))
}

/// Where an XFS of version 5 has what. (xfs_db(8), "sb"; the kernel's `struct xfs_dsb`)
#[derive(Clone)]
struct Layout {
    block_bytes: u64,
    /// Blocks in each of the allocation groups, and the bits that number them.
    group_blocks: u64,
    group_bits: u64,
    inode_bytes: u64,
    /// Bits that number the inodes of a block.
    inode_bits: u64,
    directory_block_bytes: u64,
    uuid: [u8; 16],
    /// The log's first block, as a number in its allocation group, and how many it has.
    log_start: u64,
    log_blocks: u64,
}

impl Layout {
    /// Reads it from the superblock. `None` for versions without checksums, and for what no superblock is: `lamxfs`
    /// refuses that.
    fn read(region: &Region) -> Result<Option<Layout>, Trouble> {
        let mut superblock = [0; 512];
        region.read_at(0, &mut superblock)?;
        Ok(Layout::parse(&superblock))
    }

    fn parse(superblock: &[u8]) -> Option<Layout> {
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

    /// Whether what is XFS's own of these bytes is as it was written there. `lamxfs` checks the superblock and each inode
    /// that it reads, but no block of a directory, of a list of extents or of a link, and of an inode that its log changes
    /// only what comes of it. File contents have no checksum.
    fn fits(&self, offset: u64, bytes: &[u8]) -> bool {
        let length = bytes.len() as u64;
        // The checksum's place, and that of the block's own address in sectors.
        let (sum, address) = match bytes.get(..4) {
            Some(b"XDB3" | b"XDD3") if length == self.directory_block_bytes => (4, 8),
            Some(b"BMA3") if length == self.block_bytes => (64, 24),
            // A longer link has a checksum for several blocks at once. Of 2 KiB on, a block holds the longest.
            Some(b"XSLM") if length == self.block_bytes && length >= 2048 => (12, 40),
            Some([b'I', b'N', ..]) if length.is_multiple_of(self.inode_bytes) => {
                return self.inodes_fit(offset, bytes);
            }
            _ => return true,
        };
        fits_sum(bytes, sum) && big_at(bytes, address, 8) == Some(offset / 512)
    }

    /// The same of one inode, or of some that follow each other.
    fn inodes_fit(&self, offset: u64, bytes: &[u8]) -> bool {
        let starts = (offset..).step_by(usize::try_from(self.inode_bytes).unwrap_or(usize::MAX));
        let inodes = bytes.chunks(usize::try_from(self.inode_bytes).unwrap_or(usize::MAX));
        starts.zip(inodes).all(|(start, inode)| {
            // What is no inode of version 3 was not written as one yet.
            if inode.get(..2) != Some(b"IN") || inode.get(4) != Some(&3) {
                return true;
            }
            // An inode's number is its place: the group, the block in it, the inode in that.
            let block = start / self.block_bytes;
            let (group, block) = (block / self.group_blocks, block % self.group_blocks);
            let number = (group << self.group_bits) | block;
            let inode_of_block = start % self.block_bytes / self.inode_bytes;
            let number = (number << self.inode_bits) | inode_of_block;
            fits_sum(inode, 100) && big_at(inode, 152, 8) == Some(number)
        })
    }
}

/// Whether a checksum is right that stands among what it covers, where it counts as zeros.
fn fits_sum(bytes: &[u8], at: usize) -> bool {
    let (Some(before), Some(after)) = (bytes.get(..at), bytes.get(at + 4..)) else {
        return false;
    };
    let mut digest = CRC.digest();
    for part in [before, &[0; 4], after] {
        digest.update(part);
    }
    u32_at(bytes, at) == Some(digest.finalize())
}

/// A partition, of which nothing is read that does not fit its checksum.
struct Checked {
    region: Region,
    layout: Option<Layout>,
}

impl BlockRead for Checked {
    type Error = Trouble;

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Trouble> {
        self.region.read_at(offset, buffer)?;
        match &self.layout {
            Some(layout) if !layout.fits(offset, buffer) => {
                Err(Trouble::new("a checksum of the XFS is wrong"))
            }
            _ => Ok(()),
        }
    }
}

struct Opened(Xfs<Checked>);

impl FileSystem for Opened {
    fn kind(&mut self, path: &str) -> Result<Option<Kind>, Trouble> {
        let inode = match self.0.resolve(Path::new(path.as_bytes())) {
            Ok(inode) => inode,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(trouble(error)),
        };
        let metadata = self.0.metadata(&inode).map_err(trouble)?;
        let (file, directory) = (metadata.is_file(), metadata.is_dir());
        Ok(Some(Kind::of(file, directory, metadata.is_symlink())))
    }

    fn link(&mut self, path: &str) -> Result<Vec<u8>, Trouble> {
        let path = Path::new(path.as_bytes());
        // The reader takes memory for whatever length a link claims.
        let inode = self.0.resolve(path).map_err(trouble)?;
        if self.0.metadata(&inode).map_err(trouble)?.size() > LONGEST_LINK {
            return Err(Trouble::new("the XFS can not be read: a link is too long"));
        }
        let target = self.0.read_link(path).map_err(trouble)?;
        // A block whose magic number is damaged is taken for the text itself.
        if target.contains(&0) {
            return Err(Trouble::new("the XFS can not be read: a link is damaged"));
        }
        Ok(target)
    }

    fn read_at(&mut self, path: &str, offset: u64, buffer: &mut [u8]) -> Result<usize, Trouble> {
        let inode = self.0.resolve(Path::new(path.as_bytes()));
        let inode = inode.map_err(trouble)?;
        self.0.read_file_at(&inode, offset, buffer).map_err(trouble)
    }

    fn names(&mut self, path: &str) -> Result<Vec<String>, Trouble> {
        let entries = self.0.read_dir(Path::new(path.as_bytes()));
        let names = entries
            .map_err(trouble)?
            .into_iter()
            .filter(|entry| !matches!(entry.kind, EntryKind::Other));
        Ok(names
            .filter_map(|entry| String::from_utf8(entry.name).ok())
            .collect())
    }
}

fn trouble(error: Error) -> Trouble {
    let why = match error {
        // The partition gave no bytes: it ends there, or `Checked` refused them.
        Error::Io { token, .. } => format!("damaged or cut off ({token})"),
        Error::BadSuperblock(SuperblockReason::DirtyLog) => {
            "its log is damaged, or of a kind that is not replayed (sb_dirty_log)".to_owned()
        }
        error => error.token().to_owned(),
    };
    Trouble(format!("the XFS can not be read: {why}"))
}
