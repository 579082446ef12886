"""Regions of interest, with the names and semantics of torchvision.ops.

input [N, C, H, W]; boxes [K, 5] of (image, x1, y1, x2, y2), or a list with [L, 4] per image;
float32 or float64 of one dtype. Boxes get no gradient. Raises ValueError for shapes, options, boxes
that are not finite and images outside the batch, TypeError for dtypes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _C, arrays
from ..autograd import Function
from ..tensor import array_of
from ._arguments import check_rank, integer, real, same_dtype, tuple_of
from .conv import as_operand

__all__ = ["nms", "roi_align", "roi_pool"]

_LARGEST_RATIO = 4096


class Roi(Function):
    """options: (bins, scale, sampling_ratio, aligned) as in csrc/ops/roi.h."""

    kernels_only = True
    gradients_are_new = True

    @staticmethod
    def forward(ctx: Any, op: str, x: Any, rois: Any, options: tuple[Any, ...]) -> Any:
        ctx.op, ctx.x_shape, ctx.options = op, x.shape, options
        y = arrays.empty(op, (len(rois), x.shape[1], *options[0]), x.dtype, like=x)
        ctx.index = arrays.empty(op, y.shape, np.int64, like=x) if op == "roi_pool" else None
        flag = arrays.empty(op, (1,), np.int64, like=x)
        _C.roi(op, "fprop", x.shape, *(*options, rois, x, y, ctx.index, flag))
        _refuse_box(op, x.shape[0], rois, flag)
        ctx.save_for_backward(rois)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Any) -> Any:
        (rois,) = ctx.saved
        grad_y = arrays.asarray(ctx.op, "grad_y", grad_y)
        grad_x = arrays.empty(ctx.op, ctx.x_shape, grad_y.dtype, like=grad_y)
        flag = arrays.empty(ctx.op, (1,), np.int64, like=grad_y)
        tail = rois, grad_y, grad_x, ctx.index, flag
        _C.roi(ctx.op, "dgrad", ctx.x_shape, *(*ctx.options, *tail))
        _refuse_box(ctx.op, ctx.x_shape[0], rois, flag)
        return None, grad_x, None, None


def _refuse_box(op: str, images: int, rois: Any, flag: Any) -> None:
    if (bad := arrays.fault(flag)) >= 0:
        raise ValueError(
            f"{op}: boxes must be finite and name an image from 0 to {images - 1}, "
            f"got boxes[{bad}]={rois[bad].tolist()}"
        )


def _boxes(op: str, x: Any, boxes: Any) -> Any:
    """[K, 5] of (image, x1, y1, x2, y2)."""
    if isinstance(boxes, list | tuple):
        if len(boxes) != x.shape[0]:
            raise ValueError(
                f"{op}: boxes must have one array per image, got {len(boxes)} for {x.shape[0]}"
            )
        module = arrays.module_of(x)
        rows = [module.zeros((0, 5), x.dtype)]
        for image, entry in enumerate(boxes):
            array = arrays.asarray(op, "boxes", array_of(entry))
            same_dtype(op, input=x, boxes=array)
            if array.ndim != 2 or array.shape[1] != 4:
                raise ValueError(f"{op}: boxes of an image must be [L, 4], got {array.shape}")
            images = module.full(len(array), image, x.dtype)
            rows.append(module.column_stack([images, array]))
        return module.concatenate(rows)
    array = arrays.asarray(op, "boxes", array_of(boxes))
    same_dtype(op, input=x, boxes=array)
    if array.ndim != 2 or array.shape[1] != 5:
        raise ValueError(
            f"{op}: boxes must be [K, 5] of (image, x1, y1, x2, y2) or a list of [L, 4], "
            f"got boxes.shape={array.shape}"
        )
    return array


def _roi(
    op: str, input: Any, boxes: Any, output_size: Any, scale: Any, ratio: int, aligned: bool
) -> Any:
    x = as_operand(op, "input", input)
    check_rank(op, "input", x, (4,))
    if min(x.shape[2:]) < 1:
        raise ValueError(f"{op}: the maps must not be empty, got input.shape={x.shape}")
    bins = tuple_of(op, "output_size", output_size, 2, minimum=1)
    factor = real(op, "spatial_scale", scale)
    if not 0 < factor < float("inf"):
        raise ValueError(f"{op}: spatial_scale must be above 0, got spatial_scale={factor}")
    return Roi.apply(op, x, _boxes(op, x, boxes), (bins, factor, ratio, aligned))


def roi_pool(input: Any, boxes: Any, output_size: Any, spatial_scale: float = 1.0) -> Any:
    """Maximum per bin of each box, [K, C, P, Q] with (P, Q) = output_size (Girshick 2015).

    Corners are multiplied by spatial_scale and rounded, halves away from 0; an empty bin gives 0.
    """
    return _roi("roi_pool", input, boxes, output_size, spatial_scale, -1, False)


def roi_align(
    input: Any,
    boxes: Any,
    output_size: Any,
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Any:
    """Mean of bilinear samples per bin of each box, [K, C, P, Q] (He et al. 2017).

    sampling_ratio samples along each axis of a bin, 0 or less: ceil(box / bins). aligned shifts the
    boxes by half a pixel; without it they are at least 1 long.
    """
    ratio = integer("roi_align", "sampling_ratio", sampling_ratio)
    if ratio > _LARGEST_RATIO:
        raise ValueError(f"roi_align: sampling_ratio must be at most {_LARGEST_RATIO}, got {ratio}")
    return _roi("roi_align", input, boxes, output_size, spatial_scale, ratio, bool(aligned))


def nms(boxes: Any, scores: Any, iou_threshold: float) -> Any:
    """int64 indices of the boxes that stay, by falling score (ties: the lower index first).

    boxes [K, 4] of (x1, y1, x2, y2), scores [K]. A box goes when its intersection over union with a
    box that stays and has a higher score is above iou_threshold.
    """
    op = "nms"
    corners = arrays.asarray(op, "boxes", array_of(boxes))
    order = arrays.asarray(op, "scores", array_of(scores))
    threshold = real(op, "iou_threshold", iou_threshold)
    same_dtype(op, boxes=corners, scores=order)
    if corners.ndim != 2 or corners.shape[1] != 4:
        raise ValueError(f"{op}: boxes must be [K, 4], got boxes.shape={corners.shape}")
    if order.shape != corners.shape[:1]:
        raise ValueError(
            f"{op}: scores must have one element per box, got scores.shape={order.shape}, "
            f"boxes.shape={corners.shape}"
        )
    by_score = arrays.module_of(order).argsort(-order, kind="stable")
    keep = arrays.empty(op, (len(corners),), np.uint8, like=corners)
    _C.nms(corners[by_score], threshold, keep)
    return by_score[keep.astype(bool)]
