"""A store, a registry and packages in directories of the test's own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ipc.audit.event import AuditEvent
from ipc.struct import Struct
from supervisor.config import places
from supervisor.packages.directory import copy_directory
from supervisor.packages.installed import Installed
from supervisor.packages.installing import enter
from supervisor.packages.naming import Permitted
from supervisor.packages.provenance import Fetched, Provenance
from supervisor.packages.registry import Registry
from supervisor.packages.store import PackageStore

AS_USUAL = Permitted()


class Installation(Struct):
    """A state directory, its store, and what was put on record."""

    state: str
    records: list[AuditEvent]

    @property
    def packages(self) -> str:
        """Where its packages are."""
        return places.packages_directory(self.state)

    def store(self) -> PackageStore:
        """Open its store."""
        return PackageStore(self.packages)

    def registry(self) -> Registry:
        """Open its registry."""
        return Registry(self.state)

    def install(
        self, source: Path, name: str = "c", version: str = "1.0.0", permitted: Permitted = AS_USUAL
    ) -> Installed:
        """Install a directory, as the command does once everybody has agreed."""
        store = self.store()
        with store.incoming() as incoming, self.registry() as registry:
            contents = copy_directory(str(source), incoming)
            fetched = Fetched(contents, b"signatures", Provenance("directory", str(source)))
            new = Installed(
                name, "", version, contents.digest, "p.wasm", fetched.provenance, str(source), (), 1, "uid 0"
            )
            enter(store, registry, incoming, fetched, new, permitted, registry.active(new.called), self.records.append)
        return new

    def left(self) -> set[str]:
        """Return the names in the store, without those that are always there."""
        return set(os.listdir(self.packages)) - {"lock"}


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    """Nothing is installed yet."""
    return Installation(str(tmp_path / "state"), [])


@pytest.fixture
def make_package(tmp_path: Path) -> Callable[..., Path]:
    """Make a component directory with these files beside its manifest and program."""

    def make(name: str = "source", **files: str) -> Path:
        directory = tmp_path / name
        (directory / "data").mkdir(parents=True, exist_ok=True)
        for path, text in {"Component.toml": "manifest", "p.wasm": "program", "data/a.txt": "a", **files}.items():
            (directory / path).write_text(text)
        return directory

    return make
