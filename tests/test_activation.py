"""Activations and softmax: values and derivatives against the NumPy reference, kinks, NaN, tails.

Tolerance: a kernel's exp, log and tanh are good to a few units in the last place, and so are the
divisions around them; 16 eps of the larger of 1 and the value holds all formulas here.
"""

from __future__ import annotations

import functools
import math

import cases
import lamina
import lamina.functional as F
import numpy as np
import pytest
import reference
from numpy.testing import assert_allclose, assert_array_equal

KINDS = [
    ("relu", {}),
    ("relu6", {}),
    ("leaky_relu", {"negative_slope": 0.2}),
    ("elu", {"alpha": 0.7}),
    ("selu", {}),
    ("celu", {"alpha": 0.6}),
    ("gelu", {}),
    ("gelu", {"approximate": "tanh"}),
    ("silu", {}),
    ("mish", {}),
    ("softplus", {"beta": 2.0, "threshold": 3.0}),
    ("softsign", {}),
    ("softshrink", {"lambd": 0.4}),
    ("hardshrink", {}),
    ("tanhshrink", {}),
    ("hardtanh", {"min_val": -0.5, "max_val": 0.8}),
    ("hardsigmoid", {}),
    ("hardswish", {}),
    ("threshold", {"threshold": 0.1, "value": -3.0}),
    ("logsigmoid", {}),
    ("sigmoid", {"slope": 1.5}),
    ("tanh", {}),
    ("step", {}),
]
KINKS = [0.0, -0.0, 3.0, -3.0, 0.5, -0.5, 0.4, -0.4, 6.0, 0.1, 0.8, 30.0, -30.0, 1e-30, -1e-8]


def samples(dtype, size=97):
    return np.concatenate([cases.reals((size,), 5, dtype) * 3, KINKS]).astype(dtype)


