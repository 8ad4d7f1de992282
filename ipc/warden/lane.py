"""One thread for one worker: waits for its calls, answers them one by one, and ends it when one can't be answered.

A slow file system or audit log holds up this thread and no other. Nothing that a worker does ends the warden.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading
import time
from collections.abc import Callable
from typing import Final

from ipc.burst import PAUSE_MS
from ipc.errors import AuditError
from ipc.messages import Detached, EndWorker, StorageExceeded, StorageMeasured
from ipc.policy.capability import LIST
from ipc.policy.decision import compile_policy
from ipc.syscalls import AUDIT_ARCH
from ipc.warden.asking import Asker
from ipc.warden.context import Answer, Context, Injection
from ipc.warden.decide import Refusal
from ipc.warden.dispatch import Answerer
from ipc.warden.forbidden_calls import name_of
from ipc.warden.notify import Call, CallFails, CallGone, ForbiddenCall, HandOverBroken, Listener, WardenFault
from ipc.warden.one_cpu import OneCpu
from ipc.warden.pace import Pace
from ipc.warden.recorder import BudgetSpent, Recorder
from ipc.warden.storage import Storage
from ipc.warden.telling import Telling

_COUNTS_CLOSE_MS: Final = 10_000
_DEATH_MS: Final = 200
"""A killed worker's call is gone before its process is."""
_OF_THE_SYSTEM: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_PASSED_ON: Final = frozenset(
    {
        errno.ENOENT,
        errno.EEXIST,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENOTEMPTY,
        errno.EXDEV,
        errno.ENAMETOOLONG,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EMLINK,
        errno.EINVAL,
        errno.ELOOP,
        errno.ETXTBSY,
        errno.EBUSY,
        errno.EFBIG,
        errno.ENXIO,
        errno.EIO,
        errno.EOVERFLOW,
        errno.EOPNOTSUPP,
        errno.EAGAIN,
        errno.ESTALE,
        errno.ENODEV,
        errno.ENOMEM,
        errno.EDEADLK,
    }
)
"""What the operating system says of a file call that is the caller's own business."""


class Stop:
    """An order to finish, for a thread that waits in poll(2) or otherwise."""

    __slots__ = ("_event", "_writer", "reader")

    def __init__(self) -> None:
        """Make the pipe that poll(2) sees."""
        self.reader, self._writer = os.pipe2(os.O_CLOEXEC)
        self._event = threading.Event()

    def set(self) -> None:
        """Give the order, once."""
        os.write(self._writer, b"x")
        self._event.set()

    def wait(self) -> None:
        """Wait for the order."""
        self._event.wait()

    def close(self) -> None:
        """Close the pipe; the order has been given."""
        os.close(self.reader)
        os.close(self._writer)


