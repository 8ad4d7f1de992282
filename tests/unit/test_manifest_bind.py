"""Parameters and variables filled in: what is bound, and what is refused."""

import pytest

from ipc.policy.capability import Grant
from supervisor.manifest import (
    BoundManifest,
    ManifestErrors,
    ParameterValue,
    Variables,
    bind,
    parse_manifest,
    stand_ins,
)

HEAD = 'schema = 1\n[component]\nname = "tool"\nversion = "1.0.0"\nwasm = "tool.wasm"\n'
VARIABLES = Variables("/c", "/d", "/t")


def bound(
    text: str, values: dict[str, ParameterValue] | None = None, variables: Variables = VARIABLES
) -> BoundManifest:
    """Parse and bind."""
    manifest = parse_manifest((HEAD + text).encode(), file="Component.toml", directory="/c")
    return bind(manifest, values or {}, variables, cwd="/work")


def refused(text: str, values: dict[str, ParameterValue]) -> str:
    """Return the message of a binding that is refused."""
    with pytest.raises(ManifestErrors) as caught:
        bound(text, values)
    return str(caught.value)


def test_variables_and_parameters_become_grants_mounts_args_and_env() -> None:
    """Every text of a manifest is expanded, defaults that refer to others included."""
    result = bound(
        """args = ["--out=${param.out}", "$${HOME}", "${param.n}", "${param.on}"]
env = { DIR = "${data}" }
[parameters]
logs = { type = "directory" }
out = { type = "directory", default = "${param.base}/out" }
base = { type = "directory", default = "${data}/base" }
n = { type = "integer", default = 3 }
on = { type = "boolean", default = true }
[component.mounts]
"/logs" = "${param.logs}"
"." = "${tmp}/"
[capabilities.filesystem]
read = ["${param.logs}/**/*.log", "${component}/x"]
write = ["${param.out}/*.json"]
[capabilities.secrets]
env = ["TOKEN"]
[capabilities.optional.secrets]
env = ["OTHER"]
[capabilities.optional.filesystem]
list = ["${tmp}/"]
""",
        {"logs": "var/log"},
    )
    assert result.grants == (
        Grant("filesystem.read", "/work/var/log/**/*.log", "Component.toml:18"),
        Grant("filesystem.read", "/c/x", "Component.toml:18"),
        Grant("filesystem.write", "/d/base/out/*.json", "Component.toml:19"),
        Grant("secrets.env", "TOKEN", "Component.toml:21"),
        Grant("filesystem.list", "/t/", "Component.toml:25", required=False),
        Grant("secrets.env", "OTHER", "Component.toml:23", required=False),
    )
    assert [(mount.guest, mount.host) for mount in result.mounts] == [("/logs", "/work/var/log"), (".", "/t")]
    assert result.args == ("--out=/d/base/out", "${HOME}", "3", "true")
    assert result.env == (("DIR", "/d"),)
    assert [(secret.name, secret.required) for secret in result.secrets] == [("TOKEN", True), ("OTHER", False)]


def test_methods_and_lines_stay_with_their_request() -> None:
    """A URL keeps its methods, and each grant names the line that asked for it."""
    text = """[capabilities.network]
connect = [
  "a.example:1",
  { url = "http://b.example/${param.v}/**", methods = ["GET"] },
]
"""
    result = bound(text + '[parameters]\nv = { type = "string" }\n', {"v": "v1"})
    assert result.grants == (
        Grant("network.connect", "a.example:1", "Component.toml:8"),
        Grant("network.connect", "http://b.example/v1/**", "Component.toml:9", methods=("GET",)),
    )


DIRECTORY = '[parameters]\np = { type = "directory" }\n[capabilities.filesystem]\nread = ["${param.p}/**"]\n'


@pytest.mark.parametrize(
    "value", ["/a/*", "/a/?", "/a/[b]", "/a/../b", "..", "/a\n", "/a\0b", "/a/${tmp}", "", "//a", "/" + "x" * 5000]
)
def test_a_path_can_not_widen_a_pattern(value: str) -> None:
    """Pattern characters, `..`, control characters and variables in a value are refused."""
    assert "expected" in refused(DIRECTORY, {"p": value})


def test_a_root_directory_leaves_one_slash() -> None:
    """A directory parameter `/` makes `/**` of `${param.p}/**`."""
    assert bound(DIRECTORY, {"p": "/"}).grants[0].pattern_text == "/**"


def test_a_directory_is_normalised() -> None:
    """A slash at the end, a double slash inside and a dot don't make another pattern."""
    assert bound(DIRECTORY, {"p": "a/./b//"}).grants[0].pattern_text == "/work/a/b/**"


