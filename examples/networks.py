"""A known network on random images: its layers, and the time of a forward pass or training step.

    python examples/networks.py resnet18 --batch 8
    python examples/networks.py lenet --batch 64 --train
    python examples/networks.py mobilenet_v2 --layers

The networks are plain modules; their source is `lamina.models`, a file each.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from enum import Enum
from typing import Annotated, Any

import lamina
import numpy as np
import typer
from lamina import functional as F
from lamina import models, nn, optim
from rich.console import Console
from rich.table import Table

CLASSES = 10
NAMES = [name for name in models.__all__ if name.islower()]
Name = Enum("Name", {name: name for name in NAMES}, type=str)  # type: ignore[misc]
console = Console()


def random_batch(name: str, batch: int) -> tuple[lamina.Tensor, np.ndarray]:
    """Images of the size that the network was made for, and labels."""
    rng = np.random.default_rng(0)
    image = (1, 28, 28) if name == "lenet" else (3, 224, 224)
    images = rng.standard_normal((batch, *image), np.float32)
    return lamina.Tensor(images), rng.integers(0, CLASSES, batch)


def forward_pass(network: nn.Module, images: Any) -> Callable[[], Any]:
    network.eval()

    @lamina.no_grad()
    def forward() -> Any:
        return network(images)

    return forward


def training_step(network: nn.Module, images: Any, labels: np.ndarray) -> Callable[[], Any]:
    """Forward, backward and update; gives the loss before the update."""
    network.train()
    optimizer = optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)

    def step() -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    return step


def seconds_per_call(call: Callable[[], Any], seconds: float) -> list[float]:
    """The times of as many calls as fit, after one that is not counted; one at least."""
    call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def print_layers(network: nn.Module) -> None:
    table = Table("layer", "module", "parameters", box=None)
    for name, module in network.named_modules():
        if not list(module.children()):
            count = sum(parameter.numel() for parameter in module.parameters())
            table.add_row(name, repr(module), f"{count:,}" if count else "")
    console.print(table)


def main(
    network: Annotated[Name, typer.Argument(help="A function of lamina.models.")],
    batch: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 1,
    train: Annotated[bool, typer.Option("--train", help="Time a step of training.")] = False,
    threads: Annotated[int, typer.Option(min=0, help="0: all.")] = 0,
    seconds: Annotated[float, typer.Option(min=0, help="How long to measure.")] = 2.0,
    layers: Annotated[bool, typer.Option("--layers", help="Print the layers.")] = False,
) -> None:
    """Runs a known network on random images and prints what an image takes."""
    if threads:
        lamina.set_num_threads(threads)
    lamina.manual_seed(0)
    name = network.value
    model = getattr(models, name)(num_classes=CLASSES)
    if layers:
        print_layers(model)
    images, labels = random_batch(name, batch)
    call = training_step(model, images, labels) if train else forward_pass(model, images)
    times = seconds_per_call(call, seconds)
    median = statistics.median(times)
    what = "training step" if train else "forward pass"
    console.print(
        f"{name}, {sum(p.numel() for p in model.parameters()):,} parameters, batch {batch}, "
        f"{lamina.get_num_threads()} threads: {what} {median * 1e3:.2f} ms "
        f"(median of {len(times)}), {batch / median:.1f} images/s"
    )


if __name__ == "__main__":
    typer.run(main)
