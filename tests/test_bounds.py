"""Kernels of the CPU touch nothing outside of their arrays.

Operands, and results that Python makes, end or begin at a page that nobody may touch: an access
behind or before them ends the process.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
import weakref

import cases
import lamina
import lamina.functional as F
import numpy as np
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="calls Linux's mmap")

PAGE = mmap.PAGESIZE
NO_ACCESS, READ_AND_WRITE, PRIVATE_AND_ANONYMOUS = 0, 3, 0x22


def guarded(shape, dtype, at_end):
    """An array between two pages without access, at the end of what lies between, or its start."""
    c = ctypes.CDLL(None, use_errno=True)
    c.mmap.restype = ctypes.c_void_p
    c.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    c.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    c.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    dtype = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    room = -(-size // PAGE) * PAGE
    base = c.mmap(None, room + 2 * PAGE, READ_AND_WRITE, PRIVATE_AND_ANONYMOUS, -1, 0)
    for place in (base, base + PAGE + room):
        assert c.mprotect(place, PAGE, NO_ACCESS) == 0
    first = base + PAGE + (room - size if at_end else 0)
    memory = (ctypes.c_char * size).from_address(first)
    weakref.finalize(memory, c.munmap, base, room + 2 * PAGE)
    return np.frombuffer(memory, dtype).reshape(shape)


@pytest.fixture(params=["end", "start"])
def place(request, monkeypatch):
    """place(array): a guarded copy; results that modules make in Python are guarded too."""
    at_end = request.param == "end"
    makers = {
        lamina.arrays.empty: lambda op, shape, dtype, *_, **__: guarded(shape, dtype, at_end),
        lamina.arrays.empty_like: lambda op, x, *_, **__: guarded(x.shape, x.dtype, at_end),
    }
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "lamina":
            for key, value in list(vars(module).items()):
                if callable(value) and getattr(value, "__hash__", None) and value in makers:
                    monkeypatch.setattr(module, key, makers[value])

    def copy(array):
        result = guarded(array.shape, array.dtype, at_end)
        result[...] = array
        return result

    return copy


def check(place, call, *arrays):
    """Forward, and forward and back, twice: the second call is known."""
    for _ in range(2):
        operands = [place(a) for a in arrays]
        call(*operands)
        tensors = [lamina.Tensor(a, requires_grad=a.dtype.kind == "f") for a in operands]
        y = call(*tensors)
        y.backward(place(np.ones(y.shape, y.dtype)))


DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@DTYPES
@pytest.mark.parametrize(
    "shape",
    [(33, 17), (300, 1030), (700, 3), (70, 53, 2), (40, 9, 29), (2, 3, 7, 7), (1, 2, 17001)],
    ids=str,
)
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(place, shape, training, dtype):
    affine = [cases.reals(shape[1:2], seed, dtype) for seed in (2, 3)]
    fixed = place(np.zeros(shape[1], dtype)), place(np.ones(shape[1], dtype))
    x, residual = (cases.reals(shape, seed, dtype) for seed in (1, 4))

    def call(x, weight, bias, residual=None, activation=None):
        return F.batch_norm(
            x, *fixed, weight, bias, training, residual=residual, activation=activation
        )

    check(place, call, x, *affine)
    check(place, lambda *a: call(*a, activation="relu"), x, *affine, residual)


@DTYPES
@pytest.mark.parametrize("width", [5, 16, 17, 31, 33, 60, 64, 131])
def test_pools(place, width, dtype):
    x = cases.reals((2, 3, 9, width), 1, dtype)
    windows = [
        (3, 3, 1),
        (4, 4, 0),
        (5, 3, 2),
        (2, 5, 0),
        ((1, 5), (1, 5), 0),
        (3, 2, 1),
        (2, 2, 0),
    ]
    windows += [(3, 1, 1), ((3, 13), (2, 9), (1, 6)), ((1, 24), (1, 23), (0, 9)), ((1, 16), 16, 0)]
    for kernel, stride, padding in windows:
        columns = kernel if isinstance(kernel, int) else kernel[1]
        if columns > width:
            continue
        for pool in (F.max_pool2d, F.avg_pool2d):
            check(place, lambda x, pool=pool: pool(x, kernel, stride, padding), x)  # noqa: B023
    for size in (1, 2, 5):
        for pool in (F.adaptive_max_pool2d, F.adaptive_avg_pool2d):
            check(place, lambda x, pool=pool: pool(x, (2, size)), x)  # noqa: B023


@DTYPES
@pytest.mark.parametrize("width", [5, 17, 33, 64, 131])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(7, 1, 1), (3, 2, 1), (4, 1, 3)])
def test_depthwise_convolution(place, width, kernel, stride, dilation, dtype):
    padding = kernel // 2 * dilation

    def call(x, weight, bias):
        shape = (1, stride), (0, padding), (1, dilation)
        return F.conv2d(x, weight, bias, *shape, groups=3, algo="depthwise")

    for rows in (1, 3):
        check(
            *(place, call, cases.reals((2, 3, rows, width), 1, dtype)),
            *(cases.reals((6, 1, rows, kernel), 2, dtype), cases.reals((6,), 3, dtype)),
        )


@DTYPES
@pytest.mark.parametrize("padding", [0, 1])
def test_convolution_of_volumes_over_vectors_of_outputs(place, padding, dtype):
    def call(x, weight, bias):
        return F.conv3d(x, weight, bias, (1, 2, 2), padding, algo="direct")

    size = (5, 32 - 2 * padding, 33 - 2 * padding)
    check(
        *(place, call, cases.reals((1, 12, *size), 1, dtype)),
        *(cases.reals((31, 12, 3, 3, 5), 2, dtype), cases.reals((31,), 3, dtype)),
    )


@DTYPES
def test_convolution_of_volumes_over_vectors_of_inputs(place, dtype):
    def call(x, weight, bias):
        return F.conv3d(x, weight, bias, 2, 1, algo="direct")

    check(
        *(place, call, cases.reals((1, 37, 13, 13, 13), 1, dtype)),
        *(cases.reals((3, 37, 3, 3, 3), 2, dtype), cases.reals((3,), 3, dtype)),
    )


@DTYPES
@pytest.mark.parametrize("channels", [(5, 3), (17, 35)])
def test_convolution_over_pairs_of_positions(place, channels, dtype):
    from_, to = channels
    kernel = cases.reals((to, from_, 2, 3, 3), 2, dtype)
    for function, x in (
        (F.conv3d, cases.reals((2, from_, 4, 5, 7), 1, dtype)),
        (F.conv_transpose3d, cases.reals((2, to, 2, 3, 4), 1, dtype)),
    ):
        check(place, lambda x, w, f=function: f(x, w, None, 2, 1, algo="gather_gemm"), x, kernel)


@DTYPES
@pytest.mark.parametrize("width", [5, 16, 67])
def test_convolution_along_the_depth(place, width, dtype):
    def call(x, weight):
        return F.conv3d(x, weight, padding=(1, 0, 0), algo="direct")

    x = cases.reals((2, 5, 4, 9, width), 1, dtype)
    check(place, call, x, cases.reals((6, 5, 3, 1, 1), 2, dtype))


@DTYPES
@pytest.mark.parametrize("width", [5, 17, 33])
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_convolution_of_volumes(place, width, stride, dtype):
    def call(x, weight, bias):
        return F.conv3d(x, weight, bias, stride, 1, groups=3, algo="depthwise")

    check(
        *(place, call, cases.reals((2, 3, 4, 7, width), 1, dtype)),
        *(cases.reals((6, 1, 3, 3, 3), 2, dtype), cases.reals((6,), 3, dtype)),
    )


@DTYPES
@pytest.mark.parametrize("stride", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("width", [5, 67, 389])
def test_convolution_of_a_line(place, width, stride, dtype):
    def call(x, weight):
        return F.conv1d(x, weight, None, stride, 2, algo="implicit_gemm")

    x, weight = cases.reals((2, 3, width), 1, dtype), cases.reals((9, 3, 4), 2, dtype)
    check(place, call, x, weight)


@DTYPES
@pytest.mark.parametrize("stride", [1, 2, 5])
def test_transposed_convolution_of_a_line(place, stride, dtype):
    def call(x, weight, bias):
        return F.conv_transpose1d(x, weight, bias, stride, 1, algo="implicit_gemm")

    check(
        *(place, call, cases.reals((2, 3, 1037), 1, dtype)),
        *(cases.reals((3, 2, 7), 2, dtype), cases.reals((2,), 3, dtype)),
    )


@DTYPES
@pytest.mark.parametrize("count", [1, 7, 16, 33, 255, 257, 20001])
def test_losses_and_arithmetic(place, count, dtype):
    x, t = (cases.reals((count,), seed, dtype) for seed in (1, 2))
    size = np.abs(x) + dtype(0.1)
    share, signs = size / size.max(), np.where(t > 0, 1, -1).astype(dtype)
    for reduction in ("none", "mean"):
        for loss in (F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss):
            check(place, lambda x, t, f=loss: f(x, t, reduction=reduction), x, t)  # noqa: B023
        for loss, target in (
            (F.binary_cross_entropy_with_logits, share),
            (F.soft_margin_loss, signs),
        ):
            check(place, lambda x, f=loss, t=target: f(x, place(t), reduction=reduction), x)  # noqa: B023
        check(place, lambda x: F.binary_cross_entropy(x, place(share), reduction=reduction), share)  # noqa: B023
    unary = lamina.sign, lamina.prod, lamina.norm, lamina.square, lambda x: x**3, lambda x: x**-2
    for call in (*unary, lambda x: lamina.logsumexp(x, 0), lambda x: lamina.clamp(x, -0.5, 0.5)):
        check(place, call, size)
    check(place, lamina.rsqrt, size)
    for call in (lamina.remainder, lamina.matmul, lamina.pow):
        check(place, call, size, t)


@DTYPES
@pytest.mark.parametrize("shape", [(3, 5), (17, 33), (2, 64), (65, 7)], ids=str)
def test_rows(place, shape, dtype):
    rows, columns = shape
    x = cases.reals(shape, 1, dtype)
    labels = place(np.arange(rows) % columns)
    for call in (
        F.pdist,
        lambda x: F.pdist(x, 1.0),
        lambda x: F.nll_loss(x, labels),
        lambda x: F.cross_entropy(x, labels),
        lambda x: F.cross_entropy(x, place(np.abs(x if isinstance(x, np.ndarray) else x.data))),
        lambda x: F.rms_norm(x, (columns,)),
        lambda x: F.glu(x[:, : columns // 2 * 2], 1),
        lambda x: F.cosine_similarity(x, place(np.ones(shape, dtype))),
        *(
            lambda x, p=p: F.pairwise_distance(x, place(np.ones(shape, dtype)), p)
            for p in (1.0, 2.0, 3.5, float("inf"))
        ),
        lambda x: lamina.logsumexp(x, 0),
        lambda x: lamina.prod(x, 0),
        lambda x: lamina.prod(x, 1),
        lambda x: F.embedding(place(np.arange(12).reshape(3, 4) % rows), x),
        lambda x: F.embedding_bag(place(np.arange(12).reshape(3, 4) % rows), x),
        lambda x: lamina.gather(x, 1, place(np.arange(rows * 6).reshape(rows, 6) % columns)),
        lambda x: lamina.flip(x, (0, 1)),
        lambda x: lamina.sigmoid(lamina.permute(x, (1, 0))),
        lambda x: lamina.add(lamina.permute(x, (1, 0)), place(np.ones(rows, dtype))),
    ):
        check(place, call, x)
    for mode in ("reflect", "replicate", "circular", "constant"):
        image = cases.reals((2, 2, rows, columns), 1, dtype)
        check(place, lambda x, mode=mode: F.pad(x, (1, 2, 1, 1), mode=mode), image)


@DTYPES
@pytest.mark.parametrize("shape", [(3, 2, 3), (20, 3, 9), (50, 2, 40)], ids=str)
def test_ctc(place, shape, dtype):
    steps, count, classes = shape
    labels = place(np.arange(count * (steps // 2)).reshape(count, -1) % (classes - 1) + 1)
    sizes = [labels.shape[1]] * count
    x = F.log_softmax(cases.reals(shape, 1, dtype), -1)
    check(place, lambda x: F.ctc_loss(x, labels, [steps] * count, sizes), x)


@DTYPES
@pytest.mark.parametrize("shape", [(3, 7), (5, 33), (2, 4, 9), (4, 6, 5, 13)], ids=str)
def test_lines(place, shape, dtype):
    x = cases.reals(shape, 1, dtype)
    affine = [cases.reals(shape[1:2], seed, dtype) for seed in (2, 3)]
    for name in ("relu", "gelu", "silu", "elu", "tanh", "softplus", "mish", "hardswish"):
        check(place, getattr(F, name), x)
    for dim in (0, 1, -1):
        for call in (F.softmax, F.log_softmax, lamina.cumsum, lamina.sum, lamina.var):
            check(place, lambda x, f=call, dim=dim: f(x, dim), x)
        check(place, lambda x, dim=dim: lamina.amax(x, dim), x)
        check(place, lambda x, dim=dim: lamina.logsumexp(x, dim), x)
    check(place, lambda x: F.layer_norm(x, shape[1:]), x)
    check(place, lambda x, w, b: F.group_norm(x, 1, w, b), x, *affine)
    check(place, F.prelu, x, affine[0])
    check(place, F.normalize, x)
    check(place, lambda x: F.dropout(x, 0.5), x)
    if len(shape) > 2:
        check(place, F.instance_norm, x)
        check(place, lambda x: F.local_response_norm(x, 3), x)
    if len(shape) == 4:
        for mode in ("nearest", "bilinear", "bicubic"):
            check(place, lambda x, mode=mode: F.interpolate(x, (7, 9), mode=mode), x)
        check(place, lambda x: F.unfold(x, 3, padding=1), x)
        check(place, lambda x: F.pixel_unshuffle(x[:, :, :4, :12], 2), x)


@DTYPES
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [
        ((9, 9), 3, 1, 1),
        ((7, 18), 3, 1, 1),
        ((12, 35), 5, 2, 2),
        ((8, 8), 1, 1, 0),
        ((4, 33), 4, 2, 1),
    ],
    ids=str,
)
@pytest.mark.parametrize("channels", [(3, 5), (16, 24)], ids=str)
def test_convolutions(place, size, kernel, stride, padding, channels, dtype):
    x = cases.reals((2, channels[0], *size), 1, dtype)
    weight = cases.reals((channels[1], channels[0], kernel, kernel), 2, dtype)
    bias = cases.reals((channels[1],), 3, dtype)
    options = stride, padding
    for name in {kernel.algo for kernel in lamina.kernels("conv", "fprop")}:
        try:
            F.conv2d(x, weight, bias, *options, algo=name)
        except ValueError:
            continue  # not for this shape
        check(place, lambda *a, name=name: F.conv2d(*a, *options, algo=name), x, weight, bias)
    check(place, lambda *a: F.conv_transpose2d(*a, *options), x, weight.swapaxes(0, 1).copy(), bias)
    check(place, F.linear, x.reshape(-1, size[1]), cases.reals((6, size[1]), 4, dtype))
