"""`lamina train digits`: a small LeNet, from images to saved weights and a picture."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import lamina

from .. import functional as F
from .. import nn, optim
from ..data import Split, digits


class Result(NamedTuple):
    accuracy: float
    seconds: float
    weights: Path
    picture: Path


def lenet() -> nn.Sequential:
    """LeCun et al. 1998 in spirit, for 8 x 8 images: two convolutions, two linear layers."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def accuracy(network: nn.Module, images: np.ndarray, labels: np.ndarray) -> float:
    with lamina.no_grad():
        logits = network(lamina.Tensor(images)).numpy()
    return float((logits.argmax(1) == labels).mean())


def train_digits(console: Console, epochs: int, batch_size: int, seed: int, out: Path) -> Result:
    """Trains, saves `weights.safetensors` and `filters.png` under `out`, returns the result."""
    out.mkdir(parents=True, exist_ok=True)
    lamina.manual_seed(seed)
    data, network = digits(), lenet()
    start = time.perf_counter()
    _fit(console, network, data, epochs, batch_size, seed)
    seconds = time.perf_counter() - start
    score = accuracy(network, data.test_images, data.test_labels)
    weights, picture = out / "weights.safetensors", out / "filters.png"
    lamina.save(network.state_dict(), weights)
    draw_filters(network[0].weight.data, picture)
    return Result(score, seconds, weights, picture)


def _fit(
    console: Console, network: nn.Module, data: Split, epochs: int, batch_size: int, seed: int
) -> None:
    optimizer = optim.Adam(network.parameters(), lr=1e-3)
    shuffle = np.random.default_rng(seed)
    columns = (
        TextColumn("epoch"),
        MofNCompleteColumn(),
        BarColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=epochs, loss=float("nan"))
        for _ in range(epochs):
            order = shuffle.permutation(len(data.train_labels))
            total = 0.0
            for first in range(0, len(order), batch_size):
                batch = order[first : first + batch_size]
                optimizer.zero_grad()
                logits = network(lamina.Tensor(data.train_images[batch]))
                loss = F.cross_entropy(logits, data.train_labels[batch])
                loss.backward()
                optimizer.step()
                total += loss.item() * len(batch)
            progress.update(task, advance=1, loss=total / len(order))


def draw_filters(weight: np.ndarray, path: Path) -> None:
    """The first layer's filters [K, 1, R, S] as a picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.6 * -(-len(weight) // 8)), layout="constrained")
    FigureCanvasAgg(figure)
    limit = float(np.abs(weight).max())
    for index, filter_ in enumerate(weight[:, 0]):
        axes = figure.add_subplot(-(-len(weight) // 8), 8, index + 1)
        axes.imshow(filter_, cmap="RdBu", vmin=-limit, vmax=limit)
        axes.set_axis_off()
    figure.suptitle("Filters of the first layer")
    figure.savefig(path, dpi=120)
