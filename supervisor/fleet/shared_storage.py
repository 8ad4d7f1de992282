"""`[storage.shared.NAME]` of airssys.toml: what several components keep together. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ipc.policy.quotas import STORAGE
from ipc.struct import Struct
from supervisor.config import units
from supervisor.config.toml_reader import Section
from supervisor.manifest import checks

_DEFAULT_BYTES: Final = STORAGE.default


class SharedStorageSettings(Struct, frozen=True):
    """One storage, who may have it, and how much may lie there in all; `units.UNLIMITED` for `"unlimited"`."""

    name: str
    components: tuple[str, ...]
    quota_bytes: int

    @property
    def limit_bytes(self) -> int | None:
        """The same for the broker: None is unlimited."""
        return None if self.quota_bytes == units.UNLIMITED else self.quota_bytes


def read_shared_storage(section: Section) -> tuple[SharedStorageSettings, ...]:
    """Read `[storage]`; what is wrong is noted in the document."""
    shared = section.section("shared")
    found = tuple(_read_one(name, inner, shared) for name, inner in shared.sections())
    section.finish()
    return found


def shared_with(component: str, settings: Iterable[SharedStorageSettings]) -> tuple[SharedStorageSettings, ...]:
    """Return what the host shares with a component."""
    return tuple(each for each in settings if component in each.components)


def _read_one(name: str, section: Section, outer: Section) -> SharedStorageSettings:
    expected = checks.check_name(name)
    if expected is not None:
        outer.problem(name, expected, f'the key "{name}"')
    components = section.texts("components", checks.check_name, needed="who may have it")
    quota_bytes = section.quantity("quota", units.parse_size_bytes)
    section.finish()
    return SharedStorageSettings(name, components, _DEFAULT_BYTES if quota_bytes is None else quota_bytes)
