"""Imports without a companion: it is missing, or hollow, within the context, and as ever afterwards."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from ipc.imports import import_hollow, import_without

COMPANION = "colorsys"


@pytest.fixture(autouse=True)
def _never_imported() -> Iterator[None]:
    sys.modules.pop(COMPANION, None)
    yield
    sys.modules.pop(COMPANION, None)


def test_a_companion_that_is_left_out_is_missing() -> None:
    """Within the context it can't be imported, afterwards it can."""
    with import_without(COMPANION), pytest.raises(ImportError):
        importlib.import_module(COMPANION)
    assert importlib.import_module(COMPANION).rgb_to_hsv(0, 0, 0) == (0.0, 0.0, 0)


def test_a_hollow_companion_has_nothing() -> None:
    """Within the context it is imported and empty, afterwards it is itself."""
    with import_hollow(COMPANION):
        assert not hasattr(importlib.import_module(COMPANION), "rgb_to_hsv")
    assert importlib.import_module(COMPANION).rgb_to_hsv(0, 0, 0) == (0.0, 0.0, 0)


def test_a_hollow_companion_has_what_it_is_given() -> None:
    """Several can be hollow at once; each has the attributes that are named, and nothing else."""
    with import_hollow(COMPANION, "json.tool", rgb_to_hsv=None):
        assert importlib.import_module(COMPANION).rgb_to_hsv is None
        assert not hasattr(importlib.import_module("json.tool"), "main")
    assert importlib.import_module("json.tool").main


def test_a_hollow_part_of_a_package_is_itself_afterwards() -> None:
    """A part that somebody imported from its package meanwhile isn't left there."""
    import json

    sys.modules.pop("json.tool", None)
    vars(json).pop("tool", None)
    with import_hollow("json.tool"):
        exec("from json import tool", {})
    afterwards: dict[str, object] = {}
    exec("from json import tool", afterwards)
    assert hasattr(afterwards["tool"], "main")


def test_a_process_of_ours_has_the_whole_library_when_it_wants_it() -> None:
    """What `ipc.struct` leaves out of msgspec, and UUIDs, can be had later in the same process."""
    script = """
import sys
import ipc.struct
left_out = {"uuid", "platform", "msgspec.json", "msgspec.inspect", "typing_extensions"}
assert not left_out & set(sys.modules), left_out & set(sys.modules)
import uuid
import msgspec.inspect, msgspec.json
assert uuid.uuid4().version == 4
assert msgspec.inspect.type_info(int) and msgspec.json.encode(ipc.struct.to_builtins({"a": 1})) == b'{"a":1}'
"""
    subprocess.run([sys.executable, "-S", "-c", script], env={"PYTHONPATH": os.pathsep.join(sys.path)}, check=True)


def test_what_was_imported_before_stays() -> None:
    """A companion that the process has already is not taken away from it."""
    whole = importlib.import_module(COMPANION)
    with import_hollow(COMPANION), import_without(COMPANION):
        assert importlib.import_module(COMPANION) is whole
    assert sys.modules[COMPANION] is whole
