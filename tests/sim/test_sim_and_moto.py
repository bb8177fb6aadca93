"""One scenario with boto3, on `sim` and on moto with the extension: both must give the same answers.

`sim` and the guard come from the same hands; moto does not, and keeps both honest.
"""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from e2e.world import DISCARD, TOPIC, Moto, World, client

# What sim's example world has, by the snapshot's description: what images of it bill.
SNAPSHOTS = {
    "Windows Server": ("Windows", "RunInstances:0002"),
    "Red Hat Enterprise Linux": ("Red Hat Enterprise Linux", "RunInstances:0010"),
    "Windows Server, billing metadata lost": ("Linux/UNIX", "RunInstances"),
    "Windows Server, comes out with nothing": (None, None),
}

UNKNOWN = "ami-0123456789abcdef0"

# What the only instance of sim's example world was launched from, an image that is not there any more.
LAUNCHED_FROM = "ami-0000000000000d001"

Play = list[tuple[str, Any]]


@pytest.fixture
def sim(sim_binary: Path) -> Iterator[str]:
    """sim's endpoint."""
    with subprocess.Popen([sim_binary], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.kill()


@pytest.fixture
def moto_endpoint(world: World, moto: Moto) -> str:
    """moto's endpoint, with the snapshots and the instance that sim's example world has."""
    volume = world.ec2.create_volume(Size=8, AvailabilityZone="eu-west-1a")["VolumeId"]
    for description, (details, operation) in SNAPSHOTS.items():
        snapshot = world.ec2.create_snapshot(VolumeId=volume, Description=description)["SnapshotId"]
        moto.order(
            "snapshot",
            {"id": snapshot, "platform_details": details, "usage_operation": operation},
        )
    world.ec2.run_instances(ImageId=LAUNCHED_FROM, InstanceType="t3.micro", MinCount=1, MaxCount=1)
    return moto.endpoint


class Recorder:
    """Calls, and writes down what came back: an answer, or the code of an error."""

    def __init__(self) -> None:
        self.play: Play = []

    def __call__(self, step: str, call: Callable[..., Any], **request: Any) -> Any:
        try:
            answer = call(**request)
        except ClientError as error:
            answer = {"error": error.response["Error"]["Code"]}
        else:
            assert answer.pop("ResponseMetadata")["HTTPStatusCode"] == 200
        self.play.append((step, answer))
        return answer


def scenario(endpoint: str) -> Play:
    """Registers, finds, tags, disables and deregisters images, walks their lineage, and publishes."""
    ec2, sns = client("ec2", endpoint), client("sns", endpoint)
    do = Recorder()
    snapshots = {
        snapshot["Description"]: snapshot["SnapshotId"]
        for snapshot in ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]
    }

    def request(name: str, snapshot: str, **more: Any) -> dict[str, Any]:
        ebs = {"SnapshotId": snapshot, "VolumeType": "gp3", "VolumeSize": 30, "DeleteOnTermination": True}
        return {
            "Name": name,
            "Description": f"{name}, for the comparison",
            "Architecture": "arm64",
            "VirtualizationType": "hvm",
            "BootMode": "uefi",
            "EnaSupport": True,
            "RootDeviceName": "/dev/xvda",
            "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": ebs | {"Encrypted": False}}],
        } | more

    images = {}
    tags = [{"Key": "Team", "Value": "images"}, {"Key": "ami-billing-guard:expect", "Value": "Windows"}]
    specification = [{"ResourceType": "image", "Tags": tags}]
    for number, description in enumerate(SNAPSHOTS, 1):
        more = {"TagSpecifications": specification} if number == 1 else {}
        answer = do(
            f"register {number}",
            ec2.register_image,
            **request(f"base-{number}", snapshots[description], **more),
        )
        images[number] = answer["ImageId"]
        do(f"describe {number}", ec2.describe_images, ImageIds=[images[number]])

    first, second, third, fourth = images.values()
    do("register a name twice", ec2.register_image, **request("base-1", snapshots["Windows Server"]))
    do("register from no snapshot", ec2.register_image, **request("base-5", "snap-0123456789abcdef0"))
    do(
        "dry run of registering",
        ec2.register_image,
        **request("base-6", snapshots["Windows Server"], DryRun=True),
    )
    do("dry run of deregistering", ec2.deregister_image, ImageId=first, DryRun=True)

    def find(step: str, *filters: tuple[str, str], **more: Any) -> None:
        listed = [{"Name": name, "Values": [value]} for name, value in filters]
        do(f"find {step}", ec2.describe_images, Filters=listed, **more)

    find("by a pattern of names", ("name", "base-*"))
    find("by one letter", ("name", "base-?"), ("name", "*3"))
    find("by id", ("image-id", second))
    find("by an unknown id", ("image-id", UNKNOWN))
    find("by a tag", ("tag:Team", "images"))
    find("by a tag's key", ("tag-key", "ami-billing-guard:expect"))
    find("by state", ("state", "available"), Owners=["self"])
    find("by no such state", ("state", "pending"), Owners=["self"])
    find("by owner", ("name", "base-2"), Owners=["123456789012"])
    find("of another owner", ("name", "base-2"), Owners=["210987654321"])
    find("by root device", ("root-device-type", "ebs"), ("name", "base-1"))
    find("of Amazon", ("name", "base-*"), Owners=["amazon"])

    do("describe an unknown id", ec2.describe_images, ImageIds=[UNKNOWN])
    do("describe a known and an unknown id", ec2.describe_images, ImageIds=[first, UNKNOWN])
    do("describe a malformed id", ec2.describe_images, ImageIds=["image-1"])
    do("describe two", ec2.describe_images, ImageIds=[first, second])

    marks = [{"Key": DISCARD, "Value": "true"}, {"Key": "Team", "Value": "guards"}]
    do("tag", ec2.create_tags, Resources=[first], Tags=marks)
    do("describe what was tagged", ec2.describe_images, ImageIds=[first])
    do("take a tag away", ec2.delete_tags, Resources=[first], Tags=[{"Key": "Team"}])
    do("describe what has a tag less", ec2.describe_images, ImageIds=[first])
    do("tag an unknown image", ec2.create_tags, Resources=[UNKNOWN], Tags=marks)
    too_many = [{"Key": f"tag-{number}", "Value": ""} for number in range(51)]
    do("tag too often", ec2.create_tags, Resources=[third], Tags=too_many)

    do("disable", ec2.disable_image, ImageId=second)
    do("describe a disabled one", ec2.describe_images, ImageIds=[second])
    do("describe disabled ones too", ec2.describe_images, ImageIds=[second], IncludeDisabled=True)
    do("enable", ec2.enable_image, ImageId=second)
    do("describe an enabled one", ec2.describe_images, ImageIds=[second])
    do("disable an unknown one", ec2.disable_image, ImageId=UNKNOWN)

    do("deregister", ec2.deregister_image, ImageId=first)
    do("describe a deregistered one", ec2.describe_images, ImageIds=[first])
    do("find what is left", ec2.describe_images, Owners=["self"])
    do("deregister again", ec2.deregister_image, ImageId=first)
    do("disable a deregistered one", ec2.disable_image, ImageId=first)
    do("deregister an unknown one", ec2.deregister_image, ImageId=UNKNOWN)
    do("deregister an untagged one", ec2.deregister_image, ImageId=fourth)
    do("look into the Recycle Bin", ec2.list_images_in_recycle_bin)
    do("look for what is there", ec2.list_images_in_recycle_bin, ImageIds=[first])
    lineage(ec2, do, snapshots["Windows Server"])
    do("the snapshots stay", ec2.describe_snapshots, SnapshotIds=sorted(snapshots.values()))
    do("an unknown snapshot", ec2.describe_snapshots, SnapshotIds=["snap-0123456789abcdef0"])

    bodies = json.dumps({"default": "text", "sqs": "{}"})
    do("publish", sns.publish, TopicArn=TOPIC, Subject="AMI billing", Message=bodies, MessageStructure="json")
    do("publish plain text", sns.publish, TopicArn=TOPIC, Message="text")
    do("publish to no topic", sns.publish, TopicArn=f"{TOPIC}-2", Message="text")
    do("publish without a default", sns.publish, TopicArn=TOPIC, Message="{}", MessageStructure="json")
    do("publish with a long subject", sns.publish, TopicArn=TOPIC, Subject="a" * 101, Message="text")
    do("the topic's attributes", sns.get_topic_attributes, TopicArn=TOPIC)
    do("no topic's attributes", sns.get_topic_attributes, TopicArn=f"{TOPIC}-2")
    return do.play


