"""The matrix product under linear layers and recurrent cells, every transposition and tile.

Small integers are exact. 16-bit results, of the CUDA kernels: one rounding of a float32 sum, whose
n products err by at most n eps of the sum of absolute products (Higham 2002, section 3.1).
"""

from __future__ import annotations

import itertools

import cases
import lamina
import numpy as np
import pytest
from conftest import BACKENDS
from lamina import _C, runtime
from numpy.testing import assert_array_equal

SIMT = [name for name in BACKENDS if name.startswith("simt")] or ["simt"]
TRANSPOSED = list(itertools.product((False, True), repeat=2))


def stored(array: np.ndarray, transposed: bool) -> np.ndarray:
    return np.ascontiguousarray(np.swapaxes(array, 1, 2)) if transposed else array


def product(a, b, trans, bias=None, into=None):
    """a [batch, m, k] times b [batch, k, n], stored as `trans` says; added to `into`, if given."""
    (batch, m, k), n = a.shape, b.shape[2]
    c = np.empty((batch, m, n), a.dtype) if into is None else into.copy()
    a, b = stored(a, trans[0]), stored(b, trans[1])
    _C.gemm(a, b, c, bias, batch, m, n, k, *trans, into is not None)
    return c


def factors(sizes, dtype, fill=cases.integers):
    batch, m, n, k = sizes
    return fill((batch, m, k), 1, dtype), fill((batch, k, n), 2, dtype)


# Partial tiles, whole vectors and odd sizes, a column, an empty sum; few rows, little depth.
SIZES = [
    (1, 5, 7, 3),
    (3, 64, 68, 40),
    (1, 72, 130, 33),
    (2, 1, 65, 17),
    (1, 70, 1, 8),
    (2, 4, 3, 0),
    (2, 1, 2100, 11),
    (1, 7, 300, 9),
    (2, 45, 37, 1),
    (1, 33, 520, 7),
]


@pytest.mark.parametrize("trans", TRANSPOSED, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exact(backend, dtype, sizes, trans):
    a, b = factors(sizes, dtype)
    bias, into = cases.integers(sizes[2:3], 3, dtype), cases.integers(sizes[:3], 4, dtype)
    assert_array_equal(product(a, b, trans), a @ b)
    assert_array_equal(product(a, b, trans, bias, into), into + a @ b + bias)


@pytest.mark.parametrize("backend", SIMT)
@pytest.mark.parametrize("trans", TRANSPOSED[::3], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_large_tiles(backend, dtype, trans):
    """So many tiles of 128 x 128 that the kernels choose them."""
    a, b = factors((48, 136, 72, 16), dtype)
    with lamina.backend(backend):
        assert_array_equal(product(a, b, trans), a @ b)


@pytest.mark.parametrize("backend", SIMT)
@pytest.mark.parametrize("trans", TRANSPOSED, ids=str)
@pytest.mark.parametrize("sizes", [(2, 65, 72, 40), (1, 19, 66, 77), (1, 8, 16, 520)], ids=str)
def test_16_bit(backend, sizes, trans):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for dtype, half_ulp in ((np.float16, 2.0**-11), (ml_dtypes.bfloat16, 2.0**-8)):
        a, b = (f.astype(dtype) for f in factors(sizes, np.float32, cases.reals))
        bias = cases.reals(sizes[2:3], 3).astype(dtype)
        with lamina.backend(backend):
            actual = product(a, b, trans, bias).astype(np.float64)
        a, b, bias = (f.astype(np.float64) for f in (a, b, bias))
        absolute = abs(a) @ abs(b) + abs(bias)
        bound = half_ulp * abs(a @ b + bias) + (sizes[3] + 2) * 2.0**-23 * absolute
        assert (abs(actual - (a @ b + bias)) <= bound).all(), dtype


def odd(array: np.ndarray) -> np.ndarray:
    """A contiguous copy that starts one element after a multiple of 16 bytes."""
    room = np.empty(array.size + 1 + 16 // array.itemsize, array.dtype)
    first = (-room.ctypes.data % 16) // array.itemsize + 1
    view = room[first : first + array.size].reshape(array.shape)
    view[...] = array
    return view


@pytest.mark.parametrize("backend", SIMT)
@pytest.mark.parametrize("trans", TRANSPOSED, ids=str)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_any_alignment_and_schedule(backend, dtype, trans):
    """The same bits; on the tensor cores sums of sixteen at a time, in the same groups."""
    a, b = factors((1, 64, 72, 48), dtype, cases.reals)
    module = runtime.load_backend(backend)
    with lamina.backend(backend):
        first = product(a, b, trans)
        try:
            for schedule in ("reverse", "random"):
                module.set_schedule(schedule, 3)
                assert_array_equal(product(a, b, trans), first)
        finally:
            module.set_schedule("forward", 0)
        c = np.empty_like(first)
        _C.gemm(odd(stored(a, trans[0])), odd(stored(b, trans[1])), c, None, 1, 64, 72, 48, *trans)
    assert_array_equal(c, first)
