"""Activations and residuals inside convolutions and linear maps: f(sum + bias + residual).

Small integers make the sums exact, and with them the piecewise linear activations; the others err
by a few units in the last place (test_activation.py), which 16 eps of the value or 1 holds. The
algorithms that round more (test_conv.py) keep their bounds: those f have slopes up to 1.2.
"""

from __future__ import annotations

import cases
import lamina
import lamina.functional as F
import numpy as np
import pytest
import reference
from conftest import BACKENDS
from lamina import _C, runtime
from lamina.functional._epilogue import ACTIVATIONS
from numpy.testing import assert_allclose, assert_array_equal
from test_conv import conv, run_named
from test_conv_cuda import half_types, odd

EXACT = ["relu", "relu6", ("leaky_relu", 0.5), ("hardtanh", -3.0, 20.0)]
SMOOTH = ["silu", "hardswish", ("elu", 0.5), "sigmoid", "gelu"]
CASES = [case for case in cases.CONV if np.prod(case.x) < 3000][::4]


def formula(activation, x):
    name, *parameters = (activation,) if isinstance(activation, str) else activation
    return getattr(reference, name)(x, *parameters)


def assert_close(algo, actual, expected, activation, sums):
    """Equal bits where everything is exact."""
    assert actual.shape == expected.shape
    if activation in EXACT and algo not in cases.ROUNDING:
        return assert_array_equal(actual, expected)
    eps = np.finfo(actual.dtype).eps
    rounding = 4000 if algo in cases.ROUNDING else 16
    bound = rounding * eps * max(np.abs(sums).max(initial=0), 1)
    return assert_allclose(actual, expected, rtol=0, atol=bound)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("kernel", lamina.kernels("conv", "fprop"), ids=str)
def test_conv(kernel, case):
    x, weight = cases.integers(case.x, 1), cases.integers(case.weight, 2)
    bias = cases.integers(case.weight[:1], 3)
    sums = reference.conv(x, weight, bias, **case.options)
    residual = cases.integers(sums.shape, 4)
    for activation in (*EXACT, *SMOOTH):
        y = run_named(
            kernel,
            lambda algo, f=activation: conv(
                case, x, weight, bias, algo=algo, activation=f, residual=residual
            ),
        )
        assert_close(
            kernel.algo, y, formula(activation, sums + residual), activation, sums + residual
        )
    y = run_named(kernel, lambda algo: conv(case, x, weight, algo=algo, residual=residual))
    plain = run_named(kernel, lambda algo: conv(case, x, weight, algo=algo))
    assert_array_equal(y, plain + residual)


@pytest.mark.parametrize("case", cases.CONV_TRANSPOSE[::2], ids=str)
@pytest.mark.parametrize("kernel", lamina.kernels("conv", "dgrad"), ids=str)
def test_conv_transpose(kernel, case):
    function = getattr(F, f"conv_transpose{case.axes}d")
    groups = case.options.get("groups", 1)
    x, weight = cases.integers(case.x, 1), cases.integers(case.weight, 2)
    bias = cases.integers((case.weight[1] * groups,), 3)
    sums = getattr(reference, f"conv_transpose{case.axes}d")(x, weight, bias, **case.options)
    residual = cases.integers(sums.shape, 4)
    for activation in ("relu", "silu"):
        y = run_named(
            kernel,
            lambda algo, f=activation: function(
                x, weight, bias, **case.options, algo=algo, activation=f, residual=residual
            ),
        )
        assert_close(
            kernel.algo, y, formula(activation, sums + residual), activation, sums + residual
        )


SIMT = [name for name in BACKENDS if name.startswith("simt")] or ["simt"]
SHAPE = _C.ConvShape(2, 4, 6, 1, (1, 6, 8), (1, 3, 3), (1, 6, 8), (1, 1, 1), (0, 1, 1), (1, 1, 1))


@pytest.mark.parametrize("backend", SIMT)
@pytest.mark.parametrize("pass_", ["fprop", "dgrad"])
@pytest.mark.parametrize(
    "algo", ["direct", "im2col", "implicit_gemm", "winograd", "winograd4", "fft"]
)
def test_16_bit_rounds_once(backend, pass_, algo):
    """float32 until the result is stored; winograd4 and fft round more, test_conv.assert_equal."""
    forward = pass_ == "fprop"
    for dtype, half_ulp in half_types():
        x = cases.reals((2, 4 if forward else 6, 6, 8), 1).astype(dtype)
        weight = cases.reals((6, 4, 3, 3), 2).astype(dtype)
        channels = 6 if forward else 4
        bias = cases.reals((channels,), 3).astype(dtype)
        residual = cases.reals((2, channels, 6, 8), 4).astype(dtype)
        wide = [a.astype(np.float64) for a in (x, weight, bias)]
        function = reference.conv if forward else reference.conv_transpose2d
        sums = function(*wide, padding=1) + residual.astype(np.float64)
        x, residual = odd(x), odd(residual)
        for activation in ("relu", "silu"):
            y = np.empty(residual.shape, dtype)
            given = (x, weight, bias, None) if forward else (None, weight, bias, x)
            with lamina.backend(backend):
                _C.conv("conv", pass_, SHAPE, *given, y, algo, -1, (activation, 0, 0), residual)
            expected = formula(activation, sums)
            slack = 2.0**-23 * 60 * (60 if algo in cases.ROUNDING else 2)
            bound = half_ulp * abs(expected) + slack * abs(sums).max()
            assert (abs(y.astype(np.float64) - expected) <= bound).all(), (dtype, activation)


