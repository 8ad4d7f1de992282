"""Decisions: the order of the steps, which rule is named, rights, reach, listings, and renaming directories."""

import pytest

from ipc.codes import CODES
from ipc.errors import ConfigError, LocalProtocolError
from ipc.policy.access import AclEntry, Role
from ipc.policy.capability import Grant
from ipc.policy.decision import Allow, Deny, Policy, PolicyDocument, compile_policy
from ipc.struct import replace


def grant(text: str, **more: bool | tuple[str, ...]) -> Grant:
    """A grant from `ACTION PATTERN`."""
    action, pattern = text.split(" ", 1)
    made = Grant(action, pattern, "Component.toml")
    return replace(made, **more)  # type: ignore[arg-type]


def policy_of(*grants: str, **more: object) -> Policy:
    """The policy of a component named log@acme with these grants."""
    document = PolicyDocument("log", "acme", grants=tuple(grant(text) for text in grants))
    return compile_policy(replace(document, **more))  # type: ignore[arg-type]


def denied(policy: Policy, action: str, resource: str) -> Deny:
    """The denial, which must be one and have a known code."""
    decision = policy.decide(action, resource)
    assert isinstance(decision, Deny)
    assert decision.code in CODES
    assert decision.reason
    assert decision.rule
    return decision


def test_an_allowance_names_its_grant() -> None:
    """Whoever asks why it was allowed reads the grant and where it was written."""
    policy = policy_of("filesystem.read /in/**")
    assert policy.decide("filesystem.read", "/in/a") == Allow('grant filesystem.read "/in/**" (Component.toml)')


def test_nothing_is_allowed_by_default() -> None:
    """Without a grant of the kind the answer is A1201, and nothing comes near."""
    empty = policy_of()
    for action, resource in (
        ("filesystem.read", "/in/a"),
        ("filesystem.list", "/"),
        ("network.connect", "example.com:443"),
        ("storage.read", "a:b"),
        ("messaging.send", "x"),
        ("secrets.env", "TOKEN"),
        ("custom.pay.refund", "pay"),
        ("no.such", "x"),
    ):
        denial = denied(empty, action, resource)
        assert denial.code == "A1201"
        assert denial.nearest is None


def test_an_uncovered_resource_names_the_nearest_grant() -> None:
    """The grant that shares the longest beginning is named in the form that would have to be widened."""
    policy = policy_of("filesystem.read /home/me/in/**", "filesystem.read /srv/x", "filesystem.write /home/me/data/*")
    denial = denied(policy, "filesystem.read", "/home/me/data/x.csv")
    assert (denial.code, denial.nearest) == ("A1203", 'read "/home/me/in/**"')
    assert denied(policy, "filesystem.read", "/srv/y").nearest == 'read "/srv/x"'


def test_a_malformed_name_is_refused_before_anything_else() -> None:
    """A1207, whatever was granted."""
    policy = policy_of("filesystem.read /", "storage.read **", "network.connect **.example.com:*")
    for action, resource in (
        ("filesystem.read", "/a/../b"),
        ("filesystem.read", "a"),
        ("filesystem.list", "/a//b"),
        ("storage.read", "a::b"),
        ("network.connect", "example.com"),
        ("network.connect", "https://a.example.com/x/../y"),
    ):
        assert denied(policy, action, resource).code == "A1207"
    assert policy.rights("/a/../b") == frozenset()
    assert not policy.reaches("/a/../b")
    assert not policy.subtrees_alike("/a/..", "/b")


def test_optional_grants_count_once_granted() -> None:
    """Required and optional differ only in whether the component starts without."""
    document = PolicyDocument("log", "acme", grants=(grant("filesystem.read /in/**", required=False),))
    assert isinstance(compile_policy(document).decide("filesystem.read", "/in/a"), Allow)


