//! Reader of Windows registry hives. It reads single values in place, because a hive may have a hundred megabytes.
//!
//! Existing crates read the whole hive, so this one is our own: it reads only the few cells on the path to a key.
//!
//! The format is known from several public descriptions that agree:
//!
//! - A hive is a base block of 4 KiB, then cells.
//! - A cell is a size of four bytes, negative if the cell is in use, and its content, which begins with two letters.
//! - Keys are `nk`, values `vk`, lists of subkeys `lf`, `lh`, `li`, and lists of such lists `ri`.
//!
//! Changes that are only in the hive's log are ignored, because the values that the guard needs were written at setup.

use crate::file_system::ReadError;
use crate::numbers::{u16_at, u32_at};
use crate::tree::OpenFile;

/// Offset in bytes of the first cell. Cell offsets are relative to it.
const BASE_BLOCK: u64 = 4096;

/// Offset that means "no cell".
const NO_CELL: u32 = u32::MAX;

/// Maximum number of bytes read from a cell, by its kind.
const KEY_BYTES: usize = 76 + 512;
const LIST_BYTES: usize = 4 + 8 * 65_536;
const VALUE_BYTES: usize = 20 + 512;
const DATA_BYTES: usize = 4096;

/// Maximum number of values read from a key.
const MOST_VALUES: usize = 1024;

/// A hive, in a file.
pub(crate) struct Hive<'a> {
    file: OpenFile<'a>,
    root: u32,
}

/// A key.
pub(crate) struct Key {
    node: Vec<u8>,
}

