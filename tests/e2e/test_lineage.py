"""Where an image comes from: the guard walks from its root snapshot to what bills something.

moto can not represent a volume that is attached to several instances, one that EC2 still shows attached
to a terminated instance, or an image or a snapshot that another account does not share.
"""

import json
import shlex
from datetime import timedelta

import pytest

from e2e.emulator import Emulator
from e2e.world import AROUND, LOOKS, OTHER_ACCOUNT, REGION, SETTLED, World, now, outcome, registration

LINEAGE_MAY = 'version = 1\n[discard]\nfrom = ["declared", "lineage"]\n'

# With an instance at the end of the way, no other image is looked for.
LOOKS_TO_INSTANCE = [
    "DescribeImages",
    "DescribeSnapshots",
    "DescribeInstances",
    "DescribeVolumes",
    "ListSnapshotBlocks",
    "DescribeSnapshotAttribute",
]


def lineage(record) -> tuple[list[str], str]:
    """What the lineage said, a state and the platforms a statement, and where it was read."""
    statements = [entry for entry in record["evidence"] if entry["source"] == "lineage"]
    said = [" ".join([entry["state"], *(entry["says"] or [])]) for entry in statements]
    return said, "\n".join(entry["detail"] for entry in statements)


def assert_silent(record, *words: str):
    """Nothing is known of the image, and the lineage says where its way ended."""
    assert outcome(record) == "unverifiable: none", record["reason"]
    said, detail = lineage(record)
    assert said == ["none"]
    for word in words:
        assert word in detail, f"{word} is not in: {detail}"


def test_an_image_of_a_windows_root_volume_that_bills_linux_is_held_and_told(world: World, guard: Emulator):
    instance = world.instance("Windows")
    volume = world.root_volume(instance)
    ami = world.register(world.snapshot_of(volume), name="win2022", tags={"Team": "images"})

    record = guard.invoke(registration(ami))

    assert outcome(record) == "mismatch/wrong by lineage: hold (inferred)"
    assert record["actual"] == {
        "platform_details": "Linux/UNIX",
        "usage_operation": "RunInstances",
        "product_codes": [],
    }
    assert record["expected"] == {"platform": ["Windows"], "source": "lineage"}
    assert lineage(record) == (
        ["found Windows"],
        f"{volume} is the root volume of {instance}, which is billed as `Windows`",
    )
    assert world.exists(ami) and world.tags(ami) == {"Team": "images"}
    assert world.looks_and_deeds() == ([*LOOKS_TO_INSTANCE, *AROUND], ["Publish"])
    assert world.alerts() == [record]
    [letter] = world.letters()
    tags = '[{"ResourceType":"image","Tags":[{"Key":"Team","Value":"images"}]}]'
    command = (
        f"aws ec2 create-image --no-reboot --region {REGION} --instance-id {instance} --name 'win2022' "
        f"--tag-specifications '{tags}'"
    )
    assert record["fix"][2] == command
    assert command in [line.strip() for line in letter["text"].split("\n")]
    assert "not removed" in letter["subject"] and "inferred" in letter["text"]


def test_with_the_policys_leave_the_lineage_suffices_for_a_discard(world: World, start, policy):
    ami = world.register(world.snapshot_of(world.root_volume(world.instance("Windows"))))
    guard = start(GUARD_POLICY_PATH=policy(LINEAGE_MAY))

    record = guard.invoke(registration(ami))

    assert outcome(record) == "mismatch/wrong by lineage: deregister"
    assert (record["outcome"], record["recycle_bin"]) == ("done", "in")
    assert not world.exists(ami)
    # The tags are read again before the act; the way is not walked a second time.
    again = ["CreateTags", "DescribeImages", "DescribeSnapshots", *AROUND, "Publish"]
    after = ["DeregisterImage", "DescribeImages", "ListImagesInRecycleBin"]
    assert world.looks_and_deeds() == ([*LOOKS_TO_INSTANCE, *AROUND], [*again, *after])
    assert [alert["outcome"] for alert in world.alerts()] == ["planned"]


def test_an_image_that_bills_other_than_less_is_not_discarded_by_lineage(world: World, start, policy):
    snapshot = world.snapshot_of(world.root_volume(world.instance("Windows")))
    suse = {"platform_details": "SUSE Linux", "usage_operation": "RunInstances:000g"}
    ami = world.register(snapshot, **suse)
    guard = start(GUARD_POLICY_PATH=policy(LINEAGE_MAY))

    assert outcome(guard.invoke(registration(ami))) == "mismatch/wrong by lineage: hold (inferred)"
    assert world.exists(ami)


