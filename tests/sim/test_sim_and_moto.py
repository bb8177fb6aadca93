"""One scenario with boto3, on `sim` and on moto with the extension: both must give the same answers.

`sim` and the guard come from the same hands; moto does not, and keeps both honest.
"""

import json
import re
import subprocess
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from e2e.world import DISCARD, RULE, TOPIC, Moto, World, client, disk

# What sim's example world has, by the snapshot's description: what images of it bill.
SNAPSHOTS = {
    "Windows Server": ("Windows", "RunInstances:0002"),
    "Red Hat Enterprise Linux": ("Red Hat Enterprise Linux", "RunInstances:0010"),
    "Windows Server, billing metadata lost": ("Linux/UNIX", "RunInstances"),
    "Windows Server, comes out with nothing": (None, None),
}

# Credentials that nobody checks.
KEYS = {"aws_access_key_id": "tests", "aws_secret_access_key": "tests"}

UNKNOWN = "ami-0123456789abcdef0"
UUID = "01234567-89ab-4cde-8f01-23456789abcd"

# The table of sim's default world.
TABLE = "ami-billing-guard"

# Its queue, whose URL moto goes by as well.
QUEUE = "https://sqs.eu-west-1.amazonaws.com/123456789012/ami-billing-guard"

# What the only instance of sim's example world was launched from, an image that is not there any more.
LAUNCHED_FROM = "ami-0000000000000d001"

# Errors whose sentences are compared, too. moto words those of expressions in its own way.
TOLD_ALIKE = {"ConditionalCheckFailedException", "TransactionCanceledException", "ResourceNotFoundException"}

Play = list[tuple[str, Any]]


@contextmanager
def serving(*command: Path | str) -> Iterator[str]:
    """The endpoint of a sim that this command starts."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.fixture
def sim(sim_binary: Path) -> Iterator[str]:
    """sim's endpoint."""
    with serving(sim_binary) as endpoint:
        yield endpoint


@pytest.fixture
def moto_endpoint(world: World, moto: Moto) -> str:
    """moto's endpoint, with the snapshots, the instance, the table and the queue that sim's example world has."""
    volume = world.ec2.create_volume(Size=8, AvailabilityZone="eu-west-1a")["VolumeId"]
    for description, (details, operation) in SNAPSHOTS.items():
        snapshot = world.ec2.create_snapshot(VolumeId=volume, Description=description)["SnapshotId"]
        moto.order(
            "snapshot",
            {"id": snapshot, "platform_details": details, "usage_operation": operation},
        )
    world.ec2.run_instances(ImageId=LAUNCHED_FROM, InstanceType="t3.micro", MinCount=1, MaxCount=1)
    client("dynamodb", moto.endpoint).create_table(
        TableName=TABLE,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    world.sqs.create_queue(QueueName=QUEUE.rsplit("/", 1)[-1])
    return moto.endpoint


class Recorder:
    """Calls, and writes down what came back: an answer, or an error's code and what comes with it."""

    def __init__(self) -> None:
        self.play: Play = []

    def __call__(self, step: str, call: Callable[..., Any], **request: Any) -> Any:
        try:
            answer = call(**request)
        except ClientError as error:
            answer = {"error": error.response["Error"]["Code"]}
            if answer["error"] in TOLD_ALIKE:
                answer |= {"message": error.response["Error"]["Message"]}
            with_it = {"Item", "CancellationReasons", "Reason"} & {*error.response}
            answer |= {key: error.response[key] for key in with_it}
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
            "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": ebs}],
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

    permissions = {"ImageId": third, "Attribute": "launchPermission"}
    do("who may launch an image", ec2.describe_image_attribute, **permissions)
    shares = {"Add": [{"UserId": "210987654321"}, {"Group": "all"}]}
    do("share", ec2.modify_image_attribute, ImageId=third, LaunchPermission=shares)
    do("who may launch a shared image", ec2.describe_image_attribute, **permissions)
    do("describe a shared one", ec2.describe_images, ImageIds=[third])
    private = {"Remove": [{"Group": "all"}]}
    do("share less", ec2.modify_image_attribute, ImageId=third, LaunchPermission=private)
    do("who may launch what is shared less", ec2.describe_image_attribute, **permissions)
    nobody = {"Add": [{"UserId": "nobody"}]}
    do("share with nobody", ec2.modify_image_attribute, ImageId=third, LaunchPermission=nobody)

    do("deregister", ec2.deregister_image, ImageId=first)
    do("describe a deregistered one", ec2.describe_images, ImageIds=[first])
    do("find what is left", ec2.describe_images, Owners=["self"])
    do("deregister again", ec2.deregister_image, ImageId=first)
    do("disable a deregistered one", ec2.disable_image, ImageId=first)
    do("deregister an unknown one", ec2.deregister_image, ImageId=UNKNOWN)
    do("deregister an untagged one", ec2.deregister_image, ImageId=fourth)
    do("look into the Recycle Bin", ec2.list_images_in_recycle_bin)
    do("look for what is there", ec2.list_images_in_recycle_bin, ImageIds=[first])
    get_rule = client("rbin", endpoint).get_rule
    do("ask for the Recycle Bin rule", get_rule, Identifier=RULE)
    do("ask for an unknown rule", get_rule, Identifier="00000000000")
    do("ask for no rule's id", get_rule, Identifier="0")
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
    hide = client("sqs", endpoint).change_message_visibility
    do("hide a message of no queue", hide, QueueUrl=f"{QUEUE}-2", ReceiptHandle="a", VisibilityTimeout=300)
    do("hide a message for more than twelve hours", hide, QueueUrl=QUEUE, ReceiptHandle="a", VisibilityTimeout=43201)
    do("hide a message without its handle", hide, QueueUrl=QUEUE, ReceiptHandle="", VisibilityTimeout=300)
    account(endpoint, do)
    blocks(client("ebs", endpoint), do, snapshots["Windows Server"])
    items(client("dynamodb", endpoint), do)
    transactions(client("dynamodb", endpoint), do)
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


