"""`airssys.toml` and its drop-in files: values, defaults, origins, and who may have written them."""

import os
from pathlib import Path

import pytest

from ipc.messages import AuditBudget
from supervisor.audit.retention import AuditRetention
from supervisor.config import units
from supervisor.config.host_policy import host_paths
from supervisor.config.settings import (
    DEFAULT_MAXIMA,
    DEFAULT_QUOTA,
    REQUIRED_LAYERS,
    HostDirectories,
    Settings,
    SettingsError,
    settings_not_enforced,
)
from supervisor.config.settings_files import default_config_path, default_directories, load_settings
from supervisor.config.settings_reader import read_settings
from supervisor.config.toml_source import parse_toml

DIRECTORIES = HostDirectories("/s", "/d", "/r", "/l")


def settings_of(*texts: str) -> Settings:
    """Read the texts as `0.toml`, `1.toml`, …, later over earlier."""
    sources = [parse_toml(("schema = 1\n" + text).encode(), f"{number}.toml") for number, text in enumerate(texts)]
    return read_settings(sources, DIRECTORIES)


EVERYTHING = """[host]
state = "/srv/state"
[confinement]
require = ["landlock", "seccomp"]
[quota.defaults]
memory = "256MB"
[quota.maxima]
memory = "1GB"
storage = "unlimited"
[control]
operators = ["alice", "@ops"]
approvers = ["carol"]
[audit]
keep = "90d"
max_size = "5GB"
[[trust.sources]]
git = "https://git.example.com/plugins/*"
branch = "main"
[approvals]
notify = "/usr/local/bin/tell"
[[approvals.rules]]
when = ["network.connect", "custom.x.*"]
approvers = 2
broad = true
over = { memory = "1GB" }
review = "24h"
expires = "3d"
[[acl]]
effect = "deny"
who = "*"
action = "filesystem.read"
resource = "/srv/pii/**"
[roles.base]
permissions = ["storage.*:logs:**"]
[roles.reporter]
permissions = ["filesystem.read:/var/log/**"]
inherits = ["base"]
[components."log-summary@acme"]
version = "1.0.0"
enabled = false
run_as = "acme"
roles = ["reporter"]
parameters = { logs = "/var/log/acme", depth = 3 }
secrets = { API_TOKEN = { credential = "acme-token" }, OTHER = { file = "/etc/other" } }
quota = { memory = "64MB" }
allow_broad = ["filesystem.read:/**"]
lift_guarded = ["/proc/cpuinfo"]
"""


def test_every_section_is_read() -> None:
    """Each section of the reference page ends up in the value that stands for it."""
    settings = settings_of(EVERYTHING)
    assert settings.directories == HostDirectories("/srv/state", "/d", "/r", "/l")
    assert settings.required_layers == ("landlock", "seccomp")
    assert settings.quota_maxima.memory_bytes == 10**9
    assert settings.quota_maxima.storage_bytes == units.UNLIMITED
    assert settings.control.operators == ("alice", "@ops")
    assert settings.audit.keep_ns == 90 * 86400 * 10**9
    assert settings.trust_sources[0].name == "git https://git.example.com/plugins/* branch main"
    rule = settings.approval_rules[0]
    assert (rule.approvers, rule.broad, rule.over.memory_bytes, rule.source) == (2, True, 10**9, "0.toml:23")
    assert (rule.review_ns, rule.expires_ns) == (86_400 * 10**9, 3 * 86_400 * 10**9)
    assert settings.approval_notify == "/usr/local/bin/tell"
    (entry,) = settings.acl
    assert entry.rule == 'acl deny * filesystem.read "/srv/pii/**" (0.toml:33)'
    assert [(role.name, role.inherits) for role in settings.roles] == [("base", ()), ("reporter", ("base",))]
    component = settings.component("log-summary", "acme")
    assert dict(component.parameters) == {"logs": "/var/log/acme", "depth": 3}
    assert [(secret.credential, secret.file) for secret in component.secrets] == [
        ("acme-token", None),
        (None, "/etc/other"),
    ]
    assert (component.enabled, component.run_as, component.lift_guarded) == (False, "acme", ("/proc/cpuinfo",))
    assert settings_not_enforced(settings) == ()


