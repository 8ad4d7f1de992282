"""What a user said yes to is remembered for exactly that, and for nobody else's file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ipc.errors import ConfigError
from ipc.policy.capability import Grant
from ipc.struct import replace
from supervisor.cli.grants import NotRememberedError, find
from supervisor.grants.store import GrantStore, lasting_grants, read_package, request_key
from supervisor.manifest.component_view import UsageError

READ = Grant("filesystem.read", "/in/**", "Component.toml")
WRITE = Grant("filesystem.write", "/out/*", "Component.toml")
CALL = Grant("network.connect", "https://example.com/", "Component.toml", methods=("GET",))
KEY = request_key("m", "w", [READ, WRITE, CALL])


def test_a_yes_is_remembered(tmp_path: Path) -> None:
    """What was granted is found, also by another instance; what wasn't isn't."""
    store = GrantStore(str(tmp_path / "grants"))
    assert not store.remembered(KEY)
    store.remember(KEY, "demo", [READ, WRITE])
    assert store.remembered(KEY)
    assert GrantStore(str(tmp_path / "grants")).remembered(KEY)
    assert not store.remembered(request_key("m", "w", [READ]))


@pytest.mark.parametrize(
    "other",
    [
        request_key("m2", "w", [READ, WRITE, CALL]),
        request_key("m", "w2", [READ, WRITE, CALL]),
        request_key("m", "w", [READ, WRITE]),
        request_key("m", "w", [READ, WRITE, CALL, CALL]),
        request_key("m", "w", [replace(READ, pattern_text="/in/*"), WRITE, CALL]),
        request_key("m", "w", [replace(READ, action="filesystem.list"), WRITE, CALL]),
        request_key("m", "w", [READ, WRITE, replace(CALL, methods=("GET", "POST"))]),
        request_key("m", "w", [READ, WRITE, replace(CALL, methods=())]),
        request_key("mw", "", [READ, WRITE, CALL]),
    ],
)
def test_any_change_asks_again(other: str) -> None:
    """The manifest, the program, one pattern, action or method, one request more or less: another key."""
    assert other != KEY


def test_what_it_reads_of_its_own_directory_is_part_of_its_bytes(tmp_path: Path) -> None:
    """Another byte beside the program asks again, where it may read it; where it may write it, or not read it, not."""
    (tmp_path / "Component.toml").write_text("")
    (tmp_path / "program.py").write_text("print('harmless')")
    own = replace(READ, pattern_text=f"{tmp_path}/**")
    one = replace(READ, pattern_text=f"{tmp_path}/program.py")
    writes = replace(WRITE, pattern_text=f"{tmp_path}/out/*")
    asked: dict[str, list[Grant]] = {"all": [own, WRITE], "one": [one], "writes": [own, writes], "elsewhere": [READ]}
    before = {name: read_package(str(tmp_path), grants) for name, grants in asked.items()}
    assert [bool(each) for each in before.values()] == [True, True, False, False]
    (tmp_path / "program.py").write_text("print('harmful!')")
    after = {name: read_package(str(tmp_path), grants) for name, grants in asked.items()}
    assert {name for name in asked if before[name] != after[name]} == {"all", "one"}
    assert request_key("m", "w", [own], before["all"]) != request_key("m", "w", [own], after["all"])
    (tmp_path / "link").symlink_to("program.py")
    assert read_package(str(tmp_path), [own]) == "", "what is no package is none that was said yes to"


def test_the_order_of_requests_is_no_change() -> None:
    """The same set asked in another order, and the same methods, is the same request."""
    assert request_key("m", "w", [CALL, WRITE, READ]) == KEY
    twice = replace(CALL, methods=("POST", "GET"))
    assert request_key("m", "w", [twice]) == request_key("m", "w", [replace(twice, methods=("GET", "POST"))])


def test_hostile_patterns_have_a_key_and_a_file(tmp_path: Path) -> None:
    """Undecodable and control characters neither end the key nor the record."""
    grant = replace(READ, pattern_text="/\udcff\n\x1b[2J/**")
    store = GrantStore(str(tmp_path / "grants"))
    key = request_key("m", "w", [grant])
    store.remember(key, "demo", [grant])
    text = (tmp_path / "grants" / key).read_text()
    assert "\x1b" not in text
    assert json.loads(text)["grants"] == [f"filesystem.read {grant.pattern_text}"]


def test_the_record_is_for_a_person_and_owner_only(tmp_path: Path) -> None:
    """The file says what, when and for whom; only its owner may read it, and no temporary file is left."""
    store = GrantStore(str(tmp_path / "grants"))
    store.remember(KEY, "demo", [READ])
    path = tmp_path / "grants" / KEY
    document = json.loads(path.read_text())
    assert document["component"] == "demo"
    assert document["grants"] == ["filesystem.read /in/**"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(path.parent) == [KEY]


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_record_that_others_may_write_is_no_yes(tmp_path: Path, mode: int) -> None:
    """A file that others could have put there is asked about again."""
    store = GrantStore(str(tmp_path / "grants"))
    store.remember(KEY, "demo", [READ])
    (tmp_path / "grants" / KEY).chmod(mode)
    assert not store.remembered(KEY)


def test_a_link_is_no_yes(tmp_path: Path) -> None:
    """A link to some other file of ours isn't an answer, nor is a directory."""
    store = GrantStore(str(tmp_path / "grants"))
    (tmp_path / "file").write_text("{}")
    (tmp_path / "grants" / KEY).symlink_to(tmp_path / "file")
    assert not store.remembered(KEY)
    (tmp_path / "grants" / "other").mkdir()
    assert not store.remembered("other")


