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
from .jobs import PASSES, PLAIN_PASSES, conv_job, make_job
from .layers import FAMILIES, ConvLayer

# A layer whose operands stay in the caches: with the matrix product, the ceiling of GFLOP/s.
_CEILING = ConvLayer("ceiling", 64, 56, 64, 3, 1, 1)


def machine_roofline() -> dict[str, float]:
    """This machine's measured ceilings.

    gflops: the faster of the packed matrix product and the direct convolution, operands in cache;
    gbytes: a copy from memory to memory.
    """
    m, n, k = 384, 4608, 1152
    a, b = np.ones((m, k), np.float32), np.ones((k, n), np.float32)
    c = np.empty((m, n), np.float32)
    source, target = np.ones(1 << 24, np.float32), np.empty(1 << 24, np.float32)
    gemm = _best(lambda: _C.gemm(a, b, c, None, 1, m, n, k, False, False), 20)
    conv = conv_job(_CEILING, "fprop", 1, ref=False, torch=False)
    direct = _best(conv.candidates["cpu.direct"], 40)
    copy = _best(lambda: np.copyto(target, source), 5)
    rate = max(2 * m * n * k / gemm, conv.flops / direct)
    return {"gflops": rate / 1e9, "gbytes": 2 * source.nbytes / copy / 1e9}


def _best(function: Callable[[], Any], rounds: int) -> float:
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def relative_error(y: np.ndarray, expected: np.ndarray) -> float:
    """Root mean square error over the expected values' standard deviation."""
    return float(np.sqrt(np.mean((y - expected) ** 2)) / max(expected.std(), 1e-30))


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
    job = make_job(family, layer, pass_, batch, ref, torch)
    # The first run is also the warm-up.
    errors = {name: relative_error(run(), job.expected) for name, run in job.candidates.items()}
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


def choose(family: str, layers: str) -> list[tuple[str, Any]]:
    """(family, layer) pairs: those of a family (or "all") whose name contains `layers`.

    Raises ValueError, with the nearest names, where there are none.
    """
    if family != "all" and family not in FAMILIES:
        raise ValueError(_unknown("family", family, ["all", *FAMILIES]))
    families = FAMILIES if family == "all" else {family: FAMILIES[family]}
    pairs = [(name, layer) for name, several in families.items() for layer in several]
    chosen = [(name, layer) for name, layer in pairs if layers in layer.name]
    if not chosen:
        raise ValueError(_unknown("layer", layers, [layer.name for _, layer in pairs]))
    return chosen


def _unknown(kind: str, name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.3) or known
    return f"no {kind} matches {name!r}; for example {', '.join(near)}"


def passes_of(family: str, wanted: str) -> tuple[str, ...]:
    """The passes of a family; ValueError for one it does not have."""
    known = PASSES.get(family, PLAIN_PASSES)
    if wanted == "all":
        return known
    if wanted not in known:
        raise ValueError(f"{family} has no pass {wanted!r}; use all or one of {', '.join(known)}")
    return (wanted,)


def bench(
    console: Console,
    family: str,
    layers: str,
    wanted: str,
    batch: int,
    seconds: float,
    torch: bool,
    ref: bool,
) -> dict[str, Any]:
    """Prints a table of the chosen layers; returns the rows as data."""
    chosen = choose(family, layers)
    jobs = [(name, layer, p) for name, layer in chosen for p in passes_of(name, wanted)]
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
    for name, layer, pass_ in jobs:
        found = bench_layer(name, layer, pass_, batch, seconds, torch, ref, roofline)
        for row in found:
            cells = [row["layer"], row["pass"], row["kernel"], f"{row['error']:.1e}"]
            cells += [f"{row['ms']:.3f}", f"{row['gflops']:.1f}" if row["gflops"] else ""]
            cells += [f"{row[k]:.1f}" for k in ("gbytes", "roofline_percent")]
            cells.append("" if row["vs_ref"] is None else f"{row['vs_ref']:.1f}")
            if torch:
                cells.append("" if row["vs_torch"] is None else f"{row['vs_torch']:.2f}")
            table.add_row(*cells, end_section=row is found[-1])
        rows += found
    console.print(table)
    return {"threads": threads, "isa": lamina.isa(), "roofline": roofline, "rows": rows}
