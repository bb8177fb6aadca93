"""Every verdict, reached by an event in Lambda's runtime, about an image that moto shows."""

import copy

import pytest

from e2e.emulator import Emulator
from e2e.world import EXPECT, OLD, World, batch, registration, template

RHEL, RHEL_HA = "Red Hat Enterprise Linux", "Red Hat Enterprise Linux with High Availability"
SQL = "Windows with SQL Server Standard"

# What the image bills and what its tag expects, and the verdict on it.
JUDGED = [
    pytest.param({"bills": "Windows", "expect": "Windows"}, "verified", None, id="as the code says"),
    pytest.param({"bills": RHEL_HA, "expect": "redhat, RedHatHa"}, "verified", None, id="one of several"),
    pytest.param({"bills": SQL, "expect": SQL}, "verified", None, id="as the platform details say"),
    pytest.param(
        {"bills": RHEL, "expect": "RunInstances:0010"}, "verified", None, id="as the operation says"
    ),
    pytest.param({"bills": None}, "mismatch", "empty", id="no platform details, nothing expected"),
    pytest.param(
        {"bills": None, "expect": "Linux"}, "mismatch", "empty", id="no platform details, Linux expected"
    ),
    pytest.param({"bills": RHEL, "expect": "RedHatHa"}, "mismatch", "missing", id="HA is not billed"),
    pytest.param({"bills": "Windows", "expect": "SQL"}, "mismatch", "missing", id="SQL Server is not billed"),
    pytest.param(
        {"bills": "Windows BYOL", "expect": "Windows"}, "mismatch", "missing", id="BYOL, not included"
    ),
    pytest.param({"expect": "Windows"}, "mismatch", "wrong", id="Linux, not Windows"),
    pytest.param({"expect": "SUSE"}, "mismatch", "wrong", id="Linux, not SUSE"),
    pytest.param({"bills": "Windows", "expect": RHEL}, "mismatch", "wrong", id="Windows, not Red Hat"),
    pytest.param({"bills": SQL, "expect": "Windows"}, "mismatch", "extra", id="SQL Server is billed too"),
    pytest.param({"bills": "Ubuntu Pro Linux", "expect": "Linux"}, "mismatch", "extra", id="Ubuntu Pro, not Linux"),
    pytest.param({"bills": "Ubuntu Pro Linux", "expect": "UbuntuPro"}, "verified", None, id="Ubuntu Pro as EC2 spells it"),
    pytest.param(
        {"bills": "Windows 2", "operation": "RunInstances:0002", "expect": "Windows"}, "verified", None, id="by its operation"
    ),
    pytest.param(
        {"bills": "Windows", "operation": "RunInstances:0010", "expect": "Windows"},
        "conflict",
        None,
        id="details against operation",
    ),
    pytest.param(
        {"bills": None, "operation": "RunInstances:0002"},
        "conflict",
        None,
        id="no details, an operation that says more",
    ),
    pytest.param({"bills": "Windows"}, "unverifiable", None, id="nothing says what to expect"),
    pytest.param({"expect": "Widnows"}, "unverifiable", None, id="the tag names no platform"),
    pytest.param(
        {"bills": "Solaris", "operation": "RunInstances:0020", "expect": "Windows"},
        "unverifiable",
        None,
        id="details that nobody knows",
    ),
    pytest.param({"state": "failed", "expect": "Windows"}, "failed", None, id="a failed image"),
    pytest.param({"state": "invalid"}, "failed", None, id="an invalid image"),
    pytest.param({"state": "disabled", "expect": "Windows"}, "gone", None, id="a disabled image"),
    pytest.param({"state": "deregistered"}, "gone", None, id="an image whose state is deregistered"),
]

# Only these may take an image away.
DISCARDS = {"empty", "missing", "wrong"}


@pytest.mark.parametrize(("image", "verdict", "kind"), JUDGED)
def test_an_image_gets_its_verdict(world: World, guard: Emulator, image, verdict, kind):
    ami = world.image(**image)

    record = guard.invoke(registration(ami))

    assert (record["verdict"], record["kind"]) == (verdict, kind), record["reason"]
    assert record["schema"] == 1 and record["image_id"] == ami
    assert guard.records()[-1] == record, "the line of the log is the answer"
    assert world.exists(ami) is (kind not in DISCARDS)
    told = [alert["verdict"] for alert in world.alerts()]
    mistyped = image.get("expect") == "Widnows"
    assert told == ([verdict] if verdict in ("mismatch", "conflict") or mistyped else [])
    if kind not in DISCARDS:
        assert set(world.mutations()) <= {"Publish"}
        assert record["action"] == ("alert" if told else "none") and record["held_by"] == []


