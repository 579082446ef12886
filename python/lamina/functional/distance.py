"""Distances and similarities between vectors, and what the losses share with them.

`on_tensors` lets a function that is written with Tensor operations take plain arrays too.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import _C, arrays
from ..autograd import Context, Function
from ..known import Known
from ..operations._common import are_alike
from ..tensor import Tensor
from ._arguments import flag, normal_axis, real, same_dtype

__all__ = ["cosine_similarity", "pairwise_distance", "pdist"]


def on_tensors(function: Callable[..., Any]) -> Callable[..., Any]:
    """Plain arrays in, plain arrays out; one Tensor among the arguments gives a Tensor."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        tensors = any(isinstance(x, Tensor) for x in (*args, *kwargs.values()))
        return result if tensors or not isinstance(result, Tensor) else result.data

    return wrapped


_OPTIONAL = ("weight", "pos_weight")


def operands(op: str, **named: Any) -> list[Any]:
    """The arguments as Tensors of one floating dtype whose shapes broadcast; weights may be None.

    Raises TypeError for the kinds and dtypes, ValueError for the shapes.
    """
    tensors: dict[str, Any] = {}
    for name, x in named.items():
        if isinstance(x, Tensor):
            arrays.check_float(op, name, x.data)
            tensors[name] = x
        elif x is None and name in _OPTIONAL:
            tensors[name] = None
        else:
            tensors[name] = Tensor(arrays.asarray(op, name, x))
    present = {name: x for name, x in tensors.items() if x is not None}
    same_dtype(op, **present)
    try:
        np.broadcast_shapes(*[x.shape for x in present.values()])
    except ValueError:
        shapes = ", ".join(f"{name}.shape={x.shape}" for name, x in present.items())
        raise ValueError(f"{op}: shapes must broadcast, got {shapes}; reshape one") from None
    return list(tensors.values())


class RowDistance(Function):
    """Of rows of NumPy arrays of one shape; kind, p, eps as in csrc/ops/distance.h."""

    kernels_only = True
    gradients_are_new = True

    @staticmethod
    def forward(
        ctx: Context, a: Any, b: Any, kind: str, p: float, eps: float, shape: tuple[int, ...]
    ) -> Any:
        op = "row_distance"
        a, b = arrays.asarray(op, "a", a), arrays.asarray(op, "b", b)
        ctx.options = (kind, p, eps, math.prod(a.shape[:-1]), a.shape[-1])
        y = arrays.empty(op, shape, a.dtype)
        cosine = kind in ("cosine", "shifted")
        squares = arrays.empty(op, (2, ctx.options[3]), np.float64) if cosine else None
        _C.row_distance(*(*ctx.options, a, b, y, squares))
        ctx.save_for_backward(a, b, y, squares)
        return y

    @staticmethod
    def backward(ctx: Context, grad_y: Any) -> Any:
        a, b, y, squares = ctx.saved
        grad_y = arrays.asarray("row_distance", "grad_y", grad_y)
        grads = [
            arrays.empty_like("row_distance", a) if needed else None
            for needed in ctx.needs_input_grad[:2]
        ]
        _C.row_distance_gradients(*(*ctx.options, a, b, y, squares, grad_y, *grads))
        return *grads, None, None, None, None


_known_rows = Known(2, RowDistance, layouts="copied")
known_rows = _known_rows.run


def row_distance(
    asked: tuple[Any, ...], a: Any, b: Any, kind: str, p: float, eps: float, keepdim: bool = False
) -> Any:
    """The distances of rows by the kernels, None where they do not take the Tensors.

    asked: what `known_rows` was asked before.
    """
    if a.shape != b.shape or 0 in a.shape or not are_alike((a, b), arrays.FLOATS):
        return None
    shape = (*a.shape[:-1], 1) if keepdim else a.shape[:-1]
    record = (kind, p, eps, shape)
    y = RowDistance.apply(a, b, *record)
    rest = (kind, p, eps, math.prod(a.shape[:-1]), a.shape[-1])
    return _known_rows.remember(asked, y, _C.row_distance_call, rest, record)


_KINDS = {1.0: "absolute", 2.0: "euclidean", math.inf: "largest"}


