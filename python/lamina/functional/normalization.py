"""Batch, layer, group and instance normalisation: (x - mean) / sqrt(var + eps) * weight + bias.

Ioffe & Szegedy 2015, Ba et al. 2016, Wu & He 2018, Ulyanov et al. 2016. The variance that divides
is the biased one; running statistics take the unbiased one, as in torch. Inputs are float32 or
float64. All functions raise ValueError for shapes that do not match and TypeError for dtypes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import _C, arrays
from ..autograd import Function
from ..known import Known
from ..operations._common import are_alike
from ..operations.reduction import mean_of_squares
from ..tensor import array_of
from . import _epilogue
from ._arguments import check_rank, flag, integer, normal_axis, real, same_dtype
from .conv import as_operand
from .distance import on_tensors, operands

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm", "normalize", "rms_norm"]


def _affine(op: str, x: Any, weight: Any, bias: Any, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Checked weight and bias of one shape; either may be None."""
    checked = []
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None:
            value = arrays.asarray(op, name, value)
            same_dtype(op, **{"input": x, name: value})
            if value.shape != shape:
                raise ValueError(
                    f"{op}: {name} must have shape {shape}, got {name}.shape={value.shape}, "
                    f"input.shape={x.shape}"
                )
        checked.append(value)
    return checked[0], checked[1]


def _epsilon(op: str, eps: Any) -> float:
    value = real(op, "eps", eps)
    if not value >= 0:
        raise ValueError(f"{op}: eps must not be negative, got eps={value}")
    return value


class BatchNorm(Function):
    """Returns y and the statistics used: mean [C] and biased variance [C]."""

    kernels_only = True
    gradients_are_new = True

    @staticmethod
    def forward(
        ctx: Any,
        x: Any,
        weight: Any,
        bias: Any,
        mean: Any,
        var: Any,
        residual: Any,
        kind: _epilogue.Kind,
        training: bool,
        eps: float,
    ) -> Any:
        n, c, inner = x.shape[0], x.shape[1], math.prod(x.shape[2:])
        ctx.kind, ctx.layout = kind, (n, c, inner, training, eps)
        dtype = arrays.arithmetic_dtype(x)
        mean, var = (
            arrays.empty("batch_norm", (c,), dtype, x) if training else fixed.astype(dtype)
            for fixed in (mean, var)
        )

        def compute(kind: _epilogue.Kind) -> Any:
            y = arrays.empty_like("batch_norm", x)
            affine, rest = (x, weight, bias, mean, var), (*ctx.layout, kind, residual)
            _C.batch_norm(*affine, None, y, None, None, *rest)
            return y

        y, kept = _epilogue.forward("batch_norm", ctx, kind, compute)
        ctx.save_for_backward(x, weight, mean, var, kept)
        ctx.mark_non_differentiable(mean, var)
        return y, mean, var

    @staticmethod
    def backward(ctx: Any, grad_y: Any, *_: Any) -> Any:
        x, weight, mean, var, kept = ctx.saved
        grad_y = _epilogue.backward("batch_norm", ctx.kind, kept, grad_y)
        affine = [arrays.empty("batch_norm", mean.shape, x.dtype, x) for _ in range(2)]
        grads = arrays.empty_like("batch_norm", x), *affine
        _C.batch_norm(x, weight, None, mean, var, grad_y, *(*grads, *ctx.layout))
        return *grads, None, None, grad_y, None, None, None


def _running(op: str, name: str, value: Any, channels: int) -> Any:
    """The array of running statistics, which training updates in place."""
    array = array_of(value)
    if array is not None:
        arrays.check_float(op, name, array)
    if array is not None and array.shape != (channels,):
        raise ValueError(
            f"{op}: {name} must have one element per channel, ({channels},), "
            f"got {name}.shape={array.shape}"
        )
    return array


_known = Known(6, BatchNorm)


