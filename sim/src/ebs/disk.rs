//! Reads blocks from the image file of a snapshot.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// Block size of EBS: 512 KiB.
pub(super) const BLOCK_SIZE: u64 = 512 << 10;

const BLOCKS_PER_GIB: u64 = (1 << 30) / BLOCK_SIZE;

static ZEROS: [u8; BLOCK_SIZE as usize] = [0; BLOCK_SIZE as usize];

/// A raw image file, of which one block at a time is in memory.
#[derive(Debug)]
pub(crate) struct Disk {
    file: File,
    /// Number of blocks in the file, up to the volume's end.
    blocks: u64,
}

impl Disk {
    /// Opens the image file of a volume of `volume_size` GiB.
    pub(super) fn open(path: &Path, volume_size: u32) -> io::Result<Disk> {
        let file = File::open(path)?;
        let blocks = file.metadata()?.len().div_ceil(BLOCK_SIZE);
        Ok(Disk {
            file,
            blocks: blocks.min(u64::from(volume_size) * BLOCKS_PER_GIB),
        })
    }

    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// A whole block. Bytes beyond the file's end are zeros.
    pub(super) fn read(&mut self, index: u64) -> io::Result<Vec<u8>> {
        let mut block = Vec::with_capacity(ZEROS.len());
        self.file.seek(SeekFrom::Start(index * BLOCK_SIZE))?;
        (&self.file).take(BLOCK_SIZE).read_to_end(&mut block)?;
        block.resize(ZEROS.len(), 0);
        Ok(block)
    }

    /// The first written block from `index` and before `end`. A block of zeros counts as never written.
    pub(super) fn next_written(&mut self, mut index: u64, end: u64) -> io::Result<Option<u64>> {
        let end = end.min(self.blocks);
        while index < end {
            index = match self.skip_hole(index)? {
                Some(data) if data < end => data,
                _ => break,
            };
            if self.read(index)? != ZEROS {
                return Ok(Some(index));
            }
            index += 1;
        }
        Ok(None)
    }

    /// The first block from `index` for which the file system stores data. Image files have large holes, which would
    /// take seconds to read.
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    fn skip_hole(&self, index: u64) -> io::Result<Option<u64>> {
        use rustix::fs::{SeekFrom, seek};
        use rustix::io::Errno;

        match seek(&self.file, SeekFrom::Data(index * BLOCK_SIZE)) {
            Ok(offset) => Ok(Some(index.max(offset / BLOCK_SIZE))),
            Err(Errno::NXIO) => Ok(None),
            // The file system does not support this query.
            Err(Errno::INVAL) => Ok(Some(index)),
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(not(any(target_os = "linux", target_os = "macos")))]
    fn skip_hole(&self, index: u64) -> io::Result<Option<u64>> {
        Ok(Some(index))
    }
}