def account(endpoint: str, do: Recorder) -> None:
    """Who calls, and where what the account has is."""
    ec2 = client("ec2", endpoint)
    do("who calls", client("sts", endpoint).get_caller_identity)
    do("what is reserved", ec2.describe_reserved_instances)
    do("what is reserved under an unknown id", ec2.describe_reserved_instances, ReservedInstancesIds=[UUID])
    some = ["eu-west-1", "us-east-1", "ap-east-1"]
    do("some Regions", ec2.describe_regions, RegionNames=some)
    for name, value in [
        ("opt-in-status", "not-opted-in"),
        ("region-name", "*-east-1"),
        ("endpoint", "ec2.eu-west-1.amazonaws.com"),
        ("state", "available"),
    ]:
        filters = [{"Name": name, "Values": [value]}]
        do(f"Regions by {name}", ec2.describe_regions, RegionNames=some, Filters=filters)
    do("an unknown Region", ec2.describe_regions, RegionNames=["eu-west-9"])
    unusable = [{"Name": "region-name", "Values": ["ap-east-1"]}]
    do("a Region that is not usable", ec2.describe_regions, Filters=unusable)
    do("one among all Regions", ec2.describe_regions, Filters=unusable, AllRegions=True)
    elsewhere = boto3.client("ec2", endpoint_url=endpoint, region_name="us-east-1", **KEYS)
    do("images of another Region", elsewhere.describe_images)
    do("images of the Region", ec2.describe_images, Owners=["self"])


def blocks(ebs: Any, do: Recorder, snapshot: str) -> None:
    """What is on a snapshot that nothing was ever written to, and what of a snapshot is refused."""
    look, read = ebs.list_snapshot_blocks, ebs.get_snapshot_block
    do("list a snapshot's blocks", look, SnapshotId=snapshot)
    do("list them from one on", look, SnapshotId=snapshot, StartingBlockIndex=7, MaxResults=1000)
    do("list them from beyond the end on", look, SnapshotId=snapshot, StartingBlockIndex=1_000_000)
    do("list too many at once", look, SnapshotId=snapshot, MaxResults=10_001)
    do("list a page that nobody promised", look, SnapshotId=snapshot, NextToken="AAAB")
    do("read a block that is not there", read, SnapshotId=snapshot, BlockIndex=0, BlockToken="AAAB")
    for what, other in [
        ("no snapshot", "snap-0123456789abcdef0"),
        ("nothing at all", "snap-"),
        ("an image", "ami-0123456789abcdef0"),
        ("a long id", f"snap-{60 * '0'}"),
    ]:
        do(f"list the blocks of {what}", look, SnapshotId=other)
        do(f"read a block of {what}", read, SnapshotId=other, BlockIndex=0, BlockToken="AAAB")


def update(id: str, expression: str, condition: str | None = None, table: str = TABLE) -> dict[str, Any]:
    """An update as the ledger asks for it: each attribute and each value by a placeholder."""
    values: dict[str, dict[str, Any]] = {
        ":one": {"N": "1"},
        ":two": {"N": "2"},
        ":text": {"S": "text"},
        ":long": {"S": "x" * 409600},
        ":set": {"SS": ["b", "c"]},
    }
    expressions = {"UpdateExpression": expression}
    if condition is not None:
        expressions["ConditionExpression"] = condition
    text = " ".join(expressions.values())
    names = {name: name.removeprefix("#") for name in re.findall(r"#\w+", text)}
    request: dict[str, Any] = {"TableName": table, "Key": key(id), "ExpressionAttributeNames": names} | expressions
    if used := {value: values[value] for value in re.findall(r":\w+", text)}:
        request["ExpressionAttributeValues"] = used
    return request


