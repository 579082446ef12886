"""Matrix products, with broadcast batches."""

from __future__ import annotations

from typing import Any

from .. import _C
from ..arrays import FLOATS, asarray, empty, module_of
from ..autograd import Context, Function
from ..known import Known
from ._common import common_dtype, is_known_array, unbroadcast


def _swapped(x: Any) -> bool:
    """Whether the matrices of an array of NumPy are stored by columns."""
    return x.ndim > 1 and not x.flags.c_contiguous and x.swapaxes(-1, -2).flags.c_contiguous


def _stored(name: str, x: Any) -> Any:
    return asarray("matmul", name, x.swapaxes(-1, -2) if _swapped(x) else x)


def _product(a: Any, b: Any) -> Any:
    """a @ b of one dtype, by the kernels where they take it. Raises ValueError for the shapes."""
    if is_known_array(a, FLOATS) and is_known_array(b, FLOATS):
        swapped = _swapped(a), _swapped(b)
        shape = _C.matmul_shape(a.shape, b.shape, *swapped)
        if shape is not None:
            y = empty("matmul", shape, a.dtype)
            left, right = _stored("a", a), _stored("b", b)
            _C.matmul(left, right, y, a.shape, b.shape, *swapped)
            return y
    xp = module_of(a)
    return xp.asarray(xp.matmul(a, b))


class Matmul(Function):
    """y[..., i, j] = sum over k of a[..., i, k] * b[..., k, j]; a vector has no i or no j."""

    @staticmethod
    def forward(ctx: Context, a: Any, b: Any) -> Any:
        dtype = common_dtype("matmul", {"a": a, "b": b})
        if not getattr(a, "ndim", 0) or not getattr(b, "ndim", 0):
            raise ValueError(
                "matmul: a and b must have a dimension, got "
                f"a.shape={getattr(a, 'shape', ())}, b.shape={getattr(b, 'shape', ())}; use *"
            )
        xp = module_of(a)
        a, b = xp.asarray(a, dtype), xp.asarray(b, dtype)
        ctx.save_for_backward(a, b)
        try:
            return _product(a, b)
        except ValueError:
            raise ValueError(
                "matmul: the last dimension of a must equal the last but one of b, and batches "
                f"must broadcast, got a.shape={a.shape}, b.shape={b.shape}; transpose one"
            ) from None

    @staticmethod
    def backward(ctx: Context, grad_y: Any) -> Any:
        a, b = ctx.saved
        left = a if a.ndim > 1 else a[None, :]
        right = b if b.ndim > 1 else b[:, None]
        if b.ndim == 1:
            grad_y = grad_y[..., None]
        if a.ndim == 1:
            grad_y = grad_y[..., None, :]
        if right.ndim == 2 and left.ndim > 2:  # all rows of a are one matrix
            left = left.reshape(-1, left.shape[-1])
            grad_y = grad_y.reshape(-1, grad_y.shape[-1])
        need_a, need_b = ctx.needs_input_grad
        grad_a = grad_b = None
        if need_a:
            full = _product(grad_y, right.swapaxes(-1, -2))
            grad_a = unbroadcast(full, left.shape).reshape(a.shape)
        if need_b:
            full = _product(left.swapaxes(-1, -2), grad_y)
            grad_b = unbroadcast(full, right.shape).reshape(b.shape)
        return grad_a, grad_b


_known = Known(2, Matmul, layouts="transposed")
_run = _known.run


def matmul(a: Any, b: Any) -> Any:
    """a @ b for vectors, matrices and batches of them. Raises ValueError for the shapes."""
    y = _run(a, b)
    if y is not None:
        return y
    y = Matmul.apply(a, b)
    if is_known_array(a, FLOATS) and is_known_array(b, (a.dtype,)):
        shapes = a.shape, b.shape
        swapped = [_swapped(getattr(x, "_data", x)) for x in (a, b)]
        if _C.matmul_shape(*shapes, *swapped) == y.shape:
            _known.remember((a, b), y, _C.matmul_call, (*shapes, *swapped), ())
    return y
