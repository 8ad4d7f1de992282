"""`airssys config`: every problem with its place, and what is in force with where it came from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from supervisor.config.settings_files import load_settings
from supervisor.config.settings_view import Setting, effective_settings

RIGHT = """schema = 1
[quota.maxima]
memory = "100MB"
[[acl]]
effect = "deny"
who = "*"
action = "filesystem.read"
resource = "/srv/pii/**"
[roles.reporter]
permissions = ["filesystem.read:/var/log/**"]
[components."log-summary@acme"]
roles = ["reporter"]
parameters = { logs = "/var/log/acme" }
secrets = { API_TOKEN = { credential = "acme-token" } }
quota = { memory = "64MB" }
"""


@pytest.fixture
def config(short_dir: Path) -> Path:
    """A configuration with one drop-in, writable by nobody else."""
    directory = short_dir / "etc"
    (directory / "airssys.d").mkdir(parents=True, mode=0o755)
    file = directory / "airssys.toml"
    file.write_text(RIGHT)
    drop_in = directory / "airssys.d" / "a.toml"
    drop_in.write_text('schema = 1\n[host]\nlog = "/x/log"\n')
    for path in (directory, directory / "airssys.d"):
        path.chmod(0o755)
    for path in (file, drop_in):
        path.chmod(0o644)
    return file


def _settings(config: Path, **environment: str) -> dict[str, Setting]:
    settings = load_settings(str(config), environment, 1000)
    return {each.key: each for each in effective_settings(settings, environment, 1000, None)}


@pytest.mark.any_user
def test_a_right_configuration(airssys, config: Path) -> None:
    """The files that were read are named in their order; without any the defaults are in force."""
    result = airssys("config", "check", "--config", config)
    assert (result.code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [f"{config}: right", f"{config.parent}/airssys.d/a.toml: right"]
    document = airssys("config", "check", "--config", config, "--json").json()
    files = [str(config), f"{config.parent}/airssys.d/a.toml"]
    assert document == {"files": files, "not_enforced": [], "providers": [], "warnings": []}


@pytest.mark.any_user
def test_all_problems_are_told_at_once(airssys, config: Path) -> None:
    """Each with file, line and key, also those of a drop-in, and as one document."""
    config.write_text(RIGHT.replace('"deny"', '"forbid"').replace('"64MB"', '"64"'))
    (config.parent / "airssys.d" / "a.toml").write_text("schema = 1\n\nhots = 1\n")
    result = airssys("config", "check", "--config", config)
    assert result.code == 65
    assert f"{config}:5: acl[0].effect: expected" in result.stderr
    assert f'{config}:15: components."log-summary@acme".quota.memory: expected' in result.stderr
    assert f"{config.parent}/airssys.d/a.toml:3: hots: expected" in result.stderr
    assert result.stderr.endswith("airssys: 3 problems\n")
    document = airssys("config", "show", "--config", config, "--json").json()
    assert [problem["line"] for problem in document["error"]["problems"]] == [3, 5, 15]
    assert set(document["error"]) == {"code", "message", "hint", "problems"}


@pytest.mark.any_user
def test_what_is_read_and_not_enforced_is_named(airssys, config: Path) -> None:
    """What `airssys run` would refuse is right, and said."""
    config.write_text(RIGHT + '[components.other]\nquota = { network_bandwidth = "1MB/s" }\n')
    result = airssys("config", "check", "--config", config)
    assert result.code == 0
    assert 'components."other".quota.network_bandwidth' in result.stdout.split("not enforced", 1)[1]


@pytest.mark.any_user
def test_an_approver_who_is_not_there_is_warned_of(airssys, config: Path) -> None:
    """The file may be for another machine; on this one nobody would be answered."""
    config.write_text('schema = 1\n[control]\napprovers = ["nobdy"]\n')
    result = airssys("config", "check", "--config", config)
    assert (result.code, "warning: [control] approvers: there is no user 'nobdy'" in result.stdout) == (0, True)


@pytest.mark.any_user
def test_settings_are_shown_with_their_origin(airssys, config: Path) -> None:
    """File and line, default, environment and flag are told apart; without --origin it is TOML that reads the same."""
    result = airssys("config", "show", "--origin", "--config", config)
    assert result.code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert f'acl[0].effect = "deny"  # {config}:5' in lines
    assert f'quota.defaults.memory = "100MB"  # {config}:3' in lines
    assert 'quota.maxima.storage = "10GB"  # default' in lines
    assert f'host.state = "{airssys.state}"  # environment, $AIRSSYS_STATE' in lines
    assert "# audit.keep is not set  # default" in lines
    flagged = airssys("config", "show", "--origin", "--config", config, "--state-dir", "/q").stdout
    assert 'host.state = "/q"  # flag, --state-dir' in flagged
    document = airssys("config", "show", "--config", config, "--json").json()
    assert document["settings"]['components."log-summary@acme".quota.memory'] == {
        "value": "64MB",
        "origin": {"kind": "file", "place": str(config), "line": 15},
    }


def test_directories_of_an_ordinary_user(config: Path) -> None:
    """They come from the XDG variables, else from the home, unless a file says so; a named state moves them along."""
    found = _settings(config, HOME="/home/a", XDG_DATA_HOME="/data")
    assert (found["host.state"].value, found["host.state"].origin) == (
        "/home/a/.local/state/airssys",
        "environment, $HOME",
    )
    assert (found["host.data"].value, found["host.data"].origin) == ("/data/airssys", "environment, $XDG_DATA_HOME")
    assert (found["host.log"].value, found["host.log"].line) == ("/x/log", 3)
    moved = _settings(config, HOME="/home/a", AIRSSYS_STATE="/s")
    values = {name: moved[f"host.{name}"].value for name in ("state", "data", "run", "log")}
    assert values == {"state": "/s", "data": "/s-data", "run": "/s/run", "log": "/s"}


@pytest.mark.any_user
def test_secrets_show_where_they_come_from_and_nothing_more(airssys, config: Path) -> None:
    """The source of a secret is a setting; its value isn't in there to be shown."""
    document = json.loads(airssys("config", "show", "--config", config, "--json").stdout)
    keys = [key for key in document["settings"] if "API_TOKEN" in key]
    assert keys == ['components."log-summary@acme".secrets.API_TOKEN.credential']