def batch_norm(
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    activation: Any = None,
    residual: Any = None,
) -> Any:
    """Normalises each channel of input [N, C, ...] over the batch and all positions.

    training: statistics of this batch, and running_mean and running_var [C] (arrays or Tensors,
    may be None) move towards them by `momentum`, in place. Otherwise they are the statistics.
    weight, bias: [C] or None. The result is activation(y + residual), as in conv2d.
    """
    statistics = running_mean, running_var
    asked = (input, weight, bias, *statistics, residual, training, momentum, eps, activation)
    y = _known.run(*asked)
    return _batch_norm("batch_norm", asked) if y is None else y


def _batch_norm(op: str, asked: tuple[Any, ...]) -> Any:
    """A call that is not known: its operands and options, in the order of `_known`."""
    input, weight, bias, running_mean, running_var, residual, *options = asked
    training, momentum, eps, activation = options
    kind = _epilogue.activation_kind(op, activation)
    x = _input(op, input, range(2, 65))
    c = x.shape[1]
    weight, bias = _tensors(op, x, weight, bias, (c,))
    mean = _running(op, "running_mean", running_mean, c)
    var = _running(op, "running_var", running_var, c)
    eps, momentum = _epsilon(op, eps), real(op, "momentum", momentum)
    if not flag(op, "training", training) and (mean is None or var is None):
        raise ValueError(
            f"{op}: running_mean and running_var are needed when not training, got None"
        )
    count = x.shape[0] * math.prod(x.shape[2:])
    if training and count < 2:
        raise ValueError(
            f"{op}: training needs more than 1 value per channel, got input.shape={x.shape}"
        )
    fixed = [None if s is None else arrays.asarray(op, "running", s) for s in (mean, var)]
    if not training:
        same_dtype(op, input=x, running_mean=fixed[0], running_var=fixed[1])
    added = None if residual is None else as_operand(op, "residual", residual)
    same_dtype(op, input=x, residual=added)
    _epilogue.check_residual(op, added, x.shape)
    record = (kind, bool(training), eps)
    y, used_mean, used_var = BatchNorm.apply(x, weight, bias, *fixed, added, *record)
    if training:
        unbiased = array_of(used_var) * (count / (count - 1))
        for running, batch in ((mean, array_of(used_mean)), (var, unbiased)):
            if running is not None:
                running += momentum * (batch - running)
    tells = _epilogue.output_tells_kernel(kind)
    layout = (x.shape[0], c, math.prod(x.shape[2:]))
    rest = (*layout, bool(training), momentum, eps, kind, tells)
    return _known.remember(asked, y, _C.batch_norm_call, rest, record)


def _input(op: str, input: Any, ranks: Any) -> Any:
    """A contiguous array or Tensor of an accepted rank."""
    x = as_operand(op, "input", input)
    check_rank(op, "input", x, ranks)
    return x


def _tensors(op: str, x: Any, weight: Any, bias: Any, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """weight and bias checked; Tensors stay Tensors so that gradients reach them."""
    _affine(op, array_of(x), array_of(weight), array_of(bias), shape)
    return tuple(
        None if value is None else as_operand(op, name, value)
        for name, value in (("weight", weight), ("bias", bias))
    )  # type: ignore[return-value]


class GroupNorm(Function):
    """layout: (outer, groups, channels, inner) as in csrc/ops/normalization.h."""

    kernels_only = True
    gradients_are_new = True

    @staticmethod
    def forward(
        ctx: Any, x: Any, weight: Any, bias: Any, op: str, layout: tuple[int, ...], eps: float
    ) -> Any:
        ctx.op, ctx.options = op, (*layout, eps)
        rows, kept = (layout[0] * layout[1],), arrays.arithmetic_dtype(x)
        mean, rstd = (arrays.empty(op, rows, kept, x) for _ in range(2))
        y = arrays.empty_like(op, x)
        _C.group_norm(x, weight, bias, mean, rstd, None, y, None, None, *ctx.options)
        ctx.save_for_backward(x, weight, mean, rstd)
        given = bias if weight is None else weight
        ctx.affine_shape = (layout[1] * layout[2],) if given is None else given.shape
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Any) -> Any:
        x, weight, mean, rstd = ctx.saved
        grad_y = arrays.asarray(ctx.op, "grad_y", grad_y)
        affine = [arrays.empty(ctx.op, ctx.affine_shape, x.dtype, x) for _ in range(2)]
        grads = arrays.empty_like(ctx.op, x), *affine
        _C.group_norm(x, weight, None, mean, rstd, grad_y, *(*grads, *ctx.options))
        return *grads, None, None, None


