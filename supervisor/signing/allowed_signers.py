"""Who signs by which key: OpenSSH's allowed signers file (ssh-keygen(1), ALLOWED SIGNERS), and lists of revoked keys.

Pure, but for the time zone of times that are written without one. What isn't understood is an error, since it may have
narrowed something; what is understood and not supported lists nobody, and is told.
"""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Iterator, Sequence
from typing import Final

from ipc.errors import ConfigError
from ipc.struct import Struct
from supervisor.signing.keys import PublicKey, UnsupportedKeyError, read_public_key
from supervisor.terminal import visible

FILE_MAX_BYTES: Final = 1 << 20
_KRL_MAGIC: Final = b"SSHKRL\n\0"
_FIRST_WORD: Final = re.compile(r'"([^"]*)"(?=[ \t])|([^ \t"]+)(?=[ \t])')
_OPTION: Final = re.compile(r'([A-Za-z-]+)(?:="((?:\\"|[^"])*)")?(,|(?=[ \t]))')
_OPTIONS: Final = ("cert-authority", "namespaces", "valid-after", "valid-before")
_TIME: Final = re.compile(r"(\d{8})(?:(\d{4})(\d{2})?)?(Z|UTC)?", re.IGNORECASE | re.ASCII)


class AllowedSigner(Struct, frozen=True):
    """One line: whose key it is (`identities`, a list of patterns), for what, from when until when (both included).

    Times are seconds since 1970, UTC.
    """

    line: int
    identities: str
    key: PublicKey
    namespaces: str | None = None
    valid_after_s: int | None = None
    valid_before_s: int | None = None


class AllowedSigners(Struct, frozen=True):
    """A whole file; `passed_over` says of each line that lists nobody why, in words."""

    signers: tuple[AllowedSigner, ...]
    passed_over: tuple[str, ...]


def read_allowed_signers(data: bytes, name: str) -> AllowedSigners:
    """Return what a file lists; raises ConfigError, with its name and the line, for a line that isn't understood."""
    signers, passed_over = [], []
    for number, line in _lines(data, name):
        where = f"{visible(name)}, line {number}"
        try:
            signers.append(_read_line(number, line))
        except UnsupportedKeyError as error:
            passed_over.append(f"{where} lists nobody: {error.message}")
        except ConfigError as error:
            raise ConfigError(f"{where}: {error.message}", hint=error.hint) from None
    return AllowedSigners(tuple(signers), tuple(passed_over))


def read_revoked_keys(data: bytes, name: str) -> frozenset[PublicKey]:
    """Return the keys of a list of public keys, a line each; raises ConfigError for what isn't one."""
    if data.startswith(_KRL_MAGIC):
        hint = "list the public keys, a line each"
        raise ConfigError(f"{visible(name)}: OpenSSH's binary revocation lists are not supported", hint=hint)
    keys = set()
    for number, line in _lines(data, name):
        try:
            keys.add(read_public_key(line))
        except UnsupportedKeyError:
            continue  # no signature by it holds anyway
        except ConfigError as error:
            raise ConfigError(f"{visible(name)}, line {number}: {error.message}", hint=error.hint) from None
    return frozenset(keys)


def find_signer(
    signers: Sequence[AllowedSigner], key: PublicKey, namespace: str, now_s: int
) -> tuple[AllowedSigner | None, str]:
    """Return the first line by which a key may sign for a namespace now, else None; and why not, in words."""
    reasons = []
    for each in signers:
        if each.key != key:
            continue
        why = _why_not_now(each, namespace, now_s)
        if not why:
            return each, ""
        reasons.append(f"line {each.line} ({visible(each.identities)}): {why}")
    return None, "; ".join(reasons) or "its key isn't listed"


def _why_not_now(signer: AllowedSigner, namespace: str, now_s: int) -> str:
    if signer.namespaces is not None and not _matches(namespace, signer.namespaces):
        return f"listed for {visible(signer.namespaces)} only"
    if signer.valid_after_s is not None and now_s < signer.valid_after_s:
        return f"valid from {_written(signer.valid_after_s)} on"
    if signer.valid_before_s is not None and now_s > signer.valid_before_s:
        return f"was valid until {_written(signer.valid_before_s)}"
    return ""


