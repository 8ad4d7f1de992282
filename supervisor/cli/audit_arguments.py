"""What the commands of `airssys audit` read alike: which records are wanted, and what is wrong with that."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from supervisor.audit.query import Filter
    from supervisor.usage_error import UsageError


def usage(args: argparse.Namespace, message: str) -> UsageError:
    """Return the error that says what is wrong with the arguments."""
    from supervisor.usage_error import UsageError

    return UsageError(message, hint=f"see: airssys audit {args.audit_command} --help")


def wanted_records(args: argparse.Namespace) -> Filter:
    """Return the filter that the arguments describe; raises UsageError when a time can't be read."""
    from supervisor.audit.query import Filter, parse_moment

    now_ns = time.time_ns()
    try:
        since, until = (text and parse_moment(text, now_ns) for text in (args.since, args.until))
    except ValueError as error:
        raise usage(args, str(error)) from None
    return Filter(args.component, args.event, args.decision, args.code, args.action, since, until)
