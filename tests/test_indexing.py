"""Elements by arrays of integers, and their gradients, beside NumPy."""

from __future__ import annotations

import lamina
import numpy as np
import pytest
from numpy.testing import assert_array_equal


def values(*shape, dtype=np.float32):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


KEYS = {
    "vector": ((50,), lambda i: i),
    "rows": ((50, 7), lambda i: i),
    "second axis": ((9, 50, 3), lambda i: (slice(None), i)),
    "last axis": ((40, 30, 50), lambda i: (slice(None), slice(None), i)),
    "two axes": ((50, 60, 4), lambda i: (i, i[::-1])),
    "inner axes": ((3, 50, 60), lambda i: (slice(None), i, -1 - i)),
    "three axes": ((50, 51, 52), lambda i: (i, -i, i // 2)),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.bool_])
@pytest.mark.parametrize("count", [1, 20, 9000])
@pytest.mark.parametrize("name", KEYS)
def test_picks(name, count, dtype):
    shape, key_of = KEYS[name]
    x = np.asarray(values(*shape) * 4, dtype)
    indices = np.random.default_rng(0).integers(-50, 50, (count, 1))
    key = key_of(indices)
    for _ in range(2):
        tensor = lamina.Tensor(x, requires_grad=np.dtype(dtype).kind == "f")
        y = tensor[key]
        assert_array_equal(y.detach().numpy(), x[key], strict=True)
        items = key if isinstance(key, tuple) else (key,)
        wrapped = tuple(lamina.Tensor(i) if hasattr(i, "dtype") else i for i in items)
        assert_array_equal(tensor[wrapped].detach().numpy(), x[key], strict=True)
        if tensor.requires_grad:
            grad = values(*y.shape).astype(dtype)
            y.backward(grad)
            expected = np.zeros_like(x)
            np.add.at(expected, key, grad)
            assert_array_equal(tensor.grad.numpy(), expected, strict=True)
        for bad in (50, -51, 2**62):
            wrong = indices.copy()
            wrong[-1] = bad
            if name not in ("three axes", "inner axes", "two axes"):
                with pytest.raises(IndexError, match="getitem: index must lie within"):
                    tensor[key_of(wrong)]


@pytest.mark.parametrize(
    ("shape", "picked"),
    [
        ((5,), (9,)),
        ((5, 7), (5, 3)),
        ((300, 200), (300, 300)),
        ((300, 200), (900, 150)),
        ((6, 40, 30), (5, 70, 20)),
        ((6, 40, 3), (6, 400, 3)),
        ((300, 1), (200, 1)),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.bool_])
def test_gathers(shape, picked, dtype):
    x = np.asarray(values(*shape) * 4, dtype)
    for axis in range(len(shape)):
        extents = [min(a, b) for a, b in zip(shape, picked, strict=True)]
        extents[axis] = picked[axis]
        index = np.random.default_rng(1).integers(0, shape[axis], extents)
        grids = np.indices(extents, sparse=True)
        key = tuple(index if d == axis else grid for d, grid in enumerate(grids))
        for _ in range(2):
            tensor = lamina.Tensor(x, requires_grad=np.dtype(dtype).kind == "f")
            y = tensor.gather(axis, lamina.Tensor(index))
            assert_array_equal(y.detach().numpy(), x[key], strict=True)
            assert isinstance(lamina.gather(x, axis, index), np.ndarray)
            if tensor.requires_grad:
                grad = values(*y.shape).astype(dtype)
                y.backward(grad)
                expected = np.zeros_like(x)
                np.add.at(expected, key, grad)
                assert_array_equal(tensor.grad.numpy(), expected, strict=True)
            for bad in (shape[axis], -1, 2**62):
                wrong = index.copy()
                wrong.flat[-1] = bad
                with pytest.raises(ValueError, match="gather: index must be from 0"):
                    tensor.gather(axis, wrong)


def test_picks_and_gathers_have_the_same_bits_for_any_number_of_threads():
    x, index = values(300, 200), np.random.default_rng(2).integers(0, 200, (300, 500))
    found = []
    for threads in (1, 2, 3, 8):
        lamina.set_num_threads(threads)
        grads = []
        for pick in (
            lambda t: t[index[:, 0]],
            lambda t: t[:, index[0]],
            lambda t: t[index[1], index[2]],
            lambda t: t.gather(1, index),
            lambda t: t.gather(0, index[:, :200]),
        ):
            tensor = lamina.Tensor(x, requires_grad=True)
            y = pick(tensor)
            y.backward(values(*y.shape))
            grads.append(tensor.grad.numpy().tobytes())
        found.append(grads)
    assert all(grads == found[0] for grads in found)
