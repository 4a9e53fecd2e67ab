"""Imports follow the picture in docs/architecture.md: down, never up, never sideways."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import visp

ROOT = Path(visp.__file__).parent
PICTURE = Path(__file__).parents[2] / "docs" / "architecture.md"
BASES = ("base", "messages", "follow", "once")
"""Of an extension point, others import its contract only; `once` works over any driver."""
EXTENSION_POINTS = ("store", "bus", "container", "runtime", "feed")
COMPOSITION = (
    "roles",
    "shard",
    "neighbours",
    "doctor",
    "equipment",
    "care",
    "moving",
    "openwhisk",
)
"""The only rooms that may name implementations."""
SHARED_FROM_STORE = "visp.store.cache"
"""The one cache of entities, a reader of the store's contract and no implementation."""


def rooms() -> dict[str, frozenset[str]]:
    """From the table in the picture's page: room → rooms that it may import."""
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \|", PICTURE.read_text(), re.MULTILINE)
    return {room: frozenset(re.findall(r"`(\w+)`", allowed)) for room, allowed in rows}


def room_of(module: str) -> str:
    return module.split(".")[1]


def imports(path: Path) -> set[str]:
    """Modules of visp that a file imports, wherever in it, also for types."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names if name.name.startswith("visp.")}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "visp":
            assert node.level == 0, f"{path}: relative import"
            for name in node.names:
                found.add(f"{node.module}.{name.name}")
    return found


def module_of(path: Path) -> str:
    return ".".join(("visp", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


def is_visp_module(dotted: str) -> bool:
    parts = dotted.split(".")[1:]
    return (ROOT.joinpath(*parts).with_suffix(".py")).exists() or ROOT.joinpath(*parts).is_dir()


def target_of(dotted: str) -> str:
    """The module behind an imported name: the name itself, or what holds it."""
    return dotted if is_visp_module(dotted) else dotted.rpartition(".")[0]


FILES = [path for path in ROOT.rglob("*.py") if len(path.relative_to(ROOT).parts) > 1 or path.stem not in ("__init__",)]


def test_every_arrow_is_in_the_picture() -> None:
    allowed = rooms()
    wrong = []
    for path in FILES:
        module = module_of(path)
        room = room_of(module) if module != "visp" else "visp"
        if room == "__main__":
            continue
        assert room in allowed, f"{room} has no row in {PICTURE.name}"
        for name in imports(path):
            target = target_of(name)
            if target == "visp" or room_of(target) == room:
                continue
            if room_of(target) not in allowed[room]:
                wrong.append(f"{module} → {target}")
    assert not wrong, "\n".join(sorted(wrong))


def test_only_the_composition_names_implementations() -> None:
    wrong = []
    for path in FILES:
        module = module_of(path)
        room = room_of(module)
        if room in COMPOSITION:
            continue
        for name in imports(path):
            target = target_of(name)
            point = room_of(target) if target != "visp" else ""
            if point not in EXTENSION_POINTS or point == room or target == SHARED_FROM_STORE:
                continue
            if target.split(".")[-1] not in BASES:
                wrong.append(f"{module} → {target}")
    assert not wrong, "\n".join(sorted(wrong))


def test_pure_modules_import_nothing_that_acts() -> None:
    """Standard library without I/O, msgspec and pure parts of visp."""
    pure = [
        *(ROOT / "entity").glob("*.py"),
        *(ROOT / "invoker" / name for name in ("plan.py", "slot.py", "prewarm.py")),
    ]
    pure.append(ROOT / "scheduler" / "placement.py")
    banned = {"os", "socket", "subprocess", "asyncio", "time", "pathlib", "threading"}
    wrong = []
    for path in pure:
        for node in ast.parse(path.read_text()).body:  # what is under TYPE_CHECKING is nested and does not run
            names = []
            if isinstance(node, ast.Import):
                names = [name.name for name in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            wrong += [f"{path.name}: {name}" for name in names if name.split(".")[0] in banned]
    assert not wrong, wrong


def test_the_picture_has_no_circle() -> None:
    left = dict(rooms())
    while left:
        bottom = [room for room, allowed in left.items() if not allowed & left.keys()]
        assert bottom, f"these import one another: {sorted(left)}"
        for room in bottom:
            del left[room]
