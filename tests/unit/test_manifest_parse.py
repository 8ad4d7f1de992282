"""`Component.toml`: what is accepted, and how mistakes are reported."""

import os
from pathlib import Path

import pytest

from supervisor.manifest import (
    Manifest,
    ManifestErrors,
    Problem,
    load_manifest,
    not_enforced,
    parse_manifest,
    render_problems,
)

MINIMAL = """schema = 1
[component]
name = "tool"
version = "1.0.0"
wasm = "tool.wasm"
"""


def parse(text: str) -> Manifest:
    """Parse a manifest text."""
    return parse_manifest(text.encode(), file="Component.toml", directory="/c")


def problems_of(text: str) -> tuple[Problem, ...]:
    """Return the problems of a manifest that has some."""
    with pytest.raises(ManifestErrors) as caught:
        parse(text)
    return caught.value.problems


def test_the_smallest_manifest_asks_for_nothing() -> None:
    """Name, version and wasm are enough, and nothing is asked for by default."""
    manifest = parse(MINIMAL)
    assert list(manifest.requests()) == []
    assert manifest.wasm_path == "/c/tool.wasm"
    assert not_enforced(manifest) == ()


def test_every_section_is_read() -> None:
    """Each section of the reference page ends up in the value that stands for it."""
    manifest = parse(
        MINIMAL
        + """args = ["--level", "--level"]
env = { TZ = "UTC" }
[parameters]
logs = { type = "directory", description = "application logs" }
depth = { type = "integer", default = 3, minimum = 1, maximum = 9 }
fast = { type = "boolean", default = true }
mode = { type = "choice", choices = ["a", "b"], default = "a" }
[component.mounts]
"/logs" = "${param.logs}"
"." = "${tmp}"
[capabilities.filesystem]
read = ["${param.logs}/**/*.log"]
[capabilities.network]
connect = ["https://api.example.com", { url = "http://inventory:8080/v1/**", methods = ["GET"] }]
listen = ["127.0.0.1:8080"]
[capabilities.storage]
read = ["summaries:*"]
[capabilities.messaging]
publish = ["summary.*"]
[capabilities.secrets]
env = ["API_TOKEN"]
[capabilities.custom.payment]
actions = ["refund"]
metadata = { region = "eu" }
[capabilities.optional.filesystem]
write = ["${data}/**"]
[capabilities.rationale]
"filesystem.read" = "the logs"
[quota]
memory = "128MB"
cpu_time = "500ms/s"
[limits]
timeout = "30s"
fuel = 10_000_000_000
output = "1MB"
[supervision]
restart = "transient"
shutdown = "5s"
depends_on = ["writer"]
"""
    )
    asked = [(each.action, each.resource, each.required) for each in manifest.requests()]
    assert asked == [
        ("filesystem.read", "${param.logs}/**/*.log", True),
        ("network.connect", "https://api.example.com", True),
        ("network.connect", "http://inventory:8080/v1/**", True),
        ("network.listen", "127.0.0.1:8080", True),
        ("storage.read", "summaries:*", True),
        ("messaging.publish", "summary.*", True),
        ("secrets.env", "API_TOKEN", True),
        ("custom.payment.refund", "**", True),
        ("filesystem.write", "${data}/**", False),
    ]
    assert manifest.capabilities.network.connect[1].methods == ("GET",)
    assert manifest.component.args == ("--level", "--level")
    assert [(mount.guest, mount.host) for mount in manifest.component.mounts] == [
        ("/logs", "${param.logs}"),
        (".", "${tmp}"),
    ]
    assert [parameter.default for parameter in manifest.parameters] == [None, 3, True, "a"]
    assert (manifest.quota.memory_bytes, manifest.limits.fuel, manifest.limits.output_bytes) == (
        128_000_000,
        10**10,
        10**6,
    )
    assert manifest.supervision.depends_on == ("writer",)


