"""Git URLs and patterns of them: matched on what they really name, and refused where two programs could differ."""

from __future__ import annotations

import pytest

from supervisor.trust.git_url import parse_git_url
from supervisor.trust.host_name import UnclearNameError
from supervisor.trust.sources import git_source

HTTPS = "https://git.example.com/plugins/*"
DEEP = "https://git.example.com/plugins/**"
SSH = "ssh://git@git.example.com/plugins/*"
LABEL = "https://*.example.com/plugins/*"
PORT = "https://git.example.com:8443/plugins/*"
EXACT = "https://git.example.com/plugins/csv"
FILE = "file:///srv/git/*"

COVERED = [
    (HTTPS, "https://git.example.com/plugins/csv"),
    (HTTPS, "https://git.example.com/plugins/csv.git"),
    (HTTPS, "https://git.example.com/plugins/csv/"),
    (HTTPS, "https://git.example.com/plugins/csv.git/"),
    (HTTPS, "HTTPS://GIT.Example.COM/plugins/csv"),
    (HTTPS, "https://git.example.com./plugins/csv"),
    (HTTPS, "https://git.example.com:443/plugins/csv"),
    (HTTPS, "git+https://git.example.com/plugins/csv"),
    (HTTPS, "https://alice@git.example.com/plugins/csv"),
    (HTTPS, "https://alice:token@git.example.com/plugins/csv"),
    (HTTPS, "https://git.example.com/plugins/a%20b"),
    (HTTPS, "https://git.example.com/plugins/csv@v1"),
    ("https://GIT.example.com:443/plugins/*.git/", "https://git.example.com/plugins/csv"),
    (DEEP, "https://git.example.com/plugins/a/b/c"),
    (DEEP, "https://git.example.com/plugins/a"),
    (EXACT, "https://git.example.com/plugins/csv.git"),
    (SSH, "ssh://git@git.example.com/plugins/csv"),
    (SSH, "ssh://git@git.example.com:22/plugins/csv.git"),
    (SSH, "git+ssh://git@git.example.com/plugins/csv"),
    (SSH, "ssh+git://git@git.example.com/plugins/csv"),
    (SSH, "git@git.example.com:plugins/csv.git"),
    (SSH, "git@GIT.EXAMPLE.COM:/plugins/csv"),
    ("git@git.example.com:plugins/*", "ssh://git@git.example.com/plugins/csv"),
    ("ssh://git@git.example.com/~git/*", "git@git.example.com:~git/csv"),
    (LABEL, "https://git.example.com/plugins/csv"),
    (LABEL, "https://xn--bcher-kva.example.com/plugins/csv"),
    (PORT, "https://git.example.com:8443/plugins/csv"),
    ("https://[2001:db8::1]/plugins/*", "https://[2001:DB8:0::1]/plugins/csv"),
    (FILE, "file:///srv/git/csv.git"),
    (FILE, "git+file:///srv/git/csv"),
    (FILE, "file://localhost/srv/git/csv"),
]

ANOTHER = [
    # the host
    (HTTPS, "https://git.example.com@evil.com/plugins/csv"),
    (HTTPS, "https://git.example.com:443@evil.com/plugins/csv"),
    (HTTPS, "https://git.example.com.evil.com/plugins/csv"),
    (HTTPS, "https://evilgit.example.com/plugins/csv"),
    (HTTPS, "https://git-example.com/plugins/csv"),
    (HTTPS, "https://gitXexample.com/plugins/csv"),
    (HTTPS, "https://xn--git-example-9za.com/plugins/csv"),
    (HTTPS, "https://evil.com/git.example.com/plugins/csv"),
    (HTTPS, "https://evil.com/https://git.example.com/plugins/csv".replace("https://git", "https:/git")),
    (HTTPS, "https://example.com/plugins/csv"),
    (LABEL, "https://a.b.example.com/plugins/csv"),
    (LABEL, "https://example.com/plugins/csv"),
    (LABEL, "https://git.example.com.evil.com/plugins/csv"),
    (LABEL, "https://gitexample.com/plugins/csv"),
    ("https://127.0.0.1/plugins/*", "https://2130706433/plugins/csv"),
    ("https://127.0.0.1/plugins/*", "https://0x7f.1/plugins/csv"),
    # the port
    (HTTPS, "https://git.example.com:8443/plugins/csv"),
    (HTTPS, "https://git.example.com:80/plugins/csv"),
    (PORT, "https://git.example.com/plugins/csv"),
    (PORT, "https://git.example.com:443/plugins/csv"),
    (SSH, "ssh://git@git.example.com:2222/plugins/csv"),
    # the way there
    (HTTPS, "ssh://git.example.com/plugins/csv"),
    (HTTPS, "git@git.example.com:plugins/csv"),
    (SSH, "https://git.example.com/plugins/csv"),
    (HTTPS, "file:///plugins/csv"),
    # the user
    (SSH, "ssh://git.example.com/plugins/csv"),
    (SSH, "ssh://mallory@git.example.com/plugins/csv"),
    (SSH, "mallory@git.example.com:plugins/csv"),
    ("ssh://git.example.com/plugins/*", "git@git.example.com:plugins/csv"),
    # the path
    (HTTPS, "https://git.example.com/plugins"),
    (HTTPS, "https://git.example.com/plugins/a/b"),
    (HTTPS, "https://git.example.com/Plugins/csv"),
    (HTTPS, "https://git.example.com/plugins-evil/csv"),
    (HTTPS, "https://git.example.com/evil/plugins/csv"),
    (HTTPS, "https://git.example.com/plugins%20/csv"),
    (DEEP, "https://git.example.com/plugins"),
    (EXACT, "https://git.example.com/plugins/csv2"),
    (EXACT, "https://git.example.com/plugins/csv.git.git"),
    (EXACT, "https://git.example.com/plugins/csv.GIT"),
    ("ssh://git@git.example.com/*/csv", "ssh://git@git.example.com/~mallory/csv"),
    ("ssh://git@git.example.com/**", "git@git.example.com:~mallory/csv"),
    (FILE, "file:///srv/git"),
    (FILE, "file:///srv/git/a/b"),
]

