//! What an image should bill, who says so, and what is done about it: the whole flow against the
//! simulator, as a table that reads as a specification.

use std::collections::BTreeSet;

use ami_billing_guard::billing::Platforms;
use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use sim::{AttachedVolume, BlockDevice, Volume};

use super::*;

const SNAPSHOT: &str = "snap-0a1b2c3d4e5f60001";
const VOLUME: &str = "vol-0a1b2c3d4e5f60001";
const INSTANCE: &str = "i-0123456789abcdef0";
/// What the volume was made from.
const PARENT_SNAPSHOT: &str = "snap-0a1b2c3d4e5f60002";
const OTHER_AMI: &str = "ami-0a1b2c3d4e5f60002";
/// Of nothing that matters.
const OTHER_SNAPSHOT: &str = "snap-0a1b2c3d4e5f60009";
const OTHERS: &str = "210987654321";
const AMAZON: &str = "801119661308";

const RULE: &str = "[[expect]]\nname = '*'\nplatform = 'Windows'\n";
const LINUX_RULE: &str = "[[expect]]\nname = '*'\nplatform = 'Linux'\n";
const EXEMPT: &str = "[[exempt]]\nname = 'ami-*'\nreason = 'on purpose'\n";
const DEFAULT: &str = "[defaults]\nexpect = 'Windows'\n";
/// Whatever says so may discard.
const ALL_MAY: &str = "[discard]\nfrom = ['declared', 'lineage', 'disk']\n";
const LINEAGE_MAY: &str = "[discard]\nfrom = ['declared', 'lineage']\n";

/// A world around one registration: an image of this account that is billed as `Linux/UNIX`, six minutes
/// old, on a snapshot that comes from nowhere.
#[derive(Clone, Debug)]
pub(super) struct Given {
    world: World,
    event: Value,
    faults: Vec<Fault>,
}

pub(super) fn given() -> Given {
    let mut world = World::default();
    let mut image = Image::new(AMI);
    image.creation_date = minutes_ago(6);
    world.add_image(image);
    let mut snapshot = Snapshot::new(SNAPSHOT);
    snapshot.start_time = minutes_ago(20);
    world.add_snapshot(snapshot);
    Given {
        world,
        event: registered(),
        faults: Vec::new(),
    }
}

fn minutes_ago(minutes: i64) -> DateTime<Utc> {
    now() - TimeDelta::minutes(minutes)
}

/// EC2's two fields for a platform.
fn fields(details: &str) -> (Option<String>, Option<String>) {
    let operation = match details {
        "" => return (None, None),
        "Linux/UNIX" => "RunInstances",
        "Windows" => "RunInstances:0002",
        "Windows BYOL" => "RunInstances:0800",
        "Windows with SQL Server Web" => "RunInstances:0202",
        "Red Hat Enterprise Linux" => "RunInstances:0010",
        "Red Hat Enterprise Linux with High Availability" => "RunInstances:1010",
        "Red Hat BYOL Linux" => "RunInstances:00g0",
        "SUSE Linux" => "RunInstances:000g",
        "Ubuntu Pro Linux" => "RunInstances:0g00",
        other => panic!("{other}"),
    };
    (Some(details.into()), Some(operation.into()))
}

impl Given {
    pub(super) fn with(mut self, change: impl FnOnce(&mut World)) -> Given {
        change(&mut self.world);
        self
    }

    pub(super) fn image(self, change: impl FnOnce(&mut Image)) -> Given {
        self.with(|world| change(world.images.get_mut(AMI).unwrap()))
    }

    fn snapshot(self, change: impl FnOnce(&mut Snapshot)) -> Given {
        self.with(|world| change(world.snapshots.get_mut(SNAPSHOT).unwrap()))
    }

    pub(super) fn instance(self, change: impl FnOnce(&mut Instance)) -> Given {
        self.with(|world| change(world.instances.get_mut(INSTANCE).unwrap()))
    }

    pub(super) fn volume(self, change: impl FnOnce(&mut AttachedVolume)) -> Given {
        self.instance(|instance| change(&mut instance.volumes[0]))
    }

    pub(super) fn bills(self, details: &str) -> Given {
        self.image(|image| (image.platform_details, image.usage_operation) = fields(details))
    }

    /// EC2 gives other platform details than any that is known.
    fn with_unknown_details(self) -> Given {
        self.image(|image| image.platform_details = Some("Plan 9".into()))
    }

    fn sold(self, codes: &[&str]) -> Given {
        self.image(|image| image.product_codes = codes.iter().map(|it| it.to_string()).collect())
    }

    pub(super) fn tag(self, expectation: &str) -> Given {
        self.image(|image| {
            image.tags.insert(EXPECT.into(), expectation.into());
        })
    }

    fn snapshot_tag(self, expectation: &str) -> Given {
        self.snapshot(|snapshot| {
            snapshot.tags.insert(EXPECT.into(), expectation.into());
        })
    }

    /// The snapshot was taken of the root volume of an instance that bills this, and still runs.
    pub(super) fn taken_of_root_of(self, details: &str) -> Given {
        let mut volume = AttachedVolume::new("/dev/xvda", VOLUME);
        volume.attach_time = minutes_ago(60);
        let mut instance = Instance::new(INSTANCE, OTHER_AMI);
        instance.launch_time = minutes_ago(60);
        (instance.platform_details, instance.usage_operation) = fields(details);
        instance.volumes = vec![volume];
        self.snapshot(|snapshot| snapshot.volume_id = VOLUME.into())
            .with(|world| world.add_instance(instance))
    }

    /// The snapshot was taken of a volume that stands alone.
    pub(super) fn taken_of_volume(self, made_from: Option<&str>) -> Given {
        let mut volume = Volume::new(VOLUME);
        volume.snapshot_id = made_from.map(str::to_owned);
        self.snapshot(|snapshot| snapshot.volume_id = VOLUME.into())
            .with(|world| world.add_volume(volume))
    }

    /// Another image of this account, that bills this.
    pub(super) fn other_image(
        self,
        snapshot: &str,
        details: &str,
        change: impl FnOnce(&mut Image),
    ) -> Given {
        let mut image = Image::new(OTHER_AMI);
        image.block_devices[0].snapshot_id = Some(snapshot.into());
        image.creation_date = minutes_ago(600);
        (image.platform_details, image.usage_operation) = fields(details);
        change(&mut image);
        self.with(|world| world.add_image(image))
    }

    /// The snapshot is a copy, as CopyImage describes it.
    fn copied(self) -> Given {
        self.snapshot(|snapshot| {
            snapshot.description = format!(
                "Copied for DestinationAmi {AMI} from SourceAmi {OTHER_AMI} for SourceSnapshot \
                 {PARENT_SNAPSHOT}. Task created on 1,763,000,000,000."
            );
        })
    }

    fn instance_store(self) -> Given {
        self.image(|image| {
            image.root_device_type = "instance-store".into();
            image.root_device_name = None;
            image.block_devices.clear();
        })
    }

    fn told_by_state_change(mut self) -> Given {
        self.event = became_available();
        self
    }

    fn asked_for(mut self, products: &[&str]) -> Given {
        let items: Vec<Value> = products
            .iter()
            .map(|code| json!({ "billingProduct": code }))
            .collect();
        self.event["detail"]["requestParameters"] =
            json!({ "billingProducts": { "items": items } });
        self
    }

    fn failing(mut self, action: &str) -> Given {
        self.faults
            .push(Fault::always(action, FaultKind::AccessDenied));
        self
    }

    /// Only the second look for images fails, the one that looks for others.
    fn failing_from(mut self, action: &str, n: usize) -> Given {
        self.faults
            .push(Fault::from_nth(action, n, FaultKind::AccessDenied));
        self
    }

    fn throttled(mut self, action: &str) -> Given {
        self.faults.push(Fault::always(action, FaultKind::Throttle));
        self
    }

    pub(super) async fn harness(self, policy: &str) -> (Harness, Value) {
        let mut policy = Policy::parse("policy.toml", &format!("version = 1\n{policy}")).unwrap();
        // Disks are the business of `disks`.
        policy.disk = Asked::Never;
        let settings = Settings {
            policy,
            ..Settings::default()
        };
        let harness = Harness::around(self.world, settings).await;
        for fault in self.faults {
            harness.inject(fault);
        }
        (harness, self.event)
    }

    pub(super) async fn run(self, policy: &str) -> (Harness, Value) {
        let (harness, event) = self.harness(policy).await;
        let record = match harness.give(event).await {
            Ok(record) => record,
            // It comes again; what is known now is on record.
            Err(Error::NotFoundOut { .. }) => harness.journal.lock().unwrap().pop().unwrap(),
            Err(error) => panic!("{error}"),
        };
        (harness, record)
    }
}

