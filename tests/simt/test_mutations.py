"""benchmarks/simt_mutations.py: it finds every wait of the kernels, and one of them taken out.

All of them take minutes; docs/simt-mutations.md is the result.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys

import pytest

from .build import CSRC

ROOT = CSRC.parent
SCRIPT = ROOT / "benchmarks" / "simt_mutations.py"
BUILD = ROOT / "build"


@pytest.fixture(scope="module")
def tool():
    if not SCRIPT.exists():
        pytest.skip("needs the source tree")
    spec = importlib.util.spec_from_file_location("simt_mutations", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_barrier_is_a_mutant(tool):
    found = tool.mutants([])
    lines = [
        (path, number)
        for path in [*tool.CUDA.rglob("*.cu"), *tool.CUDA.rglob("*.h")]
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if "__syncthreads" in line.partition("//")[0] or "__syncwarp" in line.partition("//")[0]
    ]
    assert set(lines) <= {(mutant.path, mutant.line) for mutant in found}
    assert all(tool.users(mutant.path) for mutant in found)


def test_a_mutant_lacks_its_wait_only(tool):
    mutant = tool.mutants(["reduce.h"])[1]
    before, after = mutant.path.read_text().splitlines(), mutant.source().splitlines()
    changed = [i for i, (a, b) in enumerate(zip(before, after, strict=True), 1) if a != b]
    assert changed == [mutant.line]
    assert after[mutant.line - 1].strip() == "(void)0;"


def test_tests_of_every_kernel_file_exist(tool):
    for source in {user for mutant in tool.mutants([]) for user in tool.users(mutant.path)}:
        where, _ = tool.TESTS.get(source.stem, (f"tests/test_{source.stem}.py", ""))
        assert (ROOT / where).exists(), source.name


def test_a_barrier_taken_out_is_found(tool, tmp_path):
    """Compiles one kernel file: some ten seconds."""
    commands = BUILD / "compile_commands.json"
    if not commands.exists() or not shutil.which("ninja"):
        pytest.skip("needs the build directory of an editable install")
    if not any("check_kernels" in entry["command"] for entry in json.loads(commands.read_text())):
        pytest.skip("built without the CUDA kernels on the CPU")
    workshop = tool.Workshop(BUILD, tmp_path)
    mutant = tool.mutants(["reduce.h"])[1]
    workshop.make_library(workshop.compile(tool.CUDA / "activation.cu", mutant))
    by, how = workshop.judge("activation")
    assert (by, "reduce.h" in how) == ("checker", True), how
