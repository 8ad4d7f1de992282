"""Having a rule approve what it isn't for: each attack with its honest twin, on real packages with real signatures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from approvals_to_test import ALICE, ASKER, BOB, MANIFEST, START_S, hold
from signed import Signer as Key
from signed import ed25519_signer, sshsig

from ipc.audit.event import SUPERVISOR, AuditEvent
from ipc.struct import replace
from supervisor.approvals.asking import Approved, decide_by_approval, question_of
from supervisor.approvals.automatic import precedence
from supervisor.approvals.errors import AwaitingApprovalError
from supervisor.approvals.rules import Needed
from supervisor.approvals.service import ApprovalService
from supervisor.approvals.store import ApprovalStore
from supervisor.audit.log import AuditLog
from supervisor.config.approval_settings import AutomaticApproval, Signer
from supervisor.config.quota import Quota
from supervisor.config.settings import ComponentSettings, Settings
from supervisor.config.settings_files import default_directories
from supervisor.control.messages import DecideApproval
from supervisor.control.roles import Peer, Roles
from supervisor.manifest import Variables, bind, load_manifest
from supervisor.packages.directory import read_directory
from supervisor.signing.keys import read_public_key

pytestmark = pytest.mark.any_user

ALICES, MALLORYS = ed25519_signer(), ed25519_signer()
SIGNER = Signer(0, read_public_key(ALICES.line), "alice@example.com")
OTHERS = Signer(1, read_public_key(MALLORYS.line), "mallory@example.com")
RULE = AutomaticApproval("same-or-narrower", "alice@example.com", "airssys.toml:9")


class Host:
    """A host whose component was approved once, in version 1.0.0."""

    def __init__(self, directory: Path) -> None:
        """Have somebody approve the first version."""
        self.now_s = START_S
        self.events: list[AuditEvent] = []
        self.component = directory / "component"
        self.component.mkdir()
        (self.component / "reporter.wasm").write_bytes(b"\0asm\1\0\0\0")
        self.log = AuditLog(str(directory / "state" / "audit"))
        self.settings = Settings(
            default_directories({}, 1000), approval_signers=(SIGNER, OTHERS), approval_automatic=(RULE,)
        )
        self.store = ApprovalStore(
            str(directory / "state"), self.log.directory, self._record, clock_s=lambda: self.now_s, wait_s=0.0
        )
        self.service = ApprovalService(self.store, self.settings, Roles(ASKER, {}, {}, frozenset({ASKER, ALICE, BOB})))
        self.is_version("1.0.0")

    def _record(self, event: AuditEvent) -> None:
        self.log.append([(event.within_bounds(), SUPERVISOR)])
        self.events.append(event)

    def is_version(
        self, version: str, key: Key | None = ALICES, more: str = "", less: str = "", besides: str = ""
    ) -> None:
        """Put a version there, signed by a key, that asks for more or less, or for more that is no capability."""
        text = (MANIFEST.replace(less, "") if less else MANIFEST) + besides
        text = text.replace('"1.0.0"', f'"{version}"').replace('"/srv/logs/**"', f'"/srv/logs/**"{more}')
        (self.component / "Component.toml").write_text(text)
        signature = self.component / "Component.sig"
        signature.unlink(missing_ok=True)
        if key is not None:
            signature.write_bytes(sshsig(key, read_directory(str(self.component)).statement))

    def start(self, needed: Needed | None = None, signers: tuple[str, ...] | None = None) -> Approved:
        """Start what is there, as far as approvals go; with `signers` as what is installed."""
        own = Variables(str(self.component), "/d", "/t")
        bound = bind(load_manifest(str(self.component)), {}, own)
        question = replace(question_of(bound, bound.grants, needed or Needed()), signers=signers)
        return decide_by_approval(self.store, question, self.settings, "", ASKER, own, hold)

    def waits(self, needed: Needed | None = None, signers: tuple[str, ...] | None = None) -> int:
        """Have it asked for; the number of the request, which waits."""
        with pytest.raises(AwaitingApprovalError) as waits:
            self.start(needed, signers)
        return waits.value.request.number

    def says(self, what: str, number: int, uid: int = ALICE, **more: object) -> None:
        """Have somebody decide."""
        seen = str(self.service.shown(number)["review"])
        decision = DecideApproval(what, number, seen=seen, **more)  # type: ignore[arg-type]
        self.service.decide(Peer(1, uid, frozenset()), decision)

    def approved(self, **more: object) -> int:
        """Have the first version approved by a person: no rule does."""
        number = self.waits()
        self.says("approve", number, **more)
        return number


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host whose log is closed afterwards."""
    found = Host(tmp_path)
    yield found
    found.log.close()


