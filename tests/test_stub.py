"""The stub of the extension names what the extension has, with its arguments."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import lamina
from lamina import _C

STUB = Path(lamina.__file__).with_name("_C.pyi")


def arguments(signature: str) -> list[str]:
    """The names in `f(a: int, b: tuple[int, int] = ...) -> None`."""
    inside = signature[signature.index("(") + 1 : signature.rindex(")")]
    while (flat := re.sub(r"\[[^\[\]]*\]|\([^()]*\)", "", inside)) != inside:
        inside = flat
    return [part.split(":")[0].strip() for part in inside.split(",") if part.strip()]


def stub_functions(nodes: list[ast.stmt]) -> dict[str, list[str]]:
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    return {f.name: list(_names(f.args)) for f in functions}


def _names(given: ast.arguments) -> Iterator[str]:
    yield from (a.arg for a in given.args if a.arg != "self")
    for stars, several in (("*", given.vararg), ("**", given.kwarg)):
        if several is not None:
            yield stars + several.arg


def test_functions_and_their_arguments():
    found = {
        name: arguments(value.__doc__.splitlines()[0].replace("\n", " "))
        for name, value in inspect.getmembers(_C, inspect.isbuiltin)
    }
    assert stub_functions(ast.parse(STUB.read_text()).body) == found


def test_classes():
    tree = ast.parse(STUB.read_text())
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    assert set(classes) == {name for name, _ in inspect.getmembers(_C, inspect.isclass)}
    for name, node in classes.items():
        public = {m for m in dir(getattr(_C, name)) if not m.startswith("_")}
        assert public == {f for f in stub_functions(node.body) if not f.startswith("_")}
