//! What is on an image's root snapshot, and what an image may bill with that on it.
//!
//! A disk tells which operating system it holds, and only sometimes who licenses it: where nothing tells, whatever
//! is legitimate is right. What can not be read is no evidence.

use std::ops::Range;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use disk::contained::{Blocks, Limits, Reader};
use disk::{Findings, Inspection, LinuxSigns, SqlEdition, SqlServer, System, WindowsKind};
use tokio::time::Instant;

use crate::aws::{Aws, KMS, SnapshotBlocks};
use crate::billing::{self, Billing, Licence, Os, Platform, Platforms};
use crate::ec2::{Image, Snapshot};
use crate::error::Error;
use crate::escape::one_line;
use crate::event::Registration;
use crate::expectation::{Evidence, Says, Source};

/// How long one disk may take. Its twenty blocks or so take a second or two as a rule.
pub(crate) const TIME: Duration = Duration::from_secs(10);

/// How many of the paths that tell something are named.
const MENTIONED: usize = 5;

const GET: &str = "ebs:GetSnapshotBlock";

/// What EBS says of a snapshot that it does not know, or does not show yet.
const NOT_FOUND: &str = "ResourceNotFoundException";

/// How long after its completion a snapshot that EBS does not find counts as one that EBS does not show yet. Up to two
/// minutes were seen (coldsnap issues 41, 56 and 141); the rest is for clocks that differ.
const NOT_SHOWN_YET: TimeDelta = TimeDelta::minutes(5);

/// What the disk is about, where it has nothing else to tell.
pub(crate) const ROOT_SNAPSHOT: &str = "what is on the root snapshot";

/// What the disk says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disk {
    pub(crate) evidence: Evidence,
    /// Whether it could not be read, and may be the next time.
    pub(crate) may_pass: bool,
}

impl Disk {
    /// A disk that says nothing.
    pub(crate) fn mute(says: Says, detail: impl Into<String>) -> Disk {
        Disk {
            evidence: Evidence {
                source: Source::Disk,
                says,
                detail: detail.into(),
            },
            may_pass: false,
        }
    }

    /// A disk of which it stays undetermined what is on it.
    pub(crate) fn undetermined(why: &str, detail: impl Into<String>) -> Disk {
        Disk::mute(Says::Failed(format!("undetermined: {why}")), detail)
    }
}

/// Reads the root snapshot of an image: at most so many blocks, in a child process of `reader`.
pub(crate) async fn read(
    aws: &Aws,
    reader: &Reader,
    most_blocks: u32,
    registration: &Registration,
    image: &Image,
    snapshot: &Snapshot,
) -> Disk {
    let id = &snapshot.id;
    if snapshot.owner.as_deref() != Some(registration.account.as_str()) {
        let owner = snapshot.owner.as_deref().unwrap_or("nobody known");
        let why = format!("{id} belongs to {owner}, not to this account");
        return Disk::undetermined(&why, ROOT_SNAPSHOT);
    }
    if let Some(why) = unreadable(snapshot) {
        return Disk::undetermined(&why, ROOT_SNAPSHOT);
    }
    let limits = Limits {
        blocks: most_blocks.into(),
        time: TIME,
    };
    match inspect(aws, reader, id, limits, |_| {}).await {
        Ok(inspection) => said(&inspection, id, image),
        Err(Error::Refused { code, message, .. })
            if code == NOT_FOUND && may_not_be_shown_yet(snapshot, aws.clock().now()) =>
        {
            let why = format!(
                "EBS does not show {id} yet ({message}): it was completed a short while ago"
            );
            Disk {
                may_pass: true,
                ..Disk::undetermined(&why, format!("what is on {id}"))
            }
        }
        // Only where EBS says no is it worth a call to know whether that is the reason.
        Err(error) if says_no(&error) && is_public(aws, id).await => {
            let why = format!("{id} is public, and the EBS direct APIs read no public snapshots");
            Disk::undetermined(&why, format!("what is on {id}"))
        }
        Err(error) => {
            let why = match (&error, &snapshot.kms_key) {
                (
                    Error::AccessDenied {
                        permission: KMS,
                        message,
                        ..
                    },
                    Some(key),
                ) => format!("access denied to key {key} ({KMS}): {message}"),
                _ => error.to_string(),
            };
            Disk {
                may_pass: !error.needs_a_person(),
                ..Disk::undetermined(&why, format!("what is on {id}"))
            }
        }
    }
}