UNCLEAR = [
    # not authenticated, or no way to a repository
    "http://git.example.com/plugins/csv",
    "HTTP://git.example.com/plugins/csv",
    "git+http://git.example.com/plugins/csv",
    "git://git.example.com/plugins/csv",
    "ftp://git.example.com/plugins/csv",
    "rsync://git.example.com/plugins/csv",
    "ext::sh -c whoami",
    "ext::sh",
    "fd::17/plugins/csv",
    "javascript://git.example.com/plugins/csv",
    "file://git.example.com/plugins/csv",
    "//git.example.com/plugins/csv",
    "://git.example.com/plugins/csv",
    "git.example.com/plugins/csv",
    "/srv/git/csv",
    "",
    # before the path
    "https://git.example.com\\@evil.com/plugins/csv",
    "https://evil.com\\.git.example.com/plugins/csv",
    "https://evil.com#@git.example.com/plugins/csv",
    "https://evil.com?@git.example.com/plugins/csv",
    "https://a@evil.com@git.example.com/plugins/csv",
    "https://@git.example.com/plugins/csv",
    "https://a:b:c@git.example.com/plugins/csv",
    "https://git.example.com:/plugins/csv",
    "https://git.example.com:0443/plugins/csv",
    "https://git.example.com:443x/plugins/csv",
    "https://git.example.com:99999/plugins/csv",
    "https://git.example.com:-1/plugins/csv",
    "https://git.example.com:\u0664\u0664\u0663/plugins/csv",
    "https://git%2eexample.com/plugins/csv",
    "https://git.example.com%2f@evil.com/plugins/csv".replace("@", "/"),
    "https://git.example.com%00.evil.com/plugins/csv",
    "https://git..example.com/plugins/csv",
    "https://git.example.com../plugins/csv",
    "https://.git.example.com/plugins/csv",
    "https://-git.example.com/plugins/csv",
    "https://g\u0456t.example.com/plugins/csv",
    "https://git\u3002example.com/plugins/csv",
    "https://git.example\u2024com/plugins/csv",
    "https://\uff47it.example.com/plugins/csv",
    "https://git.ex\u00adample.com/plugins/csv",
    "https://*.example.com/plugins/csv",
    "https://[::1/plugins/csv",
    "https://[::1]evil.com/plugins/csv",
    "https://[fe80::1%25eth0]/plugins/csv",
    "https:///plugins/csv",
    "https://git.example.com",
    "https://git.example.com/",
    "ssh://-oProxyCommand=x/plugins/csv",
    "ssh://-git@git.example.com/plugins/csv",
    "ssh://git:pass@git.example.com/plugins/csv",
    "-oProxyCommand=x:plugins/csv",
    "@git.example.com:plugins/csv",
    "git@git.example.com:",
    "git@git.example.com::plugins/csv",
    # the path
    "https://git.example.com/plugins/../csv",
    "https://git.example.com/plugins/./csv",
    "https://git.example.com/plugins/..",
    "https://git.example.com/plugins/..git",
    "https://git.example.com/plugins/...git",
    "https://git.example.com/plugins/%2e%2e/csv",
    "https://git.example.com/plugins/%2E./csv",
    "https://git.example.com/plugins%2fcsv",
    "https://git.example.com/plugins%5ccsv",
    "https://git.example.com/%70lugins/csv",
    "https://git.example.com/plugins/%252e%252e/csv",
    "https://git.example.com/plugins/csv%00",
    "https://git.example.com/plugins/csv%0a",
    "https://git.example.com/plugins/csv%",
    "https://git.example.com/plugins/csv%zz",
    "https://git.example.com//plugins/csv",
    "https://git.example.com/plugins//csv",
    "https://git.example.com/plugins/csv//",
    "https://git.example.com/plugins\\csv",
    "https://git.example.com/plugins/csv?ref=evil",
    "https://git.example.com/plugins/csv#evil",
    "https://git.example.com/plugins/*",
    "https://git.example.com/plugins/csv ",
    " https://git.example.com/plugins/csv",
    "https://git.example.com/plugins/\tcsv",
    "https://git.example.com/plugins/csv\n",
    "https://git.example.com/plugins/csv\r",
    "https://git.example.com/plugins/csv\0",
    "https://git.example.com/plug\u0456ns/csv",
    "https://git.example.com/plugins/\u202ecsv",
    "ssh://git@git.example.com/-oProxy/csv",
    "git@git.example.com:-plugins/csv",
    "git@git.example.com:plugins/../csv",
    "git@git.example.com:plugins/a%20b",
    "https://git.example.com/plugins/" + "x" * 3000,
]


