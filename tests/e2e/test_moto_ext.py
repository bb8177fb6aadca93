"""What the extension adds to moto, where the guard's own tests would not notice that it is missing."""

from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError

from e2e.world import BLOCK_BYTES, DISCARD, LEDGER, OTHER_ACCOUNT, REGION, ROOT_DEVICE, TOPIC, World, disk


def refusal(call, **request) -> str:
    """The code with which a call is refused."""
    with pytest.raises(ClientError) as error:
        call(**request)
    return error.value.response["Error"]["Code"]


@pytest.mark.parametrize(
    ("image", "code"),
    [
        pytest.param(
            {"deregistration_protection": "enabled-with-cooldown"}, "OperationNotPermitted", id="protected"
        ),
        pytest.param(
            {"tags": {"aws:backup:source-resource": "i-0"}}, "AuthFailure", id="managed by AWS Backup"
        ),
        pytest.param({"owner_id": OTHER_ACCOUNT}, "AuthFailure", id="somebody else's"),
    ],
)
def test_what_ec2_does_not_let_go_stays(world: World, image, code):
    ami = world.image(**image)

    assert refusal(world.ec2.deregister_image, ImageId=ami) == code
    assert world.exists(ami)


def test_an_image_shows_late_and_only_as_long_as_it_was_told(world: World):
    ami = world.image(invisible_for=2)

    for _ in range(2):
        assert refusal(world.ec2.describe_images, ImageIds=[ami]) == "InvalidAMIID.NotFound"
    assert len(world.ec2.describe_images(ImageIds=[ami])["Images"]) == 1


def test_only_an_image_with_the_rules_pair_of_key_and_value_is_kept(world: World):
    for value, kept in (("true", 1), ("false", 0)):
        ami = world.image(tags={DISCARD: value})
        world.ec2.deregister_image(ImageId=ami)
        assert len(world.ec2.list_images_in_recycle_bin(ImageIds=[ami])["Images"]) == kept


def test_an_instance_store_backed_image_is_not_kept(world: World):
    ami = world.register(None, tags={DISCARD: "true"})
    [image] = world.ec2.describe_images(ImageIds=[ami])["Images"]
    assert image["RootDeviceType"] == "instance-store" and not image["BlockDeviceMappings"]

    world.ec2.deregister_image(ImageId=ami)

    assert world.ec2.list_images_in_recycle_bin()["Images"] == []


def test_an_image_comes_out_of_the_recycle_bin_as_it_was(world: World):
    ami = world.image(tags={DISCARD: "true"})
    [before] = world.ec2.describe_images(ImageIds=[ami])["Images"]
    restore = world.ec2.restore_image_from_recycle_bin
    assert refusal(restore, ImageId=ami) == "InvalidAMIID.NotFound"
    world.ec2.deregister_image(ImageId=ami)

    restore(ImageId=ami)

    assert world.ec2.describe_images(ImageIds=[ami])["Images"] == [before]
    assert world.ec2.list_images_in_recycle_bin()["Images"] == []
    world.ec2.deregister_image(ImageId=ami)
    assert len(world.ec2.list_images_in_recycle_bin()["Images"]) == 1


def shared_with(world: World, ami: str) -> list:
    """Who may launch instances from an image."""
    return world.ec2.describe_image_attribute(ImageId=ami, Attribute="launchPermission")["LaunchPermissions"]


def test_a_disabled_image_is_shared_with_nobody_and_enabling_it_does_not_share_it_again(world: World):
    ami, shared = world.image(), [{"UserId": OTHER_ACCOUNT}]
    world.ec2.modify_image_attribute(ImageId=ami, LaunchPermission={"Add": shared})
    assert shared_with(world, ami) == shared

    world.ec2.disable_image(ImageId=ami)
    world.ec2.enable_image(ImageId=ami)

    assert shared_with(world, ami) == []