def test_what_this_version_does_not_enforce_is_named() -> None:
    """Each key that is written and not enforced is named once; the enforced ones are not."""
    manifest = parse(
        MINIMAL
        + """[capabilities.filesystem]
read = ["/in/**"]
[capabilities.network]
connect = ["a.example:1", "b.example:1"]
[capabilities.secrets]
env = ["TOKEN"]
[capabilities.optional.storage]
read = ["k:*"]
[quota]
memory = "1MB"
cpu_time = "1ms/s"
[limits]
timeout = "1s"
max_payload = "1MB"
[supervision]
restart = "permanent"
"""
    )
    assert not_enforced(manifest) == (
        "capabilities.network.connect",
        "capabilities.optional.storage.read",
        "limits.max_payload",
        "supervision.restart",
    )


@pytest.mark.parametrize(
    ("addition", "line", "key", "expected"),
    [
        ("nam = 1", 6, "component.nam", '"name", "version"'),
        ('args = "x"', 6, "component.args", "an array of strings"),
        ("args = [1]", 6, "component.args[0]", "a string"),
        ('env = { "A=B" = "x" }', 6, 'component.env."A=B"', "the name of an environment variable"),
        ('[component.mounts]\n"rel" = "/x"', 7, "component.mounts.rel", 'or "."'),
        ('[component.mounts]\n"/a/../b" = "/x"', 7, 'component.mounts."/a/../b"', "without . and .."),
        ('[component.mounts]\n"/a" = "x"', 7, 'component.mounts."/a"', "an absolute path"),
        ('[parameters]\np = { type = "dir" }', 7, "parameters.p.type", '"directory"'),
        ('[parameters]\np = { type = "choice" }', 7, "parameters.p.choices", "the choices"),
        ('[parameters]\np = { type = "integer", default = "1" }', 7, "parameters.p.default", "an integer"),
        ('[parameters]\np = { type = "directory", default = "x" }', 7, "parameters.p.default", "an absolute path"),
        ('[parameters]\np = { type = "string", default = "${param.q}" }', 7, "parameters.p.default", "declared: p"),
        (
            '[capabilities.filesystem]\nread = ["in/**"]',
            7,
            "capabilities.filesystem.read[0]",
            "an absolute path pattern",
        ),
        (
            '[capabilities.filesystem]\nread = [\n  "/a",\n  "/b/[x",\n]',
            9,
            "capabilities.filesystem.read[1]",
            "never closed",
        ),
        ('[capabilities.filesystem]\nread = ["/a", "/a"]', 7, "capabilities.filesystem.read[1]", "each string once"),
        ('[capabilities.filesystem]\nread = ["/a/../b"]', 7, "capabilities.filesystem.read[0]", "may not be .."),
        (
            '[capabilities.filesystem]\nread = ["/a${tmp}"]',
            7,
            "capabilities.filesystem.read[0]",
            "at the beginning only",
        ),
        ('[capabilities.filesystem]\nread = ["${tmp}x"]', 7, "capabilities.filesystem.read[0]", '"/" after ${tmp}'),
        (
            '[capabilities.filesystem]\nread = ["${home}/x"]',
            7,
            "capabilities.filesystem.read[0]",
            "${component}, ${data}",
        ),
        ('[capabilities.filesystem]\nread = ["${tmp/x"]', 7, "capabilities.filesystem.read[0]", '"}" after "${"'),
        ('[capabilities.network]\nconnect = ["ftp://x"]', 7, "capabilities.network.connect[0]", "unknown scheme"),
        ('[capabilities.network]\nlisten = ["localhost:80"]', 7, "capabilities.network.listen[0]", "a numeric address"),
        (
            '[capabilities.network]\nconnect = [{ url = "x:1", methods = ["GET"] }]',
            7,
            "capabilities.network.connect[0].methods",
            "beside a URL",
        ),
        ('[capabilities.secrets]\nenv = ["A B"]', 7, "capabilities.secrets.env[0]", "an environment variable"),
        ('env = { T = "x" }\n[capabilities.secrets]\nenv = ["T"]', 6, "component.env.T", "a secret's too"),
        ("[capabilities.custom.x]\nactions = []", 7, "capabilities.custom.x.actions", "the actions"),
        (
            '[capabilities.rationale]\n"filesystem.read" = "x"',
            7,
            'capabilities.rationale."filesystem.read"',
            "asks for",
        ),
        ("[quota]\nmemory = 5", 7, "quota.memory", "a size"),
        ('[quota]\nmemory = "5/s"', 7, "quota.memory", "a size"),
        ('[limits]\ntimeout = "0s"', 7, "limits.timeout", "longer than zero"),
        ("[limits]\nfuel = 0", 7, "limits.fuel", "from 1 to"),
        ("[limits]\nfuel = true", 7, "limits.fuel", "from 1 to"),
        ('[limits]\noutput = "unlimited"', 7, "limits.output", "a finite amount"),
        ('[supervision]\nrestart = "always"', 7, "supervision.restart", '"permanent"'),
        ('[supervision]\ndepends_on = ["tool"]', 7, "supervision.depends_on", "without a cycle"),
        ("[extra]\nx = 1", 6, "extra", '"component"'),
    ],
)
def test_a_mistake_is_reported_with_its_line_key_and_what_was_expected(
    addition: str, line: int, key: str, expected: str
) -> None:
    """One mistake is one problem, at its line, under its key path, with what would have been right."""
    (problem,) = problems_of(MINIMAL + addition)
    assert (problem.file, problem.line, problem.key) == ("Component.toml", line, key)
    assert expected in problem.expected
    assert problem.got


