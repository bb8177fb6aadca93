"""What the guard asks AWS, and what `sim` answers, against AWS's own API models.

The Rust tests write down what goes over the wire (`make rust-test`, SIM_RECORD), moto keeps what the end-to-end tests
send: of both, everything is compared. What the other end-to-end tests send is compared when their server stops, by the
fixture `moto`.
"""

import json
import os
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from api_models import Call, Check

from e2e.role import MADE_OF, allowed_to_the_guard
from e2e.test_permissions import make_every_call
from e2e.world import ROOT, World, client
from sim.test_sim_and_moto import QUEUE, scenario, serving

# Who the guard and its command line say that they are.
GUARD = "ami-billing-guard"

# What tests have sim say although the models do not know it.
ON_PURPOSE = {
    "ec2.DescribeImages: imagesSet.item.imageState: is 'state-to-come', and has to be one of pending, available, "
    "invalid, deregistered, transient, failed, error, disabled",
    # The model's own words are others than its enumeration: "This value is `windows` for Windows instances".
    "ec2.DescribeInstances: reservationSet.item.instancesSet.item.platform: is 'windows', and has to be one of Windows",
    "ec2.DescribeImages: imagesSet.item.platform: is 'windows', and has to be one of Windows",
    # The model names four. EC2 answers with every platform: tests/corpus/billing.toml has recorded answers.
    *(
        f"ec2.DescribeReservedInstances: reservedInstancesSet.item.productDescription: is '{platform}', and has to be "
        "one of Linux/UNIX, Linux/UNIX (Amazon VPC), Windows, Windows (Amazon VPC)"
        for platform in ("Windows with SQL Server Standard", "Red Hat Enterprise Linux", "SUSE Linux")
    ),
}


@pytest.fixture(scope="module")
def recorded() -> list[Call]:
    """What went over the wire in the Rust tests."""
    path = Path(os.environ.get("RECORDED_CALLS", ROOT / "target/recorded-calls.jsonl"))
    if not path.is_file():
        pytest.fail(f"{path} is missing: `make rust-test` makes it, RECORDED_CALLS can name another")
    return read(path)


def read(path: Path) -> list[Call]:
    """Calls, as sim writes them down."""
    with path.open(encoding="utf-8") as lines:
        return [Call(**json.loads(line)) for line in lines]


@pytest.fixture
def scenario_of_boto3(sim_binary: Path, tmp_path: Path, monkeypatch) -> list[Call]:
    """What went over the wire as boto3 played with sim: actions that the guard never calls, too."""
    path = tmp_path / "recorded-calls.jsonl"
    monkeypatch.setenv("SIM_RECORD", str(path))
    with serving(sim_binary) as endpoint:
        scenario(endpoint)
        hides = client("sqs", endpoint).change_message_visibility
        hides(QueueUrl=QUEUE, ReceiptHandle="a receipt handle", VisibilityTimeout=6301)
    return read(path)


def named(calls: list[Call]) -> set[str]:
    return {f"{call.service}:{call.action}" for call in calls}


def actions_of_sim() -> set[str]:
    """Those that sim says it has."""
    listed = (ROOT / "sim/src/lib.rs").read_text().split("//! # The actions\n")[1].split("\n\n")[0]
    return {
        f"{service.lower()}:{action}"
        for service, actions in re.findall(r"//! (\w+): ((?:[^:]|//!)+)\.(?:\n|$)", listed)
        for action in re.findall(r"`(\w+)`", actions)
    }


def test_each_request_of_the_rust_tests_is_one_that_the_api_models_know(recorded, record_property):
    check = Check()
    requests = [call for call in recorded if call.by(GUARD)]
    for call in requests:
        check.request(call)
    record_property("API models", f"the guard in the Rust tests: {check}")

    assert [*check.faults] == []
    # The command line and the demonstration ask more.
    missing = {MADE_OF.get(action, action) for action in allowed_to_the_guard()} - called(requests)
    assert missing == set(), "the tests never saw them"


def called(calls: list[Call]) -> set[str]:
    """As IAM names them."""
    return {MADE_OF.get(action, action) for action in named(calls)}


