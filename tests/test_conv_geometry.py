"""Convolution over random geometries: every kernel and pass against NumPy, and rounding on reals.

Small integers are exact for every algorithm but `fft` and Winograd's larger tiles.
On reals, sums of n products err by at most n eps of the sum of absolute products (Higham 2002,
section 3.1); Winograd's and Fourier's bounds are norm-wise and stated where they are used.
"""

from __future__ import annotations

import cases
import lamina
import lamina.functional as F
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

KERNELS = lamina.kernels("conv", "fprop")


@st.composite
def convolutions(draw):
    """x shape, weight shape and options of a legal convolution over 1 to 3 axes."""
    axes = draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    c, k = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 9))
    size, kernel, stride, dilation, padding = [], [], [], [], []
    for _ in range(axes):
        taps, spread = draw(st.integers(1, 4)), draw(st.integers(1, 3))
        low, high = draw(st.integers(0, 4)), draw(st.integers(0, 4))
        reach = spread * (taps - 1) + 1
        extra = draw(st.integers(0, 20 if axes < 3 else 5))
        size.append(max(reach - low - high, 1) + extra)
        kernel.append(taps)
        stride.append(draw(st.integers(1, 4)))
        dilation.append(spread)
        padding.append((low, high))
    options = {
        "stride": tuple(stride),
        "dilation": tuple(dilation),
        "padding": tuple(padding),
        "groups": groups,
    }
    n = draw(st.integers(1, 3))
    return (n, c, *size), (k, c // groups, *kernel), options


def check_every_kernel(x_shape, weight_shape, options):
    x, weight = cases.integers(x_shape, 1), cases.integers(weight_shape, 2)
    bias = cases.integers(weight_shape[:1], 3)
    function = getattr(F, f"conv{len(x_shape) - 2}d")
    expected = reference.conv(x, weight, bias, **options)
    grad_y = cases.integers(expected.shape, 4)
    expected = (
        expected,
        reference.conv_dgrad(grad_y, weight, x_shape, **options),
        reference.conv_wgrad(x, grad_y, weight_shape, **options),
    )
    for kernel in KERNELS:
        tensors = [lamina.tensor(a, requires_grad=True) for a in (x, weight, bias)]
        with lamina.backend(kernel.backend):
            try:
                y = function(*tensors, **options, algo=kernel.algo)
            except ValueError as error:
                assert "no algorithm can run" in str(error)
                continue
            y.backward(grad_y)
        results = y.data, tensors[0].grad.data, tensors[1].grad.data
        for actual, wanted in zip(results, expected, strict=True):
            if kernel.algo in cases.ROUNDING:  # integers are 1 apart
                actual = np.rint(actual)
            assert_array_equal(actual, wanted, err_msg=str(kernel))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(convolutions())
def test_every_kernel_on_any_geometry(convolution):
    check_every_kernel(*convolution)


STILL = {  # the filter stands still along neighbouring axes
    "planes": ((2, 3, 9, 4, 3), (6, 3, 3, 1, 1), {"padding": (1, 0, 0)}),
    "depthwise": ((1, 4, 8, 5, 7), (4, 1, 5, 1, 1), {"padding": (2, 0, 0), "groups": 4}),
    "strided": ((1, 3, 9, 4, 5), (8, 3, 3, 1, 1), {"stride": (2, 1, 1), "dilation": (2, 3, 3)}),
    "columns": ((2, 5, 3, 4, 7), (6, 5, 1, 1, 3), {"padding": (0, 0, 1), "dilation": (1, 1, 2)}),
    "points": ((2, 3, 5, 2, 3), (4, 3, 1, 1, 1), {}),
    "points of long rows": ((1, 3, 3, 2, 70), (4, 3, 1, 1, 1), {}),
    "padded behind": ((2, 3, 6, 5, 4), (4, 3, 3, 1, 1), {"padding": ((1, 1), (0, 1), (0, 0))}),
    "rows without outputs": ((2, 4, 7, 6, 21), (9, 4, 1, 1, 1), {"stride": 2}),
    "planes without outputs": ((2, 4, 6, 9, 5), (8, 2, 2, 1, 2), {"stride": 3, "groups": 2}),
    "an image's": ((3, 4, 9, 37), (9, 4, 1, 1), {"stride": 4, "padding": 2}),
}


@pytest.mark.parametrize("case", STILL)
def test_filters_that_stand_still(case):
    check_every_kernel(*STILL[case])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "kernel",
    [k for k in KERNELS if k.algo != "depthwise" and "_bf16" not in k.algo],  # those: test_bf16.py
    ids=str,
)
def test_rounding(kernel, dtype):
    channels = 96
    taps = {"winograd5x5": (5, 5), "winograd1d": (1, 7)}.get(kernel.algo, (3, 3))
    x, weight = (
        cases.reals((2, channels, 19, 21), 1, dtype),
        cases.reals((11, channels, *taps), 2, dtype),
    )
    with lamina.backend(kernel.backend):
        y = F.conv2d(x, weight, padding=1, algo=kernel.algo)
    exact = reference.conv(x, weight, padding=1)
    if dtype == np.float64:
        exact = reference.conv(x.astype(np.longdouble), weight.astype(np.longdouble), padding=1)
    eps = np.finfo(dtype).eps
    if kernel.algo == "winograd":
        # Norms of A^T, G and B^T are 3, 1.5 and 2, squared for two axes (Barabasz et al. 2020).
        bound = (3 * 1.5 * 2) ** 2 * (channels + 8) * eps * abs(x).max() * abs(weight).max()
    elif kernel.algo == "winograd2x4":  # one axis of each
        bound = 9 * 8.25 * 1.39 * 5.29 * (channels + 8) * eps * abs(x).max() * abs(weight).max()
    elif kernel.algo == "winograd4x1":  # one axis, and a direct sum
        bound = 3 * 8.25 * 1.39 * 5.29 * (channels + 8) * eps * abs(x).max() * abs(weight).max()
    elif kernel.algo == "winograd4":
        bound = (8.25 * 1.39 * 5.29) ** 2 * (channels + 8) * eps * abs(x).max() * abs(weight).max()
    elif kernel.algo == "winograd5x5":
        bound = (5.25 * 1.67 * 5.29) ** 2 * (channels + 8) * eps * abs(x).max() * abs(weight).max()
    elif kernel.algo == "winograd1d":  # F(3, 4), two parts of a filter
        bound = 6.29 * 1.56 * 5.29 * (2 * channels + 8) * eps * abs(x).max() * abs(weight).max()
    elif kernel.algo == "fft":
        bound = 4 * 8 * eps * np.linalg.norm(x) * np.linalg.norm(weight)
    else:
        bound = 9 * channels * eps * reference.conv(abs(x), abs(weight), padding=1)
    assert (abs(y - exact) <= bound).all()
    # A root mean square error as of independent roundings: a lost bit would be 100 times that.
    scale = np.sqrt(np.mean(exact.astype(float) ** 2))
    assert np.sqrt(np.mean((y - exact).astype(float) ** 2)) < 16 * eps * scale
    assert_allclose(y.astype(float), exact.astype(float), rtol=0, atol=64 * eps * scale)


