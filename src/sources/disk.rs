//! What is on an image's root snapshot, and what an image with such a disk may be billed as.
//!
//! A disk shows which operating system it holds, and only sometimes who supplies the licence. Where nothing shows that,
//! every legitimate billing is right. A disk that cannot be read proves nothing.

use std::ops::Range;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use disk::contained::{Blocks, Limits, Reader};
use disk::{Findings, Inspection, LinuxSigns, SqlEdition, SqlServer, System, WindowsKind};
use tokio::time::Instant;

use super::observed::Observed;
use crate::aws::{Aws, KMS, SnapshotBlocks};
use crate::billing::{self, Billing, Licence, Os, Platform, Platforms};
use crate::ec2::{Image, Snapshot};
use crate::error::Error;
use crate::escape::one_line;
use crate::event::Registration;
use crate::expectation::{Says, Source};

/// Time limit for one disk. Reading its twenty blocks or so usually takes a second or two.
pub(crate) const TIME: Duration = Duration::from_secs(10);

/// Number of paths to name as evidence.
const MENTIONED: usize = 5;

const GET: &str = "ebs:GetSnapshotBlock";

/// EBS's error code for a snapshot that it does not know, or does not show yet.
const NOT_FOUND: &str = "ResourceNotFoundException";

/// How long after its completion a snapshot that EBS does not find counts as not shown yet. Delays of up to two minutes
/// were seen (coldsnap issues 41, 56 and 141). The rest allows for clocks that differ.
const NOT_SHOWN_YET: TimeDelta = TimeDelta::minutes(5);

/// Subject of the disk's statement if there is nothing else to report.
pub(crate) const ROOT_SNAPSHOT: &str = "content of the root snapshot";

/// A disk whose contents could not be determined.
pub(super) fn undetermined(why: &str, detail: impl Into<String>) -> Observed {
    let says = Says::Failed(format!("undetermined: {why}"));
    Observed::single(Source::Disk, says, detail)
}

/// Reads the root snapshot of an image, in a child process of `reader` and at most `most_blocks` blocks of it.
pub(crate) async fn read(
    aws: &Aws,
    reader: &Reader,
    most_blocks: u32,
    registration: &Registration,
    image: &Image,
    snapshot: &Snapshot,
) -> Observed {
    let id = &snapshot.id;
    if snapshot.owner.as_deref() != Some(registration.account.as_str()) {
        let owner = snapshot.owner.as_deref().unwrap_or("an unknown account");
        let why = format!("{id} belongs to {owner}, not to this account");
        return undetermined(&why, ROOT_SNAPSHOT);
    }
    if let Some(why) = unreadable(snapshot) {
        return undetermined(&why, ROOT_SNAPSHOT);
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
                "EBS does not show {id} yet, which was completed a short while ago: {message}"
            );
            Observed {
                is_transient: true,
                ..undetermined(&why, format!("content of {id}"))
            }
        }
        // Only a refusal makes it worth a call to find out whether this is the reason.
        Err(error) if says_no(&error) && is_public(aws, id).await => {
            let why =
                format!("{id} is public, and the EBS direct APIs cannot read public snapshots");
            undetermined(&why, format!("content of {id}"))
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
            Observed {
                is_transient: !error.needs_a_person(),
                ..undetermined(&why, format!("content of {id}"))
            }
        }
    }
}

/// Why the EBS direct APIs cannot read this snapshot, as far as EC2 shows that. EBS would refuse it with another
/// message. (Amazon EBS User Guide, "Archive Amazon EBS snapshots", "Amazon EBS local snapshots on Outposts".)
fn unreadable(snapshot: &Snapshot) -> Option<String> {
    let id = &snapshot.id;
    if snapshot.archived {
        return Some(format!(
            "{id} is archived. To let the guard read it, restore it to the standard tier"
        ));
    }
    let outpost = snapshot.outpost.as_ref()?;
    Some(format!(
        "{id} is stored on an Outpost ({outpost}), and the EBS direct APIs cannot read such snapshots"
    ))
}

/// Whether EBS may later show a snapshot that EC2 shows already. A snapshot without a completion time may be new.
fn may_not_be_shown_yet(snapshot: &Snapshot, now: DateTime<Utc>) -> bool {
    snapshot
        .completed
        .is_none_or(|completed| now - completed < NOT_SHOWN_YET)
}

/// Whether EBS refuses for a reason that may lie in the snapshot itself.
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
    // Boxed because the SDK's futures are large.
    Box::pin(aws.snapshot_is_public(id)).await.unwrap_or(false)
}

