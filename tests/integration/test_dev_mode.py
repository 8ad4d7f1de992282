"""Dev mode by the host's settings: loud, on record, bounded; and what a package or an environment can't do about it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.control.messages import ComponentStatus

GUESTS = Path(__file__).resolve().parents[1] / "guests"
MANIFEST = """schema = 1
[component]
name = "tool"
version = "1.2.3"
wasm = "tool.wasm"
args = ["print", "ran"]
[capabilities.filesystem]
read = ["/etc/hostname"]
"""


@pytest.fixture
def component(run) -> Callable[..., Path]:
    """Make a component called `tool` in a directory of this name, which the guest's identity owns."""

    def make(name: str = "tool", more: str = "") -> Path:
        run.file(f"{name}/Component.toml", MANIFEST + more)
        run.file(f"{name}/tool.wasm", (GUESTS / "tool.wasm").read_bytes())
        return run.directory / name

    return make


@pytest.fixture
def host(run) -> Callable[[str], Path]:
    """Write the host's settings, and return the file's path."""

    def write(text: str) -> Path:
        place = run.command_line.directory / "etc"
        place.mkdir(exist_ok=True, mode=0o755)
        path = place / "airssys.toml"
        path.write_text("schema = 1\n" + text)
        path.chmod(0o644)
        return path

    return write


def test_it_allows_its_own_directory_loudly_and_what_is_forbidden_stays_so(run, host, component) -> None:
    """By name and place nobody is asked, as root neither; hidden names, key stores and all else are kept from it."""
    place = component()
    config = host(f'[dev.components]\ntool = "{place}"\n')
    for name in ("own.txt", ".env", ".ssh/id_ed25519", "../beside.txt"):
        run.file(f"tool/{name}", f"content of {name}\n")
    files = [place / "own.txt", place / ".env", place / ".ssh/id_ed25519", run.directory / "beside.txt", "/etc/shadow"]
    guest = [word for path in files for word in ("cat", str(path), ",")]
    done = run(place, "--config", config, "-q", guest=(*guest, "write", str(place / "made.txt"), "made"))
    assert done.stdout.startswith(b"content of own.txt\n"), done.stderr
    assert done.stdout.count(b"content of") == 1
    assert (place / "made.txt").read_text() == "made"
    assert done.stderr.startswith(f"airssys: DEV MODE by dev.components.tool ({config}:3): nobody was asked")
    (started,) = [record for record in run.records() if record["event"] == "worker_starting"][-1:]
    assert started["approval"] == f"dev.components.tool ({config}:3)"
    of_run = [record for record in run.records() if record["instance"] == started["instance"]]
    assert {record["trust"] for record in of_run} == {"dev"}
    codes = {record["resource"]: record["code"] for record in of_run if record["decision"] == "denied"}
    assert codes[str(place / ".ssh/id_ed25519")] == codes["/etc/shadow"] == "A1101"
    assert {codes[str(path)] for path in files[1:2]} == {"A1301"}
    assert str(run.directory / "beside.txt") in codes


def test_neither_a_package_nor_a_variable_turns_it_on(run, host, component) -> None:
    """A package that brings settings along, says it in its manifest, or has the name elsewhere: it is asked as ever."""
    place = component()
    config = host(f'[dev.components]\ntool = "{place}"\n')
    elsewhere = component("elsewhere")
    run.file("elsewhere/airssys.toml", f'schema = 1\n[dev.components]\ntool = "{elsewhere}"\n')
    run.file("elsewhere/airssys.d/a.toml", f'schema = 1\n[dev.components]\ntool = "{elsewhere}"\n')
    (run.directory / "link").symlink_to(elsewhere)
    for target in (elsewhere, run.directory / "link", place / ".." / "elsewhere"):
        with run.command_line.start(
            *("run", target, "--config", config), AIRSSYS_DEV="1", AIRSSYS_STATE=str(run.state), cwd=elsewhere
        ) as process:
            stdout, stderr = process.communicate(b"", 60)
        assert (process.returncode, stdout) == (77, b""), stderr
        assert b"there is no terminal to ask on" in stderr
        assert b"DEV MODE" not in stderr
    said = run(component("said", "[dev]\ncomponents = true\n"), "--config", config)
    assert (said.code, b"unknown key" in said.stderr_bytes) == (65, True)
    # The controls: the very same package where the settings say it lies, and what it says of itself as the host's word.
    assert b"ran" in run(place, "--config", config).stdout
    by_host = host(f'[dev.components]\ntool = "{elsewhere}"\n')
    assert b"ran" in run(elsewhere, "--config", by_host).stdout


