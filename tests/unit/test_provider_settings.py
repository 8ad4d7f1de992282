"""`[providers.NAME]`: values, defaults, what is wrong with them, and what can be seen of the programs beforehand."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest

from supervisor.cli import config as config_command
from supervisor.cli import doctor
from supervisor.config.settings import HostDirectories, SettingsError
from supervisor.config.settings_reader import read_settings
from supervisor.config.toml_source import parse_toml
from supervisor.fleet.provider_check import provider_problems
from supervisor.fleet.provider_settings import ProviderSettings
from supervisor.host.surroundings import provider_directories

DIRECTORIES = HostDirectories("/s", "/d", "/r", "/l")


def providers_of(text: str) -> tuple[ProviderSettings, ...]:
    """Read the text as airssys.toml."""
    return read_settings([parse_toml(f"schema = 1\n{text}".encode(), "airssys.toml")], DIRECTORIES).providers


def test_a_provider_is_read_with_its_defaults() -> None:
    """It serves the capability of its own name, unless it says which."""
    first, second = providers_of(
        """[providers.sql]
capabilities = ["customers", "orders"]
python = "shop.sql:Sql"
path = "/srv/programs"
timeout = "500ms"
max_payload = "2MiB"
memory = "64MB"
parallel = 4
env = { TZ = "UTC" }
settings.database = "/srv/a.db"
settings.actions.read = "select 1"
[providers.rates]
command = ["/usr/bin/rates", "--eu", "--eu"]
"""
    )
    assert first == ProviderSettings(
        "sql",
        ("customers", "orders"),
        "shop.sql:Sql",
        "/srv/programs",
        (),
        500_000_000,
        2 << 20,
        64_000_000,
        4,
        (("TZ", "UTC"),),
        (("database", "/srv/a.db"), ("actions", {"read": "select 1"})),
    )
    assert second == ProviderSettings("rates", ("rates",), command=("/usr/bin/rates", "--eu", "--eu"))
    assert (second.timeout_ns, second.max_payload_bytes, second.parallel) == (10 * 10**9, 10**6, 1)


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ("[providers.a]\n", "providers.a", "one of python and command, got neither"),
        ('[providers.a]\npython = "m:f"\ncommand = ["/x"]\n', "providers.a", "one of python and command, got both"),
        ('[providers.a]\npython = "m"\n', "providers.a.python", 'an entry point, "module:function"'),
        ('[providers.a]\npython = "../m:f"\n', "providers.a.python", "an entry point"),
        ('[providers.a]\ncommand = ["x"]\n', "providers.a.command", "an absolute path, and its arguments"),
        ("[providers.a]\ncommand = []\n", "providers.a.command", "an absolute path, and its arguments"),
        ('[providers.a]\ncommand = ["/x"]\npath = "/p"\n', "providers.a.path", "path beside python only"),
        ('[providers.a]\npython = "m:f"\npath = "p"\n', "providers.a.path", "an absolute path"),
        ('[providers.a]\npython = "m:f"\ntimeout = "0s"\n', "providers.a.timeout", "a duration from 1ms to 1h"),
        (
            '[providers.a]\npython = "m:f"\nmax_payload = "3MiB"\n',
            "providers.a.max_payload",
            "a size of at most 2560KiB",
        ),
        ('[providers.a]\npython = "m:f"\nmemory = "1MB"\n', "providers.a.memory", "a size of at least 16MB"),
        ('[providers.a]\npython = "m:f"\nmemory = "unlimited"\n', "providers.a.memory", "a size of at least 16MB"),
        ('[providers.a]\npython = "m:f"\nparallel = 0\n', "providers.a.parallel", "an integer from 1 to 16"),
        ('[providers.a]\npython = "m:f"\nsettings = 1\n', "providers.a.settings", "a table"),
        ('[providers.a]\npython = "m:f"\nsettings.d = 2026-01-01\n', "providers.a.settings", "texts, integers"),
        ('[providers.a]\npython = "m:f"\npayload = "1MB"\n', "providers.a.payload", 'did you mean "max_payload"?'),
        ('[providers.A]\npython = "m:f"\n', "providers.A", "a name of lower-case letters"),
        ('[providers.a]\npython = "m:f"\nenv = { "A=B" = "1" }\n', 'providers.a.env."A=B"', "environment variable"),
        (
            '[providers.a]\npython = "m:f"\n[providers.b]\ncapabilities = ["a"]\npython = "m:f"\n',
            "providers.b.capabilities",
            'a capability that one provider serves, got "a", as a',
        ),
        (
            "".join(f'[providers.p{n}]\npython = "m:f"\nparallel = 16\n' for n in range(3)),
            "providers",
            "at most 32 processes of all providers",
        ),
    ],
)
def test_what_is_wrong_is_named(text: str, key: str, expected: str) -> None:
    """File, line, key, what was expected and what was found."""
    with pytest.raises(SettingsError) as raised:
        providers_of(text)
    assert f"{key}: expected" in str(raised.value)
    assert expected in str(raised.value)


def problems_of(provider: ProviderSettings) -> list[str]:
    """What can be seen to be wrong."""
    return [f"{each.key}: {each.problem}" for each in provider_problems((provider,))]


def test_a_program_that_is_not_there_is_seen_before_it_is_started(tmp_path: Path) -> None:
    """A module, a directory, an executable; nothing of them is run."""
    os.chmod(tmp_path, 0o755)
    module = tmp_path / "rates_of_today.py"
    module.write_text("raise SystemExit('it was run')\n")
    module.chmod(0o644)
    place = str(tmp_path)

    def python(entry: str, path: str = "") -> list[str]:
        return problems_of(ProviderSettings("a", ("a",), entry, path))

    def command(program: str) -> list[str]:
        return problems_of(ProviderSettings("a", ("a",), command=(program,)))

    assert python("rates_of_today:f", place) == []
    assert python("json:loads") == []
    assert python("rates_of_today:f") == ["python: there is no module rates_of_today"]
    assert python("m:f", f"{place}/none") == [f"path: {place}/none: no such directory"]
    assert command("/usr/bin/env") == []
    assert command(f"{place}/none") == [f"command: {place}/none: no such file or directory"]
    assert command(str(module)) == [f"command: {module}: it may not be executed"]
    assert command(place) == [f"command: {place}: not a regular file"]


def test_a_program_that_others_can_change_is_none(tmp_path: Path) -> None:
    """Whoever can write it would be the provider; the directory counts as well, a sticky one doesn't."""
    os.chmod(tmp_path, 0o755)
    module = tmp_path / "rates_of_today.py"
    module.touch()
    provider = ProviderSettings("a", ("a",), "rates_of_today:f", str(tmp_path))
    module.chmod(0o664)
    assert problems_of(provider) == [f"python: {module}: others than its owner can write it (mode 0664)"]
    module.chmod(0o644)
    os.chmod(tmp_path, 0o777)
    assert problems_of(provider) == [f"python: {tmp_path}: others than its owner can write it (mode 0777)"]
    os.chmod(tmp_path, 0o1777)
    assert problems_of(provider) == []


