"""`airssys approvals export|sign|show FILE|import`: a review on another machine, by a signature of the reviewer's."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import time
from typing import Final

from ipc.errors import ConfigError
from supervisor.approvals.machine import Refusal
from supervisor.approvals.narrowing import nearest_hint, without
from supervisor.approvals.objections import REASON_MAX_CHARS, SEEN_LEAST
from supervisor.approvals.review import DIGEST_SHOWN
from supervisor.approvals.service import Document, RefusedError
from supervisor.approvals.statement import Exported, Statement, exported_of, read_exported, read_statement, within_terms
from supervisor.cli.approvals_arguments import duration_s, number_of
from supervisor.cli.approvals_offhost_view import exported_lines, statement_lines
from supervisor.cli.confirm import NoTerminalError, confirm, on_terminal
from supervisor.terminal import visible

DEFAULT_IMPORT_S: Final = 30 * 86_400
"""For how long a signed yes can be imported where nothing else is said."""
_READ_MAX_BYTES: Final = 8 << 20
_EXPORT_EPILOG = """examples:
  airssys approvals export 12 -o 12.json
  airssys approvals export 12 | ssh reviewer@desk 'cat > 12.json'

It is text, and holds no secret that `airssys approvals show 12 --json` doesn't tell.
"""
_SIGN_EPILOG = """examples:
  airssys approvals sign 12.json --key ~/.ssh/id_ed25519 -o 12.signed
  airssys approvals sign 12.json --key ci.key --hosts 'web-*' --hosts 'ci-*' --expires 30d --yes 3f9a51c2

Works on any machine with ssh-keygen: it takes no supervisor, and no state. Without --hosts the yes is for the host that
has exported the request. `airssys approvals show FILE` prints the digest for --yes.
"""
_IMPORT_EPILOG = """example: airssys approvals import 12.signed

Whose signature counts is said by [[approvals.signers]] in airssys.toml. Where nobody has asked yet, it is kept.
"""


def register_offhost(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `export`, `sign` and `import`."""
    out = commands.add_parser("export", help="write a request down, to be signed elsewhere", epilog=_EXPORT_EPILOG)
    out.add_argument("number", metavar="ID", type=number_of, help="the number of the request")
    out.add_argument("-o", "--output", default="-", metavar="FILE", help="where to; - (the default) prints it")
    sign = commands.add_parser("sign", help="say yes to an exported request, by your key", epilog=_SIGN_EPILOG)
    sign.add_argument("file", metavar="FILE", help="what `export` has written")
    sign.add_argument("--key", required=True, metavar="KEY", help="a private key, or a public one that an agent has")
    sign.add_argument(
        "--hosts", action="append", default=[], metavar="PATTERN", help="for hosts with such names; may be repeated"
    )
    sign.add_argument(
        "--without", action="append", default=[], metavar="ACTION:PATTERN", help="leave out one thing; may be repeated"
    )
    sign.add_argument("--expires", metavar="DURATION", type=duration_s, help="it holds for so long from now on: 30d")
    sign.add_argument(
        "--import-within",
        metavar="DURATION",
        type=duration_s,
        default=DEFAULT_IMPORT_S,
        help="how long it can be imported (30d)",
    )
    sign.add_argument("--once", action="store_true", help="for one start on each host")
    sign.add_argument("--reason", default="", metavar="TEXT", help="why, for the record")
    sign.add_argument("--yes", metavar="DIGEST", help="don't ask: how the digest begins that was reviewed")
    sign.add_argument("-o", "--output", default="-", metavar="FILE", help="where to; - (the default) prints it")
    bring = commands.add_parser("import", help="bring a yes that was signed elsewhere", epilog=_IMPORT_EPILOG)
    bring.add_argument("file", metavar="FILE", help="what `sign` has written")


def export(output: str, document: Document) -> None:
    """Write a request down as it was shown."""
    if document["state"] not in ("requested", "pending"):
        raise RefusedError(
            f"request {document['request']} is {document['state']}, and waits for no answer",
            hint="what waits: airssys approvals list",
        )
    exported = exported_of(document)
    _write(output, exported.encoded)
    if output != "-":
        print(
            f"request {exported.number} of {visible(exported.host)} is in {visible(output)}\n"
            f"to review it: airssys approvals show {visible(output)}\n"
            f"to sign it:   airssys approvals sign {visible(output)} --key KEY -o {exported.number}.signed",
            file=sys.stderr,
        )


def sign_file(args: argparse.Namespace) -> int:
    """Show what is to be signed, ask, and write the signed yes."""
    from supervisor.approvals.signed import NAMESPACE, SignedStatement
    from supervisor.signing.ssh_keygen import sign

    exported = read_exported(_read(args.file))
    statement = _statement(args, exported)
    read_statement(statement.encoded)  # what no host would read is told before it is signed
    if args.yes is None:
        if not on_terminal():
            raise NoTerminalError(
                "there is no terminal to ask on, and nothing is signed unseen",
                hint=f"review it (airssys approvals show {visible(args.file)}), then name its digest: --yes DIGEST",
            )
        lines = [*exported_lines(exported, statement.granted), "", *statement_lines(statement, with_set=False)]
        print("\n".join(lines), file=sys.stderr)
        if not confirm("\nSign this? [y/N] "):
            print("airssys: not signed; to say no, on the host: airssys approvals reject ID", file=sys.stderr)
            return NoTerminalError.exit_code
    elif len(args.yes) < SEEN_LEAST or not exported.digest.startswith(args.yes):
        raise RefusedError(
            f"it isn't what was reviewed ({visible(args.yes[:DIGEST_SHOWN])}): it is {exported.digest[:DIGEST_SHOWN]}",
            hint=f"review it: airssys approvals show {visible(args.file)}",
        )
    signed = SignedStatement(statement, sign(statement.encoded, args.key, NAMESPACE))
    _write(args.output, signed.encoded)
    where = "" if args.output == "-" else f": {visible(args.output)}"
    print(
        f"signed by {signed.signature.key.fingerprint}{where}\n"
        f"on {visible(', '.join(statement.hosts))}: airssys approvals import {'FILE' if not where else where[2:]}",
        file=sys.stderr,
    )
    return 0


