"""What a manifest asks for in words, how dangerous it is, and what is found wrong with it."""

import pytest

from ipc.policy.decision import compile_policy
from ipc.policy.forbidden import ForbiddenPaths
from supervisor.cli.show import grouped
from supervisor.config.host_policy import component_parameters, policy_document, resolve_quota
from supervisor.config.settings import ComponentSettings, HostDirectories, Settings
from supervisor.config.settings_reader import read_settings
from supervisor.config.toml_source import parse_toml
from supervisor.fleet.provider_settings import ProviderSettings
from supervisor.manifest import Manifest, ParameterValue, Variables, bind, parse_manifest, stand_ins
from supervisor.manifest.asks import Ask, Danger, describe_asks, describe_limits
from supervisor.manifest.findings import Finding, find_problems, uncovered_imports, unserved_capabilities

HEAD = 'schema = 1\n[component]\nname = "tool"\nversion = "1.0.0"\nwasm = "tool.wasm"\n'
VARIABLES = Variables("/srv/tool", "/srv/data/tool", "/<tmp>")
FORBIDDEN = ForbiddenPaths(("/var/lib/airssys",), ("/usr/local/bin",))
DIRECTORIES = HostDirectories("/var/lib/airssys", "/srv/data", "/run/airssys", "/var/log/airssys")


def parse(text: str) -> Manifest:
    """Parse a manifest that begins with the usual lines."""
    return parse_manifest((HEAD + text).encode(), file="Component.toml", directory="/srv/tool")


def asks_of(text: str, values: dict[str, ParameterValue] | None = None) -> tuple[Ask, ...]:
    """Return what a manifest asks for."""
    manifest = parse(text)
    missing = stand_ins(manifest, values or {})
    return describe_asks(manifest, bind(manifest, {**missing, **(values or {})}, VARIABLES), tuple(missing))


def findings_of(text: str, host: ComponentSettings | None = None) -> tuple[Finding, ...]:
    """Return what is found wrong with a manifest."""
    manifest = parse(text)
    missing = stand_ins(manifest, {})
    bound = bind(manifest, missing, VARIABLES)
    return find_problems(manifest, bound, host or ComponentSettings("tool", ""), FORBIDDEN, tuple(missing))


def files(**verbs: str) -> str:
    """Write a filesystem section with one pattern a verb."""
    return "[capabilities.filesystem]\n" + "".join(f'{verb} = ["{pattern}"]\n' for verb, pattern in verbs.items())


@pytest.mark.parametrize(
    ("verb", "pattern", "danger"),
    [
        ("write", "/**", Danger.CRITICAL),
        ("read", "/**", Danger.CRITICAL),
        ("write", "/etc/app.conf", Danger.CRITICAL),
        ("write", "/home/me/", Danger.CRITICAL),
        ("write", "${component}/cache/**", Danger.CRITICAL),
        ("read", "/home/me/**", Danger.HIGH),
        ("read", "/home/*/x", Danger.HIGH),
        ("read", "/etc/**", Danger.HIGH),
        ("write", "/srv/out/**", Danger.HIGH),
        ("write", "/var/log/app/*.log", Danger.HIGH),
        ("read", "/etc/ssl/certs/ca.pem", Danger.MEDIUM),
        ("read", "/home/me/in/**", Danger.MEDIUM),
        ("read", "${component}/data/**", Danger.OWN),
        ("write", "${data}/**", Danger.OWN),
        ("write", "${tmp}/x", Danger.OWN),
    ],
)
def test_danger_of_files(verb: str, pattern: str, danger: Danger) -> None:
    """Writing outside its own data is worse than reading a home, and its own data is no danger."""
    (ask,) = asks_of(files(**{verb: pattern}))
    assert ask.danger is danger


def test_a_directory_beside_its_own_is_not_its_own() -> None:
    """A name that merely begins like the component's directory is not beneath it."""
    (ask,) = asks_of(files(read="/srv/tool-secrets/**"))
    assert ask.danger is Danger.MEDIUM


def test_the_most_dangerous_comes_first() -> None:
    """A reader sees the worst in the first line."""
    asks = asks_of(
        files(read="/home/me/**", write="/usr/lib/x", list="${data}/") + "[capabilities.storage]\nread = ['a:*']\n"
    )
    assert [ask.action for ask in asks] == ["filesystem.write", "filesystem.read", "storage.read", "filesystem.list"]


