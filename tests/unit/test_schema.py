"""The JSON Schemas: made of the readers themselves, right about the shipped manifests, and no key is undocumented."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.cli.schema import world_text
from supervisor.config.schema import component_schema, host_schema
from supervisor.config.settings import HostDirectories, Settings, SettingsError
from supervisor.config.settings_reader import read_settings
from supervisor.config.settings_view import effective_settings
from supervisor.config.toml_source import parse_toml
from supervisor.manifest import ManifestErrors, parse_manifest

ROOT = Path(__file__).resolve().parents[2]
Schema = dict[str, object]
MANIFESTS = sorted(ROOT.glob("examples/*/Component.toml"))
WHOLE = """schema = 1
[component]
name = "tool"
version = "1.0.0"
wasm = "tool.wasm"
args = ["-v", "-v"]
env = { TZ = "UTC" }
[parameters]
in = { type = "directory", default = "/srv" }
level = { type = "choice", choices = ["a", "b"], default = "a" }
count = { type = "integer", minimum = 1, maximum = 3, default = 2 }
[component.mounts]
"/in" = "${param.in}"
[capabilities.filesystem]
read = ["${param.in}/**"]
[capabilities.network]
connect = ["https://a.example", { url = "https://b.example", methods = ["GET"] }]
[capabilities.custom.pay]
actions = ["refund"]
metadata = { region = "eu", n = 1 }
[capabilities.optional.secrets]
env = ["TOKEN"]
[capabilities.rationale]
"filesystem.read" = "why"
[quota]
memory = "1MB"
[limits]
fuel = 7
[supervision]
restart = "transient"
depends_on = ["other"]
"""
HOST = """schema = 1
[host]
name = "web-1"
state = "/s"
[confinement]
require = ["seccomp"]
[control]
viewers = ["@ops"]
[audit]
keep = "90d"
[quota.maxima]
memory = "1GB"
[[acl]]
effect = "deny"
who = "*"
action = "filesystem.read"
resource = "/srv/**"
[[trust.sources]]
git = "https://x/*"
branch = "main"
[[trust.sources]]
signing_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBog0BgK8OeQlo29bEgWXHvOD06Z7Lhci9DshhmUyaEx"
identity = "alice"
valid_after = "2026-01-01"
valid_before = "2027-01-01"
revoked = false
[[trust.sources]]
local = "/srv/components/*"
[[trust.sources]]
oci = "registry.example.com/x/*"
[approvals]
notify = "/usr/local/bin/tell"
[[approvals.signers]]
key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBog0BgK8OeQlo29bEgWXHvOD06Z7Lhci9DshhmUyaEx"
identity = "alice"
uid = 1001
valid_after = "2026-01-01"
valid_before = "2027-01-01"
revoked = false
[[approvals.automatic]]
change = "same-or-narrower"
signer = "alice"
[[approvals.rules]]
when = ["network.connect"]
approvers = 2
broad = true
over = { memory = "1MB", storage = "1MB", message_rate = "1/s", network_bandwidth = "1MB/s", cpu_time = "1ms/s" }
review = "1h"
expires = "7d"
[roles.r]
permissions = ["filesystem.read:/a"]
[dev.components]
tool = "/srv/tool"
[components."tool@a"]
roles = ["r"]
parameters = { in = "/srv", n = 1 }
secrets = { TOKEN = { file = "/t" }, KEY = { credential = "k" } }
quota = { memory = "1MB", storage = "1MB", message_rate = "1/s", network_bandwidth = "1MB/s", cpu_time = "1ms/s" }
[storage.shared.prices]
components = ["feed"]
quota = "10MB"
[providers.sql]
capabilities = ["customers"]
python = "sql_provider:Sql"
path = "/srv/programs"
timeout = "1s"
settings = { database = "/srv/a.db", actions = { read = "select 1" }, writes = ["x"] }
[providers.rates]
command = ["/usr/bin/rates", "--eu"]
max_payload = "1kB"
memory = "64MB"
parallel = 2
env = { TZ = "UTC" }
"""


def problems(value: object, schema: Schema, at: str = "") -> list[str]:
    """What is wrong with a value by the part of draft 2020-12 that these schemas use; an unknown keyword fails."""
    unknown = set(schema) - {
        *("$schema", "title", "description", "default", "type", "properties", "required", "additionalProperties"),
        *("propertyNames", "items", "uniqueItems", "minItems", "enum", "const", "anyOf", "pattern", "maxLength"),
        *("minimum", "maximum"),
    }
    assert not unknown
    found = []
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
    wanted = schema.get("type", [])
    types = [wanted] if isinstance(wanted, str) else wanted
    if types and not any(type(value) is kinds[name] for name in types):
        return [f"{at}: not of type {types}"]
    if "const" in schema and (value != schema["const"] or isinstance(value, bool)):
        found.append(f"{at}: not {schema['const']}")
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{at}: none of {schema['enum']}")
    if "anyOf" in schema and all(problems(value, each, at) for each in schema["anyOf"]):
        found.append(f"{at}: none of several")
    if isinstance(value, str):
        if "pattern" in schema and not re.search(schema["pattern"], value):
            found.append(f"{at}: doesn't match")
        if len(value) > schema.get("maxLength", len(value)):
            found.append(f"{at}: too long")
    if type(value) is int and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        found.append(f"{at}: out of bounds")
    if isinstance(value, list):
        if len(value) < schema.get("minItems", 0) or (schema.get("uniqueItems") and len(set(value)) < len(value)):
            found.append(f"{at}: too few, or twice")
        for index, each in enumerate(value):
            found += problems(each, schema.get("items", {}), f"{at}[{index}]")
    if isinstance(value, dict):
        properties, others = schema.get("properties", {}), schema.get("additionalProperties", {})
        found += [f"{at}: lacks {key}" for key in schema.get("required", []) if key not in value]
        for key, each in value.items():
            if key not in properties and others is False:
                found.append(f"{at}: unknown key {key}")
            found += problems(each, properties.get(key, others or {}), f"{at}.{key}")
            found += problems(key, schema.get("propertyNames", {}), f"{at} {key}")
    return found


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.parent.name)
def test_the_shipped_manifests_are_valid(path: Path) -> None:
    """Each example is right by the schema."""
    assert problems(tomllib.loads(path.read_text()), component_schema()) == []


def test_whole_documents_are_valid_by_reader_and_schema() -> None:
    """What uses every section is right for the readers, and for the schemas."""
    parse_manifest(WHOLE.encode(), file="Component.toml", directory="/c")
    assert problems(tomllib.loads(WHOLE), component_schema()) == []
    _read_host(HOST)
    assert problems(tomllib.loads(HOST), host_schema()) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("schema = 1", ""),
        ("schema = 1", "schema = 2"),
        ("schema = 1", "schema = true"),
        ('name = "tool"', ""),
        ('name = "tool"', 'name = "Tool"'),
        ('version = "1.0.0"', 'version = "1"'),
        ('version = "1.0.0"', "version = 1"),
        ('args = ["-v", "-v"]', 'args = "-v"'),
        ('TZ = "UTC"', "TZ = 1"),
        ('TZ = "UTC"', '"T Z" = "UTC"'),
        ('type = "directory"', 'type = "folder"'),
        ('type = "directory", ', ""),
        ("read = [", "raed = ["),
        ('read = ["${param.in}/**"]', 'read = ["/a", "/a"]'),
        ('methods = ["GET"]', 'methods = ["get"]'),
        ('url = "https://b.example", ', ""),
        ('actions = ["refund"]', "actions = []"),
        ('actions = ["refund"]', ""),
        ("n = 1", "n = 1.5"),
        ('memory = "1MB"', "memory = 1"),
        ("fuel = 7", "fuel = 0"),
        ('restart = "transient"', 'restart = "never"'),
        ("[supervision]", "[super]"),
        ('"filesystem.read" = "why"', '"filesystem.read" = 1'),
    ],
)
def test_what_the_reader_refuses_the_schema_refuses(old: str, new: str) -> None:
    """Wrong types, unknown keys, missing ones, wrong words and forms: both say no, to manifests."""
    assert old in WHOLE
    text = WHOLE.replace(old, new, 1)
    with pytest.raises(ManifestErrors):
        parse_manifest(text.encode(), file="Component.toml", directory="/c")
    assert problems(tomllib.loads(text), component_schema()) != []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("schema = 1", ""),
        ('state = "/s"', "state = 1"),
        ('state = "/s"', 'stat = "/s"'),
        ('effect = "deny"', 'effect = "forbid"'),
        ('effect = "deny"\n', ""),
        ('who = "*"\n', ""),
        ("approvers = 2", "approvers = 0"),
        ('when = ["network.connect"]\n', ""),
        ("[[acl]]", "[acl]"),
        ('roles = ["r"]', 'roles = "r"'),
        ("n = 1", "n = []"),
        ('file = "/t"', 'value = "secret"'),
        ("parallel = 2", "parallel = 17"),
        ("settings = {", "settings = 1 # {"),
        ('path = "/srv/programs"', "place = 1"),
        ('git = "https://x/*"', "git = 3"),
        ("revoked = false", 'revoked = "no"'),
        ('local = "/srv', 'locale = "/srv'),
    ],
)
def test_what_the_host_reader_refuses_the_schema_refuses(old: str, new: str) -> None:
    """The same for settings."""
    assert old in HOST
    text = HOST.replace(old, new, 1)
    with pytest.raises(SettingsError):
        _read_host(text)
    assert problems(tomllib.loads(text), host_schema()) != []


def _read_host(text: str) -> Settings:
    return read_settings([parse_toml(text.encode(), "airssys.toml")], HostDirectories("/s", "/d", "/r", "/l"))


def keys_of(schema: Schema, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every key that is no table of fixed keys, with NAME for what the author names."""
    if schema.get("type") == "array" and isinstance(items := schema["items"], dict):
        for each in [items, *items.get("anyOf", [])]:
            if each.get("type") == "object":
                yield from keys_of(each, path)
    for key, inner in schema.get("properties", {}).items():
        if not (inner.get("properties") or _named_tables(inner) or inner.get("items", {}).get("properties")):
            yield (*path, key)
        yield from keys_of(inner, (*path, key))
    others = schema.get("additionalProperties")
    if isinstance(others, dict):
        yield from keys_of(others, (*path, "NAME"))


