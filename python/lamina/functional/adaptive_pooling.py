"""Pooling over windows that tile the input (adaptive) or fall at random (fractional).

Inputs are [N, C, spatial...] or [C, spatial...], float32 or float64. NaN wins every maximum; the
first of equal maxima is the one whose index is returned and whose gradient is not zero.
All functions raise ValueError for shapes and options that do not fit, TypeError for dtypes.
"""

from __future__ import annotations

from typing import Any

from .. import _C, arrays
from ..autograd import Function
from ..tensor import array_of
from . import _windows
from ._arguments import flag, integer, real, tuple_of
from .pooling import AvgPool, max_pool, spatial_size, three_windows

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
    "fractional_max_pool2d",
    "fractional_max_pool2d_with_indices",
    "fractional_max_pool3d",
    "fractional_max_pool3d_with_indices",
]


def _adaptive_sizes(op: str, n: int, x: Any, output_size: Any) -> tuple[Any, tuple[int, ...]]:
    size = spatial_size(op, n, x)
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
    return AvgPool.apply(x, op, three_windows(windows), out)


def _adaptive_max(n: int, x: Any, output_size: Any, return_indices: bool) -> Any:
    op = f"adaptive_max_pool{n}d"
    return_indices = flag(op, "return_indices", return_indices)
    windows, out = _adaptive_sizes(op, n, x, output_size)
    y, index = max_pool(x, op, windows, out, return_indices)
    return (y, index) if return_indices else y


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
    return_indices = flag(op, "return_indices", return_indices)
    size = spatial_size(op, n, x)
    kernel = tuple_of(op, "kernel_size", kernel_size, n, minimum=1)
    if (output_size is None) == (output_ratio is None):
        raise ValueError(
            f"{op}: give output_size or output_ratio, and not both, got "
            f"output_size={output_size!r}, output_ratio={output_ratio!r}"
        )
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
    arrays.check_float(op, "_random_samples", array_of(samples))
    samples = arrays.to_numpy(array_of(samples)).astype(x.dtype, copy=False)
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
        y = arrays.empty(op, (len(planes), *out), x.dtype, like=x)
        index = arrays.empty(op, y.shape, arrays.INT64, like=y)
        ctx.windows = []
        for plane, sample in enumerate(samples):
            # torch's order: width then height in 2-D, depth to width in 3-D.
            ordered = sample[::-1] if n == 2 else sample
            windows = three_windows(tuple(map(_windows.fractional, size, out, kernel, ordered)))
            ctx.windows.append(windows)
            tail = planes[plane], None, index[plane], y[plane]
            _C.pool("max_pool", "fprop", 1, *(*windows, *tail))
        ctx.op, ctx.x_shape, ctx.axes = op, x.shape, n
        y, index = (a.reshape(*x.shape[:-n], *out) for a in (y, index))
        ctx.save_for_backward(index)
        ctx.mark_non_differentiable(index)
        return y, index

    @staticmethod
    def backward(ctx: Any, grad_y: Any, _: Any) -> Any:
        (index,) = ctx.saved
        grad_y = arrays.asarray(ctx.op, "grad_y", grad_y)
        grad_x = arrays.empty(ctx.op, ctx.x_shape, grad_y.dtype, like=grad_y)
        rows = [a.reshape(-1, *a.shape[-ctx.axes :]) for a in (grad_x, grad_y, index)]
        for plane, windows in enumerate(ctx.windows):
            gx, gy, at = (a[plane] for a in rows)
            _C.pool("max_pool", "dgrad", 1, *(*windows, None, gy, at, gx))
        return None, grad_x, None, None, None


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
