"""Convolution over one to three spatial axes, its gradients, and transposed convolution.

    y[n,k,o] = bias[k] + sum over c,r of x[n,c,o*stride - pad + r*dilation] * weight[k,c,r]

Three kernels close the family: `fprop`, `dgrad` (to x) and `wgrad` (to weight). A transposed
convolution is `dgrad` with the roles renamed, and each gradient is again one of the three. The
algorithms are `direct`, `im2col`, `implicit_gemm`, `winograd`, `winograd4` (larger tiles, and
larger rounding), `fft`, `depthwise` and, on CPUs only, `gather_gemm` (of the
pairs of positions that each tap joins, for short rows), `winograd2x4` (tiles in between),
`winograd4x1` (for narrow groups), `winograd5x5` (of 5x5 filters), `winograd1d` (of filters of one
row or column) and, with AMX, `implicit_gemm_bf16x6`, `_bf16x3` and `_bf16` (which round more and
more; the last one also with AVX512-BF16). `algo="auto"` takes the cheapest legal one, of those that
round more only what `set_float32_precision` allows;
`lamina.last_plan()` says which and why not the others. An algorithm asked for by name runs the
forward pass; the backward passes use it too where it is legal.
`activation=` and `residual=` are applied while the result is stored (functional/_epilogue.py).
"""

from __future__ import annotations

import importlib
import os
from typing import Any, NamedTuple

from .. import _C, arrays
from ..autograd import Function
from ..known import Known
from . import _epilogue
from ._arguments import check_rank, integer, one_of, same_dtype, tuple_of

__all__ = [
    "conv1d",
    "conv2d",
    "conv3d",
]

ALGORITHMS = (
    "auto",
    "direct",
    "im2col",
    "implicit_gemm",
    "gather_gemm",
    "implicit_gemm_bf16x6",
    "implicit_gemm_bf16x3",
    "implicit_gemm_bf16",
    "winograd",
    "winograd2x4",
    "winograd4x1",
    "winograd4",
    "winograd5x5",
    "winograd1d",
    "fft",
    "depthwise",
)


if os.environ.get("LAMINA_AUTOTUNE", "0") not in ("", "0"):
    importlib.import_module("lamina.autotuning").autotune(True)


class Geometry(NamedTuple):
    """How the filter moves: per spatial axis, and (low, high) pairs of padding."""

    op: str
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int
    algo: str
    workspace_limit: int  # bytes, -1 for none


def _three(values: Any, fill: int) -> tuple[int, ...]:
    """Kernels always see three spatial axes; missing leading ones have extent 1."""
    return (fill,) * (3 - len(values)) + tuple(values)


def kernel_shape(
    geometry: Geometry, x_shape: tuple[int, ...], weight_shape: tuple[int, ...], out: Any
) -> Any:
    """The kernels' ConvShape for x [N, C, in], weight [K, C/groups, kernel] and y [N, K, out]."""
    return _C.ConvShape(
        x_shape[0],
        x_shape[1],
        weight_shape[0],
        geometry.groups,
        _three(x_shape[2:], 1),
        _three(weight_shape[2:], 1),
        _three(out, 1),
        _three(geometry.stride, 1),
        _three([low for low, _ in geometry.padding], 0),
        _three(geometry.dilation, 1),
    )


def conv_shape(geometry: Geometry, x_shape: tuple[int, ...], weight_shape: tuple[int, ...]) -> Any:
    """The kernels' description of a whole convolution, for plans and benchmarks."""
    out = output_size(geometry, x_shape[2:], weight_shape[2:])
    return kernel_shape(geometry, x_shape, weight_shape, out)


def _run(
    geometry: Geometry,
    pass_: str,
    shape: Any,
    result: Any,
    x: Any = None,
    weight: Any = None,
    bias: Any = None,
    grad_y: Any = None,
    algo: str | None = None,
    kind: _epilogue.Kind = _epilogue.IDENTITY,
    residual: Any = None,
) -> Any:
    if result.size:
        _C.conv(
            geometry.op,
            pass_,
            shape,
            x,
            weight,
            bias,
            grad_y,
            result,
            algo or geometry.algo,
            geometry.workspace_limit,
            kind,
            residual,
        )
    return result


def _gradient_algo(geometry: Geometry, pass_: str, shape: Any, element_bytes: int) -> str:
    """The forward algorithm where it can run this pass too, else "auto"."""
    if geometry.algo != "auto":
        try:
            _C.conv_plan(
                geometry.op, pass_, shape, geometry.algo, geometry.workspace_limit, element_bytes
            )
        except ValueError:
            return "auto"
    return geometry.algo


