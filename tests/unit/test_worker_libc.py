"""What a worker tells its C library, tried in a process of its own."""

import subprocess
import sys

import pytest

_MANY_THREADS = """
import ctypes, threading
from worker import libc
if {bounded}:
    libc.bound_arenas(4)
barrier = threading.Barrier(24)
c = ctypes.CDLL(None)
c.malloc.restype, c.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
kept = []
def take():
    barrier.wait()
    kept.append(c.malloc(100))
    barrier.wait()
threads = [threading.Thread(target=take) for _ in range(24)]
for thread in threads: thread.start()
for thread in threads: thread.join()
c.fdopen.restype, c.fdopen.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_char_p]
c.malloc_info.argtypes, c.fflush.argtypes = [ctypes.c_int, ctypes.c_void_p], [ctypes.c_void_p]
stream = c.fdopen(1, b"w")
c.malloc_info(0, stream)
c.fflush(stream)
"""


@pytest.mark.parametrize(("bounded", "few"), [(True, True), (False, False)])
def test_the_c_library_needs_no_file_to_bound_its_arenas(bounded: bool, few: bool) -> None:
    """With the bound given, many threads share that many arenas, so it never opens files to count processors."""
    code = _MANY_THREADS.format(bounded=bounded)
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout.count("<heap nr=") <= 4) == few
