"""Named shapes shared by the tests: odd sizes, H != W, edges of tiles and vectors, every option."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from lamina import runtime


@dataclass(frozen=True)
class ConvCase:
    """One convolution; `options` are keyword arguments of conv{n}d."""

    x: tuple[int, ...]
    weight: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def axes(self) -> int:
        return len(self.x) - 2

    def __str__(self) -> str:
        words = [f"x{'x'.join(map(str, self.x))}", f"w{'x'.join(map(str, self.weight))}"]
        for name, value in self.options.items():
            words.append(name + str(value).replace(" ", "").replace(",", "."))
        return "-".join(words)


CONV = [
    ConvCase((2, 3, 9), (4, 3, 3)),
    ConvCase((1, 2, 40), (3, 2, 5), {"stride": 2, "padding": 2, "dilation": 2}),
    ConvCase((1, 1, 1, 1), (1, 1, 1, 1)),
    ConvCase((1, 2, 300), (3, 2, 25), {"padding": 12}),
    ConvCase((2, 3, 7, 9), (4, 3, 3, 3), {"padding": 1}),
    ConvCase((2, 3, 70, 41), (5, 3, 3, 3), {"padding": (0, 3)}),
    ConvCase((1, 2, 40, 33), (2, 2, 9, 7), {"dilation": 2, "padding": 8}),
    ConvCase((2, 3, 9, 7), (5, 3, 3, 3), {"stride": 2, "padding": 1}),
    ConvCase((1, 2, 11, 13), (3, 2, 5, 3), {"stride": (3, 2), "padding": (2, 1)}),
    ConvCase((1, 2, 2, 5), (3, 2, 3, 2), {"stride": 3, "padding": (1, 0)}),
    ConvCase((1, 2, 12, 10), (2, 2, 3, 3), {"dilation": (2, 3), "padding": ((1, 2), (3, 0))}),
    ConvCase((1, 2, 29, 37), (3, 2, 3, 3), {"dilation": 4, "padding": 4}),
    ConvCase((1, 9, 6, 6), (3, 9, 3, 3), {"dilation": (9, 5), "padding": (9, 5)}),
    ConvCase((1, 2, 3, 700), (3, 2, 2, 5), {"padding": (0, 2)}),
    ConvCase((2, 4, 6, 7), (6, 2, 3, 3), {"groups": 2, "padding": "same"}),
    ConvCase((1, 3, 8, 9), (3, 1, 3, 3), {"groups": 3, "padding": 1}),
    ConvCase((2, 2, 9, 8), (6, 1, 5, 3), {"groups": 2, "padding": "same", "stride": 2}),
    ConvCase((1, 17, 5, 26), (9, 17, 1, 1)),
    ConvCase((3, 24, 14, 14), (36, 12, 3, 3), {"groups": 2, "padding": 1}),
    ConvCase((2, 16, 9, 35), (40, 8, 3, 5), {"groups": 2, "padding": (0, 3), "dilation": (1, 2)}),
    ConvCase((1, 34, 12, 18), (17, 34, 5, 7), {"padding": (2, 1)}),
    ConvCase((5, 18, 7, 7), (18, 1, 3, 3), {"groups": 18, "padding": 1}),
    ConvCase((2, 3, 5, 20), (6, 1, 5, 5), {"groups": 3, "padding": ((0, 5), (2, 4))}),
    ConvCase((2, 3, 8, 21), (3, 1, 3, 3), {"groups": 3, "padding": (4, 2), "dilation": (1, 3)}),
    ConvCase((1, 3, 4, 65), (49, 3, 3, 3), {"padding": 1}),
    ConvCase((3, 2, 3, 3), (2, 2, 3, 3), {"padding": 2}),
    ConvCase((1, 2, 17, 15), (3, 2, 11, 7), {"padding": 3}),
    ConvCase((1, 40, 4, 4), (100, 40, 3, 3), {"padding": 1}),
    ConvCase((2, 3, 9, 20), (4, 3, 1, 7), {"padding": (0, 3)}),
    ConvCase((1, 4, 18, 5), (6, 2, 7, 1), {"padding": (3, 0), "groups": 2}),
    ConvCase((2, 17, 53), (5, 17, 5), {"padding": 6, "dilation": 3}),
    ConvCase((2, 3, 7, 4), (3, 3, 9, 1), {"padding": ((8, 3), (0, 0)), "dilation": (2, 1)}),
    ConvCase((2, 2, 4, 5, 6), (3, 2, 3, 2, 3), {"padding": 1}),
    ConvCase((2, 2, 4, 5, 6), (3, 2, 3, 3, 3), {"padding": (2, 1, 1), "dilation": (2, 1, 1)}),
    ConvCase((1, 4, 5, 6, 21), (4, 2, 2, 3, 3), {"stride": (2, 1, 1), "padding": 1, "groups": 2}),
    ConvCase((1, 3, 3, 2, 11), (20, 3, 2, 1, 10), {"padding": (1, 0, 4)}),
    ConvCase((1, 4, 5, 4, 7), (4, 2, 2, 3, 3), {"stride": (2, 1, 2), "padding": 1, "groups": 2}),
    ConvCase((2, 2, 4, 9, 18), (4, 1, 3, 3, 3), {"padding": 1, "groups": 2}),
    ConvCase((1, 2, 6, 7, 9), (2, 1, 3, 5, 1), {"stride": 2, "padding": (3, 2, 0), "groups": 2}),
    ConvCase((1, 2, 5, 5, 8), (4, 1, 2, 3, 4), {"dilation": (3, 1, 2), "padding": 1, "groups": 2}),
]

CONV_TRANSPOSE = [
    ConvCase((2, 3, 5), (3, 4, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
    ConvCase((2, 3, 4, 5), (3, 2, 3, 3)),
    ConvCase((1, 4, 5, 4), (4, 3, 4, 4), {"stride": 2, "padding": 1}),
    ConvCase((1, 4, 3, 5), (4, 2, 3, 2), {"stride": 3, "groups": 2, "output_padding": (2, 1)}),
    ConvCase((2, 2, 6, 5), (2, 3, 3, 3), {"dilation": 2, "padding": 2}),
    ConvCase((1, 2, 3, 4, 3), (2, 2, 2, 3, 3), {"stride": 2, "padding": (0, 1, 1)}),
    ConvCase((1, 2, 1100), (2, 3, 7), {"stride": 3, "padding": 2, "output_padding": 2}),
    ConvCase((1, 2, 5, 2, 3), (2, 2, 2, 3, 3), {"stride": (2, 1, 2), "padding": (1, 1, 1)}),
]

# Algorithms of convolution whose transforms round, on integers too.
ROUNDING = ("fft", "winograd2x4", "winograd4x1", "winograd4", "winograd5x5", "winograd1d")


def integers(shape: tuple[int, ...], seed: int, dtype: Any = np.float32) -> np.ndarray:
    """Integers from -3 to 3: sums of fewer than a million products of two are exact in float32."""
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(dtype)


def reals(shape: tuple[int, ...], seed: int, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def storage(name: str, backend: str) -> np.dtype:
    """The dtype `name`; skips the test where this backend has no kernels of it."""
    if name in ("float32", "float64"):
        return np.dtype(name)
    if backend in ("ref", "cpu"):
        pytest.skip("16-bit floats have CUDA kernels only")
    return np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if name == "bfloat16" else name)


def rounding(dtype: np.dtype) -> float:
    """The relative error of rounding a float32 result to a 16-bit dtype; 0 for the others."""
    return {"float16": 2.0**-11, "bfloat16": 2.0**-8}.get(np.dtype(dtype).name, 0.0)


def misaligned(x: np.ndarray) -> np.ndarray:
    """The values of x, contiguous, in memory that starts one element beyond a vector's place."""
    lanes = 64 // x.itemsize
    memory = np.empty(x.size + 2 * lanes, x.dtype)
    start = 1 + -(memory.ctypes.data // x.itemsize) % lanes
    view = memory[start : start + x.size].reshape(x.shape)
    view[...] = x
    return view


def schedules(backend: str) -> Iterator[str]:
    """The orders in which simt can run the threads of a block; one turn on other backends."""
    if backend in ("ref", "cpu"):
        yield "forward"
        return
    module = runtime.load_backend(backend)
    try:
        for name in ("reverse", "random", "forward"):
            module.set_schedule(name)
            yield name
    finally:
        module.set_schedule("forward")
