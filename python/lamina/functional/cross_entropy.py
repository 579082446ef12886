"""Classification losses over class indices: softmax and the loss in one kernel, and nll_loss.

loss = -weight[t] log softmax(x)[t], smoothed over the classes by `label_smoothing`
(Szegedy et al. 2016). Targets are checked in the kernel, before anything is written.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import _C, arrays
from ..autograd import Function
from ..known import Known
from ..operations import where
from ..operations._common import is_known_array
from ..tensor import array_of
from ._arguments import check_rank, integer, one_of, real, same_dtype
from .distance import on_tensors, operands
from .softmax import log_softmax

__all__ = ["cross_entropy", "nll_loss"]

_REDUCTIONS = ("none", "mean", "sum")


def _classes_first(op: str, x: Any, target: Any, weight: Any) -> tuple[Any, Any, Any, Any]:
    """Checks the operands; x [N, C, d...] or [C] with target [N, d...] or []."""
    x = arrays.asarray(op, "input", x)
    target = arrays.asindices(op, "target", target)
    check_rank(op, "input", x, range(1, 65))
    classes = x.shape[1] if x.ndim > 1 else x.shape[0]
    expected = x.shape[:1] + x.shape[2:] if x.ndim > 1 else ()
    if target.shape != expected:
        raise ValueError(
            f"{op}: target must have the shape of input without its classes, {expected}, "
            f"got target.shape={target.shape}, input.shape={x.shape}"
        )
    if weight is not None:
        weight = _class_weight(op, x, weight, classes)
    layout = (x.shape[0] if x.ndim > 1 else 1, classes, math.prod(x.shape[2:]))
    return x, target, weight, layout


def _class_weight(op: str, x: Any, weight: Any, classes: int) -> Any:
    weight = arrays.asarray(op, "weight", weight)
    same_dtype(op, input=x, weight=weight)
    if weight.shape != (classes,):
        raise ValueError(
            f"{op}: weight must have one element per class, ({classes},), "
            f"got weight.shape={weight.shape}"
        )
    return weight


def _no_position(x: Any) -> Any:
    """Where kernels note the first target that is outside the classes."""
    bad = arrays.empty("cross_entropy", (1,), arrays.INT64, like=x)
    bad[...] = -1
    return bad


def _refuse_target(op: str, target: Any, position: int, classes: int) -> None:
    value = target.reshape(-1)[position]
    raise ValueError(
        f"{op}: target must be from 0 to {classes - 1} or ignore_index, got {value} at position "
        f"{tuple(map(int, np.unravel_index(position, target.shape or (1,))))}"
    )


def _reduced_grad(ctx: Any, grad: Any, dtype: Any) -> Any:
    """The gradient of each position's loss, from that of the reduced loss."""
    if ctx.reduction == "none":
        return arrays.asarray("cross_entropy", "grad", grad)
    result = arrays.module_of(grad).empty(ctx.positions, dtype)
    result[...] = grad / ctx.divisor if ctx.reduction == "mean" else grad
    return result


def _reduce(ctx: Any, loss: Any, target: Any, weight: Any, ignore_index: int) -> Any:
    """torch's mean divides by the weights of the targets that count."""
    ctx.positions = loss.shape
    if ctx.reduction == "none":
        return loss
    if arrays.is_ready(loss):
        total = arrays.empty("cross_entropy", (), loss.dtype)
        ctx.divisor = arrays.empty("cross_entropy", (), loss.dtype)
        mean = ctx.reduction == "mean"
        _C.reduce_loss(loss, target, weight, ignore_index, mean, total, ctx.divisor)
        return total
    total = loss.sum(dtype=np.float64)
    if ctx.reduction == "mean":
        counted = target != ignore_index
        if weight is not None:
            counted = counted * weight[np.where(counted, target, 0)]
        share = counted.sum(dtype=np.float64)
        ctx.divisor = arrays.module_of(loss).asarray(share, loss.dtype)
        total = total / share  # no counted target: NaN, as in torch
    return arrays.module_of(loss).asarray(total, loss.dtype)