const EXPECT: &str = "ami-billing-guard:expect";

fn of_others(image: &mut Image) {
    image.owner = OTHERS.into();
    image.public = true;
}

fn of_amazon(image: &mut Image) {
    image.owner = AMAZON.into();
    image.owner_alias = Some("amazon".into());
    image.public = true;
}

fn shared_by_others(snapshot: &mut Snapshot) {
    snapshot.owner = OTHERS.into();
    snapshot.public = true;
}

/// A third image, on the snapshot in question, that CopyImage made of the other one.
fn copy_of_other_ami(world: &mut World) {
    let mut copy = world.images[AMI].clone();
    copy.id = "ami-0a1b2c3d4e5f60003".into();
    copy.source_image_id = Some(OTHER_AMI.into());
    world.add_image(copy);
}

fn has_its_root_elsewhere(instance: &mut Instance) {
    let mut root = AttachedVolume::new("/dev/sda1", "vol-0a1b2c3d4e5f60009");
    root.attach_time = minutes_ago(60);
    instance.root_device_name = Some("/dev/sda1".into());
    instance.volumes.push(root);
}

/// `mismatch/wrong by lineage: hold (inferred)` and the like.
pub(super) fn outcome(record: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut outcome = text(&record["verdict"]);
    if record["kind"].is_string() {
        outcome += &format!("/{}", text(&record["kind"]));
    }
    if record["expected"]["source"].is_string() {
        outcome += &format!(" by {}", text(&record["expected"]["source"]));
    }
    outcome += &format!(": {}", text(&record["action"]));
    let held: Vec<String> = record["held_by"]
        .as_array()
        .into_iter()
        .flatten()
        .map(text)
        .collect();
    if !held.is_empty() {
        outcome += &format!(" ({})", held.join(", "));
    }
    outcome
}

/// What a source said: its state, and the platforms that it named.
pub(super) fn said(record: &Value, source: &str) -> Vec<String> {
    let statements = record["evidence"].as_array().into_iter().flatten();
    statements
        .filter(|statement| statement["source"] == source)
        .map(|statement| {
            let says = statement["says"].as_array().into_iter().flatten();
            let says: Vec<&str> = says.filter_map(Value::as_str).collect();
            format!(
                "{} {}",
                statement["state"].as_str().unwrap_or_default(),
                says.join("|")
            )
            .trim()
            .to_owned()
        })
        .collect()
}

pub(super) fn detail(record: &Value, source: &str) -> String {
    let statements = record["evidence"].as_array().into_iter().flatten();
    let details = statements
        .filter(|statement| statement["source"] == source)
        .filter_map(|statement| statement["detail"].as_str());
    details.collect::<Vec<_>>().join("\n")
}