@on_tensors
def pairwise_distance(
    x1: Any, x2: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Any:
    """The p-norm of x1 - x2 + eps over the last dimension, [..., D] -> [...].

    Raises ValueError for the shapes or an array without dimensions, TypeError for the dtypes.
    """
    op = "pairwise_distance"
    asked = (x1, x2, op, p, eps, keepdim)
    if (y := known_rows(*asked)) is not None:
        return y
    first, second = operands(op, x1=x1, x2=x2)
    least = real(op, "eps", eps)
    longer = first if first.ndim >= second.ndim else second
    normal_rank(op, x1=longer)
    keepdim, order = flag(op, "keepdim", keepdim), real(op, "p", p)
    if order > 0:
        y = row_distance(asked, first, second, _KINDS.get(order, "power"), order, least, keepdim)
        if y is not None:
            return y
    return (first - second + least).norm(order, -1, keepdim)


def normal_rank(op: str, **named: Any) -> None:
    """Raises ValueError for an array without dimensions."""
    for name, x in named.items():
        if x.ndim == 0:
            raise ValueError(f"{op}: {name} must have a dimension, got {name}.shape=()")


@on_tensors
def cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Any:
    """x1 . x2 / (max(|x1|, eps) max(|x2|, eps)) over the dimension `dim`, broadcast.

    Raises ValueError for the shapes and `dim`, TypeError for the dtypes.
    """
    op = "cosine_similarity"
    asked = (x1, x2, op, dim, eps)
    if (y := known_rows(*asked)) is not None:
        return y
    first, second = operands(op, x1=x1, x2=x2)
    shape = np.broadcast_shapes(first.shape, second.shape)
    axis = normal_axis(op, "dim", dim, len(shape))
    least = real(op, "eps", eps)
    if axis == len(shape) - 1:
        y = row_distance(asked, first, second, "cosine", 2.0, least)
        if y is not None:
            return y
    first, second = first.expand(*shape), second.expand(*shape)
    scale = first.norm(2, axis).clamp(min=least) * second.norm(2, axis).clamp(min=least)
    return (first * second).sum(axis) / scale


class Pdist(Function):
    """Of NumPy arrays, absolute or euclidean."""

    @staticmethod
    def forward(ctx: Context, x: Any, euclidean: bool) -> Any:
        n, d = x.shape
        x, y = arrays.asarray("pdist", "x", x), arrays.empty("pdist", (n * (n - 1) // 2,), x.dtype)
        ctx.euclidean = euclidean
        ctx.save_for_backward(x, y if euclidean else None)
        _C.pdist(euclidean, n, d, x, None, None, y)
        return y

    @staticmethod
    def backward(ctx: Context, grad_y: Any) -> Any:
        x, y = ctx.saved
        grad_x = arrays.empty_like("pdist", x)
        grad_y = arrays.asarray("pdist", "grad_y", grad_y)
        n, d = x.shape
        _C.pdist(ctx.euclidean, n, d, x, y, grad_y, grad_x)
        return grad_x, None


_known = Known(1, Pdist, layouts="copied")


def _takes(x: Any, order: float) -> bool:
    """Whether the kernels do."""
    return order in (1, 2) and type(x.data) is np.ndarray and x.shape[0] > 1 and x.shape[1] > 0


@on_tensors
def pdist(input: Any, p: float = 2.0) -> Any:
    """The p-norms between all pairs of rows of input [N, D], those of row 0 first: [N (N - 1) / 2].

    Raises ValueError for the shape and a negative p, TypeError for the dtype.
    """
    op = "pdist"
    (x,) = operands(op, input=input)
    if x.ndim != 2:
        raise ValueError(f"{op}: input must have 2 dimensions, got input.shape={x.shape}")
    order = real(op, "p", p)
    if not order >= 0:
        raise ValueError(f"{op}: p must not be negative, got p={order}")
    if _takes(x, order):
        y = _known.run(x, order)
        if y is None:
            y = Pdist.apply(x, order == 2)
            _known.remember((x, order), y, _C.pdist_call, (order == 2, *x.shape), (order == 2,))
        return y
    first, second = np.triu_indices(x.shape[0], 1)
    # without columns every norm is 0: the largest of no values would be refused
    return (x[first] - x[second]).norm(order if x.shape[1] else 1.0, 1)
