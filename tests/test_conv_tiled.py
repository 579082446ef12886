"""The tiled convolutions of the CUDA kernels (Winograd, Fourier): what the shared tests leave out.

float16 and bfloat16 storage, pointers that are not aligned to vectors, several blocks of tiles,
split sums, and the order in which threads run. Kernels are called through the bindings, below the
checks of `lamina.functional`, because NumPy arrays of 16 bits are for the GPU only.
"""

from __future__ import annotations

import cases
import lamina
import numpy as np
import pytest
import reference
from conftest import BACKENDS
from lamina import _C, runtime
from numpy.testing import assert_array_equal

SIMT = [name for name in BACKENDS if name.startswith("simt")] or ["simt"]
ALGORITHMS = ["winograd", "winograd4", "fft"]
PASSES = ["fprop", "dgrad", "wgrad"]


class Convolution:
    """Arrays and results of a 2-D convolution with stride 1, small integers by default."""

    def __init__(self, x, weight, padding=(1, 1), groups=1, dtype=np.float32, make=cases.integers):
        self.padding, self.groups, self.dtype = padding, groups, dtype
        sizes = [s + 2 * p - k + 1 for s, k, p in zip(x[2:], weight[2:], padding, strict=True)]
        shapes = {
            "x": x,
            "weight": weight,
            "bias": weight[:1],
            "grad_y": (*x[:1], *weight[:1], *sizes),
        }
        self.arrays = {
            name: make(shape, seed).astype(dtype)
            for seed, (name, shape) in enumerate(shapes.items())
        }
        self.shape = _C.ConvShape(
            x[0], x[1], weight[0], groups, (1, *x[2:]), (1, *weight[2:]), (1, *sizes),
            (1, 1, 1), (0, *padding), (1, 1, 1),
        )  # fmt: skip

    def run(self, backend, pass_, algo, move=lambda array: array):
        inputs = {"fprop": "x weight bias", "dgrad": "grad_y weight", "wgrad": "x grad_y"}[pass_]
        result = {"fprop": "grad_y", "dgrad": "x", "wgrad": "weight"}[pass_]
        arrays = dict.fromkeys(("x", "weight", "bias", "grad_y"))
        arrays.update({name: move(self.arrays[name]) for name in inputs.split()})
        out = move(np.zeros_like(self.arrays[result]))
        with lamina.backend(backend):
            _C.conv("conv2d", pass_, self.shape, *arrays.values(), out, algo, -1)
        return out

    def expected(self, pass_):
        x, weight, bias, grad_y = (a.astype(np.float64) for a in self.arrays.values())
        options = {"padding": self.padding, "groups": self.groups}
        if pass_ == "fprop":
            return reference.conv(x, weight, bias, **options)
        if pass_ == "dgrad":
            return reference.conv_dgrad(grad_y, weight, x.shape, **options)
        return reference.conv_wgrad(x, grad_y, weight.shape, **options)


def transform_error(algo, conv, pass_):
    """The float32 bound of tests/test_conv.py for any element of the result."""
    factor = {"winograd": 9**2, "winograd4": (8.25 * 1.39 * 5.29) ** 2, "fft": 4 * 12}[algo]
    operands = {"fprop": ("x", "weight"), "dgrad": ("grad_y", "weight"), "wgrad": ("x", "grad_y")}
    norms = [np.linalg.norm(conv.arrays[name].astype(np.float64)) for name in operands[pass_]]
    return factor * np.finfo(np.float32).eps * np.prod(norms)


def misaligned(array):
    """A copy that starts one element after a sixteen-byte boundary."""
    memory = np.empty(array.size + 32, array.dtype)
    start = -memory.ctypes.data % 16 // array.itemsize + 1
    view = memory[start : start + array.size].reshape(array.shape)
    view[...] = array
    return view


@pytest.mark.parametrize("algo", ALGORITHMS)
@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize("backend", SIMT)
def test_16_bit_storage(backend, pass_, algo):
    """One rounding of the exact result to the storage type, beside the bound in float32."""
    dtypes = {"float16": np.dtype(np.float16)}
    if "bfloat16" in np.sctypeDict:  # from ml_dtypes, where it is installed
        dtypes["bfloat16"] = np.dtype("bfloat16")
    for name, dtype in dtypes.items():
        conv = Convolution((2, 5, 9, 10), (6, 5, 3, 3), dtype=dtype, make=cases.reals)
        expected = conv.expected(pass_)
        eps = {"float16": 2.0**-10, "bfloat16": 2.0**-7}[name]
        bound = eps / 2 * abs(expected) + 2 * transform_error(algo, conv, pass_)
        assert (abs(conv.run(backend, pass_, algo).astype(np.float64) - expected) <= bound).all()


