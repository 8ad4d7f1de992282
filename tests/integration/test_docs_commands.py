"""The commands of the tutorial and the how-to guides are run as they stand, and print what the page says.

A block to be tried has a mark in front, which readers don't see: `<!-- run -->`, or `<!-- run: exits 1 0 -->` with the
exit code of each command; `<!-- run: tools, else COMMAND -->` needs compilers, and COMMAND stands for it without them
(a page without that ends there). `<!-- file: NAME -->` makes a file; `<!-- setup: COMMAND -->` is run unseen.

Numbers, hashes, the directory and the widths of columns are not compared; `…` stands for more text in a line, and for
more lines in a block.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipc.struct import Struct

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    p for d in ("tutorial", "how-to") for p in (ROOT / "docs" / d).glob("*.md") if "<!-- run" in p.read_text()
)
HOME = "/home/me"
_MARK = re.compile(r"<!-- (run|file|setup)(?:: (.*))? -->")
_STARTS_BESIDE = ("airssys: compiling", "airssys: zygote", "== Installing")
"""What is only printed the first time: progress of compiling, and of installing compilers."""


class Step(Struct, frozen=True):
    """One command with what it prints and ends with, or a file that is made."""

    command: str = ""
    printed: tuple[str, ...] = ()
    exit_code: int = 0
    file: str = ""
    text: str = ""


def steps_of(page: str, tools: bool) -> Iterator[Step]:
    """Yield the steps of a page; without tools up to the first that can't do without."""
    lines = iter(page.splitlines())
    for line in lines:
        mark = _MARK.fullmatch(line)
        if mark is None:
            continue
        kind, rest = mark[1], mark[2] or ""
        if kind == "setup":
            yield Step(rest, ("…",))
            continue
        block = _block(lines)
        if kind == "file":
            yield Step(file=rest, text="".join(f"{each}\n" for each in block))
        elif rest.startswith("tools") and not tools:
            instead = rest.partition(", else ")[2]
            if not instead:
                return
            yield Step(instead, ("…",))
        else:
            yield from _commands(block, rest)


def _block(lines: Iterator[str]) -> list[str]:
    opening = next(lines)
    assert opening.startswith("```"), f"a mark stands before {opening!r} and not before a block"
    block = []
    for line in lines:
        if line == "```":
            return block
        block.append(line)
    raise AssertionError("a block without an end")


def _commands(block: list[str], rest: str) -> list[Step]:
    starts = [number for number, line in enumerate(block) if line.startswith("$ ")]
    assert starts[0] == 0, f"a block of commands begins with output: {block[0]}"
    codes = (
        [int(code) for code in rest.removeprefix("exits ").split()] if rest.startswith("exits") else [0] * len(starts)
    )
    assert len(codes) == len(starts), f"{len(starts)} commands, {len(codes)} exit codes: {block[0]}"
    ends = [*starts[1:], len(block)]
    return [
        Step(block[start][2:], tuple(block[start + 1 : end]), code)
        for start, end, code in zip(starts, ends, codes, strict=True)
    ]


def plain(line: str, directory: str) -> str:
    """Return a printed line without what is different each time."""
    line = re.sub(r"\b[0-9a-f]{64}\b", "HASH", line.replace(directory, HOME))
    return re.sub(r" {2,}", "  ", re.sub(r"\d+(\.\d+)?", "N", line)).rstrip()


def compare(step: Step, printed: str, directory: str) -> str:
    """Return what is wrong with what a command printed; the order of stdout and stderr is not compared."""
    found = Counter(plain(line, directory) for line in printed.splitlines())
    for line in step.printed:
        if line.strip() == "…":
            continue
        expected = plain(line, directory)
        pattern = re.compile(".*".join(re.escape(part) for part in expected.split("…")))
        fitting = next((each for each in found if pattern.fullmatch(each)), None)
        if fitting is None:
            return f"the page says {line!r}; printed was:\n{printed}"
        found -= Counter([fitting])
    more = [line for line in found.elements() if line and not line.startswith(_STARTS_BESIDE)]
    if more and not any(line.strip() == "…" for line in step.printed):
        return f"printed, and not on the page: {more[0]!r}"
    return ""


_PRELUDE = """
mkdir() { (umask 0; command mkdir "$@"); }
cd "$HOME" || exit 70
"""
"""As root a component's files are touched as nobody, who is to be able to write in the directories of a page."""


