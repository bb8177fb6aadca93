//! Keeps the checksums of a patched disk valid.
//!
//! A reader rejects data whose checksum is wrong, so the fuzzer would otherwise reach little of the code. An attacker
//! who makes a disk writes valid checksums.
//!
//! A CRC is linear: its change depends only on which bits changed and where. So the fuzzer must know only where the
//! checksums are and what they cover. It need not know their initial values, such as an inode's number or a file
//! system's UUID.

use std::collections::BTreeMap;

use crate::image::Image;

const CASTAGNOLI: u32 = 0x82f6_3b78;
const IEEE: u32 = 0xedb8_8320;

/// One checksum.
pub(crate) struct Sum {
    /// The parts it covers, in order, each as offset and length.
    covers: Vec<(u64, u64)>,
    /// Offsets of its own bytes, least significant first. If the checksum covers them, they count as zeros.
    at: Vec<u64>,
    polynomial: u32,
}

impl Sum {
    fn new(covers: Vec<(u64, u64)>, at: Vec<u64>) -> Sum {
        Sum {
            covers,
            at,
            polynomial: CASTAGNOLI,
        }
    }

    /// Changes the checksum to match the patches to the data it covers.
    pub(crate) fn repair(&self, image: &Image, bytes: &mut BTreeMap<u64, u8>) {
        let mut changed: Vec<(u64, u8)> = Vec::new();
        let mut length = 0;
        for (start, part) in &self.covers {
            for (at, byte) in bytes.range(*start..start + part) {
                let difference = byte ^ image.byte(*at);
                if difference != 0 && !self.at.contains(at) {
                    changed.push((length + at - start, difference));
                }
            }
            length += part;
        }
        if changed.is_empty() {
            return;
        }
        let mut register = 0;
        let mut here = 0;
        for (at, difference) in changed {
            register = shift(register, at - here, self.polynomial) ^ u32::from(difference);
            here = at;
        }
        register = shift(register, length - here, self.polynomial);
        for (at, difference) in self.at.iter().zip(register.to_le_bytes()) {
            bytes.insert(*at, image.byte(*at) ^ difference);
        }
    }
}

/// The CRC register after `bytes` zero bytes.
fn shift(mut register: u32, bytes: u64, polynomial: u32) -> u32 {
    if register == 0 {
        return 0;
    }
    for _ in 0..bytes * 8 {
        let carry = register & 1;
        register = (register >> 1) ^ (polynomial * carry);
    }
    register
}

/// The checksums of an image. A checksum that another one covers comes before it.
pub(crate) fn find(image: &Image) -> Vec<Sum> {
    let mut sums = Vec::new();
    for page in image.pages() {
        for at in (page..page + 4096).step_by(512) {
            xfs(image, at, &mut sums);
        }
        btrfs(image, page, &mut sums);
        ext4(image, page, &mut sums);
        journal(image, page, &mut sums);
    }
    for at in [512, image.size() - 512] {
        gpt(image, at, &mut sums);
    }
    sums
}

fn gpt(image: &Image, at: u64, sums: &mut Vec<Sum>) {
    if image.bytes(at, 8) != b"EFI PART" {
        return;
    }
    let entries = image.little(at + 72, 8).saturating_mul(512);
    let length = image.little(at + 80, 4) * image.little(at + 84, 4);
    if entries > image.size() || length > 1024 * 1024 {
        return;
    }
    for (covers, stored) in [((entries, length), at + 88), ((at, 92), at + 16)] {
        sums.push(Sum {
            covers: vec![covers],
            at: (stored..stored + 4).collect(),
            polynomial: IEEE,
        });
    }
}

fn xfs(image: &Image, at: u64, sums: &mut Vec<Sum>) {
    match image.bytes(at, 4).as_slice() {
        b"XFSB" if image.big(at + 100, 2) & 0xf == 5 => {
            let length = image.big(at + 102, 2);
            sums.push(Sum::new(vec![(at, length)], (at + 224..at + 228).collect()));
        }
        [b'I', b'N', ..] if image.bytes(at + 4, 1) == [3] => {
            sums.push(Sum::new(vec![(at, 512)], (at + 100..at + 104).collect()));
        }
        // A directory block, of the size at which its checksum is valid.
        b"XDB3" | b"XDD3" => {
            let stored = image.bytes(at + 4, 4);
            let fits = |length: &u64| {
                let mut register = u32::MAX;
                for (place, byte) in (0..).zip(image.bytes(at, *length)) {
                    let byte = if (4..8).contains(&place) { 0 } else { byte };
                    register = shift(register ^ u32::from(byte), 1, CASTAGNOLI);
                }
                stored == (!register).to_le_bytes()
            };
            if let Some(length) = [1024, 2048, 4096, 8192, 16_384].into_iter().find(fits) {
                sums.push(Sum::new(vec![(at, length)], (at + 4..at + 8).collect()));
            }
        }
        // A log record: its header, the further headers that its length requires, and its body.
        [0xfe, 0xed, 0xba, 0xbe] => {
            let (length, size) = (image.big(at + 12, 4), image.big(at + 320, 4));
            let sectors = length.div_ceil(512);
            let headers = match image.big(at + 8, 4) & 2 != 0 && size > 32 * 1024 {
                true => size.div_ceil(32 * 1024),
                false => 1,
            };
            let mut covers = vec![(at, 328)];
            for header in 1..headers.min(sectors.div_ceil(64)) {
                covers.push((at + header * 512, 260));
            }
            covers.push((at + headers * 512, length));
            sums.push(Sum::new(covers, (at + 32..at + 36).collect()));
        }
        _ => {}
    }
}

