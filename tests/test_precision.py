"""The precision of float32 products: a setting of the process, noted in the plan.

tf32 keeps 11 bits of an operand, rounded to nearest: each product errs by at most 2^-11 twice (and
their product), of itself; n of them are added in float32 by instructions that truncate (twice the
rounding error), which n eps of the sum of absolute products holds (Higham 2002, section 3.1).
Integers below 2^11 are exact.
"""

from __future__ import annotations

import os
import subprocess
import sys

import cases
import lamina
import lamina.functional as F
import numpy as np
import pytest
import reference
from conftest import BACKENDS
from lamina import runtime
from numpy.testing import assert_array_equal
from test_conv_cuda import SHAPES, arrays, exact, odd, run

SIMT = [name for name in BACKENDS if name.startswith("simt")] or ["simt"]
LOWER = ["high", "medium"]


@pytest.fixture(autouse=True)
def _restore_precision():
    yield
    lamina.set_float32_precision("highest")


def tf32_bound(terms, absolute):
    return (2 * 2.0**-11 + 2.0**-22 + terms * 2.0**-23) * absolute


def test_setting_and_block():
    assert lamina.get_float32_precision() == "highest"
    lamina.set_float32_precision("high")
    assert lamina.get_float32_precision() == "high"
    with lamina.set_float32_precision("medium"):
        assert lamina.get_float32_precision() == "medium"
    assert lamina.get_float32_precision() == "high"
    lamina.set_float32_precision("highest")


@pytest.mark.parametrize("bad", ["tf32", "", None, 1])
def test_bad_words(bad):
    with pytest.raises(ValueError, match="^set_float32_precision: precision must be 'highest', 'h"):
        lamina.set_float32_precision(bad)
    assert lamina.get_float32_precision() == "highest"


def test_environment():
    code = "import lamina; print(lamina.get_float32_precision())"
    for word, printed in (("high", "high\n"), ("", "highest\n")):
        environment = {**os.environ, "LAMINA_FLOAT32_PRECISION": word}
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env=environment,
            check=True,
        )
        assert done.stdout == printed


def test_plan_notes_what_a_call_may_use(backend):
    for dtype, noted in ((np.float32, "high"), (np.float64, "highest")):
        x, weight = cases.reals((2, 3, 6, 6), 1, dtype), cases.reals((4, 3, 3, 3), 2, dtype)
        with lamina.set_float32_precision("high"):
            F.conv2d(x, weight)
            assert lamina.last_plan().precision == noted
            F.linear(x, x[0, 0])
            assert lamina.last_plan().precision == noted
        F.conv2d(x, weight)
        assert lamina.last_plan().precision == "highest"


# ---- tf32 on the tensor cores of the CUDA kernels

PASSES = [
    (pass_, algo) for algo in ("implicit_gemm", "im2col") for pass_ in ("fprop", "dgrad", "wgrad")
]
LARGE = [
    ((2, 3, 9, 37), (68, 3, 3, 5), {"padding": (1, 2)}),  # two tiles of outputs
    ((1, 68, 7, 9), (5, 68, 1, 1), {}),  # a product of matrices
    ((2, 4, 6, 12), (12, 4, 3, 3), {"padding": 1, "stride": 2}),  # whole vectors
]


@pytest.mark.parametrize("shape", [*SHAPES[:3], *SHAPES[-2:], *LARGE], ids=str)
@pytest.mark.parametrize(("pass_", "algo"), PASSES)
@pytest.mark.parametrize("backend", SIMT)
def test_tf32_convolution(backend, pass_, algo, shape):
    x, weight, grad_y, options = arrays(shape, np.float32)
    plain = run(backend, pass_, algo, x, weight, grad_y, options)
    with lamina.set_float32_precision("high"):
        actual = run(backend, pass_, algo, x, weight, grad_y, options)
        assert_array_equal(
            run(backend, pass_, algo, odd(x), odd(weight), odd(grad_y), options), actual
        )
    expected = exact(pass_, x, weight, grad_y, options)
    absolute = exact(pass_, abs(x), abs(weight), abs(grad_y), options)
    terms = x.size if pass_ == "wgrad" else max(weight.size, grad_y.size)
    assert (abs(actual - expected) <= tf32_bound(terms, absolute)).all()
    assert (actual != plain).any()  # it did use them


