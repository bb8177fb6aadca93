//! Checks that the log of an XFS contains everything that is still to be replayed.
//!
//! `lamxfs` replays the log as Linux does. If one of the last eight records is bad, both treat it as a write that was
//! cut off. What they read is then older than what was committed. That is correct for a write that was under way when
//! the snapshot was taken, but wrong for damage.
//!
//! The two can be told apart. Each sector of the log begins with the number of the pass over the log that wrote it. A
//! record that was cut off still has sectors of the previous pass. A damaged record was written completely. ("XFS
//! Algorithms & Data Structures", "Journaling Log"; the kernel's `xlog_find_head`, `xlog_verify_head`)

use super::layout::Layout;
use crate::file_system::{CRC, ReadError, Region};
use crate::numbers::{big_at, u32_at};

const SECTOR: u64 = 512;
const MAGIC: u64 = 0xfeed_babe;
const MOST_BODY_BYTES: u64 = 256 * 1024;
/// Length of the longest record, in sectors: its body, and a header for each 32 KiB of it.
const LONGEST: u64 = MOST_BODY_BYTES / SECTOR + 8;
const UNMOUNT: u8 = 0x20;

/// Rejects a log in which a record is damaged, between the oldest one that is still to be replayed and the last.
pub(super) fn check(region: &Region, layout: &Layout) -> Result<(), ReadError> {
    let log = Log::new(region, layout).ok_or_else(damaged)?;
    let head = log.head()?;
    let mut last = log.last_before(head)?;
    let mut end = log.after(&last);
    let new = last.pass + u64::from(end < last.at);
    let behind = log.read(end, LONGEST.min(log.sectors - end))?;
    let mut behind = behind.chunks(SECTOR as usize);
    let is_sound = if last.is_whole {
        behind.next().and_then(pass) == new.checked_sub(1)
    } else {
        log.is_cut_off(&last)?
    };
    if !is_sound || behind.any(|sector| is_header(sector) && pass(sector) == Some(new)) {
        return Err(damaged());
    }
    if !last.is_whole {
        end = last.at;
        last = log.last_before(end)?;
    }
    // `lamxfs` finds the same end, unless the sectors that mark the end are damaged.
    if log.distance(end, head) > LONGEST {
        return Err(damaged());
    }
    let mut at = last.tail;
    let mut left = log.distance(at.min(log.sectors), end);
    while left > 0 {
        match log.record(at)? {
            Some(record) if record.is_whole && record.sectors <= left => {
                left -= record.sectors;
                at = log.after(&record);
            }
            _ => return Err(damaged()),
        }
    }
    Ok(())
}

fn damaged() -> ReadError {
    ReadError::new(
        "the XFS can not be read: its log is damaged, so that the last changes are not known",
    )
}

/// The pass over the log in which a sector was written. A header has a separate field for it.
fn pass(sector: &[u8]) -> Option<u64> {
    big_at(sector, if is_header(sector) { 4 } else { 0 }, 4)
}

fn is_header(sector: &[u8]) -> bool {
    big_at(sector, 0, 4) == Some(MAGIC)
}

/// One record of the log.
struct Record {
    /// Its first sector, and its number of sectors.
    at: u64,
    sectors: u64,
    pass: u64,
    /// First sector of the oldest record that was still to be replayed when this one was written.
    tail: u64,
    /// Whether its checksum is valid.
    is_whole: bool,
}

/// The log, a ring of sectors.
struct Log<'a> {
    region: &'a Region,
    start: u64,
    sectors: u64,
    uuid: &'a [u8],
}

