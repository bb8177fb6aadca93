//! The simulated account: a plain value that tests may read and change.

mod ebs;
mod index;
mod throttling;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::{fs, io};

use chrono::{DateTime, TimeDelta, Utc};

use crate::clock;
pub use ebs::Ebs;
pub(crate) use ebs::expiry;
pub use index::Index;
pub use throttling::Throttling;
pub(crate) use throttling::only_reads;

/// The account that owns everything unless a test sets another one.
const ACCOUNT: &str = "123456789012";

/// One account in one Region, and its resources [in other Regions](World::in_region).
#[derive(Debug, Clone)]
pub struct World {
    /// The account that makes the calls.
    pub account: String,
    /// The Region of the calls.
    pub region: String,
    /// All Regions that exist, including those that the account cannot use.
    pub regions: Vec<Region>,
    /// The account's resources in other Regions, by name. It has none in a Region that is not here.
    pub elsewhere: BTreeMap<String, World>,
    /// Volumes by id. A volume that is attached to an instance need not be here. If it is, this value describes
    /// everything except the attachment.
    pub volumes: BTreeMap<String, Volume>,
    /// Snapshots by id.
    pub snapshots: BTreeMap<String, Snapshot>,
    /// Images by id, including disabled ones.
    pub images: BTreeMap<String, Image>,
    /// Deregistered images by id, including those in the Recycle Bin.
    pub deregistered: BTreeMap<String, Deregistered>,
    /// Images in the Recycle Bin by id.
    pub recycle_bin: BTreeMap<String, BinnedImage>,
    /// Rules for which deregistered images the Recycle Bin keeps, and for how long.
    pub recycle_bin_rules: Vec<RecycleBinRule>,
    /// Instances by id. Each counts as a reference to its image, even if it is terminated.
    pub instances: BTreeMap<String, Instance>,
    /// The account's Reserved Instances by id.
    pub reserved_instances: BTreeMap<String, ReservedInstances>,
    /// Other references to images, by image id, for `DescribeImageReferences`.
    pub references: BTreeMap<String, Vec<Reference>>,
    /// SNS topics by ARN.
    pub topics: BTreeMap<String, Topic>,
    /// All published messages, in order.
    pub messages: Vec<Message>,
    /// SQS queues by URL.
    pub queues: BTreeMap<String, Queue>,
    /// DynamoDB tables by name.
    pub tables: BTreeMap<String, Table>,
    /// Maximum number of items that a `BatchGetItem` reads before the throughput counts as exhausted. It leaves the
    /// other keys unprocessed. `None` means the service's own maximum.
    pub items_per_batch: Option<usize>,
    /// Times and writes of DynamoDB transactions that took effect, by `ClientRequestToken`. A transaction that is
    /// repeated within ten minutes has no further effect.
    pub transactions: BTreeMap<String, (DateTime<Utc>, Vec<serde_json::Value>)>,
    /// Call limits of the account for EC2 in this Region. There are none unless a test sets them.
    pub throttling: Throttling,
    /// Behaviour of the EBS direct APIs, which read the blocks of snapshots.
    pub ebs: Ebs,
    /// Number of `DescribeImages` calls for which a newly registered image is not visible.
    pub new_images_invisible_for: u32,
    /// How `DescribeImages` shows a newly deregistered image.
    pub after_deregistration: Lingering,
    /// Number from which the last id was generated. Ids are the same in every run.
    pub ids: u64,
    /// Internal to the server.
    pub index: Index,
}

impl Default for World {
    /// Account 123456789012 in eu-west-1. It can also use us-east-1 and eu-south-1, but not ap-east-1.
    ///
    /// It has:
    /// - the topic `arn:aws:sns:eu-west-1:123456789012:ami-billing-guard`, with one confirmed subscription
    /// - the empty table `ami-billing-guard`, with the key `id`
    /// - the queue [`Queue::URL`]
    /// - a Recycle Bin rule that keeps images with the tag `ami-billing-guard:discard` = `true` for 30 days
    fn default() -> World {
        World {
            account: ACCOUNT.into(),
            region: "eu-west-1".into(),
            regions: vec![
                Region::new("eu-west-1", "opt-in-not-required"),
                Region::new("us-east-1", "opt-in-not-required"),
                Region::new("eu-south-1", "opted-in"),
                Region::new("ap-east-1", "not-opted-in"),
            ],
            elsewhere: BTreeMap::new(),
            volumes: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            images: BTreeMap::new(),
            deregistered: BTreeMap::new(),
            recycle_bin: BTreeMap::new(),
            recycle_bin_rules: vec![RecycleBinRule::new("ami-billing-guard:discard", "true", 30)],
            instances: BTreeMap::new(),
            reserved_instances: BTreeMap::new(),
            references: BTreeMap::new(),
            topics: BTreeMap::from([(
                format!("arn:aws:sns:eu-west-1:{ACCOUNT}:ami-billing-guard"),
                Topic {
                    confirmed: 1,
                    pending: 0,
                },
            )]),
            messages: Vec::new(),
            queues: BTreeMap::from([(Queue::URL.to_owned(), Queue::default())]),
            tables: BTreeMap::from([("ami-billing-guard".to_owned(), Table::new("id"))]),
            items_per_batch: None,
            transactions: BTreeMap::new(),
            throttling: Throttling::default(),
            ebs: Ebs::default(),
            new_images_invisible_for: 0,
            after_deregistration: Lingering::default(),
            ids: 0,
            index: Index::default(),
        }
    }
}

