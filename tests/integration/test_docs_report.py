"""The reference of the report and of what an action needs, against what real runs print and refuse."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.any_user

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"


def documented_keys() -> set[str]:
    """Return every key of the report page's table, as a path: `denials[].count`."""
    keys = set()
    for line in (REFERENCE / "report.md").read_text().splitlines():
        parent = ""
        for key in re.findall(r"`([^`]+)`", line.split(" | ")[0]) if line.startswith("| `") else ():
            parent = key.rpartition(".")[0] if "." in key[1:] else parent
            keys.add(f"{parent}{key}" if key.startswith(".") else key)
    return keys


def printed_keys(value: object, prefix: str = "") -> Iterator[str]:
    """Yield the keys of a document in the same form; leaves, and also lists and objects that may be null or empty."""
    if isinstance(value, dict):
        if prefix in ("limit",):
            yield prefix
        for name, inner in value.items():
            yield from printed_keys(inner, f"{prefix}.{name}" if prefix else name)
    elif isinstance(value, list):
        yield prefix
        for inner in value:
            if isinstance(inner, dict):
                yield from printed_keys(inner, f"{prefix}[]")
    else:
        yield prefix


def test_the_page_has_every_key_and_no_other(run) -> None:
    """What `--json` and `--report` hold of refusals, a limit and bytes that are no text is documented, all of it."""
    run.file("out/x", "x")
    first = run.tool("--json", guest=("cat", "out/x", ",", "print", r"\xff", ",", "print-err", r"\xff"))
    limit = run.tool("--json", "--timeout", "200ms", guest=("spin",))
    stored = run.tool("--json", "--write", "out", guest=("write", "out/y", "x"))
    keys = {key for result in (first, limit, stored) for key in printed_keys(result.document())}
    assert keys == documented_keys()
    plain = run.tool("--json", guest=("exit", "0")).document()
    optional = {"stdout_base64", "stderr_base64"}
    assert {key for key in documented_keys() if not re.search(r"[.\[]", key)} - optional == {
        key for key in plain if key not in ("cpu", "decisions")
    }


CALLS = (
    # What is granted on `t`, the row of the page, the call, and for want of what it is refused.
    ("", "opens a file to read", ("cat", "t/a"), "read"),
    ("", "opens to write, creates, empties", ("write", "t/b", "x"), "write"),
    ("", "opens to write, creates, empties", ("creat", "t/new"), "write"),
    ("", "lists a directory", ("ls", "t/sub"), "list"),
    ("", "looks at a file's size, times, kind", ("stat", "t/c"), "read"),
    ("--write", "opens to read and write", ("open", "t/a", "rw"), "read"),
    ("--write", "looks at a file's size, times, kind", ("stat", "t/b"), ""),
    ("--read", "opens to read and write", ("open", "t/a", "rw"), "write"),
    ("--list", "makes a directory", ("mkdir", "t/new1"), "write"),
    ("--list", "removes a directory", ("rmdir", "t/sub"), "write"),
    ("--list", "removes a file", ("unlink", "t/a"), "write"),
    ("--list", "renames", ("rename", "t/b", "t/new2"), "write"),
    ("--list", "makes a hard link", ("link", "t/c", "t/new3"), "write"),
    ("--list", "makes a symbolic link", ("symlink", "c", "t/new4"), "write"),
    ("--list", "sets times", ("utimes", "t/other", "1"), "write"),
    ("--list", "reads a symbolic link", ("readlink", "t/link"), ""),
)


@pytest.mark.parametrize("flag", ["", "--read", "--write", "--list"])
def test_what_a_call_needs_is_on_the_page(run, flag: str) -> None:
    """Each call is refused for want of exactly the action that its row names, or works with any of them."""
    page = (REFERENCE / "actions.md").read_text()
    for name in "abc":
        run.file(f"t/{name}", "x")
    for name in ("sub", "other"):
        run.folder(f"t/{name}")
    (run.directory / "t/link").symlink_to("a")
    calls = [(row, call, needs) for granted, row, call, needs in CALLS if granted == flag]
    guest = tuple(word for _, call, _ in calls for word in (*call, ","))[:-1]
    document = run.tool("--json", *((flag, "t") if flag else ()), guest=guest).document()
    refused = {(denial["resource"], denial["action"]) for denial in document["denials"]}
    for row, call, needs in calls:
        line = next(line for line in page.splitlines() if line.startswith(f"| {row} |"))
        assert (f"`filesystem.{needs}`" in line if needs else line.endswith("| any |")) or line.endswith("| any |")
        mine = {action for resource, action in refused if resource.removeprefix(f"{run.directory}/") in call}
        assert mine == ({f"filesystem.{needs}"} if needs else set()), (call, document["denials"])
