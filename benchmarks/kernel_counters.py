"""What every CUDA kernel asks of memory and arithmetic, counted on the CPU, next to the ideal.

    python benchmarks/kernel_counters.py            the table, to the terminal
    python benchmarks/kernel_counters.py --write    docs/kernel-counters.md, and the numbers that
                                                    tests/test_kernel_counters.py holds

Each kernel runs once under lamina.backend("simt_check"), in float32, on the small shapes below. The
counts are exact and the same on every machine: no time is measured.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import lamina
import numpy as np
from lamina import _C, simt
from lamina.bench.definitions import DEFINITIONS, LAMINA
from lamina.functional.conv import Geometry, conv_shape, output_size
from lamina.known import Known

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "kernel-counters.md"
NUMBERS = ROOT / "benchmarks" / "results" / "kernel-counters.json"

# Shapes of every operation's inputs (lamina/bench/definitions.py): whole vectors, several blocks.
SHAPES: dict[str, tuple[tuple[int, ...], ...]] = {
    "gelu": ((4, 16, 32, 32),),
    "prelu": ((4, 16, 16, 16), (16,)),
    "softmax": ((64, 512),),
    "cross_entropy": ((64, 256),),
    "dropout": ((64, 512),),
    "batch_norm": ((8, 16, 16, 16), (16,), (16,)),
    "layer_norm": ((64, 512), (512,), (512,)),
    "local_response_norm": ((2, 16, 16, 16),),
    "lstm_cell": ((32, 64), (32, 64), (32, 64), (256, 64), (256, 64)),
    "gru_cell": ((32, 64), (32, 64), (192, 64), (192, 64)),
    "gemm": ((128, 64), (128, 64)),
    "gemm (tf32)": ((128, 64), (128, 64)),
    "im2col": ((2, 8, 16, 16),),
    "max_pool": ((2, 16, 32, 32),),
    "avg_pool": ((2, 16, 32, 32),),
    "max_unpool": ((2, 16, 32, 32),),
    "roi_pool": ((2, 8, 16, 16),),
    "roi_align": ((2, 8, 16, 16),),
    "nms": ((4,),),
    "resample": ((2, 16, 16, 16),),
    "permute": ((2, 24, 16, 16),),
    "adam": ((64, 256),) * 4,
}

TF32 = " (tf32)"  # the same with tensor cores, lamina.set_float32_precision("high")
WITHOUT_GRADIENT = {"nms", "adam"}


class Layer(NamedTuple):
    """A convolution: the algorithms that should run it, and its geometry."""

    algos: tuple[str, ...]
    x: tuple[int, ...]
    weight: tuple[int, ...]
    padding: int
    groups: int = 1


LAYERS = (
    Layer(("depthwise",), (2, 16, 32, 32), (16, 1, 3, 3), 1, 16),
    Layer((), (2, 32, 16, 16), (32, 32, 3, 3), 1),  # all others
)


class Counts(NamedTuple):
    """Sums over the launches of one call of a kernel."""

    sectors: int
    ideal_sectors: int
    wavefronts: int
    ideal_wavefronts: int
    flops: int
    flops_by_definition: float  # 0: not known
    moved: int  # bytes of sectors asked for

    def ratios(self) -> dict[str, float]:
        """Each count over its ideal, where there is one."""
        pairs = {
            "sectors": (self.sectors, self.ideal_sectors),
            "wavefronts": (self.wavefronts, self.ideal_wavefronts),
            "flops": (self.flops, self.flops_by_definition),
        }
        return {name: round(a / b, 3) for name, (a, b) in pairs.items() if b}


def counts(report: simt.Report, flops: float) -> Counts:
    def total(name: str) -> int:
        return sum(getattr(line, name) for line in report.requests)

    return Counts(
        total("sectors"),
        total("ideal_sectors"),
        total("wavefronts"),
        total("ideal_wavefronts"),
        report.counters.flops + report.counters.mma_flops,
        flops,
        32 * total("sectors"),
    )


@contextmanager
def by_kernel(found: dict[str, simt.Report]) -> Iterator[None]:
    """Collects a report for each kernel that the block's calls of the extension run, the first.

    Known calls go to their kernels without passing here: there are none in the block.
    """
    owners = [_C, *(value for value in vars(_C).values() if isinstance(value, type))]
    functions = [
        (owner, name, function)
        for owner in owners
        for name, function in list(vars(owner).items())
        if callable(function) and not isinstance(function, type)
        if not name.startswith("_") and "plan" not in name
    ]

    def watched(function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            before = simt.counters().launches
            if before == 0:
                simt.clear()
            result = function(*arguments, **options)
            if simt.counters().launches > before:
                plan = lamina.last_plan()
                report = simt.Report()
                report.findings, report.requests = simt.findings(), simt.requests()
                report.counters = simt.counters()
                found.setdefault(f"{plan.op} {plan.pass_} {plan.algo}", report)
                simt.clear()
            return result

        return call

    modules = [module for name, module in sys.modules.items() if name.startswith("lamina")]
    known = [x for module in modules for x in vars(module).values() if isinstance(x, Known)]
    runs = [(calls, calls.run) for calls in known]
    for owner, name, function in functions:
        setattr(owner, name, watched(function))
    for calls in known:
        calls.run = lambda *arguments: None
    try:
        simt.clear()
        with lamina.backend("simt_check"):
            yield
    finally:
        for owner, name, function in functions:
            setattr(owner, name, function)
        for calls, run in runs:
            calls.run = run


def plain_reports() -> dict[str, tuple[simt.Report, float, str]]:
    """kernel -> report, operations by definition, shape; of everything but convolution."""
    result: dict[str, tuple[simt.Report, float, str]] = {}
    for label, shapes in SHAPES.items():
        name, tf32 = label.removesuffix(TF32), label.endswith(TF32)
        definition = DEFINITIONS[name]
        op = definition.op or name
        if not lamina.kernels(op, backend="simt_check"):
            continue
        rng = np.random.default_rng(0)
        arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
        found: dict[str, simt.Report] = {}
        with by_kernel(found), lamina.set_float32_precision("high" if tf32 else "highest"):
            train = name not in WITHOUT_GRADIENT
            inputs = [lamina.tensor(a, requires_grad=True) if train else a for a in arrays]
            y = definition.call(LAMINA, "auto", *inputs)
            if train:
                y.backward(rng.normal(size=y.shape).astype(np.float32))
        flops = definition.work * arrays[0].size
        if name == "gemm":
            flops = 2.0 * shapes[0][0] * shapes[0][1] * shapes[1][0]
        text = ", ".join("x".join(map(str, shape)) for shape in shapes)
        for kernel, report in found.items():
            if kernel.startswith(f"{op} "):
                known = flops if " fprop " in kernel or name == "gemm" else 0.0
                result.setdefault(kernel + TF32 * tf32, (report, known, text))
    return result


def conv_reports() -> dict[str, tuple[simt.Report, float, str]]:
    """The same of convolution, every pass and algorithm."""
    result: dict[str, tuple[simt.Report, float, str]] = {}
    for layer in LAYERS:
        pads = ((layer.padding,) * 2,) * 2
        geometry = Geometry("counters", (1, 1), pads, (1, 1), layer.groups, "auto", -1)
        shape = conv_shape(geometry, layer.x, layer.weight)
        out = output_size(geometry, layer.x[2:], layer.weight[2:])
        rng = np.random.default_rng(0)
        sizes = layer.x, layer.weight, (layer.x[0], layer.weight[0], *out)
        x, weight, grad_y = (rng.normal(size=size).astype(np.float32) for size in sizes)
        bias = np.zeros(layer.weight[0], np.float32)
        calls = {
            "fprop": ((x, weight, bias, None), grad_y),
            "dgrad": ((None, weight, None, grad_y), x),
            "wgrad": ((x, None, None, grad_y), weight),
            "bgrad": ((None, None, None, grad_y), bias),
        }
        for kernel in lamina.kernels("conv", backend="simt_check"):
            name = f"conv {kernel.pass_} {kernel.algo}"
            if name in result or (layer.algos and kernel.algo not in layer.algos):
                continue
            inputs, like = calls[kernel.pass_]
            flops = 0.0 if kernel.pass_ == "bgrad" else 2.0 * shape.macs
            text = "x".join(map(str, layer.x)) + " * " + "x".join(map(str, layer.weight))
            words = ("highest", "high") if kernel.algo == "implicit_gemm" else ("highest",)
            for precision in words:
                with simt.check() as report, lamina.set_float32_precision(precision):
                    try:
                        _C.conv(
                            "counters",
                            kernel.pass_,
                            shape,
                            *inputs,
                            np.empty_like(like),
                            kernel.algo,
                            -1,
                        )
                    except ValueError:  # refused
                        continue
                result[name + TF32 * (precision == "high")] = report, flops, text
    return result


def measure() -> dict[str, tuple[Counts, str]]:
    """kernel -> its counts and shape."""
    reports = {**conv_reports(), **plain_reports()}
    for kernel, (report, _, _) in reports.items():
        assert not report.findings, (kernel, report.findings[0])
    return {
        kernel: (counts(report, flops), text) for kernel, (report, flops, text) in reports.items()
    }


HEAD = """# What the CUDA kernels ask for

