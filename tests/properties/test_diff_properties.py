"""`airssys diff` on whole manifests: whatever parameters are worth, what only the new one may makes it wider."""

from __future__ import annotations

from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st

from ipc.policy.decision import PolicyDocument, compile_policy
from ipc.policy.patterns import Form, parse_pattern
from supervisor.config.host_policy import ResolvedQuota
from supervisor.manifest import Manifest, ManifestErrors, Variables, bind, parse_manifest
from supervisor.manifest.diff import Version, compare

QUOTA = ResolvedQuota(1, 1, 1, 1, 1)
HEAD = 'schema = 1\n[component]\nname = "tool"\nversion = "1.0.0"\nwasm = "tool.wasm"\n'
names = st.sampled_from(["a", "b", "ab"])
parts = st.sampled_from(["a", "b", "ab", "*", "**", "a*", "${param.name}", "x${param.name}"])
starts = st.sampled_from(["", "${param.dir}", "${param.dir}", "${component}", "/a", "/*", "/**"])
patterns = st.builds(
    lambda start, inner, end: start + "".join(f"/{part}" for part in inner) + end,
    starts,
    st.lists(parts, min_size=1, max_size=2),
    st.sampled_from(["", "/", "/**"]),
)
defaults = st.sampled_from([None, "/a", "/a", "/a/b", "${component}/a"])
name_defaults = st.sampled_from([None, "a", "a", "b"])
values = st.fixed_dictionaries(
    {}, optional={"dir": st.sampled_from(["/a", "/a/b", "/"]), "name": st.sampled_from(["a", "b", "a/b"])}
)


Spec = tuple[str, tuple[str, ...], object, object]
"""A verb, the patterns asked for, and the defaults of both parameters."""


def manifest_of(spec: Spec) -> Manifest:
    """The manifest that says so."""
    verb, texts, *both = spec
    lines = [HEAD, "[parameters]"]
    for (name, kind), default in zip((("dir", "directory"), ("name", "string")), both, strict=True):
        written = "" if default is None else f', default = "{default}"'
        lines.append(f'{name} = {{ type = "{kind}"{written} }}')
    lines.append(f"[capabilities.filesystem]\n{verb} = [" + ", ".join(f'"{text}"' for text in texts) + "]")
    return parse_manifest("\n".join(lines).encode(), file="Component.toml", directory="/c")


@st.composite
def versions(draw: st.DrawFn) -> tuple[Manifest, Manifest]:
    """Two manifests, the second one made of the first: a pattern narrowed, moved or added, a default changed."""
    verb = draw(st.sampled_from(["read", "write", "list"]))
    texts = draw(st.lists(patterns, min_size=1, max_size=2, unique=True))
    old: Spec = (verb, tuple(texts), draw(defaults), draw(name_defaults))
    text = draw(st.sampled_from(texts))
    narrowed = draw(st.sampled_from([text, text.rstrip("/") + "/a", text.replace("*", "a"), "${param.dir}/a"]))
    changed = draw(st.sampled_from([narrowed, narrowed, narrowed, draw(patterns)]))
    new: Spec = (
        verb,
        (changed,),
        draw(st.sampled_from([old[2], draw(defaults)])),
        draw(st.sampled_from([old[3], draw(name_defaults)])),
    )
    return manifest_of(old), manifest_of(new)


def matching_path(data: st.DataObject, text: str) -> str:
    """A path that the pattern covers, with names in place of its wildcards."""
    pattern = parse_pattern(text)
    segments: list[str] = []
    for token in pattern.tokens:
        if token is None:
            segments += data.draw(st.lists(names, max_size=2))
        else:
            segments.append(token if isinstance(token, str) else token.text.replace("*", "a"))
    if pattern.form is not Form.EXACT:
        segments += data.draw(st.lists(names, min_size=pattern.form is Form.BENEATH, max_size=2))
    return "/" + "/".join(segments)


@settings(max_examples=400, deadline=None)
@given(both=versions(), given_values=values, is_directory=st.booleans(), data=st.data())
def test_what_only_the_new_one_may_is_wider(
    both: tuple[Manifest, Manifest], given_values: dict[str, str], is_directory: bool, data: st.DataObject
) -> None:
    """Bound to any values (the host's, or each one's own defaults): a right of the new one alone makes it wider."""
    old, new = both
    if compare(Version(old, QUOTA), Version(new, QUOTA)).verdict == "wider":
        return
    policies = []
    for manifest in (old, new):
        # One that lacks a value doesn't start: it is compared as what it would be with one.
        assume(all(each.default is not None or each.name in given_values for each in manifest.parameters))
        try:
            grants = bind(manifest, given_values, Variables("/c", "/d", "/t")).grants
        except ManifestErrors:
            reject()  # a value makes a pattern of it that can't be read
        policies.append(compile_policy(PolicyDocument("tool", "", grants=grants)))
    path = matching_path(data, data.draw(st.sampled_from(grants)).pattern_text)
    for resource in (path, path.rpartition("/")[0] or "/"):
        assert policies[1].rights(resource, is_directory) <= policies[0].rights(resource, is_directory)
