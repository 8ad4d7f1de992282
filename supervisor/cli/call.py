"""`airssys call NAME`: send a message to a running actor, and print what it answers."""

from __future__ import annotations

import argparse
import json
import os
import sys

from ipc.broker.messages import MAX_PAYLOAD_BYTES, ErrorKind
from ipc.errors import ConfigError
from supervisor import memory_file
from supervisor.cli.asking import add_socket_options, address_of
from supervisor.cli.main import EX_LIMIT, EX_NOPERM, EX_UNAVAILABLE
from supervisor.cli.run import duration
from supervisor.control_client import ControlClient
from supervisor.control_messages import CallAnswer, CallComponent
from supervisor.terminal import TerminalFilter, visible
from supervisor.usage_error import UsageError

_EPILOG = """examples:
  airssys call counter --json '{"op": "add", "n": 2}'     sends this text, prints the answer
  airssys call counter --file request.bin > answer.bin    sends a file's bytes
  echo -n hello | airssys call echo -                     sends what comes from standard input
  airssys call counter --json '{"op": "reset"}' --no-wait  does not wait for an answer

Without --json, --file or - the message is empty. Exit: 0 answered; 1 the component answered with an error; 75 it did
not answer in time; 69 it is gone, or nobody answers; 77 this user may not; 65 what was sent can't be.
"""
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
        help="send a message to a running actor, and print its answer",
        epilog=_EPILOG,
        usage="airssys call NAME [--json TEXT | --file FILE | -] [options]",
    )
    parser.add_argument("name", metavar="NAME", help="a component of the supervisor")
    parser.add_argument("source", nargs="?", choices=("-",), metavar="-", help="send what comes from standard input")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--json", metavar="TEXT", dest="json_text", help="send this JSON text")
    what.add_argument("--file", metavar="FILE", help="send what this file holds")
    parser.add_argument("--no-wait", action="store_true", help="return when the message is in its mailbox")
    parser.add_argument(
        "--timeout", type=duration, metavar="TIME", default="30s", help="for the answer (default: %(default)s)"
    )
    add_socket_options(parser)


def run(args: argparse.Namespace) -> int:
    """Send it, and print the answer."""
    payload = _payload(args)
    timeout_ms = max(1, args.timeout // 10**6)
    request = CallComponent(args.name, not args.no_wait, timeout_ms)
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
    name = args.name
    words = {
        ErrorKind.TIMED_OUT: f"{name} did not answer in time",
        ErrorKind.TARGET_GONE: f"{name} ended before it answered",
        ErrorKind.UNKNOWN_TARGET: f"{name} takes no messages at the moment",
        ErrorKind.MAILBOX_FULL: f"{name} has not handled what lies in its mailbox, which is full",
        ErrorKind.FAILED: f"{name} answered with an error",
    }
    head = words.get(answer.kind, f"{name}: {answer.kind}")
    reason = f": {visible(answer.reason)}" if answer.reason else ""
    hints = {
        ErrorKind.TIMED_OUT: "give it longer with --timeout, or see what it does: airssys logs " + name,
        ErrorKind.FAILED: None,
    }
    return CallFailedError(head + reason, answer.kind, hints.get(answer.kind, f"airssys status {name}"))


def _payload(args: argparse.Namespace) -> bytes:
    if args.source is not None and (args.json_text is not None or args.file is not None):
        raise UsageError("- and --json or --file exclude each other: each is what is sent")
    if args.json_text is not None:
        try:
            json.loads(args.json_text)
        except ValueError as error:
            raise UsageError(f"--json: {error}", hint="quote it for the shell: --json '{\"key\": 1}'") from None
        return str(args.json_text).encode("utf-8", "surrogateescape")
    if args.source is None and args.file is None:
        return b""
    try:
        if args.file is not None:
            with open(args.file, "rb") as stream:
                data = stream.read(MAX_PAYLOAD_BYTES + 1)
        else:
            data = sys.stdin.buffer.read(MAX_PAYLOAD_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{visible(args.file or 'standard input')}: {os.strerror(error.errno or 0)}") from None
    if len(data) > MAX_PAYLOAD_BYTES:
        raise ConfigError(f"a message has at most {MAX_PAYLOAD_BYTES} bytes")
    return data


def _write(body: bytes) -> None:
    """Write an answer: as it is into a file or pipe, harmlessly and with an end of line to a terminal."""
    if sys.stdout.isatty():
        harmless = TerminalFilter(colours=False)
        body = harmless.feed(body) + harmless.finish()
        body += b"" if body.endswith(b"\n") or not body else b"\n"
    sys.stdout.buffer.write(body)
    sys.stdout.buffer.flush()
