"""The warden process: drops to its identity, then starts and stops one lane a worker as the supervisor says.

Started as `python -I -c "from ipc.warden.shell import main; main(FD)"` with one end of a channel.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
from typing import Final, NamedTuple

from ipc import codec, memory_file, syscalls
from ipc.audit.event import AuditEvent, about
from ipc.audit.stream import AuditClient
from ipc.channel import Channel
from ipc.errors import AirssysError, ConfinementError, LocalProtocolError
from ipc.hand_over import share_mark
from ipc.messages import (
    Attach,
    Attached,
    Detach,
    Detached,
    EndWorker,
    LayerReport,
    Prepare,
    PreparePolicy,
    Reply,
    UseBroker,
    WardenReady,
    WardenSetup,
)
from ipc.policy.decision import Policy, compile_policy, forbidden_objects, write_forbidden_objects
from ipc.struct import replace
from ipc.warden.asking import POLICY_MAX_BYTES, Asker, read_document
from ipc.warden.broker_door import BrokerDoor, Connection
from ipc.warden.context import Context
from ipc.warden.dispatch import answerers_by_number
from ipc.warden.files import Files
from ipc.warden.identities import ForbiddenIdentities
from ipc.warden.identity import become, check_origin, prepare
from ipc.warden.lane import Lane, Stop
from ipc.warden.notify import Listener
from ipc.warden.one_cpu import OneCpu
from ipc.warden.opening import prepare_root
from ipc.warden.reach import check_openat2, check_reach, has_ended
from ipc.warden.recorder import Recorder, Sink
from ipc.warden.storage import Storage
from ipc.warden.telling import Telling

_SWITCH_INTERVAL_S: Final = 0.0005
"""How long one lane's Python may run before another gets its turn: a tenth of the default."""
_LANE_STACK_BYTES: Final = 512 * 1024
_CONNECT_TIMEOUT_S: Final = 10.0


class _Place(NamedTuple):
    """What is ready for a worker before it is there."""

    policy: Policy
    files: Files
    recorder: Recorder
    warnings: tuple[str, ...]
    ask: bool
    learn: bool
    told: bool
    storage: Storage | None
    connection: Connection | None


class _Arrived(NamedTuple):
    """The descriptors of a worker that is there: what its calls come by, itself, and its `ipc.hand_over` mark."""

    listener: int
    pidfd: int
    mark: int


class _Expected:
    """A worker from its Prepare to its Detach."""

    __slots__ = ("_arrived", "_known", "asker", "stop")

    def __init__(self, asker: Asker) -> None:
        self.stop = Stop()
        self.asker = asker
        self._arrived: _Arrived | None = None
        self._known = threading.Event()

    def arrive(self, descriptors: _Arrived | None) -> bool:
        """Hand over what it comes with; None: it won't come any more. False when that has been said before."""
        if self._known.is_set():
            return False
        self._arrived = descriptors
        self._known.set()
        return True

    def wait(self) -> _Arrived | None:
        """Wait for what `arrive` was given first."""
        self._known.wait()
        return self._arrived


