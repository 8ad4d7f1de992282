"""The rlimit layer (getrlimit(2)): the outer twins of the limits that the engine keeps inside.

`RLIMIT_DATA` counts private writable mappings: usable wasm memory, not the engine's address reservations. The value set
here is provisional; once everything is loaded, the supervisor lowers it to what is in use then plus the guest's memory.
"""

from __future__ import annotations

import resource

from ipc.errors import ConfinementError
from ipc.messages import LayerReport, WorkerLimits

LAYER = "rlimits"
LOADING_SLACK_BYTES = 768 << 20
"""Private memory that loading an artifact may take; what is left of it is taken back at the seal."""
RESERVATION_BYTES = (4 << 30) + (64 << 20)
"""Address space that one wasm memory reserves: 4 GiB and a guard of 32 MiB on either side (wasmtime's defaults)."""
ADDRESS_SLACK_BYTES = 8 << 30
"""Address space for libraries, stacks, malloc arenas and the artifact."""
MAX_THREADS = 128
"""Per worker uid: the guest's thread, the engine's runtime threads and blocking reads, the deadline."""
STACK_BYTES = 8 << 20


def address_space_bytes(limits: WorkerLimits) -> int:
    """Return the backstop: every memory that may exist, at its reservation, with the memory limit and slack on top."""
    return (limits.memories + 2) * RESERVATION_BYTES + limits.memory_bytes + ADDRESS_SLACK_BYTES


def data_bytes_in_use() -> int:
    """Return what RLIMIT_DATA counts of this process now: VmData of /proc/self/status, read before /proc goes away."""
    with open("/proc/self/status", "rb", buffering=4096) as status:
        for line in status:
            if line.startswith(b"VmData:"):
                return int(line.split()[1]) * 1024
    raise ConfinementError(LAYER, "read", 0, "/proc/self/status has no VmData")


def plan(
    limits: WorkerLimits, data_in_use_bytes: int, own_uid: bool, slack_bytes: int = LOADING_SLACK_BYTES
) -> dict[int, int]:
    """Return resource → bound, soft and hard alike."""
    bounds = {
        resource.RLIMIT_DATA: data_in_use_bytes + limits.memory_bytes + slack_bytes,
        resource.RLIMIT_AS: address_space_bytes(limits),
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_FSIZE: limits.file_size_bytes,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_STACK: STACK_BYTES,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_RTPRIO: 0,
        resource.RLIMIT_NICE: 0,
        # Signals that wait are counted by uid, which may be the user's: none of a worker's has to be queued.
        resource.RLIMIT_SIGPENDING: 0,
    }
    if own_uid:
        bounds[resource.RLIMIT_NPROC] = MAX_THREADS
    if limits.cpu_s is not None:
        # Soft = hard: the kernel kills. A SIGXCPU would be ignored by the first process of a pid namespace.
        bounds[resource.RLIMIT_CPU] = max(1, limits.cpu_s)
    return bounds


def enforce(limits: WorkerLimits, data_in_use_bytes: int, own_uid: bool, slack_bytes: int) -> LayerReport:
    """Set every bound; one that is above the inherited hard bound stays at that."""
    for which, bound in plan(limits, data_in_use_bytes, own_uid, slack_bytes).items():
        _, hard = resource.getrlimit(which)
        value = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        try:
            resource.setrlimit(which, (value, value))
        except OSError as error:
            raise ConfinementError(LAYER, "setrlimit", error.errno or 0, f"resource {which}") from error
    if own_uid:
        return LayerReport(LAYER, "enforced")
    return LayerReport(LAYER, "enforced", "threads are not bounded by NPROC: the uid is shared")
