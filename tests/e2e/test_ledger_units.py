"""The ledger's own tests, written in Rust against `sim` and the memory, once more with the table on moto:
conditional writes and transactions then are those of a DynamoDB that the project did not write.
"""

import os
import subprocess
from pathlib import Path

import pytest

from e2e.world import client

ROOT = Path(__file__).resolve().parents[2]


def executable():
    """The library's unit tests, as `cargo test` built them last."""
    built = (ROOT / "target/debug/deps").glob("ami_billing_guard-*")
    return max(
        (path for path in built if not path.suffix and os.access(path, os.X_OK)),
        key=lambda path: path.stat().st_mtime,
        default=None,
    )


def names():
    if executable() is None:
        return []
    listed = subprocess.run(
        [executable(), "--list", "ledger::tests"], capture_output=True, text=True, check=True
    ).stdout
    return [line.removesuffix(": test") for line in listed.splitlines() if line.endswith(": test")]


def test_the_ledgers_tests_are_there():
    assert len(names()) >= 10, "make rust-test builds them"


@pytest.mark.parametrize("name", names())
def test_a_table_of_motos_passes_the_ledgers_own_tests(world, name):
    dynamodb = client("dynamodb", world.moto.endpoint)
    # On a busy machine moto may take longer for many calls at once than the SDK waits: that says nothing of the ledger.
    for _ in range(10):
        world.moto.order("reset")
        dynamodb.create_table(
            TableName="ami-billing-guard",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        ran = subprocess.run(
            [executable(), "--exact", name],
            env={**os.environ, "LEDGER_TEST_ENDPOINT": world.moto.endpoint},
            capture_output=True,
            text=True,
        )
        if ran.returncode == 0 or 'message: "timed out"' not in ran.stdout + ran.stderr:
            break
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 passed" in ran.stdout
