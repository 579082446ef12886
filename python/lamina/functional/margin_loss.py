"""The losses that push scores, vectors or distances apart by a margin.

Each has torch's formula, which its docstring states for one element; `reduction` is then "none",
"mean" or "sum". x is the input, t the target, whose values are checked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import _C, arrays
from ..autograd import Function
from ..known import Known
from ..operations import minimum, where
from ..operations._common import is_known_array
from ..tensor import array_of
from ._arguments import flag, real
from .activation import logsigmoid
from .distance import (
    known_rows,
    normal_rank,
    on_tensors,
    operands,
    pairwise_distance,
    row_distance,
)
from .loss import check_same_shape, known, pointwise, reduced, reduction_mode

__all__ = [
    "cosine_embedding_loss",
    "hinge_embedding_loss",
    "margin_ranking_loss",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "soft_margin_loss",
    "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
]


def _check_signs(op: str, target: Any) -> None:
    if arrays.is_ready(target.data) and _C.holds_signs(target.data):
        return
    wrong = target.data[(target.data != 1) & (target.data != -1)]
    if wrong.size:
        raise ValueError(
            f"{op}: target must hold 1 and -1 only, got {wrong.reshape(-1)[0]}; "
            "map the labels with 2 * label - 1"
        )


def _indices(op: str, target: Any) -> Any:
    return arrays.asindices(op, "target", array_of(target))


@on_tensors
def hinge_embedding_loss(
    input: Any,
    target: Any,
    margin: float = 1.0,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    """x where t is 1, max(0, margin - x) where t is -1. Raises ValueError for other t."""
    op = "hinge_embedding_loss"
    x, t = operands(op, input=input, target=target)
    _check_signs(op, t)
    loss = where(t == 1, x, (real(op, "margin", margin) - x).clamp(min=0))
    return reduced(op, loss, reduction, size_average, reduce)


@on_tensors
def margin_ranking_loss(
    input1: Any,
    input2: Any,
    target: Any,
    margin: float = 0,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    """max(0, margin - t (x1 - x2)), t 1 or -1. Raises ValueError for other t and shapes."""
    op = "margin_ranking_loss"
    x1, x2, t = operands(op, input1=input1, input2=input2, target=target)
    least = real(op, "margin", margin)
    mode = reduction_mode(op, reduction, size_average, reduce)
    x = x1 - x2
    asked = (x, t, op, margin, mode)
    if (loss := known.run(*asked)) is not None:
        return loss
    _check_signs(op, t)
    formula = lambda x, t: (least - t * x).clamp(min=0)  # noqa: E731
    return pointwise(asked, "ranking", formula, x, t, mode, least)


@on_tensors
def cosine_embedding_loss(
    input1: Any,
    input2: Any,
    target: Any,
    margin: float = 0,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    """With c the cosine of [..., D] vectors: 1 - c where t is 1, max(0, c - margin) where -1.

    t may be integers. Raises ValueError for other t and for shapes: input1 and input2 [N, D] or
    [D], target [N] or [].
    """
    op = "cosine_embedding_loss"
    x1, x2 = operands(op, input1=input1, input2=input2)
    signs = array_of(target)
    if arrays.is_array(signs) and signs.dtype.kind == "i":
        signs = signs.astype(x1.dtype)
    (t,) = operands(op, target=signs)
    normal_rank(op, input1=x1, input2=x2)
    if t.shape != x1.shape[:-1]:
        check_same_shape(op, input1=x1[..., 0], target=t)
    _check_signs(op, t)
    tiny = 1e-12
    asked = (x1, x2, op)
    cosine = known_rows(*asked)
    if cosine is None:
        cosine = row_distance(asked, x1, x2, "shifted", 2.0, tiny)
    if cosine is None:
        scale = ((x1.norm(2, -1).square() + tiny) * (x2.norm(2, -1).square() + tiny)).sqrt()
        cosine = (x1 * x2).sum(-1) / scale
    loss = where(t == 1, 1.0 - cosine, (cosine - real(op, "margin", margin)).clamp(min=0))
    return reduced(op, loss, reduction, size_average, reduce)


@on_tensors
def soft_margin_loss(
    input: Any,
    target: Any,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    """log(1 + exp(-t x)). Raises ValueError unless t is 1 or -1, and as `l1_loss`."""
    op = "soft_margin_loss"
    asked = (input, target, op, size_average, reduce, reduction)
    if (loss := known.run(*asked)) is not None:
        return loss
    x, t = operands(op, input=input, target=target)
    _check_signs(op, t)
    mode = reduction_mode(op, reduction, size_average, reduce)
    return pointwise(asked, "soft_margin", lambda x, t: -logsigmoid(t * x), x, t, mode)


def _hinge(z: Any, counted: Any) -> Any:
    """max(0, z) where `counted`; NaN stays and the gradient at 0 is 0."""
    return where(counted & ~(z <= 0), z, 0.0)


@on_tensors
def multi_margin_loss(
    input: Any,
    target: Any,
    p: int = 1,
    margin: float = 1.0,
    weight: Any = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    """sum over i != t of max(0, margin - x[t] + x[i])**p weight[t] / C.

    input: [N, C] or [C]; target: integers [N] or []; weight: [C]. Raises ValueError for shapes, a
    target outside of the classes, or p other than 1 and 2; TypeError for dtypes.
    """
    op = "multi_margin_loss"
    if p not in (1, 2):
        raise ValueError(f"{op}: p must be 1 or 2, got p={p}")
    x, w = operands(op, input=input, weight=weight)
    t = _indices(op, target)
    if x.ndim not in (1, 2) or t.shape != x.shape[:-1] or not x.shape[-1]:
        raise ValueError(
            f"{op}: input must be [N, C] or [C] and target [N] or [], got "
            f"input.shape={x.shape}, target.shape={t.shape}"
        )
    classes = x.shape[-1]
    if w is not None and w.shape != (classes,):
        raise ValueError(f"{op}: weight must have shape ({classes},), got weight.shape={w.shape}")
    _check_classes(op, t, 0, classes)
    column = t[..., None]
    z = real(op, "margin", margin) - x.gather(-1, column) + x
    hinge = _hinge(z, arrays.module_of(t).arange(classes) != column)
    loss = (hinge if p == 1 else hinge.square()).sum(-1) / classes
    return reduced(op, loss if w is None else loss * w[t], reduction, size_average, reduce)


def _check_classes(op: str, target: Any, least: int, classes: int) -> None:
    if target.size and not (least <= target.min() and target.max() < classes):
        raise ValueError(
            f"{op}: target must be from {least} to {classes - 1}, got values from {target.min()} "
            f"to {target.max()}"
        )


class MultilabelMarginLoss(Function):
    """Of NumPy arrays; the targets are checked."""

    kernels_only = True
    gradients_are_new = True

    @staticmethod
    def forward(ctx: Any, x: Any, t: Any, reduction: str) -> Any:
        x = arrays.asarray("multilabel_margin_loss", "input", x)
        ctx.save_for_backward(x, t)
        ctx.options = (x.shape[-1], reduction)
        shape = x.shape[:-1] if reduction == "none" else ()
        loss = arrays.empty("multilabel_margin_loss", shape, x.dtype)
        _C.multilabel_margin(x, t, None, loss, *ctx.options)
        return loss

    @staticmethod
    def backward(ctx: Any, grad_y: Any) -> Any:
        x, t = ctx.saved
        grad_x = arrays.empty_like("multilabel_margin_loss", x)
        grad_y = arrays.asarray("multilabel_margin_loss", "grad_y", grad_y)
        _C.multilabel_margin(x, t, grad_y, grad_x, *ctx.options)
        return grad_x, None, None


_known_multilabel = Known(2, MultilabelMarginLoss)


@on_tensors
def multilabel_margin_loss(
    input: Any,
    target: Any,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    """sum over labels j and other classes i of max(0, 1 - x[j] + x[i]) / C.

    input: [N, C] or [C]; target: integers of the same shape, the labels first, then -1.
    Raises ValueError for shapes and labels outside of the classes, TypeError for dtypes.
    """
    op = "multilabel_margin_loss"
    asked = (input, target, size_average, reduce, reduction)
    if (known_loss := _known_multilabel.run(*asked)) is not None:
        return known_loss
    (x,) = operands(op, input=input)
    t = _indices(op, target)
    if x.ndim not in (1, 2) or t.shape != x.shape or not x.shape[-1]:
        raise ValueError(
            f"{op}: input must be [N, C] or [C] and target of its shape, got "
            f"input.shape={x.shape}, target.shape={t.shape}"
        )
    classes = x.shape[-1]
    _check_classes(op, t, -1, classes)
    mode = reduction_mode(op, reduction, size_average, reduce)
    if is_known_array(x, arrays.FLOATS):
        loss = MultilabelMarginLoss.apply(x, t, mode)
        rest = (classes, mode)
        return _known_multilabel.remember(asked, loss, _C.multilabel_margin_call, rest, (mode,))
    valid = np.cumprod(t >= 0, axis=-1) > 0
    labels = np.where(valid, t, 0)
    is_label = ((labels[..., None] == arrays.module_of(t).arange(classes)) & valid[..., None]).any(
        -2
    )
    z = 1.0 - x.gather(-1, labels).unsqueeze(-1) + x.unsqueeze(-2)
    loss = _hinge(z, valid[..., None] & ~is_label[..., None, :]).sum((-2, -1)) / classes
    return reduced(op, loss, mode)


@on_tensors
def multilabel_soft_margin_loss(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    """mean over the classes of -t log s(x) - (1 - t) log s(-x), s the sigmoid, times `weight`.

    input, target: [..., C]; weight: broadcast. Raises as `l1_loss`.
    """
    op = "multilabel_soft_margin_loss"
    x, t, w = operands(op, input=input, target=target, weight=weight)
    normal_rank(op, input=x)

    def formula(x: Any, t: Any) -> Any:
        return -(t * logsigmoid(x) + (1.0 - t) * logsigmoid(-x))

    asked = (x, t, op)
    loss = known.run(*asked) if w is None else None
    if loss is None:
        loss = pointwise(asked, "soft_labels", formula, x, t, "none", weight=w)
    return reduced(op, loss.mean(-1), reduction, size_average, reduce)


@on_tensors
def triplet_margin_loss(
    anchor: Any,
    positive: Any,
    negative: Any,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    """max(0, margin + d(anchor, positive) - d(anchor, negative)), d the `pairwise_distance`.

    With `swap`, d(positive, negative) replaces the last where it is smaller. [..., D] -> [...].
    Raises ValueError for shapes and a margin of 0 or less, TypeError for dtypes.
    """
    return _triplet(
        "triplet_margin_loss",
        (anchor, positive, negative),
        lambda a, b: pairwise_distance(a, b, p, eps),
        margin,
        swap,
        (reduction, size_average, reduce),
    )


@on_tensors
def triplet_margin_with_distance_loss(
    anchor: Any,
    positive: Any,
    negative: Any,
    *,
    distance_function: Callable[[Any, Any], Any] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Any:
    """As `triplet_margin_loss` with a distance of the caller's, on Tensors. Raises likewise."""
    distance = pairwise_distance if distance_function is None else distance_function
    op = "triplet_margin_with_distance_loss"
    return _triplet(op, (anchor, positive, negative), distance, margin, swap, (reduction,))


def _triplet(
    op: str,
    triplet: tuple[Any, Any, Any],
    distance: Callable[[Any, Any], Any],
    margin: float,
    swap: bool,
    reduction: tuple[Any, ...],
) -> Any:
    a, positive, negative = operands(
        op, anchor=triplet[0], positive=triplet[1], negative=triplet[2]
    )
    if not real(op, "margin", margin) > 0:
        raise ValueError(f"{op}: margin must be above 0, got margin={margin}")
    far = distance(a, negative)
    if flag(op, "swap", swap):
        far = minimum(far, distance(positive, negative))
    return reduced(op, (margin + distance(a, positive) - far).clamp(min=0), *reduction)
