"""The interlocks: a discard is due, something speaks against it, and people are told instead."""

import json
from datetime import timedelta

import pytest

from e2e.emulator import Emulator
from e2e.world import (
    ACCOUNT,
    AROUND,
    COPIES,
    DISCARD,
    LOOKS,
    OLD,
    OTHER_ACCOUNT,
    PREPARED,
    REGION,
    RULE,
    TOPIC,
    World,
    registration,
)

STATE_CHANGE = "state-change-available"
SERVICE = "register-image-aws-service"
HELD = [
    pytest.param(
        {"source_instance_id": "i-0123456789abcdef0"}, None, ["not-registered"], id="made by CreateImage"
    ),
    pytest.param(
        {"source_image_id": "ami-0123456789abcdef0"}, None, ["not-registered"], id="made by CopyImage"
    ),
    pytest.param({"owner_id": OTHER_ACCOUNT}, None, ["not-owner"], id="somebody else's"),
    pytest.param({"age": timedelta(hours=25)}, None, ["too-old"], id="a day old"),
    pytest.param({"deregistration_protection": "enabled-with-cooldown"}, None, ["protected"], id="protected"),
    pytest.param(
        {"tags": {"aws:backup:source-resource": "i-0123456789abcdef0"}},
        None,
        ["backup-managed"],
        id="managed by AWS Backup",
    ),
    pytest.param({}, SERVICE, ["service-registered"], id="registered by a service"),
    pytest.param(
        {"tags": {"AWSElasticDisasterRecoveryManaged": "drs.amazonaws.com"}},
        None,
        ["service-registered"],
        id="tagged by a service",
    ),
    pytest.param(
        {"source_instance_id": "i-0123456789abcdef0", "age": timedelta(hours=25)},
        STATE_CHANGE,
        ["not-registered", "too-old", "identity-unknown"],
        id="several",
    ),
    pytest.param(
        {"operation": "RunInstances:4000"},
        None,
        ["unrecognised-operation"],
        id="an operation that nobody knows",
    ),
]


def published(world: World) -> list:
    """The records of the alerts, whether or not anybody heard them."""
    sent = [call for call in world.calls() if call["action"] == "Publish" and call["status"] == 200]
    return [json.loads(json.loads(call["params"]["Message"])["sqs"]) for call in sent]


def assert_held(world: World, ami: str, record, held_by):
    assert (record["verdict"], record["kind"]) == ("mismatch", "wrong")
    assert (record["action"], record["outcome"], record["held_by"]) == ("hold", None, held_by)
    assert world.exists(ami)
    # Whom an image is shared with, its owner alone is told.
    others = {"DescribeImageAttribute"} if "not-owner" in held_by else set()
    around = [action for action in AROUND if action not in others]
    assert world.looks_and_deeds() == ([*LOOKS, *around], ["Publish"])
    assert published(world) == [record]
    assert record["rebuild"] is None, "nothing is discarded"
    [letter] = world.letters()
    assert "not removed" in letter["subject"]
    for word in (*held_by, *record["references"]):
        assert word in letter["words"]


@pytest.mark.parametrize(("image", "case", "held_by"), HELD)
def test_a_due_discard_is_held_and_told(world: World, guard: Emulator, image, case, held_by):
    ami = world.image(expect="Windows", **image)

    record = guard.invoke(registration(ami, case) if case else registration(ami))

    assert_held(world, ami, record, held_by)


def test_who_registered_an_image_may_yet_be_heard_before_its_discard_is_held(world: World, guard: Emulator):
    ami = world.image(expect="Windows")

    # CloudTrail's event of the same registration takes minutes, and both are delivered in no order.
    error = guard.invoke(registration(ami, STATE_CHANGE))
    assert error["errorType"] == "IdentityMayCome" and ami in error["errorMessage"]
    assert world.mutations() == [] and world.exists(ami)

    record = guard.invoke(registration(ami, STATE_CHANGE, age=OLD))
    assert (record["action"], record["held_by"]) == ("hold", ["identity-unknown"])
    assert world.alerts() == [record] and world.exists(ami)