@pytest.mark.parametrize(("name", "options"), KINDS, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_value_and_derivative(backend, name, options, dtype):
    x = samples(dtype)
    options = {k: float(dtype(v)) if isinstance(v, float) else v for k, v in options.items()}
    grad_y = cases.reals(x.shape, 6, dtype)
    t = lamina.tensor(x, requires_grad=True)
    y = getattr(F, name)(t, **options)
    y.backward(grad_y)
    bound = 16 * np.finfo(dtype).eps
    assert_allclose(y.data, getattr(reference, name)(x, **options), rtol=bound, atol=bound)
    expected = getattr(reference, f"{name}_backward")(grad_y, x, **options)
    assert_allclose(t.grad.data, expected, rtol=bound, atol=bound)
    assert y.dtype == t.grad.dtype == dtype


@pytest.mark.parametrize(("name", "options"), KINDS, ids=str)
def test_nan_and_vector_tails(backend, name, options):
    """Every length from 0 to 65 gives the prefix of the longest; NaN stays in its place."""
    x = samples(np.float32)[:65]
    x[[3, 40, 64]] = np.nan
    full = getattr(F, name)(x, **options)
    assert_array_equal(np.isnan(full), np.isnan(x))
    for size in range(65):
        assert_array_equal(getattr(F, name)(x[:size], **options), full[:size])


@pytest.mark.parametrize("kind", ["hardsigmoid", "hardtanh", "relu6", "softshrink", "hardshrink"])
def test_gradient_at_nan(backend, kind):
    t = lamina.tensor(np.full(37, np.nan, np.float32), requires_grad=True)
    getattr(F, kind)(t).sum().backward()
    assert_array_equal(t.grad.data, 0)  # as torch's


CONSTANT_PARTS = {
    "relu": [-2, -0.0, 0],
    "relu6": [-2, 0, 6, 7],
    "softshrink": [-0.4, 0, 0.4],
    "hardshrink": [-0.4, 0, 0.4],
    "hardtanh": [-2, -0.5, 0.8, 1],
    "hardsigmoid": [-4, -3, 3, 4],
    "hardswish": [-4, -3],
    "threshold": [-5, 0, 0.1],
    "step": [-1, 0, 1],
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CONSTANT_PARTS)
def test_nothing_comes_back_from_constant_parts(backend, name, dtype):
    """No Inf and no NaN either, as in torch: they would spoil all weights before."""
    x = np.tile(np.array([*CONSTANT_PARTS[name], -np.inf], dtype), 9)
    if name in ("softshrink", "hardshrink"):
        x[np.isinf(x)] = 0
    options = {k: float(dtype(v)) for k, v in dict(KINDS)[name].items()}
    for incoming in (np.inf, -np.inf, np.nan, -1):
        t = lamina.tensor(x, requires_grad=True)
        getattr(F, name)(t, **options).backward(np.full_like(x, incoming))
        assert_array_equal(t.grad.data, np.zeros_like(x))


@pytest.mark.parametrize(("name", "options"), KINDS, ids=str)
def test_far_out(backend, name, options):
    """Powers and exponentials of large arguments overflow on the way; the results do not."""
    x = np.float32([88.5, 89, 1e4, 1e13, 1e20, 1e30, 3e38])
    x = np.concatenate([x, -x])
    options = {k: float(np.float32(v)) if isinstance(v, float) else v for k, v in options.items()}
    t = lamina.tensor(x, requires_grad=True)
    y = getattr(F, name)(t, **options)
    y.sum().backward()
    bound = 16 * np.finfo(np.float32).eps
    with np.errstate(over="ignore"):
        wide = x.astype(np.float64)
        assert_allclose(y.data, getattr(reference, name)(wide, **options), rtol=bound, atol=bound)
        expected = getattr(reference, f"{name}_backward")(np.ones(len(x)), wide, **options)
    assert_allclose(t.grad.data, expected, rtol=bound, atol=bound)


@pytest.mark.parametrize("shape", [(2, 3, 5), (4, 3), (7,), (2, 3, 41), (0, 3, 2)], ids=str)
def test_prelu(backend, shape):
    x = cases.integers(shape, 1)
    for channels in {1, *shape[1:2]}:
        weight = cases.integers((channels,), 2)
        tx = lamina.tensor(x, requires_grad=True)
        tw = lamina.tensor(weight, requires_grad=True)
        y = F.prelu(tx, tw)
        grad_y = cases.integers(x.shape, 3)
        y.backward(grad_y)
        assert_array_equal(y.data, reference.prelu(x, weight))
        grad_x, grad_weight = reference.prelu_backward(grad_y, x, weight)
        assert_array_equal(tx.grad.data, grad_x)
        assert_array_equal(tw.grad.data, grad_weight)
        for one in (tx, tw):  # without the other
            one.grad = None
            F.prelu(*(t if t is one else t.data for t in (tx, tw))).backward(grad_y)
        assert_array_equal(tx.grad.data, grad_x)
        assert_array_equal(tw.grad.data, grad_weight)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("shape", "dim"),
    [((6,), 0), ((5, 2), 1), ((3, 66), -1), ((3, 4, 7), 1), ((2, 90000), 1), ((200, 2, 333), -2)],
    ids=str,
)
@pytest.mark.parametrize("name", ["ref", "cpu"])
def test_glu(name, shape, dim, dtype):
    x = cases.reals(shape, 1, dtype) * 3
    x.flat[:2] = -800, 800
    a, b = np.split(x.astype(np.float64), 2, dim)
    grad_y = cases.reals(a.shape, 2, dtype)
    with np.errstate(over="ignore"):
        gate, rest = 1 / (1 + np.exp(-b)), 1 / (1 + np.exp(b))
    gradient = np.concatenate([grad_y * gate, grad_y * a * gate * rest], dim)
    for _ in range(2):
        t = lamina.tensor(x, requires_grad=True)
        with lamina.backend(name):
            y = F.glu(t, dim)
            y.backward(grad_y)
        eps = np.finfo(dtype).eps
        assert_allclose(y.detach().numpy(), a * gate, rtol=8 * eps, atol=np.finfo(dtype).tiny)
        assert_allclose(t.grad.numpy(), gradient, rtol=16 * eps, atol=16 * eps)
    with lamina.backend(name):
        again = F.glu(x.T.copy().T, dim)
    assert_array_equal(again, y.detach().numpy(), strict=True)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize(
    ("shape", "dim"), [((7,), 0), ((3, 5), 1), ((2, 37, 9), 1), ((2, 3, 70), 2), ((0, 5), 1)]
)
def test_softmax(backend, name, shape, dim):
    x, grad_y = cases.reals(shape, 1, np.float64) * 5, cases.reals(shape, 2, np.float64)
    t = lamina.tensor(x, requires_grad=True)
    y = getattr(F, name)(t, dim)
    y.backward(grad_y)
    bound = 32 * np.finfo(np.float64).eps
    assert_allclose(y.data, getattr(reference, name)(x, dim), rtol=bound, atol=bound)
    expected = getattr(reference, f"{name}_backward")(grad_y, x, dim)
    assert_allclose(t.grad.data, expected, rtol=bound, atol=bound)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("shape", [(5, 7), (2, 4, 3), (6,)])