impl World {
    /// The default world with resources to try from a shell:
    /// - snapshots with billing metadata: `snap-0000000000000a001` for Windows, `…a002` for Red Hat Enterprise Linux
    /// - `…a003`, which lost its billing metadata
    /// - `…a004`, whose images have no platform details at all
    /// - the Windows instance `i-0000000000000c001` with the root volume `vol-0000000000000b001`
    pub fn example() -> World {
        let mut world = World::default();
        let known = |platform_details: &str, usage_operation: &str| SnapshotBilling::Known {
            platform_details: platform_details.into(),
            usage_operation: usage_operation.into(),
        };
        for (number, description, billing) in [
            (1, "Windows Server", known("Windows", "RunInstances:0002")),
            (
                2,
                "Red Hat Enterprise Linux",
                known("Red Hat Enterprise Linux", "RunInstances:0010"),
            ),
            (
                3,
                "Windows Server, billing metadata lost",
                SnapshotBilling::Missing,
            ),
            (
                4,
                "Windows Server, comes out with nothing",
                SnapshotBilling::Empty,
            ),
        ] {
            world.add_snapshot(Snapshot {
                description: description.into(),
                billing,
                ..Snapshot::new(format!("snap-0000000000000a00{number}"))
            });
        }
        world.add_instance(Instance {
            platform: Some("windows".into()),
            platform_details: Some("Windows".into()),
            usage_operation: Some("RunInstances:0002".into()),
            root_device_name: Some("/dev/sda1".into()),
            volumes: vec![AttachedVolume::new("/dev/sda1", "vol-0000000000000b001")],
            ..Instance::new("i-0000000000000c001", "ami-0000000000000d001")
        });
        world
    }

    /// Adds an image to the world.
    pub fn add_image(&mut self, image: Image) {
        self.images.insert(image.id.clone(), image);
    }

    /// Adds a snapshot to the world.
    pub fn add_snapshot(&mut self, snapshot: Snapshot) {
        self.snapshots.insert(snapshot.id.clone(), snapshot);
    }

    /// Adds a volume to the world.
    pub fn add_volume(&mut self, volume: Volume) {
        self.volumes.insert(volume.id.clone(), volume);
    }

    /// Adds an instance to the world.
    pub fn add_instance(&mut self, instance: Instance) {
        self.instances.insert(instance.id.clone(), instance);
    }

    /// Adds Reserved Instances to the world.
    pub fn add_reserved_instances(&mut self, reserved: ReservedInstances) {
        self.reserved_instances
            .insert(reserved.id.clone(), reserved);
    }

    /// The account's world in a Region: this one, or one of [`World::elsewhere`]. A new one is empty, also of topics,
    /// queues, tables and rules, but has the same call limits. A Region that is not in the list of Regions is added to
    /// it.
    pub fn in_region(&mut self, name: &str) -> &mut World {
        if name == self.region {
            return self;
        }
        if !self.knows_region(name) {
            self.regions.push(Region::new(name, "opt-in-not-required"));
        }
        let empty = || World {
            account: self.account.clone(),
            region: name.to_owned(),
            throttling: self.throttling.afresh(),
            recycle_bin_rules: Vec::new(),
            topics: BTreeMap::new(),
            queues: BTreeMap::new(),
            tables: BTreeMap::new(),
            ..World::default()
        };
        let world = self.elsewhere.entry(name.to_owned()).or_insert_with(empty);
        // All worlds share the list of Regions.
        world.regions.clone_from(&self.regions);
        world
    }

    /// The world for a request that is signed for a Region. A Region that does not exist gives this world. Tests sign
    /// for such Regions, because in one process the SDK has one retry quota for each Region.
    pub(crate) fn signed_for(&mut self, region: &str) -> &mut World {
        if self.knows_region(region) {
            self.in_region(region)
        } else {
            self
        }
    }

    fn knows_region(&self, name: &str) -> bool {
        self.regions.iter().any(|region| region.name == name)
    }