@pytest.mark.needs_root
def test_a_foreign_record_is_no_yes(tmp_path: Path) -> None:
    """A file of somebody else's isn't an answer of ours."""
    store = GrantStore(str(tmp_path / "grants"))
    store.remember(KEY, "demo", [READ])
    os.chown(tmp_path / "grants" / KEY, 12_345, 12_345)
    assert not store.remembered(KEY)


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_a_store_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    """In a directory that others may write, a file of ours could be renamed to an answer."""
    (tmp_path / "grants").mkdir()
    (tmp_path / "grants").chmod(mode)
    with pytest.raises(ConfigError, match="writable by nobody else"):
        GrantStore(str(tmp_path / "grants"))
    (tmp_path / "grants").chmod(0o700)
    GrantStore(str(tmp_path / "grants"))


def test_what_is_remembered_is_listed(tmp_path: Path) -> None:
    """Each yes with its digests; what isn't ours, isn't a key or can't be read is left out or shown as unknown."""
    store = GrantStore(str(tmp_path / "grants"))
    assert store.remembered_grants() == ()
    store.remember(KEY, "demo", [READ], "a" * 64, "b" * 64)
    (tmp_path / "grants" / "note.txt").write_text("{}")
    broken = tmp_path / "grants" / ("0" * 64)
    broken.write_text("[" * 100_000)
    foreign = tmp_path / "grants" / ("1" * 64)
    foreign.write_text("{}")
    foreign.chmod(0o666)
    unknown, known = store.remembered_grants()
    assert (unknown.key, unknown.component, unknown.grants) == ("0" * 64, "", ())
    assert (known.key, known.component, known.grants) == (KEY, "demo", ("filesystem.read /in/**",))
    assert (known.wasm_sha256, known.manifest_sha256) == ("a" * 64, "b" * 64)


def test_what_is_forgotten_is_asked_again(tmp_path: Path) -> None:
    """A yes taken back doesn't count any more, and can be taken back once."""
    store = GrantStore(str(tmp_path / "grants"))
    store.remember(KEY, "demo", [READ])
    assert store.forget(KEY)
    assert not store.remembered(KEY)
    assert not store.forget(KEY)


def test_a_name_or_the_beginning_of_a_digest_finds_it(tmp_path: Path) -> None:
    """A component's name comes first; a beginning that several components share is refused, an unknown one too."""
    store = GrantStore(str(tmp_path / "grants"))
    store.remember("a" * 64, "demo", [READ], "c" * 64, "d" * 64)
    store.remember("b" * 64, "abcdef", [READ], "c" * 6 + "e" * 58, "f" * 64)
    remembered = store.remembered_grants()
    assert [each.key[0] for each in find(remembered, "demo")] == ["a"]
    assert [each.key[0] for each in find(remembered, "abcdef")] == ["b"]
    assert [each.key[0] for each in find(remembered, "dddddd")] == ["a"]
    assert [each.key[0] for each in find(remembered, "ccccccc")] == ["a"]
    with pytest.raises(UsageError, match="several"):
        find(remembered, "cccccc")
    for nothing in ("aaaaa", "999999", "", "de"):
        with pytest.raises(NotRememberedError):
            find(remembered, nothing)


def test_a_fresh_directory_at_each_start_is_the_same_request() -> None:
    """`${tmp}` stands in the request by its name; a directory that only begins alike doesn't."""

    def request(tmp: str) -> str:
        texts = (f"{tmp}/**", tmp, f"{tmp}-other/x")
        return request_key("m", "w", lasting_grants([replace(READ, pattern_text=text) for text in texts], "/d/tmp-1"))

    (whole, itself, other) = lasting_grants(
        [replace(READ, pattern_text=text) for text in ("/d/tmp-1/**", "/d/tmp-1", "/d/tmp-1-other/x")], "/d/tmp-1"
    )
    assert [whole.pattern_text, itself.pattern_text] == ["${tmp}/**", "${tmp}"]
    assert other.pattern_text == "/d/tmp-1-other/x"
    assert request("/d/tmp-1") != request("/d/tmp-2")
