"""Functions that layers and losses are made of, beside PyTorch, at the sizes of training steps.

    python benchmarks/functions.py [--threads 2] [--only NAME[,NAME]] [--json FILE]

A sweep for what is slow: every call on tensors of 0.1 to 2 million elements, forward, and forward
and backward with new gradients. Rounds of both libraries take turns and begin when the other's
threads sleep; the table has medians and the median ratio, PyTorch's time over Lamina's.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import lamina
import numpy as np
import torch
from lamina.bench import timing
from overhead import Case, array, functional_of, measure, trained, write

ROUNDS = 10
IMAGES, ROWS, SQUARE = (8, 64, 56, 56), (256, 1000), (512, 512)


class Function(NamedTuple):
    """run(library, functional, *operands); gradients for the first `gradients` operands."""

    name: str
    run: Callable[..., Any]
    operands: tuple[np.ndarray, ...]
    gradients: int | None = None  # of all


def unit(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, np.float32) * np.float32(0.98) + np.float32(0.01)


def below(limit: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, limit, shape)


def signs(*shape: int) -> np.ndarray:
    return np.where(array(*shape) > 0, 1, -1).astype(np.float32)


def named(name: str, *operands: np.ndarray, **options: Any) -> Function:
    """functional.name(*operands, **options); called by the part of the name before a blank."""
    gradients = options.pop("gradients", None)
    function = name.split()[0]
    return Function(name, lambda _, f, *o: getattr(f, function)(*o, **options), operands, gradients)


def of_tensors(
    name: str, run: Callable[..., Any], *operands: np.ndarray, gradients: int | None = None
) -> Function:
    """What is written with tensors alone."""
    return Function(name, lambda _l, _f, *o: run(*o), operands, gradients)


def of_library(name: str, run: Callable[..., Any], *operands: np.ndarray) -> Function:
    """run(library, *operands)."""
    return Function(name, lambda library, _f, *o: run(library, *o), operands)


def activations() -> Iterator[Function]:
    names = "relu relu6 leaky_relu elu selu celu gelu silu mish sigmoid tanh softplus softsign "
    names += "hardswish hardsigmoid hardtanh hardshrink softshrink tanhshrink logsigmoid glu"
    for name in names.split():
        yield named(name, array(*IMAGES))
    yield named("glu of channels", array(*IMAGES), dim=1)
    yield named("threshold", array(*IMAGES), threshold=0.1, value=2.0)
    yield named("prelu", array(*IMAGES), array(64))
    yield named("dropout", array(*IMAGES))
    yield named("dropout2d", array(*IMAGES))
    for shape in (ROWS, (4, 21, 128, 128), (8, 8, 128, 128)):
        for name in ("softmax", "log_softmax"):
            yield named(f"{name} {shape}", array(*shape), dim=1 if shape[1] == 21 else -1)
    yield named("gumbel_softmax", array(*ROWS))


def losses() -> Iterator[Function]:
    x, target, labels = array(*ROWS), unit(*ROWS), below(ROWS[1], ROWS[0])
    for name in ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"):
        yield named(name, x, array(*ROWS) + 1, gradients=1)
    yield named("mse_loss none", x, target, reduction="none", gradients=1)
    yield named("binary_cross_entropy", unit(*ROWS), target, gradients=1)
    yield named("binary_cross_entropy_with_logits", x, target, gradients=1)
    yield named("kl_div", x, target, reduction="batchmean", gradients=1)
    yield named("poisson_nll_loss", x, target, gradients=1)
    yield named("gaussian_nll_loss", x, target, unit(*ROWS), gradients=1)
    yield named("soft_margin_loss", x, signs(*ROWS), gradients=1)
    yield named("hinge_embedding_loss", x, signs(*ROWS), gradients=1)
    yield named("multilabel_soft_margin_loss", x, (x > 0).astype(np.float32), gradients=1)
    yield named("multi_margin_loss", x, labels)
    yield named("cross_entropy", x, labels)
    yield named("cross_entropy smoothed", x, labels, label_smoothing=0.1)
    yield named("cross_entropy probabilities", x, target, gradients=1)
    yield named("cross_entropy pixels", array(4, 21, 128, 128), below(21, 4, 128, 128))
    yield named("nll_loss", x, labels)
    many, classes = array(200000, 10), below(10, 200000)
    yield named("cross_entropy (200000, 10)", many, classes)
    yield named("nll_loss (200000, 10)", many, classes)
    lines = array(1024, 256), array(1024, 256) + 1, array(1024, 256) - 1
    yield named("margin_ranking_loss", *(a.reshape(-1) for a in lines[:2]), signs(1024 * 256))
    yield named("cosine_embedding_loss", *lines[:2], signs(1024), gradients=2)
    yield named("triplet_margin_loss", *lines)
    yield named("cosine_similarity", *lines[:2])
    yield named("triplet_margin_with_distance_loss", *lines)
    for p in (2.0, 1.0, 3.0, math.inf):
        yield named(f"pairwise_distance {p:g}", *lines[:2], p=p)
    yield named("pdist", array(256, 64))
    yield Function("ctc_loss", ctc_loss, (array(100, 16, 40), below(39, 16, 20) + 1))


def ctc_loss(library: Any, functional: Any, x: Any, targets: Any) -> Any:
    lengths = [library.tensor([n] * 16) for n in (100, 20)]
    return functional.ctc_loss(functional.log_softmax(x, -1), targets, *lengths)


def norms() -> Iterator[Function]:
    for shape in (IMAGES, (8, 512, 7, 7), (256, 512), (64, 4096)):
        channels = shape[1]
        for training in (True, False):
            statistics = array(channels), unit(channels)
            yield Function(
                f"batch_norm {shape}" + (", training" if training else ""),
                lambda _, f, x, w, b, m, v, training=training: f.batch_norm(
                    x, m, v, w, b, training=training
                ),
                (array(*shape), array(channels), array(channels), *statistics),
                3,
            )
    yield named("instance_norm", array(*IMAGES))
    yield named("group_norm", array(*IMAGES), num_groups=8)
    for length in (768, 64):
        shape = (786432 // length, length)
        yield named(f"layer_norm {shape}", array(*shape), normalized_shape=(length,))
        yield named(f"rms_norm {shape}", array(*shape), normalized_shape=(length,))
    yield named("local_response_norm", array(8, 96, 27, 27), size=5)
    yield named("normalize", array(1024, 256))


def pools() -> Iterator[Function]:
    shapes = {1: (16, 64, 1000), 2: IMAGES, 3: (2, 32, 28, 28, 28)}
    for axes, shape in shapes.items():
        windows = (2, 2), (3, 2), (3, 1), (3, 3), (4, 4), (5, 1), (5, 2), (5, 3), (7, 4), (7, 7)
        for kernel, stride in windows:
            for name in ("max_pool", "avg_pool"):
                yield named(
                    f"{name}{axes}d {kernel}/{stride}",
                    array(*shape),
                    kernel_size=kernel,
                    stride=stride,
                )
        for name in ("adaptive_avg_pool", "adaptive_max_pool"):
            for size in (1, 7):
                yield named(f"{name}{axes}d {size}", array(*shape), output_size=size)
        yield named(f"lp_pool{axes}d", unit(*shape), norm_type=2.0, kernel_size=2)


def movements() -> Iterator[Function]:
    for mode in ("constant", "reflect", "replicate", "circular"):
        yield named(f"pad {mode}", array(*IMAGES), pad=(1, 2, 3, 1), mode=mode)
    for mode in ("nearest", "bilinear", "bicubic"):
        yield named(f"interpolate {mode}", array(8, 32, 28, 28), scale_factor=2, mode=mode)
    yield named("pixel_shuffle", array(*IMAGES), upscale_factor=2)
    yield named("pixel_unshuffle", array(*IMAGES), downscale_factor=2)
    yield Function(
        "channel_shuffle",
        lambda library, f, x: (library if library is torch else f).channel_shuffle(x, 4),
        (array(*IMAGES),),
    )
    yield named("unfold", array(8, 64, 28, 28), kernel_size=3, padding=1)
    yield named("fold", array(8, 576, 784), output_size=(28, 28), kernel_size=3, padding=1)
    yield named("embedding", below(10000, 64, 128), array(10000, 128))
    yield named("embedding_bag", below(10000, 512, 16), array(10000, 128))
    yield named("one_hot", below(1000, 256), num_classes=1000, gradients=0)
    image, square, places = array(8, 64, 28, 28), array(*SQUARE), below(512, *SQUARE)
    yield of_tensors(
        "x.permute(0, 2, 3, 1) + y", lambda x, y: x.permute(0, 2, 3, 1) + y, image, array(64)
    )
    yield of_tensors("x + x.T", lambda x: x + x.T, square)
    yield of_tensors("x[:, 1:] - x[:, :-1]", lambda x: x[:, 1:] - x[:, :-1], square)
    yield of_tensors("2 * x[:, ::2]", lambda x: 2 * x[:, ::2], square)
    yield of_tensors("x[i]", lambda x, i: x[i], square, below(512, 512))
    yield of_tensors("x[:, i]", lambda x, i: x[:, i], square, below(512, 512))
    yield of_tensors("x[i, j]", lambda x, i, j: x[i, j], square, below(512, 4096), below(512, 4096))
    yield of_tensors("x[mask]", lambda x, m: x[m], square, square > 0)
    yield of_tensors("x.double()", lambda x: x.double(), square)
    yield of_tensors("x.double().float()", lambda x: x.double().float(), square)
    for axis in (0, 1):
        yield of_library(
            f"gather {axis}", lambda l, x, i, axis=axis: l.gather(x, axis, i), square, places
        )
        yield of_library(f"flip {axis}", lambda l, x, axis=axis: l.flip(x, (axis,)), square)


def arithmetic() -> Iterator[Function]:
    x, y = unit(*SQUARE), unit(*SQUARE) + np.float32(0.5)
    names = "exp expm1 log log2 log1p sqrt rsqrt sin cos tanh floor abs sign square neg"
    for name in names.split():
        yield of_library(name, lambda l, x, name=name: getattr(l, name)(x), x)
    for power in (2, 3, 0.5, -1, 1.7):
        yield of_tensors(f"x ** {power}", lambda x, power=power: x**power, x)
    yield of_tensors("2 ** x", lambda x: 2**x, x)
    yield of_tensors("x ** y", lambda x, y: x**y, x, y)
    yield of_tensors("x // y", lambda x, y: x // y, x, y, gradients=0)
    yield of_tensors("x % y", lambda x, y: x % y, x, y, gradients=1)
    yield of_library("clamp", lambda l, x: l.clamp(x, 0.2, 0.8), x)
    yield of_library("where", lambda l, x, y: l.where(x > y, x, y), x, y)
    for name in ("sum", "mean", "var", "std", "amax", "prod", "logsumexp"):
        for dim in (0, 1):
            yield of_library(
                f"{name} {dim}", lambda l, x, name=name, dim=dim: getattr(l, name)(x, dim), y
            )
    yield from reductions_of_views()
    yield of_tensors("sum of integers", lambda x: x.sum(), below(100, *SQUARE), gradients=0)
    yield of_tensors("(x > y).sum()", lambda x, y: (x > y).sum(), x, y, gradients=0)
    yield of_library("norm", lambda l, x: l.norm(x), x)
    yield of_tensors("vector @ vector", lambda x, y: x @ y, unit(100000), unit(100000))
    yield of_tensors("matrix @ vector", lambda x, y: x @ y, x, unit(512))
    yield of_tensors("matrices @ matrices", lambda x, y: x @ y, unit(32, 64, 64), unit(32, 64, 64))


def reductions_of_views() -> Iterator[Function]:
    for shape in ((1, 16, 16, 16), (8, 64, 28, 28)):
        views = {
            "channels last": lambda x: x.permute(0, 2, 3, 1),
            "transposed": lambda x: x.transpose(0, 1),
            "cut": lambda x: x[:, :, 1:-1, 1:-1],
        }
        for layout, view in views.items():
            for name in ("sum", "amax", "var"):
                for dim in (-1, (1, 2)):
                    yield of_library(
                        f"{name} {dim} of {shape}, {layout}",
                        lambda l, x, name=name, dim=dim, view=view: getattr(l, name)(view(x), dim),
                        array(*shape),
                    )


GROUPS = (activations, losses, norms, pools, movements, arithmetic)


def cases(function: Function) -> Iterator[Case]:
    """Forward without gradients; forward and back."""
    sides = [Side(function, library) for library in (lamina, torch)]
    yield Case(function.name, *(side.forward for side in sides))
    if sides[0].sources:
        yield Case(f"{function.name} and back", *(side.trained() for side in sides))


class Side:
    """A function with its operands in one library; `sources` get gradients."""

    def __init__(self, function: Function, library: Any) -> None:
        self.function, self.library = function, library
        self.operands = [library.tensor(x) for x in function.operands]
        floats = [x for x in self.operands if x.is_floating_point()]
        self.sources = floats[: function.gradients]

    def forward(self) -> Any:
        return self.function.run(self.library, functional_of(self.library), *self.operands)

    def trained(self) -> Callable[[], None]:
        return trained(lambda *_: self.forward(), None, self.sources, self.library)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="functions whose names contain one of these")
    parser.add_argument("--json", help="write the rows to this file")
    options = parser.parse_args()
    timing.keep_memory(True)
    lamina.set_num_threads(options.threads)
    torch.set_num_threads(options.threads)
    rows = []
    print(f"{'call':44} {'lamina us':>10} {'torch us':>10} {'ratio':>7}")
    for group in GROUPS:
        for function in group():
            if not any(part in function.name for part in options.only.split(",")):
                continue
            for case in cases(function):
                row = measure(case, 0.015 if options.threads > 1 else 0, ROUNDS)
                rows.append(row)
                times = f"{row['lamina_us']:10.1f} {row['torch_us']:10.1f} {row['ratio']:7.2f}"
                print(f"{row['name']:44} {times}", flush=True)
    mean = math.exp(np.mean([math.log(row["ratio"]) for row in rows]))
    slower = sum(row["ratio"] < 1 for row in rows)
    print(f"{len(rows)} calls, geometric mean {mean:.2f}, {slower} slower")
    if options.json:
        write(Path(options.json), options.threads, rows, "benchmarks/functions.py")


if __name__ == "__main__":
    main()
