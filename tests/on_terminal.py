"""A command on a terminal of its own, whose question is answered as a person would."""

from __future__ import annotations

import os
import pty
import select
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

QUESTION = b"[y/N]"


def run_on_terminal(
    command: Sequence[str | Path],
    answer: str | int | None,
    left_s: Callable[[], float],
    *,
    cwd: Path,
    env: Mapping[str, str],
    typed_before: bytes = b"",
) -> tuple[int, str]:
    """Run it, answer its question by a line or a signal (None: not at all); return its exit code and what was shown.

    `left_s` says how long it may take: `deadline.left_s`.
    """
    master, slave = pty.openpty()
    try:
        os.write(master, typed_before)
        with subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, cwd=cwd, env=env, start_new_session=True
        ) as process:
            os.close(slave)
            shown, answered = b"", answer is None
            try:
                while select.select([master], [], [], left_s())[0]:
                    try:
                        shown += os.read(master, 65536)
                    except OSError:  # EIO: the last process on the terminal has gone
                        break
                    if QUESTION in shown and not answered:
                        answered = True
                        if isinstance(answer, int):
                            process.send_signal(answer)
                        else:
                            os.write(master, f"{answer}\n".encode())
                return process.wait(left_s()), shown.decode("utf-8", "replace")
            finally:
                process.kill()
    finally:
        os.close(master)
