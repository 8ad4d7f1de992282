"""The operator's own program that tells the reviewers: a JSON document on its standard input, and a bounded time."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
from collections.abc import Mapping
from typing import Final

from ipc.errors import ConfigError
from supervisor.trust.local import exposed_program

WITHIN_S: Final = 10.0
_ENVIRONMENT: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}


def tell_reviewers(program: str, document: Mapping[str, object], within_s: float = WITHIN_S) -> str:
    """Run the program and wait for it; returns what went wrong, "" for nothing. What it prints goes nowhere.

    It and all that it leaves in its process group are killed after `within_s`.
    """
    why = _why_not(program)
    if why:
        return f"notify: {program}: {why}"
    try:
        process = subprocess.Popen(
            [program],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=_ENVIRONMENT,
            start_new_session=True,
        )
    except OSError as error:
        return f"notify: {program}: {os.strerror(error.errno or 0)}"
    try:
        process.communicate(json.dumps(document).encode() + b"\n", timeout=within_s)
    except subprocess.TimeoutExpired:
        return f"notify: {program} took longer than {within_s:g} s, and was ended"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return f"notify: {program} ended with {process.returncode}" if process.returncode else ""


def _why_not(program: str) -> str:
    """Return why a program isn't run, "" where it is: whoever can write it would be run as us."""
    try:
        status = os.stat(program)
    except OSError as error:
        return os.strerror(error.errno or 0).lower()
    if not stat.S_ISREG(status.st_mode) or not os.access(program, os.X_OK):
        return "no executable file"
    try:
        return exposed_program(program)
    except ConfigError as error:
        return error.message
