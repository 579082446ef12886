"""Convolution and transposed convolution layers.

`algo` and `activation` are as in functional.conv2d; a call may name a `residual`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import functional as F
from ..functional._arguments import check_rank, integer, one_of, tuple_of
from ..functional.conv import padding_pairs
from . import init
from .module import Module
from .parameter import Parameter

_MODES = ("zeros", "reflect", "replicate", "circular")


def _is_plain(padding: Any) -> bool:
    """A number or one number an axis; not a word and not (low, high) pairs."""
    if isinstance(padding, tuple | list):
        return not any(isinstance(p, tuple | list) for p in padding)
    return not isinstance(padding, str)


class _ConvNd(Module):
    """weight [out, in / groups, kernel], transposed: [in, out / groups, kernel]; bias [out]."""

    axes: int
    transposed = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        algo: str = "auto",
        activation: Any = None,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__()
        name, n = type(self).__name__, self.axes
        self.in_channels = integer(name, "in_channels", in_channels, 1)
        self.out_channels = integer(name, "out_channels", out_channels, 1)
        self.groups = integer(name, "groups", groups, 1)
        for which, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels % groups:
                raise ValueError(
                    f"{name}: groups must divide {which}, got {which}={channels}, groups={groups}"
                )
        self.kernel_size = tuple_of(name, "kernel_size", kernel_size, n, 1)
        self.stride = tuple_of(name, "stride", stride, n, 1)
        self.dilation = tuple_of(name, "dilation", dilation, n, 1)
        self.output_padding = (0,) * n
        self.padding = tuple_of(name, "padding", padding, n, 0) if _is_plain(padding) else padding
        self.padding_mode = one_of(name, "padding_mode", padding_mode, _MODES)
        self.algo, self.activation = algo, activation
        first, second = self.out_channels, self.in_channels
        if self.transposed:
            first, second = second, first
        self.weight = Parameter(np.empty((first, second // groups, *self.kernel_size), dtype))
        self.register_parameter("bias", Parameter(np.empty(out_channels, dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        init.torch_default_(self.weight, self.bias)

    def forward(self, input: Any, *, residual: Any = None) -> Any:
        padding = self.padding
        if self.padding_mode != "zeros":
            name = type(self).__name__
            check_rank(name, "input", input, (self.axes + 1, self.axes + 2))
            size = input.shape[-self.axes :]
            pairs = padding_pairs(name, padding, size, self.kernel_size, self.stride, self.dilation)
            flat = [pad for pair in reversed(pairs) for pad in pair]
            input, padding = F.pad(input, flat, self.padding_mode), 0
        return getattr(F, f"conv{self.axes}d")(
            input,
            self.weight,
            self.bias,
            self.stride,
            padding,
            self.dilation,
            self.groups,
            algo=self.algo,
            activation=self.activation,
            residual=residual,
        )

    def extra_repr(self) -> str:
        words = [
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}",
            f"stride={self.stride}",
        ]
        if self.padding not in (0, (0,) * self.axes):
            words.append(f"padding={self.padding}")
        if self.dilation != (1,) * self.axes:
            words.append(f"dilation={self.dilation}")
        if any(self.output_padding):
            words.append(f"output_padding={self.output_padding}")
        if self.groups != 1:
            words.append(f"groups={self.groups}")
        if self.bias is None:
            words.append("bias=False")
        if self.padding_mode != "zeros":
            words.append(f"padding_mode={self.padding_mode}")
        if self.activation is not None:
            words.append(f"activation={self.activation!r}")
        return ", ".join(words)


class _ConvTransposeNd(_ConvNd):
    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
        padding_mode: str = "zeros",
        *,
        algo: str = "auto",
        activation: Any = None,
        dtype: Any = np.float32,
    ) -> None:
        name = type(self).__name__
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            one_of(name, "padding_mode", padding_mode, ("zeros",)),
            algo=algo,
            activation=activation,
            dtype=dtype,
        )
        self.output_padding = tuple_of(name, "output_padding", output_padding, self.axes, 0)

    def forward(self, input: Any, output_size: Any = None, *, residual: Any = None) -> Any:
        return getattr(F, f"conv_transpose{self.axes}d")(
            input,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.output_padding,
            self.groups,
            self.dilation,
            output_size=output_size,
            algo=self.algo,
            activation=self.activation,
            residual=residual,
        )


class Conv1d(_ConvNd):
    """Arguments as torch.nn.Conv1d, padding and `algo` as functional.conv1d."""

    axes = 1


class Conv2d(_ConvNd):
    """Arguments as torch.nn.Conv2d, padding and `algo` as functional.conv2d."""

    axes = 2


class Conv3d(_ConvNd):
    """Arguments as torch.nn.Conv3d, padding and `algo` as functional.conv3d."""

    axes = 3


class ConvTranspose1d(_ConvTransposeNd):
    """Arguments as torch.nn.ConvTranspose1d."""

    axes = 1


class ConvTranspose2d(_ConvTransposeNd):
    """Arguments as torch.nn.ConvTranspose2d."""

    axes = 2


class ConvTranspose3d(_ConvTransposeNd):
    """Arguments as torch.nn.ConvTranspose3d."""

    axes = 3
