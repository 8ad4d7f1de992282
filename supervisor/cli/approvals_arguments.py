"""What the commands of `airssys approvals` read alike: the number of a request, a duration."""

from __future__ import annotations

import argparse


def number_of(text: str) -> int:
    """Return the number of a request; raises ArgumentTypeError."""
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 2**31):
        raise argparse.ArgumentTypeError(f"expected the number of a request, got {text!r}")
    return int(text)


def duration_s(text: str) -> int:
    """Return a duration such as `30d` in seconds; raises ArgumentTypeError."""
    from supervisor.config.units import parse_duration_ns

    try:
        seconds = parse_duration_ns(text) // 10**9
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not 0 < seconds < 2**31:
        raise argparse.ArgumentTypeError(f"expected at least a second, got {text!r}")
    return seconds
