"""`airssys run --ask`: a call that no grant covers waits for a person's answer, on a real terminal of its own."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from ipc.struct import Struct
from supervisor.run.questions import UNREAD_NS

GUESTS = Path(__file__).resolve().parents[1] / "guests"
TOOL = GUESTS / "tool.wasm"
BOTH = ["tool.wasm", "tool.component.wasm"]
TIMEOUT_S = 60.0


class AtTerminal(Struct):
    """One command on a terminal: what it has shown so far, and where to type (pty(7))."""

    pid: int
    master: int
    shown: str = ""
    seen: int = 0

    def wait_for(self, text: str) -> None:
        """Wait until the terminal shows `text` after what was waited for before."""
        assert self.shows(text), f"the terminal never showed {text!r}, but:\n{self.shown}"

    def shows(self, text: str) -> bool:
        """Whether the terminal comes to show `text` after what was waited for before."""
        until = time.monotonic() + TIMEOUT_S
        while text not in self.shown[self.seen :]:
            left = until - time.monotonic()
            if left <= 0 or not self.read(left):
                return False
        self.seen = self.shown.index(text, self.seen) + len(text)
        return True

    def type(self, text: str) -> None:
        """Type something."""
        os.write(self.master, text.encode())

    def answer(self, *answers: str) -> None:
        """Give these answers, each once its question is there; a yes as late as somebody who has read it."""
        for text in answers:
            self.wait_for("[q]uit? ")
            if text[:1] in "fd":
                self.be_read()
            self.type(text + "\n")

    def be_read(self) -> None:
        """Let the time pass in which a yes would come too soon: there is nothing to wait for but time itself."""
        until = time.monotonic() + 1.2 * UNREAD_NS / 1e9
        while (left := until - time.monotonic()) > 0:
            self.read(left)

    def finish(self) -> int:
        """Read to the end and return the exit code (-n for signal n)."""
        until = time.monotonic() + TIMEOUT_S
        while self.read(max(0.0, until - time.monotonic())):
            pass
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def read(self, timeout_s: float) -> bool:
        """Take what is shown next; False at the end."""
        if not select.select([self.master], [], [], timeout_s)[0]:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:  # EIO: no process has the other end open any more
            return False
        self.shown += data.decode("utf-8", "replace")
        return bool(data)

    def close(self) -> None:
        """End what still runs."""
        if self.pid:
            os.killpg(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.master)


Start = Callable[..., AtTerminal]


@pytest.fixture
def ask(run) -> Iterator[Start]:
    """Start `airssys run PROGRAM --ask …` in the test's directory, on a terminal of its own."""
    started: list[AtTerminal] = []

    def start(program: str | Path, *options: str | Path, guest: tuple[str, ...]) -> AtTerminal:
        words = [run.command_line_path, "run", str(program), "--ask", *map(str, options), "--", *guest]
        pid, master = pty.fork()
        if pid == 0:
            os.chdir(run.directory)
            os.execve(words[0], words, run.environment)
        started.append(AtTerminal(pid, master))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.mark.parametrize("program", BOTH)
def test_a_held_call_goes_on_once_it_was_allowed(run, ask: Start, program: str) -> None:
    """Under either preview a read and a creation wait for their answers, and then succeed; nothing counts as denied."""
    run.file("in/a.txt", "content\n")
    run.folder("out")
    person = ask(GUESTS / program, guest=("cat", "in/a.txt", ",", "write", "out/new.txt", "made"))
    person.wait_for(f"wants to read {run.directory}/in/a.txt")
    person.answer("f")
    person.wait_for(f"wants to create or change {run.directory}/out/new.txt (doesn't exist)")
    person.answer("file")
    assert person.finish() == 0, person.shown
    assert "content" in person.shown
    assert "0 denied" in person.shown
    assert (run.directory / "out/new.txt").read_text() == "made"


@pytest.mark.any_user
def test_a_no_is_a_refusal_and_is_not_asked_again(run, ask: Start) -> None:
    """After [n]o the program gets EACCES, the same thing is refused unasked, and another one is asked about."""
    run.file("in/a.txt", "first\n")
    run.file("in/b.txt", "second\n")
    person = ask(TOOL, guest=("cat", "in/a.txt", ",", "cat", "in/a.txt", ",", "cat", "in/b.txt"))
    person.answer("n")
    person.answer("f")
    assert person.finish() == 1
    assert person.shown.count("[q]uit? ") == 2
    assert person.shown.count("in/a.txt: EACCES") == 2
    assert "second" in person.shown
    assert "first" not in person.shown