def test_whom_an_image_that_is_not_there_is_shared_with_is_not_said(world: World):
    gone, look = world.image(), world.ec2.describe_image_attribute
    world.ec2.deregister_image(ImageId=gone)

    for ami, code in ((gone, "InvalidAMIID.Unavailable"), ("ami-0123456789abcdef0", "InvalidAMIID.NotFound")):
        assert refusal(look, ImageId=ami, Attribute="launchPermission") == code


def found(world: World, *snapshots: str, **request) -> set[str]:
    """The images with one of these snapshots."""
    wanted = [{"Name": "block-device-mapping.snapshot-id", "Values": list(snapshots)}]
    images = world.ec2.describe_images(Filters=wanted, **request)["Images"]
    return {image["ImageId"] for image in images}


def test_images_are_found_by_any_of_their_snapshots(world: World):
    first, second = world.image(), world.image()
    snapshots = [world.root_snapshot(image) for image in (first, second)]
    mappings = [
        {"DeviceName": f"/dev/sd{letter}", "Ebs": {"SnapshotId": snapshot}}
        for letter, snapshot in zip("ab", snapshots, strict=True)
    ]
    both = world.ec2.register_image(Name="both", RootDeviceName="/dev/sda", BlockDeviceMappings=mappings)

    assert found(world, snapshots[0]) == {first, both["ImageId"]}
    assert found(world, *snapshots) == {first, second, both["ImageId"]}
    assert found(world, "snap-0123456789abcdef0") == set()


def test_an_image_that_its_publisher_deprecated_shows_to_those_who_ask_for_it(world: World):
    deprecated = {"deprecation_time": "2026-01-01T00:00:00+00:00"}
    own = world.image(**deprecated)
    other = world.image(owner_id=OTHER_ACCOUNT, owner_alias="amazon", **deprecated)
    snapshot = world.root_snapshot(other)

    assert found(world, world.root_snapshot(own)) == {own}
    assert found(world, snapshot) == set()
    assert found(world, snapshot, Owners=["amazon"], IncludeDeprecated=True) == {other}
    [image] = world.ec2.describe_images(ImageIds=[other])["Images"]
    assert image["ImageOwnerAlias"] == "amazon" and image["DeprecationTime"].startswith("2026-01-01")


def test_copies_of_an_image_are_found_by_it(world: World):
    source, _ = world.image(), world.image()
    copy = world.image(source_image_id=source, source_image_region=REGION)

    wanted = [{"Name": "source-image-id", "Values": [source]}]
    [image] = world.ec2.describe_images(Owners=["self"], Filters=wanted)["Images"]
    assert image["ImageId"] == copy


def test_images_come_in_pages(world: World):
    images = sorted(world.image() for _ in range(5))

    pages = world.ec2.get_paginator("describe_images").paginate(MaxResults=2)
    found = [[image["ImageId"] for image in page["Images"]] for page in pages]

    assert found == [images[:2], images[2:4], images[4:]]


def test_regions_without_opt_in_are_told_only_to_those_who_ask(world: World):
    def statuses(**request) -> set[str]:
        return {region["OptInStatus"] for region in world.ec2.describe_regions(**request)["Regions"]}

    assert statuses() == {"opt-in-not-required"}
    assert statuses(AllRegions=True) == {"opt-in-not-required", "not-opted-in"}
    assert statuses(RegionNames=["ap-east-1"]) == {"not-opted-in"}
    assert statuses(AllRegions=True, Filters=[{"Name": "region-name", "Values": ["ap-eas?-1"]}])
    assert refusal(world.ec2.describe_regions, RegionNames=["eu-west-9"]) == "InvalidParameterValue"


