"""The lazily completed dataclass behaves as the standard library's."""

import copy
import dataclasses
import pickle
import subprocess
import sys
import threading
from typing import ClassVar

import pytest

from ipc.lazy_dataclass import dataclass, field, field_names, has_default, replace


@dataclass(frozen=True, slots=True)
class Lazy:
    """A frozen value."""

    KIND: ClassVar[str] = "kind"
    name: str
    size_bytes: int = 7
    tags: tuple[str, ...] = field(default_factory=tuple, repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Eager:
    """The same by the standard library."""

    KIND: ClassVar[str] = "kind"
    name: str
    size_bytes: int = 7
    tags: tuple[str, ...] = dataclasses.field(default_factory=tuple, repr=False)


@dataclass(slots=True)
class Mutable:
    """A value that changes."""

    items: list[int] = field(default_factory=list)

    def __repr__(self) -> str:
        return "own"


def test_it_is_what_the_standard_library_makes() -> None:
    """Fields, representation, equality, hash, slots and match arguments agree with an eager twin."""
    lazy, eager = Lazy("a", tags=("t",)), Eager("a", tags=("t",))
    assert repr(lazy) == repr(eager).replace("Eager", "Lazy")
    assert hash(lazy) == hash(eager)
    assert dataclasses.asdict(lazy) == dataclasses.asdict(eager)
    assert [(f.name, f.default, f.repr) for f in dataclasses.fields(Lazy)] == [
        (f.name, f.default, f.repr) for f in dataclasses.fields(Eager)
    ]
    assert Lazy.__slots__ == Eager.__slots__
    assert Lazy.__match_args__ == Eager.__match_args__
    assert (Lazy.__name__, Lazy.__qualname__, Lazy.__doc__) == ("Lazy", "Lazy", "A frozen value.")
    assert lazy == Lazy("a", 7, ("t",))
    assert lazy != Lazy("b", 7, ("t",))
    assert lazy != eager
    assert Lazy.KIND == "kind"
    assert not hasattr(lazy, "__dict__")


def test_a_frozen_value_stays_as_it_is() -> None:
    """Neither assignment nor deletion works, and `replace` makes another value."""
    lazy = Lazy("a")
    with pytest.raises(dataclasses.FrozenInstanceError):
        lazy.name = "b"  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        del lazy.name  # type: ignore[misc]
    assert replace(lazy, name="b") == Lazy("b")
    assert lazy.name == "a"


def test_copies_and_pickles_are_equal() -> None:
    """A frozen slotted value survives pickle and copy."""
    lazy = Lazy("a", 3, ("t",))
    assert pickle.loads(pickle.dumps(lazy)) == lazy
    assert copy.deepcopy(lazy) == lazy


def test_init_takes_what_the_standard_one_takes() -> None:
    """Positions, names, defaults, factories, fields set afterwards and wrong arguments are as in an eager twin."""

    @dataclass(frozen=True, slots=True)
    class Late:
        """One field is set by the class itself."""

        name: str
        length: int = field(init=False)
        mark: str = field(default="m", compare=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "length", len(self.name))

    assert (Late("abc").length, Late("abc", "x").mark, Late.__match_args__) == (3, "x", ("name", "mark"))
    assert Late("a", "x") == Late("a", "y")
    assert (field_names(Late), has_default(Late, "mark"), has_default(Late, "name")) == (
        ("name", "length", "mark"),
        True,
        False,
    )
    assert (field_names(Eager), has_default(Eager, "tags"), field_names(str)) == (
        ("name", "size_bytes", "tags"),
        True,
        None,
    )
    for arguments, named in (((), {}), (("a", 1, (), 4), {}), (("a",), {"unknown": 1}), (("a",), {"name": "b"})):
        for cls in (Lazy, Eager):
            with pytest.raises(TypeError):
                cls(*arguments, **named)  # type: ignore[arg-type]


def test_a_mutable_one_keeps_its_own_methods() -> None:
    """What a class writes itself is kept; a mutable one can't be hashed and shares no default."""
    one, other = Mutable(), Mutable()
    one.items.append(1)
    assert (repr(one), one == other, other.items) == ("own", False, [])
    with pytest.raises(TypeError):
        hash(one)


@pytest.mark.parametrize("use", ["fields", "is_dataclass", "construct", "match"])
def test_whatever_is_used_first_completes_it(use: str) -> None:
    """The first use may be an instance as well as one of the functions of `dataclasses`."""

    @dataclass(frozen=True, slots=True)
    class Fresh:
        """A class that nobody has used."""

        name: str

    match use:
        case "fields":
            assert [f.name for f in dataclasses.fields(Fresh)] == ["name"]
        case "is_dataclass":
            assert dataclasses.is_dataclass(Fresh)
        case "construct":
            with pytest.raises(TypeError):
                Fresh()  # type: ignore[call-arg]
        case _:
            match Fresh("x"):
                case Fresh(name):
                    assert name == "x"
    assert Fresh("a") == Fresh("a")


def test_threads_that_meet_it_together_agree() -> None:
    """Many threads that make the first instance at the same time all get one."""

    @dataclass(frozen=True, slots=True)
    class Fresh:
        """A class that nobody has used."""

        name: str

    barrier = threading.Barrier(8)
    made: list[Fresh] = []

    def make() -> None:
        barrier.wait()
        made.append(Fresh("a"))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [Fresh("a")] * 8


def test_a_definition_and_an_instance_import_no_dataclasses() -> None:
    """Neither the class nor its instances need the standard module before something else of it is used."""
    code = (
        "import sys\nfrom ipc.lazy_dataclass import dataclass\n"
        "@dataclass(frozen=True, slots=True)\nclass A:\n    name: str\n"
        "assert 'dataclasses' not in sys.modules\nassert A('x').name == 'x'\nassert 'dataclasses' not in sys.modules\n"
        "assert A('x') == A('x')\nassert 'dataclasses' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_class_of_ours_can_be_completed() -> None:
    """No class waits with an error until it is used: each one in the three packages is a working dataclass."""
    import importlib
    import pkgutil

    import ipc
    import supervisor
    import worker

    seen = 0
    for package in (ipc, worker, supervisor):
        for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if found.name == "worker.zygote_preload":
                continue  # it prepares a process to be forked from
            module = importlib.import_module(found.name)
            for value in vars(module).values():
                if isinstance(value, type) and "__match_args__" in vars(value) and dataclasses.is_dataclass(value):
                    assert dataclasses.fields(value) is not None
                    seen += 1
    assert seen > 80
