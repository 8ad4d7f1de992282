"""`--write-manifest` and `--dev`: from a run to the smallest manifest that gives the same run again."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ipc.policy.decision import PolicyDocument, compile_policy
from supervisor.manifest import Variables, bind, load_manifest

GUESTS = Path(__file__).resolve().parents[1] / "guests"
ROOT = Path(__file__).resolve().parents[2]
BOTH = ["tool.wasm", "tool.component.wasm"]
REACH_MAX = 1.2
HOSTILE = [
    "a b",
    " ends ",
    'it\'s "quoted"',
    "back\\slash",
    "[x]*?",
    "${component}",
    "$${x}",
    "#1",
    "-rf",
    "r\u00e9sum\u00e9-\u65e5\u672c",
    "esc\x1b[31m",
    "two\nlines",
    "tab\t",
    "del\x7f",
    "no\u200bspace",
    "\u202etxt",
]


@pytest.fixture
def program(run, request) -> Path:
    """The tool beside the test's files, as a person would have it."""
    place = run.directory / "tool.wasm"
    shutil.copyfile(GUESTS / request.param, place)
    return place


def reachable(manifest: Path, directory: Path) -> set[str]:
    """The files beneath a directory that the manifest's grants let a program read or write."""
    parsed = load_manifest(str(manifest.parent))
    variables = Variables(component=str(manifest.parent), data="/nowhere/data", tmp="/nowhere/tmp")
    defaults = {parameter.name: parameter.default for parameter in parsed.parameters if parameter.default is not None}
    bound = bind(parsed, defaults, variables, cwd=str(manifest.parent), real_path=os.path.realpath)
    policy = compile_policy(PolicyDocument(component="p", instance="", grants=bound.grants))
    files = [str(path) for path in directory.rglob("*") if path.is_file()]
    return {path for path in files if policy.rights(path) & {"read", "write"}}


@pytest.mark.parametrize("program", BOTH, indirect=True)
def test_the_written_manifest_gives_the_same_run_again(run, program: Path) -> None:
    """Under either preview: the same output, no denial, and no more within reach than a fifth above what was used."""
    for name in ("in/a.txt", "in/b.txt", "in/c.txt", "lib/x.txt", "lib/deep/y.txt", "other/z.txt"):
        run.file(name, f"{name}\n")
    run.folder("out")
    guest = (
        *("cat", "in/a.txt", ",", "ls", "in", ",", "stat", "lib/x.txt", ",", "cat", "lib/deep/y.txt"),
        *(",", "stat", "in/missing", ",", "write", "out/new.txt", "made", ",", "write", "out/gone", "x"),
        *(",", "unlink", "out/gone", ",", "mkdir", "out/d"),
    )
    written = run.directory / "Component.toml"
    first = run(program, "--read", ".", "--write", "out", "--storage", "2MB", "--write-manifest", written, guest=guest)
    assert 'storage = "2MB"' in written.read_text()
    assert "0 denied" in first.stderr
    assert "wrote" in first.stderr
    (run.directory / "out/new.txt").unlink()
    (run.directory / "out/d").rmdir()
    again = run(run.directory, "--grant", "asked", "--json")
    document = again.document()
    assert document["denials"] == []
    assert document["stdout"] == first.stdout.decode()
    assert document["exit_code"] == first.code
    used = {f"{run.directory}/{name}" for name in ("in/a.txt", "lib/x.txt", "lib/deep/y.txt", "out/new.txt")}
    assert len(reachable(written, run.directory)) <= REACH_MAX * len(used)
    assert reachable(written, run.directory) <= used | {f"{run.directory}/in/missing"}
    checked = run.other_command("check", run.directory)
    assert checked.code == 0, checked.stderr


@pytest.mark.parametrize("program", BOTH, indirect=True)
def test_what_was_renamed_or_linked_is_renamed_and_linked_again(run, program: Path) -> None:
    """Files that are written, renamed and read then, a whole directory likewise, a link to what wasn't written."""
    run.folder("out")
    run.file("in/a.txt", "a\n")
    guest = (
        *("write", "out/part", "made", ",", "rename", "out/part", "out/whole", ",", "cat", "out/whole"),
        *(",", "mkdir", "out/new", ",", "write", "out/new/x", "x", ",", "write", "out/new/y", "y"),
        *(",", "rename", "out/new", "out/final", ",", "cat", "out/final/x", ",", "ls", "out/final"),
        *(",", "link", "in/a.txt", "out/linked", ",", "cat", "out/linked"),
    )
    written = run.directory / "Component.toml"
    first = run(program, "--read", ".", "--write", ".", "--write-manifest", written, guest=guest)
    assert first.code == 0, first.stderr
    shutil.rmtree(run.directory / "out")
    run.folder("out")
    document = run(run.directory, "--grant", "asked", "--json").document()
    assert document["denials"] == []
    assert document["stdout"] == first.stdout.decode()
    assert {path.name for path in (run.directory / "out").rglob("*")} == {"whole", "final", "x", "y", "linked"}


