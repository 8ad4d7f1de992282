"""`airssys run DIR`: what a manifest asks is granted once, for exactly these bytes; secrets show up nowhere."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from on_terminal import run_on_terminal

GUESTS = Path(__file__).resolve().parents[1] / "guests"
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SECRET = "s3cr3t-8d1f02c7-never-shown"

MANIFEST = """schema = 1

[component]
name = "reader"
version = "1.0.0"
wasm = "tool.wasm"
args = ["cat", "/data/a.txt", ",", "env"]
env = { KIND = "test" }

[parameters]
data = { type = "directory", description = "what it reads" }

[component.mounts]
"/data" = "${param.data}"

[capabilities.filesystem]
read = ["${param.data}/*.txt"]
"""


@pytest.fixture
def component(run) -> Path:
    """A component directory that reads one file, and the data for it."""
    directory = run.folder("component")
    shutil.copy(GUESTS / "tool.wasm", directory / "tool.wasm")
    (directory / "Component.toml").write_text(MANIFEST)
    run.file("data/a.txt", "the data\n")
    run.file("data/b.csv", "other data\n")
    return directory


def test_grant_asked(run, component: Path) -> None:
    """--grant asked grants what the manifest asks, with the parameter's real path; arguments and env are its own."""
    result = run(component, "--grant", "asked", "--set", "data=data")
    assert (result.code, result.stdout) == (0, b"the data\nKIND=test\n"), result.stderr
    more = run(component, "--grant", "asked", "--set", "data=data", guest=("cat", "/data/b.csv"))
    assert more.code == 1
    assert f"denied filesystem.read {run.directory}/data/b.csv [A1203" in more.stderr
    starts = [r for r in run.records() if r["event"] == "worker_starting" and r["component"] == "reader"]
    assert starts[-1]["approval"] == "--grant asked"


@pytest.mark.any_user
def test_grant_file(run, component: Path) -> None:
    """--grant FILE grants less than was asked, and can't grant more."""
    less = run.file("less.toml", MANIFEST.replace("*.txt", "nothing.txt"))
    result = run(component, "--grant", less, "--set", "data=data")
    assert result.code == 1
    assert b"the data" not in result.stdout
    assert "[A1203" in result.stderr
    more = run.file("more.toml", MANIFEST + 'write = ["${param.data}/"]\n')
    refused = run(component, "--grant", more, "--set", "data=data")
    assert refused.code == 65
    assert "doesn't ask for filesystem.write" in refused.stderr


@pytest.mark.any_user
def test_without_a_terminal_nothing_is_granted(run, component: Path) -> None:
    """Nobody can be asked: 77, what it asks for is printed, and nothing ran."""
    before = len([r for r in run.records() if r["event"] == "worker_starting"])
    result = run(component, "--set", "data=data")
    assert result.code == 77
    assert result.stdout == b""
    assert f"{run.directory}/data" in result.stderr
    assert "--grant asked" in result.stderr
    assert len([r for r in run.records() if r["event"] == "worker_starting"]) == before
    refused = [r for r in run.records() if r["event"] == "run_refused"][-1]
    assert (refused["decision"], refused["actor"]) == ("denied", f"uid {os.getuid()}")
    told = run(component, "--set", "data=data", "--json")
    assert (told.code, told.document()["error"]["code"]) == (77, "not_granted")


def _on_a_terminal(run, component: Path, answer: str | int | None, deadline) -> tuple[int, str]:
    """Run on a pseudo-terminal; answer the question, by a line or a signal; return exit code and what was shown."""
    command = [run.command_line_path, "run", str(component), "--set", "data=data"]
    return run_on_terminal(command, answer, deadline.left_s, cwd=run.directory, env=run.environment)


def test_many_harmless_requests_hide_no_dangerous_one(run, component: Path, deadline) -> None:
    """What is asked first leaves the screen: the worst stands beside the question once more, where there are many."""
    few = [f'"${{component}}/{index}"' for index in range(10)]
    for names, again in ((few, False), ([f'"${{component}}/{index}"' for index in range(100)], True)):
        everything = ", ".join(['"/home/**"', *names])
        (component / "Component.toml").write_text(MANIFEST.replace('"${param.data}/*.txt"', everything))
        code, shown = _on_a_terminal(run, component, "n", deadline)
        assert code == 77
        lines = shown[: shown.index("Grant this?")].splitlines()
        last = [line for line in lines if not line.startswith(" " * 8)][-6:]
        assert any("[high] read everything beneath /home" in line for line in last) == again, shown
        assert "[high] read everything beneath /home" in shown


