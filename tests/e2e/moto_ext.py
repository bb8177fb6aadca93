"""moto's server with what it lacks for the guard: `python -m e2e.moto_ext` in the folder tests.

What is added to moto's EC2:

- RegisterImage keeps block device mappings, tags, architecture and root device, and derives
  platform details and usage operation from the metadata of the root snapshot, as EC2 does;
- RunInstances gives an instance its image's billing and root volume, and CreateImage takes both
  from the instance;
- DescribeImages refuses a call that names one unknown id, finds images by their snapshots, leaves
  disabled images out, and those that others deprecated, comes in pages, and can be told not to see an
  image for the first n calls;
- DescribeSnapshotAttribute shows product codes, which RegisterImage copies, and a copied snapshot
  names no volume; DescribeImageAttribute says of an unknown image that it is unknown;
- DeregisterImage refuses what EC2 refuses and puts tagged images into a Recycle Bin, which
  ListImagesInRecycleBin shows and RestoreImageFromRecycleBin empties; DisableImage takes the launch
  permissions away;
- GetRule of the Recycle Bin, which moto does not have at all; a pending rule keeps nothing;
- DescribeImageReferences names instances, launch templates and SSM parameters that refer to images;
- DescribeRegions leaves out those that the account has not opted in to, unless it is asked for them,
  heeds filters, and refuses one that does not exist; DescribeReservedInstances shows what a test reserved;
- a topic counts its subscriptions: those by mail are never confirmed, all others are at once;
- time can be told to pass for the messages of SQS;
- any action can be told to fail, or to wait, and every call is logged in its order.

What is added to moto's DynamoDB:

- its calls take effect one after the other, as all calls here do. By itself moto is not atomic where
  requests come side by side: UpdateItem reads, compares and writes without a lock, and TransactWriteItems
  writes item by item, for all to see, and when it is cancelled puts back the whole table as it was when it
  began, with it whatever others wrote meanwhile (moto/dynamodb/models/__init__.py);
- a transaction that comes again with its ClientRequestToken is not carried out again;
- a comparison with an attribute of another type is not true. moto fails in the middle of it.

What is added to moto's EBS direct APIs: see `moto_ebs`.

Where moto still falls short of AWS: it shows the images, snapshots and tags of all accounts to
everybody; it knows a volume's last attachment alone, and none of a terminated instance's; an
image by CopyImage names no source, bills nothing, and has a snapshot of its own making; no two writers
of an item are ever in conflict, unless a test says so.

The server prints its address, serves until its standard input closes, and takes orders from the
tests beside the AWS protocols:

    POST /_guard/reset                  an empty world
    POST /_guard/snapshot               {"id", "platform_details", "usage_operation"}
    POST /_guard/change                 {"id", any attribute of the image, snapshot or instance: value}
    POST /_guard/rules                  [{"id", "status", "key", "value", "days"}]
    POST /_guard/pass                   {"seconds"}: so much later is it for the messages of all queues
    GET  /_guard/messages               [{"queue", "body", "visible_at", "receives"}] of all queues, times in seconds
    POST /_guard/reserve                [what DescribeReservedInstances shows]
    POST /_guard/fault                  {"action", "code", "message", "status", "times", "spared",
                                         "lost": the call takes effect, "reasons": of a cancelled transaction,
                                         or one that EBS has}
    POST /_guard/heal                   nothing fails any more
    POST /_guard/hold                   {"action"}: its next call waits
    GET  /_guard/held                   whether one does
    POST /_guard/release                until now
    GET  /_guard/calls                  [{"action", "params", "caller", "status", "code", …}]
    GET  /_guard/seen                   [[caller, service, action]] of all calls since the server started
    GET  /_guard/recorded               the guard's requests since then as they came, each kind of them once
"""

from __future__ import annotations

import copy
import io
import json
import os
import re
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import parse_qsl

# Amazon's own images would make every reset slow, and no test looks at them.
os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"

from moto.core.responses import ActionResult  # noqa: E402
from moto.dynamodb.comparisons import (  # noqa: E402
    FuncBetween,
    OpGreaterThan,
    OpGreaterThanOrEqual,
    OpLessThan,
    OpLessThanOrEqual,
)
from moto.ec2.exceptions import (  # noqa: E402
    EC2ClientError,
    InvalidAMIIdError,
    InvalidSnapshotIdError,
    UnvailableAMIIdError,
)
from moto.ec2.models import ec2_backends  # noqa: E402
from moto.ec2.models.amis import Ami  # noqa: E402
from moto.ec2.models.elastic_block_store import EBSBackend, Snapshot, Volume  # noqa: E402
from moto.ec2.models.instances import Instance  # noqa: E402
from moto.ec2.responses import EC2Response  # noqa: E402
from moto.moto_api._internal import moto_api_backend  # noqa: E402
from moto.moto_server.werkzeug_app import (  # noqa: E402
    DomainDispatcherApplication,
    create_backend_app,
)
from moto.sns.models import SNSBackend, Topic  # noqa: E402
from moto.sqs.models import sqs_backends  # noqa: E402
from moto.ssm.models import ssm_backends  # noqa: E402
from moto.ssm.utils import parameter_arn  # noqa: E402
from werkzeug.serving import WSGIRequestHandler, make_server  # noqa: E402

