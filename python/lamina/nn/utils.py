"""Gradients and parameters of a whole network at once."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..functional._arguments import real
from ..tensor import Tensor

__all__ = [
    "clip_grad_norm_",
    "clip_grad_value_",
    "get_total_norm",
    "parameters_to_vector",
    "vector_to_parameters",
]


def _gradients(parameters: Any) -> list[Any]:
    """The gradients' arrays of a Tensor or of several."""
    several = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    return [p.grad.data for p in several if p.grad is not None]


def _norm(arrays: list[Any], norm_type: float) -> float:
    """The norm of all elements together, summed in float64."""
    if not arrays:
        return 0.0
    if math.isinf(norm_type):
        return max(float(np.abs(a).max(initial=0)) for a in arrays)
    powers = [float((np.abs(a).astype(np.float64) ** norm_type).sum()) for a in arrays]
    return sum(powers) ** (1 / norm_type)


def _norm_type(op: str, norm_type: Any) -> float:
    value = real(op, "norm_type", norm_type)
    if not value > 0:
        raise ValueError(f"{op}: norm_type must be above 0, got norm_type={value}")
    return value


def get_total_norm(
    tensors: Iterable[Any], norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """The norm of all elements of the Tensors together."""
    op = "get_total_norm"
    total = _norm([t.data for t in tensors], _norm_type(op, norm_type))
    if error_if_nonfinite and not math.isfinite(total):
        raise RuntimeError(f"{op}: the norm is {total}")
    return Tensor(np.asarray(total, np.float32))


def clip_grad_norm_(
    parameters: Any, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """Scales all gradients together so that their norm is at most max_norm.

    Returns the norm before (Pascanu et al. 2013). Raises RuntimeError for a norm that is not
    finite if asked to.
    """
    op = "clip_grad_norm_"
    limit = real(op, "max_norm", max_norm)
    if limit < 0:
        raise ValueError(f"{op}: max_norm must not be negative, got max_norm={limit}")
    gradients = _gradients(parameters)
    total = _norm(gradients, _norm_type(op, norm_type))
    if error_if_nonfinite and not math.isfinite(total):
        raise RuntimeError(f"{op}: the norm of the gradients is {total}")
    factor = min(limit / (total + 1e-6), 1.0) if not math.isnan(total) else math.nan
    for gradient in gradients:
        gradient *= gradient.dtype.type(factor)
    return Tensor(np.asarray(total, gradients[0].dtype if gradients else np.float32))


def clip_grad_value_(parameters: Any, clip_value: float) -> None:
    """Clips every element of the gradients to [-clip_value, clip_value]."""
    limit = real("clip_grad_value_", "clip_value", clip_value)
    if limit < 0:
        raise ValueError(f"clip_grad_value_: clip_value must not be negative, got {limit}")
    for gradient in _gradients(parameters):
        np.clip(gradient, -limit, limit, out=gradient)


def parameters_to_vector(parameters: Iterable[Any]) -> Tensor:
    """All elements one after the other; gradients reach the parameters."""
    from .. import cat

    return cat([p.reshape(-1) for p in parameters])


def vector_to_parameters(vec: Any, parameters: Iterable[Any]) -> None:
    """Copies what `parameters_to_vector` gave back into the parameters."""
    array = vec.data if isinstance(vec, Tensor) else np.asarray(vec)
    several = list(parameters)
    total = sum(p.data.size for p in several)
    if array.shape != (total,):
        raise ValueError(
            f"vector_to_parameters: vec must have {total} elements, got vec.shape={array.shape}"
        )
    begin = 0
    for p in several:
        p.data[...] = array[begin : begin + p.data.size].reshape(p.data.shape)
        begin += p.data.size
