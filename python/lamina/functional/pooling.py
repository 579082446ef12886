"""Pooling over one to three spatial axes, and unpooling.

Inputs are [N, C, spatial...] or [C, spatial...], float32 or float64. NaN wins every maximum; the
first of equal maxima is the one whose index is returned and whose gradient is not zero.
All functions raise ValueError for shapes and options that do not fit, TypeError for dtypes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import _C, arrays
from ..autograd import Function
from ..tensor import array_of
from . import _windows
from ._arguments import check_rank, integer, real, tuple_of

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool1d_with_indices",
    "adaptive_max_pool2d",
    "adaptive_max_pool2d_with_indices",
    "adaptive_max_pool3d",
    "adaptive_max_pool3d_with_indices",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "fractional_max_pool2d",
    "fractional_max_pool2d_with_indices",
    "fractional_max_pool3d",
    "fractional_max_pool3d_with_indices",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "max_pool1d",
    "max_pool1d_with_indices",
    "max_pool2d",
    "max_pool2d_with_indices",
    "max_pool3d",
    "max_pool3d_with_indices",
    "max_unpool1d",
    "max_unpool2d",
    "max_unpool3d",
]


def _three(windows: tuple[Any, ...]) -> tuple[Any, ...]:
    """Kernels always see three axes."""
    return (_windows.one(),) * (3 - len(windows)) + windows


class MaxPool(Function):
    """windows: one table per axis; out: the output's spatial shape."""

    @staticmethod
    def forward(ctx: Any, op: str, x: Any, windows: tuple[Any, ...], out: tuple[int, ...]) -> Any:
        x = arrays.asarray(op, "input", x)
        lead = x.shape[: x.ndim - len(out)]
        ctx.op, ctx.windows, ctx.x_shape = op, _three(windows), x.shape
        ctx.planes = math.prod(lead)
        y = arrays.empty(op, lead + out, x.dtype)
        index = np.empty(y.shape, np.int64)
        _C.pool("max_pool", "fprop", ctx.planes, *ctx.windows, x, None, index, y)
        ctx.save_for_backward(index)
        ctx.mark_non_differentiable(index)
        return y, index

    @staticmethod
    def backward(ctx: Any, grad_y: Any, _: Any) -> Any:
        (index,) = ctx.saved
        grad_y = arrays.asarray(ctx.op, "grad_y", grad_y)
        grad_x = np.empty(ctx.x_shape, grad_y.dtype)
        _C.pool("max_pool", "dgrad", ctx.planes, *ctx.windows, None, grad_y, index, grad_x)
        return None, grad_x, None, None


class AvgPool(Function):
    @staticmethod
    def forward(ctx: Any, op: str, x: Any, windows: tuple[Any, ...], out: tuple[int, ...]) -> Any:
        x = arrays.asarray(op, "input", x)
        lead = x.shape[: x.ndim - len(out)]
        ctx.op, ctx.windows, ctx.x_shape = op, windows, x.shape
        ctx.planes = math.prod(lead)
        y = arrays.empty(op, lead + out, x.dtype)
        _C.pool("avg_pool", "fprop", ctx.planes, *ctx.windows, x, None, None, y)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Any) -> Any:
        grad_y = arrays.asarray(ctx.op, "grad_y", grad_y)
        grad_x = np.empty(ctx.x_shape, grad_y.dtype)
        _C.pool("avg_pool", "dgrad", ctx.planes, *ctx.windows, None, grad_y, None, grad_x)
        return None, grad_x, None, None


