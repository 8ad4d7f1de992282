"""`airssys install` and what follows, on a real component: installed, run, edited, upgraded, rolled back, removed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from on_terminal import run_on_terminal

from ipc.struct import replace

GUESTS = Path(__file__).resolve().parents[2] / "guests"
MANIFEST = """schema = 1

[component]
name = "reader"
version = "1.0.0"
wasm = "tool.wasm"
args = ["cat", "${component}/own/a.txt"]

[component.mounts]
"/" = "/"

[capabilities.filesystem]
read = ["${component}/own/*.txt"]
"""


@pytest.fixture
def own(run, short_dir: Path, shared_state: Path):
    """The command line with a state directory of the test's own, which has what was compiled elsewhere."""
    state = short_dir / "own"
    state.mkdir(mode=0o700)
    shutil.copytree(shared_state / "cache", state / "cache") if (shared_state / "cache").is_dir() else None
    return replace(run, state=state)


@pytest.fixture
def source(run) -> Path:
    """A component directory that prints a file of its own."""
    directory: Path = run.folder("source")
    shutil.copy(GUESTS / "tool.wasm", directory / "tool.wasm")
    (directory / "Component.toml").write_text(MANIFEST)
    (directory / "own").mkdir()
    (directory / "own/a.txt").write_text("its own\n")
    return directory


def _change(source: Path, old: str, new: str) -> None:
    manifest = source / "Component.toml"
    manifest.write_text(manifest.read_text().replace(old, new))


def _active(own) -> dict[str, Any]:
    listed = own.other_command("list", "--json").document()["installed"]
    return next(each for each in listed if each["active"])


def test_a_directory_that_calls_itself_as_what_is_installed(own, source: Path, short_dir: Path) -> None:
    """It gets nothing of the other's: neither its data nor what the host says of the name; its own source may."""
    _change(
        source, '["cat", "${component}/own/a.txt"]', '["write", "${data}/secret", "ours", ",", "cat", "${data}/secret"]'
    )
    _change(source, 'read = ["${component}/own/*.txt"]', 'read = ["${data}/**"]\nwrite = ["${data}/**"]')
    assert own.other_command("install", "./source").code == 0
    assert b"ours" in own("reader", "--grant", "asked").stdout
    stranger = source.parent / "stranger"
    shutil.copytree(source, stranger)
    _change(stranger, '"write", "${data}/secret", "ours", ",", ', "")
    for command in ((stranger,), ("./stranger",)):
        refused = own(*command, "--grant", "asked")
        assert (refused.code, refused.stdout) == (77, b""), refused.stderr
        assert "[A3102]" in refused.stderr
    record = [each for each in own.records() if each["event"] == "run_refused"][-1]
    assert (record["code"], record["component"]) == ("A3102", "reader")
    assert b"ours" in own(source, "--grant", "asked").stdout, "where it was installed from"
    apart = replace(own, state=short_dir / "apart")
    tried = apart(stranger, "--grant", "asked")
    assert tried.code == 1, tried.stderr
    assert b"ENOENT" in tried.stdout, "a state of its own has nothing of it"


def test_from_installed_to_removed(own, source: Path) -> None:
    """Each command does what it says on a component that runs, and leaves a record."""
    assert own.other_command("list").stdout == b"nothing is installed\n"
    done = own.other_command("install", "./source")
    assert done.code == 0, done.stderr
    assert b"to run it: airssys run reader" in done.stdout
    first = _active(own)
    assert (first["name"], first["version"], first["provenance"]["kind"]) == ("reader", "1.0.0", "directory")
    shutil.rmtree(source / "own")  # what is installed needs its source no more
    ran = own("reader", "--grant", "asked")
    assert (ran.code, ran.stdout) == (0, b"its own\n"), ran.stderr
    refused = own("reader")
    assert refused.code == 77
    assert "there is no terminal to ask on" in refused.stderr
    shown = own.other_command("show", "reader", "--json").document()
    assert shown["installed"]["package"] == first["package"]
    assert own.other_command("explain", "reader", "filesystem.read", "/etc/hostname").code == 77
    assert own.other_command("check", "reader").code == 0

    _change(source, "1.0.0", "1.1.0")
    _change(source, 'read = ["', 'read = ["/etc/hostname", "')
    (source / "own").mkdir()
    (source / "own/a.txt").write_text("newer\n")
    assert own.other_command("diff", "reader", "./source").code == 1
    wider = own.other_command("upgrade", "reader")
    assert wider.code == 77
    assert "it could do more:" in wider.stderr
    assert "[A3104]" in wider.stderr
    assert _active(own) == first
    told = own.other_command("upgrade", "reader", "--yes", "--json").document()
    assert told["before"] == {"version": "1.0.0", "package": first["package"]}
    assert told["comparison"]["verdict"] == "wider"
    assert own("reader", "--grant", "asked").stdout == b"newer\n"
    kept_up = own.other_command("up", "reader", "--grant", "asked", "--until-done", "--state-dir", own.state)
    assert kept_up.code == 0, kept_up.stderr
    assert b"newer" in own.other_command("logs", "reader", "--state-dir", own.state).stdout
    back = own.other_command("rollback", "reader")
    assert back.stdout == b"reader is 1.0.0 again, in the place of 1.1.0\n"
    assert own("reader", "--grant", "asked").stdout == b"its own\n"
    assert "is the active one" in own.other_command("remove", "reader", "--version", "1.0.0").stderr
    removed = own.other_command("remove", "reader")
    assert removed.code == 0, removed.stderr
    assert b"its data stay: " in removed.stdout
    assert os.listdir(f"{own.state}-packages") == ["lock"]
    assert own("reader").code == 65
    events = [each["event"] for each in own.records() if str(each["event"]).startswith("component_")]
    assert events == [
        "component_installed",
        "component_install_refused",
        "component_installed",
        "component_activated",
        "component_removed",
        "component_removed",
    ]
    assert own.other_command("audit", "verify").code == 0


