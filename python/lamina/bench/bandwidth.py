"""`lamina bandwidth`: kernels bound by memory, beyond the caches, beside copies.

Bytes are those of the formula: every operand read once and every result written once, whatever the
kernel does. A result written past the caches, as the copy's is, costs no more than that; one
written through them is read first. Copies and kernels take turns; a percentage is the median over
the rounds. Backward passes are timed alone, on a graph that is kept, with the gradient given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

import lamina

from .. import functional as F
from .definitions import DEFINITIONS
from .timing import Copies, interleaved, keep_memory

_LARGE = (8, 64, 224, 224)  # vgg16's first activations: 103 MB
_PLANES = (8, 256, 112, 112)
PARAMETER = 4096, 6144
_OPTIMIZERS: dict[str, tuple[Callable[..., Any], int]] = {  # and the states of a parameter
    "sgd": (lamina.optim.SGD, 0),
    "sgd_momentum": (lambda p, **options: lamina.optim.SGD(p, momentum=0.9, **options), 1),
    "adam": (lamina.optim.Adam, 2),
    "adamw": (lamina.optim.AdamW, 2),
    "rmsprop": (lamina.optim.RMSprop, 1),
}


class Streamed(NamedTuple):
    """A definition on tensors beyond the caches.

    saved: what the gradient's formula reads beside the result's gradient: the input "x", the result
    "y", a maximum's "index", or nothing. indexed: whether forward reads 8 bytes for each x, too.
    """

    definition: str
    shapes: tuple[tuple[int, ...], ...] = (_LARGE,)
    saved: str = ""
    indexed: bool = False


STREAMED = (
    Streamed("relu", saved="y"),
    Streamed("leaky_relu", saved="x"),
    Streamed("sigmoid", saved="y"),
    Streamed("tanh", saved="y"),
    Streamed("gelu", saved="x"),
    Streamed("silu", saved="x"),
    Streamed("prelu", (_LARGE, (64,)), "x"),
    Streamed("softmax", ((32768, 1000),), "y"),
    Streamed("log_softmax", ((1024, 32000),), "y"),
    Streamed("cross_entropy", ((1024, 32000),), "x"),
    Streamed("dropout"),
    Streamed("batch_norm", (_LARGE, (64,), (64,)), "x"),
    Streamed("group_norm_32", (_LARGE, (64,), (64,)), "x"),
    Streamed("layer_norm", ((32768, 1024), (1024,), (1024,)), "x"),
    Streamed("local_response_norm", ((32, 96, 96, 96),), "x"),
    Streamed("max_pool", saved="index"),
    Streamed("max_pool_3x3", (_PLANES,), "index"),
    Streamed("max_pool_3x3s2", saved="index"),
    Streamed("avg_pool"),
    Streamed("avg_pool_3x3"),
    Streamed("global_avg_pool", ((64, 2048, 14, 14),)),
    Streamed("adaptive_avg_pool", ((4, 2048, 60, 60),)),
    Streamed("max_unpool", ((8, 64, 112, 112),), "index", True),
    Streamed("resample", ((8, 64, 112, 112),)),
    Streamed("nearest", ((8, 64, 112, 112),)),
    Streamed("permute", ((8, 63, 224, 224),)),
    Streamed("im2col", ((8, 64, 56, 56),)),
)


class Timed(NamedTuple):
    """A call and the bytes of its formula."""

    kernel: str
    pass_: str
    moved: int
    call: Callable[[], Any]


def passes(row: Streamed) -> list[Timed]:
    """Forward and backward."""
    call = DEFINITIONS[row.definition].call
    numbers = np.random.default_rng(0).standard_normal(1 << 20, np.float32)
    operands = [np.resize(numbers, shape) for shape in row.shapes]
    leaves = [lamina.Tensor(x, requires_grad=True) for x in operands]
    y = call(F, "auto", *leaves)
    seed = np.resize(numbers, y.shape)
    ends = sum(x.nbytes for x in operands) + seed.nbytes
    indices = 8 * min(operands[0].size, seed.size)
    saved = {"": 0, "x": operands[0].nbytes, "y": seed.nbytes, "index": indices}[row.saved]
    return [
        Timed(
            row.definition,
            "forward",
            ends + (indices if row.indexed else 0),
            lambda: call(F, "auto", *operands),
        ),
        Timed(
            row.definition,
            "backward",
            ends + saved,
            lambda: lamina.autograd.grad(y, leaves, seed, retain_graph=True),
        ),
    ]


def step(name: str) -> Timed:
    """An optimiser's step."""
    make, states = _OPTIMIZERS[name]
    parameter = lamina.nn.Parameter(np.ones(PARAMETER, np.float32))
    parameter.grad = lamina.Tensor(np.full(PARAMETER, 1e-3, np.float32))
    moved = (3 + 2 * states) * parameter.data.nbytes
    return Timed(name, "step", moved, make([parameter], lr=1e-3).step)


def measure(timed: Timed, copies: Copies, seconds: float) -> dict[str, Any]:
    """One row: medians over rounds of one copy and one call."""
    times = interleaved({"copy": copies.copy, "kernel": timed.call}, seconds)
    return {
        "kernel": timed.kernel,
        "pass": timed.pass_,
        "mbytes": timed.moved / 1e6,
        "ms": times.median("kernel") * 1e3,
        "gbytes": timed.moved / times.median("kernel") / 1e9,
        "copy_gbytes": copies.moved / times.median("copy") / 1e9,
        "copy_percent": 100 * times.ratio("kernel", of="copy") * timed.moved / copies.moved,
        "foreign": round(times.foreign, 3),
    }


def run(console: Console, part: str, seconds: float) -> dict[str, Any]:
    """Measures and prints the kernels whose name contains `part`; returns the report."""
    kept = keep_memory(True)
    threads = lamina.get_num_threads()
    copies = Copies(threads)
    title = f"float32, {threads} threads, {lamina.isa()}"
    table = Table("kernel", "pass", title=title)
    for column in ("MB", "ms", "GB/s", "copy GB/s", "% of copy"):
        table.add_column(column, justify="right")
    rows: list[dict[str, Any]] = []
    wanted = [lambda row=row: passes(row) for row in STREAMED if part in row.definition]
    wanted += [lambda name=name: [step(name)] for name in _OPTIMIZERS if part in name]
    if not wanted:
        known = ", ".join([*dict.fromkeys(row.definition for row in STREAMED), *_OPTIMIZERS])
        raise ValueError(f"bandwidth: no kernel's name contains {part!r}; there are {known}")
    for make in wanted:
        for timed in make():
            row = measure(timed, copies, seconds)
            rows.append(row)
            numbers = (f"{value:.1f}" for value in list(row.values())[2:-1])
            table.add_row(row["kernel"], row["pass"], *numbers)
    console.print(table)
    return {"threads": threads, "isa": lamina.isa(), "memory_kept": kept, "rows": rows}
