"""`airssys verify DIR`: which signatures of a component hold, by which keys, and whose these are."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ipc.errors import ConfigError
from ipc.struct import Struct
from supervisor.terminal import visible

if TYPE_CHECKING:
    from supervisor.packages.contents import Contents
    from supervisor.signing.allowed_signers import AllowedSigner
    from supervisor.signing.keys import PublicKey
    from supervisor.signing.package_signatures import Judged

EX_OK = 0
EX_NOPERM = 77
_EPILOG = """examples:
  airssys verify ./log-summary                                      which signatures hold, and by which keys
  airssys verify ./log-summary --signers ~/.ssh/allowed_signers     and whose keys these are: only theirs count
  airssys verify ./log-summary --signers team --revoked gone.keys   but none of these
  airssys verify ./log-summary --statement | ssh-keygen -Y verify -n airssys-package \\
      -f allowed_signers -I alice@example.com -s ./log-summary/Component.sig

FILE of --signers has the form that ssh-keygen(1) calls ALLOWED SIGNERS. Without it any key will do: that says that
the bytes are what somebody signed, and not who.

Exit: 0 a signature holds (with --signers: by somebody who is listed, now); 77 none does; 65 bad input.
"""


class _Verdict(Struct, frozen=True):
    """What is said of one signature; `signer` is the line by which its key counts, `why` why it doesn't."""

    judged: Judged
    signer: AllowedSigner | None
    why: str


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `verify` command."""
    parser = subparsers.add_parser("verify", help="say who signed exactly these bytes of a component", epilog=_EPILOG)
    parser.add_argument("directory", metavar="DIR", help="a directory with a Component.toml")
    parser.add_argument("--signers", metavar="FILE", help="whose keys count, in OpenSSH's form (allowed_signers)")
    parser.add_argument("--revoked", metavar="FILE", help="public keys that don't count any more, a line each")
    parser.add_argument("--statement", action="store_true", help="only print what is signed, for ssh-keygen -Y verify")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Print what is to be said of each signature; 0 where one counts."""
    from supervisor.packages.directory import read_directory, read_signatures
    from supervisor.signing.package_signatures import judge_signatures

    if os.path.isfile(args.directory):
        raise ConfigError(
            f"{visible(args.directory)}: a file, and what is verified is a directory",
            hint="unpack an archive first; airssys install FILE says who signed it, too",
        )
    contents = read_directory(args.directory)
    if args.statement:
        sys.stdout.buffer.write(contents.statement)  # whatever the terminal's encoding is: these bytes are signed
        return EX_OK
    judged = judge_signatures(contents, read_signatures(args.directory))
    verdicts, notes = _verdicts(judged, args.signers, args.revoked)
    accepted = any(not each.why for each in verdicts)
    if args.json:
        print(json.dumps(_to_json(args, contents, verdicts, notes), indent=2))
    else:
        print("\n".join(visible(line) for line in _lines(args, contents, verdicts, notes)))
    return EX_OK if accepted else EX_NOPERM


def _verdicts(
    judged: Sequence[Judged], signers_path: str | None, revoked_path: str | None
) -> tuple[list[_Verdict], tuple[str, ...]]:
    from supervisor.signing.allowed_signers import AllowedSigners, find_signer, read_allowed_signers, read_revoked_keys
    from supervisor.signing.sshsig import PACKAGE_NAMESPACE

    revoked: frozenset[PublicKey] = frozenset()
    if revoked_path is not None:
        revoked = read_revoked_keys(_read(revoked_path), revoked_path)
    allowed: AllowedSigners | None = None
    if signers_path is not None:
        allowed = read_allowed_signers(_read(signers_path), signers_path)
    now_s = int(time.time())
    verdicts = []
    for each in judged:
        signer, why = None, each.why_not
        if not why and each.key in revoked:
            why = f"its key is revoked ({visible(revoked_path or '')})"
        if not why and each.key is not None and allowed is not None:
            signer, why = find_signer(allowed.signers, each.key, PACKAGE_NAMESPACE, now_s)
        verdicts.append(_Verdict(each, signer, why))
    return verdicts, () if allowed is None else allowed.passed_over


def _read(path: str) -> bytes:
    from supervisor.signing.allowed_signers import FILE_MAX_BYTES

    try:
        with open(path, "rb") as file:
            return file.read(FILE_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{visible(path)}: {os.strerror(error.errno or 0).lower()}") from None


def _lines(
    args: argparse.Namespace, contents: Contents, verdicts: Sequence[_Verdict], notes: Sequence[str]
) -> list[str]:
    lines = []
    for each in verdicts:
        key = each.judged.key
        name = "a signature" if key is None else f"{key.kind} {key.fingerprint}"
        whose = f"  {each.signer.identities}" if each.signer is not None else ""
        lines.append(f"refused  {name}: {each.why}" if each.why else f"holds    {name}{whose}")
    lines += [f"note: {note}" for note in notes]
    return [*lines, f"{_summary(args, verdicts)}; digest {contents.digest}"]


def _summary(args: argparse.Namespace, verdicts: Sequence[_Verdict]) -> str:
    good = [each for each in verdicts if not each.why]
    if not verdicts:
        return f"{args.directory}: not signed"
    if not good:
        held = any(not each.judged.why_not for each in verdicts)
        return f"{args.directory}: " + ("signed, and by nobody who counts" if held else "no signature holds")
    who = dict.fromkeys(each.signer.identities for each in good if each.signer is not None)
    return f"{args.directory}: signed by " + (", ".join(who) or "whoever has that key (--signers says who that is)")


def _to_json(
    args: argparse.Namespace, contents: Contents, verdicts: Sequence[_Verdict], notes: Sequence[str]
) -> dict[str, object]:
    signatures = []
    for each in verdicts:
        key = each.judged.key
        signatures.append(
            {
                "kind": None if key is None else key.kind,
                "fingerprint": None if key is None else key.fingerprint,
                "holds": not each.judged.why_not,
                "accepted": not each.why,
                "identity": None if each.signer is None else each.signer.identities,
                "line": None if each.signer is None else each.signer.line,
                "why": each.why or None,
            }
        )
    return {
        "directory": args.directory,
        "digest": contents.digest,
        "files": len(contents.files),
        "bytes": contents.total_bytes,
        "verified": any(not each.why for each in verdicts),
        "signatures": signatures,
        "notes": list(notes),
    }
