"""Whatever a manifest or a value holds: no crash, no widening, and lines that are right."""

import string
import tomllib

from hypothesis import given, settings
from hypothesis import strategies as st

from ipc.policy.patterns import parse_pattern
from supervisor.config import units
from supervisor.config.toml_source import KeyPath, locate_keys, parse_toml
from supervisor.manifest import ManifestErrors, Problem, Variables, bind, parse_manifest, render_problems

HEAD = 'schema = 1\n[component]\nname = "tool"\nversion = "1.0.0"\nwasm = "tool.wasm"\n'

KEYS = st.one_of(st.text(string.ascii_lowercase + "-_", min_size=1, max_size=6), st.text(max_size=6))
SCALARS = st.one_of(st.booleans(), st.integers(-(2**62), 2**62), st.text(max_size=12), st.floats(allow_nan=False))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=8,
)
SECTIONS = st.sampled_from(
    ["component", "parameters", "capabilities", "quota", "limits", "supervision", "capabilities.filesystem", "x"]
)
KNOWN_KEYS = st.sampled_from(
    ["name", "read", "write", "list", "connect", "env", "memory", "timeout", "restart", "type", "default", "optional"]
)


def quoted(text: str) -> str:
    """Write a TOML basic string (control characters and surrogates escaped or dropped)."""
    kept = text.encode("utf-8", "ignore").decode()
    escaped = "".join(
        f"\\u{ord(char):04x}" if ord(char) < 32 or ord(char) == 127 or char in '"\\' else char for char in kept
    )
    return f'"{escaped}"'


def toml(value: object) -> str:
    """Write a value as TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, float):
        return repr(value) if "e" in repr(value) or "." in repr(value) else f"{value}"
    if isinstance(value, list):
        return "[ # items\n" + "".join(f"  {toml(item)},\n" for item in value) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{quoted(key)} = {inline(item)}" for key, item in value.items()) + " }"
    return str(value)


def inline(value: object) -> str:
    """Write a value on one line, as an inline table needs it."""
    if isinstance(value, list):
        return "[" + ", ".join(inline(item) for item in value) + "]"
    return toml(value)


def problems_of(data: bytes) -> tuple[Problem, ...] | None:
    """Return the problems of a manifest, None where it is right."""
    try:
        parse_manifest(data, file="Component.toml", directory="/c")
    except ManifestErrors as error:
        return error.problems
    return None


@given(st.binary(max_size=200))
def test_bytes_are_a_manifest_or_problems(data: bytes) -> None:
    """Any bytes give a manifest or problems that can be printed, never another exception."""
    problems = problems_of(data)
    assert problems is None or problems
    assert render_problems(problems or ()).replace("\n", "").isprintable()


@given(st.lists(st.tuples(SECTIONS, st.dictionaries(st.one_of(KNOWN_KEYS, KEYS), VALUES, max_size=4)), max_size=4))
def test_any_valid_toml_is_a_manifest_or_problems_with_lines(sections: list[tuple[str, dict[str, object]]]) -> None:
    """Well-formed TOML of any shape gives a manifest, or problems each of which names a key."""
    text = "schema = 1\n"
    for name, values in dict(sections).items():
        text += f"[{name}]\n" + "".join(f"{quoted(key)} = {toml(value)}\n" for key, value in values.items())
    lines = text.count("\n") + 1
    for problem in problems_of(text.encode()) or ():
        assert problem.expected
        assert problem.got
        assert 0 <= problem.line <= lines


def paths_of(value: object, path: KeyPath = ()) -> list[KeyPath]:
    """Return every key path of a parsed document."""
    found: list[KeyPath] = [path] if path else []
    if isinstance(value, dict):
        for key, inner in value.items():
            found += paths_of(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found += paths_of(inner, (*path, index))
    return found


@given(st.dictionaries(KEYS, VALUES, max_size=5), st.lists(st.dictionaries(KEYS, VALUES, max_size=3), max_size=3))
def test_every_key_and_element_has_its_line(values: dict[str, object], tables: list[dict[str, object]]) -> None:
    """Each key path that tomllib sees has a line, and a top-level key stands where its line says."""
    text = "".join(f"\n# comment = 1\n{quoted(key)} = {toml(value)}\n" for key, value in values.items())
    for table in tables:
        text += "[[\"many\".'of them']]\n" + "".join(f"{quoted(key)} = {toml(value)}\n" for key, value in table.items())
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # two keys that became equal, or a key that is also the array's name
    lines = locate_keys(text)
    assert set(paths_of(document)) <= set(lines)
    for key in values:
        written = quoted(key)
        assert text.split("\n")[lines[tomllib.loads(f"{written} = 1").popitem()[0],] - 1].startswith(written)
    assert set(parse_toml(text.encode(), "x.toml").origins) == set(lines)


@given(st.text(max_size=30))
def test_no_value_widens_a_pattern(value: str) -> None:
    """Whatever a directory is set to, what is granted lies beneath exactly that directory, or nothing is granted."""
    text = '[parameters]\np = { type = "directory" }\n[capabilities.filesystem]\nread = ["${param.p}/in/*.csv"]\n'
    manifest = parse_manifest((HEAD + text).encode(), file="Component.toml", directory="/c")
    try:
        bound = bind(manifest, {"p": value}, Variables("/c", "/d", "/t"), cwd="/work")
    except ManifestErrors:
        return
    directory = dict(bound.parameters)["p"]
    assert isinstance(directory, str)
    pattern = parse_pattern(bound.grants[0].pattern_text)
    root = directory.rstrip("/")
    assert pattern.matches(f"{root}/in/a.csv")
    assert all(isinstance(token, str) for token in pattern.tokens[:-1])
    assert not pattern.matches(f"{root}x/in/a.csv")
    assert not pattern.matches(f"{root}/in/b/a.csv")


@given(st.text(max_size=20), st.text(max_size=20))
def test_no_string_adds_a_wildcard(first: str, second: str) -> None:
    """Strings in a pattern never bring a wildcard of their own, nor a step upwards."""
    text = """[parameters]
