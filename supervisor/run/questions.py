"""The shell of `--ask`: one question at a time on the terminal, each answer recorded before it takes effect.

The terminal is opened for itself (tty(4)): the guest's streams never carry a question or an answer. What was typed
before a question was shown is thrown away, and while it is open nothing that the guest prints is shown.
"""

from __future__ import annotations

import contextlib
import os
import termios
import time
from collections.abc import Callable, Iterator
from typing import ClassVar

from ipc import codec
from ipc.audit.event import AuditEvent
from ipc.errors import ConfigError
from ipc.messages import NewPolicy, Question
from ipc.policy.document import PolicyDocument
from ipc.struct import Struct, replace
from supervisor.host.identity import actor
from supervisor.run.asking import (
    QUESTIONS_MAX,
    Answer,
    Choice,
    answer_line,
    choices,
    parse_answer,
    question_lines,
)

_LINE_BYTES_MAX = 4096
UNREAD_NS = 300_000_000
"""A yes that comes sooner after a question was shown is no answer to it: the program may have asked for that line."""
_OWN_LINE = "\x1b[0m\r\x1b[J"
"""No colour, from the line's start, and nothing behind: what the guest left there would read on where a name ends."""


class Reply(Struct, frozen=True):
    """What becomes of a held call: by which policy it is decided anew, if by any; whether anything more is asked."""

    policy: NewPolicy | None = None
    last: bool = False
    quit: bool = False


class Questions:
    """The questions of one run."""

    def __init__(
        self,
        terminal: int,
        document: PolicyDocument,
        base_event: AuditEvent,
        record_durable: Callable[[AuditEvent], None],
        keep_policy: Callable[[PolicyDocument, str], None],
    ) -> None:
        """Ask on `terminal`; `document` is what was granted so far, `keep_policy` keeps each that follows from it."""
        self.terminal = terminal
        self.document = document
        self.open: Question | None = None
        self._base_event = base_event
        self._record_durable = record_durable
        self._keep_policy = keep_policy
        self._offered: tuple[Choice, ...] = ()
        self._asked = 0
        self._typed = b""
        self._shown_ns = 0

    def ask(self, question: Question) -> Reply | None:
        """Show a question; None, or the reply where nobody is asked any more."""
        self._asked += 1
        if self._asked > QUESTIONS_MAX:
            self._say(f"airssys: it wants more than {QUESTIONS_MAX} different things; the rest is refused unasked\n")
            return Reply(last=True)
        self.open = question
        self._offered = choices(question)
        self._typed = b""
        lines = question_lines(self._base_event.component, question)
        self._say(_OWN_LINE + "".join(line + "\n" for line in lines))
        self._prompt()
        return None

    def read(self) -> Reply | None:
        """Take what was typed; the reply once it is an answer. Raises AuditError: unrecorded, nothing is granted."""
        try:
            data = os.read(self.terminal, _LINE_BYTES_MAX)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        if not data:  # ^D, or the terminal is gone: whoever can't answer hasn't said yes
            self._say("\n")
            return self._decide(Answer.QUIT)
        self._typed = (self._typed + data)[-_LINE_BYTES_MAX:]
        if b"\n" not in self._typed:
            return None
        line, _, _ = self._typed.partition(b"\n")
        self._typed = b""
        answer = parse_answer(line.decode("utf-8", "replace"), self._offered)
        if answer in (Answer.FILE, Answer.DIRECTORY) and time.monotonic_ns() - self._shown_ns < UNREAD_NS:
            self._say("  that came sooner than a question is read; once more\n")
            answer = None
        if answer is None:
            self._prompt()
            return None
        return self._decide(answer)

    def abandon(self) -> None:
        """The worker has ended while a question was open."""
        if self.open is not None:
            self.open = None
            self._say("\n")

    def _decide(self, answer: Answer) -> Reply:
        question, self.open = self.open, None
        assert question is not None
        grants = next((choice.grants for choice in self._offered if choice.answer is answer), ())
        document = replace(self.document, grants=(*self.document.grants, *grants)) if grants else self.document
        digest = document.digest() if grants else self._base_event.policy
        patterns = [grant.pattern_text for grant in grants]
        if grants:
            self._keep_policy(document, digest)
        self._record_durable(
            replace(
                self._base_event,
                event="question_answered",
                action=question.action,
                resource=question.resource,
                decision="info",
                reason=f"answered {answer}",
                rule=", ".join(grant.rule for grant in grants),
                policy=digest,
                approval="asked",
                actor=actor(),
                detail={
                    "answer": str(answer),
                    "call": question.call,
                    "grants": patterns,
                },
            )
        )
        if not grants:
            return Reply(last=answer is Answer.QUIT, quit=answer is Answer.QUIT)
        self.document = document
        self._base_event = replace(self._base_event, policy=digest)
        return Reply(NewPolicy(codec.pack_map(document.to_wire()), digest))

    def _prompt(self) -> None:
        with contextlib.suppress(termios.error):
            termios.tcflush(self.terminal, termios.TCIFLUSH)
        self._say(answer_line(self._offered))
        self._shown_ns = time.monotonic_ns()

    def _say(self, text: str) -> None:
        data = text.encode("utf-8", "backslashreplace")
        with contextlib.suppress(OSError):
            while data:
                data = data[os.write(self.terminal, data) :]


class NoTerminalError(ConfigError):
    """Nobody can be asked, so nothing was granted."""

    exit_code: ClassVar[int] = 77  # EX_NOPERM


@contextlib.contextmanager
def own_terminal() -> Iterator[int]:
    """Yield the controlling terminal, opened for questions alone; raises NoTerminalError where there is none."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        raise NoTerminalError(
            "--ask: there is no terminal to ask on",
            hint="name what it may with --read, --write and --list, or see what it wants with --dev",
        ) from None
    try:
        yield terminal
    finally:
        os.close(terminal)