def test_each_answer_of_sim_is_one_that_the_api_models_know(recorded, scenario_of_boto3, record_property):
    check = Check()
    calls = recorded + scenario_of_boto3
    for call in calls:
        check.answer(call)
    record_property("API models", f"sim: {check}")

    assert [*check.faults.keys() - ON_PURPOSE] == []
    answered = named([call for call in calls if call.answer and call.answer["status"] == 200])
    assert answered == actions_of_sim(), "compared is what sim was seen to do"


def test_the_comparison_finds_nothing_wrong_with_what_boto3_asks_and_sim_serves(scenario_of_boto3):
    check = Check()
    for call in scenario_of_boto3:
        if call.answer and call.answer["status"] == 200:
            check.request(call)

    assert [*check.faults] == []
    assert len(check.parameters) > 100


@pytest.mark.one_hour
def test_each_request_that_the_guard_can_make_is_one_that_the_api_models_know(world: World, start, policy, record_property):
    make_every_call(world, start, policy)
    requests = [Call(**call) for call in world.moto.order("recorded")]

    check = Check()
    for call in requests:
        check.request(call)
    record_property("API models", f"the guard in the end-to-end tests: {check}")

    assert [*check.faults] == []
    assert allowed_to_the_guard() - called(requests) == set(), "the tests never saw them"


# What the comparison itself finds.

FORM = {"content-type": "application/x-www-form-urlencoded"}
JSON = {"content-type": "application/x-amz-json-1.0"}


def form(service: str, action: str, version: str, parameters: str) -> Call:
    body = f"Action={action}&Version={version}{parameters}"
    return Call(service, action, "POST", "/", FORM, body)


def ec2(action: str, parameters: str = "", answer: str = "") -> Call:
    call = form("ec2", action, "2016-11-15", parameters)
    if answer:
        namespace = "http://ec2.amazonaws.com/doc/2016-11-15/"
        body = f'<{action}Response xmlns="{namespace}"><requestId>1</requestId>{answer}</{action}Response>'
        call.answer = {"status": 200, "headers": {}, "body": body, "bytes": len(body)}
    return call


def sns(action: str, parameters: str = "") -> Call:
    return form("sns", action, "2010-03-31", parameters)


def dynamodb(action: str, request: Any, answer: Any = None, status: int = 200) -> Call:
    headers = JSON | {"x-amz-target": f"DynamoDB_20120810.{action}"}
    call = Call("dynamodb", action, "POST", "/", headers, json.dumps(request))
    if answer is not None:
        body = json.dumps(answer)
        call.answer = {"status": status, "headers": {}, "body": body, "bytes": len(body)}
    return call


def sqs(request: Any, answer: str | None = None, status: int = 200) -> Call:
    headers = JSON | {"x-amz-target": "AmazonSQS.ChangeMessageVisibility"}
    call = Call("sqs", "ChangeMessageVisibility", "POST", "/", headers, json.dumps(request))
    if answer is not None:
        call.answer = {"status": status, "headers": {}, "body": answer, "bytes": len(answer)}
    return call


def ebs(uri: str, answer: Any = None) -> Call:
    action = "GetSnapshotBlock" if re.search(r"blocks/", uri) else "ListSnapshotBlocks"
    call = Call("ebs", action, "GET", uri, {}, "")
    if answer is not None:
        body = json.dumps(answer)
        call.answer = {"status": 200, "headers": {"content-type": "application/json"}, "body": body, "bytes": len(body)}
    return call


AMI = "&ImageId.1=ami-0123456789abcdef0"
TAG = "&ResourceId.1=ami-0123456789abcdef0&Tag.1.Key=a&Tag.1.Value=b"
TOPIC = "&TopicArn=arn:aws:sns:eu-west-1:123456789012:t"
ATTRIBUTE = "&MessageAttributes.entry.1.Name=a&MessageAttributes.entry.1.Value.DataType=String"
KEY = {"TableName": "t", "Key": {"id": {"S": "x"}}}
HIDES = {"QueueUrl": QUEUE, "ReceiptHandle": "a", "VisibilityTimeout": 300}
BLOCKS = "/snapshots/snap-0123456789abcdef0/blocks"