/// Checks whether a snapshot can be read. Returns what was found, as a sentence.
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
            format!("{snapshot} was read, {blocks} blocks; its content is undetermined: {why}")
        }
    })
}

/// Reads a snapshot in a child process of `reader`. Calls `progress` with the number of blocks read so far.
///
/// # Errors
/// [`Error`] if EBS does not return the blocks, or the time is over. Any other reason why the snapshot cannot be read
/// is in the inspection.
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
        budget: limits.time / 2,
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
        // The time is over. EBS was slow, or the processor was busy with something else. That says nothing about the
        // disk.
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

/// A snapshot's blocks, with the progress and the error of fetching them.
struct Watched<P> {
    blocks: SnapshotBlocks,
    snapshot: String,
    /// Time limit for one fetch.
    budget: Duration,
    read: u64,
    progress: P,
    error: Option<Error>,
}

impl<P: FnMut(u64) + Send> Blocks for Watched<P> {
    fn size(&self) -> u64 {
        self.blocks.size()
    }

    async fn fetch(&mut self, blocks: Range<u64>) -> Result<Vec<Option<Vec<u8>>>, String> {
        let fetch = tokio::time::timeout(self.budget, self.blocks.fetch(blocks)).await;
        // A fetch that EBS does not answer in time is not the disk's fault, and may succeed on a retry.
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

/// The evidence that an inspection gives about an image.
fn said(inspection: &Inspection, id: &str, image: &Image) -> Observed {
    let blocks = inspection.blocks_read;
    let findings = match &inspection.result {
        Ok(findings) => findings,
        Err(why) => return undetermined(why, format!("{id}, {blocks} blocks read")),
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
    // The disk has AWS's own update servers, and the image has a product code. The code may be that of a Red Hat
    // product on the Marketplace, or of a vendor's product that runs on Red Hat.
    if let System::RedHat(LinuxSigns::Included | LinuxSigns::IncludedWithHa) = findings.system
        && sold
        && billed_as == Some(Billing::PLAIN_LINUX)
    {
        let why = "either the AMI's product code covers Red Hat Enterprise Linux, or a billing code is missing";
        return undetermined(why, detail);
    }
    if sold && !matches!(findings.system, System::Windows(_)) {
        platforms = platforms.or(plain);
        detail
            .push_str("; it is sold on the AWS Marketplace, and may be billed by its product code");
    }
    if matches!(findings.system, System::SuseForSap(_)) && billed_as == Some(SUSE) {
        platforms = platforms.or(Platform::Exactly(SUSE));
        detail.push_str(
            "; an instance that was migrated from SUSE Linux Enterprise Server keeps its billing code",
        );
    }
    Observed::single(Source::Disk, Says::Platforms(platforms), detail)
}

const SUSE: Billing = Billing {
    os: Os::Suse,
    licence: Licence::Included,
    ..Billing::PLAIN_LINUX
};

/// What an image with this on its disk may be billed as.
///
/// A disk does not show who supplies the licence of Red Hat Enterprise Linux or Windows Server. License Manager
/// converts the licence, and the files stay as they are. The AWS Marketplace sells some products by a product code
/// instead of a billing code. Plain Linux with a product code is then right. SUSE Linux Enterprise Server for SAP has
/// no billing code at all.
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
        // Its builders upload it without a billing code on purpose.
        System::Suse(Brought) => (&[plain], false),
        System::Suse(Open) => (&[SUSE, plain], false),
        System::SuseForSap(Included | IncludedWithHa | Bundle | Sold) => (&[], true),
        System::SuseForSap(Brought | Open) => (&[plain], true),
        System::Ubuntu(Included | IncludedWithHa | Bundle | Sold) => (&[ubuntu_pro], false),
        System::Ubuntu(Brought) => (&[plain], false),
        System::Ubuntu(Open) => (&[plain, ubuntu_pro], false),
        System::OtherLinux(_) => (&[plain], false),
        // A desktop Windows is never included in the price.
        System::Windows(WindowsKind::Client) => (&[windows_byol], false),
        System::Windows(WindowsKind::Server | WindowsKind::Unknown) => {
            (&[windows, windows_byol], false)
        }
    };
    // A customer who brings a licence of SQL Server is not billed for one.
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
        // An image cannot be billed as something for which AWS has no platform details.
        let known = |billing: &Billing| billing.platform_details().is_some();
        let billings = editions.iter().map(with).filter(known);
        billings.map(move |billing| match by_product_code {
            true => Platform::WithProductCode(billing),
            false => Platform::Exactly(billing),
        })
    });
    // The system without SQL Server is always accepted, so the list is never empty.
    Platforms::any_of(each).unwrap_or_else(|| Platforms::from(plain))
}
