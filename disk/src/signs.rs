//! Detects the operating system on a disk: finds the only root directory among its partitions, and reads the files in
//! it that identify the system.

mod linux;
mod told;
mod windows;

use self::told::Told;
use crate::file_system::ReadError;
use crate::file_system::open::{self, Content};
use crate::findings::Findings;
use crate::partitions;
use crate::tree::{Root, Tree};
use crate::volume::Volume;

/// An operating system that may not be the only one.
struct Found {
    family: Family,
    tree: Tree,
    /// Its root directories: one, or one for each OSTree deployment.
    roots: Vec<Root>,
    /// The partition and its content, as shown to people.
    place: String,
}

/// Location of OSTree's deployments: `/ostree/deploy/NAME/deploy/CHECKSUM.N`. Each is the root of one version of the
/// system. All deployments of a name share one `/var`. (OSTree's documentation, "Deployments")
const OSTREE: &str = "/ostree/deploy";

/// Maximum number of deployments that are read. There are usually at most two.
const MOST_DEPLOYMENTS: usize = 8;

/// The deployments on a file system. Fedora CoreOS, RHEL CoreOS and image mode for RHEL keep their whole system in one.
///
/// # Errors
/// [`ReadError`], if there are more than are read, because the one that boots may be among the others.
fn deployments(tree: &mut Tree) -> Result<Vec<Root>, ReadError> {
    let mut roots = Vec::new();
    for name in tree.names(OSTREE)? {
        let deployed = format!("{OSTREE}/{name}/deploy");
        for version in tree.names(&deployed)? {
            let directory = format!("{deployed}/{version}");
            if !tree.is_directory(&directory)? {
                continue;
            }
            if roots.len() == MOST_DEPLOYMENTS {
                return Err(ReadError::new("OSTree has too many deployments"));
            }
            roots.push(Root {
                directory,
                var: Some(format!("{OSTREE}/{name}/var")),
            });
        }
    }
    Ok(roots)
}

/// Finds the only operating system. With two systems, the reader cannot know which one boots. So everything that may
/// hold a system must be readable, or the result stays undetermined.
pub(crate) fn find(volume: &Volume) -> Result<Findings, ReadError> {
    let mut roots = Vec::new();
    let mut closed = Vec::new();
    let mut others = Vec::new();
    let mut sql_server_beside = false;
    for partition in partitions::partitions(volume)? {
        match open::open(&partition.region, partition.is_boot_code) {
            Ok(Content::Nothing) => {}
            Ok(Content::Closed(what)) => closed.push(format!("{what} ({partition})")),
            Ok(Content::Open(kind, file_systems)) => {
                others.push(format!("{kind} ({partition})"));
                for file_system in file_systems {
                    let mut tree = Tree::new(file_system);
                    let is_own_root = family(&mut tree, kind);
                    let deployed = match kind {
                        "ntfs" => Ok(Vec::new()),
                        _ => deployments(&mut tree),
                    };
                    match (is_own_root, deployed) {
                        (Ok(None), Ok(deployed)) if deployed.is_empty() => {
                            sql_server_beside |= tree.is_file(linux::SQL_SERVER_BESIDE)?;
                        }
                        (Ok(Some(family)), Ok(deployed)) if deployed.is_empty() => {
                            roots.push(Found {
                                family,
                                tree,
                                roots: vec![Root::default()],
                                place: format!("{partition}, {kind}"),
                            });
                        }
                        (Ok(None), Ok(deployed)) => roots.push(Found {
                            family: Family::Linux,
                            tree,
                            roots: deployed,
                            place: format!("{partition}, {kind}, OSTree"),
                        }),
                        (Ok(Some(_)), Ok(_)) => closed.push(format!(
                            "an operating system beside OSTree's deployments ({partition})"
                        )),
                        (Err(trouble), _) | (_, Err(trouble)) => {
                            closed.push(format!("{trouble} ({partition})"));
                        }
                    }
                }
            }
            Err(trouble) => closed.push(format!("{trouble} ({partition})")),
        }
        if let Some(why) = volume.stopped() {
            return Err(ReadError(why));
        }
    }
    if !closed.is_empty() {
        let also = match roots.first() {
            None => String::new(),
            Some(root) => format!(", beside what is on {}", root.place),
        };
        return Err(ReadError(format!("{}{also}", closed.join("; "))));
    }
    let mut roots = roots.into_iter();
    match (roots.next(), roots.next()) {
        (Some(root), None) => told(root, sql_server_beside),
        (Some(one), Some(other)) => Err(ReadError(format!(
            "there is more than one operating system, on {} and on {}",
            one.place, other.place
        ))),
        (None, _) if others.is_empty() => Err(ReadError::new(
            "there is no file system that an operating system could be on",
        )),
        (None, _) => Err(ReadError(format!(
            "no operating system was found on {}",
            others.join(", ")
        ))),
    }
}

/// Family of an operating system.
#[derive(Clone, Copy)]
enum Family {
    Linux,
    Windows,
}

/// The family of the operating system whose root directory this tree is, or `None` if it is not one. Windows is
/// expected only on NTFS, and NTFS may hold only Windows, because either could hold files that look like the other's.
///
/// # Errors
/// [`ReadError`], if the tree looks like an operating system but does not identify itself. It must not pass for none.
fn family(tree: &mut Tree, file_system: &str) -> Result<Option<Family>, ReadError> {
    let nameless = |sign: &str| {
        Err(ReadError(format!(
            "it looks like an operating system ({sign}) that does not say which"
        )))
    };
    if !tree.has_root()? {
        return Err(ReadError::new("its root is no directory"));
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

fn told(found: Found, sql_server_beside: bool) -> Result<Findings, ReadError> {
    let Found {
        family,
        mut tree,
        roots,
        place,
    } = found;
    let mut first: Option<Told> = None;
    for root in roots {
        tree.enter(root);
        let told = match family {
            Family::Linux => linux::read(&mut tree, sql_server_beside)?,
            Family::Windows => windows::read(&mut tree)?,
        };
        match &first {
            None => first = Some(told),
            Some(first)
                if (&first.system, &first.sql_server) == (&told.system, &told.sql_server) => {}
            // The boot loader's entries tell which deployment boots, but they may be elsewhere.
            Some(first) => {
                return Err(ReadError(format!(
                    "OSTree's deployments hold different systems: {} and {}",
                    first.name, told.name
                )));
            }
        }
    }
    let told = first.ok_or_else(|| ReadError::new("there is no root directory"))?;
    Ok(Findings {
        system: told.system,
        name: told.name,
        sql_server: told.sql_server,
        place,
        evidence: tree.evidence().to_vec(),
    })
}
