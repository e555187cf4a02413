"""The table of docs/architecture.md that says where to find what names files, classes and functions that exist."""

import ast
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| (?P<what>[^|]+) \| (?P<files>`genlab/[^|]+`) \| (?P<names>`[^|]+`) \|$", re.MULTILINE)
PLACES = [
    pytest.param(*found.group("files", "names"), id=found["what"])
    for found in ROW.finditer((REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8"))
]


def test_the_table_answers_what_a_newcomer_asks() -> None:
    assert len(PLACES) >= 20


@pytest.mark.parametrize(("files", "names"), PLACES)
def test_what_the_table_names_is_there(files: str, names: str) -> None:
    paths, dotted = re.findall(r"`([^`]+)`", files), re.findall(r"`([^`]+)`", names)
    for number, name in enumerate(dotted):
        path = REPOSITORY / paths[min(number, len(paths) - 1)]
        assert path.is_file(), f"docs/architecture.md: there is no {path.relative_to(REPOSITORY)}"
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert _defines(tree.body, name.split(".")), f"docs/architecture.md: {path.name} defines no {name}"


def _defines(body: Sequence[ast.stmt], name: Sequence[str]) -> bool:
    found = [
        node
        for node in body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name[0]
    ]
    return bool(found) and (len(name) == 1 or _defines(found[-1].body, name[1:]))
