"""The example's provider: named statements, values as JSON, what the grant says, and what only reads."""

from __future__ import annotations

import importlib.util
import json
import sqlite3
from pathlib import Path

import pytest

from ipc.provider import Refusal, Request

FILE = Path(__file__).resolve().parents[2] / "examples" / "sql-provider" / "sql_provider.py"
ACTIONS = {
    "read": "select id, name from customers where id = :id and region = :grant_region",
    "all": "select id from customers",
    "add": "insert into customers (id, region, name) values (:id, :grant_region, :name)",
    "wipe": "delete from customers",
    "raw": "select x'00ff' as raw, null as empty, 1.5 as half",
}


@pytest.fixture
def database(tmp_path: Path) -> str:
    """The example's customers."""
    connection = sqlite3.connect(tmp_path / "a file?.db")
    connection.executescript((FILE.parent / "customers.sql").read_text())
    connection.close()
    return str(tmp_path / "a file?.db")


def provider(database: str, **more: object):
    """The provider as the runner makes it."""
    spec = importlib.util.spec_from_file_location("sql_provider", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Sql({"database": database, "actions": ACTIONS, "writes": ["add"], **more})


def asked(action: str, payload: object = None) -> Request:
    """A request of a component that was granted the region eu."""
    data = payload if isinstance(payload, bytes) else json.dumps(payload or {}).encode()
    return Request(1, "shop", "shop-1", "customer-db", action, data, 1_000_000, {"region": "eu"})


def test_rows_come_as_json(database: str) -> None:
    """By the columns' names; what JSON has no form for is hexadecimal."""
    sql = provider(database)
    assert json.loads(sql(asked("read", {"id": 1}))) == [{"id": 1, "name": "Ada"}]
    assert json.loads(sql(asked("raw"))) == [{"raw": "00ff", "empty": None, "half": 1.5}]
    assert json.loads(sql(asked("all", b""))) == [{"id": 1}, {"id": 2}, {"id": 3}]


def test_what_the_grant_says_the_component_can_not(database: str) -> None:
    """Its region is the grant's, whatever it sends; values are never SQL."""
    sql = provider(database)
    assert json.loads(sql(asked("read", {"id": 3}))) == []
    assert json.loads(sql(asked("read", {"id": "1 or 1=1"}))) == []
    with pytest.raises(Refusal, match="not-permitted: grant_region"):
        sql(asked("read", {"id": 3, "grant_region": "us"}))


def test_what_writes_is_there_when_it_was_answered(database: str) -> None:
    """Committed, with the grant's region; a second time the database refuses it."""
    sql = provider(database)
    assert json.loads(sql(asked("add", {"id": 9, "name": "Emmy"}))) == {"changed": 1}
    with sqlite3.connect(database) as other:
        assert other.execute("select region, name from customers where id = 9").fetchall() == [("eu", "Emmy")]
    other.close()
    with pytest.raises(Refusal, match="invalid: the database refuses it"):
        sql(asked("add", {"id": 9, "name": "Emmy"}))


def test_what_only_reads_can_not_write(database: str) -> None:
    """Whatever its statement says: the connection can't."""
    sql = provider(database)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        sql(asked("wipe"))
    assert len(json.loads(sql(asked("all")))) == 3


@pytest.mark.parametrize(
    ("action", "payload", "said"),
    [
        ("read", {}, "invalid: You did not supply a value"),
        ("read", b"{", "invalid: the parameters are not JSON"),
        ("read", b"[1]", "invalid: the parameters are not a JSON object"),
        ("read", {"id": [1]}, "invalid: id: a text, a number"),
        ("read", {"id": 2**70}, "invalid: a value that the database can't hold"),
        ("read", {"id": "\ud800"}, "invalid: a value that the database can't hold"),
        ("other", {}, "invalid: there is no action other"),
    ],
)
def test_what_can_not_be_is_refused_in_words(database: str, action: str, payload: object, said: str) -> None:
    """Each is the component's mistake, and told as that."""
    with pytest.raises(Refusal) as raised:
        provider(database)(asked(action, payload))
    assert str(raised.value).startswith(said)


def test_rows_are_bounded_and_a_busy_database_is_unavailable(database: str) -> None:
    """More rows than the operator allows are none; who waits for a lock is told to come back."""
    with pytest.raises(Refusal, match="too-large: more than 2 rows"):
        provider(database, max_rows=2)(asked("all"))
    sql = provider(database)
    sql.writing.execute("pragma busy_timeout = 1")
    other = sqlite3.connect(database, isolation_level=None)
    other.execute("begin exclusive")
    with pytest.raises(Refusal, match="unavailable: the database is busy"):
        sql(asked("add", {"id": 9, "name": "Emmy"}))
    other.close()


def test_settings_that_can_not_be_are_told_at_the_start(database: str) -> None:
    """A statement that is none, a table that isn't there, an action to write that there isn't, no such file."""
    for actions, said in (
        ({"x": "selekt 1"}, "actions.x: near"),
        ({"x": "select * from y"}, "actions.x: no such table"),
    ):
        with pytest.raises(ValueError, match=said):
            provider(database, actions=actions, writes=[])
    with pytest.raises(ValueError, match="writes: there is no action nothing"):
        provider(database, writes=["nothing"])
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        provider(f"{database}.none")