def test_what_has_no_value_yet_is_shown_as_written() -> None:
    """A parameter without a value keeps its name, one with a value shows the real path."""
    text = '[parameters]\nin = { type = "directory" }\n' + files(read="${param.in}/**")
    (ask,) = asks_of(text)
    assert ask.sentence == "read everything beneath ${param.in} (you name in with --set)"
    (ask,) = asks_of(text, {"in": "/home/me"})
    assert ask.sentence == "read everything beneath /home/me (a whole home directory)"


def test_other_capabilities_are_said_in_words() -> None:
    """Network, secrets, messages and custom actions each have their words, with reasons where the author gave them."""
    asks = asks_of(
        """[capabilities.network]
connect = ["**:443", { url = "http://a.example/v1/**", methods = ["GET", "HEAD"] }]
[capabilities.secrets]
env = ["TOKEN"]
[capabilities.custom.payment]
actions = ["refund"]
metadata = { region = "eu", most = 50 }
[capabilities.optional.messaging]
send = ["writer"]
[capabilities.rationale]
"secrets.env" = "to sign in"
"""
    )
    assert [(ask.danger, ask.sentence, ask.required, ask.rationale) for ask in asks] == [
        (Danger.CRITICAL, "connect to **:443", True, ""),
        (Danger.HIGH, "connect to http://a.example/v1/** with GET, HEAD", True, ""),
        (Danger.HIGH, "be given the secret TOKEN", True, "to sign in"),
        (Danger.MEDIUM, 'ask payment to "refund" with region = "eu", most = 50', True, ""),
        (Danger.MEDIUM, "send messages to writer", False, ""),
    ]


def test_a_key_of_metadata_looks_like_no_other_key_and_its_value() -> None:
    """Who says yes reads what the provider is told: a key that holds quotes and commas stands in quotes itself."""
    (ask,) = asks_of(
        """[capabilities.custom.payment]
actions = ["refund"]
metadata = { 'region = "eu", note' = "x", "" = true }
"""
    )
    assert ask.sentence == r"""ask payment to "refund" with "region = \"eu\", note" = "x", "" = true"""


def test_an_actors_parameters_are_used() -> None:
    """What it doesn't name in its manifest it is given at its start."""
    parameter = '[parameters]\np = { type = "string" }\n'
    assert not any(
        each.kind == "unused" for each in findings_of(parameter + "[capabilities.messaging]\nsend = ['a']\n")
    )


@pytest.mark.parametrize(
    ("text", "severity", "kind"),
    [
        (files(read="/**"), "error", "too_broad"),
        (files(list="/"), "error", "too_broad"),
        ("[capabilities.storage]\nread = ['*:*']\n", "error", "too_broad"),
        ("[capabilities.network]\nconnect = ['**:443']\n", "error", "too_broad"),
        (files(read="/home/me/.ssh/id_rsa"), "error", "forbidden"),
        (files(read="/etc/shadow"), "error", "forbidden"),
        (files(read="/home/*/.ssh/**"), "error", "forbidden"),
        ("[capabilities.optional.filesystem]\nread = ['/etc/shadow']\n", "warning", "forbidden"),
        ("[capabilities.optional.filesystem]\nread = ['/**']\n", "warning", "too_broad"),
        (files(read="/var/lib/airssys/audit/**"), "error", "forbidden"),
        (files(write="/usr/local/bin/x"), "error", "forbidden"),
        (files(read="/proc/cpuinfo"), "error", "guarded"),
        (files(read="/home/me/**"), "note", "forbidden"),
        (files(write="/srv/tool/**"), "warning", "own_program"),
        ('[component.mounts]\n"/x" = "/srv/x"\n', "warning", "unreached_mount"),
        ('[parameters]\np = { type = "string" }\n', "note", "unused"),
    ],
)
def test_what_is_found(text: str, severity: str, kind: str) -> None:
    """Each kind of finding appears where it should, at the line that is at fault."""
    found = [finding for finding in findings_of(text) if finding.kind == kind]
    assert [finding.severity for finding in found] == [severity]
    assert found[0].line > 5


@pytest.mark.parametrize(
    "text",
    [
        files(read="/srv/in/**", write="/srv/out/*.json", list="/srv/in/"),
        files(read="/usr/local/bin/x"),
        files(read="/srv/.sshd/x"),
        '[component.mounts]\n"/x" = "/srv/in"\n"." = "${tmp}"\n' + files(read="/srv/in/a/*.csv"),
        '[capabilities.filesystem]\nread = ["/a/*.json", "/a/?/", "/b/x", "/bb/**"]\n',
        '[capabilities.custom.x]\nactions = ["y"]\n',
    ],
)
def test_nothing_is_found_where_nothing_is_wrong(text: str) -> None:
    """An ordinary manifest gives no finding."""
    assert findings_of(text) == ()


