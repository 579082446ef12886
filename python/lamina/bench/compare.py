"""`lamina compare`: Lamina beside other libraries, each called as its user calls it.

`algo="auto"` throughout. The gradients go through each library's autograd on a graph that is kept;
"train" is one forward and backward pass with the bias's gradient. A row has the errors against
float64 beside the times, and what the ceilings measured in the same run would allow.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

import lamina

from .drawn_layers import drawn_layers
from .jobs import ERROR_BOUND, PLAIN_PASSES, conv_expected, make_job, relative_error
from .layers import FAMILIES, HELD_OUT, LINES, SUITE, TINY, VOLUMES, ConvLayer, PlainLayer
from .networks import NETWORKS, Network, network_calls
from .peers import Norm, Peer, array_of, conv_call, fused_calls
from .report import write
from .timing import Call, interleaved, keep_memory

CONV_FAMILIES = {
    "suite": SUITE,
    "held_out": HELD_OUT,
    "lines": LINES,
    "volumes": VOLUMES,
    "drawn": drawn_layers(seed=2026, count=48),
    "drawn_lines": drawn_layers(seed=2026, count=24, axes=1),
    "drawn_volumes": drawn_layers(seed=2026, count=24, axes=3),
    "tiny": TINY,
}
# The families of `lamina bench` that are not bound by arithmetic.
MEMORY_FAMILIES = (
    *("pool", "activation", "softmax", "norm", "resize", "unfold", "roi", "dropout", "reduction"),
)
# Layers of the suite that a normalisation and a ReLU follow.
FUSED = (
    *("vgg2_2", "vgg4_2", "rn_conv1", "rn_l1_3x3", "rn_l3_3x3", "rn_3x3s2_l2", "rn_1x1_l1r"),
    *("rn_1x1_l1e", "rn_1x1_l3e", "goog_5x5", "mb_dw_112", "mb_dw_14", "resnext_14"),
)
CONV_PASSES = ("fprop", "dgrad", "wgrad", "train")
PASSES = (*CONV_PASSES, "all")


class Work(NamedTuple):
    """What the libraries do: `error` judges a result, in NumPy and float64."""

    calls: dict[str, Call]
    error: Callable[[Any], float]
    flops: float
    moved: int  # bytes of operands and results, each once


class Subject(NamedTuple):
    """One row to be: `prepare` makes the arrays and the calls."""

    family: str
    name: str
    batch: int
    pass_: str
    prepare: Callable[[Sequence[Peer]], Work]

    @property
    def key(self) -> tuple[str, str, int, str]:
        return self.family, self.name, self.batch, self.pass_


def families() -> list[str]:
    """What `lamina compare` can be asked for."""
    return [*CONV_FAMILIES, "fused", *MEMORY_FAMILIES, "networks", "networks_fused"]


def subjects(
    wanted: Sequence[str], passes: Sequence[str], layers: str = "", batch: int = 0
) -> list[Subject]:
    """The rows of the wanted families, of layers whose name (vgg2_1_b8) contains `layers`.

    "memory" stands for all families bound by memory, "all" for everything. Raises ValueError for
    a family that is not there, or where nothing is left.
    """
    expanded: list[str] = []
    for name in wanted:
        several = {"all": families(), "memory": list(MEMORY_FAMILIES)}.get(name, [name])
        if several[0] not in families():
            known = ", ".join(["all", "memory", *families()])
            raise ValueError(f"compare: families are {known}, got {name!r}")
        expanded += several
    found = [
        subject
        for family in dict.fromkeys(expanded)
        for subject in _of_family(family)
        if layers in f"{subject.name}_b{subject.batch}"
        and batch in (0, subject.batch)
        and ("all" in passes or subject.pass_ in passes)
    ]
    if not found:
        raise ValueError(
            f"compare: nothing of {', '.join(wanted)} matches the passes {', '.join(passes)}, "
            f"layers={layers!r}, batch={batch}"
        )
    return found


def _of_family(family: str) -> Iterator[Subject]:
    if family in CONV_FAMILIES:
        for layer, batch in CONV_FAMILIES[family]:
            for pass_ in CONV_PASSES:
                yield Subject(family, layer.name, batch, pass_, _conv(layer, batch, pass_))
        return
    if family == "fused":
        for layer, batch in SUITE:
            if layer.name in FUSED:
                yield Subject(family, layer.name, batch, "fprop", _fused(layer, batch))
        return
    if family.startswith("networks"):
        for network in NETWORKS:
            for batch in network.batches:
                fused = family == "networks_fused"  # for inference only
                for pass_ in ("fprop",) if fused else ("fprop", "train"):
                    prepare = _network(network, batch, pass_, fused)
                    yield Subject(family, network.name, batch, pass_, prepare)
        return
    for plain in FAMILIES[family]:
        for pass_ in PLAIN_PASSES:
            if isinstance(plain, PlainLayer):
                yield Subject(family, plain.name, 8, pass_, _plain(plain, 8, pass_))


# Convolution


def _conv(layer: ConvLayer, batch: int, pass_: str) -> Callable[[Sequence[Peer]], Work]:
    def prepare(peers: Sequence[Peer]) -> Work:
        rng = np.random.default_rng(0)
        sizes = layer.x_shape(batch), layer.weight_shape, (layer.k,), layer.y_shape(batch)
        x, weight, bias, grad_y = (rng.normal(size=size).astype(np.float32) for size in sizes)
        made = {peer.name: conv_call(peer, layer, pass_, x, weight, bias, grad_y) for peer in peers}
        calls = {name: call for name, call in made.items() if call is not None}
        parts = [_expected(layer, part, x, weight, grad_y) for part in _parts(pass_)]
        if pass_ == "train":  # y is judged without the bias
            parts[0] = parts[0] + bias.reshape(-1, *(1,) * layer.axes).astype(np.float64)
            parts.append(grad_y.sum(axis=(0, *range(2, grad_y.ndim)), dtype=np.float64))

        def error(result: Any) -> float:
            several = result if isinstance(result, tuple) else (result,)
            return max(_part_error(y, part) for y, part in zip(several, parts, strict=True))

        direct = layer.underlying if layer.transposed else layer
        macs = np.prod(direct.y_shape(batch)) * np.prod(direct.weight_shape[1:])
        moved = x.nbytes + weight.nbytes + grad_y.nbytes
        times = 3 if pass_ == "train" else 1
        return Work(calls, error, times * 2.0 * float(macs), times * moved)

    return prepare


def _parts(pass_: str) -> tuple[str, ...]:
    return ("fprop", "dgrad", "wgrad") if pass_ == "train" else (pass_,)


def _expected(
    layer: ConvLayer, part: str, x: np.ndarray, weight: np.ndarray, grad_y: np.ndarray
) -> np.ndarray:
    """In float64: of the first image, or of the weights' first 16 channels."""
    if layer.transposed:
        layer, x, grad_y = layer.underlying, grad_y, x
        part = {"fprop": "dgrad", "dgrad": "fprop", "wgrad": "wgrad"}[part]
    if part != "wgrad":
        x, grad_y = x[:1], grad_y[:1]
    elif layer.groups == 1:
        x, weight = x[:, :16], weight[:, :16]
    return conv_expected(part, layer, x, weight, grad_y)


