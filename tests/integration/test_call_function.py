"""`airssys call TARGET FUNCTION`: any export of any component by its WIT types, JSON in and one document out."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import wasmtime

GUESTS = Path(__file__).resolve().parents[1] / "guests"
PADDING = (0,) * 16
"""What `functions.wat` has beside each value of a type."""


@pytest.fixture
def call(run: Any, wat: Callable[[str], Path]) -> Callable[..., Any]:
    """Call a function of `functions.wat` with these arguments, and return how that went."""
    program = wat("functions.wat")

    def called(function: str, *arguments: object, options: tuple[str, ...] = ()) -> Any:
        return run.other_command("call", program, function, "--json", json.dumps(arguments), *options)

    return called


VALUES: tuple[tuple[str, object], ...] = (
    ("bool", True),
    ("u8", 255),
    ("s8", -128),
    ("u16", 65535),
    ("s16", -32768),
    ("u32", 2**32 - 1),
    ("s32", -(2**31)),
    ("u64", 2**64 - 1),
    ("s64", -(2**63)),
    ("f32", 0.1),
    ("f64", "-Infinity"),
    ("char", "é"),
    ("string", "grüße\n"),
    ("bytes", "AAEC/w=="),
    ("list", ["a", "", "c"]),
    ("tuple", [7, "seven"]),
    ("record", {"x": -3, "y": 0.5}),
    ("variant", {"named": "it"}),
    ("variant", "none"),
    ("enum", "green"),
    ("flags", ["read", "write"]),
    ("option", None),
    ("option", 3),
    ("nested-option", None),
    ("nested-option", {"some": None}),
    ("nested-option", {"some": 3}),
    ("result", {"ok": 3}),
    ("result", {"error": "no"}),
    ("empty-result", {"error": None}),
)
THROUGH_A_WORKER = ("string", "bytes", "record", "flags")
CALLER = """
import ctypes, json, sys, tempfile
from ipc.messages import EngineSettings, FunctionCall, WorkerJob, WorkerLimits
from worker import engine_api as api
from worker.calling import Call
from worker.engine import COMPONENT, Runner, new_engine

settings = EngineSettings()
with open(sys.argv[1], "rb") as file:
    wasm = file.read()
component = api.made(api.component_new, new_engine(settings, None), wasm, len(wasm))
serialized = api.Bytes()
api.check(api.component_serialize(component, ctypes.byref(serialized)))
artifact = api.take_bytes(serialized)
runner = Runner.new(settings)
limits = WorkerLimits(memory_bytes=256 << 20, output_bytes=1 << 20)
for line in sys.stdin:
    function, arguments = json.loads(line)
    call = FunctionCall("", function, json.dumps(arguments).encode())
    job = WorkerJob("here", COMPONENT, (), (), (), limits, call=call)
    with tempfile.TemporaryFile() as output:
        finished = Call(runner, settings, job, artifact, output.fileno()).run()
        output.seek(0)
        document = output.read().decode()
    print(json.dumps([finished.outcome, finished.exit_code, finished.message, document]), flush=True)
"""
"""Calls as a worker does, one after the other; ended as a worker is, without taking its engine apart."""


@pytest.fixture(scope="module")
def called_here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """Call a function of `functions.wat` by what a worker calls with, all in one process; return its document."""
    program = tmp_path_factory.mktemp("called") / "functions.wasm"
    program.write_bytes(wasmtime.wat2wasm((GUESTS / "wat" / "functions.wat").read_text()))
    command = [sys.executable, "-I", "-c", CALLER, program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def called(function: str, *arguments: object) -> str:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps([function, arguments]) + "\n")
            process.stdin.flush()
            outcome, exit_code, message, document = json.loads(process.stdout.readline())
            assert (outcome, exit_code) == ("exited", 0), message
            return str(document)

        try:
            yield called
        finally:
            process.kill()


@pytest.mark.any_user
@pytest.mark.parametrize(("kind", "value"), VALUES)
def test_each_type_goes_there_and_back(called_here: Callable[..., str], kind: str, value: object) -> None:
    """A value of each kind of type passes through the guest's memory and is printed as it was given."""
    document = called_here(f"same-{kind}", [value, *PADDING])
    assert json.loads(document) == [value, *PADDING]
    assert document.endswith("]\n")
    assert document.count("\n") == 1


