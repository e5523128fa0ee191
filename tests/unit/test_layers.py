"""The architecture as a rule: imports point down, and each foreign library is entered in one place.

Source: docs/explanation/architecture.md, which names the layers.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "sarrapipe"

LAYERS = {
    "errors": -1, "units": 0, "clock": 0, "log": 0, "native": 0, "crashpoints": 0, "_twin": -1,
    "message": 1,
    "config": 2, "shm": 2, "segment": 2, "ledger": 2,
    "broker": 3, "transfer": 3,
    "pump": 4,
    "callbacks": 5,
    "flow": 6,
    "supervisor": 7, "instance": 8,
    "cli": 9, "__main__": 10,
}  # fmt: skip

ONLY_IN = {"pika": "broker", "pycurl": "transfer", "paramiko": "transfer", "lmdb": "ledger", "click": "cli"}

# One declared option is file key and flag: config makes click options, outside the flow's path.
CLICK_ALSO_IN = {"config"}


def _part(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def _imports(path: Path) -> list[tuple[int, str]]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append((node.lineno, node.module))
    return found


MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    mine = _part(path)
    assert mine in LAYERS, f"{mine} has no layer: add it here and in docs/explanation/architecture.md"
    for line, name in _imports(path):
        if name.startswith("sarrapipe."):
            theirs = name.split(".")[1]
            if theirs in ("_native", mine):
                continue
            assert LAYERS[theirs] < LAYERS[mine], f"{path.name}:{line}: {name} is not below {mine}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_each_library_is_entered_in_one_package(path):
    for line, name in _imports(path):
        home = ONLY_IN.get(name.split(".")[0])
        if name.split(".")[0] == "click" and _part(path) in CLICK_ALSO_IN:
            continue
        assert home is None or _part(path) == home, f"{path.name}:{line} imports {name} outside {home}/"


def test_every_import_is_absolute():
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}:{node.lineno}"