class CrossEntropy(Function):
    gradients_are_new = True

    @staticmethod
    def forward(
        ctx: Any,
        x: Any,
        target: Any,
        weight: Any,
        ignore_index: int,
        reduction: str,
        label_smoothing: float,
    ) -> Any:
        x, target, weight, layout = _classes_first("cross_entropy", x, target, weight)
        loss = arrays.module_of(x).empty(target.shape, x.dtype)
        options = (*layout, ignore_index, label_smoothing)
        bad = _no_position(x)
        _C.cross_entropy(x, target, weight, None, loss, *(*options, bad))
        if (position := arrays.fault(bad)) >= 0:
            _refuse_target("cross_entropy", target, position, layout[1])
        ctx.options, ctx.reduction = options, reduction
        ctx.save_for_backward(x, target, weight)
        return _reduce(ctx, loss, target, weight, ignore_index)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        x, target, weight = ctx.saved
        grad_x = arrays.empty_like("cross_entropy", x)
        grad_loss = _reduced_grad(ctx, grad, x.dtype)
        bad = _no_position(x)  # forward has checked them: only a NumPy array was written since
        _C.cross_entropy(x, target, weight, grad_loss, grad_x, *(*ctx.options, bad))
        if arrays.is_ready(x) and bad[0] >= 0:
            _refuse_target("cross_entropy", target, bad[0], ctx.options[1])
        return grad_x, None, None, None, None, None


_known = Known(3, CrossEntropy)


def cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """Cross-entropy between logits and class indices, or class probabilities.

    input: [N, C, d...] or [C]; target: integers [N, d...] or [], or probabilities of input's shape;
    weight: [C]. Raises ValueError for a target outside the classes, TypeError for wrong dtypes.
    """
    options = (ignore_index, reduction, label_smoothing)
    asked = (input, target, weight, *options, size_average, reduce)
    loss = _known.run(*asked)
    if loss is not None:
        return loss
    _refuse_legacy("cross_entropy", size_average, reduce)
    one_of("cross_entropy", "reduction", reduction, _REDUCTIONS)
    smoothing = real("cross_entropy", "label_smoothing", label_smoothing)
    if not 0 <= smoothing <= 1:
        raise ValueError(
            f"cross_entropy: label_smoothing must be from 0 to 1, got label_smoothing={smoothing}"
        )
    ignore = integer("cross_entropy", "ignore_index", ignore_index)
    if getattr(getattr(target, "dtype", None), "kind", "i") == "f":
        if ignore >= 0:
            raise ValueError(
                "cross_entropy: ignore_index is for targets that are classes, got ignore_index="
                f"{ignore}, target.dtype={target.dtype}; set the rows of target to 0"
            )
        return _with_probabilities(asked, input, target, weight, reduction, smoothing)
    record = (ignore, reduction, smoothing)
    loss = CrossEntropy.apply(input, target, weight, *record)
    shape = input.shape
    layout = (shape[0] if len(shape) > 1 else 1, shape[min(1, len(shape) - 1)])
    rest = (*layout, math.prod(shape[2:]), ignore, smoothing, reduction)
    return _known.remember(asked, loss, _C.cross_entropy_call, rest, record)


class ProbabilityCrossEntropy(Function):
    """loss = -sum over j of weight[j] q[j] log p[j] along the classes, of NumPy arrays."""

    gradients_are_new = True

    @staticmethod
    def forward(ctx: Any, x: Any, q: Any, weight: Any, smoothing: float, reduction: str) -> Any:
        x, q, weight = _checked_probabilities(x, q, weight)
        shape = x.shape[:1] + x.shape[2:] if x.ndim > 1 else ()
        ctx.options = (*_layout(x), smoothing, reduction)
        log_p = arrays.empty_like("cross_entropy", x)
        _C.softmax(*_layout(x), True, x, None, log_p)
        loss = arrays.empty("cross_entropy", shape if reduction == "none" else (), x.dtype)
        _C.probability_loss(q, weight, log_p, loss, *ctx.options)
        ctx.save_for_backward(q, weight, log_p)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        grad = arrays.asarray("cross_entropy", "grad", grad)
        grads: list[Any] = [None] * 5
        for operand in (0, 1):
            if ctx.needs_input_grad[operand]:
                grads[operand] = arrays.empty_like("cross_entropy", ctx.saved[0])
                given = (*ctx.saved, grad, operand == 1, grads[operand], *ctx.options)
                _C.probability_gradient(*given)
        return tuple(grads)


_known_probabilities = Known(3, ProbabilityCrossEntropy)


def _layout(x: Any) -> tuple[int, int, int]:
    """(before the classes, the classes, after them)."""
    axis = min(1, x.ndim - 1)
    return math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])


def _checked_probabilities(x: Any, q: Any, weight: Any) -> tuple[Any, Any, Any]:
    x = arrays.asarray("cross_entropy", "input", x)
    q = arrays.asarray("cross_entropy", "target", q)
    same_dtype("cross_entropy", input=x, target=q)
    if x.shape != q.shape:
        raise ValueError(
            "cross_entropy: target probabilities must have input's shape, "
            f"got target.shape={q.shape}, input.shape={x.shape}"
        )
    if weight is not None:
        weight = _class_weight("cross_entropy", x, weight, _layout(x)[1])
    return x, q, weight


