"""Products of bfloat16: float32 split into pieces (bf16x6, bf16x3) or rounded (bf16).

These run on the unit that is there: AMX has all three, AVX512-BF16 the last. All three also run
everywhere on a model of the instructions of AMX, in a process of their own with
LAMINA_ISA=amx-model.

Bounds, of S = the sum of absolute products: each piece leaves at most 2^-8 of what there was, so
that a product of three pieces lacks at most 2^-23 of itself (m l' and l m'), of two 3 2^-16 (m m'
and what is left of x and of y), of one 2^-7 (both remainders). Each of n float32 sums errs by
2^-24 of S at most (Higham 2002, section 3.1).
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
from lamina import _C
from numpy.testing import assert_array_equal

LEFT_OUT = {"bf16x6": 2.0**-23, "bf16x3": 3 * 2.0**-16, "bf16": 2.0**-7 + 2.0**-16}
PRECISION = {"bf16x6": "highest", "bf16x3": "high", "bf16": "medium"}
ON_TILES = _C.bf16_unit() in ("amx", "amx-model")
KINDS = [k for k in LEFT_OUT if ON_TILES or (_C.bf16_unit() and k == "bf16")]
WHY = "no unit for it: see test_under_the_model"
unit = pytest.mark.skipif(not KINDS, reason=WHY)
kinds = pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=pytest.mark.skipif(k not in KINDS, reason=WHY)) for k in LEFT_OUT],
)

SHAPES = [
    ((2, 5, 9, 10), (7, 5, 3, 3), {"padding": 1}),
    ((1, 40, 20, 21), (70, 40, 3, 3), {"padding": 1}),  # filters shared, several k blocks
    ((1, 64, 7, 7), (300, 64, 3, 3), {"padding": 1}),  # few positions: the input is shared
    ((3, 12, 11, 37), (34, 6, 3, 2), {"padding": (1, 2), "stride": 2, "groups": 2}),
    ((2, 20, 14, 13), (33, 20, 3, 3), {"padding": 2, "dilation": 2}),
    ((2, 3, 40, 41), (64, 3, 1, 1), {}),
]
PASSES = ["fprop", "dgrad", "wgrad"]


def operands(shape, make):
    x, weight, options = shape
    y = reference.conv(np.zeros(x), np.zeros(weight), **options)
    return make(x, 1), make(weight, 2), make(y.shape, 3), options


def run(pass_, algo, x, weight, grad_y, options):
    tx, tw = lamina.tensor(x, requires_grad=True), lamina.tensor(weight, requires_grad=True)
    y = F.conv2d(tx, tw, **options, algo=algo)
    assert lamina.last_plan().algo == algo or algo == "auto"
    if pass_ == "fprop":
        return y.data
    y.backward(grad_y)
    return (tx if pass_ == "dgrad" else tw).grad.data


def exact(pass_, x, weight, grad_y, options):
    x, weight, grad_y = (a.astype(np.float64) for a in (x, weight, grad_y))
    if pass_ == "fprop":
        return reference.conv(x, weight, **options)
    if pass_ == "dgrad":
        return reference.conv_dgrad(grad_y, weight, x.shape, **options)
    return reference.conv_wgrad(x, grad_y, weight.shape, **options)


def test_under_the_model():
    if ON_TILES:
        pytest.skip("this process has tiles")
    for path, options in ((__file__, []), ("test_conv.py", ["-k", "bf16x or auto"])):
        path = os.path.join(os.path.dirname(__file__), path)
        code = f"import pytest; raise SystemExit(pytest.main(['-q', '-x', {path!r}, *{options!r}]))"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "LAMINA_ISA": "amx-model", "LAMINA_TEST_BACKENDS": "cpu"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kind", LEFT_OUT)
def test_refused_without_the_unit(kind):
    if kind in KINDS:
        pytest.skip("the unit is there")
    x, weight = cases.reals((1, 4, 6, 6), 1), cases.reals((4, 4, 3, 3), 2)
    with lamina.set_float32_precision("medium"):
        with pytest.raises(
            ValueError, match=rf"implicit_gemm_{kind}: needs .*the tile unit of AMX"
        ):
            F.conv2d(x, weight, algo=f"implicit_gemm_{kind}")
        F.conv2d(x, weight)
    assert "tile unit" in dict(lamina.last_plan().refusals)[f"implicit_gemm_{kind}"]


@pytest.mark.skipif(os.environ.get("LAMINA_ISA", "") != "", reason="capped already")
@pytest.mark.parametrize("cap", _C.compiled_isas())
def test_a_cap_leaves_the_unit_alone(cap):
    """Convolutions and matrix products are then those of float32, also when less would do."""
    path = os.path.abspath(__file__)
    code = (
        "import pytest; from lamina import _C; assert _C.bf16_unit() == '', _C.bf16_unit();"
        f"raise SystemExit(pytest.main(['-q', '-x', {path!r}, '-k', 'refused']))"
    )
    env = {**os.environ, "LAMINA_ISA": cap, "LAMINA_TEST_BACKENDS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


@kinds
@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_small_integers_are_exact(shape, pass_, kind):
    x, weight, grad_y, options = operands(shape, cases.integers)
    with lamina.set_float32_precision(PRECISION[kind]):
        actual = run(pass_, f"implicit_gemm_{kind}", x, weight, grad_y, options)
    assert_array_equal(actual, exact(pass_, x, weight, grad_y, options))


@kinds
@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_error_bound(shape, pass_, kind):
    x, weight, grad_y, options = operands(shape, cases.reals)
    with lamina.set_float32_precision(PRECISION[kind]):
        actual = run(pass_, f"implicit_gemm_{kind}", x, weight, grad_y, options)
    error = abs(actual - exact(pass_, x, weight, grad_y, options))
    absolute = exact(pass_, abs(x), abs(weight), abs(grad_y), options)
    terms = grad_y[:, 0].size if pass_ == "wgrad" else weight.size
    assert (error <= (LEFT_OUT[kind] + terms * 2.0**-24) * absolute).all()


@kinds
def test_error_beside_the_fma_kernel(kind):
    """Long sums: three pieces err no more than the FMA kernel, two stay below 1e-5."""
    x, weight = cases.reals((1, 256, 14, 14), 1), cases.reals((64, 256, 3, 3), 2)
    expected = reference.conv(x.astype(np.float64), weight.astype(np.float64), padding=1)

    def rms(algo):
        y = F.conv2d(x, weight, padding=1, algo=algo)
        return np.sqrt(((y - expected) ** 2).mean()) / expected.std()

    plain = rms("implicit_gemm")
    with lamina.set_float32_precision(PRECISION[kind]):
        error = rms(f"implicit_gemm_{kind}")
    assert error <= {"bf16x6": plain, "bf16x3": 1e-5, "bf16": 4e-3}[kind]
    assert kind == "bf16x6" or error > 5 * plain  # it did use fewer pieces


@kinds
@pytest.mark.parametrize("scale", [1e-45, 1e-38, 1e-32, 1e-20, 1e20, 3e37, np.inf, np.nan], ids=str)
@pytest.mark.parametrize("pass_", PASSES)
def test_as_good_as_fma_at_the_ends(pass_, scale, kind):
    """Where pieces would be lost, a block is computed with FMA: the same bits as that kernel's.

    wgrad has another FMA kernel: the same but for 4 roundings, and as many subnormal ones as terms.
    """
    x, weight, grad_y, options = operands(SHAPES[1], cases.reals)
    x[0, 3, 5, 6] = weight[3, 2, 1, 1] = grad_y[0, 7, 2, 3] = scale
    x[0, 0, 5, 6] = -scale
    if scale < 1:  # all of one operand, too
        x *= np.float32(scale)
    with lamina.set_float32_precision(PRECISION[kind]), np.errstate(all="ignore"):
        actual = run(pass_, f"implicit_gemm_{kind}", x, weight, grad_y, options)
        plain = run(pass_, "implicit_gemm", x, weight, grad_y, options)
        absolute = exact(pass_, abs(x), abs(weight), abs(grad_y), options)
    assert_array_equal(np.isnan(actual), np.isnan(plain))
    assert_array_equal(np.isfinite(actual), np.isfinite(plain))
    if scale in (1e-20, 1e20):  # these two keep all pieces in most blocks
        return
    touched = np.ones(plain.shape, bool) if scale < 1 else ~np.isfinite(plain)
    if pass_ != "wgrad" or not scale < 1:
        assert_array_equal(actual[touched], plain[touched])
    else:
        slack = 2.0**-22 * absolute + grad_y[:, 0].size * 2.0**-149
        assert (abs(actual - plain) <= slack)[touched].all()


@kinds
def test_infinities_that_meet_a_zero_or_each_other(kind):
    x, weight = np.ones((1, 2, 4, 40), np.float32), np.ones((32, 2, 1, 1), np.float32)
    x[0, 0, 0, 0], x[0, 1, 0, 0], x[0, 0, 1, 1], weight[5] = np.inf, -np.inf, np.inf, 0
    with lamina.set_float32_precision(PRECISION[kind]):
        y = F.conv2d(x, weight, algo=f"implicit_gemm_{kind}")
    expected = np.full(y.shape, 2, np.float32)
    expected[:, 5] = 0
    expected[..., 0, 0], expected[..., 1, 1], expected[:, 5, 1, 1] = np.nan, np.inf, np.nan
    assert_array_equal(y, expected)


@unit
@pytest.mark.parametrize("word", PRECISION.values())
@pytest.mark.parametrize("sizes", [(256, 384, 300), (1100, 520, 70)], ids=str)
def test_matrix_products(sizes, word):
    m, n, k = sizes
    kind = next(kind for kind, p in PRECISION.items() if p == word)
    if kind not in KINDS:
        pytest.skip(WHY)
    x, weight, bias = cases.reals((m, k), 1), cases.reals((n, k), 2), cases.reals((n,), 3)
    integers = cases.integers((m, k), 4), cases.integers((n, k), 5)
    plain = np.concatenate([F.linear(x[i : i + 4], weight, bias) for i in range(0, m, 4)])
    with lamina.set_float32_precision(word):
        y = F.linear(x, weight, bias)
        assert_array_equal(F.linear(*integers), integers[0] @ integers[1].T)
        broken = x.copy()
        broken[3, 5] = np.nan
        assert_array_equal(np.isnan(F.linear(broken, weight)).all(1), np.arange(m) == 3)
    x, weight = x.astype(np.float64), weight.astype(np.float64)
    slack = (LEFT_OUT[kind] + (k + 2) * 2.0**-24) * (abs(x) @ abs(weight).T + abs(bias))
    assert (abs(y - (x @ weight.T + bias)) <= slack).all()
    assert (y != plain).any()


@kinds
def test_same_bits_for_any_thread_count(kind):
    x, weight, grad_y, options = operands(SHAPES[1], cases.reals)
    x[0, 3, 5, 6] = np.inf  # some blocks on FMA
    results = []
    with lamina.set_float32_precision(PRECISION[kind]):
        for threads in (1, 2, 5):
            lamina.set_num_threads(threads)
            algo = f"implicit_gemm_{kind}"
            results.append([run(p, algo, x, weight, grad_y, options) for p in PASSES])
    for other in results[1:]:
        for first, second in zip(results[0], other, strict=True):
            assert_array_equal(first, second)


@kinds
@pytest.mark.parametrize("extreme", [np.inf, np.nan, 1e38, 1e-38])
def test_blocks_that_bfloat16_cannot_hold_are_the_same_with_kept_pieces(extreme, kind):
    """Those blocks are computed with FMA, also from filters that are kept."""
    weight = cases.reals((600, 320), 1)
    for place in (5, 450):
        weight[place, 7], weight[place, 300] = extreme, 1.0
    image = cases.reals((1, 320, 6, 6), 2)
    image[0, 40, 3, 3] = extreme
    filters, algo = weight.reshape(600, 320, 1, 1), f"implicit_gemm_{kind}"

    def convolve(x, w):
        return F.conv2d(x, w, algo=algo)

    def transpose(x, w):
        return F.conv_transpose2d(x, w, algo=algo)

    with lamina.set_float32_precision(PRECISION[kind]), np.errstate(all="ignore"):
        for x, w, call in (
            (cases.reals((40, 320), 3), weight, F.linear),
            (image, filters, convolve),
            (cases.reals((3, 320, 20, 20), 4), filters, convolve),
            (image, filters.reshape(320, 600, 1, 1), transpose),
        ):
            kept = lamina.tensor(w)
            plain = call(x, w)
            for _ in range(3):
                assert_array_equal(call(lamina.Tensor(x), kept).numpy(), plain)
            assert kept._packed is not None


@unit
def test_choice_follows_precision():
    x, weight = cases.reals((2, 256, 20, 20), 1), cases.reals((512, 256, 1, 1), 2)
    for kind, word in PRECISION.items():
        with lamina.set_float32_precision(word):
            F.conv2d(x, weight)
        plan = lamina.last_plan()
        if kind in KINDS:
            assert (plan.algo, plan.isa) == (f"implicit_gemm_{kind}", _C.bf16_unit())
        else:
            assert "bf16" not in plan.algo
    refusals = {}
    for dtype in (np.float32, np.float64):
        F.conv2d(x.astype(dtype), weight.astype(dtype))
        refusals[dtype] = dict(lamina.last_plan().refusals)
    assert refusals[np.float32]["implicit_gemm_bf16"].startswith("rounds operands to 8 bits")
    assert refusals[np.float64]["implicit_gemm_bf16"] == "needs float32"
    if ON_TILES:
        assert refusals[np.float32]["implicit_gemm_bf16x3"].startswith("rounds operands to 16 bits")
        assert refusals[np.float64]["implicit_gemm_bf16x6"] == "needs float32"
    with pytest.raises(ValueError, match="rounds operands to 8 bits"):
        F.conv2d(x, weight, algo="implicit_gemm_bf16")