def test_what_can_not_be_started_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By config check and doctor, with the line that is at fault and what mends it; one that can be is named, too."""
    os.chmod(tmp_path, 0o755)
    config = tmp_path / "airssys.toml"
    config.write_text(
        f'schema = 1\n[providers.bad]\npython = "bad:f"\npath = "{tmp_path}"\n'
        '[providers.env]\ncommand = ["/usr/bin/env"]\n'
    )
    config.chmod(0o644)
    args = argparse.Namespace(config=str(config), config_command="check", json=False)
    assert config_command.run(args) == 65
    assert capsys.readouterr().err.splitlines() == [
        f"{config}:3: providers.bad.python: there is no module bad",
        f"    put bad.py into {tmp_path}",
    ]
    assert doctor.find_providers(str(config)) == [
        ("bad", "bad:f", "there is no module bad", f"put bad.py into {tmp_path}"),
        ("env", "/usr/bin/env", "", ""),
    ]
    (tmp_path / "bad.py").touch(0o644)
    assert config_command.run(args) == 0
    capsys.readouterr()
    config.write_text("schema = 2\n")
    ((name, _, problem, mend),) = doctor.find_providers(str(config))
    assert (name, mend) == ("airssys.toml", "airssys config check")
    assert "schema" in problem


def test_no_component_writes_where_a_providers_program_is(tmp_path: Path) -> None:
    """The directory as it is written, and what it really is."""
    real = tmp_path / "real"
    real.mkdir()
    (real / "prog").touch()
    (tmp_path / "link").symlink_to(real)
    given = (
        ProviderSettings("a", ("a",), "m:f", str(tmp_path / "link")),
        ProviderSettings("b", ("b",), command=(str(tmp_path / "link" / "prog"),)),
        ProviderSettings("c", ("c",), "json:loads"),
    )
    assert provider_directories(given) == (str(tmp_path / "link"), str(real))
