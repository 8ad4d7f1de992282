"""Sizes, durations and rates as people write them."""

import pytest

from supervisor.config import units


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0B", 0),
        ("1B", 1),
        ("50MB", 50_000_000),
        ("64MiB", 64 * 2**20),
        ("1.5MB", 1_500_000),
        ("1 GB", 10**9),
        ("2TiB", 2 * 2**40),
        ("3kB", 3_000),
        ("0.5KiB", 512),
        ("unlimited", units.UNLIMITED),
    ],
)
def test_sizes_are_read_as_bytes(text: str, size_bytes: int) -> None:
    """A size is read with decimal prefixes as powers of 1000 and binary ones as powers of 1024."""
    assert units.parse_size_bytes(text) == size_bytes


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "MB",
        "-1MB",
        "5mb",
        "5 MB ",
        "5Mb",
        "1e6B",
        "0.3B",
        "9999999TB",
        "\u0665MB",
        "5MB/s",
        "0x5B",
        " 5MB",
        "1..5MB",
    ],
)
def test_other_sizes_are_refused(text: str) -> None:
    """What isn't an amount with a known unit, a fraction of a byte, or too much for 63 bits is refused."""
    with pytest.raises(units.UnitError, match="a size such as"):
        units.parse_size_bytes(text)


@pytest.mark.parametrize(
    ("text", "duration_ns"),
    [
        ("30s", 30 * 10**9),
        ("500ms", 5 * 10**8),
        ("90d", 90 * 86400 * 10**9),
        ("1.5h", 5400 * 10**9),
        ("7ns", 7),
        ("2min", 12 * 10**10),
    ],
)
def test_durations_are_read_as_nanoseconds(text: str, duration_ns: int) -> None:
    """A duration is read in nanoseconds, whatever its unit."""
    assert units.parse_duration_ns(text) == duration_ns


def test_a_duration_is_never_unlimited() -> None:
    """A duration without end is written by leaving the key out."""
    with pytest.raises(units.UnitError):
        units.parse_duration_ns("unlimited")


def test_rates_are_read_by_the_second() -> None:
    """Rates, bandwidths and CPU time are read as an amount a second."""
    assert units.parse_rate_per_s("500/s") == 500
    assert units.parse_bandwidth_bytes_per_s("5MB/s") == 5_000_000
    assert units.parse_cpu_ns_per_s("500ms/s") == 500_000_000
    assert units.parse_rate_per_s("unlimited") == units.UNLIMITED


@pytest.mark.parametrize("text", ["500", "500/min", "5MB/s", "/s", "unlimited/s"])
def test_other_rates_are_refused(text: str) -> None:
    """A rate without its second, or with the unit of another kind of rate, is refused."""
    with pytest.raises(units.UnitError, match="a rate such as"):
        units.parse_rate_per_s(text)


@pytest.mark.parametrize(
    ("written", "form", "amount"),
    [
        ("50MB", units.format_size, 50_000_000),
        ("64MiB", units.format_size, 64 * 2**20),
        ("0B", units.format_size, 0),
        ("90d", units.format_duration, 90 * 86400 * 10**9),
        ("500/s", units.format_rate, 500),
        ("5MB/s", units.format_bandwidth, 5_000_000),
        ("500ms/s", units.format_cpu, 500_000_000),
        ("unlimited", units.format_rate, units.UNLIMITED),
    ],
)
def test_amounts_are_written_as_people_write_them(written: str, form: object, amount: int) -> None:
    """An amount is written in the largest unit that divides it."""
    assert callable(form)
    assert form(amount) == written


def test_one_is_not_many() -> None:
    """What is counted is named in the singular where there is one, and in its own plural where an s isn't enough."""
    assert [units.counted(count, "segment") for count in (0, 1, 2)] == ["0 segments", "1 segment", "2 segments"]
    assert [units.counted(n, "capability", "capabilities") for n in (1, 3)] == ["1 capability", "3 capabilities"]
