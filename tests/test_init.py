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


def below(x):
    """The share of a standard normal below x, exact in both tails."""
    return 0.5 * math.erfc(-x / math.sqrt(2))


@pytest.mark.parametrize(
    ("mean", "std", "a", "b"),
    [
        (0.0, 1.0, -2.0, 2.0),  # torch's defaults
        (1.0, 2.0, -0.5, 3.0),
        (0.0, 1.0, -0.1, 0.2),  # narrow
        (0.0, 1.0, 0.0, 0.1),
        (0.0, 1.0, 0.3, 1.0),
        (0.0, 1.0, 3.0, math.inf),  # a tail
        (2.0, 0.5, -9.0, 0.0),  # the other tail, 4 std out
        (0.0, 1.0, 20.0, 20.01),
        (0.0, 1.0, -math.inf, math.inf),
    ],
)
def test_trunc_normal(mean, std, a, b):
    lamina.manual_seed(0)
    n = 20_000
    tensor = lamina.Tensor(np.empty((n // 10, 10)))
    x = init.trunc_normal_(tensor, mean, std, a, b).data
    assert x.min() >= a
    assert x.max() <= b
    # Kolmogorov & Smirnov: the largest gap exceeds 2.5 / sqrt(n) once in 130 000 (2 exp(-2 2.5^2)).
    z, (low, high) = (x - mean) / std, ((v - mean) / std for v in (a, b))
    if low + high > 0:  # mirrored into the lower tail, where shares keep their digits
        z, low, high = -z, -high, -low
    shares = [(below(v) - below(low)) / (below(high) - below(low)) for v in np.sort(z.ravel())]
    assert np.abs(shares - (np.arange(n) + 0.5) / n).max() < 2.5 / math.sqrt(n)


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (4, 2, 3, 3), (6, 6), (1, 7), (3, 0), (0, 3)])
def test_orthogonal(shape):
    tensor = init.orthogonal_(lamina.Tensor(np.empty(shape)), gain=2.0)
    m = tensor.data.reshape(shape[0], math.prod(shape[1:])) / 2
    product = m @ m.T if m.shape[0] <= m.shape[1] else m.T @ m
    assert_allclose(product, np.eye(len(product)), atol=64 * np.finfo(float).eps)


def test_orthogonal_matrices_are_equally_likely():
    # An entry of a uniform orthogonal n x n matrix has mean 0 and variance 1 / n: its square is
    # Beta(1/2, (n - 1) / 2) distributed, of variance 2 (n - 1) / (n^2 (n + 2)).
    lamina.manual_seed(0)
    n, count = 3, 4000
    draws = [init.orthogonal_(lamina.Tensor(np.empty((n, n)))).data.copy() for _ in range(count)]
    mean, square = np.mean(draws, axis=0), np.mean(np.square(draws), axis=0)
    assert np.abs(mean).max() < 6 * math.sqrt(1 / n / count)
    assert np.abs(square - 1 / n).max() < 6 * math.sqrt(2 * (n - 1) / (n**2 * (n + 2)) / count)


def test_structure():
    assert_array_equal(init.eye_(lamina.Tensor(np.empty((3, 5)))).data, np.eye(3, 5))
    assert_array_equal(init.constant_(lamina.Tensor(np.empty(4)), 0.1).data, np.full(4, 0.1))
    assert init.ones_(lamina.Tensor(np.empty(4))).data.all()
    assert not init.zeros_(lamina.Tensor(np.ones(4))).data.any()
    x = np.random.default_rng(0).normal(size=(2, 3, 6, 7))
    weight = init.dirac_(lamina.Tensor(np.empty((3, 3, 3, 5))))
    assert_array_equal(lamina.functional.conv2d(x, weight.data, padding=(1, 2)), x)
    weight = init.dirac_(lamina.Tensor(np.empty((6, 3, 3))), groups=2).data
    assert_array_equal(weight[:3], weight[3:])


@pytest.mark.parametrize("sparsity", [0.0, 0.35, 1.0])
def test_sparse(sparsity):
    lamina.manual_seed(0)
    x = init.sparse_(lamina.Tensor(np.empty((10, 4000))), sparsity, std=2.0).data
    zeros = math.ceil(sparsity * 10)
    assert_array_equal((x == 0).sum(0), zeros)
    # Every row has its share of the zeros, within 6 standard deviations of 4000 draws.
    p = zeros / 10
    assert np.abs((x == 0).mean(1) - p).max() <= 6 * math.sqrt(p * (1 - p) / 4000)
    if zeros < 10:
        assert abs(x[x != 0].std() / 2 - 1) < 6 * math.sqrt(0.5 / (x != 0).sum())


EVERY = [
    *("uniform_", "normal_", "trunc_normal_", "ones_", "zeros_", "eye_", "orthogonal_"),
    *("xavier_uniform_", "xavier_normal_", "kaiming_uniform_", "kaiming_normal_"),
    *("lecun_uniform_", "lecun_normal_"),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", EVERY)
def test_fills_any_layout_in_place(name, dtype):
    """A transposed and strided view of a parameter that requires a gradient, in its dtype."""
    whole = np.full((8, 6), np.nan, dtype)
    parameter = nn.Parameter(whole.T[:, ::2])
    assert getattr(init, name)(parameter) is parameter
    assert parameter.requires_grad
    assert np.isfinite(whole[::2]).all()
    assert np.isnan(whole[1::2]).all()


@pytest.mark.parametrize("name", [name for name in EVERY if name != "eye_"])
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 3, 0)])
def test_zero_size(name, shape):
    assert getattr(init, name)(lamina.Tensor(np.empty(shape))).shape == shape


