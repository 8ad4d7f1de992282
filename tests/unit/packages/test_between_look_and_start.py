"""What is exchanged between the look at an installed package and its start is noticed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipc.messages import EngineSettings, WorkerLimits
from ipc.policy.document import PolicyDocument
from ipc.security_context import context_of
from ipc.struct import replace
from supervisor.cli.run_component import require_installed
from supervisor.cli.targets import InstalledPackage, open_installed
from supervisor.manifest import load_manifest
from supervisor.packages.store import StoreRefusedError
from supervisor.run.request import RunRequest
from supervisor.run.running import ProgramChangedError, open_program

from .conftest import Installation

GUEST = Path(__file__).resolve().parents[2] / "guests/hello.wasm"
MANIFEST = """schema = 1

[component]
name = "c"
version = "1.0.0"
wasm = "p.wasm"
"""


@pytest.fixture
def found(installation: Installation, tmp_path: Path) -> Iterator[InstalledPackage]:
    """An installed component that was just verified, but for its program."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "Component.toml").write_text(MANIFEST)
    shutil.copy(GUEST, source / "p.wasm")
    installation.install(source)
    with open_installed("c", installation.state, unread_program=True) as package:
        yield package


def _exchange(found: InstalledPackage, name: str, data: bytes) -> None:
    path = os.path.join(found.package.directory, name)
    os.chmod(path, 0o600)
    Path(path).write_bytes(data)


def test_another_manifest(found: InstalledPackage) -> None:
    """The manifest that is read must be the one that was verified; control: it is, before it was exchanged."""
    directory = found.package.directory
    require_installed(load_manifest(directory), found)
    _exchange(found, "Component.toml", MANIFEST.replace("1.0.0", "1.0.1").encode())
    with pytest.raises(StoreRefusedError, match=r"Component\.toml holds something else"):
        require_installed(load_manifest(directory), found)


def test_another_program(found: InstalledPackage) -> None:
    """The bytes that are compiled must be those that were installed; control: they are, before they were exchanged."""
    path = os.path.join(found.package.directory, "p.wasm")
    request = _request(path, found.program_sha256)
    open_program(request).close()
    data = bytearray(GUEST.read_bytes())
    data[-1] ^= 1
    _exchange(found, "p.wasm", bytes(data))
    with pytest.raises(ProgramChangedError):
        open_program(request)
    open_program(replace(request, context=replace(request.context, component_digest=""))).close()


def _request(path: str, sha256: str) -> RunRequest:
    engine = EngineSettings()
    limits = WorkerLimits(memory_bytes=1 << 20, output_bytes=0)
    document = PolicyDocument(component="c", instance="")
    context = context_of(document, "asked", version="1.0.0", component_digest=sha256)
    return RunRequest(context, path, (), (), (), document, limits, engine)