ACL_CASES: list[tuple[list[AclEntry], str, str | None]] = [
    ([], "/srv/a", None),
    ([AclEntry("*", "filesystem.read", "/srv/pii/**", "deny")], "/srv/pii/a", "A1301"),
    ([AclEntry("*", "filesystem.read", "/srv/pii/**", "deny")], "/srv/a", None),
    ([AclEntry("other", "filesystem.read", "/srv/pii/**", "deny")], "/srv/pii/a", None),
    ([AclEntry("log@acme", "filesystem.*", "/srv/pii/**", "deny")], "/srv/pii/a", "A1301"),
    ([AclEntry("log@x", "filesystem.*", "/srv/pii/**", "deny")], "/srv/pii/a", None),
    ([AclEntry("*", "filesystem.write", "/srv/pii/**", "deny")], "/srv/pii/a", None),
    ([AclEntry("*", "*", "**", "deny")], "/srv/a", "A1301"),
    ([AclEntry("*", "filesystem.*", "*", "deny")], "/srv/a/b", "A1301"),
    ([AclEntry("log", "filesystem.read", "/srv/a/**", "allow")], "/srv/a/x", None),
    ([AclEntry("log", "filesystem.read", "/srv/a/**", "allow")], "/srv/b", "A1302"),
    ([AclEntry("other", "filesystem.read", "/srv/a/**", "allow")], "/srv/b", None),
    ([AclEntry("log", "filesystem.write", "/srv/a/**", "allow")], "/srv/b", None),
    (
        [
            AclEntry("log", "filesystem.read", "/srv/**", "allow"),
            AclEntry("*", "filesystem.read", "/srv/pii/", "deny"),
        ],
        "/srv/pii/a",
        "A1301",
    ),
]


@pytest.mark.parametrize(("entries", "resource", "code"), ACL_CASES)
def test_access_control_list(entries: list[AclEntry], resource: str, code: str | None) -> None:
    """A denial wins; allow entries, once there are any for this component and action, must cover the resource."""
    for acl in (tuple(entries), tuple(reversed(entries))):
        decision = policy_of("filesystem.read /srv/**", acl=acl).decide("filesystem.read", resource)
        assert (decision.code if isinstance(decision, Deny) else None) == code
        if code == "A1301" and isinstance(decision, Deny):
            assert decision.rule.startswith("acl deny ")


def test_the_acl_grants_nothing() -> None:
    """An allow entry of the host does not replace a grant."""
    policy = policy_of("filesystem.read /in/**", acl=(AclEntry("*", "filesystem.read", "/srv/**", "allow"),))
    assert denied(policy, "filesystem.read", "/srv/a").code == "A1203"


def test_roles() -> None:
    """A component with roles needs a permission as well; one without roles is not subject to them."""
    roles = (Role("base", ("filesystem.read:/srv/a/**",)), Role("reporter", (), ("base",)))
    free = policy_of("filesystem.read /srv/**", roles=roles)
    assert isinstance(free.decide("filesystem.read", "/srv/b"), Allow)
    bound = policy_of("filesystem.read /srv/**", "filesystem.write /srv/**", roles=roles, assigned_roles=("reporter",))
    assert isinstance(bound.decide("filesystem.read", "/srv/a/x"), Allow)
    assert isinstance(bound.decide("filesystem.list", "/srv/a"), Allow)
    denial = denied(bound, "filesystem.read", "/srv/b")
    assert (denial.code, denial.rule) == ("A1401", "roles reporter")
    assert denied(bound, "filesystem.write", "/srv/a/x").code == "A1401"
    powerless = policy_of("filesystem.read /srv/**", roles=(Role("none", ()),), assigned_roles=("none",))
    assert denied(powerless, "filesystem.read", "/srv/a").code == "A1401"