from e2e.moto_ebs import NO_VOLUME  # noqa: E402

ACCOUNT = "123456789012"
REGION = "eu-west-1"

# EC2 gives these to an image whose snapshot has lost its metadata.
LOST = {"platform_details": "Linux/UNIX", "usage_operation": "RunInstances"}

# What DescribeImageReferences looks at unless it is told otherwise: instances in all states, and so many
# of the newest versions of a launch template.
STATES = ("pending", "running", "shutting-down", "terminated", "stopping", "stopped")
VERSION_DEPTH = ("10",)


@dataclass
class State:
    """What the extension remembers beside moto's own models."""

    billing: dict[str, dict[str, str | None]] = field(default_factory=dict)
    rules: list[dict[str, Any]] = field(default_factory=list)
    reserved: list[dict[str, Any]] = field(default_factory=list)
    recycle_bin: dict[str, dict[str, Any]] = field(default_factory=dict)
    binned: dict[str, Ami] = field(default_factory=dict)
    transactions: dict[str, tuple[str, Any, bytes]] = field(default_factory=dict)
    hold: str | None = None
    held: bool = False
    released: threading.Event = field(default_factory=threading.Event)
    faults: list[dict[str, Any]] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)


STATE = State()
SEEN: set[tuple[str, str, str]] = set()
RECORDED: dict[Any, dict[str, Any]] = {}
LOCK = threading.RLock()


class RegisteredImage(Ami):
    """An image as RegisterImage leaves it. moto's class computes both attributes from others."""

    # moto files every model under the service that its module's name says.
    __module__ = Ami.__module__

    block_device_mappings: list[dict[str, Any]] = []
    source_instance_id: str | None = None

    def __init__(self, backend: Any, **attributes: Any) -> None:
        super().__init__(
            backend,
            f"ami-0{secrets.token_hex(8)}",
            hypervisor="xen",
            region_name=f"{REGION}a",
            **attributes,
        )
        # moto takes a snapshot for every image; RegisterImage only refers to those that exist.
        backend.snapshots.pop(self.ebs_snapshot.id)
        self.platform_details: str | None = LOST["platform_details"]
        self.usage_operation: str | None = LOST["usage_operation"]
        self.ena_support = False
        self.deregistration_protection = "disabled"
        self.source_image_id: str | None = None
        self.source_image_region: str | None = None
        self.deprecation_time: datetime | None = None
        self.product_codes: list[dict[str, str]] = []
        self.invisible_for = 0

    def bill(self, metadata: dict[str, str | None]) -> None:
        """Takes the billing that the metadata of a root snapshot name."""
        self.platform_details = metadata["platform_details"]
        self.usage_operation = metadata["usage_operation"]
        if (self.platform_details or "").startswith("Windows"):
            self.platform = "windows"

    def tag(self, specifications: list[dict[str, Any]]) -> None:
        """Sets the tags that a request has for the image."""
        for specification in specifications:
            if specification["ResourceType"] == "image":
                self.add_tags({tag["Key"]: tag["Value"] for tag in specification["Tags"]})


# What moto's models lack, as it is until somebody says otherwise.
Snapshot.product_codes = []
Instance.platform_details = None
Instance.usage_operation = None
Instance.usage_operation_update_time = None


def register_image(self: EC2Response) -> ActionResult:
    """RegisterImage: the billing comes from the snapshot behind the root device."""
    get = self._get_param
    name = free_name(self)
    self.error_on_dryrun()
    backend = self.ec2_backend

    root = get("RootDeviceName")
    mappings = []
    product_codes: set[str] = set()
    metadata: dict[str, str | None] = dict(LOST)
    for mapping in get("BlockDeviceMappings", []):
        ebs = mapping.get("Ebs", {})
        snapshot_id = ebs.get("SnapshotId")
        if snapshot_id is not None:
            if snapshot_id not in backend.snapshots:
                raise InvalidSnapshotIdError()
            snapshot = backend.snapshots[snapshot_id]
            product_codes.update(snapshot.product_codes)
            ebs = {
                "VolumeSize": snapshot.volume_size,
                "VolumeType": "standard",
                "DeleteOnTermination": True,
                "Encrypted": snapshot.encrypted,
            } | dict(ebs)
        if mapping["DeviceName"] == root:
            metadata = STATE.billing.get(snapshot_id or "", metadata)
        mappings.append({"DeviceName": mapping["DeviceName"], "Ebs": ebs})

    image = RegisteredImage(
        backend,
        name=name,
        description=get("Description"),
        architecture=get("Architecture", "i386"),
        virtualization_type=get("VirtualizationType", "paravirtual"),
        boot_mode=get("BootMode"),
        root_device_name=root,
        root_device_type="ebs" if mappings else "instance-store",
        image_location=get("ImageLocation", f"{ACCOUNT}/{name}"),
    )
    image.ena_support = bool(get("EnaSupport", False))
    image.block_device_mappings = mappings
    image.product_codes = listed(product_codes)
    image.bill(metadata)
    image.tag(get("TagSpecifications", []))
    backend.amis[image.id] = image
    return ActionResult({"ImageId": image.id})


