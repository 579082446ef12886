"""Regions of interest, as in torchvision.ops: RoI max pooling, RoI align, greedy NMS.

input [N, C, H, W]; boxes [K, 5] of (batch index, x1, y1, x2, y2) in the image's coordinates, or a
list of [L, 4] per image; y [K, C, P, Q]. Sources: Girshick 2015 (RoI pool), He et al. 2017
(RoI align).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._arrays import Array, grid, ntuple, real
from .pooling import first_maximum, flat_positions

Boxes = ArrayLike | list[ArrayLike]


def _rois(boxes: Boxes) -> Array:
    if isinstance(boxes, (list, tuple)):
        rows = [
            np.concatenate([np.full((len(b), 1), float(i)), real(b).reshape(-1, 4)], 1)
            for i, b in enumerate(boxes)
        ]
        return np.concatenate(rows)
    return real(boxes)


def _round_half_away(v: float) -> int:
    return int(math.copysign(math.floor(abs(v) + 0.5), v))


def _pool_spans(low: float, high: float, scale: float, bins: int, size: int) -> list[range]:
    """Per bin the positions of one axis: rounded box, both ends included, at least 1 long."""
    start, stop = _round_half_away(low * scale), _round_half_away(high * scale)
    width = max(stop - start + 1, 1)
    ends = [(start + i * width // bins, start - (-(i + 1) * width // bins)) for i in range(bins)]
    return [range(min(max(a, 0), size), min(max(b, 0), size)) for a, b in ends]


def roi_pool_indices(
    input: ArrayLike, boxes: Boxes, output_size: int | Sequence[int], spatial_scale: float = 1.0
) -> tuple[Array, NDArray[np.int64]]:
    """roi_pool and the flat index in the plane of every maximum, -1 for an empty bin."""
    x, rois, out = real(input), _rois(boxes), ntuple(output_size, 2)
    size = x.shape[2:]
    y = np.zeros((len(rois), x.shape[1], *out))
    indices = np.full(y.shape, -1, np.int64)
    for k, (n, x1, y1, x2, y2) in enumerate(rois):
        plane = x[int(n)].reshape(x.shape[1], -1)
        rows = _pool_spans(y1, y2, spatial_scale, out[0], size[0])
        columns = _pool_spans(x1, x2, spatial_scale, out[1], size[1])
        for p, q in grid(out):
            at = flat_positions((rows[p], columns[q]), size)
            if len(at):
                y[k, :, p, q], indices[k, :, p, q] = first_maximum(plane[:, at], at)
    return y, indices


def roi_pool(
    input: ArrayLike, boxes: Boxes, output_size: int | Sequence[int], spatial_scale: float = 1.0
) -> Array:
    """Maximum per bin floor(p h / P) .. ceil((p + 1) h / P) - 1 of the rounded box; 0 if empty.

    The box is round(scale x1) .. round(scale x2), halves away from 0, and cut to the map.
    """
    return roi_pool_indices(input, boxes, output_size, spatial_scale)[0]


def roi_pool_backward(
    grad_y: ArrayLike,
    input: ArrayLike,
    boxes: Boxes,
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
) -> Array:
    """Gradient for input: grad_y added to every bin's maximum."""
    g, rois = real(grad_y), _rois(boxes)
    _, indices = roi_pool_indices(input, boxes, output_size, spatial_scale)
    n, c, h, w = np.shape(input)
    grad = np.zeros((n, c, h * w))
    k, channel, p, q = np.nonzero(indices >= 0)
    at = (rois[k, 0].astype(np.int64), channel, indices[k, channel, p, q])
    np.add.at(grad, at, g[k, channel, p, q])
    return grad.reshape(n, c, h, w)


