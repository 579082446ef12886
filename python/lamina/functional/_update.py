"""One step of an optimiser on the arrays of a parameter, in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import _C, arrays


def optimizer_step(
    kind: str,
    param: Any,
    grad: Any,
    states: Sequence[Any],
    coefficients: Sequence[float],
    decay: float = 0.0,
    keep: float = 1.0,
) -> None:
    """Updates `param` and its `states`, arrays of one shape and dtype, by the rule `kind`.

    The rules and their coefficients: csrc/shared/optimizer_rules.h. The gradient is first increased
    by decay * param, the parameter first multiplied by keep.
    """
    if not param.size:
        return
    updated = [param, *states]
    if not param.flags.c_contiguous and param.flags.f_contiguous:
        updated, grad = [array.T for array in updated], grad.T
    grad = arrays.asarray(kind, "grad", grad.astype(param.dtype, copy=False))
    ready = [arrays.asarray(kind, "param", array) for array in updated]
    _C.optimizer_step(kind, ready[0], grad, ready[1:], list(coefficients), decay, keep)
    for array, result in zip(updated, ready, strict=True):
        if result is not array:  # a copy, because of the array's layout
            array[...] = result