def free_name(self: EC2Response) -> str:
    """The name that a request has for a new image, if it has one that no other image has."""
    name = self._get_param("Name")
    if not name:
        raise EC2ClientError("MissingParameter", "The request must contain the parameter name")
    if any(image.name == name for image in self.ec2_backend.amis.values()):
        raise EC2ClientError("InvalidAMIName.Duplicate", f"AMI name {name} is already in use")
    return name


def listed(product_codes: set[str]) -> list[dict[str, str]]:
    """Product codes as answers have them."""
    return [{"ProductCodeId": code, "ProductCodeType": "marketplace"} for code in sorted(product_codes)]


def create_image(self: EC2Response) -> ActionResult:
    """CreateImage: snapshots of the instance's volumes, and the billing of the instance."""
    get = self._get_param
    name = free_name(self)
    self.error_on_dryrun()
    backend = self.ec2_backend
    instance = backend.get_instance(get("InstanceId"))
    image = RegisteredImage(
        backend,
        name=name,
        description=get("Description"),
        architecture=instance.architecture,
        virtualization_type=instance.virtualization_type,
        root_device_name=instance.root_device_name,
        root_device_type="ebs",
        image_location=f"{ACCOUNT}/{name}",
    )
    metadata = {
        "platform_details": instance.platform_details,
        "usage_operation": instance.usage_operation,
    }
    mappings = []
    for device, block in instance.get_block_device_mapping:
        described = f"Created by CreateImage({instance.id}) for {image.id}"
        snapshot = backend.create_snapshot(block.volume_id, described)
        if device == instance.root_device_name:
            STATE.billing[snapshot.id] = metadata
        ebs = {"SnapshotId": snapshot.id, "VolumeSize": block.size, "DeleteOnTermination": True}
        mappings.append({"DeviceName": device, "Ebs": ebs})
    image.block_device_mappings = mappings
    image.source_instance_id = instance.id
    image.bill(metadata)
    image.tag(get("TagSpecifications", []))
    backend.amis[image.id] = image
    return ActionResult({"ImageId": image.id})


without_image = Instance.setup_defaults


def set_up_from_image(self: Instance) -> None:
    """RunInstances: billing and volumes of a new instance are its image's. moto's are of nothing."""
    image = self.ec2_backend.amis.get(self.image_id)
    if not isinstance(image, RegisteredImage):
        return without_image(self)
    self.platform_details = image.platform_details
    self.usage_operation = image.usage_operation
    self.usage_operation_update_time = self.launch_time
    for mapping in image.block_device_mappings:
        ebs = mapping["Ebs"]
        self.add_block_device(
            size=ebs["VolumeSize"],
            device_path=mapping["DeviceName"],
            snapshot_id=ebs["SnapshotId"],
            encrypted=False,
            delete_on_termination=ebs["DeleteOnTermination"],
            kms_key_id=None,
            volume_type=None,
        )


of_a_volume = EBSBackend.copy_snapshot


def copy_snapshot(self: EBSBackend, *arguments: Any, **named: Any) -> Snapshot:
    """CopySnapshot: a copy is of no volume. moto's is of its source's."""
    snapshot = of_a_volume(self, *arguments, **named)
    snapshot.volume = copy.copy(snapshot.volume)
    snapshot.volume.id = NO_VOLUME
    return snapshot


without_an_empty_snapshot_id = Volume.__init__


def set_up_volume(self: Volume, *arguments: Any, **named: Any) -> None:
    """A volume that was made from no snapshot has an empty `SnapshotId` in EC2's answers, and `Attachments` too: so
    `aws ec2 describe-volumes` prints them of a real account (public notes of 2024). moto leaves the id out."""
    without_an_empty_snapshot_id(self, *arguments, **named)
    self.snapshot_id = self.snapshot_id or ""


Volume.__init__ = set_up_volume

def of_one_type(compare: Callable[..., bool]) -> Callable[..., bool]:
    """A comparison in a condition, which is not true of an attribute of another type."""

    def compared(self: Any, item: Any) -> bool:
        try:
            return compare(self, item)
        except TypeError:
            return False

    return compared


for comparison in (OpLessThan, OpLessThanOrEqual, OpGreaterThan, OpGreaterThanOrEqual, FuncBetween):
    comparison.expr = of_one_type(comparison.expr)

# What moto's backend does itself in the course of these actions.
Instance.setup_defaults = set_up_from_image
EBSBackend.copy_snapshot = copy_snapshot

permissions = EC2Response.describe_snapshot_attribute