@pytest.mark.parametrize("width", [7, 33, 48, 100, 129, 300, 433])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "padding"),
    [(7, 1, 1, 3), (4, 2, 1, 2), (31, 1, 1, 15), (3, 1, 9, 9), (5, 2, 3, 6), (6, 1, 1, 40)]
    + [(13, 2, 1, 6)],
)
@pytest.mark.parametrize("rows", [1, 3])
def test_depthwise_rows_alone(rows, width, kernel, stride, dilation, padding):
    """A row of results is summed in runs of vectors of columns; exact on small integers."""
    size = (rows, kernel)
    options = dict(stride=(1, stride), padding=(0, padding), dilation=(1, dilation), groups=3)

    def run(**algo):
        x = lamina.tensor(cases.integers((2, 3, rows, width), 1), requires_grad=True)
        weight = lamina.tensor(cases.integers((6, 1, *size), 2), requires_grad=True)
        y = F.conv2d(x, weight, cases.integers((6,), 3), **options, **algo)
        y.backward(cases.integers(y.shape, 4))
        return y.data, x.grad.data, weight.grad.data

    results = run(algo="depthwise")
    with lamina.backend("ref"):
        expected = run()
    for result, exact in zip(results, expected, strict=True):
        assert_array_equal(result, exact)


@pytest.mark.parametrize("activation", [None, "relu"])
def test_rows_that_meet_no_output_have_the_bias_and_the_residual(activation):
    grad_y, weight = cases.integers((2, 5, 4, 3, 4), 1), cases.integers((5, 3, 1, 1, 1), 2)
    bias = cases.integers((3,), 3)
    y = F.conv_transpose3d(grad_y, weight, bias, stride=(3, 2, 2), algo="implicit_gemm")
    shape = (2, 3, 10, 5, 7)
    exact = reference.conv_dgrad(grad_y, weight, shape, stride=(3, 2, 2))
    exact = exact + bias[:, None, None, None]
    assert_array_equal(y, exact)
    residual = cases.integers(shape, 4)
    y = F.conv_transpose3d(
        grad_y,
        weight,
        bias,
        (3, 2, 2),
        algo="implicit_gemm",
        activation=activation,
        residual=residual,
    )
    exact = exact + residual
    assert_array_equal(y, np.maximum(exact, 0) if activation == "relu" else exact)
