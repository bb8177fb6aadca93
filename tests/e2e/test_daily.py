"""The scheduled audit, in the function as it is deployed: what it finds, and the memory that it takes."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from e2e.emulator import Emulator, metrics_of
from e2e.test_disks import peak
from e2e.world import LEDGER, World, batch, registration, audit

# A function of 128 MB has this and more left for what Lambda counts besides.
MOST_BYTES = 64_000_000

# More than are in memory at once, and several times that.
FEW, MANY = 12_000, 48_000

# How much more memory MANY images may take than FEW. Audits of the same images differ by up to 5 MB, depending on which
# pages are in memory at the same time. An audit that kept 300 bytes of each image would take 11 MB more.
GROWTH_BYTES = 8_000_000


@pytest.fixture
def audited(world: World, start) -> Emulator:
    """A guard that audited for the first time a week ago."""
    world.make_ledger()
    world.audited_before()
    return start(GUARD_LEDGER_TABLE=LEDGER)


def groups(summary: dict) -> dict[str, set[str]]:
    """The images of a summary, by their groups."""
    assert summary["digest"] == "audit"
    return {name: {it["image_id"] for it in group["images"]} for name, group in summary["groups"].items()}


def test_what_no_event_told_of_is_dealt_with_and_everything_else_is_told_of(world: World, audited: Emulator):
    known = world.image("Windows", expect="Windows", age=timedelta(hours=2))
    held = world.image(expect="Windows", deregistration_protection="enabled", age=timedelta(hours=2))
    for ami in (known, held):
        audited.invoke(registration(ami))
    missed = world.image(expect="Windows", age=timedelta(hours=2))
    old = world.image(expect="Windows", age=timedelta(days=30))
    unknown = world.image(age=timedelta(days=30))
    young = world.image(expect="Windows")

    # As the queue hands it over.
    assert audited.invoke(batch([audit()])) == {"batchItemFailures": []}

    [of_held, own, summary] = world.alerts()
    found = {"missed": {missed}, "mismatch": {old}, "held": {held}, "unverifiable": {unknown}}
    assert groups(summary) == found
    assert (of_held["image_id"], own["image_id"], own["held_by"]) == (held, missed, ["identity-unknown"])
    assert all(map(world.exists, [known, held, missed, old, unknown, young]))
    [line] = [line for line in audited.lines() if "looked_at" in line]
    counted = {"AuditedImages": 6, "MissedImages": 1, "AuditMismatches": 2}
    assert (line["level"], line["unchanged"], metrics_of(line)) == ("WARN", 1, counted)

    # The next day it is known, and held.
    assert "reported: 4" in audited.invoke(audit(day=1))["reason"]
    assert groups(world.alerts()[-1])["held"] == {held, missed}


def test_an_audit_of_nothing_that_is_wrong_is_no_message(world: World, audited: Emulator):
    event = audit()
    audited.invoke(registration(world.image("Windows", expect="Windows", age=timedelta(hours=2))))

    assert "examined: 1, reported: 0; none are left" in audited.invoke(event)["reason"]
    assert audited.invoke(event)["reason"] == "the event requests an audit: this one or a later one is already complete"
    assert world.alerts() == []


@contextmanager
def account(sim_binary: Path, images: int) -> Iterator[str]:
    """The endpoint of an account with so many images."""
    command = [sim_binary, "--images", str(images)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.mark.sam_build
def test_an_audit_takes_no_more_memory_for_many_images_than_for_few(
    sim_binary: Path, sam_bootstrap: Path, environment: dict[str, str]
):
    peaks = {}
    for images in (FEW, MANY):
        with account(sim_binary, images) as endpoint:
            settings = environment | {"AWS_ENDPOINT_URL": endpoint, "GUARD_LEDGER_TABLE": "ami-billing-guard"}
            # The audit would stop early, and be at fewer images, where a minute is not enough.
            settings |= {"AWS_LAMBDA_FUNCTION_TIMEOUT": "240"}
            with Emulator(sam_bootstrap, settings) as function:
                reason = function.invoke(audit())["reason"]
                assert f"images examined: {images}, " in reason and "none are left" in reason
                peaks[images] = peak(function.bootstrap_pid())
    print(f"the most memory, by the number of images: {peaks}")
    assert peaks[MANY] < MOST_BYTES and peaks[MANY] - peaks[FEW] < GROWTH_BYTES
