"""The affine map y = x weight^T + bias."""

from __future__ import annotations

import math
from typing import Any

from .. import _C, arrays
from ..autograd import Function
from ._arguments import check_rank, same_dtype

__all__ = ["linear"]


def _gemm(a: Any, b: Any, bias: Any, sizes: tuple[int, int, int], trans: tuple[bool, bool]) -> Any:
    """op(a) [m, k] times op(b) [k, n], plus bias [n]; sizes are (m, n, k)."""
    m, n, k = sizes
    c = arrays.empty("linear", (m, n), a.dtype)
    _C.gemm(a, b, c, bias, 1, m, n, k, *trans)
    return c


class Linear(Function):
    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, bias: Any) -> Any:
        x, weight = arrays.asarray("linear", "input", x), arrays.asarray("linear", "weight", weight)
        bias = None if bias is None else arrays.asarray("linear", "bias", bias)
        same_dtype("linear", input=x, weight=weight, bias=bias)
        check_rank("linear", "input", x, range(1, 65))
        check_rank("linear", "weight", weight, (1, 2))
        rows = weight.reshape(-1, weight.shape[-1])
        if x.shape[-1] != rows.shape[1]:
            raise ValueError(
                f"linear: x has {x.shape[-1]} features but weight expects {rows.shape[1]} "
                f"(weight.shape[-1]), got x.shape={x.shape}, weight.shape={weight.shape}"
            )
        if bias is not None and bias.size != len(rows):
            raise ValueError(
                f"linear: bias must have one element per output feature, ({len(rows)},), "
                f"got bias.shape={bias.shape}"
            )
        ctx.sizes = (math.prod(x.shape[:-1]), len(rows), rows.shape[1])
        ctx.save_for_backward(x, weight)
        ctx.bias_shape = None if bias is None else bias.shape
        y = _gemm(x, rows, bias, ctx.sizes, (False, True))
        return y.reshape(x.shape[:-1] + weight.shape[:-1])

    @staticmethod
    def backward(ctx: Any, grad_y: Any) -> Any:
        x, weight = ctx.saved
        m, n, k = ctx.sizes
        grad_y = arrays.asarray("linear", "grad_y", grad_y)
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = _gemm(grad_y, weight, None, (m, k, n), (False, False)).reshape(x.shape)
        if ctx.needs_input_grad[1]:
            grad_weight = _gemm(grad_y, x, None, (n, k, m), (True, False)).reshape(weight.shape)
        if ctx.needs_input_grad[2]:
            grad_bias = grad_y.reshape(m, n).sum(0).reshape(ctx.bias_shape)
        return grad_x, grad_weight, grad_bias


def linear(input: Any, weight: Any, bias: Any = None) -> Any:
    """input [..., in_features], weight [out_features, in_features] or [in_features], bias [out].

    Float32 or float64. Raises ValueError for shapes that do not match, TypeError for dtypes.
    """
    return Linear.apply(input, weight, bias)
