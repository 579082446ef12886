"""`lamina check`: every registered kernel against NumPy, on this machine, in seconds.

Forward passes run in float32 and are compared with the formula in float64. Gradients run in float64
and are compared with central differences of the formula along one random direction.
"""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rich.table import Table

import lamina

from .. import _C
from ..runtime import Kernel
from .definitions import LAMINA, Definition, definitions_of

# A rounding error grows like the square root of a sum's length: 16 eps covers the sums here.
FORWARD_BOUND = 16 * float(np.finfo(np.float32).eps)
# Central differences with step h err by h^2 of the third derivative and eps / h of the value.
STEP = 1e-5
GRADIENT_BOUND = 1e-7


# Products of bfloat16: how much more than float32 they round (docs/extensions.md).
BF16 = {"bf16x6": 1, "bf16x3": 2**7, "bf16": 2**16}


class NotRun(Exception):
    """The call did not reach the kernel it was meant for."""


def _expect(kernel: Kernel) -> None:
    plan = lamina.last_plan()
    if (plan.backend, plan.pass_, plan.algo) != (kernel.backend, kernel.pass_, kernel.algo):
        raise NotRun(f"{kernel} was asked for, {plan.backend} {plan.pass_} {plan.algo} ran")


def _forward_error(kernel: Kernel, definition: Definition) -> float:
    """Largest difference from the formula, relative to its largest value."""
    single = [x.astype(np.float32) for x in definition.inputs()]
    y = np.asarray(definition.call(LAMINA, kernel.algo, *single))
    _expect(kernel)
    expected = definition.formula(*(x.astype(np.float64) for x in single))
    if y.shape != expected.shape:
        return float("inf")
    return float(np.abs(y - expected).max() / max(np.abs(expected).max(), 1.0))


def _differentiated(kernel: Kernel, inputs: int) -> list[bool]:
    """Which inputs take part: those of the pass where the gradients have kernels of their own."""
    own = ("dgrad", "wgrad", "bgrad") if lamina.kernels(kernel.op, "wgrad") else ()
    return [kernel.pass_ not in own or own[i] == kernel.pass_ for i in range(inputs)]


def _gradient_error(kernel: Kernel, definition: Definition) -> float:
    """Difference of two directional derivatives, relative to the norms that enter them."""
    inputs = definition.inputs()
    if _bf16_bound(kernel):
        inputs = [x.astype(np.float32) for x in inputs]
    chosen = _differentiated(kernel, len(inputs))
    tensors = [lamina.tensor(x, requires_grad=c) for x, c in zip(inputs, chosen, strict=True)]
    y = definition.call(LAMINA, kernel.algo, *tensors)
    rng = np.random.default_rng(1)
    grad_y = rng.normal(size=y.shape)
    directions = [rng.normal(size=x.shape) * c for x, c in zip(inputs, chosen, strict=True)]
    y.backward(grad_y)
    if sum(k.backend == kernel.backend for k in lamina.kernels(kernel.op, kernel.pass_)) > 1:
        _expect(kernel)  # the only kernel of a backend cannot be missed
    ours = 0.0
    for tensor, direction in zip(tensors, directions, strict=True):
        if tensor.grad is not None:
            ours += float((tensor.grad.data * direction).sum())
    inputs = [x.astype(np.float64) for x in inputs]
    ends = [
        definition.formula(*(x + sign * STEP * d for x, d in zip(inputs, directions, strict=True)))
        for sign in (1, -1)
    ]
    expected = float(((ends[0] - ends[1]) / (2 * STEP) * grad_y).sum())
    return abs(ours - expected) / max(float(np.abs(ends[0]).max()) * grad_y.size, 1.0)


def _bf16_bound(kernel: Kernel) -> int:
    return BF16.get(kernel.algo.rpartition("_")[2], 0)


def _has_unit(kernel: Kernel) -> bool:
    unit = _C.bf16_unit()
    return unit in ("amx", "amx-model") or (unit != "" and kernel.algo.endswith("_bf16"))


def check_kernel(kernel: Kernel) -> tuple[float, float]:
    """(error, bound) of one kernel over all definitions that it can run.

    The error is infinite where there is none, or where another kernel ran in its place.
    """
    forward = kernel.pass_ == "fprop"
    measure = _forward_error if forward else _gradient_error
    precision = "medium" if _bf16_bound(kernel) else lamina.get_float32_precision()
    errors = []
    for definition in definitions_of(kernel.op, kernel.backend):
        try:
            with lamina.backend(kernel.backend), lamina.set_float32_precision(precision):
                errors.append(measure(kernel, definition))
        except NotRun:
            errors.append(float("inf"))
        except ValueError as error:
            if "algo=" not in str(error):  # else the algorithm refuses this shape
                raise
    bound = (FORWARD_BOUND if forward else GRADIENT_BOUND) * (_bf16_bound(kernel) or 1)
    return max(errors, default=float("inf")), bound


def run_checks(console: Console) -> int:
    """Prints a table; returns the number of kernels whose error is above the bound."""
    table = Table("backend", "kernel", "pass", "algorithm", "error", "bound", "")
    failures = 0
    kernels = [k for k in lamina.kernels() if _has_unit(k) or not _bf16_bound(k)]
    for kernel in kernels:
        error, bound = check_kernel(kernel)
        good = error <= bound
        failures += not good
        verdict = "[green]ok[/green]" if good else "[red]WRONG[/red]"
        names = kernel.backend, kernel.op, kernel.pass_, kernel.algo
        table.add_row(*names, f"{error:.1e}", f"{bound:.1e}", verdict)
    console.print(table)
    console.print(f"{table.row_count - failures} of {table.row_count} kernels agree with NumPy")
    if len(kernels) < len(lamina.kernels()):
        console.print("Not checked: kernels of the tile unit of AMX (LAMINA_ISA=amx-model does)")
    return failures