/// What there is, the policy, and what follows: verdict, source, action and interlocks.
#[rustfmt::skip] // A row a scenario.
fn scenarios() -> Vec<(&'static str, Given, &'static str, &'static str)> {
    let windows = || given().taken_of_root_of("Windows");
    vec![
        // Nobody says anything.
        ("nothing is known", given(), "", "unverifiable: none"),
        ("no platform details", given().bills(""), "", "mismatch/empty: deregister"),
        ("only the default, and it agrees", given().bills("Windows"), DEFAULT, "verified by default: none"),
        ("only the default, and it does not", given(), DEFAULT, "mismatch/wrong by default: hold (inferred)"),
        // Tags.
        ("the tag agrees", given().bills("Windows").tag("Windows"), "", "verified by image-tag: none"),
        ("the tag names another OS", given().tag("Windows"), "", "mismatch/wrong by image-tag: deregister"),
        ("the tag names more", given().bills("Windows").tag("SQL"), "", "mismatch/missing by image-tag: deregister"),
        ("the tag names less", given().bills("Windows with SQL Server Web").tag("Windows"), "", "mismatch/extra by image-tag: alert"),
        ("one of several values is right", given().bills("Windows").tag("RedHat, windows"), "", "verified by image-tag: none"),
        ("the tag is a typing error", given().tag("Widnows"), "", "unverifiable: alert"),
        ("one of several values is a typing error", given().tag("Windows,RHEL"), "", "unverifiable: alert"),
        ("the tag is empty", given().tag(""), "", "unverifiable: alert"),
        ("a typing error is passed over for a rule, and holds", given().tag("RHEL"), RULE, "mismatch/wrong by policy: hold (no-platform)"),
        ("tags are not asked", given().tag("Windows"), "[evidence]\ntags = false", "unverifiable: none"),
        ("the snapshot's tag agrees", given().bills("Windows").snapshot_tag("Windows"), "", "verified by snapshot-tag: none"),
        ("the snapshot's tag does not", given().snapshot_tag("Windows"), "", "mismatch/wrong by snapshot-tag: deregister"),
        ("the image's tag outranks the snapshot's", given().tag("Linux").snapshot_tag("Windows"), "", "verified by image-tag: none"),
        ("the snapshot's tag outranks a rule", given().snapshot_tag("Linux"), RULE, "verified by snapshot-tag: none"),
        ("the snapshot's tag is a typing error", given().snapshot_tag("Win2022"), RULE, "mismatch/wrong by policy: hold (no-platform)"),
        // Rules.
        ("a rule agrees", given().bills("Windows"), RULE, "verified by policy: none"),
        ("a rule does not", given(), RULE, "mismatch/wrong by policy: deregister"),
        ("a tag outranks a rule", given().tag("Linux"), RULE, "verified by image-tag: none"),
        ("a rule outranks the default", given(), "[[expect]]\nname = 'ami*'\nplatform = 'Linux'\n[defaults]\nexpect = 'Windows'\n", "verified by policy: none"),
        ("no rule matches", given(), "[[expect]]\nname = 'win*'\nplatform = 'Windows'", "unverifiable: none"),
        ("the first rule that matches decides", given(), "[[expect]]\nname = 'ami-0a*'\nplatform = 'Linux'\n[[expect]]\nname = '*'\nplatform = 'Windows'", "verified by policy: none"),
        ("a rule by who registered", given(), "[[expect]]\nregistered_by = 'arn:aws:iam::*:user/builder'\nplatform = 'RedHat'", "mismatch/wrong by policy: deregister"),
        ("a rule by the snapshot's description", given().snapshot(|s| s.description = "nightly".into()), "[[expect]]\nsnapshot_description = 'night*'\nplatform = 'SUSE'", "mismatch/wrong by policy: deregister"),
        ("a rule by a tag", given().image(|i| { i.tags.insert("OS".into(), "rhel9".into()); }), "[[expect]]\ntag = { OS = 'rhel*' }\nplatform = 'RedHat'", "mismatch/wrong by policy: deregister"),
        // What EC2 really says.
        ("Ubuntu Pro, as EC2 spells it", given().bills("Ubuntu Pro Linux").tag("UbuntuPro"), "", "verified by image-tag: none"),
        ("Ubuntu Pro that is paid for without being expected", given().bills("Ubuntu Pro Linux").tag("Linux"), "", "mismatch/extra by image-tag: alert"),
        ("Red Hat's add-on, as EC2 spells it", given().bills("Red Hat Enterprise Linux with High Availability").tag("RedHatHa"), "", "verified by image-tag: none"),
        ("Red Hat's add-on that is paid for without being expected", given().bills("Red Hat Enterprise Linux with High Availability").tag("RedHat"), "", "mismatch/extra by image-tag: alert"),
        ("details that are not known, and the operation is right", given().bills("Windows").with_unknown_details().tag("Windows"), "", "verified by image-tag: none"),
        ("details that are not known, and the operation is wrong", given().with_unknown_details().tag("Windows"), "", "mismatch/wrong by image-tag: hold (unrecognised-details)"),
        ("details that are not known, and nobody says anything", given().with_unknown_details(), "", "unverifiable: none"),
        ("an instance with details that are not known is a witness by its operation", windows().instance(|i| i.platform_details = Some("Plan 9".into())), LINEAGE_MAY, "mismatch/wrong by lineage: hold (unrecognised-details)"),
        ("an image with details that are not known is one too", given().other_image(SNAPSHOT, "Windows", |i| i.platform_details = Some("Plan 9".into())), LINEAGE_MAY, "mismatch/wrong by lineage: hold (unrecognised-details)"),
        ("such a witness does not hold what a tag declares", windows().instance(|i| i.platform_details = Some("Plan 9".into())).tag("Windows"), "", "mismatch/wrong by image-tag: deregister"),
        ("an instance of Red Hat's without AWS's licence, and an image that is billed by a product code", given().taken_of_root_of("Red Hat BYOL Linux").sold(&["6cd5fxzrad0cu2j23p692xytz"]), ALL_MAY, "verified by lineage: none"),
        ("an instance with Red Hat's code, and an image that has a product code alone", given().taken_of_root_of("Red Hat Enterprise Linux").sold(&["c1660tvvac00j6legw97s9u1"]), ALL_MAY, "mismatch/wrong by lineage: hold (inferred)"),
        ("an instance of Ubuntu Pro, and an image that is billed by a product code", given().taken_of_root_of("Ubuntu Pro Linux").sold(&["47xbqns9xujfkkjt189a13aqe"]), ALL_MAY, "verified by lineage: none"),
        ("a Windows instance, and an image that has a product code", windows().sold(&["80sl0b83tc2gtrzbz6juy3kqn"]), ALL_MAY, "mismatch/wrong by lineage: deregister"),
        ("a Windows instance with SQL Server, and an image whose licences were converted", given().taken_of_root_of("Windows with SQL Server Web").bills("Windows BYOL"), ALL_MAY, "mismatch/missing by lineage: hold (inferred)"),
        // Product codes.
        ("a rule names the product codes, and they are there", given().sold(&["aacglxeowvn5hy8sznltowyqe"]).tag("Linux"), "[[expect]]\nname = '*'\nproduct_codes = ['aacglxeowvn5hy8sznltowyqe']", "verified by image-tag: none"),
        ("a product code was lost", given().tag("Linux"), "[[expect]]\nname = '*'\nproduct_codes = ['aacglxeowvn5hy8sznltowyqe']", "mismatch/missing by policy: deregister"),
        ("a product code was gained", given().sold(&["aacglxeowvn5hy8sznltowyqe"]).tag("Linux"), "[[expect]]\nname = '*'\nproduct_codes = []", "mismatch/extra by policy: alert"),
        ("a rule names product codes alone", given().sold(&["aacglxeowvn5hy8sznltowyqe"]), "[[expect]]\nname = '*'\nproduct_codes = ['aacglxeowvn5hy8sznltowyqe']", "unverifiable by policy: none"),
        ("whatever the case of their letters", given().sold(&["aacglxeowvn5hy8sznltowyqe"]).tag("Linux"), "[[expect]]\nproduct_code = 'AACGLXEOWVN5HY8SZNLTOWYQE'\nproduct_codes = ['AACGLXEOWVN5HY8SZNLTOWYQE']", "verified by image-tag: none"),
        ("and they were lost", given(), "[[expect]]\nname = '*'\nproduct_codes = ['aacglxeowvn5hy8sznltowyqe']", "mismatch/missing by policy: deregister"),
        ("none is expected, and nothing says what platform is", given(), "[[expect]]\nname = '*'\nproduct_codes = []", "unverifiable by policy: none"),
        ("one rule names the codes, the next one the platform", given().sold(&["aacglxeowvn5hy8sznltowyqe"]), "[[expect]]\nname = '*'\nproduct_codes = ['aacglxeowvn5hy8sznltowyqe']\n[[expect]]\nname = '*'\nplatform = 'Windows'", "mismatch/wrong by policy: deregister"),
        ("a rule for images that have one of these product codes", given().sold(&["aacglxeowvn5hy8sznltowyqe"]), "[[expect]]\nproduct_code = ['774F4FF8', 'aacglxeowvn5hy8sznltowyqe']\nplatform = 'RedHat'", "mismatch/wrong by policy: deregister"),
        ("and one for those that have another", given().sold(&["aacglxeowvn5hy8sznltowyqe"]), "[[expect]]\nproduct_code = '774F4FF8'\nplatform = 'RedHat'", "unverifiable: none"),
        ("an exemption by a product code", given().sold(&["aacglxeowvn5hy8sznltowyqe"]).tag("Windows"), "[[exempt]]\nproduct_codes = ['aacglxeowvn5hy8sznltowyqe']\nreason = 'r'", "exempt: none"),
        ("product codes that a rule in doubt names", given().tag("Linux").told_by_state_change(), "[[expect]]\nregistered_by = '*'\nproduct_codes = ['aacglxeowvn5hy8sznltowyqe']", "unverifiable by image-tag: none"),
        // The root snapshot's tags, in rules.
        ("a rule by the snapshot's tag", given().snapshot(|s| { s.tags.insert("Image".into(), "win-7".into()); }), "[[expect]]\nsnapshot_tag = { Image = 'win-*' }\nplatform = 'Windows'", "mismatch/wrong by policy: deregister"),
        ("a rule by another tag of the snapshot", given().snapshot(|s| { s.tags.insert("Image".into(), "rhel-7".into()); }), "[[expect]]\nsnapshot_tag = { Image = 'win-*' }\nplatform = 'Windows'", "unverifiable: none"),
        ("an image's tag is none of its snapshot's", given().image(|i| { i.tags.insert("Image".into(), "win-7".into()); }), "[[expect]]\nsnapshot_tag = { Image = 'win-*' }\nplatform = 'Windows'", "unverifiable: none"),
        ("an exemption by the snapshot's tag", given().tag("Windows").snapshot(|s| { s.tags.insert("Image".into(), "byol".into()); }), "[[exempt]]\nsnapshot_tag = { Image = 'byol' }\nreason = 'r'", "exempt: none"),
        ("an exemption asks for a snapshot's tags that can not be looked at", given().tag("Windows").failing("DescribeSnapshots"), "[[exempt]]\nsnapshot_tag = { Image = 'byol' }\nreason = 'r'", "mismatch/wrong by image-tag: hold (source-failed)"),
        ("the tags of a snapshot that others share", given().snapshot(|s| { shared_by_others(s); s.tags.insert("Image".into(), "win-7".into()); }), "[[expect]]\nsnapshot_tag = { Image = 'win-*' }\nplatform = 'Windows'", "unverifiable: none"),
        // The licence alone: License Manager converts it.
        ("a parent image with the licence included, and a child without", given().taken_of_volume(Some(PARENT_SNAPSHOT)).other_image(PARENT_SNAPSHOT, "Windows", |_| ()).bills("Windows BYOL"), ALL_MAY, "verified by lineage: none"),
        ("a parent image without the licence, and a child that pays for it", given().taken_of_volume(Some(PARENT_SNAPSHOT)).other_image(PARENT_SNAPSHOT, "Windows BYOL", |_| ()).bills("Windows"), ALL_MAY, "verified by lineage: none"),
        ("another image on the same snapshot with another licence", given().other_image(SNAPSHOT, "Red Hat Enterprise Linux", |_| ()).bills("Red Hat BYOL Linux"), ALL_MAY, "verified by lineage: none"),
        ("an instance says what it is billed as, and discards nothing for its licence", windows().bills("Windows BYOL"), ALL_MAY, "mismatch/missing by lineage: hold (inferred)"),
        ("a declared licence still counts", windows().bills("Windows BYOL").tag("Windows"), "", "mismatch/missing by image-tag: deregister"),
        ("a parent image still proves its operating system", given().taken_of_volume(Some(PARENT_SNAPSHOT)).other_image(PARENT_SNAPSHOT, "Windows", |_| ()), ALL_MAY, "mismatch/wrong by lineage: deregister"),
        // What the registration asked for.
        ("Red Hat's code and its add-on's were asked for", given().bills("Red Hat Enterprise Linux with High Availability").asked_for(&["bp-79a54010", "bp-6fa54006"]), "", "verified by lineage: none"),
        ("and the add-on is not billed", given().bills("Red Hat Enterprise Linux").asked_for(&["bp-79a54010", "bp-6fa54006"]), "", "mismatch/missing by lineage: hold (inferred)"),
        ("a code beside one that is not known", given().asked_for(&["bp-6ba54002", "bp-00000000"]), "", "mismatch/wrong by lineage: hold (inferred)"),
        ("what a code that is not known may stand for is nothing too much", given().bills("Windows with SQL Server Web").asked_for(&["bp-6ba54002", "bp-00000000"]), "", "verified by lineage: none"),
        ("SQL Server was asked for, and what a code that is not known may stand for", given().bills("Windows").asked_for(&["bp-6aa54003", "bp-00000000"]), "", "mismatch/missing by lineage: hold (inferred)"),
        ("SQL Server on whatever system", given().bills("Windows with SQL Server Web").asked_for(&["bp-65a5400c", "bp-00000000"]), "", "verified by lineage: none"),
        // Exemptions.
        ("a stripped RHEL on purpose", given().taken_of_root_of("Red Hat Enterprise Linux"), EXEMPT, "exempt: none"),
        ("RHCOS with the Windows code on purpose", given().bills("Windows").tag("Linux"), EXEMPT, "exempt: none"),
        ("RHCOS with the Windows code, declared by its tag", given().bills("Windows").tag("Windows").taken_of_root_of("Linux/UNIX"), "", "verified by image-tag: none"),
        ("an exemption covers no platform details too", given().bills(""), EXEMPT, "exempt: none"),
        ("an exemption for other images", given().tag("Windows"), "[[exempt]]\nname = '*-byol-*'\nreason = 'r'", "mismatch/wrong by image-tag: deregister"),
        ("an exemption by a description that there is not", given().tag("Windows"), "[[exempt]]\nsnapshot_description = '*'\nreason = 'r'", "mismatch/wrong by image-tag: deregister"),
        // Lineage: the instance.
        ("a Windows root volume restored from backup", windows(), "", "mismatch/wrong by lineage: hold (inferred)"),
        ("the same, and lineage may discard", windows(), LINEAGE_MAY, "mismatch/wrong by lineage: deregister"),
        ("the same, and the image bills something else that is paid", windows().bills("SUSE Linux"), LINEAGE_MAY, "mismatch/wrong by lineage: hold (inferred)"),
        ("the instance bills what the image does", windows().bills("Windows"), "", "verified by lineage: none"),
        ("the instance bills more", given().taken_of_root_of("Windows with SQL Server Web").bills("Windows"), LINEAGE_MAY, "mismatch/missing by lineage: deregister"),
        ("the instance bills less", windows().bills("Windows with SQL Server Web"), LINEAGE_MAY, "mismatch/extra by lineage: alert"),
        ("plain Linux proves nothing", given().taken_of_root_of("Linux/UNIX").bills("Windows"), "", "unverifiable: none"),
        ("a BYOL instance has a code too", given().taken_of_root_of("Windows BYOL"), "", "mismatch/wrong by lineage: hold (inferred)"),
        ("lineage outranks the default", windows(), "[defaults]\nexpect = 'Linux'", "mismatch/wrong by lineage: hold (inferred)"),
        ("a tag and the lineage agree", windows().tag("Windows"), "", "mismatch/wrong by image-tag: deregister"),
        ("a tag can not talk a Windows instance into Linux", windows().tag("Linux"), "", "conflict by image-tag: alert"),
        ("nor can a rule", windows(), LINUX_RULE, "conflict by policy: alert"),
        ("the same OS in more detail is no contradiction", given().taken_of_root_of("Red Hat Enterprise Linux with High Availability").bills("Red Hat Enterprise Linux").tag("RedHat"), "", "verified by image-tag: none"),
        ("Packer's ebssurrogate: a second volume of a helper", windows().volume(|v| v.device_name = "/dev/sdf".into()), "", "unverifiable: none"),
        ("two devices, and only RootDeviceName's is the root", windows().instance(has_its_root_elsewhere), "", "unverifiable: none"),
        ("a data volume of a Windows instance comes first in the image", windows().image(|i| i.block_devices = vec![BlockDevice::new("/dev/sdb", SNAPSHOT), BlockDevice::new("/dev/xvda", OTHER_SNAPSHOT)]).with(|w| w.add_snapshot(Snapshot::new(OTHER_SNAPSHOT))), "", "unverifiable: none"),
        ("the image and the instance name their root devices differently", windows().image(|i| { i.root_device_name = Some("/dev/sda1".into()); i.block_devices = vec![BlockDevice::new("/dev/xvda", OTHER_SNAPSHOT), BlockDevice::new("/dev/sda1", SNAPSHOT)]; }).with(|w| w.add_snapshot(Snapshot::new(OTHER_SNAPSHOT))), "", "mismatch/wrong by lineage: hold (inferred)"),
        ("the mapping names the disk, and RootDeviceName its partition", windows().image(|i| i.root_device_name = Some("/dev/xvda1".into())), "", "mismatch/wrong by lineage: hold (inferred)"),
        ("the same, and the snapshot's tag", given().snapshot_tag("Linux").image(|i| i.root_device_name = Some("/dev/xvda1".into())), RULE, "verified by snapshot-tag: none"),
        ("RootDeviceName names no mapping at all", windows().image(|i| i.root_device_name = Some("/dev/sdz".into())), RULE, "mismatch/wrong by policy: hold (source-failed)"),
        ("the same, and an exemption asks for the snapshot", windows().tag("SUSE").image(|i| i.root_device_name = Some("/dev/sdz".into())), "[[exempt]]\nsnapshot_description = '*'\nreason = 'r'", "mismatch/wrong by image-tag: hold (source-failed)"),
        ("attached only after the snapshot was taken", windows().volume(|v| v.attach_time = minutes_ago(10)), "", "unverifiable: none"),
        ("the instance is terminated", windows().instance(|i| i.state = "terminated".into()), "", "unverifiable: none"),
        ("the instance was turned into Windows since", windows().instance(|i| i.usage_operation_update_time = Some(minutes_ago(5))), "", "unverifiable: none"),
        ("the volume is deleted", given().snapshot(|s| s.volume_id = VOLUME.into()), "", "unverifiable: none"),
        ("the instance contradicts itself", windows().instance(|i| i.usage_operation = Some("RunInstances:0010".into())), "", "unverifiable: none"),
        ("a snapshot shared from another account", windows().snapshot(shared_by_others), "", "unverifiable: none"),
        ("another account's tag on a shared snapshot", given().snapshot_tag("Windows").snapshot(shared_by_others), "", "unverifiable: none"),
        ("lineage is never asked", windows(), "[evidence]\nlineage = 'never'", "unverifiable: none"),
        ("lineage when needed, and it is", windows(), "[evidence]\nlineage = 'when-needed'", "mismatch/wrong by lineage: hold (inferred)"),
        ("lineage when needed, and a discard would follow", windows().tag("SUSE"), "[evidence]\nlineage = 'when-needed'", "conflict by image-tag: alert"),
        // Lineage: other images.
        ("another image on the same snapshot", given().other_image(SNAPSHOT, "Windows", |_| ()), "", "mismatch/wrong by lineage: hold (inferred)"),
        ("another image on it as a data volume", given().other_image(OTHER_SNAPSHOT, "Windows", |i| i.block_devices.push(BlockDevice::new("/dev/sdb", SNAPSHOT))), "", "unverifiable: none"),
        ("another image on it that bills plain Linux", given().bills("Windows").other_image(SNAPSHOT, "Linux/UNIX", |_| ()), "", "unverifiable: none"),
        ("another account's image on it", given().other_image(SNAPSHOT, "Windows", of_others), "", "unverifiable: none"),
        ("two images on it that disagree", given().other_image(SNAPSHOT, "Windows", |_| ()).with(|w| { let mut third = w.images[OTHER_AMI].clone(); third.id = "ami-0a1b2c3d4e5f60003".into(); (third.platform_details, third.usage_operation) = fields("SUSE Linux"); w.add_image(third); }), "", "conflict by lineage: alert"),
        ("the volume was made from an image's snapshot", given().taken_of_volume(Some(PARENT_SNAPSHOT)).other_image(PARENT_SNAPSHOT, "Red Hat Enterprise Linux", |_| ()), "", "mismatch/wrong by lineage: hold (inferred)"),
        ("from that of one of Amazon's images", given().taken_of_volume(Some(PARENT_SNAPSHOT)).other_image(PARENT_SNAPSHOT, "Windows", of_amazon), "", "mismatch/wrong by lineage: hold (inferred)"),
        ("from that of an image of somebody nobody vouches for", given().taken_of_volume(Some(PARENT_SNAPSHOT)).other_image(PARENT_SNAPSHOT, "Windows", of_others), "", "unverifiable: none"),
        ("an empty volume, filled by hand", given().taken_of_volume(None), "", "unverifiable: none"),
        ("an image copied by CopyImage, that lost its code", given().copied().image(|i| i.source_image_id = Some(OTHER_AMI.into())).other_image(PARENT_SNAPSHOT, "Windows", |_| ()), "", "mismatch/wrong by lineage: hold (inferred, not-registered)"),
        ("an image copied from another Region", given().copied().image(|i| { i.source_image_id = Some(OTHER_AMI.into()); i.source_image_region = Some("us-east-1".into()); }).other_image(OTHER_SNAPSHOT, "Windows", |_| ()), "", "unverifiable: none"),
        ("registered from the snapshot of a copy that EC2 knows the source of", given().copied().other_image(PARENT_SNAPSHOT, "Windows", |_| ()).with(copy_of_other_ami), "", "mismatch/wrong by lineage: hold (inferred)"),
        ("a description alone, that nothing of the snapshot bears out", given().copied().other_image(PARENT_SNAPSHOT, "Windows", |_| ()), LINEAGE_MAY, "unverifiable: none"),
        ("a copy of another account's image", given().copied().image(|i| i.source_image_id = Some(OTHER_AMI.into())).other_image(PARENT_SNAPSHOT, "Windows", of_others), "", "unverifiable: none"),
        ("a copy of one of Amazon's", given().copied().image(|i| i.source_image_id = Some(OTHER_AMI.into())).other_image(PARENT_SNAPSHOT, "Windows", of_amazon), "", "mismatch/wrong by lineage: hold (inferred, not-registered)"),
        ("a description that lies about the copy's source", given().copied().other_image(OTHER_SNAPSHOT, "Windows", |_| ()), "", "unverifiable: none"),
        ("a description that lies about an image", given().snapshot(|s| { s.description = format!("Created by CreateImage({INSTANCE}) for {OTHER_AMI}") }).other_image(OTHER_SNAPSHOT, "Windows", |_| ()), "", "unverifiable: none"),
        ("a description that tells the truth about an image", given().snapshot(|s| { s.description = format!("Created by CreateImage({INSTANCE}) for {OTHER_AMI}") }).other_image(SNAPSHOT, "Windows", |_| ()), "", "mismatch/wrong by lineage: hold (inferred)"),
        // What the registration asked for.
        ("the request asked for the Windows code", given().asked_for(&["bp-6ba54002"]), "", "mismatch/wrong by lineage: hold (inferred)"),
        ("and got it", given().bills("Windows").asked_for(&["bp-6ba54002"]), "", "verified by lineage: none"),
        ("the request asked for a code that is not known", given().asked_for(&["bp-00000000"]), "", "unverifiable: none"),
        ("the request and the instance disagree", windows().asked_for(&["bp-6fa54006"]), "", "conflict by lineage: alert"),
        // Instance-store-backed images.
        ("an instance-store-backed image with a tag", given().instance_store().tag("Windows"), "", "mismatch/wrong by image-tag: deregister"),
        ("one with a rule", given().instance_store(), RULE, "mismatch/wrong by policy: deregister"),
        ("one with the default", given().instance_store(), DEFAULT, "mismatch/wrong by default: hold (inferred)"),
        ("one with nothing", given().instance_store(), "", "unverifiable: none"),
        // Failures: never a verdict, and no discard that a stronger source could forbid.
        ("the snapshot can not be looked at, and a tag decides", given().tag("Windows").failing("DescribeSnapshots"), "", "mismatch/wrong by image-tag: deregister"),
        ("the snapshot can not be looked at, and a rule decides", given().failing("DescribeSnapshots"), RULE, "mismatch/wrong by policy: hold (source-failed)"),
        ("the snapshot can not be looked at, and the rule agrees", given().failing("DescribeSnapshots").bills("Windows"), RULE, "verified by policy: none"),
        ("the snapshot can not be looked at, and nothing decides", given().failing("DescribeSnapshots"), "", "unverifiable: none"),
        ("an exemption asks for a snapshot that can not be looked at", given().tag("Windows").failing("DescribeSnapshots"), "[[exempt]]\nsnapshot_description = '*'\nreason = 'r'", "mismatch/wrong by image-tag: hold (source-failed)"),
        ("the volume can not be looked at", windows().failing("DescribeVolumes"), "", "unverifiable: none"),
        ("the volume can not be looked at for too many requests", windows().throttled("DescribeVolumes"), DEFAULT, "mismatch/wrong by default: hold (inferred, source-failed)"),
        ("the volume can not be looked at, and a weaker witness speaks", windows().failing("DescribeVolumes").other_image(SNAPSHOT, "Windows", |_| ()), LINEAGE_MAY, "mismatch/wrong by lineage: hold (source-failed)"),
        ("the source of a copy can not be looked at", given().copied().image(|i| i.source_image_id = Some(OTHER_AMI.into())).failing_from("DescribeImages", 3), DEFAULT, "mismatch/wrong by default: hold (inferred, not-registered, source-failed)"),
        ("the instance can not be looked at", windows().failing("DescribeInstances"), "", "unverifiable: none"),
        ("the other images can not be looked at", given().failing_from("DescribeImages", 2), "", "unverifiable: none"),
        ("lineage fails and the default decides", windows().failing("DescribeVolumes"), DEFAULT, "mismatch/wrong by default: hold (inferred, source-failed)"),
        ("a tag decides while lineage fails", windows().tag("Windows").failing("DescribeVolumes"), "", "mismatch/wrong by image-tag: deregister"),
        ("the instance can not be looked at, and a weaker witness speaks", given().taken_of_root_of("Windows").failing("DescribeInstances").other_image(SNAPSHOT, "Windows", |_| ()), LINEAGE_MAY, "mismatch/wrong by lineage: hold (source-failed)"),
        ("product codes can not be looked at", windows().failing("DescribeSnapshotAttribute"), LINEAGE_MAY, "mismatch/wrong by lineage: deregister"),
        // Who registered it is not always known.
        ("a state change, and the policy asks for services", given().tag("Windows").told_by_state_change(), "", "mismatch/wrong by image-tag: hold (identity-unknown)"),
        ("a state change, and nothing asks who it was", given().tag("Windows").told_by_state_change(), "[discard]\nservice_registered = 'discard'", "mismatch/wrong by image-tag: deregister"),
        ("a state change, and an exemption asks who it was", given().tag("Windows").told_by_state_change(), "[discard]\nservice_registered = 'discard'\n[[exempt]]\nregistered_by = '*'\nreason = 'r'", "mismatch/wrong by image-tag: hold (source-failed, identity-unknown)"),
        ("a state change, and a rule that a tag outranks asks", given().tag("Windows").told_by_state_change(), "[discard]\nservice_registered = 'discard'\n[[expect]]\nregistered_by = '*'\nplatform = 'Linux'", "mismatch/wrong by image-tag: deregister"),
    ]
}