@pytest.mark.parametrize(
    ("patterns", "covered"),
    [
        (["/a/**", "/a/b/*.json"], "/a/b/*.json"),
        (["/a/b", "/a/"], "/a/b"),
        (["/a/b/**", "/a/b/"], "/a/b/**"),
        (["/a/**", "/a/*/x/**"], "/a/*/x/**"),
    ],
)
def test_a_pattern_that_another_covers_is_named(patterns: list[str], covered: str) -> None:
    """A pattern that adds nothing is pointed out, and only that one."""
    quoted = ", ".join(f'"{pattern}"' for pattern in patterns)
    (finding,) = findings_of(f"[capabilities.filesystem]\nread = [{quoted}]\n")
    assert (finding.kind, finding.severity) == ("overlapping", "note")
    assert f'"{covered}" adds nothing' in finding.message


def test_a_host_can_allow_what_is_too_broad_by_name() -> None:
    """The very pattern has to be written in airssys.toml; then it is a warning."""
    allowed = ComponentSettings("tool", "", allow_broad=("filesystem.read:/**",))
    severities = [each.severity for each in findings_of(files(read="/**"), allowed) if each.kind == "too_broad"]
    assert severities == ["warning"]
    other = ComponentSettings("tool", "", allow_broad=("filesystem.write:/**", "filesystem.read:/"))
    severities = [each.severity for each in findings_of(files(read="/**"), other) if each.kind == "too_broad"]
    assert severities == ["error"]


def test_a_capability_that_nobody_serves_is_told_once() -> None:
    """Each call would be unavailable: a warning, as it can be started."""
    text = '[capabilities.custom.rates]\nactions = ["read", "write"]\n[capabilities.custom.taxes]\nactions = ["read"]\n'
    manifest = parse(text)
    rates = ProviderSettings("eu", ("rates",), "m:f")
    (finding,) = unserved_capabilities(manifest, (rates,))
    assert (finding.severity, finding.kind) == ("warning", "no_provider")
    assert finding.message == "no provider serves taxes on this host: each call will be unavailable"
    assert len(unserved_capabilities(manifest, ())) == 2


def test_imports_that_no_capability_covers_are_named() -> None:
    """Sockets without a network capability are one note a kind, unknown modules and versions are errors."""
    imports = (
        "wasi_snapshot_preview1.fd_read",
        "wasi:cli/environment@0.2.0",
        "wasi:sockets/tcp@0.2.0",
        "wasi:sockets/udp@0.2.0",
        "wasi:io/streams@0.1.0",
        "wasi_snapshot_preview1.sock_accept",
        "env.emscripten_run_script",
    )
    found = uncovered_imports(imports, parse(""))
    assert [(finding.severity, finding.kind) for finding in found] == [
        ("note", "uncovered_import"),
        ("error", "unknown_import"),
        ("note", "uncovered_import"),
        ("error", "unknown_import"),
    ]
    with_network = parse('[capabilities.network]\nconnect = ["a.example:1"]\n')
    assert [finding.kind for finding in uncovered_imports(imports, with_network)] == ["unknown_import"] * 2
    assert uncovered_imports(None, parse("")) == ()


def test_limits_are_said_as_they_are_written() -> None:
    """Each quota and limit that is written is one phrase."""
    manifest = parse('[quota]\nmemory = "128MB"\n[limits]\ntimeout = "30s"\nfuel = 1000\n')
    assert describe_limits(manifest) == ("memory 128MB", "timeout 30s", "fuel 1,000")


def settings_of(text: str) -> Settings:
    """Read host settings."""
    return read_settings([parse_toml(("schema = 1\n" + text).encode(), "airssys.toml")], DIRECTORIES)


def test_a_quota_is_over_the_defaults_and_under_the_maxima() -> None:
    """The host's word comes before the manifest's, that before the default; more than the maximum is refused."""
    manifest = parse('[quota]\nmemory = "128MB"\n')
    assert resolve_quota(parse(""), settings_of("")).quota.memory_bytes == 256 * 10**6
    assert resolve_quota(manifest, settings_of("")).quota.memory_bytes == 128 * 10**6
    own = settings_of('[components.tool.quota]\nmemory = "64MB"\n')
    assert resolve_quota(manifest, own).quota.memory_bytes == 64 * 10**6
    exceeding = resolve_quota(manifest, settings_of('[quota.maxima]\nmemory = "100MB"\n'))
    assert [(each.key, each.expected, each.got) for each in exceeding.refusals] == [
        ("quota.memory", "at most 100MB", "128MB")
    ]