def _spatial(op: str, n: int, x: Any) -> tuple[int, ...]:
    arrays.check_float(op, "input", array_of(x))
    check_rank(op, "input", x, (n + 1, n + 2), "(a batch axis is optional)")
    return x.shape[-n:]


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
    op = f"max_pool{n}d"
    size = _spatial(op, n, x)
    kernel = tuple_of(op, "kernel_size", kernel_size, n, minimum=1)
    strides = kernel if stride in (None, ()) else tuple_of(op, "stride", stride, n, minimum=1)
    pads = tuple_of(op, "padding", padding, n, minimum=0)
    dilations = tuple_of(op, "dilation", dilation, n, minimum=1)
    _check_half(op, kernel, pads, dilations)
    out = tuple(
        _windows.strided_size(op, *options, bool(ceil_mode))
        for options in zip(size, kernel, strides, pads, dilations, strict=True)
    )
    windows = tuple(
        _windows.strided(*options, "inside")
        for options in zip(size, out, kernel, strides, pads, dilations, strict=True)
    )
    y, index = MaxPool.apply(op, x, windows, out)
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
    op = op or f"avg_pool{n}d"
    size = _spatial(op, n, x)
    kernel = tuple_of(op, "kernel_size", kernel_size, n, minimum=1)
    strides = kernel if stride in (None, ()) else tuple_of(op, "stride", stride, n, minimum=1)
    pads = tuple_of(op, "padding", padding, n, minimum=0)
    ones = (1,) * n
    _check_half(op, kernel, pads, ones)
    out = tuple(
        _windows.strided_size(op, *options, bool(ceil_mode))
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
    return AvgPool.apply(op, x, _three(windows), out)


def _lp_pool(
    n: int, x: Any, norm_type: float, kernel_size: Any, stride: Any, ceil_mode: bool
) -> Any:
    """(sum of x^p)^(1/p), as torch: an average of powers, scaled back."""
    op = f"lp_pool{n}d"
    p = real(op, "norm_type", norm_type)
    if p == 0:
        raise ValueError(f"{op}: norm_type must not be zero, got norm_type=0")
    kernel = tuple_of(op, "kernel_size", kernel_size, n, minimum=1)
    _spatial(op, n, x)
    mean = _avg_pool(n, x**p, kernel, stride, 0, ceil_mode, True, None, op)
    return (mean * math.prod(kernel)) ** (1 / p)


def _adaptive_sizes(op: str, n: int, x: Any, output_size: Any) -> tuple[Any, tuple[int, ...]]:
    size = _spatial(op, n, x)
    if isinstance(output_size, tuple | list):
        if len(output_size) not in (1, n):
            raise ValueError(
                f"{op}: output_size must be an integer or {n} of them, got {output_size}"
            )
        wanted = tuple(output_size) * (n if len(output_size) == 1 else 1)
    else:
        wanted = (output_size,) * n
    out = tuple(
        extent if o is None else integer(op, "output_size", o, minimum=1)
        for extent, o in zip(size, wanted, strict=True)
    )
    if min(size) < 1:
        raise ValueError(f"{op}: the input is empty along a spatial axis, got shape={x.shape}")
    return tuple(map(_windows.adaptive, size, out)), out


def _adaptive_avg(n: int, x: Any, output_size: Any) -> Any:
    op = f"adaptive_avg_pool{n}d"
    windows, out = _adaptive_sizes(op, n, x, output_size)
    return AvgPool.apply(op, x, _three(windows), out)


def _adaptive_max(n: int, x: Any, output_size: Any, return_indices: bool) -> Any:
    op = f"adaptive_max_pool{n}d"
    windows, out = _adaptive_sizes(op, n, x, output_size)
    y, index = MaxPool.apply(op, x, windows, out)
    return (y, index) if return_indices else y


def _fractional(
    n: int,
    x: Any,
    kernel_size: Any,
    output_size: Any,
    output_ratio: Any,
    return_indices: bool,
    samples: Any,
) -> Any:
    op = f"fractional_max_pool{n}d"
    size = _spatial(op, n, x)
    kernel = tuple_of(op, "kernel_size", kernel_size, n, minimum=1)
    if (output_size is None) == (output_ratio is None):
        raise ValueError(f"{op}: give output_size or output_ratio, and not both")
    if output_size is None:
        ratios = output_ratio if isinstance(output_ratio, tuple | list) else (output_ratio,) * n
        ratios = tuple(real(op, "output_ratio", r) for r in ratios)
        if len(ratios) != n or not all(0 < r < 1 for r in ratios):
            raise ValueError(f"{op}: output_ratio must be between 0 and 1, got {output_ratio}")
        output_size = tuple(int(extent * r) for extent, r in zip(size, ratios, strict=True))
    out = tuple_of(op, "output_size", output_size, n, minimum=1)
    for extent, o, taps in zip(size, out, kernel, strict=True):
        if o + taps - 1 > extent:
            raise ValueError(
                f"{op}: output_size + kernel_size - 1 must not exceed the input size, "
                f"got output_size={out}, kernel_size={kernel}, input size={size}"
            )
    lead = x.shape[:-n]
    batched = lead if len(lead) == 2 else (1, *lead)
    if samples is None:
        from ..random import generator

        samples = generator().random((*batched, n))
    samples = np.asarray(array_of(samples)).astype(x.dtype, copy=False)
    if samples.shape != (*batched, n):
        raise ValueError(
            f"{op}: _random_samples must have shape {(*batched, n)}, got {samples.shape}"
        )
    if not ((samples >= 0) & (samples < 1)).all():
        raise ValueError(f"{op}: _random_samples must be at least 0 and below 1")
    y, index = FractionalMaxPool.apply(op, x, out, kernel, samples.reshape(-1, n))
    return (y, index) if return_indices else y


class FractionalMaxPool(Function):
    """Each plane has windows of its own, so each is a pool of one plane."""

    @staticmethod
    def forward(ctx: Any, op: str, x: Any, out: Any, kernel: Any, samples: Any) -> Any:
        x = arrays.asarray(op, "input", x)
        n = len(out)
        size = x.shape[-n:]
        planes = x.reshape(-1, *size)
        y = arrays.empty(op, (len(planes), *out), x.dtype)
        index = np.empty(y.shape, np.int64)
        ctx.windows = []
        for plane, sample in enumerate(samples):
            # torch's order: width then height in 2-D, depth to width in 3-D.
            ordered = sample[::-1] if n == 2 else sample
            windows = _three(tuple(map(_windows.fractional, size, out, kernel, ordered)))
            ctx.windows.append(windows)
            _C.pool("max_pool", "fprop", 1, *windows, planes[plane], None, index[plane], y[plane])
        ctx.op, ctx.x_shape, ctx.axes = op, x.shape, n
        y, index = (a.reshape(*x.shape[:-n], *out) for a in (y, index))
        ctx.save_for_backward(index)
        ctx.mark_non_differentiable(index)
        return y, index

    @staticmethod
    def backward(ctx: Any, grad_y: Any, _: Any) -> Any:
        (index,) = ctx.saved
        grad_y = arrays.asarray(ctx.op, "grad_y", grad_y)
        grad_x = np.empty(ctx.x_shape, grad_y.dtype)
        rows = [a.reshape(-1, *a.shape[-ctx.axes :]) for a in (grad_x, grad_y, index)]
        for plane, windows in enumerate(ctx.windows):
            gx, gy, at = (a[plane] for a in rows)
            _C.pool("max_pool", "dgrad", 1, *windows, None, gy, at, gx)
        return None, grad_x, None, None, None


class MaxUnpool(Function):
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
        y = arrays.empty(op, lead + out, x.dtype)
        bad = _C.max_unpool("fprop", *ctx.layout, x, indices, y)
        if bad >= 0:
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
        grad_x = np.empty(indices.shape, grad_y.dtype)
        _C.max_unpool("dgrad", *ctx.layout, grad_y, indices, grad_x)
        return None, grad_x, None, None


def _max_unpool(
    n: int, x: Any, indices: Any, kernel_size: Any, stride: Any, padding: Any, output_size: Any
) -> Any:
    op = f"max_unpool{n}d"
    size = _spatial(op, n, x)
    kernel = tuple_of(op, "kernel_size", kernel_size, n, minimum=1)
    strides = kernel if stride in (None, ()) else tuple_of(op, "stride", stride, n, minimum=1)
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


def adaptive_avg_pool1d(input: Any, output_size: Any) -> Any:
    """Mean over windows that tile [N, C, L] into output_size; None keeps an axis."""
    return _adaptive_avg(1, input, output_size)


def adaptive_max_pool1d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    """Maximum over windows that tile [N, C, L] into output_size; None keeps an axis."""
    return _adaptive_max(1, input, output_size, return_indices)


def adaptive_max_pool1d_with_indices(
    input: Any, output_size: Any, return_indices: bool = True
) -> Any:
    """`adaptive_max_pool1d` with return_indices=True."""
    return _adaptive_max(1, input, output_size, True)


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


def adaptive_avg_pool2d(input: Any, output_size: Any) -> Any:
    """Mean over windows that tile [N, C, H, W] into output_size; None keeps an axis."""
    return _adaptive_avg(2, input, output_size)


def adaptive_max_pool2d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    """Maximum over windows that tile [N, C, H, W] into output_size; None keeps an axis."""
    return _adaptive_max(2, input, output_size, return_indices)


def adaptive_max_pool2d_with_indices(
    input: Any, output_size: Any, return_indices: bool = True
) -> Any:
    """`adaptive_max_pool2d` with return_indices=True."""
    return _adaptive_max(2, input, output_size, True)


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


def adaptive_avg_pool3d(input: Any, output_size: Any) -> Any:
    """Mean over windows that tile [N, C, D, H, W] into output_size; None keeps an axis."""
    return _adaptive_avg(3, input, output_size)


def adaptive_max_pool3d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    """Maximum over windows that tile [N, C, D, H, W] into output_size; None keeps an axis."""
    return _adaptive_max(3, input, output_size, return_indices)


def adaptive_max_pool3d_with_indices(
    input: Any, output_size: Any, return_indices: bool = True
) -> Any:
    """`adaptive_max_pool3d` with return_indices=True."""
    return _adaptive_max(3, input, output_size, True)


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


def fractional_max_pool2d(
    input: Any,
    kernel_size: Any,
    output_size: Any = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Any = None,
) -> Any:
    """Maximum over pseudo-random windows of [N, C, H, W] (Graham 2014).

    _random_samples [N, C, 2] in [0, 1) place the windows; drawn from lamina's generator if None.
    """
    return _fractional(
        2, input, kernel_size, output_size, output_ratio, return_indices, _random_samples
    )


def fractional_max_pool2d_with_indices(
    input: Any,
    kernel_size: Any,
    output_size: Any = None,
    output_ratio: Any = None,
    return_indices: bool = True,
    _random_samples: Any = None,
) -> Any:
    """`fractional_max_pool2d` with return_indices=True."""
    return _fractional(2, input, kernel_size, output_size, output_ratio, True, _random_samples)


def fractional_max_pool3d(
    input: Any,
    kernel_size: Any,
    output_size: Any = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Any = None,
) -> Any:
    """Maximum over pseudo-random windows of [N, C, D, H, W] (Graham 2014).

    _random_samples [N, C, 3] in [0, 1) place the windows; drawn from lamina's generator if None.
    """
    return _fractional(
        3, input, kernel_size, output_size, output_ratio, return_indices, _random_samples
    )


def fractional_max_pool3d_with_indices(
    input: Any,
    kernel_size: Any,
    output_size: Any = None,
    output_ratio: Any = None,
    return_indices: bool = True,
    _random_samples: Any = None,
) -> Any:
    """`fractional_max_pool3d` with return_indices=True."""
    return _fractional(3, input, kernel_size, output_size, output_ratio, True, _random_samples)
