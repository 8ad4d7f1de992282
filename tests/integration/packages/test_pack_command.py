"""`airssys pack`, as a person uses it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from archives import MANIFEST, WASM

if TYPE_CHECKING:
    from conftest import Airssys

pytestmark = pytest.mark.any_user


@pytest.fixture
def component(short_dir: Path) -> Path:
    """A component directory."""
    directory = short_dir / "thing"
    directory.mkdir()
    (directory / "Component.toml").write_bytes(MANIFEST)
    (directory / "thing.wasm").write_bytes(WASM)
    return directory


def test_a_component_is_packed(airssys: Airssys, component: Path) -> None:
    """The file is named after it, in the working directory; the words and the document say which package it is."""
    said = airssys("pack", "thing")
    assert said.code == 0, said.stderr
    assert "packed thing 1.0.0: thing-1.0.0.tar.gz" in said.stdout
    document = airssys("pack", component, "-o", "other.tar.gz", "--json").json()
    assert document["path"] == str(component.parent / "other.tar.gz")
    assert document["size_bytes"] == (component.parent / "other.tar.gz").stat().st_size
    assert document["signed"] is False
    assert str(document["digest"]) in said.stdout
    one, other = (component.parent / name for name in ("thing-1.0.0.tar.gz", "other.tar.gz"))
    assert one.read_bytes() == other.read_bytes()


def test_what_cant_be_packed_is_said_in_two_lines(airssys: Airssys, component: Path) -> None:
    """From within the package, without a manifest, with one that is wrong, and with a link."""
    within = airssys("pack", ".", cwd=component)
    assert within.code == 65
    assert "airssys pack . -o ../thing-1.0.0.tar.gz" in within.stderr
    assert airssys("pack", ".", "-o", "../x.tar.gz", cwd=component).code == 0
    (component / "Component.toml").write_bytes(MANIFEST + b"unknown = 1\n")
    wrong = airssys("pack", "thing", "--json")
    assert wrong.code == 65
    assert json.loads(wrong.stdout)["error"]["problems"]
    (component / "Component.toml").write_bytes(MANIFEST)
    (component / "link").symlink_to("/etc/passwd")
    linked = airssys("pack", "thing")
    assert (linked.code, linked.stderr.count("\n")) == (65, 2)
    assert "link: a symbolic link" in linked.stderr
