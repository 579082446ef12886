"""The arrays that kernels accept: what is converted, and what is refused."""

from __future__ import annotations

import lamina
import numpy as np
import pytest

ARRAYS_BAD = [
    ([1.0], "list"),
    (np.arange(3), r"\.astype\('float32'\)"),
    (np.ones(2, np.float16), "float16 runs on CUDA only"),
    (np.ones(2, np.complex64), "two float32"),
    (np.array(["a"]), "dtype=<U1"),
    (np.array([None]), "dtype=object"),
    (np.ones(2, np.longdouble), "convert it to float32"),
    (np.ma.ones(2), "MaskedArray"),
    (1.0, "float"),
    (None, "NoneType"),
]


@pytest.mark.parametrize("x, message", ARRAYS_BAD, ids=range(len(ARRAYS_BAD)))
def test_asarray_refuses(x, message):
    with pytest.raises(TypeError, match=f"(?s)conv2d: weight must be .*{message}"):
        lamina.arrays.asarray("conv2d", "weight", x)


class Foreign:
    """An array of another library."""

    def __dlpack__(self):
        raise AssertionError("asked for without the caller's word")


@pytest.mark.parametrize("convert", [lamina.arrays.asarray, lamina.arrays.asindices])
def test_what_to_do_instead(convert):
    with pytest.raises(TypeError, match=r"test_arrays\.Foreign; .*lamina\.from_dlpack\(target\)"):
        convert("op", "target", Foreign())
    with pytest.raises(TypeError, match=r"got target of type list; .*numpy\.asarray"):
        convert("op", "target", [1])


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8"])
def test_asarray_converts(dtype):
    base = np.arange(24).reshape(4, 6).astype(dtype)
    unaligned = np.frombuffer(b"x" + base.tobytes(), np.uint8)[1:].view(dtype).reshape(4, 6)
    for x in (base, base[::-1], base[:, ::2], base.T, unaligned, base[0, 0:1].reshape(())):
        y = lamina.arrays.asarray("op", "x", x)
        assert type(y) is np.ndarray and y.flags.c_contiguous and y.flags.aligned
        assert y.dtype.isnative and y.dtype.itemsize == x.dtype.itemsize and y.shape == x.shape
        np.testing.assert_array_equal(y, x)
    native = base.astype(base.dtype.newbyteorder("="))
    assert np.shares_memory(lamina.arrays.asarray("op", "x", native), native)
