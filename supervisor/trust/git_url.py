"""Every form of a git URL, parsed into the parts on which trust is decided. Pure.

`https://`, `ssh://` (also `git+ssh://`, `ssh+git://`), `git@host:path` and `file:///path`, in one form each: scheme and
host in lower case, no default port, no `.git` and no slash at the end. Everything that git, curl or ssh could read in
another way than this module does is refused. Nothing that is fetched without knowing who answers is ever trusted.
"""

from __future__ import annotations

import re
from typing import Final

from ipc.struct import Struct
from supervisor.trust.host_name import UnclearNameError, read_authority

URL_MAX_CHARS: Final = 2_048
DEFAULT_PORTS: Final = {"https": 443, "ssh": 22, "file": 0}
_OTHER_NAMES: Final = {"git+https": "https", "git+ssh": "ssh", "ssh+git": "ssh", "git+file": "file"}
_UNAUTHENTICATED: Final = ("http", "git", "git+http", "git+git", "ftp", "ftps", "rsync")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}")
_SCP: Final = re.compile(r"(?:(?P<user>[^@/:]*)@)?(?P<host>\[[^\]/]*\]|[^@/:\[\]]+):(?P<path>.+)")
_USER: Final = re.compile(r"[A-Za-z0-9_.~+][A-Za-z0-9_.~+-]{0,127}")
# A user of HTTPS and its password: the characters of RFC 3986 §3.2.1, one colon at most.
_CREDENTIALS: Final = re.compile(r"[A-Za-z0-9._~!$&'()+,;=%-]*(?::[A-Za-z0-9._~!$&'()+,;=%-]*)?")
_SEGMENT: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()+,;=:@-]|%[0-9A-Fa-f]{2})+")
_SEGMENT_PATTERN: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()+,;=:@*-]|%[0-9A-Fa-f]{2})+")
_ENCODED: Final = re.compile(r"%[0-9A-Fa-f]{2}")
# What an encoded byte may not be: what needs no encoding, what parts a path or a URL, what is no character.
_NEVER_ENCODED: Final = re.compile(rb"[A-Za-z0-9._~/\\%?#*\x00-\x1f\x7f-]")


class GitUrl(Struct, frozen=True):
    """A git URL in its one form. Of a pattern `host` and `path` may hold `*`, and `path` `**` as a whole segment."""

    scheme: str
    """`https`, `ssh` or `file`."""
    user: str
    """Of ssh, where it is part of which repository is meant; of HTTPS it only says who asks, and is left out."""
    host: str
    """Empty for `file`."""
    port: int
    """0 where it is the scheme's own."""
    path: str
    """Absolute; without `.git` and slash at its end."""

    @property
    def text(self) -> str:
        """Return it as it would be written."""
        user = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port else ""
        return f"{self.scheme}://{user}{self.host}{port}{self.path}"


def parse_git_url(text: str, pattern: bool = False) -> GitUrl:
    """Return the parts of a URL, or of a `pattern` of URLs; raises UnclearNameError for what isn't judged."""
    if not text or len(text) > URL_MAX_CHARS:
        raise UnclearNameError(f"it is no URL of at most {URL_MAX_CHARS} characters")
    if not text.isascii():
        raise UnclearNameError("it holds characters outside ASCII, which can look like others; write them encoded")
    if any(character <= " " or character in '\\"<>^`{|}\x7f' for character in text):
        raise UnclearNameError("it holds a space, a control character or another that no URL has")
    if "?" in text or "#" in text:
        raise UnclearNameError("it has a query or a fragment, which no repository's URL has")
    scheme, separator, rest = text.partition("://")
    return _with_scheme(scheme, rest, pattern) if separator else _in_scp_form(text, pattern)