def items(dynamodb: Any, do: Recorder) -> None:
    """Conditional updates of single items, and reads."""
    new = {"ReturnValues": "ALL_NEW"}

    def write(step: str, *what: Any, **more: Any) -> None:
        do(f"update {step}", dynamodb.update_item, **update(*what) | more)

    def get(step: str, id: str, **more: Any) -> None:
        do(f"get {step}", dynamodb.get_item, TableName=TABLE, Key=key(id), **more)

    get("nothing", "a")
    write("new", "a", "SET #name = :text, #n = :one, #steps = :set", "attribute_not_exists(#id)", **new)
    get("what was written", "a", ConsistentRead=True)
    write("again", "a", "SET #n = :two", "attribute_not_exists(#id)")
    for number, condition in enumerate(
        [
            "#n = :one",
            "#n = :two",
            "#n < :two",
            "#n < :one OR #name = :text",
            "#n BETWEEN :one AND :two",
            "#nowhere < :one",
            "attribute_not_exists(#n) OR attribute_not_exists(#nowhere)",
            "#steps = :set",
            "#steps = :text",
        ]
    ):
        write(f"if {number}", "a", f"SET #checked_{number} = :text", condition, **new)
    below_two = "attribute_not_exists(#n) OR #n < :two"
    write("a counter", "counter", "ADD #n :one", below_two, **new)
    write("it again", "counter", "ADD #n :one", below_two, **new)
    write("it beyond", "counter", "ADD #n :one", below_two, **new)
    write("a set", "d", "ADD #steps :set SET #n = :two", **new)
    write("all at once", "d", "ADD #n :one DELETE #steps :set REMOVE #nowhere SET #told = :text", **new)
    write("a text by a number", "a", "ADD #name :one")
    write("the key", "a", "SET #id = :text")
    write("one thing twice", "a", "SET #n = :one, #n = :two")
    write("too much", "a", "SET #n = :long")
    write("no table", "a", "SET #n = :one", None, "no-such-table")
    do("get by no key", dynamodb.get_item, TableName=TABLE, Key={"n": {"N": "1"}})
    do("get from no table", dynamodb.get_item, TableName="no-such-table", Key=key("a"))
    get("what is left", "a")

    def batch(step: str, *ids: str, table: str = TABLE, **more: Any) -> None:
        asked = {table: {"Keys": [key(id) for id in ids]} | more}
        do(f"get {step}", dynamodb.batch_get_item, RequestItems=asked)

    batch("many", "counter", "nothing", "a", ConsistentRead=True)
    parts = {"ProjectionExpression": "#id, #n", "ExpressionAttributeNames": {"#id": "id", "#n": "n"}}
    batch("parts of many", "a", "counter", **parts)
    batch("nothing of many", "nothing")
    batch("one twice", "a", "a")
    batch("too many", *(str(number) for number in range(101)))
    batch("many from no table", "a", table="no-such-table")


def key(id: str) -> dict[str, Any]:
    """The key of an item."""
    return {"id": {"S": id}}


def transactions(dynamodb: Any, do: Recorder) -> None:
    """Transactions that write all and such that write nothing."""

    def once(id: str) -> tuple[str, ...]:
        return id, "SET #step = :text", "attribute_not_exists(#id)"

    count = ("hour", "ADD #discards :one", "attribute_not_exists(#discards) OR #discards < :two")

    def transact(step: str, *updates: tuple[str, ...], **more: Any) -> None:
        asked = [{"Update": update(*each)} for each in updates]
        do(f"transact {step}", dynamodb.transact_write_items, TransactItems=asked, **more)
        asked = {TABLE: {"Keys": [key(id) for id in ("x", "y", "z", "hour")]}}
        do(f"what is there after: {step}", dynamodb.batch_get_item, RequestItems=asked)

    token = {"ClientRequestToken": "a-token"}
    transact("a reservation", once("x"), count, **token)
    transact("it again", once("x"), count, **token)
    transact("it anew", once("x"), count)
    transact("another", once("y"), count)
    transact("one too many", once("z"), count)
    transact("all that fails", once("x"), count, once("y"))
    transact("one item twice", once("z"), once("z"))


