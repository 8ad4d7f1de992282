"""What the processes of one run tell each other: one frozen struct a message.

Directions are part of each docstring; who may say what when is enforced by the receiver's list of allowed types.
"""

from __future__ import annotations

from ipc.security_context import SecurityContext
from ipc.struct import Struct

ARTIFACT_PATH = "/.airssys/artifact"
"""The name by which a sealed worker opens its compiled code; the warden answers it from the sealed memory file."""

GUARDS = 3
"""Which guards the compiler puts into a component (`worker.payload_guard`): other guards make other code."""
PROGRAM = "program"
"""`StartFailed.call` when it is the program itself that can't be run here: a missing import, no entry point."""


class Message(Struct, frozen=True, forbid_unknown_fields=True):
    """What travels between two of our processes, whole or inside another message."""


class EngineSettings(Message, frozen=True):
    """What changes the compiled code; part of the cache key."""

    fuel: bool = False
    epoch: bool = True
    revision: int = 3
    """Counts the changes of `worker.engine.new_engine`, and of what is recorded of an artifact, that artifacts made
    before them don't survive."""


class WorkerLimits(Message, frozen=True):
    """Bounds of one worker; None means no bound of this kind."""

    memory_bytes: int
    output_bytes: int
    timeout_ns: int | None = None
    fuel: int | None = None
    cpu_s: int | None = None
    table_elements: int = 1_000_000
    instances: int = 1_000
    tables: int = 1_000
    memories: int = 1_000
    open_files: int = 1_024
    file_size_bytes: int = 1 << 32
    storage_bytes: int | None = None
    payload_bytes: int = 0
    """Of an actor: the largest message; of a call: its values. Moving them takes memory beside the guest's."""


class ConfinementPlan(Message, frozen=True):
    """Which layers a worker puts on; `required` ones that can't be had end the start."""

    required: tuple[str, ...]
    off: tuple[str, ...] = ()
    uid: int | None = None
    gid: int | None = None
    namespaces: bool = True
    ptracer_pid: int | None = None


class WorkerPlan(Message, frozen=True):
    """Supervisor → worker, with the fork: what to become before there is a program.

    `kind` is run, actor, call, compile, or one of the probes (probe, actor-probe). An actor's first filter lets it keep
    a connection to the broker.
    A compiler has its `limits` from the start; a runner learns them with its job.
    """

    kind: str
    engine: EngineSettings
    confinement: ConfinementPlan
    origin: str
    limits: WorkerLimits | None = None


class ActorJob(Message, frozen=True):
    """What makes a component a long-lived actor: who it is to the broker, and with which key (Z85) it says so.

    `config` goes to its `initialize`; `document` is a packed PolicyDocument, for its questions about what was granted:
    what it may do is decided by the broker.
    """

    name: str
    instance: str
    endpoint: str
    server_key: bytes
    public_key: bytes
    secret_key: bytes
    config: bytes
    document: bytes
    call_timeout_ns: int | None = 30_000_000_000


class FunctionCall(Message, frozen=True):
    """One call of an export: `interface` as it was asked for, "" for the root or wherever the function is alone.

    `arguments` is a JSON array.
    """

    interface: str
    function: str
    arguments: bytes


class WorkerJob(Message, frozen=True):
    """In the sealed job file of a Load: which program to run, on what; as a command, an actor, or for one call.

    `mounts` are (guest, host) pairs; `environment` and the actor's key are secrets: it is never logged.
    """

    worker_id: str
    wasm_kind: str
    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    mounts: tuple[tuple[str, str], ...]
    limits: WorkerLimits
    actor: ActorJob | None = None
    call: FunctionCall | None = None


class LayerReport(Message, frozen=True):
    """One layer of confinement as its process found it: enforced, partial, unavailable or off."""

    layer: str
    status: str
    detail: str = ""


class Spawned(Message, frozen=True):
    """Keeper → supervisor: the worker exists."""

    pid: int


class Ended(Message, frozen=True):
    """Keeper → supervisor: wait4(2)'s word on the worker. `killed_for` is set when the keeper itself ended it."""

    wait_status: int
    user_cpu_ns: int
    system_cpu_ns: int
    max_rss_bytes: int
    killed_for: str = ""


class Confined(Message, frozen=True):
    """Worker → supervisor, with the notification listener: layers up to filter 1 are on.

    A claim: the supervisor looks for itself.
    """

    layers: tuple[LayerReport, ...]


class Load(Message, frozen=True):
    """Supervisor → worker, with [job]: read the job, load artifact and roots; the warden answers, or is about to.

    Where the seccomp layer is off no warden answers, and the artifact comes along: [job, artifact].
    """


class Sealed(Message, frozen=True):
    """Worker → supervisor: everything is loaded and filter 2 is on."""

    layers: tuple[LayerReport, ...]


class Go(Message, frozen=True):
    """Supervisor → worker: verified from outside; run the guest."""


class Stop(Message, frozen=True):
    """Supervisor → a running actor: end in order (`shutdown`, Bye to the broker, then Finished). A deadline is kept."""


class Finished(Message, frozen=True):
    """Worker → supervisor: how the guest ended. A claim. `outcome` is exited, trapped, limit or host_error."""

    outcome: str
    exit_code: int
    message: str = ""
    limit: str = ""
    usage: int = 0
    peak_memory_bytes: int = 0
    fuel_used: int = 0
    refused_growth_bytes: int = 0


