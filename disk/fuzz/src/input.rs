//! Decoder of the fuzzer's input.

use crate::base::{Base, SPOT};
use crate::patches::Patches;

/// Possible lengths of a patch, in bytes.
const LENGTHS: [usize; 8] = [1, 1, 2, 4, 8, 16, 64, 255];

/// Decodes the fuzzer's input into an image and its patches.
///
/// The first byte selects the image. Its highest bit, if set, leaves all checksums as they were. Each patch then has
/// one byte for the action, three for the place, and the bytes that the action needs.
pub(crate) fn decode<'a>(bases: &'a [Base], input: &[u8]) -> (&'a Base, Patches) {
    let mut input = Input(input);
    let first = usize::from(input.byte());
    let base = &bases[(first & 0x7f) % bases.len()];
    let mut patches = Patches::default();
    while !input.0.is_empty() {
        let action = input.byte();
        let at = input.place(base);
        let length = LENGTHS[usize::from(action >> 2) % LENGTHS.len()];
        let mut write = |index: usize, byte: u8| {
            patches.bytes.insert(at + index as u64, byte);
        };
        match action % 4 {
            // Other bytes from the input.
            0 | 1 => (0..length).for_each(|index| write(index, input.byte())),
            // The bytes of another spot, because bytes that are valid there may be valid here.
            2 => {
                let from = input.place(base);
                (0..length).for_each(|index| write(index, base.image.byte(from + index as u64)));
            }
            // The number at this place, increased or decreased a little.
            _ if action & 0x80 == 0 => {
                let length = length.min(8);
                let by = i64::from(input.byte() as i8);
                let number = base.image.little(at, length as u64).wrapping_add_signed(by);
                let bytes = number.to_le_bytes();
                (0..length).for_each(|index| write(index, bytes[index]));
            }
            // Ends the disk near this place.
            _ => patches.size = Some((at & !511) + 512 * u64::from(input.byte() % 16)),
        }
    }
    let size = base.image.size();
    patches.bytes.retain(|at, _| *at < size);
    if first & 0x80 == 0 {
        base.repair(&mut patches.bytes);
    }
    patches
        .bytes
        .retain(|at, byte| base.image.byte(*at) != *byte);
    patches.size = patches.size.filter(|other| *other < size);
    (base, patches)
}

/// The rest of an input. Reading past its end gives zeros.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((byte, rest)) => {
                self.0 = rest;
                *byte
            }
            None => 0,
        }
    }

    fn place(&mut self, base: &Base) -> u64 {
        let spot = u64::from(self.byte()) | u64::from(self.byte()) << 8;
        let spot = base.spots[spot as usize % base.spots.len()];
        spot + u64::from(self.byte()) % SPOT
    }
}
