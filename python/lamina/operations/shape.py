"""Operations that move elements and compute nothing: shapes, orders, splits, conversions.

Results share the memory of the input where NumPy allows it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import _C
from ..arrays import device_of, module_of, to_device
from ..autograd import Context, Function
from ..known import Known
from . import indexing
from ._common import MOVED, all_dims, is_known_array, one_dim, unbroadcast


def _of_tensor(function: Callable[..., Any]) -> Callable[..., Any]:
    """Raises TypeError unless the first argument is a Tensor or an array."""
    name = function.__name__.removeprefix("_checked_")

    @functools.wraps(function)
    def checked(x: Any, *args: Any, **kwargs: Any) -> Any:
        if not hasattr(x, "ndim"):
            raise TypeError(
                f"{name}: x must be a Tensor or an array, got {type(x).__name__}; "
                "convert it with lamina.tensor"
            )
        return function(x, *args, **kwargs)

    return checked


class Reshape(Function):
    kernels_only = True

    @staticmethod
    def forward(ctx: Context, x: Any, shape: tuple[int, ...]) -> Any:
        ctx.shape = x.shape
        if is_known_array(x, MOVED) and not x.flags.c_contiguous:
            try:
                return np.reshape(x, shape, copy=False)
            except ValueError:  # it needs a copy
                return _C.in_c_order(x).reshape(shape)
            except TypeError:  # NumPy before 2.1 does not tell
                pass
        return x.reshape(shape)

    @staticmethod
    def backward(ctx: Context, grad_y: Any) -> Any:
        return grad_y.reshape(ctx.shape), None


class Permute(Function):
    kernels_only = True

    @staticmethod
    def forward(ctx: Context, x: Any, order: tuple[int, ...]) -> Any:
        ctx.back = tuple(sorted(range(len(order)), key=order.__getitem__))
        return x.transpose(order)

    @staticmethod
    def backward(ctx: Context, grad_y: Any) -> Any:
        return grad_y.transpose(ctx.back), None


class Expand(Function):
    kernels_only = True

    @staticmethod
    def forward(ctx: Context, x: Any, shape: tuple[int, ...]) -> Any:
        ctx.shape = x.shape
        return module_of(x).broadcast_to(x, shape)

    @staticmethod
    def backward(ctx: Context, grad_y: Any) -> Any:
        return unbroadcast(grad_y, ctx.shape), None


class Flip(Function):
    kernels_only = True

    @staticmethod
    def forward(ctx: Context, x: Any, dims: tuple[int, ...]) -> Any:
        ctx.dims = dims
        return module_of(x).flip(x, dims)

    @staticmethod
    def backward(ctx: Context, grad_y: Any) -> Any:
        return module_of(grad_y).flip(grad_y, ctx.dims), None


class Cast(Function):
    @staticmethod
    def forward(ctx: Context, x: Any, dtype: Any) -> Any:
        ctx.dtype = x.dtype
        return x.astype(dtype)

    @staticmethod
    def backward(ctx: Context, grad_y: Any) -> Any:
        return grad_y.astype(ctx.dtype), None


class Clone(Function):
    kernels_only = True

    @staticmethod
    def forward(ctx: Context, x: Any) -> Any:
        return _C.in_c_order(x) if is_known_array(x, MOVED) else x.copy()

    @staticmethod
    def backward(ctx: Context, grad_y: Any) -> Any:
        return grad_y


class Move(Function):
    @staticmethod
    def forward(ctx: Context, x: Any, device: str) -> Any:
        ctx.device = device_of(x)
        return to_device("to", x, device)

    @staticmethod
    def backward(ctx: Context, grad_y: Any) -> Any:
        return to_device("to", grad_y, ctx.device), None


_known_clones = Known(1, Clone, layouts="copied")
_known_casts = Known(1, Cast, layouts="copied")
_reshape, _flatten = _C.view("reshape", Reshape), _C.view("flatten", Reshape)
_squeeze, _unsqueeze = _C.view("squeeze", Reshape), _C.view("unsqueeze", Reshape)
_permute, _transpose = _C.view("permute", Permute), _C.view("transpose", Permute)
_expand, _flip = _C.view("expand", Expand), _C.view("flip", Flip)
_narrow, _split, _unbind = (_C.view(name, indexing.Index) for name in ("narrow", "split", "unbind"))


def _sizes(op: str, given: tuple[Any, ...]) -> tuple[int, ...]:
    """The integers of f(2, 3) or of f((2, 3))."""
    if len(given) == 1 and isinstance(given[0], (tuple, list)):
        given = tuple(given[0])
    if any(isinstance(size, bool) or not hasattr(size, "__index__") for size in given):
        raise TypeError(f"{op}: sizes must be integers, got {given}")
    return tuple(size.__index__() for size in given)


def reshape(x: Any, *shape: Any) -> Any:
    """The elements in C order in another shape; one size may be -1. Raises ValueError."""
    y = _reshape(x, *shape)
    return _checked_reshape(x, *shape) if y is None else y


@_of_tensor
def _checked_reshape(x: Any, *shape: Any) -> Any:
    sizes = _sizes("reshape", shape)
    known = math.prod(size for size in sizes if size != -1)
    free = sizes.count(-1)
    count = math.prod(x.shape)
    legal = all(size >= -1 for size in sizes) and (
        known == count if not free else free == 1 and known and count % known == 0
    )
    if not legal:
        raise ValueError(
            f"reshape: shape must hold {count} elements, got shape={sizes}, x.shape={x.shape}; "
            "at most one size may be -1"
        )
    return Reshape.apply(x, sizes)


@_of_tensor
def view(x: Any, *shape: Any) -> Any:
    """As `reshape`: it copies only where the memory order asks for it."""
    return reshape(x, *shape)


@_of_tensor
def view_as(x: Any, other: Any) -> Any:
    """As `reshape` to the shape of `other`."""
    return reshape(x, other.shape)


def permute(x: Any, *dims: Any) -> Any:
    """The dimensions in the order `dims`. Raises ValueError unless each is named once."""
    y = _permute(x, *dims)
    return _checked_permute(x, *dims) if y is None else y


@_of_tensor
def _checked_permute(x: Any, *dims: Any) -> Any:
    given = _sizes("permute", dims)
    order = tuple(one_dim("permute", d, x.ndim) for d in given)
    if x.ndim != len(order) or len(set(order)) != len(order):
        raise ValueError(
            f"permute: dims must name each of the {x.ndim} dimensions once, got dims={given}"
        )
    return Permute.apply(x, order)


def transpose(x: Any, dim0: int, dim1: int) -> Any:
    """Dimensions dim0 and dim1 swapped. Raises ValueError for a dimension out of range."""
    y = _transpose(x, dim0, dim1)
    return _checked_transpose(x, dim0, dim1) if y is None else y


@_of_tensor
def _checked_transpose(x: Any, dim0: int, dim1: int) -> Any:
    first, second = one_dim("transpose", dim0, x.ndim), one_dim("transpose", dim1, x.ndim)
    order = list(range(x.ndim))
    if order:
        order[first], order[second] = second, first
    return Permute.apply(x, tuple(order))


@_of_tensor
def swapaxes(x: Any, axis0: int, axis1: int) -> Any:
    """As `transpose`."""
    return transpose(x, axis0, axis1)


@_of_tensor
def movedim(x: Any, source: Any, destination: Any) -> Any:
    """Dimensions `source` at the places `destination`, the others in order. Raises ValueError."""
    given = [s if isinstance(s, (tuple, list)) else (s,) for s in (source, destination)]
    start, end = ([one_dim("movedim", d, x.ndim) for d in dims] for dims in given)
    if len(start) != len(end) or len(set(start)) != len(start) or len(set(end)) != len(end):
        raise ValueError(
            "movedim: source and destination must name as many dimensions, each once, got "
            f"source={source}, destination={destination}"
        )
    order = [d for d in range(x.ndim) if d not in start]
    for place, d in sorted(zip(end, start, strict=True)):
        order.insert(place, d)
    return Permute.apply(x, tuple(order))


def flatten(x: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """Dimensions start_dim to end_dim as one. Raises ValueError for their order or range."""
    y = _flatten(x, start_dim, end_dim)
    return _checked_flatten(x, start_dim, end_dim) if y is None else y


@_of_tensor
def _checked_flatten(x: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    start, end = one_dim("flatten", start_dim, x.ndim), one_dim("flatten", end_dim, x.ndim)
    if start > end:
        raise ValueError(
            "flatten: start_dim must not come after end_dim, got "
            f"start_dim={start_dim}, end_dim={end_dim}"
        )
    shape = x.shape or (1,)
    return Reshape.apply(x, (*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :]))


@_of_tensor
def unflatten(x: Any, dim: int, sizes: Any) -> Any:
    """Dimension `dim` as several of `sizes`. Raises ValueError where they do not fit."""
    axis = one_dim("unflatten", dim, x.ndim)
    return reshape(x, (*x.shape[:axis], *_sizes("unflatten", (sizes,)), *x.shape[axis + 1 :]))


def squeeze(x: Any, dim: Any = None) -> Any:
    """Without the dimensions of size one, of all or of `dim`."""
    y = _squeeze(x, dim)
    return _checked_squeeze(x, dim) if y is None else y


@_of_tensor
def _checked_squeeze(x: Any, dim: Any = None) -> Any:
    dims = all_dims("squeeze", dim, x.ndim)
    gone = [d for d in dims if x.shape[d] == 1]
    return Reshape.apply(x, tuple(size for d, size in enumerate(x.shape) if d not in gone))


def unsqueeze(x: Any, dim: int) -> Any:
    """With a dimension of size one at `dim`. Raises ValueError out of range."""
    y = _unsqueeze(x, dim)
    return _checked_unsqueeze(x, dim) if y is None else y


@_of_tensor
def _checked_unsqueeze(x: Any, dim: int) -> Any:
    axis = one_dim("unsqueeze", dim, x.ndim + 1)
    return Reshape.apply(x, (*x.shape[:axis], 1, *x.shape[axis:]))


def expand(x: Any, *shape: Any) -> Any:
    """Broadcast to `shape` without a copy; -1 keeps a size. Raises ValueError."""
    y = _expand(x, *shape)
    return _checked_expand(x, *shape) if y is None else y


@_of_tensor
def _checked_expand(x: Any, *shape: Any) -> Any:
    sizes = _sizes("expand", shape)
    new = len(sizes) - x.ndim
    full = tuple(
        x.shape[d - new] if size == -1 and d >= new else size for d, size in enumerate(sizes)
    )
    if new < 0 or any(
        size < 0 or (d >= new and x.shape[d - new] not in (1, size)) for d, size in enumerate(full)
    ):
        raise ValueError(
            f"expand: x must broadcast to shape, got x.shape={x.shape}, shape={sizes}; "
            "only sizes of one can grow"
        )
    return Expand.apply(x, full)


@_of_tensor
def expand_as(x: Any, other: Any) -> Any:
    """As `expand` to the shape of `other`."""
    return expand(x, other.shape)


@_of_tensor
def broadcast_to(x: Any, shape: Any) -> Any:
    """As `expand`."""
    return expand(x, shape)


def flip(x: Any, *dims: Any) -> Any:
    """The order along `dims` turned around. Raises ValueError out of range."""
    y = _flip(x, *dims)
    return _checked_flip(x, *dims) if y is None else y


@_of_tensor
def _checked_flip(x: Any, *dims: Any) -> Any:
    return Flip.apply(x, all_dims("flip", _sizes("flip", dims), x.ndim))


def cast(x: Any, dtype: Any) -> Any:
    """x in another dtype, one that a Tensor may hold."""
    y = _known_casts.run(x, dtype.str)
    if y is not None:
        return y
    compiled = dtype in MOVED and not (x.dtype.kind == "f" and dtype.kind == "i")
    if compiled and is_known_array(x, MOVED):
        rest = (dtype.kind == "f", dtype == np.float64)
        y = _known_casts.first((x, dtype.str), dtype, x.shape, _C.cast_call, rest)
    return Cast.apply(x, dtype) if y is None else y


def clone(x: Any) -> Any:
    """A copy, through which gradients flow."""
    y = _known_clones.run(x)
    return _checked_clone(x) if y is None else y


@_of_tensor
def _checked_clone(x: Any) -> Any:
    y = Clone.apply(x)
    if is_known_array(x, MOVED):
        _known_clones.remember((x,), y, _C.clone_call, (), ())
    return y


@_of_tensor
def contiguous(x: Any) -> Any:
    """The tensor itself where it is C-contiguous, else a copy that is."""
    array = x if hasattr(x, "flags") else x.data
    return x if array.flags.c_contiguous else clone(x)


def narrow(x: Any, dim: int, start: int, length: int) -> Any:
    """Elements start to start + length along `dim`; a negative start counts from the end.

    Raises ValueError out of range.
    """
    y = _narrow(x, dim, start, length)
    return _checked_narrow(x, dim, start, length) if y is None else y


@_of_tensor
def _checked_narrow(x: Any, dim: int, start: int, length: int) -> Any:
    axis = one_dim("narrow", dim, x.ndim)
    first = start + x.shape[axis] if x.ndim and start < 0 else start
    if not (x.ndim and first >= 0 and length >= 0 and first + length <= x.shape[axis]):
        raise ValueError(
            f"narrow: start and length must lie within the dimension, got start={start}, "
            f"length={length}, dim={dim}, x.shape={x.shape}"
        )
    return indexing.index(x, (slice(None),) * axis + (slice(first, first + length),))


def split(x: Any, split_size_or_sections: Any, dim: int = 0) -> tuple[Any, ...]:
    """Parts of one size (the last may be smaller) or of the given sizes along `dim`.

    Raises ValueError where the sizes do not fill the dimension.
    """
    y = _split(x, split_size_or_sections, dim)
    return _checked_split(x, split_size_or_sections, dim) if y is None else y


@_of_tensor
def _checked_split(x: Any, split_size_or_sections: Any, dim: int = 0) -> tuple[Any, ...]:
    axis = one_dim("split", dim, x.ndim)
    if not x.ndim:
        raise ValueError("split: x must have a dimension, got x.shape=()")
    total = x.shape[axis]
    if isinstance(split_size_or_sections, (tuple, list)):
        sizes = list(_sizes("split", (split_size_or_sections,)))
    else:
        (size,) = _sizes("split", (split_size_or_sections,))
        if size < 1:
            raise ValueError(f"split: split_size must be at least 1, got split_size={size}")
        sizes = [min(size, total - start) for start in range(0, total, size)] or [0]
    if any(size < 0 for size in sizes) or sum(sizes) != total:
        raise ValueError(
            f"split: sections must add up to the dimension, got sections={sizes}, dim={dim}, "
            f"x.shape={x.shape}"
        )
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    return tuple(narrow(x, axis, start, size) for start, size in zip(starts, sizes, strict=True))


@_of_tensor
def chunk(x: Any, chunks: int, dim: int = 0) -> tuple[Any, ...]:
    """At most `chunks` parts of one size along `dim`, the last smaller; of nothing, so many empty
    ones. Raises ValueError."""
    if isinstance(chunks, bool) or not isinstance(chunks, int) or chunks < 1:
        raise ValueError(f"chunk: chunks must be an integer of at least 1, got chunks={chunks!r}")
    axis = one_dim("chunk", dim, x.ndim)
    total = x.shape[axis] if x.ndim else 0
    return split(x, -(-total // chunks) or [0] * chunks, axis)


def unbind(x: Any, dim: int = 0) -> tuple[Any, ...]:
    """The slices along `dim`, without it."""
    y = _unbind(x, dim)
    return _checked_unbind(x, dim) if y is None else y


@_of_tensor
def _checked_unbind(x: Any, dim: int = 0) -> tuple[Any, ...]:
    axis = one_dim("unbind", dim, x.ndim)
    if not x.ndim:
        raise ValueError("unbind: x must have a dimension, got x.shape=()")
    return tuple(indexing.index(x, (slice(None),) * axis + (i,)) for i in range(x.shape[axis]))
