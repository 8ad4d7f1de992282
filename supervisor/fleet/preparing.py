"""One version decided on and compiled in a thread of its own; what comes of it is handed over to the loop's thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from ipc.errors import AirssysError, ConfigError
from ipc.struct import Struct
from supervisor.approvals.errors import AwaitingApprovalError, NobodyGrantedError, NotApprovedError
from supervisor.fleet.member import Plan


class Preparer(Protocol):
    """Who knows how; each may take long, and is called in a thread."""

    def meant(self, target: str, digest: str) -> tuple[str, str] | None:
        """Return which version and package a name means now, or `digest` is; None for a directory.

        Raises ConfigError where that isn't installed.
        """

    def prepare(
        self,
        target: str,
        digest: str,
        grant_asked: bool,
        granted: Callable[[], None],
        interrupted: Callable[[], bool],
    ) -> Prepared:
        """Have it granted what it asks, say so, and compile it; raises AwaitingApprovalError, or ConfigError."""


class Meant(Struct, frozen=True):
    """What the name means."""

    version: str
    package: str


class Same(Struct, frozen=True):
    """That is what runs."""


class Granted(Struct, frozen=True):
    """It is granted what it asks, and being compiled."""


class Waits(Struct, frozen=True):
    """It awaits approval: request `number`, about `subject`."""

    message: str
    hint: str
    number: int
    subject: str


class Refused(Struct, frozen=True):
    """It isn't granted what it asks; `subject` is what was asked, "" where nothing could be."""

    message: str
    hint: str
    subject: str = ""


class Failed(Struct, frozen=True):
    """It can't be started."""

    message: str
    hint: str


class Prepared(Struct, frozen=True):
    """It can be started, by this plan; `let_go` is called when nothing of it will run any more."""

    plan: Plan
    let_go: Callable[[], object]


Said = Meant | Same | Granted | Waits | Refused | Failed | Prepared


class Preparing:
    """One attempt, in a thread; `wake` is called in it when there is something to `take`."""

    def __init__(
        self,
        name: str,
        target: str,
        known: str | None,
        returns_to: str,
        grant_asked: bool,
        preparer: Preparer,
        wake: Callable[[], None],
    ) -> None:
        """Prepare what `target` is now, unless it is the package `known`; or the package `returns_to`."""
        self.name = name
        self._target = target
        self._known = known
        self._returns_to = returns_to
        self._grant_asked = grant_asked
        self._preparer = preparer
        self._wake = wake
        self._said: deque[Said] = deque()
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"preparing-{name}", daemon=True)
        self._has_said_all = False

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def cancel(self) -> None:
        """End what is under way; nobody wants it any more."""
        self._cancelled.set()

    @property
    def is_over(self) -> bool:
        """Whether nothing more is said."""
        return self._has_said_all and not self._said

    def take(self) -> Iterator[Said]:
        """Yield what was said since the last time."""
        while self._said:
            yield self._said.popleft()

    def close(self) -> None:
        """Wait for its end, and let go of what nobody took."""
        self._thread.join()
        for said in self.take():
            if isinstance(said, Prepared):
                said.let_go()

    def _say(self, said: Said) -> None:
        self._said.append(said)
        self._wake()

    def _work(self) -> None:
        try:
            self._prepare()
        except NotApprovedError as error:
            self._say(Refused(error.message, error.hint or "", error.request.subject.key))
        except AwaitingApprovalError as error:
            request = error.request
            self._say(Waits(error.message, error.hint or "", request.number, request.subject.key))
        except AirssysError as error:
            hint = error.hint or "" if isinstance(error, ConfigError) else ""
            kind = Refused if isinstance(error, NobodyGrantedError) else Failed
            self._say(kind(str(error), hint))
        except KeyboardInterrupt:  # a compilation that was cancelled
            pass
        except Exception as error:  # noqa: BLE001,RUF100 # whatever it is: the version that runs goes on
            self._say(Failed(f"{type(error).__name__}: {error}", "this is an error of ours"))
        finally:
            self._has_said_all = True
            self._wake()

    def _prepare(self) -> None:
        meant = self._preparer.meant(self._target, self._returns_to)
        digest = ""
        if meant is not None:
            version, digest = meant
            self._say(Meant(version, digest))
            if digest == self._known:
                self._say(Same())
                return
        self._say(
            self._preparer.prepare(
                self._target,
                digest,
                self._grant_asked,
                lambda: self._say(Granted()),
                self._cancelled.is_set,
            )
        )
