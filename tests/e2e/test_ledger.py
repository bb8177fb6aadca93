"""The ledger in a table that many processes share: what was done to an image, and how much this hour."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

import pytest

from e2e.emulator import Emulator
from e2e.world import (
    ACCOUNT,
    AROUND,
    EXPECT,
    LEDGER,
    LOOKS,
    OLD,
    REGION,
    SETTLED,
    World,
    batch,
    now,
    registration,
    scheduled,
    stamp,
    this_hour,
)

pytestmark = pytest.mark.one_hour

STATE_CHANGE = "state-change-available"
PLACE = f"{ACCOUNT}#{REGION}"

# So long the same is not told again of an image, and a minute more.
DAY = timedelta(hours=24, minutes=1)

# The looks around an image, with the ledger's at what was registered from the same snapshot.
ALL_AROUND = sorted([*AROUND, "GetItem"])

Guards = Callable[[int], list[Emulator]]


@pytest.fixture(scope="module")
def guards(guard_binary, environment) -> Iterator[Guards]:
    """So many processes with the built-in policy and the ledger in one table: none remembers by itself."""
    started: list[Emulator] = []
    with ExitStack() as stack:

        def some(number: int) -> list[Emulator]:
            while len(started) < number:
                settings = environment | {"GUARD_LEDGER_TABLE": LEDGER}
                started.append(stack.enter_context(Emulator(guard_binary, settings)))
            return started[:number]

        yield some
    assert "panicked" not in "\n".join(line for guard in started for line in guard.output)


@pytest.fixture
def world(world: World) -> World:
    """With the ledger's table."""
    world.make_ledger()
    return world


@pytest.fixture
def guard(guards: Guards) -> Emulator:
    """Any one of them."""
    [guard] = guards(1)
    return guard


def actions(world: World) -> list[str]:
    """What the guard called, in order; what it asks side by side is sorted."""
    called = world.actions()
    together = []
    for around, some in groupby(called, ALL_AROUND.__contains__):
        together += sorted(some) if around else some
    # The last of the looks, at what is on the snapshot, comes after those at where it is from.
    from_where = len(LOOKS) - 1
    return together[:2] + sorted(together[2:from_where]) + together[from_where:]


def keys(call: dict[str, Any]) -> list[str]:
    """The items of the ledger that a call is about."""
    params = call["params"]
    writes = [item["Update"] for item in params.get("TransactItems", [])] or [params]
    assert {write["TableName"] for write in writes} == {LEDGER}
    return [write["Key"]["id"]["S"] for write in writes]


def hour(of: str = "hour") -> str:
    """The id of the item that counts this hour's discards, or of its alerts."""
    return f"{of}#{PLACE}#{this_hour()}"


def done(world: World) -> list[str]:
    """The images that EC2 was told to deregister, and did."""
    calls = [call for call in world.calls() if call["action"] == "DeregisterImage" and call["status"] == 200]
    return [call["params"]["ImageId"] for call in calls]


def test_a_clean_discard_is_reserved_noted_and_kept(world: World, start):
    guard = start(GUARD_LEDGER_TABLE=LEDGER, GUARD_LEDGER_DAYS="30")
    ami = world.image(expect="Windows")
    snapshot = world.root_snapshot(ami)
    began = now()

    record = guard.invoke(registration(ami))

    assert record["outcome"] == "done"
    assert actions(world) == [
        *LOOKS,
        "UpdateItem",
        *ALL_AROUND,
        "TransactWriteItems",
        "CreateTags",
        "DescribeImages",
        *ALL_AROUND,
        "Publish",
        "UpdateItem",
        "UpdateItem",
        "DeregisterImage",
        "DescribeImages",
        "ListImagesInRecycleBin",
        "UpdateItem",
    ]
    image, sibling = f"{PLACE}#{ami}", f"{PLACE}#{snapshot}"
    calls = [call for call in world.calls() if call["service"] == "dynamodb"]
    assert [keys(call) for call in calls] == [
        [image],  # its turn begins
        [sibling],  # was another image of the snapshot discarded?
        [image, hour()],  # a place among the hour's discards
        [sibling],
        [sibling],  # from here on the image may be gone
        [image],
        [image],  # what came of it; the turn ends
    ]

    items = world.ledger()
    assert set(items) == {image, sibling, hour()}
    for item in items.values():
        kept_for = datetime.fromtimestamp(int(item.pop("expires")), UTC) - began
        assert timedelta(days=30, seconds=-1) <= kept_for < timedelta(days=30, minutes=2)
    assert items[hour()] == {"begun": 1}
    entry = items[image]
    noted = datetime.fromtimestamp(int(entry.pop("attempted_at_ms")) / 1000, UTC)
    assert began - timedelta(seconds=1) < noted < now() + timedelta(seconds=1)
    [discard] = items[sibling]["discards"]
    at, image = discard.split()
    assert (datetime.fromisoformat(at), image) == (noted, ami)
    # What it takes to rebuild the image is in both: the one is overwritten by what becomes of it later.
    assert json.loads(entry.pop("record")) == json.loads(entry.pop("discard")) == record
    assert record["rebuild"]["register_image"]["Name"] == record["name"]
    assert len(entry.pop("turn")) == 32
    assert entry == {"turn_until_ms": 0, "place": this_hour(), "completed": 1}


