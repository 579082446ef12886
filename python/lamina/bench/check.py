"""`lamina check`: the kernels against NumPy in float64, on this machine, in seconds.

Each family has a definition here in a few lines of NumPy, and every backend runs it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import lamina

from .. import functional as F
from .layers import ConvLayer
from .measure import conv_reference

# An error of rounding grows like the square root of the sum's length; 16 eps covers the sums here.
_EPS = 16 * float(np.finfo(np.float32).eps)


def _conv(algo: str) -> float:
    layer = ConvLayer("check", 6, 15, 9, 3, 1, 1, 1)
    rng = np.random.default_rng(0)
    x = rng.normal(size=layer.x_shape(1)).astype(np.float32)
    weight = rng.normal(size=layer.weight_shape).astype(np.float32)
    y = F.conv2d(x, weight, padding=1, algo=algo)
    expected = np.stack([conv_reference(x, weight, layer, k) for k in range(layer.k)])
    return float(np.abs(y[0] - expected).max() / np.abs(expected).max())


def _gemm() -> float:
    rng = np.random.default_rng(1)
    a, b = (rng.normal(size=s).astype(np.float32) for s in ((37, 130), (53, 130)))
    expected = a.astype(np.float64) @ b.astype(np.float64).T
    return float(np.abs(F.linear(a, b) - expected).max() / np.abs(expected).max())


def _relative(y: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(y - expected).max() / max(np.abs(expected).max(), 1e-30))


def _x() -> np.ndarray:
    return np.random.default_rng(2).normal(size=(2, 3, 8, 10)).astype(np.float32)


def _blocks() -> np.ndarray:
    """x cut into 2 x 2 windows: [N, C, 4, 5, 2, 2]."""
    x = _x().astype(np.float64)
    return x.reshape(2, 3, 4, 2, 5, 2).swapaxes(3, 4)


def _softmax() -> float:
    e = np.exp(_x().astype(np.float64))
    return _relative(F.softmax(_x(), 1), e / e.sum(1, keepdims=True))


def _cross_entropy() -> float:
    x = _x()[:, :, 0, 0]
    target = np.array([2, 0])
    log_p = x - np.log(np.exp(x.astype(np.float64)).sum(1, keepdims=True))
    loss = F.cross_entropy(x, target, reduction="none")
    return _relative(loss, -log_p[np.arange(2), target])


def _gelu() -> float:
    erf = np.vectorize(math.erf)
    x = _x().astype(np.float64)
    return _relative(F.gelu(_x()), x * 0.5 * (1 + erf(x / math.sqrt(2))))


CHECKS: dict[str, Callable[[], float]] = {
    "gemm": _gemm,
    "max_pool": lambda: _relative(F.max_pool2d(_x(), 2), _blocks().max((-1, -2))),
    "avg_pool": lambda: _relative(F.avg_pool2d(_x(), 2), _blocks().mean((-1, -2))),
    "activation": _gelu,
    "tanh": lambda: _relative(F.tanh(_x()), np.tanh(_x().astype(np.float64))),
    "softmax": _softmax,
    "cross_entropy": _cross_entropy,
}


def run_checks(console: Console) -> int:
    """Prints a table; returns the number of kernels whose error is above the bound."""
    table = Table("backend", "kernel", "error", "bound", "")
    failures = 0

    def add(backend: str, name: str, check: Callable[..., float], *args: Any) -> None:
        nonlocal failures
        with lamina.backend(backend):
            error = check(*args)
        good = error <= _EPS
        failures += not good
        verdict = "[green]ok[/green]" if good else "[red]WRONG[/red]"
        table.add_row(backend, name, f"{error:.1e}", f"{_EPS:.1e}", verdict)

    for kernel in lamina.kernels("conv", "fprop"):
        add(kernel.backend, f"conv {kernel.algo}", _conv, kernel.algo)
    for backend in lamina.backends():
        for name, check in CHECKS.items():
            add(backend, name, check)
    console.print(table)
    console.print(f"{table.row_count - failures} of {table.row_count} kernels agree with NumPy")
    return failures
