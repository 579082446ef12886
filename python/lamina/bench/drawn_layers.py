"""Convolutions that nobody chose: what networks are made of, put together at random."""

from __future__ import annotations

import math
import random
from typing import NamedTuple

from .layers import ConvLayer, Sizes

BATCHES = (1, 1, 2, 4, 8, 16)
INPUTS = (3, 4, 8, 16, 16, 24, 25, 32, 32, 48, 64, 64, 80, 96, 128, 128, 192, 256, 256, 384, 512)
OUTPUTS = (1, 4, 8, 16, 16, 21, 32, 32, 48, 64, 64, 96, 100, 128, 128, 160, 192, 256, 256, 384, 512)
DEPTHWISE = 0  # as many groups as channels
DRAWN = {"drawn_lines": 1, "drawn": 2, "drawn_volumes": 3}  # axes of the families


class Kinds(NamedTuple):
    """What differs by the number of axes."""

    name: str
    sides: tuple[int, ...]
    filters: tuple[tuple[int, ...], ...]
    strides: tuple[Sizes, ...] = (1, 1, 1, 1, 2)
    dilations: tuple[int, ...] = (1, 1, 1, 1, 1, 2, 3, 4, 8, 12, 18)
    groups: tuple[int, ...] = (1, 1, 1, 1, 1, 1, 1, 1, 2, 4, DEPTHWISE)


KINDS = {
    1: Kinds(
        "line",
        (50, 80, 100, 128, 200, 256, 300, 400, 512, 750, 1000, 1024, 1500, 3000, 4096, 8000, 16000),
        tuple((taps,) for taps in (1, 1, 1, 1, 2, 3, 3, 3, 3, 3, 4, 5, 5, 7, 7, 8, 9, 11, 15, 31)),
        strides=(1, 1, 1, 1, 1, 1, 2, 2, 4, 5),
        dilations=(1, 1, 1, 1, 1, 2, 3, 4, 8, 16, 64),
    ),
    2: Kinds(
        "drawn",
        (
            *(1, 4, 6, 7, 8, 10, 13, 14, 14, 17, 19, 20, 24, 28, 28, 32, 33, 40, 56, 56, 64),
            *(65, 80, 112),
        ),
        (
            *((1, 1), (1, 1), (1, 1), (1, 3), (3, 1), (1, 5), (1, 7), (7, 1), (2, 2), (4, 4)),
            *((3, 5), (3, 3), (3, 3), (3, 3), (3, 3), (3, 3), (3, 3), (5, 5), (5, 5), (5, 5)),
            (7, 7),
        ),
        groups=(1, 1, 1, 1, 1, 1, 1, 1, 2, 4, 8),
    ),
    3: Kinds(
        "volume",
        (4, 7, 8, 10, 14, 14, 16, 20, 24, 28, 28, 32, 40, 48, 56, 64),
        (
            *((1, 1, 1), (1, 1, 1), (1, 1, 1), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
            *((3, 1, 1), (3, 1, 1), (1, 3, 3), (1, 3, 3), (2, 2, 2), (4, 4, 4), (5, 5, 5)),
            *((1, 5, 5), (5, 1, 1), (3, 7, 7)),
        ),
        strides=(1, 1, 1, 1, 1, 2, (1, 2, 2)),
        dilations=(1, 1, 1, 1, 1, 2),
    ),
}
DEPTHS = (2, 4, 4, 7, 8, 8, 12, 16, 16, 24, 32)
MULTIPLY_ADDS = (1e6, 4e8)  # within these: worth a choice, and soon measured
MOST_ELEMENTS = 8e6


def drawn_layers(seed: int, count: int, axes: int = 2) -> tuple[tuple[ConvLayer, int], ...]:
    """(layer, batch) of so many axes, the same for the same seed."""
    draw, kinds = random.Random(seed), KINDS[axes]
    layers: list[tuple[ConvLayer, int]] = []
    while len(layers) < count:
        layer, batch = _any_layer(draw, kinds, f"{kinds.name}{seed}_{len(layers)}")
        if _fits(layer, batch):
            layers.append((layer, batch))
    return tuple(layers)


def _any_layer(draw: random.Random, kinds: Kinds, name: str) -> tuple[ConvLayer, int]:
    side = draw.choice(kinds.sides)
    kernel = draw.choice(kinds.filters)
    dilation = draw.choice(kinds.dilations) if max(kernel) > 1 else 1
    same = draw.random() < 0.85
    c = draw.choice(INPUTS)
    size = _size(draw, side, len(kernel))
    k = draw.choice(OUTPUTS)
    stride = draw.choice(kinds.strides)
    groups = draw.choice(kinds.groups)
    if groups == DEPTHWISE:
        k = groups = c
    padding = tuple(dilation * (taps // 2) if same else 0 for taps in kernel)
    layer = ConvLayer(name, c, size, k, kernel, stride, padding, groups, dilation=dilation)
    return layer, draw.choice(BATCHES)


def _size(draw: random.Random, side: int, axes: int) -> tuple[int, ...]:
    if axes == 1:
        return (side,)
    plane = side, draw.choice((side, side, 2 * side, max(side // 2, 1)))
    return plane if axes == 2 else (draw.choice(DEPTHS), *plane)


def _fits(layer: ConvLayer, batch: int) -> bool:
    if layer.c % layer.groups or layer.k % layer.groups:
        return False
    spans = [layer.each(layer.dilation)[0] * (taps - 1) + 1 for taps in layer.each(layer.kernel)]
    padded = [
        n + 2 * p for n, p in zip(layer.each(layer.size), layer.each(layer.padding), strict=True)
    ]
    if any(span > n for span, n in zip(spans, padded, strict=True)):
        return False
    if max(math.prod(layer.x_shape(batch)), math.prod(layer.y_shape(batch))) > MOST_ELEMENTS:
        return False
    work = math.prod(layer.y_shape(batch)) * math.prod(layer.weight_shape[1:])
    return MULTIPLY_ADDS[0] < work < MULTIPLY_ADDS[1]