def _axis_samples(
    low: float, high: float, scale: float, bins: int, size: int, ratio: int, aligned: bool
) -> Array:
    """[bins, size]: what each input position of one axis adds to the sum over a bin's samples."""
    offset = 0.5 if aligned else 0.0
    start = low * scale - offset
    length = high * scale - offset - start
    if not aligned:
        length = max(length, 1.0)
    count = ratio if ratio > 0 else math.ceil(length / bins)
    weight = np.zeros((bins, size))
    for p, i in grid((bins, max(count, 0))):
        v = start + p * length / bins + (i + 0.5) * length / bins / count
        if not -1.0 <= v <= size:
            continue
        # Between the outermost centres and one pixel beyond them the border value holds.
        v = min(max(v, 0.0), size - 1.0)
        below = min(int(v), size - 1)
        weight[p, below] += 1 - (v - below)
        weight[p, min(below + 1, size - 1)] += v - below
    return weight / max(count, 1)


def _align_weights(
    x_shape, boxes, output_size, spatial_scale, sampling_ratio, aligned
) -> Iterator[tuple[int, Array, Array]]:
    out = ntuple(output_size, 2)
    for n, x1, y1, x2, y2 in _rois(boxes):
        options = sampling_ratio, aligned
        rows = _axis_samples(y1, y2, spatial_scale, out[0], x_shape[2], *options)
        columns = _axis_samples(x1, x2, spatial_scale, out[1], x_shape[3], *options)
        yield int(n), rows, columns


def roi_align(
    input: ArrayLike,
    boxes: Boxes,
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Array:
    """Mean per bin of sampling_ratio^2 bilinear samples at regular places of the unrounded box.

    sampling_ratio <= 0: ceil(box / bins) per axis. aligned shifts the box by half a pixel;
    without it a box is at least 1 long. Samples beyond [-1, size] count as 0. Bilinear sampling
    and the mean are separable, so each axis has one weight matrix.
    """
    x, options = real(input), (output_size, spatial_scale, sampling_ratio, aligned)
    out = ntuple(output_size, 2)
    y = np.zeros((len(_rois(boxes)), x.shape[1], *out))
    for k, (n, rows, columns) in enumerate(_align_weights(x.shape, boxes, *options)):
        for p, q in grid(out):
            # Only what the bin's samples touch, so that a NaN elsewhere stays there.
            h, w = np.flatnonzero(rows[p]), np.flatnonzero(columns[q])
            y[k, :, p, q] = x[n][:, h][:, :, w] @ columns[q, w] @ rows[p, h]
    return y


def roi_align_backward(
    grad_y: ArrayLike,
    input: ArrayLike,
    boxes: Boxes,
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Array:
    """Gradient for input: every sample spreads its share by its bilinear weights."""
    grad, options = np.zeros(np.shape(input)), (spatial_scale, sampling_ratio, aligned)
    weights = _align_weights(grad.shape, boxes, output_size, *options)
    for g, (n, rows, columns) in zip(real(grad_y), weights, strict=True):
        grad[n] += np.einsum("cpq,ph,qw->chw", g, rows, columns)
    return grad


def box_iou(boxes1: ArrayLike, boxes2: ArrayLike) -> Array:
    """Intersection over union of every pair of boxes (x1, y1, x2, y2): [N, M]."""
    a, b = real(boxes1)[:, None], real(boxes2)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.maximum(sides, 0).prod(-1)
    area_a, area_b = ((v[..., 2:] - v[..., :2]).prod(-1) for v in (a, b))
    with np.errstate(invalid="ignore", divide="ignore"):
        return shared / (area_a + area_b - shared)


def nms(boxes: ArrayLike, scores: ArrayLike, iou_threshold: float) -> NDArray[np.int64]:
    """Indices kept, by falling score (ties: lower index first).

    A box goes when its IoU with a kept box of higher score is above iou_threshold.
    """
    boxes = real(boxes).reshape(-1, 4)
    kept: list[int] = []
    iou = box_iou(boxes, boxes)
    for i in np.argsort(-real(scores), kind="stable"):
        if not (iou[i, kept] > iou_threshold).any():
            kept.append(int(i))
    return np.array(kept, np.int64)
