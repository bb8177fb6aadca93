"""The AWS account that an end-to-end test plays in: moto with the extension, seen through boto3."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from itertools import groupby
from os import SEEK_END
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import boto3
import cfnlint.decode.cfn_yaml
from boto3.dynamodb.types import TypeDeserializer
from botocore.config import Config

from e2e.emulator import PATIENCE_SECONDS

ROOT = Path(__file__).resolve().parents[2]

ACCOUNT = "123456789012"
OTHER_ACCOUNT = "210987654321"
REGION = "eu-west-1"
TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:ami-billing-guard"

LEDGER = "ledger"

# The Recycle Bin rule that keeps what is discarded.
RULE = "JSzDHyLPHm0"

# Packs disks of the corpus, and unpacks them.
PACK = runpy.run_path(str(ROOT / "disk/corpus/pack.py"))

# What EBS reads and writes at once, and what the size of a volume is counted in.
BLOCK_BYTES, GIBIBYTE = 512 * 1024, 1024**3

EXPECT = "ami-billing-guard:expect"
DISCARD = "ami-billing-guard:discard"

# Old enough to be judged (GUARD_SETTLE_SECONDS is 300 by default), and young enough that an image
# which is not there counts as not visible yet (ten minutes).
SETTLED = timedelta(minutes=6)

# So old an event that all that belongs to it has come: an image that is not there is gone, and nothing more
# is to be heard of who registered it.
OLD = timedelta(minutes=11)

# The root device of every image that a test registers.
ROOT_DEVICE = "/dev/xvda"

# The search for images that were copied from one.
COPIES = "DescribeImages of copies"

# The looks around an image whose discard is due, side by side: whom is it shared with, does anything refer to
# it, was anything copied from it, and does anybody listen?
AROUND = ["DescribeImageAttribute", "DescribeImageReferences", COPIES, "GetTopicAttributes"]

# The calls that read what is on a snapshot.
DISK = ["ListSnapshotBlocks", "GetSnapshotBlock"]

# The looks at an image of these tests before anything is done, if a discard would follow: its root snapshot is of a
# volume that comes from nowhere, and is empty. See `looks_and_deeds`.
LOOKS = [
    "DescribeImages",
    "DescribeSnapshots",
    "DescribeImages",
    "DescribeVolumes",
    "ListSnapshotBlocks",
    "DescribeSnapshotAttribute",
]

# A discard's first steps: the mark, and then what can have changed is looked at once more.
PREPARED = ["CreateTags", "DescribeImages", *AROUND]

# The calls that change anything at all.
MUTATING = {"CreateTags", "DeregisterImage", "DisableImage", "DeleteSnapshot", "DeleteTags", "Publish"}

OPERATIONS = {
    "Linux/UNIX": "RunInstances",
    "Red Hat Enterprise Linux": "RunInstances:0010",
    "Red Hat Enterprise Linux with High Availability": "RunInstances:1010",
    "SUSE Linux": "RunInstances:000g",
    "Ubuntu Pro Linux": "RunInstances:0g00",
    "Windows": "RunInstances:0002",
    "Windows BYOL": "RunInstances:0800",
    "Windows with SQL Server Standard": "RunInstances:0006",
}


class Moto:
    """moto's server with the extension, in a process of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "e2e.moto_ext"],
            cwd=ROOT / "tests",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.endpoint = self._process.stdout.readline().strip()
        assert self.endpoint, "moto's server does not start: see its words above"
        # Making a client takes longer than all its calls of one test.
        self.ec2, self.sns, self.sqs = (client(service, self.endpoint) for service in ("ec2", "sns", "sqs"))
        self.ssm, self.dynamodb = (client(service, self.endpoint) for service in ("ssm", "dynamodb"))
        self.ebs = client("ebs", self.endpoint)

    def order(self, what: str, body: Any = None) -> Any:
        """Gives the extension an order beside the AWS protocols."""
        request = urllib.request.Request(f"{self.endpoint}/_guard/{what}", data=json.dumps(body).encode())
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise ValueError(f"{what}: {error.read().decode()}") from None

    def stop(self) -> None:
        """Ends the server."""
        self._process.communicate(timeout=PATIENCE_SECONDS)