class Lane:
    """Answers one worker's calls in a thread of its own until it is told to stop, or the worker must end."""

    def __init__(
        self,
        worker_id: str,
        context: Context,
        listener: Listener,
        recorder: Recorder,
        answerers: dict[int, tuple[str, Answerer]],
        calls_per_second: int,
        send: Callable[[object], None],
        stop: Stop,
        one_cpu: OneCpu,
        asker: Asker | None = None,
        learn: bool = False,
        telling: Telling | None = None,
    ) -> None:
        """Bind the parts; `send` speaks to the supervisor, from any thread."""
        self.worker_id = worker_id
        self._context = context
        self._listener = listener
        self._recorder = recorder
        self._answerers = answerers
        self._architecture = AUDIT_ARCH[context.machine]
        self._pace = Pace(calls_per_second)
        self._send = send
        self._stop = stop
        self._one_cpu = one_cpu
        self._asker = asker
        self._learn = learn
        self._telling = telling
        self._calls = 0
        self._exceeded = False

    def run(self) -> None:
        """Serve until stopped: the body of the lane's thread."""
        try:
            self._serve()
        except AuditError as error:
            self._end("A3004", f"what can't be recorded is not allowed: {error}", 0)
        except Exception as error:  # noqa: BLE001,RUF100 # any failure ends this worker, and nothing else
            self._end("A1705", f"a call could not be answered: {type(error).__name__}: {error}", 0)
        self._one_cpu.close()
        self._stop.wait()
        self._finish()

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self._listener.descriptor, select.POLLIN)
        poll.register(self._stop.reader, select.POLLIN)
        storage = self._context.storage
        one_cpu = self._one_cpu
        while True:
            patience_ms = PAUSE_MS if self._recorder.waiting or one_cpu.held else _COUNTS_CLOSE_MS
            if storage is not None and storage.due_ns:
                left_ns = storage.due_ns - time.monotonic_ns()
                if left_ns <= 0:
                    if not self._measure(storage):
                        return
                    continue
                patience_ms = min(patience_ms, left_ns // 10**6 + 1)
            if storage is not None and self._telling is not None:
                patience_ms = min(patience_ms, self._tell(self._telling, storage.level.usage))
            ready = poll.poll(patience_ms)
            if not ready:
                one_cpu.let_go()
                self._recorder.close_due()
            for descriptor, events in ready:
                if descriptor == self._stop.reader:
                    return
                if not events & select.POLLIN:
                    return  # POLLHUP: no process is left that could call
                call = self._listener.receive()
                if call is not None and not self._handle(call):
                    return

    def _tell(self, telling: Telling, usage_bytes: int) -> int:
        """Tell how much is stored, where that is due; return in how many milliseconds to come back."""
        now_ns = time.monotonic_ns()
        if telling.is_due(usage_bytes, now_ns):
            with contextlib.suppress(OSError):  # as in _end
                self._send(StorageMeasured(self.worker_id, usage_bytes))
        left_ns = telling.left_ns(usage_bytes, now_ns)
        return _COUNTS_CLOSE_MS if left_ns is None else left_ns // 10**6 + 1

    def _measure(self, storage: Storage) -> bool:
        """Measure what the worker stores; False when it has to end for that."""
        level = storage.measure()
        if level is not None:
            assert level.limit is not None  # what is unlimited isn't exceeded
            with contextlib.suppress(OSError):  # as in _end
                self._send(StorageExceeded(self.worker_id, level.limit, level.usage))
        return level is None

    def _handle(self, call: Call) -> bool:
        """Answer one call; False when the worker has to end instead."""
        self._calls += 1
        now_ns = time.monotonic_ns()
        self._one_cpu.note(call, now_ns)
        wait_ns = self._pace.note(now_ns)
        if wait_ns:
            if wait_ns < 0:
                self._refuse_forever("A1704", "it makes more file calls than are answered", call.number)
                return False
            time.sleep(wait_ns / 1e9)
        entry = self._answerers.get(call.number) if call.architecture == self._architecture else None
        if entry is None:
            self._refuse_call(call)
            return False
        context = self._context
        context.begin(call, entry[0])
        try:
            answer = self._answer(entry[1])
            if self._asker is not None:
                answer = self._ask(self._asker, entry, call, answer)
            if self._learn:
                self._note_use(answer)
            self._deliver(call, answer)
        except CallGone:
            self._undelivered()
        except HandOverBroken:
            self._undelivered()
            return self._is_dying()
        except ForbiddenCall:
            self._refuse_call(call)
            return False
        except BudgetSpent:
            self._refuse_forever("A1707", "it is refused new things faster than can be recorded", call.number)
            return False
        finally:
            context.files.release()
        return not self._exceeded

    def _answer(self, answerer: Answerer) -> Answer:
        context = self._context
        try:
            return answerer(context)
        except CallFails as failure:
            context.done = None
            return -failure.errno
        except OSError as error:
            context.done = None
            number = error.errno or errno.EIO
            if number in _OF_THE_SYSTEM and context.subject is not None:
                return context.system_refuses(number, *context.subject)
            if number in (errno.EMFILE, errno.ENFILE):
                return -errno.ENFILE
            if number in _PASSED_ON:
                return -number
            raise WardenFault(f"{context.name}: {error}") from error

    def _ask(self, asker: Asker, entry: tuple[str, Answerer], call: Call, answer: Answer) -> Answer:
        """Ask about a refusal that a grant could lift, and decide anew, from the call's own memory, as often as lifted.

        A refusal has done nothing yet, so the whole call is answered again, by the policy that the answer made.
        """
        context = self._context
        while isinstance(answer, Refusal):
            self._one_cpu.let_go()  # a person takes longer than a pause
            widened = asker.ask(answer, context.name, self._do_due)
            if widened is not None:
                context.policy = compile_policy(widened.document)
                self._recorder.come_under(widened.digest)
            elif context.partly is not None and answer.action == LIST and answer.resource not in context.partly:
                # Not all of the names, then: those that lead to what is granted, if there are any.
                context.partly.add(answer.resource)
            else:
                break
            context.files.release()
            context.begin(call, entry[0])
            answer = self._answer(entry[1])
        return answer

    def _do_due(self) -> float:
        """Record and measure what is due while a question is open; return in how many seconds to come back.

        The worker may have other threads: they write to what is open for as long as a person thinks.
        """
        self._recorder.close_due()
        storage = self._context.storage
        if storage is None or not storage.due_ns or self._exceeded:
            return _COUNTS_CLOSE_MS / 1000
        if storage.due_ns <= time.monotonic_ns():
            self._exceeded = not self._measure(storage)
        return max(0, min(_COUNTS_CLOSE_MS * 10**6, storage.due_ns - time.monotonic_ns())) / 1e9

    def _note_use(self, answer: Answer) -> None:
        """Record what a manifest must cover besides what was allowed: looks at what isn't there, and ways through."""
        if isinstance(answer, Refusal):
            if not answer.code:
                self._recorder.used(answer.action, answer.resource, self._context.name)
        elif self._context.subject is not None and self._context.name != "getdents64":
            self._recorder.used(*self._context.subject, self._context.name)

    def _deliver(self, call: Call, answer: Answer) -> None:
        if isinstance(answer, Refusal):
            if answer.code:
                self._recorder.refused(answer, self._context.name, self._context.asked)
            answer = -answer.errno
        elif isinstance(answer, Injection):
            try:
                self._listener.inject(call, answer.descriptor)
                if answer.given is not None:
                    answer.given(self._listener.given)
                if self._context.storage is not None and self._context.storage.due_ns:
                    self._context.storage.given(self._listener.given)
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENOMEM):
                    raise WardenFault(f"a descriptor can't be handed over: {error.strerror}") from error
                self._undelivered()
                self._listener.answer(call, -(error.errno or errno.EMFILE))
            return
        if not self._listener.answer(call, answer):
            self._undelivered()

    def _undelivered(self) -> None:
        if self._context.done is not None:
            self._recorder.undelivered(*self._context.done, self._context.name)

    def _is_dying(self) -> bool:
        """Whether the worker's end explains that its call is gone; else it got a wrong answer, and the worker ends."""
        poll = select.poll()
        poll.register(self._context.pidfd, select.POLLIN)
        if poll.poll(_DEATH_MS):
            return True
        self._end("A1705", "the warden was stopped while it handed a descriptor over: the call got a wrong number", 0)
        return False

    def _refuse_call(self, call: Call) -> None:
        name = name_of(call.number, self._context.machine)
        self._refuse_forever("A1701", f"system call {call.number} ({name})", call.number)

    def _refuse_forever(self, code: str, reason: str, number: int) -> None:
        with contextlib.suppress(AuditError):  # the worker ends either way, and the supervisor hears why
            self._recorder.violation(code, reason, number)
        self._end(code, reason, number)

    def _end(self, code: str, reason: str, number: int) -> None:
        with contextlib.suppress(OSError):  # the supervisor is gone: so is the worker
            self._send(EndWorker(self.worker_id, code, reason[:512], number))

    def _finish(self) -> None:
        recorder = self._recorder
        storage_bytes = None
        try:
            if self._context.storage is not None:
                storage_bytes = self._context.storage.finish().usage
            recorder.close()
        except AuditError as error:
            self._end("A3004", f"the last counts can't be recorded: {error}", 0)
        context = self._context
        context.files.close()
        self._listener.close()
        for descriptor in (context.pidfd, context.artifact):
            if descriptor is not None:
                os.close(descriptor)
        self._stop.close()
        with contextlib.suppress(OSError):
            allowed, refused = recorder.allowed_count, recorder.refused_count
            self._send(Detached(self.worker_id, self._calls, allowed, refused, storage_bytes))
