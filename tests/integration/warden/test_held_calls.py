"""While a question is open its worker's other threads run on: what is due for them is done all the same."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipc.messages import Detach, Detached, Question, Reply, StorageBounds, StorageExceeded, StorageMeasured

if TYPE_CHECKING:
    from conftest import Stage

QUOTA = 1_000_000
WRITES_WHILE_ASKED = """
fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
def write():
    os.read(int(sys.argv[1]), 1)
    os.ftruncate(fd, size)
threading.Thread(target=write).start()
result = sys_call('openat', -100, asked, 0, 0)
"""


@pytest.mark.parametrize(("size", "exceeds"), [(2 * QUOTA, True), (QUOTA // 2, False)])
def test_a_quota_holds_while_a_question_is_open(stage: Stage, tree: Path, size: int, exceeds: bool) -> None:
    """What another thread writes is measured before anybody has answered; what fits is no reason to end it."""
    bounds = StorageBounds(QUOTA, (), 64)
    actor = stage.actor(("write", f"{tree}/out/"), ask=True, storage=bounds)
    values = {"path": str(tree / "out/new"), "asked": str(tree / "secret/key").encode(), "size": size}
    actor.start("".join(f"{name} = {value!r}\n" for name, value in values.items()) + WRITES_WHILE_ASKED)
    message, _ = stage.channel.receive((Question, StorageExceeded), 20)
    assert isinstance(message, Question)
    assert message.resource == str(tree / "secret/key")
    actor.channel.send(b"x")
    if exceeds:
        told, _ = stage.channel.receive((StorageExceeded,), 20)
        assert (told.limit_bytes, told.usage_bytes) == (QUOTA, 2 * QUOTA)
    else:
        until = time.monotonic() + 20
        while (tree / "out/new").stat().st_size != size:
            assert time.monotonic() < until
    # What was allowed before the question is on record, though nobody has answered yet.
    assert stage.events(event="file_access", resource=str(tree / "out/new"))
    stage.channel.send(Reply(actor.worker_id, last=True))
    stage.channel.send(Detach(actor.worker_id))
    message, _ = stage.channel.receive((Detached, StorageExceeded, StorageMeasured), 20)
    if isinstance(message, StorageMeasured):
        assert message.usage_bytes >= size
        message, _ = stage.channel.receive((Detached,), 20)
    assert isinstance(message, Detached)
    assert message.storage_bytes is not None
    assert message.storage_bytes >= size
