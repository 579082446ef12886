"""Optimisers against the NumPy references and torch.

Tolerance: the reference's operations in another order, 50 steps in float64: 1e-12.
"""

from __future__ import annotations

import fake_cupy
import lamina
import numpy as np
import pytest
import reference
from conftest import BACKENDS
from lamina import nn, optim
from lamina.functional._update import optimizer_step
from numpy.testing import assert_allclose, assert_array_equal

OPTIMISERS = [
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("Adagrad", {}),
    (
        "Adagrad",
        {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 1.0},
    ),
    ("Adagrad", {"maximize": True}),
    ("Adadelta", {}),
    ("Adadelta", {"lr": 0.5, "rho": 0.8, "weight_decay": 0.1, "maximize": True}),
    ("RMSprop", {}),
    ("RMSprop", {"momentum": 0.9, "centered": True, "weight_decay": 0.1}),
    ("RMSprop", {"alpha": 0.8, "centered": True, "maximize": True}),
    ("Adam", {"weight_decay": 0.1, "amsgrad": True}),
    ("AdamW", {"lr": 0.01}),
]
START = np.random.default_rng(0).normal(size=(4, 3))
# Without a reference there; OWN_STEPS below has them.
OTHERS = [
    ("Adamax", {"weight_decay": 0.1}),
    ("Adamax", {"maximize": True, "betas": (0.8, 0.9)}),
    ("NAdam", {"weight_decay": 0.1, "momentum_decay": 0.1}),
    ("NAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("RAdam", {"weight_decay": 0.1}),
    ("RAdam", {"betas": (0.9, 0.9), "maximize": True}),
    ("RAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("Rprop", {}),
    ("Rprop", {"lr": 0.1, "etas": (0.3, 1.5), "step_sizes": (0.05, 0.5), "maximize": True}),
    ("ASGD", {"weight_decay": 0.1}),
    ("ASGD", {"lambd": 0.1, "alpha": 0.5, "t0": 10}),
]
EVERY = [*OPTIMISERS, *OTHERS]


def gradient(step):
    return np.random.default_rng(step).normal(size=START.shape)


def run(optimizer, param, make, steps=50):
    for step in range(steps):
        param.grad = make(gradient(step))
        optimizer.step()


def reference_steps(step_of, options, steps=50):
    p, state = START, {}
    for step in range(steps):
        p, state = step_of(p, gradient(step), state, **options)
    return p


def adamax_step(p, g, s, lr=2e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, maximize=False):
    g, t = (-g if maximize else g) + weight_decay * p, s.get("t", 0) + 1
    m = betas[0] * s.get("m", 0) + (1 - betas[0]) * g
    u = np.maximum(betas[1] * s.get("u", 0), np.abs(g) + eps)
    return p - lr / (1 - betas[0] ** t) * m / u, {"t": t, "m": m, "u": u}


def _decay(p, g, lr, weight_decay, decoupled, maximize):
    g = -g if maximize else g
    return (p * (1 - lr * weight_decay), g) if decoupled else (p, g + weight_decay * p)


def nadam_step(
    p,
    g,
    s,
    lr=2e-3,
    betas=(0.9, 0.999),
    weight_decay=0,
    momentum_decay=4e-3,
    decoupled_weight_decay=False,
    maximize=False,
):
    p, g = _decay(p, g, lr, weight_decay, decoupled_weight_decay, maximize)
    t = s.get("t", 0) + 1
    mu = [betas[0] * (1 - 0.5 * 0.96 ** (k * momentum_decay)) for k in range(1, t + 2)]
    m = betas[0] * s.get("m", 0) + (1 - betas[0]) * g
    v = betas[1] * s.get("v", 0) + (1 - betas[1]) * g**2
    m_hat = mu[t] * m / (1 - np.prod(mu)) + (1 - mu[t - 1]) * g / (1 - np.prod(mu[:t]))
    return p - lr * m_hat / (np.sqrt(v / (1 - betas[1] ** t)) + 1e-8), {"t": t, "m": m, "v": v}


def radam_step(
    p,
    g,
    s,
    lr=1e-3,
    betas=(0.9, 0.999),
    weight_decay=0,
    decoupled_weight_decay=False,
    maximize=False,
):
    p, g = _decay(p, g, lr, weight_decay, decoupled_weight_decay, maximize)
    t = s.get("t", 0) + 1
    m = betas[0] * s.get("m", 0) + (1 - betas[0]) * g
    v = betas[1] * s.get("v", 0) + (1 - betas[1]) * g**2
    c, top = 1 - betas[1] ** t, 2 / (1 - betas[1]) - 1
    n = top - 2 * t * betas[1] ** t / c
    step = m / (1 - betas[0] ** t)
    if n > 5:
        r = (n - 4) * (n - 2) * top / ((top - 4) * (top - 2) * n)
        step = step * np.sqrt(r * c) / (np.sqrt(v) + 1e-8)
    return p - lr * step, {"t": t, "m": m, "v": v}


def rprop_step(p, g, s, lr=1e-2, etas=(0.5, 1.2), step_sizes=(1e-6, 50), maximize=False):
    g = -g if maximize else g
    product = g * s.get("prev", 0)
    factor = np.choose(np.sign(product).astype(int) + 1, [etas[0], 1.0, etas[1]])
    size = np.clip(s.get("size", lr) * factor, *step_sizes)
    g = np.where(product < 0, 0, g)
    return p - size * np.sign(g), {"prev": g, "size": size}


def asgd_step(p, g, s, lr=1e-2, lambd=1e-4, alpha=0.75, t0=1e6, weight_decay=0):
    t = s.get("t", 0) + 1
    eta = lr / (1 + lambd * lr * (t - 1)) ** alpha
    return (1 - lambd * eta) * p - eta * (g + weight_decay * p), {"t": t}


OWN_STEPS = {
    "Adamax": adamax_step,
    "NAdam": nadam_step,
    "RAdam": radam_step,
    "Rprop": rprop_step,
    "ASGD": asgd_step,
}


@pytest.mark.parametrize(("name", "options"), EVERY, ids=str)
def test_steps(backend, name, options):
    param = nn.Parameter(START.copy())
    run(getattr(optim, name)([param], **options), param, lamina.Tensor)
    step_of = OWN_STEPS.get(name) or getattr(reference, f"{name.lower()}_step")
    assert_allclose(param.data, reference_steps(step_of, options), rtol=1e-12)


# The same numbers as NumPy computes them, in any number of elements and from any address on.
@pytest.mark.parametrize(("name", "options"), EVERY, ids=str)
def test_float32_arrays_of_any_layout(backend, name, options):
    rng = np.random.default_rng(1)
    start = rng.normal(size=(7, 45)).astype(np.float32)
    grads = [rng.normal(size=start.shape).astype(np.float32) for _ in range(3)]
    step_of = OWN_STEPS.get(name) or getattr(reference, f"{name.lower()}_step")
    expected, state = start.astype(np.float64), {}
    for grad in grads:
        expected, state = step_of(expected, grad.astype(np.float64), state, **options)
    shifted = np.empty(start.size + 1, np.float32)[1:].reshape(start.shape)
    strided = np.empty((7, 90), np.float32)[:, ::2]
    results = []
    for array in (start.copy(), shifted, strided, np.asfortranarray(start)):
        array[...] = start
        param = nn.Parameter(array)
        optimizer = getattr(optim, name)([param], **options)
        for grad in grads:
            param.grad = lamina.Tensor(grad)
            optimizer.step()
        results.append(param.data.astype(np.float32))
    scale = max(abs(expected).max(), 1)
    assert_allclose(results[0], expected, rtol=0, atol=64 * np.finfo(np.float32).eps * scale)
    for result in results[1:]:
        assert_array_equal(result, results[0])


@pytest.mark.parametrize("name", ["SGD", "AdamW", "RMSprop"])
def test_infinite_parameters_without_decay(backend, name):
    """A weight decay of zero does not multiply: 0 * Inf would be NaN."""
    param = nn.Parameter(np.array([np.inf, -np.inf, np.nan, 1.0]))
    param.grad = lamina.Tensor(np.ones(4))
    getattr(optim, name)([param], lr=0.5, weight_decay=0).step()
    assert_array_equal(param.data[:2], [np.inf, -np.inf])
    assert np.isnan(param.data[2])
    assert param.data[3] < 1


RULES = {
    "sgd": (0, (0.1,)),
    "momentum": (1, (0.1, 0.9, 1.0, 1.0)),
    "amsgrad": (3, (0.1, 0.99, 0.01, 0.5, 1e-3, 0.1)),
    "asgd": (1, (0.99, 0.1, 0.5)),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "backend", [name for name in BACKENDS if name.startswith("simt")] or ["simt"]
)
def test_16_bit(backend, rule):
    """Arithmetic in float32, one rounding of every array: the reference kernel's result rounded."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    count, coefficients = RULES[rule]
    for dtype in (np.float16, ml_dtypes.bfloat16):
        rng = np.random.default_rng(2)
        arrays = [abs(rng.normal(size=301)).astype(dtype) for _ in range(2 + count)]
        exact = [array.astype(np.float64) for array in arrays]
        optimizer_step(rule, exact[0], exact[1], exact[2:], coefficients, decay=0.1, keep=0.9)
        with lamina.backend(backend):
            optimizer_step(
                rule, arrays[0], arrays[1], arrays[2:], coefficients, decay=0.1, keep=0.9
            )
        for array, expected in zip(arrays, exact, strict=True):
            half_ulp = 2.0**-11 if dtype == np.float16 else 2.0**-8
            bound = half_ulp * abs(expected) + 16 * 2.0**-23 + 2.0**-24
            assert (abs(array.astype(np.float64) - expected) <= bound).all()


@pytest.mark.parametrize(("name", "options"), EVERY, ids=str)
def test_arrays_of_cupy_are_updated_in_place(name, options):
    expected = nn.Parameter(START.copy())
    run(getattr(optim, name)([expected], **options), expected, lamina.Tensor, 5)
    with fake_cupy.installed() as cupy:
        array = cupy.asarray(START)
        param = nn.Parameter(array)
        optimizer = getattr(optim, name)([param], **options)
        run(optimizer, param, lambda grad: lamina.Tensor(cupy.asarray(grad)), 5)
        assert param.data is array
        assert lamina.last_plan().backend == "cuda"
        assert_allclose(array.get(), expected.data, rtol=1e-12)
        for value in optimizer.state[param].values():
            assert not isinstance(value, np.ndarray)


def test_asgd_averages():
    param = nn.Parameter(START.copy())
    optimizer = optim.ASGD([param], lr=0.1, lambd=0.0, t0=10)
    trace = []
    for step in range(30):
        param.grad = lamina.Tensor(gradient(step))
        optimizer.step()
        trace.append(param.data.copy())
    # As in torch the mean begins with step t0 + 2.
    assert_allclose(optimizer.state[param]["ax"], np.mean(trace[11:], axis=0), rtol=1e-12)


@pytest.mark.torch
@pytest.mark.parametrize(("name", "options"), EVERY, ids=str)
def test_steps_are_torchs(name, options):
    torch = pytest.importorskip("torch")
    ours, theirs = nn.Parameter(START.copy()), torch.nn.Parameter(torch.tensor(START))
    run(getattr(optim, name)([ours], **options), ours, lamina.Tensor)
    run(getattr(torch.optim, name)([theirs], **options), theirs, torch.tensor)
    # torch keeps ASGD's rate and NAdam's product of momenta in float32.
    rtol = 1e-5 if name in ("ASGD", "NAdam") else 1e-12
    assert_allclose(ours.data, theirs.detach().numpy(), rtol=rtol, atol=rtol)


@pytest.mark.torch
@pytest.mark.parametrize("name", sorted({name for name, _ in EVERY}))
def test_arguments_are_torchs(name):
    torch = pytest.importorskip("torch")
    from inspect import signature

    ours = signature(getattr(optim, name)).parameters
    theirs = signature(getattr(torch.optim, name)).parameters
    # What only torch's CUDA implementations need has no meaning here.
    absent = {"foreach", "capturable", "differentiable", "fused"}
    assert list(ours) == [key for key in theirs if key not in absent]
    for key, parameter in ours.items():
        assert parameter.default == theirs[key].default, key


@pytest.mark.torch
@pytest.mark.parametrize(("name", "options"), EVERY, ids=str)
def test_torchs_state_goes_on_here(name, options):
    torch = pytest.importorskip("torch")
    ours, theirs = nn.Parameter(START.copy()), torch.nn.Parameter(torch.tensor(START))
    there = getattr(torch.optim, name)([theirs], **options)
    run(there, theirs, torch.tensor, 10)
    here = getattr(optim, name)([ours])
    here.load_state_dict(there.state_dict())
    ours.data[...] = theirs.detach().numpy()
    run(here, ours, lamina.Tensor, 10)
    run(there, theirs, torch.tensor, 10)
    rtol = 1e-5 if name in ("ASGD", "NAdam") else 1e-12
    assert_allclose(ours.data, theirs.detach().numpy(), rtol=rtol, atol=rtol)


@pytest.mark.parametrize(("name", "options"), EVERY, ids=str)
def test_state_comes_back(name, options):
    first, second = nn.Parameter(START.copy()), nn.Parameter(START.copy())
    one = getattr(optim, name)([first], **options)
    run(one, first, lamina.Tensor, 10)
    state = one.state_dict()
    assert state["param_groups"][0]["params"] == [0]
    second.data[...] = first.data
    two = getattr(optim, name)([second], lr=99.0)
    two.load_state_dict(state)
    run(one, first, lamina.Tensor, 10)
    run(two, second, lamina.Tensor, 10)
    assert_array_equal(first.data, second.data)
    assert repr(one).startswith(f"{name} (\nParameter Group 0\n")


@pytest.mark.parametrize("name", sorted({name for name, _ in EVERY}))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_state_has_the_parameters_dtype(name, dtype):
    param = nn.Parameter(np.asfortranarray(START.astype(dtype)))
    array = param.data
    optimizer = getattr(optim, name)([param, nn.Parameter(START.copy())])
    for step in range(3):
        param.grad = lamina.Tensor(gradient(step).astype(dtype))
        optimizer.step()
    assert param.data is array
    assert len(optimizer.state) == 1  # the other parameter has no gradient
    for value in optimizer.state[param].values():
        if isinstance(value, np.ndarray):
            assert value.dtype == dtype


@pytest.mark.parametrize("name", sorted({name for name, _ in EVERY}))
def test_descends(name):
    target = START[::-1].copy()
    param = nn.Parameter(START.copy())
    optimizer = getattr(optim, name)([param], lr=0.05)
    losses = []

    def closure():
        optimizer.zero_grad()
        loss = ((param - lamina.Tensor(target)) ** 2).sum()
        loss.backward()
        return loss

    for _ in range(40):
        losses.append(optimizer.step(closure).item())
    assert losses[-1] < losses[0]


def test_a_nan_gradient_stays_visible():
    for name in sorted({name for name, _ in EVERY} - {"Rprop"}):
        param = nn.Parameter(START.copy())
        param.grad = lamina.Tensor(np.full_like(START, np.nan))
        getattr(optim, name)([param]).step()
        assert np.isnan(param.data).all(), name


def test_a_step_between_forward_and_backward_is_an_error():
    param = nn.Parameter(START.copy())
    loss = (param * param).sum()
    param.grad = lamina.Tensor(gradient(1))
    optim.SGD([param], lr=0.1).step()
    with pytest.raises(RuntimeError):
        loss.backward()


def test_a_number_as_parameter():
    for name in sorted({name for name, _ in EVERY}):
        for maximize, sign in ((False, -1), (True, 1)):
            param = nn.Parameter(np.zeros(()))
            param.grad = lamina.Tensor(np.ones(()))
            getattr(optim, name)([param], maximize=maximize).step()
            assert np.sign(param.item()) == sign, name


def test_groups_and_zero_grad():
    a, b = nn.Parameter(START.copy()), nn.Parameter(START.copy())
    optimizer = optim.SGD([{"params": [a]}, {"params": b, "lr": 0.0}], lr=1.0)
    a.grad, b.grad = lamina.Tensor(gradient(1)), lamina.Tensor(gradient(1))
    optimizer.step()
    assert_array_equal(a.data, START - gradient(1))
    assert_array_equal(b.data, START)
    assert optimizer.state_dict()["param_groups"][1]["params"] == [1]
    optimizer.zero_grad(set_to_none=False)
    assert_array_equal(a.grad.data, np.zeros_like(START))
    optimizer.zero_grad()
    assert a.grad is None


def test_loading_bad_state_changes_nothing():
    param = nn.Parameter(START.copy())
    optimizer = optim.Adam([param], lr=0.1)
    run(optimizer, param, lamina.Tensor, 3)
    before = repr(optimizer.state_dict())
    bad = optimizer.state_dict()
    bad["state"][0]["exp_avg"] = np.zeros(3)
    bad["param_groups"][0]["lr"] = 7.0
    with pytest.raises(ValueError, match=r"Adam.load_state_dict: exp_avg must have the shape"):
        optimizer.load_state_dict(bad)
    assert repr(optimizer.state_dict()) == before


PARAM = nn.Parameter(START.copy())
OPTIMIZER = optim.SGD([PARAM], lr=0.1)


def read_only_step():
    array = START.copy()
    array.flags.writeable = False
    param = nn.Parameter(array)
    param.grad = lamina.Tensor(gradient(1))
    optim.SGD([param], lr=0.1).step()


BAD = [
    (lambda: optim.Adagrad([PARAM], lr=-1), ValueError, "Adagrad: lr must not be negative"),
    (lambda: optim.Adagrad([PARAM], lr_decay=-1), ValueError, "lr_decay must not be negative"),
    (lambda: optim.Adagrad([PARAM], eps="1"), TypeError, "eps must be a number, got eps='1'"),
    (lambda: optim.Adadelta([PARAM], rho=1.5), ValueError, "rho must be from 0 to 1"),
    (lambda: optim.Adadelta([PARAM], eps=-1), ValueError, "eps must not be negative"),
    (lambda: optim.RMSprop([PARAM], momentum=-1), ValueError, "momentum must not be negative"),
    (lambda: optim.RMSprop([PARAM], alpha=float("nan")), ValueError, "alpha must not be negative"),
    (lambda: optim.SGD([PARAM], nesterov=True), ValueError, "SGD: nesterov needs a momentum above"),
    (lambda: optim.SGD([PARAM], dampening=None), TypeError, "dampening must be a number"),
    (lambda: optim.Adam([PARAM], betas=(0.9, 1.0)), ValueError, "betas must be from 0 to below 1"),
    (lambda: optim.Adam([PARAM], betas=0.9), TypeError, "betas must be two numbers"),
    (lambda: optim.AdamW([PARAM], weight_decay=-1), ValueError, "AdamW: weight_decay must not be"),
    (lambda: optim.Adamax([PARAM], eps=-1), ValueError, "Adamax: eps must not be negative"),
    (lambda: optim.NAdam([PARAM], momentum_decay=-1), ValueError, "momentum_decay must not be"),
    (lambda: optim.RAdam([PARAM], betas=(0.9,)), TypeError, "RAdam: betas must be two numbers"),
    (lambda: optim.Rprop([PARAM], etas=(1.2, 0.5)), ValueError, "Rprop: etas must be 0 < etas[0]"),
    (lambda: optim.Rprop([PARAM], step_sizes=(2, 1)), ValueError, "step_sizes must be 0 <= step"),
    (lambda: optim.Rprop([PARAM], step_sizes=1), TypeError, "step_sizes must be two numbers"),
    (lambda: optim.ASGD([PARAM], t0="1"), TypeError, "ASGD: t0 must be a number"),
    (lambda: optim.RMSprop([]), ValueError, "params must not be empty"),
    (lambda: optim.RMSprop([START]), TypeError, "params must be Tensors, got params[0] of type"),
    (lambda: optim.SGD(PARAM), TypeError, "SGD: params must be a list of Tensors or of dicts"),
    (lambda: optim.SGD({PARAM}), TypeError, "got set; use module.parameters()"),
    (lambda: optim.SGD(3), TypeError, "params must be a list of Tensors or of dicts, got int"),
    (lambda: optim.SGD([PARAM * 2]), ValueError, "params must be floating leaves"),
    (lambda: optim.SGD([lamina.Tensor(np.arange(3))]), ValueError, "dtype=int64"),
    (lambda: optim.SGD([PARAM, PARAM]), ValueError, "must be given once, got params[1]"),
    (lambda: OPTIMIZER.add_param_group({"params": PARAM}), ValueError, "must be given once"),
    (lambda: OPTIMIZER.add_param_group([PARAM]), TypeError, "parameter group must be a dict"),
    (lambda: optim.SGD([{"lr": 1.0}]), ValueError, "must have 'params', got keys=['lr']"),
    (lambda: optim.SGD([{"params": PARAM, "lr": -1}]), ValueError, "lr must not be negative"),
    (lambda: OPTIMIZER.load_state_dict({}), ValueError, "must have 'state' and 'param_groups'"),
    (lambda: OPTIMIZER.load_state_dict(3), ValueError, "must have 'state' and 'param_groups'"),
    (
        lambda: OPTIMIZER.load_state_dict({"state": {}, "param_groups": [{"params": [0, 1]}]}),
        ValueError,
        "SGD.load_state_dict: the groups must have [1] parameters, got [2]",
    ),
    (
        lambda: OPTIMIZER.load_state_dict({"state": {4: {}}, "param_groups": [{"params": [0]}]}),
        ValueError,
        "state must be of indices below 1, got 4",
    ),
    (lambda: read_only_step(), ValueError, "SGD.step: the array must be writable"),
]


@pytest.mark.parametrize(("call", "error", "text"), BAD, ids=range(len(BAD)))
def test_bad_input(call, error, text):
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)
