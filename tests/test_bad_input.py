"""Every function of lamina.functional with a bad first array: an exception names the function.

The calls are the valid ones of `lamina parity`; the first array is replaced. Options and shapes
that do not fit have tables of their own beside each family's tests. Nothing is written.
"""

from __future__ import annotations

import lamina.functional as F
import numpy as np
import pytest
from lamina.bench.parity_cases import FUNCTIONS, Real

BAD = {
    "integers": lambda x: x.astype(np.int64),
    "booleans": lambda x: x > 0,
    "complex": lambda x: x.astype(np.complex64),
    "half": lambda x: x.astype(np.float16),
    "long double": lambda x: x.astype(np.longdouble),
    "objects": lambda x: x.astype(object),
    "strings": lambda x: x.astype(str),
    "times": lambda x: x.astype("datetime64[s]"),
    "records": lambda x: np.zeros(x.shape, [("a", np.float32), ("b", np.float32)]),
    "masked": lambda x: np.ma.masked_array(x, x > 0),
    "list": lambda x: x.tolist(),
    "number": lambda x: 1.0,
    "text": lambda x: "x",
    "none": lambda x: None,
    "set": lambda x: {1.0, 2.0},
}
# Functions whose first array holds indices, or whose integers and numbers are legal.
TAKES_INTEGERS = {"one_hot", "embedding", "embedding_bag"}
TAKES_ANYTHING_REAL = {"pad"}
IMAGE, TABLE = np.full((1, 2, 4, 4), 0.5), np.zeros((3, 2))
LOG_P = np.full((4, 2, 3), np.log(1 / 3))
ALIASES = {
    "upsample": "interpolate",
    "upsample_nearest": "interpolate",
    "upsample_bilinear": "interpolate",
    "native_channel_shuffle": "channel_shuffle",
}


def legal(name, kind):
    if name in TAKES_INTEGERS:
        return kind in ("integers",)
    if name in TAKES_ANYTHING_REAL:
        return kind in ("integers", "booleans")
    return False


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_first_array(name, kind):
    if legal(name, kind):
        return
    call = FUNCTIONS[name][0]
    args = [a.array(1) if isinstance(a, Real) else a for a in call.args]
    options = {k: v.array(2) if isinstance(v, Real) else v for k, v in call.options.items()}
    args[0] = BAD[kind](args[0].astype(float))
    with pytest.raises((TypeError, ValueError)) as caught:
        getattr(F, name)(*args, **options)
    operation, _, text = str(caught.value).partition(": ")
    assert operation == ALIASES.get(name, name.replace("_with_indices", ""))
    assert "got" in text


@pytest.mark.parametrize("name", FUNCTIONS)
def test_inputs_are_never_written(name):
    """Arrays are read-only during a valid call, and unchanged after it."""
    for call in FUNCTIONS[name]:
        values = [*call.args, *call.options.values()]
        plain = [v.array(i) if isinstance(v, Real) else v for i, v in enumerate(values)]
        kept = [v.copy() if isinstance(v, np.ndarray) else v for v in plain]
        running = ("batch_norm", "instance_norm")  # their statistics are updated in place
        for value in plain:
            if isinstance(value, np.ndarray) and name not in running:
                value.flags.writeable = False
        count = len(call.args)
        options = dict(zip(call.options, plain[count:], strict=True))
        getattr(F, name)(*plain[:count], **options)
        for index, (before, after) in enumerate(zip(kept, plain, strict=True)):
            if isinstance(after, np.ndarray) and not (name in running and index in (1, 2)):
                assert before.tobytes() == after.tobytes()


FLAGS = {
    "avg_pool2d": ({"kernel_size": 2}, ("ceil_mode", "count_include_pad")),
    "max_pool2d": ({"kernel_size": 2}, ("ceil_mode", "return_indices")),
    "lp_pool2d": ({"norm_type": 2, "kernel_size": 2}, ("ceil_mode",)),
    "adaptive_max_pool2d": ({"output_size": 2}, ("return_indices",)),
    "fractional_max_pool2d": ({"kernel_size": 2, "output_size": 2}, ("return_indices",)),
    "interpolate": (
        {"scale_factor": 2, "mode": "bilinear"},
        ("align_corners", "recompute_scale_factor", "antialias"),
    ),
    "batch_norm": ({"running_mean": None, "running_var": None}, ("training",)),
    "instance_norm": ({}, ("use_input_stats",)),
    "dropout": ({}, ("training",)),
    "rrelu": ({}, ("training",)),
    "kl_div": ({"target": IMAGE}, ("log_target",)),
    "poisson_nll_loss": ({"target": IMAGE}, ("log_input", "full")),
    "gaussian_nll_loss": ({"target": IMAGE, "var": 1.0}, ("full",)),
    "pairwise_distance": ({"x2": IMAGE}, ("keepdim",)),
    "triplet_margin_loss": ({"positive": IMAGE, "negative": IMAGE}, ("swap",)),
}


@pytest.mark.parametrize("value", ["False", 0, None, [], np.float64(1), (True,)], ids=repr)
@pytest.mark.parametrize("name", FLAGS)
def test_flags(name, value):
    """A word is true whatever it says, so only True and False are taken."""
    options, flags = FLAGS[name]
    for flag in flags:
        if value is None and flag in ("align_corners", "recompute_scale_factor"):
            continue
        with pytest.raises(TypeError) as caught:
            getattr(F, name)(IMAGE, **options, **{flag: value})
        expected = f"{name}: {flag} must be True or False, got {flag}={value!r}"
        assert str(caught.value) == expected


INDICES = np.zeros((2, 3), np.int64)
OTHERS = [
    (lambda: F.embedding(INDICES, TABLE, scale_grad_by_freq="no"), "scale_grad_by_freq must be"),
    (lambda: F.embedding(INDICES, TABLE, sparse=0), "sparse must be True or False, got sparse=0"),
    (lambda: F.embedding_bag(INDICES[0], TABLE, INDICES[0], include_last_offset=1), "got include"),
    (lambda: F.ctc_loss(LOG_P, INDICES + 1, [4, 4], [2, 2], zero_infinity=0), "zero_infinity=0"),
    (lambda: F.batch_norm(IMAGE, [0.0], None, training=True), "running_mean must be an array"),
    (lambda: F.instance_norm(IMAGE, 3, 3, use_input_stats=False), "instance_norm: running_mean"),
    (lambda: F.gaussian_nll_loss(IMAGE, IMAGE, [1.0]), "gaussian_nll_loss: var must be an array"),
    (lambda: F.cross_entropy(TABLE, TABLE, [1.0, 1.0]), "weight must be an array"),
    (lambda: F.interpolate(IMAGE, scale_factor=b"x"), "scale_factor must be a number"),
    (lambda: F.poisson_nll_loss(IMAGE, IMAGE, eps="a"), "eps must be a number, got eps='a'"),
    (lambda: F.max_pool2d(IMAGE, 2, np.float64(2)), "stride must be an integer, got stride="),
    (
        lambda: F.fractional_max_pool2d(IMAGE, 2, 2, _random_samples="x"),
        "_random_samples must be an array",
    ),
]


@pytest.mark.parametrize(("call", "text"), OTHERS, ids=range(len(OTHERS)))
def test_kinds_of_other_arguments(call, text):
    with pytest.raises(TypeError) as caught:
        call()
    assert text in str(caught.value) and "got" in str(caught.value)