Written by `python benchmarks/kernel_counters.py --write`: every kernel once on a small shape, in
float32, run on the CPU with each access counted (csrc/simt/README.md). *Sectors* of 32 bytes and
*wavefronts* of shared memory stand next to the fewest that serve the same requests, operations next
to the definition's (Winograd needs fewer; exp and its like are not among them). 1.00 is ideal.

"""


def table(measured: dict[str, tuple[Counts, str]]) -> str:
    lines = [
        "| kernel | shape | sectors | wavefronts | FLOP | KiB asked for |",
        "|---|---|---|---|---|---|",
    ]
    for kernel, (found, shape) in sorted(measured.items()):
        ratios = found.ratios()
        cells = [
            f"{ratios[name]:.2f}" if name in ratios else "-"
            for name in ("sectors", "wavefronts", "flops")
        ]
        lines.append(f"| {kernel} | {shape} | {' | '.join(cells)} | {found.moved / 1024:.0f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    measured = measure()
    print(table(measured), end="")
    if "--write" in sys.argv:
        PAGE.write_text(HEAD + table(measured))
        limits = {kernel: found.ratios() for kernel, (found, _) in sorted(measured.items())}
        NUMBERS.write_text(json.dumps(limits, indent=1) + "\n")


if __name__ == "__main__":
    main()
