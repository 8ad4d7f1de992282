"""What the reference page of Component.toml says is enforced is what a start accepts, key by key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.manifest import load_manifest
from supervisor.manifest.enforced import not_enforced
from supervisor.manifest.values import Manifest

PAGE = Path(__file__).resolve().parents[2] / "docs/reference/component-toml.md"
NOBODY = "\N{EN DASH}"
BASE = 'schema = 1\n[component]\nname = "a"\nversion = "1.0.0"\nwasm = "a.wasm"\n'
VALUES = {
    "capabilities.filesystem": '["/srv/**"]',
    "capabilities.network": '["127.0.0.1:80"]',
    "capabilities.storage": '["k:*"]',
    "capabilities.messaging": '["b"]',
    "capabilities.secrets": '["TOKEN"]',
    "quota.memory": '"64MB"',
    "quota.storage": '"1MB"',
    "quota.message_rate": '"5/s"',
    "quota.network_bandwidth": '"1MB/s"',
    "quota.cpu_time": '"5ms/s"',
    "limits.timeout": '"1s"',
    "limits.fuel": "1",
    "limits.output": '"1MB"',
    "limits.max_payload": '"1MB"',
    "supervision.restart": '"permanent"',
    "supervision.shutdown": '"1s"',
    "supervision.depends_on": '["b"]',
}
"""A value for each key, or for each of a section."""
ALWAYS = ("component", "parameters", "capabilities.custom.NAME")
"""Sections of which nothing can be left out by itself; the last one by hand."""


def marked() -> Iterator[tuple[str, str, str]]:
    """Yield section, key and what the page says of it: ✓ (always), up (by a broker), no (by nobody)."""
    section, column = "", -1
    for line in PAGE.read_text().splitlines():
        if heading := re.match(r"##+ \[([^\]]+)\]$", line):
            section, column = heading[1], -1
        if not line.startswith("|"):
            column = -1
            continue
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells[0] == "key":
            column = cells.index("E") if "E" in cells else -1
        elif column >= 0 and section and not cells[0].startswith("-"):
            for name in re.findall(r"`([a-z_]+)`", cells[0]):
                mark = "up" if cells[column].startswith("`up`") else cells[column][:1]
                yield section, name, "no" if mark == NOBODY else mark


def written(directory: Path, text: str) -> Manifest:
    """Read a manifest with this text at its end."""
    (directory / "a.wasm").touch()
    (directory / "Component.toml").write_text(BASE + text)
    return load_manifest(str(directory))


@pytest.mark.parametrize(
    ("section", "key", "mark"), [each for each in marked() if each[0] not in ALWAYS], ids=lambda each: str(each)
)
def test_the_page_says_what_is_enforced(tmp_path: Path, section: str, key: str, mark: str) -> None:
    """A key that is marked is accepted, one that isn't is refused; what a broker enforces is accepted with one."""
    name = f"{section}.{key}"
    value = VALUES.get(name) or VALUES[section]
    manifest = written(tmp_path, f"[{section}]\n{key} = {value}\n")
    refused = [name in not_enforced(manifest, brokered=brokered) for brokered in (False, True)]
    assert refused == {"✓": [False, False], "up": [True, False], "no": [True, True]}[mark]


def test_every_section_of_the_page_is_compared() -> None:
    """Nothing is passed over: each section with marks is in the table above, or can't be left out."""
    assert {section for section, _, _ in marked()} == {
        *ALWAYS,
        *(name if name.startswith("capabilities") else name.partition(".")[0] for name in VALUES),
    }
    assert {mark for section, _, mark in marked() if section in ALWAYS[:2]} == {"✓"}


def test_a_custom_capability_is_accepted_where_the_page_says(tmp_path: Path) -> None:
    """Its actions are its own keys; a broker hands them to a provider, and nobody else does."""
    manifest = written(tmp_path, '[capabilities.custom.sql]\nactions = ["query"]\nmetadata = { region = "eu" }\n')
    assert not_enforced(manifest, brokered=True) == ()
    assert not_enforced(manifest) == ("capabilities.custom.sql.actions",)
    assert {mark for section, _, mark in marked() if section == ALWAYS[2]} == {"up"}
