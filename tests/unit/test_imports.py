"""The one import rule that import-linter cannot see, because the extension is no Python module."""

import ast
from pathlib import Path

import redisha

PACKAGE = Path(redisha.__file__).parent


def test_only_core_speaks_to_the_data_plane() -> None:
    importers = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if any("_core" in name.split(".") for name in _names(node))
    }
    assert importers <= {"core.py"}


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module or "", *(f"{node.module or ''}.{alias.name}" for alias in node.names)]
    return []
