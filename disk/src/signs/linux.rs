//! Signs of a Linux distribution: its identity in os-release, and the files that show who licenses it.

use super::told::Told;
use crate::file_system::ReadError;
use crate::findings::{LinuxSigns, SqlServer, System};
use crate::tree::Tree;

/// Where a distribution identifies itself. The first file that exists counts (`os-release(5)`).
pub(super) const OS_RELEASE: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];

/// Paths that exist only in a system's root directory, or in a file system of its own for `/usr`.
pub(super) const OF_A_ROOT: [&str; 9] = [
    "/etc/os-release",
    "/usr/lib/os-release",
    "/lib/os-release",
    "/etc/redhat-release",
    "/etc/SuSE-release",
    "/etc/fstab",
    "/etc/passwd",
    "/sbin/init",
    "/usr/sbin/init",
];

/// Maximum length of os-release, in bytes. Real ones have a few hundred.
const MOST_BYTES: usize = 64 * 1024;

/// Parts of the `ID` or names of distributions that are sold by the hour, or whose vendor sells such a distribution. An
/// unknown `ID` together with one of them may be a new product or a damaged file. It is not treated as another Linux.
const SOLD: [&str; 6] = [
    "rhel",
    "red hat enterprise",
    "redhat:enterprise",
    "suse linux",
    "sles",
    "ubuntu",
];

/// `ID`s of OpenShift's node systems. They name Red Hat Enterprise Linux but are sold as OpenShift. Their images do not
/// have the billing code of Red Hat Enterprise Linux.
const OPENSHIFT_NODES: [&str; 2] = ["rhcos", "scos"];

/// `ID`s of SUSE Linux Micro, formerly SUSE Linux Enterprise Micro.
const SUSE_MICRO: [&str; 3] = ["sl-micro", "sle-micro", "sle-micro-rancher"];

/// `ID`, beginning of the `VARIANT_ID`s, and beginning of the base product's name of SUSE Linux Enterprise Server for
/// SAP.
const SUSE_FOR_SAP: &str = "sles_sap";
const SUSE_FOR_SAP_VARIANT: &str = "sles-sap";
const SUSE_FOR_SAP_PRODUCT: &str = "SLES_SAP";

/// Product certificates and repositories of AWS's update servers for Red Hat (RHUI). Only customers whom AWS bills for
/// Red Hat's software may use these servers.
const RHUI_PRODUCTS: &str = "/etc/pki/rhui/product";
const REPOSITORIES: &str = "/etc/yum.repos.d";
/// The customer's own subscription.
const SUBSCRIPTION: &str = "/etc/pki/consumer/cert.pem";

/// Service that registers with SUSE's update servers for AWS's customers, at first boot.
const SUSE_PAY_AS_YOU_GO: &str =
    "/etc/systemd/system/multi-user.target.wants/guestregister.service";
/// Configuration of the client for these servers, which shows the cloud. All clouds' images have the same client.
const SUSE_CLIENT: &str = "/etc/regionserverclnt.cfg";
const OTHER_CLOUDS: [&str; 4] = ["azure", "gce", "google", "oci"];
/// Message that asks the customer to register their own subscription.
const SUSE_BYOS: &str = "/usr/lib/motd.d/20_byos_register";
/// Link to SUSE's base product.
const SUSE_PRODUCT: &str = "/etc/products.d/baseproduct";

/// Package that attaches Ubuntu Pro's images, under its present and its former name. After its removal, the list of its
/// files may remain, but their checksums do not.
const UBUNTU_PRO: [&str; 2] = [
    "/var/lib/dpkg/info/ubuntu-pro-auto-attach",
    "/var/lib/dpkg/info/ubuntu-advantage-pro",
];
/// File of a system that is attached to Ubuntu Pro, whoever attached it.
const UBUNTU_ATTACHED: &str = "/var/lib/ubuntu-advantage/private/machine-token.json";

/// Package databases of the two families.
const DEBIAN_PACKAGES: &str = "/var/lib/dpkg/status";
const RPM_PACKAGES: [&str; 6] = [
    // Of an OSTree deployment.
    "/usr/share/rpm/rpmdb.sqlite",
    "/var/lib/rpm/rpmdb.sqlite",
    "/var/lib/rpm/Packages",
    "/var/lib/rpm/Packages.db",
    "/usr/lib/sysimage/rpm/rpmdb.sqlite",
    "/usr/lib/sysimage/rpm/Packages.db",
];

