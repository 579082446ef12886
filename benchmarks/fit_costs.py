"""Measures every algorithm of convolution on many layers: how good is the cost rule's choice?

    python benchmarks/fit_costs.py times.json --threads 1               # measure, then report
    python benchmarks/fit_costs.py times.json --report                  # report only
    python benchmarks/fit_costs.py times.json --families suite --pass wgrad --layers rn_
    python benchmarks/fit_costs.py drawn.json --families drawn:11:75    # 75 at random, seed 11
    python benchmarks/fit_costs.py lines.json --families drawn_lines:11:75 drawn_volumes:11:75

Measured rows are kept in the file: a run that was interrupted goes on. The report, for each pass:

  regret    the time of the algorithm that `auto` takes over that of the fastest candidate, as
            a geometric mean and the worst layers; the same for a choice by the fitted costs
  scale     by how much the rule's cost of an algorithm should be multiplied (direct is 1), and the
            factor within which two thirds of its layers then lie: large where the form is wrong
  fitted    time in units of direct's multiply-adds, as a sum of nonnegative constants times
            multiply-adds, elements of x, weight and y, bytes of workspace, and calls
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lamina
import numpy as np
from lamina import _C
from lamina.bench.compare import CONV_FAMILIES
from lamina.bench.drawn_layers import DRAWN, drawn_layers
from lamina.bench.jobs import geometry_of
from lamina.bench.layers import ConvLayer
from lamina.bench.peers import conv_call, load_peers
from lamina.bench.timing import interleaved, keep_memory
from lamina.functional.conv import conv_shape

PASSES = ("fprop", "dgrad", "wgrad")
FEATURES = ("macs", "x", "weight", "y", "workspace", "call")
FAR = 3.0  # what is this many times slower than the fastest is timed once


def shape_of(layer: ConvLayer, batch: int, pass_: str) -> tuple[Any, str, ConvLayer]:
    """The kernels' shape and pass: those of the convolution under a transposed one."""
    if layer.transposed:
        layer = layer.underlying
        pass_ = {"fprop": "dgrad", "dgrad": "fprop", "wgrad": "wgrad"}[pass_]
    shape = conv_shape(geometry_of("fit", layer), layer.x_shape(batch), layer.weight_shape)
    return shape, pass_, layer


def measure(layer: ConvLayer, batch: int, pass_: str, seconds: float) -> dict[str, float]:
    """Seconds of each algorithm that can run it."""
    rng = np.random.default_rng(0)
    sizes = layer.x_shape(batch), layer.weight_shape, (layer.k,), layer.y_shape(batch)
    arrays = [rng.normal(size=size).astype(np.float32) for size in sizes]
    calls: dict[str, Callable[[], Any]] = {}
    for peer in load_peers([], algorithms=True)[1:]:
        call = conv_call(peer, layer, pass_, *arrays)
        if call is not None:
            calls[peer.name.removeprefix("lamina.")] = call
    once = {algo: _seconds(call) for algo, call in calls.items()}
    near = {algo: call for algo, call in calls.items() if once[algo] <= FAR * min(once.values())}
    times = interleaved(near, seconds)
    return once | {algo: times.median(algo) for algo in near}


def _seconds(call: Callable[[], Any]) -> float:
    """Of the second call."""
    for _ in range(2):
        start = time.perf_counter()
        call()
        elapsed = time.perf_counter() - start
    return elapsed


def row_of(family: str, layer: ConvLayer, batch: int, pass_: str, seconds: float) -> dict[str, Any]:
    return {
        "family": family,
        "name": f"{layer.name}_b{batch}",
        "pass": pass_,
        "seconds": measure(layer, batch, pass_, seconds),
    }


# The report


def described(row: dict[str, Any]) -> dict[str, Any] | None:
    """The row with what the library says of it now; None for a layer that it has no more."""
    layers = {f"{layer.name}_b{batch}": (layer, batch) for layer, batch in _pairs(row["family"])}
    if row["name"] not in layers:
        return None
    shape, pass_, layer = shape_of(*layers[row["name"]], row["pass"])
    batch = layers[row["name"]][1]
    candidates = [a for a in _C.conv_candidates(pass_, shape) if a in row["seconds"]]
    features, costs = {}, {}
    for algo in row["seconds"]:
        costs[algo] = _C.conv_cost(algo, pass_, shape)
        sizes = (layer.x_shape(batch), layer.weight_shape, layer.y_shape(batch))
        features[algo] = [shape.macs, *map(math.prod, sizes), _workspace(pass_, shape, algo), 1]
    _C.conv_plan("fit", pass_, shape)
    return {
        **row,
        "kernel_pass": pass_,
        "auto": lamina.last_plan().algo,
        "candidates": candidates,
        "cost": costs,
        "features": features,
    }


@functools.cache
def _pairs(family: str) -> tuple[tuple[ConvLayer, int], ...]:
    name, *numbers = family.split(":")
    if numbers:
        seed, count = map(int, numbers)
        return drawn_layers(seed, count, DRAWN[name])
    return CONV_FAMILIES[family]


