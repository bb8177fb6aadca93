//! btrfs.

use lambutter::{BlockRead, Btrfs, Error, Inode, Path};

use super::{FileSystem, Kind, ReadError, Region};

impl BlockRead for Region {
    type Error = ReadError;

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        Region::read_at(self, offset, buffer)
    }
}

/// Subvolumes that distributions use as the root if it is not the default subvolume: Ubuntu, Debian, Fedora. Their
/// kernel command line names the subvolume.
const SUBVOLUMES: [&str; 3] = ["/@", "/@rootfs", "/root"];

/// Where SUSE's systems keep data that a rollback of the root must not revert: in separate subvolumes, mounted over
/// empty directories. Only this one can hold a file that the reader looks for.
const BESIDE: (&str, &str) = ("/opt/", "/@/opt");
const TOP: u64 = 5;

/// Opens the default subvolume, which a plain mount shows, and the subvolumes that may be the root instead.
pub(super) fn open(region: &Region) -> Result<Vec<Box<dyn FileSystem>>, ReadError> {
    let default = Btrfs::open(region.clone(), region.length()).map_err(trouble)?;
    let shown = default.subvolume();
    let opened = |root| -> Result<Box<dyn FileSystem>, ReadError> {
        let top = Btrfs::open_subvol_id(region.clone(), region.length(), TOP).map_err(trouble)?;
        Ok(Box::new(Opened { root, top }))
    };
    let mut roots = vec![opened(default)?];
    for path in SUBVOLUMES {
        match Btrfs::open_subvol_path(region.clone(), region.length(), name(path)?) {
            Ok(root) if root.subvolume() != shown => roots.push(opened(root)?),
            // It is the default subvolume, does not exist, or is a directory such as the superuser's home.
            Ok(_) | Err(Error::NotFound | Error::NotASubvolume) => {}
            Err(error) => return Err(trouble(error)),
        }
    }
    Ok(roots)
}

struct Opened {
    root: Btrfs<Region>,
    top: Btrfs<Region>,
}

impl Opened {
    /// The inode at a path, and the subvolume that holds it.
    fn find(&mut self, path: &str) -> Result<Option<(&mut Btrfs<Region>, Inode)>, ReadError> {
        match self.root.resolve(name(path)?) {
            Ok(inode) => return Ok(Some((&mut self.root, inode))),
            Err(Error::NotFound) => {}
            Err(error) => return Err(trouble(error)),
        }
        let (mounted, beside) = BESIDE;
        let Some(below) = path.strip_prefix(mounted) else {
            return Ok(None);
        };
        match self.top.resolve(name(&format!("{beside}/{below}"))?) {
            Ok(inode) => Ok(Some((&mut self.top, inode))),
            Err(Error::NotFound) => Ok(None),
            Err(error) => Err(trouble(error)),
        }
    }
}

impl FileSystem for Opened {
    fn kind(&mut self, path: &str) -> Result<Option<Kind>, ReadError> {
        let Some((from, inode)) = self.find(path)? else {
            return Ok(None);
        };
        let metadata = from.metadata(&inode).map_err(trouble)?;
        let (file, directory) = (metadata.is_file(), metadata.is_dir());
        Ok(Some(Kind::of(file, directory, metadata.is_symlink())))
    }

    fn link(&mut self, path: &str) -> Result<Vec<u8>, ReadError> {
        self.root.read_link(name(path)?).map_err(trouble)
    }

    fn read_at(&mut self, path: &str, offset: u64, buffer: &mut [u8]) -> Result<usize, ReadError> {
        match self.find(path)? {
            Some((from, inode)) => from.read_file_at(&inode, offset, buffer).map_err(trouble),
            None => Err(ReadError(format!("the btrfs can not be read: no {path}"))),
        }
    }

    fn names(&mut self, path: &str) -> Result<Vec<String>, ReadError> {
        let entries = self.root.read_dir(name(path)?).map_err(trouble)?;
        Ok(entries
            .into_iter()
            .filter_map(|entry| String::from_utf8(entry.name).ok())
            .collect())
    }
}

fn name(path: &str) -> Result<Path<'_>, ReadError> {
    Path::new(path.as_bytes()).ok_or_else(|| ReadError::new("a path that is none"))
}

fn trouble(error: Error) -> ReadError {
    ReadError(format!("the btrfs can not be read: {error}"))
}
