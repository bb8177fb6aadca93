"""What people meet who join the project: forms for issues, `make help`, and the hook that checks a policy."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import prose
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))

# "Syntax for GitHub's form schema", GitHub Docs: the attributes of each type, and those that are required.
TYPES = {
    "markdown": ({"value"}, {"value"}),
    "input": ({"label", "description", "placeholder", "value"}, {"label"}),
    "textarea": ({"label", "description", "placeholder", "value", "render"}, {"label"}),
    "dropdown": ({"label", "description", "multiple", "options", "default"}, {"label", "options"}),
    "checkboxes": ({"label", "description", "options"}, {"label", "options"}),
}


def form(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / f".github/ISSUE_TEMPLATE/{name}.yml").read_text())


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_is_one_that_github_shows(path: Path) -> None:
    read = form(path.stem)
    assert read.keys() <= {"name", "description", "title", "labels", "assignees", "projects", "type", "body"}
    assert read["name"] and read["description"] and read["body"]
    assert any(field["type"] != "markdown" for field in read["body"])
    for field in read["body"]:
        assert field.keys() <= {"type", "id", "attributes", "validations"}
        known, required = TYPES[field["type"]]
        assert required <= field["attributes"].keys() <= known
        assert field.get("validations", {}).keys() <= {"required"}
        assert re.fullmatch(r"[\w-]+", field.get("id", "none"))
    ids = [field["id"] for field in read["body"] if field["type"] != "markdown"]
    labels = [field["attributes"]["label"] for field in read["body"] if field["type"] != "markdown"]
    assert len(set(ids)) == len(ids) and len(set(labels)) == len(labels)


def test_there_is_a_form_for_a_bug_a_wrong_verdict_and_a_feature() -> None:
    assert [path.stem for path in FORMS] == ["bug", "feature", "wrong-verdict"]


def test_the_forms_and_the_template_of_pull_requests_are_plain_english() -> None:
    texts = [(ROOT / ".github/pull_request_template.md").read_text()]
    for path in FORMS:
        read = form(path.stem)
        texts += [read["name"], read["description"]]
        texts += [text for field in read["body"] for text in field["attributes"].values() if isinstance(text, str)]
    assert [finding for text in texts for finding in prose.findings("README.md", text)] == []


def test_a_wrong_verdict_comes_with_what_each_source_says_and_without_account_ids(cli_binary: Path) -> None:
    [explain] = [field for field in form("wrong-verdict")["body"] if field.get("id") == "explain"]
    assert explain["validations"] == {"required": True}
    [command] = re.findall(r"`(ami-guard explain .*)`", explain["attributes"]["description"])
    guard, redact = command.split(" | ")
    assert "--json" in guard
    record = {"account": "210987654321", "by": "arn:aws:iam::210987654321:role/x", "image": "ami-0a1b2c3d4e5f60001"}
    redacted = subprocess.run(redact, shell=True, input=json.dumps(record), check=True, capture_output=True, text=True)
    assert json.loads(redacted.stdout) == {
        "account": "123456789012",
        "by": "arn:aws:iam::123456789012:role/x",
        "image": "ami-0a1b2c3d4e5f60001",
    }


# The hook.


def hooks() -> list[dict[str, Any]]:
    return yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())


def run_hook(cli_binary: Path, *files: Path) -> subprocess.CompletedProcess[str]:
    """Runs the hook as pre-commit does: its entry, and the names of the files."""
    [hook] = hooks()
    path = {"PATH": f"{cli_binary.parent}:/usr/bin:/bin"}
    return subprocess.run([*shlex.split(hook["entry"]), *files], env=path, capture_output=True, text=True)


def test_the_hook_has_what_pre_commit_requires() -> None:
    # "Creating new hooks", pre-commit.com.
    [hook] = hooks()
    assert {"id", "name", "entry", "language"} <= hook.keys()
    assert hook.keys() <= {"id", "name", "entry", "language", "files", "description"}
    assert hook["language"] == "system"


def test_the_hook_takes_the_policy_where_the_template_has_it() -> None:
    [hook] = hooks()
    files = ["policy/policy.toml", "images/policy/policy.toml", "examples/policy-cases.toml", "policy/policy.toml.orig"]
    assert [file for file in files if re.search(hook["files"], file)] == files[:2]


def test_the_hook_checks_each_file(cli_binary: Path, tmp_path: Path) -> None:
    good, bad = ROOT / "policy/policy.toml", tmp_path / "policy.toml"
    bad.write_text("version = 1\n[discard]\nmax_per_hour = 'ten'\n")
    passed = run_hook(cli_binary, good, ROOT / "examples/policy.toml")
    assert (passed.returncode, passed.stderr) == (0, "")
    for files in ([bad, good], [good, bad]):
        failed = run_hook(cli_binary, *files)
        assert failed.returncode == 1
        assert f"{bad}:3:16: " in failed.stdout and f"{good}: no faults" in failed.stdout


# make.


def make(*arguments: str) -> str:
    return subprocess.run(["make", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_make_help_has_each_target_with_a_line_on_it() -> None:
    phony = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    shown = [re.fullmatch(r"([a-z-]+)  +(\S.*)", line) for line in make("--no-print-directory", "help").splitlines()]
    assert [found[1] for found in shown if found] == phony
    assert all(shown)


def test_make_alone_runs_the_tests() -> None:
    assert make("--dry-run") == make("--dry-run", "test")


def test_make_check_has_format_lints_prose_and_the_rust_tests() -> None:
    steps = make("--dry-run", "--no-print-directory", "check")
    for step in ("cargo fmt --all --check", "tests/prose.py", "cargo test --workspace --all-targets --locked"):
        assert step in steps
