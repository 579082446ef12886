"""Dropout, with masks from the library's own Philox stream (csrc/shared/philox.h).

Equal seeds (`lamina.manual_seed`) and equal calls give equal masks on every backend and for any
number of threads; nothing is stored for the way back. float32 or float64. All functions return
`input` itself when not training or when p is 0, raise ValueError for p outside [0, 1] and TypeError
for dtypes. `inplace` is accepted for torch's sake and ignored: inputs are never written.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from .. import _C, arrays
from ..autograd import Function
from ..random import next_words
from ._arguments import check_rank, flag, real
from .conv import as_operand

__all__ = [
    "alpha_dropout",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "feature_alpha_dropout",
]

# What SELU tends to on the left, -lambda alpha (Klambauer et al. 2017).
_SELU_LIMIT = -1.7580993408473766


class Mask(NamedTuple):
    """Arguments of the kernel: y = keep ? x * scale + shift : x * 0 + dropped."""

    rows: int
    inner: int
    seed: int
    offset: int
    threshold: int
    scale: float
    shift: float
    dropped: float


class Dropout(Function):
    """The same mask forward and backward, drawn twice."""

    kernels_only = True
    gradients_are_new = True

    @staticmethod
    def forward(ctx: Any, op: str, x: Any, mask: Mask) -> Any:
        ctx.op, ctx.mask = op, mask
        y = arrays.empty(op, x.shape, x.dtype, like=x)
        _C.dropout(x, y, *mask)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Any) -> Any:
        grad_y = arrays.asarray(ctx.op, "grad_y", grad_y)
        grad_x = arrays.empty(ctx.op, grad_y.shape, grad_y.dtype, like=grad_y)
        _C.dropout(grad_y, grad_x, *ctx.mask._replace(shift=0.0, dropped=0.0))
        return None, grad_x, None


def _dropout(
    op: str,
    input: Any,
    p: float,
    training: bool,
    channel_axes: int | None = None,
    alpha: bool = False,
) -> Any:
    """One draw an element, or one for each index of the leading channel_axes axes."""
    x = as_operand(op, "input", input)
    p = real(op, "p", p)
    if not 0 <= p <= 1:
        raise ValueError(f"{op}: p must be from 0 to 1, got p={p}")
    if not flag(op, "training", training) or p == 0:
        return input
    rows = math.prod(x.shape if channel_axes is None else x.shape[:channel_axes])
    inner = 1 if channel_axes is None else math.prod(x.shape[channel_axes:])
    scale = shift = dropped = 0.0
    if p < 1 and alpha:  # mean 0 and variance 1 stay mean 0 and variance 1
        scale = 1 / math.sqrt((_SELU_LIMIT**2 * p + 1) * (1 - p))
        shift = -scale * _SELU_LIMIT * p
        dropped = shift + scale * _SELU_LIMIT
    elif p < 1:
        scale = 1 / (1 - p)
    mask = Mask(rows, inner, *next_words(rows), math.ceil(p * 2**24), scale, shift, dropped)
    return Dropout.apply(op, x, mask)


def dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """Elements become 0 with probability p, the others grow by 1 / (1 - p).

    Srivastava et al. 2014.
    """
    return _dropout("dropout", input, p, training)


def _features(n: int, input: Any, p: float, training: bool) -> Any:
    op = f"dropout{n}d"
    x = as_operand(op, "input", input)
    check_rank(op, "input", x, (n + 1, n + 2), "(a batch axis is optional)")
    # As in torch: three axes of dropout2d are [N, C, L], elsewhere one axis less has no batch.
    unbatched = x.ndim == n + 1 and n != 2
    return _dropout(op, input, p, training, 1 if unbatched else 2)


def dropout1d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """Whole channels of [N, C, L] or [C, L] become 0 with probability p (Tompson et al. 2015)."""
    return _features(1, input, p, training)


def dropout2d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """Whole channels of [N, C, H, W] or [N, C, L] become 0 with probability p."""
    return _features(2, input, p, training)


def dropout3d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """Whole channels of [N, C, D, H, W] or [C, D, H, W] become 0 with probability p."""
    return _features(3, input, p, training)


def alpha_dropout(input: Any, p: float = 0.5, training: bool = False, inplace: bool = False) -> Any:
    """Elements become SELU's limit with probability p; keeps mean 0 and variance 1.

    Klambauer et al. 2017.
    """
    return _dropout("alpha_dropout", input, p, training, alpha=True)


def feature_alpha_dropout(
    input: Any, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Any:
    """`alpha_dropout` of whole channels of [N, C, ...]."""
    op = "feature_alpha_dropout"
    check_rank(op, "input", as_operand(op, "input", input), range(2, 65), "[N, C, ...]")
    return _dropout(op, input, p, training, 2, alpha=True)