def _statement(args: argparse.Namespace, exported: Exported) -> Statement:
    from supervisor.approvals.host_names import check_host_pattern

    # What was narrowed by a file has no words in the request: then the whole is signed, and counts for what is left.
    named = within_terms(exported.granted, exported.subject.asked)
    asked = exported.subject.asked if named is None else named
    left = without(asked, args.without)
    if isinstance(left, Refusal):
        raise RefusedError(visible(left.reason), hint=nearest_hint(args.without, asked, f"show {visible(args.file)}"))
    if not left:
        raise RefusedError("nothing would be granted", hint="say no on the host: airssys approvals reject ID")
    hosts = tuple(each.lower() for each in args.hosts) or (exported.host,)
    for each in hosts:
        expected = check_host_pattern(each)
        if expected:
            raise ConfigError(f"--hosts {visible(each[:80])}: expected {expected}")
    if len(args.reason) > REASON_MAX_CHARS:
        raise RefusedError(f"a reason has at most {REASON_MAX_CHARS} characters")
    now_s = int(time.time())
    return Statement(
        subject=exported.subject,
        granted=left,
        hosts=hosts,
        signed_s=now_s,
        import_before_s=now_s + args.import_within,
        expires_s=None if args.expires is None else now_s + args.expires,
        once=args.once,
        reason=args.reason,
        reviewed=exported.digest,
        host=exported.host,
        number=exported.number,
        nonce=secrets.token_hex(16),
    )


def show_file(args: argparse.Namespace) -> int:
    """Say in words what an exported or signed file holds; 65 where its signature doesn't hold."""
    from supervisor.approvals.signed import read_signed, why_not_signed

    data = _read(args.number)
    if b"-----BEGIN SSH SIGNATURE-----" not in data:
        exported = read_exported(data)
        if args.manifest:
            print_manifest(exported.document)
            return 0
        lines = exported_lines(exported, exported.granted)
        digest = exported.digest[:DIGEST_SHOWN]
        name = visible(args.number)
        lines += ["", f"to sign it: airssys approvals sign {name} --key KEY   (without a terminal: --yes {digest})"]
        print(exported.encoded.decode() if args.json else "\n".join(lines))
        return 0
    signed = read_signed(data)
    key, why = signed.signature.key, why_not_signed(signed)
    if args.json:
        told = {"key": key.text, "fingerprint": key.fingerprint, "holds": not why, "why": why or None}
        print(json.dumps({"signature": told, "statement": json.loads(signed.statement.encoded)}, indent=2))
    else:
        word = "it holds; whose key it is, each host says"
        print(
            "\n".join([*statement_lines(signed.statement), visible(f"signature by {key.fingerprint}: {why or word}")])
        )
    return 65 if why else 0


def print_manifest(document: Document) -> None:
    """Print the manifest that was asked with, as it is; on a terminal harmlessly."""
    text = str(document.get("manifest", ""))
    sys.stdout.write("".join(f"{visible(line)}\n" for line in text.splitlines()) if sys.stdout.isatty() else text)


def read_import(path: str) -> bytes:
    """Return a signed file as it travels."""
    from supervisor.approvals.signed import FILE_MAX_BYTES

    data = _read(path)
    if len(data) > FILE_MAX_BYTES:
        raise ConfigError(f"{visible(path)}: more than {FILE_MAX_BYTES >> 10} KiB, and no signed approval")
    return data


def import_lines(document: Document) -> list[str]:
    """Return what has become of an import."""
    from supervisor.cli.approvals_view import outcome_lines

    if "kept" not in document:
        return outcome_lines("import", document)
    others = document["others"]
    name = f"{document['component']}@{document['instance']}" if document["instance"] else str(document["component"])
    until = str(document["until"]).replace("T", " ").replace("Z", "")
    lines = [f"kept: nobody has asked for {name} of this package here yet; the yes by {document['by']} counts when"]
    lines[0] += f" somebody does, before {until} UTC"
    lines += [f"  what is asked is something else: {each}" for each in (others if isinstance(others, list) else [])]
    return [visible(line) for line in lines]


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(_READ_MAX_BYTES + 1)
    except OSError as error:
        hint = "a request has a number: airssys approvals list" if isinstance(error, FileNotFoundError) else None
        raise ConfigError(f"{visible(path)}: {os.strerror(error.errno or 0).lower()}", hint=hint) from None
    if len(data) > _READ_MAX_BYTES:
        raise ConfigError(f"{visible(path)}: more than {_READ_MAX_BYTES >> 20} MiB, and no approval")
    return data


def _write(path: str, data: bytes) -> None:
    from supervisor.signing.signature_file import NotWrittenError

    if path == "-":
        sys.stdout.write(data.decode())
        return
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError as error:
        raise NotWrittenError(f"{visible(path)}: {os.strerror(error.errno or 0).lower()}") from None
