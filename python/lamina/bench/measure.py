"""`lamina bench`: error first, then time, of every kernel on every layer.

Kernels and peers take turns within each round, so that a change of the machine's clock meets all of
them; the figures are medians over the rounds.
"""

from __future__ import annotations

import difflib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import lamina

from .. import _C
from .jobs import ERROR_BOUND, conv_job, make_job, passes_of
from .layers import FAMILIES, ConvLayer
from .timing import Copies

# A layer whose operands stay in the caches: with the matrix product, the ceiling of GFLOP/s.
_CEILING = ConvLayer("ceiling", 64, 56, 64, 3, 1, 1)


def machine_roofline() -> dict[str, float]:
    """This machine's measured ceilings.

    gflops: the faster of the packed matrix product and the direct convolution, operands in cache;
    gbytes: the fastest copy from memory to memory, by as many threads as the kernels have.
    """
    m, n, k = 384, 4608, 1152
    a, b = np.ones((m, k), np.float32), np.ones((k, n), np.float32)
    c = np.empty((m, n), np.float32)
    gemm = _best(lambda: _C.gemm(a, b, c, None, 1, m, n, k, False, False), 20)
    conv = conv_job(_CEILING, "fprop", 1, ref=False, torch=False)
    direct = _best(conv.candidates["cpu.direct"], 40)
    copies = Copies(lamina.get_num_threads())
    rate = max(2 * m * n * k / gemm, conv.flops / direct)
    return {"gflops": rate / 1e9, "gbytes": copies.moved / copies.seconds / 1e9}


def _best(function: Callable[[], Any], rounds: int) -> float:
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def medians(candidates: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Median seconds of each candidate; the slow ones get fewer turns."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    spent = dict.fromkeys(candidates, 0.0)
    while any(spent[name] < seconds and len(times[name]) < 200 for name in candidates):
        for name, run in candidates.items():
            if spent[name] >= seconds or len(times[name]) >= 200:
                continue
            start = time.perf_counter()
            run()
            elapsed = time.perf_counter() - start
            times[name].append(elapsed)
            spent[name] += elapsed
    return {name: statistics.median(values) for name, values in times.items()}


def bench_layer(
    family: str,
    layer: Any,
    pass_: str,
    batch: int,
    seconds: float,
    torch: bool,
    ref: bool,
    roofline: dict[str, float],
) -> list[dict[str, Any]]:
    """One row per kernel that can run the pass of the layer."""
    job = make_job(layer, pass_, batch, ref, torch)
    # The first run is also the warm-up.
    errors = {name: job.error(run()) for name, run in job.candidates.items()}
    found = medians(job.candidates, seconds)
    floor = max(job.flops / roofline["gflops"], job.moved / roofline["gbytes"]) / 1e9
    base = next((seconds for name, seconds in found.items() if name.startswith("ref.")), None)
    return [
        {
            "family": family,
            "layer": layer.name,
            "pass": pass_,
            "batch": batch,
            "kernel": name,
            "error": errors[name],
            "wrong": not errors[name] <= ERROR_BOUND,
            "ms": median * 1e3,
            "gflops": job.flops / median / 1e9,
            "gbytes": job.moved / median / 1e9,
            "roofline_percent": 100 * floor / median,
            "intensity": job.flops / job.moved,
            "vs_ref": base / median if base else None,
            "vs_torch": found["torch"] / median if "torch" in found else None,
        }
        for name, median in found.items()
    ]


def choose(names: Sequence[str], layers: str = "") -> list[tuple[str, Any]]:
    """(family, layer) pairs: each name is a family, "all", a network, a layer or a part of one.

    `layers` keeps those whose name contains it. Raises ValueError, with the nearest names, for a
    name that matches nothing.
    """
    pairs = [(name, layer) for name, several in FAMILIES.items() for layer in several]
    kept: list[tuple[str, Any]] = []
    for name in names:
        # A network before a part of a name: lenet is not googlenet.
        exact = [
            (family, layer)
            for family, layer in pairs
            if name in ("all", family, layer.name, layer.name.partition(".")[0])
        ]
        found = exact or [pair for pair in pairs if name in pair[1].name]
        if not found:
            known = [*FAMILIES, *(layer.name for _, layer in pairs)]
            raise ValueError(_unknown("family or layer", name, ["all", *known]))
        kept += found
    chosen = [pair for pair in dict.fromkeys(kept) if layers in pair[1].name]
    if not chosen:
        raise ValueError(_unknown("layer", layers, [layer.name for _, layer in kept]))
    return chosen


def _unknown(kind: str, name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"near: {', '.join(near)}" if near else "lamina bench --list prints all"
    return f"bench: no {kind} matches {name!r}; {hint}"


def with_passes(chosen: list[tuple[str, Any]], wanted: str) -> list[tuple[str, Any, str]]:
    """(family, layer, pass) of every layer that has the pass; ValueError where none has it."""
    found = [(f, layer, p) for f, layer in chosen for p in passes_of(layer) if wanted in (p, "all")]
    if not found:
        known = dict.fromkeys(p for _, layer in chosen for p in passes_of(layer))
        raise ValueError(f"bench: pass must be all, {' or '.join(known)} here, got {wanted!r}")
    return found


def bench(
    console: Console,
    jobs: list[tuple[str, Any, str]],
    batch: int,
    seconds: float,
    torch: bool,
    ref: bool,
) -> dict[str, Any]:
    """Prints a table of the chosen layers and passes; returns the rows as data."""
    roofline = machine_roofline()
    threads = lamina.get_num_threads()
    table = Table(
        title=f"float32, batch {batch}, {threads} threads, {lamina.isa()}; this machine: "
        f"{roofline['gflops']:.0f} GFLOP/s in cache, {roofline['gbytes']:.0f} GB/s copy"
    )
    for column in ("layer", "pass", "kernel", "error", "ms", "GFLOP/s", "GB/s", "% roof", "x ref"):
        left = column in ("layer", "pass", "kernel")
        table.add_column(column, justify="left" if left else "right", no_wrap=True)
    if torch:
        table.add_column("x torch", justify="right")
    rows: list[dict[str, Any]] = []
    for family, layer, pass_ in jobs:
        found = bench_layer(family, layer, pass_, batch, seconds, torch, ref, roofline)
        for row in found:
            table.add_row(*_cells(row, torch), end_section=row is found[-1])
        rows += found
    console.print(table)
    return {"threads": threads, "isa": lamina.isa(), "roofline": roofline, "rows": rows}


def _cells(row: dict[str, Any], torch: bool) -> list[str]:
    """A row of numbers as a row of text."""
    error = f"{row['error']:.1e}"
    cells = [row["layer"], row["pass"], row["kernel"]]
    cells.append(f"[red]{error} WRONG[/red]" if row["wrong"] else error)
    cells += [f"{row['ms']:.3f}", f"{row['gflops']:.1f}" if row["gflops"] else ""]
    cells += [f"{row[key]:.1f}" for key in ("gbytes", "roofline_percent")]
    cells.append("" if row["vs_ref"] is None else f"{row['vs_ref']:.1f}")
    if torch:
        cells.append("" if row["vs_torch"] is None else f"{row['vs_torch']:.2f}")
    return cells
