"""What surrounds a command at three in the morning: no room, no directory, no terminal, an interrupt, strange names."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

AIRSSYS = os.path.join(os.path.dirname(sys.executable), "airssys")
TOOL = Path(__file__).resolve().parents[1] / "guests" / "tool.wasm"


@pytest.fixture
def surroundings(short_dir: Path) -> dict[str, str]:
    """An environment with a state directory of its own."""
    return {**os.environ, "AIRSSYS_STATE": str(short_dir / "state")}


def _airssys(
    environment: dict[str, str], *arguments: str | bytes, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [AIRSSYS, *arguments],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="surrogateescape",
        timeout=60,
        cwd=cwd,
        env=environment,
        check=False,
    )


@pytest.mark.any_user
@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--json"),
        ("run", "x.wasm", "--json", "--bogus"),
        ("run", "x.wasm", "--json", "--report", "r.json"),
        ("run", str(TOOL), "--json", "--require", "landlok"),
        ("run", str(TOOL), "--json", "--layer-off", "landlok"),
        ("run", str(TOOL), "--json", "--timeout", "0s"),
        ("check", "--json"),
        ("diff", "a", "--json"),
        ("audit", "query", "--json", "--since", "2026-13-01"),
        ("audit", "tail", "--json", "-n", "x"),
        ("audit", "verify", "--json", "--head", "1:abc"),
        ("grants", "--json"),
        ("frobnicate", "--json"),
        ("doctor", "--json", "--", "x"),
    ],
)
def test_an_error_of_usage_is_json_too(surroundings: dict[str, str], arguments: tuple[str, ...]) -> None:
    """With --json a command line that can't be understood is told in the same document as every other error."""
    done = _airssys(surroundings, *arguments)
    assert done.returncode == 64
    error = json.loads(done.stdout)["error"]
    assert error.keys() >= {"code", "message", "hint"}
    assert error["code"] == "config"
    assert done.stderr == ""


@pytest.mark.any_user
def test_json_of_the_guests_own_is_not_ours(surroundings: dict[str, str]) -> None:
    """A `--json` behind two dashes belongs to the guest: an error of ours stays text."""
    done = _airssys(surroundings, "run", "--bogus", "--", "--json")
    assert (done.returncode, done.stdout) == (64, "")
    assert "see: airssys run --help" in done.stderr


@pytest.mark.any_user
@pytest.mark.parametrize("arguments", [("--help",), ("help",), ("schema", "component"), ("run", str(TOOL), "--json")])
def test_a_full_standard_output_is_told_in_a_line(surroundings: dict[str, str], arguments: tuple[str, ...]) -> None:
    """Where the output goes nowhere the exit code is 73, with a reason and no traceback."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [AIRSSYS, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, env=surroundings, check=False
        )
    assert done.returncode == 73
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr


@pytest.mark.any_user
def test_an_interrupt_while_it_still_imports_is_130(surroundings: dict[str, str]) -> None:
    """Ctrl-C ends a command quietly wherever it comes, also before there is a command."""
    # What is imported at this moment is what the interrupt comes out of.
    code = (
        "import sys, os, signal\n"
        # A shell's background job starts with it ignored, and so do its tests.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'supervisor.cli.check': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "sys.argv[1:] = ['check', '.']\n"
        "from supervisor.cli.entry import command; command()\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, env=surroundings, check=False
    )
    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, "")


@pytest.mark.any_user
def test_a_working_directory_that_was_removed_is_named(surroundings: dict[str, str], short_dir: Path) -> None:
    """In a directory that is gone a command says so, and what to do."""
    gone = short_dir / "gone"
    gone.mkdir()
    script = f'rmdir "{gone}"; exec "{AIRSSYS}" "$@"'
    for arguments in (("run", str(TOOL)), ("check", "."), ("config", "show", "--state-dir", "x")):
        gone.mkdir(exist_ok=True)
        done = subprocess.run(
            ["/bin/sh", "-c", script, "sh", *arguments],
            capture_output=True,
            text=True,
            cwd=gone,
            env=surroundings,
            check=False,
        )
        assert done.returncode == 65
        assert "the working directory was removed\n  go to one that exists: cd DIR" in done.stderr


def test_a_temporary_directory_that_is_not_there_is_named(surroundings: dict[str, str], short_dir: Path) -> None:
    """A TMPDIR that leads nowhere is what is wrong, and no fault of ours."""
    done = _airssys({**surroundings, "TMPDIR": str(short_dir / "missing")}, "run", str(TOOL))
    assert done.returncode == 65
    assert f"the temporary directory {short_dir}/missing can't be used: No such file or directory" in done.stderr


@pytest.mark.any_user
def test_what_is_not_utf_8_is_refused_before_it_runs(surroundings: dict[str, str], short_dir: Path) -> None:
    """WASI has text and no bytes: an argument or a variable that isn't UTF-8 is named, and a program so called runs."""
    done = _airssys(surroundings, "run", str(TOOL), "--", "cat", b"\xff.txt")
    assert done.returncode == 65
    assert "argument 2 of the program is not UTF-8" in done.stderr
    done = _airssys(surroundings, "run", str(TOOL), "--env", b"A=secret\xff", "--", "env")
    assert (done.returncode, "the variable A is not UTF-8" in done.stderr) == (65, True)
    assert "secret" not in done.stderr
    named = os.fsencode(short_dir) + b"/\xff.wasm"
    shutil.copy(TOOL, named)
    assert _airssys(surroundings, "run", named, "--", "exit", "3").returncode == 3


