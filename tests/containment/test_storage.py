"""The storage quota against native code in a sealed worker: whatever way a file grows or hides, it counts.

Each attack has its control: the same calls under a quota in which they fit come to their end.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipc.policy.storage import OBJECT_BYTES, largest_file_bytes
from ipc.warden.storage import WRITABLE_MAX

if TYPE_CHECKING:
    from conftest import Ran, Steps, World

AT = -100
QUOTA = 1_000_000
LARGE = 900_000
WRITE_NEW = os.O_WRONLY | os.O_CREAT
WAIT = (("queue", "epoll_create1", 0), ("wait", "epoll_wait", "r:queue", "b:16", 1, -1))
"""For ever: only a limit ends it."""
Step = tuple[str, str, *tuple[int | str, ...]]


def opens(label: str, path: Path, flags: int = WRITE_NEW) -> Step:
    """One opening by path."""
    return (label, "openat", AT, f"s:{path}", flags, 0o600)


def grows(label: str, way: str, length: int) -> Step:
    """One call that makes the file behind an earlier step's descriptor longer."""
    calls: dict[str, Step] = {
        "sparse": (f"grow-{label}", "ftruncate", f"r:{label}", length),
        "written": (f"grow-{label}", "write", f"r:{label}", f"m:data:{LARGE}", length),
        "at an offset": (f"grow-{label}", "pwrite64", f"r:{label}", "s:x", 1, length - 1),
    }
    return calls[way]


def run(world: World, steps: Steps, directory: Path, quota: int = QUOTA) -> Ran:
    """Make the steps in a sealed worker that may do anything in `directory`."""
    flags = [text for verb in ("read", "write", "list") for text in (f"--{verb}", directory)]
    return world.probe(steps, *flags, "--storage", f"{quota}B")


def assert_ended(ran: Ran, limit: int = QUOTA) -> None:
    """The run ended at its storage quota, and the log says so with the limit and what was used."""
    verdict = ran.report.verdict
    assert (verdict.outcome, verdict.exit_code, verdict.code) == ("limit", 75, "A2009"), verdict
    assert "wait" not in ran.results
    quotas = [quota_of(record) for record in ran.records if record["event"] == "worker_limit_reached"]
    assert [(quota["name"], quota["limit"]) for quota in quotas] == [("storage", limit)]
    usage = quotas[0]["usage"]
    assert isinstance(usage, int)
    assert usage > limit


def quota_of(record: Mapping[str, object]) -> Mapping[str, object]:
    """Return what a record says about a quota."""
    quota = record["quota"]
    assert isinstance(quota, dict)
    return quota


@pytest.mark.parametrize("way", ["sparse", "written", "at an offset"])
def test_files_that_grow_while_they_are_open_end_the_worker(sealed: World, tree: Path, way: str) -> None:
    """Two open files that each fit don't fit together, however they got their length; holes count."""
    both = [opens("a", tree / "out/a"), opens("b", tree / "out/b"), grows("a", way, LARGE), grows("b", way, LARGE)]
    ran = run(sealed, [*both, *WAIT], tree)
    assert_ended(ran)
    assert ran.results["grow-a"] >= 0
    assert run(sealed, both, tree, 3 * QUOTA).ending == ("exited", "")


