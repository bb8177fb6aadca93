//! ext4, and its predecessors ext2 and ext3.

mod journal;

use std::error::Error;
use std::rc::Rc;

use ext4_view::{Ext4, Ext4Error, Ext4Read};

use crate::numbers::u32_at;

use journal::Journal;

use super::{FileSystem, Kind, LONGEST_LINK, ReadError, Region, fill};

/// Maximum number of block groups, which limits the memory for their table. A group usually covers 128 MiB, so this is
/// enough for the largest EBS volume, 64 TiB.
const MOST_GROUPS: u64 = 64 * 1024 * 1024 / 128;

/// A partition whose journal is presented so that `ext4-view` replays all of it.
struct Shown {
    region: Region,
    journal: Option<Rc<Journal>>,
}

impl Ext4Read for Shown {
    fn read(
        &mut self,
        start: u64,
        buffer: &mut [u8],
    ) -> Result<(), Box<dyn Error + Send + Sync + 'static>> {
        self.region.read_at(start, buffer)?;
        match &self.journal {
            Some(journal) => Ok(journal.show(start, buffer)?),
            None => Ok(()),
        }
    }
}

/// Opens the file system. Changes that are still in the journal are taken into account.
pub(super) fn open(region: &Region) -> Result<Box<dyn FileSystem>, ReadError> {
    let mut superblock = [0; 1024];
    region.read_at(1024, &mut superblock)?;
    let block_bytes = check_size(region, &superblock)?;
    let journal = Journal::find(region, &superblock, block_bytes)?.map(Rc::new);
    let shown = Shown {
        region: region.clone(),
        journal: journal.clone(),
    };
    let ext4 = Ext4::load(Box::new(shown)).map_err(trouble)?;
    if let Some(journal) = journal {
        journal.check()?;
    }
    Ok(Box::new(Opened(ext4)))
}

/// Checks that the file system fits its partition, because the reader allocates memory for whatever the superblock
/// claims. Returns the block size in bytes.
fn check_size(region: &Region, superblock: &[u8]) -> Result<u64, ReadError> {
    let number = |at: usize| -> u64 { u32_at(superblock, at).unwrap_or(0).into() };
    let damaged = |what: &str| ReadError(format!("the ext4 can not be read: {what}"));
    let block_bytes = match number(0x18) {
        shift @ 0..=6 => 1024 << shift,
        _ => return Err(damaged("its block size makes no sense")),
    };
    // The reader uses the upper half of the number even if the file system does not declare that it has one.
    let blocks = number(0x4) | number(0x150) << 32;
    if blocks
        .checked_mul(block_bytes)
        .is_none_or(|bytes| bytes > region.length())
    {
        return Err(damaged("it claims to be larger than its partition"));
    }
    match blocks.checked_div(number(0x20)) {
        Some(0..=MOST_GROUPS) => Ok(block_bytes),
        _ => Err(damaged("it claims too many block groups")),
    }
}

struct Opened(Ext4);

impl FileSystem for Opened {
    fn kind(&mut self, path: &str) -> Result<Option<Kind>, ReadError> {
        match self.0.symlink_metadata(path) {
            Ok(metadata) => {
                let file = metadata.file_type().is_regular_file();
                let kind = Kind::of(file, metadata.is_dir(), metadata.is_symlink());
                Ok(Some(kind))
            }
            Err(Ext4Error::NotFound | Ext4Error::NotADirectory) => Ok(None),
            Err(error) => Err(trouble(error)),
        }
    }

    fn link(&mut self, path: &str) -> Result<Vec<u8>, ReadError> {
        // The reader allocates memory for whatever length a link claims.
        let length = self.0.symlink_metadata(path).map_err(trouble)?.len();
        if length > LONGEST_LINK {
            return Err(ReadError::new(
                "the ext4 can not be read: a link is too long",
            ));
        }
        let target = self.0.read_link(path).map_err(trouble)?;
        Ok(target.as_ref().to_vec())
    }

    fn read_at(&mut self, path: &str, offset: u64, buffer: &mut [u8]) -> Result<usize, ReadError> {
        let mut file = self.0.open(path).map_err(trouble)?;
        file.seek_to(offset).map_err(trouble)?;
        // One call reads at most to the end of a block.
        fill(buffer, |rest| file.read_bytes(rest).map_err(trouble))
    }

    fn names(&mut self, path: &str) -> Result<Vec<String>, ReadError> {
        let mut names = Vec::new();
        for entry in self.0.read_dir(path).map_err(trouble)? {
            let entry = entry.map_err(trouble)?;
            names.extend(entry.file_name().as_str().ok().map(str::to_owned));
        }
        names.retain(|name| name != "." && name != "..");
        Ok(names)
    }
}

fn trouble(error: Ext4Error) -> ReadError {
    ReadError(format!("the ext4 can not be read: {error}"))
}