const SQL_SERVER: &str = "/opt/mssql/bin/sqlservr";
/// The same file, if `/opt` is a file system of its own.
pub(super) const SQL_SERVER_BESIDE: &str = "/mssql/bin/sqlservr";

/// Reads the signs of the distribution whose root directory this is. `sql_server_beside` tells whether SQL Server was
/// found on another file system.
pub(super) fn read(tree: &mut Tree, sql_server_beside: bool) -> Result<Told, ReadError> {
    let release = OsRelease::read(tree)?;
    let system = match release.id.as_str() {
        "rhel" => System::RedHat(red_hat(tree, &release)?),
        id if id == "sles"
            || id.starts_with("sles_")
            || id.starts_with("sle-")
            || SUSE_MICRO.contains(&id) =>
        {
            contradicted(tree, &release, Packages::Rpm)?;
            suse(tree, &release)?
        }
        "ubuntu" => {
            contradicted(tree, &release, Packages::Debian)?;
            System::Ubuntu(ubuntu(tree)?)
        }
        "" => {
            return Err(ReadError::new("os-release says no ID"));
        }
        id => {
            if !OPENSHIFT_NODES.contains(&id) {
                release.is_of_no_product()?;
            }
            let packages = match id {
                "debian" => Packages::Debian,
                "almalinux" | "amzn" | "centos" | "fedora" | "ol" | "rhcos" | "rocky" | "scos" => {
                    Packages::Rpm
                }
                _ => Packages::Any,
            };
            contradicted(tree, &release, packages)?;
            System::OtherLinux(id.to_owned())
        }
    };
    let sql_server = match sql_server_beside || tree.is_file(SQL_SERVER)? {
        true => {
            tree.tells(SQL_SERVER);
            // The edition is chosen at first start, and stored in a format of SQL Server's own.
            Some(SqlServer::Unknown)
        }
        false => None,
    };
    Ok(Told {
        system,
        name: release.name,
        sql_server,
    })
}

/// Content of os-release.
struct OsRelease {
    /// `ID`.
    id: String,
    /// `PRETTY_NAME`, or `ID` if it is absent.
    name: String,
    /// `VARIANT_ID`.
    variant: String,
    /// All names of the distribution, in lower case: `NAME`, `PRETTY_NAME`, `CPE_NAME`.
    names: String,
}

impl OsRelease {
    fn read(tree: &mut Tree) -> Result<OsRelease, ReadError> {
        let mut found: Option<OsRelease> = None;
        for path in OS_RELEASE {
            let Some(mut file) = tree.file(path)? else {
                continue;
            };
            let text = file.beginning(MOST_BYTES + 1)?;
            if text.len() > MOST_BYTES {
                return Err(ReadError::new("os-release is too long to be one"));
            }
            let release = OsRelease::parse(&String::from_utf8_lossy(&text));
            match &found {
                None => {
                    tree.tells(path);
                    found = Some(release);
                }
                // The first is usually a link to the second.
                Some(first) if first.id == release.id => {}
                Some(first) => {
                    return Err(ReadError(format!(
                        "the signs contradict each other: os-release says ID={:?} in /etc, and ID={:?} in /usr/lib",
                        short(&first.id),
                        short(&release.id)
                    )));
                }
            }
        }
        found.ok_or_else(|| ReadError::new("there is no os-release"))
    }

    /// Parses assignments as a shell does: the last one of a name counts. (`os-release(5)`)
    fn parse(text: &str) -> OsRelease {
        let value = |name: &str| {
            let assigned = text.lines().rev().find_map(|line| {
                let (theirs, value) = line.trim().split_once('=')?;
                (theirs == name).then_some(value)
            });
            unquoted(assigned.unwrap_or_default())
        };
        let id = value("ID").to_ascii_lowercase();
        let name = match value("PRETTY_NAME") {
            name if name.is_empty() => short(&id),
            name => short(&name),
        };
        let names = ["NAME", "PRETTY_NAME", "CPE_NAME"].map(value);
        OsRelease {
            id,
            name,
            variant: value("VARIANT_ID").to_ascii_lowercase(),
            names: names.join("\n").to_ascii_lowercase(),
        }
    }

