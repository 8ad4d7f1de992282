"""Trust for arbitrary URLs and origins: no other host is ever covered, no text raises, one form stays one form."""

from __future__ import annotations

from urllib.parse import urlsplit

from hypothesis import assume, example, given
from hypothesis import strategies as st

from supervisor.packages.provenance import Provenance
from supervisor.trust.decide import decide_trust
from supervisor.trust.git_url import GitUrl, parse_git_url
from supervisor.trust.host_name import UnclearNameError
from supervisor.trust.oci_name import parse_oci_name
from supervisor.trust.sources import LocalSource, TrustSource, git_source, oci_source

HOST = "git.example.com"
SOURCES: tuple[TrustSource, ...] = (
    git_source(0, "a:1", f"https://{HOST}/**"),
    git_source(1, "a:2", f"ssh://git@{HOST}/**"),
    git_source(2, "a:3", f"https://{HOST}:8443/plugins/*"),
    LocalSource(3, "a:4", "/srv/components/**"),
    oci_source(4, "a:5", f"{HOST}/**"),
)
_PIECES = st.sampled_from(
    [
        *("https://", "http://", "ssh://", "git+ssh://", "HTTPS://", "git://", "ext::", "file://", "//", "/", ":", "@"),
        *(HOST, "evil.com", "GIT.example.com", "git.example.com.", "xn--e1afmkfd", "[::1]", "127.0.0.1", "git", "a:b"),
        *(".", "..", "%2e", "%2f", "%40", "%00", "%5c", "\\", "#", "?", "*", "\t", "\n", " ", "\0", "-", "~", "443"),
        *("plugins", "csv", ".git", "8443", "0", "\u0456", "\u3002", "\uff0e", "\u2024", "\u00ad", "\ud800"),
    ]
)
_NEARLY = st.tuples(
    st.sampled_from(["https://", "ssh://", "git+ssh://", "HTTPS://", "git+https://"]),
    st.sampled_from(["", "", "", "git@", "alice:pw@", "git.example.com@", "a@b@"]),
    st.one_of(st.sampled_from([HOST, "evil.com", "GIT.example.com.", "[::1]"]), _PIECES),
    st.sampled_from(["", "", ":443", ":22", ":8443", ":", ":0"]),
    st.lists(st.one_of(st.sampled_from(["/plugins", "/csv", "/a.git", "/"]), _PIECES), max_size=4).map("".join),
).map("".join)
URLS = st.one_of(_NEARLY, st.lists(_PIECES, max_size=12).map("".join), st.text(max_size=60))
LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
HOSTS = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
SEGMENTS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,8}", fullmatch=True).filter(lambda text: set(text) != {"."})
PATHS = st.lists(SEGMENTS, min_size=1, max_size=4).map("/".join)


def _parsed(text: str) -> GitUrl | None:
    try:
        return parse_git_url(text)
    except UnclearNameError:
        return None


@given(URLS)
@example("https://git.example.com@evil.com/x")
@example("https://evil.com\\@git.example.com/x")
def test_only_the_host_that_is_asked_is_covered(url: str) -> None:
    """A URL whose host isn't the pattern's is covered by none of its entries, and what can't be read by nothing."""
    parsed = _parsed(url)
    for branch in ("", "main"):
        decision = decide_trust(Provenance("git", url, branch=branch), (), SOURCES, now_s=0, exposed=())
        if parsed is None or parsed.host != HOST or parsed.scheme not in ("https", "ssh"):
            assert decision.level == "unknown"
        assert decision.reason


@given(HOSTS, HOSTS, PATHS, st.sampled_from(["https://{}/{}", "ssh://git@{}/{}", "git@{}:{}", "https://{}:443/{}"]))
def test_another_host_is_never_covered(own: str, other: str, path: str, form: str) -> None:
    """For any two names that differ, the pattern of one covers nothing of the other; and of itself everything."""
    assume(own != other)
    sources = (git_source(0, "a:1", f"https://{own}/**"), git_source(1, "a:2", f"ssh://git@{own}/**"))

    def level(host: str) -> str:
        provenance = Provenance("git", form.format(host, path))
        return decide_trust(provenance, (), sources, now_s=0).level

    assert level(other) == "unknown"
    assert level(own) == "trusted"


@given(URLS)
def test_the_host_is_the_one_that_others_read(url: str) -> None:
    """Where a URL with a scheme is taken at all, RFC 3986's reading of it has the same host, port and path."""
    parsed = _parsed(url)
    if parsed is None or "://" not in url:
        return
    split = urlsplit(url.removeprefix("git+"))
    host = (split.hostname or "").removesuffix(".")
    assert parsed.host.strip("[]") == ("" if parsed.scheme == "file" else host)
    assert parsed.port in (split.port or 0, 0)
    assert split.path.startswith(parsed.path[:1])


@given(URLS)
def test_one_form_stays_one_form(url: str) -> None:
    """What was read, written and read again is the same; but for a name that ends with .git twice."""
    parsed = _parsed(url)
    if parsed is None or parsed.path.endswith(".git"):
        return
    assert parse_git_url(parsed.text) == parsed


@given(st.sampled_from(["git", "oci", "directory", "archive"]), URLS, st.text(max_size=8), st.booleans())
def test_the_answer_is_total(kind: str, url: str, branch: str, looked: bool) -> None:
    """Whatever an origin says, there is an answer, and its rule is named exactly where it is trusted."""
    provenance = Provenance(kind, url, branch=branch)  # type: ignore[arg-type]
    decision = decide_trust(provenance, (), SOURCES, now_s=0, exposed=() if looked else None)
    assert decision.level in ("trusted", "unknown")
    assert bool(decision.rule) == (decision.level != "unknown")
    assert (decision.source is not None) == (decision.level == "trusted") == bool(decision.approval)


@given(URLS)
def test_names_of_registries_are_read_or_refused(name: str) -> None:
    """Nothing but a refusal comes of a text that is no repository's name."""
    try:
        parsed = parse_oci_name(name)
    except UnclearNameError:
        return
    assert parse_oci_name(parsed.text) == parsed