@pytest.mark.parametrize("word", LOWER)
@pytest.mark.parametrize("sizes", [(5, 7, 3), (72, 130, 33), (2, 65, 17), (64, 68, 520)], ids=str)
@pytest.mark.parametrize("backend", SIMT)
def test_tf32_matrix_product(backend, sizes, word):
    m, n, k = sizes
    x, weight, bias = cases.reals((m, k), 1), cases.reals((n, k), 2), cases.reals((n,), 3)
    tensors = [lamina.tensor(a, requires_grad=True) for a in (x, weight, bias)]
    grad_y = cases.reals((m, n), 4)
    module = runtime.load_backend(backend)
    with lamina.backend(backend), lamina.set_float32_precision(word):
        y = F.linear(*tensors)
        y.backward(grad_y)
        module.set_schedule("reverse", 0)
        assert_array_equal(F.linear(x, weight, bias), y.data)
        module.set_schedule("forward", 0)
    x, weight, bias, grad_y = (a.astype(np.float64) for a in (x, weight, bias, grad_y))
    pairs = [
        (x, weight.T, y.data - bias),
        (grad_y, weight, tensors[0].grad.data),
        (grad_y.T, x, tensors[1].grad.data),
    ]
    for a, b, actual in pairs:
        slack = tf32_bound(a.shape[1] + 2, abs(a) @ abs(b)) + 2.0**-22 * abs(bias).max()
        assert (abs(actual - a @ b) <= slack).all()


@pytest.mark.parametrize("trans", [(False, False), (False, True), (True, False), (True, True)])
@pytest.mark.parametrize("backend", SIMT)
def test_tf32_is_exact_on_small_integers(backend, trans):
    """Every transposition, whole vectors and large tiles too."""
    from test_gemm import factors, product

    for sizes in ((3, 64, 68, 40), (1, 72, 132, 36), (48, 136, 72, 16)):
        a, b = factors(sizes, np.float32)
        with lamina.backend(backend), lamina.set_float32_precision("high"):
            assert_array_equal(product(a, b, trans), a @ b)


@pytest.mark.parametrize("word", LOWER)
def test_other_types_are_not_affected(backend, word):
    x, weight = cases.reals((2, 3, 8, 9), 1, np.float64), cases.reals((4, 3, 3, 3), 2, np.float64)
    y = F.conv2d(x, weight, padding=1)
    with lamina.set_float32_precision(word):
        assert_array_equal(F.conv2d(x, weight, padding=1), y)


@pytest.mark.parametrize("backend", SIMT)
def test_nan_and_infinity_stay(backend):
    x, weight = cases.reals((1, 8, 6, 8), 1), cases.reals((8, 8, 3, 3), 2)
    x[0, 0, 2, 3], x[0, 1, 5, 7] = np.nan, np.inf
    with lamina.backend(backend), lamina.set_float32_precision("high"):
        y = F.conv2d(x, weight, padding=1, algo="implicit_gemm")
    expected = reference.conv(x, weight, padding=1)
    assert_array_equal(np.isfinite(y), np.isfinite(expected))
    assert_array_equal(np.isnan(y), np.isnan(expected))


@pytest.mark.parametrize("backend", SIMT)
def test_what_a_lower_precision_makes_automatic(backend):
    """winograd4 is refused at full precision, and for float64 always, with the reason."""
    x, weight = cases.reals((1, 8, 12, 12), 1), cases.reals((8, 8, 3, 3), 2)
    for word, dtype in (("highest", np.float32), ("high", np.float64), ("high", np.float32)):
        with lamina.backend(backend), lamina.set_float32_precision(word):
            F.conv2d(x.astype(dtype), weight.astype(dtype), padding=1)
        plan = lamina.last_plan()
        reason = dict(plan.refusals).get("winograd4", "")
        assert reason.startswith("rounds") == (word == "highest" or dtype == np.float64)
