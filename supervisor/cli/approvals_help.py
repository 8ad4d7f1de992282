"""What stands below the options in the help of `airssys approvals` and its commands."""

from __future__ import annotations

from typing import Final

EPILOG: Final = """examples:
  airssys approvals list                         what waits for an answer, and what is approved
  airssys approvals show 12                      what it asks, or what is different from what was approved last
  airssys approvals approve 12 --expires 30d     shows it, asks, and approves it for thirty days
  airssys approvals approve 12 --without 'filesystem.write:/srv/out/**'
  airssys approvals reject 12 --reason "why does it write to /etc?"
  airssys approvals narrow 12 --without 'filesystem.write:/srv/in/**'
  airssys approvals revoke 12                    nothing starts by it any more, and what runs by it ends
  airssys approvals export 12 -o 12.json         to be reviewed and signed on another machine
  airssys approvals list --socket /home/alice/.local/state/airssys/control.sock   another user's

A request is filed by a start: where a rule of airssys.toml wants people to say yes, and where there is no terminal to
ask on. Who may answer is said by [control] approvers; else it is the user whose state it is. Root has no vote. A rule:

  [[approvals.rules]]
  when = ["filesystem.write"]     # actions; ["*"] for all that is asked
  approvers = 2                   # so many people

  [control]
  approvers = ["alice", "bob"]

Exit: 77 where this user may not, or the request is in a state that doesn't allow it; 75 where a supervisor doesn't
answer, and what it runs may still have what was taken away.
"""
LIST_EPILOG: Final = """examples:
  airssys approvals list
  airssys approvals list --all --json    for a program, what is over included

YES: who has said yes, of those who are needed. A request waits as `requested` until reviewers were told of it, then as
`pending`.
"""
SHOW_EPILOG: Final = """examples:
  airssys approvals show 12            where it is from, who signed it, what it asks, why that is dangerous, what is new
  airssys approvals show 12 --whole    also what is the same, and all that its program imports
  airssys approvals show 12 --manifest >reviewed.toml    to be edited, for: approve 12 --narrow reviewed.toml
  airssys approvals show 12.json       what `export` or `sign` has written, on any machine

What a component says of itself stands in quotation marks.
"""
REJECT_EPILOG: Final = """example: airssys approvals reject 12 --reason "too broad"

Nothing starts by it. Who asked is told the reason at their next start.
"""
REVOKE_EPILOG: Final = """example: airssys approvals revoke 12 --reason "a hole was found"

Nothing starts by it any more, and what runs by it has ended when the command returns.
"""
REQUEST_EPILOG: Final = """example: airssys approvals request 12

What was rejected or revoked is refused at each start until somebody asks anew. What has expired is asked by a start.
"""
APPROVE_EPILOG: Final = """examples:
  airssys approvals approve 12                    shows it, and asks
  airssys approvals approve 12 --without 'filesystem.write:${data}/**'     all but this, as `show` calls it
  airssys approvals approve 12 --narrow reviewed.toml --once     what `show 12 --manifest` has printed, with less in it
  airssys approvals approve 12 --expires 30d --reason "until the audit"
  airssys approvals approve 12 --yes 3f9a51c2     without a terminal: the digest that `show` has printed

Quote names with * or $, or the shell changes them. Nothing can be approved that isn't asked.
"""
NARROW_EPILOG: Final = """examples:
  airssys approvals narrow 12 --without 'filesystem.write:/srv/in/**'   all but this, as `show` calls it
  airssys approvals narrow 12 --expires 1h --reason "until the new one is there"

What is taken away is gone when the command returns. What is left stays approved; nothing can be added.
"""
SERVE_EPILOG: Final = """example: airssys approvals serve

Other users approve by a supervisor's control socket. `airssys up` has one; where nothing is up yet, this is one, for
approvals alone, until Ctrl-C.
"""
