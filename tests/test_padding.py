"""Padding against the NumPy reference. Small integers make everything exact."""

from __future__ import annotations

import cases
import lamina
import lamina.functional as F
import numpy as np
import pytest
import reference
from lamina import nn
from numpy.testing import assert_array_equal

PADS = [
    ((2, 3, 5), (2, 1)),
    ((3, 5), (0, 3)),
    ((2, 3, 5), (-1, 2)),
    ((2, 3, 6, 5), (1, 2, 3, 0)),
    ((3, 6, 5), (4, -2, -1, 2)),
    ((2, 2, 4, 3, 5), (1, 1, 2, 0, 3, 2)),
]


def check(result, tensor, expected, backward):
    grad = cases.integers(result.shape, 2, result.data.dtype)
    result.backward(grad)
    assert_array_equal(result.data, expected)
    assert_array_equal(tensor.grad.data, backward(grad))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
@pytest.mark.parametrize(("shape", "pads"), PADS, ids=str)
def test_pad(backend, shape, pads, mode, dtype):
    x = cases.integers(shape, 1, dtype)
    tensor = lamina.tensor(x, requires_grad=True)
    value = 7.0 if mode == "constant" else None
    check(
        F.pad(tensor, pads, mode, value),
        tensor,
        reference.pad(x, pads, mode, value),
        lambda grad: reference.pad_backward(grad, x, pads, mode),
    )


def test_pad_of_any_dtype_and_axes():
    x = np.arange(6).reshape(2, 3)
    expected = np.pad(x, ((0, 2), (1, 0)), constant_values=-1)
    assert_array_equal(F.pad(x, (1, 0, 0, 2), value=-1), expected)
    assert F.pad(np.zeros((1, 2, 3, 4, 5, 6)), (1,) * 12).shape == (3, 4, 5, 6, 7, 8)
    assert F.pad(x, (-3, 0)).shape == (2, 0)
    assert F.pad(x, ()).shape == (2, 3)
    swapped = F.pad(x.astype(">i4"), (1, 0, 0, 2), value=-1)
    assert swapped.dtype == np.dtype(np.int32).newbyteorder("=")
    assert_array_equal(swapped, expected)


def test_pad_after_a_crop():
    """circular repeats what is left (torch shows uninitialised memory), the others look back."""
    x = np.arange(5.0)[None]
    assert_array_equal(F.pad(x, (4, -3), "circular"), [[0, 1, 0, 1, 0, 1]])
    assert_array_equal(F.pad(x, (1, -5), "replicate"), [[0]])
    assert_array_equal(F.pad(x, (1, -5), "reflect", 0), [[1]])
    assert_array_equal(F.pad(x, (-5, 5), "replicate"), [[4] * 5])


def calls(x):
    """Results and gradients of padding, as bytes."""
    found = []
    for function in (
        lambda x: F.pad(x, (1, 2, -1, 3), value=2.0),
        lambda x: F.pad(x, (1, 2, -1, 3), "reflect"),
    ):
        tensor = lamina.Tensor(x, requires_grad=True)
        y = function(tensor)
        y.backward(cases.reals(y.shape, 3, y.data.dtype))
        found.append(y.data.tobytes() + tensor.grad.data.tobytes())
    return found


def test_inputs_of_any_layout():
    x = cases.reals((2, 4, 5, 20), 1)
    wide = np.repeat(x, 2, -1)
    frozen = x.copy()
    frozen.setflags(write=False)
    for other in (np.asfortranarray(x), wide[..., ::2], x[::-1].copy()[::-1], frozen):
        assert calls(other) == calls(x)
    assert x.tobytes() == frozen.tobytes()


def test_same_bits_for_any_thread_count():
    x = cases.reals((3, 8, 25, 40), 1)
    results = []
    for threads in (1, 2, 3, 8):
        lamina.set_num_threads(threads)
        results.append(calls(x))
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_long_borders_of_large_arrays(mode):
    x = cases.integers((3, 5, 90, 70), 1)
    pads = (69, -20, -3, 60) if mode == "reflect" else (45, -20, -3, 80)
    for _ in range(2):
        tensor = lamina.tensor(x, requires_grad=True)
        check(
            F.pad(tensor, pads, mode),
            tensor,
            reference.pad(x, pads, mode),
            lambda grad: reference.pad_backward(grad, x, pads, mode),
        )


def test_nan_stays_where_it_is():
    x = cases.reals((1, 1, 5, 6), 1)
    x[0, 0, 2, 3] = np.nan
    for mode in ("constant", "reflect", "replicate", "circular"):
        assert np.isnan(F.pad(x, (1, 1, 1, 1), mode)).sum() == 1