def test_observe_mode_looks_and_tells_and_changes_nothing(world: World, start):
    ami = world.image(expect="Windows")

    record = start(GUARD_MODE="observe").invoke(registration(ami))

    assert_held(world, ami, record, ["observe-mode"])


def test_a_policy_with_action_none_changes_nothing(world: World, start, policy):
    ami = world.image(expect="Windows")
    guard = start(GUARD_POLICY_PATH=policy('version = 1\n[discard]\naction = "none"\n'))

    record = guard.invoke(registration(ami))

    assert_held(world, ami, record, ["action-none"])


def test_the_default_of_the_policy_never_discards_alone(world: World, start, policy):
    ami, declared = world.image(), world.image(expect="Windows")
    guard = start(GUARD_POLICY_PATH=policy('version = 1\n[defaults]\nexpect = "Windows"\n'))

    record = guard.invoke(registration(ami))

    assert record["expected"] == {"platform": ["Windows"], "source": "default"}
    # The empty disk could have spoken against it.
    assert_held(world, ami, record, ["inferred", "source-failed"])
    # A declaration is stronger than the default, and suffices.
    assert guard.invoke(registration(declared))["outcome"] == "done"


def test_the_policy_can_discard_what_services_register(world: World, start, policy):
    guard = start(GUARD_POLICY_PATH=policy('version = 1\n[discard]\nservice_registered = "discard"\n'))

    for case in (SERVICE, STATE_CHANGE):
        record = guard.invoke(registration(world.image(expect="Windows"), case))
        assert (record["action"], record["outcome"]) == ("deregister", "done")


def test_the_policy_can_allow_older_images_and_choose_its_alerts(world: World, start, policy):
    text = 'version = 1\n[discard]\nmax_age_hours = 48\n[alert]\non = ["conflict", "unverifiable"]\n'
    guard = start(GUARD_POLICY_PATH=policy(text))

    # Not in the list, but a discard is never silent.
    assert (
        guard.invoke(registration(world.image(expect="Windows", age=timedelta(hours=47))))["outcome"]
        == "done"
    )
    assert [alert["kind"] for alert in world.alerts()] == ["wrong"]
    # Not in the list, and nothing is done.
    guard.invoke(registration(world.image("Windows with SQL Server Standard", expect="Windows")))
    assert world.alerts() == []
    guard.invoke(registration(world.image("Windows")))
    [alert] = world.alerts()
    assert (alert["verdict"], alert["action"]) == ("unverifiable", "alert")


def arn(resource: str) -> str:
    """The ARN of a resource of EC2's."""
    return f"arn:aws:ec2:{REGION}:{ACCOUNT}:{resource}"


def running(world: World, ami: str) -> str:
    return arn(f"instance/{world.instance(image=ami)}")


def stopped(world: World, ami: str) -> str:
    instance = world.instance(image=ami)
    world.ec2.stop_instances(InstanceIds=[instance])
    return arn(f"instance/{instance}")


def in_a_launch_template(world: World, ami: str) -> str:
    return arn(f"launch-template/{world.launch_template(ami)}")


def in_an_older_version(world: World, ami: str) -> str:
    return arn(f"launch-template/{world.launch_template(ami, world.image())}")


def in_a_parameter(world: World, ami: str) -> str:
    world.ssm.put_parameter(Name="/golden/windows", Type="String", Value=ami)
    return f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/golden/windows"


@pytest.mark.parametrize("use", [running, stopped, in_a_launch_template, in_an_older_version, in_a_parameter])
def test_an_image_that_something_refers_to_is_held(world: World, guard: Emulator, use):
    ami = world.image(expect="Windows")
    reference = use(world, ami)

    record = guard.invoke(registration(ami))

    assert record["references"] == [reference]
    assert record["error"] is None
    assert_held(world, ami, record, ["in-use"])


def test_all_that_refers_to_an_image_is_listed(world: World, guard: Emulator):
    ami = world.image(expect="Windows")
    references = {use(world, ami) for use in (running, stopped, in_a_launch_template, in_a_parameter)}

    record = guard.invoke(registration(ami))

    assert len(record["references"]) == 4 and set(record["references"]) == references
    assert_held(world, ami, record, ["in-use"])


