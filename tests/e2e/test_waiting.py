"""Not knowing is never a mismatch: young images and images that EC2 does not show yet."""

from datetime import timedelta

from e2e.emulator import Emulator
from e2e.world import SETTLED, World, now, registration

SECONDS = timedelta(seconds=1)


def test_a_young_image_comes_back_until_it_is_settled(world: World, guard: Emulator):
    ami = world.image(expect="Windows", age=20 * SECONDS)
    event = registration(ami, age=20 * SECONDS)

    error = guard.invoke(event)

    assert error["errorType"] == "NotSettled"
    assert "GUARD_SETTLE_SECONDS" in error["errorMessage"] and ami in error["errorMessage"]
    assert world.mutations() == [] and world.alerts() == []
    # Then it is old enough.
    world.change(ami, creation_date="2020-01-01T00:00:00+00:00")
    assert guard.invoke(event)["held_by"] == ["too-old"]


def test_a_young_image_without_a_tag_may_still_get_one(world: World, guard: Emulator):
    ami = world.image("Windows", age=20 * SECONDS)

    assert guard.invoke(registration(ami, age=20 * SECONDS))["errorType"] == "NotSettled"


def test_a_young_image_that_its_tag_verifies_passes_at_once(world: World, guard: Emulator):
    ami = world.image("Windows", expect="Windows", age=timedelta())

    record = guard.invoke(registration(ami, age=timedelta()))

    assert record["verdict"] == "verified"


def test_a_young_image_that_only_its_lineage_verifies_may_still_get_a_tag(world: World, guard: Emulator):
    snapshot = world.snapshot_of(world.root_volume(world.instance("Windows")))
    windows = {"platform_details": "Windows", "usage_operation": "RunInstances:0002"}
    ami = world.register(snapshot, age=20 * SECONDS, **windows)

    assert guard.invoke(registration(ami, age=20 * SECONDS))["errorType"] == "NotSettled"
    world.change(ami, creation_date=(now() - SETTLED).isoformat())
    assert guard.invoke(registration(ami))["verdict"] == "verified"


def test_a_young_image_that_a_rule_verifies_or_exempts_passes_at_once(world: World, start, policy):
    rules = """
        version = 1
        [[expect]]
        name = "win-*"
        platform = "Windows"
        [[exempt]]
        name = "byol-*"
        reason = "on purpose"
    """
    guard = start(GUARD_POLICY_PATH=policy(rules))

    for bills, name, verdict in [("Windows", "win-1", "verified"), ("Linux/UNIX", "byol-1", "exempt")]:
        ami = world.image(bills, name=name, age=timedelta())
        assert guard.invoke(registration(ami, age=timedelta()))["verdict"] == verdict


def test_the_settle_time_is_a_setting(world: World, start):
    ami = world.image(expect="Windows", age=20 * SECONDS)

    assert start(GUARD_SETTLE_SECONDS="10").invoke(registration(ami))["outcome"] == "done"


def test_an_image_that_shows_late_is_waited_for(world: World, start):
    ami = world.image(expect="Windows", invisible_for=2)

    # Much longer than three calls take.
    record = start(GUARD_WAIT_SECONDS="30").invoke(registration(ami))

    assert record["outcome"] == "done"
    assert [call["code"] for call in world.calls()[:3]] == ["InvalidAMIID.NotFound"] * 2 + [None]


def test_an_image_that_does_not_show_is_an_error_when_the_budget_is_spent(world: World, guard: Emulator):
    ami = world.image(expect="Windows", invisible_for=1000)

    error = guard.invoke(registration(ami))

    assert error["errorType"] == "NotVisibleYet" and ami in error["errorMessage"]
    # GUARD_WAIT_SECONDS is 2: it has no time for more calls with the pauses between them. A slow machine makes fewer.
    assert set(world.actions()) == {"DescribeImages"} and len(world.actions()) < 20


def test_a_pending_image_is_no_mismatch(world: World, guard: Emulator):
    for state in ("pending", "transient"):
        ami = world.image(None, state=state)
        error = guard.invoke(registration(ami, age=timedelta(hours=1)))
        assert error["errorType"] == "NotVisibleYet" and state in error["errorMessage"]
    assert world.mutations() == []


def test_an_empty_answer_about_a_young_event_is_no_verdict(world: World, guard: Emulator):
    ami = world.image(expect="Windows")
    world.ec2.deregister_image(ImageId=ami)

    assert guard.invoke(registration(ami))["errorType"] == "NotVisibleYet"


def test_throttling_that_lasts_is_an_error_that_a_retry_can_cure(world: World, guard: Emulator):
    world.fail("DescribeImages", "RequestLimitExceeded", "Request limit exceeded.", status=503)

    error = guard.invoke(registration("ami-0123456789abcdef0"))

    assert error["errorType"] == "Unavailable" and "ec2:DescribeImages" in error["errorMessage"]


def test_a_discard_for_which_there_is_no_time_left_is_not_begun(world: World, start):
    ami = world.image(expect="Windows")

    error = start(AWS_LAMBDA_FUNCTION_TIMEOUT="10").invoke(registration(ami))

    assert error["errorType"] == "OutOfTime" and ami in error["errorMessage"]
    assert world.mutations() == [] and world.exists(ami)
