"""The CUDA kernels beside PyTorch (cuDNN) on this machine's GPU, on the layers of `lamina bench`.

    python benchmarks/gpu.py --json benchmarks/results/<device>.json [--layers resnet50]

Every convolution: each algorithm that can run it, torch on NCHW and on channels_last arrays, all on
the same data, float32, TF32 off. Every other layer: lamina and torch, forward and forward +
backward. Candidates take turns, each turn is timed by events around enough calls to fill a
millisecond, and the medians are compared. Errors are against float64.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lamina
import numpy as np
from lamina import _C
from lamina.bench.definitions import DEFINITIONS, LAMINA, Namespace
from lamina.bench.layers import FAMILIES, ConvLayer, PlainLayer
from lamina.functional.conv import Geometry, conv_shape

TURNS = 7
TURN_MS = 1.0


class EventTimer:
    """Milliseconds between two points of the current stream."""

    def __init__(self, cupy: Any) -> None:
        self.cupy = cupy
        self.start, self.end = cupy.cuda.Event(), cupy.cuda.Event()

    def __call__(self, run: Callable[[], Any], calls: int) -> float:
        self.start.record()
        for _ in range(calls):
            run()
        self.end.record()
        self.end.synchronize()
        return self.cupy.cuda.get_elapsed_time(self.start, self.end) / calls


def host_timer(run: Callable[[], Any], calls: int) -> float:
    """For a machine without a GPU, to test this file."""
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls * 1e3


def medians(candidates: dict[str, Callable[[], Any]], timer: Any) -> dict[str, float]:
    """Milliseconds of each candidate; they take turns, so that a change of clocks meets all."""
    calls = {}
    for name, run in candidates.items():
        timer(run, 2)
        calls[name] = max(1, int(TURN_MS / max(timer(run, 3), 1e-6)))
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(TURNS):
        for name, run in candidates.items():
            times[name].append(timer(run, calls[name]))
    return {name: statistics.median(values) for name, values in times.items()}


def error(y: Any, expected: np.ndarray) -> float:
    """Root mean square error over the expected values' standard deviation."""
    host = y.get() if hasattr(y, "get") else np.asarray(y.detach().cpu().numpy())
    return float(np.sqrt(np.mean((host - expected) ** 2)) / max(expected.std(), 1e-30))


# ---- convolution


def torch_conv(torch: Any, pass_: str, layer: ConvLayer, x: Any, w: Any, gy: Any) -> Any:
    """The pass by cuDNN, on tensors of any layout."""
    options = ([layer.stride] * 2, [layer.padding] * 2, [1, 1], False, [0, 0], layer.groups)
    if pass_ == "fprop":
        return lambda: torch.nn.functional.conv2d(
            x, w, None, layer.stride, layer.padding, 1, layer.groups
        )
    mask = [pass_ == "dgrad", pass_ == "wgrad", False]
    backward = torch.ops.aten.convolution_backward
    return lambda: backward(gy, x, w, None, *options, mask)[0 if pass_ == "dgrad" else 1]


def conv_rows(cupy: Any, torch: Any, timer: Any, layer: ConvLayer, batch: int) -> list[dict]:
    """One row a pass: milliseconds and error of every candidate."""
    if layer.transposed:
        layer = layer.underlying
    rng = np.random.default_rng(0)
    shapes = layer.x_shape(batch), layer.weight_shape, layer.y_shape(batch)
    host = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    x, w, gy = (cupy.asarray(a) for a in host)
    geometry = Geometry(
        "bench", (layer.stride,) * 2, ((layer.padding,) * 2,) * 2, (1, 1), layer.groups, "auto", -1
    )
    shape = conv_shape(geometry, x.shape, w.shape)
    rows = []
    for pass_ in ("fprop", "dgrad", "wgrad"):
        operands = {
            "fprop": (x, w, None, None),
            "dgrad": (None, w, None, gy),
            "wgrad": (x, None, None, gy),
        }[pass_]
        result = {"fprop": gy, "dgrad": x, "wgrad": w}[pass_]
        candidates: dict[str, Callable[[], Any]] = {}
        with lamina.backend("cuda"):
            for kernel in lamina.kernels("conv", pass_, "cuda"):
                try:
                    _C.conv_plan("bench", pass_, shape, kernel.algo)
                except ValueError:
                    continue  # refused: this algorithm cannot run this layer
                out = cupy.empty_like(result)

                def run(algo: str = kernel.algo, out: Any = out) -> Any:
                    _C.conv("bench", pass_, shape, *operands, out, algo, -1)  # noqa: B023
                    return out

                candidates[f"lamina.{kernel.algo}"] = run
            _C.conv_plan("bench", pass_, shape, "auto")
            automatic = f"lamina.{lamina.last_plan().algo}"
        expected = None
        if torch is not None:
            nchw = [torch.from_numpy(a).cuda() for a in host]
            last = [a.to(memory_format=torch.channels_last) for a in nchw]
            double = torch_conv(torch, pass_, layer, *(a.double() for a in nchw))()
            expected = double.cpu().numpy()
            candidates["torch.nchw"] = torch_conv(torch, pass_, layer, *nchw)
            candidates["torch.channels_last"] = torch_conv(torch, pass_, layer, *last)
        errors = {
            name: error(run(), expected) if expected is not None else None
            for name, run in candidates.items()
        }
        times = medians(candidates, timer)
        rows.append(
            {
                "layer": layer.name,
                "pass": pass_,
                "batch": batch,
                "gflop": 2e-9 * shape.macs,
                "auto": automatic,
                "ms": times,
                "error": errors,
            }
        )
    return rows


# ---- everything else