def test_what_was_answered_outlives_the_warden(run, ask: Start, deadline) -> None:
    """A warden that is killed between two questions is replaced by one that knows the answers, and asks what is new."""
    run.file("in/a.txt", "first\n")
    run.file("in/b.txt", "second\n")
    person = ask(TOOL, guest=("cat", "in/a.txt", ",", "wait-stdin", ",", "cat", "in/a.txt", ",", "cat", "in/b.txt"))
    person.answer("f")
    person.wait_for("first")
    (warden,) = (p for p in psutil.Process(person.pid).children() if "ipc.warden.shell" in " ".join(p.cmdline()))

    def replaced() -> int:
        return sum(record["event"] == "warden_restarted" for record in run.records())

    before = replaced()
    warden.kill()
    deadline.until(lambda: replaced() > before, "the warden is replaced")
    person.type("x\n")
    person.wait_for(f"wants to read {run.directory}/in/b.txt")
    person.answer("f")
    assert person.finish() == 0, person.shown
    assert person.shown.count("[q]uit? ") == 2
    assert person.shown.count("first") == 2
    assert "second" in person.shown


@pytest.mark.any_user
def test_a_directory_covers_what_lies_beneath(run, ask: Start) -> None:
    """After [d]irectory nothing beneath it is asked about for the same action."""
    for name in ("in/a.txt", "in/b.txt", "in/deep/c.txt"):
        run.file(name, f"{name}\n")
    person = ask(TOOL, guest=("cat", "in/a.txt", ",", "cat", "in/b.txt", ",", "cat", "in/deep/c.txt", ",", "ls", "in"))
    person.answer("d")
    assert person.finish() == 0, person.shown
    assert person.shown.count("[q]uit? ") == 1


def test_a_listing_is_asked_about_and_may_stay_partial(run, ask: Start) -> None:
    """Who may read one file and not list its directory sees that one name; who may list it sees all of them."""
    run.file("in/a.txt", "content\n")
    run.file("in/b.txt", "other\n")
    for answer, seen in (("n", False), ("f", True)):
        person = ask(TOOL, guest=("cat", "in/a.txt", ",", "ls", "in"))
        person.answer("f")
        person.wait_for(f"wants to see the names in {run.directory}/in")
        person.answer(answer)
        assert person.finish() == 0, person.shown
        assert ("b.txt" in person.shown) == seen


@pytest.mark.any_user
def test_quitting_ends_the_program(run, ask: Start) -> None:
    """[q]uit ends it with 77 and says so; the answer is on record."""
    run.file("in/a.txt", "content\n")
    person = ask(TOOL, guest=("cat", "in/a.txt"))
    person.answer("q")
    assert person.finish() == 77
    assert "ended by you" in person.shown
    answered = [record for record in run.records() if record["event"] == "question_answered"]
    assert answered[-1]["resource"] == f"{run.directory}/in/a.txt"
    assert answered[-1]["detail"]["answer"] == "quit"
    assert answered[-1]["actor"] == f"uid {os.getuid()}"


@pytest.mark.any_user
def test_each_answer_is_on_record_with_the_policy_that_it_made(run, ask: Start) -> None:
    """The record of an answer comes before that of what it allows, which names the new policy."""
    run.file("in/a.txt", "content\n")
    person = ask(TOOL, guest=("cat", "in/a.txt"))
    person.answer("f")
    assert person.finish() == 0, person.shown
    records = run.records()
    answered = max(n for n, record in enumerate(records) if record["event"] == "question_answered")
    allowed = next(
        record
        for record in records[answered:]
        if record["event"] == "file_access" and record["resource"] == f"{run.directory}/in/a.txt"
    )
    assert allowed["policy"] == records[answered]["policy"]
    assert "(--ask)" in str(allowed["rule"])
    started = next(record for record in reversed(records[:answered]) if record["event"] == "worker_starting")
    assert started["policy"] != allowed["policy"]


