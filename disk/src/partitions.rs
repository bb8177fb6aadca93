//! The parts of a disk that may hold a file system.

use std::fmt;

use gpt_disk_io::gpt_disk_types::{
    BlockSize, GptPartitionEntry, GptPartitionType, Guid, Lba, guid,
};
use gpt_disk_io::{BlockIo, Disk, DiskError};

use crate::file_system::{ReadError, Region};
use crate::numbers::u32_at;
use crate::volume::Volume;

/// EBS presents sectors of 512 bytes, whatever is below.
const SECTOR: u64 = 512;

/// Maximum number of partitions. Windows makes up to five, images of Linux distributions up to sixteen.
const MOST: usize = 64;

/// Maximum size of a GPT's partition table, in bytes.
const MOST_TABLE: usize = 1024 * 1024;

/// Types of MBR partitions: unused, extended, and the protective entry of a GPT.
const UNUSED: u8 = 0;
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];
const PROTECTIVE: u8 = 0xee;
/// The PReP boot partition of PowerPC machines.
const PREP: u8 = 0x41;

/// Types of GPT partitions for boot code: GRUB's BIOS boot partition, PowerPC's PReP partition, and Microsoft's
/// reserved partition.
const BOOT_CODE: [Guid; 3] = [
    guid!("21686148-6449-6e6f-744e-656564454649"),
    guid!("9e1a2d38-c612-4316-aa26-8b49521e5a8b"),
    guid!("e3c9e316-0b5c-4db8-817d-f92df00215ae"),
];

/// A partition, or the whole disk.
#[derive(Clone)]
pub(crate) struct Partition {
    /// Its number, or `None` for a disk without partitions.
    pub(crate) number: Option<u32>,
    pub(crate) region: Region,
    /// Whether its type is for boot code, which has a format of its own.
    pub(crate) is_boot_code: bool,
}

/// Writes `partition 4`, or `the disk`.
impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            Some(number) => write!(f, "partition {number}"),
            None => f.write_str("the disk"),
        }
    }
}

/// The partitions of a disk by number, or the whole disk if it has no table.
///
/// # Errors
/// [`ReadError`], if there is a table that cannot be read.
pub(crate) fn partitions(volume: &Volume) -> Result<Vec<Partition>, ReadError> {
    if volume.size() < SECTOR {
        return Err(ReadError::new("the disk is empty"));
    }
    let whole = Region::new(volume, 0, volume.size());
    let mut boot = [0; SECTOR as usize];
    whole.read_at(0, &mut boot)?;
    let without = vec![Partition {
        number: None,
        region: whole.clone(),
        is_boot_code: false,
    }];
    let has_status = |entry: &Entry| matches!(entry.status, 0 | 0x80);
    let Some(entries) = entries(&boot).filter(|entries| entries.iter().all(has_status)) else {
        return Ok(without);
    };
    if entries.iter().any(|entry| entry.kind == PROTECTIVE) {
        return gpt(volume);
    }
    let mut found = Vec::new();
    for (number, entry) in (1..).zip(&entries) {
        if EXTENDED.contains(&entry.kind) {
            logical(&whole, entry, &mut found)?;
        } else if entry.is_used() {
            let is_boot_code = entry.kind == PREP;
            found.push(partition(
                volume,
                number,
                entry.first,
                entry.sectors,
                is_boot_code,
            )?);
        }
    }
    found.sort_by_key(|partition: &Partition| partition.number);
    Ok(if found.is_empty() { without } else { found })
}

/// One of the four entries of a boot record.
struct Entry {
    status: u8,
    kind: u8,
    first: u64,
    sectors: u64,
}

impl Entry {
    fn is_used(&self) -> bool {
        self.kind != UNUSED && self.sectors > 0
    }
}

/// The entries of a boot record, or `None` if the sector is not one or all entries are unused. The first sector of a
/// file system may end in the same two bytes. (UEFI specification, "Legacy Master Boot Record".)
fn entries(sector: &[u8; SECTOR as usize]) -> Option<Vec<Entry>> {
    if sector.get(510..) != Some(&[0x55, 0xaa]) {
        return None;
    }
    let mut entries = Vec::new();
    for bytes in sector.get(446..510)?.chunks_exact(16) {
        let number = |at: usize| u32_at(bytes, at).map(u64::from);
        entries.push(Entry {
            status: *bytes.first()?,
            kind: *bytes.get(4)?,
            first: number(8)?,
            sectors: number(12)?,
        });
    }
    entries.iter().any(Entry::is_used).then_some(entries)
}

/// Makes a partition, from its first sector and its number of sectors.
///
/// # Errors
/// [`ReadError`], if part of it is beyond the disk's end, because the missing part may be the decisive one.
fn partition(
    volume: &Volume,
    number: u32,
    first: u64,
    sectors: u64,
    is_boot_code: bool,
) -> Result<Partition, ReadError> {
    let end = first.checked_add(sectors);
    match end.and_then(|end| end.checked_mul(SECTOR)) {
        Some(end) if end <= volume.size() => Ok(Partition {
            number: Some(number),
            region: Region::new(volume, first * SECTOR, sectors * SECTOR),
            is_boot_code,
        }),
        _ => Err(ReadError(format!(
            "partition {number} goes beyond the disk's end"
        ))),
    }
}