@pytest.mark.parametrize("amount", ["0ms/s", "9ms/s"])
def test_less_cpu_time_than_any_component_needs_is_refused(amount: str) -> None:
    """It could neither start nor answer; ten milliseconds a second are enough, in a manifest or by the host's word."""
    few = resolve_quota(parse(f'[quota]\ncpu_time = "{amount}"\n'), settings_of(""))
    assert [(each.key, each.expected, each.got) for each in few.refusals] == [
        ("quota.cpu_time", "at least 10ms/s", amount)
    ]
    assert resolve_quota(parse('[quota]\ncpu_time = "10ms/s"\n'), settings_of("")).refusals == ()
    host = settings_of(f'[components.tool.quota]\ncpu_time = "{amount}"\n')
    assert [each.got for each in resolve_quota(parse(""), host).refusals] == [amount]


def test_only_a_host_grants_unlimited() -> None:
    """`unlimited` is refused unless the host's maximum is unlimited too."""
    manifest = parse('[quota]\nmemory = "unlimited"\n')
    assert [each.got for each in resolve_quota(manifest, settings_of("")).refusals] == ["unlimited"]
    assert resolve_quota(manifest, settings_of('[quota.maxima]\nmemory = "unlimited"\n')).refusals == ()


def test_the_policy_document_joins_manifest_and_host() -> None:
    """Grants, the host's rules, roles and forbidden paths end up in one document that compiles and decides."""
    settings = settings_of(
        """[[acl]]
effect = "deny"
who = "tool"
action = "filesystem.read"
resource = "/srv/in/private/**"
[roles.reader]
permissions = ["filesystem.*:/srv/**", "filesystem.*:/var/**"]
[components.tool]
roles = ["reader"]
parameters = { in = "/srv/in", other = "kept" }
"""
    )
    manifest = parse(
        '[parameters]\nin = { type = "directory" }\n' + files(read="${param.in}/**", write="/var/lib/airssys/x")
    )
    values = component_parameters(manifest, settings, {"other": "given"})
    assert values == {"in": "/srv/in", "other": "given"}
    bound = bind(manifest, {"in": values["in"]}, VARIABLES)
    document = policy_document(bound, settings, path_directories=("/bin",), home_directories=("/home/me",))
    assert (document.component, document.assigned_roles, document.path_directories) == ("tool", ("reader",), ("/bin",))
    assert set(document.host_paths) >= {"/var/lib/airssys", "/run/airssys", "/var/log/airssys", "airssys.toml"}
    policy = compile_policy(document)
    assert policy.decide("filesystem.read", "/srv/in/a").rule == 'grant filesystem.read "/srv/in/**" (Component.toml:9)'
    assert "acl deny tool" in policy.decide("filesystem.read", "/srv/in/private/a").rule
    assert "forbidden" in policy.decide("filesystem.write", "/var/lib/airssys/x").rule
    narrowed = policy_document(bound, settings, granted=())
    assert narrowed.grants == ()


def test_a_function_that_is_imported_twice_is_shown_once() -> None:
    """Go's linker makes one import for each package that uses a function; the reader needs one name."""
    names = ["wasi_snapshot_preview1.fd_write", "wasi_snapshot_preview1.fd_read", "wasi_snapshot_preview1.fd_write"]
    assert grouped([*names, "memory"]) == ["wasi_snapshot_preview1: fd_write, fd_read", "memory"]


def test_what_a_toolchain_always_imports_is_no_finding() -> None:
    """All of `wasi:sockets` says nothing of a program, and is told where everything is; a part of it was chosen."""
    whole = [
        f"wasi:sockets/{name}@0.2.9"
        for name in (
            *("network", "instance-network", "udp", "udp-create-socket", "tcp", "tcp-create-socket"),
            "ip-name-lookup",
        )
    ]
    assert uncovered_imports(whole, parse("")) == ()
    (told,) = uncovered_imports(whole, parse(""), habits=True)
    assert (told.severity, told.kind) == ("note", "uncovered_import")
    for missing in whole:
        assert len(uncovered_imports([name for name in whole if name != missing], parse(""))) == 1, missing