_known_groups, _known_layers = Known(3, GroupNorm), Known(3, GroupNorm)


def _group_norm(
    known: Known,
    asked: tuple[Any, ...],
    op: str,
    x: Any,
    weight: Any,
    bias: Any,
    layout: tuple[int, ...],
    eps: Any,
) -> Any:
    epsilon = _epsilon(op, eps)
    y = GroupNorm.apply(x, weight, bias, op, layout, epsilon)
    rest = (*layout, epsilon)
    return known.remember(asked, y, _C.group_norm_call, rest, (op, layout, epsilon))


def group_norm(
    input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Any:
    """Normalises each of num_groups groups of channels of each image of input [N, C, ...].

    weight, bias: [C] or None. num_groups must divide C.
    """
    op = "group_norm"
    asked = (input, weight, bias, num_groups, eps)
    y = _known_groups.run(*asked)
    if y is not None:
        return y
    x = _input(op, input, range(2, 65))
    groups = integer(op, "num_groups", num_groups, minimum=1)
    if x.shape[1] % groups:
        raise ValueError(
            f"{op}: num_groups must divide the channels, got num_groups={groups}, "
            f"input.shape={x.shape}"
        )
    weight, bias = _tensors(op, x, weight, bias, (x.shape[1],))
    layout = (x.shape[0], groups, x.shape[1] // groups, math.prod(x.shape[2:]))
    return _group_norm(_known_groups, asked, op, x, weight, bias, layout, eps)


def _normalized_shape(op: str, x: Any, normalized_shape: Any) -> tuple[int, ...]:
    given = normalized_shape if isinstance(normalized_shape, tuple | list) else (normalized_shape,)
    shape = tuple(integer(op, "normalized_shape", size, minimum=1) for size in given)
    if not shape or x.shape[-len(shape) :] != shape:
        raise ValueError(
            f"{op}: normalized_shape must be the last axes of input, "
            f"got normalized_shape={shape}, input.shape={x.shape}"
        )
    return shape


def layer_norm(
    input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Any:
    """Normalises over the last axes of input, whose sizes are normalized_shape.

    weight, bias: of normalized_shape, or None.
    """
    op = "layer_norm"
    asked = (input, weight, bias, normalized_shape, eps)
    y = _known_layers.run(*asked)
    if y is not None:
        return y
    x = _input(op, input, range(1, 65))
    shape = _normalized_shape(op, x, normalized_shape)
    weight, bias = _tensors(op, x, weight, bias, shape)
    layout = (math.prod(x.shape[: x.ndim - len(shape)]), 1, math.prod(shape), 1)
    return _group_norm(_known_layers, asked, op, x, weight, bias, layout, eps)


def instance_norm(
    input: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """Normalises each channel of each image of input [N, C, ...].

    use_input_stats: statistics of each image, whose means over the batch move running_mean and
    running_var [C] by `momentum`, in place. Otherwise those are the statistics, as in batch_norm.
    """
    op = "instance_norm"
    if not flag(op, "use_input_stats", use_input_stats):
        options = None, False, momentum, eps, None
        asked = (input, weight, bias, running_mean, running_var, *options)
        y = _known.run(*asked)
        return _batch_norm(op, asked) if y is None else y
    x = _input(op, input, range(3, 65))
    n, c, size = x.shape[0], x.shape[1], math.prod(x.shape[2:])
    if size < 2:
        raise ValueError(f"{op}: needs more than 1 position per image, got input.shape={x.shape}")
    weight, bias = _tensors(op, x, weight, bias, (c,))
    rate = real(op, "momentum", momentum)
    flat = array_of(x).reshape(n, c, size)
    for name, running, batch in (
        ("running_mean", running_mean, lambda: flat.mean(2).mean(0)),
        ("running_var", running_var, lambda: flat.var(2, ddof=1).mean(0)),
    ):
        array = _running(op, name, running, c)
        if array is not None:
            array += rate * (batch() - array)
    return GroupNorm.apply(x, weight, bias, op, (n, c, 1, size), _epsilon(op, eps))


class RmsNorm(Function):
    """Of NumPy arrays; layout: rows and their length."""

    kernels_only = True
    gradients_are_new = True

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, layout: tuple[int, int], eps: float) -> Any:
        op = "rms_norm"
        x = arrays.asarray(op, "input", x)
        weight = None if weight is None else arrays.asarray(op, "weight", weight)
        ctx.options = (*layout, eps)
        rstd, y = arrays.empty(op, layout[:1], x.dtype), arrays.empty_like(op, x)
        _C.rms_norm(x, weight, rstd, None, y, None, *ctx.options)
        ctx.save_for_backward(x, weight, rstd)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Any) -> Any:
        x, weight, rstd = ctx.saved
        grad_y = arrays.asarray("rms_norm", "grad_y", grad_y)
        columns = ctx.options[1:2] if weight is None else weight.shape
        grads = arrays.empty_like("rms_norm", x), arrays.empty("rms_norm", columns, x.dtype)
        _C.rms_norm(x, weight, rstd, grad_y, *grads, *ctx.options)
        return *grads, None, None


_known_rows = Known(2, RmsNorm, layouts="copied")


@on_tensors
def rms_norm(
    input: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None
) -> Any:
    """weight * input / sqrt(mean(input^2) + eps) over the last axes (Zhang & Sennrich 2019).

    normalized_shape: the sizes of those axes. eps: None for the dtype's own.
    """
    op = "rms_norm"
    asked = (input, weight, normalized_shape, eps)
    if (y := _known_rows.run(*asked)) is not None:
        return y
    (x,), (factor,) = operands(op, input=input), operands(op, weight=weight)
    same_dtype(op, input=x, weight=factor)
    check_rank(op, "input", x, range(1, 65))
    shape = _normalized_shape(op, x, normalized_shape)
    if factor is not None and factor.shape != shape:
        raise ValueError(f"{op}: weight must have shape {shape}, got weight.shape={factor.shape}")
    least = float(np.finfo(x.dtype).eps) if eps is None else _epsilon(op, eps)
    leading = x.ndim - len(shape)
    if x.size and are_alike((x,) if factor is None else (x, factor), arrays.FLOATS):
        record = ((math.prod(x.shape[:leading]), math.prod(shape)), least)
        y = RmsNorm.apply(x, factor, *record)
        return _known_rows.remember(asked, y, _C.rms_norm_call, (*record[0], least), record)
    axes = tuple(range(leading, x.ndim))
    y = x / (mean_of_squares(x, axes) + least).sqrt()
    return y if factor is None else y * factor


@on_tensors
def normalize(input: Any, p: float = 2.0, dim: Any = 1, eps: float = 1e-12) -> Any:
    """input / max(norm, eps), the p-norm along the axis `dim`, several axes, or all (None, ())."""
    op = "normalize"
    (x,) = operands(op, input=input)
    several = () if dim is None else dim if isinstance(dim, tuple | list) else (dim,)
    axis = tuple(normal_axis(op, "dim", d, x.ndim) for d in several or range(x.ndim))
    if len(set(axis)) < len(axis):
        raise ValueError(f"{op}: dim must name each axis once, got dim={dim}")
    exponent = real(op, "p", p)
    if math.isnan(exponent):
        raise ValueError(f"{op}: p must be a number, got p={p}")
    return x / x.norm(exponent, axis, keepdim=True).clamp(min=_epsilon(op, eps))