    /// Builds the index of these references:
    /// - images to their snapshots
    /// - snapshots to their volumes
    /// - volumes to their snapshots, and to the instances that they are attached to
    /// - instances to their images and volumes
    pub(crate) fn make_index(&mut self) {
        let mut index = Index::begun();
        let mut note = |referrer: &str, referred: &str| index.note(referrer, referred);
        for (id, image) in &self.images {
            image.snapshot_ids().for_each(|snapshot| note(id, snapshot));
        }
        for (id, snapshot) in &self.snapshots {
            note(id, &snapshot.volume_id);
        }
        for (id, volume) in &self.volumes {
            volume.snapshot_id.iter().for_each(|from| note(id, from));
        }
        for (id, instance) in &self.instances {
            note(id, &instance.image_id);
            for attached in &instance.volumes {
                let volume = &attached.volume_id;
                note(id, volume);
                note(volume, id);
                attached
                    .snapshot_id
                    .iter()
                    .for_each(|from| note(volume, from));
            }
        }
        self.index = index;
    }

    /// Discards the index. Must be called before anything is changed.
    pub(crate) fn forget_index(&mut self) {
        self.index = Index::default();
        self.elsewhere.values_mut().for_each(World::forget_index);
    }

    /// Whether the account can use the Region.
    pub(crate) fn is_usable(&self) -> bool {
        let mut regions = self.regions.iter();
        regions.all(|region| region.name != self.region || region.is_enabled())
    }

    /// The ARN of the identity that makes the calls.
    pub(crate) fn caller_arn(&self) -> String {
        format!("arn:aws:sts::{}:assumed-role/guard/guard", self.account)
    }

    /// A new id such as `ami-0…`, with 17 digits like EC2's.
    pub(crate) fn fresh_id(&mut self, prefix: &str) -> String {
        self.ids += 1;
        // An odd factor makes different numbers differ in all digits, like real ids.
        let digits = self.ids.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        format!("{prefix}-0{digits:016x}")
    }
}

/// A Region of AWS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// Such as `eu-west-1`.
    pub name: String,
    /// `opt-in-not-required`, `opted-in`, `not-opted-in`. A Region that is not opted in refuses all calls of the
    /// account.
    pub opt_in_status: String,
}

impl Region {
    /// A Region with this name and opt-in status.
    pub fn new(name: impl Into<String>, opt_in_status: impl Into<String>) -> Region {
        Region {
            name: name.into(),
            opt_in_status: opt_in_status.into(),
        }
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.opt_in_status != "not-opted-in"
    }
}

/// Billing metadata of a volume or snapshot, as EC2 has it.
///
/// "The RegisterImage operation derives the correct billing information from the snapshot's metadata, but this requires
/// the appropriate metadata to be present" (API reference of `RegisterImage`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SnapshotBilling {
    /// The metadata is present. An image that is registered from the snapshot is billed as this.
    Known {
        /// Such as `Windows`.
        platform_details: String,
        /// Such as `RunInstances:0002`.
        usage_operation: String,
    },
    /// The metadata is missing, and an image becomes `Linux/UNIX` with `RunInstances`. Public reports call this the
    /// usual case (packer issue 4922, aminator issue 219). It is right for plain Linux.
    #[default]
    Missing,
    /// The metadata is missing, and an image has neither field. The reference of `RegisterImage` names this case, too.
    Empty,
}

impl SnapshotBilling {
    /// The platform details and the usage operation of an image that is registered from the snapshot.
    pub(crate) fn of_image(&self) -> (Option<String>, Option<String>) {
        match self {
            SnapshotBilling::Known {
                platform_details,
                usage_operation,
            } => (
                Some(platform_details.clone()),
                Some(usage_operation.clone()),
            ),
            SnapshotBilling::Missing => (Some("Linux/UNIX".into()), Some("RunInstances".into())),
            SnapshotBilling::Empty => (None, None),
        }
    }
}

/// An EBS volume, as `CreateVolume` makes one. Its instance describes its attachment.
#[derive(Debug, Clone)]
pub struct Volume {
    /// `vol-…`
    pub id: String,
    /// The owner, the only account that sees it.
    pub owner: String,
    /// Size in GiB.
    pub size: u32,
    /// The snapshot that it was created from, or `None` for a volume that was created empty.
    pub snapshot_id: Option<String>,
    /// The volume that it was copied from. A copied volume has no snapshot.
    pub source_volume_id: Option<String>,
    /// Such as `eu-west-1a`.
    pub availability_zone: String,
    /// `gp2`, `gp3`, …
    pub volume_type: String,
    /// Time of creation.
    pub create_time: DateTime<Utc>,
    /// Whether it, and so a snapshot of it, is encrypted.
    pub encrypted: bool,
    /// The ARN of its KMS key, which its snapshots inherit.
    pub kms_key_id: Option<String>,
    /// A raw image file with its content, which its snapshots inherit. `None` if nothing was ever written.
    pub disk: Option<PathBuf>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Marketplace product codes, which its snapshots inherit.
    pub product_codes: Vec<String>,
    /// Billing metadata, which its snapshots inherit.
    pub billing: SnapshotBilling,
}

