"""Who says that something is in dev mode: the host's settings by name and place, or a developer by a flag."""

from __future__ import annotations

import pytest

from supervisor.config.dev_settings import DevComponent, dev_entry
from supervisor.config.dev_settings_view import dev_warnings
from supervisor.config.settings import HostDirectories, Settings, SettingsError
from supervisor.config.settings_reader import read_settings
from supervisor.config.toml_source import parse_toml
from supervisor.grants.dev_mode import FLAG, DevMode, DevRefusedError, banner, decide_dev_mode, why_service

ENTRY = DevComponent("csv", "", "/srv/csv", "a.toml:3")


def settings_of(text: str) -> Settings:
    """Read a file that says this of dev mode."""
    source = parse_toml(f"schema = 1\n{text}".encode(), "a.toml")
    return read_settings([source], HostDirectories("/s", "/d", "/r", "/l"))


def test_components_are_named_with_their_place() -> None:
    """A directory, or what is installed; later files win name by name."""
    settings = settings_of('[dev.components]\ncsv = "/srv/csv/"\n"log@acme" = "installed"\n')
    assert settings.dev == (ENTRY, DevComponent("log", "acme", "", "a.toml:4"))
    assert settings_of("").dev == ()


@pytest.mark.parametrize(
    "line",
    [
        '"*" = "installed"',
        '"csv*" = "installed"',
        '"csv@*" = "installed"',
        '"" = "installed"',
        'csv = "*"',
        'csv = "/srv/*"',
        'csv = "/srv/**/csv"',
        'csv = "/srv/cs[v]"',
        'csv = "/srv/cs?"',
        'csv = "/"',
        'csv = "srv/csv"',
        'csv = "/srv/../csv"',
        'csv = ""',
        "csv = true",
        '"csv@acme" = "/srv/csv"',
    ],
)
def test_what_could_mean_more_than_one_is_refused(line: str) -> None:
    """No pattern, neither in a name nor in a path, and nothing that isn't a place."""
    with pytest.raises(SettingsError) as caught:
        settings_of(f"[dev.components]\n{line}\n")
    assert "a.toml:3" in str(caught.value)


def test_a_list_and_an_unknown_key_are_refused() -> None:
    """`components = ["*"]` names nothing, and no other key is known."""
    for text in ('[dev]\ncomponents = ["*"]\n', "[dev]\nall = true\n", "dev = true\n"):
        with pytest.raises(SettingsError):
            settings_of(text)


@pytest.mark.parametrize(
    ("name", "instance", "directory", "installed"),
    [
        ("csv", "", "/tmp/evil", False),
        ("csv", "", "/srv/csv/inner", False),
        ("other", "", "/srv/csv", False),
        ("csv", "", "/srv/csv", True),
        ("csv", "acme", "/srv/csv", True),
    ],
)
def test_a_name_alone_is_no_entry(name: str, instance: str, directory: str, installed: bool) -> None:
    """What calls itself so elsewhere, what lies there and is called otherwise, and what is installed: none is meant."""
    assert dev_entry((ENTRY,), name, instance, directory, installed) is None
    assert dev_entry((ENTRY,), "csv", "", "/srv/csv", False) is ENTRY
    of_installed = DevComponent("csv", "", "", "a.toml:3")
    assert dev_entry((of_installed,), "csv", "", "/anywhere", True) is of_installed
    assert dev_entry((of_installed,), "csv", "", "/anywhere", False) is None


def test_the_settings_count_for_a_service_too_and_the_flag_does_not() -> None:
    """By name it is in dev mode whoever starts it; a flag is a developer's word, for what is being written."""
    named = DevMode("dev.components.csv (a.toml:3)")
    for flag in (True, False):
        assert decide_dev_mode(flag, ENTRY, "root: …", installed=True) == named
    assert not named.here
    assert decide_dev_mode(False, None, "") is None
    assert decide_dev_mode(True, None, "") == DevMode(FLAG)
    assert DevMode(FLAG).here
    for service, installed in (("root: …", False), ("a service (…)", True), ("", True)):
        with pytest.raises(DevRefusedError, match="--dev is") as caught:
            decide_dev_mode(True, None, service, installed=installed, nameable='csv = "/srv/csv"')
        assert caught.value.exit_code == 77
        assert '[dev.components] csv = "/srv/csv"' in str(caught.value.hint)


SYSTEM = "0::/system.slice/airssys.service\n"


@pytest.mark.parametrize(
    ("uid", "environment", "cgroups", "terminal", "why"),
    [
        (0, {}, "", True, "root"),
        (1000, {}, "", False, ""),
        (1000, {"INVOCATION_ID": "0123"}, "0::/user.slice/user-1000.slice/user@1000.service/app.slice\n", True, ""),
        (1000, {"NOTIFY_SOCKET": "/run/systemd/notify"}, "", True, "NOTIFY_SOCKET"),
        (1000, {"SYSTEMD_EXEC_PID": "77"}, "", True, "systemd has started it"),
        (1000, {"SYSTEMD_EXEC_PID": "76"}, "", True, ""),
        (1000, {}, SYSTEM, False, "airssys.service"),
        (1000, {}, "4:memory:/system.slice/system-a.slice/a@1.service/inner\n", False, "a@1.service"),
        (1000, {}, SYSTEM, True, ""),
        (1000, {}, "0::/system.slice/docker-0123.scope\n", False, ""),
        (1000, {}, "0::/user.slice/user-1000.slice/session-2.scope\n", False, ""),
        (1000, {"AIRSSYS_DEV": "0"}, SYSTEM, False, "airssys.service"),
    ],
)
def test_a_service_is_told_from_a_developers_command(
    uid: int, environment: dict[str, str], cgroups: str, terminal: bool, why: str
) -> None:
    """By the kernel's word where it has one; a variable can make a command a service, and never a service a command."""
    found = why_service(uid, environment, 77, cgroups, terminal)
    assert (why in found) if why else not found


def test_it_is_said_loudly_who_says_so() -> None:
    """The banner names the line of the settings; so do the warnings, and what no approval is asked for any more."""
    assert banner(DevMode(FLAG)).startswith("DEV MODE: nobody was asked")
    assert "working directory" in banner(DevMode(FLAG))
    named = banner(DevMode("dev.components.csv (a.toml:3)"))
    assert named.startswith("DEV MODE by dev.components.csv (a.toml:3): nobody was asked")
    assert "working directory" not in named
    settings = settings_of('[dev.components]\ncsv = "installed"\n[[approvals.rules]]\nwhen = ["*"]\n')
    (warning,) = dev_warnings(settings)
    assert warning.startswith("DEV MODE of csv, what is installed (a.toml:3)")
    assert warning.endswith("no approval is needed for what that allows")