#[tokio::test(crate = "crate::virtual_time")]
async fn the_scenarios() {
    let mut wrong = Vec::new();
    for (what, given, policy, expected) in scenarios() {
        let (harness, record) = given.run(policy).await;
        let outcome = outcome(&record);
        if outcome != expected {
            wrong.push(format!(
                "{what}:\n  expected {expected}\n  but it is {outcome}: {record}"
            ));
        }
        // What the record says was done is what the server saw.
        let discarded = harness.calls().contains(&"DeregisterImage".to_owned());
        assert_eq!(discarded, expected.ends_with(": deregister"), "{what}");
        assert_eq!(harness.image_stands(), !discarded, "{what}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(crate = "crate::virtual_time")]
async fn every_source_is_on_record_with_what_became_of_asking_it() {
    let states = |record: &Value| {
        ["image-tag", "snapshot-tag", "policy", "lineage", "disk"].map(|source| {
            let said = said(record, source);
            assert_eq!(said.len(), 1, "{source}: {said:?}");
            said[0].clone()
        })
    };
    let (_, record) = given().taken_of_root_of("Windows").run("").await;
    assert_eq!(
        states(&record),
        ["none", "none", "none", "found Windows", "skipped"]
    );

    let when_needed = "[evidence]\nlineage = 'when-needed'";
    let (_, record) = given().tag("Linux").run(when_needed).await;
    assert_eq!(
        states(&record),
        ["found Linux", "skipped", "none", "skipped", "skipped"]
    );

    let (_, record) = given().failing("DescribeSnapshots").run(RULE).await;
    assert_eq!(
        states(&record),
        ["none", "failed", "found Windows", "failed", "skipped"]
    );
    for source in ["snapshot-tag", "lineage"] {
        let detail = detail(&record, source);
        assert!(
            detail.contains("failed: access denied: ec2:DescribeSnapshots on *"),
            "{detail}"
        );
    }

    let (_, record) = given().instance_store().tag("RHEL").run("").await;
    assert_eq!(
        states(&record),
        [
            "invalid",
            "not-applicable",
            "none",
            "not-applicable",
            "not-applicable"
        ]
    );
    let reason = record["reason"].as_str().unwrap();
    assert!(
        reason.contains(
            "\"RHEL\", which is not a platform (did you mean RedHat?). Accepted: Linux, Windows,"
        ),
        "{reason}"
    );
}

#[tokio::test(crate = "crate::virtual_time")]
async fn the_lineage_says_which_way_it_went_or_where_it_ended() {
    for (given, words) in [
        (
            given().taken_of_root_of("Windows"),
            format!("{VOLUME} is the root volume of {INSTANCE}, which is billed as `Windows`"),
        ),
        (
            given()
                .taken_of_root_of("Windows")
                .volume(|volume| volume.device_name = "/dev/sdf".into()),
            format!("{VOLUME} is /dev/sdf of {INSTANCE}, not its root volume (/dev/xvda)"),
        ),
        (
            given().taken_of_root_of("Linux/UNIX"),
            format!(
                "{VOLUME} is the root volume of {INSTANCE}, which is billed as plain Linux, which proves nothing"
            ),
        ),
        (
            given().snapshot(|snapshot| snapshot.volume_id = VOLUME.into()),
            format!("{VOLUME} no longer exists"),
        ),
        (
            given().other_image(SNAPSHOT, "SUSE Linux", |_| ()),
            format!("{OTHER_AMI}, on the same root snapshot, is billed as `SUSE Linux`"),
        ),
        (
            given()
                .copied()
                .image(|image| image.source_image_id = Some(OTHER_AMI.into())),
            format!("this account cannot see {OTHER_AMI}, the source of the copy"),
        ),
        (
            given().snapshot(|snapshot| {
                snapshot.owner = OTHERS.into();
                snapshot.public = true;
            }),
            format!("{SNAPSHOT} belongs to {OTHERS}, not to this account"),
        ),
        (
            given().asked_for(&["bp-6ba54002", "bp-6aa54003"]),
            "the registration asked for bp-6aa54003, bp-6ba54002".to_owned(),
        ),
        (
            given()
                .taken_of_root_of("Windows")
                .failing("DescribeVolumes"),
            "failed: access denied: ec2:DescribeVolumes on *".to_owned(),
        ),
    ] {
        let (_, record) = given.run("").await;
        let detail = detail(&record, "lineage");
        assert!(detail.contains(&words), "{words}: {detail}");
    }
}

/// Where more images prove nothing than are named, the evidence says how many, and how to list them all.
#[tokio::test(crate = "crate::virtual_time")]
async fn regression_the_lineage_says_where_the_images_are_that_it_does_not_name() {
    let with_others = |number: usize| {
        let mut given = given();
        for id in 10..10 + number {
            given = given.other_image(SNAPSHOT, "Linux/UNIX", |image| {
                image.id = format!("ami-0a1b2c3d4e5f600{id}");
            });
        }
        given
    };
    let named = |id: usize| {
        format!(
            "ami-0a1b2c3d4e5f600{id}, on the same root snapshot, is billed as plain Linux, which proves nothing"
        )
    };
    let (_, record) = with_others(5).run("").await;
    let all: Vec<String> = (10..15).map(named).collect();
    assert_eq!(detail(&record, "lineage"), all.join("; "));

    let (_, record) = with_others(7).tag("Windows").run("").await;
    let words = format!(
        "7 images on {SNAPSHOT} prove nothing, and 5 of them are named here; `aws ec2 describe-images --region \
         eu-west-1 --filters Name=block-device-mapping.snapshot-id,Values={SNAPSHOT}` lists all"
    );
    let all: Vec<String> = std::iter::once(words.clone())
        .chain((10..15).map(named))
        .collect();
    assert_eq!(detail(&record, "lineage"), all.join("; "));

    // Images on the snapshot that the volume was made from are among them.
    let mut parents = with_others(4).taken_of_volume(Some(PARENT_SNAPSHOT));
    for id in 20..22 {
        parents = parents.other_image(PARENT_SNAPSHOT, "Linux/UNIX", |image| {
            image.id = format!("ami-0a1b2c3d4e5f600{id}");
        });
    }
    let (_, record) = parents.run("").await;
    let words = format!(
        "6 images on {SNAPSHOT} or {PARENT_SNAPSHOT} prove nothing, and 5 of them are named here; `aws ec2 \
         describe-images --region eu-west-1 --filters \
         Name=block-device-mapping.snapshot-id,Values={SNAPSHOT},{PARENT_SNAPSHOT}` lists all; "
    );
    assert!(detail(&record, "lineage").contains(&words), "{record}");
}

#[tokio::test(crate = "crate::virtual_time")]
async fn product_codes_that_were_lost_or_came_from_nowhere_are_part_of_the_evidence() {
    let code = || vec!["abcdef0123456789abcdef012".to_owned()];
    for (of_snapshot, of_image, words) in [
        (
            code(),
            vec![],
            Some("product codes are abcdef0123456789abcdef012, and the image's are none"),
        ),
        (
            vec![],
            code(),
            Some("product codes are none, and the image's are abcdef0123456789abcdef012"),
        ),
        (code(), code(), None),
        (vec![], vec![], None),
    ] {
        let (_, record) = given()
            .taken_of_root_of("Windows")
            .snapshot(|snapshot| snapshot.product_codes = of_snapshot)
            .image(|image| image.product_codes = of_image)
            .run("")
            .await;
        let detail = detail(&record, "lineage");
        match words {
            Some(words) => assert!(detail.contains(words), "{detail}"),
            None => assert!(!detail.contains("product codes"), "{detail}"),
        }
    }
    let (_, record) = given()
        .taken_of_root_of("Windows")
        .failing("DescribeSnapshotAttribute")
        .run("")
        .await;
    let detail = detail(&record, "lineage");
    assert!(
        detail.contains(
            "could not compare product codes: access denied: ec2:DescribeSnapshotAttribute"
        ),
        "{detail}"
    );
}

/// The calls up to the verdict, for each way through the lineage.
#[tokio::test(crate = "crate::virtual_time")]
async fn looking_costs_so_many_calls() {
    let windows = || given().taken_of_root_of("Windows");
    let tagged = |given: Given| given.bills("Windows").tag("Windows");
    let (images, snapshots) = ("DescribeImages", "DescribeSnapshots");
    let (volumes, instances) = ("DescribeVolumes", "DescribeInstances");
    let codes = "DescribeSnapshotAttribute";
    let when_needed = "[evidence]\nlineage = 'when-needed'\n";
    let never = "[evidence]\nlineage = 'never'\n";
    let detached = || {
        given().taken_of_volume(Some(PARENT_SNAPSHOT)).other_image(
            PARENT_SNAPSHOT,
            "Windows",
            |_| (),
        )
    };
    let plain = || {
        given()
            .taken_of_root_of("Linux/UNIX")
            .volume(|volume| volume.snapshot_id = Some(PARENT_SNAPSHOT.into()))
    };
    let copied = || {
        given()
            .copied()
            .image(|image| image.source_image_id = Some(OTHER_AMI.into()))
            .other_image(PARENT_SNAPSHOT, "Windows", |_| ())
    };
    for (what, given, policy, calls) in [
        (
            "when needed, verified by its tag",
            tagged(windows()),
            when_needed,
            vec![images],
        ),
        (
            "when needed, verified by a rule",
            windows().bills("Windows"),
            &format!("{when_needed}{RULE}") as &str,
            vec![images, snapshots],
        ),
        ("never, no tag", windows(), never, vec![images, snapshots]),
        ("exempt", windows(), EXEMPT, vec![images]),
        ("instance store", given().instance_store(), "", vec![images]),
        (
            "always, verified by its tag, and the instance is there",
            tagged(windows()),
            "",
            vec![images, snapshots, volumes, instances],
        ),
        (
            "always, verified by its tag, and the instance proves nothing",
            tagged(plain()),
            "",
            vec![
                images, snapshots, volumes, instances, images, images, images,
            ],
        ),
        (
            "always, verified by its tag, and the volume is detached",
            tagged(detached()),
            "",
            vec![images, snapshots, volumes, images],
        ),
        (
            "always, verified by its tag, and the volume is gone",
            tagged(given().snapshot(|s| s.volume_id = VOLUME.into())),
            "",
            vec![images, snapshots, volumes, images],
        ),
        (
            "always, verified by its tag, a copy",
            tagged(copied()),
            "",
            vec![images, snapshots, images, images],
        ),
        (
            "untagged, the instance is there",
            windows().bills("Windows"),
            "",
            vec![images, snapshots, volumes, instances],
        ),
        (
            "untagged, and the instance proves nothing: the most there are",
            plain(),
            "",
            vec![
                images, snapshots, volumes, instances, images, images, images,
            ],
        ),
        (
            "untagged, a copy that is wrong",
            copied(),
            "",
            vec![images, snapshots, images, images, codes],
        ),
        (
            "untagged, of another account",
            given().snapshot(|s| {
                s.owner = OTHERS.into();
                s.public = true;
            }),
            "",
            vec![images, snapshots],
        ),
    ] {
        let (harness, _) = given.run(policy).await;
        let mut called = harness.calls();
        called.retain(|call| call.starts_with("Describe") && !AROUND.contains(&call.as_str()));
        let mut expected = calls.clone();
        // What does not depend on each other is asked side by side, in no order.
        called.sort();
        expected.sort();
        assert_eq!(called, expected, "{what}");
        assert!(called.len() <= 7);
        let mut questions: Vec<_> = harness
            .sim
            .calls()
            .into_iter()
            .map(|call| call.params)
            .collect();
        let asked = questions.len();
        questions.sort();
        questions.dedup();
        assert_eq!(questions.len(), asked, "{what}: nothing is asked twice");
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_discard_reads_the_tags_again_and_walks_no_second_time() {
    let (harness, record) = given()
        .taken_of_root_of("Windows")
        .snapshot_tag("Windows")
        .run("")
        .await;
    assert_eq!(record["outcome"], "done");
    let calls = harness.calls();
    let acts = calls.iter().position(|call| call == "CreateTags").unwrap();
    let mut before = calls[..acts].to_vec();
    before.retain(|call| !AROUND.contains(&call.as_str()));
    before.sort();
    assert_eq!(
        before,
        [
            "DescribeImages",
            "DescribeInstances",
            "DescribeSnapshotAttribute",
            "DescribeSnapshots",
            "DescribeVolumes"
        ]
    );
    assert_eq!(
        calls[acts..],
        [
            "CreateTags",
            "DescribeImages",
            "DescribeSnapshots",
            AROUND[0],
            AROUND[1],
            AROUND[2],
            AROUND[3],
            "Publish",
            "DeregisterImage",
            "DescribeImages",
            "ListImagesInRecycleBin"
        ]
    );
}

/// With calls of `action` that do not come back in time.
fn slow(mut given: Given, action: &str) -> Given {
    let kind = FaultKind::Slow(Duration::from_secs(60));
    given.faults.push(Fault::always(action, kind));
    given
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_call_that_takes_too_long_has_failed_and_undoes_nothing_that_others_said() {
    let windows = || given().taken_of_root_of("Windows");
    let (volume, codes, contradiction) = tokio::join!(
        slow(windows(), "DescribeVolumes").run(""),
        slow(windows(), "DescribeSnapshotAttribute").run(""),
        slow(windows().tag("SUSE"), "DescribeSnapshotAttribute").run(""),
    );
    assert_eq!(outcome(&volume.1), "unverifiable: none");
    let why = detail(&volume.1, "lineage");
    assert!(why.contains("failed: no answer within 10 seconds"), "{why}");
    assert_eq!(
        outcome(&codes.1),
        "mismatch/wrong by lineage: hold (inferred)"
    );
    let why = detail(&codes.1, "lineage");
    assert!(
        why.contains("could not compare product codes: no answer within"),
        "{why}"
    );
    assert_eq!(outcome(&contradiction.1), "conflict by image-tag: alert");
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_why_an_exemption_is_in_doubt_is_on_record() {
    let policy = "[[exempt]]\nsnapshot_description = 'x*'\nreason = 'r'\n";
    let given = given().tag("Windows").failing("DescribeSnapshots");
    let (_, record) = given.run(policy).await;
    let detail = detail(&record, "policy");
    assert!(
        detail.contains("[[exempt]]; failed: policy.toml:2 (snapshot_description = \"x*\"): access denied: ec2:DescribeSnapshots"),
        "{detail}"
    );
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_lineage_that_failed_is_asked_again_before_the_act() {
    let mut given = given()
        .taken_of_root_of("Red Hat Enterprise Linux")
        .tag("Windows");
    let kind = FaultKind::AccessDenied;
    given.faults.push(Fault::nth("DescribeVolumes", 1, kind));
    let (harness, record) = given.run("").await;
    assert_eq!(outcome(&record), "conflict by image-tag: alert");
    assert!(harness.image_stands());
}

/// Runs the guard, and changes the world while `action` is under way.
async fn changed_during(
    given: Given,
    policy: &str,
    action: &str,
    change: impl FnOnce(&mut World),
) -> (Harness, Value) {
    let (harness, event) = given.harness(policy).await;
    let slow = FaultKind::Slow(Duration::from_millis(500));
    harness.inject(Fault::nth(action, 1, slow));
    let guard = Arc::clone(&harness.guard);
    let run = tokio::spawn(async move { guard.handle(event, in_a_minute()).await });
    let reached = |harness: &Harness| harness.calls().iter().any(|call| call == action);
    while !reached(&harness) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    change(&mut harness.sim.world());
    let record = json!(run.await.unwrap().unwrap());
    (harness, record)
}

fn set_tag(tags: &mut std::collections::BTreeMap<String, String>, expectation: &str) {
    tags.insert(EXPECT.into(), expectation.into());
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_tag_that_changes_between_judgement_and_act_counts_either_way() {
    let on_image = |expectation: &'static str| {
        move |world: &mut World| set_tag(&mut world.images.get_mut(AMI).unwrap().tags, expectation)
    };
    let on_snapshot = |expectation: &'static str| {
        move |world: &mut World| {
            set_tag(
                &mut world.snapshots.get_mut(SNAPSHOT).unwrap().tags,
                expectation,
            );
        }
    };
    let tagged = given().tag("Windows");
    let (harness, record) =
        changed_during(tagged.clone(), "", "CreateTags", on_image("Linux")).await;
    assert_eq!(outcome(&record), "verified by image-tag: none");
    assert!(harness.image_stands() && harness.alerts().is_empty());

    let (harness, record) = changed_during(tagged, "", "CreateTags", on_image("RHEL")).await;
    assert_eq!(outcome(&record), "unverifiable: alert");
    assert!(harness.image_stands());

    let (harness, record) = changed_during(
        given().snapshot_tag("Windows"),
        "",
        "CreateTags",
        on_snapshot("Linux"),
    )
    .await;
    assert_eq!(outcome(&record), "verified by snapshot-tag: none");
    assert!(harness.image_stands());

    // The other way: what comes after the look is seen by the look before the act.
    let (harness, record) = changed_during(given(), RULE, "CreateTags", on_image("SUSE")).await;
    assert_eq!(outcome(&record), "mismatch/wrong by image-tag: deregister");
    assert_eq!(harness.alerts()[0]["expected"]["platform"], json!(["SUSE"]));

    // And a tag set between the event and the look counts as if it had always been there.
    let (harness, record) =
        changed_during(given(), "", "DescribeSnapshots", on_image("Windows")).await;
    assert_eq!(outcome(&record), "unverifiable: none");
    let again = harness.record(registered()).await;
    assert_eq!(outcome(&again), "mismatch/wrong by image-tag: deregister");
}

#[tokio::test(crate = "crate::virtual_time")]
async fn an_exemption_or_a_rule_that_a_late_tag_brings_is_seen_before_the_act() {
    let policy = "[[exempt]]\ntag = { Purpose = 'byol' }\nreason = 'on purpose'\n";
    let (harness, record) = changed_during(given().tag("Windows"), policy, "CreateTags", |world| {
        let tags = &mut world.images.get_mut(AMI).unwrap().tags;
        tags.insert("Purpose".into(), "byol".into());
    })
    .await;
    assert_eq!(outcome(&record), "exempt: none");
    assert!(harness.image_stands());
    let tags = &harness.sim.world().images[AMI].tags;
    assert_eq!(tags["ami-billing-guard:discard"], "withdrawn");
}

#[tokio::test(crate = "crate::virtual_time")]
async fn the_alert_has_the_command_that_creates_the_image_anew_from_the_instance() {
    let given = given()
        .taken_of_root_of("Windows")
        .tag("Windows")
        .image(|image| {
            image.name = "win2022 'golden'".into();
            image.tags.insert("Team".into(), "data, \"west\"".into());
        });
    let (harness, record) = given.clone().run("").await;
    let command = "aws ec2 create-image --no-reboot --region eu-west-1 --instance-id i-0123456789abcdef0 --name \
                   'win2022 '\\''golden'\\''' --tag-specifications \
                   '[{\"ResourceType\":\"image\",\"Tags\":[{\"Key\":\"Team\",\"Value\":\"data, \
                   \\\"west\\\"\"},{\"Key\":\"ami-billing-guard:expect\",\"Value\":\"Windows\"}]}]'";
    assert_eq!(record["fix"][2], command);
    let letter = harness.sim.world().messages[0].body("email");
    assert!(
        letter.lines().any(|line| line.trim() == command),
        "{letter}"
    );

    // An instance that does not bill what the image should is no way to it.
    let (_, record) = given.tag("SQL").run("").await;
    let fix = record["fix"].to_string();
    assert!(
        fix.contains("run-instances") && !fix.contains("--instance-id i-"),
        "{fix}"
    );
    let words = "i-0123456789abcdef0, from whose root volume the snapshot was taken, is billed as `Windows`, so you \
                 cannot use it";
    assert!(fix.contains(words), "{fix}");
    // But an empty field is made right by whatever the instance bills.
    let (_, record) = super::expectations::given()
        .bills("")
        .taken_of_root_of("SUSE Linux")
        .run("")
        .await;
    assert!(record["fix"][2].as_str().unwrap().contains(INSTANCE));
}

#[tokio::test(crate = "crate::virtual_time")]
async fn the_alert_tells_what_each_source_said_and_where_it_stands() {
    let (harness, _) = given().taken_of_root_of("Windows").run(RULE).await;
    let letter = harness.mail(0);
    for words in [
        " policy Windows (policy.toml:2 (name = \"*\")) <- decides ",
        &format!(
            " lineage Windows ({VOLUME} is the root volume of {INSTANCE}, which is billed as `Windows`) "
        ),
    ] {
        assert!(letter.contains(words), "{words}\n{letter}");
    }
    // A source that names nothing is only in the record.
    assert!(!letter.contains("image-tag"), "{letter}");
}

#[tokio::test(crate = "crate::virtual_time")]
async fn the_alert_of_an_instance_store_backed_image_says_that_its_bundle_stays() {
    let (harness, record) = given().instance_store().tag("Windows").run("").await;
    assert_eq!(record["outcome"], "done");
    assert_eq!(record["undo"], Value::Null);
    let letter = harness.sim.world().messages[0].body("email");
    assert!(letter.contains("bundle in S3 stays"), "{letter}");
    assert!(!letter.contains("create-volume"), "{letter}");
}

const PLATFORMS: [&str; 6] = [
    "Linux/UNIX",
    "Windows",
    "Windows with SQL Server Web",
    "Red Hat Enterprise Linux",
    "SUSE Linux",
    "",
];

fn parent_image(details: &str) -> Image {
    let mut image = Image::new("ami-0a1b2c3d4e5f60004");
    image.block_devices[0].snapshot_id = Some(PARENT_SNAPSHOT.into());
    (image.platform_details, image.usage_operation) = fields(details);
    image
}

/// A world, and a policy, put together at random.
fn any_world() -> impl Strategy<Value = (Given, String, BTreeSet<&'static str>)> {
    let platform = || prop::sample::select(&PLATFORMS[..]);
    let code = || prop::sample::select(vec!["Linux", "Windows", "RedHat", "SUSE", "SQL", "RHEL"]);
    let rule = prop::sample::select(vec!["Linux", "Windows", "RedHat"]);
    let from = prop::sample::subsequence(vec!["declared", "lineage", "disk"], 0..=3);
    let asked = prop::sample::select(vec!["never", "when-needed", "always"]);
    let fails = prop::sample::select(vec![
        ("DescribeSnapshots", 1),
        ("DescribeSnapshots", 2),
        ("DescribeVolumes", 1),
        ("DescribeInstances", 1),
        ("DescribeImages", 2),
        ("DescribeSnapshotAttribute", 1),
    ]);
    let declared = (
        prop::option::of(code()),
        prop::option::weighted(0.3, code()),
        prop::option::weighted(0.3, rule),
        prop::option::weighted(0.2, code().prop_filter("a code", |code| *code != "RHEL")),
        prop::bool::weighted(0.1),
    );
    let observed = (
        prop::option::of(platform()),
        prop::option::weighted(0.3, platform()),
        prop::option::weighted(
            0.2,
            prop::sample::select(vec!["bp-6ba54002", "bp-6fa54006"]),
        ),
        prop::option::weighted(0.3, fails),
        prop::option::weighted(0.3, platform()),
    );
    (platform(), declared, observed, from, asked).prop_map(
        |(bills, declared, observed, from, asked)| {
            let (tag, snapshot_tag, rule, default, exempt) = declared;
            let (instance, twin, product, fails, parent) = observed;
            let mut given = given().bills(bills);
            if let Some(platform) = instance {
                given = given.taken_of_root_of(platform);
            }
            if let Some(platform) = twin {
                given = given.other_image(SNAPSHOT, platform, |_| ());
            }
            if let (Some(platform), Some(_)) = (parent, instance) {
                given = given
                    .volume(|volume| volume.snapshot_id = Some(PARENT_SNAPSHOT.into()))
                    .with(|world| world.add_image(parent_image(platform)));
            }
            given = tag.into_iter().fold(given, Given::tag);
            given = snapshot_tag.into_iter().fold(given, Given::snapshot_tag);
            given = product
                .iter()
                .fold(given, |given, code| given.asked_for(&[code]));
            if let Some((action, n)) = fails {
                given = given.failing_from(action, n);
            }
            let mut policy =
                format!("[evidence]\nlineage = '{asked}'\n[discard]\nfrom = {from:?}\n");
            if let Some(code) = default {
                policy += &format!("[defaults]\nexpect = '{code}'\n");
            }
            if let Some(code) = rule {
                policy += &format!("[[expect]]\nname = '*'\nplatform = '{code}'\n");
            }
            if exempt {
                policy += EXEMPT;
            }
            (given, policy, from.into_iter().collect())
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_discard_but_on_a_word_that_suffices_and_that_nothing_observed_contradicts(
        (given, policy, from) in any_world()
    ) {
        let runtime = virtual_time::runtime::Builder::new_current_thread().build().unwrap();
        let (harness, event) = runtime.block_on(given.harness(&policy));
        let Ok(record) = runtime.block_on(harness.give(event)) else {
            prop_assert!(harness.image_stands());
            return Ok(());
        };
        let discarded = !harness.image_stands();
        prop_assert_eq!(discarded, record["outcome"] == "done");
        if !discarded {
            return Ok(());
        }
        let platforms = |says: &Value| {
            let names = says.as_array().unwrap().iter();
            let names: Vec<&str> = names.map(|name| name.as_str().unwrap()).collect();
            Platforms::parse(names).unwrap()
        };
        prop_assert_eq!(&record["verdict"], "mismatch");
        prop_assert!(!policy.contains("[[exempt]]"));
        if record["kind"] == "empty" {
            return Ok(());
        }
        let needed = match record["expected"]["source"].as_str().unwrap() {
            "image-tag" | "snapshot-tag" | "policy" => "declared",
            "lineage" => "lineage",
            other => panic!("{other} decided a discard"),
        };
        prop_assert!(from.contains(needed), "{}", record);
        let expected = platforms(&record["expected"]["platform"]);
        let evidence = record["evidence"].as_array().unwrap();
        let deciding = evidence.iter().position(|statement| {
            statement["source"] == record["expected"]["source"] && statement["state"] == "found"
        });
        let stronger = &evidence[..deciding.unwrap()];
        prop_assert!(stronger.iter().all(|statement| statement["state"] != "failed"), "{}", record);
        for statement in evidence {
            if statement["source"] == "lineage" && statement["state"] == "found" {
                prop_assert!(expected.share_os(&platforms(&statement["says"])), "{}", record);
            }
        }
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_an_image_that_is_unverifiable_for_want_of_an_answer_comes_again() {
    // Nothing but the tag on the snapshot says what it should bill, and the snapshot can not be looked at.
    let throttled = Fault::always("DescribeSnapshots", FaultKind::Throttle);
    let (harness, event) = given().snapshot_tag("Windows").harness("").await;
    harness.inject(throttled);
    let error = harness.give(event.clone()).await.unwrap_err();
    assert_eq!(error.error_type(), "NotFoundOut", "{error}");
    harness.sim.heal();
    assert_eq!(harness.record(event).await["outcome"], "done");

    // The second look fails, after the image was marked.
    let (harness, event) = given().snapshot_tag("Windows").harness("").await;
    harness.inject(Fault::from_nth("DescribeSnapshots", 2, FaultKind::Throttle));
    harness.give(event.clone()).await.unwrap_err();
    harness.sim.heal();
    assert_eq!(harness.record(event).await["outcome"], "done");

    // A denial does not pass by itself.
    let (harness, event) = given().snapshot_tag("Windows").harness("").await;
    harness.inject(Fault::always("DescribeSnapshots", FaultKind::AccessDenied));
    assert_eq!(harness.record(event).await["verdict"], "unverifiable");
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_a_discard_that_a_throttled_source_holds_comes_again() {
    let (harness, event) = given().taken_of_root_of("Windows").harness(RULE).await;
    harness.inject(Fault::always("DescribeSnapshots", FaultKind::Throttle));
    let error = harness.give(event.clone()).await.unwrap_err();
    assert_eq!(error.error_type(), "NotFoundOut", "{error}");
    let last = harness.journal.lock().unwrap().last().unwrap().clone();
    assert_eq!(last["held_by"], json!(["source-failed"]));
    harness.sim.heal();
    assert_eq!(harness.record(event).await["outcome"], "done");
}
