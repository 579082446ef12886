"""What a call costs where the arithmetic is next to nothing: beside PyTorch, in one process.

    python benchmarks/overhead.py [--threads 1] [--only NAME] [--json FILE]

Rounds of both libraries take turns; the table has the medians and the median of the ratios within
rounds, PyTorch's time over Lamina's: above 1 Lamina is faster. Whole Python calls, with output.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import lamina
import numpy as np
import torch
from lamina import functional as F
from lamina import nn, optim
from torch.nn import functional as torch_functional

ROUNDS = 30
ROUND_SECONDS = 0.002


class Case(NamedTuple):
    name: str
    ours: Callable[[], Any]
    theirs: Callable[[], Any]


def array(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def pair(name: str, call: Callable[..., Any], *arrays: Any, kind: str = "array") -> Case:
    """call(functional, *operands) of both libraries; ours on arrays, Tensors or ones with grad.

    kind "train": forward and backward to every operand.
    """
    theirs = [torch.from_numpy(x.copy()) for x in arrays]
    ours: list[Any] = list(arrays)
    if kind != "array":
        ours = [lamina.tensor(x) for x in arrays]
    if kind == "grad":
        for x in (ours[0], theirs[0]):
            x.requires_grad_()
    if kind == "train":
        return Case(name, trained(call, F, ours, lamina), trained(call, torch_functional, theirs))
    return Case(name, lambda: call(F, *ours), lambda: call(torch_functional, *theirs))


def trained(call: Callable, functional: Any, operands: list[Any], library: Any = torch) -> Callable:
    """Forward and backward with new gradients."""
    for x in operands:
        x.requires_grad_()
    seed = np.ones(tuple(call(functional, *operands).shape), np.float32)
    gradient = lamina.tensor(seed) if library is lamina else torch.from_numpy(seed)

    def run() -> None:
        for x in operands:
            x.grad = None
        call(functional, *operands).backward(gradient)

    return run


def functions() -> Iterator[Case]:
    x, w, b = array(1, 8, 8, 8), array(8, 8, 3, 3), array(8)
    small = array(1, 4, 4, 4), array(4, 4, 3, 3)
    yield pair("conv2d 1x8x8x8, 3x3", lambda f, x, w: f.conv2d(x, w, None, 1, 1), x, w)
    yield pair("  with bias, Tensors", lambda f, *o: f.conv2d(*o, 1, 1), x, w, b, kind="tensor")
    yield pair("  gradient recorded", lambda f, *o: f.conv2d(*o, 1, 1), x, w, b, kind="grad")
    yield pair("  and back", lambda f, *o: f.conv2d(*o, 1, 1), x, w, b, kind="train")
    yield pair("conv2d 1x4x4x4, 3x3", lambda f, x, w: f.conv2d(x, w), *small)
    yield pair("linear 1x64 -> 32", lambda f, *o: f.linear(*o), array(1, 64), array(32, 64))
    for kind in ("array", "tensor", "grad"):
        yield pair(f"relu 64, {kind}", lambda f, x: f.relu(x), array(64), kind=kind)
    yield pair("relu 64, and back", lambda f, x: f.relu(x), array(64), kind="train")
    yield pair("gelu 64", lambda f, x: f.gelu(x), array(64))
    yield pair("max_pool2d 1x8x8x8", lambda f, x: f.max_pool2d(x, 2), x)
    yield pair("avg_pool2d 1x8x8x8", lambda f, x: f.avg_pool2d(x, 2), x)
    yield pair("softmax 1x10", lambda f, x: f.softmax(x, 1), array(1, 10))
    statistics = np.zeros(8, np.float32), np.ones(8, np.float32)
    yield pair("batch_norm, evaluation", lambda f, x, m, v: f.batch_norm(x, m, v), x, *statistics)
    yield pair(
        "batch_norm, training",
        lambda f, x, m, v: f.batch_norm(x, m, v, training=True),
        *(x, *statistics),
    )
    label = np.array([3])
    yield pair("cross_entropy 1x10", lambda f, x, t: f.cross_entropy(x, t), array(1, 10), label)
    yield pair("a + b, 8x8", lambda f, a, b: a + b, array(8, 8), array(8, 8), kind="tensor")
    yield pair("2 * a + 1, 8x8", lambda f, a: 2 * a + 1, array(8, 8), kind="tensor")
    yield pair("  and back", lambda f, a: 2 * a + 1, array(8, 8), kind="train")
    yield pair("mean of 8x8, and back", lambda f, a: a.mean(), array(8, 8), kind="train")
    yield pair(
        "layer_norm 8x64, and back", lambda f, x: f.layer_norm(x, (64,)), array(8, 64), kind="train"
    )


def lenet(nn: Any) -> Any:
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


def step_of(functional: Any, model: Any, optimizer: Any, image: Any, label: Any) -> Callable:
    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(model(image), label).backward()
        optimizer.step()

    return step


def networks() -> Iterator[Case]:
    ours, theirs = lenet(nn), lenet(torch.nn)
    image, label = array(1, 1, 28, 28), np.array([3])
    inputs = lamina.tensor(image), lamina.tensor(label)
    their_inputs = torch.from_numpy(image), torch.from_numpy(label)
    yield Case(
        "LeNet, inference",
        lamina.no_grad()(lambda: ours(inputs[0])),
        torch.no_grad()(lambda: theirs(their_inputs[0])),
    )
    for name in ("SGD", "Adam"):
        pair = [
            getattr(module, name)(model.parameters(), lr=1e-5)
            for module, model in ((optim, ours), (torch.optim, theirs))
        ]
        steps = (
            step_of(F, ours, pair[0], *inputs),
            step_of(torch_functional, theirs, pair[1], *their_inputs),
        )
        for step in steps:
            step()
        yield Case(f"LeNet, training step, {name}", *steps)
        yield Case(f"{name}.step, 10 parameters", pair[0].step, pair[1].step)


def seconds(call: Callable[[], Any], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def measure(case: Case) -> dict[str, Any]:
    calls = case.ours, case.theirs
    warm = [max(seconds(call, 10) for _ in range(3)) for call in calls]
    count = max(1, int(ROUND_SECONDS / max(warm)))
    times = np.array([[seconds(call, count) for call in calls] for _ in range(ROUNDS)])
    ours, theirs = np.median(times, 0) * 1e6
    ratio = float(np.median(times[:, 1] / times[:, 0]))
    return {"name": case.name, "lamina_us": ours, "torch_us": theirs, "ratio": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--json", help="write the rows to this file")
    options = parser.parse_args()
    lamina.set_num_threads(options.threads)
    torch.set_num_threads(options.threads)
    rows = []
    print(f"{'call':32} {'lamina us':>10} {'torch us':>10} {'ratio':>7}")
    for cases in (functions(), networks()):
        for case in cases:
            if options.only not in case.name:
                continue
            row = measure(case)
            rows.append(row)
            times = f"{row['lamina_us']:10.2f} {row['torch_us']:10.2f} {row['ratio']:7.2f}"
            print(f"{row['name']:32} {times}", flush=True)
    if options.json:
        report = {"threads": options.threads, "cores": os.cpu_count(), "rows": rows}
        with open(options.json, "w") as file:
            json.dump(report, file, indent=1)


if __name__ == "__main__":
    main()
