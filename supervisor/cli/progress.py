"""How a person sees that compiling goes on."""

from __future__ import annotations

import sys


class CompileProgress:
    """Shows on a terminal that compiling goes on, and says once elsewhere that it has begun."""

    def __init__(self, name: str, quiet: bool) -> None:
        """Tell of the component `name`; nothing where `quiet`."""
        self._name = name
        self._quiet = quiet
        self._shown = False

    def __call__(self, elapsed_s: float) -> None:
        """Say that it has taken so long."""
        if self._quiet:
            return
        if sys.stderr.isatty():
            print(f"\rairssys: compiling {self._name} (once) … {elapsed_s:.0f} s ", end="", file=sys.stderr, flush=True)
        elif not self._shown:
            print(f"airssys: compiling {self._name}; the result is kept", file=sys.stderr, flush=True)
        self._shown = True

    def finish(self) -> None:
        """End the progress line."""
        if self._shown and sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        self._shown = False
