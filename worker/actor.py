"""The life of an actor: loaded before the seal, then initialised once and given one message after the other.

What it may send, keep and ask for is decided by the broker, which knows it by its key.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import Any, Final

import wasmtime
import wasmtime.component

from ipc.audit.text import bounded
from ipc.broker.messages import MAX_DESCRIPTION_BYTES, MAX_PAYLOAD_BYTES, Answer, Callback, Deliver, Describe, Handled
from ipc.channel import Channel
from ipc.messages import ActorJob, EngineSettings, Finished, Stop, WorkerJob
from ipc.struct import replace
from worker import engine_package as package
from worker import hatch
from worker.abi import Failures, Function, Imports, Signature, signature_of
from worker.broker_link import BrokerLink
from worker.call_clock import CallClock
from worker.engine import COMPONENT, Program, ProgramError, Runner, provided, refuse_missing
from worker.host import capabilities, custom, messaging, services, storage
from worker.host.types import (
    CALLBACK,
    HEALTH,
    MESSAGE,
    METADATA,
    PAYLOAD,
    Asking,
    Functions,
    error_of,
    fallible,
    function,
    interface,
    words_of,
)
from worker.value_types import Err, Ok, Option

LIFECYCLE: Final = interface("component-lifecycle")
_TYPES: Final = interface("types")
_EXPORTS: Final[dict[str, Signature]] = {
    "initialize": fallible(PAYLOAD),
    "handle-message": fallible(MESSAGE, returns=Option(PAYLOAD)),
    "handle-callback": fallible(CALLBACK),
    "metadata": function(returns=METADATA),
    "health": function(returns=HEALTH),
    "shutdown": function(),
}
_FAILURE_CHARS: Final = 4_000
_HEALTH_EVERY_NS: Final = 5_000_000_000
"""How often a component is asked how it is while messages keep coming; in a silence it is asked with each Ping."""


class Actor:
    """One instance of a component, its link to the broker, and the clock of its calls."""

    def __init__(
        self, runner: Runner, settings: EngineSettings, job: WorkerJob, artifact: str | bytes, channel: Channel
    ) -> None:
        """Load the component and connect; nothing of it runs. Raises ProgramError.

        On `channel` comes the order to stop.
        """
        assert job.actor is not None
        if job.wasm_kind != COMPONENT:
            raise ProgramError("it is a core module; an actor is a component of the world airssys:core/actor")
        bounded = replace(job, limits=replace(job.limits, timeout_ns=job.actor.call_timeout_ns))
        self._job: ActorJob = job.actor
        self._channel = channel
        self._failures = Failures()
        self._hatch = runner.memories.hatch = hatch.Hatch()
        self._exports: dict[str, Function] = {}
        self._in_call = ""
        self._health_due_ns = 0
        # Its sockets come from the warden, and its threads are filtered with this one: both before the seal.
        self._link = BrokerLink(job.actor, channel.fileno())
        self._clock = CallClock(runner.interrupt, job.actor.call_timeout_ns, self._link.attend, self._give_up)
        self._engine = package.engine_of(runner.engine)
        self._offered = self._interfaces()
        self.program = Program.load(runner, settings, bounded, artifact, self._check)
        self._clock.context = self.program.context
        self._imports = Imports(self._failures, self._hatch)
        self._linker = package.linker_of(runner.components, self._engine)
        for name, functions in self._offered.items():
            self._imports.define(self._linker, name, functions)

    def _interfaces(self) -> dict[str, Functions]:
        asking = Asking(self._link, self._clock)
        return {
            messaging.NAME: messaging.Messaging(self._link, asking, self._job.name).functions(),
            services.NAME: services.Services(asking, self._clock).functions(),
            storage.NAME: storage.Storage(asking, self._hatch).functions(),
            capabilities.NAME: capabilities.Capabilities(self._job.document).functions(),
            custom.NAME: custom.Custom(asking, self._hatch).functions(),
        }

    def _check(self, component: int) -> None:
        """Refuse what isn't an actor, or is one of another world: host functions aren't compared by the engine."""
        engine, kind = self._engine, package.component_of(component).type
        imported = kind.imports(engine)
        refuse_missing([name for name in imported if not (provided(name) or name in self._offered or name == _TYPES)])
        for name, functions in self._offered.items():
            if name in imported:
                wanted = {key: signature for key, (signature, _) in functions.items()}
                _compare(name, _functions_of(imported[name], engine), wanted, "imports")
        exported = kind.exports(engine)
        if LIFECYCLE not in exported:
            raise ProgramError(f"it has no {LIFECYCLE!r}: not an actor")
        found = _functions_of(exported[LIFECYCLE], engine)
        if missing := sorted(_EXPORTS.keys() - found.keys()):
            raise ProgramError(f"its {LIFECYCLE!r} has no {', '.join(missing)}")
        _compare(LIFECYCLE, {name: one for name, one in found.items() if name in _EXPORTS}, _EXPORTS, "exports")

    # -- its life ------------------------------------------------------------------------------------------------------

    def run(self) -> Finished:
        """Live until the order to stop, or the guest's end by itself; whatever that is becomes a value."""
        try:
            finished = self.program.finished_by(self._live)
        except Exception as error:  # noqa: BLE001,RUF100 # a host function's failure is ours: it ends this instance
            finished = Finished("host_error", 70, f"{type(error).__name__}: {error}"[:2000])
        in_order = finished.outcome == "exited"
        if self._in_call and not in_order:
            finished = replace(finished, message=f"in {self._in_call}: {finished.message}")
        self._link.close(in_order)
        return finished

    def _live(self) -> int:
        self._clock.start()
        self._timed("instantiate", self._instantiate)
        result = self._call("initialize", self._job.config)
        if isinstance(result, Err):
            services.write_log("error", f"initialize: {words_of(result.value)}", [])
            return 1
        self._link.describe(Describe(*(bounded(text, MAX_DESCRIPTION_BYTES) for text in self._call("metadata"))))
        self._ask_health()
        self._link.greet()
        self._serve()
        self._call("shutdown")
        return 0

    def _instantiate(self) -> None:
        instance = package.Instance(self.program, self._linker)
        for name in _EXPORTS:
            self._exports[name] = Function(instance.store, instance.func(LIFECYCLE, name), self._failures)

    def _serve(self) -> None:
        link = self._link
        while not link.is_woken():
            item = link.take()
            if item is not None:
                self._handle(*item)
                if time.monotonic_ns() >= self._health_due_ns:
                    self._ask_health()
            elif link.was_pinged():
                self._ask_health()
            elif not link.wait():
                break
        # The wake-up is the order, or the end of who gives orders.
        with contextlib.suppress(EOFError, ConnectionError):
            self._channel.read((Stop,))

    def _ask_health(self) -> None:
        self._link.tell_health(self._call("health"))
        self._health_due_ns = time.monotonic_ns() + _HEALTH_EVERY_NS

    def _handle(self, epoch: int, message: Deliver | Callback) -> None:
        if isinstance(message, Callback):
            payload, kind = message.payload, message.kind
            outcome: Ok | Err
            if payload is None or kind:
                outcome = error_of(kind, message.reason)
            else:
                outcome = Ok(self._hatch.give(hatch.CALLBACK, payload))
            result = self._call("handle-callback", (message.correlation, outcome))
            if isinstance(result, Err):
                services.write_log("error", f"handle-callback: {words_of(result.value)}", [])
            return
        payload = self._hatch.give(hatch.MESSAGE, message.payload)
        value = (message.sender, payload, message.topic or None, message.wants_answer)
        result = self._call("handle-message", value)
        handed_over = self._hatch.take()
        if handed_over and result == Ok(b""):
            result = Ok(handed_over.get(0, b""))
        failure = words_of(result.value)[:_FAILURE_CHARS] if isinstance(result, Err) else ""
        if not message.wants_answer:
            if failure:  # nobody else learns of it
                services.write_log("error", f"handle-message: {failure}", [])
            self._link.finish(epoch, Handled(message.delivery, failure))
            return
        answer = None if failure else result.value or b""
        if answer is not None and len(answer) > MAX_PAYLOAD_BYTES:
            answer, failure = None, f"its answer has more than {MAX_PAYLOAD_BYTES} bytes"
        self._link.finish(epoch, Answer(message.delivery, answer, failure))

    def _call(self, name: str, *values: Any) -> Any:
        return self._timed(name, lambda: self._exports[name](*values))

    def _timed(self, name: str, call: Callable[[], Any]) -> Any:
        """Do what runs the guest, within the time that one call has; `_in_call` stays what it was when that fails."""
        self._in_call = name
        self._clock.begin()
        try:
            value = call()
        finally:
            self._clock.end()
        self._in_call = ""
        return value

    def _give_up(self) -> None:
        """End the process from the clock's thread: the guest's own is held up in the host."""
        timeout_ns = self._job.call_timeout_ns or 0
        message = f"in {self._in_call}: its time was over while it waited in the host"
        with contextlib.suppress(OSError):
            self._channel.write(Finished("limit", 75, message, "timeout", timeout_ns))
        os._exit(0)


def _functions_of(extern: Any, engine: wasmtime.Engine) -> dict[str, Signature]:
    found = {}
    for name, one in package.functions_in(extern, engine).items():
        try:
            found[name] = signature_of(one)
        except TypeError as error:
            raise ProgramError(f"its function {name!r}: {error}") from error
    return found


def _compare(where: str, found: dict[str, Signature], wanted: dict[str, Signature], does: str) -> None:
    for name, signature in found.items():
        if name not in wanted:
            raise ProgramError(f"it {does} {name!r} of {where!r}, which has no such function")
        if not signature.is_like(wanted[name]):
            raise ProgramError(f"it {does} {name!r} of {where!r} as a function of another type")
