"""Convolution: every registered kernel against the NumPy reference, through the public functions.

Small integers make the sums exact (Winograd's halves and quarters too), so comparisons ask for
equal bits, except for `fft`, whose transforms round. Not covered: speed.
"""

from __future__ import annotations

import time

import cases
import lamina
import lamina.functional as F
import numpy as np
import pytest
import reference
from numpy.testing import assert_allclose, assert_array_equal


def conv(case, *args, **kwargs):
    return getattr(F, f"conv{case.axes}d")(*args, **case.options, **kwargs)


def run_named(kernel, function):
    """function(algo) under the kernel's backend; skips what the kernel refuses, with its reason."""
    with lamina.backend(kernel.backend):
        try:
            return function(kernel.algo)
        except ValueError as error:
            if "no algorithm can run" not in str(error):
                raise
            pytest.skip(str(error))


ROUNDING = {  # of the norms of the operands, see assert_equal
    "fft": 4 * 12,
    **dict.fromkeys(
        ("winograd2x4", "winograd4x1", "winograd4", "winograd5x5", "winograd1d"),
        (8.25 * 1.39 * 5.29) ** 2,
    ),
}


def assert_equal(algo, actual, expected, *operands):
    """Equal bits; for the algorithms that round, within the error bound of their transforms.

    A transform of n points errs by at most about eps log2(n) of the norm of its input (Higham 2002,
    section 24.1). Two of them, their product and the inverse, n = 64 x 64 at most, summed over
    channels (Cauchy-Schwarz): 4 * 12 eps |a| |b|.

    F(4x4, 3x3): the absolute row sums of A^T, G and B^T are at most 8.25, 1.39 and 5.29, squared
    for two axes (Barabasz et al. 2020), times sums of absolute products, at most |a| |b|; those of
    F(2x2, 5x5) are at most 5.25, 1.67 and 5.29, of F(3, 4) 6.29, 1.56 and 5.29.
    """
    if algo not in ROUNDING:
        assert_array_equal(actual, expected)
        return
    a, b = (np.linalg.norm(operand.astype(np.float64)) for operand in operands)
    bound = ROUNDING[algo] * np.finfo(actual.dtype).eps * a * b
    assert_allclose(actual, expected, rtol=0, atol=bound)