def describe_snapshot_attribute(self: EC2Response) -> ActionResult:
    """DescribeSnapshotAttribute: product codes too."""
    if self._get_param("Attribute") != "productCodes":
        return permissions(self)
    snapshot = self.ec2_backend.get_snapshot(self._get_param("SnapshotId"))
    return ActionResult({"SnapshotId": snapshot.id, "ProductCodes": listed(set(snapshot.product_codes))})


def describe_images(self: EC2Response) -> ActionResult:
    """DescribeImages: one unknown id refuses the call, a recently deregistered one is left out."""
    self.error_on_dryrun()
    backend = self.ec2_backend
    ids = self._get_param("ImageIds", [])
    unseen = {image.id for image in backend.amis.values() if hidden(image, ids)}
    unknown = [
        image_id
        for image_id in ids
        if image_id.startswith("ami-")
        and (image_id in unseen or image_id not in {*backend.amis, *backend.deleted_amis})
    ]
    if unknown:
        raise InvalidAMIIdError(unknown)
    filters = self._filters_from_querystring()
    # moto does not know it; and of an image with two snapshots it would want both to be asked for.
    snapshots = filters.pop("block-device-mapping.snapshot-id", None)
    sources = filters.pop("source-image-id", None)
    images = backend.describe_images(
        ami_ids=ids,
        filters=filters,
        exec_users=self._get_param("ExecutableUsers", []),
        owners=self._get_param("Owners", []),
    )
    if snapshots is not None:
        images = [image for image in images if has_one_of(image, snapshots)]
    if sources is not None:
        images = [image for image in images if image.source_image_id in sources]
    if not self._get_param("IncludeDisabled", False):
        images = [image for image in images if image.state != "disabled"]
    if not ids and not self._get_param("IncludeDeprecated", False):
        images = [image for image in images if image.owner_id == ACCOUNT or not deprecated(image)]
    return paged(self, [image for image in images if image.id not in unseen])


def paged(self: EC2Response, images: list[Ami]) -> ActionResult:
    """The page of the images that a call asks for, in the order of their ids."""
    after, most = self._get_param("NextToken", ""), self._get_param("MaxResults")
    left = sorted((image for image in images if image.id > after), key=lambda image: image.id)
    page = left[:most]
    return ActionResult({"Images": page} | ({"NextToken": page[-1].id} if len(page) < len(left) else {}))


def has_one_of(image: Ami, snapshots: list[str]) -> bool:
    """Whether one of the image's devices is of one of the snapshots."""
    return any(mapping["Ebs"].get("SnapshotId") in snapshots for mapping in image.block_device_mappings)


def deprecated(image: Ami) -> bool:
    """Whether the image is shown to others only if they ask for deprecated ones."""
    since = getattr(image, "deprecation_time", None)
    return since is not None and since <= datetime.now(UTC)


def hidden(image: Ami, ids: list[str]) -> bool:
    """Whether this call does not see the image yet; each call that asks for it uses one up."""
    left = getattr(image, "invisible_for", 0)
    if left and (not ids or image.id in ids):
        image.invisible_for = left - 1
    return left > 0


def deregister_image(self: EC2Response) -> ActionResult:
    """DeregisterImage: what EC2 refuses, the snapshots if the caller asks, the Recycle Bin."""
    self.error_on_dryrun()
    backend = self.ec2_backend
    image_id = self._get_param("ImageId")
    image = backend.amis.get(image_id)
    tags = {tag["key"]: tag["value"] for tag in image.get_tags()} if image else {}
    if image:
        may_deregister(image, tags)
    # Says itself that an image is unknown or gone.
    backend.deregister_image(image_id)
    if self._get_param("DeleteAssociatedSnapshots", False):
        for mapping in image.block_device_mappings:
            backend.snapshots.pop(mapping["Ebs"].get("SnapshotId"), None)
    rules = [rule for rule in STATE.rules if rule["status"] == "available"]
    days = [rule["days"] for rule in rules if tags.get(rule["key"]) == rule["value"]]
    # An instance-store-backed image is not kept.
    if days and image.root_device_type != "instance-store":
        now = datetime.now(UTC)
        STATE.recycle_bin[image_id] = {
            "ImageId": image_id,
            "Name": image.name,
            "Description": image.description,
            "RecycleBinEnterTime": now,
            "RecycleBinExitTime": now + timedelta(days=max(days)),
        }
        STATE.binned[image_id] = image
    return ActionResult({"Return": True})


def may_deregister(image: Ami, tags: dict[str, str]) -> None:
    """Raises what EC2 answers for an image that it does not let go."""
    if image.owner_id != ACCOUNT:
        raise EC2ClientError("AuthFailure", f"Not authorized for image:{image.id}")
    if "aws:backup:source-resource" in tags:
        raise EC2ClientError(
            "AuthFailure",
            "This image is managed by AWS Backup and cannot be deleted via EC2 APIs. "
            "To delete this image, please use the AWS Backup APIs, CLI, or console.",
        )
    # The real error code is not documented; this one is in the list of EC2's client errors.
    if image.deregistration_protection != "disabled":
        raise EC2ClientError(
            "OperationNotPermitted", f"Image {image.id} has deregistration protection enabled"
        )


