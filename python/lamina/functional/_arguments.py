"""Checks and normal forms of the arguments that many functions share.

Messages read `op: rule, got name=value; what to do`.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

# Strides, dilations, paddings and kernel sizes above this would overflow index arithmetic.
LARGEST_EXTENT = 2**31 - 1


def integer(op: str, name: str, value: Any, minimum: int | None = None) -> int:
    """value as a Python int. TypeError for bools and anything that is not an integer."""
    if isinstance(value, bool | np.bool_):
        raise TypeError(f"{op}: {name} must be an integer, got {name}={value!r}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{op}: {name} must be an integer, got {name}={value!r}") from None
    if minimum is not None and number < minimum:
        raise ValueError(f"{op}: {name} must be at least {minimum}, got {name}={number}")
    if abs(number) > LARGEST_EXTENT:
        raise ValueError(f"{op}: {name} must be below 2**31, got {name}={number}")
    return number


def flag(op: str, name: str, value: Any) -> bool:
    """value as a Python bool. TypeError for anything but True and False: words are always true."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{op}: {name} must be True or False, got {name}={value!r}")
    return bool(value)


def tuple_of(op: str, name: str, value: Any, n: int, minimum: int | None = None) -> tuple[int, ...]:
    """An integer, or a sequence of 1 or n integers, as a tuple of n integers."""
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes):
        items = tuple(integer(op, name, item, minimum) for item in value)
        if len(items) == 1:
            return items * n
        if len(items) != n:
            raise ValueError(
                f"{op}: {name} must be an integer or {n} of them, got {name}={tuple(value)}"
            )
        return items
    return (integer(op, name, value, minimum),) * n


def strides_of(op: str, stride: Any, kernel: tuple[int, ...]) -> tuple[int, ...]:
    """Of windows: those of the kernel for None and for ()."""
    if stride is None or (isinstance(stride, tuple) and not stride):
        return kernel
    return tuple_of(op, "stride", stride, len(kernel), minimum=1)


def real(op: str, name: str, value: Any) -> float:
    """value as a float. TypeError for strings, bools, complex numbers and arrays."""
    if type(value) is float:
        return value
    if isinstance(value, bool | np.bool_ | str | bytes | complex) or np.ndim(value) > 0:
        raise TypeError(f"{op}: {name} must be a number, got {name}={value!r}")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{op}: {name} must be a number, got {name}={value!r}") from None


def check_rank(op: str, name: str, array: Any, ranks: Sequence[int], meaning: str = "") -> None:
    """ValueError unless the array has one of the numbers of dimensions, TypeError for no array."""
    if not hasattr(array, "ndim"):
        raise TypeError(
            f"{op}: {name} must be an array, got {name} of type {type(array).__name__}; "
            "convert it with numpy.asarray(..., dtype='float32')"
        )
    if array.ndim not in ranks:
        allowed = " or ".join(map(str, ranks))
        raise ValueError(
            f"{op}: {name} must have {allowed} dimensions{meaning and ' ' + meaning}, "
            f"got {name}.shape={array.shape}"
        )


def same_dtype(op: str, **named: Any) -> None:
    """TypeError unless all arrays (None is left out) have one dtype."""
    present = {name: array for name, array in named.items() if array is not None}
    if len({array.dtype for array in present.values()}) > 1:
        got = ", ".join(f"{name}.dtype={array.dtype}" for name, array in present.items())
        raise TypeError(f"{op}: all arrays must have one dtype, got {got}; convert with .astype")


def one_of(op: str, name: str, value: Any, choices: Sequence[str]) -> str:
    """ValueError unless value is one of the words."""
    if value not in choices:
        raise ValueError(f"{op}: {name} must be one of {tuple(choices)}, got {name}={value!r}")
    return value


def normal_axis(op: str, name: str, value: Any, rank: int) -> int:
    """A possibly negative axis as one in [0, rank). A 0-d array has the axes 0 and -1."""
    axis = integer(op, name, value)
    extent = max(rank, 1)
    if not -extent <= axis < extent:
        raise ValueError(
            f"{op}: {name} must be from {-extent} to {extent - 1} for an array of {rank} "
            f"dimensions, got {name}={axis}"
        )
    return axis % extent
