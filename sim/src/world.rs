//! What exists in the simulated account: a plain value, that tests may look at and change as they like.

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

/// The account that owns everything unless a test says otherwise.
const ACCOUNT: &str = "123456789012";

/// One account in one Region, and what it has [elsewhere](World::in_region).
#[derive(Debug, Clone)]
pub struct World {
    /// The account that makes the calls.
    pub account: String,
    /// The Region they are made in.
    pub region: String,
    /// All Regions that there are, those that the account can not use among them.
    pub regions: Vec<Region>,
    /// What the account has in other Regions, by their names. In one that is not here it has nothing.
    pub elsewhere: BTreeMap<String, World>,
    /// Volumes by id. Those that are attached to an instance need not be here; for one that is, this says
    /// all but how it is attached.
    pub volumes: BTreeMap<String, Volume>,
    /// Snapshots by id.
    pub snapshots: BTreeMap<String, Snapshot>,
    /// Images by id, disabled ones among them.
    pub images: BTreeMap<String, Image>,
    /// Images that were deregistered, by id, also those that went to the Recycle Bin.
    pub deregistered: BTreeMap<String, Deregistered>,
    /// Images in the Recycle Bin by id.
    pub recycle_bin: BTreeMap<String, BinnedImage>,
    /// Which deregistered images the Recycle Bin keeps, and for how long.
    pub recycle_bin_rules: Vec<RecycleBinRule>,
    /// Instances by id. Each counts as a reference to its image, a terminated one, too.
    pub instances: BTreeMap<String, Instance>,
    /// The account's Reserved Instances by id.
    pub reserved_instances: BTreeMap<String, ReservedInstances>,
    /// What else refers to an image, by image id: `DescribeImageReferences` answers from here.
    pub references: BTreeMap<String, Vec<Reference>>,
    /// SNS topics by ARN.
    pub topics: BTreeMap<String, Topic>,
    /// All messages that were published, in order.
    pub messages: Vec<Message>,
    /// SQS queues by URL.
    pub queues: BTreeMap<String, Queue>,
    /// DynamoDB tables by name.
    pub tables: BTreeMap<String, Table>,
    /// So many items a `BatchGetItem` reads at most, as if the throughput were spent then; the keys of all others
    /// it leaves unprocessed. `None`: as many as it may.
    pub items_per_batch: Option<usize>,
    /// When DynamoDB transactions took effect, and what they were asked to write, by their `ClientRequestToken`:
    /// one that comes again within ten minutes does nothing again.
    pub transactions: BTreeMap<String, (DateTime<Utc>, Vec<serde_json::Value>)>,
    /// How often the account may call EC2 in this Region. Without limits unless a test sets some.
    pub throttling: Throttling,
    /// How the EBS direct APIs behave, by which the blocks of snapshots are read.
    pub ebs: Ebs,
    /// For how many `DescribeImages` calls an image registered from now on is not visible yet.
    pub new_images_invisible_for: u32,
    /// How `DescribeImages` speaks of an image deregistered from now on.
    pub after_deregistration: Lingering,
    /// The number behind the last generated id. Ids are the same in every run.
    pub ids: u64,
    /// The server's own.
    pub index: Index,
}

impl Default for World {
    /// Account 123456789012 in eu-west-1, with the topic
    /// `arn:aws:sns:eu-west-1:123456789012:ami-billing-guard`, that has one confirmed subscription,
    /// the empty table `ami-billing-guard`, whose key is `id`, the queue [`Queue::URL`], and a Recycle Bin rule that keeps
    /// images tagged `ami-billing-guard:discard` = `true` for 30 days. The account can also use us-east-1 and
    /// eu-south-1, and not ap-east-1.
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
    /// The default world with something in it to play with from a shell: snapshots that know what they
    /// bill (`snap-0000000000000a001` Windows, `…a002` Red Hat Enterprise Linux), one that lost it
    /// (`…a003`) and one whose images come out with no platform details at all (`…a004`), and a Windows
    /// instance `i-0000000000000c001` with the root volume `vol-0000000000000b001`.
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

    /// Puts an image into the world.
    pub fn add_image(&mut self, image: Image) {
        self.images.insert(image.id.clone(), image);
    }

