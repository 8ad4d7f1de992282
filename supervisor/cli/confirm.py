"""A question on the terminal that is answered with yes or no."""

from __future__ import annotations

import socket
import sys
from typing import ClassVar

from ipc.errors import ConfigError


def on_terminal() -> bool:
    """Whether there is somebody who could be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirm(question: str, signals: socket.socket | None = None) -> bool:
    """Ask on the terminal; what was typed before the question was shown is thrown away.

    With `signals`, where a run notes which came, a signal ends us (128 + n).
    """
    import select
    import termios

    sys.stderr.flush()
    termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
    print(question, end="", file=sys.stderr, flush=True)
    # The handlers of a run only note that a signal came: readline would go on waiting.
    ready, _, _ = select.select([sys.stdin, *([] if signals is None else [signals])], [], [])
    if signals is not None and signals in ready:
        print(file=sys.stderr)
        raise SystemExit(128 + signals.recv(1)[0])
    try:
        return sys.stdin.readline().strip().lower() in ("y", "yes")
    except (OSError, UnicodeDecodeError):  # the terminal went away, or said no word
        return False


class NoTerminalError(ConfigError):
    """Nobody can be asked."""

    exit_code: ClassVar[int] = 77  # EX_NOPERM
