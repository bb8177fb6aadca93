//! The signs of a Linux distribution: what os-release says it is, and the files that tell who licenses it.

use super::Told;
use crate::file_system::Trouble;
use crate::findings::{LinuxSigns, SqlServer, System};
use crate::tree::Tree;

/// Where a distribution says what it is; the first that is there counts (`os-release(5)`).
pub(super) const OS_RELEASE: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];

/// What only the root directory of a system has, or the part of it that is below `/usr`.
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

/// How long os-release may be. Real ones have some hundred bytes.
const MOST_BYTES: usize = 64 * 1024;

/// What the `ID` or the name of a distribution has in it that is sold by the hour, or made by those who do. An `ID`
/// that is not known, beside such a sign, may be a new product or a damaged file: it is not taken for another Linux.
const SOLD: [&str; 6] = [
    "rhel",
    "red hat enterprise",
    "redhat:enterprise",
    "suse linux",
    "sles",
    "ubuntu",
];

/// `ID`s of OpenShift's node systems. They name Red Hat Enterprise Linux and are sold as OpenShift: their images have no
/// billing code of Red Hat Enterprise Linux.
const OPENSHIFT_NODES: [&str; 2] = ["rhcos", "scos"];

/// `ID`s of SUSE Linux Micro, formerly SUSE Linux Enterprise Micro.
const SUSE_MICRO: [&str; 3] = ["sl-micro", "sle-micro", "sle-micro-rancher"];

/// `ID` and `VARIANT_ID`s of SUSE Linux Enterprise Server for SAP, and what its base product is called.
const SUSE_FOR_SAP: &str = "sles_sap";
const SUSE_FOR_SAP_VARIANT: &str = "sles-sap";
const SUSE_FOR_SAP_PRODUCT: &str = "SLES_SAP";

/// What tells that Red Hat's software comes from AWS's update servers (RHUI), which only those may use whom AWS
/// bills for it: product certificates and repositories.
const RHUI_PRODUCTS: &str = "/etc/pki/rhui/product";
const REPOSITORIES: &str = "/etc/yum.repos.d";
/// A subscription of one's own.
const SUBSCRIPTION: &str = "/etc/pki/consumer/cert.pem";

/// SUSE's update servers for those whom AWS bills: registered with at first start.
const SUSE_PAY_AS_YOU_GO: &str =
    "/etc/systemd/system/multi-user.target.wants/guestregister.service";
/// Which cloud's servers these are: the same client is in the images of all of them.
const SUSE_CLIENT: &str = "/etc/regionserverclnt.cfg";
const OTHER_CLOUDS: [&str; 4] = ["azure", "gce", "google", "oci"];
/// What asks for a subscription of one's own.
const SUSE_BYOS: &str = "/usr/lib/motd.d/20_byos_register";
/// Which of SUSE's products is the base.
const SUSE_PRODUCT: &str = "/etc/products.d/baseproduct";

/// What Ubuntu Pro's images have, now and formerly: the package that attaches them. Of one that was removed, the list
/// of its files may stay, and their checksums go.
const UBUNTU_PRO: [&str; 2] = [
    "/var/lib/dpkg/info/ubuntu-pro-auto-attach",
    "/var/lib/dpkg/info/ubuntu-advantage-pro",
];
/// What one has that is attached, by whomever.
const UBUNTU_ATTACHED: &str = "/var/lib/ubuntu-advantage/private/machine-token.json";

/// The databases of the two families' packages.
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
/// The same, where `/opt` is a file system of its own.
pub(super) const SQL_SERVER_BESIDE: &str = "/mssql/bin/sqlservr";

