"""Gradients and parameters of a whole network at once, and networks fused for inference."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..autograd import no_grad
from ..functional._arguments import real
from ..operations import cat
from ..tensor import Tensor
from .fusion import (
    fuse,
    fuse_conv_bn_eval,
    fuse_conv_bn_weights,
    fuse_linear_bn_eval,
    fuse_linear_bn_weights,
)

__all__ = [
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "fuse",
    "fuse_conv_bn_eval",
    "fuse_conv_bn_weights",
    "fuse_linear_bn_eval",
    "fuse_linear_bn_weights",
    "get_total_norm",
    "parameters_to_vector",
    "vector_to_parameters",
]


def _tensors(op: str, name: str, tensors: Any) -> list[Tensor]:
    """One Tensor or several as a list. TypeError for anything else."""
    several = [tensors] if isinstance(tensors, Tensor) else tensors
    several = list(several) if isinstance(several, Iterable) else [several]
    for tensor in several:
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"{op}: {name} must be Tensors, got {type(tensor).__name__}; "
                "use module.parameters()"
            )
    return several


def _gradients(op: str, parameters: Any) -> list[Tensor]:
    return [p.grad for p in _tensors(op, "parameters", parameters) if p.grad is not None]


def _at_least_zero(op: str, name: str, value: Any) -> float:
    number = real(op, name, value)
    if not number >= 0:
        raise ValueError(f"{op}: {name} must not be negative, got {name}={number}")
    return number


def _norm(op: str, tensors: list[Tensor], norm_type: Any, error_if_nonfinite: bool) -> Tensor:
    """The norm of all elements together, summed in float64 and scaled against overflow."""
    order = real(op, "norm_type", norm_type)
    if not order > 0:
        raise ValueError(f"{op}: norm_type must be above 0, got norm_type={order}")
    magnitudes = [np.abs(t.data) for t in tensors if t.numel()]
    # numpy's max, unlike Python's, returns a NaN from any place.
    total = float(np.max([float(m.max()) for m in magnitudes])) if magnitudes else 0.0
    if 0 < total < math.inf and order != math.inf:
        powers = [float(((m.astype(np.float64) / total) ** order).sum()) for m in magnitudes]
        total *= sum(powers) ** (1 / order)
    if error_if_nonfinite and not math.isfinite(total):
        raise RuntimeError(
            f"{op}: the norm of the gradients must be finite, got {total}; use "
            "error_if_nonfinite=False to go on"
        )
    return Tensor(np.asarray(total, tensors[0].dtype if tensors else np.float32))


def get_total_norm(
    tensors: Any, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """The norm of all elements of the Tensors together, in the dtype of the first.

    Raises RuntimeError for a norm that is not finite if asked to.
    """
    op = "get_total_norm"
    return _norm(op, _tensors(op, "tensors", tensors), norm_type, error_if_nonfinite)


def clip_grads_with_norm_(parameters: Any, max_norm: float, total_norm: Any) -> None:
    """Scales all gradients together, whose norm is total_norm, so that it is at most max_norm."""
    op = "clip_grads_with_norm_"
    limit, total = _at_least_zero(op, "max_norm", max_norm), float(total_norm)
    # The small term keeps zero gradients zero; NaN is in every gradient afterwards.
    factor = limit / (total + 1e-6)
    factor = 1.0 if factor > 1 else factor
    for gradient in _gradients(op, parameters):
        with no_grad():
            array = gradient._writable(op)
        with np.errstate(invalid="ignore"):  # an infinite norm times 0 is NaN, as in torch
            array *= array.dtype.type(factor)


def clip_grad_norm_(
    parameters: Any, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """Scales all gradients together so that their norm is at most max_norm.

    Returns the norm before (Pascanu et al. 2013). Raises RuntimeError, before anything changes,
    for a norm that is not finite if asked to.
    """
    op = "clip_grad_norm_"
    _at_least_zero(op, "max_norm", max_norm)
    several = _tensors(op, "parameters", parameters)  # read twice, and may be a generator
    total = _norm(op, _gradients(op, several), norm_type, error_if_nonfinite)
    clip_grads_with_norm_(several, max_norm, total)
    return total


def clip_grad_value_(parameters: Any, clip_value: float) -> None:
    """Clips every element of the gradients to [-clip_value, clip_value]."""
    op = "clip_grad_value_"
    limit = _at_least_zero(op, "clip_value", clip_value)
    for gradient in _gradients(op, parameters):
        with no_grad():
            array = gradient._writable(op)
        np.clip(array, -limit, limit, out=array)


def parameters_to_vector(parameters: Iterable[Any]) -> Tensor:
    """All elements one after the other; gradients reach the parameters."""
    op = "parameters_to_vector"
    several = _tensors(op, "parameters", parameters)
    if not several:
        raise ValueError(f"{op}: parameters must not be empty, got parameters=[]")
    return cat([p.reshape(-1) for p in several])


def vector_to_parameters(vec: Any, parameters: Iterable[Any]) -> None:
    """Copies what `parameters_to_vector` gave back into the parameters."""
    op = "vector_to_parameters"
    if not isinstance(vec, Tensor):
        raise TypeError(f"{op}: vec must be a Tensor, got {type(vec).__name__}")
    several = _tensors(op, "parameters", parameters)
    total = sum(p.numel() for p in several)
    if vec.shape != (total,):
        raise ValueError(f"{op}: vec must have {total} elements, got vec.shape={vec.shape}")
    begin = 0
    with no_grad():
        for p in several:
            p.copy_(vec.data[begin : begin + p.numel()].reshape(p.shape))
            begin += p.numel()
