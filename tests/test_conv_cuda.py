"""The CUDA convolution kernels under simt: 16-bit floats, any alignment, any schedule, split sums.

Their results on float32 and float64 are in test_conv and test_conv_geometry. Bound of a 16-bit
result: one rounding of the exact sum to its type, and float32 sums of n products, which err by at
most n eps of the sum of absolute products (Higham 2002, section 3.1).
"""

from __future__ import annotations

from typing import Any

import cases
import lamina
import lamina.functional as F
import numpy as np
import pytest
import reference
from conftest import BACKENDS
from lamina import _C, runtime
from numpy.testing import assert_array_equal

ALGORITHMS = ("direct", "depthwise", "im2col", "implicit_gemm")
SIMT = [name for name in BACKENDS if name.startswith("simt")] or ["simt"]
SHAPES = [
    # x, weight, options
    ((2, 3, 9, 37), (18, 3, 3, 5), {"padding": (1, 2)}),
    ((2, 2, 13, 6), (3, 2, 4, 3), {"stride": (2, 3), "padding": 2, "dilation": (1, 2)}),
    ((1, 6, 5, 4, 7), (4, 3, 2, 3, 3), {"stride": (1, 2, 1), "padding": 1, "groups": 2}),
    ((2, 3, 11, 40), (6, 1, 3, 3), {"padding": 1, "groups": 3}),
    ((1, 3, 23, 9), (3, 1, 5, 5), {"stride": 2, "padding": 2, "groups": 3}),
    ((1, 2, 6, 34), (2, 1, 31, 31), {"padding": 15, "groups": 2}),
    ((2, 9, 7, 7), (18, 1, 3, 3), {"padding": 1, "groups": 9}),
    ((1, 2, 12, 17), (4, 1, 3, 4), {"stride": (3, 2), "dilation": (2, 3), "groups": 2}),
    ((2, 3, 300), (3, 1, 4), {"padding": 3, "groups": 3}),
    ((1, 2, 5, 6, 7), (2, 1, 3, 3, 3), {"stride": (2, 1, 1), "padding": 1, "groups": 2}),
    # vectors of channels: of both sides, in groups, over more than one tile of the depth
    ((2, 16, 5, 9), (24, 8, 3, 3), {"padding": 1, "groups": 2}),
    ((1, 40, 6, 7), (8, 40, 3, 2), {"stride": 2, "padding": (1, 0), "dilation": (1, 2)}),
]
KERNELS = [
    pytest.param(backend, kernel.pass_, kernel.algo, id=f"{backend}-{kernel.pass_}-{kernel.algo}")
    for backend in SIMT
    for kernel in lamina.kernels("conv", backend="simt")
    if kernel.algo in ALGORITHMS
]
SEED = 3


def per_axis(value: Any, axes: int) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,) * axes


def operands(pass_: str, x: Any, weight: Any, grad_y: Any) -> dict[str, Any]:
    """The arrays that a pass reads, by their names in the binding."""
    given = {
        "fprop": {"x": x, "weight": weight},
        "dgrad": {"weight": weight, "grad_y": grad_y},
        "wgrad": {"x": x, "grad_y": grad_y},
        "bgrad": {"grad_y": grad_y},
    }[pass_]
    return {"x": None, "weight": None, "bias": None, "grad_y": None, **given}


def exact(pass_: str, x: Any, weight: Any, grad_y: Any, options: dict[str, Any]) -> Any:
    x, weight, grad_y = (np.asarray(a, np.float64) for a in (x, weight, grad_y))
    if pass_ == "fprop":
        return reference.conv(x, weight, **options)
    if pass_ == "dgrad":
        return reference.conv_dgrad(grad_y, weight, x.shape, **options)
    if pass_ == "wgrad":
        return reference.conv_wgrad(x, grad_y, weight.shape, **options)
    return reference.conv_bgrad(grad_y)


