"""A provider of custom capabilities: the statements that an operator named, on the operator's SQLite file.

A component never sends SQL. It names an action and gives values for the statement's parameters, as a JSON object; what
comes back is JSON, too: an array of rows, or of an action that writes how many were changed. A parameter `:grant_NAME`
is the value NAME of the grant's metadata, which the component can't choose.

Settings: `database`, the file; `actions`, a statement for each; `writes`, the actions that may write (all others have a
connection that can only read); `max_rows` (1000).
"""

from __future__ import annotations

import json
import sqlite3
from urllib.parse import quote

from ipc.provider import Refusal, Request

GRANT = "grant_"


class Anything(dict):
    """Has a value for every parameter: a statement is tried with it, before anybody asks."""

    def __missing__(self, name: str) -> None:
        """Nothing is a value, too."""


class Sql:
    """Made once, with the settings of airssys.toml; called for each request."""

    def __init__(self, settings: dict) -> None:
        """Open the file, and try each statement; what is raised here is told to the operator."""
        self.actions = dict(settings["actions"])
        self.writes = set(settings.get("writes", ()))
        self.max_rows = int(settings.get("max_rows", 1000))
        unknown = self.writes - self.actions.keys()
        if unknown:
            raise ValueError(f"writes: there is no action {', '.join(sorted(unknown))}")
        self.reading = connect(settings["database"], "ro")
        self.writing = connect(settings["database"], "rw") if self.writes else None
        for action, statement in self.actions.items():
            try:
                self._connection(action).execute(f"explain {statement}", Anything())
            except sqlite3.Error as error:
                raise ValueError(f"actions.{action}: {error}") from error

    def __call__(self, request: Request) -> bytes:
        """Do one action."""
        statement = self.actions.get(request.action)
        if statement is None:
            raise Refusal("invalid", f"there is no action {request.action}")
        values = parameters(request)
        connection = self._connection(request.action)
        try:
            with connection:  # committed, and on the disk, before it is answered
                cursor = connection.execute(statement, values)
                rows = cursor.fetchmany(self.max_rows + 1)
                changed = cursor.rowcount
        except sqlite3.ProgrammingError as error:
            raise Refusal("invalid", str(error)) from error  # a value that was not given
        except (OverflowError, UnicodeError) as error:
            raise Refusal("invalid", f"a value that the database can't hold ({type(error).__name__})") from error
        except sqlite3.IntegrityError as error:
            raise Refusal("invalid", f"the database refuses it: {error}") from error
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise Refusal("unavailable", "the database is busy") from error
            raise
        if len(rows) > self.max_rows:
            raise Refusal("too-large", f"more than {self.max_rows} rows")
        if request.action in self.writes and cursor.description is None:
            return json.dumps({"changed": changed}).encode()
        names = [column[0] for column in cursor.description]
        return json.dumps([dict(zip(names, row, strict=True)) for row in rows], default=bytes.hex).encode()

    def _connection(self, action: str) -> sqlite3.Connection:
        return self.writing if action in self.writes and self.writing is not None else self.reading


def connect(database: str, mode: str) -> sqlite3.Connection:
    """Open the file, which has to be there, to be read only or to be written, too (sqlite.org/uri.html)."""
    return sqlite3.connect(f"file:{quote(database)}?mode={mode}", uri=True, timeout=2)


def parameters(request: Request) -> dict:
    """Return the values for a statement: the component's own, and the grant's."""
    try:
        values = json.loads(request.payload or b"{}")
    except ValueError as error:
        raise Refusal("invalid", "the parameters are not JSON") from error
    if not isinstance(values, dict):
        raise Refusal("invalid", "the parameters are not a JSON object")
    for name, value in values.items():
        if name.startswith(GRANT):
            raise Refusal("not-permitted", f"{name}: what begins with {GRANT} is the grant's to say")
        if isinstance(value, dict | list):
            raise Refusal("invalid", f"{name}: a text, a number, true, false or null")
    return values | {f"{GRANT}{name}": value for name, value in request.metadata.items()}
