"""What people write to say where a package is: each form, and every text that only looks like one."""

from __future__ import annotations

import pytest

from supervisor.packages.source import (
    ArchiveSource,
    DirectorySource,
    GitSource,
    OciSource,
    Source,
    parse_source,
    show_source,
    why_not_revision,
)
from supervisor.usage_error import UsageError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "source"),
    [
        (".", DirectorySource(".")),
        ("./git@h:a", DirectorySource("./git@h:a")),
        ("./a@b#c", DirectorySource("./a@b#c")),
        ("/srv/x.tar.gz/", DirectorySource("/srv/x.tar.gz/")),
        ("x.tar.gz", ArchiveSource("x.tar.gz")),
        ("/a/X.TGZ", ArchiveSource("/a/X.TGZ")),
        ("a.tar", ArchiveSource("a.tar")),
        ("oci://localhost:5000/a/b:1.0", OciSource("localhost:5000/a/b:1.0")),
        ("git+https://git.example.com/a/b.git", GitSource("https", "https://git.example.com/a/b.git")),
        ("git+https://GIT.Example.com:8443/A/b", GitSource("https", "https://GIT.Example.com:8443/A/b")),
        ("git+https://h/a@v1.0#sub/dir/", GitSource("https", "https://h/a", "v1.0", "sub/dir")),
        ("git+https://h/@scope/a@feature/x", GitSource("https", "https://h/@scope/a", "feature/x")),
        (f"git+https://h/a@{COMMIT}", GitSource("https", "https://h/a", COMMIT)),
        ("git+https://h/a#sub", GitSource("https", "https://h/a", "", "sub")),
        ("git+https://h/a@b#x@y", GitSource("https", "https://h/a", "b", "x@y")),
        ("git@github.com:a/b.git", GitSource("ssh", "git@github.com:a/b.git")),
        ("git@h:~me/a@v1.0#sub/dir/", GitSource("ssh", "git@h:~me/a", "v1.0", "sub/dir")),
        ("git@[::1]:/srv/a@refs/heads/b", GitSource("ssh", "git@[::1]:/srv/a", "refs/heads/b")),
        ("git+ssh://git@h:22/~me/a@refs/tags/v1", GitSource("ssh", "ssh://git@h:22/~me/a", "refs/tags/v1")),
        ("git+ssh://[::1]/a", GitSource("ssh", "ssh://[::1]/a")),
        ("git+ssh://git@[::1]:22/a", GitSource("ssh", "ssh://git@[::1]:22/a")),
        ("git+file:///srv/ä b/x.git@main", GitSource("file", "file:///srv/%C3%A4%20b/x.git", "main")),
    ],
)
def test_the_forms_of_a_source(text: str, source: Source) -> None:
    """Each is read as what it is, and shown so that it is read as the same again."""
    assert parse_source(text) == source
    assert parse_source(show_source(source)) == source


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "1 to 4096"),
        ("x" * 5_000, "1 to 4096"),
        ("a\0b", "1 to 4096"),
        ("git://h/a", "isn't encrypted"),
        ("http://h/a.tar.gz", "isn't encrypted"),
        ("git+http://h/a", "isn't encrypted"),
        ("https://h/a", "needs to say what is there"),
        ("ssh://h/a", "needs to say what is there"),
        ("git@-oProxyCommand=x:a", "its host is no name"),
        ("-oProxyCommand=x@h:a", "no plain name"),
        ("git@h:-a", "begins with -"),
        ("git@h:--upload-pack=x", "begins with -"),
        ("git@[h:22]:a", "no IPv6 address"),
        ("git@h::a", "no URL"),
        ("git@h:a@", "it is empty"),
        ("git@h:a@-x", "begins with a -"),
        ("git@h:a/../b", "has . or .."),
        ("git@h:a%2fb", "holds a %"),
        ("git@h:a b", "no URL has"),
        ("git+git@h:a", "unknown kind"),
        ("ext::sh -c true", "unknown kind"),
        ("git+ext::sh -c true", "unknown kind"),
        ("s3://bucket/a", "unknown kind"),
        ("git+https:///a", "names no host"),
        ("git+https://-oProxyCommand=x/a", "its host is no name"),
        ("git+ssh://-oProxyCommand=x/a", "its host is no name"),
        ("git+ssh://-x@h/a", "no plain name"),
        ("git+ssh://a@b@h/a", "more than one @"),
        ("git+https://h..x/a", "its host is no name"),
        ("git+https://hä/a", "outside ASCII"),
        ("git+https://[::1/a", "no address in brackets"),
        ("git+https://h:0/a", "its port is no number"),
        ("git+https://h:65536/a", "its port is no number"),
        ("git+https://h:/a", "its port is no number"),
        ("git+https://h:٣/a", "outside ASCII"),
        ("git+https://h", "no repository"),
        ("git+https://h/", "no repository"),
        ("git+https://h/a/../b", "has . or .."),
        ("git+https://h/./b", "has . or .."),
        ("git+https://h/a//b", "empty segment"),
        ("git+https://h/a%2e%2e/b", "hides a character"),
        ("git+https://h/a?x=y", "a query"),
        ("git+https://h/a b", "no URL has"),
        ("git+https://h/a\\b", "no URL has"),
        ("git+https://h/a\nb", "no URL has"),
        ("git+https://h/a@", "it is empty"),
        ("git+https://h/a@--upload-pack=x", "begins with a -"),
        ("git+https://h/a@b..c", "holds .."),
        ("git+https://h/a@b:c", "characters"),
        ("git+https://h/a@b\x1b[2J", "characters"),
        ("git+https://h/a@HEAD@{1}", "characters"),
        ("git+https://h/a@x.lock", "ends in .lock"),
        ("git+https://h/a@b#", "not a plain path"),
        ("git+https://h/a@b#../c", "not a plain path"),
        ("git+https://h/a@b#/c", "not a plain path"),
        ("git+https://h/a@b#.git", "no part of a package"),
        ("git+file://h/a", "absolute path"),
        ("git+file://a", "absolute path"),
        ("git+file:a", "unknown kind"),
        ("git+file:///a\nb", "absolute path"),
    ],
)
def test_texts_that_are_no_source(text: str, why: str) -> None:
    """Each is refused with the rule, and with a form that would be one."""
    with pytest.raises(UsageError, match=why) as refused:
        parse_source(text)
    assert refused.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "git+https://s3cret@h/a",
        "git+https://me:s3cret@h/a",
        "git+ssh://me:s3cret@h/a",
        "https://me:s3cret@h/a",
        "me:s3cret@h:a",
    ],
)
def test_a_password_is_neither_used_nor_repeated(text: str) -> None:
    """What may be a secret doesn't get into a message."""
    with pytest.raises(UsageError) as refused:
        parse_source(text)
    assert "s3cret" not in f"{refused.value} {refused.value.hint}"


@pytest.mark.parametrize("name", ["main", "v1.0", "feature/x-y", "refs/heads/a", "1", "ä", "a+b", "x=y"])
def test_names_that_branches_have(name: str) -> None:
    """What git takes for a name is taken."""
    assert why_not_revision(name) == ""


@pytest.mark.parametrize(
    "name", ["-x", "a b", "a~1", "a^", "a:b", "a?", "a*", "a[", "a\\b", "a..b", "a.", "/a", "a/", "a//b", ".a", "a/.b"]
)
def test_names_that_no_branch_has(name: str) -> None:
    """What git-check-ref-format(1) refuses, and whatever an option begins with."""
    assert why_not_revision(name)
    assert why_not_revision("x" * 256)