def list_images_in_recycle_bin(self: EC2Response) -> ActionResult:
    """ListImagesInRecycleBin: with ids, only those of them that are there."""
    self.error_on_dryrun()
    ids = self._get_param("ImageIds", [])
    images = [entry for key, entry in STATE.recycle_bin.items() if not ids or key in ids]
    return ActionResult({"Images": images})


def restore_image_from_recycle_bin(self: EC2Response) -> ActionResult:
    """RestoreImageFromRecycleBin: the image as it was."""
    self.error_on_dryrun()
    image_id = self._get_param("ImageId")
    if image_id not in STATE.binned:
        raise EC2ClientError("InvalidAMIID.NotFound", f"{image_id} is not in the Recycle Bin")
    del STATE.recycle_bin[image_id]
    self.ec2_backend.amis[image_id] = STATE.binned.pop(image_id)
    self.ec2_backend.deleted_amis.remove(image_id)
    return ActionResult({"Return": True})


without_looking = EC2Response.describe_image_attribute


def describe_image_attribute(self: EC2Response) -> ActionResult:
    """DescribeImageAttribute: says itself that an image is unknown or gone. moto breaks down."""
    image_id = self._get_param("ImageId")
    if image_id in self.ec2_backend.deleted_amis:
        raise UnvailableAMIIdError(image_id)
    if image_id not in self.ec2_backend.amis:
        raise InvalidAMIIdError(image_id)
    return without_looking(self)


shared_as_before = EC2Response.disable_image


def disable_image(self: EC2Response) -> ActionResult:
    """DisableImage: nobody may launch from it any more, once it is enabled again neither."""
    answer = shared_as_before(self)
    self.ec2_backend.amis[self._get_param("ImageId")].launch_permissions = []
    return answer


def describe_image_references(self: EC2Response) -> ActionResult:
    """DescribeImageReferences: of the types asked for, or of all, and then within the options of some."""
    self.error_on_dryrun()
    ids, everything = self._get_param("ImageIds", []), self._get_param("IncludeAllResourceTypes", False)
    asked = {
        resource["ResourceType"]: {
            option["OptionName"].replace("-", "_"): option["OptionValues"]
            for option in resource.get("ResourceTypeOptions", [])
        }
        for resource in self._get_param("ResourceTypes", [])
    }
    if not ids or not (everything or asked):
        raise EC2ClientError("MissingParameter", "The request must contain images and types of resources")
    unknown = asked.keys() - REFERENCES.keys()
    if unknown:
        raise EC2ClientError("InvalidParameterValue", f"Invalid resource types: {sorted(unknown)}")
    references = [
        {"ImageId": image, "ResourceType": kind, "Arn": arn}
        for image in ids
        for kind, arns in REFERENCES.items()
        if everything or kind in asked
        for arn in arns(self, image, **asked.get(kind, {}))
    ]
    return ActionResult({"ImageReferences": references})


def by_instances(self: EC2Response, image: str, state_name: Sequence[str] = STATES) -> Iterator[str]:
    """The ARNs of the instances of an image that are in one of these states."""
    if not set(state_name) <= set(STATES):
        raise EC2ClientError("InvalidParameterValue", f"Invalid states: {state_name}")
    for instance in self.ec2_backend.all_instances():
        if instance.image_id == image and instance.state in state_name:
            yield f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/{instance.id}"


def by_launch_templates(
    self: EC2Response, image: str, version_depth: Sequence[str] = VERSION_DEPTH
) -> Iterator[str]:
    """The ARNs of the launch templates of which one of so many newest versions names an image."""
    [depth] = version_depth
    for template in self.ec2_backend.launch_templates.values():
        if any(version.image_id == image for version in template.versions[-int(depth) :]):
            yield f"arn:aws:ec2:{REGION}:{ACCOUNT}:launch-template/{template.id}"


def by_parameters(self: EC2Response, image: str) -> Iterator[str]:
    """The ARNs of the SSM parameters whose value is an image's id."""
    for name, versions in ssm_backends[ACCOUNT][REGION]._parameters.items():
        if versions and versions[-1].value == image:
            yield parameter_arn(ACCOUNT, REGION, name)


def by_recipes(self: EC2Response, image: str) -> Iterator[str]:
    """moto knows no recipes of Image Builder."""
    return iter(())


REFERENCES = {
    "ec2:Instance": by_instances,
    "ec2:LaunchTemplate": by_launch_templates,
    "ssm:Parameter": by_parameters,
    "imagebuilder:ImageRecipe": by_recipes,
    "imagebuilder:ContainerRecipe": by_recipes,
}


