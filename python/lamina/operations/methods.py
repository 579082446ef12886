"""The operations as methods and operators of Tensor.

`Tensor` inherits from `Methods`; each name is the function of the family files, so the first
argument is the tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Number
from typing import Any

from . import comparison, elementwise, extreme, indexing, linalg, reduction, selection, shape


def _reflected(operation: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, other: operation(other, self)


def _has_elements(other: Any) -> bool:
    """Whether == is meant elementwise; to anything else, as None or a string, nothing is equal."""
    return hasattr(other, "__array__") or isinstance(other, (int, float, Number, list, tuple))


class Methods:
    """See the functions of the same names."""

    __slots__ = ()

    __add__ = add = elementwise.add
    __sub__ = sub = elementwise.sub
    __mul__ = mul = elementwise.mul
    __truediv__ = div = elementwise.div
    __floordiv__ = floor_divide = elementwise.floor_divide
    __mod__ = remainder = elementwise.remainder
    __pow__ = pow = elementwise.pow
    __matmul__ = matmul = linalg.matmul
    __radd__ = _reflected(elementwise.add)
    __rsub__ = _reflected(elementwise.sub)
    __rmul__ = _reflected(elementwise.mul)
    __rtruediv__ = _reflected(elementwise.div)
    __rfloordiv__ = _reflected(elementwise.floor_divide)
    __rmod__ = _reflected(elementwise.remainder)
    __rpow__ = _reflected(elementwise.pow)
    __rmatmul__ = _reflected(linalg.matmul)
    __neg__ = neg = elementwise.neg
    __abs__ = abs = elementwise.abs
    __getitem__ = indexing.index

    __lt__ = lt = comparison.lt
    __le__ = le = comparison.le
    __gt__ = gt = comparison.gt
    __ge__ = ge = comparison.ge
    __and__ = bitwise_and = comparison.bitwise_and
    __or__ = bitwise_or = comparison.bitwise_or
    __xor__ = bitwise_xor = comparison.bitwise_xor
    __rand__ = _reflected(comparison.bitwise_and)
    __ror__ = _reflected(comparison.bitwise_or)
    __rxor__ = _reflected(comparison.bitwise_xor)
    __invert__ = bitwise_not = comparison.bitwise_not
    logical_and = comparison.logical_and
    logical_or = comparison.logical_or
    logical_xor = comparison.logical_xor
    logical_not = comparison.logical_not
    eq = comparison.eq
    ne = comparison.ne

    exp = elementwise.exp
    expm1 = elementwise.expm1
    log = elementwise.log
    log1p = elementwise.log1p
    log2 = elementwise.log2
    sqrt = elementwise.sqrt
    rsqrt = elementwise.rsqrt
    square = elementwise.square
    sin = elementwise.sin
    cos = elementwise.cos
    tanh = elementwise.tanh
    sigmoid = elementwise.sigmoid
    sign = elementwise.sign
    floor = elementwise.floor
    ceil = elementwise.ceil
    round = elementwise.round
    maximum = elementwise.maximum
    minimum = elementwise.minimum
    clamp = clip = selection.clamp
    masked_fill = selection.masked_fill
    isnan = comparison.isnan
    isinf = comparison.isinf
    isfinite = comparison.isfinite

    sum = reduction.sum
    mean = reduction.mean
    prod = reduction.prod
    norm = reduction.norm
    max = extreme.max
    min = extreme.min
    amax = extreme.amax
    amin = extreme.amin
    argmax = extreme.argmax
    argmin = extreme.argmin
    any = reduction.any
    all = reduction.all
    var = reduction.var
    std = reduction.std
    cumsum = reduction.cumsum
    logsumexp = reduction.logsumexp

    reshape = shape.reshape
    view = shape.view
    view_as = shape.view_as
    permute = shape.permute
    transpose = shape.transpose
    swapaxes = shape.swapaxes
    movedim = shape.movedim
    flatten = shape.flatten
    unflatten = shape.unflatten
    squeeze = shape.squeeze
    unsqueeze = shape.unsqueeze
    flip = shape.flip
    expand = shape.expand
    expand_as = shape.expand_as
    narrow = shape.narrow
    split = shape.split
    chunk = shape.chunk
    unbind = shape.unbind
    clone = shape.clone
    contiguous = shape.contiguous
    gather = indexing.gather

    @property
    def T(self) -> Any:
        """The dimensions in the opposite order."""
        return shape.permute(self, *range(self.ndim)[::-1])  # type: ignore[attr-defined]

    @property
    def mT(self) -> Any:
        """The last two dimensions swapped. Raises ValueError below two."""
        return shape.transpose(self, -2, -1)

    def __eq__(self, other: Any) -> Any:
        return comparison.eq(self, other) if _has_elements(other) else NotImplemented

    def __ne__(self, other: Any) -> Any:
        return comparison.ne(self, other) if _has_elements(other) else NotImplemented

    def __contains__(self, element: Any) -> bool:
        return bool(reduction.any(comparison.eq(self, element)))

    __hash__ = object.__hash__