def test_a_program_is_shown_where_nothing_can_be_kept(surroundings: dict[str, str], short_dir: Path) -> None:
    """A state directory that can't be made costs the cache, and not the answer; one that is named is used."""
    done = _airssys({**surroundings, "AIRSSYS_STATE": "/proc/nowhere"}, "show", str(TOOL), "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["program"]["kind"] == "module"
    done = _airssys(surroundings, "show", str(TOOL), "--state-dir", str(short_dir / "named"))
    assert done.returncode == 0
    assert list((short_dir / "named" / "cache").glob("*.record"))
    assert not (short_dir / "state").exists()


@pytest.mark.any_user
@pytest.mark.parametrize(
    ("name", "content", "hint"),
    [
        ("Component.toml", b"schema = 1\n", "the directory that holds its Component.toml"),
        ("a.wat", b"(module)", "wasm-tools parse"),
        ("a.wasm", b"", "it is empty"),
        ("a.txt", b"hello", "look at it with: file FILE"),
    ],
)
def test_what_is_no_program_gets_a_hint_that_fits(
    surroundings: dict[str, str], short_dir: Path, name: str, content: bytes, hint: str
) -> None:
    """A file that isn't a wasm binary is refused with what its reader probably meant."""
    (short_dir / name).write_bytes(content)
    done = _airssys(surroundings, "run", str(short_dir / name))
    assert done.returncode == 65
    assert "is not a WebAssembly binary" in done.stderr
    assert hint in done.stderr


@pytest.mark.any_user
def test_a_command_is_not_looked_up_as_a_code(surroundings: dict[str, str]) -> None:
    """`airssys help run` points to the help of `run`."""
    done = _airssys(surroundings, "help", "run")
    assert (done.returncode, "airssys run --help" in done.stderr) == (64, True)


def test_a_query_that_finds_nothing_says_so(surroundings: dict[str, str]) -> None:
    """A table without rows could be a mistyped pattern."""
    _airssys(surroundings, "run", str(TOOL), "--", "exit", "0")
    done = _airssys(surroundings, "audit", "query", "--decision", "deneid")
    assert done.returncode == 0
    assert "airssys: no record fits" in done.stderr


def test_a_place_for_records_that_can_not_be_made_names_the_way_out(surroundings: dict[str, str]) -> None:
    """Without a place for its records nothing runs, and the second line says which option names another."""
    done = _airssys({**surroundings, "AIRSSYS_STATE": "/proc/nowhere"}, "run", str(TOOL))
    assert done.returncode == 73
    assert "nothing runs without a place for its records" in done.stderr
    assert "--state-dir DIR or AIRSSYS_STATE" in done.stderr


def test_a_limit_of_open_files_is_no_bug_of_ours(surroundings: dict[str, str]) -> None:
    """Wherever the descriptors run out, the limit is named with the command that raises it; with enough it runs."""
    for most in (12, 16, 20, 30, 40, 63):
        done = subprocess.run(
            ["/bin/sh", "-c", f'ulimit -n {most}; exec "$@"', "sh", AIRSSYS, "run", TOOL, "--", "exit", "3"],
            capture_output=True,
            text=True,
            env=surroundings,
            timeout=60,
            check=False,
        )
        assert done.returncode == 65
        assert done.stderr.startswith("airssys: too many open files")
        assert done.stderr.splitlines()[1:] == ["  raise the limit: ulimit -n 256"]
    assert _airssys(surroundings, "run", str(TOOL), "--", "exit", "3").returncode == 3


def test_a_report_that_can_not_be_written_is_told_before_the_run(surroundings: dict[str, str], short_dir: Path) -> None:
    """No directory, or a directory in its place: 65, and nothing runs. A full disk afterwards: 73, and how it ended."""
    for place, words in ((short_dir / "no" / "r.json", "no is no directory"), (short_dir, "is a directory")):
        done = _airssys(surroundings, "run", str(TOOL), "--report", str(place), "--", "print", "ran")
        assert (done.returncode, done.stdout) == (65, "")
        assert words in done.stderr.splitlines()[0]
    done = _airssys(surroundings, "run", str(TOOL), "--report", "/dev/full", "--", "print", "ran")
    assert (done.returncode, done.stdout) == (73, "ran")
    assert "No space left on device\n  the program has run, and ended with 0\n" in done.stderr


@pytest.mark.any_user
def test_a_wasm_that_was_cut_short_is_told_in_two_lines(surroundings: dict[str, str], short_dir: Path) -> None:
    """What the compiler says of it is one line, its cause behind it, and the second says what to do."""
    (short_dir / "cut.wasm").write_bytes(TOOL.read_bytes()[:100])
    done = _airssys(surroundings, "run", str(short_dir / "cut.wasm"))
    assert done.returncode == 65
    first, hint = done.stderr.splitlines()[-2:]
    assert first.startswith("airssys: cut.wasm: failed to parse WebAssembly module: unexpected ")
    assert "\\x0a" not in first
    assert hint == "  it is damaged, or was cut short: fetch or build it again"


@pytest.mark.any_user
def test_what_belongs_to_the_guest_needs_a_command(surroundings: dict[str, str]) -> None:
    """Two dashes without a command point to a help that there is, and only `run` speaks of guests' arguments."""
    done = _airssys(surroundings, "--", "x")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (64, "see: airssys --help")
    done = _airssys(surroundings, "doctor", "extra")
    assert (done.returncode, "guest" in done.stderr) == (64, False)
