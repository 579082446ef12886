"""`lamina simt`: CUDA kernels on the CPU, watched: findings, and what each source line costs.

Layers are scaled down to a few hundred thousand accesses: the checking build takes about 25 ns for
each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

import lamina

from .. import _C, simt
from ..functional.conv import Geometry, conv_shape, output_size
from .definitions import DEFINITIONS, LAMINA, Definition
from .jobs import geometry_of
from .layers import FAMILIES, ConvLayer, PlainLayer
from .plan import parse_geometry

SECTOR = 32  # bytes
CONV_PASSES = ("fprop", "dgrad", "wgrad")
PASSES = (*CONV_PASSES, "train", "all")
# Sizes of scaled layers: channels (and features), and height and width beyond the kernel.
CHANNELS, SIZE = 32, 12


class Subject(NamedTuple):
    """One kernel call to watch: `flops` by definition, `moved` bytes of operands and result."""

    name: str
    run: Callable[[], Any]
    flops: float
    moved: int


class Watched(NamedTuple):
    """A subject and what it did; `error` is what ended it, if anything."""

    subject: Subject
    report: simt.Report
    error: str

    @property
    def clean(self) -> bool:
        return not self.report.findings and not self.error


def watch(subject: Subject) -> Watched:
    """Runs it on the checking build."""
    error = ""
    with simt.check() as report:
        try:
            subject.run()
        except RuntimeError as problem:
            error = str(problem)
    return Watched(subject, report, error)


# Convolution


def scaled(layer: ConvLayer) -> ConvLayer:
    """The same kernel, stride, padding and kind of groups on a small image."""
    if layer.transposed:
        layer = layer.underlying
    depthwise = layer.groups == layer.c
    c, k = min(layer.c, CHANNELS), min(layer.k, CHANNELS)
    by_axis = zip(*map(layer.each, (layer.size, layer.kernel, layer.stride)), strict=True)
    size = tuple(min(size, kernel + SIZE * stride) for size, kernel, stride in by_axis)
    return layer._replace(c=c, k=k, size=size, groups=c if depthwise else layer.groups)


def conv_subjects(
    name: str,
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    geometry: Geometry,
    passes: Sequence[str],
    algo: str = "",
    dtype: str = "float32",
    strict: bool = False,
) -> Iterator[Subject]:
    """Every kernel of the passes that can run the shape, or of those the one named `algo`.

    strict: ValueError where that one cannot.
    """
    x, weight = tuple(x_shape), tuple(weight_shape)
    shape = conv_shape(geometry, x, weight)
    sizes = x, weight, (x[0], weight[0], *output_size(geometry, x[2:], weight[2:]))
    for pass_ in passes:
        for kernel in lamina.kernels("conv", pass_, "simt_check"):
            if algo in ("", kernel.algo) and _accepts(pass_, shape, kernel.algo, strict):
                yield _conv_subject(name, shape, sizes, pass_, kernel.algo, dtype)


def _accepts(pass_: str, shape: Any, algo: str, strict: bool) -> bool:
    with lamina.backend("simt_check"):
        try:
            _C.conv_plan("simt", pass_, shape, algo)
        except ValueError:
            if strict:
                raise
            return False
    return True


def _conv_subject(
    name: str,
    shape: Any,
    sizes: Sequence[tuple[int, ...]],
    pass_: str,
    algo: str,
    dtype: str,
) -> Subject:
    rng = np.random.default_rng(0)
    x, weight, grad_y = (rng.normal(size=size).astype(dtype) for size in sizes)
    inputs, out = {
        "fprop": ((x, weight, None, None), grad_y),
        "dgrad": ((None, weight, None, grad_y), x),
        "wgrad": ((x, None, None, grad_y), weight),
    }[pass_]
    result = np.empty_like(out)
    moved = x.nbytes + weight.nbytes + grad_y.nbytes
    return Subject(
        f"{name} {pass_} {algo}",
        lambda: _C.conv("simt", pass_, shape, *inputs, result, algo, -1),
        2.0 * shape.macs,
        moved,
    )


def layer_subjects(
    layer: ConvLayer, passes: Sequence[str], algo: str = "", dtype: str = "float32"
) -> Iterator[Subject]:
    """The kernels of a named convolution layer, scaled down."""
    small = scaled(layer)
    shapes = small.x_shape(1), small.weight_shape
    geometry = geometry_of("simt", small)
    yield from conv_subjects(layer.name, *shapes, geometry, passes, algo, dtype)


def shape_subjects(
    x: str,
    weight: str,
    stride: int,
    padding: int,
    dilation: int,
    groups: int,
    pass_: str,
    algo: str,
    dtype: str,
) -> list[Subject]:
    """The kernels of a convolution given by its shapes. Raises ValueError if they do not fit."""
    x_shape, weight_shape, geometry = parse_geometry(x, weight, stride, padding, dilation, groups)
    passes = CONV_PASSES if pass_ in ("all", "train") else (pass_,)
    name = f"conv{len(x_shape) - 2}d"
    options = algo, dtype, bool(algo)
    return list(conv_subjects(name, x_shape, weight_shape, geometry, passes, *options))


# Everything else


def definition_subject(
    name: str, definition: Definition, train: bool, algo: str = "auto", dtype: str = "float32"
) -> Subject:
    """An operation on the shapes of its definition: forward, or forward and backward."""
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=size).astype(dtype) for size in definition.shapes]
    y_shape = definition.formula(*arrays).shape
    grad_y = rng.normal(size=y_shape).astype(dtype)

    def run() -> None:
        inputs = [lamina.tensor(a, requires_grad=train) for a in arrays]
        y = definition.call(LAMINA, algo, *inputs)
        if train:
            y.backward(grad_y)

    factor = 3 if train else 1  # backward reads the gradient and writes one of the same size
    moved = sum(a.nbytes for a in arrays) + grad_y.nbytes
    return Subject(
        f"{name} {'train' if train else 'fprop'}",
        run,
        factor * definition.work * arrays[0].size,
        factor * moved,
    )


def plain_subject(layer: PlainLayer, train: bool, dtype: str) -> Subject:
    """A named layer scaled down; on its definition's shapes where its sizes do not scale."""
    definition = DEFINITIONS[layer.definition]
    largest = max(max(shape) for shape in layer.shapes)
    for factor in range(max(1, largest // (4 * CHANNELS)), largest + 1):
        shapes = tuple(
            tuple(-(-size // factor) if size > CHANNELS else size for size in shape)
            for shape in layer.input_shapes(1)
        )
        if max(np.prod(shape) for shape in shapes) > CHANNELS**3:
            continue
        small = definition._replace(shapes=shapes)
        try:
            subject = definition_subject(layer.name, small, train, "auto", dtype)
            with lamina.backend("simt"):
                subject.run()
        except ValueError:
            break
        return subject
    return definition_subject(layer.name, definition, train, "auto", dtype)


def choose(names: Sequence[str], pass_: str, algo: str, dtype: str) -> list[Subject]:
    """Subjects of families, operations and named layers. Raises ValueError for unknown names."""
    subjects: list[Subject] = []
    conv_passes = CONV_PASSES if pass_ in ("all", "train") else (pass_,)
    train = pass_ != "fprop"
    for name in names:
        found: list[Subject] = []
        if name in ("conv", "all"):
            for sample in _SAMPLES:
                found += layer_subjects(sample, conv_passes, algo, dtype)
        for layer in (layer for layers in FAMILIES.values() for layer in layers):
            if name in FAMILIES or name not in layer.name:
                continue
            if isinstance(layer, ConvLayer):
                found += layer_subjects(layer, conv_passes, algo, dtype)
            elif _has_kernel(DEFINITIONS[layer.definition].op or layer.definition, algo):
                found.append(plain_subject(layer, train, dtype))
        family = FAMILIES.get(name, ())
        used = {layer.definition for layer in family if isinstance(layer, PlainLayer)}
        for key, definition in DEFINITIONS.items():
            op = definition.op or key
            wanted = name in (key, op) or key in used or name == "all"
            if wanted and op != "conv" and _has_kernel(op, algo):
                found.append(definition_subject(key, definition, train, algo or "auto", dtype))
        if not found and algo:
            raise ValueError(f"simt: no kernel with algo={algo!r} can run the shapes of {name!r}")
        if not found:
            known = sorted({*FAMILIES, *DEFINITIONS})
            raise ValueError(f"simt: nothing is called {name!r} or has it in its name; try {known}")
        subjects += found
    return subjects


def _has_kernel(op: str, algo: str) -> bool:
    return any(algo in ("", k.algo) for k in lamina.kernels(op, backend="simt_check"))


# What `lamina simt conv` runs: plain, strided, grouped, depthwise and pointwise.
_SAMPLES = (
    ConvLayer("conv3x3", 16, 13, 24, 3, 1, 1),
    ConvLayer("conv5x5s2", 8, 15, 16, 5, 2, 2),
    ConvLayer("conv3x3g2", 8, 12, 8, 3, 1, 1, 2),
    ConvLayer("depthwise3x3", 16, 14, 16, 3, 1, 1, 16),
    ConvLayer("conv1x1", 32, 12, 16, 1),
)


# Printing


def ratio(found: float, ideal: float) -> str:
    """As 1.25, marked where it is more than a tenth above 1."""
    if not ideal:
        return "-"
    text = f"{found / ideal:.2f}"
    return f"[yellow]{text}[/yellow]" if found > 1.1 * ideal else text


def show(console: Console, watched: Watched, lines: bool) -> None:
    """Findings, a line for each source line, and the sums."""
    subject, report = watched.subject, watched.report
    console.print(f"[bold]{subject.name}[/bold]  {_summary(subject, report)}")
    for finding in report.findings:
        kernel = f"kernel {finding.kernel}: " if finding.kernel else ""
        console.print(f"  [red]{finding.kind}[/red] x{finding.times}  {kernel}{finding.text}")
    if watched.error and not report.findings:
        console.print(f"  [red]error[/red]  {watched.error}")
    if not lines:
        return
    table = Table("kernel", "line", "access", "requests", "sectors", "/ ideal", box=None)
    table.add_column("wavefronts")
    table.add_column("/ ideal")
    for entry in report.requests:
        place = f"{entry.file}:{entry.line}" + (f" from {entry.caller}" if entry.caller else "")
        access = "atomic" if entry.atomic else "write" if entry.write else "read"
        table.add_row(
            entry.kernel.replace("simt::counted_float", "float"),
            place,
            f"{'shared' if entry.shared else 'global'} {access}",
            str(entry.requests),
            "" if entry.shared else str(entry.sectors),
            "" if entry.shared else ratio(entry.sectors, entry.ideal_sectors),
            str(entry.wavefronts) if entry.shared else "",
            ratio(entry.wavefronts, entry.ideal_wavefronts) if entry.shared else "",
        )
    console.print(table)


def _summary(subject: Subject, report: simt.Report) -> str:
    counted = report.counters
    sectors = sum(entry.sectors for entry in report.requests)
    flops = counted.flops + counted.mma_flops
    parts = [
        f"sectors {ratio(sectors, sum(e.ideal_sectors for e in report.requests))} of ideal",
        "wavefronts "
        + ratio(
            sum(e.wavefronts for e in report.requests),
            sum(e.ideal_wavefronts for e in report.requests),
        ),
        f"{flops} FLOP + {counted.special} special",
    ]
    if subject.flops:
        parts[-1] += f" ({flops / subject.flops:.2f} of the definition's)"
    parts.append(
        f"{sectors * SECTOR} B asked for ({sectors * SECTOR / subject.moved:.2f} of operands)"
    )
    return "; ".join(parts)