def test_what_was_reserved_is_shown(world: World):
    look = world.ec2.describe_reserved_instances
    assert look()["ReservedInstances"] == []
    reserved = [
        {"ReservedInstancesId": str(number), "InstanceType": "m5.large", "ProductDescription": platform}
        for number, platform in enumerate(["Windows", "Linux/UNIX"])
    ]
    world.moto.order("reserve", reserved)

    assert look()["ReservedInstances"] == reserved
    assert look(ReservedInstancesIds=["1"])["ReservedInstances"] == reserved[1:]
    windows = [{"Name": "product-description", "Values": ["Win*"]}]
    assert look(Filters=windows)["ReservedInstances"] == reserved[:1]
    assert refusal(look, ReservedInstancesIds=["2"]) == "InvalidReservedInstancesId"


def test_an_instance_has_its_images_billing_and_root_volume(world: World):
    ami = world.image("Windows")
    instance = world.instance(image=ami)

    [launched] = world.ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"]

    assert (launched["PlatformDetails"], launched["UsageOperation"]) == ("Windows", "RunInstances:0002")
    assert launched["UsageOperationUpdateTime"] == launched["LaunchTime"]
    [volume] = world.ec2.describe_volumes(VolumeIds=[world.root_volume(instance)])["Volumes"]
    assert volume["SnapshotId"] == world.root_snapshot(ami)
    [attachment] = volume["Attachments"]
    assert (attachment["InstanceId"], attachment["Device"]) == (instance, ROOT_DEVICE)


def test_an_image_of_an_instance_bills_what_it_does_and_so_does_one_of_its_snapshot(world: World):
    instance = world.instance("Windows")
    created = world.ec2.create_image(InstanceId=instance, Name="created")["ImageId"]
    again = world.register(world.root_snapshot(created))

    for ami, source in ((created, instance), (again, None)):
        [image] = world.ec2.describe_images(ImageIds=[ami])["Images"]
        assert (image["PlatformDetails"], image.get("SourceInstanceId")) == ("Windows", source)
    [snapshot] = world.ec2.describe_snapshots(SnapshotIds=[world.root_snapshot(created)])["Snapshots"]
    assert snapshot["VolumeId"] == world.root_volume(instance)
    assert snapshot["Description"] == f"Created by CreateImage({instance}) for {created}"
    assert refusal(world.ec2.create_image, InstanceId=instance, Name="created") == "InvalidAMIName.Duplicate"


def test_a_copied_snapshot_is_of_no_volume_and_its_source_of_one(world: World):
    volume = world.volume()
    source = world.snapshot_of(volume)
    copied = world.ec2.copy_snapshot(SourceSnapshotId=source, SourceRegion=REGION)["SnapshotId"]

    for snapshot, of in ((source, volume), (copied, "vol-ffffffff")):
        [shown] = world.ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"]
        assert (shown["VolumeId"], shown["VolumeSize"]) == (of, 8)


def test_product_codes_go_from_a_snapshot_to_its_images(world: World):
    code = "abcdef0123456789abcdef012"
    snapshot = world.snapshot()
    world.change(snapshot, product_codes=[code])
    ami = world.register(snapshot)

    codes = [{"ProductCodeId": code, "ProductCodeType": "marketplace"}]
    shown = world.ec2.describe_snapshot_attribute(SnapshotId=snapshot, Attribute="productCodes")
    assert shown["ProductCodes"] == codes
    assert world.ec2.describe_images(ImageIds=[ami])["Images"][0]["ProductCodes"] == codes


def test_snapshots_go_with_the_image_only_if_the_caller_asks(world: World):
    for asked in (False, True):
        ami = world.image()
        snapshot = world.root_snapshot(ami)
        world.ec2.deregister_image(ImageId=ami, DeleteAssociatedSnapshots=asked)
        assert world.snapshot_exists(snapshot) is not asked


def test_a_snapshot_with_a_disk_has_its_blocks_and_no_others(world: World):
    snapshot = world.snapshot_with_disk("rhel9-rhui", "Windows")
    _, blocks = disk("rhel9-rhui")

    listed = world.ebs.list_snapshot_blocks(SnapshotId=snapshot)
    assert (listed["VolumeSize"], listed["BlockSize"]) == (10, BLOCK_BYTES)
    read = {}
    for block in listed["Blocks"]:
        answer = world.ebs.get_snapshot_block(SnapshotId=snapshot, **block)
        read[block["BlockIndex"]] = answer["BlockData"].read()
        assert answer["DataLength"] == BLOCK_BYTES
    assert read == blocks
    [shown] = world.ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"]
    assert (shown["State"], shown["VolumeId"]) == ("completed", "vol-ffffffff")
    [image] = world.ec2.describe_images(ImageIds=[world.register(snapshot)])["Images"]
    assert image["PlatformDetails"] == "Windows"


