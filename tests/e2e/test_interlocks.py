"""The interlocks: a discard is due, something speaks against it, and people are told instead."""

from datetime import timedelta

import pytest

from e2e.emulator import Emulator
from e2e.world import LOOKS, OTHER_ACCOUNT, World, registration

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
    pytest.param({}, STATE_CHANGE, ["identity-unknown"], id="a state change"),
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


def assert_held(world: World, ami: str, record, held_by):
    assert (record["verdict"], record["kind"]) == ("mismatch", "wrong")
    assert (record["action"], record["outcome"], record["held_by"]) == ("hold", None, held_by)
    assert world.exists(ami)
    assert world.looks_and_deeds() == (LOOKS, ["Publish"])
    assert world.alerts() == [record]
    [letter] = world.letters()
    assert "held" in letter["subject"]
    for interlock in held_by:
        assert interlock in letter["text"]


@pytest.mark.parametrize(("image", "case", "held_by"), HELD)
def test_a_due_discard_is_held_and_told(world: World, guard: Emulator, image, case, held_by):
    ami = world.image(expect="Windows", **image)

    record = guard.invoke(registration(ami, case) if case else registration(ami))

    assert_held(world, ami, record, held_by)


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
    assert_held(world, ami, record, ["inferred"])
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