    /// Rejects a distribution whose `ID` is invalid, or whose `ID` or names suggest a product that is sold by the hour.
    fn is_of_no_product(&self) -> Result<(), ReadError> {
        // `os-release(5)`: lower-case letters, digits, and these characters.
        let is_id = |letter: char| {
            letter.is_ascii_lowercase() || letter.is_ascii_digit() || "._-".contains(letter)
        };
        if !self.id.chars().all(is_id) || self.id.len() > 64 {
            return Err(ReadError(format!(
                "os-release says ID={:?}, which cannot be one",
                short(&self.id)
            )));
        }
        let sign = SOLD
            .iter()
            .find(|sign| self.id.contains(*sign) || self.names.contains(*sign));
        match sign {
            None => Ok(()),
            Some(sign) => Err(ReadError(format!(
                "os-release says ID={:?}, which this version does not know, and names {sign:?}",
                short(&self.id)
            ))),
        }
    }
}

/// A value without its surrounding quotes and its backslashes.
fn unquoted(value: &str) -> String {
    let value = value.trim();
    let inner = ['"', '\'']
        .iter()
        .find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote))
        .unwrap_or(value);
    let mut letters = inner.chars();
    let mut text = String::new();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => text.extend(letters.next()),
            letter => text.push(letter),
        }
    }
    text
}

/// Truncates untrusted text to 100 characters, so that it fits a line of a message.
pub(super) fn short(text: &str) -> String {
    text.chars().take(100).collect()
}

/// Package format of a distribution.
#[derive(Clone, Copy, PartialEq)]
enum Packages {
    Debian,
    Rpm,
    /// Any other format, or unknown.
    Any,
}

/// Rejects a distribution that other files contradict. Either it has Red Hat's update servers but is not Red Hat, or it
/// has only packages of the other family. The author of os-release may not be the author of the rest.
fn contradicted(tree: &mut Tree, release: &OsRelease, packages: Packages) -> Result<(), ReadError> {
    let said = &release.id;
    if rhui(tree)? != Rhui::default() {
        return Err(ReadError(format!(
            "the signs contradict each other: os-release says {said}, but the update servers are Red Hat's ({:?})",
            tree.evidence()
                .last()
                .map(String::as_str)
                .unwrap_or_default()
        )));
    }
    let (own, others): (&[&str], &[&str]) = match packages {
        Packages::Debian => (&[DEBIAN_PACKAGES], &RPM_PACKAGES),
        Packages::Rpm => (&RPM_PACKAGES, &[DEBIAN_PACKAGES]),
        Packages::Any => return Ok(()),
    };
    for path in own {
        if tree.has(path)? {
            return Ok(());
        }
    }
    for path in others {
        if tree.has(path)? {
            return Err(ReadError(format!(
                "the signs contradict each other: os-release says {said}, but the packages are another system's ({path})"
            )));
        }
    }
    Ok(())
}

/// Signs of AWS's update servers for Red Hat.
#[derive(Default, PartialEq)]
struct Rhui {
    there: bool,
    ha: bool,
    /// A bundle for SAP, whose billing the update servers' names do not show.
    bundle: bool,
}

fn rhui(tree: &mut Tree) -> Result<Rhui, ReadError> {
    let mut rhui = Rhui::default();
    for (directory, prefix, suffix) in [
        (RHUI_PRODUCTS, "content-rhel", ".crt"),
        (REPOSITORIES, "redhat-rhui", ".repo"),
    ] {
        let mut names = tree.names(directory)?;
        names.retain(|name| name.starts_with(prefix) && name.ends_with(suffix));
        names.sort();
        for name in names {
            rhui.there = true;
            rhui.ha |= name.ends_with("-ha.repo");
            rhui.bundle |= name.contains("-sap");
            tree.tells(&format!("{directory}/{name}"));
        }
    }
    Ok(rhui)
}

