"""Docs that cannot rot: every module stands in the picture's page, every method of a contract says what it promises."""

from __future__ import annotations

import ast
from pathlib import Path

import visp

ROOT = Path(visp.__file__).parent
DOCS = Path(__file__).parents[2] / "docs"
CONTRACTS = ("store/base.py", "bus/base.py", "container/base.py", "runtime/base.py", "clock.py")


def test_every_module_stands_in_the_architecture() -> None:
    page = (DOCS / "architecture.md").read_text()
    modules = [
        path.relative_to(ROOT)
        for path in sorted(ROOT.rglob("*.py"))
        if path.parent != ROOT
        and path.parent.name not in ("cli", "client")
        and path.stem != "__init__"
        and path.parent.parent.name != "catalog"  # data: docs/catalog.md has it
    ]
    assert [str(path) for path in modules if f"`{path.name}`" not in page] == []


def test_every_method_of_a_contract_is_documented() -> None:
    missing = []
    for name in CONTRACTS:
        for node in ast.parse((ROOT / name).read_text()).body:
            if not isinstance(node, ast.ClassDef) or not any(
                getattr(base, "id", "") == "Protocol" for base in node.bases
            ):
                continue
            assert ast.get_docstring(node), f"{name}: {node.name}"
            methods = [part for part in node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)]
            missing += [f"{name}: {node.name}.{method.name}" for method in methods if not ast.get_docstring(method)]
    assert not missing, missing


def test_every_page_is_linked_from_another() -> None:
    pages = {path.relative_to(DOCS.parent) for path in DOCS.rglob("*.md")}
    text = "".join(path.read_text() for path in [DOCS.parent / "README.md", *DOCS.rglob("*.md")])
    assert [str(page) for page in pages if page.name not in text] == []