def test_a_verified_image_is_on_record_with_two_writes(world: World, guard: Emulator):
    ami = world.image("Windows", expect="Windows")

    record = guard.invoke(registration(ami))

    assert world.actions().count("UpdateItem") == 2 and "GetItem" not in world.actions()
    assert json.loads(world.entry(ami)["record"]) == record


def settle(guard: Emulator, answers: list[Any], *events: dict[str, Any]) -> None:
    """Sends again what was shut out, as the queue would: all in all discarded once, and then gone."""
    judged = [answer for answer in answers if "errorType" not in answer]
    for answer in answers:
        assert answer.get("errorType") in (None, "Busy", "NotVisibleYet", "IdentityMayCome"), answer
    if len(judged) < len(answers):
        judged += [guard.invoke(event | {"time": stamp(now() - OLD)}) for event in events]
    assert [record["outcome"] for record in judged].count("done") == 1, judged
    assert {record["verdict"] for record in judged if record["outcome"] is None} <= {"gone"}, judged


def test_the_same_event_five_times_at_once_gives_one_discard_and_one_alert(world: World, guards: Guards):
    ami = world.image(expect="Windows")
    event = registration(ami)

    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda guard: guard.invoke(event), guards(5)))

    settle(guards(1)[0], answers, event)
    assert done(world) == [ami]
    assert [alert["outcome"] for alert in world.alerts()] == ["planned"]
    assert world.ledger()[hour()]["begun"] == 1


def test_the_same_event_five_times_in_a_batch_gives_one_discard_and_one_alert(world: World, guard: Emulator):
    ami = world.image(expect="Windows")
    event = registration(ami)

    answer = guard.invoke(batch([event] * 5))
    while failures := answer["batchItemFailures"]:
        answer = guard.invoke(batch([event | {"time": stamp(now() - OLD)}] * len(failures)))

    assert done(world) == [ami]
    assert [alert["outcome"] for alert in world.alerts()] == ["planned"]
    assert world.ledger()[hour()]["begun"] == 1


@pytest.mark.parametrize("first", ["CloudTrail's event", "the state change", "both at once"])
def test_two_triggers_for_one_image_give_one_discard_and_one_alert(world: World, guards: Guards, first):
    one, other = guards(2)
    ami = world.image(expect="Windows")
    call, change = registration(ami), registration(ami, STATE_CHANGE)

    if first == "both at once":
        with ThreadPoolExecutor() as pool:
            answers = [pool.submit(one.invoke, call), pool.submit(other.invoke, change)]
            answers = [answer.result() for answer in answers]
    else:
        events = [change, call] if first == "the state change" else [call, change]
        answers = [one.invoke(event) for event in events]

    settle(other, answers, call, change)
    assert done(world) == [ami]
    assert [alert["outcome"] for alert in world.alerts()] == ["planned"]


@pytest.mark.parametrize("case", ["register-image-assumed-role", STATE_CHANGE])
def test_an_image_that_is_discarded_before_ones_turn_was_not_brought_back(
    world: World, guards: Guards, case
):
    one, other = guards(2)
    ami = world.image(expect="Windows")

    # It saw the image, and then another invocation has its turn from beginning to end.
    with ThreadPoolExecutor() as pool, world.holding("DescribeSnapshots") as arrived:
        late = pool.submit(other.invoke, registration(ami, case, age=OLD))
        arrived()
        answers = [one.invoke(registration(ami))]
        world.moto.order("release")
        answers.append(late.result())

    assert answers[1]["errorType"] == "NotVisibleYet"
    settle(other, answers, registration(ami))
    assert [alert["outcome"] for alert in world.alerts()] == ["planned"]


