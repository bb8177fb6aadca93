"""The JSON Schema of the policy accepts what the guard accepts, and refuses what a schema can refuse."""

from __future__ import annotations

import json
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from stack import ROOT

CORPUS = ROOT / "tests/corpus"
POLICIES = [ROOT / "policy/policy.toml", ROOT / "examples/policy.toml", CORPUS / "policy-every-key.toml"]
BROKEN = tomllib.loads((CORPUS / "policies.toml").read_text())["policy"]
BILLED = tomllib.loads((CORPUS / "billing.toml").read_text())["seen"]
RULE = "version = 1\n[[exempt]]\n{key} = {value}\nreason = 'r'\n"


@pytest.fixture(scope="module")
def schema(cli_binary: Path) -> Draft202012Validator:
    output = subprocess.run([cli_binary, "policy", "schema"], check=True, capture_output=True, text=True).stdout
    Draft202012Validator.check_schema(json.loads(output))
    return Draft202012Validator(json.loads(output))


def accepted(cli_binary: Path, folder: Path, text: str) -> bool:
    """Whether the guard accepts a policy."""
    path = folder / "policy.toml"
    path.write_text(text)
    return subprocess.run([cli_binary, "policy", "check", path], capture_output=True, check=False).returncode == 0


def of_rule(key: str, value: Any) -> str:
    """A policy with a rule that matches by this key. A text is the same in TOML as in JSON."""
    return RULE.format(key=key, value=json.dumps(value))


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.name)
def test_the_policies_of_this_repository_are_accepted(schema: Draft202012Validator, path: Path) -> None:
    schema.validate(tomllib.loads(path.read_text()))


def test_the_shipped_policy_names_its_schema() -> None:
    """An editor takes the address from the policy's own folder."""
    first, _, _ = (ROOT / "policy/policy.toml").read_text().partition("\n")
    assert first == "#:schema ./policy.schema.json"
    assert (ROOT / "policy/policy.schema.json").is_file()


@pytest.mark.parametrize("policy", BROKEN, ids=lambda policy: policy["name"])
def test_a_broken_policy_is_refused(schema: Draft202012Validator, policy: dict[str, Any]) -> None:
    """One that is not TOML never gets to a schema."""
    try:
        read = tomllib.loads(policy["text"])
    except tomllib.TOMLDecodeError:
        assert "is not valid TOML" in "\n".join(policy["faults"])
        return
    assert not schema.is_valid(read)


def test_each_key_has_a_description_and_the_words_of_a_key_have_their_meanings(schema: Draft202012Validator) -> None:
    sections = {key: it for key, it in schema.schema["properties"].items() if "properties" in it}
    assert sections.keys() == {"defaults", "evidence", "discard", "alert"}
    for keys in (section["properties"] for section in sections.values()):
        assert all(key["description"] for key in keys.values())
    lineage = sections["evidence"]["properties"]["lineage"]
    assert lineage["enum"] == ["never", "when-needed", "always"]
    assert lineage["default"] == "always"
    assert "\nnever: Never." in lineage["description"]


def test_platforms_are_accepted_in_every_spelling(schema: Draft202012Validator) -> None:
    def is_valid(platform: Any) -> bool:
        return schema.is_valid({"version": 1, "defaults": {"expect": platform}})

    known = [seen for seen in BILLED if seen["means"] not in ("unrecognised", "contradiction")]
    texts = {seen[key] for seen in known for key in ("details", "operation", "means") if seen.get(key)}
    assert len(texts) > 30
    for text in texts:
        assert is_valid(text), text
        assert is_valid([f" {text.upper()} ", text.lower()]), text
    for text in ["Linux (Amazon VPC)", "0010", "Linux with a product code", "windows With A Product Code"]:
        assert is_valid(text), text
    for value in ["", "RHEL", "Ubuntu", "Solaris", "true", "0003", "RunInstances:", "Windows SQL", 7, []]:
        assert not is_valid(value), value


@pytest.mark.parametrize(
    "glob",
    ["*", "win2022-*", "a b(c)[[]d]./-'@_*", "[!a]*", "[a:]*", "[]]*", "[!]]*", "abc]*", "win[", "abc[]", "abc[!]"]
    + ["abc[!", "a**c", "rhel-{8,9}", "[^x]abc", "a\\*b", " abc", "abc ", "", 7, ["abc"]],
)
def test_globs_are_accepted_as_the_guard_accepts_them(
    schema: Draft202012Validator, cli_binary: Path, tmp_path: Path, glob: Any
) -> None:
    text = of_rule("name", glob)
    assert schema.is_valid(tomllib.loads(text)) == accepted(cli_binary, tmp_path, text)


@pytest.mark.parametrize("key", ["product_code", "product_codes"])
@pytest.mark.parametrize("codes", ["774F4FF8", ["774F4FF8", "aw0evgkw8e5c1q413z"], [], ["bp-6fa54006"], "a b", 7])
def test_product_codes_are_accepted_as_the_guard_accepts_them(
    schema: Draft202012Validator, cli_binary: Path, tmp_path: Path, key: str, codes: Any
) -> None:
    text = of_rule(key, codes)
    assert schema.is_valid(tomllib.loads(text)) == accepted(cli_binary, tmp_path, text)
