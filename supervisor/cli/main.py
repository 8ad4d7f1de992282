"""The root of the command line: finds the command, imports only its module, and turns errors into one or two lines.

Exit codes follow sysexits.h(3): 64 usage, 65 data, 69 unavailable, 70 software, 73 can't create, 75 limit, 77 refused;
for `run` the guest's own code passes through.
"""

from __future__ import annotations

import argparse
import errno
import functools
import gc
import importlib
import os
import sys
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipc.errors import AuditError, ConfigError
    from supervisor.host.processes import Processes

EX_USAGE = 64
EX_DATAERR = 65
EX_UNAVAILABLE = 69
EX_SOFTWARE = 70
EX_CANTCREAT = 73
EX_LIMIT = 75
EX_NOPERM = 77

COMMANDS = {
    "run": ("supervisor.cli.run", "run a component or a bare WebAssembly program, confined"),
    "up": ("supervisor.cli.up", "keep several components up, which may send each other messages"),
    "call": ("supervisor.cli.call", "call a function of a component, or send a message to a running actor"),
    "status": ("supervisor.cli.status", "say how the components of a supervisor are"),
    "logs": ("supervisor.cli.logs", "show what a component printed, also after its end"),
    "quota": ("supervisor.cli.quota", "say how full the quotas of running components are"),
    "down": ("supervisor.cli.down", "end a supervisor and its components, in order"),
    "check": ("supervisor.cli.check", "say what a component asks for, and what is wrong with it"),
    "install": ("supervisor.cli.install", "install a component under its name"),
    "list": ("supervisor.cli.list_installed", "list what is installed"),
    "upgrade": ("supervisor.cli.upgrade", "install another version of what is installed"),
    "rollback": ("supervisor.cli.rollback", "go back to another installed version"),
    "remove": ("supervisor.cli.remove", "remove what is installed"),
    "show": ("supervisor.cli.show", "say what a component is, asks for and imports"),
    "diff": ("supervisor.cli.diff", "say what a new version of a component could do more"),
    "pack": ("supervisor.cli.pack", "make one file of a component directory"),
    "publish": ("supervisor.cli.publish", "push a component into an OCI registry"),
    "explain": ("supervisor.cli.explain", "say whether an action would be allowed, and by which rule"),
    "grants": ("supervisor.cli.grants", "list and forget what was granted and is remembered"),
    "sign": ("supervisor.cli.sign", "sign a component with a key of OpenSSH's"),
    "verify": ("supervisor.cli.verify", "say who signed exactly these bytes of a component"),
    "trust": ("supervisor.cli.trust", "say which sources are trusted, and whether one is"),
    "approvals": ("supervisor.cli.approvals", "see and answer what waits for approval"),
    "audit": ("supervisor.cli.audit", "read and verify the audit log"),
    "config": ("supervisor.cli.config", "check and show the host's settings"),
    "schema": ("supervisor.cli.schema", "print the JSON Schema of a file of ours, or what an actor is built against"),
    "doctor": ("supervisor.cli.doctor", "say what this machine offers for confinement, and how to mend what it lacks"),
    "help": ("supervisor.cli.help_code", "explain a denial or error code such as A1203"),
    "completion": ("supervisor.cli.completion", "print the shell completion script"),
}
"""Command → (module that implements it, one line of help)."""
_INTERMIXED = frozenset(("up", "call"))
_OF_APPROVALS = ("approve", "reject", "revoke", "narrow")
"""What is looked for without `approvals` in front of it."""