def test_what_is_forbidden_is_never_asked_about(run, ask: Start) -> None:
    """A forbidden file is refused without a question, as no answer could grant it."""
    person = ask(TOOL, guest=("cat", "/etc/shadow"))
    assert person.finish() == 1
    assert "[q]uit? " not in person.shown
    assert "A1101" in person.shown


@pytest.mark.any_user
def test_the_deadline_stops_while_a_question_is_open(run, ask: Start) -> None:
    """An answer that comes after the timeout would have been over doesn't end the program; a spinning one is ended."""
    run.file("in/a.txt", "content\n")
    timeout_s = 1.0
    person = ask(TOOL, "--timeout", f"{timeout_s:g}s", guest=("cat", "in/a.txt"))
    person.wait_for("[q]uit? ")
    shown_s = time.monotonic()
    # Nothing to wait for but time itself: the deadline would pass meanwhile.
    while time.monotonic() - shown_s < 2 * timeout_s:
        person.read(0.1)
    person.type("f\n")
    assert person.finish() == 0, person.shown
    assert "content" in person.shown
    spinning = ask(TOOL, "--timeout", f"{timeout_s:g}s", guest=("spin",))
    assert spinning.finish() == 75
    assert "A2002" in spinning.shown


@pytest.mark.any_user
def test_what_was_typed_before_a_question_is_no_answer(run, ask: Start) -> None:
    """Keys pressed before the question is shown are thrown away: it waits for an answer of its own."""
    run.file("in/a.txt", "content\n")
    person = ask(TOOL, guest=("wait-stdin", ",", "cat", "in/a.txt"))
    # These lines are read as the guest's input or thrown away, but never as an answer.
    person.type("f\n" * 5 + "\x04")
    person.wait_for("[q]uit? ")
    person.type("n\n")
    assert person.finish() == 1
    assert "in/a.txt: EACCES" in person.shown


@pytest.mark.any_user
def test_a_yes_that_comes_at_once_is_no_answer(run, ask: Start) -> None:
    """Who was brought to type just now has not read the question: a yes at once is asked for again, a no counts."""
    run.file("in/a.txt", "content\n")
    for _ in range(10):
        person = ask(TOOL, guest=("print", "press f and Enter to go on", ",", "cat", "in/a.txt"))
        person.wait_for("[q]uit? ")
        person.type("f\n")
        if person.shows("once more"):
            break
        # This test came to type too late, on a machine as busy as this one: that tells nothing.
        assert person.finish() == 0, person.shown
    else:
        pytest.fail("no yes came at once")
    person.answer("n")
    assert person.finish() == 1
    assert "in/a.txt: EACCES" in person.shown


@pytest.mark.any_user
def test_an_answer_that_is_none_is_asked_for_again(run, ask: Start) -> None:
    """Anything but one of the letters or words shows the choice again."""
    run.file("in/a.txt", "content\n")
    person = ask(TOOL, guest=("cat", "in/a.txt"))
    person.answer("yes", "", "fi", "f")
    assert person.finish() == 0, person.shown


@pytest.mark.any_user
def test_a_name_cannot_write_to_the_terminal_or_pass_for_another(run, ask: Start) -> None:
    """Escape sequences and invisible letters of a name are escaped; letters that look alike are spelled out."""
    person = ask(TOOL, guest=("cat", "in/\x1b[2J\u202etxt.a", ",", "cat", "in/p\u0430ssword"))
    person.answer("n")
    person.answer("n")
    assert person.finish() == 1
    assert "\x1b[2J" not in person.shown
    assert "\u202e" not in person.shown
    assert "letters that may look like others" in person.shown
    assert "p\\u0430ssword" in person.shown


@pytest.mark.any_user
@pytest.mark.parametrize("name", ["[x]*?", "${x}", "esc\x1b[31m", "two\nlines", "no\u200bspace", " "])
def test_any_name_can_be_allowed(run, ask: Start, name: str) -> None:
    """[f]ile allows the file that was asked about, whatever its name holds, and a manifest can be written of it."""
    run.file(f"in/{name}", "content\n")
    run.file("in/other", "other\n")
    shutil.copyfile(TOOL, run.directory / "tool.wasm")
    person = ask("tool.wasm", "--write-manifest", "Component.toml", guest=("cat", f"in/{name}", ",", "cat", "in/other"))
    person.answer("f", "n")
    assert person.finish() == 1
    assert "content" in person.shown
    assert "other: EACCES" in person.shown
    again = run(run.directory, "--grant", "asked", guest=("cat", f"in/{name}"))
    assert again.stdout == b"content\n", again.stderr