def test_a_newer_version_that_asks_for_nothing_more(host: Host) -> None:
    """The first is for a person; the second starts, with the rule on record, and supersedes the first."""
    first = host.approved()
    host.is_version("1.0.1")
    assert host.start().approval == f"approval {first + 1}"
    granted = [event for event in host.events if event.event == "approval_granted"][-1]
    assert granted.actor == "rule automatic airssys.toml:9, signer alice@example.com"
    assert SIGNER.key.fingerprint in granted.reason
    assert host.service.shown(first)["state"] == "superseded"
    host.is_version("1.1.0", less='connect = ["api.example.com:443"]\n')
    assert [grant.action for grant in host.start().grants] == ["filesystem.read"]


def test_nothing_is_approved_by_a_rule_that_is_not_written(host: Host) -> None:
    """Nor by one for somebody who isn't named."""
    host.approved()
    host.is_version("1.0.1")
    host.settings = replace(host.settings, approval_automatic=())
    host.waits()
    host.settings = replace(host.settings, approval_automatic=(replace(RULE, signer="bob@example.com"),))
    host.waits()
    host.settings = replace(host.settings, approval_automatic=(RULE,))
    assert host.start().grants


def test_wider_is_for_people(host: Host) -> None:
    """By one pattern more; also than what was narrowed by whoever approved the last."""
    host.approved()
    host.is_version("1.0.1", more=', "/srv/other"')
    number = host.waits()
    host.says("approve", number, without=("filesystem.read:/srv/other",))
    host.is_version("1.0.2", more=', "/srv/other"')
    host.waits()
    host.is_version("1.0.3")
    assert host.start().grants


BESIDES = """[component.env]
TZ = "UTC"
[component.mounts]
"/logs" = "/srv/logs"
[quota]
memory = "64MB"
storage = "10MB"
[limits]
timeout = "10s"
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('memory = "64MB"', 'memory = "128MB"'),
        ('memory = "64MB"', ""),
        ('storage = "10MB"', 'storage = "11MB"'),
        ('storage = "10MB"', 'storage = "10MB"\ncpu_time = "2000ms/s"'),
        ('timeout = "10s"', 'timeout = "11s"'),
        ('timeout = "10s"', ""),
        ('TZ = "UTC"', 'TZ = "CET"'),
        ('TZ = "UTC"', 'TZ = "UTC"\nLD_PRELOAD = "x"'),
        ('"/logs" = "/srv/logs"', '"/logs" = "/srv"'),
        ('"/logs" = "/srv/logs"', '"/logs" = "/srv/logs"\n"." = "/srv/logs"'),
    ],
)
def test_more_of_anything_is_for_people(host: Host, old: str, new: str) -> None:
    """A larger quota, a limit that is gone, a variable, a mount: what airssys diff calls wider no rule approves."""
    host.is_version("1.0.0", besides=BESIDES)
    host.approved()
    host.is_version("1.0.1", besides=BESIDES.replace(old, new))
    host.waits()
    host.is_version("1.0.2", besides=BESIDES.replace('"64MB"', '"32MB"').replace('"10s"', '"5s"'))
    assert host.start().grants


def test_the_hosts_own_quota_is_what_counts(host: Host) -> None:
    """Where the host says how much it may use, what the manifest asks is nothing more."""
    host.approved()
    host.is_version("1.0.1", besides='[quota]\nmemory = "1GB"\n')
    host.waits()
    own = ComponentSettings("reporter", "", quota=Quota(memory_bytes=10**8))
    host.settings = replace(host.settings, components=(own,))
    assert host.start().grants


def test_a_downgrade_is_for_people(host: Host) -> None:
    """An older version that asks for less, and other bytes of the same version; a newer one starts."""
    host.approved()
    for version in ("0.9.0", "1.0.0-rc.1"):
        host.is_version(version)
        host.waits()
    (host.component / "more.txt").write_text("other bytes")
    host.is_version("1.0.0")
    host.waits()
    host.is_version("1.0.1-rc.1")
    assert host.start().grants


def test_another_signature_is_none(host: Host) -> None:
    """None, another signer's, one of other bytes, for approvals; with the right one beside them it starts."""
    host.approved()
    host.is_version("1.0.1", None)
    host.waits()
    host.is_version("1.0.1", MALLORYS)
    host.waits()
    statement = read_directory(str(host.component)).statement
    signature = host.component / "Component.sig"
    for wrong in (sshsig(ALICES, statement + b"x"), sshsig(ALICES, statement, "airssys-approval")):
        signature.write_bytes(wrong)
        host.waits()
    signature.write_bytes(sshsig(MALLORYS, statement) + sshsig(ALICES, statement))
    assert host.start().grants


