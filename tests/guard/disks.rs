//! What is on the root snapshot, as evidence: the whole flow against the simulator, which serves the corpus's disks
//! block by block.

use std::path::{Path, PathBuf};
use tokio::time::Instant;

use sim::{Call, Limit};

use super::corpus::packed;
use super::expectations::{detail, outcome, said};
use super::*;

const SNAPSHOT: &str = "snap-0a1b2c3d4e5f60001";
/// Whatever says so may discard.
const ALL_MAY: &str = "[discard]\nfrom = ['declared', 'lineage', 'disk']\n";
const DISK_MAY: &str = "[discard]\nfrom = ['declared', 'disk']\n";
const KEY: &str = "arn:aws:kms:eu-west-1:123456789012:key/0b3e1c4a-5d6f-4a7b-8c9d-0e1f2a3b4c5d";

/// A disk of the corpus, as a file.
fn disk(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.img"));
    packed::unpacked(name, &path);
    path
}

/// An image of this account, six minutes old, on a snapshot that comes from nowhere and has this disk.
pub(super) fn world(name: &str, (details, operation): (&str, &str)) -> World {
    let mut world = World::default();
    let mut image = billing(image(), details, operation);
    image.creation_date = now() - TimeDelta::minutes(6);
    world.add_image(image);
    world.add_snapshot(Snapshot::of_disk(SNAPSHOT, disk(name)).unwrap());
    world
}

pub(super) fn tagged_world(name: &str, bills: (&str, &str), expectation: &str) -> World {
    with_tag(world(name, bills), expectation)
}

fn with_tag(mut world: World, expectation: &str) -> World {
    let image = world.images.get_mut(AMI).unwrap();
    image
        .tags
        .insert("ami-billing-guard:expect".into(), expectation.into());
    world
}

pub(super) const LINUX: (&str, &str) = ("Linux/UNIX", "RunInstances");
const RED_HAT: (&str, &str) = ("Red Hat Enterprise Linux", "RunInstances:0010");
const RED_HAT_BYOL: (&str, &str) = ("Red Hat BYOL Linux", "RunInstances:00g0");
const SUSE: (&str, &str) = ("SUSE Linux", "RunInstances:000g");
const WINDOWS: (&str, &str) = ("Windows", "RunInstances:0002");
const WINDOWS_BYOL: (&str, &str) = ("Windows BYOL", "RunInstances:0800");
const WINDOWS_STANDARD: (&str, &str) = ("Windows with SQL Server Standard", "RunInstances:0006");
const CONFIRM: &str = "[discard]\nconfirm = 'observed'\n";

async fn harness(world: World, policy: &str) -> Harness {
    let policy = Policy::parse("policy.toml", &format!("version = 1\n{policy}")).unwrap();
    let settings = Settings {
        policy,
        ..Settings::default()
    };
    Harness::around(world, settings).await
}

/// Which blocks were read, each as often as it was.
fn blocks_read(harness: &Harness) -> Vec<u64> {
    let calls = harness.sim.calls();
    let mut blocks: Vec<u64> = calls
        .iter()
        .filter_map(Call::block)
        .map(|(_, block)| block)
        .collect();
    blocks.sort_unstable();
    blocks
}

fn asked_for_blocks(harness: &Harness) -> bool {
    harness
        .calls()
        .iter()
        .any(|call| call.ends_with("SnapshotBlocks"))
}

fn why(record: &Value) -> String {
    let detail = detail(record, "disk");
    let why = detail.split_once("; failed: ").map(|(_, why)| why);
    why.unwrap_or_default().to_owned()
}

