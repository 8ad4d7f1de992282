"""What a worker lets go of its libraries: their clean pages, which come back, and nothing that was written to."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest

from ipc.messages import EngineSettings
from worker import engine_api, resident
from worker.engine import new_engine


class _Mapping:
    def __init__(self, header: str) -> None:
        span, self.rights, *_ = header.split()
        self.start, self.end = (int(number, 16) for number in span.split("-"))
        self.kib: dict[str, int] = {}


def _mappings_of(library: str) -> list[_Mapping]:
    found: list[_Mapping] = []
    wanted = False
    with open("/proc/self/smaps", encoding="utf-8") as lines:
        for line in lines:
            if not line[0].isupper():
                wanted = line.rstrip("\n").endswith(library)
                if wanted:
                    found.append(_Mapping(line))
            elif wanted and line.endswith(" kB\n"):
                name, _, value = line.partition(":")
                found[-1].kib[name] = int(value.split()[0])
    return found


def _code_kib() -> int:
    return sum(mapping.kib["Rss"] for mapping in _mappings_of(engine_api.LIBRARY) if mapping.rights == "r-xp")


@pytest.fixture
def noted() -> Iterator[None]:
    """The engine's library has been used, and what it is made of noted."""
    new_engine(EngineSettings(), None)
    before = list(resident._mappings)
    resident.note_libraries()
    yield
    resident._mappings[:] = before


def test_code_is_dropped_and_comes_back(noted: None) -> None:
    """The engine's code is in memory, then isn't, and then as much of it is as is used again."""
    assert _code_kib() > 500
    resident.let_go()
    assert _code_kib() == 0
    new_engine(EngineSettings(), None)
    assert _code_kib() > 500


def test_what_was_written_to_stays(noted: None) -> None:
    """No mapping with a page of no file is let go of, and what the library reads is what it was."""
    readable = [mapping for mapping in _mappings_of(engine_api.LIBRARY) if mapping.rights.startswith("r")]
    written = [mapping for mapping in readable if mapping.kib["Anonymous"]]
    assert any(mapping.rights == "r--p" for mapping in written), "what is made read-only after relocation"
    noted_starts = {start for start, _ in resident._mappings}
    assert noted_starts.isdisjoint(mapping.start for mapping in written)
    assert not noted_starts.isdisjoint(mapping.start for mapping in readable)
    constants = [mapping for mapping in readable if mapping.rights != "rw-p"]
    before = [ctypes.string_at(mapping.start, mapping.end - mapping.start) for mapping in constants]
    resident.let_go()
    assert [ctypes.string_at(mapping.start, mapping.end - mapping.start) for mapping in constants] == before
