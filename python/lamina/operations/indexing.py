"""x[index] for integers, slices, ..., None, masks and integer arrays, and its gradient.

Several picks of one element add up in the order of the index, so backward is deterministic.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _C
from ..arrays import FLOATS, INT64, is_array, module_of
from ..autograd import Context, Function
from ..known import Known
from ._common import BOOL, MOVED, as_array, is_known_array, one_dim


def array_index(op: str, x: Any, index: Any) -> tuple[Any, ...]:
    """The index as a tuple that NumPy takes, Tensors and lists as arrays.

    Raises TypeError for other objects; what is out of range is left to the indexing itself.
    """
    items = index if isinstance(index, tuple) else (index,)
    return tuple(_item(op, x, item) for item in items)


def _item(op: str, x: Any, item: Any) -> Any:
    if item is None or item is Ellipsis:
        return item
    if isinstance(item, slice):
        if item.step is not None and item.step == 0:
            raise ValueError(f"{op}: a slice's step must not be 0, got step={item.step}")
        return item
    if hasattr(item, "requires_grad"):
        item = item.data
    if isinstance(item, (list, tuple)):
        item = np.asarray(item) if len(item) else np.zeros(0, np.int64)
    if is_array(item):
        if item.dtype.kind not in "biu":
            raise TypeError(
                f"{op}: index arrays must be integers or booleans, got dtype={item.dtype}; "
                "convert it with .long()"
            )
        return module_of(x).asarray(item)
    if not isinstance(item, float) and hasattr(item, "__index__"):
        return item if isinstance(item, (bool, np.bool_)) else item.__index__()
    raise TypeError(
        f"{op}: index must be integers, slices, ..., None, masks or integer arrays, got "
        f"{type(item).__name__}; convert it with .long()"
    )


def in_steps(key: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """What integers choose, a view, and then the rest: x[first][rest] is torch's x[key].

    NumPy counts an integer beside an array among the arrays: where a slice comes between them, it
    puts their dimension in front.
    """
    arrays = any(is_array(item) for item in key)
    if not arrays or not any(type(item) is int for item in key):
        return (), key
    first: list[Any] = []
    for item in key:
        if type(item) is int or item is Ellipsis:
            first.append(item)
        elif item is not None and not isinstance(item, (bool, np.bool_)):
            taken = item.ndim if is_array(item) and item.dtype == bool else 1
            first += [slice(None)] * taken
    if Ellipsis not in first:
        first.append(Ellipsis)  # a view also where no dimension is left
    return tuple(first), tuple(item for item in key if type(item) is not int)


def _is_mask_of(x: Any, item: Any) -> bool:
    """Whether the compiled loops choose by this mask."""
    return (
        is_known_array(item, (BOOL,))
        and is_known_array(x, (*FLOATS, INT64, BOOL))
        and item.shape == x.shape
        and x.size > 0
        and x.flags.c_contiguous
        and item.flags.c_contiguous
        and x.flags.aligned
    )


class Index(Function):
    kernels_only = True  # there is no arithmetic

    @staticmethod
    def forward(ctx: Context, x: Any, index: Any) -> Any:
        x = as_array("getitem", x)
        key = array_index("getitem", x, index)
        ctx.shape, ctx.key = x.shape, key
        ctx.save_for_backward(*filter(is_array, key))
        if len(key) == 1 and _is_mask_of(x, key[0]):
            return _C.masked(x, key[0])
        first, rest = in_steps(key)
        try:
            return module_of(x).asarray(x[first][rest] if first else x[key])
        except IndexError as error:
            raise IndexError(
                f"getitem: index must lie within the tensor, got x.shape={x.shape}: {error}"
            ) from None

    @staticmethod
    def backward(ctx: Context, grad_y: Any) -> Any:
        xp = module_of(grad_y)
        grad_x = xp.zeros(ctx.shape, grad_y.dtype)
        first, rest = in_steps(ctx.key)
        part = grad_x[first] if first else grad_x
        if all(not is_array(item) or item.dtype == bool for item in rest):
            part[rest] = grad_y  # no element is picked twice
        else:
            xp.add.at(part, rest, grad_y)
        return grad_x, None


_index = _C.view("index", Index)
_MOST_PICKS = 4
# x[:, ..., array, ...]: x and so many arrays of integers, of one shape
_known_picks = [Known(count + 1, Index, layouts="copied") for count in range(_MOST_PICKS + 1)]
_WHOLE = slice(None)


def _picks(key: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arrays of a key that known calls may have; before them, the number of slices `:`."""
    outer = 0
    while outer < len(key) and type(key[outer]) is slice and key[outer] == _WHOLE:
        outer += 1
    arrays = key[outer:]
    if not 1 <= len(arrays) <= _MOST_PICKS or not all(hasattr(item, "dtype") for item in arrays):
        return ()
    return (outer, *arrays)


