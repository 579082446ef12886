"""Max unpooling over one to three spatial axes: elements go back to where maxima were found.

Inputs are [N, C, spatial...] or [C, spatial...], float32 or float64. All functions raise ValueError
for shapes, options and indices that do not fit, TypeError for dtypes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import _C, arrays
from ..autograd import Function
from ._arguments import strides_of, tuple_of
from .pooling import spatial_size

__all__ = [
    "max_unpool1d",
    "max_unpool2d",
    "max_unpool3d",
]


class MaxUnpool(Function):
    kernels_only = True
    gradients_are_new = True

    @staticmethod
    def forward(ctx: Any, op: str, x: Any, indices: Any, out: tuple[int, ...]) -> Any:
        x = arrays.asarray(op, "input", x)
        indices = arrays.asindices(op, "indices", indices)
        if indices.shape != x.shape:
            raise ValueError(
                f"{op}: indices must have input's shape, got indices.shape={indices.shape}, "
                f"input.shape={x.shape}"
            )
        lead = x.shape[: x.ndim - len(out)]
        ctx.layout = (math.prod(lead), math.prod(x.shape[len(lead) :]), math.prod(out))
        y = arrays.empty(op, lead + out, x.dtype, like=x)
        flag = arrays.empty(op, (1,), np.int64, like=x)
        _C.max_unpool("fprop", *(*ctx.layout, x, indices, y, flag))
        if (bad := arrays.fault(flag)) >= 0:
            at = tuple(map(int, np.unravel_index(bad, x.shape)))
            raise ValueError(
                f"{op}: indices must be from 0 to {ctx.layout[2] - 1} (output plane {out}), "
                f"got {indices[at]} at position {at}"
            )
        ctx.op = op
        ctx.save_for_backward(indices)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Any) -> Any:
        (indices,) = ctx.saved
        grad_y = arrays.asarray(ctx.op, "grad_y", grad_y)
        grad_x = arrays.empty(ctx.op, indices.shape, grad_y.dtype, like=grad_y)
        flag = arrays.empty(ctx.op, (1,), np.int64, like=grad_y)
        _C.max_unpool("dgrad", *(*ctx.layout, grad_y, indices, grad_x, flag))
        return None, grad_x, None, None


def _max_unpool(
    n: int, x: Any, indices: Any, kernel_size: Any, stride: Any, padding: Any, output_size: Any
) -> Any:
    op = f"max_unpool{n}d"
    size = spatial_size(op, n, x)
    kernel = tuple_of(op, "kernel_size", kernel_size, n, minimum=1)
    strides = strides_of(op, stride, kernel)
    pads = tuple_of(op, "padding", padding, n, minimum=0)
    default = tuple(
        (extent - 1) * s + k - 2 * p
        for extent, s, k, p in zip(size, strides, kernel, pads, strict=True)
    )
    if output_size is None:
        out = default
        if min(out) < 1:
            raise ValueError(f"{op}: the output would have size {out}; use less padding")
    else:
        given = tuple(output_size)
        out = tuple_of(op, "output_size", given[-n:] if len(given) == x.ndim else given, n, 1)
        for o, d, s in zip(out, default, strides, strict=True):
            if not d - s < o < d + s:
                raise ValueError(
                    f"{op}: output_size must be within stride of {default}, got output_size={out}"
                )
    return MaxUnpool.apply(op, x, indices, out)


def max_unpool1d(
    input: Any,
    indices: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    output_size: Any = None,
) -> Any:
    """Puts each element of [N, C, L] at its index in a plane of zeros.

    Indices are checked before anything is written: ValueError for one outside the output plane.
    """
    return _max_unpool(1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    input: Any,
    indices: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    output_size: Any = None,
) -> Any:
    """Puts each element of [N, C, H, W] at its index in a plane of zeros.

    Indices are checked before anything is written: ValueError for one outside the output plane.
    """
    return _max_unpool(2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    input: Any,
    indices: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    output_size: Any = None,
) -> Any:
    """Puts each element of [N, C, D, H, W] at its index in a plane of zeros.

    Indices are checked before anything is written: ValueError for one outside the output plane.
    """
    return _max_unpool(3, input, indices, kernel_size, stride, padding, output_size)
