"""`lamina check`: every registered kernel against NumPy, on this machine, in seconds.

Forward passes run in float32 and are compared with the formula in float64. Gradients run in float64
and are compared with central differences of the formula along one random direction.
"""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rich.table import Table

import lamina

from .. import functional as F
from ..runtime import Kernel
from .definitions import DEFINITIONS, Definition

# A rounding error grows like the square root of a sum's length: 16 eps covers the sums here.
FORWARD_BOUND = 16 * float(np.finfo(np.float32).eps)
# Central differences with step h err by h^2 of the third derivative and eps / h of the value.
STEP = 1e-5
GRADIENT_BOUND = 1e-7


def _definition(kernel: Kernel) -> Definition:
    return DEFINITIONS["depthwise" if kernel.algo == "depthwise" else kernel.op]


def _forward_error(kernel: Kernel) -> float:
    """Largest difference from the formula, relative to its largest value."""
    definition = _definition(kernel)
    single = [x.astype(np.float32) for x in definition.inputs()]
    y = np.asarray(definition.call(F, kernel.algo, *single))
    expected = definition.formula(*(x.astype(np.float64) for x in single))
    if y.shape != expected.shape:
        return float("inf")
    return float(np.abs(y - expected).max() / max(np.abs(expected).max(), 1.0))


def _gradient_error(kernel: Kernel) -> float:
    """Difference of two directional derivatives, relative to the norms that enter them."""
    definition = _definition(kernel)
    inputs = definition.inputs()
    tensors = [lamina.tensor(x, requires_grad=True) for x in inputs]
    y = definition.call(F, kernel.algo, *tensors)
    rng = np.random.default_rng(1)
    grad_y = rng.normal(size=y.shape)
    directions = [rng.normal(size=x.shape) for x in inputs]
    y.backward(grad_y)
    ours = 0.0
    for tensor, direction in zip(tensors, directions, strict=True):
        if tensor.grad is not None:
            ours += float((tensor.grad.data * direction).sum())
    ends = [
        definition.formula(*(x + sign * STEP * d for x, d in zip(inputs, directions, strict=True)))
        for sign in (1, -1)
    ]
    expected = float(((ends[0] - ends[1]) / (2 * STEP) * grad_y).sum())
    return abs(ours - expected) / max(float(np.abs(ends[0]).max()) * grad_y.size, 1.0)


def check_kernel(kernel: Kernel) -> tuple[float, float]:
    """(error, bound) of one kernel; an error of infinity where nobody wrote a definition."""
    forward = kernel.pass_ == "fprop"
    bound = FORWARD_BOUND if forward else GRADIENT_BOUND
    if kernel.op not in DEFINITIONS:
        return float("inf"), bound
    with lamina.backend(kernel.backend):
        return (_forward_error if forward else _gradient_error)(kernel), bound


def run_checks(console: Console) -> int:
    """Prints a table; returns the number of kernels whose error is above the bound."""
    table = Table("backend", "kernel", "pass", "algorithm", "error", "bound", "")
    failures = 0
    for kernel in lamina.kernels():
        error, bound = check_kernel(kernel)
        good = error <= bound
        failures += not good
        verdict = "[green]ok[/green]" if good else "[red]WRONG[/red]"
        names = kernel.backend, kernel.op, kernel.pass_, kernel.algo
        table.add_row(*names, f"{error:.1e}", f"{bound:.1e}", verdict)
    console.print(table)
    console.print(f"{table.row_count - failures} of {table.row_count} kernels agree with NumPy")
    return failures