class CommandModule(Protocol):
    """What the module of a command offers."""

    def register(self, subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
        """Add the command's parser."""

    def run(self, args: argparse.Namespace) -> int:
        """Carry the command out and return the exit code."""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """argparse asks for the terminal's width at each argument that is added, and imports shutil for it: 7 ms in all."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_terminal_columns() - 2)


@functools.cache
def _terminal_columns() -> int:
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return int(columns)
    try:
        return os.get_terminal_size(1).columns or 80
    except OSError:
        return 80


class _Parser(argparse.ArgumentParser):
    """argparse with the exit code of sysexits.h for a usage error, and a pointer to the help."""

    help_of = ""
    """Whose help is pointed to, where not this parser's own: argparse tells the root of a command's stray arguments."""
    intermixed = False
    """Whether options may stand between its words, of which there can be any number."""
    known: tuple[str, ...] = ()
    """The options that it could have been, of what is told of stray ones."""
    as_json: ClassVar[bool] = False
    """Whether --json stands in what is parsed: for errors, after which there are no parsed arguments."""

    def __init__(self, **options: Any) -> None:
        # Nothing is said by half: `--y` is no yes.
        super().__init__(formatter_class=_Formatter, allow_abbrev=False, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if not self.intermixed:
            return super().parse_known_args(args, namespace)
        self.intermixed = False  # which calls this one in its turn
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self.intermixed = True

    def error(self, message: str) -> NoReturn:
        stray = message.removeprefix("unrecognized arguments: ")
        hint = ""
        command = self.help_of or self.prog
        if stray != message and not stray.startswith("-") and command == "airssys run":
            hint = "if your shell expanded a pattern, quote it; the guest's own arguments follow --"
        elif message.endswith("expected one argument"):
            hint = "a value that begins with - is joined to its option by ="
        elif stray != message and stray.startswith("--"):
            hint = _near(stray.split()[0].partition("=")[0], self.known)
        elif " invalid choice: '" in message:
            typed, _, choices = message.partition(" invalid choice: '")[2].partition("' (choose from ")
            hint = _near(typed, choices.strip("')").split("', '"))
        raise SystemExit(_usage(message, hint, f"see: {command} --help", self.as_json))


def _near(typed: str, known: Iterable[str]) -> str:
    """Return what was probably meant, as a hint; empty where nothing is near."""
    import difflib

    near = difflib.get_close_matches(typed, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else ""


def _usage(message: str, hint: str, see: str, as_json: bool) -> int:
    """Say what is wrong with the command line, and where the help is; return the exit code."""
    from supervisor.terminal import visible

    if as_json:
        import json

        document = {"code": "config", "message": message, "hint": f"{hint}; {see}" if hint else see}
        print(json.dumps({"error": document}))
    else:
        lines = [f"airssys: {visible(message)}", *([f"  {hint}"] if hint else []), see]
        print("\n".join(lines), file=sys.stderr)
    return EX_USAGE


_EPILOG = """examples:
  airssys run ./log-summary                       a directory with a Component.toml: asks once, then runs
  airssys run prog.wasm --read in/ -- in/a.csv    a bare program: the flags are the grant
  airssys up ./counter ./reporter                 several, until Ctrl-C; airssys status, logs and down from elsewhere
  airssys install ./log-summary                   under its name; then: airssys run log-summary
  airssys check ./log-summary --explain           what it asks for, and the rules that follow
  airssys diff ./log-summary ./log-summary-1.1    what a new version could do more
  airssys explain ./log-summary filesystem.read /var/log/app.log
  airssys approvals list                          what waits for somebody's yes
  airssys audit query --decision denied           what was refused, and why
  airssys doctor                                  what this kernel offers
"""


def _parser(command: str | None) -> _Parser:
    root = _Parser(
        prog="airssys",
        description="Run WebAssembly components that you did not write, each in a process that can do nothing itself.",
        epilog=_EPILOG,
    )
    root.help_of = f"airssys {command}" if command else ""
    parser: argparse.ArgumentParser = root
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    subparsers = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    for name, (module_name, summary) in COMMANDS.items():
        if name == command:
            module: CommandModule = importlib.import_module(module_name)
            module.register(subparsers)
            own = subparsers.choices[name]
            assert isinstance(own, _Parser)
            own.intermixed = name in _INTERMIXED
        else:
            subparsers.add_parser(name, help=summary, add_help=False)
    return root


def main(arguments: list[str], processes: Processes | None = None) -> int:
    """Run the command line and return the exit code; never shows a traceback for something the user did.

    `processes` were started ahead for a run (`supervisor.cli.entry`); they stay the caller's.
    """
    cut = _dashes(arguments)
    command = next((a for a in arguments[:cut] if not a.startswith("-")), None)
    # What `call` has behind its --json is sent, and says nothing of how errors are to read.
    _Parser.as_json = "--json" in arguments[:cut] and command != "call"
    if command is not None and command not in COMMANDS:
        near = _near(command, COMMANDS)
        hint = f"; {near}" if near else ""
        if not near and command in _OF_APPROVALS:
            hint = f"; did you mean 'approvals {command}'?"
        return _usage(f"no command {command!r}{hint}", "", "see: airssys --help", _Parser.as_json)
    parser = _parser(command)
    args, more = parser.parse_known_args(arguments[:cut])
    if more and command == "call" and not any(word.startswith("-") and word != "-" for word in more):
        # Words behind options: argparse gives those to nobody where there were none before the options.
        args.words, more = [*args.words, *more], []
    if more:
        told = _told_by(parser, arguments[:cut])
        parser.help_of = told.prog
        parser.known = tuple(each for action in told._actions for each in action.option_strings)
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    args.guest_arguments = tuple(arguments[cut + 1 :])
    args.processes = processes
    if args.guest_arguments and args.command != "run":
        see = f"see: airssys {args.command} --help" if args.command else "see: airssys --help"
        return _usage("what follows `--` belongs to `airssys run` alone", "", see, _Parser.as_json)
    if args.version:
        from importlib.metadata import version

        print(f"airssys {version('airssys-wasm')}")
        return 0
    if args.command is None:
        parser.print_help()
        return 0
    module: CommandModule = importlib.import_module(COMMANDS[args.command][0])
    if args.command != "run":  # which imports more before it does anything
        gc.enable()
    return _guarded(module, args)


def _told_by(parser: _Parser, arguments: list[str]) -> _Parser:
    """Return the parser of the command that was called, of the innermost one: argparse tells the root."""
    for word in arguments:
        inner = next((each.choices for each in parser._actions if isinstance(each, argparse._SubParsersAction)), {})
        if word in inner:
            parser = inner[word]
    return parser


def _dashes(arguments: list[str]) -> int:
    """Where our arguments end: what follows `--` belongs to the guest, whatever it looks like."""
    return arguments.index("--") if "--" in arguments else len(arguments)


def _guarded(module: CommandModule, args: argparse.Namespace) -> int:
    from ipc.errors import AirssysError, AuditError, ConfigError, ConfinementError

    try:
        return module.run(args)
    except ConfigError as error:
        return _told(error, error.kind, error.exit_code, args)
    except ConfinementError as error:
        return _told(error, "confinement", EX_UNAVAILABLE, args)
    except AuditError as error:
        return _told(error, "audit", EX_CANTCREAT, args)
    except AirssysError as error:
        return _told(error, "internal", EX_SOFTWARE, args)
    except BrokenPipeError:
        # The reader of our output went away (`| head`): nothing is left to say to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + 13
    except Exception as error:  # the last resort: our own bug, told in two lines
        if os.environ.get("AIRSSYS_DEBUG"):
            raise
        told = _surroundings_at_fault(error)
        if told is not None:
            return _told(told, "config" if told.exit_code == EX_DATAERR else "audit", told.exit_code, args)
        bug = ConfigError(
            f"internal error: {type(error).__name__}: {error}",
            hint="this is a bug of ours; with AIRSSYS_DEBUG=1 it shows where",
        )
        return _told(bug, "internal", EX_SOFTWARE, args)
    except KeyboardInterrupt:
        return 130


def _surroundings_at_fault(error: Exception) -> ConfigError | AuditError | None:
    """Return what an error tells that is nobody's bug: a directory that is gone, a full file system, a limit."""
    from ipc.audit.errors import AuditLogError
    from ipc.errors import ConfigError

    if isinstance(error, MemoryError):
        return ConfigError("there is too little memory for it here", hint="what bounds it: free -m; ulimit -v")
    number = getattr(error, "errno", None)  # that of ZeroMQ's errors too, which aren't OSErrors
    if number in (errno.EMFILE, errno.ENFILE):
        return ConfigError("too many open files", hint="raise the limit: ulimit -n 256")
    if not isinstance(error, OSError):
        return None
    if number in (errno.EAGAIN, errno.ENOMEM):
        return ConfigError(
            f"no process or memory can be had for it here: {os.strerror(number or 0)}",
            hint="what bounds them: ulimit -u; free -m",
        )
    if isinstance(error, FileNotFoundError):
        try:
            os.getcwd()
        except FileNotFoundError:
            return ConfigError("the working directory was removed", hint="go to one that exists: cd DIR")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f"{error.filename}: " if error.filename else ""
        return AuditLogError(
            f"{where}{os.strerror(error.errno)}", hint="make room where output and state are kept: df -h"
        )
    return None


def _told(error: Exception, kind: str, exit_code: int, args: argparse.Namespace) -> int:
    # Only here: what can tell an error imports what tells a whole run.
    from supervisor.report import print_error

    return print_error(error, kind, exit_code, args)