def test_what_is_installed_was_signed_when_it_was_installed(host: Host) -> None:
    """By whom, the registry says, and no file beside it; another directory of its own is its own all the same."""
    host.is_version("1.0.0", more=', "${component}/**"')
    host.approved()
    host.component = host.component.rename(host.component.with_name("elsewhere"))
    host.is_version("1.0.1", more=', "${component}/**"')
    host.waits(signers=())
    host.waits(signers=(MALLORYS.line,))
    assert host.start(signers=(MALLORYS.line, ALICES.line)).grants


def test_a_key_that_counts_no_more(host: Host) -> None:
    """Revoked, or over."""
    host.approved()
    host.is_version("1.0.1")
    for signer in (replace(SIGNER, revoked=True), replace(SIGNER, valid_before_s=START_S)):
        host.settings = replace(host.settings, approval_signers=(signer,))
        host.waits()
    host.settings = replace(host.settings, approval_signers=(SIGNER,))
    assert host.start().grants


def test_what_takes_two_people_is_for_two(host: Host) -> None:
    """Asked for so, or by the rules of a later day."""
    host.approved()
    host.is_version("1.0.1")
    number = host.waits(Needed(approvers=2))
    assert host.service.shown(number)["votes"] == 0
    host.is_version("1.0.2")
    assert host.start().grants
    assert host.waits(Needed(approvers=2)) > number


def test_what_was_refused_or_taken_back_is_for_people(host: Host) -> None:
    """The very package, asked anew; and everything, once the approval that it is compared with is gone."""
    first = host.approved()
    host.is_version("1.0.1")
    host.start()
    host.says("revoke", first + 1)
    host.says("request", first + 1, ASKER)
    host.waits()
    host.is_version("1.0.2")
    host.waits()


def test_what_was_rejected_is_not_approved_by_signing_it(host: Host) -> None:
    """The very bytes that somebody has said no to, although another version is approved; the next one starts."""
    host.approved()
    host.is_version("1.0.1", None)
    number = host.waits()
    host.says("reject", number)
    host.says("request", number, ASKER)
    host.is_version("1.0.1")
    assert host.waits() == number + 1
    host.is_version("1.0.2")
    assert host.start().grants


def test_the_limits_of_the_last_approval_are_its_own(host: Host) -> None:
    """A month stays that month, and one start one start."""
    host.approved(lifetime_s=100)
    host.is_version("1.0.1")
    host.now_s += 60
    assert host.start().grants
    host.now_s += 40
    host.is_version("1.0.2")
    host.approved(once=True)
    host.is_version("1.0.3")
    assert host.start().grants
    host.waits()


def test_a_review_time_counts(host: Host) -> None:
    """What a rule has approved starts once it is over."""
    host.approved()
    host.is_version("1.0.1")
    host.waits(Needed(review_s=60))
    host.now_s += 60
    assert host.start(Needed(review_s=60)).grants


def test_versions_are_ordered_as_semver_orders_them() -> None:
    """Its own example, and what is none."""
    before = "1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta 1.0.0-beta.2 1.0.0-beta.11 1.0.0-rc.1"
    found = [precedence(each) for each in f"0.9.9 {before} 1.0.0 1.0.10".split()]
    assert found == sorted(found, key=lambda each: each or ((0, 0, 0), False, ()))
    assert len(set(found)) == len(found)
    assert precedence("1.0.0+a") == precedence("1.0.0+b")
    assert precedence("1.0") is None
