"""Local response normalisation across channels and within maps."""

from __future__ import annotations

import math
from typing import Any

from .. import _C, arrays
from ..autograd import Function
from ._arguments import check_rank, integer, real
from .conv import as_operand

__all__ = ["local_response_norm"]


class LocalResponseNorm(Function):
    """layout: (slabs, size, window, alpha, beta, k) as in csrc/ops/local_response_norm.h."""

    kernels_only = True
    gradients_are_new = True

    @staticmethod
    def forward(ctx: Any, x: Any, layout: tuple[Any, ...]) -> Any:
        y = arrays.empty_like("local_response_norm", x)
        _C.local_response_norm(*(*layout, x, None, y))
        ctx.layout = layout
        ctx.save_for_backward(x)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Any) -> Any:
        (x,) = ctx.saved
        grad_y = arrays.asarray("local_response_norm", "grad_y", grad_y)
        grad_x = arrays.empty("local_response_norm", x.shape, x.dtype, like=x)
        _C.local_response_norm(*(*ctx.layout, x, grad_y, grad_x))
        return grad_x, None


def local_response_norm(
    input: Any,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    *,
    within: bool = False,
) -> Any:
    """input (k + alpha mean(input^2))^-beta, the mean over `size` neighbouring channels.

    input [N, C, ...] float32 or float64; zeros beyond the first and last channel count, an even
    size reaches further down. within: the mean over a window of `size` along every spatial axis of
    the same map instead (up to three). Krizhevsky et al. 2012, with torch's mean for their sum.
    Raises ValueError for shapes and options that do not fit, TypeError for dtypes.
    """
    op = "local_response_norm"
    x = as_operand(op, "input", input)
    check_rank(op, "input", x, range(3, 6) if within else range(3, 65), "[N, C, ...]")
    window = integer(op, "size", size, minimum=1)
    options = [real(op, name, v) for name, v in (("alpha", alpha), ("beta", beta), ("k", k))]
    if options[0] < 0 or options[2] < 0:
        raise ValueError(
            f"{op}: alpha and k must not be negative, got alpha={options[0]}, k={options[2]}"
        )
    n, c, *spatial = x.shape
    layout: tuple[Any, ...]
    if within:
        missing = 3 - len(spatial)
        layout = (n * c, (1,) * missing + tuple(spatial), (1,) * missing + (window,) * len(spatial))
        options[0] /= window ** len(spatial)
    else:
        layout = (n, (c, 1, math.prod(spatial)), (window, 1, 1))
        options[0] /= window
    return LocalResponseNorm.apply(x, (*layout, *options))
