"""Following the chain of an audit log, line by line. Pure: lines are passed in, the first bad one is a fault."""

from __future__ import annotations

import hashlib

from ipc.audit.event import GENESIS_HASH, parse_line
from ipc.struct import Struct, field
from supervisor.audit.heads import Head
from supervisor.audit.segments import PRUNED, SEALED, first_seq_of


class Fault(Struct, frozen=True):
    """The first place where the log is not what was written.

    `kind`: parse, hash, seq, torn, missing, head, heads, seal or pruned.
    """

    file: str
    line: int
    kind: str
    reason: str


class Pruned(Struct, frozen=True):
    """What the log says of records that were removed: all up to `last`, the latest of them by record `seq`."""

    last: Head
    seq: int


class FaultError(Exception):
    """Carries a fault up."""

    def __init__(self, fault: Fault) -> None:
        """Keep the fault."""
        super().__init__(fault.reason)
        self.fault = fault


class Chain(Struct):
    """How far the chain has been followed. `expected`: hashes that records must have, by number."""

    expected: dict[int, set[str]]
    seq: int = 0
    hash: str = GENESIS_HASH
    records: int = 0
    repairs: int = 0
    first_seq: int = 1
    start: str = GENESIS_HASH
    pruned: Pruned | None = None
    _first_name: str = ""
    _name: str = ""
    _line: int = 0
    _sealed: bool = True
    _ends: dict[int, str] = field(default_factory=dict)

    def fault(self, kind: str, reason: str) -> FaultError:
        """Return a fault at the place where the chain is."""
        return FaultError(Fault(self._name, self._line, kind, reason))

    def begin(self, name: str) -> None:
        """Step into the next segment; FaultError."""
        first_seq = first_seq_of(name)
        first = not self._name
        sealed = self._sealed
        self._name, self._line, self._sealed = name, 1, False
        if first:
            self._first_name = name
            # What was before it may have been pruned; `finish` finds out.
            self.first_seq, self.seq = first_seq, first_seq - 1
            self.start = self.hash = GENESIS_HASH if first_seq == 1 else ""
        elif not sealed:
            raise self.fault("seal", "the segment before this one was never sealed")
        elif first_seq != self.seq + 1:
            reason = f"expected a segment that begins with record {self.seq + 1}: a segment is missing or was renamed"
            raise self.fault("missing", reason)
        self._line = 0

    def follow(self, line: bytes) -> None:
        """Check one line against what came before it, and step on it; FaultError."""
        self._line += 1
        if not line.endswith(b"\n"):
            raise self.fault("torn", "the line has no end: a write was cut short here")
        try:
            values = parse_line(line)
        except ValueError as error:
            raise self.fault("parse", str(error)) from None
        seq, prev = values["seq"], str(values["prev"])
        if self._sealed:
            raise self.fault("seal", f"record {seq} stands behind the seal of its segment")
        if seq != self.seq + 1:
            reason = f"expected record {self.seq + 1}, found {seq}: records are missing or out of order"
            raise self.fault("seq", reason)
        if not self.hash:
            self.start = self.hash = prev
        if prev != self.hash:
            reason = f"record {seq} does not follow from what stands before it: that was changed, or this record was"
            raise self.fault("hash", reason)
        self.seq += 1
        self.hash = hashlib.sha256(line).hexdigest()
        self.records += 1
        if values["producer"] == "supervisor":
            self._note(str(values["event"]), values["detail"])
        for other in self.expected.get(self.seq, ()):
            if other != self.hash:
                raise self.fault("head", f"record {self.seq} is not the one that was written: its hash was {other}")

    def _note(self, event: str, detail: object) -> None:
        if event == "log_repaired":
            self.repairs += 1
        elif event == SEALED:
            if not isinstance(detail, dict) or detail.get("records") != self._line - 1:
                raise self.fault("seal", "the seal counts other records than the segment has")
            self._sealed = True
            self._ends[self.seq] = self.hash
        elif event == PRUNED and isinstance(detail, dict):
            last_seq, last_hash = detail.get("last_seq"), detail.get("last_hash")
            if type(last_seq) is int and type(last_hash) is str and last_seq < self.seq:
                self.pruned = Pruned(Head(last_seq, last_hash), self.seq)

    def end(self, last: bool) -> None:
        """Leave a segment, which must be sealed unless it is the last; FaultError."""
        if not last and not self._sealed:
            self._line += 1
            raise self.fault("seal", "the segment ends without its seal")

    def finish(self) -> None:
        """Check what only the whole log tells: its beginning, and that its end is all that was written; FaultError."""
        self._check_beginning()
        missing = max(self.expected, default=0)
        if missing > self.seq:
            self._name, self._line = self._name or "the log", self._line + 1
            reason = f"the log ends with record {self.seq}, but record {missing} was written: the end is missing"
            raise self.fault("missing", reason)

    def _check_beginning(self) -> None:
        before, pruned = self.first_seq - 1, self.pruned
        if pruned is not None and pruned.last.seq >= before:
            # Where a pruning was cut short, its last record may still be there, at the end of a segment.
            found = self.start if pruned.last.seq == before else self._ends.get(pruned.last.seq, "")
            if found != pruned.last.hash:
                self._name, self._line = self._first_name, 1
                raise self.fault("pruned", f"record {pruned.last.seq} was pruned with another hash: {pruned.last.hash}")
        elif before:
            self._name, self._line = self._first_name, 1
            reason = f"the log begins with record {before + 1}, and no record says that those before it were pruned"
            raise self.fault("missing", reason)
        for other in self.expected.get(before, ()):
            if self.start and other != self.start:
                self._name, self._line = self._first_name, 1
                raise self.fault("head", f"record {before} was pruned, and its hash was {other}")