def _dgrad(
    geometry: Geometry, shape: Any, x_shape: Any, grad_y: Any, weight: Any, algo: str | None = None
) -> Any:
    grad_x = arrays.empty(geometry.op, x_shape, grad_y.dtype, like=grad_y)
    return _run(geometry, "dgrad", shape, grad_x, grad_y=grad_y, weight=weight, algo=algo)


def _wgrad(
    geometry: Geometry, shape: Any, weight_shape: Any, x: Any, grad_y: Any, algo: str
) -> Any:
    grad_weight = arrays.empty(geometry.op, weight_shape, x.dtype, like=x)
    return _run(geometry, "wgrad", shape, grad_weight, x=x, grad_y=grad_y, algo=algo)


def _bgrad(geometry: Geometry, shape: Any, channels: int, grad_y: Any) -> Any:
    grad_bias = arrays.empty(geometry.op, (channels,), grad_y.dtype, like=grad_y)
    return _run(geometry, "bgrad", shape, grad_bias, grad_y=grad_y, algo="auto")


class Conv(Function):
    """f(y + residual), y from x [N, C, in], weight [K, C/groups, kernel] and bias [K] or None.

    shape: the kernels' description of it all; x and y may lack the batch axis.
    """

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
        geometry: Geometry,
        shape: Any,
        y_shape: tuple[int, ...],
    ) -> Any:
        def compute(kind: _epilogue.Kind) -> Any:
            y = arrays.empty(geometry.op, y_shape, x.dtype, like=x)
            given = {"x": x, "weight": weight, "bias": bias, "residual": residual}
            return _run(geometry, "fprop", shape, y, **given, kind=kind)

        y, kept = _epilogue.forward(geometry.op, ctx, kind, compute)
        ctx.shape, ctx.geometry, ctx.kind = shape, geometry, kind
        ctx.save_for_backward(x, weight, kept)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Any) -> Any:
        x, weight, kept = ctx.saved
        geometry, shape = ctx.geometry, ctx.shape
        grad_y = _epilogue.backward(geometry.op, ctx.kind, kept, grad_y)
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            algo = _gradient_algo(geometry, "dgrad", shape, x.itemsize)
            grad_x = _dgrad(geometry, shape, x.shape, grad_y, weight, algo)
        if ctx.needs_input_grad[1]:
            algo = _gradient_algo(geometry, "wgrad", shape, x.itemsize)
            grad_weight = _wgrad(geometry, shape, weight.shape, x, grad_y, algo)
        if ctx.needs_input_grad[2]:
            grad_bias = _bgrad(geometry, shape, weight.shape[0], grad_y)
        return grad_x, grad_weight, grad_bias, grad_y, None, None, None, None


class ConvInputGrad(Function):
    """The dgrad kernel as an operation of its own: y [N, K, out] -> x [N, C, in], plus bias [C].

    weight [K, C/groups, kernel]; shape: as Conv's. `conv_transpose` is this function.
    """

    kernels_only = True
    gradients_are_new = True

    @staticmethod
    def forward(
        ctx: Any,
        y: Any,
        weight: Any,
        bias: Any,
        residual: Any,
        kind: _epilogue.Kind,
        geometry: Geometry,
        shape: Any,
        x_shape: tuple[int, ...],
    ) -> Any:
        def compute(kind: _epilogue.Kind) -> Any:
            x = arrays.empty(geometry.op, x_shape, y.dtype, like=y)
            given = {"grad_y": y, "weight": weight, "bias": bias, "residual": residual}
            return _run(geometry, "dgrad", shape, x, **given, kind=kind)

        x, kept = _epilogue.forward(geometry.op, ctx, kind, compute)
        ctx.shape, ctx.geometry, ctx.kind = shape, geometry, kind
        ctx.save_for_backward(y, weight, kept)
        return x

    @staticmethod
    def backward(ctx: Any, grad_x: Any) -> Any:
        y, weight, kept = ctx.saved
        geometry, shape = ctx.geometry, ctx.shape
        grad_x = _epilogue.backward(geometry.op, ctx.kind, kept, grad_x)
        grad_y = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            algo = _gradient_algo(geometry, "fprop", shape, y.itemsize)
            grad_y = arrays.empty(geometry.op, y.shape, y.dtype, like=y)
            _run(geometry, "fprop", shape, grad_y, x=grad_x, weight=weight, algo=algo)
        if ctx.needs_input_grad[1]:
            algo = _gradient_algo(geometry, "wgrad", shape, y.itemsize)
            grad_weight = _wgrad(geometry, shape, weight.shape, grad_x, y, algo)
        if ctx.needs_input_grad[2]:
            channels = weight.shape[1] * geometry.groups
            grad_bias = _bgrad(geometry, shape.resulting_in_input, channels, grad_x)
        return grad_y, grad_weight, grad_bias, grad_x, None, None, None, None


