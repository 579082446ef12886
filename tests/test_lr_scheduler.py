"""Learning-rate schedules against torch, 60 steps: 60 products of float64, so within 1e-12."""

from __future__ import annotations

import lamina
import numpy as np
import pytest
from lamina import nn, optim
from lamina.optim import lr_scheduler
from numpy.testing import assert_allclose, assert_array_equal

START = np.random.default_rng(0).normal(size=(4, 3))

SCHEDULES = [
    ("LambdaLR", {"lr_lambda": [lambda epoch: 0.9**epoch, lambda epoch: 1 / (1 + epoch)]}),
    ("MultiplicativeLR", {"lr_lambda": lambda epoch: 1 - 0.01 * epoch}),
    ("StepLR", {"step_size": 1, "gamma": 0.9}),
    ("StepLR", {"step_size": 7}),
    ("MultiStepLR", {"milestones": [0, 3, 9, 9, 30], "gamma": 0.5}),
    ("ConstantLR", {"factor": 0.25, "total_iters": 6}),
    ("ConstantLR", {"total_iters": 1}),
    ("LinearLR", {"start_factor": 0.2, "end_factor": 0.9, "total_iters": 11}),
    ("LinearLR", {"start_factor": 1.0, "end_factor": 0.0, "total_iters": 8}),
    ("ExponentialLR", {"gamma": 0.93}),
    ("PolynomialLR", {"total_iters": 20, "power": 1.7}),
    ("PolynomialLR", {"total_iters": 1}),
    ("CosineAnnealingLR", {"T_max": 1}),
    ("CosineAnnealingLR", {"T_max": 8, "eta_min": 0.01}),
    ("CosineAnnealingWarmRestarts", {"T_0": 1}),
    ("CosineAnnealingWarmRestarts", {"T_0": 5, "T_mult": 2, "eta_min": 0.02}),
    ("CyclicLR", {"base_lr": 0.01, "max_lr": [0.3, 0.2], "step_size_up": 4, "step_size_down": 7}),
    ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.3, "step_size_up": 4, "mode": "triangular2"}),
    (
        "CyclicLR",
        {"base_lr": 0.01, "max_lr": 0.3, "step_size_up": 5, "scale_fn": lambda cycle: 0.8**cycle},
    ),
    ("OneCycleLR", {"max_lr": [0.5, 0.7], "total_steps": 60}),
    ("OneCycleLR", {"max_lr": 0.5, "epochs": 7, "steps_per_epoch": 9, "three_phase": True}),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": 70, "anneal_strategy": "linear"}),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": 70, "pct_start": 0.0}),
]
IDS = [f"{name}{index}" for index, (name, _) in enumerate(SCHEDULES)]
every_schedule = pytest.mark.parametrize(("name", "options"), SCHEDULES, ids=IDS)
LR = np.array([0.2, 0.05])


def make(kind="SGD"):
    options = {"momentum": 0.9} if kind == "SGD" else {}
    first, second = nn.Parameter(START.copy()), nn.Parameter(START.copy())
    groups = [{"params": [first]}, {"params": [second], "lr": LR[1]}]
    return getattr(optim, kind)(groups, lr=LR[0], **options)


def make_both(kind="SGD"):
    torch = pytest.importorskip("torch")
    options = {"momentum": 0.9} if kind == "SGD" else {}
    first, second = (torch.nn.Parameter(torch.tensor(START)) for _ in range(2))
    groups = [{"params": [first]}, {"params": [second], "lr": LR[1]}]
    return make(kind), getattr(torch.optim, kind)(groups, lr=LR[0], **options)


def rates(optimizer, scheduler, arguments=None, steps=60):
    """[steps + 1, groups, 2]: the rate and the momentum before and after every step."""
    trace = []
    for step in range(steps + 1):
        if step:
            optimizer.step()
            scheduler.step(*([] if arguments is None else [arguments[step - 1]]))
        groups = optimizer.param_groups
        momenta = [g["betas"][0] if "betas" in g else g["momentum"] for g in groups]
        trace.append([(g["lr"], momentum) for g, momentum in zip(groups, momenta, strict=True)])
    return np.array(trace)