def begin_snapshot(world: World, *blocks: int) -> str:
    """A snapshot of 1 GiB that is not completed, with these blocks."""
    snapshot = world.ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    for block in blocks:
        world.ebs.put_snapshot_block(
            SnapshotId=snapshot,
            BlockIndex=block,
            BlockData=bytes([block % 255 + 1]) * BLOCK_BYTES,
            DataLength=BLOCK_BYTES,
            Checksum=b64encode(bytes(32)).decode(),
            ChecksumAlgorithm="SHA256",
        )
    return snapshot


def test_blocks_are_listed_in_their_order_page_by_page_from_any_on(world: World):
    indexes = [*range(150, 50, -1), *range(200, 300, 2), 7]
    snapshot = begin_snapshot(world, *indexes)
    world.ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=len(indexes))

    def pages(**request) -> list[list[int]]:
        listed, token = [], {}
        while True:
            page = world.ebs.list_snapshot_blocks(SnapshotId=snapshot, **request, **token)
            listed.append([block["BlockIndex"] for block in page["Blocks"]])
            if "NextToken" not in page:
                return listed
            token = {"NextToken": page["NextToken"]}

    indexes.sort()
    assert pages() == pages(MaxResults=100) == [indexes[:100], indexes[100:]]
    assert pages(MaxResults=151) == [indexes]
    assert pages(StartingBlockIndex=201) == [list(range(202, 300, 2))]
    # It counts for the first page alone.
    assert pages(StartingBlockIndex=60) == [indexes[10:110], indexes[110:]]
    assert pages(StartingBlockIndex=2000) == [[]]


def ebs_refusal(call, **request) -> tuple[str, str]:
    """The code with which a call of the EBS direct APIs is refused, and the reason."""
    with pytest.raises(ClientError) as error:
        call(**request)
    return error.value.response["Error"]["Code"], error.value.response["Reason"]


def test_a_block_is_read_with_its_own_token_alone(world: World):
    one, other = (begin_snapshot(world, 3, 4) for _ in range(2))
    for snapshot in (one, other):
        world.ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=2)
    third, fourth = world.ebs.list_snapshot_blocks(SnapshotId=one)["Blocks"]
    read = world.ebs.get_snapshot_block

    assert read(SnapshotId=one, **third)["BlockData"].read(1) == bytes([4])
    for wrong in (
        {"SnapshotId": one} | third | {"BlockIndex": 4},
        {"SnapshotId": one} | third | {"BlockIndex": 5},
        {"SnapshotId": other} | fourth,
    ):
        assert ebs_refusal(read, **wrong) == ("ValidationException", "INVALID_BLOCK_TOKEN")
    wrong_page = {"SnapshotId": one, "NextToken": third["BlockToken"]}
    refused = ebs_refusal(world.ebs.list_snapshot_blocks, **wrong_page)
    assert refused == ("ValidationException", "INVALID_PAGE_TOKEN")


