"""Every event of the folder events goes through the guard."""

import json

import pytest

from e2e.emulator import Emulator
from e2e.world import ROOT, World

FILES = sorted((ROOT / "events").glob("*.json"))

# Those that an event of an image that does not exist can end in.
ERROR_TYPES = {"MalformedEvent", "NotVisibleYet"}


@pytest.fixture(scope="module")
def guard(guard_binary, environment):
    """The events' images do not exist here: how long to wait for them is not what is tested."""
    with Emulator(guard_binary, environment | {"GUARD_WAIT_SECONDS": "0"}) as emulator:
        yield emulator


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_event_ends_in_a_record_or_in_an_error_that_has_a_name(world: World, guard: Emulator, file):
    event = json.loads(file.read_text())

    answer = guard.invoke(event)

    if "Records" in event:
        assert set(answer) == {"batchItemFailures"}
        sent = {message["messageId"] for message in event["Records"]}
        assert {failure["itemIdentifier"] for failure in answer["batchItemFailures"]} <= sent
    elif "errorType" in answer:
        assert answer["errorType"] in ERROR_TYPES
    else:
        assert answer["schema"] == 1 and answer["verdict"] in ("gone", "ignored")
    assert world.mutations() == []
    assert "panicked" not in "\n".join(guard.output)


def test_there_are_events_of_every_kind():
    assert len(FILES) >= 12


@pytest.mark.parametrize(
    "case",
    ["register-image-malformed-image-id", "register-image-without-answer", "register-image-without-image-id"],
)
def test_a_registration_that_lacks_what_is_needed_is_an_error(world: World, guard: Emulator, case):
    event = json.loads((ROOT / "events" / f"{case}.json").read_text())

    error = guard.invoke(event)

    assert error["errorType"] == "MalformedEvent"
    assert world.calls() == []