def test_an_empty_file_means_the_defaults() -> None:
    """What nothing is written of has its documented default."""
    settings = settings_of("")
    assert (settings.directories, settings.required_layers) == (DIRECTORIES, REQUIRED_LAYERS)
    assert (settings.quota_defaults, settings.quota_maxima) == (DEFAULT_QUOTA, DEFAULT_MAXIMA)
    assert settings.acl == ()
    assert settings_not_enforced(settings) == ()


def test_an_instance_comes_before_its_component() -> None:
    """`NAME@INSTANCE` is used where it is written, `NAME` for all other instances."""
    settings = settings_of('[components.a]\nrun_as = "x"\n[components."a@1"]\nrun_as = "y"\n')
    assert settings.component("a", "1").run_as == "y"
    assert settings.component("a", "2").run_as == "x"
    assert settings.component("b").run_as is None


def test_later_files_win_key_by_key_and_rules_add_up() -> None:
    """A drop-in file overrides single keys, keeps the others, and can't make a deny entry vanish."""
    deny = '[[acl]]\neffect = "deny"\nwho = "{}"\naction = "*"\nresource = "**"\n'
    settings = settings_of(
        '[quota.maxima]\nmemory = "1GB"\ncpu_time = "1s/s"\n' + deny.format("a"),
        '[quota.maxima]\nmemory = "2GB"\n' + deny.format("b"),
    )
    assert (settings.quota_maxima.memory_bytes, settings.quota_maxima.cpu_time_ns_per_s) == (2 * 10**9, 10**9)
    assert [(entry.identity, entry.source) for entry in settings.acl] == [("a", "0.toml:9"), ("b", "1.toml:8")]
    assert str(settings.origins["quota", "maxima", "memory"]) == "1.toml:3"
    assert str(settings.origins["quota", "maxima", "cpu_time"]) == "0.toml:4"


def test_a_lowered_maximum_lowers_the_default() -> None:
    """A host that allows 64 MB at most doesn't give 256 MB to who asks for nothing."""
    assert settings_of('[quota.maxima]\nmemory = "64MB"\n').quota_defaults.memory_bytes == 64 * 10**6


@pytest.mark.parametrize(
    ("text", "line", "key", "expected"),
    [
        ('[host]\nstate = "x"', 3, "host.state", "an absolute path"),
        ('[host]\ndata = "/s/data"', 3, "host.data", "doesn't hold"),
        ('[confinement]\nrequire = ["landlok"]', 3, "confinement.require[0]", '"landlock"'),
        ('[control]\nadmins = ["a b"]', 3, "control.admins[0]", "a group's behind an @"),
        (
            '[[acl]]\neffect = "maybe"\nwho = "*"\naction = "*"\nresource = "**"',
            3,
            "acl[0].effect",
            '"allow" or "deny"',
        ),
        ('[[acl]]\neffect = "deny"\nwho = "*"\naction = "fs"\nresource = "**"', 5, "acl[0].action", "an action"),
        ('[[acl]]\neffect = "deny"\nwho = "*"\naction = "*"\nresource = "/x"', 6, "acl[0].resource", '"**"'),
        (
            '[[acl]]\neffect = "deny"\nwho = "*"\naction = "filesystem.*"\nresource = "x"',
            6,
            "acl[0].resource",
            "absolute",
        ),
        ('[roles.a]\npermissions = ["x"]', 3, "roles.a.permissions[0]", "ACTION:PATTERN"),
        ('[roles.a]\ninherits = ["b"]', 3, "roles.a.inherits", "a role that is defined"),
        ('[components.Bad]\nrun_as = "x"', 2, "components.Bad", "NAME@INSTANCE"),
        ('[components.a]\nroles = ["x"]', 3, "components.a.roles[0]", "there is none"),
        ('[components.a]\nlift_guarded = ["/proc/*"]', 3, "components.a.lift_guarded[0]", "one exact path"),
        ('[components.a]\nlift_guarded = ["/etc/x"]', 3, "components.a.lift_guarded[0]", "beneath /proc"),
        ('[components.a]\nsecrets = { T = { file = "x" } }', 3, "components.a.secrets.T.file", "an absolute path"),
        ("[components.a]\nsecrets = { T = {} }", 3, "components.a.secrets.T", "credential and file"),
        (
            '[[approvals.rules]]\nwhen = ["*"]\nreview = "2d"\nexpires = "1d"',
            5,
            "approvals.rules[0].expires",
            "more than",
        ),
        ('[approvals]\nnotify = "tell"', 3, "approvals.notify", "absolute"),
        ("[[approvals.rules]]\nwhen = []", 3, "approvals.rules[0].when", "need approval"),
        ("[quta.maxima]\n", 2, "quta", '"quota"'),
    ],
)
def test_a_mistake_is_reported_with_its_line_key_and_what_was_expected(
    text: str, line: int, key: str, expected: str
) -> None:
    """One mistake is one problem, at its line, under its key path, with what would have been right."""
    with pytest.raises(SettingsError) as caught:
        settings_of(text)
    (problem,) = caught.value.problems
    assert (problem.file, problem.line, problem.key) == ("0.toml", line, key)
    assert expected in problem.expected


