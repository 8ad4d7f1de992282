"""The one path by which a worker asks the kernel itself about its descriptors: nobody can make it another path."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import Steps, World

PAGE = 4096
READ_WRITE = 3
PRIVATE_FIXED = 0x32
AT_EMPTY_PATH = 0x1000
BASIC = 0x7FF
DONT_NEED = 4


def test_a_worker_asks_about_its_descriptors_by_itself(sealed: World) -> None:
    """By the sealed address statx(2) is answered by the kernel; the same text at another address asks the warden."""
    ran = sealed.probe(
        [
            ("own", "statx", 1, "e:path", AT_EMPTY_PATH, BASIC, "b:256"),
            ("other", "statx", 1, "s:", AT_EMPTY_PATH, BASIC, "b:256"),
            ("closed", "statx", 99, "e:path", AT_EMPTY_PATH, BASIC, "b:256"),
        ]
    )
    assert ran.results == {"own": 0, "other": 0, "closed": -errno.EBADF}


def test_the_empty_path_stays_empty(sealed: World) -> None:
    """Its page can't be made writable, replaced, moved or given back, and is empty after each try; others can be."""
    ways: Steps = [
        ("protect", "mprotect", "e:page", PAGE, READ_WRITE),
        ("replace", "mmap", "e:page", PAGE, READ_WRITE, PRIVATE_FIXED, -1, 0),
        ("around", "mprotect", "e:page", 2 * PAGE, READ_WRITE),
        ("give_back", "munmap", "e:page", PAGE),
        ("move", "mremap", "e:page", PAGE, 2 * PAGE, 1),
    ]
    ask: Steps = [
        ("forget", "madvise", "e:page", PAGE, DONT_NEED),
        ("still_empty", "statx", 1, "e:path", AT_EMPTY_PATH, BASIC, "b:256"),
    ]
    ran = sealed.probe([*ways, *ask, ("another", "mprotect", "e:next", PAGE, READ_WRITE)])
    refused = {-errno.EPERM, -errno.ENOMEM}  # ENOMEM: a move that would grow beyond what is mapped there
    assert {label: ran.results[label] in refused for label, *_ in ways} == {label: True for label, *_ in ways}
    assert ran.results["protect"] == ran.results["replace"] == ran.results["give_back"] == -errno.EPERM
    assert ran.results["still_empty"] == 0
    assert ran.results["another"] == 0


def test_a_name_is_still_the_wardens(sealed: World, tree: Path) -> None:
    """A look at a name with AT_EMPTY_PATH is decided like any other: nothing about a file that wasn't granted."""
    steps: Steps = [("look", "statx", -100, f"s:{tree}/secret/key", AT_EMPTY_PATH, BASIC, "b:256")]
    ran = sealed.probe(steps)
    assert ran.results["look"] == -errno.EACCES
    assert [r["resource"] for r in ran.records if r["decision"] == "denied"] == [f"{tree}/secret/key"]
    granted = sealed.probe(steps, "--read", tree)
    assert granted.results["look"] == 0