def test_cross_entropy(backend, reduction, smoothing, shape):
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape)
    classes = shape[1] if len(shape) > 1 else shape[0]
    target = np.asarray(rng.integers(0, classes, shape[:1] + shape[2:] if len(shape) > 1 else ()))
    weight = rng.random(classes)
    options = dict(reduction=reduction, label_smoothing=smoothing)
    y = F.cross_entropy(x, target, weight, **options)
    log_p = x - np.log(np.exp(x).sum(min(1, x.ndim - 1), keepdims=True))
    log_p = np.moveaxis(log_p, min(1, x.ndim - 1), -1)
    picked = -weight[target] * np.take_along_axis(log_p, target[..., None], -1)[..., 0]
    loss = (1 - smoothing) * picked - smoothing / classes * (weight * log_p).sum(-1)
    expected = {"none": loss, "sum": loss.sum(), "mean": loss.sum() / weight[target].sum()}
    assert_allclose(y, expected[reduction], rtol=1e-13)
    lamina.testing.gradcheck(lambda t: F.cross_entropy(t, target, weight, **options), [x])


def test_targets_are_checked_before_anything_is_written(backend):
    x = np.zeros((2, 3), np.float32)
    for bad in (3, -1, 2**31, -(2**63), 2**63 - 1):
        with pytest.raises(ValueError, match="^cross_entropy: target must be from 0 to 2"):
            F.cross_entropy(x, np.array([0, bad]))
    assert F.cross_entropy(x, np.array([0, -100]), reduction="none")[1] == 0


BAD = [
    (lambda x: F.relu(x.astype(int)), TypeError, "relu: input must be float32 or float64"),
    (lambda x: F.relu(x.astype(complex)), TypeError, "relu: input must be float32 or float64"),
    (lambda x: F.relu([1.0]), TypeError, "relu: input must be"),
    (lambda x: F.relu(x.astype(np.float16)), TypeError, "relu: input must be float32 or float64"),
    (lambda x: F.elu(x, alpha="1"), TypeError, "elu: alpha must be a number"),
    (lambda x: F.celu(x, alpha=0), ValueError, "celu: alpha must not be zero"),
    (lambda x: F.gelu(x, "fast"), ValueError, "gelu: approximate must be"),
    (lambda x: F.softplus(x, beta=0), ValueError, "softplus: beta must not be zero"),
    (lambda x: F.softshrink(x, -1), ValueError, "softshrink: lambd must not be negative"),
    (lambda x: F.hardtanh(x, 2, 1), ValueError, "hardtanh: min_val must not exceed max_val"),
    (lambda x: F.glu(x[:, :3]), ValueError, "glu: the halved dimension must be even"),
    (lambda x: F.prelu(x, np.ones(3, np.float32)), ValueError, "prelu: weight must have 1"),
    (lambda x: F.prelu(x, np.ones(4)), TypeError, "prelu: all arrays must have one dtype"),
    (lambda x: F.softmax(x, 2), ValueError, "softmax: dim must be from -2 to 1"),
    (lambda x: F.softmax(x, 1.0), TypeError, "softmax: dim must be an integer"),
    (lambda x: F.cross_entropy(x, np.zeros(3, int)), ValueError, "target must have the shape"),
    (lambda x: F.cross_entropy(x, np.zeros(2, bool)), TypeError, "target must be"),
]


