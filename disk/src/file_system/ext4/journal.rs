//! The journal of an ext4: presents it so that all of it is replayed, and checks that it can be.
//!
//! `ext4-view` stops replaying at the journal's last block, although the journal is a ring. So this module presents a
//! journal that begins at the block where replay starts.
//!
//! `ext4-view` also stops at the first invalid block. What it reads is then older than what was committed. That is
//! correct for a transaction that was under way when the snapshot was taken, because its commit block is written last.
//! A transaction with a commit block was complete, so anything invalid in it is damage. (The kernel's documentation,
//! "Journal (jbd2)")

use crate::file_system::{CRC, ReadError, Region};
use crate::numbers::{big_at, u16_at, u32_at};

const MAGIC: u64 = 0xc03b_3998;
const DESCRIPTOR: u64 = 1;
const COMMIT: u64 = 2;
const SUPERBLOCK: u64 = 4;
const REVOCATION: u64 = 5;
/// Offsets in the journal's superblock: the block where replay starts, and the checksum.
const START: usize = 0x1c;
const SUM: usize = 0xfc;
/// How many bytes after the last valid block are searched for a commit block. Transactions are rarely longer, and each
/// 512 KiB may have to be fetched.
const LOOKED_AT_BYTES: u64 = 2 * 1024 * 1024;

fn unknown(why: &str) -> ReadError {
    ReadError(format!("the ext4 can not be read: {why}"))
}

fn put(block: &mut [u8], at: usize, number: u32) {
    if let Some(there) = block.get_mut(at..at + 4) {
        there.copy_from_slice(&number.to_be_bytes());
    }
}

/// The type of a journal block, or `None` for a data block, which replay writes elsewhere.
fn kind(block: &[u8]) -> Option<u64> {
    match big_at(block, 0, 4) {
        Some(MAGIC) => big_at(block, 4, 4),
        _ => None,
    }
}

/// A journal with transactions to replay.
pub(super) struct Journal {
    region: Region,
    block_bytes: u64,
    /// Its extents in order, each as the first block's number on the partition and the number of blocks.
    extents: Vec<(u64, u64)>,
    uuid: Vec<u8>,
    /// The ring's first block, its number of blocks, and the block where replay starts.
    first: u64,
    length: u64,
    start: u64,
    /// Sequence number of the first transaction to replay.
    sequence: u32,
    /// The journal's own superblock, as presented to `ext4-view`.
    superblock: Vec<u8>,
}

impl Journal {
    /// Finds the journal from the file system's superblock. `None` if there is nothing to replay, or if the superblock
    /// does not show where the journal is.
    pub(super) fn find(
        region: &Region,
        superblock: &[u8],
        block_bytes: u64,
    ) -> Result<Option<Journal>, ReadError> {
        let needs_recovery = u32_at(superblock, 0x60).is_some_and(|features| features & 4 != 0);
        if !needs_recovery {
            return Ok(None);
        }
        // If the journal has more extents than fit into the superblock, this module does not know where it wraps or
        // whether it is intact. `ext4-view` then replays as much as it can.
        let Some(extents) = extents(superblock) else {
            return Ok(None);
        };
        let mut journal = Journal {
            region: region.clone(),
            block_bytes,
            extents,
            uuid: Vec::new(),
            first: 0,
            length: 0,
            start: 0,
            sequence: 0,
            superblock: Vec::new(),
        };
        let mut own = journal.block(0)?;
        let number = |at| big_at(&own, at, 4).unwrap_or(0);
        let (end, first, start) = (number(0x10), number(0x14), number(START));
        let blocks: u64 = journal.extents.iter().map(|(_, blocks)| blocks).sum();
        let is_one = kind(&own) == Some(SUPERBLOCK)
            && own.get(..1024).is_some_and(|own| journal.fits(own, SUM));
        if !is_one || first == 0 || first >= end || end > blocks {
            return Err(unknown("its journal's superblock is damaged"));
        }
        if start == 0 {
            return Ok(None);
        }
        if !(first..end).contains(&start) {
            return Err(unknown("its journal's superblock is damaged"));
        }
        journal.sequence = number(0x18) as u32;
        (journal.first, journal.length, journal.start) = (first, end - first, start);
        put(&mut own, START, first as u32);
        put(&mut own, SUM, 0);
        let sum = journal.sum(&[own.get(..1024).unwrap_or_default()]);
        put(&mut own, SUM, sum as u32);
        journal.uuid = own.get(0x30..0x40).unwrap_or_default().to_vec();
        journal.superblock = own;
        Ok(Some(journal))
    }

    /// Changes bytes that were read from `offset` of the partition, so that replay appears to start with the ring's
    /// first block.
    pub(super) fn show(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        let end = offset + buffer.len() as u64;
        for number in offset / self.block_bytes..end.div_ceil(self.block_bytes) {
            let shown = match self.index(number) {
                Some(0) => self.superblock.clone(),
                Some(index) if index >= self.first && index < self.first + self.length => {
                    self.replayed(index - self.first)?
                }
                _ => continue,
            };
            let start = number * self.block_bytes;
            let (from, to) = (offset.max(start), end.min(start + self.block_bytes));
            let within = |base: u64| (from - base) as usize..(to - base) as usize;
            if let (Some(there), Some(shown)) =
                (buffer.get_mut(within(offset)), shown.get(within(start)))
            {
                there.copy_from_slice(shown);
            }
        }
        Ok(())
    }