# A request, and what is wrong with it: nothing, if that is empty.
REQUESTS = [
    (ec2("DescribeImages", AMI + "&IncludeDisabled=true&MaxResults=1000&Filter.1.Name=a&Filter.1.Value.1=b"), ""),
    (ec2("DescribeImages", "&ImageIds.1=ami-0123456789abcdef0"), "ImageIds: is not in the model"),
    (ec2("DescribeImages", "&ImageId=ami-0123456789abcdef0"), "ImageId: is a value, and has to be a list"),
    (ec2("DescribeImages", "&ImageId.2=ami-0123456789abcdef0"), "ImageId: is not numbered from 1 on"),
    (ec2("DescribeImages", "&IncludeDisabled=yes"), "IncludeDisabled: is 'yes', and has to be true or false"),
    (ec2("DescribeImages", "&MaxResults=many"), "MaxResults: is 'many', and has to be of type integer"),
    (ec2("DescribeImages", "&Filter.1.Names=a"), "Filter.Names: is not in the model"),
    (ec2("DescribeImageReferences"), "ImageIds: is missing"),
    (ec2("DescribeImageReferences", AMI + "&MaxResults=2000"), ""),
    (ec2("DescribeSnapshotAttribute", "&SnapshotId=snap-1&Attribute=codes"), "Attribute: is 'codes', and has to be one"),
    (ec2("DescribeVolumes", "&MaxResults=4&MaxResults=5"), "MaxResults: is there twice"),
    (ec2("ListImagesInRecycleBin", AMI + "&MaxResults=1001"), "MaxResults: is of 1001, and has to be from 1 to 1000"),
    (ec2("CreateTags", TAG), ""),
    (ec2("DescribeEverything"), "no such action"),
    (form("ec2", "DescribeImages", "2014-01-01", AMI), "Version: is another one"),
    (sns("Publish", TOPIC + "&Message=a" + ATTRIBUTE + "&MessageAttributes.entry.1.Value.StringValue=b"), ""),
    (sns("Publish", TOPIC + "&Message=a" + ATTRIBUTE.replace(".entry", "")), "is a list without entry"),
    (sns("Publish", TOPIC), "Message: is missing"),
    (sns("Publish", "&Message=a" + ATTRIBUTE.replace("DataType", "Type")), "Value.Type: is not in the model"),
    (dynamodb("GetItem", KEY | {"ConsistentRead": True}), ""),
    (dynamodb("GetItem", KEY | {"Consistent": True}), "Consistent: is not in the model"),
    (dynamodb("GetItem", KEY | {"ConsistentRead": "true"}), "ConsistentRead: is 'true', and has to be a boolean"),
    (dynamodb("GetItem", KEY | {"TableName": ""}), "TableName: is of 0, and has to be from 1 to 1024"),
    (dynamodb("GetItem", KEY | {"Key": {"id": {"S": "x", "N": "1"}}}), "Key.*: has to have one type"),
    (dynamodb("GetItem", KEY | {"Key": {"id": {"N": 1}}}), "Key.*.N: is 1, and has to be a text"),
    (dynamodb("BatchGetItem", {"RequestItems": {"t": {"Keys": []}}}), "Keys: is of 0, and has to be from 1 to 100"),
    (dynamodb("UpdateItem", KEY | {"ReturnValues": "ALL"}), "ReturnValues: is 'ALL', and has to be one of"),
    (sqs(HIDES), ""),
    (sqs(HIDES | {"VisibilityTimeout": "300"}), "VisibilityTimeout: is '300', and has to be a number"),
    (sqs({"QueueUrl": QUEUE, "VisibilityTimeout": 300}), "ReceiptHandle: is missing"),
    (ebs(BLOCKS + "?maxResults=1000&startingBlockIndex=0"), ""),
    (ebs(BLOCKS + "?maxResults=10"), "MaxResults: is of 10, and has to be from 100 to 10000"),
    (ebs(BLOCKS + "?MaxResults=1000"), "MaxResults: is not in the model"),
    (ebs("/snapshots/snapshot!/blocks"), "has to match"),
    (ebs(BLOCKS + "/0"), "BlockToken: is missing"),
    (ebs("/snapshot/x/blocks"), "is no GET /snapshots/{snapshotId}/blocks"),
]

