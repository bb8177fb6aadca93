"""Fixtures: moto with the extension, an empty account for each test, the guard in the emulator."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import stack
from _pytest.runner import runtestprotocol
from api_models import Call, Check

from e2e.emulator import Emulator
from e2e.role import allowed_to_the_guard, called_by_the_guard
from e2e.world import ACCOUNT, REGION, ROOT, TOPIC, Moto, World, this_hour

# A guard of the tests waits less than the default for an image that is not visible yet.
SETTINGS = {
    "AWS_REGION": REGION,
    "AWS_ACCESS_KEY_ID": "guard",
    "AWS_SECRET_ACCESS_KEY": "guard",
    "GUARD_MODE": "enforce",
    "GUARD_ALERT_TOPIC_ARN": TOPIC,
    "GUARD_ACCOUNT_ID": ACCOUNT,
    "GUARD_WAIT_SECONDS": "2",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips the tests of SAM's build unless SAM_BOOTSTRAP names one: an old build would be the wrong one to test."""
    if "SAM_BOOTSTRAP" not in os.environ:
        skip = pytest.mark.skip(reason="needs SAM's release build: `make test-build` makes it and runs this test")
        for item in items:
            if item.get_closest_marker("sam_build"):
                item.add_marker(skip)


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Runs a test of the hourly limits again, with fixtures of its own, if it failed and the hour ended meanwhile."""
    if not item.get_closest_marker("one_hour"):
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    began = this_hour()
    reports = runtestprotocol(item, log=False, nextitem=nextitem)
    if this_hour() != began and any(report.failed for report in reports):
        item._initrequest()
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says how much tests compared: a comparison of nothing finds no fault either."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{name}: {value}")


def binary(variable: str, default: str, made_by: str) -> Path:
    """A program that has to be built before these tests run."""
    path = Path(os.environ.get(variable, ROOT / default)).resolve()
    if not path.is_file():
        pytest.fail(f"{path} is missing: `{made_by}` makes it, {variable} can name another")
    return path


@pytest.fixture(scope="session")
def deployed() -> stack.Stack:
    """What of the template is watched."""
    return stack.read()


@pytest.fixture(scope="session")
def guard_binary() -> Path:
    return binary("GUARD_BINARY", "target/debug/guard", "cargo build --workspace --all-targets")


@pytest.fixture(scope="session")
def sim_binary() -> Path:
    return binary("SIM_BINARY", "target/debug/sim", "cargo build --workspace --all-targets")


@pytest.fixture(scope="session")
def cli_binary() -> Path:
    return binary("CLI_BINARY", "target/debug/ami-guard", "cargo build --workspace --all-targets")


@pytest.fixture(scope="session")
def sam_bootstrap() -> Path:
    """What `sam build` made. Only tests with the marker `sam_build` take it."""
    return binary("SAM_BOOTSTRAP", ".aws-sam/build/GuardFunction/bootstrap", "make build")


@pytest.fixture(scope="session")
def moto() -> Iterator[Moto]:
    """A server for each process that runs tests. At its end, all that the guard asked it in these tests is checked."""
    server = Moto()
    yield server
    called = called_by_the_guard(server)
    check = Check()
    for call in server.order("recorded"):
        check.request(Call(**call))
    server.stop()
    assert called - allowed_to_the_guard() == set(), "in a test the guard called what it may not"
    assert [*check.faults] == [], "in a test the guard made a request that the API models do not know"


@pytest.fixture
def world(moto: Moto) -> World:
    """The same server for all tests, emptied before each."""
    return World(moto)


@pytest.fixture(scope="session")
def environment(moto: Moto) -> dict[str, str]:
    """The settings of the guard that most tests talk to."""
    return SETTINGS | {"AWS_ENDPOINT_URL": moto.endpoint}


@pytest.fixture(scope="session")
def without_limit(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a policy that is the built-in one, but for the hourly limit.

    One guard serves many tests within an hour, and remembers what it did in all of them.
    """
    path = tmp_path_factory.mktemp("policy") / "policy.toml"
    path.write_text("version = 1\n[discard]\nmax_per_hour = 1000000\n")
    return str(path)


@pytest.fixture(scope="session")
def guard(guard_binary: Path, environment: dict[str, str], without_limit: str) -> Iterator[Emulator]:
    """The guard that most tests talk to: mode `enforce`, no limit of discards, its ledger in memory."""
    with Emulator(guard_binary, environment | {"GUARD_POLICY_PATH": without_limit}) as emulator:
        yield emulator
        assert "panicked" not in "\n".join(emulator.output)


@pytest.fixture
def start(guard_binary: Path, environment: dict[str, str]) -> Iterator[Callable[..., Emulator]]:
    """Starts a guard of a test's own, with settings beside or instead of the usual ones."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(Emulator(guard_binary, environment | settings))


@pytest.fixture
def policy(tmp_path: Path) -> Callable[[str], str]:
    """Writes a policy file, and gives its path."""

    def write(text: str) -> str:
        path = tmp_path / "policy.toml"
        path.write_text(text)
        return str(path)

    return write