    /// Rejects a journal with a transaction that was committed but cannot be replayed.
    pub(super) fn check(&self) -> Result<(), ReadError> {
        let (mut at, mut sequence) = (0, self.sequence);
        while let Some((blocks, is_commit)) = self.sound(at, sequence)? {
            at += blocks;
            sequence = sequence.wrapping_add(is_commit.into());
        }
        let looked_at = LOOKED_AT_BYTES / self.block_bytes;
        for behind in at..self.length.min(at + looked_at) {
            let block = self.replayed(behind)?;
            let is_later = |found: u64| (found as u32).wrapping_sub(sequence) < 1 << 31;
            if kind(&block) == Some(COMMIT)
                && big_at(&block, 8, 4).is_some_and(is_later)
                && (behind == at || self.fits(&block, 16))
            {
                return Err(unknown(
                    "its journal is damaged, so that the last changes are not known",
                ));
            }
        }
        Ok(())
    }

    /// The index within the journal of a block of the partition, or `None` if the journal does not contain it.
    fn index(&self, number: u64) -> Option<u64> {
        let mut before = 0;
        for (start, blocks) in &self.extents {
            if (*start..start + blocks).contains(&number) {
                return Some(before + number - start);
            }
            before += blocks;
        }
        None
    }

    /// A block of the ring, counted from the block where replay starts.
    fn replayed(&self, at: u64) -> Result<Vec<u8>, ReadError> {
        self.block(self.first + (self.start - self.first + at) % self.length)
    }

    fn block(&self, at: u64) -> Result<Vec<u8>, ReadError> {
        let mut bytes = vec![0; self.block_bytes as usize];
        let mut left = at;
        for (start, blocks) in &self.extents {
            if left < *blocks {
                let at = (start + left).saturating_mul(self.block_bytes);
                self.region.read_at(at, &mut bytes)?;
                return Ok(bytes);
            }
            left -= blocks;
        }
        Err(unknown("its journal is shorter than it claims"))
    }

    /// The number of blocks in the part of a transaction that begins with this block, and whether that is its commit
    /// block. `None` if anything in it is invalid.
    fn sound(&self, at: u64, sequence: u32) -> Result<Option<(u64, bool)>, ReadError> {
        if at >= self.length {
            return Ok(None);
        }
        let block = self.replayed(at)?;
        if big_at(&block, 8, 4) != Some(sequence.into()) {
            return Ok(None);
        }
        let tail = block.len() - 4;
        match kind(&block) {
            Some(COMMIT) if self.fits(&block, 16) => Ok(Some((1, true))),
            Some(REVOCATION) if self.fits(&block, tail) => Ok(Some((1, false))),
            Some(DESCRIPTOR) if self.fits(&block, tail) => {
                let mut blocks = 1;
                let mut tag = 12;
                while let (Some(flags), Some(sum)) =
                    (big_at(&block, tag + 4, 4), big_at(&block, tag + 12, 4))
                {
                    if at + blocks >= self.length {
                        return Ok(None);
                    }
                    let data = self.replayed(at + blocks)?;
                    if self.sum(&[&sequence.to_be_bytes(), &data]) != sum {
                        return Ok(None);
                    }
                    blocks += 1;
                    if flags & 8 != 0 {
                        return Ok(Some((blocks, false)));
                    }
                    tag += if flags & 2 != 0 { 16 } else { 32 };
                }
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// Whether the checksum at `at` is valid. Its own bytes count as zeros.
    fn fits(&self, block: &[u8], at: usize) -> bool {
        let (Some(first), Some(last)) = (block.get(..at), block.get(at + 4..)) else {
            return false;
        };
        big_at(block, at, 4) == Some(self.sum(&[first, &[0; 4], last]))
    }

    /// The checksum of the journal's UUID and `parts`. The superblock's own checksum omits the UUID, which is not known
    /// before the superblock is read. Unlike XFS's checksum, it is not inverted.
    fn sum(&self, parts: &[&[u8]]) -> u64 {
        let mut digest = CRC.digest();
        digest.update(&self.uuid);
        for part in parts {
            digest.update(part);
        }
        (!digest.finalize()).into()
    }
}

/// The journal's extents, from the superblock's copy of the journal's inode. `None` if there is no copy, or if the
/// journal has more than four extents.
fn extents(superblock: &[u8]) -> Option<Vec<(u64, u64)>> {
    const COPY: usize = 0x10c;
    let number = |at| u16_at(superblock, COPY + at).map(u64::from);
    let is_there = superblock.get(0xfd) == Some(&1) && number(0)? == 0xf30a;
    let (count, depth) = (number(2)?, number(6)?);
    if !is_there || depth != 0 || count > 4 {
        return None;
    }
    (0..count as usize)
        .map(|extent| {
            let at = 12 + 12 * extent;
            let low = u32_at(superblock, COPY + at + 8)?;
            Some(((number(at + 6)? << 32) | u64::from(low), number(at + 4)?))
        })
        .collect()
}
