"""The rules of the house: who may import or include whom, and what `import lamina` brings along.

Read from the sources (syntax tree and #include lines), so that a rule holds for every file, also
for imports inside functions and for files no test loads.
"""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PYTHON = ROOT / "python"
CSRC = ROOT / "csrc"

# A directory of csrc and those it may include; anything else in quotes is an error.
MAY_INCLUDE = {
    "core": {"core"},
    "shared": {"core", "ops", "shared"},
    "ops": {"core", "ops", "shared"},
    "ref": {"core", "ops", "ref", "shared"},
    "cpu": {"core", "cpu", "ops", "shared"},
    "cuda": {"core", "cuda", "ops", "shared", "simt"},
    "simt": {"simt"},
    "bindings": {"bindings", "core", "cuda", "ops", "shared", "simt"},
}

# Library code in an object of one instruction set would be merged with that of the others.
NOT_IN_CPU = {"algorithm", "functional", "iostream", "map", "memory", "string", "vector"}


def imports(path: Path, top: Path = PYTHON) -> Iterator[str]:
    """Absolute names of all that a file imports: `from .a import b` gives both `a` and `a.b`."""
    package = path.relative_to(top).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def includes(text: str) -> list[str]:
    """The arguments of #include, with their quotes or brackets."""
    return re.findall(r'^\s*#\s*include\s*(".*?"|<.*?>)', text, re.MULTILINE)


def files(directory: Path, *suffixes: str) -> list[Path]:
    found = sorted(p for p in directory.rglob("*") if p.suffix in suffixes)
    assert found, f"no {suffixes} in {directory}"
    return found


@functools.cache
def package_imports() -> dict[str, frozenset[str]]:
    """The imports of every file of the package, by its path inside it."""
    package = PYTHON / "lamina"
    return {
        path.relative_to(package).as_posix(): frozenset(imports(path))
        for path in files(package, ".py")
    }


def importers(name: str) -> set[str]:
    """Files of the package that import a module or anything below it."""
    return {
        path
        for path, names in package_imports().items()
        if any(n == name or n.startswith(name + ".") for n in names)
    }


def outside(paths: Iterable[str], *allowed: str) -> set[str]:
    """Those that are neither an allowed file nor in an allowed directory (written with a /)."""
    return {
        p
        for p in paths
        if p not in allowed and not any(a.endswith("/") and p.startswith(a) for a in allowed)
    }


def test_imports_are_found(tmp_path):
    path = tmp_path / "lamina" / "functional" / "sample.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "from .. import _C, nn as layers\nfrom ..nn.conv import Conv2d\n"
        "def f():\n    import cupy.cuda\n    from . import softmax\n    import a, b.c as d\n"
    )
    assert set(imports(path, tmp_path)) == {
        *("lamina", "lamina._C", "lamina.nn", "lamina.nn.conv", "lamina.nn.conv.Conv2d"),
        *("cupy.cuda", "lamina.functional", "lamina.functional.softmax", "a", "b.c"),
    }


def test_functional_never_imports_layers():
    below = ("functional/", "operations/", "arrays.py", "autograd.py", "tensor.py", "runtime.py")
    for name in ("lamina.nn", "lamina.optim", "lamina.bench"):
        assert {p for p in importers(name) if p not in outside([p], *below)} == set(), name


def test_layers_hold_parameters_and_call_functional_only():
    for name in ("lamina.optim", "lamina.bench", "lamina.data"):
        assert {p for p in importers(name) if p.startswith("nn/")} == set(), name


def test_who_imports_the_extension():
    users = importers("lamina._C")
    modules = ["arrays", "autograd", "autotuning", "known", "ops", "runtime", "tensor"]
    files = (f"{module}.py" for module in modules)
    assert outside(users, "functional/", "operations/", "bench/", *files) == set()
    assert "functional/conv.py" in users


def test_only_arrays_imports_cupy():
    assert importers("cupy") == {"arrays.py"}