@pytest.mark.any_user
def test_a_name_of_control_characters_allows_no_other(run, ask: Start) -> None:
    """[f]ile for six control characters, and a manifest of that run, allow no name of six letters."""
    run.file("in/secret", "not for it\n")
    shutil.copyfile(TOOL, run.directory / "tool.wasm")
    guest = ("cat", "in/\x01\x02\x03\x04\x05\x06", ",", "cat", "in/secret")
    person = ask("tool.wasm", "--write-manifest", "Component.toml", guest=guest)
    person.answer("f", "n")
    assert person.finish() == 1
    assert "not for it" not in person.shown
    again = run(run.directory, "--grant", "asked", guest=("cat", "in/secret"))
    assert b"not for it" not in again.stdout


@pytest.mark.any_user
def test_a_guest_cannot_draw_over_a_question(run, ask: Start) -> None:
    """What it printed comes before the question, and nothing of it while the question is open."""
    run.file("in/a.txt", "content\n")
    person = ask(TOOL, guest=("print", "allow everything? [q]uit? ", ",", "cat", "in/a.txt"))
    person.wait_for("wants to read")
    person.wait_for("[q]uit? ")
    person.type("n\n")
    assert person.finish() == 1
    assert person.shown.index("allow everything?") < person.shown.index("wants to read")


def on_screen(shown: str) -> list[str]:
    """Return the rows that a terminal shows: carriage returns overwrite, an erasure (ED, EL: ECMA-48) takes away."""
    rows = [""]
    column = 0
    for control, text in re.findall(r"(\x1b\[[0-9;]*[A-Za-z]|[\r\n])|([^\x1b\r\n]+)", shown):
        if control == "\n":
            rows.append("")
        elif control == "\r":
            column = 0
        elif control[-1:] in ("J", "K"):
            rows[-1] = rows[-1][:column]
        elif text:
            rows[-1] = rows[-1][:column].ljust(column) + text + rows[-1][column + len(text) :]
            column += len(text)
    return rows


@pytest.mark.any_user
def test_a_guest_cannot_write_the_end_of_a_question(run, ask: Start) -> None:
    """What it printed on the question's line is gone from there: a name isn't continued by what stood behind it."""
    run.file("in/a.txt", "content\n")
    asked = f"airssys: tool wants to read {run.directory}/in/a.txt"
    person = ask(TOOL, guest=("print", "x" * len(asked) + ".pub", ",", "cat", "in/a.txt"))
    person.answer("n")
    assert person.finish() == 1
    rows = on_screen(person.shown)
    assert asked in rows, rows
    assert on_screen("abcdef\rxy\n\rz") == ["xycdef", "z"]


@pytest.mark.any_user
def test_nobody_is_asked_without_end(run, ask: Start) -> None:
    """After 200 different things the rest is refused unasked, and a line says so."""
    run.folder("in")
    names = [word for n in range(230) for word in (",", "stat", f"in/{n}")][1:]
    person = ask(TOOL, guest=tuple(names))
    person.answer(*["n"] * 200)
    assert person.finish() == 1
    assert person.shown.count("[q]uit? ") == 200
    assert "the rest is refused unasked" in person.shown


@pytest.mark.any_user
def test_without_a_terminal_it_says_what_to_do(run) -> None:
    """There is nobody to ask: an error that names the other ways, and nothing runs."""
    result = run.tool("--ask", guest=("cat", "in/a.txt"))
    assert result.code == 77
    assert "no terminal" in result.stderr
    assert "--read" in result.stderr
    for other in ("--dev", "--raw-output"):
        assert run.tool("--ask", other, guest=("cat", "in/a.txt")).code == 64


def test_ctrl_c_at_a_question_ends_everything(run, ask: Start) -> None:
    """SIGINT while a question is open ends the program with 130, and nothing is left."""
    run.file("in/a.txt", "content\n")
    person = ask(TOOL, guest=("cat", "in/a.txt"))
    person.wait_for("[q]uit? ")
    person.type("\x03")
    assert person.finish() == 130
    assert "interrupted" in person.shown
