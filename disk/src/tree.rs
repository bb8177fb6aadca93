//! Files below a root directory. Links are followed within the image.

use crate::file_system::{FileSystem, Kind, ReadError};

/// Maximum number of links on one path, as in Linux (`path_resolution(7)`).
const MOST_LINKS: u32 = 40;

/// Maximum number of paths kept as evidence, because an untrusted disk may have any number of them.
const MOST_TOLD: usize = 32;

/// The root directory of an operating system on a file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Root {
    /// The directory's path in the file system; empty for the file system's own root.
    pub(crate) directory: String,
    /// Path of its `/var`, if that is outside the directory.
    pub(crate) var: Option<String>,
}

/// A file system, seen from a root directory.
pub(crate) struct Tree {
    file_system: Box<dyn FileSystem>,
    root: Root,
    /// Paths that serve as evidence, in the order in which they were read.
    evidence: Vec<String>,
}

impl Tree {
    pub(crate) fn new(file_system: Box<dyn FileSystem>) -> Tree {
        Tree {
            file_system,
            root: Root::default(),
            evidence: Vec::new(),
        }
    }

    /// Changes the root directory. No link leads out of it.
    pub(crate) fn enter(&mut self, root: Root) {
        self.root = root;
    }

    /// Converts a path below the root directory to a path of the file system.
    fn real(&self, path: &str) -> String {
        let below_var = path.strip_prefix("/var");
        let below_var = below_var.filter(|rest| rest.is_empty() || rest.starts_with('/'));
        match (&self.root.var, below_var) {
            (Some(var), Some(rest)) => format!("{var}{rest}"),
            _ => match format!("{}{path}", self.root.directory) {
                whole if whole.is_empty() => "/".to_owned(),
                whole => whole,
            },
        }
    }

    /// Whether the root is a directory, as it must be.
    pub(crate) fn has_root(&mut self) -> Result<bool, ReadError> {
        Ok(self.file_system.kind(&self.real(""))? == Some(Kind::Directory))
    }

    /// The paths that serve as evidence.
    pub(crate) fn evidence(&self) -> &[String] {
        &self.evidence
    }

    /// Records a path as evidence.
    pub(crate) fn tells(&mut self, path: &str) {
        let told = self.evidence.len();
        if told < MOST_TOLD && !self.evidence.iter().any(|told| told == path) {
            self.evidence.push(path.to_owned());
        }
    }

    /// Whether a path leads to a file.
    pub(crate) fn is_file(&mut self, path: &str) -> Result<bool, ReadError> {
        Ok(matches!(self.follow(path)?, Some((_, Kind::File))))
    }

    /// Whether a path leads to a directory.
    pub(crate) fn is_directory(&mut self, path: &str) -> Result<bool, ReadError> {
        Ok(matches!(self.follow(path)?, Some((_, Kind::Directory))))
    }

    /// Whether a path exists, even as a dangling link. Records an existing path as evidence.
    pub(crate) fn has(&mut self, path: &str) -> Result<bool, ReadError> {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let Some((directory, Kind::Directory)) = self.follow(directory)? else {
            return Ok(false);
        };
        let there = self.real(&format!("{directory}/{name}"));
        let there = self.file_system.kind(&there)?;
        if there.is_some() {
            self.tells(path);
        }
        Ok(there.is_some())
    }

    /// The names in a directory; none if it does not exist.
    pub(crate) fn names(&mut self, path: &str) -> Result<Vec<String>, ReadError> {
        match self.follow(path)? {
            Some((path, Kind::Directory)) => self.file_system.names(&self.real(&path)),
            _ => Ok(Vec::new()),
        }
    }

    /// The target of a link, or `None` if there is no link at the path.
    pub(crate) fn link(&mut self, path: &str) -> Result<Option<String>, ReadError> {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let Some((directory, Kind::Directory)) = self.follow(directory)? else {
            return Ok(None);
        };
        let path = self.real(&format!("{directory}/{name}"));
        Ok(match self.file_system.kind(&path)? {
            Some(Kind::Link) => String::from_utf8(self.file_system.link(&path)?).ok(),
            _ => None,
        })
    }