def test_turns_that_are_not_over_shut_others_out_and_end_with_their_invocation(world: World, guards: Guards):
    one, other = guards(2)
    ami = world.image(expect="Windows")
    began = time.time()

    with ThreadPoolExecutor() as pool, world.holding("CreateTags") as arrived:
        answer = pool.submit(one.invoke, registration(ami))
        arrived()
        begun = time.time()
        shut_out = other.invoke(registration(ami))
        until = int(world.entry(ami)["turn_until_ms"]) / 1000
        world.moto.order("release")

    assert answer.result()["outcome"] == "done"
    assert shut_out["errorType"] == "Busy" and ami in shut_out["errorMessage"]
    # The timeout of a minute from when the turn was taken, and some seconds as clocks differ.
    assert began + 50 < until < begun + 70


# --- What people bring back ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "bring_back"),
    [("deregister", "restore_image_from_recycle_bin"), ("disable", "enable_image")],
)
def test_what_people_bring_back_is_held_and_told_once_a_day(world: World, start, policy, action, bring_back):
    rule = policy(f'version = 1\n[discard]\naction = "{action}"\n')
    guard = start(GUARD_LEDGER_TABLE=LEDGER, GUARD_POLICY_PATH=rule)
    ami = world.image(expect="Windows")
    discarded = guard.invoke(registration(ami))
    assert (discarded["action"], discarded["outcome"]) == (action, "done")
    deeds = world.mutations()
    world.alerts()
    getattr(world.ec2, bring_back)(ImageId=ami)
    # For some minutes it may as well be that EC2 shows what is gone.
    assert guard.invoke(registration(ami))["errorType"] == "NotVisibleYet"
    world.set_entry(ami, "attempted_at_ms", int((now() - SETTLED).timestamp() * 1000))

    record = guard.invoke(registration(ami))

    assert (record["action"], record["held_by"]) == ("hold", ["discarded-before"])
    assert world.alerts() == [record]
    assert "restored afterwards" in world.letters()[-1]["words"]
    # The event once more, and those that EC2 sends of the restore itself: people know.
    changes = [registration(ami, STATE_CHANGE, age=age) for age in (timedelta(), OLD)]
    for event in (registration(ami), *changes):
        again = guard.invoke(event)
        assert again["action"] == "hold" and "discarded-before" in again["held_by"], again
    assert world.alerts() == []
    world.set_entry(ami, "told_at_ms", int((now() - DAY).timestamp() * 1000))
    record = guard.invoke(registration(ami))
    assert world.alerts() == [record]
    assert world.mutations() == [*deeds, "Publish", "Publish"] and world.exists(ami)
    assert json.loads(world.entry(ami)["discard"]) == discarded, "how it was is not forgotten"


def test_an_image_that_is_registered_again_from_the_same_snapshot_is_held_and_told_once(world: World, start):
    guard = start(GUARD_LEDGER_TABLE=LEDGER, GUARD_SETTLE_SECONDS="0")
    snapshot = world.snapshot()
    first, second = (world.register(snapshot, expect="Windows") for _ in range(2))
    assert guard.invoke(registration(first))["outcome"] == "done"
    world.alerts()

    again = world.register(snapshot, expect="Windows", age=timedelta())
    records = [guard.invoke(registration(again)) for _ in range(2)]

    for record in records:
        assert (record["action"], record["held_by"]) == ("hold", ["discarded-before"])
    assert world.alerts() == records[:1] and world.exists(again)
    # One that was there before is nobody's answer to that discard.
    assert guard.invoke(registration(second))["outcome"] == "done"
    assert done(world) == [first, second]


def test_the_same_is_told_of_an_image_once_a_day_and_something_else_at_once(world: World, guard: Emulator):
    ami = world.image("Windows with SQL Server Standard", expect="Windows")

    records = [guard.invoke(registration(ami)) for _ in range(2)]
    assert {record["action"] for record in records} == {"alert"}
    assert world.alerts() == records[:1]

    world.ec2.create_tags(Resources=[ami], Tags=[{"Key": EXPECT, "Value": "Windows, Linux"}])
    other = guard.invoke(registration(ami))
    assert world.alerts() == [other]
    world.set_entry(ami, "told_at_ms", int((now() - DAY).timestamp() * 1000))
    guard.invoke(registration(ami))
    assert len(world.alerts()) == 1