def test_only_a_completed_private_snapshot_is_read(world: World):
    look = world.ebs.list_snapshot_blocks
    pending, others, shared, public = (begin_snapshot(world, 1) for _ in range(4))
    for snapshot in (others, shared, public):
        world.ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=1)
    for snapshot in (others, shared):
        world.change(snapshot, owner_id=OTHER_ACCOUNT)
    permission = {"Attribute": "createVolumePermission", "OperationType": "add"}
    world.ec2.modify_snapshot_attribute(SnapshotId=shared, UserIds=["123456789012"], **permission)
    world.ec2.modify_snapshot_attribute(SnapshotId=public, GroupNames=["all"], **permission)

    unknown = ("ResourceNotFoundException", "SNAPSHOT_NOT_FOUND")
    assert ebs_refusal(look, SnapshotId=pending) == unknown
    assert ebs_refusal(look, SnapshotId="snap-0123456789abcdef0") == unknown
    for snapshot in (others, public):
        assert ebs_refusal(look, SnapshotId=snapshot) == ("AccessDeniedException", "UNAUTHORIZED_ACCOUNT")
    assert ebs_refusal(look, SnapshotId="snap-x") == ("ValidationException", "INVALID_SNAPSHOT_ID")
    assert len(look(SnapshotId=shared)["Blocks"]) == 1
    # Of a volume nothing was ever written to.
    empty = look(SnapshotId=world.snapshot())
    assert (empty["Blocks"], empty["VolumeSize"]) == ([], 8)


def test_a_fault_of_the_ebs_direct_apis_has_a_reason(world: World):
    reasons = ("DEPENDENCY_ACCESS_DENIED",)
    world.fail("ListSnapshotBlocks", "AccessDeniedException", status=403, reasons=reasons, times=1)
    snapshot, look = world.snapshot(), world.ebs.list_snapshot_blocks

    assert ebs_refusal(look, SnapshotId=snapshot) == ("AccessDeniedException", *reasons)
    assert look(SnapshotId=snapshot)["Blocks"] == []
    refused, served = (call for call in world.moto.order("calls") if call["service"] == "ebs")
    assert (refused["action"], refused["code"]) == ("ListSnapshotBlocks", "AccessDeniedException")
    assert served["status"] == 200


def refers_to(world: World, *images: str, **request) -> list[str]:
    """What refers to the images: types and ids of resources."""
    request = request or {"IncludeAllResourceTypes": True}
    answer = world.ec2.describe_image_references(ImageIds=list(images), **request)
    return [
        f"{reference['ResourceType']} {reference['Arn'].split('/', 1)[1]}"
        for reference in answer["ImageReferences"]
    ]


def scoped(resource: str, **options: list[str]) -> dict:
    """The request for one type of resources."""
    listed = [{"OptionName": name.replace("_", "-"), "OptionValues": of} for name, of in options.items()]
    return {"ResourceTypes": [{"ResourceType": resource, "ResourceTypeOptions": listed}]}


def test_what_refers_to_an_image_is_asked_for_by_type_and_state(world: World):
    ami, other = world.image(), world.image()
    stopped, terminated, running = (world.instance(image=ami) for _ in range(3))
    world.ec2.stop_instances(InstanceIds=[stopped])
    world.ec2.terminate_instances(InstanceIds=[terminated])
    template = world.launch_template(ami, other)
    world.ssm.put_parameter(Name="golden", Type="String", Value=other)
    world.ssm.put_parameter(Name="golden", Type="String", Value=ami, Overwrite=True)
    others = [f"ec2:LaunchTemplate {template}", "ssm:Parameter golden"]
    alive = scoped("ec2:Instance", state_name=["running", "stopped"])

    assert refers_to(world, ami) == [
        *(f"ec2:Instance {instance}" for instance in (stopped, terminated, running)),
        *others,
    ]
    instances = [f"ec2:Instance {instance}" for instance in (stopped, running)]
    assert refers_to(world, ami, **alive) == instances
    assert refers_to(world, ami, IncludeAllResourceTypes=True, **alive) == [*instances, *others]
    assert refers_to(world, other) == [f"ec2:LaunchTemplate {template}"]
    assert refers_to(world, ami, **scoped("ec2:LaunchTemplate", version_depth=["1"])) == []
    assert refers_to(world, "ami-0123456789abcdef0") == []