def test_what_refers_to_another_image_or_to_none_any_more_does_not_hold(world: World, guard: Emulator):
    ami, other = world.image(expect="Windows"), world.image()
    for use in (running, in_a_launch_template, in_a_parameter):
        use(world, other)
    world.ec2.terminate_instances(InstanceIds=[world.instance(image=ami)])

    record = guard.invoke(registration(ami))

    assert (record["outcome"], record["held_by"], record["references"]) == ("done", [], [])
    assert not world.exists(ami)
    [letter] = world.letters()
    assert arn("") not in letter["text"]


def test_the_policy_can_discard_what_is_in_use_and_the_letter_says_by_what(world: World, start, policy):
    guard = start(GUARD_POLICY_PATH=policy('version = 1\n[discard]\nin_use = "discard"\n'))
    ami = world.image(expect="Windows")
    references = {running(world, ami), in_a_launch_template(world, ami)}

    record = guard.invoke(registration(ami))

    assert (record["action"], record["outcome"], record["held_by"]) == ("deregister", "done", [])
    assert set(record["references"]) == references
    assert not world.exists(ami)
    [alert] = world.alerts()
    assert (alert["outcome"], set(alert["references"])) == ("planned", references)
    [letter] = world.letters()
    for reference in references:
        assert reference in letter["text"]


def test_while_the_recycle_bin_rule_is_pending_a_discard_is_held_told_once_and_made_up_for(world: World, start):
    guard = start(GUARD_RECYCLE_BIN_RULE=RULE)
    world.set_rule("pending")
    ami = world.image(expect="Windows")
    event = registration(ami)

    for _ in range(2):
        error = guard.invoke(event)
        assert error["errorType"] == "NotFoundOut"
        assert f"the Recycle Bin rule {RULE} is still pending" in error["errorMessage"]
    [alert] = world.alerts()
    assert (alert["action"], alert["held_by"]) == ("hold", ["no-way-back"])
    assert "no-way-back" in world.letters()[0]["text"]
    assert world.exists(ami) and DISCARD not in world.tags(ami)

    world.set_rule("available")
    record = guard.invoke(event)

    assert (record["outcome"], record["recycle_bin"]) == ("done", "in")
    assert world.actions().count("GetRule") == 3, "what is available is not asked for again"


def test_a_recycle_bin_rule_that_may_not_be_asked_for_holds(world: World, start):
    guard = start(GUARD_RECYCLE_BIN_RULE=RULE)
    world.fail("GetRule", "AccessDeniedException", "not authorized to look", status=403)
    ami = world.image(expect="Windows")

    record = guard.invoke(registration(ami))

    assert (record["action"], record["held_by"]) == ("hold", ["no-way-back"])
    assert "rbin:GetRule" in record["error"] and "not authorized to look" in record["error"]
    assert world.exists(ami)


@pytest.mark.parametrize(
    ("action", "permission", "held_by"),
    [
        ("DescribeImageReferences", "ec2:DescribeImageReferences", ["in-use"]),
        ("GetTopicAttributes", "sns:GetTopicAttributes", ["nobody-listening"]),
        ("DescribeImageAttribute", "ec2:DescribeImageAttribute", ["uncaptured"]),
    ],
)
def test_what_can_not_be_looked_at_holds(world: World, guard: Emulator, action, permission, held_by):
    code = "AuthorizationError" if action == "GetTopicAttributes" else "UnauthorizedOperation"
    world.fail(action, code, "not authorized to look", status=403)
    ami = world.image(expect="Windows")

    record = guard.invoke(registration(ami))

    for word in (permission, "not authorized to look"):
        assert word in record["error"] and word in world.letters()[0]["words"]
    assert record["references"] == []
    assert_held(world, ami, record, held_by)


