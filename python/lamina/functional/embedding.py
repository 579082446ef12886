"""Tables of vectors: look-up, sums over bags, one-hot codes.

A look-up is a sparse matrix with one entry a row, a bag one with several, so both run on the
resampling kernel (csrc/ops/resample.h) and their gradients on the transposed matrix: rows of equal
indices add up in a fixed order. Indices are integers, tables [rows, features] float32 or float64.
Raises ValueError for shapes, options and indices outside the table, TypeError for dtypes.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from .. import _C, arrays
from ..autograd import Function
from ..known import Known
from ..tensor import Tensor, array_of
from . import _taps
from ._arguments import check_rank, flag, integer, one_of, real, same_dtype
from .conv import as_operand

__all__ = ["embedding", "embedding_bag", "one_hot"]


def _multiply(op: str, taps: Any, x: Any) -> Any:
    """The sparse matrix times x [in, features]."""
    y = arrays.empty(op, (taps.out_size, x.shape[1]), x.dtype, like=x)
    if y.size:
        taps.resample(1, x.shape[1], x, y)
    return y


class Rows(Function):
    """forward (a matrix) times weight; backward: grad_y times another matrix."""

    @staticmethod
    def forward(ctx: Any, op: str, weight: Any, forward: Any, backward: Any) -> Any:
        ctx.op, ctx.taps = op, backward
        return _multiply(op, forward, weight)

    @staticmethod
    def backward(ctx: Any, grad_y: Any) -> Any:
        grad_y = arrays.asarray(ctx.op, "grad_y", grad_y)
        return None, _multiply(ctx.op, ctx.taps, grad_y), None, None


def _indices(op: str, input: Any, rows: int) -> np.ndarray:
    array = arrays.asindices(op, "input", array_of(input))
    if array.size and not (array.min() >= 0 and array.max() < rows):
        bad = array[(array < 0) | (array >= rows)].flat[0]
        raise ValueError(
            f"{op}: indices must be from 0 to {rows - 1} (the rows of weight), got {bad}"
        )
    return array


def _weight(op: str, weight: Any) -> Any:
    weight = as_operand(op, "weight", weight)
    check_rank(op, "weight", weight, (2,))
    return weight


def _padding(op: str, padding_idx: int | None, rows: int) -> int | None:
    if padding_idx is None:
        return None
    index = integer(op, "padding_idx", padding_idx)
    if not -rows <= index < rows:
        raise ValueError(
            f"{op}: padding_idx must be from {-rows} to {rows - 1}, got padding_idx={index}"
        )
    return index % rows


def renormalised(weight: Any, used: np.ndarray, max_norm: float, norm_type: float) -> Any:
    """A copy of the array whose used rows have a norm of at most max_norm."""
    rows = np.unique(used)
    norms = np.linalg.norm(weight[rows].astype(np.float64), norm_type, axis=1)
    long = norms > max_norm
    result = weight.copy()
    result[rows[long]] *= (max_norm / (norms[long] + 1e-7))[:, None].astype(weight.dtype)
    return result


class _Renormalise(Function):
    """Shorter rows; the gradient passes as if they had been that short all along."""

    @staticmethod
    def forward(ctx: Any, weight: Any, used: np.ndarray, max_norm: float, norm_type: float) -> Any:
        return renormalised(weight, used, max_norm, norm_type)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return grad, None, None, None


def _limited(op: str, weight: Any, used: Any, max_norm: Any, norm_type: Any) -> Any:
    if max_norm is None:
        return weight
    limit, order = real(op, "max_norm", max_norm), real(op, "norm_type", norm_type)
    if limit < 0 or order <= 0:
        raise ValueError(
            f"{op}: max_norm must not be negative and norm_type must be above 0, "
            f"got max_norm={limit}, norm_type={order}"
        )
    return _Renormalise.apply(weight, used, limit, order)


def _no_sparse(op: str, sparse: bool) -> None:
    if flag(op, "sparse", sparse):
        raise ValueError(f"{op}: sparse gradients are not offered, got sparse=True; use False")


def _frequencies(indices: np.ndarray, rows: int, by_frequency: bool) -> np.ndarray:
    """What multiplies the gradient of each index."""
    if not by_frequency:
        return np.ones(len(indices))
    return 1 / np.bincount(indices, minlength=rows)[indices]


def _is_known(weight: Any) -> bool:
    """Whether the compiled loops read the table."""
    return type(array_of(weight)) is np.ndarray and weight.dtype in arrays.FLOATS


_known_rows = Known(2, Rows)
_known_bags = Known(3, Rows)
_known_codes = Known(1, Rows)


def embedding(
    input: Any,
    weight: Any,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Any:
    """weight[input]: input [...] of integers, weight [rows, features], result [..., features].

    padding_idx gets no gradient. max_norm shortens the rows that are used (weight itself is not
    written, unlike in torch). scale_grad_by_freq divides a row's gradient by its count.
    """
    op = "embedding"
    plain = max_norm is None and scale_grad_by_freq is False and sparse is False
    y = _known_rows.run(weight, input, padding_idx) if plain else None
    if y is not None:
        return y
    weight = _weight(op, weight)
    rows = weight.shape[0]
    indices = _indices(op, input, rows)
    _no_sparse(op, sparse)
    padding = _padding(op, padding_idx, rows)
    if plain and _is_known(weight):
        shape, left_out = (*indices.shape, weight.shape[1]), -1 if padding is None else padding
        rest = (weight.shape, 0, 1, False, left_out)
        asked = (weight, indices, padding_idx)
        y = _known_rows.first(asked, weight.dtype, shape, _C.take_call, rest)
        if y is not None:
            return y
    flat = arrays.to_numpy(indices).reshape(-1)  # the table of a look-up is made on the host
    weight = _limited(op, weight, flat, max_norm, norm_type)
    places, ones = np.arange(len(flat)), np.ones(len(flat))
    forward = _taps.from_entries(rows, len(flat), places, flat, ones).forward
    kept = slice(None) if padding is None else flat != padding
    scale = _frequencies(flat, rows, flag(op, "scale_grad_by_freq", scale_grad_by_freq))
    backward = _taps.from_entries(rows, len(flat), places[kept], flat[kept], scale[kept]).backward
    y = Rows.apply(op, weight, forward, backward)
    return y.reshape(*indices.shape, weight.shape[1])


def _bag_bounds(
    op: str, indices: np.ndarray, offsets: Any, include_last_offset: bool
) -> np.ndarray:
    """[bags + 1]: where each bag begins in the flat indices."""
    if indices.ndim == 2:
        if offsets is not None:
            raise ValueError(
                f"{op}: offsets must be None for an input of 2 dimensions, got offsets={offsets!r}"
            )
        return np.arange(len(indices) + 1) * indices.shape[1]
    if offsets is None:
        raise ValueError(f"{op}: offsets must be given for an input of 1 dimension, got None")
    bounds = arrays.to_numpy(arrays.asindices(op, "offsets", array_of(offsets)))
    check_rank(op, "offsets", bounds, (1,))
    if not flag(op, "include_last_offset", include_last_offset):
        bounds = np.append(bounds, len(indices))
    if len(bounds) == 0 or bounds[0] != 0:
        raise ValueError(f"{op}: offsets must begin with 0, got offsets={bounds[:1]}")
    if (np.diff(bounds) < 0).any() or bounds[-1] > len(indices):
        raise ValueError(f"{op}: offsets must ascend to at most {len(indices)}, the input's length")
    return bounds


class _BagWeights(Function):
    """Sums with one weight an index, whose gradient is a dot product."""

    @staticmethod
    def forward(ctx: Any, weight: Any, scale: Any, flat: Any, bag: Any, bags: int) -> Any:
        table = _taps.from_entries(len(weight), bags, bag, flat, arrays.to_numpy(scale))
        ctx.save_for_backward(weight, flat, bag)
        ctx.taps = table.backward
        return _multiply("embedding_bag", table.forward, weight)

    @staticmethod
    def backward(ctx: Any, grad_y: Any) -> Any:
        weight, flat, bag = ctx.saved
        grad_y = arrays.asarray("embedding_bag", "grad_y", grad_y)
        grad_scale = np.einsum("ij,ij->i", weight[flat], grad_y[bag])
        return _multiply("embedding_bag", ctx.taps, grad_y), grad_scale, None, None, None


class _BagMaximum(Function):
    """The largest of each bag's rows by feature; of equal ones the first gets the gradient."""

    @staticmethod
    def forward(ctx: Any, weight: Any, flat: Any, bag: Any, bags: int) -> Any:
        xp = arrays.module_of(weight)
        y = xp.zeros((bags, weight.shape[1]), weight.dtype)
        winner = xp.full(y.shape, -1, np.int64)
        bounds = np.flatnonzero(np.diff(bag, prepend=-1, append=bags))
        for start, end in pairwise(bounds):
            rows = weight[flat[start:end]]
            best = rows.argmax(0)
            y[bag[start]] = np.take_along_axis(rows, best[None], 0)[0]
            winner[bag[start]] = xp.asarray(flat[start:end])[best]
        ctx.save_for_backward(winner)
        ctx.shape = weight.shape
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Any) -> Any:
        (winner,) = ctx.saved
        xp = arrays.module_of(grad_y)
        grad = xp.zeros(ctx.shape, grad_y.dtype)
        bag, feature = np.nonzero(winner >= 0)
        xp.add.at(grad, (winner[bag, feature], feature), grad_y[bag, feature])
        return grad, None, None, None


