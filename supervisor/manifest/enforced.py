"""Which keys of a manifest this version enforces; the others are refused by whoever starts it, never silently accepted.

What the broker enforces is enforced where there is one: under `airssys up`, and not in a single `airssys run`.
"""

from supervisor.manifest.values import Manifest


def not_enforced(manifest: Manifest, brokered: bool = False) -> tuple[str, ...]:
    """Return each key that is written and that nothing in this version enforces, in the order of the reference page."""
    keys = [request.key for request in manifest.requests() if not _is_enforced(request.action, brokered)]
    quota, limits, supervision = manifest.quota, manifest.limits, manifest.supervision
    values = {
        "quota.network_bandwidth": quota.network_bandwidth_bytes_per_s,
        "limits.max_payload": None if brokered else limits.max_payload_bytes,
        "supervision.restart": supervision.restart,
        "supervision.shutdown": supervision.shutdown_ns,
        "supervision.depends_on": supervision.depends_on or None,
    }
    keys += [key for key, value in values.items() if value is not None]
    return tuple(dict.fromkeys(keys))


def only_brokered(manifest: Manifest) -> tuple[str, ...]:
    """Return each key that is written and that only the broker enforces: under `airssys up`, for actors."""
    by_nobody = not_enforced(manifest, brokered=True)
    return tuple(key for key in not_enforced(manifest) if key not in by_nobody)


def _is_enforced(action: str, brokered: bool) -> bool:
    if action.startswith("filesystem.") or action == "secrets.env":
        return True
    return brokered and action.startswith(("messaging.", "storage.", "custom."))