a = { type = "string" }
b = { type = "string" }
[capabilities.filesystem]
write = ["/srv/${param.a}/x-${param.b}/out"]
"""
    manifest = parse_manifest((HEAD + text).encode(), file="Component.toml", directory="/c")
    try:
        bound = bind(manifest, {"a": first, "b": second}, Variables("/c", "/d", "/t"))
    except ManifestErrors:
        return
    tokens = parse_pattern(bound.grants[0].pattern_text).tokens
    assert all(isinstance(token, str) and token not in ("", ".", "..") for token in tokens)
    assert tokens[0] == "srv"


AMOUNTS = st.one_of(st.integers(0, 10**6), st.integers(0, units.UNLIMITED))


@given(AMOUNTS)
def test_amounts_survive_writing_and_reading(amount: int) -> None:
    """What is written of an amount is read back as the same amount."""
    assert units.parse_size_bytes(units.format_size(amount)) == amount
    assert units.parse_rate_per_s(units.format_rate(amount)) == amount
    assert units.parse_bandwidth_bytes_per_s(units.format_bandwidth(amount)) == amount
    assert units.parse_cpu_ns_per_s(units.format_cpu(amount)) == amount
    if amount != units.UNLIMITED:
        assert units.parse_duration_ns(units.format_duration(amount)) == amount


@settings(max_examples=50)
@given(st.text(max_size=12))
def test_any_text_is_an_amount_or_an_error(text: str) -> None:
    """Whatever stands in a file, reading it ends in a non-negative amount or in a `UnitError`."""
    for parse in (units.parse_size_bytes, units.parse_duration_ns, units.parse_rate_per_s, units.parse_cpu_ns_per_s):
        try:
            amount = parse(text)
        except units.UnitError:
            continue
        assert 0 <= amount <= units.UNLIMITED