def _part_error(result: Any, expected: np.ndarray) -> float:
    """The error of the part of the result that is known."""
    return relative_error(array_of(result)[tuple(map(slice, expected.shape))], expected)


# Everything else


def _plain(layer: PlainLayer, batch: int, pass_: str) -> Callable[[Sequence[Peer]], Work]:
    def prepare(peers: Sequence[Peer]) -> Work:
        job = make_job(layer, pass_, batch, torch=any(peer.name == "torch" for peer in peers))
        ours = next(iter(job.candidates))
        calls = {"lamina": job.candidates[ours]}
        if "torch" in job.candidates:
            calls["torch"] = job.candidates["torch"]
        return Work(calls, job.error, job.flops, job.moved)

    return prepare


def _fused(layer: ConvLayer, batch: int) -> Callable[[Sequence[Peer]], Work]:
    def prepare(peers: Sequence[Peer]) -> Work:
        rng = np.random.default_rng(0)
        sizes = layer.x_shape(batch), layer.weight_shape
        x, weight = (rng.normal(size=size).astype(np.float32) for size in sizes)
        mean, var, gamma, beta = rng.uniform(0.5, 1.5, (4, layer.k)).astype(np.float32)
        norm = Norm(mean, var, gamma, beta)
        shape = layer.y_shape(batch)
        y = conv_expected("fprop", layer, x[:1], weight, np.empty((1, *shape[1:])))
        column = -1, *(1,) * layer.axes
        scale = (gamma / np.sqrt(var + np.float64(norm.eps))).reshape(column)
        expected = np.maximum((y - mean.reshape(column)) * scale + beta.reshape(column), 0)
        flops = 2.0 * float(np.prod(shape) * np.prod(layer.weight_shape[1:]))
        moved = x.nbytes + weight.nbytes + 4 * int(np.prod(shape))
        calls = fused_calls(peers, layer, x, weight, norm)
        return Work(calls, lambda result: _part_error(result, expected), flops, moved)

    return prepare


