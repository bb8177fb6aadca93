//! What was found on a disk.

use serde::{Deserialize, Serialize};

/// What reading a disk came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// How many blocks of 512 KiB were fetched that had ever been written.
    pub blocks_read: u64,
    /// What is there, or why that stays undetermined.
    pub result: Result<Findings, String>,
}

/// The operating system on a disk, with the evidence for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// The operating system, with whatever tells who licenses it.
    pub system: System,
    /// As it calls itself: `PRETTY_NAME` of os-release, `ProductName` of the Windows registry. A stranger's text.
    pub name: String,
    /// SQL Server, if it is there.
    pub sql_server: Option<SqlServer>,
    /// Where it is: `partition 4, xfs`.
    pub place: String,
    /// The paths that told it, in the order in which they were read.
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
    /// Ubuntu. Included is what Ubuntu Pro's images have; open, a subscription of unknown origin.
    Ubuntu(LinuxSigns),
    /// A Linux that has no billing code of its own, by the `ID` of its os-release.
    OtherLinux(String),
    /// Windows.
    Windows(WindowsKind),
}

/// What a Linux distribution's files say of who licenses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinuxSigns {
    /// The cloud provider: RHUI, SUSE's pay-as-you-go registration, Ubuntu Pro.
    Included,
    /// The cloud provider, Red Hat's high availability add-on too.
    IncludedWithHa,
    /// A bundle for SAP, of which it does not show what the cloud provider bills.
    Bundle,
    /// The cloud provider or its marketplace, and it does not show which: RHUI beside a subscription of one's own.
    Sold,
    /// Somebody else: a subscription of one's own, or none at all.
    Brought,
    /// Nothing tells, or the signs do not agree.
    Open,
}

/// Which Windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WindowsKind {
    /// Windows Server, with or without a desktop.
    Server,
    /// A Windows for desktops.
    Client,
    /// It does not say.
    Unknown,
}

/// SQL Server, on whatever system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SqlServer {
    /// Only editions that nobody pays for: Express, Developer, Evaluation.
    Free,
    /// These editions; somebody pays for them.
    Editions(Vec<SqlEdition>),
    /// It is there; the edition does not show.
    Unknown,
}

/// An edition of SQL Server that is paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SqlEdition {
    /// Web.
    Web,
    /// Standard.
    Standard,
    /// Enterprise.
    Enterprise,
}
