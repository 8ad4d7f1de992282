"""What whoever wrote an entry of `[[trust.sources]]` should know of it, on this host and by this clock."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ipc.policy.patterns import parse_pattern
from supervisor.trust.breadth import breadth_warning
from supervisor.trust.sources import GitSource, KeySource, LocalSource, TrustSource, writing_patterns

if TYPE_CHECKING:
    from supervisor.config.settings import Settings


def source_warnings(source: TrustSource, settings: Settings, now_s: int) -> tuple[str, ...]:
    """Return everything that is right to write and most likely not meant."""
    found = [breadth_warning(source)]
    if isinstance(source, KeySource) and not source.revoked:
        found.append(_of_key(source, settings, now_s))
    place = source.place if isinstance(source, GitSource) else source if isinstance(source, LocalSource) else None
    if place is not None:
        found.append(_of_link(place))
    data = os.path.join(os.path.realpath(settings.directories.data), "component")
    if any(parse_pattern(pattern).matches(data) for pattern in writing_patterns(source)):
        found.append(f"components can't write their own data in {os.path.dirname(data)}: it trusts what lies there")
    return tuple(warning for warning in found if warning)


def _of_key(source: KeySource, settings: Settings, now_s: int) -> str:
    state = source.state(now_s)
    others = [each for each in settings.trust_sources if isinstance(each, KeySource) and each.revoked]
    revoking = next((each for each in others if each.key.blob == source.key.blob), None)
    if revoking is not None:
        state = f"{revoking.origin} revokes the key"
    return f"it trusts nothing: {state}" if state else ""


def _of_link(source: LocalSource) -> str:
    fixed = source.fixed_part
    real = os.path.realpath(fixed)
    return f"it trusts nothing: {fixed} is really {real}; write that" if real != fixed else ""
