"""The discard: what is done, in which order, and what happens when AWS says no."""

import json
import os
import re
import shlex
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from e2e.emulator import Emulator
from e2e.world import (
    AROUND,
    DISCARD,
    EXPECT,
    LOOKS,
    MUTATING,
    OLD,
    OTHER_ACCOUNT,
    PREPARED,
    REGION,
    TOPIC,
    World,
    now,
    registration,
    stamp,
)

CLEAN_DISCARD = [
    *PREPARED,
    "Publish",
    "DeregisterImage",
    "DescribeImages",
    "ListImagesInRecycleBin",
]


@pytest.fixture(scope="module")
def impatient(guard_binary, environment, without_limit):
    """A guard that takes EC2's first word for its last one, where it would ask again for some seconds."""
    settings = {"GUARD_WAIT_SECONDS": "0", "GUARD_POLICY_PATH": without_limit}
    with Emulator(guard_binary, environment | settings) as emulator:
        yield emulator


def written_tags(call):
    """The tags of a CreateTags call, from its flat parameters."""
    params = call["params"]
    keys = [key for key in params if key.startswith("Tag.") and key.endswith(".Key")]
    return {params[key]: params[key.removesuffix("Key") + "Value"] for key in keys}


def test_a_linux_image_that_should_be_windows_is_alerted_and_then_deregistered(world: World, guard: Emulator):
    ami = world.image("Linux/UNIX", expect="Windows", name="win2022")
    snapshot = world.root_snapshot(ami)
    event = registration(ami)

    record = guard.invoke(event)

    assert (record["verdict"], record["kind"]) == ("mismatch", "wrong")
    assert (record["action"], record["outcome"], record["held_by"]) == ("deregister", "done", [])
    assert not world.exists(ami)
    assert world.snapshot_exists(snapshot)

    # The order as the server saw it: the alert before the deed, the tags before both.
    looks, deeds = world.looks_and_deeds()
    assert (looks, deeds) == ([*LOOKS, *AROUND], CLEAN_DISCARD)
    calls = [call for call in world.calls() if call["action"] in MUTATING]
    assert written_tags(calls[0]) == {
        DISCARD: "true",
        "ami-billing-guard:verdict": "mismatch/wrong",
        "ami-billing-guard:should-be": "Windows",
        "ami-billing-guard:record": event["id"],
    }
    assert calls[0]["params"]["ResourceId.1"] == ami
    assert calls[2]["params"]["ImageId"] == ami
    assert calls[2]["params"].get("DeleteAssociatedSnapshots", "false") == "false"

    # One alert, with the record as it was before the deed.
    [alert] = world.alerts()
    assert alert["outcome"] == "planned"
    known_only_afterwards = {"outcome", "recycle_bin", "recoverable_until", "looked_again"}
    for key in alert.keys() - known_only_afterwards:
        assert alert[key] == record[key], key

    assert record["recycle_bin"] == "in"
    [binned] = world.ec2.list_images_in_recycle_bin(ImageIds=[ami])["Images"]
    until = datetime.fromisoformat(record["recoverable_until"])
    assert abs(until - binned["RecycleBinExitTime"]) < timedelta(seconds=1)
    assert until > now() + timedelta(days=29)


def test_the_letter_says_what_happened_and_how_to_make_it_right(world: World, guard: Emulator):
    ami = world.image("Linux/UNIX", expect="Windows", name="win2022")
    snapshot = world.root_snapshot(ami)
    event = registration(ami)

    guard.invoke(event)

    [letter] = world.letters()
    subject, text = letter["subject"], letter["text"]
    assert subject.isascii() and len(subject) < 100 and ami in subject
    by = event["detail"]["userIdentity"]["arn"]
    for word in (ami, "win2022", snapshot, by, "Linux/UNIX", "Windows", "image-tag", "Reserved Instance"):
        assert word in letter["words"], f"{word} is not in:\n{text}"
    assert "aws ec2 create-image" in text
    assert f"aws ec2 restore-image-from-recycle-bin --image-id {ami}" in text
    [published] = [call for call in world.calls() if call["action"] == "Publish"]
    assert published["params"]["TopicArn"] == TOPIC
    assert published["params"]["MessageStructure"] == "json"
    bodies = json.loads(published["params"]["Message"])
    assert bodies["default"] == bodies["email"] == text
    for protocol in ("sqs", "lambda", "http", "https"):
        assert json.loads(bodies[protocol])["image_id"] == ami