def _with_probabilities(
    asked: tuple[Any, ...],
    input: Any,
    target: Any,
    weight: Any,
    reduction: str,
    smoothing: float,
) -> Any:
    if (loss := _known_probabilities.run(*asked)) is not None:
        return loss
    if not is_known_array(input, arrays.FLOATS):
        return _with_probabilities_composed(input, target, weight, reduction, smoothing)
    record = (smoothing, reduction)
    loss = ProbabilityCrossEntropy.apply(input, target, weight, *record)
    rest = (*_layout(array_of(input)), *record)
    return _known_probabilities.remember(asked, loss, _C.probability_call, rest, record)


@on_tensors
def _with_probabilities_composed(
    input: Any, target: Any, weight: Any, reduction: str, smoothing: float
) -> Any:
    x, q, w = _checked_probabilities(array_of(input), array_of(target), array_of(weight))
    input, target = operands("cross_entropy", input=input, target=target)
    n, classes, inner = _layout(x)
    mass = (1 - smoothing) * target + smoothing / max(classes, 1)
    if w is not None:
        mass = mass * w.reshape(-1, *(1,) * (x.ndim - 2))
    axis = min(1, x.ndim - 1)
    loss = -(mass * log_softmax(input, axis)).sum(axis)
    if reduction == "none":
        return loss
    return loss.sum() / (n * inner if reduction == "mean" else 1)


class NllLoss(Function):
    """Of NumPy arrays."""

    gradients_are_new = True

    @staticmethod
    def forward(
        ctx: Any, x: Any, target: Any, weight: Any, ignore_index: int, reduction: str
    ) -> Any:
        x, target, weight, layout = _classes_first("nll_loss", x, target, weight)
        loss = arrays.empty("nll_loss", target.shape, x.dtype)
        ctx.options, ctx.reduction, ctx.shape = (*layout, ignore_index), reduction, x.shape
        bad = _C.nll(x, target, weight, None, loss, *ctx.options)
        if bad >= 0:
            _refuse_target("nll_loss", target, bad, layout[1])
        ctx.save_for_backward(target, weight)
        return _reduce(ctx, loss, target, weight, ignore_index)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        target, weight = ctx.saved
        grad_x = arrays.empty("nll_loss", ctx.shape, grad.dtype)
        grad_loss = _reduced_grad(ctx, grad, grad.dtype)
        bad = _C.nll(None, target, weight, grad_loss, grad_x, *ctx.options)
        if bad >= 0:
            _refuse_target("nll_loss", target, bad, ctx.options[1])
        return grad_x, None, None, None, None


_known_nll = Known(3, NllLoss)


def nll_loss(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    """-weight[t] * x[t] of log-probabilities x; arguments as `cross_entropy`."""
    asked = (input, target, weight, ignore_index, reduction, size_average, reduce)
    if (loss := _known_nll.run(*asked)) is not None:
        return loss
    _refuse_legacy("nll_loss", size_average, reduce)
    one_of("nll_loss", "reduction", reduction, _REDUCTIONS)
    record = (integer("nll_loss", "ignore_index", ignore_index), reduction)
    if not is_known_array(input, arrays.FLOATS):
        return _nll_loss_composed(input, target, weight, *record)
    loss = NllLoss.apply(input, target, weight, *record)
    rest = (*_layout(array_of(input)), *record)
    return _known_nll.remember(asked, loss, _C.nll_call, rest, record)


@on_tensors
def _nll_loss_composed(input: Any, target: Any, weight: Any, ignore: int, reduction: str) -> Any:
    (x,) = operands("nll_loss", input=input)
    t, w = array_of(target), None if weight is None else array_of(weight)
    _, t, w, (_, classes, _) = _classes_first("nll_loss", x.data, t, w)
    counted = t != ignore
    outside = counted & ((t < 0) | (t >= classes))
    if outside.any():
        _refuse_target("nll_loss", t, int(outside.reshape(-1).argmax()), classes)
    safe = arrays.module_of(t).where(counted, t, 0)
    axis = min(1, x.ndim - 1)
    picked = x.gather(axis, np.expand_dims(safe, axis)).squeeze(axis)
    factor = counted * (x.data.dtype.type(1) if w is None else w[safe])
    loss = where(counted, -factor * picked, 0.0)
    if reduction == "none":
        return loss
    return loss.sum() / (factor.sum() if reduction == "mean" else 1)


def _refuse_legacy(op: str, size_average: Any, reduce: Any) -> None:
    if size_average is not None or reduce is not None:
        raise ValueError(f"{op}: size_average and reduce are gone; use reduction=")