@pytest.mark.parametrize("algo", ALGORITHMS)
@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize("backend", SIMT)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_misaligned_arrays_give_the_same_bits(backend, pass_, algo, dtype):
    if algo == "fft" and dtype != np.float32:
        pytest.skip("one path for all types and alignments")
    for padding in ((1, 1), (0, 2)):  # pairs begin before the tile, or with it
        conv = Convolution((2, 3, 6, 12), (5, 3, 3, 3), padding, dtype=dtype, make=cases.reals)
        aligned = conv.run(backend, pass_, algo)
        assert_array_equal(conv.run(backend, pass_, algo, misaligned), aligned)


@pytest.mark.parametrize("algo", ALGORITHMS)
@pytest.mark.parametrize("pass_", PASSES)
def test_order_of_threads_does_not_matter(pass_, algo):
    simt = runtime.load_backend("simt")
    conv = Convolution((3, 4, 13, 11), (6, 2, 3, 3), (2, 0), groups=2, make=cases.reals)
    forward = conv.run("simt", pass_, algo)
    try:
        for schedule in (("reverse", 0), ("random", 1), ("random", 2)):
            simt.set_schedule(*schedule)
            assert_array_equal(conv.run("simt", pass_, algo), forward)
    finally:
        simt.set_schedule("forward", 0)


def test_blocks_of_tiles_and_splits():
    """Enough channels and tiles for a second block; wgrad sums the first in several parts."""
    conv = Convolution((1, 1, 66, 66), (512, 1, 3, 3))
    assert_array_equal(conv.run("simt", "wgrad", "winograd"), conv.expected("wgrad"))
    conv = Convolution((1, 1, 130, 130), (230, 1, 3, 3))
    error = abs(conv.run("simt", "fprop", "winograd4") - conv.expected("fprop"))
    assert error.max() < 1e-3


@pytest.mark.parametrize("backend", SIMT)
def test_winograd_without_input_channels(backend):
    """The first stage is fetched nevertheless; it must land before its room is used again."""
    conv = Convolution((1, 0, 6, 9), (40, 0, 3, 3))
    assert_array_equal(conv.run(backend, "fprop", "winograd"), conv.expected("fprop"))


@pytest.mark.parametrize("outputs", [3, 32, 33, 64, 97])
@pytest.mark.parametrize("pass_", ["fprop", "dgrad"])
def test_blocks_of_output_channels(pass_, outputs):
    """The fused kernel takes 32 or 64 output channels at a time, 8 input channels a stage."""
    x, weight = ((1, 17, 5, 9), (outputs, 17, 3, 3))
    if pass_ == "dgrad":
        x, weight = ((1, outputs, 5, 9), (17, outputs, 3, 3))
    conv = Convolution(x, weight)
    for dtype in (np.float32, np.float64):
        conv.arrays = {name: array.astype(dtype) for name, array in conv.arrays.items()}
        assert_array_equal(conv.run("simt", pass_, "winograd"), conv.expected(pass_))


# Tiles of every height and width that differ, an image in several tiles, columns of one element.
SIDES = [
    ((1, 2, 37, 20), (3, 2, 9, 3), (4, 1)),
    ((1, 2, 20, 37), (3, 2, 3, 9), (1, 4)),
    ((1, 1, 70, 10), (2, 1, 33, 1), (0, 0)),
    ((2, 1, 30, 1), (2, 1, 5, 1), (2, 0)),
    ((1, 1, 4, 100), (1, 1, 2, 17), (0, 8)),
]


@pytest.mark.parametrize(("x", "weight", "padding"), SIDES)
@pytest.mark.parametrize("pass_", PASSES)
def test_sides_of_fourier_tiles(pass_, x, weight, padding):
    conv = Convolution(x, weight, padding, make=cases.reals)
    error = abs(conv.run("simt", pass_, "fft") - conv.expected(pass_))
    assert error.max() <= transform_error("fft", conv, pass_)


@pytest.mark.parametrize("algo", ALGORITHMS)
@pytest.mark.parametrize("backend", SIMT)
def test_batch_position_does_not_matter(backend, algo):
    conv = Convolution((5, 3, 7, 6), (4, 3, 3, 3), make=cases.reals)
    for pass_, name in (("fprop", "x"), ("dgrad", "grad_y")):
        whole = conv.run(backend, pass_, algo)
        conv.arrays[name][...] = conv.arrays[name][::-1].copy()
        assert_array_equal(conv.run(backend, pass_, algo)[::-1], whole)