def _network(
    network: Network, batch: int, pass_: str, fused: bool
) -> Callable[[Sequence[Peer]], Work]:
    def prepare(peers: Sequence[Peer]) -> Work:
        calls, error, parameters = network_calls(network, batch, pass_, peers, fused)
        flops = network.flops * batch * (3 if pass_ == "train" else 1)
        return Work(calls, error, flops, parameters)

    return prepare


# Rows


def measure(
    subject: Subject, peers: Sequence[Peer], seconds: float, ceilings: dict[str, float]
) -> dict[str, Any]:
    """One row: errors first, then times."""
    work = subject.prepare(peers)
    errors, algo = {}, ""
    for name, call in work.calls.items():
        errors[name] = work.error(call())
        if name == "lamina":
            algo = lamina.last_plan().algo
    alone = lamina.get_num_threads() == 1 or len(work.calls) == 1
    times = interleaved(work.calls, seconds, pauses=not alone)
    floor = max(work.flops / ceilings["gflops"], work.moved / ceilings["gbytes"]) / 1e9
    others = [name for name in work.calls if name != "lamina"]
    return {
        "family": subject.family,
        "layer": subject.name,
        "batch": subject.batch,
        "pass": subject.pass_,
        "algo": algo if subject.family in CONV_FAMILIES and subject.pass_ != "train" else "",
        "ms": {name: times.median(name) * 1e3 for name in work.calls},
        "ratio": {name: times.ratio("lamina", of=name) for name in others},
        "error": errors,
        "floor_ms": floor * 1e3,
        "gflops": work.flops / times.median("lamina") / 1e9,
        "rounds": len(times.rounds),
        "rejected": times.rejected,
        "foreign": round(times.foreign, 3),
    }


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per family, pass and peer: geometric mean and worst ratio."""
    found: dict[tuple[str, str, str], list[tuple[float, str]]] = {}
    for row in rows:
        for peer, ratio in row["ratio"].items():
            key = row["family"], row["pass"], peer
            found.setdefault(key, []).append((ratio, f"{row['layer']}_b{row['batch']}"))
    return [
        {
            "family": family,
            "pass": pass_,
            "peer": peer,
            "layers": len(ratios),
            "geomean": math.exp(statistics.fmean(math.log(ratio) for ratio, _ in ratios)),
            "worst": min(ratios)[0],
            "worst_layer": min(ratios)[1],
            "slower": sum(ratio < 1 for ratio, _ in ratios),
        }
        for (family, pass_, peer), ratios in found.items()
    ]


def run(
    console: Console,
    chosen: Sequence[Subject],
    peers: Sequence[Peer],
    seconds: float,
    allocator: str = "keep",
    path: Path | None = None,
    command: str = "",
    precision: str = "highest",
) -> dict[str, Any]:
    """Measures and prints; returns the report.

    With `path` the report is there after every row, and rows that it has already are kept; the
    ceilings are those of the last run.
    """
    from .measure import machine_roofline

    with lamina.set_float32_precision(precision):  # refuses a word now, not after the ceilings
        kept = keep_memory(allocator == "keep")
    earlier = _earlier(path, precision)
    report: dict[str, Any] = {
        "commands": list(dict.fromkeys([*earlier["commands"], command])),
        "threads": lamina.get_num_threads(),
        "isa": lamina.isa(),
        "precision": precision,
        "allocator": allocator if kept else "default",
        "roofline": machine_roofline(),
        "versions": {"lamina": lamina.__version__},
        "rows": earlier["rows"],
    }
    report["versions"] |= {peer.name: peer.version for peer in peers if peer.version}
    done = {(row["family"], row["layer"], row["batch"], row["pass"]) for row in report["rows"]}
    roofline = report["roofline"]
    console.print(
        f"float32 ({precision}), {report['threads']} threads, {report['isa']}; this machine: "
        f"{roofline['gflops']:.0f} GFLOP/s, {roofline['gbytes']:.0f} GB/s; ratio: a peer's time "
        "over Lamina's"
    )
    for subject in chosen:
        if subject.key in done:
            continue
        with lamina.set_float32_precision(precision):
            row = measure(subject, peers, seconds, roofline)
        allowed = error_bound(subject.family, precision)
        if (subject.family, subject.pass_) == ("pool", "train"):
            # Where two maxima of a window are equal, the directional derivative that judges
            # gradients belongs to neither: torch's are then as far from it.
            allowed = max(allowed, 2.5 * row["error"].get("torch", 0.0))
        row["wrong"] = not row["error"]["lamina"] <= allowed
        report["rows"].append(row)
        console.print(_line(row), highlight=False, soft_wrap=True)
        if path:
            write(path, report)
    report["summary"] = summary(report["rows"])
    if path:
        write(path, report)
    console.print(_summary_table(report["summary"]))
    for family, names in _without_calls(report["rows"], peers).items():
        console.print(f"{family}: nothing to compare with in {', '.join(names)}")
    return report


def _without_calls(rows: Sequence[dict[str, Any]], peers: Sequence[Peer]) -> dict[str, list[str]]:
    """Per family, the peers that were asked for and have no such calls."""
    found: dict[str, list[str]] = {}
    for family in dict.fromkeys(row["family"] for row in rows):
        called = {name for row in rows if row["family"] == family for name in row["ms"]}
        names = [
            peer.name
            for peer in peers
            if not any(name == peer.name or name.startswith(f"{peer.name}.") for name in called)
        ]
        if names:
            found[family] = names
    return found


def _earlier(path: Path | None, precision: str) -> dict[str, Any]:
    """The report that is continued. Raises ValueError for one of other settings."""
    if path is None or not path.exists():
        return {"commands": [], "rows": []}
    try:
        earlier = json.loads(path.read_text())
        _ = earlier["commands"], earlier["threads"], earlier["rows"]
    except (ValueError, TypeError, LookupError):
        raise ValueError(
            f"compare: {path} holds no report that could be continued; name another file"
        ) from None
    if earlier["threads"] != lamina.get_num_threads():
        raise ValueError(
            f"compare: {path} has rows of {earlier['threads']} threads, this run has "
            f"{lamina.get_num_threads()}; name another file"
        )
    if earlier.get("precision", "highest") != precision:
        raise ValueError(
            f"compare: {path} has rows of precision {earlier.get('precision', 'highest')}, this "
            f"run has {precision}; name another file"
        )
    return earlier


def error_bound(family: str, precision: str) -> float:
    """What Lamina's results must keep to.

    Operands rounded to bfloat16 once: 2.4e-3 were measured over one layer. The errors of a
    network's layers add up as random numbers do.
    """
    if precision != "medium":
        return ERROR_BOUND
    return 5e-2 if family.startswith("networks") else 5e-3


def _line(row: dict[str, Any]) -> str:
    name = f"{row['layer']}_b{row['batch']}"
    text = f"{name:18} {row['pass']:5} {row['algo']:13}"
    for peer, ms in row["ms"].items():
        if peer != "lamina":
            colour = "green" if row["ratio"][peer] >= 1 else "red"
            text += f" | {peer} [{colour}]{row['ratio'][peer]:5.2f}x[/{colour}]"
        text += f" {ms:9.4f} ms {row['error'][peer]:.0e}"
        if peer == "lamina":
            text += f" {row['floor_ms'] / ms:4.0%} of ceiling"
    if row["wrong"]:
        text += "  [red]WRONG[/red]"
    return text


def _summary_table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table("family", "pass", "peer", title="a peer's time over Lamina's")
    for column in ("layers", "geometric mean", "worst", "slower"):
        table.add_column(column, justify="right")
    table.add_column("worst layer")
    for row in rows:
        table.add_row(
            *(row[key] for key in ("family", "pass", "peer")),
            str(row["layers"]),
            f"{row['geomean']:.2f}",
            f"{row['worst']:.2f}",
            str(row["slower"]),
            row["worst_layer"],
        )
    return table
