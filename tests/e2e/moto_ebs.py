"""The EBS direct APIs of moto with what they lack for the guard; `moto_ext` serves them.

What is added:

- every snapshot of EC2 can be listed, not only those that StartSnapshot began: one of a volume is empty. One
  that nobody knows, that is not completed, or that is public or another account's, is refused;
- blocks are of 512 KiB. moto says 512 bytes;
- they are listed in their order, in pages, from any block on;
- a block is given out for its own token alone, and with the token that its listing gave;
- a snapshot that StartSnapshot begins is of no volume, and pending until it is completed.

Where moto still falls short of EBS: tokens do not expire, and checksums are not checked; a copy of a snapshot,
and a snapshot of a volume that was made from one, are empty. What is encrypted is read without a key.
"""

from __future__ import annotations

import copy
import re
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult
from moto.ebs.models import EBSBackend, EBSSnapshot
from moto.ebs.responses import EBSResponse
from moto.ec2.models.elastic_block_store import Snapshot

BLOCK_BYTES = 512 * 1024

# "The minimum MaxResult parameter value you can use is 100" (user guide, "Frequently asked questions for EBS
# direct APIs"); here it also is what a page has if the request does not say.
SMALLEST_PAGE, LARGEST_PAGE = 100, 10_000

# What EC2 writes where it knows of no volume: the snapshot was copied or imported.
NO_VOLUME = "vol-ffffffff"


class Refused(ServiceException):
    """A refusal, with its reason."""

    def __init__(self, code: str, reason: str, message: str) -> None:
        super().__init__(code, message)
        self.reason = reason


def invalid(reason: str, message: str) -> Refused:
    """A refusal of the request as such."""
    return Refused("ValidationException", reason, message)


def token(kind: str, snapshot: str, index: int) -> str:
    """What a block is fetched with, or a page."""
    return b64encode(f"{kind} {index} of {snapshot}".encode()).decode()


def readable(self: EBSResponse) -> tuple[Snapshot, dict[int, Any]]:
    """The snapshot that a request is about, as EC2 has it, and its blocks."""
    id = self._get_param("SnapshotId")
    if not re.fullmatch("snap-[0-9a-f]{1,59}", id):
        raise invalid("INVALID_SNAPSHOT_ID", f"The snapshot ID '{id}' is not valid.")
    snapshot = self.ebs_backend.ec2_backend.snapshots.get(id)
    if snapshot is not None:
        account = self.current_account
        usable = account in {snapshot.owner_id, *snapshot.create_volume_permission_userids}
        if not usable or "all" in snapshot.create_volume_permission_groups:
            message = f"The account is not authorized to read the snapshot '{id}'."
            raise Refused("AccessDeniedException", "UNAUTHORIZED_ACCOUNT", message)
    if snapshot is None or snapshot.status != "completed":
        message = f"The snapshot '{id}' does not exist."
        raise Refused("ResourceNotFoundException", "SNAPSHOT_NOT_FOUND", message)
    written = self.ebs_backend.snapshots.get(id)
    return snapshot, written.blocks if written else {}


def list_snapshot_blocks(self: EBSResponse) -> ActionResult:
    """ListSnapshotBlocks: of any snapshot, page by page."""
    most = self._get_param("MaxResults") or 0
    if most > LARGEST_PAGE:
        message = f"MaxResults must not be greater than {LARGEST_PAGE}."
        raise invalid("INVALID_PARAMETER_VALUE", message)
    snapshot, blocks = readable(self)
    first = self._get_param("StartingBlockIndex") or 0
    next_token = self._get_param("NextToken")
    if next_token is not None:
        # "If you specify NextToken, then StartingBlockIndex is ignored."
        pages = {token("page", snapshot.id, index): index for index in blocks}
        if next_token not in pages:
            raise invalid("INVALID_PAGE_TOKEN", "The page token is not valid.")
        first = pages[next_token]
    indexes = sorted(index for index in blocks if index >= first)
    size = max(most, SMALLEST_PAGE)
    page = {
        "Blocks": [
            {"BlockIndex": index, "BlockToken": token("block", snapshot.id, index)} for index in indexes[:size]
        ],
        "ExpiryTime": datetime.now(UTC) + timedelta(days=7),
        "VolumeSize": snapshot.volume_size,
        "BlockSize": BLOCK_BYTES,
    }
    if indexes[size:]:
        page["NextToken"] = token("page", snapshot.id, indexes[size])
    return ActionResult(page)


without_token = EBSResponse.get_snapshot_block


def get_snapshot_block(self: EBSResponse) -> ActionResult:
    """GetSnapshotBlock: for its token alone. One that was never written has none."""
    snapshot, blocks = readable(self)
    index = self._get_param("BlockIndex")
    if index not in blocks or self._get_param("BlockToken") != token("block", snapshot.id, index):
        raise invalid("INVALID_BLOCK_TOKEN", "The block token is not valid.")
    return without_token(self)


of_a_volume = EBSBackend.start_snapshot


def start_snapshot(self: EBSBackend, *arguments: Any, **named: Any) -> EBSSnapshot:
    """StartSnapshot: of no volume, and pending."""
    begun = of_a_volume(self, *arguments, **named)
    begun.block_size = BLOCK_BYTES
    snapshot = self.ec2_backend.snapshots[begun.snapshot_id]
    snapshot.status = "pending"
    del self.ec2_backend.volumes[snapshot.volume.id]
    snapshot.volume = copy.copy(snapshot.volume)
    snapshot.volume.id = NO_VOLUME
    return begun


as_ebs_has_it = EBSBackend.complete_snapshot


def complete_snapshot(self: EBSBackend, snapshot_id: str) -> str:
    """CompleteSnapshot: for EC2, too."""
    self.ec2_backend.snapshots[snapshot_id].status = "completed"
    return as_ebs_has_it(self, snapshot_id)


EBSResponse.list_snapshot_blocks = list_snapshot_blocks
EBSResponse.get_snapshot_block = get_snapshot_block
EBSBackend.start_snapshot = start_snapshot
EBSBackend.complete_snapshot = complete_snapshot
