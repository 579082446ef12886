"""Maximum, average and L^p pooling over strided windows of one to three spatial axes.

Inputs are [N, C, spatial...] or [C, spatial...], float32 or float64. NaN wins every maximum; the
first of equal maxima is the one whose index is returned and whose gradient is not zero.
All functions raise ValueError for shapes and options that do not fit, TypeError for dtypes.
"""

from __future__ import annotations

import math
from typing import Any

from .. import _C, arrays
from ..autograd import Function
from ..known import Known
from ..operations import where
from ..tensor import array_of
from . import _windows
from ._arguments import check_rank, flag, integer, real, strides_of, tuple_of

__all__ = [
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "max_pool1d",
    "max_pool1d_with_indices",
    "max_pool2d",
    "max_pool2d_with_indices",
    "max_pool3d",
    "max_pool3d_with_indices",
]


def three_windows(windows: tuple[Any, ...]) -> tuple[Any, ...]:
    """Kernels always see three axes."""
    return (_windows.one(),) * (3 - len(windows)) + windows


class MaxPool(Function):
    """windows: one table per axis; out: the output's spatial shape.

    The indices are a second result where they are `asked` for, or the gradient needs them.
    """

    kernels_only = True
    gradients_are_new = True

    @staticmethod
    def forward(
        ctx: Any, x: Any, op: str, windows: tuple[Any, ...], out: tuple[int, ...], asked: bool
    ) -> Any:
        x = arrays.asarray(op, "input", x)
        lead = x.shape[: x.ndim - len(out)]
        ctx.op, ctx.windows, ctx.x_shape = op, three_windows(windows), x.shape
        ctx.planes = math.prod(lead)
        y = arrays.empty(op, lead + out, x.dtype, like=x)
        asked = asked or ctx.needs_input_grad[0]
        index = arrays.empty(op, y.shape, arrays.INT64, like=y) if asked else None
        _C.pool("max_pool", "fprop", ctx.planes, *(*ctx.windows, x, None, index, y))
        if index is None:
            return y
        ctx.save_for_backward(index)
        ctx.mark_non_differentiable(index)
        return y, index

    @staticmethod
    def backward(ctx: Any, grad_y: Any, _: Any) -> Any:
        (index,) = ctx.saved
        grad_y = arrays.asarray(ctx.op, "grad_y", grad_y)
        grad_x = arrays.empty(ctx.op, ctx.x_shape, grad_y.dtype, like=grad_y)
        _C.pool("max_pool", "dgrad", ctx.planes, *(*ctx.windows, None, grad_y, index, grad_x))
        return grad_x, None, None, None, None


def max_pool(
    x: Any, op: str, windows: tuple[Any, ...], out: tuple[int, ...], return_indices: bool
) -> tuple[Any, Any]:
    """Values, and indices (or None where nobody needs them)."""
    result = MaxPool.apply(x, op, windows, out, return_indices)
    return result if isinstance(result, tuple) else (result, None)


class AvgPool(Function):
    kernels_only = True
    gradients_are_new = True

    @staticmethod
    def forward(ctx: Any, x: Any, op: str, windows: tuple[Any, ...], out: tuple[int, ...]) -> Any:
        x = arrays.asarray(op, "input", x)
        lead = x.shape[: x.ndim - len(out)]
        ctx.op, ctx.windows, ctx.x_shape = op, windows, x.shape
        ctx.planes = math.prod(lead)
        y = arrays.empty(op, lead + out, x.dtype, like=x)
        _C.pool("avg_pool", "fprop", ctx.planes, *(*ctx.windows, x, None, None, y))
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Any) -> Any:
        grad_y = arrays.asarray(ctx.op, "grad_y", grad_y)
        grad_x = arrays.empty(ctx.op, ctx.x_shape, grad_y.dtype, like=grad_y)
        _C.pool("avg_pool", "dgrad", ctx.planes, *(*ctx.windows, None, grad_y, None, grad_x))
        return grad_x, None, None, None


def spatial_size(op: str, n: int, x: Any) -> tuple[int, ...]:
    arrays.check_float(op, "input", array_of(x))
    check_rank(op, "input", x, (n + 1, n + 2), "(a batch axis is optional)")
    return x.shape[-n:]


_known, _known_means = Known(1, MaxPool), Known(1, AvgPool)


def _max_pool(
    n: int,
    x: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    return_indices: bool,
) -> Any:
    asked = (x, n, kernel_size, stride, padding, dilation, ceil_mode)
    if not return_indices:
        y = _known.run(*asked)
        if y is not None:
            return y
    op = f"max_pool{n}d"
    ceil_mode = flag(op, "ceil_mode", ceil_mode)
    return_indices = flag(op, "return_indices", return_indices)
    size = spatial_size(op, n, x)
    kernel = tuple_of(op, "kernel_size", kernel_size, n, minimum=1)
    strides = strides_of(op, stride, kernel)
    pads = tuple_of(op, "padding", padding, n, minimum=0)
    dilations = tuple_of(op, "dilation", dilation, n, minimum=1)
    _check_half(op, kernel, pads, dilations)
    out = tuple(
        _windows.strided_size(op, *options, ceil_mode)
        for options in zip(size, kernel, strides, pads, dilations, strict=True)
    )
    windows = tuple(
        _windows.strided(*options, "inside")
        for options in zip(size, out, kernel, strides, pads, dilations, strict=True)
    )
    y, index = max_pool(x, op, windows, out, return_indices)
    rest = ("max_pool", math.prod(y.shape[:-n]), *three_windows(windows))
    _known.remember(asked, y, _C.pool_call, rest, (op, windows, out, False))
    return (y, index) if return_indices else y


