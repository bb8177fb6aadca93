"""What is on the root snapshot, as evidence: read block by block, in a child process of the function."""

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from e2e.emulator import PATIENCE_SECONDS, Emulator
from e2e.world import DISK, OTHER_ACCOUNT, PACK, REGION, ROOT, World, batch, outcome, registration, template

DISK_MAY = 'version = 1\n[discard]\nfrom = ["declared", "disk"]\n'
KEY = "arn:aws:kms:eu-west-1:123456789012:key/0b3e1c4a-5d6f-4a7b-8c9d-0e1f2a3b4c5d"

# What the function may take with the process that reads a disk, as Lambda counts it.
MOST_BYTES = 64_000_000


def evidence(policy: str) -> str:
    """A policy with something to say about evidence."""
    return f"version = 1\n[evidence]\n{policy}\n"


def on_disk(record) -> dict:
    """What the disk said."""
    [statement] = [entry for entry in record["evidence"] if entry["source"] == "disk"]
    return statement


def blocks_read(world: World) -> list[int]:
    """The blocks that were read, each as often as it was."""
    return [int(call["params"]["BlockIndex"]) for call in world.calls() if call["action"] == "GetSnapshotBlock"]


def test_a_red_hat_disk_whose_image_bills_linux_is_held_and_told(world: World, guard: Emulator):
    snapshot = world.snapshot_with_disk("rhel9-rhui")
    ami = world.register(snapshot)

    record = guard.invoke(registration(ami))

    assert outcome(record) == "mismatch/wrong by disk: hold (inferred)"
    assert record["expected"] == {"platform": ["RedHat", "RedHatByol"], "source": "disk"}
    said, blocks = on_disk(record), blocks_read(world)
    assert (said["state"], said["says"]) == ("found", ["RedHat", "RedHatByol"])
    certificate = "/etc/pki/rhui/product/content-rhel9.crt"
    for words in ("Red Hat Enterprise Linux 9", f"on {snapshot} (partition 4, xfs)", certificate):
        assert words in said["detail"]
    assert said["detail"].endswith(f"; {len(blocks)} blocks read")
    assert 0 < len(blocks) < 64 and len(set(blocks)) == len(blocks), "no block is read twice"
    assert world.exists(ami) and world.alerts() == [record]
    [letter] = world.letters()
    assert "not removed" in letter["subject"] and certificate in letter["words"]


def test_with_the_policys_leave_the_disk_suffices_for_a_discard(world: World, start, policy):
    ami = world.register(world.snapshot_with_disk("rhel9-rhui"))
    guard = start(GUARD_POLICY_PATH=policy(DISK_MAY))

    record = guard.invoke(registration(ami))

    assert outcome(record) == "mismatch/wrong by disk: deregister"
    assert (record["outcome"], record["recycle_bin"]) == ("done", "in")
    assert not world.exists(ami)
    assert world.mutations() == ["CreateTags", "Publish", "DeregisterImage"]
    # What can have changed is looked at again before the act; no snapshot changes.
    blocks = blocks_read(world)
    assert len(set(blocks)) == len(blocks) and world.actions().count("ListSnapshotBlocks") == 1


def test_an_image_that_bills_more_than_its_disk_is_not_discarded_by_it(world: World, start, policy):
    ami = world.register(world.snapshot_with_disk("debian12", "Windows"))
    guard = start(GUARD_POLICY_PATH=policy(DISK_MAY))

    assert outcome(guard.invoke(registration(ami))) == "mismatch/wrong by disk: hold (inferred)"
    assert world.exists(ami)


@pytest.mark.parametrize(
    ("name", "bills"),
    [
        ("windows2022", "Windows"),
        ("rhel9-rhui", "Red Hat Enterprise Linux"),
        ("sles16", "SUSE Linux"),
        ("debian12", "Linux/UNIX"),
    ],
)
def test_an_image_that_bills_what_is_on_its_disk_is_verified(world: World, guard: Emulator, name, bills):
    ami = world.register(world.snapshot_with_disk(name, bills))

    record = guard.invoke(registration(ami))

    assert outcome(record) == "verified by disk: none"
    assert world.exists(ami) and world.alerts() == []


def test_a_tag_does_not_talk_a_windows_disk_into_linux(world: World, guard: Emulator, start, policy):
    ami = world.register(world.snapshot_with_disk("windows2022"), expect="Linux")

    # Nothing is to be discarded, and the tag is the stronger source: nobody has to look behind it.
    when_needed = start(GUARD_POLICY_PATH=policy(evidence('disk = "when-needed"')))
    record = when_needed.invoke(registration(ami))
    assert outcome(record) == "verified by image-tag: none"
    assert on_disk(record)["state"] == "skipped" and not {*DISK} & {*world.actions()}

    record = guard.invoke(registration(ami))
    assert outcome(record) == "conflict by image-tag: alert"
    assert on_disk(record)["says"] == ["Windows", "WindowsByol"]
    assert [alert["verdict"] for alert in world.alerts()] == ["conflict"]


