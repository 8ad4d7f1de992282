"""`airssys run DIR` and `up` of what is trusted: no question, all else as before, and the records say by whom."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

GUESTS = Path(__file__).resolve().parents[1] / "guests"
MANIFEST = """schema = 1

[component]
name = "reader"
version = "1.0.0"
wasm = "tool.wasm"
args = ["cat", "/data/a.txt"]

[component.mounts]
"/data" = "{data}"

[capabilities.filesystem]
read = ["{data}/*.txt"]
"""


@pytest.fixture
def host(run):
    """A directory for the host's settings, and a function that writes them; returns the file's path."""

    def write(text: str, name: str = "etc/airssys.toml") -> Path:
        path = run.command_line.directory / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        path.write_text("schema = 1\n" + text)
        path.chmod(0o644)
        return path

    return write


@pytest.fixture
def component(run) -> Path:
    """A component that reads one file, in a directory that nobody but this user can write; and the data for it."""
    run.file("data/a.txt", "the data\n")
    directory = run.command_line.directory / "components" / "reader"
    directory.mkdir(parents=True)
    shutil.copy(GUESTS / "tool.wasm", directory / "tool.wasm")
    (directory / "Component.toml").write_text(MANIFEST.format(data=run.directory / "data"))
    for path, mode in ((directory.parent, 0o755), (directory, 0o755)):
        path.chmod(mode)
    for path in directory.iterdir():
        path.chmod(0o644)
    return directory


def test_what_lies_in_a_trusted_place_is_asked_nothing(run, host, component: Path) -> None:
    """It is granted what it asks, and each record says by which entry; elsewhere, or exposed, it is asked as ever."""
    pattern = f"{component.parent}/**"
    config = host(f'[[trust.sources]]\nlocal = "{pattern}"\n')
    result = run(component, "--config", config)
    assert (result.code, result.stdout) == (0, b"the data\n"), result.stderr
    of_run = [r for r in run.records() if r["component"] == "reader" and r["trust"] == "trusted"]
    assert {record["event"] for record in of_run} >= {"worker_starting", "file_access", "worker_ended"}
    starting = next(record for record in of_run if record["event"] == "worker_starting")
    assert starting["approval"] == f"trusted: local {pattern}"
    assert starting["detail"]["trusted_by"] == f"trust.sources[0] local {pattern} ({config}:3)"
    checked = run.other_command("trust", "check", component, "--config", config, "--json").document()
    assert starting["detail"]["package"] == checked["digest"]

    elsewhere = run.command_line.directory / "elsewhere"
    shutil.copytree(component, elsewhere)
    refused = run(elsewhere, "--config", config)
    assert (refused.code, refused.stdout) == (77, b"")
    assert "not trusted: no entry" in refused.stderr
    component.chmod(0o777)
    exposed = run(component, "--config", config)
    assert (exposed.code, exposed.stdout) == (77, b"")
    assert f"{component} is writable by others (mode 0777)" in exposed.stderr
    granted = run(component, "--config", config, "--grant", "asked")
    assert granted.code == 0
    assert run.records()[-1]["trust"] == "unknown"


def test_trust_changes_nothing_but_the_question(run, host, component: Path) -> None:
    """Grants that name nothing in particular are refused, --grant FILE grants less, forbidden paths stay forbidden."""
    config = host(f'[[trust.sources]]\nlocal = "{component.parent}/*"\n')
    less = run.file("less.toml", MANIFEST.format(data=run.directory / "data").replace("*.txt", "nothing.txt"))
    narrow = run(component, "--config", config, "--grant", less)
    assert narrow.code == 1
    assert "[A1203" in narrow.stderr
    broad = MANIFEST.format(data=run.directory / "data").replace("/*.txt", '/*.txt", "/**')
    (component / "Component.toml").write_text(broad)
    refused = run(component, "--config", config)
    assert refused.code == 65
    assert "too broad" in refused.stderr
    secret = run.file(".ssh/id", "secret\n")
    asks = MANIFEST.format(data=secret.parent).replace("/data/a.txt", "/data/id").replace("*.txt", "*")
    (component / "Component.toml").write_text(asks)
    forbidden = run(component, "--config", config)
    assert (forbidden.code, b"secret" in forbidden.stdout) == (1, False)
    assert "[A1101" in forbidden.stderr


@pytest.mark.needs_user  # root's warden is another user, who can't write there anyhow
def test_a_trusted_component_can_not_change_what_is_trusted(run, host, component: Path) -> None:
    """Granted all that it asks, it can't rewrite itself, add, move or link a component into the place, or move it."""
    place, work = component.parent, run.directory
    tries = (
        ("mkdir", place / "more"),
        ("rename", work / "evil", place / "evil"),
        ("rename", work / "data" / "a.txt", component / "a.txt"),
        ("link", work / "less.toml", component / "less.toml"),
        ("symlink", "tool.wasm", component / "other.wasm"),
        ("append", component / "tool.wasm", "x"),
        ("unlink", component / "tool.wasm"),
        ("write", component / "Component.toml", "x"),
    )
    (work / "evil").mkdir()
    run.file("less.toml", "x")
    words = [f'"{word}"' for each in tries for word in (*map(str, each), ",")][:-1]
    everything = f'["{place}/**", "{work}/**"]'
    manifest = MANIFEST.format(data=component).replace('"cat", "/data/a.txt"', ", ".join(words))
    (component / "Component.toml").write_text(manifest + f"write = {everything}\n")
    manifest = (component / "Component.toml").read_text().replace(f'["{component}/*.txt"]', everything)
    (component / "Component.toml").write_text(manifest)

    def names() -> list[str]:
        return sorted(str(path.relative_to(place)) for path in place.rglob("*"))

    config = host(f'[[trust.sources]]\nlocal = "{place}/**"\n')
    before = names(), [path.read_bytes() for path in sorted(component.iterdir())]
    result = run(component, "--config", config)
    assert b": ok" not in result.stdout
    assert len(result.stdout.splitlines()) == len(tries), result.stdout
    assert (
        f"{config}:3, trusted components come from there"
        in run.other_command("audit", "query", "--json").stdout.decode()
    )
    assert (names(), [path.read_bytes() for path in sorted(component.iterdir())]) == before
    control = run(component, "--grant", "asked")
    assert control.stdout.count(b": ok") >= len(tries) - 1, control.stdout  # a directory isn't moved under wider rules
    assert names() != before[0]
    assert (component / "Component.toml").read_text() == "x"