def plain_rows(cupy: Any, torch: Any, timer: Any, layer: PlainLayer, batch: int) -> list[dict]:
    """Forward, and forward with backward."""
    rng = np.random.default_rng(0)
    definition = DEFINITIONS[layer.definition]
    host = [
        (rng.normal(size=shape) * (shape[1] ** -0.5 if i and len(shape) == 2 else 1)).astype("f")
        for i, shape in enumerate(layer.input_shapes(batch))
    ]
    device = [cupy.asarray(a) for a in host]
    expected = definition.formula(*(a.astype(np.float64) for a in host))
    seed = rng.normal(size=expected.shape).astype(np.float32)

    def candidate(space: Any, make: Any, seed: Any, train: bool) -> Callable[[], Any]:
        def run() -> Any:
            y = definition.call(space, "auto", *make())
            if train:
                y.backward(seed)
            return y

        return run

    rows = []
    for pass_ in ("fprop", "train"):
        train = pass_ == "train"
        ours = lambda train=train: [lamina.Tensor(a, requires_grad=train) for a in device]  # noqa: E731
        candidates = {"lamina": candidate(LAMINA, ours, cupy.asarray(seed), train)}
        if torch is not None and definition.peer:
            tensors = [torch.from_numpy(a).cuda() for a in host]
            theirs = lambda train=train, t=tensors: [a.detach().requires_grad_(train) for a in t]  # noqa: E731
            candidates["torch"] = candidate(
                Namespace(torch.nn.functional, torch),
                theirs,
                torch.from_numpy(seed).cuda(),
                train,
            )
        errors = {}
        for name, run in candidates.items():
            y = run()
            errors[name] = error(y.data if name == "lamina" else y, expected)
        moved = sum(a.nbytes for a in host) + seed.nbytes
        rows.append(
            {
                "layer": layer.name,
                "pass": pass_,
                "batch": batch,
                "mbyte": moved * (3 if train else 1) / 1e6,
                "ms": medians(candidates, timer),
                "error": errors,
            }
        )
    return rows


# ---- the machine


def describe(cupy: Any, torch: Any) -> dict[str, Any]:
    """Device, driver and peers: what a result belongs to."""
    properties = cupy.cuda.runtime.getDeviceProperties(0)
    described = {
        "device": properties["name"].decode(),
        "compute_capability": f"{properties['major']}.{properties['minor']}",
        "multiprocessors": properties["multiProcessorCount"],
        "driver": cupy.cuda.runtime.driverGetVersion(),
        "lamina_architectures": lamina.cuda.architectures(),
        "tf32": "off in torch and in lamina",
    }
    if torch is not None:
        described |= {"torch": torch.__version__, "cudnn": torch.backends.cudnn.version()}
    return described


def ceilings(cupy: Any, torch: Any, timer: Any) -> dict[str, float]:
    """Copy bandwidth in GB/s and the peer's matrix product in TFLOP/s, measured here."""
    x = cupy.empty(1 << 28, np.float32)
    y = cupy.empty_like(x)
    found = {
        "copy_gb_s": 2
        * x.nbytes
        / medians({"copy": lambda: cupy.copyto(y, x)}, timer)["copy"]
        / 1e6
    }
    if torch is not None:
        n = 4096
        for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
            a = torch.randn(n, n, device="cuda", dtype=dtype)
            ms = medians({"gemm": lambda a=a: a @ a}, timer)["gemm"]
            found[f"torch_gemm_{name}_tflop_s"] = 2e-9 * n**3 / ms
    return found


def geomean(values: list[float]) -> float:
    return float(np.exp(np.mean(np.log(values)))) if values else float("nan")


def summary(rows: list[dict]) -> str:
    """Per layer and pass: our best, torch's better layout, the ratio (above 1: we are faster)."""
    lines, ratios = [], []
    for row in rows:
        ours = {n: t for n, t in row["ms"].items() if n.startswith("lamina")}
        peers = {n: t for n, t in row["ms"].items() if n.startswith("torch")}
        best = min(ours, key=ours.__getitem__)
        line = f"{row['layer']:28} {row['pass']:6} {best:22} {ours[best]:9.4f} ms"
        if peers:
            peer = min(peers, key=peers.__getitem__)
            ratio = peers[peer] / ours[best]
            ratios.append(ratio)
            line += f"  {peer:20} {peers[peer]:9.4f} ms  ratio {ratio:5.2f}"
        lines.append(f"{line}  error {row['error'][best] or 0:.1e}")
    if ratios:
        lines.append(f"geometric mean of {len(ratios)} ratios: {geomean(ratios):.2f}")
    return "\n".join(lines)


def rows_of(cupy: Any, torch: Any, timer: Any, text: str, batch: int) -> list[dict]:
    """Every layer whose name contains `text`; a layer that fails is a row that says so."""
    rows: list[dict] = []
    for layers in FAMILIES.values():
        for layer in layers:
            if text not in layer.name:
                continue
            build = conv_rows if isinstance(layer, ConvLayer) else plain_rows
            try:
                rows += build(cupy, torch, timer, layer, batch)  # type: ignore[operator]
            except Exception as failure:
                rows.append({"layer": layer.name, "failed": f"{type(failure).__name__}: {failure}"})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--layers", default="", help="only layers whose name contains this")
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()
    lamina.cuda.require()
    import cupy

    try:
        import torch

        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = True
    except ImportError:
        torch = None
    timer = EventTimer(cupy)
    report = {**describe(cupy, torch), "ceilings": ceilings(cupy, torch, timer)}
    rows = rows_of(cupy, torch, timer, options.layers, options.batch)
    report["rows"] = rows
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({k: v for k, v in report.items() if k != "rows"}))
    print(summary([row for row in rows if "failed" not in row]))
    for row in rows:
        if "failed" in row:
            print(f"{row['layer']}: {row['failed']}")


if __name__ == "__main__":
    main()