    /// Opens a file, or `None` if it does not exist.
    pub(crate) fn file(&mut self, path: &str) -> Result<Option<OpenFile<'_>>, ReadError> {
        Ok(match self.follow(path)? {
            Some((path, Kind::File)) => Some(OpenFile {
                path: self.real(&path),
                file_system: self.file_system.as_mut(),
            }),
            _ => None,
        })
    }

    /// Resolves a path through all links, and returns the final path and its type. The root is the empty path.
    fn follow(&mut self, path: &str) -> Result<Option<(String, Kind)>, ReadError> {
        let mut ahead: Vec<String> = path.rsplit('/').map(str::to_owned).collect();
        let mut here: Vec<String> = Vec::new();
        let mut kind = Kind::Directory;
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            match name.as_str() {
                "" | "." => continue,
                ".." => {
                    // The parent of the root is the root.
                    here.pop();
                    kind = Kind::Directory;
                    continue;
                }
                _ if kind != Kind::Directory => return Ok(None),
                _ => here.push(name),
            }
            let path = self.real(&absolute(&here));
            kind = match self.file_system.kind(&path)? {
                None => return Ok(None),
                Some(Kind::Link) => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Ok(None);
                    }
                    let target = self.file_system.link(&path)?;
                    let Ok(target) = String::from_utf8(target) else {
                        return Ok(None);
                    };
                    here.pop();
                    if target.starts_with('/') {
                        here.clear();
                    }
                    ahead.extend(target.rsplit('/').map(str::to_owned));
                    Kind::Directory
                }
                Some(kind) => kind,
            };
        }
        Ok(Some((absolute(&here), kind)))
    }
}

fn absolute(names: &[String]) -> String {
    names.iter().map(|name| format!("/{name}")).collect()
}

/// An open file.
pub(crate) struct OpenFile<'a> {
    file_system: &'a mut dyn FileSystem,
    path: String,
}

