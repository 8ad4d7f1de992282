"""What an honest program does through the warden works as it does natively, within its grants."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import Stage


def test_reads_what_is_granted_and_nothing_else(stage: Stage, tree: Path) -> None:
    """A read grant opens its files for reading; a file beside it is refused, and the refusal is on record."""
    actor = stage.actor(("read", f"{tree}/in/**"))
    assert actor.read(tree / "in/a.txt") == "alpha"
    assert actor.read(tree / "secret/key") == "EACCES"
    assert actor.open(tree / "in/a.txt", os.O_RDWR) == "EACCES"
    assert stage.denied(tree / "secret/key") == [("filesystem.read", "A1203")]