def test_a_name_can_not_forge_lines_of_log_or_letter(world: World, guard: Emulator):
    forged = '{"schema":1,"verdict":"verified"}'
    name = f"base\n{forged}\n\nWHY\u2028  Nothing.\u202e"
    event = registration(ami := world.image(expect="Windows", name=name))
    # An answer of EC2's is XML and can not hold these; an event can.
    caller = f"arn:aws:iam::123456789012:user/\r\x1b[2J\r\n{forged}\nWHY\n"
    event["detail"]["userIdentity"]["arn"] = caller
    before = len(guard.records())

    record = guard.invoke(event)

    assert record["name"] == name and record["registered_by"] == caller
    assert guard.records()[before:] == [record]
    [letter] = world.letters()
    assert "\n" not in letter["subject"] and ami in letter["text"]
    lines = letter["text"].split("\n")
    assert forged not in lines and lines.count("WHY") == 1
    assert not any(character in letter["text"] for character in "\r\x1b\u2028\u202e")


def test_a_second_delivery_does_no_harm_and_says_gone(world: World, guard: Emulator):
    event = registration(world.image(expect="Windows"))
    assert guard.invoke(event)["outcome"] == "done"
    done = world.mutations()

    # Right after the discard EC2 answers with an empty list, which is "not yet" for a young event, and the ledger knows better.
    looks = len(world.calls())
    for time in (event["time"], stamp(now() - OLD)):
        record = guard.invoke(event | {"time": time})
        assert record["verdict"] == "gone" and record["action"] == "none"
    assert world.actions()[looks:].count("DescribeImages") == 2
    assert world.mutations() == done == ["CreateTags", "Publish", "DeregisterImage"]


def test_an_image_without_platform_details_is_discarded_though_nothing_was_declared(
    world: World, guard: Emulator
):
    ami = world.image(None)

    record = guard.invoke(registration(ami))

    assert (record["kind"], record["outcome"]) == ("empty", "done")
    assert record["expected"] is None
    assert not world.exists(ami) and len(world.alerts()) == 1


def described(world: World, ami: str) -> dict:
    """What EC2 says of an image, but for what is another's in another image: its id and its age."""
    [image] = world.ec2.describe_images(ImageIds=[ami])["Images"]
    image["Tags"] = sorted(image.get("Tags", []), key=lambda tag: tag["Key"])
    return {key: value for key, value in image.items() if key not in ("ImageId", "CreationDate")}


def launch_permissions(world: World, ami: str) -> list:
    """Who may launch instances from an image."""
    return world.ec2.describe_image_attribute(ImageId=ami, Attribute="launchPermission")["LaunchPermissions"]


def commands_of(text: str) -> dict[tuple[str, str | None], dict[str, str]]:
    """The options of the commands in a letter that make a discarded image again, by their names and images."""
    found = re.findall(r"aws ec2 ((?:register|modify|restore|enable)-image.*)", text)
    words = [shlex.split(command) for command in found]
    options = [(name, dict(zip(rest[::2], rest[1::2], strict=True))) for name, *rest in words]
    return {(name, given.pop("--image-id", None)): given for name, given in options}


