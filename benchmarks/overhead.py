"""What a call costs where the arithmetic is next to nothing: beside PyTorch, in one process.

    python benchmarks/overhead.py [--threads 1] [--only NAME] [--json FILE] [--large]

With --large, the same operations of tensors on tensors of a million elements and more.

Rounds of both libraries take turns; the table has the medians and the median of the ratios within
rounds, PyTorch's time over Lamina's: above 1 Lamina is faster. Whole Python calls, with output.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import lamina
import numpy as np
import torch
from lamina import functional as F
from lamina import nn, optim
from lamina.bench import report
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


def transposed(f: Any, x: Any, w: Any, b: Any = None) -> Any:
    return f.conv_transpose2d(x, w, b, 2, 1)


def functions() -> Iterator[Case]:
    x, w, b = array(1, 8, 8, 8), array(8, 8, 3, 3), array(8)
    small = array(1, 4, 4, 4), array(4, 4, 3, 3)
    up = array(1, 8, 4, 4), array(8, 8, 4, 4)
    yield pair("conv2d 1x8x8x8, 3x3", lambda f, x, w: f.conv2d(x, w, None, 1, 1), x, w)
    yield pair("  with bias, Tensors", lambda f, *o: f.conv2d(*o, 1, 1), x, w, b, kind="tensor")
    yield pair("  gradient recorded", lambda f, *o: f.conv2d(*o, 1, 1), x, w, b, kind="grad")
    yield pair("  and back", lambda f, *o: f.conv2d(*o, 1, 1), x, w, b, kind="train")
    yield pair("conv2d 1x4x4x4, 3x3", lambda f, x, w: f.conv2d(x, w), *small)
    yield pair("conv_transpose2d 1x8x4x4, 4x4", transposed, *up)
    yield pair("  with bias, Tensors", transposed, *up, b, kind="tensor")
    yield pair("  and back", transposed, *up, b, kind="train")
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


def operations() -> Iterator[Operation]:
    """What tensors compute, written for both libraries: `l` is lamina or torch."""
    yield Operation("exp", lambda l, x: l.exp(x), positive)
    yield Operation("log", lambda l, x: l.log(x), positive)
    yield Operation("sqrt", lambda l, x: l.sqrt(x), positive)
    yield Operation("rsqrt", lambda l, x: l.rsqrt(x), positive)
    yield Operation("abs", lambda l, x: l.abs(x), square)
    yield Operation("tanh", lambda l, x: l.tanh(x), square)
    yield Operation("sigmoid", lambda l, x: l.sigmoid(x), square)
    yield Operation("sin", lambda l, x: l.sin(x), square)
    yield Operation("floor", lambda l, x: l.floor(x), square)
    yield Operation("neg", lambda l, x: -x, square)
    yield Operation("x ** 2", lambda l, x: x**2, square)
    yield Operation("clamp", lambda l, x: l.clamp(x, -1, 0.5), square)
    yield Operation("a + b", lambda l, a, b: a + b, square, square)
    yield Operation("a * b", lambda l, a, b: a * b, square, square)
    yield Operation("a / b", lambda l, a, b: a / b, square, positive)
    yield Operation("a - row", lambda l, a, b: a - b, square, row)
    yield Operation("a * column", lambda l, a, b: a * b, square, column)
    yield Operation("2 * a + 1", lambda l, a: 2 * a + 1, square)
    yield Operation("maximum", lambda l, a, b: l.maximum(a, b), square, square)
    yield Operation("a > b", lambda l, a, b: a > b, square, square, back=False)
    yield Operation("a == 0", lambda l, a: a == 0, square, back=False)
    yield Operation("where", lambda l, c, a, b: l.where(c, a, b), mask, square, square)
    yield Operation("masked_fill", lambda l, x, m: x.masked_fill(m, -1.0), square, mask)
    yield Operation("sum", lambda l, x: x.sum(), square)
    yield Operation("sum of rows", lambda l, x: x.sum(1), square)
    yield Operation("sum of columns", lambda l, x: x.sum(0), square)
    yield Operation("mean", lambda l, x: x.mean(), square)
    yield Operation("mean of rows", lambda l, x: x.mean(-1, keepdim=True), square)
    yield Operation("max", lambda l, x: x.max(), square)
    yield Operation("max of rows", lambda l, x: x.max(1)[0], square)
    yield Operation("max of columns", lambda l, x: x.max(0)[0], square)
    yield Operation("argmax of rows", lambda l, x: x.argmax(1), square, back=False)
    yield Operation("matmul", lambda l, a, b: a @ b, square, square)
    yield Operation("matmul, transposed", lambda l, a, b: a @ b.T, square, square)
    yield Operation("matmul, vector", lambda l, a, b: a @ b, square, row)
    yield Operation("cat", lambda l, a, b: l.cat([a, b], 1), square, square)
    yield Operation("stack", lambda l, a, b: l.stack([a, b]), square, square)
    yield Operation("pad", lambda l, x: functional_of(l).pad(x, (1, 1, 1, 1)), square)
    yield Operation("reshape", lambda l, x: x.reshape(-1), square)
    yield Operation("flatten", lambda l, x: x.flatten(), square)
    yield Operation("unsqueeze", lambda l, x: x.unsqueeze(0), square)
    yield Operation("transpose", lambda l, x: x.transpose(0, 1), square)
    yield Operation("permute", lambda l, x: x.permute(1, 0), square)
    yield Operation("transposed copy", lambda l, x: x.T.contiguous(), square)
    yield Operation("x[1]", lambda l, x: x[1], square)
    yield Operation("x[1:, ::2]", lambda l, x: x[1:, ::2], square)
    yield Operation("x[mask]", lambda l, x, m: x[m], square, mask)
    yield Operation("x[indices]", lambda l, x, i: x[i], square, indices)
    yield Operation("split", lambda l, x: x.split(4)[1], square)
    yield Operation("clone", lambda l, x: x.clone(), square)


def functional_of(library: Any) -> Any:
    return F if library is lamina else torch_functional


class Operation:
    """run(library, *operands); each operand is a function of a side length."""

    def __init__(
        self,
        name: str,
        run: Callable[..., Any],
        *operands: Callable[[int], np.ndarray],
        back: bool = True,
    ) -> None:
        self.name, self.run, self.operands, self.back = name, run, operands, back


def square(side: int) -> np.ndarray:
    return array(side, side)


def positive(side: int) -> np.ndarray:
    return np.abs(array(side, side)) + np.float32(0.1)


def row(side: int) -> np.ndarray:
    return array(side)


def column(side: int) -> np.ndarray:
    return array(side, 1)


def mask(side: int) -> np.ndarray:
    return array(side, side) > 0


def indices(side: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, side, side)


def small_operations() -> Iterator[Case]:
    """Each without a gradient, recorded, and with the way back."""
    for operation in operations():
        arrays = [make(8) for make in operation.operands]
        kinds = ("tensor", "grad", "train") if operation.back else ("tensor",)
        for kind in kinds:
            yield operation_case(operation, arrays, kind, NAMES[kind].format(operation.name))


def large_operations() -> Iterator[Case]:
    """A million elements there and back, 16 million there."""
    for operation in operations():
        matrix = operation.name.startswith("matmul")
        for side, kind in ((1024, "tensor"), (1024, "train"), (2048 if matrix else 4096, "tensor")):
            if kind == "tensor" or operation.back:
                arrays = [make(side) for make in operation.operands]
                name = f"{NAMES[kind].format(operation.name)}, {side}"
                yield operation_case(operation, arrays, kind, name)


NAMES = {"tensor": "{}", "grad": "{} recorded", "train": "{} and back"}


def operation_case(operation: Operation, arrays: list[np.ndarray], kind: str, name: str) -> Case:
    calls = []
    for library, tensor in ((lamina, lamina.tensor), (torch, torch.tensor)):
        operands = [tensor(x) for x in arrays]
        if kind != "tensor":
            for x, source in zip(operands, arrays, strict=True):
                if source.dtype.kind == "f":
                    x.requires_grad_()
        calls.append(operation_call(operation.run, library, tensor, operands, kind == "train"))
    return Case(name, *calls)


def operation_call(
    run: Callable[..., Any], library: Any, tensor: Any, operands: list[Any], back: bool
) -> Callable[[], Any]:
    if not back:
        return lambda: run(library, *operands)
    seed = tensor(np.ones(tuple(run(library, *operands).shape), np.float32))

    def there_and_back() -> None:
        for x in operands:
            x.grad = None
        run(library, *operands).backward(seed)

    return there_and_back


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


def measure(case: Case, rest: float, most: int = ROUNDS) -> dict[str, Any]:
    """rest: seconds between the libraries, whose threads wait for more work for a while."""
    calls = case.ours, case.theirs
    warm = [min(seconds(call, 3) for _ in range(3)) for call in calls]
    count = max(1, int(ROUND_SECONDS / max(warm)))
    rounds = min(most, max(5, int(0.25 / (sum(warm) * count))))

    def rested(call: Callable[[], Any]) -> float:
        time.sleep(rest)
        return seconds(call, count)

    times = np.array([[rested(call) for call in calls] for _ in range(rounds)])
    ours, theirs = np.median(times, 0) * 1e6
    ratio = float(np.median(times[:, 1] / times[:, 0]))
    return {"name": case.name, "lamina_us": ours, "torch_us": theirs, "ratio": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument(
        "--json", help="write the rows to this file, beside those of other numbers of threads"
    )
    parser.add_argument("--large", action="store_true", help="operations on large tensors only")
    options = parser.parse_args()
    lamina.set_num_threads(options.threads)
    torch.set_num_threads(options.threads)
    rows = []
    print(f"{'call':32} {'lamina us':>10} {'torch us':>10} {'ratio':>7}")
    groups = (large_operations,) if options.large else (functions, small_operations, networks)
    for cases in groups:
        for case in cases():
            if options.only not in case.name:
                continue
            row = measure(case, 0.015 if options.threads > 1 and options.large else 0)
            rows.append(row)
            times = f"{row['lamina_us']:10.2f} {row['torch_us']:10.2f} {row['ratio']:7.2f}"
            print(f"{row['name']:32} {times}", flush=True)
    if options.json:
        write(Path(options.json), options.threads, rows, "benchmarks/overhead.py")


def write(path: Path, threads: int, rows: list[dict[str, Any]], program: str) -> None:
    """Replaces the rows of that number of threads; those of others stay."""
    earlier = json.loads(path.read_text()) if path.exists() else {}
    digits = [
        {key: float(f"{x:.4g}") if isinstance(x, float) else x for key, x in row.items()}
        for row in rows
    ]
    typed = report.command("python", program)
    commands = {**earlier.get("commands", {}), str(threads): typed}
    several = {**earlier.get("threads", {}), str(threads): digits}
    report.write(path, {"commands": commands, "cores": os.cpu_count(), "threads": several})


if __name__ == "__main__":
    main()