def test_a_disk_that_contradicts_the_tag_stops_its_discard(world: World, guard: Emulator):
    ami = world.register(world.snapshot_with_disk("debian12"), expect="Windows")

    assert outcome(guard.invoke(registration(ami))) == "conflict by image-tag: alert"
    assert world.exists(ami) and world.mutations() == ["Publish"]


def test_what_the_lineage_says_is_enough_where_nothing_is_to_be_discarded(world: World, start, policy):
    guard = start(GUARD_POLICY_PATH=policy(evidence('disk = "when-needed"')))
    snapshot = world.snapshot_of(world.root_volume(world.instance("Windows")))
    windows = {"platform_details": "Windows", "usage_operation": "RunInstances:0002"}
    ami = world.register(snapshot, **windows)

    record = guard.invoke(registration(ami))

    assert outcome(record) == "verified by lineage: none"
    assert on_disk(record)["state"] == "skipped" and not {*DISK} & {*world.actions()}


def test_the_policy_can_leave_disks_unread(world: World, start, policy):
    ami = world.register(world.snapshot_with_disk("rhel9-rhui"))
    guard = start(GUARD_POLICY_PATH=policy(evidence('disk = "never"')))

    record = guard.invoke(registration(ami))

    assert outcome(record) == "unverifiable: none"
    assert on_disk(record)["state"] == "skipped" and not {*DISK} & {*world.actions()}


def assert_undetermined(record, *words: str):
    """It stays open what is on the disk, and the record says why."""
    assert outcome(record) == "unverifiable: none", record["reason"]
    said = on_disk(record)
    assert (said["state"], said["says"]) == ("failed", [])
    for word in ("failed: undetermined: ", *words):
        assert word in said["detail"], f"{word} is not in: {said['detail']}"


@pytest.mark.parametrize("action", DISK)
def test_a_disk_that_may_not_be_read_is_undetermined_and_names_the_permission(
    world: World, guard: Emulator, action
):
    snapshot = world.snapshot_with_disk("rhel9-rhui")
    world.fail(action, "AccessDeniedException", "no identity-based policy allows it", status=403)

    record = guard.invoke(registration(world.register(snapshot)))

    assert_undetermined(record, f"access denied: ebs:{action} on {snapshot} is missing", "no identity-based")
    assert world.alerts() == []


def test_a_key_that_may_not_be_used_is_named(world: World, guard: Emulator):
    snapshot = world.snapshot_with_disk("rhel9-rhui")
    world.change(snapshot, encrypted=True, kms_key_id=KEY)
    ami = world.register(snapshot)
    reason = ("DEPENDENCY_ACCESS_DENIED",)
    world.fail("GetSnapshotBlock", "AccessDeniedException", "no access to it", status=403, reasons=reason)

    record = guard.invoke(registration(ami))
    assert_undetermined(record, f"access denied to key {KEY} (kms:Decrypt)")

    world.heal()
    assert outcome(guard.invoke(registration(ami))) == "mismatch/wrong by disk: hold (inferred)"


def test_a_disk_that_takes_more_blocks_than_the_policy_has_is_undetermined(world: World, start, policy):
    ami = world.register(world.snapshot_with_disk("rhel9-rhui"))
    guard = start(GUARD_POLICY_PATH=policy(evidence("disk_max_blocks = 3")))

    record = guard.invoke(registration(ami))

    assert_undetermined(record, "it takes more than the 3 blocks that may be read of one disk")
    assert len(blocks_read(world)) <= 3


def test_a_snapshot_of_another_account_is_not_read(world: World, guard: Emulator):
    snapshot = world.snapshot_with_disk("rhel9-rhui")
    world.change(snapshot, owner_id=OTHER_ACCOUNT)

    record = guard.invoke(registration(world.register(snapshot)))

    assert_undetermined(record, f"{snapshot} belongs to {OTHER_ACCOUNT}, not to this account")
    assert not {*DISK} & {*world.actions()}


def test_what_passes_soon_is_asked_again(world: World, guard: Emulator):
    ami = world.register(world.snapshot_with_disk("rhel9-rhui"))
    world.fail("ListSnapshotBlocks", "ThrottlingException", times=1)
    world.fail("GetSnapshotBlock", "InternalServerException", status=500, spared=2, times=1)

    assert outcome(guard.invoke(registration(ami))) == "mismatch/wrong by disk: hold (inferred)"


def test_a_disk_that_can_not_be_reached_brings_the_event_back(world: World, guard: Emulator):
    ami = world.register(world.snapshot_with_disk("rhel9-rhui"))
    world.fail("GetSnapshotBlock", "InternalServerException", status=500)

    error = guard.invoke(registration(ami))
    assert error["errorType"] == "NotFoundOut" and ami in error["errorMessage"]

    world.heal()
    assert outcome(guard.invoke(registration(ami))) == "mismatch/wrong by disk: hold (inferred)"


# --- The memory ---------------------------------------------------------------------------------------


