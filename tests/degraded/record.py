"""Runs `airssys` traced, and writes down by which rule of which filter its workers and compilers made their calls.

    python -I record.py OUT ARGUMENTS...

OUT becomes a JSON object: the number of a rule (`recording.FIRST`) → how often. What a rule answers with an errno is
answered so here too.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from recording import numbered_rules  # noqa: E402 # an isolated Python doesn't look beside its script
from tracer import Call, run_traced  # noqa: E402

_COMMAND = """\
import supervisor.host.zygote as zygote
zygote._MAIN = zygote._MAIN.replace("import {{preload}}", {preload!r})
from supervisor.cli.entry import command
command()
"""
_PRELOAD = """\
exec(compile(open({path!r}).read(), {path!r}, 'exec'), {{{{'__name__': 'in the zygote'}}}})
import {{preload}}"""


def main(out: str, arguments: list[str]) -> int:
    """Run and record; returns the exit code of `airssys`."""
    rules = numbered_rules()
    counts: Counter[int] = Counter()

    def answer(call: Call) -> int | None:
        counts[call.rule] += 1
        rule = rules[call.rule][1]
        return -rule.errno if rule.action == "errno" else None

    code = _COMMAND.format(preload=_PRELOAD.format(path=str(HERE / "recording.py")))
    argv = [sys.executable, "-I", "-c", code, *arguments]
    exit_code = run_traced(lambda: os.execv(argv[0], argv), answer)
    Path(out).write_text(json.dumps(counts))
    return exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