def follow(page: str, home: Path, tools: bool) -> list[str]:
    """Do what a page says in one shell; return what came out otherwise."""
    home.chmod(0o755)
    steps = list(steps_of(page, tools))
    script = _PRELUDE
    for number, step in enumerate(steps):
        if step.file:
            (home / f"text-{number}").write_text(step.text)
            script += f'cp "$HOME/text-{number}" {step.file}\n'
        else:
            script += f'{{ {step.command}\n}} >"$HOME/out-{number}" 2>&1; echo $? >"$HOME/code-{number}"\n'
    environment = {
        "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
        "HOME": str(home),
        "ROOT": str(ROOT),
        "LC_ALL": "C.UTF-8",
        "AIRSSYS_STATE": str(home / "state"),
        "ZIG_GLOBAL_CACHE_DIR": str(ROOT / ".venv-guests" / "zig-cache"),
    }
    marks = {name: value for name, value in os.environ.items() if name == "AIRSSYS_TEST_SESSION"}
    shell = subprocess.Popen(
        ["bash", "-c", script],
        env=environment | marks,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        shell.wait(500 if tools else 100)
    except BaseException:
        os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
        raise
    problems = []
    for number, step in enumerate(steps):
        if step.file:
            continue
        code = (home / f"code-{number}").read_text().strip()
        printed = (home / f"out-{number}").read_text(errors="replace")
        if code != str(step.exit_code):
            problems.append(f"$ {step.command}\nended with {code}, the page says {step.exit_code}:\n{printed}")
        elif wrong := compare(step, printed, str(home)):
            problems.append(f"$ {step.command}\n{wrong}")
    return problems


def _marks(page: Path) -> list[pytest.MarkDecorator]:
    """As an ordinary user are followed those that are about running something, and all but ssh-keygen.

    That one runs for no user without an entry in /etc/passwd, which the ordinary user of the second pass lacks.
    Root has no vote in an approval.
    """
    text = page.read_text()
    if "$ airssys approvals approve" in text:
        return [pytest.mark.needs_user]
    about_running = page.stem.startswith(("run-", "first-", "components-"))
    return [] if about_running and "ssh-keygen" not in text else [pytest.mark.any_user]


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, id=page.stem, marks=_marks(page)) for page in PAGES],
)
@pytest.mark.usefixtures("compiled_before")
def test_the_commands_of_a_page_do_what_it_says(page: Path, short_dir: Path) -> None:
    """Every marked command ends and prints as the page says, with the committed programs in place of compilers."""
    assert follow(page.read_text(), short_dir, tools=False) == []


@pytest.mark.slow
@pytest.mark.toolchain
@pytest.mark.usefixtures("compiled_before")
@pytest.mark.parametrize("page", ["first-component", "components-that-talk"])
def test_the_tutorials_with_their_compilers(page: str, short_dir: Path) -> None:
    """With the pinned compilers a whole tutorial works, in each of its languages."""
    assert follow((ROOT / f"docs/tutorial/{page}.md").read_text(), short_dir, tools=True) == []


def test_a_page_that_says_something_else_is_found(short_dir: Path) -> None:
    """The test tests: a wrong line, a missing one and a wrong exit code are each found."""
    page = "<!-- run: exits 0 0 1 -->\n```console\n$ echo one\ntwo\n$ echo one; echo two\none\n$ true\n```\n"
    assert len(follow(page, short_dir, tools=False)) == 3
    right = "<!-- run: exits 1 0 -->\n```console\n$ false\n$ echo at $HOME/x 17; echo more\nat /home/me/x 4\n…\n```\n"
    assert follow(right, short_dir, tools=False) == []


@pytest.mark.parametrize(
    ("page", "example", "names"),
    [
        ("first-component", "first-component/", ["tally.c", "Component.toml", "tally.js", "tally.wit"]),
        (
            "components-that-talk",
            "",
            [
                *("echo/echo.c", "echo/Component.toml", "counter/counter.py", "counter/Component.toml"),
                *("requester/requester.js", "requester/Component.toml"),
            ],
        ),
    ],
    ids=["first-component", "components-that-talk"],
)
def test_the_tutorials_files_are_the_ones_of_the_examples(page: str, example: str, names: list[str]) -> None:
    """What a tutorial shows is what the examples hold."""
    shown = (ROOT / f"docs/tutorial/{page}.md").read_text()
    texts = {step.file: step.text for step in steps_of(shown, tools=True) if step.file}
    assert texts == {name: (ROOT / "examples" / f"{example}{name}").read_text() for name in names}