@pytest.mark.parametrize(("call", "error", "text"), BAD, ids=[text for _, _, text in BAD])
def test_bad_input(call, error, text):
    with pytest.raises(error) as caught:
        call(np.ones((2, 4), np.float32))
    assert text in str(caught.value)


# Every STRIDE-th of the 2^32 float32, and arguments at which tests/every_float.cpp, which can go
# over all of them, found large errors.
STRIDE, CHUNK = 20011, 1 << 20
ERFC = np.vectorize(math.erfc, otypes=[float])
SELU = [float(np.float32(c)) for c in (1.6732632423543772, 1.0507009873554805)]
SQRT_8_PI = 2 * math.sqrt(2 / math.pi)
# The largest error in units in the last place of the result, and the formula.
ULPS = {
    "elu": (1.0, lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0)))),
    "gelu": (2.0, lambda x: 0.5 * x * ERFC(-x / math.sqrt(2))),
    "gelu_tanh": (2.0, lambda x: x / (1 + np.exp(-SQRT_8_PI * (x + 0.044715 * x**3)))),
    "hardsigmoid": (1.5, lambda x: np.clip(x + 3, 0, 6) / 6),
    "hardswish": (2.0, lambda x: np.where(x < -3, 0, x * (np.minimum(x, 3) + 3) / 6)),
    "logsigmoid": (2.0, lambda x: -np.logaddexp(0, -x)),
    "mish": (2.0, lambda x: x * np.tanh(np.logaddexp(0, x))),
    "selu": (2.0, lambda x: SELU[1] * np.where(x > 0, x, SELU[0] * np.expm1(np.minimum(x, 0)))),
    "sigmoid": (2.0, lambda x: np.exp(-np.logaddexp(0, -x))),
    "silu": (2.0, lambda x: x * np.exp(-np.logaddexp(0, -x))),
    "softplus": (2.0, lambda x: np.logaddexp(0, x)),
    "softsign": (1.5, lambda x: x / (1 + np.abs(x))),
    "tanh": (2.0, np.tanh),
}
WORST = """
    -0x1.7c7aaap-2 -0x1.86c444p-2 -0x1.a6a6f2p-2 -0x1.60111p+0 0x1.fdf4f8p-16 -0x1.f8ac24p-10
    -0x1.3a7232p+2 0x1.c6b32p-2 0x1.4283bap+0 -0x1.dc09eap-2 -0x1.985494p-2 -0x1.a6c45cp-17
    -0x1.7527f8p-10 -0x1.0a3aep+4 -0x1.69c2bep-12 -0x1.ffa828p-11 -0x1.dfa268p-2 -0x1.0a0ffcp+2
    -0x1.d8472ap-2 0x1.19280ap-1 -0x1.192572p-1 -0x1.97840cp-1 -0x1.d72c18p-2 -0x1.ba288ap+1
    -0x1.da1a44p+0 -0x1.d5aed6p+0 -0x1.e93a1ap-3 -0x1.affdp-2 0x1.1919aep-1 0x1.083dp-9
    -0x1.498a2p-2 -0x1.347cdp-3 0x1.5f216cp+0 0x1.ff05fep+8 -0x1.0007fcp-11 -0x1.69c008p-12
    -0x1.8b88dp-2 -0x1.fe8756p-10 0x1.77f8p-133 0x1.000014p+0
"""