impl Volume {
    /// An empty gp2 volume of 8 GiB of the default account in eu-west-1a, two hours old, not encrypted.
    pub fn new(id: impl Into<String>) -> Volume {
        Volume {
            id: id.into(),
            owner: ACCOUNT.into(),
            size: 8,
            snapshot_id: None,
            source_volume_id: None,
            availability_zone: "eu-west-1a".into(),
            volume_type: "gp2".into(),
            create_time: clock::now() - TimeDelta::hours(2),
            encrypted: false,
            kms_key_id: None,
            disk: None,
            tags: BTreeMap::new(),
            product_codes: Vec::new(),
            billing: SnapshotBilling::Missing,
        }
    }
}

pub(crate) type Tags = BTreeMap<String, String>;

/// Selects the tags that an account sees. The owner and any other account do not see each other's tags.
fn whose<T>(owned: bool, owners: T, callers: T) -> T {
    if owned { owners } else { callers }
}

/// An EBS snapshot.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// `snap-…`
    pub id: String,
    /// The owner. Another account's snapshot is visible only if it is public or shared.
    pub owner: String,
    /// Whether all accounts may use it.
    pub public: bool,
    /// The accounts that may use it besides its owner.
    pub shared_with: BTreeSet<String>,
    /// The volume that it was taken from; `vol-ffffffff` for copied and imported ones.
    pub volume_id: String,
    /// Free text.
    pub description: String,
    /// Time at which it was started.
    pub start_time: DateTime<Utc>,
    /// Time of completion, or `None` if unknown. EBS may show it later: see [`Ebs::shown_after`].
    pub completion_time: Option<DateTime<Utc>>,
    /// Whether it is in the archive tier.
    pub archived: bool,
    /// The ARN of the Outpost that stores it, if any.
    pub outpost_arn: Option<String>,
    /// `pending`, `completed`, `error`.
    pub state: String,
    /// Size in GiB.
    pub volume_size: u32,
    /// Whether it is encrypted. A snapshot with a KMS key always is.
    pub encrypted: bool,
    /// The ARN of its KMS key. See also [`Ebs::denied_keys`].
    pub kms_key_id: Option<String>,
    /// The raw image file of its volume, which may be sparse. Blocks of 512 KiB are read from it on request. A block of
    /// zeros, or beyond the file's end, was never written. `None` if nothing was.
    pub disk: Option<PathBuf>,
    /// Its owner's tags, which only its owner sees.
    pub tags: BTreeMap<String, String>,
    /// The tags of the calling account on a snapshot that it does not own.
    pub callers_tags: BTreeMap<String, String>,
    /// Marketplace product codes, which images registered from it inherit.
    pub product_codes: Vec<String>,
    /// Billing of an image that is registered from it. No API shows this.
    pub billing: SnapshotBilling,
}

impl Snapshot {
    /// A completed snapshot of 8 GiB of the default account, an hour old, without billing metadata.
    pub fn new(id: impl Into<String>) -> Snapshot {
        Snapshot {
            id: id.into(),
            owner: ACCOUNT.into(),
            public: false,
            shared_with: BTreeSet::new(),
            volume_id: "vol-ffffffff".into(),
            description: String::new(),
            start_time: clock::now() - TimeDelta::hours(1),
            completion_time: Some(clock::now() - TimeDelta::minutes(50)),
            archived: false,
            outpost_arn: None,
            state: "completed".into(),
            volume_size: 8,
            encrypted: false,
            kms_key_id: None,
            disk: None,
            tags: BTreeMap::new(),
            callers_tags: BTreeMap::new(),
            product_codes: Vec::new(),
            billing: SnapshotBilling::Missing,
        }
    }

    /// A snapshot of a volume with the content of this raw image file. Its size is the file's, rounded up to whole GiB.
    ///
    /// # Errors
    /// If the file does not exist, or is larger than 4 EiB.
    pub fn of_disk(id: impl Into<String>, image: impl Into<PathBuf>) -> io::Result<Snapshot> {
        let image = image.into();
        let gib = fs::metadata(&image)?.len().div_ceil(1 << 30).max(1);
        Ok(Snapshot {
            volume_size: gib.try_into().map_err(io::Error::other)?,
            disk: Some(image),
            ..Snapshot::new(id)
        })
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        self.encrypted || self.kms_key_id.is_some()
    }