impl Log<'_> {
    fn new<'a>(region: &'a Region, layout: &'a Layout) -> Option<Log<'a>> {
        let group = layout.log_start >> layout.group_bits;
        let block = layout.log_start & ((1 << layout.group_bits) - 1);
        let block = group.checked_mul(layout.group_blocks)?.checked_add(block)?;
        let start = block.checked_mul(layout.block_bytes)?;
        let bytes = layout.log_blocks.checked_mul(layout.block_bytes)?;
        let is_within = start.checked_add(bytes)? <= region.length();
        is_within.then_some(Log {
            region,
            start,
            sectors: bytes / SECTOR,
            uuid: &layout.uuid,
        })
    }

    /// Reads sectors from `at`, and wraps around at the ring's end.
    fn read(&self, at: u64, sectors: u64) -> Result<Vec<u8>, ReadError> {
        let before_end = sectors.min(self.sectors - at);
        let mut bytes = vec![0; (sectors * SECTOR) as usize];
        let (first, rest) = bytes.split_at_mut((before_end * SECTOR) as usize);
        self.region.read_at(self.start + at * SECTOR, first)?;
        self.region.read_at(self.start, rest)?;
        Ok(bytes)
    }

    fn pass(&self, at: u64) -> Result<u64, ReadError> {
        pass(&self.read(at, 1)?).ok_or_else(damaged)
    }

    /// The sector that the next record would be written to: the first one of the previous pass.
    fn head(&self) -> Result<u64, ReadError> {
        let mut last = self.sectors.checked_sub(1).ok_or_else(damaged)?;
        let (now, before) = (self.pass(0)?, self.pass(last)?);
        if now == before && now != 0 {
            return Ok(0);
        }
        if now != before + 1 {
            return Err(damaged());
        }
        let mut first = 0;
        while last - first > 1 {
            let middle = first + (last - first) / 2;
            match self.pass(middle)? == before {
                true => last = middle,
                false => first = middle,
            }
        }
        Ok(last)
    }

    /// The record that begins in a sector, or `None` if no valid header is there.
    fn record(&self, at: u64) -> Result<Option<Record>, ReadError> {
        if at >= self.sectors {
            return Ok(None);
        }
        let header = self.read(at, 1)?;
        let number = |at, length| big_at(&header, at, length).unwrap_or(0);
        let (body, buffer) = (number(12, 4), number(320, 4));
        let is_one = is_header(&header) && header.get(304..320) == Some(self.uuid);
        if !is_one || body > MOST_BODY_BYTES || buffer > MOST_BODY_BYTES {
            return Ok(None);
        }
        // From version 2, longer records have further headers.
        let headers = match number(8, 4) & 2 {
            0 => 1,
            _ => buffer.div_ceil(32 * 1024).max(1),
        };
        let sectors = headers + body.div_ceil(SECTOR);
        if sectors >= self.sectors {
            return Ok(None);
        }
        let bytes = self.read(at, sectors)?;
        let part = |at: u64, length: u64| {
            let at = at as usize;
            bytes.get(at..at + length as usize).unwrap_or_default()
        };
        let content = part(headers * SECTOR, body);
        let mut digest = CRC.digest();
        for part in [part(0, 32), &[0; 4], part(36, 292)] {
            digest.update(part);
        }
        for header in 1..headers.min(body.div_ceil(32 * 1024)) {
            digest.update(part(header * SECTOR, 260));
        }
        digest.update(content);
        let sum = u32_at(&header, 32);
        // mkfs.xfs writes the first record of a log without a checksum.
        let is_first = sum == Some(0)
            && number(40, 4) == 1
            && content.get(9).is_some_and(|flags| flags & UNMOUNT != 0);
        Ok(Some(Record {
            at,
            sectors,
            pass: number(4, 4),
            tail: number(28, 4),
            is_whole: is_first || sum == Some(digest.finalize()),
        }))
    }

    /// The last record that begins before a sector.
    fn last_before(&self, end: u64) -> Result<Record, ReadError> {
        for back in 1..=LONGEST.min(self.sectors) {
            if let Some(record) = self.record((end + self.sectors - back) % self.sectors)? {
                return Ok(record);
            }
        }
        Err(damaged())
    }

    /// The sector after a record.
    fn after(&self, record: &Record) -> u64 {
        (record.at + record.sectors) % self.sectors
    }

    fn distance(&self, from: u64, to: u64) -> u64 {
        (to + self.sectors - from) % self.sectors
    }

    /// Whether a sector of the record still has the number of the previous pass.
    fn is_cut_off(&self, record: &Record) -> Result<bool, ReadError> {
        let bytes = self.read(record.at, record.sectors)?;
        Ok((record.at..)
            .zip(bytes.chunks(SECTOR as usize))
            .any(|(at, sector)| {
                let before = match at < self.sectors {
                    true => record.pass.checked_sub(1),
                    false => Some(record.pass),
                };
                before.is_some() && pass(sector) == before
            }))
    }
}