def test_the_first_refusal_wins() -> None:
    """Forbidden before grant before ACL before role: each is seen only when those before it are satisfied."""
    roles = {"roles": (Role("r", ("filesystem.read:/srv/ok",)),), "assigned_roles": ("r",)}
    acl = (AclEntry("*", "filesystem.read", "/srv/denied/**", "deny"),)
    policy = policy_of("filesystem.read /srv/**", acl=acl, **roles)
    assert denied(policy, "filesystem.read", "/home/.ssh/x").code == "A1101"
    assert denied(policy, "filesystem.read", "/srv/denied/.ssh/x").code == "A1101"
    assert denied(policy, "filesystem.read", "/proc/cpuinfo").code == "A1102"
    assert denied(policy, "filesystem.read", "/home/x").code == "A1203"
    assert denied(policy, "filesystem.read", "/srv/denied/x").code == "A1301"
    assert denied(policy, "filesystem.read", "/srv/x").code == "A1401"
    assert isinstance(policy.decide("filesystem.read", "/srv/ok"), Allow)


RIGHTS_CASES: list[tuple[tuple[str, ...], str, str]] = [
    (("filesystem.read /in/**",), "/in", "list"),
    (("filesystem.read /in/**",), "/in/a", "read list"),
    (("filesystem.read /in/",), "/in", "read list"),
    (("filesystem.read /in/*.json",), "/in", "list"),
    (("filesystem.read /in/*.json",), "/in/a.json", "read"),
    (("filesystem.read /in/*.json",), "/in/a.txt", ""),
    (("filesystem.read /in/a.json",), "/in", ""),
    (("filesystem.read /in/a.json",), "/in/a.json", "read"),
    (("filesystem.list /in/",), "/in/a", "list"),
    (("filesystem.list /in/*.json",), "/in", "list"),
    (("filesystem.list /in/*.json",), "/in/x.json", "list"),
    (("filesystem.write /out/**",), "/out", ""),
    (("filesystem.write /out/**",), "/out/a", "write"),
    (("filesystem.write /out/",), "/out", "write"),
    (("filesystem.write /out/", "filesystem.read /out/*.txt"), "/out/a.txt", "read write"),
    (("filesystem.read /",), "/", "read list"),
    (("filesystem.read /**",), "/", "list"),
    (("filesystem.read /*",), "/", "list"),
]


@pytest.mark.parametrize(("grants", "resource", "expected"), RIGHTS_CASES)
def test_rights(grants: tuple[str, ...], resource: str, expected: str) -> None:
    """Rights are what decide allows; list follows from reading by wildcard, write implies nothing."""
    policy = policy_of(*grants)
    assert policy.rights(resource) == frozenset(expected.split())
    assert policy.rights(resource) == frozenset(expected.split()), "and the same from the cache"
    for verb in ("read", "write", "list"):
        allowed = isinstance(policy.decide(f"filesystem.{verb}", resource), Allow)
        assert allowed is (verb in expected.split())


def test_a_pattern_that_walks_directories_says_nothing_of_other_files() -> None:
    """Under `/logs/**/*.log` each directory may be listed, while a file that is no log has no right at all."""
    policy = policy_of("filesystem.read /logs/**/*.log")
    for directory in ("/logs", "/logs/a", "/logs/a/b"):
        assert policy.rights(directory, is_directory=True) == frozenset(("list",))
        assert isinstance(policy.decide_listing(directory), Allow)
        assert isinstance(policy.decide("filesystem.list", directory), Deny), "it might be a file"
        assert policy.rights(directory) == frozenset()
    assert policy.rights("/logs/a/x.log") == frozenset(("read",))
    assert policy.rights("/logs/a/secret.txt") == frozenset()
    assert policy.rights("/", is_directory=True) == frozenset()
    assert isinstance(policy.decide_listing("/"), Deny)


