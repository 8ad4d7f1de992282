"""`[storage.shared.NAME]`: who may have it, how much it holds, and what is wrong with it."""

from __future__ import annotations

import pytest

from supervisor.config.settings import HostDirectories, Settings, SettingsError
from supervisor.config.settings_reader import read_settings
from supervisor.config.toml_source import parse_toml
from supervisor.fleet.shared_storage import shared_with

DIRECTORIES = HostDirectories("/s", "/d", "/r", "/l")


def settings_of(text: str) -> Settings:
    """Read the text as airssys.toml."""
    return read_settings([parse_toml(f"schema = 1\n{text}".encode(), "airssys.toml")], DIRECTORIES)


def test_a_component_has_what_it_is_named_in() -> None:
    """With the limit that is written, the quota's default, or none."""
    shared = settings_of(
        """[storage.shared.prices]
components = ["feed", "shop"]
quota = "10MB"
[storage.shared.notes]
components = ["shop"]
[storage.shared.archive]
components = ["shop"]
quota = "unlimited"
"""
    ).shared_storage
    limits = {
        name: [(each.name, each.limit_bytes) for each in shared_with(name, shared)]
        for name in ("feed", "shop", "other")
    }
    assert limits == {
        "feed": [("prices", 10_000_000)],
        "shop": [("prices", 10_000_000), ("notes", 100_000_000), ("archive", None)],
        "other": [],
    }
    assert settings_of("").shared_storage == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[storage.shared.Prices]\ncomponents = ["a"]', "a name of lower-case letters"),
        ("[storage.shared.prices]", "who may have it"),
        ('[storage.shared.prices]\ncomponents = ["*"]', "a name of lower-case letters"),
        ('[storage.shared.prices]\ncomponents = ["a"]\nquota = "many"', "size"),
        ('[storage.shared.prices]\ncomponents = ["a"]\nkeys = ["x"]', "keys"),
        ('[storage.own]\ncomponents = ["a"]', "own"),
    ],
)
def test_what_is_wrong_is_told(text: str, words: str) -> None:
    """Names, an empty list, a pattern in place of a name, a size, keys that there aren't."""
    with pytest.raises(SettingsError) as raised:
        settings_of(text)
    assert words in str(raised.value)