def largest(file_system: str) -> str:
    """The largest disk of the corpus, as it is packed, that has this file system."""
    labels = json.loads((ROOT / "disk/corpus/labels.json").read_text())
    names = [label["name"] for label in labels if label["file_system"] == file_system and label["packed"]]
    return max(names, key=lambda name: (ROOT / f"disk/corpus/images/{name}.gz").stat().st_size)


def peak(pid: int) -> int:
    """The most memory that a process had so far, in bytes, with that of the program which others have too."""
    status = Path(f"/proc/{pid}/status").read_text()
    [kibibytes] = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(kibibytes) * 1024


@contextmanager
def watching_readers(pid: int) -> Iterator[dict[int, int]]:
    """The most memory that each child that reads a disk had, by its process id; looked at every millisecond."""
    readers: dict[int, int] = {}
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.001):
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                try:
                    for child in map(int, children.read_text().split()):
                        # Before it is a program of its own, it is its parent's memory that it has.
                        if b"\0read-disk\0" in Path(f"/proc/{child}/cmdline").read_bytes():
                            readers[child] = max(peak(child), readers.get(child, 0))
                except (OSError, ValueError):
                    # It is over, or nearly.
                    continue

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield readers
    finally:
        over.set()
        thread.join()


def invoke_and_see_a_reader(world: World, function: Emulator, event: Any, readers: dict[int, int]) -> Any:
    """Invokes the function. The first block comes when the process that reads it was looked at, however soon it ends."""
    with ThreadPoolExecutor() as pool, world.holding("GetSnapshotBlock") as arrived:
        answer = pool.submit(function.invoke, event)
        arrived()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not readers:
            assert time.monotonic() < deadline, "no process reads the disk"
            time.sleep(0.001)
        world.moto.order("release")
        return answer.result()


@pytest.mark.sam_build
def test_the_function_takes_less_than_64_mb_with_a_disk_that_it_reads(
    world: World, sam_bootstrap: Path, environment: dict[str, str]
):
    # And that of the corpus which takes the most: its registry is in many pieces.
    names = [largest("ntfs"), largest("xfs"), "windows-hive-in-pieces"]
    images = [world.register(world.snapshot_with_disk(name)) for name in names]
    with Emulator(sam_bootstrap, environment) as function:
        # An event that needs no call starts the process.
        assert function.invoke(template("register-image-failed"))["verdict"] == "ignored"
        pid = function.bootstrap_pid()
        for name, image in zip(names, images, strict=True):
            with watching_readers(pid) as readers:
                record = invoke_and_see_a_reader(world, function, registration(image), readers)
            assert on_disk(record)["state"] == "found", record
            [reader] = readers.values()
            print(f"{name}: the function {peak(pid)}, the reader {reader} bytes")
            assert peak(pid) + reader < MOST_BYTES

        # Of a batch, too, one disk is read at a time.
        with watching_readers(pid) as readers:
            events = batch([registration(image) for image in images * 2])
            answer = invoke_and_see_a_reader(world, function, events, readers)
        assert answer == {"batchItemFailures": []}
        print(f"a batch: the function {peak(pid)}, the readers {readers}")
        assert peak(pid) + max(readers.values()) < MOST_BYTES


# --- The command line ---------------------------------------------------------------------------------


def inspect(cli_binary: Path, world: World, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `ami-guard inspect` in the account."""
    environment = {
        "AWS_ENDPOINT_URL": world.moto.endpoint,
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "operator",
        "AWS_SECRET_ACCESS_KEY": "operator",
    }
    command = [cli_binary, "inspect", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_the_command_line_reads_a_snapshot_as_it_reads_the_disk_itself(
    world: World, cli_binary: Path, tmp_path: Path
):
    PACK["unpack"](ROOT / "disk/corpus/images/rhel9-rhui.gz", tmp_path / "disk.img")
    snapshot = world.snapshot_with_disk("rhel9-rhui")
    ami = world.register(snapshot)

    reports = []
    for what in (snapshot, ami, str(tmp_path / "disk.img")):
        run = inspect(cli_binary, world, "--json", what)
        assert (run.returncode, run.stderr) == (0, "")
        reports.append({key: value for key, value in json.loads(run.stdout).items() if key != "elapsed_ms"})

    assert reports[0]["says"] == ["RedHat", "RedHatByol"] and reports[0]["undetermined"] is None
    assert reports[0] == reports[1] == reports[2]


def test_the_command_line_says_why_it_does_not_know(world: World, cli_binary: Path):
    run = inspect(cli_binary, world, "--json", world.snapshot())
    report = json.loads(run.stdout)
    assert (run.returncode, run.stderr, report["says"]) == (3, "", [])
    assert "there is no file system" in report["undetermined"]

    run = inspect(cli_binary, world, "snap-0123456789abcdef0")
    assert (run.returncode, run.stdout) == (3, "")
    assert "ebs:ListSnapshotBlocks on snap-0123456789abcdef0" in run.stderr