@pytest.mark.parametrize("what", ["place", "manifest", "program", "above"])
def test_a_place_that_others_can_write_is_not_in_dev_mode(run, host, component, what: str) -> None:
    """Anybody's component could lie there by now; with the right mode it is what was named."""
    place = component("above/tool")
    config = host(f'[dev.components]\ntool = "{place}"\n')
    paths = {"place": "", "manifest": "Component.toml", "program": "tool.wasm", "above": ".."}
    exposed = (place / paths[what]).resolve()
    mode = exposed.stat().st_mode
    exposed.chmod(mode | 0o022)
    refused = run(place, "--config", config)
    assert (refused.code, refused.stdout) == (77, b"")
    assert "tool is not for dev mode" in refused.stderr
    assert "where others can" in refused.stderr
    assert str(exposed) in refused.stderr
    assert [each["component"] for each in run.records() if each["event"] == "run_refused"][-1:] == ["tool"]
    exposed.chmod(mode)
    assert b"ran" in run(place, "--config", config).stdout


@pytest.mark.needs_root
def test_a_place_of_another_user_is_not_in_dev_mode(run, host, component) -> None:
    """It is only the supervisor's own user's, root's, or that of whom it runs as."""
    place = component()
    config = host(f'[dev.components]\ntool = "{place}"\n')
    owner = (place / "tool.wasm").stat().st_uid
    os.chown(place / "tool.wasm", 1, 1)
    refused = run(place, "--config", config)
    assert (refused.code, "belongs to uid 1" in refused.stderr) == (77, True)
    os.chown(place / "tool.wasm", owner, owner)
    assert b"ran" in run(place, "--config", config).stdout


@pytest.mark.needs_root
def test_the_flag_is_refused_to_a_service(run, host, component) -> None:
    """Of root run, call and up are refused with what could be written instead, and that is on record."""
    place = component()
    for command, more in (("run", ()), ("call", ("f",)), ("up", ())):
        refused = run.other_command(command, place, *more, "--dev")
        assert refused.code == 77, refused.stderr
        assert "--dev is not for root" in refused.stderr
        assert f'[dev.components] tool = "{place}"' in refused.stderr
        record = [each for each in run.records() if each["event"] == "run_refused"][-1]
        assert (record["component"], record["actor"]) == ("tool", "uid 0")
        assert "--dev is not for root" in record["reason"]


@pytest.mark.needs_user
def test_the_flag_is_for_what_is_written_and_not_for_a_service(run, component) -> None:
    """A developer's `up --dev` asks nobody; where the environment is a service's it is refused."""
    place = component()
    done = run.other_command("up", place, "--dev", "--until-done")
    assert done.code == 0, done.stderr
    assert b"tool: done" in done.stdout
    assert done.stderr.startswith("airssys: tool: DEV MODE: nobody was asked")
    refused = run.command_line(
        "up", place, "--dev", "--until-done", AIRSSYS_STATE=str(run.state), NOTIFY_SOCKET="/run/systemd/notify"
    )
    assert (refused.code, "$NOTIFY_SOCKET" in refused.stderr) == (77, True)
    both = run(place, "--dev", "--grant", "asked")
    assert (both.code, "exclude each other" in both.stderr) == (64, True)


def test_what_is_installed_is_in_dev_mode_by_name_only(run, host, component) -> None:
    """The flag isn't for it; the name in the settings is, and it still can't write its own package."""
    place = component()
    assert run.other_command("install", place).code == 0
    try:
        flag = run("tool", "--dev")
        assert flag.code == 77, flag.stderr
        assert 'airssys.toml: [dev.components] tool = "installed"' in flag.stderr
        config = host('[dev.components]\ntool = "installed"\n')
        (package,) = Path(f"{run.state}-packages").rglob("tool.wasm")
        guest = ("cat", str(package.parent / "Component.toml"), ",", "write", str(package.parent / "more"), "made")
        done = run("tool", "--config", config, guest=guest)
        assert done.stdout.startswith(MANIFEST.encode()), done.stderr
        assert f"write {package.parent}/more [A1101]" in done.stderr
        assert "DEV MODE by dev.components.tool" in done.stderr
        checked = run.other_command("trust", "check", "tool", "--config", config)
        assert (checked.code, f"installed from {place}" in checked.stdout.decode()) == (77, True)
        assert "DEV MODE of tool, what is installed" in checked.stderr
        both = run("tool", "--config", config, "--grant", "asked")
        assert (both.code, "--grant: tool is in dev mode" in both.stderr) == (65, True)
        # A directory of that name isn't what is installed.
        assert run(place, "--config", config).code == 77
    finally:
        assert run.other_command("remove", "tool").code == 0


