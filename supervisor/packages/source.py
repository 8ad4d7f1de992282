"""What people write to say where a package is: a directory, an archive, a git repository, a registry. Pure.

Nothing of a text with a password in it is repeated in an error: it may be a secret that would end in a log.
"""

from __future__ import annotations

import re
from typing import Final, Literal
from urllib.parse import quote, unquote

from ipc.struct import Struct
from supervisor.packages.contents import why_not_path
from supervisor.terminal import visible
from supervisor.trust.git_url import parse_git_url
from supervisor.trust.host_name import UnclearNameError
from supervisor.usage_error import UsageError

ARCHIVE_ENDINGS: Final = (".tar.gz", ".tgz", ".tar")
FORMS: Final = (
    "a source is DIR, FILE.tar.gz, git+https://HOST/PATH@REV#SUBDIR (or git+ssh, git+file), oci://HOST/NAME:TAG"
)
SOURCE_MAX: Final = 4_096
REVISION_MAX: Final = 255
Transport = Literal["https", "ssh", "file"]

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^/]*//|[A-Za-z][A-Za-z0-9+.-]*::")
_LIKE_SCP: Final = re.compile(r"[^/@:.][^/@:]*@(?:\[[^/@\]]*\]|[^/:\[]+):.*")
_PASSWORD_LIKE_SCP: Final = re.compile(r"[^/@:.][^/@:]*:[^/@]*@[^/:]+:.*")
_PLAIN: Final = "/._~!$&'()+,;=:@-"
"""What stands in a URL's path as it is, beside letters and digits (RFC 3986 §3.3)."""
_REVISION: Final = re.compile(r"[^\x00-\x20\x7f~^:?*\[\\@#{}]+")


class DirectorySource(Struct, frozen=True):
    """A directory with a Component.toml; the path is as it was written."""

    path: str


class ArchiveSource(Struct, frozen=True):
    """A .tar.gz, .tgz or .tar; the path is as it was written."""

    path: str


class GitSource(Struct, frozen=True):
    """A git repository; `url` is what git is given (https://, ssh://, USER@HOST:PATH, file://), never with a password.

    `USER@HOST:PATH` stays as it is: there a path may be one in that user's home, which no ssh:// URL says.
    """

    transport: Transport
    url: str
    revision: str = ""
    """A branch, a tag, `refs/heads/…`, `refs/tags/…` or a whole commit id; "" is the repository's default branch."""
    subdirectory: str = ""

    @property
    def path(self) -> str:
        """Return where a repository of this machine is (`git+file`)."""
        return unquote(self.url.removeprefix("file://"))


class OciSource(Struct, frozen=True):
    """A registry's `HOST/NAME:TAG` or `HOST/NAME@sha256:…`, which is read where registries are spoken to."""

    reference: str


Source = DirectorySource | ArchiveSource | GitSource | OciSource


def parse_source(text: str) -> Source:
    """Return what a SOURCE names; raises UsageError for what is none, and says which form was probably meant."""
    if not text or len(text) > SOURCE_MAX or "\0" in text:
        raise UsageError("a source is a text of 1 to 4096 characters", hint=FORMS)
    for scheme in ("https", "ssh", "file"):
        if text.startswith(f"git+{scheme}://"):
            return _git(scheme, text.removeprefix(f"git+{scheme}://"))
    if text.startswith("oci://"):
        return OciSource(text.removeprefix("oci://"))
    _refuse_other_forms(text)
    if names_repository(text):
        return _git_like_scp(text)
    return ArchiveSource(text) if text.lower().endswith(ARCHIVE_ENDINGS) else DirectorySource(text)


def names_repository(text: str) -> bool:
    """Whether a text is meant as a git repository's address, though it may be none that is fetched from."""
    return text.startswith("git+") or _LIKE_SCP.fullmatch(text) is not None


def show_source(source: Source) -> str:
    """Return a source as a text that gives the same one when it is parsed."""
    match source:
        case DirectorySource(path=path) | ArchiveSource(path=path):
            return path
        case OciSource(reference=reference):
            return f"oci://{reference}"
    revision = f"@{source.revision}" if source.revision else ""
    subdirectory = f"#{source.subdirectory}" if source.subdirectory else ""
    url = f"file://{source.path}" if source.transport == "file" else source.url
    form = "git+" if "://" in url else ""
    return f"{form}{url}{revision}{subdirectory}"


