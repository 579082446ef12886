"""The unrolled input of a convolution as a matrix (im2col), and back (col2im).

Two spatial axes; a number or two of them for every option. float32 or float64; ValueError for
shapes and options that do not fit, TypeError for dtypes.
"""

from __future__ import annotations

import math
from typing import Any

from .. import _C, arrays
from ..autograd import Function
from ._arguments import check_rank, tuple_of
from .conv import Geometry, as_operand, conv_shape, output_size

__all__ = ["fold", "unfold"]


class Im2col(Function):
    """pass_ "fprop": planes to columns; "dgrad": columns added up to planes. Each undoes the other
    as a gradient."""

    kernels_only = True
    gradients_are_new = True

    @staticmethod
    def forward(
        ctx: Any, op: str, pass_: str, x: Any, shape: Any, result_shape: tuple[int, ...]
    ) -> Any:
        ctx.op, ctx.pass_, ctx.shape, ctx.x_shape = op, pass_, shape, x.shape
        y = arrays.empty(op, result_shape, x.dtype, like=x)
        _C.im2col(pass_, shape, x, y)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Any) -> Any:
        grad_y = arrays.asarray(ctx.op, "grad_y", grad_y)
        grad_x = arrays.empty(ctx.op, ctx.x_shape, grad_y.dtype, like=grad_y)
        _C.im2col("dgrad" if ctx.pass_ == "fprop" else "fprop", ctx.shape, grad_y, grad_x)
        return None, None, grad_x, None, None


def _geometry(
    op: str, kernel_size: Any, dilation: Any, padding: Any, stride: Any
) -> tuple[Geometry, tuple[int, ...]]:
    kernel = tuple_of(op, "kernel_size", kernel_size, 2, minimum=1)
    pads = tuple((p, p) for p in tuple_of(op, "padding", padding, 2, minimum=0))
    strides = tuple_of(op, "stride", stride, 2, minimum=1)
    dilations = tuple_of(op, "dilation", dilation, 2, minimum=1)
    return Geometry(op, strides, pads, dilations, 1, "auto", -1), kernel


def unfold(
    input: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Any:
    """Windows of [N, C, H, W] or [C, H, W] as columns: [N, C * R * S, positions]."""
    op = "unfold"
    x = as_operand(op, "input", input)
    check_rank(op, "input", x, (3, 4), "(a batch axis is optional)")
    geometry, kernel = _geometry(op, kernel_size, dilation, padding, stride)
    batched = (1, *x.shape) if x.ndim == 3 else x.shape
    out = output_size(geometry, batched[2:], kernel)
    shape = conv_shape(geometry, batched, (1, batched[1], *kernel))
    result = (batched[1] * math.prod(kernel), math.prod(out))
    return Im2col.apply(op, "fprop", x, shape, result if x.ndim == 3 else (x.shape[0], *result))


def fold(
    input: Any,
    output_size: Any,
    kernel_size: Any,
    dilation: Any = 1,
    padding: Any = 0,
    stride: Any = 1,
) -> Any:
    """Columns [N, C * R * S, positions] or [C * R * S, positions] added up to [N, C, *output_size].

    The transpose of `unfold`: where windows overlap, their columns add.
    """
    op = "fold"
    x = as_operand(op, "input", input)
    check_rank(op, "input", x, (2, 3), "(a batch axis is optional)")
    geometry, kernel = _geometry(op, kernel_size, dilation, padding, stride)
    size = tuple_of(op, "output_size", output_size, 2, minimum=1)
    rows, positions = x.shape[-2:]
    taps = math.prod(kernel)
    if rows % taps or rows == 0:
        raise ValueError(
            f"{op}: the rows of input must be a multiple of the kernel's {taps} taps, "
            f"got input.shape={x.shape}, kernel_size={kernel}"
        )
    batch = 1 if x.ndim == 2 else x.shape[0]
    x_shape = (batch, rows // taps, *size)
    out = _positions(geometry, size, kernel)
    if positions != math.prod(out):
        raise ValueError(
            f"{op}: input must have {out[0]} * {out[1]} columns for output_size={size}, "
            f"got input.shape={x.shape}"
        )
    shape = conv_shape(geometry, x_shape, (1, rows // taps, *kernel))
    return Im2col.apply(op, "dgrad", x, shape, x_shape if x.ndim == 3 else x_shape[1:])


_positions = output_size  # `fold` has an argument of that name
