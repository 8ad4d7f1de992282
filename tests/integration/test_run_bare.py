"""`airssys run PROGRAM`: the flags are the grant, the guest's exit code passes through, mistakes are told at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

GUESTS = Path(__file__).resolve().parents[1] / "guests"
BOTH = ["tool.wasm", "tool.component.wasm"]

Wat = Callable[[str], Path]


@pytest.mark.parametrize("program", BOTH)
def test_a_granted_file_is_read_and_another_is_not(run, program: str) -> None:
    """Under either preview, --read gives one file; its neighbour, and writing to it, are refused."""
    run.file("in/a.txt", "granted\n")
    run.file("in/b.txt", "not granted\n")
    result = run(
        GUESTS / program,
        "--read",
        "in/a.txt",
        guest=("cat", "in/a.txt", ",", "cat", "in/b.txt", ",", "write", "in/a.txt", "x"),
    )
    assert result.stdout.startswith(b"granted\n")
    assert b"not granted" not in result.stdout
    assert result.code == 1
    assert f"denied filesystem.read {run.directory}/in/b.txt [A1203" in result.stderr
    assert f"denied filesystem.write {run.directory}/in/a.txt [A1201" in result.stderr
    assert (run.directory / "in/a.txt").read_text() == "granted\n"


@pytest.mark.parametrize("program", BOTH)
def test_a_directory_flag_means_all_beneath(run, program: str) -> None:
    """--read DIR and --write DIR reach every depth; names come with --list alone or with a whole directory's read."""
    run.file("in/deep/er/a.txt", "deep\n")
    run.folder("out")
    result = run(
        GUESTS / program,
        "--read",
        "in",
        "--write",
        "out",
        guest=("ls", "in/deep", ",", "copy", "in/deep/er/a.txt", "out/b.txt", ",", "mkdir", "out/d"),
    )
    assert result.code == 0, result.stderr
    assert b"er/\n" in result.stdout
    assert (run.directory / "out/b.txt").read_text() == "deep\n"
    assert (run.directory / "out/d").is_dir()
    assert "0 denied" in result.summary


def test_list_gives_names_and_no_content(run) -> None:
    """--list shows names; reading one of them is refused."""
    run.file("in/a.txt", "secret content\n")
    result = run.tool("--list", "in", guest=("ls", "in", ",", "cat", "in/a.txt"))
    assert b"a.txt" in result.stdout
    assert b"secret content" not in result.stdout
    assert "denied filesystem.read" in result.stderr


@pytest.mark.any_user
def test_a_pattern_grants_what_matches(run) -> None:
    """A quoted pattern grants exactly what it matches."""
    run.file("in/a.csv", "csv\n")
    run.file("in/a.txt", "txt\n")
    result = run.tool("--read", "in/*.csv", guest=("cat", "in/a.csv", ",", "cat", "in/a.txt"))
    assert result.stdout.startswith(b"csv\n")
    assert b"txt\n" not in result.stdout.replace(b"a.txt", b"")
    assert "1 denied" in result.summary


@pytest.mark.parametrize("program", BOTH)
def test_dir_shows_a_directory_under_another_name_and_grants_nothing(run, program: str) -> None:
    """--dir HOST::GUEST names; without --read it gives no content."""
    run.file("data/a.txt", "mounted\n")
    with_grant = run(GUESTS / program, "--dir", "data::/d", "--read", "data", guest=("cat", "/d/a.txt"))
    assert (with_grant.code, with_grant.stdout) == (0, b"mounted\n")
    without = run(GUESTS / program, "--dir", "data::/d", guest=("cat", "/d/a.txt"))
    assert without.code == 1
    assert b"mounted" not in without.stdout
    assert f"denied filesystem.read {run.directory}/data/a.txt [A1201" in without.stderr


def test_absolute_names_are_the_hosts(run) -> None:
    """A granted file is reached by its absolute host path, too."""
    path = run.file("in/a.txt", "absolute\n")
    result = run.tool("--read", "in", guest=("cat", str(path)))
    assert (result.code, result.stdout) == (0, b"absolute\n")


@pytest.mark.any_user
@pytest.mark.parametrize("program", BOTH)
def test_the_environment_is_what_was_given(run, program: str) -> None:
    """--env K=V sets, --env K passes ours on, and nothing else is there."""
    os.environ["AIRSSYS_TEST_PASSED_ON"] = "from outside"
    try:
        airssys = run.command_line
        airssys.environment["PASSED_ON"] = "from outside"
        result = run(GUESTS / program, "--env", "A=1 = one", "--env", "PASSED_ON", guest=("env",))
    finally:
        del os.environ["AIRSSYS_TEST_PASSED_ON"]
    assert sorted(result.stdout.decode().splitlines()) == ["A=1 = one", "PASSED_ON=from outside"]


@pytest.mark.any_user
def test_arguments_arrive_as_they_were_typed(run) -> None:
    """Behind `--` everything is the guest's: options, empty strings, spaces, bytes beyond ASCII."""
    arguments = ("args", "--read", "", "a b", "héé", "--", "$HOME", "*")
    result = run.tool(guest=arguments)
    assert result.code == 0
    for argument in arguments[1:]:
        assert argument in result.stdout.decode()