def test_a_role_that_walks_directories_says_nothing_of_other_files() -> None:
    """The same holds where the grant is wide and the host's rule is the narrow one."""
    roles = {"roles": (Role("r", ("filesystem.read:/logs/**/*.log",)),), "assigned_roles": ("r",)}
    allow = {"acl": (AclEntry("*", "filesystem.read", "/logs/**/*.log", "allow"),)}
    for rules in (roles, allow):
        policy = policy_of("filesystem.read /logs/**", **rules)
        assert policy.rights("/logs/a/x.log") == frozenset(("read",))
        assert policy.rights("/logs/a/secret.txt") == frozenset()


def test_denying_to_read_denies_the_listing_that_reading_implies() -> None:
    """What the host hides from reading is not shown by way of an implied listing; an explicit list grant is another."""
    acl = (AclEntry("*", "filesystem.read", "/srv/pii/", "deny"),)
    policy = policy_of("filesystem.read /srv/**", acl=acl)
    assert policy.rights("/srv/pii") == frozenset()
    assert policy.rights("/srv/pii/x") == frozenset()
    assert policy.rights("/srv") == frozenset(("list",))
    explicit = policy_of("filesystem.read /srv/**", "filesystem.list /srv/", acl=acl)
    assert explicit.rights("/srv/pii/x") == frozenset(("list",))


@pytest.mark.parametrize(
    ("directory", "expected"),
    [
        ("/", True),
        ("/home", True),
        ("/home/me", True),
        ("/home/me/in", True),
        ("/home/me/in/x", False),
        ("/home/me/tree", True),
        ("/home/me/tree/x/y", True),
        ("/home/you", False),
        ("/home/me/tree/.ssh", False),
        ("/var", False),
        ("/logs/a/b", True),
        ("/glob-1", True),
        ("/glob-1/x", True),
        ("/glob-1/y", False),
        ("/denied", False),
    ],
)
def test_reaches(directory: str, expected: bool) -> None:
    """A directory is reached if a grant covers it, leads through it, or covers something beneath it."""
    policy = policy_of(
        "filesystem.read /home/me/in/*.csv",
        "filesystem.write /home/me/tree/",
        "filesystem.read /logs/**/*.log",
        "filesystem.list /glob-?/x/**",
        "filesystem.read /denied/**",
        acl=(AclEntry("*", "filesystem.*", "/denied/", "deny"),),
    )
    # A wildcard may cover a name that is a directory: as a handle that is harmless, so it is reached.
    assert policy.reaches(directory) is expected
    assert policy.reaches(directory) is expected, "and the same from the cache"


def test_what_a_role_lets_be_listed_by_reading_is_reached() -> None:
    """A listing that only a permission to read implies has a way to it: each directory above may be opened."""
    roles = (Role("r", ("filesystem.read:/a/b/",)),)
    policy = policy_of("filesystem.list /a/", roles=roles, assigned_roles=("r",))
    assert policy.rights("/a/b") == {"list"}
    assert policy.reaches("/a")
    assert policy.reaches("/")
    assert not policy.reaches("/c")


def test_nothing_is_reached_without_grants() -> None:
    """Not even the root."""
    assert not policy_of().reaches("/")
    assert not policy_of("storage.read a:*").reaches("/")


@pytest.mark.parametrize(
    ("path", "is_directory", "expected"),
    [
        ("/in/a.json", False, True),
        ("/in/secret.txt", False, False),
        ("/in/sub", True, False),
        ("/logs/sub", True, True),
        ("/logs/sub", False, False),
        ("/logs/sub/x.log", False, True),
        ("/logs/.ssh", True, False),
        ("/out/x", False, False),
        ("/both/x", False, True),
    ],
)
def test_shows(path: str, is_directory: bool, expected: bool) -> None:
    """A listing shows what may be read or listed, and directories that lead there; writing alone shows nothing."""
    policy = policy_of(
        "filesystem.read /in/*.json",
        "filesystem.read /logs/**/*.log",
        "filesystem.write /out/",
        "filesystem.write /both/",
        "filesystem.list /both/",
    )
    assert policy.shows(path, is_directory) is expected