@pytest.mark.parametrize("name", ["torch", "typer", "rich", "matplotlib", "sklearn"])
def test_tools_stay_in_bench_and_data(name):
    assert outside(importers(name), "bench/", "data/") == set()


def test_references_import_numpy_only():
    """The definitions must not lean on what they judge."""
    directory = ROOT / "tests" / "reference"
    for path in files(directory, ".py"):
        for name in imports(path, directory.parent):
            root = name.partition(".")[0]
            assert root in {*sys.stdlib_module_names, "numpy", "reference"}, f"{path.name}: {name}"


def test_includes_are_found():
    text = '#include <a>\n  # include "b/c.h"\n// #include "no"\nint x;\n#include"d"\n'
    assert includes(text) == ["<a>", '"b/c.h"', '"d"']


@pytest.mark.parametrize("directory", sorted(p.name for p in CSRC.iterdir() if p.is_dir()))
def test_include_directories(directory):
    for path in files(CSRC / directory, ".h", ".cpp", ".cu"):
        for name in includes(path.read_text()):
            if name.startswith('"'):
                assert name[1:].partition("/")[0] in MAY_INCLUDE[directory], f"{path}: {name}"


def test_kernel_files_share_no_type_names():
    """They share a namespace: of two types of one name the linker would keep one's functions."""
    where: dict[str, set[str]] = {}
    for path in files(CSRC / "cuda", ".h", ".cu"):
        # Definitions at the start of a line, not specialisations.
        pattern = r"^(?:struct|class)(?: alignas\(.*\))? (\w+)(?= |$)(?!.*;$)"
        for name in re.findall(pattern, path.read_text(), re.MULTILINE):
            where.setdefault(name, set()).add(path.name)
    assert len(where) > 20
    assert {name: places for name, places in where.items() if len(places) > 1} == {}


def test_only_bindings_know_python():
    for path in files(CSRC, ".h", ".cpp"):
        if CSRC / "bindings" not in path.parents:
            found = [n for n in includes(path.read_text()) if "pybind11" in n or "Python.h" in n]
            assert found == [], path


def test_cpu_kernels_include_no_library_code():
    for path in files(CSRC / "cpu", ".h", ".cpp"):
        found = {n[1:-1] for n in includes(path.read_text())} & NOT_IN_CPU
        assert found == set(), path


def test_import_brings_numpy_only_and_prints_nothing():
    """What keeps `import lamina` under 150 ms: no tool, framework or array library but NumPy."""
    code = (
        "import sys; before = set(sys.modules); import lamina, lamina.nn, lamina.optim\n"
        "roots = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(roots - set(sys.stdlib_module_names) - {'lamina', 'numpy'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def test_table_of_errors_has_the_bounds_that_are_measured():
    """`python benchmarks/ulp_table.py --write` makes it; kMost is 2, on baseline more."""
    root = Path(__file__).parents[1]
    page = root / "docs" / "developing.md"
    if not page.exists():
        pytest.skip("needs the source tree")
    source = (root / "tests" / "every_float.cpp").read_text()
    bounds = re.findall(r'^    \{"(\w+)", ([\w.]+),', source, re.MULTILINE)
    table = page.read_text().partition("<!-- ulp -->\n")[2].partition("<!-- /ulp -->")[0]
    rows = re.findall(r"^\| (\w+) \| ([\d.]+)", table, re.MULTILINE)
    assert rows == [(name, bound.replace("kMost", "2")) for name, bound in bounds] != []


def test_readme_table_is_the_registry():
    """`python benchmarks/kernel_table.py --write` makes the table; it must have been run."""
    root = Path(__file__).parents[1]
    if not (root / "README.md").exists():
        pytest.skip("needs the source tree")
    done = subprocess.run(
        [sys.executable, str(root / "benchmarks" / "kernel_table.py")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() in (root / "README.md").read_text()