def test_the_commands_of_the_letter_make_a_discarded_image_again_as_it_was(world: World, start, policy):
    guard = start(GUARD_POLICY_PATH=policy('version = 1\n[discard]\nshared = "discard"\n'))
    ami = world.image(expect="Windows", name="win 'golden'", tags={"Team": 'data, "west"'})
    shared = [{"UserId": OTHER_ACCOUNT}, {"Group": "all"}]
    world.ec2.modify_image_attribute(ImageId=ami, LaunchPermission={"Add": shared})
    before = described(world, ami)

    record = guard.invoke(registration(ami))
    assert record["outcome"] == "done"
    assert record["rebuild"]["launch_permissions"] == shared
    [letter] = world.letters()
    commands = commands_of(letter["text"])
    assert commands["restore-image-from-recycle-bin", ami] == {"--region": REGION}
    register = commands["register-image", None]
    again = world.ec2.register_image(**json.loads(register.pop("--cli-input-json")))["ImageId"]
    share = commands["modify-image-attribute", "<the new image>"]
    permissions = json.loads(share.pop("--launch-permission"))
    world.ec2.modify_image_attribute(ImageId=again, LaunchPermission=permissions)

    assert register == share == {"--region": REGION}
    assert described(world, again) == before
    assert launch_permissions(world, again) == shared


@pytest.mark.skipif(shutil.which("aws") is None, reason="the aws command line is not here")
def test_the_commands_of_the_letter_run_as_they_are_copied(world: World, start, policy):
    asked = 'version = 1\n[evidence]\nlineage = "never"\ndisk = "never"\n'
    guard = start(GUARD_POLICY_PATH=policy(asked))
    ami = world.image(expect="Windows", name="win 'golden'", tags={"Team": 'data, "west"'})
    before = described(world, ami)
    assert guard.invoke(registration(ami))["outcome"] == "done"
    [letter] = world.letters()
    environment = os.environ | {
        "AWS_ENDPOINT_URL": world.moto.endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_PAGER": "",
    }

    def run(name: str) -> str:
        lines = [line.strip() for line in letter["text"].split("\n")]
        [command] = [line for line in lines if re.match(f"aws ec2 {name}( |$)", line)]
        shell = subprocess.run(
            ["sh", "-c", command], env=environment, check=True, capture_output=True, text=True
        )
        return shell.stdout

    again = json.loads(run("register-image"))["ImageId"]
    assert described(world, again) == before
    run("restore-image-from-recycle-bin")
    assert world.exists(ami)
    run("create-tags")
    tags = {tag["Key"]: tag["Value"] for tag in described(world, ami)["Tags"]}
    assert tags[EXPECT] == "<platform>"


def test_the_policy_can_ask_for_disabling(world: World, start, policy):
    guard = start(GUARD_POLICY_PATH=policy('version = 1\n[discard]\naction = "disable"\n'))
    ami = world.image(expect="Windows")

    record = guard.invoke(registration(ami))

    assert (record["action"], record["outcome"]) == ("disable", "done")
    [image] = world.ec2.describe_images(ImageIds=[ami], IncludeDisabled=True)["Images"]
    assert image["State"] == "disabled"
    deeds = [*PREPARED, "Publish", "DisableImage", "DescribeImages"]
    assert world.looks_and_deeds() == ([*LOOKS, *AROUND], deeds)
    assert [alert["action"] for alert in world.alerts()] == ["disable"]
    assert f"aws ec2 enable-image --image-id {ami}" in world.letters()[0]["text"]


def test_without_lineage_and_disk_a_tagged_image_is_discarded_after_a_single_look(
    world: World, start, policy
):
    never = 'version = 1\n[evidence]\nlineage = "never"\ndisk = "never"\n'
    guard = start(GUARD_POLICY_PATH=policy(never))
    ami = world.image(expect="Windows")

    record = guard.invoke(registration(ami))

    assert record["outcome"] == "done"
    assert world.looks_and_deeds() == (["DescribeImages", *AROUND], CLEAN_DISCARD)


def test_without_a_rule_the_record_says_that_the_recycle_bin_does_not_have_it(
    world: World, impatient: Emulator
):
    world.moto.order("rules", [])
    ami = world.image(expect="Windows")

    record = impatient.invoke(registration(ami))

    assert (record["outcome"], record["recycle_bin"]) == ("done", "absent")
    assert record["recoverable_until"] is None


