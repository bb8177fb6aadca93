//! Reading blocks from the image file of a snapshot.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// EBS's blocks have 512 KiB.
pub(super) const BLOCK_SIZE: u64 = 512 << 10;

const BLOCKS_PER_GIB: u64 = (1 << 30) / BLOCK_SIZE;

static ZEROS: [u8; BLOCK_SIZE as usize] = [0; BLOCK_SIZE as usize];

/// A raw image file, of which one block at a time is in memory.
#[derive(Debug)]
pub(crate) struct Disk {
    file: File,
    /// How many blocks the file has, those beyond the volume's end not counted.
    blocks: u64,
}

impl Disk {
    /// The image file of a volume of so many GiB.
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

    /// A whole block; what is beyond the file's end is zeros.
    pub(super) fn read(&mut self, index: u64) -> io::Result<Vec<u8>> {
        let mut block = Vec::with_capacity(ZEROS.len());
        self.file.seek(SeekFrom::Start(index * BLOCK_SIZE))?;
        (&self.file).take(BLOCK_SIZE).read_to_end(&mut block)?;
        block.resize(ZEROS.len(), 0);
        Ok(block)
    }

    /// The first written block from `index` on and before `end`. A block that is all zeros counts as never
    /// written.
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

    /// The first block from `index` on that the file system keeps data of. Image files have large holes, and
    /// reading them takes seconds.
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    fn skip_hole(&self, index: u64) -> io::Result<Option<u64>> {
        use rustix::fs::{SeekFrom, seek};
        use rustix::io::Errno;

        match seek(&self.file, SeekFrom::Data(index * BLOCK_SIZE)) {
            Ok(offset) => Ok(Some(index.max(offset / BLOCK_SIZE))),
            Err(Errno::NXIO) => Ok(None),
            // A file system that can not tell.
            Err(Errno::INVAL) => Ok(Some(index)),
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(not(any(target_os = "linux", target_os = "macos")))]
    fn skip_hole(&self, index: u64) -> io::Result<Option<u64>> {
        Ok(Some(index))
    }
}