def output_size(
    geometry: Geometry, in_size: tuple[int, ...], kernel: tuple[int, ...]
) -> tuple[int, ...]:
    """floor((in + pads - dilation * (kernel - 1) - 1) / stride) + 1 per axis, at least 1."""
    sizes = []
    for axis, (extent, taps) in enumerate(zip(in_size, kernel, strict=True)):
        low, high = geometry.padding[axis]
        stride, dilation = geometry.stride[axis], geometry.dilation[axis]
        reach = dilation * (taps - 1) + 1
        if extent + low + high < reach:
            raise ValueError(
                f"{geometry.op}: the kernel reaches over {reach} positions but the padded input "
                f"has {extent + low + high} along spatial axis {axis}, got input size={extent}, "
                f"kernel={taps}, padding={(low, high)}, dilation={dilation}; "
                "add padding or use a smaller kernel"
            )
        sizes.append((extent + low + high - reach) // stride + 1)
    return tuple(sizes)


def padding_pairs(
    op: str, padding: Any, in_size: Any, kernel: Any, stride: Any, dilation: Any
) -> tuple[tuple[int, int], ...]:
    """(low, high) per axis of a number, one number or one pair per axis, 'valid' or 'same'.

    'same': out = ceil(in / stride); an odd total puts the extra element on the high side.
    """
    n = len(in_size)
    if isinstance(padding, str):
        one_of(op, "padding", padding, ("valid", "same"))
        if padding == "valid":
            return ((0, 0),) * n
        pairs = []
        for extent, taps, s, d in zip(in_size, kernel, stride, dilation, strict=True):
            total = max((-(-extent // s) - 1) * s + d * (taps - 1) + 1 - extent, 0)
            pairs.append((total // 2, total - total // 2))
        return tuple(pairs)
    if isinstance(padding, tuple | list) and any(isinstance(p, tuple | list) for p in padding):
        if len(padding) != n or not all(isinstance(p, tuple | list) for p in padding):
            raise ValueError(
                f"{op}: padding must be a number, {n} numbers, {n} (low, high) pairs, 'valid' or "
                f"'same', got padding={padding!r}"
            )
        return tuple(tuple_of(op, "padding", pair, 2, minimum=0) for pair in padding)  # type: ignore[misc]
    return tuple((p, p) for p in tuple_of(op, "padding", padding, n, minimum=0))


def conv_operands(
    op: str, n: int, x: Any, weight: Any, bias: Any, residual: Any
) -> tuple[Any, Any, Any, Any, bool]:
    """Checked arrays or Tensors; x and the residual get a batch axis if x has none.

    The last result says whether it has none.
    """
    x, weight = as_operand(op, "input", x), as_operand(op, "weight", weight)
    bias = None if bias is None else as_operand(op, "bias", bias)
    residual = None if residual is None else as_operand(op, "residual", residual)
    check_rank(op, "input", x, (n + 1, n + 2), "(a batch axis is optional)")
    check_rank(op, "weight", weight, (n + 2,))
    same_dtype(op, input=x, weight=weight, bias=bias, residual=residual)
    if min(weight.shape[2:]) < 1 or weight.shape[0] < 1:
        raise ValueError(f"{op}: the kernel must not be empty, got weight.shape={weight.shape}")
    unbatched = x.ndim == n + 1
    if unbatched:
        x = x.reshape(1, *x.shape)
        residual = None if residual is None else residual.reshape(1, *residual.shape)
    return x, weight, bias, residual, unbatched


def as_operand(op: str, name: str, value: Any) -> Any:
    """Tensors stay Tensors (they carry gradients) unless their array needs converting first."""
    from ..tensor import Tensor

    if not isinstance(value, Tensor):
        return arrays.asarray(op, name, value)
    array = value._data  # not handed out: filters that were packed from it stay
    return value if arrays.asarray(op, name, array) is array else Contiguous.apply(value)


class Contiguous(Function):
    """A contiguous copy where an array is not; gradients pass through."""

    kernels_only = True

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return arrays.asarray("contiguous", "input", x)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return grad


def checked_limit(op: str, workspace_limit: int | None) -> int:
    return -1 if workspace_limit is None else integer(op, "workspace_limit", workspace_limit, 0)


def check_bias(op: str, bias: Any, channels: int) -> None:
    if bias is not None and bias.shape != (channels,):
        raise ValueError(
            f"{op}: bias must have one element per output channel, ({channels},), "
            f"got bias.shape={bias.shape}"
        )


def call_arguments(
    geometry: Geometry, transposed: bool, shape: Any, kind: _epilogue.Kind
) -> tuple[Any, ...]:
    """What _C.conv_call takes after the result's shape."""
    tells = _epilogue.output_tells_kernel(kind)
    return (geometry.op, transposed, shape, geometry.algo, geometry.workspace_limit, kind, tells)


_known = Known(4, Conv)


def _conv(asked: tuple[Any, ...]) -> Any:
    """A call that is not known: its operands and options, in the order of `_known`."""
    input, weight, bias, residual, n, stride, padding, dilation, groups, *others = asked
    algo, workspace_limit, activation = others
    op = f"conv{n}d"
    kind = _epilogue.activation_kind(op, activation)
    x, weight, bias, residual, unbatched = conv_operands(op, n, input, weight, bias, residual)
    groups = integer(op, "groups", groups, minimum=1)
    if x.shape[1] != weight.shape[1] * groups:
        raise ValueError(
            f"{op}: input has {x.shape[1]} channels but weight expects {weight.shape[1] * groups} "
            f"(weight.shape[1] * groups), got input.shape={x.shape}, "
            f"weight.shape={weight.shape}, groups={groups}"
        )
    if weight.shape[0] % groups:
        raise ValueError(
            f"{op}: groups must divide the output channels (weight.shape[0]), "
            f"got weight.shape={weight.shape}, groups={groups}"
        )
    check_bias(op, bias, weight.shape[0])
    strides = tuple_of(op, "stride", stride, n, minimum=1)
    dilations = tuple_of(op, "dilation", dilation, n, minimum=1)
    pairs = padding_pairs(op, padding, x.shape[2:], weight.shape[2:], strides, dilations)
    one_of(op, "algo", algo, ALGORITHMS)
    geometry = Geometry(
        op, strides, pairs, dilations, groups, algo, checked_limit(op, workspace_limit)
    )
    out = output_size(geometry, x.shape[2:], weight.shape[2:])
    y_shape = (x.shape[0], weight.shape[0], *out)
    _epilogue.check_residual(op, residual, y_shape)
    shape = kernel_shape(geometry, x.shape, weight.shape, out)
    y = Conv.apply(x, weight, bias, residual, kind, geometry, shape, y_shape)
    if unbatched:
        y, y_shape = y.reshape(y_shape[1:]), y_shape[1:]
    rest = call_arguments(geometry, False, shape, kind)
    return _known.remember(asked, y, _C.conv_call, rest, (kind, geometry, shape, y_shape))


def conv1d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    algo: str = "auto",
    workspace_limit: int | None = None,
    activation: Any = None,
    residual: Any = None,
) -> Any:
    """1-D convolution (cross-correlation) of input [N, C, L] or [C, L].

    weight [K, C/groups, S], bias [K], all float32 or all float64. padding: a number,
    one number or one (low, high) pair per axis, 'valid' or 'same' (out = ceil(in / stride)).
    workspace_limit in bytes. activation: None, a name such as "relu", or (name, parameters...) such
    as ("leaky_relu", 0.2); residual has the shape of the result, which is f(y + residual). Raises
    ValueError for shapes and options that do not fit, TypeError for dtypes.
    """
    options = (1, stride, padding, dilation, groups, algo, workspace_limit, activation)
    asked = (input, weight, bias, residual, *options)
    y = _known.run(*asked)
    return _conv(asked) if y is None else y


def conv2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    algo: str = "auto",
    workspace_limit: int | None = None,
    activation: Any = None,
    residual: Any = None,
) -> Any:
    """2-D convolution (cross-correlation) of input [N, C, H, W] or [C, H, W].

    weight [K, C/groups, R, S], bias [K], all float32 or all float64. padding: a number,
    one number or one (low, high) pair per axis, 'valid' or 'same' (out = ceil(in / stride)).
    workspace_limit in bytes. activation: None, a name such as "relu", or (name, parameters...) such
    as ("leaky_relu", 0.2); residual has the shape of the result, which is f(y + residual). Raises
    ValueError for shapes and options that do not fit, TypeError for dtypes.
    """
    options = (2, stride, padding, dilation, groups, algo, workspace_limit, activation)
    asked = (input, weight, bias, residual, *options)
    y = _known.run(*asked)
    return _conv(asked) if y is None else y


def conv3d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    algo: str = "auto",
    workspace_limit: int | None = None,
    activation: Any = None,
    residual: Any = None,
) -> Any:
    """3-D convolution (cross-correlation) of input [N, C, D, H, W] or [C, D, H, W].

    weight [K, C/groups, T, R, S], bias [K], all float32 or all float64. padding: a number,
    one number or one (low, high) pair per axis, 'valid' or 'same' (out = ceil(in / stride)).
    workspace_limit in bytes. activation: None, a name such as "relu", or (name, parameters...) such
    as ("leaky_relu", 0.2); residual has the shape of the result, which is f(y + residual). Raises
    ValueError for shapes and options that do not fit, TypeError for dtypes.
    """
    options = (3, stride, padding, dilation, groups, algo, workspace_limit, activation)
    asked = (input, weight, bias, residual, *options)
    y = _known.run(*asked)
    return _conv(asked) if y is None else y
