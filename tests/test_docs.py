"""The commands in the documentation are right, as far as that can be checked without an AWS account.

`ami-guard` parses its own, botocore's models have AWS's, the Makefile has the targets, and the template has the
parameters.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jmespath
import pytest
from botocore import xform_name
from botocore.loaders import Loader
from botocore.model import ListShape, OperationModel, ServiceModel, Shape, StructureShape
from botocore.validate import ParamValidator

ROOT = Path(__file__).resolve().parents[1]
# Not the changelog: it may name what was there before.
PAGES = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/**/*.md", "events/README.md", ".github/**/*.md"]

TOOLS = "aws|ami-guard|make|sam"
START = re.compile(rf"(?:^|[|&;(!]|^-|\b(?:if|then|do|else|while|run:))\s*(?:\w+=\S*\s+)*((?:{TOOLS})\s.*)")
FENCE = re.compile(r"\s*(```|~~~)")
INLINE = re.compile(r"(`+)(?!`)((?:.|\n(?!\s*\n))+?)(?<!`)\1(?!`)")

AMI = "ami-0a1b2c3d4e5f60001"
# What the placeholders stand for. Others stand for any word.
PLACEHOLDERS = {"region": "eu-west-1", "platform": "Windows", "account": "123456789012", "command": "check"}
PLACEHOLDERS |= dict.fromkeys(["ami", "ami-id", "image", "new image"], AMI)
OPTION_VALUES = {"--region": "eu-west-1"}


class Command(NamedTuple):
    page: str
    line: int
    text: str
    # In a code block. A command in a sentence may be only the beginning of one.
    complete: bool

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"

    @property
    def tool(self) -> str:
        return self.text.split()[0]

    @property
    def words(self) -> list[str]:
        """The words as a shell reads them, with values for placeholders, up to the end of the command."""
        text = re.sub(r"<([A-Za-z][^<>|]*)>(?:\.\.\.)?", lambda found: placeholder(found[1]), self.text)
        if self.tool == "ami-guard":
            text = re.sub(r"\[[A-Za-z-][^\]]*\]", "", text)  # Of a synopsis.
        lexer = shlex.shlex(re.sub(r"\s#\s.*", "", text), posix=True, punctuation_chars="|&;()<>")
        lexer.whitespace_split = True
        lexer.commenters = ""
        words: list[str] = []
        for word in lexer:
            if word[0] in "|&;()<>":
                break
            words.append(word)
        return words


def placeholder(name: str) -> str:
    return PLACEHOLDERS.get(name.lower(), "placeholder")


def commands(page: str, text: str) -> Iterator[Command]:
    """The commands of a page: in code blocks, and as code in a sentence."""
    prose, fence, block = [], "", ""
    for number, line in enumerate(text.split("\n"), 1):
        mark = FENCE.match(line)
        if mark and (not fence or mark[1] == fence):
            fence = "" if fence else mark[1]
        elif fence:
            # A command goes on in the next line after a backslash.
            block += line.strip()
            if block.endswith("\\"):
                block = block[:-1]
            else:
                if not block.startswith("#"):
                    for part in parts(block.removeprefix("$ ")):
                        yield Command(page, number, part, complete=True)
                block = ""
        prose.append("" if fence or mark else line)
    for found in INLINE.finditer(sentences := "\n".join(prose)):
        code = " ".join(found[2].split())
        number = sentences.count("\n", 0, found.start()) + 1
        for part in parts(code) if re.match(rf"(?:\w+=\S+ )*(?:{TOOLS}) [a-z<-]", code) else []:
            yield Command(page, number, part, complete=False)


def parts(line: str) -> Iterator[str]:
    """The commands of a line. One may be within another: after a pipe, or in `$(…)`."""
    while found := START.search(line):
        yield found[1]
        line = found[1].split(maxsplit=1)[1]


def all_commands(tool: str, root: Path = ROOT) -> list[Command]:
    pages = sorted({path for pattern in PAGES for path in root.glob(pattern)})
    found = [command for page in pages for command in commands(page.relative_to(root).as_posix(), page.read_text())]
    return [command for command in found if command.tool == tool]


def each(tool: str) -> pytest.MarkDecorator:
    found = all_commands(tool)
    return pytest.mark.parametrize("command", found, ids=map(str, found))


# ami-guard.


@each("ami-guard")
def test_ami_guard_accepts_the_command_line(command: Command, cli_binary: Path) -> None:
    assert usage_error(command, cli_binary) == ""


def usage_error(command: Command, cli_binary: Path) -> str:
    """What the command line does not accept. Runs nothing: it refuses the variable after it read its arguments."""
    words = [str(cli_binary)]
    for word in command.words[1:]:
        words.append(OPTION_VALUES.get(words[-1], AMI) if "$" in word or "…" in word else word)
    # In a sentence, arguments may be left out.
    words += [] if command.complete else ["--help"]
    environment = os.environ | {"AMI_GUARD_UNLIMITED_READER": "refused"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    started = done.returncode == 0 or "AMI_GUARD_UNLIMITED_READER" in done.stderr
    return "" if started else done.stderr


def runs_here(command: Command) -> bool:
    """Whether a command needs no account, and only files of the repository."""
    files = [word for word in command.words if word.endswith(".toml")]
    of_the_repository = all(file.startswith(("policy/", "examples/")) for file in files)
    synopsis = "<" in command.text or "[" in command.text
    local = command.words[1:2] in (["policy"], ["completions"], ["--version"])
    return command.complete and local and of_the_repository and not synopsis


@pytest.mark.parametrize("command", [*filter(runs_here, all_commands("ami-guard"))], ids=str)
def test_a_command_that_needs_no_account_succeeds(command: Command, cli_binary: Path, tmp_path: Path) -> None:
    for folder in ("policy", "examples"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    done = subprocess.run([str(cli_binary), *command.words[1:]], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# aws.

# The AWS CLI's own options, and those by which it reads several pages.
GLOBAL = set("region profile query output endpoint-url debug no-paginate no-cli-pager cli-binary-format".split())
GLOBAL |= {"cli-input-json", "no-sign-request", "cli-read-timeout", "cli-connect-timeout"}
PAGES_OF_ANSWERS = {"max-items", "page-size", "starting-token"}
# What the AWS CLI calls otherwise than the model.
RENAMED = {("sns", "subscribe", "notification-endpoint"): "endpoint"}
# Operations whose answer is written to a file, which is named last.
WRITES_A_FILE = {("lambda", "invoke")}


@each("aws")
def test_aws_has_the_operation_with_its_options(command: Command) -> None:
    assert faults(command) == []


@cache
def operations(name: str) -> dict[str, OperationModel]:
    """The operations of a service, by their names in the AWS CLI."""
    if name not in Loader().list_available_services("service-2"):
        return {}
    model = ServiceModel(Loader().load_service_model(name, "service-2"), name)
    return {xform_name(operation, "-"): model.operation_model(operation) for operation in model.operation_names}


def faults(command: Command) -> list[str]:
    """What is wrong with a command of the AWS CLI."""
    _, name, *rest = command.words
    if not operations(name):
        return [f"there is no service {name}"]
    if not rest or rest[0].startswith("-"):
        return [] if not command.complete else ["there is no operation"]
    action, *rest = rest
    if not (operation := operations(name).get(action)):
        return [f"{name} has no operation {action}"]

    members = operation.input_shape.members if operation.input_shape else {}
    shapes = {xform_name(member, "-"): (member, shape) for member, shape in members.items()}
    found, given, answer_files = [], set(), []
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            answer_files.append(word)
            continue
        option = RENAMED.get((name, action, word[2:]), word[2:])
        values = []
        if is_flag := option.removeprefix("no-") in shapes and option not in shapes:
            option = option.removeprefix("no-")
        member, shape = shapes.get(option, ("", None))
        takes_value = shape.type_name != "boolean" if shape else option in GLOBAL and not option.startswith("no-")
        while takes_value and rest and not rest[0].startswith("--") and (not values or isinstance(shape, ListShape)):
            values.append(rest.pop(0))
        if shape is None and option not in GLOBAL | PAGES_OF_ANSWERS:
            found.append(f"{action} has no option {word}")
        if is_flag and shape.type_name != "boolean":
            found.append(f"{word} is not a flag")
        if takes_value and not values and command.complete:
            found.append(f"{word} has no value")
        if shape:
            given.add(member)
            found += [f"{word}: {fault}" for value in values if "$" not in value for fault in of_value(value, shape)]
        elif option == "query" and values and "$" not in values[0]:
            found += of_query(values[0], operation.output_shape)
    if len(answer_files) != ((name, action) in WRITES_A_FILE) and command.complete:
        found.append(f"these are not options: {answer_files}")
    if command.complete and operation.input_shape and "--cli-input-json" not in command.words:
        found += [f"{member} is required" for member in operation.input_shape.required_members if member not in given]
    return found


def of_value(value: str, shape: Shape) -> list[str]:
    """What is wrong with the value of an option."""
    if value.startswith("file://") or value == "placeholder":
        return []
    if value[0] in "{[" and shape.type_name in ("structure", "map", "list"):
        return [ParamValidator().validate(json.loads(value), shape).generate_report()] if not valid(value, shape) else []
    single = shape.member if isinstance(shape, ListShape) else shape
    if isinstance(single, StructureShape):
        # Shorthand: Key=…,Value=…
        keys = re.findall(r"(?:^|,)(\w+)=", value)
        wrong = [f"{key} is not one of {[*single.members]}" for key in keys if key not in single.members]
        name = re.search(r"(?:^|,)Name=([\w-]+)", value)
        if single.name == "Filter" and name and f"<code>{name[1]}" not in shape.documentation:
            wrong.append(f"there is no filter {name[1]}")
        return wrong or ([] if keys else [f"{value} has no keys"])
    if single.type_name in ("integer", "long"):
        return [] if value.isdigit() else [f"{value} is not a number"]
    if enum := getattr(single, "enum", None):
        return [] if value in enum else [f"{value} is not one of {enum}"]
    return []


def valid(value: str, shape: Shape) -> bool:
    return not ParamValidator().validate(json.loads(value), shape).has_errors()


def of_query(query: str, shape: Shape | None) -> list[str]:
    """What is wrong with a query. Without a filter, it finds something in an answer that has everything."""
    found = jmespath.search(query, sample(shape))
    return [f"--query finds {found}"] if "?" not in query and has_gaps(found) else []


def has_gaps(found: Any) -> bool:
    return found is None or (isinstance(found, list) and (not found or any(map(has_gaps, found))))


class AnyKey(dict[str, Any]):
    """A map that has the same value for all keys."""

    def get(self, key: str, default: Any = None) -> Any:
        return self["value"]


def sample(shape: Shape | None, depth: int = 0) -> Any:
    """An answer with every member, one item in each list, and any key in each map."""
    if shape is None or depth > 8:
        return None
    if shape.type_name == "structure":
        return {name: sample(member, depth + 1) for name, member in shape.members.items()}
    if shape.type_name == "list":
        return [sample(shape.member, depth + 1)]
    if shape.type_name == "map":
        return AnyKey(value=sample(shape.value, depth + 1))
    return {"boolean": True, "integer": 1, "long": 1, "float": 1.0, "double": 1.0}.get(shape.type_name, "text")


# make and sam.


@each("make")
def test_the_makefile_has_the_target(command: Command) -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = [word for word in command.words[1:] if "=" not in word and not word.startswith("-")]
    assert set(named) - targets == set()


@each("sam")
def test_the_template_has_the_parameters(command: Command) -> None:
    [section] = re.findall(r"^Parameters:\n((?:(?: .*)?\n)+)", (ROOT / "template.yaml").read_text(), re.MULTILINE)
    parameters = set(re.findall(r"^  (\w+):$", section, re.MULTILINE))
    words = command.words
    after = words[words.index("--parameter-overrides") + 1 :] if "--parameter-overrides" in words else []
    named = {word.split("=")[0] for word in after if re.match(r"\w+=", word)}
    assert named - parameters == set()


# The checks themselves.


def test_the_documentation_has_commands_of_each_tool() -> None:
    assert {tool: len(all_commands(tool)) > 1 for tool in TOOLS.split("|")} == dict.fromkeys(TOOLS.split("|"), True)


def test_commands_are_found_where_people_write_them() -> None:
    page = """
