//! Interlocks: the reasons that hold a discard that is due.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A reason not to discard an image although the verdict calls for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interlock {
    /// The guard runs in observe mode.
    ObserveMode,
    /// The policy's action is `none`.
    ActionNone,
    /// The deciding source does not suffice for a discard.
    Inferred,
    /// The image was not made by RegisterImage.
    NotRegistered,
    /// A stronger source could not be queried, a weaker one has not answered yet, or it is unknown whether a rule
    /// exempts the image.
    SourceFailed,
    /// No observed source confirms what is declared, and the policy requires that.
    Unconfirmed,
    /// A tag names something that is not a platform, so what was meant is unknown.
    NoPlatform,
    /// The platform details are known, and the usage operation is not.
    UnrecognisedOperation,
    /// The usage operation is known and decides, and the platform details are unknown.
    UnrecognisedDetails,
    /// The image is not known to belong to the event's account.
    NotOwner,
    /// The image is older than the policy allows, or its age is unknown.
    TooOld,
    /// Something refers to the image, or that is unknown.
    InUse,
    /// The image is shared with others, in whose accounts the guard cannot see whether it is in use.
    Shared,
    /// The Recycle Bin does not keep the image yet, or that is unknown.
    NoWayBack,
    /// The image has deregistration protection.
    Protected,
    /// AWS Backup manages the image.
    BackupManaged,
    /// An AWS service registered the image.
    ServiceRegistered,
    /// Something depends on who registered the image, and the event does not say.
    IdentityUnknown,
    /// The image was discarded before, or may have been, and still exists. Or another image of the same snapshot was
    /// discarded, and this one was registered afterwards.
    DiscardedBefore,
    /// No one would receive the alert about the discard, or that is unknown.
    NobodyListening,
    /// The launch permissions, which are part of registering the image again, could not be read.
    Uncaptured,
    /// The image cannot be tagged, so it could not be restored.
    Untaggable,
    /// As many discards as the policy allows were begun this hour.
    Limit,
    /// The ledger could not be reached or read, so earlier discards are unknown.
    LedgerUnavailable,
}

impl Interlock {
    /// What the interlock means, for a person.
    pub fn meaning(&self) -> &'static str {
        match self {
            Interlock::ObserveMode => "the guard runs in observe mode and changes nothing",
            Interlock::ActionNone => "the policy's discard.action is none",
            Interlock::Inferred => {
                "the policy's discard.from does not accept the source of the expectation. Or the expectation was only \
                 observed, and the image is billed as another paid product, or lacks only a licence or a product code"
            }
            Interlock::NotRegistered => "the image was made by CreateImage, CopyImage or a restore",
            Interlock::SourceFailed => {
                "the guard could not query a stronger source, or could not determine whether a rule exempts the image. \
                 Or a weaker source, which may contradict, has not answered yet. See the evidence"
            }
            Interlock::Unconfirmed => {
                "the policy's discard.confirm requires that the lineage or the disk confirms the declaration, and \
                 neither does"
            }
            Interlock::NoPlatform => {
                "a tag that declares the expected platform names something that is not a platform, so the guard does \
                 not know what was meant. Correct the tag or remove it"
            }
            Interlock::UnrecognisedOperation => {
                "EC2's usage operation is absent, or this version does not know it"
            }
            Interlock::UnrecognisedDetails => {
                "this version does not know EC2's platform details of the image, or of what it comes from. The verdict \
                 follows from the usage operation"
            }
            Interlock::NotOwner => {
                "the image does not belong to the event's account, or its owner is unknown"
            }
            Interlock::TooOld => {
                "the image is older than the policy's discard.max_age_hours, and may be in use. Or its age is unknown, \
                 because EC2 gives no creation time or a clock is wrong"
            }
            Interlock::InUse => {
                "instances, launch templates, SSM parameters or Image Builder recipes of this account refer to the \
                 image, or other AMIs were copied from it. Or the guard could not determine that"
            }
            Interlock::Shared => {
                "the image is shared with other accounts, an organisation or everyone, who may use it. See shared_with"
            }
            Interlock::NoWayBack => {
                "the Recycle Bin rule that keeps discarded images is not active, or the guard could not determine \
                 whether it is. Without it, a deregistered image cannot be restored. The first rule of a Region can be \
                 pending for 30 minutes. SQS delivers the event about every six minutes, seven times in all. If it \
                 then goes to the dead-letter queue, send it again"
            }
            Interlock::Protected => "the image has deregistration protection",
            Interlock::BackupManaged => "AWS Backup manages the image",
            Interlock::ServiceRegistered => {
                "an AWS service registered the image, and a recovery or migration may depend on it"
            }
            Interlock::IdentityUnknown => {
                "the event does not say who registered the image, and a rule or the policy's \
                 discard.service_registered depends on that"
            }
            Interlock::DiscardedBefore => {
                "the image was discarded and restored, or an earlier discard of it may have been carried out. Or an \
                 image of the same snapshot was discarded, and this one was registered afterwards. Or it has the \
                 guard's mark, and the ledger does not say why. The guard does not discard a restored image again. \
                 If you do not want it, deregister it yourself"
            }
            Interlock::Uncaptured => {
                "the launch permissions of the image could not be read. Without them, the discard could not be undone \
                 in full"
            }
            Interlock::NobodyListening => {
                "the alert topic has no confirmed subscription, or the guard could not determine whether it has one. \
                 The alert would reach no one"
            }
            Interlock::Untaggable => {
                "the image could not be tagged. Without the tag, the guard may not deregister it, and the Recycle Bin \
                 does not keep it"
            }
            Interlock::Limit => {
                "the guard has begun as many discards in this hour as the policy's discard.max_per_hour allows. It \
                 holds further images of this hour as well, and reports them in an hourly digest. Check the images, \
                 and what they are expected to be billed as. Then send their events again, so that the guard judges \
                 them again"
            }
            Interlock::LedgerUnavailable => {
                "the guard could not reach its ledger, or read an item in it. So it does not know whether the image \
                 was discarded before, or how many were in this hour. If nothing else holds the discard, the guard \
                 retries a ledger that it could not reach. Correct an item that cannot be read"
            }
        }
    }
}

/// Shown as in records (`observe-mode`).
impl fmt::Display for Interlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}