@pytest.mark.any_user
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_question(run, component: Path, number: int, deadline) -> None:
    """Ctrl-C, or a kill, at the question whether to grant ends it: nothing is granted and nothing runs."""
    before = len([r for r in run.records() if r["event"] == "worker_starting"])
    code, shown = _on_a_terminal(run, component, int(number), deadline)
    assert code == 128 + number
    assert "Traceback" not in shown
    assert len([r for r in run.records() if r["event"] == "worker_starting"]) == before


def test_a_yes_is_remembered_for_exactly_these_bytes(run, component: Path, deadline) -> None:
    """On a terminal it asks once; a no runs nothing; changed bytes or requests ask again."""
    code, shown = _on_a_terminal(run, component, "n", deadline)
    assert code == 77
    assert "the data" not in shown
    code, shown = _on_a_terminal(run, component, "y", deadline)
    assert (code, "the data" in shown) == (0, True), shown
    code, shown = _on_a_terminal(run, component, None, deadline)
    assert (code, "Grant this" in shown, "the data" in shown) == (0, False, True), shown
    remembered = run(component, "--set", "data=data")
    assert (remembered.code, remembered.stdout) == (0, b"the data\nKIND=test\n")

    wasm = component / "tool.wasm"
    original = wasm.read_bytes()
    wasm.write_bytes(original + b"\x00\x05\x04test")  # a custom section
    assert run(component, "--set", "data=data").code == 77
    wasm.write_bytes(original)
    assert run(component, "--set", "data=data").code == 0
    (component / "Component.toml").write_text(MANIFEST.replace("*.txt", "*"))
    assert run(component, "--set", "data=data").code == 77


@pytest.mark.any_user
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "parameters.data"),
        (("--set", "data=../*"), "parameters.data"),
        (("--set", "data=data", "--set", "other=1"), "parameters.other"),
        (("--set", "data"), "NAME=VALUE"),
        (("--set", "data=data", "--read", "data"), "Component.toml"),
    ],
)
def test_parameters_that_are_wrong(run, component: Path, options: tuple[str, ...], words: str) -> None:
    """A missing, wrong or unknown parameter is named, and nothing runs."""
    result = run(component, "--grant", "asked", *options)
    assert result.code in (64, 65)
    assert words in result.stderr
    assert "the data" not in result.stdout.decode()


@pytest.mark.any_user
@pytest.mark.parametrize(
    ("addition", "words"),
    [
        ('[capabilities.network]\nconnect = ["https://example.com"]', "network"),
        ('[quota]\nnetwork_bandwidth = "5MB/s"', "quota.network_bandwidth"),
        ('[supervision]\nrestart = "permanent"', "supervision.restart"),
    ],
)
def test_what_nothing_enforces_is_refused(run, component: Path, addition: str, words: str) -> None:
    """A key that this version doesn't enforce is refused by name, never silently accepted."""
    (component / "Component.toml").write_text(f"{MANIFEST}\n{addition}\n")
    result = run(component, "--grant", "asked", "--set", "data=data")
    assert result.code == 65
    assert "not enforced by this version" in result.stderr
    assert words in result.stderr
    assert result.stdout == b""


@pytest.mark.any_user
@pytest.mark.parametrize(
    ("addition", "words"),
    [
        ('[capabilities.storage]\nread = ["a:*"]', "storage"),
        ('[capabilities.messaging]\nsend = ["other"]', "messaging"),
        ('[limits]\nmax_payload = "1MB"', "limits.max_payload"),
    ],
)
def test_what_only_a_broker_enforces_is_refused(run, component: Path, addition: str, words: str) -> None:
    """A single run has no broker: what it would enforce is refused by name, with the command that has one."""
    (component / "Component.toml").write_text(f"{MANIFEST}\n{addition}\n")
    result = run(component, "--grant", "asked", "--set", "data=data")
    assert (result.code, result.stdout) == (65, b"")
    assert words in result.stderr
    assert "airssys up" in result.stderr