@pytest.mark.any_user
@pytest.mark.parametrize(
    ("kind", "value"), [each for each in VALUES if each[0] in ("string", "bytes", "record", "flags")]
)
def test_a_worker_gets_and_gives_the_same(call: Callable[..., Any], kind: str, value: object) -> None:
    """From the command line through a confined worker to standard output."""
    result = call(f"same-{kind}", [value, *PADDING])
    assert (result.code, json.loads(result.stdout)) == (0, [value, *PADDING]), result.stderr
    assert result.stdout.endswith(b"]\n")
    assert result.stdout.count(b"\n") == 1


@pytest.mark.any_user
def test_an_error_is_printed_and_is_one(call: Callable[..., Any]) -> None:
    """A result that is an error is the document, and the exit code 1; one that is well is 0; no result is null."""
    well, error, nothing = call("divide", 6, 2), call("divide", 6, 0), call("nothing")
    assert (well.code, well.stdout) == (0, b'{"ok": 3}\n'), well.stderr
    assert (error.code, error.stdout) == (1, b'{"error": "red"}\n'), error.stderr
    assert (nothing.code, nothing.stdout) == (0, b"null\n"), nothing.stderr


@pytest.mark.any_user
@pytest.mark.parametrize(
    "name", ["plus", "ops/plus", "docs:calc/ops/plus", "docs:calc/ops#plus", "docs:calc/ops@0.1.0#plus"]
)
def test_an_interface_is_named_in_each_way(call: Callable[..., Any], name: str) -> None:
    """In full, without its version, by its last part, or not at all where the function is alone."""
    assert (called := call(name, 1, -3)).stdout == b"-2\n", called.stderr


@pytest.mark.any_user
def test_the_root_comes_first_and_two_are_too_many(call: Callable[..., Any]) -> None:
    """A name without an interface is the root's; one that two interfaces have is refused, and both are named."""
    assert call("add", 1, 2).stdout == b"3\n"
    both = call("twice")
    assert both.code == 65
    assert "docs:calc/more@0.1.0#twice" in both.stderr
    assert "docs:calc/ops@0.1.0#twice" in both.stderr


@pytest.mark.any_user
@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        ("ad", (1, 2), "did you mean [A3005]\n  add: func(a: s32, b: s32) -> s32"),
        ("zzz", (), "it has no function zzz; there are add, nothing"),
        ("add", (1,), "it takes 2 arguments, not 1 [A3005]\n  it is add: func(a: s32, b: s32) -> s32"),
        ("add", (1, 2**31), "b: expected a whole number from -2147483648 to 2147483647 (s32), found 2147483648"),
        ("same-record", ([{"x": 1}, *PADDING],), 'value[0]: the field "y" is missing'),
        ("take-handle", (1,), "a resource, which is a handle and no value"),
        ("later", (), "it is async"),
    ],
)
def test_what_is_wrong_is_told(call: Callable[..., Any], function: str, arguments: tuple[Any, ...], words: str) -> None:
    """No such function, or other arguments: 65 before anything runs, with the place, and what there is."""
    result = call(function, *arguments)
    assert (result.code, result.stdout) == (65, b""), result.stderr
    assert words in result.stderr


def test_limits_hold(call: Callable[..., Any]) -> None:
    """Time and memory bound a call as they bound a run, and a trap is one; nothing is printed for a result."""
    ends = [call("spin", options=("--timeout", "300ms")), call("grow"), call("trap")]
    assert [(end.code, end.stdout) for end in ends] == [(75, b""), (75, b""), (134, b"")], [e.stderr for e in ends]
    large = call("many", 100_000)
    assert (large.code, len(json.loads(large.stdout))) == (0, 133_336), large.stderr
    larger = call("many", 60_000_000)
    assert (larger.code, larger.stdout) == (134, b""), larger.stderr
    assert "more than can be passed" in larger.stderr


