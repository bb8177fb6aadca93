"""The role of the template against the calls that moto saw: what the guard may do is what it does."""

import json
from datetime import timedelta

from e2e.emulator import Emulator
from e2e.world import LEDGER, RULE, World, registration, scheduled, sweep, template_resource, within_the_hour

# What the role allows, and the guard itself never calls.
OTHERS = {
    "FindReferences": "EC2 makes these calls for DescribeImageReferences, in the role's name (CalledVia)",
    "ReadReferences": "so it makes these",
    "TakeEvents": "Lambda takes the events off the queue, in the role's name",
    "Log": "Lambda writes the log, in the role's name",
}

# IAM has no action of this name: it asks for those of the operations that a transaction is made of.
MADE_OF = {"dynamodb:TransactWriteItems": "dynamodb:UpdateItem"}


def statements() -> dict[str, dict]:
    """What the role allows, by the names of the statements."""
    [policy] = template_resource("GuardRole")["Policies"]
    listed = policy["PolicyDocument"]["Statement"]
    # Of one that depends on a condition, what is there if it holds.
    listed = [statement["Fn::If"][1] if "Fn::If" in statement else statement for statement in listed]
    return {statement["Sid"]: statement for statement in listed if statement["Effect"] == "Allow"}


def allowed_to_the_guard() -> set[str]:
    """The actions that the guard itself may call."""
    allowed: set[str] = set()
    for name, statement in statements().items():
        if name not in OTHERS:
            actions = statement["Action"]
            allowed |= set([actions] if isinstance(actions, str) else actions)
    return allowed


def test_the_role_allows_the_calls_that_the_guard_makes_and_no_others(world: World, start, policy):
    allowed = allowed_to_the_guard()

    make_every_call(world, start, policy)

    # By the tests that ran before, too.
    seen = [call for caller, *call in world.moto.order("seen") if caller == "guard"]
    called = {MADE_OF.get(action, action) for action in map(":".join, seen)}
    assert called - allowed == set(), "the guard calls what it may not"
    assert allowed - called == set(), "the guard may do what it never does"


def make_every_call(world: World, start, policy) -> None:
    """An image is discarded by deregistering, one by disabling, one is left to the digest, one is too young, a disk is read,
    and all are swept."""
    world.make_ledger()
    within_the_hour(60)
    rule = policy("version = 1\n[discard]\nmax_per_hour = 1\n")
    guard = start(GUARD_LEDGER_TABLE=LEDGER, GUARD_POLICY_PATH=rule, GUARD_RECYCLE_BIN_RULE=RULE)
    snapshot = world.snapshot_of(world.root_volume(world.instance("Windows")))
    from_instance = world.register(snapshot, expect="Windows")
    first, second = world.image(expect="Windows"), world.image(expect="Windows")

    assert guard.invoke(registration(from_instance))["recycle_bin"] == "in"
    for ami in (first, second):
        assert guard.invoke(registration(ami))["held_by"] == ["limit"]
    assert "people were told of: 1" in guard.invoke(scheduled())["reason"]
    rule = policy('version = 1\n[discard]\naction = "disable"\n')
    disables = start(GUARD_LEDGER_TABLE=LEDGER, GUARD_POLICY_PATH=rule)
    assert disables.invoke(registration(first))["outcome"] == "done"
    queue = world.make_event_queue(300)
    young = registration(world.image(expect="Windows", age=timedelta()))
    world.sqs.send_message(QueueUrl=queue, MessageBody=json.dumps(young), DelaySeconds=0)
    waits = start(GUARD_QUEUE_URL=queue)
    assert len(waits.invoke({"Records": world.receive(queue)})["batchItemFailures"]) == 1
    on_disk = world.register(world.snapshot_with_disk("debian12"))
    assert disables.invoke(registration(on_disk))["expected"]["source"] == "disk"
    assert "images that were looked at" in disables.invoke(sweep())["reason"]


def test_what_the_role_allows_to_others_is_still_there(world: World):
    assert OTHERS.keys() <= statements().keys()


def test_the_role_allows_the_tags_that_the_guard_writes_and_no_others(world: World, guard: Emulator):
    allowed = statements()["Mark"]["Condition"]["ForAllValues:StringEquals"]["aws:TagKeys"]

    assert guard.invoke(registration(world.image(expect="Windows")))["outcome"] == "done"

    written = {
        value
        for call in world.calls()
        if call["action"] == "CreateTags"
        for name, value in call["params"].items()
        if name.startswith("Tag.") and name.endswith(".Key")
    }
    assert written == set(allowed)