/// Adds the logical partitions of an extended partition to `found`, numbered from 5. They form a chain of boot records.
/// A record gives one partition, relative to itself, and the next record, relative to the first.
fn logical(whole: &Region, extended: &Entry, found: &mut Vec<Partition>) -> Result<(), ReadError> {
    let mut record = extended.first;
    // The number of records is limited like that of partitions, because records without a partition may also form a
    // loop.
    for number in (5..).take(MOST) {
        if found.len() >= MOST {
            break;
        }
        let mut sector = [0; SECTOR as usize];
        whole.read_at(record.saturating_mul(SECTOR), &mut sector)?;
        let Some(entries) = entries(&sector) else {
            return Err(ReadError::new("a logical partition's record is damaged"));
        };
        let mut next = None;
        for entry in &entries {
            if EXTENDED.contains(&entry.kind) {
                next = Some(extended.first + entry.first);
            } else if entry.is_used() {
                let first = record + entry.first;
                found.push(partition(
                    whole.volume(),
                    number,
                    first,
                    entry.sectors,
                    false,
                )?);
            }
        }
        match next {
            Some(next) => record = next,
            None => return Ok(()),
        }
    }
    Err(ReadError::new(
        "the chain of logical partitions does not end",
    ))
}

/// The partitions of a GPT. Uses the table at the disk's beginning, or the one at its end if the first is damaged, as
/// firmware and Linux do. (UEFI specification, "GPT overview".)
fn gpt(volume: &Volume) -> Result<Vec<Partition>, ReadError> {
    let last = (volume.size() / SECTOR).saturating_sub(1);
    let entries = match table(volume, 1) {
        Err(first) => table(volume, last).map_err(|_| first)?,
        entries => entries?,
    };
    let mut found = Vec::new();
    for (number, entry) in (1..).zip(entries) {
        let kind = entry.partition_type_guid;
        if kind == GptPartitionType::UNUSED {
            continue;
        }
        let (first, last) = (entry.starting_lba.to_u64(), entry.ending_lba.to_u64());
        let sectors = last.saturating_sub(first).saturating_add(1);
        let is_boot_code = BOOT_CODE.contains(&kind.0);
        found.push(partition(volume, number, first, sectors, is_boot_code)?);
        if found.len() > MOST {
            return Err(ReadError::new(format!(
                "there are more than {MOST} partitions"
            )));
        }
    }
    Ok(found)
}

/// The entries of the GPT whose header is in this sector, if the checksums of both are valid.
fn table(volume: &Volume, sector: u64) -> Result<Vec<GptPartitionEntry>, ReadError> {
    let unread = |error: DiskError<ReadError>| match error {
        DiskError::Io(trouble) => trouble,
        error => ReadError::new(format!("the GPT is damaged: {error}")),
    };
    let mut disk = Disk::new(Sectors(volume.clone())).map_err(unread)?;
    let mut block = [0; SECTOR as usize];
    let header = disk.read_gpt_header(Lba(sector), &mut block);
    let header = header.map_err(unread)?;
    let is_sound = header.is_signature_valid()
        && header.header_crc32 == header.calculate_header_crc32()
        && header.my_lba.to_u64() == sector;
    let layout = header.get_partition_entry_array_layout();
    let (true, Ok(layout)) = (is_sound, layout) else {
        return Err(ReadError::new(
            "the GPT is damaged: its header is not sound",
        ));
    };
    let bytes = layout.num_bytes_rounded_to_block_as_usize(BlockSize::BS_512);
    // A table usually has 128 entries of 128 bytes.
    let Some(bytes) = bytes.filter(|bytes| *bytes <= MOST_TABLE) else {
        return Err(ReadError::new("the GPT is damaged: its table is too long"));
    };
    let mut storage = vec![0; bytes];
    let array = disk.read_gpt_partition_entry_array(layout, &mut storage);
    let array = array.map_err(unread)?;
    if array.calculate_crc32() != header.partition_entry_array_crc32 {
        return Err(ReadError::new("the GPT is damaged: its table is not sound"));
    }
    let entry = |index| array.get_partition_entry(index).copied();
    Ok((0..layout.num_entries).map_while(entry).collect())
}

/// A disk in the form that the GPT reader needs.
struct Sectors(Volume);

impl BlockIo for Sectors {
    type Error = ReadError;

    fn block_size(&self) -> BlockSize {
        BlockSize::BS_512
    }

    fn num_blocks(&mut self) -> Result<u64, ReadError> {
        Ok(self.0.size() / SECTOR)
    }

    fn read_blocks(&mut self, start_lba: Lba, buffer: &mut [u8]) -> Result<(), ReadError> {
        let offset = start_lba.to_u64().saturating_mul(SECTOR);
        self.0.read_at(offset, buffer).map_err(ReadError)
    }

    fn write_blocks(&mut self, _: Lba, _: &[u8]) -> Result<(), ReadError> {
        Err(ReadError::new("a disk is never written"))
    }

    fn flush(&mut self) -> Result<(), ReadError> {
        Ok(())
    }
}
