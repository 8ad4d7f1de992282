"""Imports without a companion: it is missing, or hollow, within the context, and as ever afterwards."""

from __future__ import annotations

import importlib
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


def test_what_was_imported_before_stays() -> None:
    """A companion that the process has already is not taken away from it."""
    whole = importlib.import_module(COMPANION)
    with import_hollow(COMPANION), import_without(COMPANION):
        assert importlib.import_module(COMPANION) is whole
    assert sys.modules[COMPANION] is whole