def test_the_command_of_the_alert_creates_an_image_that_is_verified(world: World, guard: Emulator):
    instance = world.instance("Windows")
    snapshot = world.snapshot_of(world.root_volume(instance))
    wrong = world.register(snapshot, expect="Windows", name="win 'golden'", tags={"Team": 'data, "west"'})

    record = guard.invoke(registration(wrong))
    assert record["outcome"] == "done"
    aws, service, action, no_reboot, *options = shlex.split(record["fix"][2])
    assert (aws, service, action, no_reboot) == ("aws", "ec2", "create-image", "--no-reboot")
    given = dict(zip(options[::2], options[1::2], strict=True))
    right = world.ec2.create_image(
        InstanceId=given.pop("--instance-id"),
        Name=given.pop("--name"),
        TagSpecifications=json.loads(given.pop("--tag-specifications")),
    )["ImageId"]
    assert given == {"--region": REGION}
    world.change(right, creation_date=(now() - SETTLED).isoformat())

    record = guard.invoke(registration(right, "state-change-available"))

    assert outcome(record) == "verified by image-tag: none"
    assert record["name"] == "win 'golden'"
    assert lineage(record)[0] == ["found Windows"]
    assert world.tags(right)["Team"] == 'data, "west"', "the tags come with it"


def test_an_image_that_bills_what_its_instance_does_is_verified(world: World, guard: Emulator):
    instance = world.instance("Red Hat Enterprise Linux")
    snapshot = world.snapshot_of(world.root_volume(instance))
    red_hat = {"platform_details": "Red Hat Enterprise Linux", "usage_operation": "RunInstances:0010"}
    ami = world.register(snapshot, **red_hat)

    assert outcome(guard.invoke(registration(ami))) == "verified by lineage: none"
    assert world.alerts() == []


@pytest.mark.parametrize("bills", ["Linux/UNIX", "Windows"])
def test_an_instance_that_bills_plain_linux_proves_nothing(world: World, guard: Emulator, bills):
    instance = world.instance("Linux/UNIX")
    snapshot = world.snapshot_of(world.root_volume(instance))
    operation = {"Linux/UNIX": "RunInstances", "Windows": "RunInstances:0002"}[bills]
    ami = world.register(snapshot, platform_details=bills, usage_operation=operation)

    record = guard.invoke(registration(ami))

    assert_silent(record, instance, "is billed as plain Linux, which proves nothing")
    assert world.exists(ami) and world.alerts() == []


def test_a_second_volume_of_a_helper_instance_says_nothing(world: World, guard: Emulator):
    # So does Packer's ebssurrogate build: the helper is of another platform than the image, as a rule.
    helper = world.instance("Windows")
    volume = world.volume()
    world.ec2.attach_volume(VolumeId=volume, InstanceId=helper, Device="/dev/sdf")
    ami = world.register(world.snapshot_of(volume))

    record = guard.invoke(registration(ami))

    assert_silent(record, f"{volume} is /dev/sdf of {helper}, not its root volume (/dev/xvda)")
    assert world.exists(ami) and world.alerts() == []


def test_a_volume_that_came_to_its_instance_after_the_snapshot_says_nothing(world: World, guard: Emulator):
    instance = world.instance("Windows")
    volume = world.root_volume(instance)
    snapshot = world.snapshot_of(volume)
    world.change(snapshot, start_time=(now() - timedelta(hours=1)).isoformat())
    # Else the image of the instance would speak in its place.
    world.ec2.deregister_image(ImageId=image_of(world, instance))
    ami = world.register(snapshot)

    record = guard.invoke(registration(ami))

    assert_silent(record, f"{volume} was not yet attached to {instance} when the snapshot was taken")
    assert "DescribeInstances" not in world.actions()


def test_an_instance_whose_billing_changed_after_the_snapshot_says_nothing(world: World, guard: Emulator):
    instance = world.instance("Linux/UNIX")
    snapshot = world.snapshot_of(world.root_volume(instance))
    later = (now() + timedelta(seconds=5)).isoformat()
    world.change(
        instance,
        platform_details="Windows",
        usage_operation="RunInstances:0002",
        usage_operation_update_time=later,
    )

    record = guard.invoke(registration(world.register(snapshot)))

    assert_silent(record, instance, "whose billing changed after the snapshot was taken")


def test_of_a_deleted_volume_nothing_is_known(world: World, guard: Emulator):
    volume = world.volume()
    snapshot = world.snapshot_of(volume)
    world.ec2.delete_volume(VolumeId=volume)
    ami = world.register(snapshot)

    record = guard.invoke(registration(ami))

    assert_silent(record, f"{volume} no longer exists", "no other known image uses that snapshot")
    assert world.exists(ami) and world.mutations() == []


