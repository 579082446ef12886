"""Interpolation to another size, and the unpoolings that enlarge by whole blocks.

Every mode is a table an axis (functional/_taps.py). Centres of pixels follow torch: position o of
the result lies at (o + 1/2) * scale - 1/2 of the input, with align_corners at o * scale. float32 or
float64; ValueError for shapes and options that do not fit, TypeError for dtypes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import arrays
from . import _taps
from ._arguments import check_rank, flag, integer, one_of, real, tuple_of
from .adaptive_pooling import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d
from .conv import as_operand

__all__ = [
    "bed_of_nails_unpool1d",
    "bed_of_nails_unpool2d",
    "bed_of_nails_unpool3d",
    "interpolate",
    "nearest_unpool1d",
    "nearest_unpool2d",
    "nearest_unpool3d",
    "upsample",
    "upsample_bilinear",
    "upsample_nearest",
]

# mode -> numbers of spatial axes
_MODES = {
    "nearest": (1, 2, 3),
    "nearest-exact": (1, 2, 3),
    "linear": (1,),
    "bilinear": (2,),
    "bicubic": (2,),
    "trilinear": (3,),
    "area": (1, 2, 3),
}
_LINEAR = ("linear", "bilinear", "trilinear")


def _factors(op: str, scale_factor: Any, n: int) -> tuple[float, ...]:
    several = isinstance(scale_factor, Sequence | np.ndarray)
    several &= not isinstance(scale_factor, str | bytes)
    values = tuple(
        real(op, "scale_factor", value) for value in (scale_factor if several else [scale_factor])
    )
    if len(values) not in (1, n):
        raise ValueError(
            f"{op}: scale_factor must be a number or {n} of them, got scale_factor={values}"
        )
    for value in values:
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{op}: scale_factor must be above 0, got scale_factor={value}")
    return values * (n // len(values))


def _sizes(
    op: str, x: Any, size: Any, scale_factor: Any, recompute: bool | None
) -> tuple[tuple[int, ...], tuple[float | None, ...]]:
    """Output sizes, and per axis the scale that positions take instead of in / out."""
    spatial = x.shape[2:]
    n = len(spatial)
    if (size is None) == (scale_factor is None):
        raise ValueError(
            f"{op}: give one of size and scale_factor, got size={size!r}, "
            f"scale_factor={scale_factor!r}"
        )
    if size is not None:
        if recompute:
            raise ValueError(f"{op}: recompute_scale_factor needs scale_factor, got size={size!r}")
        return tuple_of(op, "size", size, n, minimum=1), (None,) * n
    factors = _factors(op, scale_factor, n)
    out = tuple(math.floor(extent * f) for extent, f in zip(spatial, factors, strict=True))
    if min(out) < 1:
        raise ValueError(
            f"{op}: the output would have size {out}, got input.shape={x.shape}, "
            f"scale_factor={factors}"
        )
    return out, (None,) * n if recompute else tuple(1 / f for f in factors)


def _check_memory(op: str, x: Any, out: tuple[int, ...]) -> None:
    """MemoryError or ValueError, before anything is built, for results or tables too large."""
    arrays.empty(op, (*x.shape[: x.ndim - len(out)], *out), x.dtype)
    arrays.empty(op, (max(out), 32), np.float64)  # what building a table takes


def _table(
    mode: str, in_size: int, out: int, scale: float | None, align_corners: bool, antialias: bool
) -> _taps.Table:
    if out == in_size and (mode in _LINEAR or antialias):
        scale = None  # as torch: a factor that changes no size moves no position
    if mode.startswith("nearest"):
        return _taps.nearest(in_size, out, scale, mode == "nearest-exact")
    if align_corners:
        ratio = (in_size - 1) / (out - 1) if out > 1 else 0.0
    else:
        ratio = in_size / out if scale is None else scale
    if antialias:
        return _taps.antialias(in_size, out, ratio, mode == "bicubic")
    rule = _taps.cubic if mode == "bicubic" else _taps.linear
    return rule(in_size, out, ratio, align_corners)


def interpolate(
    input: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Any:
    """input [N, C, *spatial] resized to `size`, or to floor(spatial * scale_factor).

    mode: nearest, nearest-exact, area (1 to 3 axes), linear (1), bilinear, bicubic (2), trilinear
    (3). scale_factor is also the scale of positions unless recompute_scale_factor asks for in /
    out; linear modes and antialias copy an axis whose size it does not change. antialias (bilinear,
    bicubic): the kernel widens with a reduction, as Pillow's does. `nearest` picks
    floor(o * in / out) in exact arithmetic.
    """
    op = "interpolate"
    x = as_operand(op, "input", input)
    check_rank(op, "input", x, (3, 4, 5))
    one_of(op, "mode", mode, tuple(_MODES))
    if x.ndim - 2 not in _MODES[mode]:
        raise ValueError(
            f"{op}: mode={mode!r} takes {' or '.join(map(str, _MODES[mode]))} spatial axes, "
            f"got input.shape={x.shape}"
        )
    antialias = flag(op, "antialias", antialias)
    if align_corners is not None:
        align_corners = flag(op, "align_corners", align_corners)
    if recompute_scale_factor is not None:
        recompute_scale_factor = flag(op, "recompute_scale_factor", recompute_scale_factor)
    if align_corners is not None and mode not in (*_LINEAR, "bicubic"):
        raise ValueError(
            f"{op}: align_corners is for the linear and cubic modes, got mode={mode!r}, "
            f"align_corners={align_corners}"
        )
    if antialias and mode not in ("bilinear", "bicubic"):
        raise ValueError(f"{op}: antialias is for bilinear and bicubic, got mode={mode!r}")
    out, scales = _sizes(op, x, size, scale_factor, recompute_scale_factor)
    if min(x.shape[2:]) < 1:
        raise ValueError(f"{op}: the input is empty along a spatial axis, got shape={x.shape}")
    if mode == "area":
        pool = (adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d)[x.ndim - 3]
        return pool(x, out)
    _check_memory(op, x, out)
    tables = tuple(
        _table(mode, extent, o, scale, bool(align_corners), antialias)
        for extent, o, scale in zip(x.shape[2:], out, scales, strict=True)
    )
    return _taps.Resample.apply(op, x, tables)


def upsample(
    input: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Any:
    """`interpolate` under its old name."""
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(input: Any, size: Any = None, scale_factor: Any = None) -> Any:
    """`interpolate` with mode="nearest"."""
    return interpolate(input, size, scale_factor, "nearest")


def upsample_bilinear(input: Any, size: Any = None, scale_factor: Any = None) -> Any:
    """`interpolate` with mode="bilinear" and align_corners=True."""
    return interpolate(input, size, scale_factor, "bilinear", align_corners=True)


def _unpool(name: str, n: int, input: Any, kernel_size: Any, fill: bool) -> Any:
    op = f"{name}{n}d"
    x = as_operand(op, "input", input)
    check_rank(op, "input", x, (n + 1, n + 2), "(a batch axis is optional)")
    kernel = tuple_of(op, "kernel_size", kernel_size, n, minimum=1)
    out = tuple(size * k for size, k in zip(x.shape[-n:], kernel, strict=True))
    for size in out:
        integer(op, "output size", size)
    _check_memory(op, x, out)
    tables = tuple(
        _taps.blocks(size, k, fill) for size, k in zip(x.shape[-n:], kernel, strict=True)
    )
    return _taps.Resample.apply(op, x, tables)


def nearest_unpool1d(input: Any, kernel_size: Any) -> Any:
    """Every element of [N, C, L] or [C, L] fills a block of kernel_size."""
    return _unpool("nearest_unpool", 1, input, kernel_size, True)


def nearest_unpool2d(input: Any, kernel_size: Any) -> Any:
    """Every element of [N, C, H, W] or [C, H, W] fills a block of kernel_size."""
    return _unpool("nearest_unpool", 2, input, kernel_size, True)


def nearest_unpool3d(input: Any, kernel_size: Any) -> Any:
    """Every element of [N, C, D, H, W] or [C, D, H, W] fills a block of kernel_size."""
    return _unpool("nearest_unpool", 3, input, kernel_size, True)


def bed_of_nails_unpool1d(input: Any, kernel_size: Any) -> Any:
    """Elements of [N, C, L] or [C, L] at the first place of blocks of kernel_size, else zero."""
    return _unpool("bed_of_nails_unpool", 1, input, kernel_size, False)


def bed_of_nails_unpool2d(input: Any, kernel_size: Any) -> Any:
    """Elements of [N, C, H, W] or [C, H, W] at the first corner of blocks, zeros elsewhere.

    Dosovitskiy et al. 2015.
    """
    return _unpool("bed_of_nails_unpool", 2, input, kernel_size, False)


def bed_of_nails_unpool3d(input: Any, kernel_size: Any) -> Any:
    """Elements of [N, C, D, H, W] or [C, D, H, W] at the first corner of blocks, else zero."""
    return _unpool("bed_of_nails_unpool", 3, input, kernel_size, False)
