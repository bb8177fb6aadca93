"""The role of the template against the calls that moto saw: what the guard may do is what it does.

The fixture `moto` checks, when its server stops, that no other test made the guard call what it may not.
"""

import json
from datetime import timedelta

import pytest

from e2e.emulator import Emulator
from e2e.role import OTHERS, allowed_to_the_guard, called_by_the_guard, statements
from e2e.world import LEDGER, RULE, World, registration, scheduled, audit


@pytest.mark.one_hour
def test_the_role_allows_the_calls_that_the_guard_makes_and_no_others(world: World, start, policy):
    allowed = allowed_to_the_guard()

    make_every_call(world, start, policy)

    called = called_by_the_guard(world.moto)
    assert called - allowed == set(), "the guard calls what it may not"
    assert allowed - called == set(), "the guard may do what it never does"


def make_every_call(world: World, start, policy) -> None:
    """An image is discarded by deregistering, one by disabling, one is left to the digest, one is too young, a disk is read,
    and all are audited."""
    world.make_ledger()
    rule = policy("version = 1\n[discard]\nmax_per_hour = 1\n")
    guard = start(GUARD_LEDGER_TABLE=LEDGER, GUARD_POLICY_PATH=rule, GUARD_RECYCLE_BIN_RULE=RULE)
    snapshot = world.snapshot_of(world.root_volume(world.instance("Windows")))
    from_instance = world.register(snapshot, expect="Windows")
    first, second = world.image(expect="Windows"), world.image(expect="Windows")

    assert guard.invoke(registration(from_instance))["recycle_bin"] == "in"
    for ami in (first, second):
        assert guard.invoke(registration(ami))["held_by"] == ["limit"]
    assert "Images reported: 1" in guard.invoke(scheduled())["reason"]
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
    assert "images examined" in disables.invoke(audit())["reason"]


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