@pytest.mark.parametrize(("pattern", "url"), COVERED)
def test_the_same_repository_is_covered_however_it_is_written(pattern: str, url: str) -> None:
    """Case, root's dot, default port, .git, slash and the short form of ssh are other spellings of one thing."""
    assert git_source(0, "", pattern).miss(parse_git_url(url), "") is None


@pytest.mark.parametrize(("pattern", "url"), ANOTHER)
def test_another_repository_is_not_covered(pattern: str, url: str) -> None:
    """What is read from a URL is who is really asked for what; and why it isn't covered is said."""
    miss = git_source(0, "", pattern).miss(parse_git_url(url), "")
    assert miss is not None
    assert miss.why


@pytest.mark.parametrize("url", UNCLEAR)
def test_what_could_be_read_in_two_ways_is_refused(url: str) -> None:
    """A URL that isn't authenticated, or that programs may understand differently, is judged by no entry."""
    with pytest.raises(UnclearNameError) as refused:
        parse_git_url(url)
    assert refused.value.reason


@pytest.mark.parametrize(
    "pattern",
    [
        *("http://git.example.com/*", "git://git.example.com/*", "https://git.example.com", "https://git.example.com/"),
        *(
            "https://**.example.com/x",
            "https://**/x",
            "https://git.example.com/a**",
            "https://git.example.com/**.git",
            "https://git.example.com/***",
        ),
        *("https://git.example.com/[ab]", "https://git.example.com/a?", "https://alice@git.example.com/*", "*"),
        *("git.example.com/plugins/*", "https://git.example.com:*/x", "ht*://git.example.com/x", "https://[::*]/x"),
        *("ssh://*@git.example.com/x", "https://git.example.com/../*", "https://g\u0456t.example.com/*"),
    ],
)
def test_patterns_that_say_nothing_clear_are_refused(pattern: str) -> None:
    """A pattern has an authenticated scheme, one host of labels, and a path; and no other wildcards than stars."""
    with pytest.raises(UnclearNameError):
        git_source(0, "", pattern)


def test_the_positive_control_of_each_pattern() -> None:
    """Every pattern of the table of what isn't covered covers something."""
    covering = {pattern for pattern, _ in COVERED} | {
        "https://127.0.0.1/plugins/*",
        "ssh://git.example.com/plugins/*",
        "ssh://git@git.example.com/*/csv",
        "ssh://git@git.example.com/**",
    }
    assert {pattern for pattern, _ in ANOTHER} <= covering
    for pattern, url in (
        ("https://127.0.0.1/plugins/*", "https://127.0.0.1/plugins/csv"),
        ("ssh://git.example.com/plugins/*", "git.example.com:plugins/csv"),
        ("ssh://git@git.example.com/*/csv", "git@git.example.com:plugins/csv"),
        ("ssh://git@git.example.com/**", "git@git.example.com:a/b"),
    ):
        assert git_source(0, "", pattern).miss(parse_git_url(url), "") is None


def test_a_branch_is_the_branch_that_was_fetched() -> None:
    """An entry with a branch covers what was fetched from it, and neither another branch nor a commit."""
    source, url = git_source(0, "", HTTPS, "main"), parse_git_url("https://git.example.com/plugins/csv")
    assert source.miss(url, "main") is None
    for branch in ("", "Main", "main2", "refs/heads/main", "feature/main"):
        miss = source.miss(url, branch)
        assert miss is not None
        assert "branch main" in miss.why
