"""No statement walks over a table: SQLite's plan of each one is read, and there is none that is not looked at.

What a plan does not tell, how many rows a search goes over, the steps of SQLite's machine do: they may not grow with
what is stored.
"""

from __future__ import annotations

import ast
import re
import sqlite3
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

import visp
from visp.entity.activation import ActivationHead, ActivationRecord
from visp.store import feeds, index, promises, sqlite, tallies
from visp.store.base import ActivationQuery, Document, EntityQuery, Put
from visp.store.index import ACTIVATION_MIGRATIONS, SqliteActivations
from visp.store.sqlite import ENTITY_MIGRATIONS, SqliteEntities

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from visp.store.database import Database, Migration

SOURCE = Path(visp.__file__).parent
MODULES = (sqlite, index, tallies, promises, feeds)
"""Those that have statements."""
SCRATCH = {"store/dump.py"}
"""Has a table of its own for the length of an import, which is asked for one key at a time."""
FOREIGN = {"feed/decoding.py", "feed/outbox.py", "feed/postgres.py"}
"""Ask a user's PostgreSQL, of which a source keeps nothing here."""
VERBS = re.compile(r"(SELECT|INSERT|UPDATE|DELETE|REPLACE|WITH)\s")
STATEMENT = re.compile(VERBS.pattern + r".*\b(FROM|INTO|SET|AS)\b", re.DOTALL)
"""What no other text looks like."""
OTHERS = ("PRAGMA", "BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE")
MIGRATIONS = ("_seal_entities", "_seal_progress", "make", "_migrate")
"""Functions that run once in the life of a file."""
BUILDERS = {
    index.put_activations: (1, 50),
    index.replace_activations: (1, 50),
    index.some_activations: (1, 200),
    tallies.add_tallies: (1, 50),
}
"""Functions that make a statement, and for how many rows they are asked here."""
PARTS = ("_page", "_records", "_after", "replace_activations", "some_activations")
"""Functions in which text of a statement may stand."""
VARIABLES = {("check.py", "sql"), ("index.py", "sql")}
"""Names that hold one of the constants."""

WALK = "a walk over everything is its purpose"
ONE_ROW = "the table has one row"
A_PAGE = "sorts no more than a page, and mostly finds it sorted"
STEP = "a step of a sweep: no more rows than its LIMIT"
ARGUED: dict[str, tuple[str, str]] = {
    "ALL_DOCUMENTS": (WALK, "SCAN documents"),
    "ALL_KEYS": (WALK, "SCAN keys"),
    "ALL_LIMITS": (WALK, "SCAN namespace_limits"),
    "ALL_ACTIVATIONS": (WALK, "SCAN activations"),
    "ALL_LETTERS": (WALK, "SCAN letters"),
    "ALL_PROMISES": (WALK, "SCAN promises"),
    "ALL_BATCHES": (WALK, "SCAN batches"),
    "ALL_FEEDS": (WALK, "SCAN feeds"),
    "RELEASE_ALL": (WALK, "SCAN feeds"),
    "GONE": ("a row for each process", "SCAN feed_holders"),
    "ALL_SUBSCRIPTIONS": (WALK, "SCAN subscriptions"),
    "SUBSCRIPTIONS_IN_ORDER": (WALK, "SCAN subscriptions"),
    "LARGE_RESULTS": (WALK, "SCAN activations"),
    "promises.MISCOUNTED": (WALK, "SCAN promise"),
    "tallies.MISCOUNTED": (WALK, "SCAN activations"),
    "FILL": ("runs once, as a migration", "SCAN"),
    "GET_LAST_REVISION": (ONE_ROW, "SCAN revisions"),
    "SET_LAST_REVISION": (ONE_ROW, "SCAN revisions"),
    "SUBJECT_CHANGES": (ONE_ROW, "SCAN subject_changes"),
    "PROGRESS": (ONE_ROW, "SCAN progress"),
    "ANY": ("its first row is enough", "SCAN feeds"),
    "OLDEST": (STEP, "SCAN activations"),
    "LIST_DOCUMENTS": (A_PAGE, "TEMP B-TREE FOR ORDER BY"),
    "LIST_ACTIVATIONS": (A_PAGE, "TEMP B-TREE FOR ORDER BY"),
    "LIST_OF_NAME": (A_PAGE, "TEMP B-TREE FOR ORDER BY"),
}
"""Why a statement may, and what it does."""