@pytest.mark.any_user
def test_a_program_that_can_not_start_gets_no_manifest(run, wat) -> None:
    """What imports something that nothing provides used nothing: there is nothing to write down."""
    written = run.directory / "Component.toml"
    result = run(wat("unknown-imports.wat"), "--write-manifest", written)
    assert result.code == 65
    assert "no manifest was written" in result.stderr
    assert not written.exists()


@pytest.mark.any_user
@pytest.mark.parametrize("program", ["tool.wasm"], indirect=True)
def test_many_files_of_one_directory_become_one_pattern(run, program: Path) -> None:
    """Where all files of a directory were used one pattern names them; where half were, each is named."""
    for n in range(10):
        run.file(f"all/{n}.txt", "x")
        run.file(f"half/{n}.txt", "x")
    guest = [word for n in range(10) for word in ("cat", f"all/{n}.txt", ",")]
    guest += [word for n in range(5) for word in ("cat", f"half/{n}.txt", ",")]
    written = run.directory / "Component.toml"
    run(program, "--read", ".", "--write-manifest", written, guest=tuple(guest[:-1]))
    text = written.read_text()
    assert '"${component}/all/*"' in text
    assert '"${component}/half/3.txt"' in text
    assert "half/7.txt" not in text


@pytest.mark.any_user
@pytest.mark.parametrize("program", BOTH, indirect=True)
def test_any_name_can_be_written_and_found_again(run, program: Path) -> None:
    """Names with pattern characters, quotes, variables, controls, invisible characters: each is named, and only it."""
    for n in range(2 * len(HOSTILE)):
        run.file(f"in/other-{n}", "not used")
    for name in HOSTILE:
        run.file(f"in/{name}", f"{name!a}\n")
    (run.directory / os.fsdecode(b"in/raw\xff")).write_bytes(b"not used")
    run.folder("out")
    guest = [word for name in HOSTILE for word in ("cat", f"in/{name}", ",", "write", f"out/{name}", "x", ",")]
    first = run(
        program, "--read", "in", "--write", "out", "--write-manifest", "Component.toml", guest=tuple(guest[:-1])
    )
    assert first.code == 0, first.stderr
    for path in (run.directory / "out").iterdir():
        path.unlink()
    document = run(run.directory, "--grant", "asked", "--json").document()
    assert document["denials"] == []
    assert document["stdout"] == first.stdout.decode()
    assert {path.name for path in (run.directory / "out").iterdir()} == set(HOSTILE)
    used = {f"{run.directory}/{place}/{name}" for name in HOSTILE for place in ("in", "out")}
    assert reachable(run.directory / "Component.toml", run.directory) == used


@pytest.mark.parametrize("program", ["tool.wasm"], indirect=True)
def test_a_program_elsewhere_gets_parameters_for_its_paths(run, program: Path) -> None:
    """What lies outside the component is placed by parameters, whose defaults are the places of this run."""
    home = run.folder("component")
    shutil.move(program, home / "tool.wasm")
    run.file("data/a.txt", "content\n")
    data = run.directory / "data"
    result = run(
        home / "tool.wasm",
        "--read",
        data,
        "--dir",
        f"{data}::/d",
        "--write-manifest",
        home / "Component.toml",
        guest=("cat", "/d/a.txt"),
    )
    assert result.code == 0, result.stderr
    text = (home / "Component.toml").read_text()
    assert f'default = "{run.directory}"' in text or f'default = "{data}"' in text
    assert f'"{data}/a.txt"' not in text
    again = run(home, "--grant", "asked")
    assert again.stdout == b"content\n"
    moved = run.file("moved/a.txt", "moved\n").parent
    name = next(line.split(" = ")[0] for line in text.splitlines() if 'type = "directory"' in line)
    value = moved if f'default = "{data}"' in text else None
    if value is not None:
        assert run(home, "--grant", "asked", "--set", f"{name}={value}").stdout == b"moved\n"


@pytest.mark.parametrize("program", ["tool.wasm"], indirect=True)
def test_a_component_s_own_data_stays_its_own(run, program: Path) -> None:
    """What a component writes in `${data}` is asked for there again, and not by the place that it has on this host."""
    manifest = run.file(
        "Component.toml",
        """
        schema = 1
        component = { name = "tool", version = "1.0.0", wasm = "tool.wasm", mounts = { "/d" = "${data}" } }
        capabilities.filesystem = { read = ["${data}/"], write = ["${data}/"] }
        """,
    )
    guest = ("write", "/d/a.txt", "x", ",", "cat", "/d/a.txt")
    learnt = run.directory / "Learnt.toml"
    first = run(run.directory, "--grant", "asked", "--write-manifest", learnt, guest=guest)
    assert first.code == 0, first.stderr
    text = learnt.read_text()
    assert '"/d" = "${data}"' in text
    assert 'write = ["${data}/a.txt"]' in text
    assert str(run.state) not in text
    learnt.replace(manifest)
    again = run(run.directory, "--grant", "asked", "--json").document()
    assert again["denials"] == []
    assert again["stdout"] == first.stdout.decode()