# What the schedules say, epoch by epoch, without products of the steps before.
CLOSED = [
    (lr_scheduler.StepLR, (7,), lambda e: LR * 0.1 ** (e // 7)),
    (lr_scheduler.MultiStepLR, ([3, 9, 9], 0.5), lambda e: LR * 0.5 ** ((e >= 3) + 2 * (e >= 9))),
    (lr_scheduler.ConstantLR, (0.25, 6), lambda e: LR * (1 if e >= 6 else 0.25)),
    (lr_scheduler.LinearLR, (0.2, 0.9, 11), lambda e: LR * (0.2 + 0.7 * min(e, 11) / 11)),
    (lr_scheduler.ExponentialLR, (0.93,), lambda e: LR * 0.93**e),
    (lr_scheduler.PolynomialLR, (20, 1.7), lambda e: LR * (1 - min(e, 20) / 20) ** 1.7),
    (
        lr_scheduler.CosineAnnealingLR,
        (8, 0.01),
        lambda e: 0.01 + (LR - 0.01) * (1 + np.cos(np.pi * e / 8)) / 2,
    ),
    (
        lr_scheduler.CosineAnnealingWarmRestarts,
        (5, 1, 0.01),
        lambda e: 0.01 + (LR - 0.01) * (1 + np.cos(np.pi * (e % 5) / 5)) / 2,
    ),
    (
        lr_scheduler.CyclicLR,
        (0.01, 0.3, 4),
        lambda e: np.full(2, 0.01 + 0.29 * (1 - abs(e % 8 - 4) / 4)),
    ),
    (
        lr_scheduler.OneCycleLR,
        (0.5, 60, None, None, 0.3, "linear"),
        lambda e: np.full(
            2, np.interp(e, [0, 17, 59, 60], [0.02, 0.5, 2e-6, 2e-6 - 0.499998 / 42])
        ),
    ),
]


@pytest.mark.parametrize(
    ("schedule", "arguments", "rate"), CLOSED, ids=[schedule.__name__ for schedule, *_ in CLOSED]
)
def test_rates(schedule, arguments, rate):
    optimizer = make()
    trace = rates(optimizer, schedule(optimizer, *arguments))
    # Products carry the absolute rounding of the initial rate past rates of zero.
    expected = [rate(epoch) for epoch in range(61)]
    assert_allclose(trace[:, :, 0], expected, rtol=1e-12, atol=1e-15)


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@every_schedule
def test_rates_are_torchs(name, options, kind):
    ours, theirs = make_both(kind)
    from torch.optim import lr_scheduler as torchs

    one = getattr(lr_scheduler, name)(ours, **options)
    two = getattr(torchs, name)(theirs, **options)
    assert_allclose(rates(ours, one), rates(theirs, two), rtol=1e-12, atol=1e-15)
    assert_allclose(one.get_last_lr(), two.get_last_lr(), rtol=1e-12, atol=1e-15)
    assert one.last_epoch == two.last_epoch


@pytest.mark.torch
@pytest.mark.parametrize("name", lr_scheduler.__all__)
def test_arguments_are_torchs(name):
    pytest.importorskip("torch")
    from inspect import signature

    from torch.optim import lr_scheduler as torchs

    ours = signature(getattr(lr_scheduler, name)).parameters
    theirs = signature(getattr(torchs, name)).parameters
    assert [(p.name, p.default) for p in ours.values()] == [
        (p.name, p.default) for p in theirs.values()
    ]


@pytest.mark.torch
@pytest.mark.parametrize(
    "options",
    [
        {"patience": 2, "factor": 0.5},
        {"mode": "max", "patience": 1, "threshold": 0.1, "threshold_mode": "abs", "cooldown": 2},
        {"mode": "max", "patience": 3, "threshold": 0.2},
        {"threshold": 0.3, "threshold_mode": "abs", "patience": 1, "eps": 0.01},
        {"patience": 0, "min_lr": [0.01, 0.02]},
    ],
    ids=str,
)
def test_plateau_is_torchs(options):
    ours, theirs = make_both()
    from torch.optim import lr_scheduler as torchs

    metrics = np.abs(np.random.default_rng(3).normal(size=60)).tolist()
    one = lr_scheduler.ReduceLROnPlateau(ours, **options)
    two = torchs.ReduceLROnPlateau(theirs, **options)
    assert_allclose(rates(ours, one, metrics), rates(theirs, two, metrics), rtol=1e-12)


def test_plateau_takes_a_tensor_and_resumes():
    optimizer, other = make(), make()
    scheduler = PLATEAU(optimizer, patience=2)
    rates(optimizer, scheduler, [lamina.tensor(1.0)] * 5, 5)
    resumed = PLATEAU(other)
    other.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(scheduler.state_dict())
    ones = [1.0] * 9
    assert_array_equal(rates(optimizer, scheduler, ones, 9), rates(other, resumed, ones, 9))
    assert optimizer.param_groups[0]["lr"] < 1e-3


@pytest.mark.torch
@pytest.mark.parametrize("T_mult", [1, 2, 3])
def test_warm_restarts_at_fractions_of_an_epoch(T_mult):
    ours, theirs = make_both()
    from torch.optim import lr_scheduler as torchs

    epochs = [*np.arange(0.25, 20, 0.25), 40.0, 3.5, None, None, 7.0, None]
    one, two = COSINE(ours, 3, T_mult), torchs.CosineAnnealingWarmRestarts(theirs, 3, T_mult)
    steps = len(epochs)
    assert_allclose(
        rates(ours, one, epochs, steps), rates(theirs, two, epochs, steps), rtol=1e-11, atol=1e-15
    )


# Which of SCHEDULES are combined, and the milestones in a sequence.
COMBINED = [((5, 9, 13), (4, 20)), ((1, 7), (12,)), ((3, 14, 11), (3, 5)), ((16, 2, 0), (7, 9))]


def combine(module, optimizer, kind, indices, milestones):
    parts = [
        getattr(module, name)(optimizer, **options)
        for name, options in (SCHEDULES[index] for index in indices)
    ]
    if kind == "chained":
        return module.ChainedScheduler(parts)
    return module.SequentialLR(optimizer, parts, list(milestones))


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["chained", "sequential"])
@pytest.mark.parametrize(("indices", "milestones"), COMBINED, ids=str)
def test_combined_schedules_are_torchs(indices, milestones, kind):
    ours, theirs = make_both()
    from torch.optim import lr_scheduler as torchs

    one = combine(lr_scheduler, ours, kind, indices, milestones)
    two = combine(torchs, theirs, kind, indices, milestones)
    assert_allclose(rates(ours, one), rates(theirs, two), rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("chain_first", [True, False])
def test_a_chain_in_a_sequence(chain_first):
    optimizer = make()
    chain = lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(optimizer, 0.5, 2), EXPONENTIAL(optimizer, 0.9)]
    )
    parts, factors = [chain, EXPONENTIAL(optimizer, 0.1)], [0.5, 0.5 * 0.9, 0.9**2, 1, 0.1, 0.01]
    if not chain_first:
        parts, factors = parts[::-1], factors[3:] + factors[:3]
    factors.append(factors[-1] * (0.9 if not chain_first else 0.1))
    sequence = lr_scheduler.SequentialLR(optimizer, parts, [3])
    trace = rates(optimizer, sequence, steps=6)
    assert_allclose(trace[:, :, 0], np.outer(factors, LR), rtol=1e-12)