fn btrfs(image: &Image, page: u64, sums: &mut Vec<Sum>) {
    let length = match image.bytes(page + 0x40, 8).as_slice() {
        b"_BHRfS_M" => 4096,
        _ => 16 * 1024,
    };
    let bytes = image.bytes(page, length);
    let mut register = u32::MAX;
    for byte in &bytes[32..] {
        register = shift(register ^ u32::from(*byte), 1, CASTAGNOLI);
    }
    if bytes[..4] == (!register).to_le_bytes() {
        sums.push(Sum::new(
            vec![(page + 32, length - 32)],
            (page..page + 4).collect(),
        ));
    }
}

/// The checksums of an ext4 file system whose superblock is in this page.
fn ext4(image: &Image, page: u64, sums: &mut Vec<Sum>) {
    let superblock = page + 1024;
    let has_sums = image.little(superblock + 0x64, 4) & 0x400 != 0;
    let is_first = image.little(superblock + 0x5a, 2) == 0;
    if image.bytes(superblock + 0x38, 2) != [0x53, 0xef] || !has_sums || !is_first {
        return;
    }
    let block = 1024 << image.little(superblock + 0x18, 4).min(6);
    let blocks = image.little(superblock + 4, 4);
    let per_group = image.little(superblock + 0x20, 4).max(1);
    let inodes = image.little(superblock + 0x28, 4);
    let inode = image.little(superblock + 0x58, 2);
    let descriptor = match image.little(superblock + 0x60, 4) & 0x80 != 0 {
        true => image.little(superblock + 0xfe, 2),
        false => 32,
    };
    let descriptors = page + block * (image.little(superblock + 0x14, 4) + 1);
    let mut trees = Vec::new();
    for group in 0..blocks.div_ceil(per_group) {
        let at = descriptors + group * descriptor;
        let table = page + image.little(at + 8, 4) * block;
        for at in (table..table + inodes * inode).step_by(inode as usize) {
            if image.little(at, 2) == 0 {
                continue;
            }
            let mut stored = vec![at + 0x7c, at + 0x7d];
            if inode > 128 && image.little(at + 0x80, 2) >= 4 {
                stored.extend([at + 0x82, at + 0x83]);
            }
            sums.push(Sum::new(vec![(at, inode)], stored));
            trees.push(at + 0x28);
        }
        sums.push(Sum::new(vec![(at, descriptor)], vec![at + 0x1e, at + 0x1f]));
    }
    sums.push(Sum::new(
        vec![(superblock, 0x3fc)],
        (superblock + 0x3fc..superblock + 0x400).collect(),
    ));
    for other in image.pages().filter(|other| *other > page) {
        for at in (other..other + 4096).step_by(block.min(4096) as usize) {
            let tail = at + block - 12;
            if image.bytes(tail, 8) == [0, 0, 0, 0, 12, 0, 0, 0xde] {
                sums.push(Sum::new(
                    vec![(at, block - 12)],
                    (tail + 8..tail + 12).collect(),
                ));
            }
            if image.bytes(at, 2) == [0x0a, 0xf3] && !trees.contains(&at) {
                let length = 12 + 12 * image.little(at + 4, 2);
                let stored = at + length;
                sums.push(Sum::new(vec![(at, length)], (stored..stored + 4).collect()));
            }
        }
    }
}

/// The checksums of the blocks of an ext4 journal.
fn journal(image: &Image, page: u64, sums: &mut Vec<Sum>) {
    if image.bytes(page, 4) != [0xc0, 0x3b, 0x39, 0x98] {
        return;
    }
    let (length, at) = match image.big(page + 4, 4) {
        1 | 5 => (4096, 4092),
        2 => (4096, 0x10),
        4 => (1024, 0xfc),
        _ => return,
    };
    let stored = (page + at..page + at + 4).rev().collect();
    sums.push(Sum::new(vec![(page, length)], stored));
}
