"""Small helpers that every reference file shares."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Ints = int | Sequence[int]


def real(x: ArrayLike) -> Array:
    """x in float64; complex input stays complex so that a complex step can pass through."""
    x = np.asarray(x)
    return x if np.iscomplexobj(x) else x.astype(np.float64)


def ntuple(value: Ints, n: int) -> tuple[int, ...]:
    """One number for every axis, or one number per axis."""
    if isinstance(value, (int, np.integer)):
        return (int(value),) * n
    value = tuple(int(v) for v in value)
    return value * n if len(value) == 1 else value


def grid(sizes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Every index tuple of an array of these sizes, last axis fastest."""
    return itertools.product(*(range(s) for s in sizes))


def tap(offset: Sequence[int], out: Sequence[int], stride: Sequence[int]) -> tuple[slice, ...]:
    """Slices picking offset, offset + stride, ... (out of them) on the trailing axes."""
    return tuple(
        slice(o, o + (n - 1) * s + 1, s) for o, n, s in zip(offset, out, stride, strict=True)
    )


def reduce_loss(loss: Array, reduction: str) -> Array:
    """Apply torch's reduction: 'none', 'mean' or 'sum'."""
    if reduction == "none":
        return loss
    return {"mean": np.mean, "sum": np.sum}[reduction](loss)