@pytest.mark.parametrize(
    ("line", "replacement", "key"),
    [
        ("schema = 1", "schema = 2", "schema"),
        ("schema = 1", "schema = true", "schema"),
        ('name = "tool"', 'name = "Tool"', "component.name"),
        ('name = "tool"', 'name = "a\\u0000"', "component.name"),
        ('version = "1.0.0"', 'version = "1.0"', "component.version"),
        ('version = "1.0.0"', 'version = "01.0.0"', "component.version"),
        ('wasm = "tool.wasm"', 'wasm = "../tool.wasm"', "component.wasm"),
        ('wasm = "tool.wasm"', 'wasm = "/tool.wasm"', "component.wasm"),
        ('wasm = "tool.wasm"', 'wasm = "a//b"', "component.wasm"),
        ('wasm = "tool.wasm"', "", "component.wasm"),
    ],
)
def test_the_first_lines_are_checked(line: str, replacement: str, key: str) -> None:
    """Schema, name, version and wasm are each required and checked."""
    (problem,) = problems_of(MINIMAL.replace(line, replacement))
    assert problem.key == key


def test_several_mistakes_are_reported_together_in_the_order_of_lines() -> None:
    """A person sees all that is wrong at once."""
    problems = problems_of(
        MINIMAL.replace('"1.0.0"', '"x"') + '[capabilities.filesystem]\nraed = ["/x"]\nwrite = [1]\n'
    )
    assert [problem.key for problem in problems] == [
        "component.version",
        "capabilities.filesystem.raed",
        "capabilities.filesystem.write[0]",
    ]
    assert problems[1].hint == 'did you mean "read"?'
    assert render_problems(problems).splitlines()[2].strip() == 'did you mean "read"?'


def test_a_cycle_of_defaults_is_printed() -> None:
    """Defaults that refer to each other in a circle are refused, and the circle is shown."""
    text = """[parameters]
a = { type = "string", default = "${param.b}" }
b = { type = "string", default = "x${param.a}" }
"""
    (problem,) = problems_of(MINIMAL + text)
    assert problem.got == "a → b → a"


def test_defaults_that_share_a_parameter_are_no_cycle() -> None:
    """A diamond of references is fine, and checked in time linear in their number."""
    lines = [f'p{n} = {{ type = "string", default = "${{param.p{n + 1}}}${{param.p{n + 1}}}" }}' for n in range(63)]
    manifest = parse(MINIMAL + "[parameters]\n" + "\n".join(lines) + '\np63 = { type = "string", default = "x" }\n')
    assert len(manifest.parameters) == 64