def test_where_the_policy_does_not_ask_what_is_in_use_not_to_know_it_does_not_hold(
    world: World, start, policy
):
    world.fail("DescribeImageReferences", "UnauthorizedOperation", status=403)
    guard = start(GUARD_POLICY_PATH=policy('version = 1\n[discard]\nin_use = "discard"\n'))
    ami = world.image(expect="Windows")

    record = guard.invoke(registration(ami))

    assert (record["action"], record["outcome"], record["held_by"]) == ("deregister", "done", [])
    assert record["error"] is None, "what holds nothing is no error"
    assert not world.exists(ami)


def test_a_discard_of_which_nobody_would_hear_is_held(world: World, guard: Emulator):
    world.nobody_listens()
    ami = world.image(expect="Windows")

    record = guard.invoke(registration(ami))

    assert record["error"] is None
    assert_held(world, ami, record, ["nobody-listening"])


def test_several_interlocks_are_all_named(world: World, guard: Emulator):
    world.nobody_listens()
    ami = world.image(expect="Windows", age=timedelta(hours=25))
    running(world, ami)

    record = guard.invoke(registration(ami))

    assert_held(world, ami, record, ["too-old", "in-use", "nobody-listening"])


@pytest.mark.parametrize(
    ("action", "held_by"),
    [
        ("DescribeImageReferences", ["in-use"]),
        ("GetTopicAttributes", ["nobody-listening"]),
        ("DescribeImageAttribute", ["uncaptured"]),
    ],
)
def test_what_speaks_against_it_in_the_last_moment_holds_and_the_mark_stays(
    world: World, guard: Emulator, action, held_by
):
    world.fail(action, "UnauthorizedOperation", status=403, spared=1)
    ami = world.image(expect="Windows")

    record = guard.invoke(registration(ami))

    assert (record["action"], record["outcome"], record["held_by"]) == ("hold", None, held_by)
    assert world.looks_and_deeds() == ([*LOOKS, *AROUND], [*PREPARED, "Publish"])
    assert world.alerts() == [record]
    assert world.exists(ami) and world.tags(ami)[DISCARD] == "true"


def test_the_looks_are_at_this_image_and_at_the_alert_topic(world: World, guard: Emulator):
    ami = world.image(expect="Windows")

    guard.invoke(registration(ami))

    called = zip(world.actions(), world.calls(), strict=True)
    looks = [(action, call["params"]) for action, call in called if action in AROUND]
    assert len(looks) == 2 * len(AROUND), "once at first, and once more before the act"
    for action, params in looks:
        asked = {key: value for key, value in params.items() if key != "Version"}
        if action == "GetTopicAttributes":
            assert asked == {"TopicArn": TOPIC}
            continue
        if action == "DescribeImageAttribute":
            assert asked == {"ImageId": ami, "Attribute": "launchPermission"}
            continue
        if action == COPIES:
            assert (asked["Owner.1"], asked["Filter.1.Value.1"]) == ("self", ami)
            continue
        states = {asked.pop(key) for key in list(asked) if ".OptionValue." in key}
        assert states == {"pending", "running", "shutting-down", "stopping", "stopped"}
        assert asked == {
            "ImageId.1": ami,
            "ResourceType.1.ResourceType": "ec2:Instance",
            "ResourceType.1.ResourceTypeOption.1.OptionName": "state-name",
            "ResourceType.2.ResourceType": "ec2:LaunchTemplate",
            "ResourceType.3.ResourceType": "ssm:Parameter",
            "ResourceType.4.ResourceType": "imagebuilder:ImageRecipe",
            "ResourceType.5.ResourceType": "imagebuilder:ContainerRecipe",
        }


@pytest.mark.parametrize(
    ("bills", "expect", "verdict"),
    [
        ("Windows", "Windows", "verified"),
        ("Windows with SQL Server Standard", "Windows", "mismatch"),
        ("Windows", None, "unverifiable"),
    ],
)
def test_where_no_discard_is_due_nobody_looks_around(world: World, guard: Emulator, bills, expect, verdict):
    world.nobody_listens()
    ami = world.image(bills, expect=expect)
    in_a_launch_template(world, ami)

    record = guard.invoke(registration(ami))

    assert (record["verdict"], record["held_by"], record["references"]) == (verdict, [], [])
    assert not set(AROUND) & set(world.actions())