def _check_half(op: str, kernel: Any, pads: Any, dilations: Any) -> None:
    """A window must reach the input: padding is at most half of what the kernel spans."""
    for taps, pad, dilation in zip(kernel, pads, dilations, strict=True):
        if pad > ((taps - 1) * dilation + 1) // 2:
            raise ValueError(
                f"{op}: padding must be at most half of the kernel, got padding={pads}, "
                f"kernel_size={kernel}"
            )


def _avg_pool(
    n: int,
    x: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
    op: str | None = None,
) -> Any:
    asked = (x, n, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, op)
    y = _known_means.run(*asked)
    if y is not None:
        return y
    op = op or f"avg_pool{n}d"
    ceil_mode = flag(op, "ceil_mode", ceil_mode)
    count_include_pad = flag(op, "count_include_pad", count_include_pad)
    size = spatial_size(op, n, x)
    kernel = tuple_of(op, "kernel_size", kernel_size, n, minimum=1)
    strides = strides_of(op, stride, kernel)
    pads = tuple_of(op, "padding", padding, n, minimum=0)
    ones = (1,) * n
    _check_half(op, kernel, pads, ones)
    out = tuple(
        _windows.strided_size(op, *options, ceil_mode)
        for options in zip(size, kernel, strides, pads, ones, strict=True)
    )
    divide_by: list[str | int] = ["padded" if count_include_pad else "inside"] * n
    if divisor_override is not None:
        divide_by = [integer(op, "divisor_override", divisor_override), *[1] * (n - 1)]
        if divide_by[0] == 0:
            raise ValueError(f"{op}: divisor_override must not be zero, got divisor_override=0")
    windows = tuple(
        _windows.strided(*options)
        for options in zip(size, out, kernel, strides, pads, ones, divide_by, strict=True)
    )
    y = AvgPool.apply(x, op, three_windows(windows), out)
    rest = ("avg_pool", math.prod(y.shape[:-n]), *three_windows(windows))
    return _known_means.remember(asked, y, _C.pool_call, rest, (op, three_windows(windows), out))


def _lp_pool(
    n: int, x: Any, norm_type: float, kernel_size: Any, stride: Any, ceil_mode: bool
) -> Any:
    """(sum of x^p)^(1/p), as torch: an average of powers, scaled back.

    The gradient of a window whose sum is 0 is 0, not infinite times 0.
    """
    op = f"lp_pool{n}d"
    p = real(op, "norm_type", norm_type)
    if p == 0:
        raise ValueError(f"{op}: norm_type must not be zero, got norm_type=0")
    kernel = tuple_of(op, "kernel_size", kernel_size, n, minimum=1)
    spatial_size(op, n, x)
    mean = _avg_pool(n, x**p, kernel, stride, 0, ceil_mode, True, None, op)
    return where(mean == 0, 0.0, mean * math.prod(kernel)) ** (1 / p)


def max_pool1d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Maximum over windows of [N, C, L]; return_indices adds int64 positions in the plane."""
    return _max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool1d_with_indices(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = True,
) -> Any:
    """`max_pool1d` with return_indices=True."""
    return _max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, True)


def avg_pool1d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Any:
    """Mean over windows of [N, C, L]."""
    return _avg_pool(
        1,
        input,
        kernel_size,
        stride,
        padding,
        ceil_mode,
        count_include_pad,
        None,
    )


def lp_pool1d(
    input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Any:
    """(sum of x^norm_type)^(1/norm_type) over windows of [N, C, L]."""
    return _lp_pool(1, input, norm_type, kernel_size, stride, ceil_mode)


def max_pool2d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Maximum over windows of [N, C, H, W]; return_indices adds int64 positions in the plane."""
    return _max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d_with_indices(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = True,
) -> Any:
    """`max_pool2d` with return_indices=True."""
    return _max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, True)


def avg_pool2d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """Mean over windows of [N, C, H, W]."""
    return _avg_pool(
        2,
        input,
        kernel_size,
        stride,
        padding,
        ceil_mode,
        count_include_pad,
        divisor_override,
    )


def lp_pool2d(
    input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Any:
    """(sum of x^norm_type)^(1/norm_type) over windows of [N, C, H, W]."""
    return _lp_pool(2, input, norm_type, kernel_size, stride, ceil_mode)


def max_pool3d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Maximum over windows of [N, C, D, H, W]; return_indices adds int64 positions in the plane."""
    return _max_pool(3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d_with_indices(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = True,
) -> Any:
    """`max_pool3d` with return_indices=True."""
    return _max_pool(3, input, kernel_size, stride, padding, dilation, ceil_mode, True)


def avg_pool3d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """Mean over windows of [N, C, D, H, W]."""
    return _avg_pool(
        3,
        input,
        kernel_size,
        stride,
        padding,
        ceil_mode,
        count_include_pad,
        divisor_override,
    )


def lp_pool3d(
    input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Any:
    """(sum of x^norm_type)^(1/norm_type) over windows of [N, C, D, H, W]."""
    return _lp_pool(3, input, norm_type, kernel_size, stride, ceil_mode)
