"""`lamina bench`: error first, then time, of every kernel on every layer.

Kernels and peers take turns within each round, so that a change of the machine's clock meets all of
them; the figures are medians over the rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import lamina

from .. import _C
from .. import functional as F
from .layers import CONV, ConvLayer


def machine_roofline() -> dict[str, float]:
    """This machine's measured ceilings: GFLOP/s of the packed matrix product, GB/s of a copy."""
    m, n, k = 384, 4608, 1152  # whole blocks of the product, operands that stay in the cache
    a, b = np.ones((m, k), np.float32), np.ones((k, n), np.float32)
    c = np.empty((m, n), np.float32)
    source, target = np.ones(1 << 24, np.float32), np.empty(1 << 24, np.float32)
    gemm = _best(lambda: _C.gemm(a, b, c, None, 1, m, n, k, False, False), 20)
    copy = _best(lambda: np.copyto(target, source), 5)
    return {"gflops": 2 * m * n * k / gemm / 1e9, "gbytes": 2 * source.nbytes / copy / 1e9}


def _best(function: Callable[[], Any], rounds: int) -> float:
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def conv_reference(x: np.ndarray, weight: np.ndarray, layer: ConvLayer, channel: int) -> np.ndarray:
    """One output channel of the first image in float64, from the definition, by NumPy alone."""
    p, s, r = layer.padding, layer.stride, layer.kernel
    per_group = layer.c // layer.groups
    first = channel // (layer.k // layer.groups) * per_group
    padded = np.pad(x[0, first : first + per_group].astype(np.float64), ((0, 0), (p, p), (p, p)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (r, r), axis=(1, 2))[:, ::s, ::s]
    return np.einsum("chwrs,crs->hw", windows, weight[channel].astype(np.float64))


def relative_error(y: np.ndarray, x: np.ndarray, weight: np.ndarray, layer: ConvLayer) -> float:
    """Root mean square error over the output's standard deviation, on a few channels."""
    channels = sorted({0, layer.k // 2, layer.k - 1})
    expected = np.stack([conv_reference(x, weight, layer, k) for k in channels])
    return float(np.sqrt(np.mean((y[0, channels] - expected) ** 2)) / expected.std())


def _torch_candidate(x: np.ndarray, weight: np.ndarray, layer: ConvLayer) -> Callable[[], Any]:
    try:
        import torch
    except ImportError:
        raise SystemExit("bench: --vs torch needs PyTorch installed") from None
    torch.set_num_threads(lamina.get_num_threads())
    tx, tw = torch.from_numpy(x), torch.from_numpy(weight)

    def run() -> Any:
        with torch.no_grad():
            return torch.nn.functional.conv2d(
                tx, tw, None, layer.stride, layer.padding, 1, layer.groups
            ).numpy()

    return run


def _lamina_candidate(
    x: np.ndarray, weight: np.ndarray, layer: ConvLayer, backend: str, algo: str
) -> Callable[[], Any]:
    def run() -> Any:
        with lamina.backend(backend):
            return F.conv2d(
                x, weight, None, layer.stride, layer.padding, 1, layer.groups, algo=algo
            )

    return run


def _candidates(
    x: np.ndarray, weight: np.ndarray, layer: ConvLayer, torch: bool, ref: bool
) -> dict[str, Callable[[], Any]]:
    found: dict[str, Callable[[], Any]] = {}
    for kernel in lamina.kernels("conv", "fprop"):
        if kernel.backend == "ref" and not ref:
            continue
        run = _lamina_candidate(x, weight, layer, kernel.backend, kernel.algo)
        found[f"{kernel.backend}.{kernel.algo}"] = run
    if torch:
        found["torch"] = _torch_candidate(x, weight, layer)
    return found


def _medians(candidates: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
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
    layer: ConvLayer,
    batch: int,
    seconds: float,
    torch: bool,
    ref: bool,
    roofline: dict[str, float],
) -> list[dict[str, Any]]:
    """One row per kernel that can run the layer."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=layer.x_shape(batch)).astype(np.float32)
    weight = rng.normal(size=layer.weight_shape).astype(np.float32)
    candidates, errors = {}, {}
    for name, run in _candidates(x, weight, layer, torch, ref).items():
        try:
            y = run()  # also the warm-up
        except ValueError:
            continue  # refused: this algorithm cannot run this layer
        candidates[name], errors[name] = run, relative_error(y, x, weight, layer)
    medians = _medians(candidates, seconds)
    flops = 2.0 * y.size * int(np.prod(layer.weight_shape[1:]))
    moved = x.nbytes + weight.nbytes + y.nbytes
    floor = max(flops / roofline["gflops"], moved / roofline["gbytes"]) / 1e9
    return [
        {
            "layer": layer.name,
            "batch": batch,
            "kernel": name,
            "error": errors[name],
            "ms": median * 1e3,
            "gflops": flops / median / 1e9,
            "gbytes": moved / median / 1e9,
            "roofline_percent": 100 * floor / median,
            "intensity": flops / moved,
            "vs_ref": medians["ref.direct"] / median if "ref.direct" in medians else None,
            "vs_torch": medians["torch"] / median if "torch" in medians else None,
        }
        for name, median in medians.items()
    ]


def bench_conv(
    console: Console, layers: str, batch: int, seconds: float, torch: bool, ref: bool
) -> dict[str, Any]:
    """Prints a table of every layer whose name contains `layers`; returns the rows as data."""
    chosen = [layer for layer in CONV if layers in layer.name]
    if not chosen:
        raise SystemExit(f"bench: no layer's name contains {layers!r}")
    roofline = machine_roofline()
    threads = lamina.get_num_threads()
    title = (
        f"conv fprop, float32, batch {batch}, {threads} threads, {lamina.isa()}; this machine: "
        f"{roofline['gflops']:.0f} GFLOP/s matrix product, {roofline['gbytes']:.0f} GB/s copy"
    )
    table = Table(title=title)
    for column in ("layer", "kernel", "error", "ms", "GFLOP/s", "GB/s", "% roof", "x ref"):
        left = column in ("layer", "kernel")
        table.add_column(column, justify="left" if left else "right", no_wrap=True)
    if torch:
        table.add_column("x torch", justify="right")
    rows: list[dict[str, Any]] = []
    for layer in chosen:
        found = bench_layer(layer, batch, seconds, torch, ref, roofline)
        for row in found:
            cells = [row["layer"], row["kernel"], f"{row['error']:.1e}", f"{row['ms']:.3f}"]
            cells += [f"{row[k]:.1f}" for k in ("gflops", "gbytes", "roofline_percent")]
            cells.append("" if row["vs_ref"] is None else f"{row['vs_ref']:.1f}")
            if torch:
                cells.append("" if row["vs_torch"] is None else f"{row['vs_torch']:.2f}")
            table.add_row(*cells, end_section=row is found[-1])
        rows += found
    console.print(table)
    return {"threads": threads, "isa": lamina.isa(), "roofline": roofline, "rows": rows}