def test_what_was_edited_in_the_store_is_not_run(own, source: Path) -> None:
    """An edited program, manifest or file is refused in two lines and put on record; control: it runs before."""
    assert own.other_command("install", "./source", "--as", "reader@acme").code == 0
    assert own("reader@acme", "--grant", "asked").stdout == b"its own\n"
    package = Path(f"{own.state}-packages") / _active(own)["package"]
    for name in ("own/a.txt", "Component.toml", "tool.wasm"):
        file = package / name
        before = file.read_bytes()
        file.chmod(0o644)
        file.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        refused = own("reader@acme", "--grant", "asked")
        assert (refused.code, refused.stdout) == (77, b"")
        assert "Traceback" not in refused.stderr
        assert f"{package} is not what was installed: {name} holds something else" in refused.stderr
        assert own.other_command("show", "reader@acme").code == 77
        assert f"{name} holds something else" in own.other_command("check", "reader@acme").stderr
        file.write_bytes(before)
    assert own("reader@acme", "--grant", "asked").code == 0
    denied = [each for each in own.records() if each["code"] == "A3101"]
    assert [each["decision"] for each in denied] == ["denied"] * 3
    file.write_bytes(b"changed")
    _change(source, "1.0.0", "1.1.0")
    blind = own.other_command("upgrade", "reader@acme")
    assert blind.code == 77
    assert "so it can't be compared; to replace it all the same: --yes" in blind.stderr
    assert own.other_command("upgrade", "reader@acme", "--yes").code == 0
    assert own("reader@acme", "--grant", "asked").code == 0


@pytest.mark.any_user
def test_a_wider_version_is_asked_about(own, source: Path, deadline) -> None:
    """On a terminal the difference is shown and asked about; anything but yes leaves what was active."""
    assert own.other_command("install", "./source").code == 0
    _change(source, "1.0.0", "1.1.0")
    _change(source, 'read = ["', 'read = ["/etc/hostname", "')
    for answer, code, version in (("", 77, "1.0.0"), ("y", 0, "1.1.0")):
        found, shown = run_on_terminal(
            [own.command_line_path, "upgrade", "reader"],
            answer,
            deadline.left_s,
            cwd=own.directory,
            env=own.environment,
            typed_before=b"y\n",  # before the question: thrown away
        )
        assert found == code, shown
        assert "it could do more:" in shown
        assert _active(own)["version"] == version


def test_the_next_version_in_a_file_of_its_own(own, source: Path, deadline) -> None:
    """Upgraded by its name it is asked about on a terminal, with both sources; refused by itself and as an install."""
    for version in ("1.0.0", "1.1.0"):
        _change(source, "1.0.0", version)
        assert own.other_command("pack", "./source", "-o", f"reader-{version}.tar.gz").code == 0
    assert own.other_command("install", "reader-1.0.0.tar.gz").code == 0
    by_itself = own.other_command("upgrade", "reader", "reader-1.1.0.tar.gz")
    assert (by_itself.code, "--replace-source" in by_itself.stderr) == (77, True)
    installed = own.other_command("install", "reader-1.1.0.tar.gz")
    assert (installed.code, "airssys upgrade reader SOURCE" in installed.stderr) == (77, True)
    for answer, code, version in (("", 77, "1.0.0"), ("y", 0, "1.1.0")):
        found, shown = run_on_terminal(
            [own.command_line_path, "upgrade", "reader", "reader-1.1.0.tar.gz"],
            answer,
            deadline.left_s,
            cwd=own.directory,
            env=own.environment,
            typed_before=b"y\n",  # before the question: thrown away
        )
        assert found == code, shown
        assert f"came from archive {own.directory}/reader-1.0.0.tar.gz, signed by nobody" in shown
        assert f"from archive {own.directory}/reader-1.1.0.tar.gz, signed by nobody" in shown
        assert _active(own)["version"] == version
    last = [each for each in own.records() if each["event"] == "component_installed"][-1]
    assert last["detail"]["before"]["source"] == f"archive {own.directory}/reader-1.0.0.tar.gz"
    assert own.other_command("upgrade", "reader").code == 0  # from there, from now on


