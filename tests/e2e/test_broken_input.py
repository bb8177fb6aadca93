"""Two hundred random and broken inputs: none panics, none changes anything, the next event is served."""

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

from e2e.emulator import Emulator
from e2e.world import World, batch, registration

# Any number would do; with this one a failure can be looked into.
SEED = 20261123

# Without any of these an event is no registration of this account and Region.
NEEDED = [
    ["id"],
    ["account"],
    ["region"],
    ["time"],
    ["source"],
    ["detail-type"],
    ["detail"],
    ["detail", "eventName"],
    ["detail", "responseElements"],
    ["detail", "responseElements", "imageId"],
]

# None of these is a value that any of the needed members may have.
WRONG = [
    None,
    True,
    0,
    -1,
    1e300,
    "",
    "\u0000",
    "ami-?",
    "é" * 100,
    [],
    ["ami-12345678"],
    {},
    {"items": None},
]

ATOMS = [None, True, False, 0, -1, 2**63, 1e-300, "", "\ud83d\ude00", "Records", "\u0000", "ami-12345678"]


def junk(rng: random.Random, depth: int = 0) -> Any:
    """Any JSON at all, with names that events have."""
    names = ["Records", "body", "messageId", "detail", "source", "detail-type", "id", "State", "x"]
    kind = rng.randrange(4 if depth < 4 else 2)
    if kind == 2:
        return [junk(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 3:
        return {rng.choice(names): junk(rng, depth + 1) for _ in range(rng.randrange(5))}
    return rng.choice(ATOMS)


def cut(rng: random.Random, event: dict[str, Any]) -> bytes:
    text = json.dumps(event).encode()
    return text[: rng.randrange(len(text))]


def without_a_needed_member(rng: random.Random, event: dict[str, Any]) -> bytes:
    event = copy.deepcopy(event)
    *path, last = rng.choice(NEEDED)
    inside = event
    for name in path:
        inside = inside[name]
    if rng.random() < 0.3:
        del inside[last]
    else:
        inside[last] = rng.choice(WRONG)
    return json.dumps(event).encode()


def not_utf8(rng: random.Random, event: dict[str, Any]) -> bytes:
    # In the middle of a name or of a value: no byte of it is UTF-8 there.
    text = bytearray(json.dumps(event).encode())
    for _ in range(rng.randrange(1, 9)):
        text[rng.randrange(1, len(text) - 1)] = rng.choice([0x80, 0xC0, 0xFE, 0xFF])
    return bytes(text)


def deep(rng: random.Random, event: dict[str, Any]) -> bytes:
    depth = rng.choice([150, 5_000, 200_000])
    nest = rng.choice(["[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth, "[" * depth])
    # In the event's place, or in the place of the image's id.
    event = copy.deepcopy(event)
    event["detail"]["responseElements"]["imageId"] = "NEST"
    return rng.choice([nest, json.dumps(event).replace('"NEST"', nest)]).encode()


def long(rng: random.Random, event: dict[str, Any]) -> bytes:
    event = copy.deepcopy(event)
    *path, last = rng.choice([path for path in NEEDED if path != ["detail"]])
    inside = event
    for name in path:
        inside = inside[name]
    inside[last] = rng.choice(["a", "é", "\n", "ami-"]) * (1_000_000 // rng.choice([1, 4]))
    return json.dumps(event).encode()


def batch_of_junk(rng: random.Random, event: dict[str, Any]) -> bytes:
    breaks = [cut, without_a_needed_member, deep]
    messages: Any = batch([rng.choice(breaks)(rng, event).decode() for _ in range(rng.randrange(1, 11))])
    for message in messages["Records"]:
        if rng.random() < 0.3:
            message[rng.choice(["body", "messageId", "attributes"])] = junk(rng)
    if rng.random() < 0.2:
        messages["Records"] = junk(rng)
    return json.dumps(messages).encode()


def anything(rng: random.Random, _: dict[str, Any]) -> bytes:
    return rng.choice([json.dumps(junk(rng)).encode(), rng.randbytes(rng.randrange(200))])


BREAKS = [
    cut,
    without_a_needed_member,
    without_a_needed_member,
    not_utf8,
    deep,
    long,
    batch_of_junk,
    anything,
]


def broken(event: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Two hundred inputs, each made from an event that a discard would follow, and none is one."""
    rng = random.Random(SEED)
    for number in range(200):
        make = BREAKS[number % len(BREAKS)]
        yield make.__name__, make(rng, event)


def test_two_hundred_broken_inputs_do_no_harm(world: World, guard: Emulator):
    ami, next_one = world.image(expect="Windows"), world.image(expect="Windows")
    pid = warm(guard)
    kinds: dict[str, int] = {}

    for how, body in broken(registration(ami)):
        answer = guard.invoke(body)
        kind = what(answer)
        kinds[kind] = kinds.get(kind, 0) + 1
        assert kind in ("error", "batch", "ignored"), (how, body[:200], answer)

    assert world.mutations() == [] and world.exists(ami)
    assert "panicked" not in "\n".join(guard.output)
    assert guard.bootstrap_pid() == pid, "the process is the same"
    assert sum(kinds.values()) == 200 and len(kinds) == 3, kinds
    # And it serves the next good event.
    assert guard.invoke(registration(next_one))["outcome"] == "done"
    assert guard.bootstrap_pid() == pid


def test_a_batch_with_junk_in_it_reports_the_junk_alone(world: World, guard: Emulator):
    ami = world.image(expect="Windows")
    bodies = ["", "null", "[]", "7", '"text"', "{", "{}", '{"Records":[]}', "[" * 5000, registration(ami)]

    answer = guard.invoke(batch(bodies))

    failed = [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]
    assert sorted(failed) == sorted(f"message-{number}" for number in range(1, 10))
    assert not world.exists(ami)


def warm(guard: Emulator) -> int:
    """The bootstrap's process id: it runs only once it had an event."""
    guard.invoke({})
    return guard.bootstrap_pid()


def what(answer: Any) -> str:
    """What kind of an answer it is."""
    if not isinstance(answer, dict):
        return "nonsense"
    if isinstance(answer.get("errorType"), str):
        return "error"
    if isinstance(answer.get("batchItemFailures"), list):
        return "batch"
    return answer.get("verdict", "nonsense")
