"""Tensors joined along a dimension, an old one or a new one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .. import _C
from ..arrays import module_of
from ..autograd import Context, Function
from ..known import Known
from ._common import MOVED, as_array, common_dtype, is_known_array, one_dim
from .shape import unsqueeze


class Cat(Function):
    kernels_only = True

    @staticmethod
    def forward(ctx: Context, *operands: Any) -> Any:
        *arrays, dim = operands
        dtype = common_dtype("cat", {f"tensors[{i}]": x for i, x in enumerate(arrays)})
        ctx.dim, ctx.sizes = dim, [x.shape[dim] for x in arrays]
        return module_of(arrays[0]).concatenate([x.astype(dtype, copy=False) for x in arrays], dim)

    @staticmethod
    def backward(ctx: Context, grad_y: Any) -> Any:
        grads, start = [], 0
        for size in ctx.sizes:
            grads.append(grad_y[(slice(None),) * ctx.dim + (slice(start, start + size),)])
            start += size
        return *grads, None


_MOST_KNOWN = 6  # operands of a call
_known_cats = [Known(max(count, 1), Cat, layouts="copied") for count in range(_MOST_KNOWN + 1)]
_known_stacks = [Known(max(count, 1), Cat, layouts="copied") for count in range(_MOST_KNOWN + 1)]


def _join(known: list[Known], tensors: Any, dim: int, run: Callable[[Any, int], Any]) -> Any:
    """A known call, or run(tensors, dim), to be known from now on."""
    few = type(tensors) in (list, tuple) and 0 < len(tensors) <= _MOST_KNOWN
    if not few:
        return run(tensors, dim)
    y = known[len(tensors)].run(*tensors, dim)
    if y is not None:
        return y
    y = run(tensors, dim)
    if all(is_known_array(x, (y.dtype,)) for x in tensors) and y.dtype in MOVED:
        axis = one_dim("cat", dim, y.ndim)
        parts = [math.prod(x.shape[axis:]) for x in tensors]
        rest = (parts, y.dtype.itemsize)
        known[len(tensors)].remember((*tensors, dim), y, _C.join_call, rest, ())
    return y


def cat(tensors: Any, dim: int = 0) -> Any:
    """Tensors joined along `dim`, where alone their sizes may differ.

    Raises TypeError for what is no sequence of tensors, ValueError for their shapes.
    """
    return _join(_known_cats, tensors, dim, _cat)


def _cat(tensors: Any, dim: int) -> Any:
    tensors = _several("cat", tensors)
    axis = one_dim("cat", dim, tensors[0].ndim)
    first = tensors[0].shape
    if not first:
        raise ValueError("cat: tensors must have a dimension, got tensors[0].shape=(); use stack")
    for index, x in enumerate(tensors):
        if x.ndim != len(first) or any(
            size != first[d] for d, size in enumerate(x.shape) if d != axis
        ):
            raise ValueError(
                f"cat: tensors must agree in every dimension but dim, got tensors[0].shape={first},"
                f" tensors[{index}].shape={x.shape}, dim={dim}"
            )
    return Cat.apply(*tensors, axis)


def stack(tensors: Any, dim: int = 0) -> Any:
    """Tensors of one shape joined along a new dimension `dim`. Raises as `cat`."""
    return _join(_known_stacks, tensors, dim, _stack)


def _stack(tensors: Any, dim: int) -> Any:
    tensors = _several("stack", tensors)
    for index, x in enumerate(tensors):
        if x.shape != tensors[0].shape:
            raise ValueError(
                f"stack: tensors must have one shape, got tensors[0].shape={tensors[0].shape}, "
                f"tensors[{index}].shape={x.shape}"
            )
    axis = one_dim("stack", dim, tensors[0].ndim + 1)
    return Cat.apply(*[unsqueeze(x, axis) for x in tensors], axis)


def _several(op: str, tensors: Any) -> list[Any]:
    if not isinstance(tensors, (tuple, list)):
        raise TypeError(
            f"{op}: tensors must be a list or tuple of tensors, got {type(tensors).__name__}"
        )
    if not tensors:
        raise ValueError(f"{op}: tensors must not be empty, got tensors=[]")
    for index, x in enumerate(tensors):
        if not hasattr(x, "shape"):
            raise TypeError(
                f"{op}: tensors[{index}] must be a Tensor or an array, got {type(x).__name__}"
            )
        if not hasattr(x, "requires_grad"):
            as_array(op, x)
    return list(tensors)
