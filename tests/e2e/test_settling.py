"""Young images: a real queue brings their event back when they have settled, and one receive is all that it costs."""

import json
import math
from datetime import datetime, timedelta
from typing import Any

from e2e.emulator import Emulator
from e2e.world import World, now, registration, template_resource

# The longest that the template offers.
SETTLE = 7200

# What the template's queue does.
DELAY = 900
VISIBILITY = template_resource("EventQueue")["VisibilityTimeout"]
RECEIVES = template_resource("EventQueue")["RedrivePolicy"]["maxReceiveCount"]


def sent(world: World) -> tuple[str, str]:
    """The event queue with the event of an image that was registered now, and the image."""
    queue = world.make_event_queue(SETTLE)
    ami = world.image(expect="Windows", age=timedelta())
    world.sqs.send_message(QueueUrl=queue, MessageBody=json.dumps(registration(ami, age=timedelta())))
    return queue, ami


def delayed(world: World, queue: str, ami: str) -> tuple[list[dict[str, Any]], datetime]:
    """The messages that the queue hands out when the delay is over, and when their image was registered by then."""
    assert world.receive(queue) == []
    world.later(DELAY)
    registered = now() - timedelta(seconds=DELAY)
    world.change(ami, creation_date=registered.isoformat())
    return world.receive(queue), registered


def take(guard: Emulator, messages: list[dict[str, Any]]) -> list[str]:
    """Hands messages to the function, and gives the ids of those that come back."""
    answer = guard.invoke({"Records": messages})
    return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]


def receives(messages: list[dict[str, Any]]) -> list[str]:
    return [message["attributes"]["ApproximateReceiveCount"] for message in messages]


def waiting(world: World) -> dict[str, Any]:
    """The one message on the event queue."""
    [message] = [it for it in world.moto.order("messages") if it["queue"] == "registrations"]
    return message


def dead(world: World) -> list[str]:
    """What is in the dead-letter queue: the bodies of its messages."""
    return [it["body"] for it in world.moto.order("messages") if it["queue"] == "dead-letters"]


def hidings(world: World) -> list[dict[str, Any]]:
    return [call for call in world.calls() if call["action"] == "ChangeMessageVisibility"]


def test_the_wait_beyond_the_queues_delay_costs_one_receive(world: World, start):
    queue, ami = sent(world)
    guard = start(GUARD_QUEUE_URL=queue, GUARD_SETTLE_SECONDS=str(SETTLE))
    messages, registered = delayed(world, queue, ami)
    assert receives(messages) == ["1"]

    assert take(guard, messages) == [messages[0]["messageId"]]

    # Visible when the image has settled and no sooner; a second is for clocks, another for the rounding of the age.
    settled, visible = registered.timestamp() + SETTLE, waiting(world)["visible_at"]
    answered = now().timestamp()
    assert settled <= visible <= math.ceil(settled) + 2 + (answered - registered.timestamp() - DELAY)
    [hiding] = hidings(world)
    assert (hiding["status"], hiding["params"]["QueueUrl"]) == (200, queue)
    assert world.mutations() == [] and world.alerts() == []
    # The queue's own visibility timeout does not bring it back.
    world.later(VISIBILITY + 1)
    assert world.receive(queue) == []

    world.later(visible - now().timestamp() - VISIBILITY)
    world.change(ami, creation_date=(now() - timedelta(seconds=SETTLE)).isoformat())
    messages = world.receive(queue)
    assert receives(messages) == ["2"]
    assert take(guard, messages) == []
    assert not world.exists(ami)
    assert [alert["image_id"] for alert in world.alerts()] == [ami]
    assert len(hidings(world)) == 1 and dead(world) == []


def test_after_the_wait_all_other_receives_are_left_for_real_failures(world: World, start):
    queue, ami = sent(world)
    guard = start(GUARD_QUEUE_URL=queue, GUARD_SETTLE_SECONDS=str(SETTLE))
    messages, _ = delayed(world, queue, ami)
    assert len(take(guard, messages)) == 1
    world.later(SETTLE)
    world.change(ami, creation_date=(now() - timedelta(seconds=SETTLE)).isoformat())
    # Denied: it is not the image that is too young.
    world.fail("DescribeImages", "UnauthorizedOperation", status=403)

    for count in range(2, RECEIVES + 1):
        messages = world.receive(queue)
        assert receives(messages) == [str(count)]
        assert len(take(guard, messages)) == 1
        # It is hidden by the queue alone, for as long as any failure.
        assert world.receive(queue) == []
        world.later(VISIBILITY + 1)

    assert len(hidings(world)) == 1 and dead(world) == []
    assert world.receive(queue) == []
    assert dead(world) == [messages[0]["body"]]


def test_a_message_that_can_not_be_hidden_comes_back_by_the_queues_own_timeout(world: World, start):
    queue, ami = sent(world)
    guard = start(GUARD_QUEUE_URL=queue, GUARD_SETTLE_SECONDS=str(SETTLE))
    messages, _ = delayed(world, queue, ami)
    world.fail("ChangeMessageVisibility", "AccessDenied", "not allowed", status=403)

    assert take(guard, messages) == [messages[0]["messageId"]]

    assert [call["status"] for call in hidings(world)] == [403]
    [warning] = [line for line in guard.lines() if "could not hide the message" in str(line.get("message", ""))]
    assert warning["level"] == "WARN" and "sqs:ChangeMessageVisibility" in warning["message"]
    assert world.receive(queue) == []
    world.later(VISIBILITY + 1)
    assert receives(world.receive(queue)) == ["2"]


def test_without_the_queues_url_a_young_image_comes_back_by_the_queues_own_timeout(world: World, start):
    queue, ami = sent(world)
    guard = start(GUARD_SETTLE_SECONDS=str(SETTLE))
    messages, _ = delayed(world, queue, ami)

    assert len(take(guard, messages)) == 1

    assert hidings(world) == []
    world.later(VISIBILITY + 1)
    assert receives(world.receive(queue)) == ["2"]
