"""How the problems of a configuration file are told: each on a line of its own, or all in one document."""

from __future__ import annotations

import json
import sys

from supervisor.config.toml_source import ConfigFileError
from supervisor.config.units import counted


def print_problems(error: ConfigFileError, as_json: bool) -> int:
    """Print every problem with its file and line; return the exit code."""
    if as_json:
        problems = [problem.to_json() for problem in error.problems]
        document = {"error": {"code": "config", "message": str(error), "hint": None, "problems": problems}}
        print(json.dumps(document, indent=2))
    else:
        print(str(error), file=sys.stderr)
        print(f"airssys: {counted(len(error.problems), 'problem')}", file=sys.stderr)
    return error.exit_code
