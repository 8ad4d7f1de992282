"""The end of a supervisor that a test has started: in order as by Ctrl-C, or by force."""

from __future__ import annotations

import signal
import subprocess

IN_ORDER_S = 20


def end(process: subprocess.Popen[bytes]) -> None:
    """End it however it is, wait for that, and close its pipes."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(IN_ORDER_S)
        except subprocess.TimeoutExpired:
            process.kill()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    process.wait()
