"""SQS batches: each message by itself, and only the failed ones come back."""

from datetime import timedelta

from e2e.emulator import Emulator
from e2e.world import OLD, World, batch, registration, template


def test_of_ten_mixed_events_only_the_broken_one_comes_back(world: World, guard: Emulator):
    wrong, empty, verified = (
        world.image(expect="Windows"),
        world.image(None),
        world.image("Windows", expect="Windows"),
    )
    extra = world.image("Windows with SQL Server Standard", expect="Windows")
    protected = world.image(expect="Windows", deregistration_protection="enabled")
    changed = world.image(expect="Windows")
    events = [
        registration(wrong),
        registration(empty, "register-image-iam-user"),
        registration(verified),
        template("register-image-failed"),
        registration(extra),
        '{"version":"0","id":"broken',
        registration(protected),
        template("create-image"),
        registration(changed, "state-change-available", age=OLD),
        registration("ami-0123456789abcdef0", age=timedelta(minutes=20)),
    ]
    before = len(guard.records())

    answer = guard.invoke(batch(events))

    assert answer == {"batchItemFailures": [{"itemIdentifier": "message-6"}]}
    records = guard.records()[before:]
    by_event = {record["event_id"]: record for record in records}
    outcomes = [None if isinstance(event, str) else by_event[event["id"]]["verdict"] for event in events]
    assert outcomes == [
        "mismatch",
        "mismatch",
        "verified",
        "ignored",
        "mismatch",
        None,
        "mismatch",
        "ignored",
        "mismatch",
        "gone",
    ]
    assert len(records) == 9, "one line of the log for each event"
    for ami, stays in {
        wrong: False,
        empty: False,
        verified: True,
        extra: True,
        protected: True,
        changed: True,
    }.items():
        assert world.exists(ami) is stays
    alerts = {alert["image_id"]: alert["action"] for alert in world.alerts()}
    assert alerts == {
        wrong: "deregister",
        empty: "deregister",
        extra: "alert",
        protected: "hold",
        changed: "hold",
    }
    assert world.actions().count("Publish") == 5, "one alert an image"
    # Also side by side, each image is told of before it goes.
    for ami in (wrong, empty):
        told = next(i for i, call in enumerate(world.calls()) if ami in call["params"].get("Message", ""))
        gone = next(
            i
            for i, call in enumerate(world.calls())
            if call["action"] == "DeregisterImage" and call["params"]["ImageId"] == ami
        )
        assert told < gone


def test_what_a_retry_can_cure_comes_back_alone(world: World, guard: Emulator):
    young = world.image(expect="Windows", age=timedelta(seconds=20))
    unseen = world.image(expect="Windows", invisible_for=1000)
    settled, changed = world.image(expect="Windows"), world.image(expect="Windows")
    events = [registration(ami) for ami in (young, unseen, settled)]

    answer = guard.invoke(batch([*events, registration(changed, "state-change-available")]))

    failed = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
    assert failed == {"message-1", "message-2", "message-4"}
    assert world.exists(young) and world.exists(changed) and not world.exists(settled)
    assert [alert["image_id"] for alert in world.alerts()] == [settled]


def test_the_same_event_twice_in_a_batch_ends_in_one_discard(world: World, guard: Emulator):
    ami = world.image(expect="Windows")
    event = registration(ami)

    answer = guard.invoke(batch([event, event]))

    # One after the other: the second finds the image gone, and neither comes back.
    assert answer["batchItemFailures"] == []
    assert not world.exists(ami)
    assert world.mutations() == ["CreateTags", "Publish", "DeregisterImage"]


def test_an_empty_batch_is_no_error(world: World, guard: Emulator):
    assert guard.invoke({"Records": []}) == {"batchItemFailures": []}
    assert world.calls() == []