def test_appending_counts(sealed: World, tree: Path) -> None:
    """What is appended to a file that was there before counts, what it had doesn't."""
    old = tree / "out/old.txt"
    old.write_bytes(bytes(3 * QUOTA // 4))
    steps = [
        opens("a", old, os.O_WRONLY | os.O_APPEND),
        ("more", "write", "r:a", f"m:data:{LARGE}", 200_000),
        opens("b", tree / "out/b", WRITE_NEW | os.O_APPEND),
        grows("b", "written", LARGE),
    ]
    ran = run(sealed, [*steps, *WAIT], tree)
    assert ran.results["more"] == 200_000
    assert_ended(ran)
    old.write_bytes(bytes(3 * QUOTA // 4))
    assert run(sealed, steps[:2], tree).report.storage.usage < QUOTA // 2


def test_one_file_never_gets_longer_than_the_quota(sealed: World, tree: Path) -> None:
    """Between measurements RLIMIT_FSIZE holds: a write beyond the whole quota fails there and then."""
    largest = largest_file_bytes(QUOTA)
    steps = [
        opens("a", tree / "out/a"),
        ("beyond", "ftruncate", "r:a", largest + 1),
        ("at-offset", "pwrite64", "r:a", "s:x", 1, largest),
        ("fits", "ftruncate", "r:a", largest),
    ]
    ran = run(sealed, steps, tree)
    assert [ran.results[label] for label in ("beyond", "at-offset", "fits")] == [-errno.EFBIG, -errno.EFBIG, 0]
    assert (tree / "out/a").stat().st_size == largest
    assert run(sealed, steps[:2], tree, 2 * QUOTA).results["beyond"] == 0


def test_an_unlinked_file_counts_while_it_is_open(sealed: World, tree: Path) -> None:
    """Files without a name are found by who holds them: they end the worker like any other."""
    steps = [
        step
        for name in "ab"
        for step in (
            opens(name, tree / f"out/{name}"),
            (f"unlink-{name}", "unlink", f"s:{tree}/out/{name}"),
            grows(name, "sparse", LARGE),
        )
    ]
    assert_ended(run(sealed, [*steps, *WAIT], tree))
    closed = [*steps[:3], ("close", "close", "r:a"), *steps[3:]]
    assert run(sealed, closed, tree).ending == ("exited", "")


@pytest.mark.parametrize("duplicate", [False, True])
def test_a_file_held_for_reading_only_counts_until_it_is_closed(sealed: World, tree: Path, duplicate: bool) -> None:
    """A descriptor for reading, or its duplicate, keeps an unlinked file's blocks: released with the last of them."""
    path = tree / "out/a"
    held = "copy" if duplicate else "held"
    steps = [
        opens("a", path),
        ("grow", "ftruncate", "r:a", largest_file_bytes(QUOTA)),
        ("close", "close", "r:a"),
        opens("held", path, os.O_RDONLY),
        ("copy", "fcntl", "r:held", 1030, 3),
        ("close-one", "close", "r:held" if duplicate else "r:copy"),
        ("unlink", "unlink", f"s:{path}"),
        opens("refused", tree / "out/b"),
        ("close-other", "close", f"r:{held}"),
        opens("allowed", tree / "out/b"),
    ]
    ran = run(sealed, steps, tree)
    assert ran.results["unlink"] == ran.results["close-one"] == 0
    assert ran.results["refused"] == -errno.EDQUOT
    assert ran.results["allowed"] > 0
    assert ran.denied(tree / "out/b") == {("filesystem.write", "A1501")}


def test_a_number_that_is_used_again_hides_no_duplicate(sealed: World, tree: Path) -> None:
    """That its first number went to another file doesn't make a file closed: it grows by its duplicate, and counts."""
    steps = [
        opens("a", tree / "out/a"),
        ("copy", "fcntl", "r:a", 1030, 3),
        ("close", "close", "r:a"),
        opens("b", tree / "out/b"),
        opens("c", tree / "in/a.txt", os.O_RDONLY),
        ("grow-a", "ftruncate", "r:copy", LARGE),
        grows("b", "sparse", LARGE),
    ]
    ran = run(sealed, [*steps, *WAIT], tree)
    assert_ended(ran)
    assert ran.results["b"] == ran.results["a"] != ran.results["copy"]
    assert run(sealed, steps, tree, 3 * QUOTA).ending == ("exited", "")


def test_a_mapping_holds_no_file(sealed: World, bare: World, tree: Path) -> None:
    """A mapping would keep an unlinked file's blocks without a descriptor; it can't be made once it is sealed."""
    steps = [opens("a", tree / "in/a.txt", os.O_RDONLY), ("map", "mmap", 0, 4096, 1, 2, "r:a", 0)]
    assert run(bare, steps, tree).results["map"] > 0
    assert run(sealed, steps, tree).results["map"] == -errno.ENODEV


def test_hard_links_neither_count_twice_nor_hide(sealed: World, tree: Path) -> None:
    """Further names cost a block each; the bytes count once, and for as long as there is any name."""
    names = [tree / f"out/{name}" for name in "abc"]
    made = [
        opens("a", names[0]),
        grows("a", "sparse", LARGE),
        ("close", "close", "r:a"),
        *[(f"link-{n}", "link", f"s:{names[0]}", f"s:{name}") for n, name in enumerate(names[1:])],
    ]
    ran = run(sealed, made, tree)
    assert ran.ending == ("exited", "")
    assert LARGE <= ran.report.storage.usage <= LARGE + 3 * OBJECT_BYTES
    for name in names:
        name.unlink()
    other = [opens("b", tree / "out/d"), grows("b", "sparse", LARGE)]
    fewer = [(f"unlink-{n}", "unlink", f"s:{name}") for n, name in enumerate(names)]
    assert_ended(run(sealed, [*made, *fewer[:2], *other, *WAIT], tree))
    for name in (names[2], tree / "out/d"):
        name.unlink()
    assert run(sealed, [*made, *fewer, *other], tree).ending == ("exited", "")


@pytest.mark.parametrize("kind", ["file", "directory", "symlink", "hard link"])
def test_the_quota_bounds_how_many_names_there_are(sealed: World, tree: Path, kind: str) -> None:
    """Empty files, directories and links take room too: each counts a block, so their number is bounded."""
    quota, asked = 20 * OBJECT_BYTES, 30
    (tree / "out/source").write_text("x")
    os.chown(tree / "out/source", *(tree.stat().st_uid, tree.stat().st_gid))

    def make(n: int) -> Step:
        path = f"s:{tree}/out/{n}"
        match kind:
            case "file":
                return (f"n{n}", "openat", AT, path, os.O_CREAT | os.O_RDONLY, 0o600)
            case "directory":
                return (f"n{n}", "mkdir", path, 0o700)
            case "symlink":
                return (f"n{n}", "symlink", "s:old.txt", path)
            case _:
                return (f"n{n}", "link", f"s:{tree}/out/source", path)

    ran = run(sealed, [make(n) for n in range(asked)], tree, quota)
    results = [ran.results[f"n{n}"] for n in range(asked)]
    assert all(result >= 0 for result in results[:20]), results
    assert results[20:] == [-errno.EDQUOT] * (asked - 20)
    assert {code for _, code in ran.denied()} == {"A1501"}


def test_what_is_removed_is_released(sealed: World, tree: Path) -> None:
    """A level, not a count of writes: unlinking, truncating and replacing make room again."""
    a, b = tree / "out/a", tree / "out/b"
    full = largest_file_bytes(QUOTA)
    steps: list[Step] = [
        opens("a", a),
        grows("a", "sparse", full),
        ("close-a", "close", "r:a"),
        opens("full", b),
        ("shrink", "truncate", f"s:{a}", 10),
        opens("larger", a, os.O_WRONLY),
        grows("larger", "sparse", full),
        ("close-larger", "close", "r:larger"),
        opens("full-again", b),
        opens("emptied", a, os.O_WRONLY | os.O_TRUNC),
        opens("b", b),
        grows("b", "sparse", full // 2),
        ("close-b", "close", "r:b"),
        ("replace", "rename", f"s:{b}", f"s:{a}"),
        ("unlink", "unlink", f"s:{a}"),
        opens("c", tree / "out/c"),
        grows("c", "sparse", full),
    ]
    ran = run(sealed, steps, tree)
    refused = {label for label, result in ran.results.items() if result == -errno.EDQUOT}
    assert refused == {"full", "full-again"}
    assert all(result >= 0 for label, result in ran.results.items() if label not in refused), ran.results
    assert ran.ending == ("exited", "")


def test_files_open_for_writing_are_bounded(sealed: World, tree: Path) -> None:
    """Each could grow between two measurements, so there are only so many; closing one makes room for another."""
    steps = [opens(f"f{n}", tree / f"out/{n}") for n in range(WRITABLE_MAX + 1)]
    ran = run(sealed, [*steps, ("close", "close", "r:f0"), opens("again", tree / f"out/{WRITABLE_MAX}")], tree)
    assert all(ran.results[f"f{n}"] > 0 for n in range(WRITABLE_MAX))
    assert ran.results[f"f{WRITABLE_MAX}"] == -errno.EMFILE
    assert ran.results["again"] > 0
    reading = [opens(f"f{n}", tree / "in/a.txt", os.O_RDONLY) for n in range(WRITABLE_MAX + 1)]
    assert all(result > 0 for result in run(sealed, reading, tree).results.values())


def test_nothing_is_stored_without_a_quota(sealed: World, tree: Path) -> None:
    """Zero means that nothing is allowed, neither a name nor a byte."""
    steps = [
        opens("new", tree / "out/new"),
        opens("old", tree / "out/old.txt", os.O_WRONLY),
        ("directory", "mkdir", f"s:{tree}/out/d", 0o700),
        ("remove", "unlink", f"s:{tree}/out/old.txt"),
    ]
    ran = run(sealed, steps, tree, 0)
    assert [ran.results[label] for label in ("new", "old", "directory")] == [-errno.EDQUOT] * 3
    assert ran.results["remove"] == 0


def test_each_crossing_is_told_once(sealed: World, tree: Path) -> None:
    """80 %, 95 % and the limit: an event each, with limit and usage, when it is crossed."""
    steps = [
        step
        for label, length in (("a", 810_000), ("b", 100_000), ("c", 60_000), ("d", 10_000))
        for step in (opens(label, tree / f"out/{label}"), grows(label, "sparse", length))
    ]
    ran = run(sealed, [*steps, opens("measured", tree / "out/e")], tree)
    told = [quota_of(record) for record in ran.records if record["event"] == "quota_crossed"]
    assert [quota["status"] for quota in told] == ["warning", "critical"]
    assert all(quota["limit"] == QUOTA for quota in told)
    assert ran.report.storage.status == "critical"
