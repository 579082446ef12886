"""Plain arrays: which kinds are accepted, conversion to what kernels take, checked allocation.

The only place that would touch CuPy, and only when the caller has imported it already.
"""

from __future__ import annotations

import math
import os
import sys
from functools import lru_cache
from typing import Any

import numpy as np

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def is_array(x: Any) -> bool:
    """Whether x is an array of a kind that Lamina computes on."""
    cupy = sys.modules.get("cupy")
    return isinstance(x, np.ndarray) or (cupy is not None and isinstance(x, cupy.ndarray))


def module_of(x: Any) -> Any:
    """numpy, or cupy for a CuPy array."""
    return np if isinstance(x, np.ndarray) else sys.modules["cupy"]


def device_of(x: Any) -> str:
    """ "cpu", or "cuda:N" for a CuPy array."""
    return "cpu" if isinstance(x, np.ndarray) else f"cuda:{x.device.id}"


def asarray(op: str, name: str, x: Any) -> np.ndarray:
    """x as a contiguous, aligned, native-endian float32 or float64 array, copied only if it is not.

    Raises TypeError for other dtypes and other kinds of object.
    """
    if not isinstance(x, np.ndarray):
        raise TypeError(
            f"{op}: {name} must be a NumPy array or a lamina.Tensor, got {type(x).__name__}; "
            "convert it with numpy.asarray"
        )
    dtype = x.dtype.newbyteorder("=")
    if dtype not in FLOATS:
        raise TypeError(
            f"{op}: {name} must be float32 or float64, got dtype={x.dtype}; "
            "convert it with .astype(numpy.float32)"
        )
    return np.require(x, dtype=dtype, requirements=("C", "A"))


def asindices(op: str, name: str, x: Any) -> np.ndarray:
    """x as a contiguous int64 array. Raises TypeError for anything but integers."""
    if not isinstance(x, np.ndarray) or not np.issubdtype(x.dtype, np.integer):
        kind = f"dtype={x.dtype}" if isinstance(x, np.ndarray) else type(x).__name__
        raise TypeError(f"{op}: {name} must be an array of integers (int64), got {kind}")
    return np.require(x, dtype=np.int64, requirements=("C", "A"))


@lru_cache(maxsize=1)
def physical_memory() -> int:
    """Bytes of this machine's memory."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 1 << 40


def empty(op: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Uninitialised result array.

    Raises ValueError when the number of bytes overflows 64 bits, MemoryError above this machine's
    memory; nothing is allocated then.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size >= 1 << 63:
        raise ValueError(f"{op}: the result has more elements than 64 bits count, shape={shape}")
    if size > physical_memory():
        raise MemoryError(
            f"{op}: the result needs {size} bytes, this machine has {physical_memory()}, "
            f"shape={shape}"
        )
    return np.empty(shape, dtype)