# --- A ledger that does not answer, or not at once ---------------------------------------------------

UNREACHABLE = [
    pytest.param("UpdateItem", "AccessDeniedException", id="no turn: denied"),
    pytest.param("UpdateItem", "ProvisionedThroughputExceededException", id="no turn: throttled"),
    pytest.param("GetItem", "AccessDeniedException", id="no look at what was done before"),
    pytest.param("TransactWriteItems", "AccessDeniedException", id="no reservation"),
]


def assert_held_for_now(world: World, ami: str, error: Any, *words: str) -> None:
    """It was judged and told, held, and comes back."""
    assert "errorType" in error, error
    [alert] = world.alerts()
    assert (alert["action"], alert["held_by"]) == ("hold", ["ledger-unavailable"])
    for word in words:
        assert word in error["errorMessage"] and word in alert["error"]
    assert world.exists(ami) and world.mutations() == ["Publish"]


@pytest.mark.parametrize(("action", "code"), UNREACHABLE)
def test_without_an_answer_of_the_ledger_a_discard_is_held_told_and_tried_again(
    world: World, guard: Emulator, action, code
):
    ami, verified = world.image(expect="Windows"), world.image("Windows", expect="Windows")
    world.fail(action, code, "the ledger says no")
    permission = "dynamodb:GetItem" if action == "GetItem" else "dynamodb:UpdateItem"

    error = guard.invoke(registration(ami))

    assert_held_for_now(world, ami, error, permission, "the ledger says no")
    # What is right needs no ledger.
    assert guard.invoke(registration(verified))["verdict"] == "verified"
    world.heal()
    assert guard.invoke(registration(ami))["outcome"] == "done"
    assert [alert["outcome"] for alert in world.alerts()] == ["planned"]


def test_without_its_table_a_discard_is_held_told_and_tried_again(world: World, guard: Emulator):
    world.dynamodb.delete_table(TableName=LEDGER)
    ami = world.image(expect="Windows")

    error = guard.invoke(registration(ami))

    words = ("dynamodb:UpdateItem", LEDGER, "ResourceNotFoundException")
    assert_held_for_now(world, ami, error, *words)
    world.make_ledger()
    assert guard.invoke(registration(ami))["outcome"] == "done"


@pytest.mark.parametrize("spared", [1, 2], ids=["of the snapshot", "of the image"])
def test_a_discard_that_can_not_be_noted_is_not_done_and_tried_again(world: World, guard: Emulator, spared):
    ami = world.image(expect="Windows")
    world.fail("UpdateItem", "AccessDeniedException", "the ledger says no", spared=spared)

    error = guard.invoke(registration(ami))

    assert error["errorType"] == "Unavailable" and "the ledger says no" in error["errorMessage"]
    assert [alert["outcome"] for alert in world.alerts()] == ["planned", "failed"]
    assert world.exists(ami) and "DeregisterImage" not in world.actions()
    # Nothing could be noted, not even that the turn is over.
    world.heal()
    assert guard.invoke(registration(ami))["errorType"] == "Busy"
    world.set_entry(ami, "turn_until_ms", 0)
    assert guard.invoke(registration(ami))["outcome"] == "done"
    assert world.ledger()[hour()]["begun"] == 1, "tried again, counted once"


def test_other_writers_are_waited_for(world: World, guard: Emulator):
    ami = world.image(expect="Windows")
    world.fail("UpdateItem", "TransactionConflictException", times=2)
    conflict = ("None", "TransactionConflict")
    world.fail("TransactWriteItems", "TransactionCanceledException", times=2, reasons=conflict)

    assert guard.invoke(registration(ami))["outcome"] == "done"
    assert world.ledger()[hour()]["begun"] == 1


def test_for_other_writers_that_do_not_end_a_discard_comes_back_in_silence(world: World, guard: Emulator):
    ami = world.image(expect="Windows")
    conflict = ("None", "TransactionConflict")
    world.fail("TransactWriteItems", "TransactionCanceledException", reasons=conflict)

    error = guard.invoke(registration(ami))

    assert error["errorType"] == "Busy" and world.mutations() == []
    world.heal()
    assert guard.invoke(registration(ami))["outcome"] == "done"


