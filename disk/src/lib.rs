//! What operating system is on a disk, read block by block: a snapshot through EBS's direct API, or a
//! raw image file. Nothing here knows AWS or what anything costs.
//!
//! | step | what it is | where |
//! | --- | --- | --- |
//! | blocks | where the disk's bytes come from, 512 KiB at a time, no more than are asked for | [`BlockSource`], `volume` |
//! | → partitions | none, MBR or GPT | `partitions` |
//! | → file system | ext4, XFS, btrfs or NTFS, behind one small trait; links are followed within the image | `file_system`, `tree` |
//! | → signs | the files, and on Windows the registry's values, that tell what is there | `signs`, `hive` |
//! | → [`Findings`] | what is there, and the paths that told it; or why that stays undetermined | [`inspect`] |
//!
//! The disk is a stranger's: whoever made it may want the reader to crash, to take all memory or never to
//! end. So the guard never calls [`inspect`] in its own process, but [`contained::Reader`], which has a
//! child process do it that can do no harm.

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

use file_system::Trouble;
use volume::Volume;

/// Reads what is on a disk, in this process. At most `most_blocks` blocks are fetched.
///
/// A damaged disk may make this panic, take much memory, or take long: see [`contained`].
pub fn inspect(source: impl BlockSource + 'static, most_blocks: u64) -> Inspection {
    let volume = Volume::new(Box::new(source), most_blocks);
    let result = signs::find(&volume);
    Inspection {
        blocks_read: volume.blocks_read(),
        result: match volume.stopped() {
            // Whatever a reader made of it: it did not see what it asked for.
            Some(why) => Err(why),
            None => result.map_err(|Trouble(why)| why),
        },
    }
}