@pytest.mark.any_user  # ssh-keygen runs for no user without an entry in /etc/passwd
def test_who_signed_both_may_come_from_elsewhere(own, source: Path) -> None:
    """The same key over both packages makes one source of two directories; control: unsigned, it is another source."""
    key = own.directory / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True, timeout=60)
    assert own.other_command("sign", "./source", "--key", key).code == 0
    assert own.other_command("install", "./source").code == 0
    other = own.directory / "other"
    shutil.copytree(source, other)
    _change(other, "1.0.0", "1.1.0")
    refused = own.other_command("install", "./other")  # what was signed was 1.0.0
    assert refused.code == 77
    assert "[A3102]" in refused.stderr
    assert own.other_command("sign", "./other", "--key", key).code == 0
    told = own.other_command("install", "./other", "--json").document()["installed"]
    fingerprint = told["signers"][0]["fingerprint"]
    assert (told["version"], fingerprint[:7]) == ("1.1.0", "SHA256:")
    assert f"signed by {fingerprint} (ssh-ed25519)" in own.other_command("show", "reader").stdout.decode()
    installed = [each for each in own.records() if each["event"] == "component_installed"]
    assert [each["detail"]["signers"] for each in installed] == [[fingerprint]] * 2


@pytest.mark.any_user
def test_what_is_wrong_with_a_source_is_told(own, source: Path) -> None:
    """A missing directory, a bad manifest, a program that is none, another name: two lines, and nothing stays."""
    cases: list[tuple[tuple[str, ...], str]] = [
        (("./nowhere",), "no such file or directory"),
        (("./source", "--as", "other"), "is called reader, not other"),
        (("./source", "--as", "Reader@@"), "expected NAME or NAME@INSTANCE"),
    ]
    for arguments, words in cases:
        done = own.other_command("install", *arguments)
        assert done.code == 65
        assert words in done.stderr
        assert "Traceback" not in done.stderr
    (source / "tool.wasm").write_bytes(b"\0asm\1\0\0\0garbage")
    broken = own.other_command("install", "./source", "--json")
    assert (broken.code, json.loads(broken.stdout)["error"]["hint"]) == (65, "nothing was installed")
    _change(source, "schema = 1", "schema = 9")
    bad = own.other_command("install", "./source")
    assert bad.code == 65
    assert bad.stderr.startswith("./source/Component.toml:1:") or "./source/Component.toml" in bad.stderr
    assert set(os.listdir(f"{own.state}-packages")) == {"lock"}
    assert own.other_command("list").stdout == b"nothing is installed\n"


@pytest.mark.any_user
def test_what_came_from_a_trusted_place_is_asked_nothing(own, source: Path) -> None:
    """An installed component is trusted by where it came from, whatever lies there now; control: not from elsewhere."""
    real = os.path.realpath(source)
    config = own.directory / "airssys.toml"
    config.write_text(f'schema = 1\n[[trust.sources]]\nlocal = "{real}"\n')
    config.chmod(0o600)
    trusting = ("--config", config)
    for path in (source, source.parent, *source.rglob("*")):
        if os.geteuid() == 0:
            os.chown(path, 0, 0)
        path.chmod(0o755 if path.is_dir() else 0o644)
    done = own.other_command("install", "./source", *trusting)
    assert done.code == 0, done.stderr
    assert b"trusted by trust.sources[0] local" in done.stdout
    shutil.rmtree(source)
    ran = own("reader", *trusting)
    assert (ran.code, ran.stdout) == (0, b"its own\n"), ran.stderr
    starting = [each for each in own.records() if each["event"] == "worker_starting"][-1]
    assert starting["trust"] == "trusted"
    assert starting["detail"]["package"] == _active(own)["package"]
    assert own("reader").code == 77
    config.write_text('schema = 1\n[[trust.sources]]\nlocal = "/srv/elsewhere"\n')
    refused = own("reader", *trusting)
    assert refused.code == 77
    assert "not trusted: " in refused.stderr
