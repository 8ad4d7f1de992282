"""The very beginning of the `airssys` command: what has to happen before anything heavy is imported.

For `run` the zygote and the warden are started here, while this process still has its command line to read: each of the
three spends its first tenth of a second on imports, and they do that at the same time.
"""

from __future__ import annotations

import gc
import os
import sys

TYPE_CHECKING = False  # `typing` itself is imported later, where an interrupt is caught
if TYPE_CHECKING:
    from typing import NoReturn

    from supervisor.host.processes import Processes


def command() -> NoReturn:
    """Be the command: run it and end at once; taking an interpreter apart costs 20 ms for nothing."""
    gc.disable()  # until everything is imported: there are no cycles to be found in that
    processes = None
    try:
        _open_standard_streams()
        _check_origin()
        arguments = sys.argv[1:]
        processes = _start_ahead(arguments)
        exit_code = _flushed(_main(arguments, processes))
    except KeyboardInterrupt:  # wherever it comes, also in the midst of an import
        exit_code = 128 + 2
    except OSError:  # standard error can't be written: there is no way to tell
        exit_code = 73
    finally:
        if processes is not None:
            processes.close()
    os._exit(exit_code)


def _flushed(exit_code: int) -> int:
    """Write out what is still buffered; return the exit code, another one where the output went nowhere."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        exit_code = 128 + 13
    except OSError as error:
        exit_code = 73
        sys.stderr.write(f"airssys: standard output can't be written: {os.strerror(error.errno or 0)}\n")
    import contextlib

    with contextlib.suppress(OSError):  # nobody is left who could be told
        sys.stderr.flush()
    return exit_code


def _main(arguments: list[str], processes: Processes | None) -> int:
    from supervisor.cli.main import main

    try:
        return main(arguments, processes)
    except SystemExit as ending:  # argparse's way to end, after a help text or a usage error
        return ending.code if isinstance(ending.code, int) else 0


def _start_ahead(arguments: list[str]) -> Processes | None:
    """Start a run's processes; None where the command is another, or says something of how they are to be started."""
    ours = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if ours[:1] != ["run"] or len(ours) < 2 or any(a.startswith(("-h", "--h", "--n", "--l")) for a in ours):
        return None
    from ipc.errors import AirssysError
    from supervisor.host.processes import Processes

    try:
        return Processes(namespaces=True, layers_off=())
    except (AirssysError, OSError):
        return None  # the command tries again, and tells what is wrong


def _check_origin() -> None:
    """Refuse to run when our packages were found in different places: somebody's directory is in front of ours."""
    import ipc
    import supervisor

    homes = {os.path.dirname(os.path.dirname(os.path.abspath(str(m.__file__)))) for m in (ipc, supervisor)}
    if len(homes) != 1 or not sys.flags.isolated:
        reason = "its packages come from more than one place, or Python isn't isolated (-I)"
        hint = "install it into an environment of its own, and start it by its command: airssys"
        sys.stderr.write(f"airssys: refused to start: {reason}\n  {hint}\n")
        os._exit(69)


def _open_standard_streams() -> None:
    """Open /dev/null where a standard descriptor is closed: else a file of ours gets its number, and bytes."""
    for descriptor, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            assert opened == descriptor, "open(2) gives the lowest free number"
            os.set_inheritable(opened, True)
            setattr(sys, name, os.fdopen(opened, mode))
