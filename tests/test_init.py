"""Initialisers: exact structure, and moments within 6 standard deviations of n draws."""

from __future__ import annotations

import math

import lamina
import numpy as np
import pytest
from lamina import nn
from lamina.nn import init
from numpy.testing import assert_allclose, assert_array_equal

SHAPE = (200, 50, 3, 3)
N = math.prod(SHAPE)
FAN_IN, FAN_OUT = 450, 1800

# name, arguments, variance, kurtosis (fourth moment over squared variance)
RANDOM = [
    ("uniform_", (-2.0, 4.0), 3.0, 1.8),
    ("normal_", (1.0, 0.5), 0.25, 3.0),
    ("xavier_uniform_", (), 2 / (FAN_IN + FAN_OUT), 1.8),
    ("xavier_normal_", (), 2 / (FAN_IN + FAN_OUT), 3.0),
    ("kaiming_uniform_", (), 2 / FAN_IN, 1.8),
    ("kaiming_normal_", (0, "fan_out", "relu"), 2 / FAN_OUT, 3.0),
    ("lecun_uniform_", (), 1 / FAN_IN, 1.8),
    ("lecun_normal_", (), 1 / FAN_IN, 3.0),
]


@pytest.mark.parametrize(("name", "arguments", "variance", "kurtosis"), RANDOM)
def test_moments(name, arguments, variance, kurtosis):
    lamina.manual_seed(0)
    tensor = lamina.Tensor(np.empty(SHAPE))
    assert getattr(init, name)(tensor, *arguments) is tensor
    mean = arguments[0] if name == "normal_" else 1.0 if name == "uniform_" else 0.0
    assert abs(tensor.data.mean() - mean) < 6 * math.sqrt(variance / N)
    error = abs(tensor.data.var() / variance - 1)
    assert error < 6 * math.sqrt((kurtosis - 1) / N)


def test_trunc_normal():
    lamina.manual_seed(0)
    x = init.trunc_normal_(lamina.Tensor(np.empty(100_000)), 1.0, 2.0, -0.5, 3.0).data
    assert x.min() >= -0.5
    assert x.max() <= 3.0
    # The quarter below the truncated distribution's lower quartile.
    low, high = (0.5 * math.erfc(-(v - 1) / 2 / math.sqrt(2)) for v in (-0.5, 3.0))
    shares = [0.5 * math.erfc(-(v - 1) / 2 / math.sqrt(2)) for v in np.quantile(x, [0.25, 0.5])]
    expected = [low + q * (high - low) for q in (0.25, 0.5)]
    assert_allclose(shares, expected, atol=6 * 0.5 / math.sqrt(100_000))


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (4, 2, 3, 3), (6, 6)])
def test_orthogonal(shape):
    m = init.orthogonal_(lamina.Tensor(np.empty(shape)), gain=2.0).data.reshape(shape[0], -1) / 2
    product = m @ m.T if m.shape[0] <= m.shape[1] else m.T @ m
    assert_allclose(product, np.eye(len(product)), atol=64 * np.finfo(float).eps)


def test_structure():
    assert_array_equal(init.eye_(lamina.Tensor(np.empty((3, 5)))).data, np.eye(3, 5))
    assert_array_equal(init.constant_(lamina.Tensor(np.empty(4)), 3).data, np.full(4, 3.0))
    assert init.ones_(lamina.Tensor(np.empty(4))).data.all()
    x = np.random.default_rng(0).normal(size=(2, 3, 6, 7))
    weight = init.dirac_(lamina.Tensor(np.empty((3, 3, 3, 5))))
    assert_array_equal(lamina.functional.conv2d(x, weight.data, padding=(1, 2)), x)
    weight = init.dirac_(lamina.Tensor(np.empty((6, 3, 3))), groups=2).data
    assert_array_equal(weight[:3], weight[3:])
    sparse = init.sparse_(lamina.Tensor(np.empty((10, 40))), 0.35).data
    assert_array_equal((sparse == 0).sum(0), 4)


@pytest.mark.torch
def test_gains_are_torchs():
    torch = pytest.importorskip("torch")
    for name in ("linear", "conv2d", "conv_transpose3d", "sigmoid", "tanh", "relu", "selu"):
        assert init.calculate_gain(name) == torch.nn.init.calculate_gain(name)
    assert init.calculate_gain("leaky_relu", 0.2) == torch.nn.init.calculate_gain("leaky_relu", 0.2)


def test_equal_seeds_give_equal_draws():
    draws = []
    for _ in range(2):
        lamina.manual_seed(7)
        draws.append(nn.Linear(3, 4).weight.data.tobytes())
    assert draws[0] == draws[1]


T1, T2 = lamina.Tensor(np.empty(3)), lamina.Tensor(np.empty((3, 4)))
BAD = [
    (lambda: init.xavier_uniform_(T1), "need 2 dimensions"),
    (lambda: init.lecun_normal_(T1), "need 2 dimensions"),
    (lambda: init.kaiming_normal_(T2, mode="x"), "mode must be 'fan_in'"),
    (lambda: init.kaiming_normal_(T2, nonlinearity="x"), "unknown nonlinearity"),
    (lambda: init.uniform_(T1, 2, 1), "a must not be above b"),
    (lambda: init.normal_(T1, 0, -1), "std must not be negative"),
    (lambda: init.trunc_normal_(T1, 0, 1, 2, 1), "needs a < b"),
    (lambda: init.trunc_normal_(T1, 0, 0), "std above 0"),
    (lambda: init.trunc_normal_(T1, 0, 1, 50, 60), "within 8 std"),
    (lambda: init.eye_(T1), "needs 2 dimensions"),
    (lambda: init.dirac_(T2), "needs 3 or 4 or 5 dimensions"),
    (lambda: init.dirac_(lamina.Tensor(np.empty((3, 1, 2))), 2), "groups must divide"),
    (lambda: init.orthogonal_(T1), "needs 2 dimensions"),
    (lambda: init.sparse_(T1, 0.1), "needs 2 dimensions"),
    (lambda: init.sparse_(T2, 1.5), "sparsity must be from 0 to 1"),
]


@pytest.mark.parametrize(("call", "text"), BAD, ids=range(len(BAD)))
def test_bad_input(call, text):
    with pytest.raises(ValueError) as caught:
        call()
    assert text in str(caught.value)
