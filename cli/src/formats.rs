//! Files that users have instead of raw disk images: other disk formats, archives and installation media. Each is
//! recognised by its signature, and comes with the command that makes a raw image of it.
//!
//! A file that may be a raw disk is never rejected. A signature far from the beginning counts only where the sectors of
//! a disk cannot look like it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// Number of bytes read at the beginning: up to the first volume descriptor of ISO 9660.
const BEGINNING: u64 = 17 * 2048;

/// Number of bytes read at the end: the footer of a VHD.
const END: u64 = 512;

/// The parts of a file that show its format.
pub(crate) struct Sample {
    beginning: Vec<u8>,
    /// Empty for a device, whose size is independent of its content.
    end: Vec<u8>,
    /// The size of the file in bytes.
    size: u64,
}

impl Sample {
    /// Reads the parts of a file. `is_file` tells that it is an ordinary file, not a device.
    pub(crate) fn read(file: &mut File, is_file: bool) -> io::Result<Sample> {
        let mut sample = Sample {
            beginning: Vec::new(),
            end: Vec::new(),
            size: file.metadata()?.len(),
        };
        file.take(BEGINNING).read_to_end(&mut sample.beginning)?;
        if is_file {
            file.seek(SeekFrom::Start(sample.size.saturating_sub(END)))?;
            file.take(END).read_to_end(&mut sample.end)?;
        }
        Ok(sample)
    }

    /// The format of a file that is not a raw image, and how to get a raw image. Commands are for a POSIX shell.
    pub(crate) fn format(&self, path: &str) -> Option<(&'static str, String)> {
        let file = shell_word(path);
        let raw = shell_word(&format!("{path}.raw"));
        let convert = |format: &str| {
            format!(
                "convert it with qemu-img convert{format} -O raw {file} {raw}, and inspect {raw}"
            )
        };
        let unpack =
            |command: &str| format!("unpack it with {command} < {file} > {raw}, and inspect {raw}");
        let extract = |command: &str, then: &str| {
            format!("unpack it with {command} {file}, and inspect {then}")
        };
        let inside = "the disk image in it";
        for (what, at, signature, how) in SIGNATURES {
            if self.has(*at, signature) {
                let how = match how {
                    How::Convert(format) => convert(format),
                    How::Unpack(command) => unpack(command),
                    How::Extract(command) => extract(command, inside),
                };
                return Some((what, how));
            }
        }
        if self.is_fixed_vhd() {
            // qemu-img treats a file without a header as a raw image, unless it is given the format.
            return Some(("a fixed VHD image", convert(" -f vpc")));
        }
        if self.is_tar() {
            let name = self.beginning.iter().take(100).take_while(|it| **it != 0);
            let name: Vec<u8> = name.copied().collect();
            // The descriptor is the first file of an OVA. (DMTF DSP0243, Open Virtualization Format, 5.3.)
            if name.to_ascii_lowercase().ends_with(b".ovf") {
                let then = "the disk in it, after you convert it with qemu-img convert -O raw <DISK>.vmdk <DISK>.raw";
                return Some(("an OVA archive", extract("tar -xf", then)));
            }
            return Some(("a tar archive", extract("tar -xf", inside)));
        }
        if self.is_iso() {
            let how = "it cannot be converted. Install from it, with virt-install for example, and inspect the \
                       installed disk";
            return Some(("an ISO 9660 image (an installation medium)", how.into()));
        }
        None
    }

    fn has(&self, at: usize, signature: &[u8]) -> bool {
        let rest = self.beginning.get(at..);
        rest.is_some_and(|rest| rest.starts_with(signature))
    }

    /// Whether the first sector has a boot signature, as on a disk with partitions, NTFS and FAT.
    fn has_boot_signature(&self) -> bool {
        self.has(510, &[0x55, 0xaa])
    }

