"""Steps of an optimiser on the arrays of parameters, in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import _C, arrays

# rule, parameter, gradient, states, coefficients, decay, keep: the arguments of `optimizer_step`
Update = tuple[str, Any, Any, Sequence[Any], Sequence[float], float, float]


def optimizer_steps(updates: list[Update]) -> None:
    """All updates, in order; arrays that kernels read as they are in one call."""
    for index in _C.optimizer_steps(updates):
        optimizer_step(*updates[index])


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
    if grad.dtype != param.dtype:
        grad = grad.astype(param.dtype)
    ready = [_as_kernels_read(array) for array in updated]
    grad = _as_kernels_read(grad)
    _C.optimizer_step(kind, ready[0], grad, ready[1:], list(coefficients), decay, keep)
    for array, result in zip(updated, ready, strict=True):
        if result is not array:  # a copy, because of the array's layout
            array[...] = result


def _as_kernels_read(array: Any) -> Any:
    """The array itself, or a copy of it if kernels do not read its layout."""
    flags = array.flags
    if flags.c_contiguous and (arrays.is_cuda(array) or (flags.aligned and array.dtype.isnative)):
        return array
    return arrays.asarray("optimizer_step", "array", array)
