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
