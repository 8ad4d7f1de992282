"""The text of a manifest that is written after a run: what becomes a variable, what a note, and that it can be read."""

import tomllib

import pytest

from ipc.struct import replace
from supervisor.manifest import Variables, bind, parse_manifest
from supervisor.manifest.writer import Anchor, Draft, anchored, can_be_a_value, manifest_text, parameter_anchors

READ, WRITE = "filesystem.read", "filesystem.write"
COMPONENT = Anchor("${component}", "/srv/c")
DRAFT = Draft(
    name="prog",
    version="0.1.0",
    wasm="prog.wasm",
    arguments=(),
    environment=(),
    passed_on=(),
    secrets=(),
    mounts=(),
    anchors=(COMPONENT,),
    patterns={},
    denied=(),
    memory_bytes=256 * 10**6,
    timeout_ns=None,
    fuel=None,
    output_bytes=None,
)


def read_back(draft: Draft) -> dict[str, object]:
    """The draft's text as TOML, after our own parser has taken it too."""
    text = manifest_text(draft)
    parse_manifest(text.encode(), file="Component.toml", directory="/srv/c")
    return tomllib.loads(text)


@pytest.mark.parametrize(
    ("directory", "name"),
    [
        ("/srv/data", "data"),
        ("/srv/My Data", "my-data"),
        ("/srv/2026", "dir-2026"),
        ("/srv/日本", "dir"),
        ("/srv/" + "x" * 200, "x" * 60),
        ("/srv/taken", "taken-2"),
        ("/", None),
        ("/srv/c", None),
        ("/srv/c/in", None),
        ("/srv/[x]", None),
        ("/srv/${x}", None),
        ("/srv/a\nb", None),
        ("/srv/\udcff", None),
    ],
)
def test_a_directory_gets_a_parameter_where_one_can_stand_for_it(directory: str, name: str | None) -> None:
    """Its name follows from the directory's; what a variable already stands for, or none can, gets none."""
    found = parameter_anchors([(directory, "seen")], ["/srv/c"], ["taken"])
    assert [anchor.parameter for anchor in found] == ([] if name is None else [name])
    assert can_be_a_value(directory) == (name is not None or directory in ("/", "/srv/c", "/srv/c/in"))


def test_directories_of_one_name_get_parameters_of_their_own() -> None:
    """So do their contents not mix; a directory within another one needs none."""
    directories = [("/a/data", ""), ("/b/data", ""), ("/b/data/in", ""), ("/c/data", "")]
    assert [anchor.parameter for anchor in parameter_anchors(directories, ())] == ["data", "data-2", "data-3"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/srv/c", "${component}"),
        ("/srv/c/in/*", "${component}/in/*"),
        ("/srv/c/big/x", "${param.big}/x"),
        ("/srv/cd/x", "/srv/cd/x"),
        ("/elsewhere", "/elsewhere"),
    ],
)
def test_the_innermost_directory_stands_for_the_path(path: str, expected: str) -> None:
    """And one whose name merely begins alike doesn't."""
    assert anchored(path, (COMPONENT, Anchor("${param.big}", "/srv/c/big", "big"))) == expected


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("plain", "plain"),
        ("${x}", "$${x}"),
        ("$${x}", "$$${x}"),
        ("in/a", "in/a"),
        ("/srv/c/in/${x}", "${component}/in/$${x}"),
        ("/elsewhere", "/elsewhere"),
        ("-o=/srv/c/x", "-o=/srv/c/x"),
        ("a\nb\x7f\u202e", "a\nb\x7f\u202e"),
        ("", ""),
    ],
)
def test_arguments_and_variables_mean_the_same_when_they_are_read(text: str, written: str) -> None:
    """A literal `${` stays one; an absolute path within a known directory follows that directory."""
    draft = replace(DRAFT, arguments=(text,), environment=(("V", text),))
    component = read_back(draft)["component"]
    assert component["args"] == [written]  # type: ignore[index]
    assert component["env"] == {"V": written}  # type: ignore[index]
    parsed = parse_manifest(manifest_text(draft).encode(), file="Component.toml", directory="/srv/c")
    bound = bind(parsed, {}, Variables("/srv/c", "/srv/d", "/srv/t"))
    assert bound.args == (text,)
    assert bound.env == (("V", text),)


def test_what_a_reader_could_not_see_is_escaped() -> None:
    """Controls, invisible and direction-changing characters are spelled out in arguments, and in comments."""
    text = manifest_text(replace(DRAFT, arguments=("a\u202eb\u200bc\x9b",), denied=(("read", "/x\u202e\n\x7f"),)))
    assert not any(character in text for character in "\u202e\u200b\x9b\x7f")


def test_the_values_of_passed_on_variables_and_secrets_stay_outside() -> None:
    """Each passed-on one is a parameter, also where its own name can't be one; a secret is only asked for."""
    draft = replace(DRAFT, passed_on=("HOME", "_X"), secrets=("TOKEN",))
    document = read_back(draft)
    assert document["component"]["env"] == {"HOME": "${param.HOME}", "_X": "${param.env_X}"}  # type: ignore[index]
    assert set(document["parameters"]) == {"HOME", "env_X"}  # type: ignore[arg-type]
    assert document["capabilities"] == {"secrets": {"env": ["TOKEN"]}}


def test_only_parameters_that_stand_for_something_are_declared() -> None:
    """One for a directory in which nothing was used would only puzzle."""
    anchors = (COMPONENT, *parameter_anchors([("/a", "first"), ("/b", "second")], ()))
    document = read_back(replace(DRAFT, anchors=anchors, patterns={READ: ("/a/x",)}, mounts=((".", "/srv/c"),)))
    assert document["parameters"] == {"a": {"type": "directory", "default": "/a", "description": "first"}}
    assert document["capabilities"] == {"filesystem": {"read": ["${param.a}/x"]}}
    assert document["component"]["mounts"] == {".": "${component}"}  # type: ignore[index]


def test_what_can_not_be_written_is_told() -> None:
    """A path that is too long for a pattern is in a comment, the others are asked for; refusals are listed up to 20."""
    patterns = {READ: ("/srv/c/a", "/srv/c/" + "x" * 5_000), WRITE: ("/srv/c/b\n", "/srv/c/b\x1b")}
    draft = replace(DRAFT, patterns=patterns, denied=tuple(("read", f"/etc/{n}") for n in range(50)), notes=("note",))
    text = manifest_text(draft)
    document = read_back(draft)
    assert document["capabilities"] == {
        "filesystem": {"read": ["${component}/a"], "write": ["${component}/b[! -\U0010ffff]"]}
    }
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert sum("no pattern can name it" in line for line in comments) == 1
    assert sum("/etc/" in line for line in comments) == 20
    assert "# … and 30 more" in comments
    assert "# note" in comments


def test_limits_are_written_as_they_were() -> None:
    """Sizes and times can be read back exactly."""
    draft = replace(DRAFT, memory_bytes=123_456_789, timeout_ns=1_500_000_000, fuel=10**9, output_bytes=1 << 20)
    manifest = parse_manifest(manifest_text(draft).encode(), file="Component.toml", directory="/srv/c")
    assert manifest.limits.timeout_ns == 1_500_000_000
    assert manifest.limits.fuel == 10**9
    assert manifest.limits.output_bytes == 1 << 20
    assert manifest.quota.memory_bytes == 123_456_789
