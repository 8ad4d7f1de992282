"""Grants that name nothing in particular: refused, unless the host allows them by name. Pure."""

from ipc.policy.access import action_covers, parse_permission
from ipc.policy.capability import Grant, is_endpoint_action, parse_grant_pattern, separator_of
from ipc.policy.endpoints import EndpointPattern
from ipc.policy.patterns import is_too_broad
from supervisor.config.settings import ComponentSettings


def is_too_broad_grant(grant: Grant) -> bool:
    """Tell whether a grant names nothing, so that only a host that allows it by name lets it pass."""
    if grant.action.startswith("custom."):
        return False
    if is_endpoint_action(grant.action):
        pattern = parse_grant_pattern(grant.action, grant.pattern_text)
        return isinstance(pattern, EndpointPattern) and pattern.too_broad
    return is_too_broad(grant.pattern_text, separator_of(grant.action))


def is_broad_allowed(grant: Grant, host: ComponentSettings) -> bool:
    """Tell whether the host allows this very pattern by name (`allow_broad`)."""
    allowed = (parse_permission(text, "") for text in host.allow_broad)
    return any(action_covers(each.action, grant.action) and each.resource == grant.pattern_text for each in allowed)
