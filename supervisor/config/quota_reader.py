"""Amounts of a quota as they are written in a section of any of our files."""

from supervisor.config import units
from supervisor.config.quota import Quota
from supervisor.config.toml_reader import Section


def read_quota(section: Section) -> Quota:
    """Read a table of quotas: a manifest's, or one of the host's."""
    quota = Quota(
        storage_bytes=section.quantity("storage", units.parse_size_bytes),
        message_rate_per_s=section.quantity("message_rate", units.parse_rate_per_s),
        network_bandwidth_bytes_per_s=section.quantity("network_bandwidth", units.parse_bandwidth_bytes_per_s),
        cpu_time_ns_per_s=section.quantity("cpu_time", units.parse_cpu_ns_per_s),
        memory_bytes=section.quantity("memory", units.parse_size_bytes),
    )
    section.finish()
    return quota
