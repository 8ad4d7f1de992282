"""The command line as a person first meets it: help, mistakes, `--`, and an interpreter that isn't isolated."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.any_user

AIRSSYS = os.path.join(os.path.dirname(sys.executable), "airssys")
COMMANDS = (
    "run",
    "check",
    "show",
    "diff",
    "explain",
    "grants",
    "audit",
    "config",
    "schema",
    "doctor",
    "help",
    "completion",
)


def _airssys(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [AIRSSYS, *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        cwd=cwd,
        env={**os.environ, **environment},
        check=False,
    )


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("runn", "run"), ("chek", "check"), ("docter", "doctor"), ("explian", "explain"), ("hlep", "help")],
)
def test_a_mistyped_command_is_guessed(typed: str, meant: str) -> None:
    """An unknown command is a usage error that says which one was probably meant."""
    done = _airssys(typed, "x", "--flag")
    assert done.returncode == 64
    assert done.stdout == ""
    assert f"no command {typed!r}; did you mean {meant!r}?" in done.stderr
    assert "see: airssys --help" in done.stderr


@pytest.mark.parametrize(
    ("typed", "meant", "see"),
    [
        (("narrow", "4"), "approvals narrow", "airssys --help"),
        (("approvals", "lst"), "list", "airssys approvals --help"),
        (("approvals", "narrow", "1", "--wihtout=x"), "--without", "airssys approvals narrow --help"),
        (("list", "--josn"), "--json", "airssys list --help"),
        (("approvals", "approve", "1", "--ye=3f"), "--yes", "airssys approvals approve --help"),
    ],
)
def test_what_is_mistyped_within_a_command_is_guessed(typed: tuple[str, ...], meant: str, see: str) -> None:
    """A command's own command, an option, and what is an `approvals` command: with the help that is nearest."""
    done = _airssys(*typed)
    assert (done.returncode, done.stdout) == (64, "")
    assert f"did you mean {meant!r}?" in done.stderr
    assert f"see: {see}\n" in done.stderr


@pytest.mark.parametrize("typed", ["zzzzzz", "\x1b]0;x\x07", ""])
def test_an_unknown_command_without_a_neighbour(typed: str) -> None:
    """Where nothing is near, no guess is made, and what was typed can't act on the terminal."""
    done = _airssys(typed)
    assert done.returncode == 64
    assert "no command" in done.stderr
    assert "did you mean" not in done.stderr
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_names_every_command_and_shows_examples(arguments: tuple[str, ...]) -> None:
    """Without a command, or asked, the help lists all commands and examples of them, and that is a success."""
    done = _airssys(*arguments)
    assert done.returncode == 0
    assert done.stderr == ""
    for command in COMMANDS:
        assert f"\n    {command}" in done.stdout
    assert "examples:\n  airssys run ./log-summary" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_each_commands_help_has_an_example(command: str) -> None:
    """Every command's own help shows how it is used."""
    done = _airssys(command, "--help")
    assert done.returncode == 0, done.stderr
    assert "usage: airssys" in done.stdout
    assert "example" in done.stdout
    assert f"airssys {command}" in done.stdout.split("example", 1)[1]


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_flag_is_a_usage_error(command: str) -> None:
    """A flag that doesn't exist ends with 64, two lines and no traceback."""
    done = _airssys(command, "x", "--no-such-flag")
    assert done.returncode == 64, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("airssys: ")
    assert f"see: airssys {command}" in done.stderr
    assert "--help" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_target_is_a_usage_error() -> None:
    """`airssys run` alone says what is missing."""
    done = _airssys("run")
    assert done.returncode == 64
    assert "TARGET" in done.stderr


def test_an_expanded_pattern_is_recognised(tmp_path: Path) -> None:
    """A stray path after a flag is what an unquoted pattern becomes: the error says to quote it."""
    done = _airssys("run", "p.wasm", "--read", "a.csv", "b.csv", "c\x1b[2J.csv", cwd=tmp_path)
    assert done.returncode == 64
    assert "your shell expanded a pattern, quote it" in done.stderr
    assert "\x1b" not in done.stderr