def test_of_a_terminated_instance_whose_root_volume_went_with_it_nothing_is_known(
    world: World, guard: Emulator
):
    instance = world.instance("Windows")
    volume = world.root_volume(instance)
    snapshot = world.snapshot_of(volume)
    world.ec2.terminate_instances(InstanceIds=[instance])

    record = guard.invoke(registration(world.register(snapshot)))

    assert_silent(record, f"{volume} no longer exists")


def test_a_detached_root_volume_leads_to_the_image_that_it_was_made_from(world: World, guard: Emulator):
    instance = world.instance("Windows")
    volume, parent = world.root_volume(instance), image_of(world, instance)
    world.ec2.stop_instances(InstanceIds=[instance])
    world.ec2.detach_volume(VolumeId=volume, InstanceId=instance)
    ami = world.register(world.snapshot_of(volume))

    record = guard.invoke(registration(ami))

    assert outcome(record) == "mismatch/wrong by lineage: hold (inferred)"
    assert lineage(record)[1] == f"{parent}, whose root snapshot the volume was made from, is billed as `Windows`"
    assert world.looks_and_deeds() == ([*LOOKS, *AROUND], ["Publish"])
    # The volume is in no instance that an image could be created from.
    assert instance not in json.dumps(record["fix"])


def test_a_volume_made_from_another_images_snapshot_leads_to_that_image(world: World, guard: Emulator):
    parent = world.image("SUSE Linux")
    volume = world.volume(world.root_snapshot(parent))
    ami = world.register(world.snapshot_of(volume))

    record = guard.invoke(registration(ami))

    assert outcome(record) == "mismatch/wrong by lineage: hold (inferred)"
    assert lineage(record) == (
        ["found SUSE"],
        f"{parent}, whose root snapshot the volume was made from, is billed as `SUSE Linux`",
    )


@pytest.mark.parametrize(
    ("parent", "expected"),
    [
        pytest.param({"owner_alias": "amazon"}, "mismatch/wrong by lineage: hold (inferred)", id="Amazon"),
        pytest.param(
            {"owner_alias": "aws-marketplace"},
            "mismatch/wrong by lineage: hold (inferred)",
            id="the Marketplace",
        ),
        pytest.param(
            {"owner_alias": "amazon", "deprecation_time": "2026-01-01T00:00:00+00:00"},
            "mismatch/wrong by lineage: hold (inferred)",
            id="Amazon, deprecated by now",
        ),
        pytest.param({}, "unverifiable: none", id="nobody vouches for"),
    ],
)
def test_of_others_images_only_publishers_are_believed(world: World, guard: Emulator, parent, expected):
    original = world.image("Windows", owner_id=OTHER_ACCOUNT, **parent)
    ami = world.register(world.snapshot_of(world.volume(world.root_snapshot(original))))

    record = guard.invoke(registration(ami))

    assert outcome(record) == expected
    assert (original in lineage(record)[1]) is (expected != "unverifiable: none")


def test_another_image_on_the_same_root_snapshot_speaks(world: World, guard: Emulator):
    twin = world.image("Windows")
    ami = world.register(
        world.root_snapshot(twin), platform_details="Linux/UNIX", usage_operation="RunInstances"
    )

    record = guard.invoke(registration(ami))

    assert outcome(record) == "mismatch/wrong by lineage: hold (inferred)"
    assert lineage(record) == (["found Windows WindowsByol"], f"{twin}, on the same root snapshot, is billed as `Windows`")
    assert world.exists(ami)


def test_two_images_on_the_same_root_snapshot_that_disagree_are_a_conflict(world: World, guard: Emulator):
    first = world.image("Windows")
    snapshot = world.root_snapshot(first)
    second = world.register(snapshot, platform_details="SUSE Linux", usage_operation="RunInstances:000g")
    ami = world.register(snapshot, platform_details="Linux/UNIX", usage_operation="RunInstances")

    record = guard.invoke(registration(ami))

    assert outcome(record) == "conflict by lineage: alert"
    said = {first: "found Windows WindowsByol", second: "found SUSE"}
    assert lineage(record)[0] == [said[image] for image in sorted(said)], "in the order of their ids"
    assert world.mutations() == ["Publish"]


def copy_described(source: str, snapshot: str) -> str:
    """The description that CopyImage writes on a snapshot that it copies."""
    return (
        f"Copied for DestinationAmi ami-0123456789abcdef0 from SourceAmi {source} "
        f"for SourceSnapshot {snapshot}. Task created on 1,763,000,000,000."
    )


