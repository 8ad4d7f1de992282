"""`airssys sign DIR --key FILE`: say with one's own key that exactly these bytes are what one means."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ipc.errors import ConfigError
from ipc.struct import Struct
from supervisor.config.units import counted
from supervisor.packages.contents import LEFT_OUT, SIGNATURE_FILE, Contents
from supervisor.terminal import visible

if TYPE_CHECKING:
    from supervisor.signing.package_signatures import Judged
    from supervisor.signing.sshsig import Signature

_EPILOG = """examples:
  airssys sign ./log-summary --key ~/.ssh/id_ed25519          asks for the passphrase, if it has one
  airssys sign ./log-summary --key ~/.ssh/id_ed25519.pub      the private half is with an agent (ssh-add -l)
  airssys sign ./log-summary --key ci.key --output -          prints the signature, and writes nothing

Signs every byte of the component's directory through ssh-keygen, and keeps the signature in DIR/Component.sig beside
those of others. Whoever changes a byte, a name or a file afterwards makes it void.

Exit: 0 signed; 65 what was given can't be signed, or ssh-keygen refused; 69 there is no ssh-keygen; 73 not written.
"""


class _Others(Struct, frozen=True):
    """What becomes of the signatures that were there: those that are kept, and those that are not, with why."""

    kept: tuple[Judged, ...]
    dropped: tuple[Judged, ...]
    replaced: bool


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `sign` command."""
    parser = subparsers.add_parser("sign", help="sign a component with a key of OpenSSH's", epilog=_EPILOG)
    parser.add_argument("directory", metavar="DIR", help="a directory with a Component.toml")
    parser.add_argument("--key", required=True, metavar="FILE", help="a private key, or a public one that an agent has")
    parser.add_argument("--output", metavar="FILE", help="write this signature alone there (- prints it); DIR stays")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Sign, and say what was signed and what became of other signatures."""
    from supervisor.packages.directory import read_directory, read_signatures
    from supervisor.signing.package_signatures import judge_signatures
    from supervisor.signing.signature_file import remove_leftovers, write_signature_file
    from supervisor.signing.ssh_keygen import sign
    from supervisor.signing.sshsig import PACKAGE_NAMESPACE
    from supervisor.usage_error import UsageError

    if args.output == "-" and args.json:
        raise UsageError("--output - and --json both print", hint="write the signature to a file: --output FILE")
    for name in remove_leftovers(args.directory):
        print(f"airssys: removed {name}, which an airssys sign that was killed has left", file=sys.stderr)
    contents = read_directory(args.directory)
    _refuse_paths(args, contents)
    judge_signatures(contents, read_signatures(args.directory))  # what can't be kept is told before anybody is asked
    signature = sign(contents.statement, args.key, PACKAGE_NAMESPACE)
    if read_directory(args.directory).digest != contents.digest:
        raise ConfigError(f"{visible(args.directory)}: it changed while it was signed", hint="sign it again")
    others = _Others((), (), False)
    if args.output is None:
        # Read anew: somebody else may have signed while a passphrase was typed.
        others = _sorted_out(judge_signatures(contents, read_signatures(args.directory)), signature)
        blocks = [each.signature.block for each in others.kept]
        write_signature_file(args.directory, b"".join([*blocks, signature.block]))
    elif args.output == "-":
        sys.stdout.write(signature.block.decode())
    else:
        _write_output(args.output, signature.block)
    if args.json:
        print(json.dumps(_to_json(args, contents, signature, others), indent=2))
    else:
        where = sys.stderr if args.output == "-" else sys.stdout
        print("\n".join(_lines(args, contents, signature, others)), file=where)
    return 0


def _refuse_paths(args: argparse.Namespace, contents: Contents) -> None:
    """Raise for a key that would be given away with the package, and for an output that would make it another."""
    from supervisor.usage_error import UsageError

    if contents.file(_within(args.directory, args.key)) is not None:
        raise ConfigError(
            f"{visible(args.key)}: this key lies in the package, and would go with it", hint="keep it outside of DIR"
        )
    if args.output in (None, "-"):
        return
    top = _within(args.directory, args.output).partition("/")[0]
    if top == SIGNATURE_FILE or (top != ".." and top not in LEFT_OUT):
        hint = "write it elsewhere, or leave --output out to keep it there"
        raise UsageError(f"{visible(args.output)} lies in the package", hint=hint)


def _within(directory: str, path: str) -> str:
    """Return where a path lies, seen from a directory: it begins with `..` where it isn't in there."""
    parent, name = os.path.split(os.path.abspath(path))
    return os.path.relpath(os.path.join(os.path.realpath(parent), name), os.path.realpath(directory))


def _sorted_out(before: Sequence[Judged], signature: Signature) -> _Others:
    """Keep what others signed and holds, each key once; ours is replaced."""
    kept: dict[str, Judged] = {}
    dropped = []
    replaced = False
    for each in before:
        if each.key is None or each.why_not:
            dropped.append(each)
        elif each.key == signature.key:
            replaced = True
        else:
            kept.setdefault(each.key.text, each)
    return _Others(tuple(kept.values()), tuple(dropped), replaced)


def _write_output(path: str, block: bytes) -> None:
    from supervisor.signing.signature_file import NotWrittenError

    try:
        with open(path, "wb") as file:
            file.write(block)
    except OSError as error:
        raise NotWrittenError(f"{visible(path)}: {os.strerror(error.errno or 0).lower()}") from None


def _lines(args: argparse.Namespace, contents: Contents, signature: Signature, others: _Others) -> list[str]:
    size = f"{counted(len(contents.files), 'file')}, {counted(contents.total_bytes, 'byte')}"
    lines = [
        f"signed: {args.directory} ({size})",
        f"  digest  {contents.digest}",
        f"  key     {signature.key.kind} {signature.key.fingerprint}",
    ]
    if args.output is None:
        lines.append(f"  in      {os.path.join(args.directory, SIGNATURE_FILE)}")
    elif args.output != "-":
        lines.append(f"  in      {args.output}")
    if others.replaced:
        lines.append("replaced: an earlier signature by this key")
    lines += [f"kept: {_name(each)}" for each in others.kept]
    lines += [f"dropped: {_name(each)}: {each.why_not}" for each in others.dropped]
    return [visible(line) for line in lines]


def _name(judged: Judged) -> str:
    return "a signature" if judged.key is None else f"{judged.key.kind} {judged.key.fingerprint}"


def _to_json(args: argparse.Namespace, contents: Contents, signature: Signature, others: _Others) -> dict[str, object]:
    def judged(each: Judged) -> dict[str, object]:
        key = each.key
        return {
            "kind": None if key is None else key.kind,
            "fingerprint": None if key is None else key.fingerprint,
            "why": each.why_not or None,
        }

    return {
        "directory": args.directory,
        "digest": contents.digest,
        "files": len(contents.files),
        "bytes": contents.total_bytes,
        "key": {
            "kind": signature.key.kind,
            "fingerprint": signature.key.fingerprint,
            "text": signature.key.text,
        },
        "written": os.path.join(args.directory, SIGNATURE_FILE) if args.output is None else args.output,
        "replaced": others.replaced,
        "kept": [judged(each) for each in others.kept],
        "dropped": [judged(each) for each in others.dropped],
    }
