"""Operands in any strides, known and new: what NumPy computes of them."""

from __future__ import annotations

import lamina
import numpy as np
import pytest
from numpy.testing import assert_array_equal


def values(*shape, dtype=np.float32):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def other_layouts(x):
    """The same elements in other strides."""
    wide = np.repeat(np.repeat(x, 2, -1), 3, 0)
    yield np.asfortranarray(x)
    yield np.moveaxis(np.moveaxis(x, 0, -1).copy(), -1, 0)
    yield wide[::3, ..., ::2]
    yield x[::-1, ..., ::-1].copy()[::-1, ..., ::-1]


@pytest.mark.parametrize("shape", [(3, 5), (600, 401), (4, 30, 20, 50), (2, 1, 7), (70000, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_operands_of_any_strides(shape, dtype):
    a, b = (np.asarray(values(*shape) * 9 + i, dtype) for i in (0, 0.5))
    row, column = b[:1, ..., :].copy(), b[..., :1].copy()
    others = [*other_layouts(b), b, row, column, row[0, ..., ::-1], np.broadcast_to(row, shape), 3]
    for x in (a, *other_layouts(a)):
        for y in others:
            for ours, numpys in ((lamina.sub, np.subtract), (lamina.lt, np.less)):
                for _ in range(2):
                    expected = numpys(x, np.asarray(y, dtype))
                    assert_array_equal(ours(lamina.Tensor(x), y).numpy(), expected, strict=True)
                    assert_array_equal(ours(y, lamina.Tensor(x)).numpy(), numpys(y, x))
        if dtype != np.int64:
            with np.errstate(invalid="ignore"):
                for name in ("floor", "isnan", "sqrt", "rsqrt"):
                    expected = getattr(lamina, name)(a)
                    for _ in range(2):
                        assert_array_equal(getattr(lamina, name)(x), expected, strict=True)


PAD_LAST = {n: [(0, 0)] * (n - 1) + [(1, 0)] for n in (2, 3, 4)}


@pytest.mark.parametrize("shape", [(3, 5), (600, 401), (4, 30, 20, 50), (2, 1, 7)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_calls_that_walk_memory_as_it_lies(shape, dtype):
    a, b = values(*shape, dtype=dtype), values(*shape, dtype=dtype) + 1
    calls = {
        "where": (lambda x, y: lamina.where(x > 0, x, y), np.where(a > 0, a, b)),
        "where number": (lambda x, y: lamina.where(y > 1, 2.0, x), np.where(b > 1, dtype(2), a)),
        "clamp": (lambda x, y: x.clamp(-0.5, 0.25), np.clip(a, -0.5, 0.25)),
        "neg": (lambda x, y: -x, -a),
        "relu": (lambda x, y: lamina.functional.relu(x), np.maximum(a, 0)),
        "reshape": (lambda x, y: x.reshape(-1, shape[-1]), a.reshape(-1, shape[-1])),
        "cat": (lambda x, y: lamina.cat([x, y], -1), np.concatenate([a, b], -1)),
        "pad": (lambda x, y: lamina.functional.pad(x, (1, 0)), np.pad(a, PAD_LAST[len(shape)])),
        "bool": (lambda x, y: x.to(bool), a != 0),
        "double": (lambda x, y: x.double(), a.astype(np.float64)),
    }
    for x in (a, *other_layouts(a)):
        for y in (b, *other_layouts(b)):
            for name, (call, expected) in calls.items():
                for recorded in (False, False, True):
                    operands = [lamina.Tensor(x, requires_grad=recorded), lamina.Tensor(y)]
                    found = call(*operands)
                    assert_array_equal(found.detach().numpy(), expected, strict=True, err_msg=name)
                    if found.requires_grad:
                        found.sum().backward()
                        assert operands[0].grad.shape == shape


@pytest.mark.parametrize("shape", [(6, 5), (300, 301)])
@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "maximum", "exp", "tanh"])
def test_gradients_of_operands_of_any_strides(name, shape):
    a, b = (np.abs(values(*shape)) + i for i in (np.float32(0.5), np.float32(1)))
    function = getattr(lamina, name)
    arguments = (a,) if name in ("exp", "tanh") else (a, b)

    def gradients(*operands):
        tensors = [lamina.Tensor(x, requires_grad=True) for x in operands]
        y = function(*tensors)
        y.backward(lamina.Tensor(np.asfortranarray(a)))
        return [y.detach().numpy(), *(tensor.grad.numpy() for tensor in tensors)]

    expected = gradients(*arguments)
    for operands in zip(*map(other_layouts, arguments), strict=True):
        for _ in range(2):
            for found, wanted in zip(gradients(*operands), expected, strict=True):
                assert_array_equal(found, wanted, strict=True)
