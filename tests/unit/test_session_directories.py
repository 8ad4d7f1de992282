"""Directories of one process: gone with it, and swept where it was killed, never while somebody holds them."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from supervisor.host.session_directories import SWEPT_AFTER_S, make, sweep


def test_a_directory_is_removed_with_all_that_is_in_it(tmp_path: Path) -> None:
    """It is private while it is there, and gone afterwards."""
    with contextlib.ExitStack() as stack:
        path = Path(make(str(tmp_path), "tmp-", stack))
        assert path.stat().st_mode & 0o777 == 0o700
        (path / "in").mkdir()
        (path / "in/file").write_text("x")
    assert list(tmp_path.iterdir()) == []


def test_only_what_nobody_holds_and_is_old_is_swept(tmp_path: Path) -> None:
    """One that is held stays, and one that was made a moment ago, and what has another name; an abandoned one goes."""
    with contextlib.ExitStack() as stack:
        held = Path(make(str(tmp_path), "tmp-", stack))
        abandoned = tmp_path / "tmp-0123"
        abandoned.mkdir()
        (abandoned / "left").write_text("x")
        other = tmp_path / "log-summary"
        other.mkdir()
        link = tmp_path / "tmp-link"
        link.symlink_to(other)
        sweep(str(tmp_path), "tmp-", time.time())
        assert abandoned.exists()
        sweep(str(tmp_path), "tmp-", time.time() + 2 * SWEPT_AFTER_S)
        assert not abandoned.exists()
        assert held.exists()
        assert other.exists()
        assert os.path.lexists(link)
