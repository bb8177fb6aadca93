//! Results of reading a disk.

use serde::{Deserialize, Serialize};

/// Result of reading a disk, and what it cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// Number of fetched blocks of 512 KiB that had ever been written.
    pub blocks_read: u64,
    /// The findings, or the reason why they stay undetermined.
    pub result: Result<Findings, String>,
}

/// The operating system on a disk, with the evidence for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// The operating system, with the signs of who licenses it.
    pub system: System,
    /// The system's own name: `PRETTY_NAME` of os-release, or `ProductName` of the Windows registry. Untrusted text.
    pub name: String,
    /// SQL Server, if it is installed.
    pub sql_server: Option<SqlServer>,
    /// The partition and file system: `partition 4, xfs`.
    pub place: String,
    /// Paths that the findings rest on, in the order in which they were read.
    pub evidence: Vec<String>,
}

/// An operating system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum System {
    /// Red Hat Enterprise Linux.
    RedHat(LinuxSigns),
    /// SUSE Linux Enterprise Server, or SUSE Linux Micro.
    Suse(LinuxSigns),
    /// SUSE Linux Enterprise Server for SAP applications.
    SuseForSap(LinuxSigns),
    /// Ubuntu. [`LinuxSigns::Included`] means an Ubuntu Pro image, [`LinuxSigns::Open`] a subscription of unknown
    /// origin.
    Ubuntu(LinuxSigns),
    /// A Linux that has no billing code of its own, by the `ID` of its os-release.
    OtherLinux(String),
    /// Windows.
    Windows(WindowsKind),
}

/// Licensor of a Linux distribution, according to its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinuxSigns {
    /// The cloud provider: RHUI, SUSE's pay-as-you-go registration, Ubuntu Pro.
    Included,
    /// The cloud provider, including Red Hat's high availability add-on.
    IncludedWithHa,
    /// A bundle for SAP. The files do not show what it is billed as.
    Bundle,
    /// The cloud provider or its marketplace. The files do not show which: RHUI beside the customer's own subscription.
    Sold,
    /// Not the cloud provider: the customer's own subscription, or none at all.
    Brought,
    /// Unknown, because there are no signs or the signs disagree.
    Open,
}

/// Edition family of Windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WindowsKind {
    /// Windows Server, with or without a desktop.
    Server,
    /// Windows for desktops.
    Client,
    /// The registry does not tell.
    Unknown,
}

/// SQL Server, on any operating system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SqlServer {
    /// Only editions without a licence fee: Express, Developer, Evaluation.
    Free,
    /// These editions, which have a licence fee.
    Editions(Vec<SqlEdition>),
    /// Installed, but the edition is unknown.
    Unknown,
}

/// An edition of SQL Server that has a licence fee.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SqlEdition {
    /// Web.
    Web,
    /// Standard.
    Standard,
    /// Enterprise.
    Enterprise,
}
