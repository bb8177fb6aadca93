//! Files that a command writes under a name that a person gave.
//!
//! A typing error, or a link that somebody planted, must not destroy a file of another program. A file is replaced only
//! if it is empty, or if its first line shows that this program wrote it. What replaces it is written beside it, under
//! a random name that did not exist, and renamed when it is complete. New files are readable by their owner alone.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use tempfile::NamedTempFile;

use crate::outcome::Stop;

/// How many bytes of a first line are read at most. A state's first line has the policy in it.
const MOST_FIRST_LINE: u64 = 16 * 1024 * 1024;

/// A kind of file that this program writes, known by its first line.
pub(crate) struct Kind {
    /// The option that names such a file.
    pub(crate) option: &'static str,
    /// What it is, for people.
    pub(crate) name: &'static str,
    /// Whether a file with this first line is one.
    pub(crate) has_first_line: fn(&str) -> bool,
}

/// The file that is under a name: empty, or one that this program wrote.
#[derive(Debug)]
pub(crate) struct Existing {
    /// The file, open for reading and writing, at its beginning.
    pub(crate) file: File,
    /// Whether there is nothing in it.
    pub(crate) is_empty: bool,
    /// Its device and its number there.
    identity: (u64, u64),
}

impl Existing {
    /// Whether the file is still the one under this name.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        std::fs::symlink_metadata(path).is_ok_and(|it| (it.dev(), it.ino()) == self.identity)
    }
}

impl Kind {
    /// Finds what is under a name. A link at its end is not followed, and nobody has to write to a FIFO for this to end.
    ///
    /// # Errors
    /// What is in the way: anything but an ordinary file, another program's or another user's file, a folder that does
    /// not exist.
    pub(crate) fn find(&self, path: &Path) -> Result<Option<Existing>, Stop> {
        let folder = folder(path);
        if !folder.is_dir() {
            let (option, folder) = (self.option, folder.display().to_string());
            return Err(Stop::Usage(format!(
                "{option}: there is no folder {folder:?}"
            )));
        }
        let unreadable = |error: io::Error| {
            self.in_the_way(path, &format!("cannot be opened to be replaced ({error})"))
        };
        // To open a device may already do something.
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

    fn is_ordinary(&self, path: &Path, there: std::fs::FileType) -> Result<(), Stop> {
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

    fn in_the_way(&self, path: &Path, what: &str) -> Stop {
        let (option, name, path) = (self.option, self.name, path.display().to_string());
        Stop::Usage(format!(
            "{option}: {path:?} {what}, and was not changed. Accepted are a name that does not exist yet, an empty file, \
             and {name}"
        ))
    }

    /// A new file beside its place, readable by its owner alone. It is deleted unless it is put in its place.
    ///
    /// # Errors
    /// Why it cannot be created.
    pub(crate) fn beside(&self, path: &Path) -> io::Result<NamedTempFile> {
        tempfile::Builder::new()
            .prefix(".ami-guard-")
            .suffix(".part")
            .tempfile_in(folder(path))
    }

    /// Puts a new file in its place, complete and on the disk, instead of what was found there.
    ///
    /// # Errors
    /// Something else is there by now, or the file cannot be written. What is there is not changed then.
    pub(crate) fn put(
        &self,
        new: NamedTempFile,
        path: &Path,
        found: Option<&Existing>,
    ) -> Result<File, Stop> {
        let shown = path.display().to_string();
        let unwritten =
            |error: io::Error| Stop::Unknown(format!("{shown:?} cannot be written: {error}"));
        new.as_file().sync_all().map_err(unwritten)?;
        let put = match found {
            Some(found) if !found.is_at(path) => {
                return Err(Stop::Unknown(format!(
                    "{shown:?} was replaced by another program meanwhile, and was not changed"
                )));
            }
            Some(_) => new.persist(path),
            // Fails if there is something by now.
            None => new.persist_noclobber(path),
        };
        put.map_err(|error| unwritten(error.error))
    }
}

/// Whether a file can be created beside this name: known now, and not after minutes.
///
/// # Errors
/// Why it cannot.
pub(crate) fn can_write_beside(option: &str, path: &Path) -> Result<(), Stop> {
    let folder = folder(path);
    match tempfile::tempfile_in(folder) {
        Ok(_) => Ok(()),
        Err(error) => Err(Stop::Usage(format!(
            "{option}: no file can be created in {:?}: {error}",
            folder.display().to_string()
        ))),
    }
}

/// Whether two names are of the same file, which need not exist yet.
pub(crate) fn are_same(one: &Path, other: &Path) -> bool {
    let whole = |path: &Path| -> Option<PathBuf> {
        let folder = folder(path).canonicalize().ok()?;
        Some(folder.join(path.file_name()?))
    };
    one == other || whole(one).is_some_and(|one| whole(other) == Some(one))
}

/// The folder that a file is in.
pub(crate) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}
