"""Optimisers, schedules and gradient clipping against the NumPy references and torch.

Tolerance: the optimisers run the reference's operations in another order, 50 steps in float64:
1e-12. Schedules multiply 60 factors: 1e-12.
"""

from __future__ import annotations

import lamina
import numpy as np
import pytest
import reference
from lamina import nn, optim
from lamina.optim import lr_scheduler
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
def test_steps(name, options):
    param = nn.Parameter(START.copy())
    run(getattr(optim, name)([param], **options), param, lamina.Tensor)
    step_of = OWN_STEPS.get(name) or getattr(reference, f"{name.lower()}_step")
    assert_allclose(param.data, reference_steps(step_of, options), rtol=1e-12)


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


SCHEDULES = [
    ("LambdaLR", {"lr_lambda": lambda epoch: 0.9**epoch}),
    ("MultiplicativeLR", {"lr_lambda": lambda epoch: 1 - 0.01 * epoch}),
    ("StepLR", {"step_size": 7}),
    ("MultiStepLR", {"milestones": [3, 9, 9, 30], "gamma": 0.5}),
    ("ConstantLR", {"factor": 0.25, "total_iters": 6}),
    ("LinearLR", {"start_factor": 0.2, "end_factor": 0.9, "total_iters": 11}),
    ("ExponentialLR", {"gamma": 0.93}),
    ("PolynomialLR", {"total_iters": 20, "power": 1.7}),
    ("CosineAnnealingLR", {"T_max": 8, "eta_min": 0.01}),
    ("CosineAnnealingWarmRestarts", {"T_0": 5, "T_mult": 2, "eta_min": 0.02}),
    ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.3, "step_size_up": 4, "step_size_down": 7}),
    ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.3, "step_size_up": 4, "mode": "triangular2"}),
    (
        "CyclicLR",
        {"base_lr": 0.01, "max_lr": 0.3, "step_size_up": 9, "mode": "exp_range", "gamma": 0.98},
    ),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": 61}),
    ("OneCycleLR", {"max_lr": 0.5, "epochs": 7, "steps_per_epoch": 9, "three_phase": True}),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": 70, "anneal_strategy": "linear"}),
]


def optimizers():
    torch = pytest.importorskip("torch")
    ours = optim.SGD([nn.Parameter(START.copy())], lr=0.2, momentum=0.9)
    return ours, torch.optim.SGD([torch.nn.Parameter(torch.tensor(START))], lr=0.2, momentum=0.9)


def rates(optimizer, scheduler, metrics=None, steps=60):
    trace = []
    for step in range(steps):
        group = optimizer.param_groups[0]
        trace.append((group["lr"], group["momentum"]))
        optimizer.step()
        scheduler.step(*([] if metrics is None else [metrics[step]]))
    return np.array(trace)


@pytest.mark.torch
@pytest.mark.parametrize(("name", "options"), SCHEDULES, ids=range(len(SCHEDULES)))
def test_rates_are_torchs(name, options):
    ours, theirs = optimizers()
    from torch.optim import lr_scheduler as torchs

    one, two = (
        getattr(lr_scheduler, name)(ours, **options),
        getattr(torchs, name)(theirs, **options),
    )
    assert_allclose(rates(ours, one), rates(theirs, two), rtol=1e-12)
    assert_allclose(one.get_last_lr(), two.get_last_lr(), rtol=1e-12)


@pytest.mark.torch
@pytest.mark.parametrize(
    "options",
    [
        {"patience": 2, "factor": 0.5},
        {"mode": "max", "patience": 1, "threshold": 0.1, "threshold_mode": "abs", "cooldown": 2},
        {"patience": 0, "min_lr": 0.01},
    ],
    ids=str,
)
def test_plateau_is_torchs(options):
    ours, theirs = optimizers()
    from torch.optim import lr_scheduler as torchs

    metrics = np.abs(np.random.default_rng(3).normal(size=60)).tolist()
    one = lr_scheduler.ReduceLROnPlateau(ours, **options)
    two = torchs.ReduceLROnPlateau(theirs, **options)
    assert_allclose(rates(ours, one, metrics), rates(theirs, two, metrics), rtol=1e-12)