def resume(build):
    """20 steps more of a schedule, and of one that took over its state and its optimiser's."""
    optimizer = make()
    scheduler = build(optimizer)
    rates(optimizer, scheduler, steps=20)
    other = make()
    resumed = build(other)
    other.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(scheduler.state_dict())
    assert_array_equal(rates(optimizer, scheduler, steps=20), rates(other, resumed, steps=20))


@every_schedule
def test_state_comes_back(name, options):
    resume(lambda optimizer: getattr(lr_scheduler, name)(optimizer, **options))


@pytest.mark.parametrize("kind", ["chained", "sequential"])
@pytest.mark.parametrize(("indices", "milestones"), COMBINED, ids=str)
def test_combined_state_comes_back(indices, milestones, kind):
    resume(lambda optimizer: combine(lr_scheduler, optimizer, kind, indices, milestones))


@every_schedule
def test_last_epoch_resumes(name, options):
    optimizer = make()
    trace = rates(optimizer, getattr(lr_scheduler, name)(optimizer, **options), steps=30)
    optimizer = make()
    rates(optimizer, getattr(lr_scheduler, name)(optimizer, **options), steps=9)
    resumed = getattr(lr_scheduler, name)(optimizer, **options, last_epoch=8)
    assert_allclose(rates(optimizer, resumed, steps=21), trace[9:], rtol=1e-12, atol=1e-15)


def test_one_cycle_ends_after_total_steps():
    optimizer = make()
    scheduler = lr_scheduler.OneCycleLR(optimizer, 0.5, 10)
    rates(optimizer, scheduler, steps=10)
    with pytest.raises(ValueError, match="must not go beyond total_steps, got step 11"):
        scheduler.step()


PARAM = nn.Parameter(START.copy())
OPTIMIZER = optim.SGD([PARAM], lr=0.1)
COSINE, CYCLIC = lr_scheduler.CosineAnnealingWarmRestarts, lr_scheduler.CyclicLR
PLATEAU, EXPONENTIAL = lr_scheduler.ReduceLROnPlateau, lr_scheduler.ExponentialLR