    /// Whether the file is a fixed VHD. Its footer takes the last 512 bytes (511 before Virtual PC 2004) and begins
    /// with "conectix". Byte 60 of the footer begins the disk type 2, "fixed". ("Virtual Hard Disk Image Format
    /// Specification", Hard Disk Footer Format.) The disk itself comes before the footer, with or without a boot
    /// signature.
    fn is_fixed_vhd(&self) -> bool {
        let is_footer = |footer: &[u8]| {
            footer.starts_with(b"conectix") && footer.get(60..64) == Some(&[0, 0, 0, 2])
        };
        is_footer(&self.end) || self.end.get(1..).is_some_and(is_footer)
    }

    /// Whether the file is a tar archive: "ustar" at byte 257, the magic of a header. (POSIX.1-2017, pax, "ustar
    /// Interchange Format".) The header ends with zeros, where a bootable disk has its signature.
    fn is_tar(&self) -> bool {
        self.has(257, b"ustar") && !self.has_boot_signature()
    }

    /// Whether the file is an ISO 9660 medium: "CD001" in the first volume descriptor, at sector 16 of 2,048 bytes.
    /// (ECMA-119, 8.1.)
    ///
    /// A disk may have it between its partition table and its first partition, left from a medium that was once written
    /// to it. So with a boot signature, it counts only if the medium takes more than half of the file. A medium that
    /// also boots from a USB stick meets that condition.
    fn is_iso(&self) -> bool {
        if !self.has(32_769, b"CD001") {
            return false;
        }
        let at = |place: usize| u64::from(self.beginning.get(place).copied().unwrap_or_default());
        // Volume Space Size in blocks, and Logical Block Size, both little-endian first. (ECMA-119, 8.4.8 and 8.4.12.)
        let blocks = (0..4).map(|byte| at(32_768 + 80 + byte) << (8 * byte));
        let block = at(32_768 + 128) + (at(32_768 + 129) << 8);
        let medium = blocks.sum::<u64>().saturating_mul(block);
        !self.has_boot_signature() || medium.saturating_mul(2) > self.size
    }
}

