"""`scripts/bench [AREA…]`: runs the measurements and prints one JSON object a line, each against its baseline."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
KEYS = ("name", "p50", "p99", "unit", "n", "baseline", "baseline_p50", "ratio")
MORE = ("above_baseline",)
"""Where the budget is a difference and not a ratio, in the same unit."""

Measure = Callable[[], Iterator[dict[str, object]]]


def area_names() -> list[str]:
    """Return the areas: each module beside this one that isn't private."""
    return sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith("_"))


def load(area: str) -> tuple[Measure, str]:
    """Import one area and return its `measure` and the first line of what it says about itself."""
    module = importlib.import_module(f"bench_areas.{area}")
    measure: Measure = module.measure
    return measure, (module.__doc__ or "").strip().partition("\n")[0]


def main() -> int:
    """Measure the areas that were asked for; 64 for an unknown one, 1 when one failed or gave a malformed line."""
    sys.path.insert(0, str(HERE.parent))
    names = area_names()
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure, each figure against a baseline that is measured in the same run, interleaved.",
        epilog="example: scripts/bench start warden | jq .ratio",
    )
    parser.add_argument("areas", nargs="*", metavar="AREA", help=f"of {', '.join(names)}; all when none is given")
    parser.add_argument("--list", action="store_true", help="list the areas and end")
    args = parser.parse_args()
    if args.list:
        for name in names:
            print(f"{name:12} {load(name)[1]}")
        return 0
    for area in args.areas:
        if area not in names:
            print(f"scripts/bench: no area {area!r}; there are: {', '.join(names)}", file=sys.stderr)
            return 64
    failed = 0
    for area in args.areas or names:
        try:
            for row in load(area)[0]():
                missing = [key for key in KEYS if key not in row]
                if missing:
                    raise ValueError(f"a line without {', '.join(missing)}")  # the area's fault, as any other
                print(json.dumps({key: row[key] for key in KEYS + MORE if key in row}), flush=True)
        except Exception as error:  # one broken area must not hide the figures of the others
            print(f"scripts/bench: {area}: {type(error).__name__}: {error}", file=sys.stderr)
            failed = 1
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