BAD = [
    (lambda: lr_scheduler.StepLR(PARAM, 3), TypeError, "StepLR: optimizer must be an Optimizer"),
    (lambda: lr_scheduler.StepLR(OPTIMIZER, 0), ValueError, "step_size must be at least 1"),
    (lambda: lr_scheduler.StepLR(OPTIMIZER, 2.5), TypeError, "step_size must be an integer"),
    (lambda: lr_scheduler.StepLR(OPTIMIZER, 2, "x"), TypeError, "gamma must be a number"),
    (lambda: lr_scheduler.MultiStepLR(OPTIMIZER, 3), TypeError, "milestones must be a list"),
    (lambda: lr_scheduler.MultiStepLR(OPTIMIZER, [0.5]), TypeError, "milestones must be an int"),
    (lambda: lr_scheduler.CosineAnnealingLR(OPTIMIZER, 0), ValueError, "T_max must be at least 1"),
    (lambda: COSINE(OPTIMIZER, 0), ValueError, "T_0 must be at least 1"),
    (lambda: COSINE(OPTIMIZER, 3, 0.5), TypeError, "T_mult must be an integer"),
    (lambda: COSINE(OPTIMIZER, 3).step(-1), ValueError, "epoch must be finite and not negative"),
    (lambda: lr_scheduler.ConstantLR(OPTIMIZER, 2.0), ValueError, "factor must be from 0 to 1"),
    (lambda: lr_scheduler.ConstantLR(OPTIMIZER, 1, -1), ValueError, "total_iters must be at least"),
    (lambda: lr_scheduler.LinearLR(OPTIMIZER, 0.0), ValueError, "start_factor must be above 0"),
    (lambda: lr_scheduler.PolynomialLR(OPTIMIZER, 5, None), TypeError, "power must be a number"),
    (lambda: lr_scheduler.LambdaLR(OPTIMIZER, [abs, abs]), ValueError, "one value or 1, one a"),
    (lambda: lr_scheduler.LambdaLR(OPTIMIZER, 0.5), TypeError, "lr_lambda must be a function"),
    (lambda: CYCLIC(OPTIMIZER, 0.1, 1, mode="x"), ValueError, "CyclicLR: mode must be one of"),
    (lambda: CYCLIC(OPTIMIZER, 0.1, 1, 0), ValueError, "step_size_up must be at least 1"),
    (lambda: CYCLIC(OPTIMIZER, [0.1, 0.2], 1), ValueError, "CyclicLR: base_lr must be one value"),
    (lambda: CYCLIC(optim.Adagrad([PARAM]), 0.1, 1), ValueError, "cycle_momentum needs an optim"),
    (lambda: lr_scheduler.OneCycleLR(OPTIMIZER, 1.0), ValueError, "give total_steps"),
    (lambda: lr_scheduler.OneCycleLR(OPTIMIZER, 1.0, 5, pct_start=2), ValueError, "pct_start"),
    (lambda: lr_scheduler.OneCycleLR(OPTIMIZER, 1.0, 5, div_factor=0), ValueError, "div_factor"),
    (lambda: lr_scheduler.SequentialLR(OPTIMIZER, [], []), ValueError, "must not be empty"),
    (lambda: lr_scheduler.SequentialLR(OPTIMIZER, [3], []), TypeError, "got schedulers[0] of type"),
    (
        lambda: lr_scheduler.SequentialLR(OPTIMIZER, [EXPONENTIAL(OPTIMIZER, 0.9)] * 3, [5, 2]),
        ValueError,
        "3 schedulers need 2 milestones in order, got milestones=[5, 2]",
    ),
    (lambda: lr_scheduler.ChainedScheduler([]), ValueError, "schedulers must not be empty"),
    (lambda: lr_scheduler.ChainedScheduler([PLATEAU(OPTIMIZER)]), ValueError, "needs a metric in"),
    (
        lambda: lr_scheduler.ChainedScheduler([EXPONENTIAL(OPTIMIZER, 1)], optim.SGD([PARAM])),
        ValueError,
        "all schedulers must have one optimizer, got another in schedulers[0]",
    ),
    (lambda: PLATEAU(OPTIMIZER, factor=1), ValueError, "factor must be from 0 to below 1"),
    (lambda: PLATEAU(OPTIMIZER, "avg"), ValueError, "mode must be one of ('min', 'max')"),
    (lambda: PLATEAU(OPTIMIZER, patience=0.5), TypeError, "patience must be an integer"),
    (lambda: EXPONENTIAL(OPTIMIZER, 0.9, 5), KeyError, "must have 'initial_lr' to resume"),
    (
        lambda: EXPONENTIAL(OPTIMIZER, 0.9).load_state_dict({"last_epoch": 3}),
        ValueError,
        "ExponentialLR.load_state_dict: state_dict must have",
    ),
]


@pytest.mark.parametrize(("call", "error", "text"), BAD, ids=range(len(BAD)))
def test_bad_input(call, error, text):
    OPTIMIZER.param_groups[0].pop("initial_lr", None)
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)