def embedding_bag(
    input: Any,
    weight: Any,
    offsets: Any = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Any = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Any:
    """Sum, mean or max of weight[bag] for every bag of indices: [bags, features].

    input [bags, n] has a bag a row; input [n] has bags that begin at offsets (with their end too if
    include_last_offset). padding_idx is left out of every bag; an empty bag gives 0.
    per_sample_weights (mode "sum"), of input's shape, multiplies each row.
    """
    op = "embedding_bag"
    plain = max_norm is None and scale_grad_by_freq is False and sparse is False
    plain = plain and per_sample_weights is None and mode in ("mean", "sum")
    options = (mode, include_last_offset, padding_idx)
    y = _known_bags.run(weight, input, offsets, *options) if plain else None
    if y is not None:
        return y
    weight = _weight(op, weight)
    rows = weight.shape[0]
    indices = _indices(op, input, rows)
    check_rank(op, "input", indices, (1, 2))
    one_of(op, "mode", mode, ("sum", "mean", "max"))
    _no_sparse(op, sparse)
    if per_sample_weights is not None and mode != "sum":
        raise ValueError(f"{op}: per_sample_weights needs mode='sum', got mode={mode!r}")
    if scale_grad_by_freq and (mode == "max" or per_sample_weights is not None):
        raise ValueError(f"{op}: scale_grad_by_freq needs mode 'sum' or 'mean' without weights")
    padding = _padding(op, padding_idx, rows)
    bounds = _bag_bounds(op, indices, offsets, include_last_offset)
    if plain and _is_known(weight):
        places = None if offsets is None else arrays.asindices(op, "offsets", array_of(offsets))
        shape = (len(bounds) - 1, weight.shape[1])
        rest = (rows, mode == "mean", -1 if padding is None else padding)
        asked = (weight, indices, places, *options)
        y = _known_bags.first(asked, weight.dtype, shape, _C.bag_call, rest)
        if y is not None:
            return y
    flat = arrays.to_numpy(indices).reshape(-1)
    weight = _limited(op, weight, flat, max_norm, norm_type)
    bag = np.searchsorted(bounds, np.arange(len(flat)), "right") - 1
    bags = len(bounds) - 1
    kept = np.flatnonzero((bag < bags) & (True if padding is None else flat != padding))
    flat, bag = flat[kept], bag[kept]
    if mode == "max":
        return _BagMaximum.apply(weight, flat, bag, bags)
    if per_sample_weights is not None:
        scale = as_operand(op, "per_sample_weights", per_sample_weights)
        same_dtype(op, weight=weight, per_sample_weights=scale)
        if scale.shape != indices.shape:
            raise ValueError(
                f"{op}: per_sample_weights must have the shape of input, {indices.shape}, "
                f"got {scale.shape}"
            )
        return _BagWeights.apply(weight, scale.reshape(-1)[kept], flat, bag, bags)
    counts = np.bincount(bag, minlength=bags)
    scale = 1 / counts[bag] if mode == "mean" else np.ones(len(flat))
    forward = _taps.from_entries(rows, bags, bag, flat, scale).forward
    scale = scale * _frequencies(flat, rows, flag(op, "scale_grad_by_freq", scale_grad_by_freq))
    backward = _taps.from_entries(rows, bags, bag, flat, scale).backward
    return Rows.apply(op, weight, forward, backward)


def one_hot(tensor: Any, num_classes: int = -1) -> Any:
    """int64 [..., num_classes] with a 1 at each index; -1: as many classes as the largest needs."""
    op = "one_hot"
    y = _known_codes.run(tensor, num_classes)
    if y is not None:
        return y
    indices = arrays.asindices(op, "tensor", array_of(tensor))
    classes = integer(op, "num_classes", num_classes)
    largest = int(indices.max()) if indices.size else -1
    if indices.size and indices.min() < 0:
        raise ValueError(f"{op}: indices must not be negative, got {int(indices.min())}")
    if classes == -1:
        if not indices.size:
            raise ValueError(
                f"{op}: num_classes must be given for an empty tensor, "
                f"got tensor.shape={indices.shape}, num_classes=-1"
            )
        classes = largest + 1
    if classes <= largest or classes < 1:
        raise ValueError(
            f"{op}: num_classes must be above the largest index {largest}, got {classes}"
        )
    shape = (*indices.shape, classes)
    y = _known_codes.first((tensor, classes), np.int64, shape, _C.one_hot_call, ())
    if y is not None:
        return y
    y = arrays.empty(op, shape, np.int64, like=indices)
    y[...] = indices[..., None] == arrays.module_of(indices).arange(classes)
    return Tensor(y) if isinstance(tensor, Tensor) else y
