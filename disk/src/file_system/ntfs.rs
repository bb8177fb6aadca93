//! NTFS.

use std::cmp::Ordering;

use ntfs::structured_values::{NtfsFileName, NtfsFileNamespace};
use ntfs::{Ntfs, NtfsError, NtfsFile, NtfsReadSeek};
use std::io::SeekFrom;

use super::{Cursor, FileSystem, Kind, ReadError, Region, fill};

/// Maximum number of names in one directory. `System32` has about five thousand.
const MOST_NAMES: usize = 100_000;

/// Opens the file system. Changes that are only in the log are ignored, because Windows applies its log before it shuts
/// down.
pub(super) fn open(region: &Region) -> Result<Box<dyn FileSystem>, ReadError> {
    let mut cursor = Cursor::new(region);
    let ntfs = Ntfs::new(&mut cursor).map_err(trouble)?;
    Ok(Box::new(Opened { ntfs, cursor }))
}

struct Opened {
    ntfs: Ntfs,
    cursor: Cursor,
}

impl Opened {
    /// The file at this path, ignoring case, or `None` if it does not exist.
    fn file(&mut self, path: &str) -> Result<Option<NtfsFile<'_>>, ReadError> {
        let mut file = self.ntfs.root_directory(&mut self.cursor);
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let directory = file.map_err(trouble)?;
            if !directory.is_directory() {
                return Ok(None);
            }
            let index = directory.directory_index(&mut self.cursor);
            let index = index.map_err(trouble)?;
            let mut finder = index.finder();
            let by_name = |key: &NtfsFileName| compare(name, key);
            let entry = match finder.find(&mut self.cursor, by_name) {
                Some(entry) => entry.map_err(trouble)?,
                None => return Ok(None),
            };
            file = entry.to_file(&self.ntfs, &mut self.cursor);
        }
        file.map(Some).map_err(trouble)
    }
}

impl FileSystem for Opened {
    fn kind(&mut self, path: &str) -> Result<Option<Kind>, ReadError> {
        Ok(self.file(path)?.map(|file| match file.is_directory() {
            true => Kind::Directory,
            false => Kind::File,
        }))
    }

    /// Links of Windows are not followed, because none is on the path to a file that the reader looks for.
    fn link(&mut self, _: &str) -> Result<Vec<u8>, ReadError> {
        Err(ReadError::new("links of an NTFS are not followed"))
    }

    fn read_at(&mut self, path: &str, offset: u64, buffer: &mut [u8]) -> Result<usize, ReadError> {
        let mut cursor = Cursor::new(&self.cursor.region);
        let Some(file) = self.file(path)? else {
            return Err(ReadError(format!("the NTFS can not be read: no {path}")));
        };
        let Some(data) = file.data(&mut cursor, "") else {
            return Ok(0);
        };
        let data = data.map_err(trouble)?;
        let attribute = data.to_attribute().map_err(trouble)?;
        let mut value = attribute.value(&mut cursor).map_err(trouble)?;
        value
            .seek(&mut cursor, SeekFrom::Start(offset))
            .map_err(trouble)?;
        fill(buffer, |rest| {
            value.read(&mut cursor, rest).map_err(trouble)
        })
    }

    fn names(&mut self, path: &str) -> Result<Vec<String>, ReadError> {
        let mut cursor = Cursor::new(&self.cursor.region);
        let Some(file) = self.file(path)? else {
            return Ok(Vec::new());
        };
        let index = file.directory_index(&mut cursor).map_err(trouble)?;
        let mut entries = index.entries();
        let mut names = Vec::new();
        while let Some(entry) = entries.next(&mut cursor) {
            let entry = entry.map_err(trouble)?;
            if let Some(key) = entry.key() {
                let key = key.map_err(trouble)?;
                // A file that also has a short name, such as `PROGRA~1`, has a second entry for it.
                if key.namespace() != NtfsFileNamespace::Dos {
                    names.extend(key.name().to_string().ok());
                }
            }
            if names.len() > MOST_NAMES {
                return Err(ReadError(format!(
                    "the NTFS can not be read: {path} does not end"
                )));
            }
        }
        Ok(names)
    }
}

/// Compares a name with an entry's in the order of the index, which uses upper case. `name` is ASCII, and no character
/// outside ASCII has an ASCII letter as its upper case. So the volume's own table of upper case need not be fetched.
fn compare(name: &str, key: &NtfsFileName) -> Ordering {
    let upper = |unit: u16| match unit {
        0x61..=0x7a => unit - 0x20,
        _ => unit,
    };
    let theirs = key.name();
    name.encode_utf16()
        .map(upper)
        .cmp(theirs.u16_iter().map(upper))
}

fn trouble(error: NtfsError) -> ReadError {
    ReadError(format!("the NTFS can not be read: {error}"))
}
