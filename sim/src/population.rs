//! An account after five years of image pipelines.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveTime, TimeDelta, Utc};

use crate::clock;
use crate::world::{
    AttachedVolume, BlockDevice, Image, Instance, ReservedInstances, Snapshot, SnapshotBilling,
    Volume, World,
};

/// The period in which the images were created, in days.
const DAYS: f64 = 5.0 * 365.0;

/// Tag that declares what an image is expected to be billed as.
const EXPECT: &str = "ami-billing-guard:expect";

/// One in this many images that were registered from a paid platform lost its billing metadata: about 2 % of all
/// images.
const ONE_LOST_OF: u64 = 12;

/// One in this many registered images has no billing fields at all.
const ONE_EMPTY_OF: u64 = 200;

#[derive(Debug)]
struct Platform {
    /// Weight in the draw of an image's platform, in percent.
    share: u64,
    details: &'static str,
    operation: &'static str,
    /// The expectation, as users write it.
    expect: &'static str,
    /// Prefixes of the images' names.
    names: [&'static str; 3],
}

const LINUX: Platform = Platform {
    share: 54,
    details: "Linux/UNIX",
    operation: "RunInstances",
    expect: "Linux",
    names: ["al2023-base", "ubuntu-22.04-ci-runner", "debian-12-web"],
};

const PLATFORMS: [Platform; 9] = [
    LINUX,
    Platform {
        share: 1,
        details: "Ubuntu Pro Linux",
        operation: "RunInstances:0g00",
        expect: "UbuntuPro",
        names: [
            "ubuntu-pro-22.04-fips",
            "ubuntu-pro-20.04",
            "ubuntu-pro-eks",
        ],
    },
    Platform {
        share: 18,
        details: "Windows",
        operation: "RunInstances:0002",
        expect: "Windows",
        names: ["win2019-base", "win2022-iis", "win2022-build-agent"],
    },
    Platform {
        share: 4,
        details: "Windows with SQL Server Standard",
        operation: "RunInstances:0006",
        expect: "Windows with SQL Server Standard",
        names: [
            "win2019-sqlstd",
            "win2022-sqlstd-report",
            "erp-db [standard]",
        ],
    },
    Platform {
        share: 2,
        details: "Windows with SQL Server Enterprise",
        operation: "RunInstances:0102",
        expect: "SQL",
        names: [
            "win2022-sqlent",
            "win2019-sqlent-dwh",
            "erp-db [enterprise]",
        ],
    },
    Platform {
        share: 13,
        details: "Red Hat Enterprise Linux",
        operation: "RunInstances:0010",
        expect: "RedHat",
        names: ["rhel8-hardened", "rhel9-base", "rhel9-eks-node"],
    },
    Platform {
        share: 2,
        details: "Red Hat Enterprise Linux with High Availability",
        operation: "RunInstances:1010",
        expect: "RedHatHa",
        names: ["rhel8-ha-pacemaker", "rhel9-ha", "sap-hana-rhel9-ha"],
    },
    Platform {
        share: 5,
        details: "SUSE Linux",
        operation: "RunInstances:000g",
        expect: "SUSE",
        names: ["sles15-sap", "sles12-erp", "sles15-base"],
    },
    Platform {
        share: 1,
        details: "SQL Server Standard",
        operation: "RunInstances:0004",
        expect: "SQL",
        names: ["al2-mssql", "ubuntu-20.04-mssql", "mssql-on-linux"],
    },
];

/// How an image was created.
#[derive(Debug, Clone, Copy)]
enum Making {
    /// By `CreateImage`.
    Created,
    /// By `RegisterImage` from a snapshot of an instance's root volume.
    Registered,
    /// By `RegisterImage` from a snapshot of a helper's second volume, as Packer's ebssurrogate does.
    OfSecondVolume,
    /// By `CopyImage`.
    Copied,
    /// By `RegisterImage` from an uploaded snapshot.
    Uploaded,
}

/// Shares of the images, in percent.
const MAKINGS: [(u64, Making); 5] = [
    (35, Making::Created),
    (35, Making::Registered),
    (10, Making::OfSecondVolume),
    (12, Making::Copied),
    (8, Making::Uploaded),
];

impl World {
    /// The default world with this many images, for measurements and demonstrations. They are from the five years
    /// before today, with more images in each year than in the year before. On one day, the same seed always gives the
    /// same world.
    ///
    /// All images are available, and owned by the account.
    /// - The weights of the drawn platforms: Linux 54 %, Windows 18 %, Red Hat Enterprise Linux 13 %, with SQL Server
    ///   7 %. SUSE Linux has 5 %, Red Hat Enterprise Linux with HA 2 %, and Ubuntu Pro 1 %. Uploads are always Linux,
    ///   which raises Linux to about 58 %.
    /// - 35 % are created by `CreateImage`, 35 % by `RegisterImage` from an instance's root volume, 10 % by
    ///   `RegisterImage` from a helper's second volume, 12 % by `CopyImage`, and 8 % are uploads.
    /// - About 2 % are expected to be billed as a paid platform but are billed as `Linux/UNIX`. About one in 300 has no
    ///   platform details. Both are only registered images and their copies.
    /// - 30 % have the tag `ami-billing-guard:expect`, which is always right. In one of ten cases, the root snapshot
    ///   has the tag instead.
    ///
    /// Half of the instances that images were created from still exist, with their volumes. So does one in ten helpers.
    /// There are a few Reserved Instances.
    pub fn populated(images: usize, seed: u64) -> World {
        let mut population = Population {
            world: World {
                // Worlds of other seeds have other ids.
                ids: seed << 32,
                ..World::default()
            },
            random: Random(seed),
            today: clock::now().with_time(NaiveTime::MIN).earliest(),
            sources: BTreeMap::new(),
            made: Vec::new(),
        };
        population.fill(images);
        population.world
    }

