"""Activations and residuals that convolutions and linear maps apply while they store.

    y = f(sum + bias + residual)

f is one activation of functional/activation.py by name, or (name, parameters...).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from .. import _C, arrays
from . import activation as _activation
from ._arguments import one_of

Kind = tuple[str, float, float]  # as in csrc/ops/activation.h

IDENTITY: Kind = ("identity", 0.0, 0.0)
ACTIVATIONS = tuple(n for n in _activation.__all__ if n not in ("glu", "prelu", "rrelu"))


def activation_kind(op: str, activation: Any) -> Kind:
    """The kernels' kind of None, a name or (name, parameters...).

    Raises ValueError for an unknown name, and what the activation raises for its parameters.
    """
    if activation is None:
        return IDENTITY
    if isinstance(activation, tuple | list):
        return _kind(op, *activation)
    return _kind(op, activation)


@lru_cache(maxsize=256)
def _kind(op: str, name: Any = None, *parameters: Any) -> Kind:
    one_of(op, "activation", name, ACTIVATIONS)
    kind: Kind = getattr(_activation, name)(_activation.KIND_ONLY, *parameters)
    return kind


def check_residual(op: str, residual: Any, shape: tuple[int, ...]) -> None:
    """ValueError unless the residual has the shape of the result."""
    if residual is not None and residual.shape != shape:
        raise ValueError(
            f"{op}: residual must have the shape of the result, {shape}, "
            f"got residual.shape={residual.shape}"
        )


def _output_tells(kind: Kind) -> bool:
    """Whether f'(x) follows from f(x): nothing but the output is kept then."""
    name, a, b = kind
    return (
        name in ("identity", "relu", "sigmoid", "tanh", "hardtanh")
        or (name == "leaky_relu" and a >= 0)
        or (name == "threshold" and b <= a)
    )


def output_tells_kernel(kind: Kind) -> bool:
    """Whether the gradient of f, if there is an f, is one kernel on the output."""
    return _output_tells(kind) and kind[0] not in ("sigmoid", "tanh")


def forward(op: str, ctx: Any, kind: Kind, compute: Callable[[Kind], Any]) -> tuple[Any, Any]:
    """The result, and the array that `backward` needs (or None).

    compute(kind) runs the kernel with that activation. Where a gradient is wanted that the output
    does not tell, the kernel stores the argument of f, and f is a pass of its own.
    """
    if kind == IDENTITY or not any(ctx.needs_input_grad):
        return compute(kind), None
    if _output_tells(kind):
        y = compute(kind)
        return y, y
    argument = compute(IDENTITY)
    y = arrays.empty(op, argument.shape, argument.dtype, like=argument)
    _C.activation(*kind, argument, None, y)
    return y, argument


def backward(op: str, kind: Kind, kept: Any, grad_y: Any) -> Any:
    """The gradient of f's argument, contiguous."""
    grad_y = arrays.asarray(op, "grad_y", grad_y)
    name, a, _ = kind
    if name == "identity":
        return grad_y
    if name == "sigmoid":
        return grad_y * (a * kept * (1 - kept))
    if name == "tanh":
        return grad_y * (1 - kept * kept)
    grad = arrays.empty(op, kept.shape, kept.dtype, like=kept)
    _C.activation(*kind, kept, grad_y, grad)
    return grad
