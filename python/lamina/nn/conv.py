"""Convolution and transposed convolution layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import functional as F
from ..functional._arguments import integer, tuple_of
from . import init
from .module import Module
from .parameter import Parameter


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
        *,
        algo: str = "auto",
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
        self.padding, self.algo = padding, algo
        first, second = self.out_channels, self.in_channels
        if self.transposed:
            first, second = second, first
        self.weight = Parameter(np.empty((first, second // groups, *self.kernel_size), dtype))
        self.register_parameter("bias", Parameter(np.empty(out_channels, dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        init.torch_default_(self.weight, self.bias)

    def extra_repr(self) -> str:
        words = [
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}",
            f"stride={self.stride}",
        ]
        if self.padding not in (0, (0,) * self.axes):
            words.append(f"padding={self.padding}")
        if self.dilation != (1,) * self.axes:
            words.append(f"dilation={self.dilation}")
        if self.groups != 1:
            words.append(f"groups={self.groups}")
        if self.bias is None:
            words.append("bias=False")
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
        *,
        algo: str = "auto",
        dtype: Any = np.float32,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            algo=algo,
            dtype=dtype,
        )
        self.output_padding = output_padding

    def forward(self, input: Any, output_size: Any = None) -> Any:
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
        )


class Conv1d(_ConvNd):
    """Arguments as torch.nn.Conv1d, padding and `algo` as functional.conv1d."""

    axes = 1

    def forward(self, input: Any) -> Any:
        return F.conv1d(
            input,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            algo=self.algo,
        )


class Conv2d(_ConvNd):
    """Arguments as torch.nn.Conv2d, padding and `algo` as functional.conv2d."""

    axes = 2

    def forward(self, input: Any) -> Any:
        return F.conv2d(
            input,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            algo=self.algo,
        )


class Conv3d(_ConvNd):
    """Arguments as torch.nn.Conv3d, padding and `algo` as functional.conv3d."""

    axes = 3

    def forward(self, input: Any) -> Any:
        return F.conv3d(
            input,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            algo=self.algo,
        )


class ConvTranspose1d(_ConvTransposeNd):
    """Arguments as torch.nn.ConvTranspose1d."""

    axes = 1


class ConvTranspose2d(_ConvTransposeNd):
    """Arguments as torch.nn.ConvTranspose2d."""

    axes = 2


class ConvTranspose3d(_ConvTransposeNd):
    """Arguments as torch.nn.ConvTranspose3d."""

    axes = 3
