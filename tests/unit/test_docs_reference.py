"""The reference pages say what the code does: tables are compared with the code's own."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from ipc.policy.capability import ACTIONS
from ipc.warden.dispatch import ANSWERERS
from supervisor.cli import main
from supervisor.config.settings_files import default_directories
from supervisor.run import verdict

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
CODE = [*sorted((ROOT / "supervisor").rglob("*.py")), *sorted((ROOT / "ipc").rglob("*.py"))]


def table(page: str, heading: str) -> list[list[str]]:
    """Return the cells of the rows of the first table after a heading of a page."""
    text = f"\n{(REFERENCE / page).read_text()}".split(f"\n{heading}\n", 1)[1]
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|---"))
    rows = []
    for line in lines[start + 1 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows


def quoted(cell: str) -> list[str]:
    """Return what stands between backticks."""
    return re.findall(r"`([^`]+)`", cell)


def test_every_action_is_on_the_page() -> None:
    """Each action of the policy has a row, and no row names another."""
    rows = table("actions.md", "# Actions")
    named = [action for row in rows for action in quoted(row[0])]
    assert sorted(named) == sorted([*ACTIONS, "custom.NAME.ACTION"])


def test_every_answered_system_call_is_on_the_page_once() -> None:
    """The calls of the table are those that the warden answers; those that one function answers stand together."""
    rows = [quoted(row[0]) for row in table("actions.md", "## System calls")]
    assert sorted(call for row in rows for call in row) == sorted(ANSWERERS)
    row_of = {call: number for number, row in enumerate(rows) for call in row}
    by_answerer: dict[str, set[int]] = {}
    for call, answerer in ANSWERERS.items():
        by_answerer.setdefault(answerer.__name__, set()).add(row_of[call])
    assert {name: places for name, places in by_answerer.items() if len(places) > 1} == {}


def test_the_exit_codes_are_those_of_the_command_line() -> None:
    """Every EX_ constant is on the page, with its name where sysexits.h(3) has one."""
    rows = {int(row[0]): row[1] for row in table("exit-codes.md", "## Of every command")}
    codes = {name: value for name, value in vars(main).items() if name.startswith("EX_")}
    assert set(codes.values()) | {0, 130, 141} == set(rows)
    for name, value in codes.items():
        assert name == "EX_LIMIT" or quoted(rows[value]) == [name]


def test_the_outcomes_are_those_of_the_verdict() -> None:
    """Each first argument of a Verdict is a row, and each row is one; the exit codes that are constants are in it."""
    made: dict[str, set[int]] = {}
    for node in ast.walk(ast.parse((ROOT / "supervisor" / "run" / "verdict.py").read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Verdict":
            outcome, code = node.args[:2]
            assert isinstance(outcome, ast.Constant)
            codes = made.setdefault(str(outcome.value), set())
            if isinstance(code, ast.Name):
                codes.add(getattr(verdict, code.id))
    rows = {quoted(row[0])[0]: row[1] for row in table("exit-codes.md", "## Of `airssys run`")}
    assert set(rows) == set(made)
    for outcome, codes in made.items():
        assert codes <= {int(number) for number in re.findall(r"\d+", rows[outcome])}, outcome


def test_the_environment_variables_are_those_that_are_read() -> None:
    """What the code asks of the environment is on the page, and nothing else of ours."""
    text = "\n".join(path.read_text() for path in CODE)
    asked = set(re.findall(r"environ(?:ment)?(?:\.get\(|\[)\"([A-Z_]+)\"", text))
    asked |= set(re.findall(r"_xdg\(environment, \"([A-Z_]+)\"", text)) | {"AIRSSYS_CONFIG"}
    named = {name for row in table("environment.md", "# Environment variables") for name in quoted(row[0])}
    assert named == asked


@pytest.mark.parametrize(("column", "uid"), [(1, 0), (2, 1000)], ids=["root", "user"])
def test_the_directories_are_the_defaults(column: int, uid: int) -> None:
    """State, log, data and run are where the page says, for root and for a user with every XDG variable set."""
    names = ("XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR")
    directories = default_directories({name: f"/${name}" for name in names}, uid)
    cells = {row[0].split()[0]: quoted(row[column]) for row in table("files.md", "# Files and directories")}
    rows = {name: places[0] for name, places in cells.items() if places}
    expected = {
        "state": directories.state,
        "audit": f"{directories.log}/audit",
        "data": directories.data,
        "run": directories.run,
    }
    assert {name: rows[name] for name in expected} == {name: path.replace("/$", "$") for name, path in expected.items()}


def test_every_invariant_says_what_would_break_it() -> None:
    """The threat model has a row for each invariant of the architecture, in the same words."""

    def first_cells(page: str, header: str) -> set[str]:
        lines = (ROOT / "docs" / page).read_text().splitlines()
        start = next(number for number, line in enumerate(lines) if line.startswith(header))
        return {line.split(" | ")[0] for line in lines[start + 2 :][: lines[start:].index("") - 2]}

    invariants = first_cells("ARCHITECTURE.md", "| invariant |")
    assert invariants == first_cells("explanation/threat-model.md", "| invariant ([the tests]")
    assert len(invariants) > 10