@pytest.mark.any_user
@pytest.mark.parametrize("program", ["tool.wasm"], indirect=True)
def test_variables_and_secrets_keep_their_values_out_of_the_manifest(run, program: Path) -> None:
    """A secret's value and a passed-on variable's are not written; a given one's is."""
    token = run.file("token", "hunter2")
    written = run.directory / "Component.toml"
    os.environ["PASSED"] = "from-outside"
    result = run(program, "--env", "TZ=UTC", "--secret", f"KEY={token}", "--write-manifest", written, guest=("env",))
    assert b"KEY=hunter2" in result.stdout
    text = written.read_text()
    assert "hunter2" not in text
    assert 'TZ = "UTC"' in text
    assert 'env = ["KEY"]' in text
    again = run(run.directory, "--grant", "asked", "--secret", f"KEY={token}")
    assert again.stdout == result.stdout


@pytest.mark.any_user
@pytest.mark.parametrize("program", ["tool.wasm"], indirect=True)
def test_places_where_it_can_not_be_written_are_told_before_anything_runs(run, program: Path) -> None:
    """An existing file, and a place from which the program can't be named: nothing runs, nothing is overwritten."""
    mine = run.file("Component.toml", "mine")
    result = run(program, "--write-manifest", mine, guest=("print", "ran"))
    assert result.code == 65
    assert "it exists" in result.stderr
    assert mine.read_text() == "mine"
    elsewhere = run.folder("elsewhere")
    result = run(program, "--write-manifest", elsewhere / "Component.toml", guest=("print", "ran"))
    assert result.code == 65
    assert "beside the program" in result.stderr
    assert b"ran" not in result.stdout


@pytest.mark.slow
@pytest.mark.toolchain
def test_an_interpreter_of_preview_2_runs_again_under_what_was_written(run) -> None:
    """QuickJS with its program (a third party's interpreter): the example's manifest, learnt anew, gives the same."""
    subprocess.run([ROOT / "scripts/build-guests", "json-transform"], check=True, timeout=500, capture_output=True)
    place = run.directory / "component"
    shutil.copytree(ROOT / "examples/json-transform", place)
    for path in (place, *place.rglob("*")):
        if os.geteuid() == 0:
            os.chown(path, 65534, 65534)
    learnt = place / "Learnt.toml"
    first = run(place, "--grant", "asked", "--write-manifest", learnt)
    assert first.code == 0, first.stderr
    learnt.replace(place / "Component.toml")
    again = run(place, "--grant", "asked", "--json")
    document = again.document()
    assert document["denials"] == []
    assert document["stdout"] == first.stdout.decode()


@pytest.mark.needs_user
@pytest.mark.parametrize("program", ["tool.wasm"], indirect=True)
def test_dev_allows_the_project_and_lists_the_rest(run, program: Path) -> None:
    """--dev reads and writes beneath the working directory, keeps hidden names out, and lists what else was wanted."""
    run.file("in/a.txt", "content\n")
    run.file(".git/config", "hidden\n")
    run.file("in/.env", "hidden\n")
    names = ("cat in/a.txt", "write out.txt made", "cat .git/config", "cat in/.env", "cat /etc/hostname")
    guest = tuple(" , ".join(names).split())
    done = run(program, "--dev", guest=guest)
    assert done.stdout.startswith(b"content\n"), done.stderr
    assert b"hidden" not in done.stdout
    assert (run.directory / "out.txt").read_text() == "made"
    wanted = done.stderr.partition("also wanted, and not allowed:")[2]
    for name in (f"{run.directory}/.git/config", f"{run.directory}/in/.env", "/etc/hostname"):
        assert name in wanted
    assert wanted.count("begin with a dot") == 2
    assert done.stderr.startswith("airssys: DEV MODE: ")
    again = run(program, "--dev", "--json", "-q", guest=("cat", "in/a.txt"))
    assert again.document()["denials"] == []
    assert again.stderr.startswith("airssys: DEV MODE: ")
    records = run.records()
    of_run = [record for record in records if record["instance"] == records[-1]["instance"]]
    assert {record["trust"] for record in of_run} == {"dev"}


@pytest.mark.needs_root
def test_dev_is_refused_to_root(run) -> None:
    """What --dev allows unasked is not for uid 0: 77, with what to do, and nothing runs."""
    result = run.tool("--dev", guest=("print", "ran"))
    assert result.code == 77
    assert "not for root" in result.stderr
    assert b"ran" not in result.stdout


@pytest.mark.needs_user
def test_dev_is_refused_where_a_whole_home_lies_beneath(run) -> None:
    """In a directory that contains the user's home --dev would allow all of it: an error that says where to go."""
    home = run.directory.parent
    with run.command_line.start(
        "run", GUESTS / "tool.wasm", "--dev", "--", "print", "ran", cwd=home, HOME=str(run.directory)
    ) as process:
        stdout, stderr = process.communicate(b"", 60)
    assert process.returncode == 65
    assert b"too much" in stderr
    assert b"ran" not in stdout
