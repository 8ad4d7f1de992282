"""Two manifests compared: capabilities, limits, environment, mounts, imports, names, and what gives nothing."""

from __future__ import annotations

import pytest

from ipc.struct import replace
from supervisor.config.host_policy import ResolvedQuota
from supervisor.manifest import parse_manifest
from supervisor.manifest.diff import ManifestDiff, Version, compare

QUOTA = ResolvedQuota(100, 100, 100, 100, 100)
BASE = """schema = 1
[component]
name = "tool"
version = "1.0.0"
wasm = "tool.wasm"
args = ["-v"]
env = { TZ = "UTC" }
[parameters]
in = { type = "directory", default = "/srv/in" }
[component.mounts]
"/in" = "${param.in}"
[capabilities.filesystem]
read = ["${param.in}/**/*.csv", "/srv/a/**"]
[capabilities.secrets]
env = ["TOKEN"]
[limits]
timeout = "30s"
"""


def version(text: str = BASE, **fields: object) -> Version:
    """A version with this manifest."""
    manifest = parse_manifest(text.encode(), file="Component.toml", directory="/c")
    return replace(Version(manifest, QUOTA, "1" * 64, ("wasi.a",)), **fields)


def difference(old_part: str, new_part: str) -> ManifestDiff:
    """The difference that one replacement makes."""
    assert old_part in BASE
    return compare(version(), version(BASE.replace(old_part, new_part)))


def test_another_metadata_of_a_custom_capability_is_another_request() -> None:
    """Its provider decides by them: neither is covered by the other, and both are shown."""
    custom = '[capabilities.custom.rates]\nactions = ["read"]\nmetadata = { region = "eu" }\n'
    old, new = version(BASE + custom), version(BASE + custom.replace('"eu"', '"us"'))
    found = compare(old, new)
    assert [(each.what, each.new) for each in found.wider] == [("custom.rates.read", '** region = "us"')]
    assert [(each.what, each.old) for each in found.narrower] == [("custom.rates.read", '** region = "eu"')]
    assert compare(old, old).wider == ()


@pytest.mark.parametrize(
    ("before", "after"), [('{ region = "eu" }', "{}"), ("{}", '{ region = "eu" }'), ("{ a = 1 }", "{ a = true }")]
)
def test_metadata_that_are_left_out_are_another_request_too(before: str, after: str) -> None:
    """A provider may take no region for every region; what is equal in Python is not the same to it."""
    custom = '[capabilities.custom.rates]\nactions = ["read"]\nmetadata = '
    found = compare(version(f"{BASE}{custom}{before}\n"), version(f"{BASE}{custom}{after}\n"))
    assert [each.what for each in found.wider] == [each.what for each in found.narrower] == ["custom.rates.read"]


def test_the_order_of_metadata_says_nothing() -> None:
    """The control: the same, written the other way round."""
    custom = '[capabilities.custom.rates]\nactions = ["read"]\nmetadata = '
    found = compare(version(f"{BASE}{custom}{{ a = 1, b = 2 }}\n"), version(f"{BASE}{custom}{{ b = 2, a = 1 }}\n"))
    assert (found.wider, found.narrower) == ((), ())


@pytest.mark.parametrize(
    ("old_part", "new_part", "what"),
    [
        ('"/srv/a/**"', '"/srv/a/"', "filesystem.read"),
        ('"/srv/a/**"', '"/srv/**"', "filesystem.read"),
        ('"/srv/a/**"', '"/srv/a/**", "/srv/b"', "filesystem.read"),
        ("/**/*.csv", "/**", "filesystem.read"),
        ("read =", "write =", "filesystem.write"),
        ('"TOKEN"', '"TOKEN", "KEY"', "secrets.env"),
        ('timeout = "30s"', 'timeout = "31s"', "limits.timeout"),
        ('timeout = "30s"', "", "limits.timeout"),
        ('timeout = "30s"', 'timeout = "30s"\noutput = "1GB"', "limits.output"),
        ('TZ = "UTC"', 'TZ = "UTC", LD = "x"', "LD"),
        ('TZ = "UTC"', 'TZ = "CET"', "TZ"),
        ('"/in" = "${param.in}"', '"/in" = "${param.in}"\n"/etc" = "/etc"', "/etc"),
        ('"/in" = "${param.in}"', '"/in" = "/etc"', "/in"),
        ('default = "/srv/in"', 'default = "/etc"', "filesystem.read"),
        ('type = "directory"', 'type = "string"', "filesystem.read"),
        ('name = "tool"', 'name = "tools"', "name"),
    ],
)
def test_what_is_wider(old_part: str, new_part: str, what: str) -> None:
    """Each way to get more is named."""
    found = difference(old_part, new_part)
    assert found.verdict == "wider"
    assert what in [change.what for change in found.wider]


