"""The ledger's own tests, written in Rust against `sim` and the memory, once more with the table on moto:
conditional writes and transactions then are those of a DynamoDB that the project did not write.
"""

import os
import subprocess
from pathlib import Path

import pytest

from e2e.world import Moto, client

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


def run(name: str, moto: Moto) -> subprocess.CompletedProcess[str]:
    """Runs one of the tests with an empty table of moto's."""
    client("dynamodb", moto.endpoint).create_table(
        TableName="ami-billing-guard",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    return subprocess.run(
        [executable(), "--exact", name],
        env={**os.environ, "LEDGER_TEST_ENDPOINT": moto.endpoint},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("name", names())
def test_a_table_of_motos_passes_the_ledgers_own_tests(world, name):
    ran = run(name, world.moto)
    # On a busy machine moto may take longer for many calls at once than the SDK waits, which says nothing of the ledger.
    # A call that was given up may still take effect: the next run has a server of its own.
    for _ in range(10):
        if ran.returncode == 0 or 'message: "timed out"' not in ran.stdout + ran.stderr:
            break
        server = Moto()
        ran = run(name, server)
        server.stop()
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 passed" in ran.stdout