    /// Puts a snapshot into the world.
    pub fn add_snapshot(&mut self, snapshot: Snapshot) {
        self.snapshots.insert(snapshot.id.clone(), snapshot);
    }

    /// Puts a volume into the world.
    pub fn add_volume(&mut self, volume: Volume) {
        self.volumes.insert(volume.id.clone(), volume);
    }

    /// Puts an instance into the world.
    pub fn add_instance(&mut self, instance: Instance) {
        self.instances.insert(instance.id.clone(), instance);
    }

    /// Puts Reserved Instances into the world.
    pub fn add_reserved_instances(&mut self, reserved: ReservedInstances) {
        self.reserved_instances
            .insert(reserved.id.clone(), reserved);
    }

    /// What the account has in a Region: this world itself, or one of [`World::elsewhere`]. At first there is
    /// nothing, no topic, no queue, no table and no rule either, but the same limits of calls. A Region that is not on the list comes onto it.
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
        // The list is one for all of them.
        world.regions.clone_from(&self.regions);
        world
    }

    /// What a request that is signed for a Region is about. One that is signed for a Region that does not exist
    /// is about this world: tests sign so, as in one process the SDK has one quota of retries for each Region.
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

    /// Makes the index. Images name their snapshots, snapshots their volumes, volumes their snapshots and the instances
    /// that they are attached to, instances their images and volumes.
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

    /// To be called before anything is changed.
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

    /// A fresh id such as `ami-0…`, 17 digits as EC2 makes them.
    pub(crate) fn fresh_id(&mut self, prefix: &str) -> String {
        self.ids += 1;
        // An odd factor makes different numbers differ in all digits, as real ids do.
        let digits = self.ids.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        format!("{prefix}-0{digits:016x}")
    }
}

/// A Region of AWS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// Such as `eu-west-1`.
    pub name: String,
    /// `opt-in-not-required`, `opted-in`, `not-opted-in`. The last one refuses all calls of the account.
    pub opt_in_status: String,
}

impl Region {
    /// A Region of this name and opt-in status.
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

/// What EC2 knows of the billing of a volume or snapshot.
///
/// "The RegisterImage operation derives the correct billing information from the snapshot's metadata,
/// but this requires the appropriate metadata to be present" (API reference of `RegisterImage`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SnapshotBilling {
    /// The metadata is there: an image registered from the snapshot bills this.
    Known {
        /// Such as `Windows`.
        platform_details: String,
        /// Such as `RunInstances:0002`.
        usage_operation: String,
    },
    /// The metadata is missing: an image comes out as `Linux/UNIX` with `RunInstances`, as public
    /// reports say is the rule (packer issue 4922, aminator issue 219). Right for plain Linux.
    #[default]
    Missing,
    /// The metadata is missing, and an image comes out with neither field, the other case that the
    /// reference of `RegisterImage` names.
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

/// An EBS volume. `CreateVolume` makes one. Whether it is attached is its instance's to say.
#[derive(Debug, Clone)]
pub struct Volume {
    /// `vol-…`
    pub id: String,
    /// The account that owns it, and alone sees it.
    pub owner: String,
    /// In GiB.
    pub size: u32,
    /// What it was made from; `None` for one that began empty.
    pub snapshot_id: Option<String>,
    /// The volume that it was copied from; such a one has no snapshot.
    pub source_volume_id: Option<String>,
    /// Such as `eu-west-1a`.
    pub availability_zone: String,
    /// `gp2`, `gp3`, …
    pub volume_type: String,
    /// When it was made.
    pub create_time: DateTime<Utc>,
    /// Whether it, and so a snapshot of it, is encrypted.
    pub encrypted: bool,
    /// The ARN of the KMS key that it is encrypted with, handed on to its snapshots.
    pub kms_key_id: Option<String>,
    /// A raw image file of what is on it, handed on to its snapshots; `None`: nothing was ever written.
    pub disk: Option<PathBuf>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Marketplace product codes, handed on to its snapshots.
    pub product_codes: Vec<String>,
    /// Handed on to its snapshots.
    pub billing: SnapshotBilling,
}

impl Volume {
    /// An empty gp2 volume of 8 GiB of the default account in eu-west-1a, an hour old, not encrypted.
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

/// Tags are an account's own: the owner and any other account do not see each other's.
fn whose<T>(owned: bool, owners: T, callers: T) -> T {
    if owned { owners } else { callers }
}

/// An EBS snapshot.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// `snap-…`
    pub id: String,
    /// The account that owns it. Another account's snapshot is not visible unless it is public or shared.
    pub owner: String,
    /// Whether everybody may use it.
    pub public: bool,
    /// The accounts that may use it besides its owner.
    pub shared_with: BTreeSet<String>,
    /// The volume that it was taken from; `vol-ffffffff` for copied and imported ones.
    pub volume_id: String,
    /// Free text.
    pub description: String,
    /// When it was begun.
    pub start_time: DateTime<Utc>,
    /// When it was completed; `None`: nobody says. EBS may not show it at once: see [`Ebs::shown_after`].
    pub completion_time: Option<DateTime<Utc>>,
    /// Whether it is in the archive tier.
    pub archived: bool,
    /// The ARN of the Outpost that it is stored on, if it is.
    pub outpost_arn: Option<String>,
    /// `pending`, `completed`, `error`.
    pub state: String,
    /// In GiB.
    pub volume_size: u32,
    /// Whether it is encrypted. One with a KMS key always is.
    pub encrypted: bool,
    /// The ARN of the KMS key that it is encrypted with. See also [`Ebs::denied_keys`].
    pub kms_key_id: Option<String>,
    /// The raw image file of the volume that it was taken from, which may be sparse. Blocks of 512 KiB are read
    /// from it as they are asked for; one that is all zeros, or beyond the file's end, was never written. `None`:
    /// nothing was.
    pub disk: Option<PathBuf>,
    /// Its owner's tags, that only its owner sees.
    pub tags: BTreeMap<String, String>,
    /// The tags that the calling account put on it without owning it.
    pub callers_tags: BTreeMap<String, String>,
    /// Marketplace product codes, handed on to the images that are registered from it.
    pub product_codes: Vec<String>,
    /// What an image that is registered from it will bill. No API shows this.
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

