"""Versions on the control socket: a component is to be what its name means now; whoever asked hears how that goes."""

from __future__ import annotations

from ipc.errors import AuditError
from supervisor.control.messages import TakeVersion, VersionChange
from supervisor.control.serving import Client
from supervisor.fleet.change_over import RESTS
from supervisor.fleet.change_overs import ChangeOvers
from supervisor.fleet.component_change import Change
from supervisor.fleet.member import Member
from supervisor.terminal import visible


class VersionDesk:
    """Answers for the changes of versions of a supervisor."""

    def __init__(self, changes: ChangeOvers, installed_in: str) -> None:
        """`installed_in` is the state directory whose registry says what a name means."""
        self.changes = changes
        self._installed_in = installed_in
        self._watchers: dict[Client, _Watcher] = {}

    def take(self, request: TakeVersion, client: Client) -> None:
        """Begin a change of a component that is there, and tell of its steps where that is waited for."""
        if request.installed_in != self._installed_in or not self.changes.is_installed(request.name):
            where = visible(self._installed_in)
            client.not_done("unknown", f"{request.name} was not started from what is installed in {where}")
            return
        actor = f"uid {client.peer.uid}"
        try:
            self.changes.want(request.name, grant_asked=request.grant_asked, actor=actor)
        except AuditError as error:
            client.not_done("unavailable", f"no audit record, no action: {error}", "airssys audit verify")
            return
        watcher = self._watchers[client] = _Watcher(client, self)
        self.changes.watch(request.name, watcher)
        if not request.waits and client in self._watchers:
            self.forget(client)
            client.done()

    def forget(self, client: Client) -> None:
        """Nobody waits there any more; what was begun goes on."""
        watcher = self._watchers.pop(client, None)
        if watcher is not None:
            self.changes.forget(watcher)


class _Watcher:
    """Tells one client of each step of a change, until it rests."""

    def __init__(self, client: Client, desk: VersionDesk) -> None:
        self._client = client
        self._desk = desk

    def changed(self, change: Change, runs: Member) -> None:
        """Tell it."""
        self._client.part(
            VersionChange(
                phase=change.phase,
                version=change.version,
                package=change.package,
                runs=runs.plan.version,
                runs_package=runs.plan.package,
                reason=change.reason,
                hint=change.hint,
                approval=change.approval,
            )
        )
        if change.phase in RESTS:
            self._desk.forget(self._client)
            self._client.done()

    def given_up(self, why: str) -> None:
        """Tell it that it waits in vain."""
        self._desk.forget(self._client)
        self._client.not_done("unavailable", why)