    pub(crate) fn visible_to(&self, account: &str) -> bool {
        self.public || self.owned_by(account) || self.shared_with.contains(account)
    }

    pub(crate) fn owned_by(&self, account: &str) -> bool {
        self.owner == account
    }

    pub(crate) fn tags_seen_by(&self, account: &str) -> &Tags {
        whose(self.owned_by(account), &self.tags, &self.callers_tags)
    }

    pub(crate) fn tags_set_by(&mut self, account: &str) -> &mut Tags {
        let owned = self.owned_by(account);
        whose(owned, &mut self.tags, &mut self.callers_tags)
    }
}

/// An Amazon Machine Image.
#[derive(Debug, Clone)]
pub struct Image {
    /// `ami-…`
    pub id: String,
    /// Unique among the images of its owner.
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// The owner. An empty text omits the field in the answer.
    pub owner: String,
    /// `amazon`, `aws-marketplace`, …: the `imageOwnerAlias`.
    pub owner_alias: Option<String>,
    /// `available`, `pending`, `failed`, `disabled`, `deregistered`, `invalid`, `transient`, `error`.
    pub state: String,
    /// The reason for the state, as code and message.
    pub state_reason: Option<(String, String)>,
    /// Time of registration.
    pub creation_date: DateTime<Utc>,
    /// `x86_64`, `arm64`, …
    pub architecture: String,
    /// The device name of the root volume.
    pub root_device_name: Option<String>,
    /// `ebs` or `instance-store`.
    pub root_device_type: String,
    /// The volumes of an instance launched from it.
    pub block_devices: Vec<BlockDevice>,
    /// `windows` for Windows images, absent for all others.
    pub platform: Option<String>,
    /// The billing field for people.
    pub platform_details: Option<String>,
    /// The billing field that determines the billing.
    pub usage_operation: Option<String>,
    /// Its owner's tags, which only its owner sees.
    pub tags: BTreeMap<String, String>,
    /// The tags of the calling account on an image that it does not own.
    pub callers_tags: BTreeMap<String, String>,
    /// Whether all accounts may launch it.
    pub public: bool,
    /// The accounts that may launch it besides its owner.
    pub shared_with: BTreeSet<String>,
    /// The ARNs of the organizations and organizational units whose accounts may launch it. Their accounts are not
    /// simulated.
    pub shared_with_organizations: BTreeSet<String>,
    /// Set by CreateImage only.
    pub source_instance_id: Option<String>,
    /// Set only by CopyImage, CreateRestoreImageTask and CreateImage.
    pub source_image_id: Option<String>,
    /// The Region of `source_image_id`.
    pub source_image_region: Option<String>,
    /// Time from which it is deprecated. Other accounts then find it only by its id, or if they request deprecated
    /// images.
    pub deprecation_time: Option<DateTime<Utc>>,
    /// `disabled`, `enabled-without-cooldown`, `enabled-with-cooldown`. DeregisterImage refuses if it begins with
    /// `enabled`.
    pub deregistration_protection: Option<String>,
    /// `hvm` or `paravirtual`.
    pub virtualization_type: String,
    /// Enhanced networking with ENA.
    pub ena_support: Option<bool>,
    /// `simple` for enhanced networking with the Intel 82599 interface.
    pub sriov_net_support: Option<String>,
    /// `legacy-bios`, `uefi`, `uefi-preferred`.
    pub boot_mode: Option<String>,
    /// `v2.0`
    pub imds_support: Option<String>,
    /// `v2.0`
    pub tpm_support: Option<String>,
    /// The non-volatile UEFI variable store in base64. `DescribeImages` does not show it.
    pub uefi_data: Option<String>,
    /// For paravirtual images.
    pub kernel_id: Option<String>,
    /// For paravirtual images.
    pub ramdisk_id: Option<String>,
    /// Marketplace product codes.
    pub product_codes: Vec<String>,
    /// `ACCOUNT/NAME` for images that were registered from a snapshot.
    pub image_location: String,
    /// Number of `DescribeImages` calls that do not show the image although they match it. EC2 is eventually
    /// consistent, and about one new image in ten is not found at first (aminator issue 73).
    pub invisible_for: u32,
    /// How those calls answer if they name its id.
    pub invisible_as: Invisible,
}

