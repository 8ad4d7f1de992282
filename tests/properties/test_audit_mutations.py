"""Ten thousand random changes of an audit log, whole or pruned, are all found by verification."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ipc.audit.event import SUPERVISOR, AuditEvent
from ipc.struct import Struct
from supervisor.audit.heads import heads_path
from supervisor.audit.log import AuditLog
from supervisor.audit.retention import AuditRetention
from supervisor.audit.segments import segment_names
from supervisor.audit.verify import verify_log

MUTATIONS = 2_500
"""For each of four seeds."""

Files = dict[str, bytes]


class Specimen(Struct):
    """A log in its directory, and what its files should hold."""

    directory: str
    files: Files

    def put(self, files: Files) -> None:
        """Make the segments what `files` says; only what differs is touched."""
        for name in self.files.keys() | files.keys():
            if self.files.get(name) == files.get(name):
                continue
            path = os.path.join(self.directory, name)
            if name not in files:
                os.unlink(path)
                continue
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.write(descriptor, files[name])
            os.close(descriptor)
        self.files = files


def specimen(directory: Path, *, pruned: bool) -> Specimen:
    """Make a log of a few segments; `pruned`: its first two are gone, as a record in it says."""
    log = AuditLog(str(directory), segment_bytes=3700)
    for number in range(16):
        event = AuditEvent("made", component="c", resource=f"/data/{number}", detail={"n": number})
        log.append([(event, SUPERVISOR)])
        if pruned and number == 12:
            for name in segment_names(str(directory))[:2]:
                os.utime(directory / name, (0, 0))
            log.prune(AuditRetention(86_400 * 10**9, None), "older than a day", "")
    log.close()
    files = {name: (directory / name).read_bytes() for name in segment_names(str(directory))}
    assert len(files) >= 3
    assert (min(files) != "audit-0000000000000001.jsonl") is pruned
    return Specimen(str(directory), files)


def _lines(files: Files) -> list[tuple[str, bytes]]:
    return [(name, line) for name in sorted(files) for line in files[name].splitlines(keepends=True)]


def _joined(lines: list[tuple[str, bytes]], like: Files) -> Files:
    return {name: b"".join(line for other, line in lines if other == name) for name in like}


def flip_bit(files: Files, chooser: random.Random) -> Files:
    """One bit of one byte."""
    name = chooser.choice(sorted(files))
    data = bytearray(files[name])
    data[chooser.randrange(len(data))] ^= 1 << chooser.randrange(8)
    return {**files, name: bytes(data)}


def delete_bytes(files: Files, chooser: random.Random) -> Files:
    """One byte to a hundred."""
    name = chooser.choice(sorted(files))
    data = files[name]
    at = chooser.randrange(len(data))
    return {**files, name: data[:at] + data[at + chooser.randrange(1, 100) :]}


def insert_bytes(files: Files, chooser: random.Random) -> Files:
    """Random bytes, newlines among them, or a piece of the log itself."""
    name = chooser.choice(sorted(files))
    data = files[name]
    at, start = chooser.randrange(len(data) + 1), chooser.randrange(len(data))
    pieces = (
        chooser.randbytes(chooser.randrange(1, 100)),
        b"\n",
        b" ",
        data[start : start + chooser.randrange(1, 900)],
    )
    return {**files, name: data[:at] + chooser.choice(pieces) + data[at:]}


def swap_lines(files: Files, chooser: random.Random) -> Files:
    """Two lines, wherever they stand."""
    lines = _lines(files)
    one, other = chooser.sample(range(len(lines)), 2)
    moved = (lines[one][0], lines[other][1]), (lines[other][0], lines[one][1])
    lines[one], lines[other] = moved
    return _joined(lines, files)


def duplicate_line(files: Files, chooser: random.Random) -> Files:
    """A line stands twice, behind itself or elsewhere."""
    lines = _lines(files)
    place = chooser.choice(range(len(lines)))
    target = chooser.choice([place, chooser.randrange(len(lines))])
    lines.insert(target, (lines[target][0], lines[place][1]))
    return _joined(lines, files)


def remove_lines(files: Files, chooser: random.Random) -> Files:
    """One to three neighbouring lines are gone."""
    lines = _lines(files)
    place = chooser.randrange(len(lines))
    del lines[place : place + chooser.randrange(1, 4)]
    return _joined(lines, files)


def remove_segments(files: Files, chooser: random.Random) -> Files:
    """One segment or several, from the beginning, the middle or the end."""
    names = sorted(files)
    place = chooser.randrange(len(names))
    gone = names[place : place + chooser.randrange(1, len(names) + 1)]
    return {name: data for name, data in files.items() if name not in gone}


def swap_segments(files: Files, chooser: random.Random) -> Files:
    """Two segments change names."""
    one, other = chooser.sample(sorted(files), 2)
    return {**files, one: files[other], other: files[one]}


def truncate(files: Files, chooser: random.Random) -> Files:
    """The end of the log is gone, from any byte or any line on; found against the head that is kept apart."""
    names = sorted(files)
    place = chooser.randrange(len(names))
    data = files[names[place]]
    boundaries = [at + 1 for at, byte in enumerate(data) if byte == 10][:-1]
    at = chooser.choice([0, chooser.randrange(len(data)), *boundaries])
    return {**{name: files[name] for name in names[:place]}, names[place]: data[:at]}


def forge_line(files: Files, chooser: random.Random) -> Files:
    """A record says something else, and is a good record as far as one line can tell."""
    lines = _lines(files)
    place = chooser.randrange(len(lines))
    name, line = lines[place]
    one, other = chooser.choice([(b"/data/", b"/date/"), (b'"made"', b'"mode"'), (b'"count":1', b'"count":2')])
    lines[place] = (name, line.replace(one, other) if one in line else line.replace(b'"info"', b'"allowed"'))
    return _joined(lines, files)


KINDS: tuple[Callable[[Files, random.Random], Files], ...] = (
    flip_bit,
    delete_bytes,
    insert_bytes,
    swap_lines,
    duplicate_line,
    remove_lines,
    remove_segments,
    swap_segments,
    truncate,
    forge_line,
)


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where there is one: ten thousand logs are written here."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else tmp_path) as path:
        yield Path(path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_every_mutation_is_found(in_memory: Path, seed: int) -> None:
    """2,500 changes a seed, of ten kinds, of a whole and of a pruned log; the unchanged logs are intact."""
    chooser = random.Random(seed)
    specimens = [specimen(in_memory / str(pruned), pruned=pruned) for pruned in (False, True)]
    found = 0
    while found < MUTATIONS:
        log = specimens[found % 2]
        original, kind = log.files, KINDS[found // 2 % len(KINDS)]
        mutated = kind(original, chooser)
        if mutated == original:
            continue
        log.put(mutated)
        assert verify_log(log.directory).fault is not None, f"seed {seed}, mutation {found}, {kind.__name__}"
        log.put(original)
        found += 1
    for log in specimens:
        assert verify_log(log.directory).fault is None


def test_every_mutation_of_the_heads_is_found(tmp_path: Path) -> None:
    """A bit of any recorded head flipped is found; a last line that a crash cut short is no damage."""
    log = specimen(tmp_path / "a", pruned=True)
    path = Path(heads_path(log.directory))
    data = path.read_bytes()
    assert len(data.splitlines()) >= 3
    for at in range(len(data)):
        mutated = bytearray(data)
        mutated[at] ^= 1 << at % 8
        path.write_bytes(mutated)
        assert verify_log(log.directory).fault is not None, at
    path.write_bytes(data + data[:50])
    assert verify_log(log.directory).fault is None


def test_without_the_recorded_heads_a_missing_end_shows_nowhere(tmp_path: Path) -> None:
    """The control: the same cut is found by the head kept apart, and by nothing else; verification says it is blind."""
    log = specimen(tmp_path / "a", pruned=False)
    last = max(log.files)
    whole = log.files
    cut = {**whole, last: b"".join(whole[last].splitlines(keepends=True)[:-1])}
    log.put(cut)
    report = verify_log(log.directory)
    assert report.fault is not None
    assert report.fault.kind == "missing"
    os.unlink(heads_path(log.directory))
    report = verify_log(log.directory)
    assert (report.fault, report.heads) == (None, False)
