"""Two manifests side by side: what the new one could do more, what less, what else is different. Pure.

Wider is whatever wasn't proven to be covered: each capability by the policy core (`ipc.policy.inclusion`), each limit
by its number; a new environment variable, secret, mount or import counts, and so does another name, for the host's
rules go by the name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ipc.policy.capability import Grant
from ipc.policy.inclusion import Coverage
from ipc.struct import Struct
from supervisor.config import units
from supervisor.config.host_policy import ResolvedQuota
from supervisor.manifest import Manifest, Parameter, Request
from supervisor.manifest.asks import metadata_words
from supervisor.manifest.terms import Terms
from supervisor.run.request import DEFAULT_OUTPUT_BYTES


class Version(Struct, frozen=True):
    """One of the two: its manifest, its quota on this host, and of its program the hash and imports, if known."""

    manifest: Manifest
    quota: ResolvedQuota
    wasm_sha256: str | None = None
    imports: tuple[str, ...] | None = None


class Change(Struct, frozen=True):
    """One difference; `old` and `new` are None where there is nothing. `request` is a capability's, for its words."""

    kind: str
    what: str
    old: str | None
    new: str | None
    line: int = 0
    request: Request | None = None


class ManifestDiff(Struct, frozen=True):
    """All differences, and what the same is."""

    wider: tuple[Change, ...]
    narrower: tuple[Change, ...]
    changed: tuple[Change, ...]
    same: tuple[Change, ...]

    @property
    def verdict(self) -> str:
        """`wider`, `narrower`, `changed` (only in what gives nothing) or `same`."""
        return "wider" if self.wider else "narrower" if self.narrower else "changed" if self.changed else "same"


def compare(old: Version, new: Version) -> ManifestDiff:
    """Compare two versions of a component."""
    found = _Found()
    if old.manifest.component.name != new.manifest.component.name:
        found.wider.append(Change("name", "name", old.manifest.component.name, new.manifest.component.name))
    terms = (Terms(old.manifest), Terms(new.manifest))
    _compare_capabilities(found, old.manifest, new.manifest, terms)
    _compare_limits(found, old, new)
    environments = [dict(side.manifest.component.env) for side in (old, new)]
    _compare_texts(found, "env", environments[0], environments[1], terms)
    mounts = [{mount.guest: mount.host for mount in side.manifest.component.mounts} for side in (old, new)]
    _compare_texts(found, "mount", mounts[0], mounts[1], terms)
    _compare_imports(found, old.imports, new.imports)
    _compare_the_rest(found, old, new, terms)
    return ManifestDiff(tuple(found.wider), tuple(found.narrower), tuple(found.changed), tuple(found.same))


class _Found:
    def __init__(self) -> None:
        self.wider: list[Change] = []
        self.narrower: list[Change] = []
        self.changed: list[Change] = []
        self.same: list[Change] = []


def _compare_capabilities(found: _Found, old: Manifest, new: Manifest, terms: tuple[Terms, Terms]) -> None:
    before = [(request, terms[0].grant(request)) for request in old.requests()]
    after = [(request, terms[1].grant(request)) for request in new.requests()]
    old_coverage = Coverage(grant for _, grant in before)
    new_coverage = Coverage(grant for _, grant in after)
    had = {_term(grant): request for request, grant in before}
    old_told, new_told = ({_told(grant) for _, grant in side} for side in (before, after))
    for request, grant in after:
        shown, line = _shown(request), request.line
        if not old_coverage.covers(grant) or _told(grant) not in old_told:
            found.wider.append(Change("capability", request.action, None, shown, line, request))
            continue
        twin = had.get(_term(grant))
        found.same.append(
            Change("capability", request.action, None if twin is None else _shown(twin), shown, line, request)
        )
        if twin is not None and twin.required != request.required:
            words = {True: "required", False: "optional"}
            what = f"{request.action} {shown}"
            found.changed.append(Change("capability", what, words[twin.required], words[request.required], line))
    for request, grant in before:
        if not new_coverage.covers(grant) or _told(grant) not in new_told:
            found.narrower.append(Change("capability", request.action, _shown(request), None, request.line, request))


def _told(grant: Grant) -> tuple[str, frozenset[str]]:
    """Return what a provider is told of it, if there is one: what it makes of that, also of nothing, is its own."""
    return grant.action if grant.action.startswith("custom.") else "", frozenset(metadata_words(grant.metadata))


def _term(grant: Grant) -> tuple[str, str, tuple[str, ...]]:
    return grant.action, grant.pattern_text, tuple(sorted(grant.methods))


def _shown(request: Request) -> str:
    return " ".join([request.resource, *request.methods, *metadata_words(request.metadata)])