def test_a_real_path_is_what_is_bound_and_checked_again() -> None:
    """Symbolic links in values are resolved by the function given, and the result is checked too."""
    manifest = parse_manifest((HEAD + DIRECTORY).encode(), file="Component.toml", directory="/c")
    result = bind(manifest, {"p": "/link"}, VARIABLES, real_path=lambda path: path.replace("link", "real"))
    assert result.grants[0].pattern_text == "/real/**"
    with pytest.raises(ManifestErrors, match="whose real path is"):
        bind(manifest, {"p": "/link"}, VARIABLES, real_path=lambda path: path.replace("link", "re*l"))


@pytest.mark.parametrize(
    ("declaration", "value", "expected"),
    [
        ('type = "integer", minimum = 1, maximum = 9', "0", "of at least 1"),
        ('type = "integer", minimum = 1, maximum = 9', "10", "up to 9"),
        ('type = "integer"', "x", "an integer"),
        ('type = "integer"', "\u0663", "an integer"),
        ('type = "integer"', True, "an integer"),
        ('type = "boolean"', "yes", "true or false"),
        ('type = "choice", choices = ["a", "b"]', "c", '"a" or "b"'),
        ('type = "string"', "a*", "pattern characters"),
        ('type = "string"', "x/../y", '".." segment'),
        ('type = "string"', 5, "written as a string"),
        ('type = "file"', "", "the path of a file"),
    ],
)
def test_values_are_typed(declaration: str, value: ParameterValue, expected: str) -> None:
    """A value that isn't of its parameter's type, or out of its bounds, is refused."""
    assert expected in refused(f"[parameters]\np = {{ {declaration} }}\n", {"p": value})


@pytest.mark.parametrize(
    ("declaration", "value", "typed"),
    [
        ('type = "integer"', "-7", -7),
        ('type = "boolean"', "false", False),
        ('type = "boolean"', True, True),
        ('type = "choice", choices = ["a", "b"]', "b", "b"),
        ('type = "string"', "", ""),
        ('type = "file"', "x.txt", "/work/x.txt"),
    ],
)
def test_values_from_the_command_line_become_their_type(
    declaration: str, value: ParameterValue, typed: ParameterValue
) -> None:
    """`--set` gives strings; a parameter's type makes of them what it says."""
    assert dict(bound(f"[parameters]\np = {{ {declaration} }}\n", {"p": value}).parameters) == {"p": typed}


def test_missing_and_unknown_parameters_are_reported_together() -> None:
    """Every parameter without a value is named with the flag that sets it, and every unknown one too."""
    message = refused(
        '[parameters]\na = { type = "file", description = "the input" }\nb = { type = "string" }\n', {"c": "x"}
    )
    assert "--set a=VALUE (the input)" in message
    assert "--set b=VALUE" in message
    assert 'the unknown parameter "c"' in message


def test_an_empty_string_in_a_pattern_is_refused() -> None:
    """A value that leaves an empty segment makes no pattern."""
    text = '[parameters]\ns = { type = "string" }\n[capabilities.filesystem]\nread = ["/a/${param.s}/b"]\n'
    assert "empty segment" in refused(text, {"s": ""})


def test_a_component_in_a_directory_with_pattern_characters_is_refused() -> None:
    """The directories behind variables may not hold pattern characters either."""
    with pytest.raises(ManifestErrors, match=r"\$\{component\}"):
        bound("", variables=Variables("/c[1]", "/d", "/t"))


def test_defaults_can_not_multiply_without_end() -> None:
    """Defaults that double each other end in a problem, not in gigabytes."""
    lines = [f'p{n} = {{ type = "string", default = "${{param.p{n + 1}}}${{param.p{n + 1}}}" }}' for n in range(60)]
    assert "at most" in refused(
        "[parameters]\n" + "\n".join(lines) + '\np60 = { type = "string", default = "xx" }\n', {}
    )


def test_stand_ins_make_any_manifest_bindable() -> None:
    """Values of the right type stand in for what nobody has set yet, so that a manifest can be shown."""
    text = """[parameters]
d = { type = "directory" }
f = { type = "file" }
s = { type = "string" }
i = { type = "integer", minimum = 5 }
b = { type = "boolean" }
c = { type = "choice", choices = ["x", "y"] }
k = { type = "string", default = "kept" }
[capabilities.filesystem]
read = ["${param.d}/**", "${param.f}", "/a/${param.s}/${param.c}"]
[capabilities.network]
connect = ["${param.s}:${param.i}", "http://${param.s}/"]
"""
    manifest = parse_manifest((HEAD + text).encode(), file="Component.toml", directory="/c")
    values = stand_ins(manifest, {"b": True})
    assert values == {"d": "/<d>", "f": "/<f>", "s": "1", "i": 5, "c": "x"}
    assert len(bind(manifest, {**values, "b": True}, VARIABLES).grants) == 5