impl Image {
    /// An available image of the default account, ten minutes old, x86_64, hvm. It is billed as plain Linux, and its
    /// name is its id.
    ///
    /// Its only volume is the root volume `/dev/xvda`. The snapshot has the same digits as the image (`snap-0…` for
    /// `ami-0…`), and is not created.
    pub fn new(id: impl Into<String>) -> Image {
        let id = id.into();
        let digits = id.strip_prefix("ami-").unwrap_or(&id);
        Image {
            block_devices: vec![BlockDevice::new("/dev/xvda", format!("snap-{digits}"))],
            name: id.clone(),
            description: None,
            owner: ACCOUNT.into(),
            owner_alias: None,
            state: "available".into(),
            state_reason: None,
            creation_date: clock::now() - TimeDelta::minutes(10),
            architecture: "x86_64".into(),
            root_device_name: Some("/dev/xvda".into()),
            root_device_type: "ebs".into(),
            platform: None,
            platform_details: Some("Linux/UNIX".into()),
            usage_operation: Some("RunInstances".into()),
            tags: BTreeMap::new(),
            callers_tags: BTreeMap::new(),
            public: false,
            shared_with: BTreeSet::new(),
            shared_with_organizations: BTreeSet::new(),
            source_instance_id: None,
            source_image_id: None,
            source_image_region: None,
            deprecation_time: None,
            deregistration_protection: None,
            virtualization_type: "hvm".into(),
            ena_support: Some(true),
            sriov_net_support: None,
            boot_mode: None,
            imds_support: None,
            tpm_support: None,
            uefi_data: None,
            kernel_id: None,
            ramdisk_id: None,
            product_codes: Vec::new(),
            image_location: format!("{ACCOUNT}/{id}"),
            invisible_for: 0,
            invisible_as: Invisible::NotFound,
            id,
        }
    }

    /// `windows` for the platform details of a Windows image or instance.
    pub(crate) fn platform_of(details: Option<&str>) -> Option<String> {
        let details = details.filter(|details| details.starts_with("Windows"));
        details.map(|_| "windows".into())
    }

    /// The snapshots of its volumes.
    pub fn snapshot_ids(&self) -> impl Iterator<Item = &str> {
        self.block_devices
            .iter()
            .filter_map(|device| device.snapshot_id.as_deref())
    }

    pub(crate) fn visible_to(&self, account: &str) -> bool {
        self.public || self.owned_by(account) || self.shared_with.contains(account)
    }

    pub(crate) fn owned_by(&self, account: &str) -> bool {
        self.owner == account
    }

    pub(crate) fn tags_seen_by(&self, account: &str) -> &Tags {
        whose(self.owned_by(account), &self.tags, &self.callers_tags)
    }

    pub(crate) fn tags_set_by(&mut self, account: &str) -> &mut Tags {
        let owned = self.owned_by(account);
        whose(owned, &mut self.tags, &mut self.callers_tags)
    }
}

/// Answer of `DescribeImages` to a request by id for an image that is not visible yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Invisible {
    /// The error `InvalidAMIID.NotFound`.
    #[default]
    NotFound,
    /// No error and no image.
    Empty,
}

/// One volume of an image.
#[derive(Debug, Clone)]
pub struct BlockDevice {
    /// Such as `/dev/sda1`.
    pub device_name: String,
    /// The snapshot that the volume is created from, or `None` for an empty one.
    pub snapshot_id: Option<String>,
    /// Size in GiB.
    pub volume_size: u32,
    /// `gp2`, `gp3`, …
    pub volume_type: String,
    /// Provisioned operations per second.
    pub iops: Option<u32>,
    /// Throughput in MiB per second.
    pub throughput: Option<u32>,
    /// Whether the volume is deleted when its instance is terminated.
    pub delete_on_termination: bool,
    /// Whether it is encrypted.
    pub encrypted: bool,
    /// Name of an instance-store volume, such as `ephemeral0`. The other fields then have no effect, except the device
    /// name.
    pub virtual_name: Option<String>,
}

impl BlockDevice {
    /// A gp3 volume of 8 GiB from this snapshot, deleted on termination, not encrypted.
    pub fn new(device_name: impl Into<String>, snapshot_id: impl Into<String>) -> BlockDevice {
        BlockDevice {
            device_name: device_name.into(),
            snapshot_id: Some(snapshot_id.into()),
            volume_size: 8,
            volume_type: "gp3".into(),
            iops: None,
            throughput: None,
            delete_on_termination: true,
            encrypted: false,
            virtual_name: None,
        }
    }
}

/// A deregistered image, and how `DescribeImages` still shows it.
#[derive(Debug, Clone)]
pub struct Deregistered {
    /// The image in its last state.
    pub image: Image,
    /// Counted down by the calls that name the image.
    pub lingering: Lingering,
}

/// Phases after a deregistration, counted in calls that name the image's id.
///
/// "Recently deregistered images appear in the returned results for a short interval and then return empty results"
/// (API reference of `DescribeImages`). Eventually, an error says that the id does not exist.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lingering {
    /// Number of calls that still show the image as before.
    pub listed_for: u32,
    /// Number of further calls that answer with no image and no error. After them, the answer is
    /// `InvalidAMIID.NotFound`. `None`, the default, means all further calls.
    pub empty_for: Option<u32>,
}

