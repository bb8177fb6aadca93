//! Output files whose name the user gives.
//!
//! A mistyped name or a planted link must not destroy another program's file. So a file is replaced only if it is
//! empty, or if its first line shows that this program wrote it. The replacement is written beside it under a new
//! random name, and renamed when it is complete. New files are readable by their owner only.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use tempfile::NamedTempFile;

use crate::outcome::CliError;

/// Maximum number of bytes read of a first line. The first line of an audit's state contains the policy.
pub(crate) const MOST_FIRST_LINE: u64 = 16 * 1024 * 1024;

/// A kind of file that this program writes, recognised by its first line.
pub(crate) struct Kind {
    /// The option that names such a file.
    pub(crate) option: &'static str,
    /// Description of the file, for messages.
    pub(crate) name: &'static str,
    /// Whether a file with this first line is of this kind.
    pub(crate) has_first_line: fn(&str) -> bool,
}

/// An existing file that may be replaced: empty, or written by this program.
#[derive(Debug)]
pub(crate) struct Existing {
    /// The file, open for reading and writing, at its beginning.
    pub(crate) file: File,
    /// Whether the file is empty.
    pub(crate) is_empty: bool,
    /// Its device and its inode number.
    identity: (u64, u64),
}

impl Existing {
    /// Whether the file still has this name.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        std::fs::symlink_metadata(path).is_ok_and(|it| (it.dev(), it.ino()) == self.identity)
    }
}

impl Kind {
    /// Finds the file with this name. Does not follow a link at the end of the path, and does not wait for a writer to
    /// a FIFO.
    ///
    /// # Errors
    /// [`CliError::Usage`] with the obstacle: not an ordinary file, another program's or user's file, or a missing folder.
    pub(crate) fn find(&self, path: &Path) -> Result<Option<Existing>, CliError> {
        let folder = folder(path);
        if !folder.is_dir() {
            let (option, folder) = (self.option, folder.display().to_string());
            return Err(CliError::Usage(format!(
                "{option}: the folder {folder:?} does not exist"
            )));
        }
        let unreadable =
            |error: io::Error| self.in_the_way(path, &format!("cannot be opened ({error})"));
        // Checked before opening, because opening a device may have an effect.
        match std::fs::symlink_metadata(path) {
            Ok(there) => self.is_ordinary(path, there.file_type())?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        }
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        options.custom_flags(flags.bits().cast_signed());
        let mut file = options.open(path).map_err(unreadable)?;
        let there = file.metadata().map_err(unreadable)?;
        self.is_ordinary(path, there.file_type())?;
        if there.uid() != rustix::process::geteuid().as_raw() {
            return Err(self.in_the_way(path, "belongs to another user"));
        }
        let mut line = Vec::new();
        BufReader::new((&file).take(MOST_FIRST_LINE))
            .read_until(b'\n', &mut line)
            .map_err(unreadable)?;
        file.rewind().map_err(unreadable)?;
        let is_own = str::from_utf8(&line).is_ok_and(self.has_first_line);
        if !line.is_empty() && !is_own {
            return Err(self.in_the_way(path, &format!("is not {}", self.name)));
        }
        Ok(Some(Existing {
            file,
            is_empty: line.is_empty(),
            identity: (there.dev(), there.ino()),
        }))
    }

    fn is_ordinary(&self, path: &Path, there: std::fs::FileType) -> Result<(), CliError> {
        let what = if there.is_file() {
            return Ok(());
        } else if there.is_symlink() {
            "is a symbolic link"
        } else if there.is_dir() {
            "is a folder"
        } else if there.is_fifo() {
            "is a FIFO"
        } else if there.is_socket() {
            "is a socket"
        } else {
            "is a device"
        };
        Err(self.in_the_way(path, what))
    }

    fn in_the_way(&self, path: &Path, what: &str) -> CliError {
        let (option, name, path) = (self.option, self.name, path.display().to_string());
        CliError::Usage(format!(
            "{option}: {path:?} {what}, and was not changed. Accepted: a name that does not exist yet, an empty file, \
             or {name}"
        ))
    }

    /// Creates a new file in the same folder, readable by its owner only. It is deleted unless [`Kind::put`] renames
    /// it.
    ///
    /// # Errors
    /// The error of the operating system.
    pub(crate) fn beside(&self, path: &Path) -> io::Result<NamedTempFile> {
        tempfile::Builder::new()
            .prefix(".ami-guard-")
            .suffix(".part")
            .tempfile_in(folder(path))
    }

    /// Renames a new file to its final name, in place of `found`. The file is complete and synced to the disk.
    ///
    /// # Errors
    /// [`CliError::Unknown`], if another file has the name by now, or the file cannot be written. The existing file is then
    /// unchanged.
    pub(crate) fn put(
        &self,
        new: NamedTempFile,
        path: &Path,
        found: Option<&Existing>,
    ) -> Result<File, CliError> {
        let shown = path.display().to_string();
        let unwritten =
            |error: io::Error| CliError::Unknown(format!("{shown:?} cannot be written: {error}"));
        new.as_file().sync_all().map_err(unwritten)?;
        let put = match found {
            Some(found) if !found.is_at(path) => {
                return Err(CliError::Unknown(format!(
                    "another program replaced {shown:?} in the meantime, so it was not changed"
                )));
            }
            Some(_) => new.persist(path),
            // Fails if a file exists by now.
            None => new.persist_noclobber(path),
        };
        put.map_err(|error| unwritten(error.error))
    }
}

/// Checks that a file can be created in the same folder, so that a failure shows now and not after minutes.
///
/// # Errors
/// [`CliError::Usage`] with the reason.
pub(crate) fn can_write_beside(option: &str, path: &Path) -> Result<(), CliError> {
    let folder = folder(path);
    match tempfile::tempfile_in(folder) {
        Ok(_) => Ok(()),
        Err(error) => Err(CliError::Usage(format!(
            "{option}: cannot create a file in {:?}: {error}",
            folder.display().to_string()
        ))),
    }
}

/// Whether two paths name the same file, which need not exist yet.
pub(crate) fn are_same(one: &Path, other: &Path) -> bool {
    let whole = |path: &Path| -> Option<PathBuf> {
        let folder = folder(path).canonicalize().ok()?;
        Some(folder.join(path.file_name()?))
    };
    one == other || whole(one).is_some_and(|one| whole(other) == Some(one))
}

/// The folder that contains a file.
pub(crate) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}