@pytest.mark.parametrize("backend", SIMT)
@pytest.mark.parametrize("kernel", lamina.kernels("conv", "fprop", "simt"), ids=str)
def test_any_alignment_and_schedule(backend, kernel):
    depthwise = kernel.algo == "depthwise"
    x, weight = cases.reals((2, 4, 6, 8), 1), cases.reals((4, 1 if depthwise else 4, 3, 3), 2)
    options = {"padding": 1, "groups": 4 if depthwise else 1, "algo": kernel.algo}
    module = runtime.load_backend(backend)
    with lamina.backend(backend):
        first = F.conv2d(x, weight, activation="hardswish", residual=x, **options)
        try:
            for schedule in ("reverse", "random"):
                module.set_schedule(schedule, 3)
                again = F.conv2d(x, weight, activation="hardswish", residual=odd(x), **options)
                assert_array_equal(again, first, strict=True)
        finally:
            module.set_schedule("forward", 0)


@pytest.mark.parametrize("sizes", [(5, 3, 7), (1, 40, 9), (70, 33, 130), (3, 600, 65), (2, 0, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_linear(backend, sizes, dtype):
    m, k, n = sizes
    x, weight = cases.integers((m, k), 1, dtype), cases.integers((n, k), 2, dtype)
    bias, residual = cases.integers((n,), 3, dtype), cases.integers((m, n), 4, dtype)
    sums = x @ weight.T + bias + residual
    for activation in (*EXACT, *SMOOTH):
        y = F.linear(x, weight, bias, activation=activation, residual=residual)
        assert_close("", y, formula(activation, sums), activation, sums)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation(backend, name):
    """The value is that of the function of the same name; NaN stays NaN."""
    x, weight = cases.reals((4, 5), 1, np.float64), cases.reals((6, 5), 2, np.float64)
    parameters = {"threshold": (0.1, -2.0)}.get(name, ())
    y = F.linear(x, weight, activation=(name, *parameters))
    expected = getattr(F, name)(F.linear(x, weight), *parameters)
    assert_allclose(y, expected, rtol=1e-14, atol=1e-15)
    x[1] = np.nan
    assert_array_equal(
        np.isnan(F.linear(x, weight, activation=(name, *parameters)))[:, 0], [0, 1, 0, 0]
    )


# The step's derivative is zero everywhere; the others stay away from their kinks by chance.
GRADIENTS = [
    *((name,) for name in ACTIVATIONS if name not in ("step", "threshold")),
    ("threshold", 0.1, -2.0),
    ("threshold", 0.1, 3.0),
    ("leaky_relu", -0.5),
    ("gelu", "tanh"),
    ("sigmoid", 2.0),
]


@pytest.mark.parametrize("activation", GRADIENTS, ids=str)
def test_gradients(activation):
    x, weight, bias = (
        cases.reals(shape, i, np.float64) for i, shape in enumerate([(3, 4), (5, 4), (5,)])
    )
    residual = cases.reals((3, 5), 9, np.float64)
    lamina.testing.gradcheck(
        lambda *t: F.linear(*t[:3], activation=activation, residual=t[3]),
        [x, weight, bias, residual],
    )


@pytest.mark.parametrize("activation", [None, "relu", "silu", "tanh"])
def test_convolution_gradients(activation):
    x, weight = cases.reals((2, 3, 5, 4), 1, np.float64), cases.reals((4, 3, 3, 3), 2, np.float64)
    bias, residual = cases.reals((4,), 3, np.float64), cases.reals((2, 4, 3, 2), 4, np.float64)
    options = {"stride": 2, "padding": 1, "activation": activation}
    lamina.testing.gradcheck(
        lambda *t: F.conv2d(*t[:3], residual=t[3], **options), [x, weight, bias, residual]
    )
    back, out = cases.reals((3,), 5, np.float64), cases.reals((2, 3, 5, 3), 6, np.float64)
    lamina.testing.gradcheck(
        lambda *t: F.conv_transpose2d(*t[:3], residual=t[3], **options),
        [residual, weight, back, out],
    )


def test_only_what_backward_needs_is_kept():
    """relu keeps its output; without a gradient nothing is kept and the kernel does everything."""
    x, weight = lamina.tensor(cases.reals((2, 3), 1), requires_grad=True), cases.reals((4, 3), 2)
    y = F.linear(x, lamina.tensor(weight), activation="relu")
    assert y._edge()[0].ctx.saved[2] is y.data
    y = F.linear(x, lamina.tensor(weight), activation="silu")
    assert y._edge()[0].ctx.saved[2] is not y.data


def test_one_image_without_a_batch_axis():
    x, weight = cases.integers((3, 5, 5), 1), cases.integers((3, 3, 3, 3), 2)
    y = F.conv2d(x, weight, padding=1, activation="relu", residual=x)
    assert_array_equal(y, np.maximum(F.conv2d(x, weight, padding=1) + x, 0))


BAD = [
    ({"activation": "nope"}, ValueError, r"conv2d: activation must be one of .*got .*'nope'"),
    ({"activation": "prelu"}, ValueError, "conv2d: activation must be one of"),
    ({"activation": 3}, ValueError, "conv2d: activation must be one of"),
    ({"activation": ("celu", 0)}, ValueError, "celu: alpha must not be zero"),
    ({"residual": np.zeros((1, 2, 4, 3), np.float32)}, ValueError, "residual must have the shape"),
    ({"residual": np.zeros((1, 2, 3, 3))}, TypeError, "conv2d: all arrays must have one dtype"),
    ({"residual": [1.0]}, TypeError, "conv2d: residual must be"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD, ids=str)
def test_bad_input(options, error, message):
    x, weight = np.zeros((1, 3, 3, 3), np.float32), np.zeros((2, 3, 1, 1), np.float32)
    with pytest.raises(error, match=message):
        F.conv2d(x, weight, **options)
