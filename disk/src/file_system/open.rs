//! Detects what a partition contains, and opens the file systems that can be read.

use super::{FileSystem, ReadError, Region, btrfs, ext4, ntfs, xfs};

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