impl OpenFile<'_> {
    /// Reads from `offset` into `buffer`, and returns the number of bytes. They are fewer than fit only at the file's
    /// end.
    pub(crate) fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, ReadError> {
        self.file_system.read_at(&self.path, offset, buffer)
    }

    /// The first bytes of the file, at most `most`.
    pub(crate) fn beginning(&mut self, most: usize) -> Result<Vec<u8>, ReadError> {
        let mut bytes = vec![0; most];
        let read = self.read_at(0, &mut bytes)?;
        bytes.truncate(read);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paths and their content: `/` makes a directory, `-> target` a link, other text a file.
    struct Made(&'static [(&'static str, &'static str)]);

    impl Made {
        fn at(&self, path: &str) -> Option<&'static str> {
            self.0
                .iter()
                .find(|(p, _)| *p == path)
                .map(|(_, what)| *what)
        }
    }

    impl FileSystem for Made {
        fn kind(&mut self, path: &str) -> Result<Option<Kind>, ReadError> {
            Ok(self.at(path).map(|what| match what {
                "/" => Kind::Directory,
                what if what.starts_with("-> ") => Kind::Link,
                _ => Kind::File,
            }))
        }

        fn link(&mut self, path: &str) -> Result<Vec<u8>, ReadError> {
            Ok(self.at(path).unwrap()[3..].into())
        }

        fn read_at(&mut self, path: &str, at: u64, buffer: &mut [u8]) -> Result<usize, ReadError> {
            let bytes = &self.at(path).unwrap().as_bytes()[at as usize..];
            let length = bytes.len().min(buffer.len());
            buffer[..length].copy_from_slice(&bytes[..length]);
            Ok(length)
        }

        fn names(&mut self, path: &str) -> Result<Vec<String>, ReadError> {
            let below = format!("{}/", path.trim_end_matches('/'));
            let names = self.0.iter().filter_map(|(p, _)| p.strip_prefix(&below));
            Ok(names
                .filter(|n| !n.contains('/'))
                .map(str::to_owned)
                .collect())
        }
    }

    fn content(files: &'static [(&'static str, &'static str)], path: &str) -> Option<String> {
        let mut tree = Tree::new(Box::new(Made(files)));
        let mut file = tree.file(path).unwrap()?;
        Some(String::from_utf8(file.beginning(100).unwrap()).unwrap())
    }

    #[test]
    fn links_are_followed_within_the_image() {
        const FILES: &[(&str, &str)] = &[
            ("/etc", "/"),
            ("/etc/os-release", "-> ../usr/lib/os-release"),
            ("/etc/absolute", "-> /lib/os-release"),
            ("/etc/above", "-> ../../../../usr/./lib//os-release"),
            ("/etc/dangling", "-> nothing"),
            ("/etc/round", "-> about"),
            ("/etc/about", "-> round"),
            (
                "/etc/through-a-file",
                "-> /usr/lib/os-release/../os-release",
            ),
            ("/lib", "-> usr/lib"),
            ("/usr", "/"),
            ("/usr/lib", "/"),
            ("/usr/lib/os-release", "ID=debian"),
        ];
        for path in [
            "/usr/lib/os-release",
            "/etc/os-release",
            "/etc/absolute",
            "/etc/above",
            "/lib/os-release",
            "etc/os-release",
        ] {
            assert_eq!(content(FILES, path).as_deref(), Some("ID=debian"), "{path}");
        }
        for path in ["/etc/dangling", "/etc/round", "/etc", "/", "", "/etc/no"] {
            assert_eq!(content(FILES, path), None, "{path}");
        }
        let mut tree = Tree::new(Box::new(Made(FILES)));
        assert!(tree.has("/etc/dangling").unwrap());
        assert!(!tree.has("/etc/nothing").unwrap());
        assert!(tree.has("/lib/os-release").unwrap());
        assert_eq!(tree.evidence(), ["/etc/dangling", "/lib/os-release"]);
        assert_eq!(tree.names("/lib").unwrap(), ["os-release"]);
        assert_eq!(tree.names("/").unwrap(), ["etc", "lib", "usr"]);
        assert_eq!(tree.names("/etc/dangling").unwrap(), [] as [&str; 0]);
        assert_eq!(tree.link("/lib").unwrap().as_deref(), Some("usr/lib"));
        assert_eq!(tree.link("/usr").unwrap(), None);
        assert_eq!(tree.link("/etc/no").unwrap(), None);
    }

    #[test]
    fn no_link_leads_out_of_a_root_that_is_not_the_file_system_s_own() {
        const FILES: &[(&str, &str)] = &[
            ("/etc", "/"),
            ("/etc/os-release", "ID=outside"),
            ("/own", "/"),
            ("/own/etc", "/"),
            ("/own/etc/os-release", "-> /usr/os-release"),
            ("/own/etc/above", "-> ../../../etc/os-release"),
            ("/own/usr", "/"),
            ("/own/usr/os-release", "ID=inside"),
            ("/own/opt", "-> var/opt"),
            ("/own/var", "/"),
            ("/kept", "/"),
            ("/kept/opt", "/"),
            ("/kept/opt/it", "kept"),
        ];
        let mut tree = Tree::new(Box::new(Made(FILES)));
        tree.enter(Root {
            directory: "/own".into(),
            var: Some("/kept".into()),
        });
        let mut content = |path: &str| {
            let mut file = tree.file(path).unwrap()?;
            Some(String::from_utf8(file.beginning(100).unwrap()).unwrap())
        };
        for path in ["/etc/os-release", "/etc/above", "../own/etc/os-release"] {
            let inside = (path != "../own/etc/os-release").then_some("ID=inside");
            assert_eq!(content(path).as_deref(), inside, "{path}");
        }
        for path in ["/var/opt/it", "/opt/it"] {
            assert_eq!(content(path).as_deref(), Some("kept"), "{path}");
        }
        assert_eq!(content("/variant"), None);
        assert!(tree.has_root().unwrap());
        assert_eq!(tree.names("/").unwrap(), ["etc", "usr", "opt", "var"]);
    }
}
