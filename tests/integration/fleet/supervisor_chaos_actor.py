"""Run in the supervisor by `tests/inside_up.py`: what has failed is started again, however often, and all is kept.

The bounds on deaths, and what a supervisor does with a failed component, have tests of their own.
"""

from supervisor.fleet import deaths, output_log
from supervisor.fleet.fleet import Fleet
from supervisor.fleet.lifecycle import Event, Phase
from supervisor.fleet.member import Member

deaths.DEATHS_MAX = 10**6
output_log.FILE_BYTES = 1 << 30
_happen = Fleet.happen


def _happen_again(self: Fleet, member: Member, event: Event) -> None:
    _happen(self, member, event)
    if member.phase is Phase.FAILED and not self.stopping:
        _happen(self, member, Event.WANTED)


Fleet.happen = _happen_again  # type: ignore[method-assign]