@pytest.mark.parametrize("spared", [0, 1, 2, 3], ids=["turn", "snapshot", "attempt", "end"])
def test_a_write_whose_answer_is_lost_is_written_once(world: World, guard: Emulator, spared):
    ami = world.image(expect="Windows")
    lost = {"status": 500, "times": 1, "lost": True}
    world.fail("UpdateItem", "InternalServerError", spared=spared, **lost)
    world.fail("TransactWriteItems", "InternalServerError", **lost)

    record = guard.invoke(registration(ami))

    assert record["outcome"] == "done"
    assert world.ledger()[hour()]["begun"] == 1
    assert json.loads(world.entry(ami)["record"]) == record


# --- The hourly limit -------------------------------------------------------------------------------


def limited(start, policy, number: int) -> Emulator:
    """A guard whose policy allows so many discards an hour."""
    rule = policy(f"version = 1\n[discard]\nmax_per_hour = {number}\n")
    return start(GUARD_LEDGER_TABLE=LEDGER, GUARD_POLICY_PATH=rule)


def test_over_the_limit_the_first_is_told_at_once_and_the_others_in_one_digest(world: World, start, policy):
    guard = limited(start, policy, 2)
    images = [world.image(expect="Windows", name=f"golden-{number}") for number in range(5)]

    records = [guard.invoke(registration(ami)) for ami in images]

    assert [record["held_by"] for record in records] == [[], [], *[["limit"]] * 3]
    assert done(world) == images[:2] and world.ledger()[hour()]["begun"] == 2
    told = [(alert["image_id"], alert["action"]) for alert in world.alerts()]
    assert told == [(images[0], "deregister"), (images[1], "deregister"), (images[2], "hold")]
    assert "Removal limit reached, 1 AMI waiting" in world.letters()[-1]["subject"]
    assert world.tags(images[2]) == {EXPECT: "Windows"}, "what is held by the limit is not touched"
    # The same events once more change nothing, and tell nobody anything.
    for ami in images[2:]:
        assert guard.invoke(registration(ami))["held_by"] == ["limit"]
    assert world.alerts() == []

    # A digest of which nobody could be told comes back, and one that was told does not say it again.
    world.fail("Publish", "InternalError", status=500)
    assert guard.invoke(scheduled())["errorType"] == "Unavailable"
    world.heal()
    event = scheduled()
    record = guard.invoke(event)
    assert (record["verdict"], record["event_id"]) == ("ignored", event["id"])
    assert record["reason"].endswith("reported: 2")
    [digest] = world.alerts()
    assert (digest["digest"], digest["event_id"], digest["account"]) == ("limit", event["id"], ACCOUNT)
    assert {image["image_id"] for image in digest["images"]} == set(images[3:])
    letter = world.letters()[-1]
    assert "Removal limit reached, 2 AMIs waiting" in letter["subject"]
    for number, ami in enumerate(images):
        assert (ami in letter["text"]) is (f"golden-{number}" in letter["text"]) is (number >= 3)
    assert guard.invoke(batch([scheduled()])) == {"batchItemFailures": []}
    assert world.alerts() == []


def test_what_the_limit_held_is_discarded_once_there_is_a_place_and_is_in_no_digest(
    world: World, start, policy
):
    guard = limited(start, policy, 1)
    images = [world.image(expect="Windows") for _ in range(4)]
    for ami in images:
        guard.invoke(registration(ami))
    world.alerts()

    # The next hour.
    world.dynamodb.delete_item(TableName=LEDGER, Key={"id": {"S": hour()}})
    assert guard.invoke(registration(images[2]))["outcome"] == "done"
    world.alerts()

    guard.invoke(scheduled())
    [digest] = world.alerts()
    assert [image["image_id"] for image in digest["images"]] == [images[3]]
    assert done(world) == [images[0], images[2]]


def test_who_can_not_be_left_to_the_digest_is_told_at_once(world: World, start, policy):
    guard = limited(start, policy, 0)
    images = [world.image(expect="Windows") for _ in range(3)]
    assert guard.invoke(registration(images[0]))["held_by"] == ["limit"]
    assert len(world.alerts()) == 1

    world.fail("TransactWriteItems", "AccessDeniedException", "the ledger says no")
    record = guard.invoke(registration(images[1]))
    assert world.alerts() == [record] and record["held_by"] == ["limit"]
    world.heal()
    guard.invoke(registration(images[2]))
    guard.invoke(scheduled())

    [digest] = world.alerts()
    assert [image["image_id"] for image in digest["images"]] == [images[2]]


