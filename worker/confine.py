"""The order of confinement, readable as prose (DESIGN §8); one layer a module.

Everything here happens in the one thread that there is, before anything that came from a component has been seen.
"""

from __future__ import annotations

import os

from ipc.errors import ConfinementError
from ipc.messages import ConfinementPlan, LayerReport, WorkerLimits
from worker import capabilities, landlock, libc, limits, namespaces, seccomp, writable_code

OFF = "off"
RUNTIME_ENVIRONMENT = {"TOKIO_WORKER_THREADS": "1"}
"""For the engine's runtime, not for the guest: it would else look for cgroup files to count processors."""
ARENAS_MAX = 8
"""The same for the C library, of which each of the engine's threads may ask for memory."""


class Confinement:
    """Collects what each layer reported; a required layer that can't be had ends the start."""

    def __init__(self, plan: ConfinementPlan, data_in_use_bytes: int = 0) -> None:
        """`data_in_use_bytes` is what the process held of private memory before it saw anything of a component."""
        self._plan = plan
        self._data_in_use_bytes = data_in_use_bytes
        self.layers: list[LayerReport] = []

    def wanted(self, layer: str) -> bool:
        """Return whether the layer is to be put on; one that isn't is reported as off."""
        if layer not in self._plan.off:
            return True
        self.layers.append(LayerReport(layer, OFF, "switched off"))
        return False

    def note(self, report: LayerReport) -> None:
        """Keep a layer's report; raises ConfinementError when it is required and unavailable."""
        if report.status == "unavailable" and report.layer in self._plan.required:
            raise ConfinementError(report.layer, "probe", 0, report.detail)
        self.layers.append(report)

    def bound(self, bounds: WorkerLimits, slack_bytes: int = limits.LOADING_SLACK_BYTES) -> None:
        """Set the rlimits of one job, before anything of its component is touched.

        `slack_bytes` of private memory are allowed beside the bounded ones until the supervisor sets the final bound.
        """
        if self.wanted(limits.LAYER):
            self.note(limits.enforce(bounds, self._data_in_use_bytes, self._plan.uid is not None, slack_bytes))


def put_on_layers(plan: ConfinementPlan, parent_pidfd: int, in_pid_namespace: bool) -> Confinement:
    """Put on every layer up to, but not including, the filters. Descriptors are in place already.

    What depends on the job, the rlimits, follows in `Confinement.bound`: rlimits can be lowered by anybody.
    """
    confinement = Confinement(plan, limits.data_bytes_in_use())
    os.environ.clear()
    os.environ.update(RUNTIME_ENVIRONMENT)
    libc.bound_arenas(ARENAS_MAX)
    confinement.note(LayerReport("environment", "enforced", "empty"))
    _isolate(confinement, plan, in_pid_namespace)
    capabilities.empty_bounding_set()
    confinement.note(capabilities.drop_identity(plan.uid, plan.gid))
    confinement.note(capabilities.drop_capabilities())
    capabilities.die_with_parent(parent_pidfd)
    os.close(parent_pidfd)
    # A warden in our user namespace, or root's, may read us by capability; any other reads us as the same uid.
    confinement.note(capabilities.set_dumpable(not (plan.namespaces or plan.uid is not None), plan.ptracer_pid))
    confinement.note(capabilities.forbid_new_privileges())
    if confinement.wanted(landlock.LAYER):
        confinement.note(landlock.enforce())
    return confinement


def _isolate(confinement: Confinement, plan: ConfinementPlan, in_pid_namespace: bool) -> None:
    if not confinement.wanted(namespaces.LAYER):
        return
    if not plan.namespaces:
        confinement.note(LayerReport(namespaces.LAYER, "unavailable", "this kernel or host refuses user namespaces"))
        return
    confinement.note(namespaces.isolate())
    status = "enforced" if in_pid_namespace else "unavailable"
    confinement.note(LayerReport("pid_namespace", status))


def confine_with_listener(confinement: Confinement) -> int:
    """Load filter 1 and return its listener; -1 when the layer is off or unavailable and not required."""
    if not confinement.wanted(seccomp.LAYER):
        return -1
    writable_code.write_no_more()
    listener, report = seccomp.confine()
    confinement.note(report)
    return listener


def confine_without_listener(confinement: Confinement) -> None:
    """Load the compiler's filter."""
    if confinement.wanted(seccomp.LAYER):
        writable_code.write_no_more()
        confinement.note(seccomp.confine_compiler())
