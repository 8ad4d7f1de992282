"""Results of calls aimed at pages that nothing may change: the warden writes only where the worker could."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Steps, World

AT, DIRECTORY, AT_EMPTY_PATH, BASIC = -100, 0o200000, 0x1000, 0x7FF
SHOWN = 16


def answered_into(tree: Path, address: str) -> Steps:
    """Ask everything that the warden or the kernel answers by writing, with the result at this address."""
    return [
        ("stat", "newfstatat", AT, f"s:{tree}/in/a.txt", address, 0),
        ("statx", "statx", AT, f"s:{tree}/in/a.txt", 0, BASIC, address),
        ("fstat", "fstat", 1, address),
        ("own_statx", "statx", 1, "e:path", AT_EMPTY_PATH, BASIC, address),
        ("statfs", "statfs", f"s:{tree}/in/a.txt", address),
        ("readlink", "readlinkat", AT, f"s:{tree}/in/link", address, 64),
        ("directory", "openat", AT, f"s:{tree}/in", DIRECTORY),
        ("list", "getdents64", "r:directory", address, 4096),
        ("file", "openat", AT, f"s:{tree}/in/a.txt", 0),
        ("read", "read", "r:file", address, 5),
    ]


@pytest.mark.parametrize("page", ["e:text", "e:page"], ids=["code", "sealed"])
def test_no_result_is_written_to_pages_that_are_not_writable(sealed: World, tree: Path, page: str) -> None:
    """Executable code and the sealed page of the empty path stay as they are; a buffer is filled by the same."""
    (tree / "in/link").symlink_to("a.txt")
    flags = ("--read", f"{tree}/in/")
    show = ("show", "write", 1, page, SHOWN)
    ran = sealed.probe([show, *answered_into(tree, page), ("again", *show[1:])], *flags)
    results = ran.results
    opened = {"directory", "file"}
    asked = [label for label, *_ in answered_into(tree, page) if label not in opened]
    assert {label: results[label] for label in asked} == dict.fromkeys(asked, -errno.EFAULT)
    before, after = ran.report.stdout[:SHOWN], ran.report.stdout.partition(b"again 16 0\n")[0][-SHOWN:]
    assert before == after
    assert len(before) == SHOWN
    twin = sealed.probe(answered_into(tree, "m:buffer:4096"), *flags).results
    assert {label for label, result in twin.items() if result < 0} == set()
