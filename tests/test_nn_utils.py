"""Gradient clipping, and parameters as one vector."""

from __future__ import annotations

import lamina
import numpy as np
import pytest
from lamina import nn
from numpy.testing import assert_allclose, assert_array_equal

START = np.random.default_rng(0).normal(size=(4, 3))


def gradient(step):
    return np.random.default_rng(step).normal(size=START.shape)


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, float("inf")])
@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_clip_grad_norm(norm_type, max_norm):
    params = [nn.Parameter(START.copy()), nn.Parameter(START[0].copy()), nn.Parameter(START.copy())]
    grads = [gradient(1), gradient(2)[0]]
    for param, grad in zip(params, grads, strict=False):
        param.grad = lamina.Tensor(grad.copy())
    flat = np.concatenate([g.ravel() for g in grads])
    expected = np.linalg.norm(flat, norm_type)
    total = nn.utils.clip_grad_norm_(params, max_norm, norm_type)
    assert_allclose(total.item(), expected, rtol=1e-14)
    factor = min(1.0, max_norm / (expected + 1e-6))
    for param, grad in zip(params, grads, strict=False):
        assert_allclose(param.grad.data, grad * factor, rtol=1e-14)
    assert params[2].grad is None


def test_clip_grad_value_and_vectors():
    param = nn.Parameter(START.copy())
    param.grad = lamina.Tensor(gradient(1))
    nn.utils.clip_grad_value_(param, 0.3)
    assert_array_equal(param.grad.data, gradient(1).clip(-0.3, 0.3))
    other = nn.Parameter(START[0].copy())
    vector = nn.utils.parameters_to_vector([param, other])
    assert vector.shape == (15,)
    nn.utils.vector_to_parameters(2 * vector.detach(), [param, other])
    assert_array_equal(param.data, 2 * START)
    assert_array_equal(other.data, 2 * START[0])


PARAM = nn.Parameter(START.copy())
BAD = [
    (lambda: nn.utils.clip_grad_norm_(PARAM, -1), ValueError, "max_norm must not be negative"),
    (lambda: nn.utils.clip_grad_norm_(PARAM, 1, 0), ValueError, "norm_type must be above 0"),
    (lambda: nn.utils.clip_grad_value_(PARAM, -1), ValueError, "clip_value must not be"),
    (lambda: nn.utils.vector_to_parameters(START, [PARAM]), ValueError, "vec must have 12"),
]


@pytest.mark.parametrize(("call", "error", "text"), BAD, ids=range(len(BAD)))
def test_bad_input(call, error, text):
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)


def test_non_finite_norm_can_be_an_error():
    param = nn.Parameter(START.copy())
    param.grad = lamina.Tensor(np.full_like(START, np.nan))
    with pytest.raises(RuntimeError, match="norm of the gradients is nan"):
        nn.utils.clip_grad_norm_(param, 1.0, error_if_nonfinite=True)
