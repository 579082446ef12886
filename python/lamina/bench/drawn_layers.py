"""Convolutions that nobody chose: what networks are made of, put together at random."""

from __future__ import annotations

import math
import random

from .layers import ConvLayer

BATCHES = (1, 1, 2, 4, 8, 16)
INPUTS = (3, 4, 8, 16, 16, 24, 25, 32, 32, 48, 64, 64, 80, 96, 128, 128, 192, 256, 256, 384, 512)
OUTPUTS = (1, 4, 8, 16, 16, 21, 32, 32, 48, 64, 64, 96, 100, 128, 128, 160, 192, 256, 256, 384, 512)
SIDES = (1, 4, 6, 7, 8, 10, 13, 14, 14, 17, 19, 20, 24, 28, 28, 32, 33, 40, 56, 56, 64, 65, 80, 112)
FILTERS = (
    *((1, 1), (1, 1), (1, 1), (1, 3), (3, 1), (1, 5), (1, 7), (7, 1), (2, 2), (4, 4), (3, 5)),
    *((3, 3), (3, 3), (3, 3), (3, 3), (3, 3), (3, 3), (5, 5), (5, 5), (5, 5), (7, 7)),
)
STRIDES = (1, 1, 1, 1, 2)
DILATIONS = (1, 1, 1, 1, 1, 2, 3, 4, 8, 12, 18)
GROUPS = (1, 1, 1, 1, 1, 1, 1, 1, 2, 4, 8)
MULTIPLY_ADDS = (1e6, 4e8)  # within these: worth a choice, and soon measured
MOST_ELEMENTS = 8e6


def drawn_layers(seed: int, count: int) -> tuple[tuple[ConvLayer, int], ...]:
    """(layer, batch) of two axes, the same for the same seed."""
    draw = random.Random(seed)
    layers: list[tuple[ConvLayer, int]] = []
    while len(layers) < count:
        layer, batch = _any_layer(draw, f"drawn{seed}_{len(layers)}")
        if _fits(layer, batch):
            layers.append((layer, batch))
    return tuple(layers)


def _any_layer(draw: random.Random, name: str) -> tuple[ConvLayer, int]:
    side = draw.choice(SIDES)
    kernel = draw.choice(FILTERS)
    dilation = draw.choice(DILATIONS) if max(kernel) > 1 else 1
    same = draw.random() < 0.85
    layer = ConvLayer(
        name,
        c=draw.choice(INPUTS),
        size=(side, draw.choice((side, side, 2 * side, max(side // 2, 1)))),
        k=draw.choice(OUTPUTS),
        kernel=kernel,
        stride=draw.choice(STRIDES),
        padding=tuple(dilation * (taps // 2) if same else 0 for taps in kernel),
        groups=draw.choice(GROUPS),
        dilation=dilation,
    )
    return layer, draw.choice(BATCHES)


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