@pytest.mark.parametrize(
    ("grants", "a", "b", "expected"),
    [
        (("filesystem.write /w/",), "/w/a", "/w/b", True),
        (("filesystem.write /w/**",), "/w/a", "/w/b/c", True),
        (
            ("filesystem.read /d/*", "filesystem.write /d/**", "filesystem.read /d/pub/**"),
            "/d/secret",
            "/d/pub/x",
            False,
        ),
        (("filesystem.write /w/",), "/w/a", "/x/a", False),
        (("filesystem.write /w/",), "/w/a", "/w/.git", False),
        (("filesystem.write /w/",), "/w/a", "/w/.config", False),
        (("filesystem.write /w/",), "/w/.config", "/w/.local", False),
        (("filesystem.write /w/",), "/w/a", "/w/.ssh", False),
        (("filesystem.write /w/", "filesystem.read /w/**/x"), "/w/a", "/w/b", True),
        (("filesystem.write /w/", "filesystem.read /w/*/x"), "/w/a", "/w/b", True),
        (("filesystem.write /w/", "filesystem.read /w/a*/x"), "/w/a", "/w/b", False),
        (("filesystem.write /w/", "filesystem.read /w/a/x"), "/w/a", "/w/b", False),
        ((), "/x", "/y", True),
        (("filesystem.write /",), "/x", "/etc", False),
        (("filesystem.write /",), "/x", "/proc", False),
        (("filesystem.write /",), "/x", "/state", False),
        (("filesystem.write /",), "/x", "/state/deep", False),
        (("filesystem.write /",), "/x", "/opt", False),
    ],
)
def test_subtrees_alike(grants: tuple[str, ...], a: str, b: str, expected: bool) -> None:
    """A directory may be renamed where it is proven that no rule tells the two places apart."""
    policy = policy_of(*grants, host_paths=("/state",), path_directories=("/opt/bin",))
    assert policy.subtrees_alike(a, b) is expected
    assert policy.subtrees_alike(b, a) is expected


def test_subtrees_alike_minds_acl_and_roles() -> None:
    """Also the host's rules must say the same of both places."""
    acl = (AclEntry("*", "filesystem.write", "/w/b/keep/**", "deny"),)
    assert not policy_of("filesystem.write /w/", acl=acl).subtrees_alike("/w/a", "/w/b")
    roles = {"roles": (Role("r", ("filesystem.write:/w/a/**",)),), "assigned_roles": ("r",)}
    assert not policy_of("filesystem.write /w/", **roles).subtrees_alike("/w/a", "/w/b")


NETWORK_CASES: list[tuple[str, str, bool]] = [
    ("https://api.example.com", "https://api.example.com", True),
    ("https://api.example.com", "https://API.example.com:443/v1/x", True),
    ("https://api.example.com", "http://api.example.com", False),
    ("https://api.example.com", "https://api.example.com:8443", False),
    ("https://api.example.com", "api.example.com:443", False),
    ("https://api.example.com", "https://api.example.com.evil.org", False),
    ("https://api.example.com", "https://evil.org/api.example.com", False),
    ("db.example.com:5432", "db.example.com:5432", True),
    ("db.example.com:5432", "db.example.com:5433", False),
    ("db.example.com:80", "http://db.example.com/x", True),
    ("db.example.com:*", "db.example.com:1", True),
    ("*.example.com:443", "a.example.com:443", True),
    ("*.example.com:443", "a.b.example.com:443", False),
    ("*.example.com:443", "example.com:443", False),
    ("**.example.com:443", "a.b.example.com:443", True),
    ("**.example.com:443", "evilexample.com:443", False),
    ("http://inv.internal:8080/v1/**", "http://inv.internal:8080/v1/a/b", True),
    ("http://inv.internal:8080/v1/**", "http://inv.internal:8080/v2/a", False),
    ("http://inv.internal:8080/v1/**", "http://inv.internal:8080/v1", False),
    ("http://inv.internal:8080/v1/", "http://inv.internal:8080/v1", True),
    ("http://inv.internal:8080/v1/**", "GET http://inv.internal:8080/v1/a", True),
    ("[::1]:8080", "[0:0::1]:8080", True),
    ("127.0.0.1:8080", "127.0.0.1:8080", True),
]


