"""The heads of sealed segments, told to the system's journal: a place that whoever can change the log may not reach."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

JOURNAL_SOCKET = "/dev/log"
_AUTHPRIV_NOTICE = 10 * 8 + 5  # RFC 3164 §4.1.1


def journal_socket(environ: Mapping[str, str]) -> str:
    """Return the datagram socket that is told: $AIRSSYS_JOURNAL, else the one that syslog(3) writes to."""
    return environ.get("AIRSSYS_JOURNAL") or JOURNAL_SOCKET


def tell_journal(text: str, path: str) -> bool:
    """Send one line to syslog(3)'s socket without ever waiting for it; False where there is none or it is busy."""
    message = f"<{_AUTHPRIV_NOTICE}>airssys[{os.getpid()}]: {text}".encode("utf-8", "backslashreplace")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sender:
        try:
            sender.sendto(message, path)
        except OSError:
            return False
    return True
