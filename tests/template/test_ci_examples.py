"""The examples of gates in examples/ci are valid, and their commands let nothing pass that is not as expected.

`cli/tests/commands/check.rs` runs the command of the Packer example with the real program.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cfnlint.decode.cfn_yaml
import pytest
import yaml
from cfnlint.api import lint

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples/ci"
IMAGE = "arn:aws:imagebuilder:eu-west-1:123456789012:image/rhel9/1.0.0/1"
# What `aws imagebuilder get-image` answers, with what matters here.
OUTPUT = {
    "image": {
        "outputResources": {
            "amis": [
                {"region": "eu-west-1", "image": "ami-0a1b2c3d4e5f60001", "accountId": "123456789012"},
                {"region": "us-east-1", "image": "ami-0a1b2c3d4e5f60002", "accountId": "123456789012"},
                {"region": "eu-west-1", "image": "ami-0a1b2c3d4e5f60003", "accountId": "210987654321"},
            ]
        }
    }
}


def example(name: str) -> Any:
    return yaml.safe_load((EXAMPLES / name).read_text())


def build_of(name: str) -> Any:
    """The buildspec that is inside a template."""
    project = cfnlint.decode.cfn_yaml.load(str(EXAMPLES / name))["Resources"]["Check"]["Properties"]
    return yaml.safe_load(project["Source"]["BuildSpec"])


def jobs(name: str) -> list[list[str]]:
    """The commands of each job of an example, in the order in which they run."""
    if name == "github-actions.yml":
        return [[step["run"] for step in example(name)["jobs"]["golden-ami"]["steps"] if "run" in step]]
    if name == "gitlab-ci.yml":
        pipeline = example(name)
        return [job["script"] for stage in pipeline["stages"] for job in pipeline.values() if is_in(job, stage)]
    spec = example(name) if name == "buildspec.yml" else build_of(name)
    assert list(spec["phases"]) == ["build"]
    return [spec["phases"]["build"]["commands"]]


def is_in(job: Any, stage: str) -> bool:
    return isinstance(job, dict) and job.get("stage") == stage


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{script}")
    path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with programs that note how they are run. `ami-guard` ends as the file `exit-code` says."""
    note = "import json, os, pathlib, sys\n"
    note += "with open('ran', 'a') as ran: print(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]), file=ran)\n"
    program(tmp_path, "packer", note)
    program(tmp_path, "promote.sh", note)
    program(tmp_path, "ami-guard", note + "sys.exit(int(pathlib.Path('exit-code').read_text()))\n")
    search = "import jmespath\n"
    search += f"found = jmespath.search(sys.argv[sys.argv.index('--query') + 1], {OUTPUT!r})\n"
    program(tmp_path, "aws", note + search + "print('\\t'.join(found))\n")
    return tmp_path


def run(checkout: Path, name: str, ends_with: int) -> tuple[int, list[list[str]]]:
    """Runs the jobs of an example, until one fails. Returns the exit code, and which programs ran."""
    (checkout / "exit-code").write_text(str(ends_with))
    environment = {"PATH": f"{checkout}:{os.environ['PATH']}", "IMAGE_ARN": IMAGE, "ACCOUNT": "123456789012"}
    code = 0
    for commands in jobs(name):
        script = "\n".join(commands)
        code = subprocess.run(["sh", "-e", "-c", script], cwd=checkout, env=environment).returncode
        if code != 0:
            break
    return code, [json.loads(line) for line in (checkout / "ran").read_text().splitlines()]


@pytest.mark.parametrize("name", ["github-actions.yml", "gitlab-ci.yml", "buildspec.yml"])
@pytest.mark.parametrize("ends_with", [0, 1, 2, 3])
def test_nothing_is_promoted_unless_the_check_ended_with_0(checkout: Path, name: str, ends_with: int) -> None:
    code, ran = run(checkout, name, ends_with)
    assert code == ends_with
    names = ["packer", "packer", "ami-guard", *(["promote.sh"] if ends_with == 0 else [])]
    assert [command[0] for command in ran] == names
    assert ran[2][:4] == ["ami-guard", "check", "--packer-manifest", "manifest.json"]


@pytest.mark.parametrize("ends_with", [0, 1])
def test_each_ami_of_image_builder_in_this_account_is_checked_in_its_region(checkout: Path, ends_with: int) -> None:
    code, ran = run(checkout, "image-builder.yaml", ends_with)
    assert code == ends_with
    assert ran[0][:5] == ["aws", "imagebuilder", "get-image", "--image-build-version-arn", IMAGE]
    check = ["ami-guard", "check", "--wait", "300", "--format", "junit"]
    assert ran[1] == [*check, "eu-west-1:ami-0a1b2c3d4e5f60001", "us-east-1:ami-0a1b2c3d4e5f60002"]


def test_the_document_that_the_check_writes_is_the_one_that_the_ci_system_reads() -> None:
    gitlab = example("gitlab-ci.yml")["check-amis"]
    assert gitlab["artifacts"]["when"] == "always"
    reports = [gitlab["artifacts"]["reports"]["junit"]]
    for spec in [example("buildspec.yml"), build_of("image-builder.yaml")]:
        report = spec["reports"]["ami-guard"]
        assert report["file-format"] == "JUNITXML"
        reports += report["files"]
    assert reports == ["ami-guard.xml"] * 3
    for name in ["gitlab-ci.yml", "buildspec.yml", "image-builder.yaml"]:
        checks = [command for commands in jobs(name) for command in commands if "ami-guard check" in command]
        assert [check.split(" --format junit ")[1].split("> ")[1] for check in checks] == ["ami-guard.xml"]


def test_the_template_for_image_builder_is_valid() -> None:
    assert [str(match) for match in lint((EXAMPLES / "image-builder.yaml").read_text())] == []


def test_the_event_of_image_builder_starts_the_check_of_its_image() -> None:
    template = cfnlint.decode.cfn_yaml.load(str(EXAMPLES / "image-builder.yaml"))["Resources"]
    [target] = template["NewImage"]["Properties"]["Targets"]
    transformer = target["InputTransformer"]
    # EventBridge puts quotes around a text that stands alone.
    started = json.loads(transformer["InputTemplate"].replace("<image>", json.dumps(IMAGE)))
    assert transformer["InputPathsMap"] == {"image": "$.resources[0]"}
    [variable] = started["environmentVariablesOverride"]
    assert variable == {"name": "IMAGE_ARN", "value": IMAGE, "type": "PLAINTEXT"}