IMAGE = "<imagesSet><item><imageId>ami-1</imageId>{}</item></imagesSet>"
CANCELLED = {"__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException", "Message": "no"}

# An answer, and what is wrong with it.
ANSWERS = [
    (ec2("DescribeImages", answer=IMAGE.format("<imageState>available</imageState>")), ""),
    (ec2("DescribeImages", answer=IMAGE.format("<state>a</state>")), "imagesSet.item.state: is not in the model"),
    (ec2("DescribeImages", answer=IMAGE.format("<isPublic>no</isPublic>")), "isPublic: is 'no'"),
    (ec2("DescribeImages", answer=IMAGE.format("<tagSet>a</tagSet>").replace("item", "member")), "has to be item"),
    (ec2("DescribeImages", answer=IMAGE.format("<imageId>b</imageId>")), "imageId: is there twice"),
    (ec2("DescribeVolumes", answer="<volumeSet><item><createTime>now</createTime></item></volumeSet>"), "be a time"),
    (ec2("CreateTags", answer="<return>true</return>"), ""),
    (ec2("CreateTags", answer="<tagSet/>"), "has more than return"),
    (dynamodb("GetItem", KEY, {"Item": {"id": {"S": "x"}}}), ""),
    (dynamodb("GetItem", KEY, {"Items": [{"id": {"S": "x"}}]}), "Items: is not in the model"),
    (dynamodb("GetItem", KEY, {"Item": {"id": "x"}}), "Item.*: has to be an object"),
    (dynamodb("TransactWriteItems", KEY, CANCELLED | {"CancellationReasons": [{"Code": "None"}]}, 400), ""),
    (dynamodb("TransactWriteItems", KEY, CANCELLED | {"Reasons": []}, 400), "Reasons: is not in the model"),
    (dynamodb("GetItem", KEY, CANCELLED, 400), "TransactionCanceledException: is no error of this action"),
    (sqs(HIDES, ""), ""),
    (sqs(HIDES, "[]"), "has to be an object"),
    (sqs(HIDES, json.dumps({"__type": "com.amazonaws.sqs#QueueDoesNotExist", "message": "no"}), 400), ""),
    (sqs(HIDES, json.dumps({"__type": "com.amazonaws.sqs#OverLimit", "message": "no"}), 400), "is no error of this action"),
    (ebs(BLOCKS, {"Blocks": [{"BlockIndex": 0, "BlockToken": "dA=="}], "BlockSize": 524288}), ""),
    (ebs(BLOCKS, {"Blocks": [{"BlockIndex": "0"}]}), "Blocks[].BlockIndex: is '0', and has to be a number"),
    (ebs(BLOCKS, {"Size": 524288}), "Size: is not in the model"),
]


@pytest.mark.parametrize(("call", "wrong"), REQUESTS, ids=lambda it: it if isinstance(it, str) else "")
def test_what_is_wrong_with_a_request_is_found_and_nothing_else(call: Call, wrong: str):
    check = Check()
    check.request(deepcopy(call))
    assert bool(check.faults) == bool(wrong), check.faults
    assert wrong in "\n".join(check.faults)
    assert check.parameters or wrong


@pytest.mark.parametrize(("call", "wrong"), ANSWERS, ids=lambda it: it if isinstance(it, str) else "")
def test_what_is_wrong_with_an_answer_is_found_and_nothing_else(call: Call, wrong: str):
    check = Check()
    check.answer(deepcopy(call))
    assert bool(check.faults) == bool(wrong), check.faults
    assert wrong in "\n".join(check.faults)
    assert check.elements or check.errors or wrong or call.action in ("CreateTags", "ChangeMessageVisibility")