@pytest.mark.any_user  # ssh-keygen wants a user with a name
def test_what_a_trusted_key_signed_is_asked_nothing(run, host, component: Path) -> None:
    """`airssys sign` and an entry with the key: it runs; a changed byte and it is asked again, and told why."""
    key = run.command_line.directory / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True, stdin=subprocess.DEVNULL)
    public = Path(f"{key}.pub").read_text().strip()
    config = host(f'[[trust.sources]]\nsigning_key = "{public}"\nidentity = "alice@example.com"\n')
    unsigned = run(component, "--config", config)
    assert unsigned.code == 77
    assert run.other_command("sign", component, "--key", key).code == 0
    result = run(component, "--config", config)
    assert (result.code, result.stdout) == (0, b"the data\n"), result.stderr
    assert str(run.records()[-1]["approval"]).startswith("trusted: signing_key SHA256:")
    checked = run.other_command("trust", "check", component, "--config", config, "--json")
    assert (checked.code, checked.document()["trusted"]) == (0, True)
    (component / "notes").write_text("x")
    changed = run(component, "--config", config)
    assert changed.code == 77
    assert "doesn't count" in changed.stderr


def test_up_asks_nothing_of_what_is_trusted(run, host, component: Path) -> None:
    """Of two components the trusted one needs no --grant; beside one that isn't trusted nothing is started."""
    config = host(f'[[trust.sources]]\nlocal = "{component.parent}/*"\n')
    state = run.command_line.directory / "state"
    options = ("--config", config, "--until-done", "--state-dir", state)
    with run.command_line.start("up", component, *options, cwd=run.directory) as process:
        _, errors = process.communicate(b"", 60)
    assert process.returncode == 0, errors
    assert {str(record["trust"]) for record in run.records(state) if record["component"] == "reader"} == {"trusted"}
    other = run.command_line.directory / "other"
    shutil.copytree(component, other)
    (other / "Component.toml").write_text(MANIFEST.format(data=run.directory / "data").replace('"reader"', '"other"'))
    with run.command_line.start("up", component, other, *options, cwd=run.directory) as process:
        _, errors = process.communicate(b"", 60)
    assert process.returncode == 77
    assert b"not trusted" in errors
    others = [record for record in run.records(state) if record["component"] == "other" and record["trust"]]
    assert {record["event"] for record in others} <= {"approval_requested", "approval_told"}, "nothing of it ran"


def test_trust_list_and_config_check(run, host) -> None:
    """Every entry with its place, of the drop-in files too; what is too broad, expired or a link is warned about."""
    (run.command_line.directory / "real").mkdir()
    (run.command_line.directory / "link").symlink_to("real")
    link = run.command_line.directory / "link"
    config = host('[[trust.sources]]\ngit = "https://github.com/*"\n')
    drop_in = host(f'[[trust.sources]]\nlocal = "{link}/*"\n', "etc/airssys.d/more.toml")
    listed = run.other_command("trust", "list", "--config", config, "--json")
    sources = listed.document()["sources"]
    assert [(each["form"], each["origin"]) for each in sources] == [("git", f"{config}:3"), ("local", f"{drop_in}:3")]
    assert "too broad" in sources[0]["warnings"][0]
    assert "is really" in sources[1]["warnings"][0]
    shown = run.other_command("trust", "list", "--config", config)
    assert "0  git https://github.com/*" in shown.stdout.decode()
    checked = run.other_command("config", "check", "--config", config)
    assert checked.code == 0
    assert "https://github.com/*" in checked.stdout.decode()
    used = run.other_command("trust", "check", "https://github.com/x", "--config", config)
    assert (used.code, "too broad" in used.stderr) == (0, True)
    none = run.other_command("trust", "check", "https://github.com@evil.com/x", "--config", config)
    assert none.code == 77
    assert "read as https://evil.com/x" in none.stdout.decode()