def test_a_target_that_does_not_exist_is_named(tmp_path: Path) -> None:
    """A path that leads nowhere is bad input: it is shown harmlessly, and nothing is started or made."""
    done = _airssys("run", "./missing\x1b[2J.wasm", cwd=tmp_path, AIRSSYS_STATE=str(tmp_path / "state"))
    assert done.returncode == 65
    hint = "  name a directory with a Component.toml, or a .wasm file\n"
    assert done.stderr == "airssys: ./missing\\x1b[2J.wasm: no such file or directory\n" + hint
    assert list(tmp_path.iterdir()) == []
    os.symlink("loop.wasm", tmp_path / "loop.wasm")
    done = _airssys("run", "loop.wasm", cwd=tmp_path, AIRSSYS_STATE=str(tmp_path / "state"))
    assert done.returncode == 65
    assert done.stderr.startswith("airssys: loop.wasm: too many levels of symbolic links\n  what there is on the way: ")


def test_what_follows_two_dashes_is_not_ours(tmp_path: Path) -> None:
    """Flags and commands behind `--` belong to the guest, whatever they look like."""
    done = _airssys("run", "./missing.wasm", "--", "--no-such-flag", "--help", "--", "runn", cwd=tmp_path)
    assert done.returncode == 65
    assert "missing.wasm: no such file" in done.stderr
    done = _airssys("--", "--version")
    assert done.returncode == 64
    assert "belongs to `airssys run` alone" in done.stderr


def test_the_version() -> None:
    """`--version` prints name and version."""
    done = _airssys("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("airssys ")
    assert done.stdout.count("\n") == 1


def test_a_code_is_explained() -> None:
    """`help CODE` prints what it means and what to do, in any case, and as JSON."""
    done = _airssys("help", "a1203")
    assert done.returncode == 0
    assert done.stdout.startswith("A1203: ")
    assert "What to do: " in done.stdout
    document = json.loads(_airssys("help", "A1203", "--json").stdout)
    assert sorted(document) == ["advice", "code", "explanation", "title"]


def test_all_codes_are_listed() -> None:
    """`help` alone and `help --list` list the codes, the same in both forms."""
    lines = _airssys("help").stdout.splitlines()
    assert _airssys("help", "--list").stdout.splitlines() == lines
    assert _airssys("help", "A1203", "--list").returncode == 64
    document = json.loads(_airssys("help", "--json").stdout)
    assert [line.split()[0] for line in lines] == list(document)
    assert {"A1203", "A1701", "A2001", "A3001"} <= set(document)


def test_an_unknown_code_is_a_usage_error() -> None:
    """A code that doesn't exist ends with 64 and says where they are listed."""
    done = _airssys("help", "A0000\x1b[2J")
    assert done.returncode == 64
    assert "`airssys help --list` lists them" in done.stderr
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_command(shell: str) -> None:
    """The script of each shell holds every command, and the flags of `run`."""
    done = _airssys("completion", shell)
    assert done.returncode == 0, done.stderr
    for command in COMMANDS:
        assert command in done.stdout
    assert ("-l memory" if shell == "fish" else "--memory") in done.stdout


def _commands_of(command: str) -> list[str]:
    """A command's own commands, as its help lists them (`  {a,b}` of a choice is none)."""
    listed = re.search(r"\n  COMMAND\n((?: {4,}.*\n)+)", _airssys(command, "--help").stdout)
    return re.findall(r"^ {4}(\w+)", listed[1], re.MULTILINE) if listed else []


@pytest.mark.parametrize("command", COMMANDS)
def test_completion_knows_every_option(command: str) -> None:
    """What the help of a command, and of each of its own commands, lists is completed; and each has an example."""
    script = _airssys("completion", "bash").stdout
    for words in ((command,), *((command, inner) for inner in _commands_of(command))):
        text = _airssys(*words, "--help").stdout
        options = set(re.findall(r"^ {2}(?:-\w(?: \w+)?, )?(--[\w-]+)", text, re.MULTILINE))
        assert options, words
        start = f"'{' '.join(words)}') words='"
        line = next(each.strip() for each in script.splitlines() if each.strip().startswith(start))
        assert options | {"--help"} == set(line.removeprefix(start).partition("'")[0].split()), words
        assert "example" in text, words


def test_completion_in_a_real_shell() -> None:
    """bash, with the script loaded, completes the beginning of a command, of a command's own, and of a flag."""
    script = _airssys("completion", "bash").stdout
    probe = """
COMP_WORDS=(airssys doc); COMP_CWORD=1; _airssys; echo "${COMPREPLY[*]}"
COMP_WORDS=(airssys run --mem); COMP_CWORD=2; _airssys; echo "${COMPREPLY[*]}"
COMP_WORDS=(airssys grants ""); COMP_CWORD=2; _airssys; echo "${COMPREPLY[*]}"
COMP_WORDS=(airssys config show --or); COMP_CWORD=3; _airssys; echo "${COMPREPLY[*]}"
COMP_WORDS=(airssys --ver); COMP_CWORD=1; _airssys; echo "${COMPREPLY[*]}"
"""
    done = subprocess.run(
        ["bash", "--norc", "-c", f"{script}\n{probe}"], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == "doctor\n--memory\nforget list\n--origin\n--version\n"


def test_an_interpreter_that_is_not_isolated_is_refused(tmp_path: Path) -> None:
    """Without -I somebody's directory could stand in front of ours: nothing is done (with -I, the control, it is)."""
    code = "import sys; sys.argv[1:] = ['--version']; from supervisor.cli.entry import command; command()"
    refused = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=30)
    assert refused.returncode == 69
    assert refused.stdout == ""
    assert "refused to start" in refused.stderr
    assert "an environment of its own" in refused.stderr
    allowed = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=30
    )
    assert allowed.returncode == 0
    assert allowed.stdout.startswith("airssys ")


