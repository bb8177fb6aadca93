//! File systems behind one small trait: detects which one a partition has, and reads its files.

mod btrfs;
mod ext4;
mod ntfs;
pub(crate) mod open;
mod xfs;

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};

use crc::{CRC_32_ISCSI, Crc};

use crate::volume::Volume;

/// Checksum that XFS and ext4 store for their metadata.
const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// Human-readable reason why a result stays undetermined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReadError(pub(crate) String);

impl ReadError {
    pub(crate) fn new(why: impl Into<String>) -> ReadError {
        ReadError(why.into())
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ReadError {}

/// Type of the object at a path. Links are not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Link,
    /// A device, a socket, …
    Other,
}

impl Kind {
    fn of(is_file: bool, is_directory: bool, is_link: bool) -> Kind {
        match () {
            () if is_file => Kind::File,
            () if is_directory => Kind::Directory,
            () if is_link => Kind::Link,
            () => Kind::Other,
        }
    }
}

/// Maximum length of a link's target in bytes, as in Linux (`path_resolution(7)`).
const LONGEST_LINK: u64 = 4096;

/// An open file system. Paths begin with `/`, and none of their components is `.`, `..` or a link.
pub(crate) trait FileSystem {
    /// The type of the object at `path`, or `None` if the path does not exist.
    fn kind(&mut self, path: &str) -> Result<Option<Kind>, ReadError>;

    /// The target of the link at `path`.
    fn link(&mut self, path: &str) -> Result<Vec<u8>, ReadError>;

    /// Reads a file from `offset` into `buffer`, and returns the number of bytes. They are fewer than fit only at its
    /// end.
    fn read_at(&mut self, path: &str, offset: u64, buffer: &mut [u8]) -> Result<usize, ReadError>;

    /// The names in a directory, without `.` and `..`. Names that are not UTF-8 are omitted, because the reader needs
    /// none.
    fn names(&mut self, path: &str) -> Result<Vec<String>, ReadError>;
}

/// Fills `buffer` with repeated calls of `some`, which reads a file into the rest of it and returns 0 at the file's
/// end. Returns the number of bytes read.
fn fill(
    buffer: &mut [u8],
    mut some: impl FnMut(&mut [u8]) -> Result<usize, ReadError>,
) -> Result<usize, ReadError> {
    let mut read = 0;
    while let Some(rest) = buffer.get_mut(read..)
        && !rest.is_empty()
    {
        match some(rest)? {
            0 => break,
            more => read += more,
        }
    }
    Ok(read)
}

/// A contiguous part of a disk.
#[derive(Clone)]
pub(crate) struct Region {
    volume: Volume,
    offset: u64,
    length: u64,
}

impl Region {
    pub(crate) fn new(volume: &Volume, offset: u64, length: u64) -> Region {
        Region {
            volume: volume.clone(),
            offset,
            length,
        }
    }

    pub(crate) fn volume(&self) -> &Volume {
        &self.volume
    }

    /// The length in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Fills `buffer` with the bytes from `offset`, relative to the region.
    ///
    /// # Errors
    /// [`ReadError`], if they are not all within the region, or the disk cannot be read.
    pub(crate) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.length) {
            let length = buffer.len();
            return Err(ReadError(format!(
                "{length} bytes at byte {offset} are beyond the partition's end"
            )));
        }
        let at = self.offset.saturating_add(offset);
        self.volume.read_at(at, buffer).map_err(ReadError)
    }
}

/// A region as `Read` and `Seek`, for readers that need a position.
pub(crate) struct Cursor {
    region: Region,
    at: u64,
}

impl Cursor {
    pub(crate) fn new(region: &Region) -> Cursor {
        Cursor {
            region: region.clone(),
            at: 0,
        }
    }
}

impl Read for Cursor {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.region.length.saturating_sub(self.at);
        let length = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let Some(buffer) = buffer.get_mut(..length) else {
            return Ok(0);
        };
        let read = self.region.read_at(self.at, buffer);
        read.map_err(io::Error::other)?;
        self.at += length as u64;
        Ok(length)
    }
}

impl Seek for Cursor {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.region.length.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::other("a position before the beginning"))?;
        Ok(self.at)
    }
}
