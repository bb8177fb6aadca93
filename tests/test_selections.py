"""README has two commands. What one has compiled of the AWS SDK, the other must not compile again."""

import json
import subprocess

from stack import ROOT


def features(*selection):
    """The features of each package, when these are built with what their tests need."""
    command = ["cargo", "tree", "--locked", *selection, "-e", "normal,dev", "--prefix", "none", "-f", "{p}|{f}"]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    packages = {}
    for line in filter(None, output.splitlines()):
        package, _, names = line.removesuffix(" (*)").partition("|")
        name, version, *_ = package.split(" ")
        packages.setdefault((name, version.removeprefix("v")), set()).update(names.split(","))
    return packages


def below(name):
    """A package and all that it is built of."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1"]
    metadata = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    names = {package["id"]: (package["name"], package["version"]) for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    waiting = [package for package, (its, _) in names.items() if its == name]
    found = set()
    while waiting:
        package = waiting.pop()
        if package not in found:
            found.add(package)
            kinds = nodes[package]["deps"]
            waiting += [dep["pkg"] for dep in kinds if any(kind["kind"] is None for kind in dep["dep_kinds"])]
    return {names[package] for package in found}


def test_the_demo_and_the_tests_share_one_build_of_the_sdk():
    demo, tests = features("-p", "ami-billing-guard"), features("--workspace")
    sdk = below("aws-sdk-ec2") & demo.keys()
    assert len(sdk) > 50
    assert {package: demo[package] for package in sdk} == {package: tests[package] for package in sdk}
