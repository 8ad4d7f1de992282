"""What a warden leaves behind about a worker: a byte, and processors."""

from __future__ import annotations

import os

from ipc.hand_over import MARK_BYTES, clear_cpus, is_marked, make_mark, note_cpus, noted_cpus, share_mark


def test_the_byte_and_the_processors_do_not_touch() -> None:
    """Both are seen by whoever shares the mark, and neither changes the other."""
    descriptor = make_mark()
    try:
        ours, next_ones = share_mark(descriptor), share_mark(descriptor)
        assert not is_marked(descriptor)
        assert noted_cpus(next_ones) is None
        note_cpus(ours, 8191, {0, 5, 8191})
        assert noted_cpus(next_ones) == (8191, {0, 5, 8191})
        assert not is_marked(descriptor)
        ours[0] = 1
        clear_cpus(ours)
        assert noted_cpus(next_ones) is None
        assert is_marked(descriptor)
        note_cpus(ours, 0, {0, 1})
        assert noted_cpus(next_ones) == (0, {0, 1})
    finally:
        os.close(descriptor)


def test_memory_of_the_same_size_does_as_well() -> None:
    """What is not shared with anybody is read and written alike."""
    mark = bytearray(MARK_BYTES)
    note_cpus(mark, 1, {1, 2})
    assert noted_cpus(mark) == (1, {1, 2})
    clear_cpus(mark)
    assert noted_cpus(mark) is None