class Warden:
    """The lanes of one identity, and the channel to the supervisor."""

    def __init__(self, channel: Channel, setup: WardenSetup, sink: Sink) -> None:
        """Bind the parts; nothing is served yet."""
        self._channel = channel
        self._setup = setup
        self._sink = sink
        self._machine = syscalls.machine()
        self._answerers = answerers_by_number(self._machine)
        self._speaking = threading.Lock()
        self._expected: dict[str, _Expected] = {}
        self._door = BrokerDoor()

    def send(self, message: object) -> None:
        """Say something to the supervisor; called by every lane."""
        with self._speaking:
            self._channel.send(message)

    def serve(self) -> None:
        """Follow the supervisor's orders until it closes the channel."""
        while True:
            try:
                message, descriptors = self._channel.receive((Prepare, Attach, Reply, Detach, UseBroker))
            except (EOFError, ConnectionResetError):
                return
            match message:
                case Prepare(worker_id):
                    self._prepare(worker_id, descriptors)
                case Attach(worker_id):
                    self._attach(worker_id, descriptors)
                case Reply(worker_id, last):
                    self._reply(worker_id, descriptors, last)
                case Detach(worker_id):
                    self._detach(worker_id)
                case UseBroker(socket_path):
                    self._use_broker(socket_path, descriptors)

    def _prepare(self, worker_id: str, descriptors: list[int]) -> None:
        if len(descriptors) not in (1, 2) or worker_id in self._expected:
            raise LocalProtocolError(f"Prepare of {worker_id} with {len(descriptors)} descriptors")
        expected = self._expected[worker_id] = _Expected(Asker(worker_id, self.send))
        # In the lane's own thread: opening a mount on a slow file system delays nobody else.
        threading.Thread(
            target=self._run_lane, args=(worker_id, descriptors, expected), name=worker_id, daemon=True
        ).start()

    def _attach(self, worker_id: str, descriptors: list[int]) -> None:
        expected = self._expected.get(worker_id)
        if len(descriptors) != 3 or expected is None or not expected.arrive(_Arrived(*descriptors)):
            raise LocalProtocolError(f"Attach of {worker_id} with {len(descriptors)} descriptors")

    def _reply(self, worker_id: str, descriptors: list[int], last: bool) -> None:
        expected = self._expected.get(worker_id)
        if expected is None or len(descriptors) > 1:
            raise LocalProtocolError(f"Reply to {worker_id} with {len(descriptors)} descriptors")
        expected.asker.answer(descriptors, last)

    def _detach(self, worker_id: str) -> None:
        expected = self._expected.pop(worker_id, None)
        if expected is not None:
            expected.stop.set()
            expected.asker.cancel()
            expected.arrive(None)
        else:
            self.send(Detached(worker_id, 0, 0, 0))

    def _use_broker(self, socket_path: str, descriptors: list[int]) -> None:
        if len(descriptors) != 1:
            raise LocalProtocolError(f"UseBroker with {len(descriptors)} descriptors")
        self._door.lead_to(socket_path, Channel.from_descriptor(descriptors[0]))

    def _run_lane(self, worker_id: str, descriptors: list[int], expected: _Expected) -> None:
        place: _Place | None = None
        code, failure = "A1705", ""
        try:
            check_openat2()
            place = self._make_place(worker_id, *descriptors)
        except ConfinementError as error:
            code, failure = "A3001", f"required layer {error}"
        except Exception as error:  # noqa: BLE001,RUF100 # whatever it is, it ends this worker and nothing else
            failure = f"it can't be attached: {type(error).__name__}: {error}"[:512]
        arrived = expected.wait()
        lane: Lane | None = None
        if place is not None and arrived is not None:
            try:
                check_reach(arrived.pidfd)
                lane = self._make_lane(worker_id, place, arrived, descriptors[1:], expected)
                os.close(arrived.mark)  # its memory is held
            except ConfinementError as error:
                code, failure = "A3001", f"required layer {error}"
            except Exception as error:  # noqa: BLE001,RUF100 # likewise
                failure = f"it can't be attached: {type(error).__name__}: {error}"[:512]
        if place is None or lane is None:
            with contextlib.suppress(OSError):
                if arrived is not None:
                    # Of one that has ended its keeper tells, and it has told why itself.
                    if not has_ended(arrived.pidfd):
                        self.send(EndWorker(worker_id, code, failure, 0))
                    expected.stop.wait()
                self.send(Detached(worker_id, 0, 0, 0))
            for descriptor in (*(arrived or ()), *descriptors[1:]):
                os.close(descriptor)
            if place is not None:
                place.files.close()
            expected.stop.close()
            return
        with contextlib.suppress(OSError):
            self.send(Attached(worker_id, place.warnings))
        lane.run()

    def _make_lane(
        self, worker_id: str, place: _Place, arrived: _Arrived, artifact: list[int], expected: _Expected
    ) -> Lane:
        mark, recorder = share_mark(arrived.mark), place.recorder
        listener = Listener(arrived.listener, mark)
        sealed = artifact[0] if artifact else None
        if place.storage is not None:
            place.storage.attach(arrived.pidfd)
        context = Context(
            place.policy,
            place.files,
            listener,
            arrived.pidfd,
            recorder,
            self._machine,
            sealed,
            place.storage,
            place.connection,
        )
        context.partly = set() if place.ask else None
        pace = self._setup.calls_per_second
        return Lane(
            worker_id,
            context,
            listener,
            recorder,
            self._answerers,
            pace,
            self.send,
            expected.stop,
            OneCpu(arrived.pidfd, listener, mark),
            expected.asker if place.ask else None,
            place.learn,
            Telling() if place.told else None,
        )

    def _make_place(self, worker_id: str, policy_descriptor: int, _artifact: int = -1) -> _Place:
        told = codec.unpack(PreparePolicy, memory_file.take(policy_descriptor, POLICY_MAX_BYTES), POLICY_MAX_BYTES)
        document = read_document(told.document)
        policy = compile_policy(document)
        files = Files(
            self._setup.scratch_directory,
            ForbiddenIdentities(forbidden_objects(document), write_forbidden_objects(document)),
            document.guarded_lifted,
        )
        warnings = []
        for _, host in told.mounts:
            try:
                prepare_root(policy, files, host)
            except OSError as error:
                warnings.append(f"mount {host}: {error.strerror} (as uid {self._setup.uid})")
        stamp = replace(about(told.context, "file_access", told.instance), correlation=worker_id)
        recorder = Recorder(self._sink, stamp, self._setup.audit_budget)
        storage = None if told.storage is None else Storage(told.storage, recorder)
        connection = Connection(self._door, worker_id) if told.broker else None
        wants_level = told.storage is not None and told.storage.told
        return _Place(policy, files, recorder, tuple(warnings), told.ask, told.learn, wants_level, storage, connection)