def comparable(play: Play) -> Play:
    """The same play with times as such, lists in an order, and ids by the order in which they appear."""
    names: dict[str, str] = {}

    def rename(text: str) -> str:
        def name(found: re.Match[str]) -> str:
            kind = found[0].split("-")[0]
            number = sum(name.startswith(f"{kind}-") for name in names)
            return names.setdefault(found[0], f"<{kind} {number}>")

        return re.sub(r"\b(ami|i|r|snap|vol)-[0-9a-f]{17}\b", name, text)

    def order(item: dict[str, Any] | str) -> list[str]:
        if isinstance(item, str):
            return [item]
        names = ("Name", "RegionName", "Description", "Key", "Size", "UserId", "id")
        return [str(item.get(name, "")) for name in names]

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
    # moto does not say when a snapshot was completed.
    "CompletionTime",
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
    # Nobody asked for them.
    "ConsumedCapacity",
    "ItemCollectionMetrics",
    # An update that makes an item does not count its key among what it updated.
    "update a counter.Attributes.id",
    # Each has a caller of its own.
    "who calls.Arn",
    "who calls.UserId",
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


def test_both_find_the_same_reserved_instances(sim_binary: Path, world: World):
    with serving(sim_binary, "--images", "0") as endpoint:
        sim = client("ec2", endpoint)
        reserved = sim.describe_reserved_instances()["ReservedInstances"]
        assert len(reserved) == 6
        world.moto.order("reserve", json.loads(json.dumps(reserved, default=str)))
        for name, value in [
            ("state", "active"),
            ("state", "retired"),
            ("product-description", "Windows"),
            ("product-description", "*(Amazon VPC)"),
            ("instance-type", "m5.*"),
            ("scope", "Region"),
            ("availability-zone", "eu-west-1a"),
        ]:
            request = {"Filters": [{"Name": name, "Values": [value]}]}
            ours, theirs = (ec2.describe_reserved_instances(**request) for ec2 in (sim, world.ec2))
            # Of times moto tells no more than the second.
            found = [
                [{**one, "Start": None, "End": None} for one in answer["ReservedInstances"]]
                for answer in (ours, theirs)
            ]
            assert found[0] == found[1], (name, value)


def test_both_serve_the_same_blocks_of_the_same_disk(sim_binary: Path, world: World, tmp_path: Path):
    name = "debian12"
    size, written = disk(name)
    raw = tmp_path / name
    with raw.open("wb") as file:
        file.truncate(size)
        for index, block in written.items():
            file.seek(index * len(block))
            file.write(block)
        file.truncate(size)

    def read(endpoint: str, snapshot: str) -> tuple[int, dict[int, bytes]]:
        ebs = client("ebs", endpoint)
        found, page = {}, {}
        while not page or page.get("NextToken"):
            # The fewest that a page has.
            more = {"NextToken": page["NextToken"]} if page else {}
            page = ebs.list_snapshot_blocks(SnapshotId=snapshot, MaxResults=100, **more)
            assert page["BlockSize"] == 512 * 1024
            for block in page["Blocks"]:
                answer = ebs.get_snapshot_block(SnapshotId=snapshot, **block)
                content = answer["BlockData"].read()
                assert answer["Checksum"] == b64encode(sha256(content).digest()).decode()
                assert answer["DataLength"] == len(content)
                found[block["BlockIndex"]] = content
        return page["VolumeSize"], found

    with serving(sim_binary, "--disk", raw) as endpoint:
        of_sim = read(endpoint, "snap-0000000000000a005")
    assert of_sim == read(world.moto.endpoint, world.snapshot_with_disk(name))
    assert of_sim == (-(-size // 2**30), written)


@pytest.mark.parametrize(
    "arguments", [["--disk"], ["--port", "x"], ["--images", "x"], ["--seed", "1"], ["--disc", "x"], ["x"]]
)
def test_sim_says_what_it_takes(sim_binary: Path, arguments: list[str]):
    done = subprocess.run([sim_binary, *arguments], capture_output=True, text=True, timeout=120)
    usage = "usage: sim [--port N] [--disk RAW-IMAGE-FILE] [--images N [--seed N]] [--throttled]\n"
    assert (done.returncode, done.stderr) == (2, usage)


def test_sim_serves_an_account_with_many_images_and_throttles_it(sim_binary: Path):
    with serving(sim_binary, "--images", "1200", "--seed", "7", "--throttled") as endpoint:
        ec2 = client("ec2", endpoint)
        pages = [page["Images"] for page in ec2.get_paginator("describe_images").paginate(MaxResults=1000)]
        with pytest.raises(ClientError) as error:
            # A call that takes its token even if EC2 then does nothing, from the bucket that fills the slowest.
            for _ in range(1000):
                ec2.disable_image(ImageId=pages[0][0]["ImageId"])
    assert [len(page) for page in pages] == [1000, 200]
    assert len({image["ImageId"] for page in pages for image in page}) == 1200
    assert error.value.response["Error"]["Code"] == "RequestLimitExceeded"


def test_sim_says_that_a_disk_is_not_there(sim_binary: Path):
    done = subprocess.run([sim_binary, "--disk", "/nowhere"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith('sim: "/nowhere" can not be read: No such file')