@pytest.mark.parametrize(
    ("old_part", "new_part", "what"),
    [
        ('"/srv/a/**"', '"/srv/a/b/*.json"', "filesystem.read"),
        (', "/srv/a/**"', "", "filesystem.read"),
        ('["TOKEN"]', "[]", "secrets.env"),
        ('timeout = "30s"', 'timeout = "3s"', "limits.timeout"),
        ('timeout = "30s"', 'timeout = "30s"\nfuel = 7', "limits.fuel"),
        ('TZ = "UTC"', "", "TZ"),
        ('"/in" = "${param.in}"', "", "/in"),
    ],
)
def test_what_is_narrower(old_part: str, new_part: str, what: str) -> None:
    """Each way to get less is named, and nothing of it counts as wider."""
    found = difference(old_part, new_part)
    assert found.verdict == "narrower"
    assert what in [change.what for change in found.narrower]


@pytest.mark.parametrize(
    ("old_part", "new_part", "what"),
    [
        ('version = "1.0.0"', 'version = "1.0.1"', "version"),
        ('args = ["-v"]', 'args = ["-q"]', "args"),
        ("[limits]", '[capabilities.rationale]\n"filesystem.read" = "why"\n[limits]', "filesystem.read"),
        ("[limits]", '[supervision]\nrestart = "permanent"\n[limits]', "restart"),
        ("[parameters]", '[parameters]\nmore = { type = "integer" }', "more"),
        ("[capabilities.secrets]", "[capabilities.optional.secrets]", "secrets.env TOKEN"),
    ],
)
def test_what_gives_nothing(old_part: str, new_part: str, what: str) -> None:
    """What is different without giving or taking anything is told apart."""
    found = difference(old_part, new_part)
    assert found.verdict == "changed"
    assert what in [change.what for change in found.changed]


def test_the_same_is_the_same() -> None:
    """A manifest compared with itself, its lines in another order, has no difference."""
    found = compare(version(), version())
    assert found.verdict == "same"
    assert len(found.same) == 3
    swapped = BASE.replace('"${param.in}/**/*.csv", "/srv/a/**"', '"/srv/a/**", "${param.in}/**/*.csv"')
    assert compare(version(), version(swapped)).verdict == "same"


def test_imports_and_programs() -> None:
    """A new import is wider, one that is gone narrower, other bytes are only said; what isn't known isn't compared."""
    more = compare(version(), version(imports=("wasi.a", "wasi.b")))
    assert [(change.kind, change.what) for change in more.wider] == [("import", "wasi.b")]
    assert compare(version(), version(imports=())).verdict == "narrower"
    assert compare(version(), version(wasm_sha256="2" * 64)).changed[0].what == "program"
    assert compare(version(), version(wasm_sha256=None, imports=None)).verdict == "same"


def test_quotas_are_compared_as_this_host_decides_them() -> None:
    """A level that is higher on this host is wider, whether it was written or is the host's default."""
    assert compare(version(), version(quota=replace(QUOTA, memory_bytes=101))).verdict == "wider"
    assert compare(version(), version(quota=replace(QUOTA, storage_bytes=99))).verdict == "narrower"


def test_a_value_that_only_looks_like_a_parameters_is_another() -> None:
    """A text with the mark by which unknown values are told is never taken for one."""
    from supervisor.manifest.terms import Terms

    manifest = version().manifest
    mark = Terms(manifest).text("${param.in}")
    assert Terms(manifest).text(mark) != mark
    forged = BASE.replace('["${param.in}/**/*.csv"', f'["/{mark}/**/*.csv"')
    assert compare(version(), version(forged)).verdict == "wider"