def lineage(ec2: Any, do: Recorder, snapshot: str) -> None:
    """What the volumes of snapshots are made from, and which instances have them."""
    do(
        "who may use a snapshot",
        ec2.describe_snapshot_attribute,
        SnapshotId=snapshot,
        Attribute="createVolumePermission",
    )
    specification = [{"ResourceType": "volume", "Tags": [{"Key": "Team", "Value": "images"}]}]
    zone = "eu-west-1a"
    made = do(
        "make a volume",
        ec2.create_volume,
        SnapshotId=snapshot,
        AvailabilityZone=zone,
        TagSpecifications=specification,
    )["VolumeId"]
    empty = do("make an empty volume", ec2.create_volume, Size=3, AvailabilityZone=zone)["VolumeId"]
    do("make a volume of nothing", ec2.create_volume, AvailabilityZone=zone)
    do("describe a volume", ec2.describe_volumes, VolumeIds=[made])
    do("describe an empty volume", ec2.describe_volumes, VolumeIds=[empty])
    do("describe two volumes", ec2.describe_volumes, VolumeIds=[made, empty])
    do("an unknown volume", ec2.describe_volumes, VolumeIds=["vol-0123456789abcdef0"])
    do("a snapshot of a volume", ec2.create_snapshot, VolumeId=made, Description="of a volume")

    launched = {"Filters": [{"Name": "image-id", "Values": [LAUNCHED_FROM]}]}
    [reservation] = do("find an instance", ec2.describe_instances, **launched)["Reservations"]
    instance = reservation["Instances"][0]["InstanceId"]
    do("describe an instance", ec2.describe_instances, InstanceIds=[instance])
    do("an unknown instance", ec2.describe_instances, InstanceIds=["i-0123456789abcdef0"])
    for what, call, name, value in [
        ("a volume by its snapshot", ec2.describe_volumes, "snapshot-id", snapshot),
        ("a volume by an unknown snapshot", ec2.describe_volumes, "snapshot-id", "snap-0123456789abcdef0"),
        ("a volume by its id", ec2.describe_volumes, "volume-id", made),
        ("a volume by its tag", ec2.describe_volumes, "tag:Team", "images"),
        ("a volume by its instance", ec2.describe_volumes, "attachment.instance-id", instance),
        ("a volume in use", ec2.describe_volumes, "status", "in-use"),
        ("an instance by its id", ec2.describe_instances, "instance-id", instance),
        ("an instance by its state", ec2.describe_instances, "instance-state-name", "running"),
        ("no instance by its state", ec2.describe_instances, "instance-state-name", "terminated"),
        ("an instance by its owner", ec2.describe_instances, "owner-id", "123456789012"),
        ("no instance by its owner", ec2.describe_instances, "owner-id", "210987654321"),
    ]:
        do(f"find {what}", call, Filters=[{"Name": name, "Values": [value]}])


