//! XFS.

use lamxfs::{BlockRead, EntryKind, Error, Path, Xfs};

use super::{FileSystem, Kind, LONGEST_LINK, Region, Trouble};

impl BlockRead for Region {
    type Error = Trouble;

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Trouble> {
        Region::read_at(self, offset, buffer)
    }
}

/// Opens it. A log that still holds changes is replayed, in memory.
pub(super) fn open(region: &Region) -> Result<Box<dyn FileSystem>, Trouble> {
    let xfs = Xfs::open(region.clone(), region.length()).map_err(trouble)?;
    Ok(Box::new(Opened(xfs)))
}

struct Opened(Xfs<Region>);

impl FileSystem for Opened {
    fn kind(&mut self, path: &str) -> Result<Option<Kind>, Trouble> {
        let inode = match self.0.resolve(Path::new(path.as_bytes())) {
            Ok(inode) => inode,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(trouble(error)),
        };
        let metadata = self.0.metadata(&inode).map_err(trouble)?;
        let (file, directory) = (metadata.is_file(), metadata.is_dir());
        Ok(Some(Kind::of(file, directory, metadata.is_symlink())))
    }

    fn link(&mut self, path: &str) -> Result<Vec<u8>, Trouble> {
        let path = Path::new(path.as_bytes());
        // The reader takes memory for whatever length a link claims.
        let inode = self.0.resolve(path).map_err(trouble)?;
        if self.0.metadata(&inode).map_err(trouble)?.size() > LONGEST_LINK {
            return Err(Trouble::new("the XFS can not be read: a link is too long"));
        }
        self.0.read_link(path).map_err(trouble)
    }

    fn read_at(&mut self, path: &str, offset: u64, buffer: &mut [u8]) -> Result<usize, Trouble> {
        let inode = self.0.resolve(Path::new(path.as_bytes()));
        let inode = inode.map_err(trouble)?;
        self.0.read_file_at(&inode, offset, buffer).map_err(trouble)
    }

    fn names(&mut self, path: &str) -> Result<Vec<String>, Trouble> {
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

fn trouble(error: Error) -> Trouble {
    Trouble(format!("the XFS can not be read: {}", error.token()))
}
