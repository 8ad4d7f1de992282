"""What `[components]` says of a start: whether, which version, and as whom."""

from __future__ import annotations

import argparse
import os

import pytest

from supervisor.cli.start_rules import StartRefusedError, require_startable, run_as_of
from supervisor.config.settings import HostDirectories, Settings
from supervisor.config.settings_reader import read_settings
from supervisor.config.toml_source import parse_toml
from supervisor.host.identity import Identity, resolve_run_as

NOBODY = Identity("nobody", 65534, 65534, (65534,))


def settings_of(text: str) -> Settings:
    """Read a file that says this of components."""
    source = parse_toml(f"schema = 1\n{text}".encode(), "a.toml")
    return read_settings([source], HostDirectories("/s", "/d", "/r", "/l"))


@pytest.mark.parametrize(
    ("text", "instance", "version", "expected"),
    [
        ("enabled = false", "", "1.0.0", 'csv is not to be started: enabled = false of [components."csv"] in a.toml:3'),
        ("enabled = false", "acme", "1.0.0", "enabled = false"),
        ("enabled = false", "", "", "enabled = false"),
        ('version = "1.0.0"', "", "1.0.1", 'csv 1.0.1 is not to be started: version = "1.0.0"'),
        ('version = "1.0.0"', "", "1.0.0+1", "csv 1.0.0+1 is not"),
        ('version = "1.0.0"', "", "", "csv, which has no version, is not"),
        ('version = "1.0.0"', "", "1.0.0", ""),
        ("enabled = true", "", "", ""),
    ],
)
def test_what_is_written_is_held(text: str, instance: str, version: str, expected: str) -> None:
    """The refusal says which line refuses, and what to do; it is a refusal (77) and no mistake."""
    settings = settings_of(f"[components.csv]\n{text}\n")
    own = settings.component("csv", instance)
    if not expected:
        require_startable(settings, own, version, NOBODY)
        return
    with pytest.raises(StartRefusedError) as caught:
        require_startable(settings, own, version, NOBODY)
    assert expected in caught.value.message
    assert (caught.value.exit_code, bool(caught.value.hint)) == (77, True)


def test_a_start_as_somebody_else_is_refused() -> None:
    """Whoever chose the identity: it has to be the one that is written."""
    own = resolve_run_as(None, os.getuid(), {})
    settings = settings_of(f'[components.csv]\nrun_as = "{own.uid}"\n')
    require_startable(settings, settings.component("csv"), "", own)
    with pytest.raises(StartRefusedError, match="not to be run as other"):
        require_startable(settings, settings.component("csv"), "", Identity("other", own.uid + 1, 1, (1,)))


def test_the_identity_that_is_written_is_taken() -> None:
    """Where nothing is written the flag or the default; and a flag that says otherwise is kept, to be refused."""
    own = resolve_run_as(None, os.getuid(), {}).name
    arguments, flag = argparse.Namespace(run_as=None), argparse.Namespace(run_as=own)
    settings = settings_of(f'[components.csv]\nrun_as = "{own}"\n')
    assert run_as_of(arguments, settings, ["csv"]) == own
    assert run_as_of(arguments, settings, ["other"]) is None
    assert run_as_of(arguments, settings, []) is None
    assert run_as_of(flag, settings, ["csv", "./csv.wasm"]) == own
    assert run_as_of(flag, settings_of(""), ["csv"]) == own


@pytest.mark.needs_root
def test_one_supervisor_has_one_identity() -> None:
    """Components of different users are not started together."""
    settings = settings_of('[components.a]\nrun_as = "2"\n[components.b]\nrun_as = "65534"\n')
    arguments = argparse.Namespace(run_as=None)
    assert run_as_of(arguments, settings, ["a"]) == "2"
    assert run_as_of(arguments, settings, ["b", "other"]) in ("65534", None)
    with pytest.raises(StartRefusedError, match="these are to run as several: a as "):
        run_as_of(arguments, settings, ["a", "b"])