def test_a_record_says_what_was_registered_and_what_speaks_for_the_verdict(world: World, guard: Emulator):
    ami = world.image("Windows", expect="Windows, SQL", name="win2022")
    event = registration(ami)

    record = guard.invoke(event)

    assert record["name"] == "win2022"
    assert record["snapshot_id"] == world.root_snapshot(ami)
    assert record["account"] == "123456789012" and record["region"] == "eu-west-1"
    assert record["event_id"] == event["id"]
    assert record["registered_by"] == event["detail"]["userIdentity"]["arn"]
    assert record["registered_at"] == event["time"]
    assert record["actual"] == {
        "platform_details": "Windows",
        "usage_operation": "RunInstances:0002",
        "product_codes": [],
    }
    assert record["expected"] == {"platform": ["Windows", "SQL"], "source": "image-tag"}
    [evidence] = [entry for entry in record["evidence"] if entry["source"] == "image-tag"]
    assert evidence["says"] == ["Windows", "SQL"]
    assert "ami-billing-guard:expect=Windows, SQL" in evidence["detail"]


def test_a_recently_deregistered_image_is_gone_not_empty(world: World, guard: Emulator):
    ami = world.image(expect="Windows")
    world.ec2.deregister_image(ImageId=ami)
    assert world.ec2.describe_images(ImageIds=[ami])["Images"] == []

    record = guard.invoke(registration(ami, age=OLD))

    assert record["verdict"] == "gone" and record["action"] == "none"
    assert world.mutations() == []


def test_an_image_that_nobody_knows_is_gone_when_the_event_is_old(world: World, guard: Emulator):
    record = guard.invoke(registration("ami-0123456789abcdef0", age=OLD))

    assert record["verdict"] == "gone" and record["action"] == "none"
    assert world.actions() == ["DescribeImages"] and world.alerts() == []


BYOL = """
version = 1
[[exempt]]
name = "*-byol-*"
reason = "BYOL images drop their billing code on purpose"
"""


@pytest.mark.parametrize("image", [{"expect": "Windows"}, {"bills": None}, {"state": "available"}])
def test_an_exempt_image_is_left_alone_after_a_single_look(world: World, start, policy, image):
    guard = start(GUARD_POLICY_PATH=policy(BYOL))
    exempt = world.image(name="rhel-byol-9", **image)

    record = guard.invoke(registration(exempt))

    assert (record["verdict"], record["action"], record["held_by"]) == ("exempt", "none", [])
    for word in ("BYOL images drop their billing code on purpose", "policy.toml:3", "*-byol-*"):
        assert word in record["reason"], f"{word} is not in: {record['reason']}"
    assert world.actions() == ["DescribeImages"] and world.alerts() == []
    assert world.exists(exempt)


def test_a_rule_exempts_no_other_image(world: World, start, policy):
    guard = start(GUARD_POLICY_PATH=policy(BYOL))

    record = guard.invoke(registration(world.image(name="rhel-BYOL-9", expect="Windows")))

    assert (record["verdict"], record["outcome"]) == ("mismatch", "done")


def test_an_exemption_that_nobody_can_check_holds_the_discard(world: World, start, policy):
    rule = '[[exempt]]\nsnapshot_description = "imported *"\nreason = "the vendor built it"\n'
    guard = start(GUARD_POLICY_PATH=policy(f"version = 1\n{rule}"))
    imported = world.register(world.snapshot_of(world.volume(), "imported from a disk"), expect="Windows")
    other = world.image(expect="Windows")

    assert guard.invoke(registration(imported))["verdict"] == "exempt"
    assert world.actions() == ["DescribeImages", "DescribeSnapshots"]

    world.fail("DescribeSnapshots", "UnauthorizedOperation", status=403, times=1)
    record = guard.invoke(registration(other))
    assert (record["action"], record["held_by"]) == ("hold", ["source-failed"])
    assert world.exists(other)
    # Once it can be looked at, it is another snapshot.
    assert guard.invoke(registration(other))["outcome"] == "done"


PIPELINE = """
version = 1
[[expect]]
registered_by = "arn:aws:sts::*:assumed-role/image-pipeline/*"
platform = ["RedHat", "RedHatHa"]
"""