def test_a_generator_of_ones_own():
    draws = [
        init.normal_(lamina.Tensor(np.empty(5)), generator=np.random.default_rng(3)).data
        for _ in range(2)
    ]
    assert_array_equal(*draws)
    assert_array_equal(draws[0], np.random.default_rng(3).normal(size=5))


@pytest.mark.torch
@pytest.mark.parametrize("name", [*EVERY, "constant_", "dirac_", "sparse_", "calculate_gain"])
def test_arguments_are_torchs(name):
    torch = pytest.importorskip("torch")
    from inspect import signature

    if name.startswith("lecun"):
        return
    ours = signature(getattr(init, name)).parameters.values()
    theirs = signature(getattr(torch.nn.init, name)).parameters.values()
    assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in theirs]


@pytest.mark.torch
@pytest.mark.parametrize("shape", [(2, 3, 3), (6, 2, 3, 4), (4, 4, 1, 2, 3), (4, 0, 3)])
@pytest.mark.parametrize("groups", [1, 2])
def test_dirac_is_torchs(shape, groups):
    torch = pytest.importorskip("torch")
    ours = init.dirac_(lamina.Tensor(np.empty(shape)), groups).data
    assert_array_equal(ours, torch.nn.init.dirac_(torch.empty(shape), groups).numpy())


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
INTEGERS, NAN = lamina.Tensor(np.arange(3)), float("nan")
BAD = [
    (lambda: init.xavier_uniform_(T1), ValueError, "xavier_uniform_: fan in and fan out need 2"),
    (lambda: init.xavier_normal_(T2, NAN), ValueError, "xavier_normal_: the scale must be finite"),
    (lambda: init.xavier_normal_(T2, "1"), TypeError, "gain must be a number"),
    (lambda: init.lecun_normal_(T1), ValueError, "lecun_normal_: fan in and fan out need 2"),
    (lambda: init.lecun_uniform_(np.ones(3)), TypeError, "must be a floating Tensor, got ndarray"),
    (lambda: init.kaiming_normal_(T2, mode="x"), ValueError, "mode must be one of ('fan_in'"),
    (lambda: init.kaiming_normal_(T2, nonlinearity="x"), ValueError, "nonlinearity must be one of"),
    (lambda: init.kaiming_uniform_(T2, NAN), ValueError, "kaiming_uniform_: the scale must be fin"),
    (lambda: init.calculate_gain("x"), ValueError, "calculate_gain: nonlinearity must be one of"),
    (lambda: init.calculate_gain("leaky_relu", "x"), TypeError, "param must be a number"),
    (lambda: init.uniform_(T1, 2, 1), ValueError, "a must not be above b, both finite, got a=2"),
    (lambda: init.uniform_(T1, NAN), ValueError, "a must not be above b, both finite"),
    (lambda: init.uniform_(T1, -1e308, 1e308), ValueError, "a must not be above b, both finite"),
    (lambda: init.uniform_(T1, generator=3), TypeError, "generator must be a numpy.random.Gener"),
    (lambda: init.uniform_(INTEGERS), TypeError, "must be a floating Tensor, got dtype=int64"),
    (lambda: init.normal_(T1, 0, -1), ValueError, "normal_: std must not be negative, got std=-1"),
    (lambda: init.normal_([1.0]), TypeError, "tensor must be a floating Tensor, got list"),
    (lambda: init.trunc_normal_(T1, 0, 1, 2, 1), ValueError, "a must be below b"),
    (lambda: init.trunc_normal_(T1, 0, 0), ValueError, "std above 0"),
    (lambda: init.trunc_normal_(T1, NAN), ValueError, "trunc_normal_: a must be below b, std abov"),
    (lambda: init.trunc_normal_(T1, 0, 1e-320, 1, 2), ValueError, "infinitely many std away"),
    (lambda: init.constant_(T1, "x"), TypeError, "constant_: val must be a number"),
    (lambda: init.eye_(T1), ValueError, "eye_: tensor must have 2 dimensions, got shape=(3,)"),
    (lambda: init.dirac_(T2), ValueError, "tensor must have 3 or 4 or 5 dimensions"),
    (lambda: init.dirac_(lamina.Tensor(np.empty((3, 1, 2))), 2), ValueError, "groups must divide"),
    (lambda: init.dirac_(lamina.Tensor(np.empty((3, 1, 2))), 0), ValueError, "groups must be at"),
    (lambda: init.orthogonal_(T1), ValueError, "tensor must have 2 dimensions or more"),
    (lambda: init.sparse_(T1, 0.1), ValueError, "sparse_: tensor must have 2 dimensions"),
    (lambda: init.sparse_(T2, 1.5), ValueError, "sparsity must be from 0 to 1"),
    (lambda: init.sparse_(T2, 0.5, -1), ValueError, "std not negative"),
    (lambda: init.ones_(read_only()), ValueError, "ones_: the array must be writable"),
    (lambda: init.zeros_(None), TypeError, "zeros_: tensor must be a floating Tensor, got NoneT"),
]


def read_only():
    array = np.empty(3)
    array.flags.writeable = False
    return lamina.Tensor(array)


@pytest.mark.parametrize(("call", "error", "text"), BAD, ids=range(len(BAD)))
def test_bad_input(call, error, text):
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)
