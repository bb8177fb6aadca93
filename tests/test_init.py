"""The workflow that `ami-guard init` writes: GitHub can read it, and its commands succeed on the files beside it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import yaml


def test_the_workflow_runs_both_checks_of_the_policy_beside_it(cli_binary: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PATH": f"{cli_binary.parent}:{os.environ['PATH']}"}
    subprocess.run(["ami-guard", "init", "guard"], cwd=tmp_path, env=environment, check=True, capture_output=True)
    workflow = yaml.safe_load((tmp_path / "guard/ami-guard.yml").read_text())
    job = workflow["jobs"]["policy"]
    # From the root of the repository.
    folder = tmp_path / "guard" / job["defaults"]["run"]["working-directory"]
    commands = [step["run"] for step in job["steps"] if step.get("run", "").startswith("ami-guard ")]
    assert [command.split()[1:3] for command in commands] == [["policy", "check"], ["policy", "test"]]
    for command in commands:
        subprocess.run(command, cwd=folder, env=environment, shell=True, check=True, capture_output=True)
    # A policy that does not do what its cases say fails the workflow.
    (folder / "policy.toml").write_text("version = 1\n[evidence]\ntags = false\n")
    assert subprocess.run(commands[1], cwd=folder, env=environment, shell=True, capture_output=True).returncode == 1
