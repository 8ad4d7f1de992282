"""The table of codes: complete, well formed, and every code that decisions use is in it."""

import re
from pathlib import Path

import pytest

from ipc.codes import CODES, FAMILIES, find_code
from ipc.errors import AirssysError, AuditError, ConfigError, ConfinementError, LocalProtocolError, PeerProtocolError
from supervisor.codes_page import codes_page, families

ROOT = Path(__file__).resolve().parents[2]


def test_every_entry_is_complete() -> None:
    """Each code has the form of a code, a short title, and sentences to explain and advise."""
    for key, entry in CODES.items():
        assert key == entry.code
        assert re.fullmatch(r"A[1-3]\d{3}", key)
        assert 0 < len(entry.title) <= 50
        assert not entry.title.endswith(".")
        assert entry.explanation.endswith(".")
        assert entry.advice.endswith(".")


@pytest.mark.parametrize(
    "code",
    [
        "A1101",
        "A1102",
        "A1201",
        "A1203",
        "A1204",
        "A1205",
        "A1206",
        "A1207",
        "A1208",
        "A1209",
        "A1301",
        "A1302",
        "A1401",
        "A1501",
        "A1601",
        "A1701",
        "A1702",
        "A1703",
        "A1704",
        "A2001",
        "A2002",
        "A2003",
        "A2004",
        "A2005",
        "A2006",
        "A3001",
    ],
)
def test_published_codes_stay(code: str) -> None:
    """Codes that were published keep existing; `airssys help` finds them in any case of letters."""
    assert find_code(code.lower()) is CODES[code]


def test_an_unknown_code_is_not_found() -> None:
    """What is no code is answered by None."""
    assert find_code("A9999") is None
    assert find_code("") is None


def test_the_table_is_immutable() -> None:
    """Nothing can change the meaning of a code at run time."""
    with pytest.raises(TypeError):
        CODES["A1101"] = CODES["A1102"]  # type: ignore[index]


def test_errors_say_who_is_at_fault_by_exit_code() -> None:
    """The exit codes are those of sysexits.h, and all errors have one root."""
    codes = {ConfigError: 65, PeerProtocolError: 70, LocalProtocolError: 70, ConfinementError: 69, AuditError: 73}
    for kind, code in codes.items():
        assert issubclass(kind, AirssysError)
        assert kind.exit_code == code


def test_a_confinement_error_names_layer_call_and_errno() -> None:
    """The message holds what someone needs to look it up."""
    error = ConfinementError("landlock", "landlock_restrict_self", 1, "no new privileges is off")
    assert "landlock: landlock_restrict_self failed with EPERM" in str(error)
    assert "no new privileges" in str(error)
    assert str(ConfinementError("seccomp", "check", 0, "mode is 0")) == "seccomp: check: mode is 0"


def test_every_code_that_is_given_has_a_page() -> None:
    """Each code that the sources name is in the table."""
    named = set()
    for package in ("ipc", "worker", "supervisor"):
        for path in (ROOT / package).rglob("*.py"):
            named |= set(re.findall(r'"(A[1-3]\d{3})"', path.read_text()))
    assert named - set(CODES) == set()


def test_every_code_belongs_to_one_family() -> None:
    """The families are those of the table: none is empty, no code is left out or listed twice."""
    listed = [each.code for _, codes in families() for each in codes]
    assert sorted(listed) == sorted(CODES)
    assert all(codes for _, codes in families())
    assert len(list(families())) == len(FAMILIES)


def test_the_reference_page_is_that_of_the_table() -> None:
    """docs/reference/codes.md is what scripts/generate-docs makes; each code has a heading to link to."""
    page = (ROOT / "docs/reference/codes.md").read_text()
    assert page == codes_page(), "scripts/generate-docs makes it anew"
    for code in CODES:
        assert f"\n### {code}\n" in page