def test_what_a_copys_description_says_of_its_source_proves_nothing(world: World, guard: Emulator):
    source = world.image("Windows")
    snapshot = world.root_snapshot(source)
    copied = world.ec2.copy_snapshot(
        SourceSnapshotId=snapshot, SourceRegion=REGION, Description=copy_described(source, snapshot)
    )["SnapshotId"]
    ami = world.register(copied)

    record = guard.invoke(registration(ami))

    assert "DescribeVolumes" not in world.actions(), "a copy is of no volume"
    assert_silent(record, "no other known image uses that snapshot")


@pytest.mark.parametrize(
    ("region", "expected"),
    [
        (REGION, "mismatch/wrong by lineage: hold (inferred, not-registered, identity-unknown)"),
        ("us-east-1", "unverifiable: none"),
    ],
)
def test_of_an_image_made_by_copy_image_ec2_itself_names_the_source(
    world: World, guard: Emulator, region, expected
):
    source = world.image("Windows")
    snapshot = world.root_snapshot(source)
    copied = world.ec2.copy_snapshot(SourceSnapshotId=snapshot, SourceRegion=REGION)["SnapshotId"]
    ami = world.register(copied, source_image_id=source, source_image_region=region)

    record = guard.invoke(registration(ami, "state-change-available"))

    # Of a copy from another Region nothing is to be seen here, though an image of that id be.
    assert outcome(record) == expected
    assert (f"{source}, the source of the copy," in lineage(record)[1]) is (region == REGION)
    assert world.exists(ami)


def test_a_description_that_claims_an_instance_and_an_image_proves_nothing(world: World, guard: Emulator):
    instance = world.instance("Windows")
    claim = f"Created by CreateImage({instance}) for {image_of(world, instance)}"
    ami = world.register(world.snapshot_of(world.volume(), claim))

    assert_silent(guard.invoke(registration(ami)), "no other known image uses that snapshot")


def test_a_snapshot_that_another_account_shares_says_nothing(world: World, guard: Emulator):
    snapshot = world.snapshot_of(world.root_volume(world.instance("Windows")))
    world.change(snapshot, owner_id=OTHER_ACCOUNT)
    ami = world.register(snapshot)

    record = guard.invoke(registration(ami))

    assert_silent(record, f"{snapshot} belongs to {OTHER_ACCOUNT}, not to this account")
    assert world.actions() == ["DescribeImages", "DescribeSnapshots"]


def test_a_tag_can_not_talk_a_windows_root_volume_into_linux(world: World, guard: Emulator):
    instance = world.instance("Windows")
    ami = world.register(world.snapshot_of(world.root_volume(instance)), expect="Linux")

    record = guard.invoke(registration(ami))

    assert outcome(record) == "conflict by image-tag: alert"
    assert "image-tag expects Linux, but lineage expects Windows" in record["reason"]
    assert world.exists(ami) and world.mutations() == ["Publish"]
    [alert] = world.alerts()
    assert alert == record


def test_nor_can_a_tag_get_an_image_discarded_that_lineage_verifies(world: World, guard: Emulator):
    snapshot = world.snapshot_of(world.root_volume(world.instance("Windows")))
    windows = {"platform_details": "Windows", "usage_operation": "RunInstances:0002"}
    ami = world.register(snapshot, expect="SUSE", **windows)

    assert outcome(guard.invoke(registration(ami))) == "conflict by image-tag: alert"
    assert world.exists(ami)


def asking_for(event, *products: str):
    """The event of a registration that asked for billing products."""
    items = [{"billingProduct": product} for product in products]
    event["detail"]["requestParameters"]["billingProducts"] = {"items": items}
    return event


@pytest.mark.parametrize(
    ("bills", "product", "expected"),
    [
        ("Linux/UNIX", "bp-6ba54002", "mismatch/wrong by lineage: hold (inferred)"),
        ("Windows", "bp-6ba54002", "verified by lineage: none"),
        ("Linux/UNIX", "bp-00000000", "unverifiable: none"),
    ],
)
def test_the_billing_product_that_was_asked_for_is_evidence(
    world: World, guard: Emulator, bills, product, expected
):
    event = asking_for(registration(world.image(bills)), product)

    record = guard.invoke(event)

    assert outcome(record) == expected
    assert f"the registration asked for {product}" in lineage(record)[1]


