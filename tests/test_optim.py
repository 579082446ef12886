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


def gradient(step):
    return np.random.default_rng(step).normal(size=START.shape)


def run(optimizer, param, make, steps=50):
    for step in range(steps):
        param.grad = make(gradient(step))
        optimizer.step()


@pytest.mark.parametrize(("name", "options"), OPTIMISERS, ids=str)
def test_steps(name, options):
    param = nn.Parameter(START.copy())
    run(getattr(optim, name)([param], **options), param, lamina.Tensor)
    expected, state = START, {}
    for step in range(50):
        expected, state = getattr(reference, f"{name.lower()}_step")(
            expected, gradient(step), state, **options
        )
    assert_allclose(param.data, expected, rtol=1e-12)


@pytest.mark.torch
@pytest.mark.parametrize(("name", "options"), OPTIMISERS, ids=str)
def test_steps_are_torchs(name, options):
    torch = pytest.importorskip("torch")
    ours, theirs = nn.Parameter(START.copy()), torch.nn.Parameter(torch.tensor(START))
    run(getattr(optim, name)([ours], **options), ours, lamina.Tensor)
    run(getattr(torch.optim, name)([theirs], **options), theirs, torch.tensor)
    assert_allclose(ours.data, theirs.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize(("name", "options"), OPTIMISERS, ids=str)
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


def test_groups_and_zero_grad():
    a, b = nn.Parameter(START.copy()), nn.Parameter(START.copy())
    optimizer = optim.SGD([{"params": [a]}, {"params": b, "lr": 0.0}], lr=1.0)
    a.grad, b.grad = lamina.Tensor(gradient(1)), lamina.Tensor(gradient(1))
    optimizer.step()
    assert_array_equal(a.data, START - gradient(1))
    assert_array_equal(b.data, START)
    optimizer.zero_grad()
    assert a.grad is None


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
BAD = [
    (lambda: optim.Adagrad([PARAM], lr=-1), ValueError, "lr must not be negative"),
    (lambda: optim.Adagrad([PARAM], lr_decay=-1), ValueError, "lr_decay must not be negative"),
    (lambda: optim.Adadelta([PARAM], rho=1.5), ValueError, "rho must be from 0 to 1"),
    (lambda: optim.Adadelta([PARAM], eps=-1), ValueError, "eps must not be negative"),
    (lambda: optim.RMSprop([PARAM], momentum=-1), ValueError, "momentum must not be negative"),
    (lambda: optim.RMSprop([PARAM], alpha=float("nan")), ValueError, "alpha must not be negative"),
    (lambda: optim.RMSprop([]), ValueError, "params is empty"),
    (lambda: optim.RMSprop([START]), TypeError, "params must be Tensors"),
    (
        lambda: OPTIMIZER.load_state_dict({"state": {}, "param_groups": [{"params": [0, 1]}]}),
        ValueError,
        "groups of [1] parameters",
    ),
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
