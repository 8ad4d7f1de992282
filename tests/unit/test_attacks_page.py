"""The page of attacks: every test that it names is there, and nothing of what it promises is missing."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/explanation/attacks.md"
ROWS_LEAST = 40
MESSAGES_LEAST = 30
_NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)(?:\[([^`]+)\])?`")


def rows() -> list[list[str]]:
    """Return the cells of every row: attack, layers, test, control."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return [
        cells for line in lines if (cells := [cell.strip() for cell in line.strip("|").split(" | ")])[0] != "attack"
    ]


@cache
def names_in(path: str) -> frozenset[str]:
    """Return the names of the tests of one file."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_there_are_as_many_attacks_as_promised() -> None:
    """At least forty, each with its layers, its test and its control, and none twice."""
    assert len(rows()) >= ROWS_LEAST
    assert all(len(cells) == 4 and all(cells) for cells in rows())
    assert len({cells[0] for cells in rows()}) == len(rows())


def test_there_are_as_many_attacks_on_messages_as_promised() -> None:
    """At least thirty in the sections of their own, most of them from inside a worker that was broken into."""
    sections = PAGE.read_text(encoding="utf-8").split("\n## ")
    counts = {
        section.partition("\n")[0]: section.count("\n| ") - 1
        for section in sections
        if section.startswith("Messages: ")
    }
    assert sum(counts.values()) >= MESSAGES_LEAST
    assert counts["Messages: from inside a worker that was broken into"] >= MESSAGES_LEAST


@pytest.mark.parametrize("cells", rows(), ids=lambda cells: str(cells[0])[:40])
def test_the_test_of_each_attack_is_there(cells: list[str]) -> None:
    """The test column names one test, a control perhaps another; a parameter is one that the file has."""
    named = _NAMED.findall(cells[2])
    assert len(named) == 1, cells[2]
    for path, name, parameter in named + _NAMED.findall(cells[3]):
        assert name in names_in(path)
        assert not parameter or f'"{parameter}"' in (ROOT / path).read_text(encoding="utf-8")


def test_no_attack_of_the_containment_suite_is_missing_from_it() -> None:
    """Each file of tests/containment is named, so that a new one isn't forgotten here."""
    text = PAGE.read_text(encoding="utf-8")
    files = {path.name for path in (ROOT / "tests/containment").glob("test_*.py")} - {"test_probe.py"}
    assert {name for name in files if name not in text} == set()