def index(x: Any, key: Any) -> Any:
    """x[key]; a view for integers and slices. Raises TypeError, IndexError for the key."""
    y = _index(x, key)
    if y is not None:
        return y
    if type(key) is tuple:
        picks = _picks(key)
    else:  # most of all a mask, or one array of integers
        picks = (0, key) if getattr(key, "dtype", None) == INT64 else ()
    if picks:
        outer, *arrays = picks
        y = _known_picks[len(arrays)].run(x, *arrays, outer)
        if y is None:
            y = _first_picks(x, arrays, outer)
    return Index.apply(x, key) if y is None else y


def _first_picks(x: Any, arrays: list[Any], outer: int) -> Any:
    if (
        not is_known_array(x, MOVED)
        or not all(is_known_array(item, (INT64,)) and item.ndim for item in arrays)
        or len({item.shape for item in arrays}) > 1
        or len(x.shape) < outer + len(arrays)
    ):
        return None
    inner = outer + len(arrays)
    shape = (*x.shape[:outer], *arrays[0].shape, *x.shape[inner:])
    rest = (x.shape, outer, len(arrays), True, -1)
    asked = (x, *arrays, outer)
    return _known_picks[len(arrays)].first(asked, x.dtype, shape, _C.take_call, rest)


class Gather(Function):
    @staticmethod
    def forward(ctx: Context, x: Any, dim: int, positions: Any) -> Any:
        ctx.shape = x.shape
        # The other dimensions of x may be longer than those of the positions.
        grids = module_of(x).indices(positions.shape, sparse=True)
        key = tuple(positions if d == dim else grid for d, grid in enumerate(grids))
        ctx.key = key
        ctx.save_for_backward(positions)
        return x[key]

    @staticmethod
    def backward(ctx: Context, grad_y: Any) -> Any:
        xp = module_of(grad_y)
        grad_x = xp.zeros(ctx.shape, grad_y.dtype)
        xp.add.at(grad_x, ctx.key, grad_y)
        return grad_x, None, None


_known_gathers = Known(2, Gather, layouts="copied")


def gather(x: Any, dim: int, index: Any) -> Any:
    """y[i, j] = x[index[i, j], j] for dim 0, and likewise for the others.

    Raises TypeError unless `index` holds integers, ValueError for its shape or values.
    """
    y = _known_gathers.run(x, index, dim)
    if y is not None:
        return y
    axis = one_dim("gather", dim, x.ndim)
    positions = index.data if hasattr(index, "requires_grad") else index
    if not is_array(positions) or positions.dtype.kind not in "iu":
        raise TypeError("gather: index must be an array of integers; convert it with .long()")
    if positions.ndim != x.ndim or any(
        size > x.shape[d] for d, size in enumerate(positions.shape) if d != axis
    ):
        raise ValueError(
            "gather: index must have the dimensions of x and fit in them, got "
            f"index.shape={positions.shape}, x.shape={x.shape}, dim={dim}"
        )
    if is_known_array(x, MOVED) and is_known_array(index, (INT64,)) and x.ndim:
        asked = (x, index, dim)
        y = _known_gathers.first(asked, x.dtype, index.shape, _C.gather_call, (x.shape, axis))
        if y is not None:
            return y
    if positions.size and not (positions.min() >= 0 and positions.max() < x.shape[axis]):
        raise ValueError(
            f"gather: index must be from 0 to {x.shape[axis] - 1}, got values from "
            f"{positions.min()} to {positions.max()}"
        )
    return Gather.apply(x, axis, index)