fn red_hat(tree: &mut Tree, release: &OsRelease) -> Result<LinuxSigns, ReadError> {
    Ok(match rhui(tree)? {
        Rhui { bundle: true, .. } => LinuxSigns::Bundle,
        // From AWS Marketplace, or with a converted licence.
        Rhui { there: true, .. } if tree.has(SUBSCRIPTION)? => LinuxSigns::Sold,
        Rhui { ha: true, .. } => LinuxSigns::IncludedWithHa,
        Rhui { there: true, .. } => LinuxSigns::Included,
        // Without these signs, the packages of a Red Hat must not be another family's.
        _ => {
            contradicted(tree, release, Packages::Rpm)?;
            match tree.has(SUBSCRIPTION)? {
                true => LinuxSigns::Brought,
                false => LinuxSigns::Open,
            }
        }
    })
}

fn suse(tree: &mut Tree, release: &OsRelease) -> Result<System, ReadError> {
    let product = match tree.has(SUSE_PRODUCT)? {
        true => tree.link(SUSE_PRODUCT)?.unwrap_or_default(),
        false => String::new(),
    };
    let product = product.rsplit('/').next().unwrap_or_default();
    let signs = match (tree.has(SUSE_PAY_AS_YOU_GO)?, tree.has(SUSE_BYOS)?) {
        (true, false) if is_of_another_cloud(tree)? => LinuxSigns::Open,
        // No documentation says whether SUSE Linux Micro is sold by a billing code or by a product code.
        (true, false) if SUSE_MICRO.contains(&release.id.as_str()) => LinuxSigns::Sold,
        (true, false) => LinuxSigns::Included,
        (false, true) => LinuxSigns::Brought,
        _ => LinuxSigns::Open,
    };
    let for_sap = release.id == SUSE_FOR_SAP
        || release.variant.starts_with(SUSE_FOR_SAP_VARIANT)
        || product.starts_with(SUSE_FOR_SAP_PRODUCT);
    Ok(match for_sap {
        true => System::SuseForSap(signs),
        false => System::Suse(signs),
    })
}

fn is_of_another_cloud(tree: &mut Tree) -> Result<bool, ReadError> {
    let Some(mut file) = tree.file(SUSE_CLIENT)? else {
        return Ok(false);
    };
    let text = file.beginning(MOST_BYTES)?;
    let text = String::from_utf8_lossy(&text).to_ascii_lowercase();
    Ok(OTHER_CLOUDS.iter().any(|cloud| text.contains(cloud)))
}

fn ubuntu(tree: &mut Tree) -> Result<LinuxSigns, ReadError> {
    for package in UBUNTU_PRO {
        if tree.has(&format!("{package}.list"))? {
            return Ok(match tree.has(&format!("{package}.md5sums"))? {
                true => LinuxSigns::Included,
                false => LinuxSigns::Open,
            });
        }
    }
    // The packages may be on another file system, and are then unknown.
    let open = tree.has(UBUNTU_ATTACHED)? || !tree.has(DEBIAN_PACKAGES)?;
    Ok(if open {
        LinuxSigns::Open
    } else {
        LinuxSigns::Brought
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_is_read_as_a_shell_would() {
        for (text, id, name) in [
            ("ID=debian", "debian", "debian"),
            (
                "ID=\"rhel\"\nPRETTY_NAME=\"Red Hat Enterprise Linux 9.4 (Plow)\"\n",
                "rhel",
                "Red Hat Enterprise Linux 9.4 (Plow)",
            ),
            (
                "ID='sles'\nPRETTY_NAME='SLES \"15\"'",
                "sles",
                "SLES \"15\"",
            ),
            ("ID=fedora\nID=rhel", "rhel", "rhel"),
            (
                "# ID=rhel\nID_LIKE=rhel\nVERSION_ID=9\n ID=rocky \r\n",
                "rocky",
                "rocky",
            ),
            (
                "ID=Debian\nPRETTY_NAME=\"a \\\"b\\\" \\$c\"",
                "debian",
                "a \"b\" $c",
            ),
            ("ID=", "", ""),
            ("", "", ""),
            ("ID", "", ""),
        ] {
            let release = OsRelease::parse(text);
            assert_eq!(
                (release.id.as_str(), release.name.as_str()),
                (id, name),
                "{text}"
            );
        }
        let long = format!("ID=x\nPRETTY_NAME={}", "é".repeat(1000));
        assert_eq!(OsRelease::parse(&long).name.chars().count(), 100);
    }
}