def comparable(play: Play) -> Play:
    """The same play with times as such, lists in an order, and ids by the order in which they appear."""
    names: dict[str, str] = {}

    def rename(text: str) -> str:
        def name(found: re.Match[str]) -> str:
            kind = found[0].split("-")[0]
            number = sum(name.startswith(f"{kind}-") for name in names)
            return names.setdefault(found[0], f"<{kind} {number}>")

        return re.sub(r"\b(ami|i|r|snap|vol)-[0-9a-f]{17}\b", name, text)

    def order(item: dict[str, Any]) -> list[str]:
        return [str(item.get(name, "")) for name in ("Name", "Description", "Key", "Size")]

    def value(key: str, of: Any) -> Any:
        if isinstance(of, dict):
            # An empty list is as good as none: an SDK shows either as it likes. An empty volume has an empty
            # SnapshotId in EC2 and sim, and none in moto.
            shown = {name: inside for name, inside in of.items() if inside != []}
            if shown.get("SnapshotId") == "":
                del shown["SnapshotId"]
            return {name: value(name, inside) for name, inside in shown.items()}
        if isinstance(of, list):
            return [value(key, item) for item in sorted(of, key=order)]
        if isinstance(of, datetime) or key == "CreationDate":
            return "<time>"
        if key == "MessageId":
            return "<message>"
        return rename(of) if isinstance(of, str) else of

    return [(step, value("", answer)) for step, answer in play]


# Where the two may differ.
DIFFERENCES = {
    # EC2 gives it for every image of one's own; sim gives it where it is set.
    "DeregistrationProtection",
    # The snapshots were there before the scenario, and of different volumes.
    "Snapshots.VolumeId",
    # Of an instance moto does not know what it bills.
    "Instances.Platform",
    "Instances.PlatformDetails",
    "Instances.UsageOperation",
    "Instances.UsageOperationUpdateTime",
    # moto says nothing of it, and has a volume ready at once.
    "Attachments.DeleteOnTermination",
    "make a volume.State",
    "make an empty volume.State",
    # What of a topic the guard never asks for.
    "DeliveryPolicy",
    "DisplayName",
    "EffectiveDeliveryPolicy",
    "Policy",
    # moto counts a queue's subscription neither as confirmed nor as pending.
    "SubscriptionsConfirmed",
}


def differences(step: str, one: Any, other: Any) -> Iterator[str]:
    """Where two answers differ in what both have, and what only one has."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            if f".{step}.{key}".endswith(tuple(f".{name}" for name in DIFFERENCES)):
                continue
            # Of an instance sim has only what the guard asks for.
            if key not in one and step.endswith(".Instances"):
                continue
            if key not in one or key not in other:
                yield f"{step}: only {'moto' if key not in one else 'sim'} has {key}"
            else:
                yield from differences(f"{step}.{key}", one[key], other[key])
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for item, twin in zip(one, other, strict=True):
            yield from differences(step, item, twin)
    elif one != other:
        yield f"{step}: sim says {one!r}, moto {other!r}"


def test_sim_and_moto_give_the_same_answers(sim: str, moto_endpoint: str):
    ours, theirs = comparable(scenario(sim)), comparable(scenario(moto_endpoint))

    assert [step for step, _ in ours] == [step for step, _ in theirs]
    found = []
    for (step, our), (_, their) in zip(ours, theirs, strict=True):
        found += differences(step, our, their)
    assert found == [], "\n".join(found)

    # What images bill was compared; here is what it has to be.
    answers = dict(ours)
    for number, billing in enumerate(SNAPSHOTS.values(), 1):
        [image] = answers[f"describe {number}"]["Images"]
        assert (image.get("PlatformDetails"), image.get("UsageOperation")) == billing