def run(
    backend: str,
    pass_: str,
    algo: str,
    x: Any,
    weight: Any,
    grad_y: Any,
    options: dict[str, Any],
    workspace_limit: int = -1,
) -> Any:
    """The kernel's result; skips where the algorithm refuses the shape."""
    axes = x.ndim - 2

    def three(value: Any, fill: int) -> tuple[int, ...]:
        return (fill,) * (3 - axes) + per_axis(value, axes)

    shape = _C.ConvShape(
        x.shape[0],
        x.shape[1],
        weight.shape[0],
        options.get("groups", 1),
        three(x.shape[2:], 1),
        three(weight.shape[2:], 1),
        three(grad_y.shape[2:], 1),
        three(options.get("stride", 1), 1),
        three(options.get("padding", 0), 0),
        three(options.get("dilation", 1), 1),
    )
    like = {
        "fprop": grad_y,
        "dgrad": x,
        "wgrad": weight,
        "bgrad": weight.reshape(len(weight), -1)[:, 0],
    }
    result = np.empty_like(like[pass_])
    given = operands(pass_, x, weight, grad_y)
    with lamina.backend(backend):
        try:
            _C.conv("conv", pass_, shape, *given.values(), result, algo, workspace_limit)
        except ValueError as error:
            assert "no algorithm can run" in str(error)
            pytest.skip(str(error))
    return result


def arrays(shape: Any, dtype: Any) -> tuple[Any, Any, Any, dict[str, Any]]:
    x_shape, weight_shape, options = shape
    x, weight = cases.reals(x_shape, 1), cases.reals(weight_shape, 2)
    y_shape = reference.conv(x, weight, **options).shape
    grad_y = cases.reals(y_shape, SEED)
    return x.astype(dtype), weight.astype(dtype), grad_y.astype(dtype), options


def half_types() -> list[Any]:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    return [(np.float16, 2.0**-11), (ml_dtypes.bfloat16, 2.0**-8)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("backend", "pass_", "algo"), KERNELS)
def test_16_bit(backend, pass_, algo, shape):
    for dtype, half_ulp in half_types():
        x, weight, grad_y, options = arrays(shape, dtype)
        actual = run(backend, pass_, algo, x, weight, grad_y, options).astype(np.float64)
        expected = exact(pass_, x, weight, grad_y, options)
        absolute = exact(pass_, *(abs(a.astype(np.float64)) for a in (x, weight, grad_y)), options)
        terms = x.size if pass_ == "wgrad" else max(weight.size, grad_y.size)
        bound = half_ulp * abs(expected) + terms * 2.0**-23 * absolute + 2.0**-24
        assert (abs(actual - expected) <= bound).all(), dtype


def odd(array: np.ndarray) -> np.ndarray:
    """A contiguous copy that starts one element after a multiple of 16 bytes."""
    room = np.empty(array.size + 1 + 16 // array.itemsize, array.dtype)
    first = (-room.ctypes.data % 16) // array.itemsize + 1
    view = room[first : first + array.size].reshape(array.shape)
    view[...] = array
    return view


@pytest.mark.parametrize("shape", SHAPES[::2], ids=str)
@pytest.mark.parametrize(("backend", "pass_", "algo"), KERNELS)
def test_any_alignment_and_schedule(backend, pass_, algo, shape):
    x, weight, grad_y, options = arrays(shape, np.float32)
    first = run(backend, pass_, algo, x, weight, grad_y, options)
    module = runtime.load_backend(backend)
    try:
        for schedule in ("reverse", "random"):
            module.set_schedule(schedule, SEED)
            again = run(backend, pass_, algo, odd(x), odd(weight), odd(grad_y), options)
            assert_array_equal(again, first, strict=True)
    finally:
        module.set_schedule("forward", 0)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    ("x_shape", "weight_shape", "options"),
    [
        ((3, 2, 41, 70), (3, 2, 3, 2), {"padding": (1, 0)}),
        ((2, 2, 100, 83), (2, 1, 3, 3), {"groups": 2}),
    ],
)
@pytest.mark.parametrize(
    ("backend", "pass_", "algo"),
    [k for k in KERNELS if k.values[1] in ("wgrad", "bgrad") and k.values[2] != "im2col"],
)
def test_split_sums(backend, pass_, algo, x_shape, weight_shape, options, dtype):
    """Enough positions for several parts; small integers are exact in float32."""
    if algo == "implicit_gemm":
        x_shape = (1, 2, 41, 70)  # its parts are smaller
    x, weight = (cases.integers(s, 1, dtype) for s in (x_shape, weight_shape))
    grad_y = cases.integers(reference.conv(x, weight, **options).shape, 2, dtype)
    grad_y[:, :, ::2] = 0  # the sums fit float16's integers
    grad_y[:, :, :, ::3] = 0
    expected = exact(pass_, x, weight, grad_y, options)
    assert abs(expected).max() < 2048
    for limit in (-1, 0):  # without a workspace there is one part
        actual = run(backend, pass_, algo, x, weight, grad_y, options, limit)
        assert (lamina.last_plan().workspace_bytes > 0) == (limit < 0)
        assert_array_equal(actual, expected)