@pytest.mark.any_user
def test_a_call_is_on_record_and_its_arguments_are_not(run: Any, call: Callable[..., Any]) -> None:
    """Each call is an instance with a start and an end in the log, where the function is named, and no argument."""
    assert call("same-string", ["s3cr3t-4711", *PADDING]).code == 0
    records = [record for record in run.records() if record.get("component") == "functions"]
    start = next(record for record in reversed(records) if record["event"] == "worker_starting")
    assert start["detail"]["function"] == "same-string"
    ends = [record for record in records if record["instance"] == start["instance"]]
    assert [record["event"] for record in ends][-1] == "worker_ended"
    assert "s3cr3t-4711" not in json.dumps(run.records())


@pytest.mark.any_user
def test_show_lists_the_signatures(run: Any, wat: Callable[[str], Path]) -> None:
    """`airssys show` says what can be called, for people and as JSON; of a handle, that it can't."""
    program = wat("functions.wat")
    shown = run.other_command("show", program)
    assert shown.code == 0
    lines = shown.stdout.decode().splitlines()
    assert "    docs:calc/ops@0.1.0#plus: func(a: s32, b: s32) -> s32" in lines
    assert "    divide: func(a: s32, b: s32) -> result<s32, enum { red, green }>" in lines
    functions = json.loads(run.other_command("show", program, "--json").stdout)["program"]["functions"]
    assert functions["nothing"] == "func()"
    assert "can't be called" in functions["take-handle"]


@pytest.mark.any_user
def test_arguments_come_from_a_file_or_standard_input(run: Any, wat: Callable[[str], Path]) -> None:
    """`--file` and `-` are the same arguments; without any there are none."""
    program = wat("functions.wat")
    arguments = run.file("arguments.json", "[20, 22]")
    assert run.other_command("call", program, "add", "--file", arguments).stdout == b"42\n"
    with run.command_line.start(
        "call", program, "add", "-", cwd=run.directory, AIRSSYS_STATE=str(run.state)
    ) as process:
        assert process.communicate(b"[1, 1]", 60)[0] == b"2\n"
    assert run.other_command("call", program, "nothing").stdout == b"null\n"


@pytest.mark.any_user
def test_what_is_called_is_a_component_with_functions(run: Any, wat: Callable[[str], Path]) -> None:
    """A core module has no types. Functions of an actor can be called; one that asks what only a broker has ends."""
    module, actor = wat("(module)"), wat("actor.wat")
    result = run.other_command("call", module, "f")
    assert (result.code, "core module" in result.stderr) == (65, True), result.stderr
    result = run.other_command("call", actor, "-q", "health")
    assert (result.code, result.stdout) == (0, b'"healthy"\n'), result.stderr
    logs = json.dumps([{"sender": "me", "payload": "bGhp", "topic": None, "wants-answer": True}])
    result = run.other_command("call", actor, "handle-message", "--json", logs)
    assert (result.code, result.stdout) == (134, b""), result.stderr
    assert "it asked airssys:core/host-services@1.0.0#log, which answers under `airssys up` alone" in result.stderr


@pytest.mark.any_user
@pytest.mark.parametrize(
    ("kind", "words"), [("char", "`char`"), ('(enum "a" "b")', "discriminant"), ("string", "out of bounds of memory")]
)
def test_a_result_that_is_no_value_is_a_trap(run: Any, wat: Callable[[str], Path], kind: str, words: str) -> None:
    """The component model's rules make it one, and it is nobody's failure but the guest's."""
    program = wat(f"""(component
        (core module $m (memory (export "m") 1) (func (export "f") (result i32) (i32.const 55296)
            (i32.store (i32.const 55296) (i32.const 65535)) (i32.store (i32.const 55300) (i32.const 9))))
        (core instance $i (instantiate $m))
        (type $kind {kind if "(" in kind else f"(option {kind})"}) (export $of "of" (type $kind))
        (func (export "f") (result {"$of" if "(" in kind else kind})
            (canon lift (core func $i "f") (memory (core memory $i "m")))))""")
    result = run.other_command("call", program, "f", "-q")
    assert (result.code, result.stdout) == (134, b""), result.stderr
    assert words in result.stderr