#[tokio::test(crate = "crate::virtual_time")]
async fn the_scenarios() {
    let when_needed = "[evidence]\ndisk = 'when-needed'\n";
    let rhel = "rhel9-rhui";
    let windows = "windows2022";
    let sold = |mut world: World| {
        let image = world.images.get_mut(AMI).unwrap();
        image.product_codes = vec!["aacglxeowvn5hy8sznltowyqe".into()];
        world
    };
    #[rustfmt::skip]
    let scenarios = [
        // nobody else says anything
        ("a Red Hat with AWS's update servers bills it", world(rhel, RED_HAT), "", "verified by disk: none"),
        ("it lost its code", world(rhel, LINUX), "", "mismatch/wrong by disk: hold (inferred)"),
        ("it lost its code, and the disk's word suffices", world(rhel, LINUX), DISK_MAY, "mismatch/wrong by disk: deregister"),
        ("a Red Hat with a product code, which may bill it or a vendor's product on it", sold(world(rhel, LINUX)), DISK_MAY, "unverifiable: none"),
        ("a Red Hat with a product code beside its own", sold(world(rhel, RED_HAT)), DISK_MAY, "verified by disk: none"),
        ("a Windows that the Marketplace sells", sold(world(windows, LINUX)), DISK_MAY, "mismatch/wrong by disk: deregister"),
        ("another system hidden beside the one that shows", world("hidden-by-fat", LINUX), DISK_MAY, "unverifiable: none"),
        ("a subscription of its own", world("rhel9-byol", LINUX), DISK_MAY, "verified by disk: none"),
        ("no sign of a licence: all that is legitimate is right", world("rhel10-no-sign", LINUX), DISK_MAY, "verified by disk: none"),
        ("Debian", world("debian12", LINUX), DISK_MAY, "verified by disk: none"),
        ("Debian that bills Windows bills more: never discarded", world("debian12", WINDOWS), DISK_MAY, "mismatch/wrong by disk: hold (inferred)"),
        ("Windows", world(windows, WINDOWS), "", "verified by disk: none"),
        ("Windows that lost its code", world(windows, LINUX), DISK_MAY, "mismatch/wrong by disk: deregister"),
        ("Windows whose SQL Server may be anybody's", world("windows2022-sql-standard", WINDOWS), DISK_MAY, "verified by disk: none"),
        ("a disk whose signs contradict each other", world("it-lies", LINUX), DISK_MAY, "unverifiable: none"),
        ("an empty disk", world("all-zeros", LINUX), DISK_MAY, "unverifiable: none"),
        ("the policy's default, where the disk says nothing", world("all-zeros", LINUX), "[defaults]\nexpect = 'Windows'", "mismatch/wrong by default: hold (inferred, source-failed)"),
        // a person says something
        ("a tag that the disk bears out", with_tag(world(windows, LINUX), "Windows"), "", "mismatch/wrong by image-tag: deregister"),
        ("a tag that the disk contradicts, before a discard", with_tag(world("debian12", LINUX), "Windows"), "", "conflict by image-tag: alert"),
        ("a tag alone can not talk a Windows disk into Linux", with_tag(world(windows, LINUX), "Linux"), "", "conflict by image-tag: alert"),
        ("a tag that nothing contradicts is not looked behind", with_tag(world(windows, LINUX), "Linux"), when_needed, "verified by image-tag: none"),
        ("a tag, and a disk that can not be read", with_tag(world("all-zeros", LINUX), "Windows"), "", "mismatch/wrong by image-tag: deregister"),
        // the disk and EC2's billing are two witnesses against the tag
        ("a Windows without SQL Server, billed as it is", with_tag(world(windows, WINDOWS), "SQL"), "", "conflict by image-tag: alert"),
        ("a Debian, billed as it is", with_tag(world("debian12", LINUX), "UbuntuPro"), "", "conflict by image-tag: alert"),
        ("a Red Hat without high availability, billed as it is", with_tag(world(rhel, RED_HAT), "RedHatHa"), "", "conflict by image-tag: alert"),
        ("a Windows for desktops, billed as it is", with_tag(world("windows10-client", WINDOWS_BYOL), "Windows"), "", "conflict by image-tag: alert"),
        ("another edition of SQL Server, billed as it is", with_tag(world("windows2022-sql-standard", WINDOWS_STANDARD), "Windows with SQL Server Enterprise"), "", "conflict by image-tag: alert"),
        // it accepts both
        ("an edition of SQL Server that is on the disk, and not billed", with_tag(world("windows2022-sql-standard", WINDOWS), "Windows with SQL Server Standard"), "", "mismatch/missing by image-tag: deregister"),
        ("a licence that may be anybody's", with_tag(world(rhel, RED_HAT_BYOL), "RedHat"), "", "mismatch/missing by image-tag: deregister"),
        // a declaration that something observed must confirm
        ("a tag that the disk confirms", with_tag(world(windows, LINUX), "Windows"), CONFIRM, "mismatch/wrong by image-tag: deregister"),
        ("a tag that the disk does not deny, nor confirm", with_tag(world("windows2022-sql-standard", WINDOWS), "Windows with SQL Server Standard"), CONFIRM, "mismatch/missing by image-tag: hold (unconfirmed)"),
        ("a tag, and a disk that can not be read, where one must confirm the other", with_tag(world("all-zeros", LINUX), "Windows"), CONFIRM, "mismatch/wrong by image-tag: hold (unconfirmed)"),
        ("product codes, which nothing confirms", with_tag(world(windows, WINDOWS), "Windows"), &format!("{CONFIRM}[[expect]]\nname = '*'\nproduct_codes = ['aacglxeowvn5hy8sznltowyqe']\n"), "mismatch/missing by policy: hold (unconfirmed)"),
        ("no platform details, which need no confirmation", with_tag(world(windows, ("", "")), "Windows"), CONFIRM, "mismatch/empty by image-tag: deregister"),
        // a typing error is as no tag, but holds and alerts
        ("a tag that is a typing error, on an image that is right", with_tag(world(windows, WINDOWS), "Windws"), "", "verified by disk: alert"),
        ("a tag that is a typing error, on one that lost its code", with_tag(world(windows, LINUX), "Windws"), DISK_MAY, "mismatch/wrong by disk: hold (no-platform)"),
        ("a tag that is a typing error, on one without platform details", with_tag(world(windows, ("", "")), "Windws"), DISK_MAY, "mismatch/empty by disk: hold (no-platform)"),
        ("no platform details at all", world("debian12", ("", "")), "", "mismatch/empty by disk: deregister"),
        // products that are billed by a product code
        ("SLES for SAP with a product code", sold(world("sles15-sap-pay-as-you-go", LINUX)), ALL_MAY, "verified by disk: none"),
        ("SLES for SAP without one", world("sles15-sap-pay-as-you-go", LINUX), ALL_MAY, "mismatch/missing by disk: hold (inferred)"),
        ("SLES for SAP that was SLES once", world("sles15-sap-pay-as-you-go", SUSE), ALL_MAY, "verified by disk: none"),
        ("SLES for SAP with a subscription of its own", world("sles12-sap-byos", LINUX), ALL_MAY, "verified by disk: none"),
        ("SLES that lost its code", world("sles15-pay-as-you-go", LINUX), ALL_MAY, "mismatch/wrong by disk: deregister"),
        ("SLES that the Marketplace sells", sold(world("sles15-pay-as-you-go", LINUX)), ALL_MAY, "verified by disk: none"),
        ("Red Hat with RHUI and a subscription, by its code", world("rhel9-rhui-and-consumer", RED_HAT), ALL_MAY, "verified by disk: none"),
        ("Red Hat with RHUI and a subscription, its own licence", world("rhel9-rhui-and-consumer", RED_HAT_BYOL), ALL_MAY, "verified by disk: none"),
        ("Red Hat with RHUI and a subscription, by a product code", sold(world("rhel9-rhui-and-consumer", LINUX)), ALL_MAY, "verified by disk: none"),
        ("Red Hat with RHUI and a subscription, by neither", world("rhel9-rhui-and-consumer", LINUX), ALL_MAY, "mismatch/missing by disk: hold (inferred)"),
        // the licence alone
        ("Red Hat with RHUI that was converted", world(rhel, RED_HAT_BYOL), ALL_MAY, "verified by disk: none"),
        ("Red Hat with a subscription that pays for a licence", world("rhel9-byol", RED_HAT), ALL_MAY, "verified by disk: none"),
        // other distributions, and roots of OSTree's
        ("a distribution that the guard has no list of", world("photon5", LINUX), ALL_MAY, "verified by disk: none"),
        ("a distribution without a code of its own that bills one", world("fedora-coreos", RED_HAT), ALL_MAY, "mismatch/wrong by disk: hold (inferred)"),
        ("Red Hat in image mode that lost its code", world("rhel9-image-mode", LINUX), ALL_MAY, "mismatch/wrong by disk: deregister"),
        ("RHCOS", world("rhcos", LINUX), ALL_MAY, "verified by disk: none"),
        // a disk that rightly is another thing than what is billed
        ("RHCOS with Windows's code, by a rule that does not mention the disk", world("rhcos", WINDOWS), "[[expect]]\nname = '*'\nplatform = 'Windows'\n", "conflict by policy: alert"),
        ("RHCOS with Windows's code, by a rule that does", world("rhcos", WINDOWS), "[[expect]]\nname = '*'\nplatform = 'Windows'\ndisk = 'Linux'\n", "verified by policy: none"),
        ("a disk that is neither what the rule says", world("rhel9-rhui", WINDOWS), "[[expect]]\nname = '*'\nplatform = 'Windows'\ndisk = 'Linux'\n", "conflict by policy: alert"),
        ("RHCOS with a rule that does, and a tag that says something else", with_tag(world("rhcos", LINUX), "SUSE"), "[[expect]]\nname = '*'\nplatform = 'Windows'\ndisk = 'Linux'\n", "conflict by image-tag: alert"),
        ("RHCOS with a rule that does, and a tag that says the same", with_tag(world("rhcos", WINDOWS), "Windows"), "[[expect]]\nname = '*'\nplatform = 'Windows'\ndisk = 'Linux'\n", "verified by image-tag: none"),
        ("RHCOS that lost the code that the rule names", world("rhcos", LINUX), "[[expect]]\nname = '*'\nplatform = 'Windows'\ndisk = 'Linux'\n", "mismatch/wrong by policy: deregister"),
        // never
        ("the disk is never read", world(rhel, LINUX), "[evidence]\ndisk = 'never'", "unverifiable: none"),
    ];
    let mut wrong = Vec::new();
    for (what, world, policy, expected) in scenarios {
        let harness = harness(world, policy).await;
        let record = harness.record(registered()).await;
        let is = outcome(&record);
        if is != expected {
            wrong.push(format!(
                "{what}:\n  expected {expected}\n  but it is {is}: {record}"
            ));
        }
        let discarded = harness.calls().contains(&"DeregisterImage".to_owned());
        assert_eq!(discarded, expected.ends_with(": deregister"), "{what}");
        let needed = !what.contains("never read") && !what.contains("not looked behind");
        assert_eq!(asked_for_blocks(&harness), needed, "{what}");
        let mut blocks = blocks_read(&harness);
        let read = blocks.len();
        blocks.dedup();
        assert_eq!(blocks.len(), read, "{what}: no block is read twice");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(crate = "crate::virtual_time")]
async fn the_record_says_what_is_on_the_disk_and_what_tells_so() {
    let harness = harness(world("rhel9-rhui", LINUX), "").await;
    let record = harness.record(registered()).await;
    assert_eq!(said(&record, "disk"), ["found RedHat|RedHatByol"]);
    let blocks = blocks_read(&harness).len();
    let detail = detail(&record, "disk");
    assert!(detail.starts_with("Red Hat Enterprise Linux 9"), "{detail}");
    for part in [
        format!("on {SNAPSHOT} (partition 4, xfs)"),
        "/etc/pki/rhui/product/content-rhel9.crt".to_owned(),
        format!("; {blocks} blocks read"),
    ] {
        assert!(detail.contains(&part), "{part}: {detail}");
    }
    let alert = &harness.alerts()[0];
    assert_eq!(alert["expected"]["source"], "disk");
}

#[tokio::test(crate = "crate::virtual_time")]
async fn the_disk_is_not_read_where_the_lineage_has_spoken_and_nothing_is_to_be_discarded() {
    let mut world = world("rhel9-rhui", RED_HAT);
    let mut volume = sim::AttachedVolume::new("/dev/xvda", "vol-0a1b2c3d4e5f60001");
    volume.attach_time = now() - TimeDelta::minutes(90);
    let mut instance = Instance::new("i-0123456789abcdef0", "ami-0a1b2c3d4e5f60002");
    instance.launch_time = volume.attach_time;
    instance.platform_details = Some(RED_HAT.0.into());
    instance.usage_operation = Some(RED_HAT.1.into());
    instance.volumes = vec![volume];
    world.add_instance(instance);
    let snapshot = world.snapshots.get_mut(SNAPSHOT).unwrap();
    snapshot.volume_id = "vol-0a1b2c3d4e5f60001".into();
    let harness = harness(world, "[evidence]\ndisk = 'when-needed'\n").await;
    let record = harness.record(registered()).await;
    assert_eq!(outcome(&record), "verified by lineage: none");
    assert!(!asked_for_blocks(&harness));
    assert_eq!(said(&record, "disk"), ["skipped"]);
}

#[tokio::test(crate = "crate::virtual_time")]
async fn what_can_not_be_read_is_undetermined_and_says_why() {
    let encrypted = |mut world: World| {
        let snapshot = world.snapshots.get_mut(SNAPSHOT).unwrap();
        snapshot.kms_key_id = Some(KEY.into());
        world
    };
    let mut locked = encrypted(world("rhel9-rhui", LINUX));
    locked.ebs.denied_keys.insert(KEY.into());
    let mut others = world("rhel9-rhui", LINUX);
    others.snapshots.get_mut(SNAPSHOT).unwrap().owner = "210987654321".into();
    others.snapshots.get_mut(SNAPSHOT).unwrap().public = true;
    #[rustfmt::skip]
    let cases = [
        ("a key that may not be used", locked, "", None, "undetermined: access denied to key arn:aws:kms:eu-west-1:123456789012:key/"),
        ("somebody else's snapshot", others, "", None, "undetermined: snap-0a1b2c3d4e5f60001 belongs to 210987654321, not to this account"),
        ("no permission to list", world("rhel9-rhui", LINUX), "", Some(("ListSnapshotBlocks", FaultKind::AccessDenied)), "undetermined: access denied: ebs:ListSnapshotBlocks on snap-0a1b2c3d4e5f60001 is missing"),
        ("no permission to read", world("rhel9-rhui", LINUX), "", Some(("GetSnapshotBlock", FaultKind::AccessDenied)), "undetermined: access denied: ebs:GetSnapshotBlock on snap-0a1b2c3d4e5f60001 is missing"),
        ("fewer blocks than it takes", world("rhel9-rhui", LINUX), "[evidence]\ndisk_max_blocks = 3", None, "undetermined: it takes more than the 3 blocks that may be read of one disk"),
        ("no operating system", world("all-zeros", LINUX), "", None, "undetermined: there is no file system"),
        ("LVM", world("lvm", LINUX), "", None, "undetermined: LVM"),
    ];
    for (what, world, policy, fault, expected) in cases {
        let harness = harness(world, policy).await;
        if let Some((action, kind)) = fault {
            harness.inject(Fault::always(action, kind));
        }
        let record = harness.record(registered()).await;
        assert_eq!(outcome(&record), "unverifiable: none", "{what}");
        assert_eq!(said(&record, "disk"), ["failed"], "{what}");
        let why = why(&record);
        assert!(why.starts_with(expected), "{what}: {why}");
        assert_eq!(
            asked_for_blocks(&harness),
            what != "somebody else's snapshot"
        );
    }
    let harness = harness(encrypted(world("rhel9-rhui", LINUX)), "").await;
    let record = harness.record(registered()).await;
    assert_eq!(outcome(&record), "mismatch/wrong by disk: hold (inferred)");
}

/// What EBS does on a bad day, and the reader is done with.
#[tokio::test(crate = "crate::virtual_time")]
async fn what_passes_is_waited_for_or_asked_again() {
    type Change = fn(&mut World);
    #[rustfmt::skip]
    let cases: [(&str, Change, Option<Fault>); 10] = [
        ("short and empty pages", |world| world.ebs.indexes_per_page = Some(40), None),
        ("block tokens that expire", |world| world.ebs.reads_per_listing = Some(2), None),
        ("a listing that is throttled", |_| {}, Some(Fault::nth("ListSnapshotBlocks", 1, FaultKind::Throttle))),
        ("a read that is throttled", |_| {}, Some(Fault::nth("GetSnapshotBlock", 2, FaultKind::Throttle))),
        ("few reads a second", |world| { world.ebs.limits.insert("GetSnapshotBlock".into(), Limit::per_second(20)); }, None),
        ("a block that arrives broken", |_| {}, Some(Fault::nth("GetSnapshotBlock", 2, FaultKind::FlipBit))),
        ("a block that is cut off", |_| {}, Some(Fault::nth("GetSnapshotBlock", 3, FaultKind::CutBody))),
        ("a listing that is cut off", |_| {}, Some(Fault::nth("ListSnapshotBlocks", 1, FaultKind::CutBody))),
        ("a server's error", |_| {}, Some(Fault::nth("GetSnapshotBlock", 1, FaultKind::InternalError))),
        ("a reset", |_| {}, Some(Fault::nth("GetSnapshotBlock", 1, FaultKind::ResetBefore))),
    ];
    for (what, change, fault) in cases {
        let mut world = world("rhel9-rhui", LINUX);
        change(&mut world);
        let harness = harness(world, "").await;
        if let Some(fault) = fault {
            harness.inject(fault);
        }
        let record = harness.record(registered()).await;
        assert_eq!(
            outcome(&record),
            "mismatch/wrong by disk: hold (inferred)",
            "{what}: {record}"
        );
    }
}

/// What does not pass within one invocation may in the next: the event comes again, and nothing is stated.
#[tokio::test(crate = "crate::virtual_time")]
async fn a_disk_that_can_not_be_reached_is_tried_again_later() {
    for (action, kind) in [
        ("ListSnapshotBlocks", FaultKind::Throttle),
        ("ListSnapshotBlocks", FaultKind::InternalError),
        ("ListSnapshotBlocks", FaultKind::CutShort(20)),
        ("ListSnapshotBlocks", FaultKind::CutShort(0)),
        ("GetSnapshotBlock", FaultKind::Throttle),
        ("GetSnapshotBlock", FaultKind::ResetBefore),
        ("GetSnapshotBlock", FaultKind::Slow(Duration::from_secs(60))),
        (
            "ListSnapshotBlocks",
            FaultKind::Slow(Duration::from_secs(60)),
        ),
        ("GetSnapshotBlock", FaultKind::FlipBit),
        ("GetSnapshotBlock", FaultKind::CutShort(1000)),
    ] {
        let harness = harness(world("rhel9-rhui", LINUX), DISK_MAY).await;
        harness.inject(Fault::always(action, kind.clone()));
        let error = harness.give(registered()).await.unwrap_err();
        assert!(
            matches!(error, Error::NotFoundOut { .. }),
            "{action} {kind:?}: {error}"
        );
        let record = harness.journal.lock().unwrap().pop().unwrap();
        assert_eq!(outcome(&record), "unverifiable: none", "{action} {kind:?}");
        assert!(!harness.calls().contains(&"DeregisterImage".to_owned()));
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_a_snapshot_that_ebs_does_not_show_yet_brings_the_event_back() {
    let mut fresh = world("rhel9-rhui", LINUX);
    fresh.ebs.shown_after = Duration::from_secs(120);
    let minutes_ago = |minutes| Some(now() - TimeDelta::minutes(minutes));
    fresh.snapshots.get_mut(SNAPSHOT).unwrap().completion_time = minutes_ago(1);
    let harness = harness(fresh, DISK_MAY).await;
    let error = harness.give(registered()).await.unwrap_err();
    assert!(matches!(error, Error::NotFoundOut { .. }), "{error}");
    let record = harness.journal.lock().unwrap().pop().unwrap();
    assert_eq!(outcome(&record), "unverifiable: none");
    assert!(why(&record).contains("EBS does not show"), "{record}");
    // Two minutes later it does.
    let snapshot = |harness: &Harness, minutes| {
        let mut world = harness.sim.world();
        world.snapshots.get_mut(SNAPSHOT).unwrap().completion_time = minutes_ago(minutes);
    };
    snapshot(&harness, 3);
    let record = harness.record(registered()).await;
    assert_eq!(outcome(&record), "mismatch/wrong by disk: deregister");

    // One that was completed long ago will never be found: nothing comes back for it.
    let harness = self::harness(world("rhel9-rhui", LINUX), DISK_MAY).await;
    harness.sim.world().ebs.shown_after = Duration::from_secs(3600 * 24);
    let record = harness.record(registered()).await;
    assert_eq!(outcome(&record), "unverifiable: none");
    assert!(
        why(&record).contains("ResourceNotFoundException"),
        "{record}"
    );
    // And one whose completion nobody tells may be new.
    snapshot(&harness, 0);
    harness
        .sim
        .world()
        .snapshots
        .get_mut(SNAPSHOT)
        .unwrap()
        .completion_time = None;
    harness.inject(Fault::always(
        "ListSnapshotBlocks",
        refuse("ResourceNotFoundException", "no"),
    ));
    let error = harness.give(registered()).await.unwrap_err();
    assert!(matches!(error, Error::NotFoundOut { .. }), "{error}");
}

#[tokio::test(crate = "crate::virtual_time")]
async fn regression_what_the_ebs_direct_apis_never_read_is_named() {
    type Change = fn(&mut Snapshot);
    let cases: [(Change, &str, bool); 3] = [
        (
            |snapshot| snapshot.archived = true,
            "undetermined: snap-0a1b2c3d4e5f60001 is archived. ",
            false,
        ),
        (
            |snapshot| {
                let arn = "arn:aws:outposts:eu-west-1:123456789012:outpost/op-1234567890abcdef0";
                snapshot.outpost_arn = Some(arn.into());
            },
            "undetermined: snap-0a1b2c3d4e5f60001 is stored on an Outpost (arn:aws:outposts:",
            false,
        ),
        (
            |snapshot| snapshot.public = true,
            "undetermined: snap-0a1b2c3d4e5f60001 is public, ",
            true,
        ),
    ];
    for (change, expected, asks_ebs) in cases {
        let mut world = world("rhel9-rhui", LINUX);
        change(world.snapshots.get_mut(SNAPSHOT).unwrap());
        let harness = harness(world, DISK_MAY).await;
        let record = harness.record(registered()).await;
        assert_eq!(outcome(&record), "unverifiable: none");
        assert!(why(&record).starts_with(expected), "{record}");
        // DescribeSnapshots does not say that a snapshot is public: it is found out when EBS refuses it.
        assert_eq!(asked_for_blocks(&harness), asks_ebs, "{expected}");
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn tokens_that_are_refused_for_good_leave_the_disk_undetermined() {
    let mut world = world("rhel9-rhui", LINUX);
    world.ebs.block_tokens_last = Duration::ZERO;
    let harness = harness(world, "").await;
    let record = harness.record(registered()).await;
    assert_eq!(outcome(&record), "unverifiable: none");
    assert!(why(&record).contains("ValidationException"), "{record}");
}

#[tokio::test(crate = "crate::virtual_time")]
async fn ten_images_at_once_are_read_one_after_the_other_and_each_is_judged() {
    let mut world = world("debian12", LINUX);
    let mut messages = Vec::new();
    for number in 0..10 {
        let (ami, snapshot) = (
            format!("ami-0a1b2c3d4e5f7000{number}"),
            format!("snap-0a1b2c3d4e5f7000{number}"),
        );
        let mut image = image();
        image.id = ami.clone();
        image.creation_date = now() - TimeDelta::minutes(6);
        image.block_devices[0].snapshot_id = Some(snapshot.clone());
        world.add_image(image);
        world.add_snapshot(Snapshot::of_disk(snapshot, disk("debian12")).unwrap());
        let mut event = registered();
        event["id"] = json!(format!("e-{number}"));
        event["detail"]["responseElements"]["imageId"] = json!(ami);
        messages.push(json!({ "messageId": format!("m-{number}"), "body": event.to_string() }));
    }
    let harness = harness(world, "").await;
    let answer = harness.give(json!({ "Records": messages })).await.unwrap();
    assert_eq!(answer["batchItemFailures"], json!([]));
    let outcomes: Vec<String> = harness
        .journal
        .lock()
        .unwrap()
        .iter()
        .map(outcome)
        .collect();
    assert_eq!(outcomes, ["verified by disk: none"; 10]);
}

/// The reader may be all that the issue of a disk is: gone, or another program.
#[tokio::test]
async fn without_a_reader_the_disk_is_undetermined() {
    for (program, expected) in [
        (
            "/nowhere/guard",
            "undetermined: the reader could not be started",
        ),
        ("/bin/true", "undetermined: "),
        ("/bin/cat", "undetermined: "),
    ] {
        let settings = Settings {
            reader: Reader::Child(program.into()),
            policy: Policy::default(),
            ..Settings::default()
        };
        let harness = Harness::around(world("rhel9-rhui", LINUX), settings).await;
        let record = harness.record(registered()).await;
        assert_eq!(outcome(&record), "unverifiable: none", "{program}");
        assert!(why(&record).starts_with(expected), "{program}: {record}");
    }
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_verdict_by_the_disk_takes_few_calls_even_if_each_takes_twenty_milliseconds() {
    for name in ["rhel9-rhui", "debian12", "windows2022", "sles16"] {
        let mut world = world(name, LINUX);
        world.ebs.latency = Duration::from_millis(20);
        let harness = harness(world, "").await;
        let begun = Instant::now();
        let record = harness.record(registered()).await;
        let calls = harness
            .calls()
            .iter()
            .filter(|call| call.contains("SnapshotBlock"))
            .count();
        println!(
            "{name}: {calls} calls, {} ms: {}",
            begun.elapsed().as_millis(),
            outcome(&record)
        );
        assert!(calls <= 40, "{name}: {calls} calls");
        assert!(outcome(&record).contains(" by disk: "), "{name}: {record}");
    }
}

#[tokio::test]
async fn the_self_test_reads_a_disk_and_says_what_keeps_it_from_it() {
    let check = async |world: World, reader: &str, fault: Option<Fault>| {
        let settings = Settings {
            policy: Policy::default(),
            reader: Reader::Child(reader.into()),
            ..Settings::default()
        };
        let harness = Harness::around(world, settings).await;
        if let Some(fault) = fault {
            harness.inject(fault);
        }
        let report = harness.give(json!({ "self-test": true })).await.unwrap();
        let checks = report["checks"].as_array().unwrap().clone();
        let disk = checks.into_iter().find(|check| check["check"] == "disk");
        let disk = disk.unwrap();
        format!(
            "{}: {}",
            disk["state"].as_str().unwrap(),
            disk["found"].as_str().unwrap()
        )
    };
    let denied = Fault::always("ListSnapshotBlocks", FaultKind::AccessDenied);
    let throttled = Fault::always("ListSnapshotBlocks", FaultKind::Throttle);
    let mut locked = world("debian12", LINUX);
    locked.snapshots.get_mut(SNAPSHOT).unwrap().kms_key_id = Some(KEY.into());
    locked.ebs.denied_keys.insert(KEY.into());
    for (world, reader, fault, expected) in [
        (
            world("debian12", LINUX),
            READER,
            None,
            "ok: snap-0a1b2c3d4e5f60001 was read: Debian GNU/Linux 12 (bookworm) (partition 1, ext4), ",
        ),
        (
            world("lvm", LINUX),
            READER,
            None,
            "ok: snap-0a1b2c3d4e5f60001 was read, ",
        ),
        (
            World::default(),
            READER,
            None,
            "unknown: not tried: the account has no image",
        ),
        (
            locked,
            READER,
            None,
            "unknown: snap-0a1b2c3d4e5f60001 is encrypted with a key that the guard may not use",
        ),
        (
            world("debian12", LINUX),
            READER,
            Some(throttled),
            "unknown: ebs:ListSnapshotBlocks",
        ),
        (
            world("debian12", LINUX),
            READER,
            Some(denied),
            "failed: access denied: ebs:ListSnapshotBlocks",
        ),
        (
            world("debian12", LINUX),
            "/nowhere/guard",
            None,
            "failed: the reader could not be started",
        ),
        (
            world("debian12", LINUX),
            "/bin/true",
            None,
            "failed: the reader ended without an answer",
        ),
    ] {
        let is = check(world, reader, fault).await;
        assert!(is.starts_with(expected), "{is}");
    }
}

/// That EBS is slow is no trouble of the disk's.
#[tokio::test(crate = "crate::virtual_time")]
async fn a_slow_ebs_brings_the_event_back_and_says_nothing_of_the_disk() {
    let mut world = world("rhel9-rhui", LINUX);
    world.ebs.latency = Duration::from_millis(1500);
    let harness = harness(world, "").await;
    let error = harness.give(registered()).await.unwrap_err();
    assert!(matches!(error, Error::NotFoundOut { .. }), "{error}");
    let record = harness.journal.lock().unwrap().pop().unwrap();
    assert!(why(&record).contains("timed out"), "{record}");
}

/// The disk may object to a discard that a person's word suffices for; that it can not be asked is no objection. The
/// lineage is treated alike.
#[tokio::test(crate = "crate::virtual_time")]
async fn a_discard_waits_for_a_disk_that_may_be_read_the_next_time() {
    let harness = harness(with_tag(world("rhel9-rhui", LINUX), "RedHat"), "").await;
    harness.inject(Fault::always("ListSnapshotBlocks", FaultKind::Throttle));
    let error = harness.give(registered()).await.unwrap_err();
    assert!(matches!(error, Error::NotFoundOut { .. }), "{error}");
    let held = harness.journal.lock().unwrap().last().unwrap().clone();
    assert_eq!(
        outcome(&held),
        "mismatch/wrong by image-tag: hold (source-failed)"
    );
    assert_eq!(said(&held, "disk"), ["failed"]);
    assert!(harness.image_stands());

    harness.sim.heal();
    let record = harness.record(registered()).await;
    assert_eq!(outcome(&record), "mismatch/wrong by image-tag: deregister");
    assert!(!harness.image_stands());
}

#[tokio::test(crate = "crate::virtual_time")]
async fn a_declared_word_suffices_for_a_discard_if_nobody_lets_the_disk_be_read() {
    let harness = harness(with_tag(world("rhel9-rhui", LINUX), "RedHat"), "").await;
    harness.inject(Fault::always("ListSnapshotBlocks", FaultKind::AccessDenied));
    let record = harness.record(registered()).await;
    assert_eq!(outcome(&record), "mismatch/wrong by image-tag: deregister");
    assert_eq!(said(&record, "disk"), ["failed"]);
}

/// An invocation that ends while a disk is read leaves nothing behind: no reader, and no turn that is taken.
#[tokio::test]
async fn an_invocation_that_ends_while_a_disk_is_read_leaves_nothing_behind() {
    let mut world = world("rhel9-rhui", LINUX);
    world.ebs.latency = Duration::from_secs(3);
    let harness = harness(world, "").await;
    let soon = Deadline::now() + Duration::from_secs(4);
    let error = harness.guard.handle(registered(), soon).await.unwrap_err();
    assert!(matches!(error, Error::OutOfTime { .. }), "{error}");
    harness.sim.world().ebs.latency = Duration::ZERO;
    let record = harness.record(registered()).await;
    assert_eq!(outcome(&record), "mismatch/wrong by disk: hold (inferred)");
}

/// A tag says Linux, and that is what is billed; Windows is on the disk, which EBS does not show at the moment.
#[tokio::test(crate = "crate::virtual_time")]
async fn regression_a_tag_is_not_believed_for_good_as_the_disk_could_not_be_read() {
    let mislabelled = || with_tag(world("windows2022", LINUX), "Linux");
    let harness = harness(mislabelled(), "").await;
    harness.inject(Fault::always("ListSnapshotBlocks", FaultKind::Throttle));
    let error = harness.give(registered()).await.unwrap_err();
    assert!(matches!(error, Error::NotFoundOut { .. }), "{error}");
    let record = harness.journal.lock().unwrap().last().unwrap().clone();
    assert_eq!(outcome(&record), "verified by image-tag: none");
    harness.sim.heal();
    let record = harness.record(registered()).await;
    assert_eq!(outcome(&record), "conflict by image-tag: alert");

    // Of an event that is long over nobody waits: the queue would lose it, and with it the record.
    let long_ago = now() - TimeDelta::minutes(40);
    let mut world = mislabelled();
    world.images.get_mut(AMI).unwrap().creation_date = long_ago;
    let harness = self::harness(world, "").await;
    harness.inject(Fault::always("ListSnapshotBlocks", FaultKind::Throttle));
    let record = harness.record(registered_at(long_ago)).await;
    assert_eq!(outcome(&record), "verified by image-tag: none");
    assert_eq!(said(&record, "disk"), ["failed"]);

    // What no later try changes is waited for never.
    let harness = self::harness(mislabelled(), "").await;
    harness.inject(Fault::always("ListSnapshotBlocks", FaultKind::AccessDenied));
    let record = harness.record(registered()).await;
    assert_eq!(outcome(&record), "verified by image-tag: none");
}