@pytest.mark.any_user
@pytest.mark.parametrize("program", BOTH)
@pytest.mark.parametrize("code", [0, 1, 64, 125])
def test_the_guests_exit_code_passes_through(run, program: str, code: int) -> None:
    """Each code is the guest's own; a component of preview 2 knows only success and failure (wasi:cli/exit)."""
    result = run(GUESTS / program, guest=("exit", str(code)))
    expected = code if program == "tool.wasm" else min(code, 1)
    assert result.code == expected
    assert f"exited {expected} ·" in result.summary


@pytest.mark.any_user
@pytest.mark.parametrize("how", ["unreachable", "memory", "divide", "call"])
def test_a_trap_ends_with_134_and_says_why(run, how: str) -> None:
    """What ends by a trap is told apart from what exits."""
    result = run.tool(guest=("trap", how))
    assert result.code == 134
    assert "wasm trap" in result.stderr
    assert " trapped · " in result.summary


@pytest.mark.any_user
def test_a_trap_of_a_component(run) -> None:
    """A component of preview 2 traps in the same words."""
    result = run(GUESTS / "tool.component.wasm", guest=("trap",))
    assert result.code == 134
    assert "wasm trap" in result.stderr


@pytest.mark.any_user
@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--read", "a", "b"), "quote it"),
        (("--memory", "much"), "much"),
        (("--timeout", "soon"), "soon"),
        (("--fuel", "1.5"), "1.5"),
        (("--output", "-1"), "-1"),
        (("--json", "--report", "r.json"), "--report"),
    ],
)
def test_mistyped_options_are_usage_errors(run, options: tuple[str, ...], word: str) -> None:
    """What can't be understood ends with 64, names itself, and runs nothing."""
    result = run.tool(*options, guest=("print", "RAN"))
    assert result.code == 64, result.stderr
    assert word in (result.stdout.decode() if "--json" in options else result.stderr)
    assert b"RAN" not in result.stdout
    assert "Traceback" not in result.stderr


@pytest.mark.any_user
@pytest.mark.parametrize("options", [("--grant", "asked"), ("--set", "a=b")])
def test_options_of_directories_are_refused_for_programs(run, options: tuple[str, ...]) -> None:
    """--grant and --set have no meaning for a bare program, and say so."""
    result = run.tool(*options, guest=("print", "RAN"))
    assert result.code in (64, 65)
    assert "component directory" in result.stderr
    assert b"RAN" not in result.stdout


@pytest.mark.any_user
@pytest.mark.parametrize("pattern", ["/", "/**", "**"])
def test_a_grant_of_everything_is_refused(run, pattern: str) -> None:
    """A grant that names nothing in particular runs nothing."""
    result = run.tool("--read", pattern, guest=("print", "RAN"))
    if pattern == "**":
        # From a working directory it means all beneath that.
        assert (result.code, result.stdout) == (0, b"RAN")
        return
    assert result.code == 65
    assert "too broad" in result.stderr
    assert b"RAN" not in result.stdout


@pytest.mark.parametrize("program", BOTH)
def test_forbidden_files_stay_forbidden_whatever_is_granted(run, program: str) -> None:
    """/etc/shadow, key directories and the host's own state are refused by name, in spite of a grant."""
    run.file(".ssh/id", "key\n")
    own = str(run.state)
    result = run(
        GUESTS / program,
        *("--read", "/etc/shadow", "--read", ".ssh", "--read", own),
        guest=("cat", "/etc/shadow", ",", "cat", ".ssh/id", ",", "ls", own + "/audit"),
    )
    assert result.code == 1
    assert b"key" not in result.stdout
    assert b"jsonl" not in result.stdout
    assert result.stderr.count("[A1101") == 3, result.stderr


def test_a_thousand_files_are_listed_and_read(run, wat: Wat) -> None:
    """Many names and many files need nothing but one grant."""
    names = [f"many/{n % 10}/{n:04}.txt" for n in range(1000)]
    for name in names:
        run.file(name, name)
    result = run.tool("--read", "many", "--json", guest=("tree", "many"))
    document = result.document()
    assert document["exit_code"] == 0
    listed = str(document["stdout"])
    assert all(os.path.basename(name) in listed for name in names)
    result = run.tool("--read", "many", guest=("cat", *names[:300]))
    assert result.stdout == "".join(names[:300]).encode()


def test_an_absolute_argument_is_denied_by_its_true_name(run) -> None:
    """A path that the program is given absolutely is not taken for one beneath the working directory."""
    secret = run.file("elsewhere/secret.txt", "secret\n")
    result = run.tool(guest=("cat", str(secret)))
    assert result.code == 1
    assert f"denied filesystem.read {secret} [A1201" in result.stderr
    assert run.tool("--read", secret, guest=("cat", str(secret))).stdout == b"secret\n"


@pytest.mark.parametrize("program", BOTH)
def test_a_name_that_is_not_utf8_hides_no_other(run, program: str) -> None:
    """WASI can't say such a name: it is left out of the listing, which otherwise is whole."""
    run.file("in/a.txt", "x")
    run.file("in/\u00e4.txt", "x")
    (Path(os.fsdecode(os.fsencode(run.directory / "in") + b"/\xff.txt"))).write_text("x")
    result = run(GUESTS / program, "--read", "in", guest=("ls", "in"))
    assert result.code == 0, result.stderr
    assert result.stdout.decode().split() == ["a.txt", "\u00e4.txt"]