@pytest.mark.any_user
def test_a_name_takes_messages_and_a_path_has_functions(run: Any, wat: Callable[[str], Path]) -> None:
    """What belongs to the other of the two is refused, with how the other is written; what isn't installed is named."""
    absent = run.other_command("call", "counter", "add")
    assert (absent.code, absent.stderr.splitlines()[0]) == (65, "airssys: counter is not installed")
    program = wat("functions.wat")
    for arguments, words in (
        (("call", "counter", "--read", "in"), "runs already"),
        (("call", program), f"airssys show {program}"),
        (("call", program, "add", "--no-wait"), "message"),
        (("call", program, "ops/"), "no function is named"),
        (("call", program, "add", "-", "--json", "[]"), "exclude each other"),
    ):
        result = run.other_command(*arguments)
        assert result.code == 64, (arguments, result.stderr)
        assert words in result.stderr


MANIFEST = """schema = 1

[component]
name = "reader"
version = "1.0.0"
wasm = "tool.component.wasm"
args = ["cat", "/data/FILE"]

[parameters]
data = { type = "directory", description = "what it reads" }

[component.mounts]
"/data" = "${param.data}"

[capabilities.filesystem]
read = ["${param.data}/*.txt"]
"""


@pytest.mark.parametrize(("file", "code"), [("a.txt", 0), ("b.csv", 1)])
def test_a_directory_is_granted_what_it_asks(run: Any, file: str, code: int) -> None:
    """A component directory is called like it is run: files by the warden, and what it prints itself is on stderr."""
    directory = run.folder("component")
    shutil.copy(GUESTS / "tool.component.wasm", directory)
    (directory / "Component.toml").write_text(MANIFEST.replace("FILE", file))
    run.file("data/a.txt", "the data\n")
    run.file("data/b.csv", "other data\n")
    result = run.other_command("call", "./component", "run", "--set", "data=data", "--grant", "asked")
    assert "the data" not in result.stdout.decode()
    if code == 0:
        assert "the data" in result.stderr
        assert result.code == 0, result.stderr
    else:
        assert f"denied filesystem.read {run.directory}/data/b.csv [A1203" in result.stderr
        assert "other data" not in result.stderr
        assert result.code == 1


@pytest.mark.any_user
def test_types_that_explode_are_left_unread(run: Any, wat: Callable[[str], Path]) -> None:
    """A few lines that name a type 2 to the 15 times over: what can be told is told, the rest runs as ever."""
    doubled = "\n".join(f"(type $t{n} (tuple $t{n - 1} $t{n - 1}))" for n in range(1, 16))
    program = wat(
        f"""(component
          (core module $m (memory (export "memory") 1) (func (export "f") (param i32)) (func (export "g"))
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0)))
          (core instance $i (instantiate $m))
          (func (export "a") (canon lift (core func $i "g")))
          (type $t0 (tuple u8 u8)) {doubled}
          (func (export "f") (param "x" $t15) (param "y" $t15)
            (canon lift (core func $i "f") (memory (core memory $i "memory")) (realloc (core func $i "realloc"))))
          (func (export "z") (canon lift (core func $i "g"))))"""
    )
    assert (called := run.other_command("call", program, "a")).stdout == b"null\n", called.stderr
    refused = run.other_command("call", program, "f", "--json", "[1, 1]")
    assert (refused.code, "its types are too many" in refused.stderr) == (65, True), refused.stderr


@pytest.mark.any_user
def test_names_of_any_length_are_told_of_within_a_packet(run: Any, wat: Callable[[str], Path]) -> None:
    """Functions with names of thousands of characters: listed as far as there is room, and refused in words."""
    names = [f"a{'b' * 9000}{n}" for n in range(30)]
    functions = "\n".join(f'(func (export "{name}") (canon lift (core func $i "g")))' for name in names)
    program = wat(
        f"""(component (core module $m (func (export "g"))) (core instance $i (instantiate $m)) {functions})"""
    )
    assert run.other_command("show", program).code == 0
    result = run.other_command("call", program, "zz")
    assert (result.code, "it has no function zz" in result.stderr) == (65, True), result.stderr
    assert run.other_command("call", program, names[3]).stdout == b"null\n"