def test_a_cycle_of_roles_is_printed() -> None:
    """Roles that inherit each other are refused, and the circle is shown."""
    with pytest.raises(SettingsError, match="a → b → a"):
        settings_of('[roles.a]\ninherits = ["b"]\n[roles.b]\ninherits = ["a"]\n')


def test_a_secret_written_into_the_file_is_not_repeated() -> None:
    """A value in place of a secret's source is refused by a message that doesn't hold it."""
    with pytest.raises(SettingsError) as caught:
        settings_of('[components.a]\nsecrets = { T = "hunter2" }\n')
    assert "hunter2" not in str(caught.value)
    assert "components.a.secrets.T" in str(caught.value)


def test_a_file_without_schema_is_refused() -> None:
    """Each file says which schema it is written in."""
    with pytest.raises(SettingsError, match=r"1\.toml.*schema"):
        read_settings([parse_toml(b"schema = 1", "0.toml"), parse_toml(b"[host]", "1.toml")], DIRECTORIES)


def test_directories_follow_the_file_hierarchy_and_xdg() -> None:
    """Root's things are in /var and /run, a user's where XDG says; relative values are ignored."""
    assert default_directories({}, 0).run == "/run/airssys"
    user = default_directories({"HOME": "/home/u", "XDG_RUNTIME_DIR": "/run/user/7", "XDG_STATE_HOME": "rel"}, 7)
    assert user == HostDirectories(
        "/home/u/.local/state/airssys",
        "/home/u/.local/share/airssys",
        "/run/user/7/airssys",
        "/home/u/.local/state/airssys/log",
    )
    assert default_directories({"HOME": "/home/u"}, 7).run == "/home/u/.local/state/airssys/run"
    assert default_config_path({"HOME": "/home/u"}, 7) == "/home/u/.config/airssys/airssys.toml"
    assert default_config_path({"XDG_CONFIG_HOME": "/x"}, 0) == "/etc/airssys/airssys.toml"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration directory that nobody else can write."""
    directory = tmp_path / "airssys"
    directory.mkdir(mode=0o755)
    (directory / "airssys.toml").write_text('schema = 1\n[quota.maxima]\nmemory = "1GB"\n')
    (directory / "airssys.toml").chmod(0o644)
    return directory


def load(config: Path, **environment: str) -> Settings:
    """Load by `--config`."""
    return load_settings(str(config / "airssys.toml"), environment, os.geteuid())


def test_drop_in_files_are_read_in_the_order_of_their_names(config: Path) -> None:
    """Every `*.toml` of `airssys.d` is read after the main file, hidden and other files are not."""
    drop_in = config / "airssys.d"
    drop_in.mkdir(mode=0o755)
    for name, size in (("20.toml", "3GB"), ("10.toml", "2GB"), (".30.toml", "4GB"), ("40.txt", "5GB")):
        (drop_in / name).write_text(f'schema = 1\n[quota.maxima]\nmemory = "{size}"\n')
        (drop_in / name).chmod(0o644)
    settings = load(config)
    assert settings.quota_maxima.memory_bytes == 3 * 10**9
    assert [os.path.basename(file) for file in settings.files] == ["airssys.toml", "10.toml", "20.toml"]


def test_the_variable_names_a_file_and_the_flag_comes_first(config: Path) -> None:
    """`$AIRSSYS_CONFIG` is read where no flag names a file; a named file has to exist, the default one doesn't."""
    named = str(config / "airssys.toml")
    assert load_settings(None, {"AIRSSYS_CONFIG": named}, os.geteuid()).files == (named,)
    assert load_settings(named, {"AIRSSYS_CONFIG": "/nowhere"}, os.geteuid()).files == (named,)
    assert load_settings(None, {"XDG_CONFIG_HOME": str(config)}, 12345).files == ()
    with pytest.raises(SettingsError, match="no such file"):
        load_settings(None, {"AIRSSYS_CONFIG": "/nowhere/x.toml"}, os.geteuid())