@pytest.mark.parametrize("case", cases.CONV, ids=str)
@pytest.mark.parametrize("kernel", lamina.kernels("conv", "fprop"), ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fprop_exact(kernel, case, dtype):
    x, weight = cases.integers(case.x, 1, dtype), cases.integers(case.weight, 2, dtype)
    bias = cases.integers(case.weight[:1], 3, dtype)
    y = run_named(kernel, lambda algo: conv(case, x, weight, bias, algo=algo))
    plan = lamina.last_plan()
    assert (plan.backend, plan.pass_, plan.algo) == (kernel.backend, "fprop", kernel.algo)
    assert y.dtype == dtype
    assert_equal(kernel.algo, y, reference.conv(x, weight, bias, **case.options), x, weight)


@pytest.mark.parametrize("case", cases.CONV, ids=str)
@pytest.mark.parametrize(
    "kernel", lamina.kernels("conv", "dgrad") + lamina.kernels("conv", "wgrad"), ids=str
)
def test_gradients_exact(kernel, case):
    x, weight = cases.integers(case.x, 1), cases.integers(case.weight, 2)
    bias = cases.integers(case.weight[:1], 3)
    tensors = [lamina.tensor(a, requires_grad=True) for a in (x, weight, bias)]
    with lamina.backend(kernel.backend):
        forwards = {k.algo for k in lamina.kernels("conv", "fprop", kernel.backend)}
        algo = kernel.algo if kernel.algo in forwards else "auto"
        try:
            y = conv(case, *tensors, algo=algo)
        except ValueError as error:
            pytest.skip(str(error))
        grad_y = cases.integers(y.shape, 4)
        y.backward(grad_y)
    expected = reference.conv_dgrad(grad_y, weight, x.shape, **case.options)
    assert_equal(algo, tensors[0].grad.numpy(), expected, grad_y, weight)
    expected = reference.conv_wgrad(x, grad_y, weight.shape, **case.options)
    assert_equal(algo, tensors[1].grad.numpy(), expected, grad_y, x)
    assert_array_equal(tensors[2].grad.numpy(), reference.conv_bgrad(grad_y))


CUT = [  # into bands of rows, blocks of channels or of tiles; rows of whole vectors, split strides
    ("direct", cases.ConvCase((2, 3, 37, 64), (20, 3, 7, 7), {"stride": 2, "padding": 3})),
    ("direct", cases.ConvCase((1, 3, 131, 67), (9, 3, 11, 11), {"stride": 4, "padding": 2})),
    ("direct", cases.ConvCase((2, 1, 400), (17, 1, 80), {"stride": 4, "padding": 38})),
    ("direct", cases.ConvCase((2, 3, 32, 64), (96, 3, 4, 4), {"stride": 4})),
    ("direct", cases.ConvCase((2, 3, 20, 53), (15, 3, 3, 3), {"padding": 1})),
    ("direct", cases.ConvCase((1, 1, 45, 70), (5, 1, 41, 11), {"stride": 2, "padding": (20, 5)})),
    (
        "direct",
        cases.ConvCase(
            (1, 4, 90, 130),
            (70, 2, 3, 3),
            {"stride": (1, 2), "dilation": (1, 3), "padding": 1, "groups": 2},
        ),
    ),
    # Vectors of output channels: planes beyond x, tiles that overlap, x as it lies, phases.
    (
        "direct",
        cases.ConvCase(
            (2, 3, 7, 28, 27), (62, 3, 5, 3, 3), {"stride": (1, 2, 2), "padding": (2, 1, 1)}
        ),
    ),
    (
        "direct",
        cases.ConvCase(
            (1, 12, 9, 16, 30), (32, 12, 3, 3, 3), {"dilation": (2, 1, 1), "padding": 1}
        ),
    ),
    ("direct", cases.ConvCase((3, 12, 61, 60), (62, 6, 7, 7), {"stride": 4, "groups": 2})),
    # Rows that few taps meet, or none.
    ("direct", cases.ConvCase((2, 2, 5, 60), (32, 2, 41, 11), {"stride": 2, "padding": (42, 5)})),
    (
        "direct",
        cases.ConvCase(
            (1, 32, 4, 9, 28), (62, 32, 3, 5, 3), {"padding": (2, 7, 1), "dilation": (2, 3, 1)}
        ),
    ),
    ("direct", cases.ConvCase((1, 32, 16, 24, 28), (40, 32, 4, 4, 4), {"stride": 2, "padding": 1})),
    # Vectors of input channels: some in the last vector, rows of taps and single ones, groups.
    (
        "direct",
        cases.ConvCase((2, 40, 9, 14, 13), (6, 40, 3, 4, 3), {"stride": 2, "padding": (2, 2, 1)}),
    ),
    (
        "direct",
        cases.ConvCase(
            (1, 72, 12, 20, 14),
            (10, 36, 2, 3, 3),
            {"stride": (1, 2, 2), "dilation": (1, 2, 2), "padding": (1, 0, 2), "groups": 2},
        ),
    ),
    # Gradients of filters along the depth alone; of few inputs, some of whose planes are beyond x.
    (
        "direct",
        cases.ConvCase((2, 22, 6, 20, 28), (14, 11, 4, 1, 1), {"padding": (2, 0, 0), "groups": 2}),
    ),
    ("direct", cases.ConvCase((1, 14, 5, 9, 10), (12, 14, 5, 3, 5), {"padding": (3, 1, 2)})),
    (
        "implicit_gemm",
        cases.ConvCase((1, 16, 40, 33), (24, 16, 3, 3), {"dilation": 12, "padding": 12}),
    ),
    # Rows of every third, fourth, fifth element.
    ("implicit_gemm", cases.ConvCase((2, 5, 9, 200), (9, 5, 3, 4), {"stride": 3, "padding": 2})),
    ("implicit_gemm", cases.ConvCase((3, 18, 300), (20, 18, 9), {"stride": 4, "padding": 4})),
    (
        "implicit_gemm",
        cases.ConvCase((2, 6, 401), (12, 3, 7), {"stride": 5, "dilation": 3, "groups": 2}),
    ),
    # Gradients at a stride: rows that two blocks of columns meet, images that share one, volumes;
    # 49 positions, whose last one a tile takes along.
    ("implicit_gemm", cases.ConvCase((1, 40, 61, 150), (24, 40, 5, 4), {"stride": (2, 3)})),
    ("implicit_gemm", cases.ConvCase((9, 3, 19, 14), (300, 3, 3, 3), {"stride": 2, "padding": 1})),
    (
        "implicit_gemm",
        cases.ConvCase((3, 6, 9, 14, 21), (10, 3, 3, 2, 4), {"stride": 2, "groups": 2}),
    ),
    (
        "implicit_gemm",
        cases.ConvCase((1, 40, 14, 14), (260, 40, 3, 3), {"stride": 2, "padding": 1}),
    ),
    ("implicit_gemm", cases.ConvCase((1, 270, 7, 7), (20, 270, 1, 1), {})),
    # Runs of positions that end in a row and in an image, filters that a unit lays out itself; more
    # pairs than a sum takes at once, images in chunks, taps that meet none, results without taps.
    ("gather_gemm", cases.ConvCase((3, 17, 9, 31), (50, 17, 3, 2), {"padding": 1})),
    ("gather_gemm", cases.ConvCase((2, 5, 700), (20, 5, 4), {"stride": 2, "padding": 3})),
    ("gather_gemm", cases.ConvCase((40, 18, 7, 9), (4, 18, 2, 3), {"stride": (1, 2)})),
    ("gather_gemm", cases.ConvCase((2, 150, 5, 4), (70, 150, 3, 3), {"padding": 6, "dilation": 6})),
    (
        "gather_gemm",
        cases.ConvCase((2, 34, 5, 8, 3), (140, 17, 3, 4, 2), {"stride": 3, "groups": 2}),
    ),
    ("winograd", cases.ConvCase((2, 20, 44, 50), (140, 20, 3, 3), {"padding": 1})),
    ("winograd2x4", cases.ConvCase((2, 20, 44, 50), (140, 20, 3, 3), {"padding": 1})),
    # Few tiles of many channels, in chunks that fit in a cache.
    ("winograd", cases.ConvCase((1, 760, 26, 28), (9, 760, 3, 3), {"padding": 1})),
    ("winograd4", cases.ConvCase((1, 760, 37, 50), (9, 760, 3, 3), {"padding": 1})),
    ("winograd1d", cases.ConvCase((1, 24, 512), (13, 24, 15), {"padding": 7})),  # few filters
]


@pytest.mark.parametrize(("algo", "case"), CUT, ids=str)
def test_cut_convolutions_exact(algo, case):
    x, weight = cases.integers(case.x, 1), cases.integers(case.weight, 2)
    with lamina.backend("cpu"):
        tensors = [lamina.tensor(a, requires_grad=True) for a in (x, weight)]
        y = conv(case, *tensors, algo=algo)
        grad_y = cases.integers(y.shape, 4)
        y.backward(grad_y)
    assert_equal(
        algo, y.detach().numpy(), reference.conv(x, weight, None, **case.options), x, weight
    )
    expected = reference.conv_dgrad(grad_y, weight, x.shape, **case.options)
    assert_equal(algo, tensors[0].grad.numpy(), expected, grad_y, weight)
    expected = reference.conv_wgrad(x, grad_y, weight.shape, **case.options)
    assert_equal(algo, tensors[1].grad.numpy(), expected, grad_y, x)


@pytest.mark.parametrize("width", [256, 250])
def test_results_past_the_caches(width):
    """Large results are stored past the caches: the same bits as a few of their channels."""
    x, weight = cases.reals((1, 2, 270, width), 1), cases.reals((84, 2, 3, 3), 2)
    bias = cases.reals((84,), 3)
    with lamina.backend("cpu"):
        y = F.conv2d(x, weight, bias, padding=1, algo="direct")
        assert y.nbytes > 20 << 20
        for k in range(0, 84, 28):
            few = slice(k, k + 28)
            part = F.conv2d(x, weight[few], bias[few], padding=1, algo="direct")
            assert_array_equal(y[:, few], part)


@pytest.mark.parametrize("case", cases.CONV_TRANSPOSE, ids=str)
@pytest.mark.parametrize("kernel", lamina.kernels("conv", "dgrad"), ids=str)
def test_conv_transpose_exact(kernel, case):
    function = getattr(F, f"conv_transpose{case.axes}d")
    expected = getattr(reference, f"conv_transpose{case.axes}d")
    groups = case.options.get("groups", 1)
    x, weight = cases.integers(case.x, 1), cases.integers(case.weight, 2)
    bias = cases.integers((case.weight[1] * groups,), 3)
    y = run_named(kernel, lambda algo: function(x, weight, bias, **case.options, algo=algo))
    assert_equal(kernel.algo, y, expected(x, weight, bias, **case.options), x, weight)


@pytest.mark.parametrize(
    ("x", "weight", "options"),
    [
        ((1, 3, 37, 6), (3, 20, 2, 2), {"stride": 2}),  # bands of an image's rows
        ((1, 5, 70, 3), (5, 3, 2, 3), {"stride": (3, 2), "padding": (0, 1)}),
        ((2, 5, 64, 3), (5, 3, 3, 3), {"stride": 4, "output_padding": 3}),
        ((1, 3, 5, 6), (3, 12, 5, 5), {"stride": 2, "padding": 2}),  # blocks that share panels
        ((9, 10, 1, 1), (10, 12, 4, 4), {}),  # each result has one tap
        ((2, 7, 2, 3), (7, 9, 5, 4), {"dilation": 2, "padding": 1}),
    ],
)
def test_blocks_of_columns(x, weight, options):
    x, weight = cases.integers(x, 1), cases.integers(weight, 2)
    expected = reference.conv_transpose(x, weight, **options)
    kept = lamina.tensor(weight)
    with lamina.backend("cpu"):
        for operands in ((x, weight), (lamina.Tensor(x), kept), (lamina.Tensor(x), kept)):
            y = F.conv_transpose2d(*operands, **options, algo="implicit_gemm")
            assert_array_equal(np.asarray(y), expected)


@pytest.mark.parametrize("case", cases.CONV, ids=str)
def test_adjoint(backend, case):
    """<conv(x), y> == <x, conv_transpose(y)>: dgrad is the transpose of fprop."""
    x, weight = cases.integers(case.x, 1), cases.integers(case.weight, 2)
    t = lamina.tensor(x, requires_grad=True)
    forward = conv(case, t, lamina.tensor(weight))
    algorithms = {lamina.last_plan().algo}
    y = cases.integers(forward.shape, 3)
    forward.backward(y)
    algorithms.add(lamina.last_plan().algo)
    ours = (forward.detach().numpy() * y).sum(dtype=np.float64)
    theirs = (x * t.grad.numpy()).sum(dtype=np.float64)
    # the bound of assert_equal for each element, times what it meets
    factor = max(ROUNDING.get(algo, 0) for algo in algorithms)
    eps, norms = np.finfo(np.float32).eps, [np.linalg.norm(a) for a in (weight, x, y)]
    slack = factor * eps * norms[0] * (norms[1] * np.abs(y).sum() + norms[2] * np.abs(x).sum())
    assert abs(ours - theirs) <= slack


@pytest.mark.parametrize("kernel", lamina.kernels("conv", "fprop", "cpu"), ids=str)
def test_same_bits_for_any_thread_count(kernel):
    taps = {"winograd5x5": (5, 5), "winograd1d": (1, 7)}.get(kernel.algo, (3, 3))
    x, weight = cases.reals((2, 8, 30, 31), 1), cases.reals((20, 8, *taps), 2)
    results = []
    for threads in (1, 2, 3, 8):
        lamina.set_num_threads(threads)
        tx, tw = lamina.tensor(x, requires_grad=True), lamina.tensor(weight, requires_grad=True)
        y = run_named(kernel, lambda algo, tx=tx, tw=tw: F.conv2d(tx, tw, padding=1, algo=algo))
        y.backward(np.ones(y.shape, np.float32))
        results.append((y.data, tx.grad.data, tw.grad.data))
    for other in results[1:]:
        for first, second in zip(results[0], other, strict=True):
            assert_array_equal(first, second)


@pytest.mark.parametrize("kernel", lamina.kernels("conv", "fprop"), ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_same_bits_at_any_place_in_a_batch(kernel, dtype):
    """Panels and groups of tiles end where they may, in the middle of an image too."""
    for c, h, w, k, taps in (8, 13, 11, 20, (3, 3)), (20, 5, 5, 9, (5, 5)), (3, 7, 18, 5, (1, 7)):
        images = 9 if kernel.backend == "cpu" else 3
        x = np.repeat(cases.reals((1, c, h, w), 1, dtype), images, 0)
        tx = lamina.tensor(x, requires_grad=True)
        weight, padding = cases.reals((k, c, *taps), 2, dtype), tuple(n // 2 for n in taps)
        with lamina.backend(kernel.backend):
            try:
                y = F.conv2d(tx, weight, padding=padding, algo=kernel.algo)
            except ValueError as error:
                assert "no algorithm can run" in str(error)
                continue
            y.backward(np.repeat(cases.reals((1, *y.shape[1:]), 3, dtype), images, 0))
        for result in y.data, tx.grad.data:
            assert_array_equal(result, np.repeat(result[:1], images, 0))


LAYOUTS = {
    "transposed": lambda a: np.swapaxes(np.swapaxes(a, 0, 1).copy(), 0, 1),
    "negative strides": lambda a: a[..., ::-1].copy()[..., ::-1],
    "fortran": np.asfortranarray,
    "sliced": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "misaligned": lambda a: (
        np.frombuffer(b"\0" + a.tobytes(), np.uint8)[1:].view(a.dtype).reshape(a.shape)
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_and_read_only_inputs(backend, layout):
    x, weight = cases.integers((2, 3, 6, 5), 1), cases.integers((4, 3, 3, 3), 2)
    expected = reference.conv(x, weight, padding=1)
    odd_x, odd_weight = LAYOUTS[layout](x), LAYOUTS[layout](weight)
    for array in (odd_x, odd_weight):
        array.flags.writeable = False
    assert_array_equal(F.conv2d(odd_x, odd_weight, padding=1), expected)
    assert_array_equal(odd_x, x)


def test_empty_batch(backend):
    x = lamina.tensor(np.zeros((0, 3, 5, 5), np.float32), requires_grad=True)
    weight = lamina.tensor(np.ones((4, 3, 3, 3), np.float32), requires_grad=True)
    bias = lamina.tensor(np.ones(4, np.float32), requires_grad=True)
    y = F.conv2d(x, weight, bias)
    y.backward(np.zeros(y.shape, np.float32))
    assert y.shape == (0, 4, 3, 3)
    assert x.grad.shape == (0, 3, 5, 5)
    assert not weight.grad.data.any()
    assert not bias.grad.data.any()


@pytest.mark.parametrize("kernel", lamina.kernels("conv", "fprop"), ids=str)
def test_no_input_channels(kernel):
    """Sums of nothing: the bias alone."""
    x = lamina.tensor(np.zeros((1, 0, 6, 6), np.float32), requires_grad=True)
    weight = lamina.tensor(np.zeros((3, 0, 3, 3), np.float32), requires_grad=True)
    bias = np.arange(3, dtype=np.float32)
    y = run_named(kernel, lambda algo: F.conv2d(x, weight, bias, padding=1, algo=algo))
    assert_array_equal(y.data, np.broadcast_to(bias[:, None, None], (1, 3, 6, 6)))
    with lamina.backend(kernel.backend):
        y.backward(np.ones(y.shape, np.float32))
    assert (x.grad.shape, weight.grad.shape) == (x.shape, weight.shape)


def test_nan_reaches_exactly_its_windows(backend):
    x = cases.integers((1, 2, 7, 7), 1)
    x[0, 1, 3, 3] = np.nan
    y = F.conv2d(x, cases.integers((3, 2, 3, 3), 2), algo="auto")
    touched = np.zeros((5, 5), bool)
    touched[1:4, 1:4] = True
    assert_array_equal(np.isnan(y[0]), np.broadcast_to(touched, (3, 5, 5)))


def test_workspace_limit_and_refusals():
    x, weight = cases.integers((1, 8, 9, 9), 1), cases.integers((8, 8, 3, 3), 2)
    F.conv2d(x, weight, algo="im2col")
    needed = lamina.last_plan().workspace_bytes
    assert needed == 8 * 9 * 49 * 4
    F.conv2d(x, weight, workspace_limit=needed - 1)
    plan = lamina.last_plan()
    assert plan.algo != "im2col"
    assert any("workspace_limit" in reason for _, reason in plan.refusals)
    lines = str(plan).splitlines()
    assert lines[0] == f"conv2d fprop: {plan.algo} on {plan.backend}, chosen by cost rule"
    assert [f"  not {algo}: {reason}" for algo, reason in plan.refusals] == lines[2:]
    with pytest.raises(ValueError, match="above workspace_limit=0"):
        F.conv2d(x, weight, algo="im2col", workspace_limit=0)


X, W = (2, 4, 8, 8), (6, 4, 3, 3)
BAD = [
    (dict(x=(4, 8)), ValueError, "input must have 3 or 4 dimensions"),
    (dict(x=(2, 4, 8, 8, 8)), ValueError, "input must have 3 or 4 dimensions"),
    (dict(w=(6, 4, 3)), ValueError, "weight must have 4 dimensions"),
    (dict(w=(6, 3, 3, 3)), ValueError, "input has 4 channels but weight expects 3"),
    (dict(w=(5, 2, 3, 3), groups=2), ValueError, "groups must divide the output channels"),
    (dict(groups=0), ValueError, "groups must be at least 1"),
    (dict(groups=1.0), TypeError, "groups must be an integer"),
    (dict(stride=0), ValueError, "stride must be at least 1"),
    (dict(stride=-1), ValueError, "stride must be at least 1"),
    (dict(stride=(1, 2, 3)), ValueError, "stride must be an integer or 2 of them"),
    (dict(stride="2"), TypeError, "stride must be an integer"),
    (dict(stride=True), TypeError, "stride must be an integer"),
    (dict(dilation=0), ValueError, "dilation must be at least 1"),
    (dict(dilation=2**40), ValueError, "dilation must be below"),
    (dict(padding=-1), ValueError, "padding must be at least 0"),
    (dict(padding="full"), ValueError, "padding must be one of"),
    (dict(padding=((1, 1), 1)), ValueError, "padding must be a number"),
    (dict(padding=2**40), ValueError, "padding must be below"),
    (dict(padding=2**30), ValueError, "fewer than 2**63 bytes"),
    (dict(padding=2**20), MemoryError, "the result needs"),
    (dict(dilation=4), ValueError, "the kernel reaches over 9 positions"),
    (dict(w=(6, 4, 9, 3)), ValueError, "the kernel reaches over 9 positions"),
    (dict(w=(6, 4, 0, 3)), ValueError, "the kernel must not be empty"),
    (dict(bias=(5,)), ValueError, "bias must have one element per output channel"),
    (dict(dtype=np.int64), TypeError, "must be float32 or float64, got input.dtype=int64"),
    (dict(dtype=np.complex64), TypeError, "must be float32 or float64, got input.dtype=complex64"),
    (dict(dtype=object), TypeError, "must be float32 or float64, got input.dtype=object"),
    (dict(dtype="U3"), TypeError, "must be float32 or float64, got input.dtype=<U3"),
    (dict(wdtype=np.float64), TypeError, "all arrays must have one dtype"),
    (dict(algo="fastest"), ValueError, "algo must be one of"),
    (dict(workspace_limit=-5), ValueError, "workspace_limit must be at least 0"),
]


@pytest.mark.parametrize(("change", "error", "text"), BAD, ids=lambda v: str(v)[:40])
def test_bad_input(change, error, text):
    change = dict(change)
    dtype = change.pop("dtype", np.float32)
    x = np.zeros(change.pop("x", X), dtype)
    weight = np.zeros(change.pop("w", W), change.pop("wdtype", dtype))
    bias = np.zeros(change.pop("bias"), dtype) if "bias" in change else None
    start = time.perf_counter()
    with pytest.raises(error, match="^conv2d: ") as caught:
        F.conv2d(x, weight, bias, **change)
    assert text in str(caught.value)
    assert time.perf_counter() - start < 0.5


BAD_TRANSPOSE = [
    (dict(x=(4, 8)), ValueError, "input must have 3 or 4 dimensions"),
    (dict(x=(1, 4, 0, 3)), ValueError, "the input is empty"),
    (dict(w=(4, 6, 3)), ValueError, "weight must have 4 dimensions"),
    (dict(w=(3, 6, 3, 3)), ValueError, "input has 4 channels but weight expects 3"),
    (dict(groups=3), ValueError, "groups must divide the input channels"),
    (dict(stride=0), ValueError, "stride must be at least 1"),
    (dict(dilation=0), ValueError, "dilation must be at least 1"),
    (dict(padding=-1), ValueError, "padding must be at least 0"),
    (dict(padding="same"), ValueError, "padding must be numbers"),
    (dict(padding=9), ValueError, "the output would have size"),
    (dict(output_padding=1), ValueError, "output_padding must be smaller"),
    (dict(stride=2, output_padding=2), ValueError, "output_padding must be smaller"),
    (dict(stride=2, output_size=40), ValueError, "output_size along spatial axis 0"),
    (dict(bias=(5,)), ValueError, "bias must have one element"),
    (dict(stride=2**31 - 1), ValueError, "fewer than 2**63 bytes"),
    (dict(stride=2**20), MemoryError, "the result needs"),
    (dict(dtype=np.int32), TypeError, "must be float32 or float64"),
]


@pytest.mark.parametrize(("change", "error", "text"), BAD_TRANSPOSE, ids=lambda v: str(v)[:40])
def test_bad_input_of_conv_transpose(change, error, text):
    change = dict(change)
    dtype = change.pop("dtype", np.float32)
    x = np.zeros(change.pop("x", X), dtype)
    weight = np.zeros(change.pop("w", (4, 6, 3, 3)), dtype)
    bias = np.zeros(change.pop("bias"), dtype) if "bias" in change else None
    with pytest.raises(error, match="^conv_transpose2d: ") as caught:
        F.conv_transpose2d(x, weight, bias, **change)
    assert text in str(caught.value)
