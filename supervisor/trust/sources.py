"""What `[[trust.sources]]` can say, as values, and whether one covers a component. Pure.

Each form tells why it doesn't cover something, and how near it came: what a person asks who expected it to.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from itertools import takewhile
from typing import TYPE_CHECKING, Final, Literal

from ipc.policy.patterns import Form, Pattern, literal_pattern_text, parse_pattern
from ipc.struct import Struct
from supervisor.config.key_validity import why_not_valid
from supervisor.trust.git_url import GitUrl, parse_git_url
from supervisor.trust.oci_name import OciName, parse_oci_name

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from supervisor.signing.keys import PublicKey

SourceForm = Literal["git", "signing_key", "local", "oci"]
FORMS: Final[tuple[SourceForm, ...]] = ("git", "signing_key", "local", "oci")
SAME_KEY: Final = 1_000
"""How near an entry for the very key comes that isn't taken: nearer than any place."""


class Miss(Struct, frozen=True):
    """An entry doesn't cover a component; `nearness` compares entries, 0 where they have nothing in common."""

    why: str
    nearness: int = 0


class GitSource(Struct, frozen=True):
    """Repositories whose URL a pattern covers; with a branch only what was fetched from that branch."""

    index: int
    origin: str
    pattern: str
    url: GitUrl
    branch: str = ""
    form: SourceForm = "git"

    @property
    def name(self) -> str:
        """Return what it is called in approvals: its form and what it says."""
        return f"git {self.pattern}{f' branch {self.branch}' if self.branch else ''}"

    @property
    def place(self) -> LocalSource | None:
        """Return where its repositories are, if that is on this machine: it is worth what its place is."""
        return LocalSource(self.index, self.origin, self.url.path) if self.url.scheme == "file" else None

    def miss(self, url: GitUrl, branch: str) -> Miss | None:
        """Return why it doesn't cover what was fetched from this URL and branch, None where it does."""
        own = self.url
        if not _covers_host(own.host, url.host):
            return Miss(f"the host is {url.host or 'this one'}")
        if own.scheme != url.scheme:
            return Miss(f"it was fetched by {url.scheme}, and the entry says {own.scheme}", 10)
        if own.port != url.port:
            return Miss(f"the port is {url.port or 'the usual one'}", 20)
        if own.user != url.user:
            return Miss(f"the user is {url.user or 'not named'}, and in the entry {own.user or 'not named'}", 30)
        if not _covers_path(own.path, url.path):
            return Miss(f"the path is {url.path}", 30 + _common(own.path, url.path))
        if self.branch and branch != self.branch:
            what = f"of the branch {branch}" if branch else "of no branch (a commit or a tag was named)"
            return Miss(f"what was fetched is {what}, and the entry is for the branch {self.branch}", 900)
        return None


class OciSource(Struct, frozen=True):
    """Repositories of OCI registries whose `HOST/NAME` a pattern covers."""

    index: int
    origin: str
    pattern: str
    repository: OciName
    form: SourceForm = "oci"

    @property
    def name(self) -> str:
        """Return what it is called in approvals."""
        return f"oci {self.pattern}"

    def miss(self, repository: OciName) -> Miss | None:
        """Return why it doesn't cover this repository, None where it does."""
        own = self.repository
        if not _covers_host(own.host, repository.host):
            return Miss(f"the registry is {repository.host}")
        if own.port != repository.port:
            return Miss(f"the port is {repository.port or 'the usual one'}", 20)
        if not _covers_path(own.path, repository.path):
            return Miss(f"the name is {repository.path[1:]}", 30 + _common(own.path, repository.path))
        return None


class LocalSource(Struct, frozen=True):
    """Directories and archives whose real path a pattern covers, where nobody else could have put them."""

    index: int
    origin: str
    pattern: str
    form: SourceForm = "local"

    @property
    def name(self) -> str:
        """Return what it is called in approvals."""
        return f"local {self.pattern}"

    @property
    def fixed_part(self) -> str:
        """Return the path up to the first segment that isn't literal: from there on it is looked at who may write."""
        tokens = takewhile(lambda token: isinstance(token, str), _parsed(self.pattern).tokens)
        return "/" + "/".join(str(token) for token in tokens)

    def miss(self, real_path: str) -> Miss | None:
        """Return why it doesn't cover this real path, None where it does; who may write there is another question."""
        if any(segment in ("", ".", "..") for segment in real_path.split("/")[1:]) or not real_path.startswith("/"):
            return Miss("its path isn't a real one")
        if _parsed(self.pattern).matches(real_path):
            return None
        return Miss(f"it is really {real_path}", _common(self.fixed_part, real_path))

    def counts(self, path: str) -> bool:
        """Tell whether it matters who may write this path: it is the fixed part, or lies beneath it."""
        fixed = self.fixed_part
        return path == fixed or path.startswith(fixed.rstrip("/") + "/")


