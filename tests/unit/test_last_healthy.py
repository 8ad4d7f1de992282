"""What was healthy last, and what has failed since: what follows from it, and what a damaged file is worth."""

from __future__ import annotations

import json
import os
from pathlib import Path

from supervisor.fleet.last_healthy import FAILED_MAX, FailedVersion, LastHealthy, LastHealthyFiles

OLD, NEW, NEWER = "a" * 64, "b" * 64, "c" * 64


def _failed(package: str, reason: str = "it trapped") -> FailedVersion:
    return FailedVersion("1.1.0", package, reason, 7)


def test_what_was_healthy_is_started_in_the_place_of_what_failed() -> None:
    """Where it is installed still, and is another one."""
    known = LastHealthy().after_success("1.0.0", OLD).after_failure(_failed(NEW))
    assert known.failure(NEW) == _failed(NEW)
    assert known.failure(OLD) is None
    assert known.instead_of(NEW, (OLD, NEW)) == OLD
    assert known.instead_of(NEW, (NEW,)) == ""
    assert known.instead_of(OLD, (OLD, NEW)) == ""
    assert LastHealthy().instead_of(NEW, (NEW, "")) == ""


def test_a_success_forgets_what_failed_before_it() -> None:
    """Of the same version once more nothing is forgotten: its approval was superseded by theirs."""
    known = LastHealthy("1.0.0", OLD).after_failure(_failed(NEW)).after_failure(_failed(NEWER))
    assert known.after_success("1.0.0", OLD) == known
    assert known.failed_packages == {NEW, NEWER}
    assert known.after_success("1.1.0", NEW) == LastHealthy("1.1.0", NEW)


def test_failures_are_bounded_and_each_is_there_once() -> None:
    """The last ones stay; a reason is cut."""
    known = LastHealthy("1.0.0", OLD)
    for number in range(FAILED_MAX + 5):
        known = known.after_failure(_failed(f"{number:064x}"))
    assert len(known.failed) == FAILED_MAX
    assert known.failed[-1].package.endswith(f"{FAILED_MAX + 4:x}")
    again = known.after_failure(_failed(known.failed[0].package, "x" * 10_000))
    assert len(again.failed) == FAILED_MAX
    assert len(again.failed[-1].reason) == 1_000


def test_the_file_says_what_was_written(tmp_path: Path) -> None:
    """For one component; of others, and before, nothing is known."""
    files = LastHealthyFiles(str(tmp_path))
    assert files.read("one") == LastHealthy()
    files.note_success("one", "1.0.0", OLD)
    files.note_failure("one", _failed(NEW))
    assert files.read("one") == LastHealthy("1.0.0", OLD, (_failed(NEW),))
    assert files.read("other") == LastHealthy()
    assert os.stat(tmp_path / "versions/one.json").st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path / "versions") == ["one.json"]


def test_what_was_edited_by_hand_counts_for_nothing(tmp_path: Path) -> None:
    """Another version, another component's file, half a file, a link: none chooses what is started."""
    files = LastHealthyFiles(str(tmp_path))
    files.note_success("one", "1.0.0", OLD)
    path = tmp_path / "versions/one.json"
    whole = path.read_text()
    path.write_text(whole.replace(OLD, NEW))
    assert files.read("one") == LastHealthy()
    path.write_text(whole)
    assert files.read("one") == LastHealthy("1.0.0", OLD)
    (tmp_path / "versions/other.json").write_text(whole)
    assert files.read("other") == LastHealthy()
    path.write_text(whole[: len(whole) // 2])
    assert files.read("one") == LastHealthy()
    path.write_text(json.dumps([1]))
    assert files.read("one") == LastHealthy()
    path.unlink()
    path.symlink_to(tmp_path / "versions/other.json")
    assert files.read("one") == LastHealthy()