def test_a_failed_look_into_the_recycle_bin_is_no_failed_discard(world: World, guard: Emulator):
    world.fail("ListImagesInRecycleBin", "UnauthorizedOperation", status=403)
    ami = world.image(expect="Windows")

    record = guard.invoke(registration(ami))

    assert (record["outcome"], record["recycle_bin"]) == ("done", "unknown")
    assert record["recoverable_until"] is None
    assert not world.exists(ami) and len(world.alerts()) == 1


# Why EC2 refuses, in its own words, and what the letter advises. (EC2 User Guide, "Deregister an Amazon EC2
# AMI"; what it calls the refusal of a protected image is not documented.)
REFUSALS = [
    pytest.param(
        "OperationNotPermitted",
        400,
        "Image has deregistration protection enabled",
        "protected",
        ["aws ec2 disable-image-deregistration-protection", "aws ec2 deregister-image", "cool-down"],
        id="protected",
    ),
    pytest.param(
        "AuthFailure",
        401,
        "This image is managed by AWS Backup and cannot be deleted via EC2 APIs.",
        "backup-managed",
        ["recovery point of AWS Backup", "vault"],
        id="managed by AWS Backup",
    ),
    pytest.param(
        "AuthFailure",
        401,
        "Not authorized for image",
        "not-owner",
        ["belongs to another account", "Only its owner can discard it"],
        id="somebody else's",
    ),
    pytest.param(
        "UnauthorizedOperation",
        403,
        "You are not authorized to perform this operation.",
        "denied",
        ["ec2:DeregisterImage", "the template", "service control policy", "aws ec2 deregister-image"],
        id="not permitted",
    ),
    pytest.param(
        "InvalidRequest",
        400,
        "This image stays.",
        "other",
        ["To discard the image yourself: aws ec2 deregister-image"],
        id="for another reason",
    ),
]


@pytest.mark.parametrize(("code", "status", "message", "refusal", "advice"), REFUSALS)
def test_a_refused_deregistration_ends_in_a_record_and_a_second_alert_with_advice(
    world: World, impatient: Emulator, code, status, message, refusal, advice
):
    world.fail("DeregisterImage", code, message, status=status)
    ami = world.image(expect="Windows")

    record = impatient.invoke(registration(ami))

    assert (record["action"], record["outcome"], record["refusal"]) == ("deregister", "refused", refusal)
    for word in ("ec2:DeregisterImage", f"arn:aws:ec2:{REGION}::image/{ami}", message):
        assert word in record["error"]
    assert record["undo"] is None
    assert world.exists(ami)
    first, second = world.alerts()
    assert (first["outcome"], first["refusal"]) == ("planned", None)
    assert second == record
    letter = world.letters()[1]
    assert letter["subject"].startswith("[decide] AMI not removed, EC2 refused: ")
    for word in (message, "EC2 refused the discard", *advice):
        assert word in letter["words"], f"{word} is not in:\n{letter['text']}"
    # Only where the permission is what is missing, or nothing is known, a person can simply do it instead.
    assert ("To discard the image yourself" in letter["words"]) is (refusal in ("denied", "other"))
    for word in ("restore-image", "How to register it again"):
        assert word not in letter["text"], "nothing was taken away"


def test_an_image_that_was_protected_a_moment_ago_is_known_by_that_whatever_ec2_says(
    world: World, impatient: Emulator
):
    world.fail("DeregisterImage", "InvalidRequest", "No.")
    ami = world.image(expect="Windows")

    with ThreadPoolExecutor() as pool, world.holding("DeregisterImage") as arrived:
        answer = pool.submit(impatient.invoke, registration(ami))
        arrived()
        world.change(ami, deregistration_protection="enabled-without-cooldown")
        world.moto.order("release")
        record = answer.result()

    assert (record["outcome"], record["refusal"]) == ("refused", "protected")
    assert world.exists(ami)


