//! XFS.

mod log;

use lamxfs::{BlockRead, EntryKind, Error, Path, SuperblockReason, Xfs};

use crate::numbers::{big_at, u32_at};

use super::{CRC, FileSystem, Kind, LONGEST_LINK, ReadError, Region};

/// Opens the file system. Changes that are still in the log are replayed, in memory.
pub(super) fn open(region: &Region) -> Result<Box<dyn FileSystem>, ReadError> {
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

/// Layout of an XFS of version 5. (xfs_db(8), "sb"; the kernel's `struct xfs_dsb`)
#[derive(Clone)]
struct Layout {
    block_bytes: u64,
    /// Number of blocks in an allocation group, and number of bits that a block's number in its group takes.
    group_blocks: u64,
    group_bits: u64,
    inode_bytes: u64,
    /// Number of bits that an inode's number in its block takes.
    inode_bits: u64,
    directory_block_bytes: u64,
    uuid: [u8; 16],
    /// The log's first block, as a number that includes its allocation group, and the number of blocks.
    log_start: u64,
    log_blocks: u64,
}

impl Layout {
    /// Reads the layout from the superblock. `None` for versions without checksums, and for anything that is not a
    /// superblock. `lamxfs` rejects the latter.
    fn read(region: &Region) -> Result<Option<Layout>, ReadError> {
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

    /// Whether XFS's metadata in these bytes is unchanged since it was written. File contents have no checksum.
    ///
    /// `lamxfs` checks the superblock and each inode that it reads. It does not check the blocks of directories, extent
    /// lists and links. For an inode that the log changes, it checks only the result.
    fn fits(&self, offset: u64, bytes: &[u8]) -> bool {
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
    fn inodes_fit(&self, offset: u64, bytes: &[u8]) -> bool {
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

/// A partition that refuses to read metadata whose checksum is wrong.
struct Checked {
    region: Region,
    layout: Option<Layout>,
}

impl BlockRead for Checked {
    type Error = ReadError;

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        self.region.read_at(offset, buffer)?;
        match &self.layout {
            Some(layout) if !layout.fits(offset, buffer) => {
                Err(ReadError::new("a checksum of the XFS is wrong"))
            }
            _ => Ok(()),
        }
    }
}

struct Opened(Xfs<Checked>);

impl FileSystem for Opened {
    fn kind(&mut self, path: &str) -> Result<Option<Kind>, ReadError> {
        let inode = match self.0.resolve(Path::new(path.as_bytes())) {
            Ok(inode) => inode,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(trouble(error)),
        };
        let metadata = self.0.metadata(&inode).map_err(trouble)?;
        let (file, directory) = (metadata.is_file(), metadata.is_dir());
        Ok(Some(Kind::of(file, directory, metadata.is_symlink())))
    }

    fn link(&mut self, path: &str) -> Result<Vec<u8>, ReadError> {
        let path = Path::new(path.as_bytes());
        // The reader allocates memory for whatever length a link claims.
        let inode = self.0.resolve(path).map_err(trouble)?;
        if self.0.metadata(&inode).map_err(trouble)?.size() > LONGEST_LINK {
            return Err(ReadError::new(
                "the XFS can not be read: a link is too long",
            ));
        }
        let target = self.0.read_link(path).map_err(trouble)?;
        // If a link block's magic number is damaged, the reader takes the block for the link's text.
        if target.contains(&0) {
            return Err(ReadError::new("the XFS can not be read: a link is damaged"));
        }
        Ok(target)
    }

    fn read_at(&mut self, path: &str, offset: u64, buffer: &mut [u8]) -> Result<usize, ReadError> {
        let inode = self.0.resolve(Path::new(path.as_bytes()));
        let inode = inode.map_err(trouble)?;
        self.0.read_file_at(&inode, offset, buffer).map_err(trouble)
    }

    fn names(&mut self, path: &str) -> Result<Vec<String>, ReadError> {
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

fn trouble(error: Error) -> ReadError {
    let why = match error {
        // The partition returned no bytes, because it ends there or because `Checked` refused them.
        Error::Io { token, .. } => format!("damaged or cut off ({token})"),
        Error::BadSuperblock(SuperblockReason::DirtyLog) => {
            "its log is damaged, or of a kind that is not replayed (sb_dirty_log)".to_owned()
        }
        error => error.token().to_owned(),
    };
    ReadError(format!("the XFS can not be read: {why}"))
}