    /// The platform details that an image of [`World::populated`] is expected to have, according to its name. An image
    /// that lost its billing metadata has others.
    pub fn expected_details(name: &str) -> Option<&'static str> {
        let is_of =
            |platform: &&Platform| platform.names.iter().any(|begins| name.starts_with(begins));
        let platform = PLATFORMS.iter().find(is_of);
        platform.map(|platform| platform.details)
    }
}

/// A world under construction.
#[derive(Debug)]
struct Population {
    world: World,
    random: Random,
    today: Option<DateTime<Utc>>,
    /// Instances from which images are created, by platform details.
    sources: BTreeMap<&'static str, Vec<Source>>,
    /// Images that can be copied.
    made: Vec<Original>,
}

/// An instance that may no longer exist.
#[derive(Debug, Clone)]
struct Source {
    instance_id: String,
    image_id: String,
    volume_id: String,
}

#[derive(Debug, Clone)]
struct Original {
    image_id: String,
    snapshot_id: String,
    platform: &'static Platform,
    billing: SnapshotBilling,
}

impl Population {
    fn fill(&mut self, images: usize) {
        let mut ages: Vec<f64> = (0..images)
            .map(|_| self.random.fraction().powi(2) * DAYS)
            .collect();
        // The oldest first, so that a copy is younger than its original.
        ages.sort_by(|one, other| other.total_cmp(one));
        let today = self.today.unwrap_or_else(clock::now);
        for (number, age) in ages.into_iter().enumerate() {
            let made = today - TimeDelta::seconds((age * 86_400.0) as i64);
            self.make(number, made);
        }
        self.reserve();
    }

    fn make(&mut self, number: usize, made: DateTime<Utc>) {
        let making = self.random.by_share(&MAKINGS, |(share, _)| *share);
        let platform = self.random.by_share(&PLATFORMS, |platform| platform.share);
        match (making.map(|(_, making)| *making), platform) {
            (Some(Making::Created), Some(platform)) => self.create(number, made, platform),
            (Some(Making::Copied), Some(platform)) => match self.random.pick(&self.made).cloned() {
                Some(original) => self.copy(number, made, original),
                None => self.create(number, made, platform),
            },
            (Some(Making::Registered), Some(platform)) => {
                let volume_id = self.source(platform, made).volume_id;
                self.register(number, made, platform, volume_id);
            }
            (Some(Making::OfSecondVolume), Some(platform)) => {
                let volume_id = self.helper(made);
                self.register(number, made, platform, volume_id);
            }
            _ => self.register(number, made, &LINUX, "vol-ffffffff".into()),
        }
    }