@pytest.mark.parametrize(
    ("action", "code", "status"),
    [
        ("DescribeSnapshots", "UnauthorizedOperation", 403),
        ("DescribeVolumes", "UnauthorizedOperation", 403),
        ("DescribeVolumes", "RequestLimitExceeded", 503),
        ("DescribeInstances", "UnauthorizedOperation", 403),
    ],
)
def test_a_look_that_fails_is_no_verdict_and_no_ground_for_a_discard(
    world: World, start, policy, action, code, status
):
    # With a default there is a mismatch that the failed source could forbid.
    text = LINEAGE_MAY + '[defaults]\nexpect = "Windows"\n'
    instance = world.instance("Windows")
    world.ec2.deregister_image(ImageId=image_of(world, instance))
    ami = world.register(world.snapshot_of(world.root_volume(instance)))
    world.fail(action, code, status=status)

    record = start(GUARD_POLICY_PATH=policy(LINEAGE_MAY)).invoke(registration(ami))
    by_default = start(GUARD_POLICY_PATH=policy(text)).invoke(registration(ami))

    assert outcome(by_default) == "mismatch/wrong by default: hold (inferred, source-failed)"
    answers = [by_default]
    if status == 503:
        # The next time it may be known.
        assert record["errorType"] == "NotFoundOut" and action in record["errorMessage"]
    else:
        assert outcome(record) == "unverifiable: none"
        answers.append(record)
    for told in answers:
        said, detail = lineage(told)
        assert said == ["failed"]
        why = "access denied" if code == "UnauthorizedOperation" else code
        assert f"ec2:{action}" in detail and why in detail, detail
    assert world.exists(ami) and set(world.mutations()) <= {"Publish"}


def test_a_tag_decides_though_the_lineage_fails(world: World, guard: Emulator):
    world.fail("DescribeVolumes", "UnauthorizedOperation", status=403)
    ami = world.image(expect="Windows")

    record = guard.invoke(registration(ami))

    assert outcome(record) == "mismatch/wrong by image-tag: deregister"
    assert lineage(record)[0] == ["failed"]
    assert not world.exists(ami)


def test_product_codes_that_did_not_reach_the_image_are_told(world: World, guard: Emulator):
    snapshot = world.snapshot_of(world.root_volume(world.instance("Windows")))
    ami = world.register(snapshot)
    world.change(snapshot, product_codes=["abcdef0123456789abcdef012"])

    record = guard.invoke(registration(ami))

    told = "the snapshot's product codes are abcdef0123456789abcdef012, and the image's are none"
    assert told in lineage(record)[1]

    carried = guard.invoke(registration(world.register(snapshot)))
    assert "product codes" not in lineage(carried)[1]


def test_lineage_is_asked_when_it_is_needed_or_never(world: World, start, policy):
    instance = world.instance("Windows")
    snapshot = world.snapshot_of(world.root_volume(instance))
    windows = {"platform_details": "Windows", "usage_operation": "RunInstances:0002"}
    declared = world.register(snapshot, expect="Windows", **windows)
    when_needed = start(GUARD_POLICY_PATH=policy('version = 1\n[evidence]\nlineage = "when-needed"\ndisk = "when-needed"\n'))

    record = when_needed.invoke(registration(declared))
    assert outcome(record) == "verified by image-tag: none" and lineage(record)[0] == ["skipped"]
    assert world.actions() == ["DescribeImages"]

    world.ec2.deregister_image(ImageId=declared)
    ami = world.register(snapshot)
    record = when_needed.invoke(registration(ami))
    assert outcome(record) == "mismatch/wrong by lineage: hold (inferred)"

    never = start(GUARD_POLICY_PATH=policy('version = 1\n[evidence]\nlineage = "never"\n'))
    record = never.invoke(registration(ami))
    assert outcome(record) == "unverifiable: none" and lineage(record)[0] == ["skipped"]


def test_an_instance_store_backed_image_has_no_lineage(world: World, guard: Emulator):
    ami, declared = world.register(None), world.register(None, expect="Windows")

    record = guard.invoke(registration(ami))
    assert outcome(record) == "unverifiable: none"
    assert lineage(record)[0] == ["not-applicable"] and record["snapshot_id"] is None
    assert world.actions() == ["DescribeImages"]

    record = guard.invoke(registration(declared))
    assert outcome(record) == "mismatch/wrong by image-tag: deregister"
    assert (record["outcome"], record["recycle_bin"], record["undo"]) == ("done", "absent", None)
    # The alert promised no way back, so that there is none needs no second one.
    [letter] = world.letters()
    assert "bundle in S3 stays" in letter["words"] and "restore-image" not in letter["text"]


def image_of(world: World, instance: str) -> str:
    """The image that an instance was launched from."""
    found = world.ec2.describe_instances(InstanceIds=[instance])
    return found["Reservations"][0]["Instances"][0]["ImageId"]
