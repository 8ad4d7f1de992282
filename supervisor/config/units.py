"""Sizes, durations, rates and times as people write them: `"50MB"`, `"64MiB"`, `"30s"`, `"500/s"`, `"500ms/s"`.

Decimal prefixes are powers of 1000 and binary prefixes powers of 1024 (IEC 80000-13), and every amount is an integer:
a fraction is accepted where it comes out whole (`"1.5MB"` is 1,500,000 bytes) and refused where it doesn't.
"""

import re
from collections.abc import Callable
from typing import Final

from ipc.audit.event import format_time

UNLIMITED: Final = 2**63 - 1
"""What `"unlimited"` is read as: greater than every amount that can be written, so that comparing just works."""

_BYTES: Final = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_NANOSECONDS: Final = {
    "ns": 1,
    "us": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "min": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 86400 * 10**9,
}
_AMOUNT: Final = re.compile(r"([0-9]{1,19})(?:\.([0-9]{1,9}))? ?([A-Za-z]*)")


class UnitError(ValueError):
    """A quantity that can't be read; `expected` is what would have been right, in words."""

    def __init__(self, text: str, expected: str) -> None:
        """Keep the text that was found and what was expected instead."""
        super().__init__(f"expected {expected}, got {text!r}")
        self.text = text
        self.expected = expected


def parse_size_bytes(text: str) -> int:
    """Read a size such as `"50MB"` (10^6) or `"64MiB"` (2^20) as bytes; raise `UnitError`."""
    return _scaled(text, _BYTES, 'a size such as "50MB" (10^6 bytes), "64MiB" (2^20) or "unlimited"')


def parse_duration_ns(text: str) -> int:
    """Read a duration such as `"500ms"`, `"30s"`, `"5min"`, `"2h"` or `"90d"` as nanoseconds; raise `UnitError`."""
    return _scaled(text, _NANOSECONDS, 'a duration such as "500ms", "30s", "5min", "2h" or "90d"', unlimited=False)


def parse_rate_per_s(text: str) -> int:
    """Read a count by time such as `"500/s"` as a whole number a second; raise `UnitError`."""
    return _rate(text, {"": 1}, 'a rate such as "500/s" or "unlimited"')


def parse_bandwidth_bytes_per_s(text: str) -> int:
    """Read a bandwidth such as `"5MB/s"` as bytes a second; raise `UnitError`."""
    return _rate(text, _BYTES, 'a bandwidth such as "5MB/s" or "unlimited"')


def parse_cpu_ns_per_s(text: str) -> int:
    """Read CPU time by time such as `"500ms/s"` (half a core) as nanoseconds a second; raise `UnitError`."""
    return _rate(text, _NANOSECONDS, 'CPU time a second such as "500ms/s" (half a core) or "unlimited"')


def _rate(text: str, units: dict[str, int], expected: str) -> int:
    if text == "unlimited":
        return UNLIMITED
    if not text.endswith("/s"):
        raise UnitError(text, expected)
    try:
        return _scaled(text[:-2], units, expected, unlimited=False)
    except UnitError:
        raise UnitError(text, expected) from None


def _scaled(text: str, units: dict[str, int], expected: str, *, unlimited: bool = True) -> int:
    if unlimited and text == "unlimited":
        return UNLIMITED
    match = _AMOUNT.fullmatch(text)
    if match is None or match[3] not in units:
        raise UnitError(text, expected)
    whole, fraction, unit = match[1], match[2] or "", match[3]
    amount, remainder = divmod(int(whole + fraction) * units[unit], int(10 ** len(fraction)))
    if remainder or amount >= UNLIMITED:
        raise UnitError(text, expected + ", a whole number below 2^63")
    return amount


def counted(count: int, one: str, many: str = "") -> str:
    """Return how many there are of something, in words: `1 segment`, `2 segments`; `many` where an s isn't enough."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def format_size(size_bytes: int) -> str:
    """Write a size so that `parse_size_bytes` reads the same number back, in the largest unit that divides it."""
    return _largest(size_bytes, ("TB", "TiB", "GB", "GiB", "MB", "MiB", "kB", "KiB", "B"), _BYTES)


def format_duration(duration_ns: int) -> str:
    """Write a duration so that `parse_duration_ns` reads the same number back, in the largest unit that divides it."""
    return _largest(duration_ns, ("d", "h", "min", "s", "ms", "us", "ns"), _NANOSECONDS)


def format_rate(rate_per_s: int) -> str:
    """Write a rate so that `parse_rate_per_s` reads the same number back."""
    return _per_second(rate_per_s, str)


def format_bandwidth(bandwidth_bytes_per_s: int) -> str:
    """Write a bandwidth so that `parse_bandwidth_bytes_per_s` reads the same number back."""
    return _per_second(bandwidth_bytes_per_s, format_size)


def format_cpu(cpu_ns_per_s: int) -> str:
    """Write CPU time a second in milliseconds where they come out whole, as `parse_cpu_ns_per_s` reads it back."""
    return _per_second(cpu_ns_per_s, lambda cpu_ns: f"{cpu_ns // 10**6}ms" if cpu_ns % 10**6 == 0 else f"{cpu_ns}ns")


def _per_second(amount: int, form: Callable[[int], str]) -> str:
    return "unlimited" if amount == UNLIMITED else f"{form(amount)}/s"


def _largest(amount: int, order: tuple[str, ...], units: dict[str, int]) -> str:
    if amount == UNLIMITED:
        return "unlimited"
    fitting = next((unit for unit in order if amount and amount % units[unit] == 0), order[-1])
    return f"{amount // units[fitting]}{fitting}"


def when(at_s: int | None) -> str | None:
    """Return a time as RFC 3339 in whole seconds, UTC."""
    return None if at_s is None else f"{format_time(at_s * 10**9)[:19]}Z"


def positive_only(parse: Callable[[str], int], expected: str) -> Callable[[str], int]:
    """Return a reader that takes no zero; `expected` says what it takes."""

    def positive(text: str) -> int:
        amount = parse(text)
        if amount == 0:
            raise UnitError(text, expected)
        return amount

    return positive


def finite_only(parse: Callable[[str], int]) -> Callable[[str], int]:
    """Return a reader that doesn't take `"unlimited"`."""

    def finite(text: str) -> int:
        amount = parse(text)
        if amount == UNLIMITED:
            raise UnitError(text, "a finite amount")
        return amount

    return finite
