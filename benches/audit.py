"""`ami-guard audit` of a large simulated account: time, peak memory and calls, and beside it, in the same run, the same
question put with the AWS command line and jq; throttled as EC2 throttles; and the report, in a browser.

Needs release builds of `ami-guard` and `sim`, which `make bench-audit` makes, and, for what they are for, `aws`, `jq` and
Chromium: what is not there is left out. Everything stays on loopback."""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
AMIS = int(os.environ.get("GUARD_BENCH_AMIS", "100000"))
POLICIES = {
    "when-needed": "version = 1\n[evidence]\nlineage = 'when-needed'\n",
    "always": "version = 1\n",
}
# What the question comes to without lineage, tags on snapshots, rules and disks: which AMIs say by their tag that they
# should bill something, and what do they bill?
JQ = '.Images[] | [.ImageId, .PlatformDetails, (.Tags // [] | map(select(.Key == "ami-billing-guard:expect"))[0].Value)] | @tsv'


class Simulator:
    def __init__(self, *options: str) -> None:
        command = [ROOT / "target/release/sim", "--port", "0", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.environment = os.environ | {
            "AWS_ENDPOINT_URL": self.process.stdout.readline().strip(),
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_REGION": "eu-west-1",
            "AWS_DEFAULT_REGION": "eu-west-1",
        }

    def __enter__(self) -> "Simulator":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


def run(command: list[str | Path], environment: dict[str, str], folder: Path) -> tuple[float, int, str]:
    """Seconds, peak memory in MiB, and what it said on standard error."""
    with open(folder / "out", "wb") as out, open(folder / "err", "wb") as err:
        begun = time.monotonic()
        process = subprocess.Popen(command, stdout=out, stderr=err, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - begun
    said = (folder / "err").read_text()
    if os.waitstatus_to_exitcode(status) not in (0, 1):
        sys.exit(f"{command}: {said}")
    return seconds, usage.ru_maxrss // 1024, said


def audit(sim: Simulator, folder: Path, policy: str, *more: str | Path) -> tuple[float, int, str]:
    (folder / "policy.toml").write_text(POLICIES[policy])
    program = ROOT / "target/release/ami-guard"
    options = ["--policy", folder / "policy.toml", "--state", folder / "state.jsonl", "--force", *more]
    return run([program, "audit", *options], sim.environment, folder)


def requests(said: str) -> tuple[int, int]:
    calls, throttled = re.search(r"requests to AWS: (\d+), throttled: (\d+)", said).groups()
    return int(calls), int(throttled)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for amis in [AMIS // 10, AMIS]:
            with Simulator("--images", str(amis)) as sim:
                for policy in POLICIES:
                    seconds, memory, said = audit(sim, folder, policy)
                    print(f"{amis} AMIs, lineage {policy}: {seconds:.1f} s, {memory} MiB, {requests(said)[0]} calls")
                if amis == AMIS and shutil.which("aws") and shutil.which("jq"):
                    question = f"aws ec2 describe-images --owners self --page-size 1000 | jq -r '{JQ}'"
                    seconds, memory, _ = run(["bash", "-c", question], sim.environment, folder)
                    print(f"{amis} AMIs, aws | jq, tags alone: {seconds:.1f} s, {memory} MiB (the larger of the two)")
        with Simulator("--images", str(AMIS), "--throttled") as sim:
            seconds, memory, said = audit(sim, folder, "always")
            calls, throttled = requests(said)
            print(f"{AMIS} AMIs, throttled: {seconds:.1f} s, {memory} MiB, {calls} calls, {throttled} of them too many")
        with Simulator("--images", "5000") as sim:
            report = folder / "report.html"
            audit(sim, folder, "always", "--html", report)
            print(f"report of 5000 AMIs: {report.stat().st_size / 1e6:.1f} MB")
            show(report)


def show(report: Path) -> None:
    """How long Chromium takes from going there to the first rows."""
    names = ["chromium", "google-chrome", "chromium-browser"]
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        times = []
        for _ in range(5):
            page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
            begun = time.monotonic()
            page.goto(report.as_uri())
            page.wait_for_selector("#amis tbody tr")
            times.append(time.monotonic() - begun)
        print(f"opened in Chromium, to the first rows: {statistics.median(times):.2f} s (median of 5)")
        browser.close()


if __name__ == "__main__":
    main()
