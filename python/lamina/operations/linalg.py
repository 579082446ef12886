"""Matrix products, with broadcast batches."""

from __future__ import annotations

from typing import Any

from ..arrays import module_of
from ..autograd import Context, Function
from ._common import common_dtype, unbroadcast


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
            return xp.asarray(xp.matmul(a, b))
        except ValueError:
            raise ValueError(
                "matmul: the last dimension of a must equal the last but one of b, and batches "
                f"must broadcast, got a.shape={a.shape}, b.shape={b.shape}; transpose one"
            ) from None

    @staticmethod
    def backward(ctx: Context, grad_y: Any) -> Any:
        a, b = ctx.saved
        xp = module_of(a)
        left = a if a.ndim > 1 else a[None, :]
        right = b if b.ndim > 1 else b[:, None]
        if b.ndim == 1:
            grad_y = grad_y[..., None]
        if a.ndim == 1:
            grad_y = grad_y[..., None, :]
        need_a, need_b = ctx.needs_input_grad
        grad_a = grad_b = None
        if need_a:
            full = xp.matmul(grad_y, xp.swapaxes(right, -1, -2))
            grad_a = unbroadcast(full, left.shape).reshape(a.shape)
        if need_b:
            full = xp.matmul(xp.swapaxes(left, -1, -2), grad_y)
            grad_b = unbroadcast(full, right.shape).reshape(b.shape)
        return grad_a, grad_b


def matmul(a: Any, b: Any) -> Any:
    """a @ b for vectors, matrices and batches of them. Raises ValueError for the shapes."""
    return Matmul.apply(a, b)