/// Why the EBS direct APIs do not read this snapshot, as far as EC2 says so: they would refuse it in other words. (Amazon
/// EBS User Guide, "Archive Amazon EBS snapshots", "Amazon EBS local snapshots on Outposts".)
fn unreadable(snapshot: &Snapshot) -> Option<String> {
    let id = &snapshot.id;
    if snapshot.archived {
        return Some(format!(
            "{id} is archived: restore it to the standard tier to have it read"
        ));
    }
    let outpost = snapshot.outpost.as_ref()?;
    Some(format!(
        "{id} is stored on an Outpost ({outpost}), and the EBS direct APIs read no such snapshots"
    ))
}

/// Whether EBS may show a snapshot later that EC2 shows already. What EC2 does not say the time of may be new.
fn may_not_be_shown_yet(snapshot: &Snapshot, now: DateTime<Utc>) -> bool {
    snapshot
        .completed
        .is_none_or(|completed| now - completed < NOT_SHOWN_YET)
}

/// Whether EBS says no, for a reason that the snapshot itself may be.
fn says_no(error: &Error) -> bool {
    let of_key = matches!(
        error,
        Error::AccessDenied {
            permission: KMS,
            ..
        }
    );
    error.needs_a_person() && !of_key
}

/// Whether a snapshot is known to be public. (Amazon EBS User Guide, "EBS direct APIs does not support public
/// snapshots".)
async fn is_public(aws: &Aws, id: &str) -> bool {
    // Boxed: the SDK's futures are large.
    Box::pin(aws.snapshot_is_public(id)).await.unwrap_or(false)
}

/// Looks whether a snapshot can be read: what was made of it, as a sentence.
///
/// # Errors
/// As [`inspect`].
pub(crate) async fn look_at(
    aws: &Aws,
    reader: &Reader,
    most_blocks: u32,
    snapshot: &str,
) -> Result<String, Error> {
    let limits = Limits {
        blocks: most_blocks.into(),
        time: TIME,
    };
    let inspection = inspect(aws, reader, snapshot, limits, |_| {}).await?;
    let blocks = inspection.blocks_read;
    Ok(match &inspection.result {
        Ok(findings) => format!(
            "{snapshot} was read: {} ({}), {blocks} blocks",
            one_line(&findings.name),
            findings.place
        ),
        Err(why) => {
            format!("{snapshot} was read, {blocks} blocks; what is there is undetermined: {why}")
        }
    })
}

/// Reads a snapshot, in a child process of `reader`. `progress` is told how many blocks are read.
///
/// # Errors
/// [`Error`], if EBS does not give its blocks. Whatever else keeps it from being read is in the inspection.
pub async fn inspect(
    aws: &Aws,
    reader: &Reader,
    snapshot: &str,
    limits: Limits,
    progress: impl FnMut(u64) + Send,
) -> Result<Inspection, Error> {
    let begin = Instant::now();
    let begun = tokio::time::timeout(limits.time / 2, aws.snapshot_blocks(snapshot)).await;
    let blocks = begun.unwrap_or_else(|_| Err(timed_out("ebs:ListSnapshotBlocks", snapshot)))?;
    let mut watched = Watched {
        blocks,
        snapshot: snapshot.to_owned(),
        patience: limits.time / 2,
        read: 0,
        progress,
        error: None,
    };
    let rest = Limits {
        time: limits.time.saturating_sub(begin.elapsed()),
        ..limits
    };
    let inspection = reader.inspect(&mut watched, rest).await;
    let slow = begin.elapsed() >= limits.time;
    match watched.error {
        Some(error) => Err(error),
        // The time was over: EBS was slow, or the processor was busy with something else. That says nothing of the disk.
        None if slow && inspection.result.is_err() => Err(timed_out(GET, snapshot)),
        None => Ok(inspection),
    }
}