impl<'a> Hive<'a> {
    /// Opens a file as a hive.
    ///
    /// # Errors
    /// [`ReadError`], if the file is not a hive or cannot be read.
    pub(crate) fn open(mut file: OpenFile<'a>) -> Result<Hive<'a>, ReadError> {
        let base = file.beginning(512)?;
        if !base.starts_with(b"regf") {
            return Err(ReadError::new(
                "the registry can not be read: it is no hive",
            ));
        }
        let root = u32_at(&base, 0x24).ok_or_else(damaged)?;
        Ok(Hive { file, root })
    }

    /// The key at a path such as `Microsoft\Windows NT`, ignoring case, or `None` if it does not exist.
    ///
    /// # Errors
    /// [`ReadError`], if the hive is damaged or cannot be read.
    pub(crate) fn key(&mut self, path: &str) -> Result<Option<Key>, ReadError> {
        let mut key = self.node(self.root)?;
        for name in path.split('\\') {
            match self.subkey(&key, name)? {
                Some(subkey) => key = subkey,
                None => return Ok(None),
            }
        }
        Ok(Some(key))
    }

    /// The values of a key that are texts.
    ///
    /// # Errors
    /// Those of [`Hive::key`].
    pub(crate) fn texts(&mut self, key: &Key) -> Result<Vec<String>, ReadError> {
        let mut texts = Vec::new();
        for value in self.values(key)? {
            let value = self.value(value)?;
            texts.extend(self.text(&value)?);
        }
        Ok(texts)
    }

    /// The text of one value of a key, or `None` if the value does not exist or is not a text. Only the names of the
    /// other values are read, because their data may be anywhere in the hive.
    ///
    /// # Errors
    /// Those of [`Hive::key`].
    pub(crate) fn text_of(&mut self, key: &Key, name: &str) -> Result<Option<String>, ReadError> {
        for value in self.values(key)? {
            let value = self.value(value)?;
            if value.name()?.eq_ignore_ascii_case(name) {
                return self.text(&value);
            }
        }
        Ok(None)
    }

    /// Cell offsets of a key's values.
    fn values(&mut self, key: &Key) -> Result<Vec<u32>, ReadError> {
        let count = u32_at(&key.node, 0x24).ok_or_else(damaged)?;
        let list = u32_at(&key.node, 0x28).ok_or_else(damaged)?;
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count == 0 || list == NO_CELL {
            return Ok(Vec::new());
        }
        let count = count.min(MOST_VALUES);
        let offsets = self.cell(list, 4 * count)?;
        (0..count)
            .map(|index| u32_at(&offsets, 4 * index).ok_or_else(damaged))
            .collect()
    }

    /// The content of a cell, at most `most` bytes of it.
    fn cell(&mut self, offset: u32, most: usize) -> Result<Vec<u8>, ReadError> {
        let at = BASE_BLOCK + u64::from(offset);
        let mut size = [0; 4];
        if self.file.read_at(at, &mut size)? != size.len() {
            return Err(damaged());
        }
        // A cell that is in use has a negative size, which includes these four bytes.
        let size = i32::from_le_bytes(size);
        let content = usize::try_from(-i64::from(size) - 4).map_err(|_| damaged())?;
        let mut bytes = vec![0; content.min(most)];
        let read = self.file.read_at(at + 4, &mut bytes)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    fn node(&mut self, offset: u32) -> Result<Key, ReadError> {
        let node = self.cell(offset, KEY_BYTES)?;
        match node.starts_with(b"nk") {
            true => Ok(Key { node }),
            false => Err(damaged()),
        }
    }

    fn subkey(&mut self, key: &Key, name: &str) -> Result<Option<Key>, ReadError> {
        let list = u32_at(&key.node, 0x1c).ok_or_else(damaged)?;
        match (u32_at(&key.node, 0x14), list) {
            (Some(0), _) | (_, NO_CELL) => return Ok(None),
            _ => {}
        }
        let list = self.cell(list, LIST_BYTES)?;
        if !list.starts_with(b"ri") {
            return self.subkey_in(&list, name);
        }
        // Finds the last list that does not begin after the name. Each list may be in a block of its own.
        let (mut first, mut end) = (0, count(&list)?);
        let part = |index: usize| u32_at(&list, 4 + 4 * index).ok_or_else(damaged);
        while end - first > 1 {
            let middle = first + (end - first) / 2;
            let begins = self.cell(part(middle)?, 8)?;
            let begins = self.node(u32_at(&begins, 4).ok_or_else(damaged)?)?;
            match begins.is_after(name) {
                true => end = middle,
                false => first = middle,
            }
        }
        let list = self.cell(part(first)?, LIST_BYTES)?;
        self.subkey_in(&list, name)
    }

    /// Finds a key in a list. Each key may be in a block of its own, so few must be read. Lists are sorted by name in
    /// upper case, which allows a binary search. An `lh` list has hashes instead.
    fn subkey_in(&mut self, list: &[u8], name: &str) -> Result<Option<Key>, ReadError> {
        let entry_bytes = match list.get(..2) {
            // A hash, or the first letters, follow each offset.
            Some(b"lh" | b"lf") => 8,
            Some(b"li") => 4,
            _ => return Err(damaged()),
        };
        let offset = |index: usize| u32_at(list, 4 + entry_bytes * index).ok_or_else(damaged);
        if list.starts_with(b"lh") {
            for index in 0..count(list)? {
                if u32_at(list, 8 + entry_bytes * index) == Some(hash(name)) {
                    let key = self.node(offset(index)?)?;
                    if name.eq_ignore_ascii_case(&key.name()) {
                        return Ok(Some(key));
                    }
                }
            }
            return Ok(None);
        }
        let (mut first, mut end) = (0, count(list)?);
        while first < end {
            let middle = first + (end - first) / 2;
            let key = self.node(offset(middle)?)?;
            match () {
                () if name.eq_ignore_ascii_case(&key.name()) => return Ok(Some(key)),
                () if key.is_after(name) => end = middle,
                () => first = middle + 1,
            }
        }
        Ok(None)
    }

    fn value(&mut self, offset: u32) -> Result<Value, ReadError> {
        let cell = self.cell(offset, VALUE_BYTES)?;
        match cell.starts_with(b"vk") {
            true => Ok(Value { cell }),
            false => Err(damaged()),
        }
    }

    /// The text of a value, or `None` if it is not a text.
    fn text(&mut self, value: &Value) -> Result<Option<String>, ReadError> {
        let number = |at: usize| u32_at(&value.cell, at).ok_or_else(damaged);
        // REG_SZ and REG_EXPAND_SZ.
        if !matches!(number(0xc)?, 1 | 2) {
            return Ok(None);
        }
        let size = number(4)?;
        let bytes = match size >> 31 {
            // Data of at most four bytes is stored in place of the offset.
            1 => {
                let bytes = value.cell.get(8..12).unwrap_or_default();
                let length = usize::try_from(size & 0x7fff_ffff).unwrap_or(0);
                bytes.get(..length.min(4)).unwrap_or_default().to_vec()
            }
            _ => {
                let length = usize::try_from(size).unwrap_or(usize::MAX);
                self.cell(number(8)?, length.min(DATA_BYTES))?
            }
        };
        let text = text(&bytes, bytes.len(), false);
        Ok(Some(text.trim_end_matches('\0').to_owned()))
    }
}

/// A value, without its data unless that is stored in place.
struct Value {
    cell: Vec<u8>,
}

impl Value {
    fn name(&self) -> Result<String, ReadError> {
        let length = u16_at(&self.cell, 2).ok_or_else(damaged)?.into();
        let is_narrow = u16_at(&self.cell, 0x10).is_some_and(|flags| flags & 1 != 0);
        let name = self.cell.get(0x14..).unwrap_or_default();
        Ok(text(name, length, is_narrow))
    }
}

impl Key {
    /// Whether the key comes after a name in the lists' order.
    fn is_after(&self, name: &str) -> bool {
        name.to_ascii_uppercase() < self.name().to_ascii_uppercase()
    }

    fn name(&self) -> String {
        let length = u16_at(&self.node, 0x48).unwrap_or(0).into();
        let is_narrow = u16_at(&self.node, 2).is_some_and(|flags| flags & 0x20 != 0);
        let name = self.node.get(0x4c..).unwrap_or_default();
        text(name, length, is_narrow)
    }
}

/// Number of entries in a list.
fn count(list: &[u8]) -> Result<usize, ReadError> {
    u16_at(list, 2).map(usize::from).ok_or_else(damaged)
}

/// Hash of a name, as `lh` lists store it.
fn hash(name: &str) -> u32 {
    name.chars().fold(0, |hash: u32, letter| {
        let letter = u32::from(letter.to_ascii_uppercase());
        hash.wrapping_mul(37).wrapping_add(letter)
    })
}

/// Decodes a text of `length` bytes: Latin-1 if `is_narrow`, otherwise UTF-16.
fn text(bytes: &[u8], length: usize, is_narrow: bool) -> String {
    let bytes = bytes.get(..length.min(bytes.len())).unwrap_or_default();
    if is_narrow {
        return bytes.iter().map(|byte| char::from(*byte)).collect();
    }
    let units = bytes.chunks_exact(2).map(|pair| match pair {
        [low, high] => u16::from_le_bytes([*low, *high]),
        _ => 0,
    });
    char::decode_utf16(units)
        .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

fn damaged() -> ReadError {
    ReadError::new("the registry can not be read: it is damaged")
}
