"""The command line as another user, who may not be able to read this Python."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from supervisor.cli.main import main


def as_another_user(uid: int, control_socket: Path, arguments: Sequence[str]) -> tuple[int, str]:
    """Be the command line as another user, in a fork that has it loaded; return its exit code and all that it says."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            for descriptor in (1, 2):
                os.dup2(writer, descriptor)
            sys.stdout = os.fdopen(1, "w")
            sys.stderr = os.fdopen(2, "w")
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.chdir("/")
            os.environ["AIRSSYS_SOCKET"] = str(control_socket)
            code = main(list(arguments))
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as said:
        text = said.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text
