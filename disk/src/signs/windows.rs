//! Signs of Windows: its identity in the registry, and the editions of SQL Server.

use super::linux::short;
use super::told::Told;
use crate::file_system::ReadError;
use crate::findings::{SqlEdition, SqlServer, System, WindowsKind};
use crate::hive::Hive;
use crate::tree::Tree;

/// Paths of the registry.
pub(super) const CONFIGURATION: &str = "/Windows/System32/config";
pub(super) const SYSTEM: &str = "/Windows/System32";
const SOFTWARE: &str = "/Windows/System32/config/SOFTWARE";

/// Default folder of SQL Server's instances. If the installer chose another folder, only the registry shows it.
const SQL_SERVER: &str = "/Program Files/Microsoft SQL Server";

/// Keys of the hive `SOFTWARE`.
const CURRENT_VERSION: &str = r"Microsoft\Windows NT\CurrentVersion";
const SQL_SERVER_KEY: &str = r"Microsoft\Microsoft SQL Server";
/// Kinds of instances: the database engine, Analysis Services and Reporting Services. They are licensed alike.
const SQL_SERVICES: [&str; 3] = ["SQL", "OLAP", "RS"];

/// Reads the signs of the Windows whose system drive this is.
pub(super) fn read(tree: &mut Tree) -> Result<Told, ReadError> {
    // The directory proves that this is Windows. Without a readable registry, it is unknown which Windows it is and
    // whether SQL Server is installed.
    let registry = Registry::read(tree).unwrap_or_default();
    match registry.was_read {
        true => tree.tells(SOFTWARE),
        false => tree.tells(CONFIGURATION),
    }
    let kind = match registry.installation_type.as_deref() {
        Some("Client") => WindowsKind::Client,
        Some(server) if server.starts_with("Server") || server.starts_with("Nano") => {
            WindowsKind::Server
        }
        _ => WindowsKind::Unknown,
    };
    let mut instances = false;
    for name in tree.names(SQL_SERVER)? {
        let path = format!("{SQL_SERVER}/{name}/MSSQL/Binn/sqlservr.exe");
        if name.to_ascii_uppercase().starts_with("MSSQL") && tree.is_file(&path)? {
            tree.tells(&path);
            instances = true;
        }
    }
    let sql_server = match registry.sql_editions.as_deref() {
        None => Some(SqlServer::Unknown),
        Some([]) if instances => Some(SqlServer::Unknown),
        Some([]) => None,
        Some(editions) => Some(sql_server(editions)),
    };
    Ok(Told {
        system: System::Windows(kind),
        name: short(registry.product.as_deref().unwrap_or("Windows")),
        sql_server,
    })
}

/// Values from the registry.
#[derive(Default)]
struct Registry {
    was_read: bool,
    /// `Server`, `Server Core`, `Client`, …
    installation_type: Option<String>,
    product: Option<String>,
    /// The edition of each instance of SQL Server, if the instance states it. `None` if the instances could not be
    /// read.
    sql_editions: Option<Vec<Option<String>>>,
}

impl Registry {
    fn read(tree: &mut Tree) -> Result<Registry, ReadError> {
        let Some(file) = tree.file(SOFTWARE)? else {
            return Ok(Registry::default());
        };
        let mut hive = Hive::open(file)?;
        let mut registry = Registry::default();
        if let Some(key) = hive.key(CURRENT_VERSION)? {
            registry.was_read = true;
            registry.installation_type = hive.text_of(&key, "InstallationType")?;
            registry.product = hive.text_of(&key, "ProductName")?;
        }
        // If the editions of SQL Server cannot be read, the values of Windows still count.
        registry.sql_editions = sql_editions(&mut hive).ok();
        Ok(registry)
    }
}

fn sql_editions(hive: &mut Hive<'_>) -> Result<Vec<Option<String>>, ReadError> {
    let mut editions = Vec::new();
    for service in SQL_SERVICES {
        let Some(key) = hive.key(&format!(r"{SQL_SERVER_KEY}\Instance Names\{service}"))? else {
            continue;
        };
        for instance in hive.texts(&key)? {
            let setup = hive.key(&format!(r"{SQL_SERVER_KEY}\{instance}\Setup"))?;
            editions.push(match setup {
                Some(key) => hive.text_of(&key, "Edition")?,
                None => None,
            });
        }
    }
    Ok(editions)
}

/// The editions with a licence fee among several instances.
fn sql_server(instances: &[Option<String>]) -> SqlServer {
    let mut paid = Vec::new();
    for edition in instances {
        match edition.as_deref().map(edition_named) {
            Some(Some(Edition::Free)) => {}
            Some(Some(Edition::Paid(edition))) => paid.push(edition),
            Some(None) | None => return SqlServer::Unknown,
        }
    }
    paid.sort();
    paid.dedup();
    match paid.is_empty() {
        true => SqlServer::Free,
        false => SqlServer::Editions(paid),
    }
}

enum Edition {
    Free,
    Paid(SqlEdition),
}

/// The edition by its name: `Standard Edition`, `Enterprise Edition: Core-based Licensing`, `Enterprise Evaluation
/// Edition`. (SQL Server documentation, "SERVERPROPERTY".)
fn edition_named(name: &str) -> Option<Edition> {
    if ["Express", "Developer", "Evaluation"]
        .iter()
        .any(|free| name.contains(free))
    {
        return Some(Edition::Free);
    }
    [
        ("Web", SqlEdition::Web),
        ("Standard", SqlEdition::Standard),
        ("Enterprise", SqlEdition::Enterprise),
    ]
    .into_iter()
    .find(|(word, _)| name.starts_with(word))
    .map(|(_, edition)| Edition::Paid(edition))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_instances_of_sql_server_whatever_is_paid_for_counts() {
        use SqlEdition::{Enterprise, Standard, Web};
        let editions = |names: &[&str]| {
            let names: Vec<_> = names
                .iter()
                .map(|name| (*name != "?").then(|| (*name).to_owned()))
                .collect();
            sql_server(&names)
        };
        for (names, expected) in [
            (
                &["Standard Edition"][..],
                SqlServer::Editions(vec![Standard]),
            ),
            (
                &["Standard Edition: Core-based Licensing"],
                SqlServer::Editions(vec![Standard]),
            ),
            (
                &["Web Edition", "Express Edition"],
                SqlServer::Editions(vec![Web]),
            ),
            (
                &[
                    "Enterprise Edition",
                    "Standard Edition",
                    "Enterprise Edition: Core-based Licensing",
                ],
                SqlServer::Editions(vec![Standard, Enterprise]),
            ),
            (
                &[
                    "Express Edition with Advanced Services",
                    "Developer Edition",
                ],
                SqlServer::Free,
            ),
            (&["Enterprise Evaluation Edition"], SqlServer::Free),
            (&["Standard Developer Edition"], SqlServer::Free),
            (&["Business Intelligence Edition"], SqlServer::Unknown),
            (&["Standard Edition", "?"], SqlServer::Unknown),
        ] {
            assert_eq!(editions(names), expected, "{names:?}");
        }
    }
}
