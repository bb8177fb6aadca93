//! Detects the operating system on a disk. It reads single blocks, from a snapshot through the EBS direct APIs or from
//! a raw image file. The crate contains nothing about AWS's API or about prices.
//!
//! | step | what it is | where |
//! | --- | --- | --- |
//! | blocks | source of the disk's bytes, 512 KiB at a time, only on request | [`BlockSource`], `volume` |
//! | → partitions | none, MBR or GPT | `partitions` |
//! | → file system | ext4, XFS, btrfs or NTFS, behind one small trait; links are followed within the image | `file_system`, `tree` |
//! | → signs | the files, and the values of the Windows registry, that identify the system | `signs`, `hive` |
//! | → [`Findings`] | the system, and the paths that prove it; or the reason why it stays undetermined | [`inspect`] |
//!
//! The disk is untrusted. Its author may want the reader to crash, to exhaust memory or to loop forever. So the guard
//! never calls [`inspect`] in its own process. It calls [`contained::Reader`], which uses a child process that can do
//! no harm.

pub mod contained;
mod file_system;
mod findings;
mod hive;
mod numbers;
mod partitions;
mod signs;
mod tree;
mod volume;

pub use findings::{Findings, Inspection, LinuxSigns, SqlEdition, SqlServer, System, WindowsKind};
pub use volume::{BLOCK_BYTES, BlockSource, ImageFile};

use file_system::ReadError;
use volume::Volume;

/// Detects what is on a disk, in this process. Fetches at most `most_blocks` blocks of 512 KiB.
///
/// A damaged disk may make this function panic, allocate much memory, or take long: see [`contained`].
pub fn inspect(source: impl BlockSource + 'static, most_blocks: u64) -> Inspection {
    let volume = Volume::new(Box::new(source), most_blocks);
    let result = signs::find(&volume);
    Inspection {
        blocks_read: volume.blocks_read(),
        result: match volume.stopped() {
            // The reader did not see everything it requested, so its result does not count.
            Some(why) => Err(why),
            None => result.map_err(|ReadError(why)| why),
        },
    }
}