    fn create(&mut self, number: usize, made: DateTime<Utc>, platform: &'static Platform) {
        let source = self.source(platform, made);
        let (image, snapshot) = self.pair(number, made, platform, known(platform));
        let image = Image {
            source_instance_id: Some(source.instance_id.clone()),
            source_image_id: Some(source.image_id),
            source_image_region: Some(self.world.region.clone()),
            ..image
        };
        let snapshot = Snapshot {
            description: format!(
                "Created by CreateImage({}) for {}",
                source.instance_id, image.id
            ),
            volume_id: source.volume_id,
            ..snapshot
        };
        self.add(image, snapshot, platform);
    }

    fn register(
        &mut self,
        number: usize,
        made: DateTime<Utc>,
        platform: &'static Platform,
        volume_id: String,
    ) {
        let billing = if self.random.one_of(ONE_EMPTY_OF) {
            SnapshotBilling::Empty
        } else if platform.expect != LINUX.expect && self.random.one_of(ONE_LOST_OF) {
            SnapshotBilling::Missing
        } else {
            known(platform)
        };
        let (image, snapshot) = self.pair(number, made, platform, billing);
        let snapshot = Snapshot {
            description: format!("Root volume of {}", image.name),
            volume_id,
            ..snapshot
        };
        self.add(image, snapshot, platform);
    }

    fn copy(&mut self, number: usize, made: DateTime<Utc>, original: Original) {
        let Original {
            image_id,
            snapshot_id,
            platform,
            billing,
        } = original;
        let (image, snapshot) = self.pair(number, made, platform, billing);
        let snapshot = Snapshot {
            description: format!(
                "Copied for DestinationAmi {} from SourceAmi {image_id} for SourceSnapshot {snapshot_id}. Task \
                 created on {}.",
                image.id,
                made.timestamp_millis()
            ),
            ..snapshot
        };
        let image = Image {
            source_image_id: Some(image_id),
            source_image_region: Some(self.world.region.clone()),
            ..image
        };
        self.add(image, snapshot, platform);
    }

    /// An image and its root snapshot, without an origin yet.
    fn pair(
        &mut self,
        number: usize,
        made: DateTime<Utc>,
        platform: &Platform,
        billing: SnapshotBilling,
    ) -> (Image, Snapshot) {
        let snapshot = Snapshot {
            start_time: made - TimeDelta::minutes(10),
            billing,
            ..Snapshot::new(self.world.fresh_id("snap"))
        };
        let (platform_details, usage_operation) = snapshot.billing.of_image();
        let device = root_device(platform);
        let arm = platform.expect == LINUX.expect && self.random.one_of(3);
        let begins = self.random.pick(&platform.names).copied();
        let name = format!(
            "{}-{}-build.{number}",
            begins.unwrap_or_default(),
            made.format("%Y%m%d")
        );
        let image = Image {
            image_location: format!("{}/{name}", self.world.account),
            name,
            creation_date: made,
            architecture: if arm { "arm64" } else { "x86_64" }.into(),
            root_device_name: Some(device.into()),
            block_devices: vec![BlockDevice::new(device, &snapshot.id)],
            platform: Image::platform_of(platform_details.as_deref()),
            platform_details,
            usage_operation,
            ..Image::new(self.world.fresh_id("ami"))
        };
        (image, snapshot)
    }

    fn add(&mut self, mut image: Image, mut snapshot: Snapshot, platform: &'static Platform) {
        if self.random.below(10) < 3 {
            let tags = if self.random.one_of(10) {
                &mut snapshot.tags
            } else {
                &mut image.tags
            };
            tags.insert(EXPECT.into(), platform.expect.into());
        }
        if let Some(team) = self.random.pick(&["platform", "data", "web", "erp"]) {
            image.tags.insert("Team".into(), (*team).into());
        }
        self.made.push(Original {
            image_id: image.id.clone(),
            snapshot_id: snapshot.id.clone(),
            platform,
            billing: snapshot.billing.clone(),
        });
        self.world.add_snapshot(snapshot);
        self.world.add_image(image);
    }