/// An image in the Recycle Bin.
#[derive(Debug, Clone)]
pub struct BinnedImage {
    /// The image when it was deregistered.
    pub image: Image,
    /// Time of the deregistration.
    pub entered: DateTime<Utc>,
    /// Time at which it is deleted permanently.
    pub exits: DateTime<Utc>,
}

/// A tag-level retention rule of the Recycle Bin for images. It matches key *and* value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecycleBinRule {
    /// Eleven letters and digits.
    pub id: String,
    /// `available`, or `pending`. A pending rule keeps nothing yet.
    pub status: String,
    /// The tag's key.
    pub tag_key: String,
    /// The tag's value.
    pub tag_value: String,
    /// Retention period, in days.
    pub retention_days: u32,
}

impl RecycleBinRule {
    /// The id of the rule in [`World::default`], and of every other rule to which a test gives no other id.
    pub const ID: &str = "JSzDHyLPHm0";

    /// An available rule that keeps images with this tag for this many days.
    pub fn new(
        tag_key: impl Into<String>,
        tag_value: impl Into<String>,
        retention_days: u32,
    ) -> RecycleBinRule {
        RecycleBinRule {
            id: RecycleBinRule::ID.into(),
            status: "available".into(),
            tag_key: tag_key.into(),
            tag_value: tag_value.into(),
            retention_days,
        }
    }

    pub(crate) fn is_available(&self) -> bool {
        self.status == "available"
    }
}

/// An instance.
#[derive(Debug, Clone)]
pub struct Instance {
    /// `i-…`
    pub id: String,
    /// The owner, the only account that sees it.
    pub owner: String,
    /// The image that it was launched from.
    pub image_id: String,
    /// `pending`, `running`, `stopping`, `stopped`, `shutting-down`, `terminated`.
    pub state: String,
    /// Such as `t3.micro`.
    pub instance_type: String,
    /// `x86_64`, `arm64`, …
    pub architecture: String,
    /// Time of launch.
    pub launch_time: DateTime<Utc>,
    /// `windows` for Windows instances, absent for all others.
    pub platform: Option<String>,
    /// The billing field for people.
    pub platform_details: Option<String>,
    /// The billing field that determines the billing.
    pub usage_operation: Option<String>,
    /// Time of the last change of the usage operation, or `None` for the time of launch.
    pub usage_operation_update_time: Option<DateTime<Utc>>,
    /// The device name of its root volume.
    pub root_device_name: Option<String>,
    /// Its volumes. A terminated instance has none attached, and its volumes with `delete_on_termination` do not exist.
    pub volumes: Vec<AttachedVolume>,
    /// Marketplace product codes.
    pub product_codes: Vec<String>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

impl Instance {
    /// A running t3.micro of the default account, launched two hours ago from `image_id`. It is plain Linux, with the
    /// root device `/dev/xvda` and no volume yet.
    pub fn new(id: impl Into<String>, image_id: impl Into<String>) -> Instance {
        Instance {
            id: id.into(),
            owner: ACCOUNT.into(),
            image_id: image_id.into(),
            state: "running".into(),
            instance_type: "t3.micro".into(),
            architecture: "x86_64".into(),
            // By default, earlier than any snapshot of its volumes.
            launch_time: clock::now() - TimeDelta::hours(2),
            platform: None,
            platform_details: Some("Linux/UNIX".into()),
            usage_operation: Some("RunInstances".into()),
            usage_operation_update_time: None,
            root_device_name: Some("/dev/xvda".into()),
            volumes: Vec::new(),
            product_codes: Vec::new(),
            tags: BTreeMap::new(),
        }
    }

    pub(crate) fn is_terminated(&self) -> bool {
        self.state == "terminated"
    }