@pytest.mark.parametrize(("pattern", "resource", "expected"), NETWORK_CASES)
def test_network(pattern: str, resource: str, expected: bool) -> None:
    """Endpoints compare by scheme, host, port and path."""
    policy = policy_of(f"network.connect {pattern}")
    decision = policy.decide("network.connect", resource)
    assert isinstance(decision, Allow) is expected
    if isinstance(decision, Deny):
        assert decision.code == "A1203"


@pytest.mark.parametrize(
    "resource",
    [
        "example.com",
        "example.com:0",
        "example.com:65536",
        "example.com.:443",
        "ex ample.com:443",
        "ex\u00e4mple.com:443",
        "user@example.com:443",
        "https://user@example.com/",
        "https://example.com/a/../b",
        "https://example.com/%2e%2e/b",
        "https://example.com/%41dmin",
        "https://example.com/a?b",
        "https://example.com/a#b",
        "https://example.com/a\\b",
        "https://example.com//a",
        "https://example.com/\r\nHost: x",
        "ftp://example.com",
        "[::1",
        "[::1%eth0]:80",
        "example.com:443/x",
        "GET example.com:443",
        "",
    ],
)
def test_malformed_endpoints(resource: str) -> None:
    """What two programs could read in two ways is refused."""
    assert denied(policy_of("network.connect **.com:*"), "network.connect", resource).code == "A1207"


def test_methods_limit_a_grant() -> None:
    """A grant for GET covers no request whose method is another, or unknown."""
    limited = PolicyDocument(
        "c", "", grants=(grant("network.connect https://a.example/x/**", methods=("GET", "HEAD")),)
    )
    policy = compile_policy(limited)
    assert isinstance(policy.decide("network.connect", "GET https://a.example/x/y"), Allow)
    assert denied(policy, "network.connect", "POST https://a.example/x/y").code == "A1203"
    assert denied(policy, "network.connect", "https://a.example/x/y").code == "A1203"


@pytest.mark.parametrize(
    ("action", "pattern", "covered", "uncovered"),
    [
        ("storage.read", "summaries:*", "summaries:a", "other:a"),
        ("storage.write", "summaries:**", "summaries:a:b", "summaries"),
        ("messaging.send", "report-writer", "report-writer", "report-writer-2"),
        ("messaging.receive", "report-*", "report-x", "x"),
        ("messaging.publish", "summary.*", "summary.x", "summary.x.y"),
        ("messaging.subscribe", "rotation.**", "rotation.a.b", "rota"),
        ("secrets.env", "API_TOKEN", "API_TOKEN", "api_token"),
        ("custom.pay.refund", "pay", "pay", "other"),
    ],
)
def test_names(action: str, pattern: str, covered: str, uncovered: str) -> None:
    """Keys, topics, names and secrets are decided by the same steps."""
    policy = policy_of(f"{action} {pattern}")
    assert isinstance(policy.decide(action, covered), Allow)
    assert denied(policy, action, uncovered).code == "A1203"
    refused = policy_of(f"{action} {pattern}", acl=(AclEntry("*", f"{action.partition('.')[0]}.*", "**", "deny"),))
    assert denied(refused, action, covered).code == "A1301"