def _compare_limits(found: _Found, old: Version, new: Version) -> None:
    forms: dict[str, Callable[[int], str]] = {
        "storage_bytes": units.format_size,
        "message_rate_per_s": units.format_rate,
        "network_bandwidth_bytes_per_s": units.format_bandwidth,
        "cpu_time_ns_per_s": units.format_cpu,
        "memory_bytes": units.format_size,
    }
    names = ("storage", "message_rate", "network_bandwidth", "cpu_time", "memory")
    for name, (field, form) in zip(names, forms.items(), strict=True):
        _compare_amounts(found, f"quota.{name}", getattr(old.quota, field), getattr(new.quota, field), form)
    was, now = old.manifest.limits, new.manifest.limits
    duration = units.format_duration
    _compare_amounts(found, "limits.timeout", was.timeout_ns, now.timeout_ns, duration)
    _compare_amounts(found, "limits.fuel", was.fuel, now.fuel, str)
    outputs = [DEFAULT_OUTPUT_BYTES if side.output_bytes is None else side.output_bytes for side in (was, now)]
    _compare_amounts(found, "limits.output", outputs[0], outputs[1], units.format_size)
    _compare_amounts(found, "limits.max_payload", was.max_payload_bytes, now.max_payload_bytes, units.format_size)


def _compare_amounts(found: _Found, name: str, old: int | None, new: int | None, form: Callable[[int], str]) -> None:
    """Compare two limits; None is no limit at all."""
    if old == new:
        return
    shown = [None if amount is None else form(amount) for amount in (old, new)]
    rose = new is None or (old is not None and new > old)
    (found.wider if rose else found.narrower).append(Change("limit", name, shown[0], shown[1]))


def _compare_texts(
    found: _Found, kind: str, old: Mapping[str, str], new: Mapping[str, str], terms: tuple[Terms, Terms]
) -> None:
    """Compare names with values: a new one and another value are wider, one that is gone is narrower."""
    for name, value in new.items():
        if name not in old or terms[0].text(old[name]) != terms[1].text(value):
            found.wider.append(Change(kind, name, old.get(name), value))
    for name in old:
        if name not in new:
            found.narrower.append(Change(kind, name, old[name], None))


def _compare_imports(found: _Found, old: Sequence[str] | None, new: Sequence[str] | None) -> None:
    if old is None or new is None:
        return
    found.wider += [Change("import", name, None, name) for name in sorted(set(new) - set(old))]
    found.narrower += [Change("import", name, name, None) for name in sorted(set(old) - set(new))]


def _compare_the_rest(found: _Found, old: Version, new: Version, terms: tuple[Terms, Terms]) -> None:
    """What gives the component nothing by itself, but may be worth a look."""
    was, now = old.manifest, new.manifest
    pairs: list[tuple[str, object, object]] = [
        ("version", was.component.version, now.component.version),
        ("description", was.component.description, now.component.description),
        ("args", [terms[0].text(text) for text in was.component.args], [terms[1].text(t) for t in now.component.args]),
        ("restart", was.supervision.restart, now.supervision.restart),
        ("shutdown", was.supervision.shutdown_ns, now.supervision.shutdown_ns),
        ("depends_on", sorted(was.supervision.depends_on), sorted(now.supervision.depends_on)),
    ]
    if old.wasm_sha256 is not None and new.wasm_sha256 is not None:
        pairs.append(("program", old.wasm_sha256, new.wasm_sha256))
    written = {"args": (list(was.component.args), list(now.component.args))}
    for name, one, other in pairs:
        if one != other:
            before, after = written.get(name, (one, other))
            found.changed.append(Change("other", name, _text(before), _text(after)))
    parameters = [{each.name: each for each in side.parameters} for side in (was, now)]
    for name in sorted(parameters[0].keys() | parameters[1].keys()):
        one, other = (_parameter(side.get(name)) for side in parameters)
        if one != other:
            found.changed.append(Change("parameter", name, one, other))
    whys = (dict(was.rationale), dict(now.rationale))
    for action in sorted(whys[0].keys() | whys[1].keys()):
        if whys[0].get(action) != whys[1].get(action):
            found.changed.append(Change("rationale", action, whys[0].get(action), whys[1].get(action)))


def _parameter(parameter: Parameter | None) -> str | None:
    if parameter is None:
        return None
    default = "no default" if parameter.default is None else f"default {parameter.default!r}"
    bounds = [str(each) for each in (parameter.minimum, parameter.maximum) if each is not None]
    more = [", ".join(parameter.choices), " to ".join(bounds)]
    return "; ".join(part for part in (parameter.type, default, *more) if part)


def _text(value: object) -> str | None:
    if value is None or value == "" or value == []:
        return None
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