def describe_regions(self: EC2Response) -> ActionResult:
    """DescribeRegions: only those that the account can use, unless all or certain ones are asked for."""
    self.error_on_dryrun()
    names, regions = self._get_param("RegionNames", []), self.ec2_backend.describe_regions()
    unknown = {*names} - {region.name for region in regions}
    if unknown:
        raise EC2ClientError("InvalidParameterValue", f"Invalid region: {sorted(unknown)}")
    if names:
        regions = [region for region in regions if region.name in names]
    elif not self._get_param("AllRegions", False):
        regions = [region for region in regions if region.opt_in_status != "not-opted-in"]
    shown = [
        {"RegionName": region.name, "Endpoint": region.endpoint, "OptInStatus": region.opt_in_status}
        for region in regions
    ]
    filters = {"endpoint": "Endpoint", "opt-in-status": "OptInStatus", "region-name": "RegionName"}
    return ActionResult({"Regions": filtered(self, shown, filters)})


def describe_reserved_instances(self: EC2Response) -> ActionResult:
    """DescribeReservedInstances: without pages, as in EC2."""
    self.error_on_dryrun()
    ids = self._get_param("ReservedInstancesIds", [])
    known = {reserved["ReservedInstancesId"]: reserved for reserved in STATE.reserved}
    if not known.keys() >= {*ids}:
        raise EC2ClientError("InvalidReservedInstancesId", f"No such Reserved Instances: {ids}")
    filters = {
        "availability-zone": "AvailabilityZone",
        "instance-type": "InstanceType",
        "product-description": "ProductDescription",
        "scope": "Scope",
        "state": "State",
    }
    shown = filtered(self, [known[key] for key in ids or known], filters)
    return ActionResult({"ReservedInstances": shown})


def filtered(
    self: EC2Response, items: list[dict[str, Any]], filters: dict[str, str]
) -> list[dict[str, Any]]:
    """The items that pass the filters of a call, of which each looks at a key."""
    for name, patterns in self._filters_from_querystring().items():
        if name not in filters:
            raise EC2ClientError("InvalidParameterValue", f"The filter '{name}' is invalid")
        key = filters[name]
        items = [
            item
            for item in items
            if any(fnmatchcase(item.get(key, ""), pattern) for pattern in patterns)
        ]
    return items


uncounted = SNSBackend.get_topic


def get_topic(self: SNSBackend, arn: str) -> Topic:
    """GetTopicAttributes: how many listen. moto says that nobody does."""
    topic = uncounted(self, arn)
    subscriptions = self._get_topic_subscriptions(topic)
    by_mail = [subscription.protocol.startswith("email") for subscription in subscriptions]
    topic.subscriptions_pending = by_mail.count(True)
    topic.subscriptions_confimed = by_mail.count(False)
    return topic


# What moto looks up for this action, and for others that do not mind.
SNSBackend.get_topic = get_topic

# moto finds an action by the name of a method of this class.
for action in (
    register_image,
    create_image,
    describe_images,
    describe_image_attribute,
    describe_snapshot_attribute,
    deregister_image,
    list_images_in_recycle_bin,
    restore_image_from_recycle_bin,
    disable_image,
    describe_image_references,
    describe_regions,
    describe_reserved_instances,
):
    setattr(EC2Response, action.__name__, action)


def order(what: str, body: Any) -> Any:
    """Does what a test asks for beside the AWS protocols."""
    backend = ec2_backends[ACCOUNT][REGION]
    if what == "reset":
        moto_api_backend.reset()
        STATE.__init__()  # type: ignore[misc]
    elif what == "snapshot":
        STATE.billing[body.pop("id")] = body
    elif what == "change":
        instances = {instance.id: instance for instance in backend.all_instances()}
        model = (backend.amis | backend.snapshots | instances)[body.pop("id")]
        for attribute, value in body.items():
            # A misspelt attribute would be set, and change nothing.
            if not hasattr(model, attribute):
                raise ValueError(f"{model.id} has no attribute {attribute}")
            if attribute == "creation_date" or attribute.endswith("_time"):
                value = datetime.fromisoformat(value)
            setattr(model, attribute, value)
    elif what == "rules":
        STATE.rules = body
    elif what == "pass":
        for _, message in queued():
            message.visible_at -= body["seconds"] * 1000
            message.delayed_until -= body["seconds"] * 1000
    elif what == "messages":
        return [
            {
                "queue": queue,
                "body": message.body,
                "visible_at": max(message.visible_at, message.delayed_until) / 1000,
                "receives": message.approximate_receive_count,
            }
            for queue, message in queued()
        ]
    elif what == "reserve":
        STATE.reserved = body
    elif what == "fault":
        STATE.faults.append(body)
    elif what == "heal":
        STATE.faults.clear()
    elif what == "hold":
        STATE.hold, STATE.held = body["action"], False
        STATE.released.clear()
    elif what == "held":
        return STATE.held
    elif what == "release":
        STATE.hold = None
        STATE.released.set()
    elif what == "calls":
        return STATE.calls
    elif what == "seen":
        return sorted(SEEN)
    elif what == "recorded":
        return [*RECORDED.values()]
    else:
        raise ValueError(f"no such order: {what}")
    return {}


