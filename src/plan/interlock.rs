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
                "nobody declared what the image should bill, and the word of the source that says so does not suffice: see the policy's discard.from, and what was only observed discards no image that bills something else that is paid for"
            }
            Interlock::NotRegistered => "the image was made by CreateImage, CopyImage or a restore",
            Interlock::SourceFailed => {
                "a stronger source of evidence could not be asked, or whether a rule exempts the image could not be determined, or a weaker source did not answer yet that may contradict: see what was asked"
            }
            Interlock::Unconfirmed => {
                "the policy's discard.confirm asks for an observed source that accepts what is declared, and not what the image is billed as: neither the lineage nor the disk does"
            }
            Interlock::NoPlatform => {
                "a tag that declares what the image should bill names no platform, so that nobody knows what was meant: correct it or take it away"
            }
            Interlock::UnrecognisedOperation => {
                "EC2's usage operation is absent, or not known to this version"
            }
            Interlock::UnrecognisedDetails => {
                "EC2's platform details of the image, or of what it comes from, are not known to this version; the verdict follows from the usage operation"
            }
            Interlock::NotOwner => "the image is not known to belong to the account of the event",
            Interlock::TooOld => {
                "the image is older than the policy's discard.max_age_hours, and may be in use; or its age is not known, because EC2 does not say when it was created, or because a clock is wrong"
            }
            Interlock::InUse => {
                "instances, launch templates, SSM parameters or Image Builder recipes of this account refer to the image, or whether any do could not be found out"
            }
            Interlock::Shared => {
                "the image is shared with other accounts, an organisation or everybody, who may use it: see shared_with"
            }
            Interlock::NoWayBack => {
                "the Recycle Bin rule that keeps discarded images is not active, or the guard could not determine whether it is. Without it, a deregistered image cannot be restored. The first rule of a Region can be pending for 30 minutes. The event comes back about every six minutes, seven deliveries in all. If it then goes to the dead-letter queue, send it again"
            }
            Interlock::Protected => "the image has deregistration protection",
            Interlock::BackupManaged => "the image is managed by AWS Backup",
            Interlock::ServiceRegistered => {
                "an AWS service registered the image, and a recovery or migration may depend on it"
            }
            Interlock::IdentityUnknown => {
                "the event does not say who registered the image, and the policy asks: whether an AWS service did, or in a rule"
            }
            Interlock::DiscardedBefore => {
                "this image was discarded before, and somebody brought it back; or that discard was cut off, and it is not known whether it was carried out; or an image from the same snapshot was discarded, and this one was registered afterwards; or it bears the guard's mark, and the guard does not remember why. What people bring back is never discarded again: deregister it yourself if it is to go"
            }
            Interlock::Uncaptured => {
                "who may launch instances from the image could not be read, and without that the discard could not be taken back in full"
            }
            Interlock::NobodyListening => {
                "the alert topic has no confirmed subscription, or whether it has one could not be found out: nobody would hear of the discard"
            }
            Interlock::Untaggable => {
                "the image could not be tagged, and without the tag neither may it be deregistered nor does the Recycle Bin keep it"
            }
            Interlock::Limit => {
                "as many discards as the policy's discard.max_per_hour allows were begun in this hour. Further images of this hour are held as well, and told of in an hourly digest. Is something wrong with the images, or with what they are expected to bill? They are judged again when their events are sent again"
            }
            Interlock::LedgerUnavailable => {
                "the guard's ledger could not be reached, or an item in it cannot be read: whether the image was discarded before, and how many were this hour, is not known. A ledger that could not be reached is tried again, if nothing else holds the discard. An item that cannot be read must be corrected"
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