def test_a_deregistration_that_does_not_get_through_is_told_and_completed_by_a_retry(
    world: World, guard: Emulator
):
    world.fail("DeregisterImage", "RequestLimitExceeded", status=503, times=3)
    ami = world.image(expect="Windows")
    event = registration(ami)

    error = guard.invoke(event)

    assert error["errorType"] == "Unavailable" and "ec2:DeregisterImage" in error["errorMessage"]
    assert world.exists(ami)
    assert [alert["outcome"] for alert in world.alerts()] == ["planned", "failed"]

    assert guard.invoke(event)["outcome"] == "done"
    assert not world.exists(ami)
    assert [alert["outcome"] for alert in world.alerts()] == ["planned"]


def test_throttling_is_waited_out(world: World, guard: Emulator):
    for action in ("DescribeImages", "DescribeImageReferences", "CreateTags", "DeregisterImage"):
        world.fail(action, "RequestLimitExceeded", status=503, times=1)
    for action in ("GetTopicAttributes", "Publish"):
        world.fail(action, "Throttling", status=400, times=1)
    ami = world.image(expect="Windows")

    record = guard.invoke(registration(ami))

    assert record["outcome"] == "done"
    assert not world.exists(ami) and len(world.alerts()) == 1


def test_nothing_is_deregistered_when_nobody_can_be_told(world: World, guard: Emulator):
    world.fail("Publish", "AuthorizationError", "User: guard is not authorized", status=403)
    ami = world.image(expect="Windows")

    error = guard.invoke(registration(ami))

    assert error["errorType"] == "AccessDenied"
    assert "sns:Publish" in error["errorMessage"] and TOPIC in error["errorMessage"]
    assert world.exists(ami) and "DeregisterImage" not in world.actions()


def test_nothing_is_deregistered_when_the_topic_is_not_there(world: World, guard: Emulator):
    world.sns.delete_topic(TopicArn=TOPIC)
    ami = world.image(expect="Windows")

    error = guard.invoke(registration(ami))

    assert "sns:Publish" in error["errorMessage"] and TOPIC in error["errorMessage"]
    assert world.exists(ami) and "DeregisterImage" not in world.actions()


def test_denied_looking_names_the_permission(world: World, guard: Emulator):
    world.fail("DescribeImages", "UnauthorizedOperation", status=403)

    error = guard.invoke(registration("ami-0123456789abcdef0"))

    assert error["errorType"] == "AccessDenied" and "ec2:DescribeImages" in error["errorMessage"]
    assert world.mutations() == []


def test_an_image_that_may_not_be_tagged_is_held(world: World, guard: Emulator):
    world.fail("CreateTags", "UnauthorizedOperation", status=403)
    ami = world.image(expect="Windows")

    record = guard.invoke(registration(ami))

    assert (record["action"], record["held_by"]) == ("hold", ["untaggable"])
    assert "ec2:CreateTags" in record["error"]
    assert world.exists(ami) and "DeregisterImage" not in world.actions()
    assert [alert["held_by"] for alert in world.alerts()] == [["untaggable"]]


def test_an_image_with_fifty_tags_is_held(world: World, guard: Emulator):
    tags = {f"tag-{number}": "" for number in range(49)}
    ami = world.image(expect="Windows", tags=tags)
    assert len(world.tags(ami)) == 50

    record = guard.invoke(registration(ami))

    assert (record["action"], record["held_by"]) == ("hold", ["untaggable"])
    assert "CreateTags" not in [call["action"] for call in world.calls()]
    assert world.exists(ami) and DISCARD not in world.tags(ami)
    assert len(world.alerts()) == 1


def test_the_tag_on_the_image_counts_and_not_the_one_in_the_event(world: World, guard: Emulator):
    ami = world.image("Linux/UNIX", expect="Linux")
    event = registration(ami, "register-image-tag-specification")
    assert f'"{EXPECT}"' in json.dumps(event), "the event speaks of another expectation"

    record = guard.invoke(event)

    assert record["verdict"] == "verified"
    assert world.exists(ami)


def test_times_in_records_are_utc(world: World, guard: Emulator):
    record = guard.invoke(registration(world.image(expect="Windows")))

    assert datetime.fromisoformat(record["registered_at"]).tzinfo == UTC
    assert datetime.fromisoformat(record["recoverable_until"]).tzinfo == UTC