def test_a_rule_about_who_registered_an_image_suffices_for_a_discard(world: World, start, policy):
    guard = start(GUARD_POLICY_PATH=policy(PIPELINE))
    right, wrong = world.image(RHEL_HA), world.image()

    record = guard.invoke(registration(right))
    assert record["verdict"] == "verified"
    record = guard.invoke(registration(wrong))
    assert (record["kind"], record["outcome"]) == ("wrong", "done")
    assert record["expected"] == {"platform": ["RedHat", "RedHatHa"], "source": "policy"}
    [evidence] = [entry for entry in record["evidence"] if entry["source"] == "policy"]
    assert "policy.toml:3" in evidence["detail"] and "registered_by" in evidence["detail"]
    assert world.exists(right) and not world.exists(wrong)

    # Of another's image the rule says nothing, and of one by nobody known nobody can say.
    record = guard.invoke(registration(world.image(), "register-image-iam-user"))
    assert (record["verdict"], record["expected"]) == ("unverifiable", None)
    record = guard.invoke(registration(world.image(), "state-change-available"))
    assert (record["verdict"], record["expected"]) == ("unverifiable", None)
    [evidence] = [entry for entry in record["evidence"] if entry["source"] == "policy"]
    assert evidence["state"] == "failed" and "does not say" in evidence["detail"]


def test_the_tag_counts_on_the_root_snapshot_too_where_the_image_has_none(world: World, guard: Emulator):
    snapshot = world.snapshot()
    world.ec2.create_tags(Resources=[snapshot], Tags=[{"Key": EXPECT, "Value": "Windows"}])
    declared, contrary = world.register(snapshot), world.register(snapshot, expect="Linux")

    record = guard.invoke(registration(declared))
    assert record["expected"] == {"platform": ["Windows"], "source": "snapshot-tag"}
    assert (record["kind"], record["outcome"]) == ("wrong", "done")
    record = guard.invoke(registration(contrary))
    assert (record["verdict"], record["expected"]["source"]) == ("verified", "image-tag")
    assert world.exists(contrary) and not world.exists(declared)


def changed(case: str, **detail):
    """An event of the folder events with other values in its detail."""
    event = copy.deepcopy(template(case))
    event["detail"] |= detail
    return event


OTHER_EVENT = {
    "version": "0",
    "id": "7bf73129-1428-4cd3-a780-95db273d1602",
    "detail-type": "EC2 Instance State-change Notification",
    "source": "aws.ec2",
    "account": "123456789012",
    "time": "2026-11-11T21:29:54Z",
    "region": "eu-west-1",
    "resources": ["arn:aws:ec2:eu-west-1:123456789012:instance/i-0abcd1111"],
    "detail": {"instance-id": "i-0abcd1111", "state": "pending"},
}

IGNORED = [
    pytest.param(template("register-image-failed"), "Client.InvalidSnapshot.NotFound", id="failed call"),
    pytest.param(template("register-image-dry-run"), "Client.DryRunOperation", id="dry run"),
    pytest.param(template("create-image"), "CreateImage", id="CreateImage"),
    pytest.param(template("copy-image"), "CopyImage", id="CopyImage"),
    pytest.param(template("deregister-image"), "DeregisterImage", id="DeregisterImage"),
    pytest.param(template("register-image-other-account"), "210987654321", id="other account"),
    pytest.param(template("register-image-other-region"), "us-east-1", id="other Region"),
    pytest.param(template("state-change-failed"), "failed", id="state failed"),
    pytest.param(template("state-change-deregistered"), "deregistered", id="state deregistered"),
    pytest.param(changed("state-change-available", State="disabled"), "disabled", id="state disabled"),
    pytest.param(OTHER_EVENT, "EC2 Instance State-change Notification", id="another event"),
    pytest.param(OTHER_EVENT | {"source": "acme.builds"}, "acme.builds", id="another source"),
]


@pytest.mark.parametrize(("event", "word"), IGNORED)
def test_what_is_no_successful_registration_here_is_ignored_without_a_call(
    world: World, guard: Emulator, event, word
):
    record = guard.invoke(event)

    assert record["verdict"] == "ignored" and record["action"] == "none"
    assert word in record["reason"]
    assert world.calls() == [] and world.alerts() == []
    assert guard.invoke(batch([event])) == {"batchItemFailures": []}