def test_a_command_whose_packages_are_gone_says_so(tmp_path: Path) -> None:
    """The command beside a Python that has none of our packages: two lines and 70, no traceback; 127 without Python."""
    command = tmp_path / "airssys"
    command.write_bytes(Path(AIRSSYS).read_bytes())
    command.chmod(0o755)
    assert subprocess.run([command], capture_output=True, timeout=30, check=False).returncode == 127
    # Beside a link alone, Python looks for its packages where the system's are.
    (tmp_path / "python").symlink_to(os.path.realpath(sys.executable))
    done = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 70
    assert len(done.stderr.splitlines()) == 2
    assert done.stderr.startswith("airssys: it is not installed whole: No module named 'supervisor'\n")


def test_a_hijacked_import_path_is_not_followed(tmp_path: Path) -> None:
    """Modules in the working directory or on PYTHONPATH are never loaded; a plain interpreter, the control, does."""
    for name in ("supervisor", "ipc", "json", "argparse"):
        (tmp_path / f"{name}.py").write_text("import os; os.write(2, b'HIJACKED'); os._exit(99)\n")
    control = subprocess.run(
        [sys.executable, "-c", "import json"], capture_output=True, text=True, cwd=tmp_path, timeout=30
    )
    assert "HIJACKED" in control.stderr
    done = _airssys("help", "A1203", cwd=tmp_path, PYTHONPATH=str(tmp_path), PYTHONSTARTUP=str(tmp_path / "json.py"))
    assert done.returncode == 0
    assert "HIJACKED" not in done.stderr


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    """`airssys help | head -1`: whoever closes our output early gets no complaint on stderr."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [AIRSSYS, "help"], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=30, check=False
        )
    finally:
        os.close(writer)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
    assert done.returncode == 141


def test_a_temporary_directory_that_is_not_there_is_no_traceback(tmp_path: Path) -> None:
    """What can't be started ahead of the command line is told by the command, and a usage error stays one."""
    broken = str(tmp_path / "missing")
    done = _airssys("run", "x.wasm", "--bogus", TMPDIR=broken)
    assert (done.returncode, "unrecognized arguments: --bogus" in done.stderr) == (64, True)
    done = _airssys("run", str(tmp_path), TMPDIR=broken)
    assert done.returncode in (65, 69, 70)
    assert "Traceback" not in done.stderr