def _with_scheme(written: str, rest: str, pattern: bool) -> GitUrl:
    if not _SCHEME.fullmatch(written):
        raise UnclearNameError("it begins with no scheme such as https://")
    scheme = _OTHER_NAMES.get(written.lower(), written.lower())
    if scheme in _UNAUTHENTICATED:
        raise UnclearNameError(f"{scheme}:// is not authenticated: whoever is on the way can answer")
    if scheme not in DEFAULT_PORTS:
        raise UnclearNameError(f"{scheme}:// is no way to a repository that is judged: https, ssh or file")
    authority, slash, path = rest.partition("/")
    if scheme == "file":
        if authority not in ("", "localhost"):
            raise UnclearNameError("file:// names another host")
        return GitUrl("file", "", "", 0, _read_path(slash + path, pattern, ssh=False))
    userinfo, at, place = authority.rpartition("@")
    if "@" in userinfo:
        raise UnclearNameError("it has more than one @ before its path")
    user = _read_user(userinfo, scheme, pattern) if at else ""
    host, port = read_authority(place, DEFAULT_PORTS[scheme], pattern)
    return GitUrl(scheme, user, host, port, _read_path(slash + path, pattern, ssh=scheme == "ssh"))


def _read_user(text: str, scheme: str, pattern: bool) -> str:
    if scheme == "ssh":
        if not _USER.fullmatch(text):
            raise UnclearNameError("its user is no plain name")
        return text
    if pattern:
        raise UnclearNameError("it names a user, who is no part of what an https:// URL stands for; leave it out")
    if not text or not _CREDENTIALS.fullmatch(text):
        raise UnclearNameError("what stands before its @ is no user")
    return ""


def _in_scp_form(text: str, pattern: bool) -> GitUrl:
    """Return the parts of `[USER@]HOST:PATH` (gitglossary(7), git-fetch(1): GIT URLS)."""
    match = _SCP.fullmatch(text)
    if match is None or match["path"].startswith(":"):
        raise UnclearNameError("it is no URL; write https://HOST/PATH, ssh://USER@HOST/PATH or USER@HOST:PATH")
    if "%" in match["path"]:
        raise UnclearNameError("its path holds a %, which means itself here; write ssh://USER@HOST/PATH")
    user = "" if match["user"] is None else _read_user(match["user"], "ssh", pattern)
    host, port = read_authority(match["host"], DEFAULT_PORTS["ssh"], pattern)
    return GitUrl("ssh", user, host, port, _read_path("/" + match["path"].removeprefix("/"), pattern, ssh=True))


def _read_path(text: str, pattern: bool, ssh: bool) -> str:
    path = text.removesuffix("/")
    if not path:
        raise UnclearNameError("it names a host and no repository" if not pattern else "it names no path")
    segments = path[1:].split("/")
    if pattern and any("**" in segment and segment != "**" for segment in segments):
        raise UnclearNameError("** is a whole segment of a path, and nothing else stands beside it")
    form = _SEGMENT_PATTERN if pattern else _SEGMENT
    for segment in segments:
        _refuse_segment(segment, form)
    last = segments[-1]
    if last.endswith(".git") and last != ".git":
        segments[-1] = last.removesuffix(".git")
        _refuse_segment(segments[-1], form)
    if ssh and segments[0].startswith("-"):
        raise UnclearNameError("its path begins with -, which could be taken for an option")
    return "/" + "/".join(_ENCODED.sub(lambda found: found[0].upper(), segment) for segment in segments)


def _refuse_segment(segment: str, form: re.Pattern[str]) -> None:
    if not segment:
        raise UnclearNameError("its path has an empty segment (//)")
    if segment in (".", ".."):
        raise UnclearNameError("its path has . or .. in it")
    if not form.fullmatch(segment):
        raise UnclearNameError("its path holds a character that has to be encoded")
    for found in _ENCODED.findall(segment):
        if _NEVER_ENCODED.fullmatch(bytes.fromhex(found[1:])):
            raise UnclearNameError(f"its path hides a character behind {found}")