    /// An instance from which an image of this platform is created. One in three images has a new one.
    fn source(&mut self, platform: &'static Platform, made: DateTime<Utc>) -> Source {
        let known = self.sources.entry(platform.details).or_default();
        if !self.random.one_of(3)
            && let Some(source) = self.random.pick(known)
        {
            return source.clone();
        }
        let source = Source {
            instance_id: self.world.fresh_id("i"),
            image_id: self.world.fresh_id("ami"),
            volume_id: self.world.fresh_id("vol"),
        };
        known.push(source.clone());
        if self.random.one_of(2) {
            let launched = made - TimeDelta::hours(1);
            self.launch(platform, launched, &source, None);
        }
        source
    }

    /// The second volume of a new Linux instance.
    fn helper(&mut self, made: DateTime<Utc>) -> String {
        let second = self.world.fresh_id("vol");
        if self.random.one_of(10) {
            let helper = Source {
                instance_id: self.world.fresh_id("i"),
                image_id: self.world.fresh_id("ami"),
                volume_id: self.world.fresh_id("vol"),
            };
            let launched = made - TimeDelta::hours(1);
            self.launch(&LINUX, launched, &helper, Some(&second));
        }
        second
    }

    /// Adds an instance and its volumes to the world.
    fn launch(
        &mut self,
        platform: &Platform,
        launched: DateTime<Utc>,
        source: &Source,
        second: Option<&String>,
    ) {
        let device = root_device(platform);
        let root = [(device, &source.volume_id)];
        let mut volumes = Vec::new();
        for (device, id) in root.into_iter().chain(second.map(|id| ("/dev/sdf", id))) {
            volumes.push(AttachedVolume {
                attach_time: launched,
                ..AttachedVolume::new(device, id)
            });
            self.world.add_volume(Volume {
                create_time: launched,
                ..Volume::new(id)
            });
        }
        self.world.add_instance(Instance {
            launch_time: launched,
            platform: Image::platform_of(Some(platform.details)),
            platform_details: Some(platform.details.into()),
            usage_operation: Some(platform.operation.into()),
            root_device_name: Some(device.into()),
            volumes,
            ..Instance::new(&source.instance_id, &source.image_id)
        });
    }

    fn reserve(&mut self) {
        for (number, (instance_type, count, product_description)) in [
            ("m5.large", 40, "Linux/UNIX"),
            ("c5.xlarge", 12, "Linux/UNIX (Amazon VPC)"),
            ("m5.xlarge", 25, "Windows"),
            ("r5.2xlarge", 4, "Windows with SQL Server Standard"),
            ("m5.2xlarge", 10, "Red Hat Enterprise Linux"),
            ("x2iedn.4xlarge", 2, "SUSE Linux"),
        ]
        .into_iter()
        .enumerate()
        {
            let id = format!("00000000-0000-4000-8000-{number:012x}");
            self.world.add_reserved_instances(ReservedInstances {
                instance_count: count,
                ..ReservedInstances::new(id, instance_type, product_description)
            });
        }
    }
}

fn known(platform: &Platform) -> SnapshotBilling {
    SnapshotBilling::Known {
        platform_details: platform.details.into(),
        usage_operation: platform.operation.into(),
    }
}

fn root_device(platform: &Platform) -> &'static str {
    if platform.expect == LINUX.expect {
        "/dev/xvda"
    } else {
        "/dev/sda1"
    }
}

