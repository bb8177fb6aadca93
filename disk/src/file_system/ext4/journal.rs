//! The journal of an ext4: whether all that was committed to it can be replayed.
//!
//! `ext4-view` ends at the first block that is not as it should be, and at the journal's last one, although the journal is a
//! ring. What is read is then older than what was committed. That is right for a transaction under way when the snapshot
//! was taken: its commit block is written once all others are there. So a transaction with a commit block was complete, and
//! what is wrong in it is damage. (The kernel's documentation, "Journal (jbd2)")

use crate::file_system::{CRC, Region, Trouble};
use crate::numbers::{big_at, u16_at, u32_at};

const MAGIC: u64 = 0xc03b_3998;
const DESCRIPTOR: u64 = 1;
const COMMIT: u64 = 2;
const SUPERBLOCK: u64 = 4;
const REVOCATION: u64 = 5;
/// How far behind the last sound block a commit block is looked for. Transactions are rarely longer, and each 512 KiB
/// may have to be fetched.
const LOOKED_AT_BYTES: u64 = 2 * 1024 * 1024;

/// Refuses a journal that holds a transaction which was committed and cannot be replayed, by the file system's superblock.
pub(super) fn check(region: &Region, superblock: &[u8], block_bytes: u64) -> Result<(), Trouble> {
    let needs_recovery = u32_at(superblock, 0x60).is_some_and(|features| features & 4 != 0);
    if !needs_recovery {
        return Ok(());
    }
    let Some(journal) = Journal::new(region, superblock, block_bytes)? else {
        return Err(unknown("it is not clear where its journal is"));
    };
    let (mut at, mut sequence) = (journal.start, journal.sequence);
    if at == 0 {
        return Ok(());
    }
    while let Some((blocks, is_commit)) = journal.sound(at, sequence)? {
        at += blocks;
        sequence = sequence.wrapping_add(is_commit.into());
    }
    let unread = (journal.end + journal.start).saturating_sub(journal.first + at);
    for behind in 0..unread.min(LOOKED_AT_BYTES / block_bytes) {
        let place = match at + behind {
            place if place < journal.end => place,
            place => place - journal.end + journal.first,
        };
        let block = journal.block(place)?;
        let is_later = |found: u64| (found as u32).wrapping_sub(sequence) < 1 << 31;
        if kind(&block) == Some(COMMIT)
            && big_at(&block, 8, 4).is_some_and(is_later)
            && (journal.fits(&block, 16) || behind == 0)
        {
            return Err(unknown(
                "not all of its journal can be replayed, so that the last changes are not known",
            ));
        }
    }
    Ok(())
}

fn unknown(why: &str) -> Trouble {
    Trouble(format!("the ext4 can not be read: {why}"))
}

/// What a block of the journal is. `None` if it is one of those that are to be written elsewhere.
fn kind(block: &[u8]) -> Option<u64> {
    match big_at(block, 0, 4) {
        Some(MAGIC) => big_at(block, 4, 4),
        _ => None,
    }
}

struct Journal<'a> {
    region: &'a Region,
    block_bytes: u64,
    /// Its blocks as they follow each other: the number of the first one on the partition, and how many there are.
    extents: Vec<(u64, u64)>,
    uuid: Vec<u8>,
    /// The ring's first block, and the one behind its last.
    first: u64,
    end: u64,
    /// The block with which replaying begins, 0 if there is nothing to be replayed; and its transaction.
    start: u64,
    sequence: u32,
}

impl Journal<'_> {
    fn new<'a>(
        region: &'a Region,
        superblock: &[u8],
        block_bytes: u64,
    ) -> Result<Option<Journal<'a>>, Trouble> {
        let Some(extents) = extents(superblock) else {
            return Ok(None);
        };
        let mut journal = Journal {
            region,
            block_bytes,
            extents,
            uuid: Vec::new(),
            first: 0,
            end: 1,
            start: 0,
            sequence: 0,
        };
        let own = journal.block(0)?;
        let number = |at| big_at(&own, at, 4).unwrap_or(0);
        journal.uuid = own.get(0x30..0x40).unwrap_or_default().to_vec();
        (journal.end, journal.first) = (number(0x10), number(0x14));
        (journal.sequence, journal.start) = (number(0x18) as u32, number(0x1c));
        let blocks: u64 = journal.extents.iter().map(|(_, blocks)| blocks).sum();
        let is_one = kind(&own) == Some(SUPERBLOCK)
            && (1..journal.end).contains(&journal.first)
            && journal.start < journal.end
            && journal.end <= blocks;
        Ok(is_one.then_some(journal))
    }

    fn block(&self, at: u64) -> Result<Vec<u8>, Trouble> {
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

    /// How many blocks there are of what begins with this one of a transaction, and whether that is its commit block.
    /// `None` if anything of it is wrong.
    fn sound(&self, at: u64, sequence: u32) -> Result<Option<(u64, bool)>, Trouble> {
        if at >= self.end {
            return Ok(None);
        }
        let block = self.block(at)?;
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
                    if at + blocks >= self.end {
                        return Ok(None);
                    }
                    let data = self.block(at + blocks)?;
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

    /// Whether the checksum at `at` is right, where it counts as zeros.
    fn fits(&self, block: &[u8], at: usize) -> bool {
        let (Some(first), Some(last)) = (block.get(..at), block.get(at + 4..)) else {
            return false;
        };
        big_at(block, at, 4) == Some(self.sum(&[first, &[0; 4], last]))
    }

    /// The checksum of these bytes, which begin with the journal's own UUID. It is not inverted, other than XFS's.
    fn sum(&self, parts: &[&[u8]]) -> u64 {
        let mut digest = CRC.digest();
        digest.update(&self.uuid);
        for part in parts {
            digest.update(part);
        }
        (!digest.finalize()).into()
    }
}

/// Where the journal is: the superblock has a copy of what its inode says. `None` if there is none, or if the journal is
/// in more than four pieces.
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