def _enter(setup: WardenSetup) -> tuple[AuditClient, list[LayerReport]]:
    """Connect the audit stream and become the identity of `setup`."""
    layers = prepare()
    changes = set(os.getresuid()) != {setup.uid}
    if not changes:
        # Before there are other threads: capabilities are a thread's own.
        layers += become(setup)
    client = AuditClient(setup.audit_endpoint, setup.audit_server_key, setup.audit_public_key, setup.audit_secret_key)
    # The socket's directory may be out of reach for another identity: be connected before becoming it.
    client.record_durable(AuditEvent(event="warden_started", detail={"uid": setup.uid}), _CONNECT_TIMEOUT_S)
    if changes:
        # setresuid(2) is carried to all threads by the C library, and takes their capabilities.
        layers += become(setup)
    return client, layers


def main(channel_descriptor: int) -> None:
    """Run the warden; returns when the supervisor closes the channel, with status 69 when it can't be what it must."""
    channel = Channel.from_descriptor(channel_descriptor)
    os.set_inheritable(channel_descriptor, False)
    try:
        check_origin(__file__)
        setup, _ = channel.receive((WardenSetup,))
        assert isinstance(setup, WardenSetup)
        client, layers = _enter(setup)
    except (EOFError, ConnectionResetError):
        return
    except (AirssysError, OSError) as error:
        sys.stderr.write(f"warden: {error}\n")
        raise SystemExit(69) from error
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    threading.stack_size(_LANE_STACK_BYTES)
    gc.freeze()
    gc.enable()
    channel.send(WardenReady(tuple(layers)))
    Warden(channel, setup, client).serve()
    client.close()
    # Lanes are daemons: their workers end with the supervisor that closed the channel, which waits for this end; taking
    # an interpreter apart would cost it 20 ms.
    os._exit(0)