def test_wrong_questions_for_references_are_refused(world: World):
    look = world.ec2.describe_image_references
    ami = world.image()

    assert refusal(look, ImageIds=[ami]) == "MissingParameter"
    for wrong in (scoped("lambda:Function"), scoped("ec2:Instance", state_name=["runing"])):
        assert refusal(look, ImageIds=[ami], **wrong) == "InvalidParameterValue"


def listeners(world: World) -> tuple[str, str]:
    """How many subscriptions of the topic are confirmed, and how many wait for it."""
    attributes = world.sns.get_topic_attributes(TopicArn=TOPIC)["Attributes"]
    return attributes["SubscriptionsConfirmed"], attributes["SubscriptionsPending"]


def test_a_mail_that_nobody_answered_is_no_subscription_yet(world: World):
    assert listeners(world) == ("1", "0")
    world.nobody_listens()
    assert listeners(world) == ("0", "1")


def test_a_fault_spares_the_first_calls(world: World):
    world.fail("DescribeImages", "RequestLimitExceeded", spared=1, times=1)

    assert world.ec2.describe_images()["Images"] == []
    assert refusal(world.ec2.describe_images) == "RequestLimitExceeded"
    assert world.ec2.describe_images()["Images"] == []


def test_a_fault_hits_as_often_as_it_was_told(world: World):
    world.fail("DescribeImages", "RequestLimitExceeded", status=503, times=2)

    for _ in range(2):
        assert refusal(world.ec2.describe_images) == "RequestLimitExceeded"
    assert world.ec2.describe_images()["Images"] == []


def test_a_call_that_is_held_waits_until_it_is_released_and_others_do_not(world: World):
    ami = world.image()

    with ThreadPoolExecutor() as pool, world.holding("DescribeImages") as arrived:
        waiting = pool.submit(world.ec2.describe_images, ImageIds=[ami])
        arrived()
        assert world.ec2.describe_images(ImageIds=[ami])["Images"]
        assert not waiting.done()
        world.ec2.deregister_image(ImageId=ami)
        world.moto.order("release")

    assert waiting.result()["Images"] == [], "it takes effect when it is released"


def counted(world: World, **request) -> None:
    """A transaction that adds one to a number, and takes another item's absence for granted."""
    world.dynamodb.transact_write_items(
        TransactItems=[
            {
                "Update": {
                    "TableName": LEDGER,
                    "Key": {"id": {"S": "number"}},
                    "UpdateExpression": "ADD begun :one",
                    "ExpressionAttributeValues": {":one": {"N": "1"}},
                }
            },
            {
                "ConditionCheck": {
                    "TableName": LEDGER,
                    "Key": {"id": {"S": "obstacle"}},
                    "ConditionExpression": "attribute_not_exists(id)",
                }
            },
        ],
        **request,
    )


def test_a_transaction_is_carried_out_once_or_not_at_all(world: World):
    world.make_ledger()

    for token in ("one", "one", "two"):
        counted(world, ClientRequestToken=token)
    assert world.ledger() == {"number": {"begun": 2}}
    world.dynamodb.put_item(TableName=LEDGER, Item={"id": {"S": "obstacle"}})
    assert refusal(counted, world=world, ClientRequestToken="three") == "TransactionCanceledException"
    assert world.ledger()["number"] == {"begun": 2}


def test_of_a_call_whose_answer_is_lost_the_effect_is_there(world: World):
    world.make_ledger()
    world.fail("TransactWriteItems", "InternalServerError", status=500, lost=True, times=1)

    assert refusal(counted, world=world, ClientRequestToken="one") == "InternalServerError"
    counted(world, ClientRequestToken="one")

    assert world.ledger() == {"number": {"begun": 1}}


def test_a_cancelled_transaction_names_its_reasons(world: World):
    world.make_ledger()
    reasons = ("None", "TransactionConflict")
    world.fail("TransactWriteItems", "TransactionCanceledException", reasons=reasons)

    with pytest.raises(ClientError) as error:
        counted(world)

    listed = error.value.response["CancellationReasons"]
    assert [reason["Code"] for reason in listed] == list(reasons)