def local_url(path: str) -> str:
    """Return the URL of a repository of this machine, which git and the trust rules read alike."""
    return f"file://{quote(path, safe=_PLAIN)}"


def why_not_revision(revision: str) -> str:
    """Return why no branch, tag or commit can have this name; empty where one may (git-check-ref-format(1))."""
    if len(revision.encode("utf-8", "surrogateescape")) > REVISION_MAX:
        return "it is too long"
    if revision.startswith("-"):
        return "it begins with a -"
    if not _REVISION.fullmatch(revision) or revision != visible(revision):
        return "it holds characters that no branch or tag may have"
    parts = revision.split("/")
    if any(not part or part.startswith(".") or part.endswith(".lock") for part in parts):
        return "a part of it is empty, begins with a dot or ends in .lock"
    if ".." in revision or revision.endswith("."):
        return "it holds .. or ends with a dot"
    return ""


def _refuse_other_forms(text: str) -> None:
    if text.startswith(("git://", "git+http://", "http://", "git+git://", "ftp://", "oci+http://")):
        hint = "git+https://… or git+ssh://…; an archive is downloaded first"
        raise UsageError("that transport isn't encrypted: whoever is between could send anything", hint=hint)
    if text.startswith(("https://", "ssh://", "file://")):
        hint = "a repository is git+https://…, git+ssh://… or git+file://…; an archive is downloaded first"
        raise UsageError("an address needs to say what is there", hint=hint)
    if _PASSWORD_LIKE_SCP.fullmatch(text):
        raise UsageError("ssh takes no password from an address", hint="USER@HOST:PATH uses your keys and agent")
    if _SCHEME.match(text) or text.startswith(("git+", "oci:")):
        raise UsageError("an address of an unknown kind", hint=FORMS)


def _git(scheme: str, rest: str) -> GitSource:
    place, subdirectory = _split_subdirectory(rest)
    authority, slash, path = place.partition("/")
    path, revision = _split_revision(f"{slash}{path}")
    if scheme == "file":
        return GitSource("file", local_url(_local_path(authority, path)), revision, subdirectory)
    if "@" in authority and scheme == "https":
        raise UsageError(
            "a name or password in an https address isn't used: it would stand in logs and process lists",
            hint="git+ssh://git@HOST/PATH uses your keys and agent",
        )
    url = f"{scheme}://{authority}{path}"
    _refuse_unclear(url)
    transport: Transport = "https" if scheme == "https" else "ssh"
    return GitSource(transport, url, revision, subdirectory)


def _git_like_scp(text: str) -> GitSource:
    """Return `USER@HOST:PATH[@REV][#SUBDIR]`, as forges show it (git-fetch(1): GIT URLS)."""
    place, subdirectory = _split_subdirectory(text)
    host, colon, path = place.partition("]:") if "@[" in place else place.partition(":")
    path, revision = _split_revision(path)
    url = f"{host}{colon}{path}"
    _refuse_unclear(url)
    return GitSource("ssh", url, revision, subdirectory)


def _split_subdirectory(text: str) -> tuple[str, str]:
    place, hash_mark, subdirectory = text.partition("#")
    subdirectory = subdirectory.rstrip("/")
    why = why_not_path(subdirectory) if hash_mark else ""
    if why:
        raise UsageError(f"the directory after #: {why}", hint="name a directory of the repository: …@REV#DIR/DIR")
    return place, subdirectory


def _split_revision(text: str) -> tuple[str, str]:
    path, at, revision = text.rpartition("@")
    if not at:
        return text, ""
    why = why_not_revision(revision) if revision else "it is empty"
    if why:
        raise UsageError(f"what stands after @ is no revision: {why}", hint="write a branch, a tag or a commit id")
    return path, revision


def _local_path(authority: str, path: str) -> str:
    if authority or not path.startswith("/") or path != visible(path):
        hint = "git+file:///absolute/path/of/the/repository"
        raise UsageError("a repository of this machine is named by its absolute path, as it is", hint=hint)
    return path


def _refuse_unclear(url: str) -> None:
    """Raise UsageError for an address that isn't read in one way by everybody; nothing of it is repeated."""
    try:
        parse_git_url(url)
    except UnclearNameError as error:
        raise UsageError(f"not an address that is fetched from: {error.reason}", hint=FORMS) from None