def queued() -> Iterator[tuple[str, Any]]:
    """All messages, with the names of their queues."""
    for name, queue in sqs_backends[ACCOUNT][REGION].queues.items():
        for message in queue._messages:
            yield name, message


class Application:
    """moto's application behind the log of calls, the faults and the tests' own orders."""

    def __init__(self) -> None:
        self.moto = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        wait_if_told(environ, body)
        # One call at a time: the log's order is the order in which the calls took effect.
        with LOCK:
            path = environ["PATH_INFO"]
            if path.startswith("/_guard/"):
                return self.order(path.removeprefix("/_guard/"), body, start_response)
            environ["wsgi.input"] = io.BytesIO(body)
            return self.call(environ, body, start_response)

    def order(self, what: str, body: bytes, start_response: Any) -> list[bytes]:
        try:
            status, answer = "200 OK", order(what, json.loads(body) if body else None)
        except Exception as error:  # the test that asked has to see it
            status, answer = "400 Bad Request", {"error": repr(error)}
        start_response(status, [("Content-Type", "application/json")])
        return [json.dumps(answer, default=str).encode()]

    def call(self, environ: dict[str, Any], body: bytes, start_response: Any) -> list[bytes]:
        entry = describe_call(environ, body)
        STATE.calls.append(entry)
        SEEN.add((str(entry["caller"]), str(entry["service"]), entry["action"]))
        record(environ, body, entry)
        fault = next((f for f in STATE.faults if f["action"] == entry["action"]), None)
        if fault is not None and fault["spared"]:
            fault["spared"] -= 1
            fault = None
        if fault is None or fault["lost"]:
            serve = get_rule if entry["action"] == "GetRule" else self.served_once
            status, headers, answer = serve(environ, entry)
        if fault is not None:
            fault["times"] -= 1
            if fault["times"] == 0:
                STATE.faults.remove(fault)
            status, headers = f"{fault['status']} Fault", [("Content-Type", "text/xml")]
            if entry["service"] in ("ebs", "rbin"):
                headers = [("Content-Type", "application/json"), ("x-amzn-errortype", fault["code"])]
            answer = error_body(entry["service"], fault).encode()
        entry["status"] = int(status.split()[0])
        if entry["status"] >= 400:
            code = re.search(rb'<Code>([^<]+)</Code>|"__type": *"(?:[^"#]*#)?([^"#]+)"', answer)
            entry["code"] = (code[1] or code[2]).decode() if code else dict(headers).get("x-amzn-errortype")
        start_response(status, headers)
        return [answer]

    def served_once(self, environ: dict[str, Any], entry: dict[str, Any]) -> tuple[str, Any, bytes]:
        """moto's answer; of a transaction that it carried out already, the same as then."""
        token = entry["params"].get("ClientRequestToken")
        if token in STATE.transactions:
            return STATE.transactions[token]
        head: list[Any] = []
        answer = b"".join(self.moto(environ, lambda status, headers, _=None: head.extend((status, headers))))
        served = head[0], head[1], answer
        if token is not None and head[0].startswith("200"):
            STATE.transactions[token] = served
        return served


def get_rule(environ: dict[str, Any], entry: dict[str, Any]) -> tuple[str, Any, bytes]:
    """GetRule of the Recycle Bin: of a rule that a test has made."""
    identifier = entry["params"].get("Identifier", "")
    rule = next((rule for rule in STATE.rules if rule["id"] == identifier), None)
    headers = [("Content-Type", "application/json")]
    if rule is None:
        status, code, reason = "404 Not Found", "ResourceNotFoundException", "RULE_NOT_FOUND"
        message = f"The rule '{identifier}' does not exist."
        if not re.fullmatch("[0-9a-zA-Z]{11}", identifier):
            status, code, reason = "400 Bad Request", "ValidationException", "INVALID_PARAMETER_VALUE"
            message = f"The rule identifier '{identifier}' is not valid."
        body = json.dumps({"Message": message, "Reason": reason})
        return status, [*headers, ("x-amzn-errortype", code)], body.encode()
    answer = {
        "Identifier": identifier,
        "Description": "",
        "ResourceType": "EC2_IMAGE",
        "RetentionPeriod": {"RetentionPeriodValue": rule["days"], "RetentionPeriodUnit": "DAYS"},
        "ResourceTags": [{"ResourceTagKey": rule["key"], "ResourceTagValue": rule["value"]}],
        "Status": rule["status"],
        "LockState": "unlocked",
        "RuleArn": f"arn:aws:rbin:{REGION}:{ACCOUNT}:rule/{identifier}",
    }
    return "200 OK", headers, json.dumps(answer).encode()


