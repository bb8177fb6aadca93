//! XFS.

mod layout;
mod log;

use lamxfs::{BlockRead, EntryKind, Error, Path, SuperblockReason, Xfs};

use self::layout::Layout;
use super::{FileSystem, Kind, LONGEST_LINK, ReadError, Region};

/// Opens the file system. Changes that are still in the log are replayed, in memory.
pub(super) fn open(region: &Region) -> Result<Box<dyn FileSystem>, ReadError> {
    let layout = Layout::read(region)?;
    let checked = Checked {
        region: region.clone(),
        layout: layout.clone(),
    };
    let xfs = Xfs::open(checked, region.length()).map_err(trouble)?;
    if let Some(layout) = &layout {
        log::check(region, layout)?;
    }
    Ok(Box::new(Opened(xfs)))
}

/// A partition that refuses to read metadata whose checksum is wrong.
struct Checked {
    region: Region,
    layout: Option<Layout>,
}

impl BlockRead for Checked {
    type Error = ReadError;

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        self.region.read_at(offset, buffer)?;
        match &self.layout {
            Some(layout) if !layout.fits(offset, buffer) => {
                Err(ReadError::new("a checksum of the XFS is wrong"))
            }
            _ => Ok(()),
        }
    }
}

struct Opened(Xfs<Checked>);

impl FileSystem for Opened {
    fn kind(&mut self, path: &str) -> Result<Option<Kind>, ReadError> {
        let inode = match self.0.resolve(Path::new(path.as_bytes())) {
            Ok(inode) => inode,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(trouble(error)),
        };
        let metadata = self.0.metadata(&inode).map_err(trouble)?;
        let (file, directory) = (metadata.is_file(), metadata.is_dir());
        Ok(Some(Kind::of(file, directory, metadata.is_symlink())))
    }

    fn link(&mut self, path: &str) -> Result<Vec<u8>, ReadError> {
        let path = Path::new(path.as_bytes());
        // The reader allocates memory for whatever length a link claims.
        let inode = self.0.resolve(path).map_err(trouble)?;
        if self.0.metadata(&inode).map_err(trouble)?.size() > LONGEST_LINK {
            return Err(ReadError::new(
                "the XFS can not be read: a link is too long",
            ));
        }
        let target = self.0.read_link(path).map_err(trouble)?;
        // If a link block's magic number is damaged, the reader takes the block for the link's text.
        if target.contains(&0) {
            return Err(ReadError::new("the XFS can not be read: a link is damaged"));
        }
        Ok(target)
    }

    fn read_at(&mut self, path: &str, offset: u64, buffer: &mut [u8]) -> Result<usize, ReadError> {
        let inode = self.0.resolve(Path::new(path.as_bytes()));
        let inode = inode.map_err(trouble)?;
        self.0.read_file_at(&inode, offset, buffer).map_err(trouble)
    }

    fn names(&mut self, path: &str) -> Result<Vec<String>, ReadError> {
        let entries = self.0.read_dir(Path::new(path.as_bytes()));
        let names = entries
            .map_err(trouble)?
            .into_iter()
            .filter(|entry| !matches!(entry.kind, EntryKind::Other));
        Ok(names
            .filter_map(|entry| String::from_utf8(entry.name).ok())
            .collect())
    }
}

fn trouble(error: Error) -> ReadError {
    let why = match error {
        // The partition returned no bytes, because it ends there or because `Checked` refused them.
        Error::Io { token, .. } => format!("damaged or cut off ({token})"),
        Error::BadSuperblock(SuperblockReason::DirtyLog) => {
            "its log is damaged, or of a kind that is not replayed (sb_dirty_log)".to_owned()
        }
        error => error.token().to_owned(),
    };
    ReadError(format!("the XFS can not be read: {why}"))
}
