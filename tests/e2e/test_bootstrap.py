"""The program that the function is: a panic costs it one event, not its life, and what `sam build` made of it works."""

import re
import resource
from pathlib import Path

import pytest

from e2e.emulator import Emulator
from e2e.world import World, batch, registration, template

# Enough for what an event allocates, and not enough for the stack of a thread (two MiB).
SLACK_BYTES = 1024 * 1024


# What a panic does also depends on how the program was built.
BUILDS = ["guard_binary", pytest.param("sam_bootstrap", marks=pytest.mark.sam_build)]


@pytest.fixture(params=BUILDS)
def bootstrap(request: pytest.FixtureRequest, environment: dict[str, str], world: World):
    """The name `localhost` has to be resolved, which takes a thread beside the runtime's only one."""
    endpoint = environment["AWS_ENDPOINT_URL"].replace("127.0.0.1", "localhost")
    program = request.getfixturevalue(request.param)
    with Emulator(program, environment | {"AWS_ENDPOINT_URL": endpoint}) as emulator:
        yield emulator


def test_it_discards(world: World, bootstrap: Emulator):
    ami = world.image(expect="Windows")

    record = bootstrap.invoke(registration(ami))

    assert (record["action"], record["outcome"]) == ("deregister", "done")
    assert not world.exists(ami)
    assert world.mutations() == ["CreateTags", "Publish", "DeregisterImage"]
    assert [alert["outcome"] for alert in world.alerts()] == ["planned"]


@pytest.mark.parametrize("batched", [False, True], ids=["bare event", "batch"])
def test_it_survives_a_panic_in_the_handler(world: World, bootstrap: Emulator, batched: bool):
    ami = world.image(expect="Windows")
    event = batch([registration(ami)]) if batched else registration(ami)
    # An event that needs no call starts the process, and no thread in it.
    assert bootstrap.invoke(template("register-image-failed"))["verdict"] == "ignored"
    pid = bootstrap.bootstrap_pid()
    before = resource.prlimit(pid, resource.RLIMIT_AS)

    # A panic of the real program, not one that was built in: its runtime can not start a thread.
    resource.prlimit(pid, resource.RLIMIT_AS, (address_space(pid) + SLACK_BYTES, before[1]))
    answer = bootstrap.invoke(event)
    resource.prlimit(pid, resource.RLIMIT_AS, before)

    # On one line, with what was being done.
    panic, *counted = [line for line in bootstrap.lines() if line.get("error_type") == "Panic"]
    assert panic["message"].startswith("panicked at ") and (panic["level"], panic["image_id"]) == ("ERROR", ami)
    if batched:
        assert answer == {"batchItemFailures": [{"itemIdentifier": "message-1"}]}
        [failure] = counted
        assert (failure["level"], failure["message_id"], failure["Errors"]) == ("ERROR", "message-1", 1)
    else:
        assert "panicked" in answer["errorMessage"]
    assert world.calls() == [] and world.exists(ami)
    # The same process serves the next event, and the same event when it comes again.
    assert bootstrap.invoke(registration(ami))["outcome"] == "done"
    assert bootstrap.bootstrap_pid() == pid
    assert not world.exists(ami)


def address_space(pid: int) -> int:
    """The size of a process's address space, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    [kibibytes] = re.findall(r"^VmSize:\s+(\d+) kB$", status, re.MULTILINE)
    return int(kibibytes) * 1024