def wait_if_told(environ: dict[str, Any], body: bytes) -> None:
    """Waits, if a test has told this action to, before the call is logged and takes effect."""
    with LOCK:
        if environ["PATH_INFO"].startswith("/_guard/") or STATE.hold is None:
            return
        if describe_call(environ, body)["action"] != STATE.hold:
            return
        # This one call alone.
        STATE.hold, STATE.held = None, True
        released = STATE.released
    # Should the test have failed meanwhile, the guard has long given up.
    released.wait(30)


def describe_call(environ: dict[str, Any], body: bytes) -> dict[str, Any]:
    """Who calls what: service and caller are named by the signature, which nobody checks."""
    scope = re.search(r"Credential=([^/]+)/\d+/[^/]+/([^/]+)/", environ.get("HTTP_AUTHORIZATION", ""))
    service, target = scope[2] if scope else None, environ.get("HTTP_X_AMZ_TARGET")
    if target:
        action, params = target.split(".")[-1], json.loads(body or b"{}")
    elif service in ("ebs", "rbin"):
        action, params = describe_path(environ)
    else:
        params = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
        action = params.pop("Action", environ["PATH_INFO"])
    return {
        "time": time.time(),
        "caller": scope[1] if scope else None,
        "service": service,
        "action": action,
        "params": params,
        "status": None,
        "code": None,
    }


# Ids and times have another digit here and there, and are the same kind of value.
DIGITS = str.maketrans(dict.fromkeys("0123456789abcdef", "0"))


def record(environ: dict[str, Any], body: bytes, entry: dict[str, Any]) -> None:
    """Keeps a request of the guard's, for whoever compares it with the API models."""
    headers = {
        "content-type": environ.get("CONTENT_TYPE", ""),
        "user-agent": environ.get("HTTP_USER_AGENT", ""),
        "x-amz-target": environ.get("HTTP_X_AMZ_TARGET", ""),
    }
    if "app/ami-billing-guard" not in headers["user-agent"]:
        return
    uri, text = environ["REQUEST_URI"], body.decode("utf-8", "replace")
    kind = entry["service"], entry["action"], uri.translate(DIGITS), text.translate(DIGITS)
    call = {name: entry[name] for name in ("service", "action")}
    RECORDED.setdefault(
        kind, call | {"method": environ["REQUEST_METHOD"], "uri": uri, "headers": headers, "body": text}
    )


# What the methods and paths of the EBS direct APIs and of the Recycle Bin mean.
PATHS = [
    ("GET", r"/snapshots/(?P<SnapshotId>[^/]+)/blocks", "ListSnapshotBlocks"),
    ("GET", r"/snapshots/(?P<SnapshotId>[^/]+)/blocks/(?P<BlockIndex>\d+)", "GetSnapshotBlock"),
    ("GET", r"/rules/(?P<Identifier>[^/]+)", "GetRule"),
    ("POST", r"/snapshots", "StartSnapshot"),
    ("PUT", r"/snapshots/(?P<SnapshotId>[^/]+)/blocks/(?P<BlockIndex>\d+)", "PutSnapshotBlock"),
    ("POST", r"/snapshots/completion/(?P<SnapshotId>[^/]+)", "CompleteSnapshot"),
]


def describe_path(environ: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """The action of the EBS direct APIs or of the Recycle Bin that a request is, and its parameters but for what it writes."""
    for method, pattern, action in PATHS:
        found = re.fullmatch(pattern, environ["PATH_INFO"])
        if found and method == environ["REQUEST_METHOD"]:
            return action, found.groupdict() | dict(parse_qsl(environ.get("QUERY_STRING", "")))
    return environ["PATH_INFO"], {}


def error_body(service: str, fault: dict[str, Any]) -> str:
    """An error as the service's protocol writes it."""
    code, message = fault["code"], fault["message"]
    error = f"<Code>{code}</Code><Message>{message}</Message>"
    if service == "dynamodb":
        reasons = {"CancellationReasons": [{"Code": reason} for reason in fault["reasons"]]}
        kind = f"com.amazonaws.dynamodb.v20120810#{code}"
        return json.dumps({"__type": kind, "message": message} | (reasons if fault["reasons"] else {}))
    if service in ("sqs", "cloudtrail", "monitoring"):
        return json.dumps({"__type": f"com.amazonaws.{service}#{code}", "message": message})
    if service in ("ebs", "rbin"):
        return json.dumps({"Message": message} | {"Reason": reason for reason in fault["reasons"]})
    if service == "ec2":
        return f"<Response><Errors><Error>{error}</Error></Errors><RequestID>0</RequestID></Response>"
    return f"<ErrorResponse><Error><Type>Sender</Type>{error}</Error><RequestId>0</RequestId></ErrorResponse>"


class SilentHandler(WSGIRequestHandler):
    """The log of calls says it better than a line a request on standard error."""

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        pass


def main() -> None:
    """Serves on a free loopback port until standard input closes."""
    server = make_server("127.0.0.1", 0, Application(), threaded=True, request_handler=SilentHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    # Whoever started the server holds the other end: it ends with them, however they end.
    sys.stdin.read()


if __name__ == "__main__":
    main()
