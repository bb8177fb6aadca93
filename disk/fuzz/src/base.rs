//! The images that patches are applied to.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use disk::BLOCK_BYTES;

use crate::image::Image;
use crate::outcome::{Outcome, outcome};
use crate::patches::{Patched, Patches};
use crate::sums::{self, Sum};

/// Part of an image that a fuzz target patches.
#[derive(Clone, Copy, Debug)]
pub enum Aim {
    /// The partition tables.
    Tables,
    /// Everything that affects the result: the file system and its content.
    FileSystem,
    /// The Windows registry, in an intact file system.
    Hive,
    /// The content of os-release, in an intact file system.
    OsRelease,
}

impl Aim {
    /// Whether the byte offset `at` belongs to this part of the image.
    fn has(self, image: &Image, at: u64) -> bool {
        let page = at / 4096;
        match self {
            Aim::FileSystem => true,
            Aim::Tables => {
                // A patched chain of boot records may lead to a sector of this page that holds no record yet.
                let mut ends = (page * 4096..).step_by(512).take(8).map(|at| at + 510);
                let has_record = ends.any(|at| image.bytes(at, 2) == [0x55, 0xaa]);
                at < 34 * 512 || at >= image.size() - 33 * 512 || has_record
            }
            // In the images used here, each hive is contiguous.
            Aim::Hive => {
                let before = (0..=page).rev();
                let mut pages = before.take_while(|page| image.has_page(*page));
                let first = pages.find_map(|page| match image.bytes(page * 4096, 4).as_slice() {
                    b"regf" => Some(true),
                    b"FILE" | b"INDX" => Some(false),
                    _ => None,
                });
                first == Some(true)
            }
            Aim::OsRelease => {
                let page = image.bytes(page * 4096, 4096);
                page.windows(12).any(|bytes| bytes == b"PRETTY_NAME=")
            }
        }
    }
}

/// Length in bytes of a spot, the unit at which patches are aimed.
pub(crate) const SPOT: u64 = 64;

/// An image, and the spots in it that a target patches.
pub(crate) struct Base {
    pub(crate) image: Arc<Image>,
    sums: Vec<Sum>,
    /// Offsets of the spots where other bytes change the result.
    pub(crate) spots: Vec<u64>,
}

impl Base {
    /// Reads the image and finds the spots that `aim` selects.
    pub(crate) fn new(name: &str, aim: Aim) -> Base {
        let image = Image::read(name);
        let sums = sums::find(&image);
        let spots = spots(&image, &sums, aim);
        Base { image, sums, spots }
    }

    /// Adjusts all checksums to the patches.
    pub(crate) fn repair(&self, bytes: &mut BTreeMap<u64, u8>) {
        repair(&self.image, &self.sums, bytes);
    }
}

/// Offsets of the spots whose bits, all inverted, change the result. For partition tables these are all spots, because
/// much that a table could hold is absent from the image.
fn spots(image: &Arc<Image>, sums: &[Sum], aim: Aim) -> Vec<u64> {
    let read = Rc::default();
    let source = Patched::new(image, &Patches::default(), Some(Rc::clone(&read)));
    let as_it_is = outcome(source);
    assert!(
        matches!(as_it_is, Outcome::Read(_)),
        "{}: {as_it_is:?}",
        image.name
    );
    let counts = |at: u64, length: u64| {
        let turned = (at..at + length).map(|at| (at, !image.byte(at))).collect();
        let mut patches = Patches {
            size: None,
            bytes: turned,
        };
        repair(image, sums, &mut patches.bytes);
        outcome(Patched::new(image, &patches, None)) != as_it_is
    };
    let read = read.borrow();
    let mut spots = Vec::new();
    for page in image.pages() {
        let was_read = read
            .iter()
            .any(|blocks| blocks.contains(&(page / BLOCK_BYTES)));
        let wanted = (page..page + 4096)
            .step_by(SPOT as usize)
            .filter(|at| aim.has(image, *at));
        let wanted: Vec<u64> = wanted.collect();
        if matches!(aim, Aim::Tables) {
            spots.extend(wanted);
        } else if was_read && !wanted.is_empty() && counts(page, 4096) {
            spots.extend(wanted.into_iter().filter(|at| counts(*at, SPOT)));
        }
    }
    assert!(!spots.is_empty(), "{}: nothing counts", image.name);
    spots
}

fn repair(image: &Image, sums: &[Sum], bytes: &mut BTreeMap<u64, u8>) {
    for sum in sums {
        sum.repair(image, bytes);
    }
}
