"""Every instruction set that is compiled in and that this processor has gives right results."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from lamina import _C

SETS = _C.compiled_isas()


def run(isa: str, code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "LAMINA_ISA": isa},
        capture_output=True,
        text=True,
        timeout=280,  # below the 300 s of a test, so that the child ends with it
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("isa", SETS)
def test_isa_is_capped(isa):
    chosen = run(isa, "import lamina; print(lamina.isa())").strip()
    assert SETS.index(chosen) <= SETS.index(isa)


def test_unknown_names_are_refused():
    done = subprocess.run(
        [sys.executable, "-c", "import lamina; lamina.isa()"],
        env={**os.environ, "LAMINA_ISA": "avx1024"},
        capture_output=True,
        text=True,
    )
    assert "ValueError: LAMINA_ISA must be baseline" in done.stderr and "'avx1024'" in done.stderr


@pytest.mark.parametrize("isa", SETS)
def test_kernels_agree_with_numpy(isa):
    code = "from rich.console import Console; from lamina.bench.check import run_checks"
    run(isa, f"{code}; raise SystemExit(run_checks(Console()))")


@pytest.mark.parametrize("isa", [isa for isa in SETS if isa != _C.isa()])
@pytest.mark.parametrize(
    "module",
    [
        "test_conv",
        "test_gemm",
        "test_activation",
        "test_normalization",
        "test_pooling",
        "test_reduction",
        "test_resize",
        "test_softmax",
    ],
)
def test_suite_under_the_cap(isa, module):
    """The exact tests again, under the sets that this process does not run itself."""
    path = os.path.join(os.path.dirname(__file__), f"{module}.py")
    options = "['-q', '-x', '-p', 'no:cacheprovider', '-k', 'cpu', " + repr(path) + "]"
    run(isa, f"import pytest; raise SystemExit(pytest.main({options}))")