@pytest.mark.any_user
def test_errors_of_a_manifest_come_together(run, component: Path) -> None:
    """Several mistakes are reported at once, each with its key."""
    text = MANIFEST.replace('version = "1.0.0"', 'version = "one"\nunknown_key = 1').replace("schema = 1", "schema = 9")
    (component / "Component.toml").write_text(text)
    result = run(component, "--grant", "asked", "--set", "data=data")
    assert result.code == 65
    for word in ("Component.toml:", "version", "unknown_key", "schema"):
        assert word in result.stderr
    (component / "Component.toml").unlink()
    assert run(component).code == 65


def test_a_secret_reaches_the_guest_and_nothing_else(run, component: Path) -> None:
    """Its value is in the guest's environment, and in no record, report, argument list or file of ours."""
    (component / "Component.toml").write_text(
        MANIFEST.replace('"env"]', '"env", ",", "wait-stdin"]') + '\n[capabilities.secrets]\nenv = ["API_TOKEN"]\n'
    )
    run.file("token", SECRET + "\n")
    options = ("--grant", "asked", "--set", "data=data")
    missing = run(component, *options)
    assert missing.code == 65
    assert "API_TOKEN" in missing.stderr
    with run.start(component, *options, "--secret", "API_TOKEN=token", "--report", "r.json") as process:
        seen = b""
        while b"API_TOKEN" not in seen or not seen.endswith(b"\n"):
            seen += process.stdout.readline()
        argument_lists = b"".join(_command_lines())
        process.stdin.close()
        assert process.wait(30) in (0, 1)
        stderr = process.stderr.read()
    assert f"API_TOKEN={SECRET}".encode() in seen
    assert SECRET.encode() not in argument_lists + stderr
    assert SECRET not in (run.directory / "r.json").read_text()
    for path in run.state.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path


def _command_lines() -> list[bytes]:
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            lines.append((process / "cmdline").read_bytes())
        except OSError:
            continue
    return lines


@pytest.mark.any_user
def test_a_secret_that_a_grant_file_takes_away_is_not_given(run, component: Path) -> None:
    """What a reviewer struck out stays out, even where a value is at hand."""
    asks = MANIFEST + '\n[capabilities.optional.secrets]\nenv = ["API_TOKEN"]\n'
    (component / "Component.toml").write_text(asks)
    run.file("token", SECRET)
    less = run.file("less.toml", MANIFEST)
    given = run(component, "--grant", "asked", "--set", "data=data", "--secret", "API_TOKEN=token")
    assert SECRET.encode() in given.stdout, given.stderr
    struck = run(component, "--grant", less, "--set", "data=data", "--secret", "API_TOKEN=token")
    assert SECRET.encode() not in struck.stdout


def test_data_and_tmp_directories(run, component: Path) -> None:
    """${data} lasts between runs, ${tmp} doesn't."""
    (component / "Component.toml").write_text(
        MANIFEST.replace('"/data" = "${param.data}"', '"/data" = "${param.data}"\n"/keep" = "${data}"\n"/t" = "${tmp}"')
        + 'write = ["${data}/", "${tmp}/"]\nlist = ["${data}/", "${tmp}/"]\n'
    )
    options = ("--grant", "asked", "--set", "data=data")
    first = run(component, *options, guest=("write", "/keep/f", "1", ",", "write", "/t/f", "1"))
    assert first.code == 0, first.stderr
    second = run(component, *options, guest=("ls", "/keep", ",", "ls", "/t"))
    assert (second.code, second.stdout) == (0, b"f\n"), second.stderr


@pytest.mark.any_user
def test_the_shipped_examples(run) -> None:
    """The two examples do what their manifests say, with a copy of their inputs."""
    shutil.copytree(EXAMPLES / "log-summary", run.directory / "log-summary")
    out = run.folder("out")
    result = run("./log-summary", "--grant", "asked", "--set", f"out={out}")
    assert result.code == 0, result.stderr
    assert [path.suffix for path in out.iterdir()] == [".json"]
    assert "0 denied" in result.summary
