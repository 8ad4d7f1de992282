"""What is wrong with the command line itself, apart from what it names."""

from typing import ClassVar

from ipc.errors import ConfigError


class UsageError(ConfigError):
    """The command line itself is wrong."""

    exit_code: ClassVar[int] = 64  # EX_USAGE
