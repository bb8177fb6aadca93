"""A bootstrap inside AWS's own Lambda runtime interface emulator.

The emulator comes inside the package aws-sam-cli. It speaks the real runtime API to the bootstrap,
and takes events over HTTP as Lambda's Invoke does.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Longer than anything here takes, on a slow machine too. An invocation ends by the function's own timeout, a minute.
PATIENCE_SECONDS = 300


class BootstrapDied(Exception):
    """The bootstrap's process ended instead of answering; the message is what was written."""


class Emulator:
    """One emulator with one bootstrap; it starts the bootstrap at the first event.

    After a crash the emulator starts the bootstrap anew: `bootstrap_pid` tells the two apart.
    """

    def __init__(self, bootstrap: Path, environment: dict[str, str]) -> None:
        self.output: list[str] = []
        self._ended = 0
        self._output_grew = threading.Condition()
        # Another process may take a free port before the emulator does: then try others.
        for _ in range(5):
            self._api, self._port = free_port(), free_port()
            self._process = subprocess.Popen(
                [
                    emulator_binary(),
                    "--runtime-api-address",
                    f"127.0.0.1:{self._api}",
                    "--runtime-interface-emulator-address",
                    f"127.0.0.1:{self._port}",
                    bootstrap,
                ],
                # Nothing of the machine's own settings: no profile, no proxy, no region.
                env={"PATH": "/usr/bin:/bin", "AWS_LAMBDA_FUNCTION_TIMEOUT": "60"} | environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            self._reader = threading.Thread(target=self._read, args=[self._process], daemon=True)
            self._reader.start()
            if self._listens():
                return
            self.stop()
        raise RuntimeError("the emulator does not start:\n" + "\n".join(self.output))

    def __enter__(self) -> Emulator:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def invoke(self, event: Any) -> Any:
        """Sends one event, and gives the answer: the function's, or its error with `errorType`.

        Bytes go over the wire as they are, anything else as JSON.
        """
        if not isinstance(event, bytes):
            event = json.dumps(event).encode()
        ended = self._ended
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}/2015-03-31/functions/function/invocations", data=event
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
                body = answer.read()
        except urllib.error.HTTPError:
            body = None
        # Once the emulator's last line on this event is read, so is all that the bootstrap wrote.
        with self._output_grew:
            assert self._output_grew.wait_for(lambda: self._ended > ended, PATIENCE_SECONDS), "the event has no end"
        if body is None:
            raise BootstrapDied("\n".join(self.output))
        return json.loads(body)

    def lines(self) -> list[dict[str, Any]]:
        """The lines of JSON that the bootstrap has written so far."""
        return [json.loads(line) for line in list(self.output) if line.startswith("{")]

    def records(self) -> list[dict[str, Any]]:
        """The records among them, without what a line of the log has besides: when, how, and the metrics."""
        return [record_of(line) for line in self.lines() if line.get("schema") == 1]

    def bootstrap_pid(self) -> int:
        """The process id of the bootstrap that runs now."""
        pids = self._children()
        assert len(pids) == 1, f"the emulator has {len(pids)} processes, one bootstrap was expected"
        return pids[0]

    def stop(self) -> None:
        """Ends the emulator, which takes its bootstrap with it."""
        self._process.terminate()
        try:
            self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(PATIENCE_SECONDS)

    def wait_for_end(self) -> None:
        """Waits until the emulator has ended by itself, and all that it wrote is read."""
        self._process.wait(PATIENCE_SECONDS)
        self._reader.join(PATIENCE_SECONDS)

    def _children(self) -> list[int]:
        # The emulator is a program of many threads, and any of them may have started it.
        tasks = Path(f"/proc/{self._process.pid}/task").glob("*/children")
        return [int(pid) for task in tasks for pid in task.read_text().split()]

    def _listens(self) -> bool:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            # A connection would not do: another emulator may answer at the port.
            if {self._api, self._port} <= listening(self._process.pid):
                return True
            time.sleep(0.01)
        return False

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            text = line.decode("utf-8", "replace").rstrip("\n")
            # pytest shows it with a test that fails.
            print(text[:2000])
            with self._output_grew:
                self.output.append(text)
                # What the emulator writes when an event was answered, and when the bootstrap died.
                self._ended += line.startswith(b"REPORT ") or b" Reset initiated: " in line[:100]
                self._output_grew.notify_all()


def metrics_of(line: dict[str, Any]) -> dict[str, float]:
    """The metrics that a line carries, by name."""
    directives = line.get("_aws", {}).get("CloudWatchMetrics", [])
    return {metric["Name"]: line[metric["Name"]] for directive in directives for metric in directive["Metrics"]}


def record_of(line: dict[str, Any]) -> dict[str, Any]:
    """A record as it stands in its line of the log."""
    besides = {"timestamp", "level", "requestId", "message_id", "function", "_aws", *metrics_of(line)}
    return {key: value for key, value in line.items() if key not in besides}


def emulator_binary() -> Path:
    """The emulator for this machine, from the package aws-sam-cli."""
    spec = find_spec("samcli")
    assert spec is not None and spec.origin is not None, "the package aws-sam-cli is not installed"
    machine = "arm64" if platform.machine() in ("aarch64", "arm64") else "x86_64"
    binary = Path(spec.origin).parent / "local" / "rapid" / f"aws-lambda-rie-{machine}"
    assert binary.exists(), f"aws-sam-cli brings no emulator for {machine}"
    return binary


def listening(pid: int) -> set[int]:
    """The TCP ports at which a process listens."""
    try:
        held = {os.readlink(file) for file in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError:
        # A file was closed, or the process has ended, meanwhile.
        return set()
    sockets = [line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
    # proc_pid_net(5): the local address, the state (0A is LISTEN), the inode.
    return {int(it[1].split(":")[1], 16) for it in sockets if it[3] == "0A" and f"socket:[{it[9]}]" in held}


def free_port() -> int:
    """A loopback port that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
