"""Activations: y = f(x) element by element.

The kinds, their formulas and their one-sided derivatives are listed in csrc/ops/activation.h. Each
function takes float32 or float64 arrays or Tensors of any shape and returns the same kind, shape
and dtype. With `inplace` the result is written over the input, which is returned; only a recorded
tensor that shares its memory with others (a view) is left alone, and a new one is returned.
Raises TypeError for other dtypes, ValueError for parameters outside their range or a read-only
array in place, RuntimeError for a leaf in place whose gradient is recorded.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import _C, arrays
from ..autograd import Function, is_grad_enabled, is_recorded
from ..known import Known
from ..operations._common import is_known_array
from ..tensor import Tensor
from ._arguments import check_rank, flag, normal_axis, real, same_dtype

__all__ = [
    "celu",
    "elu",
    "gelu",
    "glu",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "leaky_relu",
    "logsigmoid",
    "mish",
    "prelu",
    "relu",
    "relu6",
    "rrelu",
    "selu",
    "sigmoid",
    "silu",
    "softplus",
    "softshrink",
    "softsign",
    "step",
    "tanh",
    "tanhshrink",
    "threshold",
]


class Activation(Function):
    """kind, a, b as in csrc/ops/activation.h."""

    kernels_only = True
    gradients_are_new = True

    @staticmethod
    def forward(ctx: Any, x: Any, op: str, kind: str, a: float, b: float) -> Any:
        x = arrays.asarray(op, "input", x)
        ctx.kind, ctx.a, ctx.b = kind, a, b
        ctx.save_for_backward(x)
        y = arrays.empty(op, x.shape, x.dtype, like=x)
        _C.activation(kind, a, b, x, None, y)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Any) -> Any:
        (x,) = ctx.saved
        grad_x = arrays.empty_like("activation", x)
        grad_y = arrays.asarray(ctx.kind, "grad_y", grad_y)
        _C.activation(ctx.kind, ctx.a, ctx.b, x, grad_y, grad_x)
        return grad_x, None, None, None, None


# In place of an input: the function returns (kind, a, b) of the kernels for its parameters.
KIND_ONLY = object()


_known = Known(1, Activation, layouts="copied")


def _apply(
    op: str, x: Any, kind: str, a: float = 0.0, b: float = 0.0, inplace: bool = False
) -> Any:
    if x is KIND_ONLY:
        return kind, a, b
    if inplace and (y := _overwrite(op, x, kind, a, b)) is not None:
        return y
    y = _known.run(x, kind, a, b)
    if y is not None:
        return y
    y = Activation.apply(x, op, kind, a, b)
    rest = (kind, a, b)
    return _known.remember((x, kind, a, b), y, _C.activation_call, rest, (op, *rest))


class Overwrite(Function):
    """Activation whose result takes the place of x."""

    kernels_only = True
    gradients_are_new = True
    backward = Activation.backward

    @staticmethod
    def forward(ctx: Any, x: Any, op: str, kind: str, a: float, b: float) -> Any:
        array = arrays.asarray(op, "input", x)
        same_derivative = kind in ("relu", "hardtanh") or (kind == "leaky_relu" and a > 0)
        keep = ctx.needs_input_grad[0] and not same_derivative  # at f(x) as at x
        source = array.copy() if keep else array
        _C.activation(kind, a, b, source, None, array)
        if array is not x:
            x[...] = array
        ctx.kind, ctx.a, ctx.b = kind, a, b
        ctx.save_for_backward(source if keep else x)
        return x


def _overwrite(op: str, x: Any, kind: str, a: float, b: float) -> Any:
    """x, which holds f(x) now; None for a recorded x that shares its memory with other tensors."""
    array = x
    if isinstance(x, Tensor):
        array = x._data
        if is_recorded(x) and is_grad_enabled():
            if x.grad_fn is None:
                raise RuntimeError(
                    f"{op}: inplace would write over a leaf whose gradient is wanted, got "
                    "requires_grad=True; leave out inplace, or use with no_grad()"
                )
            if x._version is not None:
                return None
        x._writes().count += 1
    if not getattr(getattr(array, "flags", None), "writeable", True):
        raise ValueError(f"{op}: inplace needs a writable array, got a read-only one")
    y = Overwrite.apply(x, op, kind, a, b)
    if isinstance(x, Tensor):
        x.grad_fn, x._index = y.grad_fn, y._index
    return x


def relu(input: Any, inplace: bool = False) -> Any:
    """max(x, 0)."""
    return _apply("relu", input, "relu", inplace=inplace)


def relu6(input: Any, inplace: bool = False) -> Any:
    """min(max(x, 0), 6)."""
    return _apply("relu6", input, "hardtanh", 0.0, 6.0, inplace=inplace)


def leaky_relu(input: Any, negative_slope: float = 0.01, inplace: bool = False) -> Any:
    """x for x > 0, else negative_slope * x (Maas et al. 2013)."""
    slope = real("leaky_relu", "negative_slope", negative_slope)
    return _apply("leaky_relu", input, "leaky_relu", slope, inplace=inplace)


def elu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Any:
    """x for x > 0, else alpha * (exp(x) - 1) (Clevert et al. 2016)."""
    return _apply("elu", input, "elu", real("elu", "alpha", alpha), inplace=inplace)


def selu(input: Any, inplace: bool = False) -> Any:
    """Self-normalising scaled elu (Klambauer et al. 2017)."""
    return _apply(
        "selu", input, "selu", 1.6732632423543772848, 1.0507009873554804934, inplace=inplace
    )


def celu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Any:
    """x for x > 0, else alpha * (exp(x / alpha) - 1) (Barron 2017). ValueError for alpha 0."""
    alpha = real("celu", "alpha", alpha)
    if alpha == 0:
        raise ValueError("celu: alpha must not be zero, got alpha=0")
    return _apply("celu", input, "celu", alpha, inplace=inplace)


def gelu(input: Any, approximate: str = "none") -> Any:
    """x * normal_cdf(x), or its tanh approximation (Hendrycks & Gimpel 2016)."""
    if approximate not in ("none", "tanh"):
        raise ValueError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")
    return _apply("gelu", input, "gelu" if approximate == "none" else "gelu_tanh")


def silu(input: Any, inplace: bool = False) -> Any:
    """x * sigmoid(x)."""
    return _apply("silu", input, "silu", inplace=inplace)


def mish(input: Any, inplace: bool = False) -> Any:
    """x * tanh(softplus(x)) (Misra 2019)."""
    return _apply("mish", input, "mish", inplace=inplace)


def softplus(input: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    """log(1 + exp(beta * x)) / beta, and x itself where beta * x > threshold."""
    beta = real("softplus", "beta", beta)
    if beta == 0:
        raise ValueError("softplus: beta must not be zero, got beta=0")
    return _apply("softplus", input, "softplus", beta, real("softplus", "threshold", threshold))


def softsign(input: Any) -> Any:
    """x / (1 + |x|)."""
    return _apply("softsign", input, "softsign")


def _shrink(op: str, input: Any, lambd: float) -> Any:
    lambd = real(op, "lambd", lambd)
    if lambd < 0:
        raise ValueError(f"{op}: lambd must not be negative, got lambd={lambd}")
    return _apply(op, input, op, lambd)


def softshrink(input: Any, lambd: float = 0.5) -> Any:
    """sign(x) * max(|x| - lambd, 0)."""
    return _shrink("softshrink", input, lambd)


def hardshrink(input: Any, lambd: float = 0.5) -> Any:
    """x where |x| > lambd, else 0."""
    return _shrink("hardshrink", input, lambd)


def tanhshrink(input: Any) -> Any:
    """x - tanh(x)."""
    return _apply("tanhshrink", input, "tanhshrink")


def hardtanh(input: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Any:
    """min(max(x, min_val), max_val). ValueError unless min_val <= max_val."""
    low, high = real("hardtanh", "min_val", min_val), real("hardtanh", "max_val", max_val)
    if low > high:
        raise ValueError(
            f"hardtanh: min_val must not exceed max_val, got min_val={low}, max_val={high}"
        )
    return _apply("hardtanh", input, "hardtanh", low, high, inplace=inplace)


def hardsigmoid(input: Any, inplace: bool = False) -> Any:
    """min(max(x + 3, 0), 6) / 6."""
    return _apply("hardsigmoid", input, "hardsigmoid", inplace=inplace)


def hardswish(input: Any, inplace: bool = False) -> Any:
    """x * hardsigmoid(x) (Howard et al. 2019)."""
    return _apply("hardswish", input, "hardswish", inplace=inplace)


def threshold(input: Any, threshold: float, value: float, inplace: bool = False) -> Any:
    """x where x > threshold, else value."""
    limit = real("threshold", "threshold", threshold)
    return _apply(
        "threshold", input, "threshold", limit, real("threshold", "value", value), inplace=inplace
    )


def logsigmoid(input: Any) -> Any:
    """log(sigmoid(x)), without overflow."""
    return _apply("logsigmoid", input, "logsigmoid")


def sigmoid(input: Any, slope: float = 1.0) -> Any:
    """1 / (1 + exp(-slope * x)); `slope` is an extension of torch's."""
    return _apply("sigmoid", input, "sigmoid", real("sigmoid", "slope", slope))


