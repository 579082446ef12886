"""Pixel and channel shuffles: reshapes around one permutation (csrc/ops/permute.h).

float32 or float64; ValueError for shapes that do not divide, TypeError for dtypes.
"""

from __future__ import annotations

import math
from typing import Any

from .. import _C, arrays
from ..autograd import Function
from ..known import Known
from ._arguments import check_rank, integer
from .conv import as_operand

__all__ = ["channel_shuffle", "native_channel_shuffle", "pixel_shuffle", "pixel_unshuffle"]


class Permute(Function):
    """x as `shape` with its axes in the order `axes`, as `result_shape`."""

    kernels_only = True
    gradients_are_new = True

    @staticmethod
    def forward(
        ctx: Any,
        x: Any,
        op: str,
        shape: tuple[int, ...],
        axes: tuple[int, ...],
        result_shape: tuple[int, ...],
    ) -> Any:
        ctx.op, ctx.x_shape, ctx.shape, ctx.axes = op, x.shape, shape, axes
        return _permute(op, x, shape, axes, result_shape)

    @staticmethod
    def backward(ctx: Any, grad_y: Any) -> Any:
        grad_y = arrays.asarray(ctx.op, "grad_y", grad_y)
        shape = tuple(ctx.shape[axis] for axis in ctx.axes)
        back = tuple(sorted(range(len(ctx.axes)), key=ctx.axes.__getitem__))
        grad = _permute(ctx.op, grad_y, shape, back, ctx.x_shape)
        return grad, None, None, None, None


_known = Known(1, Permute, layouts="copied")


def _shuffled(
    asked: tuple[Any, ...],
    x: Any,
    shape: tuple[int, ...],
    axes: tuple[int, ...],
    result: tuple[int, ...],
) -> Any:
    """asked: what `_known` was asked before, the name of the function behind the input."""
    record = (asked[1], shape, axes, result)
    y = Permute.apply(x, *record)
    return _known.remember(asked, y, _C.permute_call, (shape, axes), record)


def _permute(
    op: str, x: Any, shape: tuple[int, ...], axes: tuple[int, ...], result_shape: tuple[int, ...]
) -> Any:
    y = arrays.empty(op, result_shape, x.dtype, like=x)
    _C.permute(x, shape, axes, y)
    return y


def _pixels(op: str, input: Any) -> Any:
    x = as_operand(op, "input", input)
    check_rank(op, "input", x, range(3, 65), "[..., C, H, W]")
    return x


def pixel_shuffle(input: Any, upscale_factor: int) -> Any:
    """[..., C r^2, H, W] to [..., C, H r, W r]: channels become blocks (Shi et al. 2016)."""
    op = "pixel_shuffle"
    asked = (input, op, upscale_factor)
    if (y := _known.run(*asked)) is not None:
        return y
    x, r = _pixels(op, input), integer(op, "upscale_factor", upscale_factor, 1)
    *lead, c, h, w = x.shape
    if c % r**2:
        raise ValueError(
            f"{op}: the channels must be a multiple of upscale_factor^2 = {r**2}, "
            f"got input.shape={x.shape}"
        )
    outer = math.prod(lead) * (c // r**2)
    result = (*lead, c // r**2, h * r, w * r)
    return _shuffled(asked, x, (outer, r, r, h, w), (0, 3, 1, 4, 2), result)


def pixel_unshuffle(input: Any, downscale_factor: int) -> Any:
    """[..., C, H r, W r] to [..., C r^2, H, W]: the inverse of pixel_shuffle."""
    op = "pixel_unshuffle"
    asked = (input, op, downscale_factor)
    if (y := _known.run(*asked)) is not None:
        return y
    x, r = _pixels(op, input), integer(op, "downscale_factor", downscale_factor, 1)
    *lead, c, h, w = x.shape
    if h % r or w % r:
        raise ValueError(
            f"{op}: height and width must be multiples of downscale_factor={r}, "
            f"got input.shape={x.shape}"
        )
    outer = math.prod(lead) * c
    result = (*lead, c * r**2, h // r, w // r)
    return _shuffled(asked, x, (outer, h // r, r, w // r, r), (0, 2, 4, 1, 3), result)


def channel_shuffle(input: Any, groups: int) -> Any:
    """[N, C, ...] with channel k * groups + g from g * C / groups + k (Zhang et al. 2018)."""
    op = "channel_shuffle"
    asked = (input, op, groups)
    if (y := _known.run(*asked)) is not None:
        return y
    x, g = as_operand(op, "input", input), integer(op, "groups", groups, 1)
    check_rank(op, "input", x, range(3, 65), "[N, C, ...]")
    n, c = x.shape[:2]
    if c % g:
        raise ValueError(
            f"{op}: groups must divide the channels, got groups={g}, input.shape={x.shape}"
        )
    inner = math.prod(x.shape[2:])
    return _shuffled(asked, x, (n, g, c // g, inner), (0, 2, 1, 3), x.shape)


def native_channel_shuffle(input: Any, groups: int) -> Any:
    """`channel_shuffle`."""
    return channel_shuffle(input, groups)