def _matches(text: str, patterns: str) -> bool:
    """Whether one of a list of patterns matches and none behind a `!` does (ssh_config(5), PATTERNS)."""
    found = False
    for pattern in patterns.split(","):
        plain = pattern.removeprefix("!")
        if _is_like(text, plain):
            if plain != pattern:
                return False
            found = True
    return found


def _is_like(text: str, pattern: str) -> bool:
    """Whether a pattern of `*` and `?` stands for a text, in at most len(text) * len(pattern) steps."""
    at = here = 0
    star, tried = -1, 0
    while at < len(text):
        if here < len(pattern) and pattern[here] == "*":
            star, tried = here, at
            here += 1
        elif here < len(pattern) and pattern[here] in ("?", text[at]):
            at, here = at + 1, here + 1
        elif star >= 0:
            tried += 1  # the last star stands for one character more; an earlier one needn't
            at, here = tried, star + 1
        else:
            return False
    return not pattern[here:].strip("*")


def _written(time_s: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(time_s))


def _lines(data: bytes, name: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that say something, with their numbers."""
    if len(data) > FILE_MAX_BYTES:
        raise ConfigError(f"{visible(name)}: larger than {FILE_MAX_BYTES >> 20} MiB")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{visible(name)}: not UTF-8") from None
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip(" \t\r")
        if stripped and not stripped.startswith("#"):
            yield number, stripped


def _read_line(number: int, line: str) -> AllowedSigner:
    first = _FIRST_WORD.match(line)
    if first is None:
        raise ConfigError("no identity and key", hint="such as: alice@example.com ssh-ed25519 AAAA…")
    identities, rest = first[1] or first[2] or "", line[first.end() :].lstrip(" \t")
    if not identities or identities.lower() in _OPTIONS:
        raise ConfigError("no identity", hint="such as: alice@example.com ssh-ed25519 AAAA…")
    try:
        return AllowedSigner(number, identities, read_public_key(rest))
    except UnsupportedKeyError:
        raise
    except ConfigError:
        options, rest = _read_options(rest)
    key = read_public_key(rest)
    if "cert-authority" in options:
        raise UnsupportedKeyError("cert-authority: certificates are not supported")
    after, before = (None if text is None else parse_time(text) for text in map(options.get, _OPTIONS[2:]))
    if after is not None and before is not None and before <= after:
        raise ConfigError("valid-before is no later than valid-after")
    return AllowedSigner(number, identities, key, options.get("namespaces"), after, before)


def _read_options(text: str) -> tuple[dict[str, str], str]:
    """Return the options in front of a key, by their names in lower case, and what follows them."""
    options: dict[str, str] = {}
    position, more = 0, True
    while more:
        match = _OPTION.match(text, position)
        if match is None:
            raise ConfigError(
                "no public key, and no options in front of one",
                hint='a line is who, options, key: alice@example.com namespaces="git,file" ssh-ed25519 AAAA…',
            )
        name, value = match[1].lower(), match[2]
        if name in options:
            raise ConfigError(f"{name} stands there twice")
        if name not in _OPTIONS:
            raise ConfigError(f"unknown option {visible(name[:40])}", hint="ssh-keygen(1) has those that there are")
        if (value is None) != (name == "cert-authority"):
            form = name if name == "cert-authority" else f'{name}="…"'
            raise ConfigError(f"{name} is written as {form}")
        options[name] = (value or "").replace('\\"', '"')
        position, more = match.end(), match[3] == ","
    return options, text[position:].lstrip(" \t")


def parse_time(text: str) -> int:
    """Return the seconds since 1970 (UTC) of YYYYMMDD[HHMM[SS]], local time unless Z follows; raises ConfigError."""
    match = _TIME.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        parsed = time.strptime(f"{match[1]}{match[2] or '0000'}{match[3] or '00'}", "%Y%m%d%H%M%S")
        # Standard time also in summer, as OpenSSH reads it.
        seconds = calendar.timegm(parsed) if match[4] else int(time.mktime((*parsed[:8], 0)))
    except (ValueError, OverflowError):
        hint = "YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS, with Z for UTC"
        raise ConfigError(f"{visible(text[:40])}: no time", hint=hint) from None
    if seconds <= 0:
        raise ConfigError(f"{visible(text[:40])}: before 1970")
    return seconds