@pytest.mark.parametrize("backend", SIMT)
def test_many_blocks_give_the_bits_of_few(backend):
    """132 equal groups run in blocks of more positions than one group: same sums, same order."""
    groups = 132
    x, weight = cases.reals((2, 3, 5, 7), 1), cases.reals((5, 3, 3, 3), 2)
    many_x, many_weight = np.tile(x, (1, groups, 1, 1)), np.tile(weight, (groups, 1, 1, 1))
    grad_y = cases.reals((2, 5, 5, 7), SEED)
    many_grad_y = np.tile(grad_y, (1, groups, 1, 1))
    options = {"padding": 1, "groups": groups}
    few = run(backend, "fprop", "direct", x, weight, grad_y, {"padding": 1})
    many = run(backend, "fprop", "direct", many_x, many_weight, many_grad_y, options)
    assert_array_equal(many, np.tile(few, (1, groups, 1, 1)))
    # The input gradient of the transposed roles has five outputs a group.
    few = run(backend, "dgrad", "direct", grad_y, weight.swapaxes(0, 1).copy(), x, {"padding": 1})
    many_weight = np.tile(weight.swapaxes(0, 1), (groups, 1, 1, 1))
    many = run(backend, "dgrad", "direct", many_grad_y, many_weight, many_x, options)
    assert_array_equal(many, np.tile(few, (1, groups, 1, 1)))


@pytest.mark.parametrize("backend", SIMT)
def test_offsets_beyond_31_bits(backend):
    """A tap 2^29 positions away lies in the padding: what is left is a filter of one tap."""
    far = 2**29
    x, weight = cases.integers((1, 2, 9), 1), cases.integers((5, 2, 2), 2)
    tensors = [lamina.tensor(a, requires_grad=True) for a in (x, weight)]
    with lamina.backend(backend):
        y = F.conv1d(*tensors, padding=((far, 0),), dilation=far, algo="direct")
        grad_y = cases.integers(y.shape, 3)
        y.backward(grad_y)
    near = weight[:, :, 1:]
    assert_array_equal(y.data, reference.conv(x, near))
    assert_array_equal(tensors[0].grad.data, reference.conv_dgrad(grad_y, near, x.shape))
    expected = np.zeros_like(weight)
    expected[:, :, 1:] = reference.conv_wgrad(x, grad_y, near.shape)
    assert_array_equal(tensors[1].grad.data, expected)


def test_depthwise_refuses_what_no_tile_holds():
    x, weight = np.zeros((1, 2, 1, 300), np.float32), np.zeros((2, 1, 1, 3), np.float32)
    t = lamina.tensor(x, requires_grad=True)
    with lamina.backend(SIMT[0]):
        F.conv2d(x, weight, groups=2, dilation=100, algo="depthwise")
        with pytest.raises(ValueError, match="reach fits shared memory"):
            F.conv2d(
                x[:, :, :, :1], weight, groups=2, dilation=9000, padding=(0, 9000), algo="depthwise"
            )
        y = F.conv2d(t, lamina.tensor(weight), groups=2, stride=(1, 33), algo="depthwise")
        y.backward(np.ones(y.shape, np.float32))
        assert lamina.last_plan().algo != "depthwise"


LARGE = [
    # x, weight, groups: enough tiles of 128 x 128 for the kernels to choose them, in each pass
    ("fprop", (1, 24, 15, 31), (24 * 66, 1, 3, 2), 24),
    ("dgrad", (1, 24 * 66, 15, 31), (24, 66, 3, 2), 24),
    ("wgrad", (1, 10, 15, 9), (70, 10, 3, 3), 1),
]


@pytest.mark.parametrize("backend", SIMT)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(("pass_", "x_shape", "weight_shape", "groups"), LARGE, ids=str)
def test_large_tiles(backend, pass_, x_shape, weight_shape, groups, dtype):
    options = {"groups": groups, "padding": 1}
    x, weight = (cases.integers(s, 1, dtype) for s in (x_shape, weight_shape))
    y_shape = reference.conv(x, weight, **options).shape
    grad_y = cases.integers(y_shape, 2, dtype)
    actual = run(backend, pass_, "implicit_gemm", x, weight, grad_y, options)
    assert_array_equal(actual, exact(pass_, x, weight, grad_y, options))
