"""Transposed convolution over one to three spatial axes: the input gradient of a convolution.

Same kernels, roles renamed: x [N, C, in] is the convolution's grad_y, weight [C, K/groups, kernel]
its filters, the result its grad_x, plus bias [K].
"""

from __future__ import annotations

from typing import Any

from .. import _C
from ..known import Known
from . import _epilogue
from ._arguments import integer, one_of, tuple_of
from .conv import (
    ALGORITHMS,
    ConvInputGrad,
    Geometry,
    call_arguments,
    check_bias,
    checked_limit,
    conv_operands,
    kernel_shape,
    padding_pairs,
)

__all__ = ["conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]


def _transposed_size(
    op: str, in_size: Any, kernel: Any, geometry: Geometry, output_padding: Any, output_size: Any
) -> tuple[int, ...]:
    """(in - 1) * stride - pads + dilation * (kernel - 1) + 1 + output_padding per axis."""
    n = len(in_size)
    smallest = [
        (extent - 1) * s - low - high + d * (taps - 1) + 1
        for extent, taps, s, d, (low, high) in zip(
            in_size, kernel, geometry.stride, geometry.dilation, geometry.padding, strict=True
        )
    ]
    if output_size is not None:
        wanted = tuple_of(op, "output_size", output_size, n, minimum=1)
        for axis, (size, least) in enumerate(zip(wanted, smallest, strict=True)):
            if not least <= size < least + geometry.stride[axis]:
                raise ValueError(
                    f"{op}: output_size along spatial axis {axis} must be from {least} to "
                    f"{least + geometry.stride[axis] - 1}, got output_size={wanted}"
                )
        return wanted
    extra = tuple_of(op, "output_padding", output_padding, n, minimum=0)
    for axis, amount in enumerate(extra):
        limit = max(geometry.stride[axis], geometry.dilation[axis])
        if amount >= limit:
            raise ValueError(
                f"{op}: output_padding must be smaller than stride or dilation, "
                f"got output_padding={extra}, stride={geometry.stride}, "
                f"dilation={geometry.dilation}"
            )
    sizes = tuple(least + amount for least, amount in zip(smallest, extra, strict=True))
    if min(sizes) < 1:
        raise ValueError(
            f"{op}: the output would have size {sizes}; use less padding, "
            f"got input size={tuple(in_size)}, kernel={tuple(kernel)}, padding={geometry.padding}"
        )
    return sizes


_known = Known(4, ConvInputGrad)


def _conv_transpose(asked: tuple[Any, ...]) -> Any:
    """A call that is not known: its operands and options, in the order of `_known`."""
    input, weight, bias, residual, n, stride, padding, output_padding, *others = asked
    groups, dilation, output_size, algo, workspace_limit, activation = others
    op = f"conv_transpose{n}d"
    kind = _epilogue.activation_kind(op, activation)
    x, weight, bias, residual, unbatched = conv_operands(op, n, input, weight, bias, residual)
    groups = integer(op, "groups", groups, minimum=1)
    if x.shape[1] != weight.shape[0]:
        raise ValueError(
            f"{op}: input has {x.shape[1]} channels but weight expects {weight.shape[0]} "
            f"(weight.shape[0]), got input.shape={x.shape}, weight.shape={weight.shape}"
        )
    if weight.shape[0] % groups:
        raise ValueError(
            f"{op}: groups must divide the input channels (weight.shape[0]), "
            f"got weight.shape={weight.shape}, groups={groups}"
        )
    if weight.shape[1] < 1:
        raise ValueError(f"{op}: weight has no output channels, got weight.shape={weight.shape}")
    check_bias(op, bias, weight.shape[1] * groups)
    strides = tuple_of(op, "stride", stride, n, minimum=1)
    dilations = tuple_of(op, "dilation", dilation, n, minimum=1)
    if isinstance(padding, str):
        raise ValueError(f"{op}: padding must be numbers, got padding={padding!r}")
    pairs = padding_pairs(op, padding, x.shape[2:], weight.shape[2:], strides, dilations)
    one_of(op, "algo", algo, ALGORITHMS)
    geometry = Geometry(
        op, strides, pairs, dilations, groups, algo, checked_limit(op, workspace_limit)
    )
    if min(x.shape[2:]) < 1:
        raise ValueError(
            f"{op}: the input is empty along a spatial axis, got input.shape={x.shape}"
        )
    size = _transposed_size(
        op, x.shape[2:], weight.shape[2:], geometry, output_padding, output_size
    )
    y_shape = (x.shape[0], weight.shape[1] * groups, *size)
    _epilogue.check_residual(op, residual, y_shape)
    shape = kernel_shape(geometry, y_shape, weight.shape, x.shape[2:])
    y = ConvInputGrad.apply(x, weight, bias, residual, kind, geometry, shape, y_shape)
    if unbatched:
        y, y_shape = y.reshape(y_shape[1:]), y_shape[1:]
    rest = call_arguments(geometry, True, shape, kind)
    return _known.remember(asked, y, _C.conv_call, rest, (kind, geometry, shape, y_shape))


def conv_transpose1d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    output_size: Any = None,
    algo: str = "auto",
    workspace_limit: int | None = None,
    activation: Any = None,
    residual: Any = None,
) -> Any:
    """1-D transposed convolution of input [N, C, L] or [C, L]: the gradient of conv1d.

    weight [C, K/groups, S], bias [K]. output_size chooses among the sizes that a strided
    convolution would map to the input's, and replaces output_padding. activation and residual
    as in functional.conv2d. Raises ValueError for shapes and options that do not fit, TypeError for
    dtypes.
    """
    options = (1, stride, padding, output_padding, groups, dilation, output_size)
    asked = (input, weight, bias, residual, *options, algo, workspace_limit, activation)
    y = _known.run(*asked)
    return _conv_transpose(asked) if y is None else y


def conv_transpose2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    output_size: Any = None,
    algo: str = "auto",
    workspace_limit: int | None = None,
    activation: Any = None,
    residual: Any = None,
) -> Any:
    """2-D transposed convolution of input [N, C, H, W] or [C, H, W]: the gradient of conv2d.

    weight [C, K/groups, R, S], bias [K]. output_size chooses among the sizes that a strided
    convolution would map to the input's, and replaces output_padding. activation and residual
    as in functional.conv2d. Raises ValueError for shapes and options that do not fit, TypeError for
    dtypes.
    """
    options = (2, stride, padding, output_padding, groups, dilation, output_size)
    asked = (input, weight, bias, residual, *options, algo, workspace_limit, activation)
    y = _known.run(*asked)
    return _conv_transpose(asked) if y is None else y


def conv_transpose3d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    output_size: Any = None,
    algo: str = "auto",
    workspace_limit: int | None = None,
    activation: Any = None,
    residual: Any = None,
) -> Any:
    """3-D transposed convolution of input [N, C, D, H, W] or [C, D, H, W]: the gradient of conv3d.

    weight [C, K/groups, T, R, S], bias [K]. output_size chooses among the sizes that a strided
    convolution would map to the input's, and replaces output_padding. activation and residual
    as in functional.conv2d. Raises ValueError for shapes and options that do not fit, TypeError for
    dtypes.
    """
    options = (3, stride, padding, output_padding, groups, dilation, output_size)
    asked = (input, weight, bias, residual, *options, algo, workspace_limit, activation)
    y = _known.run(*asked)
    return _conv_transpose(asked) if y is None else y