def test_status_and_doctor_say_it(run, host, component) -> None:
    """config check, config show and doctor name the line; so does the status of what runs."""
    place = component()
    config = host(f'[dev.components]\ntool = "{place}"\n')
    warning = f"DEV MODE of tool, what lies in {place} ({config}:3)"
    assert warning in run.other_command("config", "check", "--config", config).stdout.decode()
    shown = run.other_command("config", "show", "--config", config)
    assert warning in shown.stderr
    assert f'dev.components.tool = "{place}"' in shown.stdout.decode()
    assert warning in run.other_command("doctor", "--config", config).stdout.decode()
    done = run.other_command("up", place, "--config", config, "--until-done", "--json")
    assert done.code == 0, done.stderr
    assert "airssys: tool: DEV MODE by dev.components.tool" in done.stderr


def test_the_settings_hold_for_each_way_to_start(run, host, component) -> None:
    """Disabled, or of another version than is written: run, call and up are refused, and that is on record."""
    place = component()
    bare = shutil.copy(place / "tool.wasm", run.directory / "tool.wasm")
    for line, reason in (("enabled = false", "enabled = false"), ('version = "1.0.0"', 'version = "1.0.0"')):
        config = host(f"[components.tool]\n{line}\n")
        for command in (
            ("run", place, "--grant", "asked"),
            ("run", bare),
            ("call", place, "f", "--grant", "asked"),
            ("call", bare, "f"),
            ("up", place, "--grant", "asked"),
        ):
            refused = run.other_command(*command, "--config", config)
            assert refused.code == 77, (command, refused.stderr)
            assert f'{reason} of [components."tool"] in {config}:3' in refused.stderr
        refusals = [each for each in run.records() if each["event"] == "run_refused"]
        assert all(reason in each["reason"] for each in refusals[-5:])
    told = run.other_command("install", place, "--config", config)
    assert b'tool 1.2.3 is not to be started: version = "1.0.0"' in told.stdout
    assert run.other_command("remove", "tool").code == 0
    config = host('[components.tool]\nversion = "1.2.3"\nenabled = true\n')
    assert b"ran" in run(place, "--config", config, "--grant", "asked").stdout


@pytest.mark.needs_root
def test_it_runs_as_whom_the_settings_say(run, host, component) -> None:
    """Its files are that user's; another user by a flag is refused."""
    place = component(more="")
    out = run.folder("out")
    os.chown(out, 2, 2)
    config = host('[components.tool]\nrun_as = "2"\n')
    run.file("grant.toml", f'schema = 1\n[capabilities.filesystem]\nwrite = ["{out}/"]\n')
    bare = shutil.copy(place / "tool.wasm", run.directory / "tool.wasm")
    done = run(bare, "--config", config, "--write", out, guest=("write", str(out / "a"), "made"))
    assert done.code == 0, done.stderr
    assert (out / "a").stat().st_uid == 2
    refused = run(bare, "--config", config, "--run-as", "nobody", "--write", out)
    assert (refused.code, "not to be run as nobody" in refused.stderr) == (77, True)
    assert b"ran" in run(place, "--config", config, "--grant", "asked").stdout


def test_status_rows_are_loud() -> None:
    """The row of a component in dev mode says so before anything else that is said of it."""
    from supervisor.control.status_view import component_json, status_row

    status = ComponentStatus(
        *("tool", "1", "command", "done", "", "/srv/tool", "", 0, 0, 0, 0, 0, 0, "exited", 0, "", "exited 0"),
        trust="dev",
        approval="--dev",
    )
    assert status_row(status, 0)[-1] == "DEV MODE; exited 0"
    assert component_json(status)["trust"] == "dev"
