"""`airssys call`: call one function of any component, or send a message to a running actor; print what comes back."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys

from ipc import memory_file
from ipc.broker.messages import MAX_PAYLOAD_BYTES, ErrorKind
from ipc.errors import ConfigError
from supervisor.cli.asking import address_of
from supervisor.cli.main import EX_LIMIT, EX_NOPERM, EX_UNAVAILABLE
from supervisor.cli.run import (
    add_component_options,
    add_dev_option,
    add_grant_options,
    add_host_options,
    add_limit_options,
    duration,
    refuse_dev_and_grant,
    require_target,
)
from supervisor.control.client import ControlClient
from supervisor.control.messages import CallAnswer, CallComponent
from supervisor.host.processes import Processes
from supervisor.packages.target import is_path
from supervisor.terminal import TerminalFilter, visible
from supervisor.usage_error import UsageError

_EPILOG = """examples:
  airssys call ./calc.wasm add --json '[1, 2]'            calls a function of a component; prints what it returns
  airssys call ./calc.wasm docs:calc/ops#sum --json '[[1, 2, 3]]'      one of an interface
  airssys call ./resize --grant asked resize --file args.json          of a directory with a Component.toml
  airssys call calc add --json '[1, 2]'                   of what is installed under that name
  airssys call counter --json '{"op": "add", "n": 2}'     sends a running actor this text, prints the answer
  airssys call counter --file request.bin > answer.bin    sends a file's bytes
  echo -n hello | airssys call echo -                     sends what comes from standard input
  airssys call counter --json '{"op": "reset"}' --no-wait  does not wait for an answer

TARGET with a slash, a leading dot or ending in .wasm is a file or directory; else, with a FUNCTION, what is installed
under that name, and without one the name of a running component. A function is called with a JSON array of
arguments, in a process of its own, confined, limited and on record as a run is; airssys show TARGET lists the
functions. What it prints itself goes to stderr. Without --json, --file or - a function has no arguments, and a message
is empty.