    /// The volumes that are attached at present.
    pub(crate) fn attached(&self) -> &[AttachedVolume] {
        if self.is_terminated() {
            &[]
        } else {
            &self.volumes
        }
    }
}

/// A volume of an instance. If [`World::volumes`] has the same id, its size and snapshot there count.
#[derive(Debug, Clone)]
pub struct AttachedVolume {
    /// Such as `/dev/sda1`. It is the root volume if the instance's `root_device_name` is the same.
    pub device_name: String,
    /// `vol-…`
    pub volume_id: String,
    /// Size in GiB.
    pub size: u32,
    /// The snapshot that it was created from, or `None` for a volume that was created empty.
    pub snapshot_id: Option<String>,
    /// Time of attachment.
    pub attach_time: DateTime<Utc>,
    /// Whether it is deleted when its instance is terminated.
    pub delete_on_termination: bool,
}

impl AttachedVolume {
    /// A volume of 8 GiB that was created empty, attached two hours ago, and deleted with its instance.
    pub fn new(device_name: impl Into<String>, volume_id: impl Into<String>) -> AttachedVolume {
        AttachedVolume {
            device_name: device_name.into(),
            volume_id: volume_id.into(),
            size: 8,
            snapshot_id: None,
            attach_time: clock::now() - TimeDelta::hours(2),
            delete_on_termination: true,
        }
    }
}

/// Reserved Instances that were bought together.
#[derive(Debug, Clone)]
pub struct ReservedInstances {
    /// A UUID.
    pub id: String,
    /// Such as `m5.large`.
    pub instance_type: String,
    /// Number of instances that they cover.
    pub instance_count: u32,
    /// The platform: `Windows`, `Linux/UNIX`, `Red Hat Enterprise Linux`, … Older accounts have the suffix ` (Amazon
    /// VPC)`.
    pub product_description: String,
    /// `payment-pending`, `active`, `payment-failed`, `retired`, `queued`, `queued-deleted`.
    pub state: String,
    /// The only zone in which they apply, or `None` if their scope is the Region.
    pub availability_zone: Option<String>,
    /// Time from which they apply.
    pub start: DateTime<Utc>,
    /// Time until which they apply.
    pub end: DateTime<Utc>,
    /// Their tags.
    pub tags: BTreeMap<String, String>,
}

impl ReservedInstances {
    /// One active Reserved Instance for the whole Region, bought for a year half a year ago.
    pub fn new(
        id: impl Into<String>,
        instance_type: impl Into<String>,
        product_description: impl Into<String>,
    ) -> ReservedInstances {
        let start = clock::now() - TimeDelta::days(182);
        ReservedInstances {
            id: id.into(),
            instance_type: instance_type.into(),
            instance_count: 1,
            product_description: product_description.into(),
            state: "active".into(),
            availability_zone: None,
            start,
            end: start + TimeDelta::days(365),
            tags: BTreeMap::new(),
        }
    }
}

/// A reference to an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// `ec2:Instance`, `ec2:LaunchTemplate`, `ssm:Parameter`, `imagebuilder:ImageRecipe`,
    /// `imagebuilder:ContainerRecipe`.
    pub resource_type: String,
    /// The ARN of the resource that refers to it.
    pub arn: String,
}

/// An SNS topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Topic {
    /// Number of confirmed subscriptions, which receive messages.
    pub confirmed: u32,
    /// Number of subscriptions that are not confirmed yet.
    pub pending: u32,
}

/// An SQS queue. It holds no messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Queue {
    /// Receipt handles, with the seconds for which `ChangeMessageVisibility` last hid their messages.
    pub hidden: BTreeMap<String, u32>,
}

impl Queue {
    /// The URL of the default world's queue.
    pub const URL: &str = "https://sqs.eu-west-1.amazonaws.com/123456789012/ami-billing-guard";
}

/// A published message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its id.
    pub id: String,
    /// The topic.
    pub topic_arn: String,
    /// The subject of an e-mail.
    pub subject: Option<String>,
    /// The parameter `Message` as received.
    pub message: String,
    /// `json`, if the message differs between protocols.
    pub message_structure: Option<String>,
    /// Message attributes by name.
    pub attributes: BTreeMap<String, MessageAttribute>,
}

impl Message {
    /// The text for a subscriber with this protocol (`email`, `sqs`, `https`, …). With the structure `json`, the text
    /// of that key, or of `default`. Otherwise the message itself.
    pub fn body(&self, protocol: &str) -> String {
        if self.message_structure.is_none() {
            return self.message.clone();
        }
        let bodies: serde_json::Value = serde_json::from_str(&self.message).unwrap_or_default();
        [protocol, "default"]
            .iter()
            .find_map(|key| bodies.get(key)?.as_str())
            .unwrap_or_default()
            .to_owned()
    }
}

/// One attribute of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageAttribute {
    /// `String`, `String.Array`, `Number` or `Binary`.
    pub data_type: String,
    /// The value; base64 if it is binary.
    pub value: String,
}

/// A DynamoDB table without a sort key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The attribute that is the partition key, a text.
    pub key: String,
    /// The items by the values of their keys.
    pub items: BTreeMap<String, Item>,
}

impl Table {
    /// An empty table with this attribute as its key.
    pub fn new(key: impl Into<String>) -> Table {
        Table {
            key: key.into(),
            items: BTreeMap::new(),
        }
    }
}

/// An item of a table: its attributes by name, in DynamoDB's JSON, such as `{"S": "text"}`. A request writes texts,
/// integers and sets of texts. A test may put any value here.
pub type Item = BTreeMap<String, serde_json::Value>;