    /// A snapshot of a volume with this raw image file on it: as large as the file, rounded up to whole GiB.
    ///
    /// # Errors
    /// If there is no such file, or if it is larger than 4 EiB.
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
    /// The account that owns it. An empty text leaves the field out of the answer.
    pub owner: String,
    /// `amazon`, `aws-marketplace`, …: the `imageOwnerAlias`.
    pub owner_alias: Option<String>,
    /// `available`, `pending`, `failed`, `disabled`, `deregistered`, `invalid`, `transient`, `error`.
    pub state: String,
    /// Why the state is what it is: a code and a sentence.
    pub state_reason: Option<(String, String)>,
    /// When it was registered.
    pub creation_date: DateTime<Utc>,
    /// `x86_64`, `arm64`, …
    pub architecture: String,
    /// The device whose snapshot is the root volume.
    pub root_device_name: Option<String>,
    /// `ebs` or `instance-store`.
    pub root_device_type: String,
    /// All volumes of an instance that would be launched from it.
    pub block_devices: Vec<BlockDevice>,
    /// `windows` for Windows images, absent for all others.
    pub platform: Option<String>,
    /// The billing field that people read.
    pub platform_details: Option<String>,
    /// The billing field that bills.
    pub usage_operation: Option<String>,
    /// Its owner's tags, that only its owner sees.
    pub tags: BTreeMap<String, String>,
    /// The tags that the calling account put on it without owning it.
    pub callers_tags: BTreeMap<String, String>,
    /// Whether everybody may launch it.
    pub public: bool,
    /// The accounts that may launch it besides its owner.
    pub shared_with: BTreeSet<String>,
    /// The ARNs of the organizations and organizational units whose accounts may launch it. Which accounts
    /// these are is not simulated.
    pub shared_with_organizations: BTreeSet<String>,
    /// Set by CreateImage only.
    pub source_instance_id: Option<String>,
    /// Set by CopyImage and CreateRestoreImageTask (and by CreateImage) only.
    pub source_image_id: Option<String>,
    /// The Region of `source_image_id`.
    pub source_image_region: Option<String>,
    /// From when on it is deprecated: others than its owner then find it only by its id, or if they ask for
    /// deprecated ones.
    pub deprecation_time: Option<DateTime<Utc>>,
    /// `disabled`, `enabled-without-cooldown`, `enabled-with-cooldown`. Anything that begins with
    /// `enabled` makes DeregisterImage refuse.
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
    /// Of paravirtual images.
    pub kernel_id: Option<String>,
    /// Of paravirtual images.
    pub ramdisk_id: Option<String>,
    /// Marketplace product codes.
    pub product_codes: Vec<String>,
    /// `ACCOUNT/NAME` for images that were registered from a snapshot.
    pub image_location: String,
    /// So many `DescribeImages` calls that would show it answer as if it were not there: EC2 is
    /// eventually consistent, and about one new image in ten is not found at first (aminator issue 73).
    pub invisible_for: u32,
    /// How those calls answer when they name its id.
    pub invisible_as: Invisible,
}

impl Image {
    /// An available image of the default account, ten minutes old, x86_64, hvm, with one root volume
    /// `/dev/xvda` whose snapshot has the same digits as the image (`ami-0…` has `snap-0…`; the snapshot
    /// itself is not made). It bills as plain Linux, and its name is its id.
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

/// How `DescribeImages` answers when it is asked for an image by id that is not visible yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Invisible {
    /// With the error `InvalidAMIID.NotFound`.
    #[default]
    NotFound,
    /// With no error and no image.
    Empty,
}

/// One volume of an image.
#[derive(Debug, Clone)]
pub struct BlockDevice {
    /// Such as `/dev/sda1`.
    pub device_name: String,
    /// What the volume is made from; `None` for an empty one.
    pub snapshot_id: Option<String>,
    /// In GiB.
    pub volume_size: u32,
    /// `gp2`, `gp3`, …
    pub volume_type: String,
    /// Provisioned operations per second.
    pub iops: Option<u32>,
    /// In MiB per second.
    pub throughput: Option<u32>,
    /// Whether the volume goes when its instance is terminated.
    pub delete_on_termination: bool,
    /// Whether it is encrypted.
    pub encrypted: bool,
    /// `ephemeral0` and so on: an instance-store volume. All else but the device's name is void then.
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

/// An image that was deregistered, and what `DescribeImages` still says of it.
#[derive(Debug, Clone)]
pub struct Deregistered {
    /// The image as it last was.
    pub image: Image,
    /// Counted down by the calls that name it.
    pub lingering: Lingering,
}

/// "Recently deregistered images appear in the returned results for a short interval and then return
/// empty results", and eventually an error says that there is no such id (API reference of
/// `DescribeImages`). All three phases here are counted in calls that name the image's id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lingering {
    /// So many calls still show the image as it was.
    pub listed_for: u32,
    /// So many calls after those answer with no image and no error; then `InvalidAMIID.NotFound`.
    /// `None`, the default: all of them.
    pub empty_for: Option<u32>,
}

/// An image in the Recycle Bin.
#[derive(Debug, Clone)]
pub struct BinnedImage {
    /// As it was when it was deregistered.
    pub image: Image,
    /// When that was.
    pub entered: DateTime<Utc>,
    /// When it is deleted for good.
    pub exits: DateTime<Utc>,
}

/// A tag-level retention rule of the Recycle Bin for images. It matches key *and* value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecycleBinRule {
    /// Eleven letters and digits.
    pub id: String,
    /// `available`, or `pending`: then it keeps nothing yet.
    pub status: String,
    /// The tag's key.
    pub tag_key: String,
    /// The tag's value.
    pub tag_value: String,
    /// How long an image is kept.
    pub retention_days: u32,
}

