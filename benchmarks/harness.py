"""The shared part of the benchmarks: one case per layer, pass and kernel of a family."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import lamina
import pytest
from lamina.bench.definitions import DEFINITIONS
from lamina.bench.jobs import ERROR_BOUND, Job, make_job, passes_of
from lamina.bench.layers import FAMILIES, ConvLayer, PlainLayer


class Case(NamedTuple):
    layer: ConvLayer | PlainLayer
    pass_: str
    algo: str

    def __str__(self) -> str:
        return f"{self.layer.name}-{self.pass_}-{self.algo}"


def _algorithms(layer: ConvLayer | PlainLayer, pass_: str) -> list[str]:
    if isinstance(layer, ConvLayer):
        return [kernel.algo for kernel in lamina.kernels("conv", pass_, "cpu")]
    op = DEFINITIONS[layer.definition].op or layer.definition
    return [kernel.algo for kernel in lamina.kernels(op, "fprop", "cpu")]


def cases(family: str) -> list[Case]:
    """Every case of a family of `lamina bench --list`, those a kernel will refuse included."""
    return [
        Case(layer, pass_, algo)
        for layer in FAMILIES[family]
        for pass_ in passes_of(layer)
        for algo in _algorithms(layer, pass_)
    ]


@lru_cache(maxsize=1)  # the cases of a layer and pass follow each other
def _job(layer: ConvLayer | PlainLayer, pass_: str) -> Job:
    return make_job(layer, pass_, batch=1)


def measure(benchmark: Any, case: Case) -> None:
    """Judges one run, then times."""
    job = _job(case.layer, case.pass_)
    run = job.candidates.get(f"cpu.{case.algo}")
    if run is None:
        pytest.skip(f"{case.algo} cannot run this layer")
    error = job.error(run())
    assert error <= ERROR_BOUND
    benchmark.group = f"{case.layer.name} {case.pass_}"
    benchmark.extra_info.update(error=error, gflop=job.flops / 1e9, mbytes=job.moved / 1e6)
    benchmark(run)