def _workspace(pass_: str, shape: Any, algo: str) -> int:
    _C.conv_plan("fit", pass_, shape, algo)
    return lamina.last_plan().workspace_bytes


def fit(features: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Nonnegative constants of the least squares of relative errors."""
    relative = features / seconds[:, None]
    scale = np.maximum(np.abs(relative).max(0), 1e-300)
    active = [i for i in range(features.shape[1]) if relative[:, i].any()]
    while active:
        solution = np.linalg.lstsq(relative[:, active] / scale[active], np.ones(len(seconds)))[0]
        if solution.min() >= 0:
            found = np.zeros(features.shape[1])
            found[active] = solution / scale[active]
            return found
        del active[int(solution.argmin())]
    return np.zeros(features.shape[1])


def regret(rows: list[dict[str, Any]], choice: Callable[[dict[str, Any]], str]) -> list[float]:
    """Time of the choice over that of the fastest candidate, row by row."""
    return [
        row["seconds"][choice(row)] / min(row["seconds"][a] for a in row["candidates"])
        for row in rows
    ]


def report(rows: list[dict[str, Any]]) -> None:
    for pass_ in PASSES:
        several = [row for row in rows if row["kernel_pass"] == pass_ and row["candidates"]]
        if several:
            _report_pass(pass_, several)


def _report_pass(pass_: str, rows: list[dict[str, Any]]) -> None:
    algorithms = sorted({algo for row in rows for algo in row["seconds"]})
    scales = _scales(rows, algorithms)
    constants = {
        algo: fit(
            np.array([row["features"][algo] for row in rows if algo in row["seconds"]], float),
            np.array([row["seconds"][algo] for row in rows if algo in row["seconds"]]),
        )
        for algo in algorithms
    }

    def by_fit(row: dict[str, Any]) -> str:
        return min(row["candidates"], key=lambda a: float(constants[a] @ row["features"][a]))

    def by_scale(row: dict[str, Any]) -> str:
        return min(row["candidates"], key=lambda a: scales[a][0] * row["cost"][a])

    print(f"== {pass_}: {len(rows)} layers")
    rule = regret(rows, lambda row: row["auto"])
    for name, values in {
        "the rule": rule,
        "the rule, scaled": regret(rows, by_scale),
        "fitted costs": regret(rows, by_fit),
    }.items():
        mean = math.exp(statistics.fmean(map(math.log, values)))
        missed = sum(value > 1.05 for value in values)
        print(f"regret of {name:17} {mean:.3f}, worst {max(values):.2f}, {missed} above 1.05")
    for value, row in sorted(zip(rule, rows, strict=True), key=lambda pair: -pair[0])[:8]:
        best = min(row["candidates"], key=row["seconds"].__getitem__)
        if value > 1.02:
            print(f"  {row['name']:18} {row['auto']:14} instead of {best:14} {value:.2f}")
    unit = constants["direct"][0] or 1.0
    for algo in algorithms:
        scale, spread, count = scales[algo]
        text = " ".join(
            f"{name} {value / unit:.3g}"
            for name, value in zip(FEATURES, constants[algo], strict=True)
            if value
        )
        print(f"{algo:14} {count:3} layers, scale {scale:5.2f} within {spread:.2f}; fitted: {text}")


def _scales(
    rows: list[dict[str, Any]], algorithms: list[str]
) -> dict[str, tuple[float, float, int]]:
    """(median of seconds over cost, relative to direct's; its spread as a factor; layers)."""
    logs = {
        algo: [
            math.log(row["seconds"][algo] / row["cost"][algo])
            for row in rows
            if algo in row["seconds"]
        ]
        for algo in algorithms
    }
    base = statistics.median(logs["direct"])
    return {
        algo: (
            math.exp(statistics.median(values) - base),
            math.exp(statistics.pstdev(values)),
            len(values),
        )
        for algo, values in logs.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("path", type=Path, help="where measured rows are kept")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    parser.add_argument("--families", nargs="+", default=["suite", "held_out"])
    parser.add_argument("--pass", dest="passes", nargs="+", choices=PASSES, default=list(PASSES))
    parser.add_argument("--layers", default="", help="only names that contain this")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=0.3, help="time per layer and pass")
    options = parser.parse_args()
    if options.threads:
        lamina.set_num_threads(options.threads)
    known = json.loads(options.path.read_text()) if options.path.exists() else {"rows": []}
    threads = known.setdefault("threads", lamina.get_num_threads())
    if threads != lamina.get_num_threads():
        parser.error(f"{options.path} has rows of {threads} threads")
    keep_memory(True)
    done = {(row["name"], row["pass"]) for row in known["rows"]}
    for family in [] if options.report else options.families:
        for layer, batch in _pairs(family):
            name = f"{layer.name}_b{batch}"
            for pass_ in options.passes:
                if options.layers in name and (name, pass_) not in done:
                    known["rows"].append(row_of(family, layer, batch, pass_, options.seconds))
                    options.path.write_text(json.dumps(known) + "\n")
    report([found for row in known["rows"] if (found := described(row))])


if __name__ == "__main__":
    main()