def constants(module: ModuleType) -> Iterator[tuple[str, str]]:
    """Name and text of each whole statement: those in dictionaries and tuples under the name of those."""
    for name, value in vars(module).items():
        if not name.isupper() or name.startswith("_"):
            continue
        held = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,)
        texts = [text for text in held if isinstance(text, str) and VERBS.match(text)]
        yield from ((name, text) for text in texts)


def statements() -> Iterator[Any]:
    for module in MODULES:
        short = module.__name__.rpartition(".")[2]
        for number, (name, text) in enumerate(constants(module)):
            own = f"{short}.{name}" if name == "MISCOUNTED" else name
            yield pytest.param(own, text, id=f"{own}-{number}")
    for builder, counts in BUILDERS.items():
        for count in counts:
            yield pytest.param(builder.__name__, builder(count), id=f"{builder.__name__}-{count}")


@pytest.fixture(scope="module")
def database() -> Iterator[sqlite3.Connection]:
    """All tables in one: their names differ."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    script: Migration
    for script in (*ENTITY_MIGRATIONS, *ACTIVATION_MIGRATIONS, *promises.MIGRATIONS):
        if isinstance(script, str):
            db.executescript(script)
        else:
            script(db)
    yield db
    db.close()


class Anything(dict[str, int]):
    def __missing__(self, key: str) -> int:
        return 1


def plan(db: sqlite3.Connection, sql: str) -> list[str]:
    values: Any = Anything() if ":low" in sql else (1,) * sql.count("?")
    return [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", values)]


@pytest.mark.parametrize(("name", "sql"), list(statements()))
def test_a_statement_walks_over_no_table_and_sorts_nothing(database: sqlite3.Connection, name: str, sql: str) -> None:
    tables = [row[0] for row in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    found = plan(database, sql)
    walks = [line for line in found if (seen := re.match(r"SCAN (?:TABLE )?(\w+)", line)) and seen[1] in tables]
    sorts = [line for line in found if "TEMP B-TREE FOR ORDER BY" in line]
    automatic = [line for line in found if "AUTOMATIC" in line]
    if name in ARGUED:
        assert any(ARGUED[name][1] in line for line in found), f"no need to argue: {found}"
        if "SCAN" not in ARGUED[name][1]:
            assert not walks
        return
    assert not walks + sorts + automatic


def test_what_is_argued_is_there() -> None:
    assert set(ARGUED) <= {param.values[0] for param in statements()}


# ── that these are all ──────────────────────────────────────────────────────────────────────────────────────────────


def trees() -> list[tuple[str, ast.Module]]:
    """Of the files in which there may be one."""
    left_out = SCRATCH | FOREIGN
    paths = [path for path in sorted(SOURCE.rglob("*.py")) if str(path.relative_to(SOURCE)) not in left_out]
    sources = [(str(path.relative_to(SOURCE)), path.read_text()) for path in paths]
    return [(path, ast.parse(text)) for path, text in sources if re.search(r"\.execute|\._rows|" + VERBS.pattern, text)]


def text_of(node: ast.AST) -> str | None:
    """The text of a literal, or what it begins with."""
    if isinstance(node, ast.JoinedStr):
        node = node.values[0] if node.values else node
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def functions(tree: ast.Module, *, but: tuple[str, ...] = ()) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name not in but:
            yield node


def test_statements_are_constants_of_the_modules_that_are_looked_at() -> None:
    known = {str(Path(module.__file__ or "").relative_to(SOURCE)) for module in MODULES}
    for path, tree in trees():
        where = functions(tree, but=(*PARTS, *MIGRATIONS)) if path in known else (tree,)
        texts = [text for part in where for node in ast.walk(part) if (text := text_of(node))]
        found = [text for text in texts if STATEMENT.match(text) and "sqlite_schema" not in text]
        assert not found, f"{path}: make it a constant of one of {sorted(known)}"


def test_only_whole_constants_are_executed() -> None:
    builders = {builder.__name__ for builder in BUILDERS}
    for path, tree in trees():
        migrations = [set(ast.walk(one)) for one in functions(tree) if one.name in MIGRATIONS]
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if node.func.attr not in ("execute", "executemany", "executescript", "_rows"):
                continue
            if any(node in migration for migration in migrations):
                continue
            what = node.args[0]
            if isinstance(what, ast.Subscript):
                what = what.value
            if isinstance(what, ast.IfExp):
                chosen: list[ast.expr] = [what.body, what.orelse]
            else:
                chosen = [what]
            for one in chosen:
                name = one.id if isinstance(one, ast.Name) else one.attr if isinstance(one, ast.Attribute) else ""
                text = text_of(one) or ""
                is_builder = isinstance(one, ast.Call) and ast.unparse(one.func).rpartition(".")[2] in builders
                assert (
                    (name.isupper() and not name.startswith("_"))
                    or (Path(path).name, name) in VARIABLES
                    or is_builder
                    or text.startswith(OTHERS)
                    or "sqlite_schema" in text
                ), f"{path}:{node.lineno}: {ast.unparse(what)}"


# ── how far a search goes ───────────────────────────────────────────────────────────────────────────────────────────

FEW, MANY = 2_000, 12_000
SLACK = 1.3
"""Deeper trees, and spans that are cut elsewhere."""
OLDEST_MS = 1_700_000_000_000


def steps(database: Database, *, of_writer: bool = False) -> list[int]:
    """What it counts from now on: the steps of the machine that reads, or writes, in its one element."""
    count = [0]

    def step() -> int:
        count[0] += 1
        return 0

    (database._to_write if of_writer else database._to_read).set_progress_handler(step, 1)
    return count


def document(number: int, count: int) -> Document:
    """Half of the actions in packages, fifty in a small one; three packages are published."""
    collection = ("actions", "packages", "triggers", "rules")[number % 8 if number % 8 < 4 else 0]
    package = None if number % 2 or collection != "actions" else "small" if number >= count - 200 else "large"
    return Document(
        id=f"ns/{package}/d{number}" if package else f"ns/d{number}",
        collection=collection,
        namespace="ns",
        package=package,
        name=f"d{number}",
        updated_ms=(number * 7919) % count,
        publish=number in (1, 9, 17),
        body=b"{}",
    )


ENTITY_READS = {
    "actions": EntityQuery(collection="actions", namespace="ns", limit=200),
    "actions, skip": EntityQuery(collection="actions", namespace="ns", skip=800, limit=200),
    "rules": EntityQuery(collection="rules", namespace="ns", limit=200),
    "of a small package": EntityQuery(collection="actions", namespace="ns", package="small", limit=30),
    "of a large package": EntityQuery(collection="actions", namespace="ns", package="large", limit=30),
    "of no package": EntityQuery(collection="actions", namespace="ns", package="none", limit=30),
    "published": EntityQuery(collection="packages", namespace="ns", only_published=True, limit=30),
    "of nobody": EntityQuery(collection="actions", namespace="nobody", limit=30),
}


async def entity_steps(folder: Path, count: int) -> dict[str, int]:
    store = await SqliteEntities.open(folder / f"{count}.db")
    try:
        await store.write([Put(document(number, count), None) for number in range(count)])
        counted = steps(store._database)
        reads: dict[str, Callable[[], Awaitable[object]]] = {
            what: (lambda query=query: store.list(query)) for what, query in ENTITY_READS.items()
        }
        reads["get"] = lambda: store.get("ns/d7")
        reads["count of a small package"] = lambda: store.count(ENTITY_READS["of no package"])
        reads["scan of rules"] = lambda: store.scan("rules", "", 100)
        return {what: await _counted(counted, read) for what, read in reads.items()}
    finally:
        await store.close()


async def _counted(count: list[int], read: Callable[[], Awaitable[object]]) -> int:
    count[0] = 0
    await read()
    return count[0]


async def test_a_read_of_entities_does_not_grow_with_what_is_stored(tmp_path: Path) -> None:
    few, many = [await entity_steps(tmp_path, count) for count in (FEW, MANY)]
    assert {what: (few[what], many[what]) for what in few if many[what] > few[what] * SLACK} == {}


def record(number: int, namespace: str = "ns") -> ActivationRecord:
    """Three a second; one in a hundred has a rare name."""
    start_ms = OLDEST_MS + number * 333
    head = ActivationHead(
        id=f"{start_ms:012x}{number:020x}",
        namespace=namespace,
        subject="who",
        name="rare" if number % 100 == 7 else "often",
        version="0.0.1",
        start_ms=start_ms,
        size=2,
    )
    return ActivationRecord(head=head, result=b"{}")


def record_reads(count: int) -> dict[str, ActivationQuery]:
    """Of so many records; what is deep is as deep as can be."""
    middle_ms = OLDEST_MS + count // 2 * 333
    return {
        "newest": ActivationQuery(namespace="ns", limit=200),
        "deep": ActivationQuery(namespace="ns", skip=count - 300, limit=200),
        "rare": ActivationQuery(namespace="ns", name="rare", limit=20),
        "none": ActivationQuery(namespace="ns", name="none", limit=20),
        "often, deep": ActivationQuery(namespace="ns", name="often", skip=count * 9 // 10, limit=30),
        "since": ActivationQuery(namespace="ns", since_ms=middle_ms, limit=30),
        "upto": ActivationQuery(namespace="ns", name="often", upto_ms=middle_ms, limit=30),
        "upto, deep": ActivationQuery(namespace="ns", upto_ms=middle_ms, skip=count // 4, limit=30),
    }


async def record_steps(folder: Path, count: int) -> dict[str, int]:
    store = await SqliteActivations.open(folder / f"activations-{count}.db")
    try:
        for at in range(0, count, 1_000):
            await store.put([record(number) for number in range(at, at + 1_000)], at)
        counted, reads = steps(store._database), record_reads(count)
        out = {what: await _counted(counted, lambda q=q: store.list(q)) for what, q in reads.items()}  # type: ignore[misc]
        for what, query in reads.items():
            out[f"count of {what}"] = await _counted(counted, lambda q=query: store.count(q))  # type: ignore[misc]
        id = record(count // 2).head.id
        out["get"] = await _counted(counted, lambda: store.get("ns", id))
        return out
    finally:
        await store.close()


async def test_a_read_of_records_does_not_grow_with_what_is_stored(tmp_path: Path) -> None:
    few, many = [await record_steps(tmp_path, count) for count in (FEW, MANY)]
    assert {what: (few[what], many[what]) for what in few if many[what] > few[what] * SLACK + 1_000} == {}


async def sweep_steps(folder: Path, count: int) -> dict[str, int]:
    """Half of the records are of a namespace that keeps them for ever, and the oldest are among them."""
    store = await SqliteActivations.open(folder / f"swept-{count}.db")
    try:
        for at in range(0, count, 1_000):
            some = range(at, at + 1_000)
            await store.put([record(number, "keeps" if number < count // 2 else "ns") for number in some], at)
        counted, removed = steps(store._database, of_writer=True), OLDEST_MS + (count // 2 + 10) * 333
        read = steps(store._database)
        out = {}
        for what, before_ms in (("nothing to remove", OLDEST_MS), ("ten to remove", removed)):
            read[0] = 0
            out[what] = await _counted(counted, lambda at=before_ms: store.sweep(at, 0, {"keeps": None}))  # type: ignore[misc]
            out[f"looking for {what}"] = read[0]
        assert await store.count(ActivationQuery(namespace="ns")) == count // 2 - 10
        return out
    finally:
        await store.close()


async def test_a_sweep_does_not_walk_over_what_it_keeps(tmp_path: Path) -> None:
    few, many = [await sweep_steps(tmp_path, count) for count in (FEW, MANY)]
    assert {what: (few[what], many[what]) for what in few if many[what] > few[what] * SLACK} == {}
