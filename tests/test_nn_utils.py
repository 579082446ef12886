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


@pytest.mark.parametrize("norm_type", [0.5, 1, 2.0, 7, float("inf")])
def test_norms_neither_overflow_nor_lose_nan(norm_type):
    big = lamina.tensor([3e38, 3e38, -3e38, 0.0])
    expected = 3e38 * (1 if norm_type == float("inf") else 3 ** (1 / norm_type))
    total = nn.utils.get_total_norm([big.double()], norm_type)
    assert_allclose(total.item(), expected, rtol=1e-6)
    broken = [lamina.tensor([1.0]), lamina.tensor([float("nan")]), lamina.tensor([2.0])]
    assert np.isnan(nn.utils.get_total_norm(broken, norm_type).item())
    assert nn.utils.get_total_norm([], norm_type).item() == 0
    assert nn.utils.get_total_norm([lamina.zeros(0), lamina.zeros(3)], norm_type).item() == 0


@pytest.mark.torch
@pytest.mark.parametrize("value", [1.0, float("inf"), float("nan"), 0.0])
@pytest.mark.parametrize("norm_type", [1.0, 2.0, float("inf")])
def test_clipping_is_torchs(norm_type, value):
    torch = pytest.importorskip("torch")
    grads = [gradient(1), gradient(2)]
    grads[1][2, 1] = value
    ours = [nn.Parameter(START.copy()) for _ in grads]
    theirs = [torch.nn.Parameter(torch.tensor(START)) for _ in grads]
    for one, two, grad in zip(ours, theirs, grads, strict=True):
        one.grad, two.grad = lamina.Tensor(grad.copy()), torch.tensor(grad)
    total = nn.utils.clip_grad_norm_(iter(ours), 0.7, norm_type)
    expected = torch.nn.utils.clip_grad_norm_(theirs, 0.7, norm_type)
    assert_allclose(total.item(), expected.item(), rtol=1e-14)
    assert total.dtype == np.float64
    for one, two in zip(ours, theirs, strict=True):
        assert_allclose(one.grad.data, two.grad.numpy(), rtol=1e-14)


def test_gradients_flow_through_the_vector():
    params = [nn.Parameter(START.copy()), nn.Parameter(START[0].copy())]
    (nn.utils.parameters_to_vector(params) ** 2).sum().backward()
    for param in params:
        assert_array_equal(param.grad.data, 2 * param.data)


def test_a_vector_of_float32_keeps_the_parameters_dtype():
    param = nn.Parameter(START.copy())
    nn.utils.vector_to_parameters(lamina.Tensor(START.ravel().astype(np.float32)), [param])
    assert_array_equal(param.data, START.astype(np.float32))
    assert param.dtype == np.float64


def read_only():
    array = START.copy()
    array.flags.writeable = False
    param = nn.Parameter(START.copy())
    param.grad = lamina.Tensor(array)
    return param


PARAM, U = nn.Parameter(START.copy()), nn.utils
BAD = [
    (lambda: U.clip_grad_norm_(PARAM, -1), ValueError, "clip_grad_norm_: max_norm must not be"),
    (lambda: U.clip_grad_norm_(PARAM, float("nan")), ValueError, "max_norm must not be negative"),
    (lambda: U.clip_grad_norm_(PARAM, "1"), TypeError, "max_norm must be a number"),
    (lambda: U.clip_grad_norm_(PARAM, 1, 0), ValueError, "norm_type must be above 0"),
    (lambda: U.clip_grad_norm_(PARAM, 1, None), TypeError, "norm_type must be a number"),
    (lambda: U.clip_grad_norm_([START], 1), TypeError, "parameters must be Tensors, got ndarray"),
    (lambda: U.clip_grad_norm_(3, 1), TypeError, "parameters must be Tensors, got int"),
    (lambda: U.clip_grad_norm_(read_only(), 1), ValueError, "the array must be writable"),
    (lambda: U.clip_grad_value_(PARAM, -1), ValueError, "clip_value must not be negative"),
    (lambda: U.clip_grad_value_(PARAM, None), TypeError, "clip_value must be a number"),
    (lambda: U.clip_grad_value_(read_only(), 1), ValueError, "the array must be writable"),
    (lambda: U.get_total_norm([START]), TypeError, "tensors must be Tensors, got ndarray"),
    (lambda: U.parameters_to_vector([]), ValueError, "parameters must not be empty"),
    (lambda: U.parameters_to_vector([1.0]), TypeError, "parameters must be Tensors, got float"),
    (lambda: U.vector_to_parameters(START, [PARAM]), TypeError, "vec must be a Tensor, got ndarr"),
    (
        lambda: U.vector_to_parameters(lamina.zeros(13), [PARAM]),
        ValueError,
        "vector_to_parameters: vec must have 12 elements, got vec.shape=(13,)",
    ),
]


@pytest.mark.parametrize(("call", "error", "text"), BAD, ids=range(len(BAD)))
def test_bad_input(call, error, text):
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)


def test_non_finite_norm_can_be_an_error():
    param = nn.Parameter(START.copy())
    param.grad = lamina.Tensor(np.full_like(START, np.nan))
    with pytest.raises(RuntimeError, match="norm of the gradients must be finite, got nan"):
        nn.utils.clip_grad_norm_(param, 1.0, error_if_nonfinite=True)