@pytest.mark.torch
def test_combined_schedules_are_torchs():
    from functools import partial

    torch = pytest.importorskip("torch")
    for combine in ("chained", "sequential"):
        ours, theirs = optimizers()
        traces = []
        for optimizer, module in ((ours, lr_scheduler), (theirs, torch.optim.lr_scheduler)):
            parts = [
                module.ConstantLR(optimizer, 0.1, 5),
                module.ExponentialLR(optimizer, 0.9),
                module.CosineAnnealingLR(optimizer, 12),
            ]
            make = (
                partial(module.ChainedScheduler, parts)
                if combine == "chained"
                else partial(module.SequentialLR, optimizer, parts, [4, 20])
            )
            traces.append(rates(optimizer, make(), steps=40))
        assert_allclose(*traces, rtol=1e-12)


@pytest.mark.parametrize(("name", "options"), SCHEDULES, ids=range(len(SCHEDULES)))
def test_schedules_resume(name, options):
    def make():
        optimizer = optim.SGD([nn.Parameter(START.copy())], lr=0.2, momentum=0.9)
        return optimizer, getattr(lr_scheduler, name)(optimizer, **options)

    optimizer, scheduler = make()
    rates(optimizer, scheduler, steps=20)
    other, resumed = make()
    other.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(scheduler.state_dict())
    assert_array_equal(rates(optimizer, scheduler, steps=20), rates(other, resumed, steps=20))


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
    (lambda: lr_scheduler.StepLR(PARAM, 3), TypeError, "optimizer must be an Optimizer"),
    (lambda: lr_scheduler.StepLR(OPTIMIZER, 0), ValueError, "step_size must be an integer"),
    (lambda: lr_scheduler.CosineAnnealingLR(OPTIMIZER, 0.5), ValueError, "T_max must be an"),
    (lambda: lr_scheduler.ConstantLR(OPTIMIZER, 2.0), ValueError, "factor must be from 0 to 1"),
    (lambda: lr_scheduler.LinearLR(OPTIMIZER, 0.0), ValueError, "start_factor must be above 0"),
    (lambda: lr_scheduler.LambdaLR(OPTIMIZER, [abs, abs]), ValueError, "one function or 1"),
    (lambda: lr_scheduler.CyclicLR(OPTIMIZER, 0.1, 1, mode="x"), ValueError, "mode is unknown"),
    (lambda: lr_scheduler.OneCycleLR(OPTIMIZER, 1.0), ValueError, "give total_steps"),
    (lambda: lr_scheduler.OneCycleLR(OPTIMIZER, 1.0, 5, pct_start=2), ValueError, "pct_start"),
    (lambda: lr_scheduler.SequentialLR(OPTIMIZER, [], []), ValueError, "0 schedulers need"),
    (lambda: lr_scheduler.ChainedScheduler([]), ValueError, "schedulers is empty"),
    (lambda: lr_scheduler.ReduceLROnPlateau(OPTIMIZER, factor=1), ValueError, "factor must be"),
    (lambda: lr_scheduler.ReduceLROnPlateau(OPTIMIZER, "avg"), ValueError, "mode must be 'min'"),
    (lambda: lr_scheduler.ExponentialLR(OPTIMIZER, 0.9, 5), KeyError, "no 'initial_lr'"),
    (lambda: nn.utils.clip_grad_norm_(PARAM, -1), ValueError, "max_norm must not be negative"),
    (lambda: nn.utils.clip_grad_norm_(PARAM, 1, 0), ValueError, "norm_type must be above 0"),
    (lambda: nn.utils.clip_grad_value_(PARAM, -1), ValueError, "clip_value must not be"),
    (lambda: nn.utils.vector_to_parameters(START, [PARAM]), ValueError, "vec must have 12"),
]


@pytest.mark.parametrize(("call", "error", "text"), BAD, ids=range(len(BAD)))
def test_bad_input(call, error, text):
    OPTIMIZER.param_groups[0].pop("initial_lr", None)
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)


def test_non_finite_norm_can_be_an_error():
    param = nn.Parameter(START.copy())
    param.grad = lamina.Tensor(np.full_like(START, np.nan))
    with pytest.raises(RuntimeError, match="norm of the gradients is nan"):
        nn.utils.clip_grad_norm_(param, 1.0, error_if_nonfinite=True)