class KeySource(Struct, frozen=True):
    """A key whose signature is trusted, within a time; or one that is revoked, which no other entry makes good."""

    index: int
    origin: str
    key: PublicKey
    identity: str = ""
    valid_after_s: int | None = None
    """UTC, in seconds; from then on."""
    valid_before_s: int | None = None
    """Up to then, and not then."""
    revoked: bool = False
    form: SourceForm = "signing_key"

    @property
    def pattern(self) -> str:
        """Return the key's fingerprint, as `ssh-keygen -l` prints it."""
        return self.key.fingerprint

    @property
    def name(self) -> str:
        """Return what it is called in approvals."""
        return f"signing_key {self.key.fingerprint}{f' ({self.identity})' if self.identity else ''}"

    def state(self, now_s: int) -> str:
        """Return why the key counts for nothing at this time; empty where it counts."""
        return why_not_valid(self.revoked, self.valid_after_s, self.valid_before_s, now_s)

    def miss(self, signers: Sequence[PublicKey], revoked: Collection[bytes], now_s: int) -> Miss | None:
        """Return why none of these signatures is trusted by it, None where one is."""
        if all(signer.blob != self.key.blob for signer in signers):
            return Miss("no signature by this key")
        state = self.state(now_s)
        if not state and self.key.blob in revoked:
            state = "another entry revokes the key"
        return Miss(state, SAME_KEY) if state else None


TrustSource = GitSource | KeySource | LocalSource | OciSource


def git_source(index: int, origin: str, pattern: str, branch: str = "") -> GitSource:
    """Return the entry of a pattern of git URLs; raises UnclearNameError."""
    return GitSource(index, origin, pattern, parse_git_url(pattern, pattern=True), branch)


def oci_source(index: int, origin: str, pattern: str) -> OciSource:
    """Return the entry of a pattern of registries' repositories; raises UnclearNameError."""
    return OciSource(index, origin, pattern, parse_oci_name(pattern, pattern=True))


def written_keys(source: TrustSource) -> dict[str, object]:
    """Return an entry key by key, as it stands in airssys.toml; what isn't set is None."""
    if isinstance(source, GitSource):
        return {"git": source.pattern, "branch": source.branch or None}
    if isinstance(source, KeySource):
        return {
            "signing_key": source.key.text,
            "identity": source.identity or None,
            "valid_after": format_time(source.valid_after_s),
            "valid_before": format_time(source.valid_before_s),
            "revoked": source.revoked,
        }
    return {source.form: source.pattern}


def format_time(seconds: int | None) -> str | None:
    """Return a time as it is written in airssys.toml, by UTC; a day's beginning as the day."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z").removesuffix("T00:00:00Z")


def writing_patterns(source: TrustSource) -> tuple[str, ...]:
    """Return the patterns of all paths whose writer decides what a source gives: no component is to write there."""
    if isinstance(source, LocalSource):
        return (_whole(source.pattern),)
    if isinstance(source, GitSource) and source.place is not None:
        path = source.place.pattern
        return (_whole(path),) if path.endswith("**") else (_whole(path), _whole(f"{path}.git"))
    return ()


def _whole(pattern: str) -> str:
    parsed = _parsed(pattern)
    return pattern if parsed.form is not Form.EXACT else f"{pattern}/"


def _covers_host(pattern: str, host: str) -> bool:
    return host == pattern or ("*" in pattern and _parsed(pattern, ".").matches(host))


def _covers_path(pattern: str, path: str) -> bool:
    if "*" not in pattern:
        return path == pattern
    # ~NAME is somebody's home to the server: that has to be said and isn't found by a star.
    homes = [segment for segment in path.split("/") if segment.startswith("~")]
    literal = pattern.split("/")
    return all(home in literal for home in homes) and _parsed(pattern).matches(path)


@lru_cache(maxsize=1024)
def _parsed(pattern: str, separator: Literal["/", "."] = "/") -> Pattern:
    return parse_pattern(literal_pattern_text(pattern) if pattern.startswith("[") else pattern, separator)


def _common(pattern: str, path: str) -> int:
    """Return how many segments two paths have in common from the beginning."""
    pairs = zip(pattern.split("/")[1:], path.split("/")[1:], strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] and pair[0] == pair[1], pairs))
