"""The warden process: drops to its identity, then starts and stops one lane a worker as the supervisor says.

Started as `python -I -c "from ipc.warden.shell import main; main(FD)"` with one end of a channel.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
from typing import Final

import msgpack

from ipc import codec, syscalls
from ipc.audit.event import AuditEvent
from ipc.audit.stream import AuditClient
from ipc.channel import Channel
from ipc.errors import AirssysError, LocalProtocolError
from ipc.messages import (
    Attach,
    Attached,
    AttachPolicy,
    Detach,
    Detached,
    EndWorker,
    LayerReport,
    WardenReady,
    WardenSetup,
)
from ipc.policy.decision import PolicyDocument, compile_policy, forbidden_concrete_paths
from ipc.warden.context import Context
from ipc.warden.dispatch import answerers_by_number
from ipc.warden.files import Files
from ipc.warden.identities import ForbiddenIdentities
from ipc.warden.identity import become, check_origin, prepare
from ipc.warden.lane import Lane, Stop
from ipc.warden.notify import Listener
from ipc.warden.recorder import Recorder, Sink

_SWITCH_INTERVAL_S: Final = 0.0005
"""How long one lane's Python may run before another gets its turn: a tenth of the default."""
_POLICY_MAX_BYTES: Final = 64 << 20
_LANE_STACK_BYTES: Final = 512 * 1024
_CONNECT_TIMEOUT_S: Final = 10.0


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
        self._stops: dict[str, Stop] = {}

    def send(self, message: object) -> None:
        """Say something to the supervisor; called by every lane."""
        with self._speaking:
            self._channel.send(message)

    def serve(self) -> None:
        """Follow the supervisor's orders until it closes the channel."""
        while True:
            try:
                message, descriptors = self._channel.receive((Attach, Detach))
            except (EOFError, ConnectionResetError):
                return
            if isinstance(message, Attach):
                self._attach(message, descriptors)
            elif isinstance(message, Detach):
                self._detach(message.worker_id)

    def _attach(self, order: Attach, descriptors: list[int]) -> None:
        if len(descriptors) not in (3, 4) or order.worker_id in self._stops:
            raise LocalProtocolError(f"Attach of {order.worker_id} with {len(descriptors)} descriptors")
        stop = self._stops[order.worker_id] = Stop()
        # In the lane's own thread: opening a mount on a slow file system delays nobody else.
        threading.Thread(
            target=self._run_lane, args=(order, descriptors, stop), name=order.worker_id, daemon=True
        ).start()

    def _run_lane(self, order: Attach, descriptors: list[int], stop: Stop) -> None:
        try:
            lane, warnings = self._make_lane(order, descriptors, stop)
        except Exception as error:  # noqa: BLE001,RUF100 # whatever it is, it ends this worker and nothing else
            with contextlib.suppress(OSError):
                self.send(
                    EndWorker(
                        order.worker_id, "A1705", f"it can't be attached: {type(error).__name__}: {error}"[:512], 0
                    )
                )
                stop.wait()
                self.send(Detached(order.worker_id, 0, 0, 0))
            for descriptor in (*descriptors[:2], *descriptors[3:]):
                os.close(descriptor)
            stop.close()
            return
        with contextlib.suppress(OSError):
            self.send(Attached(order.worker_id, warnings))
        lane.run()

    def _make_lane(self, order: Attach, descriptors: list[int], stop: Stop) -> tuple[Lane, tuple[str, ...]]:
        listener = Listener(descriptors[0])
        with open(descriptors[2], "rb") as policy_file:
            # From the start: the sender may have written through this very open file description.
            policy_file.seek(0)
            attached = codec.unpack(AttachPolicy, policy_file.read(_POLICY_MAX_BYTES + 1), _POLICY_MAX_BYTES)
        document = PolicyDocument.from_wire(
            msgpack.unpackb(attached.document, raw=False, unicode_errors="surrogateescape")
        )
        policy = compile_policy(document)
        files = Files(
            self._setup.scratch_directory,
            ForbiddenIdentities(forbidden_concrete_paths(document)),
            document.guarded_lifted,
        )
        warnings = []
        for _, host in attached.mounts:
            try:
                files.add_root(host)
            except OSError as error:
                warnings.append(f"mount {host}: {error.strerror} (as uid {self._setup.uid})")
        recorder = Recorder(
            self._sink,
            AuditEvent(
                event="file_access",
                component=attached.component,
                instance=attached.instance,
                component_digest=attached.component_digest,
                trust=attached.trust,
                policy=attached.policy_digest,
                correlation=order.worker_id,
            ),
        )
        artifact = descriptors[3] if len(descriptors) > 3 else None
        context = Context(policy, files, listener, descriptors[1], recorder, self._machine, artifact)
        lane = Lane(
            order.worker_id, context, listener, recorder, self._answerers, self._setup.calls_per_second, self.send, stop
        )
        return lane, tuple(warnings)

    def _detach(self, worker_id: str) -> None:
        stop = self._stops.pop(worker_id, None)
        if stop is not None:
            stop.set()
        else:
            self.send(Detached(worker_id, 0, 0, 0))


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
    channel.send(WardenReady(tuple(layers)))
    Warden(channel, setup, client).serve()
    client.close()
    # Lanes are daemons: their workers end with the supervisor that closed the channel, which waits for this end; taking
    # an interpreter apart would cost it 20 ms.
    os._exit(0)
