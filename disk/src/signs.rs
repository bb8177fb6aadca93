//! Which operating system is on a disk: the one root directory among its partitions, and the files in it that
//! tell.

mod linux;
mod windows;

use crate::file_system::{self, Content, Trouble};
use crate::findings::{Findings, SqlServer, System};
use crate::partitions::{self, Partition};
use crate::tree::Tree;
use crate::volume::Volume;

/// An operating system, before it is known to be the only one.
struct Found {
    system: System,
    name: String,
    sql_server: Option<SqlServer>,
}

/// Finds the operating system. Whatever may hold another one must be readable, or nothing is said: of two
/// systems nobody knows which one starts.
pub(crate) fn find(volume: &Volume) -> Result<Findings, Trouble> {
    let mut roots = Vec::new();
    let mut closed = Vec::new();
    let mut others = Vec::new();
    let mut sql_server_beside = false;
    for partition in partitions::partitions(volume)? {
        match file_system::open(&partition.region, partition.is_boot_code) {
            Ok(Content::Nothing) => {}
            Ok(Content::Closed(what)) => closed.push(format!("{what} ({partition})")),
            Ok(Content::Open(kind, file_systems)) => {
                others.push(format!("{kind} ({partition})"));
                for file_system in file_systems {
                    let mut tree = Tree::new(file_system);
                    match family(&mut tree, kind) {
                        Ok(None) => sql_server_beside |= tree.is_file(linux::SQL_SERVER_BESIDE)?,
                        Ok(Some(family)) => roots.push((family, tree, kind, partition.clone())),
                        Err(trouble) => closed.push(format!("{trouble} ({partition})")),
                    }
                }
            }
            Err(trouble) => closed.push(format!("{trouble} ({partition})")),
        }
        if let Some(why) = volume.stopped() {
            return Err(Trouble(why));
        }
    }
    if !closed.is_empty() {
        let also = match roots.first() {
            None => String::new(),
            Some((_, _, kind, partition)) => format!(", beside what is on {partition} ({kind})"),
        };
        return Err(Trouble(format!("{}{also}", closed.join("; "))));
    }
    let mut roots = roots.into_iter();
    match (roots.next(), roots.next()) {
        (Some(root), None) => told(root, sql_server_beside),
        (Some((_, _, _, one)), Some((_, _, _, other))) => Err(Trouble(format!(
            "there is more than one operating system, on {one} and on {other}"
        ))),
        (None, _) if others.is_empty() => Err(Trouble::new(
            "there is no file system that an operating system could be on",
        )),
        (None, _) => Err(Trouble(format!(
            "no operating system was found on {}",
            others.join(", ")
        ))),
    }
}

/// What tells an operating system, coarsely.
#[derive(Clone, Copy)]
enum Family {
    Linux,
    Windows,
}

/// Whether a tree is the root directory of an operating system: of Windows on NTFS alone, and there of nothing else,
/// as each of them could hold files that look like the other.
///
/// # Errors
/// [`Trouble`], if it is one that does not say which: it must not pass for none.
fn family(tree: &mut Tree, file_system: &str) -> Result<Option<Family>, Trouble> {
    let nameless = |sign: &str| {
        Err(Trouble(format!(
            "it looks like an operating system ({sign}) that does not say which"
        )))
    };
    if !tree.has_root()? {
        return Err(Trouble::new("its root is no directory"));
    }
    if file_system == "ntfs" {
        return match tree.is_directory(windows::CONFIGURATION)? {
            true => Ok(Some(Family::Windows)),
            false if tree.is_directory(windows::SYSTEM)? => nameless(windows::SYSTEM),
            false => Ok(None),
        };
    }
    for path in linux::OS_RELEASE {
        if tree.is_file(path)? {
            return Ok(Some(Family::Linux));
        }
    }
    for path in linux::OF_A_ROOT {
        if tree.has(path)? {
            return nameless(path);
        }
    }
    Ok(None)
}

fn told(
    (family, mut tree, kind, partition): (Family, Tree, &'static str, Partition),
    sql_server_beside: bool,
) -> Result<Findings, Trouble> {
    let found = match family {
        Family::Linux => linux::read(&mut tree, sql_server_beside)?,
        Family::Windows => windows::read(&mut tree)?,
    };
    Ok(Findings {
        system: found.system,
        name: found.name,
        sql_server: found.sql_server,
        place: format!("{partition}, {kind}"),
        evidence: tree.evidence().to_vec(),
    })
}
