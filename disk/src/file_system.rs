//! File systems behind one small trait: detects which one a partition has, and reads its files.

mod btrfs;
mod ext4;
mod ntfs;
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

/// Content of a partition, detected by its signatures.
pub(crate) enum Content {
    /// Nothing that could hold an operating system: no file system, or one for other purposes.
    Nothing,
    /// Something that could hold an operating system but cannot be read, by its name.
    Closed(&'static str),
    /// A readable file system, by its name, with its possible roots. Subvolumes may give it several roots.
    Open(&'static str, Vec<Box<dyn FileSystem>>),
}

/// Detects and opens the content of a partition. `is_boot_code` tells that the partition's type is for boot code, which
/// has a format of its own.
///
/// # Errors
/// [`ReadError`], if there is a file system that should be readable but is not.
pub(crate) fn open(region: &Region, is_boot_code: bool) -> Result<Content, ReadError> {
    // All signatures are in the first 512 KiB of the partition.
    let magic = |offset: u64, bytes: &[u8]| -> Result<bool, ReadError> {
        if offset.saturating_add(bytes.len() as u64) > region.length() {
            return Ok(false);
        }
        let mut there = vec![0; bytes.len()];
        region.read_at(offset, &mut there)?;
        Ok(there == bytes)
    };
    for (what, offset, bytes) in CLOSED {
        if magic(*offset, bytes)? {
            return Ok(Content::Closed(what));
        }
    }
    let mut readable = Vec::new();
    for (what, offset, bytes) in READABLE {
        if magic(*offset, bytes)? {
            readable.push(*what);
        }
    }
    match readable.as_slice() {
        [] => {}
        ["xfs"] => return Ok(Content::Open("xfs", vec![xfs::open(region)?])),
        ["ntfs"] => return Ok(Content::Open("ntfs", vec![ntfs::open(region)?])),
        ["btrfs"] => return Ok(Content::Open("btrfs", btrfs::open(region)?)),
        ["ext4"] => return Ok(Content::Open("ext4", vec![ext4::open(region)?])),
        // One of them is a remnant, and the signatures do not show which.
        _ => return Ok(Content::Closed("the signatures of several file systems")),
    }
    for (offset, bytes) in FOR_OTHER_PURPOSES {
        if magic(*offset, bytes)? {
            return Ok(Content::Nothing);
        }
    }
    let length = region.length().min(4096);
    let mut beginning = vec![0; usize::try_from(length).unwrap_or(0)];
    region.read_at(0, &mut beginning)?;
    Ok(
        match is_boot_code || beginning.iter().all(|byte| *byte == 0) {
            true => Content::Nothing,
            // It may be encrypted without a signature, or of an unknown kind.
            false => Content::Closed("something unknown"),
        },
    )
}

/// Readable file systems: name, and offset and bytes of the signature.
const READABLE: &[(&str, u64, &[u8])] = &[
    ("xfs", 0, b"XFSB"),
    ("ntfs", 3, b"NTFS    "),
    ("btrfs", 0x10040, b"_BHRfS_M"),
    ("ext4", 0x438, &[0x53, 0xef]),
];

/// Signatures of file systems that cannot hold an operating system: FAT, and Linux swap space.
const FOR_OTHER_PURPOSES: &[(u64, &[u8])] =
    &[(0x36, b"FAT1"), (0x52, b"FAT32"), (0xff6, b"SWAPSPACE2")];

/// Signature of a Linux md array whose superblock is before its content. If the superblock is at the end instead, the
/// content can be read as if there were no array.
const MD: &[u8] = &[0xfc, 0x4e, 0x2b, 0xa9];

/// Content that may hold an operating system but is not read: name, and offset and bytes of the signature.
const CLOSED: &[(&str, u64, &[u8])] = &[
    // LVM's label is in one of the first four sectors.
    ("LVM", 0, b"LABELONE"),
    ("LVM", 0x200, b"LABELONE"),
    ("LVM", 0x400, b"LABELONE"),
    ("LVM", 0x600, b"LABELONE"),
    ("LUKS (encrypted)", 0, b"LUKS\xba\xbe"),
    ("BitLocker (encrypted)", 3, b"-FVE-FS-"),
    ("ReFS", 3, b"ReFS\0\0\0\0"),
    ("a member of an md array", 0, MD),
    ("a member of an md array", 0x1000, MD),
    ("bcache", 0x1018, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca"),
    ("squashfs", 0, b"hsqs"),
    ("EROFS", 0x400, b"\xe2\xe1\xf5\xe0"),
    ("F2FS", 0x400, b"\x10\x20\xf5\xf2"),
    ("JFS", 0x8000, b"JFS1"),
    ("ReiserFS", 0x10034, b"ReIsEr2Fs"),
    ("ReiserFS", 0x10034, b"ReIsEr3Fs"),
    ("ISO 9660", 0x8001, b"CD001"),
    // The first of ZFS's uberblocks, in either byte order.
    ("ZFS", 0x20000, b"\x0c\xb1\xba\x00\x00\x00\x00\x00"),
    ("ZFS", 0x20000, b"\x00\x00\x00\x00\x00\xba\xb1\x0c"),
];

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
