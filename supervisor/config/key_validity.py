"""Whether a key that is named in the host's settings counts at a time. Pure."""

from __future__ import annotations


def why_not_valid(revoked: bool, valid_after_s: int | None, valid_before_s: int | None, now_s: int) -> str:
    """Return why it counts for nothing then, "" where it counts; times are UTC, in seconds."""
    if revoked:
        return "the key is revoked"
    if valid_after_s is not None and now_s < valid_after_s:
        return "the key isn't valid yet"
    if valid_before_s is not None and now_s >= valid_before_s:
        return "the key has expired"
    return ""