def client(service: str, endpoint: str) -> Any:
    """A boto3 client of any server on loopback; it sees an error at once, without retries."""
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id="tests",
        aws_secret_access_key="tests",
        config=Config(retries={"total_max_attempts": 1}),
    )


class World:
    """An empty account with the guard's topic, a queue that hears it, and the Recycle Bin's rule."""

    def __init__(self, moto: Moto) -> None:
        self.moto = moto
        self.ec2, self.sns, self.sqs = moto.ec2, moto.sns, moto.sqs
        self.ssm, self.dynamodb, self.ebs = moto.ssm, moto.dynamodb, moto.ebs
        moto.order("reset")
        self.set_rule("available")
        assert self.sns.create_topic(Name=TOPIC.split(":")[-1])["TopicArn"] == TOPIC
        self._queue = self.sqs.create_queue(QueueName="alerts")["QueueUrl"]
        arn = self.sqs.get_queue_attributes(QueueUrl=self._queue, AttributeNames=["QueueArn"])
        self._subscription = self.sns.subscribe(
            TopicArn=TOPIC,
            Protocol="sqs",
            Endpoint=arn["Attributes"]["QueueArn"],
            # Without the envelope, for whose signature moto would make a key, slowly, each time.
            Attributes={"RawMessageDelivery": "true"},
        )["SubscriptionArn"]
        self._images = 0
        self._templates = 0

    def snapshot(self, bills: str | None = "Linux/UNIX", operation: str | None = None) -> str:
        """A snapshot whose metadata name a billing code; `None`: images of it bill nothing."""
        snapshot = self.snapshot_of(self.volume())
        self.bill(snapshot, bills, operation)
        return snapshot

    def bill(self, snapshot: str, bills: str | None, operation: str | None = None) -> None:
        """Names a billing code in a snapshot's metadata; `None`: images of it bill nothing."""
        if bills is not None:
            operation = operation or OPERATIONS[bills]
        self.moto.order(
            "snapshot",
            {"id": snapshot, "platform_details": bills, "usage_operation": operation},
        )

    def snapshot_with_disk(self, name: str, bills: str | None = "Linux/UNIX") -> str:
        """A snapshot with the blocks of a disk of the corpus, whose metadata name a billing code."""
        size, blocks = disk(name)
        snapshot = self.ebs.start_snapshot(VolumeSize=-(-size // GIBIBYTE))["SnapshotId"]
        for index, block in blocks.items():
            self.ebs.put_snapshot_block(
                SnapshotId=snapshot,
                BlockIndex=index,
                BlockData=block,
                DataLength=len(block),
                Checksum=b64encode(sha256(block).digest()).decode(),
                ChecksumAlgorithm="SHA256",
            )
        self.ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=len(blocks))
        self.bill(snapshot, bills)
        return snapshot

    def image(
        self,
        bills: str | None = "Linux/UNIX",
        operation: str | None = None,
        *,
        expect: str | None = None,
        tags: dict[str, str] | None = None,
        age: timedelta = SETTLED,
        name: str | None = None,
        **attributes: Any,
    ) -> str:
        """Registers an image from a snapshot with that billing code; see `register`."""
        return self.register(
            self.snapshot(bills, operation), expect=expect, tags=tags, age=age, name=name, **attributes
        )

    def register(
        self,
        snapshot: str | None,
        *,
        expect: str | None = None,
        tags: dict[str, str] | None = None,
        age: timedelta = SETTLED,
        name: str | None = None,
        **attributes: Any,
    ) -> str:
        """Registers an image from a snapshot, or from a bundle; attributes literally, whatever EC2 says."""
        self._images += 1
        tags = dict(tags or {})
        if expect is not None:
            tags[EXPECT] = expect
        request: dict[str, Any] = {
            "Name": name or f"golden-{self._images}",
            "Architecture": "x86_64",
            "VirtualizationType": "hvm",
            "RootDeviceName": ROOT_DEVICE,
        }
        if snapshot is None:
            request["ImageLocation"] = f"bundles/golden-{self._images}.manifest.xml"
        else:
            mapping = {"DeviceName": ROOT_DEVICE, "Ebs": {"SnapshotId": snapshot}}
            request["BlockDeviceMappings"] = [mapping]
        if tags:
            listed = [{"Key": key, "Value": value} for key, value in tags.items()]
            request["TagSpecifications"] = [{"ResourceType": "image", "Tags": listed}]
        image = self.ec2.register_image(**request)["ImageId"]
        self.change(image, creation_date=(now() - age).isoformat(), **attributes)
        return image

    def instance(self, bills: str = "Windows", image: str | None = None) -> str:
        """Launches an instance from an image, by default a new one with that billing code."""
        image = image or self.image(bills)
        launched = self.ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1)
        return launched["Instances"][0]["InstanceId"]

    def launch_template(self, *images: str) -> str:
        """A launch template with a version for each of these images."""
        self._templates += 1
        name = f"template-{self._templates}"
        template = self.ec2.create_launch_template(
            LaunchTemplateName=name, LaunchTemplateData={"ImageId": images[0]}
        )
        for image in images[1:]:
            self.ec2.create_launch_template_version(
                LaunchTemplateName=name, LaunchTemplateData={"ImageId": image}
            )
        return template["LaunchTemplate"]["LaunchTemplateId"]

    def set_rule(self, status: str) -> None:
        """Leaves the Recycle Bin with the one rule for what is discarded, which is `pending` or `available`."""
        rule = {"id": RULE, "status": status, "key": DISCARD, "value": "true", "days": 30}
        self.moto.order("rules", [rule])

    def nobody_listens(self) -> None:
        """Leaves the topic with a subscription by mail alone, whose link nobody has followed yet."""
        self.sns.unsubscribe(SubscriptionArn=self._subscription)
        self.sns.subscribe(TopicArn=TOPIC, Protocol="email", Endpoint="you@example.com")

    def root_volume(self, instance: str) -> str:
        """The volume at an instance's root device."""
        found = self.ec2.describe_instances(InstanceIds=[instance])
        mappings = found["Reservations"][0]["Instances"][0]["BlockDeviceMappings"]
        [root] = [mapping for mapping in mappings if mapping["DeviceName"] == ROOT_DEVICE]
        return root["Ebs"]["VolumeId"]

    def volume(self, snapshot: str | None = None) -> str:
        """A volume that is attached to nothing, made from a snapshot or empty."""
        source = {"Size": 8} if snapshot is None else {"SnapshotId": snapshot}
        return self.ec2.create_volume(AvailabilityZone=f"{REGION}a", **source)["VolumeId"]

    def snapshot_of(self, volume: str, description: str = "") -> str:
        """A snapshot of a volume, without metadata: images of it bill Linux/UNIX."""
        return self.ec2.create_snapshot(VolumeId=volume, Description=description)["SnapshotId"]

    def change(self, resource: str, **attributes: Any) -> None:
        """Sets attributes of an image, a snapshot or an instance behind the API's back."""
        self.moto.order("change", {"id": resource, **attributes})

    def fail(
        self,
        action: str,
        code: str,
        message: str = "no",
        *,
        status: int = 400,
        times: int = -1,
        spared: int = 0,
        lost: bool = False,
        reasons: tuple[str, ...] = (),
    ) -> None:
        """Makes the next calls of an action fail, or all of them, after the first few that are spared.

        Of one that is `lost`, only the answer is: the call takes effect.
        """
        fault = {"action": action, "code": code, "message": message, "status": status}
        fault |= {"times": times, "spared": spared, "lost": lost, "reasons": reasons}
        self.moto.order("fault", fault)

    def heal(self) -> None:
        """Nothing fails any more."""
        self.moto.order("heal")

    @contextmanager
    def holding(self, action: str) -> Iterator[Callable[[], None]]:
        """Lets the next call of an action wait until the block ends; what is given waits for that call."""
        self.moto.order("hold", {"action": action})

        def arrived() -> None:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while not self.moto.order("held"):
                assert time.monotonic() < deadline, f"nobody calls {action}"
                time.sleep(0.01)

        try:
            yield arrived
        finally:
            self.moto.order("release")

    def make_event_queue(self, settle_seconds: int) -> str:
        """Makes the event queue, and its dead-letter queue, as the template does. Its URL."""
        properties = json.loads(json.dumps(template_resource("EventQueue")))
        dead_letters = self.sqs.create_queue(QueueName="dead-letters")["QueueUrl"]
        arn = self.sqs.get_queue_attributes(QueueUrl=dead_letters, AttributeNames=["QueueArn"])
        redrive = properties["RedrivePolicy"] | {"deadLetterTargetArn": arn["Attributes"]["QueueArn"]}
        _, longest_delay, _ = properties["DelaySeconds"]["Fn::If"]
        attributes = {
            "DelaySeconds": str(min(settle_seconds, longest_delay)),
            "VisibilityTimeout": str(properties["VisibilityTimeout"]),
            "RedrivePolicy": json.dumps(redrive),
        }
        return self.sqs.create_queue(QueueName="registrations", Attributes=attributes)["QueueUrl"]

    def receive(self, queue: str) -> list[dict[str, Any]]:
        """What Lambda would take from a queue now, as it hands it to the function."""
        received = self.sqs.receive_message(
            QueueUrl=queue, MaxNumberOfMessages=10, MessageSystemAttributeNames=["All"], WaitTimeSeconds=0
        )
        return [
            {
                "messageId": message["MessageId"],
                "receiptHandle": message["ReceiptHandle"],
                "body": message["Body"],
                "attributes": message["Attributes"],
                "messageAttributes": {},
                "md5OfBody": message["MD5OfBody"],
                "eventSource": "aws:sqs",
                "eventSourceARN": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue.rsplit('/', 1)[-1]}",
                "awsRegion": REGION,
            }
            for message in received.get("Messages", [])
        ]

    def later(self, seconds: float) -> None:
        """So much later is it for the messages of all queues."""
        self.moto.order("pass", {"seconds": seconds})

    def make_ledger(self) -> None:
        """Makes the ledger's table as the template does."""
        properties = json.loads(json.dumps(template_resource("LedgerTable")))
        keys = ("KeySchema", "AttributeDefinitions", "BillingMode")
        self.dynamodb.create_table(TableName=LEDGER, **{key: properties[key] for key in keys})
        self.dynamodb.update_time_to_live(
            TableName=LEDGER, TimeToLiveSpecification=properties["TimeToLiveSpecification"]
        )

    def audited_before(self) -> None:
        """Has the ledger remember that the first audit was a week ago."""
        since = str(int((now() - timedelta(days=7)).timestamp() * 1000))
        item = {"id": {"S": f"audit#{ACCOUNT}#{REGION}"}, "since_ms": {"N": since}}
        self.dynamodb.put_item(TableName=LEDGER, Item=item)

    def ledger(self) -> dict[str, dict[str, Any]]:
        """The items of the ledger's table, by their ids."""
        plain = TypeDeserializer().deserialize
        items = []
        for page in self.dynamodb.get_paginator("scan").paginate(TableName=LEDGER, ConsistentRead=True):
            items += [{name: plain(value) for name, value in item.items()} for item in page["Items"]]
        return {item.pop("id"): item for item in items}

    def entry(self, image: str) -> dict[str, Any]:
        """An image's item in the ledger."""
        return self.ledger()[f"{ACCOUNT}#{REGION}#{image}"]

    def set_entry(self, image: str, name: str, number: int) -> None:
        """Sets a number in an image's item in the ledger."""
        self.dynamodb.update_item(
            TableName=LEDGER,
            Key={"id": {"S": f"{ACCOUNT}#{REGION}#{image}"}},
            UpdateExpression="SET #name = :number",
            ExpressionAttributeNames={"#name": name},
            ExpressionAttributeValues={":number": {"N": str(number)}},
        )

    def calls(self) -> list[dict[str, Any]]:
        """What the guard called, in this order, failed calls too."""
        return [call for call in self.moto.order("calls") if call["caller"] == "guard"]

    def actions(self) -> list[str]:
        """The names of what the guard called."""
        return [
            COPIES if call["params"].get("Filter.1.Name") == "source-image-id" else call["action"] for call in self.calls()
        ]

    def looks_and_deeds(self) -> tuple[list[str], list[str]]:
        """What the guard called before it changed or told anything, and what from then on.

        The deeds are in order. So are the first two looks, at the image and at its root snapshot; those
        that follow go side by side, and are sorted, and so are those after them at what is on the snapshot.
        So are, wherever they come together, the looks around the image.
        """
        actions = []
        for around, together in groupby(self.actions(), AROUND.__contains__):
            actions += sorted(together) if around else together
        deed = next((number for number, action in enumerate(actions) if action in MUTATING), len(actions))
        asked = next((number for number, action in enumerate(actions[:deed]) if action in AROUND), deed)
        looks = actions[:2][:asked]
        for _, together in groupby(actions[2:asked], DISK.__contains__):
            looks += sorted(together)
        return looks + actions[asked:deed], actions[deed:]

    def mutations(self) -> list[str]:
        """Those of the guard's calls that change something, an alert among them."""
        return [action for action in self.actions() if action in MUTATING]

    def alerts(self) -> list[dict[str, Any]]:
        """The records of the alerts since the last look, as the topic's queue got them."""
        alerts = []
        while messages := self.sqs.receive_message(
            QueueUrl=self._queue, MaxNumberOfMessages=10, WaitTimeSeconds=0
        ).get("Messages"):
            for message in messages:
                alerts.append(json.loads(message["Body"]))
                self.sqs.delete_message(QueueUrl=self._queue, ReceiptHandle=message["ReceiptHandle"])
        return alerts

    def letters(self) -> list[dict[str, str]]:
        """The alerts as people get them: the subject, the text, and the text without line breaks of each message."""
        return [
            {
                "subject": call["params"]["Subject"],
                "text": (text := json.loads(call["params"]["Message"])["email"]),
                "words": " ".join(text.split()),
            }
            for call in self.calls()
            if call["action"] == "Publish" and call["status"] == 200
        ]

    def tags(self, image: str) -> dict[str, str]:
        """The tags of an image that exists."""
        found = self.ec2.describe_images(ImageIds=[image])["Images"][0]
        return {tag["Key"]: tag["Value"] for tag in found.get("Tags", [])}

    def exists(self, image: str) -> bool:
        """Whether DescribeImages still shows the image."""
        own = self.ec2.describe_images(Owners=["self", OTHER_ACCOUNT], IncludeDisabled=True)
        return image in [found["ImageId"] for found in own["Images"]]

    def root_snapshot(self, image: str) -> str:
        """The snapshot behind an image that exists."""
        found = self.ec2.describe_images(ImageIds=[image])["Images"][0]
        return found["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]

    def snapshot_exists(self, snapshot: str) -> bool:
        """Whether the snapshot is still there."""
        found = self.ec2.describe_snapshots(Filters=[{"Name": "snapshot-id", "Values": [snapshot]}])
        return len(found["Snapshots"]) == 1


@cache
def disk(name: str) -> tuple[int, dict[int, bytes]]:
    """A disk of the corpus: its size in bytes, and its blocks that are not all zeros, by their indexes."""
    blocks: dict[int, bytearray] = {}
    with TemporaryDirectory() as folder:
        PACK["unpack"](ROOT / f"disk/corpus/images/{name}.gz", f"{folder}/disk")
        with open(f"{folder}/disk", "rb") as raw:
            for number, page in PACK["pages"](raw):
                index, at = divmod(number * len(page), BLOCK_BYTES)
                blocks.setdefault(index, bytearray(BLOCK_BYTES))[at : at + len(page)] = page
            size = raw.seek(0, SEEK_END)
    return size, {index: bytes(block) for index, block in blocks.items()}


@cache
def template_resource(name: str) -> dict[str, Any]:
    """The properties of a resource of template.yaml."""
    template = cfnlint.decode.cfn_yaml.load(str(ROOT / "template.yaml"))
    return template["Resources"][name]["Properties"]


def now() -> datetime:
    """This moment, in UTC."""
    return datetime.now(UTC)


def stamp(moment: datetime) -> str:
    """A moment as events write it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def template(case: str) -> dict[str, Any]:
    """An event of the folder events, as it is."""
    return json.loads((ROOT / "events" / f"{case}.json").read_text())


def registration(
    image: str, case: str = "register-image-assumed-role", *, age: timedelta = SETTLED
) -> dict[str, Any]:
    """The event of an image's registration: one of the folder events, about this image, just now."""
    event = deepcopy(template(case))
    detail = event["detail"]
    event["id"] = str(uuid.uuid4())
    event["time"] = stamp(now() - age)
    if "State" in detail:
        detail["ImageId"] = image
        event["resources"] = [f"arn:aws:ec2:{REGION}::image/{image}"]
    else:
        detail["eventID"] = str(uuid.uuid4())
        detail["eventTime"] = event["time"]
        if detail.get("responseElements"):
            detail["responseElements"]["imageId"] = image
    return event


def outcome(record: dict[str, Any]) -> str:
    """`mismatch/wrong by lineage: hold (inferred)` and the like."""
    words = record["verdict"]
    if record["kind"]:
        words += f"/{record['kind']}"
    if record["expected"]:
        words += f" by {record['expected']['source']}"
    words += f": {record['action']}"
    return words + (f" ({', '.join(record['held_by'])})" if record["held_by"] else "")


def this_hour() -> str:
    """The hour of the clock, as the ledger names it: discards and alerts are counted by it."""
    return f"{now():%Y-%m-%dT%H}"


def within_the_hour(seconds: int) -> None:
    """Waits for the next hour if this one ends so soon. For a fixture of many tests: a single one has the marker `one_hour`."""
    left = 3600 - time.time() % 3600
    if left < seconds:
        time.sleep(left)


def scheduled() -> dict[str, Any]:
    """The event of the template's hourly rule (EventBridge User Guide, "Creating a rule on a schedule")."""
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": ACCOUNT,
        "time": stamp(now()),
        "region": REGION,
        "resources": [f"arn:aws:events:{REGION}:{ACCOUNT}:rule/ami-billing-guard-DigestRule-1X2Y3Z"],
        "detail": {},
    }


def audit(day: int = 0) -> dict[str, Any]:
    """The event of the template's schedule, of today or of so many days later."""
    time = stamp(now() + timedelta(days=day))
    return json.loads((ROOT / "events/audit.json").read_text()) | {"id": uuid.uuid4().hex[:16], "time": time}


def batch(events: list[Any]) -> dict[str, Any]:
    """A batch as the queue's event source mapping hands it over; message n has the id `message-n`."""
    return {
        "Records": [
            {
                "messageId": f"message-{number}",
                "receiptHandle": f"receipt-{number}",
                "body": event if isinstance(event, str) else json.dumps(event),
                "attributes": {
                    "ApproximateReceiveCount": "1",
                    "SentTimestamp": str(int(now().timestamp() * 1000)),
                    "SenderId": "AIDAIENQZJOLO23YVJ4VO",
                    "ApproximateFirstReceiveTimestamp": str(int(now().timestamp() * 1000)),
                },
                "messageAttributes": {},
                "md5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3",
                "eventSource": "aws:sqs",
                "eventSourceARN": f"arn:aws:sqs:{REGION}:{ACCOUNT}:registrations",
                "awsRegion": REGION,
            }
            for number, event in enumerate(events, 1)
        ]
    }