@pytest.mark.parametrize("name", ULPS)
def test_every_kind_of_float(name):
    most, formula = ULPS[name]
    function = functools.partial(F.gelu, approximate="tanh") if "_" in name else getattr(F, name)
    worst = np.array([float.fromhex(x) for x in WORST.split()], np.float32).view(np.uint32)
    for start in range(0, 1 << 32, STRIDE * CHUNK):
        bits = np.arange(start, min(start + STRIDE * CHUNK, 1 << 32), STRIDE, np.int64)
        x = np.concatenate([bits.astype(np.uint32), worst]).view(np.float32)
        x = x[np.isfinite(x)]
        with np.errstate(all="ignore"), lamina.backend("cpu"):
            expected = formula(x.astype(np.float64))
            got = function(x).astype(np.float64)
            ulp = np.spacing(np.abs(expected).astype(np.float32)).astype(np.float64)
        kept = np.abs(expected) <= np.finfo(np.float32).max
        error = np.where(kept, np.abs(got - expected) / ulp, 0)
        at = np.argmax(error)
        assert error[at] <= most, f"{name}({x[at]!r}): {error[at]:.2f} ulp"


INPLACE = [
    ("relu", {}),
    ("relu6", {}),
    ("leaky_relu", {"negative_slope": 0.2}),
    ("leaky_relu", {"negative_slope": -0.2}),
    ("elu", {}),
    ("selu", {}),
    ("celu", {}),
    ("silu", {}),
    ("mish", {}),
    ("hardtanh", {}),
    ("hardsigmoid", {}),
    ("hardswish", {}),
    ("threshold", {"threshold": 0.1, "value": 3.0}),
    ("rrelu", {}),
]


@pytest.mark.parametrize(("name", "options"), INPLACE, ids=str)
def test_inplace_writes_over_the_input(backend, name, options):
    function = getattr(F, name)
    x = samples(np.float32)
    expected = function(x, **options)
    array = x.copy()
    assert function(array, **options, inplace=True) is array
    assert_array_equal(array, expected)
    strided = np.stack([x, x], 1)
    function(strided[:, 0], **options, inplace=True)
    assert_array_equal(strided, np.stack([expected, x], 1))
    tensor = lamina.tensor(x, requires_grad=True)
    with lamina.no_grad():
        assert function(tensor, **options, inplace=True) is tensor
    assert_array_equal(tensor.detach().numpy(), expected)


@pytest.mark.parametrize(("name", "options"), INPLACE, ids=str)
def test_inplace_is_recorded(backend, name, options):
    function = getattr(F, name)
    grad_y = cases.reals((samples(np.float32).size,), 6, np.float32)
    gradients = []
    for inplace in (False, True):
        x = lamina.tensor(samples(np.float32), requires_grad=True)
        hidden = x * 2
        y = function(hidden, **options, inplace=inplace)
        assert (y is hidden) == inplace
        (hidden if inplace else y).backward(grad_y)
        gradients.append(x.grad.numpy())
    assert_array_equal(*gradients)


def test_inplace_leaves_what_is_needed():
    x = lamina.tensor(samples(np.float32), requires_grad=True)
    hidden = x * 2
    view = hidden.reshape(1, -1)
    before = hidden.detach().numpy().copy()
    assert F.relu(view, inplace=True) is not view
    assert_array_equal(hidden.detach().numpy(), before)
    with pytest.raises(RuntimeError, match="leaf"):
        F.relu(x, inplace=True)
    with pytest.raises(ValueError, match="read-only"):
        F.relu(np.broadcast_to(np.float32(1), (3,)), inplace=True)


def test_inplace_keeps_saved_values():
    """A product needs its factors: they are not written over."""
    x = lamina.tensor(np.float32([-1, 2]), requires_grad=True)
    factor = x * 3
    product = factor * factor
    F.relu(factor, inplace=True)
    product.sum().backward()
    assert_array_equal(x.grad.numpy(), [-18, 36])
