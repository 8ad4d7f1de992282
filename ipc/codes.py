"""The table of every code that a denial, a limit or an error carries; stable: a code never changes its meaning.

`airssys help CODE` prints an entry. A11xx forbidden, A12xx grants and names, A13xx access control list, A14xx roles,
A15xx quotas, A16xx the operating system, A17xx system calls, A18xx messages, A20xx limits, A30xx confinement and
hosting, A31xx installed packages.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from ipc.struct import Struct

FAMILIES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "A11": "Forbidden and guarded paths",
        "A12": "Grants and names",
        "A13": "The host's access control list",
        "A14": "Roles",
        "A15": "Quotas",
        "A16": "The operating system",
        "A17": "System calls",
        "A18": "Messages",
        "A20": "Limits",
        "A30": "Confinement and hosting",
        "A31": "Installed packages",
    }
)
"""The beginning of a code → what such codes are about."""


class Code(Struct, frozen=True):
    """One entry: a title of a few words, an explanation in sentences, and what a person can do."""

    code: str
    title: str
    explanation: str
    advice: str


def find_code(code: str) -> Code | None:
    """The entry of a code, written in any case; None if there is none."""
    return CODES.get(code.strip().upper())


_ENTRIES: Final = (
    Code(
        "A1101",
        "forbidden path",
        "The path belongs to what no grant can reach: key stores, login secrets, browser profiles, the memory of other "
        "processes, this host's own state; and for writing also start-up files, hooks, and directories that programs "
        "are started from.",
        "Keep the data elsewhere. No grant and no option lifts this.",
    ),
    Code(
        "A1102",
        "guarded path",
        "The path is in /proc, /sys, /dev or /boot.",
        "If the component needs exactly this file, name its full path among the lifted paths in airssys.toml, "
        "and grant it as well.",
    ),
    Code(
        "A1201",
        "no grant of this kind",
        "The component was granted nothing of this kind, and what is not granted is denied.",
        "Add the capability to Component.toml, or grant it on the command line.",
    ),
    Code(
        "A1203",
        "no grant covers it",
        "The component has grants of this kind, but none of them covers this resource. Patterns are judged on the real "
        "path, after symbolic links.",
        "Widen the nearest grant, or add one. `airssys explain` shows how a path is decided.",
    ),
    Code(
        "A1204",
        "leaves its mount",
        "The path climbs out of the directory that it began in, by `..` or by a symbolic link to an absolute or outer "
        "target.",
        "Mount and grant the directory in which the target is.",
    ),
    Code(
        "A1205",
        "not a regular file or directory",
        "Devices, sockets, pipes and files of kernel file systems are never opened for a component.",
        "Copy the data into a regular file.",
    ),
    Code(
        "A1206",
        "rename would change what the rules say",
        "Renaming this directory would move what lies beneath it under other rules, so it is answered as a rename "
        "across file systems (EXDEV).",
        "Most programs copy and delete instead. Grant both places alike to make it a plain rename.",
    ),
    Code(
        "A1207",
        "malformed name",
        "The name is not in the one normal form: it is empty, relative, too long, or holds NUL, `//`, a `.` or `..` "
        "segment, or text that is not valid.",
        "Fix the program that made the name. Names are never repaired, because a second reading evades checks.",
    ),
    Code(
        "A1208",
        "set-id or special mode",
        "A component may not give a file the set-user-id, set-group-id or sticky bit, nor write to a file that has "
        "one of the first two.",
        "Leave those bits to the operator of the host.",
    ),
    Code(
        "A1209",
        "unlinked object",
        "The object has no name any more, so no rule can be applied to it.",
        "Create the file again under a granted name.",
    ),
    Code(
        "A1210",
        "not present, or not visible",
        "Nothing that the component may see has this name.",
        "Check the name; `airssys explain` tells whether a grant covers it.",
    ),
    Code(
        "A1211",
        "another right is needed at the source",
        "A rename or link gives the object a new name; the component must hold on the old name every right that the "
        "new one confers.",
        "Grant the same rights on both names.",
    ),
    Code(
        "A1212",
        "ended at a question",
        "`--ask` held a call that no grant covers, and the answer was to quit.",
        "Run it again, and answer otherwise; `--write-manifest` keeps the answers.",
    ),
    Code(
        "A1301",
        "the host denies it",
        "A deny entry of the host's access control list covers the resource. A denial wins over every allowance.",
        "The operator of the host decides: see [[acl]] in airssys.toml.",
    ),
    Code(
        "A1302",
        "the host's allow entries don't cover it",
        "The host wrote allow entries for this component and action, and none covers the resource.",
        "The operator of the host decides: see [[acl]] in airssys.toml.",
    ),
    Code(
        "A1401",
        "no role permits it",
        "The host assigned roles to the component, and none of their permissions covers the resource.",
        "The operator of the host decides: see [roles] and the component's roles in airssys.toml.",
    ),
    Code(
        "A1501",
        "quota",
        "The component has used up its quota of this kind, so that this call was refused (EDQUOT for files). The event "
        "names the quota, its limit and what was used.",
        "Delete what is not needed, wait, or raise the quota within the host's maximum (--storage, [quota]).",
    ),
    Code(
        "A1502",
        "over a rate",
        "The component does more of this in a second than its quota allows, so that this was refused. The refusal says "
        "after how many milliseconds the same is accepted; more at once than a second's worth never is.",
        "Let it do less, or wait as long as it is told; or raise message_rate in [quota], within the host's maximum.",
    ),
    Code(
        "A1601",
        "the operating system refuses",
        "The policy allows it, but the user under whom files are opened (run_as) may not do it. No grant goes beyond "
        "what that user can do.",
        "Change the file's permissions, or run_as.",
    ),
    Code(
        "A1701",
        "forbidden system call",
        "The worker made a system call that no working component causes. It was ended.",
        "Treat the component as hostile or broken; the record names the call.",
    ),
    Code(
        "A1702",
        "socket or connection refused",
        "The component has no network of its own, and nothing that it was granted leads there.",
        "Grant network.connect or network.listen for what it needs.",
    ),
    Code(
        "A1703",
        "metadata call refused",
        "Owners, modes, attributes, locks and leases of files are not for components to change.",
        "Usually harmless; if the program insists, change the metadata outside.",
    ),
    Code(
        "A1704",
        "too many file calls",
        "The component made file calls faster than they are answered for longer than is tolerated.",
        "Let it do fewer, larger operations.",
    ),
    Code(
        "A1705",
        "the answering process failed",
        "The process that decides about file calls could not answer one in a defined way, so the worker was ended.",
        "Report it, with the audit record.",
    ),
    Code(
        "A1706",
        "too many threads",
        "The worker has more threads than any engine starts. It was ended.",
        "Treat the component as hostile: it has left WebAssembly.",
    ),
    Code(
        "A1707",
        "too many refusals",
        "The component went on asking for ever new things that are refused, faster than is recorded. It was ended.",
        "Grant what it needs if it is to be trusted; the audit log names what it asked for.",
    ),
    Code(
        "A1801",
        "unknown target",
        "The component may send to this name, and no component of this name is running.",
        "`airssys status` lists who runs. Start the other one first, or let the sender try again.",
    ),
    Code(
        "A1802",
        "mailbox full",
        "The receiver has not handled what lies in its mailbox, and there is no room for more.",
        "Send less, or later; or make the receiver faster. One that handles nothing is usually stuck in one call.",
    ),
    Code(
        "A1803",
        "payload too large",
        "The message, the value or the answer holds more bytes than the component may send at once.",
        "Send it in pieces, or raise max_payload in [limits].",
    ),
    Code(
        "A1804",
        "target gone",
        "The component that was to answer ended, or restarted, before it did. Whether it did its work is not known.",
        "`airssys logs NAME` shows its last words. Ask again if asking twice does no harm.",
    ),
    Code(
        "A1805",
        "timed out",
        "The other component did not answer within the time that the request gave it.",
        "Give it more time, or find out what keeps it busy.",
    ),
    Code(
        "A1806",
        "broke the protocol",
        "The worker said to the broker what no working worker says, or not when it may be said. It was ended.",
        "Treat the component as hostile or broken: it has left WebAssembly. The record names what was said.",
    ),
    Code(
        "A1807",
        "broker unavailable",
        "The broker, its store or the provider of a custom capability could not do it now; of a request that was "
        "accepted before, the answer is lost. The broker restarts by itself.",
        "Try again. If it stays, `airssys status` says what is wrong.",
    ),
    Code(
        "A1808",
        "malformed message",
        "The key, name, number or text in the message is not one that can be: empty, too long, with control "
        "characters, or out of its range.",
        "Fix the program that made it. Nothing is repaired, because a second reading evades checks.",
    ),
    Code(
        "A1809",
        "too many requests in flight",
        "The component waits for as many answers as it may at once.",
        "Wait for answers before asking more, or cancel those that don't matter any more.",
    ),
    Code(
        "A1810",
        "not answering",
        "The worker has not answered the broker's heartbeat, though its process lives. It was ended.",
        "Its process was stopped, or is starved of CPU: see the load of the host and the component's cpu_time.",
    ),
    Code(
        "A1811",
        "provider too slow",
        "The provider of a custom capability did not answer within its timeout, and was ended. Whether it did its work "
        "is not known. Another one takes its place.",
        "Raise timeout in its [providers] section of airssys.toml, or see what it did: `airssys logs provider.NAME`.",
    ),
    Code(
        "A1812",
        "refused by the provider",
        "The grant allows the action, and the provider of the custom capability itself refused this one.",
        "The reason is the provider's own. What it allows is its settings' and its program's to say.",
    ),
    Code(
        "A1813",
        "provider broke the protocol",
        "The provider of a custom capability sent what is no answer to the call that it had, or more than it may. It "
        "was ended, and another one takes its place.",
        "Fix the provider: its standard output carries answers and nothing else (docs/reference/providers.md).",
    ),
    Code(
        "A1814",
        "storage not shared",
        "The key begins with @ and so is one of a storage that several components share. It takes both: the host names "
        "the component in [storage.shared.NAME] of airssys.toml, and a grant of the component begins with @NAME: (`**` "
        "is not enough).",
        'Add the component to components there, or ask for a pattern such as "@NAME:**" in [capabilities.storage].',
    ),
    Code(
        "A2001",
        "out of memory",
        "The component needed more memory than its limit.",
        "Raise memory in [quota], or with --memory.",
    ),
    Code(
        "A2002",
        "timed out",
        "The component did not finish in time.",
        "Raise timeout in [limits], or with --timeout.",
    ),
    Code("A2003", "out of fuel", "The component executed as many instructions as it was given.", "Raise fuel."),
    Code(
        "A2004",
        "out of CPU time",
        "The component used as much processor time as its limit.",
        "Raise --cpu-time.",
    ),
    Code(
        "A2005",
        "too much output",
        "The component wrote more to its output and error streams than its limit.",
        "Raise output in [limits].",
    ),
    Code(
        "A2006",
        "too many tables or instances",
        "The component made more tables, table entries or instances than its limit.",
        "The program is unusual or hostile; these limits are far above what compilers produce.",
    ),
    Code(
        "A2007",
        "too many open files or files too large",
        "The component holds more descriptors, or wrote a larger file, than its limit.",
        "Close files that are done with, or write smaller ones.",
    ),
    Code(
        "A2008",
        "compilation limit",
        "Compiling the program took more time or memory than the compiler process may use. Nothing was run.",
        "If you trust the program, raise the limit for compilation.",
    ),
    Code(
        "A2009",
        "over the storage quota",
        "The component made a file that it held open grow until it stored more than its quota, and was ended. What it "
        "wrote is still there.",
        "Delete what is not needed, or raise storage in [quota] of the manifest, or with --storage.",
    ),
    Code(
        "A3001",
        "a required layer is missing",
        "This kernel, or a policy around us, does not offer a layer of confinement that is required, so the component "
        "was not started.",
        "`airssys doctor` names it, what it costs, and a command that mends it.",
    ),
    Code(
        "A3002",
        "confinement not confirmed",
        "The worker's confinement, seen from outside, is not what it must be, so the component was not started.",
        "`airssys doctor`; report it if it says that everything is well.",
    ),
    Code(
        "A3003",
        "worker died",
        "The worker process ended by a signal, a crash or without saying why.",
        "The record tells how; run it again with --report and report it if it repeats.",
    ),
    Code(
        "A3004",
        "audit log can't be written",
        "What can't be recorded is not allowed, so everything is refused until the log can be written again.",
        "Free space or mend the permissions of the log directory; service resumes by itself.",
    ),
    Code(
        "A3005",
        "import or directory missing",
        "The program imports what nothing provides, is no command, or was to see a directory that can't be opened.",
        "Check that it is built for WASI preview 1 or 2; or make the directory: the message names what is missing. "
        "What imports airssys:core is an actor: give it a Component.toml and start it with `airssys up`.",
    ),
    Code(
        "A3006",
        "not enforced by this version",
        "The manifest asks for something that this version does not enforce, so it is not accepted.",
        "Remove the key, or use a version that enforces it.",
    ),
    Code(
        "A3007",
        "protocol violation",
        "A worker said something that no working worker says. It was ended.",
        "Treat the component as hostile or broken.",
    ),
    Code(
        "A3008",
        "artifact refused",
        "The native code that was to be loaded is not the one that was recorded when it was compiled.",
        "Remove it from the cache; it is compiled again.",
    ),
    Code(
        "A3009",
        "not permitted on the control socket",
        "Somebody asked a running supervisor for something that their role does not permit.",
        "[control] in airssys.toml says who is a viewer, an operator or an admin.",
    ),
    Code(
        "A3010",
        "the approval is over",
        "People had approved what it may for a limited time, and that time ended while it ran. It was ended.",
        "Start it again: that asks for another approval. `airssys approvals list` shows what waits.",
    ),
    Code(
        "A3101",
        "an installed package was changed",
        "The files of an installed package are not those that were installed, so nothing of it was run. The message "
        "names the first that differs.",
        "Find out who could change it, then install it again: `airssys install` puts whole files in its place.",
    ),
    Code(
        "A3102",
        "a name from another source",
        "A component of this name is installed from another source. What the host says of a name, and what people "
        "remember of it, would hold for a stranger.",
        "Look at both sources in the message. If it is its next version: `airssys upgrade NAME SOURCE` asks; without a "
        "terminal it takes `--replace-source`. To run a directory whose component is called so without its having "
        "anything of the other's: `--state-dir DIR`.",
    ),
    Code(
        "A3103",
        "older than what is active",
        "The package is an older version than the one that its name means now. An old version may have faults that "
        "the newer one doesn't have.",
        "`airssys rollback NAME` goes back to a version that was installed before; `--allow-downgrade` installs an "
        "older one.",
    ),
    Code(
        "A3104",
        "wider than what is active",
        "The new version of a package could do more than the one that its name means now, and nobody said that it may.",
        "Look at the difference, then answer the question on a terminal, or say `--yes`.",
    ),
)

CODES: Final[Mapping[str, Code]] = MappingProxyType({entry.code: entry for entry in _ENTRIES})
