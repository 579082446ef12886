"""Normalisation against the NumPy reference: values, running statistics and all gradients.

Tolerance: a sum of m terms in float64 rounds by less than m eps of its terms; 64 eps covers the
sets here (m up to 60) with the square root and the divisions.
"""

from __future__ import annotations

import cases
import lamina
import lamina.functional as F
import numpy as np
import pytest
import reference
from lamina import nn
from numpy.testing import assert_allclose, assert_array_equal

BOUND = 64 * np.finfo(np.float64).eps
SHAPES = [(5, 3), (4, 3, 7), (2, 4, 3, 5), (2, 4, 2, 3, 2), (3, 2, 37)]


def operands(shape, affine):
    x = cases.reals(shape, 1, np.float64) * 2 + 1
    return x, cases.reals(affine, 2, np.float64), cases.reals(affine, 3, np.float64)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(backend, shape, training):
    x, weight, bias = operands(shape, shape[1:2])
    mean, var = cases.reals(shape[1:2], 4, np.float64), np.arange(1.0, 1 + shape[1])
    expected, new_mean, new_var = reference.batch_norm(
        x, mean, var, weight, bias, training=training, momentum=0.3
    )
    tensors = [lamina.tensor(a, requires_grad=True) for a in (x, weight, bias)]
    running = mean.copy(), var.copy()
    y = F.batch_norm(tensors[0], *running, *tensors[1:], training, 0.3)
    grad_y = cases.reals(shape, 5, np.float64)
    y.backward(grad_y)
    assert_allclose(y.data, expected, rtol=BOUND, atol=BOUND)
    assert_allclose(running[0], new_mean, rtol=BOUND, atol=BOUND)
    assert_allclose(running[1], new_var, rtol=BOUND, atol=BOUND)
    lamina.testing.gradcheck(
        lambda *a: F.batch_norm(a[0], mean.copy(), var.copy(), a[1], a[2], training, 0.3),
        [x, weight, bias],
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_group_layer_and_instance_norm(backend, shape):
    x, weight, bias = operands(shape, shape[1:2])
    groups = 2 if shape[1] % 2 == 0 else shape[1]
    if len(shape) == 2 and groups == shape[1]:
        groups = 1  # one element has no variance
    y = F.group_norm(x, groups, weight, bias)
    expected = reference.group_norm(x, groups, weight, bias)
    assert_allclose(y, expected, rtol=BOUND, atol=BOUND)
    lamina.testing.gradcheck(lambda *a: F.group_norm(a[0], groups, *a[1:]), [x, weight, bias])
    tail = shape[1:]
    weight, bias = cases.reals(tail, 2, np.float64), cases.reals(tail, 3, np.float64)
    y = F.layer_norm(x, tail, weight, bias)
    expected = reference.layer_norm(x, tail, weight, bias)
    assert_allclose(y, expected, rtol=BOUND, atol=BOUND)
    lamina.testing.gradcheck(lambda *a: F.layer_norm(a[0], tail, *a[1:]), [x, weight, bias])
    if len(shape) > 2:
        y = F.instance_norm(x)
        assert_allclose(y, reference.instance_norm(x)[0], rtol=BOUND, atol=BOUND)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rms_norm_and_normalize(shape):
    x, weight, _ = operands(shape, shape[1:])
    y = F.rms_norm(x, shape[1:], weight)
    assert_allclose(y, reference.rms_norm(x, shape[1:], weight), rtol=BOUND, atol=BOUND)
    lamina.testing.gradcheck(lambda *a: F.rms_norm(a[0], shape[1:], a[1], 0.1), [x, weight])
    for p in (1.0, 2.0, 3.5):
        y = F.normalize(x, p, -1)
        assert_allclose(y, reference.normalize(x, p, -1), rtol=BOUND, atol=BOUND)
        lamina.testing.gradcheck(lambda x, p=p: F.normalize(x, p, -1), [x])
    whole = F.normalize(x, dim=None)
    assert_allclose(whole, reference.normalize(x.ravel(), dim=0).reshape(shape), rtol=BOUND)
    for dim in (tuple(range(x.ndim)), ()):
        assert_array_equal(F.normalize(x, dim=dim), whole)


def test_batch_norm_layer_trains_and_infers():
    layer = nn.BatchNorm2d(3)
    x = lamina.Tensor(cases.reals((4, 3, 5, 5), 1))
    y = layer(x).data
    assert_allclose(y.mean((0, 2, 3)), 0, atol=1e-6)
    assert_allclose(y.var((0, 2, 3)), 1, atol=1e-4)
    assert int(layer.num_batches_tracked) == 1
    assert list(layer.state_dict()) == [
        "weight",
        "bias",
        "running_mean",
        "running_var",
        "num_batches_tracked",
    ]
    before = layer.running_mean.data.copy()
    layer.eval()(x)
    assert_array_equal(layer.running_mean.data, before)


def test_same_bits_for_any_thread_count():
    x = cases.reals((4, 6, 33, 7), 1)
    results = []
    for threads in (1, 2, 3, 8):
        lamina.set_num_threads(threads)
        t = lamina.tensor(x, requires_grad=True)
        y = F.batch_norm(F.group_norm(t, 3), None, None, training=True)
        y.backward(x)
        results.append(y.data.tobytes() + t.grad.data.tobytes())
    assert len(set(results)) == 1


ONES = np.ones(3, np.float32)
BAD = [
    (lambda x: F.batch_norm(x, None, None), ValueError, "running_mean and running_var are needed"),
    (lambda x: F.batch_norm(x[:1, :, 0, 0], None, None, training=True), ValueError, "more than 1"),
    (lambda x: F.batch_norm(x[0, 0, 0], None, None, training=True), ValueError, "dimensions"),
    (lambda x: F.batch_norm(x, ONES[:2], ONES), ValueError, "running_mean must have one element"),
    (lambda x: F.batch_norm(x, ONES, ONES, ONES[:2]), ValueError, "weight must have shape (3,)"),
    (lambda x: F.batch_norm(x, ONES, ONES, ONES.astype(float)), TypeError, "one dtype"),
    (lambda x: F.batch_norm(x, ONES, ONES, eps=-1), ValueError, "eps must not be negative"),
    (lambda x: F.batch_norm(x, ONES, ONES, eps="a"), TypeError, "eps must be a number"),
    (lambda x: F.batch_norm(x.astype(int), ONES, ONES), TypeError, "must be float32 or float64"),
    (lambda x: F.group_norm(x, 2), ValueError, "num_groups must divide the channels"),
    (lambda x: F.group_norm(x, 0), ValueError, "num_groups must be at least 1"),
    (lambda x: F.group_norm(x, 3.0), TypeError, "num_groups must be an integer"),
    (lambda x: F.layer_norm(x, 4), ValueError, "normalized_shape must be the last axes"),
    (lambda x: F.layer_norm(x, ()), ValueError, "normalized_shape must be the last axes"),
    (lambda x: F.instance_norm(x[..., :1, :1]), ValueError, "more than 1 position"),
]


@pytest.mark.parametrize(("call", "error", "text"), BAD, ids=[text for _, _, text in BAD])
def test_bad_input(call, error, text):
    with pytest.raises(error) as caught:
        call(np.ones((2, 3, 4, 5), np.float32))
    assert text in str(caught.value)