fn timed_out(call: &'static str, snapshot: &str) -> Error {
    Error::Unavailable {
        call,
        resource: snapshot.to_owned(),
        message: "timed out".into(),
    }
}

/// A snapshot's blocks, with what came of fetching them.
struct Watched<P> {
    blocks: SnapshotBlocks,
    snapshot: String,
    /// How long one fetch may take.
    patience: Duration,
    read: u64,
    progress: P,
    error: Option<Error>,
}

impl<P: FnMut(u64) + Send> Blocks for Watched<P> {
    fn size(&self) -> u64 {
        self.blocks.size()
    }

    async fn fetch(&mut self, blocks: Range<u64>) -> Result<Vec<Option<Vec<u8>>>, String> {
        let fetch = tokio::time::timeout(self.patience, self.blocks.fetch(blocks)).await;
        // What EBS does not answer in time is no trouble of the disk's, and may be otherwise the next time.
        let fetch = fetch.unwrap_or_else(|_| Err(timed_out(GET, &self.snapshot)));
        match fetch {
            Ok(fetched) => {
                self.read += fetched.iter().flatten().count() as u64;
                (self.progress)(self.read);
                Ok(fetched)
            }
            Err(error) => {
                let why = error.to_string();
                self.error = Some(error);
                Err(why)
            }
        }
    }
}

/// What an inspection says of an image, as evidence.
fn said(inspection: &Inspection, id: &str, image: &Image) -> Disk {
    let blocks = inspection.blocks_read;
    let findings = match &inspection.result {
        Ok(findings) => findings,
        Err(why) => return Disk::undetermined(why, format!("{id}, {blocks} blocks read")),
    };
    let mut paths: Vec<String> = findings
        .evidence
        .iter()
        .take(MENTIONED)
        .map(|path| one_line(path))
        .collect();
    if findings.evidence.len() > MENTIONED {
        let more = findings.evidence.len() - MENTIONED;
        paths.push(format!("{more} more, which `ami-guard inspect` lists"));
    }
    let mut name = one_line(&findings.name);
    if let System::OtherLinux(os_release_id) = &findings.system {
        name.push_str(&format!(" (ID={})", one_line(os_release_id)));
    }
    let mut detail = format!(
        "{name} on {id} ({}), by {}; {blocks} blocks read",
        findings.place,
        paths.join(", ")
    );
    let mut platforms = platforms(findings);
    let plain = Platform::WithProductCode(Billing::PLAIN_LINUX);
    let sold = !image.product_codes.is_empty();
    let billed_as = image.billed_as().billing();
    // AWS's own update servers, and a product code: of Red Hat's products on the Marketplace, or of a vendor's that runs
    // on it.
    if let System::RedHat(LinuxSigns::Included | LinuxSigns::IncludedWithHa) = findings.system
        && sold
        && billed_as == Some(Billing::PLAIN_LINUX)
    {
        let why = "whether the AMI's product code bills Red Hat Enterprise Linux, or a billing code is missing, is not known";
        return Disk::undetermined(why, detail);
    }
    if sold && !matches!(findings.system, System::Windows(_)) {
        platforms = platforms.or(plain);
        detail.push_str("; the AWS Marketplace sells it, and may bill it by its product code");
    }
    if matches!(findings.system, System::SuseForSap(_)) && billed_as == Some(SUSE) {
        platforms = platforms.or(Platform::Exactly(SUSE));
        detail.push_str(
            "; an instance that was migrated from SUSE Linux Enterprise Server keeps its code",
        );
    }
    Disk::mute(Says::Platforms(platforms), detail)
}

const SUSE: Billing = Billing {
    os: Os::Suse,
    licence: Licence::Included,
    ..Billing::PLAIN_LINUX
};