impl RecycleBinRule {
    /// The id of the rule of [`World::default`], and of every other one that a test gives no id of its own.
    pub const ID: &str = "JSzDHyLPHm0";

    /// An available rule that keeps images with this tag for so many days.
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
    /// The account that owns it, and alone sees it.
    pub owner: String,
    /// What it was launched from.
    pub image_id: String,
    /// `pending`, `running`, `stopping`, `stopped`, `shutting-down`, `terminated`.
    pub state: String,
    /// Such as `t3.micro`.
    pub instance_type: String,
    /// `x86_64`, `arm64`, …
    pub architecture: String,
    /// When it was launched.
    pub launch_time: DateTime<Utc>,
    /// `windows` for Windows instances, absent for all others.
    pub platform: Option<String>,
    /// The billing field that people read.
    pub platform_details: Option<String>,
    /// The billing field that bills.
    pub usage_operation: Option<String>,
    /// When the usage operation was last changed; `None`: when it was launched.
    pub usage_operation_update_time: Option<DateTime<Utc>>,
    /// The device of its root volume.
    pub root_device_name: Option<String>,
    /// Its volumes. If it is terminated it has none any more, and those that go with it are gone.
    pub volumes: Vec<AttachedVolume>,
    /// Marketplace product codes.
    pub product_codes: Vec<String>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

impl Instance {
    /// A running t3.micro of the default account, launched an hour ago from `image_id`, plain Linux,
    /// root device `/dev/xvda`, no volume yet.
    pub fn new(id: impl Into<String>, image_id: impl Into<String>) -> Instance {
        Instance {
            id: id.into(),
            owner: ACCOUNT.into(),
            image_id: image_id.into(),
            state: "running".into(),
            instance_type: "t3.micro".into(),
            architecture: "x86_64".into(),
            // Before any snapshot of its volumes, unless somebody says otherwise.
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

    /// The volumes that it has at present.
    pub(crate) fn attached(&self) -> &[AttachedVolume] {
        if self.is_terminated() {
            &[]
        } else {
            &self.volumes
        }
    }
}

/// A volume of an instance. If [`World::volumes`] has the same id, its size and snapshot are said there.
#[derive(Debug, Clone)]
pub struct AttachedVolume {
    /// Such as `/dev/sda1`; it is the root volume if the instance's `root_device_name` says the same.
    pub device_name: String,
    /// `vol-…`
    pub volume_id: String,
    /// In GiB.
    pub size: u32,
    /// What it was made from; `None` for one that began empty.
    pub snapshot_id: Option<String>,
    /// Since when it is attached.
    pub attach_time: DateTime<Utc>,
    /// Whether it goes when its instance is terminated.
    pub delete_on_termination: bool,
}

impl AttachedVolume {
    /// A volume of 8 GiB that began empty, attached an hour ago, that goes with its instance.
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
    /// How many instances they are for.
    pub instance_count: u32,
    /// The platform: `Windows`, `Linux/UNIX`, `Red Hat Enterprise Linux`, …; for older accounts with
    /// ` (Amazon VPC)` behind it.
    pub product_description: String,
    /// `payment-pending`, `active`, `payment-failed`, `retired`, `queued`, `queued-deleted`.
    pub state: String,
    /// The only zone in which they apply; `None`: their scope is the Region.
    pub availability_zone: Option<String>,
    /// From when on they apply.
    pub start: DateTime<Utc>,
    /// Until when they do.
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

/// Something that refers to an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// `ec2:Instance`, `ec2:LaunchTemplate`, `ssm:Parameter`, `imagebuilder:ImageRecipe`,
    /// `imagebuilder:ContainerRecipe`.
    pub resource_type: String,
    /// The ARN of what refers to it.
    pub arn: String,
}

/// An SNS topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Topic {
    /// Subscriptions that were confirmed: those that get messages.
    pub confirmed: u32,
    /// Subscriptions that nobody has confirmed yet.
    pub pending: u32,
}

/// An SQS queue. It holds no messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Queue {
    /// Receipt handles, and for how many seconds `ChangeMessageVisibility` last hid their messages.
    pub hidden: BTreeMap<String, u32>,
}

impl Queue {
    /// The URL of the default world's queue.
    pub const URL: &str = "https://sqs.eu-west-1.amazonaws.com/123456789012/ami-billing-guard";
}

/// A message that was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its id.
    pub id: String,
    /// The topic.
    pub topic_arn: String,
    /// The subject of an e-mail.
    pub subject: Option<String>,
    /// The parameter `Message` as it came.
    pub message: String,
    /// `json`, if the message says something else to each protocol.
    pub message_structure: Option<String>,
    /// Message attributes by name.
    pub attributes: BTreeMap<String, MessageAttribute>,
}

impl Message {
    /// What a subscriber of this protocol (`email`, `sqs`, `https`, …) is sent: with the structure
    /// `json` the text of that key, or of `default`, else the message itself.
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

/// An item of a table: its attributes by name, as DynamoDB's JSON has them, such as `{"S": "text"}`. A request
/// writes texts, integers and sets of texts; a test may put anything here.
pub type Item = BTreeMap<String, serde_json::Value>;