/// Way to make a raw image of a file.
enum How {
    /// `qemu-img convert` with these options.
    Convert(&'static str),
    /// A command that decompresses its input.
    Unpack(&'static str),
    /// A command that extracts the files of an archive.
    Extract(&'static str),
}

use How::{Convert, Extract, Unpack};

/// A format, the offset of its signature, the signature, and the way to make a raw image.
type Signature = (&'static str, usize, &'static [u8], How);

const SIGNATURES: &[Signature] = &[
    // QEMU, docs/interop/qcow2.rst.
    ("a qcow2 image", 0, b"QFI\xfb", Convert("")),
    // QEMU, docs/interop/qed_spec.rst.
    ("a QED image", 0, b"QED\0", Convert("")),
    // QEMU, docs/interop/parallels.rst: the two magics.
    ("a Parallels image", 0, b"WithoutFreeSpace", Convert("")),
    ("a Parallels image", 0, b"WithouFreSpacExt", Convert("")),
    // VirtualBox, VDICore.h, and QEMU, block/vdi.c: 0xbeda107f after a text of 64 bytes, and version 1.1.
    (
        "a VDI image",
        64,
        b"\x7f\x10\xda\xbe\x01\0\x01\0",
        Convert(""),
    ),
    // VMware, "Virtual Disk Format 5.0": a sparse extent, the extent of an ESX host, and a text that describes extents.
    ("a VMDK image", 0, b"KDMV", Convert("")),
    ("a VMDK image", 0, b"COWD", Convert("")),
    (
        "a VMDK description",
        0,
        b"# Disk DescriptorFile",
        Convert(""),
    ),
    // "Virtual Hard Disk Image Format Specification": a dynamic or differencing disk begins with a copy of its footer.
    ("a VHD image", 0, b"conectix", Convert("")),
    // MS-VHDX, 2.2.1, File Type Identifier.
    ("a VHDX image", 0, b"vhdxfile", Convert("")),
    // RFC 1952, 2.3.1: the magic, and the only compression method.
    (
        "compressed with gzip",
        0,
        b"\x1f\x8b\x08",
        Unpack("gzip -d"),
    ),
    // "The .xz File Format", 2.1.1.1.
    ("compressed with xz", 0, b"\xfd7zXZ\0", Unpack("xz -d")),
    // RFC 8878, 3.1.1.
    (
        "compressed with zstd",
        0,
        b"\x28\xb5\x2f\xfd",
        Unpack("zstd -d"),
    ),
    // The bzip2 program, bzlib_private.h: BZ_HDR_B, _Z, _h; then the level.
    ("compressed with bzip2", 0, b"BZh", Unpack("bzip2 -d")),
    // "LZ4 Frame Format Description", Magic Number.
    (
        "compressed with lz4",
        0,
        b"\x04\x22\x4d\x18",
        Unpack("lz4 -d"),
    ),
    // The lzip manual, "File format".
    ("compressed with lzip", 0, b"LZIP\x01", Unpack("lzip -d")),
    // PKWARE, APPNOTE.TXT, 4.3.7: a local file header.
    ("a zip archive", 0, b"PK\x03\x04", Extract("unzip")),
    // 7-Zip, 7zFormat.txt, Signature.
    ("a 7z archive", 0, b"7z\xbc\xaf\x27\x1c", Extract("7z x")),
];

/// Quotes a text as one word of a POSIX shell.
fn shell_word(text: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._+-".contains(letter);
    match text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with these bytes at these offsets.
    fn sample(size: usize, parts: &[(usize, &[u8])]) -> Sample {
        let mut bytes = vec![0; size];
        for (at, part) in parts {
            bytes[*at..at + part.len()].copy_from_slice(part);
        }
        Sample {
            beginning: bytes[..size.min(BEGINNING as usize)].to_vec(),
            end: bytes[size.saturating_sub(END as usize)..].to_vec(),
            size: size as u64,
        }
    }

    const BOOTS: (usize, &[u8]) = (510, &[0x55, 0xaa]);

    #[test]
    fn what_may_be_a_raw_disk_is_not_refused() {
        let size = 1 << 20;
        let blocks = |number: u32| number.to_le_bytes();
        for (what, parts) in [
            ("nothing", &[][..]),
            ("a disk with partitions", &[BOOTS]),
            ("XFS without partitions", &[(0, b"XFSB")]),
            ("ext4 without partitions", &[(1080, b"\x53\xef")]),
            (
                "a disk that a small medium was written to once",
                &[
                    BOOTS,
                    (32_769, b"CD001"),
                    (32_848, &blocks(100)),
                    (32_896, &[0, 8]),
                ],
            ),
            ("boot code that has tar's magic", &[BOOTS, (257, b"ustar")]),
            (
                "VDI's magic without its version",
                &[(64, b"\x7f\x10\xda\xbe")],
            ),
            (
                "a text that ends with VHD's magic",
                &[(size - 512, b"conectix")],
            ),
        ] {
            let sample = sample(size, parts);
            assert_eq!(sample.format("disk.img"), None, "{what}");
        }
    }

    #[test]
    fn a_medium_that_boots_from_a_usb_stick_is_one() {
        let blocks = 400_u32.to_le_bytes();
        let parts = [
            BOOTS,
            (32_769, &b"CD001"[..]),
            (32_848, &blocks),
            (32_896, &[0, 8]),
        ];
        let told = sample(1 << 20, &parts).format("a.iso").unwrap();
        assert!(told.0.contains("ISO 9660"), "{told:?}");
    }

    #[test]
    fn commands_are_for_a_shell_whatever_the_file_is_called() {
        let (_, how) = sample(16, &[(0, b"QED\0")])
            .format("my 'disk'; rm -rf $HOME")
            .unwrap();
        assert!(
            how.contains(
                r"-O raw 'my '\''disk'\''; rm -rf $HOME' 'my '\''disk'\''; rm -rf $HOME.raw'"
            ),
            "{how}"
        );
    }
}