/// SplitMix64: small, and with the same numbers on every machine and in every version.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to just below 1.
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True with a probability of one in `many`.
    fn one_of(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    fn pick<'t, T>(&mut self, things: &'t [T]) -> Option<&'t T> {
        let many = u64::try_from(things.len()).ok().filter(|many| *many > 0)?;
        things.get(usize::try_from(self.below(many)).ok()?)
    }

    /// Draws one of the things. Their shares add up to a hundred.
    fn by_share<'t, T>(&mut self, things: &'t [T], share: impl Fn(&T) -> u64) -> Option<&'t T> {
        let drawn = self.below(100);
        let mut sum = 0;
        things.iter().find(|thing| {
            sum += share(thing);
            drawn < sum
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn percent(world: &World, such: impl Fn(&Image) -> bool) -> f64 {
        let found = world.images.values().filter(|image| such(image)).count();
        found as f64 * 100.0 / world.images.len() as f64
    }

    /// The snapshot of an image's root volume.
    fn root<'w>(world: &'w World, image: &Image) -> &'w Snapshot {
        &world.snapshots[image.snapshot_ids().next().unwrap()]
    }

    #[test]
    fn shares_make_a_hundred() {
        let platforms: u64 = PLATFORMS.iter().map(|platform| platform.share).sum();
        let makings: u64 = MAKINGS.iter().map(|(share, _)| share).sum();
        assert_eq!((platforms, makings), (100, 100));
    }

    #[test]
    fn the_images_have_the_shares_that_are_promised() {
        let world = World::populated(20_000, 7);
        assert_eq!(
            (world.images.len(), world.snapshots.len()),
            (20_000, 20_000)
        );
        let should_be = |image: &Image| World::expected_details(&image.name).unwrap();
        let lost = |image: &Image| {
            image
                .platform_details
                .as_deref()
                .is_some_and(|details| details != should_be(image))
        };
        let tagged = |image: &Image| {
            image.tags.contains_key(EXPECT) || root(&world, image).tags.contains_key(EXPECT)
        };
        let created = |image: &Image| image.source_instance_id.is_some();
        let copied = |image: &Image| !created(image) && image.source_image_id.is_some();
        for (what, share, least, most) in [
            ("lost", percent(&world, lost), 1.5, 2.5),
            (
                "empty",
                percent(&world, |image| image.platform_details.is_none()),
                0.1,
                0.5,
            ),
            (
                "Windows",
                percent(&world, |image| should_be(image) == "Windows"),
                15.0,
                19.0,
            ),
            ("created", percent(&world, created), 34.0, 36.0),
            ("copied", percent(&world, copied), 11.0, 13.0),
            ("tagged", percent(&world, tagged), 29.0, 31.0),
            (
                "without lineage",
                percent(&world, |image| {
                    root(&world, image).volume_id == "vol-ffffffff"
                }),
                19.0,
                21.0,
            ),
            (
                "whose volume is there",
                percent(&world, |image| {
                    world.volumes.contains_key(&root(&world, image).volume_id)
                }),
                33.0,
                39.0,
            ),
        ] {
            assert!((least..most).contains(&share), "{what}: {share} %");
        }
        for image in world.images.values().filter(|image| lost(image)) {
            assert_eq!(image.platform_details.as_deref(), Some("Linux/UNIX"));
            assert!(!created(image));
        }
    }

    #[test]
    fn all_fits_together_as_in_an_account() {
        let world = World::populated(2_000, 1);
        let names: BTreeSet<&String> = world.images.values().map(|image| &image.name).collect();
        assert_eq!(names.len(), 2_000);
        let now = clock::now();
        for image in world.images.values() {
            let age = now - image.creation_date;
            assert!(age >= TimeDelta::zero() && age <= TimeDelta::days(5 * 365 + 1));
            let snapshot = root(&world, image);
            assert!(snapshot.start_time < image.creation_date);
            let (details, operation) = snapshot.billing.of_image();
            assert_eq!(
                (&image.platform_details, &image.usage_operation),
                (&details, &operation)
            );
        }
        for snapshot in world.snapshots.values() {
            let mut attached = world
                .instances
                .values()
                .flat_map(|instance| &instance.volumes);
            if let Some(attached) =
                attached.find(|attached| attached.volume_id == snapshot.volume_id)
            {
                assert!(attached.attach_time < snapshot.start_time);
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_world_and_another_one_another() {
        let images = |seed| format!("{:?}", World::populated(300, seed).images);
        assert_eq!(images(1), images(1));
        assert_ne!(images(1), images(2));
        assert!(World::populated(0, 1).images.is_empty());
    }
}
