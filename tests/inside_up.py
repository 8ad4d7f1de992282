"""`airssys up` with a module of a test's loaded in its zygote, so that its sealed workers can run a test's own code.

    python -I inside_up.py MODULE.py COMMAND...

This stands for native code in a worker that was broken into: everything is the product's (layers, warden, broker,
supervisor), and only what the worker does in the place of its guest is the module's.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from supervisor.host import zygote


def main(module: Path, arguments: list[str]) -> int:
    """Run the command line; a module `supervisor_SAME_NAME.py` beside the one for the workers is run first."""
    zygote.ACTOR_PRELOAD = (*zygote.ACTOR_PRELOAD, module.stem)
    zygote._MAIN = f"import sys\nsys.path.insert(0, {str(module.parent)!r})\n{zygote._MAIN}"
    beside = module.with_name(f"supervisor_{module.name}")
    if beside.exists():
        runpy.run_path(str(beside))
    from supervisor.cli.main import main as command_line

    return command_line(arguments)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