Exit: 0 returned or answered; 1 with an error (a function's is printed, {"error": ...}); 65 no such function, other
arguments, or what was sent can't be; 69 gone, or nobody answers; 75 over a limit, or not in time; 77 this user may
not; 134 it trapped.
"""
_MESSAGE_TIMEOUT_NS = 30 * 10**9
_TIMEOUT_MAX_MS = 2_000_000_000
"""Three weeks: poll(2) takes no longer times."""
_CODES = {
    ErrorKind.NOT_PERMITTED: EX_NOPERM,
    ErrorKind.TIMED_OUT: EX_LIMIT,
    ErrorKind.MAILBOX_FULL: EX_LIMIT,
    ErrorKind.OVER_QUOTA: EX_LIMIT,
    ErrorKind.UNKNOWN_TARGET: EX_UNAVAILABLE,
    ErrorKind.TARGET_GONE: EX_UNAVAILABLE,
    ErrorKind.UNAVAILABLE: EX_UNAVAILABLE,
    ErrorKind.FAILED: 1,
}
_SPARE_S = 5.0
"""How much longer than the answer's own time the supervisor may take to say that it is over."""


class CallFailedError(ConfigError):
    """The call has ended without an answer; `exit_code` says of which kind."""

    def __init__(self, message: str, kind: str, hint: str | None) -> None:
        """Keep it."""
        super().__init__(message, hint=hint)
        self.exit_code = _CODES.get(kind, 65)  # type: ignore[misc]


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `call` command."""
    parser = subparsers.add_parser(
        "call",
        help="call a function of a component, or send a message to a running actor",
        epilog=_EPILOG,
        usage="airssys call TARGET FUNCTION [--json ARGS | --file FILE | -] [options]\n"
        "       airssys call NAME [--json TEXT | --file FILE | -] [options]",
    )
    parser.add_argument("target", metavar="TARGET", help="a .wasm file, a directory with a Component.toml, or a NAME")
    parser.add_argument("words", nargs="*", metavar="FUNCTION", help="NAME, INTERFACE/NAME or NS:PKG/INTERFACE#NAME")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--json", metavar="TEXT", dest="json_text", help="send this JSON text: an array, for a function")
    what.add_argument("--file", metavar="FILE", help="send what this file holds")
    parser.add_argument(
        "--timeout", type=duration, metavar="TIME", help="wall clock time (default: 30s for a message, else none)"
    )
    add_grant_options(parser)
    add_component_options(parser)
    add_dev_option(parser)
    add_limit_options(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="print what is returned, and what ended it, alone")
    add_host_options(parser)
    where = parser.add_argument_group("messages to a running actor")
    where.add_argument("--no-wait", action="store_true", help="return when the message is in its mailbox")
    where.add_argument("--socket", metavar="PATH", help="its supervisor's control socket (or $AIRSSYS_SOCKET)")
    # What `run` has beside these.
    parser.set_defaults(ask=False, write_manifest=None, json=False, report=None, raw_output=False, fail_on_denied=False)


def run(args: argparse.Namespace) -> int:
    """Call the function or send the message, and print what comes back."""
    words = list(args.words)
    args.source = words.pop() if words and words[-1] == "-" else None
    return _call_function(args, words) if is_path(args.target) or words else _send_message(args)


def _call_function(args: argparse.Namespace, words: list[str]) -> int:
    if len(words) != 1:
        what = "which function?" if not words else "one function is called, and several are named"
        raise UsageError(what, hint=f"its functions: airssys show {visible(args.target)}")
    for flag in ("no_wait", "socket"):
        if getattr(args, flag):
            raise UsageError(
                f"--{flag.replace('_', '-')} is for a message to a running component, named without a function"
            )
    refuse_dev_and_grant(args)
    if is_path(args.target):
        require_target(args.target)
    interface, name = _split(words[0])
    with contextlib.ExitStack() as stack:
        processes = args.processes or stack.enter_context(Processes(not args.no_namespaces, args.layer_off))
        from ipc.messages import FunctionCall
        from supervisor.cli.run_target import MAX_ARGUMENTS_BYTES, run_target

        arguments = _payload(args, MAX_ARGUMENTS_BYTES, "the arguments of a function have")
        return run_target(args, processes, FunctionCall(interface, name, arguments or b"[]"))


def _split(text: str) -> tuple[str, str]:
    """Return the interface, "" where none is named, and the function's name."""
    interface, _, name = text.rpartition("#" if "#" in text else "/")
    if not name:
        raise UsageError(f"{visible(text)}: no function is named", hint="INTERFACE/NAME or NS:PKG/INTERFACE#NAME")
    return interface, name


_RUN_OPTIONS = (
    *("read", "write", "list", "dir", "env", "secret", "grant", "set", "dev"),
    *("memory", "storage", "cpu_time", "fuel", "output"),
    *("run_as", "config", "no_namespaces", "layer_off", "require"),
)
"""What is for a component that is started by the call itself."""


def _send_message(args: argparse.Namespace) -> int:
    for flag in _RUN_OPTIONS:
        if getattr(args, flag):
            raise UsageError(
                f"--{flag.replace('_', '-')} is for a function that is called; {visible(args.target)} runs already",
                hint=f"a file or directory of this name: ./{visible(args.target)}",
            )
    payload = _payload(args, MAX_PAYLOAD_BYTES, "a message has")
    timeout_ms = min(max(1, (args.timeout or _MESSAGE_TIMEOUT_NS) // 10**6), _TIMEOUT_MAX_MS)
    request = CallComponent(args.target, not args.no_wait, timeout_ms)
    answer: CallAnswer | None = None
    body: bytes | None = None
    with ControlClient(address_of(args)) as client:
        file = memory_file.from_bytes("message", payload)
        try:
            for part, descriptors in client.ask(request, (file,), timeout_ms / 1e3 + _SPARE_S):
                assert isinstance(part, CallAnswer)
                answer = part
                for descriptor in descriptors:
                    body = memory_file.read_all(descriptor)
                    os.close(descriptor)
        finally:
            os.close(file)
    assert answer is not None, "Done comes after an answer"
    if answer.kind:
        raise _failed(args, answer)
    if body is not None:
        _write(body)
    return 0


def _failed(args: argparse.Namespace, answer: CallAnswer) -> CallFailedError:
    name = args.target
    words = {
        ErrorKind.TIMED_OUT: f"{name} did not answer in time",
        ErrorKind.TARGET_GONE: name,
        ErrorKind.UNKNOWN_TARGET: f"{name} takes no messages at the moment",
        ErrorKind.MAILBOX_FULL: f"{name} has not handled what lies in its mailbox, which is full",
        ErrorKind.FAILED: f"{name} answered with an error",
    }
    head = words.get(answer.kind, f"{name}: {answer.kind}")
    reason = f": {visible(answer.reason)}" if answer.reason else ""
    hints = {
        ErrorKind.TIMED_OUT: "give it longer with --timeout, or see what it does: airssys logs " + name,
        ErrorKind.FAILED: None,
        ErrorKind.TOO_LARGE: "it takes what [limits] max_payload in its Component.toml says",
    }
    return CallFailedError(head + reason, answer.kind, hints.get(answer.kind, f"airssys status {name}"))


def _payload(args: argparse.Namespace, bytes_max: int, what: str) -> bytes:
    if args.source is not None and (args.json_text is not None or args.file is not None):
        raise UsageError("- and --json or --file exclude each other: each is what is sent")
    if args.json_text is not None:
        try:
            json.loads(args.json_text, parse_constant=_refuse_constant)
            return str(args.json_text).encode()
        except UnicodeEncodeError:
            raise UsageError("--json: is not UTF-8", hint="bytes of any kind: --file FILE, or -") from None
        except RecursionError:
            raise UsageError("--json: its values are nested too deeply", hint="--file FILE, or -") from None
        except ValueError as error:
            raise UsageError(f"--json: {error}", hint="quote it for the shell: --json '{\"key\": 1}'") from None
    if args.source is None and args.file is None:
        return b""
    try:
        if args.file is not None:
            with open(args.file, "rb") as stream:
                data = stream.read(bytes_max + 1)
        else:
            data = sys.stdin.buffer.read(bytes_max + 1)
    except OSError as error:
        raise ConfigError(f"{visible(args.file or 'standard input')}: {os.strerror(error.errno or 0)}") from None
    if len(data) > bytes_max:
        raise ConfigError(f"{what} at most {bytes_max} bytes")
    return data


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _write(body: bytes) -> None:
    """Write an answer: as it is into a file or pipe, harmlessly and with an end of line to a terminal."""
    if sys.stdout.isatty():
        harmless = TerminalFilter(colours=False)
        body = harmless.feed(body) + harmless.finish()
        body += b"" if body.endswith(b"\n") or not body else b"\n"
    sys.stdout.buffer.write(body)
    sys.stdout.buffer.flush()