class StartFailed(Message, frozen=True):
    """Worker → supervisor: it could not become what the job asks. `layer` names the missing one, if that is why."""

    stage: str
    layer: str
    call: str
    errno: int
    message: str


class Compiled(Message, frozen=True):
    """Compiler → supervisor, with the artifact's length as written to its one output descriptor. A claim."""

    wasm_kind: str
    artifact_bytes: int
    imports: tuple[str, ...]
    exports: tuple[str, ...]
    functions: tuple[tuple[str, str], ...] = ()
    """Of a component: (name, signature in words) of what can be called, as many as a packet holds."""


class CompileFailed(Message, frozen=True):
    """Compiler → supervisor: the bytes can't be compiled; why, in the compiler's words (escaped before use)."""

    message: str


class AuditBudget(Message, frozen=True):
    """How many records of its own one component may cause: so many at once, then so many a second; above, it is paced.

    Who goes on being refused new things above that for `refused_tolerated_ns` is ended.
    """

    refused_at_once: int = 5_000
    refused_per_s: int = 50
    refused_tolerated_ns: int = 60_000_000_000
    allowed_at_once: int = 100_000
    allowed_per_s: int = 500


class WardenSetup(Message, frozen=True):
    """Supervisor → warden, first: whose files, where to report. `scratch_directory` is private to `uid`."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    umask: int
    audit_endpoint: str
    audit_server_key: bytes
    audit_public_key: bytes
    audit_secret_key: bytes
    scratch_directory: str
    calls_per_second: int = 100_000
    audit_budget: AuditBudget = AuditBudget()


class WardenReady(Message, frozen=True):
    """Warden → supervisor: it has dropped to its identity; what it kept."""

    layers: tuple[LayerReport, ...]


class Prepare(Message, frozen=True):
    """Supervisor → warden, with [policy, artifact]: get ready for a worker that is being started.

    Descriptors in order: sealed policy file (a packed PreparePolicy), sealed artifact file.
    """

    worker_id: str


class StorageBounds(Message, frozen=True):
    """What a component may store. What lies in its own `directories` (real paths) counts, whoever put it there.

    `open_files` is the worker's RLIMIT_NOFILE. `running`: it runs, and another warden has answered its calls so far.
    `told`: the supervisor wants to know how much that is while it runs.
    """

    limit_bytes: int
    directories: tuple[str, ...]
    open_files: int
    running: bool = False
    told: bool = False


class PreparePolicy(Message, frozen=True):
    """In the sealed policy file of a Prepare: `document` is a packed PolicyDocument.

    `ask`: what no grant covers is held, and asked about. `learn`: what was used is recorded more closely.
    """

    document: bytes
    instance: str
    context: SecurityContext
    mounts: tuple[tuple[str, str], ...]
    ask: bool = False
    learn: bool = False
    storage: StorageBounds | None = None
    broker: bool = False
    """Whether its worker may have a connection to the broker: an actor's."""


class UseBroker(Message, frozen=True):
    """Supervisor → warden, with [channel]: a broker listens at `socket_path`; it replaces the one before.

    On the channel the warden announces each connection (`ipc.broker.orders`).
    """

    socket_path: str


class Attach(Message, frozen=True):
    """Supervisor → warden, with [listener, pidfd, mark]: answer the calls of this worker, which was prepared."""

    worker_id: str


class Attached(Message, frozen=True):
    """Warden → supervisor: this worker's calls are answered now; roots that the identity can't open are named."""

    worker_id: str
    warnings: tuple[str, ...] = ()


class Detach(Message, frozen=True):
    """Supervisor → warden: this worker has ended; close what belongs to it."""

    worker_id: str


class Detached(Message, frozen=True):
    """Warden → supervisor: the last counts of that worker are in the audit log (acknowledged)."""

    worker_id: str
    calls: int
    allowed: int
    denied: int
    storage_bytes: int | None = None


class StorageMeasured(Message, frozen=True):
    """Warden → supervisor: so much does this worker's component store in files by now."""

    worker_id: str
    usage_bytes: int


class StorageExceeded(Message, frozen=True):
    """Warden → supervisor: this worker made what it has open grow beyond its storage quota, and must end."""

    worker_id: str
    limit_bytes: int
    usage_bytes: int


class Question(Message, frozen=True):
    """Warden → supervisor: a call is held that no grant covers; `kind` is what stands there now.

    `kind` is file, directory, other or missing. The worker's next call waits for the Reply.
    """

    worker_id: str
    action: str
    resource: str
    code: str
    reason: str
    nearest: str
    call: str
    kind: str


class Reply(Message, frozen=True):
    """Supervisor → warden, to a Question: with [policy] (a packed NewPolicy) decide again by it; without, refuse.

    `last`: nothing more is asked about; what no grant covers is refused as ever.
    """

    worker_id: str
    last: bool = False


class NewPolicy(Message, frozen=True):
    """In the sealed policy file of a Reply: `document` is a packed PolicyDocument."""

    document: bytes
    policy_digest: str


class EndWorker(Message, frozen=True):
    """Warden → supervisor: this worker must end now (forbidden call, flood, a call that could not be answered)."""

    worker_id: str
    code: str
    reason: str
    system_call: int