/// Reads the signs of the distribution whose root this is.
/// `sql_server_beside`: whether SQL Server is on another file system.
pub(super) fn read(tree: &mut Tree, sql_server_beside: bool) -> Result<Told, Trouble> {
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
            return Err(Trouble::new("os-release says no ID"));
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
            // It is chosen at the first start, and kept in a form of SQL Server's own.
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

/// What os-release says.
struct OsRelease {
    /// `ID`.
    id: String,
    /// `PRETTY_NAME`; `ID` if there is none.
    name: String,
    /// `VARIANT_ID`.
    variant: String,
    /// What else names the distribution: `NAME`, `PRETTY_NAME`, `CPE_NAME`. In lower case.
    names: String,
}

impl OsRelease {
    fn read(tree: &mut Tree) -> Result<OsRelease, Trouble> {
        let mut found: Option<OsRelease> = None;
        for path in OS_RELEASE {
            let Some(mut file) = tree.file(path)? else {
                continue;
            };
            let text = file.beginning(MOST_BYTES + 1)?;
            if text.len() > MOST_BYTES {
                return Err(Trouble::new("os-release is too long to be one"));
            }
            let release = OsRelease::parse(&String::from_utf8_lossy(&text));
            match &found {
                None => {
                    tree.tells(path);
                    found = Some(release);
                }
                // As a rule the first is a link to the second.
                Some(first) if first.id == release.id => {}
                Some(first) => {
                    return Err(Trouble(format!(
                        "the signs contradict each other: os-release says ID={:?} in /etc, and ID={:?} in /usr/lib",
                        short(&first.id),
                        short(&release.id)
                    )));
                }
            }
        }
        found.ok_or_else(|| Trouble::new("there is no os-release"))
    }

    /// Assignments as a shell takes them: the last of a name counts. (`os-release(5)`)
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

    /// Refuses a distribution whose `ID` is not one, or that by its `ID` or by its names may be a product that is sold
    /// by the hour.
    fn is_of_no_product(&self) -> Result<(), Trouble> {
        // `os-release(5)`: lower-case letters, digits, and these signs.
        let is_id = |letter: char| {
            letter.is_ascii_lowercase() || letter.is_ascii_digit() || "._-".contains(letter)
        };
        if !self.id.chars().all(is_id) || self.id.len() > 64 {
            return Err(Trouble(format!(
                "os-release says ID={:?}, which cannot be one",
                short(&self.id)
            )));
        }
        let sign = SOLD
            .iter()
            .find(|sign| self.id.contains(*sign) || self.names.contains(*sign));
        match sign {
            None => Ok(()),
            Some(sign) => Err(Trouble(format!(
                "os-release says ID={:?}, which this version does not know, and names {sign:?}",
                short(&self.id)
            ))),
        }
    }
}

/// A value without the quotes around it and the backslashes within.
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

/// A stranger's text, no longer than a line of a message bears.
pub(super) fn short(text: &str) -> String {
    text.chars().take(100).collect()
}

/// Which packages a distribution is made of.
#[derive(Clone, Copy, PartialEq)]
enum Packages {
    Debian,
    Rpm,
    /// Of others.
    Any,
}

/// Refuses a distribution that other files contradict: Red Hat's update servers on what says that it is no Red Hat,
/// or the packages of the other family and none of its own. Whoever wrote os-release may have been somebody else than
/// who made the rest.
fn contradicted(tree: &mut Tree, release: &OsRelease, packages: Packages) -> Result<(), Trouble> {
    let said = &release.id;
    if rhui(tree)? != Rhui::default() {
        return Err(Trouble(format!(
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
            return Err(Trouble(format!(
                "the signs contradict each other: os-release says {said}, but the packages are another system's ({path})"
            )));
        }
    }
    Ok(())
}

/// What there is of AWS's update servers for Red Hat.
#[derive(Default, PartialEq)]
struct Rhui {
    there: bool,
    ha: bool,
    /// A bundle whose billing the update servers' names do not tell: for SAP.
    bundle: bool,
}

fn rhui(tree: &mut Tree) -> Result<Rhui, Trouble> {
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

fn red_hat(tree: &mut Tree, release: &OsRelease) -> Result<LinuxSigns, Trouble> {
    Ok(match rhui(tree)? {
        Rhui { bundle: true, .. } => LinuxSigns::Bundle,
        // The AWS Marketplace's, or one whose licence was converted.
        Rhui { there: true, .. } if tree.has(SUBSCRIPTION)? => LinuxSigns::Sold,
        Rhui { ha: true, .. } => LinuxSigns::IncludedWithHa,
        Rhui { there: true, .. } => LinuxSigns::Included,
        // Of a Red Hat without these signs, the packages must not be another's.
        _ => {
            contradicted(tree, release, Packages::Rpm)?;
            match tree.has(SUBSCRIPTION)? {
                true => LinuxSigns::Brought,
                false => LinuxSigns::Open,
            }
        }
    })
}

fn suse(tree: &mut Tree, release: &OsRelease) -> Result<System, Trouble> {
    let product = match tree.has(SUSE_PRODUCT)? {
        true => tree.link(SUSE_PRODUCT)?.unwrap_or_default(),
        false => String::new(),
    };
    let product = product.rsplit('/').next().unwrap_or_default();
    let signs = match (tree.has(SUSE_PAY_AS_YOU_GO)?, tree.has(SUSE_BYOS)?) {
        (true, false) if is_of_another_cloud(tree)? => LinuxSigns::Open,
        // Whether it is sold by a billing code or by a product code is documented nowhere.
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

fn is_of_another_cloud(tree: &mut Tree) -> Result<bool, Trouble> {
    let Some(mut file) = tree.file(SUSE_CLIENT)? else {
        return Ok(false);
    };
    let text = file.beginning(MOST_BYTES)?;
    let text = String::from_utf8_lossy(&text).to_ascii_lowercase();
    Ok(OTHER_CLOUDS.iter().any(|cloud| text.contains(cloud)))
}

fn ubuntu(tree: &mut Tree) -> Result<LinuxSigns, Trouble> {
    for package in UBUNTU_PRO {
        if tree.has(&format!("{package}.list"))? {
            return Ok(match tree.has(&format!("{package}.md5sums"))? {
                true => LinuxSigns::Included,
                false => LinuxSigns::Open,
            });
        }
    }
    // The packages may be on a file system of their own: then nothing is known of them.
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