def _named_tables(schema: Schema) -> bool:
    others = schema.get("additionalProperties")
    return isinstance(others, dict) and bool(others.get("properties"))


def documented(page: str) -> dict[str, set[str]]:
    """Section of a reference page → every word in backticks there; sections are named as in their headings."""
    found: dict[str, set[str]] = {}
    names = [""]
    for line in page.splitlines():
        heading = re.match(r"##+ (.*)", line)
        if heading:
            title = heading[1].replace("Top level", "[]")
            names = [re.sub(r'[\[\]"]', "", name) for name in re.findall(r"\[[^,]*\]", title)] or [title]
        row = re.match(r"\| `\[+([^`\]]+)\]+`", line)
        for name in [row[1]] if row else names:
            found.setdefault(name, set()).update(re.findall(r"`([^`]*)`", line))
    return found


@pytest.mark.parametrize(
    ("page", "schema"), [("component-toml.md", component_schema), ("airssys-toml.md", host_schema)]
)
def test_every_key_is_on_its_reference_page(page: str, schema) -> None:
    """Each key of the schema is named in the section where it stands: what is written nowhere can't be used."""
    sections = documented((ROOT / "docs/reference" / page).read_text())
    missing = []
    for path in keys_of(schema()):
        if path[:2] == ("capabilities", "optional"):
            continue  # as capabilities, the page says
        if ".".join(path) in sections:
            continue
        places = [".".join(path[:length]) for length in range(len(path), -1, -1)]
        # In the text of the section of its table, or of one around it (`{ url = …, methods = … }`).
        if path[-2:-1] == ("quota",):
            places.insert(0, "quota.defaults")  # where the keys of every quota are listed
        near = [sections[place] for place in places if place in sections][:2]
        words = " ".join(word for section in near for word in section)
        if not re.search(rf"\b{re.escape(path[-1])}\b", words) and path[-1] != "NAME":
            missing.append(".".join(path))
    assert missing == []