@pytest.mark.parametrize(
    ("data", "line", "has_column", "got"),
    [
        (b"schema = [1", 1, False, "syntax error"),
        (b'schema = 1\nx = "\\q"\n', 2, True, "syntax error"),
        (b"schema = 1\nschema = 1\n", 2, True, "overwrite"),
        (b"a = " + b"9" * 5000, 0, False, "integer string conversion"),
        (b"a = 2020-13-45\n", 1, True, "syntax error"),
        (b"a = " + b"[" * 50_000, 0, False, "hundreds of levels"),
        (b"x = 1\n\xff", 2, False, "0xff"),
        (b"a." * 3000 + b"b = 1", 1, False, "longer"),
        (b"x = { " + b'"a" . ' * 40_000 + b"b = 1 }", 1, False, "longer"),
        (b"#" * (256 * 1024 + 1), 0, False, "bytes"),
    ],
)
def test_what_is_no_toml_is_refused_with_its_place(data: bytes, line: int, has_column: bool, got: str) -> None:
    """Syntax errors carry line and column; hostile nesting, numbers and sizes end in an ordinary problem."""
    with pytest.raises(ManifestErrors) as caught:
        parse_manifest(data, file="Component.toml", directory="/c")
    (problem,) = caught.value.problems
    assert (problem.line, problem.column > 0) == (line, has_column)
    assert got in problem.got


def test_messages_hold_no_control_characters() -> None:
    """What a manifest says can't draw on the terminal of who reads its errors."""
    (problem,) = problems_of(MINIMAL + '[capabilities.filesystem]\nread = ["x\\u001b[2J\\u202e\\u3164"]')
    shown = render_problems((problem,))
    assert shown.isprintable()
    assert "\u3164" not in shown


def test_a_manifest_has_at_most_64_parameters() -> None:
    """A chain of thousands of defaults is refused before anything follows it."""
    lines = [f'p{n} = {{ type = "string", default = "${{param.p{n + 1}}}" }}' for n in range(2000)]
    problems = problems_of(
        MINIMAL + "[parameters]\n" + "\n".join(lines) + '\np2000 = { type = "string", default = "x" }\n'
    )
    assert [(problem.key, problem.got) for problem in problems] == [("parameters", "2,001")]


def write_component(directory: Path, text: str = MINIMAL) -> Path:
    """Write a manifest and the wasm file that it names."""
    (directory / "Component.toml").write_text(text)
    (directory / "tool.wasm").write_bytes(b"\0asm")
    return directory


def test_a_directory_is_loaded_with_its_real_path(tmp_path: Path) -> None:
    """The directory of a manifest is its real one, also where a symbolic link was named."""
    real = tmp_path / "real"
    real.mkdir()
    write_component(real)
    (tmp_path / "link").symlink_to(real)
    assert load_manifest(str(tmp_path / "link")).directory == str(real)


def test_a_wasm_file_outside_the_directory_is_refused(tmp_path: Path) -> None:
    """A symbolic link out of the component's directory is refused, one within it is not."""
    (tmp_path / "outside.wasm").write_bytes(b"\0asm")
    component = tmp_path / "component"
    component.mkdir()
    write_component(component)
    (component / "tool.wasm").rename(component / "inside.wasm")
    (component / "tool.wasm").symlink_to("inside.wasm")
    assert load_manifest(str(component)).component.name == "tool"
    (component / "tool.wasm").unlink()
    (component / "tool.wasm").symlink_to("../outside.wasm")
    with pytest.raises(ManifestErrors, match="a symbolic link to"):
        load_manifest(str(component))


def test_a_wasm_file_that_is_missing_or_no_file_is_named(tmp_path: Path) -> None:
    """A missing wasm file, and a directory in its place, are reported under component.wasm."""
    write_component(tmp_path)
    (tmp_path / "tool.wasm").unlink()
    with pytest.raises(ManifestErrors, match=r"component\.wasm.*no file"):
        load_manifest(str(tmp_path))
    (tmp_path / "tool.wasm").mkdir()
    with pytest.raises(ManifestErrors, match="no regular file"):
        load_manifest(str(tmp_path))


def test_a_manifest_that_is_no_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    """A FIFO in the manifest's place is refused at once, a missing one is named."""
    with pytest.raises(ManifestErrors, match="no such file"):
        load_manifest(str(tmp_path))
    os.mkfifo(tmp_path / "Component.toml")
    with pytest.raises(ManifestErrors, match="a FIFO"):
        load_manifest(str(tmp_path))