def tanh(input: Any) -> Any:
    """tanh(x)."""
    return _apply("tanh", input, "tanh")


def step(input: Any) -> Any:
    """1 where x > 0, else 0; its gradient is zero everywhere."""
    return _apply("step", input, "step")


class Prelu(Function):
    kernels_only = True
    gradients_are_new = True

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any) -> Any:
        x, weight = arrays.asarray("prelu", "input", x), arrays.asarray("prelu", "weight", weight)
        same_dtype("prelu", input=x, weight=weight)
        channels = x.shape[1] if x.ndim >= 2 else 1
        if weight.ndim > 1 or weight.size not in (1, channels):
            raise ValueError(
                f"prelu: weight must have 1 element or one per channel ({channels}), "
                f"got weight.shape={weight.shape}, input.shape={x.shape}"
            )
        n = x.shape[0] if x.ndim >= 2 else x.size
        inner = x.size // (n * channels) if x.size else 0
        ctx.layout = (n, channels, inner)
        ctx.save_for_backward(x, weight)
        y = arrays.empty("prelu", x.shape, x.dtype, like=x)
        _C.prelu("fprop", x, weight, None, y, *ctx.layout)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Any) -> Any:
        x, weight = ctx.saved
        grad_y = arrays.asarray("prelu", "grad_y", grad_y)
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = arrays.empty_like("activation", x)
        if ctx.needs_input_grad[1]:
            grad_weight = arrays.empty_like("activation", weight)
        if grad_x is not None and grad_weight is not None and not arrays.on_gpu_kernels(x):
            _C.prelu_gradients(x, weight, grad_y, grad_x, grad_weight, *ctx.layout)
            return grad_x, grad_weight
        if grad_x is not None:
            _C.prelu("dgrad", x, weight, grad_y, grad_x, *ctx.layout)
        if grad_weight is not None:
            _C.prelu("wgrad", x, weight, grad_y, grad_weight, *ctx.layout)
        return grad_x, grad_weight