@pytest.mark.parametrize(
    "document",
    [
        PolicyDocument("c", "", grants=(Grant("filesystem.read", "in/**", "t"),)),
        PolicyDocument("c", "", grants=(Grant("filesystem.*", "/in/**", "t"),)),
        PolicyDocument("c", "", grants=(Grant("network.connect", "example.com", "t"),)),
        PolicyDocument("c", "", acl=(AclEntry("*", "filesystem.read", "x", "deny"),)),
        PolicyDocument("c", "", acl=(AclEntry("*", "files", "/x", "deny"),)),
        PolicyDocument("c", "", acl=(AclEntry("*", "*", "/x", "deny"),)),
        PolicyDocument("c", "", acl=(AclEntry("**x", "filesystem.read", "/x", "deny"),)),
        PolicyDocument("c", "", assigned_roles=("none",)),
        PolicyDocument("c", "", roles=(Role("r", ("filesystem.read:x",)),), assigned_roles=("r",)),
        PolicyDocument("c", "", roles=(Role("r", (), ("r",)),)),
    ],
)
def test_a_wrong_document_compiles_to_nothing(document: PolicyDocument) -> None:
    """A rule that can't be understood is an error, never a rule that is silently left out."""
    with pytest.raises(ConfigError):
        compile_policy(document)


def test_a_cached_decision_is_the_same_decision() -> None:
    """The second answer equals the first, also after the cache was emptied for being full."""
    policy = policy_of("filesystem.read /in/**")
    first = policy.decide("filesystem.read", "/in/0")
    for number in range(5000):
        assert policy.decide("filesystem.read", f"/in/{number}") == first
    assert policy.decide("filesystem.read", "/in/0") == first
    long = "/in/" + "x" * 3000
    assert policy.decide("filesystem.read", long) == policy.decide("filesystem.read", long) == first


def test_the_digest_names_the_rules_and_not_their_order() -> None:
    """Equal rules in another order have one digest; any other rule has another."""
    grants = (grant("filesystem.read /a"), grant("filesystem.read /b\udcff"))
    one = PolicyDocument("c", "", grants=grants)
    assert one.digest() == replace(one, grants=grants[::-1]).digest()
    assert one.digest() != replace(one, grants=grants[:1]).digest()
    assert one.digest() != replace(one, host_paths=("/x",)).digest()
    assert len(one.digest()) == 64


def test_metadata_travel_with_their_grant_and_are_in_the_digest() -> None:
    """Only where there are some: a policy that was kept before there were any has the hash that it had."""
    plain = grant("custom.rates.read **")
    assert set(plain.to_wire()) == {"action", "pattern", "source", "required", "methods"}
    told = replace(plain, metadata=(("region", "eu"), ("most", 5), ("fast", True)))
    assert Grant.from_wire(told.to_wire()) == told
    documents = [
        PolicyDocument("c", "", grants=(each,)) for each in (plain, told, replace(told, metadata=(("x", "y"),)))
    ]
    assert len({document.digest() for document in documents}) == 3
    assert compile_policy(documents[1]).metadata(told.rule) == told.metadata
    assert compile_policy(documents[1]).metadata("another rule") == ()
    for broken in ([], {"a": 1.5}, {"a": None}, {"a": ["b"]}):
        with pytest.raises(LocalProtocolError):
            Grant.from_wire({**told.to_wire(), "metadata": broken})


def test_the_wire_form_is_strict() -> None:
    """What has another shape than ours is refused, never guessed at."""
    document = PolicyDocument("c", "i", grants=(grant("filesystem.read /a"),), roles=(Role("r", ("storage.read:a",)),))
    wire = document.to_wire()
    assert PolicyDocument.from_wire(wire) == document
    for broken in (
        None,
        [],
        {},
        {**wire, "more": 1},
        {**wire, "component": 1},
        {**wire, "grants": {}},
        {**wire, "grants": [1]},
        {**wire, "grants": [{**grant("filesystem.read /a").to_wire(), "required": 1}]},
        {**wire, "grants": [{**grant("filesystem.read /a").to_wire(), "action": "x"}]},
        {**wire, "host_paths": [1]},
        {key: value for key, value in wire.items() if key != "acl"},
    ):
        with pytest.raises(LocalProtocolError):
            PolicyDocument.from_wire(broken)