def test_empty_batch():
    x = np.zeros((0, 2, 5, 6), np.float32)
    for mode in ("constant", "reflect", "replicate", "circular"):
        assert F.pad(x, (1, 1, 1, 1), mode).shape == (0, 2, 7, 8)


def test_gradcheck(backend):
    x = cases.reals((1, 2, 4, 5), 1, np.float64)
    for mode in ("constant", "reflect", "replicate", "circular"):
        lamina.testing.gradcheck(lambda x, mode=mode: F.pad(x, (1, 2, 3, -1), mode), [x])


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_constant_layers_take_any_rank(axes):
    for rank in range(axes, 6):
        x = cases.integers((2, 3, 2, 3, 2)[:rank], 1)
        expected = np.pad(x, [(0, 0)] * (rank - axes) + [(1, 1)] * axes)
        assert_array_equal(getattr(nn, f"ZeroPad{axes}d")(1)(x), expected)


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["Constant", "Zero", "Reflection", "Replication", "Circular"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_layers_as_in_torch(kind, axes):
    torch = pytest.importorskip("torch")
    arguments = [2, 3.5] if kind == "Constant" else [tuple(range(1, 1 + 2 * axes))]
    name = f"{kind}Pad{axes}d"
    ours, theirs = getattr(nn, name)(*arguments), getattr(torch.nn, name)(*arguments)
    assert repr(ours) == repr(theirs)
    x = cases.integers((1, 2, 8, 7, 8)[: axes + 2], 1)
    assert_array_equal(ours(x), theirs(torch.tensor(x)).numpy())


X = np.ones((1, 2, 4, 5), np.float32)
BAD = [
    (lambda: F.pad(X, (1,)), ValueError, "pad must be pairs"),
    (lambda: F.pad(X, 1), ValueError, "pad must be pairs"),
    (lambda: F.pad(X, (1.5, 1)), TypeError, "pad must be an integer"),
    (lambda: F.pad(X, (1,) * 10), ValueError, "at most 2 numbers per axis"),
    (lambda: F.pad(X, (1, 1), "mirror"), ValueError, "mode must be one of"),
    (lambda: F.pad(X, (1, 1), "reflect"), ValueError, "pads the last 1 to 3 axes"),
    (lambda: F.pad(X, (5, 0, 0, 0), "reflect"), ValueError, "pads of at most 4"),
    (lambda: F.pad(X, (6, 0, 0, 0), "circular"), ValueError, "pads of at most 5"),
    (lambda: F.pad(X, (-3, -3)), ValueError, "the crop is larger"),
    (lambda: F.pad(X, (-6, 2)), ValueError, "the crop is larger"),
    (lambda: F.pad(X, (-5, 0, 0, 0), "replicate"), ValueError, "output would have size 0"),
    (
        lambda: F.pad(X[..., :0], (1, 0, 0, 0), "replicate"),
        ValueError,
        "nothing to show of an axis of 0",
    ),
    (lambda: F.pad(X, (-5, 5, 0, 0), "circular"), ValueError, "nothing to show of an axis of 5"),
    (lambda: F.pad(X, (1, 1, 1, 1), "reflect", 2.0), ValueError, "value is for mode='constant'"),
    (lambda: F.pad(X.astype(np.complex64), (1, 1)), TypeError, "dtype must be float32"),
    (lambda: F.pad(np.full((1, 2), "a"), (1, 1)), TypeError, "dtype must be float32"),
    (lambda: F.pad(X.astype(np.int32), (1, 1), value=np.nan), ValueError, "range of int32"),
    (lambda: F.pad(X.astype(np.uint8), (1, 1), value=-1), ValueError, "range of uint8"),
    (lambda: F.pad(X, (1, 1), value="a"), TypeError, "value must be a number"),
    (lambda: F.pad(X.astype(int), (1, 1, 0, 0), "reflect"), TypeError, "float32 or float64"),
    (lambda: F.pad(X, (2**31 - 1, 2**31 - 1, 2**31 - 1, 0)), (ValueError, MemoryError), "pad:"),
    (lambda: nn.ZeroPad2d((1, 2, 3)), ValueError, "padding must be an integer or 4"),
    (lambda: nn.ReflectionPad1d(1)(X), ValueError, "input must have 2 or 3"),
]


@pytest.mark.parametrize(("call", "error", "text"), BAD, ids=range(len(BAD)))
def test_bad_input(call, error, text):
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)