/// What an image may be billed as that has this on its disk.
///
/// A disk does not tell who supplies the licence of Red Hat Enterprise Linux or Windows Server: License Manager
/// converts it, and the files stay. Where the AWS Marketplace sells a product by a product code instead of a billing
/// code, plain Linux with a product code is right; SUSE Linux Enterprise Server for SAP has no billing code at all.
pub fn platforms(findings: &Findings) -> Platforms {
    let plain = Billing::PLAIN_LINUX;
    let of = |os, licence, ha| Billing {
        os,
        licence,
        ha,
        ..plain
    };
    let red_hat = of(Os::RedHat, Licence::Included, false);
    let red_hat_byol = of(Os::RedHat, Licence::Byol, false);
    let red_hat_ha = of(Os::RedHat, Licence::Included, true);
    let ubuntu_pro = of(Os::Linux, Licence::Included, false);
    let windows = of(Os::Windows, Licence::Included, false);
    let windows_byol = of(Os::Windows, Licence::Byol, false);

    use LinuxSigns::{Brought, Bundle, Included, IncludedWithHa, Open, Sold};
    let (billed, by_product_code): (&[Billing], bool) = match &findings.system {
        System::RedHat(Included) => (&[red_hat, red_hat_byol], false),
        System::RedHat(IncludedWithHa) => (&[red_hat_ha], false),
        System::RedHat(Bundle | Sold) => (&[red_hat, red_hat_ha, red_hat_byol], true),
        System::RedHat(Brought | Open) => (&[red_hat, red_hat_byol, plain], false),
        System::Suse(Included | IncludedWithHa | Bundle) => (&[SUSE], false),
        System::Suse(Sold) => (&[SUSE], true),
        // Its builders upload it without a code, on purpose.
        System::Suse(Brought) => (&[plain], false),
        System::Suse(Open) => (&[SUSE, plain], false),
        System::SuseForSap(Included | IncludedWithHa | Bundle | Sold) => (&[], true),
        System::SuseForSap(Brought | Open) => (&[plain], true),
        System::Ubuntu(Included | IncludedWithHa | Bundle | Sold) => (&[ubuntu_pro], false),
        System::Ubuntu(Brought) => (&[plain], false),
        System::Ubuntu(Open) => (&[plain, ubuntu_pro], false),
        System::OtherLinux(_) => (&[plain], false),
        // A Windows for desktops is never included in the price.
        System::Windows(WindowsKind::Client) => (&[windows_byol], false),
        System::Windows(WindowsKind::Server | WindowsKind::Unknown) => {
            (&[windows, windows_byol], false)
        }
    };
    // Whoever brings a licence of SQL Server is billed for none.
    let editions = match &findings.sql_server {
        None | Some(SqlServer::Free) => &[][..],
        Some(SqlServer::Editions(editions)) => editions,
        Some(SqlServer::Unknown) => &[
            SqlEdition::Web,
            SqlEdition::Standard,
            SqlEdition::Enterprise,
        ],
    };
    let editions = editions.iter().map(|edition| {
        Some(match edition {
            SqlEdition::Web => billing::SqlEdition::Web,
            SqlEdition::Standard => billing::SqlEdition::Standard,
            SqlEdition::Enterprise => billing::SqlEdition::Enterprise,
        })
    });
    let editions: Vec<Option<billing::SqlEdition>> = [None].into_iter().chain(editions).collect();
    let billed = billed.iter().map(|billing| (billing, false));
    let each = billed.chain(by_product_code.then_some((&plain, true)));
    let each = each.flat_map(|(system, by_product_code)| {
        let with = move |sql: &Option<billing::SqlEdition>| Billing {
            sql: *sql,
            ..*system
        };
        // An image cannot be billed as what AWS has no words for.
        let known = |billing: &Billing| billing.platform_details().is_some();
        let billings = editions.iter().map(with).filter(known);
        billings.map(move |billing| match by_product_code {
            true => Platform::WithProductCode(billing),
            false => Platform::Exactly(billing),
        })
    });
    // There is always the system without SQL Server.
    Platforms::any_of(each).unwrap_or_else(|| Platforms::from(plain))
}
