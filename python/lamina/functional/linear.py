"""The affine map y = x weight^T + bias, and the bilinear form of two inputs."""

from __future__ import annotations

import math
from typing import Any

from .. import _C, arrays
from ..autograd import Function
from ..known import Known
from . import _epilogue
from ._arguments import check_rank, same_dtype
from .conv import as_operand
from .distance import on_tensors

__all__ = ["bilinear", "linear"]


def _gemm(
    a: Any,
    b: Any,
    bias: Any,
    sizes: tuple[int, int, int],
    trans: tuple[bool, bool],
    kind: _epilogue.Kind = _epilogue.IDENTITY,
    residual: Any = None,
) -> Any:
    """f(op(a) [m, k] times op(b) [k, n], plus bias [n] and residual); sizes are (m, n, k)."""
    m, n, k = sizes
    c = arrays.empty("linear", (m, n), a.dtype, like=a)
    _C.gemm(a, b, c, bias, 1, m, n, k, *trans, False, kind, residual)
    return c


def _sum_rows(grad_y: Any, m: int, n: int) -> Any:
    """[m, n] to [n]."""
    if not arrays.is_ready(grad_y):  # on a GPU, or of 16 bits
        return grad_y.reshape(m, n).sum(0)
    sums = arrays.empty("linear", (n,), grad_y.dtype)
    _C.sum_rows(grad_y, sums)
    return sums


class Linear(Function):
    kernels_only = True
    gradients_are_new = True

    @staticmethod
    def forward(
        ctx: Any,
        x: Any,
        weight: Any,
        bias: Any,
        residual: Any,
        kind: _epilogue.Kind,
        sizes: tuple[int, int, int],
        y_shape: tuple[int, ...],
    ) -> Any:
        def compute(kind: _epilogue.Kind) -> Any:
            return _gemm(x, weight, bias, sizes, (False, True), kind, residual).reshape(y_shape)

        y, kept = _epilogue.forward("linear", ctx, kind, compute)
        ctx.save_for_backward(x, weight, kept)
        ctx.sizes, ctx.kind = sizes, kind
        ctx.bias_shape = None if bias is None else bias.shape
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Any) -> Any:
        x, weight, kept = ctx.saved
        m, n, k = ctx.sizes
        grad_y = _epilogue.backward("linear", ctx.kind, kept, grad_y)
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = _gemm(grad_y, weight, None, (m, k, n), (False, False)).reshape(x.shape)
        if ctx.needs_input_grad[1]:
            grad_weight = _gemm(grad_y, x, None, (n, k, m), (True, False)).reshape(weight.shape)
        if ctx.needs_input_grad[2]:
            grad_bias = _sum_rows(grad_y, m, n).reshape(ctx.bias_shape)
        return grad_x, grad_weight, grad_bias, grad_y, None, None, None


_known = Known(4, Linear)


def linear(
    input: Any, weight: Any, bias: Any = None, *, activation: Any = None, residual: Any = None
) -> Any:
    """input [..., in_features], weight [out_features, in_features] or [in_features], bias [out].

    Float32 or float64. activation and residual as in functional.conv2d. Raises ValueError for
    shapes that do not match, TypeError for dtypes.
    """
    asked = (input, weight, bias, residual, activation)
    y = _known.run(*asked)
    if y is not None:
        return y
    kind = _epilogue.activation_kind("linear", activation)
    x, weight = as_operand("linear", "input", input), as_operand("linear", "weight", weight)
    bias = None if bias is None else as_operand("linear", "bias", bias)
    residual = None if residual is None else as_operand("linear", "residual", residual)
    same_dtype("linear", input=x, weight=weight, bias=bias, residual=residual)
    check_rank("linear", "input", x, range(1, 65))
    check_rank("linear", "weight", weight, (1, 2))
    m, n, k = math.prod(x.shape[:-1]), math.prod(weight.shape[:-1]), weight.shape[-1]
    if x.shape[-1] != k:
        raise ValueError(
            f"linear: input has {x.shape[-1]} features but weight expects {k} "
            f"(weight.shape[-1]), got input.shape={x.shape}, weight.shape={weight.shape}"
        )
    if bias is not None and math.prod(bias.shape) != n:
        raise ValueError(
            f"linear: bias must have one element per output feature, ({n},), "
            f"got bias.shape={bias.shape}"
        )
    y_shape = x.shape[:-1] + weight.shape[:-1]
    _epilogue.check_residual("linear", residual, y_shape)
    record = (kind, (m, n, k), y_shape)
    y = Linear.apply(x, weight, bias, residual, *record)
    rest = (m, n, k, kind, _epilogue.output_tells_kernel(kind))
    return _known.remember(asked, y, _C.linear_call, rest, record)


@on_tensors
def bilinear(input1: Any, input2: Any, weight: Any, bias: Any = None) -> Any:
    """y[..., k] = input1 weight[k] input2^T + bias[k].

    input1 [..., in1], input2 [..., in2] of equal leading axes, weight [out, in1, in2], bias [out].
    Float32 or float64. Raises ValueError for shapes that do not match, TypeError for dtypes.
    """
    from ..tensor import Tensor

    op = "bilinear"
    named = {"input1": input1, "input2": input2, "weight": weight, "bias": bias}
    tensors: dict[str, Any] = {
        name: x
        if isinstance(x, Tensor) or (x is None and name == "bias")
        else Tensor(arrays.asarray(op, name, x))
        for name, x in named.items()
    }
    for name, x in tensors.items():
        if x is not None:
            arrays.check_float(op, name, x.data)
    same_dtype(op, **tensors)
    x1, x2, w, b = tensors.values()
    check_rank(op, "weight", w, (3,))
    out, in1, in2 = w.shape
    if x1.shape[:-1] != x2.shape[:-1] or x1.shape[-1:] != (in1,) or x2.shape[-1:] != (in2,):
        raise ValueError(
            f"{op}: inputs must be [..., {in1}] and [..., {in2}] with equal leading axes, "
            f"got input1.shape={x1.shape}, input2.shape={x2.shape}, weight.shape={w.shape}"
        )
    if b is not None and b.shape != (out,):
        raise ValueError(f"{op}: bias must have shape ({out},), got bias.shape={b.shape}")
    lead = x1.shape[:-1]
    n = math.prod(lead)
    left = linear(x1.reshape(n, in1), w.permute(0, 2, 1).reshape(out * in2, in1))
    y = (left.reshape(n, out, in2) * x2.reshape(n, 1, in2)).sum(2).reshape(*lead, out)
    return y if b is None else y + b