@pytest.mark.parametrize("dealt_with", ["held by the limit", "refused by EC2"])
def test_a_state_change_of_an_image_that_was_dealt_with_tells_nothing_new(
    world: World, start, policy, dealt_with
):
    guard = limited(start, policy, 1)
    images = [world.image(expect="Windows") for _ in range(3)]
    if dealt_with == "refused by EC2":
        world.fail("DeregisterImage", "InvalidRequest", "This image stays.")
        images = images[:1]
    for ami in images:
        guard.invoke(registration(ami))
    world.alerts()

    for ami in images:
        record = guard.invoke(registration(ami, STATE_CHANGE, age=OLD))
        assert record["verdict"] == "gone" or record["held_by"] == ["identity-unknown"]

    assert world.alerts() == []
    guard.invoke(scheduled())
    told = [image["image_id"] for digest in world.alerts() for image in digest["images"]]
    assert told == images[2:]


def deliver(guards: list[Emulator], events: list[Any]) -> list[Any]:
    """Gives events to all guards at once, in batches as the queue makes them, and says which come back.

    The batches are small: moto answers one call after the other, in some milliseconds, and where hundreds
    wait for it the guard's patience with the table, two seconds, runs out.
    """
    batches = [events[at : at + 2] for at in range(0, len(events), 2)]

    def work(guard: Emulator) -> list[Any]:
        back = []
        while batches:
            try:
                some = batches.pop()
            except IndexError:
                break
            answer = guard.invoke(batch(some))
            failed = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
            back += [event for number, event in enumerate(some, 1) if f"message-{number}" in failed]
        return back

    with ThreadPoolExecutor(len(guards)) as pool:
        return [event for back in pool.map(work, guards) for event in back]


def six_minutes_pass(world: World) -> None:
    """What a queue waits before it brings an event again: turns that were cut off are over by then."""
    for id, item in world.ledger().items():
        if item.get("turn_until_ms"):
            world.set_entry(id.removeprefix(f"{PLACE}#"), "turn_until_ms", 0)


def test_of_two_hundred_at_once_exactly_ten_are_discarded_and_none_is_lost(world: World, start, policy):
    # What the images come from is not looked at: it takes moto longer than all the rest.
    rule = policy('version = 1\n[evidence]\nlineage = "never"\n')
    guards = [start(GUARD_LEDGER_TABLE=LEDGER, GUARD_POLICY_PATH=rule) for _ in range(16)]
    volume = world.volume()
    images = [world.register(world.snapshot_of(volume), expect="Windows") for _ in range(200)]

    # The queue brings an event seven times, and then puts it aside.
    waiting = deliver(guards, [registration(ami) for ami in images])
    for _ in range(6):
        if waiting:
            six_minutes_pass(world)
            waiting = deliver(guards, waiting)

    assert waiting == []
    gone = set(done(world))
    assert len(done(world)) == len(gone) == 10
    standing = {image["ImageId"] for image in world.ec2.describe_images(Owners=["self"])["Images"]}
    assert standing == set(images) - gone
    items = world.ledger()
    assert items[hour()]["begun"] == 10
    for ami in images:
        entry = items[f"{PLACE}#{ami}"]
        record = json.loads(entry["record"])
        assert (record["outcome"], record["held_by"]) == (("done", []) if ami in gone else (None, ["limit"]))
        assert entry["turn_until_ms"] == 0
        assert ("completed" in entry) is ("attempted_at_ms" in entry) is (ami in gone)
    tagged = [call["params"]["ResourceId.1"] for call in world.calls() if call["action"] == "CreateTags"]
    assert len(tagged) == 10 and set(tagged) == gone

    alerts = world.alerts()
    planned = [alert["image_id"] for alert in alerts if alert["outcome"] == "planned"]
    assert len(planned) == 10 and set(planned) == gone
    told = {alert["image_id"] for alert in alerts}
    assert items[hour("alerts")]["first_over"] in told - gone
    for _ in range(2):
        guards[0].invoke(scheduled())
    digests = world.alerts()
    in_digests = [image["image_id"] for digest in digests for image in digest["images"]]
    assert len(in_digests) == len(set(in_digests)), "a digest does not say it again"
    assert told | set(in_digests) == set(images), "each is told of"
    # Very few of them at once, even if the table should have been too slow for some.
    assert len(told) < 20 and len(digests) == 4
    # One after the other takes seconds.
    with ThreadPoolExecutor(len(guards)) as pool:
        list(pool.map(Emulator.stop, guards))