@pytest.mark.parametrize(
    ("page", "schema"), [("component-toml.md", component_schema), ("airssys-toml.md", host_schema)]
)
def test_no_page_names_a_key_that_is_not_there(page: str, schema) -> None:
    """Each key in a table of the page is one of the schema, in that section."""
    known = {part for path in keys_of(schema()) for part in path}
    text = (ROOT / "docs/reference" / page).read_text()
    tables = re.findall(r"^\| key \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert tables
    for table in tables:
        for row in table.splitlines():
            for name in re.findall(r"`([a-z_]+)`", row.split("|")[1]):
                assert name in known, row


def test_config_show_shows_every_key() -> None:
    """What can be written in airssys.toml is among what `airssys config show` shows."""

    def general(path: tuple[str | int, ...]) -> tuple[str, ...]:
        named = [str(part) for part in path if isinstance(part, str)]
        if named[:2] == ["storage", "shared"]:
            named[2] = "NAME"
        elif named[0] in ("roles", "components", "providers"):
            named[1] = "NAME"
        if named[2:3] == ["secrets"]:
            named[3] = "NAME"
        if named[0] == "dev":
            named[2:] = []
        return tuple(named[:3] if named[2:3] in (["parameters"], ["settings"], ["env"]) else named)

    shown = {general(each.path) for each in effective_settings(_read_host(HOST), {}, 0, None)}
    assert set(keys_of(host_schema())) - shown == {("schema",)}


def test_the_schemas_name_their_dialect() -> None:
    """An editor finds the draft, the title, and nothing that is left open by mistake."""
    for schema in (component_schema(), host_schema()):
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert schema["additionalProperties"] is False
        assert "schema" in schema["required"]


def test_what_an_actor_is_built_against_is_printed_and_installed() -> None:
    """Byte for byte what is in `wit`, and a wheel carries it to where it is looked for."""
    for name in ("airssys-core.wit", "c/actor.h"):
        assert world_text(name) == (ROOT / "wit" / name).read_text(encoding="utf-8")
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"] == {"wit": "supervisor/wit"}
