//! The checksums of a disk, kept right under patches.
//!
//! A reader turns away what its checksum does not fit, and then the fuzzer would see little of it; whoever makes a
//! disk to deceive writes right ones. A CRC is linear: how it changes depends on which bits changed where, and on
//! nothing else. So it is enough to know where the checksums are and what they cover, not what they begin with (an
//! inode's number, a file system's UUID).

use std::collections::BTreeMap;

use crate::base::Base;

const CASTAGNOLI: u32 = 0x82f6_3b78;
const IEEE: u32 = 0xedb8_8320;

/// One checksum.
pub(crate) struct Sum {
    /// What it covers: offset and length of each part, in their order.
    covers: Vec<(u64, u64)>,
    /// Where its bytes are, the lowest first. If these are covered, they count as zeros.
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

    /// Changes the checksum as the patches change what it covers.
    fn repair(&self, base: &Base, bytes: &mut BTreeMap<u64, u8>) {
        let mut changed: Vec<(u64, u8)> = Vec::new();
        let mut length = 0;
        for (start, part) in &self.covers {
            for (at, byte) in bytes.range(*start..start + part) {
                let difference = byte ^ base.byte(*at);
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
            bytes.insert(*at, base.byte(*at) ^ difference);
        }
    }
}

/// The register after so many bytes of zeros.
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

/// Makes all checksums fit the patches.
pub(crate) fn repair(base: &Base, bytes: &mut BTreeMap<u64, u8>) {
    for sum in &base.sums {
        sum.repair(base, bytes);
    }
}

/// The checksums of an image, those first that others cover.
pub(crate) fn find(base: &Base) -> Vec<Sum> {
    let mut sums = Vec::new();
    for page in base.pages() {
        for at in (page..page + 4096).step_by(512) {
            xfs(base, at, &mut sums);
        }
        btrfs(base, page, &mut sums);
        ext4(base, page, &mut sums);
        journal(base, page, &mut sums);
    }
    for at in [512, base.size() - 512] {
        gpt(base, at, &mut sums);
    }
    sums
}

fn gpt(base: &Base, at: u64, sums: &mut Vec<Sum>) {
    if base.bytes(at, 8) != b"EFI PART" {
        return;
    }
    let entries = base.little(at + 72, 8).saturating_mul(512);
    let length = base.little(at + 80, 4) * base.little(at + 84, 4);
    if entries > base.size() || length > 1024 * 1024 {
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

fn xfs(base: &Base, at: u64, sums: &mut Vec<Sum>) {
    match base.bytes(at, 4).as_slice() {
        b"XFSB" if base.big(at + 100, 2) & 0xf == 5 => {
            let length = base.big(at + 102, 2);
            sums.push(Sum::new(vec![(at, length)], (at + 224..at + 228).collect()));
        }
        [b'I', b'N', ..] if base.bytes(at + 4, 1) == [3] => {
            sums.push(Sum::new(vec![(at, 512)], (at + 100..at + 104).collect()));
        }
        // A block of a folder, of whatever size its checksum fits.
        b"XDB3" | b"XDD3" => {
            let stored = base.bytes(at + 4, 4);
            let fits = |length: &u64| {
                let mut register = u32::MAX;
                for (place, byte) in (0..).zip(base.bytes(at, *length)) {
                    let byte = if (4..8).contains(&place) { 0 } else { byte };
                    register = shift(register ^ u32::from(byte), 1, CASTAGNOLI);
                }
                stored == (!register).to_le_bytes()
            };
            if let Some(length) = [1024, 2048, 4096, 8192, 16_384].into_iter().find(fits) {
                sums.push(Sum::new(vec![(at, length)], (at + 4..at + 8).collect()));
            }
        }
        // A record of the log: its header, the further headers that its length takes, its body.
        [0xfe, 0xed, 0xba, 0xbe] => {
            let (length, size) = (base.big(at + 12, 4), base.big(at + 320, 4));
            let sectors = length.div_ceil(512);
            let headers = match base.big(at + 8, 4) & 2 != 0 && size > 32 * 1024 {
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

fn btrfs(base: &Base, page: u64, sums: &mut Vec<Sum>) {
    let length = match base.bytes(page + 0x40, 8).as_slice() {
        b"_BHRfS_M" => 4096,
        _ => 16 * 1024,
    };
    let bytes = base.bytes(page, length);
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

/// The checksums of an ext4 whose superblock's page this is.
fn ext4(base: &Base, page: u64, sums: &mut Vec<Sum>) {
    let superblock = page + 1024;
    let has_sums = base.little(superblock + 0x64, 4) & 0x400 != 0;
    let is_first = base.little(superblock + 0x5a, 2) == 0;
    if base.bytes(superblock + 0x38, 2) != [0x53, 0xef] || !has_sums || !is_first {
        return;
    }
    let block = 1024 << base.little(superblock + 0x18, 4).min(6);
    let blocks = base.little(superblock + 4, 4);
    let per_group = base.little(superblock + 0x20, 4).max(1);
    let inodes = base.little(superblock + 0x28, 4);
    let inode = base.little(superblock + 0x58, 2);
    let descriptor = match base.little(superblock + 0x60, 4) & 0x80 != 0 {
        true => base.little(superblock + 0xfe, 2),
        false => 32,
    };
    let descriptors = page + block * (base.little(superblock + 0x14, 4) + 1);
    let mut trees = Vec::new();
    for group in 0..blocks.div_ceil(per_group) {
        let at = descriptors + group * descriptor;
        let table = page + base.little(at + 8, 4) * block;
        for at in (table..table + inodes * inode).step_by(inode as usize) {
            if base.little(at, 2) == 0 {
                continue;
            }
            let mut stored = vec![at + 0x7c, at + 0x7d];
            if inode > 128 && base.little(at + 0x80, 2) >= 4 {
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
    for other in base.pages().filter(|other| *other > page) {
        for at in (other..other + 4096).step_by(block.min(4096) as usize) {
            let tail = at + block - 12;
            if base.bytes(tail, 8) == [0, 0, 0, 0, 12, 0, 0, 0xde] {
                sums.push(Sum::new(
                    vec![(at, block - 12)],
                    (tail + 8..tail + 12).collect(),
                ));
            }
            if base.bytes(at, 2) == [0x0a, 0xf3] && !trees.contains(&at) {
                let length = 12 + 12 * base.little(at + 4, 2);
                let stored = at + length;
                sums.push(Sum::new(vec![(at, length)], (stored..stored + 4).collect()));
            }
        }
    }
}

/// The checksums of the blocks of ext4's journal.
fn journal(base: &Base, page: u64, sums: &mut Vec<Sum>) {
    if base.bytes(page, 4) != [0xc0, 0x3b, 0x39, 0x98] {
        return;
    }
    let (length, at) = match base.big(page + 4, 4) {
        1 | 5 => (4096, 4092),
        2 => (4096, 0x10),
        4 => (1024, 0xfc),
        _ => return,
    };
    let stored = (page + at..page + at + 4).rev().collect();
    sums.push(Sum::new(vec![(page, length)], stored));
}