def test_where_configuration_is_read_from_is_known_before_it_is_there(config: Path, tmp_path: Path) -> None:
    """The named file's drop-ins and the default directory, by their real names too: nobody's to write."""
    link = tmp_path / "link"
    link.symlink_to(config)
    named = load_settings(str(link / "airssys.toml"), {"HOME": "/home/me"}, 12345)
    places = {str(link / "airssys.d"), str(config / "airssys.d"), "/home/me/.config/airssys"}
    assert places < set(host_paths(named))
    hook = tmp_path / "hook"
    hook.symlink_to("/srv/hooks/tell")
    with (config / "airssys.toml").open("a") as file:
        file.write(f'[approvals]\nnotify = "{hook}"\n')
    assert {str(hook), "/srv/hooks/tell"} < set(host_paths(load(config))), "run as us, outside of everything"
    nothing = load_settings(None, {"XDG_CONFIG_HOME": str(tmp_path / "none")}, 12345)
    assert str(tmp_path / "none" / "airssys") in host_paths(nothing)


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_file_that_others_can_write_is_refused(config: Path, mode: int) -> None:
    """Whoever could write the file could grant: it is refused, with the command that mends it."""
    (config / "airssys.toml").chmod(mode)
    with pytest.raises(SettingsError, match="chmod go-w"):
        load(config)


def test_a_directory_that_others_can_write_is_refused(config: Path) -> None:
    """Whoever can write the directory can replace the file; a sticky directory protects it."""
    config.chmod(0o777)
    with pytest.raises(SettingsError, match="mode 0777"):
        load(config)
    config.chmod(0o1777)
    assert load(config).quota_maxima.memory_bytes == 10**9


@pytest.mark.needs_root
def test_a_file_of_another_user_is_refused(config: Path) -> None:
    """The owner could change the file at any time."""
    os.chown(config / "airssys.toml", 12345, 12345)
    with pytest.raises(SettingsError, match="uid 12345"):
        load(config)


def test_what_is_kept_of_the_audit_log_has_bounds_and_a_default() -> None:
    """5 GB unless said otherwise, "unlimited" is none; a component's budget is read key by key."""
    assert settings_of("").audit == AuditRetention(None, 5 * 10**9)
    kept = settings_of('[audit]\nmax_size = "unlimited"\nkeep = "30d"\n').audit
    assert kept == AuditRetention(30 * 86400 * 10**9, None)
    budget = settings_of('[audit.budget]\nrefused = 10\nrefused_rate = "5/s"\ntolerated = "2s"\n').audit_budget
    assert budget == AuditBudget(refused_at_once=10, refused_per_s=5, refused_tolerated_ns=2 * 10**9)
    assert settings_not_enforced(settings_of('[audit]\nkeep = "30d"\n[audit.budget]\nallowed = 7\n')) == ()


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[audit]\nmax_size = "10kB"', "audit.max_size"),
        ('[audit]\nkeep = "1s"', "audit.keep"),
        ('[audit]\nkept = "1d"', "audit.kept"),
        ("[audit.budget]\nrefused = 0", "audit.budget.refused"),
        ('[audit.budget]\nrefused_rate = "0/s"', "audit.budget.refused_rate"),
        ('[audit.budget]\nallowed_rate = "unlimited"', "audit.budget.allowed_rate"),
    ],
)
def test_what_would_keep_nothing_of_the_audit_log_is_refused(text: str, key: str) -> None:
    """A bound below what one segment needs, and a budget of nothing, are errors at their key."""
    with pytest.raises(SettingsError) as caught:
        settings_of(text + "\n")
    assert [problem.key for problem in caught.value.problems] == [key]
