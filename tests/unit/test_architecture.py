"""docs/ARCHITECTURE.md says what is: its picture is the table's, its invariants have tests, its file names exist."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

from supervisor.fleet import change_over, lifecycle
from supervisor.run import machine as run_machine

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "ARCHITECTURE.md").read_text()


def _modules(*words: str) -> Iterator[tuple[Path, ast.Module]]:
    """Yield our modules whose text has one of these words: in no other one can a name be it."""
    for package in ("ipc", "worker", "supervisor"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if any(word in (text := path.read_text()) for word in words):
                yield path, ast.parse(text)


def _imports(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def _imported_modules(tree: ast.Module, modules: set[str]) -> set[str]:
    """Return which of our modules a module imports, wherever in it that stands, and for types alone, too."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inner & modules or {node.module}
    return found & modules


def test_no_modules_import_each_other_in_a_circle() -> None:
    """What is below knows nothing of what is above it: neither when it is imported, nor when a function runs, nor for a
    type. Whoever reads a module has read what it rests on before, and no order of imports makes a difference."""
    trees = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): tree
        for path, tree in _modules("")
    }
    imports = {name: _imported_modules(tree, set(trees)) - {name} for name, tree in trees.items()}
    left = set(imports)
    # What rests on nothing that is left can't be in a circle; nor what nothing left rests on.
    while free := {name for name in left if not imports[name] & left}:
        left -= free
    while free := left.difference(*(imports[name] for name in left)):
        left -= free
    assert {name: sorted(imports[name] & left) for name in sorted(left)} == {}


def test_the_picture_is_the_tables() -> None:
    """The state diagrams in the document are those that the tables of a run, a component and an upgrade give."""
    assert run_machine.diagram() in TEXT
    assert lifecycle.diagram() in TEXT
    assert change_over.diagram() in TEXT


def test_each_invariant_names_a_test_that_exists() -> None:
    """Every guard in the table of invariants is a test file, and the test named in it is there."""
    table = TEXT.split("## Invariants", 1)[1].split("\n## ", 1)[0]
    guards = re.findall(r"`(tests/[^`]+)`", table)
    assert len(guards) >= 10
    for guard in guards:
        file, _, name = guard.partition("::")
        assert (ROOT / file).is_file(), guard
        assert not name or f"def {name}(" in (ROOT / file).read_text(), guard


def test_only_worker_opens_the_engine() -> None:
    """Neither supervisor nor ipc can parse or compile component bytes: one module, the workers', names its library.

    Its package is imported for actors, for calls, and to read a component's functions.
    """
    modules = _modules("wasmtime")
    importing = {
        str(path.relative_to(ROOT))
        for path, tree in modules
        if any(name.split(".")[0] == "wasmtime" for name in _imports(tree))
    }
    assert importing == {f"worker/{name}.py" for name in ("abi", "actor", "engine_package", "exported", "value_memory")}
    naming = {
        str(path.relative_to(ROOT))
        for path, tree in _modules("libwasmtime")
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and "libwasmtime" in str(node.value)
    }
    assert naming == {"worker/engine_api.py"}


def test_nothing_is_unpickled() -> None:
    """No module of ours calls a loader of pickles, and only the zygote's launcher makes one (supervisor to zygote)."""
    calls = set()
    loaders = ("pickle", "dill", "marshal", "shelve", "reduction")
    for path, tree in _modules(*loaders):
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in ("loads", "load", "Unpickler"):
                owner = node.value.id if isinstance(node.value, ast.Name) else ""
                if owner in loaders:
                    calls.add(str(path.relative_to(ROOT)))
    assert calls == set()
    pickling = {
        str(path.relative_to(ROOT))
        for path, tree in _modules(*loaders)
        if _imports(tree) & {"pickle", "dill"} or "reduction.dump" in path.read_text()
    }
    assert pickling <= {"supervisor/host/zygote.py"}


def _in_the_map() -> set[str]:
    """Return the paths that the code map names: two columns further in is one directory deeper."""
    found: set[str] = set()
    within = {0: ""}
    for line in TEXT.split("## Where things are", 1)[1].split("```", 2)[1].splitlines():
        names = re.match(r"( *)((?:[\w./]+ )+) ", line + "  ")
        if names is None:
            continue
        depth = len(names[1]) // 2
        for name in names[2].split():
            path = os.path.normpath(os.path.join(within[depth], name))
            found.add(path)
            if name.endswith("/"):
                within[depth + 1] = path
    return found


def test_files_named_in_the_map_exist() -> None:
    """Every Python file and directory that the code map names is there."""
    assert sorted(path for path in _in_the_map() if not (ROOT / path).exists()) == []


def test_every_module_is_in_the_map() -> None:
    """Each module by its name, or with all of its directory where the map says nothing more of that."""
    named = _in_the_map()
    whole = tuple(
        f"{path}/" for path in named if not path.endswith(".py") and not any(e.startswith(f"{path}/") for e in named)
    )
    modules = {
        str(path.relative_to(ROOT))
        for package in ("ipc", "worker", "supervisor")
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py" and path.parent.name != "cli"
    }
    assert sorted(path for path in modules - named if not path.startswith(whole)) == []