def prelu(input: Any, weight: Any) -> Any:
    """x for x > 0, else weight[c] * x; c is axis 1. weight: [C] or one element (He et al. 2015)."""
    return Prelu.apply(input, weight)


class Glu(Function):
    @staticmethod
    def forward(ctx: Any, x: Any, dim: int) -> Any:
        x = arrays.asarray("glu", "input", x)
        check_rank("glu", "input", x, range(1, 65))
        axis = normal_axis("glu", "dim", dim, x.ndim)
        if x.shape[axis] % 2:
            raise ValueError(
                f"glu: the halved dimension must be even, got input.shape={x.shape}, dim={dim}"
            )
        ctx.axis = axis
        if type(x) is np.ndarray:
            ctx.layout = _halves(x.shape, axis)
            ctx.save_for_backward(x)
            shape = [n // 2 if d == axis else n for d, n in enumerate(x.shape)]
            y = arrays.empty("glu", tuple(shape), x.dtype)
            _C.glu(x, None, y, *ctx.layout)
            return y
        contiguous = arrays.module_of(x).ascontiguousarray
        value, gate = (contiguous(half) for half in np.split(x, 2, axis))
        opened = arrays.empty_like("activation", gate)
        _C.activation("sigmoid", 1.0, 0.0, gate, None, opened)
        ctx.save_for_backward(value, gate, opened)
        return value * opened

    @staticmethod
    def backward(ctx: Any, grad_y: Any) -> Any:
        if len(ctx.saved) == 1:
            (x,) = ctx.saved
            grad_x = arrays.empty_like("glu", x)
            grad_y = arrays.asarray("glu", "grad_y", grad_y)
            _C.glu(x, grad_y, grad_x, *ctx.layout)
            return grad_x, None
        value, gate, opened = ctx.saved
        grad_gate = arrays.empty_like("activation", gate)
        grad_opened = arrays.module_of(grad_y).ascontiguousarray(grad_y * value)
        _C.activation("sigmoid", 1.0, 0.0, gate, grad_opened, grad_gate)
        return np.concatenate([grad_y * opened, grad_gate], ctx.axis), None


def _halves(shape: tuple[int, ...], axis: int) -> tuple[int, int]:
    """How often the halves along the axis alternate in memory, and their elements."""
    outer = math.prod(shape[:axis])
    return outer, math.prod(shape[axis:]) // 2


_known_halves = Known(1, Glu, layouts="copied")


def glu(input: Any, dim: int = -1) -> Any:
    """a * sigmoid(b), a and b the halves of x along dim (Dauphin et al. 2017)."""
    y = _known_halves.run(input, dim)
    if y is None:
        y = Glu.apply(input, dim)
        if is_known_array(y, arrays.FLOATS):
            layout = _halves(input.shape, normal_axis("glu", "dim", dim, input.ndim))
            _known_halves.remember((input, dim), y, _C.glu_call, layout, (dim,))
    return y


def rrelu(
    input: Any,
    lower: float = 1.0 / 8,
    upper: float = 1.0 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Any:
    """Leaky relu whose slope is drawn from [lower, upper] per element in training, their mean else.

    Xu et al. 2015. ValueError unless lower <= upper.
    """
    low, high = real("rrelu", "lower", lower), real("rrelu", "upper", upper)
    if low > high:
        raise ValueError(f"rrelu: lower must not exceed upper, got lower={low}, upper={high}")
    if not flag("rrelu", "training", training):
        return _apply("rrelu", input, "leaky_relu", (low + high) / 2, inplace=inplace)
    return RandomRelu.apply(input, low, high)


class RandomRelu(Function):
    @staticmethod
    def forward(ctx: Any, x: Any, lower: float, upper: float) -> Any:
        from ..random import generator

        x = arrays.asarray("rrelu", "input", x)
        slopes = generator().uniform(lower, upper, x.shape).astype(x.dtype)
        slopes = arrays.to_device("rrelu", slopes, arrays.device_of(x))
        factors = np.where(x >= 0, np.ones_like(x), slopes)
        ctx.save_for_backward(factors)
        return x * factors

    @staticmethod
    def backward(ctx: Any, grad_y: Any) -> Any:
        return grad_y * ctx.saved[0], None, None