Run `make test`, or `ami-guard
check`. We make tests. `make sure` is an `aws` joke.
```sh
# aws is a comment
$ aws ec2 a '<image>' \\
    --b "$x" | jq . > file   # a comment
if ! ami-guard check "$1"; then make c; fi
url=$(aws sqs d --e '<f g>')
  - X=1 make h && sam i
```
"""
    found = [(command.line, command.words, command.complete) for command in commands("page", page)]
    assert found == [
        (7, ["aws", "ec2", "a", AMI, "--b", "$x"], True),
        (8, ["ami-guard", "check", "$1"], True),
        (8, ["make", "c"], True),
        (9, ["aws", "sqs", "d", "--e", "placeholder"], True),
        (10, ["make", "h"], True),
        (10, ["sam", "i"], True),
        (2, ["make", "test"], False),
        (2, ["ami-guard", "check"], False),
        (3, ["make", "sure"], False),
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("ec2 describe-image", "ec2 has no operation describe-image"),
        ("ecs2 describe-images", "there is no service ecs2"),
        ("ec2 describe-images --image-id x", "describe-images has no option --image-id"),
        ("ec2 describe-images --image-ids", "--image-ids has no value"),
        ("ec2 describe-images x", "these are not options: ['x']"),
        ("ec2 describe-images --filters Name=nane,Values=x", "--filters: there is no filter nane"),
        ("ec2 describe-images --filters Nane=x", "--filters: Nane is not one of ['Name', 'Values']"),
        ("ec2 describe-images --query 'Images[].Nane'", "--query finds []"),
        ("ec2 describe-images --max-results many", "--max-results: many is not a number"),
        ("ec2 create-image --name x", "InstanceId is required"),
        ("lambda invoke --function-name x", "these are not options: []"),
        ("""dynamodb get-item --table-name x --key '{"id": "x"}'""", "--key: Invalid type for parameter"),
        ("sqs get-queue-attributes --queue-url x --attribute-names Polite", "--attribute-names: Polite is not one of"),
    ],
)
def test_a_wrong_command_is_found(text: str, fault: str) -> None:
    found = faults(Command("page", 1, f"aws {text}", complete=True))[0]
    assert found.startswith(fault)


@pytest.mark.parametrize(
    "text",
    [
        "ec2 create-image --no-reboot --instance-id x --name x --region x",
        "ec2 describe-images --include-disabled --owners self --image-ids x y --query 'length(Images[0].Tags)'",
        "lambda invoke --function-name x --cli-binary-format x --payload '{}' answer.json",
        "sns subscribe --topic-arn x --protocol email --notification-endpoint x",
    ],
)
def test_a_right_command_is_accepted(text: str) -> None:
    assert faults(Command("page", 1, f"aws {text}", complete=True)) == []


@pytest.mark.parametrize("text", ["chek", "check --regoin eu-west-1 <ami>", "check", "check <region>", "policy test x"])
def test_a_wrong_command_line_is_found(text: str, cli_binary: Path) -> None:
    assert usage_error(Command("page", 1, f"ami-guard {text}", complete=True), cli_binary).startswith("error: ")
